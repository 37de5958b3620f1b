//! Losses of made-up streams on a volume of 100 clusters.

use super::*;

const CLUSTER: u64 = 1024;

fn range(pos: u64, len: u64) -> ByteRange {
    ByteRange { pos, len }
}

#[test]
fn damaged_bytes_are_counted() {
    let ranges = [range(100, 10), range(200, 50), range(1000, 1)];
    let damage = Damage::new(&ranges);
    for (pos, len, wanted) in [
        (0, 100, 0),
        (0, 101, 1),
        (105, 100, 10),
        (0, u64::MAX, 61),
        (249, 1, 1),
        (250, 750, 0),
        (1000, 0, 0),
        (u64::MAX, 9, 0),
    ] {
        assert_eq!(damage.bytes_in(pos, len), wanted, "{len} bytes at {pos}");
    }
    assert_eq!(Damage::new(&[]).bytes_in(0, u64::MAX), 0);
}

/// What data of `size` bytes in these runs (length, LCN) loses; compressed in units of `unit` clusters, if that is
/// more than one.
fn lost(damage: &[ByteRange], size: u64, unit: u64, runs: &[(u8, Option<u8>)]) -> u64 {
    let geometry = Geometry::new(CLUSTER, 100, 100 * CLUSTER).unwrap();
    let damage = Damage::new(damage);
    let mut loss = Loss::new(&damage, geometry, types::DATA, &[]);
    let list = encode(runs);
    loss.add(42, &piece(0, size, unit, &list), &mut 0);
    loss.end();
    loss.bytes
}

fn encode(runs: &[(u8, Option<u8>)]) -> Vec<u8> {
    let mut last = 0;
    let mut list = Vec::new();
    for &(len, lcn) in runs {
        match lcn {
            Some(lcn) => {
                list.extend([0x11, len, lcn.wrapping_sub(last)]);
                last = lcn;
            }
            None => list.extend([0x01, len]),
        }
    }
    list.push(0);
    list
}

fn piece(lowest: u64, size: u64, unit: u64, runs: &[u8]) -> Attribute<'_> {
    let body = Body::NonResident {
        lowest_vcn: Vcn(lowest),
        end_vcn: None,
        runs,
        unit,
        data_size: size,
        initialized_size: size,
    };
    Attribute {
        offset: 0,
        len: 0,
        body_offset: 0,
        kind: types::DATA,
        name: &[],
        name_offset: 0,
        is_compressed: unit > 1,
        body,
    }
}

#[test]
fn only_what_a_reader_sees_is_lost() {
    let damage = [range(10 * CLUSTER, 100), range(11 * CLUSTER + 1000, 24 + 512), range(30 * CLUSTER, 5)];
    assert_eq!(lost(&damage, 3000, 1, &[(3, Some(10))]), 100 + 24 + 512);
    assert_eq!(lost(&damage, 2100, 1, &[(3, Some(10))]), 100 + 24 + 52, "cut at the end");
    assert_eq!(lost(&damage, 4096, 1, &[(2, None), (2, Some(11))]), 24 + 512, "behind a hole");
    assert_eq!(lost(&damage, 4096, 1, &[(1, Some(30)), (1, None), (2, Some(13))]), 5);
    assert_eq!(lost(&damage, 4096, 1, &[(4, Some(40))]), 0);
}

#[test]
fn a_compressed_unit_is_lost_as_a_whole() {
    let damage = [range(10 * CLUSTER + 5, 1), range(21 * CLUSTER, 1)];
    let unit = 4 * CLUSTER;
    // Compressed, as it is, a hole; then the last one cut at the end of the file.
    let runs = [(2, Some(10)), (2, None), (4, Some(20)), (4, None), (1, Some(10)), (3, None)];
    assert_eq!(lost(&damage, 4 * unit, 4, &runs), unit + 1 + unit);
    assert_eq!(lost(&damage, 3 * unit + 10, 4, &runs), unit + 1 + 10);
    assert_eq!(lost(&damage, 3 * unit, 4, &runs), unit + 1);
    // A unit in several runs, and one that begins in the middle of a run.
    assert_eq!(lost(&damage, 2 * unit, 4, &[(2, Some(40)), (2, Some(20)), (4, Some(50))]), 1);
    assert_eq!(lost(&damage, 2 * unit, 4, &[(2, Some(40)), (3, Some(20)), (3, None)]), 1);
    assert_eq!(lost(&damage, 2 * unit, 4, &[(2, Some(40)), (3, Some(19)), (3, None)]), unit);
}

#[test]
fn a_lost_piece_is_lost_up_to_the_next_one() {
    let geometry = Geometry::new(CLUSTER, 100, 100 * CLUSTER).unwrap();
    let damage = Damage::new(&[]);
    let list = encode(&[(2, Some(10))]);
    let lost = |lowest: &[Option<u64>]| {
        let mut loss = Loss::new(&damage, geometry, types::DATA, &[]);
        for (vcn, lowest) in (0..).step_by(2).zip(lowest) {
            match lowest {
                Some(lowest) => loss.add(42, &piece(*lowest, 8 * CLUSTER - 100, 1, &list), &mut 0),
                None => loss.miss(Vcn(vcn)),
            }
        }
        loss.end();
        (loss.bytes, loss.is_piece_lost)
    };
    assert_eq!(lost(&[Some(0), Some(2), Some(4)]), (0, false));
    assert_eq!(lost(&[Some(0), None, Some(4)]), (2 * CLUSTER, true));
    assert_eq!(lost(&[Some(0), None, None]), (6 * CLUSTER - 100, true));
    assert_eq!(lost(&[None, Some(2)]), (2 * CLUSTER, true));
    assert_eq!(lost(&[None]), (0, true), "its size is unknown");
}

#[test]
fn only_blocks_in_use_count() {
    let blocks = Blocks { block_size: 4096, bits: Some(vec![0b101]) };
    let bytes_in = |offset, len| blocks.bytes_in(&Place { offset, len });
    assert_eq!(bytes_in(0, 512), 512);
    assert_eq!(bytes_in(4000, 4096), 96);
    assert_eq!(bytes_in(4096, 4096), 0);
    assert_eq!(bytes_in(0, 1 << 40), 8192);
    assert_eq!(Blocks { block_size: 4096, bits: None }.bytes_in(&Place { offset: 4096, len: 7 }), 7);
}

#[test]
fn streams_are_worded_as_windows_does() {
    assert_eq!(stream_name(types::DATA, &[]), "");
    assert_eq!(stream_name(types::DATA, b"s\0"), "s");
    assert_eq!(stream_name(types::INDEX_ALLOCATION, b"$\0I\x003\x000\0"), "$I30:$INDEX_ALLOCATION");
    assert_eq!(stream_name(types::EA, &[]), ":$EA");
    assert_eq!(stream_name(0x1000, &[]), ":0x1000");
}
