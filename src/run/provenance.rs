//! What an image's trailer tells beside its checksums: where the image comes from, and what of it is marked.

use std::sync::{Mutex, PoisonError};

use crate::event::{Event, Observer};
use crate::extent::ByteRange;
use crate::image::trailer::{Marks, Origin};
use crate::io::identity::Known;

/// Where an image of the volume with this serial number comes from.
pub(super) fn origin_of(known: &Known, volume_serial: u64) -> Origin {
    Origin {
        volume_serial,
        volume_pos: known.start,
        disk_size: known.disk.size,
        disk_serial: known.disk.serial.clone(),
        disk_model: known.disk.model.clone(),
    }
}

/// The same without the disk: what is given away to be looked into names nobody's.
pub(super) fn anonymous(volume_serial: u64) -> Origin {
    Origin { volume_serial, ..Origin::default() }
}

/// Takes down what is lost while a volume is copied, and passes all on.
pub(super) struct Noting<'a> {
    pub(super) observer: &'a dyn Observer,
    pub(super) marks: &'a Mutex<Marks>,
}

impl Observer for Noting<'_> {
    fn tell(&self, event: Event<'_>) {
        if let Event::Lost { pos, len } = event {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            marks.add(ByteRange { pos, len });
        }
        self.observer.tell(event);
    }

    fn wants_stop(&self) -> bool {
        self.observer.wants_stop()
    }
}
