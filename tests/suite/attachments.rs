//! Failing disks as real drivers show them, in QEMU: virtio, SCSI, NVMe, AHCI and USB, with small and large sectors.
//! What cannot be read is marked and nothing else, a disk that is unplugged and comes back is gone on with, and one
//! that hangs keeps nobody from ending the job.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::{
    Attachment, Console, Control, Disk, HOSTS, Machine, Mounted, Running, SIZE, Scene, disk, safe,
};
use crate::tools::{assert_same, assert_same_image, noise, ntfsclone, ours, run, text, wait_for};
use crate::volumes::{Place, fill, mkntfs};

/// A disk with a bad sector.
struct Failing {
    serial: &'static str,
    on: Attachment,
    /// Bytes of the volume's own sectors. On 4Kn, the volume may have been made on another disk.
    sector_size: u32,
    /// Bytes that one bad sector of 512 costs, without `--retries` and with.
    lost: [u64; 2],
}

/// The bytes that one bad sector costs where a sector of the medium has 512.
const ONE: [u64; 2] = [512; 2];

#[rustfmt::skip]
const FAILING: [Failing; 10] = [
    Failing { serial: "VIRTIO", on: Attachment::VIRTIO, sector_size: 512, lost: ONE },
    Failing { serial: "SCSI-61", on: Attachment::SCSI, sector_size: 512, lost: ONE },
    Failing { serial: "NVME", on: Attachment::NVME, sector_size: 512, lost: ONE },
    Failing { serial: "AHCI", on: Attachment::AHCI, sector_size: 512, lost: ONE },
    Failing { serial: "USB", on: Attachment::USB, sector_size: 512, lost: ONE },
    Failing { serial: "SCSI-512E", on: Attachment::SCSI_512E, sector_size: 512, lost: [4096, 512] },
    Failing { serial: "AHCI-512E", on: Attachment::AHCI_512E, sector_size: 512, lost: [4096, 512] },
    Failing { serial: "SCSI-4KN", on: Attachment::SCSI_4KN, sector_size: 512, lost: [4096; 2] },
    Failing { serial: "NVME-4KN", on: Attachment::NVME_4KN, sector_size: 4096, lost: [4096; 2] },
    Failing { serial: "VIRTIO-4KN", on: Attachment::VIRTIO_4KN, sector_size: 4096, lost: [4096; 2] },
];

/// For scripts: a disk's name in the system, by its serial number; the disk for what is saved; the disks' settings.
const LIBRARY: &str = r#"
find_disk() {
    for folder in /sys/block/*; do
        usb=$(readlink -f $folder)
        usb=${usb%/host*}/../serial
        if cat $folder/serial $folder/device/serial $folder/device/vpd_pg80 $usb 2>/dev/null | tr -d '\0 ' |
            grep -q "$1\$" && [ -b /dev/${folder##*/} ]; then
            echo /dev/${folder##*/}
            return
        fi
    done
    return 1
}
wait_for() {
    until find_disk $1 >/dev/null; do usleep 100000; done
}
mount_target() {
    mkdir -p /t
    wait_for SAFE
    mount -t ext4 $(find_disk SAFE) /t
}
settings() {
    for file in /sys/block/*/device/timeout /sys/block/*/device/scsi_disk/*/max_* /sys/block/*/ro \
        /sys/module/nvme_core/parameters/max_retries; do
        echo $file $(cat $file)
    done
}
"#;

/// Saves each disk whose serial number is given in both forms, and tells whether their settings were put back.
const SAVE_ALL: &str = r#"
. /library
mount_target
for serial; do wait_for $serial; done
settings >/tmp/before
for serial; do
    disk=$(find_disk $serial)
    to=/t/$serial
    /init -q --rescue --strict -O $to.clone --report $to.json --map $to.map $disk
    echo "$serial: clone=$?"
    /init -q --rescue --strict --retries 1 -s -o $to.image $disk
    echo "$serial: image=$?"
done
settings >/tmp/after
diff /tmp/before /tmp/after && echo "settings are as before"
umount /t && echo "all done"
"#;

/// Saves the disk whose serial number is given, and tells its settings meanwhile.
const SAVE: &str = r#"
. /library
[ -d /t ] || mount_target
wait_for $1
(sleep 1; settings) &
trap : INT # it is for the rescue
/init --rescue --strict --reconnect 60 -s -o /t/$1 --map /t/$1.map $(find_disk $1)
echo "status=$?"
"#;

/// A volume, where a bad sector lies in it, and what a clone of it holds.
struct Volume {
    file: PathBuf,
    /// In the data of a file, not at the start of a cluster.
    bad: u64,
    healthy: Vec<u8>,
}

impl Volume {
    fn new(place: &Place, sector_size: u32) -> Volume {
        let file = place.at(&format!("volume{sector_size}"));
        mkntfs(&file, 24 << 20, sector_size, 4096);
        fill(&file, 60);
        let clone = place.at("healthy");
        ours(["-q", "-O", text(&clone), text(&file)]).ok();
        let healthy = std::fs::read(&clone).unwrap();
        let data = healthy.chunks(4096).position(|cluster| cluster.starts_with(&noise(2, 600))).unwrap();
        Volume { file, bad: data as u64 * 8 + 3, healthy }
    }

    /// What a clone holds where the bad sector costs so many bytes.
    fn with_lost(&self, lost: u64, sector_size: u32) -> Vec<u8> {
        let pos = (self.bad * 512 / lost * lost) as usize;
        let mut wanted = self.healthy.clone();
        for sector in wanted[pos..pos + lost as usize].chunks_mut((lost as usize).min(sector_size as usize)) {
            sector.fill(b'?');
            sector[..10].copy_from_slice(b"BadSectoR\0");
        }
        wanted
    }
}

#[test]
fn a_bad_sector_costs_what_it_must_on_every_attachment() {
    let place = Place::new();
    let volumes = [512, 4096].map(|sector_size| Volume::new(&place, sector_size));
    let volume_of = |failing: &Failing| &volumes[usize::from(failing.sector_size == 4096)];
    safe(&place.at("safe"), 512 << 20);
    let mut machine = Machine::new("ntfsrescue.action=shell").with(&HOSTS);
    for failing in &FAILING {
        let Volume { file, bad, .. } = volume_of(failing);
        let copy = place.at(failing.serial);
        std::fs::copy(file, &copy).unwrap();
        machine = machine.disk(&Disk { file: &copy, serial: failing.serial, bad: &[*bad], on: failing.on });
    }
    machine =
        machine.disk(&disk(&place.at("safe"), "SAFE")).script("library", LIBRARY).script("save", SAVE_ALL);
    let mut machine = machine.start();
    machine.runs(&format!("sh /save {}", FAILING.map(|failing| failing.serial).join(" ")));
    machine.prints("all done");
    machine.runs("exit");
    let console = machine.ends();
    console.says("settings are as before");
    // Each read that fails is one command: with its five retries, the NVMe driver would send six times as many.
    let nr_commands = console.0.matches("aio failed").count();
    assert!((4..20).contains(&nr_commands), "{nr_commands} commands failed:\n{}", console.0);

    let saved = Mounted::new(&place.at("safe"));
    for failing in &FAILING {
        let Failing { serial, sector_size, lost, .. } = *failing;
        println!("{serial}");
        let volume = volume_of(failing);
        console.says(&format!("{serial}: clone=3")).says(&format!("{serial}: image=3"));
        let restored = place.at("restored");
        ntfsclone(["-q", "-r", "-O", text(&restored), text(&saved.at(&format!("{serial}.image")))]).ok();
        for (file, lost) in [(saved.at(&format!("{serial}.clone")), lost[0]), (restored, lost[1])] {
            std::fs::write(place.at("wanted"), volume.with_lost(lost, sector_size)).unwrap();
            assert_same(&file, &place.at("wanted"));
        }
        let report = std::fs::read(saved.at(&format!("{serial}.json"))).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!((&report["disk"]["serial"], &report["bytes"]["bad"]), (&serial.into(), &lost[0].into()));
        let map = std::fs::read_to_string(saved.at(&format!("{serial}.map"))).unwrap();
        let bad: Vec<_> = map.lines().filter(|line| line.ends_with("  -")).collect();
        let pos = volume.bad * 512 / lost[0] * lost[0];
        assert_eq!(bad, [format!("{pos:#010X}  {:#010X}  -", lost[0]).replace("0X", "0x")]);
        assert_same(&place.at(serial), &volume.file);
    }
}

/// QEMU's options for a disk `slow` whose speed can be set; nothing is attached to it yet.
pub fn slow_disk(file: &str) -> Vec<String> {
    [
        "-object",
        "throttle-group,id=speed",
        "-blockdev",
        file,
        "-blockdev",
        "driver=throttle,throttle-group=speed,file=below,node-name=slow",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Slow enough to be seen on the way, in bytes a second: what is in use are some megabytes.
pub const SLOWLY: u64 = 1 << 20;

/// A machine that saves a Windows disk, a slow one. Its place on the bus is `windows`.
fn save_slowly(scene: &Scene, options: &str) -> (Running, Control) {
    let file = format!("driver=file,filename={},node-name=below", text(&scene.at("windows.disk")));
    let job =
        "ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 ntfsrescue.target=LABEL=RESCUE:/saved.img";
    let slow = slow_disk(&file);
    let slow: Vec<_> = slow.iter().map(String::as_str).collect();
    let machine = Machine::new(&format!("{job} ntfsrescue.options=\"{options}\""))
        .with(&HOSTS)
        .with(&slow)
        .with(&["-device", "scsi-hd,bus=hba.0,drive=slow,id=windows,serial=WIN"])
        .disk(&disk(&scene.at("safe.disk"), "SAFE"))
        .start();
    let mut control = machine.control();
    control.throttle(SLOWLY);
    (machine, control)
}

/// Saves a Windows disk, which is unplugged in the middle and followed by `next`, and how that ended.
fn save_unplugged(scene: &Scene, options: &str, next: &str, result: &str) -> Console {
    let (mut machine, mut control) = save_slowly(scene, options);
    machine.has_saved(20.0);
    control.unplug("windows");
    control.throttle(0);
    machine.prints("the disk has gone; waiting");
    control.plug(&format!("scsi-hd,bus=hba.0,drive=slow,id=next,serial={next}"));
    let console = machine.ends();
    console.ends(result);
    console
}

#[test]
fn a_disk_that_comes_back_is_gone_on_with() {
    let scene = Scene::new();
    let console = save_unplugged(&scene, "", "WIN", "result=ok exit=0");
    console.says("the disk has gone; waiting 600 s").says("The disk '/dev/sda1' is back as");
    ours(["-q", "-s", "-o", text(&scene.at("wanted")), text(&scene.at("volume"))]).ok();
    assert_same_image(&scene.take("saved.img"), &scene.at("wanted"));
}

#[test]
fn another_disk_in_its_place_is_left_alone() {
    let scene = Scene::new();
    let console = save_unplugged(&scene, "--reconnect 5", "OTHER", "result=failed exit=4");
    assert!(!console.0.contains("is back as"), "{}", console.0);
    // What was saved until then is whole, and all else is marked.
    ntfsclone(["-q", "-r", "-O", text(&scene.at("restored")), text(&scene.take("saved.img.part"))]).ok();
    ours(["-q", "-O", text(&scene.at("wanted")), text(&scene.at("volume"))]).ok();
    let [restored, wanted] = ["restored", "wanted"].map(|name| std::fs::read(scene.at(name)).unwrap());
    let mut marked = 0;
    for (got, wanted) in restored.chunks(512).zip(wanted.chunks(512)) {
        marked += usize::from(got.starts_with(b"BadSectoR\0?"));
        assert!(got == wanted || got.starts_with(b"BadSectoR\0?"));
    }
    assert!(marked > 1000 && marked * 512 < SIZE as usize / 10, "{marked} sectors marked");
}

/// Takes all that a slow disk gives for some minutes, and saves the disk then.
const SAVE_BEHIND: &str = r#"
. /library
mount_target
wait_for $1
dd if=$(find_disk $1) of=/dev/null bs=256k count=1 iflag=direct
/init --rescue --strict --reconnect 5 -s -o /t/$1 --map /t/$1.map $(find_disk $1)
echo "status=$?"
ls /t
umount /t
"#;

#[test]
fn a_disk_that_goes_before_anything_was_read_gives_no_image() {
    let scene = Scene::new();
    let file = format!("driver=file,filename={},node-name=below", text(&scene.at("volume")));
    let slow = slow_disk(&file);
    let slow: Vec<_> = slow.iter().map(String::as_str).collect();
    let mut machine = Machine::new("ntfsrescue.action=shell")
        .with(&HOSTS)
        .with(&slow)
        .with(&["-device", "scsi-hd,bus=hba.0,drive=slow,id=windows,serial=WIN"])
        .disk(&disk(&scene.at("safe.disk"), "SAFE"))
        .script("library", LIBRARY)
        .script("save", SAVE_BEHIND)
        .start();
    let mut control = machine.control();
    machine.runs("echo re''ady");
    machine.prints("ready");
    control.throttle(512);
    machine.runs("sh /save WIN");
    machine.prints("1+0 records out");
    machine.prints("Reading what makes the rest readable");
    control.unplug("windows");
    machine.prints("status=4");
    machine.runs("exit");
    machine.ends();
    let listed = run(Command::new("debugfs").args(["-R", "ls"]).arg(scene.at("safe.disk"))).ok();
    assert!(listed.stdout.contains("lost+found") && !listed.stdout.contains("WIN"), "{}", listed.stdout);
}

/// A file served as a disk (NBD) that can stop answering.
struct Server {
    daemon: Child,
    socket: PathBuf,
}

impl Server {
    fn new(file: &Path) -> Server {
        let socket = file.with_extension("socket");
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &format!("driver=file,filename={},node-name=file", text(file))])
            .args(["--nbd-server", &format!("addr.type=unix,addr.path={}", text(&socket))])
            .args(["--export", "type=nbd,id=disk,node-name=file,name=disk,writable=on"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run qemu-storage-daemon: {error}"));
        let server = Server { daemon, socket };
        wait_for("the disk's server", || UnixStream::connect(&server.socket).is_ok());
        server
    }

    /// The node of QEMU's that reads it.
    fn node(&self) -> String {
        let server = format!("server.type=unix,server.path={}", text(&self.socket));
        format!("driver=nbd,{server},export=disk,node-name=below")
    }

    /// From now on each read hangs.
    fn hang(&self) {
        self.send(Signal::SIGSTOP);
    }

    /// It answers again, also what hung.
    fn recover(&self) {
        self.send(Signal::SIGCONT);
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.daemon.id() as i32), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.daemon.kill();
        let _ended = self.daemon.wait();
    }
}

#[test]
fn a_disk_that_hangs_does_not_hold_up_the_end() {
    let scene = Scene::new();
    let server = Server::new(&scene.at("windows.disk"));
    let job =
        "ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 ntfsrescue.target=LABEL=RESCUE:/saved.img";
    let start = || {
        let slow = slow_disk(&server.node());
        let slow: Vec<_> = slow.iter().map(String::as_str).collect();
        let machine =
            Machine::new(job).with(&slow).with(&["-device", "virtio-blk-pci,drive=slow,serial=WIN"]);
        machine.disk(&disk(&scene.at("safe.disk"), "SAFE")).start()
    };
    let mut machine = start();
    let mut control = machine.control();
    control.throttle(SLOWLY);
    machine.has_saved(20.0);
    server.hang();
    machine.prints("waiting for the disk for 2 s");
    machine.prints("waiting for the disk for 4 s");
    control.presses_ctrl_alt_del();
    machine.prints("ntfsrescue: result=failed exit=6");
    server.recover();
    machine.ends().says("the same command goes on where this ended");

    let console = start().ends();
    console.ends("result=ok exit=0").says("Going on where the map says.");
    ours(["-q", "-s", "-o", text(&scene.at("wanted")), text(&scene.at("volume"))]).ok();
    assert_same_image(&scene.take("saved.img"), &scene.at("wanted"));
}

/// Devices that can be plugged in and out, and a setting of each that a rescue changes.
const PLUGS: [(&str, &str); 4] = [
    ("virtio-blk-pci,bus=hot", "/ro 1"),
    ("nvme,bus=hot", "nvme_core/parameters/max_retries 0"),
    ("scsi-hd,bus=hba.0", "max_medium_access_timeouts 2147483647"),
    ("usb-storage,bus=usb.0", "device/timeout 60"),
];

#[test]
fn every_disk_may_hang_be_interrupted_and_unplugged() {
    let place = Place::new();
    let volume = Volume::new(&place, 512);
    safe(&place.at("safe"), 96 << 20);
    let server = Server::new(&volume.file);
    let slow = slow_disk(&server.node());
    let slow: Vec<_> = slow.iter().map(String::as_str).collect();
    let machine = Machine::new("ntfsrescue.action=shell").with(&HOSTS).with(&slow);
    let machine = machine.with(&["-device", "pcie-root-port,id=hot,slot=1"]);
    let machine = machine.disk(&disk(&place.at("safe"), "SAFE"));
    let mut machine = machine.script("library", LIBRARY).script("save", SAVE).start();
    let mut control = machine.control();
    for (i, (device, setting)) in PLUGS.iter().enumerate() {
        let plug = |id: &str| format!("{device},drive=slow,id={id}{i},serial=DISK{i}");
        control.throttle(SLOWLY / 2);
        control.plug(&plug("a"));
        machine.runs(&format!("sh /save DISK{i}"));
        machine.prints(setting);
        machine.has_saved(20.0);
        server.hang();
        machine.prints("waiting for the disk for 2 s");
        machine.types("\x03");
        machine.prints("status=6");
        server.recover();
        machine.runs(&format!("sh /save DISK{i}"));
        machine.prints("Going on where the map says.");
        machine.has_saved(50.0);
        control.unplug(&format!("a{i}"));
        control.throttle(0);
        machine.prints("the disk has gone; waiting 60 s");
        control.plug(&plug("b"));
        machine.prints("is back as");
        machine.prints("status=0");
        control.unplug(&format!("b{i}"));
    }
    machine.runs("umount /t; exit");
    machine.ends();
    ours(["-q", "-s", "-o", text(&place.at("wanted")), text(&volume.file)]).ok();
    let saved = Mounted::new(&place.at("safe"));
    for i in 0..PLUGS.len() {
        assert_same_image(&saved.at(&format!("DISK{i}")), &place.at("wanted"));
    }
}
