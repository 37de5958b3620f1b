//! That nothing private is in copies of metadata, whatever is wrong with the volume, and that what was wiped is told
//! rightly.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::edit::{Editor, put, u32_at, u64_at};
use crate::faulty::FaultyDisk;
use crate::metadata::{ACCEPTED, compare_images, listing, parse};
use crate::tools::{ntfsclone, ours, text};
use crate::volumes::{Mounted, Place, mkntfs, small_volume};
use crate::walk::{Walk, What};

/// Begins everything that must not be found in a copy.
const MARK: &str = "MaRk3r";

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// How often the marker is in a file, as bytes and as UTF-16.
fn marks(path: &Path) -> usize {
    let bytes = std::fs::read(path).unwrap();
    let count = |wanted: &[u8]| bytes.windows(wanted.len()).filter(|window| *window == wanted).count();
    count(MARK.as_bytes()) + count(&utf16(MARK))
}

/// Puts the marker at a place of the volume; it is found once more.
fn plant(volume: &Path, what: &str, plant: impl FnOnce(&Editor)) {
    let before = marks(volume);
    plant(&Editor::open(volume));
    assert!(marks(volume) > before, "{what} is not planted");
}

/// Puts the marker at byte `at` of a record, which must be slack or data.
fn plant_in_record(editor: &Editor, mft_no: u64, at: usize) {
    let mut record = editor.record(mft_no);
    put(&mut record, at, MARK.as_bytes());
    editor.put_record(mft_no, record);
}

/// A volume with the marker wherever something private can be.
fn marked_volume(volume: &Path) {
    mkntfs(volume, 24 << 20, 512, 4096);
    {
        let mounted = Mounted::new(volume, "streams_interface=windows");
        let root = mounted.path();
        std::fs::write(root.join("small"), format!("{MARK} in a small file")).unwrap();
        std::fs::write(root.join("large"), MARK.repeat(3000)).unwrap();
        std::fs::write(root.join("small:stream"), format!("{MARK} in a stream")).unwrap();
        // Streams of the root folder, with names as NTFS's own.
        std::fs::write(root.join(":$small"), format!("{MARK} in the root folder")).unwrap();
        std::fs::write(root.join(":$large"), MARK.repeat(2000)).unwrap();
        std::fs::write(root.join("shifted"), "x".repeat(200)).unwrap();
        std::fs::write(root.join("extended"), "").unwrap();
        std::fs::write(root.join("gone"), format!("{MARK} in a deleted file")).unwrap();
        for folder in ["kept", "emptied"] {
            std::fs::create_dir(root.join(folder)).unwrap();
            for i in 0..300 {
                let name = if i % 3 == 0 && folder == "kept" { "stays" } else { MARK };
                std::fs::write(root.join(folder).join(format!("{name} called so {i}")), "x").unwrap();
            }
        }
    }
    {
        let mounted = Mounted::new(volume, "");
        std::fs::remove_file(mounted.path().join("gone")).unwrap();
        for folder in ["kept", "emptied"] {
            for entry in mounted.path().join(folder).read_dir().unwrap() {
                let entry = entry.unwrap();
                if entry.file_name().to_string_lossy().starts_with(MARK) {
                    std::fs::remove_file(entry.path()).unwrap();
                }
            }
        }
    }
    let in_use = |editor: &Editor, mft_no: u64| u32_at(&editor.record(mft_no), 0x18) as usize;
    plant(volume, "behind what a user's record uses", |editor| {
        let mft_no = editor.find("small");
        plant_in_record(editor, mft_no, in_use(editor, mft_no) + 8);
    });
    for mft_no in [0, 1, 5, 9, 11] {
        plant(volume, "behind what a record of NTFS uses", |editor| {
            plant_in_record(editor, mft_no, in_use(editor, mft_no) + 8);
        });
    }
    // One of the two may lie across the end of a stride.
    let twice = MARK.repeat(2);
    plant(volume, "a stream of the root folder", |editor| {
        let record = editor.with_resident(editor.record(5), 0x80, "mine", twice.as_bytes());
        editor.put_record(5, record);
    });
    plant(volume, "an extended attribute", |editor| {
        let ea = [&[0, 0, 0, 0, 0, 4, 12, 0], &b"NAME\0"[..], twice.as_bytes()].concat();
        let mft_no = editor.find("extended");
        let record = editor.with_resident(editor.record(mft_no), 0xe0, "", &ea);
        editor.put_record(mft_no, record);
    });
    plant(volume, "a reparse point that is no link", |editor| {
        let point = [&[0x1a, 0, 0, 0x90, 12, 0, 0, 0], twice.as_bytes()].concat();
        let mft_no = editor.find("large");
        let record = editor.with_resident(editor.record(mft_no), 0xc0, "", &point);
        editor.put_record(mft_no, record);
    });
    plant(volume, "a property of a kind that nobody knows", |editor| {
        let mft_no = editor.find("large");
        let record = editor.with_resident(editor.record(mft_no), 0x1000, "", twice.as_bytes());
        editor.put_record(mft_no, record);
    });
    // Where no attribute of Windows has anything: between header and value, behind a name that is none, in a value that
    // is longer than its kind ever is, in clusters of a kind that has none.
    plant(volume, "between header and value", |editor| {
        let mft_no = editor.find("shifted");
        let mut record = editor.record(mft_no);
        let data = editor.offset_of(&record, 0x80);
        put(&mut record, data + 16, &1u32.to_le_bytes());
        put(&mut record, data + 20, &200u16.to_le_bytes());
        put(&mut record, data + 24, MARK.repeat(20).as_bytes());
        editor.put_record(mft_no, record);
    });
    plant(volume, "behind a name of no length", |editor| {
        let mft_no = editor.find("extended");
        let mut record = editor.with_resident(editor.record(mft_no), 0x100, "$TXF_DATA", twice.as_bytes());
        let txf = editor.offset_of(&record, 0x100);
        record[txf + 9] = 0;
        put(&mut record, txf + 10, &64u16.to_le_bytes());
        put(&mut record, txf + 16, &1u32.to_le_bytes());
        editor.put_record(mft_no, record);
    });
    plant(volume, "an object identifier that is too long", |editor| {
        let mft_no = editor.find("large");
        let value = [&[0; 64], twice.as_bytes()].concat();
        let record = editor.with_resident(editor.record(mft_no), 0x40, "", &value);
        editor.put_record(mft_no, record);
    });
    plant(volume, "an index root in clusters", |editor| {
        let (mft_no, lcn) = (editor.find("large"), editor.free_clusters(3000, 1));
        editor.mark(lcn, 1, true);
        editor.write(lcn * 4096, MARK.repeat(600).as_bytes());
        let mut record = editor.with_another_stream(editor.record(mft_no), &[(1, Some(lcn))]);
        let stream = editor.last_offset_of(&record);
        put(&mut record, stream, &0x1001u32.to_le_bytes());
        editor.put_record(mft_no, record);
    });
    plant(volume, "behind the end of $AttrDef", |editor| {
        editor.write(editor.first_cluster_of(4, 0x80) + 2560 + 100, MARK.as_bytes());
    });
    plant(volume, "behind the records of $MFT", |editor| {
        let data = editor.attributes(&editor.record(0));
        let data = data.iter().find(|attribute| u32_at(attribute, 0) == 0x80).unwrap();
        let (allocated, size) = (u64_at(data, 40), u64_at(data, 56));
        assert!(size < allocated);
        editor.write(editor.record_pos(0) + allocated - 100, MARK.as_bytes());
    });
    plant(volume, "before the backup boot sector", |editor| {
        editor.write(editor.nr_clusters() * editor.cluster_size + 700, MARK.as_bytes());
    });
    plant(volume, "in pages of $LogFile", |editor| {
        let log = editor.first_cluster_of(2, 0x80);
        for page in [1, 2, 4, 8, 16] {
            editor.write(log + page * 4096, &[&b"RCRD\x28\0\x09\0"[..], &[1; 600]].concat());
            editor.write(log + page * 4096 + 700, MARK.as_bytes());
        }
    });
    plant(volume, "behind the last entry of an index", |editor| {
        let used = |pos: &u64| u32_at(&editor.read(*pos, 4096), 0x1c);
        let blocks = editor.blocks_of(editor.find("kept"));
        let pos = blocks.into_iter().find(|pos| used(pos) < 3500).unwrap();
        editor.write(pos + 0x18 + used(&pos) + 8, MARK.as_bytes());
    });
}

#[test]
fn nothing_private_is_copied() {
    let place = Place::new();
    let at = |name| place.at(name);
    let volume = at("volume");
    marked_volume(&volume);
    assert!(marks(&volume) > 3500, "{}", marks(&volume));
    // ntfsclone leaves some of it: the test can fail.
    ntfsclone(["-qmso", text(&at("theirs")), text(&volume)]).ok();
    assert!(marks(&at("theirs")) > 10, "{}", marks(&at("theirs")));
    for options in ["-qmO", "-qmsO", "-qmtO", "-qmstO"] {
        ours([options, text(&at("copy")), text(&volume)]).ok();
        assert_eq!(marks(&at("copy")), 0, "{options}");
    }
    // The whole log is kept where it is asked for, and names of files that are there.
    ours(["-q", "-m", "--full-logfile", "-O", text(&at("copy")), text(&volume)]).ok();
    assert_eq!(marks(&at("copy")), 5);
    let names = utf16("stays called so");
    let copy = std::fs::read(at("copy")).unwrap();
    assert!(copy.windows(names.len()).any(|window| window == names));
    assert_eq!(listing(&at("copy")), listing(&volume));
}

#[test]
fn every_accepted_difference_occurs() {
    let place = Place::new();
    let (volume, copy, theirs) = (place.at("volume"), place.at("copy"), place.at("theirs"));
    marked_volume(&volume);
    ours(["-qmsO", text(&copy), text(&volume)]).ok();
    ntfsclone(["-qmsO", text(&theirs), text(&volume)]).ok();
    let seen = compare_images(&volume, &copy, &theirs);
    assert_eq!(seen, ACCEPTED.iter().map(|(what, _)| *what).collect());
}

#[test]
fn times_are_wiped_unless_they_are_wanted() {
    let place = Place::new();
    let (volume, copy) = (place.at("volume"), place.at("copy"));
    small_volume(&volume);
    {
        let mounted = Mounted::new(&volume, "");
        let file = File::options().write(true).open(mounted.path().join("folder1/file1.bin")).unwrap();
        // 2001-02-03 04:05:06
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(981_173_106)).unwrap();
    }
    let time = (116_444_736_000_000_000 + 981_173_106 * 10_000_000u64).to_le_bytes();
    let found =
        |path: &Path| std::fs::read(path).unwrap().windows(8).filter(|window| *window == time).count();
    // In the record and in the folder's index.
    assert_eq!(found(&volume), 2);
    ours(["-qmO", text(&copy), text(&volume)]).ok().says("Wiped timestamp data     =");
    assert_eq!(found(&copy), 0);
    ours(["-qmtO", text(&copy), text(&volume)]).ok().says("Wiped timestamp data     =          0\n");
    assert_eq!(found(&copy), 2);
}

#[test]
fn the_counters_are_right() {
    let place = Place::new();
    let (volume, clone, image) = (place.at("volume"), place.at("clone"), place.at("image"));
    marked_volume(&volume);
    let to_file = ours(["-qmO", text(&clone), text(&volume)]).ok();
    let to_image = ours(["-qmsO", text(&image), text(&volume)]).ok();
    let printed = |said: &str, what: &str| -> u64 {
        let line = said.lines().find(|line| line.starts_with(what)).unwrap();
        line.split('=').nth(1).unwrap().trim().parse().unwrap()
    };
    // Each byte that was something and is zero now, each time, and none of a copy.
    let (walk, copied) = (Walk::new(&volume), parse(&image));
    let mut counts = BTreeMap::new();
    for (lcn, bytes) in &copied.clusters {
        for (pos, byte) in (lcn * copied.cluster_size..).zip(bytes) {
            if walk.is_copy(pos) {
                continue;
            }
            if let Some(what) = walk.what(pos)
                && (what == What::Time
                    || *byte == 0 && walk.byte(pos) != 0
                    || what == What::Fixup && *byte != walk.byte(pos))
            {
                *counts.entry(what).or_insert(0) += 1;
            }
        }
    }
    let count = |kinds: &[What]| kinds.iter().filter_map(|kind| counts.get(kind)).sum::<u64>();
    assert_eq!(count(&[What::Kept, What::SequenceNumber]), 0);
    // What belongs at the end of a stride is in the list of fixups, whatever it is: two bytes, of which one may stay as it
    // is by chance.
    let fixups = 2 * count(&[What::Fixup]);
    for said in [&to_file.stdout, &to_image.stdout] {
        for (line, kinds) in [
            ("Wiped unused MFT data", &[What::RecordSlack, What::Padding][..]),
            ("Wiped deleted MFT data", &[What::DeletedRecord, What::BehindMft]),
            ("Wiped resident user data", &[What::ResidentData]),
            ("Wiped unused index data", &[What::IndexSlack, What::EntryPadding, What::UnusedBlock]),
            ("Wiped timestamp data", &[What::Time]),
            (
                "Wiped totally",
                &counts
                    .keys()
                    .copied()
                    .filter(|what| !matches!(what, What::Fixup | What::NotRead))
                    .collect::<Vec<_>>(),
            ),
            ("Wiped other values", &[What::PrivateValue, What::Log, What::BehindEnd, What::Extra]),
        ] {
            let (printed, counted) = (printed(said, line), count(kinds));
            assert!(
                (counted..=counted + fixups).contains(&printed),
                "{line}: {printed}, {counted} + {fixups}"
            );
        }
    }
}

/// Changes the end of one stride of a record or block, as a write that was cut off does.
fn tear(editor: &Editor, pos: u64, stride: u64) {
    let end = pos + stride * 512 + 510;
    let torn: Vec<u8> = editor.read(end, 2).iter().map(|byte| byte ^ 0x55).collect();
    editor.write(end, &torn);
}

#[test]
fn torn_records_and_blocks_are_wiped_too() {
    let place = Place::new();
    let (volume, copy) = (place.at("volume"), place.at("copy"));
    for stride in [0, 1] {
        marked_volume(&volume);
        let editor = Editor::open(&volume);
        let record = editor.record_pos(editor.find("small"));
        let [block, other, ..] = editor.blocks_of(editor.find("kept"))[..] else { panic!("few blocks") };
        tear(&editor, record, stride);
        tear(&editor, block, stride * 5);
        // A block that is none, though the bitmap counts it.
        editor.write(other, &MARK.repeat(600).as_bytes()[..2000]);
        let (to, from) = (text(&copy), text(&volume));
        ours(["-q", "-m", "-O", to, from]).exits(1).says(&format!("at byte {record:#x}: update sequence"));
        for go_on in ["--ignore-fs-check", "--rescue"] {
            for options in ["-qmO", "-qmsO"] {
                let said = ours([go_on, options, to, from]).ok();
                let said =
                    said.says(&format!("at byte {record:#x}: update sequence mismatch in sector {stride}"));
                let said = said.says(&format!("at byte {block:#x}: update sequence mismatch"));
                said.says(&format!("at byte {other:#x}: no record")).says("Damaged: 3 ");
                assert_eq!(marks(&copy), 0, "{go_on} {options}");
            }
            ours([go_on, "-qmO", to, from]).ok();
            let clone = Editor::open(&copy);
            // What lies before the damage is left.
            let name = utf16("stays called so");
            let good = clone.read(block, 4096).windows(name.len()).any(|window| window == name);
            assert_eq!((clone.read(record, 4) == b"FILE", good), (stride == 1, stride == 1));
            assert_eq!(clone.read(other, 4096), vec![0; 4096]);
            ours([go_on, "--strict", "-qmO", to, from]).exits(3);
        }
        // Only the index is damaged: that shows when it is read, and leaves no copy.
        tear(&editor, record, stride);
        ours(["-qmo", text(&place.at("new")), from]).exits(1).says(&format!("at byte {block:#x}: update"));
        assert!(!place.at("new").exists());
        std::fs::remove_file(place.at("new.part")).unwrap();
    }
}

/// A folder with an index block that lies in two runs: its record, and where the block begins and goes on.
fn split_block(editor: &Editor) -> (u64, u64, u64) {
    let folder = editor.find("folder");
    let record = editor.record(folder);
    let start = editor.first_cluster_of(folder, 0xa0);
    // Its last two clusters of 512 bytes go where none are used.
    let lcn = editor.free_clusters(30_000, 2);
    editor.mark(lcn, 2, true);
    editor.write(lcn * 512, &editor.read(start + 6 * 512, 1024));
    editor.write(start + 6 * 512, MARK.repeat(170).as_bytes());
    editor.mark(start / 512 + 6, 2, false);
    let runs = editor.runs_of(folder, 0xa0);
    let (len, first) = (runs[0].0, runs[0].1.unwrap());
    let rest = [(6, Some(first)), (2, Some(lcn)), (len - 8, Some(first + 8))];
    let runs: Vec<_> =
        rest.into_iter().filter(|(len, _)| *len > 0).chain(runs[1..].iter().copied()).collect();
    editor.put_record(folder, editor.with_runs_of(record, 0xa0, &runs));
    (folder, start, lcn * 512)
}

#[test]
fn a_block_in_two_runs_counts_once() {
    let place = Place::new();
    let (volume, copy) = (place.at("volume"), place.at("copy"));
    mkntfs(&volume, 24 << 20, 512, 512);
    {
        let mounted = Mounted::new(&volume, "");
        let folder = mounted.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        for i in 0..25 {
            std::fs::write(folder.join(format!("a name of some length {i}")), "x").unwrap();
        }
    }
    let whole = ours(["-qmO", text(&copy), text(&volume)]).ok().stdout;
    let editor = Editor::open(&volume);
    let (_, start, rest) = split_block(&editor);
    let split = ours(["-qmO", text(&copy), text(&volume)]).ok().stdout;
    // All but the slack of the record, which was written anew.
    let counters = |said: &str| {
        let lines = said.lines().filter(|line| line.starts_with("Wiped"));
        let lines = lines.filter(|line| !line.contains("unused MFT") && !line.contains("totally"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(counters(&whole), counters(&split));
    assert_eq!((listing(&copy), marks(&copy)), (listing(&volume), 0));

    // Lost in the part that is far away; then torn there.
    {
        let disk = FaultyDisk::new(&volume, 512, &[rest / 512 + 1]);
        let said = ours(["--rescue", "-qmO", text(&copy), text(&disk.path())]).ok();
        let said = said.says("Lost: 512 bytes could not be read").says("Damaged: 1 ");
        assert_eq!(said.stdout.matches("marked BadSectoR\n").count(), 1, "{}", said.stdout);
        assert_eq!(&Editor::open(&copy).read(rest + 512, 10), b"BadSectoR\0");
    }
    editor.write(rest + 1022, b"XX");
    let said = ours(["--ignore-fs-check", "-qmO", text(&copy), text(&volume)]).ok();
    let said =
        said.says(&format!("at byte {start:#x}: update sequence mismatch in sector 7")).says("Damaged: 1 ");
    assert_eq!(said.stdout.matches("index block").count(), 1, "{}", said.stdout);
}

#[test]
fn bad_sectors_in_metadata_are_marked_and_the_rest_is_wiped() {
    let place = Place::new();
    let (volume, copy) = (place.at("volume"), place.at("copy"));
    marked_volume(&volume);
    let editor = Editor::open(&volume);
    let block = editor.blocks_of(editor.find("kept"))[0];
    let record = editor.record_pos(editor.find("small"));
    let backup = editor.total_sectors * 512;
    let bad = [block + 512, record + 512, backup].map(|pos| pos / 512);
    let disk = FaultyDisk::new(&volume, 512, &bad);
    let said = ours(["--rescue", "-qmO", text(&copy), text(&disk.path())]).ok();
    let said = said.says(&format!("({:#x}): marked BadSectoR", block + 512));
    said.says("Lost: 1536 bytes could not be read and are marked BadSectoR.");
    assert_eq!(marks(&copy), 0);
    let clone = Editor::open(&copy);
    for sector in bad {
        assert_eq!(&clone.read(sector * 512, 10), b"BadSectoR\0", "sector {sector}");
    }
    ours(["-qmO", text(&copy), text(&disk.path())]).exits(1).says("the disk is failing");
}
