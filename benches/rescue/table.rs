//! What the runs come to, as text: a table for each pattern, and whether ours reached what it is to reach.

use crate::faults::Pattern;
use crate::results::{Row, mean, percent, rows_of};
use crate::tools::{CUT_S, DOMAIN, LIVES_S, OURS, OURS_FIRST, OURS_PLAIN, TOOLS, WHOLE};

/// Ours is to hold so much of what ddrescue holds that knows what is in use, and so many times what it holds that does
/// not, on disks that live so long.
const OF_DOMAIN: f64 = 0.95;
const TIMES_WHOLE: f64 = 5.0;
const EARLY_S: [u32; 2] = [20, 60];

/// Of what can be read, this much after so long.
const OF_READABLE: f64 = 0.9998;
const LATE_S: u32 = 300;

/// For ever, all of it, in so many times the time and the bad reads of ddrescue that knows what is in use.
const TIMES_TIME: f64 = 1.05;
const TIMES_BAD_READS: f64 = 1.07;

/// The pattern for which there is a goal of its own, that goal, and when. There each dead zone costs errors, whoever reads:
/// what can be had late depends on how many zones there are, so the goal for that is none.
const DEAD_HEAD: &str = "dead-head";
const TIMES_DOMAIN: f64 = 3.0;
const DEAD_HEAD_S: u32 = 30;

/// The table of a pattern.
pub fn table(pattern: &Pattern, rows: &[Row]) -> String {
    let nr_seeds = TOOLS.iter().map(|tool| rows_of(rows, pattern.name, tool.name).len()).max().unwrap_or(0);
    let mut text = format!("\n{}: {}; {nr_seeds} seeds\n{:28}", pattern.name, pattern.about, "");
    for life_s in LIVES_S {
        text += &format!("{:>10}", format!("{life_s} s"));
    }
    text += &format!("{:>11}{:>11}{:>12}\n", "for ever", "bad reads", "time");
    for tool in TOOLS {
        let all = rows_of(rows, pattern.name, tool.name);
        if all.is_empty() {
            continue;
        }
        text += &format!("{:28}", tool.title);
        for i in 0..LIVES_S.len() {
            text += &format!("{:>10}", format!("{:.2} %", percent(&all, |row| row.held[i])));
        }
        let (ended, cut): (Vec<_>, Vec<_>) = all.into_iter().partition(|row| !row.cut);
        let (shown, than) = if ended.is_empty() { (cut, "> ") } else { (ended, "") };
        text += &format!("{:>11}", format!("{than}{:.3} %", percent(&shown, |row| row.end_held)));
        text += &format!("{:>11}", format!("{than}{:.0}", mean(&shown, |row| row.end_bad_reads as f64)));
        text += &format!("{:>12}", format!("{than}{:.0} s", mean(&shown, |row| row.end_s)));
        if shown.len() < nr_seeds {
            text += &format!("  ({} of {nr_seeds} seeds)", shown.len());
        }
        text.push('\n');
    }
    text
}

/// What the tables do not say of themselves.
pub fn footnote() -> String {
    format!(
        "\nPercent of the sectors in use, bad ones among them; means over the seeds. Held after N s: by a disk that dies then.\n\
         Of ddrescue and of ours with a map it is what was read well by then, which is what their outputs hold (checked below);\n\
         outputs of ntfsclone, and of ours without a map, were compared at these times. '>': the disk died after {CUT_S} s,\n\
         because reading each sector of a dead head takes days; then only the first seed runs for ever.\n\
         What ours reads to know what to copy is in its output once it knows: a disk that dies before leaves nothing of it.\n"
    )
}

/// Something to reach.
struct Goal {
    what: String,
    /// Reached, wanted, and whether less is better.
    got: f64,
    wanted: f64,
    at_most: bool,
    unit: &'static str,
    /// Why it has no verdict.
    moot: Option<String>,
}

impl Goal {
    fn at_least(what: impl Into<String>, got: f64, wanted: f64, unit: &'static str) -> Goal {
        Goal { what: what.into(), got, wanted, at_most: false, unit, moot: None }
    }

    fn at_most(what: impl Into<String>, got: f64, wanted: f64, unit: &'static str) -> Goal {
        Goal { at_most: true, ..Goal::at_least(what, got, wanted, unit) }
    }

    fn is_reached(&self) -> bool {
        if self.at_most { self.got <= self.wanted } else { self.got >= self.wanted }
    }

    fn line(&self) -> String {
        let verdict = match &self.moot {
            Some(why) => why,
            None if self.is_reached() => "ok",
            None => "MISSED",
        };
        let wanted = format!("{} {}{}", if self.at_most { "<=" } else { ">=" }, self.wanted, self.unit);
        let digits = if self.unit == " %" { 4 } else { 3 };
        format!(
            "  {:46}{:>14}  {wanted:12} {verdict}\n",
            self.what,
            format!("{:.digits$}{}", self.got, self.unit)
        )
    }
}

/// What ours reached on a pattern, line by line, and how much of it was missed.
pub fn verdict(pattern: &Pattern, rows: &[Row]) -> (String, usize) {
    let of = |tool| rows_of(rows, pattern.name, tool);
    let ours = [OURS, OURS_PLAIN].map(of).into_iter().find(|rows| !rows.is_empty()).unwrap_or_default();
    let (domain, whole, first) = (of(DOMAIN), of(WHOLE), of(OURS_FIRST));
    let mut goals = Vec::new();
    if !ours.is_empty() && !domain.is_empty() && !whole.is_empty() {
        goals = early(&ours, &domain, &whole);
        if pattern.name == DEAD_HEAD {
            let [ours, domain] = [&ours, &domain].map(|rows| held(rows, DEAD_HEAD_S));
            goals.push(Goal::at_least(
                format!("{DEAD_HEAD_S} s: of ddrescue with the domain"),
                ratio(ours, domain),
                TIMES_DOMAIN,
                " x",
            ));
        }
        let readable = mean(&ours, |row| row.readable as f64);
        let late = 100.0 * held(&ours, LATE_S) / readable;
        let mut late =
            Goal::at_least(format!("{LATE_S} s: of what can be read"), late, 100.0 * OF_READABLE, " %");
        late.moot = (pattern.name == DEAD_HEAD).then(|| "(no goal)".into());
        goals.push(late);
        goals.extend(for_ever(&ours, &domain));
    }
    if !first.is_empty() {
        let worst = |row: &&Row| 100.0 * row.wanted_in_time as f64 / row.wanted as f64;
        let worst = first.iter().map(worst).fold(100.0, f64::min);
        goals.push(Goal::at_least("20 s: --first, of what can be read, worst seed", worst, 100.0, " %"));
    }
    let nr_missed = goals.iter().filter(|goal| goal.moot.is_none() && !goal.is_reached()).count();
    let mut lines: String = goals.iter().map(Goal::line).collect();
    if !first.is_empty() {
        lines += &format!(
            "    (mean {:.3} %; whole with {} of {} seeds; {:.1} bad stretches in it, about as many errors)\n",
            mean(&first, |row| 100.0 * row.wanted_in_time as f64 / row.wanted as f64),
            first.iter().filter(|row| row.wanted_in_time == row.wanted).count(),
            first.len(),
            mean(&first, |row| row.wanted_spots as f64)
        );
    }
    (lines, nr_missed)
}

fn early(ours: &[&Row], domain: &[&Row], whole: &[&Row]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for life_s in EARLY_S {
        let [ours_held, domain, whole] = [ours, domain, whole].map(|rows| held(rows, life_s));
        let what = format!("{life_s} s: of ddrescue with the domain");
        goals.push(Goal::at_least(what, ratio(ours_held, domain), OF_DOMAIN, " x"));
        let what = format!("{life_s} s: of ddrescue on the whole disk");
        let mut goal = Goal::at_least(what, ratio(ours_held, whole), TIMES_WHOLE, " x");
        if !goal.is_reached() && whole * TIMES_WHOLE > mean(ours, |row| row.readable as f64) {
            let held = 100.0 * whole / mean(ours, |row| row.used as f64);
            goal.moot = Some(format!("cannot be: that holds {held:.1} %"));
        }
        goals.push(goal);
    }
    goals
}

fn for_ever(ours: &[&Row], domain: &[&Row]) -> Vec<Goal> {
    let ended = |rows: &[&Row]| rows.iter().filter(|row| !row.cut).map(|row| row.seed).collect::<Vec<_>>();
    let both: Vec<_> = ended(ours).into_iter().filter(|seed| ended(domain).contains(seed)).collect();
    if both.is_empty() {
        return Vec::new();
    }
    let of_both = |rows: &[&Row], number: fn(&Row) -> f64| {
        let rows = rows.iter().filter(|row| both.contains(&row.seed));
        rows.map(|row| number(row)).sum::<f64>()
    };
    let missing = of_both(ours, |row| (row.readable - row.end_held.min(row.readable)) as f64);
    let times = |number: fn(&Row) -> f64| ratio(of_both(ours, number), of_both(domain, number));
    vec![
        Goal::at_most("for ever: readable sectors missing, all seeds", missing, 0.0, ""),
        Goal::at_most("for ever: time of ddrescue with the domain", times(|row| row.end_s), TIMES_TIME, " x"),
        Goal::at_most(
            "for ever: bad reads of ddrescue with the domain",
            times(|row| row.end_bad_reads as f64),
            TIMES_BAD_READS,
            " x",
        ),
    ]
}

/// Sectors held after one of [`LIVES_S`].
fn held(rows: &[&Row], life_s: u32) -> f64 {
    let which = LIVES_S.iter().position(|life| *life == life_s).unwrap_or(0);
    mean(rows, |row| row.held[which] as f64)
}

/// How many times `of` that is; as often as one wants where that is nothing.
fn ratio(number: f64, of: f64) -> f64 {
    if of == 0.0 { f64::INFINITY } else { number / of }
}
