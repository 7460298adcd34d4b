//! `unshapedSubnets` and `shapedSubnets`: which of a pod's traffic its limits are for.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::two_peers::{OTHER, PLACES, Place, list, pod_in, state};
use common::{Call, Flow, Lab, Pod, Traffic, failed_probes};
use serde_json::json;

/// Bits per second to the pod and from it, both at once, between two addresses of one family.
fn measured(pod: &Pod, host: &str, own: &str) -> [f64; 2] {
    let traffic = Traffic { duration: Duration::from_secs(2), ..Traffic::default() };
    let mut flows = [
        Flow::start(&pod.host, &pod.ns, own, &traffic),
        Flow::start(&pod.ns, &pod.host, host, &traffic),
    ];
    flows.iter_mut().for_each(|flow| flow.until(Duration::from_millis(500)));
    flows.each_mut().map(|flow| flow.bytes_in(Duration::from_millis(1_500)) as f64 * 8.0 / 1.5)
}

#[test]
fn traffic_with_a_subnet_is_told_from_all_other() {
    for place in PLACES {
        for (key, other_is_limited) in [("unshapedSubnets", false), ("shapedSubnets", true)] {
            let Some(lab) = Lab::open() else { return };
            // given a pod with limits of 10 Mbit/s each way, but for some subnets
            let pod = pod_in(&lab);
            place.add(&pod).key(key, list(&pod)).ok();
            let eth0 = pod.eth0.clone();
            for (family, (other, own)) in OTHER.into_iter().enumerate() {
                let (host, pod_address) = match family {
                    0 => (&eth0.host_v4, &eth0.pod_v4),
                    _ => (&eth0.host_v6, &eth0.pod_v6),
                };
                let peers = [
                    (host.as_str(), pod_address.as_str(), !other_is_limited),
                    (other, own, other_is_limited),
                ];
                // when it talks with either peer, both ways at once
                for (host, own, is_limited) in peers {
                    let case = format!("{place:?} {key}, {host} and {own}");
                    for (bits, way) in measured(&pod, host, own).into_iter().zip(["to", "from"]) {
                        eprintln!("{case}: {:.2} Mbit/s {way} the pod", bits / 1e6);
                        // then the limit holds for the one and not for the other. Wide, for a busy
                        // machine: without a limit it is several hundred Mbit/s.
                        match is_limited {
                            true => assert!((4e6..1.3e7).contains(&bits), "{case}: {bits} {way}"),
                            false => assert!(bits > 5e7, "{case}: {bits} {way}"),
                        }
                    }
                }
            }
        }
    }
}

/// How many of ten pings to `address` and of their answers went through the TBFs: to the pod, from
/// it. A neighbour probe may come in between, so tens are told apart and not units.
fn counted(pod: &Pod, place: Place, address: &str) -> [bool; 2] {
    let count = || {
        ["pbi", "pbe"].map(|ifb| {
            let ifb = place.ifb(pod, ifb);
            place.ns(pod).qdisc_packets(&ifb)
        })
    };
    let before = count();
    assert_eq!(pod.ns.ping(address, 10, Duration::from_secs(1)).received, 10, "{address}");
    let after = count();
    [0, 1].map(|n| match after[n] - before[n] {
        0..=5 => false,
        10..=15 => true,
        strange => panic!("{strange} packets in the TBFs for ten pings to {address}"),
    })
}

#[test]
fn a_subnet_counts_whatever_its_length_and_place_in_the_list() {
    let sixty_two = (0..62).map(|n| format!("203.0.{n}.0/24"));
    let with = |last: [&str; 2]| {
        json!(sixty_two.clone().chain(last.map(str::to_owned)).collect::<Vec<_>>())
    };
    for (subnets, inside) in [
        (with(["198.51.100.1/32", "2001:db8:5::1/128"]), [true, true]),
        (with(["198.51.100.1/24", "2001:db8:5::1/64"]), [true, true]),
        (with(["198.0.0.0/7", "2001:db8::/33"]), [true, true]),
        (with(["0.0.0.0/0", "::/0"]), [true, true]),
        (json!(["0.0.0.0/0"]), [true, false]),
        (json!(["::/0"]), [false, true]),
        (with(["198.51.100.0/32", "2001:db8:5::/128"]), [false, false]),
        (with(["198.51.100.2/31", "2001:db8:5::2/127"]), [false, false]),
        (with(["198.51.101.0/24", "2001:db8:4::/48"]), [false, false]),
    ] {
        for place in PLACES {
            for (key, inside_is_limited) in [("unshapedSubnets", false), ("shapedSubnets", true)] {
                let Some(lab) = Lab::open() else { return };
                let pod = pod_in(&lab);
                let add = place.add(&pod).key(key, subnets.clone());
                add.ok();
                add.clone().verb("CHECK").ok();
                for ((address, _), inside) in OTHER.into_iter().zip(inside) {
                    let expected = [inside == inside_is_limited; 2];
                    let found = counted(&pod, place, address);
                    assert_eq!(found, expected, "{place:?} {key} {subnets}: {address}");
                }
                add.verb("DEL").ok();
            }
        }
    }
}

#[test]
fn from_no_list_to_a_list_and_back_each_way_holds_and_leaves_nothing() {
    for keys in [
        json!({}),
        json!({"placement": "host"}),
        json!({"placement": "host", "hostIngress": "hooks"}),
        json!({"placement": "pod"}),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = pod_in(&lab);
        let before = state(&pod);
        let keys = keys.as_object().unwrap();
        let add = Call::add(&pod).limits("10M", "10M");
        let add = keys.iter().fold(add, |call, (key, value)| call.key(key, value.clone()));
        add.ok();
        let whole = state(&pod);
        let some = add.clone().key("unshapedSubnets", json!(["198.51.100.1/32"]));
        let outcome = some.run();
        outcome.ok();
        assert!(outcome.stderr.contains("unshaped subnets: 1"), "{outcome:#?}");
        some.clone().verb("CHECK").ok();
        let again = some.run();
        again.ok();
        assert!(!again.stderr.contains("(root)"), "{again:#?}");
        add.clone().verb("CHECK").error(102);
        // No TBF is left where it would see all packets.
        for (ns, dev) in [(&pod.host, "veth0"), (&pod.ns, "eth0")] {
            assert_ne!(ns.root(dev).kind, "tbf", "{keys:?}: {dev}");
        }
        add.ok();
        add.clone().verb("CHECK").ok();
        some.verb("CHECK").error(102);
        if keys.contains_key("hostIngress") {
            whole.assert_same(&state(&pod), "back to no list");
        }
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{keys:?} DEL"));
    }
}

#[test]
fn probes_of_an_unshaped_node_pass_a_full_limit() {
    for rate in ["1M", "10M"] {
        for (unshaped, probes) in [(json!([]), 20), (json!(["198.51.100.1/32"]), 100)] {
            let Some(lab) = Lab::open() else { return };
            // given a pod whose limits are full both ways with what others send. ARP is not
            // unshaped, so node and pod know each other's hardware address before.
            let pod = pod_in(&lab);
            assert_eq!(lab.ping(OTHER[0].1, 1, Duration::from_secs(1)).received, 1);
            Call::add(&pod).limits(rate, rate).key("unshapedSubnets", unshaped.clone()).ok();
            let duration = Duration::from_secs(60);
            let traffic = Traffic { flows: 4, duration, ..Traffic::default() };
            let eth0 = &pod.eth0;
            let mut flows = [
                Flow::start(&lab, &pod, &eth0.pod_v4, &traffic),
                Flow::start(&pod, &lab, &eth0.host_v4, &traffic),
            ];
            flows.iter_mut().for_each(|flow| flow.until(Duration::from_secs(1)));
            // when the node probes a port of it
            let failed = failed_probes(&lab, &pod, OTHER[0].1, probes);
            eprintln!("{rate}, unshaped {unshaped}: {failed} of {probes} probes failed");
            // then none fails where the node is exempt
            assert!(unshaped == json!([]) || failed == 0, "{rate}: {failed} of {probes}");
        }
    }
}

#[test]
fn wrong_lists_are_refused_and_change_nothing() {
    let Some(lab) = Lab::open() else { return };
    let pod = pod_in(&lab);
    let before = state(&pod);
    for (keys, words) in [
        (
            json!({"unshapedSubnets": ["10.0.0.0/8", "10.0.0.1"]}),
            ["unshapedSubnets[1]", "10.0.0.1"],
        ),
        (json!({"shapedSubnets": "10.0.0.0/8"}), ["shapedSubnets", "array"]),
        (
            json!({"unshapedSubnets": ["10.0.0.0/8"], "shapedSubnets": ["fd00::/8"]}),
            ["unshapedSubnets", "shapedSubnets"],
        ),
        (json!({"shapedSubnets": ["10.0.0.0/8"], "hostIngress": "root"}), ["hostIngress", "root"]),
        (
            json!({"shapedSubnets": ["10.0.0.0/8"], "placementByPrefix": {"nic": "root"}}),
            ["placementByPrefix.nic", "root"],
        ),
    ] {
        let add = Call::add(&pod).limits("10M", "10M");
        let keys = keys.as_object().unwrap();
        let add = keys.iter().fold(add, |call, (key, value)| call.key(key, value.clone()));
        add.error(7).says(&words);
        let status = keys
            .iter()
            .fold(Call::node(&lab, "STATUS"), |call, (key, value)| call.key(key, value.clone()));
        status.error(50).says(&words);
        before.assert_same(&state(&pod), &format!("{keys:?}"));
        add.verb("DEL").ok();
    }
}
