//! Keeps a map in two files, `FILE` and `FILE.alt`, written in turn, so that at every moment one of them is whole.
//!
//! No renaming: on FAT a kill can leave only the temporary file. A file is taken by what it says itself: the one of ours
//! with the higher generation, and a map of ddrescue's in `FILE` before either, because somebody has put it there.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use super::areas::Area;
use super::mapfile::{self, Head, MapfileError, Parsed};
use crate::io::store::Store;

#[cfg(test)]
mod tests;

/// Why there is no map to go on with, or none was written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A map that cannot be read.
    #[error("map '{}': {cause}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: MapfileError,
    },
    /// Neither file holds a whole map.
    #[error("map '{}': {cause}; and its '.alt': {alt_cause}", path.display())]
    Both {
        /// `FILE`.
        path: PathBuf,
        /// What is wrong with it.
        cause: MapfileError,
        /// What is wrong with `FILE.alt`.
        alt_cause: Box<MapfileError>,
    },
    /// The place of the second file is taken.
    #[error("'{}' is a map of ddrescue's: give it another name, '{}' to go on with it", alt.display(), path.display())]
    AltTaken {
        /// `FILE`.
        path: PathBuf,
        /// `FILE.alt`.
        alt: PathBuf,
    },
    /// The system refused something.
    #[error("cannot {what} map '{}': {cause}", path.display())]
    System {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Which file holds the newest map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newest {
    Nowhere,
    File,
    /// `FILE`, and it is ddrescue's: it goes before any in `FILE.alt`.
    FileOfDdrescue,
    Alt,
}

/// What one of the files holds.
enum Content {
    /// Nothing: it is absent, or empty as a file is that was made to reserve the name.
    Nothing,
    Ours(Parsed, u64),
    Ddrescues(Parsed),
    Broken(MapfileError),
}

/// The two files of a map.
pub struct MapStore<'a> {
    store: &'a dyn Store,
    file: PathBuf,
    alt: PathBuf,
    newest: Newest,
    /// The highest of both files.
    generation: u64,
}

impl<'a> MapStore<'a> {
    /// Looks for the map in `file` and `file.alt`, and says what the newest says that is whole; none where there is
    /// none yet. Nothing is changed.
    pub fn open(store: &'a dyn Store, file: &Path) -> Result<(MapStore<'a>, Option<Parsed>), MapError> {
        let mut alt = file.as_os_str().to_owned();
        alt.push(".alt");
        let (path, alt) = (file.to_owned(), PathBuf::from(alt));
        let (in_file, in_alt) = (look(store, &path)?, look(store, &alt)?);
        if matches!(in_alt, Content::Ddrescues(_)) {
            return Err(MapError::AltTaken { path, alt });
        }
        let generation = in_file.generation().max(in_alt.generation());
        let (newest, map) = match (in_file, in_alt) {
            (Content::Ddrescues(map), _) => (Newest::FileOfDdrescue, Some(map)),
            (Content::Ours(_, of_file), Content::Ours(map, of_alt)) if of_alt > of_file => {
                (Newest::Alt, Some(map))
            }
            (Content::Ours(map, _), _) => (Newest::File, Some(map)),
            (_, Content::Ours(map, _)) => (Newest::Alt, Some(map)),
            // The second file is written first: where it is broken and the other absent, nothing was saved yet.
            (Content::Nothing, _) => (Newest::Nowhere, None),
            (Content::Broken(cause), Content::Broken(alt_cause)) => {
                return Err(MapError::Both { path, cause, alt_cause: alt_cause.into() });
            }
            (Content::Broken(cause), _) => return Err(MapError::Map { path, cause }),
        };
        Ok((MapStore { store, file: path, alt, newest, generation }, map))
    }

    /// Calls `visit` with the blocks of the newest map, ascending; with none where there is no map yet. After an
    /// error, what was visited is void.
    pub fn visit(&self, visit: impl FnMut(Area)) -> Result<(), MapError> {
        let path = match self.newest {
            Newest::Nowhere => return Ok(()),
            Newest::File | Newest::FileOfDdrescue => &self.file,
            Newest::Alt => &self.alt,
        };
        let from = self.store.open(path).map_err(system("open", path))?;
        let parsed = mapfile::parse(BufReader::new(from), visit);
        parsed.map(|_| ()).map_err(|cause| MapError::Map { path: path.clone(), cause })
    }

    /// Writes the map to the file that holds the older one, and syncs it. The data that the map claims must be
    /// synced by then. The first map goes to both. After an error the one before still stands.
    pub fn save(&mut self, head: &Head, blocks: impl Iterator<Item = Area> + Clone) -> Result<(), MapError> {
        match self.newest {
            Newest::File => self.write_alt(head, blocks),
            Newest::Alt => self.write_file(head, blocks),
            Newest::Nowhere | Newest::FileOfDdrescue => {
                self.write_alt(head, blocks.clone())?;
                self.write_file(head, blocks)
            }
        }
    }

    /// Writes the map at an orderly end: `FILE` is the newest then, and alone.
    pub fn conclude(
        &mut self,
        head: &Head,
        blocks: impl Iterator<Item = Area> + Clone,
    ) -> Result<(), MapError> {
        if self.newest != Newest::Alt {
            self.write_alt(head, blocks.clone())?;
        }
        self.write_file(head, blocks)?;
        self.store.remove(&self.alt).map_err(system("remove", &self.alt))
    }

    /// Removes the map.
    pub fn discard(self) -> Result<(), MapError> {
        for path in [&self.alt, &self.file] {
            if self.store.exists(path).map_err(system("look at", path))? {
                self.store.remove(path).map_err(system("remove", path))?;
            }
        }
        Ok(())
    }

    fn write_alt(&mut self, head: &Head, blocks: impl Iterator<Item = Area> + Clone) -> Result<(), MapError> {
        self.write(&self.alt, head, blocks)?;
        self.generation += 1;
        if self.newest != Newest::FileOfDdrescue {
            self.newest = Newest::Alt;
        }
        Ok(())
    }

    fn write_file(
        &mut self,
        head: &Head,
        blocks: impl Iterator<Item = Area> + Clone,
    ) -> Result<(), MapError> {
        self.write(&self.file, head, blocks)?;
        self.generation += 1;
        self.newest = Newest::File;
        Ok(())
    }

    fn write(
        &self,
        path: &Path,
        head: &Head,
        blocks: impl Iterator<Item = Area> + Clone,
    ) -> Result<(), MapError> {
        let generation = self.generation + 1;
        self.store
            .write(path, &mut |out| mapfile::write(out, generation, head, blocks.clone()))
            .map_err(system("write", path))
    }
}

impl Content {
    fn generation(&self) -> u64 {
        match self {
            Content::Ours(_, generation) => *generation,
            _ => 0,
        }
    }
}

/// Reads one of the files through, to its CRC.
fn look(store: &dyn Store, path: &Path) -> Result<Content, MapError> {
    use std::io::BufRead;
    let mut from = match store.open(path) {
        Ok(from) => BufReader::new(from),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Content::Nothing),
        Err(cause) => return Err(system("open", path)(cause)),
    };
    if from.fill_buf().map_err(system("read", path))?.is_empty() {
        return Ok(Content::Nothing);
    }
    Ok(match mapfile::parse(from, |_| ()) {
        Ok(map) => match map.generation {
            Some(generation) => Content::Ours(map, generation),
            None => Content::Ddrescues(map),
        },
        // What cannot be read may be the newest: nothing is decided without it.
        Err(cause @ MapfileError::Read { .. }) => return Err(MapError::Map { path: path.into(), cause }),
        Err(cause) => Content::Broken(cause),
    })
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MapError {
    move |cause| MapError::System { what, path: path.into(), cause }
}
