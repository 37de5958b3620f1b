//! What came of a job, as JSON beside the image: `NAME.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ending::{Outcome, Verdict};
use super::find::Pick;
use crate::io::store::{LocalStore, Store};

/// One job. Sizes and positions are bytes, times seconds since 1970-01-01 00:00 UTC by the machine's clock.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    /// Version of this program.
    pub version: &'static str,
    /// Release of the kernel.
    pub kernel: String,
    /// The job in words.
    pub job: &'a str,
    /// The further options of the worker.
    pub options: &'a str,
    /// `ok`, `damaged` or `failed`.
    pub result: &'static str,
    /// As in the result line.
    pub exit_status: i32,
    /// As in the result line.
    pub sentence: &'a str,
    /// When the job began.
    pub started: u64,
    /// When it ended.
    pub ended: u64,
    /// What was read: a volume, or what holds the image.
    pub source: Device<'a>,
    /// What was written: a device, or what holds the image; none where nothing is.
    pub target: Option<Device<'a>>,
    /// The image's path on its file system, where there is one.
    pub image: Option<&'a str>,
    /// The report of the worker (`--report`), where it wrote one.
    pub rescue: Option<Value>,
}

/// A disk or one of its partitions.
#[derive(Clone, Debug, Serialize)]
pub struct Device<'a> {
    name: &'a str,
    model: &'a str,
    serial: &'a str,
    disk_size: u64,
    partition: u32,
    start: u64,
    size: u64,
    part_uuid: &'a str,
    file_system: &'a str,
    label: &'a str,
    uuid: &'a str,
}

impl<'a> From<&Pick<'a>> for Device<'a> {
    fn from(pick: &Pick<'a>) -> Device<'a> {
        let Pick { drive, part } = pick;
        let content = part.content();
        Device {
            name: &part.name,
            model: &drive.model,
            serial: drive.serial(),
            disk_size: drive.size,
            partition: part.number,
            start: part.start,
            size: part.size,
            part_uuid: &part.part_uuid,
            file_system: content.map_or("", |content| content.kind.name()),
            label: content.map_or("", |content| &content.label),
            uuid: content.map_or("", |content| &content.uuid),
        }
    }
}

impl<'a> Record<'a> {
    /// A record of what came of a job. `report` is the worker's, which may not be there.
    pub fn new(
        job: &'a str,
        options: &'a str,
        outcome: &'a Outcome,
        source: Device<'a>,
        report: &Path,
    ) -> Record<'a> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let rescue = std::fs::read(report).ok().and_then(|json| serde_json::from_slice(&json).ok());
        Record {
            version: env!("CARGO_PKG_VERSION"),
            kernel: kernel.trim_end().to_owned(),
            job,
            options,
            result: outcome.verdict.name(),
            exit_status: outcome.exit,
            sentence: &outcome.sentence,
            started: 0,
            ended: 0,
            source,
            target: None,
            image: None,
            rescue,
        }
    }

    /// Writes it. A record that cannot be written ends nothing.
    pub fn write(&self, path: &Path) {
        let written = LocalStore.write(path, &mut |out| {
            serde_json::to_writer_pretty(&mut *out, self)?;
            writeln!(out)
        });
        if let Err(cause) = written {
            log::warn!("cannot write '{}': {cause}", path.display());
        }
    }
}

/// Does this record tell of a job that came to its end, with or without losses?
pub fn is_of_done(path: &Path) -> bool {
    #[derive(Deserialize)]
    struct Told {
        result: String,
    }
    let told = std::fs::read(path).ok().and_then(|json| serde_json::from_slice::<Told>(&json).ok());
    told.is_some_and(|told| told.result != Verdict::Failed.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_record_of_success_tells_of_a_job_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("i.img.json");
        assert!(!is_of_done(&path));
        for (json, is_done) in [
            (r#"{"exit_status": 0, "result": "ok"}"#, true),
            (r#"{"exit_status": 3, "result": "damaged"}"#, true),
            (r#"{"exit_status": 6, "result": "failed"}"#, false),
            (r#"{"exit_status": 0, "result": "ok""#, false),
        ] {
            std::fs::write(&path, json).unwrap();
            assert_eq!(is_of_done(&path), is_done, "{json}");
        }
    }
}
