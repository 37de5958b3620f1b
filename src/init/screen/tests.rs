use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::*;
use crate::init::ending::Outcome;
use crate::report::events::Told;

/// A terminal and the name of its other end.
fn terminal() -> (File, OwnedFd, ConsoleSpec) {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let path = nix::unistd::ttyname(&slave).unwrap();
    let name = path.strip_prefix("/dev").unwrap().to_str().unwrap().to_owned();
    (master.into(), slave, ConsoleSpec { name, speed: Some(115_200) })
}

/// What the terminal shows until this comes.
fn read_until(terminal: &mut File, wanted: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(wanted.as_bytes()) {
        terminal.read_exact(&mut byte).unwrap();
        text.extend(byte);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_plain_console_gets_lines_and_the_result_last() {
    let (mut terminal, slave, spec) = terminal();
    let flags = || tcgetattr(&slave).unwrap().local_flags;
    let before = flags();
    let view = View::on(&[spec.clone(), spec]);
    assert!(!flags().intersects(LocalFlags::ISIG | LocalFlags::ECHO | LocalFlags::ICANON));
    view.begin(Work::Saving, None, None);
    view.line("a\x1b[2Jb");
    view.said(Said::Event(Told::Phase { name: "save".into() }));
    view.said(Said::Event(Told::Progress { done: 40, total: 100 }));
    view.said(Said::Line("from the worker".into()));
    let outcome = Outcome::ok("done");
    view.end(&outcome, Word::Saved, Vec::new());
    view.line("too late");
    view.leave(false);
    assert_eq!(flags(), before);
    let text = read_until(&mut terminal, "done\r\n");
    let lines: Vec<_> =
        text.lines().map(|line| line.split_once("] ").map_or(line, |(_, rest)| rest)).collect();
    let result = "ntfsrescue: result=ok exit=0 done";
    assert_eq!(lines, ["a\\u{1b}[2Jb", " 40.00% 40 B of 100 B", "from the worker", result]);
    let mut more = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut more, PollTimeout::from(100u8)), Ok(0), "nothing follows the result");
    // The page has the messages, but not the progress.
    let messages = view.change(|page| page.messages.len());
    assert_eq!(messages, 3);
}

#[test]
fn a_console_that_takes_nothing_holds_nobody_up() {
    let (_unread, _slave, spec) = terminal();
    let view = View::on(&[spec]);
    let begun = Instant::now();
    for i in 0..10_000 {
        view.line(&format!("line {i}"));
    }
    assert!(begun.elapsed() < PATIENCE / 2);
    let todo = lock(&lock(&view.consoles)[0].todo).len;
    assert!(todo <= QUEUE, "{todo}");
    view.leave(false);
    assert!(begun.elapsed() < 4 * PATIENCE);
}

#[test]
fn dropped_lines_are_counted() {
    let mut todo = Todo::default();
    let line = "x".repeat(QUEUE / 4);
    (0..6).for_each(|_| todo.push(&line));
    assert_eq!(todo.take(), Some(format!("(2 lines were not written in time)\n{line}\n")));
    assert_eq!(todo.take(), Some(format!("{line}\n")));
}

#[test]
fn only_what_has_changed_is_drawn() {
    let mut shown = Shown::default();
    let first = shown.update("a\nb\nc", (1, 3));
    assert_eq!(first, format!("{WIPE}\x1b[1;1Ha\x1b[2;1Hb\x1b[3;1Hc"));
    assert_eq!(shown.update("a\nB\nc", (1, 3)), "\x1b[2;1HB");
    assert_eq!(shown.update("a\nB\nc", (1, 3)), "");
    assert!(shown.update("a\nB", (1, 2)).starts_with(WIPE), "another size");
    shown.at = Instant::now().checked_sub(REPAINT);
    assert_eq!(
        shown.update("a\nB", (1, 2)),
        "\x1b[1;1Ha\x1b[2;1HB",
        "something may have been printed over it"
    );
}
