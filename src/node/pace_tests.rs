use std::time::Instant;

use super::super::inventory::{Owner, Placement};
use super::*;
use crate::policy::BitsPerSecond;
use crate::shaping::Mark;
use crate::shaping::placement::Way;

const M: u64 = 1_000_000;

/// One pod with a limit of 8 Mbit/s to it, `seconds` after the first reading.
fn reading(start: Instant, seconds: u64, counters: Counters) -> Inventory {
    let limit = Measured {
        device: "veth0".into(),
        limit: BitsPerSecond(8 * M),
        burst_bytes: 5_000,
        queue_bytes: 30_000,
        mark: Mark::Added,
        counters,
    };
    let shaped = Shaped {
        owner: Owner { name: "web".into(), ..Owner::default() },
        placement: Placement::By(Way::HostRoot),
        device: "veth0".into(),
        limits: [Some(limit), None],
        shadows: Vec::new(),
    };
    let taken = start + Duration::from_secs(seconds);
    Inventory { taken, shaped: vec![shaped], problems: Vec::new() }
}

fn counted(bytes: u64, drops: u32, overlimits: u32) -> Counters {
    Counters { bytes, drops, overlimits, ..Counters::default() }
}

/// The paces to the pod of readings that are a second apart.
fn paces(counters: &[Counters]) -> Vec<Option<Pace>> {
    let (start, mut readings) = (Instant::now(), Readings::default());
    let mut paces = Vec::new();
    for (second, counters) in (0u64..).zip(counters) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let rows = readings.next(reading(start, second, *counters), now);
        assert_eq!(rows[0].paces[1], None, "no limit from the pod");
        paces.push(rows[0].paces[0]);
    }
    paces
}

#[test]
fn the_first_reading_says_nothing_and_the_second_how_fast_and_how_hard() {
    let paces = paces(&[counted(0, 0, 0), counted(M, 3, 900)]);
    assert_eq!(paces[0], None);
    let pace = paces[1].unwrap();
    assert_eq!((pace.bits_per_second, pace.drops, pace.overlimits), (8e6, 3, 900));
    assert_eq!(pace.held_back, 1.0);
}

#[test]
fn who_never_waits_is_not_held_back_however_fast() {
    let pace = paces(&[counted(0, 0, 7), counted(M, 0, 7)])[1].unwrap();
    assert_eq!((pace.bits_per_second, pace.held_back), (8e6, 0.0));
    // and who waits at times is held back for what it sent at most
    let pace = paces(&[counted(0, 0, 0), counted(M / 4, 0, 9)])[1].unwrap();
    assert_eq!(pace.held_back, 0.25);
    // a burst on top of the rate is no more than all of the time
    assert_eq!(paces(&[counted(0, 0, 0), counted(2 * M, 0, 9)])[1].unwrap().held_back, 1.0);
}

#[test]
fn held_back_since_is_the_first_reading_of_an_unbroken_row() {
    let still = |n: u32| counted(u64::from(n) * M, 0, n);
    let paces = paces(&[still(0), still(1), still(2), still(2), still(3)]);
    let since: Vec<Option<u64>> = paces
        .iter()
        .map(|pace| {
            let since = pace.and_then(|pace| pace.held_back_since)?;
            Some(since.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
        })
        .collect();
    assert_eq!(since, [None, Some(1), Some(1), None, Some(4)]);
}

#[test]
fn counters_that_began_again_are_no_pace_and_those_that_wrapped_are() {
    assert_eq!(paces(&[counted(M, 0, 0), counted(5, 0, 0)])[1], None);
    let pace = paces(&[counted(0, u32::MAX, u32::MAX), counted(M, 1, 1)])[1].unwrap();
    assert_eq!((pace.drops, pace.overlimits), (2, 2));
}
