//! What of a volume is metadata, and where: everything but the contents of files.
//!
//! While [`scan`](super::scan) sweeps the MFT, a [`Collector`] keeps of each stream that is metadata (an attribute in
//! clusters) its runs and how to wipe it. In the end [`Metadata`] gives the runs of all streams in the order of the
//! clusters. That costs memory for each fragment of metadata, some hundred bytes for a folder that has blocks of its
//! own, and a bit for each of its blocks; contents of files cost nothing.

use std::collections::BTreeMap;

use super::attr::{Attribute, Body, types};
use super::mft::{self, Value};
use super::runs::{Run, RunList};
use super::volume::Volume;
use super::wipe::value::{Private, is_user_data};
use super::wipe::{index, log};
use super::{Error, Tolerance, mft_no};
use crate::event::{Event, Observer};
use crate::extent::{ByteRange, ClusterSet, Extent};
use crate::units::{Geometry, Lcn, Vcn};

/// Bytes at the front of `$LogFile` that are kept: both restart pages and what ntfsclone keeps with them.
const LOG_FRONT: u64 = 16 << 10;

/// Power of two of the first offset in `$LogFile` where drivers look for a restart page; they double it.
const FIRST_LOG_PROBE: u32 = 8;

/// Largest value that is wiped as one: NTFS ends extended attributes at 64 KiB and reparse points at 16 KiB.
const MAX_WHOLE: u64 = 64 << 10;

/// Bytes of a unit of what is wiped only behind its end.
const SMALL_UNIT: u32 = 4096;

/// Sizes of index blocks that are taken seriously.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=2 << 20;

/// What a stream holds, and so how it is wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Something that is kept as it is.
    Plain,
    /// MFT records: `$MFT` itself, or the copies in `$MFTMirr`.
    Records,
    /// Blocks of an index.
    Blocks(index::Kind),
    /// Pages of `$LogFile`.
    Log,
    /// A value of which a part is private.
    Value(Private),
    /// Nothing that is kept: zeros.
    Zeros,
}

/// A stream of metadata.
#[derive(Debug)]
pub struct Stream {
    /// The base record that it belongs to.
    pub mft_no: u64,
    /// Type of the attribute.
    pub kind: u32,
    /// What it holds.
    pub content: Content,
    /// Bytes that are wiped as one; they can lie in several runs.
    pub unit: u32,
    /// Bytes up to its end. What its clusters hold behind that is nobody's.
    pub size: u64,
    /// Of an index: one bit for each block that is part of it. Without it all are.
    blocks_in_use: Option<Box<[u8]>>,
    /// Its runs, by VCN; there may be gaps.
    runs: Vec<Run>,
}

impl Stream {
    /// Is the block at this byte of the stream part of the index?
    pub fn is_in_use(&self, offset: u64) -> bool {
        let Some(bits) = &self.blocks_in_use else { return true };
        let block = offset / u64::from(self.unit);
        let byte = usize::try_from(block / 8).ok().and_then(|at| bits.get(at));
        byte.is_some_and(|byte| byte >> (block % 8) & 1 == 1)
    }

    /// The places of `len` bytes of the stream from `offset` on, each with the distance of its first byte from
    /// `offset`. What is not kept or in a hole has none.
    pub fn places(
        &self,
        geometry: &Geometry,
        offset: u64,
        len: u64,
    ) -> impl Iterator<Item = (u64, ByteRange)> + '_ {
        let cluster_size = u64::from(geometry.cluster_size);
        let end = offset.saturating_add(len);
        let bytes = move |vcn: u64| vcn.saturating_mul(cluster_size);
        let first = self.runs.partition_point(|run| bytes(run.vcn.0 + run.len) <= offset);
        let runs = self.runs.get(first..).unwrap_or_default();
        runs.iter().map_while(move |run| {
            let start = bytes(run.vcn.0).max(offset);
            let until = bytes(run.vcn.0 + run.len).min(end);
            let pos = bytes(run.lcn?.0) + (start - bytes(run.vcn.0));
            (start < until).then(|| (start - offset, ByteRange { pos, len: until - start }))
        })
    }
}

/// What names a stream: base record, type and name of the attribute.
type Key = (u64, u32, Box<[u8]>);

/// Gathers streams while the MFT is swept.
#[derive(Debug)]
pub struct Collector {
    geometry: Geometry,
    record_size: u32,
    /// Bytes of an index block where the index does not say.
    block_size: u32,
    full_logfile: bool,
    streams: BTreeMap<Key, Stream>,
}

impl Collector {
    /// Nothing yet. With `full_logfile` the whole `$LogFile` is kept, as it is.
    pub fn new(volume: &Volume<'_>, full_logfile: bool) -> Collector {
        Collector {
            geometry: volume.info.geometry,
            record_size: volume.mft.record_size() as u32,
            block_size: volume.index_block_size,
            full_logfile,
            streams: BTreeMap::new(),
        }
    }

    /// Takes an attribute of a file whose base record is `base`, whichever record it is in.
    pub fn take(&mut self, base: u64, attribute: &Attribute<'_>) {
        let Attribute { kind, name, .. } = *attribute;
        match (attribute.body, kind) {
            (Body::Resident(root), types::INDEX_ROOT) => {
                // A folder without blocks leaves no stream.
                let block_size = index::block_size(root).filter(|size| *size != self.block_size);
                let valid = block_size.filter(|size| size.is_power_of_two() && BLOCK_SIZES.contains(size));
                if let (Some(size), Some(stream)) = (valid, self.stream(base, types::INDEX_ALLOCATION, name))
                {
                    stream.unit = size;
                }
            }
            (Body::Resident(bits), types::BITMAP) => {
                if !name.is_empty()
                    && let Some(stream) = self.stream(base, types::INDEX_ALLOCATION, name)
                {
                    stream.blocks_in_use = Some(bits.into());
                }
            }
            (Body::Resident(_), _) => {}
            (Body::NonResident { lowest_vcn, data_size, initialized_size, .. }, _) => {
                let geometry = self.geometry;
                let log_in_part = base == mft_no::LOG_FILE && kind == types::DATA && !self.full_logfile;
                let Some(stream) = self.stream(base, kind, name) else { return };
                if lowest_vcn.0 == 0 {
                    stream.set_size(data_size.min(initialized_size), Private::of(kind, name));
                }
                for run in attribute.runs(geometry.nr_clusters).into_iter().flatten() {
                    match run {
                        Ok(Run { lcn: None, .. }) => {}
                        // Nothing begins that far behind the front of a value.
                        Ok(run)
                            if (run.vcn.0 + run.len).checked_mul(geometry.cluster_size.into()).is_none() =>
                        {
                            break;
                        }
                        Ok(run) if log_in_part => stream.add_of_log(run, &geometry),
                        Ok(run) => stream.runs.push(run),
                        // The scan has told of it.
                        Err(_) => break,
                    }
                }
            }
        }
    }

    /// The stream, a new one if it is not there yet; none where it is no metadata.
    fn stream(&mut self, base: u64, kind: u32, name: &[u8]) -> Option<&mut Stream> {
        let (content, unit) = self.content(base, kind, name)?;
        let new = || Stream {
            mft_no: base,
            kind,
            content,
            unit,
            size: u64::MAX,
            blocks_in_use: None,
            runs: Vec::new(),
        };
        Some(self.streams.entry((base, kind, name.into())).or_insert_with(new))
    }

    /// What a stream holds, and the bytes of its unit; none for contents of files.
    fn content(&self, base: u64, kind: u32, name: &[u8]) -> Option<(Content, u32)> {
        let smallest = self.geometry.cluster_size.min(SMALL_UNIT);
        Some(match (base, kind) {
            (mft_no::BAD_CLUS, types::DATA) => return None,
            (base, types::DATA) if is_user_data(base, name) => return None,
            (mft_no::MFT | mft_no::MFT_MIRR, types::DATA) => (Content::Records, self.record_size),
            (mft_no::LOG_FILE, types::DATA) if !self.full_logfile => (Content::Log, log::PAGE as u32),
            (_, types::INDEX_ALLOCATION) => (Content::Blocks(index::Kind::of(name)), self.block_size),
            (_, types::DATA | types::BITMAP | types::ATTRIBUTE_LIST | types::SECURITY_DESCRIPTOR) => {
                (Content::Plain, smallest)
            }
            // A private value is known by its size, which comes with its first piece. Others lie in their records
            // always: whatever this is, it is none of them.
            _ => (Content::Zeros, smallest),
        })
    }

    /// Ends the gathering: reads those bitmaps of indexes that lie in clusters, and puts all runs in order. Where
    /// `tolerance` allows it, an index whose bitmap cannot be read counts as in use throughout, with a warning.
    pub fn conclude(
        mut self,
        volume: &Volume<'_>,
        claimed_twice: ClusterSet,
        tolerance: Tolerance,
        observer: &dyn Observer,
    ) -> Result<Metadata, Error> {
        self.streams.retain(|_, stream| !stream.runs.is_empty());
        let bitmaps =
            self.streams.keys().filter(|(_, kind, name)| *kind == types::BITMAP && !name.is_empty());
        for (base, _, name) in bitmaps.cloned().collect::<Vec<_>>() {
            let blocks = (base, types::INDEX_ALLOCATION, name);
            let Some(stream) = self.streams.get(&blocks) else { continue };
            let nr_bits = stream.nr_units(&self.geometry);
            // Where the sweep has seen all of it, its record is not read again.
            let seen = self.streams.get(&(base, types::BITMAP, blocks.2.clone()));
            let bitmap = match seen.and_then(|bitmap| bitmap.as_value(&self.geometry)) {
                Some(bitmap) => Ok(Some(bitmap)),
                None => volume.mft.value(volume.source, base, types::BITMAP, &blocks.2),
            };
            let bits = match bitmap {
                Ok(Some(bitmap)) => read_bits(volume, &bitmap, nr_bits),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            let Some(stream) = self.streams.get_mut(&blocks) else { continue };
            match bits {
                Ok(bits) => stream.blocks_in_use = Some(bits),
                Err(error) if tolerance.forgives(&error) => {
                    observer.tell(Event::Warning(format_args!(
                        "MFT record {base}: bitmap of the index: {error}"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
        let mut streams: Vec<_> = self.streams.into_values().collect();
        let mut pieces = Vec::new();
        for (nr, stream) in (0..).zip(&mut streams) {
            stream.runs.sort_unstable_by_key(|run| run.vcn);
            pieces.extend(
                stream
                    .runs
                    .iter()
                    .filter_map(|run| Some(Piece { lcn: run.lcn?, len: run.len, vcn: run.vcn, stream: nr })),
            );
        }
        pieces.sort_unstable_by_key(|piece| piece.lcn);
        Ok(Metadata { claimed_twice, streams, pieces })
    }
}

/// The first `nr_bits` bits of a bitmap that lies in clusters, or as many as it has.
fn read_bits(volume: &Volume<'_>, bitmap: &Value, nr_bits: u64) -> Result<Box<[u8]>, Error> {
    let geometry = &volume.info.geometry;
    let size = bitmap.size(geometry).min(nr_bits.div_ceil(8));
    let mut bits = vec![0; size as usize];
    bitmap.read_at(volume.source, geometry, 0, &mut bits)?;
    Ok(bits.into())
}

impl Stream {
    /// Takes the size of the stream, which decides about a value that is private in part.
    fn set_size(&mut self, size: u64, private: Option<Private>) {
        self.size = size;
        if let (Some(private), 0..=MAX_WHOLE) = (private.filter(|private| *private != Private::Whole), size) {
            self.content = Content::Value(private);
            self.unit = (size.max(1) as u32).next_multiple_of(SMALL_UNIT);
        }
    }

    /// The same as a value that can be read; none where pieces of it are missing.
    fn as_value(&self, geometry: &Geometry) -> Option<Value> {
        let mut sorted = self.runs.clone();
        sorted.sort_unstable_by_key(|run| run.vcn);
        let mut runs = RunList::default();
        let is_whole = sorted.into_iter().all(|run| runs.push(run));
        let in_runs = runs.end().0.saturating_mul(geometry.cluster_size.into());
        (is_whole && self.size <= in_runs).then_some(Value::Stream(mft::Stream {
            runs,
            data_size: self.size,
            initialized_size: self.size,
            fault: None,
        }))
    }

    /// How many units its clusters hold, at the most.
    fn nr_units(&self, geometry: &Geometry) -> u64 {
        let nr_clusters: u64 = self.runs.iter().map(|run| run.len).sum();
        nr_clusters.saturating_mul(geometry.cluster_size.into()) / u64::from(self.unit)
    }

    /// Adds what is kept of a run of `$LogFile`.
    fn add_of_log(&mut self, run: Run, geometry: &Geometry) {
        let cluster_size = u64::from(geometry.cluster_size);
        let front = LOG_FRONT.div_ceil(cluster_size);
        let probes = (FIRST_LOG_PROBE..u64::BITS).map(|power| (1 << power) / cluster_size);
        let behind = probes.skip_while(|vcn| *vcn < front).map(|vcn| (vcn, vcn + 1));
        let mut last = None;
        for (start, end) in std::iter::once((0, front)).chain(behind) {
            let (start, end) = (start.max(run.vcn.0), end.min(run.vcn.0 + run.len));
            let in_size = start.saturating_mul(cluster_size) < self.size;
            if start < end && in_size && last != Some(start) {
                last = Some(start);
                let lcn = run.lcn.map(|lcn| Lcn(lcn.0 + start - run.vcn.0));
                self.runs.push(Run { vcn: Vcn(start), lcn, len: end - start });
            }
        }
    }
}

/// A run of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// First cluster.
    pub lcn: Lcn,
    /// Number of clusters.
    pub len: u64,
    /// The first cluster's place in the stream.
    pub vcn: Vcn,
    /// Index of the stream in [`Metadata::streams`].
    pub stream: u32,
}

/// All metadata of a volume.
#[derive(Debug)]
pub struct Metadata {
    /// Clusters that another attribute claims too. They can be a file's: of what does not show by itself what it is,
    /// they are not kept.
    claimed_twice: ClusterSet,
    streams: Vec<Stream>,
    /// By cluster.
    pieces: Vec<Piece>,
}

impl Metadata {
    /// Does another attribute claim this cluster too?
    pub fn is_claimed_twice(&self, lcn: u64) -> bool {
        self.claimed_twice.contains(lcn)
    }

    /// The runs of all streams, by cluster. On a damaged volume they can overlap.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// All streams.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The stream that a piece belongs to.
    pub fn stream_of(&self, piece: &Piece) -> Option<&Stream> {
        self.streams.get(piece.stream as usize)
    }

    /// The clusters of all pieces.
    pub fn clusters(&self, geometry: &Geometry) -> ClusterSet {
        let mut clusters = ClusterSet::new(geometry.nr_clusters);
        for Piece { lcn, len, .. } in &self.pieces {
            clusters.insert_extent(Extent { lcn: *lcn, len: *len });
        }
        clusters
    }
}
