//! Reading what makes the rest readable, and deciding what is copied.

use super::super::memory::warn_of_memory;
use super::super::{RunError, room_for_image, tell_space, warn_of_sector_size, warn_of_shutdown};
use super::look::bitmaps;
use super::{boot_range, extra_range};
use crate::copy::survey::Survey;
use crate::event::{Event, Observer, Phase};
use crate::extent::{ByteRange, ClusterSet, Extent};
use crate::io::disk::Disk;
use crate::io::stash::Stash;
use crate::io::target::{Room, Target};
use crate::io::{Loss, ReadError, Source};
use crate::ntfs::first::{Patterns, first_clusters};
use crate::ntfs::scan::scan;
use crate::ntfs::volume::any_boot_sector;
use crate::ntfs::{Error, Tolerance, Volume, mft_no};
use crate::plan::Plan;
use crate::rescue::Areas;
use crate::rescue::frozen::{Facts, Form};
use crate::rescue::passes::Pass;
use crate::units::{Geometry, Lcn};

/// What is known when copying begins.
pub(super) struct Begun {
    pub(super) plan: Plan,
    pub(super) facts: Facts,
    pub(super) areas: Areas,
    /// What was read already and has a place now.
    pub(super) stash: Stash,
    /// Files that come first, then the indexes on the way to them.
    pub(super) first: Vec<ClusterSet>,
    /// Structures that could not be used.
    pub(super) nr_damaged: u64,
}

/// The clusters that come first: those of files that match, then of the indexes on the way to them.
pub(super) fn first_of(
    volume: &Volume<'_>,
    patterns: &Patterns,
    observer: &dyn Observer,
) -> Result<Vec<ClusterSet>, RunError> {
    if patterns.is_empty() {
        return Ok(Vec::new());
    }
    let first = first_clusters(volume, patterns, observer)?;
    observer.tell(Event::Note(format_args!("Files that come first: {}", first.nr_files)));
    for (pattern, _) in patterns.texts().zip(&first.matches).filter(|(_, nr)| **nr == 0) {
        observer.tell(Event::Warning(format_args!("--first '{pattern}': no file that is known matches")));
    }
    Ok(vec![first.files, first.indexes])
}

/// Bytes for a bit of [`Areas`] before the cluster size is known.
pub(super) const SURVEY_UNIT: u32 = 4096;

/// What is made of the volume.
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub(super) form: Form,
    /// Does an image get a trailer?
    pub(super) checksum: bool,
}

/// Reads what makes the rest readable, and decides what is copied.
pub(super) fn begin(
    made: Made,
    patterns: &Patterns,
    source: &dyn Source,
    areas: Areas,
    in_target: Option<&Disk>,
    target: &Target,
    observer: &dyn Observer,
) -> Result<Begun, RunError> {
    observer.tell(Event::Phase(Phase::Survey));
    let in_target = in_target.map(|disk| disk as &dyn Source);
    let survey = Survey::new(source, areas, in_target, observer);
    let tolerance = Tolerance::RESCUE;
    let volume = match Volume::open(&survey, tolerance, observer) {
        Err(error) if error.read().map(ReadError::loss) == Some(Loss::BadArea) => {
            return begin_blind(made, survey, source, target, &error, observer);
        }
        other => other?,
    };
    let geometry = volume.info.geometry;
    observer.tell(Event::Volume(&volume.info));
    warn_of_memory(&geometry, observer);
    if volume.info.is_dirty {
        observer.tell(Event::Warning(format_args!("the volume is marked dirty; it is copied as it is")));
    }
    if made.form == Form::Clone {
        warn_of_sector_size(target, volume.info.sector_size, observer);
    }
    // Read for its place in the target, whether it is needed or not.
    let mut backup = vec![0; geometry.extra_len() as usize];
    let _unreadable = survey.read_at(geometry.volume_size(), &mut backup);
    read_ahead(&survey, &volume)?;
    let usage = scan(&volume, tolerance, None, observer)?;
    // Not worth an error of a disk that has made some.
    if !survey.has_failed() {
        warn_of_shutdown(&volume, &usage, observer);
    }
    if observer.wants_stop() {
        return Err(Error::Stopped.into());
    }
    let nr_damaged = volume.nr_damaged + usage.nr_damaged;
    let first = first_of(&volume, patterns, observer)?;
    let nr_doubtful = usage.doubtful.as_ref().map(ClusterSet::count);
    drop(usage.doubtful);
    let (sector_size, volume_serial) = (volume.info.sector_size, volume.info.serial);
    let plan = Plan::new(geometry, usage.used, usage.nr_used);
    tell_space(plan.nr_used, geometry, observer);
    target.require(room_for(made, &plan, plan.nr_used - nr_doubtful.unwrap_or(0)))?;
    let found = survey.into_found();
    let held = |range: ByteRange| {
        let mut bytes = vec![0; range.len as usize];
        (made.form == Form::Clone && range.len > 0 && found.stash.get(range.pos, &mut bytes)).then_some(bytes)
    };
    let facts = Facts {
        form: made.form,
        sector_size,
        is_doubtful: nr_doubtful.is_some(),
        volume_serial,
        volume_pos: 0,
        boot_sector: held(boot_range(&plan)),
        extra_cluster: held(extra_range(&plan)),
    };
    let areas = found.areas.with_unit(source.len(), geometry.cluster_size.into());
    Ok(Begun { plan, facts, areas, stash: found.stash, first, nr_damaged })
}

/// What to do where nothing tells what is on the volume: all of it is in use. It may still be read later, and what
/// was saved by then can be searched.
fn begin_blind(
    made: Made,
    survey: Survey<'_>,
    source: &dyn Source,
    target: &Target,
    error: &Error,
    observer: &dyn Observer,
) -> Result<Begun, RunError> {
    observer.tell(Event::Warning(format_args!(
        "{error}; without it, and without a copy, all of the volume is taken as in use"
    )));
    let boot = any_boot_sector(&survey);
    let (sector_size, serial) =
        boot.as_ref().map_or((source.sector_size(), 0), |boot| (boot.sector_size, boot.serial));
    let geometry = match boot {
        Some(boot) => boot.geometry(source.len()).map_err(Error::from)?,
        None => {
            // Clusters of the usual size, and the sector of the backup behind them.
            let clusters = source.len().saturating_sub(sector_size.into()) / u64::from(SURVEY_UNIT);
            Geometry::new(SURVEY_UNIT.into(), clusters, source.len()).map_err(Error::from)?
        }
    };
    warn_of_memory(&geometry, observer);
    let mut used = ClusterSet::new(geometry.nr_clusters);
    used.insert_extent(Extent { lcn: Lcn(0), len: u64::MAX });
    let plan = Plan::new(geometry, used, geometry.nr_clusters);
    tell_space(plan.nr_used, geometry, observer);
    let facts = Facts {
        form: made.form,
        sector_size,
        is_doubtful: false,
        volume_serial: serial,
        volume_pos: 0,
        boot_sector: None,
        extra_cluster: None,
    };
    target.require(room_for(made, &plan, plan.nr_used))?;
    let found = survey.into_found();
    let areas = found.areas.with_unit(source.len(), geometry.cluster_size.into());
    Ok(Begun { plan, facts, areas, stash: found.stash, first: Vec::new(), nr_damaged: 1 })
}

/// What a target must have room for, with so many clusters that are in use beyond doubt. What is in doubt has a place
/// in a clone, but perhaps nothing to put there.
fn room_for(made: Made, plan: &Plan, nr_sure: u64) -> Room {
    match made.form {
        Form::Image => room_for_image(plan, made.checksum),
        Form::Clone => {
            Room { length: plan.geometry.written_end(), content: plan.geometry.copied_bytes(nr_sure) }
        }
    }
}

/// Reads `$MFT` and `$Bitmap` as far as that goes without fighting, so that their parsers find all in memory.
fn read_ahead(survey: &Survey<'_>, volume: &Volume<'_>) -> Result<(), RunError> {
    let geometry = &volume.info.geometry;
    let read = |clusters: ClusterSet, passes: &[Pass]| {
        survey.read_ahead(clusters, geometry.cluster_size.into(), passes).map_err(Error::from)
    };
    // By itself, because a bad spot near `$Bitmap`'s record must not hide it. If it cannot be read, that is told later.
    let mut record = vec![0; volume.mft.record_size()];
    let _unreadable = volume.mft.read(survey, mft_no::BITMAP, &mut record);
    // What is left of the records is read in its turn.
    read(volume.mft.clusters(), &[Pass::Forward(0)])?;
    // A bit that is not known means a cluster that is copied in vain, and a sector has thousands of them.
    let passes = [Pass::Forward(0), Pass::Down, Pass::Up, Pass::Trim { last: false }];
    for clusters in bitmaps(volume) {
        read(clusters, &passes)?;
    }
    Ok(())
}
