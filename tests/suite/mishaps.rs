//! What may happen in the middle of a save: its disks go away or fill up, its processes are killed, memory is short.
//! PID 1 survives each, says what it was in the result line and ends as `then-failed` says; the next boot goes on.
//!
//! A disk that hangs or that comes back is in `attachments.rs`, a person who stops the job in `console.rs`.

use std::process::Command;

use serde_json::json;

use crate::attachments::{SLOWLY, slow_disk};
use crate::machine::{Console, Control, HOSTS, Machine, Running, Scene, boot, disk, safe};
use crate::tools::{assert_same_image, ours, run, text};
use crate::volumes::mkntfs;

/// Saves a Windows disk. There is a map at any time.
const SAVE: &str = "ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 \
                    ntfsrescue.target=LABEL=RESCUE:/saved.img";

const OPTIONS: &str = "--map-interval 0 --reconnect 5";

/// A virtio disk.
const VIRTIO: &str = "virtio-blk-pci";

/// A machine that saves a Windows disk, which is `windows` on its bus and slow, to a disk attached like this, which is
/// `target`.
fn save(scene: &Scene, args: &str, target: &str) -> Machine {
    let file = format!("driver=file,filename={},node-name=below", text(&scene.at("windows.disk")));
    let slow = slow_disk(&file);
    let slow: Vec<_> = slow.iter().map(String::as_str).collect();
    let safe = format!("driver=file,filename={},node-name=file", text(&scene.at("safe.disk")));
    Machine::new(&format!("{SAVE} ntfsrescue.options=\"{OPTIONS}\" {args}"))
        .with(&HOSTS)
        .with(&slow)
        .with(&["-device", "scsi-hd,bus=hba.0,drive=slow,id=windows,serial=WIN"])
        .with(&["-blockdev", &safe, "-blockdev", "driver=raw,file=file,node-name=safe"])
        .with(&["-device", &format!("{target},drive=safe,id=target,serial=SAFE")])
}

/// Starts a machine and waits until a part of the disk is saved.
#[track_caller]
fn begin(machine: Machine) -> (Running, Control) {
    let mut machine = machine.start();
    let mut control = machine.control();
    control.throttle(SLOWLY);
    machine.has_saved(20.0);
    (machine, control)
}

/// All is there that the next boot needs, and it finishes the image.
#[track_caller]
fn goes_on(scene: &Scene) {
    let console = boot(&[disk(&scene.at("windows.disk"), "WIN"), disk(&scene.at("safe.disk"), "SAFE")], SAVE);
    console.ends("result=ok exit=0").says("Going on where the map says.");
    ours(["-q", "-s", "-o", text(&scene.at("wanted")), text(&scene.at("volume"))]).ok();
    assert_same_image(&scene.take("saved.img"), &scene.at("wanted"));
    let listed = on_target(scene, "ls").stdout;
    assert!(!listed.contains("saved.img.part"), "{listed}");
}

/// What debugfs says of the target, or does to it.
fn on_target(scene: &Scene, request: &str) -> crate::tools::Said {
    run(Command::new("debugfs").args(["-w", "-R", request]).arg(scene.at("safe.disk"))).ok()
}

/// The target goes away.
#[track_caller]
fn the_target_is_unplugged(on: &str) {
    let scene = Scene::new();
    let (machine, mut control) = begin(save(&scene, "", on));
    // The machine may have ended before QEMU tells that it is gone.
    control.execute("device_del", json!({ "id": "target" }));
    let console = machine.ends();
    console.ends("result=failed exit=7").says("the target failed or is full; what was read is kept");
    goes_on(&scene);
}

#[test]
fn a_usb_target_is_unplugged() {
    the_target_is_unplugged("usb-storage,bus=usb.0");
}

#[test]
#[ignore = "make test-all"]
fn a_scsi_target_is_unplugged() {
    the_target_is_unplugged("scsi-hd,bus=hba.0");
}

/// It stays, but takes no more.
#[test]
#[ignore = "make test-all"]
fn the_target_dies() {
    let scene = Scene::new();
    let (machine, mut control) = begin(save(&scene, "", VIRTIO));
    let fails = json!([{ "event": "none", "errno": 5 }]);
    let dead = json!({ "driver": "blkdebug", "node-name": "dead", "image": "file", "inject-error": fails });
    control.execute("blockdev-add", dead);
    let safe = json!({ "driver": "raw", "node-name": "safe", "file": "dead" });
    control.execute("blockdev-reopen", json!({ "options": [safe] }));
    let console = machine.ends();
    console.ends("result=failed exit=7").says("the target failed or is full; what was read is kept");
    goes_on(&scene);
}

/// Runs beside PID 1, in its place at first: fills the target once something is saved there.
const FILLS: &str = r#"#!/bin/busybox sh
b=/bin/busybox
# The shell wants it for what runs beside it.
$b mknod /dev/null c 1 3
(
    saved() { $b stat -c %b /mnt/image/saved.img.part 2>/nothing || echo 0; }
    until [ $(saved) -gt 1000 ]; do $b usleep 20000; done
    $b dd if=/dev/zero of=/mnt/image/filler bs=64k 2>/nothing
) &
exec /init
"#;

#[test]
fn the_target_fills_up() {
    let scene = Scene::new();
    // How much is saved until then is up to the machine: something is.
    let machine = save(&scene, "rdinit=/fills", VIRTIO).script("fills", FILLS).start();
    machine.control().throttle(SLOWLY);
    let console = machine.ends();
    console.ends("result=failed exit=7").says("the target failed or is full; what was read is kept");
    console.says("No space left on device");
    // Somebody makes room.
    on_target(&scene, "rm filler");
    goes_on(&scene);
}

#[test]
fn the_source_is_unplugged() {
    let scene = Scene::new();
    let (mut machine, mut control) = begin(save(&scene, "", VIRTIO));
    control.unplug("windows");
    machine.prints("the disk has gone; waiting");
    machine.ends().ends("result=failed exit=4").says("the disk went away; what was read is kept");
    goes_on(&scene);
}

/// What the kernel does at Alt-SysRq and a key.
#[track_caller]
fn sysrq(scene: &Scene, key: &str) -> Console {
    let (machine, mut control) = begin(save(scene, "sysrq_always_enabled", VIRTIO));
    control.presses(&["alt", "sysrq", key]);
    machine.ends()
}

/// First by the kernel, which wants memory and takes the worker; then with all but PID 1.
#[test]
fn the_worker_is_killed_and_then_the_session() {
    let scene = Scene::new();
    let console = sysrq(&scene, "f");
    console.ends("result=failed exit=137").says("was killed, perhaps for want of memory");
    let console = sysrq(&scene, "i");
    console.ends("result=failed exit=137").says("our own session died (signal: 9");
    goes_on(&scene);
}

/// A volume that is too large for the machine.
#[test]
fn memory_is_short() {
    let scene = Scene::new();
    // 2^31 clusters: a set of them has 256 MB.
    mkntfs(&scene.at("large"), 1 << 40, 512, 512);
    let args = SAVE.replace("WIN:1", "WIN:0");
    // There is room for the image.
    safe(&scene.at("safe.disk"), 1 << 30);
    let machine = Machine::new(&args).with(&["-m", "160"]).disk(&disk(&scene.at("large"), "WIN"));
    let console = machine.disk(&disk(&scene.at("safe.disk"), "SAFE")).start().ends();
    console.says("this volume needs about ");
    console.ends("result=failed exit=137").says("was killed, perhaps for want of memory");
}
