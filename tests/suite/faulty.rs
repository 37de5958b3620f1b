//! Disks with sectors that cannot be read: a loop device over a file that QEMU's storage daemon exports through
//! FUSE, with its fault injection below. The host's kernel sees a disk that fails at exactly those sectors.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tools::{Loop, faults, text, wait_for};

/// A disk that fails.
pub struct FaultyDisk {
    device: Option<Loop>,
    daemon: Child,
}

impl FaultyDisk {
    /// `image` as a disk with logical sectors of `sector_size` bytes; reads that touch one of the `bad` 512-byte
    /// sectors fail.
    pub fn new(image: &Path, sector_size: u32, bad: &[u64]) -> FaultyDisk {
        FaultyDisk::slow(image, sector_size, bad, 0)
    }

    /// The same, with so many bytes a second at most; 0: as fast as it can.
    pub fn slow(image: &Path, sector_size: u32, bad: &[u64], bytes_per_second: u32) -> FaultyDisk {
        let nodes = [
            ["--blockdev", &format!("driver=file,filename={},node-name=file", text(image))],
            ["--blockdev", &faults("faults", "file", 5, bad)],
            ["--object", &format!("throttle-group,id=group,x-bps-read={bytes_per_second}")],
            ["--blockdev", "driver=throttle,file=faults,throttle-group=group,node-name=disk"],
        ];
        FaultyDisk::with(image, sector_size, &nodes)
    }

    /// A disk of `len` bytes that loses all that is written, and reads as zeros; its names begin with `at`.
    pub fn forgetful(at: &Path, len: u64) -> FaultyDisk {
        let nodes = [["--blockdev", &format!("driver=null-co,size={len},read-zeroes=on,node-name=disk")]];
        FaultyDisk::with(at, 512, &nodes)
    }

    /// The node `disk` of these.
    fn with(at: &Path, sector_size: u32, nodes: &[[&str; 2]]) -> FaultyDisk {
        let export = at.with_extension("export");
        std::fs::write(&export, "").unwrap();
        let daemon = Command::new("qemu-storage-daemon")
            .args(nodes.as_flattened())
            .args([
                "--export",
                &format!("type=fuse,id=e,node-name=disk,mountpoint={},writable=on", text(&export)),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run qemu-storage-daemon: {error}"));
        let mut disk = FaultyDisk { device: None, daemon };
        wait_for("the faulty disk", || {
            assert!(disk.daemon.try_wait().unwrap().is_none(), "qemu-storage-daemon has ended");
            export.metadata().is_ok_and(|metadata| metadata.len() > 0)
        });
        disk.device = Some(Loop::attach(&export, sector_size));
        disk
    }

    /// From now on each read hangs.
    pub fn hang(&self) {
        self.send(Signal::SIGSTOP);
    }

    /// It answers again, also what hung.
    pub fn recover(&self) {
        self.send(Signal::SIGCONT);
    }

    fn send(&self, signal: Signal) {
        // One that has ended fails the test elsewhere.
        let _ended = kill(Pid::from_raw(self.daemon.id() as i32), signal);
    }

    pub fn path(&self) -> PathBuf {
        self.device.as_ref().unwrap().0.clone()
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.recover();
        self.device = None;
        // Asked to end it unmounts its export; killed it would not.
        self.send(Signal::SIGTERM);
        let _ended = self.daemon.wait();
    }
}
