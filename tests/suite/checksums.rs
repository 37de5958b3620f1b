//! Checksums of images: where they are written, that ntfsclone does not mind, and that whatever damages an image is found
//! and named by its place, before anything is overwritten.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use ntfsrescue::image::trailer::Trailer;

use crate::scene::Scene;
use crate::tools::{
    Loop, Said, assert_same, assert_same_image, len, noise, ntfsclone, ours, run, shell, text, trailer_of,
};
use crate::volumes::{Place, fill, mkntfs, small_volume};

const NONE: &str = "It has no checksums: only the structure was checked.";

/// A volume, `image` with checksums, and `plain`, the same by ntfsclone.
fn scene() -> Place {
    let place = Place::new();
    small_volume(&place.at("volume"));
    ours(["-q", "-s", "-o", text(&place.at("image")), text(&place.at("volume"))]).ok();
    ntfsclone(["-q", "-s", "-o", text(&place.at("plain")), text(&place.at("volume"))]).ok();
    place
}

/// Runs a shell command line in the folder.
fn shell_in(place: &Place, line: &str) -> Said {
    shell(&format!("cd {}; {line}", text(&place.at(""))))
}

#[test]
fn where_they_are_written() {
    let place = scene();
    let (image, plain) =
        (std::fs::read(place.at("image")).unwrap(), std::fs::read(place.at("plain")).unwrap());
    assert_eq!(&image[..plain.len()], plain);
    let trailer = Trailer::decode(&image[plain.len()..]).unwrap();
    assert_eq!((trailer.sums.image_len, trailer.marks.nr_areas), (plain.len() as u64, 0));
    let boot = std::fs::read(place.at("volume")).unwrap();
    let serial = u64::from_le_bytes(boot[0x48..0x50].try_into().unwrap());
    let origin = trailer.origin.unwrap();
    assert_eq!((origin.volume_serial, origin.disk_size), (serial, len(&place.at("volume"))));

    run(Command::new("mkfifo").arg(place.at("fifo"))).ok();
    ours(["-q", "-m", "-s", "-o", text(&place.at("metadata")), text(&place.at("volume"))]).ok();
    shell_in(&place, "$OURS -q -m -s -o - volume 2>/dev/null > plain-metadata").ok();
    for (line, wanted) in [
        ("$OURS -q -s -O got volume", "image"),
        ("$OURS -q -s -O /dev/fd/3 volume 3> got", "image"),
        ("$OURS -q -s --checksum -O got volume", "image"),
        ("$OURS -q -s --checksum -o - volume > got", "image"),
        ("$OURS -q -s --checksum -o - volume | cat > got", "image"),
        ("timeout 20 cat fifo > got & $OURS -q -s --checksum -O fifo volume; wait $!", "image"),
        ("$OURS -q -s --split 1G -O parts volume; mv parts.001 got", "image"),
        ("$OURS -q -s --rescue -O got volume", "image"),
        ("$OURS -q -s --rescue --checksum -o - volume | cat > got", "image"),
        ("$OURS -q -m -s --checksum -o - volume | cat > got", "metadata"),
        ("$OURS -q -s -o - volume > got", "plain"),
        ("$OURS -q -s -o - volume | cat > got", "plain"),
        ("timeout 20 cat fifo > got & $OURS -q -s -O fifo volume; wait $!", "plain"),
        ("$OURS -q -s --no-checksum -O got volume", "plain"),
        ("$OURS -q -s --no-checksum --checksum -O got volume", "plain"),
        ("$OURS -q -s --rescue --no-checksum -O got volume", "plain"),
        ("$OURS -q -s --split 1G --no-checksum -O parts volume; mv parts.001 got", "plain"),
        ("$OURS -q -m -s --no-checksum -O got volume", "plain-metadata"),
    ] {
        println!("{line}");
        shell_in(&place, line).ok();
        assert_same(&place.at("got"), &place.at(wanted));
        std::fs::remove_file(place.at("got")).unwrap();
    }
    // On a device, where they take room too.
    let size = len(&place.at("image")).next_multiple_of(4096) + (32 << 10);
    std::fs::File::create(place.at("disk")).unwrap().set_len(size).unwrap();
    let disk = Loop::attach(&place.at("disk"), 512);
    for options in ["-s", "-s --rescue"] {
        shell_in(&place, &format!("$OURS -q {options} -O {0} volume; $OURS -r -n {0}", text(&disk.0)))
            .ok()
            .says(&format!("Its checksums are right: {} bytes in ", plain.len()));
    }
    // What names the disk is no business of whoever looks into a copy of metadata.
    let of_metadata = trailer_of(&place.at("metadata")).unwrap().origin.unwrap();
    assert_eq!((of_metadata.volume_serial, of_metadata.disk_size), (serial, 0));
}

#[test]
fn ntfsclone_restores_what_has_them() {
    for cluster_size in [512, 4096, 65536] {
        let place = Place::new();
        mkntfs(&place.at("volume"), 24 << 20, 512, cluster_size);
        fill(&place.at("volume"), 60);
        for options in ["", "-m", "--rescue"] {
            println!("clusters of {cluster_size} bytes, {options}");
            shell_in(&place, &format!("rm -f a b c; $OURS -q -s {options} -O image volume")).ok();
            assert!(trailer_of(&place.at("image")).is_some());
            shell_in(&place, "$OURS -q -r -O wanted image").ok();
            shell_in(&place, "ntfsclone -q -r -o a image").ok();
            shell_in(&place, "ntfsclone -q -r -o b - < image").ok();
            shell_in(&place, "cat image | { ntfsclone -q -r -o c -; s=$?; cat > rest; exit $s; }").ok();
            for restored in ["a", "b", "c"] {
                assert_eq!(len(&place.at(restored)), len(&place.at("wanted")));
                assert_same(&place.at(restored), &place.at("wanted"));
            }
        }
    }
}

/// Changes bytes of a file, and back.
fn with_change<T>(path: &Path, at: u64, bytes: &[u8], then: impl FnOnce() -> T) -> T {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut before = vec![0; bytes.len()];
    file.read_exact_at(&mut before, at).unwrap();
    file.write_all_at(bytes, at).unwrap();
    let result = then();
    file.write_all_at(&before, at).unwrap();
    result
}

/// The place that an error names: the first and the last byte of the image.
fn place_of(error: &str, image_len: u64, file_len: u64) -> (u64, u64) {
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_hexdigit).collect();
        u64::from_str_radix(&digits, 16).unwrap()
    };
    if let Some((_, rest)) = error.split_once("the checksums of the image, from its byte 0x") {
        assert_eq!(number(rest), image_len, "{error}");
        return (image_len, file_len - 1);
    }
    if error.contains("not an ntfsclone image")
        || error.contains("image header")
        || error.contains("image version")
    {
        return (0, 55);
    }
    let (_, rest) = error.split_once("bytes 0x").unwrap_or_else(|| panic!("no place: {error}"));
    let (_, to) = rest.split_once(" to 0x").unwrap();
    (number(rest), number(to))
}

#[test]
fn every_flipped_bit_is_found_and_placed() {
    let place = scene();
    let (image, target) = (place.at("image"), place.at("target"));
    let bytes = std::fs::read(&image).unwrap();
    let (image_len, file_len) = (len(&place.at("plain")), bytes.len() as u64);
    let before = noise(9, 50_000);
    std::fs::write(&target, &before).unwrap();
    // Where commands and counts are: the image as a reader walks it.
    let (mut at, mut lcn, mut commands) = (56, 0, Vec::new());
    while lcn < (24 << 20) / 4096 {
        let skip = i64::from_le_bytes(bytes[at + 1..at + 9].try_into().unwrap());
        let is_skip = bytes[at] == 0;
        commands.extend((0..if is_skip { 9 } else { 1 }).map(|byte| (at + byte) as u64));
        (at, lcn) = if is_skip { (at + 9, lcn + skip) } else { (at + 4097, lcn + 1) };
    }
    assert_eq!(at as u64, image_len);
    let drawn = |seed: u64, nr: usize| {
        let numbers = noise(seed, 8 * nr);
        numbers.chunks(8).map(|eight| u64::from_le_bytes(eight.try_into().unwrap()) >> 8).collect::<Vec<_>>()
    };
    let header = (0..56 * 8).map(|bit| (bit / 8, bit % 8));
    let of_commands = drawn(1, 80).into_iter().map(|n| (commands[n as usize % commands.len()], n >> 40));
    let data = drawn(2, 80).into_iter().map(|n| (56 + n % (image_len - 56), n >> 40));
    let trailer = drawn(3, 80).into_iter().map(|n| (image_len + n % (file_len - image_len), n >> 40));
    // The ends of a trailer are by what it is found.
    let ends = (0..16).flat_map(|byte| [image_len + byte, file_len - 1 - byte]).map(|at| (at, at));
    let (path, target_path) = (text(&image), text(&target));
    let all = header.chain(of_commands).chain(data).chain(trailer).chain(ends);
    for (number, (at, bit)) in all.enumerate() {
        let flipped = [bytes[at as usize] ^ 1 << (bit % 8)];
        with_change(&image, at, &flipped, || {
            let said = ours(["-q", "-r", "-n", path]).exits(1);
            let error = said.stdout.lines().find(|line| line.starts_with("ERROR: ")).unwrap();
            let (from, to) = place_of(error, image_len, file_len);
            assert!((from..=to).contains(&at), "byte {at:#x}, bit {}: {error}", bit % 8);
            assert!(to - from < 1 << 20, "{error}");
            // From a pipe, and by the other names of the same check.
            match number % 4 {
                0 => _ = shell(&format!("$OURS -q -r -n - < {path}")).exits(1),
                1 => _ = shell(&format!("cat {path} | $OURS -q --verify - > /dev/null")).exits(1),
                2 => _ = ours(["-q", "--verify", path]).exits(1),
                _ => _ = ours(["-q", "-r", "-O", target_path, path]).exits(1),
            }
        });
    }
    assert!(std::fs::read(&target).unwrap() == before, "the target was written to");
    ours(["-q", "-r", "-n", path]).ok();
}

#[test]
fn cut_off_images() {
    let place = scene();
    let (bytes, image_len) = (std::fs::read(place.at("image")).unwrap(), len(&place.at("plain")) as usize);
    let cut = place.at("cut");
    std::fs::write(place.at("target"), "what was there").unwrap();
    let drawn = noise(4, 240)
        .chunks(8)
        .map(|n| u64::from_le_bytes(n.try_into().unwrap()) as usize >> 8)
        .collect::<Vec<_>>();
    let within = drawn[..15].iter().map(|n| n % image_len);
    let behind = drawn[15..].iter().map(|n| image_len + n % (bytes.len() - image_len));
    let edges = [0, 1, 55, 56, image_len - 1, image_len + 1, image_len + 15, image_len + 16, bytes.len() - 1];
    for len in within.chain(behind).chain(edges).filter(|len| *len != image_len) {
        std::fs::write(&cut, &bytes[..len]).unwrap();
        for line in ["$OURS -q -r -n cut", "$OURS -q -r -O target cut", "cat cut | $OURS -q -r -n -"] {
            println!("{len}: {line}");
            shell_in(&place, line).exits(1).says("cut off");
        }
    }
    assert_eq!(std::fs::read(place.at("target")).unwrap(), b"what was there");
    // Without any of them nobody can know that there were some.
    std::fs::write(&cut, &bytes[..image_len]).unwrap();
    for line in ["$OURS -q -r -n cut", "cat cut | $OURS -q -r -n -", "$OURS -q -r -O target cut"] {
        shell_in(&place, line).ok().says(NONE);
    }
    // More behind them is nobody's business.
    std::fs::write(&cut, [&bytes[..], &[7; 100_000]].concat()).unwrap();
    for line in ["$OURS -q -r -n cut", "$OURS -q -r -n - < cut", "$OURS -q -r -O target cut"] {
        shell_in(&place, line).ok().says("Its checksums are right");
    }
}

#[test]
fn swapped_and_missing_stretches() {
    let place = scene();
    let (bytes, image_len) = (std::fs::read(place.at("image")).unwrap(), len(&place.at("plain")) as usize);
    let mut parts: Vec<_> = bytes[..image_len].chunks(1 << 20).collect();
    assert!(parts.len() > 4);
    let last = parts.len() - 1;
    let written = |parts: &[&[u8]]| {
        std::fs::write(place.at("bad"), [&parts.concat(), &bytes[image_len..]].concat()).unwrap();
        let said = shell_in(&place, "$OURS -q -r -n bad").exits(1);
        shell_in(&place, "cat bad | $OURS -q -r -n - 2> /dev/null > /dev/null").exits(1);
        said
    };
    for (a, b) in [(0, 1), (1, 2), (1, last), (2, last - 1)] {
        parts.swap(a, b);
        let said = written(&parts);
        // Whatever is found in the header and the first stretch is found in the first.
        match a {
            0 => said.says("not an ntfsclone image"),
            _ => said.says(&format!(" in stretch {} of ", a + 1)),
        };
        parts.swap(a, b);
    }
    for missing in 1..=last {
        let without: Vec<_> =
            parts.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, part)| *part).collect();
        written(&without);
    }
    // One twice.
    written(&[&parts[..2], &parts[1..]].concat());
}

#[test]
fn damage_that_comes_through_a_pipe() {
    let place = scene();
    let image_len = len(&place.at("plain"));
    std::fs::File::create(place.at("disk")).unwrap().set_len(24 << 20).unwrap();
    let disk = Loop::attach(&place.at("disk"), 512);
    shell_in(&place, &format!("$OURS -q -r -O {} image", text(&disk.0))).ok();
    let warning =
        format!("what the image holds was written to '{}' before the damage was known", text(&disk.0));
    let at = image_len - 3_000_000;
    let byte = std::fs::read(place.at("image")).unwrap()[at as usize] ^ 4;
    with_change(&place.at("image"), at, &[byte], || {
        let said = shell_in(&place, &format!("cat image | $OURS -q -r -O {} -", text(&disk.0))).exits(1);
        let said = said.says(&warning).says("image is damaged in stretch ");
        assert_eq!(said.stdout.matches("ERROR: ").count(), 1, "{}", said.stdout);
        let said = said.says(&format!("'{}' is unfinished and holds no usable copy", text(&disk.0)));
        assert!(!said.stdout.contains("checksums are right"));
        shell_in(&place, "cat image | $OURS -q -r -o new -").exits(1).says("is left in 'new.part'");
        assert!(!place.at("new").exists());
        // Who knows better gets what there is.
        shell_in(&place, "$OURS -q -r --no-checksum -O new image")
            .ok()
            .says("Its checksums were not compared.");
        shell_in(&place, "cat image | $OURS -q -r --no-checksum -O new -").ok();
        shell_in(&place, "$OURS -q -r -n --no-checksum image").ok().says("structure is whole");
    });
    let restored = std::fs::read(place.at("disk")).unwrap();
    assert!(restored[..512].iter().all(|byte| *byte == 0), "a boot sector before the copy was whole");
    drop(disk);
    shell_in(&place, "cat image | $OURS -q -r -O new -").ok().says("Its checksums are right");
}

#[test]
fn an_image_is_checked_by_itself() {
    let place = scene();
    let names = place.names();
    let nr = len(&place.at("plain")).div_ceil(1 << 20);
    let right = format!("Its checksums are right: {} bytes in {nr} stretches.", len(&place.at("plain")));
    for line in
        ["--verify image", "-r -n image", "--verify -n image", "--verify - < image", "-r -n - < image"]
    {
        println!("{line}");
        let said = shell_in(&place, &format!("$OURS {line}")).ok();
        said.says("The image's structure is whole.").says(&right).says("It was saved from volume ");
    }
    for line in ["--verify plain", "--verify - < plain", "-r -n plain"] {
        shell_in(&place, &format!("$OURS {line}")).ok().says("The image's structure is whole.").says(NONE);
    }
    shell_in(&place, "$OURS --verify volume").exits(1).says("not an ntfsclone image");
    shell_in(&place, "$OURS --verify missing").exits(1).says("cannot open the image 'missing'");
    assert_eq!(place.names(), names);
    // Whose disk it was.
    let disk = Loop::attach(&place.at("volume"), 512);
    shell_in(&place, &format!("$OURS -q -s -o of-disk {}", text(&disk.0))).ok();
    assert_same_image(&place.at("of-disk"), &place.at("image"));
}

#[test]
fn an_image_is_compared_with_a_volume() {
    let place = scene();
    const SAME: &str = "The volume holds what the image holds.";
    std::fs::copy(place.at("volume"), place.at("copy")).unwrap();
    let disk = Loop::attach(&place.at("copy"), 512);
    let disk_path = text(&disk.0).to_owned();
    for (against, image, sums) in [
        ("copy", "image", "Its checksums are right"),
        ("copy", "plain", NONE),
        (disk_path.as_str(), "image", "Its checksums are right"),
        ("copy", "- < image", "Its checksums are right"),
    ] {
        shell_in(&place, &format!("$OURS --verify --against {against} {image}")).ok().says(SAME).says(sums);
    }
    drop(disk);
    // What is not in use does not count; what is does.
    let copy = std::fs::read(place.at("copy")).unwrap();
    let used = |lcn: u64| copy[lcn as usize * 4096..][..4096].iter().any(|byte| *byte != 0);
    let first = (2000..).find(|lcn| used(*lcn)).unwrap() * 4096;
    let other = [copy[first as usize + 9] ^ 1];
    with_change(&place.at("copy"), first + 9, &other, || {
        with_change(&place.at("copy"), 100, &[copy[100] ^ 1], || {
            let said = shell_in(&place, "$OURS -q --verify --against copy image").exits(1);
            let said = said.says("WARNING: 4096 bytes at byte 0 (0x0) differ from the image");
            let said =
                said.says(&format!("WARNING: 4096 bytes at byte {first} ({first:#x}) differ from the image"));
            let said =
                said.says("ERROR: 'copy' is no copy of the image: of what that holds 8192 bytes differ");
            assert!(!said.stdout.contains(SAME));
        });
    });
    // An image that is damaged says nothing about the volume.
    let at = len(&place.at("plain")) - 3000;
    let byte = std::fs::read(place.at("image")).unwrap()[at as usize] ^ 1;
    with_change(&place.at("image"), at, &[byte], || {
        let said = shell_in(&place, "$OURS -q --verify --against copy image").exits(1);
        assert!(!said.says("image is damaged in stretch").stdout.contains("no copy"));
    });
    let file = OpenOptions::new().write(true).open(place.at("copy")).unwrap();
    file.set_len((24 << 20) - 1).unwrap();
    let said = shell_in(&place, "$OURS -q --verify --against copy image").exits(1);
    said.says("'copy' has 25165823 bytes, but the volume of the image 25165824");
}

#[test]
fn a_rescue_names_what_it_marked() {
    let scene = Scene::new();
    let (first, far) = (scene.sector_of_file(2), scene.sector_of_file(8));
    let bad: Vec<_> = (first + 1..first + 20).chain([far]).collect();
    let disk = scene.disk(512, &bad);
    let source = text(&disk.path()).to_owned();
    let wanted = [(first * 512 + 512, 19 * 512), (far * 512, 512)];
    let assert_told = |image: &str| {
        let trailer = trailer_of(&scene.at(image)).unwrap();
        let listed: Vec<_> = trailer.marks.listed.iter().map(|area| (area.pos, area.len)).collect();
        assert_eq!((&listed[..], trailer.marks.nr_areas, trailer.marks.bytes), (&wanted[..], 2, 20 * 512));
        scene.ours(&format!("-r -n {image}")).ok().says("It lacks 10240 bytes in 2 areas");
    };
    scene.ours(&format!("--rescue -s -o whole {source}")).ok();
    assert_told("whole");
    // From front to back.
    shell(&format!(
        "cd {}; $OURS -q --rescue --checksum -s -o - {source} | cat > piped",
        text(&scene.at(""))
    ))
    .ok();
    assert_told("piped");
    // One that has ended early has checksums of what is there, and the next run others.
    scene.ours(&format!("--map map --max-errors 1 -s -o image {source}")).exits(5);
    let unfinished = trailer_of(&scene.at("image")).unwrap().marks.bytes;
    assert!(unfinished > 20 * 512, "{unfinished} bytes marked");
    scene.ours("-r -n image").ok().says(&format!("It lacks {unfinished} bytes in "));
    scene.ours("--finish map image").ok();
    scene.ours("-r -n image").ok().says(&format!("It lacks {unfinished} bytes in "));
    scene.ours("--finish map --no-checksum image").ok();
    scene.ours("-r -n image").ok().says(NONE);
    scene.ours(&format!("--map map -s -o image {source}")).ok();
    assert_told("image");
    assert_same(&scene.at("image"), &scene.at("whole"));
    // In parts, of which the last may hold nothing but a trailer.
    for split in
        [1 << 20, len(&scene.at("whole")) - 100, trailer_of(&scene.at("whole")).unwrap().sums.image_len]
    {
        scene.ours(&format!("--rescue -s --split {split} -O parts {source}")).ok();
        scene.ours("-r -n parts").ok().says("It lacks 10240 bytes in 2 areas");
        shell(&format!("cd {}; cat parts.0* | cmp - whole; rm parts.0*", text(&scene.at("")))).ok();
    }
}
