//! Writing a file or device past the page cache where that is worth it.
//!
//! A long write costs the processor next to nothing with O_DIRECT, fails where it happens and not at the sync, and leaves
//! the memory of a small machine alone. Short writes, and the ends of long ones that lie on no boundary, go through the
//! page cache, where the kernel joins them; it is told to write them soon, so that the sync at the end finds little to do.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;

use super::buffer::ALIGN;
use super::{PlacedFile, end_of};
use crate::extent::ByteRange;

/// Bytes from which on a write goes past the page cache: what a disk takes about as fast as if more came with it.
const LONG: usize = 256 << 10;

/// Bytes that may lie in the page cache before the kernel is told to write them.
const CACHED: u64 = 8 << 20;

/// A file or device that is written at any place.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    /// The same, opened with O_DIRECT; none where the file system does not know that.
    direct: Option<File>,
    /// What was written through the page cache since the kernel was told to write it: how many bytes, and between
    /// which places.
    cached: u64,
    window: ByteRange,
    /// The window before that one, which is on its way to the medium.
    leaving: ByteRange,
}

const NOTHING: ByteRange = ByteRange { pos: 0, len: 0 };

impl From<File> for DirectFile {
    /// `file` is open for writing, and for reading where it is to be read.
    fn from(file: File) -> DirectFile {
        let same = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(same);
        DirectFile { file, direct: direct.ok(), cached: 0, window: NOTHING, leaving: NOTHING }
    }
}

impl DirectFile {
    /// The file as it was opened.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `data` from byte `pos` on.
    pub fn write_all_at(&mut self, data: &[u8], pos: u64) -> io::Result<()> {
        let (head, body, tail) = parts(data, pos);
        if self.direct.is_none() || body.len() < LONG {
            return self.write_cached(data, pos);
        }
        let body_pos = pos + head.len() as u64;
        self.write_cached(head, pos)?;
        self.write_direct(body, body_pos)?;
        self.write_cached(tail, body_pos + body.len() as u64)
    }

    fn write_direct(&mut self, data: &[u8], pos: u64) -> io::Result<()> {
        let Some(direct) = &self.direct else { return self.write_cached(data, pos) };
        match direct.write_all_at(data, pos) {
            // Some file systems open files so and do not write them so, and some disks want other boundaries.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                self.direct = None;
                self.write_cached(data, pos)
            }
            other => other,
        }
    }

    fn write_cached(&mut self, data: &[u8], pos: u64) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(data, pos)?;
        let range = ByteRange { pos, len: data.len() as u64 };
        self.window = if self.cached == 0 { range } else { around(self.window, range) };
        self.cached += range.len;
        if self.cached >= CACHED {
            self.expel();
        }
        Ok(())
    }

    /// Has the kernel write what lies in the page cache, and forget what it has written since it was told so last.
    fn expel(&mut self) {
        for ByteRange { pos, len } in [self.leaving, self.window] {
            // Only advice: a file that does not know it is written when the kernel likes.
            let (pos, len) = (libc::off_t::try_from(pos), libc::off_t::try_from(len));
            if let (Ok(pos), Ok(len @ 1..)) = (pos, len) {
                let _unknown = posix_fadvise(&self.file, pos, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            }
        }
        (self.leaving, self.window, self.cached) = (self.window, NOTHING, 0);
    }
}

/// The least range that has both.
fn around(a: ByteRange, b: ByteRange) -> ByteRange {
    let pos = a.pos.min(b.pos);
    ByteRange { pos, len: a.end().max(b.end()) - pos }
}

/// Cuts what is to be written at `pos` into what comes before the first boundary of the file, what lies between
/// boundaries of file and memory alike, and the rest. The middle is empty where the two do not fit together.
fn parts(data: &[u8], pos: u64) -> (&[u8], &[u8], &[u8]) {
    let to_boundary = (pos.next_multiple_of(ALIGN as u64) - pos) as usize;
    let (head, rest) = data.split_at(to_boundary.min(data.len()));
    let fits = rest.as_ptr().addr().is_multiple_of(ALIGN);
    let (body, tail) = rest.split_at(if fits { rest.len() / ALIGN * ALIGN } else { 0 });
    (head, body, tail)
}

impl PlacedFile for DirectFile {
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.file, buf, at)
    }

    fn write_all_at(&mut self, data: &[u8], at: u64) -> io::Result<()> {
        DirectFile::write_all_at(self, data, at)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn end(&self) -> u64 {
        end_of(&self.file)
    }

    fn cut(&mut self, end: u64) -> io::Result<bool> {
        self.file.cut(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::buffer::AlignedBuf;

    #[test]
    fn what_lies_between_boundaries_is_cut_out() {
        let mut buf = AlignedBuf::new(4 * ALIGN);
        let lens = |data: &[u8], pos| {
            let (head, body, tail) = parts(data, pos);
            (head.len(), body.len(), tail.len())
        };
        let bytes = buf.bytes_mut();
        assert_eq!(lens(bytes, 0), (0, 4 * ALIGN, 0));
        assert_eq!(lens(&bytes[..4 * ALIGN - 1], 8192), (0, 3 * ALIGN, ALIGN - 1));
        // From byte 512 of the file on, memory and file are 512 apart.
        assert_eq!(lens(bytes, 512), (ALIGN - 512, 0, 3 * ALIGN + 512));
        assert_eq!(lens(&bytes[512..], 512), (ALIGN - 512, 3 * ALIGN, 0));
        assert_eq!(lens(&bytes[..100], 512), (100, 0, 0));
        assert_eq!(lens(&[], 5), (0, 0, 0));
    }

    /// Short and long writes, aligned or not, end up where they belong, in this order.
    #[test]
    fn writes_are_kept_whichever_way_they_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut direct = DirectFile::from(file);
        let mut buf = AlignedBuf::new(2 << 20);
        buf.bytes_mut().iter_mut().zip((0..251u8).cycle()).for_each(|(to, from)| *to = from);
        let mut want = vec![0; 32 << 20];
        let mut random = 7u64;
        for round in 0..200 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = [1, 512, ALIGN as u64][round % 3];
            let pos = (random >> 20) % (30 << 20) / unit * unit;
            let start = [0, 512, 1][(random >> 50) as usize % 3];
            let len = [100, LONG, LONG + 5000, (2 << 20) - 512][(random >> 60) as usize % 4];
            let data = &buf.bytes()[start..start + len];
            direct.write_all_at(data, pos).unwrap();
            want[pos as usize..pos as usize + len].copy_from_slice(data);
        }
        direct.sync_data().unwrap();
        let found = std::fs::read(&path).unwrap();
        assert!(found == want[..found.len()] && want[found.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_window_grows_around_what_is_written() {
        let range = |pos, len| ByteRange { pos, len };
        assert_eq!(around(range(10, 5), range(2, 1)), range(2, 13));
        assert_eq!(around(range(10, 5), range(11, 20)), range(10, 21));
    }
}
