use super::*;
use crate::extent::{ClusterSet, Extent};
use crate::image::PlacedImage;
use crate::io::parts::{self, Parts};
use crate::io::raw::RawSink;
use crate::plan::Plan;
use crate::units::{Geometry, Lcn};

const CLUSTER: u64 = 1024;
const NR_CLUSTERS: u64 = 2000;

/// A folder with a target of a volume of which the clusters 10 to 499 and 1000 to 1999 are used.
struct Scene {
    folder: tempfile::TempDir,
    plan: Plan,
    is_image: bool,
    /// Is the image in parts?
    is_split: bool,
}

/// Numbers that look like chance, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

impl Scene {
    fn new(is_image: bool) -> Scene {
        let mut used = ClusterSet::new(NR_CLUSTERS);
        used.insert_extent(Extent { lcn: Lcn(10), len: 490 });
        used.insert_extent(Extent { lcn: Lcn(1000), len: 1000 });
        let geometry = Geometry::new(CLUSTER, NR_CLUSTERS, NR_CLUSTERS * CLUSTER + 512).unwrap();
        let plan = Plan::new(geometry, used, 1490);
        Scene { folder: tempfile::tempdir().unwrap(), plan, is_image, is_split: false }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The target itself.
    fn plain(&self, name: &str) -> Box<dyn PlacedSink + '_> {
        if self.is_split {
            let parts = Parts::resume(self.at(name), parts::SHORTEST, None).unwrap();
            return Box::new(PlacedImage::new(parts, name.into(), &self.plan).unwrap());
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(self.at(name)).unwrap();
        match self.is_image {
            true => Box::new(PlacedImage::new(file, name.into(), &self.plan).unwrap()),
            false => Box::new(RawSink::file(file, name.into(), &self.plan.geometry)),
        }
    }

    fn limits(&self, reach: u64) -> Limits {
        Limits {
            path: self.at("target.ahead"),
            reach,
            max_len: u64::MAX,
            volume_len: self.plan.geometry.device_size,
        }
    }

    fn ahead(&self, reach: u64) -> Ahead<'_> {
        Ahead::new(self.plain("target"), self.limits(reach)).unwrap()
    }

    /// Each used byte once, in pieces of all lengths and in some order.
    fn pieces(&self, chance: &mut Chance) -> Vec<ByteRange> {
        let mut pieces = Vec::new();
        for range in self.plan.ranges() {
            let mut pos = range.pos;
            while pos < range.end() {
                let len = [512, 1024, 4096, 65_536][chance.below(4) as usize].min(range.end() - pos);
                pieces.push(ByteRange { pos, len });
                pos += len;
            }
        }
        // Some stretches stay in order.
        for i in 0..pieces.len() {
            if chance.below(3) == 0 {
                let other = chance.below(pieces.len() as u64) as usize;
                pieces.swap(i, other);
            }
        }
        pieces
    }
}

/// What a place holds in a version.
fn content(range: ByteRange, version: u64) -> Vec<u8> {
    (range.pos..range.end()).map(|pos| (pos * 7 + pos / 256 + version * 91) as u8 | 1).collect()
}

fn back(sink: &dyn PlacedSink, range: ByteRange) -> Vec<u8> {
    let mut bytes = vec![0; range.len as usize];
    sink.read_back(range.pos, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_target_is_the_same_whatever_the_order() {
    let mut chance = Chance(1);
    for round in 0..24 {
        let is_image = round % 2 == 0;
        let scene = Scene { is_split: round % 4 == 0, ..Scene::new(is_image) };
        let pieces = scene.pieces(&mut chance);
        let reach = [0, 3000, 200_000, 1 << 40][chance.below(4) as usize];
        let mut limits = scene.limits(reach);
        if round % 3 == 0 {
            limits.max_len = 100_000;
        }
        let mut wanted = scene.plain("wanted");
        let mut ahead = Ahead::new(scene.plain("target"), limits.clone()).unwrap();
        for (i, piece) in pieces.iter().enumerate() {
            // Some places come twice, with other bytes.
            for version in chance.below(2)..2 {
                wanted.put(piece.pos, &content(*piece, version)).unwrap();
                ahead.put(piece.pos, &content(*piece, version)).unwrap();
            }
            let earlier = pieces[chance.below(i as u64 + 1) as usize];
            assert!(back(&ahead, earlier) == content(earlier, 1), "round {round}");
            while chance.below(3) == 0 && ahead.settle().unwrap() {}
            match chance.below(40) {
                0 => ahead.sync().unwrap(),
                1 => {
                    ahead.sync().unwrap();
                    drop(ahead);
                    ahead = Ahead::new(scene.plain("target"), limits.clone()).unwrap();
                    if !scene.is_image {
                        // What a clone holds back is to be put again.
                        for held in pieces[..=i].iter().filter(|held| scene.is_held(**held)) {
                            ahead.put(held.pos, &content(*held, 1)).unwrap();
                        }
                    }
                }
                _ => {}
            }
            assert!(ahead.log.as_ref().is_none_or(|log| log.len <= limits.max_len.max(100_000)));
        }
        wanted.finish().unwrap();
        ahead.finish().unwrap();
        let read = |name| {
            let files = parts::of_image(&scene.at(name)).unwrap();
            assert_eq!(files.len(), if scene.is_split { 2 } else { 1 });
            files.iter().flat_map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>()
        };
        assert!(read("wanted") == read("target"), "round {round}");
        assert!(!scene.at("target.ahead").exists());
    }
}

impl Scene {
    fn is_held(&self, range: ByteRange) -> bool {
        range.pos == 0 || range.pos >= self.plan.geometry.volume_size()
    }
}

/// What the two files hold.
type State = [Option<Vec<u8>>; 2];

impl Scene {
    fn state(&self) -> State {
        ["target", "target.ahead"].map(|name| std::fs::read(self.at(name)).ok())
    }

    fn restore(&self, state: &State) {
        for (name, content) in ["target", "target.ahead"].into_iter().zip(state) {
            match content {
                Some(content) => std::fs::write(self.at(name), content).unwrap(),
                None => drop(std::fs::remove_file(self.at(name))),
            }
        }
    }
}

#[test]
fn what_was_synced_survives() {
    let mut chance = Chance(7);
    for round in 0..6 {
        let scene = Scene::new(round % 2 == 0);
        let pieces: Vec<_> =
            scene.pieces(&mut chance).into_iter().filter(|piece| !scene.is_held(*piece)).collect();
        let mut ahead = scene.ahead(50_000);
        let mut versions = vec![None; pieces.len()];
        // Since the last sync: the pieces that were put, and what the files held after each step.
        let (mut synced, mut since, mut states) = (versions.clone(), Vec::new(), vec![scene.state()]);
        for i in 0..pieces.len() {
            let again = if chance.below(4) == 0 { chance.below(i as u64 + 1) as usize } else { i };
            for i in [i, again] {
                versions[i] = Some(versions[i].map_or(0, |version: u64| version + 1));
                ahead.put(pieces[i].pos, &content(pieces[i], versions[i].unwrap())).unwrap();
                since.push(i);
            }
            while chance.below(2) == 0 && ahead.settle().unwrap() {}
            states.push(scene.state());
            if chance.below(12) == 0 {
                ahead.sync().unwrap();
                (synced, since, states) = (versions.clone(), Vec::new(), vec![scene.state()]);
            }
            if chance.below(8) > 0 {
                continue;
            }
            drop(ahead);
            // The power goes: of each file any state since the sync is on the medium, and its tail may be missing.
            let now = scene.state();
            let mut crashed = states[chance.below(states.len() as u64) as usize].clone();
            crashed[1] = states[chance.below(states.len() as u64) as usize][1].clone();
            let kept = states[0][1].as_ref().map_or(0, |bytes| bytes.len());
            if let Some(bytes) = &mut crashed[1] {
                let torn = chance.below((bytes.len() - kept) as u64 + 1) as usize;
                let len = bytes.len();
                match chance.below(3) {
                    0 => bytes.truncate(len - torn),
                    1 => bytes[len - torn..].fill(0),
                    _ => {}
                }
            }
            scene.restore(&crashed);
            let reopened = scene.ahead(50_000);
            for (i, version) in synced.iter().enumerate().filter(|(i, _)| !since.contains(i)) {
                if let Some(version) = version {
                    assert!(back(&reopened, pieces[i]) == content(pieces[i], *version), "round {round}");
                }
            }
            drop(reopened);
            scene.restore(&now);
            ahead = scene.ahead(50_000);
            // No map knows of these: they are read again.
            since.iter().for_each(|i| {
                ahead.put(pieces[*i].pos, &content(pieces[*i], versions[*i].unwrap())).unwrap();
            });
            states.push(scene.state());
        }
    }
}

/// An ahead file with some records, synced, and its content.
fn with_records(scene: &Scene) -> Vec<u8> {
    let mut ahead = scene.ahead(1000);
    for pos in [1_200_000, 1_100_000, 1_101_024] {
        let range = ByteRange { pos, len: 1024 };
        ahead.put(pos, &content(range, 0)).unwrap();
    }
    ahead.sync().unwrap();
    drop(ahead);
    std::fs::read(scene.at("target.ahead")).unwrap()
}

#[test]
fn a_torn_tail_is_cut_off() {
    let scene = Scene::new(false);
    let whole = with_records(&scene);
    let before = with_two_records(&whole);
    for cut in (before..whole.len()).step_by(41) {
        let mut zeros = whole.clone();
        zeros[cut..].fill(0);
        let mut flipped = whole.clone();
        flipped[cut] ^= 1;
        for torn in [whole[..cut].to_vec(), zeros, flipped] {
            std::fs::write(scene.at("target.ahead"), torn).unwrap();
            let mut ahead = scene.ahead(1000);
            for pos in [1_200_000, 1_100_000] {
                let range = ByteRange { pos, len: 1024 };
                assert!(back(&ahead, range) == content(range, 0));
            }
            let lost = ByteRange { pos: 1_101_024, len: 1024 };
            assert!(back(&ahead, lost) == [0; 1024]);
            // It goes on behind what is left.
            ahead.put(lost.pos, &content(lost, 5)).unwrap();
            drop(ahead);
            assert!(back(&scene.ahead(1000), lost) == content(lost, 5));
        }
    }
}

fn with_two_records(whole: &[u8]) -> usize {
    let len = FILE_HEAD_LEN as usize + 2 * (HEAD_LEN as usize + 1024);
    assert_eq!(whole.len(), len + HEAD_LEN as usize + 1024);
    len
}

#[test]
fn records_of_another_file_are_not_taken() {
    let scene = Scene::new(false);
    let old = with_records(&scene);
    std::fs::remove_file(scene.at("target.ahead")).unwrap();
    let new = with_records(&scene);
    // A new file that got an old one's clusters, and whose last bytes have not reached the medium.
    let mixed = [&new[..with_two_records(&new)], &old[with_two_records(&old)..]].concat();
    std::fs::write(scene.at("target.ahead"), mixed).unwrap();
    let lost = ByteRange { pos: 1_101_024, len: 1024 };
    assert!(back(&scene.ahead(1000), lost) == [0; 1024]);
}

#[test]
fn only_its_own_ahead_file_is_taken_up() {
    let scene = Scene::new(false);
    let path = scene.at("target.ahead");
    let refused = || Ahead::new(scene.plain("target"), scene.limits(0)).err().unwrap().to_string();
    let whole = with_records(&scene);
    // A kill before the head was written: no map knows of anything in it.
    for empty in [&[][..], &[0; 20], &[0; 32]] {
        std::fs::write(&path, empty).unwrap();
        assert!(scene.ahead(0).log.is_none());
        assert!(!path.exists());
    }
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, file).unwrap();
    };
    changed(16, &[2]);
    assert!(refused().ends_with("target.ahead' has version 2, wanted 1"), "{}", refused());
    changed(24, &[1, 0, 0, 0, 0, 0, 0, 0]);
    assert!(refused().ends_with("goes with a target of 1 bytes, wanted one of 2048512"), "{}", refused());
    std::fs::write(&path, [b'x'; 100]).unwrap();
    assert!(refused().contains("target.ahead' is in the way"), "{}", refused());
    assert!(discard(&path).is_err());
    std::fs::write(&path, &whole).unwrap();
    discard(&path).unwrap();
    discard(&path).unwrap();
    assert!(!path.exists());
}

#[test]
fn room_is_given_back() {
    let scene = Scene::new(false);
    let mut ahead = scene.ahead(4096);
    let put = |ahead: &mut Ahead<'_>, pos| {
        let range = ByteRange { pos, len: 4096 };
        ahead.put(pos, &content(range, 0)).unwrap();
    };
    let len = || scene.at("target.ahead").metadata().map_or(0, |metadata| metadata.len());
    // Downwards, as after a jump, so that what comes first in the target is last in the file.
    (0..10).rev().for_each(|i| put(&mut ahead, 98_304 + i * 4096));
    assert_eq!(len(), FILE_HEAD_LEN + 10 * (HEAD_LEN + 4096));
    assert!(!ahead.settle().unwrap(), "beyond the reach");
    assert_eq!(ahead.end(), 0);
    // The gap is filled.
    (0..24).for_each(|i| put(&mut ahead, i * 4096));
    for _ in 0..6 {
        assert!(ahead.settle().unwrap());
    }
    assert_eq!(len(), FILE_HEAD_LEN + 10 * (HEAD_LEN + 4096), "not before that has reached the medium");
    ahead.sync().unwrap();
    assert_eq!(len(), FILE_HEAD_LEN + 4 * (HEAD_LEN + 4096) + HEAD_LEN);
    while ahead.settle().unwrap() {}
    ahead.sync().unwrap();
    assert!(!scene.at("target.ahead").exists());
    assert_eq!(scene.at("target").metadata().unwrap().len(), 98_304 + 10 * 4096);
}
