//! `make bench-growth`: how cost grows with the data in use and with the number of files, for ours and for ntfsclone.

use crate::measure::Cost;
use crate::rows::{METADATA_TO_STDOUT, SAVE_TO_FILE, SAVE_TO_STDOUT, Source, Target, Tool};
use crate::table::Summary;
use crate::volumes::{DATA, RECORDS, Recipe};

/// Volumes of which each is larger than the one before.
pub struct Series {
    pub title: &'static str,
    /// What is counted, and how much of it each volume has.
    pub unit: &'static str,
    pub volumes: &'static [(f64, Recipe)],
}

/// All series.
pub const SERIES: [Series; 2] = [
    Series { title: "data in use", unit: "GB", volumes: &DATA },
    Series { title: "files, all but a few tiny", unit: "thousand", volumes: &RECORDS },
];

/// Some work that is done on each of the volumes.
pub struct Work {
    pub title: &'static str,
    pub target: Target,
    pub tools: &'static [Tool],
}

/// All work. The first tool is ours.
pub const WORK: [Work; 3] = [
    Work { title: "save to a file", target: Target::File, tools: SAVE_TO_FILE },
    Work { title: "save to /dev/null", target: Target::Null, tools: SAVE_TO_STDOUT },
    Work { title: "metadata image to /dev/null", target: Target::Null, tools: METADATA_TO_STDOUT },
];

/// What is read.
pub const SOURCE: Source = Source::File;

/// What one tool took for some work on the volumes of a series, in their order.
pub struct Line {
    pub series: usize,
    pub work: usize,
    pub tool: &'static str,
    pub points: Vec<Summary>,
}

/// The lines that the costs of a volume continue: those of each tool of each work.
pub fn add(lines: &mut Vec<Line>, series: usize, work: usize, costs: &[Vec<Cost>]) {
    for (tool, costs) in WORK[work].tools.iter().zip(costs) {
        let summary = Summary::of(costs);
        let is_it = |line: &&mut Line| (line.series, line.work, line.tool) == (series, work, tool.title);
        match lines.iter_mut().find(is_it) {
            Some(line) => line.points.push(summary),
            None => lines.push(Line { series, work, tool: tool.title, points: vec![summary] }),
        }
    }
}

/// The lines as Markdown: processor time and wall time, and how much more the last volume costs for its size than the
/// first one.
pub fn table(lines: &[Line]) -> String {
    let mut text = String::new();
    for (i, series) in SERIES.iter().enumerate() {
        text += &format!("| {}, {}: processor / wall, s | |", series.title, series.unit);
        series.volumes.iter().for_each(|(size, _)| text += &format!(" {size} |"));
        text += " growth |\n| --- | --- |";
        series.volumes.iter().for_each(|_| text += " ---: |");
        text += " ---: |\n";
        for line in lines.iter().filter(|line| line.series == i) {
            text += &format!("| {} | {} |", WORK[line.work].title, line.tool);
            for point in &line.points {
                text += &format!(" {:.2} / {:.2} |", point.cpu_s, point.wall_s);
            }
            text += &format!(" {:.2} |\n", growth(series, line));
        }
        text.push('\n');
    }
    text
}

/// Processor time for each unit of the last volume, as a multiple of that of the first. 1 is linear; less is linear with
/// something that is paid once.
fn growth(series: &Series, line: &Line) -> f64 {
    let per_unit = |(point, (size, _)): (&Summary, &(f64, Recipe))| point.cpu_s / size;
    let costs: Vec<_> = line.points.iter().zip(series.volumes).map(per_unit).collect();
    match costs.as_slice() {
        [first, .., last] => last / first,
        _ => f64::NAN,
    }
}
