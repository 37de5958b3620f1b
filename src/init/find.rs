//! Which of the drives and volumes that are there a job means, and whether it may touch them. Pure: the answers
//! depend on the list of drives alone.

use std::fmt;

use super::config::Task;
use super::drives::{Drive, Part};
use super::probe::{BITLOCKER, Content, Found, Kind, Left};
use super::spec::{Confirm, DeviceSpec, Escaped, ImageSpec, Volumes};
use super::table::PartType;
use super::template::Names;

/// `auto` takes no volume smaller than this: recovery and system volumes are.
const AUTO_MIN: u64 = 1 << 30;

/// Bytes at both ends of a disk that hold its partition table: those of a GPT with sectors of 4096 bytes, and fewer
/// than lie before the first partition of an MBR.
const TABLE_LEN: u64 = 24 << 10;

/// A device that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick<'a> {
    /// Its drive.
    pub drive: &'a Drive,
    /// The partition, or the whole drive.
    pub part: &'a Part,
}

impl<'a> Pick<'a> {
    /// What fills the places in the name of its image.
    pub fn names(&self, date: &'a str) -> Names<'a> {
        let content = self.part.content();
        Names {
            serial: self.drive.serial(),
            part: self.part.number,
            label: content.map_or("", |content| &content.label),
            uuid: content.map_or("", |content| &content.uuid),
            date,
        }
    }

    /// Do the two share bytes? Partitions of a hostile table may.
    fn overlaps(&self, other: &Pick<'_>) -> bool {
        let ends = |part: &Part| part.start.saturating_add(part.size);
        let shares = self.part.start.max(other.part.start) < ends(self.part).min(ends(other.part));
        self.drive.name == other.drive.name && (self.part.number == other.part.number || shares)
    }

    fn is_whole_drive(&self) -> bool {
        self.part.number == 0
    }
}

/// A job's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices<'a> {
    /// From volumes to a file system.
    Save {
        /// The volumes, the smallest first: one, but for `all`.
        sources: Vec<Pick<'a>>,
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
    pub fn drives(&self) -> Vec<&'a Drive> {
        match self {
            Devices::Save { sources, image } => {
                sources.iter().chain([image]).map(|pick| pick.drive).collect()
            }
            Devices::Restore { image, target } => vec![image.drive, target.drive],
            Devices::Clone { source, target } => vec![source.drive, target.drive],
            Devices::Verify { image } => vec![image.drive],
        }
    }
}

/// A name that does not fit exactly one device, or `all` where there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {spec}: {}, wanted {wanted}; the candidates are listed above", Matches(.matching))]
pub struct NotOne {
    what: &'static str,
    spec: String,
    matching: Vec<String>,
    wanted: &'static str,
}

/// Why it is not known which disk this was booted from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StickError {
    /// It does not answer, or was unplugged.
    #[error("the stick that this was booted from (PARTUUID {}) is not here, wanted it plugged in", Escaped(.0))]
    Absent(String),
    /// A copy of it is here too.
    #[error("{} disks have the stick's PARTUUID {} ({}), wanted one: unplug the other", .1.len(), Escaped(.0), .1.join(", "))]
    Several(String, Vec<String>),
}

/// Marks the drive with this partition as the one that this was booted from; without a PARTUUID there is none. Where
/// there are several, each is marked.
pub fn mark_stick(drives: &mut [Drive], part_uuid: Option<&str>) -> Result<(), StickError> {
    let Some(wanted) = part_uuid else { return Ok(()) };
    for drive in &mut *drives {
        drive.is_stick = drive
            .parts
            .iter()
            .any(|part| !part.part_uuid.is_empty() && part.part_uuid.eq_ignore_ascii_case(wanted));
    }
    let names = drives.iter().filter(|drive| drive.is_stick).map(|drive| format!("/dev/{}", drive.name));
    match names.collect::<Vec<_>>() {
        names if names.is_empty() => Err(StickError::Absent(wanted.to_owned())),
        names if names.len() == 1 => Ok(()),
        names => Err(StickError::Several(wanted.to_owned(), names)),
    }
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

/// Finds a job's devices. Where there is a stick, it was [marked](mark_stick) before.
pub fn find<'a>(task: &Task, drives: &'a [Drive]) -> Result<Devices<'a>, NotOne> {
    let image = |what, spec: &ImageSpec| pick(what, &spec.device, drives, |_| true);
    let target = |spec| pick("target", spec, drives, |_| true);
    // What holds the target must be known before `auto` and `all` look elsewhere.
    let is_elsewhere =
        |pick: &Pick<'a>, other: &Pick<'a>| pick.drive.name != other.drive.name && !pick.drive.is_stick;
    let source = |spec, other: Pick<'a>| {
        pick("source", spec, drives, |pick| *spec != DeviceSpec::Auto || is_elsewhere(pick, &other))
    };
    match task {
        Task::Save { source: Volumes::One(from), target: to } => {
            let image = image("target", to)?;
            Ok(Devices::Save { sources: vec![source(from, image)?], image })
        }
        Task::Save { source: Volumes::All, target: to } => {
            let image = image("target", to)?;
            let is_wanted = |pick: &Pick<'a>| pick.part.is_ntfs() && is_elsewhere(pick, &image);
            let mut sources: Vec<_> = picks(drives).filter(is_wanted).collect();
            if sources.is_empty() {
                let wanted = "at least one NTFS volume on another disk than the target's";
                return Err(NotOne { what: "source", spec: "all".to_owned(), matching: Vec::new(), wanted });
            }
            sources.sort_by(|a, b| (a.part.size, &a.part.name).cmp(&(b.part.size, &b.part.name)));
            Ok(Devices::Save { sources, image })
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

/// Every drive and partition.
fn picks<'a>(drives: &'a [Drive]) -> impl Iterator<Item = Pick<'a>> {
    drives.iter().flat_map(|drive| drive.parts.iter().map(move |part| Pick { drive, part }))
}

/// The only device that fits.
fn pick<'a>(
    what: &'static str,
    spec: &DeviceSpec,
    drives: &'a [Drive],
    allowed: impl Fn(&Pick<'a>) -> bool,
) -> Result<Pick<'a>, NotOne> {
    let matching: Vec<_> = picks(drives).filter(|pick| fits(spec, pick) && allowed(pick)).collect();
    match matching.as_slice() {
        [one] => Ok(*one),
        _ => {
            let matching = matching.iter().map(|pick| format!("/dev/{}", pick.part.name)).collect();
            Err(NotOne { what, spec: spec.to_string(), matching, wanted: "exactly one" })
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
        DeviceSpec::Range(serial, range) => {
            drive.has_serial(serial) && (part.start, part.size) == (range.pos, range.len)
        }
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
    /// Nothing of it can be read as it is.
    #[error("source /dev/{0} is encrypted with BitLocker, wanted an NTFS volume: unlock it first")]
    Locked(String),
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
    /// NTFS that was not left in order.
    #[error("/dev/{name}: the NTFS file system is not mounted for writing: {why}")]
    NotLeft {
        /// The device's name.
        name: String,
        /// How it was left, and what to do about it.
        why: &'static str,
    },
    /// What would be overwritten is what all this was booted from.
    #[error("target /dev/{0} is on the stick that this was booted from, which is never overwritten")]
    OnStick(String),
    /// A part of the stick that is there for booting.
    #[error(
        "target /dev/{0} is a part of the stick that images are not written to, wanted its data partition"
    )]
    NotForImages(String),
    /// It is in use.
    #[error("target /dev/{target} cannot be overwritten: /dev/{name} {how}")]
    Held {
        /// The target's name.
        target: String,
        /// The target, or a part of it.
        name: String,
        /// Who uses it.
        how: String,
    },
    /// Part of it belongs to another partition too, by a table that is wrong.
    #[error(
        "target /dev/{target} shares bytes with /dev/{other}, which is not to be overwritten; wanted a partition of its own"
    )]
    NotApart {
        /// The target's name.
        target: String,
        /// The other partition's.
        other: String,
    },
    /// A stretch of a disk where its partition table lies.
    #[error("target /dev/{0} holds the disk's partition table, wanted a stretch behind it or the whole disk")]
    HoldsTable(String),
    /// Two volumes whose images would get the same name.
    #[error("/dev/{0} and /dev/{1} would be saved to the same file {2}, wanted a name for each")]
    SameName(String, String, String),
    /// A whole disk that is not blank.
    #[error(
        "confirm does not name all of /dev/{target}, which holds something: wanted whole:{}; nothing was written",
        Escaped(serial)
    )]
    NotBlank {
        /// The target's name.
        target: String,
        /// Its serial number.
        serial: String,
    },
    /// `confirm` names nothing, too much or something else.
    #[error("confirm does not name the target /dev/{target}: {why}; nothing was written")]
    NotConfirmed {
        /// The target's name.
        target: String,
        /// What was found instead.
        why: String,
    },
}

impl Refusal {
    /// Is it only that a whole disk is not blank, of which `confirm` would have to say so? A job that has begun has
    /// written there itself.
    pub fn is_only_of_content(&self) -> bool {
        matches!(self, Refusal::NotBlank { .. })
    }
}

/// Judges a job whose devices were found.
pub fn judge(task: &Task, devices: &Devices<'_>, drives: &[Drive]) -> Result<(), Refusal> {
    match (devices, task) {
        (Devices::Save { sources, image }, Task::Save { target, .. }) => {
            sources.iter().try_for_each(|source| unlocked(source).and_then(|()| apart(source, image)))?;
            takes_images(image)?;
            distinct(sources, target)
        }
        (Devices::Restore { image, target }, Task::Restore { confirm, .. }) => {
            apart(image, target)?;
            kind_of_images(image)?;
            may_be_erased(target)?;
            confirmed(confirm, target, drives)
        }
        (Devices::Clone { source, target }, Task::Clone { confirm, .. }) => {
            unlocked(source)?;
            apart(source, target)?;
            may_be_erased(target)?;
            confirmed(confirm, target, drives)
        }
        (Devices::Verify { image }, _) => kind_of_images(image).map(|_| ()),
        // Devices are found for a task of their own kind.
        (
            Devices::Save { image: target, .. }
            | Devices::Restore { target, .. }
            | Devices::Clone { target, .. },
            _,
        ) => Err(Refusal::NotConfirmed { target: target.part.name.clone(), why: "there is none".to_owned() }),
    }
}

fn apart(source: &Pick<'_>, target: &Pick<'_>) -> Result<(), Refusal> {
    if source.overlaps(target) {
        let (origin, target) = (source.part.name.clone(), target.part.name.clone());
        return Err(Refusal::Overlap { origin, target });
    }
    Ok(())
}

/// Is it no volume of which it is certain that nothing can be saved? Whatever else it seems to be, an NTFS volume may
/// be found by its backup.
fn unlocked(source: &Pick<'_>) -> Result<(), Refusal> {
    match source.part.content() {
        Some(content) if content.kind == Kind::Other(BITLOCKER) => {
            Err(Refusal::Locked(source.part.name.clone()))
        }
        _ => Ok(()),
    }
}

/// May a restore or clone overwrite this, whatever the user confirmed?
fn may_be_erased(target: &Pick<'_>) -> Result<(), Refusal> {
    let name = || target.part.name.clone();
    if target.drive.is_stick {
        return Err(Refusal::OnStick(name()));
    }
    let shared = target.drive.parts.iter().filter(|part| {
        target.part.number == part.number || part.number != 0 && target.overlaps(&Pick { part, ..*target })
    });
    if let Some((part, how)) = shared.into_iter().find_map(|part| Some((part, part.held.as_ref()?))) {
        return Err(Refusal::Held { target: name(), name: part.name.clone(), how: how.clone() });
    }
    if target.is_whole_drive() {
        return Ok(());
    }
    // What the table names ends where it may; a stretch that it does not know may be over the table itself.
    let (start, end) = (target.part.start, target.part.start.saturating_add(target.part.size));
    let is_unknown = target.part.part_type.is_none();
    if start < TABLE_LEN || is_unknown && end > target.drive.size.saturating_sub(TABLE_LEN) {
        return Err(Refusal::HoldsTable(name()));
    }
    let is_other = |part: &&Part| part.number != 0 && part.number != target.part.number;
    let mut others = target.drive.parts.iter().filter(is_other);
    match others.find(|part| target.overlaps(&Pick { part, ..*target })) {
        Some(other) => Err(Refusal::NotApart { target: name(), other: other.name.clone() }),
        None => Ok(()),
    }
}

/// May images be written to this file system?
fn takes_images(image: &Pick<'_>) -> Result<(), Refusal> {
    if image.drive.is_stick && !image.part.part_type.is_some_and(PartType::is_data) {
        return Err(Refusal::NotForImages(image.part.name.clone()));
    }
    kind_of_images(image)?;
    let why = match image.part.content() {
        Some(Content { kind: Kind::Ntfs, left: Some(left), .. }) => match left {
            Left::InOrder => return Ok(()),
            Left::Dirty => "it is marked for a check; run 'chkdsk /f' on Windows",
            Left::Asleep => {
                "Windows is hibernated on it, by itself or by fast startup; start it and run 'shutdown /s /f /t 0'"
            }
            Left::Open => {
                "its log holds changes that are not in place, as after fast startup or a pulled plug; start Windows \
                 and eject it, or run 'shutdown /s /f /t 0'"
            }
        },
        Some(Content { kind: Kind::Ntfs, left: None, .. }) => "it is too damaged to tell how it was left",
        _ => return Ok(()),
    };
    Err(Refusal::NotLeft { name: image.part.name.clone(), why })
}

/// Has each volume's image a name of its own? Some file systems do not tell small letters from large ones.
fn distinct(sources: &[Pick<'_>], target: &ImageSpec) -> Result<(), Refusal> {
    let named: Vec<_> =
        sources.iter().map(|pick| (pick, target.path.fill(&pick.names("")).unwrap_or_default())).collect();
    for (at, (pick, path)) in named.iter().enumerate() {
        let mut others = named.iter().skip(at + 1);
        if let Some((other, _)) = others.find(|(_, other)| other.eq_ignore_ascii_case(path)) {
            let (a, b) = (pick.part.name.clone(), other.part.name.clone());
            return Err(Refusal::SameName(a, b, Escaped(path).to_string()));
        }
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
        let (target, serial) = (target.part.name.clone(), target.drive.serial().to_owned());
        Err(Refusal::NotBlank { target, serial })
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

#[cfg(test)]
mod tests;
