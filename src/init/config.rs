//! The job on the kernel command line: `ntfsrescue.KEY=VALUE`, checked as a whole before anything runs.

use std::fmt;
use std::time::Duration;

use super::cmdline::{self, Text, text, words};
use super::spec::{Confirm, DeviceSpec, Escaped, ImageSpec, SpecError};

/// What our keys begin with.
const PREFIX: &str = "ntfsrescue.";

/// Seconds to wait for disks unless told otherwise.
const WAIT_DEFAULT: u64 = 30;

/// Longest wait in seconds: a day.
const WAIT_MAX: u64 = 86_400;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // one of these in a process's life
pub enum Request {
    /// No key of ours at all.
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
    Save { source: DeviceSpec, target: ImageSpec },
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

/// All that the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is to be done.
    pub request: Request,
    /// How long to wait for disks.
    pub wait: Duration,
}

/// Why nothing runs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Longer than any kernel passes on.
    #[error("the kernel command line has {0} bytes, wanted at most {max}", max = cmdline::MAX_LEN)]
    TooLong(usize),
    /// A key of ours is wrong.
    #[error("kernel command line: {PREFIX}{}: {fault}", Escaped(key))]
    Key {
        /// The key, without the prefix.
        key: String,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fault {
    #[error("unknown key; keys are {}", Names(&KEYS.map(|(name, _)| name)))]
    Unknown,
    #[error("found twice, wanted once")]
    Twice,
    #[error("has no value; wanted {PREFIX}KEY=VALUE")]
    NoValue,
    #[error("missing; action={0} needs it")]
    Missing(&'static str),
    #[error("makes no sense with {0}; allowed there: {names}", names = Names(.1))]
    Senseless(&'static str, Vec<&'static str>),
    #[error("found \"{}\", wanted {wanted}", Escaped(found))]
    Value { found: String, wanted: &'static str },
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
const KEYS: [(&str, &[&str]); 8] = [
    ("action", &ACTIONS),
    ("source", &["save", "restore", "clone", "verify"]),
    ("target", &["save", "restore", "clone"]),
    ("confirm", &["restore", "clone"]),
    ("options", &["save", "restore", "clone", "verify"]),
    ("then", &ACTIONS),
    ("then-failed", &ACTIONS),
    ("wait", &ACTIONS),
];

/// Keys that an action cannot do without, where they make sense.
const NEEDED: [&str; 3] = ["source", "target", "confirm"];

/// The values as they were found.
type Values<'a> = heapless::Vec<(&'static str, &'a str), { KEYS.len() }>;

impl Config {
    /// Checks the whole command line.
    pub fn parse(line: &str) -> Result<Config, ConfigError> {
        if line.len() > cmdline::MAX_LEN {
            return Err(ConfigError::TooLong(line.len()));
        }
        let values = collect(line)?;
        let value = |key| values.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let wait = value("wait").map_or(Ok(WAIT_DEFAULT), |found| {
            let wait = found.parse().ok().filter(|seconds| *seconds <= WAIT_MAX);
            wait.ok_or_else(|| wrong("wait", found, "seconds, 0 to 86400"))
        })?;
        for key in ["then", "then-failed"] {
            value(key).map_or(Ok(()), |found| ending(key, found).map(|_| ()))?;
        }
        let request = match value("action") {
            None if values.is_empty() => Request::Nothing,
            None => return Err(fault("action", Fault::Missing("save (or restore, clone, verify, shell)"))),
            Some(found) => {
                let action = ACTIONS
                    .into_iter()
                    .find(|action| *action == found)
                    .ok_or_else(|| wrong("action", found, "save, restore, clone, verify or shell"))?;
                request(action, &values)?
            }
        };
        Ok(Config { request, wait: Duration::from_secs(wait) })
    }
}

impl Endings {
    /// What the command line says of them, whatever else is wrong with it; each has a default.
    pub fn of(line: &str) -> Endings {
        let mut endings = Endings::default();
        for (key, value) in words(line) {
            match (key.strip_prefix(PREFIX), value) {
                (Some("then"), Some(value)) => endings.then = ending("then", value).unwrap_or(endings.then),
                (Some("then-failed"), Some(value)) => {
                    endings.then_failed = ending("then-failed", value).unwrap_or(endings.then_failed);
                }
                _ => {}
            }
        }
        endings
    }
}

/// Finds our keys, each at most once and with a value.
fn collect(line: &str) -> Result<Values<'_>, ConfigError> {
    let mut values = Values::new();
    for (key, value) in words(line).filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value))) {
        let known = KEYS.iter().find(|(name, _)| *name == key).ok_or_else(|| fault(key, Fault::Unknown))?;
        let value = value.ok_or_else(|| fault(key, Fault::NoValue))?;
        if values.iter().any(|(name, _)| *name == key) || values.push((known.0, value)).is_err() {
            return Err(fault(key, Fault::Twice));
        }
    }
    Ok(values)
}

fn request(action: &'static str, values: &Values<'_>) -> Result<Request, ConfigError> {
    let senses = |key: &str| {
        let actions = KEYS.iter().find(|(name, _)| *name == key).map_or(&[] as &[_], |(_, actions)| actions);
        actions.contains(&action)
    };
    if let Some((key, _)) = values.iter().find(|(key, _)| !senses(key)) {
        let allowed = KEYS.iter().map(|(name, _)| *name).filter(|name| senses(name)).collect();
        let with = match action {
            "save" => "action=save",
            "verify" => "action=verify",
            _ => "action=shell",
        };
        return Err(fault(key, Fault::Senseless(with, allowed)));
    }
    let get = |key: &str| values.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    if let Some(key) = NEEDED.into_iter().find(|key| senses(key) && get(key).is_none()) {
        return Err(fault(key, Fault::Missing(action)));
    }
    let value = |key: &str| get(key).unwrap_or_default();
    let of = |key: &'static str| move |error: SpecError| fault(key, error.into());
    let source = || DeviceSpec::source(value("source")).map_err(of("source"));
    let image = |key| ImageSpec::parse(value(key)).map_err(of(key));
    let target = || DeviceSpec::target(value("target")).map_err(of("target"));
    let confirm = || Confirm::parse(value("confirm")).map_err(of("confirm"));
    let task = match action {
        "save" => Task::Save { source: source()?, target: image("target")? },
        "restore" => Task::Restore { source: image("source")?, target: target()?, confirm: confirm()? },
        "clone" => Task::Clone { source: source()?, target: target()?, confirm: confirm()? },
        "verify" => Task::Verify { source: image("source")? },
        _ => return Ok(Request::Shell),
    };
    Ok(Request::Job { task, options: text(value("options")) })
}

fn ending(key: &'static str, value: &str) -> Result<Ending, ConfigError> {
    match value {
        "poweroff" => Ok(Ending::PowerOff),
        "reboot" => Ok(Ending::Reboot),
        "halt" => Ok(Ending::Halt),
        "shell" => Ok(Ending::Shell),
        _ => Err(wrong(key, value, "poweroff, reboot, halt or shell")),
    }
}

fn fault(key: &str, fault: Fault) -> ConfigError {
    ConfigError::Key { key: key.to_owned(), fault }
}

fn wrong(key: &str, found: &str, wanted: &'static str) -> ConfigError {
    fault(key, Fault::Value { found: found.to_owned(), wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        Config::parse(line).unwrap_err().to_string()
    }

    #[test]
    fn a_save_needs_a_source_and_a_target() {
        let line = "quiet ntfsrescue.action=save ntfsrescue.source=SERIAL=V:0 ntfsrescue.wait=5 \
                    ntfsrescue.target=LABEL=R:/x.img ntfsrescue.options=\"-q  --strict\" ntfsrescue.then=reboot";
        let config = Config::parse(line).unwrap();
        let task = Task::Save {
            source: DeviceSpec::Serial(text("V"), 0),
            target: ImageSpec { device: DeviceSpec::Label(text("R")), path: text("/x.img") },
        };
        assert_eq!(config.request, Request::Job { task, options: text("-q  --strict") });
        assert_eq!(config.wait, Duration::from_secs(5));
        assert_eq!(Endings::of(line), Endings { then: Ending::Reboot, then_failed: Ending::Halt });
    }

    #[test]
    fn nothing_is_not_an_error() {
        assert_eq!(Config::parse("quiet ro").unwrap().request, Request::Nothing);
        assert_eq!(Config::parse("ntfsrescue.action=shell").unwrap().request, Request::Shell);
    }

    #[test]
    fn errors_name_the_key_its_place_and_what_is_allowed() {
        assert!(error("ntfsrescue.traget=x").starts_with(
            "kernel command line: ntfsrescue.traget: unknown key; keys are action, source, target, "
        ));
        assert_eq!(
            error("ntfsrescue.action=eat"),
            "kernel command line: ntfsrescue.action: found \"eat\", wanted save, restore, clone, verify or shell"
        );
        assert_eq!(
            error("ntfsrescue.action=save ntfsrescue.source=auto"),
            "kernel command line: ntfsrescue.target: missing; action=save needs it"
        );
        let restore = "ntfsrescue.action=restore ntfsrescue.source=LABEL=a:/b ntfsrescue.target=/dev/x";
        assert!(error(restore).contains("ntfsrescue.confirm: missing"));
        assert!(error("ntfsrescue.source=auto").contains("ntfsrescue.action: missing"));
        assert!(
            error("ntfsrescue.action=save ntfsrescue.confirm=x").contains("makes no sense with action=save")
        );
        assert!(error("ntfsrescue.action").contains("has no value"));
        assert!(error("ntfsrescue.action=save ntfsrescue.action=save").contains("found twice"));
        for wait in ["-1", "86401", "x", ""] {
            let error = error(&format!("ntfsrescue.action=shell ntfsrescue.wait={wait}"));
            assert!(error.contains(&format!("found \"{wait}\", wanted seconds, 0 to 86400")), "{error}");
        }
        assert!(error("ntfsrescue.action=shell ntfsrescue.then=stop").contains("wanted poweroff, reboot"));
        assert!(
            error("ntfsrescue.action=save ntfsrescue.source=all ntfsrescue.target=LABEL=a:/b")
                .contains("all")
        );
        assert_eq!(error(&"x".repeat(5000)), "the kernel command line has 5000 bytes, wanted at most 4096");
    }

    #[test]
    fn endings_survive_other_errors() {
        let endings = Endings::of("ntfsrescue.nonsense ntfsrescue.then-failed=poweroff ntfsrescue.then=x");
        assert_eq!(endings, Endings { then: Ending::PowerOff, then_failed: Ending::PowerOff });
    }
}
