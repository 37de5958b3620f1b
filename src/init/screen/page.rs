//! What a screen shows, and how it is drawn. Pure: no device is looked at.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::time::Duration;

use super::letters::large;
use crate::init::ending::Verdict;
use crate::init::find::Pick;
use crate::init::probe::Found;
use crate::init::spec::Escaped;
use crate::report::{Bytes, Time};

/// Messages that are kept for the page: more than any screen has rows.
const MAX_MESSAGES: usize = 200;

/// All that a screen shows. Times are since the kernel started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// What is being done.
    pub work: Work,
    /// Which of how many volumes, where there are several.
    pub volume: Option<(usize, usize)>,
    /// What is read.
    pub source: Option<Side>,
    /// What is written.
    pub target: Option<Side>,
    /// What happens just now, in a few words.
    pub step: String,
    /// When the work began.
    pub begun: Option<Duration>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// Since when a read has been waited for.
    pub waiting: Option<Duration>,
    /// The last lines of the log.
    pub messages: VecDeque<String>,
    /// How it ended.
    pub ending: Option<Statement>,
    /// The time at which this is drawn.
    pub now: Duration,
}

impl Page {
    /// Adds a line of the log.
    pub fn message(&mut self, line: &str) {
        if self.messages.len() >= MAX_MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(line.to_owned());
    }

    /// Begins the work on a volume or a disk: what was known of the one before is forgotten.
    pub fn begin(&mut self, work: Work, source: Option<Side>, target: Option<Side>, now: Duration) {
        let messages = std::mem::take(&mut self.messages);
        let volume = self.volume;
        *self = Page { work, volume, source, target, begun: Some(now), messages, now, ..Page::default() };
    }
}

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Work {
    #[default]
    Starting,
    /// Looking for disks.
    Searching,
    Saving,
    Restoring,
    Cloning,
    Verifying,
}

impl Work {
    /// All of them.
    pub const ALL: [Work; 6] =
        [Work::Starting, Work::Searching, Work::Saving, Work::Restoring, Work::Cloning, Work::Verifying];

    /// In one large word.
    pub fn word(self) -> &'static str {
        match self {
            Work::Starting => "STARTING",
            Work::Searching => "SEARCHING",
            Work::Saving => "SAVING",
            Work::Restoring => "RESTORING",
            Work::Cloning => "CLONING",
            Work::Verifying => "VERIFYING",
        }
    }
}

/// One end of the work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// The device, or the file and what it lies on.
    pub place: String,
    /// The file system's label; may be empty, as the rest may be.
    pub label: String,
    /// The disk's model.
    pub model: String,
    /// The disk's serial number.
    pub serial: String,
    /// Bytes; 0 where they say nothing.
    pub size: u64,
}

impl Side {
    /// A volume, or a whole disk.
    pub fn device(pick: &Pick<'_>) -> Side {
        let label = match &pick.part.found {
            Found::Content(content) => content.label.to_string(),
            _ => String::new(),
        };
        Side {
            place: pick.part.path().display().to_string(),
            label,
            model: pick.drive.model.clone(),
            serial: pick.drive.serial().to_owned(),
            size: pick.part.size,
        }
    }

    /// A file on a file system.
    pub fn file(path: &str, on: &Pick<'_>) -> Side {
        let device = Side::device(on);
        Side { place: format!("{path} on {}", device.place), size: 0, ..device }
    }

    fn text(&self) -> String {
        let mut text = self.place.clone();
        if !self.label.is_empty() {
            let _infallible = write!(text, "  \"{}\"", self.label);
        }
        if self.size > 0 {
            let _infallible = write!(text, "  {}", Bytes(self.size));
        }
        for (name, value) in [("serial ", &self.serial), ("", &self.model)] {
            if !value.is_empty() {
                let _infallible = write!(text, "  {name}{value}");
            }
        }
        text
    }
}

/// How far the work is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Done so far.
    pub done: u64,
    /// All there is.
    pub total: u64,
    /// Are these bytes, rather than something that only tells how much of it is done?
    pub is_bytes: bool,
    /// So many a second, lately.
    pub rate: Option<f64>,
    /// Of a rescue only.
    pub rescue: Option<Rescued>,
}

impl Progress {
    /// Of a hundred.
    pub fn percent(&self) -> f64 {
        self.done as f64 * 100.0 / self.total.max(1) as f64
    }

    /// How long it takes from now on at this rate.
    pub fn left(&self) -> Option<Duration> {
        let rate = self.rate.filter(|rate| *rate > 0.0)?;
        let seconds = self.total.saturating_sub(self.done) as f64 / rate;
        Some(Duration::from_secs_f64(seconds.min(1e9)))
    }
}

/// What only a rescue has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Stretches that cannot be read so far.
    pub bad_areas: u64,
    /// Their bytes.
    pub bad_bytes: u64,
    /// When a read was good for the last time, since the kernel started.
    pub last_good: Duration,
}

/// The large clear statement at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// In one word.
    pub word: Word,
    /// In a sentence.
    pub sentence: String,
    /// What the person is to do now, one sentence each.
    pub steps: Vec<String>,
}

/// The end in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Word {
    Saved,
    Restored,
    Cloned,
    Verified,
    AlreadySaved,
    NothingToDo,
    /// Something was lost.
    Damaged,
    /// A person has ended it, and it can go on.
    Stopped,
    Failed,
}

impl Word {
    /// All of them.
    pub const ALL: [Word; 9] = [
        Word::Saved,
        Word::Restored,
        Word::Cloned,
        Word::Verified,
        Word::AlreadySaved,
        Word::NothingToDo,
        Word::Damaged,
        Word::Stopped,
        Word::Failed,
    ];

    /// The word for work that ended like this.
    pub fn of(work: Work, verdict: Verdict) -> Word {
        match (verdict, work) {
            (Verdict::Failed, _) => Word::Failed,
            (Verdict::Damaged, _) => Word::Damaged,
            (Verdict::Ok, Work::Saving) => Word::Saved,
            (Verdict::Ok, Work::Restoring) => Word::Restored,
            (Verdict::Ok, Work::Cloning) => Word::Cloned,
            (Verdict::Ok, Work::Verifying) => Word::Verified,
            (Verdict::Ok, Work::Starting | Work::Searching) => Word::NothingToDo,
        }
    }

    /// In letters that we have.
    pub fn text(self) -> &'static str {
        match self {
            Word::Saved => "SAVED",
            Word::Restored => "RESTORED",
            Word::Cloned => "CLONED",
            Word::Verified => "VERIFIED",
            Word::AlreadySaved => "ALREADY SAVED",
            Word::NothingToDo => "NOTHING TO DO",
            Word::Damaged => "DAMAGED",
            Word::Stopped => "STOPPED",
            Word::Failed => "FAILED",
        }
    }

    /// White on green or red, black on yellow.
    fn colour(self) -> &'static str {
        match self {
            Word::Damaged | Word::Stopped => "\x1b[30;43m",
            Word::Failed => "\x1b[1;37;41m",
            _ => "\x1b[1;37;42m",
        }
    }
}

/// White on blue.
const HEADER: &str = "\x1b[1;37;44m";
const BRIGHT: &str = "\x1b[1;37m";
const GREEN: &str = "\x1b[1;32m";
const YELLOW: &str = "\x1b[1;33m";
const RED: &str = "\x1b[1;31m";
const PLAIN: &str = "";

/// Draws the page: `rows` lines of `columns` characters each, with colours as the Linux console has them, separated by
/// line feeds. From 80 columns and 25 rows on nothing is missing.
pub fn draw(page: &Page, columns: usize, rows: usize) -> String {
    let mut canvas = Canvas { columns, rows, lines: Vec::new() };
    canvas.header(page);
    match &page.ending {
        Some(statement) => canvas.statement(page, statement),
        None => canvas.work(page),
    }
    canvas.messages(page);
    canvas.lines.truncate(rows);
    canvas.lines.join("\n")
}

/// The lines so far.
struct Canvas {
    columns: usize,
    rows: usize,
    lines: Vec<String>,
}

impl Canvas {
    /// Adds a line: as much of the text as there is room for.
    fn line(&mut self, colour: &str, text: &str) {
        let (text, width) = (fitted(text, self.columns), self.columns);
        self.lines.push(match colour {
            PLAIN => format!("{text:width$}"),
            _ => format!("{colour}{text:width$}\x1b[0m"),
        });
    }

    fn header(&mut self, page: &Page) {
        let left = format!(" ntfsrescue {}", env!("CARGO_PKG_VERSION"));
        let right = page.volume.map_or(String::new(), |(n, of)| format!("volume {n} of {of}  "));
        let right = format!("{right}running for {} ", Clock(page.now));
        let gap = self.columns.saturating_sub(left.chars().count() + right.chars().count());
        self.line(HEADER, &format!("{left}{:gap$}{right}", ""));
    }

    fn work(&mut self, page: &Page) {
        let mut word = page.work.word().to_owned();
        if let Some(progress) = &page.progress {
            let _infallible = write!(word, " {}%", progress.percent().min(100.0) as u32);
        }
        self.line(PLAIN, "");
        for row in large(&word, self.columns.saturating_sub(2), self.rows / 3) {
            self.line(BRIGHT, &format!(" {row}"));
        }
        self.line(PLAIN, "");
        self.sides(page);
        self.line(PLAIN, "");
        if let Some(progress) = &page.progress {
            self.progress(page, progress);
        }
        let so_far = page.begun.map(|begun| page.now.saturating_sub(begun));
        match page.waiting {
            Some(since) => {
                let time = Time(page.now.saturating_sub(since));
                self.line(RED, &format!(" The disk has not answered for {time}: waiting for it"));
            }
            None if page.step.is_empty() => self.line(PLAIN, ""),
            None => self.line(BRIGHT, &format!(" {}", page.step)),
        }
        if let Some(so_far) = so_far.filter(|_| page.progress.is_none()) {
            self.line(PLAIN, &format!(" {} so far", Clock(so_far)));
        }
        self.line(PLAIN, "");
    }

    fn sides(&mut self, page: &Page) {
        for (name, side) in [("from", &page.source), ("  to", &page.target)] {
            if let Some(side) = side {
                self.line(BRIGHT, &format!(" {name}  {}", side.text()));
            }
        }
    }

    fn progress(&mut self, page: &Page, progress: &Progress) {
        let filled = (progress.percent().min(100.0) * self.columns as f64 / 100.0) as usize;
        let bar = "█".repeat(filled) + &"░".repeat(self.columns.saturating_sub(filled));
        for _ in 0..2 {
            self.line(GREEN, &bar);
        }
        let mut text = String::new();
        let mut part = |part: String| {
            let _infallible = write!(text, "{}{part}", if text.is_empty() { " " } else { "   " });
        };
        if progress.is_bytes {
            part(format!("{} of {}", Bytes(progress.done), Bytes(progress.total)));
            if let Some(rate) = progress.rate {
                part(format!("{}/s", Bytes(rate as u64)));
            }
        }
        if let Some(left) = progress.left() {
            part(format!("{} left", Time(left)));
        }
        if let Some(begun) = page.begun {
            part(format!("{} so far", Clock(page.now.saturating_sub(begun))));
        }
        self.line(BRIGHT, &text);
        if let Some(Rescued { bad_areas, bad_bytes, last_good }) = progress.rescue {
            let colour = if bad_areas > 0 { YELLOW } else { PLAIN };
            let ago = Time(page.now.saturating_sub(last_good));
            let text = format!(
                " bad areas: {bad_areas}   not readable so far: {}   last good read: {ago} ago",
                Bytes(bad_bytes)
            );
            self.line(colour, &text);
        }
    }

    fn statement(&mut self, page: &Page, Statement { word, sentence, steps }: &Statement) {
        let colour = word.colour();
        let large = large(word.text(), self.columns, self.rows / 3);
        let width = large.first().map_or(0, |row| row.chars().count());
        let margin = self.columns.saturating_sub(width) / 2;
        self.line(colour, "");
        for row in large {
            self.line(colour, &format!("{:margin$}{row}", ""));
        }
        self.line(colour, "");
        self.line(PLAIN, "");
        self.paragraph(BRIGHT, sentence);
        for step in steps {
            self.line(PLAIN, "");
            self.paragraph(PLAIN, step);
        }
        self.line(PLAIN, "");
        self.sides(page);
        self.line(PLAIN, "");
    }

    /// A text over as many lines as it takes, up to the half of the screen.
    fn paragraph(&mut self, colour: &str, text: &str) {
        let width = self.columns.saturating_sub(2);
        for line in wrapped(text, width).iter().take(self.rows / 2) {
            self.line(colour, &format!(" {line}"));
        }
    }

    /// Fills what is left with the last messages.
    fn messages(&mut self, page: &Page) {
        let room = self.rows.saturating_sub(self.lines.len());
        let from = page.messages.len().saturating_sub(room);
        for message in page.messages.iter().skip(from) {
            self.line(PLAIN, &format!(" {message}"));
        }
        while self.lines.len() < self.rows {
            self.line(PLAIN, "");
        }
    }
}

/// `1:02:03`
struct Clock(Duration);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        write!(f, "{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

/// What the kernel's font may have, as wide as one column: Latin letters and our blocks. Anything else becomes `?`.
fn shown(text: &str) -> String {
    let is_shown = |c| matches!(c, ' '..='~' | '\u{a1}'..='\u{17f}' | '█' | '▀' | '▄' | '░') && c != '\u{ad}';
    Escaped(text).to_string().chars().map(|c| if is_shown(c) { c } else { '?' }).collect()
}

/// As much of a text as there is room for; what is cut ends in an ellipsis.
fn fitted(text: &str, columns: usize) -> String {
    let mut text = shown(text);
    if text.chars().count() > columns {
        text = text.chars().take(columns.saturating_sub(3)).collect();
        text.extend("...".chars().take(columns));
    }
    text
}

/// A text in lines of so many characters at most, at blanks where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let text = shown(text);
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        while let Some(line) = lines.last_mut() {
            let len = line.chars().count();
            let gap = usize::from(len > 0);
            if len + gap + word.len() <= width {
                line.extend(std::iter::repeat_n(' ', gap).chain(word));
                break;
            }
            if len == 0 {
                // A word that is longer than a line.
                line.extend(word.drain(..width.max(1).min(word.len())));
            }
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests;
