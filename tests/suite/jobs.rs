//! Jobs in the bootable system: every volume of a machine saved in one boot, each file system that takes images, and
//! an unfinished save of another day.
//!
//! What lies beside an image is looked at too: log, map, record and the tables of the disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::attachments::{SLOWLY, slow_disk};
use crate::edit::Editor;
use crate::machine::{Attachment, Console, Disk, HOSTS, Machine, Mounted, Scene, disk, safe};
use crate::tools::{Loop, assert_same, assert_same_image, len, noise, ntfsclone, ours, run, shell, text};
use crate::volumes::{self, Place, fill, mkntfs};

/// A disk with NTFS volumes, one partition each.
struct Volumes {
    serial: &'static str,
    on: Attachment,
    /// Bytes of a sector.
    sector_size: u32,
    table: &'static str,
    /// MiB of each volume.
    sizes: &'static [u64],
    /// What is wrong.
    fault: Fault,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// A sector in the data of a file cannot be read.
    BadSector,
    /// `$MFT` and its mirror are overwritten.
    NoMft,
}

const DOS: &str = "type=7";
const GPT: &str = "type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7";

#[rustfmt::skip]
const DISKS: [Volumes; 6] = [
    Volumes { serial: "AHCI", on: Attachment::AHCI, sector_size: 512, table: DOS, sizes: &[40], fault: Fault::None },
    Volumes { serial: "NVME", on: Attachment::NVME, sector_size: 512, table: GPT, sizes: &[36], fault: Fault::BadSector },
    Volumes { serial: "SCSI", on: Attachment::SCSI, sector_size: 512, table: GPT, sizes: &[32, 24], fault: Fault::None },
    Volumes { serial: "USB", on: Attachment::USB, sector_size: 512, table: DOS, sizes: &[28], fault: Fault::None },
    Volumes { serial: "4KN", on: Attachment::SCSI_4KN, sector_size: 4096, table: GPT, sizes: &[44], fault: Fault::None },
    Volumes { serial: "BROKEN", on: Attachment::VIRTIO, sector_size: 512, table: DOS, sizes: &[20], fault: Fault::NoMft },
];

/// The images of these, the smallest volume first.
const SMALLEST_FIRST: [&str; 7] = ["BROKEN-1", "SCSI-2", "USB-1", "SCSI-1", "NVME-1", "AHCI-1", "4KN-1"];

const MIB: u64 = 1 << 20;

impl Volumes {
    fn disk(&self, place: &Place) -> PathBuf {
        place.at(&format!("{}.disk", self.serial))
    }

    /// The name of the image of each volume, also of the file that holds the volume.
    fn names(&self) -> impl Iterator<Item = String> {
        (1..=self.sizes.len()).map(|number| format!("{}-{number}", self.serial))
    }

    /// Makes volumes and disk: the disk's sectors that cannot be read.
    fn make(&self, place: &Place) -> Vec<u64> {
        let disk = File::create(self.disk(place)).unwrap();
        let mut table = if self.table == DOS { "label: dos" } else { "label: gpt" }.to_owned();
        let mut bad = Vec::new();
        let mut start = MIB;
        for (name, size) in self.names().zip(self.sizes.iter().map(|size| size * MIB)) {
            let volume = place.at(&name);
            mkntfs(&volume, size, self.sector_size, 4096);
            fill(&volume, 30);
            match self.fault {
                Fault::None => {}
                Fault::BadSector => bad.push(start / 512 + bad_sector(&volume)),
                Fault::NoMft => {
                    let editor = Editor::open(&volume);
                    let mirror = editor.first_cluster_of(1, 0x80);
                    editor.write(editor.record_pos(0), &[0; 8192]);
                    editor.write(mirror, &[0; 4096]);
                }
            }
            disk.write_all_at(&std::fs::read(&volume).unwrap(), start).unwrap();
            let [from, len] = [start, size].map(|bytes| bytes / u64::from(self.sector_size));
            table.push_str(&format!("\\nstart={from}, size={len}, {}", self.table));
            start += size;
        }
        disk.set_len(start + MIB).unwrap();
        let device = Loop::attach(&self.disk(place), self.sector_size);
        let sfdisk = "sfdisk --quiet --no-reread --no-tell-kernel --wipe never";
        shell(&format!("printf '{table}\\n' | {sfdisk} {}", text(&device.0))).ok();
        bad
    }
}

/// A sector in the data of a file of a filled volume, not the first of its cluster.
fn bad_sector(volume: &Path) -> u64 {
    let volume = std::fs::read(volume).unwrap();
    let data = volume.chunks(4096).position(|cluster| cluster.starts_with(&noise(2, 600))).unwrap();
    data as u64 * 8 + 3
}

/// The image of a volume, as it is saved here.
fn image_of(volume: &Path, to: PathBuf) -> PathBuf {
    ours(["-q", "-s", "-o", text(&to), text(volume)]).ok();
    to
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// A map says that all was done.
#[track_caller]
fn assert_finished(map: &Path) {
    run(Command::new("ddrescuelog").arg("--show-status").arg(map)).ok().says("current status: finished");
}

/// The stretches that a table names have the bytes of the disk there.
#[track_caller]
fn assert_table(table: &Path, disk: &Path, serial: &str, nr_stretches: usize) {
    let (table, disk) = (std::fs::read(table).unwrap(), std::fs::read(disk).unwrap());
    let head = String::from_utf8(table[..4096].to_vec()).unwrap();
    assert!(head.starts_with(&format!("ntfsrescue table 1\ndisk serial \"{serial}\" ")), "{head}");
    let mut lines = head.trim_end().lines().skip(2);
    for line in lines.by_ref().take(nr_stretches) {
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!((words[0], words.len()), ("stretch", 7), "{head}");
        let [from, len, at] = [2, 4, 6].map(|i| words[i].parse::<usize>().unwrap());
        assert!(table[at..at + len] == disk[from..from + len], "{line}");
    }
    assert_eq!(lines.next(), None, "{head}");
}

#[test]
fn saves_all_volumes_of_all_disks() {
    let place = Place::new();
    safe(&place.at("safe.disk"), 256 * MIB);
    let job =
        "ntfsrescue.action=save ntfsrescue.source=all ntfsrescue.target=LABEL=RESCUE:/{serial}-{part}.img";
    let mut machine = Machine::new(job).with(&HOSTS);
    for volumes in &DISKS {
        let (bad, file) = (volumes.make(&place), volumes.disk(&place));
        machine = machine.disk(&Disk { file: &file, serial: volumes.serial, bad: &bad, on: volumes.on });
    }
    let before = DISKS.map(|volumes| std::fs::read(volumes.disk(&place)).unwrap());
    let console = machine.disk(&disk(&place.at("safe.disk"), "SAFE")).start().ends();
    console.ends("result=failed exit=1 7 volumes:");
    console.says("5 saved, 1 saved with lost sectors, which are marked, 1 failed\n");
    let places = SMALLEST_FIRST.map(|name| console.0.find(&format!("/mnt/image/{name}.img.part")).unwrap());
    assert!(places.is_sorted(), "{places:?}");
    assert!(before == DISKS.map(|volumes| std::fs::read(volumes.disk(&place)).unwrap()), "a source changed");

    let saved = Mounted::new(&place.at("safe.disk"));
    for volumes in &DISKS {
        let Volumes { serial, table, fault, .. } = volumes;
        let nr_stretches = if *table == GPT { 2 } else { 1 };
        assert_table(&saved.at(&format!("{serial}.table")), &volumes.disk(&place), serial, nr_stretches);
        for (i, name) in volumes.names().enumerate() {
            println!("{name}");
            let [image, map, log] =
                ["img", "img.map", "img.log"].map(|ending| saved.at(&format!("{name}.{ending}")));
            let record = json(&saved.at(&format!("{name}.img.json")));
            let source = &record["source"];
            assert_eq!((&source["serial"], &source["partition"]), (&(*serial).into(), &(i + 1).into()));
            assert_eq!(source["size"], volumes.sizes[i] * MIB);
            assert_eq!(source["disk_size"], len(&volumes.disk(&place)));
            let (result, exit) = match fault {
                Fault::None => ("ok", 0),
                Fault::BadSector => ("damaged", 3),
                Fault::NoMft => ("failed", 1),
            };
            assert_eq!((&record["result"], &record["exit_status"]), (&result.into(), &exit.into()));
            let log = std::fs::read_to_string(log).unwrap();
            assert!(log.contains(&format!("ntfsrescue: result={result} exit={exit} save of /dev/")), "{log}");
            let others = SMALLEST_FIRST.iter().filter(|other| **other != name);
            assert!(others.clone().all(|other| !log.contains(&format!("/{other}.img.part"))), "{log}");
            if *fault == Fault::NoMft {
                assert!(!image.exists(), "an image of what cannot be saved");
                continue;
            }
            assert_finished(&map);
            let wanted = image_of(&place.at(&name), place.at("wanted.img"));
            if *fault == Fault::None {
                assert_same_image(&image, &wanted);
            } else {
                assert_eq!(record["rescue"]["bytes"]["bad"], 512);
                assert_marked(&place, &image, &wanted, bad_sector(&place.at(&name)));
            }
            std::fs::remove_file(wanted).unwrap();
        }
    }
    let mut names: Vec<_> =
        saved.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| name.to_str().unwrap().contains(".part"));
    assert!(names.is_empty(), "left: {names:?}");
}

/// An image restores to what the other one restores to, with the mark at this sector.
#[track_caller]
fn assert_marked(place: &Place, image: &Path, healthy: &Path, sector: u64) {
    let [restored, wanted] = ["restored", "restored-healthy"].map(|name| place.at(name));
    for (image, to) in [(image, &restored), (healthy, &wanted)] {
        ntfsclone(["-q", "-r", "-O", text(to), text(image)]).ok();
    }
    let mut mark = [b'?'; 512];
    mark[..10].copy_from_slice(b"BadSectoR\0");
    Editor::open(&wanted).write(sector * 512, &mark);
    assert_same(&restored, &wanted);
}

/// A file system to save to.
struct Target {
    /// MiB of the disk that it fills.
    size: u64,
    make: &'static str,
    /// Finds nothing wrong with it afterwards.
    check: &'static str,
    /// Copies all that it holds from the disk to a folder.
    read: fn(&Path, &Path),
}

const VFAT: Target = Target {
    size: 96,
    make: "mkfs.vfat -F 32 -n RESCUE",
    check: "fsck.fat -n",
    read: |disk, to| _ = run(Command::new("mcopy").args(["-s", "-i", text(disk), "::*", text(to)])).ok(),
};
const EXFAT: Target = Target {
    size: 96,
    make: "mkfs.exfat -L RESCUE",
    check: "fsck.exfat -n",
    read: |disk, to| copy(Mounted::exfat(Loop::attach(disk, 512)).path(), to),
};
const NTFS: Target = Target {
    size: 96,
    make: "mkntfs -Q -F -q -L RESCUE",
    check: "ntfsresize --no-progress-bar --info",
    read: |disk, to| copy(volumes::Mounted::new(disk, "ro").path(), to),
};
const XFS: Target =
    Target { size: 320, make: "mkfs.xfs -q -L RESCUE", check: "xfs_repair -n", read: read_by_the_kernel };
const BTRFS: Target =
    Target { size: 160, make: "mkfs.btrfs -q -L RESCUE", check: "btrfs check", read: read_by_the_kernel };

fn read_by_the_kernel(disk: &Path, to: &Path) {
    copy(Mounted::new(disk).path(), to);
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-r").arg(from.join(".")).arg(to)).ok();
}

impl Target {
    /// A Windows disk saved to it: the image as it is saved here, and a folder with all that is on the target then.
    #[track_caller]
    fn takes(&self, options: &str) -> (Scene, PathBuf) {
        let scene = Scene::new();
        let (windows, target, folder) = (scene.at("windows.disk"), scene.at("target"), scene.at("folder"));
        File::create(&target).unwrap().set_len(self.size * MIB).unwrap();
        shell(&format!("{} {}", self.make, text(&target))).ok();
        let job =
            "ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 ntfsrescue.target=LABEL=RESCUE:/saved.img";
        let job = format!("{job} ntfsrescue.options=\"{options}\"");
        let machine = Machine::new(&job).disk(&disk(&windows, "WIN")).disk(&disk(&target, "TARGET"));
        machine.start().ends().ends("result=ok exit=0");
        shell(&format!("{} {}", self.check, text(&target))).ok();
        std::fs::create_dir(&folder).unwrap();
        (self.read)(&target, &folder);
        assert_eq!(json(&folder.join("saved.img.json"))["result"], "ok");
        assert_finished(&folder.join("saved.img.map"));
        assert_table(&folder.join("WIN.table"), &windows, "WIN", 1);
        image_of(&scene.at("volume"), scene.at("wanted.img"));
        (scene, folder)
    }

    #[track_caller]
    fn takes_an_image(&self) {
        let (scene, folder) = self.takes("");
        assert_same_image(&folder.join("saved.img"), &scene.at("wanted.img"));
    }
}

#[test]
fn saves_in_parts_to_vfat() {
    let (scene, folder) = VFAT.takes("--split 1M");
    let names = shell(&format!("cd {} && ls", text(&folder))).ok().stdout;
    assert!(!names.contains(".part") && names.contains("saved.img.003"), "{names}");
    shell(&format!("cd {} && cat saved.img.0* >saved.img", text(&folder))).ok();
    assert_same_image(&folder.join("saved.img"), &scene.at("wanted.img"));
}

#[test]
fn saves_to_ntfs() {
    NTFS.takes_an_image();
}

#[test]
#[ignore = "make test-all"]
fn saves_to_exfat() {
    EXFAT.takes_an_image();
}

#[test]
#[ignore = "make test-all"]
fn saves_to_xfs() {
    XFS.takes_an_image();
}

#[test]
#[ignore = "make test-all"]
fn saves_to_btrfs() {
    BTRFS.takes_an_image();
}

/// Both saves below are of this name.
const DATED: &str = "ntfsrescue.target=LABEL=RESCUE:/{serial}-{part}-{date}.img";

#[test]
fn a_save_of_another_day_is_gone_on_with() {
    let scene = Scene::new();
    let (windows, other, safe) = (scene.at("windows.disk"), scene.at("other.disk"), scene.at("safe.disk"));
    stop_a_save_in_2001(&scene);

    // The same of another disk: by its map it is not one of it.
    let part = "2001-01-01.img.part";
    let with = |action: &dyn Fn(&Mounted)| action(&Mounted::with(Loop::attach(&safe, 512), "rw"));
    with(&|saved| {
        for ending in ["img.part", "img.map"] {
            let [from, to] =
                ["WIN", "OTHER"].map(|serial| saved.at(&format!("{serial}-1-2001-01-01.{ending}")));
            std::fs::copy(from, to).unwrap();
        }
    });
    let foreign = std::fs::read(Mounted::new(&safe).at(&format!("OTHER-1-{part}"))).unwrap();

    let bad = bad_sector(&scene.at("volume"));
    scene.disk_with("other.disk", Some(&scene.at("volume")));
    let failing = Disk { bad: &[crate::machine::START + bad], ..disk(&other, "OTHER") };
    let job = format!("ntfsrescue.action=save ntfsrescue.source=all {DATED}");
    let machine = Machine::new(&job).disk(&disk(&windows, "WIN")).disk(&failing);
    let console = machine.disk(&disk(&safe, "SAFE")).start().ends();
    console.ends("result=damaged exit=3 2 volumes:");
    console.says("1 saved, 1 saved with lost sectors, which are marked\n");
    assert_eq!(console.0.matches("Going on where the map says.").count(), 1, "{}", console.0);

    let saved = Mounted::new(&safe);
    let wanted = image_of(&scene.at("volume"), scene.at("wanted.img"));
    assert_same_image(&saved.at("WIN-1-2001-01-01.img"), &wanted);
    assert!(std::fs::read(saved.at(&format!("OTHER-1-{part}"))).unwrap() == foreign, "it was written to");
    let names = shell(&format!("cd {} && ls *.img", text(saved.path()))).ok().stdout;
    let names: Vec<_> = names.lines().collect();
    let [of_other, "WIN-1-2001-01-01.img"] = names[..] else { panic!("{names:?}") };
    assert!(of_other.starts_with("OTHER-1-20") && !of_other.contains("2001"), "{of_other}");
    let place = Place::new();
    assert_marked(&place, &saved.at(of_other), &wanted, bad);
}

/// Leaves an unfinished save of the Windows disk, on a machine whose clock says 2001.
fn stop_a_save_in_2001(scene: &Scene) -> Console {
    let slow =
        slow_disk(&format!("driver=file,filename={},node-name=below", text(&scene.at("windows.disk"))));
    let slow: Vec<_> = slow.iter().map(String::as_str).collect();
    let mut machine = Machine::new(&format!("ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 {DATED}"))
        .with(&["-rtc", "base=2001-01-01T12:00:00"])
        .with(&slow)
        .with(&["-device", "virtio-blk-pci,drive=slow,serial=WIN"])
        .disk(&disk(&scene.at("safe.disk"), "SAFE"))
        .start();
    let mut control = machine.control();
    control.throttle(SLOWLY);
    machine.has_saved(20.0);
    control.presses_ctrl_alt_del();
    let console = machine.ends();
    console.ends("result=failed exit=6");
    console
}
