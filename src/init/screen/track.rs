//! What a worker tells of its progress: as the page's numbers, and as a line now and then for who only gets lines.

use std::collections::VecDeque;
use std::time::Duration;

use super::page::{Page, Progress, Rescued};
use crate::report::events::{Rescue, Told};
use crate::report::{Bytes, Time};

/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Percent between two lines, should that be sooner.
const LINE_PERCENT: f64 = 5.0;

/// The rate is that of so much time.
const RATE_OVER: Duration = Duration::from_secs(30);

/// Time between two of the numbers that the rate comes from.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// A disk that takes so long is told of; the next time is when it has taken twice as long, but soon enough.
const LONG: Duration = Duration::from_secs(2);

/// Stages whose progress is in bytes, so far as we know them.
const IN_BYTES: [&str; 8] = ["clone", "save", "restore", "check", "rescue", "verify", "compare", "sum"];

/// The progress of a worker.
#[derive(Debug, Default)]
pub struct Track {
    phase: String,
    /// When so much was done.
    samples: VecDeque<(Duration, u64)>,
    /// When the last line was given, and the percentage in it.
    line: Option<(Duration, f64)>,
    /// When a disk that does not answer is told of again.
    waiting: Option<Duration>,
}

impl Track {
    /// Takes what a worker tells at this time into the page. Returns a line, if it is time for one.
    pub fn told(&mut self, told: Told, page: &mut Page, now: Duration) -> Option<String> {
        match told {
            Told::Phase { name } => {
                page.step = step(&name).to_owned();
                page.waiting = None;
                if IN_BYTES.contains(&name.as_str()) {
                    page.progress = None;
                    *self = Track::default();
                }
                self.phase = name;
                None
            }
            Told::Rescue(rescue) => self.rescue(rescue, page, now),
            Told::Progress { done, total } => self.progress(done, total, page, now),
            Told::Waiting(time) if time < LONG => None,
            Told::Waiting(time) => {
                page.waiting = Some(now.saturating_sub(time));
                let is_due = self.waiting.is_none_or(|at| time >= at);
                is_due.then(|| {
                    self.waiting = Some((2 * time).min(time + LINE_EVERY));
                    format!("waiting for the disk for {}", Time(time))
                })
            }
            Told::Lost { .. } => None,
        }
    }

    fn rescue(&mut self, rescue: Rescue, page: &mut Page, now: Duration) -> Option<String> {
        self.goes_on(page);
        let rescued = Rescued {
            bad_areas: rescue.bad_areas,
            bad_bytes: rescue.bad_bytes,
            last_good: now.saturating_sub(rescue.since_good),
        };
        let progress = Progress {
            done: rescue.rescued,
            total: rescue.total,
            is_bytes: true,
            rate: self.rate(rescue.rescued, now),
            rescue: Some(rescued),
        };
        let is_done = rescue.pass == "done";
        let pass = rescue.pass.replace('-', " ");
        page.step = if is_done { "Rescued what can be read".to_owned() } else { format!("Rescuing: {pass}") };
        let line = self.is_line_due(progress.percent(), is_done, now).then(|| {
            format!(
                "{}, {pass}: {} bad areas, {}; {}last good read {} ago",
                standing(&progress),
                rescued.bad_areas,
                Bytes(rescued.bad_bytes),
                speed(&progress),
                Time(rescue.since_good),
            )
        });
        page.progress = Some(progress);
        line
    }

    fn progress(&mut self, done: u64, total: u64, page: &mut Page, now: Duration) -> Option<String> {
        self.goes_on(page);
        let is_bytes = IN_BYTES.contains(&self.phase.as_str());
        let shows_bytes = page.progress.as_ref().is_some_and(|progress| progress.is_bytes);
        if !is_bytes && shows_bytes {
            // What follows the work is short, and no reason to begin at 0 again.
            return None;
        }
        let rate = self.rate(done, now);
        let progress = Progress { done, total, is_bytes, rate, rescue: None };
        let is_due = self.is_line_due(progress.percent(), done >= total, now);
        let line = (is_bytes && is_due).then(|| {
            let line = format!("{}; {}", standing(&progress), speed(&progress));
            line.trim_end_matches([' ', ';']).to_owned()
        });
        page.progress = Some(progress);
        line
    }

    /// The disk answers.
    fn goes_on(&mut self, page: &mut Page) {
        self.waiting = None;
        page.waiting = None;
    }

    fn is_line_due(&mut self, percent: f64, is_done: bool, now: Duration) -> bool {
        let is_due = self.line.is_none_or(|(at, told)| {
            let is_news = is_done && told < 100.0;
            is_news || now.saturating_sub(at) >= LINE_EVERY || percent - told >= LINE_PERCENT
        });
        if is_due {
            self.line = Some((now, percent));
        }
        is_due
    }

    /// So much a second, lately; none until that can be told.
    fn rate(&mut self, done: u64, now: Duration) -> Option<f64> {
        if self.samples.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= SAMPLE_EVERY) {
            self.samples.push_back((now, done));
        }
        // One that is older stays: a disk may have been silent for longer.
        while let Some((next, _)) = self.samples.get(1)
            && now.saturating_sub(*next) > RATE_OVER
        {
            self.samples.pop_front();
        }
        let (at, before) = self.samples.front()?;
        let time = now.saturating_sub(*at);
        (time >= SAMPLE_EVERY).then(|| done.saturating_sub(*before) as f64 / time.as_secs_f64())
    }
}

/// `  3.20% 12.8 MB of 400.0 MB`
fn standing(progress: &Progress) -> String {
    format!("{:6.2}% {} of {}", progress.percent(), Bytes(progress.done), Bytes(progress.total))
}

/// `1.2 MB/s, 2 min left; `
fn speed(progress: &Progress) -> String {
    let rate = progress.rate.map_or(String::new(), |rate| format!("{}/s", Bytes(rate as u64)));
    match progress.left() {
        Some(left) => format!("{rate}, {} left; ", Time(left)),
        None if rate.is_empty() => rate,
        None => format!("{rate}; "),
    }
}

/// What a stage does, for who watches; a name that we do not know is better than nothing.
fn step(phase: &str) -> &str {
    match phase {
        "survey" => "Reading what makes the rest readable",
        "scan" => "Reading the list of files",
        "folders" => "Reading the names of folders",
        "files" => "Looking through the files",
        "account" => "Comparing the map of clusters in use with the list of files",
        "clone" => "Copying to the disk",
        "save" => "Copying to the image",
        "restore" => "Copying from the image",
        "check" => "Checking that the image is whole",
        "verify" | "compare" => "Reading back what was written, and comparing it with the image",
        "sum" => "Reading the image back for its checksums",
        "rescue" => "Rescuing",
        "mark" => "Marking what is lost",
        "sync" => "Waiting until the disk has written everything: do not switch off",
        _ => phase,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn phase(name: &str) -> Told {
        Told::Phase { name: name.to_owned() }
    }

    #[test]
    fn a_rescue_is_told_every_30_seconds_or_5_percent() {
        let (mut track, mut page) = (Track::default(), Page::default());
        let mut told = |seconds, megabytes: u64, pass: &str| {
            let rescue = Rescue {
                pass: pass.to_owned(),
                rescued: megabytes * 1_000_000,
                total: 100_000_000,
                bad_areas: 1,
                bad_bytes: 512,
                since_good: at(1),
                ..Rescue::default()
            };
            track.told(Told::Rescue(rescue), &mut page, at(seconds))
        };
        let first = "  1.00% 1.0 MB of 100.0 MB, copying: 1 bad areas, 512 B; last good read 1 s ago";
        assert_eq!(told(10, 1, "copying").as_deref(), Some(first));
        assert_eq!(told(11, 5, "copying"), None);
        let next = "  6.00% 6.0 MB of 100.0 MB, copying: 1 bad areas, 512 B; 2.5 MB/s, 37 s left; last good read 1 s ago";
        assert_eq!(told(12, 6, "copying").as_deref(), Some(next));
        assert_eq!(told(41, 6, "going-back"), None);
        assert!(told(42, 6, "going-back").unwrap().contains(", going back: 1 bad areas"));
        assert!(told(43, 7, "done").unwrap().starts_with("  7.00% "), "the end is told");
        assert_eq!(page.step, "Rescued what can be read");
        let progress = page.progress.unwrap();
        assert_eq!((progress.done, progress.total, progress.is_bytes), (7_000_000, 100_000_000, true));
        let rescued = Rescued { bad_areas: 1, bad_bytes: 512, last_good: at(42) };
        assert_eq!(progress.rescue, Some(rescued));
        // From 11 s on: what is older than 30 s does not count.
        assert_eq!(progress.rate, Some(1e6 / 31.0));
    }

    #[test]
    fn a_disk_that_does_not_answer_is_told_less_and_less_often() {
        let (mut track, mut page) = (Track::default(), Page::default());
        let told = (0..=100).filter(|seconds| {
            track.told(Told::Waiting(at(*seconds)), &mut page, at(1000 + seconds)).is_some()
        });
        assert_eq!(told.collect::<Vec<_>>(), [2, 4, 8, 16, 32, 62, 92]);
        assert_eq!(page.waiting, Some(at(1000)));
        track.told(Told::Progress { done: 0, total: 1 }, &mut page, at(2000));
        assert_eq!(page.waiting, None);
        let line = track.told(Told::Waiting(at(2)), &mut page, at(2002));
        assert_eq!(line.as_deref(), Some("waiting for the disk for 2 s"));
    }

    #[test]
    fn stages_follow_each_other() {
        let (mut track, mut page) = (Track::default(), Page::default());
        let mut told = |told, seconds| track.told(told, &mut page, at(seconds)).is_some();
        let progress = |done| Told::Progress { done, total: 10 };
        assert!(
            !told(phase("scan"), 1) && !told(progress(5), 2) && !told(progress(10), 3),
            "no bytes, no line"
        );
        told(phase("restore"), 4);
        assert!(told(progress(1), 5) && told(progress(10), 6) && !told(progress(10), 7));
        told(phase("files"), 8);
        told(progress(1), 9);
        assert_eq!(page.step, "Looking through the files");
        assert_eq!(page.progress.as_ref().map(|progress| progress.done), Some(10));
        let mut told = |told, seconds| track.told(told, &mut page, at(seconds));
        told(phase("verify"), 10);
        assert_eq!(told(progress(4), 11).as_deref(), Some(" 40.00% 4 B of 10 B"));
    }
}
