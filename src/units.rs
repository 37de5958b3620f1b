//! The units of an NTFS volume and the arithmetic between them.
//!
//! Positions (`pos`) are bytes from the volume's start, as `u64`. Clusters are counted on the volume (LCN) or
//! within one attribute's data (VCN); the two are types of their own, because mixing them up overwrites data.

/// Logical cluster number: a cluster's place on the volume, counted from the boot sector's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lcn(pub u64);

/// Virtual cluster number: a cluster's place within one attribute's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vcn(pub u64);

/// Most clusters that a volume may have. Windows makes up to 2^32 - 1; sixteen times as many still costs only
/// 32 MiB for an empty [`ClusterSet`](crate::extent::ClusterSet), and every product below stays within `i64`.
pub const MAX_CLUSTERS: u64 = 1 << 36;

/// Smallest and largest cluster in bytes. Windows makes 512 bytes to 2 MiB, `mkntfs` also 256 bytes.
pub const CLUSTER_SIZES: std::ops::RangeInclusive<u32> = 256..=2 << 20;

/// Size and shape of a volume and of the partition, disk or file that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes in a cluster: a power of two within [`CLUSTER_SIZES`].
    pub cluster_size: u32,
    /// Clusters of the volume, without the one behind the last that holds the backup boot sector.
    pub nr_clusters: u64,
    /// Bytes of the whole partition, disk or file.
    pub device_size: u64,
}

/// Why numbers from a disk or an image do not make a [`Geometry`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GeometryError {
    /// The cluster size is none that NTFS has.
    #[error("cluster size is {0} bytes, wanted a power of two from 256 to 2097152")]
    ClusterSize(u64),
    /// The number of clusters is none that NTFS has.
    #[error("number of clusters is {0}, wanted 1 to {MAX_CLUSTERS}")]
    NrClusters(u64),
    /// The device is larger than any.
    #[error("device size is {0} bytes, wanted at most {max}", max = i64::MAX)]
    DeviceSize(u64),
    /// The volume does not fit into its device.
    #[error("volume has {volume_size} bytes, but its device only {device_size}")]
    DeviceTooSmall {
        /// Bytes of all clusters.
        volume_size: u64,
        /// Bytes of the device.
        device_size: u64,
    },
}

impl Geometry {
    /// Checks the three numbers against each other.
    pub fn new(cluster_size: u64, nr_clusters: u64, device_size: u64) -> Result<Geometry, GeometryError> {
        let size = u32::try_from(cluster_size)
            .ok()
            .filter(|size| size.is_power_of_two() && CLUSTER_SIZES.contains(size))
            .ok_or(GeometryError::ClusterSize(cluster_size))?;
        if nr_clusters == 0 || nr_clusters > MAX_CLUSTERS {
            return Err(GeometryError::NrClusters(nr_clusters));
        }
        if i64::try_from(device_size).is_err() {
            return Err(GeometryError::DeviceSize(device_size));
        }
        let volume_size = nr_clusters * cluster_size;
        if volume_size > device_size {
            return Err(GeometryError::DeviceTooSmall { volume_size, device_size });
        }
        Ok(Geometry { cluster_size: size, nr_clusters, device_size })
    }

    /// Bytes of all clusters: what `Current volume size` names.
    pub fn volume_size(&self) -> u64 {
        self.nr_clusters * u64::from(self.cluster_size)
    }

    /// The position of a cluster's first byte.
    pub fn pos(&self, lcn: Lcn) -> u64 {
        lcn.0 * u64::from(self.cluster_size)
    }

    /// The position of a cluster's first byte, if the volume has such a cluster.
    pub fn pos_within(&self, lcn: Lcn) -> Option<u64> {
        (lcn.0 < self.nr_clusters).then(|| self.pos(lcn))
    }

    /// The cluster behind the last one. It holds the backup boot sector, counts as in use always, and is as long
    /// as the device still is there: a whole cluster at the most, 0 bytes where the device ends on the boundary.
    pub fn extra_lcn(&self) -> Lcn {
        Lcn(self.nr_clusters)
    }

    /// Bytes of the [extra cluster](Self::extra_lcn).
    pub fn extra_len(&self) -> u32 {
        let behind = self.device_size.saturating_sub(self.volume_size());
        u32::try_from(behind).map_or(self.cluster_size, |behind| behind.min(self.cluster_size))
    }

    /// Bytes of `nr_used` clusters and of the extra one: what a copy of the volume reads and writes.
    pub fn copied_bytes(&self, nr_used: u64) -> u64 {
        nr_used * u64::from(self.cluster_size) + u64::from(self.extra_len())
    }

    /// Where the last byte that a clone writes ends: the end of the extra cluster.
    pub fn written_end(&self) -> u64 {
        self.volume_size() + u64::from(self.extra_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_cluster_is_cut_at_the_device_end() {
        let whole = Geometry::new(4096, 10, 41984 + 8192).unwrap();
        assert_eq!((whole.extra_len(), whole.written_end()), (4096, 45056));
        let cut = Geometry::new(4096, 10, 40960 + 512).unwrap();
        assert_eq!((cut.extra_len(), cut.written_end()), (512, 41472));
        let none = Geometry::new(4096, 10, 40960).unwrap();
        assert_eq!(none.extra_len(), 0);
    }

    #[test]
    fn impossible_numbers_are_refused() {
        assert_eq!(Geometry::new(0, 1, 1), Err(GeometryError::ClusterSize(0)));
        assert_eq!(Geometry::new(3 << 10, 1, 1 << 20), Err(GeometryError::ClusterSize(3072)));
        assert_eq!(Geometry::new(4 << 20, 1, 1 << 30), Err(GeometryError::ClusterSize(4 << 20)));
        assert_eq!(Geometry::new(512, 0, 512), Err(GeometryError::NrClusters(0)));
        assert_eq!(Geometry::new(512, u64::MAX, 512), Err(GeometryError::NrClusters(u64::MAX)));
        assert_eq!(Geometry::new(512, 9, 1 << 63), Err(GeometryError::DeviceSize(1 << 63)));
        assert!(matches!(Geometry::new(512, 9, 4096), Err(GeometryError::DeviceTooSmall { .. })));
    }
}
