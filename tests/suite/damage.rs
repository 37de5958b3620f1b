//! Which files lost something, and which clusters files have: what the library says compared with what ntfs-3g reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ntfsrescue::event::{Event, Observer};
use ntfsrescue::extent::{ByteRange, ClusterSet};
use ntfsrescue::io::disk::Disk;
use ntfsrescue::ntfs::damage::{DamagedFile, Kind, Losses, damaged_files};
use ntfsrescue::ntfs::first::{First, Patterns, first_clusters};
use ntfsrescue::ntfs::{Tolerance, Volume};

use crate::edit::{Editor, put, u16_at, u32_at};
use crate::hostile::mutate;
use crate::tools::{noise, run};
use crate::volumes::{Mounted, Place, crowd, fill, mkntfs};
use crate::walk::Walk;

/// The folder whose files are compressed.
const PACKED: &str = "packed";

struct Quiet;

impl Observer for Quiet {
    fn tell(&self, _event: Event<'_>) {}
}

fn with_volume<T>(path: &Path, then: impl FnOnce(&Volume<'_>) -> T) -> T {
    let disk = Disk::open(path).unwrap();
    then(&Volume::open(&disk, Tolerance::RESCUE, &Quiet).unwrap())
}

fn damaged(path: &Path, damage: &[ByteRange]) -> (Vec<DamagedFile>, Losses) {
    let mut files = Vec::new();
    let each = &mut |file| files.push(file);
    let losses = with_volume(path, |volume| damaged_files(volume, damage, &Quiet, each).unwrap());
    (files, losses)
}

/// A volume with what `fill` makes, and: files in files' streams, a deep folder, names of all kinds, hard links, a file
/// behind a hole, sizes around those of sectors and clusters, and compressed files.
fn diverse(path: &Path, cluster_size: u32) {
    mkntfs(path, 48 << 20, 512, cluster_size);
    fill(path, 90);
    {
        let mounted = Mounted::new(path, "big_writes");
        std::fs::create_dir(mounted.path().join(PACKED)).unwrap();
    }
    let editor = Editor::open(path);
    let folder = editor.find(PACKED);
    let mut record = editor.record(folder);
    let flags = editor.offset_of(&record, 0x10) + 24 + 32;
    record[flags + 1] |= 8;
    editor.put_record(folder, record);
    let mounted = Mounted::new(path, "big_writes,streams_interface=windows,compression");
    let root = mounted.path();
    let deep = root.join("Grüße/日本語/a/b/c");
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("файл 😀.txt"), noise(1, 70_000)).unwrap();
    std::fs::write(deep.join("файл 😀.txt:größe"), noise(2, 6000)).unwrap();
    std::fs::write(deep.join("first.dat"), noise(3, 30_000)).unwrap();
    std::fs::hard_link(deep.join("first.dat"), root.join("second name.dat")).unwrap();
    for len in [1, 1023, 4095, 4096, 4097, 65_537, 200_000] {
        std::fs::write(root.join(format!("len{len}")), noise(len, len as usize)).unwrap();
    }
    let behind = File::create(root.join("behind a hole")).unwrap();
    behind.write_all_at(&noise(4, 9000), 3_000_000).unwrap();
    behind.write_all_at(&noise(4, 3000), 100_000).unwrap();
    for i in 0..6 {
        // Half of it can be compressed, in units.
        let data: Vec<u8> = (0..5)
            .flat_map(|unit| match (unit + i) % 2 {
                0 => noise(unit, 64 << 10),
                _ => noise(unit, 300).into_iter().cycle().take(64 << 10).collect(),
            })
            .collect();
        std::fs::write(root.join(PACKED).join(format!("p{i}")), &data[..data.len() - 3000 * i as usize])
            .unwrap();
    }
}

/// The clusters in use by contents of files, in sectors: where they lie.
fn sectors_of_files(path: &Path) -> Vec<u64> {
    let (walk, editor) = (Walk::new(path), Editor::open(path));
    let bitmap = editor.read(editor.bitmap_pos(), editor.nr_clusters().div_ceil(8));
    let used = |lcn: u64| bitmap[lcn as usize / 8] >> (lcn % 8) & 1 == 1;
    let clusters = (0..editor.nr_clusters()).filter(|lcn| used(*lcn));
    clusters
        .map(|lcn| lcn * editor.cluster_size)
        .filter(|pos| walk.what(*pos).is_none())
        .flat_map(|pos| (pos..pos + editor.cluster_size).step_by(512))
        .collect()
}

/// Overwrites each of these sectors with a chance of one in `one_in`.
fn overwrite(path: &Path, sectors: &[u64], one_in: u32, seed: u64) -> Vec<ByteRange> {
    let file = File::options().write(true).open(path).unwrap();
    let drawn = noise(seed, sectors.len() * 4);
    let drawn = drawn.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap()));
    let mut damage: Vec<ByteRange> = Vec::new();
    for (pos, _) in sectors.iter().zip(drawn).filter(|(_, drawn)| drawn % one_in == 0) {
        file.write_all_at(&noise(pos ^ seed << 40, 512), *pos).unwrap();
        match damage.last_mut() {
            Some(last) if last.end() == *pos => last.len += 512,
            _ => damage.push(ByteRange { pos: *pos, len: 512 }),
        }
    }
    damage
}

/// Pieces of 4096 bytes, none where one cannot be read.
pub type Content = Vec<Option<Vec<u8>>>;

/// The contents of all files by path, and of the streams that `diverse` makes.
pub fn contents(path: &Path) -> BTreeMap<String, Content> {
    let mounted = Mounted::new(path, "ro,streams_interface=windows");
    let mut contents = BTreeMap::new();
    let mut folders = vec![mounted.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry.path();
            let name = format!("/{}", path.strip_prefix(mounted.path()).unwrap().to_str().unwrap());
            for stream in [":stream", ":größe"] {
                let with_stream = format!("{}{stream}", path.to_str().unwrap());
                if let Ok(file) = File::open(with_stream) {
                    contents.insert(format!("{name}{stream}"), content(&file));
                }
            }
            contents.insert(name, content(&File::open(path).unwrap()));
        }
    }
    contents
}

fn content(file: &File) -> Content {
    let len = file.metadata().unwrap().len();
    let pieces = (0..len).step_by(4096).map(|at| {
        let mut piece = vec![0; (len - at).min(4096) as usize];
        file.read_exact_at(&mut piece, at).ok().map(|()| piece)
    });
    pieces.collect()
}

/// Bytes in those sectors of a file that differ.
fn differing(good: &Content, bad: &Content) -> u64 {
    assert_eq!(good.len(), bad.len());
    let differing = good.iter().zip(bad).map(|(good, bad)| {
        let good = good.as_ref().unwrap();
        let Some(bad) = bad else { return good.len() };
        let sectors = good.chunks(512).zip(bad.chunks(512));
        sectors.filter(|(good, bad)| good != bad).map(|(good, _)| good.len()).sum()
    });
    differing.sum::<usize>() as u64
}

/// What was found, by path and stream; hard links each.
fn by_name(files: &[DamagedFile]) -> BTreeMap<String, u64> {
    let names = files.iter().flat_map(|file| {
        let paths = file.links.iter().chain([&file.path]);
        paths.map(|path| (DamagedFile { path: path.clone(), ..file.clone() }.to_string(), file.bytes))
    });
    names.collect()
}

/// With sectors of files overwritten at random, those are found that ntfs-3g reads differently, with as many bytes.
fn compare(volume: &Path, copy: &Path, hit_list: &mut BTreeSet<String>) {
    let sectors = sectors_of_files(volume);
    let good = contents(volume);
    for (seed, one_in) in [(1, 4), (2, 4), (3, 60), (4, 600), (5, 600), (6, u32::MAX)] {
        std::fs::copy(volume, copy).unwrap();
        let damage = overwrite(copy, &sectors, one_in, seed);
        let (files, losses) = damaged(copy, &damage);
        assert_eq!(losses, Losses::default());
        assert!(files.iter().all(|file| file.kind == Kind::File && !file.is_record_lost), "{files:?}");
        let found = by_name(&files);
        let bad = contents(copy);
        for (name, good) in &good {
            let wanted = differing(good, &bad[name]);
            let found = found.get(name).copied().unwrap_or(0);
            if name.contains(PACKED) {
                // A sector of a unit may hold nothing, and what lies before it may be whole.
                assert!(found >= wanted, "{name}: {found} instead of {wanted} bytes, seed {seed}");
            } else {
                assert_eq!(found, wanted, "{name}, seed {seed}");
            }
        }
        assert!(found.keys().all(|name| good.contains_key(name)), "{found:?}");
        println!("{} of {} differ", found.len(), good.len());
        hit_list.extend(found.into_keys());
    }
}

/// Clusters that a file's data saves.
fn holes(volume: &Path, name: &str) -> u64 {
    let editor = Editor::open(volume);
    let runs = editor.runs_of(editor.find(name), 0x80);
    runs.into_iter().filter(|(_, lcn)| lcn.is_none()).map(|(len, _)| len).sum()
}

#[test]
fn damaged_files_are_those_that_read_differently() {
    for cluster_size in [512, 4096, 65536] {
        println!("clusters of {cluster_size} bytes");
        let place = Place::new();
        let volume = place.at("volume");
        diverse(&volume, cluster_size);
        let mut hit = BTreeSet::new();
        compare(&volume, &place.at("copy"), &mut hit);
        assert_eq!(holes(&volume, "p1") > 0, cluster_size <= 4096, "whether it is compressed");
        for name in [
            "/Grüße/日本語/a/b/c/файл 😀.txt",
            "/Grüße/日本語/a/b/c/файл 😀.txt:größe",
            "/Grüße/日本語/a/b/c/first.dat",
            "/second name.dat",
            "/a:stream",
            "/behind a hole",
            "/holes",
            "/packed/p1",
        ] {
            assert!(hit.contains(name), "{name}: {hit:?}");
        }
    }
}

#[test]
fn damaged_files_with_attribute_lists() {
    let place = Place::new();
    let volume = place.at("volume");
    for cluster_size in [4096, 1024] {
        mkntfs(&volume, 16 << 20, 512, cluster_size);
        crowd(&volume);
        run(Command::new("ntfsinfo").args(["-F", "large"]).arg(&volume)).ok().says("$ATTRIBUTE_LIST");
        let mut hit = BTreeSet::new();
        compare(&volume, &place.at("copy"), &mut hit);
        assert!(hit.contains("/large"));
    }
}

fn area(pos: u64, len: u64) -> ByteRange {
    ByteRange { pos, len }
}

/// Overwrites these bytes as a rescue marks them.
fn mark(path: &Path, damage: &[ByteRange]) {
    let file = File::options().write(true).open(path).unwrap();
    for range in damage {
        let mut bytes = vec![b'?'; range.len as usize];
        put(&mut bytes, 0, b"BadSectoR\0");
        file.write_all_at(&bytes, range.pos).unwrap();
    }
}

/// What is found as lines: path and stream, bytes, kind.
fn lines(files: &[DamagedFile]) -> Vec<String> {
    let line = |file: &DamagedFile| {
        let record = if file.is_record_lost { " record" } else { "" };
        format!("{file} {} {:?}{record}", file.bytes, file.kind)
    };
    files.iter().map(line).collect()
}

#[test]
fn lost_records_are_counted_and_their_folders_told() {
    let place = Place::new();
    let volume = place.at("volume");
    diverse(&volume, 4096);
    let editor = Editor::open(&volume);
    let (file, folder, deep) = (editor.find("file3.bin"), editor.find("folder4"), editor.find("файл 😀.txt"));
    let free = (24..).find(|mft_no| editor.record(*mft_no)[0x16] & 1 == 0).unwrap();
    let of_deep = editor.first_cluster_of(deep, 0x80);
    let inner = editor.first_cluster_of(editor.find("file4.bin"), 0x80);
    let bitmap = editor.first_cluster_of(0, 0xb0);
    // In order of place: the MFT comes before the files.
    let mut damage = [file, folder, free].map(|mft_no| area(editor.record_pos(mft_no) + 512, 512));
    damage.sort_by_key(|range| range.pos);
    let mut damage = damage.to_vec();
    damage.push(area(of_deep, 10));
    mark(&volume, &damage);
    let (files, losses) = damaged(&volume, &damage);
    let mut first = vec![file, folder];
    first.sort_unstable();
    assert_eq!((losses.nr_records, losses.nr_unknown, losses.first.to_vec()), (2, 0, first));
    assert_eq!(
        lines(&files),
        [
            "/$MFT 1536 Metadata".to_owned(),
            "/Grüße/日本語/a/b/c/файл 😀.txt 10 File".to_owned(),
            format!("<record {folder}> 1024 Directory record"),
        ]
    );
    // What lies in the lost folder is found all the same.
    let (files, _) = damaged(&volume, &[damage[0], damage[1], damage[2], area(inner, 9)]);
    assert_eq!(lines(&files)[1], format!("<record {folder}>/file4.bin 9 File"));

    // The bits of these records are lost, too.
    damage.push(area(bitmap, 512));
    damage.sort_by_key(|range| range.pos);
    let (files, losses) = damaged(&volume, &damage);
    assert_eq!((losses.nr_records, losses.nr_unknown), (0, 3));
    assert!(lines(&files).iter().any(|line| line.starts_with("/$MFT::$BITMAP ")), "{files:?}");
}

#[test]
fn metadata_is_told_by_its_names() {
    let place = Place::new();
    let volume = place.at("volume");
    diverse(&volume, 4096);
    let editor = Editor::open(&volume);
    let mut damage = vec![area(0, 512), area(editor.record_pos(0), 512), area(editor.record_pos(5), 512)];
    damage.extend([area(editor.log_pos() + 100, 1000), area(editor.bitmap_pos(), 512)]);
    damage.sort_by_key(|range| range.pos);
    let (files, losses) = damaged(&volume, &damage);
    assert_eq!((losses.nr_records, losses.nr_unknown, losses.first.to_vec()), (2, 0, vec![0, 5]));
    let mut lines = lines(&files);
    lines.sort();
    assert_eq!(
        lines,
        [
            "/ 1024 Directory record",
            "/$Bitmap 512 Metadata",
            "/$Boot 512 Metadata",
            "/$LogFile 1000 Metadata",
            "/$MFT 1024 Metadata",
            "/$MFT 1024 Metadata record",
        ]
    );
}

#[test]
fn a_folder_is_damaged_where_its_index_is_in_use() {
    let place = Place::new();
    let volume = place.at("volume");
    mkntfs(&volume, 24 << 20, 512, 4096);
    {
        let mounted = Mounted::new(&volume, "big_writes");
        std::fs::create_dir(mounted.path().join("folder")).unwrap();
        for i in 0..400 {
            std::fs::write(mounted.path().join(format!("folder/a longer name {i}")), "").unwrap();
        }
        for i in 30..400 {
            std::fs::remove_file(mounted.path().join(format!("folder/a longer name {i}"))).unwrap();
        }
    }
    let editor = Editor::open(&volume);
    let folder = editor.find("folder");
    let in_use: BTreeSet<_> = editor.blocks_of(folder).into_iter().collect();
    let runs = editor.runs_of(folder, 0xa0);
    let clusters = runs.into_iter().flat_map(|(len, lcn)| lcn.unwrap()..lcn.unwrap() + len);
    let (mut nr_free, mut nr_used) = (0, 0);
    for pos in clusters.map(|lcn| lcn * 4096) {
        let (files, _) = damaged(&volume, &[area(pos + 512, 512)]);
        if in_use.contains(&pos) {
            nr_used += 1;
            assert_eq!(lines(&files), ["/folder:$I30:$INDEX_ALLOCATION 512 Directory"]);
        } else {
            nr_free += 1;
            assert_eq!(files, []);
        }
    }
    assert!(nr_free > 0 && nr_used > 0, "{nr_free} free blocks, {nr_used} used");
}

/// A volume with the file `large`, whose list of attributes lies in a cluster. Its base record and that cluster's place.
fn with_list_in_cluster(volume: &Path) -> (Editor, u64, u64) {
    mkntfs(volume, 16 << 20, 512, 1024);
    crowd(volume);
    let editor = Editor::open(volume);
    // The name may be in one of the extension records.
    let named = editor.find("large");
    let base = u32_at(&editor.record(named), 0x20);
    let large = if base == 0 { named } else { base };
    let list = editor.first_cluster_of(large, 0x20);
    (editor, large, list)
}

#[test]
fn a_file_in_many_records_loses_what_is_in_them() {
    let place = Place::new();
    let (volume, copy) = (place.at("volume"), place.at("copy"));
    let (editor, large, list) = with_list_in_cluster(&volume);
    // The list itself: nothing of the file can be read.
    std::fs::copy(&volume, &copy).unwrap();
    let damage = [area(list, 512)];
    mark(&copy, &damage);
    let (files, _) = damaged(&copy, &damage);
    assert_eq!(lines(&files).len(), 1);
    assert!(lines(&files)[0].starts_with("/large::$ATTRIBUTE_LIST "), "{files:?}");

    // Its base record: the name is in another one.
    let damage = [area(editor.record_pos(large), 1024)];
    mark(&copy, &damage);
    let (files, losses) = damaged(&copy, &damage);
    assert_eq!(losses.nr_records, 1);
    assert_eq!(lines(&files), ["/$MFT 1024 Metadata", "/large 1024 File record"]);

    // One of its extension records.
    let extensions: Vec<_> =
        (24..).take_while(|mft_no| editor.read(editor.record_pos(*mft_no), 4) == b"FILE").collect();
    let of_large = |mft_no: &u64| {
        let record = editor.record(*mft_no);
        record[0x16] & 1 == 1
            && u32_at(&record, 0x20) == large
            && editor.attributes(&record)[0][..4] == [0x80, 0, 0, 0]
    };
    let extension = extensions.into_iter().find(of_large).unwrap();
    let data = &editor.attributes(&editor.record(extension))[0];
    let clusters = u32_at(data, 24) + 1 - u32_at(data, 16);
    std::fs::copy(&volume, &copy).unwrap();
    let damage = [area(editor.record_pos(extension), 512)];
    mark(&copy, &damage);
    let (files, losses) = damaged(&copy, &damage);
    assert_eq!((losses.nr_records, losses.first.to_vec()), (1, vec![extension]));
    let bytes = clusters * 1024;
    let found = lines(&files);
    assert_eq!(found.len(), 2);
    assert!(found[0] == "/$MFT 512 Metadata" && found[1].starts_with("/large "), "{found:?}");
    // In the last one the file ends before its clusters do.
    assert!((bytes - 1024..=bytes).contains(&files[1].bytes), "{found:?}, {clusters} clusters");
}

fn first(path: &Path, patterns: &[&str]) -> First {
    let patterns = Patterns::parse(patterns).unwrap();
    with_volume(path, |volume| first_clusters(volume, &patterns, &Quiet).unwrap())
}

fn clusters_of(set: &ClusterSet) -> BTreeSet<u64> {
    set.extents().flat_map(|extent| extent.lcn.0..extent.end()).collect()
}

/// The clusters of these paths, as ntfscluster tells them.
fn told_clusters(volume: &Path, paths: &[&str]) -> BTreeSet<u64> {
    let mut clusters = BTreeSet::new();
    for path in paths {
        let said = run(Command::new("ntfscluster").args(["-F", path]).arg(volume)).ok();
        for line in said.stdout.lines() {
            let numbers: Vec<_> = line.split_whitespace().map(str::parse::<i64>).collect();
            if let [Ok(_), Ok(lcn), Ok(len)] = numbers[..]
                && lcn >= 0
            {
                clusters.extend(lcn as u64..(lcn + len) as u64);
            }
        }
    }
    clusters
}

#[test]
fn patterns_find_the_clusters_of_files_and_their_folders() {
    let place = Place::new();
    let volume = place.at("volume");
    diverse(&volume, 4096);
    const DEEP: [&str; 6] =
        ["/", "/Grüße", "/Grüße/日本語", "/Grüße/日本語/a", "/Grüße/日本語/a/b", "/Grüße/日本語/a/b/c"];
    const INNER: [&str; 2] = ["/Grüße/日本語/a/b/c/файл 😀.txt", "/Grüße/日本語/a/b/c/first.dat"];
    for (patterns, matches, files, folders) in [
        (&["**/*.TXT"][..], &[1][..], &INNER[..1], &DEEP[..]),
        (&["grÜsse", "GRÜßE"], &[0, 1], &INNER, &DEEP),
        (&[r"\Grüße\**\a"], &[1], &INNER, &DEEP),
        (&["holes", "/len4096", "nothing"], &[1, 1, 0], &["/holes", "/len4096"], &DEEP[..1]),
        (&["packed/p[12]"], &[2], &["/packed/p1", "/packed/p2"], &["/", "/packed"]),
        // Its folder under another name is on the way, too.
        (&["second*"], &[1], &INNER[1..], &DEEP),
        (&["a"], &[1], &["/a"], &DEEP[..1]),
        (&["?/x"], &[0], &[], &[]),
    ] {
        println!("{patterns:?}");
        let found = first(&volume, patterns);
        assert_eq!((found.nr_files, &found.matches[..]), (files.len() as u64, matches));
        assert_eq!(clusters_of(&found.files), told_clusters(&volume, files));
        // ntfscluster does not find a name outside its locale, so the root folder's clusters stand for all.
        let indexes = clusters_of(&found.indexes);
        assert_eq!(indexes, told_clusters(&volume, folders));
    }
    let all = first(&volume, &["/"]);
    assert!(all.nr_files > 90);
}

#[test]
fn patterns_find_clusters_through_extension_records() {
    let place = Place::new();
    let volume = place.at("volume");
    let (_, _, list) = with_list_in_cluster(&volume);
    let found = first(&volume, &["large"]);
    assert_eq!((found.nr_files, &found.matches[..]), (1, &[1][..]));
    let clusters = clusters_of(&found.files);
    assert_eq!(clusters, told_clusters(&volume, &["/large"]));
    assert!(clusters.contains(&(list / 1024)) && clusters.len() > 2400, "{}", clusters.len());
    // Where the list cannot be read, the records still say whose they are.
    mark(&volume, &[area(list, 512)]);
    assert_eq!(clusters_of(&first(&volume, &["large"]).files), clusters);
}

#[test]
fn mutated_records_end_no_search() {
    let place = Place::new();
    let volume = place.at("volume");
    let (editor, large, _) = with_list_in_cluster(&volume);
    let patterns = Patterns::parse(["large", "**/*1*"]).unwrap();
    let sectors: Vec<_> = (0..(16 << 20) / 512).step_by(3).map(|sector| area(sector * 512, 512)).collect();
    for seed in 0..200 {
        let mft_no = [large, 0, 5, 24 + seed % 1000][(seed % 4) as usize];
        let saved = editor.read(editor.record_pos(mft_no), 1024);
        if &saved[..4] != b"FILE" {
            continue;
        }
        let mut record = editor.record(mft_no);
        mutate(&mut record[..450], seed);
        if u16_at(&record, 4) < 500 {
            editor.put_record(mft_no, record);
        }
        let start = Instant::now();
        let disk = Disk::open(&volume).unwrap();
        if let Ok(volume) = Volume::open(&disk, Tolerance::RESCUE, &Quiet) {
            let damage = if seed % 3 == 0 { &sectors[..] } else { &sectors[10_000..10_100] };
            let _outcome = damaged_files(&volume, damage, &Quiet, &mut |_| {});
            let _outcome = first_clusters(&volume, &patterns, &Quiet);
        }
        assert!(start.elapsed() < Duration::from_secs(20), "record {mft_no}, seed {seed}");
        editor.write(editor.record_pos(mft_no), &saved);
        if mft_no < 4 {
            let record = editor.record(mft_no);
            editor.put_record(mft_no, record);
        }
    }
}
