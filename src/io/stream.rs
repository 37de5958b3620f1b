//! Targets that can only be written from front to back, and one that is not written at all.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::direct::DirectFile;
use super::parts::Parts;
use super::{Sink, SyncWrite, WriteError};

/// Bytes from front to back: an image, or a raw clone into a pipe, whose gaps are written as zeros.
#[derive(Debug)]
pub struct StreamSink<W> {
    out: W,
    name: String,
    /// Bytes written.
    at: u64,
    /// Bytes that it has in the end at least.
    len: u64,
}

/// Zeros that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl<W: SyncWrite> StreamSink<W> {
    /// An image; `name` is for messages.
    pub fn image(out: W, name: String) -> StreamSink<W> {
        StreamSink::clone(out, name, 0)
    }

    /// A clone of `len` bytes; `name` is for messages.
    pub fn clone(out: W, name: String, len: u64) -> StreamSink<W> {
        StreamSink { out, name, at: 0, len }
    }

    fn write(&mut self, data: &[u8]) -> Result<(), WriteError> {
        self.out.write_all(data).map_err(|cause| WriteError::Write {
            target: self.name.clone(),
            pos: self.at,
            len: data.len(),
            cause,
        })?;
        self.at += data.len() as u64;
        Ok(())
    }

    fn fill_to(&mut self, end: u64) -> Result<(), WriteError> {
        while self.at < end {
            let n = usize::try_from(end - self.at).unwrap_or(usize::MAX);
            self.write(ZEROS.get(..n).unwrap_or(&ZEROS))?;
        }
        Ok(())
    }
}

impl<W: SyncWrite> Sink for StreamSink<W> {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        if pos < self.at {
            return Err(WriteError::Order { target: self.name.clone(), pos, at: self.at });
        }
        self.fill_to(pos)?;
        self.write(data)
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        self.fill_to(self.len)?;
        self.out.sync().map_err(|cause| WriteError::Finish { what: "sync", target: self.name.clone(), cause })
    }

    fn takes_any_order(&self) -> bool {
        false
    }
}

/// What takes an image from front to back. Standard output is one too, without the line buffer that std puts before it.
#[derive(Debug)]
pub enum Output {
    /// A file or device.
    File {
        /// Written from its first byte on.
        file: DirectFile,
        /// Bytes written.
        at: u64,
    },
    /// A pipe, a terminal, `/dev/null`, or whatever standard output is.
    Stream(File),
    /// In numbered parts.
    Parts(Parts),
}

impl Output {
    /// A file or device, written from its first byte on.
    pub fn file(file: File) -> Output {
        Output::File { file: file.into(), at: 0 }
    }

    /// A second descriptor of the process's standard output.
    pub fn stdout() -> io::Result<Output> {
        Ok(Output::Stream(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Output::File { file, at } => {
                file.write_all_at(data, *at)?;
                *at += data.len() as u64;
                Ok(data.len())
            }
            Output::Stream(file) => file.write(data),
            Output::Parts(parts) => parts.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::File { .. } => Ok(()),
            Output::Stream(file) => file.flush(),
            Output::Parts(parts) => parts.flush(),
        }
    }
}

impl SyncWrite for Output {
    /// Pipes, terminals and `/dev/null` have nothing to sync.
    fn sync(&mut self) -> io::Result<()> {
        match self {
            Output::File { file, .. } => file.file().sync_all(),
            Output::Stream(file) => match file.sync_all() {
                Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(()),
                other => other,
            },
            Output::Parts(parts) => parts.sync(),
        }
    }
}

/// Keeps nothing: what an image is checked with before anything is written. It objects where the real target
/// would.
#[derive(Debug)]
pub struct DrySink {
    name: String,
    any_order: bool,
    at: u64,
}

impl DrySink {
    /// Stands in for the target called `name`, which takes stretches in any order or does not.
    pub fn new(name: String, any_order: bool) -> DrySink {
        DrySink { name, any_order, at: 0 }
    }
}

impl Sink for DrySink {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        if pos < self.at && !self.any_order {
            return Err(WriteError::Order { target: self.name.clone(), pos, at: self.at });
        }
        self.at = pos + data.len() as u64;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        Ok(())
    }

    fn takes_any_order(&self) -> bool {
        self.any_order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl SyncWrite for &mut Vec<u8> {
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn gaps_and_the_end_are_zeros() {
        let mut out = Vec::new();
        let mut sink = StreamSink::clone(&mut out, "out".into(), 200_000);
        sink.put(100_000, b"abc").unwrap();
        sink.put(100_010, b"d").unwrap();
        let error = sink.put(50, b"x").unwrap_err().to_string();
        assert!(error.starts_with("out can only be written in order: byte 0x32"), "{error}");
        sink.finish().unwrap();
        let mut want = vec![0; 200_000];
        want[100_000..100_003].copy_from_slice(b"abc");
        want[100_010] = b'd';
        assert!(out == want);
    }
}
