//! Waiting for children and for the request to stop (Ctrl-Alt-Del, Ctrl-C), without handlers: the signals are blocked
//! and taken one by one (sigwait, signalfd).

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that this process waits for.
#[derive(Debug)]
pub struct Signals {
    set: SigSet,
    /// Those that ask to stop, to be looked at in between.
    stop: Option<SignalFd>,
    /// Those that tell of children.
    children: Option<SignalFd>,
    was_stopped: Cell<bool>,
}

impl Signals {
    /// Blocks SIGCHLD and the signal that asks to stop, for this thread and those that it starts later.
    pub fn block(stop: Signal) -> Signals {
        let set = SigSet::from_iter([stop, Signal::SIGCHLD]);
        if let Err(errno) = set.thread_block() {
            log::warn!("cannot block signals: {errno}");
        }
        let descriptor = |signal| {
            let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
            SignalFd::with_flags(&SigSet::from_iter([signal]), flags).ok()
        };
        Signals {
            set,
            stop: descriptor(stop),
            children: descriptor(Signal::SIGCHLD),
            was_stopped: Cell::new(false),
        }
    }

    /// The next signal; waits for it.
    pub fn next(&self) -> Option<Signal> {
        self.set.wait().ok()
    }

    /// Was the request to stop made, now or ever?
    pub fn stop_asked(&self) -> bool {
        self.take_stop();
        self.was_stopped.get()
    }

    /// Was the request to stop made once more?
    pub fn take_stop(&self) -> bool {
        let asked = self.stop.as_ref().is_some_and(|stop| matches!(stop.read_signal(), Ok(Some(_))));
        self.was_stopped.set(self.was_stopped.get() || asked);
        asked
    }

    /// Readable while a request to stop has not been taken.
    pub fn stop_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stop.as_ref().map(AsFd::as_fd)
    }

    /// Readable while news of children have not been taken ([`Signals::take_children`]).
    pub fn children_fd(&self) -> Option<BorrowedFd<'_>> {
        self.children.as_ref().map(AsFd::as_fd)
    }

    /// Takes the news of children: some may have ended.
    pub fn take_children(&self) {
        if let Some(children) = &self.children {
            while matches!(children.read_signal(), Ok(Some(_))) {}
        }
    }

    /// Waits for a request to stop, for news of children, until one of `others` can be read or is closed, or until the
    /// time is over. Whoever waits looks at all of them: that costs little, and the time is only a promise not to wait
    /// longer.
    pub fn wait(&self, others: &[BorrowedFd<'_>], time: Duration) {
        let own = [self.stop_fd(), self.children_fd()];
        let all = own.iter().flatten().chain(others);
        let mut all: Vec<_> = all.map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect();
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let _looked_at_by_the_caller = poll(&mut all, time);
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
