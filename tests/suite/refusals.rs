//! Jobs that must be refused: the result line says what is wrong and what is wanted, and every disk of the machine, the
//! stick too, holds afterwards what it held before.
//!
//! A part of them is run by `make test`, one of each kind; `make test-all` runs all.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::edit::Editor;
use crate::machine::{Attachment, Console, Disk, HOSTS, Machine, Scene, disk};
use crate::stick::{Partition, make};
use crate::tools::{assert_same, noise, ours, run, text};
use crate::volumes::Mounted;

/// A job, as on the command line but for the prefix of its keys, and what the machine says of it: the first in its result
/// line, the others anywhere.
struct Row(&'static str, &'static [&'static str]);

/// The disks of the scene and their serial numbers, in the order of their names: /dev/vda and so on.
const DISKS: [&str; 5] = ["A", "B", "SAFE", "MIX", "RAW"];

/// The partitions of the disk MIX: their names, their MiB and their types.
const MIX: [(&str, u64, &str); 6] = [
    ("asleep", 8, "0700"),
    ("dirty", 8, "0700"),
    ("locked", 2, "0700"),
    ("tight", 3, "8300"),
    ("small", 8, "0700"),
    ("swap", 2, "8200"),
];

/// A name that clears the screen.
const HOSTILE: &str = "\x1b[2Jgone";

/// Two disks with the same NTFS volume; one with an ext4 file system called RESCUE, on it an image of the volume and one
/// that is cut off; one with what no job takes; one with data of no known kind.
fn new_scene() -> Scene {
    let scene = Scene::new();
    let at = |name: &str| scene.at(name);
    std::fs::rename(at("windows.disk"), at("A")).unwrap();
    scene.disk_with("B", Some(&at("volume")));
    std::fs::rename(at("safe.disk"), at("SAFE")).unwrap();
    ours(["-q", "-s", "-o", text(&at("i.img")), text(&at("volume"))]).ok();
    let image = std::fs::read(at("i.img")).unwrap();
    std::fs::write(at("cut.img"), &image[..image.len() - 5000]).unwrap();
    for name in ["i.img", "cut.img"] {
        put(&at("SAFE"), &at(name), name);
    }
    make_mix(&scene);
    std::fs::write(at("RAW"), noise(5, 4 << 20)).unwrap();
    scene
}

/// Puts a file on an ext4 file system.
fn put(to: &Path, file: &Path, name: &str) {
    run(Command::new("debugfs").args(["-w", "-R", &format!("write {} {name}", text(file))]).arg(to)).ok();
}

fn make_mix(scene: &Scene) {
    let disk = scene.at("MIX");
    File::create(&disk).unwrap().set_len(40 << 20).unwrap();
    let mut table = Command::new("sgdisk");
    for (number, (name, len, kind)) in (1..).zip(MIX) {
        table.arg(format!("--new={number}:0:+{len}M")).arg(format!("--typecode={number}:{kind}"));
        table.arg(format!("--change-name={number}:{name}"));
    }
    run(table.arg(&disk)).ok();
    for (number, (name, len, _)) in (1..).zip(MIX) {
        let part = scene.at(name);
        File::create(&part).unwrap().set_len(len << 20).unwrap();
        let ntfs = || run(Command::new("mkntfs").args(["-F", "-Q", "-q", "-L", name]).arg(&part)).ok();
        match name {
            "asleep" => {
                ntfs();
                let mounted = Mounted::new(&part, "big_writes");
                std::fs::write(mounted.path().join("hiberfil.sys"), b"hibr and what was in memory").unwrap();
            }
            "dirty" => {
                ntfs();
                Editor::open(&part).make_dirty();
            }
            "locked" => {
                std::fs::write(&part, [&b"\xebR\x90-FVE-FS-"[..], &noise(6, 100_000)].concat()).unwrap()
            }
            "tight" => drop(run(Command::new("mkfs.ext4").args(["-q", "-F", "-L", HOSTILE]).arg(&part)).ok()),
            "swap" => drop(run(Command::new("mkswap").arg(&part)).ok()),
            _ => {}
        }
        let start = Partition::of(&disk, number).start;
        File::options()
            .write(true)
            .open(&disk)
            .unwrap()
            .write_all_at(&std::fs::read(&part).unwrap(), start)
            .unwrap();
    }
}

/// The words of a job, as the kernel's command line has them.
fn line_of(job: &str) -> String {
    job.split(' ').map(|word| format!("ntfsrescue.{word} ")).collect()
}

/// What the disks held before.
struct Before<'a> {
    scene: &'a Scene,
    disks: Vec<&'static str>,
}

impl<'a> Before<'a> {
    fn of(scene: &'a Scene, disks: &[&'static str]) -> Before<'a> {
        for name in disks {
            copy(&scene.at(name), &Before::path(scene, name));
        }
        Before { scene, disks: disks.to_vec() }
    }

    fn path(scene: &Scene, name: &str) -> PathBuf {
        scene.at(&format!("{name}.before"))
    }

    /// All of them hold the same.
    #[track_caller]
    fn assert_same(&self) {
        for name in &self.disks {
            assert_same(&self.scene.at(name), &Before::path(self.scene, name));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("--sparse=always").args([from, to])).ok();
}

/// The machine has refused its job in these words.
#[track_caller]
fn assert_refused(console: &Console, says: &[&str]) {
    console.ends("result=failed exit=1");
    let (why, others) = says.split_first().unwrap();
    assert!(console.result().contains(why), "wanted {why}:\n{}", console.0);
    for line in others {
        console.says(line);
    }
}

/// Boots a machine with the disks of the scene for each row.
#[track_caller]
fn refuses(rows: &[Row]) {
    let scene = new_scene();
    let before = Before::of(&scene, &DISKS);
    for Row(job, says) in rows {
        println!("{job}");
        let files = DISKS.map(|name| scene.at(name));
        let disks = files.iter().zip(DISKS).map(|(file, serial)| disk(file, serial));
        let machine = disks.fold(Machine::new(&line_of(job)), |machine, disk| machine.disk(&disk));
        let console = machine.start().ends();
        assert_refused(&console, says);
        assert!(!console.0.contains(HOSTILE), "{}", console.0);
        before.assert_same();
    }
}

#[test]
fn keys_that_are_wrong() {
    refuses(&[Row(
        "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=B colour=red",
        &["kernel command line: ntfsrescue.colour: unknown key; keys are action, "],
    )]);
}

#[test]
#[ignore = "make test-all"]
fn more_keys_that_are_wrong() {
    refuses(&[
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1",
            &["kernel command line: ntfsrescue.confirm: missing; action=restore needs it"],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=B wait=never",
            &["kernel command line: ntfsrescue.wait: found \"never\", wanted seconds, 0 to 86400"],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=B then=maybe",
            &["ntfsrescue.then: found \"maybe\", wanted poweroff, reboot, halt or shell"],
        ),
    ]);
}

#[test]
fn names_of_none_or_several() {
    refuses(&[
        Row(
            "action=save source=SERIAL=C:1 target=LABEL=RESCUE:/x.img wait=6",
            &[
                "source SERIAL=C:1: nothing here matches, wanted exactly one",
                "/dev/vda: 50.0 MiB, serial \"A\", model \"",
                "/dev/vda1: 48.0 MiB, partition 1 of serial \"A\", PARTUUID \"",
                "type NTFS or exFAT, ntfs, label \"Prüfung\", UUID \"",
                "/dev/vdc: 96.0 MiB, serial \"SAFE\"",
                "PARTLABEL \"locked\", type Microsoft basic data, BitLocker",
                "PARTLABEL \"tight\", type Linux data, ext4, label \"\\u{1b}[2Jgone\"",
                "PARTLABEL \"small\", type Microsoft basic data, blank",
            ],
        ),
        Row(
            "action=save source=LABEL=Prüfung target=LABEL=RESCUE:/x.img wait=6",
            &[
                "source LABEL=Prüfung: 2 match (/dev/vda1, /dev/vdb1), wanted exactly one",
                "/dev/vda: 50.0 MiB, serial \"A\"",
                "/dev/vdb: 50.0 MiB, serial \"B\"",
            ],
        ),
    ]);
}

#[test]
#[ignore = "make test-all"]
fn more_names_of_none_or_several() {
    refuses(&[
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=C:1 confirm=B wait=6",
            &["target SERIAL=C:1: nothing here matches, wanted exactly one", "serial \"B\""],
        ),
        // The only NTFS volumes are small.
        Row(
            "action=save source=auto target=LABEL=RESCUE:/x.img wait=6",
            &["source auto: nothing here matches, wanted exactly one", "serial \"A\""],
        ),
        Row(
            "action=clone source=SERIAL=A:1 target=MODEL=*:1 confirm=B wait=6",
            &["target MODEL=*:1: 3 match (/dev/vda1, /dev/vdb1, /dev/vdd1), wanted exactly one"],
        ),
    ]);
}

#[test]
fn what_would_be_overwritten() {
    refuses(&[
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=A",
            &["confirm does not name the target /dev/vdb1: A is on /dev/vda; nothing was written"],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B confirm=B",
            &[
                "confirm does not name all of /dev/vdb, which holds something: wanted whole:B; nothing was written",
            ],
        ),
        Row(
            "action=clone source=SERIAL=A:1 target=SERIAL=A confirm=whole:A",
            &["target /dev/vda and source /dev/vda1 share bytes, wanted different volumes"],
        ),
    ]);
}

#[test]
#[ignore = "make test-all"]
fn more_that_would_be_overwritten() {
    refuses(&[
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=RAW confirm=RAW",
            &[
                "confirm does not name all of /dev/vde, which holds something: wanted whole:RAW",
                "unknown data",
            ],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=Z",
            &["confirm does not name the target /dev/vdb1: nothing here is called Z"],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=B,A",
            &["confirm does not name the target /dev/vdb1: 2 of B,A are here, wanted one"],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=whole:B",
            &["whole: means a whole disk, and the target is a partition"],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=MODEL=*,SIZE=50M-50M",
            &["2 disks have this model and size, wanted one"],
        ),
        Row(
            "action=clone source=SERIAL=A:1 target=SERIAL=A:1 confirm=A",
            &["target /dev/vda1 and source /dev/vda1 share bytes"],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=SAFE confirm=whole:SAFE",
            &["target /dev/vdc and source /dev/vdc share bytes"],
        ),
        Row(
            "action=restore source=PARTLABEL=tight:/i.img target=PARTLABEL=tight confirm=MIX",
            &["target /dev/vdd4 and source /dev/vdd4 share bytes"],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=B then=reboot",
            &["then=reboot would do the job at each boot: there is no stick"],
        ),
    ]);
}

#[test]
fn images_and_their_room() {
    refuses(&[
        Row(
            "action=restore source=LABEL=RESCUE:/i.img target=PARTLABEL=small confirm=MIX",
            &["/i.img to /dev/vdd5: failed", "target '/dev/vdd5' has 8388608 bytes, but 50331648 are needed"],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/cut.img target=SERIAL=B:1 confirm=B",
            &["/cut.img to /dev/vdb1: failed", "image is cut off at its byte 0x"],
        ),
        Row(
            "action=save source=SERIAL=A:1 target=PARTLABEL=asleep:/x.img",
            &[
                "/dev/vdd1: the NTFS file system is not mounted for writing: Windows is hibernated on it",
                "start it and run 'shutdown /s /f /t 0'",
            ],
        ),
    ]);
}

#[test]
#[ignore = "make test-all"]
fn more_images_and_their_room() {
    refuses(&[
        Row(
            "action=clone source=SERIAL=A:1 target=PARTLABEL=small confirm=MIX",
            &["to /dev/vdd5: failed", "target '/dev/vdd5' has 8388608 bytes, but 50331648 are needed"],
        ),
        Row(
            "action=restore source=LABEL=RESCUE:/none.img target=SERIAL=B:1 confirm=B",
            &["/none.img to /dev/vdb1: there is no such image; nothing was written"],
        ),
        Row(
            "action=restore source=PARTLABEL=swap:/i.img target=SERIAL=B:1 confirm=B",
            &[
                "/dev/vdd6: found swap, wanted a file system for images (ext4, vfat, exfat, ntfs, xfs or btrfs)",
            ],
        ),
        Row(
            "action=save source=SERIAL=A:1 target=PARTLABEL=dirty:/x.img",
            &["/dev/vdd2: the NTFS file system is not mounted for writing: it is marked for a check"],
        ),
        Row(
            "action=save source=PARTLABEL=locked target=LABEL=RESCUE:/x.img",
            &["source /dev/vdd3 is encrypted with BitLocker, wanted an NTFS volume: unlock it first"],
        ),
    ]);
}

#[test]
fn a_target_that_appears_twice_but_late() {
    let scene = new_scene();
    copy(&scene.at("B"), &scene.at("LATE"));
    let before = Before::of(&scene, &["B", "SAFE", "LATE"]);
    let late =
        format!("driver=raw,file.driver=file,file.filename={},node-name=late", text(&scene.at("LATE")));
    let job = line_of("action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=B wait=6");
    let machine = Machine::new(&job).with(&HOSTS).with(&["-blockdev", &late]);
    let machine = machine.disk(&disk(&scene.at("B"), "B")).disk(&disk(&scene.at("SAFE"), "SAFE"));
    let mut machine = machine.start();
    let mut control = machine.control();
    // From here on the job has all that it needs, and waits for what may still come.
    machine.prints("found /dev/vdb");
    control.plug("scsi-hd,bus=hba.0,drive=late,serial=B");
    machine.prints("found /dev/sda");
    let console = machine.ends();
    let says = [
        "target SERIAL=B:1: 2 match (/dev/sda1, /dev/vda1), wanted exactly one",
        "/dev/sda: 50.0 MiB, serial \"B\"",
    ];
    assert_refused(&console, &says);
    before.assert_same();
}

#[test]
fn an_image_that_has_no_room() {
    let scene = new_scene();
    let before = Before::of(&scene, &["A"]);
    let job = line_of("action=save source=SERIAL=A:1 target=PARTLABEL=tight:/x.img");
    let machine = Machine::new(&job).disk(&disk(&scene.at("A"), "A")).disk(&disk(&scene.at("MIX"), "MIX"));
    let says = ["to vdb4:/x.img: failed", "no room for '/mnt/image/x.img.part': its file system has "];
    assert_refused(&machine.start().ends(), &says);
    before.assert_same();
    // The target is mounted by then: a log and a record tell of it there, and there is no image.
    let tight = Partition::of(&scene.at("MIX"), 4).take(&scene.at("MIX"), scene.at("tight.after"));
    let listed = run(Command::new("debugfs").args(["-R", "ls -p"]).arg(tight)).ok().stdout;
    let names =
        listed.lines().filter_map(|line| line.split('/').nth(5)).filter(|name| !name.starts_with('.'));
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["A.table", "lost+found", "x.img.json", "x.img.log"]);
}

#[test]
#[ignore = "make test-all"]
fn an_image_behind_a_link() {
    // Where an absolute link leads is the memory of the machine.
    let scene = new_scene();
    let link = |name: &str| {
        run(Command::new("debugfs")
            .args(["-w", "-R", &format!("symlink {name} /run")])
            .arg(scene.at("SAFE")))
        .ok();
    };
    link("folder");
    link("y.img.log");
    for (name, why) in
        [("folder/x.img", "its folder cannot be made"), ("y.img", "/y.img.log', which is no file")]
    {
        let before = Before::of(&scene, &["A"]);
        let job = format!("action=save source=SERIAL=A:1 target=LABEL=RESCUE:/{name}");
        let machine = Machine::new(&line_of(&job)).disk(&disk(&scene.at("A"), "A"));
        assert_refused(&machine.disk(&disk(&scene.at("SAFE"), "SAFE")).start().ends(), &[why]);
        before.assert_same();
    }
}

/// A machine that was started from a stick: what is on the stick, and the job of the command line.
struct StickRow {
    /// `ntfsrescue.conf` on the boot partition, and on the data partition.
    conf: [&'static str; 2],
    /// On the command line.
    job: &'static str,
    /// Is there a copy of it?
    is_twice: bool,
    /// See [`Row`].
    says: &'static [&'static str],
}

/// Nothing special.
const PLAIN: StickRow = StickRow { conf: ["", ""], job: "wait=6", is_twice: false, says: &[] };

/// Boots a machine with a stick, the disks A and SAFE, and perhaps a copy of the stick for each row.
#[track_caller]
fn refuses_with_stick(rows: &[StickRow]) {
    let scene = new_scene();
    let at = |name: &str| scene.at(name);
    make(&at("new"), &[("SIZE", "32M")]).ok();
    let [boot, data] = [2, 3].map(|number| Partition::of(&at("new"), number));
    for StickRow { conf, job, is_twice, says } in rows {
        println!("{conf:?} {job}");
        copy(&at("new"), &at("STICK"));
        if !conf[0].is_empty() {
            std::fs::write(at("conf"), conf[0]).unwrap();
            let volume = format!("{}@@{}", text(&at("STICK")), boot.start);
            run(Command::new("mcopy").args(["-o", "-i", &volume, text(&at("conf")), "::/ntfsrescue.conf"]))
                .ok();
        }
        if !conf[1].is_empty() {
            std::fs::write(at("conf"), conf[1]).unwrap();
            let part = data.take(&at("STICK"), at("data"));
            put(&part, &at("conf"), "ntfsrescue.conf");
            let stick = File::options().write(true).open(at("STICK")).unwrap();
            stick.write_all_at(&std::fs::read(part).unwrap(), data.start).unwrap();
        }
        // Larger than the image: a data partition that is used would grow.
        File::options().write(true).open(at("STICK")).unwrap().set_len(200 << 20).unwrap();
        copy(&at("STICK"), &at("COPY"));
        let disks = if *is_twice { &["A", "SAFE", "STICK", "COPY"][..] } else { &["A", "SAFE", "STICK"] };
        let before = Before::of(&scene, disks);
        let line = format!("ntfsrescue.stick={} {}", boot.uuid, line_of(job));
        let machine = disks.iter().fold(Machine::new(&line).with(&HOSTS), |machine, serial| {
            let on = if ["STICK", "COPY"].contains(serial) { Attachment::USB } else { Attachment::VIRTIO };
            machine.disk(&Disk { on, ..disk(&at(serial), serial) })
        });
        assert_refused(&machine.start().ends(), says);
        before.assert_same();
    }
}

#[test]
fn what_a_stick_is_not_for() {
    refuses_with_stick(&[
        StickRow {
            job: "action=restore source=SERIAL=SAFE:0:/i.img target=SERIAL=STICK confirm=whole:STICK",
            says: &["target /dev/sda is on the stick that this was booted from, which is never overwritten"],
            ..PLAIN
        },
        StickRow {
            conf: ["action = restore\n", "action = save\n"],
            says: &[
                "found a configuration in ntfsrescue.conf on the stick's boot partition and in ntfsrescue.conf on the stick's data partition, wanted only one",
            ],
            ..PLAIN
        },
        StickRow {
            is_twice: true,
            says: &[
                "2 disks have the stick's PARTUUID ",
                " (/dev/sda, /dev/sdb), wanted one: unplug the other",
            ],
            ..PLAIN
        },
    ]);
}

#[test]
#[ignore = "make test-all"]
fn more_that_a_stick_is_not_for() {
    const RESTORE: &str =
        "action = restore\nsource = SERIAL=SAFE:0:/i.img\ntarget = SERIAL=STICK:3\nconfirm = STICK\n";
    refuses_with_stick(&[
        StickRow {
            job: "action=restore source=SERIAL=SAFE:0:/i.img target=SERIAL=STICK:2 confirm=STICK",
            says: &["target /dev/sda2 is on the stick that this was booted from"],
            ..PLAIN
        },
        StickRow {
            conf: [RESTORE, ""],
            says: &["target /dev/sda3 is on the stick that this was booted from"],
            ..PLAIN
        },
        StickRow {
            job: "action=clone source=SERIAL=A:1 target=SERIAL=STICK@157286400+1048576 confirm=STICK",
            says: &["on the stick that this was booted from"],
            ..PLAIN
        },
        StickRow {
            job: "action=save source=SERIAL=A:1 target=SERIAL=STICK:2:/x.img",
            says: &[
                "target /dev/sda2 is a part of the stick that images are not written to, wanted its data partition",
            ],
            ..PLAIN
        },
        // Nothing is marked, and the data partition does not grow, for a job that is refused.
        StickRow {
            job: "action=restore source=SERIAL=SAFE:0:/i.img target=SERIAL=A confirm=A",
            says: &["confirm does not name all of /dev/vda, which holds something: wanted whole:A"],
            ..PLAIN
        },
        StickRow {
            conf: ["# a comment\ncolour = red\n", ""],
            says: &[
                "ntfsrescue.conf on the stick's boot partition, line 2: colour: unknown key; keys are action, ",
            ],
            ..PLAIN
        },
        StickRow {
            conf: ["", "action = shell\nthen = maybe\n"],
            says: &[
                "ntfsrescue.conf on the stick's data partition, line 2: then: found \"maybe\", wanted poweroff, reboot, halt or shell",
            ],
            ..PLAIN
        },
    ]);
}

#[test]
#[ignore = "make test-all"]
fn a_stick_that_is_not_here() {
    refuses(&[Row(
        "stick=0123abcd-02 action=restore source=LABEL=RESCUE:/i.img target=SERIAL=B:1 confirm=B",
        &[
            "the stick that this was booted from (PARTUUID 0123abcd-02) is not here, wanted it plugged in",
            "serial \"A\"",
        ],
    )]);
}
