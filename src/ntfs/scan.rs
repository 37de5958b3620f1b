//! Which clusters are in use: those that the MFT claims, checked against `$Bitmap`.
//!
//! One sweep over the MFT in large reads collects the runs of every attribute of every record in use into one
//! bit a cluster; then `$Bitmap` is laid over it piece by piece. So it costs one bit a cluster, whatever the
//! number of files. In doubt a cluster is in use: the result is the union of both.

use std::fmt;

use super::attr::{Attribute, FileName, types};
use super::metadata::Collector;
use super::mft::{SWEEP, Value};
use super::record::{Fault, Record, claims_in_use, fix, mft_no_of};
use super::volume::Volume;
use super::{Error, Tolerance, mft_no};
use crate::event::{Event, Observer, Phase};
use crate::extent::{ClusterSet, Difference, Extent};
use crate::io::buffer::AlignedBuf;
use crate::io::{Loss, ReadError};
use crate::units::Lcn;

/// Differences that are told one by one; the rest is only counted.
const MAX_TOLD: u64 = 10;

/// Most references to base records with extension records that are kept, eight bytes each.
const MAX_LISTING: usize = 128 << 10;

/// Name of the stream of `$BadClus` that holds the bad clusters, UTF-16LE.
const BAD_STREAM: &[u8] = b"$\0B\0a\0d\0";

/// The clusters in use.
#[derive(Debug)]
pub struct Usage {
    /// All of them, without the extra one behind the last.
    pub used: ClusterSet,
    /// How many.
    pub nr_used: u64,
    /// Clusters that two runs claim; only where a collector asks for them.
    pub claimed_twice: ClusterSet,
    /// MFT records in use.
    pub nr_records_in_use: u64,
    /// The record of the file in which Windows keeps its memory while it sleeps, if there is one.
    pub hiberfile: Option<u64>,
    /// Those of them that are taken only because `$Bitmap` cannot be read, if there are any.
    pub doubtful: Option<ClusterSet>,
    /// Records of files, and other structures, that make no sense.
    pub nr_damaged: u64,
    /// Records that could not be read.
    pub nr_unreadable: u64,
}

/// How many clusters `$Bitmap` and the MFT disagree about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mismatches {
    /// Marked in `$Bitmap`, but no attribute's.
    pub only_in_bitmap: u64,
    /// An attribute's, but free in `$Bitmap`.
    pub only_in_mft: u64,
    /// Claimed by two runs.
    pub claimed_twice: u64,
}

impl Mismatches {
    /// All together.
    pub fn total(&self) -> u64 {
        self.only_in_bitmap + self.only_in_mft + self.claimed_twice
    }
}

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatches { only_in_bitmap, only_in_mft, claimed_twice } = self;
        write!(
            f,
            "{only_in_bitmap} only in $Bitmap, {only_in_mft} only in the MFT, {claimed_twice} claimed twice"
        )
    }
}

struct Scan<'v> {
    volume: &'v Volume<'v>,
    /// What is told and left out instead of ending the scan.
    tolerance: Tolerance,
    observer: &'v dyn Observer,
    used: ClusterSet,
    mismatches: Mismatches,
    /// Records that belong to a file, as `$MFT`'s own bitmap says.
    allocated: ClusterSet,
    /// Base records in use, or of unknown state.
    bases: ClusterSet,
    /// References to those of them that have an attribute list, and so extension records: by number, as far as there is
    /// room.
    listing: Vec<u64>,
    /// The reference of the base record that was looked up last, and whether it means the record that is there.
    last_base: Option<(u64, bool)>,
    /// Extension records that come before their base record.
    deferred: ClusterSet,
    bad_clusters: ClusterSet,
    claimed_twice: ClusterSet,
    /// Gathers what is metadata, if that is asked for.
    collector: Option<&'v mut Collector>,
    nr_in_use: u64,
    hiberfile: Option<u64>,
    /// Clusters whose bits in `$Bitmap` cannot be had.
    doubtful: ClusterSet,
    nr_damaged: u64,
    nr_unreadable: u64,
}

/// Finds the clusters in use and checks them. Clusters that `$BadClus` lists are not among them. What
/// `tolerance` covers is told and counted, and does not end the scan. A collector takes the attributes of all files
/// on the way.
pub fn scan<'v>(
    volume: &'v Volume<'v>,
    tolerance: Tolerance,
    collector: Option<&'v mut Collector>,
    observer: &'v dyn Observer,
) -> Result<Usage, Error> {
    let mut scan = Scan {
        volume,
        tolerance,
        observer,
        used: ClusterSet::new(volume.info.geometry.nr_clusters),
        mismatches: Mismatches::default(),
        allocated: allocated_records(volume),
        bases: ClusterSet::new(volume.mft.nr_records()),
        listing: Vec::new(),
        last_base: None,
        deferred: ClusterSet::new(volume.mft.nr_records()),
        bad_clusters: ClusterSet::new(volume.info.geometry.nr_clusters),
        claimed_twice: ClusterSet::new(volume.info.geometry.nr_clusters),
        collector,
        nr_in_use: 0,
        hiberfile: None,
        doubtful: ClusterSet::new(volume.info.geometry.nr_clusters),
        nr_damaged: 0,
        nr_unreadable: 0,
    };
    observer.tell(Event::Phase(Phase::Scan));
    scan.sweep()?;
    scan.visit_deferred()?;
    observer.tell(Event::Phase(Phase::Account));
    scan.lay_bitmap_over()?;
    scan.conclude()
}

impl Scan<'_> {
    /// Visits every record, in the order of their numbers.
    fn sweep(&mut self) -> Result<(), Error> {
        let Volume { source, mft, .. } = self.volume;
        mft.sweep(*source, self.observer, |mft_no, bytes| match bytes {
            Ok(bytes) => self.visit(mft_no, bytes),
            Err(fault) => self.lose(mft_no, fault),
        })
    }

    /// Takes one record as it lies on disk.
    fn visit(&mut self, mft_no: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let fixed = fix(bytes);
        let in_use = || claims_in_use(bytes);
        match fixed.and_then(|()| Record::view(bytes)) {
            Ok(record) if !record.in_use() => Ok(()),
            Ok(record) => match record.base_mft_no() {
                None => {
                    self.bases.insert(mft_no);
                    self.claim(mft_no, &record)
                }
                Some(base) if base < mft_no => self.claim_extension(mft_no, &record),
                Some(_) => {
                    self.deferred.insert(mft_no);
                    Ok(())
                }
            },
            // It holds no clusters that anybody could find; ntfsclone goes on as well.
            Err(fault) if !in_use() && self.allocated.contains(mft_no) => {
                let error = self.record_error(mft_no, fault);
                self.observer
                    .tell(Event::Warning(format_args!("{error}, though $MFT counts it as a file's")));
                self.nr_damaged += 1;
                self.claim_copy(mft_no)
            }
            // What was never a record, or belongs to no file, holds no clusters.
            Err(_) if !in_use() => Ok(()),
            Err(fault) => self.lose(mft_no, fault),
        }
    }

    fn record_error(&self, mft_no: u64, fault: Fault) -> Error {
        Error::of_record(mft_no, self.volume.mft.record_pos(mft_no), fault)
    }

    /// Tells of a record in use that cannot be used; where that is not tolerated, the end.
    fn lose(&mut self, mft_no: u64, fault: Fault) -> Result<(), Error> {
        let is_unreadable = matches!(fault, Fault::Unreadable(_));
        let error = self.record_error(mft_no, fault);
        if is_unreadable && self.tolerance.forgives(&error) {
            // A dead zone holds thousands of them.
            self.nr_unreadable += 1;
            if self.nr_unreadable <= MAX_TOLD {
                self.observer.tell(Event::Warning(format_args!("{error}")));
            }
        } else {
            self.tolerate(error)?;
        }
        self.claim_copy(mft_no)
    }

    /// Takes what is left of a record that cannot be used: its copy, and its extension records.
    fn claim_copy(&mut self, mft_no: u64) -> Result<(), Error> {
        self.bases.insert(mft_no);
        let mut buf = vec![0; self.volume.mft.record_size()];
        match self.volume.mft.read_mirrored(self.volume.source, mft_no, &mut buf) {
            Some(copy) => self.claim(mft_no, &copy),
            None => Ok(()),
        }
    }

    /// A warning and a count where it is tolerated, else the end.
    fn tolerate(&mut self, error: Error) -> Result<(), Error> {
        if !self.tolerance.forgives(&error) {
            return Err(error);
        }
        self.observer.tell(Event::Warning(format_args!("{error}")));
        self.nr_damaged += 1;
        Ok(())
    }

    /// Visits the extension records that the sweep met before their base.
    fn visit_deferred(&mut self) -> Result<(), Error> {
        let Volume { source, mft, .. } = self.volume;
        let deferred = std::mem::replace(&mut self.deferred, ClusterSet::new(0));
        mft.sweep_some(*source, self.observer, &deferred, |mft_no, bytes| {
            match bytes.and_then(Record::parse) {
                Ok(record) => self.claim_extension(mft_no, &record),
                Err(fault) => self.lose(mft_no, fault),
            }
        })
    }

    /// Adds the clusters of an extension record, unless it is left over from a file that is gone.
    fn claim_extension(&mut self, mft_no: u64, record: &Record<'_>) -> Result<(), Error> {
        match self.is_current(record.base_reference()) {
            true => self.claim(mft_no, record),
            false => Ok(()),
        }
    }

    /// Does this reference mean the base record that is in use? On a failing disk the sequence number is not read for
    /// it: in doubt the extension counts.
    fn is_current(&mut self, reference: u64) -> bool {
        let base = mft_no_of(reference);
        if !self.bases.contains(base) {
            return false;
        }
        if self.tolerance.bad_areas {
            return true;
        }
        let listed = self.listing.binary_search_by_key(&base, |listed| mft_no_of(*listed)).ok();
        if let Some(listed) = listed.and_then(|at| self.listing.get(at)) {
            return *listed == reference;
        }
        if let Some((_, current)) = self.last_base.filter(|(last, _)| *last == reference) {
            return current;
        }
        let mut buf = vec![0; self.volume.mft.record_size()];
        let base = self.volume.mft.read(self.volume.source, base, &mut buf);
        let current = base.is_ok_and(|base| base.is_meant_by(reference));
        self.last_base = Some((reference, current));
        current
    }

    /// Adds the clusters of all attributes of a record.
    fn claim(&mut self, mft_no: u64, record: &Record<'_>) -> Result<(), Error> {
        let base = record.base_mft_no().unwrap_or(mft_no);
        self.nr_in_use += 1;
        for attribute in record.attributes() {
            match attribute {
                Ok(attribute) => {
                    if attribute.kind == types::ATTRIBUTE_LIST && base == mft_no {
                        self.list(mft_no, record);
                    }
                    self.claim_runs(mft_no, base, &attribute)?;
                    if let Some(collector) = &mut self.collector {
                        collector.take(base, &attribute);
                    }
                    if is_hiberfile(&attribute) {
                        self.hiberfile = Some(base);
                    }
                }
                Err(cause) => self.tolerate(Error::Attr { mft_no, cause })?,
            }
        }
        Ok(())
    }

    /// Keeps the reference to a base record that has extension records.
    fn list(&mut self, mft_no: u64, record: &Record<'_>) {
        let is_next = self.listing.last().is_none_or(|last| mft_no_of(*last) < mft_no);
        if is_next && self.listing.len() < MAX_LISTING {
            self.listing.push(u64::from(record.sequence()) << 48 | mft_no);
        }
    }

    fn claim_runs(&mut self, mft_no: u64, base: u64, attribute: &Attribute<'_>) -> Result<(), Error> {
        let is_bad = is_bad_clusters(base, attribute);
        for run in attribute.runs(self.volume.info.geometry.nr_clusters).into_iter().flatten() {
            match run {
                Ok(run) => {
                    let Some(extent) = run.extent() else { continue };
                    if self.collector.is_some() {
                        for overlap in self.used.overlaps(extent) {
                            self.claimed_twice.insert_extent(overlap);
                        }
                    }
                    self.mismatches.claimed_twice += self.used.insert_extent(extent);
                    if self.mismatches.claimed_twice > self.volume.info.geometry.nr_clusters {
                        return self.give_up_accounting();
                    }
                    if is_bad {
                        self.bad_clusters.insert_extent(extent);
                    }
                }
                Err(cause) => self.tolerate(Error::Runs { mft_no, kind: attribute.kind, cause })?,
            }
        }
        Ok(())
    }

    /// More clusters are claimed twice than the volume has: no bitmap makes sense of that, and going on could take for
    /// ever. Where that is tolerated every cluster is in use.
    fn give_up_accounting(&mut self) -> Result<(), Error> {
        if !self.tolerance.damage {
            return Err(Error::Mismatch(self.mismatches));
        }
        self.used.insert_extent(Extent { lcn: Lcn(0), len: u64::MAX });
        Ok(())
    }

    /// Compares with `$Bitmap` and adds what only that has.
    fn lay_bitmap_over(&mut self) -> Result<(), Error> {
        let Volume { source, mft, info, .. } = self.volume;
        let (mft_no, nr_clusters) = (mft_no::BITMAP, info.geometry.nr_clusters);
        let wanted = nr_clusters.div_ceil(8);
        let bitmap = match mft.value(*source, mft_no, types::DATA, &[]) {
            Ok(Some(bitmap)) => bitmap,
            Ok(None) => return self.without_bitmap(Error::Missing { mft_no, what: "$DATA" }, 0),
            Err(error) => return self.without_bitmap(error, 0),
        };
        let found = bitmap.size(&info.geometry);
        let mut buf = AlignedBuf::new(SWEEP);
        let end = wanted.min(found);
        let mut at = 0;
        while at < end {
            if self.observer.wants_stop() {
                return Err(Error::Stopped);
            }
            let n = (end - at).min(SWEEP as u64) as usize;
            let piece = buf.bytes_mut().get_mut(..n).unwrap_or_default();
            match bitmap.read_at(*source, &info.geometry, at, piece) {
                Ok(()) => self.absorb(at, piece),
                Err(error) => self.absorb_in_parts(&bitmap, at, piece, error)?,
            }
            at += n as u64;
            self.observer.tell(Event::Progress { done: at, total: wanted });
        }
        if end < wanted {
            return self.without_bitmap(Error::ShortBitmap { found, wanted, nr_clusters }, end);
        }
        Ok(())
    }

    /// A piece of `$Bitmap` that could not be read at once: what can be read of it sector by sector counts, the
    /// rest is in use.
    fn absorb_in_parts(
        &mut self,
        bitmap: &Value,
        at: u64,
        piece: &mut [u8],
        error: ReadError,
    ) -> Result<(), Error> {
        if !self.tolerance.bad_areas || error.loss() != Loss::BadArea {
            return Err(error.into());
        }
        let Volume { source, info, .. } = self.volume;
        let sector_size = source.sector_size() as usize;
        for (at, part) in (at..).step_by(sector_size).zip(piece.chunks_mut(sector_size)) {
            match bitmap.read_at(*source, &info.geometry, at, part) {
                Ok(()) => self.absorb(at, part),
                Err(error) if error.loss() != Loss::BadArea => return Err(error.into()),
                Err(error) => {
                    self.observer.tell(Event::Warning(format_args!("$Bitmap: {error}; taken as in use")));
                    self.doubtful.insert_extent(Extent { lcn: Lcn(at * 8), len: part.len() as u64 * 8 });
                }
            }
        }
        Ok(())
    }

    /// Lays one piece of `$Bitmap`, from its byte `at` on, over the clusters that the MFT claims.
    fn absorb(&mut self, at: u64, piece: &[u8]) {
        let Scan { used, mismatches, observer, .. } = self;
        used.absorb_bitmap(at * 8, piece, |difference| {
            match difference {
                Difference::OnlyInBitmap(_) => mismatches.only_in_bitmap += 1,
                Difference::OnlyInSet(_) => mismatches.only_in_mft += 1,
            }
            if mismatches.only_in_bitmap + mismatches.only_in_mft <= MAX_TOLD {
                observer.tell(Event::Mismatch(difference));
            }
        });
    }

    /// Every cluster whose bit, from byte `at` of `$Bitmap` on, cannot be had is in use, where that is tolerated.
    fn without_bitmap(&mut self, error: Error, at: u64) -> Result<(), Error> {
        if !self.tolerance.forgives(&error) {
            return Err(error);
        }
        self.observer.tell(Event::Warning(format_args!("{error}; every cluster it should cover is taken")));
        self.nr_damaged += 1;
        self.doubtful.insert_extent(Extent { lcn: Lcn(at * 8), len: u64::MAX });
        Ok(())
    }

    fn conclude(mut self) -> Result<Usage, Error> {
        if self.mismatches.total() > 0 {
            let error = Error::Mismatch(self.mismatches);
            if !self.tolerance.damage {
                return Err(error);
            }
            let saved = match self.collector {
                Some(_) => "of them only metadata is copied",
                None => "all of them are saved",
            };
            self.observer.tell(Event::Warning(format_args!(
                "$Bitmap and the MFT disagree about {} clusters ({}): {saved}",
                self.mismatches.total(),
                self.mismatches
            )));
        }
        if self.nr_unreadable > MAX_TOLD {
            self.observer.tell(Event::Warning(format_args!(
                "{} MFT records could not be read with the rest; $Bitmap tells which clusters they have",
                self.nr_unreadable
            )));
        }
        for extent in self.bad_clusters.extents() {
            self.used.remove_extent(extent);
            self.doubtful.remove_extent(extent);
        }
        let in_doubt = self.doubtful.find(0, true) < self.doubtful.bound();
        self.used.absorb(&mut self.doubtful);
        Ok(Usage {
            nr_used: self.used.count(),
            used: self.used,
            claimed_twice: self.claimed_twice,
            nr_records_in_use: self.nr_in_use,
            hiberfile: self.hiberfile,
            doubtful: in_doubt.then_some(self.doubtful),
            nr_damaged: self.nr_damaged,
            nr_unreadable: self.nr_unreadable,
        })
    }
}

/// Does this attribute of the file `base` list the bad clusters?
pub(super) fn is_bad_clusters(base: u64, attribute: &Attribute<'_>) -> bool {
    base == mft_no::BAD_CLUS && attribute.kind == types::DATA && attribute.name == BAD_STREAM
}

/// Where Windows keeps its memory while it sleeps: a file of this name in the root folder, UTF-16LE and as long.
pub(super) const HIBERFILE: &[u8] = b"h\0i\0b\0e\0r\0f\0i\0l\0.\0s\0y\0s\0";

/// Is this the name of the file with Windows's memory?
fn is_hiberfile(attribute: &Attribute<'_>) -> bool {
    FileName::of(attribute).is_some_and(|FileName { parent, name, .. }| {
        mft_no_of(parent) == mft_no::ROOT && name.eq_ignore_ascii_case(HIBERFILE)
    })
}

/// The records that `$MFT`'s own bitmap counts as a file's; as far as it can be read.
fn allocated_records(volume: &Volume<'_>) -> ClusterSet {
    let Volume { source, mft, info, .. } = volume;
    let mut allocated = ClusterSet::new(mft.nr_records());
    let Ok(Some(bitmap)) = mft.value(*source, mft_no::MFT, types::BITMAP, &[]) else { return allocated };
    let mut buf = AlignedBuf::new(SWEEP);
    let end = mft.nr_records().div_ceil(8).min(bitmap.size(&info.geometry));
    for at in (0..end).step_by(SWEEP) {
        let piece = buf.bytes_mut().get_mut(..(end - at).min(SWEEP as u64) as usize).unwrap_or_default();
        if bitmap.read_at(*source, &info.geometry, at, piece).is_ok() {
            allocated.absorb_bitmap(at * 8, piece, |_| {});
        }
    }
    allocated
}
