//! Saves one volume to an image: under a name that says it is unfinished, then checked, then under its own.
//!
//! Beside `NAME` lie `NAME.map` (how far it is), `NAME.json` (what came of it) and `NAME.log`; until it is whole and
//! checked, the image is `NAME.part`. A run that was cut goes on with these at the next boot.

use std::io;
use std::path::{Path, PathBuf};

use super::ending::{Ended, Outcome, Verdict};
use super::worker::SAVING;
use crate::io::parts;
use crate::io::store::LocalStore;
use crate::rescue::mapstore::MapStore;

/// Bytes of the longest file on FAT.
const FAT_MAX: u64 = (1 << 32) - 1;

/// Seconds between two maps: what a power cut costs. Each is a sync of the target.
pub const MAP_INTERVAL: &str = "10";

/// Runs the program's command line.
pub trait Worker {
    /// Runs it with these arguments to its end.
    fn run(&mut self, argv: &[String]) -> io::Result<Ended>;
}

/// The files of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The image.
    pub image: PathBuf,
    /// While it is unfinished.
    pub part: PathBuf,
    /// How far it is, as ddrescue writes it.
    pub map: PathBuf,
    /// What came of it.
    pub json: PathBuf,
    /// What was said meanwhile.
    pub log: PathBuf,
}

impl Files {
    /// Those of the image with this path.
    pub fn of(image: &Path) -> Files {
        let with = |ending: &str| {
            let mut name = image.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Files {
            image: image.to_owned(),
            part: with(".part"),
            map: with(".map"),
            json: with(".json"),
            log: with(".log"),
        }
    }

    /// Whatever has one of these names and is no file: a folder, a link, a pipe that nobody would ever write to.
    pub fn in_the_way(&self) -> Option<&Path> {
        let all = [&self.image, &self.part, &self.map, &self.json, &self.log].map(PathBuf::as_path);
        all.into_iter().find(|path| path.symlink_metadata().is_ok_and(|found| !found.is_file()))
    }
}

/// A volume to be saved.
#[derive(Clone, Copy, Debug)]
pub struct Save<'a> {
    /// Its device.
    pub device: &'a Path,
    /// Bytes of the device.
    pub size: u64,
    /// Where it goes.
    pub files: &'a Files,
    /// Does the image lie on FAT, which has no files over 4 GiB?
    pub is_on_fat: bool,
    /// Further options of the user's.
    pub options: &'a str,
    /// Where the worker writes its report.
    pub report: &'a Path,
    /// What is being done, for messages.
    pub work: &'a str,
}

impl Save<'_> {
    /// Saves it, or what is left of it to be saved.
    pub fn run(&self, worker: &mut dyn Worker) -> Outcome {
        let Save { files, work, .. } = self;
        // Its check was passed, and then its parts were being renamed.
        if parts::exists(&files.part)
            && parts::all_of(&files.image).next().is_some()
            && let Err(cause) = parts::rename_all(&files.part, &files.image)
        {
            return Outcome::failed(format!("{work}: the image cannot be renamed: {cause}"));
        }
        if parts::exists(&files.image) {
            return match self.check(&files.image, worker) {
                Ok(()) => Outcome::was_done(format!("{work}: already saved; nothing was read from the disk")),
                Err(why) => Outcome::failed(format!(
                    "{work}: the image is there already, but it is not whole ({why}); it was left as it is"
                )),
            };
        }
        if parts::exists(&files.part) && !files.map.exists() && !alt_of(&files.map).exists() {
            return Outcome::failed(format!(
                "{work}: there is an unfinished image, but no map that says what is missing in it; it was left as it is"
            ));
        }
        let ended = match worker.run(&self.argv()) {
            Ok(ended) => ended,
            Err(cause) => return Outcome::failed(format!("{work}: the worker cannot be run: {cause}")),
        };
        let outcome = Outcome::of_worker(&ended, work);
        if outcome.verdict == Verdict::Failed {
            return outcome;
        }
        if let Err(why) = self.check(&files.part, worker) {
            return Outcome::failed(format!("{work}: the image does not pass its check ({why})"));
        }
        match parts::rename_all(&files.part, &files.image) {
            Ok(()) => outcome,
            Err(cause) => Outcome::failed(format!("{work}: the image cannot be renamed: {cause}")),
        }
    }

    /// The worker's command line.
    fn argv(&self) -> Vec<String> {
        let Save { device, files, options, report, .. } = self;
        let mut argv: Vec<String> = SAVING.map(str::to_owned).into();
        let (map, report) = (text(&files.map), text(report));
        argv.extend(["--map-interval", MAP_INTERVAL, "--map", &map, "--report", &report].map(str::to_owned));
        // The header, a byte and the bytes for each cluster in use, and what tells of the gaps: never more than this.
        let longest = self.size.saturating_add(self.size / 256).saturating_add(1 << 20);
        if self.is_on_fat && longest > FAT_MAX {
            argv.extend(["--split".to_owned(), FAT_MAX.to_string()]);
        }
        argv.extend(["-s", "-O"].map(str::to_owned));
        argv.push(text(&files.part));
        argv.extend(options.split_ascii_whitespace().map(str::to_owned));
        argv.push(text(device));
        argv
    }

    /// Walks an image's structure from its beginning to its end.
    fn check(&self, image: &Path, worker: &mut dyn Worker) -> Result<(), String> {
        match worker.run(&["-r".to_owned(), "-n".to_owned(), text(image)]) {
            Ok(Ended { status, .. }) if status.success() => Ok(()),
            Ok(Ended { status, error }) => Err(error.unwrap_or_else(|| status.to_string())),
            Err(cause) => Err(cause.to_string()),
        }
    }
}

/// A path as an argument. All of ours are text: they come from a command line that is.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The second slot of a map.
fn alt_of(map: &Path) -> PathBuf {
    let mut name = map.as_os_str().to_owned();
    name.push(".alt");
    PathBuf::from(name)
}

/// Is the unfinished image with this map one of this disk and volume? Serial numbers as the kernel and blkid give
/// them.
pub fn is_of(map: &Path, disk_serial: &str, volume_serial: &str) -> bool {
    let earlier = MapStore::open(&LocalStore, map).ok().and_then(|(_, earlier)| earlier);
    earlier.and_then(|earlier| earlier.head.identity).is_some_and(|identity| {
        identity.disk.serial == disk_serial
            && format!("{:016X}", identity.volume_serial).eq_ignore_ascii_case(volume_serial)
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::extent::ByteRange;
    use crate::rescue::mapfile::{DiskId, Head, Identity, Phase};
    use crate::rescue::{Area, State};
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    /// A worker that only writes down what it is asked for.
    pub struct Script {
        /// Exit statuses, in the order of the calls.
        statuses: Vec<i32>,
        pub asked: Vec<String>,
    }

    impl Script {
        pub fn new(statuses: &[i32]) -> Script {
            Script { statuses: statuses.into(), asked: Vec::new() }
        }
    }

    impl Worker for Script {
        fn run(&mut self, argv: &[String]) -> io::Result<Ended> {
            self.asked.push(argv.join(" "));
            Ok(Ended { status: ExitStatus::from_raw(self.statuses.remove(0) << 8), error: None })
        }
    }

    struct Scene {
        folder: tempfile::TempDir,
        files: Files,
    }

    impl Scene {
        fn new(names: &[&str]) -> Scene {
            let folder = tempfile::tempdir().unwrap();
            for name in names {
                std::fs::write(folder.path().join(name), name).unwrap();
            }
            let files = Files::of(&folder.path().join("i.img"));
            Scene { folder, files }
        }

        fn save(&self, statuses: &[i32]) -> (String, Vec<String>) {
            let mut worker = Script::new(statuses);
            let save = Save {
                device: Path::new("/dev/sdx1"),
                size: 1 << 30,
                files: &self.files,
                is_on_fat: true,
                options: " -q  --x=y ",
                report: Path::new("/run/report"),
                work: "save",
            };
            let outcome = save.run(&mut worker).to_string();
            assert_eq!(worker.statuses, [0; 0], "all were asked for");
            let place = self.folder.path().to_str().unwrap();
            (outcome, worker.asked.into_iter().map(|line| line.replace(place, "")).collect())
        }

        fn has(&self, name: &str) -> bool {
            self.folder.path().join(name).exists()
        }
    }

    const SAVED: &str = "--rescue --force --ignore-fs-check --strict --reconnect 600 --map-interval 10 \
                         --map /i.img.map --report /run/report -s -O /i.img.part -q --x=y /dev/sdx1";

    #[test]
    fn an_image_gets_its_name_when_it_is_checked() {
        for (status, result) in
            [(0, "result=ok exit=0"), (3, "result=damaged exit=3"), (5, "result=damaged exit=5")]
        {
            let scene = Scene::new(&["i.img.part", "i.img.map"]);
            let (outcome, asked) = scene.save(&[status, 0]);
            assert!(outcome.contains(result), "{outcome}");
            assert_eq!(asked, [SAVED, "-r -n /i.img.part"]);
            assert!(scene.has("i.img") && !scene.has("i.img.part"));
        }
    }

    #[test]
    fn what_is_not_whole_keeps_its_name() {
        for status in [1, 4, 6, 7] {
            let scene = Scene::new(&["i.img.part", "i.img.map.alt"]);
            let (outcome, asked) = scene.save(&[status]);
            assert!(outcome.contains(&format!("result=failed exit={status}")), "{outcome}");
            assert_eq!(asked, [SAVED]);
            assert!(!scene.has("i.img") && scene.has("i.img.part"));
        }
        let scene = Scene::new(&["i.img.part", "i.img.map"]);
        let (outcome, _) = scene.save(&[0, 1]);
        assert!(outcome.contains("does not pass its check"), "{outcome}");
        assert!(!scene.has("i.img") && scene.has("i.img.part"));
    }

    #[test]
    fn a_finished_image_is_left_as_it_is() {
        for (status, result) in [(0, "result=ok exit=0 save: already saved"), (1, "result=failed exit=1")] {
            for name in ["i.img", "i.img.001"] {
                let scene = Scene::new(&[name]);
                let (outcome, asked) = scene.save(&[status]);
                assert!(outcome.contains(result), "{outcome}");
                assert_eq!(asked, ["-r -n /i.img"]);
                assert_eq!(std::fs::read_to_string(scene.folder.path().join(name)).unwrap(), name);
            }
        }
    }

    #[test]
    fn what_is_no_file_is_in_the_way() {
        let scene = Scene::new(&["i.img", "i.img.log"]);
        assert_eq!(scene.files.in_the_way(), None);
        nix::unistd::mkfifo(&scene.files.map, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(scene.files.in_the_way(), Some(scene.files.map.as_path()));
        std::os::unix::fs::symlink("i.img", &scene.files.part).unwrap();
        assert_eq!(scene.files.in_the_way(), Some(scene.files.part.as_path()));
    }

    #[test]
    fn an_unfinished_image_without_a_map_is_left_as_it_is() {
        let scene = Scene::new(&["i.img.part"]);
        let (outcome, asked) = scene.save(&[]);
        assert!(outcome.contains("result=failed") && outcome.contains("no map"), "{outcome}");
        assert_eq!(asked, [""; 0]);
    }

    #[test]
    fn on_fat_an_image_that_may_be_too_long_is_split() {
        let files = Files::of(Path::new("/i"));
        let argv = |size, is_on_fat| {
            let (device, report) = (Path::new("/d"), Path::new("/r"));
            Save { device, size, files: &files, is_on_fat, options: "", report, work: "" }.argv().join(" ")
        };
        assert!(argv(4 << 30, true).contains("--split 4294967295 "));
        assert!(!argv(4 << 30, false).contains("--split"));
        assert!(!argv(4000 << 20, true).contains("--split"));
    }

    #[test]
    fn a_map_names_its_disk_and_volume() {
        let folder = tempfile::tempdir().unwrap();
        let map = folder.path().join("m");
        assert!(!is_of(&map, "", ""));
        let (mut store, _) = MapStore::open(&LocalStore, &map).unwrap();
        let identity = Identity {
            disk: DiskId { serial: "S 1".into(), size: 512 },
            volume_serial: 0x12ab,
            target: None,
        };
        let head = Head { pos: 0, phase: Phase::Copying, pass: 1, identity: Some(identity) };
        let all = Area { range: ByteRange { pos: 0, len: 512 }, state: State::NonTried };
        store.save(&head, std::iter::once(all)).unwrap();
        assert!(is_of(&map, "S 1", "00000000000012AB") && is_of(&map, "S 1", "00000000000012ab"));
        assert!(!is_of(&map, "S1", "00000000000012AB") && !is_of(&map, "S 1", "0000000000001200"));
    }
}
