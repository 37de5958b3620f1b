use super::*;
use crate::image::sums::Sums;

fn trailer() -> Trailer {
    let mut sums = Sums::default();
    sums.update(&[7; 56]);
    sums.end_header();
    sums.update(&vec![9; 3 << 20]);
    sums.add_command(&[1]);
    let mut marks = Marks::with_room();
    marks.add(ByteRange { pos: 4096, len: 512 });
    marks.add(ByteRange { pos: 4608, len: 512 });
    marks.add(ByteRange { pos: 1 << 40, len: 4096 });
    let origin = Origin {
        volume_serial: 0x1122_3344_5566_7788,
        volume_pos: 1 << 20,
        disk_size: 500_107_862_016,
        disk_serial: "WD-1234".into(),
        disk_model: "WDC WD5000".into(),
    };
    Trailer { sums: sums.table(), origin: Some(origin), marks }
}

/// What is kept of marks.
fn kept(marks: &Marks) -> (Vec<(u64, u64)>, u64, u64) {
    (marks.listed.iter().map(|area| (area.pos, area.len)).collect(), marks.nr_areas, marks.bytes)
}

#[test]
fn what_is_written_is_read() {
    let wanted = trailer();
    let bytes = wanted.encode();
    assert_eq!(bytes.len() as u64 + (8 << 10) - 16 - 2 * 16, room_for(wanted.sums.image_len));
    for bytes in [&bytes[..], &[&bytes[..], b"more"].concat()] {
        let found = Trailer::decode(bytes).unwrap();
        assert_eq!((&found.sums, &found.origin), (&wanted.sums, &wanted.origin));
        assert_eq!(kept(&found.marks), (vec![(4096, 1024), (1 << 40, 4096)], 2, 5120));
    }
    let behind = [b"image", &bytes[..]].concat();
    let file_len = wanted.sums.image_len + bytes.len() as u64;
    assert_eq!(Trailer::at_end(&behind, file_len).unwrap().sums, wanted.sums);
    assert_eq!(Trailer::at_end(&[&behind[..], b"x"].concat(), file_len), None);
    assert_eq!(Trailer::at_end(&bytes[1..], file_len), None);
    // Of an image from which something is missing, and of one in a file of the volume of this one.
    assert!(Trailer::at_end(&behind, file_len - 9).is_some());
    assert_eq!(Trailer::at_end(&behind, file_len + 1), None);
    assert_eq!(Trailer::at_end(&behind, 9), None);
    // Without what need not be there.
    let bare = Trailer { sums: wanted.sums, origin: None, marks: Marks::default() };
    assert_eq!(Trailer::decode(&bare.encode()).unwrap(), bare);
}

#[test]
fn it_is_laid_out_as_documented() {
    let bytes = trailer().encode();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(&bytes[..16], b"ntfsrescue-trail");
    assert_eq!([number(16), number(20), number(24)], [1, bytes.len() as u32, 3]);
    // The section of checksums, then that of the origin.
    assert_eq!([number(28), number(32)], [1, 24 + 4 * 4]);
    assert_eq!(number(36), crc32fast::hash(&bytes[40..80]));
    assert_eq!([number(40), number(44), number(48)], [(3 << 20) + 56, 0, 56]);
    assert_eq!([number(52), number(56), number(60)], [crc32fast::hash(&[7; 56]), crc32fast::hash(&[1]), 20]);
    assert_eq!([number(80), number(84)], [2, 216]);
    assert_eq!(&bytes[92..100], &0x1122_3344_5566_7788u64.to_le_bytes());
    assert_eq!((&bytes[116..124], &bytes[244..255]), (&b"WD-1234\0"[..], &b"WDC WD5000\0"[..]));
    assert_eq!([number(308), number(312)], [3, 16 + 2 * 16]);
    let foot = bytes.len() - 16;
    assert_eq!([number(foot), number(foot + 4)], [crc32fast::hash(&bytes[..foot]), bytes.len() as u32]);
    assert_eq!(&bytes[foot + 8..], b"nr-trail");
}

#[test]
fn it_is_short_for_any_image() {
    let mut marks = Marks::with_room();
    (0..100_000).for_each(|number| marks.add(ByteRange { pos: number * 1024, len: 512 }));
    assert_eq!((marks.listed.len(), marks.nr_areas, marks.bytes), (MAX_LISTED, 100_000, 51_200_000));
    // What is not listed does not grow what is.
    marks.add(ByteRange { pos: 99_999 * 1024 + 512, len: 512 });
    assert_eq!((marks.nr_areas, marks.bytes), (100_000, 51_200_512));
    assert!(marks.listed.iter().all(|area| area.len == 512));
    for image_len in [0, 1, 1 << 32, (1 << 32) + 1, i64::MAX as u64] {
        let shift = shift_of(image_len);
        let stretches = vec![5; nr_stretches(image_len, shift) as usize];
        let sums = SumTable { image_len, header_len: 0, header: 0, structure: 0, shift, stretches };
        let trailer = Trailer { sums, origin: trailer().origin, marks: marks.clone() };
        let bytes = trailer.encode();
        assert!(bytes.len() <= MAX_LEN && bytes.len() as u64 == room_for(image_len));
        assert_eq!(kept(&Trailer::decode(&bytes).unwrap().marks), kept(&marks));
    }
}

#[test]
fn names_are_cut_between_characters() {
    let mut long = trailer();
    let name = |nr: usize| "ü".repeat(nr);
    long.origin =
        Some(Origin { disk_serial: format!("x{}", name(64)), disk_model: name(32), ..Origin::default() });
    let origin = Trailer::decode(&long.encode()).unwrap().origin.unwrap();
    assert_eq!((origin.disk_serial, origin.disk_model), (format!("x{}", name(63)), name(32)));
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let good = trailer().encode();
    for at in 0..good.len() {
        assert!(Trailer::decode(&good[..at]).is_err(), "cut off after {at} bytes");
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let error = Trailer::decode(&bytes).expect_err("a flipped bit");
            // Where its magic is gone its end still tells of it.
            assert_eq!((error == TrailerError::Magic, is_begun(&bytes)), (at < 16, at >= 16));
            assert!(is_begun(&bytes) || has_foot(&bytes), "byte {at}");
        }
    }
    assert!((1..16).all(|len| is_stump(&good[..len])) && !is_stump(b"") && !is_stump(&good[..16]));
    assert!(!is_stump(b"x") && !has_foot(&good[..good.len() - 1]));
    // The end of a longer one, without its beginning.
    assert!(has_foot(&good[100..]) && !has_foot(&[&[0; 1000][..], &good].concat()));
}

/// A trailer with these sections, its CRCs right: kind, length that is claimed, bytes that are there.
fn crafted(nr_sections: u32, sections: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let head =
        Head { magic: MAGIC, version: VERSION.into(), len: U32::ZERO, nr_sections: nr_sections.into() };
    let mut bytes = head.as_bytes().to_vec();
    for (kind, len, section) in sections {
        let crc = crc32fast::hash(section).into();
        bytes.extend_from_slice(SectionHead { kind: (*kind).into(), len: (*len).into(), crc }.as_bytes());
        bytes.extend_from_slice(section);
    }
    sealed(bytes)
}

/// Gives a trailer its length and its foot.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = (bytes.len() + FOOT_LEN) as u32;
    bytes[20..24].copy_from_slice(&len.to_le_bytes());
    let foot = Foot { crc: crc32fast::hash(&bytes).into(), len: len.into(), magic: FOOT_MAGIC };
    [&bytes[..], foot.as_bytes()].concat()
}

#[test]
fn sections_that_nobody_knows_are_passed_over() {
    let wanted = trailer();
    let sums = wanted.sums_section();
    let len = sums.len() as u32;
    let bytes = crafted(4, &[(77, 3, b"abc"), (SUMS, len, &sums), (4, 0, b""), (u32::MAX, 1, b"x")]);
    let found = Trailer::decode(&bytes).unwrap();
    assert_eq!((found.sums, found.origin, found.marks), (wanted.sums, None, Marks::default()));
}

#[test]
fn what_lies_is_refused() {
    let wanted = trailer();
    let sums = wanted.sums_section();
    let len = sums.len() as u32;
    let refused = |bytes: &[u8]| Trailer::decode(bytes).unwrap_err().to_string();
    assert_eq!(refused(&crafted(0, &[])), "found 0 sections with checksums, wanted 1");
    let twice = crafted(2, &[(SUMS, len, &sums), (SUMS, len, &sums)]);
    assert_eq!(refused(&twice), "found 2 sections with checksums, wanted 1");
    let (end, all) = (28 + 12 + sums.len(), u32::MAX);
    for (nr, claimed, message) in [
        (2, len, format!("section 2 ends at byte {:#x} of the trailer, wanted {end:#x}", end + 12)),
        (all, len, format!("section 2 ends at byte {:#x} of the trailer, wanted {end:#x}", end + 12)),
        (1, len + 1, format!("section 1 ends at byte {:#x} of the trailer, wanted {end:#x}", end + 1)),
        (1, all, format!("section 1 ends at byte {:#x} of the trailer", 40 + u64::from(all))),
        (0, len, format!("section 0 ends at byte 0x1c of the trailer, wanted {end:#x}")),
        (1, len - 1, "section 1 of kind 1: CRC-32 is ".into()),
    ] {
        let said = refused(&crafted(nr, &[(SUMS, claimed, &sums)]));
        assert!(said.starts_with(&message), "{said}, wanted {message}");
    }
    // Fields of the checksums that do not fit together.
    for (at, bytes, message) in [
        (0, &[0xff; 8][..], "length of the image is 18446744073709551615"),
        (0, &[0; 8], "number of stretches is 4, wanted 0"),
        (20, &[21], "shift of stretches is 21, wanted 20"),
        (20, &[0xff; 4], "shift of stretches is 4294967295, wanted 20"),
        (8, &[0xff; 4], "length of the header is 4294967295, wanted 3145784"),
        (4, &[0, 0, 0, 0x40], "shift of stretches is 20, wanted 51"),
    ] {
        let mut lie = sums.clone();
        lie[at..at + bytes.len()].copy_from_slice(bytes);
        let said = refused(&crafted(1, &[(SUMS, len, &lie)]));
        assert!(said.contains(message), "{said}, wanted {message}");
    }
    for short in [0, 10, 24, 30] {
        refused(&crafted(1, &[(SUMS, short, &sums[..short as usize])]));
    }
    let good = (SUMS, len, &sums[..]);
    refused(&crafted(2, &[good, (ORIGIN, 215, &[0; 215])]));
    refused(&crafted(2, &[good, (ORIGIN, 217, &[0; 217])]));
    refused(&crafted(2, &[good, (MARKS, 15, &[0; 15])]));
    refused(&crafted(2, &[good, (MARKS, 20, &[0xff; 20])]));
    let said = refused(&crafted(2, &[good, (MARKS, 32, &[0; 32])]));
    assert!(said.contains("number of marked areas is 0, wanted 1"), "{said}");
    // Lengths of the whole.
    for len in [0u32, 43, 32_769, u32::MAX] {
        let mut bytes = wanted.encode();
        bytes[20..24].copy_from_slice(&len.to_le_bytes());
        assert_eq!(refused(&bytes), format!("length is {len}, wanted 44 to 32768"));
    }
    let mut later = wanted.encode();
    later.truncate(later.len() - FOOT_LEN);
    later[16] = 2;
    assert_eq!(refused(&sealed(later)), "version is 2, wanted 1");
}

#[test]
fn noise_never_panics() {
    let good = trailer().encode();
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..50_000 {
        let mut bytes = good[..good.len() - FOOT_LEN].to_vec();
        for _ in 0..1 + next() % 8 {
            let at = 16 + next() % (bytes.len() - 16);
            bytes[at] = [0, 0xff, next() as u8][next() % 3];
        }
        // With a CRC that is right, so that all behind it is looked at.
        if let Ok(trailer) = Trailer::decode(&sealed(bytes)) {
            assert!(
                trailer.sums.stretches.len() <= MAX_STRETCHES && trailer.marks.listed.len() <= MAX_LEN / 16
            );
        }
    }
}
