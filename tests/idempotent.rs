//! ADD is "make it so": from whatever state it starts, it ends in the state that was asked for,
//! and touches nothing that is already so.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::{Call, Damage, Direction, Lab, Limit, Pod, Shape, Snapshot, Way};

const M: u64 = 1_000_000;

fn add(pod: &Pod, way: Way, to_pod: &str, from_pod: &str) {
    Call::add(pod).way(way).limits(to_pod, from_pod).ok();
}

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

fn assert_packets_pass(pod: &Pod) {
    let pong = pod.ns.ping(&pod.eth0.host_v4, 2, Duration::from_secs(1));
    assert_eq!(pong.received, 2, "the pod has its network");
}

#[test]
fn a_second_add_changes_nothing() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        // given a shaped pod whose TBFs have counted a packet
        add(&pod, way, "10M", "20M");
        assert_packets_pass(&pod);
        let counted = |direction| {
            let dev = way.queue_device(&pod, &pod.eth0, direction).unwrap();
            way.namespace(&pod).qdisc_packets(&dev)
        };
        let (before, counts) = (state(&pod), Direction::ALL.map(counted));
        assert!(
            counts.iter().all(|&count| count >= 2),
            "{way:?}: packets pass the TBFs: {counts:?}"
        );
        // when it is added again
        add(&pod, way, "10M", "20M");
        // then every device, qdisc and filter is the one that was there
        before.assert_same(&state(&pod), &format!("{way:?}"));
        // and the TBFs were not made anew: a new one counts from zero (an ARP probe may be added)
        for (now, then) in Direction::ALL.map(counted).into_iter().zip(counts) {
            assert!(now >= then, "{way:?}: {now} packets, {then} before");
        }
    }
}

#[test]
fn an_add_with_other_limits_changes_just_those() {
    for way in Way::ALL {
        for (direction, to_pod, from_pod) in [
            (Direction::ToPod, "30M", "20M"),
            (Direction::ToPod, "3M", "20M"),
            (Direction::FromPod, "10M", "40M"),
            (Direction::FromPod, "10M", "4M"),
        ] {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{way:?}, 10M/20M to {to_pod}/{from_pod}");
            let pod = lab.pod("veth0");
            add(&pod, way, "10M", "20M");
            let before = state(&pod);
            add(&pod, way, to_pod, from_pod);
            // then the one TBF has the new numbers
            let changed = way.queue_device(&pod, &pod.eth0, direction).unwrap();
            let root = way.namespace(&pod).root(&changed);
            let wanted = if direction == Direction::ToPod { to_pod } else { from_pod };
            let rate = wanted.trim_end_matches('M').parse::<u64>().unwrap() * M;
            let limit = Limit::of(&root).unwrap();
            assert!(limit.is_near(&Limit::derived(rate, 1500)), "{case}: {limit:?}");
            // and all the rest, the IFBs' indexes and the filters' handles too, is as it was
            let but_that = |state: Snapshot| state.without(&format!("{changed} / qdiscs"));
            but_that(before).assert_same(&but_that(state(&pod)), &case);
            assert_packets_pass(&pod);
        }
    }
}

#[test]
fn an_add_with_fewer_limits_takes_the_rest_away() {
    for way in Way::ALL {
        for (to_pod, from_pod) in [("10M", ""), ("", "20M"), ("", "")] {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{way:?}, 10M/20M to {to_pod:?}/{from_pod:?}");
            let pod = lab.pod("veth0");
            let before = state(&pod);
            add(&pod, way, "10M", "20M");
            add(&pod, way, to_pod, from_pod);
            let shape = Shape::of(&pod, way);
            assert_eq!(shape.to_pod.is_some(), !to_pod.is_empty(), "{case}");
            assert_eq!(shape.from_pod.is_some(), !from_pod.is_empty(), "{case}");
            // No device that serves nobody, and no hook with nothing on it.
            let dev = way.device(&pod.eth0);
            let limited = [!to_pod.is_empty(), !from_pod.is_empty()];
            let hooked = Direction::ALL.into_iter().zip(limited);
            let hooked = hooked.filter(|&(d, limited)| limited && way.hook(d).is_some()).count();
            assert_eq!(way.namespace(&pod).ifbs().len(), hooked, "{case}");
            assert_eq!(way.namespace(&pod).hook_kind(dev).is_some(), hooked > 0, "{case}");
            if !limited[0] && !limited[1] {
                before.assert_same(&state(&pod), &case);
            }
            assert_packets_pass(&pod);
            Call::del(&pod).way(way).ok();
            before.assert_same(&state(&pod), &format!("{case}, DEL"));
        }
    }
}

#[test]
fn an_add_over_half_of_an_earlier_state_makes_it_whole() {
    for (way, direction, damage) in Damage::table() {
        let Some(lab) = Lab::open() else { return };
        let case = format!("{way:?}, {direction:?}, {damage:?}");
        let pod = lab.pod("veth0");
        let untouched = state(&pod);
        add(&pod, way, "10M", "10M");
        let whole = Shape::of(&pod, way);
        damage.apply(&pod, way, direction);
        add(&pod, way, "10M", "10M");
        assert_eq!(Shape::of(&pod, way), whole, "{case}");
        Call::check(&pod).way(way).limits("10M", "10M").ok();
        assert_packets_pass(&pod);
        // and DEL knows it all as its own
        Call::del(&pod).way(way).ok();
        // That ADD made the hook is written in its filter alone: an empty hook is nobody's, and
        // stays.
        let but = |state: Snapshot| {
            let state = state.without(" / foreign / ");
            if damage == Damage::NoFilter {
                return state.without(" / qdiscs").without(" filters");
            }
            state
        };
        but(untouched).assert_same(&but(state(&pod)), &format!("{case}, DEL"));
    }
}

#[test]
fn an_add_over_a_recreated_veth_uses_or_replaces_the_stale_ifb() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let mut pod = lab.pod("calie822bf90b23");
        // given a shaped pod whose veth pair was deleted and made again under the same names, as
        // Calico does at a second ADD for one container; the IFBs are still there
        add(&pod, way, "10M", "20M");
        let eth0 = pod.eth0.clone();
        pod.recreate(&eth0);
        let stale = way.namespace(&pod).ifbs();
        assert!(!stale.is_empty(), "{way:?}");
        // when it is added again
        add(&pod, way, "10M", "20M");
        // then it is shaped, with no second set of devices
        assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{way:?}");
        assert_eq!(way.namespace(&pod).ifbs(), stale, "{way:?}");
        assert_packets_pass(&pod);
        Call::del(&pod).way(way).ok();
        assert!(way.namespace(&pod).ifbs().is_empty(), "{way:?}");
    }
}

#[test]
fn an_add_over_a_bare_ifb_of_ours_completes_it() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        // given the IFBs alone, down, without alias and TBF: what a kill right after the creating
        // message leaves
        add(&pod, way, "10M", "20M");
        let ns = way.namespace(&pod);
        let names = ns.ifbs();
        let aliases: Vec<String> = names.iter().map(|name| ns.alias(name)).collect();
        Call::del(&pod).way(way).ok();
        for name in &names {
            ns.sh(&format!("ip link add {name} type ifb"));
        }
        // when the pod is added
        add(&pod, way, "10M", "20M");
        // then they are used
        assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{way:?}");
        assert_eq!(ns.ifbs(), names, "{way:?}");
        let now: Vec<String> = names.iter().map(|name| ns.alias(name)).collect();
        assert_eq!(now, aliases, "{way:?}");
        for name in &names {
            assert!(ns.addresses(name).is_empty(), "{way:?}: {name} has no address");
        }
    }
}

#[test]
fn an_add_that_asks_for_another_way_moves_the_limits() {
    for from in Way::ALL {
        for to in Way::ALL.into_iter().filter(|&to| to != from) {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{from:?} to {to:?}");
            let pod = lab.pod("veth0");
            let before = state(&pod);
            add(&pod, from, "10M", "20M");
            add(&pod, to, "10M", "20M");
            assert_eq!(Shape::of(&pod, to).rates(), (10 * M, 20 * M), "{case}");
            assert_packets_pass(&pod);
            // and nothing limits twice: DEL in the new way leaves nothing of the old one
            Call::del(&pod).way(to).ok();
            before.assert_same(&state(&pod), &case);
        }
    }
}

#[test]
fn del_takes_away_what_any_way_made() {
    for made in Way::ALL {
        // The configuration may have changed between ADD and DEL.
        for asked in Way::ALL {
            let Some(lab) = Lab::open() else { return };
            let pod = lab.pod("veth0");
            let before = state(&pod);
            add(&pod, made, "10M", "20M");
            Call::del(&pod).way(asked).limits("10M", "20M").ok();
            before.assert_same(&state(&pod), &format!("made {made:?}, DEL with {asked:?}"));
        }
    }
}
