//! A whole tiny volume, with sectors that cannot be read: what is in use, its metadata, folders and damaged files.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ntfsrescue::copy::{Feed, MetadataFeed, Reader};
use ntfsrescue::event::Silent;
use ntfsrescue::extent::ByteRange;
use ntfsrescue::io::Source;
use ntfsrescue::ntfs::damage::damaged_files;
use ntfsrescue::ntfs::first::{Patterns, first_clusters};
use ntfsrescue::ntfs::metadata::Collector;
use ntfsrescue::ntfs::scan::{Usage, scan};
use ntfsrescue::ntfs::shutdown::{find_hiberfile, has_unclean_log, is_hibernated};
use ntfsrescue::ntfs::wipe::Wiping;
use ntfsrescue::ntfs::{Tolerance, Volume};
use ntfsrescue_fuzz::{Packed, SECTOR, assert_plain};

fuzz_target!(|input: &[u8]| {
    let Some(source) = Packed::unpack(input) else { return };
    for tolerance in [Tolerance::default(), Tolerance::RESCUE] {
        match Volume::open(&source, tolerance, &Silent) {
            Ok(volume) => look(&source, &volume, tolerance),
            Err(error) => assert_plain(&error),
        }
    }
});

fn look(source: &Packed, volume: &Volume<'_>, tolerance: Tolerance) {
    let geometry = volume.info.geometry;
    assert!(geometry.written_end() <= source.len());
    let mut collector = Collector::new(volume, false);
    match scan(volume, tolerance, Some(&mut collector), &Silent) {
        Err(error) => assert_plain(&error),
        Ok(Usage { used, nr_used, claimed_twice, .. }) => {
            assert_eq!(used.bound(), geometry.nr_clusters);
            assert_eq!(used.count(), nr_used);
            match collector.conclude(volume, claimed_twice, tolerance, &Silent) {
                Err(error) => assert_plain(&error),
                Ok(metadata) => {
                    let reader = Reader::new(source, volume.info.sector_size, tolerance.bad_areas, &Silent);
                    let wiping = Wiping { keep_times: false };
                    let feed = MetadataFeed::new(reader, &metadata, &volume.info, wiping, tolerance, &Silent);
                    drain(feed, geometry.written_end());
                }
            }
        }
    }

    let damage = [ByteRange { pos: 0, len: SECTOR as u64 }, ByteRange { pos: 16384, len: 8192 }];
    if let Err(error) = damaged_files(volume, &damage, &Silent, &mut |file| assert_plain(&file)) {
        assert_plain(&error);
    }
    let patterns = Patterns::parse(["Users/*", "*.txt"]).expect("they are patterns");
    match first_clusters(volume, &patterns, &Silent) {
        Ok(first) => assert!(first.files.bound() <= geometry.nr_clusters),
        Err(error) => assert_plain(&error),
    }
    let _log = has_unclean_log(volume);
    if let Some(Some(mft_no)) = find_hiberfile(volume) {
        let _is = is_hibernated(volume, mft_no);
    }
}

/// Stretches ascend and end on the volume.
fn drain(mut feed: MetadataFeed<'_>, end: u64) {
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        match feed.next(&mut buffer) {
            Ok(Some(range)) => {
                assert!(range.pos >= at && range.len > 0 && range.end() <= end);
                at = range.end();
            }
            Ok(None) => return,
            Err(error) => return assert_plain(&error),
        }
    }
}
