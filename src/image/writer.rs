//! An image as a [`Sink`]: stretches of a volume become commands.

use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::IntoBytes;

use super::sums::Sums;
use super::trailer::{Marks, Origin, Trailer};
use super::{DATA, DATA_OFFSET, Header, SKIP};
use crate::io::buffer::AlignedBuf;
use crate::io::{Sink, SyncWrite, WriteError};
use crate::units::Geometry;

/// Bytes that are collected before they are written: the commands between the clusters are tiny. All writes but the last
/// are so long and begin at a multiple of it, so that a file can take them past the page cache.
const BUFFER: usize = 1 << 20;

/// Writes an image, in order. Stretches may begin and end within a cluster, as long as they follow each other.
#[derive(Debug)]
pub struct ImageSink<W> {
    out: W,
    name: String,
    geometry: Geometry,
    buffer: AlignedBuf,
    /// Bytes in the buffer.
    filled: usize,
    /// Bytes of the image that were written already.
    written: u64,
    /// Clusters up to here have their command; the volume's bytes up to `pos` are in.
    next_lcn: u64,
    pos: u64,
    sealing: Option<Sealing>,
}

/// What the trailer will tell.
#[derive(Debug)]
struct Sealing {
    sums: Sums,
    origin: Origin,
    marks: Arc<Mutex<Marks>>,
}

impl<W: SyncWrite> ImageSink<W> {
    /// Begins an image of a volume of which `nr_used` clusters will be put; `name` is for messages.
    pub fn new(out: W, name: String, geometry: Geometry, nr_used: u64) -> ImageSink<W> {
        let mut buffer = AlignedBuf::new(BUFFER);
        let header = Header::of(&geometry, nr_used);
        let front = header.as_bytes().iter().chain(DATA_OFFSET.as_bytes());
        buffer.bytes_mut().iter_mut().zip(front).for_each(|(to, from)| *to = *from);
        let filled = DATA_OFFSET as usize;
        ImageSink { out, name, geometry, buffer, filled, written: 0, next_lcn: 0, pos: 0, sealing: None }
    }

    /// Ends the image with a trailer. `marks` are those that are there when it is finished.
    pub fn with_trailer(mut self, origin: Origin, marks: Arc<Mutex<Marks>>) -> ImageSink<W> {
        let mut sums = Sums::default();
        sums.set_header(self.collected());
        self.sealing = Some(Sealing { sums, origin, marks });
        self
    }

    /// What was not written yet.
    fn collected(&self) -> &[u8] {
        self.buffer.bytes().get(..self.filled).unwrap_or_default()
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let data = self.buffer.bytes().get(..self.filled).unwrap_or_default();
        if let Some(sealing) = &mut self.sealing {
            sealing.sums.update(data);
        }
        self.out.write_all(data).map_err(|cause| WriteError::Write {
            target: self.name.clone(),
            pos: self.written,
            len: data.len(),
            cause,
        })?;
        self.written += data.len() as u64;
        self.filled = 0;
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.filled == BUFFER {
                self.flush()?;
            }
            let (now, later) = rest.split_at(rest.len().min(BUFFER - self.filled));
            if let Some(to) = self.buffer.bytes_mut().get_mut(self.filled..self.filled + now.len()) {
                to.copy_from_slice(now);
            }
            self.filled += now.len();
            rest = later;
        }
        Ok(())
    }

    fn push_command(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if let Some(sealing) = &mut self.sealing {
            sealing.sums.add_command(bytes);
        }
        self.push(bytes)
    }

    /// Begins the next cluster with data, skipping those before it.
    fn begin_cluster(&mut self, lcn: u64) -> Result<(), WriteError> {
        if lcn > self.next_lcn {
            let count = (lcn - self.next_lcn).to_le_bytes();
            self.push_command(&[SKIP])?;
            self.push_command(&count)?;
        }
        self.push_command(&[DATA])?;
        self.next_lcn = lcn + 1;
        Ok(())
    }
}

impl<W: SyncWrite> Sink for ImageSink<W> {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        let cluster_size = u64::from(self.geometry.cluster_size);
        if pos < self.pos {
            return Err(WriteError::Order { target: self.name.clone(), pos, at: self.pos });
        }
        let mut at = pos;
        let mut rest = data;
        while !rest.is_empty() {
            let lcn = at / cluster_size;
            if lcn >= self.next_lcn {
                self.begin_cluster(lcn)?;
            }
            let left = ((lcn + 1) * cluster_size - at) as usize;
            let (now, later) = rest.split_at(rest.len().min(left));
            self.push(now)?;
            at += now.len() as u64;
            rest = later;
        }
        self.pos = at;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        // Where the device ends on the boundary the extra cluster has no bytes, but its command all the same.
        if self.next_lcn <= self.geometry.nr_clusters && self.geometry.extra_len() == 0 {
            self.begin_cluster(self.geometry.nr_clusters)?;
        }
        if let Some(Sealing { mut sums, origin, marks }) = self.sealing.take() {
            sums.update(self.collected());
            let marks = marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
            self.push(&Trailer { sums: sums.table(), origin: Some(origin), marks }.encode())?;
        }
        self.flush()?;
        self.out.sync().map_err(|cause| WriteError::Finish { what: "sync", target: self.name.clone(), cause })
    }

    fn takes_any_order(&self) -> bool {
        false
    }
}
