//! Rescuing volumes from disks with sectors that cannot be read: what one bad sector costs, wherever it lies.

use crate::faulty::FaultyDisk;
use crate::scene::{FILE, Form, OTHER_FILE, Scene, assert_equal, differing};
use crate::tools::{noise, ours, text};
use crate::volumes::{Mounted, filled};

/// What becomes of a bad sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Marked,
    /// Written from its copy: the sector before, as the healthy clone has it.
    Repaired(&'static str),
}
use Fate::{Marked, Repaired};

/// One bad sector in each structure: what becomes of it, and what of all else.
#[test]
fn one_bad_sector_anywhere() {
    let scene = Scene::new();
    let editor = scene.editor();
    let record = |mft_no| editor.record_pos(mft_no) / 512;
    let data_of = |mft_no| editor.first_cluster_of(mft_no, 0x80) / 512;
    let rows = [
        ("file data", scene.sector_of_file(FILE.0) + 3, Marked),
        ("boot sector", 0, Repaired("boot sector")),
        ("the sector behind it", 1, Marked),
        ("record 0", record(0), Repaired("MFT record 0")),
        ("record 0, its second sector", record(0) + 1, Repaired("MFT record 0")),
        ("record 1", record(1), Repaired("MFT record 1")),
        ("record 1, its second sector", record(1) + 1, Repaired("MFT record 1")),
        ("record 2", record(2), Repaired("MFT record 2")),
        ("record 2, its second sector", record(2) + 1, Repaired("MFT record 2")),
        ("record 3", record(3), Repaired("MFT record 3")),
        ("record 3, its second sector", record(3) + 1, Repaired("MFT record 3")),
        ("record 5", record(5), Marked),
        ("record 6", record(6), Marked),
        ("record 6, its second sector", record(6) + 1, Marked),
        ("$Bitmap", editor.bitmap_pos() / 512, Marked),
        ("$MFTMirr", data_of(1), Marked),
        ("$MFTMirr, record 3", data_of(1) + 6, Marked),
        ("$LogFile", editor.log_pos() / 512, Marked),
        ("$UpCase", data_of(10) + 5, Marked),
        ("$Secure", data_of(9), Marked),
        ("$AttrDef", data_of(4), Marked),
        ("root index", editor.blocks_of(5)[0] / 512, Marked),
        ("a file's record", record(70), Marked),
        ("backup boot sector", editor.total_sectors, Marked),
    ];
    let (healthy, volume) = (scene.read("healthy"), scene.read("volume"));
    for (what, sector, fate) in rows {
        let disk = scene.disk(512, &[sector]);
        let source = text(&disk.path()).to_owned();
        for (options, fate) in [("", fate), ("--no-repair", Marked)] {
            if !options.is_empty()
                && fate == Marked
                && !matches!(what, "boot sector" | "record 0" | "record 3")
            {
                continue;
            }
            for form in Form::BOTH {
                let told = format!("{what}, sector {sector}, {form:?} {options}");
                println!("{told}");
                let said =
                    scene.ours(&format!("--rescue {options} {} -O target {source}", form.option())).ok();
                let found = scene.content("target", form);
                assert_eq!(found.len(), healthy.len(), "{told}");
                let mark = scene.marked(&[sector]);
                let sectors = found.chunks(512).zip(healthy.chunks(512)).enumerate();
                for (i, (found, healthy)) in sectors {
                    let at = i * 512..i * 512 + 512;
                    match fate {
                        Marked if i as u64 == sector => {
                            assert!(found == &mark[at], "{told}: {:?}", &found[..16]);
                        }
                        // Where it is not known what is in use, more is copied.
                        _ => assert!(found == healthy || found == &volume[at], "{told}: sector {i}"),
                    }
                }
                let more = differing(&found, &healthy).into_iter().filter(|other| *other != sector);
                let more: Vec<_> = more.collect();
                let hides = matches!(what, "record 6" | "record 6, its second sector" | "$Bitmap");
                assert!(more.is_empty() || hides, "{told}: {more:?}");
                match fate {
                    Marked => said.says("512 bytes could not be read"),
                    Repaired(name) => {
                        assert!(!said.stdout.contains("BadSectoR"), "{}", said.stdout);
                        said.says(&format!("Repaired: 512 bytes at byte {}", sector * 512)).says(name)
                    }
                };
            }
        }
    }
}

/// A volume whose sectors are as large as the disk's, and one with smaller ones.
#[test]
fn a_disk_with_large_sectors() {
    let scene = Scene::new();
    let first = scene.sector_of_file(FILE.0);
    let wanted = scene.marked(&(first..first + 8).collect::<Vec<_>>());
    let disk = scene.disk(4096, &[first + 5]);
    for form in Form::BOTH {
        scene.ours(&format!("--rescue {} -O target {}", form.option(), text(&disk.path()))).ok();
        assert_equal(&scene.content("target", form), &wanted, "sectors of 512 bytes on 4096");
    }

    let (place, volume) = filled(24 << 20, 4096, 4096, 60);
    ours(["-q", "-o", text(&place.at("healthy")), text(&volume)]).ok();
    let mut wanted = std::fs::read(place.at("healthy")).unwrap();
    let data = noise(2, 600);
    let cluster = wanted.chunks_mut(4096).find(|cluster| cluster.starts_with(&data)).unwrap();
    cluster.fill(b'?');
    cluster[..10].copy_from_slice(b"BadSectoR\0");
    let first = wanted.chunks(4096).position(|cluster| cluster.starts_with(b"BadSectoR")).unwrap() as u64 * 8;
    let disk = FaultyDisk::new(&volume, 4096, &[first + 2]);
    ours(["-q", "--rescue", "-O", text(&place.at("clone")), text(&disk.path())]).ok();
    assert_equal(&std::fs::read(place.at("clone")).unwrap(), &wanted, "sectors of 4096 bytes");
}

#[test]
fn what_is_lost_is_told() {
    let scene = Scene::new();
    let sector = scene.sector_of_file(FILE.0) + 3;
    let disk = scene.disk(512, &[sector]);
    let said = scene.ours(&format!("--rescue -O clone {}", text(&disk.path()))).ok();
    let pos = sector * 512;
    let said =
        said.says(&format!("WARNING: cannot read 512 bytes at byte {pos} ({pos:#x}): marked BadSectoR"));
    said.says("Lost: 512 bytes could not be read").says(FILE.1);
    scene.ours(&format!("--rescue --strict -O clone {}", text(&disk.path()))).exits(3);
    // The file is the one that was hit, and the only one.
    let clone = Mounted::new(&scene.at("clone"), "ro");
    let hit = std::fs::read(clone.path().join(FILE.1)).unwrap();
    assert!(hit[3 * 512..].starts_with(b"BadSectoR\0???"));
    assert_eq!(std::fs::read(clone.path().join(OTHER_FILE.1)).unwrap(), noise(8, 8 * 7919 % 30_000));
}

#[test]
fn areas_are_told_once_and_sectors_marked_each() {
    let scene = Scene::new();
    let first = scene.sector_of_file(2);
    let far = scene.sector_of_file(8) + 1;
    let bad: Vec<_> = (first..first + 20).chain([far]).collect();
    let disk = scene.disk(512, &bad);
    for form in Form::BOTH {
        let said =
            scene.ours(&format!("--rescue {} -O target {}", form.option(), text(&disk.path()))).ok().stdout;
        assert_eq!(said.matches("WARNING: cannot read").count(), 2, "{said}");
        assert!(said.contains("WARNING: cannot read 10240 bytes at byte"), "{said}");
        assert_equal(&scene.content("target", form), &scene.marked(&bad), "target");
    }
}

#[test]
fn without_rescue_the_first_error_ends_the_job() {
    let scene = Scene::new();
    let sector = scene.sector_of_file(4);
    let disk = scene.disk(512, &[sector]);
    for option in ["-s", ""] {
        let said = scene.ours(&format!("{option} -o new {}", text(&disk.path()))).exits(1);
        let said = said.says("cannot read ").says("Input/output error");
        said.says("the disk is failing: --rescue goes on").says("what was copied so far is left in");
        assert!(!scene.at("new").exists());
        std::fs::remove_file(scene.at("new.part")).unwrap();
    }
}

#[test]
fn an_unreadable_record_of_a_file() {
    let scene = Scene::new();
    let sector = scene.editor().record_pos(70) / 512;
    let disk = scene.disk(512, &[sector]);
    let said = scene.ours(&format!("-o new {}", text(&disk.path()))).exits(1);
    said.says("MFT record 70 at byte").says("the disk is failing: --rescue goes on");
    assert!(!scene.at("new.part").exists(), "nothing is created");
    let said = scene.ours(&format!("--rescue -O clone {}", text(&disk.path()))).ok();
    let said = said.says("MFT records that are lost, each of them perhaps a file: 1");
    said.says("<record 70>: 1024 bytes").says("Damaged: 1 MFT records");
}

#[test]
fn a_bad_sector_in_the_bitmap_hides_nothing() {
    let scene = Scene::new();
    let bitmap = scene.editor().bitmap_pos() / 512;
    let disk = scene.disk(512, &[bitmap]);
    let said = scene.ours(&format!("--rescue -O clone {}", text(&disk.path()))).ok();
    said.says("$Bitmap: cannot read 512 bytes");
    // The clusters whose bits were lost count as used: 4096 of them, all there.
    let all = 8192..4096 * 4096;
    let found = differing(&scene.read("clone")[all.clone()], &scene.read("volume")[all]);
    assert_eq!(found, [bitmap - 16], "the bitmap's own sector");
}

/// A sector without a mark, but of zeros: it can be read, and is no error of the disk.
#[test]
fn copies_stand_in_for_what_was_overwritten() {
    let scene = Scene::new();
    let editor = scene.editor();
    for (pos, len, found, message) in [
        (0, 512, "no NTFS volume: boot sector at byte 0x0", "using its backup at byte"),
        (editor.record_pos(0), 1024, "MFT record 0 at byte", "using its copy in $MFTMirr"),
    ] {
        let before = editor.read(pos, len);
        editor.write(pos, &vec![0; len as usize]);
        scene.ours("-O clone volume").exits(1).says(found);
        scene.ours("--rescue -O clone volume").ok().says(found).says(message);
        // What is there is copied as it is.
        let mut wanted = scene.read("healthy");
        wanted[pos as usize..(pos + len) as usize].fill(0);
        assert_equal(&scene.read("clone"), &wanted, message);
        editor.write(pos, &before);
    }
}
