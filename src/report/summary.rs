//! The result of a rescue as JSON: what `--report FILE` writes.
//!
//! One object with the fields of [`Summary`] in their order; positions, lengths and sizes are bytes, positions on the
//! source. What is not known is `null`; a field that holds only for some of a list's entries is left out in the others.

use std::cell::Cell;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::extent::ByteRange;
use crate::ntfs::damage::{DamagedFile, Kind, Losses};

/// What came of a rescue.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Version of this program.
    pub version: &'static str,
    /// In words: `complete`, `disk gone`, `interrupted` and the like.
    pub outcome: String,
    /// The program's exit status.
    pub exit_status: u8,
    /// When it was.
    pub times: Times,
    /// What was read.
    pub disk: Disk,
    /// The volume on it, where its boot sector could be read.
    pub volume: Option<Volume>,
    /// What came of the bytes that were to be copied.
    pub bytes: Bytes,
    /// Sectors that could not be read, but were written from a copy.
    #[serde(serialize_with = "repaired")]
    pub repaired: Vec<Repaired>,
    /// MFT records that are lost: each may be a file.
    #[serde(serialize_with = "lost_records")]
    pub lost_records: Losses,
    /// Files that lost something. In JSON the paths of those whose kind is `directory` are listed once more, as
    /// `directories_unlistable`.
    #[serde(serialize_with = "damaged_files")]
    pub damaged_files: Vec<DamagedFile>,
}

/// Times, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    /// When this run began: seconds since 1970-01-01 00:00 UTC.
    pub started: u64,
    /// When it ended, in the same way.
    pub ended: u64,
    /// Seconds that this run and those that it resumed took together.
    pub elapsed: u64,
}

/// The identity of a disk.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Disk {
    /// Its path.
    pub device: String,
    /// Its serial number, where it has one; a file has none.
    pub serial: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Bytes.
    pub size: u64,
}

/// The identity of a volume.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Volume {
    /// Its serial number. In JSON 16 hexadecimal digits, as Linux shows it.
    #[serde(serialize_with = "hexadecimal")]
    pub serial: u64,
    /// Its label.
    pub label: String,
    /// Bytes in a cluster.
    pub cluster_size: u32,
    /// Bytes of all clusters.
    pub size: u64,
}

/// Bytes by what is known about them, with ddrescue's names.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Bytes {
    /// All that were to be copied: those below together, but for the repaired ones.
    pub used: u64,
    /// In the target.
    pub finished: u64,
    /// Not read yet.
    pub non_tried: u64,
    /// In blocks that could not be read.
    pub non_trimmed: u64,
    /// In what is left of such blocks between the bad sectors at their ends.
    pub non_scraped: u64,
    /// Lost.
    pub bad: u64,
    /// Of those that are lost on the source, what was written from a copy.
    pub repaired: u64,
}

/// A stretch that was written from a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Where it lies.
    pub range: ByteRange,
    /// What it is, as in `boot sector` or `MFT record 2`.
    pub what: String,
}

impl Summary {
    /// Writes it as JSON, indented, with the areas that could not be read as `bad_areas` in the end: there may be many,
    /// so they are taken one by one.
    pub fn write(
        &self,
        bad_areas: &mut dyn Iterator<Item = ByteRange>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            summary: &'a Summary,
            directories_unlistable: Vec<&'a str>,
            bad_areas: Once<'a>,
        }
        let folders = self.damaged_files.iter().filter(|file| file.kind == Kind::Directory);
        let mut folders: Vec<_> = folders.map(|file| file.path.as_str()).collect();
        folders.dedup();
        let bad_areas = Once(Cell::new(Some(bad_areas)));
        let whole = Whole { summary: self, directories_unlistable: folders, bad_areas };
        serde_json::to_writer_pretty(&mut *out, &whole)?;
        out.write_all(b"\n")
    }
}

/// A list that is taken once, while it is written.
struct Once<'a>(Cell<Option<&'a mut dyn Iterator<Item = ByteRange>>>);

impl Serialize for Once<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.take().into_iter().flatten().map(Area::from))
    }
}

#[derive(Serialize)]
struct Area {
    pos: u64,
    len: u64,
}

impl From<ByteRange> for Area {
    fn from(ByteRange { pos, len }: ByteRange) -> Area {
        Area { pos, len }
    }
}

fn hexadecimal<S: Serializer>(serial: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{serial:016X}"))
}

fn repaired<S: Serializer>(repaired: &[Repaired], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Entry<'a> {
        pos: u64,
        len: u64,
        what: &'a str,
    }
    serializer.collect_seq(repaired.iter().map(|Repaired { range, what }| Entry {
        pos: range.pos,
        len: range.len,
        what,
    }))
}

fn lost_records<S: Serializer>(losses: &Losses, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Entry<'a> {
        count: u64,
        unknown: u64,
        first: &'a [u64],
    }
    let Losses { nr_records, nr_unknown, first } = losses;
    Entry { count: *nr_records, unknown: *nr_unknown, first }.serialize(serializer)
}

fn damaged_files<S: Serializer>(files: &[DamagedFile], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Entry<'a> {
        path: &'a str,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        links: &'a [String],
        mft_no: u64,
        #[serde(skip_serializing_if = "str::is_empty")]
        stream: &'a str,
        bytes: u64,
        kind: &'static str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        record_lost: bool,
    }
    serializer.collect_seq(files.iter().map(|file| Entry {
        path: &file.path,
        links: &file.links,
        mft_no: file.mft_no,
        stream: &file.stream,
        bytes: file.bytes,
        kind: match file.kind {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Metadata => "metadata",
        },
        record_lost: file.is_record_lost,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let file = DamagedFile {
            mft_no: 70,
            path: "/a \"b\"/ü".to_owned(),
            links: vec!["/other".to_owned()],
            stream: "s".to_owned(),
            bytes: 512,
            kind: Kind::File,
            is_record_lost: false,
        };
        let folder = DamagedFile {
            mft_no: 99,
            path: "<record 99>".to_owned(),
            links: Vec::new(),
            stream: String::new(),
            bytes: 1024,
            kind: Kind::Directory,
            is_record_lost: true,
        };
        Summary {
            version: "0.1.0",
            outcome: "complete".to_owned(),
            exit_status: 0,
            times: Times { started: 10, ended: 20, elapsed: 15 },
            disk: Disk {
                device: "/dev/sda".to_owned(),
                serial: Some("S".to_owned()),
                model: None,
                size: 4096,
            },
            volume: Some(Volume { serial: 0xabc, label: "Daten".to_owned(), cluster_size: 4096, size: 8192 }),
            bytes: Bytes { used: 8, finished: 1, non_tried: 2, bad: 5, ..Bytes::default() },
            repaired: vec![Repaired {
                range: ByteRange { pos: 0, len: 512 },
                what: "boot sector".to_owned(),
            }],
            lost_records: Losses { nr_records: 1, nr_unknown: 2, first: [99].into_iter().collect() },
            damaged_files: vec![file, folder.clone(), folder],
        }
    }

    #[test]
    fn all_is_in_the_json() {
        let bad = [ByteRange { pos: 512, len: 1024 }, ByteRange { pos: 1 << 60, len: 512 }];
        let mut out = Vec::new();
        summary().write(&mut bad.into_iter(), &mut out).unwrap();
        assert!(out.ends_with(b"}\n"));
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let folder = serde_json::json!({
            "path": "<record 99>", "mft_no": 99, "bytes": 1024, "kind": "directory", "record_lost": true,
        });
        let wanted = serde_json::json!({
            "version": "0.1.0",
            "outcome": "complete",
            "exit_status": 0,
            "times": {"started": 10, "ended": 20, "elapsed": 15},
            "disk": {"device": "/dev/sda", "serial": "S", "model": null, "size": 4096},
            "volume": {"serial": "0000000000000ABC", "label": "Daten", "cluster_size": 4096, "size": 8192},
            "bytes": {
                "used": 8, "finished": 1, "non_tried": 2, "non_trimmed": 0, "non_scraped": 0, "bad": 5, "repaired": 0,
            },
            "repaired": [{"pos": 0, "len": 512, "what": "boot sector"}],
            "lost_records": {"count": 1, "unknown": 2, "first": [99]},
            "damaged_files": [
                {
                    "path": "/a \"b\"/ü", "links": ["/other"], "mft_no": 70, "stream": "s", "bytes": 512,
                    "kind": "file",
                },
                folder,
                folder,
            ],
            "directories_unlistable": ["<record 99>"],
            "bad_areas": [{"pos": 512, "len": 1024}, {"pos": 1u64 << 60, "len": 512}],
        });
        assert_eq!(json, wanted);
    }

    #[test]
    fn a_full_disk_is_told() {
        let mut short = [0; 100];
        let error = summary().write(&mut std::iter::empty(), &mut &mut short[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
