//! `make bench`: how long ntfsrescue takes for its work on healthy volumes, and how much memory, compared with ntfsclone,
//! partclone, cp and dd.
//!
//! Each row ([`rows`]) is some work on one of the [`volumes`]. Its tools are run in turn, again and again ([`trial`]), by a
//! process that does nothing else ([`measure`]), once more than is counted; that output is checked ([`checks`]). Medians and ratios go to a
//! [`table`].
//!
//! Arguments, all optional: `runs=5`, `rows=PATTERN,...`, `volumes=FOLDER`, `ours=PROGRAM`, `csv=FILE`.

// A benchmark may panic: then it has failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
mod measure;
mod rows;
#[path = "../shared/mod.rs"]
mod shared;
mod table;
mod trial;
mod volumes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use ntfsrescue::interrupt::{self, Interrupt};

use crate::rows::{ROWS, Row};
use crate::shared::programs::Outcome;
use crate::trial::{Bench, Measured};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().is_some_and(|word| word == measure::BETWEEN) {
        return measure::between(words).unwrap_or_else(|error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        });
    }
    let interrupt = Interrupt::watch(true, |line| eprintln!("{line}"));
    let start = Instant::now();
    let outcome = Options::parse().and_then(|options| options.go(&interrupt));
    eprintln!("took {:.0} s", start.elapsed().as_secs_f64());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            interrupt.signal().map_or(ExitCode::FAILURE, |signal| interrupt::end_by(signal))
        }
    }
}

/// What is to be done.
struct Options {
    nr_runs: usize,
    rows: Vec<&'static Row>,
    ours: PathBuf,
    /// Where volumes and numbers are kept, and outputs written.
    folder: PathBuf,
}

impl Options {
    fn parse() -> Outcome<Options> {
        let mut options = Options {
            nr_runs: 5,
            rows: ROWS.iter().collect(),
            ours: env!("CARGO_BIN_EXE_ntfsrescue").into(),
            folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-speed"),
        };
        for word in std::env::args().skip(1) {
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            match (name, value) {
                // cargo adds it.
                ("--bench", "") | (_, "") => {}
                ("runs", value) => options.nr_runs = value.parse()?,
                ("rows", value) => options.rows = named(value)?,
                ("volumes", value) => options.folder = value.into(),
                ("ours", value) => options.ours = fs::canonicalize(value)?,
                _ => return Err(format!("unknown argument '{word}'").into()),
            }
        }
        Ok(options)
    }

    fn go(&self, interrupt: &Interrupt) -> Outcome<()> {
        if !nix::unistd::geteuid().is_root() {
            return Err("loop devices and mounts need root".into());
        }
        fs::create_dir_all(&self.folder)?;
        // One that was killed has left its outputs.
        let _there_may_be_none = fs::remove_dir_all(self.folder.join("scratch"));
        let scratch = tempfile::Builder::new().prefix("scratch").rand_bytes(0).tempdir_in(&self.folder)?;
        let bench =
            Bench { ours: &self.ours, scratch: scratch.path(), nr_runs: self.nr_runs.max(1), interrupt };
        let all = self.measure(&bench)?;
        println!("{}", table::numbers(&all));
        let (goals, nr_missed) = table::goals(&all);
        println!("{goals}\n{nr_missed} goals missed");
        Ok(())
    }

    fn measure(&self, bench: &Bench<'_>) -> Outcome<Vec<Measured>> {
        let mut all = Vec::new();
        let mut rows = self.rows.iter().peekable();
        while let Some(row) = rows.peek() {
            let recipe = row.recipe;
            let sample = recipe.volume(&self.folder)?;
            while let Some(row) = rows.next_if(|row| row.recipe == recipe) {
                let measured = bench.row(row, &sample)?;
                eprint!("{}", table::row_numbers(&measured));
                all.push(measured);
            }
        }
        Ok(all)
    }
}

/// The rows that any of these patterns fits, in which `*` stands for anything.
fn named(patterns: &str) -> Outcome<Vec<&'static Row>> {
    let patterns = patterns.split(',').map(glob::Pattern::new).collect::<Result<Vec<_>, _>>()?;
    let fits = |row: &&Row| patterns.iter().any(|pattern| pattern.matches(row.name));
    let rows: Vec<_> = ROWS.iter().filter(fits).collect();
    if rows.is_empty() {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("no row is named so; there are {}", names.join(", ")).into());
    }
    Ok(rows)
}
