//! NTFS volumes to test with: made by mkntfs and filled through ntfs-3g, and those that somebody else gave.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::tools::{noise, run, unmount, wait_for};

/// Names a folder with further volumes, `.ntfs` or `.raw`, or `.zst` of these; they join the compatibility tests.
const FOLDER: &str = "NTFSRESCUE_VOLUMES";

/// A folder of one test, and what it needs there.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::Builder::new().prefix("ntfsrescue-test-").tempdir().unwrap())
    }

    /// A folder in memory: for small things that are written often.
    pub fn in_memory() -> Place {
        Place(tempfile::Builder::new().prefix("ntfsrescue-test-").tempdir_in("/dev/shm").unwrap())
    }

    /// A name in the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The names of all files in it.
    pub fn names(&self) -> Vec<String> {
        let entries = self.0.path().read_dir().unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Makes a volume of `size` bytes in a sparse file.
pub fn mkntfs(path: &Path, size: u64, sector_size: u32, cluster_size: u32) {
    File::create(path).unwrap().set_len(size).unwrap();
    format(path, sector_size, cluster_size);
}

/// Makes a volume on a device or file.
pub fn format(path: &Path, sector_size: u32, cluster_size: u32) {
    run(Command::new("mkntfs")
        .args([
            "-F",
            "-Q",
            "-q",
            "-L",
            "Prüfung",
            "-s",
            &sector_size.to_string(),
            "-c",
            &cluster_size.to_string(),
        ])
        .arg(path))
    .ok();
}

/// A volume mounted through ntfs-3g, unmounted and written back when dropped.
pub struct Mounted {
    point: TempDir,
    driver: std::process::Child,
}

impl Mounted {
    pub fn new(volume: &Path, options: &str) -> Mounted {
        let point = tempfile::tempdir().unwrap();
        let driver = Command::new("ntfs-3g")
            .args(["-o", &format!("no_detach,{options}")])
            .args([volume, point.path()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run ntfs-3g: {error}"));
        let mounted = Mounted { point, driver };
        wait_for("ntfs-3g to mount", || is_mountpoint(mounted.path()));
        mounted
    }

    pub fn path(&self) -> &Path {
        self.point.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !unmount(self.point.path()) {
            let _ended = self.driver.kill();
        }
        // It has written everything back when it ends.
        let _ended = self.driver.wait();
    }
}

fn is_mountpoint(path: &Path) -> bool {
    run(Command::new("mountpoint").arg("-q").arg(path)).status == 0
}

/// Fills a volume with a mix of what occurs: many tiny files (resident), larger ones, two that are fragmented, one
/// with holes, one with a stream; then some are deleted again.
pub fn fill(volume: &Path, nr_files: u64) {
    let mounted = Mounted::new(volume, "big_writes,streams_interface=windows");
    let root = mounted.path();
    for i in 0..nr_files {
        let folder = root.join(format!("folder{}", i % 7));
        std::fs::create_dir_all(&folder).unwrap();
        let len = if i % 3 == 0 { 20 + i % 500 } else { (i * 7919) % 30_000 } as usize;
        std::fs::write(folder.join(format!("file{i}.bin")), noise(i, len)).unwrap();
    }
    let mut fragments = ["a", "b"].map(|name| File::create(root.join(name)).unwrap());
    for i in 0..40 {
        for fragment in &mut fragments {
            fragment.write_all(&noise(i, 9000)).unwrap();
            fragment.sync_all().unwrap();
        }
    }
    let mut holes = File::create(root.join("holes")).unwrap();
    for i in 0..5 {
        use std::io::{Seek, SeekFrom};
        holes.seek(SeekFrom::Start(i * 200_000)).unwrap();
        holes.write_all(&noise(i, 3000)).unwrap();
    }
    std::fs::write(root.join("a:stream"), noise(3, 5000)).unwrap();
    for i in (0..nr_files).step_by(5) {
        std::fs::remove_file(root.join(format!("folder{}/file{i}.bin", i % 7))).unwrap();
    }
}

/// Fills a volume to the last cluster, frees half of many small holes and writes a large file and many small
/// ones into those: the large file has so many runs that it needs an attribute list and extension records, and
/// `$MFT` grows into holes too.
pub fn crowd(volume: &Path) {
    let mounted = Mounted::new(volume, "big_writes");
    let root = mounted.path();
    let small = |i: u64| root.join(format!("small{i}"));
    for i in 0..1500 {
        std::fs::write(small(i), noise(i, 4000)).unwrap();
    }
    // More than once, because the driver gives back at the end what it has reserved too much.
    for _ in 0..10 {
        let mut filler = File::options().create(true).append(true).open(root.join("filler")).unwrap();
        while filler.write_all(&[1; 1024]).is_ok() {}
    }
    // Which ones is drawn: the driver does not place them in turn.
    for (i, drawn) in (0..).zip(noise(1, 1500)) {
        if drawn & 1 == 1 {
            std::fs::remove_file(small(i)).unwrap();
        }
    }
    std::fs::write(root.join("large"), noise(1, 2_500_000)).unwrap();
    // These take records, and holes for them, until there are no more.
    for i in 0..400 {
        if std::fs::write(root.join(format!("tiny{i}")), noise(i, 100)).is_err() {
            break;
        }
    }
    std::fs::remove_file(root.join("filler")).unwrap();
}

/// Writes some files a cluster of 4 KiB at a time in turn into many small holes of a volume of 48 MiB: each has extension
/// records, and those lie among those of the others.
pub fn scatter(volume: &Path) {
    let mounted = Mounted::new(volume, "big_writes");
    let root = mounted.path();
    let small = |i: u64| root.join(format!("small{i}"));
    for i in 0..6000 {
        std::fs::write(small(i), noise(i, 4000)).unwrap();
    }
    for _ in 0..10 {
        let mut filler = File::options().create(true).append(true).open(root.join("filler")).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
    }
    for (i, drawn) in (0..).zip(noise(1, 6000)) {
        if drawn < 128 {
            std::fs::remove_file(small(i)).unwrap();
        }
    }
    let mut files = [0, 1, 2, 3, 4, 5].map(|i| File::create(root.join(format!("scattered{i}"))).unwrap());
    for _ in 0..430 {
        for file in &mut files {
            file.write_all(&[2; 4096]).unwrap();
        }
    }
}

/// A volume of this size with some files, in a folder of its own.
pub fn filled(size: u64, sector_size: u32, cluster_size: u32, nr_files: u64) -> (Place, PathBuf) {
    let place = Place::new();
    let volume = place.at("volume");
    mkntfs(&volume, size, sector_size, cluster_size);
    fill(&volume, nr_files);
    (place, volume)
}

/// A filled volume of 24 MiB with clusters of 4 KiB: what most tests start from.
pub fn small_volume(path: &Path) {
    mkntfs(path, 24 << 20, 512, 4096);
    fill(path, 150);
}

/// The volumes in the folder that the environment names, decompressed into `place`: name and path of each.
pub fn given(place: &Place) -> Vec<(String, PathBuf)> {
    let Some(folder) = std::env::var_os(FOLDER) else { return Vec::new() };
    let entries = Path::new(&folder).read_dir();
    let entries = entries.unwrap_or_else(|error| panic!("{FOLDER} names {}: {error}", folder.display()));
    let mut volumes = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(stem) = name.strip_suffix(".zst") {
            let raw = place.at(stem);
            run(Command::new("zstd")
                .args(["-d", "-q", "--long=27", "--sparse"])
                .arg(&path)
                .arg("-o")
                .arg(&raw))
            .ok();
            volumes.push((stem.to_owned(), raw));
        } else if name.ends_with(".ntfs") || name.ends_with(".raw") {
            volumes.push((name, path));
        }
    }
    assert!(!volumes.is_empty(), "{FOLDER} names {}, but no volume is there", folder.display());
    volumes.sort();
    volumes
}
