//! A buffer whose first byte lies on a page boundary, as O_DIRECT wants it.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_also_after_a_move() {
        let mut moved: Vec<AlignedBuf> = (0..9).map(|n| AlignedBuf::new(512 * n)).collect();
        for (n, buf) in moved.iter_mut().enumerate() {
            assert_eq!((buf.bytes().len(), buf.bytes_mut().len()), (512 * n, 512 * n));
            assert!(buf.bytes().as_ptr().addr().is_multiple_of(ALIGN));
        }
    }
}
