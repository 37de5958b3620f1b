//! Letters that are read from two metres away, made of block characters that the kernel's own font has.

/// Rows of dots of a letter.
const HEIGHT: usize = 7;

/// Columns of dots of the widest letter.
const WIDTH: usize = 5;

/// Columns of dots of a space between two words, without the gap behind each letter.
const SPACE: usize = 2;

/// Each letter that a page needs: its rows from the top, the leftmost dot in the highest of five bits.
#[rustfmt::skip]
const LETTERS: [(char, [u8; HEIGHT]); 30] = [
    ('A', [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001]),
    ('C', [0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110]),
    ('D', [0b11110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b11110]),
    ('E', [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111]),
    ('F', [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b10000]),
    ('G', [0b01110, 0b10001, 0b10000, 0b10111, 0b10001, 0b10001, 0b01110]),
    ('H', [0b10001, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001]),
    ('I', [0b11100, 0b01000, 0b01000, 0b01000, 0b01000, 0b01000, 0b11100]),
    ('L', [0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111]),
    ('M', [0b10001, 0b11011, 0b10101, 0b10101, 0b10001, 0b10001, 0b10001]),
    ('N', [0b10001, 0b11001, 0b10101, 0b10011, 0b10001, 0b10001, 0b10001]),
    ('O', [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('P', [0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000]),
    ('R', [0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001]),
    ('S', [0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110]),
    ('T', [0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100]),
    ('U', [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('V', [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100]),
    ('Y', [0b10001, 0b10001, 0b01010, 0b00100, 0b00100, 0b00100, 0b00100]),
    ('0', [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110]),
    ('1', [0b01000, 0b11000, 0b01000, 0b01000, 0b01000, 0b01000, 0b11100]),
    ('2', [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111]),
    ('3', [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110]),
    ('4', [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010]),
    ('5', [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110]),
    ('6', [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110]),
    ('7', [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000]),
    ('8', [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110]),
    ('9', [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100]),
    ('%', [0b11000, 0b11001, 0b00010, 0b00100, 0b01000, 0b10011, 0b00011]),
];

/// How large a dot can be: columns, and half rows, since a character is twice as high as it is wide. The largest first.
const DOTS: [(usize, usize); 4] = [(4, 4), (2, 2), (1, 2), (1, 1)];

/// A text as large as it fits into so many columns and rows: its rows, all of the same length; none where it does not
/// fit at all. What is no letter of ours is left out.
pub fn large(text: &str, columns: usize, rows: usize) -> Vec<String> {
    let dots = dots(text);
    let width = dots.first().map_or(0, Vec::len);
    let fits = |(x, y): &(usize, usize)| width * x <= columns && (HEIGHT * y).div_ceil(2) <= rows;
    let Some((x, y)) = DOTS.into_iter().find(fits) else { return Vec::new() };
    let is_set = |half_row: usize, column: usize| {
        dots.get(half_row / y).and_then(|row| row.get(column)).copied().unwrap_or(false)
    };
    (0..(HEIGHT * y).div_ceil(2))
        .map(|row| {
            let character = |column| match (is_set(2 * row, column), is_set(2 * row + 1, column)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            };
            (0..width * x).map(|column| character(column / x)).collect()
        })
        .collect()
}

/// The dots of a text, row by row.
fn dots(text: &str) -> [Vec<bool>; HEIGHT] {
    let mut rows = [const { Vec::new() }; HEIGHT];
    for character in text.chars() {
        let letter = LETTERS.iter().find(|(letter, _)| *letter == character).map(|(_, letter)| letter);
        let width = match letter {
            Some(letter) => {
                let ink = letter.iter().fold(0, |ink, row| ink | row);
                WIDTH - ink.trailing_zeros() as usize
            }
            None if character == ' ' => SPACE,
            None => continue,
        };
        for (row, bits) in rows.iter_mut().zip(letter.unwrap_or(&[0; HEIGHT])) {
            if !row.is_empty() {
                row.push(false);
            }
            row.extend((0..width).map(|i| bits >> (WIDTH - 1 - i) & 1 == 1));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Do we have all letters of it?
    fn is_drawable(text: &str) -> bool {
        text.chars().all(|c| c == ' ' || LETTERS.iter().any(|(letter, _)| *letter == c))
    }

    #[test]
    fn letters_are_as_large_as_fits() {
        assert_eq!(
            large("IT", 17, 7),
            ["███ █████", " █    █  ", " █    █  ", " █    █  ", " █    █  ", " █    █  ", "███   █  ",]
        );
        assert_eq!(large("IT", 20, 4), ["▀█▀ ▀▀█▀▀", " █    █  ", " █    █  ", "▀▀▀   ▀  "]);
        let size = |columns, rows| {
            let rows = large("IT", columns, rows);
            (rows.first().map_or(0, |row| row.chars().count()), rows.len())
        };
        assert_eq!(size(18, 7), (18, 7), "twice as wide");
        assert_eq!(size(36, 14), (36, 14));
        assert_eq!(size(8, 99), (0, 0), "too narrow");
        assert_eq!(size(99, 3), (0, 0), "too low");
        assert_eq!(large("I~", 9, 9), large("I", 9, 9));
    }

    #[test]
    fn every_word_of_a_page_can_be_written() {
        use super::super::page::{Word, Work};
        for work in Work::ALL {
            let text = format!("{} 100%", work.word());
            assert!(is_drawable(&text) && !large(&text, 80, 8).is_empty(), "{text}");
        }
        for word in Word::ALL {
            assert!(is_drawable(word.text()) && !large(word.text(), 80, 7).is_empty(), "{}", word.text());
        }
        assert!(is_drawable("0123456789"));
    }
}
