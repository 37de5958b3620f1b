//! The real ntfsclone as the oracle: what one of the two writes, the other reads, to the same bytes.
//!
//! Accepted differences, each with its reason:
//! - our raw clone always has the source's length; ntfsclone's file ends after the last cluster written, so that
//!   it is too short where the partition is longer than the volume by more than a cluster, or ends on a cluster
//!   boundary. What is missing there must be zeros in ours.

use std::path::Path;
use std::process::Command;

use crate::edit::Editor;
use crate::tools::{
    assert_same, assert_same_up_to, assert_zeros_from, len, noise, ntfsclone, occupied, ours, run, shell,
    text,
};
use crate::volumes::{Place, crowd, filled, given, mkntfs, small_volume};

/// Saves, restores and clones a volume with both programs, every way round, and compares all there is.
pub fn compare(volume: &Path) {
    let place = Place::new();
    let source = text(volume);
    let at = |name: &str| place.at(name);

    // Saved by both: the same bytes.
    let (ours_img, theirs_img) = (at("ours.img"), at("theirs.img"));
    ours(["-q", "-f", "-s", "--no-checksum", "-o", text(&ours_img), source]).ok();
    ntfsclone(["-q", "-f", "-s", "-o", text(&theirs_img), source]).ok();
    assert_same(&ours_img, &theirs_img);
    shell(&format!("$OURS -f -s -o - {source} 2>/dev/null | cmp - {}", text(&theirs_img))).ok();

    // Restored and cloned by us, from a file, from a pipe, to a pipe: the same bytes, as long as the source.
    let (restored, cloned) = (at("restored"), at("cloned"));
    ours(["-q", "-r", "-o", text(&restored), text(&theirs_img)]).ok();
    ours(["-q", "-f", "-o", text(&cloned), source]).ok();
    assert_eq!(len(&restored), len(volume));
    assert_same(&restored, &cloned);
    shell(&format!("$OURS -r -o - - < {} 2>/dev/null | cmp - {}", text(&ours_img), text(&restored))).ok();
    shell(&format!("$OURS -f -o - {source} 2>/dev/null | cmp - {}", text(&restored))).ok();

    // Restored and cloned by ntfsclone: the same bytes as far as its file goes, and nothing of ours behind.
    let (their_restored, their_cloned) = (at("their-restored"), at("their-cloned"));
    ntfsclone(["-q", "-r", "-o", text(&their_restored), text(&ours_img)]).ok();
    ntfsclone(["-q", "-f", "-o", text(&their_cloned), source]).ok();
    for theirs in [&their_restored, &their_cloned] {
        assert_same_up_to(&restored, theirs, len(theirs).min(len(&restored)));
        assert_zeros_from(&restored, len(theirs).min(len(&restored)));
    }

    // The clone is the volume: saved again, it gives the same image.
    let again = at("again.img");
    ours(["-q", "-f", "-s", "--no-checksum", "-o", text(&again), text(&cloned)]).ok();
    assert_same(&again, &ours_img);

    // Holes stay holes.
    assert!(occupied(&cloned) <= len(&ours_img) + (1 << 20), "{} bytes on disk", occupied(&cloned));
}

#[test]
fn cluster_sizes() {
    for (size, cluster_size) in [(24 << 20, 512), (24 << 20, 4096), (64 << 20, 65536), (512 << 20, 2 << 20)] {
        let (_place, volume) = filled(size, 512, cluster_size, 150);
        compare(&volume);
    }
}

#[test]
fn sector_sizes() {
    for (sector_size, cluster_size) in [(256, 256), (1024, 1024), (4096, 4096), (4096, 65536)] {
        let (_place, volume) = filled(40 << 20, sector_size, cluster_size, 60);
        compare(&volume);
    }
}

#[test]
fn ends_of_the_partition() {
    let place = Place::new();
    let volume = place.at("volume");
    small_volume(&volume);
    let editor = Editor::open(&volume);
    let (whole, sectors) = (len(&volume), editor.total_sectors * editor.sector_size);
    let file = std::fs::OpenOptions::new().write(true).open(&volume).unwrap();
    // Longer by a sector, by more than a cluster, by a part of a sector; then without the backup boot sector.
    for size in [whole + 512, whole + 50_000, whole + 100, whole + (3 << 20), whole, sectors] {
        file.set_len(size).unwrap();
        compare(&volume);
    }
    // With clusters of a sector the partition can end exactly where the extra cluster would begin.
    mkntfs(&volume, 8 << 20, 512, 512);
    file.set_len((8 << 20) - 512).unwrap();
    compare(&volume);
}

#[test]
fn mft_in_several_runs() {
    // 512-byte clusters: a record lies across two runs.
    for (cluster_size, first) in [(4096, 8), (512, 41), (512, 65)] {
        let (_place, volume) = filled(24 << 20, 512, cluster_size, 150);
        Editor::open(&volume).fragment_mft(first);
        compare(&volume);
    }
}

#[test]
fn mft_with_an_attribute_list() {
    for (cluster_size, first) in [(4096, 8), (512, 65)] {
        let (_place, volume) = filled(24 << 20, 512, cluster_size, 150);
        Editor::open(&volume).extend_mft(first, 20);
        compare(&volume);
    }
}

#[test]
fn files_with_attribute_lists() {
    for cluster_size in [4096, 1024] {
        let place = Place::new();
        let volume = place.at("volume");
        mkntfs(&volume, 16 << 20, 512, cluster_size);
        crowd(&volume);
        run(Command::new("ntfsinfo").args(["-F", "large"]).arg(&volume)).ok().says("$ATTRIBUTE_LIST");
        compare(&volume);
    }
}

#[test]
fn extension_records_of_files_that_are_gone() {
    let place = Place::new();
    let volume = place.at("volume");
    small_volume(&volume);
    let editor = Editor::open(&volume);
    // A record in use that claims to extend an older file with the number of one that is there. Its clusters are
    // free in $Bitmap: those of a base record's attribute would not be.
    let lcn = editor.free_clusters(2000, 3);
    let base = 5 | 0x7777 << 48;
    editor.make_extension(20, base, &[(3, Some(lcn))]);
    compare(&volume);
}

#[test]
fn holes_as_ntfs_1_2_had_them() {
    let place = Place::new();
    let volume = place.at("volume");
    small_volume(&volume);
    let editor = Editor::open(&volume);
    let lcn = editor.free_clusters(2000, 3);
    editor.mark(lcn, 3, true);
    // Three clusters, then a run whose first cluster is -1.
    let mft_no = 70;
    let record = editor.record(mft_no);
    assert!(record[22] & 1 == 1, "a file");
    let runs = [(3, Some(lcn)), (4, Some(u64::MAX))];
    editor.put_record(mft_no, editor.with_another_stream(record, &runs));
    compare(&volume);
}

#[test]
fn bad_clusters_are_left_out() {
    let place = Place::new();
    let volume = place.at("volume");
    small_volume(&volume);
    let editor = Editor::open(&volume);
    let lcn = editor.free_clusters(3000, 5);
    editor.add_bad_clusters(lcn, 5);
    editor.write(lcn * 4096, &noise(1, 5 * 4096));
    compare(&volume);
    let clone = place.at("clone");
    ours(["-q", "-o", text(&clone), text(&volume)]).ok();
    assert_eq!(Editor::open(&clone).read(lcn * 4096, 5 * 4096), vec![0; 5 * 4096]);
}

#[test]
fn through_compressors() {
    let place = Place::new();
    let (volume, restored, packed) = (place.at("volume"), place.at("restored"), place.at("packed"));
    small_volume(&volume);
    ours(["-q", "-o", text(&restored), text(&volume)]).ok();
    for (pack, unpack) in [("gzip -1", "gzip -d"), ("zstd -q -1", "zstd -q -d")] {
        let (volume, packed, restored) = (text(&volume), text(&packed), text(&restored));
        shell(&format!("$OURS -s -o - {volume} 2>/dev/null | {pack} > {packed}")).ok();
        shell(&format!("{unpack} < {packed} | $OURS -r -O - - 2>/dev/null | cmp - {restored}")).ok();
        shell(&format!(
            "{unpack} < {packed} | ntfsclone -r -o - - 2>/dev/null | head -c {} | cmp - {restored}",
            24 << 20
        ))
        .ok();
    }
}

#[test]
fn volumes_that_were_given() {
    let place = Place::new();
    for (name, volume) in given(&place) {
        println!("{name}");
        compare(&volume);
    }
}
