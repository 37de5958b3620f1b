//! The job, from the kernel command line (`ntfsrescue.KEY=VALUE`) and from `ntfsrescue.conf` on the stick (lines
//! `KEY = VALUE`), checked as a whole before anything runs.
//!
//! The command line wins, key by key. One that has an `action` is the job whole: of a file only what is no part of a
//! job counts then.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use super::cmdline::{self, Text, text, words};
use super::spec::{Confirm, DeviceSpec, Escaped, ImageSpec, SpecError, Volumes};

/// What our keys begin with on the command line.
const PREFIX: &str = "ntfsrescue.";

/// Seconds to wait for disks unless told otherwise.
const WAIT_DEFAULT: u64 = 30;

/// Longest wait in seconds: a day.
const WAIT_MAX: u64 = 86_400;

/// Bytes of the largest file that is taken: room for a manual in comments.
pub const MAX_FILE: u64 = 64 << 10;

/// Consoles beside the screen: more serial ports than a machine has.
const MAX_CONSOLES: usize = 4;

/// Bytes of the longest run-id.
const MAX_RUN_ID: usize = 64;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // one of these in a process's life
pub enum Request {
    /// No key of a job at all.
    Nothing,
    /// A shell, nothing else.
    Shell,
    /// A job.
    Job {
        /// Its devices.
        task: Task,
        /// Further options for the worker.
        options: Text,
    },
}

/// A job and its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Task {
    Save { source: Volumes, target: ImageSpec },
    Restore { source: ImageSpec, target: DeviceSpec, confirm: Confirm },
    Clone { source: DeviceSpec, target: DeviceSpec, confirm: Confirm },
    Verify { source: ImageSpec },
}

/// What follows the result line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Ending {
    PowerOff,
    Reboot,
    Halt,
    Shell,
}

/// What follows a success, and what a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endings {
    /// After ok and damaged.
    pub then: Ending,
    /// After a failure.
    pub then_failed: Ending,
}

impl Default for Endings {
    fn default() -> Endings {
        Endings { then: Ending::PowerOff, then_failed: Ending::Halt }
    }
}

/// A console beside the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// Its terminal, without `/dev/`.
    pub name: heapless::String<16>,
    /// Bits in a second; none where it is left as it is.
    pub baud: Option<u32>,
}

/// The consoles that are printed on too.
pub type Consoles = heapless::Vec<Console, MAX_CONSOLES>;

/// All that the command line and the file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is to be done.
    pub request: Request,
    /// How long to wait for disks.
    pub wait: Duration,
    /// What follows.
    pub endings: Endings,
    /// Where to print too.
    pub consoles: Consoles,
    /// Tells a job that is to be done again from the same one that was done.
    pub run_id: Option<Text>,
    /// PARTUUID of a partition of the stick that this was booted from; none after a boot from the network.
    pub stick: Option<Text>,
}

/// A file that may hold a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfFile<'a> {
    /// Its name for messages.
    pub name: &'a str,
    /// All of it, or of one that is too large the first [`MAX_FILE`] bytes and one more.
    pub bytes: &'a [u8],
}

/// Reads a file for [`ConfFile`].
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the kernel command line.
    Line,
    /// In a file.
    File {
        /// Its name.
        name: String,
        /// Counted from 1; none for what is missing.
        line: Option<usize>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line => f.write_str("kernel command line"),
            Place::File { name, line: Some(line) } => write!(f, "{name}, line {line}"),
            Place::File { name, line: None } => f.write_str(name),
        }
    }
}

/// Why nothing runs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Longer than any kernel passes on.
    #[error("the kernel command line has {0} bytes, wanted at most {max}", max = cmdline::MAX_LEN)]
    TooLong(usize),
    /// A file that cannot be a configuration.
    #[error("{name}: {fault}")]
    File {
        /// The file.
        name: String,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// Which is to be believed?
    #[error("found a configuration in {0} and in {1}, wanted only one")]
    TwoFiles(String, String),
    /// A key is wrong.
    #[error("{place}: {}{}: {fault}", if *.place == Place::Line { PREFIX } else { "" }, Escaped(key))]
    Key {
        /// Where it is, or would have to be.
        place: Place,
        /// The key, without the prefix.
        key: String,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FileFault {
    #[error("has more than {MAX_FILE} bytes, wanted a text of at most so many")]
    TooLarge,
    #[error("line {0}: found bytes that are no UTF-8, wanted a text in UTF-8")]
    NotText(usize),
    #[error("found a text in UTF-16, wanted UTF-8: choose it when you save")]
    Utf16,
}

/// What is wrong with a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fault {
    #[error("unknown key; keys are {}", Names(&KEYS.map(|(name, _)| name)))]
    Unknown,
    #[error("found twice, wanted once")]
    Twice,
    #[error("has no value; wanted KEY=VALUE")]
    NoValue,
    #[error("missing; action={0} needs it")]
    Missing(&'static str),
    #[error("makes no sense with {0}; allowed there: {names}", names = Names(.1))]
    Senseless(&'static str, Vec<&'static str>),
    #[error("found \"{}\", wanted {wanted}", Escaped(found))]
    Value { found: String, wanted: &'static str },
    #[error("is only for the boot menu, which says it on the kernel command line")]
    OnlyOnLine,
    #[error("has {0} bytes, wanted at most {max}", max = cmdline::MAX_LEN)]
    Long(usize),
    #[error("has a quote that is not closed; wanted it at both ends or at none")]
    Quote,
    #[error(
        "has a # behind the value; wanted comments on lines of their own, and quotes round what holds a #"
    )]
    Comment,
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// A list for a message.
struct Names<'a>(&'a [&'static str]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

const ACTIONS: [&str; 5] = ["save", "restore", "clone", "verify", "shell"];

/// Each key, and the actions with which it makes sense; the first ones of a job's own must be there.
const KEYS: [(&str, &[&str]); 11] = [
    ("action", &ACTIONS),
    ("source", &["save", "restore", "clone", "verify"]),
    ("target", &["save", "restore", "clone"]),
    ("confirm", &["restore", "clone"]),
    ("options", &["save", "restore", "clone", "verify"]),
    ("then", &ACTIONS),
    ("then-failed", &ACTIONS),
    ("wait", &ACTIONS),
    ("console", &ACTIONS),
    ("run-id", &ACTIONS),
    ("stick", &ACTIONS),
];

/// What makes a job.
const OF_A_JOB: [&str; 5] = ["action", "source", "target", "confirm", "options"];

/// Keys that an action cannot do without, where they make sense.
const NEEDED: [&str; 3] = ["source", "target", "confirm"];

/// A key as it was found.
#[derive(Clone, Debug)]
struct Entry<'a> {
    key: &'static str,
    value: &'a str,
    place: Place,
}

/// At most one of each key.
#[derive(Debug, Default)]
struct Values<'a>(heapless::Vec<Entry<'a>, { KEYS.len() }>);

impl<'a> Values<'a> {
    fn entry(&self, key: &str) -> Option<&Entry<'a>> {
        self.0.iter().find(|entry| entry.key == key)
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        self.entry(key).map(|entry| entry.value)
    }

    fn push(&mut self, key: &str, value: &'a str, place: Place) -> Result<(), ConfigError> {
        let fault = |fault| ConfigError::Key { place: place.clone(), key: key.to_owned(), fault };
        let known = KEYS.into_iter().find(|(name, _)| *name == key).ok_or_else(|| fault(Fault::Unknown))?;
        if value.len() > cmdline::MAX_LEN {
            return Err(fault(Fault::Long(value.len())));
        }
        let entry = Entry { key: known.0, value, place: place.clone() };
        if self.entry(key).is_some() || self.0.push(entry).is_err() {
            return Err(fault(Fault::Twice));
        }
        Ok(())
    }

    fn has_job(&self) -> bool {
        self.0.iter().any(|entry| OF_A_JOB.contains(&entry.key))
    }

    /// A fault of a key, in its place; of one that is not there, where the job is.
    fn fault(&self, key: &str, fault: Fault) -> ConfigError {
        let job = || self.0.iter().find(|entry| OF_A_JOB.contains(&entry.key));
        let place = match (self.entry(key), job()) {
            (Some(entry), _) => entry.place.clone(),
            (None, Some(Entry { place: Place::File { name, .. }, .. })) => {
                Place::File { name: name.clone(), line: None }
            }
            (None, _) => Place::Line,
        };
        ConfigError::Key { place, key: key.to_owned(), fault }
    }

    fn wrong(&self, key: &str, found: &str, wanted: &'static str) -> ConfigError {
        self.fault(key, Fault::Value { found: found.to_owned(), wanted })
    }
}

impl Config {
    /// Checks the whole command line and the files. Of those at most one may have any key.
    pub fn parse(line: &str, files: &[ConfFile<'_>]) -> Result<Config, ConfigError> {
        if line.len() > cmdline::MAX_LEN {
            return Err(ConfigError::TooLong(line.len()));
        }
        let values = merge(of_line(line)?, of_files(files)?);
        let request = request(&values)?;
        let wait = values.value("wait").map_or(Ok(WAIT_DEFAULT), |found| {
            let wait = found.parse().ok().filter(|seconds| *seconds <= WAIT_MAX);
            wait.ok_or_else(|| values.wrong("wait", found, "seconds, 0 to 86400"))
        })?;
        let mut endings = Endings::default();
        for (key, ending) in [("then", &mut endings.then), ("then-failed", &mut endings.then_failed)] {
            if let Some(found) = values.value(key) {
                *ending = parse_ending(found)
                    .ok_or_else(|| values.wrong(key, found, "poweroff, reboot, halt or shell"))?;
            }
        }
        let consoles = values.value("console").map_or(Ok(Consoles::new()), |found| {
            parse_consoles(found).ok_or_else(|| values.wrong("console", found, CONSOLE_FORMS))
        })?;
        let run_id = values.value("run-id").map(|found| {
            let is_fine = !found.is_empty()
                && found.len() <= MAX_RUN_ID
                && !found.contains(|c: char| c.is_control() || c.is_whitespace());
            let wanted = "1 to 64 bytes without blanks";
            is_fine.then(|| text(found)).ok_or_else(|| values.wrong("run-id", found, wanted))
        });
        let stick = values.value("stick").map(|found| {
            let is_fine = !found.is_empty() && found.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-');
            let wanted = "the PARTUUID of one of the stick's partitions";
            is_fine.then(|| text(found)).ok_or_else(|| values.wrong("stick", found, wanted))
        });
        Ok(Config {
            request,
            wait: Duration::from_secs(wait),
            endings,
            consoles,
            run_id: run_id.transpose()?,
            stick: stick.transpose()?,
        })
    }
}

impl Endings {
    /// What the command line and the files say of them, whatever else is wrong there; each has a default.
    pub fn of(line: &str, files: &[ConfFile<'_>]) -> Endings {
        let mut endings = Endings::default();
        let mut take = |key: &str, value: &str| match key {
            "then" => endings.then = parse_ending(value).unwrap_or(endings.then),
            "then-failed" => endings.then_failed = parse_ending(value).unwrap_or(endings.then_failed),
            _ => {}
        };
        for (_, entry) in files.iter().filter_map(|file| text_of(file).ok()).flat_map(lines) {
            if let Ok((key, value)) = entry {
                take(key, value);
            }
        }
        // Last, so that it wins.
        for (key, value) in words(line) {
            if let (Some(key), Some(value)) = (key.strip_prefix(PREFIX), value) {
                take(key, value);
            }
        }
        endings
    }
}

/// The PARTUUID by which the boot menu names the stick, before anything else is known.
pub fn stick_of(line: &str) -> Option<&str> {
    words(line).find_map(|(key, value)| value.filter(|_| key.strip_prefix(PREFIX) == Some("stick")))
}

/// Does the command line ask for a shell, whatever a file says?
pub fn wants_shell(line: &str) -> bool {
    words(line).any(|(key, value)| key.strip_prefix(PREFIX) == Some("action") && value == Some("shell"))
}

/// Finds our keys on the command line, each at most once and with a value.
fn of_line(line: &str) -> Result<Values<'_>, ConfigError> {
    let mut values = Values::default();
    for (key, value) in words(line).filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value))) {
        let is_known = KEYS.into_iter().any(|(name, _)| name == key);
        let fault = if is_known { Fault::NoValue } else { Fault::Unknown };
        let fault = || ConfigError::Key { place: Place::Line, key: key.to_owned(), fault };
        values.push(key, value.ok_or_else(fault)?, Place::Line)?;
    }
    Ok(values)
}

/// The keys of the only file that has any.
fn of_files<'a>(files: &[ConfFile<'a>]) -> Result<Values<'a>, ConfigError> {
    let mut taken: Option<(&str, Values<'a>)> = None;
    for file in files {
        let values = of_file(file)?;
        if values.0.is_empty() {
            continue;
        }
        if let Some((other, _)) = taken {
            return Err(ConfigError::TwoFiles(other.to_owned(), file.name.to_owned()));
        }
        taken = Some((file.name, values));
    }
    Ok(taken.map(|(_, values)| values).unwrap_or_default())
}

fn of_file<'a>(file: &ConfFile<'a>) -> Result<Values<'a>, ConfigError> {
    let text = text_of(file).map_err(|fault| ConfigError::File { name: file.name.to_owned(), fault })?;
    let mut values = Values::default();
    for (line, entry) in lines(text) {
        let place = || Place::File { name: file.name.to_owned(), line: Some(line) };
        let (key, value) = entry.map_err(|(key, fault)| {
            let is_known = KEYS.into_iter().any(|(name, _)| name == key);
            let fault = if is_known { fault } else { Fault::Unknown };
            ConfigError::Key { place: place(), key: key.to_owned(), fault }
        })?;
        if key == "stick" {
            return Err(ConfigError::Key { place: place(), key: key.to_owned(), fault: Fault::OnlyOnLine });
        }
        values.push(key, value, place())?;
    }
    Ok(values)
}

/// A file's text, without the mark that some editors put before it.
fn text_of<'a>(file: &ConfFile<'a>) -> Result<&'a str, FileFault> {
    if file.bytes.len() as u64 > MAX_FILE {
        return Err(FileFault::TooLarge);
    }
    if file.bytes.starts_with(b"\xff\xfe") || file.bytes.starts_with(b"\xfe\xff") {
        return Err(FileFault::Utf16);
    }
    let text = std::str::from_utf8(file.bytes).map_err(|error| {
        let before = file.bytes.iter().take(error.valid_up_to());
        FileFault::NotText(before.filter(|byte| **byte == b'\n').count() + 1)
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// A key and its value, or the key and what is wrong behind it.
type Parsed<'a> = Result<(&'a str, &'a str), (&'a str, Fault)>;

/// The lines of a file that are neither blank nor comments, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, Parsed<'_>)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let used = numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    used.map(|(number, line)| (number, parse_line(line)))
}

fn parse_line(line: &str) -> Parsed<'_> {
    let Some((key, value)) = line.split_once('=') else { return Err((line, Fault::NoValue)) };
    let (key, value) = (key.trim_end(), value.trim_start());
    if let Some(inner) = value.strip_prefix('"') {
        return inner.strip_suffix('"').map(|inner| (key, inner)).ok_or((key, Fault::Quote));
    }
    let has_comment = value.match_indices('#').any(|(at, _)| {
        value.get(..at).is_some_and(|before| before.is_empty() || before.ends_with(char::is_whitespace))
    });
    if has_comment { Err((key, Fault::Comment)) } else { Ok((key, value)) }
}

/// The command line wins.
fn merge<'a>(line: Values<'a>, file: Values<'a>) -> Values<'a> {
    let is_whole = line.entry("action").is_some();
    let mut values = line;
    for entry in file.0 {
        let is_left_out = is_whole && OF_A_JOB.contains(&entry.key);
        if !is_left_out && values.entry(entry.key).is_none() {
            // There is room for one of each.
            let _full = values.0.push(entry);
        }
    }
    values
}

fn request(values: &Values<'_>) -> Result<Request, ConfigError> {
    let action = match values.value("action") {
        None if !values.has_job() => return Ok(Request::Nothing),
        None => {
            let missing = Fault::Missing("save (or restore, clone, verify, shell)");
            return Err(values.fault("action", missing));
        }
        Some(found) => ACTIONS
            .into_iter()
            .find(|action| *action == found)
            .ok_or_else(|| values.wrong("action", found, "save, restore, clone, verify or shell"))?,
    };
    let senses = |key: &str| {
        let actions = KEYS.iter().find(|(name, _)| *name == key).map_or(&[] as &[_], |(_, actions)| actions);
        actions.contains(&action)
    };
    if let Some(entry) = values.0.iter().find(|entry| !senses(entry.key)) {
        let allowed = KEYS.iter().map(|(name, _)| *name).filter(|name| senses(name)).collect();
        let with = match action {
            "save" => "action=save",
            "verify" => "action=verify",
            _ => "action=shell",
        };
        return Err(values.fault(entry.key, Fault::Senseless(with, allowed)));
    }
    if let Some(key) = NEEDED.into_iter().find(|key| senses(key) && values.entry(key).is_none()) {
        return Err(values.fault(key, Fault::Missing(action)));
    }
    let value = |key: &str| values.value(key).unwrap_or_default();
    let of = |key: &'static str| move |error: SpecError| values.fault(key, error.into());
    let image = || ImageSpec::existing(value("source")).map_err(of("source"));
    let target = || DeviceSpec::target(value("target")).map_err(of("target"));
    let confirm = || Confirm::parse(value("confirm")).map_err(of("confirm"));
    let task = match action {
        "save" => {
            let source = Volumes::parse(value("source")).map_err(of("source"))?;
            let target = ImageSpec::parse(value("target")).map_err(of("target"))?;
            target.check_for(&source).map_err(of("target"))?;
            Task::Save { source, target }
        }
        "restore" => Task::Restore { source: image()?, target: target()?, confirm: confirm()? },
        "clone" => {
            let source = DeviceSpec::source(value("source")).map_err(of("source"))?;
            Task::Clone { source, target: target()?, confirm: confirm()? }
        }
        "verify" => Task::Verify { source: image()? },
        _ => return Ok(Request::Shell),
    };
    Ok(Request::Job { task, options: text(value("options")) })
}

fn parse_ending(value: &str) -> Option<Ending> {
    match value {
        "poweroff" => Some(Ending::PowerOff),
        "reboot" => Some(Ending::Reboot),
        "halt" => Some(Ending::Halt),
        "shell" => Some(Ending::Shell),
        _ => None,
    }
}

const CONSOLE_FORMS: &str =
    "up to 4 of NAME or NAME,BAUD with blanks between them, such as \"ttyS0,115200 ttyUSB0\"";

/// What serial ports can do, as far as anybody sets them so.
const BAUDS: [u32; 11] = [1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 921_600];

/// `NAME` or `NAME,BAUD`, the latter also as the kernel's own `console=` has it, with `n8`.
fn parse_consoles(value: &str) -> Option<Consoles> {
    let mut consoles = Consoles::new();
    for word in value.split_ascii_whitespace() {
        let (name, baud) = word.split_once(',').map_or((word, None), |(name, baud)| (name, Some(baud)));
        let is_terminal = ["tty", "hvc"].into_iter().any(|kind| {
            name.strip_prefix(kind)
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        });
        let baud = baud.map(|baud| {
            let baud = baud.strip_suffix("n8").unwrap_or(baud).parse().ok()?;
            BAUDS.contains(&baud).then_some(baud)
        });
        let is_wrong = !is_terminal || baud == Some(None);
        let console = Console { name: heapless::String::try_from(name).ok()?, baud: baud.flatten() };
        let is_twice = consoles.iter().any(|other| other.name == console.name);
        if is_wrong || is_twice || consoles.push(console).is_err() {
            return None;
        }
    }
    (!consoles.is_empty()).then_some(consoles)
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Save { source: Volumes::All, target } => {
                write!(f, "save: every NTFS volume, to {target}")
            }
            Task::Save { source: Volumes::One(source), target } => {
                write!(f, "save: {}, to {target}", InWords(source))
            }
            Task::Restore { source, target, confirm } => {
                write!(
                    f,
                    "restore: {source}, to {}, which is overwritten if it is {confirm}",
                    InWords(target)
                )
            }
            Task::Clone { source, target, confirm } => {
                let (source, target) = (InWords(source), InWords(target));
                write!(f, "clone: {source}, to {target}, which is overwritten if it is {confirm}")
            }
            Task::Verify { source } => write!(f, "verify: {source}"),
        }
    }
}

/// A device in a sentence.
struct InWords<'a>(&'a DeviceSpec);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DeviceSpec::Auto => f.write_str("the only NTFS volume larger than 1 GiB"),
            DeviceSpec::Serial(_, 0) => write!(f, "the whole disk {}", self.0),
            other => other.fmt(f),
        }
    }
}

/// The job in one sentence.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.request {
            Request::Nothing => return f.write_str("no job: no disk is touched"),
            Request::Shell => return f.write_str("a shell: no disk is touched"),
            Request::Job { task, options } => {
                task.fmt(f)?;
                if !options.trim().is_empty() {
                    write!(f, "; with {}", Escaped(options.trim()))?;
                }
            }
        }
        write!(f, "; then {}, after a failure {}", self.endings.then, self.endings.then_failed)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::PowerOff => "power off",
            Ending::Reboot => "reboot",
            Ending::Halt => "halt",
            Ending::Shell => "a shell",
        })
    }
}

#[cfg(test)]
mod tests;
