//! Which bytes of the source are wanted.

use crate::extent::{ByteRange, ClusterSet};

/// The longest stretch that is told at once, in bytes. To find its end costs what it is long, and it is asked for with
/// each block that is read.
const LONGEST: u64 = 64 << 20;

/// The wanted bytes: a set of clusters, and a stretch behind the last of them.
#[derive(Clone, Copy, Debug)]
pub struct Domain<'a> {
    clusters: &'a ClusterSet,
    cluster_size: u64,
    /// Empty, or the stretch behind the last cluster.
    extra: ByteRange,
}

impl<'a> Domain<'a> {
    /// These clusters of `cluster_size` bytes, and `extra`, which lies behind all of them; it may be empty.
    pub fn new(clusters: &'a ClusterSet, cluster_size: u64, extra: ByteRange) -> Domain<'a> {
        Domain { clusters, cluster_size, extra }
    }

    /// The first stretch that ends behind byte `from`, cut to begin there at the earliest. A long one comes in pieces.
    pub fn next(&self, from: u64) -> Option<ByteRange> {
        let start = self.clusters.find(from / self.cluster_size, true);
        if start < self.clusters.bound() {
            let pos = from.max(start * self.cluster_size);
            let end = self.clusters.find_until(start, false, start + self.longest());
            return Some(ByteRange { pos, len: end * self.cluster_size - pos });
        }
        let pos = from.max(self.extra.pos);
        (pos < self.extra.end()).then(|| ByteRange { pos, len: self.extra.end() - pos })
    }

    /// The last stretch that begins before byte `before`, cut to end there at the latest. A long one comes in pieces.
    pub fn prev(&self, before: u64) -> Option<ByteRange> {
        if self.extra.pos < before.min(self.extra.end()) {
            return Some(ByteRange {
                pos: self.extra.pos,
                len: before.min(self.extra.end()) - self.extra.pos,
            });
        }
        let last = self.clusters.find_before(before.div_ceil(self.cluster_size), true)?;
        let limit = (last + 1).saturating_sub(self.longest());
        let start = self.clusters.find_down_to(last, false, limit).map_or(limit, |gap| gap + 1);
        let (pos, end) = (start * self.cluster_size, before.min((last + 1) * self.cluster_size));
        Some(ByteRange { pos, len: end - pos })
    }

    /// Clusters of a piece.
    fn longest(&self) -> u64 {
        (LONGEST / self.cluster_size).max(1)
    }

    /// Does a stretch of clusters go on across this byte?
    pub fn goes_on_at(&self, pos: u64) -> bool {
        let cluster = pos / self.cluster_size;
        self.clusters.contains(cluster)
            && cluster.checked_sub(1).is_some_and(|last| self.clusters.contains(last))
    }

    /// The stretch that holds a wanted byte: all of it, or of a long one the pieces before and from there on.
    pub fn around(&self, pos: u64) -> ByteRange {
        let Some(behind) = self.next(pos) else { return ByteRange { pos, len: 0 } };
        let start =
            self.prev(pos).filter(|before| before.end() == pos).map_or(behind.pos, |before| before.pos);
        ByteRange { pos: start, len: behind.end() - start }
    }

    /// All stretches, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = ByteRange> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let range = self.next(at)?;
            at = range.end();
            Some(range)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::Extent;
    use crate::units::Lcn;

    #[test]
    fn stretches_are_found_from_both_sides() {
        let mut clusters = ClusterSet::new(100);
        clusters.insert_extent(Extent { lcn: Lcn(0), len: 2 });
        clusters.insert_extent(Extent { lcn: Lcn(98), len: 2 });
        let domain = Domain::new(&clusters, 10, ByteRange { pos: 1000, len: 5 });
        let as_pair = |range: ByteRange| (range.pos, range.end());
        assert_eq!(domain.ranges().map(as_pair).collect::<Vec<_>>(), [(0, 20), (980, 1000), (1000, 1005)]);
        assert_eq!(domain.next(985).map(as_pair), Some((985, 1000)));
        assert_eq!(domain.next(1003).map(as_pair), Some((1003, 1005)));
        assert_eq!(domain.next(1005), None);
        for (before, found) in [
            (2000, (1000, 1005)),
            (1003, (1000, 1003)),
            (1000, (980, 1000)),
            (985, (980, 985)),
            (500, (0, 20)),
            (1, (0, 1)),
        ] {
            assert_eq!(domain.prev(before).map(as_pair), Some(found), "before {before}");
        }
        assert_eq!(domain.prev(0), None);
        assert_eq!(
            [0, 19, 985, 1003].map(|pos| as_pair(domain.around(pos))),
            [(0, 20), (0, 20), (980, 1000), (1000, 1005)]
        );
        let none = Domain::new(&clusters, 10, ByteRange { pos: 1000, len: 0 });
        assert_eq!((none.next(1000), none.prev(1000).map(as_pair)), (None, Some((980, 1000))));
    }

    #[test]
    fn long_stretches_come_in_pieces() {
        const CLUSTER: u64 = 4096;
        let nr_clusters = LONGEST / CLUSTER * 5 / 2;
        let mut clusters = ClusterSet::new(nr_clusters + 10);
        clusters.insert_extent(Extent { lcn: Lcn(3), len: nr_clusters });
        let domain = Domain::new(&clusters, CLUSTER, ByteRange { pos: 0, len: 0 });
        let ranges: Vec<_> = domain.ranges().collect();
        assert_eq!(ranges.len(), 3);
        assert!(ranges.windows(2).all(|pair| pair[0].end() == pair[1].pos && domain.goes_on_at(pair[1].pos)));
        let (pos, end) = (3 * CLUSTER, (3 + nr_clusters) * CLUSTER);
        assert_eq!((ranges[0].pos, ranges[2].end()), (pos, end));
        assert!(!domain.goes_on_at(pos) && !domain.goes_on_at(end) && !domain.goes_on_at(0));
        let last = domain.prev(u64::MAX).unwrap();
        assert_eq!((last.len, last.end()), (LONGEST, end));
        let mut back = end;
        while let Some(piece) = domain.prev(back) {
            assert_eq!(piece.end(), back);
            back = piece.pos;
        }
        assert_eq!(back, pos);
    }
}
