//! The drives of the machine and their partitions, as `/sys/class/block` shows them, and what lies on them.
//!
//! sysfs is asked again and again and costs nothing. What needs a read from the drive itself happens once, in a
//! thread of its own for each drive: one that hangs on a bad sector keeps nobody else waiting.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::config::Task;
use super::probe::{Content, Found, Kind, TABLE, ToldBy, probe};
use super::spec::{DeviceSpec, Escaped, Quoted, Volumes};
use super::table::{PartType, Table};
use crate::extent::ByteRange;
use crate::io::disk::Disk;
use crate::io::mounts::{Place, mounts_of};
use crate::io::{identity, sysfs};
use crate::sys;

/// What is no drive of the machine, or the same one under a second name, or none that holds volumes.
const NO_DRIVES: [&str; 7] = ["loop", "ram", "sr", "zram", "dm-", "md", "fd"];

/// Where the kernel shows drives and partitions.
const SYS_BLOCK: &str = "/sys/class/block";

/// The last number that the kernel gives a partition.
const LAST_NUMBER: u32 = 255;

/// A drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// Without `/dev/`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Its model; empty where it names none.
    pub model: String,
    /// Its serial numbers, the drive's own first; a USB bridge may have another.
    pub serials: Vec<String>,
    /// The whole drive first, as number 0; then its partitions.
    pub parts: Vec<Part>,
    /// Was this booted from it? See [`mark_stick`](super::find::mark_stick).
    pub is_stick: bool,
}

/// A partition, or the whole drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Without `/dev/`.
    pub name: String,
    /// Its number; 0 is the whole drive.
    pub number: u32,
    /// First byte on the drive.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// PARTLABEL; empty where there is none.
    pub part_label: String,
    /// PARTUUID; empty where there is none, or not known yet.
    pub part_uuid: String,
    /// What the partition table says that it is for; none where that is not known yet.
    pub part_type: Option<PartType>,
    /// What lies on it.
    pub found: Found,
    /// Who uses it, in words that follow its name: "is mounted on /mnt/image".
    pub held: Option<String>,
}

impl Drive {
    /// Its serial for messages.
    pub fn serial(&self) -> &str {
        self.serials.first().map_or("", String::as_str)
    }

    /// Has it this serial?
    pub fn has_serial(&self, serial: &str) -> bool {
        self.serials.iter().any(|own| own == serial.trim())
    }

    /// Has all of it said what it holds?
    pub fn is_known(&self) -> bool {
        !self.parts.iter().any(|part| part.found == Found::Pending)
    }

    /// Is it divided?
    pub fn has_partitions(&self) -> bool {
        self.parts.iter().any(|part| part.number != 0)
    }
}

impl Part {
    /// `/dev/NAME`
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// The content, if it is known.
    pub fn content(&self) -> Option<&Content> {
        match &self.found {
            Found::Content(content) => Some(content),
            _ => None,
        }
    }

    /// Is it an NTFS volume?
    pub fn is_ntfs(&self) -> bool {
        self.content().is_some_and(|content| content.kind == Kind::Ntfs)
    }
}

/// What a drive's thread has found out.
#[derive(Debug)]
enum Answer {
    Entry(String, Option<PartType>),
    Found(Found),
}

/// An answer, and where it comes from: the partition's name, and the drive's diskseq and size.
type Told = (Identity, Answer);

/// What tells one attachment of a drive from the next one under the same name, and a medium from the next.
type Identity = (String, u64, u64);

/// Watches the machine's drives.
#[derive(Debug)]
pub struct Watch {
    drives: BTreeMap<String, (Identity, Drive)>,
    changed_at: Instant,
    answers: (Sender<Told>, Receiver<Told>),
    /// The last warning that would come again.
    told: Option<String>,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { drives: BTreeMap::new(), changed_at: Instant::now(), answers: channel(), told: None }
    }
}

impl Watch {
    /// Looks again. What is new begins to be read.
    pub fn look(&mut self) {
        let present = list_drives();
        let before = self.drives.len();
        self.drives.retain(|name, (identity, drive)| {
            present.iter().any(|(id, new)| &new.name == name && id == identity && same_parts(new, drive))
        });
        let mut changed = before != self.drives.len();
        for (identity, drive) in present {
            if !self.drives.contains_key(&drive.name) {
                changed = true;
                log::info!("found {}", Line(&drive, None));
                let drive = self.begin_reading(drive, &identity);
                self.drives.insert(drive.name.clone(), (identity, drive));
            }
        }
        if changed {
            self.changed_at = Instant::now();
        }
        self.take_answers();
    }

    /// The drives that are there, and who uses them now.
    pub fn drives(&self) -> Vec<Drive> {
        let mut drives: Vec<Drive> = self.drives.values().map(|(_, drive)| drive.clone()).collect();
        let swaps = swaps();
        for drive in &mut drives {
            for part in &mut drive.parts {
                part.held = holder_of(&drive.name, &part.name, &swaps);
            }
        }
        drives
    }

    /// Makes the kernel show the stretches of disks that a task names, where their disks are here, each just once.
    /// What it shows of a wrong table in a source's place goes, unless it is in use. Nothing is read or written. The
    /// next look finds them.
    pub fn show_ranges(&mut self, task: &Task) {
        let drives: Vec<&Drive> = self.drives.values().map(|(_, drive)| drive).collect();
        for Hidden { drive, number, range, in_the_way } in hidden_ranges(task, &drives) {
            let what = format!("/dev/{}: bytes {}+{}", drive.name, range.pos, range.len);
            let shown = open_drive(&drive.name).and_then(|disk| {
                in_the_way.iter().try_for_each(|number| sys::remove_partition(&disk, *number))?;
                sys::add_partition(&disk, number, range)
            });
            match shown {
                Ok(()) => log::info!("{what} are partition {number} from here on"),
                Err(cause) => {
                    let told = format!("{what} cannot be shown as a partition: {cause}");
                    // Tried again at each look.
                    if self.told.as_ref() != Some(&told) {
                        log::warn!("{told}");
                        self.told = Some(told);
                    }
                }
            }
        }
    }

    /// Is this drive still the one that was watched, and not another that has got its name meanwhile?
    pub fn is_unchanged(&self, drive: &Drive) -> bool {
        let known = self.drives.get(&drive.name).map(|(identity, _)| identity);
        list_drives().iter().any(|(identity, now)| Some(identity) == known && now.serials == drive.serials)
    }

    /// How long nothing has come or gone.
    pub fn quiet_for(&self) -> Duration {
        self.changed_at.elapsed()
    }

    /// Has every drive answered?
    pub fn is_settled(&self) -> bool {
        let mut parts = self.drives.values().flat_map(|(_, drive)| &drive.parts);
        !parts.any(|part| part.found == Found::Pending)
    }

    fn begin_reading(&self, mut drive: Drive, identity: &Identity) -> Drive {
        let (sender, identity, copy) = (self.answers.0.clone(), identity.clone(), drive.clone());
        let reader = std::thread::Builder::new().spawn(move || {
            // Nobody may be listening any more; then there is nothing to tell.
            read_drive(&copy, &|name, answer| {
                let _gone = sender.send(((name, identity.1, identity.2), answer));
            });
        });
        if reader.is_err() {
            drive.parts.iter_mut().for_each(|part| part.found = Found::Unreadable);
        }
        drive
    }

    fn take_answers(&mut self) {
        while let Ok(((name, seq, size), answer)) = self.answers.1.try_recv() {
            let mut parts = self.drives.values_mut().filter(|((_, own_seq, own_size), _)| {
                // A drive that was replaced meanwhile has a reader of its own.
                (*own_seq, *own_size) == (seq, size)
            });
            let part = parts.find_map(|(_, drive)| drive.parts.iter_mut().find(|part| part.name == name));
            match (part, answer) {
                (Some(part), Answer::Entry(uuid, kind)) => {
                    part.part_uuid = uuid;
                    part.part_type = kind;
                }
                // A drive read before its partitions showed up is known for a divided one meanwhile.
                (Some(part), Answer::Found(found)) if part.found == Found::Pending => part.found = found,
                _ => {}
            }
        }
    }
}

fn same_parts(a: &Drive, b: &Drive) -> bool {
    let key = |part: &Part| (part.number, part.start, part.size);
    a.parts.iter().map(key).eq(b.parts.iter().map(key))
}

/// Reads what only the drive itself can tell, most important first.
fn read_drive(drive: &Drive, tell: &dyn Fn(String, Answer)) {
    let mut types = BTreeMap::new();
    if drive.has_partitions() {
        let table = Disk::open(&Path::new("/dev").join(&drive.name)).ok().and_then(|disk| Table::read(&disk));
        for part in drive.parts.iter().filter(|part| part.number != 0) {
            let Some(table) = &table else { break };
            if let Some(uuid) = table.part_uuid(part.number, part.start) {
                let kind = table.part_type(part.number, part.start);
                types.insert(part.number, kind);
                tell(part.name.clone(), Answer::Entry(uuid, kind));
            }
        }
    }
    for part in drive.parts.iter().filter(|part| part.found == Found::Pending) {
        // An empty reader, or a device that is just going, cannot be opened.
        let disk = Disk::open(&part.path()).ok();
        let part_type = types.get(&part.number).copied().flatten();
        let found = disk.as_ref().map_or(Found::Unreadable, |disk| probe(disk, part_type));
        let may_be_divided = part.number == 0
            && match &found {
                Found::Unreadable => true,
                Found::Content(content) => *content == Content::other(TABLE),
                Found::Nothing | Found::Pending => false,
            };
        // What is shown now has a reader of its own; then the drive is known for a divided one.
        let is_shown = may_be_divided && disk.is_some_and(|disk| show_partitions(drive, &disk));
        if !is_shown {
            tell(part.name.clone(), Answer::Found(found));
        }
    }
}

/// Makes the kernel show the partitions of a drive of which it shows none, where its table can be read after all.
/// Nothing is written. Is there any now?
fn show_partitions(drive: &Drive, disk: &Disk) -> bool {
    // The kernel looks for them by itself when a disk is opened for the first time.
    if !sysfs::partitions_of(&Path::new(SYS_BLOCK).join(&drive.name)).is_empty() {
        return true;
    }
    let Some(table) = Table::read(disk) else { return false };
    let mut nr_shown = 0;
    for entry in table.distinct() {
        match sys::add_partition(disk.file(), entry.number, entry.range) {
            Ok(()) => nr_shown += 1,
            Err(cause) => {
                log::warn!("/dev/{}: partition {} cannot be shown: {cause}", drive.name, entry.number);
            }
        }
    }
    if nr_shown != 0 {
        log::info!("/dev/{}: {nr_shown} partitions from a table that the kernel does not take", drive.name);
    }
    nr_shown != 0
}

fn open_drive(name: &str) -> std::io::Result<File> {
    File::open(Path::new("/dev").join(name))
}

/// A stretch of a drive that is to be shown as a partition.
#[derive(Debug, PartialEq, Eq)]
struct Hidden<'a> {
    drive: &'a Drive,
    /// Free there.
    number: u32,
    range: ByteRange,
    /// The partitions that share bytes with it, where it is only read.
    in_the_way: Vec<u32>,
}

/// The stretches that a task names and no partition is, of drives that are here just once.
fn hidden_ranges<'a>(task: &Task, drives: &[&'a Drive]) -> Vec<Hidden<'a>> {
    let (source, target) = match task {
        Task::Save { source: Volumes::One(source), .. } => (Some(source), None),
        Task::Restore { target, .. } => (None, Some(target)),
        Task::Clone { source, target, .. } => (Some(source), Some(target)),
        Task::Save { source: Volumes::All, .. } | Task::Verify { .. } => (None, None),
    };
    let mut hidden: Vec<Hidden<'_>> = Vec::new();
    let named = source.map(|spec| (spec, true)).into_iter().chain(target.map(|spec| (spec, false)));
    for (spec, is_source) in named {
        let DeviceSpec::Range(serial, range) = spec else { continue };
        let mut fitting = drives.iter().copied().filter(|drive| drive.has_serial(serial));
        let (Some(drive), None) = (fitting.next(), fitting.next()) else { continue };
        let is_shown = |part: &Part| (part.start, part.size) == (range.pos, range.len);
        if range.end() > drive.size || drive.parts.iter().any(is_shown) {
            continue;
        }
        let is_free = |number: &u32| {
            let is_taken = |other: &Hidden<'_>| other.drive.name == drive.name && other.number == *number;
            !drive.parts.iter().any(|part| part.number == *number) && !hidden.iter().any(is_taken)
        };
        let shares = |part: &&Part| {
            let end = part.start.saturating_add(part.size);
            is_source && part.number != 0 && part.start.max(range.pos) < end.min(range.end())
        };
        let in_the_way = drive.parts.iter().filter(shares).map(|part| part.number).collect();
        // From behind: the numbers in front are those of a table that may show up yet.
        if let Some(number) = (1..=LAST_NUMBER).rev().find(is_free) {
            hidden.push(Hidden { drive, number, range: *range, in_the_way });
        }
    }
    hidden
}

/// The devices that memory is swapped to.
fn swaps() -> Vec<Place> {
    let table = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let paths = table.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next());
    paths.filter_map(|path| Place::of(Path::new(path))).collect()
}

/// Who uses a partition, or a drive by its own name, in words that follow its name.
fn holder_of(drive: &str, part: &str, swaps: &[Place]) -> Option<String> {
    let place = Place::of(&Path::new("/dev").join(part))?;
    if let Some(mount) = mounts_of(&place).first() {
        return Some(format!("is mounted on {}", Escaped(&mount.point.to_string_lossy())));
    }
    if swaps.iter().any(|swap| swap.overlaps(&place)) {
        return Some("is in use for swapping".to_owned());
    }
    // What lies on the whole drive uses each part of it.
    [part, drive].into_iter().find_map(|name| {
        let holders = Path::new(SYS_BLOCK).join(name).join("holders");
        let holder = std::fs::read_dir(holders).ok()?.flatten().next()?;
        Some(format!("is in use by {}", Escaped(&holder.file_name().to_string_lossy())))
    })
}

/// Every drive in sysfs, with its partitions, nothing of it read.
fn list_drives() -> Vec<(Identity, Drive)> {
    let sys = Path::new(SYS_BLOCK);
    let names = std::fs::read_dir(sys).into_iter().flatten().flatten();
    let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let is_part = |name: &String| sys.join(name).join("partition").exists();
    let (parts, drives): (Vec<_>, Vec<_>) = names.into_iter().partition(is_part);
    let drives = drives.into_iter().filter(|name| is_drive(name));
    drives
        .filter_map(|name| {
            let dir = sys.join(&name);
            let size = sysfs::bytes(&dir.join("size")).filter(|size| *size != 0)?;
            let seq = sysfs::number(&dir.join("diskseq")).unwrap_or(0);
            let own_parts = parts.iter().filter(|part| dir.join(part).exists());
            let mut found: Vec<_> = own_parts.filter_map(|part| read_part(&sys.join(part), part)).collect();
            found.sort_by_key(|part| part.number);
            let content = Content::other(TABLE);
            let whole = Part {
                name: name.clone(),
                number: 0,
                start: 0,
                size,
                part_label: String::new(),
                part_uuid: String::new(),
                part_type: None,
                held: None,
                found: if found.is_empty() { Found::Pending } else { Found::Content(content) },
            };
            found.insert(0, whole);
            let drive = Drive {
                name: name.clone(),
                size,
                model: identity::model(&dir),
                serials: identity::serials(&dir),
                parts: found,
                is_stick: false,
            };
            Some(((name, seq, size), drive))
        })
        .collect()
}

fn is_drive(name: &str) -> bool {
    let follows = |prefix: &str| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    // `nvme0c0n1` is one path to `nvme0n1`; an eMMC's boot and replay areas are no volumes.
    let is_path = name.starts_with("nvme") && name.contains('c');
    let is_area = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    !NO_DRIVES.into_iter().any(follows) && !is_path && !is_area
}

fn read_part(dir: &Path, name: &str) -> Option<Part> {
    let uevent = std::fs::read_to_string(dir.join("uevent")).unwrap_or_default();
    let part_label = uevent.lines().find_map(|line| line.strip_prefix("PARTNAME="));
    Some(Part {
        name: name.to_owned(),
        number: u32::try_from(sysfs::number(&dir.join("partition"))?).ok()?,
        start: sysfs::bytes(&dir.join("start"))?,
        size: sysfs::bytes(&dir.join("size"))?,
        part_label: part_label.unwrap_or_default().to_owned(),
        part_uuid: String::new(),
        part_type: None,
        found: Found::Pending,
        held: None,
    })
}

/// One candidate for a list: the drive, or one of its partitions.
pub struct Line<'a>(pub &'a Drive, pub Option<&'a Part>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line(drive, part) = self;
        let (name, size) = part.map_or((&drive.name, drive.size), |part| (&part.name, part.size));
        write!(f, "/dev/{name}: {}", Size(size))?;
        match part {
            None => {
                write!(f, ", serial {}", Quoted(drive.serial()))?;
                drive.serials.iter().skip(1).try_for_each(|also| write!(f, " or {}", Quoted(also)))?;
                write!(f, ", model {}", Quoted(&drive.model))?;
                f.write_str(if drive.is_stick { ", the stick that this was booted from" } else { "" })
            }
            Some(part) => {
                if part.number != 0 {
                    write!(f, ", partition {} of serial {}", part.number, Quoted(drive.serial()))?;
                }
                for (what, text) in [("PARTUUID", &part.part_uuid), ("PARTLABEL", &part.part_label)] {
                    if !text.is_empty() {
                        write!(f, ", {what} {}", Quoted(text))?;
                    }
                }
                if let Some(name) = part.part_type.and_then(PartType::name) {
                    write!(f, ", type {name}")?;
                }
                match &part.found {
                    Found::Pending => f.write_str(", does not answer yet"),
                    Found::Nothing => f.write_str(", blank"),
                    Found::Unreadable => f.write_str(", cannot be read"),
                    Found::Content(content) => {
                        write!(f, ", {}", content.kind.name())?;
                        if !content.label.is_empty() {
                            write!(f, ", label {}", Quoted(&content.label))?;
                        }
                        if !content.uuid.is_empty() {
                            write!(f, ", UUID {}", Quoted(&content.uuid))?;
                        }
                        match content.told_by {
                            ToldBy::Itself => Ok(()),
                            ToldBy::Backup => f.write_str(" (by the backup of its boot sector)"),
                            ToldBy::PartType => f.write_str(" (by its type; no boot sector can be read)"),
                        }
                    }
                }?;
                part.held.iter().try_for_each(|how| write!(f, ", {how}"))
            }
        }
    }
}

/// Bytes for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")]
            .into_iter()
            .find(|(unit, _)| self.0 >= *unit)
            .unwrap_or((1 << 10, "KiB"));
        write!(f, "{:.1} {name}", self.0 as f64 / unit as f64)
    }
}

#[cfg(test)]
mod tests;
