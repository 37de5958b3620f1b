//! PID 1 proper: it mounts, starts the session, reaps, and ends the boot. The kernel panics when it dies, so it does
//! as little as it can, and nothing that depends on what is on a disk or a command line.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::config::{Ending, Endings};
use super::ending::{Outcome, exit_number};
use super::mounts::{mount_basics, unmount_all};
use super::signals::Signals;
use super::worker::SELF;
use super::{AFTER_CRASH, SESSION};
use crate::report::console;

/// How long processes that are left over have to end by themselves, and then at all.
const GRACE: Duration = Duration::from_secs(3);

/// Time between two looks at them.
const POLL: Duration = Duration::from_millis(50);

/// Runs the boot to its end.
pub(super) fn live() -> ! {
    // Otherwise Ctrl-Alt-Del resets the machine at once; this way it is a signal to us.
    if let Err(errno) = set_cad_enabled(false) {
        log::warn!("Ctrl-Alt-Del still resets the machine: {errno}");
    }
    let signals = Signals::block(Signal::SIGINT);
    mount_basics();
    // Each bad sector makes the kernel print several lines; the worker tells all of them in one. dmesg keeps them.
    let _chatty = std::fs::write("/proc/sys/kernel/printk", "3");
    let ended = start(&signals, &[SESSION]).map(|session| wait_for(session, &signals));
    let asked = ended.as_ref().ok().and_then(|(status, _)| Ending::from_status(status.code()?));
    let ending = asked.unwrap_or_else(|| after_crash(ended.map_err(|cause| cause.to_string()), &signals));
    if ending == Ending::Shell {
        shell(&signals);
        finish(RebootMode::RB_POWER_OFF);
    }
    finish(match ending {
        Ending::Reboot => RebootMode::RB_AUTOBOOT,
        Ending::Halt => RebootMode::RB_HALT_SYSTEM,
        Ending::PowerOff | Ending::Shell => RebootMode::RB_POWER_OFF,
    })
}

/// The session did not come to its end: tidies up, prints the result line in its place, and asks another child, which
/// may crash as well, what the command line wants after a failure.
fn after_crash(ended: Result<(ExitStatus, bool), String>, signals: &Signals) -> Ending {
    end_processes();
    nix::unistd::sync();
    unmount_all();
    let mut outcome = match &ended {
        Ok((_, true)) => Outcome::failed("stopped by Ctrl-Alt-Del"),
        Ok((status, false)) => {
            Outcome::failed(format!("our own session died ({status}); please report this"))
        }
        Err(cause) => Outcome::failed(format!("our own session cannot be started: {cause}")),
    };
    if let Ok((status, _)) = ended {
        outcome.exit = exit_number(status);
    }
    console(format_args!("{outcome}"));
    let asked = start(signals, &[SESSION, AFTER_CRASH]).map(|child| wait_for(child, signals));
    asked
        .ok()
        .and_then(|(status, _)| Ending::from_status(status.code()?))
        .unwrap_or(Endings::default().then_failed)
}

/// Starts this program again under another name.
fn start(signals: &Signals, argv: &[&str]) -> std::io::Result<Pid> {
    let mut command = Command::new(SELF);
    if let [name, args @ ..] = argv {
        command.arg0(name).args(args);
    }
    pid(&signals.spawn(&mut command)?)
}

fn pid(child: &std::process::Child) -> std::io::Result<Pid> {
    i32::try_from(child.id()).map(Pid::from_raw).map_err(std::io::Error::other)
}

/// Reaps whatever ends until `wanted` does: its status, and whether it was asked to stop.
fn wait_for(wanted: Pid, signals: &Signals) -> (ExitStatus, bool) {
    let mut was_stopped = false;
    loop {
        while let Some((pid, status)) = reap() {
            if pid == wanted {
                return (status, was_stopped);
            }
        }
        if signals.next() == Some(Signal::SIGINT) {
            was_stopped = true;
            let _ended = kill(wanted, Signal::SIGTERM);
        }
    }
}

/// Reaps one process that has ended, if there is one.
fn reap() -> Option<(Pid, ExitStatus)> {
    use std::os::unix::process::ExitStatusExt;
    loop {
        return match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => Some((pid, ExitStatus::from_raw((code & 0xff) << 8))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => Some((pid, ExitStatus::from_raw(signal as i32))),
            Ok(WaitStatus::StillAlive) => None,
            // Stopped and traced children are of no interest.
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => None,
        };
    }
}

/// A shell on the console, until it ends.
fn shell(signals: &Signals) {
    console(format_args!("A shell: type 'exit' to power off."));
    let mut command = Command::new("/bin/busybox");
    // A session and a terminal of its own, so that Ctrl-C reaches what runs in it.
    command.args(["setsid", "/bin/busybox", "cttyhack", "/bin/busybox", "sh"]).env("PATH", "/bin:/sbin");
    match signals.spawn(&mut command).and_then(|child| pid(&child)) {
        Ok(pid) => drop(wait_for(pid, signals)),
        Err(cause) => log::error!("no shell: {cause}"),
    }
}

/// Ends every process but this one.
fn end_processes() {
    let everybody = Pid::from_raw(-1);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let begun = Instant::now();
        let _nobody = kill(everybody, signal);
        while begun.elapsed() < GRACE {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => sleep(POLL),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Ends the boot. What still runs hangs on a disk that does not answer; it is not waited for.
fn finish(how: RebootMode) -> ! {
    end_processes();
    nix::unistd::sync();
    unmount_all();
    // The result line is the last one: the kernel's farewell is not to push it off the screen.
    let _chatty = std::fs::write("/proc/sys/kernel/printk", "0");
    let failed = reboot(how);
    log::error!("the machine cannot be stopped: {failed:?}");
    loop {
        sleep(Duration::from_secs(60));
    }
}
