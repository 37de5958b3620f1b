//! The consoles of a boot: a page that is drawn on screens, lines on serial ports, and Ctrl-C from both.
//!
//! ```text
//! log, worker ─► View ─┬─► Journal            in memory, then beside the image
//!                      ├─► Page ─► screens    drawn by a thread each
//!                      └─► lines ─► others    written by a thread each
//! ```
//!
//! No console can hold up the boot: who writes to it is a thread of its own, and what it does not take is dropped.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::page::{Page, Side, Statement, Word, Work, draw};
use self::track::Track;
use self::tty::{ConsoleSpec, Terminal, kernel_consoles};
use super::ending::Outcome;
use super::journal::{Journal, since_boot};
use super::spec::Escaped;
use super::worker::Said;
use super::worker::lines::Lines;

mod letters;
pub mod page;
mod track;
pub mod tty;

/// Time between two looks at a page that has not changed: its clocks go on.
const CLOCK: Duration = Duration::from_secs(1);

/// Least time between two drawings.
const PAUSE: Duration = Duration::from_millis(200);

/// Time between two drawings of what has not changed: the kernel may have printed over it.
const REPAINT: Duration = Duration::from_secs(10);

/// Bytes of lines that wait for a slow console; the oldest are dropped.
const QUEUE: usize = 64 << 10;

/// How long a console may take nothing before it is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The consoles and what they show.
#[derive(Debug)]
pub struct View {
    /// All lines.
    pub journal: Journal,
    state: Mutex<State>,
    /// The page has changed.
    changed: Condvar,
    consoles: Mutex<Vec<Arc<Console>>>,
}

#[derive(Debug, Default)]
struct State {
    page: Page,
    track: Track,
    /// Counts the changes of the page.
    nr_changes: u64,
    /// The result line was printed; nothing may follow it.
    has_ended: bool,
}

/// A console and what waits to be written to it.
#[derive(Debug)]
struct Console {
    spec: ConsoleSpec,
    terminal: Terminal,
    todo: Mutex<Todo>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Todo {
    lines: VecDeque<String>,
    /// Bytes of them.
    len: usize,
    /// Lines that were dropped since the last one that was written.
    nr_dropped: u64,
    /// Nothing more comes.
    is_closing: bool,
    /// All is written, or nothing more will be.
    is_done: bool,
}

impl View {
    /// Opens the kernel's consoles and makes them and the journal the place of `log`'s records. Signals that a thread
    /// shall not take must be blocked before.
    pub fn open() -> &'static View {
        let mut consoles = kernel_consoles();
        if consoles.is_empty() {
            consoles.push(ConsoleSpec { name: "console".to_owned(), speed: None });
        }
        let view = View::on(&consoles);
        crate::report::collect_boot_log(log::LevelFilter::Info, LogWriter { view, lines: Lines::default() });
        view
    }

    /// Lives as long as the process: its threads do.
    fn on(consoles: &[ConsoleSpec]) -> &'static View {
        let view: &'static View = Box::leak(Box::new(View {
            journal: Journal::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            consoles: Mutex::default(),
        }));
        for spec in consoles {
            // There may be nobody to tell it to.
            let _without = view.add_console(spec);
        }
        view
    }

    /// Uses a further console. One that is in use already is not used twice.
    pub fn add_console(&'static self, spec: &ConsoleSpec) -> io::Result<()> {
        let mut consoles = lock(&self.consoles);
        if consoles.iter().any(|console| console.spec.is_same(spec)) {
            return Ok(());
        }
        let terminal = Terminal::open(spec)?;
        let has_keys = terminal.take_keys().is_ok();
        let console = Arc::new(Console {
            spec: spec.clone(),
            terminal,
            todo: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = console.clone();
        Builder::new().spawn(move || {
            let _gone = if writer.spec.is_screen() { self.draw_on(&writer) } else { writer.write_lines() };
            writer.with_todo(|todo| todo.is_done = true);
        })?;
        if has_keys {
            let keyboard = console.clone();
            Builder::new().spawn(move || {
                while keyboard.terminal.wait_for_ctrl_c().is_ok() {
                    // The same as PID 1 sends for Ctrl-Alt-Del; all threads have it blocked.
                    let _asked = kill(Pid::this(), Signal::SIGTERM);
                }
            })?;
        }
        consoles.push(console);
        Ok(())
    }

    /// Prints a line everywhere: with its time, and with its control characters escaped.
    pub fn line(&self, text: &str) {
        self.print(text, true);
    }

    /// `is_message`: also on the page.
    fn print(&self, text: &str, is_message: bool) {
        let line = format!("[{:9.2}] {}", since_boot().as_secs_f64(), Escaped(text));
        self.journal.line(&line);
        if is_message {
            self.change(|page| page.message(&line));
        }
        if !lock(&self.state).has_ended {
            self.send(&line);
        }
    }

    fn send(&self, line: &str) {
        for console in lock(&self.consoles).iter().filter(|console| !console.spec.is_screen()) {
            console.with_todo(|todo| todo.push(line));
        }
    }

    /// Changes what screens show.
    pub fn change<T>(&self, then: impl FnOnce(&mut Page) -> T) -> T {
        let mut state = lock(&self.state);
        let done = then(&mut state.page);
        state.nr_changes += 1;
        self.changed.notify_all();
        done
    }

    /// Begins the work on a volume or a disk.
    pub fn begin(&self, work: Work, source: Option<Side>, target: Option<Side>) {
        lock(&self.state).track = Track::default();
        self.change(|page| page.begin(work, source, target, since_boot()));
    }

    /// Takes what a worker says.
    pub fn said(&self, said: Said) {
        match said {
            Said::Line(line) => self.line(&line),
            Said::Event(told) => {
                let line = {
                    let State { page, track, nr_changes, .. } = &mut *lock(&self.state);
                    *nr_changes += 1;
                    track.told(told, page, since_boot())
                };
                self.changed.notify_all();
                if let Some(line) = line {
                    self.print(&line, false);
                }
            }
        }
    }

    /// The end: the large statement, and the result line behind everything else.
    pub fn end(&self, outcome: &Outcome, word: Word, steps: Vec<String>) {
        let result = outcome.to_string();
        self.journal.line(&result);
        self.send(&result);
        lock(&self.state).has_ended = true;
        let sentence = outcome.sentence.clone();
        self.change(|page| page.ending = Some(Statement { word, sentence, steps }));
    }

    /// Waits until the consoles have all this, though not for one that takes nothing, and leaves them as they were:
    /// a page stays on its screen, unless it is `wiped` for a shell.
    pub fn leave(&self, wiped: bool) {
        let consoles = std::mem::take(&mut *lock(&self.consoles));
        for console in &consoles {
            console.with_todo(|todo| todo.is_closing = true);
        }
        self.change(|_| {});
        for console in consoles {
            console.wait_until_done();
            console.terminal.restore();
            if console.spec.is_screen() {
                let ending = lock(&self.state).page.ending.clone();
                let text = match (wiped, ending) {
                    (true, Some(statement)) => {
                        format!("{WIPE}{SHOW_CURSOR}{}\n", Escaped(&statement.sentence))
                    }
                    (true, None) => format!("{WIPE}{SHOW_CURSOR}"),
                    // Below the page.
                    (false, _) => format!("\x1b[999;1H{SHOW_CURSOR}"),
                };
                let _unread = console.terminal.write(&text, PATIENCE);
            }
        }
    }

    /// Draws the page on a screen until it is closed or gone.
    fn draw_on(&self, console: &Console) -> io::Result<()> {
        console.terminal.write(PREPARE, PATIENCE)?;
        let mut shown = Shown::default();
        loop {
            let is_closing = lock(&console.todo).is_closing;
            let (mut page, nr_changes) = {
                let state = lock(&self.state);
                (state.page.clone(), state.nr_changes)
            };
            page.now = since_boot();
            let (columns, rows) = console.terminal.size();
            let text = shown.update(&draw(&page, columns, rows), (columns, rows));
            console.terminal.write(&text, PATIENCE)?;
            if is_closing {
                return Ok(());
            }
            sleep(PAUSE);
            let state = lock(&self.state);
            // A thread that panics ends the process.
            drop(self.changed.wait_timeout_while(state, CLOCK, |state| state.nr_changes == nr_changes));
        }
    }
}

/// Shows on the screens alone that the session has died: what else there is to say of it was printed before.
pub fn show_crash(sentence: String, wiped: bool) {
    let screens: Vec<_> = kernel_consoles().into_iter().filter(ConsoleSpec::is_screen).collect();
    let view = View::on(&screens);
    let steps = vec!["Start the machine again to try once more: what was saved is gone on with.".to_owned()];
    view.change(|page| page.ending = Some(Statement { word: Word::Failed, sentence, steps }));
    view.leave(wiped);
}

/// UTF-8, never blank, no cursor; yellow is yellow instead of brown.
const PREPARE: &str = "\x1b%G\x1b[9;0]\x1b[?25l\x1b]P3ffcc00";
const WIPE: &str = "\x1b[0m\x1b[H\x1b[J";
const SHOW_CURSOR: &str = "\x1b[0m\x1b[?25h";

/// What a screen shows already.
#[derive(Debug, Default)]
struct Shown {
    lines: Vec<String>,
    size: (usize, usize),
    /// When all of it was written.
    at: Option<Instant>,
}

impl Shown {
    /// What has to be written for a screen to show this page: the lines that have changed, now and then all.
    fn update(&mut self, page: &str, size: (usize, usize)) -> String {
        let mut text = String::new();
        if self.size != size {
            *self = Shown { size, ..Shown::default() };
            text.push_str(WIPE);
        }
        let is_due = self.at.is_none_or(|at| at.elapsed() >= REPAINT);
        if is_due {
            self.at = Some(Instant::now());
        }
        let lines: Vec<String> = page.split('\n').map(str::to_owned).collect();
        for (row, line) in lines.iter().enumerate() {
            if is_due || self.lines.get(row) != Some(line) {
                text.push_str(&format!("\x1b[{};1H{line}", row + 1));
            }
        }
        self.lines = lines;
        text
    }
}

impl Console {
    fn with_todo(&self, then: impl FnOnce(&mut Todo)) {
        then(&mut lock(&self.todo));
        self.changed.notify_all();
    }

    /// Writes lines as they come until it is closed, or the terminal is gone.
    fn write_lines(&self) -> io::Result<()> {
        loop {
            let mut todo = lock(&self.todo);
            while todo.lines.is_empty() && !todo.is_closing {
                todo = self.changed.wait(todo).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(line) = todo.take() else { return self.terminal.drain() };
            drop(todo);
            match self.terminal.write(&line, PATIENCE) {
                // Nobody reads: perhaps later.
                Err(cause) if cause.kind() == io::ErrorKind::TimedOut && !lock(&self.todo).is_closing => {}
                written => written?,
            }
            // For who waits for the end.
            self.changed.notify_all();
        }
    }

    /// Waits until all is written, as long as something is.
    fn wait_until_done(&self) {
        let mut todo = lock(&self.todo);
        let mut left = todo.len;
        while !todo.is_done {
            let (next, timeout) =
                self.changed.wait_timeout(todo, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            todo = next;
            if timeout.timed_out() && todo.len == left {
                return;
            }
            left = todo.len;
        }
    }
}

impl Todo {
    fn push(&mut self, line: &str) {
        if self.is_done {
            return;
        }
        self.len += line.len();
        self.lines.push_back(line.to_owned());
        while self.len > QUEUE
            && let Some(dropped) = self.lines.pop_front()
        {
            self.len -= dropped.len();
            self.nr_dropped += 1;
        }
    }

    /// The next line, with its end.
    fn take(&mut self) -> Option<String> {
        let line = self.lines.pop_front()?;
        self.len -= line.len();
        Some(match std::mem::take(&mut self.nr_dropped) {
            0 => format!("{line}\n"),
            n => format!("({n} lines were not written in time)\n{line}\n"),
        })
    }
}

/// Where `log`'s records go.
struct LogWriter {
    view: &'static View,
    lines: Lines,
}

impl Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.lines.take(text, &mut |line| self.view.line(line));
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
