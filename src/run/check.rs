//! Checking images: each against its structure and its checksums, some against a volume too.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Outcome, RunError, lock_image, renewed};
use crate::copy::{CopyError, pump};
use crate::event::{Event, Observer, Phase};
use crate::extent::ByteRange;
use crate::image::trailer::{self, Trailer};
use crate::image::{ImageError, ImageReader};
use crate::io::Source;
use crate::io::compare::CompareSink;
use crate::io::compressed::ImageInput;
use crate::io::disk::Disk;
use crate::io::mounts::{Place, mounts_of};
use crate::io::parts::{self, PartsError, PartsReader};
use crate::io::stream::DrySink;
use crate::io::target::Target;
use crate::job::{Job, SourceName};
use crate::ntfs::boot::{BOOT_SECTOR_LEN, BootSector};
use crate::serial::NewSerial;

/// Stretches of a volume that are told one by one.
const MAX_TOLD: usize = 20;

/// An image that is being read.
pub(super) type OpenImage = ImageReader<ImageInput<PartsReader>>;

/// Reads an image to its end.
pub(super) fn check(job: &Job, observer: &dyn Observer) -> Result<Outcome, RunError> {
    let _locked = lock_or_warn(job, observer)?;
    let mut image = open_checked(job)?;
    observer.tell(Event::Image(&image.info));
    walk(&mut image, DrySink::new("standard output".into(), true), job, observer)?;
    Ok(Outcome::default())
}

/// Locks an image that is only looked at: one that is being written is looked at all the same.
fn lock_or_warn(job: &Job, observer: &dyn Observer) -> Result<Option<File>, RunError> {
    let files = files_of(&job.source)?;
    let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let locked = lock_image(&files).inspect_err(|error| {
        observer.tell(Event::Warning(format_args!("the image {error}; it is checked as it is now")));
    });
    Ok(locked.ok().flatten())
}

/// Reads an image to its end, as far as it makes sense for this sink.
pub(super) fn walk(
    image: &mut OpenImage,
    mut sink: DrySink,
    job: &Job,
    observer: &dyn Observer,
) -> Result<(), RunError> {
    observer.tell(Event::Phase(Phase::Check));
    let total = image.info.geometry.copied_bytes(image.info.nr_used);
    pump(image, &mut sink, total, observer)?;
    let trailer = conclude(image)?;
    tell_of_missing_extra(image, observer);
    tell_checked(trailer.as_ref(), job.checksum, observer);
    Ok(())
}

/// Reads what follows the last command of an image, with the checks of the stream that it may be compressed in, and
/// compares it with its checksums.
pub(super) fn conclude(image: &mut OpenImage) -> Result<Option<Trailer>, ImageError> {
    let trailer = image.conclude()?;
    image.read_on_with(ImageInput::read_out)?;
    Ok(trailer)
}

/// Tells what was checked of an image that is whole.
pub(super) fn tell_checked(trailer: Option<&Trailer>, compared: bool, observer: &dyn Observer) {
    observer.tell(Event::Note(format_args!("The image's structure is whole.")));
    let Some(Trailer { sums, origin, marks }) = trailer else {
        observer.tell(Event::Note(match compared {
            true => format_args!("It has no checksums: only the structure was checked."),
            false => format_args!("Its checksums were not compared."),
        }));
        return;
    };
    let (bytes, nr) = (sums.image_len, sums.stretches.len());
    observer.tell(Event::Note(format_args!("Its checksums are right: {bytes} bytes in {nr} stretches.")));
    if let Some(origin) = origin {
        observer.tell(Event::Note(format_args!("It was saved from {origin}.")));
    }
    if marks.nr_areas > 0 {
        observer.tell(Event::Note(format_args!(
            "It lacks {} bytes in {} areas, which are marked BadSectoR.",
            marks.bytes, marks.nr_areas
        )));
    }
}

/// Checks an image, and compares it with the volume on `path`.
pub(super) fn compare(job: &Job, path: &Path, observer: &dyn Observer) -> Result<Outcome, RunError> {
    let _locked = lock_or_warn(job, observer)?;
    let mut image = open_checked(job)?;
    observer.tell(Event::Image(&image.info));
    let disk = Disk::open(path)?;
    let wanted = image.info.geometry.written_end();
    if disk.len() < wanted {
        return Err(RunError::ShorterThanImage { path: path.to_owned(), found: disk.len(), wanted });
    }
    let mounts = Place::of(path).map(|place| mounts_of(&place)).unwrap_or_default();
    if let Some(mount) = mounts.into_iter().find(|mount| mount.writable) {
        observer.tell(Event::Warning(format_args!(
            "'{}' is mounted for writing on '{}': what is written there meanwhile differs",
            path.display(),
            mount.point.display()
        )));
    }
    observer.tell(Event::Phase(Phase::Verify));
    let name = format!("'{}'", path.display());
    let trailer = compare_with(&mut image, &disk, name, None, observer, |image| Ok(conclude(image)?))?;
    tell_of_missing_extra(&image, observer);
    tell_checked(trailer.as_ref(), job.checksum, observer);
    observer.tell(Event::Note(format_args!("The volume holds what the image holds.")));
    Ok(Outcome::default())
}

/// Reads a restored target back and compares it with the image, as it was written: with this serial number, if it got
/// a new one.
pub(super) fn verify(
    source: &SourceName,
    target: &Target,
    number: Option<u64>,
    observer: &dyn Observer,
) -> Result<(), RunError> {
    observer.tell(Event::Phase(Phase::Verify));
    let mut image = open_image(source)?;
    let disk = target.open_written()?;
    let number = number.map(NewSerial::Given);
    compare_with(&mut image, &disk, target.name(), number, observer, |_| Ok(()))?;
    observer.tell(Event::Note(format_args!("The target holds what the image holds.")));
    Ok(())
}

/// Compares what an image holds with a volume, which is called `name`, and tells where they differ. `then` looks at the
/// image that was read to its end.
fn compare_with<T>(
    image: &mut OpenImage,
    volume: &Disk,
    name: String,
    number: Option<NewSerial>,
    observer: &dyn Observer,
    then: impl FnOnce(&mut OpenImage) -> Result<T, RunError>,
) -> Result<T, RunError> {
    let geometry = image.info.geometry;
    let total = geometry.copied_bytes(image.info.nr_used);
    let mut compared = CompareSink::new(volume, name.clone(), &geometry);
    renewed(image, number, &geometry, observer, |feed| pump(feed, &mut compared, total, observer))?;
    // What the image lacks is no fault of the volume's.
    let then = then(image)?;
    let differing = tell_stretches(compared.differing(), "differ from the image", observer);
    let unreadable = tell_stretches(compared.unreadable(), "of the target cannot be read", observer);
    if differing + unreadable > 0 {
        return Err(RunError::NotACopy { target: name, differing, unreadable });
    }
    Ok(then)
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

pub(super) fn tell_of_missing_extra<R: Read>(image: &ImageReader<R>, observer: &dyn Observer) {
    if image.lacks_extra() {
        observer.tell(Event::Warning(format_args!("the image holds no backup boot sector")));
    }
}

/// Opens an image for its structure alone.
pub(super) fn open_image(source: &SourceName) -> Result<OpenImage, RunError> {
    Ok(ImageReader::open(input_of(source)?)?)
}

/// Opens an image to be compared with its checksums, if the job wants that.
pub(super) fn open_checked(job: &Job) -> Result<OpenImage, RunError> {
    if !job.checksum {
        return open_image(&job.source);
    }
    let input = input_of(&job.source)?;
    let files = files_of(&job.source)?;
    // What cannot be read now is told when it is read in its turn.
    let is_known = !input.is_compressed() && files.iter().all(|file| file.is_file());
    let known = is_known.then(|| trailer_of(&files).ok().flatten());
    Ok(ImageReader::open_checked(input, known.flatten())?)
}

/// The trailer of an image in files, if it is whole and the last there is in them.
fn trailer_of(files: &[PathBuf]) -> io::Result<Option<Trailer>> {
    let (mut end, mut missing) = (Vec::new(), trailer::MAX_LEN);
    let mut file_len = 0;
    for path in files.iter().rev() {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        file_len += len;
        let n = missing.min(usize::try_from(len).unwrap_or(usize::MAX));
        let mut part = vec![0; n];
        file.read_exact_at(&mut part, len - n as u64)?;
        part.append(&mut end);
        (end, missing) = (part, missing - n);
    }
    Ok(Trailer::at_end(&end, file_len))
}

fn input_of(source: &SourceName) -> Result<ImageInput<PartsReader>, RunError> {
    let parts = match source {
        SourceName::Path(_) => PartsReader::open(files_of(source)?),
        SourceName::Stdin => {
            io::stdin().as_fd().try_clone_to_owned().map(|stdin| PartsReader::from(File::from(stdin)))
        }
    };
    parts.and_then(ImageInput::open).map_err(|cause| RunError::OpenImage {
        path: source.path().unwrap_or(Path::new("standard input")).to_owned(),
        cause,
    })
}

/// The files that an image lies in: one, its parts, or none where it comes through a pipe.
pub(super) fn files_of(source: &SourceName) -> Result<Vec<PathBuf>, PartsError> {
    source.path().map_or(Ok(Vec::new()), parts::of_image)
}

/// Names the last part of an image that is cut off: it may be the one that is damaged, or not the last.
pub(super) fn naming_last_part(source: &SourceName) -> impl FnOnce(RunError) -> RunError + use<'_> {
    move |error| {
        let image: Option<&ImageError> = match &error {
            RunError::Image(cause) | RunError::Copy { cause: CopyError::Image(cause) } => Some(cause),
            _ => None,
        };
        match files_of(source) {
            Ok(mut files)
                if image.is_some_and(ImageError::is_cut_off)
                    && (files.len() > 1 || files.first().map(PathBuf::as_path) != source.path()) =>
            {
                RunError::CutOffParts { cause: Box::new(error), last: files.pop().unwrap_or_default() }
            }
            _ => error,
        }
    }
}

/// The boot sector in an image that can be read twice.
pub(super) fn first_sector(source: &SourceName) -> Option<BootSector> {
    let mut bytes = [0; BOOT_SECTOR_LEN];
    let mut image = open_image(source).ok()?;
    match image.next(&mut bytes) {
        Ok(Some((0, _))) => BootSector::parse(&bytes).ok(),
        _ => None,
    }
}
