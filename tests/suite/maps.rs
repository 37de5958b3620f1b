//! What goes with which map: what is refused, what is gone on with, and taking turns with the real ddrescue.

use std::process::Command;

use ntfsrescue::rescue::State;

use crate::budgets::{assert_complete, bytes_in};
use crate::scene::{FILE, Form, OTHER_FILE, Scene, assert_equal, differing};
use crate::tools::{Loop, Said, noise, run, text};

/// A rescue that has ended at its first error: `map`, `map.plan` and `target`.
fn begun(form: Form) -> (Scene, Vec<u64>) {
    let scene = Scene::new();
    let first = scene.sector_of_file(FILE.0);
    let bad = vec![first, first + 2, scene.sector_of_file(OTHER_FILE.0)];
    let disk = scene.disk(512, &bad);
    scene
        .ours(&format!("--map map --max-errors 1 {} -o target {}", form.option(), text(&disk.path())))
        .exits(5);
    drop(disk);
    (scene, bad)
}

/// Refused with these words, and nothing has changed.
#[track_caller]
fn refused(scene: &Scene, args: &str, words: &[&str]) {
    let names = scene.names();
    let of = |names: &[String]| {
        let kept = names.iter().filter(|name| name.starts_with("target") || name.starts_with("map"));
        kept.map(|name| scene.read(name)).collect::<Vec<_>>()
    };
    let before = of(&names);
    let mut said = scene.ours(args).exits(1);
    for words in words {
        said = said.says(words);
    }
    assert_eq!(scene.names(), names, "{args}");
    assert!(of(&names) == before, "{args}");
}

#[test]
fn targets_without_their_map() {
    let scene = Scene::new();
    std::fs::write(scene.at("old"), "something").unwrap();
    refused(&scene, "--map map -O old volume", &["'old' is not empty, and there is no map"]);
    assert_eq!(scene.read("old"), b"something");
    std::fs::write(scene.at("target.part"), "something").unwrap();
    refused(&scene, "--map map -o target volume", &["'target.part' is an unfinished copy"]);
    refused(&scene, "--map map -o old volume", &["'old' already exists"]);
    refused(&scene, "--map map -o - volume", &["--map goes with a target"]);
    // One that is empty or absent is taken.
    std::fs::write(scene.at("empty"), "").unwrap();
    scene.ours("--map map -O empty volume").ok();
    assert_equal(&scene.read("empty"), &scene.read("healthy"), "empty");
    scene.ours("--map other-map -O absent volume").ok();
    assert_equal(&scene.read("absent"), &scene.read("healthy"), "absent");
}

#[test]
fn a_map_without_what_belongs_to_it() {
    for form in Form::BOTH {
        let (scene, _) = begun(form);
        let args = format!("--map map {} -o target volume", form.option());
        let set_aside = |name: &str, then: &dyn Fn()| {
            std::fs::rename(scene.at(name), scene.at("aside")).unwrap();
            then();
            std::fs::rename(scene.at("aside"), scene.at(name)).unwrap();
        };
        set_aside("map.plan", &|| refused(&scene, &args, &["'map' has lost its plan 'map.plan'"]));
        set_aside("map.plan", &|| {
            std::fs::write(scene.at("map.plan"), &scene.read("aside")[..100]).unwrap();
            refused(&scene, &args, &["plan 'map.plan', byte"]);
            std::fs::remove_file(scene.at("map.plan")).unwrap();
        });
        set_aside("target", &|| {
            refused(&scene, &args, &["the target 'target' is not there, but its map is"])
        });
        set_aside("map", &|| {
            let map = scene.read("aside");
            std::fs::write(scene.at("map"), &map[..map.len() - 20]).unwrap();
            refused(&scene, &args, &["map 'map': torn or changed by hand"]);
            // A whole one beside it is enough.
            std::fs::write(scene.at("map.alt"), &map).unwrap();
            scene.ours(&args).ok();
            assert!(!scene.at("map.alt").exists());
            assert_equal(&scene.content("target", form), &scene.read("healthy"), "target");
        });
    }
}

#[test]
fn a_map_of_something_else() {
    let (scene, _) = begun(Form::Clone);
    refused(
        &scene,
        "--map map -s -o target volume",
        &["not the target of the map: found an image, wanted a raw clone"],
    );
    // A longer disk.
    std::fs::copy(scene.at("volume"), scene.at("longer")).unwrap();
    std::fs::File::options().write(true).open(scene.at("longer")).unwrap().set_len(25 << 20).unwrap();
    let sizes = [&format!("{} bytes", 25 << 20)[..], &format!("wanted serial number '', {} bytes", 24 << 20)];
    refused(&scene, "--map map -o target longer", &["not the disk of the map", sizes[0], sizes[1]]);
    // Another volume of the same size.
    std::fs::copy(scene.at("volume"), scene.at("another")).unwrap();
    let editor = crate::edit::Editor::open(&scene.at("another"));
    editor.write(0x48, &[0x55; 8]);
    refused(&scene, "--map map -o target another", &["not the volume of the map", "5555555555555555"]);
    // A device instead of the file.
    std::fs::write(scene.at("device"), vec![0; 24 << 20]).unwrap();
    let device = Loop::attach(&scene.at("device"), 512);
    let words = ["not the target of the map", "wanted a file"];
    refused(&scene, &format!("--map map -O {} volume", text(&device.0)), &words);

    // A device that was begun is not exchanged for another.
    let disk = scene.disk(512, &[scene.sector_of_file(FILE.0)]);
    let source = text(&disk.path()).to_owned();
    scene.ours(&format!("--map map2 --max-errors 1 -O {} {source}", text(&device.0))).exits(5);
    std::fs::write(scene.at("larger"), vec![0; 26 << 20]).unwrap();
    let larger = Loop::attach(&scene.at("larger"), 512);
    let args = |device: &Loop| format!("--map map2 -O {} {source}", text(&device.0));
    refused(&scene, &args(&larger), &["not the target of the map", &format!("{} bytes", 26 << 20)]);
    refused(&scene, &format!("--map map2 -o file {source}"), &["'file' is not there, but its map is"]);
    scene.ours(&args(&device)).ok();
    drop(device);
    let (found, wanted) = (scene.read("device"), scene.marked(&[scene.sector_of_file(FILE.0)]));
    assert_equal(&found, &wanted, "device");
}

fn ddrescue(scene: &Scene, args: &str) -> Said {
    run(Command::new("ddrescue").arg("-q").args(args.split_whitespace()).current_dir(scene.at("")))
}

/// What ddrescue has read is not read again: the disk has lost some of that since.
#[test]
fn ddrescues_maps_are_gone_on_with() {
    let scene = Scene::new();
    let (first, other) = (scene.sector_of_file(FILE.0), scene.sector_of_file(2));
    let bad: Vec<_> = [first + 2].into_iter().chain(other + 1..other + 9).collect();
    let phases = [
        "--cpass=1 -X1 -c16",
        "-s 6Mi -n",
        "--cpass=1 -N -n -c16",
        "-N -n -c16",
        "-X3 -c16",
        "-r1",
        "-i 1Mi -n",
    ];
    for (no, phase) in phases.into_iter().enumerate() {
        let (map, clone) = (format!("map{no}"), format!("clone{no}"));
        {
            let disk = scene.disk(512, &bad);
            // Some end with an error, which is what they are for.
            ddrescue(&scene, &format!("-d {phase} {} {clone} {map}", text(&disk.path())));
        }
        let finished = bytes_in(&scene, &map, State::Finished);
        // What is read already and would be lost now: metadata too.
        let (parsed_map, _) =
            ntfsrescue::rescue::mapstore::MapStore::open(&ntfsrescue::io::store::LocalStore, &scene.at(&map))
                .unwrap();
        let mut done = Vec::new();
        parsed_map
            .visit(|block| {
                if block.state == State::Finished {
                    done.push(block.range);
                }
            })
            .unwrap();
        let editor = scene.editor();
        let more =
            [0, editor.record_pos(0) / 512, editor.record_pos(70) / 512, editor.bitmap_pos() / 512, first];
        let is_done =
            |sector: &u64| done.iter().any(|range| range.pos <= sector * 512 && sector * 512 < range.end());
        let gone: Vec<_> = more.into_iter().filter(is_done).collect();
        let disk = scene.disk(512, &[&bad[..], &gone].concat());
        let source = text(&disk.path()).to_owned();
        refused(
            &scene,
            &format!("--map {map} -s -O {clone} {source}"),
            &["is ddrescue's and goes with a raw clone"],
        );
        println!("{phase}: {finished} bytes finished, since lost: {gone:?}");
        let report = format!("--report report{no}");
        scene.ours(&format!("--map {map} {report} --no-repair -O {clone} {source}")).ok();
        // What is not in use may have been copied before.
        let (found, volume) = (scene.read(&clone), scene.read("volume"));
        let wanted = scene.marked(&bad);
        for sector in differing(&found, &wanted) {
            let at = sector as usize * 512;
            assert!(found[at..at + 512] == volume[at..at + 512], "{phase}: sector {sector}");
        }
        for sector in &bad {
            assert_eq!(found[*sector as usize * 512..][..10], *b"BadSectoR\0", "{phase}: sector {sector}");
        }
    }
}

/// ddrescue goes on with our map and clone, on the disk's used clusters alone.
#[test]
fn ddrescue_goes_on_with_ours() {
    let (scene, bad) = begun(Form::Clone);
    let disk = scene.disk(512, &bad);
    let source = text(&disk.path()).to_owned();
    scene.ours(&format!("--domain-out domain {source}")).ok();
    scene.ours(&format!("--map whole-map --max-errors 9 -o whole {source}")).ok();
    ddrescue(&scene, &format!("-d -m domain {source} target map")).ok();
    assert_equal(&scene.read("target"), &scene.read("whole"), "by ddrescue");
    assert_equal(&scene.read("target"), &scene.marked(&bad), "marks stay");
    run(Command::new("ddrescuelog").args(["-t", "map"]).current_dir(scene.at(""))).ok();
    // And we with what it has done.
    scene.ours(&format!("--map map -O target {source}")).ok();
    assert_equal(&scene.read("target"), &scene.read("whole"), "and back");
}

#[test]
fn ddrescue_copies_our_domain() {
    let scene = Scene::new();
    scene.ours("--domain-out domain volume").ok();
    ddrescue(&scene, "-m domain volume copy map").ok();
    assert_equal(&scene.read("copy"), &scene.read("healthy"), "copy");
    run(Command::new("ddrescuelog").args(["-D", "-m", "domain", "map"]).current_dir(scene.at(""))).ok();
    // The same with a copy of ours beside it, and of a disk that fails.
    let disk = scene.disk(512, &[scene.sector_of_file(FILE.0)]);
    scene.ours(&format!("--rescue --domain-out domain2 -o clone {}", text(&disk.path()))).ok();
    assert_eq!(scene.read("domain2"), scene.read("domain"));
}

/// A disk that heals: what was lost is read by `--retries`, and nothing else is.
#[test]
fn retries_go_on_with_what_is_lost() {
    for form in Form::BOTH {
        let (scene, bad) = begun(form);
        let args = |source: &str| format!("--map map {} -o target {source}", form.option());
        let disk = scene.disk(512, &bad);
        scene.ours(&args(text(&disk.path()))).ok();
        assert_equal(&scene.content("target", form), &scene.marked(&bad), "all is tried");
        drop(disk);
        // All else has become unreadable since: nobody asks for it.
        let healed = bad[0];
        let lost: Vec<_> = (0..2000)
            .chain(scene.sector_of_file(2)..scene.sector_of_file(2) + 8)
            .chain(bad[1..].to_vec())
            .collect();
        let disk = scene.disk(512, &lost);
        scene.ours(&format!("{} --retries 2", args(text(&disk.path())))).ok();
        let still = bad[1..].to_vec();
        assert!(!still.contains(&healed));
        assert_equal(&scene.content("target", form), &scene.marked(&still), "one has healed");
        assert_complete(&scene, &scene.content("target", form), "healed");
    }
}

/// The volume's contents are those of the files that made it.
#[test]
fn files_come_first() {
    let scene = Scene::new();
    // The wanted file lies behind the first error.
    let disk = scene.disk(512, &[scene.sector_of_file(2)]);
    let path = text(&disk.path()).to_owned();
    assert!(scene.sector_of_file(OTHER_FILE.0) > scene.sector_of_file(2));
    let wanted = noise(OTHER_FILE.0, (OTHER_FILE.0 * 7919 % 30_000) as usize);
    for form in Form::BOTH {
        for (first, is_whole) in
            [("", false), ("--first folder1/file8.bin", true), ("--first */FILE8.*", true)]
        {
            for name in ["map", "target"] {
                let _absent = std::fs::remove_file(scene.at(name));
            }
            let args = format!("--map map {first} --max-errors 1 {} -o target {path}", form.option());
            let said = scene.ours(&args).exits(5);
            if !first.is_empty() {
                said.says("Files that come first: 1");
            }
            let content = scene.content("target", form);
            let at = scene.sector_of_file(OTHER_FILE.0) as usize * 512;
            assert_eq!(content[at..at + wanted.len()] == wanted, is_whole, "{form:?} {first}");
            // The rest is not forgotten.
            scene.ours(&format!("--map map {first} {} -o target {path}", form.option())).ok();
            assert_equal(&scene.content("target", form), &scene.marked(&[scene.sector_of_file(2)]), first);
        }
    }
    scene
        .ours(&format!("--rescue --first nowhere/* -O target {path}"))
        .ok()
        .says("no file that is known matches");
}
