//! A change of limits under load never cuts the pod off. A TBF whose burst shrinks below a packet
//! that already waits can never send it, and nothing behind it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::{Duration, Instant};

use common::{Call, Direction, Flow, Lab, Ns, Pod, Shape, Traffic, Way};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

/// The ends of a direction: sender, receiver, the receiver's address.
fn ends<'a>(lab: &'a Lab, pod: &'a Pod, direction: Direction) -> (&'a Ns, &'a Ns, &'a str) {
    match direction {
        Direction::ToPod => (lab, &pod.ns, &pod.eth0.pod_v4),
        Direction::FromPod => (&pod.ns, lab, &pod.eth0.host_v4),
    }
}

/// With a FIFO on every kernel: what waits in it is the design's, and not CoDel's. `scripts/kernels`
/// cuts a limit above fq_codel.
fn add(pod: &Pod, way: Way, limit: &str) {
    Call::add(pod).way(way).key("queue", json!("fifo")).limits(limit, limit).ok();
}

/// Waits until `bytes` wait in the queue of `direction`.
fn wait_for_backlog(pod: &Pod, way: Way, direction: Direction, bytes: u64) {
    let dev = way.queue_device(pod, &pod.eth0, direction).unwrap();
    let patience = Instant::now() + 10 * SECOND;
    while way.namespace(pod).backlog(&dev) < bytes {
        assert!(Instant::now() < patience, "{dev} has no {bytes} bytes in its queue");
    }
}

fn table() -> impl Iterator<Item = (Way, Direction)> {
    Way::ALL.into_iter().flat_map(|way| Direction::ALL.map(|direction| (way, direction)))
}

#[test]
fn a_cut_with_four_bbr_flows_lets_ping_through_within_a_second() {
    for (way, direction) in table() {
        let Some(lab) = Lab::open() else { return };
        let case = format!("{way:?}, {direction:?}");
        let pod = lab.pod("veth0");
        let (from, to, address) = ends(&lab, &pod, direction);
        // given 50M and four bbr flows that fill it
        add(&pod, way, "50M");
        let traffic = Traffic { congestion: "bbr", flows: 4, duration: 60 * SECOND };
        let mut flow = Flow::start(from, to, address, &traffic);
        let before = flow.rate_in(SECOND);
        assert!((35e6..60e6).contains(&before), "{case}: {before} bit/s before the cut");
        wait_for_backlog(&pod, way, direction, 16_000);
        // when the limit is cut to 5M
        add(&pod, way, "5M");
        // then a ping is answered within a second; of 20 in this second some may meet a full queue
        let pong = from.ping(address, 20, SECOND);
        assert!(pong.received >= 1, "{case}: the pod is cut off: {pong:?}");
        // and the flows go on at the new limit
        let after = flow.rate_in(2 * SECOND);
        assert!((3.5e6..6.5e6).contains(&after), "{case}: {after} bit/s after the cut");
        // and a raise works as well
        add(&pod, way, "20M");
        drop(flow);
        assert_eq!(from.ping(address, 3, SECOND).received, 3, "{case}: after the flows");
    }
}

#[test]
fn a_cut_with_queued_udp_gso_packets_of_16_kb_lets_ping_through_within_a_second() {
    for (way, direction) in table() {
        let Some(lab) = Lab::open() else { return };
        let case = format!("{way:?}, {direction:?}");
        let pod = lab.pod("veth0");
        let (from, _, address) = ends(&lab, &pod, direction);
        // given 50M, whose burst of 25000 bytes holds such a packet whole, and a queue full of them
        add(&pod, way, "50M");
        let flood = from.flood_udp_gso(address, 1_448, 11 * 1_448);
        wait_for_backlog(&pod, way, direction, 48_000);
        // when the limit is cut to 5M, whose burst is 3036 bytes
        add(&pod, way, "5M");
        // then a ping is answered within a second, under the flood and after it
        let pong = from.ping(address, 20, SECOND);
        assert!(pong.received >= 1, "{case}: the pod is cut off: {pong:?}");
        drop(flood);
        // The queue of at most 25 ms drains meanwhile.
        assert_eq!(from.ping(address, 1, SECOND).received, 1, "{case}: after the flood");
    }
}

#[test]
fn a_tcp_stream_goes_on_across_changes() {
    for (way, direction) in table() {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let (from, to, address) = ends(&lab, &pod, direction);
        add(&pod, way, "10M");
        let traffic = Traffic { duration: 120 * SECOND, ..Traffic::default() };
        let mut flow = Flow::start(from, to, address, &traffic);
        // Half a second to settle on a new rate, half a second to look at.
        let half = SECOND / 2;
        for (limit, bits) in [("10M", 10e6), ("30M", 30e6), ("5M", 5e6), ("20M", 20e6)] {
            add(&pod, way, limit);
            flow.rate_in(half);
            let rate = flow.rate_in(half) / bits;
            let case = format!("{way:?}, {direction:?}, {limit}: {rate} of the limit");
            // Wide, for a busy machine; each limit is at least twice or half of the one before.
            assert!((0.65..1.4).contains(&rate), "{case}");
        }
        // and when the limits go away, the same stream runs free
        Call::add(&pod).way(way).ok();
        flow.rate_in(half);
        let free = flow.rate_in(half);
        assert!(free > 100e6, "{way:?}, {direction:?}: {free} bit/s without a limit");
        assert_eq!(Shape::of(&pod, way).rates(), (0, 0));
    }
}
