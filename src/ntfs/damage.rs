//! Which files lost something: damaged stretches of a volume told as paths.
//!
//! Two sweeps over the MFT, one for the folders and one for the files, whose runs are compared with the damage. What a
//! file does not show is no loss: what lies behind its end, what was never written, a free block of an index. Memory
//! goes with the number of folders; files are passed on one by one, and a third sweep comes only where the list that leads
//! to a file's name is damaged itself. Meant for a target that is read back, where what is
//! damaged can be read, but holds something else.

use std::fmt;

use super::attr::{Attribute, Body, FileName, listed_pieces, text, types};
use super::mft::Value;
use super::paths::{Folders, Top, has_list, names, names_within, record_path};
use super::record::{Record, mft_no_of};
use super::runs::Run;
use super::scan::is_bad_clusters;
use super::volume::Volume;
use super::wipe::index::block_size;
use super::{Error, mft_no};
use crate::event::{Event, Observer, Phase};
use crate::extent::{ByteRange, ClusterSet, Extent};
use crate::units::{Geometry, Lcn, Vcn};

/// Lost records that are told by their numbers.
pub const MAX_TOLD: usize = 16;

/// Records before this one are NTFS's own.
const FIRST_FREE: u64 = 16;

/// Paths of NTFS's own files with a number that never changes, for where their records are lost.
const OWN: [&str; 12] = [
    "/$MFT",
    "/$MFTMirr",
    "/$LogFile",
    "/$Volume",
    "/$AttrDef",
    "/",
    "/$Bitmap",
    "/$Boot",
    "/$BadClus",
    "/$Secure",
    "/$UpCase",
    "/$Extend",
];

/// Largest bitmap of an index that is looked at: enough for 8 million blocks. In a larger one all blocks count.
const MAX_BITS: u64 = 1 << 20;

/// Damaged sectors of indexes that are compared with the bitmaps; what comes then counts. They are 512 MiB: an index of
/// that size is rare, and one that claims the same clusters again and again comes to an end.
const MAX_LOOKS: u64 = 1 << 20;

/// Sizes of index blocks that are taken seriously.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=2 << 20;

/// What kind of loss it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Contents of a file.
    File,
    /// The list of what is in a folder: it may not be listed in full, or not at all.
    Directory,
    /// Something of NTFS's own.
    Metadata,
}

/// One attribute of a file that lost something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedFile {
    /// The base record's number.
    pub mft_no: u64,
    /// One path, as [`Folders::path`] words it.
    pub path: String,
    /// The other paths, where the file has hard links.
    pub links: Vec<String>,
    /// What Windows puts behind the path and a colon: nothing for the contents, the name of a stream, or name (where
    /// there is one) and type of another attribute, as in `$I30:$INDEX_ALLOCATION`.
    pub stream: String,
    /// Bytes that are lost, at the least: a resident attribute of unknown size in a lost record counts as 0.
    pub bytes: u64,
    /// What kind of loss it is.
    pub kind: Kind,
    /// The base record is lost, and `bytes` is its size. Only those are told that are known in spite of it: NTFS's own
    /// files, folders with contents, files with their name in another record. [`Losses`] counts all.
    pub is_record_lost: bool,
}

/// `path:stream`
impl fmt::Display for DamagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.stream.is_empty() { "" } else { ":" };
        write!(f, "{}{separator}{}", self.path, self.stream)
    }
}

/// What was lost with MFT records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Lost records of which `$MFT`'s own bitmap says that they are in use: of files, or of parts of files.
    pub nr_records: u64,
    /// Lost records of which that bitmap says nothing, because it is damaged there.
    pub nr_unknown: u64,
    /// The numbers of the first ones of both.
    pub first: heapless::Vec<u64, MAX_TOLD>,
}

/// Finds the files of a volume that lost something to `damage`, which are bytes on the volume, ascending and apart.
/// Each attribute is passed on once.
pub fn damaged_files(
    volume: &Volume<'_>,
    damage: &[ByteRange],
    observer: &dyn Observer,
    each: &mut dyn FnMut(DamagedFile),
) -> Result<Losses, Error> {
    let Volume { source, mft, info, .. } = volume;
    let damage = Damage::new(damage);
    let mut lost = ClusterSet::new(mft.nr_records());
    let record_size = mft.record_size() as u64;
    for run in mft.runs() {
        for place in damage.places(&info.geometry, run) {
            let first = place.offset / record_size;
            let len = (place.offset + place.len).div_ceil(record_size) - first;
            lost.insert_extent(Extent { lcn: Lcn(first), len });
        }
    }
    observer.tell(Event::Phase(Phase::Folders));
    let mut folders = Folders::new(mft.nr_records());
    mft.sweep(*source, observer, |mft_no, bytes| {
        if bytes.is_err() {
            lost.insert(mft_no);
        }
        folders.take(volume, mft_no, bytes.ok().filter(|_| !lost.contains(mft_no)));
        Ok(())
    })?;
    let folders = folders.complete();
    observer.tell(Event::Phase(Phase::Files));
    let lost_folders = ClusterSet::new(mft.nr_records());
    let damage = &damage;
    let mut search =
        Search { volume, damage, lost, folders, lost_folders, nr_looks: 0, unnamed: Vec::new(), each };
    mft.sweep(*source, observer, |mft_no, bytes| {
        if !search.lost.contains(mft_no) {
            if let Some(record) = bytes.ok().and_then(|bytes| Record::parse(bytes).ok()) {
                search.visit(mft_no, &record);
            }
        } else if let Some(copy) = mft.read_mirrored(*source, mft_no, &mut vec![0; mft.record_size()]) {
            search.visit(mft_no, &copy);
        }
        Ok(())
    })?;
    if !search.unnamed.is_empty() {
        mft.sweep(*source, observer, |mft_no, bytes| {
            let bytes = bytes.ok().filter(|_| !search.lost.contains(mft_no));
            if let Some(record) = bytes.and_then(|bytes| Record::parse(bytes).ok()).filter(Record::in_use) {
                search.name_from(&record);
            }
            Ok(())
        })?;
        search.unnamed.drain(..).for_each(&mut *search.each);
    }
    Ok(search.tell_lost_records())
}

/// A damaged place of a stream, in bytes.
struct Place {
    offset: u64,
    len: u64,
}

/// The damage, prepared for questions.
struct Damage<'d> {
    ranges: &'d [ByteRange],
    /// The damaged bytes before each range, and in the end all of them.
    before: Vec<u64>,
}

impl<'d> Damage<'d> {
    fn new(ranges: &'d [ByteRange]) -> Damage<'d> {
        let mut before = vec![0];
        let mut sum = 0;
        before.extend(ranges.iter().map(|range| {
            sum += range.len;
            sum
        }));
        Damage { ranges, before }
    }

    /// Damaged bytes before `pos`.
    fn until(&self, pos: u64) -> u64 {
        let behind = self.ranges.partition_point(|range| range.pos < pos);
        let (Some(at), Some(sum)) = (behind.checked_sub(1), self.before.get(behind)) else { return 0 };
        let rest = self.ranges.get(at).map_or(0, |range| range.end().saturating_sub(pos));
        sum - rest
    }

    /// Damaged bytes among these.
    fn bytes_in(&self, pos: u64, len: u64) -> u64 {
        self.until(pos.saturating_add(len)) - self.until(pos)
    }

    /// The damaged places of a stream in one of its runs.
    fn places(&self, geometry: &Geometry, run: &Run) -> impl Iterator<Item = Place> {
        let cluster_size = u64::from(geometry.cluster_size);
        let range = run.extent().map_or(ByteRange { pos: 0, len: 0 }, |extent| ByteRange {
            pos: geometry.pos(extent.lcn),
            len: extent.len * cluster_size,
        });
        let start = run.vcn.0.saturating_mul(cluster_size);
        let first = self.ranges.partition_point(move |damaged| damaged.end() <= range.pos);
        let ranges = self.ranges.get(first..).unwrap_or_default();
        ranges.iter().take_while(move |damaged| damaged.pos < range.end()).map(move |damaged| {
            let pos = damaged.pos.max(range.pos);
            let len = damaged.end().min(range.end()) - pos;
            Place { offset: start.saturating_add(pos - range.pos), len }
        })
    }
}

struct Search<'v> {
    volume: &'v Volume<'v>,
    damage: &'v Damage<'v>,
    /// Records that are damaged or cannot be read.
    lost: ClusterSet,
    folders: Folders,
    /// Lost records that others name as their folder.
    lost_folders: ClusterSet,
    /// See [`MAX_LOOKS`].
    nr_looks: u64,
    /// Files whose names were not found through their lists.
    unnamed: Vec<DamagedFile>,
    each: &'v mut dyn FnMut(DamagedFile),
}

/// A base record.
#[derive(Clone, Copy)]
struct Base<'r> {
    mft_no: u64,
    record: Record<'r>,
}

impl<'v> Search<'v> {
    /// Takes one record of the sweep.
    fn visit(&mut self, mft_no: u64, record: &Record<'_>) {
        if !record.in_use() {
            return;
        }
        for name in record.attributes().flatten().filter_map(|attribute| FileName::of(&attribute)) {
            let parent = mft_no_of(name.parent);
            if self.lost.contains(parent) {
                self.lost_folders.insert(parent);
            }
        }
        if let Some(base) = record.base_mft_no() {
            // Its attributes are looked at through the list of its base record. Without that the name is what is left.
            if self.lost.contains(base) {
                self.tell_lost_base(base, record);
            }
            return;
        }
        let base = Base { mft_no, record: *record };
        let listed = has_list(record);
        for attribute in record.attributes().flatten() {
            if !listed || attribute.kind == types::ATTRIBUTE_LIST {
                let mut loss = self.no_loss(attribute.kind, attribute.name);
                loss.add(mft_no, &attribute, &mut self.nr_looks);
                self.finish(base, loss);
            }
        }
        if listed {
            self.visit_listed(base);
        }
    }

    /// Passes on the file of a lost base record, if this extension of it has its names.
    fn tell_lost_base(&mut self, base: u64, record: &Record<'_>) {
        let mut paths = names_within(record).into_iter().map(|name| self.folders.path(&name));
        let Some(path) = paths.next() else { return };
        let links = paths.collect();
        let bytes = self.volume.mft.record_size() as u64;
        (self.each)(DamagedFile {
            mft_no: base,
            path,
            links,
            stream: String::new(),
            bytes,
            kind: Kind::File,
            is_record_lost: true,
        });
    }

    /// Looks at the attributes that the list of a base record names.
    fn visit_listed(&mut self, base: Base<'_>) {
        let Volume { source, mft, .. } = self.volume;
        let Ok(mut list) = mft.attribute_list(*source, base.mft_no, &base.record) else { return };
        // From a damaged byte on it makes no sense; that the file has a damaged list was told.
        if let Some(damaged) = self.first_damaged(base) {
            list.truncate(usize::try_from(damaged).unwrap_or(usize::MAX));
        }
        let mut buf = vec![0; mft.record_size()];
        // The record that was read last, and whether it is in `buf`.
        let mut held = (base.mft_no, false);
        let mut loss: Option<Loss<'_, '_>> = None;
        for piece in listed_pieces(&list).filter(|piece| piece.kind != types::ATTRIBUTE_LIST) {
            if let Some(other) = loss.take_if(|loss| (loss.kind, loss.name) != (piece.kind, piece.name)) {
                self.finish(base, other);
            }
            let loss = loss.get_or_insert_with(|| self.no_loss(piece.kind, piece.name));
            let holder = mft_no_of(piece.reference);
            if holder != base.mft_no && self.lost.contains(holder) {
                loss.miss(piece.lowest_vcn);
                continue;
            }
            if holder != base.mft_no && held.0 != holder {
                held = (holder, mft.read_listed(*source, holder, base.mft_no, &mut buf).is_ok());
            }
            let record = match holder == base.mft_no {
                true => Some(base.record),
                false => Some(&buf).filter(|_| held.1).and_then(|buf| Record::view(buf).ok()),
            };
            let found = record.and_then(|record| {
                record.attributes().flatten().find(|attribute| {
                    (attribute.kind, attribute.name) == (piece.kind, piece.name)
                        && lowest_vcn(attribute) == piece.lowest_vcn
                })
            });
            if let Some(attribute) = found {
                loss.add(base.mft_no, &attribute, &mut self.nr_looks);
            }
        }
        if let Some(loss) = loss {
            self.finish(base, loss);
        }
    }

    /// The first damaged byte of a base record's attribute list.
    fn first_damaged(&self, base: Base<'_>) -> Option<u64> {
        let geometry = &self.volume.info.geometry;
        let attributes = base.record.attributes().flatten();
        let lists = attributes.filter(|attribute| attribute.kind == types::ATTRIBUTE_LIST);
        let mut runs = lists.filter_map(|list| list.runs(geometry.nr_clusters)).flatten().flatten();
        runs.find_map(|run| self.damage.places(geometry, &run).next().map(|place| place.offset))
    }

    /// Nothing lost yet.
    fn no_loss<'n>(&self, kind: u32, name: &'n [u8]) -> Loss<'n, 'v> {
        Loss::new(self.damage, self.volume.info.geometry, kind, name)
    }

    /// An attribute was seen as a whole: passes on what it lost.
    fn finish(&mut self, base: Base<'_>, mut loss: Loss<'_, '_>) {
        loss.end();
        if !loss.places.is_empty() {
            let in_use = Blocks::read(self, base.mft_no, loss.name);
            loss.bytes += loss.places.iter().map(|place| in_use.bytes_in(place)).sum::<u64>();
        }
        if loss.bytes == 0 && !loss.is_piece_lost {
            return;
        }
        let names = names(self.volume, base.mft_no, &base.record);
        let in_extend = names.iter().any(|name| {
            let way = self.folders.way(name.parent);
            way.folders.contains(&mft_no::EXTEND) || way.top == Top::Record(mft_no::EXTEND)
        });
        let is_own = base.mft_no < FIRST_FREE && base.mft_no != mft_no::ROOT;
        let kind = match loss.kind {
            _ if in_extend || is_own => Kind::Metadata,
            types::DATA => Kind::File,
            _ if base.record.is_folder() => Kind::Directory,
            _ => Kind::File,
        };
        let mut paths = self.folders.paths(base.mft_no, &names).into_iter();
        let first = paths.next();
        let is_unnamed = first.is_none() && has_list(&base.record);
        let file = DamagedFile {
            mft_no: base.mft_no,
            path: first.unwrap_or_else(|| record_path(base.mft_no)),
            links: paths.collect(),
            stream: stream_name(loss.kind, loss.name),
            bytes: loss.bytes,
            kind,
            is_record_lost: false,
        };
        if is_unnamed {
            self.unnamed.push(file);
        } else {
            (self.each)(file);
        }
    }

    /// Takes one extension record of another sweep, for the names of files whose lists do not lead to it any more.
    fn name_from(&mut self, record: &Record<'_>) {
        let Some(base) = record.base_mft_no() else { return };
        // They came in the order of their numbers.
        let first = self.unnamed.partition_point(|file| file.mft_no < base);
        for file in self.unnamed.iter_mut().skip(first).take_while(|file| file.mft_no == base) {
            for name in names_within(record) {
                let path = self.folders.path(&name);
                match file.path == record_path(file.mft_no) {
                    true => file.path = path,
                    false => file.links.push(path),
                }
            }
        }
    }

    /// Counts the lost records and passes on those of folders and of NTFS's own files.
    fn tell_lost_records(self) -> Losses {
        let Search { volume, damage, lost, lost_folders, each, .. } = self;
        let bytes = volume.mft.record_size() as u64;
        let mut losses = Losses::default();
        let mut bitmap = RecordBitmap::open(volume, damage);
        for mft_no in lost.extents().flat_map(|extent| extent.lcn.0..extent.end()) {
            let counted = match bitmap.is_in_use(mft_no) {
                Some(false) => continue,
                Some(true) => &mut losses.nr_records,
                None => &mut losses.nr_unknown,
            };
            *counted += 1;
            // Whoever wants all of them has the count.
            let _full = losses.first.push(mft_no);
            let own = usize::try_from(mft_no).ok().and_then(|at| OWN.get(at));
            let is_folder = mft_no == mft_no::ROOT || own.is_none() && lost_folders.contains(mft_no);
            if is_folder || own.is_some() {
                each(DamagedFile {
                    mft_no,
                    path: own.map_or_else(|| record_path(mft_no), |path| (*path).to_owned()),
                    links: Vec::new(),
                    stream: String::new(),
                    bytes,
                    kind: if is_folder { Kind::Directory } else { Kind::Metadata },
                    is_record_lost: true,
                });
            }
        }
        losses
    }
}

fn lowest_vcn(attribute: &Attribute<'_>) -> Vcn {
    match attribute.body {
        Body::Resident(_) => Vcn(0),
        Body::NonResident { lowest_vcn, .. } => lowest_vcn,
    }
}

/// What stands behind a path for an attribute.
fn stream_name(kind: u32, name: &[u8]) -> String {
    let name: String = text(name).collect();
    match (kind, types::name(kind)) {
        (types::DATA, _) => name,
        (_, Some(kind)) => format!("{name}:{kind}"),
        (kind, None) => format!("{name}:{kind:#x}"),
    }
}

/// What one attribute lost, while its pieces are seen in their order.
struct Loss<'n, 'd> {
    damage: &'d Damage<'d>,
    geometry: Geometry,
    kind: u32,
    /// UTF-16LE.
    name: &'n [u8],
    /// Bytes that a reader gets to see; unknown until the first piece was seen.
    size: Option<u64>,
    /// What is compressed as one, where anything is.
    unit: Option<Unit>,
    /// VCN behind what was seen, in order.
    end: Vcn,
    /// From here on pieces are missing.
    missing: Option<Vcn>,
    is_piece_lost: bool,
    /// Bytes lost so far.
    bytes: u64,
    /// In an index: damage that counts only where blocks are in use.
    places: Vec<Place>,
}

/// Clusters of a stream that are compressed as one, unless all of them are there: then nothing was saved by it, and they
/// are as they would be without.
#[derive(Clone, Copy, Default)]
struct Unit {
    /// Clusters of each unit.
    len: u64,
    /// Number of the one that is seen.
    number: u64,
    nr_present: u64,
    /// Damaged bytes, and those of them that count where it is not compressed.
    damaged: u64,
    counting: u64,
}

impl<'n, 'd> Loss<'n, 'd> {
    fn new(damage: &'d Damage<'d>, geometry: Geometry, kind: u32, name: &'n [u8]) -> Loss<'n, 'd> {
        Loss {
            damage,
            geometry,
            kind,
            name,
            size: None,
            unit: None,
            end: Vcn(0),
            missing: None,
            is_piece_lost: false,
            bytes: 0,
            places: Vec::new(),
        }
    }

    /// Takes a piece. `nr_looks` is what [`MAX_LOOKS`] limits.
    fn add(&mut self, base: u64, piece: &Attribute<'_>, nr_looks: &mut u64) {
        let Body::NonResident { lowest_vcn, data_size, initialized_size, unit, .. } = piece.body else {
            return;
        };
        // Pieces out of their order would count twice.
        if lowest_vcn < self.end || is_bad_clusters(base, piece) {
            return;
        }
        if lowest_vcn.0 == 0 {
            self.size = Some(data_size.min(initialized_size));
            self.unit = piece.is_compressed.then_some(Unit { len: unit, ..Unit::default() });
        }
        if let Some(from) = self.missing.take() {
            self.lose(from, lowest_vcn);
        }
        for run in piece.runs(self.geometry.nr_clusters).into_iter().flatten().flatten() {
            self.end = Vcn(run.vcn.0 + run.len);
            if self.unit.is_some() {
                self.add_compressed(run);
            } else if self.kind == types::INDEX_ALLOCATION && *nr_looks < MAX_LOOKS {
                for place in self.damage.places(&self.geometry, &run) {
                    *nr_looks += place.len.div_ceil(512);
                    self.places.push(place);
                }
            } else {
                self.bytes += self.counting(run);
            }
        }
    }

    /// Damaged bytes of a run that a reader would get to see.
    fn counting(&self, run: Run) -> u64 {
        let Some(extent) = run.extent() else { return 0 };
        let seen = self.size.unwrap_or(u64::MAX).saturating_sub(self.offset(run.vcn));
        self.damage.bytes_in(self.geometry.pos(extent.lcn), seen.min(self.bytes_of(extent)))
    }

    /// First byte of a cluster in the stream.
    fn offset(&self, vcn: Vcn) -> u64 {
        vcn.0.saturating_mul(self.geometry.cluster_size.into())
    }

    fn bytes_of(&self, extent: Extent) -> u64 {
        extent.len * u64::from(self.geometry.cluster_size)
    }

    /// Takes a run of a stream that is compressed: to the end of the unit that was begun, whole units, the begin of the
    /// next one.
    fn add_compressed(&mut self, run: Run) {
        let Some(Unit { len, .. }) = self.unit else { return };
        let ahead = (len - run.vcn.0 % len) % len;
        let (first, rest) = split(run, ahead);
        let (whole, last) = rest.map_or((None, None), |rest| split(rest, rest.len / len * len));
        for part in [first, last].into_iter().flatten() {
            self.add_to_unit(part);
        }
        // What is whole lies between the two, and neither counts with it.
        if let Some(whole) = whole {
            self.bytes += self.counting(whole);
        }
    }

    fn add_to_unit(&mut self, part: Run) {
        let counting = self.counting(part);
        let Some(mut unit) = self.unit else { return };
        let number = part.vcn.0 / unit.len;
        if number != unit.number {
            self.end_unit();
            unit = Unit { len: unit.len, number, ..Unit::default() };
        }
        if let Some(extent) = part.extent() {
            unit.nr_present += extent.len;
            unit.counting += counting;
            unit.damaged += self.damage.bytes_in(self.geometry.pos(extent.lcn), self.bytes_of(extent));
        }
        self.unit = Some(unit);
    }

    /// A unit was seen as a whole.
    fn end_unit(&mut self) {
        let Some(unit) = self.unit else { return };
        if unit.nr_present >= unit.len {
            self.bytes += unit.counting;
        } else if unit.damaged > 0 {
            let first = unit.number * unit.len;
            self.lose(Vcn(first), Vcn(first.saturating_add(unit.len)));
        }
    }

    /// A piece of it, which begins here, is in a record that is lost.
    fn miss(&mut self, lowest_vcn: Vcn) {
        self.missing.get_or_insert(lowest_vcn);
        self.is_piece_lost = true;
    }

    /// All of these clusters are lost, as far as a reader would get to see them.
    fn lose(&mut self, from: Vcn, to: Vcn) {
        let bytes = |vcn: Vcn| self.offset(vcn).min(self.size.unwrap_or(u64::MAX));
        self.bytes = self.bytes.saturating_add(bytes(to).saturating_sub(bytes(from)));
    }

    /// All pieces were seen.
    fn end(&mut self) {
        self.end_unit();
        if let (Some(from), Some(_)) = (self.missing, self.size) {
            self.lose(from, Vcn(u64::MAX));
        }
    }
}

/// The first `len` clusters of a run, and the others.
fn split(run: Run, len: u64) -> (Option<Run>, Option<Run>) {
    let len = len.min(run.len);
    let first = Run { len, ..run };
    let rest =
        Run { vcn: Vcn(run.vcn.0 + len), lcn: run.lcn.map(|lcn| Lcn(lcn.0 + len)), len: run.len - len };
    let some = |run: Run| Some(run).filter(|run| run.len > 0);
    (some(first), some(rest))
}

/// Which blocks of an index are in use.
struct Blocks {
    block_size: u64,
    /// Without it all are.
    bits: Option<Vec<u8>>,
}

impl Blocks {
    /// Reads the bitmap of the index called `name`. What of it is damaged counts as in use.
    fn read(search: &Search<'_>, mft_no: u64, name: &[u8]) -> Blocks {
        let Volume { source, mft, info, .. } = search.volume;
        let value = |kind| mft.value(*source, mft_no, kind, name).ok().flatten();
        let root = match value(types::INDEX_ROOT) {
            Some(Value::Resident(root)) => root,
            _ => Vec::new(),
        };
        let block_size = block_size(&root).filter(|size| BLOCK_SIZES.contains(size));
        let block_size =
            block_size.unwrap_or(search.volume.index_block_size).max(*BLOCK_SIZES.start()).into();
        let bits = value(types::BITMAP).and_then(|bitmap| {
            let size = bitmap.size(&info.geometry);
            let mut bits = vec![0; usize::try_from(size).ok().filter(|_| size <= MAX_BITS)?];
            bitmap.read_at(*source, &info.geometry, 0, &mut bits).ok()?;
            let runs = match &bitmap {
                Value::Resident(_) => &[],
                Value::Stream(stream) => stream.runs.runs(),
            };
            for place in runs.iter().flat_map(|run| search.damage.places(&info.geometry, run)) {
                let (skip, take) = (place.offset as usize, place.len as usize);
                bits.iter_mut().skip(skip).take(take).for_each(|byte| *byte = 0xff);
            }
            Some(bits)
        });
        Blocks { block_size, bits }
    }

    /// Bytes of a damaged place that lie in blocks in use.
    fn bytes_in(&self, place: &Place) -> u64 {
        let Some(bits) = &self.bits else { return place.len };
        let end = place.offset.saturating_add(place.len);
        let nr_known = bits.len() as u64 * 8;
        let first = place.offset / self.block_size;
        // The bitmap ends with the index.
        let blocks = first..end.div_ceil(self.block_size).min(nr_known);
        let in_use = blocks
            .filter(|block| bits.get((block / 8) as usize).is_some_and(|byte| byte >> (block % 8) & 1 == 1));
        in_use
            .map(|block| {
                let start = block * self.block_size;
                (start + self.block_size).min(end) - start.max(place.offset)
            })
            .sum()
    }
}

/// `$MFT`'s own bitmap: which records belong to a file.
struct RecordBitmap<'v> {
    volume: &'v Volume<'v>,
    damage: &'v Damage<'v>,
    bitmap: Option<Value>,
    /// The piece that was read last: its number, and its bytes where it could be read.
    piece: Option<(u64, Option<[u8; PIECE]>)>,
}

/// Bytes of a bitmap that are read as one: a sector.
const PIECE: usize = 512;

impl<'v> RecordBitmap<'v> {
    fn open(volume: &'v Volume<'v>, damage: &'v Damage<'v>) -> RecordBitmap<'v> {
        let bitmap = volume.mft.value(volume.source, mft_no::MFT, types::BITMAP, &[]).ok().flatten();
        RecordBitmap { volume, damage, bitmap, piece: None }
    }

    /// Is this record in use? None where nothing says it.
    fn is_in_use(&mut self, mft_no: u64) -> Option<bool> {
        let byte = mft_no / 8;
        if byte >= self.bitmap.as_ref()?.size(&self.volume.info.geometry) {
            return None;
        }
        let number = byte / PIECE as u64;
        let piece = match self.piece {
            Some((at, piece)) if at == number => piece,
            _ => self.read(number),
        };
        self.piece = Some((number, piece));
        if self.is_damaged(byte) {
            return None;
        }
        piece?.get((byte % PIECE as u64) as usize).map(|bits| bits >> (mft_no % 8) & 1 == 1)
    }

    fn read(&self, number: u64) -> Option<[u8; PIECE]> {
        let Volume { source, info, .. } = self.volume;
        let bitmap = self.bitmap.as_ref()?;
        let at = number * PIECE as u64;
        let len = bitmap.size(&info.geometry).checked_sub(at)?.min(PIECE as u64);
        let mut piece = [0; PIECE];
        bitmap.read_at(*source, &info.geometry, at, piece.get_mut(..len as usize)?).ok()?;
        Some(piece)
    }

    fn is_damaged(&self, byte: u64) -> bool {
        let Some(Value::Stream(stream)) = &self.bitmap else { return false };
        let place = stream.runs.locate(&self.volume.info.geometry, byte);
        place.and_then(|(pos, _)| pos).is_some_and(|pos| self.damage.bytes_in(pos, 1) > 0)
    }
}

#[cfg(test)]
mod tests;
