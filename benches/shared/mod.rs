//! What the benchmarks have in common: volumes and what fills them, programs that are run, figures, beginning and end.

// Each of them uses a part of it.
#![allow(dead_code)]

pub mod fill;
pub mod image;
pub mod job;
pub mod loops;
pub mod mounted;
pub mod programs;
pub mod random;
pub mod silent;
pub mod svg;
