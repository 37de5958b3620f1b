//! Events as lines for another program: what `--events FD` writes.
//!
//! Each line is a word and fields `name=value`, sizes in bytes, times in whole seconds:
//! - `phase name=NAME`: a stage begins, see [`Phase`];
//! - `rescue pass=PASS pos=P rescued=N total=N bad_areas=N bad_bytes=N errors=N elapsed=S since_good=S`: how a rescue
//!   stands, five times a second at most; the pass is that of the progress line;
//! - `waiting seconds=S`: a read, or the disk itself, has not come back for so long;
//! - `lost pos=P len=N`: a stretch is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::pass_name;
use crate::event::{Event, Phase, Standing};

/// Where events go.
#[derive(Debug)]
pub struct Events(File);

impl Events {
    /// Opens what the process has open as this descriptor once more. A reader that does not read misses lines and holds
    /// nobody up.
    pub fn open(descriptor: i32) -> io::Result<Events> {
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(nix::libc::O_NONBLOCK);
        Ok(Events(options.open(format!("/dev/fd/{descriptor}"))?))
    }

    /// Writes the line of an event that has one.
    pub fn tell(&self, event: &Event<'_>) {
        let line = match event {
            Event::Phase(phase) => format!("phase name={}\n", word(*phase)),
            Event::Rescuing(Standing {
                pass,
                pos,
                total,
                rescued,
                rescued_before: _,
                damage,
                nr_errors,
                elapsed,
                since_good,
            }) => format!(
                "rescue pass={} pos={pos} rescued={rescued} total={total} bad_areas={} bad_bytes={} errors={nr_errors} \
                 elapsed={} since_good={}\n",
                pass.map_or("done", pass_name).replace(' ', "-"),
                damage.nr_areas,
                damage.bytes(),
                elapsed.as_secs(),
                since_good.as_secs(),
            ),
            Event::Waiting(time) => format!("waiting seconds={}\n", time.as_secs()),
            Event::Lost { pos, len } => format!("lost pos={pos} len={len}\n"),
            _ => return,
        };
        let _unread = (&self.0).write_all(line.as_bytes());
    }
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Survey => "survey",
        Phase::Scan => "scan",
        Phase::Account => "account",
        Phase::Clone => "clone",
        Phase::Save => "save",
        Phase::Restore => "restore",
        Phase::Check => "check",
        Phase::Rescue => "rescue",
        Phase::Mark => "mark",
        Phase::Folders => "folders",
        Phase::Files => "files",
        Phase::Sync => "sync",
        Phase::Verify => "verify",
    }
}
