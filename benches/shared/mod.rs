//! What the benchmarks have in common: volumes and what fills them, programs that are run, figures.

// Each of them uses a part of it.
#![allow(dead_code)]

pub mod fill;
pub mod image;
pub mod loops;
pub mod mounted;
pub mod programs;
pub mod random;
pub mod silent;
pub mod svg;
