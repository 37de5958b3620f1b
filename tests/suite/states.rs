//! How Windows left a volume: dirty, asleep, with changes in its log. The last two are told of and copied, by ntfsclone
//! without a word.

use std::path::Path;

use ntfsrescue::init::probe::{Found, Left, probe};
use ntfsrescue::io::disk::Disk;

use crate::edit::{Editor, RestartPage};
use crate::tools::{Said, assert_same, noise, ntfsclone, ours, text};
use crate::volumes::{Mounted, Place, given, mkntfs};

const DIRTY: &str = "WARNING: the volume is marked dirty; it is copied as it is";
const ASLEEP: &str =
    "WARNING: Windows is hibernated on this volume: what it keeps in memory is missing in the copy";
const UNCLEAN: &str =
    "WARNING: the volume was not unmounted: $LogFile holds changes that are not in place yet";

fn new_volume(place: &Place) -> std::path::PathBuf {
    let volume = place.at("volume");
    mkntfs(&volume, 8 << 20, 512, 4096);
    volume
}

/// A run told of exactly these states.
#[track_caller]
fn assert_told(said: &Said, states: &[&str]) {
    for state in [DIRTY, ASLEEP, UNCLEAN] {
        let wanted = usize::from(states.contains(&state));
        assert_eq!(said.stdout.matches(state).count(), wanted, "{state}:\n{}", said.stdout);
    }
}

/// At boot the volume is taken for one that was left so.
#[track_caller]
fn assert_left(volume: &Path, left: Left) {
    match probe(&Disk::open(volume).unwrap(), None) {
        Found::Content(content) => assert_eq!(content.left, Some(left)),
        other => panic!("found {other:?}"),
    }
}

/// The volume is in these states, and cloned and saved all the same, as ntfsclone saves it.
#[track_caller]
fn assert_is(volume: &Path, states: &[&str]) {
    assert_left(
        volume,
        match states {
            states if states.contains(&ASLEEP) => Left::Asleep,
            states if states.contains(&UNCLEAN) => Left::Open,
            _ => Left::InOrder,
        },
    );
    let place = Place::new();
    let at = |name| place.at(name);
    assert_told(&ours(["-q", "-o", text(&at("clone")), text(volume)]).ok(), states);
    assert_told(&ours(["-q", "-s", "--no-checksum", "-o", text(&at("image")), text(volume)]).ok(), states);
    assert_told(&ours(["-q", "-s", "-m", "-o", text(&at("metadata")), text(volume)]).ok(), states);
    ntfsclone(["-q", "-s", "-o", text(&at("theirs")), text(volume)]).ok();
    assert_same(&at("image"), &at("theirs"));
    // The copy is left the same way.
    assert_told(&ours(["-q", "-s", "-o", text(&at("again")), text(&at("clone"))]).ok(), states);
}

#[test]
fn hibernated() {
    let begins = |start: &[u8], len: usize| [start, &noise(1, len - start.len())].concat();
    for (name, content, states) in [
        ("hiberfil.sys", begins(b"hibr", 20_000), &[ASLEEP][..]),
        ("hiberfil.sys", begins(b"HIBR", 20_000), &[ASLEEP]),
        ("HIBERFIL.SYS", begins(b"hibr", 20_000), &[ASLEEP]),
        // In the record itself.
        ("hiberfil.sys", begins(b"hibr", 20), &[ASLEEP]),
        ("hiberfil.sys", begins(b"wake", 20_000), &[]),
        ("hiberfil.sys", begins(b"WAKE", 20_000), &[]),
        ("hiberfil.sys", vec![0; 20_000], &[]),
        ("hiberfil.sys", b"hib".to_vec(), &[]),
        ("hiberfil.sys", Vec::new(), &[]),
        ("hiberfil.sys.old", begins(b"hibr", 20_000), &[]),
        ("hiberfil.sy", begins(b"hibr", 20_000), &[]),
        ("folder/hiberfil.sys", begins(b"hibr", 20_000), &[]),
    ] {
        println!("{name}, {} bytes, {:?}", content.len(), content.get(..4));
        let place = Place::new();
        let volume = new_volume(&place);
        let mounted = Mounted::new(&volume, "big_writes");
        std::fs::create_dir(mounted.path().join("folder")).unwrap();
        std::fs::write(mounted.path().join(name), content).unwrap();
        drop(mounted);
        assert_is(&volume, states);
    }
}

#[test]
fn asleep_beside_many_files() {
    // So many that the root folder has an index of blocks; the name is in different ones of them.
    for others in ["i", "a", "z"] {
        let place = Place::new();
        let volume = new_volume(&place);
        let mounted = Mounted::new(&volume, "big_writes");
        for i in 0..300 {
            let name = if i % 2 == 0 { others } else { "a" };
            std::fs::write(mounted.path().join(format!("{name}{i} with a long name")), "").unwrap();
        }
        drop(mounted);
        assert_left(&volume, Left::InOrder);
        let mounted = Mounted::new(&volume, "big_writes");
        std::fs::write(mounted.path().join("hiberfil.sys"), "HIBR").unwrap();
        drop(mounted);
        assert_left(&volume, Left::Asleep);
    }
}

#[test]
fn asleep_no_more() {
    let place = Place::new();
    let volume = new_volume(&place);
    let mounted = Mounted::new(&volume, "big_writes");
    std::fs::write(mounted.path().join("hiberfil.sys"), [b'h', b'i', b'b', b'r', 0, 0]).unwrap();
    std::fs::remove_file(mounted.path().join("hiberfil.sys")).unwrap();
    drop(mounted);
    assert_is(&volume, &[]);
}

#[test]
fn the_log() {
    const OPEN: RestartPage = RestartPage { lsn: 100, client: 0, flags: 0, torn: false };
    const UNUSED: RestartPage = RestartPage { client: 0xffff, ..OPEN };
    const CLOSED: RestartPage = RestartPage { flags: 2, ..OPEN };
    const TORN: RestartPage = RestartPage { torn: true, ..OPEN };
    let newer = |page: RestartPage| RestartPage { lsn: page.lsn + 50, ..page };
    for (what, first, second, states) in [
        ("emptied", None, None, &[][..]),
        ("open", Some(OPEN), Some(OPEN), &[UNCLEAN]),
        ("with another flag", Some(RestartPage { flags: 1, ..OPEN }), None, &[UNCLEAN]),
        ("closed", Some(CLOSED), Some(CLOSED), &[]),
        ("closed, with another flag", Some(RestartPage { flags: 3, ..OPEN }), None, &[]),
        ("nobody's", Some(UNUSED), Some(UNUSED), &[]),
        ("closed later, second page", Some(OPEN), Some(newer(CLOSED)), &[]),
        ("closed later, first page", Some(newer(CLOSED)), Some(OPEN), &[]),
        ("opened later, second page", Some(CLOSED), Some(newer(OPEN)), &[UNCLEAN]),
        ("opened later, first page", Some(newer(OPEN)), Some(UNUSED), &[UNCLEAN]),
        ("first page torn", Some(newer(TORN)), Some(OPEN), &[UNCLEAN]),
        ("first page torn, closed", Some(newer(TORN)), Some(CLOSED), &[]),
        ("second page torn", Some(OPEN), Some(newer(TORN)), &[UNCLEAN]),
        ("both torn", Some(TORN), Some(TORN), &[]),
    ] {
        println!("{what}");
        let place = Place::new();
        let volume = new_volume(&place);
        let editor = Editor::open(&volume);
        for (number, page) in [first, second].into_iter().enumerate() {
            if let Some(page) = page {
                editor.put_restart_page(number as u64, &page);
            }
        }
        assert_is(&volume, states);
    }
}

#[test]
fn logs_that_make_no_sense() {
    let open = RestartPage { lsn: 100, client: 0, flags: 0, torn: false };
    // Of both pages: the place of the area, its offset beyond the page, the size of the array, the magic.
    for (at, bytes) in
        [(24, [0xff, 0xff]), (24, [0xfc, 0x0f]), (6, [0xff, 0xff]), (4, [0, 0x10]), (0, *b"CH")]
    {
        let place = Place::new();
        let volume = new_volume(&place);
        let editor = Editor::open(&volume);
        for number in 0..2 {
            editor.put_restart_page(number, &open);
            editor.write(editor.log_pos() + number * 4096 + at, &bytes);
        }
        assert_is(&volume, &[]);
    }
}

#[test]
fn all_at_once() {
    let place = Place::new();
    let volume = new_volume(&place);
    let mounted = Mounted::new(&volume, "big_writes");
    std::fs::write(mounted.path().join("hiberfil.sys"), "hibr").unwrap();
    drop(mounted);
    let editor = Editor::open(&volume);
    editor.put_restart_page(0, &RestartPage { lsn: 1, client: 0, flags: 0, torn: false });
    assert_is(&volume, &[ASLEEP, UNCLEAN]);
    // Only the dirty flag keeps a volume from being copied, with ntfsclone too.
    editor.make_dirty();
    assert_left(&volume, Left::Dirty);
    let (clone, source) = (place.at("clone"), text(&volume));
    ours(["-o", text(&clone), source]).exits(1).says("ERROR: the volume is marked dirty");
    ntfsclone(["-o", text(&clone), source]).exits(1);
    for options in ["--force", "--rescue"] {
        let said = ours(["-q", options, "-O", text(&clone), source]).ok();
        assert_told(&said, &[DIRTY, ASLEEP, UNCLEAN]);
        assert_same(&clone, &volume);
    }
}

#[test]
fn given_volumes() {
    let place = Place::new();
    for (name, volume) in given(&place) {
        println!("{name}");
        let said = ours(["-q", "-f", "-s", "-O", "/dev/null", text(&volume)]).ok();
        let is_unclean = said.stdout.contains(UNCLEAN);
        println!("{}", said.stdout);
        assert!(is_unclean || !name.starts_with("logfileparser-tiny"), "{}", said.stdout);
        assert!(!said.stdout.contains(ASLEEP), "{}", said.stdout);
    }
}
