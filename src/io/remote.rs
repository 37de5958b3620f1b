//! A [`Source`] that another process reads.
//!
//! A thread in a read that hangs keeps its whole process from ending: even SIGKILL waits for the disk. So a disk that
//! may hang is opened here, but read by a child, this same program, into memory that both share. Who waits for the
//! child can tell of it, and leave it alone; it goes when the kernel lets it.
//!
//! ```text
//! parent ── Request ─► child ── read ─► device
//!    ▲ ◄─── Answer ────  │
//!    └── shared memory ◄─┘
//! ```
//!
//! Of the three files that every process is given, the child's standard input is the socket, its output the memory, and
//! its error output the device. It closes all others, so that it keeps nothing of its parent's open when that is gone.
//! The parent touches the memory only when no request is under way.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use zerocopy::little_endian::{I32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::disk::Disk;
use super::{ReadError, Source};
use crate::sys::{self, SharedMemory};

/// This program's file.
const SELF: &str = "/proc/self/exe";

/// The one argument that makes this program read for its parent; not meant for people.
const READ_FOR_PARENT: &str = "--read-for-parent";

/// Bytes that the two share, the largest buffer of the pump: longer reads take several requests.
const CAPACITY: usize = 1 << 20;

/// How often it is asked whether to go on waiting: often enough for whoever presses Ctrl-C.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// How long a child may take to come up; then it is done without.
const START_UP: Duration = Duration::from_secs(10);

/// How long a child with nothing to do may take to end once it is killed, in steps of a millisecond.
const REAP_STEPS: u32 = 200;

/// What to do about a read that takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Wait on.
    Go,
    /// Give it up, and the disk.
    Stop,
}

/// Is asked, in the thread that reads, how it shall go on, and how long it has been waiting for this read.
pub type Ask<'a> = &'a (dyn Fn(Duration) -> Wait + Sync);

/// What the child is to read: bytes of the device, to the front of the memory.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Request {
    pos: U64,
    len: U64,
}

/// What came of it: [`GOOD`], [`EARLY_END`] or an error number.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Answer {
    status: I32,
}

/// All bytes are in the memory.
const GOOD: i32 = 0;

/// The device ended before them.
const EARLY_END: i32 = -1;

/// A disk that a child reads.
pub struct Remote<'a> {
    disk: Disk,
    /// None where no child could be started: then reads are made here.
    link: Option<Mutex<Link>>,
    ask: Ask<'a>,
}

impl<'a> Remote<'a> {
    /// Starts a child that reads `disk`. If that fails there is a warning, and reads are made by this process.
    pub fn start(disk: Disk, ask: Ask<'a>) -> Remote<'a> {
        let link = Link::start(Path::new(SELF), disk.file()).map_err(|error| {
            log::warn!(
                "cannot start a process for reading: {error}; a read that hangs cannot be interrupted"
            );
        });
        Remote { disk, link: link.ok().map(Mutex::new), ask }
    }

    /// Like [`Remote::start`], with this program's file at `program`, an absolute path. Fails if it cannot be started.
    pub fn start_with(program: &Path, disk: Disk, ask: Ask<'a>) -> io::Result<Remote<'a>> {
        let link = Link::start(program, disk.file())?;
        Ok(Remote { disk, link: Some(Mutex::new(link)), ask })
    }

    /// The disk as this process has it open, for questions that need no read.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }
}

impl Source for Remote<'_> {
    /// After a wait that was given up every further read fails at once, as that one did: the child still hangs in it.
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let Some(link) = &self.link else { return self.disk.read_at(pos, buf) };
        let len = buf.len();
        // What was under way when a thread panicked is known from the link's state.
        let mut link = link.lock().unwrap_or_else(PoisonError::into_inner);
        for (nr, piece) in buf.chunks_mut(CAPACITY).enumerate() {
            let from = pos.saturating_add((nr * CAPACITY) as u64);
            link.read(from, piece, self.ask).map_err(|cause| ReadError { pos, len, cause })?;
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn physical_sector_size(&self) -> u32 {
        self.disk.physical_sector_size()
    }
}

/// The parent's side.
#[derive(Debug)]
struct Link {
    socket: UnixStream,
    memory: SharedMemory,
    /// None in tests, where it is a thread.
    child: Option<Child>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The child waits for a request.
    Idle,
    /// It reads. Between two reads that means that nobody waits for it any more.
    Busy,
    /// It has closed the socket.
    Ended,
}

/// What was heard of the child after a request.
enum Heard {
    Answer(i32),
    /// Nothing yet, and nobody waits any more.
    Stopped,
    /// Nothing, and nothing will come.
    End,
}

impl Link {
    fn start(program: &Path, device: &File) -> io::Result<Link> {
        let (ours, theirs) = UnixStream::pair()?;
        let memory = sys::create_shared_memory(CAPACITY)?;
        let mut link = Link::new(ours, &memory)?;
        let mut command = Command::new(program);
        // In a group of its own it does not get the terminal's Ctrl-C; in the root directory it keeps no file system
        // from being unmounted.
        command.arg0("ntfsrescue").arg(READ_FOR_PARENT).process_group(0).current_dir("/");
        command.stdin(OwnedFd::from(theirs)).stdout(memory).stderr(device.try_clone()?);
        link.child = Some(command.spawn()?);
        // The command still holds the child's end of the socket.
        drop(command);
        // It answers, or it is not what was meant to be started.
        link.read(0, &mut [], &|waiting| if waiting < START_UP { Wait::Go } else { Wait::Stop })?;
        Ok(link)
    }

    fn new(socket: UnixStream, memory: &File) -> io::Result<Link> {
        socket.set_read_timeout(Some(ASK_EVERY))?;
        Ok(Link { socket, memory: SharedMemory::map(memory)?, child: None, state: State::Idle })
    }

    /// Fills `to`, which is no longer than the memory.
    fn read(&mut self, pos: u64, to: &mut [u8], ask: Ask<'_>) -> io::Result<()> {
        let heard = match self.state {
            State::Idle => {
                self.state = State::Busy;
                let request = Request { pos: pos.into(), len: (to.len() as u64).into() };
                // A request that cannot be sent gets no answer.
                self.request(&request, ask).unwrap_or(Heard::End)
            }
            State::Busy => Heard::Stopped,
            State::Ended => Heard::End,
        };
        let status = match heard {
            Heard::Answer(status) => status,
            Heard::Stopped => return Err(io::ErrorKind::Interrupted.into()),
            Heard::End => {
                self.state = State::Ended;
                return Err(self.ended());
            }
        };
        self.state = State::Idle;
        match status {
            GOOD => self.memory.copy_to(to),
            EARLY_END => return Err(io::ErrorKind::UnexpectedEof.into()),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        Ok(())
    }

    /// Sends a request and waits for its answer.
    fn request(&mut self, request: &Request, ask: Ask<'_>) -> io::Result<Heard> {
        self.socket.write_all(request.as_bytes())?;
        let sent = Instant::now();
        let mut answer = Answer::new_zeroed();
        let mut rest = answer.as_mut_bytes();
        while !rest.is_empty() {
            match self.socket.read(rest) {
                Ok(0) => return Ok(Heard::End),
                Ok(n) => rest = rest.get_mut(n..).unwrap_or_default(),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock if ask(sent.elapsed()) == Wait::Go => {}
                    io::ErrorKind::WouldBlock => return Ok(Heard::Stopped),
                    _ => return Err(error),
                },
            }
        }
        Ok(Heard::Answer(answer.status.get()))
    }

    /// Why there is no child any more.
    fn ended(&mut self) -> io::Error {
        let how = self.reap(REAP_STEPS).map_or(String::new(), |status| format!(" ({status})"));
        io::Error::other(format!("the process that reads it has ended{how}"))
    }

    /// How the child has ended, if it has or does so within so many milliseconds.
    fn reap(&mut self, milliseconds: u32) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        for _ in 0..milliseconds {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                ended => return ended.ok().flatten(),
            }
        }
        child.try_wait().ok().flatten()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ended = child.kill();
        }
        // One that hangs ends when its read does; whoever is init then reaps it.
        let _ended = self.reap(if self.state == State::Busy { 0 } else { REAP_STEPS });
    }
}

/// Was this process started to read for its parent?
pub fn is_asked_for(argv: &[OsString]) -> bool {
    matches!(argv, [_, arg] if arg == READ_FOR_PARENT)
}

/// The whole life of the process that reads.
pub fn live() -> ExitCode {
    let served = || {
        close_others()?;
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        let memory = io::stdout().as_fd().try_clone_to_owned()?;
        let device = io::stderr().as_fd().try_clone_to_owned()?;
        serve(socket.into(), &memory.into(), device.into())
    };
    // There is nowhere to tell why: the parent sees that the socket has ended.
    if served().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Closes all but the three files: whoever waits for the end of a pipe would wait for a disk that hangs.
fn close_others() -> io::Result<()> {
    let names = std::fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name());
    let numbers: Vec<i32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The one that the folder was read by is closed already.
        let _closed = nix::unistd::close(number);
    }
    Ok(())
}

/// Reads `device` into `memory` at the request of whoever has the other end of the socket, until that is closed.
fn serve(mut socket: UnixStream, memory: &File, device: File) -> io::Result<()> {
    let disk = Disk::of(device)?;
    let mut memory = SharedMemory::map(memory)?;
    loop {
        let mut request = Request::new_zeroed();
        match socket.read_exact(request.as_mut_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let len = usize::try_from(request.len.get()).ok();
        let status = match len.and_then(|len| memory.bytes_mut().get_mut(..len)) {
            Some(to) => status_of(disk.read_at(request.pos.get(), to)),
            None => nix::libc::EINVAL,
        };
        socket.write_all(Answer { status: status.into() }.as_bytes())?;
    }
}

fn status_of(read: Result<(), ReadError>) -> i32 {
    match read {
        Ok(()) => GOOD,
        Err(error) if error.cause.kind() == io::ErrorKind::UnexpectedEof => EARLY_END,
        Err(error) => error.cause.raw_os_error().unwrap_or(nix::libc::EINVAL),
    }
}

#[cfg(test)]
mod tests;
