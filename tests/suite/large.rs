//! Volumes that are large: of many files, and of as many clusters as Windows makes.

use std::path::Path;
use std::process::Command;

use crate::edit::Editor;
use crate::faulty::FaultyDisk;
use crate::tools::{run, shell, text, unmount};
use crate::volumes::{Mounted, Place, mkntfs};
use crate::{compat, metadata};

#[test]
fn a_hundred_thousand_files() {
    let place = Place::new();
    let volume = place.at("volume");
    mkntfs(&volume, 2 << 30, 512, 4096);
    {
        let mounted = Mounted::new(&volume, "big_writes");
        for folder in 0..100 {
            let folder = mounted.path().join(format!("folder {folder}"));
            std::fs::create_dir(&folder).unwrap();
            for file in 0..1000 {
                let content = vec![b'x'; if file % 4 == 0 { file % 600 } else { 0 }];
                std::fs::write(folder.join(format!("file number {file}")), content).unwrap();
            }
        }
    }
    compat::compare(&volume);
    metadata::compare_with(&volume, false, "", &[]);
}

/// A file system in memory, unmounted when dropped: disks do not take files of 64 TiB.
struct Memory<'a>(&'a Path);

impl<'a> Memory<'a> {
    fn mount(at: &'a Path) -> Memory<'a> {
        std::fs::create_dir(at).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=3g", "tmpfs"]).arg(at)).ok();
        Memory(at)
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        unmount(self.0);
    }
}

#[test]
fn sixty_four_terabytes() {
    let place = Place::new();
    let at = place.at("memory");
    let _memory = Memory::mount(&at);
    let volume = at.join("volume");
    // 2^32 - 1 clusters.
    mkntfs(&volume, (1 << 44) * 4 - 4096, 512, 16384);
    let volume = text(&volume);
    // 48 MiB of address space, code and stacks among them.
    let sparing = "ulimit -v 49152; exec $OURS -q";
    // Half a gigabyte of $Bitmap makes the image.
    shell(&format!(
        "({sparing} -s -o - {volume} 2>/dev/null) | cmp - <(ntfsclone -q -s -o - {volume} 2>/dev/null)"
    ))
    .ok();
    let image = text(&at).to_owned() + "/image";
    let said = shell(&format!("{sparing} -ms -o {image} {volume}")).ok();
    let said = said.says("Num of used MFT records  =         ");
    assert!(said.stdout.contains("Wiped resident user data =          0"));
    shell(&format!("{sparing} -r -n {image}")).ok().says("The image's structure is whole.");
    let clone = text(&at).to_owned() + "/clone";
    shell(&format!("{sparing} -m -o {clone} {volume}")).ok();
    let info = |volume: &str| format!("ntfsinfo -m {volume} | grep -v 'Name of device'");
    shell(&format!("cmp <({}) <({})", info(volume), info(&clone))).ok();
    // ntfsclone restores the image to the same bytes: as far as both have any, the rest is holes.
    let theirs = text(&at).to_owned() + "/theirs";
    shell(&format!("ntfsclone -q -r -o {theirs} {image} && cmp -n 2000000000 {clone} {theirs}")).ok();
}

/// Bits of `$Bitmap` in 4 KiB of it.
const BITS: u64 = 4096 * 8;

/// A volume of 1 TiB of which a few clusters are in use everywhere: as many bits are touched as if all were.
fn terabyte(volume: &Path) -> Editor {
    mkntfs(volume, 1 << 40, 512, 4096);
    let editor = Editor::open(volume);
    let bitmap = editor.read(editor.bitmap_pos(), editor.nr_clusters().div_ceil(8));
    let is_free = |lcn: &u64| bitmap[*lcn as usize / 8] & 1 == 0;
    let clusters = (800..editor.nr_clusters()).step_by(BITS as usize);
    clusters.filter(is_free).for_each(|lcn| editor.mark(lcn, 1, true));
    editor
}

#[test]
fn a_terabyte_on_a_machine_of_256_megabytes() {
    let place = Place::new();
    let editor = terabyte(&place.at("volume"));
    // Bad areas everywhere, and a sector of `$Bitmap`, so that it is not known of all clusters whether they are in use.
    let mut bad: Vec<_> = (10..8000).step_by(20).map(|page| (page * BITS + 800) * 8 + 3).collect();
    bad.push(editor.bitmap_pos() / 512 + 8 * 5000 + 3);
    let disk = FaultyDisk::new(&place.at("volume"), 512, &bad);
    let disk = text(&disk.path()).to_owned();
    // 120 MiB of address space, code and stacks among them, for each of its two processes.
    // The allocator of a host's C library sets 64 MiB of that aside for a thread, where they happen to fit; musl's does not.
    let sparing =
        format!("cd {}; ulimit -v 122880; export MALLOC_ARENA_MAX=1; exec $OURS -q", text(&place.at("")));
    for (form, name) in [("-s", "image"), ("", "clone")] {
        let rescue = format!("{sparing} --map {name}.map {form} -o {name} {disk}");
        shell(&rescue).ok().says("Files that lost something: 1").says("/$Bitmap: 512 bytes");
        shell(&rescue).ok().says("Going on where the map says.");
    }
    shell(&format!("{sparing} -r --verify -o restored image")).ok().says("holds what the image holds");
}

#[test]
fn want_of_memory_is_told_before_anything_is_read() {
    let place = Place::new();
    mkntfs(&place.at("volume"), 4 << 30, 512, 512);
    let folder = text(&place.at("")).to_owned();
    // 1 MiB for each set, but 48 MiB for what is read first.
    let needed = 16 + 1 + 48;
    for (free, is_told) in [(needed * 1024 - 1, true), (needed * 1024, false)] {
        let line = format!(
            "cd {folder}; printf 'MemTotal: 249000 kB\\nMemAvailable: {free} kB\\n' >meminfo; rm -f map* image; \
             unshare --mount bash -c 'mount --bind meminfo /proc/meminfo; \
             exec $OURS -q --map map -s -o image volume'"
        );
        let said = shell(&line).ok();
        let at = said.stdout.find("WARNING: this volume needs about 69 MB of memory, 68 MB are free");
        assert_eq!(at.is_some(), is_told, "{}", said.stdout);
        let scan = said.stdout.find("Scanning volume").unwrap();
        assert!(at.is_none_or(|at| at < scan), "{}", said.stdout);
    }
}
