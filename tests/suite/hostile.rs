//! Volumes and images that lie: seeded mutations of good ones, through the real program. Whatever they say, the run
//! ends soon with a status of ours, and writes no more than the lie is worth.

use std::process::Command;

use crate::edit::Editor;
use crate::tools::{noise, occupied, ours, run, shell, text};
use crate::volumes::{Place, fill, mkntfs};

/// Longest run that is no hang, in seconds; a good one takes a few milliseconds.
const DEADLINE: &str = "20";

/// Largest target that a lie may make: holes do not count.
const MAX_BYTES: u64 = 64 << 20;

/// Numbers that break things, next to random ones.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000_0000_0000, u64::MAX];

/// Changes some bytes at places that `seed` chooses below `bytes.len()`.
pub fn mutate(bytes: &mut [u8], seed: u64) {
    let mut random =
        noise(seed + 1, 400).chunks(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>();
    let mut next = || random.pop().unwrap();
    for _ in 0..1 + next() % 6 {
        let at = (next() % bytes.len() as u64) as usize;
        let width = [1, 2, 4, 8][(next() % 4) as usize].min(bytes.len() - at);
        let value = if next().is_multiple_of(2) { next() } else { EDGES[(next() % 8) as usize] };
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// Runs our program with a deadline, on a target that is removed afterwards.
#[track_caller]
fn survives(what: &str, args: &[&str], target: &std::path::Path) {
    let program = env!("CARGO_BIN_EXE_ntfsrescue");
    let said = run(Command::new("timeout").args(["--signal=KILL", DEADLINE, program]).args(args));
    assert!(
        matches!(said.status, 0 | 1 | 3),
        "{what}: status {} (137: not within {DEADLINE} s)\n{}\n{}",
        said.status,
        said.stdout,
        said.stderr
    );
    if target.exists() {
        assert!(occupied(target) < MAX_BYTES, "{what}: wrote {} bytes", occupied(target));
        std::fs::remove_file(target).unwrap();
    }
}

#[test]
fn mutated_volumes() {
    let place = Place::new();
    let at = |name| place.at(name);
    for cluster_size in [512, 4096] {
        mkntfs(&at("volume"), 2 << 20, 512, cluster_size);
        let editor = Editor::open(&at("volume"));
        if cluster_size == 512 {
            editor.extend_mft(49, 20);
        }
        for seed in 0..250 {
            // The boot sector, or one of the first 32 records; with its fixups put right every second time.
            let saved;
            let place_of;
            if seed % 10 == 0 {
                place_of = 0;
                saved = editor.read(0, 512);
                let mut boot = saved.clone();
                mutate(&mut boot[0x0b..0x50], seed);
                editor.write(0, &boot);
            } else {
                let mft_no = if seed % 4 == 1 { [0, 20, 6, 8][(seed / 4 % 4) as usize] } else { seed % 24 };
                place_of = editor.record_pos(mft_no);
                saved = editor.read(place_of, 1024);
                let mut record = editor.record(mft_no);
                mutate(&mut record[..450], seed);
                let usa = u16::from_le_bytes([record[4], record[5]]);
                if seed % 2 == 0 && usa < 500 {
                    editor.put_record(mft_no, record);
                } else {
                    editor.write(place_of, &record);
                }
            }
            let (volume, new) = (at("volume"), at("new"));
            let what = format!("clusters of {cluster_size} bytes, seed {seed}");
            survives(&what, &["-q", "--rescue", "--strict", "-s", "-O", text(&new), text(&volume)], &new);
            survives(&what, &["-q", "-f", "-O", text(&new), text(&volume)], &new);
            editor.write(place_of, &saved);
        }
    }
}

#[test]
fn mutated_metadata() {
    let place = Place::new();
    let (volume, new) = (place.at("volume"), place.at("new"));
    for cluster_size in [512, 4096] {
        mkntfs(&volume, 4 << 20, 512, cluster_size);
        fill(&volume, 40);
        let editor = Editor::open(&volume);
        let blocks = editor.first_cluster_of(5, 0xa0);
        for seed in 0..250 {
            // A record, or the first block of the root folder, its fixups put right or not.
            let mft_no = [0, 1, 2, 5, 9, 24, 25, 26][(seed % 8) as usize] + seed % 64;
            let (pos, len) = if seed % 5 == 0 { (blocks, 4096) } else { (editor.record_pos(mft_no), 1024) };
            let saved = editor.read(pos, len);
            let mut bytes = saved.clone();
            mutate(&mut bytes[8..500], seed);
            editor.write(pos, &bytes);
            let what = format!("clusters of {cluster_size} bytes, seed {seed}");
            for options in ["-qmO", "-qmsO"] {
                survives(&what, &["--rescue", "--strict", options, text(&new), text(&volume)], &new);
            }
            survives(&what, &["--ignore-fs-check", "-qfmtO", text(&new), text(&volume)], &new);
            editor.write(pos, &saved);
        }
    }
}

#[test]
fn bitmaps_of_indexes_of_impossible_size() {
    let place = Place::new();
    let (volume, new) = (place.at("volume"), place.at("new"));
    mkntfs(&volume, 4 << 20, 512, 4096);
    fill(&volume, 40);
    let editor = Editor::open(&volume);
    // Folders whose bitmaps claim a gigabyte, all of it holes.
    for mft_no in 64..90 {
        editor.put_record(mft_no, editor.with_index_of_holes(editor.record(mft_no), 1 << 18));
    }
    let sparing = "ulimit -v 49152; exec timeout 20 $OURS --rescue -qmO";
    shell(&format!("{sparing} {} {}", text(&new), text(&volume))).ok();
}

#[test]
fn mutated_images() {
    let place = Place::new();
    let at = |name| place.at(name);
    mkntfs(&at("volume"), 2 << 20, 512, 512);
    ours(["-q", "-s", "-o", text(&at("image")), text(&at("volume"))]).ok();
    let good = std::fs::read(at("image")).unwrap();
    for seed in 0..250 {
        let mut image = good.clone();
        // The header, the commands behind it, or anywhere; some are cut off too.
        let end = [56, 2000, good.len()][(seed % 3) as usize];
        mutate(&mut image[16..end], seed);
        if seed % 7 == 0 {
            image.truncate((seed * 9973) as usize % good.len());
        }
        std::fs::write(at("bad"), &image).unwrap();
        let what = format!("seed {seed}");
        let (bad, new) = (at("bad"), at("new"));
        survives(&what, &["-q", "-r", "-n", text(&bad)], &new);
        survives(&what, &["-q", "-r", "-O", text(&new), text(&bad)], &new);
    }
}

#[test]
fn mfts_of_impossible_size() {
    let place = Place::new();
    let at = |name| place.at(name);
    mkntfs(&at("volume"), 4 << 20, 512, 4096);
    let editor = Editor::open(&at("volume"));
    let record = editor.record(0);
    // A hole of 2^40 clusters behind the first run; the same clusters again and again.
    let start = editor.record_pos(0) / 4096;
    let again = vec![(900, Some(1)); 20];
    for more in [vec![(1 << 40, None)], again] {
        let runs: Vec<_> = [(8, Some(start))].into_iter().chain(more).collect();
        editor.put_record(0, editor.with_data_runs(record.clone(), &runs));
        for options in [&["-q", "--rescue"][..], &["-q", "-f"]] {
            let (new, volume) = (at("new"), at("volume"));
            let args = [options, &["-s", "-O", text(&new), text(&volume)]].concat();
            survives("a huge $MFT", &args, &new);
        }
    }
}
