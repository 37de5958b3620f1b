//! Running programs, and comparing what they wrote.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use ntfsrescue::image::trailer::Trailer;

/// What a program said.
pub struct Said {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    fn of(output: Output) -> Said {
        Said {
            status: status_of(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The run succeeded, or the test fails with all that it said.
    #[track_caller]
    pub fn ok(self) -> Said {
        self.exits(0)
    }

    /// The run ended with this status.
    #[track_caller]
    pub fn exits(self, status: i32) -> Said {
        assert_eq!(self.status, status, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Some line on either channel contains this.
    #[track_caller]
    pub fn says(self, text: &str) -> Said {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(said, "wanted: {text}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// What `make` has left in `target/`.
pub fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name);
    assert!(path.exists(), "{} is missing: run make initramfs deb", path.display());
    path
}

/// The exit status as a shell shows it: 128 and its number where a signal ended the program.
pub fn status_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// Runs our program.
pub fn ours<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Said {
    run(Command::new(env!("CARGO_BIN_EXE_ntfsrescue")).args(args))
}

/// Runs the real ntfsclone.
pub fn ntfsclone<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Said {
    run(Command::new("ntfsclone").args(args))
}

/// Runs a program with nothing on its standard input.
pub fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output();
    Said::of(
        output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}; .ci/setup test installs it")),
    )
}

/// Runs a shell command line in which `$OURS` is our program; a failure anywhere in a pipe fails it.
pub fn shell(line: &str) -> Said {
    run(Command::new("bash")
        .args(["-c", &format!("set -euo pipefail; {line}")])
        .env("OURS", env!("CARGO_BIN_EXE_ntfsrescue")))
}

/// The path as text: all paths of tests are.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits for something to become true.
#[track_caller]
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited 30 s in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Unmounts a file system; false if that could not be done in order, and it is only out of sight.
pub fn unmount(point: &Path) -> bool {
    // A program that another test starts has our open files for a moment, until it runs: then the volume is busy.
    for _ in 0..100 {
        if run(Command::new("umount").arg(point)).status == 0 {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    run(Command::new("umount").arg("--lazy").arg(point));
    false
}

/// Both files have the same bytes.
#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    assert_eq!(len(a), len(b), "length of {} and {}", a.display(), b.display());
    assert_same_up_to(a, b, len(a));
}

/// Both files begin with the same `len` bytes.
#[track_caller]
pub fn assert_same_up_to(a: &Path, b: &Path, len: u64) {
    run(Command::new("cmp").arg("-n").arg(len.to_string()).arg(a).arg(b)).ok();
}

/// From byte `from` on the file holds zeros only.
#[track_caller]
pub fn assert_zeros_from(path: &Path, from: u64) {
    let mut file = File::open(path).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert!(rest.iter().all(|byte| *byte == 0), "{} has data behind byte {from}", path.display());
}

pub fn len(path: &Path) -> u64 {
    path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display())).len()
}

/// Bytes that a file occupies: less than its length where it has holes.
pub fn occupied(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    path.metadata().unwrap().blocks() * 512
}

/// A QEMU block node `name` over the node `below` in which reads of the `bad` 512-byte sectors fail with `errno`.
pub fn faults(name: &str, below: &str, errno: i32, bad: &[u64]) -> String {
    let rule = |sector| format!(r#"{{"event":"none","iotype":"read","errno":{errno},"sector":{sector}}}"#);
    let rules = bad.iter().map(rule).collect::<Vec<_>>().join(",");
    let rules = if bad.is_empty() { String::new() } else { format!(r#","inject-error":[{rules}]"#) };
    format!(r#"{{"driver":"blkdebug","node-name":"{name}","image":"{below}"{rules}}}"#)
}

/// A loop device over a file, gone when dropped.
pub struct Loop(pub PathBuf);

impl Loop {
    /// Attaches `file` with logical sectors of `sector_size` bytes, reads and writes going straight to it.
    pub fn attach(file: &Path, sector_size: u32) -> Loop {
        Loop::with(file, &["--direct-io=on", "--sector-size", &sector_size.to_string()])
    }

    /// Attaches `len` bytes of `file`, from `offset` on.
    pub fn attach_part(file: &Path, offset: u64, len: u64) -> Loop {
        Loop::with(file, &["--offset", &offset.to_string(), "--sizelimit", &len.to_string()])
    }

    fn with(file: &Path, options: &[&str]) -> Loop {
        let said = run(Command::new("losetup").args(["--find", "--show"]).args(options).arg(file)).ok();
        let device = Loop(PathBuf::from(said.stdout.trim()));
        // The kernel keeps this flag for whoever gets the name next, and a rescue that is killed leaves it set.
        run(Command::new("blockdev").arg("--setrw").arg(&device.0)).ok();
        device
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // A rescue that was killed has left it read-only, and the kernel keeps that for the next file too.
        run(Command::new("blockdev").arg("--setrw").arg(&self.0));
        run(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

/// Pseudo-random bytes, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The trailer of an image in a file, if it is whole.
pub fn trailer_of(image: &Path) -> Option<Trailer> {
    Trailer::at_end(&std::fs::read(image).unwrap())
}

/// Both images hold the same, and have checksums that say so. What names their disks need not be the same.
#[track_caller]
pub fn assert_same_image(a: &Path, b: &Path) {
    let [of_a, of_b] = [a, b].map(|image| trailer_of(image).unwrap_or_else(|| panic!("{}", image.display())));
    assert_eq!(of_a.sums, of_b.sums, "{} and {}", a.display(), b.display());
    assert_same_up_to(a, b, of_a.sums.image_len);
}
