//! The harness itself: what the other network tests lean on.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::{Lab, Limit, PodSpec, Snapshot, Traffic, throughput};

#[test]
fn two_looks_at_an_untouched_lab_are_the_same_and_a_change_shows() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    pod.host.sh("tc qdisc add dev veth0 clsact");
    pod.host.sh("tc filter add dev veth0 ingress pref 7 u32 match u32 0 0 flowid 1:1");
    let before = Snapshot::of(&[&lab, &pod]);
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "nothing was done");

    for change in [
        "tc filter add dev veth0 egress pref 7 u32 match u32 0 0 flowid 1:1",
        "ip link add foreign type ifb",
        "ip addr add 192.0.2.1/32 dev veth0",
        "tc qdisc add dev veth0 root tbf rate 1mbit burst 5000 limit 9000",
        "tc qdisc change dev veth0 root tbf rate 1mbit burst 5000 limit 9001",
    ] {
        let before = Snapshot::of(&[&lab, &pod]);
        lab.sh(change);
        assert_ne!(before, Snapshot::of(&[&lab, &pod]), "{change} must show");
    }
}

#[test]
fn packets_go_both_ways_and_over_both_families() {
    let Some(lab) = Lab::open() else { return };
    if common::require_peer("ping").is_none() {
        return;
    }
    let pod = lab.pod_with(PodSpec { mtu: 9000, ..PodSpec::host("cali12345678901") });
    let second = Duration::from_secs(1);
    for (ns, address) in [
        (&*lab, &pod.eth0.pod_v4),
        (&*lab, &pod.eth0.pod_v6),
        (&*pod, &pod.eth0.host_v4),
        (&*pod, &pod.eth0.host_v6),
    ] {
        assert_eq!(ns.ping(address, 2, second).received, 2, "{} to {address}", ns.label);
    }
    assert_eq!(lab.ping("fd88:1::99", 1, second).received, 0, "nobody is there");
}

#[test]
fn throughput_sees_the_limit_of_a_tbf_from_the_first_second_on() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    pod.host.sh("tc qdisc add dev veth0 root handle 7062: tbf rate 10mbit burst 5000 limit 36250");
    let seen = Limit::of(&lab.root("veth0")).expect("a TBF with our handle");
    assert!(seen.is_near(&Limit::derived(10_000_000, 1500)), "{seen:?}");

    let traffic = Traffic { duration: Duration::from_secs(3), ..Traffic::default() };
    let limited = throughput(&lab, &pod, &pod.eth0.pod_v4, &traffic);
    let free = throughput(&pod, &lab, &pod.eth0.host_v6, &traffic);

    let near = |bits: f64| (8.5e6..10.5e6).contains(&bits);
    assert!(near(limited.first_second_bits) && near(limited.steady_bits), "{limited:?}");
    assert!(free.steady_bits > 1e8, "{free:?}");
}
