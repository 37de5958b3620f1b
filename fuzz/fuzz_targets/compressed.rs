//! A compressed image, of any of the formats that are read: to its end, whatever that is.

#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use ntfsrescue::io::compressed::ImageInput;
use ntfsrescue_fuzz::assert_plain;

/// Few bytes can become very many: so much is read of them.
const MOST: u64 = 4 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut input) = ImageInput::open(Cursor::new(bytes.to_vec())) else { return };
    let mut content = Vec::new();
    let read = input.by_ref().take(MOST).read_to_end(&mut content);
    if !input.is_compressed() {
        assert_eq!(content, bytes);
    }
    match read {
        Err(error) => assert_plain(&error),
        // It has ended: then it ends again.
        Ok(len) if (len as u64) < MOST => assert!(input.read_out().is_ok()),
        Ok(_) => {}
    }
});
