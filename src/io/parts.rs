//! An image in numbered parts, for file systems that take no long files: `NAME.001`, `NAME.002` and so on, all but the
//! last of one length, which make the image when they are put behind each other.
//!
//! An image whose name is given when it is whole gets it part by part, the first one last: where `NAME.001` is, all are.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::store::sync_folder_of;
use super::{PlacedFile, SyncWrite};

#[cfg(test)]
mod tests;

/// Most parts, by the three digits of their numbers.
pub const MAX_PARTS: u64 = 999;

/// Shortest parts, in bytes: what is written at once goes into two of them at most.
pub const SHORTEST: u64 = 1 << 20;

/// Ends the name of the first part.
const FIRST: &[u8] = b".001";

/// Only the owner may read an image, as any target.
const MODE: u32 = 0o600;

/// Why files are not the parts of an image.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// The system refused something.
    #[error("cannot {what} '{}': {cause}", path.display())]
    System {
        /// What was to be done.
        what: &'static str,
        /// The part.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A gap in the numbers.
    #[error("the part '{}' of the image is missing, but '{}' is there", missing.display(), later.display())]
    Missing {
        /// The part.
        missing: PathBuf,
        /// One behind it.
        later: PathBuf,
    },
    /// A part that is not the last must be as long as the first.
    #[error("the part '{}' of the image has {found} bytes, wanted {wanted}: it is damaged", path.display())]
    Length {
        /// The part.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// Bytes of the first.
        wanted: u64,
    },
    /// The parts of an earlier run have another length.
    #[error("the part '{}' has {found} bytes, but parts of {wanted} are asked for: give --split as before", path.display())]
    OtherSplit {
        /// The part.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// Bytes of a part, as they are asked for now.
        wanted: u64,
    },
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PartsError + use<> {
    let path = path.to_owned();
    move |cause| PartsError::System { what, path, cause }
}

/// The name of a part, counted from 1.
pub fn numbered(name: &Path, number: u64) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(format!(".{number:03}"));
    path.into()
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Is there a finished image of this name, whole or in parts?
pub fn exists(name: &Path) -> bool {
    is_there(name) || is_there(&numbered(name, 1))
}

/// All parts of this name that are there, ascending.
pub fn all_of(name: &Path) -> impl DoubleEndedIterator<Item = PathBuf> + '_ {
    (1..=MAX_PARTS).map(|number| numbered(name, number)).filter(|path| is_there(path))
}

/// Gives an image, whole or in parts, another name, on the medium too. The first part gets it last; after a kill the
/// same call goes on. Nothing is replaced.
pub fn rename_all(from: &Path, to: &Path) -> io::Result<()> {
    if exists(to) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    if is_there(from) {
        return rename(from, to);
    }
    if !is_there(&numbered(from, 1)) {
        return Err(io::ErrorKind::NotFound.into());
    }
    for number in (1..=MAX_PARTS).rev() {
        let part = numbered(from, number);
        if is_there(&part) {
            rename(&part, &numbered(to, number))?;
        }
    }
    Ok(())
}

/// Takes names back that a kill has left half given: while the first part still is `part`'s, all are.
fn take_back(part: &Path, name: &Path) -> io::Result<()> {
    for number in 2..=MAX_PARTS {
        let renamed = numbered(name, number);
        if is_there(&renamed) {
            rename(&renamed, &numbered(part, number))?;
        }
    }
    Ok(())
}

/// Renames a file to where none is, on the medium too.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if is_there(to) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(from, to)?;
    sync_folder_of(to)
}

/// The files of the image that is called so, or of which this is the first part, in their order. What is no image in parts
/// is one file, also one that is not there.
pub fn of_image(path: &Path) -> Result<Vec<PathBuf>, PartsError> {
    let name = match path.as_os_str().as_bytes().strip_suffix(FIRST) {
        Some(name) => Path::new(OsStr::from_bytes(name)),
        None if !path.exists() && is_there(&numbered(path, 1)) => path,
        None => return Ok(vec![path.to_owned()]),
    };
    let parts: Vec<_> = all_of(name).collect();
    let mut wanted = None;
    for (number, part) in (1..).zip(&parts) {
        let missing = numbered(name, number);
        if *part != missing {
            return Err(PartsError::Missing { missing, later: part.clone() });
        }
        let found = part.metadata().map_err(system("look at", part))?.len();
        let wanted = *wanted.get_or_insert(found);
        if found > wanted || found < wanted && number < parts.len() as u64 {
            return Err(PartsError::Length { path: part.clone(), found, wanted });
        }
    }
    Ok(if parts.is_empty() { vec![path.to_owned()] } else { parts })
}

/// Reads files one behind the other.
#[derive(Debug)]
pub struct PartsReader {
    open: File,
    rest: std::vec::IntoIter<PathBuf>,
}

impl PartsReader {
    /// Opens the first of these files; the others when it is their turn.
    pub fn open(files: Vec<PathBuf>) -> io::Result<PartsReader> {
        let mut rest = files.into_iter();
        let open = File::open(rest.next().unwrap_or_default())?;
        Ok(PartsReader::of(open, rest))
    }

    /// Reads an open file, then these.
    fn of(open: File, rest: std::vec::IntoIter<PathBuf>) -> PartsReader {
        PartsReader { open, rest }
    }
}

impl From<File> for PartsReader {
    fn from(open: File) -> PartsReader {
        PartsReader::of(open, Vec::new().into_iter())
    }
}

impl Read for PartsReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match (self.open.read(buf)?, buf.is_empty()) {
                (0, false) => match self.rest.next() {
                    Some(next) => self.open = File::open(next)?,
                    None => return Ok(0),
                },
                (n, _) => return Ok(n),
            }
        }
    }
}

/// An image that is written in parts, at any place. A part is made when it is needed; those before it then have their
/// length.
#[derive(Debug)]
pub struct Parts {
    name: PathBuf,
    /// Bytes of a part.
    part_len: u64,
    files: Vec<Part>,
    /// Where [`Write`] goes on.
    at: u64,
}

#[derive(Debug)]
struct Part {
    file: File,
    /// Was it written to since it was synced?
    is_dirty: bool,
}

impl Parts {
    /// An empty image in the place of all parts of this name, of which the first is open and empty.
    pub fn create(name: PathBuf, first: File, part_len: u64) -> Result<Parts, PartsError> {
        let path = numbered(&name, 1);
        for part in all_of(&name).rev().filter(|part| *part != path) {
            std::fs::remove_file(&part).map_err(system("remove", &part))?;
        }
        sync_folder_of(&path).map_err(system("create", &path))?;
        let files = vec![Part { file: first, is_dirty: true }];
        Ok(Parts { name, part_len: part_len.max(SHORTEST), files, at: 0 })
    }

    /// An image that an earlier run has begun, with parts of the same length. Parts that have `published`, the name that
    /// it gets in the end, already lose it.
    pub fn resume(name: PathBuf, part_len: u64, published: Option<&Path>) -> Result<Parts, PartsError> {
        if let Some(published) = published {
            take_back(&name, published).map_err(system("rename parts of", published))?;
        }
        let mut parts = Parts { name, part_len: part_len.max(SHORTEST), files: Vec::new(), at: 0 };
        let there: Vec<_> = all_of(&parts.name).collect();
        for (number, path) in (1..).zip(&there) {
            let missing = numbered(&parts.name, number);
            if *path != missing {
                return Err(PartsError::Missing { missing, later: path.clone() });
            }
            let file = OpenOptions::new().read(true).write(true).open(path).map_err(system("open", path))?;
            let found = file.metadata().map_err(system("look at", path))?.len();
            let wanted = parts.part_len;
            if found > wanted || found < wanted && number < there.len() as u64 {
                return Err(PartsError::OtherSplit { path: path.clone(), found, wanted });
            }
            parts.files.push(Part { file, is_dirty: false });
        }
        Ok(parts)
    }

    /// Where a byte of the image lies: the index of its part, and the byte of that.
    fn place(&self, at: u64) -> (usize, u64) {
        (usize::try_from(at / self.part_len).unwrap_or(usize::MAX), at % self.part_len)
    }

    /// A part, counted from 0. It is made, with those before it, where it is not there.
    fn part(&mut self, index: usize) -> io::Result<&mut Part> {
        while self.files.len() <= index {
            if self.files.len() as u64 >= MAX_PARTS {
                return Err(io::Error::other("an image has 999 parts at most"));
            }
            // So a part that is shorter than it should be is never followed by another, whenever the power goes.
            if let Some(Part { file, is_dirty }) = self.files.last_mut() {
                file.set_len(self.part_len)?;
                file.sync_all()?;
                *is_dirty = false;
            }
            let path = numbered(&self.name, self.files.len() as u64 + 1);
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(&path)?;
            sync_folder_of(&path)?;
            self.files.push(Part { file, is_dirty: true });
        }
        self.files.get_mut(index).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Bytes from `at` to the end of their part, of so many.
    fn within_part(&self, at: u64, len: usize) -> usize {
        usize::try_from(self.part_len - at % self.part_len).unwrap_or(usize::MAX).min(len)
    }
}

impl PlacedFile for Parts {
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(self.within_part(at, rest.len()));
            let (index, within) = self.place(at);
            let part = self.files.get(index).ok_or(io::ErrorKind::UnexpectedEof)?;
            FileExt::read_exact_at(&part.file, now, within)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn write_all_at(&mut self, data: &[u8], at: u64) -> io::Result<()> {
        let (mut at, mut rest) = (at, data);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.within_part(at, rest.len()));
            let (index, within) = self.place(at);
            let part = self.part(index)?;
            part.is_dirty = true;
            FileExt::write_all_at(&part.file, now, within)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        for part in self.files.iter_mut().filter(|part| part.is_dirty) {
            File::sync_data(&part.file)?;
            part.is_dirty = false;
        }
        Ok(())
    }

    fn cut(&mut self, end: u64) -> io::Result<bool> {
        let is_longer = self.end() > end;
        let (last, within) = self.place(end);
        // The first part stays, also where nothing is left in it.
        let nr_left = if within > 0 { last + 1 } else { last }.max(1);
        while is_longer && self.files.len() > nr_left {
            std::fs::remove_file(numbered(&self.name, self.files.len() as u64))?;
            self.files.pop();
        }
        if let Some(part) = self.files.get_mut(last).filter(|_| is_longer) {
            part.file.set_len(within)?;
            part.is_dirty = true;
        }
        Ok(is_longer)
    }

    fn end(&self) -> u64 {
        let before = (self.files.len() as u64).saturating_sub(1) * self.part_len;
        let last = self.files.last().and_then(|part| part.file.metadata().ok());
        before + last.map_or(0, |last| last.len())
    }
}

impl Write for Parts {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_all_at(data, self.at)?;
        self.at += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SyncWrite for Parts {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
