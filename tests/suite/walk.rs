//! What each byte of a volume's metadata is: in terms of NTFS and not of our parser, so that a test can ask why two
//! copies differ there.

use std::cell::RefCell;
use std::path::Path;

use crate::edit::{decode, put, u16_at, u32_at, u64_at};

/// What a byte of metadata is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Something that counts.
    Kept,
    /// The update sequence number of a record or block, also at the ends of its strides.
    SequenceNumber,
    /// An entry of an update sequence array: it holds what belongs at the end of a stride, wiped or not.
    Fixup,
    /// Of a record: behind what is in use, or between header and attributes.
    RecordSlack,
    /// Behind a name, a value or a list of runs, to a multiple of eight bytes.
    Padding,
    /// A record of no file.
    DeletedRecord,
    /// Where `$MFT` has clusters but no records yet.
    BehindMft,
    /// Behind the last entry of an index, or between its header and the first.
    IndexSlack,
    /// Between an index entry's key and its end, and behind the mark of the last.
    EntryPadding,
    /// A block of an index that its bitmap does not count.
    UnusedBlock,
    /// A time in a `$FILE_NAME`, a `$STANDARD_INFORMATION`, an index entry, a quota.
    Time,
    /// Contents of a small file.
    ResidentData,
    /// The value of an extended attribute, the data of a reparse point, an encryption key.
    PrivateValue,
    /// In clusters of an attribute that is private as a whole: ours are zeros without looking.
    NotRead,
    /// A page of `$LogFile`.
    Log,
    /// Behind the end of a stream, in its last cluster.
    BehindEnd,
    /// The cluster behind the last one, without the backup boot sector.
    Extra,
}

/// A stream of metadata in clusters.
struct Stream {
    mft_no: u64,
    kind: u64,
    name: Vec<u8>,
    size: u64,
    /// VCN, LCN, length.
    runs: Vec<(u64, u64, u64)>,
}

/// All metadata of a volume.
pub struct Walk {
    volume: Vec<u8>,
    sector_size: u64,
    cluster_size: u64,
    record_size: u64,
    nr_clusters: u64,
    backup: u64,
    streams: Vec<Stream>,
    /// Bitmaps of indexes: record, name, bits.
    bitmaps: Vec<(u64, Vec<u8>, Vec<u8>)>,
    /// The runs of all streams but contents of files: LCN, length, VCN, number of the stream; by LCN.
    pieces: Vec<(u64, u64, u64, usize)>,
    /// The record or block that was looked at last: stream, offset, bytes.
    last: RefCell<(usize, u64, Vec<u8>)>,
}

/// Is this data of a file, or of a stream that somebody added to one of NTFS's own?
fn is_users(mft_no: u64, name: &[u8]) -> bool {
    let name: String = name.iter().step_by(2).map(|byte| char::from(*byte)).collect();
    let own = [(6, "$SRAT"), (8, "$Bad"), (9, "$SDS"), (10, "$Info")];
    mft_no > 11 || !name.is_empty() && !own.contains(&(mft_no, &name))
}

/// One attribute: offset in its record, and its bytes.
type Attribute = (usize, Vec<u8>);

fn name_of(attribute: &[u8]) -> Vec<u8> {
    let at = u16_at(attribute, 10) as usize;
    attribute[at..at + 2 * usize::from(attribute[9])].to_vec()
}

fn attributes(record: &[u8]) -> Vec<Attribute> {
    let mut at = u16_at(record, 0x14) as usize;
    let mut all = Vec::new();
    while at + 8 <= record.len() && u32_at(record, at) != 0xffff_ffff {
        let len = u32_at(record, at + 4) as usize;
        if len < 24 || at + len > record.len() {
            break;
        }
        all.push((at, record[at..at + len].to_vec()));
        at += len;
    }
    all
}

/// A record or block with its fixups applied; none where it is torn or none.
pub fn fixed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let (usa, count) = (u16_at(&bytes, 4) as usize, u16_at(&bytes, 6) as usize);
    if !matches!(&bytes[..4], b"FILE" | b"INDX") || count != bytes.len() / 512 + 1 {
        return None;
    }
    for stride in 0..bytes.len() / 512 {
        let end = stride * 512 + 510;
        if bytes[end..end + 2] != bytes[usa..usa + 2] {
            return None;
        }
        let kept = bytes[usa + 2 * stride + 2..][..2].to_vec();
        put(&mut bytes, end, &kept);
    }
    Some(bytes)
}

impl Walk {
    pub fn new(path: &Path) -> Walk {
        let volume = std::fs::read(path).unwrap();
        let sector_size = u16_at(&volume, 11);
        let per_cluster = volume[13];
        let sectors =
            if per_cluster > 128 { 1 << (256 - u64::from(per_cluster)) } else { per_cluster.into() };
        let cluster_size = sector_size * sectors;
        let record = volume[0x40] as i8;
        let record_size = if record < 0 { 1 << -record } else { record as u64 * cluster_size };
        let total_sectors = u64_at(&volume, 0x28);
        let mft = Stream {
            mft_no: 0,
            kind: 0x80,
            name: Vec::new(),
            size: record_size * 16,
            runs: vec![(0, u64_at(&volume, 0x30), record_size.div_ceil(cluster_size))],
        };
        let mut walk = Walk {
            volume,
            sector_size,
            cluster_size,
            record_size,
            nr_clusters: total_sectors * sector_size / cluster_size,
            backup: total_sectors * sector_size,
            streams: vec![mft],
            bitmaps: Vec::new(),
            pieces: Vec::new(),
            last: RefCell::default(),
        };
        // The first run of $MFT leads to its extension records, those to the other runs.
        for _ in 0..3 {
            walk.gather();
        }
        let metadata = walk.streams.iter().enumerate();
        let metadata =
            metadata.filter(|(_, stream)| stream.kind != 0x80 || !is_users(stream.mft_no, &stream.name));
        let runs = metadata.flat_map(|(nr, stream)| stream.runs.iter().map(move |run| (nr, run)));
        walk.pieces = runs.map(|(nr, (vcn, lcn, len))| (*lcn, *len, *vcn, nr)).collect();
        walk.pieces.sort_unstable();
        walk
    }

    /// Gathers all streams anew, with `$MFT` as far as it is known.
    fn gather(&mut self) {
        let mft = &self.streams[0];
        let nr_records = mft.size / self.record_size;
        let mut streams: Vec<Stream> = Vec::new();
        let mut bitmaps = Vec::new();
        for mft_no in 0..nr_records {
            let Some(record) = self.read(mft, mft_no * self.record_size, self.record_size) else { continue };
            let Some(record) = fixed(&record).filter(|record| record[0x16] & 1 == 1) else { continue };
            let base = u64_at(&record, 0x20);
            let base = if base == 0 { mft_no } else { base & 0xffff_ffff_ffff };
            for (_, attribute) in attributes(&record) {
                let (kind, name) = (u32_at(&attribute, 0), name_of(&attribute));
                if attribute[8] == 0 {
                    if kind == 0xb0 {
                        let at = u16_at(&attribute, 20) as usize;
                        let bits = attribute[at..at + u32_at(&attribute, 16) as usize].to_vec();
                        bitmaps.push((base, name, bits));
                    }
                    continue;
                }
                let known = streams
                    .iter()
                    .position(|stream| (stream.mft_no, stream.kind, &stream.name) == (base, kind, &name));
                let known = known.unwrap_or_else(|| {
                    streams.push(Stream { mft_no: base, kind, name, size: u64::MAX, runs: Vec::new() });
                    streams.len() - 1
                });
                let lowest = u64_at(&attribute, 16);
                if lowest == 0 {
                    streams[known].size = u64_at(&attribute, 56).min(u64_at(&attribute, 48));
                }
                let mut vcn = lowest;
                for (len, lcn) in decode(&attribute[u16_at(&attribute, 32) as usize..]) {
                    if let Some(lcn) = lcn.filter(|lcn| *lcn < self.nr_clusters) {
                        streams[known].runs.push((vcn, lcn, len));
                    }
                    vcn += len;
                }
            }
        }
        let mft = streams.iter().position(|stream| (stream.mft_no, stream.kind) == (0, 0x80)).unwrap();
        streams.swap(0, mft);
        for stream in streams.iter().filter(|stream| stream.kind == 0xb0 && !stream.name.is_empty()) {
            let bits = self.read(stream, 0, stream.size).unwrap();
            bitmaps.push((stream.mft_no, stream.name.clone(), bits));
        }
        (self.streams, self.bitmaps) = (streams, bitmaps);
    }

    /// Bytes of a stream, through its runs.
    fn read(&self, stream: &Stream, offset: u64, len: u64) -> Option<Vec<u8>> {
        (offset..offset + len)
            .map(|at| {
                let vcn = at / self.cluster_size;
                let run = stream.runs.iter().find(|(first, _, len)| (*first..first + len).contains(&vcn))?;
                let pos = (run.1 + vcn - run.0) * self.cluster_size + at % self.cluster_size;
                self.volume.get(pos as usize).copied()
            })
            .collect()
    }

    /// The byte at `pos` of the volume.
    pub fn byte(&self, pos: u64) -> u8 {
        self.volume[pos as usize]
    }

    /// Is this a byte of `$MFTMirr`, whose records are copies?
    pub fn is_copy(&self, pos: u64) -> bool {
        let lcn = pos / self.cluster_size;
        let mut mirror = self.streams.iter().filter(|stream| (stream.mft_no, stream.kind) == (1, 0x80));
        mirror.any(|stream| stream.runs.iter().any(|(_, first, len)| (*first..first + len).contains(&lcn)))
    }

    /// What the byte at `pos` of the volume is; none where it is no metadata.
    pub fn what(&self, pos: u64) -> Option<What> {
        let lcn = pos / self.cluster_size;
        if lcn >= self.nr_clusters {
            let is_backup = (self.backup..self.backup + self.sector_size).contains(&pos);
            // With sectors of 256 bytes mkntfs puts the backup one sector before where it belongs.
            return Some(if is_backup && self.sector_size >= 512 { What::Kept } else { What::Extra });
        }
        let behind = self.pieces.partition_point(|(first, ..)| *first <= lcn);
        let (first, len, vcn, nr) = self.pieces[behind.checked_sub(1)?];
        let stream = Some(&self.streams[nr]).filter(|_| lcn < first + len)?;
        let offset = (vcn + lcn - first) * self.cluster_size + pos % self.cluster_size;
        Some(match (stream.mft_no, stream.kind) {
            (0 | 1, 0x80) => {
                let record = offset / self.record_size;
                if (record + 1) * self.record_size > stream.size {
                    return Some(What::BehindMft);
                }
                self.look_at(nr, record * self.record_size, self.record_size);
                what_in_record(&self.last.borrow().2, record, (offset % self.record_size) as usize)
            }
            (2, 0x80) => What::Log,
            (_, 0xa0) => self.what_in_block(nr, offset),
            (_, 0xc0 | 0xe0) => What::PrivateValue,
            (_, 0x100..) => What::NotRead,
            _ if offset >= stream.size => What::BehindEnd,
            _ => What::Kept,
        })
    }

    /// Reads a record or block, unless it is at hand.
    fn look_at(&self, nr: usize, offset: u64, len: u64) {
        let mut last = self.last.borrow_mut();
        if (last.0, last.1, last.2.len() as u64) != (nr, offset, len) {
            *last = (nr, offset, self.read(&self.streams[nr], offset, len).unwrap());
        }
    }

    fn what_in_block(&self, nr: usize, offset: u64) -> What {
        let stream = &self.streams[nr];
        let block_size = 4096;
        let block = offset / block_size;
        let bits =
            self.bitmaps.iter().find(|(mft_no, name, _)| (mft_no, name) == (&stream.mft_no, &stream.name));
        let (_, _, bits) = bits.unwrap();
        if bits.get(block as usize / 8).is_none_or(|byte| byte >> (block % 8) & 1 == 0) {
            return What::UnusedBlock;
        }
        self.look_at(nr, block * block_size, block_size);
        let at = (offset % block_size) as usize;
        match fixed(&self.last.borrow().2) {
            Some(bytes) => what_in_index(&bytes, 0x18, &stream.name, at),
            None => What::UnusedBlock,
        }
    }
}

/// What the byte at `at` of a record is, as it lies on disk.
fn what_in_record(bytes: &[u8], mft_no: u64, at: usize) -> What {
    let Some(record) = fixed(bytes) else { return What::DeletedRecord };
    let (usa, count) = (u16_at(&record, 4) as usize, u16_at(&record, 6) as usize);
    if at % 512 >= 510 || (usa..usa + 2).contains(&at) {
        return What::SequenceNumber;
    }
    if (usa..usa + 2 * count).contains(&at) {
        return What::Fixup;
    }
    if record[0x16] & 1 == 0 {
        return if at < usa { What::Kept } else { What::DeletedRecord };
    }
    let mut end = u16_at(&record, 0x14) as usize;
    if at < end {
        return if at < usa { What::Kept } else { What::RecordSlack };
    }
    for (start, attribute) in attributes(&record) {
        end = start + attribute.len();
        if at < end {
            return what_in_attribute(&attribute, mft_no, at - start);
        }
    }
    if at < end + 8 { What::Kept } else { What::RecordSlack }
}

fn what_in_attribute(attribute: &[u8], mft_no: u64, at: usize) -> What {
    let name = name_of(attribute);
    let name_at = u16_at(attribute, 10) as usize;
    let body_at = u16_at(attribute, if attribute[8] != 0 { 32 } else { 20 }) as usize;
    // Between name and body to a multiple of eight; without a name, behind the header.
    let gap = match name.len() {
        0 => (if attribute[8] != 0 { 72 } else { 24 })..body_at,
        len => name_at + len..body_at,
    };
    if gap.contains(&at) {
        return What::Padding;
    }
    if attribute[8] != 0 {
        let runs = u16_at(attribute, 32) as usize;
        let mut end = runs;
        while attribute[end] != 0 {
            end += 1 + usize::from(attribute[end] & 15) + usize::from(attribute[end] >> 4);
        }
        return if at > end { What::Padding } else { What::Kept };
    }
    let (len, start) = (u32_at(attribute, 16) as usize, u16_at(attribute, 20) as usize);
    if at < start {
        return What::Kept;
    }
    if at >= start + len {
        return What::Padding;
    }
    let within = at - start;
    match u32_at(attribute, 0) {
        0x10 if within < 32 => What::Time,
        0x40 if within >= 64 => What::PrivateValue,
        0x30 if (8..40).contains(&within) => What::Time,
        0x80 if is_users(mft_no, &name) => What::ResidentData,
        0x90 if within >= 16 => what_in_index(&attribute[start..start + len], 16, &name, within),
        0xc0 | 0xe0 | 0x100 | 0x1000 => What::PrivateValue,
        _ => What::Kept,
    }
}

/// What the byte at `at` of an index's root or block is; its header is at byte `header`.
fn what_in_index(index: &[u8], header: usize, name: &[u8], at: usize) -> What {
    let is_block = header == 0x18;
    let (usa, count) = (u16_at(index, 4) as usize, u16_at(index, 6) as usize);
    if is_block && (at % 512 >= 510 || (usa..usa + 2).contains(&at)) {
        return What::SequenceNumber;
    }
    if is_block && (usa..usa + 2 * count).contains(&at) {
        return What::Fixup;
    }
    if at < header + 16 {
        return What::Kept;
    }
    let mut entry = header + u32_at(index, header) as usize;
    if at < entry {
        return What::IndexSlack;
    }
    let used = header + u32_at(index, header + 4) as usize;
    while entry < used {
        let (len, flags) = (u16_at(index, entry + 8) as usize, u16_at(index, entry + 12));
        if at < entry + len {
            let within = at - entry;
            let key = if flags & 2 == 0 { u16_at(index, entry + 10) as usize } else { 0 };
            let body = len - if flags & 1 == 1 { 8 } else { 0 };
            let is_folder = name == b"$\0I\x003\x000\0";
            let data = u16_at(index, entry) as usize;
            let time = match flags & 2 == 0 {
                true if is_folder => 24..56,
                true if name == b"$\0Q\0" => data + 16..data + 24,
                _ => 0..0,
            };
            return if time.contains(&within) {
                What::Time
            } else if (16 + key..body).contains(&within) && (is_folder || flags & 2 == 2) {
                What::EntryPadding
            } else {
                What::Kept
            };
        }
        entry += len;
    }
    What::IndexSlack
}
