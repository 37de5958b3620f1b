//! Compressed images: those of zstd, lz4, gzip, xz and bzip2 are restored like any other, from files and pipes, and damage
//! in them is found; those that are written are ordinary streams.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use crate::tools::{Said, assert_same, len, ntfsclone, ours, shell, text};
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
            .says(&format!("its {name} stream ends at byte {size:#x}, and what follows is neither"));
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
