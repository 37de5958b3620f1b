//! Volumes, images, maps, plans and configurations that lie: seeded mutations of good ones, through the real program.
//!
//! Whatever they say, a run ends soon, with a status of ours, within its memory, and writes nothing but its target. And
//! if it says that all went well, then so it is: what is said to be a copy is compared with what `$Bitmap` of the volume
//! marks, what is said to be restored with what the image says, read by a few lines of its own here.
//!
//! `make test-all` draws ten times as many. A failure names its seed; `NTFSRESCUE_SEED=n` draws that one alone.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use ntfsrescue::image::trailer::is_begun;

use crate::edit::{Editor, u16_at, u32_at, u64_at};
use crate::tools::{Said, noise, occupied, status_of};
use crate::volumes::{Place, fill, mkntfs};

/// Longest run that is no hang; a good one takes a few milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

/// KiB of memory that a run may reserve. Most of it is what the allocator sets aside for each thread and never touches.
const MEMORY: u64 = 256 << 10;

/// Largest target that a lie may make: holes do not count.
const MAX_BYTES: u64 = 64 << 20;

/// Draws only this mutation.
const SEED: &str = "NTFSRESCUE_SEED";

/// Numbers that break things, next to random ones.
const EDGES: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff_ffff, 0x7fff_ffff, 0x8000_0000_0000_0000, u64::MAX];

/// Numbers that follow from a seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let first = noise(seed + 1, 400).split_off(392);
        Random(u64::from_le_bytes(first.try_into().unwrap()) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A number that is odd in the place of `old`: an edge, one beside it, any.
    fn instead_of(&mut self, old: u64) -> u64 {
        match self.below(4) {
            0 => self.pick(&EDGES),
            1 => old.wrapping_add(self.pick(&[1, 2, 8, 512, u64::MAX, u64::MAX - 7])),
            2 => old ^ 1 << self.below(64),
            _ => self.next(),
        }
    }

    /// Writes an odd number of `width` bytes over the one at `at`, as far as there is room.
    fn spoil(&mut self, bytes: &mut [u8], at: usize, width: usize) {
        let Some(field) = bytes.get_mut(at..at + width) else { return };
        let mut old = [0; 8];
        old[..width].copy_from_slice(field);
        let new = self.instead_of(u64::from_le_bytes(old));
        field.copy_from_slice(&new.to_le_bytes()[..width]);
    }
}

/// Changes some bytes at places that `seed` chooses below `bytes.len()`.
pub fn mutate(bytes: &mut [u8], seed: u64) {
    spoil_some(bytes, &mut Random::new(seed));
}

fn spoil_some(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..1 + random.below(6) {
        let width = random.pick(&[1, 2, 4, 8]).min(bytes.len());
        let at = random.below((bytes.len() - width + 1) as u64) as usize;
        random.spoil(bytes, at, width);
    }
}

/// A folder in memory in which our program runs, and is watched.
pub struct Pen {
    place: Place,
    nr_runs: u64,
}

/// What tells whether anybody has written to a file.
#[derive(PartialEq, Eq, Debug)]
struct Stamp(u64, i64, i64, i64, i64);

impl Pen {
    pub fn new() -> Pen {
        Pen { place: Place::in_memory(), nr_runs: 0 }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.place.at(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.at(name), bytes).unwrap();
    }

    pub fn remove(&self, names: &[&str]) {
        for name in names {
            let _absent = std::fs::remove_file(self.at(name));
        }
    }

    fn stamps(&self, but: &[&str]) -> Vec<(String, Stamp)> {
        let stamp = |name: String| {
            let of = self.at(&name).symlink_metadata().unwrap();
            (name, Stamp(of.len(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()))
        };
        self.place.names().into_iter().filter(|name| !but.contains(&&name[..])).map(stamp).collect()
    }

    /// Runs our program on what is in the folder; options are told apart by spaces. It may write the files `outputs`.
    #[track_caller]
    pub fn run(&mut self, what: &str, args: &str, outputs: &[&str]) -> Said {
        self.nr_runs += 1;
        let before = self.stamps(outputs);
        let limited = format!("ulimit -v {MEMORY}; exec \"$@\"");
        let child = Command::new("sh")
            .args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_ntfsrescue")])
            .args(args.split_whitespace())
            .current_dir(self.at(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let (ended, watched) = channel::<()>();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                if watched.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
                    // One that has just ended is not waited for yet, so this is still its number.
                    let _ended = kill(pid, Signal::SIGKILL);
                }
            });
            let output = child.wait_with_output().unwrap();
            drop(ended);
            output
        });
        let said = Said {
            status: status_of(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        let told = format!("{what}: {args}\nstdout:\n{}\nstderr:\n{}", said.stdout, said.stderr);
        // 101: a panic; 134: no memory; 137: not within the deadline.
        assert!(matches!(said.status, 0 | 1 | 3 | 4 | 5), "status {}, {told}", said.status);
        assert_eq!(self.stamps(outputs), before, "wrote elsewhere, {told}");
        for output in outputs.iter().filter(|output| self.at(output).exists()) {
            assert!(occupied(&self.at(output)) < MAX_BYTES, "{output} is too large, {told}");
        }
        said
    }

    fn tell(&self, what: &str, nr_whole: u64) {
        println!("{what}: {} runs, {nr_whole} results that were compared", self.nr_runs);
    }
}

/// What is to be drawn: `first` seeds in each test run, nine times as many more at night.
fn seeds(first: u64, is_night: bool) -> std::ops::Range<u64> {
    match std::env::var(SEED) {
        Ok(seed) => {
            let seed = seed.parse().unwrap_or_else(|error| panic!("{SEED}={seed}: {error}"));
            seed..seed + 1
        }
        Err(_) if is_night => first..10 * first,
        Err(_) => 0..first,
    }
}

/// A volume that is good, and what is known of it.
struct Good {
    bytes: Vec<u8>,
    editor: Editor,
    cluster: u64,
    bitmap: u64,
    nr_clusters: u64,
    /// Blocks of the root folder's index.
    blocks: Option<u64>,
}

/// What a mutation has done to a volume.
struct Mutated {
    bytes: Vec<u8>,
    /// Does what leads to `$Bitmap`, and its length, still stand as it was?
    has_bitmap: bool,
}

impl Good {
    /// The volume in this file, which stays as it is.
    fn of(path: &Path, has_folder: bool) -> Good {
        let editor = Editor::open(path);
        Good {
            bytes: std::fs::read(path).unwrap(),
            cluster: editor.cluster_size,
            bitmap: editor.bitmap_pos(),
            nr_clusters: editor.nr_clusters(),
            blocks: has_folder.then(|| editor.first_cluster_of(5, 0xa0)),
            editor,
        }
    }

    fn mutated(&self, seed: u64) -> Mutated {
        let mut random = Random::new(seed);
        let mut bytes = self.bytes.clone();
        for _ in 0..1 + random.below(8) / 6 {
            self.spoil(&mut bytes, &mut random);
        }
        if random.below(16) == 0 {
            bytes.truncate(random.below(self.bytes.len() as u64) as usize);
        }
        let same = |pos: u64, len: u64| {
            let range = pos as usize..(pos + len) as usize;
            bytes.get(range.clone()) == self.bytes.get(range)
        };
        // Record 0 leads to record 6; with an attribute list it does so by itself too.
        let has_bitmap = bytes.len() == self.bytes.len()
            && same(0, 512)
            && same(self.editor.record_pos(0), 1024)
            && same(self.editor.record_pos(6), 1024);
        Mutated { bytes, has_bitmap }
    }

    /// One lie.
    fn spoil(&self, bytes: &mut [u8], random: &mut Random) {
        let editor = &self.editor;
        match random.below(15) {
            0 => {
                let at = random.pick(&[0x0b, 0x0d, 0x0e, 0x15, 0x18, 0x28, 0x30, 0x38, 0x40, 0x44, 0x48]);
                let width = random.pick(&[1, 2, 4, 8]);
                random.spoil(bytes, at, width);
            }
            1 => {
                let at = self.bitmap + random.below(self.nr_clusters.div_ceil(8));
                bytes[at as usize] ^= 1 << random.below(8);
            }
            2 => {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
            3 if self.blocks.is_some() => {
                let at = self.blocks.unwrap() as usize;
                spoil_some(&mut bytes[at..at + 500], random);
            }
            // A record's header or anything in it, its fixups wrong now.
            4 => {
                let at = editor.record_pos(self.any_record(random)) as usize;
                spoil_some(&mut bytes[at..at + 1024], random);
            }
            _ => {
                let mft_no = self.any_record(random);
                let mut record = editor.record(mft_no);
                spoil_record(&mut record, random, self.nr_clusters);
                put_record(editor, bytes, mft_no, record);
            }
        }
    }

    /// Mostly one of those that everything hangs on.
    fn any_record(&self, random: &mut Random) -> u64 {
        loop {
            let drawn = match random.below(4) {
                0 => 24 + random.below(60),
                1 => random.pick(&[0, 6]),
                _ => random.below(24),
            };
            let at = editor_pos(&self.editor, drawn);
            if self.bytes.get(at..at + 4) == Some(b"FILE") {
                return drawn;
            }
        }
    }

    /// Are all clusters that `$Bitmap` of the mutated volume marks, and the last sector, in the copy?
    #[track_caller]
    fn assert_is_copy(&self, mutated: &Mutated, copy: &[u8], what: &str) {
        let volume = &mutated.bytes;
        assert_eq!(copy.len(), volume.len(), "{what}: length of the copy");
        for lcn in 0..self.nr_clusters {
            let is_marked = volume[(self.bitmap + lcn / 8) as usize] >> (lcn % 8) & 1 == 1;
            let range = (lcn * self.cluster) as usize..((lcn + 1) * self.cluster) as usize;
            assert!(
                !is_marked || copy[range.clone()] == volume[range],
                "{what}: cluster {lcn} is not copied"
            );
        }
    }
}

fn editor_pos(editor: &Editor, mft_no: u64) -> usize {
    editor.record_pos(mft_no) as usize
}

/// Writes a record and its copy, fixups and all, into the bytes of a volume; one whose fixups lie outside as it is.
fn put_record(editor: &Editor, bytes: &mut [u8], mft_no: u64, mut record: Vec<u8>) {
    let usa = u16_at(&record, 4) as usize;
    if usa + 6 <= 508 {
        for sector in 0..2 {
            let end = sector * 512 + 510;
            record.copy_within(end..end + 2, usa + 2 * sector + 2);
            record.copy_within(usa..usa + 2, end);
        }
    }
    let at = editor_pos(editor, mft_no);
    bytes[at..at + 1024].copy_from_slice(&record);
    if mft_no < 4 {
        let mirror = (u64_at(bytes, 0x38).wrapping_mul(editor.cluster_size) + mft_no * 1024) as usize;
        if let Some(copy) = bytes.get_mut(mirror..mirror.saturating_add(1024)) {
            copy.copy_from_slice(&record);
        }
    }
}

/// Spoils a field of a record, of one of its attributes, of its runs or of its list of attributes.
fn spoil_record(record: &mut [u8], random: &mut Random, nr_clusters: u64) {
    let mut attributes = Vec::new();
    let mut at = u16_at(record, 0x14) as usize;
    while at + 8 <= record.len() && u32_at(record, at) != 0xffff_ffff && u32_at(record, at + 4) >= 16 {
        attributes.push(at);
        at += u32_at(record, at + 4) as usize;
    }
    let in_header = [(4, 2), (6, 2), (0x10, 2), (0x14, 2), (0x16, 2), (0x18, 4), (0x1c, 4), (0x20, 8)];
    let resident = [(16, 4), (20, 2)];
    let in_clusters = [(16, 8), (24, 8), (32, 2), (34, 2), (40, 8), (48, 8), (56, 8)];
    let common = [(0, 4), (4, 4), (8, 1), (9, 1), (10, 2), (12, 2), (14, 2)];
    if attributes.is_empty() || random.below(6) == 0 {
        let (at, width) = random.pick(&in_header);
        return random.spoil(record, at, width);
    }
    // The later ones hold the data.
    let which = attributes.len() as u64 - 1 - random.below(attributes.len() as u64).min(random.below(8));
    let at = attributes[which as usize];
    let is_in_clusters = record[at + 8] != 0;
    let (offset, width) = match random.below(3) {
        0 => random.pick(&common),
        _ if is_in_clusters => random.pick(&in_clusters),
        _ => random.pick(&resident),
    };
    let is_list = u32_at(record, at) == 0x20 && !is_in_clusters;
    match random.below(3) {
        0 if is_in_clusters => {
            let runs = at + u16_at(record, at + 32) as usize;
            let end = (at + u32_at(record, at + 4) as usize).min(record.len());
            if runs < end {
                spoil_runs(&mut record[runs..end], random, nr_clusters);
            }
        }
        0 | 1 if is_list => {
            // An entry's kind, length, name, VCN or record: to itself, to others, in a circle.
            let entry = at + u16_at(record, at + 20) as usize + 32 * random.below(6) as usize;
            let (field, width) = random.pick(&[(0, 4), (4, 2), (6, 1), (7, 1), (8, 8), (16, 8), (24, 2)]);
            if field == 16 && entry + 24 <= record.len() {
                let to = random.below(40) | u64_at(record, entry + 16) & 0xffff << 48;
                record[entry + 16..entry + 24].copy_from_slice(&to.to_le_bytes());
            } else {
                random.spoil(record, entry + field, width);
            }
        }
        _ => random.spoil(record, at + offset, width),
    }
}

/// Other runs, as many as there is room for: overlapping, out of range, far too long, or bytes without sense.
fn spoil_runs(room: &mut [u8], random: &mut Random, nr_clusters: u64) {
    if random.below(3) == 0 {
        let end = room.len().min(24);
        return spoil_some(&mut room[..end], random);
    }
    let mut list = Vec::new();
    let mut last = 0;
    for _ in 0..1 + random.below(4) {
        let len = match random.below(4) {
            0 => random.pick(&EDGES),
            1 => nr_clusters,
            _ => 1 + random.below(20),
        };
        let lcn = match random.below(4) {
            0 => random.next(),
            1 => nr_clusters - 1,
            _ => random.below(nr_clusters),
        };
        let (len_width, lcn_width) = (random.pick(&[1, 2, 4, 8]), random.pick(&[0, 2, 4, 8]));
        list.push((lcn_width << 4 | len_width) as u8);
        list.extend(&len.to_le_bytes()[..len_width]);
        list.extend(&lcn.wrapping_sub(last).to_le_bytes()[..lcn_width]);
        last = lcn;
    }
    list.push(0);
    let fits = list.len().min(room.len());
    room[..fits].copy_from_slice(&list[..fits]);
}

/// Good volumes of 2 to 3 MiB: as it was made, with its `$MFT` in pieces and an attribute list, and with files.
fn good_volumes(pen: &Pen) -> Vec<(&'static str, Good)> {
    mkntfs(&pen.at("volume"), 2 << 20, 512, 512);
    Editor::open(&pen.at("volume")).extend_mft(49, 20);
    std::fs::rename(pen.at("volume"), pen.at("listed")).unwrap();
    mkntfs(&pen.at("volume"), 2 << 20, 512, 1024);
    fill(&pen.at("volume"), 20);
    std::fs::rename(pen.at("volume"), pen.at("filled")).unwrap();
    mkntfs(&pen.at("volume"), 3 << 20, 512, 4096);
    Editor::open(&pen.at("volume")).fragment_mft(4);
    std::fs::rename(pen.at("volume"), pen.at("fragmented")).unwrap();
    let good = |name| (name, Good::of(&pen.at(name), name == "filled"));
    ["listed", "filled", "fragmented"].map(good).into()
}

/// Forms of a copy: the options, and what it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copied {
    Clone,
    Image,
    /// No whole copy.
    Other,
}

/// Copies mutated volumes in all ways.
fn mutated_volumes(seeds: std::ops::Range<u64>) {
    const WAYS: [(&str, Copied); 12] = [
        ("-q -O new volume", Copied::Clone),
        ("-q -f -s -O new volume", Copied::Image),
        ("-q --rescue -O new volume", Copied::Clone),
        ("-q --rescue --strict -s -O new volume", Copied::Image),
        ("-q -m -O new volume", Copied::Other),
        ("-q --rescue -m -s -O new volume", Copied::Other),
        ("-q --map map -o new volume", Copied::Clone),
        ("-q --rescue --whole --report report -O new volume", Copied::Clone),
        ("-q --map map --first *.bin --report report -s -o new volume", Copied::Image),
        ("-q --ignore-fs-check -f -m -t -O new volume", Copied::Other),
        ("-q --rescue --domain-out domain volume", Copied::Other),
        ("-q -f --new-serial -s --split 1M -O new volume", Copied::Other),
    ];
    let mut pen = Pen::new();
    let volumes = good_volumes(&pen);
    let mut nr_whole = 0;
    let parts: Vec<_> =
        (1..30).flat_map(|nr| [format!("new.{nr:03}"), format!("new.part.{nr:03}")]).collect();
    let single = ["new", "new.part", "map", "map.alt", "map.plan", "report", "domain"];
    let outputs: Vec<_> = single.into_iter().chain(parts.iter().map(|name| &name[..])).collect();
    for seed in seeds {
        let (name, good) = &volumes[(seed % 3) as usize];
        let mutated = good.mutated(seed);
        pen.write("volume", &mutated.bytes);
        // Two ways for each, so that a seed draws the same in either of two versions.
        for way in [seed / 3, seed / 3 + 5] {
            let (args, copied) = WAYS[(way % 12) as usize];
            let what = format!("{name}, seed {seed}");
            let status = pen.run(&what, args, &outputs).status;
            let is_whole = status == 0 && mutated.has_bitmap;
            if is_whole && copied == Copied::Image {
                pen.run(&what, "-q -r -O restored new", &["restored"]).ok();
                good.assert_is_copy(&mutated, &pen.read("restored"), &what);
            } else if is_whole && copied == Copied::Clone {
                good.assert_is_copy(&mutated, &pen.read("new"), &what);
            }
            nr_whole += u64::from(is_whole && copied != Copied::Other);
            pen.remove(&outputs);
            pen.remove(&["restored"]);
        }
    }
    pen.tell("volumes", nr_whole);
}

#[test]
fn volumes() {
    mutated_volumes(seeds(2000, false));
}

#[test]
#[ignore = "make test-all"]
fn ten_times_as_many_volumes() {
    mutated_volumes(seeds(2000, true));
}

/// What an image restores to, as its header and commands say: its bytes as far as there are clusters, and how many with the
/// rest. None if it makes no sense.
fn meaning_of(image: &[u8]) -> Option<(Vec<u8>, u64)> {
    let field = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(image.get(at..at + len)?);
        Some(u64::from_le_bytes(bytes))
    };
    let (cluster, device, nr) = (field(18, 4)?, field(22, 8)?, field(30, 8)?);
    let mut at = if image.get(16)? >= &10 { field(46, 4)? as usize } else { 50 };
    let written = (nr + 1).checked_mul(cluster)?.min(device);
    let mut restored = vec![0; usize::try_from(written).ok().filter(|len| *len < 64 << 20)?];
    let mut lcn: u64 = 0;
    while lcn <= nr {
        match image.get(at) {
            None if lcn == nr => break,
            Some(0) => {
                lcn = lcn.checked_add(field(at + 1, 8)?)?;
                at += 9;
            }
            Some(1) => {
                let pos = lcn.checked_mul(cluster)?;
                let len = cluster.min(device.checked_sub(pos)?) as usize;
                let pos = pos as usize;
                restored[pos..pos + len].copy_from_slice(image.get(at + 1..at + 1 + len)?);
                at += 1 + len;
                lcn += 1;
            }
            // Old ones end before the cluster with the backup boot sector, and what follows is nobody's business.
            _ if lcn == nr => break,
            _ => return None,
        }
    }
    (lcn >= nr).then_some((restored, device))
}

/// Restores and checks mutated images, with and without a trailer.
fn mutated_images(seeds: std::ops::Range<u64>) {
    let mut pen = Pen::new();
    mkntfs(&pen.at("volume"), 2 << 20, 512, 512);
    pen.run("the volume", "-q -s -o summed volume", &["summed"]).ok();
    pen.run("the volume", "-q -s --no-checksum -o plain volume", &["plain"]).ok();
    pen.run("the volume", "-q -m -s --no-checksum -o metadata volume", &["metadata"]).ok();
    let goods = ["summed", "plain", "metadata"].map(|name| pen.read(name));
    let image_len = goods[1].len();
    assert!(is_begun(&goods[0][image_len..]));
    let before = noise(7, 5000);
    pen.write("target", &before);
    let mut nr_whole = 0;
    for seed in seeds {
        let good = &goods[(seed % 3) as usize];
        let is_summed = seed % 3 == 0;
        let mut random = Random::new(seed);
        let mut image = good.clone();
        // The header, the commands behind it, or anywhere; some are cut off too.
        match random.below(6) {
            0 => spoil_some(&mut image[16..56], &mut random),
            1 => spoil_some(&mut image[16..2000], &mut random),
            2 => spoil_some(&mut image[image_len.min(good.len() - 600)..], &mut random),
            3 => image.truncate(random.below(good.len() as u64) as usize),
            4 => {
                let at = random.below(image.len() as u64) as usize;
                image[at] ^= 1 << random.below(8);
            }
            _ => spoil_some(&mut image, &mut random),
        }
        let what = format!("image {}, seed {seed}", seed % 3);
        let is_changed = image != *good;
        // Nobody can know that there were checksums where none of them is left, or neither of the two marks that name them.
        let is_known = is_summed
            && image.len() > image_len
            && (is_begun(&image[image_len..]) || image.ends_with(&good[good.len() - 16..]));
        pen.write("bad", &image);
        let said = pen.run(&what, "-q -r -O target bad", &["target"]);
        if is_summed && is_changed && is_known {
            assert_eq!(said.status, 1, "{what}: restored\n{}", said.stdout);
        }
        if said.status == 0 {
            let Some((wanted, end)) = meaning_of(&image) else {
                panic!("{what}: makes no sense, but is restored")
            };
            // It may be said to lie on a disk of any length.
            let target = std::fs::File::open(pen.at("target")).unwrap();
            let mut found = vec![0; wanted.len()];
            target.read_exact_at(&mut found, 0).unwrap();
            assert!(found == wanted, "{what}: not what the image says");
            assert_eq!(target.metadata().unwrap().len(), end, "{what}: length");
            nr_whole += 1;
        } else {
            assert!(pen.read("target") == before, "{what}: the target was written to");
        }
        let checked = pen.run(&what, ["-q -r -n bad", "-q --verify bad"][(seed % 2) as usize], &[]).status;
        assert_eq!(checked, said.status, "{what}: checked and restored");
        if seed % 5 == 0 {
            let against = pen.run(&what, "-q --verify --against volume bad", &[]).status;
            assert!(checked == 0 || against != 0, "{what}: compared, but not right");
        }
        if said.status == 0 {
            pen.write("target", &before);
        }
    }
    pen.tell("images", nr_whole);
}

#[test]
fn images() {
    mutated_images(seeds(900, false));
}

#[test]
#[ignore = "make test-all"]
fn ten_times_as_many_images() {
    mutated_images(seeds(900, true));
}

/// Changes text: bytes, numbers, whole lines.
fn mutate_text(text: &[u8], random: &mut Random) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for _ in 0..1 + random.below(3) {
        let at = random.below(lines.len() as u64) as usize;
        match random.below(8) {
            0 => _ = lines.remove(at),
            1 => lines.insert(at, lines[random.below(lines.len() as u64) as usize].clone()),
            2 => {
                let other = random.below(lines.len() as u64) as usize;
                lines.swap(at, other);
            }
            3 => {
                let end = random.below(lines[at].len() as u64 + 1) as usize;
                lines[at].truncate(end);
            }
            4 if !lines[at].is_empty() => {
                let end = lines[at].len();
                spoil_some(&mut lines[at][..end], random);
            }
            5 => {
                let number = random.instead_of(0x1000);
                lines[at] =
                    format!("{number:#x} {:#x} {}", random.instead_of(512), random.pick(&['+', '-', '?']))
                        .into_bytes();
            }
            6 => lines[at].extend(random.pick(&[&b" 0"[..], b"\r", b"\0", b" # x", b" +", b"\xff"])),
            _ => {
                // One of its words.
                let mut words: Vec<_> = lines[at].split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
                let word = random.below(words.len() as u64) as usize;
                words[word] = match random.below(3) {
                    0 => format!("{:#x}", random.instead_of(0x1000)).into_bytes(),
                    1 => vec![b'9'; random.pick(&[1, 19, 20, 21, 5000])],
                    _ => Vec::new(),
                };
                lines[at] = words.join(&b' ');
            }
        }
        if lines.is_empty() {
            return Vec::new();
        }
    }
    lines.join(&b'\n')
}

/// Goes on with mutated maps and plans of a rescue that was ended in the middle, and finishes them.
fn mutated_maps(seeds: std::ops::Range<u64>) {
    let mut pen = Pen::new();
    mkntfs(&pen.at("volume"), 2 << 20, 512, 1024);
    fill(&pen.at("volume"), 20);
    let volume = Good::of(&pen.at("volume"), false);
    // Half of what is in use was not tried: as after a kill, the plan is there and some is finished.
    pen.run(
        "the volume",
        "-q --rescue --max-time 0 --map half -s -o begun volume",
        &["begun", "half", "half.alt", "half.plan", "begun.part"],
    );
    pen.run("the volume", "-q -s -o image volume", &["image"]).ok();
    let [map, plan, begun] = ["half", "half.plan", "begun"].map(|name| pen.read(name));
    let domain = {
        pen.run("the volume", "-q --domain-out domain volume", &["domain"]).ok();
        pen.read("domain")
    };
    let whole = Mutated { bytes: pen.read("volume"), has_bitmap: true };
    let outputs = ["map", "map.alt", "map.plan", "target", "target.part", "report"];
    let mut nr_whole = 0;
    for seed in seeds {
        let mut random = Random::new(seed);
        let what = format!("map, seed {seed}");
        let is_plan = random.below(3) == 0;
        let (mut map, mut plan) = (map.clone(), plan.clone());
        if is_plan {
            match random.below(3) {
                0 => plan.truncate(random.below(plan.len() as u64) as usize),
                1 => plan = mutate_text(&plan, &mut random),
                _ => spoil_some(&mut plan, &mut random),
            }
        } else {
            map = mutate_text(&map, &mut random);
        }
        pen.write("map", &map);
        pen.write("map.plan", &plan);
        pen.write("target", &begun);
        let args = match random.below(4) {
            0 => "-q --finish map target",
            1 => "-q --map map --report report --retries 1 -s -O target volume",
            _ => "-q --map map -s -O target volume",
        };
        let status = pen.run(&what, args, &outputs).status;
        // A map may tell what is not so, a plan not: it is refused, or all is as it should be.
        if is_plan && status == 0 && !args.contains("--finish") {
            pen.run(&what, "-q -r -O restored target", &["restored"]).ok();
            volume.assert_is_copy(&whole, &pen.read("restored"), &what);
            nr_whole += 1;
        }
        pen.remove(&outputs);
        // A map of ddrescue's, for a clone.
        if seed % 3 == 0 {
            pen.write("map", &mutate_text(&domain, &mut random));
            pen.run(&what, "-q --map map -O target volume", &outputs);
            pen.remove(&outputs);
        }
    }
    pen.tell("maps and plans", nr_whole);
}

#[test]
fn maps_and_plans() {
    mutated_maps(seeds(900, false));
}

#[test]
#[ignore = "make test-all"]
fn ten_times_as_many_maps_and_plans() {
    mutated_maps(seeds(900, true));
}

/// Checks mutated configurations.
fn mutated_configurations(seeds: std::ops::Range<u64>) {
    const GOOD: [&str; 4] = [
        "action = save\nsource = all\ntarget = LABEL=RESCUE:/{serial}-{part}.img\nthen = reboot\n",
        "# A fleet.\naction = restore\nsource = LABEL=RESCUE:/WD-1234-2.img\ntarget = SERIAL=NEW-5678:2\n\
         confirm = MODEL=Samsung SSD 8*,SIZE=200G-300G\noptions = \"--no-verify -q\"\nrun-id = 2\n",
        "action = clone\nsource = SERIAL=OLD@1048576+209715200\ntarget = SERIAL=NEW\nconfirm = whole:NEW\n\
         wait = 60\nthen-failed = shell\n",
        "action=save\nsource=auto\ntarget=UUID=1234-5678:/a/{label}-{date}.img\nconsole = ttyS0,115200 tty1\n\
         stick = 0fc63daf-01\noptions = --map-interval 5s --first Users/*/Documents\n",
    ];
    let mut pen = Pen::new();
    let mut statuses = BTreeSet::new();
    for seed in seeds {
        let mut random = Random::new(seed);
        let good = random.pick(&GOOD);
        pen.write("conf", &mutate_text(good.as_bytes(), &mut random));
        statuses.insert(pen.run(&format!("configuration, seed {seed}"), "--check-config conf", &[]).status);
    }
    assert!(statuses.iter().all(|status| [0, 1].contains(status)));
    pen.tell("configurations", 0);
}

#[test]
fn configurations() {
    mutated_configurations(seeds(600, false));
}

#[test]
#[ignore = "make test-all"]
fn ten_times_as_many_configurations() {
    mutated_configurations(seeds(600, true));
}
