//! Stretches and sets: [`Extent`] of clusters, [`ByteRange`] of bytes, [`ClusterSet`], one bit a cluster.

use crate::bytes::are_all;
use crate::units::Lcn;

/// A stretch of clusters on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First cluster.
    pub lcn: Lcn,
    /// Number of clusters.
    pub len: u64,
}

impl Extent {
    /// The cluster behind the last one.
    pub fn end(&self) -> u64 {
        self.lcn.0 + self.len
    }
}

/// A stretch of bytes on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub pos: u64,
    /// Number of bytes.
    pub len: u64,
}

impl ByteRange {
    /// The byte behind the last one.
    pub fn end(&self) -> u64 {
        self.pos + self.len
    }
}

/// Words of a page: some 4 KiB, so that a set costs memory only near the clusters it holds. With what musl's allocator
/// adds to them 509 words fill 4080 bytes, the slot that it has for them; 512 words would take one of 4672.
const WORDS: usize = 509;
const PAGE_BITS: u64 = WORDS as u64 * 64;

/// The bits of a page.
#[derive(Clone, Debug)]
enum Page {
    /// None is set.
    Empty,
    /// All are.
    Full,
    /// Some are, or were.
    Mixed(Box<[u64; WORDS]>),
}

static EMPTY: Page = Page::Empty;

impl Page {
    fn word(&self, word_no: usize) -> u64 {
        match self {
            Page::Empty => 0,
            Page::Full => u64::MAX,
            Page::Mixed(words) => words.get(word_no).copied().unwrap_or(0),
        }
    }

    /// The value of all bits, if it is the same.
    fn value(&self) -> Option<bool> {
        match self {
            Page::Empty => Some(false),
            Page::Full => Some(true),
            Page::Mixed(_) => None,
        }
    }

    fn words(&self) -> impl Iterator<Item = u64> + '_ {
        (0..WORDS).map(|word_no| self.word(word_no))
    }

    /// How many bits are set.
    fn count(&self) -> u64 {
        match self {
            Page::Empty => 0,
            Page::Full => PAGE_BITS,
            Page::Mixed(words) => words.iter().map(|word| u64::from(word.count_ones())).sum(),
        }
    }

    /// Gives each bit a place of its own.
    fn mix(&mut self) -> &mut [u64] {
        if self.value().is_some() {
            *self = Page::Mixed(Box::new([self.word(0); WORDS]));
        }
        match self {
            Page::Mixed(words) => words.as_mut_slice(),
            _ => &mut [],
        }
    }

    /// Sets or clears the bits from `first` up to and including `last`; returns how many of them were set before.
    fn fill(&mut self, first: u64, last: u64, value: bool) -> u64 {
        let len = last - first + 1;
        match self.value() {
            Some(all) if all == value => return if all { len } else { 0 },
            _ if len == PAGE_BITS => {
                let were_set = self.count();
                *self = if value { Page::Full } else { Page::Empty };
                return were_set;
            }
            _ => {}
        }
        let (first_word, last_word) = ((first / 64) as usize, (last / 64) as usize);
        let words = self.mix().get_mut(first_word..=last_word).unwrap_or_default();
        let mut were_set = 0;
        for (word_no, word) in (first_word..).zip(words) {
            let mut mask = u64::MAX;
            if word_no == first_word {
                mask &= u64::MAX << (first % 64);
            }
            if word_no == last_word {
                mask &= u64::MAX >> (63 - last % 64);
            }
            were_set += u64::from((*word & mask).count_ones());
            *word = if value { *word | mask } else { *word & !mask };
        }
        were_set
    }

    /// Are all bits of the page the same, and those of this bitmap as well?
    fn is_plainly(&self, bitmap: &[u8]) -> bool {
        self.value().is_some_and(|all| are_all(bitmap, if all { 0xff } else { 0 }))
    }

    /// Puts each word together with that of another page.
    fn combine(&mut self, other: &Page, op: impl Fn(u64, u64) -> u64) {
        if self.value().is_some() && other.value().is_some() {
            *self = if op(self.word(0), other.word(0)) == 0 { Page::Empty } else { Page::Full };
            return;
        }
        let words = self.mix();
        words.iter_mut().zip(other.words()).for_each(|(word, other)| *word = op(*word, other));
        let uniform = [(0, Page::Empty), (u64::MAX, Page::Full)];
        let uniform = uniform.into_iter().find(|(value, _)| words.iter().all(|word| word == value));
        if let Some((_, page)) = uniform {
            *self = page;
        }
    }
}

/// A set of cluster numbers below a fixed bound, at one bit a cluster in those pages of 32,576 clusters that hold
/// some, but not all. The MFT walk also keeps record numbers in one.
#[derive(Clone, Debug)]
pub struct ClusterSet {
    bound: u64,
    /// Up to the last one that ever held a number: those behind it are empty.
    pages: Vec<Page>,
}

/// What differs between a set and a bitmap that was laid over it, see [`ClusterSet::absorb_bitmap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The bitmap has this cluster, the set had not.
    OnlyInBitmap(Lcn),
    /// The set had this cluster, the bitmap has not.
    OnlyInSet(Lcn),
}

impl ClusterSet {
    /// An empty set of numbers below `bound`.
    pub fn new(bound: u64) -> ClusterSet {
        ClusterSet { bound, pages: Vec::new() }
    }

    fn page(&self, page_no: usize) -> &Page {
        self.pages.get(page_no).unwrap_or(&EMPTY)
    }

    /// Makes sure that there are as many pages.
    fn grow(&mut self, nr_pages: usize) {
        if let Some(missing) = nr_pages.checked_sub(self.pages.len()).filter(|missing| *missing > 0) {
            // Twice as many as there are, so that growing costs nothing that counts, but no more than there can be.
            let most = usize::try_from(self.bound.div_ceil(PAGE_BITS)).unwrap_or(usize::MAX);
            let doubled = self.pages.len().min(most.saturating_sub(self.pages.len()));
            self.pages.reserve_exact(missing.max(doubled));
            self.pages.resize_with(nr_pages, || Page::Empty);
        }
    }

    /// Numbers in the set are below this one.
    pub fn bound(&self) -> u64 {
        self.bound
    }

    /// Is this number in the set?
    pub fn contains(&self, number: u64) -> bool {
        let (page, word, bit) = split(number);
        self.page(page).word(word) >> bit & 1 == 1
    }

    /// Adds one number; false where the set had it already. Numbers outside the bound are ignored.
    pub fn insert(&mut self, number: u64) -> bool {
        self.fill(number, 1, true) == 0
    }

    /// Adds a stretch, cut at the bound, and returns how many of its clusters the set had already.
    pub fn insert_extent(&mut self, extent: Extent) -> u64 {
        self.fill(extent.lcn.0, extent.len, true)
    }

    /// The parts of a stretch that the set has already, ascending.
    pub fn overlaps(&self, extent: Extent) -> Extents<'_> {
        Extents { set: self, at: extent.lcn.0, end: extent.end().min(self.bound) }
    }

    /// Takes a stretch out, cut at the bound, and returns how many of its clusters the set had.
    pub fn remove_extent(&mut self, extent: Extent) -> u64 {
        self.fill(extent.lcn.0, extent.len, false)
    }

    /// Takes out what another set of the same bound has not.
    pub fn retain(&mut self, other: &ClusterSet) {
        self.pages.truncate(other.pages.len());
        let pages = self.pages.iter_mut().zip(&other.pages);
        pages.for_each(|(page, other)| page.combine(other, |word, other| word & other));
    }

    /// Takes out what another set of the same bound has.
    pub fn remove(&mut self, other: &ClusterSet) {
        let pages = self.pages.iter_mut().zip(&other.pages);
        pages.for_each(|(page, other)| page.combine(other, |word, other| word & !other));
    }

    /// Adds what another set of the same bound has, and takes out of that what was here already.
    pub fn absorb(&mut self, other: &mut ClusterSet) {
        self.grow(other.pages.len());
        for (page, other) in self.pages.iter_mut().zip(&mut other.pages) {
            other.combine(page, |other, word| other & !word);
            page.combine(other, |word, other| word | other);
        }
    }

    /// Sets or clears a stretch; returns how many of its bits were set before.
    fn fill(&mut self, start: u64, len: u64, value: bool) -> u64 {
        let end = start.saturating_add(len).min(self.bound);
        let mut at = start;
        let mut were_set = 0;
        while at < end {
            let (page_no, ..) = split(at);
            let first = at % PAGE_BITS;
            let n = (PAGE_BITS - first).min(end - at);
            if value {
                self.grow(page_no + 1);
            }
            let Some(page) = self.pages.get_mut(page_no) else { break };
            were_set += page.fill(first, first + n - 1, value);
            at += n;
        }
        were_set
    }

    /// How many numbers the set holds.
    pub fn count(&self) -> u64 {
        self.pages.iter().map(Page::count).sum()
    }

    /// Lays a piece of a bitmap (least significant bit first, as `$Bitmap` is) over the set: the set becomes the
    /// union, and each difference is told. `start` is the cluster of the piece's first bit, a multiple of 64
    /// (else nothing is done); bits outside the bound do not count.
    pub fn absorb_bitmap(&mut self, start: u64, bitmap: &[u8], mut differs: impl FnMut(Difference)) {
        if !start.is_multiple_of(64) {
            return;
        }
        let mut at = start;
        let mut rest = bitmap;
        while at < self.bound && !rest.is_empty() {
            let (page_no, word_no, _) = split(at);
            let (now, later) = rest.split_at(rest.len().min((WORDS - word_no) * 8));
            if !self.page(page_no).is_plainly(now) {
                self.grow(page_no + 1);
                self.absorb_words(at, now, &mut differs);
            }
            at += now.len() as u64 * 8;
            rest = later;
        }
    }

    /// The same for a piece that lies in one page.
    fn absorb_words(&mut self, start: u64, bitmap: &[u8], differs: &mut impl FnMut(Difference)) {
        let (page_no, first_word, _) = split(start);
        let bound = self.bound;
        let Some(page) = self.pages.get_mut(page_no) else { return };
        for ((base, word_no), bytes) in (start..bound).step_by(64).zip(first_word..).zip(bitmap.chunks(8)) {
            let (theirs, nr_bits) = word_of(bytes);
            let inside = u64::MAX >> (64 - nr_bits.min(bound - base));
            let (ours, theirs) = (page.word(word_no) & inside, theirs & inside);
            if ours == theirs {
                continue;
            }
            if theirs & !ours != 0
                && let Some(word) = page.mix().get_mut(word_no)
            {
                *word |= theirs;
            }
            let mut differing = ours ^ theirs;
            while differing != 0 {
                let bit = differing.trailing_zeros();
                let lcn = Lcn(base + u64::from(bit));
                differs(if theirs >> bit & 1 == 1 {
                    Difference::OnlyInBitmap(lcn)
                } else {
                    Difference::OnlyInSet(lcn)
                });
                differing &= differing - 1;
            }
        }
    }

    /// How many numbers and stretches come before each page: with it [`ClusterSet::rank`] is quick.
    pub fn ranks(&self) -> Ranks {
        let mut rank = Rank { before: 0, gaps: 0 };
        // Nothing comes before number 0, so a stretch that begins there follows no gap.
        let mut last_bit = 1;
        let pages = self.pages.iter().map(|page| {
            let at_start = (rank, last_bit);
            match page {
                Page::Empty => last_bit = 0,
                page => page.words().for_each(|word| rank.pass(word, &mut last_bit)),
            }
            at_start
        });
        let mut pages: Vec<_> = pages.collect();
        pages.push((rank, last_bit));
        Ranks { pages }
    }

    /// Where a number of the set stands in it; `ranks` is the set's own.
    pub fn rank(&self, ranks: &Ranks, number: u64) -> Rank {
        let (page_no, word_no, bit) = split(number);
        // Behind the last page nothing changes any more.
        let at_start = ranks.pages.get(page_no).or(ranks.pages.last()).copied();
        let (mut rank, mut last_bit) = at_start.unwrap_or((Rank { before: 0, gaps: 0 }, 1));
        let page = self.page(page_no);
        page.words().take(word_no).for_each(|word| rank.pass(word, &mut last_bit));
        let word = page.word(word_no);
        let upto = word & u64::MAX >> (63 - bit);
        rank.gaps += u64::from((upto & !(word << 1 | last_bit)).count_ones());
        rank.before += u64::from((upto & !(1 << bit)).count_ones());
        rank
    }

    /// The set as stretches, ascending, as long as they can be.
    pub fn extents(&self) -> Extents<'_> {
        Extents { set: self, at: 0, end: self.bound }
    }

    /// The next number at or behind `from` that is in the set (`value`) or is not; the bound where there is none.
    pub fn find(&self, from: u64, value: bool) -> u64 {
        self.find_until(from, value, self.bound)
    }

    /// The same, looked for below `limit` only, which is returned where there is none. A search costs what it goes past.
    pub fn find_until(&self, from: u64, value: bool, limit: u64) -> u64 {
        let limit = limit.min(self.bound);
        let mut at = from;
        while at < limit {
            let (page_no, word_no, bit) = split(at);
            let Some(page) = self.pages.get(page_no) else { return if value { limit } else { at } };
            let next_page = (page_no as u64 + 1) * PAGE_BITS;
            let Page::Mixed(words) = page else {
                if page.value() == Some(value) {
                    return at;
                }
                at = next_page;
                continue;
            };
            // In the bits that remain of this word, then in the first word that has any.
            let passed = if value { 0 } else { u64::MAX };
            let wanted = (page.word(word_no) ^ passed) >> bit;
            if wanted != 0 {
                return (at + u64::from(wanted.trailing_zeros())).min(limit);
            }
            let until = WORDS.min(word_no + (limit - at).div_ceil(64) as usize + 1);
            let rest = words.get(word_no + 1..until).unwrap_or_default();
            let nr_passed = rest.iter().take_while(|word| **word == passed).count();
            at = (page_no as u64 * PAGE_BITS + (word_no + 1 + nr_passed) as u64 * 64).min(next_page);
        }
        limit
    }

    /// The last number before `before` that is in the set (`value`) or is not; none where there is none.
    pub fn find_before(&self, before: u64, value: bool) -> Option<u64> {
        self.find_down_to(before, value, 0)
    }

    /// The same, looked for from `limit` on only.
    pub fn find_down_to(&self, before: u64, value: bool, limit: u64) -> Option<u64> {
        let mut end = before.min(self.bound);
        while end > limit {
            let (page_no, word_no, bit) = split(end - 1);
            let page = self.page(page_no);
            match page.value() {
                Some(all) if all == value => return Some(end - 1),
                Some(_) => {
                    end = page_no.min(self.pages.len()) as u64 * PAGE_BITS;
                    continue;
                }
                None => {}
            }
            let word = page.word(word_no);
            // The bits above the one in question go off at the top.
            let wanted = (if value { word } else { !word }) << (63 - bit);
            if wanted != 0 {
                return Some(end - 1 - u64::from(wanted.leading_zeros())).filter(|found| *found >= limit);
            }
            end = (end - 1) / 64 * 64;
        }
        None
    }
}

/// Where a number stands in its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Numbers of the set before it.
    pub before: u64,
    /// Gaps before it: stretches of numbers that are not in the set, from 0 on.
    pub gaps: u64,
}

impl Rank {
    /// Goes past 64 numbers, of which `last_bit` says whether the one before them is in the set.
    fn pass(&mut self, word: u64, last_bit: &mut u64) {
        self.before += u64::from(word.count_ones());
        self.gaps += u64::from((word & !(word << 1 | *last_bit)).count_ones());
        *last_bit = word >> 63;
    }
}

/// What [`ClusterSet::ranks`] gives: 24 bytes for each page.
#[derive(Debug)]
pub struct Ranks {
    /// The rank of each page's first number, and whether the number before that is in the set; then those of the first
    /// number behind all pages.
    pages: Vec<(Rank, u64)>,
}

/// Page, word in it, bit in that.
fn split(number: u64) -> (usize, usize, u32) {
    let page = usize::try_from(number / PAGE_BITS).unwrap_or(usize::MAX);
    (page, (number % PAGE_BITS / 64) as usize, (number % 64) as u32)
}

/// The 64 bits of these eight bytes of a bitmap, or of the fewer at its end, and how many there are.
fn word_of(bytes: &[u8]) -> (u64, u64) {
    let whole = bytes.first_chunk().map(|bytes| (u64::from_le_bytes(*bytes), 64));
    whole.unwrap_or_else(|| {
        let word = bytes.iter().rfold(0, |word, byte| word << 8 | u64::from(*byte));
        (word, bytes.len() as u64 * 8)
    })
}

/// Iterator of [`ClusterSet::extents`] and [`ClusterSet::overlaps`].
#[derive(Debug)]
pub struct Extents<'a> {
    set: &'a ClusterSet,
    at: u64,
    end: u64,
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let start = self.set.find_until(self.at, true, self.end);
        if start >= self.end {
            return None;
        }
        self.at = self.set.find_until(start, false, self.end);
        Some(Extent { lcn: Lcn(start), len: self.at - start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(lcn: u64, len: u64) -> Extent {
        Extent { lcn: Lcn(lcn), len }
    }

    #[test]
    fn extents_come_back_joined_and_across_pages() {
        let mut set = ClusterSet::new(200_000);
        for (lcn, len) in [(0, 1), (60, 10), (70, 5), (32_700, 100), (199_990, 10)] {
            assert_eq!(set.insert_extent(extent(lcn, len)), 0);
        }
        assert_eq!(set.insert_extent(extent(65, 20)), 10);
        let got: Vec<_> = set.extents().collect();
        assert_eq!(got, [extent(0, 1), extent(60, 25), extent(32_700, 100), extent(199_990, 10)]);
        assert_eq!(set.count(), 136);
        assert_eq!(set.remove_extent(extent(32_760, 20)), 20);
        assert_eq!(set.extents().nth(2), Some(extent(32_700, 60)));
        assert!(set.contains(32_780) && !set.contains(32_779));
    }

    #[test]
    fn overlaps_are_cut_at_the_stretch() {
        let mut set = ClusterSet::new(100_000);
        set.insert_extent(extent(10, 10));
        set.insert_extent(extent(40_000, 10));
        let got: Vec<_> = set.overlaps(extent(15, 39_990)).collect();
        assert_eq!(got, [extent(15, 5), extent(40_000, 5)]);
        assert_eq!(set.overlaps(extent(20, 39_980)).count(), 0);
        let mut other = ClusterSet::new(100_000);
        other.insert_extent(extent(15, 39_990));
        set.retain(&other);
        assert!(set.extents().eq([extent(15, 5), extent(40_000, 5)]));
    }

    #[test]
    fn behaves_like_an_array_of_bits() {
        const BOUND: u64 = 3 * PAGE_BITS + 1000;
        let mut random = 99u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut sets = [ClusterSet::new(BOUND), ClusterSet::new(BOUND)];
        let mut arrays = [vec![false; BOUND as usize], vec![false; BOUND as usize]];
        for round in 0..300 {
            let one = round % 2;
            let lcn = if next(2) == 0 { next(4) * PAGE_BITS } else { next(BOUND) };
            let len = [next(100), next(BOUND), PAGE_BITS, 2 * PAGE_BITS][next(4) as usize];
            let part = lcn.min(BOUND) as usize..(lcn + len).min(BOUND) as usize;
            let value = next(2) == 0;
            let were_set = arrays[one][part.clone()].iter().filter(|bit| **bit).count() as u64;
            let set = &mut sets[one];
            let found =
                if value { set.insert_extent(extent(lcn, len)) } else { set.remove_extent(extent(lcn, len)) };
            assert_eq!(found, were_set);
            arrays[one][part].fill(value);
            let [a, b] = &mut sets;
            let [bits, others] = &mut arrays;
            let pairs = bits.iter_mut().zip(others);
            match next(12) {
                0 => {
                    a.retain(b);
                    pairs.for_each(|(a, b)| *a &= *b);
                }
                1 => {
                    a.remove(b);
                    pairs.for_each(|(a, b)| *a &= !*b);
                }
                2 => {
                    a.absorb(b);
                    pairs.for_each(|(a, b)| (*a, *b) = (*a | *b, *b & !*a));
                }
                _ => {}
            }
            for (set, bits) in sets.iter().zip(&arrays) {
                assert_eq!(set.count(), bits.iter().filter(|bit| **bit).count() as u64);
                let (from, value) = (next(BOUND) as usize, next(2) == 0);
                let found = (from..bits.len()).find(|at| bits[*at] == value).unwrap_or(bits.len());
                assert_eq!(set.find(from as u64, value), found as u64);
                let found = (0..from).rev().find(|at| bits[*at] == value);
                assert_eq!(set.find_before(from as u64, value), found.map(|at| at as u64));
                assert_eq!(set.contains(from as u64), bits[from]);
                let rank = set.rank(&set.ranks(), from as u64);
                if bits[from] {
                    assert_eq!(rank.before, bits[..from].iter().filter(|bit| **bit).count() as u64);
                    let begins = |at: &usize| bits[*at] && (*at > 0 && !bits[*at - 1]);
                    assert_eq!(rank.gaps, (0..=from).filter(begins).count() as u64);
                }
            }
        }
    }

    #[test]
    fn numbers_are_found_backwards() {
        let mut set = ClusterSet::new(100_000);
        for (lcn, len) in [(0, 1), (64, 3), (70_000, 10)] {
            set.insert_extent(extent(lcn, len));
        }
        let found = |before, value| set.find_before(before, value);
        assert_eq!(
            [100_000, 70_010, 70_005, 70_000, 65, 64, 0].map(|before| found(before, true)),
            [Some(70_009), Some(70_009), Some(70_004), Some(66), Some(64), Some(0), None]
        );
        assert_eq!(
            [100_000, 70_010, 67, 64, 1, 0].map(|before| found(before, false)),
            [Some(99_999), Some(69_999), Some(63), Some(63), None, None]
        );
        let until = |from, value, limit| set.find_until(from, value, limit);
        assert_eq!(
            [until(1, true, 64), until(1, true, 65), until(64, false, 66), until(64, false, 70)],
            [64, 64, 66, 67]
        );
        assert_eq!([until(1, true, 50), until(80_000, true, u64::MAX)], [50, 100_000]);
        let down = |before, value, limit| set.find_down_to(before, value, limit);
        assert_eq!([down(64, true, 1), down(64, true, 0), down(67, false, 64)], [None, Some(0), None]);
        assert_eq!(
            [down(67, false, 63), down(70_000, true, 67), down(70_000, true, 66)],
            [Some(63), None, Some(66)]
        );
    }

    #[test]
    fn ranks_count_what_comes_before() {
        for stretches in
            [&[(0, 3), (5, 1), (63, 2), (128, 64), (40_000, 2), (70_000, 1)][..], &[(1, 70_000)], &[]]
        {
            let mut set = ClusterSet::new(100_000);
            stretches.iter().for_each(|(lcn, len)| assert_eq!(set.insert_extent(extent(*lcn, *len)), 0));
            let ranks = set.ranks();
            let (mut before, mut gaps) = (0, 0);
            for (lcn, len) in stretches {
                gaps += u64::from(*lcn > 0);
                for number in *lcn..lcn + len {
                    assert_eq!(set.rank(&ranks, number), Rank { before, gaps }, "{number}");
                    before += 1;
                }
            }
        }
    }

    #[test]
    fn numbers_outside_the_bound_are_ignored() {
        let mut set = ClusterSet::new(100);
        set.insert_extent(extent(90, u64::MAX));
        set.insert(100);
        assert_eq!(set.count(), 10);
        assert!(!set.contains(u64::MAX));
    }

    #[test]
    fn a_bitmap_laid_over_tells_each_difference_once() {
        let mut set = ClusterSet::new(130);
        set.insert_extent(extent(3, 2));
        set.insert(129);
        let mut bitmap = [0u8; 17];
        bitmap[0] = 0b0000_1001;
        bitmap[8] = 1;
        bitmap[16] = 0b1111_1110; // clusters 129 and, outside the volume, 130 to 135
        let mut seen = Vec::new();
        set.absorb_bitmap(0, &bitmap, |difference| seen.push(difference));
        assert_eq!(
            seen,
            [
                Difference::OnlyInBitmap(Lcn(0)),
                Difference::OnlyInSet(Lcn(4)),
                Difference::OnlyInBitmap(Lcn(64)),
            ]
        );
        assert_eq!(set.count(), 5);
    }

    #[test]
    fn a_large_set_costs_memory_only_where_it_holds_something() {
        let mut set = ClusterSet::new(crate::units::MAX_CLUSTERS);
        set.insert(crate::units::MAX_CLUSTERS - 1);
        assert_eq!(set.extents().next(), Some(extent(crate::units::MAX_CLUSTERS - 1, 1)));
        assert_eq!(set.pages.iter().filter(|page| page.value().is_none()).count(), 1);
        let mut zeros = ClusterSet::new(crate::units::MAX_CLUSTERS);
        for start in (0..zeros.bound()).step_by(1 << 23).take(64) {
            zeros.absorb_bitmap(start, &[0; 1 << 20], |difference| panic!("{difference:?}"));
            zeros.remove_extent(extent(start, 1 << 23));
        }
        assert_eq!(zeros.pages.len(), 0);
    }

    #[test]
    fn a_set_ends_where_it_holds_nothing_more() {
        let mut short = ClusterSet::new(200_000);
        short.insert_extent(extent(10, 10));
        assert_eq!(short.pages.len(), 1);
        assert_eq!((short.find(20, true), short.find(100_000, false)), (200_000, 100_000));
        assert_eq!(
            (short.find_before(150_000, true), short.find_before(150_000, false)),
            (Some(19), Some(149_999))
        );
        assert_eq!(short.rank(&short.ranks(), 150_000), Rank { before: 10, gaps: 1 });
        let mut long = ClusterSet::new(200_000);
        long.insert_extent(extent(15, 150_000));
        let mut both = short.clone();
        both.absorb(&mut long.clone());
        assert!(both.extents().eq([extent(10, 150_005)]));
        let mut common = long.clone();
        common.retain(&short);
        assert!(common.extents().eq([extent(15, 5)]));
        long.remove(&short);
        assert!(long.extents().eq([extent(20, 149_995)]));
    }

    #[test]
    fn a_bitmap_that_is_the_same_in_whole_pages_changes_nothing() {
        let mut set = ClusterSet::new(4 * PAGE_BITS);
        set.insert_extent(extent(PAGE_BITS, PAGE_BITS));
        let mut bitmap = vec![0; (4 * PAGE_BITS / 8) as usize];
        let page = bitmap.len() / 4;
        bitmap[page..2 * page].fill(0xff);
        // In pieces that end within pages, as they come from a disk.
        for (start, piece) in (0..).step_by(8 * 1000).zip(bitmap.chunks(1000)) {
            set.absorb_bitmap(start, piece, |difference| panic!("{difference:?}"));
        }
        assert!(set.pages.len() == 2 && set.pages.iter().all(|page| page.value().is_some()));
        bitmap[2 * page - 1] = 0x7f;
        bitmap[3 * page] = 1;
        let mut seen = Vec::new();
        set.absorb_bitmap(0, &bitmap, |difference| seen.push(difference));
        let (last, first) = (Lcn(2 * PAGE_BITS - 1), Lcn(3 * PAGE_BITS));
        assert_eq!(seen, [Difference::OnlyInSet(last), Difference::OnlyInBitmap(first)]);
        assert!(set.extents().eq([extent(PAGE_BITS, PAGE_BITS), extent(3 * PAGE_BITS, 1)]));
    }
}
