//! Tests of the program as its users run it: real volumes, the real ntfsclone, faulty disks, QEMU.
//!
//! They need root (loop devices, mounts) and the tools that `.ci/setup test` installs; one that is missing fails a
//! test. They use no network, leave nothing behind, and end only what they started.

// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod again;
mod attachments;
mod budgets;
mod checksums;
mod cli;
mod compat;
mod compression;
mod console;
mod crafted;
mod cuts;
mod damage;
mod device;
mod edit;
mod faulty;
mod finish;
mod firmware;
mod hostile;
mod hung;
mod images;
mod install;
mod interrupt;
mod jobs;
mod kills;
mod large;
mod locks;
mod machine;
mod mapfile;
mod maps;
mod metadata;
mod mishaps;
mod outputs;
mod parts;
mod private;
mod reach;
mod reads;
mod refusals;
mod rescue;
mod scene;
mod serial;
mod sinks;
mod states;
mod stick;
mod targets;
mod telling;
mod tools;
mod verify;
mod volumes;
mod walk;
