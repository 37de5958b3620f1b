//! Taking out of metadata what is private: contents of files, what is left of deleted ones, times.
//!
//! Each function takes one structure as it lies on disk and wipes it in place: [`wipe_record`] an MFT record,
//! [`index::wipe_block`] a block of an index, [`log::wipe_page`] a page of `$LogFile`, [`value`] the values of other
//! attributes. Update sequence numbers are kept. What a structure does not account for is filled with zeros: of one
//! that is torn or contradicts itself only what lies before the damage is left.

use std::ops::Range;

use super::fixup::{Fixups, STRIDE};
use super::record::Fault;

pub mod index;
pub mod log;
mod record;
pub mod value;

pub use record::wipe_record;

/// What every time becomes: 1970-01-01 in NTFS's count of 100 ns since 1601, as ntfsclone has it.
const EPOCH: u64 = 116_444_736_000_000_000;

/// Bytes of a time.
const TIME: usize = 8;

/// How much is wiped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wiping {
    /// Leave the times of files.
    pub keep_times: bool,
}

/// What was wiped, in bytes: those that held something else than zeros, and eight for each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wiped {
    /// Behind what records in use use, and between their attributes.
    pub unused: u64,
    /// In records of deleted files, and in what is left of records that make no sense.
    pub deleted: u64,
    /// Contents of small files, which lie in their records.
    pub resident: u64,
    /// In blocks of indexes: behind the last entry, and whole blocks that are not in use.
    pub index: u64,
    /// Extended attributes, data of reparse points, encryption keys, log records, what lies behind the end of values.
    pub values: u64,
    /// Times.
    pub times: u64,
}

impl Wiped {
    /// All together.
    pub fn total(&self) -> u64 {
        let Wiped { unused, deleted, resident, index, values, times } = self;
        unused + deleted + resident + index + values + times
    }
}

/// Fills with zeros; returns how many bytes were none.
pub fn zero(bytes: &mut [u8]) -> u64 {
    if bytes.is_empty() {
        return 0;
    }
    // Most are zeros already. Stretches of a fixed length are looked at and counted as one, without a carry.
    let (stretches, rest) = bytes.as_chunks_mut::<STRETCH>();
    stretches.iter_mut().map(|stretch| zero_stretch(stretch)).sum::<u64>() + zero_stretch(rest)
}

/// Bytes of a stretch: no more than a byte can count.
const STRETCH: usize = 64;

fn zero_stretch(stretch: &mut [u8]) -> u64 {
    if stretch.iter().fold(0, |all, byte| all | byte) == 0 {
        return 0;
    }
    let wiped = stretch.iter().fold(0u8, |wiped, byte| wiped.wrapping_add(u8::from(*byte != 0)));
    stretch.fill(0);
    wiped.into()
}

/// Fills with zeros from byte `from` on.
fn zero_from(bytes: &mut [u8], from: usize) -> u64 {
    zero(bytes.get_mut(from..).unwrap_or_default())
}

/// Fills with zeros all but these stretches, which ascend; of what lies before `from` nothing.
fn zero_between(bytes: &mut [u8], from: usize, kept: &[Range<usize>]) -> u64 {
    let mut wiped = 0;
    let mut at = from;
    for kept in kept {
        if kept.start > at {
            wiped += zero(bytes.get_mut(at..kept.start.min(bytes.len())).unwrap_or_default());
        }
        at = at.max(kept.end);
    }
    wiped + zero_from(bytes, at)
}

/// Wipes a structure through its fixups: `wipe` gets the part of it that was written whole, with the fixups applied. What
/// lies behind that is filled with zeros, counted in `lost`, and the tear told.
fn through_fixups(
    bytes: &mut [u8],
    fixups: &Fixups,
    lost: &mut u64,
    wipe: impl FnOnce(&mut [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let torn = fixups.first_torn(bytes);
    let strides = torn.map_or(bytes.len() / STRIDE, |torn| torn.sector);
    let (whole, rest) = bytes.split_at_mut(strides * STRIDE);
    *lost += zero(rest);
    let outcome = if whole.is_empty() {
        Ok(())
    } else {
        fixups.apply(whole, strides);
        let outcome = wipe(whole);
        *lost += zero(whole.get_mut(fixups.entries_behind(strides)).unwrap_or_default());
        fixups.undo(whole, strides);
        outcome
    };
    torn.map_or(outcome, |torn| Err(torn.into()))
}

/// Sets the `n` times that follow each other from byte `at` on, as far as there are so many; returns their bytes.
fn wipe_times(bytes: &mut [u8], at: usize, n: usize) -> u64 {
    let Some(times) = bytes.get_mut(at..at + n * TIME) else { return 0 };
    times.chunks_exact_mut(TIME).for_each(|time| time.copy_from_slice(&EPOCH.to_le_bytes()));
    (n * TIME) as u64
}
