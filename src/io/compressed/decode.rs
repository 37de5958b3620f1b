//! Reading images that may be compressed: one stream after the other, each to its end and with its own checks.
//!
//! Each stream, frame or member gets a decoder of its own, so that it is known where it began. What a stream asks of
//! memory is bounded: [`MAX_WINDOW`], [`MAX_DICTIONARY`]; the other formats have bounds of their own, of some MiB.

use std::io::{self, BufRead, BufReader, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use lz4_flex::frame::FrameDecoder;
use lzma_rust2::XzReader;
use zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::input::Input;
use super::{Format, MAGIC_LEN, is_skippable};

#[cfg(test)]
mod tests;

/// Largest window of a zstd frame, as a power of two: 128 MiB, which `zstd -d` takes without being asked to take more.
const MAX_WINDOW: u32 = 27;

/// Largest dictionary of an xz stream, in bytes: that of `xz -9`.
const MAX_DICTIONARY: u32 = 64 << 20;

/// What the decoder of an xz stream needs beside its dictionary, in KiB, and some.
const XZ_SPARE: u32 = 1 << 10;

/// Decompressed bytes that are handed out from.
const DECOMPRESSED: usize = 256 << 10;

/// Bytes behind an image that are decompressed to see whether its stream is whole. Ours have none there; only who means
/// harm has so many.
const MAX_BEHIND: u64 = 64 << 20;

/// Why a compressed image cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("its {format} stream is cut off at byte {at:#x}{}", beginning(*begins))]
    CutOff {
        /// Name of the format.
        format: &'static str,
        /// Where it ends.
        at: u64,
        /// Where the frame began.
        begins: u64,
    },
    /// It makes no sense.
    #[error("its {format} stream is damaged before byte {at:#x}{}: {cause}", beginning(*begins))]
    Damaged {
        /// Name of the format.
        format: &'static str,
        /// As far as it was read.
        at: u64,
        /// Where the frame began.
        begins: u64,
        /// What the decoder said.
        cause: String,
    },
    /// It wants more memory than it gets.
    #[error(
        "its {format} stream needs {what} of more than {} MiB at byte {begins:#x}: \
         decompress it with '{program} IMAGE | ntfsrescue --restore-image -'", limit >> 20
    )]
    TooLarge {
        /// Name of the format.
        format: &'static str,
        /// What is too large.
        what: &'static str,
        /// Bytes that it gets.
        limit: u64,
        /// Where the frame began.
        begins: u64,
        /// What decompresses it all the same.
        program: &'static str,
    },
    /// Something else follows.
    #[error("its {format} stream ends before byte {at:#x}, and what follows is no part of it")]
    Follows {
        /// Name of the format.
        format: &'static str,
        /// Where it ends.
        at: u64,
    },
}

fn beginning(begins: u64) -> String {
    match begins {
        0 => String::new(),
        _ => format!(", in the part that begins at byte {begins:#x}"),
    }
}

impl From<DecodeError> for io::Error {
    fn from(error: DecodeError) -> io::Error {
        let kind = match error {
            DecodeError::CutOff { .. } => io::ErrorKind::UnexpectedEof,
            DecodeError::Damaged { .. } | DecodeError::Follows { .. } => io::ErrorKind::InvalidData,
            DecodeError::TooLarge { .. } => io::ErrorKind::Unsupported,
        };
        io::Error::new(kind, error)
    }
}

/// An image as it is, or the content of a compressed one.
pub struct ImageInput<R>(Kind<R>);

enum Kind<R> {
    Plain(Input<R>),
    Compressed(BufReader<Streams<R>>),
}

impl<R: Read + Send + 'static> ImageInput<R> {
    /// Looks at the first bytes.
    pub fn open(inner: R) -> io::Result<ImageInput<R>> {
        let mut input = Input::new(inner);
        let first = input.peek(MAGIC_LEN)?;
        let format = Format::of(first);
        Ok(ImageInput(if format.is_some() || is_skippable(first) {
            let streams = Streams { format, stage: Stage::Between(input) };
            Kind::Compressed(BufReader::with_capacity(DECOMPRESSED, streams))
        } else {
            Kind::Plain(input)
        }))
    }

    /// Is it compressed?
    pub fn is_compressed(&self) -> bool {
        matches!(self.0, Kind::Compressed(_))
    }

    /// Reads what is left of compressed streams, whose own checks come at their ends. What is left of an image as it is
    /// stays unread.
    pub fn read_out(&mut self) -> io::Result<()> {
        let Kind::Compressed(streams) = &mut self.0 else { return Ok(()) };
        io::copy(&mut streams.take(MAX_BEHIND), &mut io::sink())?;
        Ok(())
    }
}

impl<R: Read + Send + 'static> Read for ImageInput<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(input) => input.read(buf),
            Kind::Compressed(streams) => streams.read(buf),
        }
    }
}

/// One stream after the other.
struct Streams<R> {
    /// What they are; not known as long as only skippable frames came.
    format: Option<Format>,
    stage: Stage<R>,
}

enum Stage<R> {
    /// At the beginning of a stream, or behind the last.
    Between(Input<R>),
    /// In a stream of that format.
    Within(Format, Box<dyn Decoder<R>>),
    Over,
}

impl<R: Read + Send + 'static> Streams<R> {
    /// Goes to the next stream that has content; `Over` where there is none.
    fn begin_next(&self, mut input: Input<R>) -> io::Result<Stage<R>> {
        loop {
            let at = input.at();
            let first = input.peek(MAGIC_LEN)?;
            match Format::of(first) {
                Some(format) if self.format.is_none_or(|wanted| wanted == format) => {
                    return Ok(Stage::Within(format, decoder(format, input)?));
                }
                _ if first.is_empty() => return Ok(Stage::Over),
                _ if first.starts_with(&[0]) => skip_zeros(&mut input)?,
                _ if self.may_skip() && is_skippable(first) => self.skip_frame(&mut input)?,
                _ if self.format.is_some_and(|format| format.magic().starts_with(first)) => {
                    let at = at + first.len() as u64;
                    return Err(DecodeError::CutOff { format: self.name(), at, begins: 0 }.into());
                }
                _ => return Err(DecodeError::Follows { format: self.name(), at }.into()),
            }
        }
    }

    fn may_skip(&self) -> bool {
        matches!(self.format, None | Some(Format::Zstd | Format::Lz4))
    }

    fn name(&self) -> &'static str {
        self.format.map_or("compressed", Format::name)
    }

    fn skip_frame(&self, input: &mut Input<R>) -> io::Result<()> {
        let begins = input.at();
        let len = match input.peek(8)? {
            [_, _, _, _, a, b, c, d] => 8 + u64::from(u32::from_le_bytes([*a, *b, *c, *d])),
            _ => u64::MAX,
        };
        if !input.skip(len)? {
            return Err(DecodeError::CutOff { format: self.name(), at: input.at(), begins }.into());
        }
        Ok(())
    }
}

/// Behind the last stream may be zeros, as tapes and devices add them; xz allows them between streams, so they may lie
/// between all.
fn skip_zeros<R: Read>(input: &mut Input<R>) -> io::Result<()> {
    loop {
        let rest = input.buffered()?;
        let nr_zeros = rest.iter().take_while(|byte| **byte == 0).count();
        let is_over = nr_zeros < rest.len() || rest.is_empty();
        input.consume(nr_zeros);
        if is_over {
            return Ok(());
        }
    }
}

impl<R: Read + Send + 'static> Read for Streams<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            // After an error nothing more comes.
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Over => return Ok(0),
                Stage::Between(input) => {
                    self.stage = self.begin_next(input)?;
                    if let Stage::Within(format, _) = self.stage {
                        self.format = Some(format);
                    }
                }
                Stage::Within(format, mut decoder) => {
                    let read = decoder.read(buf);
                    match read {
                        // An end that the decoder ran into is none.
                        Ok(0) if !decoder.input().is_exhausted() => {
                            self.stage = Stage::Between(decoder.into_input());
                        }
                        Ok(n @ 1..) => {
                            self.stage = Stage::Within(format, decoder);
                            return Ok(n);
                        }
                        Ok(0) => return Err(told(format, decoder.as_ref(), None)),
                        Err(error) => return Err(told(format, decoder.as_ref(), Some(error))),
                    }
                }
            }
        }
    }
}

/// What the end of a stream or the complaint of a decoder means.
fn told<R: Read>(format: Format, decoder: &dyn Decoder<R>, error: Option<io::Error>) -> io::Error {
    let (at, begins) = (decoder.input().at(), decoder.begins());
    // The system refused to read.
    if let Some(refusal) = error.as_ref().and_then(io::Error::raw_os_error) {
        return io::Error::from_raw_os_error(refusal);
    }
    let (name, cause) = (format.name(), error.as_ref().map(ToString::to_string).unwrap_or_default());
    match (format, error.map(|error| error.kind())) {
        _ if decoder.input().is_exhausted() => DecodeError::CutOff { format: name, at, begins },
        (Format::Xz, Some(io::ErrorKind::OutOfMemory)) => DecodeError::TooLarge {
            format: name,
            what: "a dictionary",
            limit: MAX_DICTIONARY.into(),
            begins,
            program: "xz -dc",
        },
        (Format::Zstd, Some(io::ErrorKind::OutOfMemory)) => DecodeError::TooLarge {
            format: name,
            what: "a window",
            limit: 1 << MAX_WINDOW,
            begins,
            program: "zstd -dc --long=31",
        },
        _ => DecodeError::Damaged { format: name, at, begins, cause },
    }
    .into()
}

/// Decompresses one stream, and not a byte behind it. At its end, and where its input ends, it reads nothing.
trait Decoder<R>: Read + Send {
    fn input(&self) -> &Input<R>;
    fn into_input(self: Box<Self>) -> Input<R>;

    /// Where its stream began.
    fn begins(&self) -> u64;
}

fn decoder<R: Read + Send + 'static>(format: Format, input: Input<R>) -> io::Result<Box<dyn Decoder<R>>> {
    let begins = input.at();
    Ok(match format {
        Format::Zstd => Box::new(ZstdDecoder::new(input)?),
        Format::Lz4 => Box::new(Begun { begins, decoder: FrameDecoder::new(input) }),
        Format::Gzip => Box::new(Begun { begins, decoder: GzDecoder::new(input) }),
        Format::Bzip2 => Box::new(Begun { begins, decoder: BzDecoder::new(input) }),
        Format::Xz => {
            let limit = (MAX_DICTIONARY >> 10) + XZ_SPARE;
            Box::new(Begun { begins, decoder: XzReader::new_mem_limit(input, false, limit) })
        }
    })
}

/// A decoder of a crate's, which began there.
struct Begun<D> {
    begins: u64,
    decoder: D,
}

impl<D: Read> Read for Begun<D> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buf)
    }
}

macro_rules! decodes {
    ($($decoder:ident $input:ident),*) => {$(
        impl<R: Read + Send> Decoder<R> for Begun<$decoder<Input<R>>> {
            fn input(&self) -> &Input<R> {
                self.decoder.$input()
            }

            fn into_input(self: Box<Self>) -> Input<R> {
                self.decoder.into_inner()
            }

            fn begins(&self) -> u64 {
                self.begins
            }
        }
    )*};
}

decodes!(FrameDecoder get_ref, GzDecoder get_ref, BzDecoder get_ref, XzReader inner);

/// Decompresses zstd frames that follow each other, which are many in an image of ours, with one context.
struct ZstdDecoder<R> {
    context: DCtx<'static>,
    input: Input<R>,
    /// Where the frame began that it is in.
    begins: u64,
    is_within: bool,
}

impl<R: Read> ZstdDecoder<R> {
    /// At the beginning of a frame.
    fn new(input: Input<R>) -> io::Result<ZstdDecoder<R>> {
        let mut context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW)).map_err(zstd_error)?;
        Ok(ZstdDecoder { context, begins: input.at(), input, is_within: true })
    }
}

fn zstd_error(code: usize) -> io::Error {
    let is_too_large =
        zstd_safe::is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge);
    let kind = if is_too_large { io::ErrorKind::OutOfMemory } else { io::ErrorKind::InvalidData };
    io::Error::new(kind, zstd_safe::get_error_name(code))
}

impl<R: Read> Read for ZstdDecoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_within {
                if Format::of(self.input.peek(MAGIC_LEN)?) != Some(Format::Zstd) {
                    return Ok(0);
                }
                (self.begins, self.is_within) = (self.input.at(), true);
            }
            // What the context still holds comes without input too.
            let there = self.input.buffered()?;
            let mut output = OutBuffer::around(&mut *buf);
            let mut taken = InBuffer::around(there);
            let left = self.context.decompress_stream(&mut output, &mut taken).map_err(zstd_error)?;
            let (n, consumed) = (output.pos(), taken.pos());
            self.input.consume(consumed);
            self.is_within = left != 0;
            if n > 0 || self.is_within && consumed == 0 && self.input.fill_buf()?.is_empty() {
                return Ok(n);
            }
        }
    }
}

impl<R: Read + Send> Decoder<R> for ZstdDecoder<R> {
    fn input(&self) -> &Input<R> {
        &self.input
    }

    fn into_input(self: Box<Self>) -> Input<R> {
        self.input
    }

    fn begins(&self) -> u64 {
        self.begins
    }
}
