//! Terminals: which ones a boot has, how they are set up, and writing to one that may never take what is written.
//! The kernel's consoles are in `/sys/class/tty/console/active`; `console_codes(4)` and `termios(3)` have the rest.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    BaudRate, ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, Termios, cfsetspeed, tcdrain,
    tcgetattr, tcsetattr,
};

use crate::init::spec::Escaped;
use crate::sys;

/// The kernel's consoles by name, the one of `/dev/console` last.
const ACTIVE: &str = "/sys/class/tty/console/active";

/// What Ctrl-C sends.
const CTRL_C: u8 = 3;

/// Speeds of serial ports in bits a second.
const SPEEDS: [(u32, BaudRate); 12] = [
    (1200, BaudRate::B1200),
    (2400, BaudRate::B2400),
    (4800, BaudRate::B4800),
    (9600, BaudRate::B9600),
    (19_200, BaudRate::B19200),
    (38_400, BaudRate::B38400),
    (57_600, BaudRate::B57600),
    (115_200, BaudRate::B115200),
    (230_400, BaudRate::B230400),
    (460_800, BaudRate::B460800),
    (921_600, BaudRate::B921600),
    (1_500_000, BaudRate::B1500000),
];

/// A console by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleSpec {
    /// Without `/dev/`.
    pub name: String,
    /// Bits a second, for a serial port; as it is where none is given.
    pub speed: Option<u32>,
}

/// A console that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found \"{}\", wanted a terminal's name and, for a serial port, its speed: tty0 or ttyS0,115200", Escaped(.0))]
pub struct ConsoleError(String);

impl ConsoleSpec {
    /// Parses `ttyS0,115200`, as the kernel's own `console=` has it; `n8`, which may follow, is what everybody has.
    pub fn parse(text: &str) -> Result<ConsoleSpec, ConsoleError> {
        let wrong = || ConsoleError(text.to_owned());
        let (name, speed) = text.split_once(',').map_or((text, None), |(name, speed)| (name, Some(speed)));
        let name = name.strip_prefix("/dev/").unwrap_or(name);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(wrong());
        }
        let speed = speed.map(|speed| {
            let speed = speed.strip_suffix("n8").unwrap_or(speed).parse().ok();
            speed.filter(|speed| SPEEDS.iter().any(|(known, _)| known == speed)).ok_or_else(wrong)
        });
        Ok(ConsoleSpec { name: name.to_owned(), speed: speed.transpose()? })
    }

    /// Is it a screen of the kernel's, rather than something that only takes lines?
    pub fn is_screen(&self) -> bool {
        self.name.strip_prefix("tty").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    }

    /// Where it is. What the kernel calls `tty0` is the screen that is in front, which is the first one.
    fn path(&self) -> String {
        format!("/dev/{}", if self.name == "tty0" { "tty1" } else { &self.name })
    }

    /// Do both mean the same terminal?
    pub fn is_same(&self, other: &ConsoleSpec) -> bool {
        self.path() == other.path()
    }
}

/// The consoles that the kernel prints on.
pub fn kernel_consoles() -> Vec<ConsoleSpec> {
    active(&std::fs::read_to_string(ACTIVE).unwrap_or_default())
}

fn active(names: &str) -> Vec<ConsoleSpec> {
    names.split_ascii_whitespace().filter_map(|name| ConsoleSpec::parse(name).ok()).collect()
}

/// An open terminal.
#[derive(Debug)]
pub struct Terminal {
    file: File,
    /// How it was.
    before: Option<nix::libc::termios>,
}

impl Terminal {
    /// Opens it. Nothing of it waits: not for a modem's answer, and not for somebody who reads.
    pub fn open(spec: &ConsoleSpec) -> io::Result<Terminal> {
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
        let file = File::options().read(true).write(true).custom_flags(flags).open(spec.path())?;
        let before = tcgetattr(&file).ok();
        let speed = SPEEDS.iter().find(|(speed, _)| Some(*speed) == spec.speed);
        if let (Some((_, speed)), Some(mut termios)) = (speed, before.clone()) {
            cfsetspeed(&mut termios, *speed)?;
            termios.control_flags |= ControlFlags::CLOCAL | ControlFlags::CREAD;
            tcsetattr(&file, SetArg::TCSANOW, &termios)?;
        }
        Ok(Terminal { file, before: before.map(Into::into) })
    }

    /// Makes it give each key as a byte at once, Ctrl-C too, and show none of them.
    pub fn take_keys(&self) -> io::Result<()> {
        let mut termios = tcgetattr(&self.file)?;
        termios.local_flags -= KEYS;
        Ok(tcsetattr(&self.file, SetArg::TCSANOW, &termios)?)
    }

    /// Puts it back into the state it was in when it was opened.
    pub fn restore(&self) {
        if let Some(before) = self.before.map(Termios::from) {
            let _gone = tcsetattr(&self.file, SetArg::TCSANOW, &before);
        }
    }

    /// Waits for Ctrl-C. Fails when the terminal is gone.
    pub fn wait_for_ctrl_c(&self) -> io::Result<()> {
        let mut keys = [0; 64];
        loop {
            let mut readable = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut readable, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            match (&self.file).read(&mut keys) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) if keys.get(..n).is_some_and(|keys| keys.contains(&CTRL_C)) => return Ok(()),
                Ok(_) => {}
                Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(cause) => return Err(cause),
            }
        }
    }

    /// Writes all of it, as long as the terminal takes something within `patience`.
    pub fn write(&self, text: &str, patience: Duration) -> io::Result<()> {
        let mut rest = text.as_bytes();
        let mut at = Instant::now();
        while !rest.is_empty() {
            match (&self.file).write(rest) {
                Ok(n) => {
                    rest = rest.get(n..).unwrap_or_default();
                    at = Instant::now();
                }
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                    let left = patience.checked_sub(at.elapsed()).ok_or(ErrorKind::TimedOut)?;
                    let mut writable = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
                    let _tried_again =
                        poll(&mut writable, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    /// Waits until all that was written has gone out. May take for ever.
    pub fn drain(&self) -> io::Result<()> {
        Ok(tcdrain(&self.file)?)
    }

    /// Columns and rows; what every screen has where it does not say.
    pub fn size(&self) -> (usize, usize) {
        match sys::terminal_size(&self.file) {
            Ok((columns @ 1.., rows @ 1..)) => (columns.into(), rows.into()),
            _ => (80, 25),
        }
    }
}

/// What makes a terminal put lines together, show what is typed, and make signals of keys.
const KEYS: LocalFlags = LocalFlags::ICANON.union(LocalFlags::ECHO).union(LocalFlags::ISIG);

/// Puts a console into the state that a shell wants, whoever left it in another one; what a screen shows is wiped.
pub fn make_sane(spec: &ConsoleSpec) {
    let Ok(terminal) = Terminal::open(&ConsoleSpec { speed: None, ..spec.clone() }) else { return };
    if let Ok(mut termios) = tcgetattr(&terminal.file) {
        termios.local_flags |= KEYS | LocalFlags::ECHOE | LocalFlags::IEXTEN;
        termios.input_flags |= InputFlags::ICRNL;
        termios.output_flags |= OutputFlags::OPOST | OutputFlags::ONLCR;
        let _as_it_is = tcsetattr(&terminal.file, SetArg::TCSANOW, &termios);
    }
    if spec.is_screen() {
        let _unread = terminal.write(RESET, Duration::ZERO);
    }
}

/// Makes a screen as it was when the machine was switched on.
const RESET: &str = "\x1bc";

/// Prints on all of the kernel's consoles, without a thread and without waiting for long: for who cannot do more.
/// Before `/sys` is there it is printed where the kernel has opened our output.
pub fn print_everywhere(text: &str) {
    let consoles: Vec<_> =
        kernel_consoles().iter().filter_map(|console| Terminal::open(console).ok()).collect();
    if consoles.is_empty() {
        let _unread = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    }
    for console in consoles {
        let _unread = console.write(text, Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, speed: Option<u32>) -> ConsoleSpec {
        ConsoleSpec { name: name.to_owned(), speed }
    }

    #[test]
    fn consoles_are_named_as_for_the_kernel() {
        assert_eq!(ConsoleSpec::parse("ttyS0,115200"), Ok(spec("ttyS0", Some(115_200))));
        assert_eq!(ConsoleSpec::parse("ttyUSB1,9600n8"), Ok(spec("ttyUSB1", Some(9600))));
        assert_eq!(ConsoleSpec::parse("/dev/tty2"), Ok(spec("tty2", None)));
        for wrong in ["", ",9600", "ttyS0,", "ttyS0,1", "ttyS0,115200e7", "../sda", "a b", "ttyS0,9600,x"] {
            assert_eq!(ConsoleSpec::parse(wrong), Err(ConsoleError(wrong.to_owned())), "{wrong}");
        }
        assert_eq!(active("tty0 ttyS0\n"), [spec("tty0", None), spec("ttyS0", None)]);
        assert_eq!(active(""), []);
    }

    #[test]
    fn screens_are_told_from_what_takes_lines() {
        for (name, is_screen) in
            [("tty0", true), ("tty12", true), ("ttyS0", false), ("tty", false), ("hvc0", false)]
        {
            assert_eq!(spec(name, None).is_screen(), is_screen, "{name}");
        }
        assert!(spec("tty0", None).is_same(&spec("tty1", Some(9600))));
        assert!(!spec("ttyS0", None).is_same(&spec("ttyS1", None)));
    }

    #[test]
    fn a_terminal_that_takes_nothing_is_given_up() {
        // A pipe that nobody reads, in the place of one.
        let (_reader, writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        let flags = nix::libc::O_NONBLOCK;
        let file = File::options().write(true).custom_flags(flags).open(path).unwrap();
        let terminal = Terminal { file, before: None };
        terminal.write("short", Duration::ZERO).unwrap();
        let error = terminal.write(&"x".repeat(1 << 20), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(terminal.size(), (80, 25));
    }
}
