//! Feeding the pump from a volume, sector by sector where it must be.

use super::{BUFFER, CopyError, Feed};
use crate::event::{Event, Observer};
use crate::extent::ByteRange;
use crate::io::{Loss, Source};
use crate::plan::Plan;
use crate::rescue::mark::mark_lost;
use crate::rescue::{Engine, Outcome, ReadSizes, Verdict};

/// Bytes of a block read with `--rescue`: what is read again sector by sector if it fails.
const RESCUE_BLOCK: u64 = 64 << 10;

/// Reads what the rescue engine asks for, and counts what is lost.
pub struct Reader<'a> {
    source: &'a dyn Source,
    /// Go on after bad sectors?
    rescue: bool,
    /// The volume's sector size, for the marks.
    sector_size: u32,
    observer: &'a dyn Observer,
    /// Is this read a second time, so that what is lost is neither counted nor told again?
    again: bool,
    lost: u64,
}

impl<'a> Reader<'a> {
    /// Reads from `source`, a volume with sectors of `sector_size` bytes. With `rescue` a sector that cannot be read is
    /// marked and told of, else the first error ends the copy.
    pub fn new(
        source: &'a dyn Source,
        sector_size: u32,
        rescue: bool,
        observer: &'a dyn Observer,
    ) -> Reader<'a> {
        Reader { source, rescue, sector_size, observer, again: false, lost: 0 }
    }

    /// Bytes that could not be read and are marked.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// From here on, is this read a second time?
    pub(super) fn set_again(&mut self, again: bool) {
        self.again = again;
    }

    /// An engine for these ranges, which ascend and do not overlap.
    pub(super) fn engine<R: Iterator<Item = ByteRange>>(&self, ranges: R) -> Engine<R> {
        let block = if self.rescue { RESCUE_BLOCK } else { BUFFER as u64 };
        Engine::new(ranges, ReadSizes { block, sector: self.source.sector_size().into() })
    }

    /// Puts the next range of the engine into the front of `buf`, and says whether it is lost and marked; none at the
    /// end.
    pub(super) fn next<R: Iterator<Item = ByteRange>>(
        &mut self,
        engine: &mut Engine<R>,
        buf: &mut [u8],
    ) -> Result<Option<(ByteRange, bool)>, CopyError> {
        while let Some(range) = engine.next_read() {
            let data = buf.get_mut(..range.len as usize).unwrap_or_default();
            let outcome = match self.source.read_at(range.pos, data) {
                Ok(()) => Outcome::Good,
                Err(error) if self.rescue && error.loss() == Loss::BadArea => Outcome::Bad,
                Err(error) => return Err(error.into()),
            };
            match engine.done(outcome) {
                Verdict::Keep => return Ok(Some((range, false))),
                Verdict::Retry => {}
                Verdict::Lost => {
                    self.mark(range, data);
                    if !self.again {
                        self.lost += range.len;
                        self.observer.tell(Event::Lost { pos: range.pos, len: range.len });
                    }
                    return Ok(Some((range, true)));
                }
            }
        }
        Ok(None)
    }

    /// Marks `data`, the bytes of a range that could not be read.
    pub(super) fn mark(&self, range: ByteRange, data: &mut [u8]) {
        mark_lost(range.pos, data, self.sector_size);
    }
}

/// The used clusters of a volume.
pub struct VolumeFeed<'a, R> {
    reader: Reader<'a>,
    engine: Engine<R>,
}

impl<'a> VolumeFeed<'a, ()> {
    /// Reads what `plan` names.
    pub fn new(
        reader: Reader<'a>,
        plan: &'a Plan,
    ) -> VolumeFeed<'a, impl Iterator<Item = ByteRange> + Send + 'a> {
        let engine = reader.engine(plan.ranges());
        VolumeFeed { reader, engine }
    }
}

impl<R> VolumeFeed<'_, R> {
    /// Bytes that could not be read and are marked.
    pub fn lost(&self) -> u64 {
        self.reader.lost()
    }
}

impl<R: Iterator<Item = ByteRange> + Send> Feed for VolumeFeed<'_, R> {
    fn next(&mut self, buf: &mut [u8]) -> Result<Option<ByteRange>, CopyError> {
        Ok(self.reader.next(&mut self.engine, buf)?.map(|(range, _)| range))
    }
}
