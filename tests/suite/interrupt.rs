//! SIGINT and SIGTERM: a job ends in order, at a moment that the test chooses, and where it hangs it ends all the same.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal::{self, SIGINT, SIGTERM};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::tools::{Loop, assert_same, noise, ours, status_of, text, wait_for};
use crate::volumes::{Place, format, small_volume};

const OURS: &str = env!("CARGO_BIN_EXE_ntfsrescue");

/// A program that listens to signals, also where the tests themselves run in the background and ignore some: it would
/// inherit that.
fn listening(program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM", program]);
    command
}

/// Our program.
pub fn program() -> Command {
    listening(OURS)
}

/// What a job gets that does not end in time.
const GRACE: Duration = Duration::from_secs(5);

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// A run of our program that is watched. It is killed when the test ends before it.
pub struct Running {
    pub child: Child,
    said: Arc<Mutex<String>>,
}

impl Running {
    /// Starts it. Its messages come on standard output, or, if that takes data, on standard error.
    pub fn start(command: &mut Command, takes_data: bool) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let mut channel: File = if takes_data {
            OwnedFd::from(child.stderr.take().unwrap()).into()
        } else {
            OwnedFd::from(child.stdout.take().unwrap()).into()
        };
        let heard = said.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = channel.read(&mut piece) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..n]));
            }
        });
        Running { child, said }
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it says this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        wait_for(text, || self.said().contains(text));
    }

    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Waits until it ends, with this status.
    #[track_caller]
    pub fn exits(&mut self, status: i32) {
        wait_for("the program to end", || self.child.try_wait().unwrap().is_some());
        let ended = self.child.wait().unwrap();
        assert_eq!(status_of(ended), status, "{}", self.said());
        // By the signal itself, so that a shell's loop around it ends too.
        assert_eq!(ended.code().is_none(), status > 128);
    }

    /// It ended in order: it has told first that it will, then that it did.
    #[track_caller]
    fn was_interrupted(&self, signal: Signal) {
        self.says("ERROR: interrupted\n");
        let said = self.said();
        let lines: Vec<_> = said.lines().collect();
        let announced = format!("{signal}: ending; once more to end at once");
        let announced = lines.iter().position(|line| *line == announced);
        let error = lines.iter().position(|line| *line == "ERROR: interrupted");
        assert!(announced.is_some() && announced < error && error == Some(lines.len() - 1), "{said}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A volume under another name, `slow` in the same folder, where reading it takes seconds.
pub struct SlowDisk(Child);

impl SlowDisk {
    pub fn new(place: &Place, bytes_per_second: u32) -> SlowDisk {
        let (volume, slow) = (place.at("volume"), place.at("slow"));
        std::fs::write(&slow, "").unwrap();
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--object", &format!("throttle-group,id=group,x-bps-read={bytes_per_second}")])
            .args(["--blockdev", &format!("driver=file,filename={},node-name=file", text(&volume))])
            .args(["--blockdev", "driver=throttle,file=file,throttle-group=group,node-name=disk"])
            .args(["--export", &format!("type=fuse,id=e,node-name=disk,mountpoint={}", text(&slow))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run qemu-storage-daemon: {error}"));
        let disk = SlowDisk(daemon);
        wait_for("the slow disk", || slow.metadata().is_ok_and(|metadata| metadata.len() > 0));
        disk
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // Asked to end it unmounts its export; killed it would not.
        send(self.0.id(), SIGTERM);
        let _ended = self.0.wait();
    }
}

/// Nothing there, or not yet: in any case nothing that is taken for a volume.
#[track_caller]
fn assert_no_boot_sector(path: &Path) {
    let mut start = Vec::new();
    File::open(path).unwrap().take(512).read_to_end(&mut start).unwrap();
    assert!(start.iter().all(|byte| *byte == 0), "{} begins with {:x?}", path.display(), &start[..16]);
}

#[test]
fn copies_from_a_slow_disk() {
    let place = Place::new();
    let at = |name| place.at(name);
    small_volume(&at("volume"));
    std::fs::write(at("disk-file"), noise(5, 24 << 20)).unwrap();
    format(&at("disk-file"), 512, 4096);
    let disk = Loop::attach(&at("disk-file"), 512);
    let slow = SlowDisk::new(&place, 1_500_000);
    let part = "what was copied so far is left in 'new.part'";
    let device = text(&disk.0).to_owned();
    let unfinished = |name: &str| format!("'{name}' is unfinished and holds no usable copy");
    for (args, phase, signal, status, left) in [
        ("-o new slow", "Cloning NTFS", SIGINT, 130, part.to_owned()),
        ("-m -o new slow", "Cloning NTFS", SIGTERM, 143, part.to_owned()),
        ("-s -o new slow", "Saving NTFS to image", SIGTERM, 143, part.to_owned()),
        ("-s -O old slow", "Saving NTFS to image", SIGINT, 130, unfinished("old")),
        ("-O old slow", "Cloning NTFS", SIGTERM, 143, unfinished("old")),
        (&format!("-O {device} slow"), "Cloning NTFS", SIGINT, 130, unfinished(&device)),
    ] {
        println!("{args}, {signal}");
        std::fs::write(at("old"), "what was there").unwrap();
        let mut job = Running::start(program().args(args.split(' ')).current_dir(place.at("")), false);
        job.says(phase);
        job.signal(signal);
        job.exits(status);
        job.was_interrupted(signal);
        assert!(job.said().contains(&format!("WARNING: {left}\n")), "{}", job.said());
        assert!(!at("new").exists());
        if args.contains("new") {
            assert!(at("new.part").exists());
            std::fs::remove_file(at("new.part")).unwrap();
        } else if !args.contains("-s") {
            assert_no_boot_sector(&(if args.contains("old") { at("old") } else { disk.0.clone() }));
        }
    }
    drop(slow);
}

#[test]
fn while_the_volume_is_scanned_nothing_changes() {
    let place = Place::new();
    small_volume(&place.at("volume"));
    // `$MFT` alone takes a second.
    let slow = SlowDisk::new(&place, 250_000);
    std::fs::write(place.at("old"), "what was there").unwrap();
    for (args, phase) in [
        ("-o new slow", "Scanning volume"),
        ("--rescue -s -O old slow", "Reading what makes the rest readable"),
    ] {
        let mut job = Running::start(program().args(args.split(' ')).current_dir(place.at("")), false);
        job.says(phase);
        job.signal(SIGINT);
        job.exits(130);
        job.was_interrupted(SIGINT);
        assert_eq!(place.names(), ["old", "slow", "volume"]);
        assert_eq!(std::fs::read(place.at("old")).unwrap(), b"what was there");
    }
    drop(slow);
}

#[test]
fn restores_from_a_pipe() {
    let place = Place::new();
    let at = |name| place.at(name);
    small_volume(&at("volume"));
    ours(["-q", "-s", "-o", text(&at("image")), text(&at("volume"))]).ok();
    let image = std::fs::read(at("image")).unwrap();
    let (first, rest) = image.split_at(image.len() / 2);
    for (args, signal, status) in
        [("-r -o new -", SIGINT, 130), ("-r -O old -", SIGTERM, 143), ("-r -n -", SIGINT, 130)]
    {
        println!("{args}, {signal}");
        std::fs::write(at("old"), "what was there").unwrap();
        let mut command = program();
        command.args(args.split(' ')).current_dir(place.at("")).stdin(Stdio::piped());
        let mut job = Running::start(&mut command, false);
        let mut input = job.child.stdin.take().unwrap();
        input.write_all(first).unwrap();
        job.says(if args.contains("-n") { "Checking the image" } else { "Restoring NTFS from image" });
        job.signal(signal);
        job.says("ending");
        // It reads on to the end of what it was about to read, no further.
        let _gone = input.write_all(rest);
        job.exits(status);
        job.was_interrupted(signal);
        assert!(!at("new").exists());
        if args.contains("old") {
            assert_no_boot_sector(&at("old"));
        }
    }
    assert_no_boot_sector(&at("new.part"));
}

/// How long two signals are one request, and a bit more.
const ONE_REQUEST: Duration = Duration::from_millis(700);

/// A volume that is saved to a pipe which nobody reads, so that the job hangs in a write.
fn hanging(place: &Place) -> (Running, ChildStdout) {
    if !place.at("volume").exists() {
        small_volume(&place.at("volume"));
    }
    let args = ["-s", "-o", "-", text(&place.at("volume"))].map(str::to_owned);
    let mut job = Running::start(program().args(args), true);
    let mut output = job.child.stdout.take().unwrap();
    output.read_exact(&mut [0; 56]).unwrap();
    job.says("Saving NTFS to image");
    (job, output)
}

#[test]
fn a_write_that_hangs() {
    let place = Place::new();
    let at_once = |signal: Signal| format!("ERROR: ended by {signal} before the job was done");

    // One signal ends it after a while, two at once.
    let (mut job, _output) = hanging(&place);
    let start = Instant::now();
    job.signal(SIGTERM);
    job.says("SIGTERM: ending; once more to end at once\n");
    job.exits(143);
    job.says(&at_once(SIGTERM));
    assert!(start.elapsed() >= GRACE && start.elapsed() < 3 * GRACE, "{:?}", start.elapsed());
    for (first, second, status) in [(SIGINT, SIGINT, 130), (SIGINT, SIGTERM, 143)] {
        let (mut job, _output) = hanging(&place);
        let start = Instant::now();
        job.signal(first);
        job.says("SIGINT: ending; once more to end at once\n");
        // Sooner it would be the same request.
        std::thread::sleep(ONE_REQUEST);
        job.signal(second);
        job.exits(status);
        job.says(&at_once(second));
        assert!(start.elapsed() < GRACE, "{:?}", start.elapsed());
    }

    // If the reader goes on, it ends in order, also if timeout(1) sends the signal twice.
    let (mut job, mut output) = hanging(&place);
    job.signal(SIGINT);
    job.says("ending");
    job.signal(SIGINT);
    output.read_to_end(&mut Vec::new()).unwrap();
    job.exits(130);
    job.was_interrupted(SIGINT);
}

#[test]
fn ignored_signals_stay_ignored() {
    let place = Place::new();
    small_volume(&place.at("volume"));
    ours(["-q", "-s", "--no-checksum", "-o", text(&place.at("image")), text(&place.at("volume"))]).ok();
    for (ignored, ending) in [("INT", None), ("INT", Some((SIGTERM, 143))), ("INT TERM", None)] {
        let line = format!("trap '' {ignored}; exec {OURS} -s -o - {}", text(&place.at("volume")));
        let mut job = Running::start(listening("sh").args(["-c", &line]), true);
        let mut output = job.child.stdout.take().unwrap();
        let mut image = vec![0; 56];
        output.read_exact(&mut image).unwrap();
        for signal in [SIGINT, SIGINT] {
            job.signal(signal);
        }
        if ignored.contains("TERM") {
            job.signal(SIGTERM);
        }
        if let Some((signal, _)) = ending {
            job.signal(signal);
            job.says("SIGTERM: ending");
        }
        output.read_to_end(&mut image).unwrap();
        job.exits(ending.map_or(0, |(_, status)| status));
        assert!(!job.said().contains("SIGINT"), "{}", job.said());
        if ending.is_none() {
            std::fs::write(place.at("piped"), image).unwrap();
            assert_same(&place.at("piped"), &place.at("image"));
        }
    }
}

#[test]
fn messages_that_nobody_reads() {
    let place = Place::new();
    small_volume(&place.at("volume"));
    // A pipe that is full from the start: the first message hangs.
    let (_reader, writer) = std::io::pipe().unwrap();
    let size = fcntl(writer.as_fd(), FcntlArg::F_GETPIPE_SZ).unwrap() as usize;
    (&writer).write_all(&vec![b'x'; size]).unwrap();
    let args = ["-s", "-o", text(&place.at("new")), text(&place.at("volume"))].map(str::to_owned);
    for signals in [&[SIGTERM][..], &[SIGTERM, SIGTERM]] {
        let mut child =
            program().args(&args).stdout(writer.try_clone().unwrap()).stderr(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let blocks_signals = || {
            let status = std::fs::read_to_string(&status).unwrap();
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
            u64::from_str_radix(blocked, 16).unwrap() >> (SIGTERM as i32 - 1) & 1 == 1
        };
        wait_for("the program to watch for signals", blocks_signals);
        let start = Instant::now();
        for signal in signals {
            send(child.id(), *signal);
            // Until then, one more of the same kind would count for nothing.
            let pending = || {
                let status = std::fs::read_to_string(&status).unwrap();
                let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:\t")).unwrap();
                u64::from_str_radix(pending, 16).unwrap() == 0
            };
            wait_for("the signal to be taken", pending);
        }
        let ended = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            child.try_wait().unwrap().is_some()
        });
        let _ended = child.kill();
        assert!(ended, "it waits for somebody to read its messages");
        assert_eq!(status_of(child.wait().unwrap()), 143);
        assert!(signals.len() == 1 || start.elapsed() < GRACE, "{:?}", start.elapsed());
    }
}
