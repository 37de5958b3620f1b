//! A raw clone: each cluster at its own place in a file or on a device.
//!
//! Gaps stay holes in a file and untouched on a device; a clone in one go leaves a file's zeros holes too. The boot sector and the cluster with its backup are held
//! back until everything else has reached the medium: a clone that was cut off is never taken for a volume.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::direct::DirectFile;
use super::{PlacedFile, PlacedSink, ReadError, Sink, WriteError};
use crate::bytes::are_all;
use crate::ntfs::boot::{BOOT_SECTOR_LEN, BootSector};
use crate::units::Geometry;

/// Bytes of the unit in which zeros are left out: holes much smaller cost a file system more than they save.
const HOLE: usize = 64 << 10;

/// A stretch that is written at the end.
#[derive(Debug)]
struct Held {
    pos: u64,
    bytes: Vec<u8>,
    /// Did any of it come?
    came: bool,
}

/// A raw clone in a file or on a device.
#[derive(Debug)]
pub struct RawSink {
    file: DirectFile,
    name: String,
    /// Length that the file gets; a device keeps its own.
    file_len: Option<u64>,
    /// From this byte on the file was never written to: zeros there are holes already.
    untouched_from: u64,
    /// Bytes of the clone.
    len: u64,
    /// Boot sector, then backup.
    held: [Held; 2],
}

impl RawSink {
    /// A clone in an empty file.
    pub fn file(file: File, name: String, geometry: &Geometry) -> RawSink {
        RawSink { file_len: Some(geometry.device_size), ..RawSink::in_place(file, name, geometry) }
    }

    /// The same, which leaves zeros out: then only [`Sink::finish`] gives the file its length, and until then nothing tells
    /// what is a zero from what never came.
    pub fn sparse_file(file: File, name: String, geometry: &Geometry) -> RawSink {
        RawSink { untouched_from: 0, ..RawSink::file(file, name, geometry) }
    }

    /// A clone on a device of `device_size` bytes. The boot sector and the backup of an NTFS volume that is there
    /// are overwritten with zeros at once, so that the old volume is never found in the middle of the new one.
    pub fn device(
        file: File,
        name: String,
        device_size: u64,
        geometry: &Geometry,
    ) -> Result<RawSink, WriteError> {
        let mut sink = RawSink::in_place(file, name, geometry);
        let backup = sink.boot_sector_at(0).as_ref().and_then(BootSector::backup_pos);
        // The backup lies behind the old volume's last sector, or, where nothing tells how long that was, in the
        // device's last one.
        let last = [512, 4096].into_iter().filter_map(|sector_size| device_size.checked_sub(sector_size));
        let places = std::iter::once(0).chain(backup).chain(last);
        let mut erased = false;
        for pos in places {
            // A backup names its own place; one that does not belongs to another volume.
            let found = sink.boot_sector_at(pos);
            if found.is_some_and(|found| pos == 0 || found.backup_pos() == Some(pos)) {
                sink.write(pos, &[0; BOOT_SECTOR_LEN])?;
                erased = true;
            }
        }
        if erased {
            sink.flush()?;
        }
        Ok(sink)
    }

    /// A clone that an earlier run has begun, in a file or on a device. What that held back must be put again, all of it
    /// or only what it lacked.
    pub fn resume(file: File, name: String, geometry: &Geometry, is_file: bool) -> RawSink {
        let mut sink = RawSink::in_place(file, name, geometry);
        sink.file_len = is_file.then_some(geometry.device_size);
        let mut held = held_back(geometry);
        for held in &mut held {
            // What cannot be read back is as if it had never been written.
            let _unknown = sink.read_back(held.pos, &mut held.bytes);
        }
        sink.held = held;
        sink
    }

    fn in_place(file: File, name: String, geometry: &Geometry) -> RawSink {
        RawSink {
            file: file.into(),
            name,
            file_len: None,
            untouched_from: u64::MAX,
            len: geometry.device_size,
            held: held_back(geometry),
        }
    }

    /// The NTFS boot sector at byte `pos`, if one can be read there.
    fn boot_sector_at(&self, pos: u64) -> Option<BootSector> {
        let mut bytes = [0; BOOT_SECTOR_LEN];
        PlacedFile::read_exact_at(&self.file, &mut bytes, pos).ok()?;
        BootSector::parse(&bytes).ok()
    }

    fn write(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        write_at(&mut self.file, &self.name, pos, data)
    }

    /// Writes what is not held back, but for zeros where they are there already.
    fn write_or_leave(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        if pos < self.untouched_from {
            return self.write(pos, data);
        }
        let mut waiting = 0..0;
        for unit in data.chunks(HOLE) {
            let end = waiting.end + unit.len();
            if are_all(unit, 0) {
                self.write_part(pos, data, waiting)?;
                waiting = end..end;
            } else {
                waiting.end = end;
            }
        }
        self.write_part(pos, data, waiting)
    }

    /// Writes these of the bytes at `pos`, if there are any.
    fn write_part(&mut self, pos: u64, data: &[u8], part: Range<usize>) -> Result<(), WriteError> {
        let at = pos + part.start as u64;
        match data.get(part) {
            None | Some([]) => Ok(()),
            Some(data) => self.write(at, data),
        }
    }

    fn flush(&self) -> Result<(), WriteError> {
        sync(&self.file, &self.name)
    }
}

fn sync(file: &DirectFile, name: &str) -> Result<(), WriteError> {
    file.file().sync_all().map_err(|cause| WriteError::Finish {
        what: "sync",
        target: name.to_owned(),
        cause,
    })
}

fn write_at(file: &mut DirectFile, name: &str, pos: u64, data: &[u8]) -> Result<(), WriteError> {
    file.write_all_at(data, pos).map_err(|cause| WriteError::Write {
        target: name.to_owned(),
        pos,
        len: data.len(),
        cause,
    })
}

fn held_back(geometry: &Geometry) -> [Held; 2] {
    let held = |pos, len| Held { pos, bytes: vec![0; len], came: false };
    let boot = geometry.device_size.min(BOOT_SECTOR_LEN as u64) as usize;
    [held(0, boot), held(geometry.volume_size(), geometry.extra_len() as usize)]
}

impl Sink for RawSink {
    fn put(&mut self, pos: u64, data: &[u8]) -> Result<(), WriteError> {
        let end = pos + data.len() as u64;
        let mut at = pos;
        let mut rest = data;
        for held in &mut self.held {
            let held_end = held.pos + held.bytes.len() as u64;
            if end <= held.pos || at >= held_end {
                continue;
            }
            // What lies before the held stretch is written, what lies in it kept.
            let (before, from) = rest.split_at(held.pos.saturating_sub(at) as usize);
            if !before.is_empty() {
                write_at(&mut self.file, &self.name, at, before)?;
            }
            at += before.len() as u64;
            let n = (held_end.min(end) - at) as usize;
            let skip = (at - held.pos) as usize;
            held.bytes.iter_mut().skip(skip).zip(from.iter().take(n)).for_each(|(to, from)| *to = *from);
            held.came = true;
            at += n as u64;
            rest = from.get(n..).unwrap_or_default();
        }
        self.write_or_leave(at, rest)?;
        self.untouched_from = self.untouched_from.max(end);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        if let Some(len) = self.file_len {
            self.file.file().set_len(len).map_err(|cause| WriteError::Finish {
                what: "set the length of",
                target: self.name.clone(),
                cause,
            })?;
        }
        self.flush()?;
        // The backup first: as long as it is alone, a restore is known to be unfinished.
        let RawSink { file, name, held, .. } = self;
        for held in held.iter().rev().filter(|held| held.came && !held.bytes.is_empty()) {
            write_at(file, name, held.pos, &held.bytes)?;
            sync(file, name)?;
        }
        Ok(())
    }

    fn takes_any_order(&self) -> bool {
        true
    }
}

impl PlacedSink for RawSink {
    fn read_back(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        // What the file lacks at its end was not written yet.
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let (at, len) = (pos + filled as u64, rest.len());
            match self.file.file().read_at(rest, at) {
                Ok(0) => {
                    rest.fill(0);
                    filled += len;
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(ReadError { pos: at, len, cause }),
            }
        }
        for held in self.held.iter().filter(|held| held.came) {
            for (pos_held, byte) in (held.pos..).zip(&held.bytes) {
                if let Some(to) = pos_held.checked_sub(pos).and_then(|at| buf.get_mut(at as usize)) {
                    *to = *byte;
                }
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        self.flush()
    }

    fn place_of(&self, pos: u64) -> u64 {
        let is_held = |held: &Held| held.pos <= pos && pos < held.pos + held.bytes.len() as u64;
        if self.held.iter().any(is_held) { 0 } else { pos }
    }

    fn end(&self) -> u64 {
        self.file.end()
    }

    fn len(&self) -> u64 {
        self.len
    }
}
