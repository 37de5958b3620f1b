//! Events as words: the only writer to standard output and standard error.
//!
//! The lines that scripts read (`Cluster size`, `Current volume size`, `Current device size`, `Space in use`,
//! `… percent completed`) are worded as ntfsclone words them.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use events::Events;

use crate::event::{Event, Observer, Phase, Standing};
use crate::extent::{ByteRange, Difference};
use crate::ntfs::wipe::Wiped;
use crate::rescue::passes::Pass;
use crate::units::{Geometry, Lcn};

pub mod events;
pub mod summary;

/// Time between two progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Channel {
    /// Writes one piece of text. A reader that went away is no reason to end a rescue.
    fn write(self, text: &str) {
        let _unread = match self {
            Channel::Stdout => write_flushed(&mut io::stdout(), text),
            Channel::Stderr => write_flushed(&mut io::stderr(), text),
        };
    }

    /// Does somebody look at it?
    fn is_terminal(self) -> bool {
        match self {
            Channel::Stdout => io::stdout().is_terminal(),
            Channel::Stderr => io::stderr().is_terminal(),
        }
    }

    /// Writes a line.
    pub fn line(self, line: fmt::Arguments<'_>) {
        self.write(&format!("{line}\n"));
    }
}

fn write_flushed(out: &mut dyn Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Words for a job's events.
#[derive(Debug)]
pub struct Reporter {
    channel: Channel,
    quiet: bool,
    events: Option<Events>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the last progress line was written, if the stage has one.
    progress_at: Option<Instant>,
    /// When it was last told that the disk does not answer.
    waiting_at: Option<Instant>,
    /// Bytes that were rescued then.
    rescued: Option<u64>,
    /// The stage has told that it is complete.
    stage_complete: bool,
    /// A progress line stands on the screen without an end of line.
    line_open: bool,
    /// Lost bytes that follow each other are told together.
    lost: Option<ByteRange>,
    /// The line that is being put together; kept so that the copy loop allocates nothing.
    text: String,
}

impl Reporter {
    /// Messages go to `channel`; with `quiet` there is no progress. Events go to `events` too, if there are any.
    pub fn new(channel: Channel, quiet: bool, events: Option<Events>) -> Reporter {
        let state = State { text: String::with_capacity(256), ..State::default() };
        Reporter { channel, quiet, events, state: Mutex::new(state) }
    }

    /// Makes this the place for what all layers send to `log`, from `level` up.
    pub fn collect_log(&'static self, level: log::LevelFilter) {
        // There is one logger a process; a second one has nothing to add.
        let _second = simplelog::WriteLogger::init(level, log_config(), LogWriter(self));
    }

    /// Writes the error that ended the job.
    pub fn error(&self, error: &dyn std::error::Error) {
        self.line(format_args!("ERROR: {error}"));
    }

    /// Writes a line, behind whatever is still to be told.
    pub fn line(&self, line: fmt::Arguments<'_>) {
        self.with_state(|state| self.write_line(state, line));
    }

    fn with_state(&self, then: impl FnOnce(&mut State)) {
        then(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn write_line(&self, state: &mut State, line: fmt::Arguments<'_>) {
        self.tell_lost(state);
        self.put(state, line, "\n");
    }

    /// Writes a text and what ends it. A text that is too long for memory is cut, not lost.
    fn put(&self, state: &mut State, line: fmt::Arguments<'_>, end: &str) {
        state.text.clear();
        if state.line_open && end == "\n" {
            state.text.push('\n');
            state.line_open = false;
        }
        let _infallible = state.text.write_fmt(line);
        state.text.push_str(end);
        self.channel.write(&state.text);
    }

    fn tell_lost(&self, state: &mut State) {
        if let Some(ByteRange { pos, len }) = state.lost.take() {
            self.put(
                state,
                format_args!("WARNING: cannot read {len} bytes at byte {pos} ({pos:#x}): marked BadSectoR"),
                "\n",
            );
        }
    }

    fn progress(&self, state: &mut State, done: u64, total: u64) {
        if self.quiet {
            return;
        }
        let complete = done >= total;
        let too_soon = state.progress_at.is_some_and(|at| at.elapsed() < PROGRESS_INTERVAL);
        if state.stage_complete || (too_soon && !complete) {
            return;
        }
        state.stage_complete = complete;
        if complete {
            self.tell_lost(state);
        }
        state.progress_at = Some(Instant::now());
        let percent = done as f64 * 100.0 / total.max(1) as f64;
        if complete {
            // The line of its own stage is complete; the next one begins on a new line.
            state.line_open = false;
            self.put(state, format_args!("{:6.2} percent completed", 100.0), "\n");
        } else {
            state.line_open = true;
            self.put(state, format_args!("{percent:6.2} percent completed"), "\r");
        }
    }
}

/// Time between two lines about a rescue where nobody watches.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

impl Reporter {
    /// Tells how a rescue stands: on a terminal each second in the same place, else now and then.
    fn rescuing(&self, state: &mut State, standing: &Standing) {
        if self.quiet {
            return;
        }
        let on_terminal = self.channel.is_terminal();
        let interval = if on_terminal { Duration::from_secs(1) } else { LOG_INTERVAL };
        if standing.pass.is_some() && state.progress_at.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        let since = state.progress_at.map_or(standing.elapsed, |at| at.elapsed());
        let fresh = standing.rescued.saturating_sub(state.rescued.unwrap_or(standing.rescued_before));
        let rate = |bytes: u64, time: Duration| bytes as f64 / time.as_secs_f64().max(0.001) / 1e6;
        let average = rate(standing.rescued.saturating_sub(standing.rescued_before), standing.elapsed);
        state.progress_at = Some(Instant::now());
        state.rescued = Some(standing.rescued);
        let left = standing.total.saturating_sub(standing.rescued);
        state.line_open = on_terminal && standing.pass.is_some();
        let end = if state.line_open { "\x1b[K\r" } else { "\n" };
        self.put(
            state,
            format_args!(
                "{:6.2}% {} of {}, {}: {} bad areas, {}; {:.1} MB/s, {average:.1} on average; last good read {} ago; \
                 {} left; at {:#x}",
                standing.rescued as f64 * 100.0 / standing.total.max(1) as f64,
                Bytes(standing.rescued),
                Bytes(standing.total),
                standing.pass.map_or("done", pass_name),
                standing.damage.nr_areas,
                Bytes(standing.damage.bytes()),
                rate(fresh, since),
                Time(standing.since_good),
                Time(Duration::from_secs_f64((left as f64 / 1e6 / average.max(0.001)).min(1e9))),
                standing.pos,
            ),
            end,
        );
    }
}

/// A read that takes longer is told of.
const LONG_READ: Duration = Duration::from_secs(2);

impl Reporter {
    /// Tells that the disk does not answer, as often as of progress.
    fn waiting(&self, state: &mut State, time: Duration) {
        let on_terminal = self.channel.is_terminal();
        let interval = if on_terminal { Duration::from_secs(1) } else { LOG_INTERVAL };
        if self.quiet || time < LONG_READ || state.waiting_at.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        state.waiting_at = Some(Instant::now());
        state.line_open = on_terminal;
        let end = if on_terminal { "\x1b[K\r" } else { "\n" };
        self.put(state, format_args!("waiting for the disk for {}", Time(time)), end);
    }
}

/// What a pass does, in a word.
pub fn pass_name(pass: Pass) -> &'static str {
    match pass {
        Pass::Forward(_) => "copying",
        Pass::Down | Pass::Up => "going back",
        Pass::Probe(_) => "probing",
        Pass::Trim { .. } => "trimming",
        Pass::Sweep => "sweeping",
        Pass::Scrape { .. } => "scraping",
        Pass::Retry => "retrying",
    }
}

/// `12.3 MB`
pub(crate) struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["B", "kB", "MB", "GB", "TB"];
        let (mut number, mut unit) = (self.0 as f64, 0);
        while number >= 1000.0 && unit + 1 < units.len() {
            number /= 1000.0;
            unit += 1;
        }
        let digits = usize::from(unit > 0);
        write!(f, "{number:.digits$} {}", units.get(unit).unwrap_or(&"B"))
    }
}

/// `4 s`, `3 min`, `2 h`, `9 d`
pub(crate) struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7200 => write!(f, "{} min", seconds / 60),
            seconds @ 7200..172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} d", seconds / 86_400),
        }
    }
}

impl Observer for Reporter {
    fn tell(&self, event: Event<'_>) {
        if let Some(events) = &self.events {
            events.tell(&event);
        }
        self.with_state(|state| match event {
            Event::Progress { done, total } => self.progress(state, done, total),
            Event::Waiting(time) => self.waiting(state, time),
            Event::Rescuing(standing) => self.rescuing(state, &standing),
            Event::Lost { pos, len } => match &mut state.lost {
                Some(lost) if lost.end() == pos => lost.len += len,
                _ => {
                    self.tell_lost(state);
                    state.lost = Some(ByteRange { pos, len });
                }
            },
            Event::Phase(phase) => {
                state.progress_at = None;
                state.stage_complete = false;
                self.write_line(state, format_args!("{} ...", phase_name(phase)));
            }
            Event::Warning(text) => self.write_line(state, format_args!("WARNING: {text}")),
            Event::Note(text) => self.write_line(state, text),
            Event::Volume(info) => {
                let Geometry { cluster_size, device_size, .. } = info.geometry;
                if let Some((major, minor)) = info.version {
                    self.write_line(state, format_args!("NTFS volume version: {major}.{minor}"));
                }
                self.write_line(state, format_args!("Cluster size       : {cluster_size} bytes"));
                let volume = Size(info.geometry.volume_size());
                self.write_line(state, format_args!("Current volume size: {volume}"));
                self.write_line(state, format_args!("Current device size: {}", Size(device_size)));
            }
            Event::Image(info) => {
                let Geometry { cluster_size, device_size, .. } = info.geometry;
                let (major, minor) = info.version;
                self.write_line(state, format_args!("Ntfsclone image version: {major}.{minor}"));
                self.write_line(state, format_args!("Cluster size           : {cluster_size} bytes"));
                let volume = Size(info.geometry.volume_size());
                self.write_line(state, format_args!("Image volume size      : {volume}"));
                self.write_line(state, format_args!("Image device size      : {device_size} bytes"));
                let in_use = InUse(info.nr_used, &info.geometry);
                self.write_line(state, format_args!("Space in use           : {in_use}"));
                let offset = info.data_offset;
                self.write_line(state, format_args!("Offset to image data   : {offset} ({offset:#x}) bytes"));
            }
            Event::SpaceInUse { nr_used, geometry } => {
                let in_use = InUse(nr_used, &geometry);
                self.write_line(state, format_args!("Space in use       : {in_use}   "));
            }
            Event::Wiped { nr_records, nr_in_use, wiped } => {
                let Wiped { unused, deleted, resident, index, values, times } = wiped;
                // The counters that ntfsclone has too keep its wording.
                for (what, count) in [
                    ("Num of MFT records      ", nr_records),
                    ("Num of used MFT records ", nr_in_use),
                    ("Wiped unused MFT data   ", unused),
                    ("Wiped deleted MFT data  ", deleted),
                    ("Wiped resident user data", resident),
                    ("Wiped timestamp data    ", times),
                    ("Wiped unused index data ", index),
                    ("Wiped other values      ", values),
                    ("Wiped totally           ", wiped.total()),
                ] {
                    self.write_line(state, format_args!("{what} = {count:10}"));
                }
            }
            Event::Mismatch(Difference::OnlyInBitmap(Lcn(lcn))) => {
                self.write_line(
                    state,
                    format_args!("Cluster {lcn} ({lcn:#x}): in use in $Bitmap, but no file's"),
                );
            }
            Event::Mismatch(Difference::OnlyInSet(Lcn(lcn))) => {
                self.write_line(
                    state,
                    format_args!("Cluster {lcn} ({lcn:#x}): a file's, but free in $Bitmap"),
                );
            }
        });
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Scan => "Scanning volume",
        Phase::Folders => "Reading the names of folders",
        Phase::Files => "Looking through the files",
        Phase::Account => "Accounting clusters",
        Phase::Clone => "Cloning NTFS",
        Phase::Save => "Saving NTFS to image",
        Phase::Restore => "Restoring NTFS from image",
        Phase::Check => "Checking the image",
        Phase::Survey => "Reading what makes the rest readable",
        Phase::Rescue => "Rescuing",
        Phase::Mark => "Marking what is lost",
        Phase::Sum => "Reading the image back for its checksums",
        Phase::Sync => "Syncing",
        Phase::Verify => "Comparing the target with the image",
    }
}

/// `16773120 bytes (17 MB)`
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes ({} MB)", self.0, megabytes(self.0))
    }
}

/// `3 MB (15.3%)`, of this number of clusters.
struct InUse<'a>(u64, &'a Geometry);

impl fmt::Display for InUse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InUse(nr_used, geometry) = self;
        let megabytes = megabytes(nr_used.saturating_mul(geometry.cluster_size.into()));
        let percent = *nr_used as f64 * 100.0 / geometry.nr_clusters.max(1) as f64;
        write!(f, "{megabytes} MB ({percent:.1}%)")
    }
}

/// Millions of bytes, rounded up.
fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// Where `log`'s records go: a reporter's channel.
struct LogWriter(&'static Reporter);

impl Write for LogWriter {
    /// Takes a piece of a record; simplelog ends the last one with the line.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.with_state(|state| {
            if std::mem::take(&mut state.line_open) {
                self.0.channel.write("\n");
            }
            self.0.channel.write(&String::from_utf8_lossy(text));
        });
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Level and text; what goes in front of them is the writer's business.
fn log_config() -> simplelog::Config {
    simplelog::ConfigBuilder::new()
        .set_time_level(log::LevelFilter::Off)
        .set_thread_level(log::LevelFilter::Off)
        .set_target_level(log::LevelFilter::Off)
        .set_location_level(log::LevelFilter::Off)
        .build()
}

/// At boot: makes `to` the place for what all layers send to `log`. It gets records in pieces; each ends with a line.
pub fn collect_boot_log(level: log::LevelFilter, to: impl Write + Send + 'static) {
    let _second = simplelog::WriteLogger::init(level, log_config(), to);
}
