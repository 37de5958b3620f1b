//! The figure: how what is held grows with time, a panel for each pattern, a line for each tool.

use std::fmt::Write as _;

use crate::faults::PATTERNS;
use crate::results::{Row, grid, mean, rows_of};
use crate::shared::svg::{self, ABOVE, HEAD, HEIGHT, LEFT, RIGHT, WIDTH};
use crate::tools::{CUT_S, DOMAIN, OURS, OURS_PLAIN, TOOLS, WHOLE};

/// Pixels below a panel.
const BELOW: f64 = 32.0;
/// So many panels stand side by side.
const NR_COLUMNS: usize = 3;

/// Marked times, in seconds.
const TICKS_S: [f64; 4] = [1.0, 10.0, 100.0, 1000.0];
const GUIDES_S: [f64; 3] = [20.0, 60.0, 300.0];

/// The tools that are drawn, each with its class, the most important last and so on top.
const DRAWN: [(&str, &str); 5] =
    [("ntfsclone", "clone"), (WHOLE, "whole"), (DOMAIN, "domain"), (OURS_PLAIN, "ours"), (OURS, "ours")];

/// Draws the rows.
pub fn figure(rows: &[Row]) -> String {
    let patterns: Vec<_> =
        PATTERNS.iter().filter(|pattern| rows.iter().any(|row| row.pattern == pattern.name)).collect();
    let tools: Vec<_> =
        DRAWN.into_iter().filter(|(tool, _)| rows.iter().any(|row| row.tool == *tool)).collect();
    let (column, line) = (LEFT + WIDTH + RIGHT, ABOVE + HEIGHT + BELOW);
    let nr_columns = NR_COLUMNS.min(patterns.len().max(1));
    let width = column * nr_columns as f64;
    let height = HEAD + line * patterns.len().div_ceil(nr_columns) as f64;
    let mut svg = svg::open(
        width,
        height,
        "Sectors in use held, in percent, over the time that a dying disk has been read",
        "What is held of the sectors in use, over the disk's time",
    );
    legend(&mut svg, &tools);
    for (i, pattern) in patterns.iter().enumerate() {
        let (x, y) = (column * (i % nr_columns) as f64 + LEFT, HEAD + line * (i / nr_columns) as f64 + ABOVE);
        let _infallible = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        axes(&mut svg, pattern.name);
        for (tool, class) in &tools {
            let points = curve(&rows_of(rows, pattern.name, tool));
            let _infallible = writeln!(svg, "<polyline class=\"line {class}\" points=\"{points}\"/>");
        }
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

fn legend(svg: &mut String, tools: &[(&'static str, &str)]) {
    let title =
        |name: &'static str| TOOLS.iter().find(|tool| tool.name == name).map_or(name, |tool| tool.title);
    svg::legend(
        svg,
        tools.iter().rev().map(|(name, class)| (title(name), *class)),
        "Simulated seconds, logarithmic; dotted: 20, 60 and 300 s. Means over the seeds.",
    );
}

fn axes(svg: &mut String, name: &str) {
    svg::panel(svg, name);
    for percent in [0.0, 50.0, 100.0] {
        svg::level(svg, y_of(percent), format_args!("{percent} %"));
    }
    for time_s in TICKS_S {
        svg::mark(svg, x_of(time_s), format_args!("{time_s} s"));
    }
    for time_s in GUIDES_S {
        let _infallible = writeln!(svg, "<path class=\"guide\" d=\"M{:.1} 0v{HEIGHT}\"/>", x_of(time_s));
    }
}

/// The points of a tool's line; no further than the disks lived.
fn curve(rows: &[&Row]) -> String {
    let is_cut = rows.iter().any(|row| row.cut);
    let mut points = String::new();
    for (i, time_s) in grid().into_iter().enumerate() {
        if rows.is_empty() || is_cut && time_s > f64::from(CUT_S) {
            break;
        }
        let percent = mean(rows, |row| 100.0 * row.curve[i] as f64 / row.used as f64);
        let _infallible = write!(points, "{:.1},{:.1} ", x_of(time_s), y_of(percent));
    }
    points.trim_end().to_owned()
}

fn x_of(time_s: f64) -> f64 {
    let last = grid().last().copied().unwrap_or(10.0);
    WIDTH * time_s.log10() / last.log10()
}

fn y_of(percent: f64) -> f64 {
    HEIGHT - HEIGHT * percent / 100.0
}
