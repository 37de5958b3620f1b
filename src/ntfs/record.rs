//! MFT records: the header, and the fixups that show whether a record was written whole.
//!
//! The last two bytes of each 512 bytes of a record (of the record, whatever the disk's sectors are) hold the
//! record's update sequence number; the bytes that belong there are kept in an array in the header.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::attr::Attributes;
use crate::io::ReadError;

/// Bytes that one entry of the update sequence array protects.
const STRIDE: usize = 512;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    /// `FILE`; `BAAD` where chkdsk found the record torn.
    magic: [u8; 4],
    /// Offset of the update sequence array, whose first entry is the number itself.
    usa_offset: U16,
    /// Entries of it: one more than the record has strides.
    usa_count: U16,
    /// `$LogFile` sequence number of the last change.
    lsn: U64,
    sequence: U16,
    links: U16,
    /// Offset of the first attribute.
    attrs_offset: U16,
    flags: U16,
    /// Bytes of the record that are filled, with the end mark.
    bytes_in_use: U32,
    bytes_allocated: U32,
    /// The record that this one extends; 0 in a base record. Number in the low 48 bits, sequence above.
    base: U64,
    next_instance: U16,
}

/// `flags`: the record belongs to a file that exists.
const IN_USE: u16 = 1;

/// A file reference's record number.
pub fn mft_no_of(reference: u64) -> u64 {
    reference & 0xffff_ffff_ffff
}

/// A whole record, its fixups applied.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
    attrs_offset: usize,
    sequence: u16,
    flags: u16,
    base: u64,
}

/// Why bytes are not a whole record: a value to be told and counted, rarely a reason to stop.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No record was ever written here.
    #[error("no MFT record: begins with {0:02x?}, wanted \"FILE\"")]
    NotARecord([u8; 4]),
    /// A sector of it is older or newer than the others.
    #[error("update sequence mismatch in sector {sector} (found {found:04x}, wanted {wanted:04x})")]
    Torn {
        /// Number of the 512 bytes, from the record's start.
        sector: usize,
        /// The bytes at their end.
        found: u16,
        /// The record's update sequence number.
        wanted: u16,
    },
    /// A field of its header is impossible.
    #[error("{field} is {found}, which does not fit a record of {record_size} bytes")]
    Header {
        /// The field's name.
        field: &'static str,
        /// Its value.
        found: u32,
        /// Bytes of the record.
        record_size: usize,
    },
    /// An attribute list names it, but it belongs to another file.
    #[error("is no extension of record {0}, whose attribute list names it")]
    NotExtensionOf(u64),
    /// The disk does not give it.
    #[error("unreadable: {0}")]
    Unreadable(ReadError),
}

impl<'a> Record<'a> {
    /// Applies the fixups to `bytes`, one record as it lies on disk, and checks its header.
    pub fn parse(bytes: &'a mut [u8]) -> Result<Record<'a>, Fault> {
        fix(bytes)?;
        Record::view(bytes)
    }

    /// The record in `bytes` that [`fix`] has been applied to.
    pub fn view(bytes: &'a [u8]) -> Result<Record<'a>, Fault> {
        let record_size = bytes.len();
        let impossible = |field, found: u32| Fault::Header { field, found, record_size };
        let Ok((raw, _)) = Layout::ref_from_prefix(bytes) else {
            return Err(impossible("record size", 0));
        };
        let attrs_offset = usize::from(raw.attrs_offset.get());
        let bytes_in_use = raw.bytes_in_use.get();
        let used = usize::try_from(bytes_in_use).ok().and_then(|n| bytes.get(..n));
        let used = used.ok_or(impossible("number of bytes in use", bytes_in_use))?;
        if attrs_offset < size_of::<Layout>() || attrs_offset > used.len() {
            return Err(impossible("offset of the first attribute", attrs_offset as u32));
        }
        Ok(Record {
            bytes: used,
            attrs_offset,
            sequence: raw.sequence.get(),
            flags: raw.flags.get(),
            base: raw.base.get(),
        })
    }

    /// Does the record belong to a file that exists?
    pub fn in_use(&self) -> bool {
        self.flags & IN_USE != 0
    }

    /// The number of the record that this one extends; none for a base record.
    pub fn base_mft_no(&self) -> Option<u64> {
        (self.base != 0).then_some(mft_no_of(self.base))
    }

    /// Is it what this reference to a base record means? Records are used again for other files; the sequence number
    /// tells.
    pub fn is_meant_by(&self, reference: u64) -> bool {
        reference >> 48 == u64::from(self.sequence)
    }

    /// The file reference of the record that this one extends; 0 in a base record.
    pub fn base_reference(&self) -> u64 {
        self.base
    }

    /// The record's attributes, in their order.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.bytes, self.attrs_offset)
    }
}

/// Says of bytes that [`Record::parse`] refused whether they claim to belong to a file that exists: the flags are
/// far from any stride's end, so that they are whole as long as the first sector is.
pub fn claims_in_use(bytes: &[u8]) -> bool {
    Layout::ref_from_prefix(bytes).is_ok_and(|(raw, _)| {
        (&raw.magic == b"FILE" || &raw.magic == b"BAAD") && raw.flags.get() & IN_USE != 0
    })
}

/// Checks that `bytes` begin like a record and were written whole, and applies the fixups.
pub fn fix(bytes: &mut [u8]) -> Result<(), Fault> {
    let record_size = bytes.len();
    let impossible = |field, found: u32| Fault::Header { field, found, record_size };
    let (usa_offset, usa_count) = match Layout::ref_from_prefix(bytes) {
        Ok((raw, _)) if &raw.magic == b"FILE" || &raw.magic == b"BAAD" => {
            (raw.usa_offset.get(), raw.usa_count.get())
        }
        Ok((raw, _)) => return Err(Fault::NotARecord(raw.magic)),
        Err(_) => return Err(impossible("record size", 0)),
    };
    let array = usize::from(usa_offset)..usize::from(usa_offset) + 2 * usize::from(usa_count);
    if usize::from(usa_count) != record_size / STRIDE + 1 {
        return Err(impossible("size of the update sequence array", usa_count.into()));
    }
    if array.start < size_of::<Layout>() || array.end > record_size {
        return Err(impossible("offset of the update sequence array", usa_offset.into()));
    }
    apply_fixups(bytes, array)
}

/// Checks the last two bytes of each stride and puts those from the array in their place; on a mismatch the bytes
/// stay as they were.
fn apply_fixups(bytes: &mut [u8], array: std::ops::Range<usize>) -> Result<(), Fault> {
    let entry = |bytes: &[u8], i: usize| -> [u8; 2] {
        let at = array.start + 2 * i;
        bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).unwrap_or_default()
    };
    let wanted = u16::from_le_bytes(entry(bytes, 0));
    for (sector, stride) in bytes.chunks_exact(STRIDE).enumerate() {
        let found = stride.last_chunk().map_or(0, |two| u16::from_le_bytes(*two));
        if found != wanted {
            return Err(Fault::Torn { sector, found, wanted });
        }
    }
    for sector in 0..bytes.len() / STRIDE {
        let kept = entry(bytes, sector + 1);
        let end = (sector + 1) * STRIDE;
        if let Some(two) = bytes.get_mut(end - 2..end) {
            two.copy_from_slice(&kept);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record on disk: 1024 bytes, in use, without attributes, update sequence number 7.
    fn on_disk() -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[..4].copy_from_slice(b"FILE");
        bytes[4] = 0x30;
        bytes[6] = 3;
        bytes[0x14] = 0x38;
        bytes[0x16] = 1;
        bytes[0x18] = 0x40;
        bytes[0x30..0x36].copy_from_slice(&[7, 0, 0xaa, 0xbb, 0xcc, 0xdd]);
        bytes[0x38..0x3c].fill(0xff);
        bytes[510] = 7;
        bytes[1022] = 7;
        bytes
    }

    #[test]
    fn fixups_are_applied() {
        let mut bytes = on_disk();
        let record = Record::parse(&mut bytes).unwrap();
        assert!(record.in_use() && record.base_mft_no().is_none());
        assert_eq!(record.attributes().count(), 0);
        assert_eq!((&bytes[510..512], &bytes[1022..]), (&[0xaa, 0xbb][..], &[0xcc, 0xdd][..]));
    }

    #[test]
    fn a_torn_record_names_the_sector_and_stays_as_it_was() {
        let mut bytes = on_disk();
        bytes[1022] = 6;
        let before = bytes.clone();
        let fault = Record::parse(&mut bytes).unwrap_err();
        assert_eq!(fault.to_string(), "update sequence mismatch in sector 1 (found 0006, wanted 0007)");
        assert_eq!(bytes, before);
        assert!(claims_in_use(&bytes));
    }

    #[test]
    fn impossible_headers_are_told() {
        let fault = |at: usize, value: u8| {
            let mut bytes = on_disk();
            bytes[at] = value;
            Record::parse(&mut bytes).unwrap_err().to_string()
        };
        assert!(fault(0, b'X').starts_with("no MFT record"));
        assert!(fault(6, 4).starts_with("size of the update sequence array is 4"));
        assert!(fault(5, 0xff).starts_with("offset of the update sequence array"));
        assert!(fault(0x19, 0xff).starts_with("number of bytes in use"));
        assert!(fault(0x15, 0xff).starts_with("offset of the first attribute"));
        assert!(fault(0x14, 0).starts_with("offset of the first attribute"));
    }
}
