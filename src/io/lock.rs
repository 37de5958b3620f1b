//! Locks: what one run writes no other writes or restores from, and what one run reads none overwrites.
//!
//! They are flock(2)'s, which belong to the open file and not to its name: they hold under every name of it and through
//! renaming, and are gone with the process, however that ends. Only programs that ask see them; on a block device udev
//! does, and leaves it alone. A file system that has no locks costs a warning, not the copy.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Only the owner may read what is made to be locked, as any target.
const MODE: u32 = 0o600;

/// Why a file or device is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run writes it, or, where it is to be written, reads it.
    #[error("'{}' is in use by another run: wait until that has ended, or name another", .0.display())]
    Busy(PathBuf),
    /// It is to be read, and another run writes it.
    #[error("'{}' is being written by another run: wait until that has ended", .0.display())]
    BeingWritten(PathBuf),
    /// It cannot be opened.
    #[error("cannot open '{}': {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

fn opening(path: &Path) -> impl FnOnce(io::Error) -> LockError + use<> {
    let path = path.to_owned();
    move |cause| LockError::Open { path, cause }
}

/// Was the lock taken? Where there are no locks it counts as taken.
fn taken(tried: Result<(), TryLockError>, path: &Path) -> bool {
    match tried {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(cause)) => {
            log::warn!("'{}' cannot be locked ({cause}): another run on it goes unnoticed", path.display());
            true
        }
    }
}

/// Locks an open file for this run alone, as long as it is open.
pub fn alone(file: &File, path: &Path) -> Result<(), LockError> {
    if taken(file.try_lock(), path) { Ok(()) } else { Err(LockError::Busy(path.to_owned())) }
}

/// Opens a file that is there to read and write it, and locks it for this run alone. Its content stays.
pub fn existing(path: &Path) -> Result<File, LockError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(opening(path))?;
    alone(&file, path)?;
    Ok(file)
}

/// The same, but makes it where it is not there.
pub fn made(path: &Path) -> Result<File, LockError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(MODE);
    let file = options.open(path).map_err(opening(path))?;
    alone(&file, path)?;
    Ok(file)
}

/// Makes a file that must not be there, and locks it for this run alone. One that is there by now was made by another.
pub fn new(path: &Path) -> Result<File, LockError> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(path);
    let file = file.map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => LockError::Busy(path.to_owned()),
        _ => opening(path)(cause),
    })?;
    // Nobody keeps a lock on an empty file; another run may look at it, which takes no time.
    taken(file.lock().map_err(TryLockError::Error), path);
    Ok(file)
}

/// Opens a file or block device that is to be read, and locks it against being written, as long as it is open. What is
/// something else, or cannot be opened, has no lock.
pub fn reading(path: &Path) -> Result<Option<File>, LockError> {
    let kind = path.metadata().map(|metadata| metadata.file_type());
    if !kind.is_ok_and(|kind| kind.is_file() || kind.is_block_device()) {
        return Ok(None);
    }
    let Ok(file) = File::open(path) else { return Ok(None) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(LockError::BeingWritten(path.to_owned())),
        Ok(()) => Ok(Some(file)),
        // Whoever writes it is warned.
        Err(TryLockError::Error(cause)) => {
            log::debug!("'{}' cannot be locked: {cause}", path.display());
            Ok(None)
        }
    }
}

/// Is another run writing this file?
pub fn is_being_written(path: &Path) -> bool {
    matches!(reading(path), Err(LockError::BeingWritten(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writes_or_many_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(reading(&path).unwrap().is_none() && !is_being_written(&path));
        let written = new(&path).unwrap();
        assert!(is_being_written(&path));
        for refused in [new(&path), existing(&path), made(&path)] {
            assert!(matches!(refused, Err(LockError::Busy(busy)) if busy == path));
        }
        // A second descriptor of the same open file holds it too, and so does the file under another name.
        let second = written.try_clone().unwrap();
        drop(written);
        let renamed = folder.path().join("renamed");
        std::fs::rename(&path, &renamed).unwrap();
        assert!(matches!(reading(&renamed), Err(LockError::BeingWritten(_))));
        drop(second);
        let readers = [reading(&renamed).unwrap(), reading(&renamed).unwrap()];
        assert!(readers.iter().all(Option::is_some) && !is_being_written(&renamed));
        assert!(matches!(existing(&renamed), Err(LockError::Busy(_))));
        drop(readers);
        existing(&renamed).unwrap();
        assert!(matches!(existing(&path), Err(LockError::Open { .. })));
        assert!(made(&path).is_ok() && new(&path).is_err());
    }

    #[test]
    fn where_there_are_no_locks_the_copy_goes_on() {
        let none = TryLockError::Error(io::Error::from_raw_os_error(nix::libc::ENOLCK));
        assert!(taken(Err(none), Path::new("file")));
        assert!(!taken(Err(TryLockError::WouldBlock), Path::new("file")));
    }

    #[test]
    fn what_is_no_file_has_no_lock() {
        assert!(reading(Path::new("/dev/null")).unwrap().is_none());
        assert!(reading(Path::new("/")).unwrap().is_none());
    }
}
