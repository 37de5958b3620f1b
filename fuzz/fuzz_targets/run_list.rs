//! A list of runs: each is on the volume, and their VCNs follow each other.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::ntfs::runs::{RunDecoder, RunList};
use ntfsrescue::units::Vcn;
use ntfsrescue_fuzz::assert_plain;

fuzz_target!(|input: (u32, Option<u64>, u64, &[u8])| {
    let (first, end, nr_clusters, list) = input;
    let mut at = u64::from(first);
    let mut decoder = RunDecoder::new(list, Vcn(at), end.map(Vcn), nr_clusters);
    let mut stored = RunList::default();
    let mut nr = 0;
    for run in &mut decoder {
        nr += 1;
        assert!(nr <= list.len() + 1, "more runs than bytes");
        let run = match run {
            Ok(run) => run,
            Err(error) => return assert_plain(&error),
        };
        assert_eq!(run.vcn.0, at);
        at = at.checked_add(run.len).expect("VCNs have 64 bits");
        if let Some(extent) = run.extent() {
            assert!(extent.len > 0 && extent.end() <= nr_clusters);
        }
        let _fits = stored.push(run);
    }
    assert!(decoder.at() <= list.len() + 1);
    assert!(end.is_none_or(|end| end == at));
});
