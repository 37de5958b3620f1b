//! Where the small files go that a job leaves beside its target: map, plan, log, report.
//!
//! A [`Store`] is the one door to them, so that tests can stand there, and one day a network.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

#[cfg(test)]
pub(crate) mod simulated;

/// Only the owner may read them: they tell of what a disk holds.
const MODE: u32 = 0o600;

/// Keeps whole files by their names.
pub trait Store: Send + Sync {
    /// Makes the file, or empties it, and writes what `fill` writes. On return all of it has reached the medium, and
    /// so has the name of a new file. After an error, or a kill, the file holds any part of it.
    fn write(&self, path: &Path, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()>;

    /// Opens the file to be read from front to back.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>>;

    /// Is there something of this name?
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Removes the file, on the medium too.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a finished file its name, on the medium too. What had the name is replaced in one step.
    fn publish(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalStore;

impl Store for LocalStore {
    fn write(&self, path: &Path, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).mode(MODE);
        let (file, is_new) = match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (options.create(true).truncate(true).open(path)?, false)
            }
            other => (other?, true),
        };
        let mut out = BufWriter::new(&file);
        fill(&mut out)?;
        out.flush()?;
        drop(out);
        match file.sync_all() {
            // Pipes, terminals and `/dev/null` have nothing to sync.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {}
            other => other?,
        }
        if is_new { sync_folder_of(path) } else { Ok(()) }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(path)?))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match path.symlink_metadata() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)?;
        sync_folder_of(path)
    }

    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)?;
        sync_folder_of(to)
    }
}

/// The folder that holds a file.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes sure that a file's name, or its absence, has reached the medium.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map");
        let read = || io::read_to_string(LocalStore.open(&path).unwrap()).unwrap();
        assert!(!LocalStore.exists(&path).unwrap());
        assert_eq!(LocalStore.open(&path).err().unwrap().kind(), io::ErrorKind::NotFound);
        LocalStore.write(&path, &mut |out| out.write_all(b"a long text")).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        LocalStore.write(&path, &mut |out| out.write_all(b"short")).unwrap();
        assert_eq!(read(), "short");
        let failed = LocalStore.write(&path, &mut |_| Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(), "");
    }

    #[test]
    fn names_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let (part, whole) = (folder.path().join("log.part"), folder.path().join("log"));
        LocalStore.write(&whole, &mut |out| out.write_all(b"old")).unwrap();
        LocalStore.write(&part, &mut |out| out.write_all(b"new")).unwrap();
        LocalStore.publish(&part, &whole).unwrap();
        assert!(!LocalStore.exists(&part).unwrap());
        assert_eq!(std::fs::read(&whole).unwrap(), b"new");
        LocalStore.remove(&whole).unwrap();
        assert!(!LocalStore.exists(&whole).unwrap());
    }

    #[test]
    fn what_cannot_be_synced_is_written_all_the_same() {
        LocalStore.write(Path::new("/dev/null"), &mut |out| out.write_all(b"gone")).unwrap();
    }
}
