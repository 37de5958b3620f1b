//! Once the ring of buffers is made, copying allocates nothing, however large the volume is and however many of its
//! sectors are bad. One test, alone in its process: the count is of all threads.

// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::File;
use std::io;
use std::sync::Mutex;

use ntfsrescue::copy::{Feed, MetadataFeed, Reader, SaveFeed, Seal, VolumeFeed, pump};
use ntfsrescue::extent::{ClusterSet, Extent};
use ntfsrescue::image::trailer::{Marks, Origin};
use ntfsrescue::image::{ImageEncoder, ImageReader};
use ntfsrescue::io::compressed::CompressedSink;
use ntfsrescue::io::disk::Disk;
use ntfsrescue::io::raw::RawSink;
use ntfsrescue::io::stream::{DrySink, Output, StreamSink};
use ntfsrescue::io::{ReadError, Sink, Source, WriteError};
use ntfsrescue::ntfs::metadata::Collector;
use ntfsrescue::ntfs::scan::scan;
use ntfsrescue::ntfs::wipe::Wiping;
use ntfsrescue::ntfs::{Tolerance, Volume};
use ntfsrescue::plan::Plan;
use ntfsrescue::report::{Channel, Reporter};
use ntfsrescue::serial::{NewSerial, SerialFeed};
use ntfsrescue::units::{Geometry, Lcn};

#[global_allocator]
static ALLOC: dhat::Alloc = dhat::Alloc;

const CLUSTER: u64 = 4096;
const NR_CLUSTERS: u64 = 16_000;

/// A disk on which every thousandth sector is bad.
struct BadDisk;

impl Source for BadDisk {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let mut sectors = pos / 512..(pos + buf.len() as u64).div_ceil(512);
        if sectors.any(|sector| sector % 1000 == 999) {
            let cause = io::Error::from_raw_os_error(5);
            return Err(ReadError { pos, len: buf.len(), cause });
        }
        buf.fill(pos as u8);
        Ok(())
    }

    fn len(&self) -> u64 {
        (NR_CLUSTERS + 1) * CLUSTER
    }

    fn sector_size(&self) -> u32 {
        512
    }
}

/// Notes the number of allocations after each stretch.
struct Watched<'a> {
    sink: &'a mut dyn Sink,
    /// With room for all of them.
    counts: Vec<u64>,
}

/// The reader is at most so many stretches ahead of what is written.
const AHEAD: usize = 4;

fn allocations() -> u64 {
    dhat::HeapStats::get().total_blocks
}

impl Sink for Watched<'_> {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        self.sink.put(pos, data)?;
        assert!(self.counts.len() < self.counts.capacity());
        self.counts.push(allocations());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        self.sink.finish()
    }

    fn takes_any_order(&self) -> bool {
        self.sink.takes_any_order()
    }
}

/// A sink that has taken something already: its threads have begun, and have what they need.
struct Begun<S> {
    sink: S,
    taken: u64,
}

impl<S: Sink> Begun<S> {
    fn new(mut sink: S) -> Begun<S> {
        let bytes = vec![7; 20 << 20];
        sink.put(0, &bytes).unwrap();
        Begun { sink, taken: bytes.len() as u64 }
    }
}

impl<S: Sink> Sink for Begun<S> {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        self.sink.put(self.taken + pos, data)
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        self.sink.finish()
    }

    fn takes_any_order(&self) -> bool {
        self.sink.takes_any_order()
    }
}

fn assert_copies_without_allocating(what: &str, feed: &mut impl Feed, sink: &mut dyn Sink) {
    let mut watched = Watched { sink, counts: Vec::with_capacity(1 << 16) };
    let reporter = Reporter::new(Channel::Stderr, false, None);
    pump(feed, &mut watched, NR_CLUSTERS * CLUSTER, &reporter).unwrap();
    let nr = watched.counts.len();
    assert!(nr > 10, "{what}: only {nr} stretches");
    // With the first stretch the set-up is over; when the last one is read an image gets its trailer.
    let during = watched.counts[nr - 1 - AHEAD] - watched.counts[0];
    assert_eq!(during, 0, "{what}: {during} allocations in {nr} stretches");
    watched.finish().unwrap();
}

#[test]
fn the_copy_loop_allocates_nothing() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let geometry = Geometry::new(CLUSTER, NR_CLUSTERS, BadDisk.len()).unwrap();
    let mut used = ClusterSet::new(NR_CLUSTERS);
    for lcn in (0..NR_CLUSTERS).step_by(100) {
        used.insert_extent(Extent { lcn: Lcn(lcn), len: 70 });
    }
    let nr_used = used.count();
    let plan = Plan::new(geometry, used, nr_used);
    let reporter = Reporter::new(Channel::Stderr, false, None);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let create = |name: &str| File::create(at(name)).unwrap();
    let volume = || VolumeFeed::new(Reader::new(&BadDisk, 512, true, &reporter), &plan);

    let mut raw = RawSink::file(create("raw"), "raw".into(), &geometry);
    assert_copies_without_allocating("clone", &mut volume(), &mut raw);
    let stream = Output::Stream(create("stream"));
    let mut stream = StreamSink::clone(stream, "stream".into(), geometry.device_size);
    assert_copies_without_allocating("clone to a pipe", &mut volume(), &mut stream);
    let mut image = StreamSink::image(Output::file(create("image")), "image".into());
    let (origin, marks) = (Origin::default(), Mutex::new(Marks::with_room()));
    let seal = Seal { origin: &origin, marks: &marks };
    let mut saving = SaveFeed::new(volume(), ImageEncoder::new(geometry, nr_used), Some(seal));
    assert_copies_without_allocating("save", &mut saving, &mut image);

    for name in ["zstd", "lz4"] {
        let (output, compression) = (Output::file(create(name)), name.parse().unwrap());
        let sink = CompressedSink::new(output, name.into(), compression, 1, 80 << 20).unwrap();
        let mut saving = SaveFeed::new(volume(), ImageEncoder::new(geometry, nr_used), Some(seal));
        assert_copies_without_allocating(name, &mut saving, &mut Begun::new(sink));
    }

    let saved = io::BufReader::new(File::open(at("image")).unwrap());
    let mut restored = RawSink::file(create("restored"), "restored".into(), &geometry);
    let mut checked = ImageReader::open_checked(saved, None).unwrap();
    assert_copies_without_allocating("restore", &mut checked, &mut restored);
    let trailer = checked.conclude().unwrap();
    assert!(trailer.as_ref().is_some_and(|trailer| trailer.sums.stretches.len() > 40));
    let saved = io::BufReader::new(File::open(at("image")).unwrap());
    let mut known = ImageReader::open_checked(saved, trailer).unwrap();
    assert_copies_without_allocating("check", &mut known, &mut DrySink::new("x".into(), false));
    assert!(std::fs::read(at("raw")).unwrap() == std::fs::read(at("restored")).unwrap());

    // Metadata, wiped and with a new serial number.
    File::create(at("volume")).unwrap().set_len(256 << 20).unwrap();
    let made =
        std::process::Command::new("mkntfs").args(["-F", "-Q", "-q", "-c", "512"]).arg(at("volume")).status();
    assert!(made.unwrap().success());
    let disk = Disk::open(&at("volume")).unwrap();
    let opened = Volume::open(&disk, Tolerance::RESCUE, &reporter).unwrap();
    let mut collector = Collector::new(&opened, false);
    let usage = scan(&opened, Tolerance::RESCUE, Some(&mut collector), &reporter).unwrap();
    let twice = usage.claimed_twice;
    let metadata = collector.conclude(&opened, twice, Tolerance::RESCUE, &reporter).unwrap();
    let reader = Reader::new(&disk, 512, true, &reporter);
    let wiping = Wiping { keep_times: false };
    let info = &opened.info;
    let feed = MetadataFeed::new(reader, &metadata, info, wiping, Tolerance::RESCUE, &reporter);
    let mut feed = SerialFeed::new(feed, NewSerial::Full, info.geometry, &reporter);
    let mut raw = RawSink::file(create("metadata"), "metadata".into(), &info.geometry);
    assert_copies_without_allocating("metadata", &mut feed, &mut raw);
}
