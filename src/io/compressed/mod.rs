//! Compressed images: ordinary .zst, .lz4, .gz, .xz and .bz2 streams around the bytes of an image.
//!
//! What is read tells by its first bytes what it is ([`ImageInput`]). Written are zstd and LZ4 ([`CompressedSink`]), as
//! frames that need nothing of each other, by all cores at once; zstd with a [seek table](seek_table) at its end, so that
//! a part of it can be read. The other formats are only read.

mod decode;
mod encode;
mod input;
mod ring;
pub mod seek_table;
mod sink;

pub use decode::{DecodeError, ImageInput};
pub use encode::{Compression, DEFAULT_LEVEL, LEVELS, UnknownCompression};
pub use sink::CompressedSink;

/// What a stream is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Zstd,
    Lz4,
    Gzip,
    Xz,
    Bzip2,
}

/// Begins frames that hold nothing of the content, of zstd and LZ4 alike; the last four bits are free.
const SKIPPABLE: u32 = 0x184d_2a50;

/// Bytes that tell what a stream is.
const MAGIC_LEN: usize = 6;

impl Format {
    const ALL: [Format; 5] = [Format::Zstd, Format::Lz4, Format::Gzip, Format::Xz, Format::Bzip2];

    /// Recognises a stream, or one of those it is made of, by its first bytes.
    fn of(first: &[u8]) -> Option<Format> {
        Format::ALL.into_iter().find(|format| match (format, first) {
            (Format::Bzip2, [b'B', b'Z', b'h', level, ..]) => (b'1'..=b'9').contains(level),
            (Format::Bzip2, _) => false,
            (format, first) => first.starts_with(format.magic()),
        })
    }

    /// How it begins.
    fn magic(self) -> &'static [u8] {
        match self {
            Format::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
            Format::Lz4 => &[0x04, 0x22, 0x4d, 0x18],
            // 8 is the only method there is.
            Format::Gzip => &[0x1f, 0x8b, 8],
            Format::Xz => b"\xfd7zXZ\0",
            Format::Bzip2 => b"BZh",
        }
    }

    /// What it is called.
    fn name(self) -> &'static str {
        match self {
            Format::Zstd => "zstd",
            Format::Lz4 => "lz4",
            Format::Gzip => "gzip",
            Format::Xz => "xz",
            Format::Bzip2 => "bzip2",
        }
    }
}

/// Does a frame begin so that holds nothing of the content?
fn is_skippable(first: &[u8]) -> bool {
    first.first_chunk().is_some_and(|magic| u32::from_le_bytes(*magic) & !0xf == SKIPPABLE)
}
