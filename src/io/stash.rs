//! What was read of a volume before there is a place to put it: metadata, which is needed to know what to copy.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::extent::ByteRange;

/// Bytes in a page, and of the unit in which a page is filled: the smallest sector that a read can have.
pub const PAGE: u64 = 4096;
const UNIT: u64 = 512;

/// Bytes that a rescue keeps: the metadata of a volume of usual size, `$Bitmap` of one of 1 TiB. What is beyond is read
/// once more.
pub const LIMIT: u64 = 48 << 20;

/// Pages whose memory is asked for at once: an allocator takes less of its own for few large pieces.
const SLAB: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Page {
    /// Where its bytes are, counted in pages.
    index: usize,
    /// Units that are here, one bit each.
    filled: u8,
}

/// Memory of some pages, as long as any of them is kept.
#[derive(Debug, Default)]
struct Slab {
    bytes: Vec<u8>,
    nr_pages: usize,
}

/// Bytes by their place, up to a limit.
#[derive(Debug)]
pub struct Stash {
    /// Pages that may yet be begun.
    room: u64,
    pages: BTreeMap<u64, Page>,
    slabs: Vec<Slab>,
    /// Pages that were ever begun.
    nr_begun: usize,
}

impl Default for Stash {
    /// For a rescue.
    fn default() -> Stash {
        Stash::new(LIMIT)
    }
}

impl Stash {
    /// Keeps `limit` bytes at the most, counted in whole pages.
    pub fn new(limit: u64) -> Stash {
        Stash { room: limit / PAGE, pages: BTreeMap::new(), slabs: Vec::new(), nr_begun: 0 }
    }

    /// Is nothing kept?
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Is there room for another page? Once there is none, there never is again.
    pub fn has_room(&self) -> bool {
        self.room > 0
    }

    /// Keeps the bytes at `pos`, as far as there is room and they fill units of 512 bytes.
    pub fn put(&mut self, pos: u64, data: &[u8]) {
        let start = pos.next_multiple_of(UNIT);
        let end = (pos + data.len() as u64) / UNIT * UNIT;
        for part in by_page(ByteRange { pos: start, len: end.saturating_sub(start) }) {
            let from = data.get((part.pos - pos) as usize..(part.end() - pos) as usize).unwrap_or_default();
            let page = match self.pages.entry(part.pos / PAGE) {
                Entry::Vacant(_) if self.room == 0 => continue,
                Entry::Vacant(entry) => {
                    let index = self.nr_begun;
                    (self.room, self.nr_begun) = (self.room - 1, index + 1);
                    if self.slabs.len() <= index / SLAB {
                        self.slabs.push(Slab { bytes: vec![0; SLAB * PAGE as usize], nr_pages: 0 });
                    }
                    if let Some(slab) = self.slabs.get_mut(index / SLAB) {
                        slab.nr_pages += 1;
                    }
                    entry.insert(Page { index, filled: 0 })
                }
                Entry::Occupied(entry) => entry.into_mut(),
            };
            let (slab, start) = place(*page, part.pos);
            let slab = self.slabs.get_mut(slab);
            if let Some(to) = slab.and_then(|slab| slab.bytes.get_mut(start..start + from.len())) {
                to.copy_from_slice(from);
                page.filled |= units(part);
            }
        }
    }

    /// Fills `buf` with the bytes from `pos` on; false, and `buf` of no meaning, where some are not here.
    pub fn get(&self, pos: u64, buf: &mut [u8]) -> bool {
        let mut rest = buf;
        for part in by_page(ByteRange { pos, len: rest.len() as u64 }) {
            let (now, later) = rest.split_at_mut(part.len as usize);
            let Some(page) = self.page_of(part) else { return false };
            let (slab, start) = place(page, part.pos);
            let bytes = self.slabs.get(slab).and_then(|slab| slab.bytes.get(start..start + now.len()));
            now.copy_from_slice(bytes.unwrap_or_default());
            rest = later;
        }
        true
    }

    /// Is all of this here?
    pub fn contains(&self, range: ByteRange) -> bool {
        by_page(range).all(|part| self.page_of(part).is_some())
    }

    /// How many bytes at the beginning of a range are here, up to its end or to the end of a page, and how many of the
    /// others at its end.
    pub fn ends(&self, range: ByteRange) -> (u64, u64) {
        let is_here = |part: &ByteRange| self.page_of(*part).is_some();
        let front = by_page(range).take_while(is_here).map(|part| part.len).sum();
        let mut rest = ByteRange { pos: range.pos + front, len: range.len - front };
        let end = rest.end();
        while rest.len > 0 {
            let start = ((rest.end() - 1) / PAGE * PAGE).max(rest.pos);
            if !is_here(&ByteRange { pos: start, len: rest.end() - start }) {
                break;
            }
            rest.len = start - rest.pos;
        }
        (front, end - rest.end())
    }

    /// The first stretch of whole pages in a range that is here and has this many bytes or more.
    pub fn stretch_in(&self, range: ByteRange, least: u64) -> Option<ByteRange> {
        let first = range.pos.div_ceil(PAGE);
        let whole = self.pages.range(first..first.max(range.end() / PAGE));
        let mut stretch = ByteRange { pos: 0, len: 0 };
        for pos in whole.filter(|(_, page)| page.filled == u8::MAX).map(|(number, _)| number * PAGE) {
            if pos != stretch.end() {
                if stretch.len >= least {
                    break;
                }
                stretch = ByteRange { pos, len: 0 };
            }
            stretch.len += PAGE;
        }
        Some(stretch).filter(|stretch| stretch.len >= least)
    }

    /// Keeps those pages no longer whose last byte is in this range.
    pub fn forget(&mut self, range: ByteRange) {
        let ending = range.pos / PAGE..range.end() / PAGE;
        while let Some((number, page)) =
            self.pages.range(ending.clone()).next().map(|(at, page)| (*at, *page))
        {
            self.pages.remove(&number);
            if let Some(slab) = self.slabs.get_mut(page.index / SLAB) {
                slab.nr_pages -= 1;
                if slab.nr_pages == 0 {
                    slab.bytes = Vec::new();
                }
            }
        }
    }

    /// The page that holds this part of one, if all of the part is here.
    fn page_of(&self, part: ByteRange) -> Option<Page> {
        let units = units(part);
        self.pages.get(&(part.pos / PAGE)).copied().filter(|page| page.filled & units == units)
    }
}

/// A range in parts, each in a page of its own.
fn by_page(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let mut pos = range.pos;
    std::iter::from_fn(move || {
        let part = ByteRange { pos, len: (PAGE - pos % PAGE).min(range.end() - pos) };
        pos = part.end();
        (part.len > 0).then_some(part)
    })
}

/// The units of a page that hold this part of it, one bit each.
fn units(part: ByteRange) -> u8 {
    let first = part.pos % PAGE / UNIT;
    let last = (part.end() - 1) % PAGE / UNIT;
    u8::MAX << first & u8::MAX >> (7 - last)
}

/// Where a byte of a page is: its slab, and the byte in that.
fn place(page: Page, at: u64) -> (usize, usize) {
    (page.index / SLAB, page.index % SLAB * PAGE as usize + (at % PAGE) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_it_has() {
        let mut stash = Stash::default();
        let data: Vec<u8> = (0..10_240u32).map(|at| (at / 3) as u8).collect();
        stash.put(3584, &data);
        let mut buf = vec![0; 1000];
        assert!(stash.get(4000, &mut buf) && buf == data[416..1416]);
        assert!(!stash.get(3583, &mut buf) && !stash.get(3584 + 10_000, &mut buf));
        assert!(stash.contains(ByteRange { pos: 3584, len: 10_240 }));
        assert!(!stash.contains(ByteRange { pos: 3584, len: 10_241 }));
    }

    #[test]
    fn what_has_no_room_is_not_kept() {
        let mut stash = Stash::default();
        let data = vec![7; 1 << 20];
        for mebi in 0..=LIMIT >> 20 {
            stash.put(mebi << 20, &data);
        }
        assert!(stash.contains(ByteRange { pos: 0, len: LIMIT }));
        assert!(!stash.contains(ByteRange { pos: LIMIT, len: 1 }));
        stash.put(0, &data);
    }

    #[test]
    fn what_is_kept_at_both_ends_of_a_range_is_told() {
        let mut stash = Stash::new(16 * PAGE);
        stash.put(0, &[1; 2 * PAGE as usize]);
        stash.put(4 * PAGE, &[2; PAGE as usize + 1024]);
        let ends = |pos, len| stash.ends(ByteRange { pos, len });
        assert_eq!(ends(0, 5 * PAGE), (2 * PAGE, PAGE));
        assert_eq!(
            ends(512, 5 * PAGE + 512),
            (2 * PAGE - 512, PAGE + 1024),
            "up to what is filled of a page"
        );
        assert_eq!(ends(0, 6 * PAGE), (2 * PAGE, 0), "a page that is not filled to its end");
        assert_eq!(ends(PAGE, PAGE), (PAGE, 0));
        assert_eq!(ends(2 * PAGE, 2 * PAGE), (0, 0));
        let stretch = |pos, len, least| stash.stretch_in(ByteRange { pos, len }, least);
        let of = |pos, len| Some(ByteRange { pos, len });
        assert_eq!(stretch(0, 6 * PAGE, 1), of(0, 2 * PAGE));
        assert_eq!(stretch(512, 6 * PAGE, PAGE), of(PAGE, PAGE));
        assert_eq!(stretch(PAGE + 512, 4 * PAGE, 1), of(4 * PAGE, PAGE));
        assert_eq!((stretch(0, 8 * PAGE, 3 * PAGE), stretch(512, 512, 1)), (None, None));
    }

    #[test]
    fn what_is_forgotten_gives_its_memory_back() {
        let mut stash = Stash::new(LIMIT);
        let slab = SLAB as u64 * PAGE;
        stash.put(512, &vec![3; 2 * slab as usize]);
        stash.forget(ByteRange { pos: 0, len: slab - 512 });
        assert!(!stash.contains(ByteRange { pos: 512, len: 512 }));
        assert!(stash.contains(ByteRange { pos: slab - PAGE, len: slab }), "not read to its end");
        assert_eq!(stash.slabs.iter().filter(|slab| slab.bytes.is_empty()).count(), 0);
        stash.forget(ByteRange { pos: slab - 512, len: 512 });
        assert_eq!(stash.slabs.iter().filter(|slab| slab.bytes.is_empty()).count(), 1);
        stash.forget(ByteRange { pos: 0, len: 3 * slab });
        assert!(stash.is_empty() && stash.slabs.iter().all(|slab| slab.bytes.is_empty()));
    }
}
