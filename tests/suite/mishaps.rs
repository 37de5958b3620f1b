//! What happens to a machine in the middle of a save.
