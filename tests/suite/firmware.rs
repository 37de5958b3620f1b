//! The static binary, and the bootable system in QEMU: unattended jobs, and what must not happen.
//!
//! `make initramfs` makes what is tested here. The processor is emulated; a boot takes about ten seconds.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::edit::Editor;
use crate::tools::{Loop, assert_same, built, faults, noise, ours, run, shell, text};
use crate::volumes::{Mounted, Place, fill, mkntfs};

/// A disk of the machine: virtio, raw.
struct Disk<'a> {
    file: &'a Path,
    serial: &'a str,
    /// 512-byte sectors that cannot be read.
    bad: &'a [u64],
}

/// What a machine printed on its serial console.
struct Console(String);

impl Console {
    /// The last line that tells how the job ended.
    fn result(&self) -> &str {
        self.0.lines().rev().find(|line| line.starts_with("ntfsrescue: result=")).unwrap_or("no result line")
    }

    #[track_caller]
    fn ends(&self, result: &str) -> &Console {
        assert!(self.result().starts_with(&format!("ntfsrescue: {result} ")), "wanted {result}:\n{}", self.0);
        self
    }

    #[track_caller]
    fn says(&self, line: &str) -> &Console {
        assert!(self.0.contains(line), "wanted {line}:\n{}", self.0);
        self
    }
}

/// Boots a machine and waits until it has powered off.
#[track_caller]
fn boot(disks: &[Disk<'_>], args: &str) -> Console {
    const DEADLINE: &str = "180";
    let mut qemu = Command::new("timeout");
    // A QEMU that is stuck in a read ignores SIGTERM.
    qemu.args(["--kill-after=5", DEADLINE, "qemu-system-x86_64", "-machine", "q35"]);
    let kvm = std::env::var_os("QEMU_KVM").is_some_and(|kvm| kvm == "1");
    qemu.args(["-accel", if kvm { "kvm" } else { "tcg" }]);
    qemu.args(["-m", "256", "-nographic", "-no-reboot", "-nic", "none"]);
    qemu.arg("-kernel").arg(built("initramfs/vmlinuz"));
    qemu.arg("-initrd").arg(built("initramfs/initramfs.cpio.zst"));
    // A failure shall end the machine too; without a job there is nothing that could fail.
    let then_failed = if args.is_empty() { "" } else { "ntfsrescue.then-failed=poweroff" };
    qemu.args(["-append", &format!("console=ttyS0 panic=-1 quiet {then_failed} {args}")]);
    for (i, disk) in disks.iter().enumerate() {
        qemu.args(["-blockdev", &format!("driver=file,filename={},node-name=file{i}", text(disk.file))]);
        let mut below = format!("file{i}");
        if !disk.bad.is_empty() {
            qemu.args(["-blockdev", &faults(&format!("faults{i}"), &below, disk.bad)]);
            below = format!("faults{i}");
        }
        qemu.args(["-blockdev", &format!("driver=raw,file={below},node-name=disk{i}")]);
        qemu.args(["-device", &format!("virtio-blk-pci,drive=disk{i},serial={}", disk.serial)]);
    }
    let (status, console) = converse(&mut qemu);
    assert_eq!(
        status,
        Some(0),
        "the machine did not end by itself (124: not within {DEADLINE} s):\n{console}"
    );
    Console(console)
}

/// Runs a machine; at a shell's prompt types `exit`. Its exit status, and all that it printed.
fn converse(qemu: &mut Command) -> (Option<i32>, String) {
    qemu.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut machine = qemu.spawn().unwrap_or_else(|error| panic!("cannot run {qemu:?}: {error}"));
    let (mut keyboard, mut screen) = (machine.stdin.take().unwrap(), machine.stdout.take().unwrap());
    let mut printed = Vec::new();
    let mut piece = [0; 4096];
    let mut typed = false;
    while let Ok(n @ 1..) = screen.read(&mut piece) {
        printed.extend_from_slice(&piece[..n]);
        // busybox greets, then prompts with the folder's name and this.
        let greeting = printed.windows(14).position(|bytes| bytes == b"built-in shell");
        let prompted = greeting.is_some_and(|at| printed[at..].windows(3).any(|bytes| bytes == b" # "));
        if prompted && !typed {
            keyboard.write_all(b"exit\n").unwrap();
            typed = true;
        }
    }
    let console = String::from_utf8_lossy(&printed).replace('\r', "");
    (machine.wait().unwrap().code(), console)
}

/// A scene for boots: a Windows disk with one partition, and a disk with an ext4 file system called RESCUE.
struct Scene(Place);

/// First sector of the partition.
const START: u64 = 2048;
/// Bytes of the partition.
const SIZE: u64 = 48 << 20;

impl Scene {
    fn new() -> Scene {
        let scene = Scene(Place::new());
        let volume = scene.at("volume");
        mkntfs(&volume, SIZE, 512, 4096);
        fill(&volume, 100);
        scene.disk_with("windows.disk", Some(&volume));
        let safe = scene.at("safe.disk");
        std::fs::File::create(&safe).unwrap().set_len(96 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-L", "RESCUE"]).arg(&safe)).ok();
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.at(name)
    }

    /// A disk with one partition, which holds noise or this volume.
    fn disk_with(&self, name: &str, volume: Option<&Path>) {
        use std::os::unix::fs::FileExt;
        let content = volume.map_or_else(|| noise(9, SIZE as usize), |volume| std::fs::read(volume).unwrap());
        let file = std::fs::File::create(self.at(name)).unwrap();
        file.write_all_at(&content, START * 512).unwrap();
        file.set_len(START * 512 + SIZE + (1 << 20)).unwrap();
        let table = format!("start={START}, size={}, type=7", SIZE / 512);
        shell(&format!("echo '{table}' | sfdisk --quiet {}", text(&self.at(name)))).ok();
    }

    /// The partition of a disk, as a file.
    fn partition(&self, disk: &str, name: &str) -> PathBuf {
        let bytes = std::fs::read(self.at(disk)).unwrap();
        let bytes = &bytes[START as usize * 512..][..SIZE as usize];
        std::fs::write(self.at(name), bytes).unwrap();
        self.at(name)
    }

    /// Takes a file out of the ext4 file system.
    fn take(&self, name: &str) -> PathBuf {
        let to = self.at(name);
        run(Command::new("debugfs")
            .args(["-R", &format!("dump /{name} {}", text(&to))])
            .arg(self.at("safe.disk")))
        .ok();
        assert!(to.exists(), "no {name} on the target");
        to
    }
}

fn disk<'a>(file: &'a Path, serial: &'a str) -> Disk<'a> {
    Disk { file, serial, bad: &[] }
}

#[test]
fn the_binary_is_static() {
    let binary = built("musl/ntfsrescue");
    run(Command::new("file").arg(&binary)).ok().says("statically linked");
    let headers = run(Command::new("readelf").args(["--wide", "--program-headers"]).arg(&binary)).ok();
    assert!(headers.stdout.contains("LOAD") && !headers.stdout.contains("INTERP"), "{}", headers.stdout);
    let modes = run(Command::new(&binary).arg("--version")).ok();
    assert!(modes.stderr.contains(concat!("ntfsrescue ", env!("CARGO_PKG_VERSION"))), "{}", modes.stderr);
}

#[test]
fn saves_then_restores() {
    let scene = Scene::new();
    let (windows, safe, blank) = (scene.at("windows.disk"), scene.at("safe.disk"), scene.at("blank.disk"));
    let save =
        "ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 ntfsrescue.target=LABEL=RESCUE:/healthy.img";
    let before = std::fs::read(&windows).unwrap();
    boot(&[disk(&windows, "WIN"), disk(&safe, "SAFE")], save).ends("result=ok exit=0");
    assert!(std::fs::read(&windows).unwrap() == before, "the source has changed");
    // The same bytes as saved here.
    ours(["-q", "-s", "-o", text(&scene.at("wanted.img")), text(&scene.at("volume"))]).ok();
    assert_same(&scene.take("healthy.img"), &scene.at("wanted.img"));

    // Restored on a partition full of noise; only the used clusters are written.
    scene.disk_with("blank.disk", None);
    let noisy = scene.partition("blank.disk", "noisy");
    let restore = "ntfsrescue.action=restore ntfsrescue.source=LABEL=RESCUE:/healthy.img \
                   ntfsrescue.target=SERIAL=NEW:1 ntfsrescue.confirm=NEW";
    boot(&[disk(&blank, "NEW"), disk(&safe, "SAFE")], restore).ends("result=ok exit=0");
    let loop_device = Loop::attach(&noisy, 512);
    ours(["-q", "-r", "-O", text(&loop_device.0), text(&scene.at("wanted.img"))]).ok();
    drop(loop_device);
    assert_same(&scene.partition("blank.disk", "restored"), &noisy);
    let mounted = Mounted::new(&scene.at("restored"), "ro");
    assert_eq!(std::fs::read(mounted.path().join("folder1/file1.bin")).unwrap(), noise(1, 7919));
}

#[test]
fn saves_from_a_failing_disk() {
    let scene = Scene::new();
    let (windows, safe) = (scene.at("windows.disk"), scene.at("safe.disk"));
    // In the record of a file, which must not end the job, and in the data of files.
    let record = Editor::open(&scene.at("volume")).record_pos(70) / 512;
    let volume = std::fs::read(scene.at("volume")).unwrap();
    let data =
        volume.chunks(4096).position(|cluster| cluster.starts_with(&noise(2, 600))).unwrap() as u64 * 8;
    let bad = [record, data + 1, data + 2, data + 5];
    let on_disk: Vec<_> = bad.iter().map(|sector| START + sector).collect();
    let failing = Disk { file: &windows, serial: "WIN", bad: &on_disk };
    let save =
        "ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 ntfsrescue.target=SERIAL=SAFE:0:/damaged.img";
    let console = boot(&[failing, disk(&safe, "SAFE")], save);
    let pos = (data + 1) * 512;
    console.ends("result=damaged exit=3").says("MFT record 70 at byte").says("Lost: 2048 bytes");
    console.says(&format!("WARNING: cannot read 1024 bytes at byte {pos} ({pos:#x}): marked BadSectoR"));

    ours(["-q", "-o", text(&scene.at("wanted")), text(&scene.at("volume"))]).ok();
    let editor = Editor::open(&scene.at("wanted"));
    for sector in bad {
        let mut mark = [b'?'; 512];
        mark[..10].copy_from_slice(b"BadSectoR\0");
        editor.write(sector * 512, &mark);
    }
    ours(["-q", "-r", "-o", text(&scene.at("restored")), text(&scene.take("damaged.img"))]).ok();
    assert_same(&scene.at("restored"), &scene.at("wanted"));
}

#[test]
fn clones_disk_to_disk() {
    let scene = Scene::new();
    let (windows, blank) = (scene.at("windows.disk"), scene.at("blank.disk"));
    scene.disk_with("blank.disk", None);
    let noisy = scene.partition("blank.disk", "noisy");
    let clone = "ntfsrescue.action=clone ntfsrescue.source=SERIAL=WIN:1 ntfsrescue.target=SERIAL=NEW:1 \
                 ntfsrescue.confirm=NEW ntfsrescue.then=reboot";
    boot(&[disk(&windows, "WIN"), disk(&blank, "NEW")], clone).ends("result=ok exit=0");
    let loop_device = Loop::attach(&noisy, 512);
    ours(["-q", "-O", text(&loop_device.0), text(&scene.at("volume"))]).ok();
    drop(loop_device);
    assert_same(&scene.partition("blank.disk", "cloned"), &noisy);
}

#[test]
fn refusals_leave_every_disk_as_it_was() {
    let scene = Scene::new();
    let names = ["windows.disk", "other.disk"];
    let (windows, other) = (scene.at(names[0]), scene.at(names[1]));
    // Two volumes of the same label and, being the same volume, of the same UUID.
    scene.disk_with("other.disk", Some(&scene.at("volume")));
    ours(["-q", "-s", "-o", text(&scene.at("image")), text(&scene.at("volume"))]).ok();
    let safe = scene.at("safe.disk");
    run(Command::new("debugfs")
        .args(["-w", "-R", &format!("write {} i.img", text(&scene.at("image")))])
        .arg(&safe))
    .ok();
    let restore =
        "ntfsrescue.action=restore ntfsrescue.source=LABEL=RESCUE:/i.img ntfsrescue.target=SERIAL=B:1";
    for (args, message) in [
        (format!("{restore} ntfsrescue.confirm=A"), "confirm"),
        (restore.to_owned(), "ntfsrescue.confirm"),
        (format!("{restore} ntfsrescue.confirm=B ntfsrescue.colour=red"), "ntfsrescue.colour"),
        (format!("{restore} ntfsrescue.confirm=B ntfsrescue.wait=never"), "ntfsrescue.wait"),
        (
            format!(
                "{} ntfsrescue.confirm=B ntfsrescue.wait=6",
                restore.replace("=SERIAL=B:1", "=SERIAL=C:1")
            ),
            "C:1",
        ),
        (
            "ntfsrescue.action=save ntfsrescue.source=LABEL=Prüfung ntfsrescue.target=LABEL=RESCUE:/x.img \
             ntfsrescue.wait=6"
                .to_owned(),
            "/dev/vdb1",
        ),
    ] {
        let before = names.map(|name| std::fs::read(scene.at(name)).unwrap());
        let console = boot(&[disk(&windows, "A"), disk(&other, "B"), disk(&safe, "SAFE")], &args);
        console.ends("result=failed exit=1").says(message);
        let after = names.map(|name| std::fs::read(scene.at(name)).unwrap());
        assert!(before == after, "a disk has changed after {args}:\n{}", console.0);
    }
}

#[test]
fn without_a_job_there_is_a_shell() {
    let scene = Scene::new();
    let windows = scene.at("windows.disk");
    let before = std::fs::read(&windows).unwrap();
    // In the shell, `exit` is typed.
    boot(&[disk(&windows, "WIN")], "").ends("result=ok exit=0").says("no job").says("/dev/vda1");
    assert!(std::fs::read(&windows).unwrap() == before, "the disk has changed");
}
