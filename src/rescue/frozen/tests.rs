use super::*;
use crate::io::store::simulated::SimulatedStore;

const PATH: &str = "/maps/disk.map.plan";

/// A volume of 200,000 clusters of 4096 bytes, and 512 bytes behind them.
fn plan(extents: &[(u64, u64)]) -> Plan {
    let geometry = Geometry::new(4096, 200_000, 200_000 * 4096 + 512).unwrap();
    let mut used = ClusterSet::new(geometry.nr_clusters);
    extents.iter().for_each(|&(lcn, len)| {
        used.insert_extent(Extent { lcn: Lcn(lcn), len });
    });
    let nr_used = used.count();
    Plan::new(geometry, used, nr_used)
}

fn facts() -> Facts {
    Facts {
        form: Form::Image,
        sector_size: 512,
        is_doubtful: true,
        volume_serial: 0xfedc_ba98_7654_3210,
        volume_pos: 1 << 20,
        boot_sector: Some((0..=255).chain(0..=255).collect()),
        extra_cluster: Some(vec![7; 512]),
    }
}

fn frozen(plan: &Plan, facts: &Facts) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, plan, facts).unwrap();
    out
}

fn thawed(bytes: &[u8]) -> Result<Option<(Plan, Facts)>, FrozenError> {
    thaw(&SimulatedStore::with(Path::new(PATH), bytes), Path::new(PATH))
}

/// The plan with one number changed and its CRC made right.
#[track_caller]
fn refused(place: usize, number: &[u8]) -> String {
    let mut bytes = frozen(&plan(&[(0, 16), (100, 5)]), &facts());
    bytes[place..][..number.len()].copy_from_slice(number);
    let body = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..body]).to_le_bytes();
    bytes[body..].copy_from_slice(&crc);
    let error = thawed(&bytes).unwrap_err().to_string();
    error.strip_prefix(&format!("plan '{PATH}', byte ")).unwrap_or(&error).to_string()
}

#[test]
fn a_frozen_plan_comes_back() {
    let nothing_held = Facts { form: Form::Clone, boot_sector: None, extra_cluster: None, ..facts() };
    for extents in [&[][..], &[(0, 200_000)], &[(0, 1), (2, 1), (32_767, 2), (199_999, 1)]] {
        for facts in [facts(), nothing_held.clone()] {
            let plan = plan(extents);
            let store = SimulatedStore::default();
            freeze(&store, Path::new(PATH), &plan, &facts).unwrap();
            let (again, facts_again) = thaw(&store, Path::new(PATH)).unwrap().unwrap();
            assert_eq!(again.geometry, plan.geometry);
            assert_eq!((again.nr_used, facts_again), (plan.nr_used, facts));
            assert!(
                again.clusters().extents().eq(plan.clusters().extents())
                    && plan.clusters().extents().count() == extents.len()
            );
        }
    }
}

#[test]
fn the_head_is_laid_out_as_documented() {
    let bytes = frozen(&plan(&[(3, 4)]), &facts());
    assert_eq!(bytes.len(), 92 + 512 + 512 + 16 + 4);
    let head = b"\0ntfsrescue-plan\x01\0\0\0\x01\0\0\0\0\x02\0\0\x01\0\0\0\0\x10\0\0\x40\x0d\x03\0\0\0\0\0";
    assert_eq!(&bytes[..44], head);
    assert_eq!(&bytes[92 + 1024..][..16], b"\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0");
    assert_eq!(path_of(Path::new("a/disk.map")), Path::new("a/disk.map.plan"));
}

#[test]
fn no_file_is_no_plan() {
    assert!(thaw(&SimulatedStore::default(), Path::new(PATH)).unwrap().is_none());
}

#[test]
fn a_plan_that_was_cut_or_changed_is_refused() {
    let bytes = frozen(&plan(&[(0, 16), (100, 5)]), &facts());
    for cut in 0..bytes.len() {
        let error = thawed(&bytes[..cut]).unwrap_err();
        assert!(matches!(error, FrozenError::Fault { fault: Fault::Short(_), .. }), "{error}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let error = thawed(&changed).unwrap_err();
        assert!(matches!(error, FrozenError::Fault { .. }), "bit {bit}: {error}");
    }
    let longer = [&bytes[..], b"\0"].concat();
    let error = thawed(&longer).unwrap_err().to_string();
    assert_eq!(error, format!("plan '{PATH}', byte {:#x}: found more bytes, wanted the end", bytes.len()));
}

#[test]
fn impossible_numbers_are_refused_with_their_place() {
    let all = &u64::MAX.to_le_bytes();
    assert_eq!(refused(1, b"N"), "0x0: wrong magic, this is no plan of a rescue");
    assert_eq!(refused(16, &[2]), "0x10: version is 2, wanted 1");
    assert_eq!(refused(20, &[2]), "0x14: form is 2, wanted 0 or 1");
    assert_eq!(refused(24, &[1]), "0x18: sector size is 513, wanted a power of two from 256 to 4096");
    assert_eq!(refused(28, &[2]), "0x1c: doubt is 2, wanted 0 or 1");
    assert!(refused(32, &[1]).starts_with("0x20: cluster size is 4097 bytes"));
    assert!(refused(36, all).starts_with("0x20: number of clusters is 18446744073709551615"));
    assert!(refused(44, all).starts_with("0x20: device size is 18446744073709551615"));
    assert!(refused(52, all).starts_with("0x34: the volume's first byte is 18446744073709551615"));
    assert!(refused(68, all).starts_with("0x44: number of used clusters is 18446744073709551615"));
    assert_eq!(refused(76, &[22]), "0x4c: number of extents is 22, wanted at most 21");
    assert_eq!(refused(84, &all[..4]), "0x54: length of the boot sector is 4294967295, wanted at most 4096");
    assert_eq!(refused(88, &all[..4]), "0x58: length of the extra cluster is 4294967295, wanted at most 512");
    let extents = 92 + 1024;
    assert_eq!(refused(extents, all), "0x45c: first cluster is 18446744073709551615, wanted 0 to 199999");
    assert_eq!(
        refused(extents + 8, all),
        "0x464: number of clusters is 18446744073709551615, wanted 1 to 200000"
    );
    assert_eq!(refused(extents + 8, &[0]), "0x464: number of clusters is 0, wanted 1 to 200000");
    assert_eq!(refused(extents + 16, &[15]), "0x46c: first cluster is 15, wanted 16 to 199999");
    assert_eq!(refused(extents + 24, &[6]), "0x47c: sum of all clusters is 22, wanted 21");
    // More extents than there are bytes: nothing is allocated for them.
    let mut many = frozen(&plan(&[(0, 200_000)]), &facts());
    many[76..84].copy_from_slice(&200_000u64.to_le_bytes());
    assert!(thawed(&many).is_err());
}

#[test]
fn sectors_that_do_not_fit_are_not_frozen() {
    let fails = |facts: Facts| encode(&mut Vec::new(), &plan(&[]), &facts).unwrap_err();
    fails(Facts { boot_sector: Some(vec![0; 4097]), ..facts() });
    fails(Facts { extra_cluster: Some(vec![0; 513]), ..facts() });
}
