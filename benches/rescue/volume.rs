//! The volumes that the disks hold: made once by mkntfs and filled through ntfs-3g, then kept under target/bench.
//!
//! What is in use, and where `$MFT`, `$Bitmap` and the files of one folder lie, is read by our own library from the
//! healthy volume. That the used clusters are those that ntfsclone copies is checked when a volume is made.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ntfsrescue::io::disk::Disk;
use ntfsrescue::ntfs::attr::types;
use ntfsrescue::ntfs::mft::Value;
use ntfsrescue::ntfs::scan::scan;
use ntfsrescue::ntfs::{Tolerance, Volume, mft_no};

use crate::sectors::{SECTOR, Sectors};
use crate::shared::fill::Mix;
use crate::shared::image;
use crate::shared::mounted::Mounted;
use crate::shared::programs::{Outcome, run};
use crate::shared::random::Random;
use crate::shared::silent::Silent;

/// Bytes of a volume, its files, and the bytes in them.
const VOLUME_LEN: u64 = 1 << 30;
const NR_FILES: u64 = 6000;
const DATA_LEN: u64 = 420_000_000;

/// The folder that `--first` names in some runs, and which part of all data is in it.
pub const WANTED: &str = "wanted";
const WANTED_SHARE: u64 = 20;

/// So many seeds share a volume, and so many volumes there are.
pub const SEEDS_PER_VOLUME: u64 = 5;
const NR_VOLUMES: u64 = 4;

/// Goes into the name of a volume: to be raised when another one would be made.
const RECIPE: u32 = 1;

/// A healthy volume, and what is known of it.
pub struct Healthy {
    /// The file.
    pub path: PathBuf,
    /// Its used clusters, as a domain for ddrescue.
    pub domain: PathBuf,
    /// Its bytes.
    pub len: u64,
    /// What is in use, with the backup boot sector.
    pub used: Sectors,
    /// Contents, records and indexes of what is in the folder [`WANTED`].
    pub wanted: Sectors,
    /// The sectors of `$MFT` and of `$Bitmap`.
    pub mft: Sectors,
    pub bitmap: Sectors,
}

impl Healthy {
    /// The volume of a seed; made now if it is not there.
    pub fn of_seed(folder: &Path, seed: u64) -> Outcome<Healthy> {
        let number = seed.saturating_sub(1) / SEEDS_PER_VOLUME % NR_VOLUMES;
        let path = folder.join(format!("volume-{RECIPE}-{number}.raw"));
        let list = path.with_extension("wanted");
        if !path.exists() {
            eprintln!("making {}", path.display());
            make(&path, &list, number)?;
        }
        let healthy = Healthy::examine(path, &fs::read_to_string(list)?)?;
        healthy.write_domain()?;
        Ok(healthy)
    }

    fn examine(path: PathBuf, wanted_files: &str) -> Outcome<Healthy> {
        let disk = Disk::open(&path)?;
        let volume = Volume::open(&disk, Tolerance::default(), &Silent)?;
        let usage = scan(&volume, Tolerance::default(), None, &Silent)?;
        let geometry = volume.info.geometry;
        let per_cluster = u64::from(geometry.cluster_size) / SECTOR;
        let mut used = Sectors::new(geometry.device_size);
        for extent in usage.used.extents() {
            used.insert_range(extent.lcn.0 * per_cluster..extent.end() * per_cluster);
        }
        used.insert_range(geometry.volume_size() / SECTOR..geometry.written_end() / SECTOR);

        let place = |into: &mut Sectors, mft_no: u64, kind: u32, name: &[u8]| -> Outcome<()> {
            if let Some(Value::Stream(stream)) = volume.mft.value(&disk, mft_no, kind, name)? {
                for extent in stream.runs.runs().iter().filter_map(|run| run.extent()) {
                    into.insert_range(extent.lcn.0 * per_cluster..extent.end() * per_cluster);
                }
            }
            Ok(())
        };
        let none = Sectors::new(geometry.device_size);
        let [mut mft, mut bitmap, mut wanted] = [none.clone(), none.clone(), none];
        place(&mut mft, mft_no::MFT, types::DATA, b"")?;
        place(&mut bitmap, mft_no::BITMAP, types::DATA, b"")?;
        for line in wanted_files.lines() {
            let mft_no = line.parse()?;
            let pos = volume.mft.record_pos(mft_no).ok_or("a record without a place")?;
            wanted.insert_range(pos / SECTOR..(pos + volume.mft.record_size() as u64) / SECTOR);
            place(&mut wanted, mft_no, types::DATA, b"")?;
            place(&mut wanted, mft_no, types::INDEX_ALLOCATION, b"$\0I\x003\x000\0")?;
        }
        let domain = path.with_extension("domain");
        Ok(Healthy { path, domain, len: geometry.device_size, used, wanted, mft, bitmap })
    }

    /// Writes the used sectors as ddrescue's map, finished: what a user of ddrescue would have to know.
    fn write_domain(&self) -> io::Result<()> {
        let mut text = String::from("0x00000000     +\n");
        let mut at = 0;
        for range in self.used.ranges() {
            let (start, end) = (range.start * SECTOR, range.end * SECTOR);
            if start > at {
                text += &format!("0x{at:08X}  0x{:08X}  ?\n", start - at);
            }
            text += &format!("0x{start:08X}  0x{:08X}  +\n", end - start);
            at = end;
        }
        if at < self.len {
            text += &format!("0x{at:08X}  0x{:08X}  ?\n", self.len - at);
        }
        fs::write(&self.domain, text)
    }

    /// Fails if ntfsclone would copy other clusters.
    fn check_against_ntfsclone(&self) -> Outcome<()> {
        let theirs = copied_by_ntfsclone(&self.path, self.len)?;
        let (ours, common) = (self.used.count(), self.used.count_common(&theirs));
        if (ours, common) != (theirs.count(), ours) {
            return Err(format!("{ours} used sectors by us, {} by ntfsclone", theirs.count()).into());
        }
        Ok(())
    }
}

/// Makes a volume and the list of the MFT records of what is in [`WANTED`].
fn make(path: &Path, list: &Path, number: u64) -> Outcome<()> {
    let part = path.with_extension("part");
    File::create(&part)?.set_len(VOLUME_LEN)?;
    run(Command::new("mkntfs").args(["-F", "-Q", "-q", "-c", "4096", "-L", "bench"]).arg(&part))?;
    let mounted = Mounted::new(&part)?;
    let mix = Mix { wanted: Some((WANTED, WANTED_SHARE)), ..Mix::of_users(NR_FILES, DATA_LEN) };
    mix.fill(mounted.path(), Random::new("volume", number))?;
    let mut wanted = String::new();
    list_records(&mounted.path().join(WANTED), &mut wanted)?;
    mounted.unmount()?;
    fs::write(list, &wanted)?;
    Healthy::examine(part.clone(), &wanted)?.check_against_ntfsclone()?;
    Ok(fs::rename(part, path)?)
}

/// Adds the MFT records of a folder and all below it, one a line: ntfs-3g gives them as inode numbers.
fn list_records(folder: &Path, list: &mut String) -> io::Result<()> {
    *list += &format!("{}\n", fs::metadata(folder)?.ino());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list_records(&entry.path(), list)?;
        } else {
            *list += &format!("{}\n", entry.metadata()?.ino());
        }
    }
    Ok(())
}

/// The sectors that an image by ntfsclone holds.
fn copied_by_ntfsclone(volume: &Path, len: u64) -> Outcome<Sectors> {
    let mut child = Command::new("ntfsclone")
        .args(["-q", "-f", "-s", "-o", "-"])
        .arg(volume)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let image = BufReader::with_capacity(1 << 20, child.stdout.take().ok_or("no output")?);
    let mut copied = Sectors::new(len);
    image::clusters(image, |pos, bytes| {
        copied.insert_range(pos / SECTOR..(pos + bytes.len() as u64) / SECTOR);
        Ok(())
    })?;
    child.wait()?;
    Ok(copied)
}
