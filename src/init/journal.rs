//! The one log of a boot: what init and worker tell, line by line, each with the time since the kernel started. Kept in
//! memory, in bounds, until a file on the target takes it over.
//!
//! A thread writes the file: a target that hangs or is full holds nobody up.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Bytes that are kept of a part's beginning.
const HEAD: usize = 256 << 10;

/// Bytes that are kept of a part's end: the latest is worth the most.
const TAIL: usize = 512 << 10;

/// Lines that may wait to be written to the file.
const QUEUE: usize = 1024;

/// Time between two syncs of the file.
const SYNC_EVERY: Duration = Duration::from_secs(30);

/// How long the end waits for the file.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time since the kernel started, with the time that the machine slept.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// The log.
#[derive(Debug, Default)]
pub struct Journal {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Before the first volume.
    boot: Kept,
    /// Of the volume that is worked on; none before the first one.
    volume: Option<Kept>,
    file: Option<LogFile>,
}

impl Journal {
    /// Takes a line, which has its time.
    pub fn line(&self, line: &str) {
        self.with_state(|state| {
            state.volume.as_mut().unwrap_or(&mut state.boot).push(line);
            if let Some(file) = &mut state.file {
                file.send(line);
            }
        });
    }

    /// What comes from now on belongs to one volume, and is in no other volume's log.
    pub fn begin_volume(&self) {
        self.with_state(|state| state.volume = Some(Kept::default()));
    }

    /// Writes what is kept and all that comes to this file, behind what an earlier run may have left there. Returns
    /// why that does not work; what goes wrong later is told by [`Journal::close`].
    pub fn continue_in(&self, path: &Path) -> Result<(), LogError> {
        self.close()?;
        let failed = |cause| LogError { path: path.to_owned(), cause };
        let mut file = File::options().append(true).create(true).open(path).map_err(failed)?;
        self.with_state(|state| {
            for kept in [Some(&state.boot), state.volume.as_ref()].into_iter().flatten() {
                kept.write(&mut file)?;
            }
            state.file = Some(LogFile::start(path, file)?);
            Ok(())
        })
        .map_err(failed)
    }

    /// Ends the file, synced. Waits no longer than half a minute for it. Without a file there is nothing to do.
    pub fn close(&self) -> Result<(), LogError> {
        let file = self.with_state(|state| state.file.take());
        file.map_or(Ok(()), LogFile::close)
    }

    fn with_state<T>(&self, then: impl FnOnce(&mut State) -> T) -> T {
        then(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The log cannot be written to its file.
#[derive(Debug, thiserror::Error)]
#[error("the log '{}' cannot be written: {cause}", path.display())]
pub struct LogError {
    path: PathBuf,
    cause: io::Error,
}

/// A part of the log: its beginning and its end.
#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<String>,
    /// Bytes of the tail's lines.
    tail_len: usize,
    /// Lines between the two that are not kept any more.
    nr_dropped: u64,
}

impl Kept {
    fn push(&mut self, line: &str) {
        if self.tail.is_empty() && self.head.len() + line.len() < HEAD {
            self.head.extend_from_slice(line.as_bytes());
            self.head.push(b'\n');
            return;
        }
        self.tail_len += line.len();
        self.tail.push_back(line.to_owned());
        while self.tail_len > TAIL
            && let Some(dropped) = self.tail.pop_front()
        {
            self.tail_len -= dropped.len();
            self.nr_dropped += 1;
        }
    }

    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.head)?;
        if self.nr_dropped > 0 {
            writeln!(to, "({} lines were not kept)", self.nr_dropped)?;
        }
        self.tail.iter().try_for_each(|line| writeln!(to, "{line}"))
    }
}

/// The file, and the thread that writes it.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    lines: SyncSender<String>,
    /// How the writing ended.
    ended: Receiver<io::Result<()>>,
    /// Lines that found the queue full since the last one that did not.
    nr_lost: u64,
}

impl LogFile {
    fn start(path: &Path, file: File) -> io::Result<LogFile> {
        let (lines, to_write) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        std::thread::Builder::new().spawn(move || {
            let _nobody_waits = end.send(write_lines(&file, &to_write));
        })?;
        Ok(LogFile { path: path.to_owned(), lines, ended, nr_lost: 0 })
    }

    fn send(&mut self, line: &str) {
        let line = match self.nr_lost {
            0 => line.to_owned(),
            n => format!("({n} lines are missing: the file was not written to)\n{line}"),
        };
        match self.lines.try_send(line) {
            Ok(()) => self.nr_lost = 0,
            Err(TrySendError::Full(_)) => self.nr_lost += 1,
            // It has failed, which its end tells.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    fn close(self) -> Result<(), LogError> {
        drop(self.lines);
        let ended = self.ended.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        ended.map_err(|cause| LogError { path: self.path, cause })
    }
}

/// Writes lines as they come, and syncs them now and then.
fn write_lines(mut file: &File, lines: &Receiver<String>) -> io::Result<()> {
    let mut synced = Instant::now();
    let mut is_dirty = true;
    loop {
        match lines.recv_timeout(SYNC_EVERY.saturating_sub(synced.elapsed())) {
            Ok(line) => {
                file.write_all(format!("{line}\n").as_bytes())?;
                is_dirty = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return file.sync_all(),
        }
        if synced.elapsed() >= SYNC_EVERY {
            if std::mem::take(&mut is_dirty) {
                file.sync_data()?;
            }
            synced = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_what_was_kept_and_what_comes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
        let journal = Journal::default();
        journal.line("boot");
        journal.begin_volume();
        journal.line("one");
        journal.continue_in(&at("1.log")).unwrap();
        journal.line("two");
        journal.close().unwrap();
        assert_eq!(read("1.log"), "boot\none\ntwo\n");
        journal.line("unmounted");
        journal.begin_volume();
        journal.line("three");
        journal.continue_in(&at("2.log")).unwrap();
        // The next boot goes on in the same file.
        journal.continue_in(&at("1.log")).unwrap();
        journal.close().unwrap();
        journal.close().unwrap();
        assert_eq!(read("2.log"), "boot\nthree\n");
        assert_eq!(read("1.log"), "boot\none\ntwo\nboot\nthree\n");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_and_no_more() {
        let journal = Journal::default();
        journal.line("x");
        let error = journal.continue_in(Path::new("/nowhere/x.log")).unwrap_err().to_string();
        assert_eq!(
            error,
            "the log '/nowhere/x.log' cannot be written: No such file or directory (os error 2)"
        );
        let error = journal.continue_in(Path::new("/dev/full")).unwrap_err().to_string();
        assert!(error.contains("No space left on device"), "{error}");
        journal.line("y");
        journal.close().unwrap();

        // One that fills up later.
        let empty = Journal::default();
        empty.continue_in(Path::new("/dev/full")).unwrap();
        for _ in 0..3 * QUEUE {
            empty.line("z");
        }
        let error = empty.close().unwrap_err().to_string();
        assert!(error.contains("'/dev/full'") && error.contains("No space left on device"), "{error}");
    }

    #[test]
    fn the_middle_is_dropped_and_that_is_said() {
        let mut kept = Kept::default();
        let line = |i: u64| format!("{i:0100}");
        (0..10_000).for_each(|i| kept.push(&line(i)));
        let mut out = Vec::new();
        kept.write(&mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<_> = out.lines().collect();
        let at = lines.iter().position(|line| line.starts_with('(')).unwrap();
        assert_eq!(at, HEAD / 101);
        let nr_dropped = 10_001 - lines.len();
        assert_eq!(lines[at], format!("({nr_dropped} lines were not kept)"));
        assert_eq!(lines[at + 1], line((at + nr_dropped) as u64));
        assert_eq!(*lines.last().unwrap(), line(9999));
        assert!(out.len() < HEAD + TAIL + 10_000);
    }
}
