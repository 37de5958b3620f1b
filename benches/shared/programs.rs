//! Running programs: those that the volumes and disks are made by, and those that are compared.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What can go wrong in a benchmark: it says so and ends.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Runs a program and returns what it wrote; fails with what it said if it fails.
pub fn run(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| format!("cannot run {command:?}: {error}; .ci/setup bench installs it"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {}", output.status, said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits for something to become true.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) -> Outcome<()> {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() > Duration::from_secs(30) {
            return Err(format!("waited 30 s in vain for {what}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The path as text: all paths here are.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap_or("?")
}

/// A program that ends with us, whatever becomes of us. Not by SIGINT or SIGTERM: these are blocked while
/// [`Interrupt`](ntfsrescue::interrupt::Interrupt) waits for them, and what we start inherits that.
pub fn tied(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "HUP", program]);
    command
}

/// Sends a signal to a child that has not been waited for.
pub fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).unwrap_or(0);
    if pid > 0 {
        let _may_have_ended = kill(Pid::from_raw(pid), signal);
    }
}
