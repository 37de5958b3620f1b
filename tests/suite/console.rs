//! The consoles of a boot in QEMU: the page on a screen, lines on a serial port, and Ctrl-C from both.

use std::path::Path;

use crate::machine::{Console, Machine, Running, Scene, disk};
use crate::tools::{assert_same_image, ours, text};

/// A machine that saves a Windows disk, slowly enough to be watched.
fn save(scene: &Scene, consoles: &str) -> Running {
    let file = format!("driver=file,filename={},node-name=below", text(&scene.at("windows.disk")));
    let job =
        "ntfsrescue.action=save ntfsrescue.source=SERIAL=WIN:1 ntfsrescue.target=LABEL=RESCUE:/saved.img";
    Machine::new(&format!("{consoles} {job}"))
        .with(&["-vga", "std", "-object", "throttle-group,id=speed,x-bps-read=1000000", "-blockdev", &file])
        .with(&["-blockdev", "driver=throttle,throttle-group=speed,file=below,node-name=slow"])
        .with(&["-device", "virtio-blk-pci,drive=slow,serial=WIN"])
        .disk(&disk(&scene.at("safe.disk"), "SAFE"))
        .start()
}

/// The colours of a screen's dots, from a picture of it (PPM), each once; a VGA makes some of the bits up.
fn colours(picture: &Path) -> Vec<[u8; 3]> {
    let bytes = std::fs::read(picture).unwrap();
    let header = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2).unwrap().0 + 1;
    let mut colours: Vec<[u8; 3]> =
        bytes[header..].chunks_exact(3).map(|dot| [dot[0], dot[1], dot[2]].map(|c| c & 0xf8)).collect();
    colours.sort_unstable();
    colours.dedup();
    colours
}

/// Did the save end in order, so that the next boot goes on with it?
fn assert_goes_on(scene: &Scene, ended: &Console) {
    ended.ends("result=failed exit=6").says("asked to stop: telling the worker");
    ended.says("the same command goes on where this ended");
    let map = std::fs::read_to_string(scene.take("saved.img.map")).unwrap();
    assert!(map.lines().any(|line| line.ends_with("  +")), "{map}");
    let console = save(scene, "").ends();
    console.ends("result=ok exit=0").says("Going on where the map says.");
    ours(["-q", "-s", "-o", text(&scene.at("wanted")), text(&scene.at("volume"))]).ok();
    assert_same_image(&scene.take("saved.img"), &scene.at("wanted"));
}

#[test]
fn ctrl_c_on_the_serial_console_ends_a_save_in_order() {
    let scene = Scene::new();
    let mut machine = save(&scene, "");
    machine.prints("the worker starts ");
    machine.prints(" s after the kernel");
    machine.has_saved(20.0);
    machine.types("\x03");
    let console = machine.ends();
    assert_goes_on(&scene, &console);
    // Behind the firmware's there are lines and nothing else; the result is the last of them.
    let ours = console.0.split_once("] [INFO] ntfsrescue ").unwrap().1;
    assert!(!ours.contains('\x1b'), "{}", console.0);
    let last = console.0.trim_end().lines().last().unwrap();
    assert!(last.starts_with("ntfsrescue: result="), "{}", console.0);
}

#[test]
fn a_screen_shows_the_page_and_takes_ctrl_c() {
    let scene = Scene::new();
    let mut machine = save(&scene, "console=tty0");
    let mut control = machine.control();
    machine.has_saved(40.0);
    control.screenshot(&scene.at("picture"));
    let colours = colours(&scene.at("picture"));
    // The heading, the bar, the numbers.
    for wanted in [[0, 0, 0xa8], [0x50, 0xf8, 0x50], [0xf8, 0xf8, 0xf8]] {
        assert!(colours.contains(&wanted), "{wanted:x?} in {colours:x?}");
    }
    control.presses(&["ctrl", "c"]);
    assert_goes_on(&scene, &machine.ends());
}
