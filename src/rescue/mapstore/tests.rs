use super::*;
use crate::extent::ByteRange;
use crate::io::store::simulated::SimulatedStore;
use crate::rescue::mapfile::{DiskId, Identity, Phase};
use crate::rescue::state::State;

const FILE: &str = "/maps/disk.map";
const ALT: &str = "/maps/disk.map.alt";

/// A map of ddrescue's.
const DDRESCUES: &[u8] = b"# Mapfile. Created by GNU ddrescue version 1.27\n0x00 ? 1\n0x00 0x1000 -\n";

fn head(pos: u64) -> Head {
    let disk = DiskId { serial: "S1".into(), size: 1 << 20 };
    let identity = Some(Identity { disk, volume_serial: 5, target: None });
    Head { pos, phase: Phase::Copying, pass: 1, identity }
}

/// The blocks of a map whose first `done` bytes are read.
fn blocks(done: u64) -> impl Iterator<Item = Area> + Clone {
    let ranges = [(0, done, State::Finished), (done, (1 << 20) - done, State::NonTried)];
    ranges.into_iter().map(|(pos, len, state)| Area { range: ByteRange { pos, len }, state })
}

/// Opens the map and returns its position; the blocks must go with it.
fn opened(store: &SimulatedStore) -> Result<Option<u64>, MapError> {
    let (maps, parsed) = MapStore::open(store, Path::new(FILE))?;
    let mut found = Vec::new();
    maps.visit(|block| found.push(block))?;
    let Some(parsed) = parsed else {
        assert!(found.is_empty());
        return Ok(None);
    };
    if parsed.generation.is_some() {
        assert_eq!(parsed.head, head(parsed.head.pos));
        assert_eq!(found, blocks(parsed.head.pos).collect::<Vec<_>>());
    }
    Ok(Some(parsed.head.pos))
}

fn is_there(store: &SimulatedStore, path: &str) -> bool {
    store.exists(Path::new(path)).unwrap()
}

/// Saves some maps on top of what the files hold, at some orderly ends too, and looks at what a kill at each moment
/// leaves: the last map that was saved, or the one that was being saved. `first` is what stands before.
fn survives(file: Option<&[u8]>, alt: Option<&[u8]>, first: Option<u64>) {
    let fresh = || {
        let store = SimulatedStore::default();
        file.into_iter().for_each(|content| store.put(Path::new(FILE), content));
        alt.into_iter().for_each(|content| store.put(Path::new(ALT), content));
        store
    };
    let store = fresh();
    assert_eq!(opened(&store).unwrap(), first);
    // Behind how many steps which map was saved.
    let mut saved = vec![(0, first)];
    let (mut maps, _) = MapStore::open(&store, Path::new(FILE)).unwrap();
    for i in 1..=9 {
        let pos = i * 0x200;
        if i % 4 == 0 || i == 9 {
            maps.conclude(&head(pos), blocks(pos)).unwrap();
            assert!(!is_there(&store, ALT) && is_there(&store, FILE));
        } else {
            maps.save(&head(pos), blocks(pos)).unwrap();
        }
        saved.push((store.nr_steps(), Some(pos)));
        if i % 3 == 0 {
            maps = MapStore::open(&store, Path::new(FILE)).unwrap().0;
        }
    }
    let mut nr_states = 0;
    store.each_survivor(&fresh(), |nr_whole, survivor| {
        let made = saved.partition_point(|(nr_steps, _)| *nr_steps <= nr_whole);
        let last = saved[made - 1].1;
        let next = saved.get(made).map_or(last, |(_, map)| *map);
        let found = opened(survivor).unwrap();
        assert!(
            found == last || found == next,
            "{found:?} behind step {nr_whole}, wanted {last:?} or {next:?}"
        );
        // Going on from there works, however often it is killed again.
        let (mut maps, _) = MapStore::open(survivor, Path::new(FILE)).unwrap();
        maps.save(&head(0x4000), blocks(0x4000)).unwrap();
        assert_eq!(opened(survivor).unwrap(), Some(0x4000));
        nr_states += 1;
    });
    assert!(nr_states > 5000, "{nr_states}");
}

fn ours(generation: u64, pos: u64) -> Vec<u8> {
    let mut out = Vec::new();
    mapfile::write(&mut out, generation, &head(pos), blocks(pos)).unwrap();
    out
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_map() {
    let torn = &ours(4, 0)[..200];
    let (older, newer) = (&ours(8, 0x8000)[..], &ours(9, 0x9000)[..]);
    survives(None, None, None);
    survives(Some(b""), None, None);
    survives(None, Some(torn), None);
    survives(None, Some(newer), Some(0x9000));
    survives(Some(newer), None, Some(0x9000));
    survives(Some(newer), Some(older), Some(0x9000));
    survives(Some(older), Some(newer), Some(0x9000));
    survives(Some(older), Some(torn), Some(0x8000));
    survives(Some(torn), Some(older), Some(0x8000));
    survives(Some(DDRESCUES), None, Some(0));
    survives(Some(DDRESCUES), Some(newer), Some(0));
    survives(Some(DDRESCUES), Some(torn), Some(0));
}

#[test]
fn a_map_of_ddrescue_in_the_file_goes_first() {
    let store = SimulatedStore::with(Path::new(ALT), &ours(9, 0x9000));
    store.put(Path::new(FILE), DDRESCUES);
    let (mut maps, parsed) = MapStore::open(&store, Path::new(FILE)).unwrap();
    assert_eq!(parsed.unwrap().generation, None);
    maps.save(&head(0x200), blocks(0x200)).unwrap();
    assert_eq!(opened(&store).unwrap(), Some(0x200));
    let (_, parsed) = MapStore::open(&store, Path::new(FILE)).unwrap();
    assert_eq!(parsed.unwrap().generation, Some(11));
}

#[test]
fn files_that_hold_no_map_are_refused() {
    let refused = |file: Option<&[u8]>, alt: Option<&[u8]>| {
        let store = SimulatedStore::default();
        file.into_iter().for_each(|content| store.put(Path::new(FILE), content));
        alt.into_iter().for_each(|content| store.put(Path::new(ALT), content));
        opened(&store).unwrap_err().to_string()
    };
    let torn = &ours(4, 0)[..200];
    let end = "torn or changed by hand: line 7: found the end, wanted a line with the CRC";
    assert_eq!(refused(Some(torn), None), format!("map '{FILE}': {end}"));
    assert_eq!(refused(Some(torn), Some(b"")), format!("map '{FILE}': {end}"));
    assert_eq!(refused(Some(torn), Some(torn)), format!("map '{FILE}': {end}; and its '.alt': {end}"));
    assert_eq!(
        refused(Some(b"some text\n"), None),
        format!("map '{FILE}': line 1: found \"some\", wanted a position below 2^63")
    );
    let taken = format!("'{ALT}' is a map of ddrescue's: give it another name, '{FILE}' to go on with it");
    assert_eq!(refused(None, Some(DDRESCUES)), taken);
    assert_eq!(refused(Some(&ours(1, 0)), Some(DDRESCUES)), taken);
}

/// A store that has no room left for one of the files.
struct Full<'a>(&'a SimulatedStore, &'static str);

impl Store for Full<'_> {
    fn write(
        &self,
        path: &Path,
        fill: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<()> {
        if path != Path::new(self.1) {
            return self.0.write(path, fill);
        }
        self.0.write(path, &mut |out| {
            out.write_all(b"# Map")?;
            Err(io::ErrorKind::StorageFull.into())
        })
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        self.0.open(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.publish(from, to)
    }
}

#[test]
fn a_save_that_fails_leaves_the_map_before() {
    for full in [FILE, ALT] {
        let store = SimulatedStore::with(Path::new(FILE), &ours(8, 0x8000));
        store.put(Path::new(ALT), &ours(7, 0x7000));
        let full = Full(&store, full);
        let (mut maps, _) = MapStore::open(&full, Path::new(FILE)).unwrap();
        let results = [1, 2, 3].map(|i| {
            let result = maps.save(&head(i * 0x200), blocks(i * 0x200));
            let wanted = if full.1 == FILE { 0x200 } else { 0x8000 };
            assert_eq!(opened(&store).unwrap(), Some(wanted));
            result.is_ok()
        });
        assert_eq!(results, [full.1 == FILE, false, false]);
        let error = maps.conclude(&head(0), blocks(0)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write map '{}': ", full.1)), "{error}");
    }
}
