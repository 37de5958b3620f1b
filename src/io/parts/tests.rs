use super::*;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// An empty image in the shortest parts.
fn create(name: &Path) -> Parts {
    let first = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(numbered(name, 1));
    Parts::create(name.to_owned(), first.unwrap(), SHORTEST).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let names = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn read(image: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    PartsReader::open(of_image(image).unwrap()).unwrap().read_to_end(&mut all).unwrap();
    all
}

#[test]
fn any_order_makes_the_same_parts() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("image");
    let wanted = content(3 * SHORTEST as usize + 5);
    for is_backwards in [false, true] {
        let mut parts = create(&name);
        assert_eq!(parts.end(), 0);
        let mut starts: Vec<_> = (0..wanted.len()).step_by(300_000).collect();
        if is_backwards {
            starts.reverse();
        }
        for at in starts {
            let piece = &wanted[at..wanted.len().min(at + 300_000)];
            parts.write_all_at(piece, at as u64).unwrap();
            let mut back = vec![0; piece.len()];
            parts.read_exact_at(&mut back, at as u64).unwrap();
            assert!(back == piece);
        }
        parts.sync_data().unwrap();
        assert_eq!(parts.end(), wanted.len() as u64);
        assert!(parts.read_exact_at(&mut [0; 2], wanted.len() as u64 - 1).is_err());
        assert_eq!(names(folder.path()), ["image.001", "image.002", "image.003", "image.004"]);
        assert!(read(&name) == wanted && read(&numbered(&name, 1)) == wanted);
    }
    // What is behind an end is taken away, with the parts that have nothing else.
    let mut parts = Parts::resume(name.clone(), SHORTEST, None).unwrap();
    for (end, nr_parts) in [(3 * SHORTEST + 2, 4), (3 * SHORTEST, 3), (SHORTEST + 9, 2), (0, 1)] {
        assert!(!parts.cut(parts.end() + 1).unwrap() && !parts.cut(parts.end()).unwrap());
        assert!(parts.cut(end).unwrap());
        assert_eq!((parts.end(), names(folder.path()).len()), (end, nr_parts));
        assert!(read(&name) == wanted[..end as usize]);
    }
    parts.write_all_at(&wanted, 0).unwrap();
    assert!(read(&name) == wanted);
    // A shorter one leaves nothing of it.
    create(&name).write_all(&wanted[..9]).unwrap();
    assert_eq!(names(folder.path()), ["image.001"]);
    assert_eq!(read(&name), &wanted[..9]);
}

#[test]
fn an_image_has_999_parts_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = create(&folder.path().join("image"));
    // Each part is synced; few are enough to see that the numbers end.
    parts.write_all_at(b"x", 2 * SHORTEST).unwrap();
    parts
        .files
        .resize_with(MAX_PARTS as usize, || Part { file: tempfile::tempfile().unwrap(), is_dirty: false });
    parts.write_all_at(b"x", MAX_PARTS * SHORTEST - 1).unwrap();
    assert!(parts.write_all_at(b"x", MAX_PARTS * SHORTEST).is_err());
    assert_eq!(names(folder.path()).len(), 3);
}

#[test]
fn names_are_given_from_behind_and_go_on_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (part, name) = (at("image.part"), at("image"));
    let wanted = content(2 * SHORTEST as usize + 7);
    create(&part).write_all(&wanted).unwrap();
    for nr_renamed in 0..3 {
        for number in (4 - nr_renamed..4).rev() {
            std::fs::rename(numbered(&part, number), numbered(&name, number)).unwrap();
        }
        assert!(!exists(&name));
        // The job goes on, or the names are given at last.
        let parts = Parts::resume(part.clone(), SHORTEST, Some(&name)).unwrap();
        assert_eq!(parts.end(), wanted.len() as u64);
        assert_eq!(names(folder.path()), ["image.part.001", "image.part.002", "image.part.003"]);
    }
    std::fs::rename(numbered(&part, 3), numbered(&name, 3)).unwrap();
    rename_all(&part, &name).unwrap();
    assert_eq!(names(folder.path()), ["image.001", "image.002", "image.003"]);
    assert!(exists(&name) && read(&name) == wanted);
    let kind = |from: &str, to: &str| rename_all(&at(from), &at(to)).unwrap_err().kind();
    assert_eq!(kind("image.part", "other"), io::ErrorKind::NotFound);
    std::fs::write(&part, "whole").unwrap();
    assert_eq!(kind("image.part", "image"), io::ErrorKind::AlreadyExists);
    rename_all(&part, &at("other")).unwrap();
    assert_eq!(std::fs::read(at("other")).unwrap(), b"whole");
}

#[test]
fn what_is_no_image_in_parts_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("image");
    create(&name).write_all(&content(4 * SHORTEST as usize)).unwrap();
    let resumed = |part_len| Parts::resume(name.clone(), part_len, None).map(|_| ());
    let text = |error: Result<(), PartsError>| error.unwrap_err().to_string();
    assert!(text(resumed(SHORTEST + 1)).contains("image.001' has 1048576 bytes, but parts of 1048577"));
    let cut = |number, len| {
        OpenOptions::new().write(true).open(numbered(&name, number)).unwrap().set_len(len).unwrap();
    };
    cut(4, 100);
    resumed(SHORTEST).unwrap();
    assert_eq!(read(&name).len() as u64, 3 * SHORTEST + 100);
    cut(4, SHORTEST + 1);
    let opened = |name: &Path| of_image(name).map(|_| ());
    assert!(text(opened(&name)).contains("image.004' of the image has 1048577 bytes, wanted 1048576"));
    cut(4, SHORTEST);
    cut(2, SHORTEST - 1);
    assert!(text(opened(&name)).contains("image.002' of the image has 1048575 bytes"));
    assert!(text(resumed(SHORTEST)).contains("image.002' has 1048575 bytes"));
    std::fs::remove_file(numbered(&name, 2)).unwrap();
    for error in [text(opened(&name)), text(opened(&numbered(&name, 1))), text(resumed(SHORTEST))] {
        assert!(error.contains("image.002' of the image is missing, but"), "{error}");
    }
    assert_eq!(of_image(&folder.path().join("nothing.001")).unwrap().len(), 1);
}
