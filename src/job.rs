//! What was asked for, as one job that makes sense: every refusal of options that conflict is here.

use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::args::Args;
use crate::io::compressed::{Compression, LEVELS, UnknownCompression};
use crate::io::parts::SHORTEST;
use crate::io::target::TargetName;
use crate::rescue::passes::Budget;
use crate::serial::NewSerial;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Copy a volume to a raw clone.
    Clone(TargetName),
    /// Copy a volume to an image.
    Save(TargetName),
    /// Copy an image to a raw clone.
    Restore(TargetName),
    /// Read an image to its end, and compare it with its checksums.
    Check,
    /// The same, and compare it with the volume here.
    Compare(PathBuf),
    /// Tell which bytes are in use, as a domain map.
    Domain,
    /// Complete the target of a rescue that has ended.
    Finish {
        /// Its map.
        map: PathBuf,
        /// The target.
        target: PathBuf,
    },
}

/// How a failing disk is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RescueOptions {
    /// Where to keep how far it is.
    pub map: Option<PathBuf>,
    /// Time between two maps at least.
    pub map_interval: Duration,
    /// Which files come first.
    pub first: Vec<String>,
    /// Read free space too.
    pub whole: bool,
    /// How often bad sectors are tried again.
    pub retries: u32,
    /// What it may cost.
    pub budget: Budget,
    /// How long to wait for a disk that has gone away.
    pub reconnect: Duration,
    /// Write copies of what is lost in its place?
    pub repair: bool,
}

impl Default for RescueOptions {
    fn default() -> RescueOptions {
        RescueOptions {
            map: None,
            map_interval: Duration::from_secs(30),
            first: Vec::new(),
            whole: false,
            retries: 0,
            budget: Budget::default(),
            reconnect: Duration::ZERO,
            repair: true,
        }
    }
}

/// Where the bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceName {
    /// A file or device.
    Path(PathBuf),
    /// Standard input: images only.
    Stdin,
}

impl SourceName {
    /// The path, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            SourceName::Path(path) => Some(path),
            SourceName::Stdin => None,
        }
    }

    /// Does it give its bytes only once, as a pipe does? What is not there is told when it is opened.
    pub fn is_stream(&self) -> bool {
        self.path().is_none_or(|path| {
            std::fs::metadata(path)
                .is_ok_and(|metadata| !metadata.is_file() && !metadata.file_type().is_block_device())
        })
    }
}

/// What a copy of metadata only keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataOnly {
    /// The times of files.
    pub keep_times: bool,
    /// The whole `$LogFile`.
    pub full_logfile: bool,
}

/// A job that makes sense as far as the options tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What to do, and where to.
    pub action: Action,
    /// Where from.
    pub source: SourceName,
    /// Copy metadata only.
    pub metadata: Option<MetadataOnly>,
    /// Bytes of a part, where the image is written in parts.
    pub split: Option<u64>,
    /// How the image is compressed that is saved.
    pub compression: Option<Compression>,
    /// Write checksums behind an image that is saved; compare one that is read with those it has.
    pub checksum: bool,
    /// Read back what was restored, and compare.
    pub verify: bool,
    /// Change the serial number on the way.
    pub new_serial: Option<NewSerial>,
    /// Go on after read errors.
    pub rescue: bool,
    /// How, then.
    pub how: RescueOptions,
    /// Where to write what was saved and lost.
    pub report: Option<PathBuf>,
    /// Where to write which bytes are in use.
    pub domain_out: Option<PathBuf>,
    /// Which open file descriptor takes events.
    pub events: Option<i32>,
    /// Go on although structures are damaged.
    pub ignore_fs_check: bool,
    /// Go on although the volume is dirty.
    pub force: bool,
    /// Lost sectors make the exit status 3.
    pub strict: bool,
    /// Show no progress.
    pub quiet: bool,
}

/// Why the options make no job.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum JobError {
    #[error("no source: name one device, file or image")]
    NoSource,
    #[error("more than one source: name one device, file or image")]
    ManySources,
    #[error("no output: name one with --output or --overwrite")]
    NoOutput,
    #[error("--output and --overwrite exclude each other")]
    TwoOutputs,
    #[error("only an image can be read from standard input: add --restore-image")]
    StdinWithoutImage,
    #[error("--save-image and --restore-image exclude each other")]
    SaveAndRestore,
    #[error("--no-action checks an image: add --restore-image")]
    NoActionWithoutImage,
    #[error("--no-action writes nothing: leave out the output")]
    NoActionWithOutput,
    #[error("--metadata and --restore-image exclude each other: a metadata image is restored like any other")]
    MetadataAndRestore,
    #[error("metadata goes to standard output only as an image: add --save-image")]
    MetadataToStdout,
    #[error("--finish needs nothing but the map and the target: leave out the other options")]
    FinishWithOptions,
    #[error("{0} goes with saving and cloning, not with an image that is read")]
    RescueAndRestore(&'static str),
    #[error("{0} goes with a whole copy, not with --metadata")]
    RescueAndMetadata(&'static str),
    #[error("--whole reads free space, which has no place in an image: leave out --save-image")]
    WholeToImage,
    #[error("{0} goes with a target that is written in any order: name a file or a device")]
    RescueToStdout(&'static str),
    #[error("a new serial number goes with --rescue alone: give the finished clone one")]
    SerialAndRescue,
    #[error("--split goes with an image that is saved: add --save-image")]
    SplitWithoutImage,
    #[error("--split: parts of {0} bytes are too short, wanted at least {SHORTEST}")]
    ShortParts(u64),
    #[error("--split writes the parts as files: name one")]
    SplitToDevice,
    #[error("--compress: wanted zstd, zstd:{} to zstd:{}, or lz4", LEVELS.start(), LEVELS.end())]
    Compression,
    #[error("--compress goes with an image that is saved: add --save-image")]
    CompressWithoutImage,
    #[error("--compress is for saving: an image that is read tells by itself how it is compressed")]
    CompressAndRestore,
    #[error("--compress writes a file or a pipe: on a device nobody knows where the image ends")]
    CompressToDevice,
    #[error(
        "a rescue goes from place to place, a compressed image only from front to back: leave out --compress and \
         compress the image when it is whole (until then it is FILE.part), or rescue in order to standard output \
         or a pipe"
    )]
    CompressAndRescue,
    #[error(
        "--verify checks an image, or a volume that is restored: leave out the output, or add --restore-image"
    )]
    VerifyWithoutImage,
    #[error("--verify checks an image that is there: leave out {0}")]
    VerifyAndSave(&'static str),
    #[error("--against compares an image with a volume: add --verify, and leave out --restore-image")]
    AgainstAlone,
    #[error("--checksum goes with an image that is saved: add --save-image")]
    ChecksumWithoutImage,
    #[error("--checksum is for saving: an image that is read is compared with the checksums it has")]
    ChecksumAndRestore,
    #[error("--no-checksum goes with an image: add --save-image or --restore-image")]
    NoChecksumWithoutImage,
    #[error("--verify compares what was written: leave out --no-action, or --verify")]
    VerifyAndNoAction,
    #[error("--verify reads the target back: name a file or a device")]
    VerifyStream,
    #[error("--verify reads the image twice: name a file or a device")]
    VerifyFromStream,
    #[error("--ignore-fs-check goes with --rescue or --metadata only")]
    IgnoreCheckAlone,
    #[error(
        "metadata alone on a device is a volume whose files are all zeros: add --force if that is wanted"
    )]
    MetadataToDevice,
}

impl Job {
    /// Checks the options against each other.
    pub fn from_args(args: Args) -> Result<Job, JobError> {
        let source = match <[PathBuf; 1]>::try_from(args.sources) {
            Ok([path]) if path.as_os_str() == "-" => SourceName::Stdin,
            Ok([path]) => SourceName::Path(path),
            Err(sources) if sources.is_empty() => return Err(JobError::NoSource),
            Err(_) => return Err(JobError::ManySources),
        };
        let target = match (args.output, args.overwrite) {
            (Some(_), Some(_)) => return Err(JobError::TwoOutputs),
            (Some(path), None) | (None, Some(path)) if path.as_os_str() == "-" => Some(TargetName::Stdout),
            (Some(path), None) => Some(TargetName::New(path)),
            (None, Some(path)) => Some(TargetName::Replace(path)),
            (None, None) => None,
        };
        if let Some(part_len) = args.split.filter(|part_len| *part_len < SHORTEST) {
            return Err(JobError::ShortParts(part_len));
        }
        let compression = args.compress.as_deref().map(str::parse::<Compression>);
        let compression = compression.transpose().map_err(|UnknownCompression| JobError::Compression)?;
        if let Some(map) = args.finish {
            return Job::finish(
                map,
                source,
                target.is_some()
                    || args.save_image
                    || args.restore_image
                    || args.verify
                    || args.against.is_some()
                    || compression.is_some(),
                args.split,
                !args.no_checksum,
                args.quiet,
            );
        }
        // Options that only a rescue out of order knows.
        let of_rescue = [
            ("--map", args.map.is_some()),
            ("--first", !args.first.is_empty()),
            ("--whole", args.whole),
            ("--retries", args.retries > 0),
            ("--max-errors", args.max_errors.is_some()),
            ("--max-time", args.max_time.is_some()),
            ("--reconnect", !args.reconnect.is_zero()),
            ("--no-repair", args.no_repair),
            ("--report", args.report.is_some()),
        ];
        let of_rescue = of_rescue.into_iter().find_map(|(name, given)| given.then_some(name));
        // They mean it.
        let rescue = args.rescue || of_rescue.is_some();
        let name = of_rescue.unwrap_or_default();
        let verify = args.verify && !args.no_verify;
        // Nothing is written: it is the image that is checked.
        let is_check = verify && !args.restore_image && target.is_none();
        let reads_image = args.restore_image || is_check;
        let of_copy = [
            ("--save-image", args.save_image),
            ("--metadata", args.metadata),
            (of_rescue.unwrap_or("--rescue"), rescue),
            ("--domain-out", args.domain_out.is_some()),
        ];
        let of_copy = of_copy.into_iter().find_map(|(name, given)| given.then_some(name));
        let refusals = [
            (is_check && of_copy.is_some(), JobError::VerifyAndSave(of_copy.unwrap_or_default())),
            (args.against.is_some() && !is_check, JobError::AgainstAlone),
            (args.checksum && reads_image, JobError::ChecksumAndRestore),
            (args.checksum && !args.save_image, JobError::ChecksumWithoutImage),
            (args.no_checksum && !args.save_image && !reads_image, JobError::NoChecksumWithoutImage),
            (of_rescue.is_some() && args.restore_image, JobError::RescueAndRestore(name)),
            (args.domain_out.is_some() && args.restore_image, JobError::RescueAndRestore("--domain-out")),
            (of_rescue.is_some() && args.metadata, JobError::RescueAndMetadata(name)),
            (of_rescue.is_some() && target == Some(TargetName::Stdout), JobError::RescueToStdout(name)),
            (args.whole && args.save_image, JobError::WholeToImage),
            (of_rescue.is_some() && (args.new_serial || args.new_half_serial), JobError::SerialAndRescue),
            (args.save_image && args.restore_image, JobError::SaveAndRestore),
            (args.metadata && args.restore_image, JobError::MetadataAndRestore),
            (args.no_action && !reads_image, JobError::NoActionWithoutImage),
            (args.no_action && target.is_some(), JobError::NoActionWithOutput),
            (args.split.is_some() && !args.save_image, JobError::SplitWithoutImage),
            (
                args.split.is_some()
                    && target.as_ref().is_some_and(|target| target.is_in_order() || is_block_device(target)),
                JobError::SplitToDevice,
            ),
            (compression.is_some() && reads_image, JobError::CompressAndRestore),
            (compression.is_some() && !args.save_image, JobError::CompressWithoutImage),
            (
                compression.is_some() && target.as_ref().is_some_and(is_block_device),
                JobError::CompressToDevice,
            ),
            (
                compression.is_some()
                    && rescue
                    && !args.metadata
                    && target.as_ref().is_some_and(|target| !target.is_in_order()),
                JobError::CompressAndRescue,
            ),
            (verify && !reads_image, JobError::VerifyWithoutImage),
            (verify && args.restore_image && args.no_action, JobError::VerifyAndNoAction),
            (verify && target.as_ref().is_some_and(TargetName::is_in_order), JobError::VerifyStream),
            (verify && !is_check && source.is_stream(), JobError::VerifyFromStream),
            (
                target.is_none() && !args.no_action && !is_check && args.domain_out.is_none(),
                JobError::NoOutput,
            ),
            (source == SourceName::Stdin && !reads_image, JobError::StdinWithoutImage),
            (
                args.metadata && !args.save_image && target == Some(TargetName::Stdout),
                JobError::MetadataToStdout,
            ),
            // With --rescue it adds nothing: that goes on by itself.
            (args.ignore_fs_check && !args.metadata && !rescue, JobError::IgnoreCheckAlone),
            (
                args.metadata && !args.force && target.as_ref().is_some_and(is_block_device),
                JobError::MetadataToDevice,
            ),
        ];
        if let Some((_, error)) = refusals.into_iter().find(|(refused, _)| *refused) {
            return Err(error);
        }
        let in_order = target.as_ref().is_some_and(TargetName::is_in_order);
        let action = match target {
            None if is_check => args.against.map_or(Action::Check, Action::Compare),
            None if args.domain_out.is_some() && !args.no_action => Action::Domain,
            None => Action::Check,
            Some(target) if args.restore_image => Action::Restore(target),
            Some(target) if args.save_image => Action::Save(target),
            Some(target) => Action::Clone(target),
        };
        // An image keeps the serial number, with ntfsclone too. Both options together are the stronger one.
        let new_serial = match action {
            Action::Clone(_) | Action::Restore(_) if args.new_serial => Some(NewSerial::Full),
            Action::Clone(_) | Action::Restore(_) if args.new_half_serial => Some(NewSerial::UpperHalf),
            _ => None,
        };
        Ok(Job {
            action,
            source,
            metadata: args.metadata.then_some(MetadataOnly {
                keep_times: args.preserve_timestamps,
                full_logfile: args.full_logfile,
            }),
            split: args.split,
            compression,
            // ntfsclone closes a pipe when it has read the last command.
            checksum: !args.no_checksum && (args.checksum || !in_order || args.restore_image),
            verify: verify && !is_check,
            new_serial,
            rescue,
            how: RescueOptions {
                map: args.map,
                map_interval: args.map_interval,
                first: args.first,
                whole: args.whole,
                retries: args.retries,
                budget: Budget { max_errors: args.max_errors, max_time: args.max_time },
                reconnect: args.reconnect,
                repair: !args.no_repair,
            },
            report: args.report,
            domain_out: args.domain_out,
            events: args.events,
            ignore_fs_check: args.ignore_fs_check,
            force: args.force,
            strict: args.strict,
            quiet: args.quiet,
        })
    }

    /// A job that completes what a rescue has left.
    fn finish(
        map: PathBuf,
        target: SourceName,
        has_options: bool,
        split: Option<u64>,
        checksum: bool,
        quiet: bool,
    ) -> Result<Job, JobError> {
        let SourceName::Path(target) = target else { return Err(JobError::NoSource) };
        if has_options {
            return Err(JobError::FinishWithOptions);
        }
        Ok(Job {
            source: SourceName::Path(target.clone()),
            action: Action::Finish { map, target },
            metadata: None,
            split,
            compression: None,
            checksum,
            verify: false,
            new_serial: None,
            rescue: true,
            how: RescueOptions::default(),
            report: None,
            domain_out: None,
            events: None,
            ignore_fs_check: false,
            force: false,
            strict: false,
            quiet,
        })
    }

    /// Does the copy itself go to standard output, also by a name such as `/dev/stdout`, so that messages must not?
    pub fn occupies_stdout(&self) -> bool {
        match &self.action {
            Action::Clone(target) | Action::Save(target) | Action::Restore(target) => match target {
                TargetName::Stdout => true,
                TargetName::Replace(path) | TargetName::New(path) => is_stdout(path),
            },
            Action::Check | Action::Compare(_) | Action::Domain | Action::Finish { .. } => false,
        }
    }
}

fn is_block_device(target: &TargetName) -> bool {
    let (TargetName::New(path) | TargetName::Replace(path)) = target else { return false };
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Is this the file or pipe that standard output goes to? Terminals and `/dev/null` do not count.
fn is_stdout(path: &Path) -> bool {
    let (Ok(named), Ok(stdout)) = (std::fs::metadata(path), nix::sys::stat::fstat(std::io::stdout().as_fd()))
    else {
        return false;
    };
    let keeps_data = named.is_file() || named.file_type().is_fifo();
    keeps_data && (named.dev(), named.ino()) == (stdout.st_dev, stdout.st_ino)
}
