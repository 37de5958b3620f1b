//! A compressed image as far as its own bytes: what it decompresses to may be anything.

#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use ntfsrescue::io::compressed::ImageInput;
use ntfsrescue_fuzz::assert_plain;

/// Bytes that are decompressed at most: few can become many.
const MOST: u64 = 8 << 20;

fuzz_target!(|input: &[u8]| {
    let read = ImageInput::open(Cursor::new(input.to_vec())).and_then(|mut image| {
        let is_plain = !image.is_compressed();
        let mut content = Vec::new();
        image.by_ref().take(MOST).read_to_end(&mut content)?;
        assert!(!is_plain || content == input);
        // Nothing comes after the end.
        if (content.len() as u64) < MOST {
            assert_eq!(image.read(&mut [0]).ok(), Some(0));
        }
        Ok(())
    });
    if let Err(error) = read {
        assert_plain(&error);
    }
});
