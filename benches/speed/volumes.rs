//! The volumes that are copied: made once by mkntfs and filled through ntfs-3g, then kept.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use ntfsrescue::io::disk::Disk;
use ntfsrescue::ntfs::scan::scan;
use ntfsrescue::ntfs::{Tolerance, Volume};
use ntfsrescue::units::Geometry;

use crate::shared::fill::Mix;
use crate::shared::mounted::Mounted;
use crate::shared::programs::{Outcome, run};
use crate::shared::random::Random;
use crate::shared::silent::Silent;

const GIB: u64 = 1 << 30;

/// Goes into the name of a volume: to be raised when another one would be made.
const RECIPE: u32 = 1;

/// The file system in memory.
pub const IN_MEMORY: &str = "/dev/shm";

/// How a volume is made.
#[derive(Clone, Copy, PartialEq)]
pub struct Recipe {
    pub name: &'static str,
    /// Bytes of the volume, and of its clusters.
    pub len: u64,
    pub cluster_size: u32,
    /// What is in it; without that it is empty, and made anew for each benchmark, in memory.
    pub mix: Option<Mix>,
}

/// 40,000 files in 2.5 GB of 6 GiB.
pub const FILES: Recipe = users("files", 6 * GIB, 40_000, 2_500_000_000);

/// 250,000 tiny files in 4 GiB.
pub const SMALL: Recipe = tiny("small", 4 * GIB, 250_000);

/// 2^32 clusters, nearly all of them free.
pub const HUGE: Recipe = Recipe { name: "huge", len: 1 << 46, cluster_size: 16384, mix: None };

/// Volumes with 1 to 8 GB in use, and their gigabytes of files.
pub const DATA: [(f64, Recipe); 4] = [
    (1.0, users("data-1", 3 * GIB, 16_000, 1_000_000_000)),
    (2.0, users("data-2", 5 * GIB, 32_000, 2_000_000_000)),
    (4.0, users("data-4", 10 * GIB, 64_000, 4_000_000_000)),
    (8.0, users("data-8", 20 * GIB, 128_000, 8_000_000_000)),
];

/// Volumes with 50,000 to 1,000,000 files, and their thousands of files.
pub const RECORDS: [(f64, Recipe); 3] = [
    (50.0, tiny("records-50k", GIB, 50_000)),
    (250.0, SMALL),
    (1000.0, tiny("records-1m", 16 * GIB, 1_000_000)),
];

const fn users(name: &'static str, len: u64, nr_files: u64, data_len: u64) -> Recipe {
    Recipe { name, len, cluster_size: 4096, mix: Some(Mix::of_users(nr_files, data_len)) }
}

const fn tiny(name: &'static str, len: u64, nr_files: u64) -> Recipe {
    Recipe { name, len, cluster_size: 4096, mix: Some(Mix::of_tiny(nr_files)) }
}

impl Recipe {
    /// Where the volume is kept.
    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}-{RECIPE}.ntfs", self.name))
    }

    /// About how many bytes the volume takes on the disk.
    pub fn room(&self) -> u64 {
        self.mix.map_or(0, |mix| mix.data_len + mix.data_len / 20 + mix.nr_files * 2048 + self.len / 64)
    }

    /// About how many bytes are still to be written to the disk for it.
    pub fn missing_room(&self, folder: &Path) -> u64 {
        if self.path(folder).exists() { 0 } else { self.room() }
    }

    /// Makes it if it is not there, and looks what is in it.
    pub fn volume(&self, folder: &Path) -> Outcome<Sample> {
        let Some(mix) = self.mix else {
            let place = tempfile::Builder::new().prefix("ntfsrescue-bench-").tempdir_in(IN_MEMORY)?;
            let path = place.path().join(self.name);
            self.format(&path)?;
            return Sample::examine(path, Some(place));
        };
        let path = self.path(folder);
        if !path.exists() {
            self.remove_older(folder)?;
            eprintln!("making {} ({} files), once", path.display(), mix.nr_files);
            let part = path.with_extension("part");
            self.format(&part)?;
            let mounted = Mounted::new(&part)?;
            mix.fill(mounted.path(), Random::new("speed", 0))?;
            mounted.unmount()?;
            fs::rename(part, &path)?;
        }
        Sample::examine(path, None)
    }

    fn format(&self, path: &Path) -> Outcome<()> {
        File::create(path)?.set_len(self.len)?;
        let cluster_size = self.cluster_size.to_string();
        run(Command::new("mkntfs").args(["-F", "-Q", "-q", "-L", "bench", "-c", &cluster_size]).arg(path))?;
        Ok(())
    }

    /// Removes it, if it is there.
    pub fn remove(&self, folder: &Path) -> io::Result<()> {
        let path = self.path(folder);
        if path.exists() { fs::remove_file(path) } else { Ok(()) }
    }

    /// Removes volumes of this name that were made by another recipe, or not wholly.
    fn remove_older(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if stem.rsplit_once('-').is_some_and(|(name, _)| name == self.name) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// A volume to be copied, and what is known of it.
pub struct Sample {
    pub path: PathBuf,
    pub geometry: Geometry,
    pub nr_used: u64,
    /// The bytes in use, as long stretches as can be; without the backup boot sector.
    pub used: Vec<Range<u64>>,
    /// Keeps the folder of a volume that is in memory.
    _place: Option<tempfile::TempDir>,
}

impl Sample {
    fn examine(path: PathBuf, place: Option<tempfile::TempDir>) -> Outcome<Sample> {
        let disk = Disk::open(&path)?;
        let volume = Volume::open(&disk, Tolerance::default(), &Silent)?;
        let usage = scan(&volume, Tolerance::default(), None, &Silent)?;
        let geometry = volume.info.geometry;
        let used = usage.used.extents().map(|extent| {
            let start = geometry.pos(extent.lcn);
            start..start + extent.len * u64::from(geometry.cluster_size)
        });
        let used = used.collect();
        Ok(Sample { path, geometry, nr_used: usage.nr_used, used, _place: place })
    }

    /// The bytes of its used clusters.
    pub fn used_len(&self) -> u64 {
        self.geometry.copied_bytes(self.nr_used)
    }

    /// Where the backup boot sector lies.
    pub fn extra(&self) -> Range<u64> {
        self.geometry.volume_size()..self.geometry.written_end()
    }
}
