//! `make bench-rescue`: how much ntfsrescue saves from disks that die while they are read, and how much ntfsclone and
//! ddrescue do, the latter also with a map of what is in use for nothing.
//!
//! Each disk is a healthy volume ([`volume`]) behind a plugin that makes it fail as a pattern says ([`faults`]) and keeps a
//! simulated clock ([`disk`], dying.c). Everything goes through that disk, the reading of metadata too. No tool sees the
//! clock and nothing sleeps, so a disk that lives longer behaves as one that does not, up to that one's death: one run
//! for ever, whose requests are logged with their times, gives the figures for each life ([`history`]). That outputs
//! hold what was read is checked by runs on disks that do die ([`check`]); of tools of which it is not so, the output
//! itself is compared at each mark ([`tools`]).
//!
//! Arguments, all optional: `seeds=20` or `seeds=3-7`, `patterns=NAME,...`, `tools=NAME,...`, `jobs=2`, `ours=PROGRAM`,
//! `csv=FILE`, `figure=FILE.svg`. Or `one PATTERN SEED COMMAND`, which runs one shell command that uses `$DEV`, `$OUT`, `$MAP` and
//! `$DOMAIN`; `life=SECONDS` lets its disk die.

// A benchmark may panic: then it has failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod check;
mod disk;
mod faults;
mod figure;
mod history;
mod results;
mod sectors;
#[path = "../shared/mod.rs"]
mod shared;
mod table;
mod tools;
mod volume;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ntfsrescue::interrupt::Interrupt;

use crate::disk::Making;
use crate::faults::{PATTERNS, Pattern};
use crate::results::Row;
use crate::sectors::Sectors;
use crate::shared::job::{self, carry_out};
use crate::shared::programs::Outcome;
use crate::tools::{CUT_S, Keeps, LIVES_S, MARKS_S, Ran, Tool, Trial};
use crate::volume::Healthy;

fn main() -> ExitCode {
    carry_out("bench-rescue", |interrupt| Options::parse()?.go(interrupt))
}

/// What is to be done.
struct Options {
    seeds: std::ops::RangeInclusive<u64>,
    patterns: Vec<&'static Pattern>,
    tools: Option<Vec<String>>,
    jobs: usize,
    ours: PathBuf,
    csv: PathBuf,
    figure: Option<PathBuf>,
    life_s: Option<u32>,
    /// Pattern, seed and command.
    one: Option<(&'static Pattern, u64, String)>,
    /// Where volumes and numbers are kept.
    folder: PathBuf,
}

impl Options {
    fn parse() -> Outcome<Options> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let mut options = Options {
            seeds: 1..=20,
            patterns: PATTERNS.iter().collect(),
            tools: None,
            jobs: 2,
            ours: env!("CARGO_BIN_EXE_ntfsrescue").into(),
            csv: folder.join("rescue.csv"),
            figure: None,
            life_s: None,
            one: None,
            folder,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            match (name, value) {
                ("one", "") => {
                    let mut next = || words.next().ok_or("one PATTERN SEED COMMAND");
                    options.one = Some((pattern(&next()?)?, next()?.parse()?, next()?));
                }
                // cargo adds it.
                ("--bench", "") | (_, "") => {}
                ("seeds", value) => {
                    let (first, last) = value.split_once('-').unwrap_or(("1", value));
                    options.seeds = first.parse()?..=last.parse()?;
                }
                ("patterns", value) => {
                    options.patterns = value.split(',').map(pattern).collect::<Outcome<_>>()?
                }
                ("tools", value) => options.tools = Some(value.split(',').map(str::to_owned).collect()),
                ("jobs", value) => options.jobs = value.parse()?,
                ("ours", value) => options.ours = value.into(),
                ("csv", value) => options.csv = value.into(),
                ("figure", value) => options.figure = Some(value.into()),
                ("life", value) => options.life_s = Some(value.parse()?),
                _ => return Err(format!("unknown argument '{word}'").into()),
            }
        }
        Ok(options)
    }

    fn go(&self, interrupt: &Interrupt) -> Outcome<()> {
        job::wants_root()?;
        std::fs::create_dir_all(&self.folder)?;
        let plugin = disk::compile_plugin(&self.folder)?;
        let bench = Bench { options: self, plugin, interrupt };
        if let Some((pattern, seed, command)) = &self.one {
            return bench.one(pattern, *seed, command);
        }
        let rows = bench.all()?;
        results::write_csv(&rows, &self.csv)?;
        if let Some(path) = &self.figure {
            std::fs::write(path, figure::figure(&rows))?;
        }
        self.patterns.iter().for_each(|pattern| print!("{}", table::table(pattern, &rows)));
        println!("{}", table::footnote());
        let nr_wrong = bench.check(&rows)?;
        let mut nr_missed = 0;
        for pattern in &self.patterns {
            let (lines, missed) = table::verdict(pattern, &rows);
            nr_missed += missed;
            print!("{}:\n{lines}", pattern.name);
        }
        println!("{nr_missed} goals missed; raw numbers in {}", self.csv.display());
        match nr_wrong {
            0 => Ok(()),
            _ => Err(format!("{nr_wrong} outputs do not hold what was computed").into()),
        }
    }
}

fn pattern(name: &str) -> Outcome<&'static Pattern> {
    Pattern::named(name).ok_or_else(|| {
        let names: Vec<_> = PATTERNS.iter().map(|pattern| pattern.name).collect();
        format!("unknown pattern '{name}', wanted one of {}", names.join(", ")).into()
    })
}

struct Bench<'a> {
    options: &'a Options,
    plugin: PathBuf,
    interrupt: &'a Interrupt,
}

impl Bench<'_> {
    /// The volume of a seed.
    fn volume(&self, seed: u64) -> Outcome<Healthy> {
        Healthy::of_seed(&self.options.folder, seed)
    }

    /// The file that names a disk's faults.
    fn faults_path(&self, pattern: &Pattern, seed: u64) -> PathBuf {
        self.options.folder.join(format!("faults-{}-{seed}.txt", pattern.name))
    }

    /// Runs every tool on every disk.
    fn all(&self) -> Outcome<Vec<Row>> {
        let mut tools = tools::tools(&self.options.ours)?;
        if let Some(names) = &self.options.tools {
            tools.retain(|tool| names.iter().any(|name| name == tool.name));
        }
        let patterns = &self.options.patterns;
        let disks: Vec<_> = self
            .options
            .seeds
            .clone()
            .flat_map(|seed| patterns.iter().map(move |pattern| (*pattern, seed)))
            .collect();
        let volumes: Vec<_> =
            self.options.seeds.clone().map(|seed| self.volume(seed)).collect::<Outcome<_>>()?;
        let volume_of = |seed: u64| &volumes[(seed - self.options.seeds.start()) as usize];

        let next = AtomicUsize::new(0);
        let rows = Mutex::new(Vec::new());
        let work = || -> Outcome<()> {
            while let Some((pattern, seed)) = disks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let new = self.disk(pattern, *seed, volume_of(*seed), &tools).inspect_err(|_| {
                    // The others end after what they are at.
                    next.store(disks.len(), Ordering::Relaxed);
                })?;
                let seconds: f64 = new.iter().map(|row| row.real_s).sum();
                eprintln!("{} {seed}: {seconds:.1} s", pattern.name);
                rows.lock().map_err(|_| "another thread failed")?.extend(new);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.options.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread failed")?)
        })?;
        let mut rows = rows.into_inner().map_err(|_| "a thread failed")?;
        let place = |row: &Row| PATTERNS.iter().position(|pattern| pattern.name == row.pattern);
        rows.sort_by_key(|row: &Row| (place(row), row.seed));
        Ok(rows)
    }

    /// Runs every tool on one disk.
    fn disk(
        &self,
        pattern: &'static Pattern,
        seed: u64,
        volume: &Healthy,
        tools: &[&'static Tool],
    ) -> Outcome<Vec<Row>> {
        let faults = pattern.draw(volume, seed);
        let path = self.faults_path(pattern, seed);
        faults.write(&path)?;
        let readable = faults.readable(&volume.used);
        let mut rows = Vec::new();
        let nth = seed - self.options.seeds.start();
        for tool in tools.iter().filter(|tool| nth.is_multiple_of(tool.each_nth_seed)) {
            let is_cut = pattern.endless && nth != 0;
            let life_s = is_cut.then_some(CUT_S);
            let ran = self.run_tool(tool, volume, &readable, &path, life_s, false)?;
            rows.push(Row::new(pattern, seed, tool, volume, &faults, &ran));
        }
        Ok(rows)
    }

    fn run_tool(
        &self,
        tool: &Tool,
        volume: &Healthy,
        readable: &Sectors,
        faults: &Path,
        life_s: Option<u32>,
        compare: bool,
    ) -> Outcome<Ran> {
        let marks_s = if tool.keeps == Keeps::Some { MARKS_S } else { &[] };
        let making = Making { plugin: &self.plugin, image: &volume.path, faults, life_s, marks_s };
        let command = tool.command.iter().map(|word| (*word).to_owned()).collect();
        Trial { making, volume, readable, command, compare }.run(&self.options.ours, self.interrupt)
    }

    /// Compares some outputs of disks that do die with what was computed from the long runs; returns how many differ.
    fn check(&self, rows: &[Row]) -> Outcome<usize> {
        println!("Outputs of disks that did die:");
        let mut nr_wrong = 0;
        for (name, nth, life) in check::CHECKS {
            let seed = (self.options.seeds.start() + nth).min(*self.options.seeds.end());
            for row in rows.iter().filter(|row| row.pattern == *name && row.seed == seed) {
                let (volume, pattern, tool) = (self.volume(seed)?, pattern(name)?, Tool::named(row.tool)?);
                let readable = pattern.draw(&volume, seed).readable(&volume.used);
                let path = self.faults_path(pattern, seed);
                let ran = self.run_tool(tool, &volume, &readable, &path, Some(LIVES_S[*life]), true)?;
                let found = ran.at_end.unwrap_or(0);
                let checked = check::Checked { row, title: tool.title, life: *life, found };
                nr_wrong += usize::from(!checked.is_right());
                print!("{}", checked.line());
            }
        }
        Ok(nr_wrong)
    }

    /// Runs one command on one disk and shows what came of it.
    fn one(&self, pattern: &'static Pattern, seed: u64, command: &str) -> Outcome<()> {
        let volume = self.volume(seed)?;
        let faults = pattern.draw(&volume, seed);
        let path = self.faults_path(pattern, seed);
        faults.write(&path)?;
        let life_s = self.options.life_s.or(pattern.endless.then_some(CUT_S)).filter(|life_s| *life_s > 0);
        let making =
            Making { plugin: &self.plugin, image: &volume.path, faults: &path, life_s, marks_s: &[] };
        let command = ["bash", "-c", command].map(str::to_owned).to_vec();
        let (readable, wanted) = (faults.readable(&volume.used), faults.readable(&volume.wanted));
        let trial = Trial { making, volume: &volume, readable: &readable, command, compare: true };
        let ran = trial.run(&self.options.ours, self.interrupt)?;
        let (used, readable, nr_wanted) = (volume.used.count(), readable.count(), wanted.count());
        let lines: Vec<_> = ran.said.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(8)..].join("\n"));
        println!("{} seed {seed}: {used} used sectors, {readable} of them readable", pattern.name);
        println!("         read well of used     readable  bad reads   of --first");
        let mut times_s = LIVES_S.map(f64::from).to_vec();
        times_s.push(f64::INFINITY);
        let held = history::held_at(&ran.entries, &times_s, &volume.used, volume.len);
        let held_wanted = history::held_at(&ran.entries, &times_s, &wanted, volume.len);
        let bad_reads = history::bad_reads_at(&ran.entries, &times_s);
        for (i, time_s) in times_s.iter().enumerate() {
            let time = if time_s.is_finite() { format!("{time_s} s") } else { "end".into() };
            println!(
                "{time:>6} {:>9} {:9.3} % {:9.3} % {:>9} {:9.2} %",
                held[i],
                percent(held[i], used),
                percent(held[i], readable),
                bad_reads[i],
                percent(held_wanted[i], nr_wanted)
            );
        }
        let nr_reads = ran.entries.len();
        println!(
            "output in the end: {} ({:.3} % of readable), missing {}",
            ran.at_end.unwrap_or(0),
            percent(ran.at_end.unwrap_or(0), readable),
            readable.saturating_sub(ran.at_end.unwrap_or(0)),
        );
        println!(
            "{:.1} simulated s, {nr_reads} reads, {} bad{}; really {:.1} s",
            ran.end_s(),
            bad_reads[bad_reads.len() - 1],
            if ran.died { ", the disk died" } else { "" },
            ran.real_s
        );
        Ok(())
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
