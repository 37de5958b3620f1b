//! A mapfile: what is taken leaves no gap, and is taken again as it is written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::rescue::Area;
use ntfsrescue::rescue::mapfile::{parse, write};
use ntfsrescue_fuzz::assert_plain;

/// The line that a map of ours ends with.
const CRC: &[u8] = b"# ntfsrescue crc 0x";

/// With its checksum right, if it has one: else a fuzzer gets no map of ours past it.
fn with_right_sum(bytes: &[u8]) -> Option<Vec<u8>> {
    let at = bytes.windows(CRC.len()).rposition(|window| window == CRC)?;
    let mut whole = bytes[..at].to_vec();
    let sum = crc32fast::hash(&whole);
    whole.extend_from_slice(CRC);
    whole.extend(format!("{sum:08X}\n").bytes());
    Some(whole)
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some(whole) = with_right_sum(bytes) {
        check(&whole);
    }
});

fn check(bytes: &[u8]) {
    let mut areas: Vec<Area> = Vec::new();
    let parsed = match parse(bytes, |area| areas.push(area)) {
        Ok(parsed) => parsed,
        Err(error) => return assert_plain(&error),
    };
    let mut at = areas.first().map_or(0, |area| area.range.pos);
    for area in &areas {
        assert!(area.range.pos == at && area.range.len > 0);
        at = area.range.pos.checked_add(area.range.len).expect("positions have 63 bits");
    }
    let mut written = Vec::new();
    if write(&mut written, 7, &parsed.head, areas.iter().copied()).is_err() {
        // A map of ddrescue's may begin elsewhere than at byte 0.
        assert!(areas.first().is_none_or(|area| area.range.pos > 0));
        return;
    }
    let again = parse(written.as_slice(), |_| {}).expect("it was written by us");
    assert_eq!((again.head, again.generation), (parsed.head, Some(7)));
}
