//! Images in numbered parts, for file systems that take no long files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ntfsrescue::io::parts;

use crate::kills::{bad_sectors, moment};
use crate::scene::{Form, Scene};
use crate::tools::{assert_same, len, shell, status_of, text};

const MIB: u64 = 1 << 20;

/// The files of a target, in their order.
fn parts_of(scene: &Scene, name: &str) -> Vec<String> {
    let begins = format!("{name}.0");
    scene.names().into_iter().filter(|file| file.starts_with(&begins)).collect()
}

/// The parts have their lengths, and make the image.
#[track_caller]
fn assert_makes(scene: &Scene, name: &str, image: &str) {
    let wanted = scene.read(image);
    let parts = parts_of(scene, name);
    let nr_wanted = wanted.len().div_ceil(MIB as usize);
    assert_eq!(parts, (1..=nr_wanted).map(|nr| format!("{name}.{nr:03}")).collect::<Vec<_>>());
    let mut found = Vec::new();
    for (nr, part) in parts.iter().enumerate() {
        let part = scene.read(part);
        assert!(part.len() as u64 == MIB || nr + 1 == parts.len(), "part {nr} has {} bytes", part.len());
        found.extend(part);
    }
    assert!(found == wanted, "{name} differs from {image}");
}

#[test]
fn an_image_is_saved_and_read_in_parts() {
    let scene = Scene::new();
    scene.ours("-s -o image volume").ok();
    for save in ["", "--rescue"] {
        scene.ours(&format!("{save} -s --split 1M -o saved volume")).ok();
        assert_makes(&scene, "saved", "image");
        for (from, to) in [("saved.001", "a"), ("saved", "b")] {
            scene.ours(&format!("-r -n {from}")).ok().says("The image's structure is whole.");
            scene.ours(&format!("-r --verify -O {to} {from}")).ok();
            assert_same(&scene.at(to), &scene.at("healthy"));
        }
        shell(&format!("cd {}; cat saved.0* | $OURS -q -r -O c -", text(&scene.at("")))).ok();
        assert_same(&scene.at("c"), &scene.at("healthy"));
        // In the place of one that is longer nothing of that is left.
        std::fs::write(scene.at("saved.009"), "old").unwrap();
        scene.ours(&format!("{save} -s --split 1024K -O saved volume")).ok();
        assert_makes(&scene, "saved", "image");
        // One that is short has one part.
        scene.ours(&format!("{save} -s --split 4294967295 -O saved volume")).ok();
        assert_eq!(parts_of(&scene, "saved"), ["saved.001"]);
        assert_same(&scene.at("saved.001"), &scene.at("image"));
        scene.ours("-r -O a saved.001").ok();
        assert_same(&scene.at("a"), &scene.at("healthy"));
        std::fs::remove_file(scene.at("saved.001")).unwrap();
    }
    scene.ours("-m -s -o image2 volume").ok();
    scene.ours("-m -s --split 1M -o saved volume").ok();
    assert_makes(&scene, "saved", "image2");
}

#[test]
fn what_is_there_is_not_taken_for_a_new_image() {
    let scene = Scene::new();
    let before = scene.names();
    for (there, message) in [
        ("new", "output file 'new' already exists"),
        ("new.001", "output file 'new.001' already exists"),
        ("new.017", "output file 'new.017' already exists"),
        ("new.part", "'new.part' is there, and not in parts"),
        ("new.part.002", "'new.part.002' is an unfinished copy of an earlier run"),
    ] {
        std::fs::write(scene.at(there), "there").unwrap();
        scene.ours("-s --split 1M -o new volume").exits(1).says(message);
        assert_eq!(scene.read(there), b"there");
        std::fs::remove_file(scene.at(there)).unwrap();
        assert_eq!(scene.names(), before);
    }
    // The source under the name of a part.
    std::fs::hard_link(scene.at("volume"), scene.at("new.002")).unwrap();
    scene.ours("-s --split 1M -O new volume").exits(1).says("are on the same device or file");
    std::fs::remove_file(scene.at("new.002")).unwrap();
    scene.ours("-s --split 1M -o new volume").ok();
    for file in ["new.001", "new.003"] {
        scene.ours(&format!("-r -O {file} new.001")).exits(1).says("are on the same device or file");
    }
    // More parts than there are numbers.
    std::fs::File::create(scene.at("large")).unwrap().set_len(3000 * MIB).unwrap();
    shell(&format!("mkntfs -F -Q -q {}", text(&scene.at("large")))).ok();
    let editor = crate::edit::Editor::open(&scene.at("large"));
    let nr_used = 1100 * MIB / 4096;
    editor.mark(editor.free_clusters(1000, nr_used), nr_used, true);
    drop(editor);
    for save in ["-f --rescue", "--rescue --map map"] {
        let said = scene.ours(&format!("{save} -s --split 1M -o many large")).exits(1);
        said.says("'many' would have 1").says("parts, but 999 are the most");
        assert!(!scene.at("many.part.001").exists());
        let _map = std::fs::remove_file(scene.at("map"));
        let _plan = std::fs::remove_file(scene.at("map.plan"));
    }
}

#[test]
fn damaged_parts_are_named() {
    let scene = Scene::new();
    scene.ours("-s --split 1M -o image volume").ok();
    let parts = parts_of(&scene, "image");
    let last = parts.last().unwrap().clone();
    assert!(parts.len() > 3, "{parts:?}");
    let check = |message: &str| {
        for line in ["-r -n image", "-r -n image.001", "-r -O new image", "-r -o new image.001"] {
            scene.ours(line).exits(1).says(message);
            assert!(!scene.at("new").exists() && !scene.at("new.part").exists());
        }
    };
    let set_len = |name: &str, len| {
        let file = std::fs::OpenOptions::new().write(true).open(scene.at(name)).unwrap();
        file.set_len(len).unwrap();
    };
    let last_len = len(&scene.at(&last));
    set_len(&last, last_len - 1);
    check(&format!("its last part is '{last}'"));
    set_len(&last, MIB + 1);
    check(&format!("the part '{last}' of the image has 1048577 bytes, wanted 1048576"));
    std::fs::remove_file(scene.at(&last)).unwrap();
    check(&format!("its last part is '{}'", parts[parts.len() - 2]));
    set_len("image.002", 7);
    check("the part 'image.002' of the image has 7 bytes, wanted 1048576: it is damaged");
    std::fs::remove_file(scene.at("image.002")).unwrap();
    check("the part 'image.002' of the image is missing, but 'image.003' is there");
}

/// A rescue to parts of 1 MiB.
fn command(scene: &Scene, target: &str, source: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ntfsrescue"));
    let args = format!("-q --map map --map-interval 0 -s --split 1M {target} {source}");
    command.args(args.split_whitespace()).current_dir(scene.at(""));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn remove(scene: &Scene, begins: &[&str]) {
    let is_one = |name: &String| begins.iter().any(|begin| name.starts_with(begin));
    scene.names().iter().filter(|name| is_one(name)).for_each(|name| {
        std::fs::remove_file(scene.at(name)).unwrap();
    });
}

#[test]
fn a_rescue_to_parts_survives_kills() {
    let scene = Scene::new();
    let disk = scene.disk(512, &bad_sectors(&scene));
    let source = text(&disk.path()).to_owned();
    scene.ours(&format!("--rescue -s -o whole {source}")).ok();
    for (target, name) in [("-o image", "image"), ("-O image.part", "image.part")] {
        remove(&scene, &["image", "map"]);
        let start = Instant::now();
        command(&scene, target, &source).output().unwrap();
        let mut takes = start.elapsed();
        assert_makes(&scene, name, "whole");
        let (mut nr_kills, mut nr_done) = (0, 0);
        let start = Instant::now();
        while nr_kills < 60 && start.elapsed() < Duration::from_secs(5) {
            remove(&scene, &["image", "map"]);
            loop {
                let mut child = command(&scene, target, &source).spawn().unwrap();
                std::thread::sleep(moment(nr_kills + 1000 * nr_done, takes));
                let _ended = child.kill();
                let ended = child.wait_with_output().unwrap();
                if status_of(ended.status) == 0 {
                    takes = takes * 9 / 10;
                    break;
                }
                assert_eq!(status_of(ended.status), 137, "{}", String::from_utf8_lossy(&ended.stdout));
                nr_kills += 1;
                takes = takes * 52 / 50;
            }
            nr_done += 1;
            assert_makes(&scene, name, "whole");
        }
        println!("{target}: {takes:?} a run, {nr_kills} kills, {nr_done} results");
        assert!(nr_kills > 5 && nr_done > 1, "too slow to tell anything");
    }
    // Under the name that somebody else gives it at last.
    let at = |name: &str| -> PathBuf { scene.at(name) };
    parts::rename_all(&at("image.part"), &at("image")).unwrap();
    assert!(parts::exists(&at("image")) && !parts::exists(&at("image.part")));
    assert_makes(&scene, "image", "whole");
    // What was rescued is all there: nothing is left to read.
    scene.ours("-r -O restored image").ok();
    let wanted = scene.content("whole", Form::Image);
    assert!(scene.read("restored") == wanted);
    assert_eq!(len(Path::new(&at("restored"))), wanted.len() as u64);
}

#[test]
fn going_on_wants_the_same_parts() {
    let scene = Scene::new();
    let disk = scene.disk(512, &bad_sectors(&scene));
    let source = text(&disk.path()).to_owned();
    scene.ours(&format!("--rescue -s -o whole {source}")).ok();
    let begin = || {
        remove(&scene, &["image", "map"]);
        let said = scene.ours(&format!("--map map --max-errors 1 -s --split 1M -o image {source}"));
        said.exits(5);
        assert!(scene.at("image.001").exists() && !scene.at("image.part.001").exists());
    };
    begin();
    let go_on = |split: &str| scene.ours(&format!("--map map -s {split} -o image {source}"));
    go_on("").exits(1).says("'image.001' is there, the first part of an image: give --split as before");
    go_on("--split 2M").exits(1).says("'image.001' has 1048576 bytes, but parts of 2097152 are asked for");
    go_on("--split 1M").ok();
    assert_makes(&scene, "image", "whole");
    // A kill between two names.
    begin();
    for part in parts_of(&scene, "image") {
        if !part.ends_with('3') {
            std::fs::rename(scene.at(&part), scene.at(&part.replace("image", "image.part"))).unwrap();
        }
    }
    go_on("--split 1M").ok();
    assert_makes(&scene, "image", "whole");
    // Without the disk.
    begin();
    scene.ours("--finish map image").exits(1).says("give --split as before");
    scene.ours("--finish map --split 1M image").ok();
    go_on("--split 1M").ok();
    assert_makes(&scene, "image", "whole");
    std::fs::remove_file(scene.at("image.002")).unwrap();
    go_on("--split 1M").exits(1).says("the part 'image.002' of the image is missing");
}
