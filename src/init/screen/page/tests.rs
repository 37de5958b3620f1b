use super::*;

/// A page in the middle of a save.
fn saving() -> Page {
    let seconds = Duration::from_secs;
    let source = Side {
        place: "/dev/sda2".into(),
        label: "Windows".into(),
        model: "WDC WD5000AAKX-00ERMA0".into(),
        serial: "WD-WCC2E0123456".into(),
        size: 499_000_000_000,
    };
    let target = Side {
        place: "/windows.img on /dev/sdb3".into(),
        label: "RESCUE".into(),
        model: "Ultra Fit".into(),
        serial: "4C530001".into(),
        size: 0,
    };
    let rescued = Rescued { bad_areas: 3, bad_bytes: 12_288, last_good: seconds(999) };
    let progress = Progress {
        done: 123_400_000_000,
        total: 290_000_000_000,
        is_bytes: true,
        rate: Some(85_300_000.0),
        rescue: Some(rescued),
    };
    Page {
        work: Work::Saving,
        volume: Some((2, 3)),
        source: Some(source),
        target: Some(target),
        step: "Rescuing: copying".into(),
        begun: Some(seconds(20)),
        progress: Some(progress),
        messages: (1..=60).map(|i| format!("[{i:9}.00] message {i}")).collect(),
        now: seconds(1000),
        ..Page::default()
    }
}

/// The page without its colours, and without the blanks that end its lines, all of which are of the same length.
fn text(page: &Page, columns: usize, rows: usize) -> String {
    let drawn = draw(page, columns, rows);
    let lines: Vec<String> = drawn.split('\n').map(without_colours).collect();
    assert_eq!(lines.len(), rows);
    for line in &lines {
        assert_eq!(line.chars().count(), columns, "{line}");
    }
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn without_colours(line: &str) -> String {
    let mut text = String::new();
    for (i, piece) in line.split('\x1b').enumerate() {
        let shown = if i == 0 { piece } else { piece.split_once('m').unwrap().1 };
        assert!(!shown.chars().any(char::is_control), "{line:?}");
        text += shown;
    }
    text
}

fn statement(word: Word, sentence: &str, steps: &[&str]) -> Statement {
    let steps = steps.iter().map(|step| (*step).to_owned()).collect();
    Statement { word, sentence: sentence.to_owned(), steps }
}

#[test]
fn a_save_on_a_small_screen() {
    let page = text(&saving(), 80, 25);
    let (header, page) = page.split_once('\n').unwrap();
    assert!(header.starts_with(concat!(" ntfsrescue ", env!("CARGO_PKG_VERSION"), "  ")), "{header}");
    assert!(header.ends_with("   volume 2 of 3  running for 0:16:40"), "{header}");
    let wanted = "
  ████  ███  █   █ ███ █   █  ███        █   ███  ██
 █     █   █ █   █  █  ██  █ █   █      ██  █   █ ██  █
 █     █   █ █   █  █  █ █ █ █         █ █      █    █
  ███  █████ █   █  █  █  ██ █ ███    █  █     █    █
     █ █   █ █   █  █  █   █ █   █    █████   █    █
     █ █   █  █ █   █  █   █ █   █       █   █    █  ██
 ████  █   █   █   ███ █   █  ███        █  █████    ██

 from  /dev/sda2  \"Windows\"  499.0 GB  serial WD-WCC2E0123456  WDC WD5000AAKX...
   to  /windows.img on /dev/sdb3  \"RESCUE\"  serial 4C530001  Ultra Fit

██████████████████████████████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░
██████████████████████████████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░
 123.4 GB of 290.0 GB   85.3 MB/s   32 min left   0:16:20 so far
 bad areas: 3   not readable so far: 12.3 kB   last good read: 1 s ago
 Rescuing: copying

 [       55.00] message 55
 [       56.00] message 56
 [       57.00] message 57
 [       58.00] message 58
 [       59.00] message 59
 [       60.00] message 60
";
    assert_eq!(page, wanted);
}

#[test]
fn a_large_screen_has_larger_letters_and_more_messages() {
    let page = text(&saving(), 160, 50);
    let lines: Vec<_> = page.lines().collect();
    assert_eq!(
        lines[2].trim_end(),
        "   ████████    ██████    ██      ██  ██████  ██      ██    ██████                ██      ██████    ████"
    );
    assert_eq!(
        lines[10],
        " from  /dev/sda2  \"Windows\"  499.0 GB  serial WD-WCC2E0123456  WDC WD5000AAKX-00ERMA0"
    );
    assert_eq!(lines[13], "█".repeat(68) + &"░".repeat(92));
    assert_eq!(lines[19], " [       30.00] message 30");
    assert_eq!(lines[49], " [       60.00] message 60");
}

#[test]
fn the_end_is_one_large_statement() {
    let mut page = saving();
    page.volume = None;
    page.messages.truncate(4);
    let sentence =
        "save of /dev/sda2 to /dev/sdb3:/windows.img: done, but sectors were lost; they are marked";
    let steps = ["windows.img.json names the damaged files.", "Switch off, and take the stick out."];
    page.ending = Some(statement(Word::Damaged, sentence, &steps));
    let wanted = "
                   ████   ███  █   █  ███   ███  █████ ████
                   █   █ █   █ ██ ██ █   █ █   █ █     █   █
                   █   █ █   █ █ █ █ █   █ █     █     █   █
                   █   █ █████ █ █ █ █████ █ ███ ████  █   █
                   █   █ █   █ █   █ █   █ █   █ █     █   █
                   █   █ █   █ █   █ █   █ █   █ █     █   █
                   ████  █   █ █   █ █   █  ███  █████ ████


 save of /dev/sda2 to /dev/sdb3:/windows.img: done, but sectors were lost; they
 are marked

 windows.img.json names the damaged files.

 Switch off, and take the stick out.

 from  /dev/sda2  \"Windows\"  499.0 GB  serial WD-WCC2E0123456  WDC WD5000AAKX...
   to  /windows.img on /dev/sdb3  \"RESCUE\"  serial 4C530001  Ultra Fit

 [        1.00] message 1
 [        2.00] message 2
 [        3.00] message 3
 [        4.00] message 4
";
    assert_eq!(text(&page, 80, 25).split_once('\n').unwrap().1, wanted);
    // The colour fills whole lines, and tells damaged, failed and saved apart.
    for (word, colour) in
        [(Word::Damaged, "\x1b[30;43m"), (Word::Failed, "\x1b[1;37;41m"), (Word::Saved, "\x1b[1;37;42m")]
    {
        page.ending = Some(statement(word, "x", &[]));
        let drawn = draw(&page, 80, 25);
        assert!(drawn.contains(&format!("\n{colour}{:80}\x1b[0m\n", "")), "{word:?}");
        assert_eq!(drawn.matches(colour).count(), 9, "{word:?}");
    }
}

#[test]
fn every_page_fits_every_screen() {
    let long = "x".repeat(500);
    let mut page = saving();
    page.step = long.clone();
    page.messages.push_back(long.clone());
    let mut waiting = page.clone();
    waiting.waiting = Some(Duration::from_secs(900));
    let mut ended = page.clone();
    ended.ending = Some(statement(Word::NothingToDo, &format!("{long} a {long}"), &[long.as_str(); 9]));
    for page in [Page::default(), page, waiting, ended] {
        for (columns, rows) in [(80, 25), (160, 50), (240, 67), (100, 37), (40, 12), (1, 1)] {
            text(&page, columns, rows);
        }
    }
    assert!(text(&Page::default(), 80, 25).contains("███"));
}

#[test]
fn a_disk_that_does_not_answer_is_told() {
    let mut page = saving();
    page.waiting = Some(Duration::from_secs(900));
    let wanted = " The disk has not answered for 100 s: waiting for it";
    assert!(text(&page, 80, 25).lines().any(|line| line == wanted));
}

#[test]
fn names_from_strangers_disks_do_no_harm() {
    let mut page = saving();
    let name = "a\x1b[2J\u{9b}\u{202e}日ü\u{301}\u{ad}é";
    page.source = Some(Side { label: name.into(), ..Side::default() });
    page.messages = [name.to_owned()].into();
    let page = text(&page, 80, 25);
    let shown = "a\\u{1b}[2J\\u{9b}\\u{202e}?ü??é";
    assert!(page.contains(&format!("\"{shown}\"")) && page.contains(&format!("\n {shown}\n")), "{page}");
}

#[test]
fn text_is_wrapped_at_blanks_where_there_are_any() {
    assert_eq!(wrapped("a bc  def gh", 6), ["a bc", "def gh"]);
    assert_eq!(wrapped("ab cdefghijk lm", 4), ["ab", "cdef", "ghij", "k lm"]);
    assert_eq!(wrapped("", 4), [""]);
    assert_eq!(wrapped("ab", 0), ["a", "b", ""]);
}

#[test]
fn work_begins_anew_with_each_volume() {
    let mut page = saving();
    page.begin(Work::Verifying, None, None, Duration::from_secs(2000));
    assert_eq!((page.work, page.begun), (Work::Verifying, Some(Duration::from_secs(2000))));
    assert_eq!((page.source, page.progress, page.volume), (None, None, Some((2, 3))));
    assert_eq!(page.messages.len(), 60);
    let mut page = Page::default();
    (0..1000).for_each(|i| page.message(&i.to_string()));
    assert_eq!((page.messages.len(), page.messages.back().unwrap().as_str()), (200, "999"));
}
