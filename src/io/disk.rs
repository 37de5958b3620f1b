//! A [`Source`] on a block device or on a file that holds a volume.
//!
//! Devices are read with O_DIRECT: through the page cache one bad sector costs the page around it, and each
//! attempt asks the disk twice. Requests that are not aligned, as small metadata reads are, go through one
//! aligned buffer. Regular files are read through the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::buffer::{ALIGN, AlignedBuf};
use super::{ReadError, Source};
use crate::sys;

/// Bytes of the buffer for requests that are not aligned.
const BOUNCE: usize = 64 << 10;

/// Smallest read where the disk does not name one.
const FILE_SECTOR: u32 = 512;

/// An open block device or file.
#[derive(Debug)]
pub struct Disk {
    file: File,
    len: u64,
    sector_size: u32,
    physical_sector_size: u32,
    /// Present where reads must be aligned.
    bounce: Option<Mutex<AlignedBuf>>,
}

/// Why a source cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} '{}': {cause}", path.display())]
pub struct OpenError {
    what: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl Disk {
    /// Opens a block device or a regular file for reading.
    pub fn open(path: &Path) -> Result<Disk, OpenError> {
        let failed = |what| move |cause| OpenError { what, path: path.to_owned(), cause };
        let kind = std::fs::metadata(path).map_err(failed("open"))?.file_type();
        if kind.is_block_device() {
            return Disk::open_device(path).map_err(failed("open the device"));
        }
        if !kind.is_file() {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device");
            return Err(failed("read")(cause));
        }
        let file = File::open(path).map_err(failed("open"))?;
        Disk::of(file).map_err(failed("get the size of"))
    }

    fn open_device(path: &Path) -> io::Result<Disk> {
        let direct = OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECT).open(path);
        let file = match direct {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {
                log::warn!(
                    "{}: cannot be read past the page cache: a bad sector costs 4096 bytes",
                    path.display()
                );
                File::open(path)?
            }
            Err(error) => return Err(error),
        };
        let disk = Disk::of(file)?;
        log::debug!(
            "{}: {} bytes, sectors of {} bytes, {} on the medium",
            path.display(),
            disk.len,
            disk.sector_size,
            disk.physical_sector_size
        );
        Ok(disk)
    }

    /// A block device or regular file that is open for reading, a device past the page cache or not.
    pub fn of(file: File) -> io::Result<Disk> {
        let metadata = file.metadata()?;
        if !metadata.file_type().is_block_device() {
            let len = metadata.len();
            return Ok(Disk {
                file,
                len,
                sector_size: FILE_SECTOR,
                physical_sector_size: FILE_SECTOR,
                bounce: None,
            });
        }
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        let bounce = flags.contains(OFlag::O_DIRECT).then(|| Mutex::new(AlignedBuf::new(BOUNCE)));
        let len = sys::device_size(&file)?;
        let sector_size = sys::logical_sector_size(&file)?;
        let physical_sector_size = sys::physical_sector_size(&file).unwrap_or(sector_size);
        Ok(Disk { file, len, sector_size, physical_sector_size, bounce })
    }

    /// The open device or file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Is it a block device?
    pub fn is_device(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device())
    }

    /// One read as the system takes it.
    fn read_exact(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.file.read_exact_at(buf, pos).map_err(|cause| ReadError { pos, len: buf.len(), cause })
    }

    fn is_aligned(&self, pos: u64, buf: &[u8]) -> bool {
        pos.is_multiple_of(self.sector_size.into())
            && buf.len().is_multiple_of(self.sector_size as usize)
            && buf.as_ptr().addr().is_multiple_of(ALIGN.min(self.sector_size as usize))
    }
}

impl Source for Disk {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let Some(bounce) = self.bounce.as_ref().filter(|_| !self.is_aligned(pos, buf)) else {
            return self.read_exact(pos, buf);
        };
        // A poisoned buffer is only a buffer whose last content nobody wants.
        let mut bounce = bounce.lock().unwrap_or_else(PoisonError::into_inner);
        let sector = u64::from(self.sector_size);
        let mut at = pos;
        let mut rest = buf;
        while !rest.is_empty() {
            let start = at / sector * sector;
            let skip = (at - start) as usize;
            let end = (at + rest.len() as u64).next_multiple_of(sector).min(start + BOUNCE as u64);
            let window = bounce.bytes_mut().get_mut(..(end - start) as usize).unwrap_or_default();
            self.read_exact(start, window)?;
            let n = rest.len().min(window.len() - skip);
            let (now, later) = rest.split_at_mut(n);
            now.iter_mut().zip(window.iter().skip(skip)).for_each(|(to, from)| *to = *from);
            at += n as u64;
            rest = later;
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn physical_sector_size(&self) -> u32 {
        self.physical_sector_size
    }
}
