//! What was read of a volume before there is a place to put it: metadata, which is needed to know what to copy.

use std::collections::BTreeMap;

use crate::extent::ByteRange;

/// Bytes in a page, and of the unit in which a page is filled: the smallest sector that a read can have.
const PAGE: u64 = 4096;
const UNIT: u64 = 512;

/// Bytes that are kept: the metadata of a volume of usual size, `$Bitmap` of one of 1 TiB. What is beyond is read once
/// more.
pub const LIMIT: u64 = 48 << 20;

/// Pages whose memory is asked for at once: an allocator takes less of its own for few large pieces.
const SLAB: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Page {
    /// Where its bytes are, counted in pages.
    index: u32,
    /// Units that are here, one bit each.
    filled: u8,
}

/// Bytes by their place, up to a limit.
#[derive(Debug, Default)]
pub struct Stash {
    pages: BTreeMap<u64, Page>,
    slabs: Vec<Vec<u8>>,
}

impl Stash {
    /// Keeps the bytes at `pos`, both multiples of 512, unless there is no room.
    pub fn put(&mut self, pos: u64, data: &[u8]) {
        for (at, unit) in (pos..).step_by(UNIT as usize).zip(data.chunks_exact(UNIT as usize)) {
            let has_room = (self.pages.len() as u64) < LIMIT / PAGE;
            let index = self.pages.len() as u32;
            let page = match self.pages.entry(at / PAGE) {
                std::collections::btree_map::Entry::Vacant(entry) if has_room => {
                    entry.insert(Page { index, filled: 0 })
                }
                std::collections::btree_map::Entry::Vacant(_) => continue,
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            };
            let (slab, start) = place(*page, at);
            if self.slabs.len() <= slab {
                self.slabs.push(vec![0; SLAB * PAGE as usize]);
            }
            let bytes = self.slabs.get_mut(slab).and_then(|slab| slab.get_mut(start..start + UNIT as usize));
            if let Some(to) = bytes {
                to.copy_from_slice(unit);
                page.filled |= 1 << (at % PAGE / UNIT);
            }
        }
    }

    /// Fills `buf` with the bytes from `pos` on; false, and `buf` of no meaning, where some are not here.
    pub fn get(&self, pos: u64, buf: &mut [u8]) -> bool {
        let mut at = pos;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = at % UNIT;
            let (now, later) = rest.split_at_mut(rest.len().min((UNIT - within) as usize));
            let Some(page) =
                self.pages.get(&(at / PAGE)).filter(|page| page.filled >> (at % PAGE / UNIT) & 1 == 1)
            else {
                return false;
            };
            let (slab, start) = place(*page, at);
            let bytes = self.slabs.get(slab).and_then(|slab| slab.get(start..start + now.len()));
            now.copy_from_slice(bytes.unwrap_or_default());
            at += now.len() as u64;
            rest = later;
        }
        true
    }

    /// Is all of this here?
    pub fn contains(&self, range: ByteRange) -> bool {
        let units = range.pos / UNIT..range.end().div_ceil(UNIT);
        units.into_iter().all(|unit| {
            let page = self.pages.get(&(unit * UNIT / PAGE));
            page.is_some_and(|page| page.filled >> (unit * UNIT % PAGE / UNIT) & 1 == 1)
        })
    }
}

/// Where a byte of a page is: its slab, and the byte in that.
fn place(page: Page, at: u64) -> (usize, usize) {
    let index = page.index as usize;
    (index / SLAB, index % SLAB * PAGE as usize + (at % PAGE) as usize)
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
}
