//! Sets of 512-byte sectors of a disk: one bit each.

use std::ops::Range;

/// Bytes in a sector here, whatever the volume says: the unit of the faults and of all that is counted.
pub const SECTOR: u64 = 512;

/// A set of sectors.
#[derive(Clone, Default)]
pub struct Sectors(Vec<u64>);

impl Sectors {
    /// An empty set of sectors of a disk of this many bytes.
    pub fn new(disk_len: u64) -> Sectors {
        Sectors(vec![0; disk_len.div_ceil(SECTOR).div_ceil(64) as usize])
    }

    /// Is it in the set?
    pub fn contains(&self, sector: u64) -> bool {
        self.0.get((sector / 64) as usize).is_some_and(|word| word >> (sector % 64) & 1 == 1)
    }

    /// Puts one in; true if it was not there.
    pub fn insert(&mut self, sector: u64) -> bool {
        let word = &mut self.0[(sector / 64) as usize];
        let bit = 1 << (sector % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Puts a stretch in.
    pub fn insert_range(&mut self, range: Range<u64>) {
        range.for_each(|sector| {
            self.insert(sector);
        });
    }

    /// Takes out what the other set has.
    pub fn remove_all(&mut self, other: &Sectors) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many are in both.
    pub fn count_common(&self, other: &Sectors) -> u64 {
        self.0.iter().zip(&other.0).map(|(a, b)| u64::from((a & b).count_ones())).sum()
    }

    /// The stretches of it, ascending, as long as they can be.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (base, word) in (0..).step_by(64).zip(&self.0) {
            for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
                match ranges.last_mut() {
                    Some(last) if last.end == base + bit => last.end += 1,
                    _ => ranges.push(base + bit..base + bit + 1),
                }
            }
        }
        ranges
    }
}
