//! Restores an image or clones a volume: the jobs that overwrite a device. Once done, such a job is not done again.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::ending::{Outcome, Verdict};
use super::marks::{Marks, Stage};
use super::save::{MAP_INTERVAL, Worker, text};
use super::template::date_of;
use super::worker::SAVING;

/// Where to read from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// An image.
    Image(PathBuf),
    /// A volume's device, with a map of what was read of it so far, where there is a place for one.
    Volume(PathBuf, Option<PathBuf>),
}

/// A device to be overwritten.
#[derive(Clone, Debug)]
pub struct Erase<'a> {
    /// Where from.
    pub from: Origin,
    /// The device.
    pub to: &'a Path,
    /// Further options of the user's.
    pub options: &'a str,
    /// Where the worker writes its report.
    pub report: &'a Path,
    /// Where the stick keeps that it was done; none without a place.
    pub marks: Option<&'a Marks>,
    /// What is being done, for messages.
    pub work: &'a str,
}

impl Erase<'_> {
    /// Does it, unless it was done before.
    pub fn run(&self, worker: &mut dyn Worker) -> Outcome {
        let Erase { work, marks, .. } = self;
        if let Some(time) = marks.and_then(|marks| marks.time_of(Stage::Done)) {
            return Outcome::was_done(format!(
                "{work}: already done on {}; nothing was written (a new run-id lets it run again)",
                date_of(time)
            ));
        }
        if let Some(marks) = marks
            && marks.time_of(Stage::Begun).is_none()
        {
            // What an earlier job of the same name has left is not gone on with.
            marks.forget();
        }
        if let Some(error) = marks.and_then(|marks| marks.set(Stage::Begun, now()).err()) {
            return Outcome::failed(format!("{work}: the stick takes no mark: {error}; nothing was written"));
        }
        let ended = match worker.run(&self.argv()) {
            Ok(ended) => ended,
            Err(cause) => return Outcome::failed(format!("{work}: the worker cannot be run: {cause}")),
        };
        let outcome = Outcome::of_worker(&ended, work);
        if outcome.verdict != Verdict::Failed
            && let Some(error) = marks.and_then(|marks| marks.set(Stage::Done, now()).err())
        {
            return Outcome::failed(format!(
                "{work}: done, but the stick takes no mark of it: {error}; at the next boot it would be done again"
            ));
        }
        outcome
    }

    fn argv(&self) -> Vec<String> {
        let Erase { to, options, report, .. } = self;
        let (to, report) = (text(to), text(report));
        let mut argv: Vec<String> = match &self.from {
            Origin::Image(_) => ["-r", "--verify"].map(str::to_owned).into(),
            Origin::Volume(_, map) => {
                let mut argv: Vec<_> = SAVING.map(str::to_owned).into();
                argv.extend(["--report", &report].map(str::to_owned));
                if let Some(map) = map {
                    argv.extend(["--map-interval", MAP_INTERVAL, "--map", &text(map)].map(str::to_owned));
                }
                argv
            }
        };
        argv.extend(["-O", &to].map(str::to_owned));
        argv.extend(options.split_ascii_whitespace().map(str::to_owned));
        argv.push(text(match &self.from {
            Origin::Image(path) | Origin::Volume(path, _) => path,
        }));
        argv
    }
}

/// Seconds since 1970-01-01 00:00 UTC.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::super::marks::JobId;
    use super::super::save::tests::Script;
    use super::*;

    fn marks(folder: &Path) -> Marks {
        let job = JobId { job: "restore".into(), target: "S".into(), run_id: String::new() };
        Marks::new(folder, job)
    }

    fn erase(from: Origin, marks: Option<&Marks>) -> Erase<'_> {
        Erase {
            from,
            to: Path::new("/dev/t"),
            options: "-q",
            report: Path::new("/r"),
            marks,
            work: "restore",
        }
    }

    #[test]
    fn a_job_that_is_done_is_not_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let marks = marks(folder.path());
        let erase = erase(Origin::Image("/i".into()), Some(&marks));
        let mut worker = Script::new(&[1, 0]);
        assert_eq!(erase.run(&mut worker).verdict, Verdict::Failed);
        assert!(marks.time_of(Stage::Begun).is_some() && marks.time_of(Stage::Done).is_none());
        assert_eq!(erase.run(&mut worker).verdict, Verdict::Ok);
        assert_eq!(worker.asked, ["-r --verify -O /dev/t -q /i"; 2]);
        let again = erase.run(&mut Script::new(&[])).to_string();
        assert!(again.contains("result=ok") && again.contains("already done on 2"), "{again}");
    }

    #[test]
    fn nothing_is_overwritten_unmarked() {
        let folder = tempfile::tempdir().unwrap();
        let marks = marks(&folder.path().join("none"));
        let outcome = erase(Origin::Image("/i".into()), Some(&marks)).run(&mut Script::new(&[]));
        assert!(outcome.sentence.contains("takes no mark") && outcome.verdict == Verdict::Failed);
    }

    #[test]
    fn a_clone_goes_on_where_its_map_says() {
        let volume = || PathBuf::from("/dev/s");
        let mut worker = Script::new(&[3]);
        assert_eq!(
            erase(Origin::Volume(volume(), Some("/m".into())), None).run(&mut worker).verdict,
            Verdict::Damaged
        );
        let saving = "--rescue --force --ignore-fs-check --strict --reconnect 600 --report /r";
        assert_eq!(worker.asked, [format!("{saving} --map-interval 10 --map /m -O /dev/t -q /dev/s")]);
        let without = erase(Origin::Volume(volume(), None), None);
        assert_eq!(without.argv().join(" "), format!("{saving} -O /dev/t -q /dev/s"));
    }
}
