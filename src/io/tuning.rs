//! Settings of a disk that is to be rescued, while it is: nothing writes to it, the kernel is patient with it, and
//! leaves it to us to try again.
//!
//! They are put back when the [`Tuning`] is dropped. If the process is killed they stay until the disk is unplugged or
//! the system restarted; `blockdev --setrw` and the files in sysfs change them by hand. Nothing here stops a rescue:
//! what a kernel or a driver does not have is left out.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::sysfs::{self, Sysfs};
use crate::sys;

/// Seconds that a SCSI, ATA or USB disk gets for a command. By default it is 30, less than some disks try for.
const MIN_TIMEOUT: u64 = 60;

/// Commands that may take too long before Linux takes the disk offline for good, by default 2: the largest number
/// that it can be, signed or not.
const MAX_TIMEOUTS: u64 = i32::MAX as u64;

/// How often the driver tries a failed read again by itself, by default 5.
const NO_RETRIES: u64 = 0;

/// The settings that were changed.
#[derive(Debug)]
pub struct Tuning {
    /// The device that was made read-only.
    read_only: Option<File>,
    changed: Vec<Setting>,
}

/// A setting that was changed.
#[derive(Debug)]
struct Setting {
    path: PathBuf,
    /// Kept open: when the disk has gone, another's setting may have got the path.
    file: File,
    before: String,
}

impl Tuning {
    /// Changes the settings of `disk`, and of the whole disk where it is a partition; nothing where it is a file.
    pub fn apply(disk: &Disk) -> Tuning {
        let device = disk.file();
        let metadata = device.metadata().ok();
        let Some(metadata) = metadata.filter(|metadata| metadata.file_type().is_block_device()) else {
            return Tuning { read_only: None, changed: Vec::new() };
        };
        let read_only = make_read_only(device).unwrap_or_else(|error| {
            log::debug!("cannot make the source read-only: {error}");
            None
        });
        Tuning { read_only, changed: change_all(&Sysfs::default(), metadata.rdev()) }
    }

    /// Puts the settings back.
    pub fn restore(self) {
        drop(self);
    }
}

impl Drop for Tuning {
    fn drop(&mut self) {
        for setting in self.changed.drain(..).rev() {
            if let Err(error) = write(&setting.file, &setting.before) {
                log::debug!("cannot put back {}: {error}", setting.path.display());
            }
        }
        let put_back = self.read_only.take().map(|device| sys::set_read_only(&device, false));
        if let Some(Err(error)) = put_back {
            log::debug!("cannot make the source writable again: {error}");
        }
    }
}

/// Makes the device read-only; returns it if it was not so before. A partition has a flag of its own.
fn make_read_only(device: &File) -> io::Result<Option<File>> {
    if sys::is_read_only(device)? {
        return Ok(None);
    }
    let device = device.try_clone()?;
    sys::set_read_only(&device, true)?;
    Ok(Some(device))
}

/// Changes what there is to be changed in sysfs.
fn change_all(sysfs: &Sysfs, device_no: u64) -> Vec<Setting> {
    let Some(folder) = sysfs.folder_of(device_no) else { return Vec::new() };
    let disk = sysfs::disk_of(&folder);
    let mut wanted = vec![(disk.join("device/timeout"), MIN_TIMEOUT)];
    for scsi in std::fs::read_dir(disk.join("device/scsi_disk")).into_iter().flatten().flatten() {
        wanted.push((scsi.path().join("max_medium_access_timeouts"), MAX_TIMEOUTS));
        wanted.push((scsi.path().join("max_retries"), NO_RETRIES));
    }
    // One setting for all NVMe disks: others do without retries meanwhile.
    let is_nvme = disk.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"nvme"));
    if is_nvme {
        wanted.push((sysfs.0.join("module/nvme_core/parameters/max_retries"), NO_RETRIES));
    }
    let change = |(path, wanted): (PathBuf, u64)| match change(&path, wanted) {
        Ok(setting) => setting,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            log::debug!("cannot set {} to {wanted}: {error}", path.display());
            None
        }
    };
    wanted.into_iter().filter_map(change).collect()
}

/// Raises a setting to `wanted`, or lowers it where that is 0; none where it is that already.
fn change(path: &Path, wanted: u64) -> io::Result<Option<Setting>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let before = io::read_to_string(&file)?.trim().to_owned();
    // -1, endless retries, is as far from 0 as can be.
    let is_fine = match before.parse::<i64>().map_err(io::Error::other)? {
        found if wanted == NO_RETRIES => found == 0,
        found => u64::try_from(found).is_ok_and(|found| found >= wanted),
    };
    if is_fine {
        return Ok(None);
    }
    write(&file, &wanted.to_string())?;
    log::debug!("{}: {wanted}, was {before}", path.display());
    Ok(Some(Setting { path: path.to_owned(), file, before }))
}

/// A setting takes what one call writes.
fn write(file: &File, value: &str) -> io::Result<()> {
    file.write_all_at(format!("{value}\n").as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::tests::{Fake, number_of};
    use super::*;

    fn tuned(fake: &Fake, minor: u64) -> Tuning {
        Tuning { read_only: None, changed: change_all(&fake.sysfs(), number_of(minor)) }
    }

    #[test]
    fn a_partitions_disk_is_tuned_and_put_back() {
        let fake = Fake::new();
        fake.device("pci/block/sda", 0, 1 << 20);
        fake.partition("pci/block/sda/sda1", 1, 4096, 8192);
        fake.device("pci/block/sdb", 16, 1 << 20);
        let files =
            ["timeout", "scsi_disk/0:0:0:0/max_medium_access_timeouts", "scsi_disk/0:0:0:0/max_retries"];
        let of = |disk: &str| files.map(|file| format!("devices/pci/block/{disk}/device/{file}"));
        fake.write("module/nvme_core/parameters/max_retries", b"5\n");
        let values = |disk: &str| of(disk).map(|file| fake.read(&file));
        for minor in [0, 1] {
            // A file of a test keeps what was behind a shorter value, one in sysfs does not.
            for (file, value) in
                of("sda").iter().chain(&of("sdb")).zip(["30\n", "2\n", "5\n"].into_iter().cycle())
            {
                fake.write(file, value.as_bytes());
            }
            let tuning = tuned(&fake, minor);
            assert_eq!(values("sda"), ["60", "2147483647", "0"]);
            tuning.restore();
            assert_eq!(values("sda"), ["30", "2", "5"]);
        }
        assert_eq!(values("sdb"), ["30", "2", "5"]);
        assert_eq!(fake.read("module/nvme_core/parameters/max_retries"), "5");
    }

    #[test]
    fn what_is_fine_or_strange_stays() {
        let fake = Fake::new();
        fake.device("pci/block/sda", 0, 1 << 20);
        let timeout = "devices/pci/block/sda/device/timeout";
        for value in ["60", "61", "18446744073709551616", "", "soon"] {
            fake.write(timeout, value.as_bytes());
            assert!(tuned(&fake, 0).changed.is_empty(), "{value}");
            assert_eq!(fake.read(timeout), value);
        }
        let retries = "devices/pci/block/sda/device/scsi_disk/0:0:0:0/max_retries";
        for (value, wanted) in [("0", "0"), ("-1", "0")] {
            fake.write(retries, format!("{value}\n").as_bytes());
            let tuning = tuned(&fake, 0);
            assert_eq!(fake.read(retries), wanted);
            drop(tuning);
            assert_eq!(fake.read(retries), value);
        }
        // Nothing of it there, and no such device.
        fake.device("virtual/block/loop0", 32, 1 << 20);
        assert!(tuned(&fake, 32).changed.is_empty() && tuned(&fake, 33).changed.is_empty());
    }

    #[test]
    fn the_setting_of_all_nvme_disks_is_touched_for_these_only() {
        let fake = Fake::new();
        let retries = "module/nvme_core/parameters/max_retries";
        fake.write(retries, b"5\n");
        fake.device("pci/nvme/nvme0/nvme0n1", 0, 1 << 20);
        fake.partition("pci/nvme/nvme0/nvme0n1/nvme0n1p1", 1, 4096, 8192);
        let tuning = tuned(&fake, 1);
        assert_eq!(fake.read(retries), "0");
        drop(tuning);
        assert_eq!(fake.read(retries), "5");
    }

    #[test]
    fn a_disk_that_has_gone_takes_its_settings_along() {
        let fake = Fake::new();
        let timeout = "devices/pci/block/sda/device/timeout";
        fake.device("pci/block/sda", 0, 1 << 20);
        fake.write(timeout, b"20\n");
        let tuning = tuned(&fake, 0);
        fake.unplug("pci");
        fake.device("pci/block/sda", 0, 1 << 20);
        fake.write(timeout, b"30\n");
        tuning.restore();
        assert_eq!(fake.read(timeout), "30");
    }
}
