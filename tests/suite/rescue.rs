//! Rescuing volumes from disks with sectors that cannot be read.

use std::path::Path;

use crate::edit::Editor;
use crate::faulty::FaultyDisk;
use crate::tools::{assert_same, noise, ours, text};
use crate::volumes::{Mounted, Place, small_volume};

/// A volume, its clone without faults, and what a clone of it must hold in spite of them.
struct Scene {
    place: Place,
    cluster_size: u64,
}

impl Scene {
    fn new() -> Scene {
        let place = Place::new();
        small_volume(&place.at("volume"));
        ours(["-q", "-o", text(&place.at("healthy")), text(&place.at("volume"))]).ok();
        Scene { place, cluster_size: 4096 }
    }

    /// The first sector of the data of the file `i` that the volume was filled with.
    fn sector_of_file(&self, i: u64) -> u64 {
        let wanted = noise(i, 600);
        let volume = std::fs::read(self.place.at("volume")).unwrap();
        let cluster = volume.chunks(self.cluster_size as usize).position(|data| data.starts_with(&wanted));
        cluster.unwrap() as u64 * self.cluster_size / 512
    }

    /// With these sectors bad, a clone and a restored image hold everything but them. Returns what the clone's run
    /// said. `marked` are the sectors that must be marked, more than the bad ones where the disk's are larger.
    #[track_caller]
    fn rescues(&self, sector_size: u32, bad: &[u64], marked: &[u64]) -> String {
        let mut wanted = std::fs::read(self.place.at("healthy")).unwrap();
        for sector in marked {
            let at = *sector as usize * 512;
            wanted[at..at + 512].fill(b'?');
            wanted[at..at + 10].copy_from_slice(b"BadSectoR\0");
        }
        std::fs::write(self.place.at("wanted"), wanted).unwrap();
        let at = |name| self.place.at(name);
        let disk = FaultyDisk::new(&at("volume"), sector_size, bad);
        let source = text(&disk.path()).to_owned();
        let said = ours(["-q", "--rescue", "-O", text(&at("clone")), &source]).ok();
        assert_same(&at("clone"), &at("wanted"));
        ours(["-q", "--rescue", "--strict", "-s", "-O", text(&at("image")), &source]).exits(3);
        ours(["-q", "-r", "-O", text(&at("restored")), text(&at("image"))]).ok();
        assert_same(&at("restored"), &at("wanted"));
        said.stdout
    }
}

#[test]
fn one_bad_sector_costs_one_sector() {
    let scene = Scene::new();
    let sector = scene.sector_of_file(4) + 3;
    let said = scene.rescues(512, &[sector], &[sector]);
    let pos = sector * 512;
    let warning = format!("WARNING: cannot read 512 bytes at byte {pos} ({pos:#x}): marked BadSectoR");
    assert!(said.contains(&warning), "{said}");
    assert!(said.contains("Lost: 512 bytes could not be read"), "{said}");
    // The file is the one that was hit, and the only one.
    let clone = Mounted::new(&scene.place.at("clone"), "ro");
    let hit = std::fs::read(clone.path().join("folder4/file4.bin")).unwrap();
    assert!(hit[3 * 512..].starts_with(b"BadSectoR\0???"));
    assert_eq!(std::fs::read(clone.path().join("folder1/file8.bin")).unwrap(), noise(8, 8 * 7919 % 30_000));
}

#[test]
fn areas_are_told_once_and_sectors_marked_each() {
    let scene = Scene::new();
    let first = scene.sector_of_file(2);
    let far = scene.sector_of_file(8) + 1;
    let bad: Vec<_> = (first..first + 20).chain([far]).collect();
    let said = scene.rescues(512, &bad, &bad);
    assert_eq!(said.matches("WARNING: cannot read").count(), 2, "{said}");
    assert!(said.contains("WARNING: cannot read 10240 bytes at byte"), "{said}");
}

#[test]
fn a_large_sector_costs_itself() {
    let scene = Scene::new();
    let first = scene.sector_of_file(4);
    scene.rescues(4096, &[first + 5], &(first..first + 8).collect::<Vec<_>>());
}

#[test]
fn without_rescue_the_first_error_ends_the_job() {
    let scene = Scene::new();
    let sector = scene.sector_of_file(4);
    let at = |name| scene.place.at(name);
    let disk = FaultyDisk::new(&at("volume"), 512, &[sector]);
    for options in [&["-q", "-s"][..], &["-q"]] {
        let said = ours([options, &["-o", text(&at("new")), text(&disk.path())]].concat()).exits(1);
        let said = said.says("cannot read ").says("Input/output error");
        said.says("the disk is failing: --rescue goes on").says("what was copied so far is left in");
        assert!(!at("new").exists());
        std::fs::remove_file(at("new.part")).unwrap();
    }
}

#[test]
fn an_unreadable_record_of_a_file() {
    let scene = Scene::new();
    let editor = Editor::open(&scene.place.at("volume"));
    let sector = editor.record_pos(70) / 512;
    {
        let disk = FaultyDisk::new(&scene.place.at("volume"), 512, &[sector]);
        let said = ours(["-q", "-o", text(&scene.place.at("new")), text(&disk.path())]).exits(1);
        said.says("MFT record 70 at byte").says("the disk is failing: --rescue goes on");
        assert!(!scene.place.at("new.part").exists(), "nothing is created");
    }
    let said = scene.rescues(512, &[sector], &[sector]);
    assert!(said.contains("WARNING: MFT record 70 at byte"), "{said}");
    assert!(said.contains("Damaged: 1 MFT records"), "{said}");
}

#[test]
fn what_makes_the_rest_readable_has_copies() {
    let scene = Scene::new();
    let editor = Editor::open(&scene.place.at("volume"));
    for (sector, message) in [
        (0, "using its backup at byte"),
        (editor.record_pos(0) / 512, "using its copy in $MFTMirr"),
        (editor.record_pos(3) / 512, "MFT record 3 at byte"),
        (editor.record_pos(6) / 512, "every cluster it should cover is taken"),
    ] {
        let said = ours_on_bad_sector(&scene, sector);
        assert!(said.contains(message), "sector {sector}: {said}");
    }
}

/// A clone of the volume with one bad sector: the used clusters of the healthy one with that sector marked. More may
/// be copied, where the bad sector hides what is in use.
fn ours_on_bad_sector(scene: &Scene, sector: u64) -> String {
    let at = |name| scene.place.at(name);
    let disk = FaultyDisk::new(&at("volume"), 512, &[sector]);
    let said = ours(["-q", "--rescue", "-O", text(&at("clone")), text(&disk.path())]).ok();
    let (clone, healthy, volume) = (
        std::fs::read(at("clone")).unwrap(),
        std::fs::read(at("healthy")).unwrap(),
        std::fs::read(at("volume")).unwrap(),
    );
    assert_eq!(clone.len(), volume.len());
    for (i, sectors) in clone.chunks(512).zip(healthy.chunks(512)).enumerate() {
        let (got, wanted) = sectors;
        if i as u64 == sector {
            assert!(got.starts_with(b"BadSectoR\0??"));
        } else {
            assert!(got == wanted || got == &volume[i * 512..i * 512 + 512], "sector {i}");
        }
    }
    said.stdout
}

#[test]
fn a_bad_sector_in_the_bitmap_hides_nothing() {
    let scene = Scene::new();
    let editor = Editor::open(&scene.place.at("volume"));
    let bitmap = editor.bitmap_pos() / 512;
    let said = ours_on_bad_sector(&scene, bitmap);
    assert!(said.contains("$Bitmap: cannot read 512 bytes"), "{said}");
    // The clusters whose bits were lost count as used: 4096 of them, all there.
    let (clone, volume) = (scene.place.at("clone"), scene.place.at("volume"));
    let read = |path: &Path| Editor::open(path).read(8192, 4096 * 4096 - 8192);
    let (clone, volume) = (read(&clone), read(&volume));
    let differing = clone.chunks(512).zip(volume.chunks(512)).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 1, "the bitmap's own sector");
}

#[test]
fn copies_stand_in_for_what_was_overwritten() {
    let scene = Scene::new();
    let at = |name| scene.place.at(name);
    let editor = Editor::open(&at("volume"));
    for (pos, len, found, message) in [
        (0, 512, "no NTFS volume: boot sector at byte 0x0", "using its backup at byte"),
        (editor.record_pos(0), 1024, "MFT record 0 at byte", "using its copy in $MFTMirr"),
    ] {
        let before = editor.read(pos, len);
        editor.write(pos, &vec![0; len as usize]);
        ours(["-q", "-O", text(&at("clone")), text(&at("volume"))]).exits(1).says(found);
        let said = ours(["-q", "--rescue", "-O", text(&at("clone")), text(&at("volume"))]).ok();
        said.says(found).says(message);
        // What is there is copied as it is.
        let healthy = std::fs::read(at("healthy")).unwrap();
        let clone = std::fs::read(at("clone")).unwrap();
        let zeroed = pos as usize..(pos + len) as usize;
        assert!(clone[zeroed.clone()].iter().all(|byte| *byte == 0));
        assert!(
            clone[..zeroed.start] == healthy[..zeroed.start] && clone[zeroed.end..] == healthy[zeroed.end..]
        );
        editor.write(pos, &before);
    }
}
