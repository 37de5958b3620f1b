//! One run of a program, and what it took.
//!
//! The kernel counts as a program's peak memory also that of the process from which it was started, up to the moment in
//! which it becomes the program. So it is not started from the benchmark itself, which compares volumes, but from a
//! process between the two, that does nothing but start it: [`between`]. Nothing below some 2 MiB can be seen so.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use ntfsrescue::interrupt::Interrupt;

use crate::shared::programs::Outcome;

/// The argument that makes this program the process between.
pub const BETWEEN: &str = "between";

/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What a run took.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub wall_s: f64,
    /// Processor time, in user mode and in the kernel.
    pub cpu_s: f64,
    /// Peak of memory, in bytes.
    pub peak: u64,
}

/// The process between: `RESULT COMMAND...`. Writes what the command took to the file RESULT.
pub fn between(mut words: impl Iterator<Item = String>) -> Outcome<ExitCode> {
    let result = words.next().ok_or("no file for the result")?;
    let mut command = Command::new(words.next().ok_or("no command")?);
    command.args(words).stdin(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let wall_s = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = usage.user_time() + usage.system_time();
    let cpu_s = cpu.num_microseconds() as f64 / 1e6;
    std::fs::write(result, format!("{wall_s} {cpu_s} {}", usage.max_rss() * 1024))?;
    if let Some(signal) = status.signal() {
        eprintln!("ended by signal {signal}");
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a command with its output going nowhere, and returns what it took. Fails if it fails.
pub fn measure(words: &[String], scratch: &Path, interrupt: &Interrupt) -> Outcome<Cost> {
    let result = scratch.join("cost");
    let said = scratch.join("said");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(BETWEEN).arg(&result).args(words);
    let stderr = File::create(&said)?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0).spawn()?;
    let mut running = Running(child);
    let status = loop {
        if let Some(status) = running.0.try_wait()? {
            break status;
        }
        if interrupt.signal().is_some() {
            return Err("interrupted".into());
        }
        std::thread::sleep(LOOK);
    };
    if !status.success() {
        return Err(format!("{}: {status}: {}", words.join(" "), tail(&said)).into());
    }
    let text = std::fs::read_to_string(&result)?;
    let mut numbers = text.split(' ');
    let mut next = || numbers.next().ok_or("the process between wrote too little");
    Ok(Cost { wall_s: next()?.parse()?, cpu_s: next()?.parse()?, peak: next()?.parse()? })
}

/// Runs a command and gives its standard output to a function. Fails if either fails.
pub fn piped(
    words: &[String],
    scratch: &Path,
    take: impl FnOnce(&mut dyn Read) -> Outcome<()>,
) -> Outcome<()> {
    let said = scratch.join("said");
    let (program, args) = words.split_first().ok_or("an empty command")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&said)?);
    let mut running = Running(command.process_group(0).spawn()?);
    let taken = take(&mut running.0.stdout.take().ok_or("no output")?);
    let status = running.0.wait()?;
    if !status.success() {
        return Err(format!("{}: {status}: {}", words.join(" "), tail(&said)).into());
    }
    taken
}

/// What a program said last.
fn tail(said: &Path) -> String {
    let text = std::fs::read(said).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(1000)..]).into_owned();
    text.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// Ends the program, with all that it started, when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let pid = i32::try_from(self.0.id()).unwrap_or(0);
            if pid > 0 {
                let _may_have_ended = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ended = self.0.wait();
        }
    }
}
