//! Mounting: the kernel's own file systems at the start, the stick's and the one that holds the image later.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where the file system that holds the image is mounted.
pub const IMAGE_POINT: &str = "/mnt/image";

/// Where the stick's data partition is mounted.
pub const STICK_POINT: &str = "/mnt/stick";

/// Where a partition of the stick is mounted while its configuration is read.
pub const CONFIG_POINT: &str = "/mnt/config";

/// Follows no symbolic links on a file system (`MS_NOSYMFOLLOW`, Linux 5.10; before, it has no effect).
const NO_LINKS: MsFlags = MsFlags::from_bits_retain(256);

/// Attempts to unmount what is still in use for a moment, and the pause between two.
const UNMOUNT_ATTEMPTS: u32 = 20;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(100);

/// Mounts what every program expects. What fails is told; the next step will say what is missing for it.
pub fn mount_basics() {
    let common = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    for (kind, point, flags, data) in [
        ("proc", "/proc", common | MsFlags::MS_NODEV, ""),
        ("sysfs", "/sys", common | MsFlags::MS_NODEV, ""),
        ("devtmpfs", "/dev", common, "mode=755"),
        ("tmpfs", "/run", common | MsFlags::MS_NODEV, "mode=755"),
        ("tmpfs", "/tmp", common | MsFlags::MS_NODEV, "mode=1777"),
    ] {
        let _exists = std::fs::create_dir(point);
        match mount(Some(kind), point, Some(kind), flags, Some(data)) {
            // The kernel may have mounted devtmpfs itself.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => log::warn!("cannot mount {kind} on {point}: {errno}"),
        }
    }
}

/// Mounts a file system at one of the points above.
pub fn mount_at(
    point: &'static str,
    device: &Path,
    kind: &str,
    writable: bool,
) -> Result<Mounted, MountError> {
    let failed = |cause| MountError { device: device.display().to_string(), kind: kind.to_owned(), cause };
    std::fs::create_dir_all(point).map_err(failed)?;
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    // A link on what is written to may lead into our own memory, or to another disk.
    flags |= if writable { NO_LINKS } else { MsFlags::MS_RDONLY };
    // Names are UTF-8 everywhere; the others take that for granted.
    let data = match kind {
        "vfat" => Some("utf8"),
        "ntfs3" | "exfat" => Some("iocharset=utf8"),
        _ => None,
    };
    mount(Some(device), point, Some(kind), flags, data).map_err(|errno| failed(errno.into()))?;
    Ok(Mounted { point: Some(point) })
}

/// Why a file system could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount {device} as {kind}: {cause}")]
pub struct MountError {
    device: String,
    kind: String,
    cause: std::io::Error,
}

/// A mounted file system; unmounted at the end.
#[derive(Debug)]
pub struct Mounted {
    /// None once it is unmounted.
    point: Option<&'static str>,
}

impl Mounted {
    /// Where it is.
    pub fn path(&self) -> &'static Path {
        Path::new(self.point.unwrap_or_default())
    }

    /// Unmounts, and says whether all that was written has reached the disk as far as that tells.
    pub fn unmount(mut self) -> Result<(), Errno> {
        self.point.take().map_or(Ok(()), unmount)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(point) = self.point.take()
            && let Err(errno) = unmount(point)
        {
            log::warn!("{point}: cannot be unmounted: {errno}");
        }
    }
}

/// Unmounts what a session that died has left mounted.
pub fn unmount_all() {
    for point in [IMAGE_POINT, STICK_POINT, CONFIG_POINT] {
        if let Err(errno) = unmount(point) {
            log::warn!("{point}: cannot be unmounted: {errno}");
        }
    }
}

fn unmount(point: &str) -> Result<(), Errno> {
    for _ in 0..UNMOUNT_ATTEMPTS {
        match umount2(point, MntFlags::empty()) {
            // Not mounted, or never made.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => std::thread::sleep(UNMOUNT_PAUSE),
            Err(errno) => return Err(errno),
        }
    }
    // Whoever still uses it keeps it; it disappears with them.
    umount2(point, MntFlags::MNT_DETACH)
}
