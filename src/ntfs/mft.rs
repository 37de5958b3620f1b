//! `$MFT`: finding it, records in it, and the values of their attributes.

use std::ops::Range;

use super::attr::{Attribute, Body, listed_pieces, types};
use super::boot::BootSector;
use super::record::{Fault, Record, fix, mft_no_of};
use super::runs::{Run, RunList};
use super::{Error, Tolerance, mft_no};
use crate::event::{Event, Observer};
use crate::extent::{ClusterSet, Extent};
use crate::io::buffer::AlignedBuf;
use crate::io::{Loss, ReadError, Source};
use crate::units::{Geometry, Lcn};

/// Largest value that is read into memory: Windows ends attribute lists at 256 KiB.
const MAX_VALUE: u64 = 256 << 10;

/// Bytes of one read of the MFT and of bitmaps; a whole record at least.
pub(super) const SWEEP: usize = 256 << 10;

/// Most records that are walked: the number of files that NTFS can have.
const MAX_RECORDS: u64 = 1 << 32;

/// Where the records are.
#[derive(Debug)]
pub struct Mft {
    geometry: Geometry,
    record_size: usize,
    runs: RunList,
    nr_records: u64,
    /// Where the copies of the first records are, if those may stand in.
    mirror_pos: Option<u64>,
    /// Was something of `$MFT` not found?
    is_partial: bool,
}

/// Records that `$MFTMirr` has copies of: those before this one.
pub const NR_MIRRORED: u64 = 4;

/// The value of an attribute, however many records describe it.
#[derive(Debug)]
pub enum Value {
    /// The value itself.
    Resident(Vec<u8>),
    /// Where it lies.
    Stream(Stream),
}

impl Value {
    /// Bytes of it that there are: no more than its clusters hold.
    pub fn size(&self, geometry: &Geometry) -> u64 {
        match self {
            Value::Resident(bytes) => bytes.len() as u64,
            Value::Stream(stream) => {
                let in_runs = stream.runs.end().0.saturating_mul(geometry.cluster_size.into());
                stream.data_size.min(in_runs)
            }
        }
    }

    /// Fills `buf` with the value from byte `at` on. What was never written reads as zeros, whatever lies there.
    pub fn read_at(
        &self,
        source: &dyn Source,
        geometry: &Geometry,
        at: u64,
        buf: &mut [u8],
    ) -> Result<(), ReadError> {
        let len = buf.len() as u64;
        let written = match self {
            Value::Resident(bytes) => {
                let from = bytes.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
                buf.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                from.len() as u64
            }
            Value::Stream(stream) => {
                stream.runs.read_at(source, geometry, at, buf)?;
                stream.initialized_size.saturating_sub(at)
            }
        };
        buf.iter_mut().skip(written.min(len) as usize).for_each(|byte| *byte = 0);
        Ok(())
    }
}

/// A value in clusters.
#[derive(Debug)]
pub struct Stream {
    /// Its clusters, from VCN 0 on; fewer than all of them if there is a fault.
    pub runs: RunList,
    /// Bytes of it.
    pub data_size: u64,
    /// Bytes of it that were ever written.
    pub initialized_size: u64,
    /// The first record on the way that could not be used.
    pub fault: Option<(u64, Fault)>,
}

impl Mft {
    /// Finds `$MFT` from its record 0, through its attribute list and extension records if it has any. As
    /// far as `tolerance` goes, a record 0 that cannot be used is taken from `$MFTMirr`, and an `$MFT` that cannot be
    /// found to its end is used as far as it goes, both with a warning.
    pub fn open(
        source: &dyn Source,
        geometry: Geometry,
        boot: &BootSector,
        tolerance: Tolerance,
        observer: &dyn Observer,
    ) -> Result<Mft, Error> {
        let record_size = boot.record_size as usize;
        let mirror_pos = geometry.pos_within(boot.mftmirr_lcn).filter(|_| tolerance.damage);
        let mut mft = Mft {
            geometry,
            record_size,
            runs: RunList::default(),
            nr_records: 0,
            mirror_pos,
            is_partial: false,
        };
        let start = mft.first_runs(source, boot.mft_lcn).or_else(|error| {
            if !tolerance.forgives(&error) {
                return Err(error);
            }
            observer.tell(Event::Warning(format_args!("{error}; using its copy in $MFTMirr")));
            mft.first_runs(source, boot.mftmirr_lcn)
        })?;
        mft.runs = start.runs;
        mft.runs.cut_at_hole();
        let mut wanted = start.initialized_size;
        // Each round sees the extension records that lie in what the round before has found.
        let incomplete = loop {
            let mut more = match mft.value(source, mft_no::MFT, types::DATA, &[]) {
                Ok(Some(Value::Stream(more))) => more,
                Ok(_) => break None,
                Err(error) => break Some(error),
            };
            more.runs.cut_at_hole();
            if more.runs.end() > mft.runs.end() {
                mft.runs = more.runs;
                wanted = more.initialized_size;
            } else {
                let incomplete = more.fault;
                break incomplete
                    .map(|(mft_no, fault)| Error::of_record(mft_no, mft.record_pos(mft_no), fault));
            }
        };
        let found = mft.runs.end().0.saturating_mul(geometry.cluster_size.into());
        let short = (found < wanted).then_some(Error::ShortMft { found, wanted });
        for error in incomplete.into_iter().chain(short) {
            if !tolerance.forgives(&error) {
                return Err(error);
            }
            observer.tell(Event::Warning(format_args!("$MFT may be known only in part: {error}")));
            mft.is_partial = true;
        }
        // Runs that lie over each other must not make more of it than the device has room for.
        let real = wanted.min(found).min(geometry.device_size);
        mft.nr_records = (real / u64::from(boot.record_size)).min(MAX_RECORDS);
        Ok(mft)
    }

    /// The runs that the copy of record 0 at `lcn` holds itself.
    fn first_runs(&self, source: &dyn Source, lcn: Lcn) -> Result<Stream, Error> {
        let mft_no = mft_no::MFT;
        let Some(pos) = self.geometry.pos_within(lcn) else {
            return Err(Error::Missing { mft_no, what: "place on the volume" });
        };
        let mut buf = vec![0; self.record_size];
        source.read_at(pos, &mut buf)?;
        let record = Record::parse(&mut buf).map_err(|fault| Error::of_record(mft_no, Some(pos), fault))?;
        let mut stream = Stream::empty();
        self.collect(&record, mft_no, types::DATA, &[], &mut stream)?;
        match stream.runs.runs() {
            [] => Err(Error::Missing { mft_no, what: "$DATA from VCN 0 on" }),
            _ => Ok(stream),
        }
    }

    /// Where it lies, without holes.
    pub fn runs(&self) -> &[Run] {
        self.runs.runs()
    }

    /// How many records there are, in use or not.
    pub fn nr_records(&self) -> u64 {
        self.nr_records
    }

    /// Bytes in a record.
    pub fn record_size(&self) -> usize {
        self.record_size
    }

    /// The first byte of a record on the volume.
    pub fn record_pos(&self, mft_no: u64) -> Option<u64> {
        self.runs.locate(&self.geometry, mft_no.checked_mul(self.record_size as u64)?)?.0
    }

    /// The first byte of a record's copy in `$MFTMirr`, if there is one and it may stand in.
    pub fn mirror_pos(&self, mft_no: u64) -> Option<u64> {
        let pos = self.mirror_pos.filter(|_| mft_no < NR_MIRRORED)?;
        Some(pos + mft_no * self.record_size as u64)
    }

    /// The clusters that hold records.
    pub fn clusters(&self) -> ClusterSet {
        let cluster_size = u64::from(self.geometry.cluster_size);
        let nr_clusters = (self.nr_records * self.record_size as u64).div_ceil(cluster_size);
        let mut clusters = ClusterSet::new(self.geometry.nr_clusters);
        for run in self.runs.runs() {
            let Some(extent) = run.extent().filter(|_| run.vcn.0 < nr_clusters) else { continue };
            clusters.insert_extent(Extent { lcn: extent.lcn, len: extent.len.min(nr_clusters - run.vcn.0) });
        }
        clusters
    }

    /// Fills `buf` with the records from `mft_no` on, as they lie on disk.
    pub fn read_raw(&self, source: &dyn Source, mft_no: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let offset = mft_no.saturating_mul(self.record_size as u64);
        self.runs.read_at(source, &self.geometry, offset, buf).map_err(Fault::Unreadable)
    }

    /// Reads and checks one record; `buf` holds as many bytes as a record has. Where damage is
    /// tolerated the copy in `$MFTMirr` stands in for one that cannot be used.
    pub fn read<'b>(&self, source: &dyn Source, mft_no: u64, buf: &'b mut [u8]) -> Result<Record<'b>, Fault> {
        if let Err(fault) = self.read_raw(source, mft_no, buf).and_then(|()| fix(buf)) {
            return self.read_mirrored(source, mft_no, buf).ok_or(fault);
        }
        Record::view(buf)
    }

    /// Reads the copy of a record in `$MFTMirr`, if there is one and it may stand in.
    pub fn read_mirrored<'b>(
        &self,
        source: &dyn Source,
        mft_no: u64,
        buf: &'b mut [u8],
    ) -> Option<Record<'b>> {
        let pos = self.mirror_pos.filter(|_| mft_no < NR_MIRRORED)?;
        source.read_at(pos + mft_no * self.record_size as u64, buf).ok()?;
        Record::parse(buf).ok()
    }

    /// Hands out the bytes of every record as they lie on disk, in the order of their numbers, or why they cannot be
    /// read: where a large read meets a bad area, each record in it gets a read of its own. Ends with the first error
    /// of `visit`, and with a read that fails for another reason than a bad area. The progress it tells is in records.
    pub fn sweep(
        &self,
        source: &dyn Source,
        observer: &dyn Observer,
        mut visit: impl FnMut(u64, Result<&mut [u8], Fault>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let nr_records = self.nr_records;
        let mut buf = self.sweep_buffer();
        let mut first = 0;
        while first < nr_records {
            first += self.visit(source, observer, first..nr_records, &mut buf, &mut visit)?;
            observer.tell(Event::Progress { done: first, total: nr_records });
        }
        Ok(())
    }

    /// The same for some records only, and without progress.
    pub fn sweep_some(
        &self,
        source: &dyn Source,
        observer: &dyn Observer,
        records: &ClusterSet,
        mut visit: impl FnMut(u64, Result<&mut [u8], Fault>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut buf = self.sweep_buffer();
        for extent in records.extents() {
            let mut first = extent.lcn.0;
            while first < extent.end() {
                first += self.visit(source, observer, first..extent.end(), &mut buf, &mut visit)?;
            }
        }
        Ok(())
    }

    /// Room for a large read, in whole records.
    fn sweep_buffer(&self) -> AlignedBuf {
        AlignedBuf::new(SWEEP.max(self.record_size) / self.record_size * self.record_size)
    }

    /// Reads as many of these records as the buffer holds, hands them out, and returns their number.
    fn visit(
        &self,
        source: &dyn Source,
        observer: &dyn Observer,
        records: Range<u64>,
        buf: &mut AlignedBuf,
        visit: &mut impl FnMut(u64, Result<&mut [u8], Fault>) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        if observer.wants_stop() {
            return Err(Error::Stopped);
        }
        let record_size = self.record_size;
        let n = (records.end - records.start).min((buf.bytes().len() / record_size) as u64);
        let chunk = buf.bytes_mut().get_mut(..n as usize * record_size).unwrap_or_default();
        let swept = or_bad(self.read_raw(source, records.start, chunk))?;
        for (mft_no, record) in (records.start..).zip(chunk.chunks_exact_mut(record_size)) {
            let read = match swept {
                Ok(()) => Ok(()),
                Err(_) => or_bad(self.read_raw(source, mft_no, record))?,
            };
            visit(mft_no, read.map(|()| record))?;
        }
        Ok(n)
    }

    /// Was something of `$MFT` not found, so that records may be missing?
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Finds the attribute of type `kind` called `name` (UTF-16LE) of a base record, and collects its pieces
    /// through the attribute list where there is one. None if the record has no such attribute.
    pub fn value(
        &self,
        source: &dyn Source,
        mft_no: u64,
        kind: u32,
        name: &[u8],
    ) -> Result<Option<Value>, Error> {
        let mut buf = vec![0; self.record_size];
        let base = self
            .read(source, mft_no, &mut buf)
            .map_err(|fault| Error::of_record(mft_no, self.record_pos(mft_no), fault))?;
        let mut stream = Stream::empty();
        if let Some(value) = self.collect(&base, mft_no, kind, name, &mut stream)? {
            return Ok(Some(Value::Resident(value)));
        }
        let list = self.attribute_list(source, mft_no, &base)?;
        let mut other = vec![0; self.record_size];
        for piece in listed_pieces(&list) {
            // A piece of the base record is in the stream already, unless one in another record comes first.
            if piece.kind != kind || piece.name != name || piece.lowest_vcn != stream.runs.end() {
                continue;
            }
            let holder = mft_no_of(piece.reference);
            match self.read_listed(source, holder, mft_no, &mut other) {
                Ok(record) => {
                    if let Some(value) = self.collect(&record, holder, kind, name, &mut stream)? {
                        return Ok(Some(Value::Resident(value)));
                    }
                }
                Err(fault) => {
                    stream.fault = Some((holder, fault));
                    break;
                }
            }
        }
        let found = stream.fault.is_some() || !stream.runs.runs().is_empty();
        Ok(found.then_some(Value::Stream(stream)))
    }

    /// Reads a record that the attribute list of the base record `base` names: an extension of it, or itself.
    pub(super) fn read_listed<'b>(
        &self,
        source: &dyn Source,
        mft_no: u64,
        base: u64,
        buf: &'b mut [u8],
    ) -> Result<Record<'b>, Fault> {
        let record = self.read(source, mft_no, buf)?;
        match record.base_mft_no() == Some(base) || mft_no == base {
            true => Ok(record),
            false => Err(Fault::NotExtensionOf(base)),
        }
    }

    /// Adds what one record has of an attribute to the stream, or returns its value if that is resident.
    fn collect(
        &self,
        record: &Record<'_>,
        mft_no: u64,
        kind: u32,
        name: &[u8],
        stream: &mut Stream,
    ) -> Result<Option<Vec<u8>>, Error> {
        for attribute in record.attributes() {
            let attribute = attribute.map_err(|cause| Error::Attr { mft_no, cause })?;
            if attribute.kind == kind && attribute.name == name {
                match attribute.body {
                    Body::Resident(value) => return Ok(Some(value.to_vec())),
                    Body::NonResident { .. } => {
                        stream.append(&attribute, mft_no, self.geometry.nr_clusters)?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// The value of a base record's attribute list; empty if it has none.
    pub(super) fn attribute_list(
        &self,
        source: &dyn Source,
        mft_no: u64,
        base: &Record<'_>,
    ) -> Result<Vec<u8>, Error> {
        let mut stream = Stream::empty();
        if let Some(value) = self.collect(base, mft_no, types::ATTRIBUTE_LIST, &[], &mut stream)? {
            return Ok(value);
        }
        let mut value = vec![0; stream.data_size.min(MAX_VALUE) as usize];
        stream.runs.read_at(source, &self.geometry, 0, &mut value)?;
        Ok(value)
    }
}

/// Sorts out a read that failed for another reason than a bad area: that ends a sweep.
fn or_bad(read: Result<(), Fault>) -> Result<Result<(), Fault>, Error> {
    match read {
        Err(Fault::Unreadable(error)) if error.loss() != Loss::BadArea => Err(error.into()),
        other => Ok(other),
    }
}

impl Stream {
    fn empty() -> Stream {
        Stream { runs: RunList::default(), data_size: 0, initialized_size: 0, fault: None }
    }

    /// Adds the piece that follows; others are left out.
    fn append(&mut self, piece: &Attribute<'_>, mft_no: u64, nr_clusters: u64) -> Result<(), Error> {
        if let Body::NonResident { lowest_vcn, data_size, initialized_size, .. } = piece.body {
            if lowest_vcn != self.runs.end() {
                return Ok(());
            }
            if lowest_vcn.0 == 0 {
                (self.data_size, self.initialized_size) = (data_size, initialized_size);
            }
        }
        for run in piece.runs(nr_clusters).into_iter().flatten() {
            let run = run.map_err(|cause| Error::Runs { mft_no, kind: piece.kind, cause })?;
            self.runs.push(run);
        }
        Ok(())
    }
}
