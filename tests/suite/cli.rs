//! Options, refusals, messages, exit status. Whatever is refused leaves source and target as they were.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::edit::Editor;
use crate::tools::{Said, assert_same, assert_same_up_to, len, ours, run, shell, text};
use crate::volumes::{Mounted, Place, mkntfs};

/// A volume, an image of it, and what the folder with them held.
struct Scene {
    place: Place,
    before: BTreeMap<String, Vec<u8>>,
}

impl Scene {
    fn new() -> Scene {
        let place = Place::new();
        mkntfs(&place.at("volume"), 2 << 20, 512, 4096);
        let (image, volume) = (place.at("image"), place.at("volume"));
        ours(["-q", "-s", "--no-checksum", "-o", text(&image), text(&volume)]).ok();
        std::fs::write(place.at("old"), "what was there").unwrap();
        let mut scene = Scene { place, before: BTreeMap::new() };
        scene.remember();
        scene
    }

    fn at(&self, name: &str) -> String {
        text(&self.place.at(name)).to_owned()
    }

    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let read = |name: String| (name.clone(), std::fs::read(self.place.at(&name)).unwrap());
        self.place.names().into_iter().map(read).collect()
    }

    /// What is there now is how it should stay.
    fn remember(&mut self) {
        self.before = self.content();
    }

    /// Runs our program in the folder.
    fn run(&self, args: &str) -> Said {
        let program = env!("CARGO_BIN_EXE_ntfsrescue");
        run(Command::new(program).args(args.split_whitespace()).current_dir(self.place.at("")))
    }

    /// The command line is refused with this message and status 1, and nothing has changed.
    #[track_caller]
    fn refuses(&self, args: &str, message: &str) {
        self.run(args).exits(1).says(message);
        let now = self.content();
        assert_eq!(now.keys().collect::<Vec<_>>(), self.before.keys().collect::<Vec<_>>(), "after {args}");
        for (name, bytes) in &now {
            assert!(*bytes == self.before[name], "{name} has changed after {args}");
        }
    }
}

#[test]
fn conflicting_options() {
    let scene = Scene::new();
    for (args, message) in [
        ("", "no source"),
        ("-o new", "no source"),
        ("volume", "no output: name one with --output or --overwrite"),
        ("-s volume", "no output"),
        ("-r image", "no output"),
        ("-o new volume image", "more than one source"),
        ("-o new -", "only an image can be read from standard input"),
        ("-s -o new -", "only an image can be read from standard input"),
        ("-s -r -o new image", "--save-image and --restore-image exclude each other"),
        ("-o new -O old volume", "--output and --overwrite exclude each other"),
        ("-m -r -o new image", "--metadata and --restore-image exclude each other"),
        ("-m -o - volume", "metadata goes to standard output only as an image"),
        ("--ignore-fs-check -o new volume", "--ignore-fs-check goes with --rescue or --metadata only"),
        ("-n volume", "--no-action checks an image: add --restore-image"),
        ("-n -o new volume", "--no-action checks an image: add --restore-image"),
        ("-n -r -o new image", "--no-action writes nothing: leave out the output"),
        ("-n -r -O old image", "--no-action writes nothing"),
        ("-n -r -s image", "--save-image and --restore-image exclude each other"),
        ("--split 1M -o new volume", "--split goes with an image that is saved: add --save-image"),
        ("--split 1M -r -o new image", "--split goes with an image that is saved"),
        ("--split 1M -s -o - volume", "--split writes the parts as files: name one"),
        ("--split 1M -s -O /dev/null volume", "--split writes the parts as files"),
        (
            "--split 1023K -s -o new volume",
            "--split: parts of 1047552 bytes are too short, wanted at least 1048576",
        ),
        ("--split 1x -s -o new volume", "invalid value '1x' for '--split <SIZE>'"),
        ("--split 1M -s -O old volume", "'old' is there, and not in parts: move or remove it first"),
        ("--split 1M -s -o old volume", "output file 'old' already exists"),
        ("--split 1M -s -o missing/new volume", "cannot look at the folder of target 'missing/new'"),
        ("--verify -o new volume", "leave out the output, or add --restore-image"),
        ("--verify -s -o new volume", "leave out the output, or add --restore-image"),
        ("--verify -s volume", "--verify checks an image that is there: leave out --save-image"),
        ("--verify -m volume", "--verify checks an image that is there: leave out --metadata"),
        ("--verify --map map volume", "--verify checks an image that is there: leave out --map"),
        ("--verify --domain-out map volume", "leave out --domain-out"),
        ("--verify --no-verify volume", "no output"),
        ("--verify", "no source"),
        ("--against volume image", "add --verify, and leave out --restore-image"),
        ("--against volume -r -n image", "--against compares an image with a volume: add --verify"),
        ("--against volume --verify -r -O old image", "--against compares an image with a volume"),
        ("--against volume --finish map old", "--finish needs nothing but the map and the target"),
        ("--verify --against missing image", "cannot open 'missing': No such file"),
        ("--checksum -o new volume", "--checksum goes with an image that is saved: add --save-image"),
        (
            "--checksum -r -o new image",
            "--checksum is for saving: an image that is read is compared with the",
        ),
        ("--checksum -r -n image", "--checksum is for saving"),
        ("--checksum --verify image", "--checksum is for saving"),
        (
            "--no-checksum -o new volume",
            "--no-checksum goes with an image: add --save-image or --restore-image",
        ),
        ("--verify -r -n image", "--verify compares what was written: leave out --no-action"),
        ("--verify -r -o - image", "--verify reads the target back: name a file or a device"),
        ("--verify -r -O /dev/null image", "--verify reads the target back"),
        ("--verify -r -o new -", "--verify reads the image twice: name a file or a device"),
        ("--verify -r -o new /dev/null", "--verify reads the image twice"),
        ("--verify --finish map old", "--finish needs nothing but the map and the target"),
        ("--re -o new volume", "option '--re' is ambiguous; possibilities: '--restore-image' '--rescue'"),
        ("--bogus -o new volume", "unexpected argument '--bogus'"),
        ("-x -o new volume", "unexpected argument '-x'"),
        ("-o", "a value is required for '--output"),
    ] {
        scene.refuses(args, message);
    }
}

#[test]
fn unsuitable_targets() {
    let mut scene = Scene::new();
    scene.refuses("-o old volume", "output file 'old' already exists; use --overwrite");
    scene.refuses("-s -o old volume", "output file 'old' already exists");
    scene.refuses("-r -o old image", "output file 'old' already exists");
    scene.refuses("-O volume volume", "are on the same device or file");
    scene.refuses("-s -O volume volume", "are on the same device or file");
    scene.refuses("-r -O image image", "are on the same device or file");
    scene.refuses("-o missing/new volume", "cannot look at the folder of target 'missing/new': No such file");
    scene.refuses("-O . volume", "target '.': is a directory");
    std::os::unix::fs::symlink("nowhere", scene.place.at("link")).unwrap();
    scene.run("-o link volume").exits(1).says("'link' already exists");
    std::fs::remove_file(scene.place.at("link")).unwrap();
    std::fs::hard_link(scene.place.at("volume"), scene.place.at("other-name")).unwrap();
    scene.remember();
    scene.refuses("-O other-name volume", "are on the same device or file");
    std::fs::write(scene.place.at("new.part"), "half").unwrap();
    scene.remember();
    scene.refuses("-o new volume", "'new.part' is an unfinished copy of an earlier run");
}

#[test]
fn unsuitable_sources() {
    let mut scene = Scene::new();
    std::fs::write(scene.place.at("noise"), vec![7; 9000]).unwrap();
    std::fs::write(scene.place.at("tiny"), "x").unwrap();
    scene.remember();
    scene.refuses("-o new missing", "cannot open 'missing': No such file");
    scene.refuses("-o new .", "neither a file nor a block device");
    scene.refuses("-o new noise", "no NTFS volume: boot sector at byte 0x0: found");
    scene.refuses("-o new tiny", "too short for an NTFS volume");
    scene.refuses("-o new image", "no NTFS volume");
    scene.refuses("-O old noise", "no NTFS volume");
    scene.refuses("-r -o new missing", "cannot open the image 'missing'");
    scene.refuses("-r -o new volume", "not an ntfsclone image");
    scene.refuses("-r -O old tiny", "not an ntfsclone image");
    scene.refuses("-r -n volume", "not an ntfsclone image");
    // A volume that ends before its last cluster.
    let file = std::fs::OpenOptions::new().write(true).open(scene.place.at("volume")).unwrap();
    file.set_len(1 << 20).unwrap();
    scene.remember();
    scene.refuses("-o new volume", "bytes, but its device only 1048576");
}

#[test]
fn damaged_images_overwrite_nothing() {
    let mut scene = Scene::new();
    let image = std::fs::read(scene.place.at("image")).unwrap();
    for (damage, message) in [
        (&image[..image.len() - 600], "image is cut off at its byte"),
        (&image[..40], "image is cut off at its byte 0x28: it ends in the header"),
        (&image[..52], "ends in the header"),
        (
            &[&image[..56], &[9], &image[57..]].concat(),
            "image is damaged at its byte 0x38: found command 0x09",
        ),
        (&[&image[..16], &[11], &image[17..]].concat(), "image version 11.1 is not known"),
    ] {
        std::fs::write(scene.place.at("image"), damage).unwrap();
        scene.remember();
        scene.refuses("-r -O old image", message);
        scene.refuses("-r -o new image", message);
        scene.refuses("-r -n image", message);
    }
    // From a pipe it shows too late; then the target is no volume, and a new file keeps its other name.
    let (volume, old) = (scene.at("volume"), scene.at("old"));
    shell(&format!(
        "head -c {} {} | $OURS -r -O {old} - || [ $? = 1 ]",
        image.len() - 600,
        scene.at("image")
    ))
    .ok();
    std::fs::write(scene.place.at("image"), &image[..image.len() - 600]).unwrap();
    let said = shell(&format!("$OURS -r -O {old} - < {}", scene.at("image"))).exits(1);
    said.says("is unfinished and holds no usable copy");
    let boot = std::fs::read(scene.place.at("old")).unwrap();
    assert!(boot[..512].iter().all(|byte| *byte == 0), "a boot sector before the copy was whole");
    let said = shell(&format!("$OURS -r -o {}/new - < {}", scene.at(""), scene.at("image"))).exits(1);
    said.says("what was copied so far is left in");
    assert!(!scene.place.at("new").exists() && scene.place.at("new.part").exists());
    assert_eq!(len(Path::new(&volume)), 2 << 20);
}

#[test]
fn checking_an_image() {
    let scene = Scene::new();
    scene
        .run("-r -n image")
        .ok()
        .says("The image's structure is whole.")
        .says("Ntfsclone image version: 10.1");
    shell(&format!("$OURS --no-a --restore - < {}", scene.at("image"))).ok().says("structure is whole");
    assert_eq!(scene.content(), scene.before);
}

#[test]
fn an_image_without_the_backup_boot_sector() {
    let scene = Scene::new();
    let image = std::fs::read(scene.place.at("image")).unwrap();
    std::fs::write(scene.place.at("image"), &image[..image.len() - 4097]).unwrap();
    let warning = "WARNING: the image holds no backup boot sector";
    let (old, image) = (scene.at("old"), scene.at("image"));
    for said in [
        scene.run("-r -n image"),
        scene.run("-r -O old image"),
        shell(&format!("$OURS -r -O {old} - < {image}")),
    ] {
        let said = said.ok();
        assert_eq!(said.stdout.matches(warning).count(), 1, "{}", said.stdout);
    }
    assert_eq!(len(Path::new(&old)), 2 << 20);
}

#[test]
fn mounted_volumes() {
    let scene = Scene::new();
    let volume = scene.place.at("volume");
    {
        let _mounted = Mounted::new(&volume, "big_writes");
        scene.run("-o new volume").exits(1).says("is mounted for writing on '/");
        scene.run("-r -O volume image").exits(1).says("target 'volume' is mounted on '/");
        assert!(!scene.place.at("new").exists());
    }
    let _mounted = Mounted::new(&volume, "ro");
    scene.run("-r -O volume image").exits(1).says("target 'volume' is mounted on '/");
    scene.run("-q -o new volume").ok();
    assert_same(&scene.place.at("new"), &volume);
}

#[test]
fn messages_keep_out_of_the_data() {
    let scene = Scene::new();
    let said = scene.run("-q -s -o new volume").ok();
    assert!(said.stderr.starts_with("ntfsrescue v") && said.stderr.lines().count() == 1, "{}", said.stderr);
    for line in ["Cluster size       : 4096 bytes", "Current volume size: 2093056 bytes (3 MB)"] {
        assert!(said.stdout.contains(line), "{}", said.stdout);
    }
    assert!(said.stdout.contains("Current device size: 2097152 bytes (3 MB)\n"));
    assert!(said.stdout.contains("\nSpace in use       : "));
    assert!(!said.stdout.contains("percent completed"));
    assert!(scene.run("-s -O new volume").ok().stdout.contains("100.00 percent completed\n"));
    let said = shell(&format!("$OURS -s -o - {} > {}", scene.at("volume"), scene.at("piped"))).ok();
    assert!(said.stdout.is_empty() && said.stderr.contains("Space in use       : "));
    assert_same(&scene.place.at("piped"), &scene.place.at("image"));
    // Errors of the job go where its messages go, errors in the options to standard error.
    assert!(scene.run("-o new missing").exits(1).stdout.contains("ERROR: "));
    assert!(scene.run("-o new").exits(1).stdout.is_empty());
}

#[test]
fn standard_output_under_other_names() {
    let scene = Scene::new();
    let volume = scene.at("volume");
    // Closed, it would swallow the copy.
    shell(&format!("$OURS -s -o - {volume} >&-")).exits(1).says("cannot write to target 'standard output'");
    shell(&format!("$OURS -s -O /dev/stdout {volume} 2>/dev/null | cmp - {}", scene.at("image"))).ok();
    shell(&format!("$OURS -q -s -o - {volume} > /dev/null")).ok();
}

#[test]
fn a_name_without_room_for_an_ending() {
    let scene = Scene::new();
    let name = "n".repeat(253);
    scene.run(&format!("-q -o {name} volume")).ok();
    assert_same(&scene.place.at(&name), &scene.place.at("volume"));
    assert_eq!(scene.place.names().len(), scene.before.len() + 1);
}

#[test]
fn help_and_version() {
    for args in ["--help", "-h", "--hel"] {
        let said = ours([args]).ok();
        assert!(said.stdout.is_empty() && said.stderr.contains("--restore-image"), "{}", said.stderr);
    }
    let version = concat!("ntfsrescue ", env!("CARGO_PKG_VERSION"));
    assert!(ours(["-V"]).ok().stderr.contains(version));
    assert!(ours(["--version"]).ok().stderr.contains(version));
}

#[test]
fn under_the_name_ntfsclone() {
    let scene = Scene::new();
    let link = scene.place.at("ntfsclone");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ntfsrescue"), &link).unwrap();
    let at = |name| scene.at(name);
    run(Command::new(&link).args(["--save", "-qq", "--outp", &at("new"), &at("volume"), "--forc"])).ok();
    let image_len = len(&scene.place.at("image"));
    assert_same_up_to(&scene.place.at("new"), &scene.place.at("image"), image_len);
    run(Command::new(&link).args(["-rqO", &at("old"), &at("new")])).ok();
    assert_same(&scene.place.at("old"), &scene.place.at("volume"));
}

#[test]
fn a_new_file_belongs_to_its_owner_alone() {
    let scene = Scene::new();
    scene.run("-q -o new volume").ok();
    assert_eq!(scene.place.at("new").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!scene.place.at("new.part").exists());
}

#[test]
fn overwriting_a_longer_file_leaves_nothing_of_it() {
    let scene = Scene::new();
    std::fs::write(scene.place.at("old"), vec![0xaa; 5 << 20]).unwrap();
    scene.run("-q -O old volume").ok();
    assert_same(&scene.place.at("old"), &scene.place.at("volume"));
    std::fs::write(scene.place.at("old"), vec![0xaa; 5 << 20]).unwrap();
    scene.run("-q -s --no-checksum -O old volume").ok();
    assert_same(&scene.place.at("old"), &scene.place.at("image"));
}

#[test]
fn dirty_volumes_need_force() {
    let mut scene = Scene::new();
    Editor::open(&scene.place.at("volume")).make_dirty();
    scene.remember();
    scene.refuses("-o new volume", "the volume is marked dirty");
    scene.run("-f -o new volume").ok().says("WARNING: the volume is marked dirty");
    scene.run("--rescue -O new volume").ok().says("WARNING: the volume is marked dirty");
    assert_same(&scene.place.at("new"), &scene.place.at("volume"));
}

#[test]
fn bitmap_and_mft_that_disagree() {
    let mut scene = Scene::new();
    let editor = Editor::open(&scene.place.at("volume"));
    let free = editor.free_clusters(100, 3);
    editor.mark(free, 3, true);
    editor.write(free * 4096, &[0x77; 3 * 4096]);
    scene.remember();
    let message = "disagree about 3 clusters (3 only in $Bitmap, 0 only in the MFT, 0 claimed twice)";
    scene.refuses("-o new volume", message);
    scene.refuses("--force -o new volume", "chkdsk /f");
    for options in ["--rescue", "--rescue --ignore-fs-check"] {
        scene.run(&format!("-q {options} -O new volume")).ok().says(message);
        assert_same(&scene.place.at("new"), &scene.place.at("volume"));
    }
    // The other way round: what the MFT claims is saved although it is free in $Bitmap.
    editor.mark(free, 3, false);
    let mft = editor.record_pos(16) / 4096;
    editor.mark(mft, 1, false);
    scene.run("-o other volume").exits(1).says("0 only in $Bitmap, 1 only in the MFT");
    scene.run("-q --rescue -O new volume").ok();
    assert_eq!(Editor::open(&scene.place.at("new")).record(16), editor.record(16));
}

#[test]
fn strict_tells_losses_by_status() {
    let scene = Scene::new();
    scene.run("-q --strict --rescue -o new volume").ok().says("Nothing was lost.");
    let editor = Editor::open(&scene.place.at("volume"));
    // A torn record in use: $Extend's.
    let pos = editor.record_pos(11) + 510;
    let torn = editor.read(pos, 1)[0] ^ 1;
    editor.write(pos, &[torn]);
    let message = "MFT record 11 at byte";
    scene.run("-O new volume").exits(1).says(message).says("update sequence mismatch in sector 0");
    scene.run("--rescue -O new volume").ok().says(message).says("Damaged: 1 MFT records");
    assert_same(&scene.place.at("new"), &scene.place.at("volume"));
    scene.run("--rescue --strict -O new volume").exits(3).says(message);
    editor.write(pos, &[torn ^ 1]);
    scene.run("--rescue --strict -O new volume").ok().says("Nothing was lost.");

    // What is no record any more, although `$MFT` counts it as a file's; what has a copy; the boot sector.
    for (pos, message) in [
        (editor.record_pos(11), "MFT record 11 at byte"),
        (editor.record_pos(0), "using its copy in $MFTMirr"),
        (editor.record_pos(3), "MFT record 3 at byte"),
        (0, "using its backup"),
    ] {
        let saved = editor.read(pos, 512);
        editor.write(pos, &[b'X'; 64]);
        let said = scene.run("--rescue --strict -O new volume").exits(3).says(message).says("Damaged: 1 ");
        assert!(!said.stdout.contains("disagree"), "{}", said.stdout);
        assert_same(&scene.place.at("new"), &scene.place.at("volume"));
        editor.write(pos, &saved);
    }
}

#[test]
fn a_configuration_is_told_in_words_or_refused() {
    let place = Place::new();
    let file = place.at("ntfsrescue.conf");
    let check = |text: &[u8]| {
        std::fs::write(&file, text).unwrap();
        ours(["--check-config", crate::tools::text(&file)])
    };
    let said = check(b"action = save\r\nsource = all\r\ntarget = LABEL=RESCUE:/{serial}-{part}.img\r\n").ok();
    assert_eq!(
        said.stdout,
        "save: every NTFS volume, to LABEL=RESCUE:/{serial}-{part}.img; then power off, after a failure halt\n"
    );
    assert_eq!(check(b"# nothing yet\n").ok().stdout, "no job: no disk is touched\n");
    let said = check(b"action = save\n\ntraget = x\n").exits(1);
    assert!(
        said.stderr.contains("/ntfsrescue.conf, line 3: traget: unknown key; keys are action, "),
        "{}",
        said.stderr
    );
    check(b"\xff").exits(1).says("line 1: found bytes that are no UTF-8");
    ours(["--check-config", text(&place.at("absent"))]).exits(1).says("ERROR: cannot read '");
    ours(["--check-config", text(&file), "-q"]).exits(1).says("cannot be used with");
}
