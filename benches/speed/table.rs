//! What the runs come to: medians and ratios, and whether ours reached what it is to reach; as Markdown.

use crate::measure::Cost;
use crate::rows::{Goal, Of, PEAK, Row};
use crate::trial::Measured;
use crate::volumes::FILES;

/// Bytes in the unit in which memory is shown.
const MIB: f64 = 1048576.0;

/// What a row's runs of one tool come to.
pub struct Summary {
    pub wall_s: f64,
    /// Fastest and slowest run.
    spread_s: (f64, f64),
    pub cpu_s: f64,
    peak: f64,
    worst_peak: f64,
}

impl Summary {
    /// Medians and the like of some runs.
    pub fn of(costs: &[Cost]) -> Summary {
        let sorted = |number: fn(&Cost) -> f64| {
            let mut numbers: Vec<_> = costs.iter().map(number).collect();
            numbers.sort_by(f64::total_cmp);
            numbers
        };
        let (walls, cpus) = (sorted(|cost| cost.wall_s), sorted(|cost| cost.cpu_s));
        let peaks = sorted(|cost| cost.peak as f64);
        let last = |numbers: &[f64]| numbers.last().copied().unwrap_or(f64::NAN);
        Summary {
            wall_s: median(&walls),
            spread_s: (walls.first().copied().unwrap_or(f64::NAN), last(&walls)),
            cpu_s: median(&cpus),
            peak: median(&peaks),
            worst_peak: last(&peaks),
        }
    }

    fn number(&self, of: Of) -> f64 {
        match of {
            Of::Wall => self.wall_s,
            Of::Cpu => self.cpu_s,
        }
    }
}

/// The median of numbers that ascend.
fn median(numbers: &[f64]) -> f64 {
    match (numbers.len() / 2, numbers.len() % 2) {
        (_, _) if numbers.is_empty() => f64::NAN,
        (half, 1) => numbers[half],
        (half, _) => (numbers[half - 1] + numbers[half]) / 2.0,
    }
}

/// The numbers, a line for each tool of each row.
pub fn numbers(all: &[Measured]) -> String {
    let mut text = String::from(
        "| work | tool | wall, s | min..max | processor, s | peak, MiB | wall: ours to it | processor: ours to it |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for measured in all {
        text += &row_numbers(measured);
    }
    text
}

/// The lines of one row.
fn row_numbers(measured: &Measured) -> String {
    let mut text = String::new();
    let summaries: Vec<_> = measured.costs.iter().map(|costs| Summary::of(costs)).collect();
    for (i, (tool, its)) in measured.row.tools.iter().zip(&summaries).enumerate() {
        let work = if i == 0 { measured.row.title } else { "" };
        let ratio = |of| match i {
            0 => String::new(),
            _ => format!("{:.3}", summaries[0].number(of) / its.number(of)),
        };
        text += &format!(
            "| {work} | {} | {:.3} | {:.3}..{:.3} | {:.3} | {:.1} | {} | {} |\n",
            tool.title,
            its.wall_s,
            its.spread_s.0,
            its.spread_s.1,
            its.cpu_s,
            its.peak / MIB,
            ratio(Of::Wall),
            ratio(Of::Cpu)
        );
    }
    text
}

/// The goals, a line each, and how many were missed.
pub fn goals(all: &[Measured]) -> (String, usize) {
    let mut text = String::from("| work | ours to | at most | is | |\n| --- | --- | ---: | ---: | --- |\n");
    let mut nr_missed = 0;
    let mut add = |work: &str, against: String, wanted: String, got: String, is_reached: bool| {
        let verdict = if is_reached { "reached" } else { "**not reached**" };
        nr_missed += usize::from(!is_reached);
        text += &format!("| {work} | {against} | {wanted} | {got} | {verdict} |\n");
    };
    for measured in all {
        let summaries: Vec<_> = measured.costs.iter().map(|costs| Summary::of(costs)).collect();
        for Goal { against, of, at_most } in measured.row.goals {
            let tool = measured.row.tools.iter().position(|tool| tool.title == *against);
            let got = tool.map_or(f64::NAN, |tool| summaries[0].number(*of) / summaries[tool].number(*of));
            let what = if *of == Of::Wall { "wall" } else { "processor" };
            add(
                measured.row.title,
                format!("{against}, {what}"),
                format!("{at_most:.2}"),
                format!("{got:.3}"),
                got <= *at_most,
            );
        }
        let (bound, peak) = (peak_bound(measured.row, measured.nr_used), summaries[0].worst_peak);
        add(
            measured.row.title,
            "peak memory, MiB".into(),
            format!("{:.1}", bound / MIB),
            format!("{:.1}", peak / MIB),
            peak <= bound,
        );
    }
    (text, nr_missed)
}

fn peak_bound(row: &Row, nr_used: u64) -> f64 {
    let bits = if *row.recipe == FILES { 0 } else { nr_used };
    PEAK as f64 + bits as f64 / 8.0
}

/// Every run, for other programs.
pub fn csv(all: &[Measured]) -> String {
    let mut text = String::from("row,tool,run,wall_s,processor_s,peak\n");
    for measured in all {
        for (tool, costs) in measured.row.tools.iter().zip(&measured.costs) {
            for (nth, Cost { wall_s, cpu_s, peak }) in costs.iter().enumerate() {
                let (row, title) = (measured.row.name, tool.title);
                text += &format!("{row},\"{title}\",{},{wall_s:.4},{cpu_s:.4},{peak}\n", nth + 1);
            }
        }
    }
    text
}
