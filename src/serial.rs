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
    /// This number: what another pass over the same volume gave it.
    Given(u64),
}

impl NewSerial {
    /// The new number in the place of `old`; what is random of it comes from the kernel.
    fn number(self, old: u64) -> Result<u64, getrandom::Error> {
        Ok(match self {
            NewSerial::Full => getrandom::u64()?,
            NewSerial::UpperHalf => getrandom::u64()? & !0xffff_ffff | old & 0xffff_ffff,
            NewSerial::Given(number) => number,
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
        let number = if let NewSerial::Given(number) = kind { Some(number) } else { None };
        SerialFeed { feed, kind, geometry, observer, number }
    }

    /// The new number, once a boot sector has passed by.
    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// Changes the number in the boot sectors that begin in these bytes.
    fn renew(&mut self, range: ByteRange, data: &mut [u8]) -> Result<(), CopyError> {
        if range.pos == 0 {
            self.renew_at(0, data)?;
        }
        // The backup is in the cluster behind the last one.
        let from = self.geometry.pos(self.geometry.extra_lcn()).max(range.pos);
        let behind = data.get((from - range.pos) as usize..).unwrap_or_default();
        match BootSector::find_backup(from, behind) {
            Some(at) => self.renew_at((from - range.pos) as usize + at, data),
            None => Ok(()),
        }
    }

    /// Changes the number in the boot sector that begins at byte `at`, if there is one.
    fn renew_at(&mut self, at: usize, data: &mut [u8]) -> Result<(), CopyError> {
        let Some(sector) = data.get_mut(at..at + BOOT_SECTOR_LEN) else { return Ok(()) };
        let Ok(boot) = BootSector::parse(sector) else { return Ok(()) };
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::ntfs::boot::tests::boot_sector;

    /// Stretches of a volume, each with its place.
    struct Stretches(Vec<(u64, Vec<u8>)>);

    impl Feed for Stretches {
        fn next(&mut self, buf: &mut [u8]) -> Result<Option<ByteRange>, CopyError> {
            if self.0.is_empty() {
                return Ok(None);
            }
            let (pos, bytes) = self.0.remove(0);
            buf[..bytes.len()].copy_from_slice(&bytes);
            Ok(Some(ByteRange { pos, len: bytes.len() as u64 }))
        }
    }

    /// Keeps what is told.
    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Observer for Lines {
        fn tell(&self, event: Event<'_>) {
            if let Event::Note(line) | Event::Warning(line) = event {
                self.0.lock().unwrap().push(line.to_string());
            }
        }
    }

    /// The volume has 15 sectors of 512 bytes in clusters of 4 KiB: the backup lies in the middle of the second.
    const BACKUP: u64 = 15 * 512;
    const OLD: u64 = 0x1122_3344_5566_7788;

    /// What comes of these stretches: the serial numbers at these places of them, and the lines.
    fn renewed(kind: NewSerial, stretches: &[(u64, Vec<u8>)], places: &[u64]) -> (Vec<u64>, Vec<String>) {
        let geometry = Geometry::new(4096, 1, 8192).unwrap();
        let lines = Lines::default();
        let mut feed = SerialFeed::new(Stretches(stretches.to_vec()), kind, geometry, &lines);
        let (mut volume, mut buf) = (vec![0; 8192], vec![0; 8192]);
        while let Some(range) = feed.next(&mut buf).unwrap() {
            volume[range.pos as usize..range.end() as usize].copy_from_slice(&buf[..range.len as usize]);
        }
        let serial = |pos: &u64| u64::from_le_bytes(volume[*pos as usize + 0x48..][..8].try_into().unwrap());
        let serials = places.iter().map(serial).collect();
        drop(feed);
        (serials, lines.0.into_inner().unwrap())
    }

    #[test]
    fn both_boot_sectors_get_one_number_in_whatever_order_they_come() {
        let boot = boot_sector(512, 8, 15, -10);
        let backup = [vec![0; 3584], boot.clone()].concat();
        let second_half = backup[2048..].to_vec();
        for stretches in [
            vec![(0, boot.clone()), (4096, backup.clone())],
            vec![(4096, backup.clone()), (0, boot.clone())],
            vec![(0, boot.clone()), (4096, vec![0; 2048]), (6144, second_half)],
            vec![(0, [boot.clone(), vec![0; 3584], backup].concat())],
        ] {
            let (serials, lines) = renewed(NewSerial::Full, &stretches, &[0, BACKUP]);
            assert_ne!(serials[0], OLD);
            assert_eq!(serials[0], serials[1]);
            assert_eq!(lines, [format!("New serial number      : {:#x}", serials[0])]);
            let (serials, _) = renewed(NewSerial::UpperHalf, &stretches, &[0, BACKUP]);
            assert_eq!(serials[0] as u32, OLD as u32);
            assert_ne!(serials[0] >> 32, OLD >> 32);
            assert_eq!(serials[0], serials[1]);
        }
    }

    #[test]
    fn what_lies_in_the_wrong_place_is_no_backup() {
        let boot = boot_sector(512, 8, 15, -10);
        for wrong in [4096, BACKUP - 512] {
            let (serials, lines) =
                renewed(NewSerial::Full, &[(0, boot.clone()), (wrong, boot.clone())], &[0, wrong]);
            assert_ne!(serials[0], OLD);
            assert_eq!(serials[1], OLD);
            assert_eq!(lines.len(), 1);
        }
    }

    #[test]
    fn a_volume_without_boot_sectors_is_told() {
        let (_, lines) = renewed(NewSerial::Full, &[(0, vec![7; 8192])], &[]);
        assert_eq!(lines, ["no NTFS boot sector came: the serial number is not changed"]);
        let (_, lines) = renewed(NewSerial::Full, &[], &[]);
        assert_eq!(lines.len(), 1);
    }
}
