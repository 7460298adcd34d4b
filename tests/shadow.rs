//! Filters of other programs that are asked before those of the limit and may take packets from it:
//! another place where there is a better one, else a warning that names them. Never silence.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::two_peers::{PLACES, list, pod_in};
use common::{Call, Flow, Lab, Ns, Pod, Shape, Snapshot, Traffic, Way};
use serde_json::json;

const M: u64 = 1_000_000;

/// Sends what comes from the pod to another device, past any limit behind it.
const REDIRECT: &str = "tc filter add dev DEV HOOK pref 1 protocol ip u32 match ip src POD/32 \
    action mirred egress redirect dev sink";

/// Accepts what comes from the pod.
const PASS: &str =
    "tc filter add dev DEV HOOK pref 1 protocol ip u32 match ip src POD/32 flowid 1:1";

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

fn lab_with_sink() -> Option<Lab> {
    let lab = Lab::open()?;
    lab.script("ip link add sink type ifb\n ip link set sink up");
    Some(lab)
}

/// Adds filters at a hook of a device.
fn give(ns: &Ns, dev: &str, hook: &str, pod: &Pod, filters: &str) {
    let filters = filters.replace("DEV", dev).replace("HOOK", hook);
    ns.script(&filters.replace("POD", &pod.eth0.pod_v4));
}

/// What a successful call logs about filters before the limit.
fn warnings(call: &Call) -> Vec<String> {
    let outcome = call.run();
    outcome.ok();
    let is_warning =
        |line: &&str| line.contains(" warn ") && line.contains("asked before the limit");
    outcome.stderr.lines().filter(is_warning).map(str::to_owned).collect()
}

/// The one warning that ADD and CHECK both log has these words.
fn assert_warned(add: &Call, case: &str, words: &[&str]) {
    for verb in ["ADD", "CHECK", "ADD"] {
        let found = warnings(&add.clone().verb(verb));
        assert_eq!(found.len(), 1, "{case}, {verb}: {found:#?}");
        for word in words.iter().chain(&["of another program", "may hide packets"]) {
            assert!(found[0].contains(word), "{case}, {verb}: {word} in {}", found[0]);
        }
    }
}

fn assert_silent(add: &Call, case: &str) {
    for verb in ["ADD", "CHECK"] {
        assert_eq!(warnings(&add.clone().verb(verb)), [""; 0], "{case}, {verb}");
    }
}

// ---- auto goes round them ------------------------------------------------------------------

#[test]
fn auto_holds_the_limit_where_no_filter_takes_packets_before_it() {
    let Some(lab) = lab_with_sink() else { return };
    let pod = lab.pod("veth0");
    // given a filter that sends the pod's packets past any limit on the host
    lab.sh("tc qdisc add dev veth0 clsact");
    give(&lab, "veth0", "ingress", &pod, REDIRECT);
    let before = state(&pod);
    // when the pod is added
    let add = Call::add(&pod).limits("", "1M");
    let outcome = add.run();
    outcome.ok();
    // then the limit is in the pod, and the log says why
    assert_eq!(Shape::of(&pod, Way::Pod).rates(), (0, M));
    for word in ["placement pod", "u32", "pref 1", "veth0", "ingress hook"] {
        assert!(outcome.stderr.contains(word), "{word} in {}", outcome.stderr);
    }
    // and each packet meets it
    let packets = pod.ns.qdisc_packets("eth0");
    pod.ns.ping(&pod.eth0.host_v4, 5, Duration::from_millis(100));
    assert!(pod.ns.qdisc_packets("eth0") >= packets + 5, "the packets of five pings");
    assert_silent(&add, "in the pod");
    add.verb("DEL").ok();
    before.assert_same(&state(&pod), "DEL");
}

#[test]
fn auto_limits_what_such_a_filter_accepts() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    lab.sh("tc qdisc add dev veth0 clsact");
    give(&lab, "veth0", "ingress", &pod, PASS);
    Call::add(&pod).limits("", "10M").ok();
    let traffic = Traffic { duration: Duration::from_millis(2_500), ..Traffic::default() };
    let mut flow = Flow::start(&pod.ns, &lab, &pod.eth0.host_v4, &traffic);
    flow.until(traffic.duration);
    let rate = flow.throughput().steady_bits;
    // Without a limit it is 100 Mbit/s and more.
    assert!((1e6..12e6).contains(&rate), "{rate:.0} bit/s from the pod");
}

#[test]
fn auto_moves_only_where_the_filter_is_before_a_limit_and_the_pod_is_better() {
    let root = "tc qdisc add dev veth0 root handle 5: pfifo limit 77";
    let inside = "tc qdisc add dev eth0 clsact";
    for (case, host, hook, in_pod, limits, way) in [
        ("no limit at that hook", "", "ingress", "", ("10M", ""), Way::Root),
        ("the root needs no hook", "", "egress", "", ("10M", "20M"), Way::Root),
        ("the root is taken", root, "egress", "", ("10M", ""), Way::Pod),
        ("a clean hook in the pod", "", "ingress", inside, ("10M", "20M"), Way::Pod),
        ("the pod's root is taken", "", "ingress", "root", ("10M", "20M"), Way::Root),
        ("one in the pod, too", "", "ingress", "filter", ("10M", "20M"), Way::Root),
    ] {
        let Some(lab) = lab_with_sink() else { return };
        let pod = lab.pod("veth0");
        lab.script(&format!("tc qdisc add dev veth0 clsact\n{host}"));
        give(&lab, "veth0", hook, &pod, PASS);
        match in_pod {
            "root" => drop(pod.ns.sh("tc qdisc add dev eth0 root handle 5: pfifo limit 77")),
            "filter" => {
                pod.ns.sh(inside);
                give(&pod.ns, "eth0", "ingress", &pod, PASS);
            }
            words => pod.ns.script(words),
        }
        let before = state(&pod);
        let add = Call::add(&pod).limits(limits.0, limits.1);
        let is_behind = way != Way::Pod && hook == "ingress" && !limits.1.is_empty();
        match is_behind {
            true => assert_warned(&add, case, &["veth0", "u32", "pref 1"]),
            false => assert_silent(&add, case),
        }
        let rate = |limit: &str| if limit.is_empty() { 0 } else { 10 * M };
        let (to_pod, from_pod) = Shape::of(&pod, way).rates();
        assert_eq!((to_pod, from_pod / 2), (rate(limits.0), rate(limits.1)), "{case}");
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), case);
    }
}

// ---- whoever insists is warned -------------------------------------------------------------

#[test]
fn a_place_that_the_operator_names_is_taken_with_a_warning() {
    let way_of = |keys: &[(&str, &str)]| match keys {
        [.., ("hostIngress", "hooks")] => Way::Hooks,
        _ => Way::Root,
    };
    for keys in [
        &[("placement", "host")][..],
        &[("placement", "host"), ("hostIngress", "root")],
        &[("placement", "host"), ("hostIngress", "hooks")],
        &[("hostIngress", "root")],
        &[("hostIngress", "hooks")],
        &[],
    ] {
        let Some(lab) = lab_with_sink() else { return };
        let pod = lab.pod("veth0");
        lab.sh("tc qdisc add dev veth0 clsact");
        give(&lab, "veth0", "ingress", &pod, REDIRECT);
        let before = state(&pod);
        let mut add = Call::add(&pod).limits("10M", "20M");
        for (key, value) in keys {
            add = add.key(key, json!(value));
        }
        if keys.is_empty() {
            add = add.key("placementByPrefix", json!({"veth": "host"}));
        }
        let case = format!("{keys:?}");
        let words =
            ["veth0", "u32 filter", "pref 1,", "protocol ip", "ingress hook", "from the pod"];
        assert_warned(&add, &case, &words);
        assert_eq!(Shape::of(&pod, way_of(keys)).rates(), (10 * M, 20 * M), "{case}");
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), &case);
    }
}

#[test]
fn every_hook_that_holds_a_limit_is_looked_at() {
    for (way, hook, direction) in [
        (Way::Root, "ingress", "from the pod"),
        (Way::Hooks, "ingress", "from the pod"),
        (Way::Hooks, "egress", "to the pod"),
        (Way::Pod, "ingress", "to the pod"),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let case = format!("{way:?} {hook}");
        let (ns, dev) = (way.namespace(&pod), way.device(&pod.eth0));
        ns.sh(&format!("tc qdisc add dev {dev} clsact"));
        give(ns, dev, hook, &pod, &PASS.replace("src", "dst"));
        let add = Call::add(&pod).way(way).limits("10M", "20M");
        assert_warned(&add, &case, &[dev, "u32", "pref 1,", &format!("{hook} hook"), direction]);
        // Without that limit the hook does not matter.
        let other = if direction == "to the pod" { ("", "20M") } else { ("10M", "") };
        assert_silent(&add.limits(other.0, other.1), &case);
    }
}

#[test]
fn limits_for_subnets_are_no_exception() {
    for place in PLACES {
        for key in ["unshapedSubnets", "shapedSubnets"] {
            let Some(lab) = Lab::open() else { return };
            let pod = pod_in(&lab);
            let (ns, dev) = (place.ns(&pod), place.dev(&pod));
            ns.sh(&format!("tc qdisc add dev {dev} clsact"));
            give(ns, dev, "ingress", &pod, PASS);
            give(ns, dev, "egress", &pod, &PASS.replace("pref 1", "pref 2"));
            let add = place.add(&pod).key(key, list(&pod));
            for verb in ["ADD", "CHECK", "ADD"] {
                let found = warnings(&add.clone().verb(verb));
                assert_eq!(found.len(), 2, "{place:?} {key} {verb}: {found:#?}");
                assert!(found[0].contains("pref 1,") && found[1].contains("pref 2,"), "{found:#?}");
            }
        }
    }
}

#[test]
fn a_filter_that_comes_after_the_limit_is_told_by_check_and_by_the_next_add() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let add = Call::add(&pod).way(way).limits("10M", "20M");
        assert_silent(&add, &format!("{way:?}, alone"));
        let (ns, dev) = (way.namespace(&pod), way.device(&pod.eth0));
        give(ns, dev, "ingress", &pod, PASS);
        assert_warned(&add, &format!("{way:?}"), &[dev, "u32", "pref 1,"]);
        // The limit stays where it is, by auto as well.
        let auto = Call::add(&pod).limits("10M", "20M");
        assert_warned(&auto, &format!("{way:?}, auto"), &[dev, "u32", "pref 1,"]);
        assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{way:?}");
    }
}

// ---- which filters these are ---------------------------------------------------------------

#[test]
fn filters_that_take_no_packet_from_the_limit_are_not_named() {
    for (case, filters) in [
        (
            "goes on",
            "tc filter add dev DEV HOOK pref 1 protocol all u32 match u32 0 0 \
             action mirred egress mirror dev sink continue",
        ),
        (
            "goes on behind two actions",
            "tc filter add dev DEV HOOK pref 1 protocol ip u32 match ip src POD/32 \
             action mirred egress mirror dev sink pipe action mirred egress mirror dev sink continue",
        ),
        (
            "a program that goes on",
            "tc filter add dev DEV HOOK pref 1 protocol all bpf bytecode 1,6$0$0$0, flowid 1:1 \
             action mirred egress mirror dev sink continue",
        ),
        (
            "of a chain to which no filter goes",
            "tc filter add dev DEV HOOK chain 5 pref 1 protocol all u32 match u32 0 0 flowid 1:1",
        ),
        (
            "an empty preference",
            "tc filter add dev DEV HOOK pref 1 protocol ip u32 match ip src POD/32 flowid 1:1
             tc filter add dev DEV HOOK pref 2 protocol ip u32 match ip src POD/32 flowid 1:1
             tc filter del dev DEV HOOK pref 1 protocol ip handle 800::800 u32
             tc filter del dev DEV HOOK pref 2 protocol ip handle 801::800 u32",
        ),
    ] {
        let Some(lab) = lab_with_sink() else { return };
        let pod = lab.pod("veth0");
        let is_program = filters.contains("bpf");
        let (ns, dev) = if is_program { (&pod.ns, "eth0") } else { (&*lab, "veth0") };
        ns.sh(&format!("tc qdisc add dev {dev} clsact"));
        if is_program {
            ns.script("ip link add sink type ifb\n ip link set sink up");
        }
        let filters = filters.replace("DEV", dev).replace("HOOK", "ingress");
        for line in filters.replace("POD", &pod.eth0.pod_v4).lines() {
            let words: Vec<String> = line.split_whitespace().map(|w| w.replace('$', " ")).collect();
            ns.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        }
        // A program on the host is never passed by, whatever it does: that one is in the pod.
        let (add, way) = match is_program {
            true => (Call::add(&pod).way(Way::Pod), Way::Pod),
            false => (Call::add(&pod), Way::Root),
        };
        let add = add.limits("10M", "20M");
        assert_silent(&add, case);
        assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{case}");
    }
}

#[test]
fn filters_behind_the_limit_are_not_named() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    lab.sh("tc qdisc add dev veth0 clsact");
    give(&lab, "veth0", "egress", &pod, &PASS.replace("pref 1", "pref 65535"));
    assert_silent(&Call::add(&pod).way(Way::Hooks).limits("10M", "20M"), "pref 65535");
}

#[test]
fn each_way_to_take_some_packets_is_named_once() {
    for (case, filters, words) in [
        ("redirects", REDIRECT, ["u32", "pref 1,"]),
        (
            "mirrors, which ends the walk",
            "tc filter add dev DEV HOOK pref 1 protocol ip u32 match ip src POD/32 \
             action mirred egress mirror dev sink",
            ["u32", "pref 1,"],
        ),
        (
            "several of one preference",
            "tc filter add dev DEV HOOK pref 3 protocol ipv6 u32 match ip6 src fd00::/8 flowid 1:1
             tc filter add dev DEV HOOK pref 3 protocol ipv6 u32 match ip6 src fc00::/8 flowid 1:1",
            ["protocol ipv6", "pref 3,"],
        ),
        (
            "all of another protocol",
            "tc filter add dev DEV HOOK pref 1 protocol arp u32 match u32 0 0 flowid 1:1",
            ["protocol arp", "pref 1,"],
        ),
        (
            "in a table of its own",
            "tc filter add dev DEV HOOK pref 1 protocol ip handle 1: u32 divisor 1
             tc filter add dev DEV HOOK pref 1 protocol ip u32 ht 1: match u32 0 0 flowid 1:1
             tc filter add dev DEV HOOK pref 1 protocol ip u32 ht 800: match ip src POD/32 link 1:",
            ["u32", "pref 1,"],
        ),
        (
            "at the limit's own preference",
            "tc filter add dev DEV HOOK pref 65535 protocol all u32 match ip src POD/32 flowid 1:1",
            ["protocol all", "pref 65535,"],
        ),
    ] {
        let Some(lab) = lab_with_sink() else { return };
        let pod = lab.pod("veth0");
        lab.sh("tc qdisc add dev veth0 clsact");
        give(&lab, "veth0", "ingress", &pod, filters);
        let add = Call::add(&pod).way(Way::Root).limits("10M", "20M");
        assert_warned(&add, case, &words);
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M), "{case}");
    }
}

#[test]
fn filters_that_several_interfaces_share_are_seen() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    // given a set of filters that belongs to no interface alone
    lab.script(
        "tc qdisc add dev veth0 ingress_block 22 clsact
         tc filter add block 22 pref 7 protocol ip u32 match ip src 192.0.2.1/32 flowid 1:1",
    );
    // then auto goes round it
    let add = Call::add(&pod).limits("", "20M");
    let outcome = add.run();
    outcome.ok();
    assert!(outcome.stderr.contains("(pref 7)"), "{}", outcome.stderr);
    assert_eq!(Shape::of(&pod, Way::Pod).rates(), (0, 20 * M));
    add.verb("DEL").ok();
    // and where it is insisted on, the kernel does not take our filter, and says so
    let before = state(&pod);
    Call::add(&pod).way(Way::Root).limits("", "20M").error(100).says(&["veth0", "shared"]);
    before.assert_same(&state(&pod), "refused");
}

#[test]
fn a_program_at_a_hook_that_came_after_the_limit_is_named() {
    for (ns_of, dev, way) in [("host", "veth0", Way::Root), ("pod", "eth0", Way::Pod)] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let add = Call::add(&pod).way(way).limits("10M", "20M");
        add.ok();
        let program = ["bpf", "bytecode", "1,6 0 0 0,", "flowid", "1:1"];
        let place = ["tc", "filter", "add", "dev", dev, "ingress", "pref", "9", "protocol", "all"];
        way.namespace(&pod).run(&[&place[..], &program].concat());
        let found = warnings(&add.verb("CHECK"));
        assert_eq!(found.len(), 1, "{ns_of}: {found:#?}");
        assert!(found[0].contains("bpf filter (pref 9,") && found[0].contains(dev), "{found:#?}");
    }
}
