//! Whether what was computed is what comes out: disks that really die, and outputs that are compared byte by byte.

use crate::results::Row;
use crate::tools::LIVES_S;

/// The runs: pattern, which of the seeds, and which of [`LIVES_S`].
pub const CHECKS: &[(&str, u64, usize)] =
    &[("scattered", 0, 1), ("scratch", 1, 3), ("mixed", 2, 4), ("dead-head", 3, 3), ("metadata", 4, 3)];

/// Part of the used sectors by which a computed number may be off: what is on its way when the disk dies, in a pipeline or in
/// the system's reading ahead for ntfsclone.
const TOLERANCE: f64 = 0.001;

/// The output of one run on a disk that died.
pub struct Checked<'a> {
    pub row: &'a Row,
    pub title: &'static str,
    /// Which of [`LIVES_S`].
    pub life: usize,
    /// Sectors that the output holds.
    pub found: u64,
}

impl Checked<'_> {
    /// Is the computed number right?
    pub fn is_right(&self) -> bool {
        self.found.abs_diff(self.row.held[self.life]) as f64 <= self.row.used as f64 * TOLERANCE
    }

    /// As a line of the report.
    pub fn line(&self) -> String {
        format!(
            "  {:11} seed {:<3} {:>4} s  {:28} computed {:>7}, in the output {:>7}  {}\n",
            self.row.pattern,
            self.row.seed,
            LIVES_S[self.life],
            self.title,
            self.row.held[self.life],
            self.found,
            if self.is_right() { "ok" } else { "DIFFERS" }
        )
    }
}
