//! The figure: how cost grows, a panel for each work on each series of volumes.

use std::fmt::Write as _;

use crate::growth::{Line, SERIES, Series, WORK};
use crate::shared::svg::{self, ABOVE, HEAD, HEIGHT, LEFT, RIGHT, WIDTH};

/// Pixels below a panel: its axis has a name.
const BELOW: f64 = 44.0;

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
    let tools = WORK[0].tools.iter().zip(CLASSES);
    let lines = tools.flat_map(|(tool, class)| {
        [("processor", ""), ("wall", " thin")]
            .map(|(what, thin)| (format!("{}, {what}", tool.title), format!("{class}{thin}")))
    });
    svg::legend(svg, lines, "Seconds; straight lines are linear cost. Medians.");
}

fn panel(svg: &mut String, series: &Series, title: &str, lines: &[&Line]) {
    let last = series.volumes.last().map_or(1.0, |(size, _)| *size);
    let slowest = lines.iter().flat_map(|line| &line.points).map(|point| point.cpu_s.max(point.wall_s));
    let top = slowest.fold(0.001, f64::max);
    let step = step(top);
    let top = (top / step).ceil() * step;
    let x_of = |size: f64| WIDTH * size / last;
    let y_of = |seconds: f64| HEIGHT - HEIGHT * seconds / top;
    svg::panel(svg, title);
    for nth in 0..=(top / step).round() as u32 {
        let seconds = f64::from(nth) * step;
        let digits = if step < 0.1 { 2 } else { usize::from(step < 1.0) };
        svg::level(svg, y_of(seconds), format_args!("{seconds:.digits$}"));
    }
    for (size, _) in series.volumes {
        svg::mark(svg, x_of(*size), size);
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
