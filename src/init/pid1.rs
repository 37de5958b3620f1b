//! PID 1 proper: it mounts, starts the session, reaps, and ends the boot. The kernel panics when it dies, so it does
//! as little as it can, and nothing that depends on what is on a disk or a command line.

use std::io::Write;
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
use super::journal::since_boot;
use super::mounts::{mount_basics, unmount_all};
use super::screen::tty::{kernel_consoles, make_sane, print_everywhere};
use super::signals::Signals;
use super::spec::Escaped;
use super::worker::SELF;
use super::worker::lines::Lines;
use super::{AFTER_CRASH, SESSION};
use crate::report::collect_boot_log;

/// How long processes that are left over have to end by themselves, and then at all.
const GRACE: Duration = Duration::from_secs(3);

/// Time between two looks at them.
const POLL: Duration = Duration::from_millis(50);

/// Runs the boot to its end.
pub(super) fn live() -> ! {
    collect_boot_log(log::LevelFilter::Info, Consoles(Lines::default()));
    // Otherwise Ctrl-Alt-Del resets the machine at once; this way it is a signal to us.
    if let Err(errno) = set_cad_enabled(false) {
        log::warn!("Ctrl-Alt-Del still resets the machine: {errno}");
    }
    let signals = Signals::block(Signal::SIGINT);
    mount_basics();
    // When memory is short the kernel is to take somebody else; our children inherit it.
    set_oom_score("self", "-1000");
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
    for console in kernel_consoles() {
        make_sane(&console);
    }
    print_everywhere(&format!("{outcome}\n"));
    let child = start(signals, &[SESSION, AFTER_CRASH, &outcome.sentence]);
    let asked = child.map(|child| wait_for(child, signals));
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
    print_everywhere("A shell: type 'exit' to power off.\n");
    let mut command = Command::new("/bin/busybox");
    // A session and a terminal of its own, so that Ctrl-C reaches what runs in it.
    command
        .args(["setsid", "/bin/busybox", "cttyhack", "/bin/busybox", "sh"])
        .env("PATH", "/bin:/sbin:/usr/sbin");
    match signals.spawn(&mut command).and_then(|child| pid(&child)) {
        Ok(pid) => {
            set_oom_score(&pid.to_string(), "0");
            wait_for(pid, signals);
        }
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

/// How likely the kernel takes a process when memory is short, from -1000, never, to 1000 (`proc(5)`).
fn set_oom_score(process: &str, score: &str) {
    if let Err(cause) = std::fs::write(format!("/proc/{process}/oom_score_adj"), score) {
        log::warn!("process {process} is taken for want of memory like any other: {cause}");
    }
}

/// Where `log`'s records go here.
struct Consoles(Lines);

impl Write for Consoles {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let print = &mut |line: &str| {
            print_everywhere(&format!("[{:9.2}] {}\n", since_boot().as_secs_f64(), Escaped(line)));
        };
        self.0.take(text, print);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
