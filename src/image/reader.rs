//! Reading an image, from a file or a pipe: header, then commands one after the other.

use std::io::{self, Read};

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use super::{DATA, Header, HeaderError, ImageInfo, MAGIC, SKIP};
use crate::units::Geometry;

/// An image that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The header makes no sense.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The system refused a read.
    #[error("cannot read the image at its byte {at:#x}: {cause}")]
    Read {
        /// Place in the image.
        at: u64,
        /// What the system said.
        cause: io::Error,
    },
    /// The image ends too early.
    #[error("image is cut off at its byte {at:#x}: it ends in {what} of cluster {lcn} of {nr_clusters}")]
    CutOff {
        /// Where it ends.
        at: u64,
        /// What was to come.
        what: &'static str,
        /// The cluster it stands at.
        lcn: u64,
        /// Clusters of the volume.
        nr_clusters: u64,
    },
    /// A command byte that does not exist.
    #[error(
        "image is damaged at its byte {at:#x}: found command {found:#04x} for cluster {lcn}, wanted 0 or 1"
    )]
    Command {
        /// Place in the image.
        at: u64,
        /// The byte.
        found: u8,
        /// The cluster it stands at.
        lcn: u64,
    },
    /// A skip to where no cluster is.
    #[error(
        "image is damaged at its byte {at:#x}: skip of {count} clusters from cluster {lcn} of {nr_clusters}"
    )]
    Skip {
        /// Place in the image.
        at: u64,
        /// The count.
        count: i64,
        /// The cluster it stands at.
        lcn: u64,
        /// Clusters of the volume.
        nr_clusters: u64,
    },
}

/// An image that is being read. It hands out the bytes of the volume in the image's order.
#[derive(Debug)]
pub struct ImageReader<R> {
    input: R,
    /// What the header says.
    pub info: ImageInfo,
    /// Place in the image.
    at: u64,
    /// The cluster that the next command is for.
    lcn: u64,
    /// Bytes of the cluster before it that are still to come, and the position of the first of them.
    left: u32,
    pos: u64,
    lacks_extra: bool,
}

impl<R: Read> ImageReader<R> {
    /// Reads and checks the header.
    pub fn open(input: R) -> Result<ImageReader<R>, ImageError> {
        let geometry = Geometry { cluster_size: 0, nr_clusters: 0, device_size: 0 };
        let info = ImageInfo { version: (0, 0), geometry, nr_used: 0, data_offset: 0 };
        let mut reader = ImageReader { input, info, at: 0, lcn: 0, left: 0, pos: 0, lacks_extra: false };
        let mut bytes = [0; Header::LEN];
        if !reader.fill(&mut bytes)? {
            let there = bytes.get(..reader.at as usize).unwrap_or_default();
            let begins_well = MAGIC.iter().zip(there).all(|(magic, byte)| magic == byte);
            return Err(if begins_well { reader.cut_off("the header") } else { HeaderError::Magic.into() });
        }
        let header = Header::read_from_bytes(&bytes).map_err(|_| HeaderError::Magic)?;
        // First without the offset: a file that is no image need not be long enough for one.
        reader.info = header.check(None)?;
        if header.names_offset() {
            let mut offset = U32::ZERO;
            if !reader.fill(offset.as_mut_bytes())? {
                return Err(reader.cut_off("the header"));
            }
            reader.info = header.check(Some(offset.get()))?;
        }
        while reader.at < reader.info.data_offset.into() {
            if !reader.fill(&mut [0])? {
                return Err(reader.cut_off("the header"));
            }
        }
        Ok(reader)
    }

    /// Fills `buf` with as many of the next clusters as follow each other without a skip; the extra cluster comes
    /// alone. Returns the position on the volume and the number of bytes, none at the image's end. `buf` may be
    /// smaller than a cluster.
    pub fn next(&mut self, buf: &mut [u8]) -> Result<Option<(u64, usize)>, ImageError> {
        let mut start = None;
        let mut filled = 0;
        while filled < buf.len() {
            if self.left == 0 && !self.next_cluster(start.is_some())? {
                break;
            }
            let n = (buf.len() - filled).min(self.left as usize);
            let part = buf.get_mut(filled..filled + n).unwrap_or_default();
            if !self.fill(part)? {
                return Err(self.cut_off("the data"));
            }
            start = start.or(Some(self.pos));
            filled += n;
            self.left -= n as u32;
            self.pos += n as u64;
        }
        Ok(start.map(|pos| (pos, filled)))
    }

    /// Did the image end exactly before the extra cluster? Such images have no backup boot sector.
    pub fn lacks_extra(&self) -> bool {
        self.lacks_extra
    }

    /// Goes to the next cluster that has bytes. False at the end of the image, and, if `following` is wanted, where
    /// something lies between: then the next call goes on there.
    fn next_cluster(&mut self, following: bool) -> Result<bool, ImageError> {
        let geometry = self.info.geometry;
        while self.lcn <= geometry.nr_clusters && !self.lacks_extra {
            let is_extra = self.lcn == geometry.nr_clusters;
            let at = self.at;
            let mut command = [0];
            if !self.fill(&mut command)? {
                if !is_extra {
                    return Err(self.cut_off("the command"));
                }
                self.lacks_extra = true;
                break;
            }
            match command {
                [SKIP] => {
                    self.skip(at)?;
                    if following {
                        break;
                    }
                }
                [DATA] => {
                    self.left = if is_extra { geometry.extra_len() } else { geometry.cluster_size };
                    self.pos = self.lcn * u64::from(geometry.cluster_size);
                    self.lcn += 1;
                    if self.left > 0 {
                        return Ok(!(following && is_extra));
                    }
                }
                [found] => return Err(ImageError::Command { at, found, lcn: self.lcn }),
            }
        }
        Ok(false)
    }

    /// Takes the count of the skip at byte `at`.
    fn skip(&mut self, at: u64) -> Result<(), ImageError> {
        let mut count = [0; 8];
        if !self.fill(&mut count)? {
            return Err(self.cut_off("the skip"));
        }
        let (count, lcn, nr_clusters) = (i64::from_le_bytes(count), self.lcn, self.info.geometry.nr_clusters);
        let to = lcn.checked_add_signed(count).filter(|to| count != 0 && *to <= nr_clusters);
        self.lcn = to.ok_or(ImageError::Skip { at, count, lcn, nr_clusters })?;
        Ok(())
    }

    /// Reads all of `buf`; false where the image ends before that.
    fn fill(&mut self, mut buf: &mut [u8]) -> Result<bool, ImageError> {
        while !buf.is_empty() {
            match self.input.read(buf) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.at += n as u64;
                    buf = buf.get_mut(n..).unwrap_or_default();
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(ImageError::Read { at: self.at, cause }),
            }
        }
        Ok(true)
    }

    fn cut_off(&self, what: &'static str) -> ImageError {
        let lcn = self.pos / u64::from(self.info.geometry.cluster_size).max(1);
        let lcn = if self.left > 0 { lcn } else { self.lcn };
        ImageError::CutOff { at: self.at, what, lcn, nr_clusters: self.info.geometry.nr_clusters }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::DATA_OFFSET;

    const NR: u64 = 6;

    /// An image of 6 clusters of 512 bytes and 100 bytes behind, with the given commands.
    fn image(commands: &[u8]) -> Vec<u8> {
        let mut image = Header::of(&Geometry::new(512, NR, 3172).unwrap(), 2).as_bytes().to_vec();
        image.extend(DATA_OFFSET.to_le_bytes());
        image.resize(56, 0);
        image.extend(commands);
        image
    }

    fn cluster(fill: u8, len: usize) -> Vec<u8> {
        [vec![1], vec![fill; len]].concat()
    }

    fn skip(count: i64) -> Vec<u8> {
        [vec![0], count.to_le_bytes().to_vec()].concat()
    }

    /// All stretches, as position, length and first byte.
    fn read(image: &[u8], buf: usize) -> Result<Vec<(u64, usize, u8)>, ImageError> {
        let mut reader = ImageReader::open(image)?;
        let mut buf = vec![0; buf];
        let mut all = Vec::new();
        while let Some((pos, len)) = reader.next(&mut buf)? {
            all.push((pos, len, buf[0]));
        }
        Ok(all)
    }

    #[test]
    fn clusters_that_follow_each_other_come_together() {
        let image = image(
            &[cluster(1, 512), cluster(2, 512), skip(2), cluster(3, 512), cluster(4, 512), cluster(5, 100)]
                .concat(),
        );
        let want = [(0, 1024, 1), (2048, 1024, 3), (3072, 100, 5)];
        assert_eq!(read(&image, 4096).unwrap(), want);
        let parts = read(&image, 300).unwrap();
        assert_eq!(parts.iter().map(|(_, len, _)| len).sum::<usize>(), 2148);
        assert_eq!(parts[..4], [(0, 300, 1), (300, 300, 1), (600, 300, 2), (900, 124, 2)]);
    }

    #[test]
    fn negative_skips_go_back() {
        let image =
            image(&[skip(5), cluster(1, 512), skip(-6), cluster(2, 512), skip(5), cluster(3, 100)].concat());
        assert_eq!(read(&image, 4096).unwrap(), [(2560, 512, 1), (0, 512, 2), (3072, 100, 3)]);
    }

    #[test]
    fn an_end_before_the_extra_cluster_is_no_error() {
        let bytes = image(&[cluster(1, 512), skip(5)].concat());
        let mut reader = ImageReader::open(&bytes[..]).unwrap();
        let mut buf = [0; 1024];
        assert_eq!(reader.next(&mut buf).unwrap(), Some((0, 512)));
        assert_eq!(reader.next(&mut buf).unwrap(), None);
        assert!(reader.lacks_extra());
    }

    #[test]
    fn each_damage_is_named_with_its_place() {
        let error = |commands: &[Vec<u8>]| read(&image(&commands.concat()), 512).unwrap_err().to_string();
        assert_eq!(
            error(&[cluster(1, 512), vec![7]]),
            "image is damaged at its byte 0x239: found command 0x07 for cluster 1, wanted 0 or 1"
        );
        for count in [0, 7, -1, i64::MIN, i64::MAX] {
            let want =
                format!("image is damaged at its byte 0x38: skip of {count} clusters from cluster 0 of 6");
            assert_eq!(error(&[skip(count)]), want);
        }
        assert_eq!(
            error(&[cluster(1, 512), cluster(2, 100)]),
            "image is cut off at its byte 0x29e: it ends in the data of cluster 1 of 6"
        );
        assert!(error(&[cluster(1, 512)]).contains("ends in the command of cluster 1"));
        assert!(error(&[skip(6), cluster(1, 99)]).contains("ends in the data of cluster 6"));
        assert!(error(&[vec![0, 1, 0]]).contains("ends in the skip of cluster 0"));
    }

    #[test]
    fn what_is_no_image_says_so() {
        assert!(
            read(b"", 512)
                .unwrap_err()
                .to_string()
                .contains("cut off at its byte 0x0: it ends in the header")
        );
        assert!(read(&[0x55; 100], 512).unwrap_err().to_string().contains("not an ntfsclone image"));
        assert!(read(&image(&[])[..48], 512).unwrap_err().to_string().contains("ends in the header"));
    }
}
