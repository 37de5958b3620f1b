//! Partition tables, as far as they name partitions: sysfs does not tell a partition's UUID.
//!
//! GPT as in the UEFI specification (5.3), its header and entries from the primary place or the backup; the MBR's
//! partitions are named by its disk signature and their number, as the kernel and blkid do.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::io::Source;

/// Entries of a GPT that are read: what every tool makes; the kernel itself shows at most 255 partitions of a disk.
const MAX_ENTRIES: u32 = 256;

/// Largest entry that is taken seriously, in bytes; all tools make 128.
const MAX_ENTRY: u32 = 512;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct GptHeader {
    /// `EFI PART`
    signature: [u8; 8],
    unused: [u8; 64],
    /// Where the entries begin, in logical sectors.
    entries_lba: U64,
    nr_entries: U32,
    /// Bytes of an entry.
    entry_size: U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct GptEntry {
    kind: [u8; 16],
    /// Its own identity: the PARTUUID.
    unique: [u8; 16],
    /// In logical sectors.
    first_lba: U64,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Mbr {
    code: [u8; 440],
    disk_signature: U32,
    unused: U16,
    entries: [MbrEntry; 4],
    /// 0xAA55.
    signature: U16,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MbrEntry {
    /// 0x80 where BIOS boots, otherwise 0.
    boot: u8,
    chs_first: [u8; 3],
    kind: u8,
    chs_last: [u8; 3],
    first_lba: U32,
    nr_sectors: U32,
}

/// The whole disk, as one partition of an MBR that only protects a GPT.
const PROTECTIVE: u8 = 0xee;

/// A partition table.
#[derive(Debug, PartialEq, Eq)]
pub enum Table {
    /// Unique GUIDs and first bytes, by number from 1 on; unused entries are none.
    Gpt(Vec<Option<(String, u64)>>),
    /// The disk signature.
    Mbr(u32),
}

impl Table {
    /// Reads the table of a disk. None where there is none, or it cannot be read.
    pub fn read(disk: &dyn Source) -> Option<Table> {
        let sector = u64::from(disk.sector_size());
        let last = (disk.len() / sector).checked_sub(1)?;
        let mut bytes = [0; 512];
        let mbr = disk.read_at(0, &mut bytes).ok().and_then(|()| parse_mbr(&bytes));
        match mbr {
            Some(Some(signature)) => Some(Table::Mbr(signature)),
            // Behind a protective MBR, one that cannot be read, or none at all: the GPT decides.
            _ => read_gpt(disk, 1).or_else(|| read_gpt(disk, last)),
        }
    }

    /// The PARTUUID of the partition with this number that begins at this byte.
    pub fn part_uuid(&self, number: u32, start: u64) -> Option<String> {
        match self {
            Table::Gpt(entries) => {
                let entry = entries.get(usize::try_from(number.checked_sub(1)?).ok()?)?.as_ref()?;
                // A table that the kernel did not take its partitions from names none of them.
                (entry.1 == start).then(|| entry.0.clone())
            }
            Table::Mbr(signature) => Some(format!("{signature:08x}-{number:02x}")),
        }
    }
}

/// What the first sector says: nothing; a table that protects a GPT (inner none); or the disk signature.
#[allow(clippy::option_option)] // three answers
fn parse_mbr(bytes: &[u8]) -> Option<Option<u32>> {
    let (mbr, _) = Mbr::ref_from_prefix(bytes).ok()?;
    // File systems end their boot sectors alike; their code makes no entries like these.
    let is_table = mbr.signature.get() == 0xaa55
        && mbr.entries.iter().all(|entry| entry.boot & 0x7f == 0)
        && mbr.entries.iter().any(|entry| entry.kind != 0 && entry.nr_sectors.get() != 0);
    if !is_table {
        return None;
    }
    let protects = mbr.entries.iter().any(|entry| entry.kind == PROTECTIVE);
    Some((!protects).then(|| mbr.disk_signature.get()))
}

fn read_gpt(disk: &dyn Source, header_lba: u64) -> Option<Table> {
    let sector = u64::from(disk.sector_size());
    let mut bytes = [0; 512];
    disk.read_at(header_lba.checked_mul(sector)?, &mut bytes).ok()?;
    let (header, _) = GptHeader::ref_from_prefix(&bytes).ok()?;
    let (nr_entries, entry_size) = (header.nr_entries.get(), header.entry_size.get());
    let entry_len = size_of::<GptEntry>()..=MAX_ENTRY as usize;
    if &header.signature != b"EFI PART" || !entry_len.contains(&(entry_size as usize)) {
        return None;
    }
    let mut entries = vec![0; (nr_entries.min(MAX_ENTRIES) * entry_size) as usize];
    disk.read_at(header.entries_lba.get().checked_mul(sector)?, &mut entries).ok()?;
    let parse = |bytes: &[u8]| {
        let (entry, _) = GptEntry::ref_from_prefix(bytes).ok()?;
        let start = entry.first_lba.get().checked_mul(sector)?;
        (entry.kind != [0; 16]).then(|| (guid(&entry.unique), start))
    };
    Some(Table::Gpt(entries.chunks_exact(entry_size as usize).map(parse).collect()))
}

/// A GUID as text: the first three fields are little-endian numbers.
fn guid(bytes: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, i @ ..] = bytes;
    let mut text = format!("{d:02x}{c:02x}{b:02x}{a:02x}-{f:02x}{e:02x}-{h:02x}{g:02x}-");
    for (at, byte) in i.iter().enumerate() {
        text.push_str(if at == 2 { "-" } else { "" });
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ReadError;

    struct Bytes(Vec<u8>);

    impl Source for Bytes {
        fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
            let from = self.0.get(pos as usize..pos as usize + buf.len());
            let cause = || std::io::Error::from_raw_os_error(5);
            buf.copy_from_slice(from.ok_or_else(|| ReadError { pos, len: buf.len(), cause: cause() })?);
            Ok(())
        }
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn sector_size(&self) -> u32 {
            512
        }
    }

    fn gpt(disk: &mut [u8], header: usize, entries: usize) {
        disk[header * 512..header * 512 + 8].copy_from_slice(b"EFI PART");
        disk[header * 512 + 72] = entries as u8;
        disk[header * 512 + 80] = 4;
        disk[header * 512 + 84] = 128;
        let second = &mut disk[entries * 512 + 128..];
        for (at, byte) in second[..32].iter_mut().enumerate() {
            *byte = at as u8;
        }
        second[32] = 34;
    }

    #[test]
    fn gpt_from_either_end() {
        let uuid = "13121110-1514-1716-1819-1a1b1c1d1e1f";
        for (header, entries) in [(1, 2), (63, 62)] {
            let mut disk = vec![0; 64 * 512];
            gpt(&mut disk, header, entries);
            let table = Table::read(&Bytes(disk)).unwrap();
            assert_eq!(table.part_uuid(2, 34 * 512).as_deref(), Some(uuid));
            for (number, start) in [(2, 0), (1, 34 * 512), (0, 0), (5, 0)] {
                assert_eq!(table.part_uuid(number, start), None);
            }
        }
    }

    #[test]
    fn mbr_by_signature_and_number() {
        let mut disk = vec![0; 64 * 512];
        disk[440..444].copy_from_slice(&0x1234_abcdu32.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(Table::read(&Bytes(disk.clone())), None, "no entry");
        disk[446 + 4] = 7;
        disk[446 + 12] = 9;
        let table = Table::read(&Bytes(disk.clone())).unwrap();
        assert_eq!(table.part_uuid(2, 0).as_deref(), Some("1234abcd-02"));
        disk[446 + 4] = PROTECTIVE;
        assert_eq!(Table::read(&Bytes(disk)), None, "protects nothing");
        assert_eq!(Table::read(&Bytes(Vec::new())), None);
    }
}
