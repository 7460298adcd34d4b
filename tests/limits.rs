//! From what a pod and its node ask for to the numbers that `tc` shows.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Direction, Lab, Limit, Pod, PodSpec, Shape, Way};
use serde_json::json;

const M: u64 = 1_000_000;
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";

/// Rate in bit/s, burst and queue in bytes of the direction to the pod.
fn numbers(pod: &Pod) -> (u64, u64, u64) {
    let limit: Limit = Shape::of(pod, Way::Root).to_pod.expect("a limit to the pod");
    (limit.rate, limit.burst(), limit.queue)
}

#[test]
fn a_rate_alone_gives_burst_and_queue_by_the_design() {
    // 4 ms of the rate, at least two frames of MTU + 18; burst + 25 ms, at least three frames
    for (mtu, quantity, rate, burst, queue) in [
        (1500, "10M", 10 * M, 5_000, 36_250),
        (1500, "2M", 2 * M, 3_036, 9_286),
        (1500, "1k", 1_000, 3_036, 7_590),
        (1500, "100M", 100 * M, 50_000, 362_500),
        (1500, "10Mi", 10_485_760, 5_242, 38_010),
        (1500, "1.5M", 1_500_000, 3_036, 7_723),
        (1500, "1500000000m", 1_500_000, 3_036, 7_723),
        (1500, "15e5", 1_500_000, 3_036, 7_723),
        // Not a multiple of 8: never more than what was asked for.
        (1500, "10000007", 10_000_000, 5_000, 36_250),
        // 40 Gbit/s: rates above 2^32 bytes a second, burst and queue at their cap of 32 MiB.
        (1500, "40G", 40_000 * M, 20_000_000, 20_000_000 + (32 << 20)),
        (9000, "10M", 10 * M, 18_036, 49_286),
        (65_535, "10M", 10 * M, 131_106, 131_106 + 3 * 65_553),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod_with(PodSpec { mtu, ..PodSpec::host("veth0") });
        Call::add(&pod).annotation(INGRESS, quantity).ok();
        let (seen_rate, seen_burst, seen_queue) = numbers(&pod);
        assert_eq!((seen_rate, seen_queue), (rate, queue), "{quantity} at MTU {mtu}");
        // A tick of 64 ns is 320 bytes at 40 Gbit/s.
        let tick = rate * 64 / 8_000_000_000 + 1;
        assert!(seen_burst.abs_diff(burst) <= tick, "{quantity} at MTU {mtu}: {seen_burst} bytes");
    }
}

#[test]
fn frames_larger_than_the_mtu_of_an_ifb_pass_it() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        // given a shaped pod with jumbo frames, whose IFBs have a small MTU
        let pod = lab.pod_with(PodSpec { mtu: 9000, ..PodSpec::host("veth0") });
        Call::add(&pod).way(way).limits("10M", "10M").ok();
        let queues = Direction::ALL.map(|direction| {
            way.queue_device(&pod, &pod.eth0, direction).expect("both directions are limited")
        });
        let packets = || queues.each_ref().map(|dev| way.namespace(&pod).qdisc_packets(dev));
        let before = packets();
        // when a ping of one full frame goes each way, not to be cut
        for (address, header) in [(&pod.eth0.pod_v4, 28), (&pod.eth0.pod_v6, 48)] {
            let bytes = (9000 - header).to_string();
            lab.run(&["ping", "-M", "do", "-c", "1", "-W", "5", "-s", &bytes, address]);
        }
        // then it was answered, and was in the TBFs of both directions
        for (after, before) in packets().iter().zip(before) {
            assert!(*after >= before + 2, "{way:?}: {after} packets after {before}");
        }
    }
}

#[test]
fn the_largest_rate_is_held_as_the_kernel_can() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    Call::add(&pod).annotation(INGRESS, "1P").ok();
    let (rate, _, queue) = numbers(&pod);
    assert_eq!((rate, queue), (1_000_000_000 * M, 64 << 20));
    Call::check(&pod).annotation(INGRESS, "1P").ok();
}

#[test]
fn a_written_burst_is_used_with_a_rate_of_any_source() {
    let burst = "qos.projectcalico.org/ingressBurst";
    let latency = |milliseconds: u64| json!(milliseconds);
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    for (case, call, wanted) in [
        ("Calico's burst in bits", Call::add(&pod).annotation(burst, "80k"), (10_000, 41_250)),
        (
            "runtimeConfig's burst in bits",
            Call::add(&pod).bandwidth(json!({"IngressRate": 10 * M, "IngressBurst": 80_000})),
            (10_000, 41_250),
        ),
        (
            "the static burst in bits",
            Call::add(&pod).key("ingressBurst", json!(80_000)),
            (10_000, 41_250),
        ),
        (
            "no limit, of containerd",
            Call::add(&pod)
                .bandwidth(json!({"IngressRate": 10 * M, "IngressBurst": 4_294_967_295_u64})),
            (5_000, 36_250),
        ),
        ("a long latency", Call::add(&pod).key("latency", latency(100)), (5_000, 130_000)),
        ("a short latency", Call::add(&pod).key("latency", latency(1)), (5_000, 9_554)),
    ] {
        let call = call.annotation(INGRESS, "10M");
        call.ok();
        assert_eq!(numbers(&pod), (10 * M, wanted.0, wanted.1), "{case}");
        call.clone().verb("CHECK").ok();
        call.verb("DEL").ok();
    }
}

#[test]
fn a_peak_rate_is_the_second_bucket() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let call = Call::add(&pod)
            .way(way)
            .annotation(INGRESS, "10M")
            .annotation("qos.projectcalico.org/ingressBurst", "800k")
            .annotation("qos.projectcalico.org/ingressPeakrate", "20M")
            .annotation("qos.projectcalico.org/ingressMinburst", "3000");
        call.ok();
        let dev = way.queue_device(&pod, &pod.eth0, common::Direction::ToPod).unwrap();
        // iproute2 prints a peak rate in its text alone.
        let shown = way.namespace(&pod).sh(&format!("tc qdisc show dev {dev} root"));
        for words in ["tbf 7062:", "rate 10Mbit", "peakrate 20Mbit", "minburst 3000b"] {
            assert!(shown.contains(words), "{way:?}: {words} in {shown}");
        }
        // A second ADD and CHECK know it again; another peak is another limit.
        call.ok();
        call.clone().verb("CHECK").ok();
        call.clone()
            .verb("CHECK")
            .annotation("qos.projectcalico.org/ingressPeakrate", "30M")
            .error(102);
        call.without_key("runtimeConfig").annotation(INGRESS, "10M").ok();
        let shown = way.namespace(&pod).sh(&format!("tc qdisc show dev {dev} root"));
        assert!(!shown.contains("peakrate"), "{way:?}: {shown}");
    }
}

#[test]
fn the_strongest_source_of_each_key_wins() {
    for (case, calico, kubernetes, bandwidth, keys, wanted) in [
        ("defaults", None, None, None, false, (6 * M, 7 * M)),
        ("static keys", None, None, None, true, (4 * M, 5 * M)),
        ("runtimeConfig, one way given", None, None, Some((3 * M, 0)), true, (3 * M, 5 * M)),
        ("annotation", None, Some("2M"), Some((3 * M, 3 * M)), true, (2 * M, 3 * M)),
        ("Calico", Some("1M"), Some("2M"), Some((3 * M, 3 * M)), true, (M, 3 * M)),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let defaults = json!({"ingressRate": "6M", "egressRate": 7 * M});
        let mut call = Call::add(&pod).key("defaults", defaults);
        if keys {
            call = call.key("ingressRate", json!(4 * M)).key("egressRate", json!(5 * M));
        }
        if let Some(value) = kubernetes {
            call = call.annotation(INGRESS, value);
        }
        if let Some(value) = calico {
            call = call.annotation("qos.projectcalico.org/ingressBandwidth", value);
        }
        if let Some((ingress, egress)) = bandwidth {
            call = call.bandwidth(json!({"IngressRate": ingress, "EgressRate": egress}));
        }
        call.ok();
        assert_eq!(Shape::of(&pod, Way::Root).rates(), wanted, "{case}");
        // and the node's maximum holds over all of them
        let maximum = json!({"ingressRate": "1500k", "egressRate": "100M"});
        call.key("maximum", maximum).ok();
        let clamped = (wanted.0.min(1_500_000), wanted.1);
        assert_eq!(Shape::of(&pod, Way::Root).rates(), clamped, "{case}, maximum");
    }
}
