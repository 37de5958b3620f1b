//! Two drives as QEMU has them: `vda` with an NTFS partition and an empty one, `vdb` an unpartitioned ext4 disk.

use super::*;

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
