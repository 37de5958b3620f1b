//! Block devices as source and target: loop devices over files, with sectors of 512 and 4096 bytes.

use std::path::Path;

use ntfsrescue::io::disk::Disk;
use ntfsrescue::io::identity::Known;
use ntfsrescue::io::tuning::Tuning;

use ntfsrescue::image::trailer::room_for;

use crate::edit::Editor;
use crate::metadata::parse;
use crate::tools::{
    Loop, assert_same, assert_same_image, assert_same_up_to, len, noise, ntfsclone, ours, shell, text,
    trailer_of, wait_for,
};
use crate::volumes::{Mounted, Place, fill, format, given, mkntfs, small_volume};

const SIZE: u64 = 24 << 20;

/// A file of `size` noisy bytes.
fn noisy(path: &Path, size: u64) {
    std::fs::write(path, noise(5, size as usize)).unwrap();
}

/// On a device that held noise, exactly the clusters of the image differ from before; those are the volume's.
#[track_caller]
fn assert_only_used_clusters_written(disk: &Path, before: &Path, restored: &Path, image: &Path) {
    let read = |path: &Path| std::fs::read(path).unwrap();
    let (disk, before, restored, image) = (read(disk), read(before), read(restored), parse(image));
    let mut written = vec![false; disk.len().max(restored.len())];
    for (lcn, bytes) in &image.clusters {
        written[(lcn * image.cluster_size) as usize..][..bytes.len()].fill(true);
    }
    for (pos, byte) in disk.iter().enumerate() {
        let wanted = if written[pos] { restored[pos] } else { before[pos] };
        assert_eq!(*byte, wanted, "byte {pos:#x}");
    }
}

#[test]
fn clone_and_restore_write_the_used_clusters_only() {
    for sector_size in [512, 4096] {
        let place = Place::new();
        let at = |name| place.at(name);
        mkntfs(&at("volume"), SIZE, sector_size, 4096);
        fill(&at("volume"), 100);
        ours(["-q", "-s", "-o", text(&at("image")), text(&at("volume"))]).ok();
        ours(["-q", "-o", text(&at("restored")), text(&at("volume"))]).ok();
        // A target of the same size, and a larger one.
        for size in [SIZE, SIZE + (1 << 20)] {
            noisy(&at("before"), size);
            for from_image in [true, false] {
                std::fs::copy(at("before"), at("disk")).unwrap();
                let disk = Loop::attach(&at("disk"), sector_size);
                if from_image {
                    ours(["-q", "-r", "-O", text(&disk.0), text(&at("image"))]).ok();
                } else {
                    ours(["-q", "-O", text(&disk.0), text(&at("volume"))]).ok();
                }
                drop(disk);
                assert_only_used_clusters_written(&at("disk"), &at("before"), &at("restored"), &at("image"));
            }
        }
        // And it mounts.
        let disk = Loop::attach(&at("disk"), sector_size);
        let mounted = Mounted::new(&disk.0, "ro");
        assert_eq!(std::fs::read(mounted.path().join("folder1/file1.bin")).unwrap(), noise(1, 7919));
    }
}

#[test]
fn devices_are_sources() {
    for sector_size in [512, 4096] {
        let place = Place::new();
        let at = |name| place.at(name);
        mkntfs(&at("disk"), SIZE, sector_size, 4096);
        fill(&at("disk"), 100);
        ours(["-q", "-s", "--no-checksum", "-o", text(&at("from-file")), text(&at("disk"))]).ok();
        let disk = Loop::attach(&at("disk"), sector_size);
        ours(["-q", "-s", "--no-checksum", "-o", text(&at("ours")), text(&disk.0)]).ok();
        ntfsclone(["-q", "-s", "-o", text(&at("theirs")), text(&disk.0)]).ok();
        assert_same(&at("ours"), &at("theirs"));
        assert_same(&at("ours"), &at("from-file"));
        ours(["-q", "-o", text(&at("cloned")), text(&at("disk"))]).ok();
        shell(&format!("$OURS -o - {} 2>/dev/null | cmp - {}", text(&disk.0), text(&at("cloned")))).ok();
    }
}

#[test]
fn volumes_with_small_sectors_on_a_disk_with_large_ones() {
    let place = Place::new();
    let at = |name| place.at(name);
    small_volume(&at("disk"));
    ours(["-q", "-s", "-o", text(&at("wanted")), text(&at("disk"))]).ok();
    let source = Loop::attach(&at("disk"), 4096);
    ours(["-q", "-s", "-o", text(&at("got")), text(&source.0)]).ok();
    assert_same_image(&at("got"), &at("wanted"));
    noisy(&at("target"), SIZE);
    let target = Loop::attach(&at("target"), 4096);
    let said = ours(["-q", "-r", "-O", text(&target.0), text(&at("got"))]).ok();
    let said =
        said.says("the volume has sectors of 512 bytes, but").says("Windows will not mount the copy there");
    assert!(said.stdout.contains("of 4096"));
    ours(["-q", "-O", text(&target.0), text(&source.0)]).ok().says("Windows will not mount");
}

#[test]
fn an_old_volume_is_gone_before_the_new_one_is_written() {
    let place = Place::new();
    let at = |name| place.at(name);
    small_volume(&at("volume"));
    ours(["-q", "-s", "-o", text(&at("image")), text(&at("volume"))]).ok();
    // The old volume is shorter than the device: its backup boot sector lies in the middle.
    for old_size in [SIZE, 8 << 20] {
        noisy(&at("disk"), old_size);
        format(&at("disk"), 512, 4096);
        std::fs::OpenOptions::new().write(true).open(at("disk")).unwrap().set_len(SIZE).unwrap();
        let before = std::fs::read(at("disk")).unwrap();
        let backup = old_size as usize - 512;
        assert_eq!(&before[backup + 3..backup + 7], b"NTFS");
        let disk = Loop::attach(&at("disk"), 512);
        // The pipe breaks in the first cluster.
        shell(&format!(
            "head -c 3000 {} | ($OURS -q -r -O {} - || [ $? = 1 ])",
            text(&at("image")),
            text(&disk.0)
        ))
        .ok()
        .says("is unfinished and holds no usable copy");
        drop(disk);
        let now = std::fs::read(at("disk")).unwrap();
        let changed: Vec<_> =
            (0..now.len()).filter(|pos| now[*pos] != before[*pos]).map(|pos| pos / 512).collect();
        assert!(changed.iter().all(|sector| [0, backup / 512].contains(sector)), "{changed:?}");
        assert!(now[..512].iter().chain(&now[backup..backup + 512]).all(|byte| *byte == 0));
    }
}

#[test]
fn refused_devices_stay_as_they_are() {
    let place = Place::new();
    let at = |name| place.at(name);
    small_volume(&at("volume"));
    let image = text(&at("image")).to_owned();
    ours(["-q", "-s", "-o", &image, text(&at("volume"))]).ok();
    noisy(&at("disk"), SIZE - 4096);
    format(&at("disk"), 512, 4096);
    std::fs::copy(at("disk"), at("before")).unwrap();
    let disk = Loop::attach(&at("disk"), 512);
    let name = text(&disk.0).to_owned();
    let volume = text(&at("volume")).to_owned();

    let too_small = format!("target '{name}' has {} bytes, but {} are needed", SIZE - 4096, SIZE);
    let said = ours(["-r", "-O", &name, &image]).exits(1).says(&too_small);
    assert!(!said.stdout.contains("Checking the image"), "read all of it first:\n{}", said.stdout);
    shell(&format!("$OURS -r -O {name} - < {image}")).exits(1).says(&too_small);
    ours(["-O", &name, &volume]).exits(1).says(&too_small);
    ours(["-o", &name, &volume]).exits(1).says("already exists; use --overwrite");
    // The same bytes under another name.
    ours(["-O", text(&at("disk")), &name]).exits(1).says("are on the same device or file");
    ours(["-O", &name, text(&at("disk"))]).exits(1).says("are on the same device or file");
    {
        let _mounted = Mounted::new(&disk.0, "ro");
        ours(["-s", "-O", &name, &volume]).exits(1).says("is mounted on '/");
        ours(["-r", "-O", &name, &image]).exits(1).says("is mounted on '/");
    }
    {
        // Somebody else has it.
        use std::os::unix::fs::OpenOptionsExt;
        const O_EXCL: i32 = 0o200;
        let _held = std::fs::OpenOptions::new().read(true).custom_flags(O_EXCL).open(&disk.0).unwrap();
        ours(["-r", "-O", &name, &image])
            .exits(1)
            .says("is in use by another run, a file system, RAID or LVM");
    }
    shell(&format!("blockdev --setro {name}")).ok();
    let said = ours(["-r", "-O", &name, &image]);
    // The kernel keeps this for the device's next user.
    shell(&format!("blockdev --setrw {name}")).ok();
    said.exits(1).says("is read-only");
    drop(disk);
    assert_same(&at("disk"), &at("before"));
}

#[test]
fn the_same_bytes_through_layers_of_devices() {
    let place = Place::new();
    let disk = place.at("disk");
    small_volume(&disk);
    std::fs::copy(&disk, place.at("before")).unwrap();
    let first = Loop::attach(&disk, 512);
    let second = Loop::attach(&first.0, 512);
    let names = [text(&disk).to_owned(), text(&first.0).to_owned(), text(&second.0).to_owned()];
    for (source, target) in [(0, 1), (0, 2), (1, 2), (2, 0), (2, 1), (1, 0)] {
        let said = ours(["-O", &names[target], &names[source]]).exits(1);
        said.says("are on the same device or file");
    }
    {
        // The volume is mounted at the top; at the bottom it is no less.
        let _mounted = Mounted::new(&second.0, "ro");
        std::fs::copy(&disk, place.at("other")).unwrap();
        ours(["-O", &names[0], text(&place.at("other"))]).exits(1).says("is mounted on '/");
    }
    drop((second, first));
    assert_same(&disk, &place.at("before"));
}

#[test]
fn parts_of_one_file_are_different_devices() {
    let place = Place::new();
    let at = |name| place.at(name);
    small_volume(&at("volume"));
    ours(["-q", "-o", text(&at("wanted")), text(&at("volume"))]).ok();
    std::fs::copy(at("volume"), at("disk")).unwrap();
    std::fs::OpenOptions::new().write(true).open(at("disk")).unwrap().set_len(2 * SIZE).unwrap();
    let first = Loop::attach_part(&at("disk"), 0, SIZE);
    let second = Loop::attach_part(&at("disk"), SIZE, SIZE);
    ours(["-q", "-O", text(&second.0), text(&first.0)]).ok();
    let across = Loop::attach_part(&at("disk"), SIZE / 2, SIZE);
    ours(["-q", "-O", text(&across.0), text(&first.0)]).exits(1).says("are on the same device or file");
    drop((first, second, across));
    let disk = std::fs::read(at("disk")).unwrap();
    assert!(disk[SIZE as usize..] == std::fs::read(at("wanted")).unwrap());
}

#[test]
fn a_damaged_image_on_a_device_overwrites_nothing() {
    let place = Place::new();
    let at = |name| place.at(name);
    small_volume(&at("volume"));
    ours(["-q", "-s", "-o", text(&at("image")), text(&at("volume"))]).ok();
    let mut image = std::fs::read(at("image")).unwrap();
    image[56 + 4097] = 9;
    std::fs::write(at("image"), image).unwrap();
    noisy(&at("target"), SIZE);
    format(&at("target"), 512, 4096);
    std::fs::copy(at("target"), at("before")).unwrap();
    let (source, target) = (Loop::attach(&at("image"), 512), Loop::attach(&at("target"), 512));
    ours(["-r", "-O", text(&target.0), text(&source.0)]).exits(1).says("found command 0x09");
    drop(target);
    assert_same(&at("target"), &at("before"));
}

#[test]
fn images_on_devices() {
    let place = Place::new();
    let at = |name| place.at(name);
    small_volume(&at("volume"));
    ours(["-q", "-s", "-o", text(&at("image")), text(&at("volume"))]).ok();
    let image_len = trailer_of(&at("image")).unwrap().sums.image_len;
    let needed = image_len + room_for(image_len);
    let size = needed.next_multiple_of(4096);
    noisy(&at("disk"), size);
    let disk = Loop::attach(&at("disk"), 512);
    ours(["-q", "-s", "-O", text(&disk.0), text(&at("volume"))]).ok();
    assert_same_up_to(&at("image"), &at("disk"), image_len);
    ours(["-q", "-r", "-o", text(&at("restored")), text(&disk.0)]).ok();
    ours(["-q", "-o", text(&at("cloned")), text(&at("volume"))]).ok();
    assert_same(&at("restored"), &at("cloned"));
    drop(disk);
    // Smaller than the image.
    std::fs::OpenOptions::new().write(true).open(at("disk")).unwrap().set_len(1 << 20).unwrap();
    let disk = Loop::attach(&at("disk"), 512);
    let wanted = format!("but {needed} are needed");
    ours(["-s", "-O", text(&disk.0), text(&at("volume"))]).exits(1).says(&wanted);
}

#[test]
fn metadata_on_a_device_needs_force() {
    let place = Place::new();
    let at = |name| place.at(name);
    small_volume(&at("volume"));
    noisy(&at("disk"), SIZE);
    std::fs::copy(at("disk"), at("before")).unwrap();
    for (options, wanted) in [("-qm", "clone"), ("-qms", "image")] {
        let (volume, wanted) = (at("volume"), at(wanted));
        ours([options, "-o", text(&wanted), text(&volume)]).ok();
        let disk = Loop::attach(&at("disk"), 512);
        let args = |more| [options, more, "-O", text(&disk.0), text(&volume)].map(str::to_owned);
        ours(args("-q")).exits(1).says("metadata alone on a device is a volume whose files are all zeros");
        ntfsclone(args("-q")).exits(1);
        assert_same_up_to(&disk.0, &at("before"), SIZE);
        ours(args("-f")).ok();
        drop(disk);
        if options == "-qms" {
            assert_same_up_to(&wanted, &at("disk"), len(&wanted));
            ours(["-q", "-r", "-O", text(&at("restored")), text(&at("disk"))]).ok();
            assert_same(&at("restored"), &at("clone"));
        } else {
            // Both hold the same metadata; between it lies what was there.
            for (from, to) in [("disk", "from-disk"), ("clone", "from-clone")] {
                ours(["-qms", "-o", text(&at(to)), text(&at(from))]).ok();
            }
            assert_same(&at("from-disk"), &at("from-clone"));
        }
        std::fs::copy(at("before"), at("disk")).unwrap();
    }
}

#[test]
fn given_volumes_on_a_device() {
    let place = Place::new();
    for (name, volume) in given(&place) {
        println!("{name}");
        // Sectors of the loop device: what does not fill one is not on it, and here all fill theirs.
        let source = Loop::attach(&volume, 512);
        let (image, wanted) = (place.at("image"), place.at("wanted"));
        ours(["-q", "-f", "-s", "-O", text(&image), text(&source.0)]).ok();
        ours(["-q", "-f", "-s", "-O", text(&wanted), text(&volume)]).ok();
        assert_same_image(&image, &wanted);
        let target = place.at("target");
        std::fs::File::create(&target).unwrap().set_len(len(&volume)).unwrap();
        let device = Loop::attach(&target, 512);
        ours(["-q", "-r", "-O", text(&device.0), text(&image)]).ok();
        drop(device);
        assert_eq!(Editor::open(&volume).read(0, 512), Editor::open(&target).read(0, 512));
        ours(["-q", "-f", "-s", "-O", text(&wanted), text(&target)]).ok();
        assert_same_image(&image, &wanted);
    }
}

#[test]
fn a_disk_is_read_only_while_it_is_rescued() {
    let place = Place::new();
    noisy(&place.at("disk"), SIZE);
    let disk = Loop::attach(&place.at("disk"), 512);
    let flag = || shell(&format!("blockdev --getro {}", text(&disk.0))).ok().stdout;
    for before in ["0\n", "1\n"] {
        let tuning = Tuning::apply(&Disk::open(&disk.0).unwrap());
        assert_eq!(flag(), "1\n");
        tuning.restore();
        assert_eq!(flag(), before);
        shell(&format!("blockdev --setro {}", text(&disk.0))).ok();
    }
    // The kernel keeps this for the device's next user.
    shell(&format!("blockdev --setrw {}", text(&disk.0))).ok();
    drop(Tuning::apply(&Disk::open(&place.at("disk")).unwrap()));
}

#[test]
fn a_loop_device_is_known_until_it_is_detached() {
    let place = Place::new();
    noisy(&place.at("disk"), SIZE);
    let disk = Loop::attach(&place.at("disk"), 512);
    let path = disk.0.clone();
    let known = Known::of(&Disk::open(&path).unwrap());
    assert_eq!((known.disk.serial.as_str(), known.disk.size, known.start, known.size), ("", SIZE, 0, SIZE));
    assert_eq!(known.find_again(), Some(path));
    drop(disk);
    // The kernel waits for whoever else has it open for a moment.
    wait_for("the device to be detached", || known.find_again().is_none());
    // Under the same name, and of the same size, but attached anew.
    let _again = Loop::attach(&place.at("disk"), 512);
    assert_eq!(known.find_again(), None);
}
