//! Mounting: the kernel's own file systems at the start, the one that holds the image later.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where the file system that holds the image is mounted.
pub const IMAGE_POINT: &str = "/mnt/image";

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

/// Mounts the file system that holds the image.
pub fn mount_image(device: &Path, kind: &str, writable: bool) -> Result<Mounted, MountError> {
    let failed = |cause| MountError { device: device.display().to_string(), kind: kind.to_owned(), cause };
    std::fs::create_dir_all(IMAGE_POINT).map_err(failed)?;
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    if !writable {
        flags |= MsFlags::MS_RDONLY;
    }
    // Names are UTF-8 everywhere; the others take that for granted.
    let data = match kind {
        "vfat" => Some("utf8"),
        "ntfs3" | "exfat" => Some("iocharset=utf8"),
        _ => None,
    };
    mount(Some(device), IMAGE_POINT, Some(kind), flags, data).map_err(|errno| failed(errno.into()))?;
    Ok(Mounted { is_mounted: true })
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
    is_mounted: bool,
}

impl Mounted {
    /// Unmounts, and says whether all that was written has reached the disk as far as that tells.
    pub fn unmount(mut self) -> Result<(), Errno> {
        self.is_mounted = false;
        unmount_image()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if std::mem::take(&mut self.is_mounted)
            && let Err(errno) = unmount_image()
        {
            log::warn!("{IMAGE_POINT}: cannot be unmounted: {errno}");
        }
    }
}

/// Unmounts the image's file system, if there is one.
pub fn unmount_image() -> Result<(), Errno> {
    for _ in 0..UNMOUNT_ATTEMPTS {
        match umount2(IMAGE_POINT, MntFlags::empty()) {
            // Not mounted, or never made.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => std::thread::sleep(UNMOUNT_PAUSE),
            Err(errno) => return Err(errno),
        }
    }
    // Whoever still uses it keeps it; it disappears with them.
    umount2(IMAGE_POINT, MntFlags::MNT_DETACH)
}
