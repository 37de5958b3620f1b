//! Does a job: opens source and target, pumps, and tells. The only file that knows all others.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::copy::{CopyError, Feed, MetadataFeed, Reader, SaveFeed, Seal, VolumeFeed, pump};
use crate::event::{Event, Observer, Phase};
use crate::image::trailer::{self, Marks};
use crate::image::{self, ImageEncoder, ImageError};
use crate::io::compressed::CompressedSink;
use crate::io::disk::{Disk, OpenError};
use crate::io::identity::Known;
use crate::io::kept::Kept;
use crate::io::lock::{self, LockError};
use crate::io::mounts::{Place, mounts_of};
use crate::io::parts::PartsError;
use crate::io::remote::Wait;
use crate::io::store::LocalStore;
use crate::io::stream::{DrySink, StreamSink};
use crate::io::target::{Room, Target, TargetError, TargetName};
use crate::io::{Loss, ReadError, Sink, Source, WriteError};
use crate::job::{Action, Job, MetadataOnly};
use crate::ntfs::first::PatternError;
use crate::ntfs::metadata::Collector;
use crate::ntfs::scan::{Usage, scan};
use crate::ntfs::shutdown::{has_unclean_log, is_hibernated};
use crate::ntfs::wipe::Wiping;
use crate::ntfs::{self, Tolerance, Volume};
use crate::plan::Plan;
use crate::rescue::frozen::{self, Form, FrozenError};
use crate::rescue::mapstore::MapError;
use crate::serial::{NewSerial, SerialFeed};
use crate::units::Geometry;

mod check;
mod memory;
mod opened;
mod provenance;
mod rescue;

use check::{
    check, compare, conclude, files_of, first_sector, naming_last_part, open_checked, tell_checked,
    tell_of_missing_extra, verify, walk,
};
use opened::Opened;
use provenance::{Noting, anonymous, origin_of};

/// Bytes of metadata that are kept from the scan for the copy.
const KEPT: u64 = 4 << 20;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The source cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The source is in use.
    #[error("source '{}' is mounted for writing on '{}': unmount it first, or mount it read-only", source_path.display(), point.display())]
    SourceMounted {
        /// The source.
        source_path: PathBuf,
        /// Where it is mounted.
        point: PathBuf,
    },
    /// The target is refused, or failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Another run has the source, or the map.
    #[error("{what} {cause}")]
    Locked {
        /// What it has.
        what: &'static str,
        /// How it is in use.
        cause: LockError,
    },
    /// The volume makes no sense.
    #[error("{cause}{}", advice(cause.read()))]
    Ntfs {
        /// What is wrong with it.
        #[from]
        cause: ntfs::Error,
    },
    /// The volume was not unmounted.
    #[error("the volume is marked dirty: run 'chkdsk /f' on Windows, or copy it as it is with --force")]
    Dirty,
    /// The image makes no sense.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image cannot be opened.
    #[error("cannot open the image '{}': {cause}", path.display())]
    OpenImage {
        /// The image.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Its files are not what parts of an image are.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// An image in parts ends too early.
    #[error("{cause}; its last part is '{}'", last.display())]
    CutOffParts {
        /// What was missing.
        cause: Box<RunError>,
        /// The last part that is there.
        last: PathBuf,
    },
    /// The copy ended early.
    #[error("{cause}{}", advice(cause.read()))]
    Copy {
        /// What went wrong.
        #[from]
        cause: CopyError,
    },
    /// The target could not be finished.
    #[error(transparent)]
    Finish(#[from] WriteError),
    /// The map of a rescue cannot be read or kept.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The plan of a rescue cannot be read or kept.
    #[error(transparent)]
    Plan(#[from] FrozenError),
    /// A pattern of files that come first.
    #[error("--first: {0}")]
    First(#[from] PatternError),
    /// A map without its plan.
    #[error("the map '{}' has lost its plan '{}': without it nobody knows where things are in the target", .0.display(), frozen::path_of(.0).display())]
    NoPlan(PathBuf),
    /// No map where one is wanted.
    #[error("there is no map '{}'", .0.display())]
    NoMap(PathBuf),
    /// A map of ddrescue's, but an image is wanted.
    #[error("the map '{}' is ddrescue's and goes with a raw clone; an image needs a map of its own", .0.display())]
    ForeignMap(PathBuf),
    /// What is there is not what the map is about.
    #[error("this is not the {what} of the map: found {found}, wanted {wanted}")]
    OtherThanMap {
        /// What differs.
        what: &'static str,
        /// What is there.
        found: String,
        /// What the map names.
        wanted: String,
    },
    /// What was restored was read back, and is something else.
    #[error(
        "{target} is no copy of the image: of what that holds {differing} bytes differ and {unreadable} cannot be read"
    )]
    NotACopy {
        /// Name of the target.
        target: String,
        /// Bytes of clusters that differ.
        differing: u64,
        /// Bytes of clusters that cannot be read.
        unreadable: u64,
    },
    /// It cannot be what the image was made of.
    #[error("'{}' has {found} bytes, but the volume of the image {wanted}", path.display())]
    ShorterThanImage {
        /// What is compared with the image.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// Bytes of the volume, to the end of the backup boot sector's cluster.
        wanted: u64,
    },
    /// A copy of nothing is no copy.
    #[error("nothing at all could be read from the disk: there is nothing to save")]
    NothingRead,
    /// A file beside the target cannot be written.
    #[error("cannot write the {what} '{}': {cause}", path.display())]
    SideFile {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl RunError {
    /// Did the target fail, or has it no more room?
    pub fn is_of_target(&self) -> bool {
        match self {
            // The map lies beside the target more often than not.
            RunError::Copy { cause } => {
                matches!(cause, CopyError::Write(_) | CopyError::Map(MapError::System { .. }))
            }
            RunError::Map(cause) => matches!(cause, MapError::System { .. }),
            RunError::Target(cause) => matches!(cause, TargetError::Write(_)),
            RunError::Finish(_) => true,
            _ => false,
        }
    }

    /// Has the source gone away?
    pub fn is_of_gone_disk(&self) -> bool {
        let read = match self {
            RunError::Copy { cause } => cause.read(),
            RunError::Ntfs { cause } => cause.read(),
            _ => None,
        };
        read.is_some_and(|read| read.loss() == Loss::Gone)
    }
}

/// How a job that did what it could came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// All was tried.
    #[default]
    Complete,
    /// The disk went away.
    Gone,
    /// What it might cost is used up.
    Budget,
    /// Whoever watches asked it to end; the same job goes on where it stopped.
    Interrupted,
}

/// What came of a job that did what it could.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What is lost.
    pub losses: Losses,
    /// Why it ended.
    pub ending: Ending,
}

impl Outcome {
    /// The program's exit status.
    pub fn exit_status(&self, strict: bool) -> u8 {
        match self.ending {
            Ending::Complete if strict && self.losses.any() => 3,
            Ending::Complete => 0,
            Ending::Gone => 4,
            Ending::Budget => 5,
            Ending::Interrupted => 6,
        }
    }

    /// How it ended.
    pub fn in_words(&self) -> &'static str {
        match self.ending {
            Ending::Complete => "complete",
            Ending::Gone => "disk gone",
            Ending::Budget => "budget used up",
            Ending::Interrupted => "interrupted",
        }
    }
}

impl From<Losses> for Outcome {
    fn from(losses: Losses) -> Outcome {
        Outcome { losses, ending: Ending::Complete }
    }
}

/// What to do about a disk that does not give what is there.
const FAILING_DISK: &str = "; the disk is failing: --rescue goes on and marks what is lost";

fn advice(read: Option<&ReadError>) -> &'static str {
    match read.map(ReadError::loss) {
        Some(Loss::BadArea) => FAILING_DISK,
        Some(Loss::Gone) => "; the disk has gone",
        _ => "",
    }
}

/// What a job that came to its end has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Bytes that could not be read and are marked in the target.
    pub bytes: u64,
    /// Structures of the volume, most of them MFT records in use, that could not be used.
    pub structures: u64,
}

impl Losses {
    /// Was anything lost?
    pub fn any(&self) -> bool {
        *self != Losses::default()
    }
}

/// Does the job. Every check comes before the first byte is written.
pub fn run(job: &Job, observer: &dyn Observer) -> Result<Outcome, RunError> {
    match &job.action {
        Action::Clone(target) => copy_volume(job, target, Form::Clone, observer),
        Action::Save(target) => copy_volume(job, target, Form::Image, observer),
        Action::Restore(target) => {
            Ok(restore(job, target, observer).map_err(naming_last_part(&job.source))?.into())
        }
        Action::Domain => tell_domain(job, observer),
        Action::Finish { map, target } => rescue::finish(job, map, target, observer),
        Action::Check => check(job, observer).map_err(naming_last_part(&job.source)),
        Action::Compare(path) => compare(job, path, observer).map_err(naming_last_part(&job.source)),
    }
}

/// Saves or clones.
fn copy_volume(
    job: &Job,
    target: &TargetName,
    form: Form,
    observer: &dyn Observer,
) -> Result<Outcome, RunError> {
    // Not where bytes must come in order, because the target wants them so or because they are changed on the way.
    let in_order = job.metadata.is_some() || job.new_serial.is_some() || target.is_in_order();
    if job.rescue && !in_order {
        let outcome = rescue::rescue_volume(job, target, form, observer)?;
        tell_losses(&outcome.losses, false, observer);
        return Ok(outcome);
    }
    Ok(copy_in_order(job, target, form, observer)?.into())
}

/// Saves or clones from front to back.
fn copy_in_order(
    job: &Job,
    target: &TargetName,
    form: Form,
    observer: &dyn Observer,
) -> Result<Losses, RunError> {
    let to_image = form == Form::Image;
    let path = job.source.path().unwrap_or(Path::new("-"));
    refuse_writable_mount(path)?;
    let _locked = lock_volume(path)?;
    let target = Target::examine(target, &[path], job.split)?;
    let ask = |_| if observer.wants_stop() { Wait::Stop } else { Wait::Go };
    let disk = Disk::open(path)?;
    let known = Known::of(&disk);
    let disk = if job.rescue { Opened::new(disk, &ask) } else { Opened::healthy(disk) };
    let kept = Kept::new(&disk, KEPT, !job.rescue);
    let tolerance = Tolerance { bad_areas: job.rescue, damage: job.rescue || job.ignore_fs_check };
    let volume = Volume::open(&kept, tolerance, observer)?;
    observer.tell(Event::Volume(&volume.info));
    if volume.info.is_dirty {
        if !job.force && !job.rescue {
            return Err(RunError::Dirty);
        }
        observer.tell(Event::Warning(format_args!("the volume is marked dirty; it is copied as it is")));
    }
    if !to_image {
        warn_of_sector_size(&target, volume.info.sector_size, observer);
    }
    let mut collector = job.metadata.map(|only| Collector::new(&volume, only.full_logfile));
    let usage = scan(&volume, tolerance, collector.as_mut(), observer)?;
    warn_of_shutdown(&volume, &usage, observer);

    let marks = Mutex::new(Marks::with_room());
    let noting = Noting { observer, marks: &marks };
    let reader = Reader::new(&kept, volume.info.sector_size, job.rescue, &noting);
    let origin = match job.metadata {
        None => origin_of(&known, volume.info.serial),
        Some(_) => anonymous(volume.info.serial),
    };
    let geometry = volume.info.geometry;
    let seal = Seal { origin: &origin, marks: &marks };
    let copy = Copy { job, target: &target, to_image, seal, geometry, observer };
    let mut losses =
        Losses { bytes: 0, structures: volume.nr_damaged + usage.nr_damaged + usage.nr_unreadable };
    match (collector, job.metadata) {
        (Some(collector), Some(MetadataOnly { keep_times, .. })) => {
            let metadata = collector.conclude(&volume, usage.claimed_twice, tolerance, observer)?;
            let clusters = metadata.clusters(&volume.info.geometry);
            let nr_clusters = clusters.count();
            let plan = Plan::new(volume.info.geometry, clusters, nr_clusters);
            // As ntfsclone has it: an image counts what is in it, a clone what is in use.
            copy.tell_space(if to_image { nr_clusters } else { usage.nr_used });
            let wiping = Wiping { keep_times };
            kept.hand_out();
            let mut feed = MetadataFeed::new(reader, &metadata, &volume.info, wiping, tolerance, observer);
            copy.write(&mut feed, &plan)?;
            observer.tell(Event::Wiped {
                nr_records: volume.mft.nr_records(),
                nr_in_use: usage.nr_records_in_use,
                wiped: feed.wiped(),
            });
            losses.bytes = feed.lost();
            losses.structures += feed.nr_damaged();
        }
        _ => {
            let plan = Plan::new(volume.info.geometry, usage.used, usage.nr_used);
            copy.tell_space(plan.nr_used);
            kept.hand_out();
            let mut feed = VolumeFeed::new(reader, &plan);
            copy.write(&mut feed, &plan)?;
            losses.bytes = feed.lost();
        }
    }
    if tolerance != Tolerance::default() {
        tell_losses(&losses, job.metadata.is_some(), observer);
    }
    Ok(losses)
}

/// The second half of saving and cloning: what is the same whatever is copied.
struct Copy<'a> {
    job: &'a Job,
    target: &'a Target,
    to_image: bool,
    /// What the trailer of an image tells.
    seal: Seal<'a>,
    geometry: Geometry,
    observer: &'a dyn Observer,
}

impl Copy<'_> {
    fn tell_space(&self, nr_used: u64) {
        tell_space(nr_used, self.geometry, self.observer);
    }

    /// Copies all that `feed` has, which is what `plan` names.
    fn write(&self, feed: &mut dyn Feed, plan: &Plan) -> Result<(), RunError> {
        let Copy { job, target, to_image, seal, geometry, observer } = self;
        let (room, phase) = match to_image {
            true => (room_for_image(plan, job.checksum), Phase::Save),
            false => (Room { length: geometry.written_end(), content: plan.total_bytes() }, Phase::Clone),
        };
        match target.require(room) {
            // It may well have room for what it is compressed to.
            Err(error) if job.compression.is_some() && error.is_of_room() => {
                observer.tell(Event::Warning(format_args!("if it were not compressed: {error}")));
            }
            required => required?,
        }
        let sink: Box<dyn Sink> = match (to_image, job.compression) {
            (true, Some(compression)) => {
                let (name, nr_threads) = (target.name(), memory::nr_compressing(compression));
                let output = target.open_output()?;
                Box::new(CompressedSink::new(output, name, compression, nr_threads, room.length)?)
            }
            (true, None) => Box::new(StreamSink::image(target.open_output()?, target.name())),
            (false, _) => open_raw(target, geometry, *observer)?,
        };
        let copy = |sink: &mut dyn Sink| {
            observer.tell(Event::Phase(phase));
            renewed(feed, job.new_serial, geometry, *observer, |feed| match to_image {
                true => {
                    let encoder = ImageEncoder::new(*geometry, plan.nr_used);
                    let mut image = SaveFeed::new(feed, encoder, job.checksum.then_some(*seal));
                    pump(&mut image, sink, room.length, *observer)
                }
                false => pump(feed, sink, plan.total_bytes(), *observer),
            })
        };
        into_target(target, sink, *observer, copy, |_| Ok(()))
    }
}

/// What an image of what `plan` names needs.
fn room_for_image(plan: &Plan, checksum: bool) -> Room {
    let image = image::encoded_len(&plan.geometry, plan.nr_used, plan.nr_gaps());
    let length = if checksum { image + trailer::room_for(image) } else { image };
    Room { length, content: length }
}

/// Has `copy` copy what `feed` has with a new serial number, if one is asked for, and returns it.
fn renewed(
    mut feed: &mut dyn Feed,
    new_serial: Option<NewSerial>,
    geometry: &Geometry,
    observer: &dyn Observer,
    copy: impl FnOnce(&mut dyn Feed) -> Result<(), CopyError>,
) -> Result<Option<u64>, CopyError> {
    let Some(kind) = new_serial else { return copy(&mut feed).map(|()| None) };
    let mut renewed = SerialFeed::new(feed, kind, *geometry, observer);
    copy(&mut renewed)?;
    Ok(renewed.number())
}

/// Restores an image. One in a file or on a device is walked first, so that a damaged one overwrites nothing.
fn restore(job: &Job, target: &TargetName, observer: &dyn Observer) -> Result<Losses, RunError> {
    let source = &job.source;
    let files = files_of(source)?;
    let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let _locked = lock_image(&files).map_err(|cause| RunError::Locked { what: "the image", cause })?;
    let target = Target::examine(target, &files, None)?;
    let mut image = open_checked(job)?;
    observer.tell(Event::Image(&image.info));
    let geometry = image.info.geometry;
    let total = geometry.copied_bytes(image.info.nr_used);
    target.require(Room { length: geometry.written_end(), content: total })?;
    let can_be_read_twice = !source.is_stream();
    if can_be_read_twice {
        walk(&mut image, DrySink::new(target.name(), target.takes_any_order()), job, observer)?;
        if let Some(boot) = first_sector(source) {
            warn_of_sector_size(&target, boot.sector_size, observer);
        }
        image = open_checked(job)?;
    }
    let copy = |sink: &mut dyn Sink| {
        observer.tell(Event::Phase(Phase::Restore));
        let number = renewed(&mut image, job.new_serial, &geometry, observer, |feed| {
            pump(feed, sink, total, observer)
        })?;
        let concluded = conclude(&mut image);
        if concluded.is_err() && !can_be_read_twice {
            observer.tell(Event::Warning(format_args!(
                "what the image holds was written to {} before the damage was known: in a pipe its checksums come last",
                target.name()
            )));
        }
        let trailer = concluded?;
        if !can_be_read_twice {
            tell_of_missing_extra(&image, observer);
            tell_checked(trailer.as_ref(), job.checksum, observer);
        }
        Ok(number)
    };
    let check = |number| if job.verify { verify(source, &target, number, observer) } else { Ok(()) };
    into_target(&target, open_raw(&target, &geometry, observer)?, observer, copy, check)?;
    Ok(Losses::default())
}

/// Fills a sink that was just opened, finishes it, checks it and gives the target its name. If it cannot be written, says
/// what is left.
fn into_target<T>(
    target: &Target,
    mut sink: Box<dyn Sink>,
    observer: &dyn Observer,
    fill: impl FnOnce(&mut dyn Sink) -> Result<T, CopyError>,
    check: impl FnOnce(T) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let filled = fill(sink.as_mut()).map_err(RunError::from).and_then(|filled| {
        observer.tell(Event::Phase(Phase::Sync));
        sink.finish()?;
        Ok(filled)
    });
    let filled = filled.inspect_err(|_| tell_what_is_left(target, observer))?;
    check(filled)?;
    Ok(target.publish().inspect_err(|_| tell_what_is_left(target, observer))?)
}

/// Opens the target for a raw clone. If it cannot be written, says what is left.
fn open_raw(
    target: &Target,
    geometry: &Geometry,
    observer: &dyn Observer,
) -> Result<Box<dyn Sink>, TargetError> {
    target.open_raw(geometry).inspect_err(|error| {
        if error.is_of_write() {
            tell_what_is_left(target, observer);
        }
    })
}

fn tell_what_is_left(target: &Target, observer: &dyn Observer) {
    if let Some(left) = target.left_behind() {
        observer.tell(Event::Warning(format_args!("{left}")));
    }
}

fn refuse_writable_mount(source: &Path) -> Result<(), RunError> {
    let mounts = Place::of(source).map(|place| mounts_of(&place)).unwrap_or_default();
    match mounts.into_iter().find(|mount| mount.writable) {
        Some(mount) => Err(RunError::SourceMounted { source_path: source.to_owned(), point: mount.point }),
        None => Ok(()),
    }
}

/// Locks a volume in a file against being written as long as it is read. A device is not locked: whoever watches over it
/// may hold its lock for this very job.
fn lock_volume(source: &Path) -> Result<Option<File>, RunError> {
    let locked = if source.is_file() { lock::reading(source) } else { Ok(None) };
    locked.map_err(|cause| RunError::Locked { what: "the source", cause })
}

/// Locks an image against being written as long as it is read: one in parts by its first.
fn lock_image(files: &[&Path]) -> Result<Option<File>, LockError> {
    files.first().map_or(Ok(None), |first| lock::reading(first))
}

fn warn_of_sector_size(target: &Target, volume: u32, observer: &dyn Observer) {
    if let Some(device) = target.sector_size().filter(|device| *device != volume) {
        observer.tell(Event::Warning(format_args!(
            "the volume has sectors of {volume} bytes, but {} of {device}: Windows will not mount the copy there",
            target.name()
        )));
    }
}

/// Tells how Windows left the volume. It is copied all the same, as ntfsclone does: sleeping Windows or a snapshot are
/// common, and nothing on the volume is changed.
fn warn_of_shutdown(volume: &Volume<'_>, usage: &Usage, observer: &dyn Observer) {
    if usage.hiberfile.is_some_and(|hiberfile| is_hibernated(volume, hiberfile)) {
        observer.tell(Event::Warning(format_args!(
            "Windows is hibernated on this volume: what it keeps in memory is missing in the copy; if it still \
             starts, shut it down with 'shutdown /s /f /t 0' first"
        )));
    }
    if has_unclean_log(volume) {
        observer.tell(Event::Warning(format_args!(
            "the volume was not unmounted: $LogFile holds changes that are not in place yet; Windows or \
             'ntfsfix' brings the copy in order"
        )));
    }
}

fn tell_space(nr_used: u64, geometry: Geometry, observer: &dyn Observer) {
    observer.tell(Event::SpaceInUse { nr_used, geometry });
}

/// Writes which bytes of a volume are in use, and nothing else.
fn tell_domain(job: &Job, observer: &dyn Observer) -> Result<Outcome, RunError> {
    let disk = Disk::open(job.source.path().unwrap_or(Path::new("-")))?;
    let tolerance = Tolerance { bad_areas: job.rescue, damage: job.rescue };
    let volume = Volume::open(&disk, tolerance, observer)?;
    observer.tell(Event::Volume(&volume.info));
    let usage = scan(&volume, tolerance, None, observer)?;
    let plan = Plan::new(volume.info.geometry, usage.used, usage.nr_used);
    tell_space(plan.nr_used, plan.geometry, observer);
    rescue::write_domain_out(job, &LocalStore, &plan, disk.len())?;
    Ok(Outcome::default())
}

fn tell_losses(losses: &Losses, metadata_only: bool, observer: &dyn Observer) {
    if !losses.any() {
        observer.tell(Event::Note(format_args!("Nothing was lost.")));
    }
    if losses.bytes > 0 {
        observer.tell(Event::Note(format_args!(
            "Lost: {} bytes could not be read and are marked BadSectoR.",
            losses.bytes
        )));
    }
    if losses.structures > 0 {
        observer.tell(Event::Note(format_args!(
            "Damaged: {} MFT records or other structures could not be used, see the warnings above; {}.",
            losses.structures,
            if metadata_only {
                "what lies behind the damage is zeros"
            } else {
                "they are copied as they are"
            }
        )));
    }
}
