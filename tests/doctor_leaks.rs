//! `doctor` on what is left behind, and on what others have at the node's interfaces. Others are played
//! by `tc` and `ip`, but for the reference plugin, which is the real one.
#![cfg(feature = "node")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod doctored;

use common::{Call, PLUGIN, Pod, Way, feed, require_peer};
use doctored::{Node, add, container, entry, list};
use serde_json::{Value, json};
use std::process::Stdio;

const CALI: &str = "calie822bf90b23";

/// One finding is wrong; its command takes it away, and all is sound again.
fn one_command_helps(node: &Node, wrong: &str) {
    let examined = node.examine();
    assert_eq!(examined.wrong(), [wrong], "{:#}", examined.json);
    node.run(examined.one(wrong.split(' ').next().unwrap()));
    let after = node.examine();
    assert!(after.is_sound(), "{wrong}: {:?}", after.wrong());
}

#[test]
fn the_ifb_of_a_pod_that_is_gone_is_a_leak() {
    let Some(node) = Node::open() else { return };
    let _stays = node.pod("stays", Way::Hooks, ("10M", "20M"));
    let pod = node.pod("gone", Way::Root, ("10M", "20M"));
    node.forget(&pod, "gone");
    one_command_helps(&node, "ifb-leak warning");
}

#[test]
fn a_leak_is_one_also_where_the_interfaces_name_is_another_pods_by_now() {
    let Some(node) = Node::open() else { return };
    // given a pod whose DEL never came, and one that was made anew under its name, as in a StatefulSet
    let mut pod = node.pod("web", Way::Root, ("10M", "20M"));
    let eth0 = pod.eth0.clone();
    pod.recreate(&eth0);
    for folder in ["netns", "cache"] {
        std::fs::remove_file(node.folder.file(&format!("{folder}/web"))).unwrap();
    }
    node.adopt(&pod, "web-again", Way::Root, ("10M", "20M"));
    // then the new one's limits are not in doubt
    one_command_helps(&node, "ifb-leak warning");
}

#[test]
fn an_ifb_without_its_alias_is_told_and_removed_only_where_nothing_uses_it() {
    let Some(node) = Node::open() else { return };
    let pod = node.pod("web", Way::Root, ("", "20M"));
    let ifb = node.lab.ifbs().remove(0);
    // given an IFB in use that somebody gave another alias
    node.lab.run(&["ip", "link", "set", &ifb, "alias", "somebody's"]);
    let examined = node.examine();
    assert_eq!(examined.wrong(), ["ifb-without-alias warning"]);
    assert_eq!(examined.one("ifb-without-alias")["command"], Value::Null);
    add(&pod, "web", Way::Root, ("", "20M")).ok();
    assert!(node.examine().is_sound());
    // and one that an ADD left behind that was killed before it gave it an alias
    node.lab.sh("ip link add pbeaaaabbbbcccc type ifb");
    one_command_helps(&node, "ifb-without-alias warning");
}

/// Calls the real reference plugin for a pod, as its runtime would.
fn reference(node: &Node, pod: &Pod, plugin: &str) {
    let config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bandwidth",
        "egressRate": 8_000_000, "egressBurst": 4_000_000,
        "prevResult": pod.result(&pod.eth0, "1.0.0"),
    });
    let mut command = node.lab.command(&[plugin]);
    command.env("CNI_COMMAND", "ADD").env("CNI_IFNAME", "eth0").env("CNI_CONTAINERID", "c1");
    command.env("CNI_NETNS", pod.ns.path()).env("CNI_PATH", "/opt/cni/bin");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let output = feed(child, config.to_string().as_bytes());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_the_reference_plugin_shapes_is_worth_a_note_and_what_it_left_a_warning() {
    let Some(node) = Node::open() else { return };
    let Some(plugin) = require_peer("bandwidth") else { return };
    let pod = node.lab.pod("veth-old");
    reference(&node, &pod, plugin.to_str().unwrap());
    let examined = node.examine();
    assert!(examined.is_sound(), "{:?}", examined.wrong());
    assert_eq!(examined.one("reference-shapes")["severity"], "note");
    // Its DEL by ours, after a change of the list, leaves its IFB.
    node.lab.sh("ip link del veth-old");
    one_command_helps(&node, "reference-leak warning");
}

#[test]
fn a_burst_that_holds_no_full_frame_is_a_problem_of_any_tbf() {
    let Some(node) = Node::open() else { return };
    let pod = node.pod("web", Way::Root, ("10M", "20M"));
    let ifb = node.lab.ifbs().remove(0);
    for device in [pod.eth0.host.as_str(), &ifb] {
        let change = |burst: u32| {
            node.lab.sh(&format!(
                "tc qdisc change dev {device} root handle 7062: tbf rate 10mbit burst {burst} limit 36250"
            ));
        };
        // One byte less than a frame, as near as the kernel's ticks tell it.
        change(1500);
        let examined = node.examine();
        assert_eq!(examined.wrong(), ["burst-below-mtu problem"], "{device}");
        assert_eq!(examined.one("burst-below-mtu")["subject"], device);
        change(1514);
        assert!(node.examine().is_sound(), "{device}");
    }
    // The MTU may have grown since.
    node.lab.sh(&format!("ip link set {} mtu 9000", pod.eth0.host));
    assert_eq!(node.examine().wrong(), ["burst-below-mtu problem"; 2]);
    // What the pod was made with is derived anew.
    let cache = node.folder.file("cache");
    node.lab.run(&[PLUGIN, "set", "shop/web", "--clear", "--cache-dir", &cache]);
    assert!(node.examine().is_sound());
}

/// A list with a key of our entry set.
fn with(key: &str, value: &str) -> Value {
    let mut entry = entry();
    entry[key] = json!(value);
    list(&entry)
}

#[test]
fn a_foreign_root_matters_where_the_list_insists_on_the_root() {
    let Some(node) = Node::open() else { return };
    let pod = node.lab.pod("veth0");
    node.lab.sh("tc qdisc add dev veth0 root handle 1: htb");
    assert!(node.examine().is_sound());
    // when the list insists
    node.write("10-net.conflist", &with("hostIngress", "root"));
    assert_eq!(node.examine().wrong(), ["foreign-root problem"]);
    // then an ADD fails indeed, and with the remedy it does not
    let call = Call::add(&pod).limits("10M", "");
    call.clone().key("hostIngress", json!("root")).error(101);
    node.write("10-net.conflist", &with("hostIngress", "auto"));
    assert!(node.examine().is_sound());
    call.key("hostIngress", json!("auto")).ok();
    assert!(node.examine().is_sound());
}

#[test]
fn beside_calico_a_root_tbf_of_ours_is_a_warning_and_felixs_own_traces_are_notes() {
    let Some(node) = Node::open() else { return };
    let pod = node.lab.pod(CALI);
    // given limits where auto takes them
    add(&pod, "web", Way::Hooks, ("10M", "20M")).ok();
    let examined = node.examine();
    assert!(examined.is_sound(), "{:?}", examined.wrong());
    assert_eq!(examined.one("calico")["severity"], "ok");
    // when they are at the root, because the list says so
    node.write("10-net.conflist", &with("hostIngress", "root"));
    add(&pod, "web", Way::Root, ("10M", "20M")).ok();
    assert_eq!(node.examine().wrong(), ["calico-root warning", "calico-root-tbf warning"]);
    // then the remedy is another list and an ADD
    node.write("10-net.conflist", &list(&entry()));
    assert_eq!(node.examine().wrong(), ["calico-root-tbf warning"]);
    add(&pod, "web", Way::Root, ("10M", "20M")).verb("DEL").ok();
    Call::add(&pod).container(&container("web")).limits("10M", "20M").ok();
    assert!(node.examine().is_sound());
    // Felix 3.30 and later: its TBF at the root, its IFB that the kernel let it make, and no more.
    node.lab.script(&format!(
        "tc qdisc replace dev {CALI} root handle 1: tbf rate 100mbit burst 536870912 limit 4294967295
         ip link add bwcali0123abcde type ifb"
    ));
    let examined = node.examine();
    assert!(examined.is_sound(), "{:?}", examined.wrong());
    for id in ["calico-shapes", "calico-ifb"] {
        assert_eq!(examined.one(id)["severity"], "note", "{id}");
    }
}

#[test]
fn a_bpf_data_plane_is_known_by_its_device_and_matters_where_the_list_insists_on_the_host() {
    for (device, peer, whose) in
        [("bpfin.cali", "bpfout.cali", "Calico"), ("cilium_host", "cilium_net", "Cilium")]
    {
        let Some(node) = Node::open() else { return };
        node.lab.sh(&format!("ip link add {device} type veth peer name {peer}"));
        let examined = node.examine();
        assert!(examined.is_sound(), "{:?}", examined.wrong());
        let note = examined.one("bpf-data-plane");
        assert_eq!((&note["severity"], &note["subject"]), (&json!("note"), &json!(device)));
        assert!(note["seen"].as_str().unwrap().starts_with(whose), "{note:#}");
        node.write("10-net.conflist", &with("placement", "host"));
        assert_eq!(node.examine().wrong(), ["bpf-data-plane warning"]);
    }
}

#[test]
fn a_bpf_program_at_a_pods_interface_is_told_as_it_matters() {
    let Some(node) = Node::open() else { return };
    // Classic BPF that accepts every packet.
    let guard = |device: &str| {
        let words = format!("tc filter add dev {device} ingress pref 1 bpf direct-action bytecode");
        let words: Vec<&str> = words.split(' ').chain(["1,6 0 0 0,"]).collect();
        let output = node.lab.attempt(&words);
        let refused = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            common::skip(&format!("no BPF program can be put there: {refused}"));
        }
        output.status.success()
    };
    let pod = node.lab.pod("veth0");
    node.lab.sh("tc qdisc add dev veth0 clsact");
    if !guard("veth0") {
        return;
    }
    // auto goes into the pod
    let examined = node.examine();
    assert!(examined.is_sound(), "{:?}", examined.wrong());
    assert_eq!(examined.one("bpf-guard")["severity"], "note");
    // the host is refused, and doctor knows
    node.write("10-net.conflist", &with("placement", "host"));
    assert_eq!(node.examine().wrong(), ["bpf-guard problem"]);
    let call = Call::add(&pod).limits("10M", "20M");
    call.clone().key("placement", json!("host")).error(101);
    node.write("10-net.conflist", &with("placement", "auto"));
    call.key("placement", json!("auto")).ok();
    assert!(node.examine().is_sound());
    // one that comes after a limit on the host may hide it
    let _later = node.pod("later", Way::Root, ("10M", "20M"));
    guard("veth-later");
    assert_eq!(node.examine().wrong(), ["bpf-hides warning"]);
}
