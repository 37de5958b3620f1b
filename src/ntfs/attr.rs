//! Attributes of an MFT record, and the list that names those in its extension records.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::runs::RunDecoder;
use crate::units::Vcn;

/// Types of attributes.
pub mod types {
    /// `$STANDARD_INFORMATION`: times and flags.
    pub const STANDARD_INFORMATION: u32 = 0x10;
    /// `$ATTRIBUTE_LIST`: where the others are, if they do not fit into one record.
    pub const ATTRIBUTE_LIST: u32 = 0x20;
    /// `$FILE_NAME`: parent, times, name.
    pub const FILE_NAME: u32 = 0x30;
    /// `$OBJECT_ID`: a name for links to the file.
    pub const OBJECT_ID: u32 = 0x40;
    /// `$SECURITY_DESCRIPTOR`: owner and permissions.
    pub const SECURITY_DESCRIPTOR: u32 = 0x50;
    /// `$VOLUME_NAME`: the label, UTF-16LE.
    pub const VOLUME_NAME: u32 = 0x60;
    /// `$VOLUME_INFORMATION`: version and flags.
    pub const VOLUME_INFORMATION: u32 = 0x70;
    /// `$DATA`.
    pub const DATA: u32 = 0x80;
    /// `$INDEX_ROOT`: an index, or where its tree begins.
    pub const INDEX_ROOT: u32 = 0x90;
    /// `$INDEX_ALLOCATION`: the blocks of an index.
    pub const INDEX_ALLOCATION: u32 = 0xa0;
    /// `$BITMAP`: of `$MFT`, which records belong to a file; of an index, which blocks are part of it.
    pub const BITMAP: u32 = 0xb0;
    /// `$REPARSE_POINT`: a link, or a note for a driver.
    pub const REPARSE_POINT: u32 = 0xc0;
    /// `$EA_INFORMATION`: how many extended attributes there are.
    pub const EA_INFORMATION: u32 = 0xd0;
    /// `$EA`: extended attributes.
    pub const EA: u32 = 0xe0;
    /// `$LOGGED_UTILITY_STREAM`: notes of encryption and of transactions.
    pub const LOGGED_UTILITY_STREAM: u32 = 0x100;

    /// All that NTFS itself uses.
    pub const ALL: [u32; 15] = [
        STANDARD_INFORMATION,
        ATTRIBUTE_LIST,
        FILE_NAME,
        OBJECT_ID,
        SECURITY_DESCRIPTOR,
        VOLUME_NAME,
        VOLUME_INFORMATION,
        DATA,
        INDEX_ROOT,
        INDEX_ALLOCATION,
        BITMAP,
        REPARSE_POINT,
        EA_INFORMATION,
        EA,
        LOGGED_UTILITY_STREAM,
    ];

    /// The name of a type, as `$AttrDef` has it.
    pub fn name(kind: u32) -> Option<&'static str> {
        Some(match kind {
            STANDARD_INFORMATION => "$STANDARD_INFORMATION",
            ATTRIBUTE_LIST => "$ATTRIBUTE_LIST",
            FILE_NAME => "$FILE_NAME",
            OBJECT_ID => "$OBJECT_ID",
            SECURITY_DESCRIPTOR => "$SECURITY_DESCRIPTOR",
            VOLUME_NAME => "$VOLUME_NAME",
            VOLUME_INFORMATION => "$VOLUME_INFORMATION",
            DATA => "$DATA",
            INDEX_ROOT => "$INDEX_ROOT",
            INDEX_ALLOCATION => "$INDEX_ALLOCATION",
            BITMAP => "$BITMAP",
            REPARSE_POINT => "$REPARSE_POINT",
            EA_INFORMATION => "$EA_INFORMATION",
            EA => "$EA",
            LOGGED_UTILITY_STREAM => "$LOGGED_UTILITY_STREAM",
            _ => return None,
        })
    }
}

/// Bytes of a `$FILE_NAME` before the name.
pub(super) const FILE_NAME_FIXED: usize = size_of::<FileNameLayout>();

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FileNameLayout {
    parent: U64,
    times_and_sizes: [u8; 56],
    /// UTF-16 units.
    name_length: u8,
    namespace: u8,
}

/// `namespace`: of eight characters and three, for DOS; the file has another name for all others.
const DOS: u8 = 2;

/// The value of a `$FILE_NAME`: one name of a file. A file with hard links has several, and most names that DOS could
/// not have are followed by one that it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName<'a> {
    /// File reference of the folder.
    pub parent: u64,
    /// UTF-16LE.
    pub name: &'a [u8],
    /// Is it only for DOS?
    pub is_dos: bool,
}

impl<'a> FileName<'a> {
    /// The name in this attribute, if it is one.
    pub fn of(attribute: &Attribute<'a>) -> Option<FileName<'a>> {
        match attribute.body {
            Body::Resident(value) if attribute.kind == types::FILE_NAME => FileName::parse(value),
            _ => None,
        }
    }

    /// The name in the value of a `$FILE_NAME`, which is also the key of an entry in a folder's index.
    pub fn parse(value: &'a [u8]) -> Option<FileName<'a>> {
        let (raw, rest) = FileNameLayout::ref_from_prefix(value).ok()?;
        let name = rest.get(..2 * usize::from(raw.name_length))?;
        let is_dos = raw.namespace == DOS;
        (!name.is_empty()).then_some(FileName { parent: raw.parent.get(), name, is_dos })
    }
}

/// A name on disk as text; what is no text is replaced.
pub fn text(name: &[u8]) -> impl Iterator<Item = char> {
    let units = name.chunks_exact(2).filter_map(|two| Some(u16::from_le_bytes(two.try_into().ok()?)));
    char::decode_utf16(units).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// Ends the attributes of a record.
const END: u32 = 0xffff_ffff;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    kind: U32,
    /// Bytes of the attribute with this header.
    length: U32,
    /// 0: the value is here. 1: in clusters.
    non_resident: u8,
    /// UTF-16 units.
    name_length: u8,
    name_offset: U16,
    flags: U16,
    instance: U16,
}

/// `flags`: how the value is compressed, if it is.
const COMPRESSED: u16 = 0xff;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Resident {
    value_length: U32,
    value_offset: U16,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct NonResident {
    lowest_vcn: U64,
    /// -1 for an attribute without clusters.
    highest_vcn: U64,
    runs_offset: U16,
    /// Power of two.
    compression_unit: u8,
    unused: [u8; 5],
    /// The three sizes count only where `lowest_vcn` is 0.
    allocated_size: U64,
    data_size: U64,
    initialized_size: U64,
}

/// One attribute, or one piece of it.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// Offset in the record, in bytes.
    pub offset: usize,
    /// Bytes in the record.
    pub len: usize,
    /// Offset in the record of the value, or of the encoded runs.
    pub body_offset: usize,
    /// See [`types`].
    pub kind: u32,
    /// UTF-16LE; empty for most.
    pub name: &'a [u8],
    /// Offset of the name in the record, if it has one.
    pub name_offset: usize,
    /// Are its clusters compressed?
    pub is_compressed: bool,
    /// What it holds.
    pub body: Body<'a>,
}

/// Where an attribute's value is.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// In the record.
    Resident(&'a [u8]),
    /// In clusters.
    NonResident {
        /// First VCN of this piece.
        lowest_vcn: Vcn,
        /// The VCN behind this piece's last one; none where the record names 0 as the last, which also stands
        /// for "not filled in": there the runs alone tell.
        end_vcn: Option<Vcn>,
        /// The encoded runs.
        runs: &'a [u8],
        /// Clusters that are compressed as one, where any are; a power of two. Valid in the piece with VCN 0.
        unit: u64,
        /// Bytes of the whole value; valid in the piece with VCN 0.
        data_size: u64,
        /// Bytes of it that were ever written; the rest reads as zeros. Valid in the piece with VCN 0.
        initialized_size: u64,
    },
}

impl<'a> Attribute<'a> {
    /// The runs of this piece, on a volume of `nr_clusters` clusters; none for a resident one.
    pub fn runs(&self, nr_clusters: u64) -> Option<RunDecoder<'a>> {
        match self.body {
            Body::Resident(_) => None,
            Body::NonResident { lowest_vcn, end_vcn, runs, .. } => {
                Some(RunDecoder::new(runs, lowest_vcn, end_vcn, nr_clusters))
            }
        }
    }
}

/// An attribute that contradicts itself or its record.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("attribute at offset {offset:#x}: {field} ({found:#x}) does not fit the {room} bytes there")]
pub struct AttrError {
    /// Offset in the record.
    pub offset: usize,
    /// The field's name.
    pub field: &'static str,
    /// Its value.
    pub found: u64,
    /// Bytes from the attribute's start to the end of what the record uses.
    pub room: usize,
}

/// Iterator over a record's attributes. After an error there is nothing more.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    record: &'a [u8],
    offset: usize,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(record: &'a [u8], offset: usize) -> Attributes<'a> {
        Attributes { record, offset }
    }

    fn parse(&mut self) -> Result<Option<Attribute<'a>>, AttrError> {
        let offset = self.offset;
        let rest = self.record.get(offset..).unwrap_or_default();
        let wrong = |field, found| AttrError { offset, field, found, room: rest.len() };
        match U32::ref_from_prefix(rest) {
            Ok((kind, _)) if kind.get() == END => return Ok(None),
            Ok(_) => {}
            Err(_) => return Err(wrong("the end mark", 0)),
        }
        let Ok((header, _)) = Header::ref_from_prefix(rest) else { return Err(wrong("the header", 0)) };
        let length = header.length.get();
        let bytes = usize::try_from(length).ok().filter(|n| *n >= size_of::<Header>());
        let bytes = bytes.and_then(|n| rest.get(..n)).ok_or_else(|| wrong("length", length.into()))?;
        let name_at = usize::from(header.name_offset.get());
        let name = match header.name_length {
            0 => &[][..],
            n => bytes
                .get(name_at..name_at + 2 * usize::from(n))
                .ok_or_else(|| wrong("name offset", name_at as u64))?,
        };
        let body_bytes = bytes.get(size_of::<Header>()..).unwrap_or_default();
        let (body_at, body) = if header.non_resident == 0 {
            let Ok((raw, _)) = Resident::ref_from_prefix(body_bytes) else {
                return Err(wrong("length", length.into()));
            };
            let at = usize::from(raw.value_offset.get());
            let value = usize::try_from(raw.value_length.get()).ok().and_then(|n| bytes.get(at..)?.get(..n));
            let value = value.ok_or_else(|| wrong("value length", raw.value_length.get().into()))?;
            (at, Body::Resident(value))
        } else {
            let Ok((raw, _)) = NonResident::ref_from_prefix(body_bytes) else {
                return Err(wrong("length", length.into()));
            };
            let (lowest, end) = (raw.lowest_vcn.get(), raw.highest_vcn.get().wrapping_add(1));
            if lowest > end || i64::try_from(end).is_err() {
                return Err(wrong("highest VCN", raw.highest_vcn.get()));
            }
            let runs_offset = raw.runs_offset.get();
            let runs = bytes.get(usize::from(runs_offset)..);
            let body = Body::NonResident {
                lowest_vcn: Vcn(lowest),
                end_vcn: (end != 1).then_some(Vcn(end)),
                // No driver makes it larger than 64 clusters.
                unit: 1 << raw.compression_unit.min(32),
                runs: runs.ok_or_else(|| wrong("offset of the runs", runs_offset.into()))?,
                data_size: raw.data_size.get(),
                initialized_size: raw.initialized_size.get(),
            };
            (runs_offset.into(), body)
        };
        self.offset = offset + bytes.len();
        let [body_offset, name_offset] = [body_at, name_at].map(|at| offset + at);
        let (len, kind) = (bytes.len(), header.kind.get());
        let is_compressed = header.flags.get() & COMPRESSED != 0;
        Ok(Some(Attribute { offset, len, body_offset, kind, name, name_offset, is_compressed, body }))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, AttrError>;

    fn next(&mut self) -> Option<Result<Attribute<'a>, AttrError>> {
        if self.offset >= self.record.len() {
            return None;
        }
        let item = self.parse().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.offset = self.record.len();
        }
        item
    }
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ListEntry {
    kind: U32,
    /// Bytes of this entry, with the name.
    length: U16,
    name_length: u8,
    name_offset: u8,
    lowest_vcn: U64,
    /// The record that holds the piece.
    reference: U64,
    instance: U16,
}

/// One entry of an attribute list: a piece of an attribute and the record that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedPiece<'a> {
    /// See [`types`].
    pub kind: u32,
    /// UTF-16LE.
    pub name: &'a [u8],
    /// First VCN of the piece.
    pub lowest_vcn: Vcn,
    /// File reference of the record.
    pub reference: u64,
}

/// Iterator over the value of an `$ATTRIBUTE_LIST`; it ends at the first entry that makes no sense.
pub fn listed_pieces(list: &[u8]) -> impl Iterator<Item = ListedPiece<'_>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (raw, _) = ListEntry::ref_from_prefix(rest).ok()?;
        let length = usize::from(raw.length.get());
        let entry = rest.get(..length).filter(|entry| entry.len() >= size_of::<ListEntry>())?;
        let name_at = usize::from(raw.name_offset);
        let name = match raw.name_length {
            0 => &[][..],
            n => entry.get(name_at..name_at + 2 * usize::from(n))?,
        };
        let piece = ListedPiece {
            kind: raw.kind.get(),
            name,
            lowest_vcn: Vcn(raw.lowest_vcn.get()),
            reference: raw.reference.get(),
        };
        rest = rest.get(length..)?;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A resident attribute with a name of one unit.
    fn resident(kind: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 26];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[9] = 1;
        bytes[10] = 24;
        bytes[16] = value.len() as u8;
        bytes[20] = 26;
        bytes[24] = b'x';
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes[4] = bytes.len() as u8;
        bytes
    }

    fn non_resident(lowest: u64, highest: i64, runs: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[0] = 0x80;
        bytes[4] = 64 + runs.len() as u8;
        bytes[8] = 1;
        bytes[16..24].copy_from_slice(&lowest.to_le_bytes());
        bytes[24..32].copy_from_slice(&highest.to_le_bytes());
        bytes[32] = 64;
        bytes[48..56].copy_from_slice(&5000u64.to_le_bytes());
        bytes[56..64].copy_from_slice(&4000u64.to_le_bytes());
        bytes.extend(runs);
        bytes
    }

    fn end() -> Vec<u8> {
        vec![0xff; 4]
    }

    #[test]
    fn attributes_are_parsed_in_turn() {
        let record =
            [resident(0x30, b"value"), non_resident(0, 3, &[0x11, 4, 9, 0, 0, 0, 0, 0]), end()].concat();
        let attributes: Vec<_> = Attributes::new(&record, 0).collect::<Result<_, _>>().unwrap();
        let [first, second] = &attributes[..] else { panic!("{attributes:?}") };
        assert_eq!((first.kind, first.name), (0x30, &b"x\0"[..]));
        assert!(matches!(first.body, Body::Resident(b"value")) && first.runs(100).is_none());
        let Body::NonResident { data_size, initialized_size, end_vcn, unit, .. } = second.body else {
            panic!()
        };
        assert_eq!((data_size, initialized_size, end_vcn), (5000, 4000, Some(Vcn(4))));
        assert_eq!((unit, second.is_compressed), (1, false));
        assert_eq!(second.runs(100).unwrap().count(), 1);
    }

    #[test]
    fn a_last_vcn_of_0_is_not_relied_on() {
        let record = [non_resident(0, 0, &[0x11, 4, 9, 0, 0, 0, 0, 0]), end()].concat();
        let attribute = Attributes::new(&record, 0).next().unwrap().unwrap();
        assert_eq!(attribute.runs(100).unwrap().next().unwrap().unwrap().len, 4);
        // -1 is an attribute without clusters.
        let record = [non_resident(0, -1, &[0; 8]), end()].concat();
        let attribute = Attributes::new(&record, 0).next().unwrap().unwrap();
        assert_eq!(attribute.runs(100).unwrap().count(), 0);
    }

    #[test]
    fn names_are_read_from_their_attributes() {
        let value = |length: u8, namespace: u8| {
            let mut value = vec![0; 66];
            value[..8].copy_from_slice(&(5u64 | 7 << 48).to_le_bytes());
            value[64] = length;
            value[65] = namespace;
            [value, b"a\0\xf6\0\x00\xd8".to_vec()].concat()
        };
        let parse = |kind, value: &[u8]| {
            let record = [resident(kind, value), end()].concat();
            let attribute = Attributes::new(&record, 0).next().unwrap().unwrap();
            FileName::of(&attribute)
                .map(|name| (name.parent, text(name.name).collect::<String>(), name.is_dos))
        };
        assert_eq!(parse(0x30, &value(3, 1)), Some((5 | 7 << 48, "aö\u{fffd}".to_owned(), false)));
        assert_eq!(parse(0x30, &value(1, 2)), Some((5 | 7 << 48, "a".to_owned(), true)));
        for nothing in [parse(0x30, &value(4, 1)), parse(0x30, &value(0, 1)), parse(0x80, &value(1, 1))] {
            assert_eq!(nothing, None);
        }
    }

    #[test]
    fn impossible_attributes_end_the_record() {
        let good = [resident(0x30, b"value"), end()].concat();
        let refused = |at: usize, value: u8| {
            let mut bad = good.clone();
            bad[at] = value;
            let items: Vec<_> = Attributes::new(&bad, 0).collect();
            assert_eq!(items.len(), 1, "more after an error");
            items[0].unwrap_err().to_string()
        };
        assert_eq!(refused(4, 7), "attribute at offset 0x0: length (0x7) does not fit the 36 bytes there");
        assert!(refused(4, 0).contains("length (0x0)"));
        assert!(refused(5, 1).contains("length (0x120)"));
        assert!(refused(10, 31).contains("name offset"));
        assert!(refused(16, 99).contains("value length (0x63)"));
        assert!(refused(20, 0xff).contains("value length"));
        for (lowest, highest) in [(5, 3), (0, i64::MAX), (0, i64::MIN)] {
            let record = non_resident(lowest, highest, &[0; 8]);
            let error = Attributes::new(&record, 0).next().unwrap().unwrap_err();
            assert_eq!(error.field, "highest VCN");
        }
        // No end mark at all, and one that is cut off.
        assert_eq!(Attributes::new(&good[..32], 0).count(), 1);
        assert_eq!(Attributes::new(&good[..34], 0).nth(1).unwrap().unwrap_err().field, "the end mark");
    }

    #[test]
    fn attribute_lists_end_where_they_make_no_sense() {
        let mut entry = vec![0; 32];
        entry[0] = 0x80;
        entry[4] = 32;
        entry[8] = 7;
        entry[16] = 42;
        entry[22] = 3;
        let list = [entry.clone(), entry.clone()].concat();
        let pieces: Vec<_> = listed_pieces(&list).collect();
        assert_eq!(pieces.len(), 2);
        assert_eq!((pieces[0].kind, pieces[0].lowest_vcn, pieces[0].reference), (0x80, Vcn(7), 42 | 3 << 48));
        for (at, value) in [(4, 0), (4, 25), (4, 65), (6, 200)] {
            let mut bad = list.clone();
            bad[32 + at] = value;
            assert_eq!(listed_pieces(&bad).count(), 1, "byte {at} is {value}");
        }
    }
}
