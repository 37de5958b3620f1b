//! How far to jump out of a dead zone, learned from the zones before it.
//!
//! A disk dies in spots, in scratches, or by whole heads: then zones that cannot be read come again and again, each about
//! as long as the last and about as far from it. An error costs seconds and a jump nothing, for what is jumped over is
//! only put off. So the first jump is short, further errors make it longer, and the next zone is left by a jump that
//! would have left the last ones. Where three zones follow each other at the same distance, the next is not tried at all.

/// The first jump of all, in bytes: longer than a spot, shorter than a zone.
const FIRST_JUMP: u64 = 1 << 20;

/// The shortest: a few blocks, which cost little to come back for.
const SHORTEST_JUMP: u64 = 256 << 10;

/// The longest. A dead head's zones are 100 MB to 1 GB long on large disks.
const LONGEST_JUMP: u64 = 1 << 30;

/// How much longer the next jump is while errors go on.
const GROWTH: u64 = 4;

/// Zones shorter than this are spots, which come anywhere.
const SHORTEST_ZONE: u64 = 512 << 10;

/// What is allowed for where a zone begins beyond what was seen, in bytes: two blocks.
const SLACK: u64 = 128 << 10;

/// A zone in which reads fail, as far as it is known.
#[derive(Clone, Copy, Debug)]
struct Zone {
    /// Where the first read failed.
    start: u64,
    /// End of the last read that failed.
    bad_end: u64,
    /// How far the last jump went.
    jump: u64,
    /// Where the first read behind it was good, if one was.
    landed: Option<u64>,
}

/// Zones that come again and again.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    /// Where the next one should begin.
    next: u64,
    /// Where the last one began that was seen.
    heard: u64,
    /// From one start to the next.
    period: u64,
    /// How far a start may be off.
    slack: u64,
    /// Did a zone begin where none should?
    is_lost: bool,
}

/// What was learned about the disk's zones on one way forward over it.
#[derive(Debug, Default)]
pub struct Zones {
    open: Option<Zone>,
    /// A zone's length lies between these, as far as the last ones tell.
    length: Option<(u64, u64)>,
    /// Where the last two zones began, the latest last.
    starts: [Option<u64>; 2],
    rhythm: Option<Rhythm>,
}

impl Zones {
    /// A read from `pos` to `end` failed, or was as slow as one that fails. Returns where to go on.
    pub fn bad(&mut self, pos: u64, end: u64) -> u64 {
        let known = self.length.map(|(_, longest)| longest);
        let (start, jump) = match (self.open, known) {
            (None, _) => (pos, self.first_jump()),
            // A guess was too short, but zones were never longer than this.
            (Some(zone), Some(longest)) if end < zone.start.saturating_add(longest) => {
                (zone.start, zone.start + longest + longest / 8 - end)
            }
            (Some(zone), Some(_)) => (zone.start, zone.jump * 2),
            (Some(zone), None) => (zone.start, zone.jump * GROWTH),
        };
        let jump = jump.clamp(SHORTEST_JUMP, LONGEST_JUMP);
        if self.open.is_none()
            && let Some(rhythm) = &mut self.rhythm
        {
            rhythm.hear(pos);
        }
        self.open = Some(Zone { start, bad_end: end, jump, landed: None });
        end.saturating_add(jump)
    }

    /// A read from `pos` to `end` was good.
    pub fn good(&mut self, pos: u64, end: u64) {
        let Some(zone) = &mut self.open else { return };
        let landed = *zone.landed.get_or_insert(pos);
        // An error soon behind the landing belongs to the same zone.
        if end - landed >= zone.jump.clamp(SHORTEST_JUMP, FIRST_JUMP) {
            let zone = *zone;
            self.open = None;
            self.learn(zone.start, zone.bad_end - zone.start, landed - zone.start);
        }
    }

    fn first_jump(&self) -> u64 {
        let Some((shortest, longest)) = self.length else { return FIRST_JUMP };
        // A guess that is too short costs an error, one that is too long only puts off what is behind the zone.
        let guess = if longest / 2 <= shortest { longest } else { shortest + (longest - shortest) * 5 / 8 };
        guess.clamp(SHORTEST_JUMP, LONGEST_JUMP)
    }

    /// A zone from `start` on was between `shortest` and `longest` bytes long.
    fn learn(&mut self, start: u64, shortest: u64, longest: u64) {
        let known = self.length.map(|(low, high)| (low.max(shortest), high.min(longest)));
        self.length = Some(known.filter(|(low, high)| low < high).unwrap_or((shortest, longest)));
        if longest < SHORTEST_ZONE || self.rhythm.is_some() {
            return;
        }
        if let [Some(first), Some(second)] = self.starts
            && first < second
            && second < start
        {
            let (before, period) = (second - first, start - second);
            let off = before.abs_diff(period);
            if off <= period / 8 && period > 2 * shortest {
                self.rhythm = Some(Rhythm {
                    next: start + period,
                    heard: start,
                    period,
                    slack: off + SLACK,
                    is_lost: false,
                });
            }
        }
        self.starts = [self.starts[1], Some(start)];
    }

    /// Is byte `pos` in a zone that is expected? Then where to go on.
    pub fn expected(&mut self, pos: u64) -> Option<u64> {
        let (_, longest) = self.length?;
        let rhythm = self.rhythm.as_mut()?;
        while pos >= rhythm.next.saturating_sub(rhythm.slack) {
            let end = rhythm.next.saturating_add(longest).saturating_add(rhythm.slack);
            rhythm.next = rhythm.next.saturating_add(rhythm.period);
            if pos < end {
                return Some(end);
            }
        }
        if rhythm.is_lost {
            (self.rhythm, self.starts) = (None, [None; 2]);
        }
        None
    }
}

impl Rhythm {
    /// A zone began at `pos`, which was not expected there: sooner than it should, or not left far enough behind.
    fn hear(&mut self, pos: u64) {
        let since = pos.saturating_sub(self.heard);
        let nr_periods = ((since + self.period / 2) / self.period.max(1)).max(1);
        let period = since / nr_periods;
        self.is_lost = period.abs_diff(self.period) > self.period / 4;
        self.slack = (self.slack + SLACK).min(self.period / 8);
        self.period = period.max(1);
        self.heard = pos;
        self.next = pos.saturating_add(self.period);
    }
}
