//! Images of other versions of the format, damaged ones, and those that go back: all made from real ones.

use std::path::Path;

use crate::tools::{Said, assert_same, assert_same_up_to, len, ntfsclone, ours, shell, text};
use crate::volumes::{Place, fill, mkntfs};

/// Where a header without the offset of the commands ends.
const OLD_HEADER: usize = 46;

/// A volume of 8 MiB with clusters of 4 KiB, its image, and what that restores to.
struct Scene {
    place: Place,
    image: Vec<u8>,
}

/// A command of an image: where it begins, its cluster, how many it skips if it does, where it ends.
struct Command {
    at: usize,
    lcn: i64,
    skip: Option<i64>,
    end: usize,
}

impl Scene {
    fn new() -> Scene {
        let place = Place::new();
        mkntfs(&place.at("volume"), 8 << 20, 512, 4096);
        fill(&place.at("volume"), 20);
        ntfsclone(["-q", "-s", "-o", text(&place.at("image")), text(&place.at("volume"))]).ok();
        ours(["-q", "-o", text(&place.at("wanted")), text(&place.at("volume"))]).ok();
        let image = std::fs::read(place.at("image")).unwrap();
        Scene { place, image }
    }

    fn at(&self, name: &str) -> String {
        text(&self.place.at(name)).to_owned()
    }

    /// The image with another version and offset of its commands; none: without that field.
    fn rewritten(&self, major: u8, minor: u8, offset: Option<u32>) -> Vec<u8> {
        let mut image = [&self.image[..16], &[major, minor], &self.image[18..OLD_HEADER]].concat();
        if let Some(offset) = offset {
            image.extend(offset.to_le_bytes());
            image.resize(offset as usize, 0xa5);
        }
        image.extend(&self.image[56..]);
        image
    }

    fn commands(&self) -> Vec<Command> {
        let nr_clusters = (8 << 20) / 4096 - 1;
        let (mut at, mut lcn, mut commands) = (56, 0, Vec::new());
        while lcn <= nr_clusters {
            let skip = (self.image[at] == 0)
                .then(|| i64::from_le_bytes(self.image[at + 1..at + 9].try_into().unwrap()));
            let end = at + 1 + if skip.is_some() { 8 } else { 4096 };
            commands.push(Command { at, lcn, skip, end });
            (at, lcn) = (end, lcn + skip.unwrap_or(1));
        }
        assert_eq!(at, self.image.len());
        commands
    }

    /// Checks `image` as a file and as a pipe.
    fn check(&self) -> [Said; 2] {
        let image = self.at("image");
        [ours(["-q", "-r", "-n", &image]), shell(&format!("cat {image} | $OURS -q -r -n -"))]
    }

    /// Restores `image` as a file and as a pipe, to a file and to a pipe, to the same bytes.
    #[track_caller]
    fn assert_restores(&self, wanted: &Path) {
        let (image, restored) = (self.at("image"), self.at("restored"));
        for line in [
            format!("$OURS -q -r -O {restored} {image}"),
            format!("cat {image} | $OURS -q -r -O {restored} -"),
            format!("$OURS -q -r -o - {image} | cat > {restored}"),
            format!("cat {image} | $OURS -q -r -o - - | cat > {restored}"),
        ] {
            shell(&line).ok();
            assert_same(Path::new(&restored), wanted);
        }
    }
}

#[test]
fn versions_and_offsets() {
    let scene = Scene::new();
    for (major, minor, offset) in [
        (10, 1, Some(56)),
        (10, 0, Some(56)),
        (10, 2, Some(56)),
        (10, 200, Some(56)),
        (10, 1, Some(50)),
        (10, 1, Some(4096)),
        (10, 1, Some(4097)),
        (9, 0, None),
        (9, 1, None),
        (8, 3, None),
        (0, 0, None),
    ] {
        println!("{major}.{minor}, commands at {offset:?}");
        let image = scene.rewritten(major, minor, offset);
        std::fs::write(scene.at("image"), &image).unwrap();
        scene.assert_restores(&scene.place.at("wanted"));
        let version = format!("Ntfsclone image version: {major}.{minor}");
        for said in scene.check() {
            said.ok().says(&version);
        }
        let theirs = scene.place.at("theirs");
        ntfsclone(["-q", "-r", "-O", text(&theirs), &scene.at("image")]).ok();
        assert_same(&theirs, &scene.place.at("wanted"));

        // The first versions end before the cluster with the backup boot sector.
        std::fs::write(scene.at("image"), &image[..image.len() - 4097]).unwrap();
        let mut short = std::fs::read(scene.place.at("wanted")).unwrap();
        let nr_bytes = short.len();
        short[nr_bytes - 4096..].fill(0);
        std::fs::write(scene.at("short"), short).unwrap();
        scene.assert_restores(&scene.place.at("short"));
        for said in scene.check() {
            said.ok().says("WARNING: the image holds no backup boot sector");
        }
        ntfsclone(["-q", "-r", "-O", text(&theirs), &scene.at("image")]).ok();
        assert_same_up_to(&theirs, &scene.place.at("short"), len(&theirs));
    }
}

#[test]
fn versions_that_nobody_has_described() {
    let scene = Scene::new();
    for major in [11, 255] {
        std::fs::write(scene.at("image"), scene.rewritten(major, 1, Some(56))).unwrap();
        let message =
            format!("image version {major}.1 is not known (byte 0x10 of the image); versions up to 10 are");
        for said in scene.check() {
            said.exits(1).says(&message);
        }
        ours(["-r", "-o", &scene.at("new"), &scene.at("image")]).exits(1).says(&message);
        ntfsclone(["-r", "-o", &scene.at("theirs"), &scene.at("image")]).exits(1);
        assert_eq!(scene.place.names(), ["image", "volume", "wanted"]);
    }
}

#[test]
fn damage_is_named_by_its_place_in_the_image() {
    let scene = Scene::new();
    let image = &scene.image;
    let commands = scene.commands();
    let data = commands.iter().rfind(|command| command.skip.is_none() && command.lcn < 2000).unwrap();
    let skip = commands.iter().find(|command| command.skip.is_some()).unwrap();
    let extra = commands.last().unwrap();
    let nr = (8 << 20) / 4096 - 1;
    let cut = |at: usize, what: &str, lcn: i64| {
        let message = if lcn < 0 {
            format!("it ends in {what} of cluster")
        } else {
            format!("it ends in {what} of cluster {lcn} of {nr}\n")
        };
        (image[..at].to_vec(), format!("image is cut off at its byte {at:#x}: {message}"))
    };
    let replaced = |at: usize, bytes: &[u8], message: String| {
        let damaged = [&image[..at], bytes, &image[at + bytes.len()..]].concat();
        (damaged, format!("image is damaged at its byte {at:#x}: {message}"))
    };
    let skips = |command: &Command, count: i64| {
        let bytes = [&[0][..], &count.to_le_bytes()].concat();
        let lcn = command.lcn;
        replaced(command.at, &bytes, format!("skip of {count} clusters from cluster {lcn} of {nr}\n"))
    };
    let bad = |command: &Command, byte: u8| {
        let lcn = command.lcn;
        let message = format!("found command {byte:#04x} for cluster {lcn}, wanted 0 or 1\n");
        replaced(command.at, &[byte], message)
    };
    for (damaged, message) in [
        (Vec::new(), "image is cut off at its byte 0x0: it ends in the header".to_owned()),
        (image[..20].to_vec(), "image is cut off at its byte 0x14: it ends in the header".to_owned()),
        (b"\0ntfsclone-imagX".to_vec(), "not an ntfsclone image: wrong magic at its byte 0x0".to_owned()),
        cut(OLD_HEADER, "the header", -1),
        cut(48, "the header", -1),
        cut(53, "the header", -1),
        (scene.rewritten(9, 0, None)[..OLD_HEADER].to_vec(), cut(OLD_HEADER, "the command", 0).1),
        cut(56, "the command", 0),
        cut(57, "the data", 0),
        cut(data.at, "the command", data.lcn),
        cut(data.at + 1, "the data", data.lcn),
        cut(data.at + 1 + 700, "the data", data.lcn),
        cut(data.end - 1, "the data", data.lcn),
        cut(skip.at, "the command", skip.lcn),
        cut(skip.at + 1, "the skip", skip.lcn),
        cut(skip.at + 5, "the skip", skip.lcn),
        cut(extra.at + 1, "the data", nr),
        cut(image.len() - 1, "the data", nr),
        bad(&commands[0], 2),
        bad(data, 0xff),
        bad(skip, 0x80),
        bad(extra, 7),
        skips(&commands[0], -1),
        skips(skip, 0),
        skips(skip, nr - skip.lcn + 1),
        skips(skip, -skip.lcn - 1),
        skips(skip, i64::MIN),
        skips(skip, i64::MAX),
    ] {
        println!("{message}");
        std::fs::write(scene.at("image"), damaged).unwrap();
        for said in scene.check() {
            let said = said.exits(1).says(&message);
            assert_eq!(said.stdout.matches("ERROR: ").count(), 1, "{}", said.stdout);
        }
    }
}

#[test]
fn what_follows_the_last_command_is_ignored() {
    let scene = Scene::new();
    std::fs::write(scene.at("image"), [&scene.image[..], &[9; 5000]].concat()).unwrap();
    scene.assert_restores(&scene.place.at("wanted"));
    for said in scene.check() {
        said.ok();
    }
}

#[test]
fn metadata_images() {
    let scene = Scene::new();
    let (volume, image, theirs, restored) =
        (scene.at("volume"), scene.at("image"), scene.at("theirs"), scene.at("restored"));

    // ntfsclone's goes back: that restores to a file, from a pipe too, and to no pipe.
    ntfsclone(["-q", "-m", "-s", "-O", &image, &volume]).ok();
    ntfsclone(["-q", "-r", "-O", &theirs, &image]).ok();
    for said in scene.check() {
        said.ok();
    }
    for line in
        [format!("$OURS -q -r -O {restored} {image}"), format!("cat {image} | $OURS -q -r -O {restored} -")]
    {
        shell(&line).ok();
        assert_same(Path::new(&restored), Path::new(&theirs));
    }
    for line in [
        format!("$OURS -q -r -o - {image} | cat > {restored}"),
        format!("cat {image} | $OURS -q -r -o - - | cat > {restored}"),
    ] {
        let said = shell(&line).exits(1);
        assert_eq!(said.stderr.matches("ERROR: ").count(), 1, "{}", said.stderr);
        said.says("ERROR: standard output can only be written in order: byte ")
            .says("restore to a file or device");
    }

    // Ours does not.
    ours(["-q", "-m", "-s", "-O", &image, &volume]).ok();
    ntfsclone(["-q", "-r", "-O", &theirs, &image]).ok();
    assert_eq!(len(Path::new(&theirs)), 8 << 20);
    scene.assert_restores(Path::new(&theirs));
    for said in scene.check() {
        said.ok();
    }
}
