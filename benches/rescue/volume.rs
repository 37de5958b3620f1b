//! The volumes that the disks hold: made once by mkntfs and filled through ntfs-3g, then kept under target/bench.
//!
//! What is in use, and where `$MFT`, `$Bitmap` and the files of one folder lie, is read by our own library from the
//! healthy volume. That the used clusters are those that ntfsclone copies is checked when a volume is made.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ntfsrescue::event::{Event, Observer};
use ntfsrescue::io::disk::Disk;
use ntfsrescue::ntfs::attr::types;
use ntfsrescue::ntfs::mft::Value;
use ntfsrescue::ntfs::scan::scan;
use ntfsrescue::ntfs::{Tolerance, Volume, mft_no};

use crate::random::Random;
use crate::sectors::{SECTOR, Sectors};
use crate::tools::{Outcome, run, wait_for};

/// Bytes of a volume, its files, and the bytes in them.
const VOLUME_LEN: u64 = 1 << 30;
const NR_FILES: u64 = 6000;
const DATA_LEN: u64 = 420_000_000;

/// Files that grow in turns, so that they are fragmented.
const NR_FRAGMENTED: usize = 40;

/// Longest write, and longest file.
const WRITE: u64 = 512 << 10;
const MAX_FILE: u64 = 256 << 20;

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

/// Nobody wants to know what a scan of a healthy volume tells.
struct Silent;

impl Observer for Silent {
    fn tell(&self, _: Event<'_>) {}
}

/// Makes a volume and the list of the MFT records of what is in [`WANTED`].
fn make(path: &Path, list: &Path, number: u64) -> Outcome<()> {
    let part = path.with_extension("part");
    File::create(&part)?.set_len(VOLUME_LEN)?;
    run(Command::new("mkntfs").args(["-F", "-Q", "-q", "-c", "4096", "-L", "bench"]).arg(&part))?;
    let mounted = Mounted::new(&part)?;
    fill(mounted.path(), number)?;
    let mut wanted = String::new();
    list_records(&mounted.path().join(WANTED), &mut wanted)?;
    mounted.unmount()?;
    fs::write(list, &wanted)?;
    Healthy::examine(part.clone(), &wanted)?.check_against_ntfsclone()?;
    Ok(fs::rename(part, path)?)
}

/// Writes a reproducible mix: 60 % tiny files, log-normal sizes, the rest of the data in fragmented files. A twentieth of
/// the data goes to one folder, all along, so that it lies as scattered as the rest.
fn fill(root: &Path, number: u64) -> io::Result<()> {
    let mut random = Random::new("volume", number);
    let blob = random.bytes(1 << 20);
    let folders: Vec<_> = (0..NR_FILES / 200).map(|i| root.join(format!("d{}/s{i}", i % 17))).collect();
    let wanted = [root.join(WANTED), root.join(WANTED).join("inner")];
    for folder in folders.iter().chain(&wanted) {
        fs::create_dir_all(folder)?;
    }
    let (mut left, mut in_wanted) = (DATA_LEN, 0);
    for i in 0..NR_FILES {
        let is_tiny = random.unit() < 0.6;
        let len = if is_tiny { random.below(600) } else { random.log_normal(9.5, 2.0) as u64 };
        let len = len.min(left).min(MAX_FILE);
        left -= len;
        let is_wanted = (in_wanted + len) * WANTED_SHARE <= DATA_LEN - left;
        let folder = if is_wanted { random.choice(&wanted) } else { random.choice(&folders) };
        in_wanted += if is_wanted { len } else { 0 };
        let mut file = File::create(folder.join(format!("f{i}.bin")))?;
        let mut written = 0;
        while written < len {
            let at = random.below(WRITE) as usize;
            let n = (len - written).min(WRITE);
            file.write_all(&blob[at..at + n as usize])?;
            written += n;
        }
    }
    let nr_wanted = NR_FRAGMENTED / WANTED_SHARE as usize;
    let mut fragmented = Vec::new();
    for i in 0..NR_FRAGMENTED {
        let folder = if i < nr_wanted { &wanted[0] } else { root };
        fragmented.push(File::create(folder.join(format!("fragmented{i}.bin")))?);
    }
    while left > 0 {
        let n = left.min(*random.choice(&[4096, 8192, 65536, 1 << 20]));
        let which = random.below(NR_FRAGMENTED as u64) as usize;
        fragmented[which].write_all(&blob[..n as usize])?;
        left -= n;
    }
    Ok(())
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

/// A volume mounted through ntfs-3g; unmounted when dropped, should that not have been done.
struct Mounted {
    point: tempfile::TempDir,
    driver: Child,
}

impl Mounted {
    fn new(volume: &Path) -> Outcome<Mounted> {
        let point = tempfile::tempdir()?;
        let driver = Command::new("ntfs-3g")
            .args(["-o", "no_detach,big_writes"])
            .args([volume, point.path()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mounted = Mounted { point, driver };
        wait_for("ntfs-3g to mount", || {
            Command::new("mountpoint")
                .arg("-q")
                .arg(mounted.path())
                .status()
                .is_ok_and(|status| status.success())
        })?;
        Ok(mounted)
    }

    fn path(&self) -> &Path {
        self.point.path()
    }

    /// Returns when all is written back.
    fn unmount(mut self) -> Outcome<()> {
        run(Command::new("umount").arg(self.path()))?;
        self.driver.wait()?;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if matches!(self.driver.try_wait(), Ok(None)) {
            let _best_effort = Command::new("umount").arg("--lazy").arg(self.point.path()).status();
            let _ended = self.driver.wait();
        }
    }
}

/// The sectors that an image by ntfsclone holds. Its commands follow its header, whose length is at byte 46: 0 and a
/// number of clusters to skip, or 1 and a cluster.
fn copied_by_ntfsclone(volume: &Path, len: u64) -> Outcome<Sectors> {
    let mut child = Command::new("ntfsclone")
        .args(["-q", "-f", "-s", "-o", "-"])
        .arg(volume)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut image = BufReader::with_capacity(1 << 20, child.stdout.take().ok_or("no output")?);
    let mut header = [0; 50];
    image.read_exact(&mut header)?;
    let number =
        |at: usize, len: usize| header[at..at + len].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    let (cluster_size, device_size, nr_clusters, data) =
        (number(18, 4), number(22, 8), number(30, 8), number(46, 4));
    io::copy(&mut image.by_ref().take(data - 50), &mut io::sink())?;
    let mut copied = Sectors::new(len);
    let mut lcn = 0;
    while lcn <= nr_clusters {
        let mut command = [0];
        if image.read(&mut command)? == 0 {
            break;
        }
        if command[0] == 0 {
            let mut skipped = [0; 8];
            image.read_exact(&mut skipped)?;
            lcn += u64::from_le_bytes(skipped);
            continue;
        }
        let pos = lcn * cluster_size;
        let here = cluster_size.min(device_size - pos);
        copied.insert_range(pos / SECTOR..(pos + here) / SECTOR);
        io::copy(&mut image.by_ref().take(here), &mut io::sink())?;
        lcn += 1;
    }
    child.wait()?;
    Ok(copied)
}
