//! Kills at any moment: the same command goes on until the result is that of a run that nobody has killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ntfsrescue::extent::ByteRange;
use ntfsrescue::image::PlacedImage;
use ntfsrescue::io::PlacedSink;
use ntfsrescue::io::store::LocalStore;
use ntfsrescue::rescue::State;
use ntfsrescue::rescue::frozen;
use ntfsrescue::rescue::mapstore::MapStore;

use crate::scene::{Form, Scene, assert_equal, differing};
use crate::tools::{noise, status_of, text};

/// Kills for each form of target, and the time they may take together on a busy machine.
const NR_KILLS: usize = 150;
const TIME: Duration = Duration::from_secs(10);

/// Bad sectors of all kinds: an area, single ones, what has a copy, a record, one beside the backup boot sector.
pub fn bad_sectors(scene: &Scene) -> Vec<u64> {
    let editor = scene.editor();
    let record = |mft_no| editor.record_pos(mft_no) / 512;
    let (first, far) = (scene.sector_of_file(2), scene.sector_of_file(8));
    let bad = [far, far + 3, record(0), record(2) + 1, record(70)];
    let mut bad: Vec<_> = (first + 1..first + 20).chain(bad).chain([0, editor.total_sectors - 1]).collect();
    bad.sort();
    bad
}

/// What the newest map calls finished is in the unfinished target, as the volume has it. Returns how much that is; none
/// without a map.
#[track_caller]
pub fn finished_is_there(scene: &Scene, volume: &[u8], target: &str, map: &str) -> Option<u64> {
    let unfinished = scene.at(&format!("{target}.part"));
    let target = if unfinished.exists() { unfinished } else { scene.at(target) };
    finished_is_in(&target, &scene.at(map), &frozen::path_of(&scene.at("map")), volume)
}

/// What the newest map calls finished is in this target, as the volume has it. Returns how much that is; none without
/// a map.
#[track_caller]
pub fn finished_is_in(target: &Path, map: &Path, plan: &Path, volume: &[u8]) -> Option<u64> {
    let (map, parsed) = MapStore::open(&LocalStore, map).unwrap();
    parsed?;
    let mut finished = Vec::new();
    map.visit(|block| {
        if block.state == State::Finished {
            finished.push(block.range);
        }
    })
    .unwrap();
    let (plan, facts) = frozen::thaw(&LocalStore, plan).unwrap().unwrap();
    if !target.exists() {
        assert!(finished.is_empty(), "there is no target, but its map has {finished:?}");
        return Some(0);
    }
    let check = |found: &[u8], range: &ByteRange| {
        let wanted = &volume[range.pos as usize..range.end() as usize];
        let sectors = differing(found, wanted);
        assert!(
            sectors.is_empty(),
            "{range:?} is finished, but not there: sectors {:?} of it, the first is {:?}",
            &sectors[..sectors.len().min(20)],
            &found[sectors[0] as usize * 512..][..16]
        );
    };
    if facts.form == frozen::Form::Clone {
        // What is held back to the end is in the plan.
        let mut clone = std::fs::read(target).unwrap();
        clone.resize(volume.len(), 0);
        let last = plan.geometry.volume_size() as usize;
        for (at, held) in [(0, facts.boot_sector), (last, facts.extra_cluster)] {
            held.iter().for_each(|held| clone[at..at + held.len()].copy_from_slice(held));
        }
        for range in &finished {
            check(&clone[range.pos as usize..range.end() as usize], range);
        }
    } else {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(target).unwrap();
        let image = PlacedImage::new(file, "image".into(), &plan).unwrap();
        for range in &finished {
            let mut found = vec![0; range.len as usize];
            image.read_back(range.pos, &mut found).unwrap();
            check(&found, range);
        }
    }
    Some(finished.iter().map(|range| range.len).sum())
}

/// A command line that rescues `source` to `target` with `map`, and syncs as often as it can.
pub fn command(scene: &Scene, form: Form, source: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ntfsrescue"));
    let args = format!("-q --map map --map-interval 0 -o target {} {source}", form.option());
    command.args(args.split_whitespace()).current_dir(scene.at(""));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

pub fn remove_all(scene: &Scene) {
    for name in ["target", "target.part", "map", "map.alt", "map.plan"] {
        let _absent = std::fs::remove_file(scene.at(name));
    }
}

/// A moment between 0 and `most`.
pub fn moment(seed: usize, most: Duration) -> Duration {
    let drawn = noise(seed as u64 + 1, 16);
    most * u32::from(u16::from_le_bytes([drawn[8], drawn[9]])) / 65_536
}

fn survives_kills(form: Form, is_doubtful: bool) {
    let scene = Scene::new();
    let mut bad = bad_sectors(&scene);
    bad.extend(is_doubtful.then_some(scene.editor().bitmap_pos() / 512));
    let disk = scene.disk(512, &bad);
    let source = text(&disk.path()).to_owned();
    let volume = scene.read("volume");

    let start = Instant::now();
    let whole = command(&scene, form, &source).output().unwrap();
    let mut takes = start.elapsed();
    assert_eq!(status_of(whole.status), 0, "{}", String::from_utf8_lossy(&whole.stdout));
    let wanted = scene.read("target");
    let marked = scene.content("target", form);

    let (mut nr_kills, mut nr_done, mut finished) = (0, 0, BTreeSet::new());
    let start = Instant::now();
    let time = TIME / if is_doubtful { 2 } else { 1 };
    // A machine that is busy with other things gets longer.
    let is_enough = |nr_kills, nr_done, states| nr_kills > 5 && nr_done > 1 && states > 2;
    while nr_kills < NR_KILLS
        && (start.elapsed() < time
            || !is_enough(nr_kills, nr_done, finished.len()) && start.elapsed() < 5 * time)
    {
        remove_all(&scene);
        loop {
            let mut child = command(&scene, form, &source).spawn().unwrap();
            std::thread::sleep(moment(nr_kills + 1000 * nr_done, takes));
            let _ended = child.kill();
            let ended = child.wait_with_output().unwrap();
            let status = status_of(ended.status);
            if status == 0 {
                // Too late: this machine is faster now than it was.
                takes = takes * 9 / 10;
                break;
            }
            assert_eq!(status, 137, "kill {nr_kills}: {}", String::from_utf8_lossy(&ended.stdout));
            nr_kills += 1;
            takes = takes * 52 / 50;
            finished.extend(finished_is_there(&scene, &volume, "target", "map"));
        }
        let told = format!("{form:?} after {nr_kills} kills");
        if is_doubtful {
            scene.assert_equal_in_use(&scene.content("target", form), &marked, &told);
        } else {
            assert_equal(&scene.read("target"), &wanted, &told);
        }
        assert!(!scene.at("map.alt").exists() && !scene.at("target.part").exists());
        nr_done += 1;
    }
    println!("{form:?}: {takes:?} a run, {nr_kills} kills, {nr_done} results, {} states", finished.len());
    assert!(is_enough(nr_kills, nr_done, finished.len()), "too slow to tell anything");
}

#[test]
fn a_clone_survives_kills() {
    survives_kills(Form::Clone, false);
}

#[test]
fn an_image_survives_kills() {
    survives_kills(Form::Image, false);
}

/// Where `$Bitmap` cannot be read, it is not known of all clusters whether they are in use.
#[test]
fn what_is_in_doubt_survives_kills() {
    survives_kills(Form::Clone, true);
    survives_kills(Form::Image, true);
}
