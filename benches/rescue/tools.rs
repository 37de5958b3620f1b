//! The tools that are compared, as data, and one run of one of them on one disk.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Whence, lseek64};
use ntfsrescue::interrupt::Interrupt;

use crate::disk::{Dying, Making};
use crate::history::Entry;
use crate::sectors::{SECTOR, Sectors};
use crate::shared::programs::{Outcome, send, text, tied};
use crate::volume::{Healthy, SEEDS_PER_VOLUME, WANTED};

/// Disks live so many simulated seconds.
pub const LIVES_S: [u32; 5] = [10, 20, 30, 60, 300];

/// A disk that would keep a tool busy for days dies after so many simulated seconds instead.
pub const CUT_S: u32 = 600;

/// When the output of a tool is looked at whose reads do not tell what it holds.
pub const MARKS_S: &[u32] = &[1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 2400];

/// How long a tool may go on when its disk is dead: it only reads errors then. As long once more after each request to end.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// How often a running tool is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// A tool.
pub struct Tool {
    /// Its name, as typed and in the table of raw numbers.
    pub name: &'static str,
    /// As it is shown.
    pub title: &'static str,
    /// Its command line, a word each. `{dev}`, `{out}`, `{map}`, `{domain}`, `{wanted}` and `{ours}` stand for what they say.
    pub command: &'static [&'static str],
    /// Whether all that it reads well is in its output.
    pub keeps: Keeps,
    /// It is run with each so manyth seed only, from the first on.
    pub each_nth_seed: u64,
    /// Options of our program that it takes: without one of them there is no such tool.
    pub needs: &'static [&'static str],
    /// Another tool of ours that is older than this one, and is left out where this one is there.
    pub replaces: Option<&'static str>,
}

/// How it is known what a tool's output holds at some time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// It writes what it reads: its reads tell, for each time. That this is so is checked against outputs, by the runs
    /// of [`check`](crate::check).
    AllItReads,
    /// It reads for itself too, or twice: its disk stops at each mark until its output has been compared.
    Some,
}

/// Names of the tools that the goals speak of.
pub const DOMAIN: &str = "ddrescue-domain";
pub const WHOLE: &str = "ddrescue";
pub const OURS: &str = "ours";
pub const OURS_PLAIN: &str = "ours-plain";
pub const OURS_FIRST: &str = "ours-first";

/// All tools.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "ntfsclone",
        title: "ntfsclone --rescue",
        command: &["ntfsclone", "-q", "-f", "--rescue", "-o", "{out}", "{dev}"],
        keeps: Keeps::Some,
        // Slow, and no goal speaks of it: one seed of each volume.
        each_nth_seed: SEEDS_PER_VOLUME,
        needs: &[],
        replaces: None,
    },
    Tool {
        name: WHOLE,
        title: "ddrescue -d, whole disk",
        command: &["ddrescue", "-q", "-d", "{dev}", "{out}", "{map}"],
        keeps: Keeps::AllItReads,
        each_nth_seed: 1,
        needs: &[],
        replaces: None,
    },
    Tool {
        name: DOMAIN,
        title: "ddrescue -d, perfect domain",
        command: &["ddrescue", "-q", "-d", "-m", "{domain}", "{dev}", "{out}", "{map}"],
        keeps: Keeps::AllItReads,
        each_nth_seed: 1,
        needs: &[],
        replaces: None,
    },
    Tool {
        name: OURS_PLAIN,
        title: "ntfsrescue --rescue",
        command: &["{ours}", "-q", "--rescue", "-o", "{out}", "{dev}"],
        keeps: Keeps::Some,
        each_nth_seed: 1,
        needs: &[],
        replaces: None,
    },
    Tool {
        name: OURS,
        title: "ntfsrescue --rescue --map",
        command: &["{ours}", "-q", "--rescue", "--map", "{map}", "-o", "{out}", "{dev}"],
        keeps: Keeps::AllItReads,
        each_nth_seed: 1,
        needs: &["--map"],
        replaces: Some(OURS_PLAIN),
    },
    Tool {
        name: OURS_FIRST,
        title: "the same with --first",
        command: &[
            "{ours}", "-q", "--rescue", "--map", "{map}", "--first", "{wanted}", "-o", "{out}", "{dev}",
        ],
        keeps: Keeps::AllItReads,
        each_nth_seed: 1,
        needs: &["--map", "--first"],
        replaces: None,
    },
];

impl Tool {
    /// The tool of this name.
    pub fn named(name: &str) -> Outcome<&'static Tool> {
        TOOLS.iter().find(|tool| tool.name == name).ok_or_else(|| format!("unknown tool '{name}'").into())
    }
}

/// The tools that can be run with this build of our program.
pub fn tools(ours: &Path) -> Outcome<Vec<&'static Tool>> {
    // As with ntfsclone, it goes to standard error.
    let output = Command::new(ours).arg("--help").stdin(Stdio::null()).output()?;
    let help = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_there = |option: &&str| help.split_whitespace().any(|word| word == *option);
    let able: Vec<_> = TOOLS.iter().filter(|tool| tool.needs.iter().all(is_there)).collect();
    let is_replaced = |tool: &&Tool| able.iter().any(|other| other.replaces == Some(tool.name));
    Ok(able.iter().copied().filter(|tool| !is_replaced(tool)).collect())
}

/// What came of a run.
pub struct Ran {
    /// All that was asked of the disk.
    pub entries: Vec<Entry>,
    /// Sectors in use that the output held at each mark that was reached, and in the end, where that was to be looked at.
    pub at_marks: Vec<(u32, u64)>,
    pub at_end: Option<u64>,
    /// What the tool said last.
    pub said: String,
    /// Did the disk die?
    pub died: bool,
    /// Seconds that it really took.
    pub real_s: f64,
}

impl Ran {
    /// Simulated seconds after which nothing more was asked.
    pub fn end_s(&self) -> f64 {
        self.entries.last().map_or(0.0, |entry| entry.clock_s)
    }
}

/// A run that is to be made.
pub struct Trial<'a> {
    pub making: Making<'a>,
    pub volume: &'a Healthy,
    /// What of its used sectors can be read.
    pub readable: &'a Sectors,
    /// The words of the command line.
    pub command: Vec<String>,
    /// Is the output to be compared in the end?
    pub compare: bool,
}

impl Trial<'_> {
    /// Runs the tool until it ends or its disk has died.
    pub fn run(&self, ours: &Path, interrupt: &Interrupt) -> Outcome<Ran> {
        let start = Instant::now();
        let disk = Dying::new(&self.making)?;
        let (out, said) = (disk.at("out"), disk.at("said"));
        let fill_in = |word: &String| {
            word.replace("{dev}", text(&disk.path))
                .replace("{out}", text(&out))
                .replace("{map}", text(&disk.at("map")))
                .replace("{domain}", text(&self.volume.domain))
                .replace("{wanted}", &format!("{WANTED}/**"))
                .replace("{ours}", text(ours))
        };
        let words: Vec<_> = self.command.iter().map(fill_in).collect();
        let (program, args) = words.split_first().ok_or("an empty command")?;
        let stderr = File::create(&said)?;
        let child = tied(program)
            .args(args)
            .envs([
                ("DEV", &disk.path),
                ("OUT", &out),
                ("MAP", &disk.at("map")),
                ("DOMAIN", &self.volume.domain),
            ])
            .stdin(Stdio::null())
            .stdout(stderr.try_clone()?)
            .stderr(stderr)
            .spawn()
            .map_err(|error| format!("cannot run {program}: {error}"))?;
        let mut running = Running(child);
        let mut at_marks = Vec::new();
        let mut died_at: Option<Instant> = None;
        while running.0.try_wait()?.is_none() {
            if let Some(mark_s) = disk.mark_s() {
                settle(&out)?;
                at_marks.push((mark_s, self.held(&out)?));
                disk.go_on()?;
            }
            if disk.is_dead() {
                let since = died_at.get_or_insert_with(Instant::now).elapsed();
                // Ours ends in order on SIGINT, which the others, as we start them, do not see.
                match since.as_millis() / LAST_BREATH.as_millis() {
                    0 => {}
                    1 => send(&running.0, Signal::SIGINT),
                    2 => send(&running.0, Signal::SIGHUP),
                    _ => send(&running.0, Signal::SIGKILL),
                }
            }
            if interrupt.signal().is_some() {
                return Err("interrupted".into());
            }
            std::thread::sleep(LOOK);
        }
        let at_end =
            if self.compare || !self.making.marks_s.is_empty() { Some(self.held(&out)?) } else { None };
        let mut log = String::new();
        File::open(&said)?.take(1 << 20).read_to_string(&mut log).unwrap_or(0);
        let died = disk.is_dead();
        drop(running);
        Ok(Ran {
            entries: disk.history()?,
            at_marks,
            at_end,
            said: log.trim().to_owned(),
            died,
            real_s: start.elapsed().as_secs_f64(),
        })
    }

    fn held(&self, out: &Path) -> Outcome<u64> {
        Ok(held_by(out, &self.volume.path, self.readable)?)
    }
}

/// Ends the tool when the harness goes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            send(&self.0, Signal::SIGKILL);
            let _ended = self.0.wait();
        }
    }
}

/// Waits until a tool whose disk does not answer has written what it still had.
fn settle(out: &Path) -> Outcome<()> {
    use std::os::unix::fs::MetadataExt;
    let look = || written(out).metadata().map(|out| (out.len(), out.blocks(), out.mtime_nsec())).ok();
    let mut before = look();
    loop {
        std::thread::sleep(10 * LOOK);
        let now = look();
        if now == before {
            return Ok(());
        }
        before = now;
    }
}

/// The output, which has another name until it is finished.
fn written(out: &Path) -> PathBuf {
    let part = out.with_extension("part");
    if out.exists() { out.to_owned() } else { part }
}

/// How many of these sectors of a volume its copy holds. What the copy has as a hole it does not hold, though it reads as
/// zeros where the volume may have zeros too.
fn held_by(copy: &Path, volume: &Path, sectors: &Sectors) -> std::io::Result<u64> {
    const PIECE: u64 = 1 << 20;
    let Ok(mut copy) = File::open(written(copy)) else { return Ok(0) };
    let volume = File::open(volume)?;
    let len = copy.seek(SeekFrom::End(0))?.min(volume.metadata()?.len());
    let [mut a, mut b] = [vec![0; PIECE as usize], vec![0; PIECE as usize]];
    let (mut held, mut at) = (0, 0);
    while let Ok(start) = lseek64(&copy, at, Whence::SeekData) {
        at = lseek64(&copy, start, Whence::SeekHole)?;
        let end = (at as u64).min(len);
        for pos in (start as u64..end).step_by(PIECE as usize) {
            let n = (end - pos).min(PIECE) as usize;
            copy.read_exact_at(&mut a[..n], pos)?;
            volume.read_exact_at(&mut b[..n], pos)?;
            let pairs = a[..n].chunks_exact(SECTOR as usize).zip(b[..n].chunks_exact(SECTOR as usize));
            let same = |(sector, (a, b)): (u64, (&[u8], &[u8]))| sectors.contains(sector) && a == b;
            held += (pos / SECTOR..).zip(pairs).filter(|pair| same(*pair)).count() as u64;
        }
    }
    Ok(held)
}
