//! What was rescued already, as a source.

use std::io;

use crate::extent::ByteRange;
use crate::io::{PlacedSink, ReadError, Source};
use crate::rescue::{Areas, State};

/// What was rescued of a volume, read back from the target; all else cannot be read.
pub struct TargetSource<'a> {
    /// Where it is.
    pub sink: &'a dyn PlacedSink,
    /// What of it is finished.
    pub areas: &'a Areas,
    /// What is there from elsewhere.
    pub repaired: &'a [ByteRange],
    /// Bytes of the source.
    pub len: u64,
}

impl TargetSource<'_> {
    fn is_here(&self, range: ByteRange) -> bool {
        let is_within =
            |part: ByteRange, whole: &ByteRange| whole.pos <= part.pos && part.end() <= whole.end();
        self.areas.within(range).all(|area| {
            area.state == State::Finished
                || self.repaired.iter().any(|repaired| is_within(area.range, repaired))
        })
    }
}

impl Source for TargetSource<'_> {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if !self.is_here(ByteRange { pos, len: buf.len() as u64 }) {
            let cause = io::Error::from_raw_os_error(nix::libc::EIO);
            return Err(ReadError { pos, len: buf.len(), cause });
        }
        self.sink.read_back(pos, buf)
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        512
    }
}
