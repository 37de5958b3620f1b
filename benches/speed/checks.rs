//! Whether what came out is right: a fast copy that is none would win.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ntfsrescue::io::disk::Disk;
use ntfsrescue::ntfs::scan::scan;
use ntfsrescue::ntfs::{Tolerance, Volume};

use crate::shared::image;
use crate::shared::programs::Outcome;
use crate::shared::silent::Silent;
use crate::volumes::Sample;

/// Bytes that are compared at a time.
const PIECE: u64 = 1 << 20;

/// Fails unless the copy has the sample's bytes in each of these stretches.
pub fn same_bytes(sample: &Sample, copy: &Path, stretches: impl Iterator<Item = Range<u64>>) -> Outcome<()> {
    let (source, copy) = (File::open(&sample.path)?, File::open(copy)?);
    let [mut a, mut b] = [vec![0; PIECE as usize], vec![0; PIECE as usize]];
    for stretch in stretches {
        for pos in stretch.clone().step_by(PIECE as usize) {
            let n = (stretch.end - pos).min(PIECE) as usize;
            source.read_exact_at(&mut a[..n], pos)?;
            read_or_hole(&copy, &mut b[..n], pos)?;
            if a[..n] != b[..n] {
                return Err(format!("the copy differs within {n} bytes at {pos}").into());
            }
        }
    }
    Ok(())
}

/// Reads, and takes what lies behind the end for zeros: some copies end after the last byte that is none.
fn read_or_hole(file: &File, buffer: &mut [u8], pos: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], pos + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    buffer[filled..].fill(0);
    Ok(())
}

/// Fails unless the image holds the sample's used clusters, and no others, with their bytes.
pub fn same_clusters(sample: &Sample, image: impl Read) -> Outcome<()> {
    let mut source = Window::new(File::open(&sample.path)?);
    let mut wanted = sample.used.iter().cloned().chain([sample.extra()]);
    let mut stretch = 0..0;
    image::clusters(BufReader::with_capacity(PIECE as usize, image), |pos, bytes| {
        if stretch.is_empty() {
            stretch = wanted.next().unwrap_or(0..0);
        }
        if pos != stretch.start {
            let message =
                format!("the image has a cluster at {pos} where one at {} is wanted", stretch.start);
            return Err(io::Error::other(message));
        }
        stretch.start += bytes.len() as u64;
        if source.at(pos, bytes.len())? != bytes {
            return Err(io::Error::other(format!("the image differs in the cluster at {pos}")));
        }
        Ok(())
    })?;
    if !stretch.is_empty() || wanted.any(|stretch| !stretch.is_empty()) {
        return Err("the image ends too early".into());
    }
    Ok(())
}

/// A file that is read from its beginning to its end, in parts.
struct Window {
    file: File,
    buffer: Vec<u8>,
    start: u64,
    len: usize,
}

impl Window {
    fn new(file: File) -> Window {
        Window { file, buffer: vec![0; PIECE as usize], start: 0, len: 0 }
    }

    fn at(&mut self, pos: u64, len: usize) -> io::Result<&[u8]> {
        let is_here = pos >= self.start && pos + len as u64 <= self.start + self.len as u64;
        if !is_here {
            self.start = pos;
            self.len = self.buffer.len();
            read_or_hole(&self.file, &mut self.buffer, pos)?;
        }
        let from = (pos - self.start) as usize;
        Ok(&self.buffer[from..from + len])
    }
}

/// Fails unless the clone of the sample's metadata is a volume with the same clusters in use.
pub fn same_usage(sample: &Sample, clone: &Path) -> Outcome<()> {
    let disk = Disk::open(clone)?;
    let volume = Volume::open(&disk, Tolerance::default(), &Silent)?;
    let usage = scan(&volume, Tolerance::default(), None, &Silent)?;
    if usage.nr_used != sample.nr_used {
        let (here, wanted) = (usage.nr_used, sample.nr_used);
        return Err(format!("{here} clusters are in use in the metadata, of {wanted}").into());
    }
    Ok(())
}
