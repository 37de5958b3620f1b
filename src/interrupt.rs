//! SIGINT and SIGTERM on the command line: a job ends in order, and if it cannot, it ends all the same.
//!
//! No handlers: the signals are blocked in all threads, and one thread waits for them. The job looks between two reads
//! whether it is to end. Where a read or write does not come back, as on a disk that hangs, the process ends without it.
//! In the end the process ends by the signal itself, as one does that does not care: a script that is interrupted with it
//! then ends too, instead of going on to the next volume.

use std::fmt;
use std::process::exit;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, raise};

/// How long a job may take to end in order.
const GRACE: Duration = Duration::from_secs(5);

/// How long all signals together are one request to end.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// How long a message may take to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Added to a signal's number: the exit status by which shells tell of a signal, should it not end the process.
const SIGNALLED: i32 = 128;

/// What came of waiting for signals.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    /// The first one's number, or 0.
    signal: Arc<AtomicI32>,
}

impl Interrupt {
    /// Waits from now on, in a thread of its own. To be called before other threads are started. A signal that the
    /// process was told to ignore, as shells do for what runs in the background, stays ignored. A patient one lets a job
    /// take its time to end, until a second signal comes.
    pub fn watch(is_patient: bool, tell: impl Fn(fmt::Arguments<'_>) + Clone + Send + 'static) -> Interrupt {
        let interrupt = Interrupt::default();
        let ignored = ignored_signals();
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            if ignored >> (signal as i32 - 1) & 1 == 0 {
                signals.add(signal);
            }
        }
        if let Err(errno) = signals.thread_block() {
            log::warn!("cannot block signals: {errno}");
            return interrupt;
        }
        let watched = interrupt.clone();
        std::thread::spawn(move || watched.wait(&signals, is_patient, tell));
        interrupt
    }

    fn wait(
        &self,
        signals: &SigSet,
        is_patient: bool,
        tell: impl Fn(fmt::Arguments<'_>) + Clone + Send + 'static,
    ) {
        let Ok(signal) = signals.wait() else { return };
        // timeout(1) sends a signal twice, to the process and to its group.
        let first = Instant::now();
        say(&tell, format!("{signal}: ending; once more to end at once"));
        self.signal.store(signal as i32, Ordering::Relaxed);
        if !is_patient {
            let at_once = tell.clone();
            std::thread::spawn(move || {
                std::thread::sleep(GRACE);
                end_at_once(signal, &at_once);
            });
        }
        while let Ok(signal) = signals.wait() {
            if first.elapsed() > ONE_REQUEST {
                end_at_once(signal, &tell);
            }
        }
    }

    /// The signal that asks to end, if one came.
    pub fn signal(&self) -> Option<Signal> {
        Signal::try_from(self.signal.load(Ordering::Relaxed)).ok()
    }
}

/// Ends the process by this signal.
pub fn end_by(signal: Signal) -> ! {
    let signals = SigSet::from_iter([signal]);
    let _both_can_fail = signals.thread_unblock().and_then(|()| raise(signal));
    exit(SIGNALLED + signal as i32);
}

fn end_at_once(signal: Signal, tell: &(impl Fn(fmt::Arguments<'_>) + Clone + Send + 'static)) {
    say(tell, format!("ERROR: ended by {signal} before the job was done: what was written is unfinished"));
    end_by(signal);
}

/// Tells, but does not wait for ever: the messages may go to a pipe that nobody reads any more.
fn say(tell: &(impl Fn(fmt::Arguments<'_>) + Clone + Send + 'static), line: String) {
    let (said, heard) = mpsc::channel();
    let tell = tell.clone();
    std::thread::spawn(move || {
        tell(format_args!("{line}"));
        let _nobody_waits = said.send(());
    });
    let _unread = heard.recv_timeout(PATIENCE);
}

/// The signals that are ignored, one bit each, the lowest for signal 1; none where the kernel does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_hangs_is_left_alone() {
        let start = Instant::now();
        say(&|_: fmt::Arguments<'_>| std::thread::sleep(100 * PATIENCE), "unread".into());
        assert!(start.elapsed() < 50 * PATIENCE);
    }
}
