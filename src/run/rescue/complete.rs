//! Completing the target of a rescue that has ended: copies are put where originals are lost, the rest is marked.

use std::path::Path;

use super::super::provenance::anonymous;
use super::super::{Ending, Losses, Outcome, RunError};
use super::keep::MapLock;
use super::look::look;
use super::result::{find_hit, missing};
use super::source::TargetSource;
use super::{areas_of, boot_range, domain_of, forget_missing, pieces, put_held, tell_lost};
use crate::copy::CopyError;
use crate::copy::survey::BLOCK;
use crate::event::{Event, Observer, Phase, Silent};
use crate::extent::ByteRange;
use crate::image::trailer::Origin;
use crate::io::parts;
use crate::io::store::LocalStore;
use crate::io::target::{Mapped, Target, TargetName};
use crate::io::{PlacedSink, Source};
use crate::job::Job;
use crate::ntfs::boot::BOOT_SECTOR_LEN;
use crate::ntfs::mft::NR_MIRRORED;
use crate::ntfs::record::Record;
use crate::ntfs::volume::backup_boot_sector;
use crate::ntfs::{Tolerance, Volume};
use crate::plan::Plan;
use crate::report::summary::Repaired;
use crate::rescue::frozen::{self, Facts, Form};
use crate::rescue::mapstore::MapStore;
use crate::rescue::mark::mark_lost;
use crate::rescue::{Areas, Domain, State};

/// A target that is to be completed.
pub struct Unfinished<'a> {
    /// What was to be copied.
    pub plan: &'a Plan,
    /// What else is known about it.
    pub facts: &'a Facts,
    /// What was wanted, which may be more than the plan.
    pub domain: Domain<'a>,
    /// What was read of that.
    pub areas: &'a Areas,
    /// Are copies to be put where originals are lost?
    pub repairs: bool,
}

/// Bytes that replace others.
struct Repair {
    pos: u64,
    bytes: Vec<u8>,
    /// What they are.
    what: String,
}

/// What became of what was not read.
#[derive(Debug, Default)]
pub struct Completed {
    /// Bytes that are marked.
    pub marked: u64,
    /// What is written from copies.
    pub repaired: Vec<Repaired>,
}

impl Completed {
    /// Bytes that are written from copies.
    pub fn repaired_bytes(&self) -> u64 {
        self.repaired.iter().map(|repaired| repaired.range.len).sum()
    }
}

/// Completes the target.
pub fn complete(
    unfinished: &Unfinished<'_>,
    sink: &mut dyn PlacedSink,
    observer: &dyn Observer,
) -> Result<Completed, RunError> {
    let Unfinished { plan, facts, domain, areas, .. } = unfinished;
    let repairs = if unfinished.repairs { repairs(unfinished, sink) } else { Vec::new() };
    let mut completed = Completed::default();
    let mut buf = vec![0; BLOCK as usize];
    let wanted = domain.ranges().flat_map(|range| areas.within(range));
    let mut unread = wanted.filter(|area| area.state != State::Finished).peekable();
    if unread.peek().is_some() {
        observer.tell(Event::Phase(Phase::Mark));
    }
    for piece in unread.flat_map(|area| pieces(area.range)) {
        let data = buf.get_mut(..piece.len as usize).unwrap_or_default();
        mark_lost(piece.pos, data, facts.sector_size);
        sink.put(piece.pos, data)?;
        completed.marked += piece.len;
    }
    if facts.form == Form::Image {
        fill_unwanted(plan, domain, areas, sink)?;
    }
    for Repair { pos, bytes, what } in repairs {
        sink.put(pos, &bytes)?;
        let len = bytes.len() as u64;
        completed.marked -= len;
        observer.tell(Event::Note(format_args!(
            "Repaired: {len} bytes at byte {pos} ({pos:#x}), {what}, are written from their copy."
        )));
        completed.repaired.push(Repaired { range: ByteRange { pos, len }, what });
    }
    observer.tell(Event::Phase(Phase::Sync));
    sink.finish()?;
    let repaired: Vec<_> = completed.repaired.iter().map(|repaired| repaired.range).collect();
    let total = plan.total_bytes();
    let mut goes_on = |done: u64| {
        if done == 0 {
            observer.tell(Event::Phase(Phase::Sum));
        }
        observer.tell(Event::Progress { done: done.min(total), total });
        !observer.wants_stop()
    };
    if !sink.seal(&mut missing(unfinished, &repaired), &mut goes_on)? {
        return Err(CopyError::Stopped.into());
    }
    Ok(completed)
}

/// Clusters that have a place in an image, but turned out to be free: they are zeros there, where they were not read on
/// the way to others. What the map calls finished stays as it is.
fn fill_unwanted(
    plan: &Plan,
    domain: &Domain<'_>,
    areas: &Areas,
    sink: &mut dyn PlacedSink,
) -> Result<(), RunError> {
    let zeros = vec![0; BLOCK as usize];
    for range in plan.ranges() {
        let mut at = range.pos;
        while at < range.end() {
            let wanted = domain.next(at).filter(|wanted| wanted.pos < range.end());
            let end = wanted.map_or(range.end(), |wanted| wanted.pos);
            let unwanted = areas.within(ByteRange { pos: at, len: end - at });
            let unread = unwanted.filter(|area| area.state != State::Finished);
            for piece in unread.flat_map(|area| pieces(area.range)) {
                sink.put(piece.pos, zeros.get(..piece.len as usize).unwrap_or_default())?;
            }
            at = wanted.map_or(end, |wanted| wanted.end());
        }
    }
    Ok(())
}

/// What can be taken from copies: the boot sector, and sectors of the first MFT records.
fn repairs(unfinished: &Unfinished<'_>, sink: &dyn PlacedSink) -> Vec<Repair> {
    let Unfinished { plan, areas, domain, facts, .. } = unfinished;
    let len = plan.geometry.device_size;
    let source = TargetSource { sink, areas, repaired: &[], len };
    let is_lost = |range: ByteRange| !areas.is_finished(range);
    let mut repairs = Vec::new();
    let sector = ByteRange { pos: 0, len: u64::from(facts.sector_size).max(BOOT_SECTOR_LEN as u64).min(len) };
    if is_lost(boot_range(plan))
        && let Some((copy, _)) = backup_boot_sector(&source)
    {
        repairs.extend(copied(areas, sector, &source, copy, "boot sector", |_| true));
    }
    let Ok(volume) = Volume::open(&source, Tolerance::RESCUE, &Silent) else { return repairs };
    for mft_no in 0..NR_MIRRORED {
        let (Some(pos), Some(copy)) = (volume.mft.record_pos(mft_no), volume.mft.mirror_pos(mft_no)) else {
            continue;
        };
        let record = ByteRange { pos, len: volume.mft.record_size() as u64 };
        let is_wanted = domain.next(pos).is_some_and(|wanted| wanted.pos == pos && wanted.len >= record.len);
        if is_wanted && is_lost(record) {
            let parses = |bytes: &[u8]| Record::parse(&mut bytes.to_vec()).is_ok();
            repairs.extend(copied(areas, record, &source, copy, &format!("MFT record {mft_no}"), parses));
        }
    }
    repairs
}

/// The lost parts of `original`, from the copy at `copy_pos`, if that can be read and all of it then `fits`.
fn copied(
    areas: &Areas,
    original: ByteRange,
    source: &TargetSource<'_>,
    copy_pos: u64,
    what: &str,
    fits: impl Fn(&[u8]) -> bool,
) -> Vec<Repair> {
    let mut whole = vec![0; original.len as usize];
    let mut repairs = Vec::new();
    for area in areas.within(original) {
        let at = (area.range.pos - original.pos) as usize;
        let Some(part) = whole.get_mut(at..at + area.range.len as usize) else { return Vec::new() };
        let is_here = area.state == State::Finished;
        let from = if is_here { area.range.pos } else { copy_pos + at as u64 };
        if source.read_at(from, part).is_err() {
            return Vec::new();
        }
        if !is_here {
            repairs.push(Repair { pos: area.range.pos, bytes: part.to_vec(), what: what.to_owned() });
        }
    }
    if fits(&whole) { repairs } else { Vec::new() }
}

/// Completes the target of a rescue without its disk.
pub fn finish(job: &Job, map_file: &Path, path: &Path, observer: &dyn Observer) -> Result<Outcome, RunError> {
    let store = LocalStore;
    let _locked = MapLock::take(map_file)?;
    let (map, Some(earlier)) = MapStore::open(&store, map_file)? else {
        return Err(RunError::NoMap(map_file.to_owned()));
    };
    let thawed = frozen::thaw(&store, &frozen::path_of(map_file))?;
    let (plan, facts) = thawed.ok_or_else(|| RunError::NoPlan(map_file.to_owned()))?;
    // Its own name if it has it already, or the one it had while it was written.
    let name = match parts::exists(path) {
        true => TargetName::Replace(path.to_owned()),
        false => TargetName::New(path.to_owned()),
    };
    let target = Target::examine_mapped(&name, &[], job.split, Mapped::Resumed)?;
    let mut areas = areas_of(&map, plan.geometry.device_size, plan.geometry.cluster_size)?;
    let disk = earlier.head.identity.map(|identity| identity.disk);
    let origin = || Origin {
        disk_size: disk.as_ref().map_or(0, |disk| disk.size),
        disk_serial: disk.map_or(String::new(), |disk| disk.serial),
        ..anonymous(facts.volume_serial)
    };
    let mut sink = target.open_placed(&plan, facts.form, job.checksum.then(origin))?;
    put_held(&facts, &plan, sink.as_mut())?;
    forget_missing(&plan, &mut areas, sink.as_ref(), observer);
    // What is known by now to be free is not missing.
    let usage = if facts.is_doubtful {
        look(sink.as_ref(), &areas, plan.geometry.device_size, observer)?
    } else {
        None
    };
    let wanted = usage.map(|mut usage| {
        usage.used.retain(plan.clusters());
        usage.used
    });
    let domain = domain_of(wanted.as_ref().unwrap_or(plan.clusters()), &plan);
    let unfinished = Unfinished { plan: &plan, facts: &facts, domain, areas: &areas, repairs: true };
    let completed = complete(&unfinished, sink.as_mut(), observer)?;
    tell_lost(&unfinished, &completed, observer);
    find_hit(&unfinished, &completed, sink.as_ref(), false, observer);
    target.publish()?;
    Ok(Outcome { losses: Losses { bytes: completed.marked, structures: 0 }, ending: Ending::Complete })
}
