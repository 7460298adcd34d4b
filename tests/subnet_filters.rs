//! The filters behind `unshapedSubnets` and `shapedSubnets`: what changes, what CHECK notices, what
//! stays and what goes.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::two_peers::{OTHER, PLACES, Place, filters, list, pod_in, state};
use common::{Call, Filter, Lab};
use serde_json::json;

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

/// The words of `tc filter` that name one filter that it shows.
fn named(filter: &Filter) -> String {
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
