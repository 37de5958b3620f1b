//! Threads that compress, over a fixed number of pieces that go round: what is put in comes out compressed, in the same
//! order.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::encode::{Compression, Encoder, PIECE, longest_frame};

/// Pieces that are more than there are threads: one is filled, one is written.
const SPARE: usize = 2;

/// Some content, and the frame that it becomes.
pub(super) struct Piece {
    pub(super) content: Vec<u8>,
    pub(super) frame: Vec<u8>,
    /// Could it be compressed?
    pub(super) encoded: io::Result<()>,
}

impl Piece {
    fn new() -> Piece {
        let (content, frame) = (Vec::with_capacity(PIECE), Vec::with_capacity(longest_frame()));
        Piece { content, frame, encoded: Ok(()) }
    }
}

/// Threads, and the pieces that they have.
pub(super) struct Ring {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Pieces that were put in, and that were taken out.
    nr_put: u64,
    nr_taken: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Pieces with their numbers: those to be compressed, and those that are.
    waiting: VecDeque<(u64, Piece)>,
    done: Vec<(u64, Piece)>,
    /// Nothing comes any more, or nothing is wanted.
    is_closed: bool,
    /// A thread is gone that should not be.
    is_broken: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// What each thread does.
    fn encode_all(&self, mut encoder: Encoder) {
        let mut state = self.lock();
        while !state.is_closed {
            let Some((number, mut piece)) = state.waiting.pop_front() else {
                state = self.wait(state);
                continue;
            };
            drop(state);
            piece.encoded = encoder.encode(&piece.content, &mut piece.frame);
            state = self.lock();
            state.done.push((number, piece));
            self.changed.notify_all();
        }
    }
}

/// Says that a thread has ended by a panic, so that nobody waits for what it was at.
struct TellOfPanic(Arc<Shared>);

impl Drop for TellOfPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().is_broken = true;
            self.0.changed.notify_all();
        }
    }
}

impl Ring {
    /// Starts the threads. Returns the pieces that go round, too.
    pub(super) fn start(compression: Compression, nr_threads: usize) -> io::Result<(Ring, Vec<Piece>)> {
        let nr_pieces = nr_threads + SPARE;
        let state = State {
            waiting: VecDeque::with_capacity(nr_pieces),
            done: Vec::with_capacity(nr_pieces),
            is_closed: false,
            is_broken: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut ring = Ring { shared, threads: Vec::with_capacity(nr_threads), nr_put: 0, nr_taken: 0 };
        for _ in 0..nr_threads {
            let encoder = Encoder::new(compression)?;
            let tells = TellOfPanic(Arc::clone(&ring.shared));
            let thread = thread::Builder::new().name("compress".into());
            ring.threads.push(thread.spawn(move || tells.0.encode_all(encoder))?);
        }
        Ok((ring, (0..nr_pieces).map(|_| Piece::new()).collect()))
    }

    /// Has a piece compressed.
    pub(super) fn put(&mut self, piece: Piece) {
        self.shared.lock().waiting.push_back((self.nr_put, piece));
        self.shared.changed.notify_all();
        self.nr_put += 1;
    }

    /// The next piece in the order in which they were put, if it is compressed already.
    pub(super) fn take_ready(&mut self) -> Option<Piece> {
        let mut state = self.shared.lock();
        let at = state.done.iter().position(|(number, _)| *number == self.nr_taken)?;
        self.nr_taken += 1;
        Some(state.done.swap_remove(at).1)
    }

    /// The same, and waits for it; none where all were taken.
    pub(super) fn take(&mut self) -> Option<Piece> {
        while self.nr_taken < self.nr_put {
            if let Some(piece) = self.take_ready() {
                return Some(piece);
            }
            let next = self.nr_taken;
            let mut state = self.shared.lock();
            while !state.is_broken && state.done.iter().all(|(number, _)| *number != next) {
                state = self.shared.wait(state);
            }
            if state.is_broken {
                state.is_closed = true;
                drop(state);
                self.shared.changed.notify_all();
                self.pass_panic_on();
            }
        }
        None
    }

    /// Ends as the thread has ended.
    fn pass_panic_on(&mut self) {
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Who waited for one that has panicked has been told.
            let _told = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_as_they_went_in() {
        let (mut ring, mut free) = Ring::start(Compression::Zstd { level: 1 }, 3).unwrap();
        assert_eq!(free.len(), 5);
        let mut next = 0u8;
        let mut check = |piece: Piece| {
            piece.encoded.as_ref().unwrap();
            assert!(piece.content.iter().all(|byte| *byte == next));
            next += 1;
            piece
        };
        for number in 0..100u8 {
            let mut piece = free.pop().unwrap();
            piece.content.clear();
            // Some take longer than others.
            piece.content.resize(if number % 3 == 0 { PIECE } else { 10 }, number);
            ring.put(piece);
            if free.is_empty() {
                free.push(check(ring.take().unwrap()));
            }
        }
        while let Some(piece) = ring.take() {
            free.push(check(piece));
        }
        assert_eq!((next, free.len()), (100, 5));
    }

    /// A thread that panics takes whoever waits for it with it; nobody waits for ever.
    #[test]
    fn a_panic_is_not_lost() {
        let (mut ring, mut free) = Ring::start(Compression::Lz4, 1).unwrap();
        let shared = Arc::clone(&ring.shared);
        ring.threads.push(
            thread::Builder::new()
                .spawn(move || {
                    let tells = TellOfPanic(shared);
                    let state = tells.0.lock();
                    drop(state);
                    panic!("broken");
                })
                .unwrap(),
        );
        let mut piece = free.pop().unwrap();
        piece.content.push(1);
        ring.put(piece);
        // Never done: it is taken away.
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            loop {
                while let Some(piece) = ring.take() {
                    ring.put(piece);
                }
            }
        }));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"broken"));
    }
}
