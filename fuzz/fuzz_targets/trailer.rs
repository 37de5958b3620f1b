//! The trailer of an image: what is taken is what is written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::image::trailer::{self, Trailer};
use ntfsrescue_fuzz::assert_plain;

/// Bytes of the trailer's head, of a section's, and of the foot: doc/image-format.md.
const HEAD: usize = 28;
const SECTION: usize = 12;
const FOOT: usize = 16;

/// With its checksums right: a fuzzer would not get past wrong ones.
fn with_right_sums(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let end = bytes.len().checked_sub(FOOT)?;
    let mut at = HEAD;
    while let Some(head) = bytes.get(at..at + SECTION).filter(|_| at + SECTION <= end) {
        let len = u32::from_le_bytes(head[4..8].try_into().ok()?) as usize;
        let Some(section) = bytes.get(at + SECTION..at.checked_add(SECTION + len)?) else { break };
        let sum = crc32fast::hash(section).to_le_bytes();
        bytes[at + 8..at + 12].copy_from_slice(&sum);
        at += SECTION + len;
    }
    let sum = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..end + 4].copy_from_slice(&sum);
    Some(bytes)
}

fuzz_target!(|bytes: &[u8]| {
    let _places = (trailer::is_stump(bytes), trailer::has_foot(bytes), trailer::find_begin(bytes));
    let _found = Trailer::at_end(bytes, bytes.len() as u64);
    check(bytes);
    if let Some(bytes) = with_right_sums(bytes) {
        check(&bytes);
    }
});

fn check(bytes: &[u8]) {
    match Trailer::decode(bytes) {
        Err(error) => assert_plain(&error),
        Ok(trailer) => {
            let again = Trailer::decode(&trailer.encode()).expect("it was written by us");
            assert_eq!(again.encode(), trailer.encode());
        }
    }
}
