//! ntfsclone's special image format, declared once.
//!
//! All numbers are little-endian. A header, padding up to the offset it names, then commands until the position
//! passes the last cluster:
//! - `0x00` and a signed 64-bit count: skip that many clusters (never 0; negative only in metadata images and in
//!   those saved although MFT and `$Bitmap` disagreed);
//! - `0x01` and one cluster's bytes. The extra cluster behind the last has as many as the device still has there.
//!
//! What follows the last command is nobody else's business: images of ours have a [`trailer`] there.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::units::{Geometry, GeometryError};

mod encoder;
mod placed;
mod reader;
pub mod sums;
pub mod trailer;

pub use encoder::{Encoded, ImageEncoder};
pub use placed::PlacedImage;
pub use reader::{ImageError, ImageReader, Stretch};

/// A NUL first, so that no text tool takes an image for text.
const MAGIC: [u8; 16] = *b"\0ntfsclone-image";

/// The version that is written.
const MAJOR: u8 = 10;
const MINOR: u8 = 1;

/// From this version on the header names where the commands begin.
const FIRST_MAJOR_WITH_OFFSET: u8 = 10;

/// Where the commands begin in an image that is written: the header and six zeros.
const DATA_OFFSET: u32 = 56;

/// Largest offset that is taken seriously; nothing else than padding lies before it.
const MAX_DATA_OFFSET: u32 = 1 << 20;

/// Command bytes.
const SKIP: u8 = 0;
const DATA: u8 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 16],
    major: u8,
    minor: u8,
    cluster_size: U32,
    /// Bytes of the whole partition.
    device_size: U64,
    nr_clusters: U64,
    /// Clusters in use, without the extra one.
    nr_used: U64,
}

/// What an image's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Format version, major and minor.
    pub version: (u8, u8),
    /// The volume's shape.
    pub geometry: Geometry,
    /// Clusters in use, without the extra one.
    pub nr_used: u64,
    /// Where the commands begin, in bytes from the image's start.
    pub data_offset: u32,
}

/// Bytes of an image of a volume with `nr_used` clusters in use and `nr_gaps` gaps between them.
pub fn encoded_len(geometry: &Geometry, nr_used: u64, nr_gaps: u64) -> u64 {
    // A byte before each cluster and before the extra one, nine for a gap.
    u64::from(DATA_OFFSET) + geometry.copied_bytes(nr_used) + nr_used + 1 + nr_gaps * 9
}

/// Why bytes are not the header of an image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderError {
    /// It is something else.
    #[error("not an ntfsclone image: wrong magic at its byte 0x0")]
    Magic,
    /// A format that nobody has described.
    #[error("image version {0}.{1} is not known (byte 0x10 of the image); versions up to {MAJOR} are")]
    Version(u8, u8),
    /// The sizes do not fit together.
    #[error("image header, at byte 0x12: {0}")]
    Geometry(#[from] GeometryError),
    /// More clusters in use than there are.
    #[error("image header, at byte 0x26: {nr_used} clusters in use, but the volume has {nr_clusters}")]
    NrUsed {
        /// Clusters in use.
        nr_used: u64,
        /// Clusters of the volume.
        nr_clusters: u64,
    },
    /// Commands cannot begin there.
    #[error("image header, at byte 0x2e: commands begin at byte {0}, wanted 50 to {MAX_DATA_OFFSET}")]
    DataOffset(u32),
}

impl Header {
    const LEN: usize = size_of::<Header>();

    fn of(geometry: &Geometry, nr_used: u64) -> Header {
        Header {
            magic: MAGIC,
            major: MAJOR,
            minor: MINOR,
            cluster_size: geometry.cluster_size.into(),
            device_size: geometry.device_size.into(),
            nr_clusters: geometry.nr_clusters.into(),
            nr_used: nr_used.into(),
        }
    }

    /// Does the header go on with the offset of the commands?
    fn names_offset(&self) -> bool {
        self.major >= FIRST_MAJOR_WITH_OFFSET
    }

    /// Checks the header; `data_offset` is what follows it, where it names one.
    fn check(&self, data_offset: Option<u32>) -> Result<ImageInfo, HeaderError> {
        if self.magic != MAGIC {
            return Err(HeaderError::Magic);
        }
        if self.major > MAJOR {
            return Err(HeaderError::Version(self.major, self.minor));
        }
        let geometry =
            Geometry::new(self.cluster_size.get().into(), self.nr_clusters.get(), self.device_size.get())?;
        let (nr_used, nr_clusters) = (self.nr_used.get(), geometry.nr_clusters);
        if nr_used > nr_clusters {
            return Err(HeaderError::NrUsed { nr_used, nr_clusters });
        }
        let data_offset = match data_offset {
            None => Header::LEN as u32,
            Some(offset) if (Header::LEN as u32 + 4..=MAX_DATA_OFFSET).contains(&offset) => offset,
            Some(offset) => return Err(HeaderError::DataOffset(offset)),
        };
        Ok(ImageInfo { version: (self.major, self.minor), geometry, nr_used, data_offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_laid_out_as_documented() {
        let geometry = Geometry::new(0x1000, 0x0fff, 0x00ff_fe00).unwrap();
        let header = Header::of(&geometry, 0x271);
        assert_eq!(
            header.as_bytes(),
            b"\0ntfsclone-image\x0a\x01\0\x10\0\0\0\xfe\xff\0\0\0\0\0\xff\x0f\0\0\0\0\0\0\x71\x02\0\0\0\0\0\0"
        );
        let info = header.check(Some(56)).unwrap();
        assert_eq!(info, ImageInfo { version: (10, 1), geometry, nr_used: 0x271, data_offset: 56 });
    }

    #[test]
    fn impossible_headers_are_refused() {
        let geometry = Geometry::new(512, 100, 51_712).unwrap();
        let refused = |change: fn(&mut Header), offset| {
            let mut header = Header::of(&geometry, 10);
            change(&mut header);
            header.check(offset).unwrap_err()
        };
        assert_eq!(refused(|h| h.magic[3] = b'X', Some(56)), HeaderError::Magic);
        assert_eq!(refused(|h| h.major = 11, Some(56)), HeaderError::Version(11, 1));
        assert_eq!(refused(|_| (), Some(49)), HeaderError::DataOffset(49));
        assert_eq!(refused(|_| (), Some(u32::MAX)), HeaderError::DataOffset(u32::MAX));
        assert!(matches!(refused(|h| h.nr_used = 101.into(), Some(56)), HeaderError::NrUsed { .. }));
        assert!(matches!(refused(|h| h.cluster_size = 0.into(), Some(56)), HeaderError::Geometry(_)));
        assert!(matches!(refused(|h| h.device_size = 0.into(), Some(56)), HeaderError::Geometry(_)));
        assert!(matches!(refused(|h| h.nr_clusters = u64::MAX.into(), Some(56)), HeaderError::Geometry(_)));
    }

    #[test]
    fn old_images_begin_behind_the_header() {
        let mut header = Header::of(&Geometry::new(512, 100, 51_712).unwrap(), 10);
        header.major = 9;
        assert!(!header.names_offset());
        assert_eq!(header.check(None).unwrap().data_offset, 46);
    }
}
