//! Wiping the values of attributes, resident or in clusters.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Wiped, Wiping, index, wipe_times, zero, zero_from};
use crate::ntfs::attr::{FILE_NAME_FIXED, types};
use crate::ntfs::mft_no;

/// Of `$FILE_NAME` and of an index entry's key, which is one: where the four times begin.
pub(super) const FILE_NAME_TIMES: usize = 8;

/// Name of the stream with a file's numbers in transactions, UTF-16LE. Others hold the keys of encrypted files.
const TXF: &[u8] = b"$\0T\0X\0F\0_\0D\0A\0T\0A\0";

/// Streams of NTFS's own files that have a name: those that are metadata, by record and name, UTF-16LE.
const NAMED_METADATA: [(u64, &[u8]); 3] = [
    (mft_no::BITMAP, b"$\0S\0R\0A\0T\0"),
    (mft_no::SECURE, b"$\0S\0D\0S\0"),
    (mft_no::UP_CASE, b"$\0I\0n\0f\0o\0"),
];

/// Is the data of this record's attribute called `name` the user's? The first records are metadata themselves, but
/// anybody can add streams to them, and to the root folder without any trick.
pub fn is_user_data(mft_no: u64, name: &[u8]) -> bool {
    let is_metadata = match name {
        [] => mft_no < mft_no::EXTEND && mft_no != mft_no::ROOT,
        name => NAMED_METADATA.contains(&(mft_no, name)),
    };
    !is_metadata
}

/// Bytes of a `$FILE_NAME` with its name.
pub(super) fn file_name_len(value: &[u8]) -> usize {
    FILE_NAME_FIXED + 2 * usize::from(value.get(FILE_NAME_FIXED - 2).copied().unwrap_or(0))
}

/// Most bytes that values of a type have, where NTFS sets a limit.
fn longest(kind: u32) -> usize {
    match kind {
        types::STANDARD_INFORMATION => 72,
        types::OBJECT_ID => 64,
        types::VOLUME_NAME => 256,
        types::VOLUME_INFORMATION => 12,
        types::EA_INFORMATION => 8,
        _ => usize::MAX,
    }
}

/// Wipes the resident value of an attribute in the record `mft_no`.
pub(super) fn wipe_resident(
    mft_no: u64,
    kind: u32,
    name: &[u8],
    value: &mut [u8],
    wiping: Wiping,
    wiped: &mut Wiped,
) {
    wiped.values += zero_from(value, longest(kind));
    match kind {
        types::STANDARD_INFORMATION if !wiping.keep_times => wiped.times += wipe_times(value, 0, 4),
        types::FILE_NAME => {
            wiped.values += zero_from(value, file_name_len(value));
            if !wiping.keep_times {
                wiped.times += wipe_times(value, FILE_NAME_TIMES, 4);
            }
        }
        types::DATA if is_user_data(mft_no, name) => wiped.resident += zero(value),
        types::INDEX_ROOT => index::wipe_root(value, index::Kind::of(name), wiping, wiped),
        _ => {
            if let Some(private) = Private::of(kind, name) {
                private.wipe(value, wiped);
            }
        }
    }
}

/// What of a value that is neither data nor an index is private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Private {
    /// Extended attributes: the names stay.
    ExtendedAttributes,
    /// A reparse point: the tag stays, and where it is a link the target.
    ReparsePoint,
    /// All of it.
    Whole,
}

impl Private {
    /// What is private in attributes of this type and name; none where nothing is.
    pub fn of(kind: u32, name: &[u8]) -> Option<Private> {
        match kind {
            types::EA => Some(Private::ExtendedAttributes),
            types::REPARSE_POINT => Some(Private::ReparsePoint),
            types::LOGGED_UTILITY_STREAM if name != TXF => Some(Private::Whole),
            kind if types::ALL.contains(&kind) => None,
            // Types that are not known, or that anybody may define.
            _ => Some(Private::Whole),
        }
    }

    /// Wipes a whole value.
    pub fn wipe(self, value: &mut [u8], wiped: &mut Wiped) {
        wiped.values += match self {
            Private::ExtendedAttributes => wipe_eas(value),
            Private::ReparsePoint => wipe_reparse_point(value),
            Private::Whole => zero(value),
        };
    }
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ea {
    /// Bytes to the next one; 0 in the last.
    next: U32,
    flags: u8,
    /// Bytes, without the NUL behind it.
    name_len: u8,
    value_len: U16,
}

/// Wipes the values of a chain of extended attributes, and all that is behind its end or its first mistake.
fn wipe_eas(value: &mut [u8]) -> u64 {
    let mut wiped = 0;
    let mut at = 0;
    loop {
        let rest = value.get_mut(at..).unwrap_or_default();
        let header = Ea::ref_from_prefix(rest).ok().map(|(ea, _)| {
            let named = size_of::<Ea>() + usize::from(ea.name_len) + 1;
            (ea.next.get() as usize, named, named + usize::from(ea.value_len.get()))
        });
        let Some((next, named, end)) = header.filter(|(_, _, end)| *end <= rest.len()) else {
            return wiped + zero(rest);
        };
        match next {
            0 => return wiped + zero_from(rest, named),
            next if next < end || next > rest.len() => return wiped + zero(rest),
            next => wiped += zero(rest.get_mut(named..next).unwrap_or_default()),
        }
        at += next;
    }
}

/// Tags of reparse points that are links: mount point, symbolic link, and that of WSL. A walk through the folders reads
/// their targets, which are names.
const LINKS: [u32; 3] = [0xa000_0003, 0xa000_000c, 0xa000_001d];

/// Bytes of a reparse point before its data: tag, length, two unused.
const REPARSE_HEADER: usize = 8;

fn wipe_reparse_point(value: &mut [u8]) -> u64 {
    let Ok((tag, rest)) = U32::read_from_prefix(value) else { return zero(value) };
    if !LINKS.contains(&tag.get()) {
        return zero_from(value, REPARSE_HEADER);
    }
    let len = U16::read_from_prefix(rest).map_or(0, |(len, _)| usize::from(len.get()));
    zero_from(value, REPARSE_HEADER + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ea(next: u32, name: &str, value: &[u8]) -> Vec<u8> {
        let mut bytes = next.to_le_bytes().to_vec();
        bytes.extend([0, name.len() as u8, value.len() as u8, 0]);
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(value);
        bytes
    }

    #[test]
    fn extended_attributes_keep_their_names() {
        let mut chain = [ea(20, "ONE", b"secret"), vec![7; 2], ea(0, "TWO", b"more"), vec![9; 5]].concat();
        let want = [ea(20, "ONE", &[0; 6]), vec![0; 2], ea(0, "TWO", &[0; 4]), vec![0; 5]].concat();
        assert_eq!(wipe_eas(&mut chain), 6 + 2 + 4 + 5);
        assert_eq!(chain, want);
    }

    #[test]
    fn broken_extended_attributes_are_wiped_whole() {
        for next in [1, 11, 4000, u32::MAX] {
            let mut chain = ea(next, "ONE", b"secret");
            chain.extend([1; 40]);
            assert!(wipe_eas(&mut chain) > 40);
            assert!(chain.iter().all(|byte| *byte == 0), "next is {next}");
        }
        let mut short = ea(0, "ONE", b"secret");
        short[6] = 200;
        wipe_eas(&mut short);
        assert!(short.iter().all(|byte| *byte == 0));
        assert_eq!(wipe_eas(&mut []), 0);
    }

    #[test]
    fn links_keep_their_target_and_other_reparse_points_only_their_tag() {
        let point = |tag: u32| [&tag.to_le_bytes()[..], &[4, 0, 0, 0], b"path", b"behind"].concat();
        let mut link = point(LINKS[1]);
        assert_eq!(wipe_reparse_point(&mut link), 6);
        assert_eq!(link[8..], *b"path\0\0\0\0\0\0");
        let mut other = point(0x9000_001a);
        assert_eq!(wipe_reparse_point(&mut other), 10);
        assert_eq!(other[..8], point(0x9000_001a)[..8]);
        assert_eq!(other[8..], [0; 10]);
    }

    #[test]
    fn streams_of_the_root_folder_are_the_users() {
        assert!(is_user_data(5, b"n\0") && is_user_data(5, b"$\0") && is_user_data(5, b"$\0S\0D\0S\0"));
        assert!(is_user_data(11, b"") && is_user_data(12, b"") && is_user_data(40, b"$\0S\0D\0S\0"));
        assert!(!is_user_data(6, b"") && !is_user_data(9, b"$\0S\0D\0S\0"));
    }
}
