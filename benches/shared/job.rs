//! How a benchmark begins and ends: it can be interrupted, and tells how long it took.

use std::process::ExitCode;
use std::time::Instant;

use ntfsrescue::interrupt::{self, Interrupt};

use super::programs::Outcome;

/// Does the work of the benchmark that is called so, and tells why it failed. An interrupt ends the process as the signal
/// would have.
pub fn carry_out(name: &str, work: impl FnOnce(&Interrupt) -> Outcome<()>) -> ExitCode {
    let interrupt = Interrupt::watch(true, |line| eprintln!("{line}"));
    let start = Instant::now();
    let outcome = work(&interrupt);
    eprintln!("took {:.0} s", start.elapsed().as_secs_f64());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            interrupt.signal().map_or(ExitCode::FAILURE, |signal| interrupt::end_by(signal))
        }
    }
}

/// Refuses to begin without the rights that volumes take.
pub fn wants_root() -> Outcome<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("loop devices and mounts need root".into()) }
}
