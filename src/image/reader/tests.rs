use super::*;
use crate::image::DATA_OFFSET;

const NR: u64 = 6;

/// An image of 6 clusters of 512 bytes and 100 bytes behind, with the given commands.
fn image(commands: &[u8]) -> Vec<u8> {
    let mut image = Header::of(&Geometry::new(512, NR, 3172).unwrap(), 2).as_bytes().to_vec();
    image.extend(DATA_OFFSET.to_le_bytes());
    image.resize(56, 0);
    image.extend(commands);
    image
}

fn cluster(fill: u8, len: usize) -> Vec<u8> {
    [vec![1], vec![fill; len]].concat()
}

fn skip(count: i64) -> Vec<u8> {
    [vec![0], count.to_le_bytes().to_vec()].concat()
}

/// All stretches, as position, length and first byte.
fn read(image: &[u8], buf: usize) -> Result<Vec<(u64, usize, u8)>, ImageError> {
    let mut reader = ImageReader::open(image)?;
    let mut buf = vec![0; buf];
    let mut all = Vec::new();
    while let Some((pos, len)) = reader.next(&mut buf)? {
        all.push((pos, len, buf[0]));
    }
    Ok(all)
}

#[test]
fn clusters_that_follow_each_other_come_together() {
    let image = image(
        &[cluster(1, 512), cluster(2, 512), skip(2), cluster(3, 512), cluster(4, 512), cluster(5, 100)]
            .concat(),
    );
    let want = [(0, 1024, 1), (2048, 1024, 3), (3072, 100, 5)];
    assert_eq!(read(&image, 4096).unwrap(), want);
    let parts = read(&image, 300).unwrap();
    assert_eq!(parts.iter().map(|(_, len, _)| len).sum::<usize>(), 2148);
    assert_eq!(parts[..4], [(0, 300, 1), (300, 300, 1), (600, 300, 2), (900, 124, 2)]);
}

#[test]
fn negative_skips_go_back() {
    let image =
        image(&[skip(5), cluster(1, 512), skip(-6), cluster(2, 512), skip(5), cluster(3, 100)].concat());
    assert_eq!(read(&image, 4096).unwrap(), [(2560, 512, 1), (0, 512, 2), (3072, 100, 3)]);
}

#[test]
fn an_end_before_the_extra_cluster_is_no_error() {
    let bytes = image(&[cluster(1, 512), skip(5)].concat());
    let mut reader = ImageReader::open(&bytes[..]).unwrap();
    let mut buf = [0; 1024];
    assert_eq!(reader.next(&mut buf).unwrap(), Some((0, 512)));
    assert_eq!(reader.next(&mut buf).unwrap(), None);
    assert!(reader.lacks_extra());
}

#[test]
fn each_damage_is_named_with_its_place() {
    let error = |commands: &[Vec<u8>]| read(&image(&commands.concat()), 512).unwrap_err().to_string();
    assert_eq!(
        error(&[cluster(1, 512), vec![7]]),
        "image is damaged at its byte 0x239: found command 0x07 for cluster 1, wanted 0 or 1"
    );
    for count in [0, 7, -1, i64::MIN, i64::MAX] {
        let want = format!("image is damaged at its byte 0x38: skip of {count} clusters from cluster 0 of 6");
        assert_eq!(error(&[skip(count)]), want);
    }
    assert_eq!(
        error(&[cluster(1, 512), cluster(2, 100)]),
        "image is cut off at its byte 0x29e: it ends in the data of cluster 1 of 6"
    );
    assert!(error(&[cluster(1, 512)]).contains("ends in the command of cluster 1"));
    assert!(error(&[skip(6), cluster(1, 99)]).contains("ends in the data of cluster 6"));
    assert!(error(&[vec![0, 1, 0]]).contains("ends in the skip of cluster 0"));
}

#[test]
fn what_is_no_image_says_so() {
    assert!(
        read(b"", 512).unwrap_err().to_string().contains("cut off at its byte 0x0: it ends in the header")
    );
    assert!(read(&[0x55; 100], 512).unwrap_err().to_string().contains("not an ntfsclone image"));
    assert!(read(&image(&[])[..48], 512).unwrap_err().to_string().contains("ends in the header"));
}

/// An image of some MiB with its trailer, and where that begins: two runs of clusters of 4 KiB, the first byte of each
/// cluster telling its number.
fn summed() -> (Vec<u8>, usize) {
    const NR: u64 = 2000;
    let mut image = Header::of(&Geometry::new(4096, NR, NR * 4096 + 512).unwrap(), 800).as_bytes().to_vec();
    image.extend(DATA_OFFSET.to_le_bytes());
    image.resize(56, 0);
    let mut structure = Vec::new();
    let mut command = |image: &mut Vec<u8>, bytes: &[u8]| {
        structure.extend(bytes);
        image.extend(bytes);
    };
    for lcn in (0..300).chain(1000..1500) {
        if lcn == 1000 {
            command(&mut image, &skip(700));
        }
        command(&mut image, &[1]);
        image.extend((0..4096).map(|at| (at * 5 + lcn * 3) as u8));
    }
    command(&mut image, &skip(500));
    command(&mut image, &[1]);
    image.extend([0x55; 512]);
    let mut sums = Sums::default();
    sums.update(&image[..56]);
    sums.end_header();
    sums.update(&image[56..]);
    sums.add_command(&structure);
    let trailer = Trailer { sums: sums.table(), origin: None, marks: trailer::Marks::default() };
    let len = image.len();
    image.extend(trailer.encode());
    (image, len)
}

/// Reads all there is, as from a file or as from a pipe.
fn check(image: &[u8], is_file: bool) -> Result<bool, ImageError> {
    let known = if is_file { Trailer::at_end(image, image.len() as u64) } else { None };
    let mut reader = ImageReader::open_checked(image, known)?;
    let mut buf = vec![0; 1 << 20];
    while reader.next(&mut buf)?.is_some() {}
    Ok(reader.conclude()?.is_some())
}

#[test]
fn checksums_are_compared() {
    let (image, len) = summed();
    for is_file in [true, false] {
        assert!(check(&image, is_file).unwrap());
        assert!(check(&[&image[..], b"behind"].concat(), is_file).unwrap());
        assert!(!check(&image[..len], is_file).unwrap());
        assert!(!check(&[&image[..len], b"behind"].concat(), is_file).unwrap());
        let error = |at: usize, change: u8| {
            let mut image = image.clone();
            image[at] ^= change;
            check(&image, is_file).unwrap_err().to_string()
        };
        let said = error(len - 100, 4);
        let place = format!("stretch 4 of 4, its bytes 0x300000 to {:#x}, clusters 1467 to 2000", len - 1);
        assert!(said.starts_with(&format!("image is damaged in {place}: CRC-32 is ")), "{said}");
        let said = error(0x10_0000, 1);
        assert!(
            said.contains("stretch 2 of 4, its bytes 0x100000 to 0x1fffff, clusters 255 to 1211:"),
            "{said}"
        );
        let said = error(0xf_ffff, 1);
        assert!(said.contains("stretch 1 of 4, its bytes 0x0 to 0xfffff, clusters 0 to 255:"), "{said}");
        // The number of clusters in use.
        let said = error(38, 1);
        assert!(said.contains("in its header, the bytes 0x0 to 0x37: CRC-32 is "), "{said}");
        let said = error(len + 3, 1);
        let place =
            format!("the checksums of the image, from its byte {len:#x} on, are damaged: wrong magic");
        assert!(said.starts_with(&place), "{said}");
        let said = check(&image[..len + 50], is_file).unwrap_err();
        assert!(said.to_string().contains("are damaged: cut off: found 50 bytes"), "{said}");
        assert!(said.is_cut_off());
        assert!(check(&image[..len + 1], is_file).unwrap_err().is_cut_off());
    }
}

#[test]
fn what_makes_no_sense_is_placed_in_its_stretch() {
    let (image, _) = summed();
    let mut bad = image.clone();
    bad[56 + 300 * 4097 + 1 + 3] = 1; // a skip that is too long
    let said = check(&bad, true).unwrap_err().to_string();
    assert!(said.contains("clusters from cluster 300 of 2000; the damage is in stretch 2 of 4"), "{said}");
    assert!(check(&bad, false).is_err());
    // One that leads to the end at once: all behind the next cluster is passed over, and found all the same.
    let mut bad = image.clone();
    bad[56 + 300 * 4097 + 1..][..8].copy_from_slice(&1700u64.to_le_bytes());
    for is_file in [true, false] {
        let said = check(&bad, is_file).unwrap_err().to_string();
        assert!(said.contains("image is damaged in stretch 2 of 4"), "{said}");
    }
    // The last skip, so that the last cluster is taken for another.
    let mut bad = image.clone();
    bad[56 + 800 * 4097 + 9 + 1..][..8].copy_from_slice(&499u64.to_le_bytes());
    assert!(check(&bad, true).is_err() && check(&bad, false).is_err());
}

#[test]
fn stretches_that_are_missing_or_in_another_order() {
    let (image, len) = summed();
    let mib = 1 << 20;
    let parts: Vec<_> = image[..len].chunks(mib).collect();
    let commands = |from: usize, to: usize| &image[56 + from * 4097..56 + to * 4097];
    let (head, rest) = (&image[..56], &image[56 + 800 * 4097..]);
    let other = [
        [parts[0], parts[2], parts[1], parts[3], &image[len..]].concat(),
        [parts[0], parts[2], parts[3], &image[len..]].concat(),
        [parts[0], parts[1], parts[2], &image[len..]].concat(),
        // Whole clusters, so that all commands make sense.
        [head, commands(10, 20), commands(0, 10), commands(20, 800), rest].concat(),
        [head, commands(0, 200), commands(210, 300), &image[56 + 300 * 4097..]].concat(),
    ];
    for (number, bad) in other.iter().enumerate() {
        assert!(check(bad, true).is_err(), "{number} as a file");
        assert!(check(bad, false).is_err(), "{number} as a pipe");
    }
}
