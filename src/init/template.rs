//! The name of an image that is still to be written, with places that the source fills in: `/{serial}-{part}.img`.
//!
//! What is filled in comes from strangers' disks, so only harmless bytes of it get into a name.

use std::fmt;
use std::path::Path;

use super::cmdline::{Text, text};
use super::spec::Escaped;

/// What a place in a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Field {
    Serial,
    Part,
    Label,
    Uuid,
    Date,
}

/// Each with its name.
const FIELDS: [(&str, Field); 5] = [
    ("serial", Field::Serial),
    ("part", Field::Part),
    ("label", Field::Label),
    ("uuid", Field::Uuid),
    ("date", Field::Date),
];

/// What a date looks like: digits where the zeros are.
const DATE_FORM: &str = "0000-00-00";

/// What fills the places of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    /// The disk's serial number.
    pub serial: &'a str,
    /// The partition's number; 0 for the whole disk.
    pub part: u32,
    /// The volume's label.
    pub label: &'a str,
    /// The volume's serial number, as blkid prints it.
    pub uuid: &'a str,
    /// As [`date_of`] has it.
    pub date: &'a str,
}

/// A path from the root of a file system, with places to fill in. It begins with a slash and does not climb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Text);

/// Why a name cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found \"{}\" in a name, wanted {{serial}}, {{part}}, {{label}}, {{uuid}} or {{date}}", Escaped(.0))]
pub struct UnknownPlace(pub String);

/// A stretch of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Literal(&'a str),
    Place(Field),
}

/// Splits a template into its stretches; a place that is none is the error.
fn tokens(template: &str) -> impl Iterator<Item = Result<Token<'_>, UnknownPlace>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        let (literal, behind) = rest.split_at(rest.find(['{', '}']).unwrap_or(rest.len()));
        if !literal.is_empty() {
            rest = behind;
            return Some(Ok(Token::Literal(literal)));
        }
        let end = rest.find('}').map_or(rest.len(), |at| at + 1);
        let (place, behind) = rest.split_at(end);
        rest = behind;
        let name = place.strip_prefix('{').and_then(|place| place.strip_suffix('}'));
        let field = FIELDS.into_iter().find(|(own, _)| Some(*own) == name);
        let unknown = || UnknownPlace(place.to_owned());
        (!place.is_empty()).then(|| field.map(|(_, field)| Token::Place(field)).ok_or_else(unknown))
    })
}

impl Template {
    /// Checks the places in a path. That it is a path is for the caller to see to.
    pub fn parse(path: &str) -> Result<Template, UnknownPlace> {
        tokens(path).try_for_each(|token| token.map(|_| ()))?;
        Ok(Template(text(path)))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does it have this place?
    pub fn has(&self, field: Field) -> bool {
        tokens(&self.0).flatten().any(|token| token == Token::Place(field))
    }

    /// Does it have no place at all?
    pub fn is_plain(&self) -> bool {
        !tokens(&self.0).flatten().any(|token| matches!(token, Token::Place(_)))
    }

    /// The path. None where it gets longer than [`Text`] holds.
    pub fn fill(&self, names: &Names<'_>) -> Option<Text> {
        fill(&self.0, names)
    }

    /// Could this path be filled in by the same names on some day?
    pub fn matches_but_for_date(&self, names: &Names<'_>, path: &str) -> bool {
        matches_but_for_date(&self.0, names, path)
    }

    /// All files below `root` whose path is filled in by the same names on some day and then has `suffix`, in the
    /// order of their names. Paths as [`Template::fill`] makes them, without `root` and `suffix`.
    pub fn find_but_for_date(&self, root: &Path, names: &Names<'_>, suffix: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        let mut parts = self.0.split('/').skip(1).peekable();
        while let Some(part) = parts.next() {
            let suffix = if parts.peek().is_none() { suffix } else { "" };
            found = found.iter().flat_map(|folder| entries(root, folder, part, names, suffix)).collect();
        }
        found.retain(|path| root.join(format!("{path}{suffix}").trim_start_matches('/')).is_file());
        found
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

/// What in a folder below `root` could be `part` of a path on some day, with `suffix` behind it.
fn entries(root: &Path, folder: &str, part: &str, names: &Names<'_>, suffix: &str) -> Vec<String> {
    let folder_path = root.join(folder.trim_start_matches('/'));
    let entries = std::fs::read_dir(folder_path).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut fitting: Vec<String> = named
        .filter_map(|name| {
            let name = name.strip_suffix(suffix)?;
            matches_but_for_date(part, names, name).then(|| format!("{folder}/{name}"))
        })
        .collect();
    fitting.sort();
    fitting
}

fn fill(template: &str, names: &Names<'_>) -> Option<Text> {
    let mut path = Text::new();
    for token in tokens(template).flatten() {
        match token {
            Token::Literal(literal) => path.push_str(literal).ok()?,
            Token::Place(Field::Part) => {
                use fmt::Write;
                write!(path, "{}", names.part).ok()?;
            }
            Token::Place(Field::Serial) => push_harmless(&mut path, names.serial)?,
            Token::Place(Field::Label) => push_harmless(&mut path, names.label)?,
            Token::Place(Field::Uuid) => push_harmless(&mut path, names.uuid)?,
            Token::Place(Field::Date) => push_harmless(&mut path, names.date)?,
        }
    }
    Some(path)
}

/// What a disk says as a part of a name.
pub fn harmless(value: &str) -> Text {
    let mut name = Text::new();
    // What is too long for a name is cut.
    let _cut = push_harmless(&mut name, value);
    name
}

/// Adds what a disk says: every byte that could mean something becomes `_`, and so does what would vanish, or be a
/// folder itself: nothing at all, and nothing but dots.
fn push_harmless(path: &mut Text, value: &str) -> Option<()> {
    if value.is_empty() {
        return path.push('_').ok();
    }
    let is_dots = value.bytes().all(|byte| byte == b'.');
    value.bytes().try_for_each(|byte| {
        let is_harmless = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        path.push(if is_harmless && !is_dots { byte.into() } else { '_' }).ok()
    })
}

fn matches_but_for_date(template: &str, names: &Names<'_>, path: &str) -> bool {
    let Some(form) = fill(template, &Names { date: DATE_FORM, ..*names }) else { return false };
    // Where in the form the dates are: a serial number may look like one.
    let mut dates = Vec::new();
    let mut at = 0;
    for token in tokens(template).flatten() {
        let len = match token {
            Token::Literal(literal) => literal.len(),
            Token::Place(field) => {
                let name = FIELDS.into_iter().find(|(_, own)| *own == field).map_or("", |(name, _)| name);
                fill(&format!("{{{name}}}"), &Names { date: DATE_FORM, ..*names })
                    .map_or(0, |text| text.len())
            }
        };
        if token == Token::Place(Field::Date) {
            dates.push(at..at + len);
        }
        at += len;
    }
    form.len() == path.len()
        && form.bytes().zip(path.bytes()).enumerate().all(|(at, (form, byte))| {
            let is_digit = form == b'0' && dates.iter().any(|date| date.contains(&at));
            if is_digit { byte.is_ascii_digit() } else { form == byte }
        })
}

/// The day as `YYYY-MM-DD`, from seconds since 1970, UTC. Years of four digits only: the clock of a machine may be
/// anything.
pub fn date_of(unix_seconds: u64) -> heapless::String<10> {
    use fmt::Write;
    // Counted in eras of 400 years from 1 March of year 0 on: 1970 began 719,468 days later.
    let days = (unix_seconds / 86_400).min(2_932_896) + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let mut date = heapless::String::new();
    if write!(date, "{year:04}-{month:02}-{day:02}").is_err() {
        date.clear();
    }
    date
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'static> =
        Names { serial: "WD 12/34", part: 2, label: "Größe", uuid: "5CF1A2B3C4D5E6F7", date: "2026-11-23" };

    fn filled(template: &str, names: &Names<'_>) -> String {
        Template::parse(template).unwrap().fill(names).unwrap().as_str().to_owned()
    }

    #[test]
    fn places_are_filled_with_harmless_bytes() {
        for (template, path) in [
            ("/x.img", "/x.img"),
            ("/{serial}-{part}.img", "/WD_12_34-2.img"),
            ("/{date}/{label}_{uuid}", "/2026-11-23/Gr____e_5CF1A2B3C4D5E6F7"),
            ("/{part}{part}", "/22"),
        ] {
            assert_eq!(filled(template, &NAMES), path);
        }
    }

    #[test]
    fn what_a_disk_says_makes_no_other_path() {
        for (label, name) in [
            ("", "_"),
            (".", "_"),
            ("..", "__"),
            ("../../etc", ".._.._etc"),
            ("a\0b", "a_b"),
            ("{date}", "_date_"),
        ] {
            assert_eq!(filled("/{label}/x", &Names { label, ..NAMES }), format!("/{name}/x"));
        }
        assert_eq!(filled("/{label}{serial}/x", &Names { label: ".", serial: ".", ..NAMES }), "/__/x");
        let long = "x".repeat(5000);
        assert_eq!(Template::parse("/{label}").unwrap().fill(&Names { label: &long, ..NAMES }), None);
    }

    #[test]
    fn unknown_places_are_named() {
        for (template, found) in [
            ("/{seral}", "{seral}"),
            ("/a{", "{"),
            ("/a}b", "}"),
            ("/{}", "{}"),
            ("/{serial", "{serial"),
            ("/{{serial}}", "{{serial}"),
        ] {
            assert_eq!(Template::parse(template), Err(UnknownPlace(found.into())), "{template}");
        }
        assert_eq!(
            UnknownPlace("{x}".into()).to_string(),
            "found \"{x}\" in a name, wanted {serial}, {part}, {label}, {uuid} or {date}"
        );
    }

    #[test]
    fn names_that_differ_in_the_date_are_known() {
        let template = Template::parse("/{date}/{serial}-{date}.img").unwrap();
        let names = Names { serial: "0000-00-00", ..NAMES };
        for (path, fits) in [
            ("/2026-11-23/0000-00-00-2026-11-23.img", true),
            ("/2025-01-02/0000-00-00-1999-12-31.img", true),
            ("/2025-01-02/1111-00-00-1999-12-31.img", false),
            ("/2025-01-0x/0000-00-00-1999-12-31.img", false),
            ("/2025-01-02/0000-00-00-1999-12-31.im", false),
            ("/2025-01-02/0000-00-00-1999-12-31.img.part", false),
        ] {
            assert_eq!(template.matches_but_for_date(&names, path), fits, "{path}");
        }
        assert!(Template::parse("/a").unwrap().matches_but_for_date(&NAMES, "/a"));
        assert!(template.has(Field::Date) && !template.has(Field::Part) && !template.is_plain());
    }

    #[test]
    fn files_are_found_but_for_the_date() {
        let root = tempfile::tempdir().unwrap();
        for (folder, file) in [
            ("2026-01-01", "A-2026-01-01.img.part"),
            ("2025-01-01", "A-2025-01-01.img.part"),
            ("2024-01-01", "A-2024-01-01.img"),
            ("2023-01-01", "B-2023-01-01.img.part"),
            ("old", "A-2022-01-01.img.part"),
        ] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
            std::fs::write(root.path().join(folder).join(file), "").unwrap();
        }
        let template = Template::parse("/{date}/{serial}-{date}.img").unwrap();
        let names = Names { serial: "A", ..NAMES };
        assert_eq!(
            template.find_but_for_date(root.path(), &names, ".part"),
            ["/2025-01-01/A-2025-01-01.img", "/2026-01-01/A-2026-01-01.img"]
        );
        assert_eq!(template.find_but_for_date(root.path(), &names, ""), ["/2024-01-01/A-2024-01-01.img"]);
        let plain = Template::parse("/2024-01-01/A-2024-01-01.img").unwrap();
        assert_eq!(plain.find_but_for_date(root.path(), &names, "").len(), 1);
    }

    #[test]
    fn days_have_their_date() {
        for (seconds, date) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_795_392_000, "2026-11-23"),
            (4_107_542_400, "2100-03-01"),
            (u64::MAX, "9999-12-31"),
        ] {
            assert_eq!(date_of(seconds), date);
        }
    }
}
