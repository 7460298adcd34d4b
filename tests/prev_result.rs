//! prevResult comes back equal as JSON: unknown fields, order of arrays, every version.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Lab, Pod, Shape, Way};
use serde_json::{Value, json};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn add(pod: &Pod, version: &str, result: &Value) -> Call {
    let add = Call::add(pod).limits("10M", "20M").key("cniVersion", json!(version));
    add.key("prevResult", result.clone())
}

#[test]
fn unknown_fields_at_every_level_come_back_in_every_version() {
    for version in VERSIONS {
        for way in Way::ALL {
            let Some(lab) = Lab::open() else { return };
            let pod = lab.pod("veth0");
            // given a result with a field that nobody knows at every level, numbers that no
            // floating point holds, arrays in no order and text that needs escapes
            let unknown =
                json!({"deep": [{"er": null}, 18_446_744_073_709_551_615_u64, -0.5, "\u{7}\"\\ü"]});
            let mut result = pod.result(&pod.eth0, version);
            result["x-top"] = unknown.clone();
            result["interfaces"][0]["x-interface"] = unknown.clone();
            result["interfaces"][1]["mtu"] = json!(1440);
            result["interfaces"][1]["socketPath"] = json!("/run/vhost.sock");
            result["interfaces"][1]["pciID"] = json!("0000:00:1f.6");
            result["ips"][0]["x-ip"] = unknown.clone();
            result["routes"] = json!([
                {"dst": "10.77.66.0/26", "x-route": unknown.clone(), "gw": "10.1.1.1"},
                {"dst": "0.0.0.0/0", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 100, "scope": 0},
                {"dst": "::/0"},
            ]);
            result["dns"] = json!({"nameservers": ["b", "a", "b"], "search": [], "x-dns": unknown});

            // when it goes through, then it is the same
            assert_eq!(add(&pod, version, &result).way(way).ok(), result, "{version}, {way:?}");
            let check = add(&pod, version, &result).way(way).verb("CHECK");
            if ["0.3.0", "0.3.1"].contains(&version) {
                // CHECK came with 0.4.0.
                check.error(1);
            } else {
                assert_eq!(check.ok(), Value::Null, "{version}");
            }
            assert_eq!(add(&pod, version, &result).way(way).verb("DEL").ok(), Value::Null);
        }
    }
}

#[test]
fn numbers_and_repeated_keys_are_not_rewritten() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let (host, name, sandbox) = (&pod.eth0.host, &pod.eth0.name, pod.ns.path());
    // 1e2, 1.0 and a number beyond 64 bits are other texts once a parser has read them.
    let result = format!(
        r#"{{"cniVersion":"1.0.0","x":[1e2,1.0,123456789012345678901234567890],"interfaces":[
           {{"name":"{host}"}},{{"name":"{name}","sandbox":"{sandbox}"}}],"ips":[]}}"#
    );
    let config = format!(
        r#"{{"cniVersion":"1.0.0","name":"net","type":"pod-bandwidth","prevResult":{result},
           "ingressRate":10000000}}"#
    );
    let stdout = Call::add(&pod).stdin(&config).run();
    stdout.ok();
    assert!(stdout.stdout.contains("[1e2,1.0,123456789012345678901234567890]"), "{stdout:#?}");
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (10_000_000, 0));
}

#[test]
fn the_results_of_calico_come_back() {
    let path = common::tests_dir("fixtures/calico-3.32.1-results.json");
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let Some(lab) = Lab::open() else { return };
        // given a Calico pod, with the recorded result word for word
        let result = recorded[version].clone();
        let host = result["interfaces"][0]["name"].as_str().unwrap();
        let sandbox = result["interfaces"][1]["sandbox"].as_str().unwrap();
        let pod = lab.pod(host);
        lab.private_folder("/var/run/netns");
        lab.name_namespace(&pod, sandbox);
        // when it is added
        let add = add(&pod, version, &result).env("CNI_NETNS", sandbox);
        // then the result is as it came, and the host entry, which has but a name, was enough
        assert_eq!(add.ok(), result, "{version}");
        assert_eq!(Shape::of(&pod, Way::Hooks).rates(), (10_000_000, 20_000_000), "{version}");
        add.verb("DEL").ok();
        assert!(lab.ifbs().is_empty(), "{version}");
    }
}

#[test]
fn a_result_in_a_version_before_interfaces_is_refused_with_its_version() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let result = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.77.66.2/32"}, "dns": {}});
    add(&pod, "0.2.0", &result).error(1).says(&["0.2.0", "0.3.0"]);
}

#[test]
fn no_limit_passes_the_result_through_and_makes_nothing() {
    for version in VERSIONS {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let before = common::Snapshot::of(&[&lab, &pod]);
        let result = pod.result(&pod.eth0, version);
        let add = add(&pod, version, &result).without_key("runtimeConfig");
        assert_eq!(add.ok(), result, "{version}");
        before.assert_same(&common::Snapshot::of(&[&lab, &pod]), version);
    }
}
