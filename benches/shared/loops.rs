//! Files as block devices.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs::{Outcome, run};

/// Makes a loop device with direct I/O of a file, and returns it open. It goes when nobody has it open any more: so it
/// goes with this process, whatever becomes of that.
pub fn loop_device(file: &Path, read_only: bool) -> Outcome<(File, PathBuf)> {
    let mut losetup = Command::new("losetup");
    losetup.args(["--find", "--show", "--direct-io=on"]);
    if read_only {
        losetup.arg("--read-only");
    }
    let path = PathBuf::from(run(losetup.arg(file))?.trim());
    let opened = File::open(&path);
    run(Command::new("losetup").arg("--detach").arg(&path))?;
    let opened = opened?;
    // udev reads what is on a new device.
    if Path::new("/run/udev/control").exists() {
        run(Command::new("udevadm").arg("settle"))?;
    }
    Ok((opened, path))
}
