//! The calls of CRI-O, as CRI-O 1.37 made them: CHECK right after each ADD, and CHECK of every pod when
//! CRI-O restarts, with the input of ADD's time. An error there costs the pod its IP in CRI-O's status.
#![cfg(feature = "node")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Call, Lab, PLUGIN, Pod, PodSpec, Shape, Snapshot, TempDir, Way};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

fn fixture(name: &str) -> Value {
    let path = common::tests_dir(&format!("fixtures/cri-o-1.37.{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The recorded call, with these limits in place of the recorded ones and with the keys of `way`.
fn call(lab: &Lab, name: &str, way: Way, limits: (u64, u64)) -> Call {
    let recorded = fixture(name);
    let mut config = recorded["stdin"].clone();
    for (direction, rate) in [("ingress", limits.0), ("egress", limits.1)] {
        let runtime = config["runtimeConfig"].as_object_mut().unwrap();
        let annotation = format!("kubernetes.io/{direction}-bandwidth");
        let annotations = runtime["io.kubernetes.cri.pod-annotations"].as_object_mut().unwrap();
        match rate {
            0 => drop(annotations.remove(&annotation)),
            rate => drop(annotations.insert(annotation, json!(rate.to_string()))),
        }
        let bandwidth = runtime["bandwidth"].as_object_mut().unwrap();
        match rate {
            0 => bandwidth.retain(|key, _| !key.starts_with(direction)),
            rate => drop(bandwidth.insert(format!("{direction}Rate"), json!(rate))),
        }
    }
    Call::node(lab, "").environment(&recorded["environment"]).config(config).way(way)
}

/// The pod of the recording, and CRI-O's cache.
fn node(lab: &Lab) -> (Pod, TempDir) {
    let add = fixture("add");
    let interfaces = &add["stdin"]["prevResult"]["interfaces"];
    let name = |at: usize| interfaces[at]["name"].as_str().unwrap().to_owned();
    let pod = lab.pod_with(PodSpec { name: name(1), ..PodSpec::host(&name(0)) });
    lab.private_folder("/var/run/netns");
    lab.name_namespace(&pod, add["environment"]["CNI_NETNS"].as_str().unwrap());
    let cache = TempDir::new();
    std::fs::write(cache.path().join("crio-net-eth0"), fixture("cache").to_string()).unwrap();
    (pod, cache)
}

#[test]
fn check_right_after_add_passes() {
    for way in Way::ALL {
        for limits in [(10 * M, 20 * M), (10 * M, 0), (0, 20 * M), (0, 0)] {
            let Some(lab) = Lab::open() else { return };
            let (pod, _cache) = node(&lab);
            let before = Snapshot::of(&[&lab, &pod]);
            let result = call(&lab, "add", way, limits).ok();
            assert_eq!(result, fixture("check")["stdin"]["prevResult"], "{way:?}");
            assert_eq!(Shape::of(&pod, way).rates(), limits, "{way:?}");
            assert_eq!(call(&lab, "check", way, limits).ok(), Value::Null, "{way:?} {limits:?}");
            call(&lab, "check", way, limits).verb("DEL").ok();
            before.assert_same(&Snapshot::of(&[&lab, &pod]), &format!("{way:?} {limits:?}"));
        }
    }
}

#[test]
fn check_at_a_restart_passes_after_a_limit_was_set_by_hand() {
    for way in Way::ALL {
        for (at_add, options, later) in [
            ((10 * M, 0), ["--egress", "5M"], (10 * M, 5 * M)),
            ((0, 20 * M), ["--ingress", "5M"], (5 * M, 20 * M)),
            ((10 * M, 20 * M), ["--egress", "5M"], (10 * M, 5 * M)),
            ((10 * M, 20 * M), ["--egress", "none"], (10 * M, 1_000_000 * M)),
        ] {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{way:?}, {at_add:?} and {options:?}");
            let (pod, cache) = node(&lab);
            // `set` takes the entry of the cache, so the placement is said there
            let mut entry = fixture("cache");
            entry["config"] = json!(STANDARD.encode(list(way).to_string()));
            std::fs::write(cache.path().join("crio-net-eth0"), entry.to_string()).unwrap();
            call(&lab, "add", way, at_add).ok();
            let folder = cache.path().to_str().unwrap();
            lab.run(&[PLUGIN, "set", "default/web", options[0], options[1], "--cache-dir", folder]);
            assert_eq!(Shape::of(&pod, way).rates(), later, "{case}");
            assert_eq!(call(&lab, "check", way, at_add).ok(), Value::Null, "{case}");
        }
    }
}

fn list(way: Way) -> Value {
    let mut entry = json!({"type": "pod-bandwidth",
        "capabilities": {"bandwidth": true, "io.kubernetes.cri.pod-annotations": true}});
    for (key, value) in way.keys() {
        entry[key] = json!(value);
    }
    json!({"cniVersion": "1.0.0", "name": "crio-net", "plugins": [{"type": "ptp"}, entry]})
}
