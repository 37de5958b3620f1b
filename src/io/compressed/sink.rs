//! An image that is written compressed, from front to back.

use std::io;

use super::encode::{Compression, PIECE};
use super::ring::{Piece, Ring};
use super::seek_table::SeekTable;
use crate::io::{Sink, SyncWrite, WriteError};

/// Compresses what is put by a number of threads, and writes the frames in their order. Places in errors are those in
/// what is written.
pub struct CompressedSink<W> {
    out: W,
    name: String,
    ring: Ring,
    filling: Piece,
    free: Vec<Piece>,
    /// Bytes of content, and those of frames that are written.
    taken: u64,
    written: u64,
    /// LZ4 knows none.
    table: Option<SeekTable>,
}

impl<W: SyncWrite> CompressedSink<W> {
    /// Compresses about `len` bytes by so many threads, one at least; `name` is for messages.
    pub fn new(
        out: W,
        name: String,
        compression: Compression,
        nr_threads: usize,
        len: u64,
    ) -> Result<CompressedSink<W>, WriteError> {
        let failed = |cause| WriteError::Finish { what: "start to compress", target: name.clone(), cause };
        let (ring, mut free) = Ring::start(compression, nr_threads.max(1)).map_err(failed)?;
        let filling = free.pop().ok_or_else(|| failed(io::ErrorKind::OutOfMemory.into()))?;
        let nr_frames = usize::try_from(len.div_ceil(PIECE as u64)).unwrap_or(0);
        let table = matches!(compression, Compression::Zstd { .. }).then(|| SeekTable::with_room(nr_frames));
        Ok(CompressedSink { out, name, ring, filling, free, taken: 0, written: 0, table })
    }

    /// Has the piece compressed that was filled, and goes on with the next free one.
    fn submit(&mut self) -> Result<(), WriteError> {
        while let Some(piece) = self.ring.take_ready() {
            self.write_frame(piece)?;
        }
        if self.free.is_empty()
            && let Some(piece) = self.ring.take()
        {
            self.write_frame(piece)?;
        }
        let next = self.free.pop().ok_or_else(|| self.failed(io::ErrorKind::OutOfMemory.into()))?;
        self.ring.put(std::mem::replace(&mut self.filling, next));
        Ok(())
    }

    fn write_frame(&mut self, mut piece: Piece) -> Result<(), WriteError> {
        std::mem::replace(&mut piece.encoded, Ok(())).map_err(|cause| self.failed(cause))?;
        self.write(&piece.frame)?;
        let [frame, content] = [&piece.frame, &piece.content].map(|bytes| u32::try_from(bytes.len()));
        if let (Some(table), Ok(frame), Ok(content)) = (&mut self.table, frame, content) {
            table.push(frame, content);
        }
        piece.content.clear();
        self.free.push(piece);
        Ok(())
    }

    fn failed(&self, cause: io::Error) -> WriteError {
        WriteError::Finish { what: "compress for", target: self.name.clone(), cause }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.out.write_all(bytes).map_err(|cause| WriteError::Write {
            target: self.name.clone(),
            pos: self.written,
            len: bytes.len(),
            cause,
        })?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

impl<W: SyncWrite> Sink for CompressedSink<W> {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        if pos != self.taken {
            return Err(WriteError::Order { target: self.name.clone(), pos, at: self.taken });
        }
        let mut rest = data;
        while !rest.is_empty() {
            let content = &mut self.filling.content;
            let (now, later) = rest.split_at((PIECE - content.len()).min(rest.len()));
            content.extend_from_slice(now);
            rest = later;
            if content.len() == PIECE {
                self.submit()?;
            }
        }
        self.taken += data.len() as u64;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        if !self.filling.content.is_empty() {
            self.submit()?;
        }
        while let Some(piece) = self.ring.take() {
            self.write_frame(piece)?;
        }
        if let Some(table) = self.table.take().and_then(SeekTable::encode) {
            self.write(&table)?;
        }
        self.out.sync().map_err(|cause| WriteError::Finish { what: "sync", target: self.name.clone(), cause })
    }

    fn takes_any_order(&self) -> bool {
        false
    }
}
