//! A buffer whose first byte lies on a page boundary, as O_DIRECT wants it, and a look at what is in one.

/// Boundary in bytes: a page, which covers every sector size there is (512 and 4096).
pub const ALIGN: usize = 4096;

/// Bytes that start on an [`ALIGN`] boundary. They stay there when the buffer is moved.
#[derive(Debug)]
pub struct AlignedBuf {
    store: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes.
    pub fn new(len: usize) -> AlignedBuf {
        let store = vec![0; len + ALIGN];
        let start = store.as_ptr().align_offset(ALIGN).min(ALIGN);
        AlignedBuf { store, start, len }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.store.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// The bytes, to be written to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.store.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

/// Are all of these bytes zero? Looked at 64 at a time: that is as fast as they come from memory.
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(64);
    chunks.by_ref().all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
        && chunks.remainder().iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_is_enough_not_to_be_zero() {
        let mut bytes = [0; 200];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in 0..bytes.len() {
            bytes[at] = 0x80;
            assert!(!is_zero(&bytes), "{at}");
            bytes[at] = 0;
        }
    }

    #[test]
    fn is_aligned_also_after_a_move() {
        let mut moved: Vec<AlignedBuf> = (0..9).map(|n| AlignedBuf::new(512 * n)).collect();
        for (n, buf) in moved.iter_mut().enumerate() {
            assert_eq!((buf.bytes().len(), buf.bytes_mut().len()), (512 * n, 512 * n));
            assert!(buf.bytes().as_ptr().addr().is_multiple_of(ALIGN));
        }
    }
}
