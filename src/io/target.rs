//! Opening what is written to: first every check, without touching anything, then the sink.
//!
//! A new file is written as `NAME.part` and gets its name when it is whole. What is written is locked, so that no other run
//! writes it too: what is there from the first check on, what is made once it is made, both until the target is dropped.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::ahead::{self, Ahead, AheadError, Limits};
use super::disk::{Disk, OpenError};
use super::lock::{self, LockError};
use super::mounts::{Place, mounts_of};
use super::parts::{self, MAX_PARTS, Parts, PartsError, numbered};
use super::raw::RawSink;
use super::store::{folder_of, sync_folder_of};
use super::stream::{Output, StreamSink};
use super::{PlacedSink, Sink, WriteError};
use crate::image::PlacedImage;
use crate::image::trailer::Origin;
use crate::plan::Plan;
use crate::rescue::frozen::Form;
use crate::sys;
use crate::units::Geometry;

/// Ends the name of a file while it is written.
const PART: &[u8] = b".part";

/// Bytes that an ahead file leaves free beside what its target needs: for the map, the report and folders that grow.
const SPARE: u64 = 16 << 20;

/// Where a job's bytes are to go, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetName {
    /// A file that must not exist.
    New(PathBuf),
    /// A file or device whose content is replaced.
    Replace(PathBuf),
    /// Standard output.
    Stdout,
}

impl TargetName {
    /// Is there anything of it, whole or unfinished, in one piece or in parts?
    pub fn exists(&self) -> bool {
        match self {
            TargetName::New(path) => parts::exists(path) || parts::exists(&part_of(path)),
            TargetName::Replace(path) => parts::exists(path),
            TargetName::Stdout => true,
        }
    }

    /// Must bytes be written there from front to back?
    pub fn is_in_order(&self) -> bool {
        let (TargetName::New(path) | TargetName::Replace(path)) = self else { return true };
        let kind = std::fs::metadata(path).map(|metadata| metadata.file_type());
        kind.is_ok_and(|kind| !kind.is_file() && !kind.is_block_device() && !kind.is_dir())
    }
}

/// Why a target is refused.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// `-o` of something that exists.
    #[error("output file '{}' already exists; use --overwrite to replace its content", .0.display())]
    Exists(PathBuf),
    /// A map of a rescue whose target is not there.
    #[error("the target '{}' is not there, but its map is: remove the map to begin anew", .0.display())]
    NotBegun(PathBuf),
    /// With a new map a file must be empty.
    #[error("target '{}' is not empty, and there is no map that says what it holds: remove one or name the other", .0.display())]
    NotEmpty(PathBuf),
    /// It cannot be written in any order.
    #[error("target '{}' can only be written in order: a map goes with a file or a device", .0.display())]
    InOrder(PathBuf),
    /// What an earlier run did not finish.
    #[error("'{}' is an unfinished copy of an earlier run: move or remove it first", .0.display())]
    Unfinished(PathBuf),
    /// Another run has it.
    #[error("target {0}")]
    Locked(LockError),
    /// The kernel gives a device to one alone.
    #[error("target device '{}' is in use by another run, a file system, RAID or LVM: it is wanted alone", .0.display())]
    InUse(PathBuf),
    /// The target is mounted.
    #[error("target '{}' is mounted on '{}': unmount it first", target.display(), point.display())]
    Mounted {
        /// The target.
        target: PathBuf,
        /// Where it is mounted.
        point: PathBuf,
    },
    /// Source and target share bytes.
    #[error("source '{}' and target '{}' are on the same device or file", origin.display(), target.display())]
    SameAsSource {
        /// The source.
        origin: PathBuf,
        /// The target.
        target: PathBuf,
    },
    /// The kernel refuses writes.
    #[error("target device '{}' is read-only", .0.display())]
    ReadOnly(PathBuf),
    /// The target is too small.
    #[error("target '{}' has {found} bytes, but {wanted} are needed", target.display())]
    TooSmall {
        /// The target.
        target: PathBuf,
        /// Its bytes.
        found: u64,
        /// Bytes wanted.
        wanted: u64,
    },
    /// The file system has no room.
    #[error("no room for '{}': its file system has {found} bytes free, but {wanted} are needed", target.display())]
    NoRoom {
        /// The target.
        target: PathBuf,
        /// Bytes free.
        found: u64,
        /// Bytes wanted.
        wanted: u64,
    },
    /// The system refused something.
    #[error("cannot {what} target '{}': {cause}", target.display())]
    System {
        /// What was to be done.
        what: &'static str,
        /// The target.
        target: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file system takes no file of that length.
    #[error("'{}' cannot be so long: its file system takes {found} bytes, but {wanted} are needed; --split saves an image in parts", target.display())]
    TooLong {
        /// The target.
        target: PathBuf,
        /// Bytes of the longest file.
        found: u64,
        /// Bytes wanted.
        wanted: u64,
    },
    /// The image would have more parts than there are numbers.
    #[error("'{}' would have {found} parts, but {MAX_PARTS} are the most: give --split longer ones", target.display())]
    TooManyParts {
        /// The target.
        target: PathBuf,
        /// How many parts.
        found: u64,
    },
    /// Parts are wanted, but something of that name is there.
    #[error("'{}' is there, and not in parts: move or remove it first, or leave out --split", .0.display())]
    InOnePiece(PathBuf),
    /// Parts are there, and none are wanted.
    #[error("'{}' is there, the first part of an image: give --split as before", .0.display())]
    InParts(PathBuf),
    /// Parts that do not make an image, or cannot be written.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// What is beside it was not read ahead for it.
    #[error(transparent)]
    Ahead(#[from] AheadError),
    /// A first write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What was written cannot be opened to be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl TargetError {
    /// Is it that there is no room for so many bytes?
    pub fn is_of_room(&self) -> bool {
        matches!(
            self,
            TargetError::NoRoom { .. } | TargetError::TooLong { .. } | TargetError::TooManyParts { .. }
        )
    }

    /// Was the target being written already?
    pub fn is_of_write(&self) -> bool {
        matches!(self, TargetError::Write(_))
    }
}

/// A target that has passed the checks that need nothing of the source but its name.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    kind: Kind,
    /// How its content stands to a map.
    mapped: Mapped,
    /// Bytes of a part, where the target is an image in parts.
    split: Option<u64>,
    /// The file that is written, or the first of its parts, from when it is there: locked.
    held: OnceLock<File>,
}

/// How a target's content stands to the map of a rescue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// There is no map, and what is there is replaced.
    No,
    /// A map begins with it.
    New,
    /// A map says what it holds.
    Resumed,
}

#[derive(Debug)]
enum Kind {
    /// A file that is to be made, under another name until it is whole.
    New,
    /// A file that is written in place.
    File,
    Device {
        file: File,
        size: u64,
    },
    /// A FIFO, a terminal, `/dev/null`.
    Stream,
    Stdout,
}

impl Kind {
    fn is_in_order(&self) -> bool {
        matches!(self, Kind::Stream | Kind::Stdout)
    }
}

/// What a target is asked to have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes from the first to the last that is written: what a device must have.
    pub length: u64,
    /// Bytes that are written: what a file system must have free.
    pub content: u64,
}

impl Target {
    /// Looks at the target and refuses what must not be written to. Nothing is created or changed; a device is
    /// opened exclusively. The files of the source are not to be overwritten; with `split` the target is an image in parts
    /// of so many bytes.
    pub fn examine(name: &TargetName, source: &[&Path], split: Option<u64>) -> Result<Target, TargetError> {
        Target::examine_mapped(name, source, split, Mapped::No)
    }

    /// The same with a map, which says what an earlier run has written.
    pub fn examine_mapped(
        name: &TargetName,
        source: &[&Path],
        split: Option<u64>,
        mapped: Mapped,
    ) -> Result<Target, TargetError> {
        if let (Some(part_len), TargetName::New(_) | TargetName::Replace(_)) = (split, name) {
            return Target::examine_parts(name, source, part_len, mapped);
        }
        if mapped == Mapped::Resumed
            && let TargetName::New(path) = name
        {
            // Unfinished it has another name; finished as far as it went, its own.
            let part = part_of(path);
            return match (part.exists(), path.exists()) {
                (true, false) => {
                    let part = Target::examine_mapped(&TargetName::Replace(part), source, None, mapped)?;
                    Ok(Target { path: path.clone(), kind: Kind::New, ..part })
                }
                (false, true) => {
                    Target::examine_mapped(&TargetName::Replace(path.clone()), source, None, mapped)
                }
                (true, true) => Err(TargetError::Exists(path.clone())),
                (false, false) => Err(not_begun(path, &[path, &part])),
            };
        }
        let (path, must_be_new) = match name {
            TargetName::New(path) => (path.clone(), true),
            TargetName::Replace(path) => (path.clone(), false),
            TargetName::Stdout => {
                if stdout_is_closed() {
                    let cause = io::Error::from_raw_os_error(nix::libc::EBADF);
                    let target = "standard output".into();
                    return Err(TargetError::System { what: "write to", target, cause });
                }
                let path = "standard output".into();
                return Ok(Target { path, kind: Kind::Stdout, mapped, split, held: OnceLock::new() });
            }
        };
        let mut held = OnceLock::new();
        let system = |what| {
            let target = path.clone();
            move |cause| TargetError::System { what, target, cause }
        };
        let found = match std::fs::metadata(&path) {
            Ok(_) if must_be_new => return Err(TargetError::Exists(path)),
            Ok(metadata) => Some(metadata.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(system("look at")(cause)),
        };
        let Some(file_type) = found else {
            // A dangling symbolic link is in the way too.
            if path.symlink_metadata().is_ok() {
                return Err(TargetError::Exists(path));
            }
            std::fs::metadata(folder_of(&path)).map_err(system("look at the folder of"))?;
            if mapped == Mapped::Resumed {
                return Err(not_begun(&path, &[&path]));
            }
            if !must_be_new {
                return Ok(Target { path, kind: Kind::File, mapped, split, held });
            }
            let part = part_of(&path);
            if part.symlink_metadata().is_ok() {
                return Err(left_over(part));
            }
            return Ok(Target { path, kind: Kind::New, mapped, split, held });
        };
        refuse_in_use(&path, source)?;
        let kind = if file_type.is_block_device() {
            let exclusive =
                OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_EXCL).open(&path);
            let file = exclusive.map_err(|cause| match cause.raw_os_error() {
                Some(nix::libc::EROFS) => TargetError::ReadOnly(path.clone()),
                Some(nix::libc::EBUSY) => TargetError::InUse(path.clone()),
                _ => system("open exclusively")(cause),
            })?;
            if sys::is_read_only(&file).map_err(system("ask"))? {
                return Err(TargetError::ReadOnly(path));
            }
            let size = sys::device_size(&file).map_err(system("get the size of"))?;
            // The kernel gives it to nobody else; this is for udev, and for who reads an image there.
            if let Err(error) = file.try_lock() {
                log::debug!("{}: cannot be locked: {error}", path.display());
            }
            Kind::Device { file, size }
        } else if file_type.is_file() {
            held = lock::existing(&path)?.into();
            if mapped == Mapped::New && std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0) {
                return Err(TargetError::NotEmpty(path));
            }
            Kind::File
        } else if file_type.is_dir() {
            return Err(system("write to")(io::ErrorKind::IsADirectory.into()));
        } else {
            Kind::Stream
        };
        if kind.is_in_order() && mapped != Mapped::No {
            return Err(TargetError::InOrder(path));
        }
        Ok(Target { path, kind, mapped, split, held })
    }

    /// Looks at the target of an image in parts: none of that name may be there, or those of an earlier run.
    fn examine_parts(
        name: &TargetName,
        source: &[&Path],
        part_len: u64,
        mapped: Mapped,
    ) -> Result<Target, TargetError> {
        let (TargetName::New(path) | TargetName::Replace(path)) = name else {
            return Err(TargetError::InOrder("standard output".into()));
        };
        let must_be_new = matches!(name, TargetName::New(_));
        let system = |what| move |cause| TargetError::System { what, target: path.clone(), cause };
        std::fs::metadata(folder_of(path)).map_err(system("look at the folder of"))?;
        let unfinished = part_of(path);
        let whole = [path, &unfinished].into_iter().find(|path| path.symlink_metadata().is_ok());
        match whole {
            Some(there) if there == path && must_be_new && mapped != Mapped::Resumed => {
                return Err(TargetError::Exists(path.clone()));
            }
            Some(there) if there == path || must_be_new => {
                return Err(TargetError::InOnePiece(there.clone()));
            }
            _ => {}
        }
        let first = |path: &Path| parts::all_of(path).next();
        let begun = |path: &Path| parts::exists(path);
        let kind = match (must_be_new, mapped) {
            (true, Mapped::Resumed) => match (begun(&unfinished), begun(path)) {
                (true, false) => Kind::New,
                (false, true) => Kind::File,
                (true, true) => return Err(TargetError::Exists(numbered(path, 1))),
                (false, false) => return Err(TargetError::NotBegun(path.clone())),
            },
            (false, Mapped::Resumed) if !begun(path) => return Err(TargetError::NotBegun(path.clone())),
            (true, _) => match (first(path), first(&unfinished)) {
                (Some(there), _) => return Err(TargetError::Exists(there)),
                (None, Some(there)) => return Err(left_over(there)),
                (None, None) => Kind::New,
            },
            (false, _) => Kind::File,
        };
        let mut held = OnceLock::new();
        let written = numbered(if matches!(kind, Kind::New) { &unfinished } else { path }, 1);
        for part in parts::all_of(path).chain(parts::all_of(&unfinished)) {
            refuse_in_use(&part, source)?;
            let metadata = std::fs::metadata(&part).map_err(system("look at the parts of"))?;
            if !metadata.is_file() {
                return Err(TargetError::InOnePiece(part));
            }
            if part == written {
                held = lock::existing(&part)?.into();
            }
            if mapped == Mapped::New && metadata.len() > 0 {
                return Err(TargetError::NotEmpty(part));
            }
        }
        Ok(Target { path: path.clone(), kind, mapped, split: Some(part_len), held })
    }

    /// May stretches of a raw clone come in any order?
    pub fn takes_any_order(&self) -> bool {
        !self.kind.is_in_order()
    }

    /// Bytes in a logical sector, if the target is a device.
    pub fn sector_size(&self) -> Option<u32> {
        match &self.kind {
            Kind::Device { file, .. } => sys::logical_sector_size(file).ok(),
            _ => None,
        }
    }

    /// The target's name, for messages.
    pub fn name(&self) -> String {
        let numbers = if self.split.is_some() { ".NNN" } else { "" };
        match self.kind {
            Kind::Stdout => self.path.display().to_string(),
            _ => format!("'{}{numbers}'", self.written_path().display()),
        }
    }

    /// Refuses a target that is too small, before anything is read for it.
    ///
    /// On a file system without holes a file takes all of its length. What a rescue reads ahead there lies in the ahead
    /// file too until it is in place, but nothing is demanded for that: it gets only what the target leaves free.
    pub fn require(&self, room: Room) -> Result<(), TargetError> {
        let target = self.path.clone();
        let in_use = match &self.kind {
            Kind::Device { size, .. } if *size < room.length => {
                return Err(TargetError::TooSmall { target, found: *size, wanted: room.length });
            }
            Kind::Device { .. } | Kind::Stream | Kind::Stdout => return Ok(()),
            Kind::New if self.mapped == Mapped::Resumed => occupied(&part_of(&target)),
            Kind::New => 0,
            // Truncating gives back what the file holds now.
            Kind::File => occupied(&target),
        };
        // A link's file may be on another file system than the link: those in /dev/fd always are.
        let place = if self.path.exists() { &self.path } else { folder_of(&self.path) };
        let stat = nix::sys::statvfs::statvfs(place).map_err(|errno| TargetError::System {
            what: "ask for the room for",
            target: target.clone(),
            cause: errno.into(),
        })?;
        let found = stat.blocks_available().saturating_mul(stat.fragment_size()).saturating_add(in_use);
        let features =
            ahead::features_of(place).map_err(|cause| self.system("ask for the file system of", cause))?;
        let wanted = self.split.map_or(room.length, |part_len| part_len.min(room.length));
        if wanted > features.longest {
            return Err(TargetError::TooLong { target, found: features.longest, wanted });
        }
        match self.split.map(|part_len| room.length.div_ceil(part_len.max(1))) {
            Some(found) if found > MAX_PARTS => return Err(TargetError::TooManyParts { target, found }),
            _ => {}
        }
        let wanted = if features.reach.is_some() { room.length.max(room.content) } else { room.content };
        if found < wanted {
            return Err(TargetError::NoRoom { target, found, wanted });
        }
        Ok(())
    }

    /// Opens the target for a raw clone: from here on it is changed.
    pub fn open_raw(&self, geometry: &Geometry) -> Result<Box<dyn Sink>, TargetError> {
        let name = self.name();
        Ok(match &self.kind {
            Kind::Device { file, size } => {
                let file = file.try_clone().map_err(|cause| self.system("open", cause))?;
                Box::new(RawSink::device(file, name, *size, geometry)?)
            }
            Kind::New | Kind::File => Box::new(RawSink::sparse_file(self.open_file()?, name, geometry)),
            Kind::Stream | Kind::Stdout => {
                Box::new(StreamSink::clone(self.open_output()?, name, geometry.device_size))
            }
        })
    }

    /// Opens the target to be written in any order and read back: from here on it is changed. An image gets a trailer
    /// if its origin is named.
    pub fn open_placed<'p>(
        &self,
        plan: &'p Plan,
        form: Form,
        origin: Option<Origin>,
    ) -> Result<Box<dyn PlacedSink + 'p>, TargetError> {
        let (name, geometry) = (self.name(), &plan.geometry);
        let resumes = self.mapped == Mapped::Resumed;
        if !resumes {
            self.clear_ahead()?;
        }
        if let Some(part_len) = self.split {
            let image = PlacedImage::new(self.open_parts(part_len)?, name, plan)?.with_trailer(origin);
            return self.with_ahead(Box::new(image), geometry);
        }
        let file = match &self.kind {
            Kind::Device { file, .. } => file.try_clone().map_err(|cause| self.system("open", cause))?,
            Kind::New | Kind::File => self.open_file()?,
            Kind::Stream | Kind::Stdout => return Err(TargetError::InOrder(self.path.clone())),
        };
        let sink: Box<dyn PlacedSink + 'p> = match (form, &self.kind) {
            (Form::Image, _) => Box::new(PlacedImage::new(file, name, plan)?.with_trailer(origin)),
            (Form::Clone, kind) if resumes => {
                let is_file = !matches!(kind, Kind::Device { .. });
                Box::new(RawSink::resume(file, name, geometry, is_file))
            }
            (Form::Clone, Kind::Device { size, .. }) => {
                Box::new(RawSink::device(file, name, *size, geometry)?)
            }
            (Form::Clone, _) => Box::new(RawSink::file(file, name, geometry)),
        };
        self.with_ahead(sink, geometry)
    }

    /// Opens the parts of an image: from here on the target is changed.
    fn open_parts(&self, part_len: u64) -> Result<Parts, TargetError> {
        let (name, published) = (self.written_path(), matches!(self.kind, Kind::New).then_some(&*self.path));
        Ok(match self.mapped {
            Mapped::Resumed => Parts::resume(name, part_len, published)?,
            _ => Parts::create(name, self.open_file()?, part_len)?,
        })
    }

    /// Where bytes wait that the target cannot take cheaply yet: `FILE.ahead`, beside the file and called after the name
    /// that this will have in the end, so that it is found whether the target is still `FILE.part` or not.
    fn ahead_path(&self) -> Option<PathBuf> {
        let path = match self.kind {
            Kind::New => self.path.clone(),
            // The file of a link may be on another file system.
            Kind::File => std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()),
            _ => return None,
        };
        let name = path.file_name().unwrap_or_default().as_bytes();
        let whole = path.with_file_name(OsStr::from_bytes(name.strip_suffix(PART).unwrap_or(name)));
        Some(with_ending(&whole, b".ahead"))
    }

    /// Sees to it that nothing waits beside a target that is begun anew: what does belonged to another.
    fn clear_ahead(&self) -> Result<(), TargetError> {
        match self.ahead_path() {
            Some(path) if matches!(self.kind, Kind::File) && self.mapped == Mapped::No => {
                Ok(ahead::discard(&path)?)
            }
            Some(path) if path.symlink_metadata().is_ok() => Err(TargetError::Unfinished(path)),
            _ => Ok(()),
        }
    }

    /// Puts an ahead file before a target whose file system has no holes. What waits from an earlier run is taken up
    /// wherever the target is now.
    fn with_ahead<'p>(
        &self,
        sink: Box<dyn PlacedSink + 'p>,
        geometry: &Geometry,
    ) -> Result<Box<dyn PlacedSink + 'p>, TargetError> {
        let Some(path) = self.ahead_path() else { return Ok(sink) };
        let asking = |cause| self.system("ask for the file system of", cause);
        let waiting = path.metadata().ok().map(|metadata| metadata.len());
        let reach = match ahead::features_of(folder_of(&path)).map_err(asking)?.reach {
            None if waiting.is_none() => return Ok(sink),
            reach => reach.unwrap_or(u64::MAX),
        };
        let stat = nix::sys::statvfs::statvfs(folder_of(&path)).map_err(|errno| asking(errno.into()))?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        let still_needed = sink.len().saturating_sub(sink.end()).saturating_add(SPARE);
        let max_len = free.saturating_sub(still_needed).saturating_add(waiting.unwrap_or(0));
        let limits = Limits { path, reach, max_len, volume_len: geometry.device_size };
        Ok(Box::new(Ahead::new(sink, limits)?))
    }

    /// Where its bytes are, now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The target's size and the open device, if it is one.
    pub fn device(&self) -> Option<(u64, &File)> {
        match &self.kind {
            Kind::Device { file, size } => Some((*size, file)),
            _ => None,
        }
    }

    /// Opens the target for bytes from front to back, an image: from here on it is changed.
    pub fn open_output(&self) -> Result<Output, TargetError> {
        Ok(match (&self.kind, self.split) {
            (Kind::Stdout, _) => self.stdout()?,
            (Kind::Device { file, .. }, _) => {
                Output::file(file.try_clone().map_err(|cause| self.system("open", cause))?)
            }
            (_, Some(part_len)) => Output::Parts(self.open_parts(part_len)?),
            (Kind::New | Kind::File, None) => Output::file(self.open_file()?),
            (Kind::Stream, None) => {
                let opened = OpenOptions::new().write(true).open(&self.path);
                Output::Stream(opened.map_err(|cause| self.system("open", cause))?)
            }
        })
    }

    /// Opens what was written and synced, to be read from the medium and not from what the kernel remembers of it.
    pub fn open_written(&self) -> Result<Disk, TargetError> {
        if let Kind::Device { file, .. } = &self.kind
            && let Err(error) = sys::drop_cache(file)
        {
            // Only root may. What is read past the cache comes from the medium all the same.
            log::debug!("{}: cannot drop the cache: {error}", self.name());
        }
        let disk = Disk::open(&self.written_path())?;
        if !disk.is_device() {
            let all = posix_fadvise(disk.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            all.map_err(|errno| self.system("drop the cache of", errno.into()))?;
        }
        Ok(disk)
    }

    /// Where its bytes are as long as it is not published.
    fn written_path(&self) -> PathBuf {
        if matches!(self.kind, Kind::New) { part_of(&self.path) } else { self.path.clone() }
    }

    fn stdout(&self) -> Result<Output, TargetError> {
        Output::stdout().map_err(|cause| self.system("open", cause))
    }

    /// The locked file, or the first of its parts. It is empty but for that of an earlier run, with which this one goes on.
    fn open_file(&self) -> Result<File, TargetError> {
        let locked = match self.held.get() {
            Some(held) => held,
            None => {
                let path = self.written_path();
                let path = if self.split.is_some() { numbered(&path, 1) } else { path };
                let made = if matches!(self.kind, Kind::New) { lock::new(&path) } else { lock::made(&path) };
                let made = made?;
                self.held.get_or_init(|| made)
            }
        };
        let file = locked.try_clone().map_err(|cause| self.system("open", cause))?;
        if self.mapped != Mapped::Resumed {
            file.set_len(0).map_err(|cause| self.system("empty", cause))?;
        }
        Ok(file)
    }

    fn system(&self, what: &'static str, cause: io::Error) -> TargetError {
        TargetError::System { what, target: self.path.clone(), cause }
    }

    /// Gives a finished new file its name.
    pub fn publish(&self) -> Result<(), TargetError> {
        if !matches!(self.kind, Kind::New) {
            return Ok(());
        }
        if self.path.symlink_metadata().is_ok() {
            return Err(TargetError::Exists(self.path.clone()));
        }
        if self.split.is_some() {
            return parts::rename_all(&part_of(&self.path), &self.path)
                .map_err(|cause| self.system("rename the parts of", cause));
        }
        std::fs::rename(part_of(&self.path), &self.path).map_err(|cause| self.system("rename", cause))?;
        sync_folder_of(&self.path).map_err(|cause| self.system("sync the folder of", cause))
    }

    /// What is left behind when the job fails now, as a sentence; none where nothing was changed that matters.
    pub fn left_behind(&self) -> Option<String> {
        match self.kind {
            Kind::New => parts::exists(&part_of(&self.path)).then(|| {
                let ahead = self.ahead_path().filter(|path| path.exists());
                let ahead = ahead.map(|path| format!(" and '{}'", path.display())).unwrap_or_default();
                format!("what was copied so far is left in {}{ahead}", self.name())
            }),
            Kind::File | Kind::Device { .. } => {
                Some(format!("{} is unfinished and holds no usable copy", self.name()))
            }
            Kind::Stream | Kind::Stdout => None,
        }
    }
}

impl From<LockError> for TargetError {
    fn from(error: LockError) -> TargetError {
        match error {
            LockError::Open { path, cause } => TargetError::System { what: "open", target: path, cause },
            locked => TargetError::Locked(locked),
        }
    }
}

/// Why a file that is not there under its own name cannot be begun under the one that it has until then.
fn left_over(part: PathBuf) -> TargetError {
    if lock::is_being_written(&part) {
        return TargetError::Locked(LockError::Busy(part));
    }
    TargetError::Unfinished(part)
}

/// Refuses a target that has bytes of the source, or is mounted.
fn refuse_in_use(path: &Path, source: &[&Path]) -> Result<(), TargetError> {
    let Some(place) = Place::of(path) else { return Ok(()) };
    let is_of_source = |source: &&&Path| Place::of(source).is_some_and(|source| source.overlaps(&place));
    if let Some(source) = source.iter().find(is_of_source) {
        return Err(TargetError::SameAsSource { origin: source.to_path_buf(), target: path.to_owned() });
    }
    match mounts_of(&place).into_iter().next() {
        Some(mount) => Err(TargetError::Mounted { target: path.to_owned(), point: mount.point }),
        None => Ok(()),
    }
}

/// Why there is nothing to go on with, unless one of these is an image in parts.
fn not_begun(target: &Path, names: &[&Path]) -> TargetError {
    let first = names.iter().map(|name| numbered(name, 1)).find(|first| first.symlink_metadata().is_ok());
    first.map_or_else(|| TargetError::NotBegun(target.to_owned()), TargetError::InParts)
}

/// Bytes that a target occupies on its file system, in one piece or in parts.
fn occupied(name: &Path) -> u64 {
    let files = std::iter::once(name.to_owned()).chain(parts::all_of(name));
    files.map(|file| std::fs::metadata(file).map_or(0, |metadata| metadata.blocks() * 512)).sum()
}

/// The name of a file while it is written.
fn part_of(path: &Path) -> PathBuf {
    with_ending(path, PART)
}

/// The name with an ending: one that has no room for it gives some of its own.
fn with_ending(path: &Path, ending: &[u8]) -> PathBuf {
    const LONGEST: usize = 255;
    let name = path.file_name().unwrap_or_default().as_bytes();
    let kept = name.get(..LONGEST.saturating_sub(ending.len())).unwrap_or(name);
    path.with_file_name(OsStr::from_bytes(&[kept, ending].concat()))
}

/// Was the program started without a standard output? Rust's runtime then puts `/dev/null` in its place, open for
/// reading too, and a copy that goes there would seem to succeed.
fn stdout_is_closed() -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let stdout = io::stdout();
    let is_null = nix::sys::stat::fstat(stdout.as_fd())
        .is_ok_and(|stat| std::fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == stat.st_rdev));
    let mode = fcntl(stdout.as_fd(), FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
    is_null && mode.is_ok_and(|mode| mode.contains(OFlag::O_RDWR))
}
