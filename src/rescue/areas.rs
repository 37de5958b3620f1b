//! The state of every byte of a source, in little memory: a bit a cluster for what was touched, and a list of what
//! is damaged.

use std::collections::BTreeMap;

use super::State;
use crate::extent::{ByteRange, ClusterSet, Extent};
use crate::units::Lcn;

/// The states of a source's bytes, nothing tried at first.
///
/// A bit for each unit says that it was touched. Of what was touched, all is finished but for the `parts`; of what was
/// not, nothing was tried. So a rescue costs a bit a cluster, and some 40 bytes for each damaged stretch.
#[derive(Debug)]
pub struct Areas {
    /// Bytes in a unit.
    unit: u64,
    touched: ClusterSet,
    /// Stretches in touched units that are not finished: length and state by their first byte. They do not overlap;
    /// neighbours differ in state.
    parts: BTreeMap<u64, (u64, State)>,
}

/// A stretch whose bytes are in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where.
    pub range: ByteRange,
    /// The state of all of it.
    pub state: State,
}

/// How much of a source is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Stretches, each as long as it can be.
    pub nr_areas: u64,
    /// Bytes of blocks that failed.
    pub non_trimmed: u64,
    /// Bytes between bad sectors that were not read on their own.
    pub non_scraped: u64,
    /// Bytes of sectors that cannot be read.
    pub bad: u64,
}

impl Damage {
    /// Bytes of all states.
    pub fn bytes(&self) -> u64 {
        self.non_trimmed + self.non_scraped + self.bad
    }
}

impl Areas {
    /// A source of `len` bytes, with a bit for each `unit` bytes.
    pub fn new(len: u64, unit: u64) -> Areas {
        let unit = unit.max(1);
        Areas { unit, touched: ClusterSet::new(len.div_ceil(unit)), parts: BTreeMap::new() }
    }

    /// The same states with another unit, for a source of `len` bytes.
    pub fn with_unit(&self, len: u64, unit: u64) -> Areas {
        let mut areas = Areas::new(len, unit);
        for area in self.within(ByteRange { pos: 0, len }).filter(|area| area.state != State::NonTried) {
            areas.set(area.range, area.state);
        }
        areas
    }

    /// The state at a byte, and where the stretch of that state ends: at `limit` at the latest.
    fn at(&self, pos: u64, limit: u64) -> Area {
        let until = |end: u64, state| Area { range: ByteRange { pos, len: end.min(limit) - pos }, state };
        if let Some((start, len, state)) = self.part_at(pos) {
            return until(start + len, state);
        }
        let next_part = self.parts.range(pos..).next().map_or(u64::MAX, |(start, _)| *start);
        let unit = pos / self.unit;
        let touched = self.touched.contains(unit);
        let end =
            self.touched.find_until(unit, !touched, limit.div_ceil(self.unit)).saturating_mul(self.unit);
        // Behind the last unit nothing was touched.
        let end = if end <= pos { u64::MAX } else { end };
        until(end.min(next_part), if touched { State::Finished } else { State::NonTried })
    }

    /// What is listed of a byte: start and length of its stretch, and the state.
    fn part_at(&self, pos: u64) -> Option<(u64, u64, State)> {
        let (start, (len, state)) = self.parts.range(..=pos).next_back()?;
        (pos < start + len).then_some((*start, *len, *state))
    }

    /// The state of one byte.
    pub fn state(&self, pos: u64) -> State {
        match self.part_at(pos) {
            Some((_, _, state)) => state,
            None if self.touched.contains(pos / self.unit) => State::Finished,
            None => State::NonTried,
        }
    }

    /// The stretches within a range, ascending and without gaps. Neighbours may have the same state.
    pub fn within(&self, range: ByteRange) -> impl Iterator<Item = Area> + '_ {
        let mut pos = range.pos;
        std::iter::from_fn(move || {
            let area = (pos < range.end()).then(|| self.at(pos, range.end()))?;
            pos = area.range.end();
            Some(area)
        })
    }

    /// The first stretch of this state within a range.
    pub fn first(&self, state: State, range: ByteRange) -> Option<ByteRange> {
        if matches!(state, State::NonTried | State::Finished) {
            return self.within(range).find(|area| area.state == state).map(|area| area.range);
        }
        // These are all in the list.
        let before = self.parts.range(..range.pos).next_back();
        before.into_iter().chain(self.parts.range(range.pos..range.end())).find_map(
            |(start, (len, found))| {
                let (start, end) = (*start.max(&range.pos), (start + len).min(range.end()));
                (*found == state && start < end).then(|| ByteRange { pos: start, len: end - start })
            },
        )
    }

    /// The last stretch of this state within a range.
    pub fn last(&self, state: State, range: ByteRange) -> Option<ByteRange> {
        if state == State::Bad || state == State::NonTrimmed || state == State::NonScraped {
            return self
                .parts
                .range(..range.end())
                .rev()
                .take_while(|(start, (len, _))| *start + len > range.pos)
                .find_map(|(start, (len, found))| {
                    let (start, end) = (*start.max(&range.pos), (start + len).min(range.end()));
                    (*found == state).then(|| ByteRange { pos: start, len: end - start })
                });
        }
        let mut end = range.end();
        while end > range.pos {
            let area = self.before(end, range.pos);
            if area.state == state {
                return Some(area.range);
            }
            end = area.range.pos;
        }
        None
    }

    /// The stretch that ends before byte `end`, from `limit` on at the earliest.
    fn before(&self, end: u64, limit: u64) -> Area {
        let from = |start: u64, state| {
            let pos = start.max(limit);
            Area { range: ByteRange { pos, len: end - pos }, state }
        };
        let last_part =
            self.parts.range(..end).next_back().map(|(start, (len, state))| (*start, start + len, *state));
        if let Some((start, part_end, state)) = last_part.filter(|(_, part_end, _)| *part_end >= end) {
            debug_assert!(part_end >= end);
            return from(start, state);
        }
        let part_end = last_part.map_or(0, |(_, part_end, _)| part_end);
        let unit = (end - 1) / self.unit;
        let touched = self.touched.contains(unit);
        let start = match self.touched.find_down_to(unit, !touched, limit / self.unit) {
            Some(other) => (other + 1) * self.unit,
            None => 0,
        };
        from(start.max(part_end), if touched { State::Finished } else { State::NonTried })
    }

    /// What is damaged, all together. What was never tried does not count.
    pub fn damage(&self) -> Damage {
        let mut damage = Damage::default();
        let mut end = None;
        for (start, (len, state)) in &self.parts {
            match state {
                State::NonTrimmed => damage.non_trimmed += len,
                State::NonScraped => damage.non_scraped += len,
                State::Bad => damage.bad += len,
                State::NonTried | State::Finished => continue,
            }
            damage.nr_areas += u64::from(end != Some(*start));
            end = Some(start + len);
        }
        damage
    }

    /// The last stretch before a byte that was tried; of a finished one only its end, which is all that a pass looks at.
    pub fn tried_before(&self, pos: u64) -> Option<Area> {
        let mut end = pos;
        while end > 0 {
            let is_finished = self.state(end - 1) == State::Finished;
            let area = self.before(end, if is_finished { end - 1 } else { 0 });
            if area.state != State::NonTried {
                return Some(area);
            }
            end = area.range.pos;
        }
        None
    }

    /// The first byte from `pos` on that was tried.
    pub fn tried_from(&self, pos: u64) -> Option<u64> {
        let len = self.touched.bound() * self.unit;
        self.within(ByteRange { pos, len: len.saturating_sub(pos) })
            .find(|area| area.state != State::NonTried)
            .map(|area| area.range.pos)
    }

    /// Is all of a range finished?
    pub fn is_finished(&self, range: ByteRange) -> bool {
        self.within(range).all(|area| area.state == State::Finished)
    }

    /// Gives a range a state.
    pub fn set(&mut self, range: ByteRange, state: State) {
        if range.len == 0 {
            return;
        }
        self.cut(range);
        self.touch(range);
        match state {
            State::Finished => {}
            State::NonTried => self.untouch(range),
            _ => self.insert(range, state),
        }
    }

    /// Takes a range out of the list.
    fn cut(&mut self, range: ByteRange) {
        let first = self.parts.range(..range.pos).next_back().map(|(start, part)| (*start, *part));
        if let Some((start, (len, state))) = first.filter(|(start, (len, _))| start + len > range.pos) {
            self.parts.insert(start, (range.pos - start, state));
            if start + len > range.end() {
                self.parts.insert(range.end(), (start + len - range.end(), state));
            }
        }
        while let Some((start, (len, state))) =
            self.parts.range(range.pos..range.end()).next().map(|(start, part)| (*start, *part))
        {
            self.parts.remove(&start);
            if start + len > range.end() {
                self.parts.insert(range.end(), (start + len - range.end(), state));
            }
        }
    }

    /// Touches the units of a range; what was not tried of those at its edges is listed.
    fn touch(&mut self, range: ByteRange) {
        let first = range.pos / self.unit;
        let end = range.end().div_ceil(self.unit);
        for (unit, start, end) in
            [(first, first * self.unit, range.pos), (end - 1, range.end(), end * self.unit)]
        {
            if start < end && !self.touched.contains(unit) {
                self.insert(ByteRange { pos: start, len: end - start }, State::NonTried);
            }
        }
        self.touched.insert_extent(Extent { lcn: Lcn(first), len: end - first });
    }

    /// Makes a touched range one that was not tried: whole units lose their bit, the rest is listed.
    fn untouch(&mut self, range: ByteRange) {
        let first = range.pos.div_ceil(self.unit);
        let end = range.end() / self.unit;
        if first >= end {
            return self.insert(range, State::NonTried);
        }
        self.touched.remove_extent(Extent { lcn: Lcn(first), len: end - first });
        for (start, end) in [(range.pos, first * self.unit), (end * self.unit, range.end())] {
            if start < end {
                self.insert(ByteRange { pos: start, len: end - start }, State::NonTried);
            }
        }
    }

    /// Lists a stretch that overlaps nothing in the list, joined with its neighbours of the same state.
    fn insert(&mut self, range: ByteRange, state: State) {
        let (mut start, mut end) = (range.pos, range.end());
        if let Some((before, (len, same))) =
            self.parts.range(..start).next_back().map(|(at, part)| (*at, *part))
            && same == state
            && before + len == start
        {
            start = before;
        }
        if let Some((len, same)) = self.parts.get(&end).copied()
            && same == state
        {
            self.parts.remove(&end);
            end += len;
        }
        self.parts.insert(start, (end - start, state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 5] =
        [State::NonTried, State::NonTrimmed, State::NonScraped, State::Bad, State::Finished];

    fn range(pos: u64, end: u64) -> ByteRange {
        ByteRange { pos, len: end - pos }
    }

    #[test]
    fn behaves_like_an_array_of_states() {
        let mut random = 12345u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for unit in [1, 8, 64] {
            const LEN: u64 = 500;
            let mut areas = Areas::new(LEN, unit);
            let mut array = [State::NonTried; LEN as usize];
            for _ in 0..3000 {
                let pos = next(LEN);
                let longest = if next(3) == 0 { LEN } else { 20 };
                let end = pos + next((LEN - pos).min(longest)) + 1;
                let state = STATES[next(5) as usize];
                areas.set(range(pos, end), state);
                array[pos as usize..end as usize].fill(state);
                for at in 0..LEN {
                    assert_eq!(areas.state(at), array[at as usize], "byte {at}");
                }
                let (from, state) = (next(LEN), STATES[next(5) as usize]);
                let to = from + 1 + next(LEN - from);
                let first = (from..to).find(|at| array[*at as usize] == state);
                assert_eq!(areas.first(state, range(from, to)).map(|found| found.pos), first);
                let last = (from..to).rev().find(|at| array[*at as usize] == state);
                assert_eq!(areas.last(state, range(from, to)).map(|found| found.end() - 1), last);
                let tried = |at: &u64| array[*at as usize] != State::NonTried;
                assert_eq!(
                    areas.tried_before(from).map(|area| area.range.end() - 1),
                    (0..from).rev().find(tried)
                );
                assert_eq!(areas.tried_from(from), (from..LEN).find(tried));
                let all = array[from as usize..to as usize].iter().all(|state| *state == State::Finished);
                assert_eq!(areas.is_finished(range(from, to)), all);
            }
            let again = areas.with_unit(LEN, 32);
            assert!((0..LEN).all(|at| again.state(at) == areas.state(at)));
        }
    }

    #[test]
    fn neighbours_of_the_same_state_are_one_stretch() {
        let mut areas = Areas::new(1 << 20, 4096);
        for pos in (0..65536).step_by(512) {
            areas.set(range(pos, pos + 512), State::Bad);
        }
        assert_eq!(areas.first(State::Bad, range(0, 1 << 20)), Some(range(0, 65536)));
        assert_eq!(areas.parts.len(), 1);
        areas.set(range(0, 1 << 20), State::Finished);
        assert!(areas.parts.is_empty());
    }
}
