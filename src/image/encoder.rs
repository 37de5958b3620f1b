//! Encoding an image: stretches of a volume become commands and data, ending with the trailer if there is to be one.
//!
//! It fills whatever room it is given and goes on in the next, so that the bytes are copied once, to where they are
//! written from.

use zerocopy::IntoBytes;

use super::sums::Sums;
use super::trailer::{Marks, Origin, Trailer};
use super::{DATA, DATA_OFFSET, Header, SKIP};
use crate::units::Geometry;

/// Encodes an image, in order. Stretches may begin and end within a cluster, as long as they follow each other.
#[derive(Debug)]
pub struct ImageEncoder {
    geometry: Geometry,
    /// Clusters up to here have their command; the volume's bytes up to `pos` are in.
    next_lcn: u64,
    pos: u64,
    /// What comes before the next bytes of the volume, the first `sent` bytes of which are out already.
    front: Vec<u8>,
    sent: usize,
    sums: Option<Sums>,
}

/// How far a stretch and the room for it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes of the stretch that are in.
    pub taken: usize,
    /// Bytes of the room that are filled.
    pub filled: usize,
}

impl ImageEncoder {
    /// Begins an image of a volume of which `nr_used` clusters will be put.
    pub fn new(geometry: Geometry, nr_used: u64) -> ImageEncoder {
        let mut front = Vec::with_capacity(DATA_OFFSET as usize);
        front.extend_from_slice(Header::of(&geometry, nr_used).as_bytes());
        front.extend_from_slice(DATA_OFFSET.as_bytes());
        front.resize(DATA_OFFSET as usize, 0);
        ImageEncoder { geometry, next_lcn: 0, pos: 0, front, sent: 0, sums: None }
    }

    /// Sums the image, for a trailer.
    pub fn with_sums(self) -> ImageEncoder {
        let mut sums = Sums::default();
        sums.set_header(&self.front);
        ImageEncoder { sums: Some(sums), ..self }
    }

    /// The first byte of the volume that may be put.
    pub fn pos(&self) -> u64 {
        self.pos
    }

    /// Encodes as much as there is room for of the stretch at `pos`, which is not before [`ImageEncoder::pos`]. What is
    /// left of it comes again.
    pub fn put(&mut self, pos: u64, data: &[u8], room: &mut [u8]) -> Encoded {
        let cluster_size = u64::from(self.geometry.cluster_size);
        let mut encoded = Encoded { taken: 0, filled: self.send(room) };
        while self.is_sent() {
            let at = pos + encoded.taken as u64;
            let rest = data.get(encoded.taken..).unwrap_or_default();
            let space = room.get_mut(encoded.filled..).unwrap_or_default();
            if rest.is_empty() || space.is_empty() {
                break;
            }
            let lcn = at / cluster_size;
            if lcn >= self.next_lcn {
                self.begin_cluster(lcn);
                encoded.filled += self.send(space);
                continue;
            }
            let left = ((lcn + 1) * cluster_size - at) as usize;
            let n = copy(rest.get(..left).unwrap_or(rest), space);
            encoded.taken += n;
            encoded.filled += n;
        }
        self.pos = pos + encoded.taken as u64;
        self.sum(room, encoded.filled);
        encoded
    }

    /// Says that no stretch comes any more: what is left is [drained](ImageEncoder::drain).
    pub fn finish(&mut self) {
        // Where the device ends on the boundary the extra cluster has no bytes, but its command all the same.
        if self.next_lcn <= self.geometry.nr_clusters && self.geometry.extra_len() == 0 {
            self.begin_cluster(self.geometry.nr_clusters);
        }
    }

    /// Ends the image, of which all is drained, with a trailer, if it was summed: that is to be drained too.
    pub fn seal(&mut self, origin: &Origin, marks: &Marks) {
        if let Some(sums) = self.sums.take() {
            let trailer = Trailer { sums: sums.table(), origin: Some(origin.clone()), marks: marks.clone() };
            (self.front, self.sent) = (trailer.encode(), 0);
        }
    }

    /// Fills the room with what is left, and returns how many bytes these are.
    pub fn drain(&mut self, room: &mut [u8]) -> usize {
        let filled = self.send(room);
        self.sum(room, filled);
        filled
    }

    /// Is nothing waiting for room?
    pub fn is_sent(&self) -> bool {
        self.sent == self.front.len()
    }

    fn send(&mut self, room: &mut [u8]) -> usize {
        let n = copy(self.front.get(self.sent..).unwrap_or_default(), room);
        self.sent += n;
        n
    }

    fn sum(&mut self, room: &[u8], filled: usize) {
        if let Some(sums) = &mut self.sums {
            sums.update(room.get(..filled).unwrap_or_default());
        }
    }

    /// Begins the next cluster with data, skipping those before it. Nothing is waiting.
    fn begin_cluster(&mut self, lcn: u64) {
        self.front.clear();
        if lcn > self.next_lcn {
            self.front.push(SKIP);
            self.front.extend_from_slice(&(lcn - self.next_lcn).to_le_bytes());
        }
        self.front.push(DATA);
        self.sent = 0;
        if let Some(sums) = &mut self.sums {
            sums.add_command(&self.front);
        }
        self.next_lcn = lcn + 1;
    }
}

/// Copies as many bytes as both have, and returns how many.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let n = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..n), to.get_mut(..n)) {
        to.copy_from_slice(from);
    }
    n
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::extent::ByteRange;

    /// An image of these stretches, encoded into pieces of `room` bytes.
    pub(crate) fn encode(
        encoder: ImageEncoder,
        stretches: impl Iterator<Item = ByteRange>,
        content: impl Fn(ByteRange) -> Vec<u8>,
        seal: Option<(&Origin, &Marks)>,
        room: usize,
    ) -> Vec<u8> {
        let mut encoder = if seal.is_some() { encoder.with_sums() } else { encoder };
        let mut image = Vec::new();
        let mut piece = vec![0; room];
        for range in stretches {
            let data = content(range);
            let mut taken = 0;
            while taken < data.len() {
                let encoded = encoder.put(range.pos + taken as u64, &data[taken..], &mut piece);
                assert!(encoded.filled > 0);
                taken += encoded.taken;
                image.extend_from_slice(&piece[..encoded.filled]);
            }
        }
        encoder.finish();
        for is_trailer in [false, true] {
            if let Some((origin, marks)) = seal.filter(|_| is_trailer) {
                encoder.seal(origin, marks);
            }
            while !encoder.is_sent() {
                let filled = encoder.drain(&mut piece);
                image.extend_from_slice(&piece[..filled]);
            }
        }
        image
    }

    #[test]
    fn the_image_is_the_same_whatever_room_it_gets() {
        let geometry = Geometry::new(512, 100, 51_300).unwrap();
        let stretches = || {
            let ranges = [(512, 1000), (1512, 536), (10_240, 4096), (51_200, 100)];
            ranges.into_iter().map(|(pos, len)| ByteRange { pos, len })
        };
        let content = |range: ByteRange| (range.pos..range.end()).map(|pos| (pos / 3) as u8).collect();
        let origin = Origin { disk_model: "M".into(), ..Origin::default() };
        let marks = Marks::default();
        let with = |room| {
            let encoder = ImageEncoder::new(geometry, 11);
            encode(encoder, stretches(), content, Some((&origin, &marks)), room)
        };
        let wanted = with(1 << 20);
        assert_eq!(wanted[56..66], [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        for room in [1, 7, 100, 513, 4096] {
            assert_eq!(with(room), wanted, "rooms of {room}");
        }
        let bare = encode(ImageEncoder::new(geometry, 11), stretches(), content, None, 100);
        assert_eq!(wanted[..bare.len()], bare);
        assert!(wanted.len() > bare.len());
    }
}
