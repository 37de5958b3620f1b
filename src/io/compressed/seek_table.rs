//! The seek table of a zstd stream: where its frames are, in a skippable frame at its end.
//!
//! As zstd's "seekable format" 0.1.0 has it, without its checksums, since each frame has one of its own: a magic and the
//! length of what follows; for each frame its length and that of its content; at last the number of frames, a byte of
//! flags and a magic. All numbers are of 32 bits and little-endian.

/// Begins the skippable frame.
const SKIPPABLE_MAGIC: u32 = super::SKIPPABLE + 0xe;

/// Ends the table.
const SEEKABLE_MAGIC: u32 = 0x8f92_eab1;

/// No checksums.
const FLAGS: u8 = 0;

/// Bytes before the first frame's entry, of an entry, and behind the last.
const HEAD: usize = 8;
const ENTRY: usize = 8;
const FOOT: usize = 9;

/// A seek table that grows with each frame.
#[derive(Debug)]
pub struct SeekTable {
    bytes: Vec<u8>,
}

impl SeekTable {
    /// An empty one with room for `nr_frames`.
    pub fn with_room(nr_frames: usize) -> SeekTable {
        let mut bytes = Vec::with_capacity(HEAD + nr_frames.saturating_mul(ENTRY) + FOOT);
        bytes.resize(HEAD, 0);
        SeekTable { bytes }
    }

    /// Adds a frame: its bytes, and those of its content.
    pub fn push(&mut self, frame: u32, content: u32) {
        self.bytes.extend_from_slice(&frame.to_le_bytes());
        self.bytes.extend_from_slice(&content.to_le_bytes());
    }

    /// The skippable frame; none where the frames are more than it can hold, which makes 2 PiB of content.
    pub fn encode(mut self) -> Option<Vec<u8>> {
        let nr_frames = u32::try_from((self.bytes.len() - HEAD) / ENTRY).ok()?;
        let len = u32::try_from(self.bytes.len() - HEAD + FOOT).ok()?;
        let head = [SKIPPABLE_MAGIC.to_le_bytes(), len.to_le_bytes()].concat();
        self.bytes.splice(..HEAD, head);
        self.bytes.extend_from_slice(&nr_frames.to_le_bytes());
        self.bytes.push(FLAGS);
        self.bytes.extend_from_slice(&SEEKABLE_MAGIC.to_le_bytes());
        Some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_laid_out_as_documented() {
        let mut table = SeekTable::with_room(2);
        table.push(0x0102, 0x40_0000);
        table.push(9, 7);
        assert_eq!(
            table.encode().unwrap(),
            b"\x5e\x2a\x4d\x18\x19\0\0\0\
              \x02\x01\0\0\0\0\x40\0\
              \x09\0\0\0\x07\0\0\0\
              \x02\0\0\0\0\xb1\xea\x92\x8f"
        );
        assert_eq!(SeekTable::with_room(0).encode().unwrap().len(), HEAD + FOOT);
    }
}
