//! `unshapedSubnets` and `shapedSubnets`: which of a pod's traffic its limits are for.
//!
//! Every pod has two peers on the host: the one of the harness, and a second one (`OTHER`) with
//! addresses of its own. The lists name the second one and never a whole network, so that source
//! and destination cannot be mixed up unseen; and they name the pod's own addresses, which must
//! not count.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Call, Flow, Lab, Ns, Pod, Snapshot, Traffic};
use serde_json::{Value, json};

/// The second peer and the pod's address beside it, IPv4 and IPv6.
const OTHER: [(&str, &str); 2] =
    [("198.51.100.1", "198.51.100.2"), ("2001:db8:5::1", "2001:db8:5::2")];

/// The places where subnets can be told apart: the configuration, the hooks of the interface.
const PLACES: [Place; 2] = [Place::Host, Place::Pod];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Host,
    Pod,
}

impl Place {
    fn ns(self, pod: &Pod) -> &Ns {
        if self == Self::Pod { &pod.ns } else { &pod.host }
    }

    fn dev(self, pod: &Pod) -> &str {
        if self == Self::Pod { &pod.eth0.name } else { &pod.eth0.host }
    }

    /// The IFB for a direction: `pbi` to the pod, `pbe` from it.
    fn ifb(self, pod: &Pod, prefix: &str) -> String {
        let all = self.ns(pod).ifbs();
        all.into_iter().find(|name| name.starts_with(prefix)).expect("an IFB for each direction")
    }

    fn add(self, pod: &Pod) -> Call {
        let placement = if self == Self::Pod { "pod" } else { "host" };
        Call::add(pod).key("placement", json!(placement)).limits("10M", "10M")
    }
}

/// A pod with both peers.
fn pod_in(lab: &Lab) -> Pod {
    let pod = lab.pod("veth0");
    for ((other, own), length) in OTHER.iter().zip([24, 64]) {
        for (ns, dev, address) in [(&pod.host, "veth0", other), (&pod.ns, "eth0", own)] {
            let address = format!("{address}/{length}");
            let mut words = vec!["ip", "addr", "add", &address, "dev", dev];
            if length == 64 {
                words.push("nodad");
            }
            ns.run(&words);
        }
    }
    pod
}

/// The second peer, and the addresses of the pod itself, which are no traffic with anybody.
fn list(pod: &Pod) -> Value {
    let [(four, own_four), (six, own_six)] = OTHER;
    let eth0 = &pod.eth0;
    json!([
        format!("{four}/32"),
        format!("{six}/128"),
        format!("{own_four}/32"),
        format!("{own_six}/128"),
        format!("{}/32", eth0.pod_v4),
        format!("{}/128", eth0.pod_v6),
    ])
}

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

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

/// The filters of a hook, without how they were asked for.
fn filters(pod: &Pod, place: Place, hook: &str) -> BTreeSet<String> {
    let shown = place.ns(pod).filters(place.dev(pod), hook);
    shown.into_iter().map(|filter| format!("{} {}", filter.pref, filter.raw["options"])).collect()
}

#[test]
fn a_changed_list_changes_just_that_and_del_leaves_nothing() {
    let unshaped = |nets: &[&str]| ("unshapedSubnets", json!(nets));
    let shaped = |nets: &[&str]| ("shapedSubnets", json!(nets));
    let steps = [
        (unshaped(&["10.0.0.0/8", "fd00::/8"]), (3, 0)),
        // Each: the filters of a hook afterwards, and how many of them were there before.
        (unshaped(&["fd00::/8", "10.0.0.0/8", "10.1.0.0/8"]), (3, 3)),
        (unshaped(&["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]), (4, 2)),
        (unshaped(&[]), (1, 1)),
        (unshaped(&["192.0.2.0/24"]), (2, 1)),
        (shaped(&["192.0.2.0/24", "2001:db8::/32"]), (2, 0)),
        (shaped(&["2001:db8::/32"]), (1, 1)),
        (unshaped(&["2001:db8::/32"]), (2, 0)),
    ];
    for place in PLACES {
        let Some(lab) = Lab::open() else { return };
        let pod = pod_in(&lab);
        let before = state(&pod);
        let mut last: Option<(Call, [BTreeSet<String>; 2])> = None;
        for ((key, nets), (count, kept)) in &steps {
            let case = format!("{place:?} {key} {nets}");
            // Empty lists take the root on the host: the same place is asked for, to compare.
            let add = place.add(&pod).key("hostIngress", json!("hooks")).key(key, nets.clone());
            if place == Place::Pod && nets == &json!([]) {
                continue;
            }
            // when another list comes
            add.ok();
            // then its filters are there, and those of both lists were not touched
            let now = ["ingress", "egress"].map(|hook| filters(&pod, place, hook));
            for hook in [0, 1] {
                assert_eq!(now[hook].len(), *count, "{case}: {:#?}", now[hook]);
                if let Some((_, then)) = &last {
                    let kept = if place == Place::Host { *kept } else { (*kept).min(1) };
                    let stayed = now[hook].intersection(&then[hook]).count();
                    assert!(stayed >= kept, "{case}: {stayed} of {kept} stay: {now:#?} {then:#?}");
                }
            }
            // and CHECK agrees with this list and with no other
            add.clone().verb("CHECK").ok();
            if let Some((then, filters)) = &last
                && filters != &now
            {
                then.clone().verb("CHECK").error(102);
            }
            // and a second ADD changes nothing
            let shaped = state(&pod);
            add.ok();
            shaped.assert_same(&state(&pod), &case);
            let pong = pod.ns.ping(OTHER[0].0, 1, Duration::from_secs(1));
            assert_eq!(pong.received, 1, "{case}: the pod has its network");
            last = Some((add, now));
        }
        let (add, _) = last.unwrap();
        add.clone().verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{place:?} DEL"));
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{place:?} second DEL"));
    }
}

#[test]
fn the_longest_list_is_changed_to_another_at_once() {
    for place in PLACES {
        let Some(lab) = Lab::open() else { return };
        let pod = pod_in(&lab);
        let before = state(&pod);
        // Long IPv6 prefixes make the largest messages; a redirect is larger than a pass.
        let list =
            |net: &str| json!((0..64).map(|n| format!("{net}:{n:x}::1/128")).collect::<Vec<_>>());
        let add = place.add(&pod);
        for (key, net, count) in [
            ("unshapedSubnets", "2001:db8", 65),
            ("shapedSubnets", "2001:db8", 64),
            ("shapedSubnets", "fd00", 64),
            ("unshapedSubnets", "fd00", 65),
        ] {
            let add = add.clone().key(key, list(net));
            add.ok();
            for hook in ["ingress", "egress"] {
                assert_eq!(filters(&pod, place, hook).len(), count, "{place:?} {key} {net}");
            }
            add.verb("CHECK").ok();
        }
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{place:?}"));
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
        some.ok();
        some.clone().verb("CHECK").ok();
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

/// The words of `tc filter` that name one filter that it shows.
fn named(filter: &common::Filter) -> String {
    let handle = filter.raw["options"]["fh"].as_str().unwrap();
    format!("pref {} protocol {} handle {handle} u32", filter.pref, filter.protocol)
}

#[test]
fn check_notices_each_filter_that_is_missing_or_changed_and_add_repairs_it() {
    for place in PLACES {
        for key in ["unshapedSubnets", "shapedSubnets"] {
            let Some(lab) = Lab::open() else { return };
            let pod = pod_in(&lab);
            let add = place.add(&pod).key(key, json!(["198.51.100.1/32", "2001:db8:5::1/128"]));
            add.ok();
            let (ns, dev) = (place.ns(&pod), place.dev(&pod));
            for hook in ["ingress", "egress"] {
                let count = ns.filters(dev, hook).len();
                for n in 0..count {
                    // given one filter less
                    let filter = ns.filters(dev, hook)[n].clone();
                    let case = format!("{place:?} {key} {hook} {}", filter.raw);
                    ns.sh(&format!("tc filter del dev {dev} {hook} {}", named(&filter)));
                    let broken = state(&pod);
                    add.clone().verb("CHECK").error(102).says(&[dev, "default/web-0"]);
                    broken.assert_same(&state(&pod), &case);
                    add.ok();
                    add.clone().verb("CHECK").ok();
                    assert_eq!(ns.filters(dev, hook).len(), count, "{case}");
                    // and with one too many, with our mark
                    let (protocol, word, net) = match filter.protocol.as_str() {
                        "ipv6" => ("ipv6", "ip6", "2001:db8:6::/48"),
                        "ip" => ("ip", "ip", "192.0.2.0/24"),
                        _ => continue,
                    };
                    ns.sh(&format!(
                        "tc filter add dev {dev} {hook} pref {} protocol {protocol} \
                         u32 match {word} dst {net} flowid 7062:1",
                        filter.pref
                    ));
                    add.clone().verb("CHECK").error(102).says(&[dev, net]);
                    add.ok();
                    add.clone().verb("CHECK").ok();
                    assert_eq!(ns.filters(dev, hook).len(), count, "{case}");
                }
            }
        }
    }
}

#[test]
fn foreign_things_stay_and_what_would_be_skipped_is_refused() {
    let foreign = "
        tc qdisc add dev DEV clsact
        tc filter add dev DEV ingress pref 1 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1
        tc filter add dev DEV egress pref 49152 protocol ipv6 u32 match ip6 dst 2001:db8::/32 flowid 1:1
        tc filter add dev DEV egress pref 65529 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1";
    for place in PLACES {
        for key in ["unshapedSubnets", "shapedSubnets"] {
            // given filters of others before ours
            let Some(lab) = Lab::open() else { return };
            let pod = pod_in(&lab);
            let (ns, dev) = (place.ns(&pod), place.dev(&pod));
            ns.script(&foreign.replace("DEV", dev));
            let before = state(&pod);
            let add = place.add(&pod).key(key, list(&pod));
            add.ok();
            add.clone().verb("CHECK").ok();
            add.clone().verb("DEL").ok();
            before.assert_same(&state(&pod), &format!("{place:?} {key}"));
            // and one that packets of a subnet would skip, for each hook
            for (hook, pref) in [("ingress", 65534), ("egress", 65531)] {
                ns.sh(&format!(
                    "tc filter add dev {dev} {hook} pref {pref} protocol ip u32 match ip dst \
                     192.0.2.1 flowid 1:1"
                ));
                let before = state(&pod);
                add.error(101).says(&[dev, hook, &format!("pref {pref}"), "unshapedSubnets"]);
                before.assert_same(&state(&pod), &format!("{place:?} {key} {hook} {pref}"));
                ns.sh(&format!("tc filter del dev {dev} {hook} pref {pref}"));
            }
            // and a plain ingress qdisc, which has no egress hook
            ns.script(&format!("tc qdisc del dev {dev} clsact\ntc qdisc add dev {dev} ingress"));
            let before = state(&pod);
            add.error(101).says(&[dev, "`ingress` qdisc", key]);
            before.assert_same(&state(&pod), &format!("{place:?} {key} ingress"));
        }
    }
    // auto goes round it, into the pod
    let Some(lab) = Lab::open() else { return };
    let pod = pod_in(&lab);
    lab.sh("tc qdisc add dev veth0 ingress");
    let add = Call::add(&pod).limits("10M", "10M").key("unshapedSubnets", list(&pod));
    add.ok();
    assert_eq!((lab.ifbs().len(), pod.ns.ifbs().len()), (0, 2));
    add.clone().verb("CHECK").ok();
    add.verb("DEL").ok();
}

#[test]
fn del_without_a_namespace_and_gc_remove_what_lets_packets_pass() {
    for key in ["unshapedSubnets", "shapedSubnets"] {
        let Some(lab) = Lab::open() else { return };
        let pod = pod_in(&lab);
        let before = state(&pod);
        let add = Place::Host.add(&pod).key(key, list(&pod));
        add.ok();
        add.clone().verb("DEL").without_env("CNI_NETNS").without_key("prevResult").ok();
        before.assert_same(&state(&pod), &format!("{key} DEL"));
        add.ok();
        Call::node(&lab, "GC").key("cni.dev/valid-attachments", json!([])).ok();
        before.assert_same(&state(&pod), &format!("{key} GC"));
    }
}

#[test]
fn an_add_that_fails_takes_its_filters_back() {
    for place in PLACES {
        for key in ["unshapedSubnets", "shapedSubnets"] {
            let Some(lab) = Lab::open() else { return };
            let pod = pod_in(&lab);
            let (ns, dev) = (place.ns(&pod), place.dev(&pod));
            // given an empty preference of somebody else where one of our last filters goes: it is
            // no filter yet, and has another protocol
            ns.script(&format!(
                "tc qdisc add dev {dev} clsact
                 tc filter add dev {dev} egress pref 1 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1
                 tc filter add dev {dev} egress pref 65530 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1
                 tc filter del dev {dev} egress pref 65530 protocol ip handle 801::800 u32"
            ));
            let before = state(&pod);
            let add = place.add(&pod).key(key, list(&pod));
            add.error(100).says(&[dev, "egress hook", "2001:db8:5::1/128", "default/web-0"]);
            before.assert_same(&state(&pod), &format!("{place:?} {key}"));
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
