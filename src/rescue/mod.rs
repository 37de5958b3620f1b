//! Which bytes to read next, given what happened so far: a state machine that does no I/O.
//!
//! The caller asks [`Engine::next_read`] for a range, reads it, and says with [`Engine::done`] what came of it. This
//! engine goes through the ranges once, from front to back, as a pipe needs it: a block that cannot be read is
//! read again at once, sector by sector, and a sector that cannot be read is given up. So every sector is tried
//! at most twice.
//!
//! [`mapfile`] and [`frozen`] are what a rescue keeps on a disk to go on from: what was read, and what goes where.
//! [`mapstore`] sees to it that a map is there whatever happens.

use crate::extent::ByteRange;

pub mod frozen;
pub mod mapfile;
pub mod mapstore;
pub mod mark;
pub mod state;

pub use state::State;

/// How large the reads are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadSizes {
    /// A block, as long as all goes well.
    pub block: u64,
    /// The smallest read, and so the least that a bad spot costs.
    pub sector: u64,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All bytes are here.
    Good,
    /// None is.
    Bad,
}

/// What to do about a range that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its bytes are good: pass them on.
    Keep,
    /// Its parts come again, smaller.
    Retry,
    /// Given up: mark it and pass that on.
    Lost,
}

/// Hands out the reads.
#[derive(Debug)]
pub struct Engine<R> {
    sizes: ReadSizes,
    ranges: R,
    /// The rest of the range that is being read.
    current: ByteRange,
    /// Up to here the reads are single sectors.
    careful_until: u64,
}

impl<R: Iterator<Item = ByteRange>> Engine<R> {
    /// Goes through `ranges`, which ascend and do not overlap.
    pub fn new(ranges: R, sizes: ReadSizes) -> Engine<R> {
        Engine { sizes, ranges, current: ByteRange { pos: 0, len: 0 }, careful_until: 0 }
    }

    /// The next range to read, which stays the same until [`Engine::done`] is called; none at the end. Ranges end
    /// on multiples of their size, so that sectors stay whole.
    pub fn next_read(&mut self) -> Option<ByteRange> {
        while self.current.len == 0 {
            self.current = self.ranges.next()?;
        }
        let ByteRange { pos, len } = self.current;
        let careful = pos < self.careful_until;
        let size = if careful { self.sizes.sector } else { self.sizes.block }.max(1);
        let end = (pos / size + 1).saturating_mul(size);
        Some(ByteRange { pos, len: len.min(end - pos) })
    }

    /// Says what came of the last range.
    pub fn done(&mut self, outcome: Outcome) -> Verdict {
        let Some(range) = self.next_read() else { return Verdict::Keep };
        let is_sector = range.pos / self.sizes.sector == (range.end() - 1) / self.sizes.sector;
        if outcome == Outcome::Bad && !is_sector {
            self.careful_until = range.end();
            return Verdict::Retry;
        }
        self.current = ByteRange { pos: range.end(), len: self.current.len - range.len };
        match outcome {
            Outcome::Good => Verdict::Keep,
            Outcome::Bad => Verdict::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: ReadSizes = ReadSizes { block: 4096, sector: 512 };

    /// Position and length.
    type Stretch = (u64, u64);

    /// Runs the engine over a disk with bad sectors; returns the reads and what was lost, as positions.
    fn run(ranges: &[Stretch], bad: &[u64]) -> (Vec<Stretch>, Vec<Stretch>) {
        let total: u64 = ranges.iter().map(|(_, len)| len).sum();
        let ranges = ranges.iter().map(|&(pos, len)| ByteRange { pos, len });
        let mut engine = Engine::new(ranges, SIZES);
        let (mut reads, mut lost, mut settled) = (Vec::new(), Vec::new(), 0);
        while let Some(range) = engine.next_read() {
            reads.push((range.pos, range.len));
            let hit = bad.iter().any(|sector| range.pos < sector * 512 + 512 && sector * 512 < range.end());
            match engine.done(if hit { Outcome::Bad } else { Outcome::Good }) {
                Verdict::Keep => settled += range.len,
                Verdict::Lost => {
                    lost.push((range.pos, range.len));
                    settled += range.len;
                }
                Verdict::Retry => {}
            }
            assert!(reads.len() < 1000, "no end");
        }
        assert_eq!(settled, total, "every byte is kept or lost, once");
        (reads, lost)
    }

    #[test]
    fn good_ranges_are_read_in_aligned_blocks() {
        let (reads, lost) = run(&[(0, 4096), (5120, 8192), (20480, 100)], &[]);
        assert_eq!(reads, [(0, 4096), (5120, 3072), (8192, 4096), (12288, 1024), (20480, 100)]);
        assert!(lost.is_empty());
    }

    #[test]
    fn one_bad_sector_costs_one_sector_and_two_reads_of_its_block() {
        let (reads, lost) = run(&[(0, 12288)], &[9]);
        assert_eq!(lost, [(4608, 512)]);
        assert_eq!(reads.len(), 3 + 8);
        assert_eq!(reads[1..4], [(4096, 4096), (4096, 512), (4608, 512)]);
        assert_eq!(reads.last(), Some(&(8192, 4096)));
    }

    #[test]
    fn every_sector_of_a_dead_range_is_tried_twice_at_most() {
        let (reads, lost) = run(&[(512, 7680)], &(1..16).collect::<Vec<_>>());
        assert_eq!(lost.iter().map(|(_, len)| len).sum::<u64>(), 7680);
        assert_eq!(reads.len(), 2 + 15);
    }

    #[test]
    fn a_range_smaller_than_a_sector_is_given_up_at_once() {
        let (reads, lost) = run(&[(512, 100)], &[1]);
        assert_eq!((reads.len(), lost), (1, vec![(512, 100)]));
    }
}
