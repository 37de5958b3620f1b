//! Rescues a volume from a failing disk to a file or device: in any order, with a map, and on after it has ended.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::opened::Opened;
use super::{
    Losses, Outcome, RunError, refuse_writable_mount, tell_space, warn_of_sector_size, warn_of_shutdown,
};
use crate::copy::CopyError;
use crate::copy::rescue::{Ending, Keeper, Meter, pump};
use crate::copy::survey::{Survey, sizes_of};
use crate::event::{Event, Observer, Phase, Silent};
use crate::extent::{ByteRange, ClusterSet, Extent};
use crate::image;
use crate::io::disk::Disk;
use crate::io::identity::Known;
use crate::io::remote::{Ask, Wait};
use crate::io::stash::Stash;
use crate::io::store::{LocalStore, Store};
use crate::io::target::{Mapped, Room, Target, TargetName};
use crate::io::{Loss, PlacedSink, ReadError, Source};
use crate::job::Job;
use crate::ntfs::attr::types;
use crate::ntfs::boot::{BOOT_SECTOR_LEN, BootSector};
use crate::ntfs::first::{Patterns, first_clusters};
use crate::ntfs::mft::Value;
use crate::ntfs::runs::Run;
use crate::ntfs::scan::scan;
use crate::ntfs::volume::{any_boot_sector, backup_boot_sector};
use crate::ntfs::{Error, Tolerance, Volume, mft_no};
use crate::plan::Plan;
use crate::rescue::frozen::{self, Facts, Form};
use crate::rescue::mapfile::{DiskId, Head, Identity, Phase as MapPhase, write_domain};
use crate::rescue::mapstore::{MapError, MapStore};
use crate::rescue::passes::{End, Pass};
use crate::rescue::{Area, Areas, Domain, Rescue, State};
use crate::units::{Geometry, Lcn};

mod complete;
mod result;
mod source;

pub(super) use complete::finish;
use complete::{Completed, Unfinished, complete};
use result::{Circumstances, find_hit, marked, write_report};
use source::TargetSource;

/// Time between two looks for a disk that has gone away.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Bad areas that are told one by one; the report has all of them.
const MAX_TOLD: usize = 100;

/// What is known when copying begins.
struct Begun {
    plan: Plan,
    facts: Facts,
    areas: Areas,
    /// What was read already and has a place now.
    stash: Stash,
    /// Files that come first, then the indexes on the way to them.
    first: Vec<ClusterSet>,
    /// Structures that could not be used.
    nr_damaged: u64,
}

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
    let store = LocalStore;
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
    let target = Target::examine_mapped(name, Some(path), mapped)?;
    let disk = Disk::open(path)?;
    let known = Known::of(&disk);
    let max_time = job.how.budget.max_time;
    let ask = |waiting: Duration| {
        observer.tell(Event::Waiting(waiting));
        let is_over = observer.wants_stop() || max_time.is_some_and(|max| start.elapsed() >= max);
        if is_over { Wait::Stop } else { Wait::Go }
    };
    let opened = Opened::new(disk, &ask);
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
            tell_space(plan.nr_used, plan.geometry, observer);
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
            let begun = begin(form, &patterns, &opened, areas, in_target.as_ref(), &target, observer)?;
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
    let mut sink = target.open_placed(&plan, form)?;
    put_held(&facts, &plan, sink.as_mut())?;
    if is_resumed {
        forget_missing(&plan, &mut areas, sink.as_ref(), observer);
    }
    place(&stash, &plan, &mut areas, sink.as_mut(), mapped)?;
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
        && let Some(usage) = look(sink.as_ref(), &areas, len, observer)?
    {
        // First what is in use beyond doubt, and all that can be had of what tells about the rest.
        let sure = &bridged(usage.sure.as_ref().unwrap_or(&usage.used), &plan);
        let mut rescue = Rescue::new(areas, len, sizes, job.how.budget);
        for domain in domains_of(&plan, &first, Some(sure), None) {
            let domain = rescue.add_domain(domain);
            rescue.add_healthy(domain);
        }
        for clusters in &usage.bitmaps {
            let domain = rescue.add_domain(domain_of(clusters, &plan));
            rescue.add_healthy(domain);
            for pass in [Pass::Sweep, Pass::Trim { last: true }, Pass::Scrape { jumping: true }] {
                rescue.add(domain, pass);
            }
        }
        ending = driver.drive(&mut rescue, &domain_of(sure, &plan), sink.as_mut())?;
        (nr_errors, areas) = (rescue.nr_errors(), rescue.into_areas());
        let now = look(sink.as_ref(), &areas, len, observer)?;
        wanted = now.map(|usage| plan.clusters().common(&usage.used));
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
        observer.tell(Event::Note(format_args!("Interrupted: the same command goes on where this ended.")));
        let losses = Losses { bytes: 0, structures: nr_damaged };
        return Ok(Outcome { losses, ending: super::Ending::Interrupted });
    }
    let unfinished =
        Unfinished { plan: &plan, facts: &facts, domain, areas: rescue.areas(), repairs: job.how.repair };
    let completed = complete(&unfinished, sink.as_mut(), observer)
        .inspect_err(|_| tell_what_is_left(job, &target, observer))?;
    tell_lost(&unfinished, &completed, observer);
    keeper.conclude(&rescue)?;
    let hit = find_hit(&unfinished, &completed, sink.as_ref(), job.report.is_some(), observer);
    drop(sink);
    target.publish()?;
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
        loop {
            let ending = pump(rescue, &self.opened, sink, &mut self.keeper, &mut self.meter, self.observer)
                .inspect_err(|_| tell_what_is_left(self.job, self.target, self.observer))?;
            if ending != Ending::End(End::Gone) {
                return Ok(ending);
            }
            self.opened.close();
            let disk = come_back(self.job, self.known, self.path, self.facts, self.observer);
            let Some(disk) = disk else { return Ok(ending) };
            self.opened = Opened::new(disk, self.ask);
            rescue.revive();
        }
    }
}

/// The clusters with those planned ones that lie in short gaps between them: to read those costs less than to go past
/// them.
fn bridged(clusters: &ClusterSet, plan: &Plan) -> ClusterSet {
    let longest = SHORT_GAP / u64::from(plan.geometry.cluster_size);
    let mut bridged = clusters.clone();
    let mut end = None;
    for extent in clusters.extents() {
        if let Some(end) = end.filter(|end| extent.lcn.0 - end <= longest) {
            let gap = Extent { lcn: Lcn(end), len: extent.lcn.0 - end };
            plan.clusters().overlaps(gap).for_each(|planned| {
                bridged.insert_extent(planned);
            });
        }
        end = Some(extent.end());
    }
    bridged
}

/// Bytes that a disk reads in the time that it takes to find another place.
const SHORT_GAP: u64 = 1 << 20;

/// What a look at the target tells of the clusters in use.
struct Looked {
    used: ClusterSet,
    sure: Option<ClusterSet>,
    bitmaps: Vec<ClusterSet>,
}

/// Which clusters are in use, as far as what was rescued tells; none if it tells nothing.
fn look(
    sink: &dyn PlacedSink,
    areas: &Areas,
    len: u64,
    observer: &dyn Observer,
) -> Result<Option<Looked>, RunError> {
    let source = TargetSource { sink, areas, repaired: &[], len };
    let Ok(volume) = Volume::open(&source, Tolerance::RESCUE, &Silent) else { return Ok(None) };
    let stoppable = Quiet(observer);
    match scan(&volume, Tolerance::RESCUE, None, &stoppable) {
        Ok(usage) => {
            let bitmaps = bitmaps(&volume);
            Ok(Some(Looked { used: usage.used, sure: usage.sure, bitmaps }))
        }
        Err(Error::Stopped) => Err(Error::Stopped.into()),
        Err(_) => Ok(None),
    }
}

/// Hears nothing, but may be told to stop.
struct Quiet<'a>(&'a dyn Observer);

impl Observer for Quiet<'_> {
    fn tell(&self, _: Event<'_>) {}

    fn wants_stop(&self) -> bool {
        self.0.wants_stop()
    }
}

/// The clusters that come first: those of files that match, then of the indexes on the way to them.
fn first_of(
    volume: &Volume<'_>,
    patterns: &Patterns,
    observer: &dyn Observer,
) -> Result<Vec<ClusterSet>, RunError> {
    if patterns.is_empty() {
        return Ok(Vec::new());
    }
    let first = first_clusters(volume, patterns, observer)?;
    observer.tell(Event::Note(format_args!("Files that come first: {}", first.nr_files)));
    for (pattern, _) in patterns.texts().zip(&first.matches).filter(|(_, nr)| **nr == 0) {
        observer.tell(Event::Warning(format_args!("--first '{pattern}': no file that is known matches")));
    }
    Ok(vec![first.files, first.indexes])
}

/// Bytes for a bit of [`Areas`] before the cluster size is known.
const SURVEY_UNIT: u32 = 4096;

/// Reads what makes the rest readable, and decides what is copied.
fn begin(
    form: Form,
    patterns: &Patterns,
    source: &dyn Source,
    areas: Areas,
    in_target: Option<&Disk>,
    target: &Target,
    observer: &dyn Observer,
) -> Result<Begun, RunError> {
    observer.tell(Event::Phase(Phase::Survey));
    let in_target = in_target.map(|disk| disk as &dyn Source);
    let survey = Survey::new(source, areas, in_target, observer);
    let tolerance = Tolerance::RESCUE;
    let volume = match Volume::open(&survey, tolerance, observer) {
        Err(error) if error.read().map(ReadError::loss) == Some(Loss::BadArea) => {
            return begin_blind(form, survey, source, target, &error, observer);
        }
        other => other?,
    };
    let geometry = volume.info.geometry;
    observer.tell(Event::Volume(&volume.info));
    if volume.info.is_dirty {
        observer.tell(Event::Warning(format_args!("the volume is marked dirty; it is copied as it is")));
    }
    if form == Form::Clone {
        warn_of_sector_size(target, volume.info.sector_size, observer);
    }
    // Read for its place in the target, whether it is needed or not.
    let _backup = backup_boot_sector(&survey);
    read_ahead(&survey, &volume)?;
    let usage = scan(&volume, tolerance, None, observer)?;
    warn_of_shutdown(&volume, &usage, observer);
    if observer.wants_stop() {
        return Err(Error::Stopped.into());
    }
    let nr_damaged = volume.nr_damaged + usage.nr_damaged;
    let first = first_of(&volume, patterns, observer)?;
    let nr_sure = usage.sure.as_ref().map(ClusterSet::count);
    let (sector_size, volume_serial) = (volume.info.sector_size, volume.info.serial);
    let plan = Plan::new(geometry, usage.used, usage.nr_used);
    tell_space(plan.nr_used, geometry, observer);
    target.require(room_for(form, &plan, nr_sure.unwrap_or(plan.nr_used)))?;
    let found = survey.into_found();
    let held = |range: ByteRange| {
        let mut bytes = vec![0; range.len as usize];
        (form == Form::Clone && range.len > 0 && found.stash.get(range.pos, &mut bytes)).then_some(bytes)
    };
    let facts = Facts {
        form,
        sector_size,
        is_doubtful: nr_sure.is_some(),
        volume_serial,
        volume_pos: 0,
        boot_sector: held(boot_range(&plan)),
        extra_cluster: held(extra_range(&plan)),
    };
    let areas = found.areas.with_unit(source.len(), geometry.cluster_size.into());
    Ok(Begun { plan, facts, areas, stash: found.stash, first, nr_damaged })
}

/// What to do where nothing tells what is on the volume: all of it is in use. It may still be read later, and what
/// was saved by then can be searched.
fn begin_blind(
    form: Form,
    survey: Survey<'_>,
    source: &dyn Source,
    target: &Target,
    error: &Error,
    observer: &dyn Observer,
) -> Result<Begun, RunError> {
    observer.tell(Event::Warning(format_args!(
        "{error}; without it, and without a copy, all of the volume is taken as in use"
    )));
    let boot = any_boot_sector(&survey);
    let (sector_size, serial) =
        boot.as_ref().map_or((source.sector_size(), 0), |boot| (boot.sector_size, boot.serial));
    let geometry = match boot {
        Some(boot) => boot.geometry(source.len()).map_err(Error::from)?,
        None => {
            // Clusters of the usual size, and the sector of the backup behind them.
            let clusters = source.len().saturating_sub(sector_size.into()) / u64::from(SURVEY_UNIT);
            Geometry::new(SURVEY_UNIT.into(), clusters, source.len()).map_err(Error::from)?
        }
    };
    let mut used = ClusterSet::new(geometry.nr_clusters);
    used.insert_extent(Extent { lcn: Lcn(0), len: u64::MAX });
    let plan = Plan::new(geometry, used, geometry.nr_clusters);
    tell_space(plan.nr_used, geometry, observer);
    let facts = Facts {
        form,
        sector_size,
        is_doubtful: false,
        volume_serial: serial,
        volume_pos: 0,
        boot_sector: None,
        extra_cluster: None,
    };
    target.require(room_for(form, &plan, plan.nr_used))?;
    let found = survey.into_found();
    let areas = found.areas.with_unit(source.len(), geometry.cluster_size.into());
    Ok(Begun { plan, facts, areas, stash: found.stash, first: Vec::new(), nr_damaged: 1 })
}

/// What a target must have room for, with so many clusters that are in use beyond doubt. What is in doubt has a place
/// in a clone, but perhaps nothing to put there.
fn room_for(form: Form, plan: &Plan, nr_sure: u64) -> Room {
    match form {
        Form::Image => {
            let image = image::encoded_len(&plan.geometry, plan.nr_used, plan.nr_gaps());
            Room { length: image, content: image }
        }
        Form::Clone => {
            Room { length: plan.geometry.written_end(), content: plan.geometry.copied_bytes(nr_sure) }
        }
    }
}

/// Reads `$MFT` and `$Bitmap` as far as that goes without fighting, so that their parsers find all in memory.
fn read_ahead(survey: &Survey<'_>, volume: &Volume<'_>) -> Result<(), RunError> {
    let geometry = &volume.info.geometry;
    let read = |clusters: ClusterSet, passes: &[Pass]| {
        survey.read_ahead(clusters, geometry.cluster_size.into(), passes).map_err(Error::from)
    };
    // A spot near these must not hide what is in use: they are worth some errors.
    let mut worthy = ClusterSet::new(geometry.nr_clusters);
    for pos in [mft_no::MFT, mft_no::BITMAP].into_iter().filter_map(|mft_no| volume.mft.record_pos(mft_no)) {
        let unit = u64::from(geometry.cluster_size);
        let end = (pos + volume.mft.record_size() as u64).div_ceil(unit);
        worthy.insert_extent(Extent { lcn: Lcn(pos / unit), len: end - pos / unit });
    }
    read(worthy, &[Pass::Sweep, Pass::Trim { last: true }, Pass::Scrape { jumping: false }])?;
    // What is left of the records is read in its turn.
    read(volume.mft.clusters(), &[Pass::Forward(0)])?;
    // A bit that is not known means a cluster that is copied in vain, and a sector has thousands of them.
    let passes = [Pass::Forward(0), Pass::Down, Pass::Up, Pass::Trim { last: false }];
    for clusters in bitmaps(volume) {
        read(clusters, &passes)?;
    }
    Ok(())
}

/// The clusters of `$Bitmap`, and of the bitmap of `$MFT`, as far as they are known.
fn bitmaps(volume: &Volume<'_>) -> Vec<ClusterSet> {
    let of = |(mft_no, kind)| {
        let Ok(Some(Value::Stream(bitmap))) = volume.mft.value(volume.source, mft_no, kind, &[]) else {
            return None;
        };
        let mut clusters = ClusterSet::new(volume.info.geometry.nr_clusters);
        bitmap.runs.runs().iter().filter_map(Run::extent).for_each(|extent| {
            clusters.insert_extent(extent);
        });
        Some(clusters)
    };
    [(mft_no::BITMAP, types::DATA), (mft_no::MFT, types::BITMAP)].into_iter().filter_map(of).collect()
}

/// The boot sector's bytes on the volume.
fn boot_range(plan: &Plan) -> ByteRange {
    ByteRange { pos: 0, len: plan.geometry.device_size.min(BOOT_SECTOR_LEN as u64) }
}

/// The extra cluster's bytes, of which there may be none.
fn extra_range(plan: &Plan) -> ByteRange {
    ByteRange { pos: plan.geometry.volume_size(), len: plan.geometry.extra_len().into() }
}

/// Refuses to go on with another disk, volume or target than the map's.
fn check_same(
    identity: Option<&Identity>,
    facts: &Facts,
    form: Form,
    known: &Known,
    target: Option<&DiskId>,
    source: &dyn Source,
) -> Result<(), RunError> {
    let differs = |what, found: String, wanted: String| Err(RunError::OtherThanMap { what, found, wanted });
    if facts.form != form {
        let name = |form| if form == Form::Image { "an image" } else { "a raw clone" }.to_string();
        return differs("target", name(form), name(facts.form));
    }
    if let Some(Identity { disk, target: of_map, .. }) = identity {
        let describe = |serial: &str, size| format!("serial number '{serial}', {size} bytes");
        if (&disk.serial, disk.size) != (&known.disk.serial, known.disk.size) {
            let found = describe(&known.disk.serial, known.disk.size);
            return differs("disk", found, describe(&disk.serial, disk.size));
        }
        if of_map.as_ref() != target {
            let name = |target: Option<&DiskId>| {
                target.map_or("a file".into(), |disk| describe(&disk.serial, disk.size))
            };
            return differs("target", name(target), name(of_map.as_ref()));
        }
    }
    match volume_serial(source) {
        Some(serial) if serial != facts.volume_serial => {
            differs("volume", format!("serial number {serial:016X}"), format!("{:016X}", facts.volume_serial))
        }
        _ => Ok(()),
    }
}

/// The serial number of the volume that is there now, if that can be read.
fn volume_serial(source: &dyn Source) -> Option<u64> {
    let mut bytes = [0; BOOT_SECTOR_LEN];
    source.read_at(0, &mut bytes).ok()?;
    Some(BootSector::parse(&bytes).ok()?.serial)
}

fn serial_of(device: &std::fs::File) -> String {
    let disk = device.try_clone().and_then(Disk::of);
    disk.map(|disk| Known::of(&disk).disk.serial).unwrap_or_default()
}

/// What a map says about a source of `len` bytes.
fn areas_of(map: &MapStore<'_>, len: u64, unit: u32) -> Result<Areas, RunError> {
    let mut areas = Areas::new(len, unit.into());
    map.visit(|Area { range, state }| {
        // A map of ddrescue's may go beyond the source.
        let end = range.end().min(len);
        if state != State::NonTried && range.pos < end {
            areas.set(ByteRange { pos: range.pos, len: end - range.pos }, state);
        }
    })?;
    Ok(areas)
}

/// Does a map call anything finished?
fn has_finished(map: &MapStore<'_>) -> Result<bool, MapError> {
    let mut found = false;
    map.visit(|area| found |= area.state == State::Finished)?;
    Ok(found)
}

/// What the map calls finished and the target cannot hold, since it ends before, was not tried: the ahead file was lost,
/// or the target is another.
fn forget_missing(plan: &Plan, areas: &mut Areas, sink: &dyn PlacedSink, observer: &dyn Observer) {
    let mut missing = Vec::new();
    for area in areas.within(ByteRange { pos: 0, len: plan.geometry.device_size }) {
        if area.state == State::Finished && !sink.holds(area.range) {
            missing.extend(pieces(area.range).filter(|piece| !sink.holds(*piece)));
        }
    }
    let bytes: u64 = missing.iter().map(|piece| piece.len).sum();
    if bytes > 0 {
        observer.tell(Event::Warning(format_args!(
            "{bytes} bytes that the map calls finished are not in the target: was its .ahead file lost?"
        )));
    }
    missing.into_iter().for_each(|piece| areas.set(piece, State::NonTried));
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

/// The stretches of a clone that are held back and of which the plan does not know what they hold.
fn unkept(facts: &Facts, plan: &Plan) -> [Option<ByteRange>; 2] {
    let unless = |known: bool, range| (facts.form == Form::Clone && !known).then_some(range);
    [
        unless(facts.boot_sector.is_some(), boot_range(plan)),
        unless(facts.extra_cluster.is_some(), extra_range(plan)),
    ]
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

/// Keeps the map, if there is one.
struct MapKeeper<'k> {
    map: Option<MapStore<'k>>,
    head: Head,
    domain: Domain<'k>,
    len: u64,
    /// What is held back and will not be known to the next run.
    unkept: [Option<ByteRange>; 2],
}

impl MapKeeper<'_> {
    fn write(&mut self, rescue: &Rescue<'_>, conclude: bool) -> Result<(), MapError> {
        let Some(map) = &mut self.map else { return Ok(()) };
        (self.head.phase, self.head.pass) = phase_of(rescue.pass());
        self.head.pos = rescue.pos();
        let blocks =
            Blocks { areas: rescue.areas(), domain: self.domain, len: self.len, unkept: self.unkept, pos: 0 };
        if conclude { map.conclude(&self.head, blocks) } else { map.save(&self.head, blocks) }
    }

    fn conclude(&mut self, rescue: &Rescue<'_>) -> Result<(), MapError> {
        // The target is complete: what was held back is in it.
        self.unkept = [None; 2];
        self.write(rescue, true)
    }
}

impl Keeper for MapKeeper<'_> {
    fn keep(&mut self, rescue: &Rescue<'_>) -> Result<(), MapError> {
        self.write(rescue, false)
    }
}

/// ddrescue's name for a pass, and its number among those of this name.
fn phase_of(pass: Option<Pass>) -> (MapPhase, u32) {
    match pass {
        Some(Pass::Forward(_)) => (MapPhase::Copying, 1),
        Some(Pass::Down) => (MapPhase::Copying, 2),
        Some(Pass::Up) => (MapPhase::Copying, 3),
        Some(Pass::Probe(_)) => (MapPhase::Copying, 4),
        Some(Pass::Sweep) => (MapPhase::Copying, 5),
        Some(Pass::Trim { .. }) => (MapPhase::Trimming, 1),
        Some(Pass::Scrape { .. }) => (MapPhase::Scraping, 1),
        Some(Pass::Retry) => (MapPhase::Retrying, 1),
        None => (MapPhase::Finished, 1),
    }
}

/// The whole source as a map has it: what is not wanted was not tried.
#[derive(Clone)]
struct Blocks<'a> {
    areas: &'a Areas,
    domain: Domain<'a>,
    len: u64,
    unkept: [Option<ByteRange>; 2],
    pos: u64,
}

impl Iterator for Blocks<'_> {
    type Item = Area;

    fn next(&mut self) -> Option<Area> {
        let pos = self.pos;
        if pos >= self.len {
            return None;
        }
        let until = |end: u64, state| Area { range: ByteRange { pos, len: end - pos }, state };
        let wanted = self.domain.next(pos);
        let mut area = match wanted {
            Some(wanted) if wanted.pos == pos => self.areas.within(wanted).next()?,
            Some(wanted) => until(wanted.pos, State::NonTried),
            None => until(self.len, State::NonTried),
        };
        for unkept in self.unkept.iter().flatten() {
            if area.range.end() <= unkept.pos || pos >= unkept.end() {
                continue;
            }
            area = if pos < unkept.pos {
                until(unkept.pos, area.state)
            } else {
                let state = if area.state == State::Finished { State::NonTried } else { area.state };
                until(area.range.end().min(unkept.end()), state)
            };
        }
        self.pos = area.range.end();
        Some(area)
    }
}

/// Waits for a disk that has gone away, as long as was asked for.
fn come_back(job: &Job, known: &Known, path: &Path, facts: &Facts, observer: &dyn Observer) -> Option<Disk> {
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
        {
            match volume_serial(&disk) {
                Some(serial) if serial != facts.volume_serial => {
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
