//! A dying disk as a block device: the plugin in nbdkit, its disk as a file through nbdfuse, that file as a read-only loop
//! device with direct I/O, so that a bad sector is exactly one sector.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::history::{Entry, read_log};
use crate::shared::loops::loop_device;
use crate::shared::programs::{Outcome, run, send, text, tied, wait_for};

/// Where the outputs go while they are written, if it is there: in memory, so that no real disk takes part.
const IN_MEMORY: &str = "/dev/shm";

/// The plugin's source.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/rescue/dying.c");

/// Compiles the plugin into the folder.
pub fn compile_plugin(folder: &Path) -> Outcome<PathBuf> {
    let plugin = folder.join("dying.so");
    run(Command::new("gcc").args(["-Wall", "-shared", "-fPIC", "-O2", SOURCE, "-o"]).arg(&plugin))?;
    Ok(plugin)
}

/// What a disk is made of, and how it ends.
pub struct Making<'a> {
    pub plugin: &'a Path,
    /// The healthy volume, and the file that names its faults.
    pub image: &'a Path,
    pub faults: &'a Path,
    /// Simulated seconds until it dies.
    pub life_s: Option<u32>,
    /// Simulated seconds at which it waits to be looked at.
    pub marks_s: &'a [u32],
}

/// A disk that is there until this is dropped, and a folder for what is rescued from it.
pub struct Dying {
    /// Held open, because the loop device goes when nobody has it open any more: so it goes with this process, whatever
    /// becomes of that.
    device: Option<File>,
    /// The device's name.
    pub path: PathBuf,
    nbdfuse: Option<Child>,
    nbdkit: Option<Child>,
    place: TempDir,
}

impl Dying {
    /// Makes a disk; its clock begins to run with the next read.
    pub fn new(making: &Making<'_>) -> Outcome<Dying> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("ntfsrescue-bench-");
        let in_memory = Path::new(IN_MEMORY);
        let place = if in_memory.is_dir() { builder.tempdir_in(in_memory) } else { builder.tempdir() }?;
        let mut disk = Dying { device: None, path: PathBuf::new(), nbdfuse: None, nbdkit: None, place };
        disk.start(making)?;
        Ok(disk)
    }

    fn start(&mut self, making: &Making<'_>) -> Outcome<()> {
        let socket = self.at("socket");
        let marks: Vec<_> = making.marks_s.iter().map(u32::to_string).collect();
        let nbdkit = Command::new("nbdkit")
            .args(["-f", "-t", "1", "--exit-with-parent", "-U", text(&socket), text(making.plugin)])
            .arg(format!("img={}", making.image.display()))
            .arg(format!("faults={}", making.faults.display()))
            .args(["stat", "log", "armed", "pause"].map(|name| format!("{name}={}", self.at(name).display())))
            .arg(format!("life_s={}", making.life_s.unwrap_or(0)))
            .arg(format!("marks={}", marks.join(",")))
            .stdout(Stdio::null())
            .stderr(File::create(self.at("nbdkit.err"))?)
            .spawn()?;
        self.nbdkit = Some(nbdkit);
        wait_for("nbdkit to listen", || socket.exists())?;

        let file = self.at("disk.raw");
        File::create(&file)?;
        let nbdfuse = tied("nbdfuse")
            .args(["-r", text(&file)])
            .arg(format!("nbd+unix:///?socket={}", socket.display()))
            .stdout(Stdio::null())
            .stderr(File::create(self.at("nbdfuse.err"))?)
            .spawn()?;
        self.nbdfuse = Some(nbdfuse);
        wait_for("nbdfuse to mount", || file.metadata().is_ok_and(|file| file.len() > 0))?;

        let (device, path) = loop_device(&file, true)?;
        (self.device, self.path) = (Some(device), path);
        File::create(self.at("armed"))?;
        Ok(())
    }

    /// A name in the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Has it died?
    pub fn is_dead(&self) -> bool {
        fs::read_to_string(self.at("stat")).is_ok_and(|stat| stat.contains("dead 1"))
    }

    /// The mark at which it waits, if it does.
    pub fn mark_s(&self) -> Option<u32> {
        fs::read_to_string(self.at("pause")).ok()?.trim().parse().ok()
    }

    /// Lets it go on.
    pub fn go_on(&self) -> Outcome<()> {
        Ok(fs::remove_file(self.at("pause"))?)
    }

    /// Takes the disk down and returns all that was asked of it.
    pub fn history(mut self) -> Outcome<Vec<Entry>> {
        self.take_down();
        Ok(read_log(&self.at("log"))?)
    }

    fn take_down(&mut self) {
        let _not_waiting = fs::remove_file(self.at("pause"));
        drop(self.device.take());
        if let Some(mut nbdfuse) = self.nbdfuse.take() {
            let file = self.at("disk.raw");
            // The loop device may still be on its way out.
            let unmounted = wait_for("the loop device to go", || {
                let status = Command::new("fusermount3").args(["-q", "-u"]).arg(&file).status();
                status.is_ok_and(|status| status.success()) || !matches!(nbdfuse.try_wait(), Ok(None))
            });
            if unmounted.is_err() {
                let _lazily = Command::new("fusermount3").args(["-u", "-z"]).arg(&file).status();
            }
            let _ended = nbdfuse.wait();
        }
        if let Some(mut nbdkit) = self.nbdkit.take() {
            send(&nbdkit, Signal::SIGTERM);
            let _ended = nbdkit.wait();
        }
    }
}

impl Drop for Dying {
    fn drop(&mut self) {
        self.take_down();
    }
}
