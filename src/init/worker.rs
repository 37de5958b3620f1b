//! The worker: this same program as a child, with the command line that a person would have typed.

use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::lines::Lines;
use super::journal::since_boot;
use super::signals::Signals;
use crate::report::events::Told;

pub mod lines;

/// This program's file.
pub const SELF: &str = "/proc/self/exe";

/// Seconds that a worker waits for a disk that has gone away; the user's options can say otherwise.
const RECONNECT: &str = "600";

/// What each save and clone has. Unattended, nobody can decide to go on: what can be read is saved, and --strict tells
/// that something was lost. A plug that was pulled may be put in again.
pub const SAVING: [&str; 6] =
    ["--rescue", "--force", "--ignore-fs-check", "--strict", "--reconnect", RECONNECT];

/// Where the worker writes its events: the write end of a pipe in the place of the input that it does not read.
const EVENTS: [&str; 2] = ["--events", "0"];

/// How likely the kernel takes the worker when memory is short, from -1000 to 1000 (`proc(5)`): rather than anybody.
const OOM_SCORE: &str = "500";

/// How long is waited at most before it is looked whether the worker has ended, should the news of it be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Bytes that are read from a pipe at once: what it holds.
const PIECE: usize = 65_536;

/// What a worker has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A line of its output or its error output.
    Line(String),
    /// An event.
    Event(Told),
}

/// Runs a worker to its end and passes on what it says. Each request to stop is passed on to it.
///
/// Nothing of it can hang this process but the disk that keeps the worker from ending: its pipes are read as far as
/// there is anything in them, and no further once it has ended, whoever else may hold them open.
pub fn run(argv: &[&str], signals: &Signals, say: &mut dyn FnMut(Said)) -> io::Result<ExitStatus> {
    run_program(Path::new(SELF), argv, signals, say)
}

fn run_program(
    program: &Path,
    argv: &[&str],
    signals: &Signals,
    say: &mut dyn FnMut(Said),
) -> io::Result<ExitStatus> {
    let (events, for_events) = io::pipe()?;
    let (output, for_output) = io::pipe()?;
    let mut command = Command::new(program);
    // Progress is told by events.
    command.arg0("ntfsrescue").args(EVENTS).arg("--quiet").args(argv);
    command.stdin(for_events).stderr(for_output.try_clone()?).stdout(for_output);
    let started = since_boot();
    // With the signals blocked, which is how the worker waits for them too: one that waits to be taken would end us if
    // it were let through for a moment.
    let mut worker: Child = command.spawn()?;
    // It holds our copies of the ends that are the worker's.
    drop(command);
    let _kept_as_likely_as_we_are = std::fs::write(format!("/proc/{}/oom_score_adj", worker.id()), OOM_SCORE);
    say(Said::Line(format!("the worker starts {:.1} s after the kernel", started.as_secs_f64())));

    let mut events = Pipe::new(events)?;
    let mut output = Pipe::new(output)?;
    loop {
        // Asked before the pipes are read: what is in them now is all that a worker that has ended has said.
        signals.take_children();
        let ended = worker.try_wait()?;
        events.read(&mut |line| {
            if let Some(event) = Told::parse(line) {
                say(Said::Event(event));
            }
        });
        output.read(&mut |line| say(Said::Line(line.to_owned())));
        if let Some(status) = ended {
            output.lines.end(&mut |line| say(Said::Line(line.to_owned())));
            return Ok(status);
        }
        if signals.take_stop()
            && let Ok(pid) = i32::try_from(worker.id())
        {
            say(Said::Line("asked to stop: telling the worker".to_owned()));
            let _ended = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let open: Vec<_> = [&events, &output].into_iter().filter_map(Pipe::descriptor).collect();
        signals.wait(&open, LOOK_AGAIN);
    }
}

/// The read end of a pipe.
struct Pipe {
    /// None once all others have closed it.
    from: Option<PipeReader>,
    lines: Lines,
}

impl Pipe {
    fn new(from: PipeReader) -> io::Result<Pipe> {
        let flags = OFlag::from_bits_retain(fcntl(&from, FcntlArg::F_GETFL)?);
        fcntl(&from, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Pipe { from: Some(from), lines: Lines::default() })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.from.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there, but no more than a pipe holds: who writes without end keeps nobody here.
    fn read(&mut self, line: &mut dyn FnMut(&str)) {
        let Some(from) = &mut self.from else { return };
        let mut piece = vec![0; PIECE];
        match from.read(&mut piece) {
            Ok(n @ 1..) => self.lines.take(piece.get(..n).unwrap_or_default(), line),
            Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => self.from = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::time::Instant;

    use nix::sys::signal::raise;

    use super::*;

    /// What a script says that runs as the worker, with its arguments behind the options, and how it ends.
    fn script(script: &str, then: &dyn Fn()) -> (Vec<Said>, ExitStatus) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("worker");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let mut said = Vec::new();
        let status = run_program(&program, &["-x"], &Signals::block(Signal::SIGUSR1), &mut |what| {
            if what == Said::Line("now".into()) {
                then();
            }
            said.push(what);
        });
        (said, status.unwrap())
    }

    #[test]
    fn all_that_a_worker_says_comes_through() {
        let (said, status) = script(
            "echo \"$@\"; echo waiting seconds=3 >&0; echo nonsense >&0; printf 'a\\rb' >&2; exit 3",
            &|| {},
        );
        assert_eq!(status.code(), Some(3));
        let lines: Vec<_> = said.iter().filter(|what| matches!(what, Said::Line(_))).skip(1).collect();
        assert_eq!(lines, ["--events 0 --quiet -x", "a", "b"].map(|line| Said::Line(line.into())).each_ref());
        let events: Vec<_> = said.iter().filter(|what| matches!(what, Said::Event(_))).collect();
        assert_eq!(events, [&Said::Event(Told::Waiting(Duration::from_secs(3)))]);
        let Some(Said::Line(first)) = said.first() else { panic!("{said:?}") };
        assert!(first.starts_with("the worker starts ") && first.ends_with(" s after the kernel"), "{first}");
    }

    #[test]
    fn a_worker_that_has_ended_is_not_waited_for() {
        let begun = Instant::now();
        // Its child holds all its pipes open; more than a pipe holds comes through all the same.
        let (said, status) = script("sleep 20 & echo $!; seq 100000 >&2; kill -9 $$", &|| {});
        assert!(begun.elapsed() < Duration::from_secs(15));
        assert_eq!(status.signal(), Some(9));
        assert_eq!(said.last(), Some(&Said::Line("100000".into())));
        assert_eq!(said.len(), 100_002);
        let Some(Said::Line(child)) = said.get(1) else { panic!("{said:?}") };
        kill(Pid::from_raw(child.parse().unwrap()), Signal::SIGKILL).unwrap();
        // One that closes its pipes is waited for.
        let (_, status) = script("exec <&- >&- 2>&-; sleep 0.3; exit 5", &|| {});
        assert_eq!(status.code(), Some(5));
    }

    #[test]
    fn requests_to_stop_are_passed_on() {
        // Blocked, and for this thread alone.
        let stop = || raise(Signal::SIGUSR1).unwrap();
        let (said, status) =
            script("trap 'echo stopped; exit 6' TERM; echo now; while :; do sleep 0.1; done", &stop);
        assert_eq!(status.code(), Some(6));
        assert_eq!(said.last(), Some(&Said::Line("stopped".into())));
    }
}
