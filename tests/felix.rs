//! What Calico's Felix (3.30 and later) does to a host interface, played by `tc`, must not undo a
//! limit that auto has set on a `cali…` interface, or one inside the pod. Where it undoes one, at the
//! root of the host interface, CHECK says so and ADD repairs it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::{Call, Flow, Lab, Pod, Shape, Traffic, Way};
use serde_json::json;

const CALI: &str = "calie822bf90b23";

/// Felix's own IFB; the real name is `bwcali` and a hash.
const FELIX_IFB: &str = "bwcali0";

/// What Felix does at an update of the pod's endpoint
/// (felix/dataplane/linux/qos/qos.go of Calico 3.32).
#[derive(Clone, Copy, Debug)]
enum Doing {
    /// It wants no limit: it deletes every TBF on the interface.
    WantsNone,
    /// It wants limits of so many Mbit/s: its own root TBF, and its own redirect to its own IFB.
    WantsLimits(u32),
    /// It wanted limits and wants none any more.
    LimitsGo,
}

/// In this order each one meets what the one before has left.
const DOINGS: [Doing; 5] = [
    Doing::WantsNone,
    Doing::WantsLimits(100),
    Doing::WantsLimits(200),
    Doing::LimitsGo,
    Doing::WantsNone,
];

fn felix(lab: &Lab, doing: Doing) {
    match doing {
        Doing::WantsNone => delete_every_tbf(lab),
        Doing::WantsLimits(mbit) => want_limits(lab, mbit),
        Doing::LimitsGo => {
            delete_every_tbf(lab);
            lab.attempt(&["ip", "link", "del", FELIX_IFB]);
            // Of this kind alone: a clsact it leaves.
            if lab.hook_kind(CALI).as_deref() == Some("ingress") {
                lab.sh(&format!("tc qdisc del dev {CALI} ingress"));
            }
        }
    }
}

fn delete_every_tbf(lab: &Lab) {
    for qdisc in lab.qdiscs(CALI).into_iter().filter(|qdisc| qdisc.kind == "tbf") {
        let parent = qdisc.parent.map_or("root".to_owned(), |parent| format!("parent {parent}"));
        lab.sh(&format!("tc qdisc del dev {CALI} {parent}"));
    }
}

fn want_limits(lab: &Lab, mbit: u32) {
    let tbf = format!("handle 1: tbf rate {mbit}mbit burst 536870912 latency 1s");
    lab.sh(&format!("tc qdisc replace dev {CALI} root {tbf}"));
    if lab.link(FELIX_IFB).is_some() && lab.hook_kind(CALI).as_deref() == Some("ingress") {
        lab.sh(&format!("tc qdisc replace dev {FELIX_IFB} root {tbf}"));
        return;
    }
    lab.attempt(&["ip", "link", "add", FELIX_IFB, "type", "ifb"]);
    lab.sh(&format!("ip link set {FELIX_IFB} up"));
    // A plain ingress qdisc, unless there is one; older versions add it, newer ones replace it.
    // Where the kernel refuses that, Felix gives this direction up.
    if lab.hook_kind(CALI).as_deref() != Some("ingress") {
        let accepts = |verb: &str| {
            let words = format!("tc qdisc {verb} dev {CALI} handle ffff: ingress");
            lab.attempt(&words.split(' ').collect::<Vec<_>>()).status.success()
        };
        if !accepts("add") && !accepts("replace") {
            return;
        }
    }
    for filter in lab.filters(CALI, "ingress").into_iter().filter(|f| f.kind == "u32") {
        lab.sh(&format!("tc filter del dev {CALI} ingress pref {}", filter.pref));
    }
    lab.sh(&format!(
        "tc filter add dev {CALI} ingress pref 1 protocol all u32 match u32 0 0 \
         action mirred egress redirect dev {FELIX_IFB}"
    ));
    lab.sh(&format!("tc qdisc replace dev {FELIX_IFB} root {tbf}"));
}

/// Steady bits per second to the pod and from the pod, both at the same time.
fn measured(lab: &Lab, pod: &Pod) -> (f64, f64) {
    let traffic = Traffic { duration: Duration::from_millis(2_500), ..Traffic::default() };
    let mut to_pod = Flow::start(lab, pod, &pod.eth0.pod_v4, &traffic);
    let mut from_pod = Flow::start(pod, lab, &pod.eth0.host_v4, &traffic);
    to_pod.until(traffic.duration);
    from_pod.until(traffic.duration);
    (to_pod.throughput().steady_bits, from_pod.throughput().steady_bits)
}

/// 8M and 4M hold. Below a tenth nothing passes; between the two a busy machine decides. A limit that
/// is gone shows as 100 Mbit/s or more.
fn assert_limits_hold(lab: &Lab, pod: &Pod, case: &str) {
    let (to_pod, from_pod) = measured(lab, pod);
    assert!((8e5..1e7).contains(&to_pod), "{case}: {to_pod} bit/s to the pod");
    assert!((4e5..5e6).contains(&from_pod), "{case}: {from_pod} bit/s from the pod");
}

#[test]
fn what_felix_does_leaves_the_limits_of_auto_and_those_in_the_pod_as_they_are() {
    for (placement, way, hook) in [("auto", Way::Hooks, "clsact"), ("pod", Way::Pod, "ingress")] {
        let Some(lab) = Lab::open() else { return };
        // given a Calico pod with limits of 8M/4M
        let pod = lab.pod(CALI);
        let add = Call::add(&pod).key("placement", json!(placement)).limits("8M", "4M");
        add.ok();
        let before = Shape::of(&pod, way);
        assert_eq!(before.rates(), (8_000_000, 4_000_000));
        // when Felix does what it does, then shape and CHECK are the same after each step
        for doing in DOINGS {
            let case = format!("{placement}, {doing:?}");
            felix(&lab, doing);
            assert_eq!(Shape::of(&pod, way), before, "{case}");
            add.clone().verb("CHECK").ok();
            // and so is what passes
            assert_limits_hold(&lab, &pod, &case);
            // (Felix did something: it shapes at the root, and beside us or not at the hook.)
            if matches!(doing, Doing::WantsLimits(_)) {
                assert_eq!(lab.root(CALI).handle, "1:", "{case}");
                assert_eq!(lab.hook_kind(CALI).as_deref(), Some(hook), "{case}");
            }
        }
    }
}

#[test]
fn what_felix_takes_from_host_root_is_told_by_check_and_repaired_by_add() {
    // The hook before ADD: none, so that ours is a clsact, or a plain one that the reference plugin
    // has left, in which Felix deletes our filter.
    for hook in ["", "ingress"] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod(CALI);
        if !hook.is_empty() {
            lab.sh(&format!("tc qdisc add dev {CALI} {hook}"));
        }
        let add = Call::add(&pod).way(Way::Root).limits("8M", "4M");
        add.ok();
        let before = Shape::of(&pod, Way::Root);
        assert_eq!(before.rates(), (8_000_000, 4_000_000));
        for doing in DOINGS {
            let case = format!("hook {hook:?}, {doing:?}");
            // when Felix undoes it, then CHECK says what is gone
            felix(&lab, doing);
            let error = add.clone().verb("CHECK").error(102);
            error.says(&[CALI, "default/web-0"]);
            match doing {
                Doing::WantsLimits(_) => {
                    error.says(&["already has the root qdisc tbf 1: of another program"])
                }
                _ => error.says(&["the TBF for ingress (to the pod)", "is missing"]),
            };
            if matches!(doing, Doing::LimitsGo) && !hook.is_empty() {
                error.says(&["the clsact qdisc", "the filter that redirects"]);
            }
            if let Doing::WantsLimits(_) = doing {
                // While Felix shapes at the root itself, there is no place: ADD says so.
                add.error(101).says(&[CALI, "default/web-0"]);
                continue;
            }
            // and ADD repairs it
            add.ok();
            assert_eq!(Shape::of(&pod, Way::Root), before, "{case}");
            add.clone().verb("CHECK").ok();
            assert_limits_hold(&lab, &pod, &case);
        }
        add.verb("DEL").ok();
        assert!(lab.ifbs().is_empty(), "hook {hook:?}");
    }
}

#[test]
fn a_second_add_on_a_recreated_cali_interface_restores_the_limits() {
    let Some(lab) = Lab::open() else { return };
    let mut pod = lab.pod(CALI);
    Call::add(&pod).limits("8M", "4M").ok();
    let before = Shape::of(&pod, Way::Hooks);
    let eth0 = pod.eth0.clone();
    pod.recreate(&eth0);
    lab.sh(&format!(
        "tc qdisc replace dev {CALI} root handle 1: tbf rate 1gbit burst 9k limit 99k"
    ));
    Call::add(&pod).limits("8M", "4M").ok();
    assert_eq!(Shape::of(&pod, Way::Hooks), before);
}
