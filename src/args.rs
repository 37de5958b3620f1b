//! The options as they were typed.
//!
//! clap parses them; before it sees them, long options that were cut to a unique prefix are written out, as
//! getopt_long does: first among ntfsclone's own options and, only if none fits, among ours, so that an addition
//! of ours never makes a script's prefix ambiguous.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueHint};

/// ntfsclone's long options, in the order of its help.
const NTFSCLONE_OPTIONS: &[&str] = &[
    "output",
    "overwrite",
    "save-image",
    "restore-image",
    "rescue",
    "metadata",
    "no-action",
    "ignore-fs-check",
    "new-serial",
    "new-half-serial",
    "preserve-timestamps",
    "quiet",
    "force",
    "full-logfile",
    "help",
    "version",
];

/// Our additions.
const OWN_OPTIONS: &[&str] = &[
    "strict",
    "map",
    "map-interval",
    "first",
    "whole",
    "retries",
    "max-errors",
    "max-time",
    "reconnect",
    "no-repair",
    "report",
    "domain-out",
    "events",
    "finish",
    "check-config",
    "verify",
    "no-verify",
    "split",
    "checksum",
    "no-checksum",
    "against",
    "compress",
];

/// Those that take a value.
const LONG_WITH_VALUE: &[&str] = &[
    "output",
    "overwrite",
    "map",
    "map-interval",
    "first",
    "retries",
    "max-errors",
    "max-time",
    "reconnect",
    "report",
    "domain-out",
    "events",
    "finish",
    "check-config",
    "split",
    "against",
    "compress",
];
const SHORT_WITH_VALUE: &[u8] = b"oO";

/// Clone, save, restore or rescue an NTFS volume, copying only the clusters in use.
#[derive(Debug, Parser)]
#[command(name = "ntfsrescue", version, max_term_width = 100, override_usage = "ntfsrescue [OPTIONS] SOURCE")]
pub struct Args {
    /// Write to FILE, which must not exist; '-' is standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, allow_hyphen_values = true)]
    pub output: Option<PathBuf>,

    /// Write to FILE, a device or an existing file, replacing its content
    #[arg(short = 'O', long, value_name = "FILE", value_hint = ValueHint::FilePath, allow_hyphen_values = true)]
    pub overwrite: Option<PathBuf>,

    /// Write the special image format
    #[arg(short, long, overrides_with = "save_image")]
    pub save_image: bool,

    /// SOURCE is a special image; '-' is standard input
    #[arg(short, long, overrides_with = "restore_image")]
    pub restore_image: bool,

    /// Go on after read errors: what cannot be read is marked BadSectoR
    #[arg(long, overrides_with = "rescue")]
    pub rescue: bool,

    /// Copy metadata only: no contents of files, and nothing else that is private
    #[arg(short, long, overrides_with = "metadata")]
    pub metadata: bool,

    /// With --restore-image: check the image, write nothing
    #[arg(short, long, overrides_with = "no_action")]
    pub no_action: bool,

    /// With --rescue or --metadata: go on although the volume's structures are damaged or disagree
    #[arg(long, overrides_with = "ignore_fs_check")]
    pub ignore_fs_check: bool,

    /// Give the clone a new random serial number
    #[arg(long, overrides_with = "new_serial")]
    pub new_serial: bool,

    /// Give the clone a serial number whose upper half is new
    #[arg(long, overrides_with = "new_half_serial")]
    pub new_half_serial: bool,

    /// With --metadata: keep the times of files
    #[arg(short = 't', long, overrides_with = "preserve_timestamps")]
    pub preserve_timestamps: bool,

    /// With --metadata: keep the whole $LogFile, as it is
    #[arg(long, overrides_with = "full_logfile")]
    pub full_logfile: bool,

    /// Go on although the volume is marked dirty, or with --metadata to a device
    #[arg(short, long, overrides_with = "force")]
    pub force: bool,

    /// Show no progress
    #[arg(short, long, overrides_with = "quiet")]
    pub quiet: bool,

    /// Exit with status 3 if anything was lost
    #[arg(long, overrides_with = "strict")]
    pub strict: bool,

    /// Keep what was read and what was lost in FILE, in GNU ddrescue's format, and go on where it says
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub map: Option<PathBuf>,

    /// Write the map so often at most
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "30",
          overrides_with = "map_interval")]
    pub map_interval: Duration,

    /// Read the files that match before all others: a path or a pattern such as 'Users/*/Documents'
    #[arg(long, value_name = "PATTERN")]
    pub first: Vec<String>,

    /// Read free space too, after all else
    #[arg(long, overrides_with = "whole")]
    pub whole: bool,

    /// Try bad sectors N times more
    #[arg(long, value_name = "N", default_value = "0")]
    pub retries: u32,

    /// End after N reads have failed
    #[arg(long, value_name = "N")]
    pub max_errors: Option<u64>,

    /// End after TIME: seconds, or a number followed by s, m, h or d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub max_time: Option<Duration>,

    /// Wait so long for a disk that has gone away to come back
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "0",
          overrides_with = "reconnect")]
    pub reconnect: Duration,

    /// Mark what has a copy elsewhere too, instead of writing the copy in its place
    #[arg(long, overrides_with = "no_repair")]
    pub no_repair: bool,

    /// Write a report of what was saved and lost to FILE, as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub report: Option<PathBuf>,

    /// Write the bytes in use to FILE, as a domain map for 'ddrescue -m'
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub domain_out: Option<PathBuf>,

    /// With --save-image: write numbered parts of SIZE bytes, FILE.001 and so on; SIZE may end with K, M or G
    #[arg(long, value_name = "SIZE", value_parser = parse_size, overrides_with = "split")]
    pub split: Option<u64>,

    /// With --save-image: compress the image with zstd, by default at level 3, or with lz4
    #[arg(long, value_name = "zstd[:LEVEL]|lz4", overrides_with = "compress")]
    pub compress: Option<String>,

    /// With --save-image: end the image with checksums on standard output and in pipes too, where it has none by itself
    #[arg(long, overrides_with = "checksum")]
    pub checksum: bool,

    /// Write an image without checksums, byte for byte as ntfsclone does; read one without comparing those it has
    #[arg(long, overrides_with = "no_checksum")]
    pub no_checksum: bool,

    /// Check the image SOURCE, write nothing. With --restore-image: read the target back when it is written, and compare
    /// it with the image
    #[arg(long, overrides_with = "verify")]
    pub verify: bool,

    /// With --verify: compare the image with the volume on DEVICE too
    #[arg(long, value_name = "DEVICE", value_hint = ValueHint::FilePath)]
    pub against: Option<PathBuf>,

    /// Do not, whatever --verify says
    #[arg(long, overrides_with = "no_verify")]
    pub no_verify: bool,

    /// Write events as lines to this open file descriptor
    #[arg(long, value_name = "FD")]
    pub events: Option<i32>,

    /// Make the TARGET of a rescue that has ended complete, without its disk: mark what the map MAP says is missing
    #[arg(long, value_name = "MAP", value_hint = ValueHint::FilePath)]
    pub finish: Option<PathBuf>,

    /// Check FILE, an ntfsrescue.conf of the bootable system, and tell its job in words; do nothing else
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, exclusive = true)]
    pub check_config: Option<PathBuf>,

    /// The volume: a device or a file. With --restore-image or --verify: the image. With --finish: the target
    #[arg(value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
}

/// Seconds, or a number with its unit.
fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(|unit: char| unit.is_ascii_alphabetic()) {
        Some(number) => (number, text.get(number.len()..).unwrap_or_default()),
        None => (text, "s"),
    };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("wanted seconds, or a number followed by s, m, h or d".into()),
    };
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "too long".into())
}

/// Bytes of a part: a number, or one with its unit.
fn parse_size(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, 'K')) => (text.get(..at), 10),
        Some((at, 'M')) => (text.get(..at), 20),
        Some((at, 'G')) => (text.get(..at), 30),
        _ => (Some(text), 0),
    };
    let number: u64 = number.unwrap_or_default().parse().map_err(|error| format!("{error}"))?;
    let size = number.checked_mul(1 << shift).filter(|size| i64::try_from(*size).is_ok());
    size.ok_or_else(|| "too large".into())
}

/// What was typed instead of options that make sense.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// A prefix of several options.
    #[error("option '{typed}' is ambiguous; possibilities:{}", .candidates.iter().map(|name| format!(" '--{name}'")).collect::<String>())]
    Ambiguous {
        /// What was typed.
        typed: String,
        /// The options that begin so.
        candidates: Vec<&'static str>,
    },
    /// What clap says: an error, or the text of --help or --version.
    #[error(transparent)]
    Clap(#[from] clap::Error),
}

impl Args {
    /// Parses a command line; the first argument is the program's name.
    pub fn parse_from_argv(argv: impl IntoIterator<Item = OsString>) -> Result<Args, ArgsError> {
        Ok(Args::try_parse_from(expand_prefixes(argv)?)?)
    }
}

/// Writes long options out. Values are left alone, and so is everything behind `--`.
fn expand_prefixes(argv: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, ArgsError> {
    let mut expanded = Vec::new();
    let mut is_value = true; // the program's name
    let mut only_names = false;
    for arg in argv {
        if is_value || only_names {
            is_value = false;
            expanded.push(arg);
            continue;
        }
        match arg.as_bytes() {
            b"--" => {
                only_names = true;
                expanded.push(arg);
            }
            [b'-', b'-', long @ ..] => {
                let at = long.iter().position(|byte| *byte == b'=').unwrap_or(long.len());
                let (typed, value) = long.split_at(at);
                let typed = String::from_utf8_lossy(typed);
                let name = complete(&typed)?;
                is_value = value.is_empty() && LONG_WITH_VALUE.contains(&name);
                let mut whole = OsString::from(format!("--{name}"));
                whole.push(OsStr::from_bytes(value));
                expanded.push(whole);
            }
            [b'-', cluster @ ..] => {
                // What follows an option that takes a value is its value, whatever it is: clap would take a `=` off.
                let takes_value = cluster.iter().position(|option| SHORT_WITH_VALUE.contains(option));
                let (options, value) = cluster.split_at(takes_value.map_or(cluster.len(), |at| at + 1));
                is_value = takes_value.is_some() && value.is_empty();
                expanded.push(OsString::from_vec([b"-", options].concat()));
                if !value.is_empty() {
                    expanded.push(OsString::from_vec(value.to_vec()));
                }
            }
            _ => expanded.push(arg),
        }
    }
    Ok(expanded)
}

/// The only option that begins with `typed`; what fits none is left for clap to refuse.
fn complete(typed: &str) -> Result<&str, ArgsError> {
    for options in [NTFSCLONE_OPTIONS, OWN_OPTIONS] {
        if options.contains(&typed) {
            return Ok(typed);
        }
        let candidates: Vec<_> = options.iter().copied().filter(|name| name.starts_with(typed)).collect();
        match candidates.as_slice() {
            [] => {}
            [name] => return Ok(name),
            _ => return Err(ArgsError::Ambiguous { typed: format!("--{typed}"), candidates }),
        }
    }
    Ok(typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, ArgsError> {
        Args::parse_from_argv(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_option_is_known_to_the_prefixes() {
        use clap::CommandFactory;
        let mut known: Vec<_> = NTFSCLONE_OPTIONS.iter().chain(OWN_OPTIONS).copied().collect();
        let command = Args::command();
        let mut declared: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        declared.extend(["help", "version"]);
        known.sort_unstable();
        declared.sort_unstable();
        assert_eq!(known, declared);
    }

    #[test]
    fn short_options_combine_and_options_may_follow_the_source() {
        let args = parse("p -qsfo x.img -qq /dev/sda1 --rescue --rescue").unwrap();
        assert!(args.quiet && args.save_image && args.force && args.rescue);
        assert_eq!((args.output, args.sources), (Some("x.img".into()), vec!["/dev/sda1".into()]));
        assert_eq!(parse("p -sOx.img a").unwrap().overwrite, Some("x.img".into()));
        assert_eq!(parse("p -O=x.img a").unwrap().overwrite, Some("=x.img".into()), "as getopt has it");
        assert_eq!(parse("p -o- a").unwrap().output, Some("-".into()));
        assert_eq!(parse("p -o -s a").unwrap().output, Some("-s".into()));
    }

    #[test]
    fn long_options_may_be_cut() {
        let args = parse("p --sav --outp=x --resc --ig --st a").unwrap();
        assert!(args.save_image && args.rescue && args.ignore_fs_check && args.strict);
        assert_eq!(args.output, Some("x".into()));
        assert_eq!(parse("p --ov --resc a").unwrap().overwrite, Some("--resc".into()), "a value");
        assert_eq!(parse("p -o - -- --re").unwrap().sources, [PathBuf::from("--re")]);
        assert!(parse("p --new-serial a").unwrap().new_serial);
    }

    #[test]
    fn times_have_units() {
        let times =
            |line: &str| parse(line).map(|args| (args.max_time.unwrap().as_secs(), args.reconnect.as_secs()));
        assert_eq!(times("p --max-time 90 --reconnect=10m a").unwrap(), (90, 600));
        assert_eq!(times("p --max-time 2h a").unwrap(), (7200, 0));
        assert_eq!(
            times("p --max-time 1 --reconnect 600 --reconnect 5 a").unwrap(),
            (1, 5),
            "the last counts"
        );
        // The stick's own options are followed by those of its configuration.
        let own = parse("p --map-interval 10 --split 9M --map-interval 1 --split 8M a").unwrap();
        assert_eq!((own.map_interval.as_secs(), own.split), (1, Some(8 << 20)));
        for wrong in ["", "x", "1w", "-1", "1.5", "99999999999999999d"] {
            assert!(times(&format!("p --max-time={wrong} a")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let size = |size: &str| parse(&format!("p --split={size} a")).map(|args| args.split.unwrap());
        assert_eq!(size("1048576").unwrap(), 1 << 20);
        assert_eq!(size("4294967295").unwrap(), (1 << 32) - 1);
        assert_eq!(["1024K", "3M", "4G"].map(|text| size(text).unwrap()), [1 << 20, 3 << 20, 4 << 30]);
        for wrong in ["", "M", "1m", "1MB", "1.5M", "-1M", "9999999999G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_need_not_be_text() {
        let argv = [&b"p"[..], b"--outp=a\xff", b"-r", b"\xfe"].map(|arg| OsString::from_vec(arg.to_vec()));
        let args = Args::parse_from_argv(argv).unwrap();
        assert_eq!(args.output.unwrap().as_os_str().as_bytes(), b"a\xff");
        assert_eq!(args.sources[0].as_os_str().as_bytes(), b"\xfe");
    }

    #[test]
    fn ambiguous_prefixes_name_the_candidates() {
        let message = |line| parse(line).unwrap_err().to_string();
        assert_eq!(
            message("p --re a"),
            "option '--re' is ambiguous; possibilities: '--restore-image' '--rescue'"
        );
        assert_eq!(
            message("p --o x a"),
            "option '--o' is ambiguous; possibilities: '--output' '--overwrite'"
        );
        assert!(message("p --new a").contains("'--new-serial' '--new-half-serial'"));
        assert!(message("p --nonsense a").contains("--nonsense"));
    }
}
