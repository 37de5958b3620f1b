//! Superblocks made by hand, with the fields that the probe reads.

use super::*;
use crate::io::memory::Memory;
use crate::ntfs::boot::tests::boot_sector;

/// Of the boot sectors that are made here.
const SERIAL: &str = "1122334455667788";

/// What is found on a disk of 1 MiB that has these bytes at these places.
fn found(fields: &[(usize, &[u8])], bad: &[u64]) -> Found {
    let mut bytes = vec![0; 1 << 20];
    for (at, field) in fields {
        bytes[*at..*at + field.len()].copy_from_slice(field);
    }
    probe(&Memory::of(bytes, bad), None)
}

fn content(kind: Kind, label: &str, uuid: &str) -> Found {
    Found::Content(Content::new(kind, label.into(), uuid.into()))
}

const UUID: [u8; 16] = [0xa4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff];
const UUID_TEXT: &str = "a4010203-0405-0607-0809-0a0b0c0d0eff";

#[test]
fn ext_by_its_features() {
    for (compatible, incompatible, kind) in [(0, 2, Kind::Ext2), (4, 2, Kind::Ext3), (4, 0x42, Kind::Ext4)] {
        let fields: [(usize, &[u8]); 5] = [
            (1024 + 56, &[0x53, 0xef]),
            (1024 + 92, &[compatible]),
            (1024 + 96, &[incompatible]),
            (1024 + 104, &UUID),
            (1024 + 120, b"RESCUE"),
        ];
        assert_eq!(found(&fields, &[]), content(kind, "RESCUE", UUID_TEXT));
        assert_eq!(found(&fields, &[0, 9]), content(kind, "RESCUE", UUID_TEXT), "with bad sectors around it");
    }
}

#[test]
fn xfs_and_btrfs() {
    let xfs = found(&[(0, b"XFSB"), (32, &UUID), (108, b"twelve bytes")], &[]);
    assert_eq!(xfs, content(Kind::Xfs, "twelve bytes", UUID_TEXT));
    let at = 64 << 10;
    let btrfs = found(&[(at + 32, &UUID), (at + 64, b"_BHRfS_M"), (at + 299, b"B")], &[]);
    assert_eq!(btrfs, content(Kind::Btrfs, "B", UUID_TEXT));
}

#[test]
fn fat_by_its_root_directory_or_its_boot_sector() {
    let end: (usize, &[u8]) = (510, &[0x55, 0xaa]);
    // Sectors of 512, clusters of 4, one reserved, two FATs of 8, media f8: the root directory is sector 17.
    let boot: (usize, &[u8]) = (11, &[0, 2, 4, 1, 0, 2, 0, 2, 0, 8, 0xf8, 8, 0]);
    let serial: (usize, &[u8]) = (39, &[0x8c, 0xd8, 0xec, 0x01]);
    let fat16 = [boot, serial, (43, b"IN BOOT    "), end];
    assert_eq!(found(&fat16, &[]), content(Kind::Vfat, "IN BOOT", "01EC-D88C"));
    let root: (usize, &[u8]) = (17 * 512 + 32, b"IN ROOT    \x08");
    let other: (usize, &[u8]) = (17 * 512, b"FILE    TXT\x20");
    let with_root = [&fat16[..], &[other, root]].concat();
    assert_eq!(found(&with_root, &[]), content(Kind::Vfat, "IN ROOT", "01EC-D88C"));
    assert_eq!(found(&[boot, serial, (43, b"NO NAME    "), end], &[]), content(Kind::Vfat, "", "01EC-D88C"));

    // FAT32: FATs of 16 sectors, root directory in cluster 3, sector 1 + 2 * 16 + 4.
    let boot: (usize, &[u8]) = (11, &[0, 2, 4, 1, 0, 2, 0, 0, 0, 0, 0xf8, 0, 0]);
    let fat32: [(usize, &[u8]); 7] = [
        boot,
        (32, &[0, 8]),
        (36, &[16]),
        (44, &[3]),
        (67, &[1, 0, 0, 0xa0]),
        end,
        (37 * 512, b"\xe5OLD       \x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0NEW        \x08"),
    ];
    assert_eq!(found(&fat32, &[]), content(Kind::Vfat, "NEW", "A000-0001"));
}

#[test]
fn exfat_has_its_label_in_the_root_directory() {
    // Clusters of 2 sectors begin at sector 64; the root directory is cluster 5.
    let fields: [(usize, &[u8]); 6] = [
        (3, b"EXFAT   "),
        (88, &[64]),
        (96, &[5]),
        (100, &[0x34, 0x12, 0xcd, 0xab]),
        (108, &[9, 1]),
        (70 * 512, b"\x83\x02\xe9\0x\0"),
    ];
    assert_eq!(found(&fields, &[]), content(Kind::Exfat, "éx", "ABCD-1234"));
    assert_eq!(found(&fields[..5], &[]), content(Kind::Exfat, "", "ABCD-1234"));
    let far = [&fields[..2], &[(96, &[0xffu8; 4] as &[u8]), (108, &[255, 255])]].concat();
    assert_eq!(found(&far, &[]), content(Kind::Exfat, "", "0000-0000"));
}

#[test]
fn ntfs_by_either_boot_sector() {
    let boot = boot_sector(512, 8, 2047, -10);
    // Nothing tells that such a volume is clean.
    let unknown = Content::new(Kind::Ntfs, String::new(), SERIAL.into());
    let serial = Found::Content(unknown.clone());
    let backup = Found::Content(Content { told_by: ToldBy::Backup, ..unknown });
    assert_eq!(found(&[(0, &boot)], &[]), serial, "although its MFT is nothing");
    assert_eq!(found(&[(2047 * 512, &boot)], &[]), backup, "the first one overwritten");
    assert_eq!(found(&[(2047 * 512, &boot)], &[0, 2]), backup, "the first one unreadable");
    let bitlocker = found(&[(3, b"-FVE-FS-")], &[]);
    assert_eq!(bitlocker, Found::Content(Content::other("BitLocker")));
}

#[test]
fn a_backup_is_found_in_a_partition_longer_than_its_volume() {
    // 20 MiB and a bit, with a volume that ends so many sectors before its end.
    let nr_sectors = 40_963;
    let searched = |before: usize, bad: &[u64]| {
        let at = nr_sectors - before;
        let mut bytes = vec![0xe5; nr_sectors * 512];
        let boot = boot_sector(512, 8, at as u64, -10);
        bytes[at * 512..at * 512 + 512].copy_from_slice(&boot);
        probe(&Memory::of(bytes, bad), None)
    };
    let backup =
        Content { told_by: ToldBy::Backup, ..Content::new(Kind::Ntfs, String::new(), SERIAL.into()) };
    for before in [1, 2, 3, 4, 2050, 2052, 16 << 11] {
        assert_eq!(searched(before, &[]), Found::Content(backup.clone()), "{before} sectors before the end");
    }
    let unknown = Found::Content(Content::other("unknown data"));
    assert_eq!(searched(18 << 11, &[]), unknown, "too far away");
    assert_eq!(searched(3000, &[nr_sectors as u64 - 100]), unknown, "behind a read that fails");
}

#[test]
fn the_partition_type_tells_what_cannot_be_read() {
    let basic = Some(PartType::Mbr(7));
    let unreadable = |bad: &[u64], part_type| probe(&Memory::of(vec![0; 20 << 20], bad), part_type);
    let by_type =
        Content { told_by: ToldBy::PartType, ..Content::new(Kind::Ntfs, String::new(), String::new()) };
    assert_eq!(unreadable(&[0, 2, 40_959], basic), Found::Content(by_type));
    assert_eq!(unreadable(&[0, 2, 40_959], Some(PartType::Mbr(0x83))), Found::Unreadable);
    assert_eq!(unreadable(&[0, 2, 40_959], None), Found::Unreadable);
    assert_eq!(unreadable(&[0, 2], basic), Found::Unreadable, "the end can be read, and is blank");
    assert_eq!(unreadable(&[], basic), Found::Nothing, "blank");
}

#[test]
fn a_part_of_a_dynamic_disk_is_no_volume() {
    let mut bytes = vec![0; 1 << 20];
    bytes[..512].copy_from_slice(&boot_sector(512, 8, 2047, -10));
    let dynamic = probe(&Memory::of(bytes, &[]), Some(PartType::Mbr(0x42)));
    assert_eq!(dynamic, Found::Content(Content::other("dynamic disk (LDM)")));
}

#[test]
fn only_zeros_are_blank() {
    let unknown = Found::Content(Content::other("unknown data"));
    assert_eq!(found(&[(40_000, b"x")], &[]), unknown, "near the beginning");
    assert_eq!(found(&[(2047 * 512, b"x")], &[]), unknown, "at the end");
    assert_eq!(found(&[], &[100]), unknown, "a sector that may hold anything");
    // A disk whose table was wiped, and not what it told of.
    let mut bytes = vec![0; 4 << 20];
    bytes[(1 << 20) + 3] = b'N';
    assert_eq!(probe(&Memory::of(bytes, &[]), None), unknown, "in the first partition's place");
}

#[test]
fn nothing_is_told_from_unreadable() {
    assert_eq!(found(&[], &[]), Found::Nothing);
    assert_eq!(found(&[], &[0]), Found::Unreadable);
    assert_eq!(probe(&Memory::new(0), None), Found::Nothing);
    let mbr: [(usize, &[u8]); 3] = [(450, &[7]), (458, &[1]), (510, &[0x55, 0xaa])];
    assert_eq!(found(&mbr, &[]), Found::Content(Content::other("partition table")));
}
