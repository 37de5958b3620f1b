use super::*;

fn block(pos: u64, len: u64, symbol: char) -> Area {
    let state = State::of_symbol(symbol as u8).unwrap();
    Area { range: ByteRange { pos, len }, state }
}

fn head() -> Head {
    let disk = DiskId { serial: "WD-WX1 \t100%\u{fc}\n".into(), size: 500_107_862_016 };
    let target = Some(DiskId { serial: String::new(), size: 1 << 40 });
    let identity = Some(Identity { disk, volume_serial: 0x12_3456_789a_bcde, target });
    Head { pos: 0x4000, phase: Phase::Scraping, pass: 1, identity }
}

fn written(generation: u64, head: &Head, blocks: &[Area]) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, generation, head, blocks.iter().copied()).unwrap();
    out
}

fn read(map: impl AsRef<[u8]>) -> Result<(Parsed, Vec<Area>), MapfileError> {
    let mut blocks = Vec::new();
    let parsed = parse(map.as_ref(), |block| blocks.push(block))?;
    Ok((parsed, blocks))
}

/// The error's line, and what was found and wanted there, of a map that is not ours.
#[track_caller]
fn refused(map: impl AsRef<[u8]>) -> String {
    match read(map) {
        Err(MapfileError::Syntax(fault)) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_map_is_laid_out_as_ddrescue_does() {
    let blocks = [
        block(0, 0x1000, '+'),
        block(0x1000, 0x1000, '+'),
        block(0x2000, 0x200, '-'),
        block(0x2200, 0xF_0000_0000, '/'),
    ];
    let map = String::from_utf8(written(7, &head(), &blocks)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let (body, crc) = map.split_at(map.find("# ntfsrescue crc").unwrap());
    assert_eq!(
        body,
        format!(
            "\
# Mapfile. Created by ntfsrescue version {version}
# ntfsrescue generation 7
# ntfsrescue disk 500107862016 WD-WX1%20%09100%25%C3%BC%0A
# ntfsrescue volume 0x00123456789ABCDE
# ntfsrescue target 1099511627776 \n\
# Scraping failed blocks...
# current_pos  current_status  current_pass
0x00004000     /               1
#      pos        size  status
0x00000000  0x00002000  +
0x00002000  0x00000200  -
0x00002200  0xF00000000  /
"
        )
    );
    assert_eq!(crc, format!("# ntfsrescue crc 0x{:08X}\n", crc32fast::hash(body.as_bytes())));
}

#[test]
fn what_was_written_comes_back() {
    let states = ['?', '*', '/', '-', '+'];
    let blocks: Vec<_> = (0..1000).map(|i| block(i * 512, 512, states[i as usize % 5])).collect();
    let phases = [
        (Phase::Copying, 5),
        (Phase::Trimming, 1),
        (Phase::Scraping, 1),
        (Phase::Retrying, 3),
        (Phase::Filling, 1),
        (Phase::Generating, 1),
        (Phase::Finished, 1),
    ];
    for (generation, (phase, pass)) in phases.into_iter().enumerate() {
        let identity = head().identity.filter(|_| generation % 2 == 0);
        let head = Head { pos: i64::MAX as u64, phase, pass, identity };
        let generation = generation as u64;
        let wanted = Parsed { head: head.clone(), generation: Some(generation) };
        assert_eq!(read(written(generation, &head, &blocks)).unwrap(), (wanted, blocks.clone()));
    }
    assert_eq!(read(written(1, &head(), &[])).unwrap().1, []);
}

#[test]
fn blocks_that_leave_something_out_are_not_written() {
    let fails = |blocks: &[Area]| {
        let error = write(&mut Vec::new(), 1, &head(), blocks.iter().copied()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    };
    fails(&[block(512, 512, '+')]);
    fails(&[block(0, 512, '+'), block(1024, 512, '+')]);
    fails(&[block(0, 512, '+'), block(0, 512, '-')]);
    fails(&[block(0, 512, '+'), block(512, u64::MAX, '-')]);
    fails(&[block(0, 1 << 63, '+')]);
}

#[test]
fn a_map_of_ours_is_torn_wherever_it_is_cut_or_changed() {
    let map = written(3, &head(), &[block(0, 0x800, '+'), block(0x800, 0x200, '-')]);
    let known_from = String::from_utf8_lossy(&map).find("generation 3").unwrap() + "generation 3".len();
    for cut in 0..map.len() {
        match read(&map[..cut]) {
            Err(MapfileError::Torn(_)) if cut >= known_from => {}
            Err(MapfileError::Syntax(_)) if cut < known_from => {}
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
    for at in 0..map.len() {
        for bit in 0..8 {
            let mut changed = map.clone();
            changed[at] ^= 1 << bit;
            // Never taken, not even for one of ddrescue's where the line that makes it ours is gone.
            assert!(read(&changed).is_err(), "bit {bit} of byte {at}");
        }
    }
    let longer = [&map[..], b"\n"].concat();
    assert!(matches!(read(longer), Err(MapfileError::Torn(fault)) if fault.line == 13));
}

#[test]
fn comments_and_blanks_may_stand_anywhere_and_the_pass_be_absent() {
    let map = "\
\t # first\n\n0x10\t? # no pass\r\n# between\n\n \
0 0x200 + and what ddrescue ignores\n\
512 01000 *# joined\n  # inside\n0x400 0X0 ?\n\
1024\t512\t-\n#last without an end";
    let (parsed, blocks) = read(map).unwrap();
    let head = Head { pos: 16, phase: Phase::Copying, pass: 1, identity: None };
    assert_eq!(parsed, Parsed { head, generation: None });
    assert_eq!(blocks, [block(0, 512, '+'), block(512, 512, '*'), block(1024, 512, '-')]);
    assert_eq!(read("0 - 010\n4096 1 +").unwrap().0.head.pass, 10);
    assert_eq!(read("0 - text\n").unwrap().0.head.pass, 1);
}

#[test]
fn a_fault_is_told_with_its_line() {
    assert_eq!(refused(""), "line 1: found the end, wanted a line with position and status");
    assert_eq!(refused("# x\n"), "line 2: found the end, wanted a line with position and status");
    assert_eq!(refused("text"), "line 1: found \"text\", wanted a position below 2^63");
    assert_eq!(refused("\n-1 ?"), "line 2: found \"-1\", wanted a position below 2^63");
    assert_eq!(refused("+1 ?"), "line 1: found \"+1\", wanted a position below 2^63");
    assert_eq!(refused("0"), "line 1: found nothing, wanted one of ?*/-FG+, the current status");
    assert_eq!(refused("0 # ?"), "line 1: found nothing, wanted one of ?*/-FG+, the current status");
    assert_eq!(refused("0 f"), "line 1: found \"f\", wanted one of ?*/-FG+, the current status");
    assert_eq!(refused("0 ? 0x2"), "line 1: found \"0x2\", wanted a pass from 1 to 2147483647");
    assert_eq!(refused("0 ? 3000000000"), "line 1: found \"3000000000\", wanted a pass from 1 to 2147483647");
    let block = |text: &str| refused(format!("0 ? 1\n{text}\n"));
    assert_eq!(block("0"), "line 2: found nothing, wanted a size below 2^63");
    assert_eq!(block("08 1 +"), "line 2: found \"08\", wanted a position below 2^63");
    assert_eq!(block("0 0x +"), "line 2: found \"0x\", wanted a size below 2^63");
    assert_eq!(
        block("0 9223372036854775808 +"),
        "line 2: found \"9223372036854775808\", wanted a size below 2^63"
    );
    assert_eq!(
        block("1 0x7fffffffffffffff +"),
        "line 2: found \"0x7fffffffffffffff\", wanted a block that ends below 2^63"
    );
    assert_eq!(block("0 1 F"), "line 2: found \"F\", wanted one of ?*/-+, the block's status");
    assert_eq!(block("0 1\0 +"), "line 2: found \"1\\x00\", wanted a size below 2^63");
    let gap = "wanted a block that begins where the last one ends, 0x00000200";
    assert_eq!(block("0 0x200 +\n0x300 1 +"), format!("line 3: found \"0x300\", {gap}"));
    assert_eq!(block("0 0x200 +\n0x100 1 +"), format!("line 3: found \"0x100\", {gap}"));
}

#[test]
fn a_line_without_end_is_not_read() {
    let endless = io::BufReader::new(io::repeat(b'#'));
    let error = parse(endless, |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "line 1: found a longer line, wanted at most 65536 bytes");
}

#[test]
fn a_domain_is_filled_up_to_the_source() {
    let domain = |ranges: &[(u64, u64)], len| {
        let ranges = ranges.iter().map(|&(pos, len)| ByteRange { pos, len });
        let mut out = Vec::new();
        write_domain(&mut out, ranges, len).map(|()| read(out).unwrap())
    };
    let (parsed, blocks) = domain(&[(0x1000, 0x1000), (0x2000, 0x800), (0x4000, 0x200)], 0x10000).unwrap();
    assert_eq!(parsed.generation, None);
    let wanted = [(0, 0x1000, '?'), (0x1000, 0x1800, '+'), (0x2800, 0x1800, '?')];
    let rest = [(0x4000, 0x200, '+'), (0x4200, 0xBE00, '?')];
    assert_eq!(blocks, wanted.into_iter().chain(rest).map(|(p, l, s)| block(p, l, s)).collect::<Vec<_>>());
    assert_eq!(domain(&[(0, 512)], 512).unwrap().1, [block(0, 512, '+')]);
    assert_eq!(domain(&[], 512).unwrap().1, [block(0, 512, '?')]);
    assert!(domain(&[(0, 513)], 512).is_err());
    assert!(domain(&[(0, 100), (99, 1)], 512).is_err());
    assert!(domain(&[(1, u64::MAX)], 512).is_err());
}
