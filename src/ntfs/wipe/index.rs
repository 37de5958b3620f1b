//! Wiping indexes: the root, which lies in a record, and the blocks of its tree. Reading the names in those of folders.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::value::{FILE_NAME_TIMES, file_name_len};
use super::{Wiped, Wiping, through_fixups, wipe_times, zero, zero_between, zero_from};
use crate::ntfs::fixup::{Fixups, STRIDE, Start};
use crate::ntfs::record::Fault;

/// What an index's entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// File names: a folder.
    FileNames,
    /// Quotas of users.
    Quotas,
    /// Anything else.
    Other,
}

impl Kind {
    /// The kind of the index called `name`, UTF-16LE.
    pub fn of(name: &[u8]) -> Kind {
        match name {
            b"$\0I\x003\x000\0" => Kind::FileNames,
            b"$\0Q\0" => Kind::Quotas,
            _ => Kind::Other,
        }
    }
}

/// How entries are found, in the root and in a block alike. Offsets count from this header.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    entries_offset: U32,
    /// Bytes up to the end of the last entry.
    used: U32,
    allocated: U32,
    flags: u8,
    unused: [u8; 3],
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Root {
    /// Type of the attribute that is indexed.
    kind: U32,
    collation: U32,
    /// Bytes of a block.
    block_size: U32,
    clusters_per_block: u8,
    unused: [u8; 3],
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Block {
    start: Start,
    lsn: U64,
    vcn: U64,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    /// File names: the reference of the file. Others: where the entry's data is.
    data_offset: U16,
    data_len: U16,
    unused: U32,
    /// Bytes of the entry.
    len: U16,
    key_len: U16,
    flags: U16,
    unused2: U16,
}

/// `flags` of an index: there are blocks below.
const IS_LARGE: u8 = 1;

/// `flags` of an entry: its last eight bytes name a block below.
const HAS_BLOCK: u16 = 1;
/// `flags` of an entry: the last one, without a key.
const IS_LAST: u16 = 2;

/// Of an entry's data in the index of quotas: where the time of the last change is.
const QUOTA_TIME: usize = 16;

/// Bytes that an entry of an index of something else than names may have behind its key and data.
const ENTRY_MARK: usize = 4;

/// Bytes of a block that the root of an index names, if it has blocks below.
pub fn block_size(root: &[u8]) -> Option<u32> {
    let (root, rest) = Root::ref_from_prefix(root).ok()?;
    let (header, _) = Header::ref_from_prefix(rest).ok()?;
    (header.flags & IS_LARGE != 0).then(|| root.block_size.get())
}

/// The files that the root of a folder's index names: reference and key of each entry.
pub fn root_entries(root: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    entries(root, size_of::<Root>())
}

/// Likewise for a block, whose fixups are applied here. None where it is no whole block of an index.
pub fn block_entries(block: &mut [u8]) -> Option<impl Iterator<Item = (u64, &[u8])>> {
    if block.first_chunk() != Some(b"INDX") {
        return None;
    }
    let fixups = Fixups::find(block, size_of::<Block>() + size_of::<Header>()).ok()?;
    if fixups.first_torn(block).is_some() {
        return None;
    }
    fixups.apply(block, block.len() / STRIDE);
    Some(entries(block, size_of::<Block>()))
}

/// The entries that the header at byte `at` tells of, as far as they make sense.
fn entries(bytes: &[u8], at: usize) -> impl Iterator<Item = (u64, &[u8])> {
    let header = bytes.get(at..).and_then(|bytes| Header::ref_from_prefix(bytes).ok());
    let (first, used) = header.map_or((0, 0), |(header, _)| {
        (
            at.saturating_add(header.entries_offset.get() as usize),
            at.saturating_add(header.used.get() as usize),
        )
    });
    let mut rest = bytes.get(first..used.min(bytes.len())).unwrap_or_default();
    std::iter::from_fn(move || {
        let (entry, behind) = Entry::ref_from_prefix(rest).ok()?;
        let len = usize::from(entry.len.get()).max(size_of::<Entry>());
        let key = behind.get(..usize::from(entry.key_len.get()))?;
        // The reference of a file takes the place of what other indexes have there.
        let reference = u64::from_le_bytes(*rest.first_chunk()?);
        rest = rest.get(len..).unwrap_or_default();
        (entry.flags.get() & IS_LAST == 0).then_some((reference, key))
    })
}

/// Wipes the value of an `$INDEX_ROOT`.
pub(super) fn wipe_root(value: &mut [u8], kind: Kind, wiping: Wiping, wiped: &mut Wiped) {
    let (at, len) = (size_of::<Root>(), value.len());
    let floor = at + size_of::<Header>();
    if len < floor {
        wiped.index += zero(value);
        return;
    }
    // One that makes no sense keeps its entries up to the mistake; readers refuse it as they did.
    let _mistake = wipe_entries(value, at, floor, len, kind, wiping, wiped);
}

/// Wipes one block of an index in place. What makes no sense is told and filled with zeros.
pub fn wipe_block(bytes: &mut [u8], kind: Kind, wiping: Wiping, wiped: &mut Wiped) -> Result<(), Fault> {
    let fixups = match bytes.first_chunk() {
        Some(b"INDX") => Fixups::find(bytes, size_of::<Block>() + size_of::<Header>()),
        found => Err(Fault::NotARecord { found: found.copied().unwrap_or_default(), wanted: "INDX" }),
    };
    let fixups = match fixups {
        Ok(fixups) => fixups,
        Err(fault) => {
            wiped.index += zero(bytes);
            return Err(fault);
        }
    };
    let (at, len) = (size_of::<Block>(), bytes.len());
    let mut torn_off = 0;
    let outcome = through_fixups(bytes, &fixups, &mut torn_off, |bytes| {
        wipe_entries(bytes, at, fixups.array().end, len, kind, wiping, wiped)
    });
    wiped.index += torn_off;
    outcome
}

/// Wipes the entries that the header at byte `at` tells of, and what lies before the first and behind the last one;
/// nothing before byte `floor`. `bytes` may be only the good part of a structure of `record_size` bytes.
fn wipe_entries(
    bytes: &mut [u8],
    at: usize,
    floor: usize,
    record_size: usize,
    kind: Kind,
    wiping: Wiping,
    wiped: &mut Wiped,
) -> Result<(), Fault> {
    let header = bytes.get(at..).and_then(|bytes| Header::ref_from_prefix(bytes).ok());
    let (first, used) = header.map_or((0, 0), |(header, _)| {
        let place = |offset: U32| at.saturating_add(offset.get() as usize);
        (place(header.entries_offset), place(header.used))
    });
    if first < floor || used < first || used > record_size {
        wiped.index += zero_from(bytes, floor);
        let found = used as u32;
        return Err(Fault::Header { field: "bytes used by the index", found, record_size });
    }
    wiped.index += zero(bytes.get_mut(floor..first).unwrap_or_default());
    let end = used.min(bytes.len());
    let mut next = first;
    while next < end {
        let entries = bytes.get_mut(next..end).unwrap_or_default();
        let Some(len) = wipe_entry(entries, kind, wiping, wiped) else {
            wiped.index += zero_from(bytes, next);
            let found = next as u32;
            return Err(Fault::Header { field: "offset of an index entry", found, record_size });
        };
        next += len;
    }
    wiped.index += zero_from(bytes, used);
    Ok(())
}

/// Wipes the entry that `bytes` begin with; returns its length, or none if it makes no sense.
fn wipe_entry(bytes: &mut [u8], kind: Kind, wiping: Wiping, wiped: &mut Wiped) -> Option<usize> {
    let (entry, _) = Entry::ref_from_prefix(bytes).ok()?;
    let (len, flags) = (usize::from(entry.len.get()), entry.flags.get());
    let key_len = if flags & IS_LAST == 0 { usize::from(entry.key_len.get()) } else { 0 };
    let (data_offset, data_len) = (usize::from(entry.data_offset.get()), usize::from(entry.data_len.get()));
    let key_end = size_of::<Entry>() + key_len;
    let body_end = len.checked_sub(if flags & HAS_BLOCK == 0 { 0 } else { 8 })?;
    let entry = bytes.get_mut(..len).filter(|_| key_end <= body_end)?;
    let body = entry.get_mut(..body_end)?;
    if flags & IS_LAST != 0 {
        wiped.index += zero_from(body, size_of::<Entry>());
        return Some(len);
    }
    match kind {
        Kind::FileNames => {
            let key = body.get_mut(size_of::<Entry>()..key_end)?;
            let name_end = size_of::<Entry>() + file_name_len(key).min(key.len());
            if !wiping.keep_times {
                wiped.times += wipe_times(key, FILE_NAME_TIMES, 4);
            }
            wiped.index += zero_from(body, name_end);
        }
        Kind::Quotas | Kind::Other => {
            let data = data_offset..data_offset + data_len;
            if kind == Kind::Quotas && !wiping.keep_times {
                wiped.times += wipe_times(body.get_mut(data.clone())?, QUOTA_TIME, 1);
            }
            // Windows ends some entries with a mark of four bytes.
            let kept = data.start..key_end.max(data.end) + ENTRY_MARK;
            wiped.index += zero_between(body, key_end, std::slice::from_ref(&kept));
        }
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &[u8] = b"$\0I\x003\x000\0";
    const WIPE: Wiping = Wiping { keep_times: false };

    /// An entry with a key of `key` bytes, each `fill`, and three bytes behind it.
    fn entry(key: u8, fill: u8, flags: u8) -> Vec<u8> {
        let len = (16 + key + 3).next_multiple_of(8);
        let mut bytes = vec![0; 16];
        (bytes[8], bytes[10], bytes[12]) = (len, key, flags);
        bytes.resize(16 + usize::from(key), fill);
        bytes.resize(len.into(), 0xaa);
        bytes
    }

    /// A block of 1024 bytes on disk, all that is nobody's filled with 0xaa.
    fn block() -> Vec<u8> {
        let entries = [entry(68, 1, 0), entry(70, 2, 0), entry(0, 0, 2)].concat();
        let mut bytes = vec![0xaa; 1024];
        bytes[..0x28].fill(0);
        bytes[..8].copy_from_slice(b"INDX\x28\0\x03\0");
        bytes[0x18] = 0x18;
        bytes[0x1c..0x1e].copy_from_slice(&(0x18 + entries.len() as u16).to_le_bytes());
        bytes[0x28..0x2e].copy_from_slice(&[7, 0, 0xaa, 0xaa, 0xaa, 0xaa]);
        bytes[0x30..0x30 + entries.len()].copy_from_slice(&entries);
        bytes[510..512].copy_from_slice(&[7, 0]);
        bytes[1022..].copy_from_slice(&[7, 0]);
        bytes
    }

    #[test]
    fn entries_stay_and_all_around_them_goes() {
        let mut bytes = block();
        let mut wiped = Wiped::default();
        wipe_block(&mut bytes, Kind::of(FOLDER), WIPE, &mut wiped).unwrap();
        assert_eq!(wiped.times, 64);
        assert!(!bytes.contains(&0xaa));
        // Before the times, and behind them.
        assert_eq!((&bytes[0x40..0x48], &bytes[0x68..0x84]), (&[1; 8][..], &[1; 28][..]));
        assert_eq!((&bytes[510..512], &bytes[1022..]), (&[7, 0][..], &[7, 0][..]));
    }

    #[test]
    fn what_is_no_block_is_wiped_and_told() {
        for (at, value, begins) in
            [(0, b'X', 0), (510, 6, 0), (0x1d, 0xff, 0x2e), (0x18, 0, 0x2e), (0x38, 9, 0x30)]
        {
            let mut bytes = block();
            bytes[at] = value;
            assert!(wipe_block(&mut bytes, Kind::of(FOLDER), WIPE, &mut Wiped::default()).is_err());
            assert!(bytes[begins..510].iter().all(|byte| *byte == 0), "byte {at:#x} is {value:#x}");
        }
        // Torn behind the entries: they stay.
        let mut bytes = block();
        bytes[1022] = 6;
        assert!(wipe_block(&mut bytes, Kind::of(FOLDER), WIPE, &mut Wiped::default()).is_err());
        assert!(bytes[0x40..0x48] == [1; 8] && bytes[512..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn times_of_quotas_are_wiped() {
        let mut quota = entry(4, 1, 0);
        quota[..4].copy_from_slice(&[24, 0, 48, 0]);
        quota[8] = 72;
        quota.resize(72, 5);
        let mut wiped = Wiped::default();
        assert_eq!(wipe_entry(&mut quota, Kind::of(b"$\0Q\0"), WIPE, &mut wiped), Some(72));
        assert_eq!((&quota[32..40], &quota[40..48]), (&[5; 8][..], &super::super::EPOCH.to_le_bytes()[..]));
        assert_eq!(wiped.times, 8);
    }
}
