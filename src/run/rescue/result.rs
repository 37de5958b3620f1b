//! What came of a rescue: the files that lost something, and the report.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::super::RunError;
use super::complete::{Completed, Unfinished};
use super::source::TargetSource;
use crate::event::{Event, Observer, Silent};
use crate::extent::ByteRange;
use crate::io::PlacedSink;
use crate::io::identity::Known;
use crate::io::store::Store;
use crate::ntfs::damage::{DamagedFile, Losses, damaged_files};
use crate::ntfs::{NtfsInfo, Tolerance, Volume};
use crate::report::summary::{Bytes, Disk, Repaired, Summary, Times, Volume as VolumeSummary};
use crate::rescue::{Area, State};

/// Files that are told one by one; the report has all of them.
const MAX_TOLD: usize = 20;

/// What a walk over the rescued volume tells of the damage.
#[derive(Default)]
pub struct Hit {
    /// What is known about the volume, if it can be walked.
    info: Option<NtfsInfo>,
    /// The files that lost something; only the first where no report is wanted.
    files: Vec<DamagedFile>,
    nr_files: u64,
    /// MFT records that are lost.
    pub lost: Losses,
}

/// Finds the files that lost something, on the target, and tells of them. `keeps`: are all of them wanted in the end?
pub fn find_hit(
    unfinished: &Unfinished<'_>,
    completed: &Completed,
    sink: &dyn PlacedSink,
    keeps: bool,
    observer: &dyn Observer,
) -> Hit {
    let repaired: Vec<_> = completed.repaired.iter().map(|repaired| repaired.range).collect();
    let len = unfinished.plan.geometry.device_size;
    let source = TargetSource { sink, areas: unfinished.areas, repaired: &repaired, len };
    let mut hit = Hit::default();
    let volume = match Volume::open(&source, Tolerance::RESCUE, &Silent) {
        Ok(volume) => volume,
        Err(error) => {
            observer.tell(Event::Warning(format_args!("which files are hit cannot be told: {error}")));
            return hit;
        }
    };
    hit.info = Some(volume.info.clone());
    let damage: Vec<_> = missing(unfinished, &repaired).collect();
    if damage.is_empty() {
        return hit;
    }
    let found = damaged_files(&volume, &damage, observer, &mut |file| {
        hit.nr_files += 1;
        if keeps || hit.files.len() < MAX_TOLD {
            hit.files.push(file);
        }
    });
    match found {
        Ok(lost) => hit.lost = lost,
        Err(error) => {
            observer.tell(Event::Warning(format_args!("not all files that are hit are known: {error}")));
        }
    }
    hit.tell(observer);
    hit
}

impl Hit {
    fn tell(&self, observer: &dyn Observer) {
        if self.nr_files > 0 {
            observer.tell(Event::Note(format_args!("Files that lost something: {}", self.nr_files)));
        }
        for file in self.files.iter().take(MAX_TOLD) {
            observer.tell(Event::Note(format_args!("  {file}: {} bytes", file.bytes)));
        }
        if self.nr_files > MAX_TOLD as u64 {
            observer.tell(Event::Note(format_args!("  and more: --report lists all of them")));
        }
        if self.lost.nr_records > 0 {
            observer.tell(Event::Note(format_args!(
                "MFT records that are lost, each of them perhaps a file: {}",
                self.lost.nr_records
            )));
        }
    }
}

/// The wanted stretches that are neither read nor written from a copy, ascending.
pub fn missing<'a>(
    unfinished: &'a Unfinished<'_>,
    repaired: &'a [ByteRange],
) -> impl Iterator<Item = ByteRange> + 'a {
    let areas = unfinished.domain.ranges().flat_map(|range| unfinished.areas.within(range));
    let missing = areas.filter(|area| area.state != State::Finished);
    joined(missing.flat_map(|area| without(area.range, repaired)))
}

/// The wanted stretches that failed and are not written from a copy, ascending.
pub fn marked<'a>(
    unfinished: &'a Unfinished<'_>,
    repaired: &'a [Repaired],
) -> impl Iterator<Item = ByteRange> + 'a {
    let repaired: Vec<_> = repaired.iter().map(|repaired| repaired.range).collect();
    let areas = unfinished.domain.ranges().flat_map(|range| unfinished.areas.within(range));
    let failed = areas.filter(|area| !matches!(area.state, State::Finished | State::NonTried));
    joined(failed.flat_map(move |area| without(area.range, &repaired)))
}

/// The parts of a stretch that are in none of the others.
fn without(range: ByteRange, others: &[ByteRange]) -> Vec<ByteRange> {
    let mut left = vec![range];
    for other in others {
        left = left
            .into_iter()
            .flat_map(|part| {
                let (from, to) =
                    (other.pos.clamp(part.pos, part.end()), other.end().clamp(part.pos, part.end()));
                [(part.pos, from), (to, part.end())].map(|(pos, end)| ByteRange { pos, len: end - pos })
            })
            .filter(|part| part.len > 0)
            .collect();
    }
    left
}

/// Stretches that ascend, with neighbours made one.
fn joined(mut ranges: impl Iterator<Item = ByteRange>) -> impl Iterator<Item = ByteRange> {
    let mut open = None;
    std::iter::from_fn(move || {
        loop {
            match (open.take(), ranges.next()) {
                (None, None) => return None,
                (None, Some(range)) => open = Some(range),
                (Some(ByteRange { pos, len }), Some(range)) if pos + len == range.pos => {
                    open = Some(ByteRange { pos, len: len + range.len });
                }
                (done, next) => {
                    open = next;
                    return done;
                }
            }
        }
    })
}

/// What the report tells beside the damage.
pub struct Circumstances<'a> {
    /// What was read.
    pub source: &'a Path,
    /// What that is.
    pub known: &'a Known,
    /// When it began.
    pub started: SystemTime,
    /// How long it took.
    pub elapsed: Duration,
    /// How it ended, in words.
    pub outcome: &'a str,
    /// The program's exit status.
    pub exit_status: u8,
}

/// Writes the report.
pub fn write_report(
    path: &Path,
    store: &dyn Store,
    circumstances: &Circumstances<'_>,
    unfinished: &Unfinished<'_>,
    completed: Completed,
    hit: Hit,
) -> Result<(), RunError> {
    let Circumstances { source, known, started, elapsed, outcome, exit_status } = circumstances;
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut bytes = Bytes { repaired: completed.repaired_bytes(), ..Bytes::default() };
    for Area { range, state } in unfinished.domain.ranges().flat_map(|range| unfinished.areas.within(range)) {
        bytes.used += range.len;
        *match state {
            State::NonTried => &mut bytes.non_tried,
            State::NonTrimmed => &mut bytes.non_trimmed,
            State::NonScraped => &mut bytes.non_scraped,
            State::Bad => &mut bytes.bad,
            State::Finished => &mut bytes.finished,
        } += range.len;
    }
    let summary = Summary {
        version: env!("CARGO_PKG_VERSION"),
        outcome: (*outcome).to_owned(),
        exit_status: *exit_status,
        times: Times {
            started: seconds(*started),
            ended: seconds(SystemTime::now()),
            elapsed: elapsed.as_secs(),
        },
        disk: Disk {
            device: source.display().to_string(),
            serial: some(&known.disk.serial),
            model: some(&known.disk.model),
            size: known.disk.size,
        },
        volume: hit.info.as_ref().map(|info| VolumeSummary {
            serial: info.serial,
            label: info.label.to_string(),
            cluster_size: info.geometry.cluster_size,
            size: info.geometry.volume_size(),
        }),
        bytes,
        repaired: completed.repaired,
        lost_records: hit.lost,
        damaged_files: hit.files,
    };
    let areas = unfinished.domain.ranges().flat_map(|range| unfinished.areas.within(range));
    let mut bad = joined(
        areas.filter(|area| !matches!(area.state, State::Finished | State::NonTried)).map(|area| area.range),
    );
    let written = store.write(path, &mut |out| summary.write(&mut bad, out));
    written.map_err(|cause| RunError::SideFile { what: "report", path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_cut_and_joined() {
        let range = |pos, end: u64| ByteRange { pos, len: end - pos };
        let others = [range(0, 5), range(8, 10), range(20, 30)];
        assert_eq!(without(range(3, 22), &others), [range(5, 8), range(10, 20)]);
        assert_eq!(without(range(21, 25), &others), []);
        let ranges = [range(0, 5), range(5, 8), range(9, 10), range(10, 11)];
        assert!(joined(ranges.into_iter()).eq([range(0, 8), range(9, 11)]));
    }
}
