//! Waiting for children and for the request to stop (Ctrl-Alt-Del), without handlers: the signals are blocked and
//! taken one by one (sigwait, signalfd).

use std::io;
use std::process::{Child, Command};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that this process waits for.
#[derive(Debug)]
pub struct Signals {
    set: SigSet,
    /// Those that ask to stop, to be looked at in between.
    stop: Option<SignalFd>,
}

impl Signals {
    /// Blocks SIGCHLD and the signal that asks to stop, for this thread and those that it starts later.
    pub fn block(stop: Signal) -> Signals {
        let [mut set, mut stops] = [SigSet::empty(), SigSet::empty()];
        stops.add(stop);
        set.add(stop);
        set.add(Signal::SIGCHLD);
        if let Err(errno) = set.thread_block() {
            log::warn!("cannot block signals: {errno}");
        }
        Signals {
            set,
            stop: SignalFd::with_flags(&stops, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).ok(),
        }
    }

    /// The next signal; waits for it.
    pub fn next(&self) -> Option<Signal> {
        self.set.wait().ok()
    }

    /// Was the request to stop made meanwhile?
    pub fn stop_asked(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| matches!(stop.read_signal(), Ok(Some(_))))
    }

    /// Starts a child that has no signal blocked: it would inherit that.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let unblocked = self.set.thread_unblock();
        let child = command.spawn();
        if unblocked.is_ok()
            && let Err(errno) = self.set.thread_block()
        {
            log::warn!("cannot block signals: {errno}");
        }
        child
    }
}
