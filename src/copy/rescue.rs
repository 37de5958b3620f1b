//! The pump of a rescue: this thread reads what the state machine asks for, another one writes it where it belongs.
//!
//! Every now and then all that was read is written and synced, and only then the map says so.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use super::CopyError;
use super::survey::BLOCK;
use crate::event::{Event, Observer, Standing};
use crate::extent::ByteRange;
use crate::io::buffer::AlignedBuf;
use crate::io::{Loss, PlacedSink, Source, WriteError};
use crate::rescue::Rescue;
use crate::rescue::mapstore::MapError;
use crate::rescue::passes::{End, Outcome, Step};

/// Buffers of a block each between reading and writing: 2 MiB.
const NR_BUFFERS: usize = 32;

/// Time between two looks at how far the rescue is.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Takes down how far a rescue is.
pub trait Keeper {
    /// All that the areas call finished is in the target and synced.
    fn keep(&mut self, rescue: &Rescue<'_>) -> Result<(), MapError>;
}

/// How a rescue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There is nothing more to read, for this reason.
    End(End),
    /// Whoever watches the job asked it to end.
    Stopped,
}

/// What is measured over all of a rescue, however often its disk goes away.
#[derive(Debug)]
pub struct Meter {
    start: Instant,
    /// Bytes wanted.
    total: u64,
    /// Bytes of them that are finished.
    rescued: u64,
    rescued_before: Option<u64>,
    good_at: Instant,
    kept_at: Option<Instant>,
    told_at: Option<Instant>,
    /// Time between two maps at least.
    keep_every: Duration,
    /// How long the last one took.
    keeping: Duration,
}

/// A map is written again when this many times the time has passed that the last one took.
const KEEPING_SHARE: u32 = 20;

impl Meter {
    /// The clock began at `start`; a map is kept at most every `keep_every`.
    pub fn new(start: Instant, keep_every: Duration) -> Meter {
        Meter {
            start,
            total: 0,
            rescued: 0,
            rescued_before: None,
            good_at: start,
            kept_at: None,
            told_at: None,
            keep_every,
            keeping: Duration::ZERO,
        }
    }

    /// So many bytes are wanted, and so many of them are finished already.
    pub fn begin(&mut self, total: u64, rescued: u64) {
        (self.total, self.rescued) = (total, rescued);
        self.rescued_before.get_or_insert(rescued);
    }

    /// Bytes of what is wanted that are finished.
    pub fn rescued(&self) -> u64 {
        self.rescued
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn is_keeping_due(&self) -> bool {
        let interval = self.keep_every.max(self.keeping * KEEPING_SHARE);
        self.kept_at.is_none_or(|at| at.elapsed() >= interval)
    }

    /// Tells how it stands, if the last time is long enough ago.
    fn tell(&mut self, rescue: &Rescue<'_>, observer: &dyn Observer) {
        if self.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        self.told_at = Some(Instant::now());
        self.tell_now(rescue, observer);
    }

    /// Tells how it stands.
    pub fn tell_now(&self, rescue: &Rescue<'_>, observer: &dyn Observer) {
        observer.tell(Event::Rescuing(Standing {
            pass: rescue.pass(),
            pos: rescue.pos(),
            total: self.total,
            rescued: self.rescued,
            rescued_before: self.rescued_before.unwrap_or(0),
            damage: rescue.areas().damage(),
            nr_errors: rescue.nr_errors(),
            elapsed: self.elapsed(),
            since_good: self.good_at.elapsed(),
        }));
    }
}

/// What the writer is to do.
enum Order {
    Put(ByteRange, AlignedBuf),
    Sync(SyncSender<()>),
}

/// The reader's side of the channels to the writer.
struct Writer<'a> {
    orders: SyncSender<Order>,
    spare: &'a Receiver<AlignedBuf>,
}

/// The writer has ended, and says itself why.
struct WriterGone;

impl Writer<'_> {
    /// Waits until all is written and synced.
    fn sync(&self) -> Result<(), WriterGone> {
        let (done, is_done) = sync_channel(1);
        self.orders.send(Order::Sync(done)).map_err(|_| WriterGone)?;
        is_done.recv().map_err(|_| WriterGone)
    }
}

/// Reads all that `rescue` asks for into `sink`, which is not finished. Whatever the end, what was read is written,
/// synced and kept.
pub fn pump(
    rescue: &mut Rescue<'_>,
    source: &dyn Source,
    sink: &mut dyn PlacedSink,
    keeper: &mut dyn Keeper,
    meter: &mut Meter,
    observer: &dyn Observer,
) -> Result<Ending, CopyError> {
    let (orders, received) = sync_channel(NR_BUFFERS);
    let (free, spare) = sync_channel(NR_BUFFERS);
    for _ in 0..NR_BUFFERS {
        // There is room for all of them.
        let _sent = free.try_send(AlignedBuf::new(BLOCK as usize));
    }
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || write_all(sink, &received, &free));
        let read = {
            let writer = Writer { orders, spare: &spare };
            read_all(rescue, source, &writer, keeper, meter, observer)
        };
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written?;
        read
    })
}

/// The writer's side. Ends at an error, or when nobody has orders any more.
fn write_all(
    sink: &mut dyn PlacedSink,
    orders: &Receiver<Order>,
    free: &SyncSender<AlignedBuf>,
) -> Result<(), WriteError> {
    loop {
        let order = match orders.try_recv() {
            // Nobody waits for what can be done later.
            Err(TryRecvError::Empty) if sink.settle()? => continue,
            Err(TryRecvError::Empty) => orders.recv().ok(),
            other => other.ok(),
        };
        match order {
            None => return Ok(()),
            Some(Order::Put(range, buf)) => {
                sink.put(range.pos, buf.bytes().get(..range.len as usize).unwrap_or_default())?;
                let _ended = free.try_send(buf);
            }
            Some(Order::Sync(done)) => {
                sink.sync()?;
                let _ended = done.send(());
            }
        }
    }
}

/// The reader's side.
fn read_all(
    rescue: &mut Rescue<'_>,
    source: &dyn Source,
    writer: &Writer<'_>,
    keeper: &mut dyn Keeper,
    meter: &mut Meter,
    observer: &dyn Observer,
) -> Result<Ending, CopyError> {
    let mut keep = |rescue: &Rescue<'_>, meter: &mut Meter| {
        let start = Instant::now();
        // Without a writer nothing is safe; its own error tells why.
        if writer.sync().is_ok() {
            keeper.keep(rescue)?;
        }
        (meter.kept_at, meter.keeping) = (Some(Instant::now()), start.elapsed());
        Ok::<(), MapError>(())
    };
    // A buffer whose content nobody wants.
    let mut idle = None;
    let ending = loop {
        if observer.wants_stop() {
            break Ok(Ending::Stopped);
        }
        if meter.is_keeping_due() {
            keep(rescue, meter)?;
        }
        let (range, is_check) = match rescue.next(meter.elapsed()) {
            Step::Read(range) => (range, false),
            Step::Check(range) => (range, true),
            Step::End(end) => break Ok(Ending::End(end)),
        };
        let Some(mut buf) = idle.take().or_else(|| writer.spare.recv().ok()) else {
            break Ok(Ending::Stopped);
        };
        let data = buf.bytes_mut().get_mut(..range.len as usize).unwrap_or_default();
        let start = Instant::now();
        let outcome = match source.read_at(range.pos, data) {
            Ok(()) => Outcome::Good,
            Err(error) => match error.loss() {
                Loss::BadArea => Outcome::Bad,
                Loss::Gone => Outcome::Gone,
                // A read that did not come back in time says nothing about its place.
                Loss::Stopped if observer.wants_stop() => break Ok(Ending::Stopped),
                Loss::Stopped => break Ok(Ending::End(End::Time)),
                Loss::Fault => break Err(error.into()),
            },
        };
        rescue.done(outcome, start.elapsed());
        if outcome == Outcome::Good {
            meter.good_at = Instant::now();
        }
        if outcome == Outcome::Good && !is_check {
            meter.rescued += range.len;
            if writer.orders.send(Order::Put(range, buf)).is_err() {
                break Ok(Ending::Stopped);
            }
        } else {
            idle = Some(buf);
        }
        meter.tell(rescue, observer);
    };
    keep(rescue, meter)?;
    meter.tell_now(rescue, observer);
    ending
}
