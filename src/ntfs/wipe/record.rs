//! Wiping an MFT record.

use super::value::wipe_resident;
use super::{Wiped, Wiping, through_fixups, zero, zero_between, zero_from};
use crate::ntfs::attr::{Attribute, Attributes, Body};
use crate::ntfs::record::{self, Fault};

/// Bytes of a record's header, with the number that newer versions of NTFS put behind it.
const HEADER: usize = 48;

/// Bytes of an attribute's header: resident; in clusters, with the size of a compressed one.
const RESIDENT_HEADER: usize = 24;
const NON_RESIDENT_HEADER: usize = 72;

/// Bytes of that where nothing is compressed: the body can begin there.
const LEAST_NON_RESIDENT: usize = 64;

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
    let mut torn_off = 0;
    let outcome = through_fixups(bytes, &fixups, &mut torn_off, |bytes| {
        let array = fixups.array();
        wiped.unused += zero(bytes.get_mut(HEADER..array.start).unwrap_or_default());
        if record::is_marked_in_use(bytes) {
            return wipe_attributes(bytes, mft_no, wiping, scratch, array.end, wiped);
        }
        wiped.deleted += zero_from(bytes, array.end);
        Ok(())
    });
    wiped.deleted += torn_off;
    outcome
}

/// Wipes a record in use whose fixups are applied. `header_end` is where its header ends.
fn wipe_attributes(
    bytes: &mut [u8],
    mft_no: u64,
    wiping: Wiping,
    scratch: &mut [u8],
    header_end: usize,
    wiped: &mut Wiped,
) -> Result<(), Fault> {
    let (attrs_offset, bytes_in_use) = record::extent_of_attributes(bytes);
    let record_size = bytes.len();
    let used = bytes.get(..bytes_in_use.min(record_size)).unwrap_or_default();
    if attrs_offset < header_end || attrs_offset > used.len() {
        wiped.deleted += zero_from(bytes, header_end);
        let found = attrs_offset as u32;
        return Err(Fault::Header { field: "offset of the first attribute", found, record_size });
    }
    // What is wiped is read from a copy.
    let kept = scratch.get_mut(..used.len()).unwrap_or_default();
    kept.copy_from_slice(used);
    let used = &*kept;
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
    let (header, least, body_end) = match attribute.body {
        Body::Resident(value) => {
            let value = bytes.get_mut(body_offset..body_offset + value.len()).unwrap_or_default();
            wipe_resident(mft_no, attribute.kind, attribute.name, value, wiping, wiped);
            (RESIDENT_HEADER, RESIDENT_HEADER, body_offset + value.len())
        }
        Body::NonResident { .. } => {
            let runs = attribute.runs(u64::MAX);
            let runs = runs.map(|mut runs| (runs.by_ref().all(|run| run.is_ok()), runs.at()));
            // A list that makes no sense is left to its end.
            let end = runs.filter(|(good, _)| *good).map_or(offset + len, |(_, end)| body_offset + end);
            (NON_RESIDENT_HEADER, LEAST_NON_RESIDENT, end)
        }
    };
    let name = attribute.name_offset..attribute.name_offset + attribute.name.len();
    let body = body_offset..body_end;
    // The name, if there is one, can stand before or behind the body.
    let (first, second) = match (attribute.name.is_empty(), name.start < body.start) {
        (true, _) => (body.clone(), body),
        (false, true) => (name, body),
        (false, false) => (body, name),
    };
    // What says where the body is stays, wherever that is.
    let header = offset..(offset + header).min(first.start.max(offset + least));
    let kept = [header, first, second];
    wiped.unused += zero_between(bytes.get_mut(..offset + len).unwrap_or_default(), offset, &kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::attr::types;

    const KEEP: Wiping = Wiping { keep_times: true };
    const WIPE: Wiping = Wiping { keep_times: false };

    fn attribute(kind: u32, value: &[u8], padding: u8) -> Vec<u8> {
        let len = (24 + value.len()).next_multiple_of(8);
        let mut bytes = vec![0; 24];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&(value.len() as u32).to_le_bytes());
        bytes[20] = 24;
        bytes.extend(value);
        bytes.resize(len, padding);
        bytes
    }

    /// A record on disk with times and data, of 1024 bytes, all that is nobody's filled with 0xaa.
    fn record(flags: u8) -> Vec<u8> {
        let body = [
            attribute(types::STANDARD_INFORMATION, &[1; 48], 0),
            attribute(types::DATA, &[2; 13], 0xaa),
            vec![0xff; 4],
            vec![0x11; 4],
        ];
        let body = body.concat();
        let mut bytes = vec![0xaa; 1024];
        bytes[..0x38].fill(0);
        bytes[..8].copy_from_slice(b"FILE\x30\0\x03\0");
        bytes[0x14] = 0x38;
        bytes[0x16] = flags;
        bytes[0x18] = 0x38 + body.len() as u8;
        bytes[0x38..0x38 + body.len()].copy_from_slice(&body);
        bytes[0x30..0x32].copy_from_slice(&[7, 0]);
        for stride in [1, 2] {
            bytes[0x30 + 2 * stride..0x32 + 2 * stride].copy_from_slice(&[0xaa; 2]);
            bytes[stride * 512 - 2..stride * 512].copy_from_slice(&[7, 0]);
        }
        bytes
    }

    fn wipe(bytes: &mut [u8], mft_no: u64, wiping: Wiping) -> (Result<(), Fault>, Wiped) {
        let mut wiped = Wiped::default();
        let outcome = wipe_record(bytes, mft_no, wiping, &mut vec![0; bytes.len()], &mut wiped);
        (outcome, wiped)
    }

    #[test]
    fn a_users_record_keeps_its_structure_and_sequence_number() {
        let mut bytes = record(1);
        let (outcome, wiped) = wipe(&mut bytes, 40, WIPE);
        assert!(outcome.is_ok());
        assert_eq!((wiped.resident, wiped.times, wiped.deleted), (13, 32, 0));
        let behind = 1024 - (0x38 + 72 + 40 + 8);
        assert_eq!(wiped.unused, 3 + behind);
        assert_eq!(
            (&bytes[0x30..0x36], &bytes[510..512], &bytes[1022..]),
            (&[7, 0, 0, 0, 0, 0][..], &[7, 0][..], &[7, 0][..])
        );
        let fixed = crate::ntfs::record::Record::parse(&mut bytes).unwrap();
        let values: Vec<_> = fixed.attributes().map(|attribute| attribute.unwrap().body).collect();
        let [Body::Resident(times), Body::Resident(data)] = values[..] else { panic!("{values:?}") };
        assert_eq!(
            (times[..8] == super::super::EPOCH.to_le_bytes(), &times[32..], data),
            (true, &[1; 16][..], &[0; 13][..])
        );
    }

    /// Found by fuzzing: the header was taken for what lies before the body, and so wiped.
    #[test]
    fn an_attribute_whose_body_is_said_to_lie_in_its_header_keeps_it() {
        let mut bytes = record(1);
        let at = 0x38 + 72;
        (bytes[at + 16], bytes[at + 20]) = (0, 0);
        assert!(wipe(&mut bytes, 40, WIPE).0.is_ok());
        let first = bytes.clone();
        assert!(wipe(&mut bytes, 40, WIPE).0.is_ok() && bytes == first);
    }

    #[test]
    fn a_record_of_ntfs_itself_keeps_its_data() {
        let mut bytes = record(1);
        let (_, wiped) = wipe(&mut bytes, 10, KEEP);
        assert_eq!((wiped.resident, wiped.times), (0, 0));
        assert!(bytes.windows(13).any(|window| window == [2; 13]) && !bytes.contains(&0xaa));
    }

    #[test]
    fn of_a_deleted_record_only_the_header_is_left() {
        let mut bytes = record(0);
        let before = bytes.clone();
        let (outcome, wiped) = wipe(&mut bytes, 40, KEEP);
        assert!(outcome.is_ok() && wiped.unused == 0 && wiped.deleted > 900);
        assert_eq!((&bytes[..0x32], &bytes[510..512]), (&before[..0x32], &[7, 0][..]));
        assert!(bytes[0x32..510].iter().chain(&bytes[512..1022]).all(|byte| *byte == 0));
    }

    #[test]
    fn a_torn_record_keeps_what_lies_before_the_damage() {
        let mut bytes = record(1);
        bytes[1022] = 6;
        let (outcome, _) = wipe(&mut bytes, 40, WIPE);
        assert!(matches!(outcome, Err(Fault::Torn(torn)) if torn.sector == 1));
        assert!(bytes[..4] == *b"FILE" && bytes[512..].iter().all(|byte| *byte == 0));
        let mut bytes = record(1);
        bytes[510] = 6;
        assert!(wipe(&mut bytes, 40, WIPE).0.is_err());
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_no_record_or_contradicts_itself_is_zeros_from_there_on() {
        let mut bytes = vec![0x55; 1024];
        assert!(matches!(wipe(&mut bytes, 40, WIPE).0, Err(Fault::NotARecord { .. })));
        assert!(bytes.iter().all(|byte| *byte == 0));
        // The length of the second attribute.
        let mut bytes = record(1);
        let at = 0x38 + 72;
        bytes[at + 4] = 3;
        assert!(matches!(wipe(&mut bytes, 40, WIPE).0, Err(Fault::Header { .. })));
        assert!(bytes[at..510].iter().all(|byte| *byte == 0) && bytes[0x38] == 0x10);
        // The offset of the first.
        let mut bytes = record(1);
        bytes[0x15] = 0xff;
        assert!(wipe(&mut bytes, 40, WIPE).0.is_err());
        assert!(bytes[0x36..510].iter().all(|byte| *byte == 0));
    }
}
