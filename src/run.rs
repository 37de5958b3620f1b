//! Does a job: opens source and target, pumps, and tells. The only file that knows all others.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::copy::{CopyError, Feed, MetadataFeed, Reader, VolumeFeed, pump};
use crate::event::{Event, Observer, Phase};
use crate::extent::ByteRange;
use crate::image::{self, ImageError, ImageReader, ImageSink};
use crate::io::compare::CompareSink;
use crate::io::disk::{Disk, OpenError};
use crate::io::kept::Kept;
use crate::io::mounts::{Place, mounts_of};
use crate::io::parts::{self, PartsError, PartsReader};
use crate::io::remote::Wait;
use crate::io::store::LocalStore;
use crate::io::stream::DrySink;
use crate::io::target::{Room, Target, TargetError, TargetName};
use crate::io::{Loss, ReadError, Sink, Source, WriteError};
use crate::job::{Action, Job, MetadataOnly, SourceName};
use crate::ntfs::boot::{BOOT_SECTOR_LEN, BootSector};
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

mod memory;
mod opened;
mod rescue;

use opened::Opened;

/// Bytes of an image that are read at once.
const IMAGE_READ: usize = 256 << 10;

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
        "{target} is no copy of the image: of what was written {differing} bytes differ and {unreadable} cannot be read"
    )]
    NotACopy {
        /// Name of the target.
        target: String,
        /// Bytes of clusters that differ.
        differing: u64,
        /// Bytes of clusters that cannot be read.
        unreadable: u64,
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
        Action::Finish { map, target } => rescue::finish(map, target, job.split, observer),
        Action::Check => check(&job.source, observer).map_err(naming_last_part(&job.source)),
    }
}

/// Walks an image's structure.
fn check(source: &SourceName, observer: &dyn Observer) -> Result<Outcome, RunError> {
    let mut image = open_image(source)?;
    observer.tell(Event::Image(&image.info));
    walk(&mut image, DrySink::new("standard output".into(), true), observer)?;
    observer.tell(Event::Note(format_args!("The image's structure is whole.")));
    Ok(Outcome::default())
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
    let target = Target::examine(target, &[path], job.split)?;
    let ask = |_| if observer.wants_stop() { Wait::Stop } else { Wait::Go };
    let disk = Disk::open(path)?;
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

    let reader = Reader::new(&kept, volume.info.sector_size, job.rescue, observer);
    let copy = Copy { job, target: &target, to_image, geometry: volume.info.geometry, observer };
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
    geometry: Geometry,
    observer: &'a dyn Observer,
}

impl Copy<'_> {
    fn tell_space(&self, nr_used: u64) {
        tell_space(nr_used, self.geometry, self.observer);
    }

    /// Copies all that `feed` has, which is what `plan` names.
    fn write(&self, feed: &mut dyn Feed, plan: &Plan) -> Result<(), RunError> {
        let Copy { job, target, to_image, geometry, observer } = self;
        let (room, phase) = if *to_image {
            let image = image::encoded_len(geometry, plan.nr_used, plan.nr_gaps());
            (Room { length: image, content: image }, Phase::Save)
        } else {
            (Room { length: geometry.written_end(), content: plan.total_bytes() }, Phase::Clone)
        };
        target.require(room)?;
        let sink: Box<dyn Sink> = if *to_image {
            Box::new(ImageSink::new(target.open_output()?, target.name(), *geometry, plan.nr_used))
        } else {
            target.open_raw(geometry)?
        };
        let copy = |sink: &mut dyn Sink| {
            observer.tell(Event::Phase(phase));
            pump_renewed(feed, job.new_serial, geometry, sink, plan.total_bytes(), *observer)
        };
        into_target(target, sink, *observer, copy, |_| Ok(()))
    }
}

/// Pumps with a new serial number, if one is asked for, and returns it.
fn pump_renewed(
    mut feed: &mut dyn Feed,
    new_serial: Option<NewSerial>,
    geometry: &Geometry,
    sink: &mut dyn Sink,
    total: u64,
    observer: &dyn Observer,
) -> Result<Option<u64>, CopyError> {
    let Some(kind) = new_serial else { return pump(&mut feed, sink, total, observer).map(|()| None) };
    let mut renewed = SerialFeed::new(feed, kind, *geometry, observer);
    pump(&mut renewed, sink, total, observer)?;
    Ok(renewed.number())
}

/// Restores an image. One in a file or on a device is walked first, so that a damaged one overwrites nothing.
fn restore(job: &Job, target: &TargetName, observer: &dyn Observer) -> Result<Losses, RunError> {
    let source = &job.source;
    let files = files_of(source)?;
    let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let target = Target::examine(target, &files, None)?;
    let mut image = open_image(source)?;
    observer.tell(Event::Image(&image.info));
    let geometry = image.info.geometry;
    let total = geometry.copied_bytes(image.info.nr_used);
    target.require(Room { length: geometry.written_end(), content: total })?;
    let can_be_read_twice = !source.is_stream();
    if can_be_read_twice {
        walk(&mut image, DrySink::new(target.name(), target.takes_any_order()), observer)?;
        if let Some(boot) = first_sector(source) {
            warn_of_sector_size(&target, boot.sector_size, observer);
        }
        image = open_image(source)?;
    }
    let copy = |sink: &mut dyn Sink| {
        observer.tell(Event::Phase(Phase::Restore));
        let number = pump_renewed(&mut image, job.new_serial, &geometry, sink, total, observer)?;
        if !can_be_read_twice {
            tell_of_missing_extra(&image, observer);
        }
        Ok(number)
    };
    let check = |number| if job.verify { verify(source, &target, number, observer) } else { Ok(()) };
    into_target(&target, target.open_raw(&geometry)?, observer, copy, check)?;
    Ok(Losses::default())
}

/// Stretches of a target that are told one by one.
const MAX_TOLD: usize = 20;

/// Reads a restored target back and compares it with the image, as it was written: with this serial number, if it got
/// a new one.
fn verify(
    source: &SourceName,
    target: &Target,
    number: Option<u64>,
    observer: &dyn Observer,
) -> Result<(), RunError> {
    observer.tell(Event::Phase(Phase::Verify));
    let mut image = open_image(source)?;
    let geometry = image.info.geometry;
    let total = geometry.copied_bytes(image.info.nr_used);
    let disk = target.open_written()?;
    let mut compared = CompareSink::new(&disk, target.name(), &geometry);
    pump_renewed(&mut image, number.map(NewSerial::Given), &geometry, &mut compared, total, observer)?;
    let differing = tell_stretches(compared.differing(), "differ from the image", observer);
    let unreadable = tell_stretches(compared.unreadable(), "of the target cannot be read", observer);
    if differing + unreadable > 0 {
        return Err(RunError::NotACopy { target: target.name(), differing, unreadable });
    }
    observer.tell(Event::Note(format_args!("The target holds what the image holds.")));
    Ok(())
}

/// Tells of each of these stretches, up to a number, and returns the bytes of all.
fn tell_stretches(stretches: impl Iterator<Item = ByteRange>, what: &str, observer: &dyn Observer) -> u64 {
    let (mut bytes, mut nr_more) = (0, 0);
    for (nr, ByteRange { pos, len }) in stretches.enumerate() {
        bytes += len;
        if nr < MAX_TOLD {
            observer.tell(Event::Warning(format_args!("{len} bytes at byte {pos} ({pos:#x}) {what}")));
        } else {
            nr_more += 1;
        }
    }
    if nr_more > 0 {
        observer.tell(Event::Warning(format_args!("{nr_more} more stretches {what}")));
    }
    bytes
}

/// Walks an image to its end.
fn walk<R: Read + Send>(
    image: &mut ImageReader<R>,
    mut sink: DrySink,
    observer: &dyn Observer,
) -> Result<(), RunError> {
    observer.tell(Event::Phase(Phase::Check));
    let total = image.info.geometry.copied_bytes(image.info.nr_used);
    pump(image, &mut sink, total, observer)?;
    tell_of_missing_extra(image, observer);
    Ok(())
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

fn tell_what_is_left(target: &Target, observer: &dyn Observer) {
    if let Some(left) = target.left_behind() {
        observer.tell(Event::Warning(format_args!("{left}")));
    }
}

fn open_image(source: &SourceName) -> Result<ImageReader<BufReader<PartsReader>>, RunError> {
    let files = files_of(source)?;
    let parts = match source {
        SourceName::Path(_) => PartsReader::open(files),
        SourceName::Stdin => {
            io::stdin().as_fd().try_clone_to_owned().map(|stdin| PartsReader::from(File::from(stdin)))
        }
    };
    let path = || source.path().unwrap_or(Path::new("standard input")).to_owned();
    let parts = parts.map_err(|cause| RunError::OpenImage { path: path(), cause })?;
    Ok(ImageReader::open(BufReader::with_capacity(IMAGE_READ, parts))?)
}

/// The files that an image lies in: one, its parts, or none where it comes through a pipe.
fn files_of(source: &SourceName) -> Result<Vec<PathBuf>, PartsError> {
    source.path().map_or(Ok(Vec::new()), parts::of_image)
}

/// Names the last part of an image that is cut off: it may be the one that is damaged, or not the last.
fn naming_last_part(source: &SourceName) -> impl FnOnce(RunError) -> RunError + use<'_> {
    move |error| match (&error, files_of(source)) {
        (
            RunError::Image(ImageError::CutOff { .. })
            | RunError::Copy { cause: CopyError::Image(ImageError::CutOff { .. }) },
            Ok(mut files),
        ) if files.len() > 1 || files.first().map(PathBuf::as_path) != source.path() => {
            RunError::CutOffParts { cause: Box::new(error), last: files.pop().unwrap_or_default() }
        }
        _ => error,
    }
}

/// The boot sector in an image that can be read twice.
fn first_sector(source: &SourceName) -> Option<BootSector> {
    let mut bytes = [0; BOOT_SECTOR_LEN];
    let mut image = open_image(source).ok()?;
    match image.next(&mut bytes) {
        Ok(Some((0, _))) => BootSector::parse(&bytes).ok(),
        _ => None,
    }
}

fn refuse_writable_mount(source: &Path) -> Result<(), RunError> {
    let mounts = Place::of(source).map(|place| mounts_of(&place)).unwrap_or_default();
    match mounts.into_iter().find(|mount| mount.writable) {
        Some(mount) => Err(RunError::SourceMounted { source_path: source.to_owned(), point: mount.point }),
        None => Ok(()),
    }
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

fn tell_of_missing_extra<R: Read>(image: &ImageReader<R>, observer: &dyn Observer) {
    if image.lacks_extra() {
        observer.tell(Event::Warning(format_args!("the image holds no backup boot sector")));
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
