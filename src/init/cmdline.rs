//! The kernel command line as the kernel itself splits it: words at white space, double quotes around a whole word
//! or around its value (`lib/cmdline.c`, `next_arg`).

/// Bytes of the longest command line that is taken: x86 passes on 2048, others up to 4096.
pub const MAX_LEN: usize = 4096;

/// Text whose length the command line bounds.
pub type Text = heapless::String<MAX_LEN>;

/// The text in bounded memory. What is longer than the command line cannot come from it, and is cut.
pub fn text(from: &str) -> Text {
    let mut end = from.len().min(MAX_LEN);
    while !from.is_char_boundary(end) {
        end -= 1;
    }
    Text::try_from(from.get(..end).unwrap_or_default()).unwrap_or_default()
}

/// The words of a command line: each a key and, where there is a `=`, its value, both without the quotes.
pub fn words(line: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            return None;
        }
        let mut in_quotes = false;
        let end = rest.find(|c: char| {
            in_quotes ^= c == '"';
            is_space(c) && !in_quotes
        });
        let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
        rest = behind;
        Some(split(word))
    })
}

fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// Splits a word at its first `=` and takes the quotes off.
fn split(word: &str) -> (&str, Option<&str>) {
    let word = match word.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => word,
    };
    match word.split_once('=') {
        None => (word, None),
        Some((key, value)) => match value.strip_prefix('"') {
            Some(inner) => (key, Some(inner.strip_suffix('"').unwrap_or(inner))),
            None => (key, Some(value)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_blanks_together_around_a_word_or_a_value() {
        let line = "quiet a.b=\"c d\" \"e.f=g h\"\ti= j=k=l m=\"n o\n";
        let all: Vec<_> = words(line).collect();
        assert_eq!(
            all,
            [
                ("quiet", None),
                ("a.b", Some("c d")),
                ("e.f", Some("g h")),
                ("i", Some("")),
                ("j", Some("k=l")),
                ("m", Some("n o\n")),
            ]
        );
        assert_eq!(words(" \n").count(), 0);
    }

    #[test]
    fn text_is_bounded_at_a_character() {
        assert_eq!(text("abc"), "abc");
        assert_eq!(text(&"é".repeat(3000)).len(), 4096);
        assert_eq!(text(&format!("a{}", "é".repeat(3000))).len(), 4095);
    }
}
