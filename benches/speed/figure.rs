//! The figure: how cost grows, a panel for each work on each series of volumes.

use std::fmt::Write as _;

use crate::growth::{Line, SERIES, Series, WORK};
use crate::shared::svg;

/// A panel's drawing area, and what is around it; pixels.
const WIDTH: f64 = 236.0;
const HEIGHT: f64 = 140.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 14.0;
const ABOVE: f64 = 30.0;
const BELOW: f64 = 44.0;
/// Room for title and legend.
const HEAD: f64 = 76.0;

/// So many marks there are on an axis at most.
const MAX_TICKS: f64 = 5.0;

/// Classes of the tools' lines, ours first.
const CLASSES: [&str; 2] = ["ours", "clone"];

/// Draws the lines.
pub fn figure(lines: &[Line]) -> String {
    let (column, row) = (LEFT + WIDTH + RIGHT, ABOVE + HEIGHT + BELOW);
    let (width, height) = (column * WORK.len() as f64, HEAD + row * SERIES.len() as f64);
    let mut svg = svg::open(
        width,
        height,
        "Seconds that work takes, over the size of the volume",
        LEFT,
        "What work costs, over the size of the volume",
    );
    legend(&mut svg);
    for (i, series) in SERIES.iter().enumerate() {
        for (j, work) in WORK.iter().enumerate() {
            let here: Vec<_> = lines.iter().filter(|line| (line.series, line.work) == (i, j)).collect();
            let (x, y) = (column * j as f64 + LEFT, HEAD + row * i as f64 + ABOVE);
            let _infallible = writeln!(svg, "<g transform=\"translate({x} {y})\">");
            panel(&mut svg, series, work.title, &here);
            svg += "</g>\n";
        }
    }
    svg + "</svg>\n"
}

fn legend(svg: &mut String) {
    let mut x = LEFT;
    for (tool, class) in WORK[0].tools.iter().zip(CLASSES) {
        for (what, thin) in [("processor", ""), ("wall", " thin")] {
            let title = format!("{}, {what}", tool.title);
            let _infallible = writeln!(
                svg,
                "<path class=\"line {class}{thin}\" d=\"M{x} 44h28\"/><text x=\"{}\" y=\"48\">{title}</text>",
                x + 34.0
            );
            // About the width of a letter of this size.
            x += 58.0 + 5.9 * title.len() as f64;
        }
    }
    let _infallible = writeln!(
        svg,
        "<text class=\"small\" x=\"{LEFT}\" y=\"68\">Seconds; straight lines are linear cost. Medians.</text>"
    );
}

fn panel(svg: &mut String, series: &Series, title: &str, lines: &[&Line]) {
    let last = series.volumes.last().map_or(1.0, |(size, _)| *size);
    let slowest = lines.iter().flat_map(|line| &line.points).map(|point| point.cpu_s.max(point.wall_s));
    let top = slowest.fold(0.001, f64::max);
    let step = step(top);
    let top = (top / step).ceil() * step;
    let x_of = |size: f64| WIDTH * size / last;
    let y_of = |seconds: f64| HEIGHT - HEIGHT * seconds / top;
    let _infallible = writeln!(
        svg,
        "<rect class=\"panel\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/><text class=\"name\" y=\"-8\">{title}</text>"
    );
    for nth in 0..=(top / step).round() as u32 {
        let seconds = f64::from(nth) * step;
        let y = y_of(seconds);
        let digits = if step < 0.1 { 2 } else { usize::from(step < 1.0) };
        let _infallible = writeln!(
            svg,
            "<path class=\"grid\" d=\"M0 {y:.1}h{WIDTH}\"/>\
             <text class=\"small\" x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{seconds:.digits$}</text>",
            y + 3.5
        );
    }
    for (size, _) in series.volumes {
        let _infallible = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{x:.1} {HEIGHT}v4\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{size}</text>",
            HEIGHT + 16.0,
            x = x_of(*size)
        );
    }
    let _infallible = writeln!(
        svg,
        "<text class=\"small\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}: {}</text>",
        WIDTH / 2.0,
        HEIGHT + 31.0,
        series.unit,
        series.title
    );
    for (line, class) in lines.iter().zip(CLASSES).rev() {
        let points = |number: &dyn Fn(usize) -> f64| {
            let places = line.points.iter().zip(series.volumes).enumerate();
            let places =
                places.map(|(i, (_, (size, _)))| format!("{:.1},{:.1}", x_of(*size), y_of(number(i))));
            places.collect::<Vec<_>>().join(" ")
        };
        let (walls, cpus) = (points(&|i| line.points[i].wall_s), points(&|i| line.points[i].cpu_s));
        let _infallible = writeln!(svg, "<polyline class=\"line {class} thin\" points=\"{walls}\"/>");
        let _infallible = writeln!(svg, "<polyline class=\"line {class}\" points=\"{cpus}\"/>");
    }
}

/// The distance of the marks on an axis up to this number: 1, 2 or 5 times a power of ten.
fn step(top: f64) -> f64 {
    let power = 10f64.powf((top / MAX_TICKS).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| top / step <= MAX_TICKS).unwrap_or(top)
}
