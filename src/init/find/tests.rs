//! Two drives as QEMU has them: `vda` with an NTFS partition and an empty one, `vdb` an unpartitioned ext4 disk.

use super::*;
use crate::extent::ByteRange;

fn content(kind: Kind, label: &str, uuid: &str) -> Found {
    let left = (kind == Kind::Ntfs).then_some(Left::InOrder);
    Found::Content(Content { left, ..Content::new(kind, label.into(), uuid.into()) })
}

fn part(name: &str, number: u32, found: Found) -> Part {
    let part_uuid = if number == 0 { String::new() } else { format!("uuid-{name}") };
    // The whole disk of 8 GiB, or 2 GiB for each partition behind one another.
    let (start, size) = if number == 0 { (0, 8 << 30) } else { (u64::from(number) << 31, 2 << 30) };
    let part_label = String::new();
    Part { name: name.into(), number, start, size, part_label, part_uuid, part_type: None, found, held: None }
}

fn drive(name: &str, serial: &str, parts: Vec<Part>) -> Drive {
    Drive {
        name: name.into(),
        size: 8 << 30,
        is_stick: false,
        model: format!("Model {name}"),
        serials: vec![serial.into()],
        parts,
    }
}

fn machine() -> Vec<Drive> {
    vec![
        drive(
            "vda",
            "A",
            vec![
                part("vda", 0, content(Kind::Other("partition table"), "", "")),
                part("vda1", 1, content(Kind::Ntfs, "Windows", "00AB")),
                part("vda2", 2, Found::Nothing),
            ],
        ),
        drive("vdb", "B", vec![part("vdb", 0, content(Kind::Ext4, "RESCUE", "e-4"))]),
        drive("vdc", "C", vec![part("vdc", 0, Found::Nothing)]),
    ]
}

fn found(spec: &str, drives: &[Drive]) -> Result<String, String> {
    let spec = DeviceSpec::target(spec).or_else(|_| DeviceSpec::source(spec)).unwrap();
    pick("source", &spec, drives, |_| true)
        .map(|pick| pick.part.name.clone())
        .map_err(|error| error.to_string())
}

fn restore(target: &str, confirm: &str) -> Task {
    Task::Restore {
        source: ImageSpec::parse("LABEL=RESCUE:/x.img").unwrap(),
        target: DeviceSpec::target(target).unwrap(),
        confirm: Confirm::parse(confirm).unwrap(),
    }
}

fn judged(task: &Task, drives: &[Drive]) -> Result<(), String> {
    let devices = find(task, drives).map_err(|error| error.to_string())?;
    judge(task, &devices, drives).map_err(|error| error.to_string())
}

#[test]
fn every_form_finds_its_device() {
    let drives = machine();
    for (spec, name) in [
        ("/dev/vda2", "vda2"),
        ("UUID=00ab", "vda1"),
        ("LABEL=RESCUE", "vdb"),
        ("PARTUUID=UUID-VDA2", "vda2"),
        ("SERIAL=A:2", "vda2"),
        ("SERIAL=A:0", "vda"),
        ("SERIAL=A", "vda"),
        ("MODEL=*vda:1", "vda1"),
        ("auto", "vda1"),
    ] {
        assert_eq!(found(spec, &drives).as_deref(), Ok(name), "{spec}");
    }
}

#[test]
fn none_and_two_are_refused() {
    let mut drives = machine();
    let none = found("LABEL=Rescue", &drives).unwrap_err();
    assert_eq!(
        none,
        "source LABEL=Rescue: nothing here matches, wanted exactly one; the candidates are listed above"
    );
    drives.push(drive("vdd", "B", vec![part("vdd", 0, content(Kind::Ntfs, "RESCUE", "x"))]));
    assert!(found("LABEL=RESCUE", &drives).unwrap_err().contains("2 match (/dev/vdb, /dev/vdd)"));
    assert!(found("SERIAL=B:0", &drives).is_err());
    assert!(found("auto", &drives).is_err());
}

#[test]
fn auto_looks_away_from_the_target() {
    let task = |target: &str| Task::Save {
        source: Volumes::One(DeviceSpec::Auto),
        target: ImageSpec::parse(&format!("{target}:/x")).unwrap(),
    };
    let mut drives = machine();
    assert!(judged(&task("LABEL=RESCUE"), &drives).is_ok());
    drives[1].parts[0].found = content(Kind::Ntfs, "RESCUE", "y");
    assert!(
        judged(&task("LABEL=RESCUE"), &drives).is_ok(),
        "the NTFS volume that is the target does not count"
    );
    assert!(judged(&task("SERIAL=A:2"), &drives).unwrap_err().contains("nothing known"));
}

#[test]
fn a_save_keeps_off_its_source_and_off_dirty_ntfs() {
    let task = |source: &str, target: &str| Task::Save {
        source: Volumes::parse(source).unwrap(),
        target: ImageSpec::parse(&format!("{target}:/x")).unwrap(),
    };
    let mut drives = machine();
    for (source, target) in [("/dev/vda1", "UUID=00AB"), ("/dev/vda", "UUID=00AB")] {
        assert!(judged(&task(source, target), &drives).unwrap_err().contains("share bytes"));
    }
    assert!(judged(&task("/dev/vda2", "UUID=00AB"), &drives).is_ok(), "another partition of the same disk");
    if let Found::Content(content) = &mut drives[0].parts[1].found {
        content.left = Some(Left::Dirty);
    }
    assert!(judged(&task("/dev/vda2", "UUID=00AB"), &drives).unwrap_err().contains("marked for a check"));
}

#[test]
fn an_encrypted_volume_is_no_source() {
    let mut drives = machine();
    drives[0].parts[1].found = content(Kind::Other(BITLOCKER), "", "");
    let save = save("/dev/vda1", "LABEL=RESCUE:/x");
    let clone = Task::Clone {
        source: DeviceSpec::source("/dev/vda1").unwrap(),
        target: DeviceSpec::target("SERIAL=C").unwrap(),
        confirm: Confirm::parse("C").unwrap(),
    };
    for task in [save, clone] {
        assert!(judged(&task, &drives).unwrap_err().contains("/dev/vda1 is encrypted with BitLocker"));
    }
}

#[test]
fn confirm_must_name_the_target_and_nothing_else() {
    let drives = machine();
    for (target, confirm) in [
        ("/dev/vda2", "A"),
        ("/dev/vda2", "uuid-vda2"),
        ("/dev/vda2", "X,UUID-vda2,Y"),
        ("/dev/vda2", "MODEL=*a,SIZE=1G-8G"),
        ("SERIAL=C", "C"),
        ("SERIAL=C", "whole:C"),
        ("SERIAL=C", "MODEL=Model vdc,SIZE=8G-8G"),
        ("SERIAL=A", "whole:A"),
    ] {
        assert_eq!(judged(&restore(target, confirm), &drives), Ok(()), "{target} {confirm}");
    }
    for (target, confirm, why) in [
        ("/dev/vda2", "X", "nothing here is called X"),
        ("/dev/vda2", "C", "C is on /dev/vdc"),
        ("/dev/vda2", "uuid-vda1", "uuid-vda1 is on /dev/vda"),
        ("/dev/vda2", "A,C", "2 of A,C are here, wanted one"),
        ("/dev/vda2", "whole:A", "the target is a partition"),
        ("/dev/vda2", "MODEL=*,SIZE=1G-8G", "3 disks have this model and size"),
        ("/dev/vda2", "MODEL=*,SIZE=1-2", "0 disks have this model and size"),
        ("/dev/vda2", "MODEL=*c,SIZE=1G-8G", "those of /dev/vdc"),
        ("SERIAL=A", "A", "wanted whole:A"),
        ("SERIAL=A", "MODEL=*a,SIZE=1G-8G", "wanted whole:A"),
        ("SERIAL=A", "whole:C", "whole:C is on /dev/vdc"),
    ] {
        let refused = judged(&restore(target, confirm), &drives).unwrap_err();
        assert!(refused.contains(why) && refused.ends_with("nothing was written"), "{refused}");
    }
}

#[test]
fn a_whole_disk_that_cannot_be_read_counts_as_full() {
    let mut drives = machine();
    for found in [Found::Pending, Found::Unreadable, content(Kind::Ntfs, "", "")] {
        drives[2].parts[0].found = found;
        assert!(judged(&restore("SERIAL=C", "C"), &drives).unwrap_err().contains("wanted whole:C"));
        assert!(judged(&restore("SERIAL=C", "whole:C"), &drives).is_ok());
    }
}

#[test]
fn a_restore_keeps_off_its_image() {
    let drives = machine();
    assert!(judged(&restore("/dev/vdb", "whole:B"), &drives).unwrap_err().contains("share bytes"));
}

/// A machine with a stick: `vds` with an ESP, a data partition that images lie on, and one for neither.
fn with_stick() -> Vec<Drive> {
    let mut drives = machine();
    let mut parts = vec![
        part("vds", 0, content(Kind::Other("partition table"), "", "")),
        part("vds1", 1, content(Kind::Vfat, "BOOT", "1-1")),
        part("vds2", 2, content(Kind::Ext4, "DATA", "e-5")),
        part("vds3", 3, content(Kind::Ntfs, "NTFS", "00FF")),
    ];
    parts[1].part_type = Some(PartType::Mbr(0xef));
    parts[2].part_type = Some(PartType::Mbr(0x83));
    drives.push(drive("vds", "S", parts));
    mark_stick(&mut drives, Some("UUID-vds1")).unwrap();
    drives
}

fn save(source: &str, target: &str) -> Task {
    Task::Save { source: Volumes::parse(source).unwrap(), target: ImageSpec::parse(target).unwrap() }
}

#[test]
fn the_stick_is_the_only_disk_with_its_partition() {
    let marked = |drives: &[Drive]| -> Vec<String> {
        drives.iter().filter(|drive| drive.is_stick).map(|drive| drive.name.clone()).collect()
    };
    let mut drives = with_stick();
    assert_eq!(marked(&drives), ["vds"]);
    drives[1].parts.push(part("vdb1", 1, Found::Nothing));
    drives[1].parts[1].part_uuid = "uuid-vds1".into();
    let two = mark_stick(&mut drives, Some("uuid-vds1")).unwrap_err();
    assert_eq!(
        two.to_string(),
        "2 disks have the stick's PARTUUID uuid-vds1 (/dev/vdb, /dev/vds), wanted one: unplug the other"
    );
    assert_eq!(marked(&drives), ["vdb", "vds"]);
    for wanted in ["uuid-x", ""] {
        assert_eq!(mark_stick(&mut drives, Some(wanted)), Err(StickError::Absent(wanted.into())));
        assert!(marked(&drives).is_empty());
    }
    assert_eq!(mark_stick(&mut drives, None), Ok(()));
}

#[test]
fn the_stick_is_never_overwritten() {
    let drives = with_stick();
    for target in ["/dev/vds", "/dev/vds1", "/dev/vds2", "/dev/vds3"] {
        let refused = judged(&restore(target, "whole:S"), &drives).unwrap_err();
        assert_eq!(
            refused,
            format!("target {target} is on the stick that this was booted from, which is never overwritten")
        );
        let clone = Task::Clone {
            source: DeviceSpec::source("/dev/vda1").unwrap(),
            target: DeviceSpec::target(target).unwrap(),
            confirm: Confirm::parse("whole:S").unwrap(),
        };
        assert_eq!(judged(&clone, &drives).unwrap_err(), refused);
    }
}

#[test]
fn only_the_sticks_data_partition_takes_images() {
    let drives = with_stick();
    assert_eq!(judged(&save("/dev/vda1", "LABEL=DATA:/x"), &drives), Ok(()));
    for target in ["LABEL=BOOT", "/dev/vds", "LABEL=NTFS"] {
        let refused = judged(&save("/dev/vda1", &format!("{target}:/x")), &drives).unwrap_err();
        assert!(refused.contains("wanted its data partition"), "{refused}");
    }
}

#[test]
fn auto_and_all_look_away_from_the_stick_and_the_target() {
    let mut drives = with_stick();
    let names = |task: &Task, drives: &[Drive]| -> Result<Vec<String>, String> {
        match find(task, drives).map_err(|error| error.to_string())? {
            Devices::Save { sources, .. } => Ok(sources.iter().map(|pick| pick.part.name.clone()).collect()),
            _ => panic!(),
        }
    };
    let each = "LABEL=RESCUE:/{serial}-{part}.img";
    assert_eq!(names(&save("auto", "LABEL=RESCUE:/x"), &drives).unwrap(), ["vda1"]);
    assert_eq!(names(&save("all", each), &drives).unwrap(), ["vda1"]);
    drives[0].parts[2].found = content(Kind::Ntfs, "Data", "00AC");
    drives[0].parts[2].size = 1 << 20;
    drives[2].parts[0].found = content(Kind::Ntfs, "Whole", "00AD");
    assert_eq!(names(&save("all", each), &drives).unwrap(), ["vda2", "vda1", "vdc"], "the smallest first");
    assert_eq!(judged(&save("all", each), &drives), Ok(()));
    drives[1].parts.push(part("vdb1", 1, content(Kind::Ntfs, "Old", "00AE")));
    assert_eq!(names(&save("all", each), &drives).unwrap().len(), 3, "not beside the target");
    let none = names(&save("all", each), &drives[1..2]).unwrap_err();
    assert!(none.starts_with("source all: nothing here matches, wanted at least one NTFS volume"), "{none}");
}

#[test]
fn each_of_all_has_its_own_file() {
    let mut drives = machine();
    drives[2].parts[0].found = content(Kind::Ntfs, "", "");
    let task = |name: &str| save("all", &format!("LABEL=RESCUE:/{name}{{serial}}-{{part}}.img"));
    assert_eq!(judged(&task(""), &drives), Ok(()));
    drives[2].parts[0].number = 1;
    for (a, b) in [("", ""), ("Disk 1", "disk?1")] {
        drives[0].serials = vec![a.into()];
        drives[2].serials = vec![b.into()];
        let refused = judged(&task(""), &drives).unwrap_err();
        assert!(refused.contains("/dev/vda1 and /dev/vdc would be saved to the same file /"), "{refused}");
    }
    assert_eq!(judged(&task("{uuid}"), &drives), Ok(()));
}

#[test]
fn what_is_in_use_is_not_overwritten() {
    let drives = machine();
    let held = |name: &str| {
        let mut drives = drives.clone();
        let parts = drives.iter_mut().flat_map(|drive| &mut drive.parts);
        parts.filter(|part| part.name == name).for_each(|part| part.held = Some("is mounted on /x".into()));
        drives
    };
    for (target, used) in
        [("/dev/vda2", "vda2"), ("/dev/vda", "vda"), ("/dev/vda", "vda1"), ("/dev/vdc", "vdc")]
    {
        assert_eq!(
            judged(&restore(target, "whole:A,whole:C"), &held(used)).unwrap_err(),
            format!("target {target} cannot be overwritten: /dev/{used} is mounted on /x")
        );
    }
    assert_eq!(judged(&restore("/dev/vda2", "A"), &held("vda1")), Ok(()), "its neighbour");
    assert_eq!(judged(&save("/dev/vda1", "LABEL=RESCUE:/x"), &held("vdb")), Ok(()), "images lie on it");
}

#[test]
fn partitions_of_a_hostile_table_share_bytes() {
    let mut drives = machine();
    drives[0].parts[2].start = drives[0].parts[1].start + 512;
    let clone = Task::Clone {
        source: DeviceSpec::source("/dev/vda1").unwrap(),
        target: DeviceSpec::target("/dev/vda2").unwrap(),
        confirm: Confirm::parse("A").unwrap(),
    };
    assert!(judged(&clone, &drives).unwrap_err().contains("share bytes"));
    assert!(judged(&restore("/dev/vda2", "A"), &drives).unwrap_err().contains("shares bytes with /dev/vda1"));
    drives[0].parts[1].held = Some("is mounted on /x".into());
    assert!(judged(&restore("/dev/vda2", "A"), &drives).unwrap_err().contains("/dev/vda1 is mounted on /x"));
    drives[0].parts[1].size = u64::MAX;
    assert!(judged(&clone, &drives).unwrap_err().contains("share bytes"));
}

#[test]
fn a_stretch_is_the_partition_that_was_shown_for_it() {
    let mut drives = machine();
    let spec =
        |pos: u64, len: u64| DeviceSpec::Range(super::super::cmdline::text("A"), ByteRange { pos, len });
    let restore = |target: DeviceSpec| Task::Restore {
        source: ImageSpec::parse("LABEL=RESCUE:/x.img").unwrap(),
        target,
        confirm: Confirm::parse("A").unwrap(),
    };
    assert_eq!(judged(&restore(spec(2 << 30, 2 << 30)), &drives), Ok(()));
    for (pos, len) in [(2 << 30, 1 << 30), (1 << 30, 2 << 30)] {
        assert!(judged(&restore(spec(pos, len)), &drives).unwrap_err().contains("nothing here matches"));
    }
    // Over a partition table nothing is restored but a whole disk.
    for (start, size) in [(0, 4096), (16384, 1 << 20), (7 << 30, 1 << 30), (7 << 30, (1 << 30) - 4096)] {
        let mut shown = part("vda255", 255, Found::Nothing);
        // An MBR gives any number a PARTUUID.
        (shown.start, shown.size) = (start, size);
        drives[0].parts.truncate(3);
        drives[0].parts.push(shown);
        let refused = judged(&restore(spec(start, size)), &drives).unwrap_err();
        assert!(refused.contains("/dev/vda255 holds the disk's partition table"), "{refused}");
    }
    drives[0].parts[3].part_type = Some(PartType::Mbr(7));
    assert_eq!(judged(&restore(spec(7 << 30, (1 << 30) - 4096)), &drives), Ok(()), "the table knows it");
    drives[0].parts[3].part_type = None;
    drives[0].parts[3].start = 1 << 20;
    drives[0].parts[3].size = 1 << 20;
    assert_eq!(judged(&restore(spec(1 << 20, 1 << 20)), &drives), Ok(()));
}

#[test]
fn ntfs_takes_images_only_where_it_was_left_in_order() {
    let mut drives = machine();
    for (left, why) in [
        (Some(Left::Dirty), "marked for a check"),
        (Some(Left::Asleep), "hibernated"),
        (Some(Left::Open), "fast startup"),
        (None, "too damaged"),
    ] {
        if let Found::Content(content) = &mut drives[0].parts[1].found {
            content.left = left;
        }
        let refused = judged(&save("/dev/vda2", "UUID=00AB:/x"), &drives).unwrap_err();
        assert!(refused.starts_with("/dev/vda1: the NTFS file system is not mounted for writing: "));
        assert!(refused.contains(why), "{refused}");
        assert_eq!(judged(&save("/dev/vda1", "LABEL=RESCUE:/x"), &drives), Ok(()), "as a source");
    }
}
