//! The static binary, and the bootable system in QEMU: unattended jobs, and what must not happen.
//!
//! `make initramfs` makes what is tested here. The processor is emulated; a boot takes about ten seconds.

use std::process::Command;

use crate::edit::Editor;
use crate::machine::{Disk, Machine, SIZE, START, Scene, boot, disk};
use crate::tools::{
    Loop, assert_same, assert_same_image, built, len, noise, ours, run, shell, text, trailer_of,
};
use crate::volumes::Mounted;

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
    assert_same_image(&scene.take("healthy.img"), &scene.at("wanted.img"));
    let origin = trailer_of(&scene.take("healthy.img")).unwrap().origin.unwrap();
    assert_eq!((origin.disk_serial.as_str(), origin.volume_pos), ("WIN", START * 512));
    assert_eq!(origin.disk_size, len(&windows));

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
    let failing = Disk { bad: &on_disk, ..disk(&windows, "WIN") };
    let save =
        "ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 ntfsrescue.target=SERIAL=SAFE:0:/damaged.img";
    let console = boot(&[failing, disk(&safe, "SAFE")], save);
    let pos = (data + 1) * 512;
    console.ends("result=damaged exit=3").says("<record 70>: 1024 bytes").says("Lost: 2048 bytes");
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
fn saves_what_the_kernel_does_not_show() {
    let scene = Scene::new();
    let (windows, safe) = (scene.at("windows.disk"), scene.at("safe.disk"));
    ours(["-q", "-s", "-o", text(&scene.at("wanted.img")), text(&scene.at("volume"))]).ok();
    // A GPT whose primary half cannot be read, and a volume whose boot sector cannot.
    let table =
        format!("label: gpt\nstart={START}, size={}, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", SIZE / 512);
    shell(&format!("printf '{table}\\n' | sfdisk --quiet --wipe never {}", text(&windows))).ok();
    let bad: Vec<u64> = (0..34).chain([START]).collect();
    let failing = Disk { bad: &bad, ..disk(&windows, "WIN") };
    let save = "ntfsrescue.action=save ntfsrescue.source=LABEL=Prüfung ntfsrescue.target=LABEL=RESCUE:/{serial}-{part}.img";
    let console = boot(&[failing, disk(&safe, "SAFE")], save);
    console.ends("result=ok exit=0").says("1 partitions from a table that the kernel does not take");
    assert_same_image(&scene.take("WIN-1.img"), &scene.at("wanted.img"));

    // A volume of which no table knows, behind a partition that is in its way.
    shell(&format!(
        "printf 'label: dos\\nstart={START}, size=4000, type=7\\n' | sfdisk --quiet --wipe never {}",
        text(&windows)
    ))
    .ok();
    let save = format!(
        "ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN@{}+{SIZE} ntfsrescue.target=LABEL=RESCUE:/x.img",
        START * 512
    );
    boot(&[disk(&windows, "WIN"), disk(&safe, "SAFE")], &save).ends("result=ok exit=0");
    assert_same_image(&scene.take("x.img"), &scene.at("wanted.img"));
}

#[test]
fn clones_disk_to_disk() {
    let scene = Scene::new();
    let (windows, blank) = (scene.at("windows.disk"), scene.at("blank.disk"));
    scene.disk_with("blank.disk", None);
    let noisy = scene.partition("blank.disk", "noisy");
    let clone = "ntfsrescue.action=clone ntfsrescue.source=SERIAL=WIN:1 ntfsrescue.target=SERIAL=NEW:1 \
                 ntfsrescue.confirm=NEW";
    boot(&[disk(&windows, "WIN"), disk(&blank, "NEW")], clone).ends("result=ok exit=0");
    let loop_device = Loop::attach(&noisy, 512);
    ours(["-q", "-O", text(&loop_device.0), text(&scene.at("volume"))]).ok();
    drop(loop_device);
    assert_same(&scene.partition("blank.disk", "cloned"), &noisy);
}

#[test]
fn without_a_job_there_is_a_shell() {
    let scene = Scene::new();
    let windows = scene.at("windows.disk");
    let before = std::fs::read(&windows).unwrap();
    let mut machine = Machine::new("").disk(&disk(&windows, "WIN")).start();
    // busybox greets, then prompts.
    machine.prints("built-in shell");
    machine.runs("exit");
    machine.ends().ends("result=ok exit=0").says("no job").says("/dev/vda1");
    assert!(std::fs::read(&windows).unwrap() == before, "the disk has changed");
}
