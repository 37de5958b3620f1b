//! Simulated disks: each read costs what it would on a failing disk, and what it does is known to the sector.

use super::*;
use crate::extent::{ClusterSet, Extent};
use crate::units::Lcn;

mod ends;

const SECTOR: u64 = 512;
const CLUSTER: u64 = 4096;
const SIZES: Sizes = Sizes { block: 64 << 10, physical: SECTOR, logical: SECTOR };

/// Numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// As often small as large: below a power of two below this one.
    fn upto_power(&mut self, power: u64) -> u64 {
        let power = self.below(power);
        self.below(1 << power)
    }
}

/// A disk with bad sectors, and a clock that goes on with each read.
struct SimDisk {
    bad: Vec<bool>,
    tried: Vec<u8>,
    head: u64,
    clock: f64,
    bad_reads: u64,
    held: u64,
    /// From this read on the disk does not answer.
    dies_at: u64,
    nr_reads: u64,
}

impl SimDisk {
    fn new(len: u64) -> SimDisk {
        let sectors = (len / SECTOR) as usize;
        SimDisk {
            bad: vec![false; sectors],
            tried: vec![0; sectors],
            head: 0,
            clock: 0.0,
            bad_reads: 0,
            held: 0,
            dies_at: u64::MAX,
            nr_reads: 0,
        }
    }

    fn sectors(range: ByteRange) -> std::ops::Range<usize> {
        assert!(
            range.len > 0 && range.pos.is_multiple_of(SECTOR) && range.len.is_multiple_of(SECTOR),
            "{range:?}"
        );
        (range.pos / SECTOR) as usize..(range.end() / SECTOR) as usize
    }

    /// Reads as lab's dying disk does: 9 ms a seek, 120 MB/s, 3 s an error.
    fn read(&mut self, range: ByteRange, counts: bool) -> Outcome {
        self.nr_reads += 1;
        if self.nr_reads > self.dies_at {
            return Outcome::Bad;
        }
        if self.head != range.pos {
            self.clock += 0.009;
        }
        self.head = range.end();
        self.clock += range.len as f64 / 120e6;
        let sectors = SimDisk::sectors(range);
        let fails = self.bad[sectors.clone()].iter().any(|bad| *bad);
        if counts {
            self.tried[sectors].iter_mut().for_each(|tried| *tried += 1);
        }
        if fails {
            self.clock += 3.0;
            self.bad_reads += 1;
            return Outcome::Bad;
        }
        if counts {
            self.held += range.len;
        }
        Outcome::Good
    }
}

/// Much of the first half in use, in stretches of all lengths.
fn domain_of(random: &mut Random, len: u64) -> ClusterSet {
    let nr = len / CLUSTER;
    let mut used = ClusterSet::new(nr);
    let mut at = 0;
    while at < nr * 6 / 10 {
        let run = 1 + random.upto_power(12);
        used.insert_extent(Extent { lcn: Lcn(at), len: run });
        at += run + random.upto_power(10);
    }
    used
}

fn run(disk: &mut SimDisk, domain: Domain<'_>, len: u64, retries: u32) -> Areas {
    let mut rescue = Rescue::new(Areas::new(len, CLUSTER), len, SIZES, Budget::default());
    let all = rescue.add_domain(domain);
    rescue.add_all(&[all], retries);
    loop {
        match rescue.next(Duration::ZERO) {
            Step::Read(range) => {
                let outcome = disk.read(range, true);
                rescue.done(outcome, Duration::ZERO);
            }
            Step::Check(range) => {
                let outcome = disk.read(range, false);
                rescue.done(outcome, Duration::ZERO);
            }
            Step::End(End::Complete) => return rescue.into_areas(),
            Step::End(end) => panic!("{end:?}"),
        }
    }
}

/// Everything readable is read, everything else is known to be bad, and nothing is tried more often than it must be.
fn check(disk: &SimDisk, domain: Domain<'_>, areas: &Areas) {
    for range in domain.ranges() {
        for sector in SimDisk::sectors(range) {
            let wanted = if disk.bad[sector] { State::Bad } else { State::Finished };
            assert_eq!(areas.state(sector as u64 * SECTOR), wanted, "sector {sector}");
            assert!(
                (1..=2).contains(&disk.tried[sector]),
                "sector {sector} tried {} times",
                disk.tried[sector]
            );
        }
    }
    let wanted: u64 = domain.ranges().map(|range| range.len / SECTOR).sum();
    assert_eq!(disk.tried.iter().filter(|tried| **tried > 0).count() as u64, wanted, "only what is wanted");
}

type Pattern = fn(&mut Random, &mut [bool]);

fn scattered(random: &mut Random, bad: &mut [bool]) {
    for _ in 0..40 {
        let at = random.below(bad.len() as u64 * 6 / 10) as usize;
        let end = at + 1 + random.below(8) as usize;
        bad[at..end].fill(true);
    }
}

fn scratch(random: &mut Random, bad: &mut [bool]) {
    let start = random.below(bad.len() as u64 / 2) as usize / 8 * 8;
    for block in (start..start + (12 << 20) / 512).step_by(8) {
        if random.below(10) == 0 {
            bad[block..block + 8].fill(true);
        }
    }
}

/// One zone in four is dead; zones of 2 to 6 MiB, each somewhat off.
fn dead_head(random: &mut Random, bad: &mut [bool]) {
    let zone = (2 + random.below(5)) * 2048;
    let mut at = random.below(zone * 4);
    while at < bad.len() as u64 {
        let len = zone + random.below(zone / 8);
        let end = (at + len).min(bad.len() as u64);
        bad[at as usize..end as usize].fill(true);
        at += zone * 4 + random.below(zone / 8);
    }
}

fn nothing_bad(_: &mut Random, _: &mut [bool]) {}

fn all_bad(_: &mut Random, bad: &mut [bool]) {
    bad.fill(true);
}

#[test]
fn everything_readable_is_read_and_nothing_tried_thrice() {
    const LEN: u64 = 128 << 20;
    for (no, pattern) in
        [scattered as Pattern, scratch, dead_head, nothing_bad, all_bad].into_iter().enumerate()
    {
        for seed in 0..5 {
            let random = &mut Random(seed * 7 + no as u64);
            let used = domain_of(random, LEN);
            let domain = Domain::new(&used, CLUSTER, ByteRange { pos: LEN - 512, len: 512 });
            let mut disk = SimDisk::new(LEN);
            pattern(random, &mut disk.bad);
            let areas = run(&mut disk, domain, LEN, 0);
            check(&disk, domain, &areas);
        }
    }
}
