//! `make bench`: how long ntfsrescue takes for its work on healthy volumes, and how much memory, compared with ntfsclone,
//! partclone, cp and dd.
//!
//! Each row ([`rows`]) is some work on one of the [`volumes`]. Its tools are run in turn, again and again ([`trial`]), by a
//! process that does nothing else ([`measure`]), once more than is counted; that output is checked ([`checks`]). Medians and ratios go to a
//! [`table`].
//!
//! Arguments, all optional: `runs=5`, `rows=PATTERN,...`, `ours=PROGRAM`, `volumes=FOLDER`, `keep=no`, `prime=no` for rows that write
//! files on a page cache as it is found, `document=FILE.md`, which takes what was measured. With `growth` it is measured how cost grows ([`growth`]), also with `figure=FILE.svg`.

// A benchmark may panic: then it has failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
mod document;
mod figure;
mod growth;
mod machine;
mod measure;
mod room;
mod rows;
#[path = "../shared/mod.rs"]
mod shared;
mod table;
mod trial;
mod volumes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ntfsrescue::interrupt::Interrupt;

use crate::document::Place;
use crate::growth::{SERIES, WORK, Work};
use crate::room::Need;
use crate::rows::{ROWS, Row, Target};
use crate::shared::job::{self, carry_out};
use crate::shared::programs::Outcome;
use crate::trial::{Bench, Measured};
use crate::volumes::Recipe;

/// How often each tool is run and counted.
const RUNS: usize = 5;
const GROWTH_RUNS: usize = 3;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().is_some_and(|word| word == measure::BETWEEN) {
        return measure::between(words).unwrap_or_else(|error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        });
    }
    carry_out("bench", |interrupt| Options::parse()?.go(interrupt))
}

/// What is to be done.
struct Options {
    nr_runs: Option<usize>,
    rows: Vec<&'static Row>,
    /// How cost grows is measured, instead of the rows.
    growth: bool,
    ours: PathBuf,
    /// Where volumes and numbers are kept, and outputs written.
    folder: PathBuf,
    /// Are volumes kept?
    keep: bool,
    /// Is the page cache filled and freed before each run that writes?
    prime: bool,
    document: Option<PathBuf>,
    figure: Option<PathBuf>,
}

impl Options {
    fn parse() -> Outcome<Options> {
        let mut options = Options {
            nr_runs: None,
            rows: ROWS.iter().collect(),
            growth: false,
            ours: env!("CARGO_BIN_EXE_ntfsrescue").into(),
            folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-speed"),
            keep: true,
            prime: true,
            document: None,
            figure: None,
        };
        for word in std::env::args().skip(1) {
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            match (name, value) {
                ("growth", "") => options.growth = true,
                // cargo adds it.
                ("--bench", "") | (_, "") => {}
                ("runs", value) => options.nr_runs = Some(value.parse()?),
                ("rows", value) => options.rows = named(value)?,
                ("ours", value) => options.ours = fs::canonicalize(value)?,
                ("volumes", value) => options.folder = value.into(),
                ("keep", "yes") => options.keep = true,
                ("keep", "no") => options.keep = false,
                ("prime", "yes") => options.prime = true,
                ("prime", "no") => options.prime = false,
                ("document", value) => options.document = Some(value.into()),
                ("figure", value) => options.figure = Some(value.into()),
                _ => return Err(format!("unknown argument '{word}'").into()),
            }
        }
        if !options.prime {
            // For the others it is the same.
            options.rows.retain(|row| row.target == Target::File);
        }
        Ok(options)
    }

    fn go(&self, interrupt: &Interrupt) -> Outcome<()> {
        job::wants_root()?;
        fs::create_dir_all(&self.folder)?;
        // A benchmark that was killed has left its outputs.
        let _there_may_be_none = fs::remove_dir_all(self.folder.join("scratch"));
        room::check(&self.folder, &self.needs(), self.keep)?;
        let scratch = tempfile::Builder::new().prefix("scratch").rand_bytes(0).tempdir_in(&self.folder)?;
        let nr_runs = self.nr_runs.unwrap_or(if self.growth { GROWTH_RUNS } else { RUNS }).max(1);
        let bench =
            Bench { ours: &self.ours, scratch: scratch.path(), nr_runs, prime: self.prime, interrupt };
        let machine = machine::machine(&self.folder, &self.ours)?;
        let about = format!("{machine} Medians of {nr_runs} runs.\n\n");
        if self.growth { self.growth(&bench, &about) } else { self.rows(&bench, &about) }
    }

    fn needs(&self) -> Vec<Need<'static>> {
        if !self.growth {
            let need = |row: &&'static Row| {
                let Row { recipe, tools, source, target, .. } = **row;
                Need { recipe, tools, source, target }
            };
            return self.rows.iter().map(need).collect();
        }
        let recipes = SERIES.iter().flat_map(|series| series.volumes).map(|(_, recipe)| recipe);
        let needs = recipes.flat_map(|recipe| {
            let need =
                |work: &Work| Need { recipe, tools: work.tools, source: growth::SOURCE, target: work.target };
            WORK.iter().map(need)
        });
        needs.collect()
    }

    /// Measures the rows and shows what came of it.
    fn rows(&self, bench: &Bench<'_>, about: &str) -> Outcome<()> {
        let place = self.place(if self.prime { "bench" } else { "unprimed" })?;
        let mut all: Vec<Measured> = Vec::new();
        let mut rows = self.rows.iter().peekable();
        while let Some(row) = rows.peek() {
            let recipe = row.recipe;
            let sample = recipe.volume(&self.folder)?;
            while let Some(row) = rows.next_if(|row| row.recipe == recipe) {
                eprintln!("{}: {}", row.name, row.title);
                let costs = bench.tools(row.tools, row.source, row.target, &sample)?;
                all.push(Measured { row, costs, nr_used: sample.nr_used });
            }
            self.used_up(recipe)?;
        }
        fs::write(self.folder.join("speed.csv"), table::csv(&all))?;
        let (goals, nr_missed) = table::goals(&all);
        let text = format!("{about}{goals}\n{}", table::numbers(&all));
        println!("{text}\n{nr_missed} goals missed");
        place.map_or(Ok(()), |place| place.fill(&text))
    }

    /// Measures how cost grows, and shows and draws it.
    fn growth(&self, bench: &Bench<'_>, about: &str) -> Outcome<()> {
        let place = self.place("growth")?;
        let mut lines = Vec::new();
        for (i, series) in SERIES.iter().enumerate() {
            for (size, recipe) in series.volumes {
                let sample = recipe.volume(&self.folder)?;
                for (j, work) in WORK.iter().enumerate() {
                    eprintln!("{size} {}: {}", series.unit, work.title);
                    let costs = bench.tools(work.tools, growth::SOURCE, work.target, &sample)?;
                    growth::add(&mut lines, i, j, &costs);
                }
                self.used_up(recipe)?;
            }
        }
        let text = format!("{about}{}", growth::table(&lines));
        println!("{text}");
        if let Some(path) = &self.figure {
            fs::write(path, figure::figure(&lines))?;
        }
        place.map_or(Ok(()), |place| place.fill(&text))
    }

    /// Where what is measured goes, if it goes anywhere.
    fn place(&self, name: &str) -> Outcome<Option<Place<'_>>> {
        self.document.as_deref().map(|document| Place::find(document, name)).transpose()
    }

    /// Removes a volume that was measured, if it is not to be kept.
    fn used_up(&self, recipe: &Recipe) -> Outcome<()> {
        if !self.keep {
            recipe.remove(&self.folder)?;
        }
        Ok(())
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
