//! What Calico's Felix (3.30 and later) does to a host interface, played by `tc`, must not undo a
//! limit that auto has set on a `cali…` interface.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::{Call, Flow, Lab, Pod, Shape, Traffic, Way};

const CALI: &str = "calie822bf90b23";

/// Felix's doings one after another: what it is, the words, and whether `tc` accepts them beside
/// our clsact qdisc (Felix gives up where it does not).
const DOINGS: [(&str, &str, bool); 6] = [
    // Any endpoint update while it wants no limit: it deletes every TBF at the root.
    ("no limit: look for a root TBF", "tc qdisc show dev CALI root", true),
    // It reads the annotations itself and wants a limit to the pod: its own root TBF.
    (
        "its own limit to the pod",
        "tc qdisc replace dev CALI root handle 1: tbf rate 100mbit burst 536870912 latency 1s",
        true,
    ),
    // It wants a limit from the pod: a plain ingress qdisc first.
    ("its own limit from the pod", "tc qdisc add dev CALI ingress", false),
    // The pod's annotations change: the same with other numbers.
    (
        "another limit to the pod",
        "tc qdisc replace dev CALI root handle 1: tbf rate 200mbit burst 536870912 latency 1s",
        true,
    ),
    // Its limit goes away, or Felix restarts without one: the TBF is deleted.
    ("its limit goes away", "tc qdisc del dev CALI root", true),
    // And the ingress qdisc, by the handle of a plain one that it looks for by kind.
    ("its ingress qdisc goes away", "tc qdisc show dev CALI ingress", true),
];

/// Steady bits per second to the pod and from the pod, both at the same time.
fn measured(lab: &Lab, pod: &Pod) -> (f64, f64) {
    let traffic = Traffic { duration: Duration::from_millis(2_500), ..Traffic::default() };
    let mut to_pod = Flow::start(lab, pod, &pod.eth0.pod_v4, &traffic);
    let mut from_pod = Flow::start(pod, lab, &pod.eth0.host_v4, &traffic);
    to_pod.until(traffic.duration);
    from_pod.until(traffic.duration);
    (to_pod.throughput().steady_bits, from_pod.throughput().steady_bits)
}

#[test]
fn what_felix_does_leaves_the_limits_of_auto_as_they_are() {
    let Some(lab) = Lab::open() else { return };
    // given a Calico pod that auto has shaped at 8M/4M
    let pod = lab.pod(CALI);
    Call::add(&pod).limits("8M", "4M").ok();
    let before = Shape::of(&pod, Way::Hooks);
    assert_eq!(before.rates(), (8_000_000, 4_000_000));
    // when Felix does what it does, then shape and CHECK are the same after each step
    for (what, words, accepted) in DOINGS {
        let words = words.replace("CALI", CALI);
        let output = lab.attempt(&words.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.success(), accepted, "{what}: {output:?}");
        assert_eq!(Shape::of(&pod, Way::Hooks), before, "{what}");
        Call::check(&pod).limits("8M", "4M").ok();
        // and so is what passes
        let (to_pod, from_pod) = measured(&lab, &pod);
        // Wide, for a busy machine: a limit that is gone shows as 100 Mbit/s or more.
        assert!((5e6..1e7).contains(&to_pod), "{what}: {to_pod} bit/s to the pod");
        assert!((2.5e6..5e6).contains(&from_pod), "{what}: {from_pod} bit/s from the pod");
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
