//! An MFT record: its fixups, attributes, names and runs; and wiping it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::ntfs::attr::{Body, FileName, listed_pieces, text};
use ntfsrescue::ntfs::record::Record;
use ntfsrescue::ntfs::wipe::index::{block_size, root_entries};
use ntfsrescue::ntfs::wipe::{Wiped, Wiping, wipe_record};
use ntfsrescue_fuzz::assert_plain;

/// Clusters of the volume that the record is on.
const NR_CLUSTERS: u64 = 1 << 20;

/// The largest record that there is.
const MAX_RECORD: usize = 4096;

fuzz_target!(|input: (u16, bool, &[u8])| {
    let (mft_no, keep_times, bytes) = input;
    if bytes.len() > MAX_RECORD {
        return;
    }
    let is_record = read(&mut bytes.to_vec());

    let (mut record, mut scratch) = (bytes.to_vec(), bytes.to_vec());
    let mut wipe = |record: &mut Vec<u8>| {
        let mut wiped = Wiped::default();
        let outcome = wipe_record(record, mft_no.into(), Wiping { keep_times }, &mut scratch, &mut wiped);
        (outcome.is_ok(), wiped.total())
    };
    let (was_whole, _) = wipe(&mut record);
    if was_whole {
        // What is wiped is a record still, and nothing is left to be wiped in it.
        let first = record.clone();
        let (is_whole, _) = wipe(&mut record);
        assert!(is_whole && record == first, "wiped twice it differs");
        assert!(!is_record || Record::parse(&mut record).is_ok(), "wiped it is no record");
    }
});

/// Looks at all of it. Is it a record?
fn read(bytes: &mut [u8]) -> bool {
    let record = match Record::parse(bytes) {
        Ok(record) => record,
        Err(fault) => {
            assert_plain(&fault);
            return false;
        }
    };
    let _base = (record.base_mft_no(), record.in_use(), record.is_folder());
    let mut nr = 0;
    for attribute in record.attributes() {
        nr += 1;
        assert!(nr <= MAX_RECORD, "more attributes than bytes");
        let attribute = match attribute {
            Ok(attribute) => attribute,
            Err(error) => {
                assert_plain(&error);
                continue;
            }
        };
        let _name: String = text(attribute.name).collect();
        if let Some(name) = FileName::of(&attribute) {
            let _name: String = text(name.name).collect();
        }
        if let Body::Resident(value) = attribute.body {
            let _entries = (block_size(value), root_entries(value).count(), listed_pieces(value).count());
        }
        let Some(runs) = attribute.runs(NR_CLUSTERS) else { continue };
        for run in runs {
            match run {
                Ok(run) => assert!(run.extent().is_none_or(|extent| extent.end() <= NR_CLUSTERS)),
                Err(error) => assert_plain(&error),
            }
        }
    }
    true
}
