//! Jobs from a stick's configuration, and what the boot after them does: nothing a second time. The stick's data
//! partition, which fills the stick at the first boot. Unattended restores.
//!
//! QEMU starts the kernel itself here and says which stick it came from, as the boot menu does: firmware and menu are
//! tested elsewhere, and a boot takes half the time.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{Attachment, Console, Disk, HOSTS, Machine, Mounted, SIZE, Scene, boot, disk};
use crate::stick::{Partition, make};
use crate::tools::{Loop, assert_same, assert_same_image, assert_zeros_from, noise, ours, run, shell, text};
use crate::volumes;

const MIB: u64 = 1 << 20;

/// The stick is larger than its image by much.
const STICK: u64 = 512 * MIB;

/// The data partition of the image.
const SMALL: u64 = 32 * MIB;

/// The data partition that fills the stick: it begins at 97 MiB, and the table's backup takes the last MiB.
const FULL: u64 = STICK - 98 * MIB;

/// A stick in a machine.
struct Stick(PathBuf);

impl Stick {
    /// A stick as it is after its image was written to it: this configuration, and nothing in its data partition.
    fn new(scene: &Scene, data: &str, configuration: &str) -> Stick {
        let (conf, stick) = (scene.at("conf"), scene.at("stick"));
        std::fs::write(&conf, configuration).unwrap();
        make(&stick, &[("CONF", text(&conf)), ("DATA", data), ("SIZE", "32M")]).ok();
        File::options().write(true).open(&stick).unwrap().set_len(STICK).unwrap();
        Stick(stick)
    }

    fn data(&self) -> Partition {
        Partition::of(&self.0, 3)
    }

    /// The data partition, as a device.
    fn device(&self) -> Loop {
        let data = self.data();
        Loop::attach_part(&self.0, data.start, data.len)
    }

    /// The file system on the data partition, which is ext4.
    fn mounted(&self, options: &str) -> Mounted {
        Mounted::with(self.device(), options)
    }

    /// Writes another configuration.
    fn configure(&self, configuration: &str) {
        let from = self.0.with_extension("conf");
        std::fs::write(&from, configuration).unwrap();
        let volume = format!("{}@@{}", text(&self.0), Partition::of(&self.0, 2).start);
        run(Command::new("mcopy").args(["-o", "-i", &volume, text(&from), "::ntfsrescue.conf"])).ok();
    }

    /// What lies before the data partition: the table, and what boots.
    fn front(&self) -> Vec<u8> {
        let mut front = vec![0; self.data().start as usize];
        File::open(&self.0).unwrap().read_exact_at(&mut front, 0).unwrap();
        front
    }

    /// A machine that was started from it, with one other disk: node 0 of its disks.
    fn machine(&self, other: &Disk<'_>) -> Machine {
        let boot = Partition::of(&self.0, 2).uuid;
        let stick = Disk { on: Attachment::USB, ..disk(&self.0, "STICK") };
        Machine::new(&format!("ntfsrescue.stick={boot}")).with(&HOSTS).disk(other).disk(&stick)
    }

    #[track_caller]
    fn boot(&self, other: &Disk<'_>) -> Console {
        self.machine(other).start().ends()
    }

    /// Table and data partition are in order, and it has this length.
    #[track_caller]
    fn assert_whole(&self, check: &str, data_len: u64) {
        if data_len == FULL {
            run(Command::new("sgdisk").arg("--verify").arg(&self.0)).ok().says("No problems found");
        }
        let device = self.device();
        shell(&format!("{check} {}", text(&device.0))).ok();
        assert_eq!(self.data().len, data_len);
    }
}

const SAVE: &str = "action = save\nsource = SERIAL=WIN:1\ntarget = LABEL=RESCUE:/saved.img\nthen = reboot\n";

/// An image of the scene's volume: `wanted.img`.
fn image(scene: &Scene) -> PathBuf {
    ours(["-q", "-s", "-o", text(&scene.at("wanted.img")), text(&scene.at("volume"))]).ok();
    scene.at("wanted.img")
}

/// All files of a folder but the logs.
fn files_but_for_logs(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let wanted = entries.filter(|path| path.is_file() && path.extension() != Some("log".as_ref()));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    wanted.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn a_stick_grows_at_its_first_save_and_saves_once() {
    let scene = Scene::new();
    let windows = scene.at("windows.disk");
    let before = std::fs::read(&windows).unwrap();
    let stick = Stick::new(&scene, "ext4", SAVE);
    assert_eq!(stick.data().len, SMALL);
    stick.boot(&disk(&windows, "WIN")).ends("result=ok exit=0").says("now fills the stick");
    stick.assert_whole("e2fsck -fn", FULL);
    assert!(std::fs::read(&windows).unwrap() == before, "the source has changed");
    let image = image(&scene);
    let saved = {
        let mounted = stick.mounted("ro");
        assert_same_image(&mounted.at("saved.img"), &image);
        assert!(mounted.size() > FULL / 100 * 95, "the file system did not grow");
        files_but_for_logs(mounted.path())
    };
    let names: Vec<_> = saved.keys().map(String::as_str).collect();
    assert_eq!(names, ["WIN.table", "saved.img", "saved.img.json", "saved.img.map", "saved.img.map.plan"]);
    let front = stick.front();

    // What starts again finds nothing to do, and reads no more of the disk than to find it.
    let machine = stick.machine(&disk(&windows, "WIN")).with(&["-no-shutdown"]).start();
    let mut control = machine.control();
    let read = control.bytes_read_at_the_end(0);
    machine.ends().ends("result=ok exit=0").says("already saved; nothing was read");
    assert!(read < MIB / 2, "{read} bytes were read");
    assert!(saved == files_but_for_logs(stick.mounted("ro").path()), "a file has changed");
    assert!(stick.front() == front, "the stick has changed");
    stick.assert_whole("e2fsck -fn", FULL);
}

#[test]
fn a_stick_with_exfat_grows_too() {
    let scene = Scene::new();
    let windows = scene.at("windows.disk");
    let before = std::fs::read(&windows).unwrap();
    let stick = Stick::new(&scene, "exfat", SAVE);
    stick.boot(&disk(&windows, "WIN")).ends("result=ok exit=0").says("now fills the stick");
    stick.assert_whole("fsck.exfat -n", FULL);
    assert!(std::fs::read(&windows).unwrap() == before, "the source has changed");
    let mounted = Mounted::exfat(stick.device());
    assert_same_image(&mounted.at("saved.img"), &image(&scene));
    assert!(mounted.size() > FULL / 100 * 95, "the file system did not grow");
}

/// A copy of a disk over which the image is restored here.
fn restored_here(scene: &Scene, disk: &str, image: &Path) -> PathBuf {
    let copy = scene.at(&format!("{disk}.wanted"));
    std::fs::copy(scene.at(disk), &copy).unwrap();
    let device = Loop::attach(&copy, 512);
    ours(["-q", "-r", "-O", text(&device.0), text(image)]).ok();
    copy
}

/// What the console says while the target is read back.
const READING_BACK: &str = "Comparing the target with the image";

#[test]
fn a_restore_is_done_once() {
    let scene = Scene::new();
    let image = image(&scene);
    let restore = "action = restore\nsource = LABEL=RESCUE:/saved.img\ntarget = SERIAL=NEW\nthen = reboot\n";
    let stick = Stick::new(&scene, "ext4", &format!("{restore}confirm = NEW\n"));
    std::fs::copy(&image, stick.mounted("rw").at("saved.img")).unwrap();
    // Blank, and larger than the volume.
    let new = scene.at("new.disk");
    File::create(&new).unwrap().set_len(SIZE + 16 * MIB).unwrap();

    // Without a stick there is no place for the mark that it was done.
    let line = "ntfsrescue.action=restore ntfsrescue.source=LABEL=RESCUE:/saved.img \
                ntfsrescue.target=SERIAL=NEW ntfsrescue.confirm=NEW ntfsrescue.then=reboot";
    let console = boot(&[disk(&new, "NEW"), disk(&stick.0, "A")], line);
    console.ends("result=failed exit=1").says("then=reboot would do the job at each boot");
    assert_zeros_from(&new, 0);

    let wanted = restored_here(&scene, "new.disk", &image);
    stick.boot(&disk(&new, "NEW")).ends("result=ok exit=0").says(READING_BACK);
    assert_same(&new, &wanted);
    let mounted = volumes::Mounted::new(&new, "ro");
    assert_eq!(std::fs::read(mounted.path().join("folder1/file1.bin")).unwrap(), noise(1, 7919));
    drop(mounted);
    // There was something in it, so it stays as it is.
    stick.assert_whole("e2fsck -fn", SMALL);

    // Somebody uses the disk then: in the data of a file.
    let volume = std::fs::read(scene.at("volume")).unwrap();
    let data = volume.chunks(4096).position(|cluster| cluster.starts_with(&noise(2, 600))).unwrap() as u64;
    File::options().write(true).open(&new).unwrap().write_all_at(&[7; 512], data * 4096).unwrap();
    let used = std::fs::read(&new).unwrap();
    stick.boot(&disk(&new, "NEW")).ends("result=ok exit=0").says("already done on 20");
    assert!(std::fs::read(&new).unwrap() == used, "the target has changed");

    // As a new job it asks anew whether a disk that holds something may be overwritten.
    stick.configure(&format!("{restore}confirm = NEW\nrun-id = 2\n"));
    stick.boot(&disk(&new, "NEW")).ends("result=failed exit=1").says("wanted whole:NEW");
    assert!(std::fs::read(&new).unwrap() == used, "the target has changed");
    stick.configure(&format!("{restore}confirm = whole:NEW\nrun-id = 2\n"));
    stick.boot(&disk(&new, "NEW")).ends("result=ok exit=0").says(READING_BACK);
    assert_same(&new, &wanted);
}

#[test]
#[ignore = "make test-all"]
fn a_restore_may_go_without_reading_back() {
    let scene = Scene::new();
    let (image, new, safe) = (image(&scene), scene.at("new.disk"), scene.at("safe.disk"));
    run(Command::new("debugfs").args(["-w", "-R", &format!("write {} i.img", text(&image))]).arg(&safe)).ok();
    scene.disk_with("new.disk", None);
    let restore = "ntfsrescue.action=restore ntfsrescue.source=LABEL=RESCUE:/i.img ntfsrescue.target=SERIAL=NEW:1 \
                   ntfsrescue.confirm=NEW ntfsrescue.options=--no-verify";
    let noisy = scene.partition("new.disk", "noisy");
    let wanted = restored_here(&scene, "noisy", &image);
    let console = boot(&[disk(&new, "NEW"), disk(&safe, "SAFE")], restore);
    console.ends("result=ok exit=0");
    assert!(!console.0.contains(READING_BACK), "{}", console.0);
    assert_same(&scene.partition("new.disk", "restored"), &wanted);
    assert!(noisy.exists());
}
