//! What is to be copied: the used clusters of a volume as ordered, disjoint stretches of bytes.

use crate::extent::{ByteRange, ClusterSet, Extents};
use crate::units::Geometry;

/// The clusters to be copied. Made once, before the first cluster is placed, and never changed.
#[derive(Debug)]
pub struct Plan {
    /// The volume's shape.
    pub geometry: Geometry,
    /// How many clusters are in use, without the extra one.
    pub nr_used: u64,
    used: ClusterSet,
}

impl Plan {
    /// A plan to copy the `nr_used` clusters in `used`, and the extra one behind the last, which is in use always.
    pub fn new(geometry: Geometry, used: ClusterSet, nr_used: u64) -> Plan {
        Plan { geometry, nr_used, used }
    }

    /// Bytes to be copied.
    pub fn total_bytes(&self) -> u64 {
        self.geometry.copied_bytes(self.nr_used)
    }

    /// The used clusters as stretches, ascending, without the extra one.
    pub fn extents(&self) -> Extents<'_> {
        self.used.extents()
    }

    /// How many stretches of unused clusters lie before a used one.
    pub fn nr_gaps(&self) -> u64 {
        let clusters = self.extents().map(|extent| (extent.lcn.0, extent.end()));
        let extra = self.geometry.nr_clusters;
        let starts_and_ends = clusters.chain(std::iter::once((extra, extra)));
        let (_, gaps) =
            starts_and_ends.fold((0, 0), |(at, gaps), (start, end)| (end, gaps + u64::from(start > at)));
        gaps
    }

    /// The stretches, ascending. The extra cluster is one of its own, left out where it has no bytes.
    pub fn ranges(&self) -> impl Iterator<Item = ByteRange> + Send + '_ {
        let cluster_size = u64::from(self.geometry.cluster_size);
        let extra = ByteRange {
            pos: self.geometry.pos(self.geometry.extra_lcn()),
            len: self.geometry.extra_len().into(),
        };
        let used = self.extents();
        used.map(move |extent| ByteRange { pos: extent.lcn.0 * cluster_size, len: extent.len * cluster_size })
            .chain(std::iter::once(extra).filter(|extra| extra.len > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::Extent;
    use crate::units::Lcn;

    #[test]
    fn the_extra_cluster_comes_last_and_alone() {
        let mut used = ClusterSet::new(10);
        used.insert_extent(Extent { lcn: Lcn(0), len: 2 });
        used.insert_extent(Extent { lcn: Lcn(8), len: 2 });
        let plan = Plan::new(Geometry::new(512, 10, 5120 + 100).unwrap(), used, 4);
        let ranges: Vec<_> = plan.ranges().map(|range| (range.pos, range.len)).collect();
        assert_eq!(ranges, [(0, 1024), (4096, 1024), (5120, 100)]);
        assert_eq!((plan.total_bytes(), plan.nr_gaps()), (2148, 1));
    }
}
