//! Opening a volume: its boot sector, `$MFT`, and what `$Volume` says of it.

use std::io;

use super::attr::{text, types};
use super::boot::{BOOT_SECTOR_LEN, BootSector};
use super::mft::{Mft, Value};
use super::record::Record;
use super::{Error, Tolerance, mft_no};
use crate::event::{Event, Observer};
use crate::io::{Loss, ReadError, Source};
use crate::units::{Geometry, Lcn};

/// Bytes of a label in UTF-8: Windows takes 32 UTF-16 units, the format 128 and each up to 3 bytes.
pub type Label = heapless::String<384>;

/// What a volume says of itself.
#[derive(Clone, Debug)]
pub struct NtfsInfo {
    /// Its shape.
    pub geometry: Geometry,
    /// Bytes in a sector of the volume.
    pub sector_size: u32,
    /// NTFS version, major and minor; none where `$Volume` cannot be read.
    pub version: Option<(u8, u8)>,
    /// Is it marked for a check?
    pub is_dirty: bool,
    /// Its label.
    pub label: Label,
    /// Its serial number.
    pub serial: u64,
}

/// A volume that is open for reading.
pub struct Volume<'a> {
    /// What it is read from.
    pub source: &'a dyn Source,
    /// Its records.
    pub mft: Mft,
    /// What it says of itself.
    pub info: NtfsInfo,
    /// Bytes in a block of an index that does not say otherwise.
    pub index_block_size: u32,
    /// Structures that could not be used on the way.
    pub nr_damaged: u64,
}

/// `$VOLUME_INFORMATION`: the flag of a volume that was not unmounted, or is known to be damaged.
const DIRTY: u8 = 1;

impl<'a> Volume<'a> {
    /// Opens the volume that `source` begins with. As far as `tolerance` goes, the copies of the boot sector and of
    /// `$MFT`'s record stand in where the originals cannot be used, and a `$Volume` that cannot be read is left
    /// out, each with a warning.
    pub fn open(
        source: &'a dyn Source,
        tolerance: Tolerance,
        observer: &dyn Observer,
    ) -> Result<Volume<'a>, Error> {
        let mut nr_damaged = 0;
        let boot = match read_boot_sector(source, 0) {
            Ok(boot) => boot,
            Err(error) if tolerance.forgives(&error) => {
                // What cannot be read is counted in bytes.
                nr_damaged += u64::from(error.read().is_none());
                if let Some((pos, boot)) = backup_boot_sector(source) {
                    observer.tell(Event::Warning(format_args!("{error}; using its backup at byte {pos:#x}")));
                    boot
                } else {
                    observer.tell(Event::Warning(format_args!("no backup boot sector in the last sector")));
                    // What is there and is no boot sector belongs to something else.
                    let is_unreadable = error.read().is_some_and(|read| read.loss() == Loss::BadArea);
                    let inferred = if is_unreadable { infer_boot_sector(source) } else { None };
                    let Some((pos, boot)) = inferred else { return Err(error) };
                    observer.tell(Event::Warning(format_args!(
                        "{error}; going by the MFT records at byte {pos:#x}"
                    )));
                    boot
                }
            }
            Err(error) => return Err(error),
        };
        let geometry = boot.geometry(source.len())?;
        let mft = Mft::open(source, geometry, &boot, tolerance, observer)?;
        nr_damaged += u64::from(mft.is_partial());
        let info = NtfsInfo {
            geometry,
            sector_size: boot.sector_size,
            version: None,
            is_dirty: false,
            label: Label::new(),
            serial: boot.serial,
        };
        let index_block_size = boot.index_block_size;
        let mut volume = Volume { source, mft, info, index_block_size, nr_damaged };
        match volume.read_volume_record() {
            Err(error) if tolerance.forgives(&error) => {
                observer.tell(Event::Warning(format_args!("version and dirty flag unknown: {error}")));
                volume.nr_damaged += 1;
            }
            other => other?,
        }
        Ok(volume)
    }

    /// Takes label, version and flags from `$Volume`.
    fn read_volume_record(&mut self) -> Result<(), Error> {
        let mft_no = mft_no::VOLUME;
        let information = self.mft.value(self.source, mft_no, types::VOLUME_INFORMATION, &[])?;
        // Eight unused bytes, major version, minor version, flags.
        match information {
            Some(Value::Resident(value)) if value.len() >= 12 => {
                let byte = |at: usize| value.get(at).copied().unwrap_or(0);
                self.info.version = Some((byte(8), byte(9)));
                self.info.is_dirty = byte(10) & DIRTY != 0;
            }
            _ => return Err(Error::Missing { mft_no, what: "$VOLUME_INFORMATION" }),
        }
        if let Some(Value::Resident(name)) = self.mft.value(self.source, mft_no, types::VOLUME_NAME, &[])? {
            for char in text(&name) {
                if self.info.label.push(char).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// What a boot sector would say, told by the MFT records or their copies where mkfs and Windows put them: in records that
/// are found at one of these places, `$MFT` or `$MFTMirr` names this very place. Also where they were found.
fn infer_boot_sector(source: &dyn Source) -> Option<(u64, BootSector)> {
    const CLUSTER_SIZES: [u64; 8] = [4096, 512, 1024, 2048, 8192, 16_384, 32_768, 65_536];
    let sector_size = source.sector_size().clamp(512, 4096);
    let total_sectors = (source.len() / u64::from(sector_size)).checked_sub(1)?;
    // In a dead zone each attempt costs seconds: the places near one that failed are left out.
    let mut failed = Vec::<u64>::new();
    CLUSTER_SIZES.into_iter().find_map(|cluster_size| {
        let nr_clusters = total_sectors * u64::from(sector_size) / cluster_size;
        // $MFTMirr of Windows and of mkntfs, $MFT of mkntfs and of Windows.
        let places = [2, nr_clusters / 2, (16 << 10) / cluster_size, (3 << 30) / cluster_size];
        places.into_iter().find_map(|lcn| {
            let pos = lcn.checked_mul(cluster_size).filter(|pos| *pos < source.len())?;
            if failed.iter().any(|failed| failed.abs_diff(pos) < NEAR) {
                return None;
            }
            let lcns = [0, 1].map(|mft_no| first_lcn(source, pos + mft_no * RECORD_SIZE, &mut failed));
            let [Some(mft_lcn), mirror] = lcns else { return None };
            let is_here = |found: Option<u64>| found.is_some_and(|found| found == lcn);
            (is_here(Some(mft_lcn)) || is_here(mirror)).then(|| {
                let boot = BootSector {
                    sector_size,
                    cluster_size: cluster_size as u32,
                    total_sectors,
                    mft_lcn: Lcn(mft_lcn),
                    mftmirr_lcn: Lcn(mirror.unwrap_or(mft_lcn)),
                    record_size: RECORD_SIZE as u32,
                    index_block_size: 4096,
                    serial: 0,
                };
                (pos, boot)
            })
        })
    })
}

/// Places that are so near, in bytes, fail together.
const NEAR: u64 = 1 << 20;

/// Bytes of an MFT record on disks with sectors of 512 bytes.
const RECORD_SIZE: u64 = 1024;

/// Where the contents of the file begin whose MFT record is at byte `pos`, if one is there.
/// A place that cannot be read is added to `failed`.
fn first_lcn(source: &dyn Source, pos: u64, failed: &mut Vec<u64>) -> Option<u64> {
    let mut bytes = vec![0; RECORD_SIZE as usize];
    if source.read_at(pos, &mut bytes).is_err() {
        failed.push(pos);
        return None;
    }
    let record = Record::parse(&mut bytes).ok()?;
    let data = record.attributes().flatten().find(|attribute| attribute.kind == types::DATA)?;
    data.runs(u64::MAX)?.next()?.ok()?.lcn.map(|lcn| lcn.0)
}

/// The boot sector, or its backup.
pub(crate) fn any_boot_sector(source: &dyn Source) -> Option<BootSector> {
    read_boot_sector(source, 0).ok().or_else(|| Some(backup_boot_sector(source)?.1))
}

/// Reads and parses the boot sector at byte `pos`.
fn read_boot_sector(source: &dyn Source, pos: u64) -> Result<BootSector, Error> {
    if source.len() < pos.saturating_add(BOOT_SECTOR_LEN as u64) {
        let cause = io::Error::new(io::ErrorKind::InvalidData, "too short for an NTFS volume");
        return Err(ReadError { pos, len: BOOT_SECTOR_LEN, cause }.into());
    }
    let mut bytes = [0; BOOT_SECTOR_LEN];
    source.read_at(pos, &mut bytes)?;
    BootSector::parse(&bytes).map_err(|cause| Error::Boot { pos, cause })
}

/// The backup boot sector, if it is in the last sector of the source, and where.
pub(crate) fn backup_boot_sector(source: &dyn Source) -> Option<(u64, BootSector)> {
    for sector_size in [512, 4096, 1024, 2048] {
        let pos = source.len().checked_sub(sector_size)?;
        match read_boot_sector(source, pos) {
            Ok(boot) if boot.backup_pos() == Some(pos) => return Some((pos, boot)),
            // What lies so near is lost as well, and each attempt may take seconds.
            Err(Error::Read(_)) if sector_size == 512 => return None,
            _ => {}
        }
    }
    None
}
