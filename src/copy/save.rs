//! Saving: what a volume feeds becomes what its image feeds.

use std::sync::{Mutex, PoisonError};

use super::{BUFFER, CopyError, Feed};
use crate::extent::ByteRange;
use crate::image::ImageEncoder;
use crate::image::trailer::{Marks, Origin};
use crate::io::WriteError;
use crate::io::buffer::AlignedBuf;

/// What the trailer of an image tells beside its checksums.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// Where the image comes from.
    pub origin: &'a Origin,
    /// What of it is marked, once all of it has been read.
    pub marks: &'a Mutex<Marks>,
}

/// The bytes of an image of what another feed has. They are encoded by the thread that reads, as long as what was read
/// is near the processor.
pub struct SaveFeed<'a, F> {
    feed: F,
    encoder: ImageEncoder,
    seal: Option<Seal<'a>>,
    /// A stretch of the volume, and how much of it is encoded.
    stretch: AlignedBuf,
    range: ByteRange,
    taken: usize,
    stage: Stage,
    /// Bytes of the image so far.
    at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Volume,
    LastCommand,
    Trailer,
    Over,
}

impl<'a, F: Feed> SaveFeed<'a, F> {
    /// The image that `encoder` makes of what `feed` has, with a trailer or without.
    pub fn new(feed: F, encoder: ImageEncoder, seal: Option<Seal<'a>>) -> SaveFeed<'a, F> {
        SaveFeed {
            feed,
            encoder: if seal.is_some() { encoder.with_sums() } else { encoder },
            seal,
            stretch: AlignedBuf::new(BUFFER),
            range: ByteRange { pos: 0, len: 0 },
            taken: 0,
            stage: Stage::Volume,
            at: 0,
        }
    }

    /// Fills some of `room`; none at the image's end.
    fn fill(&mut self, room: &mut [u8]) -> Result<usize, CopyError> {
        let len = self.range.len as usize;
        match self.stage {
            Stage::Volume if self.taken < len => {
                let rest = self.stretch.bytes().get(self.taken..len).unwrap_or_default();
                let encoded = self.encoder.put(self.range.pos + self.taken as u64, rest, room);
                self.taken += encoded.taken;
                return Ok(encoded.filled);
            }
            Stage::Volume => match self.feed.next(self.stretch.bytes_mut())? {
                Some(range) if range.pos < self.encoder.pos() => {
                    let (target, pos) = ("an image".into(), range.pos);
                    return Err(WriteError::Order { target, pos, at: self.encoder.pos() }.into());
                }
                Some(range) => (self.range, self.taken) = (range, 0),
                None => {
                    self.encoder.finish();
                    self.stage = Stage::LastCommand;
                }
            },
            Stage::LastCommand if self.encoder.is_sent() => {
                if let Some(Seal { origin, marks }) = self.seal {
                    let marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
                    self.encoder.seal(origin, &marks);
                }
                self.stage = Stage::Trailer;
            }
            Stage::Trailer if self.encoder.is_sent() => self.stage = Stage::Over,
            Stage::LastCommand | Stage::Trailer => return Ok(self.encoder.drain(room)),
            Stage::Over => {}
        }
        Ok(0)
    }
}

impl<F: Feed> Feed for SaveFeed<'_, F> {
    /// All stretches but the last fill the buffer.
    fn next(&mut self, buf: &mut [u8]) -> Result<Option<ByteRange>, CopyError> {
        let mut filled = 0;
        while self.stage != Stage::Over
            && let Some(room) = buf.get_mut(filled..).filter(|room| !room.is_empty())
        {
            filled += self.fill(room)?;
        }
        let range = ByteRange { pos: self.at, len: filled as u64 };
        self.at = range.end();
        Ok(Some(range).filter(|range| range.len > 0))
    }
}
