//! Reading an image, from a file or a pipe: header, then commands one after the other, then perhaps a trailer, by which
//! all before it is checked.
//!
//! Where the trailer is known before, as in a file, damage is found when its stretch is over. Else it is found at the
//! end.

use std::fmt;
use std::io::{self, Read};

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use super::sums::{MAX_STRETCHES, SumTable, Sums};
use super::trailer::{self, Trailer, TrailerError};
use super::{DATA, Header, HeaderError, ImageInfo, MAGIC, SKIP};
use crate::units::Geometry;

/// An image that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The header makes no sense.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The system refused a read.
    #[error("cannot read the image at its byte {at:#x}: {cause}")]
    Read {
        /// Place in the image.
        at: u64,
        /// What the system said.
        cause: io::Error,
    },
    /// The image ends too early.
    #[error("image is cut off at its byte {at:#x}: it ends in {what} of cluster {lcn} of {nr_clusters}")]
    CutOff {
        /// Where it ends.
        at: u64,
        /// What was to come.
        what: &'static str,
        /// The cluster it stands at.
        lcn: u64,
        /// Clusters of the volume.
        nr_clusters: u64,
    },
    /// A command byte that does not exist.
    #[error(
        "image is damaged at its byte {at:#x}: found command {found:#04x} for cluster {lcn}, wanted 0 or 1"
    )]
    Command {
        /// Place in the image.
        at: u64,
        /// The byte.
        found: u8,
        /// The cluster it stands at.
        lcn: u64,
    },
    /// Commands make no sense, and by the checksums it is known where.
    #[error("{cause}; the damage is in {stretch}")]
    Within {
        /// What makes no sense.
        cause: Box<ImageError>,
        /// Where the damage is.
        stretch: Box<Stretch>,
    },
    /// The header is not as it was written.
    #[error(
        "image is damaged in its header, the bytes 0x0 to {:#x}: CRC-32 is {found:08x}, wanted {wanted:08x}",
        len.saturating_sub(1)
    )]
    HeaderSum {
        /// Bytes of the header.
        len: u32,
        /// CRC-32 of what is there.
        found: u32,
        /// CRC-32 of what was written.
        wanted: u32,
    },
    /// A stretch is not as it was written.
    #[error("image is damaged in {stretch}: CRC-32 is {found:08x}, wanted {wanted:08x}")]
    StretchSum {
        /// Which one.
        stretch: Box<Stretch>,
        /// CRC-32 of what is there.
        found: u32,
        /// CRC-32 of what was written.
        wanted: u32,
    },
    /// All bytes are as they were written, but not taken for what they were.
    #[error("image is damaged: CRC-32 of its commands is {found:08x}, wanted {wanted:08x}")]
    StructureSum {
        /// CRC-32 of what is there.
        found: u32,
        /// CRC-32 of what was written.
        wanted: u32,
    },
    /// The commands end elsewhere than they did.
    #[error("image is damaged: its commands end at its byte {at:#x}, wanted {wanted:#x}")]
    Len {
        /// Where they end.
        at: u64,
        /// Where they should.
        wanted: u64,
    },
    /// What checks the image is damaged itself.
    #[error(
        "the checksums of the image, from its byte {at:#x} on, are damaged: {cause}; --no-checksum does without them"
    )]
    Trailer {
        /// Where they begin.
        at: u64,
        /// What is wrong with them.
        cause: TrailerError,
    },
    /// A skip to where no cluster is.
    #[error(
        "image is damaged at its byte {at:#x}: skip of {count} clusters from cluster {lcn} of {nr_clusters}"
    )]
    Skip {
        /// Place in the image.
        at: u64,
        /// The count.
        count: i64,
        /// The cluster it stands at.
        lcn: u64,
        /// Clusters of the volume.
        nr_clusters: u64,
    },
}

impl ImageError {
    /// Does the image end too early?
    pub fn is_cut_off(&self) -> bool {
        match self {
            ImageError::CutOff { .. } => true,
            ImageError::Trailer { cause, .. } => matches!(cause, TrailerError::CutOff { .. }),
            // So say those who decompress it.
            ImageError::Read { cause, .. } => cause.kind() == io::ErrorKind::UnexpectedEof,
            _ => false,
        }
    }
}

/// A stretch of an image that has a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its number, counted from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// Its first and its last byte in the image.
    pub bytes: (u64, u64),
    /// The first and the last cluster of the volume in it.
    pub clusters: (u64, u64),
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stretch { number, of, bytes: (from, to), clusters: (first, last) } = self;
        write!(f, "stretch {number} of {of}, its bytes {from:#x} to {to:#x}, clusters {first} to {last}")
    }
}

/// Sums what is read, and compares.
#[derive(Debug)]
struct Checks {
    sums: Sums,
    /// The first and the last cluster in each stretch so far.
    clusters: Vec<(u64, u64)>,
    /// How long these stretches are.
    shift: u32,
    /// What the image should be, if that is known before its end.
    wanted: Option<Trailer>,
}

impl Checks {
    fn new(wanted: Option<Trailer>) -> Checks {
        let sums = wanted.as_ref().map_or_else(Sums::default, |wanted| Sums::with_shift(wanted.sums.shift));
        let clusters = Vec::with_capacity(MAX_STRETCHES + 1);
        Checks { shift: sums.shift(), sums, clusters, wanted }
    }

    /// Takes the next bytes, which belong to the cluster `lcn`.
    fn take(&mut self, bytes: &[u8], lcn: u64) -> Result<(), ImageError> {
        let begins_stretch = self.sums.len().is_multiple_of(1 << self.shift);
        let nr_over = self.sums.over().len();
        self.sums.update(bytes);
        if let Some(last) = self.clusters.last_mut().filter(|_| !begins_stretch) {
            last.1 = lcn;
        }
        if self.sums.shift() != self.shift {
            let pairs = self.clusters.len() / 2;
            for at in 0..pairs {
                if let Some([(first, _), (_, last)]) = self.clusters.get(2 * at..2 * at + 2) {
                    let both = (*first, *last);
                    self.clusters.iter_mut().skip(at).take(1).for_each(|pair| *pair = both);
                }
            }
            self.clusters.truncate(pairs);
            self.shift = self.sums.shift();
        }
        self.clusters.resize(self.sums.over().len() + 1, (lcn, lcn));
        match &self.wanted {
            Some(wanted) => (nr_over..self.sums.over().len())
                .try_for_each(|index| self.compare_stretch(index, self.sums.over().get(index), &wanted.sums)),
            None => Ok(()),
        }
    }

    /// A stretch of an image that should be as `wanted`, counted from 0.
    fn stretch(&self, index: usize, wanted: &SumTable) -> Stretch {
        let of = wanted.stretches.len();
        let index = index.min(of.saturating_sub(1));
        let from = (index as u64) << wanted.shift;
        let to = from.saturating_add(1 << wanted.shift).min(wanted.image_len);
        let clusters = self.clusters.get(index).or(self.clusters.last()).copied().unwrap_or_default();
        Stretch { number: index + 1, of, bytes: (from, to.saturating_sub(1)), clusters }
    }

    fn compare_stretch(
        &self,
        index: usize,
        found: Option<&u32>,
        wanted: &SumTable,
    ) -> Result<(), ImageError> {
        match (found, wanted.stretches.get(index)) {
            (Some(found), Some(right)) if found != right => Err(ImageError::StretchSum {
                stretch: Box::new(self.stretch(index, wanted)),
                found: *found,
                wanted: *right,
            }),
            _ => Ok(()),
        }
    }

    fn compare_header(&self, found: &SumTable, wanted: &SumTable) -> Result<(), ImageError> {
        if (found.header_len, found.header) == (wanted.header_len, wanted.header) {
            return Ok(());
        }
        Err(ImageError::HeaderSum { len: wanted.header_len, found: found.header, wanted: wanted.header })
    }

    /// Compares all that was read with what it should be.
    fn compare(&self, wanted: &SumTable) -> Result<(), ImageError> {
        let found = self.sums.table();
        self.compare_header(&found, wanted)?;
        if found.shift == wanted.shift {
            let mut all = found.stretches.iter().enumerate();
            all.try_for_each(|(index, sum)| self.compare_stretch(index, Some(sum), wanted))?;
        }
        if found.image_len != wanted.image_len {
            return Err(ImageError::Len { at: found.image_len, wanted: wanted.image_len });
        }
        if found.structure != wanted.structure {
            return Err(ImageError::StructureSum { found: found.structure, wanted: wanted.structure });
        }
        Ok(())
    }
}

/// An image that is being read. It hands out the bytes of the volume in the image's order.
#[derive(Debug)]
pub struct ImageReader<R> {
    input: R,
    /// What the header says.
    pub info: ImageInfo,
    /// Place in the image.
    at: u64,
    /// The cluster that the next command is for.
    lcn: u64,
    /// Bytes of the cluster before it that are still to come, and the position of the first of them.
    left: u32,
    pos: u64,
    lacks_extra: bool,
    /// Clusters with data so far, the extra one too.
    nr_data: u64,
    checks: Option<Checks>,
}

/// Bytes that are read at once in search of a trailer.
const SEARCH: usize = 256 << 10;

/// How often what looks like a trailer is looked into. Nobody but an attacker has so many.
const MAX_TRIES: usize = 1000;

impl<R: Read> ImageReader<R> {
    /// Reads and checks the header. Checksums are left alone.
    pub fn open(input: R) -> Result<ImageReader<R>, ImageError> {
        ImageReader::begin(input, None)
    }

    /// The same, and sums all that is read, to be compared in the end; or on the way, if the trailer is known already.
    pub fn open_checked(input: R, known: Option<Trailer>) -> Result<ImageReader<R>, ImageError> {
        ImageReader::begin(input, Some(Checks::new(known)))
    }

    fn begin(input: R, checks: Option<Checks>) -> Result<ImageReader<R>, ImageError> {
        let geometry = Geometry { cluster_size: 0, nr_clusters: 0, device_size: 0 };
        let info = ImageInfo { version: (0, 0), geometry, nr_used: 0, data_offset: 0 };
        let mut reader = ImageReader {
            input,
            info,
            at: 0,
            lcn: 0,
            left: 0,
            pos: 0,
            lacks_extra: false,
            nr_data: 0,
            checks,
        };
        let mut bytes = [0; Header::LEN];
        if !reader.fill(&mut bytes)? {
            let there = bytes.get(..reader.at as usize).unwrap_or_default();
            let begins_well = MAGIC.iter().zip(there).all(|(magic, byte)| magic == byte);
            return Err(if begins_well { reader.cut_off("the header") } else { HeaderError::Magic.into() });
        }
        let header = Header::read_from_bytes(&bytes).map_err(|_| HeaderError::Magic)?;
        // First without the offset: a file that is no image need not be long enough for one.
        reader.info = header.check(None)?;
        if header.names_offset() {
            let mut offset = U32::ZERO;
            if !reader.fill(offset.as_mut_bytes())? {
                return Err(reader.cut_off("the header"));
            }
            reader.info = header.check(Some(offset.get()))?;
        }
        while reader.at < reader.info.data_offset.into() {
            if !reader.fill(&mut [0])? {
                return Err(reader.cut_off("the header"));
            }
        }
        if let Some(checks) = &mut reader.checks {
            checks.sums.end_header();
            if let Some(wanted) = &checks.wanted {
                checks.compare_header(&checks.sums.table(), &wanted.sums)?;
            }
        }
        Ok(reader)
    }

    /// Fills `buf` with as many of the next clusters as follow each other without a skip; the extra cluster comes
    /// alone. Returns the position on the volume and the number of bytes, none at the image's end. `buf` may be
    /// smaller than a cluster.
    pub fn next(&mut self, buf: &mut [u8]) -> Result<Option<(u64, usize)>, ImageError> {
        self.next_stretch(buf).map_err(|error| self.placed(error))
    }

    /// Says where the damage is, if that is known: all stretches that are over are good.
    fn placed(&self, error: ImageError) -> ImageError {
        use ImageError::{Command, CutOff, Skip};
        let known = self.checks.as_ref().and_then(|checks| Some((checks, checks.wanted.as_ref()?)));
        match (known, &error) {
            (Some((checks, wanted)), CutOff { .. } | Command { .. } | Skip { .. }) => {
                let stretch = checks.stretch(checks.sums.over().len(), &wanted.sums);
                ImageError::Within { cause: Box::new(error), stretch: Box::new(stretch) }
            }
            _ => error,
        }
    }

    fn next_stretch(&mut self, buf: &mut [u8]) -> Result<Option<(u64, usize)>, ImageError> {
        let mut start = None;
        let mut filled = 0;
        while filled < buf.len() {
            if self.left == 0 && !self.next_cluster(start.is_some())? {
                break;
            }
            let n = (buf.len() - filled).min(self.left as usize);
            let part = buf.get_mut(filled..filled + n).unwrap_or_default();
            if !self.fill(part)? {
                return Err(self.cut_off("the data"));
            }
            start = start.or(Some(self.pos));
            filled += n;
            self.left -= n as u32;
            self.pos += n as u64;
        }
        Ok(start.map(|pos| (pos, filled)))
    }

    /// Did the image end exactly before the extra cluster? Such images have no backup boot sector.
    pub fn lacks_extra(&self) -> bool {
        self.lacks_extra
    }

    /// What it is read from, to be read on when the image is over. The error says that the image cannot be read.
    pub fn read_on_with<T>(&mut self, read: impl FnOnce(&mut R) -> io::Result<T>) -> Result<T, ImageError> {
        read(&mut self.input).map_err(|cause| ImageError::Read { at: self.at, cause })
    }

    /// Reads what follows the last command, and compares the image with the checksums there. None where it has none, or
    /// where it was opened without them.
    pub fn conclude(&mut self) -> Result<Option<Trailer>, ImageError> {
        let Some(mut checks) = self.checks.take() else { return Ok(None) };
        if let Some(known) = checks.wanted.take() {
            checks.compare(&known.sums)?;
            return Ok(Some(known));
        }
        let at = self.at;
        let damaged = |cause| ImageError::Trailer { at, cause };
        let mut follows = Vec::new();
        self.read_on(&mut follows, trailer::MAX_LEN)?;
        if trailer::is_begun(&follows) {
            let trailer = Trailer::decode(&follows).map_err(damaged)?;
            checks.compare(&trailer.sums)?;
            return Ok(Some(trailer));
        }
        if trailer::is_stump(&follows) {
            let cause = TrailerError::CutOff { found: follows.len(), wanted: trailer::MAX_LEN };
            return Err(damaged(cause));
        }
        if trailer::has_foot(&follows) {
            return Err(damaged(TrailerError::Magic));
        }
        // As many as the header says: then nothing was passed over.
        let nr_extra = u64::from(!self.lacks_extra);
        if self.nr_data == self.info.nr_used + nr_extra {
            return Ok(None);
        }
        self.search(checks, follows, at)
    }

    /// Looks for the trailer of an image whose commands seem to end before it. `window` was read already, from byte `at`
    /// of the image on.
    fn search(
        &mut self,
        mut checks: Checks,
        mut window: Vec<u8>,
        mut at: u64,
    ) -> Result<Option<Trailer>, ImageError> {
        for _ in 0..MAX_TRIES {
            let begin = loop {
                let found = trailer::find_begin(&window);
                // What may be the beginning of a magic that is not all there yet is kept.
                let passed = found.unwrap_or(window.len().saturating_sub(trailer::MAGIC.len() - 1));
                checks.take(window.get(..passed).unwrap_or_default(), self.lcn)?;
                window.drain(..passed);
                at += passed as u64;
                if found.is_some() {
                    break true;
                }
                if !self.read_on(&mut window, SEARCH)? {
                    break false;
                }
            };
            if !begin {
                return Ok(None);
            }
            let missing = trailer::MAX_LEN.saturating_sub(window.len());
            self.read_on(&mut window, missing)?;
            if let Ok(trailer) = Trailer::decode(&window)
                && trailer.sums.image_len == at
            {
                checks.compare(&trailer.sums)?;
                return Err(ImageError::Len { at: self.at, wanted: at });
            }
            checks.take(window.get(..1).unwrap_or_default(), self.lcn)?;
            window.drain(..1);
            at += 1;
        }
        Ok(None)
    }

    /// The checksums of all that was read, if it is summed.
    pub fn sums(&self) -> Option<SumTable> {
        self.checks.as_ref().map(|checks| checks.sums.table())
    }

    /// Goes to the next cluster that has bytes. False at the end of the image, and, if `following` is wanted, where
    /// something lies between: then the next call goes on there.
    fn next_cluster(&mut self, following: bool) -> Result<bool, ImageError> {
        let geometry = self.info.geometry;
        while self.lcn <= geometry.nr_clusters && !self.lacks_extra {
            let is_extra = self.lcn == geometry.nr_clusters;
            let at = self.at;
            let mut command = [0];
            if !self.fill(&mut command)? {
                if !is_extra {
                    return Err(self.cut_off("the command"));
                }
                self.lacks_extra = true;
                break;
            }
            self.add_command(&command);
            match command {
                [SKIP] => {
                    self.skip(at)?;
                    if following {
                        break;
                    }
                }
                [DATA] => {
                    self.left = if is_extra { geometry.extra_len() } else { geometry.cluster_size };
                    self.pos = self.lcn * u64::from(geometry.cluster_size);
                    self.lcn += 1;
                    self.nr_data += 1;
                    if self.left > 0 {
                        return Ok(!(following && is_extra));
                    }
                }
                [found] => return Err(ImageError::Command { at, found, lcn: self.lcn }),
            }
        }
        Ok(false)
    }

    /// Takes the count of the skip at byte `at`.
    fn skip(&mut self, at: u64) -> Result<(), ImageError> {
        let mut count = [0; 8];
        if !self.fill(&mut count)? {
            return Err(self.cut_off("the skip"));
        }
        self.add_command(&count);
        let (count, lcn, nr_clusters) = (i64::from_le_bytes(count), self.lcn, self.info.geometry.nr_clusters);
        let to = lcn.checked_add_signed(count).filter(|to| count != 0 && *to <= nr_clusters);
        self.lcn = to.ok_or(ImageError::Skip { at, count, lcn, nr_clusters })?;
        Ok(())
    }

    fn add_command(&mut self, bytes: &[u8]) {
        if let Some(checks) = &mut self.checks {
            checks.sums.add_command(bytes);
        }
    }

    /// Reads all of `buf`, of the image itself; false where it ends before that.
    fn fill(&mut self, buf: &mut [u8]) -> Result<bool, ImageError> {
        let lcn = self.lcn_now();
        let n = self.read_full(buf)?;
        self.at += n as u64;
        if let Some(checks) = &mut self.checks {
            checks.take(buf.get(..n).unwrap_or_default(), lcn)?;
        }
        Ok(n == buf.len())
    }

    /// Reads so many bytes of what comes behind the image; false at the end.
    fn read_on(&mut self, into: &mut Vec<u8>, len: usize) -> Result<bool, ImageError> {
        let before = into.len();
        into.resize(before + len, 0);
        let n = self.read_full(into.get_mut(before..).unwrap_or_default())?;
        into.truncate(before + n);
        Ok(n > 0)
    }

    /// Reads until `buf` is full or there is nothing more. Returns the number of bytes.
    fn read_full(&mut self, buf: &mut [u8]) -> Result<usize, ImageError> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(ImageError::Read { at: self.at + filled as u64, cause }),
            }
        }
        Ok(filled)
    }

    /// The cluster that the next byte belongs to.
    fn lcn_now(&self) -> u64 {
        match self.left {
            0 => self.lcn,
            _ => self.pos / u64::from(self.info.geometry.cluster_size).max(1),
        }
    }

    fn cut_off(&self, what: &'static str) -> ImageError {
        let nr_clusters = self.info.geometry.nr_clusters;
        ImageError::CutOff { at: self.at, what, lcn: self.lcn_now(), nr_clusters }
    }
}

#[cfg(test)]
mod tests;
