//! What is known about a stretch of the source: GNU ddrescue's block states.

/// The state of a stretch, with ddrescue's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not read yet (`?`).
    NonTried,
    /// A block that could not be read; where in it is not known (`*`).
    NonTrimmed,
    /// What is left of such a block behind its first and before its last bad sector, not read on its own (`/`).
    NonScraped,
    /// Read on its own and lost (`-`).
    Bad,
    /// Read, and in the target (`+`).
    Finished,
}
