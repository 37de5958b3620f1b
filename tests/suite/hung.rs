//! Reads made by a child process: the same bytes and errors as without one, and a disk that hangs keeps nobody from
//! going on.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use ntfsrescue::io::disk::Disk;
use ntfsrescue::io::remote::{Ask, Remote, Wait};
use ntfsrescue::io::{Loss, Source};
use ntfsrescue::sys::create_shared_memory;

use crate::faulty::FaultyDisk;
use crate::tools::{noise, text, wait_for};
use crate::volumes::Place;

const OURS: &str = env!("CARGO_BIN_EXE_ntfsrescue");

const SIZE: usize = 4 << 20;

/// Goes on for ever.
const PATIENT: Ask<'static> = &|_| Wait::Go;

fn start<'a>(disk: &FaultyDisk, ask: Ask<'a>) -> Remote<'a> {
    Remote::start_with(Path::new(OURS), Disk::open(&disk.path()).unwrap(), ask).unwrap()
}

/// A disk of noise with a bad 512-byte sector.
fn noisy(place: &Place, sector_size: u32, bad: u64) -> (FaultyDisk, Vec<u8>) {
    let bytes = noise(9, SIZE);
    std::fs::write(place.at("disk"), &bytes).unwrap();
    (FaultyDisk::new(&place.at("disk"), sector_size, &[bad]), bytes)
}

/// The process that reads this disk: its error output is the device.
fn reader(disk: &FaultyDisk) -> Process {
    let children = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: i32 = entry.unwrap().file_name().to_str()?.parse().ok()?;
        let device = std::fs::read_link(format!("/proc/{pid}/fd/2")).ok()?;
        (device == disk.path()).then_some(Process(pid))
    });
    let children: Vec<_> = children.collect();
    assert_eq!(children.len(), 1, "processes that read {}", text(&disk.path()));
    children[0]
}

#[derive(Clone, Copy)]
struct Process(i32);

impl Process {
    /// The letter of its state; none where it is gone.
    fn state(self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    fn has_ended(self) -> bool {
        self.state().is_none_or(|state| state == 'Z')
    }

    fn group(self) -> i32 {
        nix::unistd::getpgid(Some(Pid::from_raw(self.0))).unwrap().as_raw()
    }

    /// What it has open.
    fn files(self) -> Vec<PathBuf> {
        let links = std::fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap();
        links.map(|link| std::fs::read_link(link.unwrap().path()).unwrap()).collect()
    }
}

#[test]
fn a_child_reads_what_we_would() {
    // What the tests were started with is open here; a file of ours without close-on-exec would be like that.
    let (_reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    for (sector_size, bad, lost) in [(512, 3001, 512), (4096, 3001, 4096)] {
        let place = Place::new();
        let (disk, bytes) = noisy(&place, sector_size, bad);
        let remote = start(&disk, PATIENT);
        assert_eq!((remote.len(), remote.sector_size()), (SIZE as u64, sector_size));
        assert_eq!(remote.physical_sector_size(), remote.disk().physical_sector_size());
        let is_same = |pos: u64, len: usize| {
            let mut buf = vec![0; len];
            let read = remote.read_at(pos, &mut buf);
            assert!(read.is_err() || buf == bytes[pos as usize..][..len], "{len} bytes at {pos}");
            read
        };
        // Aligned or not, small and larger than the shared memory.
        for (pos, len) in [(0, 512), (1, 1), (4095, 2), (4096, 65536), (100, 1 << 20), (2 << 20, 2 << 20)] {
            is_same(pos, len).unwrap();
        }
        // The bad sector, and exactly that one.
        let (start, end) = (bad * 512 / lost * lost, (bad * 512 / lost + 1) * lost);
        for (pos, len) in [(start, lost), (start + 5, 1), (start - 4096, 65536), (0, SIZE as u64)] {
            let error = is_same(pos, len as usize).unwrap_err();
            assert_eq!((error.pos, error.len, error.loss()), (pos, len as usize, Loss::BadArea));
            assert_eq!(error.cause.raw_os_error(), Some(5));
        }
        is_same(start - lost, lost as usize).unwrap();
        is_same(end, lost as usize).unwrap();
        // Behind the end there is nothing, as on a disk that was unplugged.
        assert_eq!(remote.read_at(SIZE as u64, &mut [0; 4096]).unwrap_err().loss(), Loss::Gone);

        // It has nothing of ours, and Ctrl-C is not for it.
        let child = reader(&disk);
        assert_eq!(child.group(), child.0);
        let known =
            |name: &str| name.contains("socket:") || name.contains("memfd:") || name == text(&disk.path());
        assert!(child.files().iter().all(|file| known(text(file))), "{:?}", child.files());
        drop(remote);
        assert_eq!(child.state(), None, "it is reaped");
    }
}

#[test]
fn a_disk_that_hangs_is_left_alone() {
    let place = Place::new();
    let (disk, bytes) = noisy(&place, 512, 8000);
    let stop = AtomicBool::new(false);
    let ask = |_| if stop.load(Ordering::Relaxed) { Wait::Stop } else { Wait::Go };
    let remote = start(&disk, &ask);
    let child = reader(&disk);
    let mut buf = vec![0; 65536];
    remote.read_at(0, &mut buf).unwrap();

    // A read that hangs for a while is a good one.
    disk.hang();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| remote.read_at(65536, &mut buf));
        wait_for("the child to hang", || child.state() == Some('D'));
        std::thread::sleep(Duration::from_secs(1));
        disk.recover();
        slow.join().unwrap().unwrap();
    });
    assert!(buf == bytes[65536..131_072]);

    // One that is given up.
    disk.hang();
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| remote.read_at(0, &mut [0; 512]));
        wait_for("the child to hang", || child.state() == Some('D'));
        stop.store(true, Ordering::Relaxed);
        let stopped = Instant::now();
        assert_eq!(hung.join().unwrap().unwrap_err().loss(), Loss::Stopped);
        assert!(stopped.elapsed() < Duration::from_secs(1), "{:?}", stopped.elapsed());
    });
    let start = Instant::now();
    stop.store(false, Ordering::Relaxed);
    assert_eq!(remote.read_at(0, &mut [0; 512]).unwrap_err().loss(), Loss::Stopped);
    drop(remote);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(child.state(), Some('D'), "killed, but the disk still has it");
    disk.recover();
    wait_for("the child to end", || child.has_ended());
}

#[test]
fn a_child_that_is_killed_is_an_error() {
    let place = Place::new();
    let (disk, _) = noisy(&place, 512, 8000);
    let remote = start(&disk, PATIENT);
    kill(Pid::from_raw(reader(&disk).0), Signal::SIGKILL).unwrap();
    for _ in 0..2 {
        let error = remote.read_at(0, &mut [0; 512]).unwrap_err();
        assert_eq!(error.loss(), Loss::Fault);
        let wanted = "the process that reads it has ended (signal: 9 (SIGKILL))";
        assert!(error.to_string().ends_with(wanted), "{error}");
    }
}

#[test]
fn a_child_ends_when_its_parent_has() {
    let place = Place::new();
    std::fs::write(place.at("disk"), noise(9, 4096)).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(OURS);
    command.arg("--read-for-parent").stdin(OwnedFd::from(theirs));
    command.stdout(create_shared_memory(4096).unwrap()).stderr(File::open(place.at("disk")).unwrap());
    let mut child = command.spawn().unwrap();
    drop(command);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None);
    drop(ours);
    wait_for("the child to end", || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
}
