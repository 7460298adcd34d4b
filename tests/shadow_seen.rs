//! `show` and `doctor` name filters of other programs that are asked before a limit.
#![cfg(feature = "node")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod doctored;

use common::{Pod, Way};
use doctored::{NODE, Node};
use serde_json::{Value, json};

/// Accepts what comes from one address, before the limit.
fn give_filter(pod: &Pod, way: Way, rest: &str) {
    let dev = way.device(&pod.eth0);
    way.namespace(pod).sh(&format!("tc filter add dev {dev} ingress pref 7 {rest}"));
}

const SOME: &str = "protocol ip u32 match ip src 192.0.2.1/32 flowid 1:1";
const ALL: &str = "protocol ip u32 match u32 0 0 flowid 1:1";

fn show(node: &Node, format: &str) -> String {
    let cache = node.folder.file("cache");
    let words = [NODE, "show", "--interval", "0s", "--cache", &cache, "-o", format];
    node.lab.run(&words)
}

/// What `show -o json` has of the filters before the limits of a pod.
fn filters_before(node: &Node, name: &str) -> Vec<Value> {
    let shown: Value = serde_json::from_str(&show(node, "json")).unwrap();
    assert_eq!(shown["problems"], json!([]));
    let pods = shown["shaped"].as_array().unwrap().iter();
    let found: Vec<_> = pods.filter(|pod| pod["pod"] == name).collect();
    assert_eq!(found.len(), 1, "{name} in {shown:#}");
    found[0]["filters_before"].as_array().unwrap().clone()
}

#[test]
fn a_filter_that_came_before_a_limit_is_named_until_it_is_gone() {
    for way in Way::ALL {
        let Some(node) = Node::open() else { return };
        // given two pods with limits, and a filter of another program before one of them
        let pod = node.pod("cart", way, ("10M", "20M"));
        let _sound = node.pod("sound", way, ("10M", "20M"));
        assert!(node.examine().is_sound(), "{way:?}");
        assert_eq!(filters_before(&node, "cart"), [Value::Null; 0], "{way:?}");
        give_filter(&pod, way, SOME);
        let (dev, hook) = (way.device(&pod.eth0), "ingress hook");
        let direction = if way == Way::Pod { "ingress" } else { "egress" };
        // then doctor warns, and says how to see it
        let examined = node.examine();
        assert_eq!(examined.wrong(), ["filter-before-limit warning"], "{way:?}");
        let finding = examined.one("filter-before-limit");
        assert!(finding["subject"].as_str().unwrap().starts_with(dev), "{finding:#}");
        for word in ["u32 filter", "pref 7", "protocol ip", hook, direction] {
            assert!(finding["seen"].as_str().unwrap().contains(word), "{word}: {finding:#}");
        }
        let remedy = finding["remedy"].as_str().unwrap();
        assert!(remedy.contains(&format!("tc filter show dev {dev} ingress")), "{remedy}");
        assert_eq!(finding["command"], Value::Null, "it is not ours to remove");
        // and show has it with the pod
        let filters = filters_before(&node, "cart");
        assert_eq!(filters.len(), 1, "{way:?}: {filters:#?}");
        for (key, value) in [
            ("device", json!(dev)),
            ("hook", json!("ingress")),
            ("kind", json!("u32")),
            ("preference", json!(7)),
            ("protocol", json!("ip")),
            ("direction", json!(direction)),
            ("hides_all", json!(false)),
        ] {
            assert_eq!(filters[0][key], value, "{way:?} {key}");
        }
        assert_eq!(filters_before(&node, "sound"), [Value::Null; 0], "{way:?}");
        let wide = show(&node, "wide");
        let note = format!("shop/cart eth0: {dev} has a u32 filter (pref 7, protocol ip)");
        assert!(wide.contains(&note) && !wide.contains("shop/sound eth0:"), "{wide}");
        assert!(!show(&node, "table").contains("u32"));
        // until it is gone
        way.namespace(&pod).sh(&format!("tc filter del dev {dev} ingress pref 7"));
        assert!(node.examine().is_sound(), "{way:?}");
        assert_eq!(filters_before(&node, "cart"), [Value::Null; 0], "{way:?}");
    }
}

#[test]
fn a_filter_that_hides_every_packet_is_a_problem() {
    for way in Way::ALL {
        let Some(node) = Node::open() else { return };
        let pod = node.pod("cart", way, ("10M", "20M"));
        give_filter(&pod, way, ALL);
        let examined = node.examine();
        assert_eq!(examined.wrong(), ["filter-before-limit problem"], "{way:?}");
        assert_eq!(filters_before(&node, "cart")[0]["hides_all"], true, "{way:?}");
    }
}

#[test]
fn a_filter_that_goes_on_or_that_no_limit_is_behind_is_no_finding() {
    let Some(node) = Node::open() else { return };
    node.lab.script("ip link add sink type ifb\n ip link set sink up");
    let pod = node.pod("cart", Way::Root, ("10M", "20M"));
    let other = node.pod("other", Way::Root, ("10M", ""));
    node.lab.sh(&format!("tc qdisc add dev {} clsact", other.eth0.host));
    give_filter(
        &pod,
        Way::Root,
        "protocol all u32 match u32 0 0 action mirred egress mirror dev sink continue",
    );
    give_filter(&other, Way::Root, ALL);
    let examined = node.examine();
    assert!(examined.is_sound(), "{:?}", examined.wrong());
    assert_eq!(filters_before(&node, "cart"), [Value::Null; 0]);
    assert_eq!(filters_before(&node, "other"), [Value::Null; 0]);
}

/// Of programs on the host `bpf-hides` tells.
#[test]
fn a_program_has_one_finding() {
    for (way, wanted) in
        [(Way::Root, "bpf-hides warning"), (Way::Pod, "filter-before-limit warning")]
    {
        let Some(node) = Node::open() else { return };
        let pod = node.pod("cart", way, ("10M", "20M"));
        let dev = way.device(&pod.eth0);
        let place = ["tc", "filter", "add", "dev", dev, "ingress", "pref", "9", "protocol", "all"];
        let program = ["bpf", "bytecode", "1,6 0 0 0,", "flowid", "1:1"];
        way.namespace(&pod).run(&[&place[..], &program].concat());
        assert_eq!(node.examine().wrong(), [wanted], "{way:?}");
        assert_eq!(filters_before(&node, "cart")[0]["kind"], "bpf", "{way:?}");
    }
}
