//! How a boot ends: the result line, what the session tells PID 1 to do next by its exit status, and doing it.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use super::config::{Ending, Endings};
use super::spec::Escaped;

/// The worker's exit status when it was stopped and can go on, see `Ending` in `run.rs`.
const INTERRUPTED: i32 = 6;

/// The same when the disk has gone away, and when the target failed or is full.
const GONE: i32 = 4;
const TARGET: i32 = 7;

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// The error that it told last.
    pub error: Option<String>,
}

/// What became of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Verdict {
    Ok,
    /// Sectors were lost and are marked.
    Damaged,
    Failed,
}

impl Verdict {
    /// As in the result line.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Damaged => "damaged",
            Verdict::Failed => "failed",
        }
    }
}

/// The last line on the console: `ntfsrescue: result=<ok|damaged|failed> exit=<n> <one sentence>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What became of it.
    pub verdict: Verdict,
    /// The worker's exit status; 128 and its number for a signal; 1 where it never ran.
    pub exit: i32,
    /// One sentence.
    pub sentence: String,
    /// It had been done before this boot.
    pub was_done: bool,
}

impl Outcome {
    /// Nothing was to be done, or it was done.
    pub fn ok(sentence: impl Into<String>) -> Outcome {
        Outcome { verdict: Verdict::Ok, exit: 0, sentence: sentence.into(), was_done: false }
    }

    /// It was done before this boot.
    pub fn was_done(sentence: impl Into<String>) -> Outcome {
        Outcome { was_done: true, ..Outcome::ok(sentence) }
    }

    /// Refused before the worker ran, or failed outside it.
    pub fn failed(sentence: impl Into<String>) -> Outcome {
        Outcome { verdict: Verdict::Failed, exit: 1, sentence: sentence.into(), was_done: false }
    }

    /// What a worker's exit status means for the work that it did.
    pub fn of_worker(ended: &Ended, work: &str) -> Outcome {
        let status = ended.status;
        let exit = exit_number(status);
        let why = ended.error.as_deref().map_or(String::new(), |error| format!(": {error}"));
        let (verdict, sentence) = match status.code() {
            Some(0) => (Verdict::Ok, format!("{work}: done")),
            Some(3) => (Verdict::Damaged, format!("{work}: done, but sectors were lost; they are marked")),
            Some(5) => {
                (Verdict::Damaged, format!("{work}: ended by its budget; what was not read is marked"))
            }
            Some(GONE) => (Verdict::Failed, format!("{work}: the disk went away; what was read is kept")),
            Some(INTERRUPTED) => (Verdict::Failed, format!("{work}: stopped; what was read is kept")),
            Some(TARGET) => {
                (Verdict::Failed, format!("{work}: the target failed or is full; what was read is kept{why}"))
            }
            Some(_) => (Verdict::Failed, format!("{work}: failed{why}")),
            None if status.signal() == Some(Signal::SIGKILL as i32) => {
                (Verdict::Failed, format!("{work}: was killed, perhaps for want of memory"))
            }
            // What keeps no map ends by the signal itself.
            None if status.signal() == Some(Signal::SIGTERM as i32) => {
                (Verdict::Failed, format!("{work}: stopped"))
            }
            None => (Verdict::Failed, format!("{work}: ended by signal {}", exit - 128)),
        };
        Outcome { verdict, exit, sentence, was_done: false }
    }

    /// What came of several volumes, of which the last ones may not have been tried.
    pub fn of_all(outcomes: Vec<Outcome>, total: usize) -> Outcome {
        if let [one] = outcomes.as_slice()
            && total == 1
        {
            return one.clone();
        }
        let of = |verdict| outcomes.iter().filter(|outcome| outcome.verdict == verdict).count();
        let (whole, damaged, failed) = (of(Verdict::Ok), of(Verdict::Damaged), of(Verdict::Failed));
        let untried = total.saturating_sub(outcomes.len());
        let mut sentence = format!("{total} volumes: {whole} saved");
        for (count, what) in [
            (damaged, "saved with lost sectors, which are marked"),
            (failed, "failed"),
            (untried, "not tried"),
        ] {
            if count > 0 {
                sentence.push_str(&format!(", {count} {what}"));
            }
        }
        let worst = outcomes.iter().max_by_key(|outcome| outcome.verdict).cloned();
        let worst = worst.unwrap_or_else(|| Outcome::failed("there is nothing to save"));
        let was_done = outcomes.iter().all(|outcome| outcome.was_done);
        Outcome { sentence, was_done, ..worst }
    }

    /// Did somebody end it?
    pub fn was_stopped(&self) -> bool {
        [INTERRUPTED, 128 + Signal::SIGTERM as i32].contains(&self.exit)
    }

    /// Does the next boot go on where this one ended?
    pub fn can_go_on(&self) -> bool {
        self.verdict == Verdict::Failed && [GONE, INTERRUPTED, TARGET].contains(&self.exit)
    }

    /// What follows.
    pub fn ending(&self, endings: Endings) -> Ending {
        if self.verdict == Verdict::Failed { endings.then_failed } else { endings.then }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.verdict.name();
        write!(f, "ntfsrescue: result={verdict} exit={} {}", self.exit, Escaped(&self.sentence))
    }
}

/// An exit status as one number, as a shell has it.
pub fn exit_number(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Each ending and the session's exit status that asks for it: none that a crash or a usage error gives.
const STATUS: [(Ending, u8); 4] =
    [(Ending::PowerOff, 64), (Ending::Reboot, 65), (Ending::Halt, 66), (Ending::Shell, 67)];

impl Ending {
    /// The exit status that asks PID 1 for this ending.
    pub fn status(self) -> u8 {
        STATUS.into_iter().find(|(ending, _)| *ending == self).map_or(0, |(_, status)| status)
    }

    /// The ending that an exit status asks for; none where the session did not end as it should.
    pub fn from_status(status: i32) -> Option<Ending> {
        STATUS.into_iter().find(|(_, asked)| i32::from(*asked) == status).map(|(ending, _)| ending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_line_says_what_became_of_the_worker() {
        let told = |raw, error: Option<&str>| {
            let ended = Ended { status: ExitStatus::from_raw(raw), error: error.map(str::to_owned) };
            Outcome::of_worker(&ended, "save of a").to_string()
        };
        let line = |raw| told(raw, None);
        assert_eq!(line(0), "ntfsrescue: result=ok exit=0 save of a: done");
        let full = told(7 << 8, Some("no room"));
        assert!(full.ends_with("is full; what was read is kept: no room"), "{full}");
        assert!(told(1 << 8, Some("no such file")).ends_with(" exit=1 save of a: failed: no such file"));
        assert_eq!(line(15), "ntfsrescue: result=failed exit=143 save of a: stopped");
        assert!(line(3 << 8).starts_with("ntfsrescue: result=damaged exit=3 save of a: done, but"));
        assert_eq!(line(1 << 8), "ntfsrescue: result=failed exit=1 save of a: failed");
        assert_eq!(
            line(9),
            "ntfsrescue: result=failed exit=137 save of a: was killed, perhaps for want of memory"
        );
        assert_eq!(line(11), "ntfsrescue: result=failed exit=139 save of a: ended by signal 11");
        assert_eq!(Outcome::failed("a\nb").to_string(), "ntfsrescue: result=failed exit=1 a\\nb");
    }

    #[test]
    fn endings_travel_as_exit_status() {
        for (ending, status) in STATUS {
            assert_eq!(Ending::from_status(ending.status().into()), Some(ending));
            assert_eq!(ending.status(), status);
        }
        for crash in [0, 1, 2, 101, 134, 143] {
            assert_eq!(Ending::from_status(crash), None);
        }
        let ended = Ended { status: ExitStatus::from_raw(3 << 8), error: None };
        let damaged = Outcome::of_worker(&ended, "x");
        assert_eq!(damaged.ending(Endings::default()), Ending::PowerOff, "damaged is not failed");
        assert_eq!(Outcome::failed("x").ending(Endings::default()), Ending::Halt);
    }
}
