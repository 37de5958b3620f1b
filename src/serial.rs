//! A new serial number for a copy, so that Windows does not take it for the original.
//!
//! It is changed in the boot sector and in its backup while they pass by, whatever order they come in and wherever
//! they come from.

use crate::copy::{CopyError, Feed};
use crate::event::{Event, Observer};
use crate::extent::ByteRange;
use crate::ntfs::boot::{BOOT_SECTOR_LEN, BootSector};
use crate::units::Geometry;

/// How much of the serial number is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewSerial {
    /// All 64 bits.
    Full,
    /// The upper 32 bits; the lower ones, which `vol` shows on Windows, stay.
    UpperHalf,
}

impl NewSerial {
    /// The new number in the place of `old`, from the kernel's random numbers.
    fn number(self, old: u64) -> Result<u64, getrandom::Error> {
        let random = getrandom::u64()?;
        Ok(match self {
            NewSerial::Full => random,
            NewSerial::UpperHalf => random & !0xffff_ffff | old & 0xffff_ffff,
        })
    }
}

/// Passes a volume on, with a new serial number.
pub struct SerialFeed<'a, F> {
    feed: F,
    kind: NewSerial,
    geometry: Geometry,
    observer: &'a dyn Observer,
    /// The number, once there is one.
    number: Option<u64>,
}

impl<'a, F: Feed> SerialFeed<'a, F> {
    /// Passes `feed` on, a volume of this shape.
    pub fn new(
        feed: F,
        kind: NewSerial,
        geometry: Geometry,
        observer: &'a dyn Observer,
    ) -> SerialFeed<'a, F> {
        SerialFeed { feed, kind, geometry, observer, number: None }
    }

    /// Changes the number in the boot sectors that begin in these bytes.
    fn renew(&mut self, range: ByteRange, data: &mut [u8]) -> Result<(), CopyError> {
        let extra = self.geometry.pos(self.geometry.extra_lcn());
        if range.pos == 0 {
            self.renew_at(0, range, data)?;
        }
        // The backup is in the cluster behind the last one, and names its place.
        let from = extra.max(range.pos).next_multiple_of(BOOT_SECTOR_LEN as u64 / 2);
        for pos in (from..range.end()).step_by(BOOT_SECTOR_LEN / 2) {
            self.renew_at(pos, range, data)?;
        }
        Ok(())
    }

    /// Changes the number in the boot sector at byte `pos` of the volume, if there is one.
    fn renew_at(&mut self, pos: u64, range: ByteRange, data: &mut [u8]) -> Result<(), CopyError> {
        let at = (pos - range.pos) as usize;
        let Some(sector) = data.get_mut(at..at + BOOT_SECTOR_LEN) else { return Ok(()) };
        let Ok(boot) = BootSector::parse(sector) else { return Ok(()) };
        if pos != 0 && boot.backup_pos() != Some(pos) {
            return Ok(());
        }
        let number = match self.number {
            Some(number) => number,
            None => {
                let number = self.kind.number(boot.serial)?;
                self.observer.tell(Event::Note(format_args!("New serial number      : {number:#x}")));
                *self.number.insert(number)
            }
        };
        BootSector::set_serial(sector, number);
        Ok(())
    }
}

impl<F: Feed> Feed for SerialFeed<'_, F> {
    fn next(&mut self, buf: &mut [u8]) -> Result<Option<ByteRange>, CopyError> {
        let Some(range) = self.feed.next(buf)? else {
            if self.number.is_none() {
                self.observer.tell(Event::Warning(format_args!(
                    "no NTFS boot sector came: the serial number is not changed"
                )));
            }
            return Ok(None);
        };
        self.renew(range, buf.get_mut(..range.len as usize).unwrap_or_default())?;
        Ok(Some(range))
    }
}
