//! What the figures have in common: plain SVG that brings its own background, in a light and a dark dress, so that it can
//! be read wherever it is shown: panels with axes, and a legend above them.

use std::fmt::{Display, Write as _};

/// A panel's drawing area, and what is around it; pixels. Below it is what the marks on its axis and their name need.
pub const WIDTH: f64 = 236.0;
pub const HEIGHT: f64 = 140.0;
pub const LEFT: f64 = 44.0;
pub const RIGHT: f64 = 14.0;
pub const ABOVE: f64 = 30.0;
/// Room for title and legend.
pub const HEAD: f64 = 76.0;

/// The dress. Lines have the class `line` and one of `ours`, `domain`, `whole` and `clone`;
/// what matters less also `thin`.
pub const STYLE: &str = "
  .ground { fill: #ffffff } .panel { fill: #f6f8fa } text { fill: #1f2328; font: 11px sans-serif }
  .title { font: bold 13px sans-serif } .name { font-weight: bold } .small { font-size: 10px; fill: #59636e }
  .grid { stroke: #d1d9e0; stroke-width: 1 } .guide { stroke: #d1d9e0; stroke-width: 1; stroke-dasharray: 1 3 }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round }
  .ours { stroke: #0969da; stroke-width: 2.6 } .domain { stroke: #bc4c00; stroke-dasharray: 6 3 }
  .whole { stroke: #1a7f37; stroke-dasharray: 2 2 } .clone { stroke: #8250df; stroke-dasharray: 8 3 2 3 }
  .thin { stroke-width: 1.2; stroke-dasharray: 2 3 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } .panel { fill: #161b22 } text { fill: #e6edf3 } .small { fill: #9198a1 }
    .grid, .guide { stroke: #30363d }
    .ours { stroke: #58a6ff } .domain { stroke: #f0883e } .whole { stroke: #3fb950 } .clone { stroke: #bc8cff }
  }
";

/// Opens a figure of this size in pixels; `about` is for those who cannot see it.
pub fn open(width: f64, height: f64, about: &str, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\">\n<title>{about}</title>\n\
         <style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"22\">{title}</text>\n"
    )
}

/// Explains the lines, each with its title and its classes, and then the axes.
pub fn legend<T: AsRef<str>, C: Display>(
    svg: &mut String,
    lines: impl IntoIterator<Item = (T, C)>,
    axes: &str,
) {
    let mut x = LEFT;
    for (title, class) in lines {
        let title = title.as_ref();
        let _infallible = writeln!(
            svg,
            "<path class=\"line {class}\" d=\"M{x} 44h28\"/><text x=\"{}\" y=\"48\">{title}</text>",
            x + 34.0
        );
        // About the width of a letter of this size.
        x += 58.0 + 5.9 * title.len() as f64;
    }
    let _infallible = writeln!(svg, "<text class=\"small\" x=\"{LEFT}\" y=\"68\">{axes}</text>");
}

/// The ground of a panel, with its name.
pub fn panel(svg: &mut String, name: &str) {
    let _infallible = writeln!(
        svg,
        "<rect class=\"panel\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/><text class=\"name\" y=\"-8\">{name}</text>"
    );
}

/// A line across a panel, with what it stands for beside it.
pub fn level(svg: &mut String, y: f64, label: impl Display) {
    let _infallible = writeln!(
        svg,
        "<path class=\"grid\" d=\"M0 {y:.1}h{WIDTH}\"/>\
         <text class=\"small\" x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
        y + 3.5
    );
}

/// A mark on the axis below a panel, with what it stands for.
pub fn mark(svg: &mut String, x: f64, label: impl Display) {
    let _infallible = writeln!(
        svg,
        "<path class=\"grid\" d=\"M{x:.1} {HEIGHT}v4\"/>\
         <text class=\"small\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
        HEIGHT + 16.0
    );
}
