//! What the figures have in common: plain SVG that brings its own background, in a light and a dark dress, so that it can
//! be read wherever it is shown.

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
pub fn open(width: f64, height: f64, about: &str, left: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\">\n<title>{about}</title>\n\
         <style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{left}\" y=\"22\">{title}</text>\n"
    )
}
