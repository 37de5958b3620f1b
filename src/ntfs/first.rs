//! Which clusters are read first: those of the files that somebody names by patterns, and of the folders on the way to
//! them.
//!
//! Two sweeps over the MFT: one for the folders, one for the files. Records apart from those, the extension records and
//! the folders on the way, are read one by one in the end. Nothing is read but the MFT, so that a bad area in a folder
//! hides no file. What cannot be used is left out: it comes with all the rest.

use super::paths::{Folders, Name, Top, Way, has_list, names_within};
use super::record::{Fault, Record, mft_no_of};
use super::scan::is_bad_clusters;
use super::volume::Volume;
use super::{Error, mft_no};
use crate::event::{Event, Observer, Phase};
use crate::extent::ClusterSet;
use crate::io::Loss;

/// Patterns for paths, as typed.
///
/// A pattern is matched with the whole path, or with that of any folder above: a folder that matches takes all that is
/// below it. `/` and `\` separate names, one at the front or the end changes nothing. `*`, `?` and `[a-z]` stand for
/// characters of one name, `**` in the place of a name for any number of names. Upper and lower case are the same.
#[derive(Debug)]
pub struct Patterns(Vec<glob::Pattern>);

/// A pattern that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("pattern '{pattern}': {} at character {}", cause.msg, cause.pos + 1)]
pub struct PatternError {
    /// The pattern as it was given.
    pub pattern: String,
    /// What is wrong with it.
    pub cause: glob::PatternError,
}

impl Patterns {
    /// Parses patterns.
    pub fn parse<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Patterns, PatternError> {
        let parse = |pattern: S| {
            let pattern = pattern.as_ref();
            let path = comparable(&pattern.replace('\\', "/"));
            glob::Pattern::new(path.trim_matches('/'))
                .map_err(|cause| PatternError { pattern: pattern.to_owned(), cause })
        };
        Ok(Patterns(patterns.into_iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns, as they are compared.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(glob::Pattern::as_str)
    }

    /// Does the path itself match? Counts it for each pattern that it matches.
    fn matches(&self, path: &str, counts: &mut [u64]) -> bool {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        let path = comparable(path.strip_prefix('/').unwrap_or(path));
        let mut any = false;
        for (pattern, count) in self.0.iter().zip(counts) {
            if pattern.matches_with(&path, options) {
                *count += 1;
                any = true;
            }
        }
        any
    }
}

/// The text without upper case. One character after the other: a text as a whole could have its last sigma changed.
fn comparable(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// What is read first.
#[derive(Debug)]
pub struct First {
    /// Clusters of the files: of all their attributes.
    pub files: ClusterSet,
    /// Clusters of the folders on the way to the files, and of those that matched.
    pub indexes: ClusterSet,
    /// Files that match, or lie in a folder that does.
    pub nr_files: u64,
    /// For each pattern, how many paths of files and folders match it themselves. Where that is 0 somebody should be
    /// told.
    pub matches: Vec<u64>,
}

/// Finds the clusters of the files that `patterns` take, and of the folders on the way to them.
pub fn first_clusters(
    volume: &Volume<'_>,
    patterns: &Patterns,
    observer: &dyn Observer,
) -> Result<First, Error> {
    let (nr_clusters, nr_records) = (volume.info.geometry.nr_clusters, volume.mft.nr_records());
    observer.tell(Event::Phase(Phase::Folders));
    let mut search = Search {
        volume,
        patterns,
        folders: Folders::read(volume, observer)?,
        matching: ClusterSet::new(nr_records),
        files: ClusterSet::new(nr_records),
        on_the_way: ClusterSet::new(nr_records),
        deferred: ClusterSet::new(nr_records),
        first: First {
            files: ClusterSet::new(nr_clusters),
            indexes: ClusterSet::new(nr_clusters),
            nr_files: 0,
            matches: vec![0; patterns.0.len()],
        },
    };
    search.match_folders();
    observer.tell(Event::Phase(Phase::Files));
    volume.mft.sweep(volume.source, observer, |mft_no, bytes| {
        if let Some(record) = bytes.ok().and_then(|bytes| Record::parse(bytes).ok()) {
            search.visit(mft_no, &record);
        }
        Ok(())
    })?;
    search.visit_rest(observer)?;
    search.first.nr_files = search.files.count();
    Ok(search.first)
}

/// The sets of one search hold record numbers.
struct Search<'v> {
    volume: &'v Volume<'v>,
    patterns: &'v Patterns,
    folders: Folders,
    /// Folders whose own path matches.
    matching: ClusterSet,
    /// Base records of files that are taken.
    files: ClusterSet,
    /// Folders on the way to those, and folders that are taken.
    on_the_way: ClusterSet,
    /// Records that may belong to a file that is not known to be taken yet.
    deferred: ClusterSet,
    first: First,
}

impl Search<'_> {
    fn match_folders(&mut self) {
        let Search { patterns, folders, matching, on_the_way, first, .. } = self;
        let root = (mft_no::ROOT, "/".to_owned());
        for (mft_no, path) in folders.all().chain([root]) {
            if patterns.matches(&path, &mut first.matches) {
                matching.insert(mft_no);
            }
        }
        for (mft_no, _) in folders.all() {
            // The way from its own contents begins with the folder itself.
            let way = folders.way(mft_no);
            if way.passes(matching) {
                way.mark(on_the_way);
            }
        }
        if matching.contains(mft_no::ROOT) {
            on_the_way.insert(mft_no::ROOT);
        }
    }

    /// Takes one record of the sweep.
    fn visit(&mut self, mft_no: u64, record: &Record<'_>) {
        if !record.in_use() {
            return;
        }
        let base = record.base_mft_no().unwrap_or(mft_no);
        if base != mft_no {
            // Which of an extension's names and clusters count can be said once all base records were seen.
            self.deferred.insert(mft_no);
        }
        // Folders were matched by their names.
        if base == mft_no::ROOT || self.folders.contains(base) {
            return;
        }
        let names = names_within(record);
        if base != mft_no && (names.is_empty() || !is_current(self.volume, record.base_reference())) {
            return;
        }
        for name in names {
            self.take_name(base, &name);
        }
        if base == mft_no {
            match self.files.contains(mft_no) {
                true => insert_clusters(&mut self.first.files, self.volume, mft_no, record),
                // It may have names elsewhere.
                false if has_list(record) => {
                    self.deferred.insert(mft_no);
                }
                false => {}
            }
        }
    }

    /// Takes the file if this name of it says so.
    fn take_name(&mut self, base: u64, name: &Name) {
        let way = self.folders.way(name.parent);
        // This also counts, so it must not be left out.
        let matches = self.patterns.matches(&self.folders.path(name), &mut self.first.matches);
        if matches || way.passes(&self.matching) {
            self.files.insert(base);
            way.mark(&mut self.on_the_way);
        }
    }

    /// Takes the clusters of the folders on the way and of the records that were put off.
    fn visit_rest(&mut self, observer: &dyn Observer) -> Result<(), Error> {
        let Volume { source, mft, .. } = self.volume;
        let mut buf = vec![0; mft.record_size()];
        for mft_no in numbers(&self.on_the_way).chain(numbers(&self.deferred)) {
            if observer.wants_stop() {
                return Err(Error::Stopped);
            }
            let record = match mft.read(*source, mft_no, &mut buf) {
                Ok(record) => record,
                Err(Fault::Unreadable(error)) if error.loss() != Loss::BadArea => return Err(error.into()),
                Err(_) => continue,
            };
            let base = record.base_mft_no().unwrap_or(mft_no);
            let clusters = match self.files.contains(base) {
                true => &mut self.first.files,
                false if self.on_the_way.contains(base) => &mut self.first.indexes,
                false => continue,
            };
            if base == mft_no || is_current(self.volume, record.base_reference()) {
                insert_clusters(clusters, self.volume, base, &record);
            }
        }
        Ok(())
    }
}

/// Does this reference mean the base record that is there? In doubt it does.
fn is_current(volume: &Volume<'_>, reference: u64) -> bool {
    let mut buf = vec![0; volume.mft.record_size()];
    let base = volume.mft.read(volume.source, mft_no_of(reference), &mut buf);
    base.map_or(true, |base| base.in_use() && base.is_meant_by(reference))
}

impl Way {
    /// Does it lead through one of these folders?
    fn passes(&self, folders: &ClusterSet) -> bool {
        self.top == Top::Root && folders.contains(mft_no::ROOT)
            || self.folders.iter().any(|folder| folders.contains(*folder))
    }

    /// Adds all its folders.
    fn mark(&self, folders: &mut ClusterSet) {
        let root = (self.top == Top::Root).then_some(mft_no::ROOT);
        for folder in self.folders.iter().copied().chain(root) {
            folders.insert(folder);
        }
    }
}

/// The numbers in a set.
fn numbers(set: &ClusterSet) -> impl Iterator<Item = u64> + '_ {
    set.extents().flat_map(|extent| extent.lcn.0..extent.end())
}

/// Adds the clusters of all attributes of a record that belongs to the file `base`.
fn insert_clusters(clusters: &mut ClusterSet, volume: &Volume<'_>, base: u64, record: &Record<'_>) {
    let nr_clusters = volume.info.geometry.nr_clusters;
    let attributes = record.attributes().flatten().filter(|attribute| !is_bad_clusters(base, attribute));
    for run in attributes.filter_map(|attribute| attribute.runs(nr_clusters)).flatten() {
        if let Some(extent) = run.ok().and_then(|run| run.extent()) {
            clusters.insert_extent(extent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn takes(pattern: &str, path: &str, wanted: bool) {
        let mut count = [0];
        let matches = Patterns::parse([pattern]).unwrap().matches(path, &mut count);
        assert_eq!((matches, count), (wanted, [wanted.into()]), "{pattern} and {path}");
    }

    #[test]
    fn patterns_match_whole_paths() {
        for pattern in
            ["/Users/*/Bilder", "users/*/bilder", r"\Users\*\BILDER\", "/users/m?x/bilder/", "**/bilder"]
        {
            takes(pattern, "/Users/Max/Bilder", true);
        }
        for pattern in ["bilder", "/users/*", "*/bilder", "users/*/bilder/*", "users/**/bilder/**/x"] {
            takes(pattern, "/Users/Max/Bilder", false);
        }
        takes("**/*.jpg", "/a.JPG", true);
        takes("**/*.jpg", "/a/b/c.jpg", true);
        takes("*.jpg", "/a/b.jpg", false);
        takes("*", "/.hidden", true);
        takes("ÄRGER/[Ä-Ö]*", "/ärger/Ö", true);
        takes("/", "/", true);
        takes("**/b", "<lost>/a/b", true);
        takes("/a/b", "<lost>/a/b", false);
    }

    #[test]
    fn each_pattern_is_counted() {
        let patterns = Patterns::parse(["a*", "b", "*b"]).unwrap();
        let mut counts = [0; 3];
        for path in ["/ab", "/b", "/c"] {
            patterns.matches(path, &mut counts);
        }
        assert_eq!(counts, [1, 1, 2]);
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_named() {
        let message = |pattern| Patterns::parse(["fine", pattern]).unwrap_err().to_string();
        assert!(message("a/**b").starts_with("pattern 'a/**b': recursive wildcards"), "{}", message("a/**b"));
        assert!(message("[a").starts_with("pattern '[a': invalid range"), "{}", message("[a"));
    }
}
