//! The worker: this same program as a child, with the command line that a person would have typed.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cmdline::Text;
use super::config::Task;
use super::signals::Signals;
use crate::report::console;

/// This program's file.
pub const SELF: &str = "/proc/self/exe";

/// Arguments of a worker: ours and as many options as anybody gives.
const MAX_ARGS: usize = 64;

/// Seconds that a worker waits for a disk that has gone away; the user's options can say otherwise.
const RECONNECT: &str = "600";

/// A worker's command line, without the program's name.
pub type Argv<'a> = heapless::Vec<&'a str, MAX_ARGS>;

/// More options than a worker's command line holds.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("options: found more than {MAX_ARGS} arguments for the command line, wanted fewer")]
pub struct TooMany;

/// The command line for a task: where it reads from, where it writes to, and the user's further options.
pub fn argv<'a>(task: &Task, from: &'a str, to: &'a str, options: &'a Text) -> Result<Argv<'a>, TooMany> {
    // Unattended, nobody can decide to go on: what can be read is saved, and --strict tells that something was lost.
    // A plug that was pulled may be put in again.
    const SAVING: [&str; 6] =
        ["--rescue", "--force", "--ignore-fs-check", "--strict", "--reconnect", RECONNECT];
    let before: &[&str] = match task {
        Task::Save { .. } | Task::Clone { .. } => &SAVING,
        Task::Restore { .. } | Task::Verify { .. } => &["-r"],
    };
    let how: &[&str] = match task {
        Task::Save { .. } => &["-s", "-o", to],
        Task::Clone { .. } | Task::Restore { .. } => &["-O", to],
        Task::Verify { .. } => &["-n"],
    };
    let mut argv = Argv::new();
    let options = options.split_ascii_whitespace();
    for arg in before.iter().chain(how).copied().chain(options).chain([from]) {
        argv.push(arg).map_err(|_| TooMany)?;
    }
    Ok(argv)
}

/// Runs a worker to its end. A request to stop is passed on, once each time.
pub fn run(argv: &[&str], signals: &Signals) -> io::Result<ExitStatus> {
    let mut command = Command::new(SELF);
    command.arg0("ntfsrescue").args(argv).stdin(Stdio::null());
    let mut worker: Child = signals.spawn(&mut command)?;
    loop {
        if let Some(status) = worker.try_wait()? {
            return Ok(status);
        }
        if signals.next().is_some_and(|signal| signal != Signal::SIGCHLD)
            && let Ok(pid) = i32::try_from(worker.id())
        {
            // Its progress line is not ended.
            console(format_args!(""));
            log::warn!("asked to stop: telling the worker");
            let _ended = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cmdline::text;
    use super::super::spec::{Confirm, DeviceSpec, ImageSpec, Volumes};
    use super::*;

    #[test]
    fn each_task_has_its_command_line() {
        let (device, confirm) = (DeviceSpec::Auto, Confirm::AnyOf(text("x")));
        let image = ImageSpec::parse("LABEL=a:/b").unwrap();
        let line = |task: &Task| argv(task, "FROM", "TO", &text(" -q  --x=y ")).unwrap().join(" ");
        assert_eq!(
            line(&Task::Save { source: Volumes::All, target: image.clone() }),
            "--rescue --force --ignore-fs-check --strict --reconnect 600 -s -o TO -q --x=y FROM"
        );
        assert_eq!(
            line(&Task::Clone { source: device.clone(), target: device.clone(), confirm: confirm.clone() }),
            "--rescue --force --ignore-fs-check --strict --reconnect 600 -O TO -q --x=y FROM"
        );
        let restore = Task::Restore { source: image.clone(), target: device, confirm };
        assert_eq!(line(&restore), "-r -O TO -q --x=y FROM");
        assert_eq!(line(&Task::Verify { source: image }), "-r -n -q --x=y FROM");
        assert_eq!(argv(&restore, "", "", &text(&"-q ".repeat(64))), Err(TooMany));
    }
}
