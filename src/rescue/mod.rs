//! Which bytes to read next, given what happened so far: state machines that do no I/O and read no clock.
//!
//! [`Engine`] is for targets that are written in order, as a pipe is: each area gets its block read and its sector reads
//! at once. [`Rescue`] is for those that take bytes in any order: healthy areas first, everywhere. What is known about
//! each byte is in [`Areas`]; which bytes are wanted at all in a [`Domain`].
//!
//! [`mapfile`] and [`frozen`] are what a rescue keeps on a disk to go on from: what was read, and what goes where.
//! [`mapstore`] sees to it that a map is there whatever happens.

pub mod areas;
pub mod domain;
pub mod frozen;
pub mod inorder;
pub mod mapfile;
pub mod mapstore;
pub mod mark;
pub mod passes;
pub mod state;
pub mod zones;

pub use areas::{Area, Areas, Damage};
pub use domain::Domain;
pub use inorder::{Engine, Outcome, ReadSizes, Verdict};
pub use passes::Rescue;
pub use state::State;
