//! From the bytes of an NTFS volume to typed facts: what it is and which of its clusters are in use.
//!
//! Nothing is mounted and nothing is written. The layers, from below: [`boot`], [`record`], [`attr`] and [`runs`]
//! each decode one structure; [`mft`] finds records and the values of attributes; [`volume`] opens a volume;
//! [`scan`] finds its used clusters, [`metadata`] what those of them hold that are not file contents, and [`wipe`]
//! takes out of that what is private. [`paths`] names files, [`first`] finds the clusters of those that somebody wants
//! first, and [`damage`] those that lost something. Numbers on disk are taken for hostile: each is checked before it
//! is used, and damage to one record is a value to be told, not a reason to stop. The structures are as Windows
//! writes them; names are those of the public NTFS documentation.

use crate::io::{Loss, ReadError};

pub mod attr;
pub mod boot;
pub mod damage;
pub mod first;
pub mod fixup;
pub mod metadata;
pub mod mft;
pub mod paths;
pub mod record;
pub mod runs;
pub mod scan;
pub mod shutdown;
pub mod volume;
pub mod wipe;

pub use volume::{NtfsInfo, Volume};

/// Numbers of the MFT records that every volume has.
pub mod mft_no {
    /// `$MFT`
    pub const MFT: u64 = 0;
    /// `$MFTMirr`
    pub const MFT_MIRR: u64 = 1;
    /// `$LogFile`
    pub const LOG_FILE: u64 = 2;
    /// `$Volume`
    pub const VOLUME: u64 = 3;
    /// The root folder.
    pub const ROOT: u64 = 5;
    /// `$Bitmap`
    pub const BITMAP: u64 = 6;
    /// `$BadClus`
    pub const BAD_CLUS: u64 = 8;
    /// `$Secure`
    pub const SECURE: u64 = 9;
    /// `$UpCase`
    pub const UP_CASE: u64 = 10;
    /// `$Extend`, a folder: the last of NTFS's own files with a number that never changes.
    pub const EXTEND: u64 = 11;
}

/// Why a volume cannot be opened or scanned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read failed.
    #[error(transparent)]
    Read(ReadError),
    /// No boot sector where one is wanted.
    #[error("no NTFS volume: boot sector at byte {pos:#x}: {cause}")]
    Boot {
        /// Where it was looked for.
        pos: u64,
        /// What is wrong with it.
        cause: boot::BootError,
    },
    /// The volume and what it lies on do not fit together.
    #[error("NTFS volume: {0}")]
    Geometry(#[from] crate::units::GeometryError),
    /// A record that is needed cannot be used.
    #[error("MFT record {mft_no}{}: {fault}", At(*pos))]
    Record {
        /// The record's number.
        mft_no: u64,
        /// Its first byte on the volume, where known.
        pos: Option<u64>,
        /// What is wrong with it.
        fault: record::Fault,
    },
    /// A record's attributes contradict themselves.
    #[error("MFT record {mft_no}: {cause}")]
    Attr {
        /// The record's number.
        mft_no: u64,
        /// The attribute and what is wrong.
        cause: attr::AttrError,
    },
    /// An attribute's runs cannot be decoded.
    #[error("MFT record {mft_no}, attribute {kind:#x}: {cause}")]
    Runs {
        /// The record's number.
        mft_no: u64,
        /// The attribute's type.
        kind: u32,
        /// What is wrong with the list.
        cause: runs::RunError,
    },
    /// A metadata file lacks what every volume has.
    #[error("MFT record {mft_no} has no {what}")]
    Missing {
        /// The record's number.
        mft_no: u64,
        /// Name of what is missing.
        what: &'static str,
    },
    /// `$MFT` ends before its own size.
    #[error("$MFT has runs for {found} bytes, but names {wanted}")]
    ShortMft {
        /// Bytes in its runs.
        found: u64,
        /// Bytes that it names.
        wanted: u64,
    },
    /// `$Bitmap` has too few bits.
    #[error("$Bitmap has {found} bytes, but {nr_clusters} clusters want {wanted}")]
    ShortBitmap {
        /// Its bytes.
        found: u64,
        /// Bytes wanted.
        wanted: u64,
        /// Clusters of the volume.
        nr_clusters: u64,
    },
    /// Whoever watches the job asked it to end.
    #[error("interrupted")]
    Stopped,
    /// `$Bitmap` and the MFT disagree.
    #[error(
        "$Bitmap and the MFT disagree about {} clusters ({}): run 'chkdsk /f' on Windows and reboot it \
         twice, or copy all that either names with --rescue",
        .0.total(), .0
    )]
    Mismatch(scan::Mismatches),
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Error {
        match error.loss() {
            Loss::Stopped => Error::Stopped,
            _ => Error::Read(error),
        }
    }
}

impl Error {
    /// A record that cannot be used, for this reason; `pos` is its first byte on the volume, where known.
    pub(crate) fn of_record(mft_no: u64, pos: Option<u64>, fault: record::Fault) -> Error {
        match fault {
            record::Fault::Unreadable(read) if read.loss() == Loss::Stopped => Error::Stopped,
            fault => Error::Record { mft_no, pos, fault },
        }
    }

    /// The read that failed below this, if one did.
    pub fn read(&self) -> Option<&ReadError> {
        match self {
            Error::Read(read) | Error::Record { fault: record::Fault::Unreadable(read), .. } => Some(read),
            _ => None,
        }
    }
}

/// What a job puts up with: then it is told and counted, and the job goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// Places that cannot be read (`--rescue`).
    pub bad_areas: bool,
    /// Structures that make no sense or contradict each other (`--rescue`, `--ignore-fs-check`).
    pub damage: bool,
}

impl Tolerance {
    /// All that can be put up with.
    pub const RESCUE: Tolerance = Tolerance { bad_areas: true, damage: true };

    /// Does the job go on in spite of this error? Not where it concerns the whole disk, so that looking elsewhere on
    /// it is of no use.
    pub fn forgives(&self, error: &Error) -> bool {
        match error.read().map(ReadError::loss) {
            Some(loss) => self.bad_areas && loss != Loss::Gone,
            None if matches!(error, Error::Stopped) => false,
            None if matches!(error, Error::Boot { cause: boot::BootError::BitLocker, .. }) => false,
            None => self.damage,
        }
    }
}

/// A place for messages, where it is known.
struct At(Option<u64>);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |pos| write!(f, " at byte {pos:#x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_was_given_up_is_no_damage() {
        let read = || ReadError { pos: 0, len: 512, cause: std::io::ErrorKind::Interrupted.into() };
        for error in [Error::from(read()), Error::of_record(3, None, record::Fault::Unreadable(read()))] {
            assert!(matches!(error, Error::Stopped) && !Tolerance::RESCUE.forgives(&error), "{error:?}");
        }
        assert!(matches!(crate::copy::CopyError::from(read()), crate::copy::CopyError::Stopped));
    }
}
