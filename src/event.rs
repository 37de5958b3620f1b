//! What a job has to say while it runs, as data. `report.rs` turns it into words.

use std::time::Duration;

use crate::extent::Difference;
use crate::image::ImageInfo;
use crate::ntfs::NtfsInfo;
use crate::ntfs::wipe::Wiped;
use crate::rescue::Damage;
use crate::rescue::passes::Pass;
use crate::units::Geometry;

/// The stage a job has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Walking the MFT.
    Scan,
    /// Walking the MFT for the names of folders.
    Folders,
    /// Walking the MFT for files that are asked for, or damaged.
    Files,
    /// Comparing `$Bitmap` with what the MFT claims.
    Account,
    /// Copying to a raw clone.
    Clone,
    /// Copying to an image.
    Save,
    /// Copying from an image.
    Restore,
    /// Reading an image to its end.
    Check,
    /// Reading what makes the rest readable.
    Survey,
    /// Reading what can be read, healthy areas first.
    Rescue,
    /// Marking what is lost.
    Mark,
    /// Reading an image back for its checksums.
    Sum,
    /// Waiting until the target has everything.
    Sync,
    /// Reading the target back, to compare it with its image.
    Verify,
}

/// How a rescue stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// What is being done; none at the end.
    pub pass: Option<Pass>,
    /// Where, in bytes on the source.
    pub pos: u64,
    /// Bytes wanted.
    pub total: u64,
    /// Bytes of them that are here.
    pub rescued: u64,
    /// Bytes of those that an earlier run has rescued.
    pub rescued_before: u64,
    /// What is damaged.
    pub damage: Damage,
    /// Reads that have failed.
    pub nr_errors: u64,
    /// Time since the start.
    pub elapsed: Duration,
    /// Time since the last good read.
    pub since_good: Duration,
}

/// One thing worth telling.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A volume was opened.
    Volume(&'a NtfsInfo),
    /// An image was opened.
    Image(&'a ImageInfo),
    /// A stage begins.
    Phase(Phase),
    /// So much of the stage is done, in the stage's own unit.
    Progress {
        /// Done so far.
        done: u64,
        /// All there is.
        total: u64,
    },
    /// A read, or the disk itself, has been waited for so long.
    Waiting(Duration),
    /// How a rescue stands.
    Rescuing(Standing),
    /// How many clusters will be copied, without the extra one.
    SpaceInUse {
        /// Clusters in use.
        nr_used: u64,
        /// The volume's shape.
        geometry: Geometry,
    },
    /// A copy of metadata is complete.
    Wiped {
        /// MFT records.
        nr_records: u64,
        /// Those of them that belong to a file.
        nr_in_use: u64,
        /// What was wiped.
        wiped: Wiped,
    },
    /// A stretch of the source could not be read and is marked in the target.
    Lost {
        /// First byte, from the volume's start.
        pos: u64,
        /// Bytes.
        len: u64,
    },
    /// `$Bitmap` and the MFT disagree about a cluster.
    Mismatch(Difference),
    /// Something is not as it should be, and the job goes on: a whole sentence without a full stop.
    Warning(std::fmt::Arguments<'a>),
    /// Something that a person watching may want to know: a whole line.
    Note(std::fmt::Arguments<'a>),
}

/// Hears nothing: for what was said already.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Observer for Silent {
    fn tell(&self, _: Event<'_>) {}
}

/// Watches a job, from any thread.
pub trait Observer: Sync {
    /// Takes one event.
    fn tell(&self, event: Event<'_>);

    /// Is the job to end as soon as it can?
    fn wants_stop(&self) -> bool {
        false
    }
}
