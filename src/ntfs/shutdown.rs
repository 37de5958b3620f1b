//! How Windows left the volume: asleep, or with changes in `$LogFile` that are not in place yet.
//!
//! Neither keeps a volume from being copied; what is copied is then as if the power had gone.

use zerocopy::FromBytes;

use super::attr::{FileName, types};
use super::fixup::{Fixups, STRIDE};
use super::mft::Value;
use super::mft_no;
use super::record::mft_no_of;
use super::scan::HIBERFILE;
use super::volume::Volume;
use super::wipe::index::{block_entries, block_size, root_entries};
use super::wipe::log::{PAGE, RestartArea, RestartPage};

/// What `hiberfil.sys` begins with while Windows sleeps; it changes that when it wakes up.
const ASLEEP: [&[u8; 4]; 2] = [b"hibr", b"HIBR"];

/// `first_client_in_use`: nobody uses the log, it is closed.
const NO_CLIENT: u16 = 0xffff;

/// `flags` of a restart area: the volume was unmounted.
const IS_CLEAN: u16 = 2;

/// Largest index of a root folder that is searched, in bytes: some ten thousand files.
const MAX_INDEX: u64 = 4 << 20;

/// The base record of the file in the root folder where Windows keeps its memory while it sleeps, by that folder's
/// index; the outer none where that cannot be read as a whole.
#[allow(clippy::option_option)] // three answers
pub fn find_hiberfile(volume: &Volume<'_>) -> Option<Option<u64>> {
    const NAMES: &[u8] = b"$\0I\x003\x000\0";
    let is_wanted = |(reference, key): (u64, &[u8])| {
        let name = FileName::parse(key)?.name;
        name.eq_ignore_ascii_case(HIBERFILE).then(|| mft_no_of(reference))
    };
    let index = |kind| volume.mft.value(volume.source, mft_no::ROOT, kind, NAMES).ok();
    let Value::Resident(root) = index(types::INDEX_ROOT)?? else { return None };
    if let Some(found) = root_entries(&root).find_map(is_wanted) {
        return Some(Some(found));
    }
    let Some(block_size) = block_size(&root) else { return Some(None) };
    let blocks = index(types::INDEX_ALLOCATION)??;
    let (size, in_use) = (blocks.size(&volume.info.geometry), index(types::BITMAP)??);
    if size > MAX_INDEX || !(STRIDE as u32..=MAX_INDEX as u32).contains(&block_size) {
        return None;
    }
    let mut block = vec![0; block_size as usize];
    for (number, at) in
        (0..size / u64::from(block_size)).map(|number| (number, number * u64::from(block_size)))
    {
        let mut bits = [0];
        read(volume, &in_use, number / 8, &mut bits)?;
        if bits.first().is_some_and(|bits| bits >> (number % 8) & 1 == 0) {
            continue;
        }
        read(volume, &blocks, at, &mut block)?;
        if let Some(found) = block_entries(&mut block)?.find_map(is_wanted) {
            return Some(Some(found));
        }
    }
    Some(None)
}

/// Does Windows sleep on this volume, in the file whose base record is `hiberfile`? Not where that cannot be read.
pub fn is_hibernated(volume: &Volume<'_>, hiberfile: u64) -> bool {
    let mut magic = [0; 4];
    let data = data_of(volume, hiberfile);
    data.and_then(|data| read(volume, &data, 0, &mut magic)).is_some() && ASLEEP.contains(&&magic)
}

/// Does `$LogFile` hold changes that are not in place? Not where it cannot be read, or was emptied.
pub fn has_unclean_log(volume: &Volume<'_>) -> bool {
    let Some(log) = data_of(volume, mft_no::LOG_FILE) else { return false };
    let pages = [0, PAGE as u64].into_iter().filter_map(|offset| restart_area(volume, &log, offset));
    // The newer of the two counts.
    let newest = pages.max_by_key(|area| area.current_lsn.get());
    newest.is_some_and(|area| area.first_client_in_use.get() != NO_CLIENT && area.flags.get() & IS_CLEAN == 0)
}

fn restart_area(volume: &Volume<'_>, log: &Value, offset: u64) -> Option<RestartArea> {
    let mut page = [0; PAGE];
    read(volume, log, offset, &mut page)?;
    let fixups = Fixups::find(&page, size_of::<RestartPage>()).ok()?;
    if fixups.first_torn(&page).is_some() || page.first_chunk() != Some(b"RSTR") {
        return None;
    }
    fixups.apply(&mut page, PAGE / STRIDE);
    let (header, _) = RestartPage::ref_from_prefix(&page).ok()?;
    let area = page.get(usize::from(header.area_offset.get())..)?;
    Some(RestartArea::read_from_prefix(area).ok()?.0)
}

/// A file's data.
fn data_of(volume: &Volume<'_>, mft_no: u64) -> Option<Value> {
    volume.mft.value(volume.source, mft_no, types::DATA, &[]).ok()?
}

fn read(volume: &Volume<'_>, data: &Value, offset: u64, buf: &mut [u8]) -> Option<()> {
    data.read_at(volume.source, &volume.info.geometry, offset, buf).ok()
}
