//! The stick: what its image holds, and that machines start from it by BIOS and by UEFI, with Secure Boot too.
//!
//! Each test makes its stick from what `make initramfs` has left, as `make stick` does, and sees it start as a machine
//! would: by its boot sector or by the loader in its boot partition.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::machine::{Attachment, Disk, Firmware, Machine, Scene, disk};
use crate::tools::{Said, assert_same, assert_same_image, built, len, ours, run, text, wait_for};
use crate::volumes::Place;

/// The initramfs may have so many bytes.
const INITRAMFS_MAX: u64 = 16 << 20;

/// Makes a stick with these variables.
pub fn make(image: &Path, variables: &[(&str, &str)]) -> Said {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("initramfs/stick.sh");
    let mut make = Command::new(script);
    for unset in ["CONF", "DATA", "SIZE", "STICK_ID"] {
        make.env_remove(unset);
    }
    make.env("TIMEOUT", "1").envs(variables.iter().copied());
    run(make.arg(built("musl/ntfsrescue")).arg(built("initramfs")).arg(image))
}

/// A partition of a stick.
pub struct Partition {
    /// In bytes.
    pub start: u64,
    pub len: u64,
    pub uuid: String,
}

impl Partition {
    pub fn of(image: &Path, number: usize) -> Partition {
        let table = run(Command::new("sfdisk").arg("--json").arg(image)).ok().stdout;
        let table: Value = serde_json::from_str(&table).unwrap();
        let partition = &table["partitiontable"]["partitions"][number - 1];
        let bytes = |key: &str| partition[key].as_u64().unwrap() * 512;
        let uuid = partition["uuid"].as_str().unwrap().to_lowercase();
        Partition { start: bytes("start"), len: bytes("size"), uuid }
    }

    /// What it holds, as a file.
    pub fn take(&self, image: &Path, to: PathBuf) -> PathBuf {
        let mut bytes = vec![0; self.len as usize];
        std::fs::File::open(image).unwrap().read_exact_at(&mut bytes, self.start).unwrap();
        std::fs::write(&to, bytes).unwrap();
        to
    }
}

/// A file of the boot partition.
fn on_boot_partition(image: &Path, name: &str) -> String {
    let volume = format!("{}@@{}", text(image), Partition::of(image, 2).start);
    run(Command::new("mtype").args(["-i", &volume, &format!("::{name}")])).ok().stdout
}

#[test]
fn the_same_id_makes_the_same_stick() {
    let place = Place::new();
    let at = |name: &str| place.at(name);
    let variables =
        |data: &'static str, id: &'static str| [("DATA", data), ("STICK_ID", id), ("SIZE", "32M")];
    let start = Instant::now();
    for data in ["ext4", "exfat"] {
        make(&at(data), &variables(data, "one")).ok();
    }
    // FAT counts in two seconds.
    wait_for("other times of files", || start.elapsed() > Duration::from_millis(2100));
    for data in ["ext4", "exfat"] {
        make(&at("again"), &variables(data, "one")).ok();
        assert_same(&at("again"), &at(data));
    }

    // Another id: no identifier is the same.
    make(&at("other"), &variables("ext4", "two")).ok();
    for number in 1..=3 {
        let [one, two] = [at("ext4"), at("other")].map(|image| Partition::of(&image, number).uuid);
        assert_ne!(one, two);
    }
    let identifier = |image: &Path, number| {
        let partition = Partition::of(image, number).take(image, at("partition"));
        run(Command::new("blkid").args(["-p", "-s", "UUID", "-o", "value"]).arg(partition)).ok().stdout
    };
    for number in [2, 3] {
        assert_ne!(identifier(&at("ext4"), number), identifier(&at("other"), number));
    }
    let disk_id = |image: &str| run(Command::new("sfdisk").arg("--disk-id").arg(at(image))).ok().stdout;
    assert_ne!(disk_id("ext4"), disk_id("other"));
}

#[test]
fn a_stick_is_whole() {
    let place = Place::new();
    let image = place.at("stick");
    make(&image, &[]).ok();
    run(Command::new("sgdisk").arg("--verify").arg(&image)).ok().says("No problems found");
    let boot = Partition::of(&image, 2);
    run(Command::new("fsck.fat").arg("-n").arg(boot.take(&image, place.at("boot")))).ok();
    let data = Partition::of(&image, 3);
    run(Command::new("e2fsck").arg("-fn").arg(data.take(&image, place.at("data")))).ok();
    assert_eq!(data.len, 64 << 20);
    assert_eq!(data.start + data.len + (1 << 20), len(&image));

    let label = run(Command::new("mlabel").args(["-s", "-i", text(&place.at("boot")), "::"])).ok();
    assert_eq!(label.stdout.trim(), "Volume label is RESCUEBOOT");
    let menu = on_boot_partition(&image, "/boot/grub/grub.cfg");
    assert!(menu.contains(&format!("ntfsrescue.stick={} ", boot.uuid)) && !menu.contains('@'), "{menu}");
    for (name, from) in [("vmlinuz", "vmlinuz"), ("initramfs.cpio.zst", "initramfs.cpio.zst")] {
        let to = place.at(name);
        let volume = ["-i", text(&place.at("boot"))].map(str::to_owned);
        run(Command::new("mcopy").args(&volume).arg(format!("::/boot/{name}")).arg(&to)).ok();
        assert_same(&to, &built(&format!("initramfs/{from}")));
    }
    let initramfs = len(&place.at("initramfs.cpio.zst"));
    assert!(initramfs <= INITRAMFS_MAX, "the initramfs has {initramfs} bytes");

    // What asks for nothing is as right as any other configuration, and so are its examples.
    let explained = on_boot_partition(&image, "/ntfsrescue.conf");
    assert!(explained.lines().all(|line| line.starts_with('#')), "{explained}");
    let examples = explained.split("\n#\n").filter(|part| part.starts_with("# action"));
    let examples: Vec<_> = examples.map(|part| part.replace("# ", "")).collect();
    assert_eq!(examples.len(), 2, "{explained}");
    for configuration in examples.iter().chain([&explained]) {
        std::fs::write(place.at("conf"), configuration).unwrap();
        ours(["--check-config", text(&place.at("conf"))]).ok();
    }
}

#[test]
fn what_is_wrong_makes_no_stick() {
    let place = Place::new();
    let (conf, image) = (place.at("job.conf"), place.at("stick"));
    std::fs::write(&conf, "action = save\ntraget = LABEL=RESCUE:/x.img\n").unwrap();
    for (variable, value, message) in [
        ("CONF", text(&conf), "traget"),
        ("CONF", "/nowhere.conf", "/nowhere.conf"),
        ("DATA", "zfs", "wanted ext4 or exfat"),
        ("SIZE", "31M", "wanted at least 32M"),
        ("SIZE", "much", "SIZE=much"),
        ("TIMEOUT", "soon", "TIMEOUT=soon"),
    ] {
        let said = make(&image, &[(variable, value)]).exits(1);
        assert!(said.stderr.lines().last().unwrap().contains(message), "{}", said.stderr);
        assert_eq!(place.names(), ["job.conf"]);
    }
}

/// Tells what started the machine, and whether all is there that a data partition with exFAT is made by.
const WHAT_STARTED: &str = "mount -t securityfs s /sys/kernel/security; cat /sys/kernel/security/lockdown; \
    mount -t efivarfs e /sys/firmware/efi/efivars; \
    hexdump -ve '1/1 \"%02x\"' /sys/firmware/efi/efivars/SecureBoot-8be*; /usr/sbin/mkfs.exfat -V; exit";

/// Starts a machine from a stick whose configuration saves a Windows disk to the stick itself.
#[track_caller]
fn saves_to_the_stick(firmware: Firmware, on: Attachment, started: &[&str]) {
    let scene = Scene::new();
    let (conf, stick, windows) = (scene.at("conf"), scene.at("stick"), scene.at("windows.disk"));
    let job = "action = save\nsource = SERIAL=WIN:1\ntarget = LABEL=RESCUE:/saved.img\nthen = shell\n";
    std::fs::write(&conf, format!("{job}then-failed = poweroff\n")).unwrap();
    make(&stick, &[("CONF", text(&conf))]).ok();
    let machine = Machine::from_stick(&stick, firmware).disk(&Disk { on, ..disk(&windows, "WIN") });
    let mut machine = machine.start();
    machine.runs(WHAT_STARTED);
    let console = machine.ends();
    console.ends("result=ok exit=0").says("exfatprogs version");
    for line in started {
        console.says(line);
    }
    let data = Partition::of(&stick, 3).take(&stick, scene.at("data"));
    ours(["-q", "-s", "-o", text(&scene.at("wanted")), text(&scene.at("volume"))]).ok();
    assert_same_image(&scene.take_from(&data, "saved.img"), &scene.at("wanted"));
}

#[test]
fn saves_when_started_by_bios() {
    let started = ["[none] integrity confidentiality", "mounting e on /sys/firmware/efi/efivars failed"];
    saves_to_the_stick(Firmware::Bios, Attachment::AHCI, &started);
}

#[test]
fn saves_when_started_by_uefi() {
    let started = ["[none] integrity confidentiality", "0600000000"];
    saves_to_the_stick(Firmware::Uefi, Attachment::NVME, &started);
}

#[test]
fn saves_when_started_under_secure_boot() {
    let started = ["none [integrity] confidentiality", "0600000001"];
    saves_to_the_stick(Firmware::SecureBoot, Attachment::USB, &started);
}

#[test]
fn the_menu_has_a_shell() {
    let place = Place::new();
    let (conf, stick) = (place.at("conf"), place.at("stick"));
    // The job is printed before it begins, and time is left to stop it.
    let job = "action = save\r\nsource = SERIAL=WIN:1\r\ntarget = LABEL=RESCUE:/saved.img\r\n";
    std::fs::write(&conf, job).unwrap();
    make(&stick, &[("CONF", text(&conf)), ("TIMEOUT", "60")]).ok();
    let before = std::fs::read(&stick).unwrap();
    let mut machine = Machine::from_stick(&stick, Firmware::Bios).start();
    machine.prints("ntfsrescue.conf on the partition RESCUEBOOT:");
    machine.prints("source = SERIAL=WIN:1\n");
    machine.prints("Seconds left: ");
    machine.types("s");
    machine.runs("exit");
    machine.ends().ends("result=ok exit=0").says("no disk was touched");
    assert!(std::fs::read(&stick).unwrap() == before, "the stick has changed");
}
