//! An image in a file, written in any order: the plan says where each cluster's command stands.

use std::io::{self, BufReader, Read};

use zerocopy::IntoBytes;

use super::sums::SumTable;
use super::trailer::{self, Marks, Origin, Trailer};
use super::{DATA, DATA_OFFSET, Header, ImageError, ImageReader, SKIP, encoded_len};
use crate::extent::{ByteRange, Rank, Ranks};
use crate::io::{PlacedFile, PlacedSink, ReadError, Sink, WriteError};
use crate::plan::Plan;

/// Bytes of a skip: the command and its count.
const SKIP_LEN: u64 = 9;

/// An image in a file. Each cluster that any byte is put of gets its command.
#[derive(Debug)]
pub struct PlacedImage<'p> {
    file: Box<dyn PlacedFile>,
    name: String,
    plan: &'p Plan,
    ranks: Ranks,
    /// What is written at once: commands and clusters as they stand in the file.
    buffer: Vec<u8>,
    /// What the trailer names, if the image gets one.
    origin: Option<Origin>,
}

/// Bytes that are read back at once.
const READ_BACK: usize = 1 << 20;

/// An image that is read back from its beginning.
struct Back<'f> {
    file: &'f dyn PlacedFile,
    at: u64,
    end: u64,
}

impl Read for Back<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        let now = buf.get_mut(..n).unwrap_or_default();
        self.file.read_exact_at(now, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl<'p> PlacedImage<'p> {
    /// An image of what `plan` names in `file`, open for reading and writing, empty or begun by the same plan; `name` is
    /// for messages.
    pub fn new(
        file: impl PlacedFile + 'static,
        name: String,
        plan: &'p Plan,
    ) -> Result<PlacedImage<'p>, WriteError> {
        let ranks = plan.clusters().ranks();
        let mut image =
            PlacedImage { file: Box::new(file), name, plan, ranks, buffer: Vec::new(), origin: None };
        image.drop_trailer()?;
        image.buffer.extend_from_slice(Header::of(&plan.geometry, plan.nr_used).as_bytes());
        image.buffer.extend_from_slice(DATA_OFFSET.as_bytes());
        image.buffer.resize(DATA_OFFSET as usize, 0);
        image.write(0)?;
        Ok(image)
    }

    /// Ends the image with a trailer when it is sealed, if its origin is given.
    pub fn with_trailer(self, origin: Option<Origin>) -> PlacedImage<'p> {
        PlacedImage { origin, ..self }
    }

    /// Takes the trailer of an earlier run away: from now on its checksums are wrong.
    fn drop_trailer(&mut self) -> Result<(), WriteError> {
        let end = self.len();
        let cut = self.file.cut(end).map_err(|cause| self.failed("shorten", cause))?;
        let mut magic = [0; trailer::MAGIC.len()];
        // On a device, where a place that cannot be read is the end of it more often than not.
        let is_there = self.file.end() > end && self.file.read_exact_at(&mut magic, end).is_ok();
        let is_there = is_there && trailer::is_begun(&magic);
        if is_there {
            self.buffer = vec![0; trailer::room_for(end) as usize];
            self.write(end)?;
            self.buffer.clear();
        }
        if cut || is_there { self.sync() } else { Ok(()) }
    }

    /// Reads the image back, and sums it; none if it is not to go on.
    fn sum(&self, goes_on: &mut dyn FnMut(u64) -> bool) -> Result<Option<SumTable>, ImageError> {
        let back = Back { file: &*self.file, at: 0, end: self.len() };
        let mut image = ImageReader::open_checked(BufReader::with_capacity(READ_BACK, back), None)?;
        let mut buf = vec![0; READ_BACK];
        let mut done = 0;
        while goes_on(done) {
            match image.next(&mut buf)? {
                Some((_, len)) => done += len as u64,
                None => return Ok(image.sums()),
            }
        }
        Ok(None)
    }

    fn failed(&self, what: &'static str, cause: io::Error) -> WriteError {
        WriteError::Finish { what, target: self.name.clone(), cause }
    }

    /// Writes what is in the buffer.
    fn write(&mut self, at: u64) -> Result<(), WriteError> {
        self.file.write_all_at(&self.buffer, at).map_err(|cause| WriteError::Write {
            target: self.name.clone(),
            pos: at,
            len: self.buffer.len(),
            cause,
        })
    }

    fn cluster_size(&self) -> u64 {
        self.plan.geometry.cluster_size.into()
    }

    /// Where a cluster's data command stands in the file, and how many clusters are skipped by the one before it.
    fn command(&self, lcn: u64) -> (u64, u64) {
        let (clusters, nr_clusters) = (self.plan.clusters(), self.plan.geometry.nr_clusters);
        let before = clusters.find_before(lcn, true).map_or(0, |last| last + 1);
        let skipped = lcn - before;
        let rank = if lcn == nr_clusters {
            let gaps = self.plan.nr_gaps();
            Rank { before: self.plan.nr_used, gaps }
        } else {
            clusters.rank(&self.ranks, lcn)
        };
        let at = u64::from(DATA_OFFSET) + rank.before * (1 + self.cluster_size()) + rank.gaps * SKIP_LEN;
        (at, skipped)
    }

    /// Puts a cluster's commands in front of what follows in the buffer.
    fn push_commands(&mut self, skipped: u64) {
        if skipped > 0 {
            self.buffer.push(SKIP);
            self.buffer.extend_from_slice(&skipped.to_le_bytes());
        }
        self.buffer.push(DATA);
    }

    /// Writes a cluster's commands alone, from `at` on.
    fn write_commands(&mut self, (at, skipped): (u64, u64)) -> Result<(), WriteError> {
        self.buffer.clear();
        self.push_commands(skipped);
        self.write(start_of(at, skipped))
    }
}

/// Where a cluster's first command stands, of which the data command stands at `at`.
fn start_of(at: u64, skipped: u64) -> u64 {
    if skipped > 0 { at - SKIP_LEN } else { at }
}

impl Sink for PlacedImage<'_> {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        let cluster_size = self.cluster_size();
        let (lcn, within) = (pos / cluster_size, pos % cluster_size);
        let (command, skipped) = self.command(lcn);
        let mut start = start_of(command, skipped);
        if within > 0 {
            self.write_commands((command, skipped))?;
            start = command + 1 + within;
        }
        self.buffer.clear();
        if within == 0 {
            self.push_commands(skipped);
        }
        let (first, rest) = data.split_at(data.len().min((cluster_size - within) as usize));
        self.buffer.extend_from_slice(first);
        // A stretch is of clusters that are all in use, so that nothing is skipped between them.
        for cluster in rest.chunks(cluster_size as usize) {
            self.push_commands(0);
            self.buffer.extend_from_slice(cluster);
        }
        self.write(start)
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        let geometry = &self.plan.geometry;
        // Where the device ends on the boundary the extra cluster has no bytes, but its command all the same.
        if geometry.extra_len() == 0 {
            self.write_commands(self.command(geometry.nr_clusters))?;
        }
        self.sync()
    }

    fn takes_any_order(&self) -> bool {
        true
    }
}

impl PlacedSink for PlacedImage<'_> {
    fn read_back(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let cluster_size = self.cluster_size();
        let mut at = pos;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = at % cluster_size;
            let n = rest.len().min((cluster_size - within) as usize);
            let (now, later) = rest.split_at_mut(n);
            let (command, _) = self.command(at / cluster_size);
            let place = command + 1 + within;
            self.file.read_exact_at(now, place).map_err(|cause| ReadError { pos: place, len: n, cause })?;
            at += n as u64;
            rest = later;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        self.file.sync_data().map_err(|cause| self.failed("sync", cause))
    }

    fn seal(
        &mut self,
        marked: &mut dyn Iterator<Item = ByteRange>,
        goes_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, WriteError> {
        let Some(origin) = self.origin.clone() else { return Ok(true) };
        let sums = self.sum(goes_on).map_err(|error| match error {
            ImageError::Read { cause, .. } => self.failed("read back", cause),
            other => self.failed("read back", io::Error::other(other.to_string())),
        })?;
        let Some(sums) = sums else { return Ok(false) };
        let mut marks = Marks::default();
        marked.for_each(|area| marks.add(area));
        self.buffer = Trailer { sums, origin: Some(origin), marks }.encode();
        self.write(self.len())?;
        self.sync()?;
        Ok(true)
    }

    fn place_of(&self, pos: u64) -> u64 {
        let (command, skipped) = self.command(pos / self.cluster_size());
        start_of(command, skipped)
    }

    fn end(&self) -> u64 {
        self.file.end()
    }

    fn len(&self) -> u64 {
        encoded_len(&self.plan.geometry, self.plan.nr_used, self.plan.nr_gaps())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::{ClusterSet, Extent};
    use crate::image::encoder::ImageEncoder;
    use crate::image::encoder::tests::encode;
    use crate::units::{Geometry, Lcn};

    /// What the volume holds at a byte.
    fn content(range: ByteRange) -> Vec<u8> {
        (range.pos..range.end()).map(|pos| (pos * 7 + pos / 256) as u8 | 1).collect()
    }

    /// The same image, written in order and in pieces of all sizes from behind.
    fn check(nr_clusters: u64, device_size: u64, used: &[(u64, u64)]) {
        const CLUSTER: u64 = 1024;
        let mut set = ClusterSet::new(nr_clusters);
        used.iter()
            .for_each(|(lcn, len)| assert_eq!(set.insert_extent(Extent { lcn: Lcn(*lcn), len: *len }), 0));
        let nr_used = set.count();
        let geometry = Geometry::new(CLUSTER, nr_clusters, device_size).unwrap();
        let plan = Plan::new(geometry, set, nr_used);
        let encoder = || ImageEncoder::new(geometry, nr_used);
        let wanted = encode(encoder(), plan.ranges(), content, None, 1000);
        let origin = Origin { volume_serial: 5, disk_serial: "S".into(), ..Origin::default() };
        let mut marks = Marks::default();
        marks.add(ByteRange { pos: 512, len: 1024 });
        let sealed = encode(encoder(), plan.ranges(), content, Some((&origin, &marks)), 1000);
        for piece in [256, 512, 1024, 3072, 1 << 20] {
            let file = tempfile::tempfile().unwrap();
            let begun = || PlacedImage::new(file.try_clone().unwrap(), "x".into(), &plan).unwrap();
            let mut placed = begun().with_trailer(Some(origin.clone()));
            let ranges: Vec<_> = plan.ranges().collect();
            for range in ranges.into_iter().rev() {
                let starts: Vec<_> = (range.pos..range.end()).step_by(piece).collect();
                for pos in starts.into_iter().rev() {
                    let part = ByteRange { pos, len: (piece as u64).min(range.end() - pos) };
                    placed.put(pos, &content(part)).unwrap();
                    let mut back = vec![0; part.len as usize];
                    placed.read_back(pos, &mut back).unwrap();
                    assert_eq!(back, content(part));
                }
            }
            placed.finish().unwrap();
            let mut found = vec![0; wanted.len()];
            placed.file.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(found, wanted, "pieces of {piece}");
            assert_eq!((placed.end(), placed.len()), (wanted.len() as u64, wanted.len() as u64));
            // Nobody waits for it.
            assert!(!placed.seal(&mut std::iter::empty(), &mut |_| false).unwrap());
            assert_eq!(placed.end(), wanted.len() as u64);
            let mut marked = [(512, 512), (1024, 512)].map(|(pos, len)| ByteRange { pos, len }).into_iter();
            assert!(placed.seal(&mut marked, &mut |_| true).unwrap());
            let mut found = vec![0; placed.end() as usize];
            placed.file.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(found, sealed);
            // What goes on with it makes its checksums wrong, and adds none that are not asked for.
            let mut again = begun();
            assert_eq!(again.end(), wanted.len() as u64);
            assert!(again.seal(&mut std::iter::empty(), &mut |_| true).unwrap());
            assert_eq!(again.end(), wanted.len() as u64);
        }
    }

    /// A device: it never ends before its end, and cannot be cut.
    #[derive(Debug)]
    struct Device(std::fs::File);

    impl PlacedFile for Device {
        fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
            PlacedFile::read_exact_at(&self.0, buf, at)
        }

        fn write_all_at(&mut self, data: &[u8], at: u64) -> io::Result<()> {
            PlacedFile::write_all_at(&mut self.0, data, at)
        }

        fn sync_data(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn end(&self) -> u64 {
            u64::MAX
        }

        fn cut(&mut self, _: u64) -> io::Result<bool> {
            Ok(false)
        }
    }

    #[test]
    fn on_a_device_an_old_trailer_is_overwritten() {
        let mut set = ClusterSet::new(100);
        set.insert_extent(Extent { lcn: Lcn(0), len: 7 });
        let plan = Plan::new(Geometry::new(1024, 100, 102_912).unwrap(), set, 7);
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let begun = || PlacedImage::new(Device(file.try_clone().unwrap()), "x".into(), &plan).unwrap();
        let mut placed = begun().with_trailer(Some(Origin::default()));
        plan.ranges().for_each(|range| placed.put(range.pos, &content(range)).unwrap());
        placed.finish().unwrap();
        assert!(placed.seal(&mut std::iter::empty(), &mut |_| true).unwrap());
        let behind = || {
            let mut bytes = vec![0; 1000];
            PlacedFile::read_exact_at(&file, &mut bytes, placed.len()).unwrap();
            bytes
        };
        assert!(trailer::is_begun(&behind()));
        begun();
        assert_eq!(behind(), [0; 1000]);
    }

    #[test]
    fn is_the_image_that_is_written_in_order() {
        check(100, 102_400 + 512, &[(0, 3), (5, 1), (50, 10), (99, 1)]);
        check(100, 102_400, &[(0, 100)]);
        check(100, 102_400, &[(3, 5)]);
        check(100_000, 102_400_000 + 512, &[(1, 1), (32_767, 2), (65_536, 1), (99_998, 1)]);
    }
}
