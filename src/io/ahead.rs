//! The ahead file: what is read before its place in the target can be written cheaply waits beside the target.
//!
//! vfat and exFAT have no holes. A write far behind a file's end fills all that lies between with zeros, and for that
//! time nobody reads the failing disk. So what lies farther ahead than the target's reach is appended to `FILE.ahead`
//! and put in place when the file has got there and nothing else is to be written, at the latest when the target is
//! finished. The file is made when it is needed and removed when nothing waits in it.
//!
//! It is a log: a head, then records, each with its place on the volume and a CRC; of two for the same place the later
//! one counts. A record without data says up to where the records before it are in place. All numbers are
//! little-endian.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use nix::sys::statfs::{FsType, MSDOS_SUPER_MAGIC, statfs};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use self::index::{Index, Piece};
use super::store::sync_folder_of;
use super::{PlacedSink, ReadError, Sink, WriteError};
use crate::extent::ByteRange;

mod index;
#[cfg(test)]
mod tests;

/// A NUL first, so that no text tool takes it for text.
const MAGIC: [u8; 16] = *b"\0ntfsrescueahead";

const VERSION: u32 = 1;

/// Most bytes of data in a record, and what is put in place at once: a block of a rescue.
const PIECE: u64 = 64 << 10;

/// Most runs of records: 16 MiB of memory. Beyond that the file system has to write its zeros.
const MAX_RUNS: usize = 1 << 18;

/// How far behind its end a file without holes takes bytes in bearable time: seconds of zeros.
const REACH: u64 = 64 << 20;

/// The `f_type` of exFAT, which nix does not have.
const EXFAT: u32 = 0x2011_bab0;

/// Only the owner may read it, as the target.
const MODE: u32 = 0o600;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FileHead {
    magic: [u8; 16],
    version: U32,
    /// Another in each file, so that records of an earlier one that turn up on reused clusters are not taken for its own.
    salt: U32,
    /// Bytes of the finished target.
    target_len: U64,
}

const FILE_HEAD_LEN: u64 = size_of::<FileHead>() as u64;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RecordHead {
    /// Where the data belongs on the volume. Without data: what the records before this one have below is in place.
    pos: U64,
    /// Bytes of data that follow, up to [`PIECE`].
    len: U32,
    /// CRC-32 of the file's salt, the record's place in the file, `pos`, `len` and the data.
    crc: U32,
}

const HEAD_LEN: u64 = size_of::<RecordHead>() as u64;

impl RecordHead {
    fn new(salt: u32, at: u64, pos: u64, data: &[u8]) -> RecordHead {
        let len = data.len() as u32;
        let mut crc = Hasher::new();
        crc.update(&salt.to_le_bytes());
        crc.update(&at.to_le_bytes());
        crc.update(&pos.to_le_bytes());
        crc.update(&len.to_le_bytes());
        crc.update(data);
        RecordHead { pos: pos.into(), len: len.into(), crc: crc.finalize().into() }
    }
}

/// What a file system does with long files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// How far behind its end a file takes bytes cheaply; none where holes make it all the same.
    pub reach: Option<u64>,
    /// Bytes of the longest file, where that is worth asking.
    pub longest: u64,
}

/// Looks at the file system that `path` is on.
pub fn features_of(path: &Path) -> io::Result<Features> {
    let kind = statfs(path)?.filesystem_type();
    let is_fat = kind == MSDOS_SUPER_MAGIC;
    let has_holes = !is_fat && kind != FsType(EXFAT.into());
    Ok(Features {
        reach: (!has_holes).then_some(REACH),
        longest: if is_fat { u32::MAX.into() } else { u64::MAX },
    })
}

/// Where and when bytes wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The ahead file.
    pub path: PathBuf,
    /// How far behind its end the target takes bytes.
    pub reach: u64,
    /// Most bytes of the ahead file. What finds no room in it is put in place at once, zeros or not.
    pub max_len: u64,
    /// Bytes of the volume: no record goes beyond.
    pub volume_len: u64,
}

/// What must not be taken for an ahead file that goes with its target.
#[derive(Debug, thiserror::Error)]
pub enum AheadError {
    /// The system refused something.
    #[error("cannot {what} '{}': {cause}", path.display())]
    System {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is something else.
    #[error("'{}' is in the way: it is not what an earlier run has read ahead", .0.display())]
    NotOurs(PathBuf),
    /// A later version has written it.
    #[error("'{}' has version {found}, wanted {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: u32,
    },
    /// It goes with another target.
    #[error("'{}' goes with a target of {found} bytes, wanted one of {wanted}", path.display())]
    OtherTarget {
        /// The file.
        path: PathBuf,
        /// What its head says.
        found: u64,
        /// What this target will have.
        wanted: u64,
    },
}

/// Records in a file.
#[derive(Debug)]
struct Log {
    file: File,
    salt: u32,
    /// Bytes of whole records and the head.
    len: u64,
    /// Was anything appended since it was synced?
    is_dirty: bool,
}

/// A target that is written in any order, on a file system without holes.
pub struct Ahead<'s> {
    inner: Box<dyn PlacedSink + 's>,
    limits: Limits,
    /// Present while something waits, and until that is known to be in place.
    log: Option<Log>,
    index: Index,
    /// Was anything put in place that the log does not know of?
    has_settled: bool,
    buffer: Vec<u8>,
}

impl<'s> Ahead<'s> {
    /// Puts an ahead file before a target. One that is there already is taken up, up to the first record that a kill
    /// has torn.
    pub fn new(inner: Box<dyn PlacedSink + 's>, limits: Limits) -> Result<Ahead<'s>, AheadError> {
        let mut index = Index::default();
        let log = take_up(&limits, inner.len(), &mut index)?;
        Ok(Ahead { inner, limits, log, index, has_settled: false, buffer: Vec::new() })
    }

    /// The first part of a stretch, of one kind: what waits, or else what is in place or nowhere.
    fn first_of(&self, range: ByteRange) -> (u64, Option<Piece>) {
        match self.index.next(range) {
            Some(piece) if piece.range.pos == range.pos => (piece.range.len, Some(piece)),
            Some(later) => (later.range.pos - range.pos, None),
            None => (range.len, None),
        }
    }

    fn is_within_reach(&self, range: ByteRange) -> bool {
        self.inner.place_of(range.pos).saturating_add(range.len)
            <= self.inner.end().saturating_add(self.limits.reach)
    }

    /// Keeps bytes for later; false where there is no room for them.
    fn keep(&mut self, range: ByteRange, data: &[u8]) -> Result<bool, WriteError> {
        let len = self.log.as_ref().map_or(FILE_HEAD_LEN, |log| log.len);
        if len + HEAD_LEN + range.len > self.limits.max_len || self.index.nr_runs() >= MAX_RUNS {
            return Ok(false);
        }
        let kept = match &mut self.log {
            Some(log) => log.append(range.pos, data, &mut self.buffer),
            log => Log::create(&self.limits.path, self.inner.len())
                .and_then(|new| log.insert(new).append(range.pos, data, &mut self.buffer)),
        };
        match kept {
            Ok(head) => {
                self.index.insert(range, head);
                Ok(true)
            }
            Err(error) if is_full(&error) => Ok(false),
            Err(cause) => Err(WriteError::Write {
                target: name_of(&self.limits.path),
                pos: len,
                len: data.len(),
                cause,
            }),
        }
    }

    /// Puts the first bytes of a stretch that wait in place; false where none do.
    fn settle_next(&mut self, range: ByteRange) -> Result<bool, WriteError> {
        let (Some(piece), Some(log)) = (self.index.next(range), &self.log) else { return Ok(false) };
        self.buffer.resize(piece.range.len as usize, 0);
        log.file.read_exact_at(&mut self.buffer, piece.at).map_err(|cause| WriteError::Finish {
            what: "read",
            target: name_of(&self.limits.path),
            cause,
        })?;
        self.inner.put(piece.range.pos, &self.buffer)?;
        self.index.remove(piece.range);
        self.has_settled = true;
        Ok(true)
    }

    /// Puts all that waits before byte `end` of the volume in place, from the front, so that zeros are written only where
    /// nothing else will be.
    fn settle_before(&mut self, end: u64) -> Result<(), WriteError> {
        while self.settle_next(ByteRange { pos: 0, len: end })? {}
        Ok(())
    }

    /// Tells the log what is in place, once that has reached the medium, and gives back its room where that lies at the
    /// end.
    fn release(&mut self) -> io::Result<()> {
        let (Some(log), Some(first)) = (&mut self.log, self.index.first()) else { return self.remove() };
        if let Some(last) = self.index.last_head() {
            log.cut_behind(last)?;
        }
        log.append(first, &[], &mut self.buffer)?;
        log.sync()
    }

    fn remove(&mut self) -> io::Result<()> {
        if self.log.take().is_some() {
            std::fs::remove_file(&self.limits.path)?;
            sync_folder_of(&self.limits.path)?;
        }
        Ok(())
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> WriteError + use<> {
        let target = name_of(&self.limits.path);
        move |cause| WriteError::Finish { what, target, cause }
    }
}

fn name_of(path: &Path) -> String {
    format!("'{}'", path.display())
}

/// Is it only that there is no room?
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | FileTooLarge | QuotaExceeded)
}

impl Sink for Ahead<'_> {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        let range = ByteRange { pos, len: data.len() as u64 };
        // What waits for the same place would be put over it later.
        if self.index.next(range).is_none() && self.is_within_reach(range) {
            return self.inner.put(pos, data);
        }
        for (pos, data) in (pos..).step_by(PIECE as usize).zip(data.chunks(PIECE as usize)) {
            let range = ByteRange { pos, len: data.len() as u64 };
            if self.keep(range, data)? {
                continue;
            }
            if self.index.next(range).is_some() {
                self.settle_before(range.end())?;
            }
            self.inner.put(pos, data)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        self.settle_before(u64::MAX)?;
        self.inner.finish()?;
        self.remove().map_err(self.failed("remove"))
    }

    fn takes_any_order(&self) -> bool {
        self.inner.takes_any_order()
    }
}

impl PlacedSink for Ahead<'_> {
    fn read_back(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let mut rest = buf;
        let mut at = pos;
        while !rest.is_empty() {
            let (len, waiting) = self.first_of(ByteRange { pos: at, len: rest.len() as u64 });
            let (now, later) = rest.split_at_mut(len as usize);
            match (waiting, &self.log) {
                (Some(piece), Some(log)) => {
                    let read = log.file.read_exact_at(now, piece.at);
                    read.map_err(|cause| ReadError { pos: at, len: now.len(), cause })?;
                }
                _ => self.inner.read_back(at, now)?,
            }
            at += len;
            rest = later;
        }
        Ok(())
    }

    fn holds(&self, range: ByteRange) -> bool {
        let mut rest = range;
        while rest.len > 0 {
            let (len, waiting) = self.first_of(rest);
            if waiting.is_none() && !self.inner.holds(ByteRange { pos: rest.pos, len }) {
                return false;
            }
            rest = ByteRange { pos: rest.pos + len, len: rest.len - len };
        }
        true
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        if let Some(log) = &mut self.log {
            log.sync().map_err(self.failed("sync"))?;
        }
        self.inner.sync()?;
        if self.has_settled {
            self.release().map_err(self.failed("shorten"))?;
            self.has_settled = false;
        }
        Ok(())
    }

    fn seal(
        &mut self,
        marked: &mut dyn Iterator<Item = ByteRange>,
        goes_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, WriteError> {
        self.inner.seal(marked, goes_on)
    }

    fn settle(&mut self) -> Result<bool, WriteError> {
        let all = ByteRange { pos: 0, len: u64::MAX };
        let next = self.index.next(all).filter(|piece| self.is_within_reach(piece.range));
        next.map_or(Ok(false), |piece| self.settle_next(piece.range))
    }

    fn place_of(&self, pos: u64) -> u64 {
        self.inner.place_of(pos)
    }

    fn end(&self) -> u64 {
        self.inner.end()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}

impl Log {
    /// Makes an empty one, whose name and head have reached the medium.
    fn create(path: &Path, target_len: u64) -> io::Result<Log> {
        let salt = getrandom::u32().map_err(|error| io::Error::other(error.to_string()))?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(path)?;
        let head = FileHead {
            magic: MAGIC,
            version: VERSION.into(),
            salt: salt.into(),
            target_len: target_len.into(),
        };
        let written = file
            .write_all_at(head.as_bytes(), 0)
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_folder_of(path));
        if let Err(error) = written {
            // The first error tells why; an empty file is none that anybody misses.
            let _removed = std::fs::remove_file(path);
            return Err(error);
        }
        Ok(Log { file, salt, len: FILE_HEAD_LEN, is_dirty: false })
    }

    /// Appends a record, and returns where its head is. After an error the log is as before.
    fn append(&mut self, pos: u64, data: &[u8], buffer: &mut Vec<u8>) -> io::Result<u64> {
        let at = self.len;
        buffer.clear();
        buffer.extend_from_slice(RecordHead::new(self.salt, at, pos, data).as_bytes());
        buffer.extend_from_slice(data);
        self.file.write_all_at(buffer, at)?;
        self.len += buffer.len() as u64;
        self.is_dirty = true;
        Ok(at)
    }

    /// Cuts off all behind the record whose head is there.
    fn cut_behind(&mut self, at: u64) -> io::Result<()> {
        let mut head = RecordHead::new_zeroed();
        self.file.read_exact_at(head.as_mut_bytes(), at)?;
        let end = at + HEAD_LEN + u64::from(head.len.get());
        if end < self.len {
            self.file.set_len(end)?;
            self.len = end;
            self.is_dirty = true;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.is_dirty {
            self.file.sync_data()?;
            self.is_dirty = false;
        }
        Ok(())
    }
}

/// Removes what an earlier run has read ahead for a target that is overwritten now, if there is anything.
pub fn discard(path: &Path) -> Result<(), AheadError> {
    let system = |what| move |cause| AheadError::System { what, path: path.into(), cause };
    match open(path).map_err(system("open"))? {
        None => return Ok(()),
        Some(file) if read_head(&file).map_err(system("read"))?.is_none_or(|head| head.magic == MAGIC) => {}
        Some(_) => return Err(AheadError::NotOurs(path.into())),
    }
    std::fs::remove_file(path).and_then(|()| sync_folder_of(path)).map_err(system("remove"))
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// The head of an ahead file; none where a kill came before it was written.
fn read_head(file: &File) -> io::Result<Option<FileHead>> {
    let mut head = FileHead::new_zeroed();
    match file.read_exact_at(head.as_mut_bytes(), 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok((head.as_bytes() != FileHead::new_zeroed().as_bytes()).then_some(head)),
    }
}

/// Opens the ahead file of a target of `target_len` bytes, if there is one, and enters what waits in it.
fn take_up(limits: &Limits, target_len: u64, index: &mut Index) -> Result<Option<Log>, AheadError> {
    let path = limits.path.as_path();
    let system = |what| move |cause| AheadError::System { what, path: path.to_owned(), cause };
    let Some(file) = open(path).map_err(system("open"))? else { return Ok(None) };
    let Some(head) = read_head(&file).map_err(system("read"))? else {
        std::fs::remove_file(path).map_err(system("remove"))?;
        return Ok(None);
    };
    if head.magic != MAGIC {
        return Err(AheadError::NotOurs(path.into()));
    }
    if head.version.get() != VERSION {
        return Err(AheadError::Version { path: path.into(), found: head.version.get() });
    }
    if head.target_len.get() != target_len {
        let found = head.target_len.get();
        return Err(AheadError::OtherTarget { path: path.into(), found, wanted: target_len });
    }
    let salt = head.salt.get();
    let len = scan(&file, salt, limits.volume_len, index).map_err(system("read"))?;
    // What is behind was not synced, so that no map knows of it.
    file.set_len(len).map_err(system("shorten"))?;
    Ok(Some(Log { file, salt, len, is_dirty: true }))
}

/// Enters the records of a file, and returns where the last whole one ends.
fn scan(file: &File, salt: u32, volume_len: u64, index: &mut Index) -> io::Result<u64> {
    let mut from = io::BufReader::with_capacity(1 << 20, file);
    let mut at = from.seek(SeekFrom::Start(FILE_HEAD_LEN))?;
    let mut data = Vec::new();
    loop {
        let mut head = RecordHead::new_zeroed();
        if !fill(&mut from, head.as_mut_bytes())? || u64::from(head.len.get()) > PIECE {
            return Ok(at);
        }
        let (pos, len) = (head.pos.get(), u64::from(head.len.get()));
        data.resize(len as usize, 0);
        let is_whole = fill(&mut from, &mut data)?
            && pos.checked_add(len).is_some_and(|end| end <= volume_len)
            && RecordHead::new(salt, at, pos, &data).crc == head.crc;
        if !is_whole {
            return Ok(at);
        }
        match len {
            0 => index.remove(ByteRange { pos: 0, len: pos }),
            _ => index.insert(ByteRange { pos, len }, at),
        }
        at += HEAD_LEN + len;
    }
}

/// Fills `buf`; false where the file ends before.
fn fill(from: &mut impl Read, buf: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buf) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}
