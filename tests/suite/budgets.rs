//! Rescues that end before all is read, and what goes on from there: budgets, signals, a full target.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGINT, SIGTERM};

use ntfsrescue::io::store::LocalStore;
use ntfsrescue::rescue::State;
use ntfsrescue::rescue::mapstore::MapStore;

use crate::faulty::FaultyDisk;
use crate::interrupt::{Running, program};
use crate::kills::{bad_sectors, finished_is_there};
use crate::scene::{Form, Scene, assert_equal};
use crate::tools::{run, text};

/// Bytes in a state, as the map has it.
pub fn bytes_in(scene: &Scene, map: &str, state: State) -> u64 {
    let (map, _) = MapStore::open(&LocalStore, &scene.at(map)).unwrap();
    let mut bytes = 0;
    map.visit(|block| bytes += if block.state == state { block.range.len } else { 0 }).unwrap();
    bytes
}

/// A target is complete: each sector of a healthy clone is there, or marked.
#[track_caller]
pub fn assert_complete(scene: &Scene, found: &[u8], what: &str) {
    let (volume, healthy) = (scene.read("volume"), scene.read("healthy"));
    assert_eq!(found.len(), volume.len(), "{what}");
    let mut mark = [b'?'; 512];
    mark[..10].copy_from_slice(b"BadSectoR\0");
    for (i, sector) in found.chunks(512).enumerate() {
        let of = |whole: &[u8]| sector == &whole[i * 512..i * 512 + 512];
        assert!(of(&volume) || of(&healthy) || sector == mark, "{what}: sector {i} is {:?}", &sector[..16]);
    }
}

/// What a run without any end in between has as result.
fn uninterrupted(scene: &Scene, form: Form, disk: &FaultyDisk) -> Vec<u8> {
    scene.ours(&format!("--rescue {} -O whole {}", form.option(), text(&disk.path()))).ok();
    scene.read("whole")
}

/// Where `$Bitmap` cannot be read: what is in use is the same in the end.
#[test]
fn what_is_in_doubt_is_completed_too() {
    let scene = Scene::new();
    let mut bad = bad_sectors(&scene);
    bad.push(scene.editor().bitmap_pos() / 512);
    let disk = scene.disk(512, &bad);
    for form in Form::BOTH {
        uninterrupted(&scene, form, &disk);
        let whole = scene.content("whole", form);
        let target = format!("target-{form:?}");
        let args = format!("--map map-{form:?} {} -o {target} {}", form.option(), text(&disk.path()));
        for max_errors in [1, 2, 3, 20] {
            scene.ours(&format!("{args} --max-errors {max_errors}")).exits(5);
            let told = format!("{form:?}, {max_errors} errors");
            assert_complete(&scene, &scene.content(&target, form), &told);
            scene.ours(&format!("--finish map-{form:?} {target}")).ok();
            assert_complete(&scene, &scene.content(&target, form), &told);
        }
        scene.ours(&args).ok();
        scene.assert_equal_in_use(&scene.content(&target, form), &whole, "at last");
        scene.ours(&format!("--finish map-{form:?} {target}")).ok();
        scene.assert_equal_in_use(&scene.content(&target, form), &whole, "finished once more");
    }
}

/// Ends by the number of errors, again and again, until all is tried.
#[test]
fn errors_are_budgeted() {
    let scene = Scene::new();
    let disk = scene.disk(512, &bad_sectors(&scene));
    for form in Form::BOTH {
        let whole = uninterrupted(&scene, form, &disk);
        let target = format!("target-{form:?}");
        let args =
            format!("--map map-{form:?} --max-errors 3 {} -o {target} {}", form.option(), text(&disk.path()));
        let map = format!("map-{form:?}");
        let (mut nr_runs, mut before) = (0, u64::MAX);
        loop {
            let said = scene.ours(&args);
            nr_runs += 1;
            assert_complete(&scene, &scene.content(&target, form), &format!("{form:?}, run {nr_runs}"));
            let of = |state| bytes_in(&scene, &map, state);
            if said.status == 0 {
                assert_eq!(of(State::NonTrimmed) + of(State::NonScraped), 0);
                break;
            }
            said.exits(5);
            assert!(
                !scene.at(&format!("{map}.alt")).exists() && !scene.at(&format!("{target}.part")).exists()
            );
            let left = of(State::NonTrimmed) + of(State::NonScraped) + of(State::NonTried);
            assert!(left <= before, "run {nr_runs}");
            before = left;
            assert!(nr_runs < 50);
        }
        assert!(nr_runs > 3, "{nr_runs}");
        assert_equal(&scene.read(&target), &whole, &format!("{form:?}"));
        // Once more there is nothing to do, and nothing changes.
        scene.ours(&args).ok();
        assert_equal(&scene.read(&target), &whole, "once more");
        scene.ours(&format!("{args} --strict")).exits(3);
    }
}

/// Sectors that are lost in the last cluster, with the backup boot sector: what is there of it stays.
#[test]
fn what_is_held_back_stays_when_a_run_goes_on() {
    let scene = Scene::new();
    let last = scene.editor().total_sectors;
    for (what, bad) in [("backup", [last, last - 2]), ("boot sector", [0, last - 3])] {
        let disk = scene.disk(512, &bad);
        for form in Form::BOTH {
            for option in ["", "--no-repair"] {
                let whole = {
                    scene
                        .ours(&format!("--rescue {option} {} -O whole {}", form.option(), text(&disk.path())))
                        .ok();
                    scene.read("whole")
                };
                let args = format!("--map map {option} {} -O target {}", form.option(), text(&disk.path()));
                for name in ["map", "target"] {
                    let _absent = std::fs::remove_file(scene.at(name));
                }
                for run in 1..4 {
                    scene.ours(&args).ok();
                    assert_equal(
                        &scene.read("target"),
                        &whole,
                        &format!("{what} {form:?} {option}, run {run}"),
                    );
                }
                drop(whole);
            }
        }
        // Another disk, which has healed: nothing is marked any more.
        drop(disk);
        let disk = scene.disk(512, &[]);
        for name in ["map", "target"] {
            let _absent = std::fs::remove_file(scene.at(name));
        }
        drop(disk);
        let disk = scene.disk(512, &bad);
        let args = |disk: &FaultyDisk| format!("--map map --retries 1 -O target {}", text(&disk.path()));
        scene.ours(&args(&disk)).ok();
        drop(disk);
        let disk = scene.disk(512, &[]);
        scene.ours(&args(&disk)).ok();
        assert_equal(&scene.read("target"), &scene.read("healthy"), what);
    }
}

#[test]
fn time_is_budgeted() {
    let scene = Scene::new();
    let bad = bad_sectors(&scene);
    for form in Form::BOTH {
        let (target, map) = (format!("target-{form:?}"), format!("map-{form:?}"));
        let args =
            |disk: &FaultyDisk| format!("--map {map} {} -o {target} {}", form.option(), text(&disk.path()));
        {
            let slow = FaultyDisk::slow(&scene.at("volume"), 512, &bad, 1_500_000);
            let start = Instant::now();
            scene.ours(&format!("{} --max-time 2s", args(&slow))).exits(5);
            assert!(start.elapsed() >= Duration::from_secs(2) && start.elapsed() < Duration::from_secs(8));
        }
        assert_complete(&scene, &scene.content(&target, form), "after 2 s");
        assert!(bytes_in(&scene, &map, State::Finished) > 0);
        let disk = scene.disk(512, &bad);
        let whole = uninterrupted(&scene, form, &disk);
        assert!(whole != scene.read(&target), "2 s were enough");
        scene.ours(&args(&disk)).ok();
        assert_equal(&scene.read(&target), &whole, &format!("{form:?}"));
    }
}

/// A signal ends it with a map to go on from, without one as any other job.
#[test]
fn signals() {
    let scene = Scene::new();
    let volume = scene.read("volume");
    for (form, signal) in [(Form::Clone, SIGINT), (Form::Image, SIGTERM)] {
        let disk = FaultyDisk::slow(&scene.at("volume"), 512, &[scene.sector_of_file(8)], 1_500_000);
        let start = |args: &str| {
            let args = format!("{args} {} -o target {}", form.option(), text(&disk.path()));
            let mut job =
                Running::start(program().args(args.split_whitespace()).current_dir(scene.at("")), false);
            job.says("Rescuing ...");
            std::thread::sleep(Duration::from_millis(300));
            job.signal(signal);
            job.exits(if args.contains("--map") { 6 } else { 128 + signal as i32 });
            job.said()
        };
        let said = start("--rescue");
        assert!(said.contains("what was copied so far is left in 'target.part'"), "{said}");
        std::fs::remove_file(scene.at("target.part")).unwrap();
        let said = start("--map map");
        assert!(said.contains("the same command goes on"), "{said}");
        assert!(!scene.at("map.alt").exists(), "an orderly end");
        assert!(finished_is_there(&scene, &volume, "target", "map") > Some(100_000));
        drop(disk);
        let disk = scene.disk(512, &[scene.sector_of_file(8)]);
        scene.ours(&format!("--map map {} -o target {}", form.option(), text(&disk.path()))).ok();
        assert_equal(&scene.read("target"), &uninterrupted(&scene, form, &disk), &format!("{form:?}"));
        for name in ["map", "map.plan", "target"] {
            std::fs::remove_file(scene.at(name)).unwrap();
        }
    }
}

/// A disk that hangs in the middle of it.
#[test]
fn a_signal_while_the_disk_hangs() {
    let scene = Scene::new();
    let disk = FaultyDisk::slow(&scene.at("volume"), 512, &[], 1_500_000);
    let args = format!("--map map -o target {}", text(&disk.path()));
    let mut job = Running::start(program().args(args.split_whitespace()).current_dir(scene.at("")), false);
    job.says("Rescuing ...");
    disk.hang();
    std::thread::sleep(Duration::from_millis(300));
    job.signal(SIGINT);
    job.exits(6);
    disk.recover();
    assert!(finished_is_there(&scene, &scene.read("volume"), "target", "map") > Some(0));
    drop(disk);
    let disk = scene.disk(512, &[]);
    scene.ours(&format!("--map map -o target {}", text(&disk.path()))).ok();
    assert_equal(&scene.read("target"), &scene.read("healthy"), "target");
}

/// A file system of this many bytes, gone when dropped.
struct Small(std::path::PathBuf);

impl Small {
    fn new(scene: &Scene, bytes: u64) -> Small {
        let point = scene.at("small");
        std::fs::create_dir_all(&point).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(&point))
            .ok();
        Small(point)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        crate::tools::unmount(&self.0);
    }
}

/// The target's file system fills up while the job runs; the map is there too.
#[test]
fn a_target_that_fills_up() {
    let scene = Scene::new();
    let bad = [scene.sector_of_file(8)];
    for form in Form::BOTH {
        let small = Small::new(&scene, 12 << 20);
        let disk = FaultyDisk::slow(&scene.at("volume"), 512, &bad, 1_500_000);
        let args = |disk: &FaultyDisk| {
            format!(
                "--map small/map --map-interval 0 {} -o small/target {}",
                form.option(),
                text(&disk.path())
            )
        };
        let mut job =
            Running::start(program().args(args(&disk).split_whitespace()).current_dir(scene.at("")), false);
        job.says("Rescuing ...");
        // Somebody else takes the room.
        let _full = std::fs::write(scene.at("small/filler"), vec![1; 12 << 20]);
        job.exits(7);
        job.says("the same command goes on with the map 'small/map'");
        drop(disk);
        std::fs::remove_file(scene.at("small/filler")).unwrap();
        let disk = scene.disk(512, &bad);
        scene.ours(&args(&disk)).ok();
        assert_equal(&scene.read("small/target"), &uninterrupted(&scene, form, &disk), &format!("{form:?}"));
        drop(small);
    }
}
