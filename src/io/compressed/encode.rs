//! Compressing pieces of content, each into a frame that needs nothing of the others.

use std::io::{self, Write};
use std::num::ParseIntError;
use std::ops::RangeInclusive;
use std::str::FromStr;

use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use zstd_safe::{CCtx, CParameter};

/// Bytes of content in a frame, but in the last: so many are decompressed to read one of them. With less, more of what
/// frames have in common is stored again and again.
pub(super) const PIECE: usize = 4 << 20;

/// Bytes that a frame has at most.
pub(super) fn longest_frame() -> usize {
    // More than LZ4 needs too, whose frames store blocks that do not compress as they are.
    zstd_safe::compress_bound(PIECE)
}

/// The level of zstd where none is given: zstd's own.
pub const DEFAULT_LEVEL: u8 = 3;

/// The levels of zstd.
pub const LEVELS: RangeInclusive<u8> = 1..=22;

/// How an image is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// zstd.
    Zstd {
        /// One of [`LEVELS`].
        level: u8,
    },
    /// LZ4.
    Lz4,
}

impl Compression {
    /// Bytes of memory that a thread needs at most to compress, with the piece that it compresses.
    pub fn memory_of_thread(self) -> u64 {
        let of_encoder: u64 = match self {
            Compression::Lz4 => 3,
            Compression::Zstd { level: ..=8 } => 6,
            Compression::Zstd { level: ..=11 } => 21,
            Compression::Zstd { .. } => 67,
        };
        (of_encoder << 20) + (PIECE + longest_frame()) as u64
    }
}

/// What is no name of a compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnknownCompression;

impl From<ParseIntError> for UnknownCompression {
    fn from(_: ParseIntError) -> UnknownCompression {
        UnknownCompression
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    /// `zstd`, `zstd:LEVEL` or `lz4`.
    fn from_str(text: &str) -> Result<Compression, UnknownCompression> {
        let level = match text.split_once(':') {
            None if text == "lz4" => return Ok(Compression::Lz4),
            None if text == "zstd" => DEFAULT_LEVEL,
            Some(("zstd", level)) => level.parse()?,
            _ => return Err(UnknownCompression),
        };
        if LEVELS.contains(&level) { Ok(Compression::Zstd { level }) } else { Err(UnknownCompression) }
    }
}

/// Compresses one piece after the other.
pub(super) enum Encoder {
    Zstd(CCtx<'static>),
    Lz4(Lz4),
}

impl Encoder {
    pub(super) fn new(compression: Compression) -> io::Result<Encoder> {
        let Compression::Zstd { level } = compression else { return Ok(Encoder::Lz4(Lz4::new(PIECE))) };
        let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        for parameter in [CParameter::CompressionLevel(level.into()), CParameter::ChecksumFlag(true)] {
            context.set_parameter(parameter).map_err(zstd_error)?;
        }
        Ok(Encoder::Zstd(context))
    }

    /// Compresses a piece into a frame, whose room it is given.
    pub(super) fn encode(&mut self, content: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
        frame.clear();
        match self {
            Encoder::Zstd(context) => {
                context.compress2(frame, content).map_err(zstd_error)?;
            }
            Encoder::Lz4(lz4) => {
                if lz4.len != content.len() {
                    *lz4 = Lz4::new(content.len());
                }
                lz4.encode(content, frame)?;
            }
        }
        Ok(())
    }
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(zstd_safe::get_error_name(code))
}

/// Writes LZ4 frames that tell the length of their content, which is the same for all.
pub(super) struct Lz4 {
    encoder: FrameEncoder<Vec<u8>>,
    len: usize,
}

impl Lz4 {
    fn new(len: usize) -> Lz4 {
        let info = FrameInfo::new()
            .block_size(BlockSize::Max1MB)
            .content_size(Some(len as u64))
            .content_checksum(true);
        Lz4 { encoder: FrameEncoder::with_frame_info(info, Vec::new()), len }
    }

    fn encode(&mut self, content: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
        std::mem::swap(self.encoder.get_mut(), frame);
        let encoded = self.encoder.write_all(content).and_then(|()| Ok(self.encoder.try_finish()?));
        std::mem::swap(self.encoder.get_mut(), frame);
        encoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_have_names() {
        assert_eq!("zstd".parse(), Ok(Compression::Zstd { level: 3 }));
        assert_eq!("zstd:1".parse(), Ok(Compression::Zstd { level: 1 }));
        assert_eq!("zstd:22".parse(), Ok(Compression::Zstd { level: 22 }));
        assert_eq!("lz4".parse(), Ok(Compression::Lz4));
        for wrong in
            ["", "gzip", "zstd:", "zstd:0", "zstd:23", "zstd:-1", "zstd:256", "zstd:x", "lz4:1", "ZSTD"]
        {
            assert_eq!(wrong.parse::<Compression>(), Err(UnknownCompression), "{wrong}");
        }
    }

    #[test]
    fn memory_is_as_told() {
        for level in LEVELS {
            let compression = Compression::Zstd { level };
            let Encoder::Zstd(mut context) = Encoder::new(compression).unwrap() else { panic!("no zstd") };
            context.compress2(&mut Vec::with_capacity(longest_frame()), &vec![7; PIECE]).unwrap();
            let needed = (context.sizeof() + PIECE + longest_frame()) as u64;
            let told = compression.memory_of_thread();
            assert!(needed <= told && told < 3 * needed, "level {level}: {needed} bytes");
        }
    }

    /// Frames of one encoder need nothing of each other, and have room whatever they hold.
    #[test]
    fn frames_stand_alone() {
        let noise: Vec<u8> = (0..PIECE as u64)
            .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ ((at * at) >> 7) as u8)
            .collect();
        for name in ["zstd:1", "zstd", "lz4"] {
            let mut encoder = Encoder::new(name.parse().unwrap()).unwrap();
            let mut frame = Vec::with_capacity(longest_frame());
            for content in [&vec![7; PIECE][..], &noise, &noise[..1], b"", &noise] {
                encoder.encode(content, &mut frame).unwrap();
                assert!(frame.capacity() == longest_frame(), "{name}: no room for {} bytes", content.len());
                let mut decoded = Vec::new();
                let mut input =
                    crate::io::compressed::ImageInput::open(io::Cursor::new(frame.clone())).unwrap();
                assert!(input.is_compressed());
                io::Read::read_to_end(&mut input, &mut decoded).unwrap();
                assert!(decoded == content, "{name}, {} bytes", content.len());
            }
        }
    }
}
