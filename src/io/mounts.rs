//! What is mounted, and which files, disks and partitions are the same bytes.
//!
//! From `/proc/self/mountinfo` (proc(5)) and `/sys/dev/block` (the kernel's sysfs rules for block devices).

use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::sysfs::{self, Sysfs};

/// Devices that may lie on each other: more than anybody stacks.
const MAX_DEPTH: u32 = 16;

/// Where bytes are kept, so that two names for the same bytes are found out: a device or file, and all that it lies
/// on (a partition on its disk, a loop device on its file, a mapped device on others).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device or file itself first.
    layers: Vec<Layer>,
}

/// A device or file, and which of its bytes belong to the place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    id: Id,
    start: u64,
    end: u64,
    /// Only some of these bytes belong to it, nobody here knows which: a mapped device's.
    is_vague: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    /// A block device's number.
    Device(u64),
    /// A file's number on the file system with this device number.
    File { dev: u64, ino: u64 },
}

impl Place {
    /// The place that `path` names; none where there is nothing, or nothing that keeps bytes.
    pub fn of(path: &Path) -> Option<Place> {
        Some(Place::from_id(id_of(&std::fs::metadata(path).ok()?)?))
    }

    fn from_id(id: Id) -> Place {
        let mut place = Place { layers: Vec::new() };
        place.descend(Layer { id, start: 0, end: u64::MAX, is_vague: false }, 0);
        place
    }

    /// Adds a layer and all that it lies on.
    fn descend(&mut self, layer: Layer, depth: u32) {
        self.layers.push(layer.clone());
        let Id::Device(no) = layer.id else { return };
        if depth == MAX_DEPTH {
            return;
        }
        let folder = Sysfs::default().link_of(no);
        // The layer's bytes as they lie on the one below, which holds `len` of them from `offset` on.
        let below = |id, offset: u64, len: Option<u64>| {
            let end = len.map_or(u64::MAX, |len| offset.saturating_add(len));
            Layer {
                id,
                start: offset.saturating_add(layer.start).min(end),
                end: offset.saturating_add(layer.end).min(end),
                is_vague: layer.is_vague,
            }
        };
        if sysfs::is_partition(&folder) {
            // A partition's directory lies in its disk's.
            if let Some(disk) = device_no_in(&folder.join("../dev")) {
                let [start, size] = ["start", "size"].map(|name| sysfs::bytes(&folder.join(name)));
                self.descend(below(Id::Device(disk), start.unwrap_or(0), size), depth + 1);
            }
        } else if let Some(file) = backing_file(&folder) {
            let limit = sysfs::number(&folder.join("loop/sizelimit")).filter(|limit| *limit != 0);
            self.descend(
                below(file, sysfs::number(&folder.join("loop/offset")).unwrap_or(0), limit),
                depth + 1,
            );
        }
        for slave in std::fs::read_dir(folder.join("slaves")).into_iter().flatten().flatten() {
            if let Some(no) = device_no_in(&slave.path().join("dev")) {
                let id = Id::Device(no);
                self.descend(Layer { id, start: 0, end: u64::MAX, is_vague: true }, depth + 1);
            }
        }
    }

    /// Do the two share bytes? Two mapped devices on the same disk are taken for different ones, as two logical
    /// volumes are.
    pub fn overlaps(&self, other: &Place) -> bool {
        let pairs = self.layers.iter().flat_map(|a| other.layers.iter().map(move |b| (a, b)));
        pairs
            .filter(|(a, b)| a.id == b.id && !(a.is_vague && b.is_vague))
            .any(|(a, b)| a.start.max(b.start) < a.end.min(b.end))
    }
}

fn id_of(metadata: &Metadata) -> Option<Id> {
    if metadata.file_type().is_block_device() {
        return Some(Id::Device(metadata.rdev()));
    }
    metadata.is_file().then(|| Id::File { dev: metadata.dev(), ino: metadata.ino() })
}

/// The file or device behind a loop device.
fn backing_file(folder: &Path) -> Option<Id> {
    let name = std::fs::read(folder.join("loop/backing_file")).ok()?;
    let path = PathBuf::from(std::ffi::OsString::from_vec(name.trim_ascii_end().to_vec()));
    id_of(&std::fs::metadata(path).ok()?)
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
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_else(|error| {
        log::warn!("what is mounted cannot be told: /proc/self/mountinfo: {error}");
        Vec::new()
    });
    let entries = table.split(|byte| *byte == b'\n').filter_map(parse_entry);
    let uses = |entry: &Entry| {
        let of_source = entry.source.is_absolute().then(|| Place::of(&entry.source)).flatten();
        // Major number 0 belongs to file systems without a device.
        let has_device = nix::sys::stat::major(entry.device) != 0;
        let of_number = has_device.then(|| Place::from_id(Id::Device(entry.device)));
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

    /// Layers from the top: device number or file, and which bytes of it.
    fn place(layers: &[(Id, u64, u64, bool)]) -> Place {
        let layer = |&(id, start, end, is_vague)| Layer { id, start, end, is_vague };
        Place { layers: layers.iter().map(layer).collect() }
    }

    const ALL: u64 = u64::MAX;

    #[test]
    fn a_disk_overlaps_its_partitions_but_those_not_each_other() {
        let [disk, first, second] = [8, 9, 10].map(Id::Device);
        let whole = place(&[(disk, 0, ALL, false)]);
        let one = place(&[(first, 0, ALL, false), (disk, 100, 200, false)]);
        let two = place(&[(second, 0, ALL, false), (disk, 200, 300, false)]);
        assert!(whole.overlaps(&one) && two.overlaps(&whole) && one.overlaps(&one));
        assert!(!one.overlaps(&two));
        let across = place(&[(disk, 199, 201, false)]);
        assert!(across.overlaps(&one) && across.overlaps(&two));
    }

    #[test]
    fn mapped_devices_overlap_what_they_lie_on_but_not_each_other() {
        let [disk, partition, other, a, b] = [8, 9, 10, 50, 51].map(Id::Device);
        let mapped = |id| place(&[(id, 0, ALL, false), (partition, 0, ALL, true), (disk, 100, 200, true)]);
        assert!(!mapped(a).overlaps(&mapped(b)));
        assert!(mapped(a).overlaps(&mapped(a)));
        assert!(mapped(a).overlaps(&place(&[(partition, 0, ALL, false), (disk, 100, 200, false)])));
        assert!(mapped(a).overlaps(&place(&[(disk, 0, ALL, false)])));
        assert!(!mapped(a).overlaps(&place(&[(other, 0, ALL, false), (disk, 200, 300, false)])));
    }
}
