//! Feeding the pump with a volume's metadata, in the order of the clusters and wiped before it goes on.
//!
//! A record or block is wiped as one, also where it lies in several runs: then it is put together, wiped, and the part
//! that lies in the run at hand goes on. It is read again for a part that comes much later.

use super::{CopyError, Damage, Feed, Reader};
use crate::event::{Event, Observer};
use crate::extent::ByteRange;
use crate::ntfs::boot::{BOOT_SECTOR_LEN, BootSector};
use crate::ntfs::metadata::{Content, Metadata, Piece, Stream};
use crate::ntfs::record::Fault;
use crate::ntfs::wipe::{self, Wiped, Wiping, index, log};
use crate::ntfs::{NtfsInfo, Tolerance, mft_no};
use crate::units::Geometry;

/// Bytes of the smallest read of any source.
const SMALLEST_READ: usize = 512;

/// The metadata of a volume, wiped.
pub struct MetadataFeed<'a> {
    reader: Reader<'a>,
    metadata: &'a Metadata,
    geometry: Geometry,
    /// Bytes in a sector of the volume.
    sector_size: u32,
    tolerance: Tolerance,
    observer: &'a dyn Observer,
    wiper: Wiper,
    /// What is read next: a piece, and the byte of the volume. Behind the last piece comes the extra cluster.
    piece: usize,
    pos: u64,
    /// A unit that was put together from several runs and wiped, and which one that is.
    unit: Vec<u8>,
    assembled: Option<Assembled>,
    /// What could not be read of the bytes at hand; the first byte is 0 there.
    lost: Vec<ByteRange>,
    nr_damaged: u64,
}

/// A unit of a stream.
struct Assembled {
    /// Number of the stream.
    stream: u32,
    /// Its first byte there.
    offset: u64,
    /// What was lost and wiped in it has been counted.
    is_counted: bool,
}

/// Wipes units, and counts.
struct Wiper {
    wiping: Wiping,
    wiped: Wiped,
    /// What is wiped a second time, or in the second copy of a record: it does not count.
    again: bool,
    uncounted: Wiped,
    scratch: Vec<u8>,
}

impl<'a> MetadataFeed<'a> {
    /// Reads and wipes `metadata`. Of what is torn or makes no sense only what lies before the damage goes on, the rest
    /// is zeros; where `tolerance` does not cover that, it ends the copy.
    pub fn new(
        reader: Reader<'a>,
        metadata: &'a Metadata,
        info: &NtfsInfo,
        wiping: Wiping,
        tolerance: Tolerance,
        observer: &'a dyn Observer,
    ) -> MetadataFeed<'a> {
        let largest = metadata.streams().iter().map(|stream| stream.unit as usize).max().unwrap_or(0);
        let wiper = Wiper {
            wiping,
            wiped: Wiped::default(),
            again: false,
            uncounted: Wiped::default(),
            scratch: vec![0; largest],
        };
        MetadataFeed {
            reader,
            metadata,
            geometry: info.geometry,
            sector_size: info.sector_size,
            tolerance,
            observer,
            wiper,
            piece: 0,
            pos: 0,
            unit: vec![0; largest],
            assembled: None,
            lost: Vec::with_capacity(super::BUFFER.max(largest) / SMALLEST_READ),
            nr_damaged: 0,
        }
    }

    /// Bytes that could not be read and are marked.
    pub fn lost(&self) -> u64 {
        self.reader.lost()
    }

    /// Structures that could not be wiped as what they should be; MFT records are not among them, the scan counts those.
    pub fn nr_damaged(&self) -> u64 {
        self.nr_damaged
    }

    /// What was wiped.
    pub fn wiped(&self) -> Wiped {
        self.wiper.wiped
    }

    /// The next bytes of a piece, and of those right behind it.
    fn next_of(&mut self, piece: &Piece, stream: &Stream, buf: &mut [u8]) -> Result<ByteRange, CopyError> {
        let parts = Parts {
            metadata: self.metadata,
            geometry: self.geometry,
            piece: self.piece,
            pos: self.pos,
            room: buf.len() as u64,
        };
        let is_kept = |part: &Part<'_>| part.stream.content != Content::Zeros;
        let together = parts.clone().take_while(is_kept).map(|part| part.len).sum();
        let mut range = ByteRange { pos: self.pos, len: together };
        self.lost.clear();
        if together > 0 {
            let data = buf.get_mut(..together as usize).unwrap_or_default();
            self.read(range, 0, data)?;
            let mut rest = &mut *data;
            let mut pos = range.pos;
            for Part { stream, offset, len } in parts.take_while(is_kept) {
                let (now, later) = rest.split_at_mut(len as usize);
                self.wipe(stream, offset, pos, now)?;
                pos += len;
                rest = later;
            }
            self.mark_lost(range.pos, data);
            return Ok(range);
        }
        if let Some(part) = parts.clone().next() {
            range.len = part.len;
            buf.get_mut(..part.len as usize).unwrap_or_default().fill(0);
            return Ok(range);
        }
        let offset = parts.offset_in(piece);
        let unit = u64::from(stream.unit);
        let into_unit = offset % unit;
        let len = parts.left_of(piece).min(buf.len() as u64).min(unit - into_unit);
        self.assemble(piece.stream, stream, offset - into_unit)?;
        let part = self.unit.get(into_unit as usize..(into_unit + len) as usize).unwrap_or_default();
        buf.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        Ok(ByteRange { pos: self.pos, len })
    }

    /// Reads a stretch of the volume into `data`, whose first byte is byte `at` of the bytes at hand.
    fn read(&mut self, range: ByteRange, at: u64, data: &mut [u8]) -> Result<(), CopyError> {
        let mut engine = self.reader.engine(std::iter::once(range));
        let mut filled = 0;
        while let Some(rest) = data.get_mut(filled..) {
            let Some((range, is_lost)) = self.reader.next(&mut engine, rest)? else { break };
            if is_lost {
                self.lost.push(ByteRange { pos: at + filled as u64, len: range.len });
            }
            filled += range.len as usize;
        }
        Ok(())
    }

    /// Puts the unit at this byte of the stream together through all runs that it lies in, and wipes it. What is lost or
    /// wiped counts once, with the run that the unit begins in.
    fn assemble(&mut self, nr: u32, stream: &Stream, offset: u64) -> Result<(), CopyError> {
        let mut places = stream.places(&self.geometry, offset, stream.unit.into());
        let (_, first) = places.next().unwrap_or((0, ByteRange { pos: self.pos, len: 0 }));
        let is_first = (first.pos..first.end()).contains(&self.pos);
        let same = |unit: &&Assembled| (unit.stream, unit.offset) == (nr, offset);
        let at_hand = self.assembled.as_ref().filter(same);
        if at_hand.is_some_and(|unit| unit.is_counted || !is_first) {
            return Ok(());
        }
        self.assembled = Some(Assembled { stream: nr, offset, is_counted: is_first });
        let mut whole = std::mem::take(&mut self.unit);
        whole.fill(0);
        self.lost.clear();
        let is_again = !is_first;
        self.reader.set_again(is_again);
        self.wiper.again = is_again;
        let mut filled = 0;
        let mut outcome = Ok(());
        for (at, place) in stream.places(&self.geometry, offset, stream.unit.into()) {
            let data = whole.get_mut(at as usize..(at + place.len) as usize).unwrap_or_default();
            outcome = outcome.and_then(|()| self.read(place, at, data));
            filled = filled.max((at + place.len) as usize);
        }
        // Of a page of the log, only some of whose clusters are copied, the unit can be a part.
        let data = whole.get_mut(..filled).unwrap_or_default();
        outcome = outcome.and_then(|()| self.wipe(stream, offset, first.pos, data));
        self.mark_lost(first.pos, data);
        self.reader.set_again(false);
        self.wiper.again = false;
        self.unit = whole;
        outcome
    }

    /// Wipes whole units of a stream, from its byte `offset` on; `pos` is where they begin on the volume.
    fn wipe(&mut self, stream: &Stream, offset: u64, pos: u64, data: &mut [u8]) -> Result<(), CopyError> {
        let unit = stream.unit as usize;
        if stream.content == Content::Plain {
            self.wipe_claimed_twice(pos, data);
        }
        for (nr, bytes) in (0..).zip(data.chunks_mut(unit)) {
            let before = nr * unit as u64;
            if let Err(fault) = self.wiper.wipe(stream, offset + before, bytes) {
                let pos = pos + before;
                let damage = Damage { what: "index block", mft_no: stream.mft_no, pos, fault };
                if !self.tolerance.damage {
                    return Err(damage.into());
                }
                if self.wiper.again {
                    continue;
                }
                self.observer.tell(Event::Warning(format_args!("{damage}")));
                self.nr_damaged += 1;
            }
        }
        Ok(())
    }

    /// Wipes the clusters in these bytes of the volume that may as well be a file's.
    fn wipe_claimed_twice(&mut self, pos: u64, data: &mut [u8]) {
        let cluster_size = self.geometry.cluster_size as usize;
        let mut at = 0;
        while let Some(rest) = data.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let pos = pos + at as u64;
            let len = (cluster_size - pos as usize % cluster_size).min(rest.len());
            if self.metadata.is_claimed_twice(pos / cluster_size as u64) {
                self.wiper.wiped.values += wipe::zero(rest.get_mut(..len).unwrap_or_default());
            }
            at += len;
        }
    }

    /// The next bytes of the cluster behind the last one: of that only the backup boot sector goes on.
    fn next_of_extra(&mut self, buf: &mut [u8]) -> Result<Option<ByteRange>, CopyError> {
        let start = self.geometry.pos(self.geometry.extra_lcn());
        self.pos = self.pos.max(start);
        let len = (self.geometry.written_end() - self.pos).min(buf.len() as u64);
        if len == 0 {
            return Ok(None);
        }
        let range = ByteRange { pos: self.pos, len };
        let data = buf.get_mut(..len as usize).unwrap_or_default();
        self.lost.clear();
        self.read(range, 0, data)?;
        let sector_size = self.sector_size as usize;
        let backup = BootSector::find_backup(self.pos, data);
        let backup = backup.map_or(0..0, |at| at..at + sector_size.max(BOOT_SECTOR_LEN));
        self.wiper.wiped.values += wipe::zero(data.get_mut(..backup.start).unwrap_or_default());
        self.wiper.wiped.values += wipe::zero(data.get_mut(backup.end..).unwrap_or_default());
        self.mark_lost(self.pos, data);
        self.pos = range.end();
        Ok(Some(range))
    }

    /// What could not be read keeps its mark.
    fn mark_lost(&self, pos: u64, data: &mut [u8]) {
        for lost in &self.lost {
            let bytes = data.get_mut(lost.pos as usize..lost.end() as usize).unwrap_or_default();
            self.reader.mark(ByteRange { pos: pos + lost.pos, len: lost.len }, bytes);
        }
    }
}

/// What lies side by side on the volume: of each piece, from byte `pos` on, the whole units, up to the first piece that
/// does not end with one or does not begin right behind the one before.
#[derive(Clone)]
struct Parts<'a> {
    metadata: &'a Metadata,
    geometry: Geometry,
    piece: usize,
    pos: u64,
    /// Bytes that there is room for.
    room: u64,
}

/// Whole units of a stream, from its byte `offset` on.
struct Part<'a> {
    stream: &'a Stream,
    offset: u64,
    len: u64,
}

impl Parts<'_> {
    /// Where in the stream byte `pos` is.
    fn offset_in(&self, piece: &Piece) -> u64 {
        piece.vcn.0 * u64::from(self.geometry.cluster_size) + (self.pos - self.geometry.pos(piece.lcn))
    }

    /// Bytes of the piece from byte `pos` on.
    fn left_of(&self, piece: &Piece) -> u64 {
        self.geometry.pos(piece.lcn) + piece.len * u64::from(self.geometry.cluster_size) - self.pos
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let piece = self.metadata.pieces().get(self.piece)?;
        let start = self.geometry.pos(piece.lcn);
        let end = start + piece.len * u64::from(self.geometry.cluster_size);
        if !(start..end).contains(&self.pos) {
            return None;
        }
        let stream = self.metadata.stream_of(piece)?;
        let (offset, left, unit) = (self.offset_in(piece), self.left_of(piece), u64::from(stream.unit));
        let len = left.min(self.room) / unit * unit;
        if len == 0 || !offset.is_multiple_of(unit) {
            return None;
        }
        self.room -= len;
        self.pos += len;
        if len == left {
            self.piece += 1;
        } else {
            self.room = 0;
        }
        Some(Part { stream, offset, len })
    }
}

impl Wiper {
    /// Wipes one unit of a stream, which begins at its byte `offset`.
    fn wipe(&mut self, stream: &Stream, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let Wiper { wiping, wiped, again, uncounted, scratch } = self;
        let is_copy = stream.content == Content::Records && stream.mft_no != mft_no::MFT;
        let wiped = if *again || is_copy { uncounted } else { wiped };
        let within = usize::try_from(stream.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        match stream.content {
            Content::Zeros => bytes.fill(0),
            Content::Plain => {}
            Content::Records if within < bytes.len() => wiped.deleted += wipe::zero(bytes),
            Content::Records => {
                let record = offset / u64::from(stream.unit);
                let scratch = scratch.get_mut(..bytes.len()).unwrap_or_default();
                // The scan has told of those that belong to a file.
                let _fault = wipe::wipe_record(bytes, record, *wiping, scratch, wiped);
            }
            Content::Blocks(kind) if within >= bytes.len() && stream.is_in_use(offset) => {
                return index::wipe_block(bytes, kind, *wiping, wiped);
            }
            Content::Blocks(_) => wiped.index += wipe::zero(bytes),
            Content::Log => log::wipe_page(bytes, wiped),
            Content::Value(private) => {
                let value = bytes.get_mut(..within.min(bytes.len())).unwrap_or_default();
                private.wipe(value, wiped);
            }
        }
        if within < bytes.len() {
            wiped.values += wipe::zero(bytes.get_mut(within..).unwrap_or_default());
        }
        Ok(())
    }
}

impl Feed for MetadataFeed<'_> {
    fn next(&mut self, buf: &mut [u8]) -> Result<Option<ByteRange>, CopyError> {
        let metadata = self.metadata;
        while let Some(piece) = metadata.pieces().get(self.piece) {
            let start = self.geometry.pos(piece.lcn);
            let end = start + piece.len * u64::from(self.geometry.cluster_size);
            // Where pieces overlap, each cluster goes on once.
            self.pos = self.pos.max(start);
            if let Some(stream) = metadata.stream_of(piece).filter(|_| self.pos < end) {
                let range = self.next_of(piece, stream, buf)?;
                self.pos = range.end();
                return Ok(Some(range));
            }
            self.piece += 1;
        }
        self.next_of_extra(buf)
    }
}
