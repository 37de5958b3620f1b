//! Which bytes of the volume wait in an ahead file, and where in it.
//!
//! Records that follow each other on the volume and in the file are one run, so that memory grows with the number of
//! jumps, not with the bytes.

use std::collections::BTreeMap;

use super::HEAD_LEN;
use crate::extent::ByteRange;

/// Records one behind the other: heads, each followed by its data.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Where the head of the first record begins in the file.
    head: u64,
    /// Bytes of that record's data that do not belong to the run any more.
    skip: u64,
    /// Bytes of data in each record but the last, which may have fewer.
    piece: u64,
    /// Bytes of the run.
    len: u64,
}

/// Bytes of the volume that one record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where they belong.
    pub(super) range: ByteRange,
    /// Where the first of them stands in the file.
    pub(super) at: u64,
}

/// Finds the newest bytes of each place.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By the place on the volume where each begins. They do not overlap.
    runs: BTreeMap<u64, Run>,
}

impl Run {
    /// The head of the record that holds the run's byte `n`, and the place of that byte in its data.
    fn record_of(&self, n: u64) -> (u64, u64) {
        let n = self.skip + n;
        (self.head + n / self.piece * (HEAD_LEN + self.piece), n % self.piece)
    }

    /// The run without its first `n` bytes.
    fn from(&self, n: u64) -> Run {
        let (head, skip) = self.record_of(n);
        Run { head, skip, len: self.len - n, ..*self }
    }

    /// Would a record with so much data, whose head begins there, be its next?
    fn goes_on_with(&self, head: u64, len: u64) -> bool {
        self.record_of(self.len) == (head, 0) && len <= self.piece
    }
}

impl Index {
    /// Takes down a record of at least one byte; what is known of its place is forgotten.
    pub(super) fn insert(&mut self, range: ByteRange, head: u64) {
        self.remove(range);
        let before = self.runs.range_mut(..range.pos).next_back();
        if let Some((pos, run)) = before
            && pos + run.len == range.pos
            && run.goes_on_with(head, range.len)
        {
            run.len += range.len;
            return;
        }
        self.runs.insert(range.pos, Run { head, skip: 0, piece: range.len, len: range.len });
    }

    /// Forgets these bytes.
    pub(super) fn remove(&mut self, range: ByteRange) {
        if range.len == 0 {
            return;
        }
        if let Some((&pos, run)) = self.runs.range_mut(..range.pos).next_back()
            && pos + run.len > range.pos
        {
            let tail = (pos + run.len > range.end()).then(|| run.from(range.end() - pos));
            run.len = range.pos - pos;
            self.runs.extend(tail.map(|tail| (range.end(), tail)));
        }
        while let Some((&pos, &run)) = self.runs.range(range.pos..range.end()).next() {
            self.runs.remove(&pos);
            if pos + run.len > range.end() {
                self.runs.insert(range.end(), run.from(range.end() - pos));
            }
        }
    }

    /// The first bytes in this stretch of the volume that wait, as far as one record has them.
    pub(super) fn next(&self, range: ByteRange) -> Option<Piece> {
        let before =
            self.runs.range(..=range.pos).next_back().filter(|(pos, run)| *pos + run.len > range.pos);
        let (&start, run) =
            before.or_else(|| self.runs.range(range.pos..).next()).filter(|(pos, _)| **pos < range.end())?;
        let pos = start.max(range.pos);
        let (head, skip) = run.record_of(pos - start);
        let len = (run.piece - skip).min(start + run.len - pos).min(range.end() - pos);
        Some(Piece { range: ByteRange { pos, len }, at: head + HEAD_LEN + skip })
    }

    /// Where the first of all begins.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.keys().next().copied()
    }

    /// How many runs there are: memory grows with them.
    pub(super) fn nr_runs(&self) -> usize {
        self.runs.len()
    }

    /// The head of the last record in the file of which any byte waits.
    pub(super) fn last_head(&self) -> Option<u64> {
        self.runs.values().map(|run| run.record_of(run.len.saturating_sub(1)).0).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(pos: u64, len: u64) -> ByteRange {
        ByteRange { pos, len }
    }

    /// All that waits: place on the volume, length, place in the file.
    fn pieces(index: &Index) -> Vec<(u64, u64, u64)> {
        let mut at = 0;
        std::iter::from_fn(|| {
            let piece = index.next(range(at, u64::MAX - at))?;
            at = piece.range.end();
            Some((piece.range.pos, piece.range.len, piece.at))
        })
        .collect()
    }

    #[test]
    fn neighbours_are_one_run() {
        let mut index = Index::default();
        let record = HEAD_LEN + 100;
        for i in 0..1000 {
            index.insert(range(5000 + i * 100, 100), 40 + i * record);
        }
        // The last of a run may be short; nothing follows it.
        index.insert(range(105_000, 30), 40 + 1000 * record);
        assert_eq!(index.nr_runs(), 1);
        index.insert(range(105_030, 30), 40 + 1000 * record + HEAD_LEN + 30);
        // Neighbours on the volume that are far apart in the file.
        index.insert(range(4900, 100), 999_999);
        assert_eq!(index.nr_runs(), 3);
        assert_eq!(pieces(&index).len(), 1003);
        let found = index.next(range(5250, 100)).unwrap();
        assert_eq!(found, Piece { range: range(5250, 50), at: 40 + 2 * record + HEAD_LEN + 50 });
        assert_eq!(index.next(range(0, 4900)), None);
        assert_eq!(index.next(range(105_060, 1)), None);
        assert_eq!((index.first(), index.last_head()), (Some(4900), Some(999_999)));
    }

    #[test]
    fn later_records_win() {
        const LEN: usize = 400;
        // What a map of single bytes finds, over many random records and removals.
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut index = Index::default();
            let mut wanted = [0; LEN];
            let mut head = 40;
            let mut pos = 0;
            for _ in 0..60 {
                // Often right behind the one before, and of the same length.
                pos = if random(3) == 0 { random(LEN as u64 - 20) } else { pos.min(LEN as u64 - 20) };
                let len = [10, 10, 10, 1 + random(20)][random(4) as usize];
                let bytes = &mut wanted[pos as usize..(pos + len) as usize];
                if random(5) == 0 {
                    bytes.fill(0);
                    index.remove(range(pos, len));
                } else {
                    (head + HEAD_LEN..).zip(bytes).for_each(|(at, byte)| *byte = at);
                    index.insert(range(pos, len), head);
                    head += HEAD_LEN + len;
                }
                pos += len;
                let mut found = [0; LEN];
                for (pos, len, at) in pieces(&index) {
                    (at..at + len).zip(pos..).for_each(|(at, pos)| found[pos as usize] = at);
                }
                assert_eq!(found, wanted);
                assert_eq!(index.first(), wanted.iter().position(|at| *at != 0).map(|pos| pos as u64));
                if let Some(last) = index.last_head() {
                    let at = *wanted.iter().max().unwrap();
                    assert!(last + HEAD_LEN <= at && at < last + HEAD_LEN + 20);
                }
            }
        }
    }
}
