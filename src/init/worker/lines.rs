//! Bytes of another program as lines: those that are torn, endless or not UTF-8 too.

/// Bytes of the longest line; a longer one is cut into several.
pub const MAX_LINE: usize = 4096;

/// The beginning of a line that has not ended yet.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes bytes and gives each line that ends in them, without its end and if there is anything in it. Carriage
    /// returns end a line too.
    pub fn take(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) {
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                self.end(line);
            } else {
                self.begun.push(*byte);
                if self.begun.len() >= MAX_LINE {
                    self.end(line);
                }
            }
        }
    }

    /// Gives what has begun as a line: nothing more comes.
    pub fn end(&mut self, line: &mut dyn FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.begun);
        let text = text.trim_end();
        if !text.is_empty() {
            line(text);
        }
        self.begun.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut all = Vec::new();
        let mut lines = Lines::default();
        let mut push = |line: &str| all.push(line.to_owned());
        pieces.iter().for_each(|piece| lines.take(piece, &mut push));
        lines.end(&mut push);
        all
    }

    #[test]
    fn every_text_becomes_lines() {
        assert_eq!(lines(&[b"a\nb", b"c\r\n\n 1%\r 2%\r", b"torn"]), ["a", "bc", " 1%", " 2%", "torn"]);
        assert_eq!(lines(&[b"\xff\xc3", b"\xa4\n"]), ["\u{fffd}\u{e4}"], "a character in two pieces");
        let long = lines(&[&[b'x'; 10_000]]);
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [4096, 4096, 1808]);
        assert_eq!(lines(&[]), [""; 0]);
    }
}
