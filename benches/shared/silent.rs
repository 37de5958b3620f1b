//! Nobody wants to know what a scan of a healthy volume tells.

use ntfsrescue::event::{Event, Observer};

/// Hears and says nothing.
pub struct Silent;

impl Observer for Silent {
    fn tell(&self, _: Event<'_>) {}
}
