use std::time::Duration;

use super::super::super::inventory::{Inventory, Owner};
use super::*;
use crate::node::samples;

#[test]
fn labels_are_bounded_and_never_twice() {
    // given the same pod twice, as when its old sandbox is still there, and one without a name
    let mut rows = samples::rows();
    rows.push(rows[0].clone());
    rows.push(rows[0].clone());
    rows[2].shaped.owner = Owner::default();
    // when all are told
    let (limits, hidden) = State::default().limits(&rows, LIMITS_MAX);
    // then each is told once, and the one that nobody knows by its device
    assert_eq!((limits.len(), hidden), (4, 2));
    assert_eq!(limits[0].labels[1], ("pod", "cart".to_owned()));
    assert_eq!(limits[2].labels[2], ("interface", "veth0".to_owned()));
    // and with a bound the rest is counted
    let (limits, hidden) = State::default().limits(&rows, 3);
    assert_eq!((limits.len(), hidden), (3, 3));
}

#[test]
fn throttled_seconds_add_up_and_go_with_the_limit() {
    let (mut state, mut readings) = (State::default(), Readings::default());
    let start = samples::inventory(0, 0).taken;
    let mut seconds = Vec::new();
    // 8 Mbit/s is the limit: all of it, none, half of it in two seconds
    for (second, bytes, overlimits) in [(0, 0, 0), (1, 1, 9), (2, 1, 9), (4, 2, 12)] {
        let inventory = Inventory {
            taken: start + Duration::from_secs(second),
            ..samples::inventory(bytes * 1_000_000, overlimits)
        };
        let rows = readings.next(inventory, SystemTime::now());
        seconds.push(state.limits(&rows, LIMITS_MAX).0[0].throttled_seconds);
    }
    assert_eq!(seconds, [0.0, 1.0, 1.0, 2.0]);
    state.limits(&[], LIMITS_MAX);
    assert!(state.throttled.is_empty(), "nothing is kept of pods that are gone");
}

#[test]
fn a_node_that_cannot_be_read_says_so_in_its_metrics() {
    let source = Source { cache: "/etc/passwd".into() };
    let ready = super::super::Readiness::not_yet("starting");
    let text = super::super::Metrics::new(source, None, ready).text().unwrap();
    assert!(text.contains("\npod_bandwidth_scrape_success 0"), "{text}");
    assert!(!text.contains("reconcile"), "no agent, no counters of one: {text}");
}
