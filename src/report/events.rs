//! Events as lines for another program: what `--events FD` writes.
//!
//! Each line is a word and fields `name=value`, sizes in bytes, times in whole seconds:
//! - `phase name=NAME`: a stage begins, see [`Phase`];
//! - `rescue pass=PASS pos=P rescued=N total=N bad_areas=N bad_bytes=N errors=N elapsed=S since_good=S`: how a rescue
//!   stands, five times a second at most; the pass is that of the progress line;
//! - `progress done=N total=N`: how a stage of another kind stands, in its own unit, which is bytes while it copies or
//!   checks; five times a second at most, and at its end;
//! - `waiting seconds=S`: a read, or the disk itself, has not come back for so long;
//! - `lost pos=P len=N`: a stretch is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::pass_name;
use crate::event::{Event, Phase, Standing};

/// Time between two lines about the progress of a stage.
const INTERVAL: Duration = Duration::from_millis(200);

/// Where events go.
#[derive(Debug)]
pub struct Events {
    file: File,
    /// When the last line about progress was written in this stage.
    progress_at: Mutex<Option<Instant>>,
}

impl Events {
    /// Opens what the process has open as this descriptor once more. A reader that does not read misses lines and holds
    /// nobody up.
    pub fn open(descriptor: i32) -> io::Result<Events> {
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(nix::libc::O_NONBLOCK);
        // A small system may have no /dev/fd.
        let file = options.open(format!("/proc/self/fd/{descriptor}"))?;
        Ok(Events { file, progress_at: Mutex::default() })
    }

    /// Is it time for a line about the progress of the stage?
    fn is_due(&self, is_complete: bool) -> bool {
        let mut at = self.progress_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = is_complete || at.is_none_or(|at| at.elapsed() >= INTERVAL);
        if is_due {
            *at = Some(Instant::now());
        }
        is_due
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
            Event::Progress { done, total } if self.is_due(done >= total) => {
                format!("progress done={done} total={total}\n")
            }
            Event::Waiting(time) => format!("waiting seconds={}\n", time.as_secs()),
            Event::Lost { pos, len } => format!("lost pos={pos} len={len}\n"),
            _ => return,
        };
        let _unread = (&self.file).write_all(line.as_bytes());
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
        Phase::Sum => "sum",
        Phase::Sync => "sync",
        Phase::Verify => "verify",
    }
}

/// A line of these, as the other program reads it. Fields that are unknown are passed over, and so are whole lines.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Told {
    Phase { name: String },
    Rescue(Rescue),
    Progress { done: u64, total: u64 },
    Waiting(Duration),
    Lost { pos: u64, len: u64 },
}

/// How a rescue stands: see the line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rescue {
    pub pass: String,
    pub pos: u64,
    pub rescued: u64,
    pub total: u64,
    pub bad_areas: u64,
    pub bad_bytes: u64,
    pub errors: u64,
    pub elapsed: Duration,
    pub since_good: Duration,
}

impl Told {
    /// Understands a line; none where it is no such line, or a part of one.
    pub fn parse(line: &str) -> Option<Told> {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next()?;
        let fields: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
        let text = |name| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
        let number = |name| text(name)?.parse::<u64>().ok();
        let seconds = |name| number(name).map(Duration::from_secs);
        Some(match kind {
            "phase" => Told::Phase { name: text("name")?.to_owned() },
            "rescue" => Told::Rescue(Rescue {
                pass: text("pass")?.to_owned(),
                pos: number("pos")?,
                rescued: number("rescued")?,
                total: number("total")?,
                bad_areas: number("bad_areas")?,
                bad_bytes: number("bad_bytes")?,
                errors: number("errors")?,
                elapsed: seconds("elapsed")?,
                since_good: seconds("since_good")?,
            }),
            "progress" => Told::Progress { done: number("done")?, total: number("total")? },
            "waiting" => Told::Waiting(seconds("seconds")?),
            "lost" => Told::Lost { pos: number("pos")?, len: number("len")? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::rescue::Damage;
    use crate::rescue::passes::Pass;

    #[test]
    fn what_is_written_is_understood() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let events = Events::open(writer.as_raw_fd()).unwrap();
        drop(writer);
        let damage = Damage { nr_areas: 3, ..Damage::default() };
        let standing = Standing {
            pass: Some(Pass::Down),
            pos: 512,
            total: 4096,
            rescued: 1024,
            rescued_before: 0,
            damage,
            nr_errors: 4,
            elapsed: Duration::from_millis(5900),
            since_good: Duration::from_secs(1),
        };
        events.tell(&Event::Phase(Phase::Save));
        events.tell(&Event::Rescuing(standing));
        for done in [1, 2, 3, 9] {
            events.tell(&Event::Progress { done, total: 9 });
        }
        events.tell(&Event::Waiting(Duration::from_secs(7)));
        events.tell(&Event::Lost { pos: 5, len: 6 });
        drop(events);
        let mut lines = String::new();
        reader.read_to_string(&mut lines).unwrap();
        let told: Vec<_> = lines.lines().map(|line| Told::parse(line).unwrap()).collect();
        let rescue = Rescue {
            pass: "going-back".into(),
            pos: 512,
            rescued: 1024,
            total: 4096,
            bad_areas: 3,
            bad_bytes: damage.bytes(),
            errors: 4,
            elapsed: Duration::from_secs(5),
            since_good: Duration::from_secs(1),
        };
        let wanted = [
            Told::Phase { name: "save".into() },
            Told::Rescue(rescue),
            Told::Progress { done: 1, total: 9 },
            Told::Progress { done: 9, total: 9 },
            Told::Waiting(Duration::from_secs(7)),
            Told::Lost { pos: 5, len: 6 },
        ];
        assert_eq!(told, wanted, "progress is told now and then");
        for torn in ["", "rescue pass=x pos=1", "progress done=1 total=", "waiting seconds=-1", "later x=1"] {
            assert_eq!(Told::parse(torn), None, "{torn}");
        }
    }
}
