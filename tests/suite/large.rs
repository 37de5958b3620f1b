//! Volumes that are large: of many files, and of as many clusters as Windows makes.

use std::path::Path;
use std::process::Command;

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
