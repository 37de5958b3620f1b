//! The map of a rescue: keeping it for one run alone, and going on with one of the same disk, volume and target.

use std::fs::File;
use std::path::Path;

use super::super::RunError;
use super::{boot_range, extra_range, pieces};
use crate::copy::rescue::Keeper;
use crate::event::{Event, Observer};
use crate::extent::ByteRange;
use crate::io::disk::Disk;
use crate::io::identity::Known;
use crate::io::lock::{self, LockError};
use crate::io::{PlacedSink, Source};
use crate::ntfs::boot::{BOOT_SECTOR_LEN, BootSector};
use crate::plan::Plan;
use crate::rescue::frozen::{Facts, Form};
use crate::rescue::mapfile::{DiskId, Head, Identity, Phase as MapPhase};
use crate::rescue::mapstore::{MapError, MapStore};
use crate::rescue::passes::Pass;
use crate::rescue::{Area, Areas, Domain, Rescue, State};

/// Keeps a map for this run alone, from before it is read: what another run writes meanwhile would be lost on both.
pub(super) struct MapLock<'a> {
    path: &'a Path,
    /// The map's file, once it is there.
    held: Option<File>,
}

impl<'a> MapLock<'a> {
    /// Locks the map, if it is there. Nothing is made.
    pub fn take(path: &'a Path) -> Result<MapLock<'a>, RunError> {
        let held = if path.is_file() { Some(lock::existing(path).map_err(locked)?) } else { None };
        Ok(MapLock { path, held })
    }

    /// Makes the map's file where it was not there, because it is to be written now.
    pub fn claim(&mut self) -> Result<(), RunError> {
        if self.held.is_some() || self.path.exists() && !self.path.is_file() {
            return Ok(());
        }
        let made = lock::made(self.path).map_err(locked)?;
        // Another run may have made it since, and have ended.
        if made.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            return Err(locked(LockError::Busy(self.path.to_owned())));
        }
        self.held = Some(made);
        Ok(())
    }
}

fn locked(cause: LockError) -> RunError {
    match cause {
        LockError::Open { path, cause } => RunError::Map(MapError::System { what: "open", path, cause }),
        cause => RunError::Locked { what: "the map", cause },
    }
}

/// Refuses to go on with another disk, volume or target than the map's.
pub(super) fn check_same(
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
pub(super) fn volume_serial(source: &dyn Source) -> Option<u64> {
    let mut bytes = [0; BOOT_SECTOR_LEN];
    source.read_at(0, &mut bytes).ok()?;
    Some(BootSector::parse(&bytes).ok()?.serial)
}

pub(super) fn serial_of(device: &std::fs::File) -> String {
    let disk = device.try_clone().and_then(Disk::of);
    disk.map(|disk| Known::of(&disk).disk.serial).unwrap_or_default()
}

/// What a map says about a source of `len` bytes.
pub(super) fn areas_of(map: &MapStore<'_>, len: u64, unit: u32) -> Result<Areas, RunError> {
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

/// What the map calls finished and the target cannot hold, since it ends before, was not tried: the ahead file was lost,
/// or the target is another.
pub(super) fn forget_missing(plan: &Plan, areas: &mut Areas, sink: &dyn PlacedSink, observer: &dyn Observer) {
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

/// Does a map call anything finished?
pub(super) fn has_finished(map: &MapStore<'_>) -> Result<bool, MapError> {
    let mut found = false;
    map.visit(|area| found |= area.state == State::Finished)?;
    Ok(found)
}

/// The stretches of a clone that are held back and of which the plan does not know what they hold.
pub(super) fn unkept(facts: &Facts, plan: &Plan) -> [Option<ByteRange>; 2] {
    let unless = |known: bool, range| (facts.form == Form::Clone && !known).then_some(range);
    [
        unless(facts.boot_sector.is_some(), boot_range(plan)),
        unless(facts.extra_cluster.is_some(), extra_range(plan)),
    ]
}

/// Keeps the map, if there is one.
pub(super) struct MapKeeper<'k> {
    pub(super) map: Option<MapStore<'k>>,
    pub(super) head: Head,
    pub(super) domain: Domain<'k>,
    pub(super) len: u64,
    /// What is held back and will not be known to the next run.
    pub(super) unkept: [Option<ByteRange>; 2],
}

impl MapKeeper<'_> {
    pub(super) fn write(&mut self, rescue: &Rescue<'_>, conclude: bool) -> Result<(), MapError> {
        let Some(map) = &mut self.map else { return Ok(()) };
        (self.head.phase, self.head.pass) = phase_of(rescue.pass());
        self.head.pos = rescue.pos();
        let blocks =
            Blocks { areas: rescue.areas(), domain: self.domain, len: self.len, unkept: self.unkept, pos: 0 };
        if conclude { map.conclude(&self.head, blocks) } else { map.save(&self.head, blocks) }
    }

    pub(super) fn conclude(&mut self, rescue: &Rescue<'_>) -> Result<(), MapError> {
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
