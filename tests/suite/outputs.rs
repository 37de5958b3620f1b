//! Outputs that are no plain files: `/dev/null`, a FIFO, `/dev/stdout`, `/dev/fd/3`.
//!
//! Accepted differences from ntfsclone:
//! - a raw clone into `/dev/null` or a FIFO fails there, because it cannot set the length; ours writes zeros for gaps;
//! - with `-O /dev/stdout` it writes messages among the data; ours then writes them to standard error.

use std::path::Path;
use std::process::Command;

use crate::tools::{Said, assert_same, occupied, ours, run, shell, text, unmount};
use crate::volumes::{Place, fill, mkntfs, small_volume};

/// A folder with `volume`, its `image` and its clone `plain`, and a FIFO.
struct Scene(Place);

impl Scene {
    fn new() -> Scene {
        let place = Place::new();
        mkntfs(&place.at("volume"), 8 << 20, 512, 4096);
        fill(&place.at("volume"), 20);
        ours(["-q", "-s", "--no-checksum", "-o", text(&place.at("image")), text(&place.at("volume"))]).ok();
        ours(["-q", "-o", text(&place.at("plain")), text(&place.at("volume"))]).ok();
        run(Command::new("mkfifo").arg(place.at("fifo"))).ok();
        Scene(place)
    }

    /// Runs a command line in the folder, in which `$P` is the program; a FIFO that nobody opens ends it.
    fn run(&self, program: &str, line: &str) -> Said {
        let folder = text(&self.0.at("")).to_owned();
        shell(&format!("cd {folder}; P='timeout 20 {program}'; {line}"))
    }
}

const OURS: &str = env!("CARGO_BIN_EXE_ntfsrescue");

#[test]
fn what_exists_is_no_new_file() {
    let scene = Scene::new();
    for target in ["/dev/null", "/dev/stdout", "/dev/fd/3", "fifo", "image"] {
        for options in ["", "-s"] {
            for program in [OURS, "ntfsclone"] {
                let line = format!("$P {options} -o {target} volume 3> other | cat");
                scene.run(program, &line).exits(1).says("already exists");
            }
        }
    }
}

#[test]
fn images() {
    let scene = Scene::new();
    for program in [&format!("{OURS} --no-checksum"), "ntfsclone"] {
        for line in [
            "$P -q -s -O /dev/null volume; cp image got",
            "timeout 20 cat fifo > got & $P -q -s -O fifo volume; wait $!",
            "$P -q -s -O /dev/fd/3 volume 3> got",
            "$P -q -s -O /dev/fd/3 volume 3>&1 > messages | cat > got",
            "$P -q -s -O link volume",
        ] {
            println!("{program}: {line}");
            let place = &scene.0;
            if line.contains("link") {
                std::os::unix::fs::symlink("got", place.at("link")).unwrap();
            }
            scene.run(program, line).ok();
            assert_same(&place.at("got"), &place.at("image"));
            let _none = std::fs::remove_file(place.at("link"));
        }
    }
}

#[test]
fn raw_clones() {
    let scene = Scene::new();
    for line in [
        "timeout 20 cat fifo > got & $P -q -O fifo volume; wait $!",
        "timeout 20 cat fifo > got & $P -q -r -O fifo image; wait $!",
        "timeout 20 cat fifo > got & $P -q -r -O fifo - < image; wait $!",
        "$P -q -O /dev/fd/3 volume 3> got",
        "$P -q -r -O /dev/fd/3 - < image 3> got",
        "$P -q -O /dev/fd/3 volume 3>&1 > messages | cat > got",
        "$P -q -O /dev/stdout volume > got",
        "$P -q -r -O /dev/stdout image | cat > got",
    ] {
        println!("{line}");
        scene.run(OURS, line).ok();
        assert_same(&scene.0.at("got"), &scene.0.at("plain"));
    }
    scene.run(OURS, "$P -q -O /dev/null volume").ok();
    scene.run(OURS, "$P -q -r -O /dev/null image").ok();
    // In a file the gaps are holes under these names too.
    scene.run(OURS, "$P -q -O /dev/fd/3 volume 3> got").ok();
    assert!(occupied(&scene.0.at("got")) < 5 << 20);
    // What ntfsclone does with them.
    scene.run("ntfsclone", "$P -q -O /dev/fd/3 volume 3> got").ok();
    assert_same(&scene.0.at("got"), &scene.0.at("plain"));
    scene.run("ntfsclone", "$P -q -O /dev/null volume").exits(1).says("ftruncate");
}

#[test]
fn messages_go_elsewhere() {
    let scene = Scene::new();
    let lines = [
        "$P -s --no-checksum -O /dev/stdout volume",
        "$P -O /dev/stdout volume",
        "$P -r -O /dev/stdout image",
    ];
    for (line, wanted) in lines.into_iter().zip(["image", "plain", "plain"]) {
        for to in ["> got", "| cat > got"] {
            let said = scene.run(OURS, &format!("{line} {to}")).ok();
            assert!(said.stderr.contains("100.00 percent completed"), "{}", said.stderr);
            assert_same(&scene.0.at("got"), &scene.0.at(wanted));
        }
    }
}

/// A file system of a megabyte, unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> SmallDisk {
        std::fs::create_dir(at).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(at)).ok();
        SmallDisk(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

#[test]
fn no_room() {
    let place = Place::new();
    small_volume(&place.at("volume"));
    ours(["-q", "-s", "-o", text(&place.at("image")), text(&place.at("volume"))]).ok();
    let disk = SmallDisk::mount(&place.at("disk"));
    let (volume, image, new) = (place.at("volume"), place.at("image"), disk.0.join("new"));
    let volume = text(&volume);
    for args in [
        &["-o", text(&new), volume][..],
        &["-s", "-o", text(&new), volume],
        &["-O", text(&new), volume],
        &["-r", "-o", text(&new), text(&image)],
        &["-m", "--full-logfile", "-o", text(&new), volume],
        &["-m", "--full-logfile", "-s", "-o", text(&new), volume],
    ] {
        println!("{args:?}");
        ours(args).exits(1).says("no room for").says("bytes free, but");
        assert_eq!(disk.0.read_dir().unwrap().count(), 0);
    }
    // The room that counts is where a link leads to: too little, or enough.
    let link = place.at("link");
    std::fs::write(&new, "what was there").unwrap();
    std::os::unix::fs::symlink(&new, &link).unwrap();
    ours(["-O", text(&link), volume]).exits(1).says("no room for");
    assert_eq!(std::fs::read(&new).unwrap(), b"what was there");
    std::fs::remove_file(&new).unwrap();
    std::fs::write(place.at("large"), "").unwrap();
    std::os::unix::fs::symlink(place.at("large"), &new).unwrap();
    ours(["-q", "-O", text(&new), volume]).ok();
    // A device that always says it is full.
    let said = ours(["-s", "-O", "/dev/full", volume]).exits(1);
    said.says("cannot write").says("of '/dev/full': No space left on device");
}
