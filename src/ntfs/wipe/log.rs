//! Wiping pages of `$LogFile`: log records hold what was written into MFT records and indexes, contents of small files
//! among it.

use std::ops::Range;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Wiped, through_fixups, zero, zero_between, zero_from};
use crate::ntfs::fixup::{Fixups, Start};

/// Bytes of a page, on every version of Windows for PCs.
pub const PAGE: usize = 4096;

/// What an emptied log is filled with.
const EMPTY: u8 = 0xff;

/// Begins a page that says how far the log was worked through.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(in crate::ntfs) struct RestartPage {
    start: Start,
    chkdsk_lsn: U64,
    system_page_size: U32,
    log_page_size: U32,
    pub(in crate::ntfs) area_offset: U16,
    minor: U16,
    major: U16,
}

/// The part of a restart page that counts, at `area_offset`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(in crate::ntfs) struct RestartArea {
    /// Grows with every page that is written.
    pub(in crate::ntfs) current_lsn: U64,
    nr_clients: U16,
    first_free_client: U16,
    /// 0xffff: nobody uses the log.
    pub(in crate::ntfs) first_client_in_use: U16,
    pub(in crate::ntfs) flags: U16,
    sequence_bits: U32,
    /// Bytes of the area with the list of clients.
    len: U16,
}

/// Bytes of the header of a page of records.
const RECORD_PAGE_HEADER: usize = 40;

/// Most bytes of a restart area that are kept: one client takes 224.
const MAX_AREA: usize = 1024;

/// Wipes one page in place, or the part of one that a cluster holds: a restart page keeps its area, a page of records
/// its header.
pub fn wipe_page(bytes: &mut [u8], wiped: &mut Wiped) {
    if bytes.iter().all(|byte| *byte == EMPTY) {
        return;
    }
    let (header, is_restart) = match bytes.first_chunk() {
        Some(b"RSTR" | b"CHKD") => (size_of::<RestartPage>(), true),
        Some(b"RCRD") => (RECORD_PAGE_HEADER, false),
        _ => {
            wiped.values += zero(bytes);
            return;
        }
    };
    let Ok(fixups) = Fixups::find(bytes, header) else {
        // A part of a page, or one of another size, keeps what tells of its kind.
        wiped.values += zero_from(bytes, header);
        return;
    };
    let mut torn_off = 0;
    let _torn = through_fixups(bytes, &fixups, &mut torn_off, |bytes| {
        let area = if is_restart { restart_area(bytes, &fixups.array()) } else { None };
        let mut kept = [0..header, fixups.array(), area.unwrap_or(header..header)];
        kept.sort_unstable_by_key(|kept| kept.start);
        wiped.values += zero_between(bytes, 0, &kept);
        Ok(())
    });
    wiped.values += torn_off;
}

/// Where the area of a restart page lies whose fixups are applied. None where its fields would be among those.
fn restart_area(page: &[u8], fixups: &Range<usize>) -> Option<Range<usize>> {
    let (header, _) = RestartPage::ref_from_prefix(page).ok()?;
    let start = usize::from(header.area_offset.get());
    let (area, _) = RestartArea::ref_from_prefix(page.get(start..)?).ok()?;
    let overlaps = start < fixups.end && fixups.start < start + size_of::<RestartArea>();
    (!overlaps).then_some(())?;
    Some(start..start + usize::from(area.len.get()).clamp(size_of::<RestartArea>(), MAX_AREA))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::fixup::STRIDE;

    fn page(magic: &[u8; 4], header: u8) -> Vec<u8> {
        let mut page = vec![0x55; PAGE];
        page[..4].copy_from_slice(magic);
        page[4..8].copy_from_slice(&[header, 0, 9, 0]);
        page[usize::from(header)..][..2].copy_from_slice(&[7, 0]);
        page.chunks_mut(STRIDE).for_each(|stride| stride[STRIDE - 2..].copy_from_slice(&[7, 0]));
        page
    }

    /// Found by fuzzing: what tells its length was wiped.
    #[test]
    fn an_area_that_is_said_to_be_too_short_keeps_its_fields() {
        let mut bytes = page(b"RSTR", 30);
        (bytes[24], bytes[25], bytes[64 + 20], bytes[64 + 21]) = (64, 0, 3, 0);
        wipe_page(&mut bytes, &mut Wiped::default());
        assert_eq!((bytes[64 + 20], bytes[64 + 22]), (3, 0));
        let first = bytes.clone();
        wipe_page(&mut bytes, &mut Wiped::default());
        assert!(bytes == first);
    }

    /// Found by fuzzing: the area was kept only behind the fixups.
    #[test]
    fn an_area_before_the_fixups_stays_too() {
        let mut bytes = page(b"RSTR", 200);
        (bytes[24], bytes[25], bytes[64 + 20], bytes[64 + 21]) = (64, 0, 60, 0);
        let before = bytes.clone();
        wipe_page(&mut bytes, &mut Wiped::default());
        assert_eq!(bytes[64..124], before[64..124]);
        assert!(bytes[30..64].iter().chain(&bytes[124..200]).all(|byte| *byte == 0));
    }

    /// Found by fuzzing: its length was a word that the fixups had put there.
    #[test]
    fn an_area_among_the_fixups_is_none() {
        let mut bytes = page(b"RSTR", 30);
        (bytes[24], bytes[25]) = (24, 0);
        wipe_page(&mut bytes, &mut Wiped::default());
        let first = bytes.clone();
        wipe_page(&mut bytes, &mut Wiped::default());
        assert!(bytes == first && bytes[48..510].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_page_of_records_keeps_its_header() {
        let mut bytes = page(b"RCRD", 40);
        wipe_page(&mut bytes, &mut Wiped::default());
        assert_eq!(bytes[..40], page(b"RCRD", 40)[..40]);
        assert!(bytes[42..510].iter().all(|byte| *byte == 0) && bytes[510..512] == [7, 0]);
    }

    #[test]
    fn a_restart_page_keeps_its_area() {
        let mut bytes = page(b"RSTR", 30);
        bytes[0x10..0x14].copy_from_slice(&(PAGE as u32).to_le_bytes());
        bytes[0x18..0x1a].copy_from_slice(&[64, 0]);
        bytes[64 + 20..64 + 22].copy_from_slice(&[200, 0]);
        let before = bytes.clone();
        wipe_page(&mut bytes, &mut Wiped::default());
        assert_eq!(bytes[64..264], before[64..264]);
        assert!(
            bytes[264..510].iter().chain(&bytes[48..64]).all(|byte| *byte == 0) && bytes[510..512] == [7, 0]
        );
    }

    #[test]
    fn other_pages_are_zeros_unless_the_log_was_emptied() {
        let mut bytes = vec![0xff; PAGE];
        wipe_page(&mut bytes, &mut Wiped::default());
        assert!(bytes.iter().all(|byte| *byte == 0xff));
        bytes[9] = 1;
        wipe_page(&mut bytes, &mut Wiped::default());
        assert!(bytes.iter().all(|byte| *byte == 0));
        // A part of a page: nothing tells where its records begin.
        let mut part = page(b"RCRD", 40);
        part.truncate(512);
        wipe_page(&mut part, &mut Wiped::default());
        assert!(part[..4] == *b"RCRD" && part[40..].iter().all(|byte| *byte == 0));
    }
}
