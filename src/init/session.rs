//! All the work of a boot but what only PID 1 can do: modules, the job, its devices, the result line.
//!
//! A child of PID 1, so that nothing here can panic the kernel. Its exit status asks PID 1 for the ending.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::config::{Config, Ending, Endings, Request, Task, stick_of, wants_shell};
use super::drives::{Drive, Line, Watch};
use super::ending::{Outcome, Verdict};
use super::find::{NotOne, StickError, find, judge, mark_stick};
use super::jobs::{Desk, Jobs};
use super::modules::{Index, Modules};
use super::screen::page::{Word, Work};
use super::screen::tty::ConsoleSpec;
use super::screen::{View, show_crash};
use super::signals::Signals;
use super::stick::{self, ConfigFile};
use super::uevents::Uevents;

/// So long nothing may have come or gone before a name counts as naming just one device (spec/stick.md).
const QUIET: Duration = Duration::from_secs(5);

/// Time between two looks while drives are being read, of which no uevent tells.
const POLL: Duration = Duration::from_millis(100);

/// Time between two looks otherwise, should a uevent be missed.
const LOOK: Duration = Duration::from_secs(1);

/// How much longer than asked is waited for drives that keep coming and going.
const UNREST: Duration = Duration::from_secs(60);

/// How long is waited for the stick from which this was booted: its drivers come in these seconds.
const STICK_WAIT: Duration = Duration::from_secs(30);

/// The command line of this boot.
fn boot_line() -> String {
    let bytes = std::fs::read("/proc/cmdline").unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Does what the command line or the stick asks for, prints the result line and says how to end.
pub(super) fn run() -> Ending {
    let signals = Signals::block(Signal::SIGTERM);
    let view = View::open();
    log::info!("ntfsrescue {}", env!("CARGO_PKG_VERSION"));
    let index = Index::of_running_kernel();
    let uevents = Uevents::listen().inspect_err(|errno| log::warn!("no uevents: {errno}")).ok();
    let modules = Modules::parse(&index);
    // Twice: the first ones bring buses whose devices want others. Of what comes later uevents tell.
    modules.coldplug();
    modules.coldplug();
    modules.load_always();
    log::info!("{} modules loaded", modules.nr_loaded());

    let line = boot_line();
    let desk = Desk { signals, modules, view };
    let mut session = Session { desk, uevents, watch: Watch::default() };
    let (outcome, ending) = session.boot(&line);
    let work = view.change(|page| page.work);
    view.end(&outcome, word_of(work, &outcome), steps(&outcome, ending));
    view.leave(ending == Ending::Shell);
    ending
}

/// Shows large that the session has died, and reads what the command line wants then.
pub(super) fn after_crash(sentence: String) -> Ending {
    let ending = Endings::of(&boot_line(), &[]).then_failed;
    show_crash(sentence, ending == Ending::Shell);
    ending
}

/// Tells why nothing runs, and makes it the result.
pub(super) fn refused(error: &dyn std::error::Error) -> Outcome {
    log::error!("{error}");
    Outcome::failed(error.to_string())
}

fn word_of(work: Work, outcome: &Outcome) -> Word {
    match outcome {
        Outcome { was_done: true, .. } if work == Work::Saving => Word::AlreadySaved,
        Outcome { was_done: true, .. } => Word::NothingToDo,
        _ if outcome.was_stopped() => Word::Stopped,
        _ => Word::of(work, outcome.verdict),
    }
}

/// What the person before the screen is to do.
fn steps(outcome: &Outcome, ending: Ending) -> Vec<String> {
    let mut steps = Vec::new();
    if outcome.verdict == Verdict::Damaged {
        steps.push("The log beside the image names the files that lost something.".to_owned());
    }
    if outcome.can_go_on() {
        steps.push("Start this stick again: it goes on where it stopped.".to_owned());
    }
    steps.push(
        match ending {
            Ending::PowerOff => "The machine switches itself off.",
            Ending::Reboot => "The machine starts again.",
            Ending::Halt => "The machine can be switched off now.",
            Ending::Shell => "A shell follows.",
        }
        .to_owned(),
    );
    steps
}

/// How waiting for a job's devices ended.
enum Waited {
    Found,
    NotOne(NotOne),
    Stick(StickError),
    Restless,
    Stopped,
}

struct Session<'a> {
    desk: Desk<'a>,
    uevents: Option<Uevents>,
    watch: Watch,
}

impl Session<'_> {
    /// Reads what is to be done, does it, and says how to end.
    fn boot(&mut self, line: &str) -> (Outcome, Ending) {
        let read = if wants_shell(line) { Ok(Vec::new()) } else { self.configurations(line) };
        let files = match read {
            Ok(files) => files,
            Err(why) => {
                log::error!("{why}");
                return (Outcome::failed(why), Endings::of(line, &[]).then_failed);
            }
        };
        let files: Vec<_> = files.iter().map(ConfigFile::as_conf_file).collect();
        let (outcome, ending) = match Config::parse(line, &files) {
            Err(error) => (refused(&error), None),
            Ok(config) => self.request(&config),
        };
        let ending = ending.unwrap_or_else(|| outcome.ending(Endings::of(line, &files)));
        (outcome, ending)
    }

    fn request(&mut self, config: &Config) -> (Outcome, Option<Ending>) {
        for console in &config.consoles {
            let spec = ConsoleSpec { name: console.name.to_string(), speed: console.baud };
            if let Err(cause) = self.desk.view.add_console(&spec) {
                log::warn!("cannot print on {}: {cause}", console.name);
            }
        }
        match &config.request {
            Request::Nothing => {
                self.list_after_a_while();
                (Outcome::ok("no job was given; no disk was touched"), Some(Ending::Shell))
            }
            Request::Shell => (Outcome::ok("a shell, as asked; no disk was touched"), Some(Ending::Shell)),
            Request::Job { task, .. } => {
                log::info!("the job: {config}");
                (self.job(config, task), None)
            }
        }
    }

    /// The configurations on the stick that the boot menu names, if it names one.
    fn configurations(&mut self, line: &str) -> Result<Vec<ConfigFile>, String> {
        let Some(id) = stick_of(line) else { return Ok(Vec::new()) };
        let begun = Instant::now();
        loop {
            self.listen(POLL);
            let mut drives = self.watch.drives();
            let marked = mark_stick(&mut drives, Some(id));
            let stick = drives.iter().find(|drive| drive.is_stick && drive.is_known());
            match (stick, marked) {
                (Some(stick), Ok(())) => return stick::read_configurations(stick, id, &self.desk.modules),
                // Which of them is to be believed?
                (_, Err(error @ StickError::Several(..))) => return Err(error.to_string()),
                (_, Err(error)) if begun.elapsed() >= STICK_WAIT => {
                    list(&drives);
                    return Err(error.to_string());
                }
                (None, Ok(())) if begun.elapsed() >= STICK_WAIT => {
                    return Err("the stick does not say what is on it".to_owned());
                }
                _ if self.desk.signals.stop_asked() => {
                    return Err("stopped while waiting for the stick; nothing was touched".to_owned());
                }
                _ => {}
            }
        }
    }

    /// Does a job, from waiting for its devices to unmounting.
    fn job(&mut self, config: &Config, task: &Task) -> Outcome {
        self.desk.view.begin(Work::Searching, None, None);
        let waited = self.wait_for(config, task);
        let mut drives = self.watch.drives();
        // What is wrong with it was found while waiting.
        let _told = mark_stick(&mut drives, config.stick.as_deref());
        match waited {
            Waited::Found => {}
            Waited::Stopped => {
                return Outcome::failed("stopped while waiting for disks; nothing was touched");
            }
            Waited::Restless => {
                list(&drives);
                return Outcome::failed("disks keep coming and going; nothing was touched");
            }
            Waited::NotOne(error) => {
                list(&drives);
                return refused(&error);
            }
            Waited::Stick(error) => {
                list(&drives);
                return refused(&error);
            }
        }
        let devices = match find(task, &drives) {
            Ok(devices) => devices,
            Err(error) => return refused(&error),
        };
        let jobs = Jobs::new(&self.desk, &self.watch, config, &drives);
        if let Err(error) = judge(task, &devices, &drives)
            && !(error.is_only_of_content() && jobs.has_begun(task, &devices))
        {
            list(&drives);
            return refused(&error);
        }
        jobs.carry_out(task, &devices)
    }

    /// Looks at the drives until the job's devices are there, each just once, and nothing more comes.
    fn wait_for(&mut self, config: &Config, task: &Task) -> Waited {
        let begun = Instant::now();
        loop {
            let is_settled = self.watch.is_settled();
            self.listen(if is_settled {
                LOOK.min(QUIET.saturating_sub(self.watch.quiet_for()))
            } else {
                POLL
            });
            self.watch.show_ranges(task);
            let mut drives = self.watch.drives();
            let marked = mark_stick(&mut drives, config.stick.as_deref());
            let elapsed = begun.elapsed();
            let is_quiet = self.watch.quiet_for() >= QUIET;
            // What is there gets the time to say what it holds, however short the wait is.
            let is_late =
                elapsed >= config.wait && (self.watch.is_settled() || elapsed >= config.wait + QUIET);
            match (marked, find(task, &drives)) {
                (Err(error @ StickError::Several(..)), _) => return Waited::Stick(error),
                (Err(error), _) if is_late => return Waited::Stick(error),
                // A drive that does not answer may hold the same name again; it gets as long as one that is missing.
                (Ok(()), Ok(_)) if is_quiet && (self.watch.is_settled() || elapsed >= config.wait) => {
                    return Waited::Found;
                }
                (_, Ok(_)) if elapsed >= config.wait + UNREST => return Waited::Restless,
                (_, Err(error)) if is_late => return Waited::NotOne(error),
                _ => {}
            }
            if self.desk.signals.stop_asked() {
                return Waited::Stopped;
            }
        }
    }

    /// Waits for news of devices, at most so long, and sees to them.
    fn listen(&mut self, time: Duration) {
        let uevents: Vec<_> = self.uevents.iter().map(AsFd::as_fd).collect();
        self.desk.signals.take_children();
        self.desk.signals.wait(&uevents, time);
        let news = self.uevents.as_ref().map(Uevents::take).unwrap_or_default();
        for modalias in &news.modaliases {
            self.desk.modules.plug(modalias);
        }
        if news.is_incomplete || self.uevents.is_none() {
            self.desk.modules.coldplug();
        }
        self.watch.look();
    }

    /// Lists what is there once it has been read, for a boot without a job.
    fn list_after_a_while(&mut self) {
        let begun = Instant::now();
        loop {
            self.listen(POLL);
            let is_quiet = self.watch.quiet_for() >= QUIET && self.watch.is_settled();
            if is_quiet || begun.elapsed() >= 2 * QUIET || self.desk.signals.stop_asked() {
                break;
            }
        }
        list(&self.watch.drives());
    }
}

/// Lists every candidate.
fn list(drives: &[Drive]) {
    if drives.is_empty() {
        log::info!("No disk was found.");
    }
    for drive in drives {
        log::info!("{}", Line(drive, None));
        for part in &drive.parts {
            log::info!("    {}", Line(drive, Some(part)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_in_one_word() {
        let failed = |exit| Outcome { exit, ..Outcome::failed("") };
        assert_eq!(word_of(Work::Saving, &Outcome::ok("")), Word::Saved);
        assert_eq!(word_of(Work::Saving, &Outcome::was_done("")), Word::AlreadySaved);
        assert_eq!(word_of(Work::Restoring, &Outcome::was_done("")), Word::NothingToDo);
        assert_eq!(word_of(Work::Saving, &failed(6)), Word::Stopped);
        assert_eq!(word_of(Work::Saving, &failed(4)), Word::Failed);
        let damaged = Outcome { verdict: Verdict::Damaged, ..failed(3) };
        assert_eq!(word_of(Work::Cloning, &damaged), Word::Damaged);
    }

    #[test]
    fn what_can_go_on_says_so() {
        let failed = |exit| Outcome { exit, ..Outcome::failed("") };
        for exit in [4, 6, 7] {
            assert_eq!(steps(&failed(exit), Ending::Halt).len(), 2, "{exit}");
        }
        assert_eq!(steps(&failed(1), Ending::Halt), ["The machine can be switched off now."]);
    }
}
