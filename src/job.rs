//! What was asked for, as one job that makes sense: every refusal of options that conflict is here.

use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::args::Args;
use crate::io::target::TargetName;
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
    /// Walk an image's structure.
    Check,
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
    /// Change the serial number on the way.
    pub new_serial: Option<NewSerial>,
    /// Go on after read errors.
    pub rescue: bool,
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
        let refusals = [
            (args.save_image && args.restore_image, JobError::SaveAndRestore),
            (args.metadata && args.restore_image, JobError::MetadataAndRestore),
            (args.no_action && !args.restore_image, JobError::NoActionWithoutImage),
            (args.no_action && target.is_some(), JobError::NoActionWithOutput),
            (target.is_none() && !args.no_action, JobError::NoOutput),
            (source == SourceName::Stdin && !args.restore_image, JobError::StdinWithoutImage),
            (
                args.metadata && !args.save_image && target == Some(TargetName::Stdout),
                JobError::MetadataToStdout,
            ),
            // With --rescue it adds nothing: that goes on by itself.
            (args.ignore_fs_check && !args.metadata && !args.rescue, JobError::IgnoreCheckAlone),
            (
                args.metadata && !args.force && target.as_ref().is_some_and(is_block_device),
                JobError::MetadataToDevice,
            ),
        ];
        if let Some((_, error)) = refusals.into_iter().find(|(refused, _)| *refused) {
            return Err(error);
        }
        let action = match target {
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
            new_serial,
            rescue: args.rescue,
            ignore_fs_check: args.ignore_fs_check,
            force: args.force,
            strict: args.strict,
            quiet: args.quiet,
        })
    }

    /// Does the copy itself go to standard output, also by a name such as `/dev/stdout`, so that messages must not?
    pub fn occupies_stdout(&self) -> bool {
        match &self.action {
            Action::Clone(target) | Action::Save(target) | Action::Restore(target) => match target {
                TargetName::Stdout => true,
                TargetName::Replace(path) | TargetName::New(path) => is_stdout(path),
            },
            Action::Check => false,
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
