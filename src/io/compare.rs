//! Comparing a target with what was written to it: a [`Sink`] that reads where others write.
//!
//! What differs and what cannot be read is kept by clusters. Of a cluster that comes twice, as in some old images, the
//! later one counts: it was written over the earlier one.

use super::buffer::AlignedBuf;
use super::{Loss, Sink, Source, WriteError};
use crate::extent::{ByteRange, ClusterSet, Extent};
use crate::units::{Geometry, Lcn};

/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

/// Reads a target back, and compares.
pub struct CompareSink<'a> {
    target: &'a dyn Source,
    name: String,
    geometry: Geometry,
    buf: AlignedBuf,
    differing: ClusterSet,
    unreadable: ClusterSet,
}

impl<'a> CompareSink<'a> {
    /// Reads a raw clone of a volume of this shape from `target`; `name` is for messages.
    pub fn new(target: &'a dyn Source, name: String, geometry: &Geometry) -> CompareSink<'a> {
        let none = || ClusterSet::new(geometry.nr_clusters + 1);
        let buf = AlignedBuf::new(BUFFER);
        CompareSink { target, name, geometry: *geometry, buf, differing: none(), unreadable: none() }
    }

    /// The clusters of which bytes differ, as stretches of the volume, ascending.
    pub fn differing(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.stretches(&self.differing)
    }

    /// Likewise those that cannot be read.
    pub fn unreadable(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.stretches(&self.unreadable)
    }

    fn stretches<'s>(&'s self, clusters: &'s ClusterSet) -> impl Iterator<Item = ByteRange> + 's {
        clusters.extents().map(|extent| {
            let pos = self.geometry.pos(extent.lcn);
            // The extra cluster may be shorter.
            let end = self.geometry.pos(Lcn(extent.end())).min(self.geometry.written_end());
            ByteRange { pos, len: end - pos }
        })
    }

    /// Compares a stretch; false where it cannot be read.
    fn compare(&mut self, pos: u64, wanted: &[u8]) -> Result<bool, WriteError> {
        let found = self.buf.bytes_mut().get_mut(..wanted.len()).unwrap_or_default();
        match self.target.read_at(pos, found) {
            Ok(()) => {}
            Err(error) if error.loss() == Loss::BadArea => return Ok(false),
            Err(cause) => return Err(WriteError::ReadBack { target: self.name.clone(), cause }),
        }
        if *found != *wanted {
            let cluster_size = u64::from(self.geometry.cluster_size);
            let found = in_clusters(pos, found, cluster_size);
            for ((lcn, found), (_, wanted)) in found.zip(in_clusters(pos, wanted, cluster_size)) {
                if found != wanted {
                    self.differing.insert(lcn);
                }
            }
        }
        Ok(true)
    }
}

/// The bytes at `pos` of a volume by clusters, with their numbers; the first and the last may be parts.
fn in_clusters(pos: u64, bytes: &[u8], cluster_size: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let (mut at, mut rest) = (pos, bytes);
    std::iter::from_fn(move || {
        let (lcn, left) = (at / cluster_size, cluster_size - at % cluster_size);
        let (now, later) = rest.split_at(rest.len().min(left as usize));
        rest = later;
        at += now.len() as u64;
        (!now.is_empty()).then_some((lcn, now))
    })
}

impl Sink for CompareSink<'_> {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        let cluster_size = u64::from(self.geometry.cluster_size);
        let end = pos + data.len() as u64;
        // What was told of clusters that come a second time does not count.
        let first = pos.div_ceil(cluster_size);
        let again = Extent { lcn: Lcn(first), len: end.div_ceil(cluster_size).saturating_sub(first) };
        self.differing.remove_extent(again);
        self.unreadable.remove_extent(again);
        for (pos, data) in (pos..).step_by(BUFFER).zip(data.chunks(BUFFER)) {
            if self.compare(pos, data)? {
                continue;
            }
            let mut at = pos;
            for (lcn, part) in in_clusters(pos, data, cluster_size) {
                if !self.compare(at, part)? {
                    self.unreadable.insert(lcn);
                }
                at += part.len() as u64;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        Ok(())
    }

    fn takes_any_order(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::memory::Memory;

    const SIZE: usize = 3 << 20;

    fn content() -> Vec<u8> {
        (0..SIZE).map(|pos| (pos * 7 + pos / 256) as u8).collect()
    }

    /// Clusters of 4 KiB, and an extra one of 512 bytes at the end.
    fn geometry() -> Geometry {
        Geometry::new(4096, SIZE as u64 / 4096 - 1, SIZE as u64 - 4096 + 512).unwrap()
    }

    fn of(ranges: impl Iterator<Item = ByteRange>) -> Vec<(u64, u64)> {
        ranges.map(|range| (range.pos, range.len)).collect()
    }

    #[test]
    fn what_differs_is_found_whatever_the_stretches() {
        let wanted = content();
        let mut target = Memory::of(content(), &[]);
        for at in [4096, 8191, 8192, 1 << 20, SIZE - 4096] {
            target.bytes[at] ^= 1;
        }
        let end = SIZE - 4096 + 512;
        for piece in [512, 3 * 512, 4096, SIZE] {
            let mut sink = CompareSink::new(&target, "x".into(), &geometry());
            for pos in (0..end).step_by(piece) {
                sink.put(pos as u64, &wanted[pos..end.min(pos + piece)]).unwrap();
            }
            let differing = [(4096, 8192), (1 << 20, 4096), (SIZE as u64 - 4096, 512)];
            assert_eq!(of(sink.differing()), differing, "pieces of {piece}");
            assert_eq!(of(sink.unreadable()), []);
        }
    }

    #[test]
    fn what_cannot_be_read_does_not_hide_what_differs() {
        let wanted = content();
        let mut target = Memory::of(content(), &[40]);
        target.bytes[16_384] ^= 0x80;
        let mut sink = CompareSink::new(&target, "x".into(), &geometry());
        sink.put(0, &wanted[..1 << 20]).unwrap();
        assert_eq!(of(sink.differing()), [(16_384, 4096)]);
        assert_eq!(of(sink.unreadable()), [(20_480, 4096)]);
    }

    #[test]
    fn the_later_of_two_counts() {
        let target = Memory::of(content(), &[]);
        let mut sink = CompareSink::new(&target, "x".into(), &geometry());
        sink.put(4096, &[7; 8192]).unwrap();
        assert_eq!(of(sink.differing()), [(4096, 8192)]);
        sink.put(4096, &content()[4096..8192]).unwrap();
        assert_eq!(of(sink.differing()), [(8192, 4096)]);
    }

    #[test]
    fn a_target_that_goes_away_ends_it() {
        const ENODEV: i32 = 19;
        let target = Memory { errno: ENODEV, ..Memory::of(content(), &[0]) };
        let mut sink = CompareSink::new(&target, "'/dev/x'".into(), &geometry());
        let error = sink.put(0, &content()[..4096]).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read '/dev/x' back: cannot read 4096 bytes at byte 0x0"),
            "{error}"
        );
    }
}
