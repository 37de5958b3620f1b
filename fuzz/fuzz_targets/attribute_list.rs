//! The value of an `$ATTRIBUTE_LIST`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::ntfs::attr::{listed_pieces, text};
use ntfsrescue::ntfs::record::mft_no_of;

fuzz_target!(|list: &[u8]| {
    let mut nr = 0;
    for piece in listed_pieces(list) {
        nr += 1;
        let _name: String = text(piece.name).collect();
        assert!(mft_no_of(piece.reference) < 1 << 48);
    }
    assert!(nr <= list.len(), "more entries than bytes");
});
