//! Makes the stick's data partition fill the stick: an image made for the smallest stick is written to a larger one.
//!
//! GPT as in the UEFI specification (5.3). The table at the end of the disk comes first, and only when it has reached
//! the disk the one at its beginning, which is the one that counts: a cut in between leaves the old partitions.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::table::{GptEntry, GptHeader};
use crate::extent::ByteRange;

/// Free bytes behind a partition that are worth the work.
const WORTH: u64 = 8 << 20;

/// Partitions end on a multiple of this, which suits every flash memory.
const ALIGNMENT: u64 = 1 << 20;

/// Most bytes of a table's entries: 128 of 128 bytes is what every tool makes.
const MAX_ENTRIES: u64 = 1 << 20;

/// Where an MBR has its first entry's last field, the number of sectors.
const MBR_SECTORS: u64 = 446 + 12;

/// Why a partition cannot grow.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// The table makes no sense.
    #[error("the stick's partition table: {0}")]
    Table(&'static str),
    /// The system refused something.
    #[error("cannot {what} the stick's partition table: {cause}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
struct Grown {
    /// The partition, in bytes.
    range: ByteRange,
    /// The table at the end: entries, then header.
    backup: Vec<u8>,
    backup_pos: u64,
    /// The table at the beginning: header, then entries, from the disk's second sector on.
    primary: Vec<u8>,
}

/// Makes the disk's last partition as long as the disk allows, in the table: its new place, or none where it fills
/// the disk already. `size` is the disk's, `sector` its logical sector, in bytes.
pub fn grow(disk: &File, size: u64, sector: u32, number: u32) -> Result<Option<ByteRange>, GrowError> {
    let system = |what| move |cause| GrowError::System { what, cause };
    let sector = u64::from(sector);
    let mut head = vec![0; sector as usize];
    disk.read_exact_at(&mut head, sector).map_err(system("read"))?;
    let (header, _) = GptHeader::read_from_prefix(&head).map_err(|_| GrowError::Table("no header"))?;
    let len = u64::from(header.nr_entries.get()) * u64::from(header.entry_size.get());
    if header.entries_lba.get() != 2 || len > MAX_ENTRIES {
        return Err(GrowError::Table("found entries that no tool makes, wanted them from sector 2 on"));
    }
    let mut entries = vec![0; len as usize];
    disk.read_exact_at(&mut entries, 2 * sector).map_err(system("read"))?;
    let Some(grown) = grown(header, entries, size, sector, number)? else { return Ok(None) };
    for (bytes, pos) in [(&grown.backup, grown.backup_pos), (&grown.primary, sector)] {
        disk.write_all_at(bytes, pos).and_then(|()| disk.sync_all()).map_err(system("write"))?;
    }
    // What the MBR says protects the table from tools that know nothing of GPT.
    let sectors = u32::try_from(size / sector - 1).unwrap_or(u32::MAX);
    disk.write_all_at(&sectors.to_le_bytes(), MBR_SECTORS)
        .and_then(|()| disk.sync_all())
        .map_err(system("write"))?;
    Ok(Some(grown.range))
}

/// The tables with the partition as long as the disk allows; none where it is so long already.
fn grown(
    mut header: GptHeader,
    mut entries: Vec<u8>,
    size: u64,
    sector: u64,
    number: u32,
) -> Result<Option<Grown>, GrowError> {
    let is_whole = header.header_size.get() as usize == size_of::<GptHeader>()
        && header.is_whole(&[])
        && header.entries_crc.get() == crc32fast::hash(&entries);
    if !is_whole {
        return Err(GrowError::Table("found a broken header, wanted one whose checksums fit"));
    }
    let entry_size = header.entry_size.get() as usize;
    if entry_size < size_of::<GptEntry>() {
        return Err(GrowError::Table("found entries that are too small"));
    }
    let index = (number as usize).checked_sub(1).ok_or(GrowError::Table("no such partition"))?;
    let parse = |bytes: &[u8]| GptEntry::read_from_prefix(bytes).map(|(entry, _)| entry).ok();
    let all: Vec<_> = entries.chunks_exact(entry_size).filter_map(parse).collect();
    let own = all.get(index).filter(|own| own.kind != [0; 16]);
    let mut own = own.cloned().ok_or(GrowError::Table("no such partition"))?;
    let is_used = |entry: &&GptEntry| entry.kind != [0; 16];
    if all.iter().filter(is_used).any(|other| other.first_lba.get() > own.first_lba.get()) {
        return Ok(None);
    }

    let entries_sectors = (entries.len() as u64).div_ceil(sector);
    let last = (size / sector).checked_sub(1).ok_or(GrowError::Table("the disk is empty"))?;
    let last_usable =
        last.checked_sub(entries_sectors + 1).ok_or(GrowError::Table("the disk is too small"))?;
    let aligned = ((last_usable + 1) * sector / ALIGNMENT * ALIGNMENT / sector).saturating_sub(1);
    if aligned < own.last_lba.get().saturating_add(WORTH / sector) {
        return Ok(None);
    }
    own.last_lba = U64::new(aligned);
    if let Some(place) =
        entries.get_mut(index * entry_size..).and_then(|rest| rest.get_mut(..size_of::<GptEntry>()))
    {
        place.copy_from_slice(own.as_bytes());
    }
    header.entries_crc = U32::new(crc32fast::hash(&entries));
    header.last_usable = U64::new(last_usable);
    header.other_lba = U64::new(last);
    header.crc = U32::new(header.sum(&[]));
    let mut other = header.clone();
    other.own_lba = U64::new(last);
    other.other_lba = header.own_lba;
    other.entries_lba = U64::new(last_usable + 1);
    other.crc = U32::new(other.sum(&[]));

    let padded = |bytes: &[u8]| {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(sector as usize), 0);
        padded
    };
    let entries = padded(&entries);
    let first = own.first_lba.get();
    Ok(Some(Grown {
        range: ByteRange { pos: first * sector, len: (aligned + 1).saturating_sub(first) * sector },
        backup: [entries.clone(), padded(other.as_bytes())].concat(),
        backup_pos: (last_usable + 1) * sector,
        primary: [padded(header.as_bytes()), entries].concat(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn sgdisk(disk: &tempfile::NamedTempFile, args: &[&str]) -> String {
        let out = Command::new("sgdisk").args(args).arg(disk.path()).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn small() -> tempfile::NamedTempFile {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(64 << 20).unwrap();
        let parts =
            ["-a", "1", "-n", "1:34:2047", "-a", "2048", "-n", "2:2048:+8M", "-n", "3:0:0", "-c", "3:RESCUE"];
        sgdisk(&disk, &parts);
        disk
    }

    #[test]
    fn the_last_partition_fills_a_larger_disk() {
        let disk = small();
        let size = (200 << 20) + 7 * 512;
        disk.as_file().set_len(size).unwrap();
        let first = (2048 * 512) + (8 << 20);
        let range = grow(disk.as_file(), size, 512, 3).unwrap().unwrap();
        assert_eq!((range.pos, range.end()), (first, 199 << 20));
        assert!(sgdisk(&disk, &["-v"]).contains("No problems found"));
        let info = sgdisk(&disk, &["-i", "3"]);
        assert!(
            info.contains("RESCUE") && info.contains(&format!("Last sector: {}", (199 << 11) - 1)),
            "{info}"
        );
        assert_eq!(grow(disk.as_file(), size, 512, 3).unwrap(), None, "it is as long as it can be");
        // The table at the end alone is enough, too.
        disk.as_file().write_all_at(&[0; 1024], 512).unwrap();
        assert!(sgdisk(&disk, &["-p"]).contains("RESCUE"));
    }

    #[test]
    fn only_the_last_partition_of_a_sound_table_grows() {
        let disk = small();
        disk.as_file().set_len(200 << 20).unwrap();
        assert_eq!(grow(disk.as_file(), 200 << 20, 512, 2).unwrap(), None);
        for number in [0, 4, 129] {
            assert!(grow(disk.as_file(), 200 << 20, 512, number).is_err(), "{number}");
        }
        let before = std::fs::read(disk.path()).unwrap();
        disk.as_file().write_all_at(&[1], 1024 + 300).unwrap();
        let error = grow(disk.as_file(), 200 << 20, 512, 3).unwrap_err();
        assert!(error.to_string().contains("checksums"), "{error}");
        disk.as_file().write_all_at(&[0; 512], 512).unwrap();
        assert!(grow(disk.as_file(), 200 << 20, 512, 3).is_err());
        assert_eq!(before[2048..], std::fs::read(disk.path()).unwrap()[2048..]);
    }
}
