//! The frozen plan: what is copied to which place, kept in `MAP.plan` before the first cluster is placed.
//!
//! A resume uses it and never computes it again: with one sector more of `$Bitmap` every later cluster of an image
//! would have another place. All numbers are little-endian: a head, the boot sector and the extra cluster where they
//! are held back, the extents, a CRC-32 of all that.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::extent::{ClusterSet, Extent};
use crate::io::store::Store;
use crate::plan::Plan;
use crate::units::{Geometry, GeometryError, Lcn};

#[cfg(test)]
mod tests;

/// A NUL first, so that no text tool takes a plan for text.
const MAGIC: [u8; 16] = *b"\0ntfsrescue-plan";

const VERSION: u32 = 1;

/// Bytes in a sector of a volume, a power of two.
const SECTOR_SIZES: std::ops::RangeInclusive<u32> = 256..=4096;

/// Most bytes of a boot sector that is held back: the largest sector.
const MAX_BOOT_LEN: u32 = 4096;

/// Values of [`Layout::form`].
const FORM_CLONE: u32 = 0;
const FORM_IMAGE: u32 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    magic: [u8; 16],
    version: U32,
    /// What the target is.
    form: U32,
    /// Bytes in a sector of the volume.
    sector_size: U32,
    /// 1: clusters are in the plan that are in use only perhaps; else 0.
    is_doubtful: U32,
    cluster_size: U32,
    nr_clusters: U64,
    /// Bytes of the whole partition.
    device_size: U64,
    /// The volume's first byte on the source.
    volume_pos: U64,
    volume_serial: U64,
    /// Clusters in use, without the extra one.
    nr_used: U64,
    nr_extents: U64,
    /// Bytes of the boot sector that follow; 0 where none is held back.
    boot_len: U32,
    /// Bytes of the extra cluster that follow; likewise.
    extra_len: U32,
}

/// One stretch of used clusters.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Stretch {
    lcn: U64,
    len: U64,
}

/// What a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each cluster at its own place.
    Clone,
    /// ntfsclone's image: used clusters one behind the other.
    Image,
}

/// What is frozen with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the target is.
    pub form: Form,
    /// Bytes in a sector of the volume.
    pub sector_size: u32,
    /// Are clusters in the plan only because `$Bitmap` could not be read?
    pub is_doubtful: bool,
    /// The volume's serial number.
    pub volume_serial: u64,
    /// The volume's first byte on the source.
    pub volume_pos: u64,
    /// The first bytes of the volume, up to 4096, where they are held back until the end.
    pub boot_sector: Option<Vec<u8>>,
    /// The bytes of the extra cluster, where they are held back.
    pub extra_cluster: Option<Vec<u8>>,
}

/// Why there is no plan to go on with, or none was written.
#[derive(Debug, thiserror::Error)]
pub enum FrozenError {
    /// The system refused something.
    #[error("cannot {what} plan '{}': {cause}", path.display())]
    System {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file holds no plan, or not as it was written.
    #[error("plan '{}', byte {place:#x}: {fault}", path.display())]
    Fault {
        /// The file.
        path: PathBuf,
        /// A byte in it.
        place: u64,
        /// What is wrong there.
        fault: Fault,
    },
}

/// What is wrong with a plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// It is something else.
    #[error("wrong magic, this is no plan of a rescue")]
    Magic,
    /// It ends too early.
    #[error("found the end, wanted {0} bytes more")]
    Short(usize),
    /// It goes on behind its CRC.
    #[error("found more bytes, wanted the end")]
    Long,
    /// A number that cannot be.
    #[error("{what} is {found}, wanted {wanted}")]
    Number {
        /// What it stands for.
        what: &'static str,
        /// What is there.
        found: u64,
        /// What should be.
        wanted: String,
    },
    /// The sizes do not fit together.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The content was changed, or a kill has torn it.
    #[error("CRC is {found:08x}, wanted {wanted:08x}")]
    Crc {
        /// That of the file.
        found: u32,
        /// That of its bytes.
        wanted: u32,
    },
}

/// Where the plan lies that belongs to a map.
pub fn path_of(map: &Path) -> PathBuf {
    let mut path = map.as_os_str().to_owned();
    path.push(".plan");
    path.into()
}

/// Writes the plan, and syncs it: from then on clusters may be placed.
pub fn freeze(store: &dyn Store, path: &Path, plan: &Plan, facts: &Facts) -> Result<(), FrozenError> {
    store.write(path, &mut |out| encode(out, plan, facts)).map_err(|cause| FrozenError::System {
        what: "write",
        path: path.into(),
        cause,
    })
}

/// Removes the plan.
pub fn discard(store: &dyn Store, path: &Path) -> Result<(), FrozenError> {
    store.remove(path).map_err(|cause| FrozenError::System { what: "remove", path: path.into(), cause })
}

/// Reads the plan back; none where there is no file of that name.
pub fn thaw(store: &dyn Store, path: &Path) -> Result<Option<(Plan, Facts)>, FrozenError> {
    let open = || store.open(path).map(BufReader::new);
    let stopped = |stop| match stop {
        Stop::Read(cause) => FrozenError::System { what: "read", path: path.into(), cause },
        Stop::Fault { place, fault } => FrozenError::Fault { path: path.into(), place, fault },
    };
    let opening = |cause| FrozenError::System { what: "open", path: path.into(), cause };
    // The first time only looks, so that nothing grows with numbers that the CRC does not vouch for.
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        from => decode(from.map_err(opening)?, |_, _| ()).map_err(stopped)?,
    };
    let mut used = None;
    let decoded = decode(open().map_err(opening)?, |geometry, extent| {
        used.get_or_insert_with(|| ClusterSet::new(geometry.nr_clusters)).insert_extent(extent);
    });
    let (geometry, nr_used, facts) = decoded.map_err(stopped)?;
    let used = used.unwrap_or_else(|| ClusterSet::new(geometry.nr_clusters));
    Ok(Some((Plan::new(geometry, used, nr_used), facts)))
}

fn encode(out: &mut dyn Write, plan: &Plan, facts: &Facts) -> io::Result<()> {
    let geometry = &plan.geometry;
    let boot = facts.boot_sector.as_deref().unwrap_or_default();
    let extra = facts.extra_cluster.as_deref().unwrap_or_default();
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "a sector held back is too long");
    let len_of =
        |bytes: &[u8], max| u32::try_from(bytes.len()).ok().filter(|len| *len <= max).ok_or_else(invalid);
    let layout = Layout {
        magic: MAGIC,
        version: VERSION.into(),
        form: match facts.form {
            Form::Clone => FORM_CLONE,
            Form::Image => FORM_IMAGE,
        }
        .into(),
        sector_size: facts.sector_size.into(),
        is_doubtful: u32::from(facts.is_doubtful).into(),
        cluster_size: geometry.cluster_size.into(),
        nr_clusters: geometry.nr_clusters.into(),
        device_size: geometry.device_size.into(),
        volume_pos: facts.volume_pos.into(),
        volume_serial: facts.volume_serial.into(),
        nr_used: plan.nr_used.into(),
        nr_extents: (plan.clusters().extents().count() as u64).into(),
        boot_len: len_of(boot, MAX_BOOT_LEN)?.into(),
        extra_len: len_of(extra, geometry.extra_len())?.into(),
    };
    let mut crc = Hasher::new();
    let mut put = |bytes: &[u8]| {
        crc.update(bytes);
        out.write_all(bytes)
    };
    put(layout.as_bytes())?;
    put(boot)?;
    put(extra)?;
    for Extent { lcn, len } in plan.clusters().extents() {
        put(Stretch { lcn: lcn.0.into(), len: len.into() }.as_bytes())?;
    }
    out.write_all(&crc.finalize().to_le_bytes())
}

#[derive(Debug)]
enum Stop {
    Read(io::Error),
    Fault { place: u64, fault: Fault },
}

/// Reads a plan from front to back and calls `visit` with each extent; what was visited is void after an error.
fn decode(from: impl Read, mut visit: impl FnMut(&Geometry, Extent)) -> Result<(Geometry, u64, Facts), Stop> {
    let mut from = Summed { from, crc: Hasher::new(), place: 0 };
    let mut layout = Layout::new_zeroed();
    from.fill(layout.as_mut_bytes())?;
    let geometry = layout.check().map_err(|(place, fault)| Stop::Fault { place: place as u64, fault })?;
    let mut held_back = |len: U32| -> Result<Option<Vec<u8>>, Stop> {
        let mut bytes = vec![0; len.get() as usize];
        from.fill(&mut bytes)?;
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    };
    let boot_sector = held_back(layout.boot_len)?;
    let extra_cluster = held_back(layout.extra_len)?;

    let nr_used = layout.nr_used.get();
    let (mut end, mut sum) = (0, 0);
    for _ in 0..layout.nr_extents.get() {
        let place = from.place;
        let wrong = |at: usize, what, found, wanted| Stop::Fault {
            place: place + at as u64,
            fault: Fault::Number { what, found, wanted },
        };
        let mut stretch = Stretch::new_zeroed();
        from.fill(stretch.as_mut_bytes())?;
        let (lcn, len) = (stretch.lcn.get(), stretch.len.get());
        if lcn < end || lcn >= geometry.nr_clusters {
            let wanted = format!("{end} to {}", geometry.nr_clusters - 1);
            return Err(wrong(0, "first cluster", lcn, wanted));
        }
        // So the sum stays within the number of clusters too.
        let most = geometry.nr_clusters - lcn;
        if len == 0 || len > most {
            let at = std::mem::offset_of!(Stretch, len);
            return Err(wrong(at, "number of clusters", len, format!("1 to {most}")));
        }
        (end, sum) = (lcn + len, sum + len);
        visit(&geometry, Extent { lcn: Lcn(lcn), len });
    }
    if sum != nr_used {
        let fault = Fault::Number { what: "sum of all clusters", found: sum, wanted: nr_used.to_string() };
        return Err(Stop::Fault { place: from.place, fault });
    }

    let (place, wanted) = (from.place, from.crc.clone().finalize());
    let mut found = U32::new_zeroed();
    from.fill(found.as_mut_bytes())?;
    if found.get() != wanted {
        return Err(Stop::Fault { place, fault: Fault::Crc { found: found.get(), wanted } });
    }
    from.require_end()?;
    let facts = Facts {
        form: if layout.form == FORM_IMAGE { Form::Image } else { Form::Clone },
        sector_size: layout.sector_size.get(),
        is_doubtful: layout.is_doubtful.get() == 1,
        volume_serial: layout.volume_serial.get(),
        volume_pos: layout.volume_pos.get(),
        boot_sector,
        extra_cluster,
    };
    Ok((geometry, nr_used, facts))
}

impl Layout {
    /// Checks the head; a fault comes with its place.
    fn check(&self) -> Result<Geometry, (usize, Fault)> {
        use std::mem::offset_of;
        let number = |what, found, wanted: String| Fault::Number { what, found, wanted };
        if self.magic != MAGIC {
            return Err((0, Fault::Magic));
        }
        if self.version != VERSION {
            let fault = number("version", self.version.get().into(), VERSION.to_string());
            return Err((offset_of!(Layout, version), fault));
        }
        if ![FORM_CLONE, FORM_IMAGE].contains(&self.form.get()) {
            let fault = number("form", self.form.get().into(), format!("{FORM_CLONE} or {FORM_IMAGE}"));
            return Err((offset_of!(Layout, form), fault));
        }
        let sector_size = self.sector_size.get();
        if !sector_size.is_power_of_two() || !SECTOR_SIZES.contains(&sector_size) {
            let wanted = "a power of two from 256 to 4096".into();
            return Err((offset_of!(Layout, sector_size), number("sector size", sector_size.into(), wanted)));
        }
        if self.is_doubtful.get() > 1 {
            let fault = number("doubt", self.is_doubtful.get().into(), "0 or 1".into());
            return Err((offset_of!(Layout, is_doubtful), fault));
        }
        let geometry =
            Geometry::new(self.cluster_size.get().into(), self.nr_clusters.get(), self.device_size.get());
        let geometry = geometry.map_err(|error| (offset_of!(Layout, cluster_size), error.into()))?;
        let at_most = |at, what, found: u64, most: u64| {
            if found > most { Err((at, number(what, found, format!("at most {most}")))) } else { Ok(()) }
        };
        let last_pos = i64::MAX as u64 - geometry.device_size;
        at_most(offset_of!(Layout, volume_pos), "the volume's first byte", self.volume_pos.get(), last_pos)?;
        let nr_used = self.nr_used.get();
        at_most(offset_of!(Layout, nr_used), "number of used clusters", nr_used, geometry.nr_clusters)?;
        at_most(offset_of!(Layout, nr_extents), "number of extents", self.nr_extents.get(), nr_used)?;
        let (boot, extra) = (self.boot_len.get().into(), self.extra_len.get().into());
        at_most(offset_of!(Layout, boot_len), "length of the boot sector", boot, MAX_BOOT_LEN.into())?;
        let most = geometry.extra_len().into();
        at_most(offset_of!(Layout, extra_len), "length of the extra cluster", extra, most)?;
        Ok(geometry)
    }
}

/// Counts and adds up what is read.
struct Summed<R> {
    from: R,
    crc: Hasher,
    /// Bytes read so far.
    place: u64,
}

impl<R: Read> Summed<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Stop> {
        self.from.read_exact(bytes).map_err(|cause| match cause.kind() {
            io::ErrorKind::UnexpectedEof => {
                Stop::Fault { place: self.place, fault: Fault::Short(bytes.len()) }
            }
            _ => Stop::Read(cause),
        })?;
        self.crc.update(bytes);
        self.place += bytes.len() as u64;
        Ok(())
    }

    fn require_end(&mut self) -> Result<(), Stop> {
        match self.from.read_exact(&mut [0]) {
            Ok(()) => Err(Stop::Fault { place: self.place, fault: Fault::Long }),
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(cause) => Err(Stop::Read(cause)),
        }
    }
}
