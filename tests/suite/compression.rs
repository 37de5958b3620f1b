//! Compressed images: those of zstd, lz4, gzip, xz and bzip2 are restored like any other, from files and pipes, and damage
//! in them is found; those that are written are ordinary streams.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use crate::tools::{Loop, Said, assert_same, len, ntfsclone, ours, shell, text};
use crate::volumes::{Place, small_volume};

/// A volume, `image` with checksums, `plain`, the same by ntfsclone, and `wanted`, what is restored of both.
fn scene() -> Place {
    let place = Place::new();
    small_volume(&place.at("volume"));
    ours(["-q", "-s", "-o", text(&place.at("image")), text(&place.at("volume"))]).ok();
    ntfsclone(["-q", "-s", "-o", text(&place.at("plain")), text(&place.at("volume"))]).ok();
    ntfsclone(["-q", "-r", "-o", text(&place.at("wanted")), text(&place.at("plain"))]).ok();
    place
}

/// Runs a shell command line in the folder.
fn shell_in(place: &Place, line: &str) -> Said {
    shell(&format!("cd {}; {line}", text(&place.at(""))))
}

/// Restores the file `from` in both ways, and compares what comes of it.
#[track_caller]
fn assert_restored(place: &Place, from: &str) {
    for line in ["$OURS -q -r -O got FROM", "cat FROM | $OURS -q -r -O got -"] {
        let line = line.replace("FROM", from);
        println!("{line}");
        shell_in(place, &line).ok();
        assert_same(&place.at("got"), &place.at("wanted"));
        std::fs::remove_file(place.at("got")).unwrap();
    }
}

/// Each program and what it is called with, in the ways that are common.
const PROGRAMS: &[&str] = &[
    "zstd -c",
    "zstd -c -1 --no-check",
    "zstd -c -T0 -19 --long=27",
    "zstd -c --no-content-size --adapt",
    "lz4 -c",
    "lz4 -c -9 -BD -B4 -BX --content-size",
    "lz4 -c -BI -B7 --no-frame-crc",
    "gzip -c",
    "gzip -c -1 -n",
    "xz -c -1",
    "xz -c -0 --check=none",
    "xz -c -1 --check=sha256 --block-size=1MiB",
    "xz -c --x86 --lzma2=preset=9",
    "bzip2 -c",
    "bzip2 -c -1",
];

#[test]
fn images_that_others_have_compressed_are_restored() {
    let place = scene();
    let size = len(&place.at("plain"));
    for program in PROGRAMS {
        for image in ["image", "plain"] {
            println!("{program} {image}");
            shell_in(&place, &format!("{program} < {image} > packed")).ok();
            assert_restored(&place, "packed");
            let wanted = match image {
                "image" => format!("Its checksums are right: {size} bytes in "),
                _ => "It has no checksums: only the structure was checked.".into(),
            };
            for line in ["$OURS -r -n packed", "$OURS --verify packed", "cat packed | $OURS --verify -"] {
                shell_in(&place, line).ok().says(&wanted);
            }
        }
    }
    shell_in(&place, "$OURS --verify --against volume packed")
        .ok()
        .says("The volume holds what the image holds.");
    shell_in(&place, "$OURS -r --verify -O got packed").ok().says("The target holds what the image holds.");
    shell_in(&place, "$OURS -q -r --new-serial -O got packed").ok();
}

/// As of tools that compress by many threads, and as of `cat a.gz b.gz`.
#[test]
fn streams_behind_each_other_are_read_to_the_end() {
    let place = scene();
    shell_in(&place, "split -n 5 image piece.; split -n 1 /dev/null none.; : > none").ok();
    let skippable = r"'\x53\x2a\x4d\x18\x05\0\0\0abcde'";
    for program in ["zstd -c", "lz4 -c", "gzip -c", "xz -1 -c", "bzip2 -c"] {
        println!("{program}");
        shell_in(&place, &format!("for p in piece.*; do {program} < $p; {program} < none; done > packed"))
            .ok();
        assert_restored(&place, "packed");
        shell_in(&place, "head -c 8192 /dev/zero >> packed").ok();
        assert_restored(&place, "packed");
        if let "zstd -c" | "lz4 -c" = program {
            let line = format!(
                "{{ printf {skippable}; for p in piece.*; do {program} < $p; printf {skippable}; done; }} > packed"
            );
            shell_in(&place, &line).ok();
            assert_restored(&place, "packed");
        }
    }
    shell_in(&place, "{ xz -1 -c piece.aa; head -c 64 /dev/zero; cat piece.a[b-e] | xz -1 -c; } > packed")
        .ok();
    assert_restored(&place, "packed");
    // Parts are put together before they are decompressed.
    shell_in(&place, "zstd -qc image | split -b 1M --numeric-suffixes=1 -a 3 - parts.").ok();
    for from in ["parts.001", "parts"] {
        shell_in(&place, &format!("$OURS -q -r -O got {from}")).ok();
        assert_same(&place.at("got"), &place.at("wanted"));
    }
    shell_in(&place, "rm $(ls parts.* | tail -n 1); $OURS -q -r -n parts")
        .exits(1)
        .says("its zstd stream is cut off at byte 0x")
        .says("; its last part is 'parts.0");
}

/// Wherever a stream is cut or changed, that is told, and nothing is overwritten from a file.
#[test]
fn damaged_streams_are_refused_before_anything_is_written() {
    let place = scene();
    std::fs::write(place.at("target"), "old").unwrap();
    for program in ["zstd -c", "lz4 -c", "gzip -c", "xz -0 -c", "bzip2 -c"] {
        let name = program.split(' ').next().unwrap();
        // Without checksums of ours, so that it is the stream's own that find it.
        shell_in(&place, &format!("{program} < plain > whole")).ok();
        let size = len(&place.at("whole"));
        for cut in [7, size / 3, size - 3, size - 1] {
            shell_in(&place, &format!("head -c {cut} whole > packed")).ok();
            for line in
                ["$OURS -q -r -O target packed", "$OURS -q -r -n - < packed", "$OURS -q --verify packed"]
            {
                println!("{program}, {cut} of {size} bytes: {line}");
                let said = shell_in(&place, line).exits(1);
                let wanted = format!("its {name} stream is cut off at byte {cut:#x}");
                let said = said.says("cannot read the image at its byte 0x").says(&wanted);
                assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
            }
        }
        for at in (0..12).map(|i| size * i / 12 + 9) {
            shell_in(&place, "cp whole packed").ok();
            let file = OpenOptions::new().read(true).write(true).open(place.at("packed")).unwrap();
            let mut bytes = [0; 2];
            file.read_exact_at(&mut bytes, at).unwrap();
            file.write_all_at(&bytes.map(|byte| byte ^ 0x55), at).unwrap();
            println!("{program}, byte {at} of {size}");
            let said = shell_in(&place, "$OURS -q -r -O target packed");
            // What is no content may be as it likes: a name, a time, padding.
            if said.status == 0 {
                assert_same(&place.at("target"), &place.at("wanted"));
                std::fs::write(place.at("target"), "old").unwrap();
                continue;
            }
            assert_eq!(said.exits(1).says("image").stderr.lines().count(), 1);
            assert_eq!(std::fs::read(place.at("target")).unwrap(), b"old");
        }
        assert_eq!(std::fs::read(place.at("target")).unwrap(), b"old");
        shell_in(&place, "{ cat whole; echo something else; } > packed; $OURS -q -r -n packed")
            .exits(1)
            .says(&format!(
                "its {name} stream ends before byte {size:#x}, and what follows is no part of it"
            ));
    }
    // What is not an image stays none, however it is packed.
    shell_in(&place, "echo no image | gzip > packed; $OURS -q -r -n packed")
        .exits(1)
        .says("not an ntfsclone image");
}

/// From a pipe it is known too late.
#[test]
fn damage_in_a_pipe_is_told_with_what_was_written() {
    let place = scene();
    shell_in(&place, "gzip -c image > packed; head -c -5 packed | $OURS -q -r -o got -")
        .exits(1)
        .says("its gzip stream is cut off at byte 0x")
        .says("was written to 'got.part' before the damage was known");
    shell_in(&place, "rm got.part; head -c 100000 packed | $OURS -q -r -o got -")
        .exits(1)
        .says("its gzip stream is cut off at byte 0x186a0")
        .says("what was copied so far is left in 'got.part'");
}

/// A stream says how much memory it wants: more than is common is refused before it is taken.
#[test]
fn memory_has_a_limit() {
    let place = scene();
    shell_in(&place, "zstd -qc --long=29 -1 < image > packed; $OURS -q -r -n packed").exits(1).says(
        "its zstd stream needs a window of more than 128 MiB at byte 0x0: \
         decompress it with 'zstd -dc --long=31 IMAGE | ntfsrescue --restore-image -'",
    );
    shell_in(&place, "zstd -dc --long=31 packed | $OURS -q -r -n -").ok();
    shell_in(
        &place,
        "xz -c --lzma2=dict=128MiB,mode=fast,mf=hc3,nice=8 < image > packed; $OURS -q -r -n packed",
    )
    .exits(1)
    .says(
        "its xz stream needs a dictionary of more than 64 MiB at byte 0x0: decompress it with 'xz -dc IMAGE",
    );
    // Those that are common do: what is taken is counted.
    for program in ["zstd -qc --long=27", "xz -9 -c", "lz4 -qc -B7 -BD", "bzip2 -9 -c"] {
        println!("{program}");
        shell_in(&place, &format!("{program} < image > packed")).ok();
        shell_in(&place, "ulimit -v 400000; $OURS -q -r -n packed").ok();
    }
}

/// Reads a stream's seek table: bytes of each frame and of its content.
fn frames_of(stream: &[u8]) -> Vec<(u64, u64)> {
    let number = |at: usize| u64::from(u32::from_le_bytes(stream[at..at + 4].try_into().unwrap()));
    let foot = stream.len() - 9;
    assert_eq!((number(foot + 5), stream[foot + 4]), (0x8f92_eab1, 0), "magic and flags of the seek table");
    let nr_frames = number(foot) as usize;
    let begin = foot - nr_frames * 8;
    assert_eq!((number(begin - 8), number(begin - 4)), (0x184d_2a5e, nr_frames as u64 * 8 + 9));
    let frames: Vec<_> =
        (0..nr_frames).map(|nr| (number(begin + nr * 8), number(begin + nr * 8 + 4))).collect();
    assert_eq!(frames.iter().map(|(frame, _)| frame).sum::<u64>(), begin as u64 - 8);
    frames
}

const COMPRESSIONS: &[&str] = &["zstd", "zstd:1", "zstd:22", "lz4"];

#[test]
fn what_is_written_is_an_ordinary_stream() {
    let place = scene();
    for name in COMPRESSIONS {
        let (program, _) = name.split_once(':').unwrap_or((name, ""));
        println!("{name}");
        shell_in(&place, &format!("rm -f packed; $OURS -q -s --compress {name} -o packed volume")).ok();
        assert!(!place.at("packed.part").exists());
        assert!(len(&place.at("packed")) < len(&place.at("image")));
        shell_in(&place, &format!("{program} -q --test packed; {program} -qdc packed > unpacked")).ok();
        assert_same(&place.at("unpacked"), &place.at("image"));
        let line = format!("rm -f got; {program} -qdc packed | {{ ntfsclone -q -r -o got -; cat > rest; }}");
        shell_in(&place, &line).ok();
        assert_same(&place.at("got"), &place.at("wanted"));
        std::fs::remove_file(place.at("got")).unwrap();
        assert_restored(&place, "packed");
        shell_in(&place, "$OURS -r -n packed").ok().says("Its checksums are right: ");

        let to_stdout = format!("$OURS -q -s --checksum --compress {name} -o - volume | cat > other");
        shell_in(&place, &to_stdout).ok();
        assert_same(&place.at("other"), &place.at("packed"));
        shell_in(&place, &format!("$OURS -q -s --compress {name} -o - volume | {program} -qdc > unpacked"))
            .ok();
        assert_same(&place.at("unpacked"), &place.at("plain"));
        shell_in(&place, &format!("$OURS -q -s --no-checksum --compress={name} -O other volume")).ok();
        shell_in(&place, &format!("{program} -qdc other > unpacked")).ok();
        assert_same(&place.at("unpacked"), &place.at("plain"));
    }
}

/// Each frame can be read without the others: they are where the table says, and tell the length of their content.
#[test]
fn the_seek_table_tells_where_frames_are() {
    let place = scene();
    shell_in(&place, "$OURS -q -s --compress zstd:1 -o packed volume").ok();
    let (packed, image) =
        (std::fs::read(place.at("packed")).unwrap(), std::fs::read(place.at("image")).unwrap());
    let frames = frames_of(&packed);
    assert!(frames.len() > 1, "{frames:?}");
    let (mut at, mut content_at) = (0, 0);
    for (nr, (frame, content)) in frames.iter().enumerate() {
        assert!(*content == 4 << 20 || nr + 1 == frames.len(), "{frames:?}");
        std::fs::write(place.at("frame.zst"), &packed[at..at + *frame as usize]).unwrap();
        let listed = shell_in(&place, "zstd -lv frame.zst").ok();
        let size = format!("({content} B)");
        listed.says("Check: XXH64").says(&size);
        shell_in(&place, "zstd -qdc frame.zst > content").ok();
        assert!(std::fs::read(place.at("content")).unwrap() == image[content_at..][..*content as usize]);
        (at, content_at) = (at + *frame as usize, content_at + *content as usize);
    }
    assert_eq!(content_at, image.len());
}

#[test]
fn parts_and_metadata_and_rescues_in_order_are_compressed_too() {
    let place = scene();
    for name in ["zstd", "lz4"] {
        println!("{name}");
        shell_in(
            &place,
            &format!("rm -f parts.* whole; $OURS -q -s --split 1M --compress {name} -o parts volume"),
        )
        .ok();
        shell_in(&place, &format!("$OURS -q -s --compress {name} -o whole volume; cat parts.0* > got")).ok();
        assert_same(&place.at("got"), &place.at("whole"));
        assert!(place.at("parts.002").exists());
        shell_in(&place, "$OURS -q -r -O got parts.001").ok();
        assert_same(&place.at("got"), &place.at("wanted"));
        shell_in(
            &place,
            &format!("$OURS -q -s --rescue --compress {name} -o - volume > got; $OURS -q -r -O got2 got"),
        )
        .ok();
        assert_same(&place.at("got2"), &place.at("wanted"));
        for options in ["-m", "-m --rescue"] {
            shell_in(&place, &format!("$OURS -q -s {options} -O metadata volume; $OURS -q -r -O a metadata"))
                .ok();
            let line = format!(
                "$OURS -q -s {options} --compress {name} -O metadata volume; $OURS -q -r -O b metadata"
            );
            shell_in(&place, &line).ok();
            assert_same(&place.at("a"), &place.at("b"));
        }
    }
}

#[test]
fn what_cannot_be_compressed_is_refused() {
    let place = scene();
    let before = place.names();
    let disk = Loop::attach(&place.at("plain"), 512);
    let to_device = format!("-s --compress zstd -O {} volume", text(&disk.0));
    const UNKNOWN: &str = "--compress: wanted zstd, zstd:1 to zstd:22, or lz4";
    const RESCUE: &str = "leave out --compress and compress the image when it is whole";
    for (args, message) in [
        ("-s --compress gzip -o new volume", UNKNOWN),
        ("-s --compress zstd:0 -o new volume", UNKNOWN),
        ("-s --compress zstd:23 -o new volume", UNKNOWN),
        ("-s --compress lz4:1 -o new volume", UNKNOWN),
        ("-s --compress= -o new volume", UNKNOWN),
        ("--compress zstd -o new volume", "--compress goes with an image that is saved: add --save-image"),
        ("--compress zstd -o - volume", "--compress goes with an image that is saved: add --save-image"),
        ("-r --compress zstd -o new image", "an image that is read tells by itself how it is compressed"),
        ("--verify --compress lz4 image", "an image that is read tells by itself how it is compressed"),
        ("--finish map --compress lz4 image", "--finish needs nothing but the map and the target"),
        ("-s --rescue --compress zstd -o new volume", RESCUE),
        ("-s --map map --compress zstd -o new volume", RESCUE),
        ("-s --report r --compress lz4 --split 1M -O new volume", RESCUE),
        (&to_device, "--compress writes a file or a pipe"),
    ] {
        println!("{args}");
        shell_in(&place, &format!("$OURS -q {args}")).exits(1).says(message);
        assert_eq!(place.names(), before);
    }
}

/// A target that is full or gone is told as it is without compression, with the place in the target.
#[test]
fn what_the_target_refuses_is_told() {
    let place = scene();
    for name in ["zstd", "lz4"] {
        shell_in(&place, &format!("$OURS -q -s --compress {name} -O /dev/full volume"))
            .exits(1)
            .says("at byte 0x0 of '/dev/full': No space left on device");
        shell_in(
            &place,
            &format!("ulimit -f 100; trap '' XFSZ; $OURS -q -s --compress {name} -o new volume"),
        )
        .exits(1)
        .says("of 'new.part': File too large")
        .says("what was copied so far is left in 'new.part'");
        assert!(!place.at("new").exists());
        std::fs::remove_file(place.at("new.part")).unwrap();
        let small = place.at("small");
        std::fs::create_dir(&small).unwrap();
        let line = "mount -t tmpfs -o size=64k none small; trap 'umount small' EXIT; \
                    $OURS -q -s --compress NAME -o small/new volume";
        shell_in(&place, &line.replace("NAME", name))
            .exits(1)
            .says("if it were not compressed: no room for 'small/new'")
            .says("of 'small/new.part': No space left on device");
        std::fs::remove_dir(&small).unwrap();
        // Whoever reads goes away.
        let [ours, plain] = [&*format!("--compress {name}"), ""].map(|options| {
            let line = format!(
                "set +e; $OURS -q -s {options} -o - volume | head -c 9 > got; echo ${{PIPESTATUS[0]}}"
            );
            shell_in(&place, &line).stdout
        });
        assert_eq!(ours, plain);
        assert_ne!(ours, "0\n");
    }
}
