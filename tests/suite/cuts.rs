//! Power cuts: a machine that loses its power together with what its disk has not yet written for good. The next boot
//! finishes, and the result is that of a run that was not cut.
//!
//! The disk is served by nbdkit, which keeps what is written in its memory until a flush; both it and QEMU are killed
//! (SIGKILL). nbdkit tells each request, so that a cut can come at the request with a given number.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::attachments::{SLOWLY, slow_disk};
use crate::kills::finished_is_in;
use crate::machine::{Console, Machine, Running, SIZE, START, Scene, disk};
use crate::stick::{self, Partition};
use crate::tools::{Loop, assert_same_image, noise, ours, run, text, wait_for};
use crate::volumes::{fill, mkntfs};

/// A disk whose writes are lost with its power until they are flushed.
struct Volatile {
    server: Child,
    socket: PathBuf,
    requests: Receiver<Request>,
    /// Of those that begin.
    nr_seen: usize,
    /// Flushes that have ended.
    nr_flushed: usize,
}

/// What its server tells.
enum Request {
    /// A request that changes the disk begins, or a flush.
    Begins,
    /// A flush has ended.
    Flushed,
}

impl Volatile {
    fn new(file: &Path) -> Volatile {
        let socket = file.with_extension("socket");
        // The one of the boot before.
        let _absent = std::fs::remove_file(&socket);
        let mut server = Command::new("nbdkit")
            .args(["-f", "--exit-with-parent", "-U", text(&socket), "--filter=log", "--filter=cache"])
            // Slow, so that there is time for a cut between two of them.
            .args(["--filter=delay", "file", text(file), "cache=writeback", "wdelay=2ms"])
            .arg("logfile=/dev/stdout")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run nbdkit: {error}; .ci/setup test installs it"));
        let log = BufReader::new(server.stdout.take().unwrap());
        let (tell, requests) = channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let is_of = |what| line.contains(&format!(" {what} id="));
                if line.contains("...Flush id=") {
                    let _nobody_counts = tell.send(Request::Flushed);
                } else if is_of("Write") || is_of("Zero") || is_of("Trim") || is_of("Flush") {
                    let _nobody_counts = tell.send(Request::Begins);
                }
            }
        });
        wait_for("the disk's server", || UnixStream::connect(&socket).is_ok());
        Volatile { server, socket, requests, nr_seen: 0, nr_flushed: 0 }
    }

    /// The node of QEMU's that reads and writes it.
    fn node(&self, name: &str) -> String {
        format!("driver=nbd,server.type=unix,server.path={},node-name={name}", text(&self.socket))
    }

    fn count(&mut self, request: &Request) {
        match request {
            Request::Begins => self.nr_seen += 1,
            Request::Flushed => self.nr_flushed += 1,
        }
    }

    /// How many requests there were until now.
    fn nr_requests(&mut self) -> usize {
        while let Ok(request) = self.requests.try_recv() {
            self.count(&request);
        }
        self.nr_seen
    }

    /// Waits until there were enough.
    #[track_caller]
    fn waits_until(&mut self, what: &str, enough: impl Fn(&Volatile) -> bool) {
        while !enough(self) {
            match self.requests.recv_timeout(Duration::from_secs(60)) {
                Ok(request) => self.count(&request),
                Err(RecvTimeoutError::Timeout) => panic!("60 s without {what}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the disk's server has ended without {what}"),
            }
        }
    }

    /// Waits for the request with this number.
    #[track_caller]
    fn waits_for_request(&mut self, number: usize) {
        self.waits_until(&format!("request {number}"), |disk| disk.nr_seen >= number);
    }

    fn cut(&mut self) {
        let _ended = self.server.kill();
        let _ended = self.server.wait();
    }
}

impl Drop for Volatile {
    fn drop(&mut self) {
        self.cut();
    }
}

/// When the power is cut.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The console says this.
    Says(&'static str),
    /// So many percent are done.
    Percent(f64),
    /// The target takes the request with this number since the job began.
    Request(usize),
    /// The first flush since the job began has ended: what was written before is there, and no more.
    Flushed,
    /// As `Request`, but counted since the console said this.
    Behind(&'static str, usize),
}

impl Moment {
    #[track_caller]
    fn wait(self, machine: &mut Running, target: &mut Volatile) {
        match self {
            Moment::Says(line) => machine.prints(line),
            Moment::Percent(percent) => machine.has_saved(percent),
            Moment::Request(number) => target.waits_for_request(target.nr_seen + number),
            Moment::Flushed => {
                let before = target.nr_flushed;
                target.waits_until("a flush", |disk| disk.nr_flushed > before);
            }
            Moment::Behind(line, number) => {
                machine.prints(line);
                let seen = target.nr_requests();
                target.waits_for_request(seen + number);
            }
        }
    }
}

/// Numbers below `most`, by a seed that is told.
fn drawn(nr: usize, most: usize) -> impl Iterator<Item = usize> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let bytes = noise(seed, 4 * nr);
    let numbers: Vec<_> =
        bytes.chunks(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()) as usize % most).collect();
    numbers.into_iter()
}

/// A save of the Windows disk.
const SAVE: &str = "ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 \
                    ntfsrescue.target=LABEL=RESCUE:/saved.img ntfsrescue.options=\"--map-interval 0\"";

/// What is said when a job begins.
const BEGINS: &str = "the worker starts ";

/// What a machine prints before the image is checked.
const CHECKS: &str = "ntfsrescue -r -n ";

struct Save {
    scene: Scene,
    volume: Vec<u8>,
    /// What a run gives that is not cut.
    wanted: PathBuf,
    empty: Vec<u8>,
}

impl Save {
    fn new() -> Save {
        let scene = Scene::new();
        let (volume, wanted) = (std::fs::read(scene.at("volume")).unwrap(), scene.at("wanted.img"));
        ours(["-q", "-s", "-o", text(&wanted), text(&scene.at("volume"))]).ok();
        let empty = std::fs::read(scene.at("safe.disk")).unwrap();
        Save { scene, volume, wanted, empty }
    }

    /// A machine whose job has begun, and the disk that it saves to. The source is slow.
    #[track_caller]
    fn begin(&self) -> (Running, Volatile) {
        let file = format!("driver=file,filename={},node-name=below", text(&self.scene.at("windows.disk")));
        let slow = slow_disk(&file);
        let slow: Vec<_> = slow.iter().map(String::as_str).collect();
        let mut target = Volatile::new(&self.scene.at("safe.disk"));
        let mut machine = Machine::new(SAVE)
            .with(&slow)
            .with(&["-device", "virtio-blk-pci,drive=slow,serial=WIN", "-blockdev", &target.node("target")])
            .with(&["-device", "virtio-blk-pci,drive=target,serial=SAFE"])
            .start();
        machine.control().throttle(2 * SLOWLY);
        machine.prints(BEGINS);
        target.nr_requests();
        (machine, target)
    }

    /// What the target's file system holds, as files in a folder.
    fn files(&self) -> PathBuf {
        let (copy, folder) = (self.scene.at("copy"), self.scene.at("files"));
        std::fs::copy(self.scene.at("safe.disk"), &copy).unwrap();
        // Plays its journal back, which is all that there is to do.
        let checked = run(Command::new("e2fsck").arg("-p").arg(&copy));
        assert!(checked.status <= 1, "{}{}", checked.stdout, checked.stderr);
        let _old = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        run(Command::new("debugfs").args(["-R", &format!("rdump / {}", text(&folder))]).arg(copy)).ok();
        folder
    }

    /// What was finished when the power was cut is there.
    #[track_caller]
    fn assert_kept(&self, told: &str) {
        let files = self.files();
        let at = |name| files.join(name);
        if at("saved.img").exists() {
            assert_same_image(&at("saved.img"), &self.wanted);
            println!("{told}: the image is whole");
            return;
        }
        let part = at("saved.img.part");
        let finished = finished_is_in(&part, &at("saved.img.map"), &at("saved.img.map.plan"), &self.volume);
        println!("{told}: {finished:?} bytes are finished");
    }

    /// Cuts the power at these moments, one boot each; the boot after them finishes. Returns how many came in time.
    #[track_caller]
    fn survives(&self, moments: &[Moment]) -> usize {
        let mut nr_in_time = 0;
        std::fs::write(self.scene.at("safe.disk"), &self.empty).unwrap();
        for moment in moments {
            let (mut machine, mut target) = self.begin();
            moment.wait(&mut machine, &mut target);
            let console = machine.cut(|| target.cut());
            nr_in_time += usize::from(!console.0.contains("\nntfsrescue: result="));
            self.assert_kept(&format!("{moment:?}"));
        }
        let (machine, target) = self.begin();
        self.assert_done(&machine.ends(), target);
        nr_in_time
    }

    #[track_caller]
    fn assert_done(&self, console: &Console, mut target: Volatile) {
        console.ends("result=ok exit=0");
        // What was unmounted must not need a flush.
        target.cut();
        let files = self.files();
        assert_same_image(&files.join("saved.img"), &self.wanted);
        let names = files.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("saved")).collect();
        names.sort();
        assert_eq!(
            names,
            ["saved.img", "saved.img.json", "saved.img.log", "saved.img.map", "saved.img.map.plan"]
        );
    }
}

/// In the middle, and then at the end of what was gone on with: while the image gets its name.
#[test]
fn a_save_survives_two_power_cuts() {
    assert_eq!(Save::new().survives(&[Moment::Percent(50.0), Moment::Behind(CHECKS, 1)]), 2);
}

#[test]
#[ignore = "make test-all"]
fn a_save_survives_a_power_cut_at_any_moment() {
    let save = Save::new();
    let (machine, mut target) = save.begin();
    let console = machine.ends();
    let nr_requests = target.nr_requests();
    save.assert_done(&console, target);
    println!("{nr_requests} requests");
    let moments = [
        Moment::Says("Reading what makes the rest readable"),
        Moment::Percent(10.0),
        Moment::Percent(30.0),
        Moment::Percent(70.0),
        Moment::Percent(90.0),
        Moment::Percent(100.0),
        Moment::Says(CHECKS),
        Moment::Behind(CHECKS, 1),
        Moment::Behind(CHECKS, 2),
        Moment::Behind(CHECKS, 3),
    ];
    // Behind these the image has its name, and only the record, the log and the unmounting are left.
    let nr_requests = nr_requests * 2 / 3;
    let spread = (1..6).map(|i| Moment::Request(nr_requests * i / 6));
    let drawn = drawn(5, nr_requests).map(Moment::Request);
    let moments: Vec<_> = moments.into_iter().chain(spread).chain(drawn).collect();
    let nr_in_time: usize = moments.iter().map(|moment| save.survives(&[*moment])).sum();
    assert!(nr_in_time + 2 >= moments.len(), "{nr_in_time} of {} came in time", moments.len());
}

/// A restore from the disk `SAFE`.
struct Restore {
    scene: Scene,
    args: String,
    /// The disk that is overwritten, as it is before and as it shall be.
    before: Vec<u8>,
    wanted: Vec<u8>,
    /// Bytes before the volume on it.
    start: usize,
    /// The stick, if there is one, as it is before, and what names it.
    stick: Option<(Vec<u8>, String)>,
}

impl Restore {
    const IMAGE: &str = "ntfsrescue.action=restore ntfsrescue.source=SERIAL=SAFE:0:/i.img";

    fn scene() -> Scene {
        let scene = Scene::new();
        ours(["-q", "-s", "-o", text(&scene.at("i.img")), text(&scene.at("volume"))]).ok();
        let write = format!("write {} i.img", text(&scene.at("i.img")));
        run(Command::new("debugfs").args(["-w", "-R", &write]).arg(scene.at("safe.disk"))).ok();
        scene
    }

    /// Onto a partition with an older volume.
    fn to_partition() -> Restore {
        let scene = Restore::scene();
        mkntfs(&scene.at("older"), SIZE, 512, 1024);
        fill(&scene.at("older"), 40);
        scene.disk_with("target.disk", Some(&scene.at("older")));
        let args = format!("{} ntfsrescue.target=SERIAL=NEW:1 ntfsrescue.confirm=NEW", Restore::IMAGE);
        Restore::new(scene, args, START as usize * 512, None)
    }

    /// Onto a blank disk. The stick keeps the mark that it was begun: by then the disk is not blank any more.
    fn to_blank_disk() -> Restore {
        let scene = Restore::scene();
        std::fs::File::create(scene.at("target.disk")).unwrap().set_len(SIZE + (1 << 20)).unwrap();
        stick::make(&scene.at("stick.disk"), &[("SIZE", "32M")]).ok();
        let stick = std::fs::read(scene.at("stick.disk")).unwrap();
        let uuid = Partition::of(&scene.at("stick.disk"), 2).uuid;
        let args = format!("{} ntfsrescue.target=SERIAL=NEW ntfsrescue.confirm=NEW", Restore::IMAGE);
        Restore::new(scene, args, 0, Some((stick, format!("ntfsrescue.stick={uuid}"))))
    }

    fn new(scene: Scene, args: String, start: usize, stick: Option<(Vec<u8>, String)>) -> Restore {
        let target = scene.at("target.disk");
        let before = std::fs::read(&target).unwrap();
        let len = before.len() - start;
        let device = Loop::attach_part(&target, start as u64, if start == 0 { len as u64 } else { SIZE });
        ours(["-q", "-r", "-O", text(&device.0), text(&scene.at("i.img"))]).ok();
        drop(device);
        let wanted = std::fs::read(&target).unwrap();
        Restore { scene, args, before, wanted, start, stick }
    }

    /// A machine whose job has begun, and the disk that it overwrites; if there is a stick, that too.
    #[track_caller]
    fn begin(&self) -> (Running, Volatile, Option<Volatile>) {
        let mut target = Volatile::new(&self.scene.at("target.disk"));
        let stick = self.stick.as_ref().map(|_| Volatile::new(&self.scene.at("stick.disk")));
        let names_stick = self.stick.as_ref().map_or("", |(_, names_it)| names_it.as_str());
        let mut machine = Machine::new(&format!("{} {names_stick}", self.args))
            .disk(&disk(&self.scene.at("safe.disk"), "SAFE"))
            .with(&["-blockdev", &target.node("target")])
            .with(&["-device", "virtio-blk-pci,drive=target,serial=NEW"]);
        if let Some(stick) = &stick {
            machine = machine
                .with(&["-blockdev", &stick.node("stick")])
                .with(&["-device", "virtio-blk-pci,drive=stick,serial=STICK"]);
        }
        let mut machine = machine.start();
        machine.prints(BEGINS);
        target.nr_requests();
        (machine, target, stick)
    }

    /// Cuts the power at these moments, one boot each; the boot after them finishes. Returns how many came in time.
    #[track_caller]
    fn survives(&self, moments: &[Moment]) -> usize {
        let mut nr_in_time = 0;
        std::fs::write(self.scene.at("target.disk"), &self.before).unwrap();
        if let Some((stick, _)) = &self.stick {
            std::fs::write(self.scene.at("stick.disk"), stick).unwrap();
        }
        for moment in moments {
            let (mut machine, mut target, mut stick) = self.begin();
            moment.wait(&mut machine, &mut target);
            let console = machine.cut(|| {
                target.cut();
                stick.iter_mut().for_each(Volatile::cut);
            });
            nr_in_time += usize::from(!console.0.contains("\nntfsrescue: result="));
            self.assert_no_half_volume(&format!("{moment:?}"));
        }
        let (machine, target, stick) = self.begin();
        machine.ends().ends("result=ok exit=0");
        drop((target, stick));
        assert!(self.found() == self.wanted, "the target differs after {moments:?}");
        nr_in_time
    }

    fn found(&self) -> Vec<u8> {
        std::fs::read(self.scene.at("target.disk")).unwrap()
    }

    /// Where there is a boot sector, the volume behind it is whole: the one before, or the restored one.
    #[track_caller]
    fn assert_no_half_volume(&self, told: &str) {
        let found = self.found();
        let is_boot_sector = |at: usize| found[at + 3..at + 11] == *b"NTFS    ";
        let is_there = is_boot_sector(self.start) || is_boot_sector(self.start + SIZE as usize - 512);
        let (is_old, is_new) = (found == self.before, found == self.wanted);
        println!("{told}: boot sector {is_there}, old {is_old}, new {is_new}");
        assert!(!is_there || is_old || is_new, "{told}: half a volume with a boot sector");
    }
}

/// What a machine prints when all is written, and is being compared.
const WRITTEN: &str = "The target holds what the image holds.";

#[test]
fn a_restore_to_a_blank_disk_survives_two_power_cuts() {
    assert_eq!(Restore::to_blank_disk().survives(&[Moment::Request(8), Moment::Flushed]), 2);
}

/// At moments that are spread over the writing, at the end of it, and at random ones.
#[track_caller]
fn restore_is_cut(restore: &Restore, nr_spread: usize, nr_drawn: usize) {
    std::fs::write(restore.scene.at("target.disk"), &restore.before).unwrap();
    let (machine, mut target, stick) = restore.begin();
    machine.ends().ends("result=ok exit=0");
    let nr_requests = target.nr_requests();
    drop((target, stick));
    assert!(restore.found() == restore.wanted, "the target differs");
    println!("{nr_requests} requests");
    let spread = (0..nr_spread).map(|i| Moment::Request(1 + nr_requests * i / nr_spread));
    let drawn = drawn(nr_drawn, nr_requests).map(Moment::Request);
    let moments: Vec<_> = spread.chain([Moment::Flushed, Moment::Says(WRITTEN)]).chain(drawn).collect();
    let nr_in_time: usize = moments.iter().map(|moment| restore.survives(&[*moment])).sum();
    assert!(nr_in_time + 2 >= moments.len(), "{nr_in_time} of {} came in time", moments.len());
}

#[test]
#[ignore = "make test-all"]
fn a_restore_over_a_volume_survives_a_power_cut_at_any_moment() {
    restore_is_cut(&Restore::to_partition(), 6, 3);
}

#[test]
#[ignore = "make test-all"]
fn a_restore_to_a_blank_disk_survives_a_power_cut_at_any_moment() {
    restore_is_cut(&Restore::to_blank_disk(), 5, 2);
}
