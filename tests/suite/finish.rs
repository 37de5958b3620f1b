//! Completing a target without its disk, wherever the rescue has ended, and going on with the disk after that.

use std::time::Duration;

use crate::budgets::assert_complete;
use crate::faulty::FaultyDisk;
use crate::kills::{bad_sectors, command, finished_is_there, moment, remove_all};
use crate::scene::{Form, Scene, assert_equal};
use crate::tools::{Loop, text};

/// An image has checksums, which are right.
#[track_caller]
fn assert_sums(scene: &Scene, form: Form) {
    if form == Form::Image {
        scene.ours("-r -n target").ok().says("Its checksums are right");
    }
}

/// What the target of a killed rescue is made into, at several moments.
fn finishes_after_kills(form: Form) {
    let scene = Scene::new();
    let bad = bad_sectors(&scene);
    let volume = scene.read("volume");
    let slow = FaultyDisk::slow(&scene.at("volume"), 512, &bad, 8 << 20);
    let source = text(&slow.path()).to_owned();
    scene.ours(&format!("--rescue {} -O whole {source}", form.option())).ok();
    let whole = scene.read("whole");
    let (mut nr_tried, mut nr_finished) = (0, 0);
    while nr_finished < 5 {
        nr_tried += 1;
        assert!(nr_tried < 50, "always too soon or too late");
        remove_all(&scene);
        let mut child = command(&scene, form, &source).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300) + moment(nr_tried, Duration::from_millis(900)));
        let _ended = child.kill();
        if child.wait().unwrap().success() || !scene.at("target.part").exists() {
            continue;
        }
        nr_finished += 1;
        let told = format!("{form:?}, kill {nr_tried}");
        let before = finished_is_there(&scene, &volume, "target", "map").unwrap();
        scene.ours("--finish map target").ok();
        assert!(scene.at("target").exists() && !scene.at("target.part").exists(), "{told}");
        let complete = scene.read("target");
        assert_sums(&scene, form);
        assert_eq!(finished_is_there(&scene, &volume, "target", "map").unwrap(), before, "{told}");
        assert_complete(&scene, &scene.content("target", form), &told);
        // Twice is the same.
        scene.ours("--finish map target").ok();
        assert_equal(&scene.read("target"), &complete, &told);
        assert_sums(&scene, form);
        // With the disk it goes on all the same.
        let args = format!("--map map {} -o target {source}", form.option());
        scene.ours(&args).ok();
        assert_equal(&scene.read("target"), &whole, &told);
        // And once all was tried, there is nothing to do.
        scene.ours("--finish map target").ok();
        assert_equal(&scene.read("target"), &whole, &told);
    }
}

#[test]
fn the_clone_of_a_killed_rescue() {
    finishes_after_kills(Form::Clone);
}

#[test]
fn the_image_of_a_killed_rescue() {
    finishes_after_kills(Form::Image);
}

/// On a device; and what is refused.
#[test]
fn a_device() {
    let scene = Scene::new();
    let bad = bad_sectors(&scene);
    let disk = scene.disk(512, &bad);
    std::fs::write(scene.at("device"), vec![0x11; 26 << 20]).unwrap();
    let device = Loop::attach(&scene.at("device"), 512);
    let target = text(&device.0).to_owned();
    let args = format!("--map map -O {target} {}", text(&disk.path()));
    scene.ours(&format!("--finish map {target}")).exits(1).says("there is no map 'map'");
    scene.ours(&format!("{args} --max-errors 1")).exits(5);
    scene.ours(&format!("--finish map {target}")).ok();
    scene.ours(&format!("--finish map -o x {target}")).exits(1).says("--finish needs nothing but");
    scene.ours("--finish map absent").exits(1).says("'absent' is not there, but its map is");
    scene.ours(&args).ok();
    scene.ours(&format!("--rescue -o whole {}", text(&disk.path()))).ok();
    drop(device);
    let (found, whole, volume) = (scene.read("device"), scene.read("whole"), scene.read("volume"));
    for (i, sector) in found.chunks(512).enumerate() {
        let at = i * 512..i * 512 + 512;
        let is_of = |other: &[u8]| other.get(at.clone()) == Some(sector);
        // What is not in use is untouched.
        assert!(
            is_of(&whole)
                || (is_of(&vec![0x11; found.len()])
                    && (i * 512 >= whole.len() || whole[at.clone()] == [0; 512])),
            "sector {i}"
        );
    }
    assert_eq!(volume.len(), whole.len());
}
