//! What a rescue tells, in its report and while it runs: the damaged files are those that read differently.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::damage::contents;
use crate::scene::{FILE, Form, OTHER_FILE, Scene, assert_equal};
use crate::tools::{shell, text};

/// The report, as JSON.
fn report(scene: &Scene) -> Value {
    serde_json::from_slice(&scene.read("report")).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// The files of two volumes that read differently, through ntfs-3g.
fn differing_files(scene: &Scene, clone: &str) -> BTreeSet<String> {
    let (good, bad) = (contents(&scene.at("healthy")), contents(&scene.at(clone)));
    good.iter()
        .filter(|(path, content)| bad.get(*path) != Some(content))
        .map(|(path, _)| path.clone())
        .collect()
}

#[test]
fn the_report_names_what_was_lost() {
    let scene = Scene::new();
    let editor = scene.editor();
    let (one, other, third) =
        (scene.sector_of_file(FILE.0), scene.sector_of_file(OTHER_FILE.0), scene.sector_of_file(2));
    let bad = [0, editor.record_pos(2) / 512, one, one + 1, other + 3, third + 20, editor.total_sectors - 1];
    let disk = scene.disk(512, &bad);
    for form in Form::BOTH {
        scene.ours(&format!("--report report {} -O target {}", form.option(), text(&disk.path()))).ok();
        let report = report(&scene);
        assert_eq!((&report["outcome"], &report["exit_status"]), (&"complete".into(), &0.into()), "{report}");
        assert_eq!(number(&report["disk"]["size"]), 24 << 20);
        assert_eq!(report["disk"]["device"], text(&disk.path()));
        assert_eq!(report["volume"]["label"], "Prüfung");
        assert_eq!(report["volume"]["cluster_size"], 4096);
        let bytes = &report["bytes"];
        let lost = bad.len() as u64 - u64::from(!is_in_use(&scene, bad[6]));
        assert_eq!((number(&bytes["bad"]), number(&bytes["repaired"])), (lost * 512, 1024), "{bytes}");
        let states = ["finished", "non_tried", "non_trimmed", "non_scraped", "bad"];
        assert_eq!(states.map(|state| number(&bytes[state])).iter().sum::<u64>(), number(&bytes["used"]));
        assert_eq!(number(&bytes["non_tried"]), 0);
        let repaired = report["repaired"].as_array().unwrap();
        let repaired: Vec<_> =
            repaired.iter().map(|entry| (number(&entry["pos"]) / 512, number(&entry["len"]))).collect();
        assert_eq!(repaired, [(bad[0], 512), (bad[1], 512)]);
        assert_eq!(report["lost_records"]["count"], 0, "{}", report["lost_records"]);
        let areas = report["bad_areas"].as_array().unwrap();
        let areas: Vec<_> =
            areas.iter().map(|area| (number(&area["pos"]) / 512, number(&area["len"]) / 512)).collect();
        assert_eq!(areas.iter().map(|(_, len)| len).sum::<u64>(), lost);
        assert!(areas.contains(&(one, 2)) && areas.contains(&(other + 3, 1)), "{areas:?}");

        if form == Form::Image {
            std::fs::write(scene.at("target"), scene.restored("target")).unwrap();
        }
        let told: BTreeSet<_> = report["damaged_files"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|file| file["kind"] == "file")
            .map(|file| file["path"].as_str().unwrap().trim_start_matches('/').to_owned())
            .collect();
        let differing: BTreeSet<_> = differing_files(&scene, "target")
            .iter()
            .map(|path| path.trim_start_matches('/').to_owned())
            .collect();
        assert_eq!(told, differing, "{}", report["damaged_files"]);
        assert_eq!(told.len(), 3);
        let of_file = |path: &str| {
            let files = report["damaged_files"].as_array().unwrap();
            let file = files.iter().find(|file| file["path"].as_str().unwrap().ends_with(path));
            number(&file.unwrap()["bytes"])
        };
        assert_eq!((of_file(FILE.1), of_file(OTHER_FILE.1)), (1024, 512));
    }
}

fn is_in_use(scene: &Scene, sector: u64) -> bool {
    let editor = scene.editor();
    let lcn = sector / 8;
    lcn >= editor.nr_clusters() || editor.read(editor.bitmap_pos() + lcn / 8, 1)[0] >> (lcn % 8) & 1 == 1
}

#[test]
fn the_report_of_an_early_end() {
    let scene = Scene::new();
    let bad = [scene.editor().record_pos(70) / 512, scene.sector_of_file(2)];
    let disk = scene.disk(512, &bad);
    let args = format!("--report report --map map -o target {}", text(&disk.path()));
    scene.ours(&format!("{args} --max-errors 1")).exits(5);
    let early = report(&scene);
    assert_eq!((&early["outcome"], &early["exit_status"]), (&"budget used up".into(), &5.into()));
    let bytes = &early["bytes"];
    assert!(number(&bytes["non_tried"]) > 0 && number(&bytes["finished"]) > 0, "{bytes}");
    scene.ours(&format!("{args} --strict")).exits(3);
    let whole = report(&scene);
    assert_eq!((&whole["outcome"], &whole["exit_status"]), (&"complete".into(), &3.into()));
    assert_eq!(whole["lost_records"]["count"], 1);
    assert_eq!(whole["lost_records"]["first"], serde_json::json!([70]));
    assert_eq!(number(&whole["bytes"]["bad"]), 1024);
    // Nothing is damaged, and the report says so.
    drop(disk);
    scene.ours("--report report --strict -O clone volume").ok();
    let healthy = report(&scene);
    assert_eq!(healthy["damaged_files"], serde_json::json!([]));
    assert_eq!(healthy["bad_areas"], serde_json::json!([]));
}

/// What is written from copies is no loss.
#[test]
fn what_is_repaired_is_not_lost() {
    let scene = Scene::new();
    let editor = scene.editor();
    for sector in [0, editor.record_pos(0) / 512, editor.record_pos(1) / 512 + 1, editor.record_pos(3) / 512]
    {
        let disk = scene.disk(512, &[sector]);
        let args = format!("--report report --strict -O target {}", text(&disk.path()));
        scene.ours(&args).ok();
        let report = report(&scene);
        assert_eq!(report["lost_records"]["count"], 0, "sector {sector}");
        assert_eq!(number(&report["repaired"][0]["pos"]), sector * 512);
        scene.ours(&format!("{args} --no-repair")).exits(3);
    }
}

#[test]
fn events_go_to_whoever_wants_them() {
    let scene = Scene::new();
    let bad = scene.sector_of_file(FILE.0);
    let disk = scene.disk(512, &[bad]);
    let (source, at) = (text(&disk.path()).to_owned(), |name| text(&scene.at(name)).to_owned());
    let (clone, events) = (at("clone"), at("events"));
    shell(&format!("$OURS -q --rescue --events 3 -O '{clone}' '{source}' 3>'{events}'")).ok();
    let events = String::from_utf8(scene.read("events")).unwrap();
    let place = |event: &str| events.find(event).unwrap_or_else(|| panic!("no {event} in\n{events}"));
    let order = ["phase name=survey\n", "phase name=rescue\n", "rescue pass=", "phase name=mark\n"];
    assert!(order.map(place).is_sorted(), "{events}");
    place(&format!("lost pos={} len=512\n", bad * 512));
    let last = events.lines().rfind(|line| line.starts_with("rescue ")).unwrap();
    assert!(last.contains("pass=done ") && last.contains(" bad_areas=1 bad_bytes=512 "), "{last}");
    let said = shell(&format!("$OURS --rescue --events 77 -O '{clone}' '{source}'")).exits(1);
    said.says("cannot write events to descriptor 77");
}

#[test]
fn free_space_is_read_if_it_is_wanted() {
    let scene = Scene::new();
    let editor = scene.editor();
    // A free cluster with something in it, and one that cannot be read.
    let volume = scene.read("volume");
    let is_free = |cluster: &u64| !is_in_use(&scene, cluster * 8);
    let free: Vec<_> = (0..editor.total_sectors / 8).filter(is_free).collect();
    let (full, bad) = (free[free.len() / 2], free[free.len() / 3] * 8 + 3);
    editor.write(full * 4096, b"left over from a file that was deleted");
    let disk = scene.disk(512, &[bad]);
    scene.ours(&format!("--whole --map map -o clone {}", text(&disk.path()))).ok();
    let mut wanted = volume;
    let at = full as usize * 4096;
    wanted[at..at + 38].copy_from_slice(b"left over from a file that was deleted");
    let at = bad as usize * 512;
    wanted[at..at + 512].fill(b'?');
    wanted[at..at + 10].copy_from_slice(b"BadSectoR\0");
    assert_equal(&scene.read("clone"), &wanted, "the whole volume");
}
