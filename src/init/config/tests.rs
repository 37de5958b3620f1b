//! Configurations as they are typed: on a command line, in a file, and both.

use super::super::template::Template;
use super::*;

fn parse(line: &str, files: &[(&str, &str)]) -> Result<Config, String> {
    let files: Vec<_> = files.iter().map(|(name, text)| ConfFile { name, bytes: text.as_bytes() }).collect();
    Config::parse(line, &files).map_err(|error| error.to_string())
}

fn error(line: &str) -> String {
    parse(line, &[]).unwrap_err()
}

fn error_in_file(text: &str) -> String {
    parse("", &[("f", text)]).unwrap_err()
}

fn in_words(text: &str) -> String {
    parse("", &[("f", text)]).unwrap().to_string()
}

#[test]
fn a_save_needs_a_source_and_a_target() {
    let line = "quiet ntfsrescue.action=save ntfsrescue.source=SERIAL=V:0 ntfsrescue.wait=5 \
                ntfsrescue.target=LABEL=R:/x.img ntfsrescue.options=\"-q  --strict\" ntfsrescue.then=reboot";
    let config = parse(line, &[]).unwrap();
    let task = Task::Save {
        source: Volumes::One(DeviceSpec::Serial(text("V"), 0)),
        target: ImageSpec { device: DeviceSpec::Label(text("R")), path: Template::parse("/x.img").unwrap() },
    };
    assert_eq!(config.request, Request::Job { task, options: text("-q  --strict") });
    assert_eq!(config.wait, Duration::from_secs(5));
    let endings = Endings { then: Ending::Reboot, then_failed: Ending::Halt };
    assert_eq!((config.endings, Endings::of(line, &[])), (endings, endings));
    assert_eq!((config.run_id, config.stick, config.consoles.len()), (None, None, 0));
}

#[test]
fn nothing_is_not_an_error() {
    assert_eq!(parse("quiet ro", &[]).unwrap().request, Request::Nothing);
    assert_eq!(parse("ntfsrescue.action=shell", &[]).unwrap().request, Request::Shell);
    let settings = "ntfsrescue.stick=1-2 ntfsrescue.then=reboot ntfsrescue.console=tty2";
    assert_eq!(parse(settings, &[("f", "wait = 5\n")]).unwrap().request, Request::Nothing);
}

#[test]
fn errors_name_the_key_its_place_and_what_is_allowed() {
    assert!(error("ntfsrescue.traget=x").starts_with(
        "kernel command line: ntfsrescue.traget: unknown key; keys are action, source, target, "
    ));
    assert_eq!(
        error("ntfsrescue.action=eat"),
        "kernel command line: ntfsrescue.action: found \"eat\", wanted save, restore, clone, verify or shell"
    );
    assert_eq!(
        error("ntfsrescue.action=save ntfsrescue.source=auto"),
        "kernel command line: ntfsrescue.target: missing; action=save needs it"
    );
    let restore = "ntfsrescue.action=restore ntfsrescue.source=LABEL=a:/b ntfsrescue.target=/dev/x";
    assert!(error(restore).contains("ntfsrescue.confirm: missing"));
    assert!(error("ntfsrescue.source=auto").contains("ntfsrescue.action: missing"));
    assert!(error("ntfsrescue.action=save ntfsrescue.confirm=x").contains("makes no sense with action=save"));
    assert!(error("ntfsrescue.action").contains("has no value"));
    assert!(error("ntfsrescue.nonsense").contains("unknown key"));
    assert!(error("ntfsrescue.action=save ntfsrescue.action=save").contains("found twice"));
    for (key, values, wanted) in [
        ("wait", &["-1", "86401", "x", ""][..], "seconds, 0 to 86400"),
        ("then", &["stop", ""], "poweroff, reboot, halt or shell"),
        ("then-failed", &["Halt"], "poweroff, reboot, halt or shell"),
        ("run-id", &[""], "1 to 64 bytes without blanks"),
        ("stick", &["", "x"], "the PARTUUID of one of the stick's partitions"),
        (
            "console",
            &["", "ttyS0,1", "sda", "tty", "tty../x", "ttyS0,115200,9600", "ttyS0,x", "ttyS0;ttyS0"],
            CONSOLE_FORMS,
        ),
    ] {
        for value in values {
            let error = error(&format!("ntfsrescue.action=shell ntfsrescue.{key}={value}"));
            assert!(error.contains(&format!("{key}: found \"{value}\", wanted {wanted}")), "{error}");
        }
    }
    assert!(error("ntfsrescue.console=\"tty1 tty2 tty3 tty4 tty5\"").contains("up to 4"));
    assert!(error("ntfsrescue.console=\"tty1 tty1\"").contains("up to 4"));
    assert_eq!(error(&"x".repeat(5000)), "the kernel command line has 5000 bytes, wanted at most 4096");
}

#[test]
fn all_has_a_name_for_each() {
    let line = |source: &str, target: &str| {
        format!("ntfsrescue.action=save ntfsrescue.source={source} ntfsrescue.target=LABEL=R:{target}")
    };
    let config = parse(&line("all", "/{serial}-{part}.img"), &[]).unwrap();
    assert!(matches!(config.request, Request::Job { task: Task::Save { source: Volumes::All, .. }, .. }));
    assert!(
        error(&line("all", "/{serial}.img"))
            .contains("target: found \"LABEL=R:/{serial}.img\", wanted {serial} and")
    );
    assert!(error(&line("auto", "/{model}.img")).contains("target: found \"{model}\" in a name"));
    let clone = "ntfsrescue.action=clone ntfsrescue.source=all ntfsrescue.target=/dev/x ntfsrescue.confirm=x";
    assert!(error(clone).contains("source: found \"all\""));
    let restore = "ntfsrescue.action=restore ntfsrescue.source=LABEL=R:/{serial} ntfsrescue.target=/dev/x ntfsrescue.confirm=x";
    assert!(error(restore).contains("wanted the image's own name"));
}

#[test]
fn consoles_are_a_list() {
    let consoles = parse("ntfsrescue.console=\"ttyS0,115200n8  ttyUSB0,9600 hvc0\"", &[]).unwrap().consoles;
    let found: Vec<_> = consoles.iter().map(|console| (console.name.as_str(), console.baud)).collect();
    assert_eq!(found, [("ttyS0", Some(115_200)), ("ttyUSB0", Some(9600)), ("hvc0", None)]);
}

#[test]
fn a_file_has_a_key_on_each_line() {
    let text = "\u{feff}# made by hand\r\n\r\n  action=save\r\nsource = LABEL=My Disk=1 \r\n\
                target\t=\t\"LABEL=R:/a #1.img\"\r\n# the end\r\nrun-id = 2";
    let config = parse("", &[("f", text)]).unwrap();
    let Request::Job { task: Task::Save { source, target }, .. } = config.request else { panic!() };
    assert_eq!(source, Volumes::One(DeviceSpec::Label(super::text("My Disk=1"))));
    assert_eq!(target.to_string(), "LABEL=R:/a #1.img");
    assert_eq!(config.run_id.as_deref(), Some("2"));
}

#[test]
fn errors_in_a_file_name_the_line() {
    for (text, wanted) in [
        ("\n#\ntraget = x", "f, line 3: traget: unknown key; keys are action, source, "),
        ("action", "f, line 1: action: has no value; wanted KEY=VALUE"),
        ("[save]", "f, line 1: [save]: unknown key"),
        ("= x", "f, line 1: : unknown key"),
        ("Action = save", "f, line 1: Action: unknown key"),
        ("a\x1b[2J = save", "f, line 1: a\\u{1b}[2J: unknown key"),
        ("action = save\naction = save", "f, line 2: action: found twice"),
        ("action = save", "f: source: missing; action=save needs it"),
        ("source = auto", "f: action: missing"),
        ("wait = 5 # seconds", "f, line 1: wait: has a # behind the value"),
        ("wait = #5", "f, line 1: wait: has a # behind the value"),
        ("options = \"-q", "f, line 1: options: has a quote"),
        ("\nwait = 1 h", "f, line 2: wait: found \"1 h\", wanted seconds"),
        ("then = \n", "f, line 1: then: found \"\", wanted poweroff"),
        ("stick = 1", "f, line 1: stick: is only for the boot menu"),
        ("action = shell\nconfirm = x", "f, line 2: confirm: makes no sense with action=shell"),
    ] {
        let found = error_in_file(text);
        assert!(found.starts_with(wanted), "{found}");
    }
    assert_eq!(
        error_in_file(&format!("options = {}", "x".repeat(4097))),
        "f, line 1: options: has 4097 bytes, wanted at most 4096"
    );
}

#[test]
fn what_is_no_text_is_no_configuration() {
    let error = |bytes: &[u8]| Config::parse("", &[ConfFile { name: "f", bytes }]).unwrap_err().to_string();
    assert_eq!(error(b"\xff\xfea\0"), "f: found a text in UTF-16, wanted UTF-8: choose it when you save");
    assert_eq!(
        error(b"wait = 1\n# \xe4"),
        "f: line 2: found bytes that are no UTF-8, wanted a text in UTF-8"
    );
    assert_eq!(
        error(&[b'#'; (64 << 10) + 1]),
        "f: has more than 65536 bytes, wanted a text of at most so many"
    );
    assert!(Config::parse("", &[ConfFile { name: "f", bytes: &[b'#'; 64 << 10] }]).is_ok());
}

#[test]
fn only_one_file_can_be_believed() {
    let job = "action = verify\nsource = LABEL=R:/x";
    let config = parse("", &[("a", "# nothing\n"), ("b", job), ("c", "")]).unwrap();
    assert!(matches!(config.request, Request::Job { task: Task::Verify { .. }, .. }));
    assert_eq!(
        parse("", &[("a", "wait = 1"), ("b", job)]).unwrap_err(),
        "found a configuration in a and in b, wanted only one"
    );
}

#[test]
fn the_command_line_wins() {
    let file = "action = save\nsource = LABEL=A\ntarget = LABEL=R:/a\nthen = reboot\nwait = 7";
    let merged = |line: &str| parse(line, &[("f", file)]).unwrap();
    assert_eq!(
        merged("ntfsrescue.source=LABEL=B ntfsrescue.wait=8").to_string(),
        "save: LABEL=B, to LABEL=R:/a; then reboot, after a failure halt"
    );
    assert_eq!(merged("ntfsrescue.wait=8").wait, Duration::from_secs(8));
    let whole = merged("ntfsrescue.action=verify ntfsrescue.source=LABEL=R:/b");
    assert_eq!(whole.to_string(), "verify: LABEL=R:/b; then reboot, after a failure halt");
    assert_eq!(whole.wait, Duration::from_secs(7));
    assert_eq!(merged("ntfsrescue.action=shell").request, Request::Shell);
    let alone = parse("ntfsrescue.action=save ntfsrescue.source=auto", &[("f", file)]).unwrap_err();
    assert_eq!(alone, "kernel command line: ntfsrescue.target: missing; action=save needs it");
    // What the file says of its own job is not looked at then.
    let wrong = "action = eat\nsource = nothing\nwait = 7";
    assert!(parse("ntfsrescue.action=shell", &[("f", wrong)]).is_ok());
    assert!(parse("ntfsrescue.wait=5", &[("f", wrong)]).unwrap_err().contains("f, line 1: action"));
}

#[test]
fn endings_survive_other_errors() {
    let line = "ntfsrescue.nonsense ntfsrescue.then-failed=poweroff ntfsrescue.then=x";
    let wanted = |then| Endings { then, then_failed: Ending::PowerOff };
    assert_eq!(Endings::of(line, &[]), wanted(Ending::PowerOff));
    let file = ConfFile { name: "f", bytes: b"nonsense\nthen = reboot\nthen-failed = shell\n" };
    assert_eq!(Endings::of(line, &[file]), wanted(Ending::Reboot));
}

#[test]
fn the_stick_and_a_shell_are_known_before_the_rest() {
    let line = "x ntfsrescue.nonsense ntfsrescue.stick=ab-1 ntfsrescue.action=shell";
    assert_eq!((stick_of(line), wants_shell(line)), (Some("ab-1"), true));
    assert_eq!((stick_of("stick=1"), wants_shell("ntfsrescue.action=save")), (None, false));
    assert_eq!(parse("ntfsrescue.stick=ab-1", &[]).unwrap().stick.as_deref(), Some("ab-1"));
}

#[test]
fn a_job_is_told_in_words() {
    for (text, words) in [
        (
            "action = save\nsource = all\ntarget = LABEL=RESCUE:/{serial}-{part}.img",
            "save: every NTFS volume, to LABEL=RESCUE:/{serial}-{part}.img; then power off, after a failure halt",
        ),
        (
            "action = save\nsource = auto\ntarget = LABEL=R:/x\noptions = --first \"*\\x\"\nthen-failed = shell",
            "save: the only NTFS volume larger than 1 GiB, to LABEL=R:/x; with --first \"*\\x\"; then power off, \
             after a failure a shell",
        ),
        (
            "action = restore\nsource = LABEL=R:/x\ntarget = SERIAL=N\nconfirm = whole:N",
            "restore: LABEL=R:/x, to the whole disk SERIAL=N, which is overwritten if it is whole:N; then power off, \
             after a failure halt",
        ),
        (
            "action = clone\nsource = SERIAL=A@1024+512\ntarget = SERIAL=N:1\nconfirm = MODEL=X*,SIZE=1K-2K",
            "clone: SERIAL=A@1024+512, to SERIAL=N:1, which is overwritten if it is MODEL=X*,SIZE=1024-2048; then \
             power off, after a failure halt",
        ),
        ("action = shell", "a shell: no disk is touched"),
        ("", "no job: no disk is touched"),
    ] {
        assert_eq!(in_words(text), words);
    }
}
