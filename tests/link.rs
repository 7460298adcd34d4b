//! An attachment's link is the one that ADD shaped, whatever its interfaces are called by now and
//! wherever the pod's end is; and no other attachment's link is taken for it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::collections::BTreeSet;

use common::attached::{
    assert_limits, assert_nothing_left, assert_verbs, check, rename, shaped_devices,
    wait_for_the_network,
};
use common::{Call, Interface, Lab, Ns, Pod, Shape, Snapshot, Way};
use pod_bandwidth::kernel::Socket;
use pod_bandwidth::plugin::leak::leaks;
use serde_json::{Value, json};

const M: u64 = 1_000_000;

/// The call as the runtime makes it at every verb: prevResult is the one of the first ADD.
fn add(pod: &Pod, way: Way) -> Call {
    Call::add(pod).way(way).limits("10M", "10M")
}

#[test]
fn a_renamed_interface_of_the_pod_keeps_its_limit() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let add = add(&pod, way);
        add.ok();
        rename(&pod, "eth0", "wan");
        let renamed = Interface { name: "wan".to_owned(), ..pod.eth0.clone() };
        assert_verbs(&pod, way, &add, &renamed, &pod);
    }
}

#[test]
fn a_renamed_interface_of_the_pod_is_found_by_what_is_on_it() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        // given a plugin that names no interface in its result
        let mut result = pod.result(&pod.eth0, "1.0.0");
        result["interfaces"] = Value::Null;
        let add = add(&pod, way).key("prevResult", result);
        add.ok();
        rename(&pod, "eth0", "wan");
        let renamed = Interface { name: "wan".to_owned(), ..pod.eth0.clone() };
        assert_verbs(&pod, way, &add, &renamed, &pod);
    }
}

#[test]
fn a_renamed_host_interface_keeps_its_limit_and_add_mends_the_alias() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let add = add(&pod, way);
        add.ok();
        rename(&lab, "veth0", "uplink0");
        let renamed = Interface { host: "uplink0".to_owned(), ..pod.eth0.clone() };
        check(&add);
        add.ok();
        for ifb in lab.ifbs() {
            assert!(lab.alias(&ifb).contains(" dev=uplink0 "), "{way:?}: {}", lab.alias(&ifb));
        }
        assert_verbs(&pod, way, &add, &renamed, &pod);
    }
}

#[test]
fn a_renamed_host_interface_is_cleaned_up_after_the_pods_namespace_is_gone() {
    for way in [Way::Root, Way::Hooks] {
        for gone in ["DEL without CNI_NETNS", "DEL", "GC"] {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{way:?}, {gone}");
            // given a renamed host interface, and another pod with its old name
            let pod = lab.pod("veth0");
            add(&pod, way).ok();
            rename(&lab, "veth0", "uplink0");
            let other = lab.pod("veth0");
            let other_add = add(&other, way).container("c2");
            other_add.ok();
            // when nobody can enter the pod's namespace any more
            let del = Call::del(&other).way(way).limits("10M", "10M");
            match gone {
                "DEL without CNI_NETNS" => drop(del.without_env("CNI_NETNS").ok()),
                "DEL" => drop(del.env("CNI_NETNS", "/nowhere/at/all").ok()),
                _ => {
                    let valid = json!([{"containerID": "c2", "ifname": "eth0"}]);
                    Call::node(&lab, "GC").key("cni.dev/valid-attachments", valid).ok();
                }
            }
            // then nothing of it is left, and the other pod is as it was
            assert_eq!(shaped_devices(&lab), ["veth0"], "{case}");
            assert_eq!(lab.hook_kind("uplink0"), None, "{case}");
            assert_limits(&other, way, &other.eth0, 10 * M, &other);
            other_add.verb("DEL").ok();
            assert_nothing_left(&pod, &case);
        }
    }
}

/// How many IFBs of pods that nobody knows nothing redirects to, by the node agent's look.
const LEAKS: &str = "POD_BANDWIDTH_LEAKS";

#[test]
fn an_ifb_whose_host_interface_was_renamed_is_no_leak_while_a_filter_redirects_to_it() {
    if std::env::var(LEAKS).is_ok() {
        let found = Socket::open().and_then(|mut host| leaks(&mut host, &BTreeSet::new()));
        println!("\nleaks: {}", found.unwrap().len());
        return;
    }
    let Some(lab) = Lab::open() else { return };
    let count = || {
        let looked = common::start_test_again(&lab, LEAKS, "count").wait_with_output().unwrap();
        let text = String::from_utf8(looked.stdout).unwrap();
        text.lines().find_map(|line| line.strip_prefix("leaks: ").map(str::to_owned)).expect(&text)
    };
    let pod = lab.pod("veth0");
    add(&pod, Way::Root).ok();
    rename(&lab, "veth0", "uplink0");
    assert_eq!(count(), "0");
    lab.sh("ip link del uplink0");
    assert_eq!(count(), "1");
}

/// Moves `eth0` of `pod` into the namespace `vm`, and sets it up there.
fn move_into(pod: &Pod, vm: &Ns) {
    pod.sh(&format!("ip link set eth0 netns {}", vm.pid));
    vm.script(&format!(
        "ip addr add {}/30 dev eth0
         ip link set eth0 up",
        pod.eth0.pod_v4
    ));
    wait_for_the_network(vm, &pod.eth0);
}

#[test]
fn an_interface_that_is_moved_to_another_namespace_keeps_its_limit_on_the_host() {
    for way in [Way::Root, Way::Hooks] {
        for stand_in in [false, true] {
            let Some(lab) = Lab::open() else { return };
            let (pod, vm) = (lab.pod("veth0"), lab.empty_pod());
            let add = add(&pod, way);
            add.ok();
            move_into(&pod, &vm);
            if stand_in {
                pod.sh("ip link add eth0 type bridge");
            }
            assert_verbs(&pod, way, &add, &pod.eth0, &vm);
        }
    }
}

#[test]
fn an_interface_that_is_moved_and_whose_host_end_is_renamed_keeps_its_limit() {
    for way in [Way::Root, Way::Hooks] {
        let Some(lab) = Lab::open() else { return };
        let (pod, vm) = (lab.pod("veth0"), lab.empty_pod());
        let add = add(&pod, way);
        add.ok();
        move_into(&pod, &vm);
        rename(&lab, "veth0", "uplink0");
        let renamed = Interface { host: "uplink0".to_owned(), ..pod.eth0.clone() };
        assert_verbs(&pod, way, &add, &renamed, &vm);
    }
}

#[test]
fn an_interface_that_is_moved_loses_a_limit_inside_the_pod_and_check_says_so() {
    let Some(lab) = Lab::open() else { return };
    let (pod, vm) = (lab.pod("veth0"), lab.empty_pod());
    let add = add(&pod, Way::Pod);
    add.ok();
    // given a move, at which the kernel removes all qdiscs of the interface
    move_into(&pod, &vm);
    add.clone().verb("CHECK").run().error(105).says(&["eth0"]);
    add.verb("DEL").ok();
}

#[test]
fn an_interface_that_is_moved_cannot_be_limited_inside_the_pod() {
    let Some(lab) = Lab::open() else { return };
    let (pod, vm) = (lab.pod("veth0"), lab.empty_pod());
    let on_the_host = add(&pod, Way::Root);
    let inside = add(&pod, Way::Pod);
    on_the_host.ok();
    move_into(&pod, &vm);
    let before = Snapshot::of(&[&lab, &pod]);
    inside.error(101).says(&["moved", "host"]);
    inside.clone().verb("CHECK").error(102).says(&["moved"]);
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "refused");
    inside.verb("DEL").ok();
    assert_nothing_left(&pod, "DEL");
}

#[test]
fn interfaces_that_have_swapped_their_names_keep_their_own_limits() {
    for way in Way::ALL {
        for (to_pod, from_pod) in [("10M", "10M"), ("10M", "")] {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{way:?}, {to_pod:?}, {from_pod:?}");
            // given two attachments, of two networks
            let pod = lab.pod("veth0");
            let net1 = pod.interface("net1", "veth1");
            let eth0_add = Call::add(&pod).way(way).limits(to_pod, from_pod);
            let net1_add = Call::add(&pod).interface(&pod, &net1).network("other").way(way);
            let net1_add = net1_add.limits("20M", "20M");
            eth0_add.ok();
            net1_add.ok();
            // when their interfaces take each other's names
            rename(&pod, "eth0", "swap");
            rename(&pod, "net1", "eth0");
            rename(&pod, "swap", "net1");
            let eth0 = Interface { name: "net1".to_owned(), ..pod.eth0.clone() };
            let net1 = Interface { name: "eth0".to_owned(), ..net1 };
            let rates = |at| Shape::at(&pod, way, at).rates();
            let only = |rate| if from_pod.is_empty() { (rate, 0) } else { (rate, rate) };
            // then each verb is about the link of its own attachment
            check(&eth0_add);
            check(&net1_add);
            let raise =
                eth0_add.clone().limits("50M", if from_pod.is_empty() { "" } else { "50M" });
            raise.ok();
            assert_eq!((rates(&eth0), rates(&net1)), (only(50 * M), (20 * M, 20 * M)), "{case}");
            net1_add.ok();
            assert_eq!((rates(&eth0), rates(&net1)), (only(50 * M), (20 * M, 20 * M)), "{case}");
            raise.clone().verb("CHECK").ok();
            net1_add.clone().verb("CHECK").ok();
            eth0_add.verb("DEL").ok();
            assert_eq!((rates(&eth0), rates(&net1)), ((0, 0), (20 * M, 20 * M)), "{case}");
            net1_add.verb("DEL").ok();
            assert_nothing_left(&pod, &case);
        }
    }
}

#[test]
fn interfaces_that_have_swapped_their_names_are_known_by_their_ifbs_too() {
    for way in [Way::Root, Way::Hooks] {
        let Some(lab) = Lab::open() else { return };
        // given two attachments whose plugins name no interface in their results
        let pod = lab.pod("veth0");
        let net1 = pod.interface("net1", "veth1");
        let eth0_add = add(&pod, way).key("prevResult", json!({"cniVersion": "1.0.0"}));
        let net1_add = eth0_add.clone().env("CNI_IFNAME", "net1").limits("20M", "20M");
        eth0_add.ok();
        net1_add.ok();
        rename(&pod, "eth0", "swap");
        rename(&pod, "net1", "eth0");
        rename(&pod, "swap", "net1");
        // when the first is changed, then the second keeps its limit
        eth0_add.clone().limits("50M", "50M").ok();
        assert_eq!(Shape::at(&pod, way, &pod.eth0).rates(), (50 * M, 50 * M), "{way:?}");
        assert_eq!(Shape::at(&pod, way, &net1).rates(), (20 * M, 20 * M), "{way:?}");
        eth0_add.verb("DEL").ok();
        assert_eq!(Shape::at(&pod, way, &net1).rates(), (20 * M, 20 * M), "{way:?}");
    }
}

#[test]
fn host_interfaces_of_two_pods_that_have_swapped_their_names_keep_their_own_limits() {
    for way in [Way::Root, Way::Hooks] {
        for (to_pod, from_pod) in [("10M", "20M"), ("10M", "")] {
            let Some(lab) = Lab::open() else { return };
            let (one, two) = (lab.pod("veth0"), lab.pod("veth1"));
            let one_add = Call::add(&one).way(way).limits(to_pod, from_pod);
            let two_add = Call::add(&two).container("c2").way(way).limits("30M", "40M");
            one_add.ok();
            two_add.ok();
            rename(&lab, "veth0", "swap");
            rename(&lab, "veth1", "veth0");
            rename(&lab, "swap", "veth1");
            let at = Interface { host: "veth1".to_owned(), ..one.eth0.clone() };
            let other = Interface { host: "veth0".to_owned(), ..two.eth0.clone() };
            check(&one_add);
            one_add.clone().limits("50M", from_pod).ok();
            assert_eq!(Shape::at(&one, way, &at).rates().0, 50 * M, "{way:?}");
            assert_eq!(Shape::at(&two, way, &other).rates(), (30 * M, 40 * M), "{way:?}");
            one_add.verb("DEL").ok();
            assert_eq!(Shape::at(&one, way, &at).rates(), (0, 0), "{way:?}");
            assert_eq!(Shape::at(&two, way, &other).rates(), (30 * M, 40 * M), "{way:?}");
        }
    }
}

#[test]
fn a_veth_of_the_pod_that_nothing_names_is_another_attachments() {
    let Some(lab) = Lab::open() else { return };
    // given a pod with a limit on its second interface, and a first one that is not a veth
    let pod =
        lab.pod_with(common::PodSpec { name: "net1".to_owned(), ..common::PodSpec::host("veth1") });
    let net1_add = Call::add(&pod).interface(&pod, &pod.eth0).network("other").limits("20M", "20M");
    net1_add.ok();
    pod.sh("ip link add eth0 type bridge");
    let result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": pod.ns.path()}],
    });
    let before = Snapshot::of(&[&lab, &pod]);
    // when the first one is added
    let add = Call::add(&pod).env("CNI_IFNAME", "eth0").key("prevResult", result);
    let add = add.limits("10M", "10M");
    add.ok();
    // then it is limited itself, inside the pod
    let eth0 = Interface { name: "eth0".to_owned(), ..pod.eth0.clone() };
    assert_eq!(Shape::at(&pod, Way::Pod, &eth0).rates(), (10 * M, 10 * M));
    assert_eq!(Shape::at(&pod, Way::Root, &pod.eth0).rates(), (20 * M, 20 * M));
    add.clone().verb("CHECK").ok();
    // and where it is gone, nothing else is taken for it
    add.clone().verb("DEL").ok();
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "DEL");
    pod.sh("ip link del eth0");
    let before = Snapshot::of(&[&lab, &pod]);
    add.error(105).says(&["eth0"]);
    add.verb("DEL").ok();
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "without eth0");
}

#[test]
fn a_macvlan_with_a_veth_beside_it_is_limited_itself() {
    let Some(lab) = Lab::open() else { return };
    // given a plugin that makes a macvlan, and a veth for the node's own traffic, and names both
    let pod =
        lab.pod_with(common::PodSpec { name: "aux0".to_owned(), ..common::PodSpec::host("veth1") });
    lab.script(&format!(
        "ip link add parent0 type veth peer name parent1
         ip link add link parent0 name mac0 type macvlan mode bridge
         ip link set mac0 netns {} name eth0",
        pod.pid
    ));
    let result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": pod.ns.path()}],
    });
    let add = Call::add(&pod).env("CNI_IFNAME", "eth0").key("prevResult", result);
    let add = add.limits("10M", "10M");
    for verb in ["ADD", "ADD", "CHECK"] {
        add.clone().verb(verb).ok();
        let eth0 = Interface { name: "eth0".to_owned(), ..pod.eth0.clone() };
        assert_eq!(Shape::at(&pod, Way::Pod, &eth0).rates(), (10 * M, 10 * M), "{verb}");
        assert_eq!(shaped_devices(&lab), Vec::<String>::new(), "{verb}");
    }
    add.verb("DEL").ok();
    assert_nothing_left(&pod, "DEL");
}

#[test]
fn a_pod_cannot_lead_a_limit_to_its_other_interface() {
    let Some(lab) = Lab::open() else { return };
    // given a pod with two interfaces, limited on the first one to the pod alone: no IFB is on the host
    let pod = lab.pod("veth0");
    pod.interface("net1", "veth1");
    let add = Call::add(&pod).way(Way::Root).limits("10M", "");
    add.ok();
    // when it renames the first, and makes the second look as if it were limited for the first
    let from_pod = lab.pod("veth2");
    Call::add(&from_pod).way(Way::Pod).limits("10M", "10M").ok();
    let ifb = from_pod.ifbs().pop().expect("one for the way to the pod");
    rename(&pod, "eth0", "hidden");
    let cookie = from_pod.filters("eth0", "ingress")[0].cookie.clone().expect("ours has one");
    pod.script(&format!(
        "ip link add {ifb} type ifb
         ip link set {ifb} up
         tc qdisc add dev net1 clsact
         tc filter add dev net1 ingress protocol all pref 65535 u32 match u32 0 0 \
            action mirred egress redirect dev {ifb} cookie {cookie}"
    ));
    // then the limit stays at the first
    add.clone().limits("50M", "").ok();
    assert_eq!(Shape::at(&pod, Way::Root, &pod.eth0).rates(), (50 * M, 0));
    assert_eq!(shaped_devices(&lab), ["veth0"]);
}

#[test]
fn the_old_name_of_a_host_interface_that_another_pod_has_now_is_not_followed() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        // given a pod whose host interface is gone, and another pod with its name and a limit
        let pod = lab.pod("veth0");
        let add = add(&pod, way);
        lab.sh("ip link del veth0");
        let other = lab.pod("veth0");
        let other_add = Call::add(&other).container("c2").way(way).limits("20M", "20M");
        other_add.ok();
        let before = Snapshot::of(&[&lab, &pod, &other]);
        // when the verbs come for the first one, then nothing is done to the other
        add.error(105).says(&["eth0"]);
        add.clone().verb("CHECK").error(105);
        add.verb("DEL").ok();
        before.assert_same(&Snapshot::of(&[&lab, &pod, &other]), &format!("{way:?}"));
    }
}
