//! Machines: the bootable system in QEMU, watched on its serial console and steered through its keyboard and QMP.
//!
//! `make initramfs` makes what they boot: by QEMU itself, or from a stick by BIOS or UEFI. The processor is emulated unless QEMU_KVM=1; a boot takes about ten seconds.
//! A machine that does not end by itself is ended at its deadline, and that fails the test with its whole console.

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tools::{Loop, built, faults, noise, run, shell, text, unmount, wait_for};
use crate::volumes::{Place, fill, mkntfs};

/// Seconds that a machine may run.
const DEADLINE: &str = "180";

/// The file in a machine's place with the number of its process, as long as it runs.
const PID: &str = "pid";

/// A way to attach a disk.
#[derive(Clone, Copy)]
pub struct Attachment {
    /// QEMU's device, with the size of its sectors.
    device: &'static str,
    /// What a bad sector gives: where SCSI is spoken, as a real disk says it.
    errno: i32,
}

impl Attachment {
    pub const VIRTIO: Attachment = Attachment { device: "virtio-blk-pci", errno: 5 };
    pub const NVME: Attachment = Attachment { device: "nvme", errno: 5 };
    /// A port takes one disk; this is the first, and 512e the second.
    pub const AHCI: Attachment = Attachment { device: "ide-hd,bus=ide.0", errno: 5 };
    /// On a host of [`HOSTS`], as those below that have such a bus.
    pub const SCSI: Attachment = Attachment { device: "scsi-hd,bus=hba.0", errno: 61 };
    pub const USB: Attachment = Attachment { device: "usb-storage,bus=usb.0", errno: 61 };
    /// 512e: the system reads single sectors, the medium has larger ones.
    pub const SCSI_512E: Attachment =
        Attachment { device: "scsi-hd,bus=hba.0,physical_block_size=4096", errno: 61 };
    pub const AHCI_512E: Attachment =
        Attachment { device: "ide-hd,bus=ide.1,physical_block_size=4096", errno: 5 };
    /// 4Kn: the system reads large ones too.
    pub const VIRTIO_4KN: Attachment =
        Attachment { device: "virtio-blk-pci,logical_block_size=4096,physical_block_size=4096", errno: 5 };
    pub const NVME_4KN: Attachment =
        Attachment { device: "nvme,logical_block_size=4096,physical_block_size=4096", errno: 5 };
    pub const SCSI_4KN: Attachment = Attachment {
        device: "scsi-hd,bus=hba.0,logical_block_size=4096,physical_block_size=4096",
        errno: 61,
    };
}

/// Hosts of SCSI and USB disks. A machine that starts from a stick has them.
pub const HOSTS: [&str; 4] = ["-device", "virtio-scsi-pci,id=hba", "-device", "qemu-xhci,id=usb"];

/// A disk of a machine, raw.
pub struct Disk<'a> {
    pub file: &'a Path,
    pub serial: &'a str,
    /// 512-byte sectors that cannot be read.
    pub bad: &'a [u64],
    pub on: Attachment,
}

/// What starts a machine from a stick.
#[derive(Clone, Copy, Debug)]
pub enum Firmware {
    Bios,
    Uefi,
    /// UEFI that starts only what Microsoft's keys vouch for.
    SecureBoot,
}

impl Firmware {
    /// QEMU's options for it; its variables go to this file.
    fn options(self, variables: &Path) -> Vec<String> {
        let (machine, secure, memory, code, blank) = match self {
            Firmware::Bios => return ["-machine", "q35", "-m", "256"].map(str::to_owned).to_vec(),
            Firmware::Uefi => ("q35", "off", "256", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
            // GRUB holds the kernel twice while the shim looks at it: 256 MB are too few for it, 320 suffice.
            Firmware::SecureBoot => ("q35,smm=on", "on", "512", "OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"),
        };
        let ovmf = Path::new("/usr/share/OVMF");
        std::fs::copy(ovmf.join(blank), variables)
            .unwrap_or_else(|error| panic!("no {blank}: {error}; .ci/setup test installs it"));
        let flash = |unit, options: &str| format!("if=pflash,format=raw,unit={unit},{options}");
        [
            "-machine".to_owned(),
            machine.to_owned(),
            "-m".to_owned(),
            memory.to_owned(),
            "-global".to_owned(),
            format!("driver=cfi.pflash01,property=secure,value={secure}"),
            "-drive".to_owned(),
            flash(0, &format!("readonly=on,file={}", text(&ovmf.join(code)))),
            "-drive".to_owned(),
            flash(1, &format!("file={}", text(variables))),
        ]
        .to_vec()
    }
}

/// A machine that is put together.
pub struct Machine {
    qemu: Command,
    /// For its files, as long as it runs.
    place: TempDir,
    /// What QEMU boots itself.
    initramfs: Option<PathBuf>,
    nr_disks: usize,
}

impl Machine {
    /// A machine with these words on its kernel's command line.
    pub fn new(args: &str) -> Machine {
        // A failure shall end the machine too; without a job there is nothing that could fail.
        let then_failed = if args.is_empty() { "" } else { "ntfsrescue.then-failed=poweroff" };
        // On a busy host an emulated timer may seem not to work.
        let line = format!("console=ttyS0 panic=-1 quiet no_timer_check {then_failed} {args}");
        let kernel = built("initramfs/vmlinuz");
        let mut machine = Machine::bare().with(&["-machine", "q35", "-m", "256", "-nographic"]);
        machine.initramfs = Some(built("initramfs/initramfs.cpio.zst"));
        machine.with(&["-kernel", text(&kernel), "-append", &line])
    }

    /// A machine that starts from a stick, which is its disk `stick` with the serial number `STICK`.
    pub fn from_stick(stick: &Path, firmware: Firmware) -> Machine {
        let machine = Machine::bare();
        let options = firmware.options(&machine.place.path().join("variables"));
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        // Not -nographic: a BIOS would copy its screen to the serial port, where GRUB writes by itself.
        let machine =
            machine.with(&options).with(&["-display", "none", "-serial", "stdio", "-monitor", "none"]);
        let node = format!("driver=raw,file.driver=file,file.filename={},node-name=stick", text(stick));
        machine.with(&HOSTS).with(&["-blockdev", &node]).with(&[
            "-device",
            "usb-storage,bus=usb.0,drive=stick,id=stick,serial=STICK,removable=on,bootindex=1",
        ])
    }

    /// A machine with nothing in it.
    fn bare() -> Machine {
        let mut qemu = Command::new("timeout");
        // A QEMU that is stuck in a read ignores SIGTERM.
        qemu.args(["--kill-after=5", DEADLINE, "qemu-system-x86_64"]);
        let kvm = std::env::var_os("QEMU_KVM").is_some_and(|kvm| kvm == "1");
        qemu.args(["-accel", if kvm { "kvm" } else { "tcg" }, "-no-reboot", "-nic", "none"]);
        let machine = Machine { qemu, place: tempfile::tempdir().unwrap(), initramfs: None, nr_disks: 0 };
        let control = format!("unix:{},server=on,wait=off", text(&machine.control()));
        let pid = machine.place.path().join(PID);
        machine.with(&["-qmp", &control, "-pidfile", text(&pid)])
    }

    /// With further options of QEMU's.
    pub fn with(mut self, options: &[&str]) -> Machine {
        self.qemu.args(options);
        self
    }

    /// With one more disk.
    pub fn disk(mut self, Disk { file, serial, bad, on }: &Disk<'_>) -> Machine {
        let i = self.nr_disks;
        self.nr_disks += 1;
        let node = format!("driver=file,filename={},node-name=file{i}", text(file));
        let mut below = format!("file{i}");
        let mut machine = self.with(&["-blockdev", &node]);
        if !bad.is_empty() {
            machine = machine.with(&["-blockdev", &faults(&format!("faults{i}"), &below, on.errno, bad)]);
            below = format!("faults{i}");
        }
        machine.with(&[
            "-blockdev",
            &format!("driver=raw,file={below},node-name=disk{i}"),
            "-device",
            &format!("{},drive=disk{i},serial={serial}", on.device),
        ])
    }

    /// With this script as `/NAME` in the system.
    pub fn script(mut self, name: &str, script: &str) -> Machine {
        let place = self.place.path().to_owned();
        let at = |name: &str| place.join(name);
        let with_script = at("initramfs");
        let initramfs = self.initramfs.expect("a machine that QEMU boots");
        let mut bytes = std::fs::read(initramfs).unwrap();
        // The kernel looks for a further archive where the first one's last four bytes end.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        std::fs::write(at(name), script).unwrap();
        std::fs::set_permissions(at(name), Permissions::from_mode(0o755)).unwrap();
        let archive =
            format!("cd {} && echo {name} | cpio --quiet --create --format newc > archive", text(&place));
        shell(&archive).ok();
        bytes.extend(std::fs::read(at("archive")).unwrap());
        std::fs::write(&with_script, bytes).unwrap();
        self.initramfs = Some(with_script);
        self
    }

    fn control(&self) -> PathBuf {
        self.place.path().join("control")
    }

    /// Switches it on.
    pub fn start(mut self) -> Running {
        if let Some(initramfs) = &self.initramfs {
            self.qemu.arg("-initrd").arg(initramfs);
        }
        self.qemu.stdin(Stdio::piped()).stdout(Stdio::piped());
        self.qemu.stderr(File::create(self.place.path().join("errors")).unwrap());
        let mut child =
            self.qemu.spawn().unwrap_or_else(|error| panic!("cannot run {:?}: {error}", self.qemu));
        let keyboard = child.stdin.take().unwrap();
        let mut screen = child.stdout.take().unwrap();
        let (print, printed) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut piece) {
                let _nobody_reads = print.send(piece[..n].to_vec());
            }
        });
        let control = self.control();
        Running { child, keyboard, control, place: self.place, printed, console: Vec::new(), read: 0 }
    }
}

/// A machine that runs.
pub struct Running {
    child: Child,
    keyboard: ChildStdin,
    control: PathBuf,
    place: TempDir,
    printed: Receiver<Vec<u8>>,
    /// All that was printed.
    console: Vec<u8>,
    /// Bytes of it in which was found what was waited for.
    read: usize,
}

impl Running {
    /// Waits until it prints this, behind what was waited for before.
    #[track_caller]
    pub fn prints(&mut self, wanted: &str) {
        self.prints_that(wanted, |console| console.find(wanted).map(|at| at + wanted.len()));
    }

    /// Waits until `found` finds something in what was printed since: the number of bytes up to the end of it.
    #[track_caller]
    pub fn prints_that(&mut self, what: &str, found: impl Fn(&str) -> Option<usize>) {
        loop {
            // Cut at a character only by chance, and then the next piece makes it whole.
            let fresh = String::from_utf8_lossy(&self.console[self.read..]);
            if let Some(end) = found(&fresh) {
                self.read += end;
                return;
            }
            match self.printed.recv() {
                Ok(piece) => self.console.extend(piece),
                Err(_) => panic!("the machine has ended without {what}"),
            }
        }
    }

    /// Waits until a rescue has saved so many percent.
    #[track_caller]
    pub fn has_saved(&mut self, percent: f64) {
        self.prints_that(&format!("{percent} percent saved"), |console| {
            let (before, _) = console.rsplit_once("% ")?;
            let saved: f64 = before.rsplit(['\n', '\r', ' ']).next()?.parse().ok()?;
            (saved >= percent).then_some(before.len())
        });
    }

    /// Types on the serial console.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a shell's prompt and types a line.
    #[track_caller]
    pub fn runs(&mut self, line: &str) {
        self.prints(" # ");
        self.types(&format!("{line}\n"));
    }

    /// Steers it.
    pub fn control(&self) -> Control {
        // It is there a moment before it is listened to.
        let mut stream = None;
        wait_for("QMP", || {
            stream = UnixStream::connect(&self.control).ok();
            stream.is_some()
        });
        let stream = stream.unwrap();
        let mut control = Control { stream: BufReader::new(stream), events: Vec::new() };
        control.next(); // its greeting
        control.execute("qmp_capabilities", json!({}));
        control
    }

    /// Waits until it has powered off.
    #[track_caller]
    pub fn ends(mut self) -> Console {
        while let Ok(piece) = self.printed.recv() {
            self.console.extend(piece);
        }
        let status = self.child.wait().unwrap().code();
        assert_eq!(status, Some(0), "the machine did not end by itself (124: not within {DEADLINE} s)");
        Console(self.so_far())
    }

    /// Cuts its power, and that of its disks with `cut_disks`. It may have ended before.
    pub fn cut(mut self, cut_disks: impl FnOnce()) -> Console {
        let pid = std::fs::read_to_string(self.place.path().join(PID));
        let qemu = pid.ok().map(|pid| Pid::from_raw(pid.trim().parse().unwrap()));
        let send = |signal| qemu.map(|qemu| kill(qemu, signal));
        // It sees no disk without power.
        send(Signal::SIGSTOP);
        cut_disks();
        send(Signal::SIGKILL);
        self.console.extend(self.printed.iter().flatten());
        let _ended = self.child.wait();
        Console(self.so_far())
    }

    fn so_far(&self) -> String {
        let console = String::from_utf8_lossy(&self.console).replace("\r\n", "\n").replace('\r', "\n");
        let errors = std::fs::read_to_string(self.place.path().join("errors")).unwrap();
        format!("{console}\n{errors}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            // `timeout` passes it on, and kills what does not listen.
            let _ended = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
            let _ended = self.child.wait();
        }
        if std::thread::panicking() {
            self.console.extend(self.printed.iter().flatten());
            eprintln!("the machine's console:\n{}", self.so_far());
        }
    }
}

/// A connection to QEMU's monitor (QMP): an object of JSON on each line.
pub struct Control {
    stream: BufReader<UnixStream>,
    /// Those that came before answers.
    events: Vec<Value>,
}

impl Control {
    #[track_caller]
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("QMP says '{line}': {error}"))
    }

    /// Runs a command, which must succeed: what it answers.
    #[track_caller]
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{line}").unwrap();
        loop {
            let answer = self.next();
            assert!(answer.get("error").is_none(), "{line}: {answer}");
            if let Some(answer) = answer.get("return") {
                return answer.clone();
            }
            self.events.push(answer);
        }
    }

    /// Waits for an event about the device with this id.
    #[track_caller]
    pub fn waits_for(&mut self, event: &str, device: &str) {
        let is_it = |found: &Value| found["event"] == event && found["data"]["device"] == device;
        if !self.events.iter().any(is_it) {
            while !is_it(&self.next()) {}
        }
        self.events.clear();
    }

    /// The bytes that a machine started with `-no-shutdown` has read from a disk when it switches itself off. It ends then.
    #[track_caller]
    pub fn bytes_read_at_the_end(&mut self, disk: usize) -> u64 {
        while !self.events.iter().any(|event| event["event"] == "SHUTDOWN") {
            let event = self.next();
            self.events.push(event);
        }
        let devices = self.execute("query-blockstats", json!({}));
        let node = format!("disk{disk}");
        let device = devices.as_array().unwrap().iter().find(|device| device["node-name"] == *node);
        let read = device.unwrap_or_else(|| panic!("{devices}"))["stats"]["rd_bytes"].as_u64().unwrap();
        self.execute("quit", json!({}));
        read
    }

    /// Unplugs the device with this id.
    #[track_caller]
    pub fn unplug(&mut self, id: &str) {
        self.execute("device_del", json!({ "id": id }));
        self.waits_for("DEVICE_DELETED", id);
    }

    /// Plugs in a device, given as on QEMU's command line.
    #[track_caller]
    pub fn plug(&mut self, device: &str) {
        let (driver, properties) = device.split_once(',').unwrap();
        let mut arguments = json!({ "driver": driver });
        for (key, value) in properties.split(',').map(|property| property.split_once('=').unwrap()) {
            let number = value.parse::<u64>().map(Value::from);
            // A serial number is text, digits or not.
            let is_number = key != "serial" && number.is_ok();
            arguments[key] = if is_number { number.unwrap() } else { value.into() };
        }
        self.execute("device_add", arguments);
    }

    /// Presses Ctrl-Alt-Del.
    #[track_caller]
    pub fn presses_ctrl_alt_del(&mut self) {
        self.presses(&["ctrl", "alt", "delete"]);
    }

    /// Presses keys at once.
    #[track_caller]
    pub fn presses(&mut self, keys: &[&str]) {
        let keys: Vec<_> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
        self.execute("send-key", json!({ "keys": keys }));
    }

    /// Takes a picture of the screen (PPM).
    #[track_caller]
    pub fn screenshot(&mut self, to: &Path) {
        self.execute("screendump", json!({ "filename": text(to) }));
    }

    /// Makes the disks in the throttle group `speed` give so many bytes a second; 0: as many as they can.
    #[track_caller]
    pub fn throttle(&mut self, bytes_per_second: u64) {
        let limits = json!({ "bps-read": bytes_per_second });
        self.execute("qom-set", json!({ "path": "/objects/speed", "property": "limits", "value": limits }));
    }
}

/// What a machine printed on its serial console.
pub struct Console(pub String);

impl Console {
    /// The last line that tells how the job ended.
    pub fn result(&self) -> &str {
        self.0.lines().rev().find(|line| line.starts_with("ntfsrescue: result=")).unwrap_or("no result line")
    }

    #[track_caller]
    pub fn ends(&self, result: &str) -> &Console {
        assert!(self.result().starts_with(&format!("ntfsrescue: {result} ")), "wanted {result}:\n{}", self.0);
        self
    }

    #[track_caller]
    pub fn says(&self, line: &str) -> &Console {
        assert!(self.0.contains(line), "wanted {line}:\n{}", self.0);
        self
    }
}

/// Boots a machine and waits until it has powered off.
#[track_caller]
pub fn boot(disks: &[Disk<'_>], args: &str) -> Console {
    disks.iter().fold(Machine::new(args), Machine::disk).start().ends()
}

/// A virtio disk without bad sectors.
pub fn disk<'a>(file: &'a Path, serial: &'a str) -> Disk<'a> {
    Disk { file, serial, bad: &[], on: Attachment::VIRTIO }
}

/// First sector of the partition.
pub const START: u64 = 2048;
/// Bytes of the partition.
pub const SIZE: u64 = 48 << 20;

/// A scene for boots: a Windows disk with one partition, and a disk with an ext4 file system called RESCUE.
pub struct Scene(Place);

impl Scene {
    pub fn new() -> Scene {
        let scene = Scene(Place::new());
        let volume = scene.at("volume");
        mkntfs(&volume, SIZE, 512, 4096);
        fill(&volume, 100);
        scene.disk_with("windows.disk", Some(&volume));
        safe(&scene.at("safe.disk"), 96 << 20);
        scene
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.at(name)
    }

    /// A disk with one partition, which holds noise or this volume.
    pub fn disk_with(&self, name: &str, volume: Option<&Path>) {
        let content = volume.map_or_else(|| noise(9, SIZE as usize), |volume| std::fs::read(volume).unwrap());
        let file = File::create(self.at(name)).unwrap();
        file.write_all_at(&content, START * 512).unwrap();
        file.set_len(START * 512 + SIZE + (1 << 20)).unwrap();
        let table = format!("start={START}, size={}, type=7", SIZE / 512);
        shell(&format!("echo '{table}' | sfdisk --quiet {}", text(&self.at(name)))).ok();
    }

    /// The partition of a disk, as a file.
    pub fn partition(&self, disk: &str, name: &str) -> PathBuf {
        let bytes = std::fs::read(self.at(disk)).unwrap();
        let bytes = &bytes[START as usize * 512..][..SIZE as usize];
        std::fs::write(self.at(name), bytes).unwrap();
        self.at(name)
    }

    /// Takes a file out of the ext4 file system.
    pub fn take(&self, name: &str) -> PathBuf {
        self.take_from(&self.at("safe.disk"), name)
    }

    /// Takes a file out of an ext4 file system.
    pub fn take_from(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.at(name);
        run(Command::new("debugfs").args(["-R", &format!("dump /{name} {}", text(&to))]).arg(from)).ok();
        assert!(to.exists(), "no {name} on the target");
        to
    }
}

/// Makes a disk with an ext4 file system called RESCUE.
pub fn safe(disk: &Path, size: u64) {
    File::create(disk).unwrap().set_len(size).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-L", "RESCUE"]).arg(disk)).ok();
}

/// A file system of a machine's disk, mounted here.
pub struct Mounted(TempDir, #[allow(dead_code)] Loop);

impl Mounted {
    /// The one that fills a disk, read-only.
    pub fn new(disk: &Path) -> Mounted {
        Mounted::with(Loop::attach(disk, 512), "ro")
    }

    /// The one on a loop device, with these options of mount's.
    pub fn with(device: Loop, options: &str) -> Mounted {
        let point = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(["-o", options]).args([&device.0, point.path()])).ok();
        Mounted(point, device)
    }

    /// exFAT on a loop device, read-only: not every kernel has it.
    pub fn exfat(device: Loop) -> Mounted {
        let point = tempfile::tempdir().unwrap();
        run(Command::new("mount.exfat-fuse").args(["-o", "ro"]).args([&device.0, point.path()])).ok();
        Mounted(point, device)
    }

    /// Bytes of the file system.
    pub fn size(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(self.path()).unwrap();
        stat.blocks() * stat.fragment_size()
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(self.path());
    }
}
