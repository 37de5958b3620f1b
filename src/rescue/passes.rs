//! Rescuing out of order: healthy areas first, everywhere, and a bad area is never fought over while good data waits.
//!
//! The passes over a domain, each of which reads what the ones before it have left:
//! - *forward* in blocks, long stretches first, which cost no seeks; an error makes it jump ahead ([`Zones`]);
//! - the *edges* of what was jumped over, from the good side until an error: downwards, then upwards;
//! - *probes* in the middle of what still lies between two errors, the longest first, and the edges of what they find;
//! - *trimming*: blocks that failed, sector by sector from their good sides to the first bad sector;
//! - *sweeping*: all blocks that were not tried;
//! - *scraping*: the sectors between bad ones, with jumps first, then all; and *retries*.
//!
//! So each sector is tried at most twice before retries: in its block and on its own. A read that was slow but good is
//! kept, and makes a pass go on elsewhere as an error does.

use std::time::Duration;

use super::State;
use super::areas::Areas;
use super::domain::Domain;
use super::zones::Zones;
use crate::extent::ByteRange;

/// A read that takes longer is taken for a sign of what comes next.
const SLOW: Duration = Duration::from_secs(2);

/// What one spot on the medium spoils, in bytes: the sector of nearly all disks made since 2011, whatever they say.
const SPOT: u64 = 4096;

/// The longest jump while scraping, in bytes.
const LONGEST_SCRAPE_JUMP: u64 = 1 << 20;

/// Failures in a row after which a good sector is read again, to see whether the disk is still there.
const MANY_IN_A_ROW: usize = 16;

/// Failures in a row in so many places far apart are as suspicious.
const FAR_PLACES: usize = 3;

/// The part of the disk that makes two places far apart.
const FAR: u64 = 64;

/// The stretches that are probed, in bytes: from this length down to the last that is worth an error before trimming,
/// and the last that is at all.
const LONGEST_PROBED: u64 = 1 << 32;
const PROBED_BEFORE_TRIMMING: u64 = 1 << 20;
const SHORTEST_PROBED: u64 = 256 << 10;

/// Probing is given up for the time being when of at least so many probes not one in as many was good.
const MANY_PROBES: u64 = 8;

/// What lies between a failed area and one that was tried, and is no longer than this, was jumped over.
const LONGEST_LEFT: u64 = 16 << 20;

/// A stretch that takes as long to read as the way to it: 10 ms at 100 MB/s.
const LONG: u64 = 1 << 20;

/// How large the reads are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// A block, as long as all goes well.
    pub block: u64,
    /// A sector of the medium: what one error costs.
    pub physical: u64,
    /// The smallest read.
    pub logical: u64,
}

/// What is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Forward in blocks, jumping ahead at errors, over wanted stretches of at least so many bytes.
    Forward(u64),
    /// From good data downwards, until an error.
    Down,
    /// From good data upwards, until an error.
    Up,
    /// The middle of stretches between errors that are at least so long.
    Probe(u64),
    /// Failed blocks from their good sides; `last`: what then remains is to be scraped.
    Trim {
        /// Does no good side come later?
        last: bool,
    },
    /// All that was not tried.
    Sweep,
    /// Sectors between bad ones; `jumping`: not those right behind a bad one.
    Scrape {
        /// Jump ahead at errors?
        jumping: bool,
    },
    /// Bad sectors once more.
    Retry,
}

/// One pass over one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stage {
    pass: Pass,
    /// Which domain.
    domain: usize,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All bytes are here.
    Good,
    /// None is.
    Bad,
    /// The disk does not answer any more.
    Gone,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read this and tell what came of it.
    Read(ByteRange),
    /// Read this and tell what came of it, but do not keep it: only to see whether the disk is there.
    Check(ByteRange),
    /// The end.
    End(End),
}

/// Why there is nothing more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All was tried.
    Complete,
    /// As many reads have failed as were granted.
    Errors,
    /// The time that was granted is over.
    Time,
    /// The disk has gone.
    Gone,
}

/// What a rescue may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Reads that may fail.
    pub max_errors: Option<u64>,
    /// Time since the start.
    pub max_time: Option<Duration>,
}

/// A read that failed.
#[derive(Clone, Copy, Debug)]
struct Failure {
    range: ByteRange,
    /// What was known about it before.
    before: State,
    /// What it was read for.
    stage: Stage,
}

/// Trimming of one failed block.
#[derive(Clone, Copy, Debug)]
struct Trimming {
    /// What is left of it.
    rest: ByteRange,
    side: Side,
    /// Is there good data behind the block?
    good_behind: bool,
    /// Was the first bad sector passed?
    passed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Front,
    Back,
}

/// The state machine.
#[derive(Debug)]
pub struct Rescue<'d> {
    areas: Areas,
    sizes: Sizes,
    /// Bytes of the source.
    len: u64,
    domains: Vec<Domain<'d>>,
    /// What is still to be done, the next one last.
    stages: Vec<Stage>,
    budget: Budget,
    /// Where the pass stands.
    at: u64,
    zones: Zones,
    /// Where the last block ended at which the pass forward jumped ahead.
    failed_end: u64,
    trimming: Option<Trimming>,
    /// Bad sectors in a row while scraping.
    scrape_jump: u64,
    /// Probes of this pass, and those of them that were good.
    probes: (u64, u64),
    /// What is being read.
    current: Option<Step>,
    /// Failures since the last good read.
    failed: heapless::Vec<Failure, MANY_IN_A_ROW>,
    nr_errors: u64,
    is_gone: bool,
    /// Which good sector is read again next.
    random: u64,
}

impl<'d> Rescue<'d> {
    /// Nothing to do yet: [`Rescue::add`] says what. `len` is the source's length, `areas` what is known already.
    pub fn new(areas: Areas, len: u64, sizes: Sizes, budget: Budget) -> Rescue<'d> {
        Rescue {
            areas,
            sizes,
            len,
            domains: Vec::new(),
            stages: Vec::new(),
            budget,
            at: 0,
            zones: Zones::default(),
            failed_end: u64::MAX,
            trimming: None,
            scrape_jump: 0,
            probes: (0, 0),
            current: None,
            failed: heapless::Vec::new(),
            nr_errors: 0,
            is_gone: false,
            random: 1,
        }
    }

    /// A domain to read; [`Rescue::add`] says how.
    pub fn add_domain(&mut self, domain: Domain<'d>) -> usize {
        self.domains.push(domain);
        self.domains.len() - 1
    }

    /// Adds a pass behind those that are planned.
    pub fn add(&mut self, domain: usize, pass: Pass) {
        self.stages.insert(0, Stage { pass, domain });
    }

    /// All passes that find healthy data.
    pub fn add_healthy(&mut self, domain: usize) {
        self.add(domain, Pass::Forward(LONG));
        self.add(domain, Pass::Forward(0));
        self.add(domain, Pass::Down);
        self.add(domain, Pass::Up);
    }

    /// All passes, over domains in the order of their importance. A later one may contain an earlier one.
    pub fn add_all(&mut self, domains: &[usize], retries: u32) {
        for domain in domains {
            self.add_healthy(*domain);
            self.add(*domain, Pass::Probe(LONGEST_PROBED));
            self.add(*domain, Pass::Trim { last: false });
        }
        for pass in [
            Pass::Probe(PROBED_BEFORE_TRIMMING / 2),
            Pass::Sweep,
            Pass::Trim { last: true },
            Pass::Scrape { jumping: true },
            Pass::Scrape { jumping: false },
        ] {
            domains.iter().for_each(|domain| self.add(*domain, pass));
        }
        for _ in 0..retries {
            domains.iter().for_each(|domain| self.add(*domain, Pass::Retry));
        }
    }

    /// What is known about each byte.
    pub fn areas(&self) -> &Areas {
        &self.areas
    }

    /// So many reads have failed before.
    pub fn count_errors(&mut self, nr_errors: u64) {
        self.nr_errors += nr_errors;
    }

    /// This is metadata, of which each block counts.
    pub fn be_careful(&mut self) {
        self.zones = Zones::careful();
    }

    /// What is known about each byte, at the end.
    pub fn into_areas(self) -> Areas {
        self.areas
    }

    /// The pass that is going on; none at the end.
    pub fn pass(&self) -> Option<Pass> {
        self.stages.last().map(|stage| stage.pass)
    }

    /// Where it stands.
    pub fn pos(&self) -> u64 {
        match self.current {
            Some(Step::Read(range)) => range.pos,
            _ => self.at.min(self.len),
        }
    }

    /// How many reads have failed.
    pub fn nr_errors(&self) -> u64 {
        self.nr_errors
    }

    /// The disk is back: what was tried without it does not count, and the pass begins again.
    pub fn revive(&mut self) {
        self.is_gone = false;
        self.begin_pass();
    }

    /// What to do next; the same until [`Rescue::done`] is called. `now` is the time since the start.
    pub fn next(&mut self, now: Duration) -> Step {
        if self.is_gone {
            return Step::End(End::Gone);
        }
        if let Some(step) = self.current {
            return step;
        }
        if self.budget.max_errors.is_some_and(|max| self.nr_errors >= max) {
            return Step::End(End::Errors);
        }
        if self.budget.max_time.is_some_and(|max| now >= max) {
            return Step::End(End::Time);
        }
        let mut step = self.check(false).map(Step::Check);
        step = step.or_else(|| self.next_read().map(Step::Read));
        let Some(step) = step.or_else(|| self.check(true).map(Step::Check)) else {
            return Step::End(End::Complete);
        };
        self.current = Some(step);
        step
    }

    /// Says what came of the last read, and how long it took.
    pub fn done(&mut self, outcome: Outcome, elapsed: Duration) {
        match (self.current.take(), outcome) {
            (None | Some(Step::End(_)), _) => {}
            (Some(Step::Check(_)), Outcome::Good) => self.failed.clear(),
            (Some(_), Outcome::Gone) | (Some(Step::Check(_)), Outcome::Bad) => self.lose_disk(),
            (Some(Step::Read(range)), Outcome::Good) => {
                self.failed.clear();
                self.areas.set(range, State::Finished);
                self.advance(range, true, elapsed > SLOW);
            }
            (Some(Step::Read(range)), Outcome::Bad) => {
                self.nr_errors += 1;
                // Never full: a check comes before that.
                if let Some(stage) = self.stages.last() {
                    let before = self.areas.state(range.pos);
                    let _full = self.failed.push(Failure { range, before, stage: *stage });
                }
                self.advance(range, false, false);
            }
        }
    }

    /// The disk is no longer there: what has failed since the last good read did so for that reason. It is again what it
    /// was, and the passes that read it have not ended.
    fn lose_disk(&mut self) {
        self.nr_errors = self.nr_errors.saturating_sub(self.failed.len() as u64);
        for Failure { range, before, stage } in std::mem::take(&mut self.failed).into_iter().rev() {
            self.areas.set(range, before);
            if self.stages.last() != Some(&stage) {
                self.stages.push(stage);
            }
        }
        self.is_gone = true;
    }

    /// A good sector to be read again, if there is doubt whether the disk still answers: at the end there is after the
    /// last failure.
    fn check(&mut self, is_end: bool) -> Option<ByteRange> {
        let far = (self.len / FAR).max(self.sizes.block);
        let mut places = heapless::Vec::<u64, FAR_PLACES>::new();
        for Failure { range, .. } in &self.failed {
            if places.iter().all(|place| place.abs_diff(range.pos) >= far) {
                let _enough = places.push(range.pos);
            }
        }
        let is_odd = self.failed.is_full() || places.len() >= FAR_PLACES;
        if !is_odd && (!is_end || self.failed.is_empty()) {
            return None;
        }
        // Another one each time: a disk may remember the last.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let sector = self.sizes.logical;
        let from = (self.random >> 16) % self.len.max(1);
        let good = self.areas.first(State::Finished, ByteRange { pos: from, len: self.len - from });
        let good = good.or_else(|| self.areas.first(State::Finished, ByteRange { pos: 0, len: from }));
        let sectors = |range: ByteRange| {
            let pos = range.pos.next_multiple_of(sector);
            (pos + sector <= range.end()).then_some(ByteRange { pos, len: sector })
        };
        match good.and_then(sectors) {
            None => {
                // Nothing was ever read: there is nothing to compare with.
                self.failed.clear();
                None
            }
            found => found,
        }
    }

    fn begin_pass(&mut self) {
        let pass = self.pass();
        self.at = if pass == Some(Pass::Down) { self.len } else { 0 };
        self.zones = Zones::default();
        self.failed_end = u64::MAX;
        self.trimming = None;
        self.scrape_jump = 0;
        self.probes = (0, 0);
        self.current = None;
    }

    /// The next read of this pass, or of the first one behind it that has any.
    fn next_read(&mut self) -> Option<ByteRange> {
        loop {
            let Stage { pass, domain } = *self.stages.last()?;
            let domain = *self.domains.get(domain)?;
            let range = match pass {
                Pass::Forward(at_least) => self.next_forward(&domain, at_least),
                Pass::Down => self.next_down(&domain),
                Pass::Up => self.next_up(&domain),
                Pass::Probe(length) => self.next_probe(&domain, length),
                Pass::Trim { last } => self.next_trim(&domain, last),
                Pass::Sweep => self.wanted(&domain, State::NonTried, self.at).map(|piece| self.block(piece)),
                Pass::Scrape { .. } => {
                    self.wanted(&domain, State::NonScraped, self.at).map(|piece| self.sector(piece))
                }
                Pass::Retry => self.wanted(&domain, State::Bad, self.at).map(|piece| self.logical(piece)),
            };
            if range.is_some() {
                return range;
            }
            self.end_pass();
        }
    }

    fn end_pass(&mut self) {
        let Some(Stage { pass, domain }) = self.stages.pop() else { return };
        if let Pass::Probe(length) = pass {
            let last =
                if length >= PROBED_BEFORE_TRIMMING { PROBED_BEFORE_TRIMMING } else { SHORTEST_PROBED };
            let (nr_probes, nr_good) = self.probes;
            let is_in_vain = nr_probes >= MANY_PROBES && nr_good * MANY_PROBES < nr_probes;
            if length / 2 >= last && !is_in_vain {
                self.stages.push(Stage { pass: Pass::Probe(length / 2), domain });
            }
            if nr_good > 0 {
                self.stages.push(Stage { pass: Pass::Up, domain });
                self.stages.push(Stage { pass: Pass::Down, domain });
            }
        }
        self.begin_pass();
    }

    /// What a pass does when it knows what came of a read.
    fn advance(&mut self, range: ByteRange, good: bool, slow: bool) {
        let Some(Stage { pass, domain }) = self.stages.last().copied() else { return };
        if !good {
            let by_sector = matches!(pass, Pass::Trim { .. } | Pass::Scrape { .. } | Pass::Retry);
            let is_sector = range.len <= self.sizes.physical;
            self.areas.set(range, if by_sector || is_sector { State::Bad } else { State::NonTrimmed });
        }
        self.at = range.end();
        match pass {
            Pass::Forward(_) if good && !slow => self.zones.good(range.pos, range.end()),
            Pass::Forward(_) => {
                self.failed_end = range.end();
                let end = self.zones.bad(range.pos, range.end());
                self.at = end.next_multiple_of(self.sizes.block);
            }
            Pass::Down => self.at = range.pos,
            Pass::Up | Pass::Sweep | Pass::Retry => {}
            Pass::Probe(_) => {
                self.probes.0 += 1;
                self.probes.1 += u64::from(good);
            }
            Pass::Trim { .. } => self.advance_trim(range, good),
            Pass::Scrape { jumping } => {
                self.scrape_jump =
                    if good { 0 } else { (self.scrape_jump * 2).clamp(SPOT, LONGEST_SCRAPE_JUMP) };
                if jumping && !good {
                    self.at = range.end().next_multiple_of(SPOT) + self.scrape_jump - SPOT;
                    // Not past what is being scraped: what follows is another spot.
                    if let Some(domain) = self.domains.get(domain)
                        && let Some(rest) = self.wanted(domain, State::NonScraped, range.end())
                        && self.at > rest.end()
                    {
                        self.at = rest.end();
                        self.scrape_jump = 0;
                    }
                }
            }
        }
        if slow && matches!(pass, Pass::Down | Pass::Up) {
            self.leave_stretch(pass, domain);
        }
    }

    /// The first stretch of a state in a domain, from byte `from` on. What was not tried yet may be long, and comes in the
    /// domain's pieces.
    fn wanted(&self, domain: &Domain<'_>, state: State, from: u64) -> Option<ByteRange> {
        let mut at = from;
        let mut found = loop {
            let range = domain.next(at)?;
            if let Some(found) = self.areas.first(state, range) {
                break found;
            }
            at = range.end();
        };
        while state != State::NonTried
            && domain.goes_on_at(found.end())
            && let Some(more) = domain.next(found.end()).and_then(|range| self.areas.first(state, range))
            && more.pos == found.end()
        {
            found.len += more.len;
        }
        Some(found)
    }

    /// The last stretch of a state in a domain that begins before byte `before`.
    fn wanted_before(&self, domain: &Domain<'_>, state: State, before: u64) -> Option<ByteRange> {
        let mut at = before;
        loop {
            let range = domain.prev(at)?;
            if let Some(found) = self.areas.last(state, range) {
                return Some(found);
            }
            at = range.pos;
        }
    }

    /// Does good data, or nothing, come before this byte in the domain?
    fn good_before(&self, domain: &Domain<'_>, pos: u64) -> bool {
        domain.prev(pos).is_none_or(|range| self.areas.state(range.end() - 1) == State::Finished)
    }

    /// Does good data, or nothing, come from this byte on in the domain?
    fn good_behind(&self, domain: &Domain<'_>, pos: u64) -> bool {
        domain.next(pos).is_none_or(|range| self.areas.state(range.pos) == State::Finished)
    }

    /// The front of a stretch, up to the next multiple of `size`.
    fn front(piece: ByteRange, size: u64) -> ByteRange {
        let end = (piece.pos / size + 1) * size;
        ByteRange { pos: piece.pos, len: piece.len.min(end - piece.pos) }
    }

    /// The back of a stretch, from the last multiple of `size` on.
    fn back(piece: ByteRange, size: u64) -> ByteRange {
        let pos = ((piece.end() - 1) / size * size).max(piece.pos);
        ByteRange { pos, len: piece.end() - pos }
    }

    fn block(&self, piece: ByteRange) -> ByteRange {
        Rescue::front(piece, self.sizes.block)
    }

    fn sector(&self, piece: ByteRange) -> ByteRange {
        Rescue::front(piece, self.sizes.physical)
    }

    fn logical(&self, piece: ByteRange) -> ByteRange {
        Rescue::front(piece, self.sizes.logical)
    }

    fn next_forward(&mut self, domain: &Domain<'_>, at_least: u64) -> Option<ByteRange> {
        loop {
            let piece = self.wanted(domain, State::NonTried, self.at)?;
            let stretch = domain.around(piece.pos);
            if stretch.len < at_least {
                self.at = stretch.end();
                continue;
            }
            // Behind an area that failed in an earlier pass or run, what was jumped over then is left to the passes that
            // come from its good side.
            let before = self.areas.tried_before(piece.pos);
            if let Some(failed) = before.filter(|area| area.state != State::Finished)
                && failed.range.end() != self.failed_end
            {
                let behind = self.areas.tried_from(piece.pos).unwrap_or(u64::MAX);
                self.at = if behind - piece.pos < LONGEST_LEFT {
                    piece.end()
                } else {
                    self.failed_end = failed.range.end();
                    self.zones
                        .bad(failed.range.end() - self.sizes.block.min(failed.range.len), failed.range.end())
                };
                self.at = self.at.next_multiple_of(self.sizes.logical);
                continue;
            }
            match self.zones.expected(piece.pos) {
                Some(end) => self.at = end.next_multiple_of(self.sizes.block),
                None => return Some(self.block(piece)),
            }
        }
    }

    fn next_down(&mut self, domain: &Domain<'_>) -> Option<ByteRange> {
        loop {
            let piece = self.wanted_before(domain, State::NonTried, self.at)?;
            if self.good_behind(domain, piece.end()) {
                return Some(Rescue::back(piece, self.sizes.block));
            }
            self.at = piece.pos;
        }
    }

    fn next_up(&mut self, domain: &Domain<'_>) -> Option<ByteRange> {
        loop {
            let piece = self.wanted(domain, State::NonTried, self.at)?;
            if self.good_before(domain, piece.pos) {
                return Some(self.block(piece));
            }
            self.at = piece.end();
        }
    }

    /// Leaves the rest of a stretch of which a part was good, but slow.
    fn leave_stretch(&mut self, pass: Pass, domain: usize) {
        let Some(domain) = self.domains.get(domain).copied() else { return };
        if pass == Pass::Down {
            if let Some(piece) = self.wanted_before(&domain, State::NonTried, self.at) {
                self.at = piece.pos;
            }
        } else if let Some(piece) = self.wanted(&domain, State::NonTried, self.at) {
            self.at = piece.end();
        }
    }

    /// A block in the middle of the next stretch of at least `length` bytes that lies between errors.
    fn next_probe(&mut self, domain: &Domain<'_>, length: u64) -> Option<ByteRange> {
        loop {
            let first = self.wanted(domain, State::NonTried, self.at)?;
            let mut last = first;
            // Gaps between the wanted clusters do not end a stretch.
            while let Some(next) = domain.next(last.end())
                && let area = self.areas.first(State::NonTried, next)
                && let Some(piece) = area.filter(|piece| piece.pos == next.pos)
            {
                last = piece;
            }
            self.at = last.end();
            if last.end() - first.pos < length {
                continue;
            }
            // Not in the very middle: dead zones come at equal distances, and so it would lie in one as often as not.
            let middle = first.pos + (last.end() - first.pos) / 8 * 3;
            let piece = self.wanted(domain, State::NonTried, middle / self.sizes.block * self.sizes.block);
            if let Some(piece) = piece.filter(|piece| piece.pos < last.end()) {
                // What lies behind the probe in the same stretch belongs to the next round.
                return Some(self.block(piece));
            }
        }
    }

    fn next_trim(&mut self, domain: &Domain<'_>, last: bool) -> Option<ByteRange> {
        loop {
            if let Some(trimming) = &self.trimming {
                let rest = trimming.rest;
                if rest.len > 0 {
                    return Some(match trimming.side {
                        Side::Front => self.sector(rest),
                        Side::Back => Rescue::back(rest, self.sizes.physical),
                    });
                }
                self.at = self.at.max(rest.end());
                self.trimming = None;
            }
            let block = self.wanted(domain, State::NonTrimmed, self.at)?;
            let good_before = self.good_before(domain, block.pos);
            let good_behind = self.good_behind(domain, block.end());
            self.at = block.end();
            if good_before || good_behind {
                let side = if good_before { Side::Front } else { Side::Back };
                self.trimming = Some(Trimming { rest: block, side, good_behind, passed: false });
            } else if last {
                self.areas.set(block, State::NonScraped);
            }
        }
    }

    fn advance_trim(&mut self, range: ByteRange, good: bool) {
        let is_last = self.pass() == Some(Pass::Trim { last: true });
        let Some(trimming) = &mut self.trimming else { return };
        let rest = &mut trimming.rest;
        let block_end = rest.end();
        match trimming.side {
            Side::Front => *rest = ByteRange { pos: range.end(), len: block_end - range.end() },
            Side::Back => rest.len = range.pos - rest.pos,
        }
        // Where the pass goes on once this block is done; `rest` forgets it.
        self.at = self.at.max(block_end);
        if good {
            return;
        }
        let (remains, set_aside);
        match trimming.side {
            // A spot ends where the medium's sector does; behind it all may be well.
            Side::Front if trimming.good_behind && !trimming.passed => {
                trimming.passed = true;
                let next = range.end().next_multiple_of(SPOT).min(rest.end());
                set_aside = ByteRange { pos: rest.pos, len: next - rest.pos };
                *rest = ByteRange { pos: next, len: rest.end() - next };
                remains = State::NonScraped;
            }
            Side::Front if trimming.good_behind => {
                trimming.side = Side::Back;
                return;
            }
            // What is left has good data on no side, now or, in an early pass, perhaps later.
            _ => {
                set_aside = *rest;
                rest.len = 0;
                remains = if is_last || trimming.passed { State::NonScraped } else { State::NonTrimmed };
            }
        }
        self.areas.set(set_aside, remains);
    }
}

#[cfg(test)]
mod tests;
