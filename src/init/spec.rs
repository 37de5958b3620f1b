//! How a job names a volume, an image, and what may be overwritten: parsed here, looked up and judged in
//! `find`.

use std::fmt;

use super::cmdline::{Text, text};
use super::template::{Field, Template, UnknownPlace};
use crate::extent::ByteRange;
use crate::io::sysfs::SECTOR;

/// One block device: a volume, or a whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSpec {
    /// `/dev/NAME`; held without `/dev/`.
    Name(Text),
    /// `UUID=`, as blkid prints it.
    Uuid(Text),
    /// `LABEL=` of the file system.
    Label(Text),
    /// `PARTUUID=`
    PartUuid(Text),
    /// `PARTLABEL=`
    PartLabel(Text),
    /// `SERIAL=<serial>:<partition number>`; number 0, or none where a whole device may be named: the disk.
    Serial(Text, u32),
    /// `MODEL=<glob>:<partition number>`
    Model(Text, u32),
    /// `SERIAL=<serial>@<byte>+<length>`: a stretch of the disk that no partition needs to name.
    Range(Text, ByteRange),
    /// `auto`: the only NTFS volume larger than 1 GiB on a disk that holds neither the target nor the stick.
    Auto,
}

/// What a save reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // one of these in a process's life
pub enum Volumes {
    /// One volume.
    One(DeviceSpec),
    /// `all`: every NTFS volume on disks that hold neither the target nor the stick.
    All,
}

/// A file on a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// The device that holds the file system.
    pub device: DeviceSpec,
    /// From the root of the file system.
    pub path: Template,
}

/// What the user says will be overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// Serials and PARTUUIDs, separated by commas; one begins with `whole:` where a whole disk with content is meant.
    AnyOf(Text),
    /// The only disk of this model and size.
    Fits {
        /// Shell pattern for the model.
        model: Text,
        /// Least size in bytes.
        min: u64,
        /// Largest size in bytes.
        max: u64,
    },
}

/// Why a value names nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not understood.
    #[error("found \"{}\", wanted {wanted}", Escaped(found))]
    Form {
        /// The value, or its part that is wrong.
        found: String,
        /// What is allowed.
        wanted: &'static str,
    },
    /// A place in a name that nothing fills in.
    #[error(transparent)]
    Place(#[from] UnknownPlace),
    /// A name with places where just one image is meant.
    #[error("found \"{}\", wanted the image's own name: only what is saved can fill a place in", Escaped(.0))]
    NotPlain(String),
    /// Images that would all get the same name.
    #[error("found \"{}\", wanted {{serial}} and {{part}} in it: source=all makes an image of each volume", Escaped(.0))]
    NotDistinct(String),
}

const VOLUME_FORMS: &str = "/dev/NAME, UUID=, LABEL=, PARTUUID=, PARTLABEL=, SERIAL=<disk's serial>:<partition number>, \
                            SERIAL=<disk's serial>@<first byte>+<length>, MODEL=<glob>:<partition number>, auto or (to \
                            save) all";
const TARGET_FORMS: &str = "/dev/NAME, UUID=, LABEL=, PARTUUID=, PARTLABEL=, SERIAL=<disk's serial>, \
                            SERIAL=<disk's serial>:<partition number>, SERIAL=<disk's serial>@<first byte>+<length> \
                            or MODEL=<glob>:<partition number>";
const FILE_SYSTEM_FORMS: &str = "LABEL=, UUID=, PARTUUID=, PARTLABEL=, SERIAL=<disk's serial>:<partition number> or \
                                 /dev/NAME, then :/path/name.img";
const CONFIRM_FORMS: &str = "the disk's serial, its PARTUUID, whole:<serial>, a comma-separated list of these, or \
                             MODEL=<glob>,SIZE=<min>-<max> (sizes in bytes, or with K, M, G or T in powers of 1024)";

/// The three places where a device is named, which differ in what they allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Source,
    Target,
    FileSystem,
}

impl DeviceSpec {
    /// Parses the source of a save or clone.
    pub fn source(value: &str) -> Result<DeviceSpec, SpecError> {
        DeviceSpec::parse(value, Use::Source)
    }

    /// Parses the target of a restore or clone: a volume or a whole device.
    pub fn target(value: &str) -> Result<DeviceSpec, SpecError> {
        DeviceSpec::parse(value, Use::Target)
    }

    fn parse(value: &str, to: Use) -> Result<DeviceSpec, SpecError> {
        let wanted = match to {
            Use::Source => VOLUME_FORMS,
            Use::Target => TARGET_FORMS,
            Use::FileSystem => FILE_SYSTEM_FORMS,
        };
        let wrong = || SpecError::Form { found: value.to_owned(), wanted };
        if value == "auto" && to == Use::Source {
            return Ok(DeviceSpec::Auto);
        }
        if let Some(name) = value.strip_prefix("/dev/") {
            let is_plain = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
            return if is_plain { Ok(DeviceSpec::Name(text(name))) } else { Err(wrong()) };
        }
        let (kind, named) = value.split_once('=').ok_or_else(wrong)?;
        if named.is_empty() {
            return Err(wrong());
        }
        let spec = match kind {
            "UUID" => DeviceSpec::Uuid(text(named)),
            "LABEL" => DeviceSpec::Label(text(named)),
            "PARTUUID" => DeviceSpec::PartUuid(text(named)),
            "PARTLABEL" => DeviceSpec::PartLabel(text(named)),
            "SERIAL" => match (with_number(named), with_range(named)) {
                (Some((serial, number)), _) => DeviceSpec::Serial(text(serial), number),
                (None, Some((serial, range))) if to != Use::FileSystem => {
                    DeviceSpec::Range(text(serial), range)
                }
                (None, None) if to == Use::Target && !named.contains('@') => {
                    DeviceSpec::Serial(text(named), 0)
                }
                _ => return Err(wrong()),
            },
            "MODEL" if to != Use::FileSystem => match with_number(named) {
                Some((model, number)) if glob::Pattern::new(model).is_ok() => {
                    DeviceSpec::Model(text(model), number)
                }
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        Ok(spec)
    }
}

/// Splits `NAME:NUMBER`.
fn with_number(named: &str) -> Option<(&str, u32)> {
    let (name, number) = named.rsplit_once(':')?;
    Some((name, number.parse().ok()?)).filter(|(name, _)| !name.is_empty())
}

/// Splits `NAME@BYTE+LENGTH`; both in whole sectors of the smallest size, as no partition has others.
fn with_range(named: &str) -> Option<(&str, ByteRange)> {
    let (name, range) = named.rsplit_once('@')?;
    let (pos, len) = range.split_once('+')?;
    let range = ByteRange { pos: pos.parse().ok()?, len: len.parse().ok()? };
    let is_possible = range.len != 0
        && range.pos.checked_add(range.len).is_some_and(|end| i64::try_from(end).is_ok())
        && range.pos.is_multiple_of(SECTOR)
        && range.len.is_multiple_of(SECTOR);
    Some((name, range)).filter(|(name, _)| !name.is_empty() && is_possible)
}

impl Volumes {
    /// Parses the source of a save.
    pub fn parse(value: &str) -> Result<Volumes, SpecError> {
        if value == "all" { Ok(Volumes::All) } else { DeviceSpec::source(value).map(Volumes::One) }
    }
}

impl ImageSpec {
    /// Parses the name of an image that is there: without places to fill in.
    pub fn existing(value: &str) -> Result<ImageSpec, SpecError> {
        let image = ImageSpec::parse(value)?;
        if image.path.is_plain() { Ok(image) } else { Err(SpecError::NotPlain(value.to_owned())) }
    }

    /// Can each of the volumes have an image of its own there?
    pub fn check_for(&self, volumes: &Volumes) -> Result<(), SpecError> {
        let is_distinct = self.path.has(Field::Serial) && self.path.has(Field::Part);
        if *volumes == Volumes::All && !is_distinct {
            return Err(SpecError::NotDistinct(self.to_string()));
        }
        Ok(())
    }

    /// Parses a file system, a colon and a path on it.
    pub fn parse(value: &str) -> Result<ImageSpec, SpecError> {
        let wrong = || SpecError::Form { found: value.to_owned(), wanted: FILE_SYSTEM_FORMS };
        let at = value.find(":/").ok_or_else(wrong)?;
        let (device, path) = value.split_at(at);
        let path = path.trim_start_matches(':');
        // A path that climbs would leave the file system that was named.
        if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
            return Err(wrong());
        }
        Ok(ImageSpec { device: DeviceSpec::parse(device, Use::FileSystem)?, path: Template::parse(path)? })
    }
}

impl Confirm {
    /// Parses what the user says will be overwritten.
    pub fn parse(value: &str) -> Result<Confirm, SpecError> {
        let wrong = |found: &str| SpecError::Form { found: found.to_owned(), wanted: CONFIRM_FORMS };
        let Some(fits) = value.strip_prefix("MODEL=") else {
            let is_list = value.split(',').all(|item| !item.trim_start_matches("whole:").trim().is_empty());
            return if is_list { Ok(Confirm::AnyOf(text(value))) } else { Err(wrong(value)) };
        };
        let (model, sizes) = fits.rsplit_once(",SIZE=").ok_or_else(|| wrong(value))?;
        let (min, max) = sizes.split_once('-').ok_or_else(|| wrong(sizes))?;
        let (Some(min), Some(max)) = (size(min), size(max)) else { return Err(wrong(sizes)) };
        if min > max || glob::Pattern::new(model).is_err() {
            return Err(wrong(value));
        }
        Ok(Confirm::Fits { model: text(model), min, max })
    }
}

/// Bytes from a number with an optional suffix, in powers of 1024.
fn size(from: &str) -> Option<u64> {
    let digits = from.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match from.get(digits.len()..)? {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Name(name) => write!(f, "/dev/{}", Escaped(name)),
            DeviceSpec::Uuid(uuid) => write!(f, "UUID={}", Escaped(uuid)),
            DeviceSpec::Label(label) => write!(f, "LABEL={}", Escaped(label)),
            DeviceSpec::PartUuid(uuid) => write!(f, "PARTUUID={}", Escaped(uuid)),
            DeviceSpec::PartLabel(label) => write!(f, "PARTLABEL={}", Escaped(label)),
            DeviceSpec::Serial(serial, 0) => write!(f, "SERIAL={}", Escaped(serial)),
            DeviceSpec::Serial(serial, number) => write!(f, "SERIAL={}:{number}", Escaped(serial)),
            DeviceSpec::Range(serial, range) => {
                write!(f, "SERIAL={}@{}+{}", Escaped(serial), range.pos, range.len)
            }
            DeviceSpec::Model(model, number) => write!(f, "MODEL={}:{number}", Escaped(model)),
            DeviceSpec::Auto => f.write_str("auto"),
        }
    }
}

impl fmt::Display for ImageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.path)
    }
}

impl fmt::Display for Confirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Confirm::AnyOf(list) => Escaped(list).fmt(f),
            Confirm::Fits { model, min, max } => write!(f, "MODEL={},SIZE={min}-{max}", Escaped(model)),
        }
    }
}

/// Text from a stranger's disk or a command line, for the console: written as escapes are control characters, and
/// those that change the order of what is around them, or cannot be seen.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write_escaped(f, c))
    }
}

/// The same in quotes, none of which can come from the text.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        self.0.chars().try_for_each(|c| match c {
            '"' | '\\' => write!(f, "\\{c}"),
            c => write_escaped(f, c),
        })?;
        f.write_str("\"")
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    use fmt::Write;
    let is_odd = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if c.is_control() || is_odd { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_in_every_form() {
        let source = |value| DeviceSpec::source(value).unwrap();
        assert_eq!(source("/dev/sda2"), DeviceSpec::Name(text("sda2")));
        assert_eq!(source("UUID=5CF1A2B3C4D5E6F7"), DeviceSpec::Uuid(text("5CF1A2B3C4D5E6F7")));
        assert_eq!(source("LABEL=My Disk=1"), DeviceSpec::Label(text("My Disk=1")));
        assert_eq!(source("SERIAL=a:b:3"), DeviceSpec::Serial(text("a:b"), 3));
        assert_eq!(source("MODEL=Sam*:1"), DeviceSpec::Model(text("Sam*"), 1));
        assert_eq!(source("auto"), DeviceSpec::Auto);
        assert_eq!(DeviceSpec::target("SERIAL=abc").unwrap(), DeviceSpec::Serial(text("abc"), 0));
        assert_eq!(source("LABEL=a\x1b[2J").to_string(), "LABEL=a\\u{1b}[2J");
    }

    #[test]
    fn text_of_strangers_is_harmless() {
        assert_eq!(
            Escaped("a\x1b[2J\u{85}\u{202e}\u{feff}ü\"").to_string(),
            "a\\u{1b}[2J\\u{85}\\u{202e}\\u{feff}ü\""
        );
        assert_eq!(Quoted("x\", UUID \"1\\\n").to_string(), r#""x\", UUID \"1\\\n""#);
    }

    #[test]
    fn what_names_nothing_says_what_would() {
        for value in
            ["", "sda1", "/dev/", "/dev/../x", "/dev/disk/by-id/x", "LABEL=", "SERIAL=a", "MODEL=[:1", "x=y"]
        {
            let error = DeviceSpec::source(value).unwrap_err().to_string();
            assert!(error.contains("/dev/NAME") && error.contains(&format!("\"{value}\"")), "{error}");
        }
        assert!(DeviceSpec::target("auto").is_err() && DeviceSpec::source("all").is_err());
    }

    #[test]
    fn a_stretch_of_a_disk_is_whole_sectors() {
        let range = ByteRange { pos: 1 << 20, len: 5120 };
        for parsed in
            [DeviceSpec::source("SERIAL=a@b@1048576+5120"), DeviceSpec::target("SERIAL=a@b@1048576+5120")]
        {
            assert_eq!(parsed.unwrap(), DeviceSpec::Range(text("a@b"), range));
        }
        assert_eq!(DeviceSpec::Range(text("a"), range).to_string(), "SERIAL=a@1048576+5120");
        for wrong in [
            "SERIAL=@0+512",
            "SERIAL=a@0+0",
            "SERIAL=a@1+512",
            "SERIAL=a@0+513",
            "SERIAL=a@512",
            "SERIAL=a@-512+512",
            "SERIAL=a@9223372036854775296+512",
            "SERIAL=a@18446744073709551104+1024",
        ] {
            assert!(DeviceSpec::source(wrong).is_err() && DeviceSpec::target(wrong).is_err(), "{wrong}");
        }
        assert!(ImageSpec::parse("SERIAL=a@0+512:/x").is_err());
    }

    #[test]
    fn every_volume_needs_a_name_of_its_own() {
        let check = |target: &str, source: &str| {
            ImageSpec::parse(target).unwrap().check_for(&Volumes::parse(source).unwrap())
        };
        assert_eq!(check("LABEL=R:/{serial}-{part}", "all"), Ok(()));
        assert_eq!(check("LABEL=R:/x", "auto"), Ok(()));
        for target in ["LABEL=R:/x", "LABEL=R:/{serial}", "LABEL=R:/{part}-{label}"] {
            assert!(matches!(check(target, "all"), Err(SpecError::NotDistinct(_))), "{target}");
        }
    }

    #[test]
    fn images_are_a_file_system_and_a_path() {
        let image = ImageSpec::parse("SERIAL=a:1:/b/c:/d.img").unwrap();
        assert_eq!(image.device, DeviceSpec::Serial(text("a"), 1));
        assert_eq!(image.path.as_str(), "/b/c:/d.img");
        assert_eq!(ImageSpec::parse("/dev/vdb:/x").unwrap().device, DeviceSpec::Name(text("vdb")));
        for wrong in [
            "LABEL=x",
            "LABEL=x:y",
            "LABEL=x:/",
            "LABEL=x:/a/../b",
            "LABEL=x:/./b",
            "auto:/x",
            "MODEL=x:1:/y",
            ":/x",
        ] {
            assert!(matches!(ImageSpec::parse(wrong), Err(SpecError::Form { .. })), "{wrong}");
        }
        assert!(matches!(ImageSpec::parse("LABEL=x:/{disk}.img"), Err(SpecError::Place(_))));
        assert!(ImageSpec::parse("LABEL=x:/{serial}.img").is_ok());
        assert!(matches!(ImageSpec::existing("LABEL=x:/{serial}.img"), Err(SpecError::NotPlain(_))));
        assert!(ImageSpec::existing("LABEL=x{:/y").is_ok(), "a label is no template");
    }

    #[test]
    fn confirmations() {
        assert_eq!(Confirm::parse("a,whole:b").unwrap(), Confirm::AnyOf(text("a,whole:b")));
        let fits = Confirm::Fits { model: text("A, B*"), min: 100 << 30, max: 1 << 40 };
        assert_eq!(Confirm::parse("MODEL=A, B*,SIZE=100G-1T").unwrap(), fits);
        for wrong in
            ["", "a,", "whole:", "MODEL=x", "MODEL=x,SIZE=1", "MODEL=x,SIZE=2-1", "MODEL=x,SIZE=1-2X"]
        {
            assert!(Confirm::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(size("99999999999T"), None);
    }
}
