//! A source that is read once: what the scan reads of it is kept, up to a limit, and handed to the copy.
//!
//! A read of the copy is cut short at its beginning and end by what is kept there, and never cut in two.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::buffer::AlignedBuf;
use super::stash::{PAGE, Stash};
use super::{ReadError, Source};
use crate::extent::ByteRange;

/// Largest read that goes through a buffer to become one of whole pages, in bytes.
const MAX_ROUNDED: u64 = 64 << 10;

/// A source, and what was read of it.
pub struct Kept<'a> {
    source: &'a dyn Source,
    /// Are whole pages read of a healthy source?
    rounds: bool,
    kept: Mutex<State>,
}

struct State {
    stash: Stash,
    /// Is what is read kept?
    keeps: bool,
    /// For whole pages; empty until it is needed.
    pages: AlignedBuf,
}

impl<'a> Kept<'a> {
    /// Keeps the first `limit` bytes that are read. Small reads become reads of whole pages where `rounds` says so: not
    /// of a failing disk, where each byte that is asked for beyond need can cost those that are wanted.
    pub fn new(source: &'a dyn Source, limit: u64, rounds: bool) -> Kept<'a> {
        let state = State { stash: Stash::new(limit), keeps: true, pages: AlignedBuf::new(0) };
        Kept { source, rounds, kept: Mutex::new(state) }
    }

    /// From here on nothing more is kept, and what is handed out is let go.
    pub fn hand_out(&self) {
        let mut state = self.state();
        state.keeps = false;
        state.pages = AlignedBuf::new(0);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked ends the program anyway.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is not here yet, and keeps it.
    fn read_and_keep(&self, state: &mut State, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if state.stash.get(pos, buf) {
            return Ok(());
        }
        let end = pos + buf.len() as u64;
        if self.rounds && state.stash.has_room() && end <= self.source.len() {
            let first = pos / PAGE * PAGE;
            let whole =
                ByteRange { pos: first, len: end.next_multiple_of(PAGE).min(self.source.len()) - first };
            let is_rounded = whole == ByteRange { pos, len: buf.len() as u64 };
            if !is_rounded && whole.len <= MAX_ROUNDED {
                // What lies beside the wanted bytes may be unreadable without harm.
                if self.read_pages(state, whole, pos, buf).is_ok() {
                    return Ok(());
                }
            } else if !is_rounded {
                // The page at one end, and all others.
                let cut = if pos == first { end / PAGE * PAGE } else { first + PAGE };
                let (now, later) = buf.split_at_mut((cut - pos) as usize);
                self.read_and_keep(state, pos, now)?;
                return self.read_and_keep(state, cut, later);
            }
        }
        let (at, wanted) = fill_ends(&state.stash, pos, buf);
        self.source.read_at(at, wanted)?;
        state.stash.put(at, wanted);
        Ok(())
    }

    /// Reads whole pages, and takes `buf` out of them.
    fn read_pages(
        &self,
        state: &mut State,
        whole: ByteRange,
        pos: u64,
        buf: &mut [u8],
    ) -> Result<(), ReadError> {
        if state.pages.bytes().is_empty() {
            state.pages = AlignedBuf::new(MAX_ROUNDED as usize);
        }
        let pages = state.pages.bytes_mut().get_mut(..whole.len as usize).unwrap_or_default();
        let (at, wanted) = fill_ends(&state.stash, whole.pos, pages);
        self.source.read_at(at, wanted)?;
        state.stash.put(at, wanted);
        let from = pages.get((pos - whole.pos) as usize..).unwrap_or_default();
        buf.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

/// Fills the beginning and the end of `buf` with what is kept of it, and returns what remains and its place.
fn fill_ends<'b>(stash: &Stash, pos: u64, buf: &'b mut [u8]) -> (u64, &'b mut [u8]) {
    let (front, back) = stash.ends(ByteRange { pos, len: buf.len() as u64 });
    let (first, rest) = buf.split_at_mut(front as usize);
    let (middle, last) = rest.split_at_mut(rest.len() - back as usize);
    let at = pos + front;
    stash.get(pos, first);
    stash.get(at + middle.len() as u64, last);
    (at, middle)
}

impl Source for Kept<'_> {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let range = ByteRange { pos, len: buf.len() as u64 };
        let mut state = self.state();
        let outcome = if state.keeps {
            self.read_and_keep(&mut state, pos, buf)
        } else if state.stash.is_empty() {
            drop(state);
            self.source.read_at(pos, buf)
        } else {
            let (at, wanted) = fill_ends(&state.stash, pos, buf);
            drop(state);
            let read = if wanted.is_empty() { Ok(()) } else { self.source.read_at(at, wanted) };
            // What could not be read as a whole is asked for again in parts.
            read.inspect(|()| self.state().stash.forget(range))
        };
        // Nobody knows of the parts.
        outcome.map_err(|error| ReadError { pos, len: range.len as usize, ..error })
    }

    fn len(&self) -> u64 {
        self.source.len()
    }

    fn sector_size(&self) -> u32 {
        self.source.sector_size()
    }

    fn physical_sector_size(&self) -> u32 {
        self.source.physical_sector_size()
    }
}
