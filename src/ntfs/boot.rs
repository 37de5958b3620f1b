//! The boot sector: 512 bytes at the volume's start, and a copy of them in the sector behind its last one.
//!
//! Layout and encodings as Windows writes them; `mkntfs` makes the small and large geometries too.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::units::{Geometry, GeometryError, Lcn};

/// Bytes of the boot sector's structure, whatever the sector size.
pub const BOOT_SECTOR_LEN: usize = 512;

/// Bytes of the smallest sector that a volume can have.
const SMALLEST_SECTOR: usize = 256;

/// Bytes of an index block on every volume that Windows makes.
const INDEX_BLOCK_SIZE: u32 = 4096;

/// Largest MFT or index record that is taken seriously: the largest cluster.
const MAX_RECORD_SIZE: u64 = 2 << 20;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    jump: [u8; 3],
    /// `NTFS` and four blanks.
    oem_id: [u8; 8],
    /// Bytes in a sector.
    bytes_per_sector: U16,
    /// Up to 128: sectors in a cluster. Above: two's complement of the power of two of it.
    sectors_per_cluster: u8,
    unused1: [u8; 26],
    /// Sectors of the volume, without the one that holds the backup of this.
    total_sectors: U64,
    mft_lcn: U64,
    mftmirr_lcn: U64,
    /// Positive: clusters in an MFT record. Negative: power of two of its bytes.
    clusters_per_mft_record: i8,
    unused2: [u8; 3],
    /// Likewise for index records.
    clusters_per_index_record: i8,
    unused3: [u8; 3],
    serial: U64,
    checksum: U32,
    code: [u8; 426],
    /// 0xAA55.
    signature: U16,
}

/// What the boot sector says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootSector {
    /// Bytes in a sector: 256 to 4096.
    pub sector_size: u32,
    /// Bytes in a cluster.
    pub cluster_size: u32,
    /// Sectors of the volume, without the one that holds the backup boot sector.
    pub total_sectors: u64,
    /// Where `$MFT` begins.
    pub mft_lcn: Lcn,
    /// Where `$MFTMirr` begins.
    pub mftmirr_lcn: Lcn,
    /// Bytes in an MFT record: a power of two, at least 512.
    pub record_size: u32,
    /// Bytes in a block of an index: a power of two, at least 512. Where the field makes no sense, what Windows takes.
    pub index_block_size: u32,
    /// The volume's serial number.
    pub serial: u64,
}

/// Why 512 bytes are not the boot sector of an NTFS volume.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BootError {
    /// Not NTFS at all.
    #[error("found {0:?} where NTFS volumes have \"NTFS    \"")]
    OemId(String),
    /// The partition is encrypted.
    #[error("the volume is encrypted with BitLocker: unlock it first, or copy the whole disk")]
    BitLocker,
    /// The mark at the end is missing.
    #[error("signature is {0:#06x}, wanted 0xaa55")]
    Signature(u16),
    /// A field holds what no NTFS volume has.
    #[error("{field} is {found}, wanted {wanted}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// Its value.
        found: i64,
        /// What it should be.
        wanted: &'static str,
    },
}

impl BootSector {
    /// Parses and checks the first [`BOOT_SECTOR_LEN`] bytes of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<BootSector, BootError> {
        let too_short = BootError::Field { field: "length", found: bytes.len() as i64, wanted: "512 bytes" };
        let Ok((raw, _)) = Layout::ref_from_prefix(bytes) else { return Err(too_short) };
        if &raw.oem_id == b"-FVE-FS-" {
            return Err(BootError::BitLocker);
        }
        if &raw.oem_id != b"NTFS    " {
            let found = raw.oem_id.iter().flat_map(|byte| std::ascii::escape_default(*byte));
            return Err(BootError::OemId(found.map(char::from).collect()));
        }
        if raw.signature.get() != 0xaa55 {
            return Err(BootError::Signature(raw.signature.get()));
        }
        let sector_size = u32::from(raw.bytes_per_sector.get());
        if !sector_size.is_power_of_two() || !(256..=4096).contains(&sector_size) {
            return Err(BootError::Field {
                field: "sector size",
                found: sector_size.into(),
                wanted: "a power of two from 256 to 4096",
            });
        }
        let per_cluster = raw.sectors_per_cluster;
        let shift = if per_cluster > 128 { u32::from(per_cluster.wrapping_neg()) } else { 0 };
        let sectors = if per_cluster > 128 { 1u64.checked_shl(shift) } else { Some(per_cluster.into()) };
        let cluster_size = sectors
            .filter(|sectors| sectors.is_power_of_two())
            .and_then(|sectors| sectors.checked_mul(sector_size.into()))
            .filter(|size| *size <= MAX_RECORD_SIZE)
            .and_then(|size| u32::try_from(size).ok())
            .ok_or(BootError::Field {
                field: "sectors per cluster",
                found: per_cluster.into(),
                wanted: "a power of two that makes clusters of at most 2 MiB",
            })?;
        let record_size = record_size(raw.clusters_per_mft_record, cluster_size).ok_or(BootError::Field {
            field: "clusters per MFT record",
            found: raw.clusters_per_mft_record.into(),
            wanted: "a power of two that makes records of 512 bytes to 2 MiB",
        })?;
        let total_sectors = raw.total_sectors.get();
        if total_sectors == 0 || i64::try_from(total_sectors).is_err() {
            return Err(BootError::Field {
                field: "number of sectors",
                found: total_sectors as i64,
                wanted: "a positive number",
            });
        }
        Ok(BootSector {
            sector_size,
            cluster_size,
            total_sectors,
            mft_lcn: Lcn(raw.mft_lcn.get()),
            mftmirr_lcn: Lcn(raw.mftmirr_lcn.get()),
            record_size,
            index_block_size: self::record_size(raw.clusters_per_index_record, cluster_size)
                .unwrap_or(INDEX_BLOCK_SIZE),
            serial: raw.serial.get(),
        })
    }

    /// Where in these bytes, which begin at byte `pos` of the volume, a backup boot sector begins: one that names its own
    /// place.
    pub fn find_backup(pos: u64, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).step_by(SMALLEST_SECTOR).find(|at| {
            let boot = bytes.get(*at..).and_then(|sector| BootSector::parse(sector).ok());
            boot.and_then(|boot| boot.backup_pos())
                .is_some_and(|own| Some(own) == pos.checked_add(*at as u64))
        })
    }

    /// Puts another serial number into the bytes of a boot sector.
    pub fn set_serial(bytes: &mut [u8], serial: u64) {
        if let Ok((raw, _)) = Layout::mut_from_prefix(bytes) {
            raw.serial = serial.into();
        }
    }

    /// The volume's shape on a device of `device_size` bytes. A part of a cluster at the end does not count.
    pub fn geometry(&self, device_size: u64) -> Result<Geometry, GeometryError> {
        let sectors_per_cluster = u64::from(self.cluster_size / self.sector_size).max(1);
        Geometry::new(self.cluster_size.into(), self.total_sectors / sectors_per_cluster, device_size)
    }

    /// Where the backup boot sector lies, if the device is that long.
    pub fn backup_pos(&self) -> Option<u64> {
        self.total_sectors.checked_mul(self.sector_size.into())
    }
}

/// Bytes of a record from the field that names it.
fn record_size(field: i8, cluster_size: u32) -> Option<u32> {
    let size = match field {
        1.. => u64::from(field.unsigned_abs()) * u64::from(cluster_size),
        0 => return None,
        _ => 1u64.checked_shl(u32::from(field.unsigned_abs()))?,
    };
    let fits = size.is_power_of_two() && (512..=MAX_RECORD_SIZE).contains(&size);
    u32::try_from(size).ok().filter(|_| fits)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A boot sector with the fields that matter.
    pub(crate) fn boot_sector(sector_size: u16, per_cluster: u8, total_sectors: u64, record: i8) -> Vec<u8> {
        let mut bytes = vec![0; BOOT_SECTOR_LEN];
        bytes[3..11].copy_from_slice(b"NTFS    ");
        bytes[11..13].copy_from_slice(&sector_size.to_le_bytes());
        bytes[13] = per_cluster;
        bytes[0x28..0x30].copy_from_slice(&total_sectors.to_le_bytes());
        bytes[0x30] = 4;
        bytes[0x38] = 2;
        bytes[0x40] = record as u8;
        bytes[0x44] = 0xf4;
        bytes[0x48..0x50].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes());
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        bytes
    }

    /// Found by fuzzing: an addition that overflowed.
    #[test]
    fn no_backup_lies_behind_the_last_place_that_there_is() {
        let bytes = [vec![0; BOOT_SECTOR_LEN], boot_sector(512, 8, 1000, -10)].concat();
        assert_eq!(BootSector::find_backup(999 * 512, &bytes), Some(512));
        assert_eq!(BootSector::find_backup(u64::MAX - 100, &bytes), None);
    }

    #[test]
    fn sizes_are_decoded_in_both_encodings() {
        for (sector, per_cluster, record, cluster_size, record_size) in [
            (512, 8, -10i8, 4096, 1024),
            (512, 128, -10, 65536, 1024),
            (512, 0xf4, -10, 2 << 20, 1024), // 2^12 sectors
            (512, 0xf8, -10, 128 << 10, 1024),
            (4096, 1, 1, 4096, 4096),
            (4096, 0xf7, -12, 2 << 20, 4096),
            (256, 1, -10, 256, 1024),
            (512, 1, 2, 512, 1024),
        ] {
            let boot = BootSector::parse(&boot_sector(sector, per_cluster, 1 << 16, record)).unwrap();
            assert_eq!((boot.cluster_size, boot.record_size), (cluster_size, record_size));
            assert_eq!(boot.serial, 0x1122_3344_5566_7788);
        }
    }

    #[test]
    fn a_part_of_a_cluster_does_not_count() {
        let boot = BootSector::parse(&boot_sector(512, 8, 8191, -10)).unwrap();
        assert_eq!(boot.geometry(8192 * 512).unwrap().nr_clusters, 1023);
        assert_eq!(boot.backup_pos(), Some(8191 * 512));
    }

    #[test]
    fn what_is_not_ntfs_is_refused_with_what_was_found() {
        let good = boot_sector(512, 8, 8191, -10);
        let refused = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            BootSector::parse(&bad).unwrap_err().to_string()
        };
        assert_eq!(refused(3, b"EXFAT   "), r#"found "EXFAT   " where NTFS volumes have "NTFS    ""#);
        assert!(refused(3, b"-FVE-FS-").contains("BitLocker"));
        assert_eq!(refused(510, &[0, 0]), "signature is 0x0000, wanted 0xaa55");
        assert!(refused(11, &[0, 3]).starts_with("sector size is 768"));
        for per_cluster in [0, 3, 0x81, 0xc0, 0xf3] {
            assert!(refused(13, &[per_cluster]).starts_with("sectors per cluster"), "{per_cluster:#x}");
        }
        for record in [0i8, 3, -8, -22, -128] {
            assert!(refused(0x40, &[record as u8]).starts_with("clusters per MFT record"), "{record}");
        }
        assert!(refused(0x28, &[0xff; 8]).starts_with("number of sectors"));
        assert!(BootSector::parse(&good[..511]).is_err());
    }
}
