//! Keeps a disk's partition tables beside the image: what a volume alone does not hold when a new disk is to be made
//! like the old one.
//!
//! `SERIAL.table` begins with a page of text, a line for each stretch, and goes on with their bytes as they are:
//!
//! ```text
//! ntfsrescue table 1
//! disk serial "WD-1234" model "WDC WD10" size 1000204886016 sector 512
//! stretch from 0 length 1048576 at 4096
//! stretch from 1000204869120 length 16896 at 1052672
//! unreadable from 65536 length 65536
//! ```
//!
//! `dd if=SERIAL.table bs=512 skip=8 count=2048 of=/dev/NEW` puts the first stretch back.

use super::spec::Escaped;
use super::table::Table;
use crate::extent::ByteRange;
use crate::io::{Loss, Source};

/// Bytes of the text, padded with newlines.
const TEXT: usize = 4096;

/// Bytes from the beginning of a disk: where every partitioning tool begins the first partition.
const HEAD: u64 = 1 << 20;

/// Sectors of a GPT's backup: 32 of entries (of 512 bytes) and the header.
const BACKUP_SECTORS: u64 = 33;

/// Bytes of one read.
const BLOCK: u64 = 64 << 10;

/// Reads that may fail: a disk's time is for its data.
const MAX_FAILED: u32 = 2;

/// The tables of `disk`, as `SERIAL.table` holds them.
pub fn take(disk: &dyn Source, serial: &str, model: &str) -> Vec<u8> {
    let len = disk.len();
    let sector = u64::from(disk.sector_size());
    let mut stretches = vec![ByteRange { pos: 0, len: HEAD.min(len) }];
    let mut taken = Vec::new();
    let mut unreadable = Vec::new();
    read(disk, ByteRange { pos: 0, len: HEAD.min(len) }, &mut taken, &mut unreadable);
    let backup = BACKUP_SECTORS.max((16 << 10) / sector + 1) * sector;
    let tail = ByteRange { pos: len.saturating_sub(backup), len: backup.min(len) };
    // A GPT that is damaged at both ends is worth keeping too.
    let is_mbr = Table::read(disk).is_some_and(|table| !table.is_gpt());
    if !is_mbr && tail.pos >= HEAD {
        stretches.push(tail);
        read(disk, tail, &mut taken, &mut unreadable);
    }
    let (serial, model) = (Escaped(serial), Escaped(model));
    let mut text = format!(
        "ntfsrescue table 1\ndisk serial \"{serial}\" model \"{model}\" size {len} sector {sector}\n"
    );
    let mut at = TEXT as u64;
    for ByteRange { pos, len } in stretches {
        text.push_str(&format!("stretch from {pos} length {len} at {at}\n"));
        at += len;
    }
    for ByteRange { pos, len } in unreadable {
        text.push_str(&format!("unreadable from {pos} length {len}\n"));
    }
    let mut kept = text.into_bytes();
    kept.resize(TEXT, b'\n');
    kept.extend(taken);
    kept
}

/// Adds the bytes of a stretch, zeros for what cannot be read.
fn read(disk: &dyn Source, range: ByteRange, into: &mut Vec<u8>, unreadable: &mut Vec<ByteRange>) {
    let mut nr_failed = 0;
    let mut pos = range.pos;
    while pos < range.end() {
        let len = BLOCK.min(range.end() - pos);
        let mut block = vec![0; len as usize];
        let failed = if nr_failed < MAX_FAILED { disk.read_at(pos, &mut block).err() } else { None };
        if let Some(error) = &failed {
            // A disk that has gone is not asked again.
            nr_failed = if error.loss() == Loss::Gone { MAX_FAILED } else { nr_failed + 1 };
            block.fill(0);
        }
        if failed.is_some() || nr_failed >= MAX_FAILED {
            unreadable.push(ByteRange { pos, len });
        }
        into.extend(block);
        pos += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::memory::Memory;

    fn kept(bad: &[u64]) -> (Vec<u8>, Vec<u8>) {
        let mut bytes: Vec<u8> = (0..4 << 20).map(|at: u32| (at / 512) as u8).collect();
        bytes[..512].fill(0);
        let disk = Memory::of(bytes, bad);
        (take(&disk, "S\n", "M"), disk.bytes)
    }

    #[test]
    fn both_ends_of_a_disk_are_kept() {
        let (kept, disk) = kept(&[]);
        let text = String::from_utf8(kept[..TEXT].to_vec()).unwrap();
        let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
        assert_eq!(
            lines,
            [
                "ntfsrescue table 1",
                "disk serial \"S\\n\" model \"M\" size 4194304 sector 512",
                "stretch from 0 length 1048576 at 4096",
                "stretch from 4177408 length 16896 at 1052672",
            ]
        );
        assert_eq!(kept[TEXT..TEXT + (1 << 20)], disk[..1 << 20]);
        assert_eq!(kept[TEXT + (1 << 20)..], disk[4_177_408..]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let (kept, disk) = kept(&[137]);
        let text = String::from_utf8_lossy(&kept[..TEXT]);
        assert!(text.contains("unreadable from 65536 length 65536\n"), "{text}");
        assert_eq!(kept[TEXT + 65_536..TEXT + 131_072], [0; 65_536]);
        assert_eq!(kept[TEXT + 131_072..TEXT + (1 << 20)], disk[131_072..1 << 20]);
    }
}
