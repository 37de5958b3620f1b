//! Targets on file systems without holes: what lies far ahead waits beside the target instead of stalling the reading.
//!
//! The host's kernel has neither vfat nor exFAT. The library is tested here with any reach, by a rescue that is killed
//! again and again; the file systems themselves in QEMU.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ntfsrescue::copy::rescue::{Ending, Keeper, Meter, pump};
use ntfsrescue::event::{Event, Observer};
use ntfsrescue::extent::{ByteRange, ClusterSet, Extent};
use ntfsrescue::image::PlacedImage;
use ntfsrescue::io::ahead::{Ahead, Limits};
use ntfsrescue::io::store::LocalStore;
use ntfsrescue::io::{PlacedSink, ReadError, Sink, Source};
use ntfsrescue::plan::Plan;
use ntfsrescue::rescue::frozen;
use ntfsrescue::rescue::mapstore::MapError;
use ntfsrescue::rescue::mark::mark_lost;
use ntfsrescue::rescue::passes::{Budget, End, Sizes};
use ntfsrescue::rescue::{Areas, Rescue, State};
use ntfsrescue::units::{Geometry, Lcn};

use crate::edit::Editor;
use crate::tools::{assert_same, built, noise, ours, run, shell, text};
use crate::volumes::{Place, mkntfs, small_volume};

const CLUSTER: u64 = 4096;
const MIB: u64 = 1 << 20;

/// A disk of which a zone cannot be read, and the jobs on it that are interrupted after some reads.
struct DyingDisk {
    bytes: Vec<u8>,
    dead: std::ops::Range<u64>,
    /// Reads until the next interruption.
    left: AtomicU64,
}

impl Source for DyingDisk {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.left.fetch_sub(1, Ordering::Relaxed);
        let end = pos + buf.len() as u64;
        if pos < self.dead.end && self.dead.start < end {
            return Err(ReadError { pos, len: buf.len(), cause: io::Error::from_raw_os_error(5) });
        }
        buf.copy_from_slice(&self.bytes[pos as usize..end as usize]);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn sector_size(&self) -> u32 {
        512
    }
}

impl Observer for DyingDisk {
    fn tell(&self, _: Event<'_>) {}

    fn wants_stop(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// A rescue to an image in a folder, with a reach of 256 KiB.
struct Job {
    place: Place,
    plan: Plan,
    disk: DyingDisk,
}

/// The states as the last map has them.
type Map = Vec<(ByteRange, State)>;

impl Job {
    fn sink(&self) -> Ahead<'_> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.place.at("image"))
            .unwrap();
        let image = PlacedImage::new(file, "image".into(), &self.plan).unwrap();
        let limits = Limits {
            path: self.place.at("image.ahead"),
            reach: 256 << 10,
            max_len: u64::MAX,
            volume_len: self.plan.geometry.device_size,
        };
        Ahead::new(Box::new(image), limits).unwrap()
    }

    fn areas_of(&self, map: &Map) -> Areas {
        let mut areas = Areas::new(self.disk.len(), CLUSTER);
        map.iter().for_each(|(range, state)| areas.set(*range, *state));
        areas
    }

    /// Rescues until the disk's reads are used up, and kills the job there: what the last map says, and the end.
    fn run(&self, earlier: &Map, nr_reads: u64) -> (Map, Ending) {
        self.disk.left.store(nr_reads, Ordering::Relaxed);
        let mut sink = self.sink();
        let sizes = Sizes { block: 64 << 10, physical: 512, logical: 512 };
        let mut rescue = Rescue::new(self.areas_of(earlier), self.disk.len(), sizes, Budget::default());
        let domain = rescue.add_domain(self.plan.domain());
        rescue.add_all(&[domain], 0);
        let mut meter = Meter::new(Instant::now(), Duration::from_millis(1));
        let mut keeper = Checker { job: self, map: RefCell::default() };
        let ending = pump(&mut rescue, &self.disk, &mut sink, &mut keeper, &mut meter, &self.disk).unwrap();
        (keeper.map.into_inner(), ending)
    }
}

/// Keeps the map, and sees to it that a kill now would leave what it says.
struct Checker<'a> {
    job: &'a Job,
    map: RefCell<Map>,
}

impl Keeper for Checker<'_> {
    fn keep(&mut self, rescue: &Rescue<'_>) -> Result<(), MapError> {
        let Job { place, plan, disk } = self.job;
        let areas = plan.ranges().flat_map(|range| rescue.areas().within(range));
        let map: Map = areas.map(|area| (area.range, area.state)).collect();
        let killed = Job {
            place: Place::new(),
            plan: Plan::new(plan.geometry, plan.clusters().clone(), plan.nr_used),
            disk: DyingDisk { bytes: Vec::new(), dead: 0..0, left: AtomicU64::new(0) },
        };
        for name in place.names() {
            std::fs::copy(place.at(&name), killed.place.at(&name)).unwrap();
        }
        let sink = killed.sink();
        for (range, _) in map.iter().filter(|(_, state)| *state == State::Finished) {
            assert!(sink.holds(*range));
            let mut found = vec![0; range.len as usize];
            sink.read_back(range.pos, &mut found).unwrap();
            assert!(found == disk.bytes[range.pos as usize..range.end() as usize]);
        }
        *self.map.borrow_mut() = map;
        Ok(())
    }
}

#[test]
fn a_rescue_that_is_killed_again_and_again() {
    const SIZE: u64 = 24 * MIB;
    let mut used = ClusterSet::new(SIZE / CLUSTER);
    for (pos, end) in [(0, 2), (3, 9), (10, 12), (15, 24)] {
        used.insert_extent(Extent {
            lcn: Lcn(pos * MIB / CLUSTER),
            len: (end - pos) * MIB / CLUSTER - 3 * pos,
        });
    }
    let nr_used = used.count();
    let plan = Plan::new(Geometry::new(CLUSTER, SIZE / CLUSTER, SIZE + 512).unwrap(), used, nr_used);
    let disk = DyingDisk {
        bytes: noise(4, SIZE as usize + 512),
        dead: 4 * MIB + 512..8 * MIB - 1024,
        left: AtomicU64::new(0),
    };
    let job = Job { place: Place::new(), plan, disk };
    let mut map = Map::new();
    let mut nr_kills = 0;
    let mut most_ahead = 0;
    loop {
        let (kept, ending) = job.run(&map, 40 + 17 * nr_kills);
        map = kept;
        most_ahead = most_ahead.max(job.place.at("image.ahead").metadata().map_or(0, |file| file.len()));
        if ending == Ending::End(End::Complete) {
            break;
        }
        nr_kills += 1;
    }
    assert!(nr_kills > 5, "{nr_kills}");
    assert!(most_ahead > 5 * MIB, "nothing was ahead: {most_ahead}");
    // Nothing was written over the gap so far.
    let length = job.place.at("image").metadata().unwrap().len();
    assert!(length < 5 * MIB, "{length}");

    let mut wanted = job.disk.bytes.clone();
    let mut sink = job.sink();
    for (range, _) in map.iter().filter(|(_, state)| *state != State::Finished) {
        let data = &mut wanted[range.pos as usize..range.end() as usize];
        mark_lost(range.pos, data, 512);
        sink.put(range.pos, data).unwrap();
    }
    sink.finish().unwrap();
    drop(sink);
    assert_eq!(job.place.names(), ["image"]);
    let file = File::create_new(job.place.at("wanted")).unwrap();
    let mut plain = PlacedImage::new(
        OpenOptions::new().read(true).write(true).open(job.place.at("wanted")).unwrap(),
        "wanted".into(),
        &job.plan,
    )
    .unwrap();
    for range in job.plan.ranges() {
        plain.put(range.pos, &wanted[range.pos as usize..range.end() as usize]).unwrap();
    }
    plain.finish().unwrap();
    drop(file);
    assert_same(&job.place.at("image"), &job.place.at("wanted"));
    let lost: u64 = map.iter().filter(|(_, state)| *state == State::Bad).map(|(range, _)| range.len).sum();
    assert_eq!(lost, 4 * MIB - 1536);
}

/// An image of a small volume with its map, of which the second half lies in an ahead file, as after a kill.
fn cut_in_two(place: &Place) {
    let at = |name| place.at(name);
    small_volume(&at("volume"));
    ours(["-q", "--map", text(&at("map")), "-s", "-o", text(&at("wanted")), text(&at("volume"))]).ok();
    let (plan, _) = frozen::thaw(&LocalStore, &frozen::path_of(&at("map"))).unwrap().unwrap();
    let half = at("wanted").metadata().unwrap().len() / 2;
    std::fs::copy(at("wanted"), at("image.part")).unwrap();
    OpenOptions::new().write(true).open(at("image.part")).unwrap().set_len(half).unwrap();
    std::fs::copy(at("wanted"), at("whole")).unwrap();
    let open = |name| {
        let file = OpenOptions::new().read(true).write(true).open(at(name)).unwrap();
        PlacedImage::new(file, name.into(), &plan).unwrap()
    };
    let limits = Limits {
        path: at("image.ahead"),
        reach: 0,
        max_len: u64::MAX,
        volume_len: plan.geometry.device_size,
    };
    let (whole, cut) = (open("whole"), open("image.part"));
    let mut ahead = Ahead::new(Box::new(cut), limits).unwrap();
    for range in plan.ranges() {
        for pos in (range.pos..range.end()).step_by(CLUSTER as usize) {
            let mut cluster = vec![0; CLUSTER.min(range.end() - pos) as usize];
            whole.read_back(pos, &mut cluster).unwrap();
            if whole.place_of(pos) + 2 * CLUSTER > half {
                ahead.put(pos, &cluster).unwrap();
            }
        }
    }
    ahead.sync().unwrap();
    drop(ahead);
    assert!(at("image.ahead").metadata().unwrap().len() > half);
}

#[test]
fn what_waits_is_found_wherever_the_target_is_now() {
    let place = Place::new();
    let at = |name| place.at(name);
    cut_in_two(&place);
    let saved = ["map", "image.part", "image.ahead"].map(|name| (at(name), std::fs::read(at(name)).unwrap()));
    let restore = || {
        let _absent = std::fs::remove_file(at("image"));
        saved.iter().for_each(|(path, content)| std::fs::write(path, content).unwrap());
    };
    let image = text(&at("image")).to_owned();
    let part = text(&at("image.part")).to_owned();
    let (map, volume) = (text(&at("map")).to_owned(), text(&at("volume")).to_owned());
    for args in [
        &["-q", "--finish", &map, &image][..],
        &["-q", "--map", &map, "-s", "-o", &image, &volume],
        &["-q", "--map", &map, "-s", "-O", &part, &volume],
    ] {
        restore();
        ours(args).ok();
        assert!(!at("image.ahead").exists(), "{args:?}");
        let made = if at("image").exists() { at("image") } else { at("image.part") };
        assert_same(&made, &at("wanted"));
    }
    // Without it the map is not believed.
    restore();
    std::fs::remove_file(at("image.ahead")).unwrap();
    let said = ours(["-q", "--map", &map, "-s", "-o", &image, &volume]).ok();
    said.says("bytes that the map calls finished are not in the target");
    assert_same(&at("image"), &at("wanted"));
}

#[test]
fn what_waits_for_another_target_is_left_alone() {
    let place = Place::new();
    let at = |name| place.at(name);
    cut_in_two(&place);
    std::fs::remove_file(at("image.part")).unwrap();
    std::fs::remove_file(at("map")).unwrap();
    let (image, volume) = (text(&at("image")).to_owned(), text(&at("volume")).to_owned());
    let said = ours(["-q", "--rescue", "-s", "-o", &image, &volume]).exits(1);
    said.says("image.ahead' is an unfinished copy of an earlier run");
    assert!(!at("image.part").exists() && at("image.ahead").exists());
    // It goes with what is overwritten.
    ours(["-q", "--rescue", "-s", "-O", &image, &volume]).ok();
    assert!(!at("image.ahead").exists());
    assert_same(image.as_ref(), &at("wanted"));
    std::fs::write(at("image.ahead"), "somebody else's notes, which are long enough").unwrap();
    let said = ours(["-q", "--rescue", "-s", "-O", &image, &volume]).exits(1);
    said.says("image.ahead' is in the way");
}

/// The virtual machine's disks: what they are called there, and what they are.
const TARGETS: [(&str, &[&str]); 3] =
    [("ext4", &["mkfs.ext4", "-q", "-F"]), ("vfat", &["mkfs.vfat", "-F", "32"]), ("exfat", &["mkfs.exfat"])];

/// Runs in the machine in the place of its init: a rescue to each file system, and what that cost.
const SCRIPT: &str = r#"#!/bin/busybox sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
busybox modprobe -a virtio_pci virtio_blk ext4 crc32c_generic vfat exfat nls_ascii nls_cp437 nls_iso8859_1 nls_utf8
ln -s /init /tmp/ntfsrescue
sectors() { while read -r _ _ name _ _ _ _ _ _ written _; do [ "$name" = "$1" ] && echo "$written"; done </proc/diskstats; }
for block in /sys/block/vd*; do
    serial=$(cat "$block/serial")
    eval "$serial=${block##*/}"
done
for kind in ext4 vfat exfat; do
    eval "disk=\$$kind"
    mkdir "/mnt/$kind"
    mount -t "$kind" "/dev/$disk" "/mnt/$kind" || echo "REACH failed: cannot mount $kind"
    before=$(sectors "$disk")
    cd "/mnt/$kind"
    /tmp/ntfsrescue -q --rescue --max-errors 40 --map map --report report -s -o image "/dev/$source"
    echo "REACH $kind.status=$?"
    echo "REACH $kind.written=$(($(sectors "$disk") - before))"
    echo "REACH $kind.seconds=$(tr -d ' ' <report | tr , '\n' | sed -n 's/.*"elapsed":\([0-9]*\).*/\1/p')"
    echo "REACH $kind.left=$(ls | tr '\n' ' ')"
    cmp image /mnt/ext4/image && echo "REACH $kind.same=1"
done
cd /; umount /mnt/*
poweroff -f
"#;

/// Adds a script to the bootable system that takes the place of its init.
fn with_script(place: &Place) -> PathBuf {
    let initrd = place.at("initrd");
    std::fs::create_dir(place.at("root")).unwrap();
    std::fs::write(place.at("root/script"), SCRIPT).unwrap();
    shell(&format!(
        "cp {base} {initrd}; truncate -s %4 {initrd}; cd {root}; chmod 755 script; \
         echo script | cpio --quiet -o -H newc >>{initrd}",
        base = text(&built("initramfs/initramfs.cpio.zst")),
        initrd = text(&initrd),
        root = text(&place.at("root")),
    ))
    .ok();
    initrd
}

/// Boots a machine with a source that cannot be read at these sectors and no faster than so many bytes a second.
fn boot(place: &Place, source: &Path, bad: &[u64], bytes_per_second: u64) -> String {
    let rules = bad.iter().map(|sector| {
        format!("[inject-error]\nevent = \"none\"\niotype = \"read\"\nerrno = \"5\"\nsector = \"{sector}\"\n")
    });
    std::fs::write(place.at("rules"), rules.collect::<String>()).unwrap();
    let mut qemu = Command::new("timeout");
    qemu.args(["--kill-after=5", "600", "qemu-system-x86_64", "-machine", "q35"]);
    let kvm = std::env::var_os("QEMU_KVM").is_some_and(|kvm| kvm == "1");
    qemu.args(["-accel", if kvm { "kvm" } else { "tcg" }]);
    qemu.args(["-m", "384", "-nographic", "-no-reboot", "-nic", "none"]);
    qemu.arg("-kernel").arg(built("initramfs/vmlinuz")).arg("-initrd").arg(with_script(place));
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet rdinit=/script"]);
    qemu.args(["-object", &format!("throttle-group,id=slow,x-bps-read={bytes_per_second}")]);
    for node in [
        format!("driver=file,filename={},node-name=file", text(source)),
        format!("driver=blkdebug,image=file,config={},node-name=faults", text(&place.at("rules"))),
        "driver=throttle,throttle-group=slow,file=faults,node-name=throttle".into(),
        "driver=raw,file=throttle,node-name=source".into(),
    ] {
        qemu.args(["-blockdev", &node]);
    }
    qemu.args(["-device", "virtio-blk-pci,drive=source,serial=source"]);
    for (kind, mkfs) in TARGETS {
        let disk = place.at(kind);
        File::create(&disk).unwrap().set_len(600 * MIB).unwrap();
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&disk)).ok();
        qemu.args(["-blockdev", &format!("driver=file,filename={},node-name=file-{kind}", text(&disk))]);
        qemu.args(["-blockdev", &format!("driver=raw,file=file-{kind},node-name={kind}")]);
        qemu.args(["-device", &format!("virtio-blk-pci,drive={kind},serial={kind}")]);
    }
    let said = run(&mut qemu);
    assert_eq!(said.status, 0, "the machine did not end by itself:\n{}\n{}", said.stdout, said.stderr);
    said.stdout.replace('\r', "")
}

#[test]
fn a_dead_zone_costs_no_zeros_on_fat() {
    // Used are: some metadata, a zone that is dead, and a part behind it.
    const DEAD: (u64, u64) = (200 * MIB, 100 * MIB);
    const BEHIND: (u64, u64) = (900 * MIB, 24 * MIB);
    const BYTES_PER_SECOND: u64 = 3 * MIB;
    let place = Place::new();
    let volume = place.at("volume");
    mkntfs(&volume, 1200 * MIB, 512, CLUSTER as u32);
    let editor = Editor::open(&volume);
    for (pos, len) in [DEAD, BEHIND] {
        editor.mark(pos / CLUSTER, len / CLUSTER, true);
    }
    editor.write(BEHIND.0, &noise(5, BEHIND.1 as usize));
    drop(editor);
    let bad: Vec<_> = (DEAD.0..DEAD.0 + DEAD.1).step_by(64 << 10).map(|pos| pos / 512 + 5).collect();
    let console = boot(&place, &volume, &bad, BYTES_PER_SECOND);
    let facts: BTreeMap<_, _> =
        console.lines().filter_map(|line| line.strip_prefix("REACH ")?.split_once('=')).collect();
    let number = |name: String| -> u64 {
        facts.get(name.as_str()).and_then(|value| value.parse().ok()).unwrap_or_else(|| {
            panic!("no {name}:\n{console}");
        })
    };
    for (kind, _) in TARGETS {
        assert_eq!(number(format!("{kind}.status")), 5, "{console}");
        assert_eq!(number(format!("{kind}.same")), 1, "{console}");
        let left = facts.get(format!("{kind}.left").as_str()).unwrap();
        assert_eq!(left.trim().replace(" lost+found", ""), "image map map.plan report");
    }
    let written = |kind| number(format!("{kind}.written")) * 512;
    let seconds = |kind| number(format!("{kind}.seconds"));
    for kind in ["vfat", "exfat"] {
        let more = written(kind) - written("ext4");
        println!(
            "{kind}: {} MiB written, {} s; ext4: {} MiB, {} s",
            written(kind) / MIB,
            seconds(kind),
            written("ext4") / MIB,
            seconds("ext4")
        );
        // What lies behind the zone is written twice; zeros over the zone would come to more.
        assert!(more < BEHIND.1 + 16 * MIB, "{more} bytes more on {kind}:\n{console}");
    }
}
