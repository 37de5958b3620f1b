//! Where bytes come from and where they go.
//!
//! A [`Source`] is positioned and shared, so that metadata and file data are read through the same door; a
//! [`Sink`] takes stretches of the volume. Files, block devices and pipes stand behind both. The small files beside them
//! go through a [`store::Store`]. What a read's error number means is decided here, once: [`ReadError::loss`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::extent::ByteRange;

pub mod ahead;
pub mod buffer;
pub mod compare;
pub mod compressed;
pub mod direct;
pub mod disk;
pub mod identity;
pub mod kept;
pub mod lock;
#[cfg(test)]
pub(crate) mod memory;
pub mod mounts;
pub mod parts;
pub mod raw;
pub mod remote;
pub mod stash;
pub mod store;
pub mod stream;
pub mod sysfs;
pub mod target;
pub mod tuning;

/// Something that can be read at any position: a disk, a partition, a file that holds one.
pub trait Source: Sync {
    /// Fills `buf` from byte `pos` on, or fails as a whole.
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError>;

    /// Length in bytes.
    fn len(&self) -> u64;

    /// Is there nothing to read?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the smallest read, and so of the least that a bad spot costs.
    fn sector_size(&self) -> u32;

    /// Bytes of a sector on the medium: what a medium error costs there, however small the read.
    fn physical_sector_size(&self) -> u32 {
        self.sector_size()
    }
}

/// A read that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {len} bytes at byte {pos:#x}: {cause}")]
pub struct ReadError {
    /// First byte of the read, from the source's start.
    pub pos: u64,
    /// Bytes wanted.
    pub len: usize,
    /// What the system said; an early end of file is [`io::ErrorKind::UnexpectedEof`], a wait that was given up
    /// [`io::ErrorKind::Interrupted`].
    pub cause: io::Error,
}

/// What a failed read means for the rest of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// This place cannot be read; others may.
    BadArea,
    /// The whole disk has gone.
    Gone,
    /// Whoever watches the job asked it to end while the disk did not answer. It says nothing about the disk.
    Stopped,
    /// Our own mistake or the system's: reading on would not help.
    Fault,
}

impl ReadError {
    /// Tells a bad spot from a disk that went away by the error number. Medium errors come as EIO from most
    /// drivers and as ENODATA from SCSI and NVMe; an unplugged disk gives ENXIO, ENODEV, ENOMEDIUM or reads
    /// nothing at all; EINVAL is a misaligned request of ours.
    pub fn loss(&self) -> Loss {
        use nix::libc;
        match self.cause.kind() {
            io::ErrorKind::UnexpectedEof => return Loss::Gone,
            // A read that a signal interrupts is begun again, so that it is never this.
            io::ErrorKind::Interrupted => return Loss::Stopped,
            _ => {}
        }
        match self.cause.raw_os_error() {
            Some(
                libc::EIO | libc::ENODATA | libc::EREMOTEIO | libc::EILSEQ | libc::ETIMEDOUT | libc::ENOLINK,
            ) => Loss::BadArea,
            Some(libc::ENXIO | libc::ENODEV | libc::ENOMEDIUM) => Loss::Gone,
            _ => Loss::Fault,
        }
    }
}

/// Something that takes the bytes of a volume. What is never put is a gap: a hole in a file, untouched on a
/// device, zeros in a pipe, a skip in an image.
pub trait Sink: Send {
    /// Takes the bytes at `pos` of the volume. A stretch never crosses the end of the last cluster; the extra
    /// cluster behind it comes as a stretch of its own.
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError>;

    /// Writes what was held back, then makes sure that all of it has reached the medium.
    fn finish(&mut self) -> Result<(), WriteError>;

    /// May stretches come in any order, and twice? If not, ascending only.
    fn takes_any_order(&self) -> bool;
}

/// A target in a file or on a device: it takes stretches in any order, and gives back what it has got.
pub trait PlacedSink: Sink + Sync {
    /// Fills `buf` with what was put at `pos` of the volume, now or in an earlier run. What was never put is not told
    /// apart.
    fn read_back(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError>;

    /// Makes sure that all that was put, but what is held back to the end, has reached the medium.
    fn sync(&mut self) -> Result<(), WriteError>;

    /// Adds what tells later whether all of it is whole, for which it is read back, if there is something to be added:
    /// when it is finished. `marked` are the stretches of the volume that hold marks. `goes_on` hears how many bytes were
    /// read, at first none, and says whether to go on; false if it did not.
    fn seal(
        &mut self,
        marked: &mut dyn Iterator<Item = ByteRange>,
        goes_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, WriteError> {
        let _nothing = (marked, goes_on);
        Ok(true)
    }

    /// Does a little of what can wait until there is nothing to put. Is there perhaps more?
    fn settle(&mut self) -> Result<bool, WriteError> {
        Ok(false)
    }

    /// Can these bytes have been put, now or in an earlier run? Not if the target ends before their place.
    fn holds(&self, range: ByteRange) -> bool {
        let place = range.len.checked_sub(1).map_or(0, |last| self.place_of(range.pos + last));
        place == 0 || place < self.end()
    }

    /// Where in the target the bytes at `pos` of the volume begin, with what must stand before them; 0 for what is held
    /// back to the end.
    fn place_of(&self, pos: u64) -> u64;

    /// Where the target ends now, in bytes; a device never does.
    fn end(&self) -> u64;

    /// Bytes of the finished target, before it is sealed.
    fn len(&self) -> u64;

    /// Is it empty when it is finished?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes that are read and written at any place: a file, a device, or an image in parts.
pub trait PlacedFile: Send + Sync + std::fmt::Debug {
    /// Fills `buf` from byte `at` on.
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes all of `data` from byte `at` on.
    fn write_all_at(&mut self, data: &[u8], at: u64) -> io::Result<()>;

    /// Makes sure that all of it has reached the medium.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Where it ends now, in bytes; a device never does.
    fn end(&self) -> u64;

    /// Takes away what is behind byte `end`, but not on a device. Was there anything?
    fn cut(&mut self, end: u64) -> io::Result<bool>;
}

impl PlacedFile for File {
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, at)
    }

    fn write_all_at(&mut self, data: &[u8], at: u64) -> io::Result<()> {
        FileExt::write_all_at(self, data, at)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn end(&self) -> u64 {
        end_of(self)
    }

    fn cut(&mut self, end: u64) -> io::Result<bool> {
        let metadata = self.metadata()?;
        let is_longer = metadata.is_file() && metadata.len() > end;
        if is_longer {
            self.set_len(end)?;
        }
        Ok(is_longer)
    }
}

/// The end of a target in a file; a device has no end that could be passed.
fn end_of(file: &File) -> u64 {
    match file.metadata() {
        Ok(metadata) if !metadata.is_file() => u64::MAX,
        metadata => metadata.map_or(0, |metadata| metadata.len()),
    }
}

/// Bytes from front to back, for what has a format of its own: an image.
pub trait SyncWrite: io::Write + Send {
    /// Makes sure that all of it has reached the medium.
    fn sync(&mut self) -> io::Result<()>;
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The system refused a write.
    #[error("cannot write {len} bytes at byte {pos:#x} of {target}: {cause}")]
    Write {
        /// Name of the target.
        target: String,
        /// First byte of the write, in the target.
        pos: u64,
        /// Bytes to be written.
        len: usize,
        /// What the system said.
        cause: io::Error,
    },
    /// The system could not promise that what was written has reached the medium.
    #[error("cannot {what} {target}: {cause}")]
    Finish {
        /// What was to be done: `sync`, `set the length of`, `rename`.
        what: &'static str,
        /// Name of the target.
        target: String,
        /// What the system said.
        cause: io::Error,
    },
    /// What was written cannot be read back.
    #[error("cannot read {target} back: {cause}")]
    ReadBack {
        /// Name of the target.
        target: String,
        /// The read that failed.
        cause: ReadError,
    },
    /// A target that can only be written in order was given an earlier place.
    #[error(
        "{target} can only be written in order: byte {pos:#x} comes after byte {at:#x}; restore to a file or device"
    )]
    Order {
        /// Name of the target.
        target: String,
        /// The place that was to be written.
        pos: u64,
        /// Where the target stands.
        at: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_tell_bad_spots_from_lost_disks() {
        let loss = |cause| ReadError { pos: 0, len: 512, cause }.loss();
        for errno in [5, 61, 121, 84, 110, 67] {
            assert_eq!(loss(io::Error::from_raw_os_error(errno)), Loss::BadArea, "errno {errno}");
        }
        for errno in [6, 19, 123] {
            assert_eq!(loss(io::Error::from_raw_os_error(errno)), Loss::Gone, "errno {errno}");
        }
        assert_eq!(loss(io::ErrorKind::UnexpectedEof.into()), Loss::Gone);
        assert_eq!(loss(io::ErrorKind::Interrupted.into()), Loss::Stopped);
        assert_eq!(loss(io::Error::from_raw_os_error(22)), Loss::Fault);
    }
}
