//! By what a disk is told from others, and found again when it comes back under another name.
//!
//! All of it is in sysfs. A device node is only a name that the next disk can get, so what counts is the serial number,
//! and the sizes of the disk and of the part that is read.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Source;
use super::disk::Disk;
use super::sysfs::{self, Sysfs};

/// What is known of a disk: the whole one, also where a partition of it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskIdentity {
    /// Its serial number; empty where it has none, as loop devices and files do.
    pub serial: String,
    /// Its model; empty where it names none.
    pub model: String,
    /// Bytes.
    pub size: u64,
}

/// What is being read, and how to find it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The disk.
    pub disk: DiskIdentity,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// A partition, and not the disk itself?
    is_partition: bool,
    /// Its path, and the number of the time that the disk was attached, where the kernel counts (from 5.15 on). None
    /// for what is no device.
    now: Option<(PathBuf, Option<u64>)>,
}

impl Known {
    /// What `disk` is.
    pub fn of(disk: &Disk) -> Known {
        let metadata = disk.file().metadata().ok();
        let device = metadata.filter(|metadata| metadata.file_type().is_block_device());
        device.and_then(|device| Known::of_device(&Sysfs::default(), device.rdev())).unwrap_or_else(|| {
            let size = disk.len();
            let unknown = DiskIdentity { size, ..DiskIdentity::default() };
            Known { disk: unknown, start: 0, size, is_partition: false, now: None }
        })
    }

    fn of_device(sysfs: &Sysfs, device_no: u64) -> Option<Known> {
        Known::of_folder(&sysfs.folder_of(device_no)?)
    }

    fn of_folder(folder: &Path) -> Option<Known> {
        let disk = sysfs::disk_of(folder);
        let is_partition = sysfs::is_partition(folder);
        let start = if is_partition { sysfs::bytes(&folder.join("start"))? } else { 0 };
        let identity = DiskIdentity {
            serial: serials(disk).into_iter().next().unwrap_or_default(),
            model: model(disk),
            size: sysfs::bytes(&disk.join("size"))?,
        };
        let now = (sysfs::dev_path(folder)?, sysfs::number(&disk.join("diskseq")));
        let size = sysfs::bytes(&folder.join("size"))?;
        Some(Known { disk: identity, start, size, is_partition, now: Some(now) })
    }

    /// The path under which this is there now: the same part, by start and size, of the only disk with this serial
    /// number and size. None while there is no such disk, or more than one.
    ///
    /// A disk without a serial number cannot be told from the next of its size once it has been unplugged. It is found
    /// only if it is still attached as it was, under its old name: when a bus was reset, but not when a plug was
    /// pulled.
    pub fn find_again(&self) -> Option<PathBuf> {
        self.find_in(&Sysfs::default())
    }

    fn find_in(&self, sysfs: &Sysfs) -> Option<PathBuf> {
        let disks = sysfs.disks().into_iter().filter(|disk| {
            sysfs::bytes(&disk.join("size")) == Some(self.disk.size)
                && (self.disk.serial.is_empty() || serials(disk).contains(&self.disk.serial))
        });
        let folders =
            disks.flat_map(|disk| if self.is_partition { sysfs::partitions_of(&disk) } else { vec![disk] });
        let mut found = folders.filter_map(|folder| Known::of_folder(&folder)).filter(|found| {
            let is_same_part = (found.start, found.size) == (self.start, self.size);
            let is_still_there = || self.has_diskseq() && found.now == self.now;
            is_same_part && (!self.disk.serial.is_empty() || is_still_there())
        });
        let (path, _) = found.next()?.now?;
        found.next().is_none().then_some(path)
    }

    fn has_diskseq(&self) -> bool {
        matches!(self.now, Some((_, Some(_))))
    }
}

/// A device as it was attached when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    device_no: u64,
    folder: PathBuf,
    diskseq: Option<u64>,
}

impl Attachment {
    /// That of `disk`; none for what is no device.
    pub fn of(disk: &Disk) -> Option<Attachment> {
        let metadata = disk.file().metadata().ok()?;
        let is_device = metadata.file_type().is_block_device();
        is_device.then(|| Attachment::of_device(&Sysfs::default(), metadata.rdev())).flatten()
    }

    fn of_device(sysfs: &Sysfs, device_no: u64) -> Option<Attachment> {
        let folder = sysfs.folder_of(device_no)?;
        let diskseq = sysfs::number(&sysfs::disk_of(&folder).join("diskseq"));
        Some(Attachment { device_no, folder, diskseq })
    }

    /// Is it still attached? The next device may have its number and its place, but is counted anew.
    pub fn is_there(&self) -> bool {
        self.is_in(&Sysfs::default())
    }

    fn is_in(&self, sysfs: &Sysfs) -> bool {
        Attachment::of_device(sysfs, self.device_no).as_ref() == Some(self)
    }
}

/// The model that a disk names, its folder in sysfs given; empty where it names none.
pub fn model(disk: &Path) -> String {
    ["device/model", "device/name"].iter().find_map(|file| sysfs::line(&disk.join(file))).unwrap_or_default()
}

/// A disk's serial numbers, its folder in sysfs given, the disk's own first: virtio and NVMe have a file, SCSI and ATA
/// a page of vital product data (four bytes of header, then the serial), USB its descriptor.
pub fn serials(disk: &Path) -> Vec<String> {
    let page = std::fs::read(disk.join("device/vpd_pg80")).ok().and_then(|page| {
        let serial = page.get(4..)?;
        Some(sysfs::clean(serial)).filter(|serial| !serial.is_empty())
    });
    let usb = std::fs::canonicalize(disk).ok().and_then(|path| {
        let device = path.ancestors().find(|dir| dir.join("idVendor").exists())?.to_owned();
        sysfs::line(&device.join("serial"))
    });
    let files = ["serial", "device/serial"].map(|file| sysfs::line(&disk.join(file)));
    let mut serials = Vec::new();
    for serial in files.into_iter().chain([page, usb]).flatten() {
        if !serials.contains(&serial) {
            serials.push(serial);
        }
    }
    serials
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::tests::{Fake, number_of};
    use super::*;

    const DISK: u64 = 1 << 30;

    /// A USB disk with one partition, its own serial number `serial`, in `folder`.
    fn plug(fake: &Fake, folder: &str, name: &str, minor: u32, serial: &str, diskseq: u32) {
        let disk = format!("{folder}/host0/block/{name}");
        fake.device(&disk, minor, DISK);
        fake.partition(&format!("{disk}/{name}1"), minor + 1, 1 << 20, 1 << 29);
        fake.partition(&format!("{disk}/{name}2"), minor + 2, (1 << 20) + (1 << 29), 1 << 20);
        fake.write(&format!("devices/{disk}/diskseq"), diskseq.to_string().as_bytes());
        fake.write(&format!("devices/{disk}/device/model"), b"Passport        \n");
        if !serial.is_empty() {
            let page = [b"\0\x80\0\x14", serial.as_bytes(), b"   "].concat();
            fake.write(&format!("devices/{disk}/device/vpd_pg80"), &page);
        }
    }

    fn known(fake: &Fake, minor: u64) -> Known {
        Known::of_device(&fake.sysfs(), number_of(minor)).unwrap()
    }

    fn found(fake: &Fake, known: &Known) -> Option<String> {
        known.find_in(&fake.sysfs()).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn each_kind_of_disk_has_its_serial() {
        let fake = Fake::new();
        let folder = |name: &str| fake.sysfs().0.join("devices").join(name);
        fake.write("devices/vda/serial", b"VSER1");
        fake.write("devices/nvme0n1/device/serial", b"NSER1               \n");
        fake.write("devices/nvme0n1/device/model", b"QEMU NVMe Ctrl      \n");
        fake.write("devices/sda/device/vpd_pg80", b"\0\x80\0\x08ASER1   ");
        fake.write("devices/mmcblk0/device/serial", b"0x1234\n");
        fake.write("devices/mmcblk0/device/name", b"SD16G\n");
        fake.write("devices/usb1/1-1/idVendor", b"46f4\n");
        fake.write("devices/usb1/1-1/serial", b"USER1\n");
        fake.write("devices/usb1/1-1/host2/block/sdb/size", b"8\n");
        fake.write("devices/usb1/1-1/host3/block/sdc/device/vpd_pg80", b"\0\x80\0\x05OWN1 ");
        fake.write("devices/usb1/1-1/host3/block/sdd/device/vpd_pg80", b"\0\x80\0\x05USER1");
        fake.write("devices/loop0/size", b"8\n");
        for (name, wanted) in [
            ("vda", &["VSER1"][..]),
            ("nvme0n1", &["NSER1"]),
            ("sda", &["ASER1"]),
            ("mmcblk0", &["0x1234"]),
            ("usb1/1-1/host2/block/sdb", &["USER1"]),
            ("usb1/1-1/host3/block/sdc", &["OWN1", "USER1"]),
            ("usb1/1-1/host3/block/sdd", &["USER1"]),
            ("loop0", &[]),
        ] {
            assert_eq!(serials(&folder(name)), wanted, "{name}");
        }
        let models = ["nvme0n1", "mmcblk0", "vda"].map(|name| model(&folder(name)));
        assert_eq!(models, ["QEMU NVMe Ctrl", "SD16G", ""]);
    }

    #[test]
    fn a_partition_has_the_identity_of_its_disk() {
        let fake = Fake::new();
        plug(&fake, "pci0", "sda", 0, "S1", 4);
        let disk = DiskIdentity { serial: "S1".into(), model: "Passport".into(), size: DISK };
        let (whole, part) = (known(&fake, 0), known(&fake, 1));
        assert_eq!((&whole.disk, whole.start, whole.size), (&disk, 0, DISK));
        assert_eq!((&part.disk, part.start, part.size), (&disk, 1 << 20, 1 << 29));
    }

    #[test]
    fn a_disk_that_comes_back_is_found_under_its_new_name() {
        let fake = Fake::new();
        plug(&fake, "pci0", "sda", 0, "S1", 4);
        let (whole, part) = (known(&fake, 0), known(&fake, 1));
        assert_eq!(found(&fake, &part).as_deref(), Some("/dev/sda1"));
        fake.unplug("pci0");
        assert_eq!((found(&fake, &whole), found(&fake, &part)), (None, None));
        // Another one, just like it, under the old name.
        plug(&fake, "pci0", "sda", 0, "S2", 5);
        assert_eq!((found(&fake, &whole), found(&fake, &part)), (None, None));
        plug(&fake, "pci1", "sdb", 16, "S1", 6);
        assert_eq!(found(&fake, &whole).as_deref(), Some("/dev/sdb"));
        assert_eq!(found(&fake, &part).as_deref(), Some("/dev/sdb1"));
        // Which of two is it?
        plug(&fake, "pci2", "sdc", 32, "S1", 7);
        assert_eq!((found(&fake, &whole), found(&fake, &part)), (None, None));
    }

    #[test]
    fn a_disk_that_was_changed_is_another() {
        let fake = Fake::new();
        plug(&fake, "pci0", "sda", 0, "S1", 4);
        let (whole, part) = (known(&fake, 0), known(&fake, 1));
        let rewrite = |file: &str, bytes: u64| {
            let file = format!("devices/pci0/host0/block/sda/{file}");
            fake.write(&file, (bytes / sysfs::SECTOR).to_string().as_bytes());
        };
        rewrite("sda1/start", 2 << 20);
        assert_eq!((found(&fake, &whole).is_some(), found(&fake, &part)), (true, None));
        rewrite("sda1/start", 1 << 20);
        rewrite("sda1/size", 1 << 28);
        assert_eq!(found(&fake, &part), None);
        rewrite("sda1/size", 1 << 29);
        assert!(found(&fake, &part).is_some());
        // As while it is being unplugged.
        rewrite("size", 0);
        assert_eq!((found(&fake, &whole), found(&fake, &part)), (None, None));
    }

    #[test]
    fn without_a_serial_only_the_same_attachment_counts() {
        let fake = Fake::new();
        plug(&fake, "pci0", "sda", 0, "", 4);
        let (whole, part) = (known(&fake, 0), known(&fake, 1));
        assert_eq!(found(&fake, &whole).as_deref(), Some("/dev/sda"));
        assert_eq!(found(&fake, &part).as_deref(), Some("/dev/sda1"));
        fake.unplug("pci0");
        plug(&fake, "pci0", "sda", 0, "", 5);
        assert_eq!((found(&fake, &whole), found(&fake, &part)), (None, None));
        // A kernel that does not count.
        std::fs::remove_file(fake.sysfs().0.join("devices/pci0/host0/block/sda/diskseq")).unwrap();
        assert_eq!(found(&fake, &known(&fake, 0)), None);
    }

    #[test]
    fn a_disk_that_was_unplugged_is_not_the_next_one_in_its_place() {
        let fake = Fake::new();
        plug(&fake, "pci0", "sda", 0, "S1", 4);
        let attachments = [0, 1].map(|minor| Attachment::of_device(&fake.sysfs(), number_of(minor)).unwrap());
        let are_there = || attachments.clone().map(|attachment| attachment.is_in(&fake.sysfs()));
        assert_eq!(are_there(), [true; 2]);
        fake.unplug("pci0");
        assert_eq!(are_there(), [false; 2]);
        plug(&fake, "pci0", "sda", 0, "S1", 5);
        assert_eq!(are_there(), [false; 2]);
    }

    #[test]
    fn a_file_has_a_size_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(5000).unwrap();
        let known = Known::of(&Disk::open(file.path()).unwrap());
        assert_eq!(known.disk, DiskIdentity { size: 5000, ..DiskIdentity::default() });
        assert_eq!((known.start, known.size, known.find_again()), (0, 5000, None));
    }
}
