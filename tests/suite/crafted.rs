//! Lies made by hand, one for each way in which a volume can send its reader round in circles, out of bounds or after
//! numbers too large to be true; and what becomes of each.

use crate::edit::{Editor, Run, put, u16_at, u32_at, u64_at};
use crate::hostile::Pen;
use crate::volumes::{fill, mkntfs};

/// What is done to a volume, and what its copy then says: the exit status and some words of a plain save, and the exit
/// status of a strict rescue.
struct Lie {
    name: &'static str,
    tell: fn(&Editor),
    plain: (i32, &'static str),
    rescue: i32,
}

const fn lie(name: &'static str, tell: fn(&Editor), plain: (i32, &'static str), rescue: i32) -> Lie {
    Lie { name, tell, plain, rescue }
}

/// Two files in clusters, one of them in many pieces, and a folder.
const FILE: &str = "file4.bin";
const OTHER: &str = "file8.bin";
const FOLDER: &str = "folder1";

fn reference(editor: &Editor, mft_no: u64) -> u64 {
    mft_no | u16_at(&editor.record(mft_no), 0x10) << 48
}

/// An entry of an attribute list, for an attribute without a name.
fn entry(kind: u32, vcn: u64, reference: u64, id: u16) -> Vec<u8> {
    let mut entry = vec![0; 32];
    put(&mut entry, 0, &kind.to_le_bytes());
    put(&mut entry, 4, &32u16.to_le_bytes());
    entry[7] = 26;
    put(&mut entry, 8, &vcn.to_le_bytes());
    put(&mut entry, 16, &reference.to_le_bytes());
    put(&mut entry, 24, &id.to_le_bytes());
    entry
}

/// Gives a record an attribute list: its own attributes, and these.
fn list(editor: &Editor, mft_no: u64, more: &[Vec<u8>]) {
    let record = editor.record(mft_no);
    let own = reference(editor, mft_no);
    let attributes = editor.attributes(&record);
    let entry_of =
        |attribute: &Vec<u8>| entry(u32_at(attribute, 0) as u32, 0, own, u16_at(attribute, 14) as u16);
    let mut entries: Vec<_> = attributes.iter().map(entry_of).chain(more.iter().cloned()).collect();
    entries.sort_by_key(|entry| (u32_at(entry, 0), u64_at(entry, 8)));
    editor.put_record(mft_no, editor.with_resident(record, 0x20, "", &entries.concat()));
}

/// Makes a record say that it belongs to another.
fn belongs_to(editor: &Editor, mft_no: u64, base: u64) {
    let mut record = editor.record(mft_no);
    put(&mut record, 0x20, &reference(editor, base).to_le_bytes());
    editor.put_record(mft_no, record);
}

/// Gives a file other runs; its sizes stay.
fn runs(editor: &Editor, name: &str, runs: &[Run]) {
    let mft_no = editor.find(name);
    let record = editor.record(mft_no);
    editor.put_record(mft_no, editor.with_runs_of(record, 0x80, runs));
}

/// Writes bytes as the runs of a file.
fn raw_runs(editor: &Editor, name: &str, bytes: &[u8]) {
    let mft_no = editor.find(name);
    let mut record = editor.record(mft_no);
    let at = editor.offset_of(&record, 0x80);
    let runs = at + u16_at(&record, at + 32) as usize;
    put(&mut record, runs, bytes);
    editor.put_record(mft_no, record);
}

/// Writes a field of the attribute of this kind.
fn field(editor: &Editor, mft_no: u64, kind: u64, at: usize, value: &[u8]) {
    let mut record = editor.record(mft_no);
    let attribute = editor.offset_of(&record, kind);
    put(&mut record, attribute + at, value);
    editor.put_record(mft_no, record);
}

fn boot(editor: &Editor, at: u64, value: &[u8]) {
    for sector in [0, editor.total_sectors * editor.sector_size] {
        editor.write(sector + at, value);
    }
}

const LIES: &[Lie] = &[
    lie(
        "a list that sends its reader to the record that it is in",
        |editor| {
            let file = editor.find(FILE);
            list(editor, file, &[entry(0x80, 100, reference(editor, file), 77)]);
        },
        (0, ""),
        0,
    ),
    lie(
        "an extension record with a list that leads back",
        |editor| {
            let (file, other) = (editor.find(FILE), editor.find(OTHER));
            list(editor, file, &[entry(0x80, 100, reference(editor, other), 77)]);
            list(editor, other, &[entry(0x80, 100, reference(editor, file), 77)]);
            belongs_to(editor, other, file);
        },
        (0, ""),
        0,
    ),
    lie(
        "two records that each list the other",
        |editor| {
            let (file, other) = (editor.find(FILE), editor.find(OTHER));
            list(editor, file, &[entry(0x80, 100, reference(editor, other), 77)]);
            list(editor, other, &[entry(0x80, 100, reference(editor, file), 77)]);
        },
        (0, ""),
        0,
    ),
    lie(
        "a record that is its own extension",
        |editor| {
            let file = editor.find(FILE);
            belongs_to(editor, file, file);
        },
        (1, "(1 only in $Bitmap, 0 only in the MFT, 0 claimed twice)"),
        0,
    ),
    lie(
        "two records that are each other's extension",
        |editor| {
            let (file, other) = (editor.find(FILE), editor.find(OTHER));
            belongs_to(editor, file, other);
            belongs_to(editor, other, file);
        },
        (1, "(2 only in $Bitmap, 0 only in the MFT, 0 claimed twice)"),
        0,
    ),
    lie(
        "a list of $MFT that leads to a record behind its own end",
        |editor| list(editor, 0, &[entry(0x80, 1 << 20, 1 << 40 | 1 << 48, 77)]),
        (0, ""),
        0,
    ),
    lie(
        "a list of $MFT that leads to record 0 again",
        |editor| list(editor, 0, &[entry(0x80, 1 << 20, reference(editor, 0), 77)]),
        (0, ""),
        0,
    ),
    lie(
        "a list that is said to have 2^40 bytes, all holes",
        |editor| {
            let file = editor.find(FILE);
            let record = editor.record(file);
            let record = editor.with_resident(record, 0x20, "", &[0; 64]);
            editor.put_record(file, record);
            // Not resident, with runs where the entries were.
            field(editor, file, 0x20, 8, &[1]);
            field(editor, file, 0x20, 16, &[0; 16]);
            field(editor, file, 0x20, 32, &[64, 0]);
            for at in [40, 48] {
                field(editor, file, 0x20, at, &(1u64 << 40).to_le_bytes());
            }
            field(editor, file, 0x20, 64, &[0x04, 0, 0, 0, 0x10, 0]);
        },
        (0, ""),
        0,
    ),
    lie(
        "a list of entries of no length",
        |editor| {
            let file = editor.find(FILE);
            editor.put_record(file, editor.with_resident(editor.record(file), 0x20, "", &[0; 256]));
        },
        (0, ""),
        0,
    ),
    lie(
        "two files in the same clusters",
        |editor| {
            let theirs = editor.runs_of(editor.find(OTHER), 0x80);
            runs(editor, FILE, &theirs);
        },
        (1, "0 only in the MFT, 1 claimed twice)"),
        0,
    ),
    lie(
        "a file twice in the same clusters",
        |editor| {
            let lcn = editor.runs_of(editor.find(FILE), 0x80)[0].1;
            runs(editor, FILE, &[(1, lcn), (1, lcn), (1, lcn)]);
        },
        (1, "0 only in the MFT, 2 claimed twice)"),
        0,
    ),
    lie(
        "a file in the clusters of $MFT",
        |editor| {
            let lcn = editor.runs_of(0, 0x80)[0].1;
            runs(editor, FILE, &[(3, lcn)]);
        },
        (1, "0 only in the MFT, 3 claimed twice)"),
        0,
    ),
    lie(
        "a run that begins behind the end of the volume",
        |editor| runs(editor, FILE, &[(3, Some(editor.nr_clusters() + 5))]),
        (1, "covers 3 clusters from 1028, but the volume has 1023"),
        3,
    ),
    lie(
        "a run that ends behind the end of the volume",
        |editor| runs(editor, FILE, &[(9, Some(editor.nr_clusters() - 3))]),
        (1, "covers 9 clusters from 1020, but the volume has 1023"),
        3,
    ),
    lie(
        "a run before the start of the volume",
        |editor| runs(editor, FILE, &[(3, Some(-5i64 as u64))]),
        (1, "covers 3 clusters from -5, but the volume has 1023"),
        3,
    ),
    lie(
        "a run of 2^63 clusters",
        |editor| runs(editor, FILE, &[(1 << 63, Some(5))]),
        (1, "highest VCN (0x7fffffffffffffff) does not fit"),
        3,
    ),
    lie(
        "a run of no clusters",
        |editor| raw_runs(editor, FILE, &[0x11, 0, 5, 0]),
        (1, "has 0 clusters, wanted 1 or more"),
        3,
    ),
    lie(
        "a hole of 2^55 clusters",
        |editor| runs(editor, FILE, &[(1 << 55, None)]),
        (1, "(1 only in $Bitmap, 0 only in the MFT, 0 claimed twice)"),
        0,
    ),
    lie(
        "a list of runs without an end",
        |editor| raw_runs(editor, FILE, &[0x11; 8]),
        (1, "run list is cut off at its byte 8"),
        3,
    ),
    lie(
        "an $MFT with a hole of 2^40 clusters",
        |editor| {
            let start = editor.runs_of(0, 0x80)[0];
            editor.put_record(0, editor.with_data_runs(editor.record(0), &[start, (1 << 40, None)]));
        },
        (1, "$MFT has runs for 126976 bytes, but names 4503599627497472"),
        3,
    ),
    lie(
        "an $MFT of the same clusters again and again",
        |editor| {
            let start = editor.runs_of(0, 0x80)[0];
            let runs: Vec<_> = [start].into_iter().chain(vec![(900, Some(1)); 20]).collect();
            editor.put_record(0, editor.with_data_runs(editor.record(0), &runs));
        },
        (1, "claimed twice)"),
        0,
    ),
    lie(
        "an attribute of no length",
        |editor| field(editor, editor.find(FILE), 0x30, 4, &[0; 4]),
        (1, "length (0x0) does not fit the 296 bytes there"),
        3,
    ),
    lie(
        "an attribute of 4 GiB",
        |editor| field(editor, editor.find(FILE), 0x30, 4, &[0xff; 4]),
        (1, "length (0xffffffff) does not fit the 296 bytes there"),
        3,
    ),
    lie(
        "a value of 4 GiB in a record",
        |editor| field(editor, editor.find(FILE), 0x30, 16, &[0xff; 4]),
        (1, "value length (0xffffffff) does not fit the 296 bytes there"),
        3,
    ),
    lie(
        "a file of 2^63 bytes in its few clusters",
        |editor| field(editor, editor.find(FILE), 0x80, 48, &(1u64 << 63).to_le_bytes()),
        (0, ""),
        0,
    ),
    lie(
        "a $Bitmap of 2^63 bytes",
        |editor| {
            for at in [40, 48, 56] {
                field(editor, 6, 0x80, at, &(1u64 << 63).to_le_bytes());
            }
        },
        (0, ""),
        0,
    ),
    lie(
        "a $Bitmap that is a hole",
        |editor| {
            let len = editor.runs_of(6, 0x80)[0].0;
            editor.put_record(6, editor.with_runs_of(editor.record(6), 0x80, &[(len, None)]));
        },
        (1, "0 only in $Bitmap, "),
        0,
    ),
    lie(
        "indexes of holes, with bitmaps of a gigabyte",
        |editor| {
            for mft_no in 64..90 {
                editor.put_record(mft_no, editor.with_index_of_holes(editor.record(mft_no), 1 << 18));
            }
        },
        (1, "22 claimed twice)"),
        0,
    ),
    lie(
        "an index block whose entries have no length",
        |editor| {
            let block = editor.first_cluster_of(editor.find(FOLDER), 0xa0);
            let at = block + 24 + u32_at(&editor.read(block + 24, 4), 0);
            editor.write(at + 8, &[0; 2]);
        },
        (0, ""),
        0,
    ),
    lie(
        "a folder that is in itself",
        |editor| {
            let folder = editor.find(FOLDER);
            let mut record = editor.record(folder);
            let at = editor.offset_of(&record, 0x30) + 24;
            put(&mut record, at, &reference(editor, folder).to_le_bytes());
            editor.put_record(folder, record);
        },
        (0, ""),
        0,
    ),
    lie(
        "a volume of 2^63 sectors",
        |editor| boot(editor, 0x28, &(1u64 << 63).to_le_bytes()),
        (1, "wanted a positive number"),
        1,
    ),
    lie(
        "a volume of 2^40 sectors",
        |editor| boot(editor, 0x28, &(1u64 << 40).to_le_bytes()),
        (1, "number of clusters is 137438953472, wanted 1 to "),
        1,
    ),
    lie(
        "clusters of no sectors",
        |editor| boot(editor, 0x0d, &[0]),
        (1, "sectors per cluster is 0, wanted"),
        1,
    ),
    lie(
        "clusters of 2^127 sectors",
        |editor| boot(editor, 0x0d, &[0x81]),
        (1, "sectors per cluster is 129, wanted"),
        1,
    ),
    lie("sectors of no bytes", |editor| boot(editor, 0x0b, &[0, 0]), (1, "sector size is 0, wanted"), 1),
    lie(
        "records of 2^127 bytes",
        |editor| boot(editor, 0x40, &[0x81]),
        (1, "clusters per MFT record is -127, wanted"),
        1,
    ),
    lie(
        "records of 127 clusters",
        |editor| boot(editor, 0x40, &[0x7f]),
        (1, "clusters per MFT record is 127, wanted"),
        1,
    ),
    lie(
        "an $MFT behind the end",
        |editor| boot(editor, 0x30, &(1u64 << 62).to_le_bytes()),
        (1, "MFT record 0 has no place on the volume"),
        0,
    ),
    lie(
        "an $MFT and a mirror where the boot sector is",
        |editor| {
            boot(editor, 0x30, &[0; 8]);
            boot(editor, 0x38, &[0; 8]);
        },
        (1, "MFT record 0 at byte 0x0: no record"),
        1,
    ),
];

#[test]
fn lies_are_found_or_do_no_harm() {
    let mut pen = Pen::new();
    mkntfs(&pen.at("volume"), 4 << 20, 512, 4096);
    fill(&pen.at("volume"), 40);
    let good = std::fs::read(pen.at("volume")).unwrap();
    let mut wrong = Vec::new();
    for lie in LIES {
        pen.write("volume", &good);
        (lie.tell)(&Editor::open(&pen.at("volume")));
        let outputs = ["new", "new.part", "map", "map.alt", "map.plan", "report", "domain"];
        for args in [
            "-q -s -O new volume",
            "-q --rescue --strict -s -O new volume",
            "-q -m -O new volume",
            "-q --rescue -m -s -O new volume",
            "-q --map map --first **/*.bin --report report -o new volume",
        ] {
            let said = pen.run(lie.name, args, &outputs);
            let is_as_told = match args {
                "-q -s -O new volume" => said.status == lie.plain.0 && said.stdout.contains(lie.plain.1),
                args if args.contains("--strict") => said.status == lie.rescue,
                _ => true,
            };
            if !is_as_told {
                let lines = said
                    .stdout
                    .lines()
                    .filter(|line| line.starts_with("ERROR: ") || line.starts_with("WARNING: "));
                let lines = lines.collect::<Vec<_>>().join("\n    ");
                wrong.push(format!("{}\n  {args}: status {}\n    {lines}", lie.name, said.status));
            }
            // What says that it is whole can be restored.
            if said.status == 0 && args.contains("-s ") {
                pen.run(lie.name, "-q -r -O restored new", &["restored"]).ok();
            }
            pen.remove(&outputs);
            pen.remove(&["restored"]);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
