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
    /// Was all good up to there?
    is_start_known: bool,
    /// End of the last read that failed.
    bad_end: u64,
    /// How far the last jump went.
    jump: u64,
    /// Where the first read behind it was good, if one was.
    landed: Option<u64>,
}

impl Zone {
    /// Is this where the last jump went, and not somewhere behind because nothing is wanted in between?
    fn is_aimed_at(&self, pos: u64) -> bool {
        pos <= self.bad_end.saturating_add(self.jump).saturating_add(SLACK)
    }
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
#[derive(Debug)]
pub struct Zones {
    open: Option<Zone>,
    /// A zone is longer than this, as far as the last ones tell.
    shortest: u64,
    /// And not longer than this, if a jump has shown so.
    longest: Option<u64>,
    /// Where the last two zones began, the latest last.
    starts: [Option<u64>; 2],
    rhythm: Option<Rhythm>,
    /// Where the last good read ended.
    good_end: u64,
    /// The shortest jump.
    floor: u64,
    /// The first jump of all.
    first: u64,
}

impl Default for Zones {
    fn default() -> Zones {
        Zones {
            open: None,
            shortest: 0,
            longest: None,
            starts: [None; 2],
            rhythm: None,
            good_end: 0,
            floor: SHORTEST_JUMP,
            first: FIRST_JUMP,
        }
    }
}

impl Zones {
    /// For metadata, of which there is little and each block counts: the first jumps are short.
    pub fn careful() -> Zones {
        Zones { floor: 0, first: 0, ..Zones::default() }
    }

    /// A read from `pos` to `end` failed, or was as slow as one that fails. Returns where to go on.
    pub fn bad(&mut self, pos: u64, end: u64) -> u64 {
        // An error soon behind a landing belongs to the same zone.
        let open = self.open.filter(|zone| zone.landed.is_some() || zone.is_aimed_at(pos));
        let jump = match (open, self.longest) {
            (None, _) => self.first_jump(),
            // A guess was too short, but zones were never longer than this.
            (Some(zone), Some(longest)) if end < zone.start.saturating_add(longest) => {
                zone.start + longest + longest / 8 - end
            }
            (Some(zone), Some(_)) => (zone.jump * 2).max(SHORTEST_JUMP),
            (Some(zone), None) => (zone.jump * GROWTH).max(SHORTEST_JUMP),
        };
        let jump = jump.min(LONGEST_JUMP);
        let is_start_known = pos == self.good_end;
        self.open = Some(match open {
            Some(zone) => Zone { bad_end: end, jump, landed: None, ..zone },
            None => Zone { start: pos, is_start_known, bad_end: end, jump, landed: None },
        });
        if open.is_none()
            && is_start_known
            && let Some(rhythm) = &mut self.rhythm
        {
            rhythm.hear(pos);
        }
        end.saturating_add(jump)
    }

    /// A read from `pos` to `end` was good.
    pub fn good(&mut self, pos: u64, end: u64) {
        self.good_end = end;
        let Some(zone) = &mut self.open else { return };
        let landed = *zone.landed.get_or_insert(pos);
        if end - landed >= zone.jump.clamp(SHORTEST_JUMP, FIRST_JUMP) {
            let zone = *zone;
            self.open = None;
            let longest = zone.is_aimed_at(landed).then(|| landed - zone.start);
            self.learn(&zone, zone.bad_end - zone.start, longest);
        }
    }

    fn first_jump(&self) -> u64 {
        let Some(longest) = self.longest else { return self.first.max(self.shortest * 2) };
        // A guess that is too short costs an error, one that is too long only puts off what is behind the zone.
        let shortest = self.shortest.min(longest);
        let guess = if longest / 2 <= shortest { longest } else { shortest + (longest - shortest) * 5 / 8 };
        guess.max(self.floor)
    }

    /// A zone was longer than `shortest` bytes, and not longer than `longest`, if that is known.
    fn learn(&mut self, zone: &Zone, shortest: u64, longest: Option<u64>) {
        let known = self.longest.filter(|known| *known >= shortest);
        self.longest = known.into_iter().chain(longest).min();
        self.shortest = if self.longest.is_some_and(|longest| self.shortest >= longest) {
            shortest
        } else {
            self.shortest.max(shortest)
        };
        let is_spot = longest.is_some_and(|longest| longest < SHORTEST_ZONE);
        if is_spot || self.rhythm.is_some() || !zone.is_start_known {
            return;
        }
        let start = zone.start;
        if let [Some(first), Some(second)] = self.starts
            && first < second
            && second < start
        {
            let (before, period) = (second - first, start - second);
            let off = before.abs_diff(period);
            if off <= period / 8 && period > 2 * shortest {
                let slack = off + SLACK;
                self.rhythm =
                    Some(Rhythm { next: start + period, heard: start, period, slack, is_lost: false });
            }
        }
        self.starts = [self.starts[1], Some(start)];
    }

    /// Is byte `pos` in a zone that is expected? Then where to go on.
    pub fn expected(&mut self, pos: u64) -> Option<u64> {
        let longest = self.longest?;
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
