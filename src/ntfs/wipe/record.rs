//! Wiping an MFT record.

use super::value::wipe_resident;
use super::{Wiped, Wiping, zero, zero_from};
use crate::ntfs::attr::{Attribute, Attributes, Body};
use crate::ntfs::fixup::STRIDE;
use crate::ntfs::record::{self, Fault};

/// Bytes of the mark that ends the attributes, with the field behind it that Windows counts to it.
const END_MARK: usize = 8;

/// Wipes the record `mft_no` in place; `scratch` is as long as the record. A record that is torn or makes no sense is
/// wiped all the same, and told: only what lies before the damage is left, and nothing of one that has no header.
pub fn wipe_record(
    bytes: &mut [u8],
    mft_no: u64,
    wiping: Wiping,
    scratch: &mut [u8],
    wiped: &mut Wiped,
) -> Result<(), Fault> {
    let fixups = match record::fixups(bytes) {
        Ok(fixups) => fixups,
        Err(fault) => {
            wiped.deleted += zero(bytes);
            return Err(fault);
        }
    };
    let torn = fixups.first_torn(bytes);
    let whole_strides = torn.map_or(bytes.len() / STRIDE, |torn| torn.sector);
    let (whole, rest) = bytes.split_at_mut(whole_strides * STRIDE);
    wiped.deleted += zero(rest);
    if whole.is_empty() {
        return Err(torn.map_or(Fault::Header { field: "length", found: 0, record_size: 0 }, Fault::Torn));
    }
    fixups.apply(whole, whole_strides);
    let kept = scratch.get_mut(..whole.len()).unwrap_or_default();
    kept.copy_from_slice(whole);
    let outcome = match record::is_marked_in_use(kept) {
        false => {
            wiped.deleted += zero_from(whole, fixups.end());
            Ok(())
        }
        true => wipe_attributes(whole, mft_no, wiping, kept, fixups.end(), wiped),
    };
    fixups.undo(whole, whole_strides);
    torn.map_or(outcome, |torn| Err(torn.into()))
}

/// Wipes a record in use whose fixups are applied; `kept` holds the same bytes. `header_end` is where its header ends.
fn wipe_attributes(
    bytes: &mut [u8],
    mft_no: u64,
    wiping: Wiping,
    kept: &[u8],
    header_end: usize,
    wiped: &mut Wiped,
) -> Result<(), Fault> {
    let (attrs_offset, bytes_in_use) = record::extent_of_attributes(kept);
    let record_size = kept.len();
    let used = kept.get(..bytes_in_use.min(record_size)).unwrap_or_default();
    if attrs_offset < header_end || attrs_offset > used.len() {
        wiped.deleted += zero_from(bytes, header_end);
        let found = attrs_offset as u32;
        return Err(Fault::Header { field: "offset of the first attribute", found, record_size });
    }
    wiped.unused += zero(bytes.get_mut(header_end..attrs_offset).unwrap_or_default());
    let mut end = attrs_offset;
    for attribute in Attributes::new(used, attrs_offset) {
        let Ok(attribute) = attribute else {
            wiped.deleted += zero_from(bytes, end);
            let found = end as u32;
            return Err(Fault::Header { field: "offset of an attribute", found, record_size });
        };
        wipe_attribute(bytes, mft_no, wiping, &attribute, wiped);
        end = attribute.offset + attribute.len;
    }
    wiped.unused += zero_from(bytes, (end + END_MARK).min(used.len()));
    Ok(())
}

/// Wipes one attribute in the record that is `bytes`.
fn wipe_attribute(
    bytes: &mut [u8],
    mft_no: u64,
    wiping: Wiping,
    attribute: &Attribute<'_>,
    wiped: &mut Wiped,
) {
    let Attribute { offset, len, body_offset, .. } = *attribute;
    // Behind the body the attribute is only filled up to a multiple of eight.
    let body_end = match attribute.body {
        Body::Resident(value) => {
            let value = bytes.get_mut(body_offset..body_offset + value.len()).unwrap_or_default();
            wipe_resident(mft_no, attribute.kind, attribute.name, value, wiping, wiped);
            body_offset + value.len()
        }
        Body::NonResident { .. } => {
            let runs =
                attribute.runs(u64::MAX).map(|mut runs| (runs.by_ref().all(|run| run.is_ok()), runs.at()));
            match runs {
                Some((true, end)) => body_offset + end,
                _ => return,
            }
        }
    };
    // A name can stand behind the value.
    let name_end = attribute.name_offset + attribute.name.len();
    let end = body_end.max(name_end).min(offset + len);
    wiped.unused += zero(bytes.get_mut(end..offset + len).unwrap_or_default());
}
