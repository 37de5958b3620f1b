//! What a rescue reads from: the disk, through a process of its own, or what was rescued already.

use std::io;

use crate::extent::ByteRange;
use crate::io::disk::Disk;
use crate::io::identity::Attachment;
use crate::io::remote::{Ask, Remote};
use crate::io::tuning::Tuning;
use crate::io::{PlacedSink, ReadError, Source};
use crate::rescue::{Areas, State};

/// The source of a rescue.
pub struct Opened<'a>(Kind<'a>);

enum Kind<'a> {
    /// A device, which may hang, with settings that are put back afterwards.
    Device {
        remote: Remote<'a>,
        attached: Option<Attachment>,
        _tuning: Tuning,
    },
    File(Disk),
    /// A disk that has gone, of which this is known.
    Closed {
        len: u64,
        sector_size: u32,
    },
}

impl<'a> Opened<'a> {
    /// Gets a disk ready to be read.
    pub fn new(disk: Disk, ask: Ask<'a>) -> Opened<'a> {
        if !disk.is_device() {
            return Opened(Kind::File(disk));
        }
        let (tuning, attached) = (Tuning::apply(&disk), Attachment::of(&disk));
        Opened(Kind::Device { remote: Remote::start(disk, ask), attached, _tuning: tuning })
    }

    /// Lets go of a disk that has gone, so that it can come back under its name.
    pub fn close(&mut self) {
        let (len, sector_size) = (self.len(), self.sector_size());
        self.0 = Kind::Closed { len, sector_size };
    }

    fn disk(&self) -> Option<&dyn Source> {
        match &self.0 {
            Kind::Device { remote, .. } => Some(remote),
            Kind::File(disk) => Some(disk),
            Kind::Closed { .. } => None,
        }
    }
}

impl Source for Opened<'_> {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let len = buf.len();
        let gone = || ReadError { pos, len, cause: io::Error::from_raw_os_error(nix::libc::ENODEV) };
        let read = self.disk().ok_or_else(gone)?.read_at(pos, buf);
        match &self.0 {
            // From a SCSI disk that was unplugged comes what comes from a bad sector.
            Kind::Device { attached: Some(attached), .. } if read.is_err() && !attached.is_there() => {
                Err(gone())
            }
            _ => read,
        }
    }

    fn len(&self) -> u64 {
        match self.0 {
            Kind::Closed { len, .. } => len,
            _ => self.disk().map_or(0, Source::len),
        }
    }

    fn sector_size(&self) -> u32 {
        match self.0 {
            Kind::Closed { sector_size, .. } => sector_size,
            _ => self.disk().map_or(0, Source::sector_size),
        }
    }

    fn physical_sector_size(&self) -> u32 {
        self.disk().map_or(0, Source::physical_sector_size)
    }
}

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
