//! The pump: one thread reads, this one writes, over a fixed ring of buffers.
//!
//! What is read comes from a [`Feed`]: a volume through the rescue engine, or an image. Once the ring is made the
//! loop allocates nothing.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::event::{Event, Observer};
use crate::extent::ByteRange;
use crate::image::{ImageError, ImageReader};
use crate::io::buffer::AlignedBuf;
use crate::io::{Loss, ReadError, Sink, Source, WriteError};
use crate::plan::Plan;
use crate::rescue::mark::mark_lost;
use crate::rescue::{Engine, Outcome, ReadSizes, Verdict};

/// Buffers in the ring: one is filled, one is written, one evens out.
const NR_BUFFERS: usize = 3;

/// Bytes in a buffer, and of a read as long as all goes well.
pub const BUFFER: usize = 1 << 20;

/// Bytes of a block read with `--rescue`: what is read again sector by sector if it fails.
const RESCUE_BLOCK: u64 = 64 << 10;

/// Why a copy ended early.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The target cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl CopyError {
    /// The read that failed, if one did.
    pub fn read(&self) -> Option<&ReadError> {
        match self {
            CopyError::Read(read) => Some(read),
            _ => None,
        }
    }
}

/// What there is to copy, one stretch after the other.
pub trait Feed: Send {
    /// Fills the buffer's front with the next stretch. Returns its place on the volume; none at the end.
    fn next(&mut self, buf: &mut [u8]) -> Result<Option<ByteRange>, CopyError>;
}

/// The used clusters of a volume.
pub struct VolumeFeed<'a, R> {
    source: &'a dyn Source,
    engine: Engine<R>,
    /// Go on after bad sectors?
    rescue: bool,
    /// The volume's sector size, for the marks.
    sector_size: u32,
    observer: &'a dyn Observer,
    lost: u64,
}

impl<'a> VolumeFeed<'a, ()> {
    /// Reads what `plan` names. With `rescue` a sector that cannot be read is marked and told of, else the first
    /// error ends the copy.
    pub fn new(
        source: &'a dyn Source,
        plan: &'a Plan,
        sector_size: u32,
        rescue: bool,
        observer: &'a dyn Observer,
    ) -> VolumeFeed<'a, impl Iterator<Item = ByteRange> + Send + 'a> {
        let block = if rescue { RESCUE_BLOCK } else { BUFFER as u64 };
        let sizes = ReadSizes { block, sector: source.sector_size().into() };
        let engine = Engine::new(plan.ranges(), sizes);
        VolumeFeed { source, engine, rescue, sector_size, observer, lost: 0 }
    }
}

impl<R> VolumeFeed<'_, R> {
    /// Bytes that could not be read and are marked.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl<R: Iterator<Item = ByteRange> + Send> Feed for VolumeFeed<'_, R> {
    fn next(&mut self, buf: &mut [u8]) -> Result<Option<ByteRange>, CopyError> {
        while let Some(range) = self.engine.next_read() {
            let data = buf.get_mut(..range.len as usize).unwrap_or_default();
            let outcome = match self.source.read_at(range.pos, data) {
                Ok(()) => Outcome::Good,
                Err(error) if self.rescue && error.loss() == Loss::BadArea => Outcome::Bad,
                Err(error) => return Err(error.into()),
            };
            match self.engine.done(outcome) {
                Verdict::Keep => return Ok(Some(range)),
                Verdict::Retry => {}
                Verdict::Lost => {
                    mark_lost(range.pos, data, self.sector_size);
                    self.lost += range.len;
                    self.observer.tell(Event::Lost { pos: range.pos, len: range.len });
                    return Ok(Some(range));
                }
            }
        }
        Ok(None)
    }
}

impl<R: std::io::Read + Send> Feed for ImageReader<R> {
    fn next(&mut self, buf: &mut [u8]) -> Result<Option<ByteRange>, CopyError> {
        let stretch = ImageReader::next(self, buf)?;
        Ok(stretch.map(|(pos, len)| ByteRange { pos, len: len as u64 }))
    }
}

/// A queue of fixed size between the two threads.
struct Queue<T> {
    state: Mutex<QueueState<T>>,
    changed: Condvar,
}

struct QueueState<T> {
    items: heapless::Deque<T, NR_BUFFERS>,
    closed: bool,
}

impl<T> Queue<T> {
    fn new() -> Queue<T> {
        let state = QueueState { items: heapless::Deque::new(), closed: false };
        Queue { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Puts an item in. There are never more items than buffers.
    fn push(&self, item: T) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _full = state.items.push_back(item);
        self.changed.notify_one();
    }

    /// Takes an item out, waiting for one; none once the queue is closed and empty.
    fn pop(&self) -> Option<T> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |state: &mut QueueState<T>| state.items.is_empty() && !state.closed;
        let mut state = self.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        state.items.pop_front()
    }

    /// Says that nothing more will come.
    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }
}

/// Closes a queue when its user leaves, however that happens: the other side must not wait for ever.
struct CloseOnDrop<'a, T>(&'a Queue<T>);

impl<T> Drop for CloseOnDrop<'_, T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Copies all that `feed` has into `sink`, without finishing it. `total` is the number of bytes for the progress
/// that is told.
pub fn pump<F: Feed>(
    feed: &mut F,
    sink: &mut dyn Sink,
    total: u64,
    observer: &dyn Observer,
) -> Result<(), CopyError> {
    let empty = Queue::new();
    let full = Queue::new();
    for _ in 0..NR_BUFFERS {
        empty.push(AlignedBuf::new(BUFFER));
    }
    std::thread::scope(|scope| {
        let (empty, full) = (&empty, &full);
        let reader = scope.spawn(move || {
            let _closes = CloseOnDrop(full);
            while let Some(mut buf) = empty.pop() {
                match feed.next(buf.bytes_mut())? {
                    Some(range) => full.push((range, buf)),
                    None => break,
                }
            }
            Ok(())
        });
        let written = write_all(sink, empty, full, total, observer);
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.and(read)
    })
}

/// The writer's side of the pump.
fn write_all(
    sink: &mut dyn Sink,
    empty: &Queue<AlignedBuf>,
    full: &Queue<(ByteRange, AlignedBuf)>,
    total: u64,
    observer: &dyn Observer,
) -> Result<(), CopyError> {
    let _closes = CloseOnDrop(empty);
    let mut done = 0;
    while let Some((range, buf)) = full.pop() {
        sink.put(range.pos, buf.bytes().get(..range.len as usize).unwrap_or_default())?;
        empty.push(buf);
        done += range.len;
        observer.tell(Event::Progress { done: done.min(total), total });
    }
    Ok(())
}
