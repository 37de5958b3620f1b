//! A source that is read once: what the scan reads of it is kept, up to a limit, and handed to the copy.
//!
//! A read of the copy is cut short at its beginning and end by what is kept there. It is cut in two only where much of
//! what lies within is kept: a little is read again, as that costs less than a read more.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::buffer::AlignedBuf;
use super::stash::{PAGE, Stash};
use super::{ReadError, Source};
use crate::extent::ByteRange;

/// Largest read that goes through a buffer to become one of whole pages, in bytes.
const MAX_ROUNDED: u64 = 64 << 10;

/// Bytes within a read that are worth one more read.
const MUCH: u64 = 64 << 10;

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
        if state.stash.has_room() {
            state.stash.put(at, wanted);
        }
        Ok(())
    }

    /// Reads what is not kept.
    fn read_missing(&self, stash: &Stash, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let (mut at, mut wanted) = fill_ends(stash, pos, buf);
        while let Some(kept) = stash.stretch_in(ByteRange { pos: at, len: wanted.len() as u64 }, MUCH) {
            let (now, rest) = wanted.split_at_mut((kept.pos - at) as usize);
            let (here, later) = rest.split_at_mut(kept.len as usize);
            self.source.read_at(at, now)?;
            stash.get(kept.pos, here);
            (at, wanted) = (kept.end(), later);
        }
        if wanted.is_empty() { Ok(()) } else { self.source.read_at(at, wanted) }
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
            // What cannot be read as a whole is asked for again in parts.
            self.read_missing(&state.stash, pos, buf).inspect(|()| state.stash.forget(range))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::memory::{Memory, SECTOR};

    /// A disk of noise that notes each read.
    struct Counting {
        disk: Memory,
        reads: Mutex<Vec<(u64, u64)>>,
    }

    impl Counting {
        fn new(nr_pages: u64) -> Counting {
            let mut disk = Memory::new((nr_pages * PAGE) as usize / SECTOR);
            (0..).zip(&mut disk.bytes).for_each(|(at, byte): (u64, _)| *byte = (at * at / 77) as u8);
            Counting { disk, reads: Mutex::default() }
        }

        /// What was read since the last time, in pages and parts of them.
        fn reads(&self) -> Vec<(f64, f64)> {
            let in_pages = |bytes: u64| bytes as f64 / PAGE as f64;
            self.reads.lock().unwrap().drain(..).map(|(pos, len)| (in_pages(pos), in_pages(len))).collect()
        }
    }

    impl Source for Counting {
        fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
            self.reads.lock().unwrap().push((pos, buf.len() as u64));
            self.disk.read_at(pos, buf)
        }

        fn len(&self) -> u64 {
            self.disk.len()
        }

        fn sector_size(&self) -> u32 {
            self.disk.sector_size()
        }
    }

    /// Reads, and compares with what is there.
    fn read(kept: &Kept<'_>, disk: &Counting, pos: u64, len: u64) {
        let mut buf = vec![0xee; len as usize];
        kept.read_at(pos, &mut buf).unwrap();
        assert!(buf == disk.disk.bytes[pos as usize..(pos + len) as usize], "{len} bytes at {pos}");
    }

    #[test]
    fn what_was_read_for_the_scan_is_not_read_for_the_copy() {
        let disk = Counting::new(200);
        let kept = Kept::new(&disk, 100 * PAGE, true);
        read(&kept, &disk, 0, 512);
        read(&kept, &disk, 4 * PAGE + 1024, 1024);
        read(&kept, &disk, 4 * PAGE + 3072, 1024);
        assert_eq!(disk.reads(), [(0.0, 1.0), (4.0, 1.0)], "small reads become whole pages");
        read(&kept, &disk, 4 * PAGE, 20 * PAGE);
        read(&kept, &disk, 30 * PAGE, 19 * PAGE + 100);
        assert_eq!(disk.reads(), [(5.0, 19.0), (30.0, 19.0), (49.0, 1.0)]);
        kept.hand_out();
        read(&kept, &disk, 0, 60 * PAGE);
        assert_eq!(disk.reads(), [(1.0, 3.0), (24.0, 6.0), (50.0, 10.0)], "much that is kept cuts a read");
        assert!(kept.state().stash.is_empty());
        read(&kept, &disk, 0, PAGE);
        assert_eq!(disk.reads(), [(0.0, 1.0)], "what was handed out is let go");
    }

    #[test]
    fn a_little_within_a_large_read_does_not_cut_it() {
        let disk = Counting::new(40);
        let kept = Kept::new(&disk, 100 * PAGE, true);
        read(&kept, &disk, 10 * PAGE, 2 * PAGE);
        kept.hand_out();
        read(&kept, &disk, 0, 40 * PAGE);
        assert_eq!(disk.reads(), [(10.0, 2.0), (0.0, 40.0)]);
    }

    #[test]
    fn no_more_than_the_limit_is_kept() {
        let disk = Counting::new(100);
        let kept = Kept::new(&disk, 8 * PAGE, true);
        read(&kept, &disk, 0, 20 * PAGE);
        read(&kept, &disk, 20 * PAGE, 512);
        kept.hand_out();
        read(&kept, &disk, 0, 30 * PAGE);
        assert_eq!(disk.reads(), [(0.0, 20.0), (20.0, 0.125), (8.0, 22.0)]);
    }

    #[test]
    fn a_bad_sector_costs_only_those_who_want_it() {
        let mut disk = Counting::new(40);
        // The third sector of page 1, and one of page 12.
        disk.disk.bad = vec![10, 12 * 8 + 1];
        let kept = Kept::new(&disk, 100 * PAGE, true);
        read(&kept, &disk, PAGE, 1024);
        assert_eq!(disk.reads(), [(1.0, 1.0), (1.0, 0.25)]);
        read(&kept, &disk, 8 * PAGE, 2 * PAGE);
        kept.hand_out();
        let mut buf = vec![0; 8 * PAGE as usize];
        let error = kept.read_at(8 * PAGE, &mut buf).unwrap_err();
        assert_eq!((error.pos, error.len), (8 * PAGE, buf.len()), "the read that was asked for");
        disk.reads();
        read(&kept, &disk, 8 * PAGE, 3 * PAGE);
        assert_eq!(disk.reads(), [(10.0, 1.0)], "what is kept is kept until it was handed out");
    }

    #[test]
    fn of_a_failing_disk_nothing_is_read_that_nobody_wants() {
        let disk = Counting::new(40);
        let kept = Kept::new(&disk, 100 * PAGE, false);
        read(&kept, &disk, PAGE, 1024);
        read(&kept, &disk, PAGE, 1024);
        read(&kept, &disk, 2 * PAGE + 100, 10);
        assert_eq!(disk.reads(), [(1.0, 0.25), (2.0 + 100.0 / 4096.0, 10.0 / 4096.0)]);
    }
}
