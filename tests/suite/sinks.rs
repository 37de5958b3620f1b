//! Sinks that fail inside the process, where nothing of a system call is left to inject into: every n-th put and sync of
//! the pump that copies and of the one that rescues, over a medium that forgets what was not synced.
//!
//! A failed sync is the worst of it: the kernel drops what it could not write and calls the next sync good. So after the
//! first error nothing more may be put, synced or called finished.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use ntfsrescue::copy::rescue::{Ending, Keeper, Meter};
use ntfsrescue::copy::{CopyError, Reader, VolumeFeed, pump, rescue};
use ntfsrescue::event::{Event, Observer};
use ntfsrescue::extent::{ByteRange, ClusterSet, Extent};
use ntfsrescue::io::{PlacedSink, ReadError, Sink, Source, WriteError};
use ntfsrescue::plan::Plan;
use ntfsrescue::rescue::mapstore::MapError;
use ntfsrescue::rescue::passes::{Budget, End, Sizes};
use ntfsrescue::rescue::{Areas, Rescue, State};
use ntfsrescue::units::{Geometry, Lcn};

use crate::tools::noise;

const CLUSTER: u64 = 4096;
const NR_CLUSTERS: u64 = 1500;

/// ENOSPC, EIO, EDQUOT.
const ERRORS: [i32; 3] = [28, 5, 122];

struct Silent;

impl Observer for Silent {
    fn tell(&self, _: Event<'_>) {}

    fn wants_stop(&self) -> bool {
        false
    }
}

/// A disk with these bytes, and the time that a read takes.
struct Disk(Vec<u8>, Duration);

impl Source for Disk {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        std::thread::sleep(self.1);
        buf.copy_from_slice(&self.0[pos as usize..][..buf.len()]);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn sector_size(&self) -> u32 {
        512
    }
}

/// Used clusters with gaps between them.
fn plan(disk: &Disk) -> Plan {
    let mut used = ClusterSet::new(NR_CLUSTERS);
    for lcn in (0..NR_CLUSTERS).step_by(300) {
        used.insert_extent(Extent { lcn: Lcn(lcn), len: 170 });
    }
    let nr_used = used.count();
    Plan::new(Geometry::new(CLUSTER, NR_CLUSTERS, disk.len()).unwrap(), used, nr_used)
}

fn disk(delay: Duration) -> Disk {
    Disk(noise(11, (NR_CLUSTERS * CLUSTER + 512) as usize), delay)
}

/// Stretches by their first byte.
type Stretches = BTreeMap<u64, Vec<u8>>;

/// A target in memory of which one operation fails.
struct FaultySink {
    /// What has reached the medium, and what waits for the next sync.
    durable: Stretches,
    cached: Stretches,
    /// Operations until the fault, and its error number.
    left: u32,
    errno: i32,
    has_failed: bool,
}

impl FaultySink {
    /// The operation after `good` ones fails.
    fn new(good: u32, errno: i32) -> FaultySink {
        FaultySink { durable: BTreeMap::new(), cached: BTreeMap::new(), left: good, errno, has_failed: false }
    }

    /// Fails when it is time to, once: what comes after that would succeed.
    fn operate(&mut self) -> io::Result<()> {
        assert!(!self.has_failed, "the target is still used after it has failed");
        if self.left == 0 {
            self.has_failed = true;
            self.cached.clear();
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        self.left -= 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let failed = |cause| WriteError::Finish { what: "sync", target: "'target'".into(), cause };
        self.operate().map_err(failed)?;
        self.durable.append(&mut self.cached);
        Ok(())
    }
}

impl Sink for FaultySink {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        let failed = |cause| WriteError::Write { target: "'target'".into(), pos, len: data.len(), cause };
        self.operate().map_err(failed)?;
        self.cached.insert(pos, data.to_vec());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        self.flush()
    }

    fn takes_any_order(&self) -> bool {
        true
    }
}

impl PlacedSink for FaultySink {
    fn read_back(&self, _: u64, _: &mut [u8]) -> Result<(), ReadError> {
        unreachable!("nothing is to be read back")
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        self.flush()
    }

    fn place_of(&self, pos: u64) -> u64 {
        pos
    }

    fn end(&self) -> u64 {
        u64::MAX
    }

    fn len(&self) -> u64 {
        NR_CLUSTERS * CLUSTER
    }
}

/// Is this the error that was injected?
#[track_caller]
fn assert_told(error: &CopyError, errno: i32) {
    let CopyError::Write(error) = error else { panic!("{error}") };
    let told = error.to_string();
    assert!(told.contains("'target'") && told.contains(&format!("(os error {errno})")), "{told}");
}

/// Do the stretches hold all these bytes of the disk, and no others?
fn holds(stretches: &Stretches, disk: &Disk, range: ByteRange) -> bool {
    let mut pos = range.pos;
    while pos < range.end() {
        let Some((start, data)) = stretches.range(..=pos).next_back() else { return false };
        let end = start + data.len() as u64;
        if end <= pos || data[..] != disk.0[*start as usize..end as usize] {
            return false;
        }
        pos = end;
    }
    true
}

#[test]
fn a_copy_ends_at_the_first_error() {
    let disk = disk(Duration::ZERO);
    let plan = plan(&disk);
    let copy = |sink: &mut FaultySink| {
        let mut feed = VolumeFeed::new(Reader::new(&disk, 512, false, &Silent), &plan);
        pump(&mut feed, sink, plan.total_bytes(), &Silent).and_then(|()| Ok(sink.finish()?))
    };
    let mut n = 0;
    loop {
        let errno = ERRORS[n as usize % 3];
        let mut sink = FaultySink::new(n, errno);
        match copy(&mut sink) {
            Err(error) => assert_told(&error, errno),
            Ok(()) => {
                assert!(!sink.has_failed, "operation {n} has failed, and nobody was told");
                assert!(plan.ranges().all(|range| holds(&sink.durable, &disk, range)));
                break;
            }
        }
        n += 1;
    }
    assert!(n > 5, "only {n} operations");
}

/// Keeps the map in memory.
#[derive(Default)]
struct Map {
    finished: Vec<ByteRange>,
    nr_kept: u32,
}

struct MapKeeper<'a> {
    map: &'a mut Map,
    plan: &'a Plan,
}

impl Keeper for MapKeeper<'_> {
    fn keep(&mut self, rescue: &Rescue<'_>) -> Result<(), MapError> {
        let areas = self.plan.ranges().flat_map(|range| rescue.areas().within(range));
        let finished = areas.filter(|area| area.state == State::Finished).map(|area| area.range);
        self.map.finished = finished.collect();
        self.map.nr_kept += 1;
        Ok(())
    }
}

/// Rescues what the map does not call finished.
fn go_on(disk: &Disk, plan: &Plan, sink: &mut FaultySink, map: &mut Map) -> Result<Ending, CopyError> {
    let mut areas = Areas::new(disk.len(), CLUSTER);
    map.finished.iter().for_each(|range| areas.set(*range, State::Finished));
    let sizes = Sizes { block: 64 << 10, physical: 512, logical: 512 };
    let mut state = Rescue::new(areas, disk.len(), sizes, Budget::default());
    let domain = state.add_domain(plan.domain());
    state.add_all(&[domain], 0);
    // The map is kept as often as may be.
    let mut meter = Meter::new(Instant::now(), Duration::ZERO);
    let mut keeper = MapKeeper { map, plan };
    rescue::pump(&mut state, disk, sink, &mut keeper, &mut meter, &Silent)
}

#[test]
fn a_map_calls_nothing_finished_that_a_faulty_target_has_lost() {
    // Slow enough for some maps on the way: keeping them takes a share of the time.
    let disk = disk(Duration::from_micros(400));
    let plan = plan(&disk);
    let (mut n, mut nr_kept) = (0, 0);
    loop {
        let errno = ERRORS[n as usize % 3];
        let mut sink = FaultySink::new(n, errno);
        let mut map = Map::default();
        let ending = go_on(&disk, &plan, &mut sink, &mut map);
        let kept = |sink: &FaultySink, map: &Map| {
            map.finished.iter().all(|range| holds(&sink.durable, &disk, *range))
        };
        assert!(kept(&sink, &map), "operation {n}: the map says more than the medium has");
        match ending {
            Err(error) => assert_told(&error, errno),
            Ok(ending) => {
                assert!(!sink.has_failed, "operation {n} has failed, and nobody was told");
                assert_eq!(ending, Ending::End(End::Complete));
                break;
            }
        }
        nr_kept += map.nr_kept;
        // The fault is gone: the next run goes on where the map says.
        (sink.has_failed, sink.left) = (false, u32::MAX);
        let ending = go_on(&disk, &plan, &mut sink, &mut map).unwrap();
        assert_eq!(ending, Ending::End(End::Complete));
        assert!(plan.ranges().all(|range| holds(&sink.durable, &disk, range)), "operation {n}");
        n += 1;
    }
    println!("{n} operations of a rescue, {nr_kept} maps");
    assert!(n > 50, "only {n} operations");
    // One at the start, and what comes on the way; the last one is not kept when the target has failed.
    assert!(nr_kept > 2 * n, "only {nr_kept} maps in {n} runs");
}
