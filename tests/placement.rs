//! Where limits are held: what auto takes, what an operator's list overrides, what cannot be.
//! (Beside other programs: neighbours.rs.)
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Lab, Pod, Shape, Snapshot, Way};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

fn add(pod: &Pod) -> Call {
    Call::add(pod).limits("10M", "20M")
}

#[test]
fn the_configuration_picks_the_way() {
    for (case, host, keys, way) in [
        ("auto", "veth0", json!({}), Way::Root),
        ("auto, written", "veth0", json!({"placement": "auto", "hostIngress": "auto"}), Way::Root),
        ("Calico's interface", "cali12ab34cd56e", json!({}), Way::Hooks),
        ("hooks by wish", "veth0", json!({"hostIngress": "hooks"}), Way::Hooks),
        ("root by wish", "cali12ab34cd56e", json!({"hostIngress": "root"}), Way::Root),
        ("host", "veth0", json!({"placement": "host"}), Way::Root),
        ("pod", "veth0", json!({"placement": "pod"}), Way::Pod),
        (
            "pod, the way on the host says nothing",
            "veth0",
            json!({"placement": "pod", "hostIngress": "hooks"}),
            Way::Pod,
        ),
        ("a prefix", "eni0123", json!({"placementByPrefix": {"eni": "pod"}}), Way::Pod),
        ("another prefix", "veth0", json!({"placementByPrefix": {"eni": "pod"}}), Way::Root),
        (
            "a prefix beats auto on Calico's",
            "cali12ab34cd56e",
            json!({"placementByPrefix": {"cali": "pod"}}),
            Way::Pod,
        ),
        ("hooks by prefix", "nic0123", json!({"placementByPrefix": {"nic": "hooks"}}), Way::Hooks),
        (
            "root by prefix, on Calico's",
            "cali12ab34cd56e",
            json!({"placementByPrefix": {"cali": "root"}, "hostIngress": "hooks"}),
            Way::Root,
        ),
        (
            "auto by prefix",
            "veth0",
            json!({"placementByPrefix": {"veth": "auto", "v": "pod"}}),
            Way::Root,
        ),
        (
            "the longest prefix",
            "eni0123",
            json!({"placementByPrefix": {"e": "host", "eni": "pod", "en": "host"}}),
            Way::Pod,
        ),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod(host);
        let before = Snapshot::of(&[&lab, &pod]);
        let keys = keys.as_object().unwrap();
        let call = keys.iter().fold(add(&pod), |call, (key, value)| call.key(key, value.clone()));
        call.ok();
        assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{case}");
        call.clone().verb("CHECK").ok();
        call.verb("DEL").ok();
        before.assert_same(&Snapshot::of(&[&lab, &pod]), case);
    }
}

/// Moves the host's end of the pair into a namespace of its own: no veth on the host, as with
/// macvlan, ipvlan or SR-IOV.
fn hide_host_end(lab: &Lab) -> Pod {
    let elsewhere = lab.empty_pod();
    lab.run(&["ip", "link", "set", "veth0", "netns", &elsewhere.ns.pid.to_string()]);
    elsewhere.sh("ip link set veth0 up");
    elsewhere
}

/// A result that names no interface on the host.
fn result_of_eth0_alone(pod: &Pod) -> Value {
    let sandbox = pod.ns.path();
    json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": sandbox}], "ips": []})
}

#[test]
fn without_a_host_interface_auto_shapes_inside_the_pod_and_host_is_refused() {
    let Some(lab) = Lab::open() else { return };
    // given a pod whose interface has no peer on the host, and a prevResult that says nothing
    let pod = lab.pod("veth0");
    let call = add(&pod);
    let result = result_of_eth0_alone(&pod);
    let call = call.key("prevResult", result.clone());
    let _elsewhere = hide_host_end(&lab);
    let before = Snapshot::of(&[&lab, &pod]);
    // when the placement is host, then it is refused
    let outcome = call.clone().key("placement", json!("host")).run();
    assert_eq!(outcome.status, Some(1), "{outcome:#?}");
    for word in ["eth0", "veth", "pod", "default/web-0"] {
        assert!(outcome.stdout.contains(word), "{word} in {outcome:#?}");
    }
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "host");
    // and auto goes into the pod
    assert_eq!(call.ok(), result);
    assert_eq!(Shape::of(&pod, Way::Pod).rates(), (10 * M, 20 * M));
    call.clone().verb("CHECK").ok();
    assert_eq!(call.verb("DEL").ok(), Value::Null);
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "auto, DEL");
}

#[test]
fn a_host_interface_of_the_same_index_is_not_taken_for_the_peer() {
    let Some(lab) = Lab::open() else { return };
    // given a pod whose peer is in a third namespace, and on the host a foreign veth with the very
    // index that the pod's interface names as its peer's
    let pod = lab.pod("veth0");
    let call = add(&pod);
    let index = lab.link("veth0").unwrap()["ifindex"].to_string();
    let _elsewhere = hide_host_end(&lab);
    lab.run(&[
        "ip", "link", "add", "foreign0", "index", &index, "type", "veth", "peer", "name",
        "foreign1",
    ]);
    // Without an address of its own making, which would come some time later.
    for device in ["foreign0", "foreign1"] {
        lab.run(&["ip", "link", "set", device, "addrgenmode", "none"]);
        lab.run(&["ip", "link", "set", device, "up"]);
    }
    let foreign = Snapshot::of(&[&lab]);
    // when auto looks for the host's end
    call.key("prevResult", result_of_eth0_alone(&pod)).ok();
    // then it does not shape somebody else's interface
    foreign.assert_same(&Snapshot::of(&[&lab]), "the foreign veth");
    assert_eq!(Shape::of(&pod, Way::Pod).rates(), (10 * M, 20 * M));
}

#[test]
fn the_log_says_which_way_was_taken_and_why() {
    for (host, words) in
        [("veth0", ["host (root)", "auto"]), ("cali12ab34cd56e", ["hooks", "cali"])]
    {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod(host);
        let outcome = add(&pod).key("log", json!({"level": "info"})).run();
        outcome.ok();
        for word in words {
            assert!(outcome.stderr.contains(word), "{word} in {outcome:#?}");
        }
    }
}

#[test]
fn a_bpf_data_plane_on_the_node_is_known_by_its_devices() {
    for device in ["bpfin.cali", "cilium_host", "cilium_net"] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("cali12ab34cd56e");
        // Its programs come after ADD: there is none yet.
        lab.sh(&format!("ip link add {device} type ifb"));
        add(&pod).ok();
        assert_eq!(Shape::of(&pod, Way::Pod).rates(), (10 * M, 20 * M), "{device}");
        // An operator who writes "host" is believed.
        add(&pod).verb("DEL").ok();
        add(&pod).key("placement", json!("host")).ok();
        assert_eq!(Shape::of(&pod, Way::Hooks).rates(), (10 * M, 20 * M), "{device}");
    }
}
