//! What the tests of rescues start from: a small volume, its clone without faults, and the same on a disk that fails.

use std::path::PathBuf;

use crate::edit::Editor;
use crate::faulty::FaultyDisk;
use crate::tools::{Said, noise, ours, text};
use crate::volumes::{Place, small_volume};

/// A file of [`small_volume`] with whole sectors in clusters, and another far behind it.
pub const FILE: (u64, &str) = (4, "folder4/file4.bin");
pub const OTHER_FILE: (u64, &str) = (8, "folder1/file8.bin");

/// A volume of 24 MiB with clusters of 4 KiB, called `volume`, and `healthy`, its clone.
pub struct Scene {
    place: Place,
}

impl Scene {
    pub fn new() -> Scene {
        let scene = Scene { place: Place::new() };
        small_volume(&scene.at("volume"));
        ours(["-q", "-o", text(&scene.at("healthy")), text(&scene.at("volume"))]).ok();
        scene
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.place.at(name)
    }

    pub fn names(&self) -> Vec<String> {
        self.place.names()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn editor(&self) -> Editor {
        Editor::open(&self.at("volume"))
    }

    /// The volume on a disk with bad 512-byte sectors.
    pub fn disk(&self, sector_size: u32, bad: &[u64]) -> FaultyDisk {
        FaultyDisk::new(&self.at("volume"), sector_size, bad)
    }

    /// Runs our program in the folder; options are told apart by spaces.
    pub fn ours(&self, args: &str) -> Said {
        let folder = text(&self.at("")).to_owned();
        crate::tools::run(
            std::process::Command::new(env!("CARGO_BIN_EXE_ntfsrescue"))
                .arg("-q")
                .args(args.split_whitespace())
                .current_dir(folder),
        )
    }

    /// Lets the real ntfsclone restore an image, and returns what comes of it.
    pub fn restored(&self, image: &str) -> Vec<u8> {
        let restored = self.at("restored-by-ntfsclone");
        let _old = std::fs::remove_file(&restored);
        crate::tools::ntfsclone(["-q", "-r", "-o", text(&restored), text(&self.at(image))]).ok();
        std::fs::read(restored).unwrap()
    }

    /// What a target holds as a volume: a raw clone is one, an image is restored.
    pub fn content(&self, name: &str, form: Form) -> Vec<u8> {
        match form {
            Form::Clone => self.read(name),
            Form::Image => self.restored(name),
        }
    }

    /// The first sector of the data of the file `i` that the volume was filled with.
    pub fn sector_of_file(&self, i: u64) -> u64 {
        let wanted = noise(i, 600);
        let volume = self.read("volume");
        volume.chunks(4096).position(|data| data.starts_with(&wanted)).unwrap() as u64 * 8
    }

    /// Two copies hold the same in all clusters that are in use.
    #[track_caller]
    pub fn assert_equal_in_use(&self, found: &[u8], wanted: &[u8], what: &str) {
        let editor = self.editor();
        let bitmap = editor.read(editor.bitmap_pos(), editor.nr_clusters().div_ceil(8));
        let is_used =
            |lcn: u64| lcn >= editor.nr_clusters() || bitmap[lcn as usize / 8] >> (lcn % 8) & 1 == 1;
        let sectors: Vec<_> = differing(found, wanted).into_iter().filter(|at| is_used(at / 8)).collect();
        assert!(sectors.is_empty(), "{what}: sectors in use differ: {sectors:?}");
    }

    /// The healthy clone with marks at these sectors.
    pub fn marked(&self, sectors: &[u64]) -> Vec<u8> {
        let mut wanted = self.read("healthy");
        for sector in sectors {
            let at = *sector as usize * 512;
            wanted[at..at + 512].fill(b'?');
            wanted[at..at + 10].copy_from_slice(b"BadSectoR\0");
        }
        wanted
    }
}

/// What a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Clone,
    Image,
}

impl Form {
    pub const BOTH: [Form; 2] = [Form::Clone, Form::Image];

    /// The option for it.
    pub fn option(self) -> &'static str {
        match self {
            Form::Clone => "",
            Form::Image => "-s",
        }
    }
}

/// The sectors of two volumes that differ.
pub fn differing(a: &[u8], b: &[u8]) -> Vec<u64> {
    assert_eq!(a.len(), b.len(), "length");
    let sectors = a.chunks(512).zip(b.chunks(512)).enumerate();
    sectors.filter(|(_, (a, b))| a != b).map(|(i, _)| i as u64).collect()
}

/// Both hold the same.
#[track_caller]
pub fn assert_equal(found: &[u8], wanted: &[u8], what: &str) {
    let sectors = differing(found, wanted);
    assert!(
        sectors.is_empty(),
        "{what}: {} sectors differ: {:?}",
        sectors.len(),
        &sectors[..sectors.len().min(20)]
    );
}
