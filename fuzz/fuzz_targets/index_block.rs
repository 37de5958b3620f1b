//! A block of an index, the root of one, and a page of `$LogFile`: read, and wiped.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::ntfs::attr::{FileName, text};
use ntfsrescue::ntfs::wipe::index::{Kind, block_entries, block_size, root_entries, wipe_block};
use ntfsrescue::ntfs::wipe::log::wipe_page;
use ntfsrescue::ntfs::wipe::value::Private;
use ntfsrescue::ntfs::wipe::{Wiped, Wiping};

/// Names of indexes, UTF-16LE.
const NAMES: [&[u8]; 5] = [b"$\0I\x003\x000\0", b"$\0S\0D\0H\0", b"$\0Q\0", b"$\0R\0", b""];

/// The largest block that there is, and what all are a multiple of.
const MAX_BLOCK: usize = 64 << 10;
const STRIDE: usize = 512;

fuzz_target!(|input: (u8, u32, bool, &[u8])| {
    let (name, attribute, keep_times, bytes) = input;
    if bytes.len() > MAX_BLOCK {
        return;
    }
    let look = |(_, key): (u64, &[u8])| {
        if let Some(name) = FileName::parse(key) {
            let _name: String = text(name.name).collect();
        }
    };
    let _size = block_size(bytes);
    root_entries(bytes).for_each(look);
    if let Some(entries) = block_entries(&mut bytes.to_vec()) {
        entries.for_each(look);
    }

    let kind = Kind::of(NAMES[usize::from(name) % NAMES.len()]);
    let wiping = Wiping { keep_times };
    let mut block = bytes.to_vec();
    block.resize(bytes.len().next_multiple_of(STRIDE), 0);
    if wipe_block(&mut block, kind, wiping, &mut Wiped::default()).is_ok() {
        let first = block.clone();
        assert!(wipe_block(&mut block, kind, wiping, &mut Wiped::default()).is_ok());
        assert!(block == first, "wiped twice it differs");
    }

    let mut page = bytes.to_vec();
    wipe_page(&mut page, &mut Wiped::default());
    let first = page.clone();
    wipe_page(&mut page, &mut Wiped::default());
    assert!(page == first, "wiped twice it differs");

    if let Some(private) = Private::of(attribute, b"") {
        let mut value = bytes.to_vec();
        private.wipe(&mut value, &mut Wiped::default());
        let mut again = Wiped::default();
        private.wipe(&mut value, &mut again);
        assert_eq!(again.total(), 0);
    }
});
