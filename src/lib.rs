//! ntfsrescue clones, saves, restores and rescues NTFS volumes at sector level: a drop-in for `ntfsclone`, and the
//! init of a small bootable system that does the same alone.
//!
//! Data flows one way:
//!
//! ```text
//! argv ─ args ─► job ─► run ─┬─ io::disk ─► ntfs ─► plan ─► copy + rescue ─► sink    save, clone, metadata
//! kernel command line ─ init ┘               image ─► copy ──────────────────► sink    restore, check
//! ```
//!
//! - [`units`], [`extent`], [`bytes`]: clusters, positions, sets of them; a quick look at bytes. They know nothing else.
//! - [`io`]: sources and sinks: files, block devices, pipes, and disks that a child process reads because they may
//!   hang; `sys` has the ioctls and the memory that is shared with the child.
//! - [`ntfs`]: bytes of a volume to typed facts. [`plan`]: those to what is copied. [`image`]: the image format.
//! - [`rescue`]: which bytes to read next, without doing it. [`copy`]: the pump that does. [`serial`]: a new serial number
//!   for what passes through it.
//! - [`args`], [`job`]: what was asked for, and whether it makes sense. [`run`]: does it; it alone knows all others.
//! - [`event`], [`report`]: what there is to say, as data and as words. [`interrupt`]: signals that end a job.
//! - [`init`]: PID 1 of the bootable system. It runs this same program as a child, by its command line.

pub mod args;
pub mod bytes;
pub mod copy;
pub mod event;
pub mod extent;
pub mod image;
pub mod init;
pub mod interrupt;
pub mod io;
pub mod job;
pub mod ntfs;
pub mod plan;
pub mod report;
pub mod rescue;
pub mod run;
pub mod serial;
pub mod sys;
pub mod units;
