//! Fault patterns: what is wrong with a disk, drawn from a seed and from what is where on its volume.
//!
//! Damage does not know what is in use, so where a pattern is not about certain structures it lies in free space as
//! well; how much there is of it is measured by what it hits of the used sectors.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use crate::sectors::{SECTOR, Sectors};
use crate::shared::random::Random;
use crate::volume::Healthy;

/// Sectors of a MiB, and of a block of a disk with physical sectors of 4 KiB.
const MIB: u64 = (1 << 20) / SECTOR;
const BLOCK: u64 = 8;

/// A kind of damage.
pub struct Pattern {
    /// Its name, as typed and shown.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Is so much unreadable that trying each sector of it takes days? Then runs are cut at
    /// [`CUT_S`](crate::tools::CUT_S), all but those of the first seed.
    pub endless: bool,
    draw: fn(&mut Faults, &Healthy, &mut Random),
}

/// All patterns.
pub const PATTERNS: &[Pattern] = &[
    Pattern {
        name: "scattered",
        about: "bad spots of 1 to 8 sectors all over, 40 of them in used places; 30 MiB that read slowly",
        endless: false,
        draw: |faults, volume, random| {
            faults.spots(volume, random, 40, 1..=8);
            faults.slow_zone(volume, random);
        },
    },
    Pattern {
        name: "scratch",
        about: "12 MiB around a used place in which a tenth of the 4 KiB blocks is bad",
        endless: false,
        draw: |faults, volume, random| faults.scratch(volume, random),
    },
    Pattern {
        name: "mixed",
        about: "20 bad spots in used places and as dense elsewhere, a scratch, 30 MiB that read slowly",
        endless: false,
        draw: |faults, volume, random| {
            faults.spots(volume, random, 20, 1..=8);
            faults.scratch(volume, random);
            faults.slow_zone(volume, random);
        },
    },
    Pattern {
        name: "dead-head",
        about: "one zone in four is dead, zones of 2 to 6 MiB",
        endless: true,
        draw: |faults, volume, random| faults.dead_head(volume, random),
    },
    Pattern {
        name: "metadata",
        about: "8 bad spots in $MFT, 2 in $Bitmap, with some seeds record 0 or the boot sector; 15 spots in used places",
        endless: false,
        draw: |faults, volume, random| faults.metadata(volume, random),
    },
    Pattern {
        name: "dead-start",
        about: "the first 1 to 4 MiB are dead, with the beginning of $MFT; 15 bad spots in used places",
        endless: false,
        draw: |faults, volume, random| {
            faults.bad(0..random.within(MIB..=4 * MIB));
            faults.spots(volume, random, 15, 1..=8);
        },
    },
    Pattern {
        name: "many-small",
        about: "300 single bad sectors in used places, and as dense elsewhere",
        endless: false,
        draw: |faults, volume, random| faults.spots(volume, random, 300, 1..=1),
    },
];

/// What is wrong with one disk.
pub struct Faults {
    /// Lines for the plugin.
    lines: String,
    /// The sectors that can never be read.
    pub bad: Sectors,
}

impl Pattern {
    /// The pattern of this name.
    pub fn named(name: &str) -> Option<&'static Pattern> {
        PATTERNS.iter().find(|pattern| pattern.name == name)
    }

    /// Draws the faults of a disk with this volume.
    pub fn draw(&self, volume: &Healthy, seed: u64) -> Faults {
        let mut faults = Faults { lines: format!("# {} {seed}\n", self.name), bad: Sectors::new(volume.len) };
        (self.draw)(&mut faults, volume, &mut Random::new(self.name, seed));
        faults
    }
}

impl Faults {
    /// Writes the file that the plugin reads.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let bad = self.bad.ranges();
        let bad: String =
            bad.iter().map(|range| format!("bad {} {}\n", range.start, range.end - 1)).collect();
        fs::write(path, self.lines.clone() + &bad)
    }

    /// What of these sectors can be read.
    pub fn readable(&self, of: &Sectors) -> Sectors {
        let mut readable = of.clone();
        readable.remove_all(&self.bad);
        readable
    }

    fn bad(&mut self, range: Range<u64>) {
        self.bad.insert_range(range);
    }

    /// Bad spots anywhere, until so many of them have hit something in use.
    fn spots(
        &mut self,
        volume: &Healthy,
        random: &mut Random,
        nr_in_use: u64,
        len: std::ops::RangeInclusive<u64>,
    ) {
        let mut nr_hits = 0;
        while nr_hits < nr_in_use {
            let start = random.below(volume.len / SECTOR - BLOCK);
            let spot = start..start + random.within(len.clone());
            nr_hits += u64::from(spot.clone().any(|sector| volume.used.contains(sector)));
            self.bad(spot);
        }
    }

    /// Bad spots that begin within `place`.
    fn spots_in(&mut self, place: &Sectors, random: &mut Random, nr: u64) {
        for _ in 0..nr {
            let start = any_of(place, random);
            let len = random.within(1..=BLOCK);
            let inside = (start..start + len).take_while(|sector| place.contains(*sector)).count() as u64;
            self.bad(start..start + inside);
        }
    }

    /// A stretch of 30 MiB, somewhere with data, that costs 12 s more if it is read whole.
    fn slow_zone(&mut self, volume: &Healthy, random: &mut Random) {
        let start = any_of(&volume.used, random).min(volume.len / SECTOR - 30 * MIB);
        self.lines += &format!("slow {start} {} 400\n", start + 30 * MIB - 1);
    }

    /// 12 MiB in which a tenth of the physical blocks is bad.
    fn scratch(&mut self, volume: &Healthy, random: &mut Random) {
        let middle = any_of(&volume.used, random);
        let start = middle.saturating_sub(6 * MIB).min(volume.len / SECTOR - 12 * MIB) / BLOCK * BLOCK;
        for block in (start..start + 12 * MIB).step_by(BLOCK as usize) {
            if random.below(10) == 0 {
                self.bad(block..block + BLOCK);
            }
        }
    }

    /// The disk writes a few MiB with one head, then goes on with the next; the zones are not quite of one size.
    fn dead_head(&mut self, volume: &Healthy, random: &mut Random) {
        let zone = random.within(2 * MIB..=6 * MIB);
        let dead = random.below(4);
        let mut at = 0;
        for number in 0.. {
            let end = (at + zone * random.within(90..=110) / 100).min(volume.len / SECTOR);
            if number % 4 == dead {
                self.bad(at..end);
            }
            if end == volume.len / SECTOR {
                break;
            }
            at = end;
        }
    }

    fn metadata(&mut self, volume: &Healthy, random: &mut Random) {
        self.spots_in(&volume.mft, random, 8);
        self.spots_in(&volume.bitmap, random, 2);
        match random.below(4) {
            // $MFT's own record: its copy is in $MFTMirr.
            0 => self.bad(volume.mft.ranges().first().map_or(0..0, |mft| mft.start..mft.start + 1)),
            // The boot sector: its copy is at the end.
            1 => self.bad(0..1),
            _ => {}
        }
        self.spots(volume, random, 15, 1..=8);
    }
}

/// A sector of the set.
fn any_of(set: &Sectors, random: &mut Random) -> u64 {
    let ranges = set.ranges();
    let mut nth = random.below(set.count());
    for range in ranges {
        let len = range.end - range.start;
        if nth < len {
            return range.start + nth;
        }
        nth -= len;
    }
    0
}
