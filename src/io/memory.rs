//! A disk in memory for tests, with sectors that cannot be read.

use super::{ReadError, Source};

/// Sectors have 512 bytes.
pub(crate) const SECTOR: usize = 512;

/// A disk.
pub(crate) struct Memory {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Sectors that cannot be read.
    pub bad: Vec<u64>,
    /// What reading them gives.
    pub errno: i32,
}

impl Memory {
    /// All zeros, all readable.
    pub(crate) fn new(nr_sectors: usize) -> Memory {
        Memory::of(vec![0; nr_sectors * SECTOR], &[])
    }

    /// These bytes, and these sectors with media errors.
    pub(crate) fn of(bytes: Vec<u8>, bad: &[u64]) -> Memory {
        Memory { bytes, bad: bad.to_vec(), errno: nix::libc::EIO }
    }
}

impl Source for Memory {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let failed =
            |errno| ReadError { pos, len: buf.len(), cause: std::io::Error::from_raw_os_error(errno) };
        if self.bad.iter().any(|bad| (pos..pos + buf.len() as u64).contains(&(bad * SECTOR as u64))) {
            return Err(failed(self.errno));
        }
        let from = self.bytes.get(pos as usize..pos as usize + buf.len());
        buf.copy_from_slice(from.ok_or_else(|| failed(nix::libc::EINVAL))?);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn sector_size(&self) -> u32 {
        SECTOR as u32
    }
}
