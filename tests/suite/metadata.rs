//! Copies of metadata alone: against ntfsclone's, byte for byte, and that they are the volume they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use ntfsrescue::image::trailer::is_begun;

use crate::edit::{Editor, u32_at, u64_at};
use crate::tools::{assert_same, assert_same_up_to, len, ntfsclone, ours, run, shell, text};
use crate::volumes::{Mounted, Place, crowd, fill, filled, given, mkntfs, small_volume};
use crate::walk::{Walk, What};

/// Where our bytes may differ from ntfsclone's, and why. Ours are zeros there, but for times and sequence numbers.
pub const ACCEPTED: &[(What, &str)] = &[
    (What::SequenceNumber, "kept here; ntfsclone sets those of deleted records to 1"),
    (What::Fixup, "what belongs at the end of a stride is kept here, and wiped with it"),
    (What::RecordSlack, "ntfsclone leaves it in the first twelve records, and between header and attributes"),
    (What::Padding, "ntfsclone leaves up to seven bytes behind each name and value"),
    (What::BehindMft, "ntfsclone leaves what lies in clusters of $MFT that hold no records yet"),
    (What::IndexSlack, "ntfsclone leaves it: names of deleted files"),
    (What::EntryPadding, "ntfsclone leaves it"),
    (What::UnusedBlock, "ntfsclone leaves them: names of deleted files"),
    (What::ResidentData, "ntfsclone leaves that of streams which somebody added to the root folder"),
    (What::PrivateValue, "ntfsclone leaves extended attributes and reparse points"),
    (What::NotRead, "ntfsclone leaves encryption keys, and attributes of kinds that nobody knows"),
    (What::Log, "ntfsclone leaves log records, which hold pieces of files"),
    (What::BehindEnd, "ntfsclone leaves what lies behind the end of a stream"),
    (What::Extra, "ntfsclone copies all of the cluster in which the backup boot sector lies"),
];

/// An image: what the header says is in use, and the clusters.
pub struct Image {
    nr_used: u64,
    pub clusters: BTreeMap<u64, Vec<u8>>,
    pub cluster_size: u64,
}

/// Reads an image, of either program; a cluster that comes twice counts as it came last.
pub fn parse(path: &Path) -> Image {
    let bytes = std::fs::read(path).unwrap();
    let cluster_size = u32_at(&bytes, 18);
    let (device_size, nr_clusters) = (u64_at(&bytes, 22), u64_at(&bytes, 30));
    let (mut at, mut lcn, mut clusters) = (u32_at(&bytes, 46) as usize, 0, BTreeMap::new());
    while lcn <= nr_clusters {
        if bytes[at] == 0 {
            lcn = lcn.wrapping_add(u64_at(&bytes, at + 1));
            at += 9;
        } else {
            let len = cluster_size.min(device_size - lcn * cluster_size) as usize;
            clusters.insert(lcn, bytes[at + 1..at + 1 + len].to_vec());
            at += 1 + len;
            lcn += 1;
        }
    }
    let ends = at == bytes.len() || is_begun(&bytes[at..]);
    assert!(ends, "{} has neither an end nor a trailer at byte {at:#x}", path.display());
    Image { nr_used: u64_at(&bytes, 38), clusters, cluster_size }
}

/// The same clusters in both, and where their bytes differ a reason why. Returns what differs.
pub fn compare_images(volume: &Path, ours: &Path, theirs: &Path) -> BTreeSet<What> {
    let (ours, theirs) = (parse(ours), parse(theirs));
    let walk = Walk::new(volume);
    let only = |a: &Image, b: &Image| {
        a.clusters.keys().copied().filter(|lcn| !b.clusters.contains_key(lcn)).collect::<Vec<_>>()
    };
    assert_eq!(only(&ours, &theirs), [0u64; 0], "clusters that ntfsclone does not copy");
    // ntfsclone copies streams that somebody added to the root folder: contents of files.
    for lcn in only(&theirs, &ours) {
        assert_eq!(walk.what(lcn * ours.cluster_size), None, "cluster {lcn} is missing");
    }
    // ntfsclone counts the front of $LogFile twice.
    assert_eq!(ours.nr_used, ours.clusters.len() as u64 - 1);
    assert!(ours.nr_used <= theirs.nr_used);
    let mut seen = BTreeSet::new();
    for (lcn, bytes) in &ours.clusters {
        explain(&walk, lcn * ours.cluster_size, bytes, &theirs.clusters[lcn], &mut seen);
    }
    seen
}

/// Each difference between these bytes, which lie at `pos` of the volume, has a reason.
fn explain(walk: &Walk, pos: u64, ours: &[u8], theirs: &[u8], seen: &mut BTreeSet<What>) {
    for (pos, (a, b)) in (pos..).zip(ours.iter().zip(theirs)).filter(|(_, (a, b))| a != b) {
        let what = walk.what(pos);
        let wiped = match what {
            Some(What::SequenceNumber) => *a == walk.byte(pos),
            _ => *a == 0,
        };
        let accepted = ACCEPTED.iter().any(|(accepted, _)| Some(*accepted) == what);
        assert!(wiped && accepted, "byte {pos:#x} is {a:#x}, ntfsclone's {b:#x}: {what:?}");
        seen.extend(what);
    }
}

/// Saves, restores and clones the metadata of a volume with both programs, with every set of options, and compares.
fn compare(volume: &Path) {
    compare_all(volume, false);
}

fn compare_all(volume: &Path, made_by_windows: bool) {
    for times in ["", "t"] {
        for log in [&[][..], &["--full-logfile"]] {
            compare_with(volume, made_by_windows, times, log);
        }
    }
}

/// The same with one set of options.
pub fn compare_with(volume: &Path, made_by_windows: bool, times: &str, log: &[&str]) {
    let place = Place::new();
    let at = |name: &str| place.at(name);
    let (ours_img, theirs_img, restored) = (at("ours.img"), at("theirs.img"), at("restored"));
    let (save, clone) = (format!("-qfms{times}O"), format!("-qfm{times}O"));
    let to = |options: &str, target: &Path| {
        let args = [&[options, text(target)], log, &[text(volume)]].concat();
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    ours(to(&save, &ours_img)).ok();
    ntfsclone(to(&save, &theirs_img)).ok();
    compare_images(volume, &ours_img, &theirs_img);

    // Restored by us from a file, a pipe and to a pipe, and cloned at once: the same bytes.
    ours(["-q", "-r", "-o", text(&restored), text(&ours_img)]).ok();
    assert_eq!(len(&restored), len(volume));
    let (image, restored_name) = (text(&ours_img), text(&restored));
    shell(&format!("$OURS -r -o - - < {image} 2>/dev/null | cmp - {restored_name}")).ok();
    let (source, log_option) = (text(volume), log.join(" "));
    shell(&format!("$OURS {save} - --checksum {log_option} {source} 2>/dev/null | cmp - {image}")).ok();
    let cloned = at("cloned");
    ours(to(&clone, &cloned)).ok();
    assert_same(&cloned, &restored);

    // Restored by ntfsclone: the same bytes as far as its file goes.
    let their_restored = at("their-restored");
    ntfsclone(["-q", "-r", "-o", text(&their_restored), image]).ok();
    assert_same_up_to(&restored, &their_restored, len(&their_restored).min(len(&restored)));

    // Its image, restored by us, as by itself.
    let (a, b) = (at("a"), at("b"));
    ours(["-q", "-r", "-o", text(&a), text(&theirs_img)]).ok();
    ntfsclone(["-q", "-r", "-o", text(&b), text(&theirs_img)]).ok();
    assert_same_up_to(&a, &b, len(&a).min(len(&b)));

    // Its clone is its image restored, as ours is, so that the two clones differ as the images do. Not so on volumes that
    // it changes by mounting the clone, which it does to wipe it: there it empties the log or repairs something.
    if !made_by_windows {
        let their_clone = at("their-clone");
        ntfsclone(to(&clone, &their_clone)).ok();
        assert_same(&their_clone, &b);
    }
}

#[test]
fn cluster_sizes() {
    for (size, cluster_size) in [(24 << 20, 512), (24 << 20, 4096), (64 << 20, 65536)] {
        let (_place, volume) = filled(size, 512, cluster_size, 150);
        compare(&volume);
    }
}

#[test]
fn sector_sizes() {
    for (sector_size, cluster_size) in [(256, 256), (1024, 1024), (4096, 4096)] {
        let (_place, volume) = filled(24 << 20, sector_size, cluster_size, 60);
        compare(&volume);
    }
}

#[test]
fn odd_volumes() {
    // $MFT in several runs, with records across two of them, and with an attribute list; the partition longer than the
    // volume, and without the backup boot sector; files with attribute lists.
    let place = Place::new();
    let volume = place.at("volume");
    for (cluster_size, first) in [(4096, 8), (512, 41)] {
        mkntfs(&volume, 24 << 20, 512, cluster_size);
        fill(&volume, 150);
        Editor::open(&volume).fragment_mft(first);
        compare(&volume);
    }
    mkntfs(&volume, 24 << 20, 512, 512);
    fill(&volume, 150);
    Editor::open(&volume).extend_mft(65, 20);
    compare(&volume);
    small_volume(&volume);
    let sectors = Editor::open(&volume).total_sectors * 512;
    let file = std::fs::OpenOptions::new().write(true).open(&volume).unwrap();
    for size in [(24 << 20) + 50_000, sectors] {
        file.set_len(size).unwrap();
        compare(&volume);
    }
    mkntfs(&volume, 16 << 20, 512, 1024);
    crowd(&volume);
    compare(&volume);
}

/// What a walk through all folders sees, without times.
pub fn listing(volume: &Path) -> String {
    let mounted = Mounted::new(volume, "ro");
    let walk = r"find . -printf '%p %y %i %n %s %l\n' | sort";
    let said = shell(&format!("cd {} && {walk}", text(mounted.path()))).ok();
    assert!(said.stdout.lines().count() > 3, "{}", said.stdout);
    // Targets of links are told from where the volume is mounted.
    said.stdout.replace(text(mounted.path()), "")
}

/// What `ntfsinfo` says of a volume.
fn info(volume: &Path) -> String {
    let said = run(Command::new("ntfsinfo").arg("-m").arg(volume)).ok();
    said.stdout.lines().filter(|line| !line.contains("Name of device")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_clone_mounts_and_its_folders_are_the_same() {
    let place = Place::new();
    let mut volumes = given(&place);
    // Neither driver mounts it before its log is worked through.
    volumes.retain(|(name, _)| name != "logfileparser-tiny.ntfs");
    for (name, cluster_size) in [("512", 512), ("4096", 4096), ("65536", 65536)] {
        let volume = place.at(name);
        mkntfs(&volume, 64 << 20, 512, cluster_size);
        fill(&volume, 300);
        volumes.push((name.to_owned(), volume));
    }
    for (name, volume) in volumes {
        println!("{name}");
        let clone = place.at("clone");
        for options in ["-qmO", "-qmtO"] {
            ours([options, text(&clone), text(&volume)]).ok();
            assert_eq!(info(&clone), info(&volume));
            let probe = |volume: &Path| run(Command::new("ntfs-3g.probe").arg("-w").arg(volume)).status;
            assert_eq!(probe(&clone), probe(&volume));
            assert_eq!(listing(&clone), listing(&volume));
        }
    }
}

#[test]
fn volumes_that_were_given() {
    let place = Place::new();
    for (name, volume) in given(&place) {
        println!("{name}");
        compare_all(&volume, true);
    }
}
