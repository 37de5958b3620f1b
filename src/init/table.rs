//! Partition tables: sysfs does not tell a partition's UUID and type, and of a table that is damaged the kernel shows
//! nothing, also where its backup is whole.
//!
//! GPT as in the UEFI specification (5.3), its header and entries from the primary place or the backup. An MBR's
//! partitions are named by its disk signature and their number, as the kernel and blkid do; the logical ones are
//! chained, each table with one of them and the place of the next.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::extent::ByteRange;
use crate::io::Source;

/// Numbers of partitions that the kernel can show.
const NUMBERS: std::ops::RangeInclusive<u32> = 1..=255;

/// Largest table of GPT entries that is read, in bytes: all tools make 16 KiB.
const MAX_ENTRIES: u32 = 256 << 10;

/// Largest entry that is taken seriously, in bytes; all tools make 128.
const MAX_ENTRY: u32 = 512;

/// Logical partitions of an MBR that are looked for: more than anybody makes.
const MAX_LOGICAL: u32 = 60;

/// Bytes of a sector: a disk in a USB case can have others than it had when its table was written.
const SECTOR_SIZES: [u64; 2] = [512, 4096];

/// The header of a GPT. Places are in logical sectors.
#[derive(Clone, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct GptHeader {
    /// `EFI PART`
    pub signature: [u8; 8],
    pub revision: U32,
    /// Bytes of the header that its checksum covers.
    pub header_size: U32,
    /// CRC-32 of the header, with zeros here.
    pub crc: U32,
    pub reserved: U32,
    /// Where this header is.
    pub own_lba: U64,
    /// Where its copy is.
    pub other_lba: U64,
    pub first_usable: U64,
    /// Belongs to what partitions may have.
    pub last_usable: U64,
    /// The disk's own identity.
    pub disk: [u8; 16],
    /// Where the entries begin.
    pub entries_lba: U64,
    pub nr_entries: U32,
    /// Bytes of an entry.
    pub entry_size: U32,
    /// CRC-32 of all entries.
    pub entries_crc: U32,
}

impl GptHeader {
    /// The checksum that it should have, with `rest`, what of its length comes behind the fields that are known.
    pub(super) fn sum(&self, rest: &[u8]) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(GptHeader { crc: U32::new(0), ..self.clone() }.as_bytes());
        sum.update(rest);
        sum.finalize()
    }

    /// Is it a header, and as it was written?
    pub(super) fn is_whole(&self, rest: &[u8]) -> bool {
        &self.signature == b"EFI PART" && self.crc.get() == self.sum(rest)
    }
}

/// An entry of a GPT; one whose kind is zero is unused.
#[derive(Clone, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct GptEntry {
    pub kind: [u8; 16],
    /// Its own identity: the PARTUUID.
    pub unique: [u8; 16],
    /// In logical sectors.
    pub first_lba: U64,
    /// Belongs to it.
    pub last_lba: U64,
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

#[derive(Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
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

/// Kinds of partitions of an MBR that hold the chain of logical ones.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartType {
    /// The GUID of a GPT's entry, as its bytes lie there.
    Gpt([u8; 16]),
    /// The number in an MBR's entry.
    Mbr(u8),
}

/// Types with a name, as GUIDs are written.
const GPT_TYPES: [(&str, &str); 12] = [
    (EFI_SYSTEM, "EFI system"),
    (BASIC_DATA, "Microsoft basic data"),
    (LINUX_DATA, "Linux data"),
    ("e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"),
    ("de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery"),
    (LDM_METADATA, "LDM metadata"),
    (LDM_DATA, "LDM data"),
    ("e75caf8f-f680-4cee-afa3-b001e56efc2d", "Microsoft storage spaces"),
    ("21686148-6449-6e6f-744e-656564454649", "BIOS boot"),
    ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"),
    ("e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"),
    ("a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"),
];
const EFI_SYSTEM: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const BASIC_DATA: &str = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7";
const LINUX_DATA: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
const LDM_METADATA: &str = "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3";
const LDM_DATA: &str = "af9b60a0-1431-4f62-bc68-3311714a69ad";

const MBR_TYPES: [(u8, &str); 12] = [
    (0x05, "extended"),
    (0x07, "NTFS or exFAT"),
    (0x0b, "FAT32"),
    (0x0c, "FAT32"),
    (0x0e, "FAT16"),
    (0x0f, "extended"),
    (0x27, "Windows recovery"),
    (LDM, "dynamic disk (LDM)"),
    (0x82, "Linux swap"),
    (0x83, "Linux data"),
    (0x8e, "Linux LVM"),
    (0xef, "EFI system"),
];
const LDM: u8 = 0x42;

impl PartType {
    /// Its name; none where few have heard of it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            PartType::Gpt(kind) => {
                GPT_TYPES.into_iter().find(|(own, _)| *own == guid(&kind)).map(|(_, name)| name)
            }
            PartType::Mbr(kind) => MBR_TYPES.into_iter().find(|(own, _)| *own == kind).map(|(_, name)| name),
        }
    }

    /// May Windows have an NTFS volume there?
    pub fn may_be_ntfs(self) -> bool {
        match self {
            PartType::Gpt(kind) => guid(&kind) == BASIC_DATA,
            PartType::Mbr(kind) => kind == 0x07,
        }
    }

    /// Is it part of a dynamic disk, whose volumes may be made of several such parts?
    pub fn is_dynamic(self) -> bool {
        match self {
            PartType::Gpt(kind) => [LDM_METADATA, LDM_DATA].contains(&guid(&kind).as_str()),
            PartType::Mbr(kind) => kind == LDM,
        }
    }

    /// Is it for files of its owner, and not for starting a machine?
    pub fn is_data(self) -> bool {
        match self {
            PartType::Gpt(kind) => [BASIC_DATA, LINUX_DATA].contains(&guid(&kind).as_str()),
            PartType::Mbr(kind) => [0x07, 0x0b, 0x0c, 0x0e, 0x83].contains(&kind),
        }
    }
}

/// A partition, as a table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub number: u32,
    /// Where it lies on the disk: within it, and not empty.
    pub range: ByteRange,
    /// What it is for.
    pub kind: PartType,
    /// PARTUUID
    pub uuid: String,
}

/// A partition table.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    entries: Vec<Entry>,
    /// An MBR's; none with a GPT.
    signature: Option<u32>,
}

impl Table {
    /// Reads the table of a disk. None where there is none, or it cannot be read.
    pub fn read(disk: &dyn Source) -> Option<Table> {
        let own = u64::from(disk.sector_size());
        let mut bytes = [0; 512];
        if disk.read_at(0, &mut bytes).is_ok()
            && let Some(mbr) = parse_mbr(&bytes)
            && mbr.entries.iter().all(|entry| entry.kind != PROTECTIVE)
        {
            return Some(read_mbr(disk, own, mbr));
        }
        // Behind a protective MBR, one that cannot be read, or none at all: the GPT decides.
        let others = SECTOR_SIZES.into_iter().filter(|size| *size != own);
        std::iter::once(own).chain(others).find_map(|sector| {
            let last = (disk.len() / sector).checked_sub(1)?;
            read_gpt(disk, sector, 1).or_else(|| read_gpt(disk, sector, last))
        })
    }

    /// Is it a GPT?
    pub fn is_gpt(&self) -> bool {
        self.signature.is_none()
    }

    /// The PARTUUID of the partition with this number that begins at this byte.
    pub fn part_uuid(&self, number: u32, start: u64) -> Option<String> {
        match (self.entry(number, start), self.signature) {
            (Some(entry), _) => Some(entry.uuid.clone()),
            (None, Some(signature)) => Some(mbr_uuid(signature, number)),
            // A table that the kernel did not take its partitions from names none of them.
            (None, None) => None,
        }
    }

    /// What the partition with this number that begins at this byte is for. On a dynamic disk the kernel shows volumes,
    /// and pieces of volumes, that have no entry.
    pub fn part_type(&self, number: u32, start: u64) -> Option<PartType> {
        let dynamic = || self.entries.iter().find(|entry| entry.kind.is_dynamic());
        self.entry(number, start).or_else(dynamic).map(|entry| entry.kind)
    }

    /// What it says of the partition with this number that begins at this byte.
    pub fn entry(&self, number: u32, start: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.number == number && entry.range.pos == start)
    }

    /// The partitions that can be shown: of those that share bytes the first one, as the kernel does it.
    pub fn distinct(&self) -> Vec<&Entry> {
        let mut distinct: Vec<&Entry> = Vec::new();
        for entry in self.entries.iter().filter(|entry| NUMBERS.contains(&entry.number)) {
            let is_extended = matches!(entry.kind, PartType::Mbr(kind) if EXTENDED.contains(&kind));
            let is_free =
                |other: &&Entry| entry.range.end() <= other.range.pos || other.range.end() <= entry.range.pos;
            if !is_extended && distinct.iter().all(is_free) {
                distinct.push(entry);
            }
        }
        distinct
    }
}

/// The stretch of `nr` sectors from `first` on, if the disk has all of it.
fn range(disk: &dyn Source, sector: u64, first: u64, nr: u64) -> Option<ByteRange> {
    let (pos, len) = (first.checked_mul(sector)?, nr.checked_mul(sector)?);
    let is_there = len != 0 && pos.checked_add(len)? <= disk.len();
    is_there.then_some(ByteRange { pos, len })
}

/// What the first sector says, if it is a table.
fn parse_mbr(bytes: &[u8]) -> Option<&Mbr> {
    let (mbr, _) = Mbr::ref_from_prefix(bytes).ok()?;
    // File systems end their boot sectors alike; their code makes no entries like these.
    let is_table = mbr.signature.get() == 0xaa55
        && mbr.entries.iter().all(|entry| entry.boot & 0x7f == 0)
        && mbr.entries.iter().any(|entry| entry.kind != 0 && entry.nr_sectors.get() != 0);
    is_table.then_some(mbr)
}

fn mbr_uuid(signature: u32, number: u32) -> String {
    format!("{signature:08x}-{number:02x}")
}

fn read_mbr(disk: &dyn Source, sector: u64, mbr: &Mbr) -> Table {
    let signature = mbr.disk_signature.get();
    // Positions in the table at sector `base` count from there.
    let parse = |number, base: u64, entry: &MbrEntry| {
        let first = base + u64::from(entry.first_lba.get());
        let range = range(disk, sector, first, entry.nr_sectors.get().into()).filter(|_| entry.kind != 0)?;
        Some(Entry { number, range, kind: PartType::Mbr(entry.kind), uuid: mbr_uuid(signature, number) })
    };
    let primary = (1u32..).zip(&mbr.entries);
    let mut entries: Vec<Entry> = primary.filter_map(|(number, entry)| parse(number, 0, entry)).collect();
    let is_extended = |entry: &&MbrEntry| EXTENDED.contains(&entry.kind);
    let Some(extended) = mbr.entries.iter().find(is_extended) else {
        return Table { entries, signature: Some(signature) };
    };
    // Links count from the first table of the chain, whichever they are in.
    let first = u64::from(extended.first_lba.get());
    let mut at = first;
    let mut number = 5;
    for _ in 0..MAX_LOGICAL {
        let mut bytes = [0; 512];
        let read = at.checked_mul(sector).and_then(|pos| disk.read_at(pos, &mut bytes).ok());
        let Some(link) = read.and_then(|()| parse_mbr(&bytes)) else { break };
        let mut logical = link.entries.iter().filter(|entry| entry.nr_sectors.get() != 0);
        if let Some(logical) = logical.find(|entry| !is_extended(entry)) {
            entries.extend(parse(number, at, logical));
            number += 1;
        }
        match link.entries.iter().find(is_extended) {
            // One that goes back could go round and round.
            Some(next) if first + u64::from(next.first_lba.get()) > at => {
                at = first + u64::from(next.first_lba.get());
            }
            _ => break,
        }
    }
    Table { entries, signature: Some(signature) }
}

fn read_gpt(disk: &dyn Source, sector: u64, header_lba: u64) -> Option<Table> {
    let mut bytes = [0; 512];
    disk.read_at(header_lba.checked_mul(sector)?, &mut bytes).ok()?;
    let (header, rest) = GptHeader::ref_from_prefix(&bytes).ok()?;
    let rest_len = usize::try_from(header.header_size.get()).ok()?.checked_sub(size_of::<GptHeader>())?;
    if header.own_lba.get() != header_lba || !header.is_whole(rest.get(..rest_len)?) {
        return None;
    }
    let (entries_lba, entries_crc) = (header.entries_lba.get(), header.entries_crc.get());
    let (nr_entries, entry_size) = (header.nr_entries.get(), header.entry_size.get());
    let entries_len = nr_entries.checked_mul(entry_size).filter(|len| *len <= MAX_ENTRIES)?;
    if !(size_of::<GptEntry>()..=MAX_ENTRY as usize).contains(&(entry_size as usize)) {
        return None;
    }
    let mut entries = vec![0; entries_len as usize];
    disk.read_at(entries_lba.checked_mul(sector)?, &mut entries).ok()?;
    if crc32fast::hash(&entries) != entries_crc {
        return None;
    }
    let parse = |(number, bytes)| {
        let (entry, _) = GptEntry::ref_from_prefix(bytes).ok()?;
        let (first, last) = (entry.first_lba.get(), entry.last_lba.get());
        let range = range(disk, sector, first, last.checked_sub(first)?.checked_add(1)?)?;
        let is_used = entry.kind != [0; 16];
        is_used.then(|| Entry { number, range, kind: PartType::Gpt(entry.kind), uuid: guid(&entry.unique) })
    };
    let entries = (1u32..).zip(entries.chunks_exact(entry_size as usize)).filter_map(parse).collect();
    Some(Table { entries, signature: None })
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
mod tests;
