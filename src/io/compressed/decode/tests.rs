use std::io::Write;

use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};
use zstd_safe::{CCtx, CParameter};

use super::*;

/// Content that compresses, but not to nothing.
fn content(len: usize) -> Vec<u8> {
    let mut random = 7u64;
    let mut content = Vec::with_capacity(len + 8);
    while content.len() < len {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.extend_from_slice(&(random >> 58).to_le_bytes());
    }
    content.truncate(len);
    content
}

fn zstd(content: &[u8], parameters: &[CParameter]) -> Vec<u8> {
    let mut context = CCtx::create();
    let all = [CParameter::ChecksumFlag(true)].iter().chain(parameters).copied().collect::<Vec<_>>();
    for parameter in all {
        context.set_parameter(parameter).unwrap();
    }
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
    context.compress2(&mut frame, content).unwrap();
    frame
}

fn lz4(content: &[u8]) -> Vec<u8> {
    let info = FrameInfo::new().content_checksum(true).block_mode(BlockMode::Linked);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut input = ImageInput::open(io::Cursor::new(bytes.to_vec()))?;
    input.read_to_end(&mut decoded).map(|_| decoded)
}

type Encode = fn(&[u8]) -> Vec<u8>;
const ENCODERS: [(&str, Encode); 4] =
    [("zstd", |content| zstd(content, &[])), ("lz4", lz4), ("gzip", gzip), ("bzip2", bzip2)];

#[test]
fn streams_behind_each_other_are_one() {
    let content = content(700_000);
    let (front, back) = content.split_at(300_001);
    for (name, encode) in ENCODERS {
        let streams = [encode(front), encode(&[]), encode(back)].concat();
        assert!(decode(&streams).unwrap() == content, "{name}");
        let padded = [&streams[..], &[0; 5000]].concat();
        assert!(decode(&padded).unwrap() == content, "{name}");
    }
    let skipped =
        |len: u32| [&(SKIPPED).to_le_bytes()[..], &len.to_le_bytes(), &vec![7; len as usize]].concat();
    for (name, encode) in &ENCODERS[..2] {
        let streams =
            [skipped(4), encode(front), skipped(0), skipped(300_000), encode(back), skipped(9)].concat();
        assert!(decode(&streams).unwrap() == content, "{name}");
    }
    assert_eq!(decode(&skipped(3)).unwrap(), b"");
}

const SKIPPED: u32 = super::super::SKIPPABLE + 0xe;

#[test]
fn what_is_not_compressed_stays_as_it_is() {
    for plain in [&b"\0ntfsclone-image"[..], b"", b"BZh0", b"\x1f\x8b", b"\xfd7zXZ"] {
        let mut input = ImageInput::open(plain).unwrap();
        assert!(!input.is_compressed());
        let mut all = Vec::new();
        input.read_to_end(&mut all).unwrap();
        assert_eq!(all, plain);
    }
}

#[test]
fn an_end_that_comes_too_early_is_told_with_its_place() {
    for (name, encode) in ENCODERS {
        let first = encode(&content(1000));
        let streams = [&first[..], &encode(&content(70_000))].concat();
        for len in (7..streams.len()).filter(|len| *len != first.len()) {
            let error = decode(&streams[..len]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{name}, {len} bytes: {error}");
            let wanted = format!("its {name} stream is cut off at byte {len:#x}");
            let begins = format!(", in the part that begins at byte {:#x}", first.len());
            // What is left of a magic begins nothing yet.
            let may_begin: &[bool] = match len.checked_sub(first.len()) {
                None => &[false],
                Some(1..4) => &[false, true],
                Some(_) => &[true],
            };
            let said = error.to_string();
            let fits = |begun: &bool| said == format!("{wanted}{}", if *begun { &*begins } else { "" });
            assert!(may_begin.iter().any(fits), "{said}");
        }
    }
}

#[test]
fn damage_is_told_and_never_handed_out_as_whole() {
    let content = content(20_000);
    for (name, encode) in ENCODERS {
        let stream = encode(&content);
        for at in 4..stream.len() {
            let mut damaged = stream.clone();
            damaged[at] ^= 0x10;
            match decode(&damaged) {
                Err(error) => assert!(error.to_string().contains(name), "{name}, byte {at}: {error}"),
                Ok(decoded) => assert!(decoded == content, "{name}, byte {at}"),
            }
        }
    }
}

#[test]
fn something_else_behind_a_stream_is_refused() {
    let error = decode(&[&gzip(b"abc")[..], b"something else"].concat()).unwrap_err().to_string();
    let end = gzip(b"abc").len();
    assert_eq!(
        error,
        format!("its gzip stream ends before byte {end:#x}, and what follows is no part of it")
    );
    assert!(decode(&[gzip(b"abc"), lz4(b"def")].concat()).is_err());
}

#[test]
fn windows_have_a_limit() {
    // Content that is not told of beforehand, as `zstd --long=N` gets through a pipe.
    let stream = |window| {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::WindowLog(window)).unwrap();
        let mut frame = vec![0; 1000];
        let mut output = OutBuffer::around(&mut frame[..]);
        context.compress_stream(&mut output, &mut InBuffer::around(b"abc")).unwrap();
        assert_eq!(context.end_stream(&mut output).unwrap(), 0);
        let len = output.pos();
        frame[..len].to_vec()
    };
    assert_eq!(decode(&stream(27)).unwrap(), b"abc");
    let error = decode(&stream(28)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "its zstd stream needs a window of more than 128 MiB at byte 0x0: \
         decompress it with 'zstd -dc --long=31 IMAGE | ntfsrescue --restore-image -'"
    );
}

/// `for i in $(seq 40); do echo "line $i of the content"; done | head -c 300 | xz -9 --check=crc32`: no encoder of xz is at
/// hand.
const XZ: &[u8] = b"\
    \xfd\x37\x7a\x58\x5a\x00\x00\x01\x69\x22\xde\x36\x02\x00\x21\x01\x1c\x00\x00\x00\x10\xcf\x58\xcc\
    \xe0\x01\x2b\x00\x3e\x5d\x00\x36\x1a\x4a\x1f\x08\xa0\x2b\xb1\x6d\x06\x9d\xf8\xb2\xa5\xac\xa7\x49\
    \x9a\x53\x24\xb2\x5a\xd2\x22\x33\x15\x9a\xa6\x4c\x64\x4e\x4e\x61\x9d\xea\xc0\x61\xd7\x04\x49\x68\
    \x43\x84\x36\x6b\xde\xe7\x05\x40\x5f\x21\x69\xb2\x76\x80\x2e\xba\x28\x19\xb2\x5c\x00\x00\x00\x00\
    \xf3\x2e\x32\xd5\x00\x01\x56\xac\x02\x00\x00\x00\x2b\x85\x5c\x06\x3e\x30\x0d\x8b\x02\x00\x00\x00\
    \x00\x01\x59\x5a";

#[test]
fn damage_to_xz_is_told_too() {
    let content: String = (1..40).map(|i| format!("line {i} of the content\n")).collect();
    let content = &content.as_bytes()[..300];
    assert_eq!(decode(XZ).unwrap(), content);
    assert_eq!(decode(&[XZ, &[0; 8], XZ].concat()).unwrap(), [content, content].concat());
    for (at, bit) in (6..XZ.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut damaged = XZ.to_vec();
        damaged[at] ^= 1 << bit;
        let error = decode(&damaged).unwrap_err().to_string();
        assert!(error.contains("its xz stream is "), "byte {at}, bit {bit}: {error}");
    }
    for len in 6..XZ.len() {
        let error = decode(&XZ[..len]).unwrap_err();
        assert_eq!(error.to_string(), format!("its xz stream is cut off at byte {len:#x}"));
    }
}
