//! Our maps and those of the real ddrescue: each side takes the other's, in every phase.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use ntfsrescue::extent::ByteRange;
use ntfsrescue::io::store::LocalStore;
use ntfsrescue::rescue::mapfile::{self, DiskId, Head, Identity, Parsed, Phase};
use ntfsrescue::rescue::mapstore::MapStore;
use ntfsrescue::rescue::{Area, State};

use crate::faulty::FaultyDisk;
use crate::tools::{Said, assert_same, noise, run, text, wait_for};
use crate::volumes::Place;

const MIB: u64 = 1 << 20;

/// All states, with their symbols.
const STATES: [(State, &str); 5] = [
    (State::NonTried, "?"),
    (State::NonTrimmed, "*"),
    (State::NonScraped, "/"),
    (State::Bad, "-"),
    (State::Finished, "+"),
];

/// A folder with a source of 1 MiB.
struct Rescue(Place);

impl Rescue {
    fn new() -> Rescue {
        let rescue = Rescue(Place::new());
        std::fs::write(rescue.at("source"), noise(3, MIB as usize)).unwrap();
        rescue
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.at(name)
    }

    fn ddrescue(&self, args: &str) -> Said {
        run(Command::new("ddrescue").arg("-q").args(args.split_whitespace()).current_dir(self.at("")))
    }

    fn ddrescuelog(&self, args: &str) -> Said {
        run(Command::new("ddrescuelog").args(args.split_whitespace()).current_dir(self.at("")))
    }

    /// Reads a map, and compares it with what ddrescuelog lists for each state.
    #[track_caller]
    fn read(&self, map: &str) -> (Parsed, Vec<Area>) {
        let file = std::fs::File::open(self.at(map)).unwrap();
        let mut blocks = Vec::new();
        let parsed = mapfile::parse(BufReader::new(file), |block| blocks.push(block));
        let parsed = parsed
            .unwrap_or_else(|error| panic!("{error}:\n{}", std::fs::read_to_string(self.at(map)).unwrap()));
        if blocks.last().is_some_and(|block| block.range.end() <= MIB) {
            for (state, symbol) in STATES {
                assert_eq!(self.sectors(map, symbol), sectors_of(&blocks, state), "{map}, {symbol}");
            }
        }
        (parsed, blocks)
    }

    /// The 512-byte sectors that ddrescuelog lists for a state.
    #[track_caller]
    fn sectors(&self, map: &str, symbol: &str) -> Vec<u64> {
        let said = self.ddrescuelog(&format!("--list-blocks={symbol} -b512 {map}")).ok();
        said.stdout.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Writes a map of ours, as a whole job does.
    fn write(&self, map: &str, phase: Phase, blocks: &[Area]) {
        let disk = DiskId { serial: "a b % \u{fc}".into(), size: MIB };
        let identity =
            Some(Identity { target: Some(disk.clone()), disk, volume_serial: 0x1234_5678_9abc_def0 });
        let head = Head { pos: blocks[0].range.end(), phase, pass: 2, identity };
        let mut file = std::fs::File::create(self.at(map)).unwrap();
        mapfile::write(&mut file, 1, &head, blocks.iter().copied()).unwrap();
    }
}

fn sectors_of(blocks: &[Area], state: State) -> Vec<u64> {
    let wanted = blocks.iter().filter(|block| block.state == state);
    wanted.flat_map(|block| block.range.pos / 512..block.range.end() / 512).collect()
}

/// Blocks of so many sectors each, one behind the other, then the rest of the source.
fn blocks(lens: &[(u64, State)], rest: State) -> Vec<Area> {
    let mut at = 0;
    let mut blocks: Vec<_> = lens
        .iter()
        .map(|&(nr_sectors, state)| {
            let range = ByteRange { pos: at, len: nr_sectors * 512 };
            at = range.end();
            Area { range, state }
        })
        .collect();
    blocks.push(Area { range: ByteRange { pos: at, len: MIB - at }, state: rest });
    blocks
}

/// Some of everything.
fn all_states() -> Vec<Area> {
    let lens = STATES.iter().enumerate().map(|(i, (state, _))| (i as u64 * 7 + 1, *state));
    blocks(&lens.collect::<Vec<_>>(), State::NonTried)
}

#[test]
fn ddrescuelog_takes_our_maps() {
    let rescue = Rescue::new();
    let phases = [
        (Phase::Copying, "copying"),
        (Phase::Trimming, "trimming"),
        (Phase::Scraping, "scraping"),
        (Phase::Retrying, "retrying"),
        (Phase::Filling, "filling"),
        (Phase::Generating, "generating"),
        (Phase::Finished, "finished"),
    ];
    for (phase, name) in phases {
        rescue.write("map", phase, &all_states());
        rescue.ddrescuelog("-t map").ok().says("current pos:      512 B").says(name);
        let (parsed, blocks) = rescue.read("map");
        assert_eq!((parsed.head.phase, parsed.head.pass), (phase, 2));
        assert_eq!(parsed.generation, Some(1));
        assert_eq!(blocks, all_states());
        rescue.ddrescuelog("-D map").exits(1);
    }
    rescue.write("map", Phase::Finished, &blocks(&[], State::Finished));
    rescue.ddrescuelog("-D map").ok();
}

#[test]
fn ddrescuelog_combines_our_maps() {
    let rescue = Rescue::new();
    let (done, lost) = (State::Finished, State::Bad);
    rescue.write("a", Phase::Copying, &blocks(&[(16, done), (16, lost), (16, done)], State::NonTried));
    rescue.write("b", Phase::Retrying, &blocks(&[(8, done), (16, lost)], done));
    for (option, wanted) in
        [("-x", [8..16, 24..32, 48..2048]), ("-y", [0..8, 32..48, 0..0]), ("-z", [0..16, 24..2048, 0..0])]
    {
        let said = rescue.ddrescuelog(&format!("{option} b a")).ok();
        std::fs::write(rescue.at("c"), said.stdout).unwrap();
        let (parsed, _) = rescue.read("c");
        assert_eq!(parsed.generation, None);
        let wanted: Vec<u64> = wanted.into_iter().flatten().collect();
        assert_eq!(rescue.sectors("c", "+"), wanted, "{option}");
    }
}

#[test]
fn ddrescue_goes_on_from_our_maps() {
    let rescue = Rescue::new();
    let source = std::fs::read(rescue.at("source")).unwrap();
    for phase in [Phase::Copying, Phase::Trimming, Phase::Scraping, Phase::Retrying, Phase::Finished] {
        rescue.write("map", phase, &all_states());
        std::fs::write(rescue.at("copy"), vec![0; MIB as usize]).unwrap();
        rescue.ddrescue("-r1 source copy map").ok();
        // What the map called finished was not read again.
        let mut wanted = source.clone();
        for sector in sectors_of(&all_states(), State::Finished) {
            wanted[sector as usize * 512..][..512].fill(0);
        }
        assert!(std::fs::read(rescue.at("copy")).unwrap() == wanted, "{phase:?}");
        let (parsed, done) = rescue.read("map");
        assert_eq!((parsed.head.phase, parsed.generation), (Phase::Finished, None));
        assert_eq!(done, blocks(&[], State::Finished));
    }
}

#[test]
fn we_go_on_from_a_map_that_ddrescue_went_on_with() {
    let rescue = Rescue::new();
    let (path, alt) = (rescue.at("map"), rescue.at("map.alt"));
    let head = Head { pos: 0, phase: Phase::Copying, pass: 1, identity: None };
    let (mut maps, map) = MapStore::open(&LocalStore, &path).unwrap();
    assert_eq!(map, None);
    maps.save(&head, all_states().into_iter()).unwrap();
    maps.save(&head, all_states().into_iter()).unwrap();
    // Killed here: the older of the two is what ddrescue goes on with.
    assert!(alt.exists());
    rescue.ddrescue("-r1 source copy map").ok();
    let (mut maps, map) = MapStore::open(&LocalStore, &path).unwrap();
    assert_eq!(map.map(|map| (map.head.phase, map.generation)), Some((Phase::Finished, None)));
    let mut found = Vec::new();
    maps.visit(|block| found.push(block)).unwrap();
    assert_eq!(found, blocks(&[], State::Finished));
    maps.conclude(&head, found.into_iter()).unwrap();
    assert!(!alt.exists());
    rescue.ddrescuelog("-D map").ok();
}

#[test]
fn ddrescues_maps_of_every_phase_are_taken() {
    let rescue = Rescue::new();
    // A sector that is lost, and a larger area.
    let faults = [(256, State::Finished), (1, State::Bad), (255, State::Finished), (32, State::Bad)];
    rescue.write("faults", Phase::Finished, &blocks(&faults, State::Finished));
    let phases = [
        ("--cpass=1 -X1", Phase::Copying, 1),
        ("--cpass=1 -N -n", Phase::Finished, 1),
        ("--cpass=2 -X2", Phase::Trimming, 1),
        ("--cpass=1-2 -N -n", Phase::Finished, 2),
        ("--cpass=5 -X1", Phase::Copying, 5),
        ("-R --cpass=1 -X1", Phase::Copying, 1),
        ("-N -n", Phase::Finished, 2),
        ("-X1 --cpass=2", Phase::Trimming, 1),
        ("-n", Phase::Finished, 1),
        ("-X8", Phase::Scraping, 1),
        ("-r3 -X100", Phase::Retrying, 2),
        ("-r2", Phase::Finished, 2),
    ];
    for (args, phase, pass) in phases {
        let _old = std::fs::remove_file(rescue.at("map"));
        rescue.ddrescue(&format!("-H faults -c16 {args} source copy map"));
        let (parsed, blocks) = rescue.read("map");
        assert_eq!((parsed.head.phase, parsed.head.pass), (phase, pass), "{args}");
        assert_eq!((parsed.head.identity, parsed.generation), (None, None), "{args}");
        assert_eq!(blocks.last().unwrap().range.end(), MIB, "{args}");
    }
    assert_eq!(sectors_of(&rescue.read("map").1, State::Bad), (256..257).chain(512..544).collect::<Vec<_>>());
    rescue.ddrescue("-G source copy generated").ok();
    assert_eq!(sectors_of(&rescue.read("generated").1, State::NonTried).len(), 33);
    std::fs::write(rescue.at("filler"), "BAD ").unwrap();
    rescue.ddrescue("-F -/ filler copy map").ok();
    rescue.read("map");
}

/// Filling and generating are quick: only on a source without end can they be stopped on their way.
#[test]
fn ddrescues_maps_of_filling_and_generating_are_taken() {
    let rescue = Rescue::new();
    let huge = 1u64 << 42;
    let lost = [Area { range: ByteRange { pos: 0, len: 1 << 49 }, state: State::Bad }];
    rescue.write("filling", Phase::Copying, &lost);
    for name in ["huge", "partial"] {
        std::fs::File::create(rescue.at(name)).unwrap().set_len(huge).unwrap();
    }
    for (args, map, phase) in [
        ("-f -F - source /dev/null filling", "filling", Phase::Filling),
        ("-G huge partial generating", "generating", Phase::Generating),
    ] {
        let args = format!("-q --mapfile-interval=1 {args}");
        let mut ddrescue = Command::new("ddrescue");
        ddrescue.args(args.split_whitespace()).current_dir(rescue.at("")).stdin(Stdio::null());
        let mut ddrescue = Endless(ddrescue.spawn().unwrap());
        let by_ddrescue = |map: String| map.contains("GNU ddrescue") && map.lines().count() > 8;
        wait_for("a map", || std::fs::read_to_string(rescue.at(map)).is_ok_and(by_ddrescue));
        kill(Pid::from_raw(ddrescue.0.id() as i32), Signal::SIGINT).unwrap();
        ddrescue.0.wait().unwrap();
        assert_eq!(rescue.read(map).0.head.phase, phase);
    }
}

#[test]
fn the_map_of_a_real_failing_disk_is_taken() {
    let rescue = Rescue::new();
    let bad = [700, 701, 1900];
    let disk = FaultyDisk::new(&rescue.at("source"), 512, &bad);
    rescue.ddrescue(&format!("-d -r1 {} copy map", text(&disk.path()))).ok();
    assert_eq!(sectors_of(&rescue.read("map").1, State::Bad), bad);
}

#[test]
fn ddrescue_copies_exactly_our_domain() {
    let rescue = Rescue::new();
    let ranges = [(0, 4096), (8192, 12288), (512 * 1024, 1024), (MIB - 512, 512)];
    let domain = || ranges.into_iter().map(|(pos, len)| ByteRange { pos, len });
    let mut file = std::fs::File::create(rescue.at("domain")).unwrap();
    mapfile::write_domain(&mut file, domain(), MIB).unwrap();
    rescue.ddrescuelog("-t domain").ok().says("in      4 area(s)");
    rescue.ddrescue("-m domain source copy map").ok();

    let source = std::fs::read(rescue.at("source")).unwrap();
    let mut wanted = vec![0; source.len()];
    for range in domain() {
        let bytes = range.pos as usize..range.end() as usize;
        wanted[bytes.clone()].copy_from_slice(&source[bytes]);
    }
    std::fs::write(rescue.at("wanted"), wanted).unwrap();
    assert_same(&rescue.at("copy"), &rescue.at("wanted"));
    assert_eq!(rescue.read("map").1, rescue.read("domain").1);
    rescue.ddrescuelog("-D -m domain map").ok();
    rescue.ddrescuelog("-p domain map").ok();
}

/// A program that has no end of its own; killed when dropped.
struct Endless(Child);

impl Drop for Endless {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}
