//! The trailer: what an image of ours has behind its last command, where ntfsclone never reads.
//!
//! A head, sections, a foot; all numbers are little-endian. The foot is found from a file's end, and leads back to the
//! head. Sections whose kind is unknown are passed over. The CRC-32 in the foot is of all before it, so that nothing in a
//! trailer is believed that was not written so. `doc/image-format.md` has the same for readers of other programs.

use std::fmt;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::sums::{MAX_STRETCHES, SumTable, nr_stretches, shift_of};
use crate::extent::ByteRange;

/// What a trailer begins with.
pub const MAGIC: [u8; 16] = *b"ntfsrescue-trail";
const FOOT_MAGIC: [u8; 8] = *b"nr-trail";

/// Another one has another head, sections of other layouts, or another foot.
const VERSION: u32 = 1;

/// Most bytes of a trailer.
pub const MAX_LEN: usize = 32 << 10;

/// Kinds of sections. 4 is kept for an index of single files.
const SUMS: u32 = 1;
const ORIGIN: u32 = 2;
const MARKS: u32 = 3;

/// Most areas that are listed: what 8 KiB hold.
pub const MAX_LISTED: usize = ((8 << 10) - size_of::<MarksHead>()) / size_of::<MarkedArea>();

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 16],
    version: U32,
    /// Bytes of the whole trailer.
    len: U32,
    nr_sections: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SectionHead {
    kind: U32,
    /// Bytes that follow.
    len: U32,
    /// CRC-32 of these.
    crc: U32,
}

/// Then a CRC-32 for each stretch.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SumsHead {
    /// Bytes of the image before the trailer.
    image_len: U64,
    header_len: U32,
    header: U32,
    structure: U32,
    /// A stretch has 2 to this many bytes.
    shift: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OriginLayout {
    volume_serial: U64,
    /// The volume's first byte on the disk.
    volume_pos: U64,
    disk_size: U64,
    /// UTF-8, filled up with zeros, as the model.
    disk_serial: [u8; 128],
    disk_model: [u8; 64],
}

/// Then the areas, as far as there is room for them.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MarksHead {
    nr_areas: U64,
    /// Bytes of all areas.
    bytes: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MarkedArea {
    /// First byte on the volume.
    pos: U64,
    len: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Foot {
    /// CRC-32 of the trailer up to here.
    crc: U32,
    /// Bytes of the whole trailer, as in the head.
    len: U32,
    magic: [u8; 8],
}

const FOOT_LEN: usize = size_of::<Foot>();

/// Most bytes of the trailer of an image of so many bytes.
pub fn room_for(image_len: u64) -> u64 {
    let stretches = nr_stretches(image_len, shift_of(image_len)) * 4;
    let fixed = size_of::<Head>() + 3 * size_of::<SectionHead>() + size_of::<SumsHead>() + FOOT_LEN;
    (fixed + size_of::<OriginLayout>() + (8 << 10)) as u64 + stretches
}

/// Where an image comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The volume's serial number.
    pub volume_serial: u64,
    /// Its first byte on the disk.
    pub volume_pos: u64,
    /// Bytes of the disk.
    pub disk_size: u64,
    /// The disk's serial number; empty where it has none, or none that is told.
    pub disk_serial: String,
    /// Its model, likewise.
    pub disk_model: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {:016X}", self.volume_serial)?;
        match (self.disk_model.as_str(), self.disk_serial.as_str()) {
            ("", "") => Ok(()),
            (model, "") => write!(f, " of the disk {model:?}"),
            ("", serial) => write!(f, " of the disk with serial number {serial:?}"),
            (model, serial) => write!(f, " of the disk {model:?} with serial number {serial:?}"),
        }
    }
}

/// The areas of the volume that could not be read and are marked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The first of them, with [`MAX_LISTED`] at most.
    pub listed: Vec<ByteRange>,
    /// How many there are.
    pub nr_areas: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// Where the last one that came ends.
    end: u64,
}

impl Marks {
    /// None yet, and room for those that are listed: to add some allocates nothing.
    pub fn with_room() -> Marks {
        Marks { listed: Vec::with_capacity(MAX_LISTED), ..Marks::default() }
    }

    /// Adds an area. One that follows the last one makes that longer.
    pub fn add(&mut self, area: ByteRange) {
        if self.nr_areas > 0 && self.end == area.pos {
            let is_listed = self.nr_areas == self.listed.len() as u64;
            if let Some(last) = self.listed.last_mut().filter(|_| is_listed) {
                last.len += area.len;
            }
        } else {
            self.nr_areas += 1;
            if self.listed.len() < MAX_LISTED && self.listed.len() as u64 + 1 == self.nr_areas {
                self.listed.push(area);
            }
        }
        self.bytes += area.len;
        self.end = area.end();
    }
}

/// What a trailer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The image's checksums.
    pub sums: SumTable,
    /// Where it comes from, if that is told.
    pub origin: Option<Origin>,
    /// What of it is marked.
    pub marks: Marks,
}

/// Why bytes are not a trailer as one is written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TrailerError {
    /// It does not begin so.
    #[error("wrong magic")]
    Magic,
    /// It ends too early.
    #[error("cut off: found {found} bytes, wanted {wanted}")]
    CutOff {
        /// Bytes that are there.
        found: usize,
        /// Bytes of it, as far as that is known.
        wanted: usize,
    },
    /// No trailer is that long, or that short.
    #[error("length is {found}, wanted {least} to {MAX_LEN}", least = LEAST_LEN)]
    Len {
        /// What the head says.
        found: u32,
    },
    /// Its end is not where its head says.
    #[error("no end at its byte {0:#x}")]
    NoFoot(usize),
    /// It is not as it was written.
    #[error("CRC-32 is {found:08x}, wanted {wanted:08x}")]
    Crc {
        /// That of the bytes.
        found: u32,
        /// The one they should have.
        wanted: u32,
    },
    /// A later version has written it.
    #[error("version is {0}, wanted {VERSION}")]
    Version(u32),
    /// A section that cannot be.
    #[error("section {number} of kind {kind}: {what} is {found}, wanted {wanted}")]
    Section {
        /// Its number, counted from 1.
        number: u32,
        /// Its kind.
        kind: u32,
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What it should be.
        wanted: u64,
    },
    /// Sections that do not fit into the trailer, or do not fill it.
    #[error("section {number} ends at byte {end:#x} of the trailer, wanted {wanted:#x}")]
    SectionEnd {
        /// The number of the section, counted from 1.
        number: u32,
        /// Where it ends, if its head is right.
        end: usize,
        /// Where it should end, at the most.
        wanted: usize,
    },
    /// The section that a trailer is for is missing, or there twice.
    #[error("found {0} sections with checksums, wanted 1")]
    NrSums(u32),
}

const LEAST_LEN: usize = size_of::<Head>() + FOOT_LEN;

/// Copies text, cut to whole characters, and fills up with zeros.
fn put_text<const LEN: usize>(text: &str) -> [u8; LEN] {
    let mut field = [0; LEN];
    let end = (0..=LEN).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let end = if text.len() <= LEN { text.len() } else { end };
    field.iter_mut().zip(text.bytes().take(end)).for_each(|(to, from)| *to = from);
    field
}

fn text_of(field: &[u8]) -> String {
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

impl Trailer {
    /// The bytes, [`room_for`] its image at most.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let head = Head { magic: MAGIC, version: VERSION.into(), len: U32::ZERO, nr_sections: U32::ZERO };
        bytes.extend_from_slice(head.as_bytes());
        let sections = [
            Some((SUMS, self.sums_section())),
            self.origin.as_ref().map(|origin| (ORIGIN, origin_section(origin))),
            (self.marks.nr_areas > 0).then(|| (MARKS, marks_section(&self.marks))),
        ];
        let mut nr_sections = 0;
        for (kind, section) in sections.into_iter().flatten() {
            let crc = crc32fast::hash(&section);
            let head = SectionHead { kind: kind.into(), len: (section.len() as u32).into(), crc: crc.into() };
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(&section);
            nr_sections += 1;
        }
        let len = (bytes.len() + FOOT_LEN) as u32;
        if let Ok((head, _)) = Head::mut_from_prefix(&mut bytes) {
            (head.len, head.nr_sections) = (len.into(), nr_sections.into());
        }
        let foot = Foot { crc: crc32fast::hash(&bytes).into(), len: len.into(), magic: FOOT_MAGIC };
        bytes.extend_from_slice(foot.as_bytes());
        bytes
    }

    fn sums_section(&self) -> Vec<u8> {
        let SumTable { image_len, header_len, header, structure, shift, ref stretches } = self.sums;
        let head = SumsHead {
            image_len: image_len.into(),
            header_len: header_len.into(),
            header: header.into(),
            structure: structure.into(),
            shift: shift.into(),
        };
        let stretches = stretches.iter().flat_map(|sum| sum.to_le_bytes());
        head.as_bytes().iter().copied().chain(stretches).collect()
    }

    /// Reads a trailer from its first byte on; what follows it does not matter.
    pub fn decode(bytes: &[u8]) -> Result<Trailer, TrailerError> {
        let cut_off = |wanted| TrailerError::CutOff { found: bytes.len(), wanted };
        if !is_begun(bytes) {
            return Err(TrailerError::Magic);
        }
        let (head, _) = Head::ref_from_prefix(bytes).map_err(|_| cut_off(LEAST_LEN))?;
        let len = head.len.get() as usize;
        if !(LEAST_LEN..=MAX_LEN).contains(&len) {
            return Err(TrailerError::Len { found: head.len.get() });
        }
        let Some((whole, _)) = bytes.split_at_checked(len) else { return Err(cut_off(len)) };
        let no_foot = TrailerError::NoFoot(len - FOOT_LEN);
        let Ok((before, foot)) = Foot::ref_from_suffix(whole) else { return Err(no_foot) };
        if foot.magic != FOOT_MAGIC || foot.len != head.len {
            return Err(no_foot);
        }
        let (found, wanted) = (crc32fast::hash(before), foot.crc.get());
        if found != wanted {
            return Err(TrailerError::Crc { found, wanted });
        }
        if head.version.get() != VERSION {
            return Err(TrailerError::Version(head.version.get()));
        }
        let sections = before.get(size_of::<Head>()..).unwrap_or_default();
        Trailer::decode_sections(sections, head.nr_sections.get())
    }

    fn decode_sections(bytes: &[u8], nr_sections: u32) -> Result<Trailer, TrailerError> {
        let (mut rest, all) = (bytes, bytes.len());
        let (mut sums, mut nr_sums) = (None, 0);
        let (mut origin, mut marks) = (None, Marks::default());
        let place = |left: usize| size_of::<Head>() + all - left;
        for number in 1..=nr_sections {
            let end = place(0);
            let Ok((head, behind)) = SectionHead::ref_from_prefix(rest) else {
                let end_of_head = place(rest.len()) + size_of::<SectionHead>();
                return Err(TrailerError::SectionEnd { number, end: end_of_head, wanted: end });
            };
            let (kind, len) = (head.kind.get(), head.len.get() as usize);
            let Some((section, behind)) = behind.split_at_checked(len) else {
                let too_far = place(behind.len()).saturating_add(len);
                return Err(TrailerError::SectionEnd { number, end: too_far, wanted: end });
            };
            let fault = |what, found, wanted| TrailerError::Section { number, kind, what, found, wanted };
            let crc = crc32fast::hash(section);
            if crc != head.crc.get() {
                return Err(fault("CRC-32", crc.into(), head.crc.get().into()));
            }
            match kind {
                SUMS => {
                    nr_sums += 1;
                    sums = Some(sums_of(section, &fault)?);
                }
                ORIGIN => origin = Some(origin_of(section, &fault)?),
                MARKS => marks = marks_of(section, &fault)?,
                // One that came later.
                _ => {}
            }
            rest = behind;
        }
        if !rest.is_empty() {
            let end = place(rest.len());
            return Err(TrailerError::SectionEnd { number: nr_sections, end, wanted: place(0) });
        }
        match sums {
            Some(sums) if nr_sums == 1 => Ok(Trailer { sums, origin, marks }),
            _ => Err(TrailerError::NrSums(nr_sums)),
        }
    }

    /// The trailer of an image in a file of so many bytes, of which these are the last, if it is whole. One that lies
    /// behind its place is that of another image, within the clusters of this one.
    pub fn at_end(bytes: &[u8], file_len: u64) -> Option<Trailer> {
        let (_, foot) = Foot::ref_from_suffix(bytes).ok()?;
        let start = bytes.len().checked_sub(foot.len.get() as usize)?;
        let trailer = Trailer::decode(bytes.get(start..)?).ok()?;
        let place = file_len.checked_sub(foot.len.get().into())?;
        (place <= trailer.sums.image_len).then_some(trailer)
    }
}

/// Do these bytes begin as a trailer does?
pub fn is_begun(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Are these bytes all that is left of a trailer, less than its magic?
pub fn is_stump(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len() < MAGIC.len() && MAGIC.starts_with(bytes)
}

/// Where in these bytes a trailer may begin, the first of the places.
pub fn find_begin(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MAGIC.len()).position(|bytes| bytes == MAGIC)
}

/// Does a trailer end in these bytes that begins with them, or before them?
pub fn has_foot(bytes: &[u8]) -> bool {
    bytes.windows(FOOT_LEN).enumerate().any(|(at, bytes)| {
        Foot::ref_from_bytes(bytes).is_ok_and(|foot| {
            let len = foot.len.get() as usize;
            foot.magic == FOOT_MAGIC && (at + FOOT_LEN..=MAX_LEN).contains(&len)
        })
    })
}

type Fault<'a> = &'a dyn Fn(&'static str, u64, u64) -> TrailerError;

fn sums_of(section: &[u8], fault: Fault<'_>) -> Result<SumTable, TrailerError> {
    let short = || fault("length", section.len() as u64, size_of::<SumsHead>() as u64);
    let (head, stretches) = SumsHead::ref_from_prefix(section).map_err(|_| short())?;
    let (image_len, shift) = (head.image_len.get(), head.shift.get());
    if i64::try_from(image_len).is_err() {
        return Err(fault("length of the image", image_len, i64::MAX as u64));
    }
    if shift != shift_of(image_len) {
        return Err(fault("shift of stretches", shift.into(), shift_of(image_len).into()));
    }
    let wanted = nr_stretches(image_len, shift);
    let (stretches, rest) = stretches.as_chunks::<4>();
    if stretches.len() as u64 != wanted || !rest.is_empty() || stretches.len() > MAX_STRETCHES {
        return Err(fault("number of stretches", stretches.len() as u64, wanted));
    }
    let header_len = head.header_len.get();
    if u64::from(header_len) > image_len {
        return Err(fault("length of the header", header_len.into(), image_len));
    }
    Ok(SumTable {
        image_len,
        header_len,
        header: head.header.get(),
        structure: head.structure.get(),
        shift,
        stretches: stretches.iter().map(|sum| u32::from_le_bytes(*sum)).collect(),
    })
}

fn origin_section(origin: &Origin) -> Vec<u8> {
    let layout = OriginLayout {
        volume_serial: origin.volume_serial.into(),
        volume_pos: origin.volume_pos.into(),
        disk_size: origin.disk_size.into(),
        disk_serial: put_text(&origin.disk_serial),
        disk_model: put_text(&origin.disk_model),
    };
    layout.as_bytes().to_vec()
}

fn origin_of(section: &[u8], fault: Fault<'_>) -> Result<Origin, TrailerError> {
    let short = || fault("length", section.len() as u64, size_of::<OriginLayout>() as u64);
    let layout = OriginLayout::ref_from_bytes(section).map_err(|_| short())?;
    Ok(Origin {
        volume_serial: layout.volume_serial.get(),
        volume_pos: layout.volume_pos.get(),
        disk_size: layout.disk_size.get(),
        disk_serial: text_of(&layout.disk_serial),
        disk_model: text_of(&layout.disk_model),
    })
}

fn marks_section(marks: &Marks) -> Vec<u8> {
    let head = MarksHead { nr_areas: marks.nr_areas.into(), bytes: marks.bytes.into() };
    let mut section = head.as_bytes().to_vec();
    for area in marks.listed.iter().take(MAX_LISTED) {
        let area = MarkedArea { pos: area.pos.into(), len: area.len.into() };
        section.extend_from_slice(area.as_bytes());
    }
    section
}

fn marks_of(section: &[u8], fault: Fault<'_>) -> Result<Marks, TrailerError> {
    let short = || fault("length", section.len() as u64, size_of::<MarksHead>() as u64);
    let (head, listed) = MarksHead::ref_from_prefix(section).map_err(|_| short())?;
    let nr_areas = head.nr_areas.get();
    let listed = <[MarkedArea]>::ref_from_bytes(listed).map_err(|_| short())?;
    if listed.len() as u64 > nr_areas {
        return Err(fault("number of marked areas", nr_areas, listed.len() as u64));
    }
    let listed = listed.iter().map(|area| ByteRange { pos: area.pos.get(), len: area.len.get() });
    Ok(Marks { listed: listed.collect(), nr_areas, bytes: head.bytes.get(), end: 0 })
}

#[cfg(test)]
mod tests;
