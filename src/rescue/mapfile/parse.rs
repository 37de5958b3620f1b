//! Reading a map, ours or ddrescue's.

use std::fmt;

use super::*;

/// Longest line that is taken seriously. ddrescue's longest is the comment with its command line.
const MAX_LINE: usize = 64 << 10;

/// How much of what was found an error shows, in bytes.
const MAX_SHOWN: usize = 40;

/// What a map says, without its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What it says before them.
    pub head: Head,
    /// Of a map of ours, which the CRC proves whole. None: a map that ddrescue wrote.
    pub generation: Option<u64>,
}

/// A line that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: u64,
    /// What is there.
    pub found: String,
    /// What should be.
    pub wanted: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: found {}, wanted {}", self.line, self.found, self.wanted)
    }
}

/// Why a map is not taken.
#[derive(Debug, thiserror::Error)]
pub enum MapfileError {
    /// The system refused to read it.
    #[error("cannot read behind line {line}: {cause}")]
    Read {
        /// The last line that was read.
        line: u64,
        /// What the system said.
        cause: io::Error,
    },
    /// It has our comment, but is not as we wrote it.
    #[error("torn or changed by hand: {0}")]
    Torn(Fault),
    /// It has no comment of ours, and is no map of ddrescue's.
    #[error("{0}")]
    Syntax(Fault),
}

/// Reads a map and calls `visit` with each block, ascending. Where this returns an error, what was visited is void.
pub fn parse(from: impl BufRead, mut visit: impl FnMut(Area)) -> Result<Parsed, MapfileError> {
    let mut lines = Lines { from, line: Vec::new(), number: 0 };
    let mut crc = Hasher::new();
    let mut map = Map::default();
    while lines.advance().map_err(|stop| map.error(stop))? {
        let line = lines.line.as_slice();
        map.take(line, lines.number, &crc, &mut visit).map_err(|fault| map.error(Stop::Fault(fault)))?;
        crc.update(line);
    }
    map.finish(lines.number + 1).map_err(|fault| map.error(Stop::Fault(fault)))
}

enum Stop {
    Read { line: u64, cause: io::Error },
    Fault(Fault),
}

/// The lines with their ends, one at a time.
struct Lines<R> {
    from: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line; false at the end.
    fn advance(&mut self) -> Result<bool, Stop> {
        self.line.clear();
        let mut bounded = io::Read::take(&mut self.from, MAX_LINE as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.line);
        let len = read.map_err(|cause| Stop::Read { line: self.number, cause })?;
        self.number += u64::from(len > 0);
        if len > MAX_LINE {
            let found = "a longer line".to_string();
            let wanted = format!("at most {MAX_LINE} bytes");
            return Err(Stop::Fault(Fault { line: self.number, found, wanted }));
        }
        Ok(len > 0)
    }
}

/// What was read so far.
#[derive(Default)]
struct Map {
    status: Option<(u64, Phase, u32)>,
    /// Where the last block ends, once there is one.
    end: Option<u64>,
    generation: Option<u64>,
    disk: Option<DiskId>,
    volume_serial: Option<u64>,
    target: Option<DiskId>,
    /// The CRC was right: nothing may follow.
    sealed: bool,
}

impl Map {
    /// What kind of error it is depends on whose map it is.
    fn error(&self, stop: Stop) -> MapfileError {
        match stop {
            Stop::Read { line, cause } => MapfileError::Read { line, cause },
            Stop::Fault(fault) if self.generation.is_some() => MapfileError::Torn(fault),
            Stop::Fault(fault) => MapfileError::Syntax(fault),
        }
    }

    /// Takes in one line; `crc` is that of all lines before it.
    fn take(
        &mut self,
        line: &[u8],
        number: u64,
        crc: &Hasher,
        visit: &mut impl FnMut(Area),
    ) -> Result<(), Fault> {
        if self.sealed {
            return Err(fault(number, line, "nothing behind the line with the CRC"));
        }
        if let Some(ours) = line.strip_prefix(OURS.as_bytes()) {
            return self.take_ours(ours, number, crc);
        }
        let mut words = words(line);
        let Some(first) = words.next() else { return Ok(()) };
        let pos = integer(first).ok_or_else(|| fault(number, first, "a position below 2^63"))?;
        if self.status.is_none() {
            let word = words.next().unwrap_or_default();
            let phase = word.first().copied().and_then(Phase::of_symbol);
            let phase = phase.ok_or_else(|| fault(number, word, "one of ?*/-FG+, the current status"))?;
            let word = words.next().unwrap_or_default();
            let pass = pass(word).ok_or_else(|| fault(number, word, "a pass from 1 to 2147483647"))?;
            self.status = Some((pos, phase, pass));
            return Ok(());
        }
        let word = words.next().unwrap_or_default();
        let len = integer(word).ok_or_else(|| fault(number, word, "a size below 2^63"))?;
        if len > MAX_POS - pos {
            return Err(fault(number, word, "a block that ends below 2^63"));
        }
        let word = words.next().unwrap_or_default();
        let state = word.first().copied().and_then(State::of_symbol);
        let state = state.ok_or_else(|| fault(number, word, "one of ?*/-+, the block's status"))?;
        if let Some(end) = self.end.filter(|end| *end != pos) {
            return Err(fault(
                number,
                first,
                format!("a block that begins where the last one ends, 0x{end:08X}"),
            ));
        }
        let range = ByteRange { pos, len };
        self.end = Some(range.end());
        if len > 0 {
            visit(Area { range, state });
        }
        Ok(())
    }

    /// Takes in a comment of ours, without what it begins with. Keys that are not known are of a later version.
    fn take_ours(&mut self, line: &[u8], number: u64, crc: &Hasher) -> Result<(), Fault> {
        let mut words = words(line);
        let key = words.next().unwrap_or_default();
        let word = words.next().unwrap_or_default();
        let disk = |serial: Option<&[u8]>| {
            let size = decimal(word)?;
            Some(DiskId { serial: unescaped(serial.unwrap_or_default())?, size })
        };
        match key {
            key if key == GENERATION.as_bytes() => {
                let generation = decimal(word).ok_or_else(|| fault(number, word, "a generation"))?;
                self.generation = Some(generation);
            }
            key if key == DISK.as_bytes() => {
                let disk =
                    disk(words.next()).ok_or_else(|| fault(number, line, "a disk's size and serial"))?;
                self.disk = Some(disk);
            }
            key if key == TARGET.as_bytes() => {
                let disk =
                    disk(words.next()).ok_or_else(|| fault(number, line, "a disk's size and serial"))?;
                self.target = Some(disk);
            }
            key if key == VOLUME.as_bytes() => {
                let serial = hex(word).ok_or_else(|| fault(number, word, "a volume's serial number"))?;
                self.volume_serial = Some(serial);
            }
            key if key == CRC.as_bytes() => {
                let wanted = format!("crc 0x{:08X}\n", crc.clone().finalize());
                if line != wanted.as_bytes() {
                    return Err(fault(number, line, wanted.trim_end()));
                }
                self.sealed = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// The end of the file, where line `number` would begin.
    fn finish(&self, number: u64) -> Result<Parsed, Fault> {
        let end = |wanted: &str| Fault { line: number, found: "the end".into(), wanted: wanted.into() };
        if self.generation.is_some() && !self.sealed {
            return Err(end("a line with the CRC"));
        }
        let (pos, phase, pass) = self.status.ok_or_else(|| end("a line with position and status"))?;
        let identity = self.disk.clone().zip(self.volume_serial).map(|(disk, volume_serial)| Identity {
            disk,
            volume_serial,
            target: self.target.clone(),
        });
        Ok(Parsed { head: Head { pos, phase, pass, identity }, generation: self.generation })
    }
}

fn fault(line: u64, found: &[u8], wanted: impl Into<String>) -> Fault {
    let shown = found.trim_ascii().get(..MAX_SHOWN).unwrap_or(found.trim_ascii());
    let found = match shown {
        [] => "nothing".into(),
        shown => format!("\"{}\"", shown.escape_ascii()),
    };
    Fault { line, found, wanted: wanted.into() }
}

/// What white space separates, up to a comment.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    line.split(is_blank).filter(|word| !word.is_empty()).take_while(|word| !word.starts_with(b"#"))
}

/// An integer as C writes it, at most [`MAX_POS`].
fn integer(word: &[u8]) -> Option<u64> {
    let value = match word {
        [b'0', b'x' | b'X', ..] => hex(word),
        [b'0', digits @ ..] if !digits.is_empty() => number(digits, 8),
        digits => decimal(digits),
    };
    value.filter(|value| *value <= MAX_POS)
}

fn decimal(word: &[u8]) -> Option<u64> {
    number(word, 10)
}

/// Any 64 bits, with `0x` before them.
fn hex(word: &[u8]) -> Option<u64> {
    number(word.strip_prefix(b"0x").or_else(|| word.strip_prefix(b"0X"))?, 16)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    // The standard library would take a sign too.
    let digits = str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u64::from_str_radix(digits, radix).ok()
}

/// The pass, 1 where it is absent: what begins with no digit is text.
fn pass(word: &[u8]) -> Option<u32> {
    let nr_digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match word.get(..nr_digits) {
        None | Some([]) => Some(1),
        Some(digits) => decimal(digits)
            .and_then(|pass| u32::try_from(pass).ok())
            .filter(|pass| (1..=i32::MAX as u32).contains(pass)),
    }
}
