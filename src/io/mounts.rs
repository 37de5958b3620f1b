//! What is mounted, and which files, disks and partitions are the same bytes.
//!
//! From `/proc/self/mountinfo` (proc(5)) and `/sys/dev/block` (the kernel's sysfs rules for block devices).

use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where bytes are kept, so that two names for the same place are found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A block device.
    Device(DeviceNo),
    /// A file on some file system.
    File {
        /// The file system's device number.
        dev: u64,
        /// The file's number on it.
        ino: u64,
    },
}

/// A block device's number, and the number of the disk if it is a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNo {
    no: u64,
    disk: Option<u64>,
    /// The file behind a loop device.
    backing: Option<(u64, u64)>,
}

impl Place {
    /// The place that `path` names; none where there is nothing, or nothing that keeps bytes.
    pub fn of(path: &Path) -> Option<Place> {
        Place::of_metadata(&std::fs::metadata(path).ok()?)
    }

    fn of_metadata(metadata: &Metadata) -> Option<Place> {
        if metadata.file_type().is_block_device() {
            let no = metadata.rdev();
            let sysfs = sysfs_dir(no);
            // A partition's directory lies in its disk's.
            let disk =
                sysfs.join("partition").exists().then(|| device_no_in(&sysfs.join("../dev"))).flatten();
            let backing = std::fs::read(sysfs.join("loop/backing_file")).ok().and_then(|name| {
                let path = PathBuf::from(std::ffi::OsString::from_vec(name.trim_ascii_end().to_vec()));
                std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
            });
            return Some(Place::Device(DeviceNo { no, disk, backing }));
        }
        metadata.is_file().then(|| Place::File { dev: metadata.dev(), ino: metadata.ino() })
    }

    /// Do the two share bytes: the same file or device, a disk and its partition, a loop device and its file?
    pub fn overlaps(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Device(a), Place::Device(b)) => {
                a.no == b.no
                    || a.disk == Some(b.no)
                    || b.disk == Some(a.no)
                    || (a.backing.is_some() && a.backing == b.backing)
            }
            (Place::File { dev, ino }, Place::Device(device))
            | (Place::Device(device), Place::File { dev, ino }) => device.backing == Some((*dev, *ino)),
            (a, b) => a == b,
        }
    }
}

fn sysfs_dir(no: u64) -> PathBuf {
    let (major, minor) = (nix::sys::stat::major(no), nix::sys::stat::minor(no));
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// The device number in a sysfs `dev` file.
fn device_no_in(path: &Path) -> Option<u64> {
    parse_device_no(std::fs::read_to_string(path).ok()?.trim())
}

fn parse_device_no(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// Can the file system be written to?
    pub writable: bool,
}

/// The mounts that use any of the bytes at `place`.
pub fn mounts_of(place: &Place) -> Vec<Mount> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let entries = table.split(|byte| *byte == b'\n').filter_map(parse_entry);
    let uses = |entry: &Entry| {
        let of_source = entry.source.is_absolute().then(|| Place::of(&entry.source)).flatten();
        let of_number = (nix::sys::stat::major(entry.device) != 0).then(|| {
            let sysfs = sysfs_dir(entry.device);
            let disk =
                sysfs.join("partition").exists().then(|| device_no_in(&sysfs.join("../dev"))).flatten();
            Place::Device(DeviceNo { no: entry.device, disk, backing: None })
        });
        of_source.into_iter().chain(of_number).any(|mounted| mounted.overlaps(place))
    };
    entries.filter(uses).map(|entry| entry.mount).collect()
}

/// One line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mount: Mount,
    device: u64,
    source: PathBuf,
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = parse_device_no(std::str::from_utf8(fields.nth(2)?).ok()?)?;
    let point = unescape(fields.nth(1)?);
    let mut behind = fields.skip_while(|field| *field != b"-").skip(2);
    let source = unescape(behind.next()?);
    let options = behind.next()?;
    let writable = !options.split(|byte| *byte == b',').any(|option| option == b"ro");
    Some(Entry { mount: Mount { point, writable }, device, source })
}

/// Blanks, tabs, newlines and backslashes are octal there.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_parsed() {
        let line = br"36 35 8:1 / /mnt/my\040disk rw,noatime shared:1 - ntfs3 /dev/sda1 ro,uid=0";
        let entry = parse_entry(line).unwrap();
        assert_eq!(entry.mount, Mount { point: "/mnt/my disk".into(), writable: false });
        assert_eq!((entry.device, entry.source), (nix::sys::stat::makedev(8, 1), "/dev/sda1".into()));
        assert!(parse_entry(b"36 35 0:21 / / rw - tmpfs tmpfs rw").unwrap().mount.writable);
        assert_eq!(parse_entry(b""), None);
    }

    #[test]
    fn a_disk_overlaps_its_partitions_but_those_not_each_other() {
        let device = |no, disk| Place::Device(DeviceNo { no, disk, backing: Some((1, no)) });
        let (disk, first, second) = (device(8, None), device(9, Some(8)), device(10, Some(8)));
        assert!(disk.overlaps(&first) && second.overlaps(&disk) && first.overlaps(&first));
        assert!(!first.overlaps(&second));
        assert!(first.overlaps(&Place::File { dev: 1, ino: 9 }), "a loop device and its file");
        assert!(!first.overlaps(&Place::File { dev: 1, ino: 8 }));
    }
}
