//! Fixups: how a structure of several sectors shows that it was written whole.
//!
//! The last two bytes of each 512 bytes of an MFT record, an index block or a page of the log (of the structure,
//! whatever the disk's sectors are) hold its update sequence number; the bytes that belong there are kept in an
//! array behind its header. The array's place is in the same two fields of every such structure.

use std::ops::Range;

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::record::Fault;

/// Bytes that one entry of the array protects.
pub(super) const STRIDE: usize = 512;

/// What every structure with fixups begins with.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Start {
    /// `FILE`, `INDX`, `RSTR` and the like; `BAAD` or `CHKD` where chkdsk found it torn.
    magic: [u8; 4],
    /// Offset of the array, whose first entry is the number itself.
    usa_offset: U16,
    /// Entries of it: one more than there are strides.
    usa_count: U16,
}

/// A sector that is older or newer than the others.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("update sequence mismatch in sector {sector} (found {found:04x}, wanted {wanted:04x})")]
pub struct Torn {
    /// Number of the 512 bytes, from the structure's start.
    pub sector: usize,
    /// The bytes at their end.
    pub found: u16,
    /// The update sequence number.
    pub wanted: u16,
}

/// Where a structure keeps its fixups.
#[derive(Clone, Debug)]
pub(super) struct Fixups {
    array: Range<usize>,
}

impl Fixups {
    /// Finds the array of a structure of `bytes.len()` bytes, the first `header_len` of which are its header.
    pub(super) fn find(bytes: &[u8], header_len: usize) -> Result<Fixups, Fault> {
        let record_size = bytes.len();
        let impossible = |field, found: u32| Fault::Header { field, found, record_size };
        let Ok((raw, _)) = Start::ref_from_prefix(bytes) else {
            return Err(impossible("record size", 0));
        };
        let (offset, count) = (raw.usa_offset.get(), raw.usa_count.get());
        if usize::from(count) != record_size / STRIDE + 1 {
            return Err(impossible("size of the update sequence array", count.into()));
        }
        let array = usize::from(offset)..usize::from(offset) + 2 * usize::from(count);
        if array.start < header_len || array.end > record_size {
            return Err(impossible("offset of the update sequence array", offset.into()));
        }
        Ok(Fixups { array })
    }

    /// Where the array lies.
    pub(super) fn array(&self) -> Range<usize> {
        self.array.clone()
    }

    /// Where the entries of the strides behind the first `strides` lie.
    pub(super) fn entries_behind(&self, strides: usize) -> Range<usize> {
        (self.array.start + 2 * (strides + 1)).min(self.array.end)..self.array.end
    }

    /// The entry of the array: 0 is the update sequence number.
    fn entry(&self, bytes: &[u8], i: usize) -> [u8; 2] {
        let at = self.array.start + 2 * i;
        bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).unwrap_or_default()
    }

    /// The first stride that does not end in the update sequence number.
    pub(super) fn first_torn(&self, bytes: &[u8]) -> Option<Torn> {
        let wanted = u16::from_le_bytes(self.entry(bytes, 0));
        bytes.chunks_exact(STRIDE).enumerate().find_map(|(sector, stride)| {
            let found = stride.last_chunk().map_or(0, |two| u16::from_le_bytes(*two));
            (found != wanted).then_some(Torn { sector, found, wanted })
        })
    }

    /// Puts the bytes that belong there at the ends of the first `strides` strides.
    pub(super) fn apply(&self, bytes: &mut [u8], strides: usize) {
        for stride in 0..strides {
            let kept = self.entry(bytes, stride + 1);
            put(bytes, (stride + 1) * STRIDE - 2, kept);
        }
    }

    /// Takes the ends of the first `strides` strides into the array and puts the number, which stays, in their
    /// place.
    pub(super) fn undo(&self, bytes: &mut [u8], strides: usize) {
        let number = self.entry(bytes, 0);
        for stride in 0..strides {
            let end = (stride + 1) * STRIDE - 2;
            let kept = bytes.get(end..end + 2).and_then(|two| two.try_into().ok()).unwrap_or_default();
            put(bytes, self.array.start + 2 * (stride + 1), kept);
            put(bytes, end, number);
        }
    }
}

fn put(bytes: &mut [u8], at: usize, two: [u8; 2]) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&two);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two strides, number 7, with AABB and CCDD kept.
    fn on_disk() -> Vec<u8> {
        let mut bytes = vec![0x55; 1024];
        bytes[..8].copy_from_slice(b"INDX\x28\0\x03\0");
        bytes[0x28..0x2e].copy_from_slice(&[7, 0, 0xaa, 0xbb, 0xcc, 0xdd]);
        bytes[510..512].copy_from_slice(&[7, 0]);
        bytes[1022..].copy_from_slice(&[7, 0]);
        bytes
    }

    #[test]
    fn undo_is_the_reverse_of_apply() {
        let mut bytes = on_disk();
        let fixups = Fixups::find(&bytes, 0x28).unwrap();
        assert_eq!((fixups.first_torn(&bytes), fixups.array()), (None, 0x28..0x2e));
        fixups.apply(&mut bytes, 2);
        assert_eq!((&bytes[510..512], &bytes[1022..]), (&[0xaa, 0xbb][..], &[0xcc, 0xdd][..]));
        bytes[511] = 0;
        fixups.undo(&mut bytes, 2);
        assert_eq!(bytes[0x28..0x2e], [7, 0, 0xaa, 0, 0xcc, 0xdd]);
        assert_eq!((fixups.entries_behind(1), fixups.entries_behind(2)), (0x2c..0x2e, 0x2e..0x2e));
        assert_eq!(fixups.first_torn(&bytes), None);
    }

    #[test]
    fn the_first_torn_stride_is_named() {
        let mut bytes = on_disk();
        bytes[1022] = 6;
        let torn = Fixups::find(&bytes, 0x28).unwrap().first_torn(&bytes);
        assert_eq!(torn, Some(Torn { sector: 1, found: 6, wanted: 7 }));
    }

    #[test]
    fn an_array_elsewhere_is_refused() {
        for (at, value) in [(4, 0x27), (5, 0x04), (6, 2), (6, 4)] {
            let mut bytes = on_disk();
            bytes[at] = value;
            assert!(Fixups::find(&bytes, 0x28).is_err(), "byte {at} is {value}");
        }
    }
}
