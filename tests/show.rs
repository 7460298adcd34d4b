//! `show`: what it says is what `tc` says, for every placement, with the pod's name.
#![cfg(feature = "node")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::{Call, Direction, Flow, Interface, Lab, Ns, Pod, TempDir, Traffic, Way};
use serde_json::{Value, json};

const NODE: &str = env!("CARGO_BIN_EXE_pod-bandwidth-node");

/// A pod with limits, and the entry of the runtime's cache that goes with it.
#[must_use]
fn shaped(lab: &Lab, cache: &TempDir, name: &str, way: Way, limits: (&str, &str)) -> Pod {
    let pod = lab.pod(&format!("veth-{name}"));
    add(&pod, &pod.eth0, name, way, limits).ok();
    let entry = json!({
        "kind": "cniCacheV1",
        "containerId": container(name),
        "ifName": "eth0",
        "networkName": "net",
        "config": "e30=",
        "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", name], ["K8S_POD_UID", "u1"]],
        "result": pod.result(&pod.eth0, "1.0.0"),
    });
    let file = format!("net-{}-eth0", container(name));
    std::fs::write(cache.file(&file), entry.to_string()).unwrap();
    pod
}

fn container(name: &str) -> String {
    format!("id-of-{name}")
}

fn add(pod: &Pod, interface: &Interface, name: &str, way: Way, limits: (&str, &str)) -> Call {
    let call = Call::add(pod).interface(pod, interface).container(&container(name)).way(way);
    call.limits(limits.0, limits.1)
}

/// What `show -o json` prints, with more words.
fn show(lab: &Lab, cache: &TempDir, words: &[&str]) -> Value {
    let cache = cache.path().to_str().unwrap();
    let text = lab.run(&[&[NODE, "show", "-o", "json", "--cache", cache], words].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The one pod of this name.
fn one<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let pods = shown["shaped"].as_array().unwrap();
    let found: Vec<_> = pods.iter().filter(|pod| pod["pod"] == name).collect();
    assert_eq!(found.len(), 1, "{name} in {shown:#}");
    found[0]
}

/// The root TBF of a device, as `tc` shows it.
fn witness(ns: &Ns, dev: &str) -> Value {
    let list = ns.json(&["tc", "-s", "-j", "qdisc", "show", "dev", dev, "root"]);
    assert_eq!((&list[0]["kind"], &list[0]["handle"]), (&json!("tbf"), &json!("7062:")), "{list}");
    list[0].clone()
}

/// The same of both directions. A packet of the kernel's own may pass at any moment: what is read between
/// two of these lies between their counters.
fn witnesses(pod: &Pod, way: Way) -> [Value; 2] {
    Direction::ALL.map(|direction| {
        let dev = way.queue_device(pod, &pod.eth0, direction).unwrap();
        witness(way.namespace(pod), &dev)
    })
}

/// A counter that was read between two witnesses.
fn assert_between(seen: &Value, before: &Value, after: &Value, what: &str) {
    let [seen, before, after] = [seen, before, after].map(|number| number.as_u64().unwrap());
    assert!((before..=after).contains(&seen), "{what}: {seen}, by tc {before} and then {after}");
}

#[test]
fn every_placement_is_shown_with_its_pod_and_the_numbers_of_tc() {
    let Some(lab) = Lab::open() else { return };
    let cache = TempDir::new();
    let ways = [("root", Way::Root), ("hooks", Way::Hooks), ("inside", Way::Pod)];
    for (name, way) in ways {
        // given a pod with both limits, and some traffic behind it
        let pod = shaped(&lab, &cache, name, way, ("10M", "20M"));
        lab.ping(&pod.eth0.pod_v4, 3, Duration::from_secs(5));
        // when the node is read
        let before = witnesses(&pod, way);
        let shown = show(&lab, &cache, &["--interval", "0s"]);
        let after = witnesses(&pod, way);
        // then the pod is there, as the runtime named it
        let seen = one(&shown, name);
        let placement = match way {
            Way::Root => "host-root",
            Way::Hooks => "host-hooks",
            Way::Pod => "pod",
        };
        assert_eq!(seen["placement"], placement, "{seen:#}");
        let device = if way == Way::Pod { "eth0" } else { pod.eth0.host.as_str() };
        assert_eq!(seen["device"], device, "{seen:#}");
        assert_eq!((&seen["namespace"], &seen["uid"]), (&json!("shop"), &json!("u1")));
        assert_eq!(seen["container_id"], container(name));
        // and each direction has tc's numbers
        for (number, (direction, key)) in
            Direction::ALL.into_iter().zip(["ingress", "egress"]).enumerate()
        {
            let dev = way.queue_device(&pod, &pod.eth0, direction).unwrap();
            let (tbf, after) = (&before[number], &after[number]);
            let seen = &seen[key];
            assert_eq!(seen["device"], dev, "{seen:#}");
            let rate = tbf["options"]["rate"].as_u64().unwrap() * 8;
            assert_eq!(seen["limit_bits_per_second"], rate, "{key}: {tbf}");
            assert_eq!(seen["burst_bytes"], tbf["options"]["burst"], "{key}: {tbf}");
            assert!(seen["bytes"].as_u64().unwrap() > 0, "three pings passed: {seen:#}");
            for counter in ["bytes", "packets", "drops", "overlimits"] {
                assert_between(&seen[counter], &tbf[counter], &after[counter], counter);
            }
            assert_eq!(seen["set_by"], "add");
            assert_eq!(seen["rate_bits_per_second"], Value::Null, "one reading has no rate");
        }
        assert_eq!(shown["problems"], json!([]));
    }
}

#[test]
fn a_pod_with_a_limit_to_it_alone_is_known_by_the_cache_and_without_it_by_its_device() {
    let Some(lab) = Lab::open() else { return };
    let cache = TempDir::new();
    let pod = shaped(&lab, &cache, "lone", Way::Root, ("10M", ""));
    let seen = show(&lab, &cache, &["--interval", "0s"]);
    assert_eq!(one(&seen, "lone")["egress"], Value::Null);
    // when the cache does not have it
    let seen = show(&lab, &TempDir::new(), &["--interval", "0s"]);
    assert_eq!(one(&seen, "")["device"], pod.eth0.host);
    // a pod with an IFB is named by the IFB's alias
    let other = lab.pod("veth-other");
    add(&other, &other.eth0, "other", Way::Hooks, ("10M", "20M")).ok();
    let seen = show(&lab, &TempDir::new(), &["--interval", "0s"]);
    assert_eq!(one(&seen, "web-0")["namespace"], "default");
}

#[test]
fn who_is_held_back_is_told_apart_from_who_is_only_limited() {
    let Some(lab) = Lab::open() else { return };
    let cache = TempDir::new();
    let busy = shaped(&lab, &cache, "busy", Way::Root, ("10M", ""));
    let _idle = shaped(&lab, &cache, "idle", Way::Root, ("10M", ""));
    // given a stream to one of the pods that takes all it can get, and goes on
    let traffic = Traffic { duration: Duration::from_secs(60), ..Traffic::default() };
    let mut flow = Flow::start(&lab, &busy.ns, &busy.eth0.pod_v4, &traffic);
    flow.until(Duration::from_secs(1));
    // when two readings are a second apart
    let shown = show(&lab, &cache, &[]);
    // then that one is held back all of the time, at its limit, and the other is not
    let busy = &one(&shown, "busy")["ingress"];
    assert!(busy["held_back"].as_f64().unwrap() > 0.9, "{busy:#}");
    let rate = busy["rate_bits_per_second"].as_f64().unwrap();
    assert!((9.0e6..10.6e6).contains(&rate), "{busy:#}");
    assert!(busy["held_back_since"].is_string() && busy["overlimits"].as_u64().unwrap() > 0);
    let idle = &one(&shown, "idle")["ingress"];
    assert_eq!((idle["held_back"].as_f64(), &idle["held_back_since"]), (Some(0.0), &Value::Null));
}

#[test]
fn filters_leave_the_rest_out_and_a_mark_is_told() {
    let Some(lab) = Lab::open() else { return };
    let cache = TempDir::new();
    let pod = shaped(&lab, &cache, "cart", Way::Root, ("10M", ""));
    let _web = shaped(&lab, &cache, "web", Way::Pod, ("10M", ""));
    let names = |words: &[&str]| -> Vec<String> {
        let shown = show(&lab, &cache, &[&["--interval", "0s"], words].concat());
        let pods = shown["shaped"].as_array().unwrap().iter();
        pods.map(|pod| pod["pod"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&[]), ["cart", "web"]);
    assert_eq!(names(&["op/ca"]), ["cart"]);
    assert_eq!(names(&["-n", "shop", "web"]), ["web"]);
    assert_eq!(names(&["-n", "other"]), [""; 0]);
    // when somebody changes a limit by hand, as `set` does
    let dev = &pod.eth0.host;
    lab.sh(&format!(
        "tc qdisc change dev {dev} root handle 7062: tbf rate 5mbit burst 20000 limit 60000 mpu 2"
    ));
    let shown = show(&lab, &cache, &["--interval", "0s", "cart"]);
    let limit = &one(&shown, "cart")["ingress"];
    assert_eq!(
        (&limit["set_by"], &limit["limit_bits_per_second"]),
        (&json!("hand"), &json!(5_000_000))
    );
}

#[test]
fn a_pod_that_cannot_be_looked_into_is_told_and_the_rest_is_shown() {
    let Some(lab) = Lab::open() else { return };
    let cache = TempDir::new();
    let _here = shaped(&lab, &cache, "here", Way::Pod, ("10M", ""));
    let entry = |name: &str, sandbox: &str| {
        let entry = json!({
            "kind": "cniCacheV1", "containerId": name, "ifName": "eth0", "networkName": "net",
            "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", name]], "netns": sandbox,
        });
        std::fs::write(cache.file(name), entry.to_string()).unwrap();
    };
    // given one whose namespace is no namespace, one that has just gone, and a file that is cut
    entry("odd", "/etc/passwd");
    entry("gone", "/run/netns/no-such-namespace");
    std::fs::write(cache.file("cut"), "{\"kind\": \"cniCa").unwrap();
    let shown = show(&lab, &cache, &["--interval", "0s"]);
    one(&shown, "here");
    let problems: Vec<_> = shown["problems"].as_array().unwrap().iter().collect();
    assert_eq!(problems.len(), 1, "{shown:#}");
    assert!(problems[0].as_str().unwrap().starts_with("shop/odd: "), "{shown:#}");
}

#[test]
fn a_cache_that_cannot_be_read_is_an_error_in_words() {
    let Some(lab) = Lab::open() else { return };
    let folder = TempDir::new();
    let file = folder.file("no-folder-but-a-file");
    std::fs::write(&file, "").unwrap();
    let output = lab.attempt(&[NODE, "show", "--cache", &file]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("cannot read") && text.contains("as root"), "{text}");
}

#[test]
fn metrics_are_those_of_tc_under_the_pods_name() {
    let Some(lab) = Lab::open() else { return };
    let cache = TempDir::new();
    let pod = shaped(&lab, &cache, "cart", Way::Root, ("10M", "20M"));
    lab.ping(&pod.eth0.pod_v4, 3, Duration::from_secs(5));
    let before = witnesses(&pod, Way::Root);
    let text = lab.run(&[NODE, "metrics", "--cache", cache.path().to_str().unwrap()]);
    let after = witnesses(&pod, Way::Root);
    for ((tbf, after), word) in before.iter().zip(&after).zip(["ingress", "egress"]) {
        let labels = format!(r#"namespace="shop",pod="cart",interface="eth0",direction="{word}""#);
        let value = |name: &str| -> Value {
            let begin = format!("pod_bandwidth_{name}{{{labels}}} ");
            let found = text.lines().find_map(|line| line.strip_prefix(&begin));
            let found = found.unwrap_or_else(|| panic!("{begin} is missing in\n{text}"));
            serde_json::from_str(found).unwrap()
        };
        assert_eq!(value("limit_bytes_per_second"), tbf["options"]["rate"]);
        // Nobody sends: what waits is gone within a millisecond.
        assert_eq!(value("backlog_bytes"), 0);
        for (name, key) in [
            ("bytes_total", "bytes"),
            ("packets_total", "packets"),
            ("dropped_packets_total", "drops"),
            ("overlimits_total", "overlimits"),
        ] {
            assert_between(&value(name), &tbf[key], &after[key], name);
        }
    }
    assert!(text.contains(r#"placement="host (root)",set_by="add""#), "{text}");
}
