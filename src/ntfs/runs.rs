//! Runs: where the clusters of one attribute lie.
//!
//! On disk a run is one byte with two lengths in its nibbles, then the run's length in clusters and the distance
//! of its first cluster from the one before, both signed little-endian. No distance at all is a hole; a distance
//! of 0 is not (`$Boot` begins at LCN 0). A zero byte ends the list.

use std::io;

use crate::extent::Extent;
use crate::io::{ReadError, Source};
use crate::units::{Geometry, Lcn, Vcn};

/// A stretch of an attribute's clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First cluster within the attribute.
    pub vcn: Vcn,
    /// Where it lies on the volume; none for a hole.
    pub lcn: Option<Lcn>,
    /// Number of clusters.
    pub len: u64,
}

impl Run {
    /// The clusters on the volume, unless the run is a hole.
    pub fn extent(&self) -> Option<Extent> {
        self.lcn.map(|lcn| Extent { lcn, len: self.len })
    }
}

/// Why a list of runs cannot be decoded.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RunError {
    /// The list ends in the middle of a run.
    #[error("run list is cut off at its byte {0}")]
    CutOff(usize),
    /// A number has more than eight bytes, or a length none.
    #[error("run at byte {at} of the list begins with {header:#04x}, wanted lengths of 1 to 8")]
    Header {
        /// Offset in the list.
        at: usize,
        /// The byte found.
        header: u8,
    },
    /// A run of no or a negative number of clusters.
    #[error("run at byte {at} of the list has {len} clusters, wanted 1 or more")]
    Length {
        /// Offset in the list.
        at: usize,
        /// The length found.
        len: i64,
    },
    /// A run that leaves the volume.
    #[error(
        "run at byte {at} of the list covers {len} clusters from {lcn}, but the volume has {nr_clusters}"
    )]
    Outside {
        /// Offset in the list.
        at: usize,
        /// First cluster; negative, if the distances sum up to that.
        lcn: i64,
        /// Number of clusters.
        len: u64,
        /// Clusters of the volume.
        nr_clusters: u64,
    },
    /// The runs cover another stretch than the attribute says.
    #[error("runs end at VCN {found}, but the attribute at {wanted}")]
    End {
        /// VCN behind the last run.
        found: u64,
        /// VCN behind the last one that the attribute names.
        wanted: u64,
    },
}

/// Decodes a list of runs, one after the other, without storing any: a record of any size needs no memory. After
/// an error there is nothing more.
#[derive(Clone, Debug)]
pub struct RunDecoder<'a> {
    list: &'a [u8],
    at: usize,
    vcn: u64,
    lcn: i64,
    /// VCN behind the attribute's last one, where it is known.
    end_vcn: Option<Vcn>,
    nr_clusters: u64,
    done: bool,
}

impl<'a> RunDecoder<'a> {
    /// Decodes `list`, the runs for the VCNs from `first_vcn` up to, not including, `end_vcn`, on a volume of
    /// `nr_clusters` clusters. Without `end_vcn` the list may end anywhere.
    pub fn new(list: &'a [u8], first_vcn: Vcn, end_vcn: Option<Vcn>, nr_clusters: u64) -> RunDecoder<'a> {
        RunDecoder { list, at: 0, vcn: first_vcn.0, lcn: 0, end_vcn, nr_clusters, done: false }
    }

    /// Offset in the list of what comes next: in the end, of the byte behind the last run.
    pub fn at(&self) -> usize {
        self.at
    }

    fn decode(&mut self) -> Result<Option<Run>, RunError> {
        let at = self.at;
        // The list may end with the attribute instead of with a zero byte.
        let header = self.list.get(at).copied().unwrap_or(0);
        if header == 0 {
            return match self.end_vcn {
                Some(Vcn(wanted)) if wanted != self.vcn => Err(RunError::End { found: self.vcn, wanted }),
                _ => Ok(None),
            };
        }
        let (nr_len, nr_delta) = (usize::from(header & 0xf), usize::from(header >> 4));
        if nr_len == 0 || nr_len > 8 || nr_delta > 8 {
            return Err(RunError::Header { at, header });
        }
        let numbers = self.list.get(at + 1..at + 1 + nr_len + nr_delta);
        let (len, delta) = numbers.ok_or(RunError::CutOff(self.list.len()))?.split_at(nr_len);
        let len = signed(len);
        let nr = u64::try_from(len).ok().filter(|nr| *nr > 0).ok_or(RunError::Length { at, len })?;
        let end = self.vcn.checked_add(nr).ok_or(RunError::Length { at, len })?;
        let lcn = if delta.is_empty() {
            None
        } else {
            let first = self.lcn.wrapping_add(signed(delta));
            self.lcn = first;
            // NTFS 1.2 wrote a hole as the cluster before the first one.
            let is_hole = first == -1;
            let outside = RunError::Outside { at, lcn: first, len: nr, nr_clusters: self.nr_clusters };
            let lcn = u64::try_from(first).ok();
            let fits = lcn.and_then(|lcn| lcn.checked_add(nr)).is_some_and(|end| end <= self.nr_clusters);
            if !fits && !is_hole {
                return Err(outside);
            }
            lcn.map(Lcn)
        };
        let run = Run { vcn: Vcn(self.vcn), lcn, len: nr };
        self.vcn = end;
        self.at = at + 1 + nr_len + nr_delta;
        Ok(Some(run))
    }
}

impl Iterator for RunDecoder<'_> {
    type Item = Result<Run, RunError>;

    fn next(&mut self) -> Option<Result<Run, RunError>> {
        if self.done {
            return None;
        }
        let run = self.decode().transpose();
        self.done = !matches!(run, Some(Ok(_)));
        run
    }
}

/// A little-endian number of up to eight bytes, its last bit the sign.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    i64::from_le_bytes(all)
}

/// All runs of one attribute from VCN 0 on, without gaps, however many records they were collected from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunList {
    runs: Vec<Run>,
}

impl RunList {
    /// Adds the run behind the last one; false, and nothing added, if it begins elsewhere.
    pub fn push(&mut self, run: Run) -> bool {
        let follows = run.vcn == self.end();
        if follows {
            self.runs.push(run);
        }
        follows
    }

    /// Cuts the list at its first hole: what must not have any ends there.
    pub fn cut_at_hole(&mut self) {
        let whole = self.runs.iter().take_while(|run| run.lcn.is_some()).count();
        self.runs.truncate(whole);
    }

    /// The VCN behind the last run.
    pub fn end(&self) -> Vcn {
        self.runs.last().map_or(Vcn(0), |run| Vcn(run.vcn.0 + run.len))
    }

    /// The runs, by VCN.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The place on the volume of byte `offset` of the attribute's data, and how many bytes follow it in the
    /// same run. No place for a hole; nothing behind the last run.
    pub fn locate(&self, geometry: &Geometry, offset: u64) -> Option<(Option<u64>, u64)> {
        let cluster_size = u64::from(geometry.cluster_size);
        let vcn = offset / cluster_size;
        let i = self.runs.partition_point(|run| run.vcn.0 + run.len <= vcn);
        let run = self.runs.get(i)?;
        let within = offset - run.vcn.0 * cluster_size;
        // A hole can be longer than any number of bytes.
        let len = run.len.saturating_mul(cluster_size) - within;
        Some((run.lcn.map(|lcn| geometry.pos(lcn) + within), len))
    }

    /// Fills `buf` with the attribute's data from byte `offset` on. Holes read as zeros; behind the last run the
    /// read fails.
    pub fn read_at(
        &self,
        source: &dyn Source,
        geometry: &Geometry,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), ReadError> {
        let mut offset = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let Some((pos, len)) = self.locate(geometry, offset) else {
                let cause = io::Error::new(io::ErrorKind::InvalidInput, "no run covers this place");
                return Err(ReadError { pos: offset, len: rest.len(), cause });
            };
            let n = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            match pos {
                Some(pos) => source.read_at(pos, now)?,
                None => now.fill(0),
            }
            offset += n as u64;
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(list: &[u8], end: u64) -> Result<Vec<Run>, RunError> {
        RunDecoder::new(list, Vcn(0), Some(Vcn(end)), 1000).collect()
    }

    fn run(vcn: u64, lcn: impl Into<Option<u64>>, len: u64) -> Run {
        Run { vcn: Vcn(vcn), lcn: lcn.into().map(Lcn), len }
    }

    #[test]
    fn distances_may_be_negative_zero_or_absent() {
        let list = [0x21, 4, 0x2c, 1, 0x11, 2, 0xf6, 0x01, 7, 0x11, 1, 0, 0x12, 0x20, 1, 5, 0];
        assert_eq!(
            decode(&list, 4 + 2 + 7 + 1 + 288).unwrap(),
            [run(0, 300, 4), run(4, 290, 2), run(6, None, 7), run(13, 290, 1), run(14, 295, 288)]
        );
        assert_eq!(decode(&[0x11, 2, 0, 0], 2).unwrap(), [run(0, 0, 2)], "a distance of 0 is no hole");
        let list = [0x11, 2, 9, 0x11, 3, 0xf6, 0x11, 1, 8, 0];
        assert_eq!(
            decode(&list, 6).unwrap(),
            [run(0, 9, 2), run(2, None, 3), run(5, 7, 1)],
            "a hole at LCN -1"
        );
    }

    #[test]
    fn broken_lists_are_told_apart() {
        assert_eq!(decode(&[0x21, 4, 0x2c], 4), Err(RunError::CutOff(3)));
        assert_eq!(decode(&[0x10, 4, 0], 4), Err(RunError::Header { at: 0, header: 0x10 }));
        assert_eq!(decode(&[0x19; 20], 4), Err(RunError::Header { at: 0, header: 0x19 }));
        assert_eq!(decode(&[0x11, 0, 5, 0], 4), Err(RunError::Length { at: 0, len: 0 }));
        assert_eq!(decode(&[0x11, 0xff, 5, 0], 4), Err(RunError::Length { at: 0, len: -1 }));
        let outside = |lcn, len| RunError::Outside { at: 0, lcn, len, nr_clusters: 1000 };
        assert_eq!(decode(&[0x11, 4, 0x80, 0], 4), Err(outside(-128, 4)));
        assert_eq!(decode(&[0x21, 9, 0xe0, 3, 0], 9), Err(outside(992, 9)));
        assert_eq!(decode(&[0x11, 4, 1, 0], 5), Err(RunError::End { found: 4, wanted: 5 }));
        let huge = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(matches!(decode(&[huge, huge, huge].concat(), 5), Err(RunError::Length { at: 18, .. })));
    }

    #[test]
    fn the_list_may_end_with_the_attribute() {
        assert_eq!(decode(&[0x11, 4, 1], 4).unwrap(), [run(0, 1, 4)]);
    }

    #[test]
    fn places_are_found_across_runs() {
        let geometry = Geometry::new(512, 1000, 512_000).unwrap();
        let mut list = RunList::default();
        assert!(list.push(run(0, 10, 2)) && list.push(run(2, None, 1)) && list.push(run(3, 4, 1)));
        assert!(!list.push(run(9, 4, 1)), "a gap");
        assert_eq!(list.locate(&geometry, 700), Some((Some(10 * 512 + 700), 324)));
        assert_eq!(list.locate(&geometry, 1024), Some((None, 512)));
        assert_eq!(list.locate(&geometry, 1536), Some((Some(2048), 512)));
        assert_eq!(list.locate(&geometry, 2048), None);
        assert!(list.push(run(4, None, u64::MAX - 4)));
        assert_eq!(list.locate(&geometry, 2048), Some((None, u64::MAX)));
    }
}
