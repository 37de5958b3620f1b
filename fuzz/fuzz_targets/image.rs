//! An image from its header to its checksums.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::image::trailer::Trailer;
use ntfsrescue::image::{ImageError, ImageReader};
use ntfsrescue_fuzz::assert_plain;

/// An image of few bytes can have this many clusters of the largest size, or many more where they hold nothing.
const MAX_STRETCHES: usize = 10_000;

fuzz_target!(|input: (u16, &[u8])| {
    let (buffer, image) = input;
    let mut buffer = vec![0; usize::from(buffer).max(1)];
    let known = Trailer::at_end(image, image.len() as u64);
    for outcome in [
        ImageReader::open(image).and_then(|image| read(image, &mut buffer)),
        ImageReader::open_checked(image, None).and_then(|image| read(image, &mut buffer)),
        ImageReader::open_checked(image, known).and_then(|image| read(image, &mut buffer)),
    ] {
        if let Err(error) = outcome {
            assert_plain(&error);
        }
    }
});

/// Stretches ascend, are on the volume, and have no more bytes than the image.
fn read(mut image: ImageReader<&[u8]>, buffer: &mut [u8]) -> Result<(), ImageError> {
    let end = image.info.geometry.written_end();
    let mut at = 0;
    for _ in 0..MAX_STRETCHES {
        let Some((pos, len)) = image.next(buffer)? else { break };
        assert!(pos >= at && len > 0 && pos + len as u64 <= end);
        at = pos + len as u64;
    }
    image.conclude()?;
    Ok(())
}
