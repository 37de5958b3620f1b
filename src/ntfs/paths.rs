//! Paths of files: from the `$FILE_NAME`s in their records and in those of the folders above, without reading folders.
//!
//! One sweep over the MFT keeps number, parent and name of each folder: some 40 bytes each, and nothing for files.
//! With that any record's paths can be told. They begin with `/`, and names are separated by it. Where the way up does
//! not reach the root folder, the path begins with what no name in Windows can hold: `<record 1234>` for a folder whose
//! record cannot be used, `<lost>` where the folder is gone.

use super::attr::{FileName, listed_pieces, text, types};
use super::record::{Record, mft_no_of};
use super::volume::Volume;
use super::{Error, mft_no};
use crate::event::Observer;
use crate::extent::ClusterSet;

/// Most folders on the way to a file. Windows ends paths at 32,767 characters, and nobody comes near that; what lies
/// deeper, or in a loop, counts as lost.
const MAX_DEPTH: u16 = 1024;

/// [`Folder::depth`]: not known yet.
const UNKNOWN: u16 = u16::MAX;

/// [`Folder::depth`]: on the way that is walked, or deeper than counts.
const TOO_DEEP: u16 = u16::MAX - 1;

/// One name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// File reference of the folder.
    pub parent: u64,
    /// The name. What is no text in it, or would separate names, is replaced.
    pub name: String,
}

/// The names of a base record, those for DOS only where there are no others. Names in extension records that cannot be
/// used are left out.
pub fn names(volume: &Volume<'_>, mft_no: u64, base: &Record<'_>) -> Vec<Name> {
    let mut names = Names::default();
    names.take(base);
    if has_list(base) {
        let Volume { source, mft, .. } = volume;
        let list = mft.attribute_list(*source, mft_no, base).unwrap_or_default();
        let holders = listed_pieces(&list).filter(|piece| piece.kind == types::FILE_NAME);
        let mut holders: Vec<_> = holders.map(|piece| mft_no_of(piece.reference)).collect();
        holders.sort_unstable();
        holders.dedup();
        let mut buf = vec![0; mft.record_size()];
        for holder in holders.into_iter().filter(|holder| *holder != mft_no) {
            if let Ok(record) = mft.read_listed(*source, holder, mft_no, &mut buf) {
                names.take(&record);
            }
        }
    }
    names.best()
}

/// The names that one record holds itself, those for DOS only where there are no others.
pub(super) fn names_within(record: &Record<'_>) -> Vec<Name> {
    let mut names = Names::default();
    names.take(record);
    names.best()
}

/// Does the record have a list of attributes, so that some of them may be elsewhere?
pub(super) fn has_list(record: &Record<'_>) -> bool {
    record.attributes().flatten().any(|attribute| attribute.kind == types::ATTRIBUTE_LIST)
}

#[derive(Default)]
struct Names {
    good: Vec<Name>,
    dos: Vec<Name>,
}

impl Names {
    fn take(&mut self, record: &Record<'_>) {
        for name in record.attributes().flatten().filter_map(|attribute| FileName::of(&attribute)) {
            let FileName { parent, name, is_dos } = name;
            // What a terminal would act upon is no text either.
            let is_text = |char: &char| *char != '/' && !char.is_control();
            let chars =
                text(name).map(|char| Some(char).filter(is_text).unwrap_or(char::REPLACEMENT_CHARACTER));
            let name = Name { parent, name: chars.collect() };
            if is_dos { &mut self.dos } else { &mut self.good }.push(name);
        }
    }

    fn best(self) -> Vec<Name> {
        if self.good.is_empty() { self.dos } else { self.good }
    }
}

/// The folders of a volume.
#[derive(Debug)]
pub struct Folders {
    /// By number, without the root folder.
    folders: Vec<Folder>,
    /// Their names, one behind the other.
    names: String,
    /// Records that may be folders, but cannot be used.
    unusable: ClusterSet,
    nr_records: u64,
}

#[derive(Debug)]
struct Folder {
    mft_no: u32,
    sequence: u16,
    /// Bytes.
    name_len: u16,
    /// Where the name begins among the others.
    name_at: u32,
    /// Folders on the way up to where that ends.
    depth: u16,
    /// File reference.
    parent: u64,
}

/// Where a way up ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// At the root folder.
    Root,
    /// At a record that cannot be used.
    Record(u64),
    /// At a folder that is gone: its record is free or another file's. Or nowhere.
    Lost,
}

/// The folders above a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Their numbers, from the file up, without the root folder's.
    pub folders: Vec<u64>,
    /// Where it ends.
    pub top: Top,
}

impl Folders {
    /// Sweeps the MFT of a volume.
    pub fn read(volume: &Volume<'_>, observer: &dyn Observer) -> Result<Folders, Error> {
        let mut folders = Folders::new(volume.mft.nr_records());
        volume.mft.sweep(volume.source, observer, |mft_no, bytes| {
            folders.take(volume, mft_no, bytes.ok());
            Ok(())
        })?;
        Ok(folders.complete())
    }

    /// No folders yet, of a volume with so many records.
    pub(super) fn new(nr_records: u64) -> Folders {
        let unusable = ClusterSet::new(nr_records);
        Folders { folders: Vec::new(), names: String::new(), unusable, nr_records }
    }

    /// Takes a record as it lies on disk, or none where it cannot be had. They come in the order of their numbers.
    pub(super) fn take(&mut self, volume: &Volume<'_>, mft_no: u64, bytes: Option<&mut [u8]>) {
        let Some(record) = bytes.and_then(|bytes| Record::parse(bytes).ok()) else {
            self.unusable.insert(mft_no);
            return;
        };
        let is_folder = record.in_use() && record.is_folder() && record.base_mft_no().is_none();
        if !is_folder || mft_no == mft_no::ROOT {
            return;
        }
        let name = names(volume, mft_no, &record).into_iter().next();
        if name.and_then(|name| self.add(mft_no, record.sequence(), &name)).is_none() {
            self.unusable.insert(mft_no);
        }
    }

    /// Adds a folder, if there is room for its name.
    fn add(&mut self, mft_no: u64, sequence: u16, name: &Name) -> Option<()> {
        let folder = Folder {
            mft_no: mft_no.try_into().ok()?,
            sequence,
            name_len: name.name.len().try_into().ok()?,
            name_at: self.names.len().try_into().ok()?,
            depth: UNKNOWN,
            parent: name.parent,
        };
        self.names.push_str(&name.name);
        self.folders.push(folder);
        Some(())
    }

    /// All folders were taken: measures how deep each lies, so that every way up has an end.
    pub(super) fn complete(mut self) -> Folders {
        for i in 0..self.folders.len() {
            let mut way = Vec::new();
            let mut next = Ok(i);
            // Of the folder where the way meets one that was measured, or behind its end.
            let mut depth = 0;
            while let Ok(at) = next {
                let Some(folder) = self.folders.get_mut(at) else { break };
                if folder.depth != UNKNOWN {
                    depth = folder.depth;
                    break;
                }
                // Met again, it is a loop.
                folder.depth = TOO_DEEP;
                way.push(at);
                let parent = folder.parent;
                next = self.find(parent);
            }
            for at in way.into_iter().rev() {
                depth = if depth < MAX_DEPTH { depth + 1 } else { TOO_DEEP };
                if let Some(folder) = self.folders.get_mut(at) {
                    folder.depth = depth;
                }
            }
        }
        self
    }

    /// The index of the folder that a reference means, or what is there instead.
    fn find(&self, reference: u64) -> Result<usize, Top> {
        let mft_no = mft_no_of(reference);
        if mft_no == mft_no::ROOT {
            return Err(Top::Root);
        }
        let Ok(at) = self.folders.binary_search_by_key(&mft_no, |folder| folder.mft_no.into()) else {
            let unusable = mft_no >= self.nr_records || self.unusable.contains(mft_no);
            return Err(if unusable { Top::Record(mft_no) } else { Top::Lost });
        };
        // Without a sequence number a reference means whatever is there.
        let sequence = reference >> 48;
        let is_meant = self
            .folders
            .get(at)
            .is_some_and(|folder| sequence == 0 || sequence == u64::from(folder.sequence));
        if is_meant { Ok(at) } else { Err(Top::Lost) }
    }

    /// Is this the number of a folder? Not of the root folder.
    pub fn contains(&self, mft_no: u64) -> bool {
        self.folders.binary_search_by_key(&mft_no, |folder| folder.mft_no.into()).is_ok()
    }

    /// The folders above what has this folder as its parent.
    pub fn way(&self, parent: u64) -> Way {
        let mut folders = Vec::new();
        let top = self.climb(parent, |folder| folders.push(folder.mft_no.into()));
        Way { folders, top }
    }

    /// The path of what has this name.
    pub fn path(&self, name: &Name) -> String {
        let mut way = Vec::new();
        let top = self.climb(name.parent, |folder| way.push(folder));
        let mut path = match top {
            Top::Root => String::new(),
            Top::Record(mft_no) => record_path(mft_no),
            Top::Lost => "<lost>".to_owned(),
        };
        let way = way.into_iter().rev().map(|folder| {
            let start = folder.name_at as usize;
            self.names.get(start..start + usize::from(folder.name_len)).unwrap_or_default()
        });
        for name in way.chain([name.name.as_str()]) {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    fn climb<'a>(&'a self, parent: u64, mut each: impl FnMut(&'a Folder)) -> Top {
        let mut parent = parent;
        loop {
            let folder = match self.find(parent) {
                Ok(at) => self.folders.get(at).filter(|folder| folder.depth <= MAX_DEPTH),
                Err(top) => return top,
            };
            let Some(folder) = folder else { return Top::Lost };
            each(folder);
            parent = folder.parent;
        }
    }

    /// Number and path of each folder but the root folder.
    pub fn all(&self) -> impl Iterator<Item = (u64, String)> + '_ {
        self.folders.iter().map(|folder| {
            let start = folder.name_at as usize;
            let name = self.names.get(start..start + usize::from(folder.name_len)).unwrap_or_default();
            (folder.mft_no.into(), self.path(&Name { parent: folder.parent, name: name.to_owned() }))
        })
    }

    /// The paths of a file with these names, by the number of its base record: more than one where it has hard links.
    pub fn paths(&self, mft_no: u64, names: &[Name]) -> Vec<String> {
        match mft_no {
            mft_no::ROOT => vec!["/".to_owned()],
            _ => names.iter().map(|name| self.path(name)).collect(),
        }
    }
}

/// What stands for the path of a record without a name that could be read.
pub fn record_path(mft_no: u64) -> String {
    format!("<record {mft_no}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(mft_no: u64, sequence: u64) -> u64 {
        mft_no | sequence << 48
    }

    fn name(parent: u64, name: &str) -> Name {
        Name { parent, name: name.to_owned() }
    }

    /// Folders by number, parent and name, each with its number as its sequence number.
    fn folders(given: &[(u64, u64, &str)]) -> Folders {
        let mut folders = Folders::new(10_000);
        for &(mft_no, parent, text) in given {
            folders.add(mft_no, mft_no as u16, &name(parent, text)).unwrap();
        }
        folders.unusable.insert(9000);
        folders.complete()
    }

    #[test]
    fn paths_lead_from_the_root() {
        let folders = folders(&[(30, reference(40, 40), "inner"), (40, reference(5, 5), "Äußerer")]);
        assert_eq!(folders.path(&name(reference(5, 5), "file")), "/file");
        assert_eq!(folders.path(&name(reference(30, 30), "file")), "/Äußerer/inner/file");
        assert_eq!(folders.path(&name(reference(30, 0), "file")), "/Äußerer/inner/file");
        assert_eq!(folders.way(reference(30, 30)), Way { folders: vec![30, 40], top: Top::Root });
        let all: Vec<_> = folders.all().collect();
        assert_eq!(all, [(30, "/Äußerer/inner".to_owned()), (40, "/Äußerer".to_owned())]);
    }

    #[test]
    fn ways_that_do_not_reach_the_root_say_why() {
        let folders = folders(&[(30, reference(9000, 1), "a"), (31, reference(32, 1), "b"), (32, 5, "new")]);
        assert_eq!(folders.path(&name(reference(30, 30), "file")), "<record 9000>/a/file");
        assert_eq!(folders.path(&name(reference(77_000, 1), "file")), "<record 77000>/file");
        assert_eq!(
            folders.path(&name(reference(31, 31), "file")),
            "<lost>/b/file",
            "the record is another's"
        );
        assert_eq!(folders.path(&name(reference(33, 1), "file")), "<lost>/file", "the record is free");
    }

    #[test]
    fn loops_and_depths_have_an_end() {
        let looped = folders(&[(30, reference(31, 31), "a"), (31, reference(30, 30), "b"), (32, 31, "c")]);
        for parent in 30..33 {
            assert_eq!(looped.path(&name(parent, "file")), "<lost>/file");
        }
        assert_eq!(folders(&[(30, 30, "self")]).path(&name(30, "file")), "<lost>/file");
        // Whichever end is measured first.
        let depth = u64::from(MAX_DEPTH);
        let down: Vec<_> =
            (100..2 + 100 + depth).map(|n| (n, if n == 100 { 5 } else { n - 1 }, "x")).collect();
        let last = 101 + depth;
        let up: Vec<_> = (100..=last).map(|n| (n, if n == last { 5 } else { n + 1 }, "x")).collect();
        for (chain, deepest) in [(down, last), (up, 100)] {
            let chain = folders(&chain);
            assert_eq!(chain.path(&name(deepest, "file")), "<lost>/file");
            let near = if deepest == 100 { 103 } else { last - 3 };
            let path = chain.path(&name(near, "file"));
            assert_eq!((path.starts_with("/x/x"), path.matches("/x").count() as u64), (true, depth - 1));
        }
    }
}
