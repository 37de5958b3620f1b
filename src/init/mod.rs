//! The init of a small bootable system: PID 1, and what the kernel and PID 1 run this program for.
//!
//! ```text
//! kernel ─► pid1 ─► session ─► worker                          the ordinary command line, as a child
//!                      │
//!                      ├─ modules                              drivers, by modalias
//!                      ├─ cmdline ─► config ─ spec, template   the job
//!                      ├─ drives ─ table, probe ─► find        its devices, and whether it may touch them
//!                      ├─ mounts                               where the image lies
//!                      └─ screen, journal                      what all of them tell, to people and for later
//! ```
//!
//! PID 1 only starts the session and reaps: a kernel panics without its PID 1, so all that can fail is done by a
//! child. What keeps a job safe is in [`find`], which is pure; the reference is the project's page on the stick.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

pub mod cmdline;
pub mod config;
pub mod drives;
pub mod ending;
mod erase;
pub mod find;
mod grow;
mod jobs;
pub mod journal;
mod marks;
pub mod modules;
pub mod mounts;
mod pid1;
pub mod probe;
mod record;
mod save;
pub mod screen;
mod session;
pub mod signals;
pub mod spec;
mod stick;
pub mod table;
mod tables;
pub mod template;
pub mod uevents;
pub mod worker;

/// The session's name, as its first argument.
const SESSION: &str = "ntfsrescue-session";

/// The argument by which a session only shows a failure, which follows, and tells what comes after it.
const AFTER_CRASH: &str = "after-crash";

/// A life other than the command line's.
#[derive(Debug, PartialEq, Eq)]
pub enum Life {
    /// Started by the kernel as its first process.
    Init,
    /// PID 1's child that does the work.
    Session,
    /// PID 1's child that shows that the session has crashed, and reads what is to follow.
    AfterCrash {
        /// What happened.
        sentence: String,
    },
    /// Run by the kernel, which wants a module.
    Modprobe {
        /// The module's name, or an alias; the last argument.
        wanted: String,
    },
}

/// The life that the process was started for, if it is not the command line's. A container's PID 1 has another name
/// than the kernel gives.
pub fn life(argv: &[OsString]) -> Option<Life> {
    life_of(std::process::id(), nix::unistd::getppid().as_raw(), argv)
}

fn life_of(pid: u32, parent: i32, argv: &[OsString]) -> Option<Life> {
    let (program, args) = argv.split_first()?;
    let name = Path::new(program).file_name()?.to_str()?;
    match name {
        "init" if pid == 1 => Some(Life::Init),
        SESSION if parent == 1 && args.first().is_some_and(|arg| arg == AFTER_CRASH) => {
            let sentence = args.last().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
            Some(Life::AfterCrash { sentence })
        }
        SESSION if parent == 1 => Some(Life::Session),
        "modprobe" => {
            let wanted = args.last().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
            Some(Life::Modprobe { wanted })
        }
        _ => None,
    }
}

impl Life {
    /// Lives it. PID 1 does not come back.
    pub fn live(self) -> ExitCode {
        match self {
            Life::Init => pid1::live(),
            Life::Session => session::run().status().into(),
            Life::AfterCrash { sentence } => session::after_crash(sentence).status().into(),
            Life::Modprobe { wanted } => {
                crate::report::collect_boot_log(log::LevelFilter::Info, std::io::stderr());
                let index = modules::Index::of_running_kernel();
                let modules = modules::Modules::parse(&index);
                if modules.request(&wanted) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_told_apart_by_name_and_number() {
        let life = |pid, parent, line: &str| {
            let argv: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            life_of(pid, parent, &argv)
        };
        assert_eq!(life(1, 0, "/init"), Some(Life::Init));
        assert_eq!(life(1, 0, "/usr/bin/ntfsrescue --version"), None, "in a container");
        assert_eq!(life(7, 1, "/init"), None);
        assert_eq!(life(7, 1, "ntfsrescue-session"), Some(Life::Session));
        assert_eq!(life(7, 6, "ntfsrescue-session"), None);
        let crash = Life::AfterCrash { sentence: "died".into() };
        assert_eq!(life(7, 1, "ntfsrescue-session after-crash died"), Some(crash));
        let modprobe = Life::Modprobe { wanted: "fs-ext4".into() };
        assert_eq!(life(7, 2, "/sbin/modprobe -q -- fs-ext4"), Some(modprobe));
        assert_eq!(life(7, 1, "ntfsclone -r x"), None);
        assert_eq!(life_of(1, 0, &[]), None);
    }
}
