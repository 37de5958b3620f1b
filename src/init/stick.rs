//! The stick itself: its configuration, and its data partition, which fills the stick at the first boot.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::statvfs::statvfs;

use super::config::{ConfFile, read_file};
use super::drives::{Drive, Part};
use super::grow::grow;
use super::modules::Modules;
use super::mounts::{CONFIG_POINT, Mounted, STICK_POINT, mount_at};
use super::probe::Kind;
use crate::io::Source;
use crate::io::disk::Disk;
use crate::sys;

/// The configuration's name, in the root of a partition.
pub const CONFIG_NAME: &str = "ntfsrescue.conf";

/// Label and partition name of the data partition.
pub const DATA_LABEL: &str = "RESCUE";

/// Makes an exFAT file system; from the distribution, packed where the stick has exFAT.
const MKFS_EXFAT: &str = "/usr/sbin/mkfs.exfat";

/// The partition with this PARTUUID, from which the stick was booted.
pub fn boot_part<'a>(stick: &'a Drive, id: &str) -> Option<&'a Part> {
    stick.parts.iter().find(|part| part.part_uuid.eq_ignore_ascii_case(id))
}

/// The data partition of the stick.
pub fn data_part(stick: &Drive) -> Option<&Part> {
    stick.parts.iter().find(|part| part.part_label == DATA_LABEL)
}

/// The kind under which the kernel mounts what is on a partition of the stick.
fn kind_of(part: &Part) -> Option<&'static str> {
    match part.content()?.kind {
        kind @ (Kind::Ext4 | Kind::Vfat | Kind::Exfat) => Some(kind.name()),
        _ => None,
    }
}

/// A configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its place, for messages.
    name: String,
    bytes: Vec<u8>,
}

impl ConfigFile {
    /// As it is parsed.
    pub fn as_conf_file(&self) -> ConfFile<'_> {
        ConfFile { name: &self.name, bytes: &self.bytes }
    }
}

/// Reads the configurations on the stick's boot and data partitions. Nothing stays mounted.
pub fn read_configurations(
    stick: &Drive,
    id: &str,
    modules: &Modules<'_>,
) -> Result<Vec<ConfigFile>, String> {
    let places = [("boot", boot_part(stick, id)), ("data", data_part(stick))];
    let mut found = Vec::new();
    for (which, part) in places {
        let Some(part) = part else { continue };
        let Some(kind) = kind_of(part) else { continue };
        modules.request(&format!("fs-{kind}"));
        // A stick without its configuration is not one without a job.
        let mounted = mount_at(CONFIG_POINT, &part.path(), kind, false).map_err(|error| error.to_string())?;
        let name = format!("{CONFIG_NAME} on the stick's {which} partition");
        match read_file(&mounted.path().join(CONFIG_NAME)) {
            Ok(bytes) => found.push(ConfigFile { name, bytes }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{name}: {error}")),
        }
    }
    Ok(found)
}

fn known_data_part(stick: &Drive) -> Result<(&Part, &'static str), String> {
    let part = data_part(stick).ok_or("the stick has no data partition")?;
    let kind = kind_of(part).ok_or("the stick's data partition has no file system that is known here")?;
    Ok((part, kind))
}

/// Mounts the data partition for reading, and leaves it as it is.
pub fn look_at_data(stick: &Drive, modules: &Modules<'_>) -> Result<Mounted, String> {
    let (part, kind) = known_data_part(stick)?;
    modules.request(&format!("fs-{kind}"));
    mount_at(STICK_POINT, &part.path(), kind, false).map_err(|error| error.to_string())
}

/// Mounts the data partition for writing. While it is empty it is made to fill the stick.
pub fn mount_data(stick: &Drive, modules: &Modules<'_>) -> Result<Mounted, String> {
    let (part, kind) = known_data_part(stick)?;
    modules.request(&format!("fs-{kind}"));
    let mount = || mount_at(STICK_POINT, &part.path(), kind, true).map_err(|error| error.to_string());
    let mounted = mount()?;
    if !is_empty(mounted.path()) {
        return Ok(mounted);
    }
    match fill(stick, part, kind, mounted) {
        Ok(mounted) => Ok(mounted),
        Err(error) => {
            log::warn!("the stick's data partition stays as it is: {error}");
            mount()
        }
    }
}

/// Makes the data partition, which is mounted and empty, fill the stick.
fn fill(stick: &Drive, part: &Part, kind: &'static str, mounted: Mounted) -> Result<Mounted, String> {
    let path = PathBuf::from("/dev").join(&stick.name);
    let sector = Disk::open(&path).map_err(|error| error.to_string())?.sector_size();
    let writable = std::fs::OpenOptions::new().read(true).write(true).open(&path);
    let disk = writable.map_err(|error| error.to_string())?;
    let grown = grow(&disk, stick.size, sector, part.number).map_err(|error| error.to_string())?;
    if let Some(range) = grown {
        sys::resize_partition(&disk, part.number, range).map_err(|error| error.to_string())?;
        log::info!("the stick's data partition now fills the stick: {} MB", range.len / 1_000_000);
    }
    let len = grown.map_or(part.size, |range| range.len);
    let stat = statvfs(mounted.path()).map_err(|error| error.to_string())?;
    match kind {
        "ext4" => {
            let root = File::open(mounted.path()).map_err(|error| error.to_string())?;
            sys::grow_ext4(&root, len / stat.fragment_size()).map_err(|error| error.to_string())?;
            Ok(mounted)
        }
        // It cannot be made longer, but an empty one can be made anew. A tenth is more than its own tables take.
        "exfat" if stat.blocks() * stat.fragment_size() < len / 10 * 9 => {
            mounted.unmount().map_err(|error| error.to_string())?;
            make_exfat(&part.path())?;
            mount_at(STICK_POINT, &part.path(), kind, true).map_err(|error| error.to_string())
        }
        _ => Ok(mounted),
    }
}

fn make_exfat(device: &Path) -> Result<(), String> {
    let made = Command::new(MKFS_EXFAT).args(["-L", DATA_LABEL]).arg(device).stdout(Stdio::null()).status();
    match made {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{MKFS_EXFAT}: {status}")),
        Err(error) => Err(format!("{MKFS_EXFAT}: {error}")),
    }
}

/// Is there nothing in a file system but what making it puts there?
fn is_empty(root: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(root) else { return false };
    entries.all(|entry| {
        entry.is_ok_and(|entry| {
            entry.file_name() == "lost+found"
                && std::fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_system_is_empty() {
        let root = tempfile::tempdir().unwrap();
        assert!(is_empty(root.path()));
        std::fs::create_dir(root.path().join("lost+found")).unwrap();
        assert!(is_empty(root.path()));
        std::fs::write(root.path().join("lost+found/#12"), "").unwrap();
        assert!(!is_empty(root.path()));
        std::fs::remove_dir_all(root.path().join("lost+found")).unwrap();
        std::fs::write(root.path().join("ntfsrescue.conf"), "").unwrap();
        assert!(!is_empty(root.path()));
        assert!(!is_empty(&root.path().join("none")));
    }
}
