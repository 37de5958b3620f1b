//! A small disk: its partition table, and what kind of volume it begins with.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::init::probe::probe;
use ntfsrescue::init::table::Table;
use ntfsrescue_fuzz::Packed;

fuzz_target!(|input: &[u8]| {
    let Some(disk) = Packed::unpack(input) else { return };
    if let Some(table) = Table::read(&disk) {
        for entry in table.distinct() {
            let _kind = format!("{entry:?}");
        }
    }
    let _found = probe(&disk, None);
});
