//! The pump: one thread reads, this one writes, over a fixed ring of buffers.
//!
//! What is read comes from a [`Feed`]: a volume through the rescue engine, whole ([`VolumeFeed`]) or without what is
//! private ([`MetadataFeed`]), the image of one of these ([`SaveFeed`]), or an image that is restored. All that is done
//! with the bytes is done by the thread that reads them; the other one only writes. Once the ring is made the loop
//! allocates nothing.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::event::{Event, Observer};
use crate::extent::ByteRange;
use crate::image::{ImageError, ImageReader};
use crate::io::buffer::AlignedBuf;
use crate::io::{Loss, ReadError, Sink, WriteError};
use crate::ntfs::record::Fault;

mod metadata;
pub mod rescue;
mod save;
pub mod survey;
mod volume;

pub use metadata::MetadataFeed;
pub use save::{SaveFeed, Seal};
pub use volume::{Reader, VolumeFeed};

/// Buffers in the ring: one is filled, one is written, one evens out.
const NR_BUFFERS: usize = 3;

/// Bytes in a buffer, and of a read as long as all goes well.
pub const BUFFER: usize = 1 << 20;

/// Why a copy ended early.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source cannot be read.
    #[error(transparent)]
    Read(ReadError),
    /// A piece of metadata makes no sense.
    #[error("{0}; --ignore-fs-check and --rescue go on, without what lies behind the damage")]
    Damaged(#[from] Damage),
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The target cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The kernel has no random numbers.
    #[error("cannot get a random serial number: {0}")]
    Random(#[from] getrandom::Error),
    /// The map cannot be kept.
    #[error(transparent)]
    Map(#[from] crate::rescue::mapstore::MapError),
    /// Whoever watches the job asked it to end.
    #[error("interrupted")]
    Stopped,
}

/// A piece of metadata that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{what} of MFT record {mft_no} at byte {pos:#x}: {fault}")]
pub struct Damage {
    /// Name of the structure.
    pub what: &'static str,
    /// The base record that it belongs to.
    pub mft_no: u64,
    /// Its first byte on the volume.
    pub pos: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

impl From<ReadError> for CopyError {
    fn from(error: ReadError) -> CopyError {
        match error.loss() {
            Loss::Stopped => CopyError::Stopped,
            _ => CopyError::Read(error),
        }
    }
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

impl<F: Feed + ?Sized> Feed for &mut F {
    fn next(&mut self, buf: &mut [u8]) -> Result<Option<ByteRange>, CopyError> {
        (**self).next(buf)
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
pub fn pump<F: Feed + ?Sized>(
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
                if observer.wants_stop() {
                    return Err(CopyError::Stopped);
                }
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
