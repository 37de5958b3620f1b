//! Block devices as sysfs shows them: a folder for each, those of partitions in their disk's, with a small file for
//! each fact (`Documentation/ABI/stable/sysfs-block` of the kernel).

use std::path::{Path, PathBuf};

/// Unit of sizes and positions, in bytes, whatever sectors the disk has.
pub const SECTOR: u64 = 512;

/// Where sysfs is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysfs(pub PathBuf);

impl Default for Sysfs {
    fn default() -> Sysfs {
        Sysfs("/sys".into())
    }
}

impl Sysfs {
    /// The folder of the device with this number: a link.
    pub fn link_of(&self, device_no: u64) -> PathBuf {
        let (major, minor) = (nix::sys::stat::major(device_no), nix::sys::stat::minor(device_no));
        self.0.join(format!("dev/block/{major}:{minor}"))
    }

    /// The folder of the device with this number, where it really is; none where there is no such device.
    pub fn folder_of(&self, device_no: u64) -> Option<PathBuf> {
        std::fs::canonicalize(self.link_of(device_no)).ok()
    }

    /// The folders of all disks, in no order. A path to an NVMe disk is none: it has no number.
    pub fn disks(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.0.join("class/block")).into_iter().flatten().flatten();
        let folders = entries.filter_map(|entry| std::fs::canonicalize(entry.path()).ok());
        folders.filter(|folder| folder.join("dev").exists() && !is_partition(folder)).collect()
    }
}

/// Is this the folder of a partition?
pub fn is_partition(folder: &Path) -> bool {
    folder.join("partition").exists()
}

/// The folder of the disk that a device belongs to, itself included, where they really are.
pub fn disk_of(folder: &Path) -> &Path {
    folder.parent().filter(|_| is_partition(folder)).unwrap_or(folder)
}

/// The folders of a disk's partitions, in no order.
pub fn partitions_of(disk: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(disk).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|folder| is_partition(folder)).collect()
}

/// The device's path: its name there can have a `/` in it, which its folder's cannot.
pub fn dev_path(folder: &Path) -> Option<PathBuf> {
    let uevent = std::fs::read_to_string(folder.join("uevent")).ok()?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

/// A size or position in bytes.
pub fn bytes(file: &Path) -> Option<u64> {
    number(file)?.checked_mul(SECTOR)
}

/// A number, in decimal.
pub fn number(file: &Path) -> Option<u64> {
    line(file)?.parse().ok()
}

/// A file of one line, without blanks around it. None where it is missing or empty.
pub fn line(file: &Path) -> Option<String> {
    let bytes = std::fs::read(file).ok()?;
    Some(clean(&bytes)).filter(|text| !text.is_empty())
}

/// Text without the blanks and zeros that fill it up.
pub fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sysfs of a test.
    pub struct Fake(tempfile::TempDir);

    impl Fake {
        pub fn new() -> Fake {
            Fake(tempfile::tempdir().unwrap())
        }

        pub fn sysfs(&self) -> Sysfs {
            Sysfs(self.0.path().to_owned())
        }

        /// Writes a file, and the folders on the way to it.
        pub fn write(&self, file: &str, content: &[u8]) {
            let path = self.0.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }

        /// The first line of a file: a setting is written over an old one that may be longer.
        pub fn read(&self, file: &str) -> String {
            let text = std::fs::read_to_string(self.0.path().join(file)).unwrap();
            text.lines().next().unwrap_or("").to_owned()
        }

        /// A device with minor number `minor`, `devices/FOLDER`.
        pub fn device(&self, folder: &str, minor: u32, size: u64) {
            let folder = format!("devices/{folder}");
            let name = folder.rsplit('/').next().unwrap();
            self.write(&format!("{folder}/dev"), format!("8:{minor}\n").as_bytes());
            self.write(&format!("{folder}/uevent"), format!("MAJOR=8\nDEVNAME={name}\nX=y\n").as_bytes());
            self.write(&format!("{folder}/size"), format!("{}\n", size / SECTOR).as_bytes());
            for link in [format!("dev/block/8:{minor}"), format!("class/block/{name}")] {
                let link = self.0.path().join(link);
                std::fs::create_dir_all(link.parent().unwrap()).unwrap();
                symlink(self.0.path().join(&folder), link).unwrap();
            }
        }

        /// A partition in the folder of its disk.
        pub fn partition(&self, folder: &str, minor: u32, start: u64, size: u64) {
            self.device(folder, minor, size);
            self.write(&format!("devices/{folder}/partition"), format!("{minor}\n").as_bytes());
            self.write(&format!("devices/{folder}/start"), format!("{}\n", start / SECTOR).as_bytes());
        }

        /// Takes a disk and all that belongs to it away.
        pub fn unplug(&self, folder: &str) {
            std::fs::remove_dir_all(self.0.path().join("devices").join(folder)).unwrap();
            for links in ["dev/block", "class/block"] {
                for link in std::fs::read_dir(self.0.path().join(links)).unwrap().flatten() {
                    if !link.path().exists() {
                        std::fs::remove_file(link.path()).unwrap();
                    }
                }
            }
        }
    }

    /// The number of a [`Fake::device`].
    pub fn number_of(minor: u64) -> u64 {
        nix::sys::stat::makedev(8, minor)
    }

    #[test]
    fn disks_and_their_partitions() {
        let fake = Fake::new();
        fake.device("pci/host1/block/sda", 0, 1 << 20);
        fake.partition("pci/host1/block/sda/sda1", 1, 4096, 8192);
        fake.device("virtual/block/nvme0c0n1", 9, 0);
        std::fs::remove_file(fake.sysfs().0.join("devices/virtual/block/nvme0c0n1/dev")).unwrap();
        let sysfs = fake.sysfs();
        let partition = sysfs.folder_of(number_of(1)).unwrap();
        let disk = disk_of(&partition);
        assert!(is_partition(&partition) && !is_partition(disk));
        assert_eq!(Some(disk), sysfs.folder_of(number_of(0)).as_deref());
        assert_eq!(disk_of(disk), disk);
        assert_eq!((sysfs.disks(), partitions_of(disk)), (vec![disk.to_owned()], vec![partition.clone()]));
        assert_eq!(dev_path(&partition).unwrap(), Path::new("/dev/sda1"));
        assert_eq!(
            (bytes(&partition.join("start")), bytes(&partition.join("size"))),
            (Some(4096), Some(8192))
        );
        assert_eq!(sysfs.folder_of(number_of(2)), None);
    }
}
