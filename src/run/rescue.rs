//! Rescues a volume from a failing disk to a file or device: in any order, with a map, and on after it has ended.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::memory::warn_of_memory;
use super::opened::Opened;
use super::provenance::origin_of;
use super::{Losses, Outcome, RunError, lock_volume, refuse_writable_mount, tell_space};
use crate::copy::CopyError;
use crate::copy::rescue::{Ending, Meter, pump};
use crate::copy::survey::sizes_of;
use crate::event::{Event, Observer, Phase, Silent};
use crate::extent::{ByteRange, ClusterSet, Extent};
use crate::io::disk::Disk;
use crate::io::identity::Known;
use crate::io::remote::{Ask, Wait};
use crate::io::stash::Stash;
use crate::io::store::{LocalStore, Store};
use crate::io::target::{Mapped, Target, TargetError, TargetName};
use crate::io::{PlacedSink, Source};
use crate::job::Job;
use crate::ntfs::boot::BOOT_SECTOR_LEN;
use crate::ntfs::first::Patterns;
use crate::ntfs::{Tolerance, Volume};
use crate::plan::Plan;
use crate::rescue::frozen::{self, Facts, Form};
use crate::rescue::mapfile::{DiskId, Head, Identity, Phase as MapPhase, write_domain};
use crate::rescue::mapstore::MapStore;
use crate::rescue::passes::{End, Pass};
use crate::rescue::{Area, Areas, Domain, Rescue, State};
use crate::units::Lcn;

mod begin;
mod complete;
mod keep;
mod look;
mod result;
mod source;

use begin::{Begun, Made, SURVEY_UNIT, begin, first_of};
pub(super) use complete::finish;
use complete::{Completed, Unfinished, complete};
use keep::{
    MapKeeper, MapLock, areas_of, check_same, forget_missing, has_finished, serial_of, unkept, volume_serial,
};
use look::{Looked, bridge, look};
use result::{Circumstances, find_hit, marked, write_report};
use source::TargetSource;

/// Time between two looks for a disk that has gone away.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often a disk may come back and go again without having given anything.
const MAX_IN_VAIN: u32 = 3;

/// Bad areas that are told one by one; the report has all of them.
const MAX_TOLD: usize = 100;

/// Rescues a volume to a target that is written in any order.
pub(super) fn rescue_volume(
    job: &Job,
    name: &TargetName,
    form: Form,
    observer: &dyn Observer,
) -> Result<Outcome, RunError> {
    let (start, started) = (Instant::now(), SystemTime::now());
    let patterns = Patterns::parse(&job.how.first)?;
    let path = job.source.path().unwrap_or(Path::new("-"));
    refuse_writable_mount(path)?;
    let _locked = lock_volume(path)?;
    let store = LocalStore;
    let mut map_lock = job.how.map.as_deref().map(MapLock::take).transpose()?;
    let (mut map, earlier) = match &job.how.map {
        None => (None, None),
        Some(file) => {
            let (map, earlier) = MapStore::open(&store, file)?;
            (Some(map), earlier)
        }
    };
    let mapped = match (&map, &earlier) {
        (None, _) => Mapped::No,
        (Some(_), None) => Mapped::New,
        // It was ended before it made its target.
        (Some(map), Some(_)) if !name.exists() && !has_finished(map)? => Mapped::New,
        (Some(_), Some(_)) => Mapped::Resumed,
    };
    let target = Target::examine_mapped(name, &[path], job.split, mapped)?;
    let disk = Disk::open(path)?;
    let known = Known::of(&disk);
    let max_time = job.how.budget.max_time;
    let ask = |waiting: Duration| {
        observer.tell(Event::Waiting(waiting));
        let is_over = observer.wants_stop() || max_time.is_some_and(|max| start.elapsed() >= max);
        if is_over { Wait::Stop } else { Wait::Go }
    };
    let mut opened = Opened::new(disk, &ask);
    let (len, sizes) = (opened.len(), sizes_of(&opened));
    let target_disk = target.device().map(|(size, file)| DiskId { serial: serial_of(file), size });

    // What an earlier run has decided stands, what it has read is in the target.
    let thawed = match (&job.how.map, &earlier) {
        (Some(file), Some(earlier)) if earlier.generation.is_some() => Some(
            frozen::thaw(&store, &frozen::path_of(file))?.ok_or_else(|| RunError::NoPlan(file.clone()))?,
        ),
        _ => None,
    };
    let is_resumed = thawed.is_some();
    let begun = match (thawed, &map) {
        (Some((plan, facts)), Some(map)) => {
            let identity = earlier.as_ref().and_then(|earlier| earlier.head.identity.as_ref());
            check_same(identity, &facts, form, &known, target_disk.as_ref(), &opened)?;
            let areas = areas_of(map, len, plan.geometry.cluster_size)?;
            observer.tell(Event::Note(format_args!("Going on where the map says.")));
            warn_of_memory(&plan.geometry, observer);
            tell_space(plan.nr_used, plan.geometry, observer);
            map_lock.as_mut().map_or(Ok(()), MapLock::claim)?;
            Begun { plan, facts, areas, stash: Stash::default(), first: Vec::new(), nr_damaged: 0 }
        }
        (_, map) => {
            let foreign = map.as_ref().filter(|_| earlier.is_some());
            if foreign.is_some() && form == Form::Image {
                return Err(RunError::ForeignMap(job.how.map.clone().unwrap_or_default()));
            }
            let (areas, in_target) = match foreign {
                None => (Areas::new(len, SURVEY_UNIT.into()), None),
                Some(map) => {
                    let in_target = (mapped == Mapped::Resumed).then(|| Disk::open(target.path()));
                    (areas_of(map, len, SURVEY_UNIT)?, in_target.transpose()?)
                }
            };
            let made = Made { form, checksum: job.checksum };
            let begun = loop {
                let areas = areas.with_unit(len, SURVEY_UNIT.into());
                match begin(made, &patterns, &opened, areas, in_target.as_ref(), &target, observer) {
                    Err(error) if error.is_of_gone_disk() => {
                        opened.close();
                        let disk = come_back(job, &known, path, None, None, observer).ok_or(error)?;
                        opened = Opened::new(disk, &ask);
                    }
                    other => break other?,
                }
            };
            map_lock.as_mut().map_or(Ok(()), MapLock::claim)?;
            if let Some(file) = &job.how.map {
                frozen::freeze(&store, &frozen::path_of(file), &begun.plan, &begun.facts)?;
            }
            begun
        }
    };
    let Begun { plan, facts, mut areas, stash, mut first, nr_damaged } = begun;
    write_domain_out(job, &store, &plan, len)?;

    let identity = Identity {
        disk: DiskId { serial: known.disk.serial.clone(), size: known.disk.size },
        volume_serial: facts.volume_serial,
        target: target_disk,
    };
    let head = Head { pos: 0, phase: MapPhase::Copying, pass: 1, identity: Some(identity) };
    if mapped == Mapped::New
        && let Some(map) = &mut map
    {
        // Without it a target that was ended at once would be nobody's.
        let range = ByteRange { pos: 0, len };
        map.save(&head, std::iter::once(Area { range, state: State::NonTried }))?;
    }
    let origin = job.checksum.then(|| origin_of(&known, facts.volume_serial));
    let tell_left = || tell_what_is_left(job, &target, observer);
    let mut sink = match target.open_placed(&plan, form, origin) {
        Err(TargetError::Locked(cause)) if mapped == Mapped::New => {
            // Another run has just made it: this one's map must not go on with that.
            if let (Some(map), Some(file)) = (map, &job.how.map) {
                map.discard()?;
                frozen::discard(&store, &frozen::path_of(file))?;
            }
            return Err(TargetError::Locked(cause).into());
        }
        other => other.inspect_err(|error| {
            if error.is_of_write() {
                tell_left();
            }
        })?,
    };
    put_held(&facts, &plan, sink.as_mut()).inspect_err(|_| tell_left())?;
    if is_resumed {
        forget_missing(&plan, &mut areas, sink.as_ref(), observer);
    }
    place(&stash, &plan, &mut areas, sink.as_mut(), mapped).inspect_err(|_| tell_left())?;
    drop(stash);
    if is_resumed && !patterns.is_empty() {
        let source = TargetSource { sink: sink.as_ref(), areas: &areas, repaired: &[], len };
        if let Ok(volume) = Volume::open(&source, Tolerance::RESCUE, &Silent) {
            first = first_of(&volume, &patterns, observer)?;
        }
    }

    let whole = whole_of(&plan, job.how.whole);
    let kept = domains_of(&plan, &[], None, whole.as_ref()).last().copied().unwrap_or_else(|| plan.domain());
    let keeper = MapKeeper { map, head, domain: kept, len, unkept: unkept(&facts, &plan) };
    let meter = Meter::new(start, job.how.map_interval);
    let mut driver = Driver {
        job,
        path,
        known: &known,
        facts: &facts,
        target: &target,
        ask: &ask,
        opened,
        keeper,
        meter,
        observer,
    };

    observer.tell(Event::Phase(Phase::Rescue));
    let (mut nr_errors, mut ending) = (0, Ending::End(End::Complete));
    let mut wanted = None;
    if facts.is_doubtful
        && let Some(Looked { used: mut sure, doubtful, bitmaps }) =
            look(sink.as_ref(), &areas, len, observer)?
    {
        // First what is in use beyond doubt, and all that can be had of what tells about the rest.
        if let Some(doubtful) = doubtful {
            sure.remove(&doubtful);
        }
        bridge(&mut sure, &plan);
        let mut rescue = Rescue::new(areas, len, sizes, job.how.budget);
        for domain in domains_of(&plan, &first, Some(&sure), None) {
            let domain = rescue.add_domain(domain);
            rescue.add_healthy(domain);
        }
        for clusters in &bitmaps {
            let domain = rescue.add_domain(domain_of(clusters, &plan));
            rescue.add_healthy(domain);
            for pass in [Pass::Sweep, Pass::Trim { last: true }, Pass::Scrape { jumping: true }] {
                rescue.add(domain, pass);
            }
        }
        ending = driver.drive(&mut rescue, &domain_of(&sure, &plan), sink.as_mut())?;
        (nr_errors, areas) = (rescue.nr_errors(), rescue.into_areas());
        // Each set may have a bit for each cluster: no more of them at a time than must be.
        drop((sure, bitmaps));
        if let Some(now) = look(sink.as_ref(), &areas, len, observer)? {
            wanted.insert(now.used).retain(plan.clusters());
        }
    }
    let domains = domains_of(&plan, &first, wanted.as_ref(), whole.as_ref());
    let domain = domains.last().copied().unwrap_or_else(|| plan.domain());
    let mut rescue = Rescue::new(areas, len, sizes, job.how.budget);
    rescue.count_errors(nr_errors);
    if ending == Ending::End(End::Complete) {
        let indexes: Vec<_> = domains.iter().map(|domain| rescue.add_domain(*domain)).collect();
        rescue.add_all(&indexes, job.how.retries);
        ending = driver.drive(&mut rescue, &domain, sink.as_mut())?;
    }
    let elapsed = start.elapsed();
    let Driver { mut keeper, opened, .. } = driver;
    drop(opened);

    if ending == Ending::Stopped {
        if job.how.map.is_none() {
            tell_what_is_left(job, &target, observer);
            return Err(CopyError::Stopped.into());
        }
        keeper.write(&rescue, true)?;
        return Ok(interrupted(nr_damaged, observer));
    }
    if ending == Ending::End(End::Complete) && finished_in(&domain, rescue.areas()) == 0 {
        tell_what_is_left(job, &target, observer);
        return Err(RunError::NothingRead);
    }
    let unfinished =
        Unfinished { plan: &plan, facts: &facts, domain, areas: rescue.areas(), repairs: job.how.repair };
    let completed = match complete(&unfinished, sink.as_mut(), observer) {
        Err(RunError::Copy { cause: CopyError::Stopped }) if job.how.map.is_some() => {
            keeper.write(&rescue, true)?;
            return Ok(interrupted(nr_damaged, observer));
        }
        other => other.inspect_err(|_| tell_what_is_left(job, &target, observer))?,
    };
    tell_lost(&unfinished, &completed, observer);
    keeper.conclude(&rescue)?;
    let hit = find_hit(&unfinished, &completed, sink.as_ref(), job.report.is_some(), observer);
    drop(sink);
    target.publish().inspect_err(|_| tell_left())?;
    let outcome = Outcome {
        losses: Losses { bytes: completed.marked, structures: nr_damaged + hit.lost.nr_records },
        ending: match ending {
            Ending::End(End::Complete) | Ending::Stopped => super::Ending::Complete,
            Ending::End(End::Gone) => super::Ending::Gone,
            Ending::End(End::Errors | End::Time) => super::Ending::Budget,
        },
    };
    if let Some(report) = &job.report {
        let circumstances = Circumstances {
            source: path,
            known: &known,
            started,
            elapsed,
            outcome: outcome.in_words(),
            exit_status: outcome.exit_status(job.strict),
        };
        write_report(report, &store, &circumstances, &unfinished, completed, hit)?;
    }
    Ok(outcome)
}

/// What came of a rescue that was asked to end, and has a map.
fn interrupted(nr_damaged: u64, observer: &dyn Observer) -> Outcome {
    observer.tell(Event::Note(format_args!("Interrupted: the same command goes on where this ended.")));
    let losses = Losses { bytes: 0, structures: nr_damaged };
    Outcome { losses, ending: super::Ending::Interrupted }
}

/// Reads what a rescue asks for, through all comings and goings of the disk.
struct Driver<'a> {
    job: &'a Job,
    path: &'a Path,
    known: &'a Known,
    facts: &'a Facts,
    target: &'a Target,
    ask: Ask<'a>,
    opened: Opened<'a>,
    keeper: MapKeeper<'a>,
    meter: Meter,
    observer: &'a dyn Observer,
}

impl Driver<'_> {
    /// Goes on until there is nothing more to read of `domain`, or no disk to read it from.
    fn drive(
        &mut self,
        rescue: &mut Rescue<'_>,
        domain: &Domain<'_>,
        sink: &mut dyn PlacedSink,
    ) -> Result<Ending, RunError> {
        let total = domain.ranges().map(|range| range.len).sum();
        self.meter.begin(total, finished_in(domain, rescue.areas()));
        let (mut rescued, mut nr_in_vain) = (self.meter.rescued(), 0);
        loop {
            let ending = pump(rescue, &self.opened, sink, &mut self.keeper, &mut self.meter, self.observer)
                .inspect_err(|_| tell_what_is_left(self.job, self.target, self.observer))?;
            if ending != Ending::End(End::Gone) {
                return Ok(ending);
            }
            self.opened.close();
            nr_in_vain = if self.meter.rescued() > rescued { 0 } else { nr_in_vain + 1 };
            rescued = self.meter.rescued();
            if nr_in_vain > MAX_IN_VAIN {
                return Ok(ending);
            }
            let good = rescue.areas().first(State::Finished, ByteRange { pos: 0, len: u64::MAX });
            let volume = Some(self.facts.volume_serial);
            let disk = come_back(self.job, self.known, self.path, volume, good, self.observer);
            let Some(disk) = disk else { return Ok(ending) };
            self.opened = Opened::new(disk, self.ask);
            rescue.revive();
        }
    }
}

/// The boot sector's bytes on the volume.
fn boot_range(plan: &Plan) -> ByteRange {
    ByteRange { pos: 0, len: plan.geometry.device_size.min(BOOT_SECTOR_LEN as u64) }
}

/// The extra cluster's bytes, of which there may be none.
fn extra_range(plan: &Plan) -> ByteRange {
    ByteRange { pos: plan.geometry.volume_size(), len: plan.geometry.extra_len().into() }
}

/// All clusters of the volume, if they are wanted.
fn whole_of(plan: &Plan, whole: bool) -> Option<ClusterSet> {
    whole.then(|| {
        let mut all = ClusterSet::new(plan.geometry.nr_clusters);
        all.insert_extent(Extent { lcn: Lcn(0), len: u64::MAX });
        all
    })
}

/// What is to be read, in the order of its importance; the last holds all of it. `wanted` stands in for the plan where
/// less of it is.
fn domains_of<'d>(
    plan: &'d Plan,
    first: &'d [ClusterSet],
    wanted: Option<&'d ClusterSet>,
    whole: Option<&'d ClusterSet>,
) -> Vec<Domain<'d>> {
    let cluster_size = u64::from(plan.geometry.cluster_size);
    let nothing = ByteRange { pos: plan.geometry.device_size, len: 0 };
    let first = first.iter().map(|clusters| Domain::new(clusters, cluster_size, nothing));
    let wanted = wanted.unwrap_or(plan.clusters());
    first.chain(std::iter::once(wanted).chain(whole).map(|clusters| domain_of(clusters, plan))).collect()
}

/// These clusters, and the extra one.
fn domain_of<'d>(clusters: &'d ClusterSet, plan: &Plan) -> Domain<'d> {
    Domain::new(clusters, plan.geometry.cluster_size.into(), extra_range(plan))
}

/// Gives a clone what is held back to its end.
fn put_held(facts: &Facts, plan: &Plan, sink: &mut dyn PlacedSink) -> Result<(), RunError> {
    for (held, range) in [(&facts.boot_sector, boot_range(plan)), (&facts.extra_cluster, extra_range(plan))] {
        if let Some(bytes) = held {
            sink.put(range.pos, bytes)?;
        }
    }
    Ok(())
}

/// Puts what was read before there was a place for it. What was read then and not kept is to be read again.
fn place(
    stash: &Stash,
    plan: &Plan,
    areas: &mut Areas,
    sink: &mut dyn PlacedSink,
    mapped: Mapped,
) -> Result<(), RunError> {
    let mut buf = vec![0; crate::copy::survey::BLOCK as usize];
    let mut missing = Vec::new();
    for range in plan.domain().ranges() {
        for area in areas.within(range).filter(|area| area.state == State::Finished) {
            for piece in pieces(area.range) {
                let data = buf.get_mut(..piece.len as usize).unwrap_or_default();
                if stash.get(piece.pos, data) {
                    sink.put(piece.pos, data)?;
                } else if mapped != Mapped::Resumed {
                    missing.push(piece);
                }
            }
        }
    }
    missing.into_iter().for_each(|piece| areas.set(piece, State::NonTried));
    Ok(())
}

/// A stretch in pieces of a block at most.
fn pieces(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let block = crate::copy::survey::BLOCK;
    (range.pos / block..range.end().div_ceil(block))
        .map(move |no| {
            let (pos, end) = ((no * block).max(range.pos), ((no + 1) * block).min(range.end()));
            ByteRange { pos, len: end - pos }
        })
        .filter(|piece| piece.len > 0)
}

fn finished_in(domain: &Domain<'_>, areas: &Areas) -> u64 {
    let areas = domain.ranges().flat_map(|range| areas.within(range));
    areas.filter(|area| area.state == State::Finished).map(|area| area.range.len).sum()
}

/// Writes which bytes are in use, if that is asked for.
pub(super) fn write_domain_out(job: &Job, store: &dyn Store, plan: &Plan, len: u64) -> Result<(), RunError> {
    let Some(path) = &job.domain_out else { return Ok(()) };
    let written = store.write(path, &mut |out| write_domain(out, plan.ranges(), len));
    written.map_err(|cause| RunError::SideFile { what: "domain map", path: path.clone(), cause })
}

/// Waits for a disk that has gone away, as long as was asked for.
/// The volume's serial number is compared where it is known. A disk may as well be there and not answer: it is back when
/// a place that was `good` can be read, or else the boot sector.
fn come_back(
    job: &Job,
    known: &Known,
    path: &Path,
    volume: Option<u64>,
    good: Option<ByteRange>,
    observer: &dyn Observer,
) -> Option<Disk> {
    if job.how.reconnect.is_zero() {
        return None;
    }
    observer.tell(Event::Warning(format_args!(
        "the disk has gone; waiting {} s for it to come back",
        job.how.reconnect.as_secs()
    )));
    let gone = Instant::now();
    let mut told = None;
    while gone.elapsed() < job.how.reconnect && !observer.wants_stop() {
        observer.tell(Event::Waiting(gone.elapsed()));
        if let Some(found) = known.find_again()
            && let Ok(disk) = Disk::open(&found)
            && disk.len() == known.size
            && answers(&disk, good)
        {
            match volume_serial(&disk) {
                Some(serial) if volume.is_some_and(|volume| volume != serial) => {
                    if told.replace(found.clone()) != Some(found.clone()) {
                        observer.tell(Event::Warning(format_args!(
                            "'{}' has the disk's serial number, but holds another volume",
                            found.display()
                        )));
                    }
                }
                _ => {
                    let (from, to) = (path.display(), found.display());
                    observer.tell(Event::Note(format_args!("The disk '{from}' is back as '{to}'.")));
                    return Some(disk);
                }
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    None
}

/// Can a place that was good, or else the boot sector, be read?
fn answers(disk: &Disk, good: Option<ByteRange>) -> bool {
    let mut sector = vec![0; disk.sector_size() as usize];
    let pos = good.map_or(0, |good| good.pos.next_multiple_of(sector.len() as u64));
    disk.read_at(pos, &mut sector).is_ok()
}

/// Tells of each stretch that could not be read and is marked, up to a number.
fn tell_lost(unfinished: &Unfinished<'_>, completed: &Completed, observer: &dyn Observer) {
    let mut lost = marked(unfinished, &completed.repaired);
    for range in lost.by_ref().take(MAX_TOLD) {
        observer.tell(Event::Lost { pos: range.pos, len: range.len });
    }
    let more = lost.count();
    if more > 0 {
        observer.tell(Event::Warning(format_args!("{more} more stretches cannot be read")));
    }
}

fn tell_what_is_left(job: &Job, target: &Target, observer: &dyn Observer) {
    if let Some(map) = &job.how.map {
        observer.tell(Event::Warning(format_args!(
            "what was copied so far is left in {}; the same command goes on with the map '{}'",
            target.name(),
            map.display()
        )));
    } else if let Some(left) = target.left_behind() {
        observer.tell(Event::Warning(format_args!("{left}")));
    }
}
