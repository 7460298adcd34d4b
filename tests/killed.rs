//! The plugin is killed at every netlink request of ADD and DEL in turn. Before any repair the pod
//! still reaches the host; then a new ADD ends in the right state, and a new DEL in none.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::{Call, Lab, Pod, RECEIVES, SENDS, Shape, Snapshot, Strace, Way};
use serde_json::json;

const M: u64 = 1_000_000;

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

fn assert_reaches_the_host(pod: &Pod, case: &str) {
    let pong = pod.ns.ping(&pod.eth0.host_v4, 1, Duration::from_secs(1));
    assert_eq!(pong.received, 1, "{case}: the pod is cut off");
}

/// A call that is killed, the one before it, and the ADD after which all must be right.
struct Story {
    name: String,
    /// The ADD that made what is there when the killed call begins; `None`: nothing is there.
    given: Option<Call>,
    killed: Call,
    /// The ADD that repairs, where it puts the limits, and which.
    repair: Call,
    way: Way,
    rates: (u64, u64),
}

impl Story {
    fn play(&self, pod: &Pod, untouched: &Snapshot) {
        let Some(strace) = Strace::find() else { return };
        let given = || drop(self.given.as_ref().map(Call::ok));
        given();
        let before = state(pod);
        for at in 1.. {
            let case = format!("{}, killed at send {at}", self.name);
            // given what was there, when the call is killed
            let outcome = strace.killed(&self.killed, SENDS, at);
            if outcome.status == Some(0) {
                assert!(at > 5, "{case}: an ADD or DEL has more sends: {outcome:#?}");
                break;
            }
            assert!(![Some(1), Some(124)].contains(&outcome.status), "{case}: {outcome:#?}");
            assert_reaches_the_host(pod, &case);
            if state(pod) == before {
                // It only looked. What follows from there is in idempotent.rs.
                continue;
            }
            // then a new ADD ends in the right state
            self.repair.ok();
            assert_eq!(Shape::of(pod, self.way).rates(), self.rates, "{case}");
            self.repair.clone().verb("CHECK").ok();
            assert_reaches_the_host(pod, &case);
            self.repair.clone().verb("DEL").ok();
            untouched.assert_same(&state(pod), &format!("{case}, ADD, DEL"));
            // and a new DEL in none
            given();
            strace.killed(&self.killed, SENDS, at);
            self.repair.clone().verb("DEL").ok();
            untouched.assert_same(&state(pod), &format!("{case}, DEL"));
            assert_reaches_the_host(pod, &case);
            given();
        }
        self.repair.clone().verb("DEL").ok();
        untouched.assert_same(&state(pod), &self.name);
    }
}

fn add(pod: &Pod, way: Way, to_pod: &str, from_pod: &str) -> Call {
    Call::add(pod).way(way).limits(to_pod, from_pod)
}

#[test]
fn an_add_that_is_killed_leaves_what_the_next_call_mends() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let call = add(&pod, way, "10M", "20M");
        let untouched = state(&pod);
        let name = format!("ADD, {way:?}");
        let (killed, repair) = (call.clone(), call);
        Story { name, given: None, killed, repair, way, rates: (10 * M, 20 * M) }
            .play(&pod, &untouched);
    }
}

#[test]
fn a_del_that_is_killed_leaves_what_the_next_call_mends() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let call = add(&pod, way, "10M", "20M");
        let untouched = state(&pod);
        let name = format!("DEL, {way:?}");
        let (given, killed) = (Some(call.clone()), call.clone().verb("DEL"));
        Story { name, given, killed, repair: call, way, rates: (10 * M, 20 * M) }
            .play(&pod, &untouched);
    }
}

#[test]
fn an_add_with_other_limits_that_is_killed_leaves_what_the_next_call_mends() {
    for way in Way::ALL {
        // A cut, a raise, and a limit that goes.
        for (to_pod, from_pod, rates) in [("5M", "30M", (5 * M, 30 * M)), ("5M", "", (5 * M, 0))] {
            let Some(lab) = Lab::open() else { return };
            let pod = lab.pod("veth0");
            let untouched = state(&pod);
            let name = format!("ADD 50M/20M to {to_pod}/{from_pod}, {way:?}");
            let given = Some(add(&pod, way, "50M", "20M"));
            let call = add(&pod, way, to_pod, from_pod);
            let (killed, repair) = (call.clone(), call);
            Story { name, given, killed, repair, way, rates }.play(&pod, &untouched);
        }
    }
}

#[test]
fn a_move_that_is_killed_leaves_what_the_next_call_mends() {
    for (from, to) in [
        (Way::Root, Way::Hooks),
        (Way::Hooks, Way::Root),
        (Way::Hooks, Way::Pod),
        (Way::Pod, Way::Root),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let untouched = state(&pod);
        let name = format!("{from:?} to {to:?}");
        let given = Some(add(&pod, from, "10M", "20M"));
        let call = add(&pod, to, "10M", "20M");
        let (killed, repair) = (call.clone(), call);
        Story { name, given, killed, repair, way: to, rates: (10 * M, 20 * M) }
            .play(&pod, &untouched);
    }
}

#[test]
fn a_list_of_subnets_that_comes_or_goes_under_a_kill_is_mended_by_the_next_call() {
    for what in ["a list comes with ADD", "a list goes with DEL", "a list goes with ADD"] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let untouched = state(&pod);
        let plain = add(&pod, Way::Hooks, "10M", "20M");
        let subnets = json!(["198.51.100.0/24", "2001:db8:5::/64"]);
        let listed = plain.clone().key("unshapedSubnets", subnets);
        let (given, killed, repair) = match what {
            "a list comes with ADD" => (None, listed.clone(), listed),
            "a list goes with DEL" => (Some(listed.clone()), listed.clone().verb("DEL"), listed),
            _ => (Some(listed), plain.clone(), plain),
        };
        let name = what.to_owned();
        Story { name, given, killed, repair, way: Way::Hooks, rates: (10 * M, 20 * M) }
            .play(&pod, &untouched);
    }
}

#[test]
fn a_rollback_that_is_killed_leaves_what_the_next_call_mends() {
    let Some(strace) = Strace::find() else { return };
    for (from, to) in [
        (None, Way::Root),
        (None, Way::Hooks),
        (None, Way::Pod),
        (Some(Way::Root), Way::Pod),
        (Some(Way::Pod), Way::Root),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let untouched = state(&pod);
        let given = || drop(from.map(|way| add(&pod, way, "10M", "20M").ok()));
        let call = add(&pod, to, "10M", "20M");
        let way = from.unwrap_or(to);
        given();
        let fault = match from {
            // The last request of all: every other step is taken back.
            None => strace.count(&call, SENDS),
            // The second but last: what removes the old TBF or filter, before the IFB goes.
            Some(_) => strace.count(&call, SENDS) - 1,
        };
        call.clone().verb("DEL").ok();
        given();
        // Kills before the fault are the business of the other tests. Each of the two last requests
        // has at most two answers.
        let first = strace.count(&call, RECEIVES) - 4;
        call.clone().verb("DEL").ok();
        let mut changed = 0;
        for at in first.. {
            let case = format!("{from:?} to {to:?}, killed at answer {at} after fault {fault}");
            given();
            let before = state(&pod);
            let outcome = strace.killed_after_a_fault(&call, fault, at);
            if outcome.status == Some(1) {
                // All was taken back; a filter that was made again has a new action index.
                if let Some(way) = from {
                    add(&pod, way, "10M", "20M").verb("CHECK").ok();
                } else {
                    before.assert_same(&state(&pod), &case);
                }
                break;
            }
            assert!(![Some(0), Some(124)].contains(&outcome.status), "{case}: {outcome:#?}");
            assert_reaches_the_host(&pod, &case);
            if state(&pod) == before {
                continue;
            }
            changed += 1;
            let repair = if at % 2 == 0 { &call } else { &add(&pod, way, "10M", "20M") };
            repair.ok();
            let way = if at % 2 == 0 { to } else { way };
            assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{case}");
            repair.clone().verb("DEL").ok();
            untouched.assert_same(&state(&pod), &format!("{case}, ADD, DEL"));
            given();
            strace.killed_after_a_fault(&call, fault, at);
            assert_reaches_the_host(&pod, &case);
            call.clone().verb("DEL").ok();
            untouched.assert_same(&state(&pod), &format!("{case}, DEL"));
        }
        assert!(changed > 2, "{from:?} to {to:?}: only {changed} kills found something done");
        call.verb("DEL").ok();
        untouched.assert_same(&state(&pod), &format!("{from:?} to {to:?}"));
    }
}
