//! MFT records: the header, and what can be wrong with one.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::attr::Attributes;
use super::fixup::{Fixups, STRIDE, Start, Torn};
use crate::io::ReadError;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    start: Start,
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

/// `flags`: the file is a folder.
const IS_FOLDER: u16 = 2;

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
    #[error("no record: begins with {found:02x?}, wanted {wanted:?}")]
    NotARecord {
        /// Its first bytes.
        found: [u8; 4],
        /// What such a record begins with.
        wanted: &'static str,
    },
    /// A sector of it is older or newer than the others.
    #[error(transparent)]
    Torn(#[from] Torn),
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
        let used = used.ok_or_else(|| impossible("number of bytes in use", bytes_in_use))?;
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

    /// Is the file a folder?
    pub fn is_folder(&self) -> bool {
        self.flags & IS_FOLDER != 0
    }

    /// How often the record was used for another file: what references to it carry in their upper 16 bits.
    pub fn sequence(&self) -> u16 {
        self.sequence
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
    matches!(bytes.first_chunk(), Some(b"FILE" | b"BAAD")) && is_marked_in_use(bytes)
}

/// Says of the bytes of a record, also of a damaged one, whether they are marked as belonging to a file that exists.
pub(super) fn is_marked_in_use(bytes: &[u8]) -> bool {
    Layout::ref_from_prefix(bytes).is_ok_and(|(raw, _)| raw.flags.get() & IN_USE != 0)
}

/// Says of the bytes of a record, also of a damaged one, where the attributes begin and where what is in use ends.
pub(super) fn extent_of_attributes(bytes: &[u8]) -> (usize, usize) {
    Layout::ref_from_prefix(bytes)
        .map_or((0, 0), |(raw, _)| (raw.attrs_offset.get().into(), raw.bytes_in_use.get() as usize))
}

/// Checks that `bytes` begin like a record and were written whole, and applies the fixups.
pub fn fix(bytes: &mut [u8]) -> Result<(), Fault> {
    let fixups = fixups(bytes)?;
    match fixups.first_torn(bytes) {
        Some(torn) => Err(torn.into()),
        None => {
            fixups.apply(bytes, bytes.len() / STRIDE);
            Ok(())
        }
    }
}

/// Checks that `bytes` begin like a record, and finds its fixups.
pub(super) fn fixups(bytes: &[u8]) -> Result<Fixups, Fault> {
    match bytes.first_chunk() {
        Some(b"FILE" | b"BAAD") => Fixups::find(bytes, size_of::<Layout>()),
        found => Err(Fault::NotARecord { found: found.copied().unwrap_or_default(), wanted: "FILE" }),
    }
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
        assert!(fault(0, b'X').starts_with("no record: begins with"));
        assert!(fault(6, 4).starts_with("size of the update sequence array is 4"));
        assert!(fault(5, 0xff).starts_with("offset of the update sequence array"));
        assert!(fault(0x19, 0xff).starts_with("number of bytes in use"));
        assert!(fault(0x15, 0xff).starts_with("offset of the first attribute"));
        assert!(fault(0x14, 0).starts_with("offset of the first attribute"));
    }
}
