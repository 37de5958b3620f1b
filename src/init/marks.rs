//! Marks on the stick's data partition: that a job which erases has begun, and that it is done, so that the next boot
//! does not do it again.
//!
//! A mark is a small JSON file. One that a power cut has torn cannot be parsed and counts as none: the job then runs
//! again, which does no harm.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::io::store::{LocalStore, Store};

/// Largest mark that is read, in bytes.
const MAX: u64 = 64 << 10;

/// What makes a job the same job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobId {
    /// The job in words, with its options.
    pub job: String,
    /// The serial number of the disk that is overwritten.
    pub target: String,
    /// `run-id` of the configuration; empty where there is none.
    pub run_id: String,
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The target may have been written to.
    Begun,
    /// It is whole.
    Done,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    #[serde(flatten)]
    job: JobId,
    /// When, as the machine's clock says: seconds since 1970-01-01 00:00 UTC.
    time: u64,
}

/// Where the marks of a job are.
#[derive(Clone, Debug)]
pub struct Marks {
    folder: PathBuf,
    job: JobId,
}

impl Marks {
    /// Those of a job in a folder.
    pub fn new(folder: &Path, job: JobId) -> Marks {
        Marks { folder: folder.to_owned(), job }
    }

    /// When the job came so far, in seconds since 1970; none where it did not.
    pub fn time_of(&self, stage: Stage) -> Option<u64> {
        let mut text = String::new();
        let file = LocalStore.open(&self.path(stage)).ok()?;
        io::Read::read_to_string(&mut io::Read::take(file, MAX), &mut text).ok()?;
        let mark: Mark = serde_json::from_str(&text).ok()?;
        (mark.job == self.job).then_some(mark.time)
    }

    /// Marks that it has come so far. On return the mark is on the medium.
    pub fn set(&self, stage: Stage, time: u64) -> io::Result<()> {
        let mark = serde_json::to_string(&Mark { job: self.job.clone(), time })?;
        LocalStore.write(&self.path(stage), &mut |out| writeln!(out, "{mark}"))
    }

    /// What the names of the job's files begin with: each job has files of its own.
    pub fn base(&self) -> PathBuf {
        let JobId { job, target, run_id } = &self.job;
        let number = crc32fast::hash(format!("{job}\n{target}\n{run_id}").as_bytes());
        self.folder.join(format!("ntfsrescue-{number:08x}"))
    }

    /// The map of a clone.
    pub fn map(&self) -> PathBuf {
        self.base().with_extension("map")
    }

    /// Removes the map and what belongs to it, if there is one.
    pub fn forget(&self) {
        for ending in ["map", "map.alt", "map.plan"] {
            let _none = LocalStore.remove(&self.base().with_extension(ending));
        }
    }

    fn path(&self, stage: Stage) -> PathBuf {
        let stage = match stage {
            Stage::Begun => "begun",
            Stage::Done => "done",
        };
        self.base().with_extension(stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        JobId { job: "restore".into(), target: "S1".into(), run_id: String::new() }
    }

    #[test]
    fn a_mark_is_of_one_job_and_one_stage() {
        let folder = tempfile::tempdir().unwrap();
        let marks = |job| Marks::new(folder.path(), job);
        assert_eq!(marks(job()).time_of(Stage::Begun), None);
        marks(job()).set(Stage::Begun, 7).unwrap();
        assert_eq!(marks(job()).time_of(Stage::Begun), Some(7));
        assert_eq!(marks(job()).time_of(Stage::Done), None);
        marks(job()).set(Stage::Done, 9).unwrap();
        assert_eq!(marks(job()).time_of(Stage::Done), Some(9));
        for other in [
            JobId { job: "clone".into(), ..job() },
            JobId { target: "S2".into(), ..job() },
            JobId { run_id: "2".into(), ..job() },
        ] {
            assert_eq!(marks(other).time_of(Stage::Done), None);
        }
    }

    #[test]
    fn a_torn_mark_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let marks = Marks::new(folder.path(), job());
        marks.set(Stage::Done, 9).unwrap();
        let path = marks.path(Stage::Done);
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() - 1 {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(marks.time_of(Stage::Done).is_none(), "{len} bytes");
        }
        // Two jobs whose numbers are the same by chance.
        let of_other = Marks::new(folder.path(), JobId { target: "S2".into(), ..job() });
        std::fs::write(of_other.path(Stage::Done), &whole).unwrap();
        assert_eq!(of_other.time_of(Stage::Done), None);
    }
}
