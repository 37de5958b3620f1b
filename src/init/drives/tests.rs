//! Drives made by hand, and the lists of them.

use super::super::spec::Confirm;
use super::*;

#[test]
fn drives_are_told_from_the_rest() {
    for drive in ["sda", "sdaa", "vda", "nvme0n1", "mmcblk0", "xvda", "hda", "pmem0", "nbd0"] {
        assert!(is_drive(drive), "{drive}");
    }
    for other in
        ["loop0", "ram1", "sr0", "zram0", "dm-0", "md127", "fd0", "nvme0c0n1", "mmcblk0boot0", "mmcblk0rpmb"]
    {
        assert!(!is_drive(other), "{other}");
    }
}

/// A drive of 1 GiB with partitions of this number, start and size.
fn bare(name: &str, serial: &str, parts: &[(u32, u64, u64)]) -> Drive {
    let part = |&(number, start, size): &(u32, u64, u64)| Part {
        name: format!("{name}{number}"),
        number,
        start,
        size,
        part_label: String::new(),
        part_uuid: String::new(),
        part_type: None,
        found: Found::Pending,
        held: None,
    };
    let (name, serials) = (name.to_owned(), vec![serial.to_owned()]);
    let parts = [(0, 0, 1 << 30)].iter().chain(parts).map(part).collect();
    Drive { name, size: 1 << 30, model: String::new(), serials, parts, is_stick: false }
}

/// What is to be shown for a clone between two stretches: drive, number, what is in the way.
fn hidden(drives: &[Drive], source: &str, target: &str) -> Vec<(String, u32, Vec<u32>)> {
    let confirm = Confirm::parse("x").unwrap();
    let (source, target) = (DeviceSpec::source(source).unwrap(), DeviceSpec::target(target).unwrap());
    let task = Task::Clone { source, target, confirm };
    let hidden = hidden_ranges(&task, &drives.iter().collect::<Vec<_>>());
    hidden.into_iter().map(|one| (one.drive.name.clone(), one.number, one.in_the_way)).collect()
}

#[test]
fn stretches_get_free_numbers() {
    let mut drives =
        vec![bare("vda", "A", &[(1, 4096, 8192), (255, 1 << 20, 1 << 20)]), bare("vdb", "B", &[])];
    let name = |name: &str, number, in_the_way: &[u32]| (name.to_owned(), number, in_the_way.to_vec());
    assert_eq!(
        hidden(&drives, "SERIAL=A@8192+4096", "SERIAL=A@65536+512"),
        [name("vda", 254, &[1]), name("vda", 253, &[])]
    );
    assert_eq!(
        hidden(&drives, "SERIAL=B@0+512", "SERIAL=A@8192+512"),
        [name("vdb", 255, &[]), name("vda", 254, &[])]
    );
    assert_eq!(hidden(&drives, "SERIAL=A@4096+8192", "/dev/vdb"), [], "it is shown");
    assert_eq!(hidden(&drives, "SERIAL=A@1073741824+512", "/dev/vdb"), [], "behind the end");
    assert_eq!(hidden(&drives, "SERIAL=C@0+512", "/dev/vdb"), [], "not here");
    drives.push(bare("vdc", "A", &[]));
    assert_eq!(hidden(&drives, "SERIAL=A@0+512", "/dev/vdb"), [], "here twice");
}

#[test]
fn lists_escape_what_strangers_wrote() {
    let content = Content::new(Kind::Ntfs, "a\x1b[2J".into(), "12".into());
    let part = Part {
        name: "vda1".into(),
        number: 1,
        start: 0,
        size: 3 << 29,
        part_label: "p".into(),
        part_uuid: "u".into(),
        part_type: Some(PartType::Mbr(7)),
        held: Some("is mounted on /x".into()),
        found: Found::Content(content),
    };
    let drive = Drive {
        name: "vda".into(),
        size: 1 << 20,
        model: "M".into(),
        serials: vec!["S".into(), "T".into()],
        parts: vec![part],
        is_stick: true,
    };
    assert_eq!(
        Line(&drive, None).to_string(),
        "/dev/vda: 1.0 MiB, serial \"S\" or \"T\", model \"M\", the stick that this was booted from"
    );
    assert_eq!(
        Line(&drive, drive.parts.first()).to_string(),
        "/dev/vda1: 1.5 GiB, partition 1 of serial \"S\", PARTUUID \"u\", PARTLABEL \"p\", type NTFS or \
         exFAT, ntfs, label \"a\\u{1b}[2J\", UUID \"12\", is mounted on /x"
    );
}
