//! `--verify`: what was restored is read back from the medium and compared with the image.

use std::path::Path;
use std::process::Command;

use crate::faulty::FaultyDisk;
use crate::tools::{Loop, Said, assert_same, ntfsclone, ours, run, shell, text};
use crate::volumes::{Place, small_volume};

const SIZE: u64 = 24 << 20;

const SAME: &str = "The target holds what the image holds.";

/// A volume and its image.
fn scene() -> Place {
    let place = Place::new();
    small_volume(&place.at("volume"));
    ours(["-q", "-s", "-o", text(&place.at("image")), text(&place.at("volume"))]).ok();
    ours(["-q", "-o", text(&place.at("wanted")), text(&place.at("volume"))]).ok();
    place
}

fn empty(path: &Path) {
    std::fs::File::create(path).unwrap().set_len(SIZE).unwrap();
}

#[test]
fn good_targets() {
    let place = scene();
    let at = |name| place.at(name);
    let image = text(&at("image")).to_owned();
    let check =
        |said: Said| assert!(said.ok().says("Comparing the target with the image ...").stdout.contains(SAME));
    check(ours(["-r", "--verify", "-o", text(&at("new")), &image]));
    assert_same(&at("new"), &at("wanted"));
    check(ours(["-r", "--verify", "-O", text(&at("new")), &image]));
    for sector_size in [512, 4096] {
        empty(&at("disk"));
        let disk = Loop::attach(&at("disk"), sector_size);
        check(ours(["-r", "--verify", "-O", text(&disk.0), &image]));
        // What differs on purpose is compared as it was written.
        check(ours(["-r", "--verify", "--new-serial", "-O", text(&disk.0), &image]));
        check(ours(["-r", "--verify", "--new-half-serial", "-O", text(&disk.0), &image]));
        drop(disk);
        let said = run(Command::new("cmp").arg("-l").arg(at("disk")).arg(at("wanted"))).exits(1);
        assert!(said.stdout.lines().count() <= 8, "{}", said.stdout);
    }
    // In ntfsclone's images of metadata clusters come in the order of files, and some more than once.
    ntfsclone(["-q", "-m", "-s", "-o", text(&at("metadata")), text(&at("volume"))]).ok();
    check(ours(["-r", "--verify", "-O", text(&at("new")), text(&at("metadata"))]));
    let quiet = ours(["-r", "-O", text(&at("new")), &image]).ok();
    assert!(!quiet.stdout.contains("Comparing"), "{}", quiet.stdout);
    for options in ["--verify --no-verify", "--no-verify --verify --verify"] {
        let said = shell(&format!("$OURS -r {options} -O {} {image}", text(&at("new")))).ok();
        assert!(!said.stdout.contains("Comparing"), "{}", said.stdout);
    }
    let events =
        shell(&format!("$OURS -q -r --verify --events 3 -O {} {image} 3>&1 >/dev/null", text(&at("new"))));
    let phases: Vec<_> = events.stdout.lines().filter(|line| line.starts_with("phase ")).collect();
    let wanted = ["check", "restore", "sync", "verify"].map(|name| format!("phase name={name}"));
    assert_eq!(phases, wanted);
}

#[test]
fn a_disk_that_loses_what_is_written() {
    let place = scene();
    // The kernel's cache holds what was written, the disk holds zeros.
    let disk = FaultyDisk::forgetful(&place.at("disk"), SIZE);
    let (disk, image) = (text(&disk.path()).to_owned(), text(&place.at("image")).to_owned());
    ours(["-q", "-r", "-O", &disk, &image]).ok();
    let said = ours(["-r", "--verify", "-O", &disk, &image]).exits(1);
    let said = said.says("bytes at byte 0 (0x0) differ from the image");
    assert!(said.stdout.contains(&format!("ERROR: '{disk}' is no copy of the image: of what that holds")));
    assert!(said.stdout.contains("and 0 cannot be read"), "{}", said.stdout);
    assert!(!said.stdout.contains(SAME));
}

#[test]
fn a_target_that_cannot_be_read() {
    let place = scene();
    empty(&place.at("disk"));
    // In the MFT and in the backup of the boot sector; both can be written, but not read back.
    let disk = FaultyDisk::new(&place.at("disk"), 512, &[35, SIZE / 512 - 1]);
    let said = ours(["-r", "--verify", "-O", text(&disk.path()), text(&place.at("image"))]).exits(1);
    let said = said.says("WARNING: 4096 bytes at byte 16384 (0x4000) of the target cannot be read");
    let said = said.says(&format!("WARNING: 4096 bytes at byte {0} ({0:#x}) of the target", SIZE - 4096));
    // QEMU mixes up writes that come together from FUSE, so how much differs is not for sure.
    said.says("bytes differ and 8192 cannot be read");
}
