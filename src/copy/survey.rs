//! Reading the metadata of a failing volume: each place once, and what came of it is known ever after.
//!
//! Between the parsers of `ntfs/` and the disk. What was read is stashed until there is a plan that says where it goes; what
//! could not be read, alone or with its block, is not asked for again: the rescue itself comes back to it in its turn.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event::Observer;
use crate::extent::{ByteRange, ClusterSet};
use crate::io::buffer::AlignedBuf;
use crate::io::stash::Stash;
use crate::io::{Loss, ReadError, Source};
use crate::rescue::passes::{Budget, End, Outcome, Pass, Sizes, Step};
use crate::rescue::{Area, Areas, Domain, Rescue, State};

/// Bytes of a block read while rescuing. Larger ones cost more where they fail, smaller ones are slow.
pub const BLOCK: u64 = 64 << 10;

/// Sizes of the reads from a source.
pub fn sizes_of(source: &dyn Source) -> Sizes {
    let logical = u64::from(source.sector_size().max(1));
    Sizes { block: BLOCK, physical: logical.max(source.physical_sector_size().into()), logical }
}

/// A failing source, and what is known about it.
pub struct Survey<'a> {
    source: &'a dyn Source,
    /// What an earlier run has read, which is never asked of the source again.
    in_target: Option<&'a dyn Source>,
    observer: &'a dyn Observer,
    sizes: Sizes,
    found: Mutex<Found>,
}

/// What a survey has found.
#[derive(Debug)]
pub struct Found {
    /// What is known about each byte.
    pub areas: Areas,
    /// What was read.
    pub stash: Stash,
    /// What was read ahead: what the passes have left there is not read on demand.
    settled: Vec<ClusterSet>,
    /// Bytes of their clusters.
    cluster_size: u64,
}

impl<'a> Survey<'a> {
    /// What `areas` calls finished is in `in_target`, if there is one.
    pub fn new(
        source: &'a dyn Source,
        areas: Areas,
        in_target: Option<&'a dyn Source>,
        observer: &'a dyn Observer,
    ) -> Survey<'a> {
        let found = Found { areas, stash: Stash::default(), settled: Vec::new(), cluster_size: 1 };
        Survey { source, in_target, observer, sizes: sizes_of(source), found: Mutex::new(found) }
    }

    /// What was found.
    pub fn into_found(self) -> Found {
        self.found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has any read failed?
    pub fn has_failed(&self) -> bool {
        self.found().areas.damage().nr_areas > 0
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        // Whoever panicked ends the program anyway.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads clusters of `cluster_size` bytes by these passes, and from here on no more of them. What cannot be read is
    /// no error.
    pub fn read_ahead(
        &self,
        clusters: ClusterSet,
        cluster_size: u64,
        passes: &[Pass],
    ) -> Result<(), ReadError> {
        let mut found = self.found();
        let areas = std::mem::replace(&mut found.areas, Areas::new(0, 1));
        let mut rescue = Rescue::new(areas, self.source.len(), self.sizes, Budget::default());
        let nothing = ByteRange { pos: 0, len: 0 };
        let domain = rescue.add_domain(Domain::new(&clusters, cluster_size, nothing));
        passes.iter().for_each(|pass| rescue.add(domain, *pass));
        rescue.be_careful();
        let mut buf = AlignedBuf::new(BLOCK as usize);
        let result = loop {
            if self.observer.wants_stop() {
                break Err(ReadError { pos: rescue.pos(), len: 0, cause: io::ErrorKind::Interrupted.into() });
            }
            let (range, keep) = match rescue.next(Duration::ZERO) {
                Step::Read(range) => (range, true),
                Step::Check(range) => (range, false),
                Step::End(End::Gone) => {
                    let cause = io::Error::from_raw_os_error(nix::libc::ENXIO);
                    break Err(ReadError { pos: rescue.pos(), len: 0, cause });
                }
                Step::End(_) => break Ok(()),
            };
            let data = buf.bytes_mut().get_mut(..range.len as usize).unwrap_or_default();
            let start = Instant::now();
            let outcome = match self.source.read_at(range.pos, data) {
                Ok(()) => Outcome::Good,
                Err(error) => match error.loss() {
                    Loss::BadArea => Outcome::Bad,
                    _ => break Err(error),
                },
            };
            rescue.done(outcome, start.elapsed());
            if keep && outcome == Outcome::Good {
                found.stash.put(range.pos, data);
            }
        };
        found.areas = rescue.into_areas();
        found.cluster_size = cluster_size;
        found.settled.push(clusters);
        result
    }

    /// Reads whole sectors, and takes down what came of it.
    fn read_sectors(&self, found: &mut Found, range: ByteRange, buf: &mut [u8]) -> Result<(), ReadError> {
        let refused = || ReadError {
            pos: range.pos,
            len: range.len as usize,
            cause: io::Error::from_raw_os_error(nix::libc::EIO),
        };
        let is_sector = range.len <= self.sizes.physical;
        let is_settled = found.settled.iter().any(|clusters| {
            let unit = found.cluster_size;
            let first = clusters.find(range.pos / unit, true);
            first < clusters.bound() && first * unit < range.end()
        });
        let is_refused = |area: Area| match area.state {
            State::Finished => false,
            State::NonTried => is_settled,
            _ => true,
        };
        if found.areas.within(range).any(is_refused) {
            return Err(refused());
        }
        if let Some(in_target) = self.in_target.filter(|_| found.areas.is_finished(range)) {
            return in_target.read_at(range.pos, buf);
        }
        match self.source.read_at(range.pos, buf) {
            Ok(()) => {
                found.areas.set(range, State::Finished);
                found.stash.put(range.pos, buf);
                Ok(())
            }
            Err(error) => {
                if error.loss() == Loss::BadArea {
                    found.areas.set(range, if is_sector { State::Bad } else { State::NonTrimmed });
                }
                Err(error)
            }
        }
    }
}

impl Source for Survey<'_> {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let mut found = self.found();
        if found.stash.get(pos, buf) {
            return Ok(());
        }
        let sector = self.sizes.logical;
        let start = pos / sector * sector;
        let end = (pos + buf.len() as u64).next_multiple_of(sector).min(self.source.len());
        let range = ByteRange { pos: start, len: end.saturating_sub(start) };
        if (pos, buf.len() as u64) == (range.pos, range.len) {
            return self.read_sectors(&mut found, range, buf);
        }
        let mut sectors = AlignedBuf::new(range.len as usize);
        self.read_sectors(&mut found, range, sectors.bytes_mut())?;
        let from = sectors.bytes().get((pos - start) as usize..).unwrap_or_default();
        buf.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.source.len()
    }

    fn sector_size(&self) -> u32 {
        self.source.sector_size()
    }

    fn physical_sector_size(&self) -> u32 {
        self.source.physical_sector_size()
    }
}
