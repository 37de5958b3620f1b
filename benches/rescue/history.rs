//! What was asked of a disk, request by request, and what that amounts to after some time.

use std::fs;
use std::io;
use std::path::Path;

use crate::sectors::{SECTOR, Sectors};

/// Bytes of an entry of the plugin's log: clock in ms (f64), position (u64), length and outcome (u32), as the machine
/// has them.
const ENTRY: usize = 24;

/// One request.
pub struct Entry {
    /// Simulated seconds when it had been served.
    pub clock_s: f64,
    pub pos: u64,
    pub len: u64,
    pub outcome: Served,
}

/// How it was served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Served {
    Good,
    Failed,
    /// The disk died in it.
    Died,
}

/// Reads the plugin's log.
pub fn read_log(path: &Path) -> io::Result<Vec<Entry>> {
    let bytes = fs::read(path)?;
    Ok(bytes.chunks_exact(ENTRY).map(Entry::decode).collect())
}

impl Entry {
    fn decode(bytes: &[u8]) -> Entry {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(word)
        };
        let last = word(16).to_ne_bytes();
        let half = |at: usize| u32::from_ne_bytes([last[at], last[at + 1], last[at + 2], last[at + 3]]);
        Entry {
            clock_s: f64::from_bits(word(0)) / 1000.0,
            pos: word(8),
            len: half(0).into(),
            outcome: match half(4) {
                0 => Served::Good,
                1 => Served::Failed,
                _ => Served::Died,
            },
        }
    }

    /// The sectors that it touched.
    fn sectors(&self) -> std::ops::Range<u64> {
        self.pos / SECTOR..(self.pos + self.len).div_ceil(SECTOR)
    }
}

/// The sectors that were read well by some time.
pub fn read_by(entries: &[Entry], time_s: f64, disk_len: u64) -> Sectors {
    let mut read = Sectors::new(disk_len);
    let good = entries.iter().filter(|entry| entry.outcome == Served::Good && entry.clock_s <= time_s);
    good.for_each(|entry| read.insert_range(entry.sectors()));
    read
}

/// How many of `wanted` were read well by each of the times, which ascend.
pub fn held_at(entries: &[Entry], times_s: &[f64], wanted: &Sectors, disk_len: u64) -> Vec<u64> {
    let mut read = Sectors::new(disk_len);
    let (mut held, mut at) = (0, 0);
    let mut all = Vec::new();
    for time_s in times_s {
        while let Some(entry) = entries.get(at).filter(|entry| entry.clock_s <= *time_s) {
            if entry.outcome == Served::Good {
                let new = |sector: &u64| read.insert(*sector) && wanted.contains(*sector);
                held += entry.sectors().filter(new).count() as u64;
            }
            at += 1;
        }
        all.push(held);
    }
    all
}

/// How many reads had failed by each of the times, which ascend.
pub fn bad_reads_at(entries: &[Entry], times_s: &[f64]) -> Vec<u64> {
    let by = |time_s: &f64| entries.partition_point(|entry| entry.clock_s <= *time_s);
    let failed = |entries: &[Entry]| entries.iter().filter(|entry| entry.outcome == Served::Failed).count();
    times_s.iter().map(|time_s| failed(&entries[..by(time_s)]) as u64).collect()
}
