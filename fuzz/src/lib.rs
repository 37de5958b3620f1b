//! What fuzz targets and their seeds share: a tiny volume packed into few bytes, so that a fuzzer changes what matters.

use std::io;

use ntfsrescue::io::{ReadError, Source};

/// Bytes of a sector of a packed volume.
pub const SECTOR: usize = 512;

/// Most sectors of a packed volume: 4 MiB.
const MAX_SECTORS: usize = 8192;

/// Errors of the system, as numbers.
const EIO: i32 = 5;
const EINVAL: i32 = 22;

/// A volume in memory, some of whose sectors cannot be read.
pub struct Packed {
    bytes: Vec<u8>,
    bad: Vec<u64>,
}

impl Packed {
    /// Unpacks what [`pack`] has packed; where that makes no sense there is less of a volume. The form: the number of
    /// sectors (16 bits, little-endian), how many of them are bad (8 bits), the numbers of those (16 bits each), and then
    /// the number and the bytes of each sector that is not all zeros.
    pub fn unpack(input: &[u8]) -> Option<Packed> {
        let (head, rest) = input.split_at_checked(3)?;
        let nr_sectors = usize::from(u16::from_le_bytes([head[0], head[1]])).min(MAX_SECTORS);
        let (bad, rest) = rest.split_at_checked(2 * usize::from(head[2]))?;
        let number = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
        let bad = bad.chunks_exact(2).map(|bytes| number(bytes).into()).collect();
        let mut bytes = vec![0; nr_sectors * SECTOR];
        for sector in rest.chunks_exact(2 + SECTOR) {
            let (at, content) = sector.split_at(2);
            let start = usize::from(number(at)) * SECTOR;
            if let Some(to) = bytes.get_mut(start..start + SECTOR) {
                to.copy_from_slice(content);
            }
        }
        Some(Packed { bytes, bad })
    }
}

/// Packs these sectors of a volume, which have a number and [`SECTOR`] bytes each; `bad` cannot be read.
pub fn pack<'a>(nr_sectors: u16, bad: &[u16], sectors: impl Iterator<Item = (u16, &'a [u8])>) -> Vec<u8> {
    let mut packed = nr_sectors.to_le_bytes().to_vec();
    packed.push(bad.len() as u8);
    packed.extend(bad.iter().flat_map(|number| number.to_le_bytes()));
    for (number, bytes) in sectors {
        packed.extend(number.to_le_bytes());
        packed.extend(bytes);
    }
    packed
}

impl Source for Packed {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let len = buf.len();
        let failed = |errno| ReadError { pos, len, cause: io::Error::from_raw_os_error(errno) };
        let end = pos.checked_add(len as u64).ok_or_else(|| failed(EINVAL))?;
        let is_bad = |number: &u64| (pos..end).contains(&(number * SECTOR as u64));
        if self.bad.iter().any(is_bad) {
            return Err(failed(EIO));
        }
        let from = self.bytes.get(pos as usize..end as usize).ok_or_else(|| failed(EINVAL))?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn sector_size(&self) -> u32 {
        SECTOR as u32
    }
}

/// Fails unless this is one line that does no harm to a terminal.
pub fn assert_plain(message: &dyn std::fmt::Display) {
    let message = message.to_string();
    assert!(!message.is_empty() && !message.chars().any(char::is_control), "{message:?}");
}
