//! Tables made by hand on small disks, whole, damaged and hostile.

use super::*;
use crate::io::memory::Memory;

impl Memory {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A GPT with these entries (number, type, first and last sector), its header and entries at these sectors.
    fn gpt(&mut self, sector: usize, header: usize, entries: usize, used: &[(usize, &str, u64, u64)]) {
        for (number, kind, first, last) in used {
            let at = entries * sector + (number - 1) * 128;
            self.put(at, &bytes_of(kind));
            self.put(at + 16, &[*number as u8; 16]);
            self.put(at + 32, &first.to_le_bytes());
            self.put(at + 40, &last.to_le_bytes());
        }
        let crc = crc32fast::hash(&self.bytes[entries * sector..entries * sector + 4 * 128]);
        let at = header * sector;
        self.put(at, b"EFI PART");
        self.put(at + 12, &92u32.to_le_bytes());
        self.put(at + 24, &(header as u64).to_le_bytes());
        self.put(at + 72, &(entries as u64).to_le_bytes());
        self.put(at + 80, &4u32.to_le_bytes());
        self.put(at + 84, &128u32.to_le_bytes());
        self.put(at + 88, &crc.to_le_bytes());
        self.put(at + 16, &[0; 4]);
        let crc = crc32fast::hash(&self.bytes[at..at + 92]);
        self.put(at + 16, &crc.to_le_bytes());
    }

    /// An entry of the MBR at a sector.
    fn mbr(&mut self, sector: usize, index: usize, kind: u8, first: u32, nr: u32) {
        let at = sector * 512 + 446 + index * 16;
        self.put(sector * 512 + 510, &[0x55, 0xaa]);
        self.put(at + 4, &[kind]);
        self.put(at + 8, &first.to_le_bytes());
        self.put(at + 12, &nr.to_le_bytes());
    }
}

/// The bytes of a GUID: the inverse of [`guid`].
fn bytes_of(guid: &str) -> [u8; 16] {
    let digits: String = guid.chars().filter(|c| *c != '-').collect();
    let mut bytes: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap()).collect();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes.try_into().unwrap()
}

fn shown(table: &Table) -> Vec<(u32, u64, u64)> {
    let sectors = |entry: &&Entry| (entry.number, entry.range.pos / 512, entry.range.len / 512);
    table.distinct().iter().map(sectors).collect()
}

const UUID: &str = "02020202-0202-0202-0202-020202020202";

#[test]
fn gpt_from_either_end() {
    for (header, entries) in [(1, 2), (63, 62)] {
        let mut disk = Memory::new(64);
        disk.gpt(512, header, entries, &[(2, BASIC_DATA, 34, 40)]);
        let table = Table::read(&disk).unwrap();
        assert_eq!(table.part_uuid(2, 34 * 512).as_deref(), Some(UUID));
        for (number, start) in [(2, 0), (1, 34 * 512), (0, 0), (5, 0)] {
            assert_eq!(table.part_uuid(number, start), None);
        }
        assert!(table.entry(2, 34 * 512).unwrap().kind.may_be_ntfs());
        assert_eq!(shown(&table), [(2, 34, 7)]);
    }
}

#[test]
fn the_backup_stands_in_for_what_is_lost_or_torn() {
    let mut disk = Memory::new(64);
    disk.gpt(512, 1, 2, &[(1, BASIC_DATA, 34, 40)]);
    disk.gpt(512, 63, 62, &[(2, BASIC_DATA, 34, 40)]);
    let number = |disk: &Memory| Table::read(disk).map(|table| table.distinct()[0].number);
    assert_eq!(number(&disk), Some(1));
    disk.bad = vec![0];
    assert_eq!(number(&disk), Some(1), "without the MBR");
    for bad in [1, 2] {
        disk.bad = vec![0, bad];
        assert_eq!(number(&disk), Some(2), "sector {bad} cannot be read");
    }
    disk.bad.clear();
    for torn in [512 + 16, 512 + 60, 1024 + 33] {
        disk.bytes[torn] ^= 1;
        assert_eq!(number(&disk), Some(2), "byte {torn} is wrong");
        disk.bytes[torn] ^= 1;
    }
    disk.bytes[512 + 16] ^= 1;
    disk.bytes[63 * 512 + 16] ^= 1;
    assert_eq!(number(&disk), None);
}

#[test]
fn a_table_written_for_other_sectors_is_understood() {
    let mut disk = Memory::new(1024);
    disk.gpt(4096, 1, 2, &[(1, BASIC_DATA, 10, 19)]);
    assert_eq!(shown(&Table::read(&disk).unwrap()), [(1, 80, 80)]);
}

#[test]
fn mbr_by_signature_and_number() {
    let mut disk = Memory::new(64);
    disk.put(440, &0x1234_abcdu32.to_le_bytes());
    disk.put(510, &[0x55, 0xaa]);
    assert_eq!(Table::read(&disk), None, "no entry");
    disk.mbr(0, 0, 7, 3, 9);
    let table = Table::read(&disk).unwrap();
    assert_eq!(table.part_uuid(2, 0).as_deref(), Some("1234abcd-02"));
    assert_eq!(table.part_uuid(1, 3 * 512).as_deref(), Some("1234abcd-01"));
    assert_eq!(table.entry(1, 3 * 512).unwrap().kind, PartType::Mbr(7));
    disk.mbr(0, 0, PROTECTIVE, 3, 9);
    assert_eq!(Table::read(&disk), None, "protects nothing");
    assert_eq!(Table::read(&Memory::new(0)), None);
}

#[test]
fn what_the_kernel_shows_of_a_dynamic_disk_is_part_of_it() {
    let mut disk = Memory::new(64);
    disk.mbr(0, 0, 0x42, 1, 60);
    let table = Table::read(&disk).unwrap();
    assert_eq!(table.part_type(3, 20 * 512), Some(PartType::Mbr(0x42)));
    disk.mbr(0, 0, 7, 1, 60);
    let table = Table::read(&disk).unwrap();
    assert_eq!((table.part_type(1, 512), table.part_type(3, 20 * 512)), (Some(PartType::Mbr(7)), None));
}

#[test]
fn logical_partitions_are_chained() {
    let mut disk = Memory::new(100);
    disk.mbr(0, 0, 7, 1, 9);
    disk.mbr(0, 2, 5, 10, 90);
    disk.mbr(10, 0, 7, 1, 4);
    disk.mbr(10, 1, 5, 20, 30);
    disk.mbr(30, 0, 0x83, 2, 8);
    let primary = (1, 1, 9);
    assert_eq!(shown(&Table::read(&disk).unwrap()), [primary, (5, 11, 4), (6, 32, 8)]);
    // The first one was deleted: a number counts what is there, not the links.
    disk.mbr(10, 0, 0, 0, 0);
    assert_eq!(shown(&Table::read(&disk).unwrap()), [primary, (5, 32, 8)]);
    disk.mbr(10, 0, 7, 1, 4);
    disk.bad = vec![30];
    assert_eq!(shown(&Table::read(&disk).unwrap()), [primary, (5, 11, 4)]);
    disk.bad.clear();
    for back in [0, 20] {
        disk.mbr(30, 1, 5, back, 30);
        assert_eq!(shown(&Table::read(&disk).unwrap()).len(), 3, "a chain that goes to {back}");
    }
}

#[test]
fn hostile_entries_are_left_out() {
    let mut disk = Memory::new(64);
    let used = [
        (1, BASIC_DATA, 10, 20),
        (2, BASIC_DATA, 20, 30), // shares a sector with the first
        (3, BASIC_DATA, 40, 39), // empty
        (4, BASIC_DATA, 60, 64), // ends behind the disk
    ];
    disk.gpt(512, 1, 2, &used);
    assert_eq!(shown(&Table::read(&disk).unwrap()), [(1, 10, 11)]);
    for (first, last) in [(u64::MAX, u64::MAX), (0, u64::MAX), (1 << 55, (1 << 55) + 1), (30, 29)] {
        let mut disk = Memory::new(64);
        disk.gpt(512, 1, 2, &[(1, BASIC_DATA, first, last)]);
        assert_eq!(shown(&Table::read(&disk).unwrap()), [], "{first} to {last}");
    }
    let mut disk = Memory::new(64);
    disk.mbr(0, 0, 7, 60, 5);
    disk.mbr(0, 1, 7, 5, 0);
    disk.mbr(0, 3, 7, u32::MAX, u32::MAX);
    assert_eq!(shown(&Table::read(&disk).unwrap()), []);
}

#[test]
fn types_have_names() {
    let gpt = |guid: &str| PartType::Gpt(bytes_of(guid));
    for (guid, name) in GPT_TYPES {
        assert_eq!(gpt(guid).name(), Some(name));
    }
    assert_eq!(gpt("00000000-0000-0000-0000-000000000001").name(), None);
    assert_eq!(PartType::Mbr(0x27).name(), Some("Windows recovery"));
    assert!(gpt(LDM_DATA).is_dynamic() && PartType::Mbr(0x42).is_dynamic() && !PartType::Mbr(7).is_dynamic());
    assert!(gpt(LINUX_DATA).is_data() && gpt(BASIC_DATA).is_data() && PartType::Mbr(0x0c).is_data());
    assert!(!gpt(EFI_SYSTEM).is_data() && !PartType::Mbr(0xef).is_data());
    assert!(
        PartType::Mbr(7).may_be_ntfs()
            && !PartType::Mbr(0x83).may_be_ntfs()
            && !gpt(EFI_SYSTEM).may_be_ntfs()
    );
}
