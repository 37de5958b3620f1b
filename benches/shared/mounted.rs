//! Volumes mounted through ntfs-3g, to be filled.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::programs::{Outcome, run, wait_for};

/// A volume mounted through ntfs-3g; unmounted when dropped, should that not have been done.
pub struct Mounted {
    point: tempfile::TempDir,
    driver: Child,
}

impl Mounted {
    /// Mounts it.
    pub fn new(volume: &Path) -> Outcome<Mounted> {
        let point = tempfile::tempdir()?;
        let driver = Command::new("ntfs-3g")
            .args(["-o", "no_detach,big_writes"])
            .args([volume, point.path()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mounted = Mounted { point, driver };
        wait_for("ntfs-3g to mount", || {
            Command::new("mountpoint")
                .arg("-q")
                .arg(mounted.path())
                .status()
                .is_ok_and(|status| status.success())
        })?;
        Ok(mounted)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.point.path()
    }

    /// Returns when all is written back.
    pub fn unmount(mut self) -> Outcome<()> {
        run(Command::new("umount").arg(self.path()))?;
        self.driver.wait()?;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if matches!(self.driver.try_wait(), Ok(None)) {
            let _best_effort = Command::new("umount").arg("--lazy").arg(self.point.path()).status();
            let _ended = self.driver.wait();
        }
    }
}
