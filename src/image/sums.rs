//! The checksums of an image: bytes that follow each other become a CRC-32 of the header, of the command structure, and
//! of each stretch.
//!
//! How long an image gets need not be known: stretches are short at first, and two become one when there are too many.
//! So whoever counts the same bytes, in whatever pieces, comes to the same stretches.

use crc32fast::Hasher;

/// Most stretches: with four bytes for each the trailer stays under 32 KiB.
pub const MAX_STRETCHES: usize = 4096;

/// The shortest stretch is 2 to this many bytes: 1 MiB.
pub const MIN_SHIFT: u32 = 20;

/// How long the stretches of an image of so many bytes are: 2 to this many bytes.
pub fn shift_of(image_len: u64) -> u32 {
    let mut shift = MIN_SHIFT;
    while nr_stretches(image_len, shift) > MAX_STRETCHES as u64 {
        shift += 1;
    }
    shift
}

/// How many stretches of 2 to `shift` bytes, the last of which may be shorter, make an image.
pub fn nr_stretches(image_len: u64, shift: u32) -> u64 {
    image_len.div_ceil(1 << shift)
}

/// All checksums of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumTable {
    /// Bytes of the image, from 0 to the end of the commands.
    pub image_len: u64,
    /// Bytes of the header: all before the first command.
    pub header_len: u32,
    /// CRC-32 of the header.
    pub header: u32,
    /// CRC-32 of the command bytes and the counts of skips, in their order.
    pub structure: u32,
    /// A stretch has 2 to this many bytes, but for the last.
    pub shift: u32,
    /// CRC-32 of each stretch.
    pub stretches: Vec<u32>,
}

/// Sums an image that comes from its front to its end. Once made it allocates nothing.
#[derive(Clone, Debug)]
pub struct Sums {
    shift: u32,
    /// Of the stretches that are over.
    stretches: Vec<u32>,
    /// The stretch that is not, and its bytes so far.
    open: Hasher,
    open_len: u64,
    header_len: u32,
    header: u32,
    structure: Hasher,
}

impl Default for Sums {
    fn default() -> Sums {
        Sums {
            shift: MIN_SHIFT,
            stretches: Vec::with_capacity(MAX_STRETCHES),
            open: Hasher::new(),
            open_len: 0,
            header_len: 0,
            header: 0,
            structure: Hasher::new(),
        }
    }
}

impl Sums {
    /// Sums in stretches of 2 to `shift` bytes from the start, for an image that is known to have them.
    pub fn with_shift(shift: u32) -> Sums {
        Sums { shift: shift.max(MIN_SHIFT), ..Sums::default() }
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        ((self.stretches.len() as u64) << self.shift) + self.open_len
    }

    /// Did nothing come yet?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long stretches are now: 2 to this many bytes.
    pub fn shift(&self) -> u32 {
        self.shift
    }

    /// Of the stretches that are over: one is when a byte of the next has come.
    pub fn over(&self) -> &[u32] {
        &self.stretches
    }

    /// Takes the next bytes of the image, whatever they are.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = (1u64 << self.shift) - self.open_len;
            if left == 0 {
                self.close();
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            self.open.update(now);
            self.open_len += now.len() as u64;
            rest = later;
        }
    }

    /// Takes down the header, whose bytes come as all others.
    pub fn set_header(&mut self, bytes: &[u8]) {
        self.header_len = bytes.len() as u32;
        self.header = crc32fast::hash(bytes);
    }

    /// Takes down that all so far is the header. It is no longer than a stretch.
    pub fn end_header(&mut self) {
        self.header_len = self.open_len as u32;
        self.header = self.open.clone().finalize();
    }

    /// Takes the next bytes of commands once more: the command, and the count of a skip.
    pub fn add_command(&mut self, bytes: &[u8]) {
        self.structure.update(bytes);
    }

    /// Begins the next stretch. If there would be too many, each two become one.
    fn close(&mut self) {
        self.stretches.push(std::mem::take(&mut self.open).finalize());
        self.open_len = 0;
        if self.stretches.len() < MAX_STRETCHES {
            return;
        }
        let len = 1 << self.shift;
        for at in 0..MAX_STRETCHES / 2 {
            let of = |at: usize| self.stretches.get(at).copied().unwrap_or_default();
            let mut pair = Hasher::new_with_initial_len(of(2 * at), len);
            pair.combine(&Hasher::new_with_initial_len(of(2 * at + 1), len));
            if let Some(sum) = self.stretches.get_mut(at) {
                *sum = pair.finalize();
            }
        }
        self.stretches.truncate(MAX_STRETCHES / 2);
        self.shift += 1;
    }

    /// The checksums of all that came.
    pub fn table(&self) -> SumTable {
        let mut stretches = Vec::with_capacity(self.stretches.len() + 1);
        stretches.extend_from_slice(&self.stretches);
        if self.open_len > 0 {
            stretches.push(self.open.clone().finalize());
        }
        SumTable {
            image_len: self.len(),
            header_len: self.header_len,
            header: self.header,
            structure: self.structure.clone().finalize(),
            shift: self.shift,
            stretches,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn stretches_are_as_short_as_they_may_be() {
        let most = MAX_STRETCHES as u64;
        for (len, shift, nr) in [
            (0, 20, 0),
            (1, 20, 1),
            (MIB, 20, 1),
            (MIB + 1, 20, 2),
            (most * MIB, 20, most),
            (most * MIB + 1, 21, most / 2 + 1),
            (2 * most * MIB + 1, 22, most / 2 + 1),
            (i64::MAX as u64, 51, most),
        ] {
            assert_eq!((shift_of(len), nr_stretches(len, shift_of(len))), (shift, nr), "{len} bytes");
        }
    }

    #[test]
    fn pieces_make_no_difference() {
        let bytes: Vec<u8> = (0..3 * MIB + 7).map(|at| (at * 7 + at / 256) as u8).collect();
        let wanted: Vec<_> = bytes.chunks(MIB as usize).map(crc32fast::hash).collect();
        for piece in [1 << 12, 4097, MIB as usize, bytes.len()] {
            let mut sums = Sums::default();
            sums.update(&bytes[..56]);
            sums.end_header();
            bytes[56..].chunks(piece).for_each(|piece| sums.update(piece));
            sums.add_command(&[1]);
            sums.add_command(&[0, 9]);
            let table = sums.table();
            assert_eq!((table.image_len, table.shift), (bytes.len() as u64, 20));
            assert_eq!(table.stretches, wanted);
            assert_eq!((table.header_len, table.header), (56, crc32fast::hash(&bytes[..56])));
            assert_eq!(table.structure, crc32fast::hash(&[1, 0, 9]));
        }
    }

    #[test]
    fn too_many_become_half_as_many() {
        let zeros = vec![0; 64 << 20];
        let mut sums = Sums::default();
        let mut len = 0;
        while len < MAX_STRETCHES as u64 * MIB {
            sums.update(&zeros);
            len += zeros.len() as u64;
            assert_eq!((sums.len(), sums.shift()), (len, MIN_SHIFT));
        }
        sums.update(b"x");
        let table = sums.table();
        assert_eq!((table.image_len, table.shift), (len + 1, shift_of(len + 1)));
        assert_eq!(table.stretches.len(), MAX_STRETCHES / 2 + 1);
        let whole = crc32fast::hash(&zeros[..2 << 20]);
        assert!(table.stretches[..MAX_STRETCHES / 2].iter().all(|sum| *sum == whole));
        assert_eq!(table.stretches.last(), Some(&crc32fast::hash(b"x")));
        // Whoever knows it before comes to the same.
        let mut known = Sums::with_shift(21);
        zeros.chunks(4097).for_each(|piece| known.update(piece));
        assert_eq!(known.table().stretches[..], table.stretches[..32]);
    }
}
