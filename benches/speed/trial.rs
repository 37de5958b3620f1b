//! The runs of a row: each tool in turn, and that again and again.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::OFlag;
use ntfsrescue::interrupt::Interrupt;

use crate::checks;
use crate::measure::{Cost, measure, piped};
use crate::rows::{Makes, PARTCLONE_RESTORE, Row, Source, Target, Tool};
use crate::shared::loops::loop_device;
use crate::shared::programs::{Outcome, run, text};
use crate::volumes::Sample;

/// What a device holds before the first copy that is compared: nothing that a volume holds.
const STALE: u8 = 0xa5;

/// Bytes of a write when a device is filled with that, or the page cache.
const WRITE: usize = 4 << 20;
const PAGE: usize = 4096;

/// What the runs have in common.
pub struct Bench<'a> {
    pub ours: &'a Path,
    /// A folder for outputs, on the file system of the volumes.
    pub scratch: &'a Path,
    pub nr_runs: usize,
    /// Is the page cache filled and freed before each run that writes?
    pub prime: bool,
    pub interrupt: &'a Interrupt,
}

/// What a row's runs took: for each of its tools, each run.
pub struct Measured {
    pub row: &'static Row,
    pub costs: Vec<Vec<Cost>>,
    /// Clusters in use of the volume.
    pub nr_used: u64,
}

impl Bench<'_> {
    /// Runs each of these tools in turn, as often as is wanted, and once before. That run's output is checked and its time
    /// not counted: a virtual machine may first have to be given the memory by its host.
    pub fn tools(
        &self,
        tools: &[Tool],
        source: Source,
        target: Target,
        sample: &Sample,
    ) -> Outcome<Vec<Vec<Cost>>> {
        let sources = self.sources(tools, source, sample)?;
        let device = match target {
            Target::Device => Some(self.device(sample.geometry.device_size)?),
            Target::File | Target::Null => None,
        };
        let out = device.as_ref().map_or_else(|| self.at("out"), |device| device.path.clone());
        let mut costs = vec![Vec::new(); tools.len()];
        for nth in 0..=self.nr_runs {
            for (i, tool) in tools.iter().enumerate() {
                let words = self.words(tool.command, sample, &sources.paths[i], &out);
                if target == Target::Null && nth == 0 {
                    piped(&words, self.scratch, |image| self.check_piped(tool, sample, image))
                        .map_err(|error| format!("{}: {error}", tool.title))?;
                }
                if let Some(device) = device.as_ref().filter(|_| nth == 0) {
                    device.fill()?;
                }
                if target != Target::Null && self.prime {
                    self.prime(sample)?;
                }
                self.settle(&sources, device.as_ref())?;
                let cost = measure(&words, self.scratch, self.interrupt)?;
                let (wall_s, cpu_s) = (cost.wall_s, cost.cpu_s);
                eprintln!("  {nth}/{} {}: {wall_s:.2} s, processor {cpu_s:.2} s", self.nr_runs, tool.title);
                if nth > 0 {
                    costs[i].push(cost);
                }
                if target != Target::Null && nth == 0 {
                    self.check(tool, sample, &out).map_err(|error| format!("{}: {error}", tool.title))?;
                }
                if target == Target::File {
                    fs::remove_file(&out)?;
                }
            }
        }
        for path in &sources.images {
            fs::remove_file(path)?;
        }
        Ok(costs)
    }

    /// What each of the tools reads; in the page cache, but for devices.
    fn sources(&self, tools: &[Tool], source: Source, sample: &Sample) -> Outcome<Sources> {
        let mut sources = Sources::default();
        match source {
            Source::File => {
                warm(&sample.path)?;
                sources.paths = vec![sample.path.clone(); tools.len()];
            }
            Source::Device => {
                let (opened, path) = loop_device(&sample.path, true)?;
                sources.paths = vec![path; tools.len()];
                sources.device = Some(opened);
            }
            Source::Image => {
                for (i, tool) in tools.iter().enumerate() {
                    let image = self.at(&format!("image-{i}"));
                    measure(
                        &self.words(tool.save, sample, &sample.path, &image),
                        self.scratch,
                        self.interrupt,
                    )?;
                    sources.paths.push(image.clone());
                    sources.images.push(image);
                }
                sources.images.iter().try_for_each(|image| warm(image))?;
            }
        }
        Ok(sources)
    }

    /// A loop device of this many bytes, whose file is wholly allocated once it has been filled.
    fn device(&self, len: u64) -> Outcome<Device> {
        let backing = self.at("disk");
        File::create(&backing)?.set_len(len)?;
        let (opened, path) = loop_device(&backing, false)?;
        Ok(Device { backing, len, path, _opened: opened })
    }

    /// Fills as much of the page cache as the output may take, and frees it again. The host of a virtual machine may have
    /// taken back memory that was free, and to get it again takes longer than any of the copies: by turns, from what happens
    /// to be there, it would hit one tool or the other.
    fn prime(&self, sample: &Sample) -> Outcome<()> {
        let path = self.at("prime");
        let mut file = File::create(&path)?;
        let zeros = vec![0; WRITE];
        for _ in (0..sample.used_len()).step_by(WRITE) {
            file.write_all(&zeros)?;
        }
        Ok(fs::remove_file(&path)?)
    }

    /// Lets what earlier runs left behind not count for this one.
    fn settle(&self, sources: &Sources, device: Option<&Device>) -> Outcome<()> {
        run(Command::new("sync").arg("--file-system").arg(self.scratch))?;
        let read = sources.device.as_ref().and(sources.paths.first());
        for path in read.into_iter().chain(device.map(|device| &device.path)) {
            run(Command::new("blockdev").arg("--flushbufs").arg(path))?;
        }
        Ok(())
    }

    fn check(&self, tool: &Tool, sample: &Sample, out: &Path) -> Outcome<()> {
        let raw = self.at("raw");
        match tool.makes {
            Makes::Image => checks::same_clusters(sample, File::open(out)?),
            Makes::Volume => {
                checks::same_bytes(sample, out, sample.used.iter().cloned().chain([sample.extra()]))
            }
            Makes::Clusters => checks::same_bytes(sample, out, sample.used.iter().cloned()),
            Makes::Bytes => {
                checks::same_bytes(sample, out, std::iter::once(0..sample.used_len() >> 20 << 20))
            }
            Makes::PartcloneImage => {
                measure(&self.words(PARTCLONE_RESTORE, sample, out, &raw), self.scratch, self.interrupt)?;
                checks::same_bytes(sample, &raw, sample.used.iter().cloned())?;
                Ok(fs::remove_file(&raw)?)
            }
            Makes::MetadataImage => {
                let restore = ["ntfsclone", "-q", "-r", "-o", "{out}", "{src}"];
                measure(&self.words(&restore, sample, out, &raw), self.scratch, self.interrupt)?;
                checks::same_usage(sample, &raw)?;
                Ok(fs::remove_file(&raw)?)
            }
        }
    }

    /// The same for what goes to standard output.
    fn check_piped(&self, tool: &Tool, sample: &Sample, image: &mut dyn std::io::Read) -> Outcome<()> {
        if tool.makes == Makes::Image {
            return checks::same_clusters(sample, image);
        }
        let path = self.at("piped");
        std::io::copy(image, &mut File::create(&path)?)?;
        self.check(tool, sample, &path)?;
        Ok(fs::remove_file(&path)?)
    }

    /// A command line with what its words stand for.
    fn words(&self, command: &[&str], sample: &Sample, src: &Path, out: &Path) -> Vec<String> {
        let mib = (sample.used_len() >> 20).to_string();
        let fill_in = |word: &&str| {
            word.replace("{src}", text(src))
                .replace("{out}", text(out))
                .replace("{log}", text(&self.at("log")))
                .replace("{ours}", text(self.ours))
                .replace("{mib}", &mib)
        };
        command.iter().map(fill_in).collect()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }
}

/// What the tools read, each its own.
#[derive(Default)]
struct Sources {
    paths: Vec<PathBuf>,
    /// Images that go away in the end.
    images: Vec<PathBuf>,
    /// The device, if that is what they read.
    device: Option<File>,
}

/// A device to write to.
struct Device {
    backing: PathBuf,
    len: u64,
    path: PathBuf,
    _opened: File,
}

impl Device {
    /// Overwrites all of it.
    fn fill(&self) -> Outcome<()> {
        let direct = OFlag::O_DIRECT.bits();
        let file = fs::OpenOptions::new().write(true).custom_flags(direct).open(&self.backing)?;
        // As O_DIRECT wants it: all that is written begins at a page.
        let store = vec![STALE; WRITE + PAGE];
        let buffer = &store[store.as_ptr().align_offset(PAGE)..][..WRITE];
        for pos in (0..self.len).step_by(WRITE) {
            let n = (self.len - pos).min(WRITE as u64) as usize;
            file.write_all_at(&buffer[..n], pos)?;
        }
        Ok(file.sync_all()?)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _best_effort = fs::remove_file(&self.backing);
    }
}

/// Reads all of a file that is not a hole, so that it is in the page cache.
fn warm(path: &Path) -> Outcome<()> {
    use nix::unistd::{Whence, lseek64};
    let mut buffer = vec![0; 1 << 20];
    let file = File::open(path)?;
    let mut at = 0;
    while let Ok(start) = lseek64(&file, at, Whence::SeekData) {
        at = lseek64(&file, start, Whence::SeekHole)?;
        let mut pos = start as u64;
        while pos < at as u64 {
            let n = (at as u64 - pos).min(buffer.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..n], pos)?;
            pos += n as u64;
        }
    }
    Ok(())
}
