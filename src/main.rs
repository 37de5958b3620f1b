//! The lives of the program: a command line, the same as a worker at boot, the boot's init, and the process that reads
//! a failing disk for one of these.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use ntfsrescue::args::{Args, ArgsError};
use ntfsrescue::event::{Event, Observer};
use ntfsrescue::init;
use ntfsrescue::init::config::{self, ConfFile, Config};
use ntfsrescue::interrupt::{self, Interrupt};
use ntfsrescue::io::remote;
use ntfsrescue::job::Job;
use ntfsrescue::report::events::Events;
use ntfsrescue::report::{Channel, Reporter};
use ntfsrescue::run;

/// Everything that fails, usage errors too: as ntfsclone does.
const FAILED: u8 = 1;

/// The disk went away.
const GONE: u8 = 4;
/// While rescuing, the target failed or is full.
const TARGET: u8 = 7;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    if remote::is_asked_for(&argv) {
        return remote::live();
    }
    match init::life(&argv) {
        Some(life) => life.live(),
        None => command_line(argv),
    }
}

fn command_line(argv: Vec<OsString>) -> ExitCode {
    Channel::Stderr.line(format_args!("ntfsrescue v{}", env!("CARGO_PKG_VERSION")));
    let args = match Args::parse_from_argv(argv) {
        Ok(args) => args,
        Err(ArgsError::Clap(message)) => {
            Channel::Stderr.line(format_args!("{}", message.to_string().trim_end()));
            return if message.use_stderr() { FAILED.into() } else { ExitCode::SUCCESS };
        }
        Err(error) => return usage_error(&error),
    };
    if let Some(file) = &args.check_config {
        return check_config(file);
    }
    let job = match Job::from_args(args) {
        Ok(job) => job,
        Err(error) => return usage_error(&error),
    };
    let channel = if job.occupies_stdout() { Channel::Stderr } else { Channel::Stdout };
    let events = match job.events.map(Events::open).transpose() {
        Ok(events) => events,
        Err(error) => {
            let descriptor = job.events.unwrap_or_default();
            Channel::Stderr
                .line(format_args!("ERROR: cannot write events to descriptor {descriptor}: {error}"));
            return FAILED.into();
        }
    };
    let reporter: &'static Reporter = Box::leak(Box::new(Reporter::new(channel, job.quiet, events)));
    reporter.collect_log(log::LevelFilter::Warn);
    // With a map a job that is interrupted has to be put in order before it ends, however long that takes.
    let is_patient = job.how.map.is_some();
    let interrupt = Interrupt::watch(is_patient, |line| reporter.line(line));
    match run::run(&job, &Attended { reporter, interrupt: &interrupt }) {
        Ok(outcome) => outcome.exit_status(job.strict).into(),
        Err(error) => {
            reporter.error(&error);
            let status = match error {
                _ if !job.rescue => FAILED,
                error if error.is_of_target() => TARGET,
                error if error.is_of_gone_disk() => GONE,
                _ => FAILED,
            };
            interrupt.signal().map_or(status.into(), |signal| interrupt::end_by(signal))
        }
    }
}

/// Tells the job of a configuration in words, as the boot would understand it.
fn check_config(path: &Path) -> ExitCode {
    let name = path.display().to_string();
    let told = match config::read_file(path) {
        Ok(bytes) => {
            Config::parse("", &[ConfFile { name: &name, bytes: &bytes }]).map_err(|error| error.to_string())
        }
        Err(error) => Err(format!("cannot read '{name}': {error}")),
    };
    match told {
        Ok(config) => {
            Channel::Stdout.line(format_args!("{config}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            Channel::Stderr.line(format_args!("ERROR: {error}"));
            FAILED.into()
        }
    }
}

/// Somebody at the keyboard, or a script: reads what there is to say, and may interrupt.
struct Attended<'a> {
    reporter: &'a Reporter,
    interrupt: &'a Interrupt,
}

impl Observer for Attended<'_> {
    fn tell(&self, event: Event<'_>) {
        self.reporter.tell(event);
    }

    fn wants_stop(&self) -> bool {
        self.interrupt.signal().is_some()
    }
}

fn usage_error(error: &dyn std::error::Error) -> ExitCode {
    Channel::Stderr.line(format_args!("ERROR: {error}"));
    Channel::Stderr.line(format_args!("Try 'ntfsrescue --help'."));
    FAILED.into()
}
