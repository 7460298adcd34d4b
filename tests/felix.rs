//! What Calico's Felix (3.30 and later) does to a host interface must not undo a limit that auto has
//! set on a `cali…` interface. Felix is played by `tc` and `ip`, after its own reading of the kernel
//! (felix/dataplane/linux/qos_controls.go and qos/qos.go of Calico v3.32.1). The table of
//! docs/with-calico.md is what is asserted here.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::{Call, Flow, Lab, Pod, Shape, Traffic, Way};

const CALI: &str = "calie822bf90b23";
const M: u64 = 1_000_000;

/// Felix's IFB for the interface: `bwcali` and a hash.
const IFB: &str = "bwcali0123abcde";

/// What Felix itself wants for an endpoint: Mbit/s to the pod and from it, `None` for no limit.
type Wanted = Option<u32>;

/// An event, and what Felix wants after it: an annotation that it reads comes, changes, goes.
const EVENTS: [(&str, Wanted); 4] = [
    ("an endpoint update or a restart, no limit wanted", None),
    ("Felix wants limits of its own", Some(100)),
    ("Felix's limits change", Some(200)),
    ("Felix's limits go away", None),
];

/// Every event ends in this: Felix compares what it finds with what it wants.
fn felix(lab: &Lab, wanted: Wanted) {
    let tbf = |dev: &str| lab.link(dev).is_some() && lab.root(dev).kind == "tbf";
    let numbers = |rate| format!("handle 1: tbf rate {rate}mbit burst 536870912 limit 4294967295");
    match wanted {
        // Whatever TBF it finds counts as its own, old one.
        Some(rate) => drop(lab.sh(&format!("tc qdisc replace dev {CALI} root {}", numbers(rate)))),
        None if tbf(CALI) => drop(lab.sh(&format!("tc qdisc del dev {CALI} root"))),
        None => {}
    }
    match wanted {
        Some(rate) if tbf(IFB) || redirects(lab) => {
            lab.sh(&format!("tc qdisc replace dev {IFB} root {}", numbers(rate)));
        }
        None if tbf(IFB) => {
            lab.sh(&format!("ip link del {IFB}"));
            if lab.hook_kind(CALI).as_deref() == Some("ingress") {
                lab.sh(&format!("tc qdisc del dev {CALI} ingress"));
            }
        }
        _ => {}
    }
}

/// Felix's redirect to its IFB; false where it gives up, because clsact is in its way.
fn redirects(lab: &Lab) -> bool {
    if lab.link(IFB).is_none() {
        lab.script(&format!("ip link add {IFB} type ifb\n ip link set {IFB} up"));
    }
    if lab.hook_kind(CALI).as_deref() != Some("ingress") {
        let words = format!("tc qdisc replace dev {CALI} handle ffff: ingress");
        if !lab.attempt(&words.split(' ').collect::<Vec<_>>()).status.success() {
            return false;
        }
    }
    for filter in lab.filters(CALI, "ingress") {
        lab.sh(&format!("tc filter del dev {CALI} ingress pref {}", filter.pref));
    }
    lab.sh(&format!(
        "tc filter add dev {CALI} ingress pref 1 protocol all u32 match u32 0 0 \
         action mirred egress redirect dev {IFB}"
    ));
    true
}

/// Whether 8M to the pod and 4M from the pod hold, measured both at the same time.
fn hold(lab: &Lab, pod: &Pod) -> (bool, bool) {
    let traffic = Traffic { duration: Duration::from_millis(2_500), ..Traffic::default() };
    let mut to_pod = Flow::start(lab, pod, &pod.eth0.pod_v4, &traffic);
    let mut from_pod = Flow::start(pod, lab, &pod.eth0.host_v4, &traffic);
    to_pod.until(traffic.duration);
    from_pod.until(traffic.duration);
    let (to_pod, from_pod) = (to_pod.throughput().steady_bits, from_pod.throughput().steady_bits);
    // Wide, for a busy machine: a limit that is gone shows as 100 Mbit/s or more.
    assert!(to_pod > 1e6 && from_pod > 5e5, "{to_pod:.0}, {from_pod:.0} bit/s: the pod is cut off");
    (to_pod < 16e6, from_pod < 8e6)
}

fn add(pod: &Pod) -> Call {
    Call::add(pod).limits("8M", "4M")
}

#[test]
fn on_the_hooks_and_in_the_pod_nothing_that_felix_does_changes_the_limits() {
    // auto takes the hooks of a cali… interface.
    for (way, call) in
        [(Way::Hooks, add as fn(&Pod) -> Call), (Way::Pod, |pod| add(pod).way(Way::Pod))]
    {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod(CALI);
        call(&pod).ok();
        let before = Shape::of(&pod, way);
        assert_eq!(before.rates(), (8 * M, 4 * M), "{way:?}");
        for (event, wanted) in EVENTS {
            felix(&lab, wanted);
            assert_eq!(Shape::of(&pod, way), before, "{way:?}, {event}");
            call(&pod).verb("CHECK").ok();
            assert_eq!(hold(&lab, &pod), (true, true), "{way:?}, {event}");
        }
        // Beside the hooks Felix gave up half way. What it made is left, by it and by us.
        let left = lab.link(IFB).is_some();
        assert_eq!(left, way == Way::Hooks, "{way:?}: the IFB of Felix");
        call(&pod).verb("DEL").ok();
        assert_eq!(lab.link(IFB).is_some(), left, "{way:?}, DEL");
    }
}

#[test]
fn at_the_root_felix_takes_the_limit_to_the_pod_away_and_check_says_so() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod(CALI);
    let call = add(&pod).way(Way::Root);
    call.ok();
    for (event, wanted) in EVENTS {
        // given both limits, where the root is not Felix's already
        if lab.root(CALI).handle != "1:" {
            call.ok();
            assert_eq!(Shape::of(&pod, Way::Root).rates(), (8 * M, 4 * M), "{event}");
        }
        felix(&lab, wanted);
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (0, 4 * M), "{event}");
        assert_eq!(hold(&lab, &pod), (false, true), "{event}");
        let check = call.clone().verb("CHECK").error(102);
        if wanted.is_none() {
            check.says(&["TBF for ingress", "is missing on", CALI]);
        } else {
            // Its own TBF is in the way of ours: said, not fought.
            check.says(&[CALI, "root qdisc tbf 1: of another program"]);
            call.error(101).says(&[CALI, "root qdisc tbf 1: of another program"]);
            assert_eq!(Shape::of(&pod, Way::Root).rates(), (0, 4 * M), "{event}");
        }
    }
    // Without "root" in the configuration an ADD goes to the hooks, and stays there.
    add(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Hooks).rates(), (8 * M, 4 * M));
    felix(&lab, None);
    assert_eq!(hold(&lab, &pod), (true, true), "repaired");
}

#[test]
fn behind_a_plain_ingress_qdisc_felix_takes_both_and_an_add_goes_into_the_pod() {
    let Some(lab) = Lab::open() else { return };
    // given an ingress qdisc of another program, so that there is no egress hook
    let pod = lab.pod(CALI);
    lab.sh(&format!("tc qdisc add dev {CALI} ingress"));
    add(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (8 * M, 4 * M));
    // when Felix wants limits, then its filters take the place of ours
    felix(&lab, Some(100));
    assert_eq!(hold(&lab, &pod), (false, false));
    add(&pod).verb("CHECK").error(102);
    // and an ADD finds the pod free, where Felix does not look
    add(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Pod).rates(), (8 * M, 4 * M));
    for wanted in [Some(200), None] {
        felix(&lab, wanted);
        add(&pod).verb("CHECK").ok();
        assert_eq!(hold(&lab, &pod), (true, true), "{wanted:?}");
    }
}

#[test]
fn where_felix_came_first_with_limits_of_its_own_auto_goes_into_the_pod() {
    let Some(lab) = Lab::open() else { return };
    // given a new veth that Felix has shaped both ways before our ADD
    let pod = lab.pod(CALI);
    felix(&lab, Some(100));
    // then its filter takes every packet, and there is no place for ours on the host
    for way in [Way::Root, Way::Hooks] {
        add(&pod).way(way).error(101).says(&[CALI]);
    }
    add(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Pod).rates(), (8 * M, 4 * M));
    assert_eq!(hold(&lab, &pod), (true, true));
    felix(&lab, None);
    add(&pod).verb("CHECK").ok();
    assert_eq!(hold(&lab, &pod), (true, true), "Felix's limits are gone");
}

#[test]
fn a_second_add_on_a_recreated_cali_interface_restores_the_limits() {
    let Some(lab) = Lab::open() else { return };
    let mut pod = lab.pod(CALI);
    add(&pod).ok();
    let before = Shape::of(&pod, Way::Hooks);
    let eth0 = pod.eth0.clone();
    pod.recreate(&eth0);
    lab.sh(&format!(
        "tc qdisc replace dev {CALI} root handle 1: tbf rate 1gbit burst 9k limit 99k"
    ));
    add(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Hooks), before);
}
