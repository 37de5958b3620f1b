//! The numbers of each run, and their means.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::faults::{Faults, Pattern};
use crate::history::{bad_reads_at, held_at, read_by};
use crate::sectors::Sectors;
use crate::tools::{Keeps, LIVES_S, Ran, Tool};
use crate::volume::Healthy;

/// When `--first` is to have read all of its files.
const FIRST_S: f64 = 20.0;

/// The times of the figure: from 1 s on, so many a decade, so many in all: up to 3000 s and a bit.
const GRID_PER_DECADE: u32 = 16;
const GRID_LEN: u32 = 57;

/// The figure's times.
pub fn grid() -> Vec<f64> {
    (0..GRID_LEN).map(|i| 10f64.powf(f64::from(i) / f64::from(GRID_PER_DECADE))).collect()
}

/// One run of one tool on one disk. Counts are of 512-byte sectors.
#[derive(Clone)]
pub struct Row {
    pub pattern: &'static str,
    pub seed: u64,
    pub tool: &'static str,
    /// In use, and of these what can be read.
    pub used: u64,
    pub readable: u64,
    /// Of the folder for `--first`: what can be read, and what of it was read within [`FIRST_S`].
    pub wanted: u64,
    pub wanted_in_time: u64,
    /// Stretches of it that cannot be read: about so many errors it costs to read the rest.
    pub wanted_spots: u64,
    /// Held, and reads that had failed, had the disk died after [`LIVES_S`].
    pub held: Vec<u64>,
    pub bad_reads: Vec<u64>,
    /// The same in the end, and when that was.
    pub end_held: u64,
    pub end_bad_reads: u64,
    pub end_s: f64,
    /// Was the disk made to die, because there was no end?
    pub cut: bool,
    /// Held at the times of the [`grid`].
    pub curve: Vec<u64>,
    /// Seconds that the run really took.
    pub real_s: f64,
}

impl Row {
    pub fn new(
        pattern: &'static Pattern,
        seed: u64,
        tool: &'static Tool,
        volume: &Healthy,
        faults: &Faults,
        ran: &Ran,
    ) -> Row {
        let wanted = faults.readable(&volume.wanted);
        let mut lost = volume.wanted.clone();
        lost.remove_all(&wanted);
        let held = |times_s: &[f64], what: &Sectors| match tool.keeps {
            Keeps::AllItReads => held_at(&ran.entries, times_s, what, volume.len),
            Keeps::Some => times_s.iter().map(|time_s| between_marks(ran, *time_s)).collect(),
        };
        let lives_s = LIVES_S.map(f64::from);
        Row {
            pattern: pattern.name,
            seed,
            tool: tool.name,
            used: volume.used.count(),
            readable: faults.readable(&volume.used).count(),
            wanted: wanted.count(),
            wanted_in_time: read_by(&ran.entries, FIRST_S, volume.len).count_common(&wanted),
            wanted_spots: lost.ranges().len() as u64,
            held: held(&lives_s, &volume.used),
            bad_reads: bad_reads_at(&ran.entries, &lives_s),
            end_held: held(&[f64::INFINITY], &volume.used)[0],
            end_bad_reads: bad_reads_at(&ran.entries, &[f64::INFINITY])[0],
            end_s: ran.end_s(),
            cut: ran.died,
            curve: held(&grid(), &volume.used),
            real_s: ran.real_s,
        }
    }
}

/// What an output held at a time: between two marks, what a straight line says.
fn between_marks(ran: &Ran, time_s: f64) -> u64 {
    let mut before = (0.0, 0);
    let marks = ran.at_marks.iter().map(|(mark_s, held)| (f64::from(*mark_s), *held));
    for mark in marks.chain([(ran.end_s(), ran.at_end.unwrap_or(0))]) {
        if mark.0 >= time_s {
            let share = (time_s - before.0) / (mark.0 - before.0);
            return before.1 + ((mark.1.saturating_sub(before.1)) as f64 * share) as u64;
        }
        before = mark;
    }
    before.1
}

/// All rows of a tool on a pattern.
pub fn rows_of<'a>(rows: &'a [Row], pattern: &str, tool: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.pattern == pattern && row.tool == tool).collect()
}

/// The mean of a number of the rows.
pub fn mean(rows: &[&Row], number: impl Fn(&Row) -> f64) -> f64 {
    rows.iter().map(|row| number(row)).sum::<f64>() / rows.len().max(1) as f64
}

/// Percent of the used sectors, as a mean.
pub fn percent(rows: &[&Row], held: impl Fn(&Row) -> u64) -> f64 {
    mean(rows, |row| 100.0 * held(row) as f64 / row.used as f64)
}

/// Writes the raw numbers.
pub fn write_csv(rows: &[Row], path: &Path) -> io::Result<()> {
    let mut text = String::from("pattern,seed,tool,used,readable,wanted,wanted_in_20s,wanted_spots");
    for life_s in LIVES_S {
        let _infallible = write!(text, ",held_{life_s}s,bad_reads_{life_s}s");
    }
    text += ",held_end,bad_reads_end,end_s,cut,real_s\n";
    for row in rows {
        let Row { pattern, seed, tool, used, readable, wanted, wanted_in_time, wanted_spots, .. } = row;
        let _infallible = write!(
            text,
            "{pattern},{seed},{tool},{used},{readable},{wanted},{wanted_in_time},{wanted_spots}"
        );
        for (held, bad_reads) in row.held.iter().zip(&row.bad_reads) {
            let _infallible = write!(text, ",{held},{bad_reads}");
        }
        let Row { end_held, end_bad_reads, end_s, cut, real_s, .. } = row;
        let _infallible =
            writeln!(text, ",{end_held},{end_bad_reads},{end_s:.1},{},{real_s:.1}", u8::from(*cut));
    }
    fs::write(path, text)
}
