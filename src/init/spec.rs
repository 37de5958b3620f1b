//! How a job names a volume, an image, and what may be overwritten: parsed here, looked up and judged in
//! `find`.

use std::fmt;

use super::cmdline::{Text, text};

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
    /// `auto`: the only NTFS volume larger than 1 GiB on a disk that does not hold the target.
    Auto,
}

/// A file on a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// The device that holds the file system.
    pub device: DeviceSpec,
    /// From the root of the file system; begins with a slash.
    pub path: Text,
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
    /// Understood, but not done yet.
    #[error("{0} is not available in this version")]
    Later(&'static str),
}

const VOLUME_FORMS: &str = "/dev/NAME, UUID=, LABEL=, PARTUUID=, PARTLABEL=, SERIAL=<disk's serial>:<partition number>, \
                            MODEL=<glob>:<partition number> or auto";
const TARGET_FORMS: &str = "/dev/NAME, UUID=, LABEL=, PARTUUID=, PARTLABEL=, SERIAL=<disk's serial>, \
                            SERIAL=<disk's serial>:<partition number> or MODEL=<glob>:<partition number>";
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
        match value {
            "auto" if to == Use::Source => return Ok(DeviceSpec::Auto),
            "all" if to == Use::Source => return Err(SpecError::Later("all (every NTFS volume)")),
            _ => {}
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
            "SERIAL" => match with_number(named) {
                Some((serial, number)) => DeviceSpec::Serial(text(serial), number),
                None if named.contains('@') => {
                    return Err(SpecError::Later("SERIAL=<serial>@<byte>+<length>"));
                }
                None if to == Use::Target => DeviceSpec::Serial(text(named), 0),
                None => return Err(wrong()),
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

impl ImageSpec {
    /// Parses a file system, a colon and a path on it.
    pub fn parse(value: &str) -> Result<ImageSpec, SpecError> {
        let wrong = || SpecError::Form { found: value.to_owned(), wanted: FILE_SYSTEM_FORMS };
        let at = value.find(":/").ok_or_else(wrong)?;
        let (device, path) = value.split_at(at);
        let path = path.trim_start_matches(':');
        if path.contains('{') || device.contains('{') {
            return Err(SpecError::Later("a name with {serial}, {part}, {label}, {uuid} or {date}"));
        }
        // A path that climbs would leave the file system that was named.
        if path.ends_with('/') || path.split('/').any(|part| part == "..") {
            return Err(wrong());
        }
        Ok(ImageSpec { device: DeviceSpec::parse(device, Use::FileSystem)?, path: text(path) })
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
            DeviceSpec::Serial(serial, number) => write!(f, "SERIAL={}:{number}", Escaped(serial)),
            DeviceSpec::Model(model, number) => write!(f, "MODEL={}:{number}", Escaped(model)),
            DeviceSpec::Auto => f.write_str("auto"),
        }
    }
}

/// Text from a stranger's disk or a command line, for the console: control characters written as escapes.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.0.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
        })
    }
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
    fn what_names_nothing_says_what_would() {
        for value in
            ["", "sda1", "/dev/", "/dev/../x", "/dev/disk/by-id/x", "LABEL=", "SERIAL=a", "MODEL=[:1", "x=y"]
        {
            let error = DeviceSpec::source(value).unwrap_err().to_string();
            assert!(error.contains("/dev/NAME") && error.contains(&format!("\"{value}\"")), "{error}");
        }
        for later in ["all", "SERIAL=a@0+512"] {
            assert!(matches!(DeviceSpec::source(later), Err(SpecError::Later(_))), "{later}");
        }
        assert!(DeviceSpec::target("auto").is_err());
    }

    #[test]
    fn images_are_a_file_system_and_a_path() {
        let image = ImageSpec::parse("SERIAL=a:1:/b/c:/d.img").unwrap();
        assert_eq!(image.device, DeviceSpec::Serial(text("a"), 1));
        assert_eq!(image.path, "/b/c:/d.img");
        assert_eq!(ImageSpec::parse("/dev/vdb:/x").unwrap().device, DeviceSpec::Name(text("vdb")));
        for wrong in
            ["LABEL=x", "LABEL=x:y", "LABEL=x:/", "LABEL=x:/a/../b", "auto:/x", "MODEL=x:1:/y", ":/x"]
        {
            assert!(matches!(ImageSpec::parse(wrong), Err(SpecError::Form { .. })), "{wrong}");
        }
        assert!(matches!(ImageSpec::parse("LABEL=x:/{serial}.img"), Err(SpecError::Later(_))));
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
