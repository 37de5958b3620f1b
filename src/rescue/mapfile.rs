//! GNU ddrescue's mapfile: which bytes of a disk are read, lost, or still to be tried.
//!
//! Text, one line a block, positions in bytes on the source; the grammar is in ddrescue's manual, the layout as
//! ddrescue 1.27 writes it. Comment lines of our own carry what ddrescue does not keep: a generation, whose disk it
//! is, and at the end a CRC-32 of all bytes before it. So a map of ours that a kill has torn is told from a whole one, and
//! from one that ddrescue wrote, which keeps no comments. Both directions stream: a map has no bound but the disk.

use std::io::{self, BufRead, Write};

use crc32fast::Hasher;

use super::areas::Area;
use super::state::State;
use crate::extent::ByteRange;

mod parse;
#[cfg(test)]
mod tests;

pub use parse::{Fault, MapfileError, Parsed, parse};

/// What the comment lines of our own begin with.
const OURS: &str = "# ntfsrescue ";

/// Their keys.
const GENERATION: &str = "generation";
const DISK: &str = "disk";
const VOLUME: &str = "volume";
const TARGET: &str = "target";
const CRC: &str = "crc";

/// Where the last block may end: positions are signed in ddrescue.
const MAX_POS: u64 = i64::MAX as u64;

/// What a rescue is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Non-tried blocks are read (`?`).
    Copying,
    /// The edges of non-trimmed blocks are read (`*`).
    Trimming,
    /// Non-scraped blocks are read, sector by sector (`/`).
    Scraping,
    /// Bad sectors are tried again (`-`).
    Retrying,
    /// ddrescue writes over what is lost (`F`).
    Filling,
    /// ddrescue makes a map from a partial copy (`G`).
    Generating,
    /// Nothing is left to do (`+`).
    Finished,
}

/// A disk, as it names itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskId {
    /// The serial number, any text; empty where there is none.
    pub serial: String,
    /// Bytes.
    pub size: u64,
}

/// What a map belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The disk that is read.
    pub disk: DiskId,
    /// The serial number of the volume on it.
    pub volume_serial: u64,
    /// The disk that is written, where the target is one.
    pub target: Option<DiskId>,
}

/// What a map says before its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where the rescue is, in bytes on the source: the start of a block in a forward pass, its end in a backward one.
    pub pos: u64,
    /// What it is at.
    pub phase: Phase,
    /// Which pass of that, from 1 on.
    pub pass: u32,
    /// What the map belongs to; unknown in one that ddrescue wrote.
    pub identity: Option<Identity>,
}

impl State {
    /// The state as a map has it.
    fn symbol(self) -> char {
        match self {
            State::NonTried => '?',
            State::NonTrimmed => '*',
            State::NonScraped => '/',
            State::Bad => '-',
            State::Finished => '+',
        }
    }

    fn of_symbol(symbol: u8) -> Option<State> {
        Some(match symbol {
            b'?' => State::NonTried,
            b'*' => State::NonTrimmed,
            b'/' => State::NonScraped,
            b'-' => State::Bad,
            b'+' => State::Finished,
            _ => return None,
        })
    }
}

impl Phase {
    /// The phase as a map has it.
    fn symbol(self) -> char {
        match self {
            Phase::Copying => '?',
            Phase::Trimming => '*',
            Phase::Scraping => '/',
            Phase::Retrying => '-',
            Phase::Filling => 'F',
            Phase::Generating => 'G',
            Phase::Finished => '+',
        }
    }

    fn of_symbol(symbol: u8) -> Option<Phase> {
        Some(match symbol {
            b'?' => Phase::Copying,
            b'*' => Phase::Trimming,
            b'/' => Phase::Scraping,
            b'-' => Phase::Retrying,
            b'F' => Phase::Filling,
            b'G' => Phase::Generating,
            b'+' => Phase::Finished,
            _ => return None,
        })
    }

    /// The phase and pass in ddrescue's words, without the direction: that is in no field of a map.
    fn in_words(self, pass: u32) -> String {
        match self {
            Phase::Copying => format!("Copying non-tried blocks... Pass {pass}"),
            Phase::Trimming => "Trimming failed blocks...".into(),
            Phase::Scraping => "Scraping failed blocks...".into(),
            Phase::Retrying => format!("Retrying bad sectors... Retry {pass}"),
            Phase::Filling => "Filling blocks...".into(),
            Phase::Generating => "Generating mapfile...".into(),
            Phase::Finished => "Finished".into(),
        }
    }
}

/// Adds up what passes through.
struct Summed<'a> {
    out: &'a mut dyn Write,
    crc: Hasher,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.crc.update(bytes.get(..len).unwrap_or(bytes));
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes a map of ours. The blocks ascend from byte 0 on and leave nothing out, or this fails; neighbours of one
/// state become one block.
pub fn write(
    out: &mut dyn Write,
    generation: u64,
    head: &Head,
    blocks: impl Iterator<Item = Area>,
) -> io::Result<()> {
    let mut out = Summed { out, crc: Hasher::new() };
    write_creator(&mut out)?;
    writeln!(out, "{OURS}{GENERATION} {generation}")?;
    if let Some(Identity { disk, volume_serial, target }) = &head.identity {
        writeln!(out, "{OURS}{DISK} {} {}", disk.size, escaped(&disk.serial))?;
        writeln!(out, "{OURS}{VOLUME} 0x{volume_serial:016X}")?;
        if let Some(target) = target {
            writeln!(out, "{OURS}{TARGET} {} {}", target.size, escaped(&target.serial))?;
        }
    }
    let pass = head.pass.max(1);
    writeln!(out, "# {}", head.phase.in_words(pass))?;
    write_status(&mut out, head.pos, head.phase, pass)?;
    write_blocks(&mut out, blocks)?;
    let crc = out.crc.clone().finalize();
    writeln!(out, "{OURS}{CRC} 0x{crc:08X}")
}

/// Writes a domain map, for `ddrescue -m`, of a source of `len` bytes: `+` is the domain, `?` the rest. The ranges
/// ascend, do not overlap and end within the source, or this fails.
pub fn write_domain(
    out: &mut dyn Write,
    domain: impl Iterator<Item = ByteRange>,
    len: u64,
) -> io::Result<()> {
    write_creator(out)?;
    // Nothing is being done with it: the status is the one that ddrescuelog gives to a map that it makes.
    write_status(out, 0, Phase::Copying, 1)?;
    let mut at = 0;
    let blocks = domain.chain(std::iter::once(ByteRange { pos: len, len: 0 })).flat_map(|range| {
        // Where a range begins too early there is no gap, and writing it fails.
        let gap = ByteRange { pos: at, len: range.pos.saturating_sub(at) };
        at = range.pos.saturating_add(range.len);
        [Area { range: gap, state: State::NonTried }, Area { range, state: State::Finished }]
    });
    write_blocks(out, blocks)
}

fn write_creator(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "# Mapfile. Created by ntfsrescue version {}", env!("CARGO_PKG_VERSION"))
}

fn write_status(out: &mut dyn Write, pos: u64, phase: Phase, pass: u32) -> io::Result<()> {
    writeln!(out, "# current_pos  current_status  current_pass")?;
    writeln!(out, "0x{pos:08X}     {}               {pass}", phase.symbol())
}

fn write_blocks(out: &mut dyn Write, blocks: impl Iterator<Item = Area>) -> io::Result<()> {
    writeln!(out, "#      pos        size  status")?;
    let mut held: Option<Area> = None;
    let mut end = 0;
    for block in blocks {
        let ByteRange { pos, len } = block.range;
        if pos != end {
            return Err(invalid(format!("a block of the map begins at byte {pos:#x}, wanted {end:#x}")));
        }
        let past = pos.checked_add(len).filter(|end| *end <= MAX_POS);
        end =
            past.ok_or_else(|| invalid(format!("a block of the map at byte {pos:#x} has {len:#x} bytes")))?;
        held = Some(match held {
            Some(Area { range, state }) if state == block.state || block.range.len == 0 => {
                Area { range: ByteRange { pos: range.pos, len: end - range.pos }, state }
            }
            Some(before) => {
                write_block(out, before)?;
                block
            }
            None => block,
        });
        held = held.filter(|block| block.range.len > 0);
    }
    held.map_or(Ok(()), |block| write_block(out, block))
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

fn write_block(out: &mut dyn Write, Area { range, state }: Area) -> io::Result<()> {
    writeln!(out, "0x{:08X}  0x{:08X}  {}", range.pos, range.len, state.symbol())
}

/// Any text as one word: `%` and two hex digits for each byte that is not a printable ASCII character, and for `%`.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'%' => "%25".into(),
            byte if byte.is_ascii_graphic() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// The text that was [`escaped`].
fn unescaped(word: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        bytes.push(match (byte, behind) {
            (b'%', [high, low, behind @ ..]) => {
                rest = behind;
                let digit = |digit: u8| char::from(digit).to_digit(16);
                u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?
            }
            (b'%', _) => return None,
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}
