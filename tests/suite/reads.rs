//! What is read of a volume when it is copied from front to back: each byte once.

use std::path::Path;
use std::sync::Mutex;

use ntfsrescue::copy::{Feed, MetadataFeed, Reader, VolumeFeed, pump};
use ntfsrescue::event::Silent;
use ntfsrescue::io::disk::Disk;
use ntfsrescue::io::kept::Kept;
use ntfsrescue::io::stream::DrySink;
use ntfsrescue::io::{ReadError, Source};
use ntfsrescue::ntfs::metadata::Collector;
use ntfsrescue::ntfs::record::Record;
use ntfsrescue::ntfs::scan::scan;
use ntfsrescue::ntfs::shutdown::has_unclean_log;
use ntfsrescue::ntfs::wipe::Wiping;
use ntfsrescue::ntfs::{Tolerance, Volume};
use ntfsrescue::plan::Plan;

use crate::volumes::{Place, crowd, fill, mkntfs, scatter};

/// Bytes that the program keeps from the scan.
const KEPT: u64 = 4 << 20;

/// A disk that notes what is read of it: first byte and length of each read.
struct Counting {
    disk: Disk,
    reads: Mutex<Vec<(u64, u64)>>,
}

impl Source for Counting {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.reads.lock().unwrap().push((pos, buf.len() as u64));
        self.disk.read_at(pos, buf)
    }

    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }
}

/// What was read.
struct Reads {
    /// By the time the scan was over.
    of_scan: Vec<(u64, u64)>,
    all: Vec<(u64, u64)>,
    /// The first records of `$MFT`: NTFS's own files.
    own: std::ops::Range<u64>,
}

/// Copies to nowhere what the program would save, of which it keeps `kept` bytes.
fn copy(volume: &Path, kept: u64, metadata_only: bool) -> Reads {
    let disk = Counting { disk: Disk::open(volume).unwrap(), reads: Mutex::default() };
    let kept = Kept::new(&disk, kept, true);
    let none = Tolerance::default();
    let volume = Volume::open(&kept, none, &Silent).unwrap();
    let mut collector = metadata_only.then(|| Collector::new(&volume, false));
    let usage = scan(&volume, none, collector.as_mut(), &Silent).unwrap();
    assert!(!has_unclean_log(&volume));
    let start = volume.mft.record_pos(0).unwrap();
    let own = start..start + 16 * volume.mft.record_size() as u64;
    let mut sink = DrySink::new("nowhere".into(), false);
    let mut pour = |feed: &mut dyn Feed| {
        let of_scan = disk.reads.lock().unwrap().clone();
        kept.hand_out();
        pump(&mut &mut *feed, &mut sink, u64::MAX, &Silent).unwrap();
        of_scan
    };
    let reader = Reader::new(&kept, volume.info.sector_size, false, &Silent);
    let of_scan = if let Some(collector) = collector {
        let metadata = collector.conclude(&volume, usage.claimed_twice, none, &Silent).unwrap();
        let wiping = Wiping { keep_times: false };
        pour(&mut MetadataFeed::new(reader, &metadata, &volume.info, wiping, none, &Silent))
    } else {
        let plan = Plan::new(volume.info.geometry, usage.used, usage.nr_used);
        pour(&mut VolumeFeed::new(reader, &plan))
    };
    Reads { of_scan, all: disk.reads.into_inner().unwrap(), own }
}

/// Stretches that are read again, with their length.
fn read_twice(reads: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut sorted = reads.to_vec();
    sorted.sort_unstable();
    let mut end = 0;
    let mut twice = Vec::new();
    for (pos, len) in sorted {
        if pos < end {
            twice.push((pos, end.min(pos + len) - pos));
        }
        end = end.max(pos + len);
    }
    twice
}

fn bytes(reads: &[(u64, u64)]) -> u64 {
    reads.iter().map(|(_, len)| len).sum()
}

#[test]
fn no_byte_of_a_small_volume_is_read_twice() {
    for (cluster_size, is_crowded) in [(4096, false), (4096, true), (512, false), (65536, false)] {
        let place = Place::new();
        let volume = place.at("volume");
        // Its end is not on a page.
        mkntfs(&volume, (40 << 20) + 512, 512, cluster_size);
        if is_crowded {
            crowd(&volume)
        } else {
            fill(&volume, 150)
        }
        for metadata_only in [false, true] {
            let reads = copy(&volume, KEPT, metadata_only);
            let what = format!("{cluster_size}, crowded: {is_crowded}, metadata: {metadata_only}");
            // A little that lies within a large read of the copy is not worth two reads.
            let of_copy = reads.all.get(reads.of_scan.len()..).unwrap();
            for (pos, len) in read_twice(&reads.all) {
                let is_within = |(at, of): &(u64, u64)| *at < pos && pos + len < at + of;
                assert!(len < 64 << 10 && of_copy.iter().any(is_within), "{what}: {len} bytes at {pos}");
            }
            assert_eq!(read_twice(&reads.of_scan), [], "{what}");
            // Without keeping anything there is more to be read, by about as many reads.
            let without = copy(&volume, 0, metadata_only);
            assert!(bytes(&without.all) > bytes(&reads.all), "{what}");
            let numbers = (reads.all.len(), without.all.len());
            assert!(numbers.0 <= numbers.1 + 4, "{what}: {numbers:?}");
        }
    }
}

#[test]
fn only_what_there_is_no_room_for_is_read_twice() {
    let place = Place::new();
    let volume = place.at("volume");
    mkntfs(&volume, 40 << 20, 512, 4096);
    fill(&volume, 400);
    let room = 128 << 10;
    for metadata_only in [false, true] {
        let reads = copy(&volume, room, metadata_only);
        let (scanned, twice) = (bytes(&reads.of_scan), bytes(&read_twice(&reads.all)));
        assert!(scanned > 2 * room && twice > 0, "{scanned} bytes for the scan, {twice} twice");
        assert!(twice <= scanned - room, "{scanned} bytes for the scan, {twice} twice");
    }
}

/// The base record of each extension record, in their order, and where it is.
fn bases_of_extensions(volume: &Path) -> Vec<u64> {
    let disk = Disk::open(volume).unwrap();
    let volume = Volume::open(&disk, Tolerance::default(), &Silent).unwrap();
    let mut bases = Vec::new();
    let sweep = volume.mft.sweep(&disk, &Silent, |_, bytes| {
        let record = Record::parse(bytes.unwrap()).unwrap();
        bases.extend(record.base_mft_no().filter(|_| record.in_use()));
        Ok(())
    });
    sweep.unwrap();
    bases.into_iter().map(|base| volume.mft.record_pos(base).unwrap()).collect()
}

#[test]
fn base_records_are_not_read_again_for_their_extensions() {
    let place = Place::new();
    let volume = place.at("volume");
    mkntfs(&volume, 48 << 20, 512, 4096);
    scatter(&volume);
    let bases = bases_of_extensions(&volume);
    let nr_turns = bases.windows(2).filter(|two| two[0] != two[1]).count();
    assert!(nr_turns > 5, "the extensions of one file after the other: {bases:?}");
    let reads = copy(&volume, 0, false);
    let again = |(pos, len): &&(u64, u64)| *len == 1024 && bases.contains(pos) && !reads.own.contains(pos);
    assert_eq!(reads.of_scan.iter().filter(again).count(), 0);
}
