//! Fills a mounted volume with a mix of files that is the same for the same seed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::random::Random;

/// Files that grow in turns, so that they are fragmented.
const NR_FRAGMENTED: usize = 40;

/// Longest write, and longest file.
const WRITE: u64 = 512 << 10;
const MAX_FILE: u64 = 256 << 20;

/// Files to a folder, on average.
const FILES_PER_FOLDER: u64 = 200;

/// What a volume is filled with.
#[derive(Clone, Copy, PartialEq)]
pub struct Mix {
    pub nr_files: u64,
    /// Bytes in them. What single files leave of it goes to fragmented ones.
    pub data_len: u64,
    /// This part of the files is shorter than 600 bytes, so that they lie in their MFT records.
    pub tiny: f64,
    /// Mean and deviation of the logarithm of the others' length in bytes.
    pub log_len: (f64, f64),
    /// A folder, and which part of all data goes to it: one byte of so many. It goes there all along, so that it lies
    /// as scattered as the rest.
    pub wanted: Option<(&'static str, u64)>,
}

impl Mix {
    /// Mostly tiny files, and few large ones: what a user's disk holds.
    pub const fn of_users(nr_files: u64, data_len: u64) -> Mix {
        Mix { nr_files, data_len, tiny: 0.6, log_len: (9.5, 2.0), wanted: None }
    }

    /// Hardly anything but tiny files, of 700 bytes on average.
    pub const fn of_tiny(nr_files: u64) -> Mix {
        Mix { nr_files, data_len: nr_files * 700, tiny: 0.9, log_len: (8.0, 0.7), wanted: None }
    }

    /// Writes the files below `root`.
    pub fn fill(&self, root: &Path, mut random: Random) -> io::Result<()> {
        let blob = random.bytes(1 << 20);
        let nr_folders = (self.nr_files / FILES_PER_FOLDER).max(1);
        let folders: Vec<_> = (0..nr_folders).map(|i| root.join(format!("d{}/s{i}", i % 17))).collect();
        let (wanted, share) = match self.wanted {
            Some((name, share)) => (vec![root.join(name), root.join(name).join("inner")], share),
            None => (Vec::new(), 0),
        };
        for folder in folders.iter().chain(&wanted) {
            fs::create_dir_all(folder)?;
        }
        let (mut left, mut in_wanted) = (self.data_len, 0);
        for i in 0..self.nr_files {
            let is_tiny = random.unit() < self.tiny;
            let (mean, deviation) = self.log_len;
            let len = if is_tiny { random.below(600) } else { random.log_normal(mean, deviation) as u64 };
            let len = len.min(left).min(MAX_FILE);
            left -= len;
            let is_wanted = share > 0 && (in_wanted + len) * share <= self.data_len - left;
            let folder = if is_wanted { random.choice(&wanted) } else { random.choice(&folders) };
            in_wanted += if is_wanted { len } else { 0 };
            let mut file = File::create(folder.join(format!("f{i}.bin")))?;
            let mut written = 0;
            while written < len {
                let at = random.below(WRITE) as usize;
                let n = (len - written).min(WRITE);
                file.write_all(&blob[at..at + n as usize])?;
                written += n;
            }
        }
        let nr_wanted = NR_FRAGMENTED.checked_div(share as usize).unwrap_or(0);
        let in_folder = |i: usize| if i < nr_wanted { &wanted[0] } else { root };
        fragmented(in_folder, left, &blob, &mut random)
    }
}

/// Writes files that grow in turns.
fn fragmented<'a>(
    folder: impl Fn(usize) -> &'a Path,
    mut left: u64,
    blob: &[u8],
    random: &mut Random,
) -> io::Result<()> {
    let path = |i: usize| -> PathBuf { folder(i).join(format!("fragmented{i}.bin")) };
    let mut files = (0..NR_FRAGMENTED).map(|i| File::create(path(i))).collect::<io::Result<Vec<_>>>()?;
    while left > 0 {
        let n = left.min(*random.choice(&[4096, 8192, 65536, 1 << 20]));
        let which = random.below(NR_FRAGMENTED as u64) as usize;
        files[which].write_all(&blob[..n as usize])?;
        left -= n;
    }
    Ok(())
}
