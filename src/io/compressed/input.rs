//! The compressed bytes: read once, counted, and looked at before they are taken.

use std::io::{self, BufRead, Read};

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// A buffer before a file or pipe that knows where it is.
pub(super) struct Input<R> {
    inner: R,
    buf: Vec<u8>,
    /// What of the buffer is not taken yet.
    start: usize,
    end: usize,
    /// Bytes taken.
    at: u64,
    /// Was more wanted than there is?
    is_exhausted: bool,
}

impl<R: Read> Input<R> {
    pub(super) fn new(inner: R) -> Input<R> {
        Input { inner, buf: vec![0; BUFFER], start: 0, end: 0, at: 0, is_exhausted: false }
    }

    /// Bytes taken so far.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Has a decoder run into the end of it?
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// The next bytes, without taking them: `len`, or fewer where there are no more.
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        if self.end - self.start < len {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end < len && self.read_more()? > 0 {}
        let there = self.buf.get(self.start..self.end).unwrap_or_default();
        Ok(there.get(..len).unwrap_or(there))
    }

    /// What is there next, without taking it; nothing only at the end.
    pub(super) fn buffered(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.read_more()?;
        }
        Ok(self.buf.get(self.start..self.end).unwrap_or_default())
    }

    /// Takes so many bytes away; false where there are fewer.
    pub(super) fn skip(&mut self, mut len: u64) -> io::Result<bool> {
        while len > 0 {
            let there = self.fill_buf()?.len();
            if there == 0 {
                return Ok(false);
            }
            let n = usize::try_from(len).unwrap_or(usize::MAX).min(there);
            self.consume(n);
            len -= n as u64;
        }
        Ok(true)
    }

    /// Reads behind what is in the buffer, which has room there.
    fn read_more(&mut self) -> io::Result<usize> {
        let room = self.buf.get_mut(self.end..).unwrap_or_default();
        let n = read_uninterrupted(&mut self.inner, room)?;
        self.end += n;
        Ok(n)
    }
}

/// Reads, and begins again where a signal came.
fn read_uninterrupted(inner: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match inner.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.is_exhausted |= self.buffered()?.is_empty();
        self.buffered()
    }

    fn consume(&mut self, n: usize) {
        let n = n.min(self.end - self.start);
        self.start += n;
        self.at += n as u64;
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // What fills the buffer by itself needs none.
        if self.start == self.end && buf.len() >= BUFFER {
            let n = read_uninterrupted(&mut self.inner, buf)?;
            self.at += n as u64;
            self.is_exhausted |= n == 0;
            return Ok(n);
        }
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = buf.len().min(1);
            self.0.read(buf.get_mut(..n).unwrap())
        }
    }

    #[test]
    fn what_is_looked_at_is_there_still() {
        let mut input = Input::new(Drops(b"abcdefgh"));
        assert_eq!(input.peek(3).unwrap(), b"abc");
        let mut two = [0; 2];
        input.read_exact(&mut two).unwrap();
        assert_eq!((&two, input.at()), (b"ab", 2));
        assert_eq!(input.peek(4).unwrap(), b"cdef");
        assert!(input.skip(5).unwrap());
        assert_eq!(input.peek(4).unwrap(), b"h");
        assert_eq!(input.at(), 7);
        assert!(!input.is_exhausted(), "looking is not wanting");
        assert!(!input.skip(2).unwrap());
        assert!(input.is_exhausted());
        assert_eq!(input.at(), 8);
    }
}
