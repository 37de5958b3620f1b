//! An open source: a healthy one as it is, a failing disk through a process of its own.

use std::io;

use crate::io::disk::Disk;
use crate::io::identity::Attachment;
use crate::io::remote::{Ask, Remote};
use crate::io::tuning::Tuning;
use crate::io::{Loss, ReadError, Source};

/// The source of a copy.
pub struct Opened<'a>(Kind<'a>);

enum Kind<'a> {
    /// A device, which may hang, with settings that are put back afterwards.
    Device { remote: Remote<'a>, attached: Option<Attachment>, _tuning: Tuning },
    /// A file, or a disk that is not known to fail.
    Here(Disk),
    /// A disk that has gone, of which this is known.
    Closed { len: u64, sector_size: u32 },
}

impl<'a> Opened<'a> {
    /// A disk that is read as it is, by this process.
    pub fn healthy(disk: Disk) -> Opened<'a> {
        Opened(Kind::Here(disk))
    }

    /// Gets a failing disk ready to be read.
    pub fn new(disk: Disk, ask: Ask<'a>) -> Opened<'a> {
        if !disk.is_device() {
            return Opened::healthy(disk);
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
            Kind::Here(disk) => Some(disk),
            Kind::Closed { .. } => None,
        }
    }
}

impl Source for Opened<'_> {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let len = buf.len();
        let gone = || ReadError { pos, len, cause: io::Error::from_raw_os_error(nix::libc::ENODEV) };
        self.disk().ok_or_else(gone)?.read_at(pos, buf).map_err(|error| match &self.0 {
            // A SCSI disk that was unplugged gives the same error as a bad sector.
            Kind::Device { attached: Some(attached), .. }
                if error.loss() == Loss::BadArea && !attached.is_there() =>
            {
                gone()
            }
            _ => error,
        })
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
