//! What a volume holds: the kind of file system, its label and its UUID as blkid prints them.
//!
//! Few and small reads, since the disk may be failing: the first 8 KiB, then what the layouts name. Layouts from the
//! kernel's documentation (ext4, XFS, btrfs) and from Microsoft's FAT and exFAT specifications; NTFS is opened by the
//! program's own reader.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{PartType, Table};
use crate::bytes::are_all;
use crate::event::{Event, Observer};
use crate::io::Source;
use crate::ntfs::Tolerance;
use crate::ntfs::boot::{BOOT_SECTOR_LEN, BootSector};
use crate::ntfs::shutdown::{find_hiberfile, has_unclean_log, is_hibernated};
use crate::ntfs::volume::{Volume, backup_boot_sector};

/// Bytes of the first read: superblocks of ext (1024), LVM (512), md (0 and 4096) and swap (4086) lie in them.
const HEAD: usize = 8 << 10;

/// What a disk holds that is divided.
pub const TABLE: &str = "partition table";

/// What an encrypted volume of Windows is.
pub const BITLOCKER: &str = "BitLocker";

/// Where btrfs keeps its superblock.
const BTRFS_POS: u64 = 64 << 10;

/// Bytes that must be zeros for a device to count as blank. At the beginning ISO 9660 has its first signature at 32 KiB,
/// at the end the oldest RAID format within the last 128 KiB.
const BLANK_START: usize = 64 << 10;
const BLANK_END: usize = 128 << 10;

/// Where all tools of these days put a disk's first partition.
const FIRST_PARTITION: u64 = 1 << 20;

/// How far from the end of a volume the backup of its boot sector is looked for, in bytes, and how much is read at
/// once: a partition can be longer than the volume on it.
const BACKUP_AREA: u64 = 16 << 20;
const BACKUP_STEP: u64 = 1 << 20;

/// Bytes of a FAT or exFAT root directory that are searched for the label, which comes first.
const ROOT_DIR: usize = 4 << 10;

/// A kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Ntfs,
    Ext2,
    Ext3,
    Ext4,
    Vfat,
    Exfat,
    Xfs,
    Btrfs,
    /// Something with a known signature that no image can lie on.
    Other(&'static str),
}

impl Kind {
    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ntfs => "ntfs",
            Kind::Ext2 => "ext2",
            Kind::Ext3 => "ext3",
            Kind::Ext4 => "ext4",
            Kind::Vfat => "vfat",
            Kind::Exfat => "exfat",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
            Kind::Other(name) => name,
        }
    }
}

/// What was found on a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Kind of file system.
    pub kind: Kind,
    /// Label; empty where there is none.
    pub label: String,
    /// As blkid prints it; empty where there is none.
    pub uuid: String,
    /// NTFS: how it was left; none where that cannot be told, and for all others.
    pub left: Option<Left>,
    /// By what it was told.
    pub told_by: ToldBy,
}

/// How an NTFS volume was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Unmounted.
    InOrder,
    /// Marked for a check.
    Dirty,
    /// With Windows asleep on it: hibernated, also by fast startup.
    Asleep,
    /// With changes in its log that are not in place.
    Open,
}

/// By what a content was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToldBy {
    /// Its own beginning.
    Itself,
    /// The backup of its boot sector, or its MFT.
    Backup,
    /// The type of its partition, in which no boot sector can be read.
    PartType,
}

impl Content {
    pub(super) fn new(kind: Kind, label: String, uuid: String) -> Content {
        Content { kind, label, uuid, left: None, told_by: ToldBy::Itself }
    }

    pub(super) fn other(name: &'static str) -> Content {
        Content::new(Kind::Other(name), String::new(), String::new())
    }
}

/// What is known of a volume's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has not answered yet.
    Pending,
    /// It can be read, and is blank.
    Nothing,
    /// It cannot be read well enough to tell.
    Unreadable,
    /// A file system, another known signature, or something unknown.
    Content(Content),
}

/// Looks at a volume, or at a disk without partitions. `part_type` is what the partition table says of it.
pub fn probe(source: &dyn Source, part_type: Option<PartType>) -> Found {
    if part_type.is_some_and(PartType::is_dynamic) {
        // What begins here may go on on another disk.
        return Found::Content(Content::other("dynamic disk (LDM)"));
    }
    let head = read_head(source);
    let table = || Table::read(source).map(|_| Content::other(TABLE));
    let found = match &head {
        Some(head) => probe_head(source, head)
            .or_else(|| probe_btrfs(source))
            .or_else(table)
            .or_else(|| probe_ntfs(source)),
        // Even so it may be a disk or a volume whose backup can be read.
        None => table().or_else(|| probe_ntfs(source)),
    };
    let (end, is_whole) = match found {
        Some(content) => return Found::Content(content),
        None => search_backup(source),
    };
    match end {
        Some(boot) => Found::Content(of_backup(&boot)),
        None if head.is_some() && is_blank(source) => Found::Nothing,
        None if head.is_some() => Found::Content(Content::other("unknown data")),
        None if !is_whole && part_type.is_some_and(PartType::may_be_ntfs) => {
            let content = Content::new(Kind::Ntfs, String::new(), String::new());
            Found::Content(Content { told_by: ToldBy::PartType, ..content })
        }
        None => Found::Unreadable,
    }
}

/// Looks for the backup of a boot sector backwards through the end of a volume, and tells whether all of that could be
/// read. One read that fails ends it: a failing disk is to be spared.
fn search_backup(source: &dyn Source) -> (Option<BootSector>, bool) {
    let first = source.len().saturating_sub(BACKUP_AREA);
    let mut end = source.len() / BACKUP_STEP * BACKUP_STEP;
    // The last one is whatever is behind the others.
    let mut len = source.len() - end;
    let mut bytes = vec![0; BACKUP_STEP as usize];
    loop {
        let part = bytes.get_mut(..len as usize).unwrap_or_default();
        if source.read_at(end, part).is_err() {
            return (None, false);
        }
        if let Some(at) = BootSector::find_backup(end, part) {
            return (part.get(at..).and_then(|bytes| BootSector::parse(bytes).ok()), true);
        }
        if end <= first {
            return (None, true);
        }
        len = BACKUP_STEP;
        end -= BACKUP_STEP;
    }
}

fn of_backup(boot: &BootSector) -> Content {
    let content = Content::new(Kind::Ntfs, String::new(), ntfs_uuid(boot.serial));
    Content { told_by: ToldBy::Backup, ..content }
}

fn ntfs_uuid(serial: u64) -> String {
    format!("{serial:016X}")
}

/// Are there only zeros where content of any kind shows: at the beginning, where the first partition of a disk lies
/// whose table is lost, and at the end, where RAID and ZFS have their labels? What cannot be read does not count as blank.
fn is_blank(source: &dyn Source) -> bool {
    let mut bytes = vec![0; BLANK_END.max(BLANK_START)];
    let end = source.len().saturating_sub(BLANK_END as u64);
    let places = [(0, BLANK_START), (FIRST_PARTITION.min(source.len()), BLANK_START), (end, BLANK_END)];
    places.into_iter().all(|(pos, len)| {
        let len = u64::min(len as u64, source.len() - pos) as usize;
        let part = bytes.get_mut(..len).unwrap_or_default();
        part.is_empty() || source.read_at(pos, part).is_ok() && are_all(part, 0)
    })
}

/// The first bytes: at once, or only the sectors that matter most where that fails.
fn read_head(source: &dyn Source) -> Option<Vec<u8>> {
    let mut head = vec![0; usize::try_from(source.len()).unwrap_or(HEAD).min(HEAD)];
    if source.read_at(0, &mut head).is_ok() {
        return Some(head);
    }
    head.fill(0);
    let mut first = false;
    for (pos, len) in [(0, 512), (1024, 512)] {
        let Some(part) = head.get_mut(pos..pos + len) else { continue };
        match source.read_at(pos as u64, part) {
            Ok(()) => first |= pos == 0,
            Err(_) => part.fill(0),
        }
    }
    (first || head.iter().any(|byte| *byte != 0)).then_some(head)
}

fn probe_head(source: &dyn Source, head: &[u8]) -> Option<Content> {
    let at = |pos: usize, magic: &[u8]| head.get(pos..).is_some_and(|bytes| bytes.starts_with(magic));
    let others: [(usize, &[u8], &'static str); 10] = [
        (3, b"-FVE-FS-", BITLOCKER),
        (0, b"LUKS\xba\xbe", "LUKS"),
        (0x218, b"LVM2 001", "LVM"),
        (0, &[0xfc, 0x4e, 0x2b, 0xa9], "RAID member"),
        (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "RAID member"),
        (4086, b"SWAPSPACE2", "swap"),
        (0x410, &[0x10, 0x20, 0xf5, 0xf2], "f2fs"),
        (0x400, b"H+\x00\x04", "hfsplus"),
        (32, b"NXSB", "apfs"),
        (0, b"hsqs", "squashfs"),
    ];
    if at(3, b"NTFS    ") {
        return probe_ntfs(source);
    }
    let other = others.into_iter().find(|(pos, magic, _)| at(*pos, magic));
    if let Some((.., name)) = other {
        return Some(Content::other(name));
    }
    None.or_else(|| parse_ext(head))
        .or_else(|| parse_xfs(head))
        .or_else(|| parse_exfat(source, head))
        .or_else(|| parse_fat(source, head))
}

/// NTFS, also where the boot sector or its neighbours are damaged.
fn probe_ntfs(source: &dyn Source) -> Option<Content> {
    let mut bytes = [0; BOOT_SECTOR_LEN];
    let first = source.read_at(0, &mut bytes).ok().and_then(|()| BootSector::parse(&bytes).ok());
    if let Ok(volume) = Volume::open(source, Tolerance::RESCUE, &Unheard) {
        let info = &volume.info;
        let told_by = if first.is_some() { ToldBy::Itself } else { ToldBy::Backup };
        let content = Content::new(Kind::Ntfs, info.label.as_str().to_owned(), ntfs_uuid(info.serial));
        return Some(Content { left: how_left(&volume), told_by, ..content });
    }
    if let Some(boot) = first {
        return Some(Content::new(Kind::Ntfs, String::new(), ntfs_uuid(boot.serial)));
    }
    backup_boot_sector(source).map(|(_, boot)| of_backup(&boot))
}

/// How a volume was left. None where that cannot be told.
fn how_left(volume: &Volume<'_>) -> Option<Left> {
    volume.info.version?;
    if volume.info.is_dirty {
        return Some(Left::Dirty);
    }
    if find_hiberfile(volume)?.is_some_and(|hiberfile| is_hibernated(volume, hiberfile)) {
        return Some(Left::Asleep);
    }
    Some(if has_unclean_log(volume) { Left::Open } else { Left::InOrder })
}

/// Nobody is told what is odd about a disk that is only being looked at.
struct Unheard;

impl Observer for Unheard {
    fn tell(&self, event: Event<'_>) {
        if let Event::Warning(text) = event {
            log::debug!("{text}");
        }
    }
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ExtSuper {
    unused1: [u8; 56],
    /// 0xEF53.
    magic: U16,
    unused2: [u8; 34],
    compatible: U32,
    incompatible: U32,
    compatible_read: U32,
    uuid: [u8; 16],
    label: [u8; 16],
}

fn parse_ext(head: &[u8]) -> Option<Content> {
    /// There is a journal: ext3 at least.
    const JOURNAL: u32 = 4;
    /// All that ext2 and ext3 know: compression, types in directories, recovery, journal device, META_BG.
    const OLD_INCOMPATIBLE: u32 = 0x1f;
    /// Sparse superblocks, large files, tree directories.
    const OLD_COMPATIBLE_READ: u32 = 0x7;
    let (ext, _) = ExtSuper::ref_from_prefix(head.get(1024..)?).ok()?;
    if ext.magic.get() != 0xef53 {
        return None;
    }
    let is_old = ext.incompatible.get() & !OLD_INCOMPATIBLE == 0
        && ext.compatible_read.get() & !OLD_COMPATIBLE_READ == 0;
    let kind = match (is_old, ext.compatible.get() & JOURNAL != 0) {
        (false, _) => Kind::Ext4,
        (true, true) => Kind::Ext3,
        (true, false) => Kind::Ext2,
    };
    Some(Content::new(kind, label(&ext.label), uuid(&ext.uuid)))
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct XfsSuper {
    /// `XFSB`
    magic: [u8; 4],
    unused1: [u8; 28],
    uuid: [u8; 16],
    unused2: [u8; 60],
    label: [u8; 12],
}

fn parse_xfs(head: &[u8]) -> Option<Content> {
    let (xfs, _) = XfsSuper::ref_from_prefix(head).ok()?;
    (&xfs.magic == b"XFSB").then(|| Content::new(Kind::Xfs, label(&xfs.label), uuid(&xfs.uuid)))
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct BtrfsSuper {
    unused1: [u8; 32],
    uuid: [u8; 16],
    unused2: [u8; 16],
    /// `_BHRfS_M`
    magic: [u8; 8],
    unused3: [u8; 227],
    label: [u8; 256],
}

fn probe_btrfs(source: &dyn Source) -> Option<Content> {
    let mut bytes = [0; 1024];
    if source.len() < BTRFS_POS + bytes.len() as u64 {
        return None;
    }
    source.read_at(BTRFS_POS, &mut bytes).ok()?;
    parse_btrfs(&bytes)
}

fn parse_btrfs(bytes: &[u8]) -> Option<Content> {
    let (btrfs, _) = BtrfsSuper::ref_from_prefix(bytes).ok()?;
    (&btrfs.magic == b"_BHRfS_M").then(|| Content::new(Kind::Btrfs, label(&btrfs.label), uuid(&btrfs.uuid)))
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ExfatBoot {
    jump: [u8; 3],
    /// `EXFAT` and three blanks.
    name: [u8; 8],
    unused1: [u8; 77],
    /// Where the clusters begin, in sectors.
    heap_sector: U32,
    nr_clusters: U32,
    /// The first cluster has number 2.
    root_cluster: U32,
    serial: U32,
    unused2: [u8; 4],
    /// Powers of two.
    sector_shift: u8,
    cluster_shift: u8,
}

fn parse_exfat(source: &dyn Source, head: &[u8]) -> Option<Content> {
    let (boot, _) = ExfatBoot::ref_from_prefix(head).ok()?;
    if &boot.name != b"EXFAT   " {
        return None;
    }
    let sector = 1u64.checked_shl(boot.sector_shift.into()).filter(|size| (512..=4096).contains(size));
    let sectors = u64::from(boot.root_cluster.get().saturating_sub(2)).checked_shl(boot.cluster_shift.into());
    let pos = sectors
        .zip(sector)
        .and_then(|(sectors, size)| sectors.checked_add(boot.heap_sector.get().into())?.checked_mul(size));
    let label = pos.and_then(|pos| read_root(source, pos)).and_then(|entries| {
        // Kind 0x83, number of UTF-16 units, units.
        let entry = entries.chunks_exact(32).take_while(|entry| entry.first() != Some(&0));
        let named = entry.into_iter().find(|entry| entry.first() == Some(&0x83))?.to_vec();
        let len = usize::from(*named.get(1)?).min(11) * 2;
        let units = named.get(2..2 + len)?.chunks_exact(2);
        let units: Vec<u16> =
            units.filter_map(|two| Some(u16::from_le_bytes(two.try_into().ok()?))).collect();
        Some(String::from_utf16_lossy(&units))
    });
    Some(Content::new(Kind::Exfat, label.unwrap_or_default(), fat_serial(boot.serial.get())))
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FatBoot {
    jump: [u8; 3],
    oem: [u8; 8],
    sector_size: U16,
    cluster_sectors: u8,
    reserved_sectors: U16,
    nr_fats: u8,
    nr_root_entries: U16,
    nr_sectors_16: U16,
    media: u8,
    fat_sectors_16: U16,
    unused1: [u8; 8],
    nr_sectors_32: U32,
    /// What follows differs between FAT32 and its elders.
    tail: [u8; 54],
}

fn parse_fat(source: &dyn Source, head: &[u8]) -> Option<Content> {
    let (boot, _) = FatBoot::ref_from_prefix(head).ok()?;
    let sector = u64::from(boot.sector_size.get());
    let is_fat = head.get(510..512) == Some(&[0x55, 0xaa])
        && sector.is_power_of_two()
        && (512..=4096).contains(&sector)
        && boot.cluster_sectors.is_power_of_two()
        && (1..=4).contains(&boot.nr_fats)
        && boot.reserved_sectors.get() != 0
        && (boot.media == 0xf0 || boot.media >= 0xf8)
        && (boot.nr_sectors_16.get() != 0 || boot.nr_sectors_32.get() != 0);
    if !is_fat {
        return None;
    }
    let is_fat32 = boot.fat_sectors_16.get() == 0;
    // In the tail: FAT32's FAT size, root cluster, and then what the elders have at its start: drive, signature
    // (0x29), serial, label.
    let number = |at: usize| Some(u32::from_le_bytes(boot.tail.get(at..at + 4)?.try_into().ok()?));
    let names = if is_fat32 { 28 } else { 0 };
    let serial = number(names + 3)?;
    let short_label = boot.tail.get(names + 7..names + 18)?;
    let fat_sectors = if is_fat32 { number(0)? } else { boot.fat_sectors_16.get().into() };
    let behind_fats =
        u64::from(boot.reserved_sectors.get()) + u64::from(boot.nr_fats) * u64::from(fat_sectors);
    let root = if is_fat32 {
        behind_fats + u64::from(number(8)?.saturating_sub(2)) * u64::from(boot.cluster_sectors)
    } else {
        behind_fats
    };
    let entry_label = read_root(source, root * sector).and_then(|entries| {
        let mut used = entries.chunks_exact(32).take_while(|entry| entry.first() != Some(&0));
        // Attribute "volume label", and not the four that mark a part of a long name; not deleted.
        let is_label = |entry: &&[u8]| {
            entry.get(11).is_some_and(|attributes| attributes & 0x0f == 8) && entry.first() != Some(&0xe5)
        };
        used.find(is_label).and_then(|entry| entry.get(..11)).map(label)
    });
    let label = entry_label.unwrap_or_else(|| label(short_label));
    let label = if label == "NO NAME" { String::new() } else { label };
    Some(Content::new(Kind::Vfat, label, fat_serial(serial)))
}

fn read_root(source: &dyn Source, pos: u64) -> Option<Vec<u8>> {
    let len = source.len().checked_sub(pos)?.min(ROOT_DIR as u64);
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    source.read_at(pos, &mut bytes).ok()?;
    Some(bytes)
}

fn fat_serial(serial: u32) -> String {
    format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)
}

/// Text up to the first zero byte, without blanks at its end.
fn label(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).trim_end().to_owned()
}

/// Sixteen bytes as text; all zero is none.
fn uuid(bytes: &[u8; 16]) -> String {
    if *bytes == [0; 16] {
        return String::new();
    }
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        text.push_str(if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" });
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests;
