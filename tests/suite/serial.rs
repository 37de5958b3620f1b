//! New serial numbers: they lie in the boot sector and in its backup, and nothing else changes.
//!
//! Accepted differences from ntfsclone:
//! - it takes the device's last sector for the backup: in a partition longer than the volume it leaves the backup as
//!   it is, and without a backup it changes eight bytes of the last cluster. Ours changes what names itself a backup.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;

use crate::edit::Editor;
use crate::tools::{Loop, Said, assert_same, len, ntfsclone, ours, run, shell, text};
use crate::volumes::{Mounted, Place, fill, mkntfs};

const SIZE: u64 = 8 << 20;

/// Where the number lies in a boot sector.
const SERIAL: u64 = 0x48;

/// The words of eight bytes in which the second file differs from the first: the place of each, and what is there now.
#[track_caller]
fn changed(before: &Path, after: &Path) -> Vec<(u64, u64)> {
    assert_eq!(len(before), len(after), "length of {} and {}", before.display(), after.display());
    let [before, after] = [before, after].map(|path| std::fs::read(path).unwrap());
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let pairs = before.chunks(8).zip(after.chunks(8)).zip((0..).step_by(8));
    pairs.filter(|((a, b), _)| a != b).map(|((_, b), pos)| (pos, word(b))).collect()
}

/// The number that a run told of: once, and no other.
#[track_caller]
fn told(said: &Said) -> u64 {
    let lines = said.stdout.lines().chain(said.stderr.lines());
    let numbers: Vec<_> = lines.filter_map(|line| line.strip_prefix("New serial number      : 0x")).collect();
    assert_eq!(numbers.len(), 1, "stdout:\n{}\nstderr:\n{}", said.stdout, said.stderr);
    u64::from_str_radix(numbers[0], 16).unwrap()
}

/// The copy differs from the plain one in the number at these boot sectors, which is the one that the run told of.
#[track_caller]
fn assert_renewed(said: &Said, plain: &Path, copy: &Path, places: &[u64]) {
    let number = told(said);
    let wanted: Vec<_> = places.iter().map(|pos| (pos + SERIAL, number)).collect();
    assert_eq!(changed(plain, copy), wanted);
}

fn serial_of(volume: &Path) -> u64 {
    u64::from_le_bytes(Editor::open(volume).read(SERIAL, 8).try_into().unwrap())
}

#[test]
fn sectors_clusters_and_ends_of_the_partition() {
    for (sector_size, cluster_size) in [
        (512, 512),
        (512, 4096),
        (512, 65536),
        (4096, 4096),
        (4096, 65536),
        (1024, 1024),
        (1024, 8192),
        (256, 256),
        (256, 4096),
    ] {
        let place = Place::new();
        let at = |name| place.at(name);
        mkntfs(&at("volume"), SIZE, sector_size, cluster_size);
        let editor = Editor::open(&at("volume"));
        let backup = editor.total_sectors * editor.sector_size;
        // mkntfs writes no backup of a boot sector that is longer than a sector.
        let both = if sector_size < 512 { vec![0] } else { vec![0, backup] };
        let file = OpenOptions::new().write(true).open(at("volume")).unwrap();
        for (size, places) in
            [(SIZE, &both[..]), (SIZE + 5000, &both), (SIZE + (1 << 20), &both), (backup, &[0])]
        {
            println!("sectors of {sector_size}, clusters of {cluster_size}, {size} bytes");
            file.set_len(size).unwrap();
            let (volume, image, copy) = (at("volume"), at("image"), at("copy"));
            ours(["-q", "-O", text(&at("plain")), text(&volume)]).ok();
            ours(["-q", "-s", "-O", text(&image), text(&volume)]).ok();
            let cloned = ours(["-q", "--new-serial", "-O", text(&copy), text(&volume)]).ok();
            assert_renewed(&cloned, &at("plain"), &copy, places);
            let restored = ours(["-q", "--new-serial", "-r", "-O", text(&copy), text(&image)]).ok();
            assert_renewed(&restored, &at("plain"), &copy, places);
            assert_ne!(told(&cloned), told(&restored));
            // ntfsclone changes the same places, as long as the device ends as the volume does.
            if size == SIZE && sector_size >= 512 {
                let (plain, copy) = (at("their-plain"), at("their-copy"));
                ntfsclone(["-q", "-o", text(&plain), text(&volume)]).ok();
                let said = ntfsclone(["-q", "--new-serial", "-o", text(&copy), text(&volume)]).ok();
                assert_renewed(&said, &plain, &copy, places);
            }
        }
    }
}

#[test]
fn every_way_from_and_to() {
    let place = Place::new();
    let at = |name| place.at(name);
    let (volume, plain, copy) = (at("volume"), at("plain"), at("copy"));
    mkntfs(&volume, SIZE, 512, 4096);
    fill(&volume, 20);
    ours(["-q", "-o", text(&plain), text(&volume)]).ok();
    ours(["-q", "-s", "-o", text(&at("ours.img")), text(&volume)]).ok();
    ntfsclone(["-q", "-s", "-o", text(&at("theirs.img")), text(&volume)]).ok();
    let places = [0, SIZE - 512];
    let (source, target) = (text(&volume), text(&copy));
    let mut runs = vec![
        format!("$OURS -q --new-serial -O {target} {source}"),
        format!("$OURS -q --new-serial -o - {source} > {target}"),
        format!("$OURS -q --new-serial -o - {source} | cat > {target}"),
    ];
    for image in ["ours.img", "theirs.img"] {
        let image = text(&at(image)).to_owned();
        runs.push(format!("$OURS -q --new-serial -r -O {target} {image}"));
        runs.push(format!("cat {image} | $OURS -q --new-serial -r -O {target} -"));
        runs.push(format!("cat {image} | $OURS -q --new-serial -r -o - - | cat > {target}"));
    }
    for line in runs {
        println!("{line}");
        assert_renewed(&shell(&line).ok(), &plain, &copy, &places);
    }

    // On a device.
    for args in [&["-O"][..], &["-r", "-O"]] {
        std::fs::File::create(&copy).unwrap().set_len(SIZE).unwrap();
        let disk = Loop::attach(&copy, 512);
        let source = if args.len() == 1 { volume.clone() } else { at("ours.img") };
        let args = ["-q", "--new-serial"].iter().chain(args).copied();
        let said = ours(args.chain([text(&disk.0), text(&source)])).ok();
        drop(disk);
        assert_renewed(&said, &plain, &copy, &places);
    }

    // It is still a volume.
    run(Command::new("ntfsinfo").arg("-m").arg(&copy)).ok().says("Cluster Size: 4096");
    let mounted = Mounted::new(&copy, "ro");
    assert!(mounted.path().join("folder1/file1.bin").exists());
}

#[test]
fn metadata_images_of_ntfsclone() {
    let place = Place::new();
    let at = |name| place.at(name);
    mkntfs(&at("volume"), SIZE, 512, 4096);
    ntfsclone(["-q", "-m", "-s", "-o", text(&at("image")), text(&at("volume"))]).ok();
    ours(["-q", "-r", "-o", text(&at("plain")), text(&at("image"))]).ok();
    let said = ours(["-q", "--new-serial", "-r", "-o", text(&at("copy")), text(&at("image"))]).ok();
    assert_renewed(&said, &at("plain"), &at("copy"), &[0, SIZE - 512]);
}

#[test]
fn metadata_clones() {
    let place = Place::new();
    let at = |name| place.at(name);
    mkntfs(&at("volume"), SIZE, 512, 4096);
    ours(["-q", "-m", "-o", text(&at("plain")), text(&at("volume"))]).ok();
    let said = ours(["-q", "-m", "--new-serial", "-o", text(&at("copy")), text(&at("volume"))]).ok();
    assert_renewed(&said, &at("plain"), &at("copy"), &[0, SIZE - 512]);
}

#[test]
fn half_of_it_stays() {
    let place = Place::new();
    let at = |name| place.at(name);
    mkntfs(&at("volume"), SIZE, 512, 4096);
    let volume = text(&at("volume")).to_owned();
    ours(["-q", "-o", text(&at("plain")), &volume]).ok();
    let old = serial_of(&at("volume"));
    let upper = |number: u64| number >> 32;
    let lower = |number: u64| number & 0xffff_ffff;
    let mut numbers = vec![old];
    for name in ["ours", "again", "theirs"] {
        let args = ["-q", "--new-half-serial", "-o", text(&at(name)), &volume].map(str::to_owned);
        let said = if name == "theirs" { ntfsclone(args) } else { ours(args) }.ok();
        assert_renewed(&said, &at("plain"), &at(name), &[0, SIZE - 512]);
        let number = serial_of(&at(name));
        assert_eq!(lower(number), lower(old));
        assert!(numbers.iter().all(|seen| upper(*seen) != upper(number)), "{numbers:x?} and {number:x}");
        numbers.push(number);
    }
    // Both: all of it is new.
    ours(["-q", "--new-half-serial", "--new-serial", "-o", text(&at("both")), &volume]).ok();
    assert_ne!(lower(serial_of(&at("both"))), lower(old));
}

#[test]
fn images_keep_their_number() {
    let place = Place::new();
    let at = |name| place.at(name);
    mkntfs(&at("volume"), SIZE, 512, 4096);
    ours(["-q", "-s", "--no-checksum", "-o", text(&at("plain")), text(&at("volume"))]).ok();
    for option in ["--new-serial", "--new-half-serial"] {
        let said =
            ours(["-q", "-s", "--no-checksum", option, "-O", text(&at("image")), text(&at("volume"))]).ok();
        assert!(!said.stdout.contains("serial number"), "{}", said.stdout);
        assert_same(&at("image"), &at("plain"));
        let theirs = at(option);
        ntfsclone(["-q", "-s", option, "-o", text(&theirs), text(&at("volume"))]).ok();
        assert_same(&theirs, &at("plain"));
    }
}

#[test]
fn without_a_boot_sector() {
    let place = Place::new();
    let at = |name| place.at(name);
    mkntfs(&at("volume"), SIZE, 512, 4096);
    let backup = Editor::open(&at("volume")).total_sectors * 512;
    Editor::open(&at("volume")).write(0, &[b'X'; 512]);
    ours(["-q", "--rescue", "-o", text(&at("plain")), text(&at("volume"))]).ok();
    let said = ours(["-q", "--rescue", "--new-serial", "-o", text(&at("copy")), text(&at("volume"))]).ok();
    assert_renewed(&said, &at("plain"), &at("copy"), &[backup]);
    // Neither the boot sector nor its backup.
    ours(["-q", "--rescue", "-s", "-o", text(&at("image")), text(&at("volume"))]).ok();
    let image = std::fs::read(at("image")).unwrap();
    std::fs::write(at("image"), &image[..image.len() - 4097]).unwrap();
    let said = ours(["-q", "--new-serial", "-r", "-O", text(&at("copy")), text(&at("image"))]).ok();
    assert!(!said.stdout.contains("New serial number"), "{}", said.stdout);
    said.says("WARNING: no NTFS boot sector came: the serial number is not changed");
    ours(["-q", "-r", "-O", text(&at("plain")), text(&at("image"))]).ok();
    assert_same(&at("copy"), &at("plain"));
}
