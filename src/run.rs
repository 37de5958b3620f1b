//! Does a job: opens source and target, pumps, and tells. The only file that knows all others.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::copy::{CopyError, VolumeFeed, pump};
use crate::event::{Event, Observer, Phase};
use crate::image::{self, ImageError, ImageReader, ImageSink};
use crate::io::disk::{Disk, OpenError};
use crate::io::mounts::{Place, mounts_of};
use crate::io::stream::DrySink;
use crate::io::target::{Room, Target, TargetError, TargetName};
use crate::io::{Loss, ReadError, Sink, WriteError};
use crate::job::{Action, Job, SourceName};
use crate::ntfs::boot::{BOOT_SECTOR_LEN, BootSector};
use crate::ntfs::scan::scan;
use crate::ntfs::{self, Volume};
use crate::plan::Plan;

/// Bytes of an image that are read at once.
const IMAGE_READ: usize = 256 << 10;

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
pub fn run(job: &Job, observer: &dyn Observer) -> Result<Losses, RunError> {
    match &job.action {
        Action::Clone(target) => copy_volume(job, target, false, observer),
        Action::Save(target) => copy_volume(job, target, true, observer),
        Action::Restore(target) => restore(&job.source, target, observer),
        Action::Check => {
            let mut image = open_image(&job.source)?;
            observer.tell(Event::Image(&image.info));
            walk(&mut image, DrySink::new("standard output".into(), true), observer)?;
            observer.tell(Event::Note(format_args!("The image's structure is whole.")));
            Ok(Losses::default())
        }
    }
}

/// Saves or clones.
fn copy_volume(
    job: &Job,
    target: &TargetName,
    to_image: bool,
    observer: &dyn Observer,
) -> Result<Losses, RunError> {
    let path = job.source.path().unwrap_or(Path::new("-"));
    refuse_writable_mount(path)?;
    let target = Target::examine(target, Some(path))?;
    let disk = Disk::open(path)?;
    let volume = Volume::open(&disk, job.rescue, observer)?;
    let geometry = volume.info.geometry;
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
    let usage = scan(&volume, job.rescue, observer)?;
    observer.tell(Event::SpaceInUse { nr_used: usage.nr_used, geometry });
    let plan = Plan::new(geometry, usage.used, usage.nr_used);

    let room = if to_image {
        let image = image::encoded_len(&geometry, plan.nr_used, plan.nr_gaps());
        Room { length: image, content: image }
    } else {
        Room { length: geometry.written_end(), content: plan.total_bytes() }
    };
    target.require(room)?;
    let mut feed = VolumeFeed::new(&disk, &plan, volume.info.sector_size, job.rescue, observer);
    let sink: Box<dyn Sink> = if to_image {
        Box::new(ImageSink::new(target.open_output()?, target.name(), geometry, plan.nr_used))
    } else {
        target.open_raw(&geometry)?
    };
    let phase = if to_image { Phase::Save } else { Phase::Clone };
    into_target(&target, sink, observer, |sink| {
        observer.tell(Event::Phase(phase));
        pump(&mut feed, sink, plan.total_bytes(), observer)
    })?;
    let structures = volume.nr_damaged + usage.nr_damaged;
    let losses = Losses { bytes: feed.lost(), structures };
    if job.rescue {
        tell_losses(&losses, observer);
    }
    Ok(losses)
}

/// Restores an image. One in a file or on a device is walked first, so that a damaged one overwrites nothing.
fn restore(source: &SourceName, target: &TargetName, observer: &dyn Observer) -> Result<Losses, RunError> {
    let target = Target::examine(target, source.path())?;
    let mut image = open_image(source)?;
    observer.tell(Event::Image(&image.info));
    let geometry = image.info.geometry;
    let total = geometry.copied_bytes(image.info.nr_used);
    target.require(Room { length: geometry.written_end(), content: total })?;
    let can_be_read_twice = source.path().is_some_and(is_file_or_device);
    if can_be_read_twice {
        walk(&mut image, DrySink::new(target.name(), target.takes_any_order()), observer)?;
        if let Some(boot) = first_sector(source) {
            warn_of_sector_size(&target, boot.sector_size, observer);
        }
        image = open_image(source)?;
    }
    into_target(&target, target.open_raw(&geometry)?, observer, |sink| {
        observer.tell(Event::Phase(Phase::Restore));
        pump(&mut image, sink, total, observer)?;
        if !can_be_read_twice {
            tell_of_missing_extra(&image, observer);
        }
        Ok(())
    })?;
    Ok(Losses::default())
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

/// Something that gives the same bytes again when it is read again.
fn is_file_or_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() || metadata.file_type().is_block_device())
}

/// Fills a sink that was just opened, finishes it and gives the target its name. If that fails, says what is left.
fn into_target(
    target: &Target,
    mut sink: Box<dyn Sink>,
    observer: &dyn Observer,
    fill: impl FnOnce(&mut dyn Sink) -> Result<(), CopyError>,
) -> Result<(), RunError> {
    let filled = fill(sink.as_mut()).map_err(RunError::from).and_then(|()| {
        observer.tell(Event::Phase(Phase::Sync));
        sink.finish()?;
        Ok(target.publish()?)
    });
    if let Some(left) = filled.as_ref().err().and_then(|_| target.left_behind()) {
        observer.tell(Event::Warning(format_args!("{left}")));
    }
    filled
}

fn open_image(source: &SourceName) -> Result<ImageReader<BufReader<File>>, RunError> {
    let file = match source {
        SourceName::Path(path) => File::open(path),
        SourceName::Stdin => io::stdin().as_fd().try_clone_to_owned().map(File::from),
    };
    let path = || source.path().unwrap_or(Path::new("standard input")).to_owned();
    let file = file.map_err(|cause| RunError::OpenImage { path: path(), cause })?;
    Ok(ImageReader::open(BufReader::with_capacity(IMAGE_READ, file))?)
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

fn tell_of_missing_extra<R: Read>(image: &ImageReader<R>, observer: &dyn Observer) {
    if image.lacks_extra() {
        observer.tell(Event::Warning(format_args!("the image holds no backup boot sector")));
    }
}

fn tell_losses(losses: &Losses, observer: &dyn Observer) {
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
            "Damaged: {} MFT records or other structures could not be used, see the warnings above; they are \
             copied as they are.",
            losses.structures
        )));
    }
}
