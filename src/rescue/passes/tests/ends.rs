//! Disks that go away and come back, budgets, slow reads, retries, and sectors that are larger than the smallest read.

use super::*;

const LEN: u64 = 256 << 20;
const MIB: u64 = 1 << 20;

/// Everything on a disk of [`LEN`] bytes is wanted.
fn all_used() -> ClusterSet {
    let mut used = ClusterSet::new(LEN / CLUSTER);
    used.insert_extent(Extent { lcn: Lcn(0), len: u64::MAX });
    used
}

fn rescue_of(used: &ClusterSet, sizes: Sizes, budget: Budget, retries: u32) -> Rescue<'_> {
    let mut rescue = Rescue::new(Areas::new(LEN, CLUSTER), LEN, sizes, budget);
    let all = rescue.add_domain(Domain::new(used, CLUSTER, ByteRange { pos: LEN, len: 0 }));
    rescue.add_all(&[all], retries);
    rescue
}

/// Reads until there is nothing more to read; `told` hears of each step and what came of it.
fn drive(
    rescue: &mut Rescue<'_>,
    disk: &mut SimDisk,
    mut told: impl FnMut(&Rescue<'_>, Step, Outcome),
) -> End {
    loop {
        let now = Duration::from_secs_f64(disk.clock);
        let step = rescue.next(now);
        assert_eq!(rescue.next(now), step, "the same until it is done");
        let (range, counts) = match step {
            Step::Read(range) => (range, true),
            Step::Check(range) => (range, false),
            Step::End(end) => return end,
        };
        let outcome = disk.read(range, counts);
        told(rescue, step, outcome);
        rescue.done(outcome, Duration::ZERO);
    }
}

/// Sectors that are bad: from, to.
fn disk_with(bad: &[(u64, u64)]) -> SimDisk {
    let mut disk = SimDisk::new(LEN);
    for (from, to) in bad {
        disk.bad[(from / SECTOR) as usize..(to / SECTOR) as usize].fill(true);
    }
    disk
}

fn blocks(areas: &Areas) -> Vec<crate::rescue::Area> {
    let mut joined: Vec<crate::rescue::Area> = Vec::new();
    for area in areas.within(ByteRange { pos: 0, len: LEN }) {
        match joined.last_mut() {
            Some(last) if last.state == area.state => last.range.len += area.range.len,
            _ => joined.push(area),
        }
    }
    joined
}

const SPOTS: [(u64, u64); 4] = [
    (10 * MIB + 512, 10 * MIB + 1024),
    (20 * MIB, 21 * MIB),
    (100 * MIB + 4096, 100 * MIB + 12288),
    (LEN - 512, LEN),
];

#[test]
fn a_disk_that_goes_away_has_lost_nothing() {
    let used = all_used();
    let mut undisturbed = rescue_of(&used, SIZES, Budget::default(), 0);
    let mut disk = disk_with(&SPOTS);
    assert_eq!(drive(&mut undisturbed, &mut disk, |_, _, _| ()), End::Complete);
    let (wanted, nr_reads) = (blocks(undisturbed.areas()), disk.nr_reads);
    for dies_at in (1..40).chain((40..nr_reads).step_by(97)).chain(nr_reads - 40..nr_reads - 1) {
        let mut rescue = rescue_of(&used, SIZES, Budget::default(), 0);
        let mut disk = disk_with(&SPOTS);
        disk.dies_at = dies_at;
        let (mut since_good, mut nr_checks) = (Vec::new(), 0);
        let end = drive(&mut rescue, &mut disk, |rescue, step, outcome| match (step, outcome) {
            (_, Outcome::Good) => since_good.clear(),
            (Step::Read(range), _) => since_good.push((range, rescue.areas().state(range.pos))),
            _ => nr_checks += 1,
        });
        assert_eq!(end, End::Gone, "died at {dies_at}");
        assert!(since_good.len() <= MANY_IN_A_ROW && nr_checks == 1, "{} failures", since_good.len());
        for (range, before) in &since_good {
            assert_eq!(rescue.areas().state(range.pos), *before, "died at {dies_at}: {range:?}");
        }
        assert_eq!(rescue.next(Duration::ZERO), Step::End(End::Gone));
        // It is back.
        disk.dies_at = u64::MAX;
        rescue.revive();
        assert_eq!(drive(&mut rescue, &mut disk, |_, _, _| ()), End::Complete);
        assert_eq!(blocks(rescue.areas()), wanted, "died at {dies_at}");
    }
}

/// A disk that says itself that it is gone.
#[test]
fn what_a_gone_disk_did_not_read_is_not_tried() {
    let used = all_used();
    let mut rescue = rescue_of(&used, SIZES, Budget::default(), 0);
    let mut disk = disk_with(&[(0, 256 << 10)]);
    for _ in 0..3 {
        let Step::Read(range) = rescue.next(Duration::ZERO) else { panic!("a read") };
        let outcome = disk.read(range, true);
        rescue.done(outcome, Duration::ZERO);
    }
    let Step::Read(range) = rescue.next(Duration::ZERO) else { panic!("a read") };
    rescue.done(Outcome::Gone, Duration::ZERO);
    assert_eq!(rescue.next(Duration::ZERO), Step::End(End::Gone));
    assert_eq!(rescue.areas().state(range.pos), State::NonTried);
    rescue.revive();
    assert_eq!(drive(&mut rescue, &mut disk, |_, _, _| ()), End::Complete);
    let bad = ByteRange { pos: 0, len: 256 << 10 };
    assert_eq!(blocks(rescue.areas())[0], crate::rescue::Area { range: bad, state: State::Bad });
}

/// A zone so long that reads fail far apart from each other is one that a disk without it can have too: a good sector
/// tells.
#[test]
fn failures_far_apart_are_doubted() {
    let used = all_used();
    let zone = (64 * MIB, 192 * MIB);
    for is_gone in [false, true] {
        let mut rescue = rescue_of(&used, SIZES, Budget::default(), 0);
        let mut disk = disk_with(&[zone]);
        let (mut nr_failed, mut at_check) = (0, None);
        let end = loop {
            let step = rescue.next(Duration::ZERO);
            let outcome = match step {
                Step::Read(range) => disk.read(range, true),
                Step::Check(range) => {
                    at_check.get_or_insert(nr_failed);
                    assert_eq!(range.len, SECTOR);
                    assert_eq!(rescue.areas().state(range.pos), State::Finished);
                    if is_gone { Outcome::Bad } else { Outcome::Good }
                }
                Step::End(end) => break end,
            };
            nr_failed = if outcome == Outcome::Good { 0 } else { nr_failed + 1 };
            rescue.done(outcome, Duration::ZERO);
        };
        assert!(at_check.is_some_and(|nr| nr < MANY_IN_A_ROW), "{at_check:?}");
        if is_gone {
            assert_eq!((end, rescue.nr_errors()), (End::Gone, 0));
        } else {
            assert_eq!(end, End::Complete);
            assert_eq!(rescue.areas().damage().bad, zone.1 - zone.0);
        }
    }
}

#[test]
fn another_good_sector_is_checked_each_time() {
    let used = all_used();
    let mut rescue = rescue_of(&used, SIZES, Budget::default(), 0);
    let mut disk = disk_with(&[(64 * MIB, 70 * MIB)]);
    let mut checked = std::collections::BTreeSet::new();
    let mut nr_checks = 0;
    drive(&mut rescue, &mut disk, |_, step, _| {
        if let Step::Check(range) = step {
            nr_checks += 1;
            checked.insert(range.pos);
        }
    });
    assert!(nr_checks > 100 && checked.len() > nr_checks * 9 / 10, "{} of {nr_checks}", checked.len());
}

#[test]
fn errors_end_it() {
    let used = all_used();
    for max_errors in [0, 1, 2, 17, 100] {
        let budget = Budget { max_errors: Some(max_errors), max_time: None };
        let mut rescue = rescue_of(&used, SIZES, budget, 0);
        let mut disk = disk_with(&SPOTS);
        let end = drive(&mut rescue, &mut disk, |_, _, _| ());
        assert_eq!((end, disk.bad_reads, rescue.nr_errors()), (End::Errors, max_errors, max_errors));
    }
    // Those that there are, and no more.
    let budget = Budget { max_errors: Some(100_000), max_time: None };
    let mut rescue = rescue_of(&used, SIZES, budget, 0);
    assert_eq!(drive(&mut rescue, &mut disk_with(&SPOTS), |_, _, _| ()), End::Complete);
}

#[test]
fn time_ends_it() {
    let used = all_used();
    for seconds in [0, 1, 3, 10] {
        let budget = Budget { max_errors: None, max_time: Some(Duration::from_secs(seconds)) };
        let mut rescue = rescue_of(&used, SIZES, budget, 0);
        let mut disk = disk_with(&SPOTS);
        assert_eq!(drive(&mut rescue, &mut disk, |_, _, _| ()), End::Time);
        let over = disk.clock - seconds as f64;
        assert!((0.0..3.1).contains(&over), "{over}");
        // What was read is known as such.
        let finished = blocks(rescue.areas()).into_iter().filter(|area| area.state == State::Finished);
        assert_eq!(finished.map(|area| area.range.len).sum::<u64>(), disk.held);
    }
}

/// Reads that are slow but good: kept, and what follows is put off.
#[test]
fn slow_reads_are_kept_and_left() {
    let used = all_used();
    let zone = 64 * MIB..96 * MIB;
    let mut rescue = rescue_of(&used, SIZES, Budget::default(), 0);
    let mut disk = disk_with(&[]);
    let (mut nr_slow, mut slow_before, mut slow_end) = (0, 0, None);
    while let Step::Read(range) = rescue.next(Duration::ZERO) {
        let outcome = disk.read(range, true);
        let is_slow = zone.contains(&range.pos);
        if is_slow && matches!(rescue.pass(), Some(Pass::Forward(_))) {
            assert_ne!(slow_end, Some(range.pos), "right behind a slow read");
        }
        slow_end = is_slow.then(|| range.end());
        nr_slow += u64::from(is_slow);
        if disk.held < LEN - 32 * MIB {
            slow_before = nr_slow;
        }
        rescue.done(outcome, Duration::from_secs(if is_slow { 3 } else { 0 }));
    }
    assert_eq!(rescue.next(Duration::ZERO), Step::End(End::Complete));
    assert_eq!((disk.held, rescue.nr_errors()), (LEN, 0));
    assert!(disk.tried.iter().all(|tried| *tried == 1));
    assert!(slow_before < 30, "{slow_before} slow reads before nearly all else was read");
}

/// Sectors that come back when they are tried often enough.
#[test]
fn retries_ask_for_bad_sectors_alone() {
    let used = all_used();
    let spot = 10 * MIB;
    for (retries, wanted) in [(0, 8), (1, 7), (2, 6), (5, 3)] {
        let mut rescue = rescue_of(&used, SIZES, Budget::default(), retries);
        let mut disk = disk_with(&[(spot, spot + 4096)]);
        // The first comes back at the first retry, the second at the next.
        let mut nr_tried = [0; 8];
        loop {
            let step = rescue.next(Duration::ZERO);
            let (Step::Read(range) | Step::Check(range)) = step else { break };
            if rescue.pass() == Some(Pass::Retry) && matches!(step, Step::Read(_)) {
                assert_eq!(range.len, SECTOR);
                let no = ((range.pos - spot) / SECTOR) as usize;
                nr_tried[no] += 1;
                if nr_tried[no] == no + 1 {
                    disk.bad[(range.pos / SECTOR) as usize] = false;
                }
            }
            let outcome = disk.read(range, true);
            rescue.done(outcome, Duration::ZERO);
        }
        assert_eq!(rescue.areas().damage().bad, wanted * SECTOR, "{retries} retries");
        let tries: Vec<_> = (0..8).map(|no| (no + 1).min(retries as usize)).collect();
        assert_eq!(nr_tried.to_vec(), tries);
    }
}

/// Nearly all that is readable is read before a dead zone is fought over.
#[test]
fn a_dead_zone_is_left_in_few_errors() {
    let used = all_used();
    for zone in [(100 * MIB, 110 * MIB), (100 * MIB, 200 * MIB), (0, 64 * MIB), (192 * MIB, LEN)] {
        let mut rescue = rescue_of(&used, SIZES, Budget::default(), 0);
        let mut disk = disk_with(&[zone]);
        let good = LEN - (zone.1 - zone.0);
        let mut errors = 0;
        while let Step::Read(range) | Step::Check(range) = rescue.next(Duration::ZERO) {
            let outcome = disk.read(range, true);
            rescue.done(outcome, Duration::ZERO);
            errors = disk.bad_reads;
            if disk.held >= good - MIB {
                break;
            }
        }
        assert!((0..30).contains(&errors), "{zone:?}: {errors} errors");
    }
}

/// A disk whose sectors are larger than what it lets read: an error costs the larger ones, but for retries.
#[test]
fn large_sectors_of_which_parts_can_be_asked_for() {
    let used = all_used();
    let sizes = Sizes { block: 64 << 10, physical: 4096, logical: 512 };
    for pos in [0, 10 * MIB + 512, 50 * MIB + 3584, LEN - 512] {
        for (retries, wanted) in [(0, 4096), (1, 512), (3, 512)] {
            let mut rescue = rescue_of(&used, sizes, Budget::default(), retries);
            let mut disk = disk_with(&[(pos, pos + 512)]);
            let end = drive(&mut rescue, &mut disk, |rescue, step, _| {
                let (Step::Read(range) | Step::Check(range)) = step else { return };
                let is_small = range.len < 4096;
                let may_be = matches!(step, Step::Check(_)) || rescue.pass() == Some(Pass::Retry);
                assert!(!is_small || may_be, "{range:?}");
            });
            assert_eq!(end, End::Complete);
            let bad: Vec<_> =
                blocks(rescue.areas()).into_iter().filter(|area| area.state != State::Finished).collect();
            let start = if wanted == 4096 { pos / 4096 * 4096 } else { pos };
            let range = ByteRange { pos: start, len: wanted };
            assert_eq!(bad, [crate::rescue::Area { range, state: State::Bad }], "{retries} retries");
            // In its block, on its own, and in parts.
            let tries = disk.tried[(pos / SECTOR) as usize];
            assert_eq!(u32::from(tries), 2 + retries, "at {pos}, {retries} retries");
        }
    }
}

/// A disk that lets read its sectors only whole.
#[test]
fn large_sectors() {
    let used = all_used();
    let sizes = Sizes { block: 64 << 10, physical: 4096, logical: 4096 };
    let mut rescue = rescue_of(&used, sizes, Budget::default(), 2);
    let mut disk = disk_with(&[(10 * MIB + 512, 10 * MIB + 1024), (40 * MIB, 40 * MIB + 8192)]);
    let end = drive(&mut rescue, &mut disk, |_, step, _| {
        let (Step::Read(range) | Step::Check(range)) = step else { return };
        assert!(range.pos % 4096 == 0 && range.len % 4096 == 0, "{range:?}");
    });
    assert_eq!((end, rescue.areas().damage().bad), (End::Complete, 3 * 4096));
}
