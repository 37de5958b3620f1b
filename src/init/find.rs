//! Which of the drives and volumes that are there a job means, and whether it may touch them. Pure: the answers
//! depend on the list of drives alone.

use std::fmt;

use super::cmdline::Text;
use super::config::Task;
use super::drives::{Drive, Part};
use super::probe::{Content, Found, Kind};
use super::spec::{Confirm, DeviceSpec, Escaped, ImageSpec};

/// `auto` takes no volume smaller than this: recovery and system volumes are.
const AUTO_MIN: u64 = 1 << 30;

/// A device that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick<'a> {
    /// Its drive.
    pub drive: &'a Drive,
    /// The partition, or the whole drive.
    pub part: &'a Part,
}

impl Pick<'_> {
    /// Do the two share bytes?
    fn overlaps(&self, other: &Pick<'_>) -> bool {
        let (a, b) = (self.part.number, other.part.number);
        self.drive.name == other.drive.name && (a == b || a == 0 || b == 0)
    }

    fn is_whole_drive(&self) -> bool {
        self.part.number == 0
    }
}

/// A job's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices<'a> {
    /// From a volume to a file system.
    Save {
        /// The volume.
        source: Pick<'a>,
        /// What holds the image.
        image: Pick<'a>,
    },
    /// From a file system to a device.
    Restore {
        /// What holds the image.
        image: Pick<'a>,
        /// The device.
        target: Pick<'a>,
    },
    /// From a volume to a device.
    Clone {
        /// The volume.
        source: Pick<'a>,
        /// The device.
        target: Pick<'a>,
    },
    /// Of a file system only.
    Verify {
        /// What holds the image.
        image: Pick<'a>,
    },
}

impl<'a> Devices<'a> {
    /// The drives that they are on.
    pub fn drives(&self) -> [&'a Drive; 2] {
        match self {
            Devices::Save { source, image } => [source.drive, image.drive],
            Devices::Restore { image, target } => [image.drive, target.drive],
            Devices::Clone { source, target } => [source.drive, target.drive],
            Devices::Verify { image } => [image.drive, image.drive],
        }
    }
}

/// A name that does not fit exactly one device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {spec}: {}, wanted exactly one; the candidates are listed above", Matches(.matching))]
pub struct NotOne {
    what: &'static str,
    spec: String,
    matching: Vec<String>,
}

struct Matches<'a>(&'a [String]);

impl fmt::Display for Matches<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("nothing here matches"),
            names => write!(f, "{} match ({})", names.len(), names.join(", ")),
        }
    }
}

/// Finds a job's devices.
pub fn find<'a>(task: &Task, drives: &'a [Drive]) -> Result<Devices<'a>, NotOne> {
    let image = |what, spec: &ImageSpec| pick(what, &spec.device, drives, |_| true);
    let target = |spec| pick("target", spec, drives, |_| true);
    // What the target holds must be known before `auto` looks elsewhere.
    let source = |spec, other: Pick<'a>| {
        pick("source", spec, drives, |pick| *spec != DeviceSpec::Auto || pick.drive.name != other.drive.name)
    };
    match task {
        Task::Save { source: from, target: to } => {
            let image = image("target", to)?;
            Ok(Devices::Save { source: source(from, image)?, image })
        }
        Task::Clone { source: from, target: to, .. } => {
            let target = target(to)?;
            Ok(Devices::Clone { source: source(from, target)?, target })
        }
        Task::Restore { source: from, target: to, .. } => {
            Ok(Devices::Restore { image: image("source", from)?, target: target(to)? })
        }
        Task::Verify { source: from } => Ok(Devices::Verify { image: image("source", from)? }),
    }
}

/// The only device that fits.
fn pick<'a>(
    what: &'static str,
    spec: &DeviceSpec,
    drives: &'a [Drive],
    allowed: impl Fn(&Pick<'a>) -> bool,
) -> Result<Pick<'a>, NotOne> {
    let all = drives.iter().flat_map(|drive| drive.parts.iter().map(move |part| Pick { drive, part }));
    let matching: Vec<_> = all.filter(|pick| fits(spec, pick) && allowed(pick)).collect();
    match matching.as_slice() {
        [one] => Ok(*one),
        _ => {
            let matching = matching.iter().map(|pick| format!("/dev/{}", pick.part.name)).collect();
            Err(NotOne { what, spec: spec.to_string(), matching })
        }
    }
}

fn fits(spec: &DeviceSpec, pick: &Pick<'_>) -> bool {
    let Pick { drive, part } = pick;
    let same = |own: &str, wanted: &str| !own.is_empty() && own.eq_ignore_ascii_case(wanted);
    match spec {
        DeviceSpec::Name(name) => part.name == name.as_str(),
        DeviceSpec::Uuid(uuid) => part.content().is_some_and(|content| same(&content.uuid, uuid)),
        DeviceSpec::Label(label) => part.content().is_some_and(|content| content.label == label.as_str()),
        DeviceSpec::PartUuid(uuid) => same(&part.part_uuid, uuid),
        DeviceSpec::PartLabel(label) => part.part_label == label.as_str(),
        DeviceSpec::Serial(serial, number) => part.number == *number && drive.has_serial(serial),
        DeviceSpec::Model(model, number) => part.number == *number && fits_model(model, drive),
        DeviceSpec::Auto => part.is_ntfs() && part.size > AUTO_MIN,
    }
}

fn fits_model(pattern: &str, drive: &Drive) -> bool {
    glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(&drive.model))
}

/// Why a job that is understood, and whose devices are there, is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The target is, or holds, or lies on the source.
    #[error("target /dev/{target} and source /dev/{origin} share bytes, wanted different volumes")]
    Overlap {
        /// The source's name.
        origin: String,
        /// The target's name.
        target: String,
    },
    /// No file system that an image can lie on.
    #[error(
        "/dev/{name}: found {found}, wanted a file system for images (ext4, vfat, exfat, ntfs, xfs or btrfs)"
    )]
    NoFileSystem {
        /// The device's name.
        name: String,
        /// What is there.
        found: &'static str,
    },
    /// NTFS that was not unmounted.
    #[error(
        "/dev/{0}: the NTFS file system is marked dirty and is not mounted for writing; run 'chkdsk /f' on Windows"
    )]
    Dirty(String),
    /// `confirm` names nothing, too much or something else.
    #[error("confirm does not name the target /dev/{target}: {why}; nothing was written")]
    NotConfirmed {
        /// The target's name.
        target: String,
        /// What was found instead.
        why: String,
    },
}

/// Judges a job whose devices were found.
pub fn judge(task: &Task, devices: &Devices<'_>, drives: &[Drive]) -> Result<(), Refusal> {
    match (devices, task) {
        (Devices::Save { source, image }, _) => {
            apart(source, image)?;
            kind_of_images(image)?;
            match image.part.content() {
                Some(Content { kind: Kind::Ntfs, is_dirty: true, .. }) => {
                    Err(Refusal::Dirty(image.part.name.clone()))
                }
                _ => Ok(()),
            }
        }
        (Devices::Restore { image, target }, Task::Restore { confirm, .. }) => {
            apart(image, target)?;
            kind_of_images(image)?;
            confirmed(confirm, target, drives)
        }
        (Devices::Clone { source, target }, Task::Clone { confirm, .. }) => {
            apart(source, target)?;
            confirmed(confirm, target, drives)
        }
        (Devices::Verify { image }, _) => kind_of_images(image).map(|_| ()),
        // Devices are found for a task of their own kind.
        (Devices::Restore { target, .. } | Devices::Clone { target, .. }, _) => {
            Err(Refusal::NotConfirmed { target: target.part.name.clone(), why: "there is none".to_owned() })
        }
    }
}

fn apart(source: &Pick<'_>, target: &Pick<'_>) -> Result<(), Refusal> {
    if source.overlaps(target) {
        let (origin, target) = (source.part.name.clone(), target.part.name.clone());
        return Err(Refusal::Overlap { origin, target });
    }
    Ok(())
}

/// The kind under which the kernel mounts what holds an image.
pub fn kind_of_images(image: &Pick<'_>) -> Result<&'static str, Refusal> {
    let found = match &image.part.found {
        Found::Content(Content { kind, .. }) => match kind {
            // One driver for all three.
            Kind::Ext2 | Kind::Ext3 | Kind::Ext4 => return Ok("ext4"),
            Kind::Ntfs => return Ok("ntfs3"),
            Kind::Vfat | Kind::Exfat | Kind::Xfs | Kind::Btrfs => return Ok(kind.name()),
            Kind::Other(name) => name,
        },
        Found::Pending => "no answer yet",
        Found::Nothing => "nothing known",
        Found::Unreadable => "nothing that can be read",
    };
    Err(Refusal::NoFileSystem { name: image.part.name.clone(), found })
}

/// Does what the user confirmed name this target, and nothing else that is here?
fn confirmed(confirm: &Confirm, target: &Pick<'_>, drives: &[Drive]) -> Result<(), Refusal> {
    let no = |why: String| Err(Refusal::NotConfirmed { target: target.part.name.clone(), why });
    // What cannot be read, or has not answered, may well be something.
    let is_blank = target.part.found == Found::Nothing && !target.drive.has_partitions();
    let needs_whole = target.is_whole_drive() && !is_blank;
    let whole = || {
        no(format!(
            "the disk holds something, wanted whole:{} to overwrite all of it",
            Escaped(target.drive.serial())
        ))
    };
    match confirm {
        Confirm::AnyOf(list) => {
            let items = list.split(',').map(str::trim);
            let present: Vec<_> = items.flat_map(|item| named(item, drives)).collect();
            match present.as_slice() {
                [] => no(format!("nothing here is called {}", Escaped(list))),
                [(is_whole, drive, number)] => {
                    if drive.name != target.drive.name || number.is_some_and(|n| n != target.part.number) {
                        no(format!("{} is on /dev/{}", Escaped(list), drive.name))
                    } else if *is_whole && !target.is_whole_drive() {
                        no("whole: means a whole disk, and the target is a partition".to_owned())
                    } else if needs_whole && !is_whole {
                        whole()
                    } else {
                        Ok(())
                    }
                }
                several => no(format!("{} of {} are here, wanted one", several.len(), Escaped(list))),
            }
        }
        Confirm::Fits { model, min, max } => {
            let fitting: Vec<_> = drives
                .iter()
                .filter(|drive| fits_model(model, drive) && (*min..=*max).contains(&drive.size))
                .collect();
            match fitting.as_slice() {
                [one] if one.name == target.drive.name => {
                    if needs_whole {
                        whole()
                    } else {
                        Ok(())
                    }
                }
                [one] => no(format!("the model and size are those of /dev/{}", one.name)),
                all => no(format!("{} disks have this model and size, wanted one", all.len())),
            }
        }
    }
}

/// All that an item of a confirmation names: whether a whole disk is meant, the drive, and the partition's number
/// where it names one.
fn named<'a>(item: &str, drives: &'a [Drive]) -> Vec<(bool, &'a Drive, Option<u32>)> {
    let (is_whole, name) = match item.strip_prefix("whole:") {
        Some(name) => (true, name.trim()),
        None => (false, item),
    };
    let by_serial = drives.iter().filter(|drive| drive.has_serial(name)).map(|drive| (is_whole, drive, None));
    let parts = drives.iter().flat_map(|drive| drive.parts.iter().map(move |part| (drive, part)));
    let by_uuid = parts
        .filter(|(_, part)| !is_whole && !name.is_empty() && part.part_uuid.eq_ignore_ascii_case(name))
        .map(|(drive, part)| (false, drive, Some(part.number)));
    by_serial.chain(by_uuid).collect()
}

/// The path of an image below the place where its file system is mounted.
pub fn below(mount_point: &str, image: &ImageSpec) -> Option<Text> {
    let mut path = Text::new();
    path.push_str(mount_point).ok()?;
    path.push_str(&image.path).ok()?;
    Some(path)
}

#[cfg(test)]
mod tests;
