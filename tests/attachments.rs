//! Several interfaces, networks and pods at a time: nothing collides, GC takes only what it should,
//! and each IFB says whose it is and keeps quiet.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::{Duration, Instant};

use common::{Call, Lab, Ns, Pod, PodSpec, Shape, Snapshot, Way};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

#[test]
fn interfaces_of_one_pod_and_networks_do_not_collide() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        // given a pod with three interfaces: two on one network, one on another; and a second pod
        // with the same container ID on the other network's name for eth0
        let pod = lab.pod("veth0");
        let attachments = [
            ("net", pod.eth0.clone(), ("10M", "20M"), (10 * M, 20 * M)),
            ("net", pod.interface("net1", "veth1"), ("11M", "21M"), (11 * M, 21 * M)),
            ("other", pod.interface("net2", "veth2"), ("12M", "22M"), (12 * M, 22 * M)),
        ];
        let call = |at: usize| {
            let (network, interface, limits, _) = &attachments[at];
            let call = Call::add(&pod).interface(&pod, interface).network(network);
            call.way(way).limits(limits.0, limits.1)
        };
        let before = Snapshot::of(&[&lab, &pod]);
        // when each is added
        for at in 0..3 {
            call(at).ok();
        }
        // then each has its own limits and its own devices
        for (_, interface, _, rates) in &attachments {
            assert_eq!(Shape::at(&pod, way, interface).rates(), *rates, "{way:?} {interface:?}");
        }
        let per_interface = if way == Way::Hooks { 2 } else { 1 };
        assert_eq!(way.namespace(&pod).ifbs().len(), 3 * per_interface, "{way:?}");
        // and a DEL of one leaves the others alone
        call(1).verb("DEL").ok();
        assert_eq!(Shape::at(&pod, way, &attachments[0].1).rates(), attachments[0].3, "{way:?}");
        assert_eq!(Shape::at(&pod, way, &attachments[2].1).rates(), attachments[2].3, "{way:?}");
        assert_eq!(Shape::at(&pod, way, &attachments[1].1).rates(), (0, 0), "{way:?}");
        call(0).verb("CHECK").ok();
        call(0).verb("DEL").ok();
        call(2).verb("DEL").ok();
        before.assert_same(&Snapshot::of(&[&lab, &pod]), &format!("{way:?}"));
    }
}

#[test]
fn the_same_interface_name_in_two_networks_has_two_sets_of_devices() {
    let Some(lab) = Lab::open() else { return };
    // given two pods with the same container ID and interface name, on two networks
    let (one, two) = (lab.pod("veth0"), lab.pod("veth1"));
    let call = |pod: &Pod, network: &str| {
        Call::add(pod).network(network).way(Way::Hooks).limits("10M", "20M")
    };
    call(&one, "net").ok();
    call(&two, "net2").ok();
    assert_eq!(lab.ifbs().len(), 4);
    call(&one, "net").verb("DEL").ok();
    assert_eq!(Shape::of(&two, Way::Hooks).rates(), (10 * M, 20 * M));
    assert_eq!(lab.ifbs().len(), 2);
}

fn gc(lab: &Lab, network: &str, valid: &Value) -> Value {
    Call::node(lab, "GC").network(network).key("cni.dev/valid-attachments", valid.clone()).ok()
}

#[test]
fn gc_removes_what_is_ours_of_that_network_and_not_valid_and_nothing_else() {
    for way in [Way::Root, Way::Hooks] {
        let Some(lab) = Lab::open() else { return };
        let add = |pod: &Pod, network: &str, id: &str| {
            Call::add(pod).network(network).container(id).way(way).limits("10M", "20M").ok();
        };
        // given a valid pod, a pod of another network, and foreign things
        let pods = ["veth0", "veth1", "veth2", "veth3"].map(|host| lab.pod(host));
        add(&pods[0], "net", "valid");
        add(&pods[1], "other", "stale");
        lab.script(
            "ip link add bwp0123456789ab type ifb
             ip link add ifb7 type ifb
             ip link add pbeaaaaaaaaaaaa type ifb
             ip link set pbeaaaaaaaaaaaa alias somebody-else
             tc qdisc add dev veth2 clsact
             tc filter add dev veth2 ingress pref 7 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1",
        );
        let kept = Snapshot::of(&[&lab]);
        // and two pods that DEL never came for
        add(&pods[2], "net", "stale");
        add(&pods[3], "net", "valid2");

        // when GC comes with the valid ones: a container alone does not make an interface valid
        let valid = json!([
            {"containerID": "valid", "ifname": "eth0"},
            {"containerID": "valid2", "ifname": "net1"},
        ]);
        assert_eq!(gc(&lab, "net", &valid), Value::Null, "{way:?}");

        // then everything is as if those two had never been added
        kept.assert_same(&Snapshot::of(&[&lab]), &format!("{way:?}"));
        for pod in &pods[2..] {
            let pong = pod.ping(&pod.eth0.host_v4, 1, Duration::from_secs(1));
            assert_eq!(pong.received, 1, "{way:?}: the pod keeps its network");
        }
        // and a second GC finds nothing
        gc(&lab, "net", &valid);
        kept.assert_same(&Snapshot::of(&[&lab]), &format!("{way:?}, second GC"));
        // and one without valid attachments takes the rest of that network
        gc(&lab, "net", &json!([]));
        assert_eq!(Shape::of(&pods[0], way).rates(), (0, 0), "{way:?}");
        assert_eq!(Shape::of(&pods[1], way).rates(), (10 * M, 20 * M), "{way:?}");
    }
}

#[test]
fn gc_reads_the_older_name_of_the_list() {
    let Some(lab) = Lab::open() else { return };
    let (valid, stale) = (lab.pod("veth0"), lab.pod("veth1"));
    Call::add(&valid).container("valid").limits("10M", "20M").ok();
    Call::add(&stale).container("stale").limits("10M", "20M").ok();
    // libcni before 1.2.3 had another name than the specification (cni#1101); later ones send both.
    let list = json!([{"containerID": "valid", "ifname": "eth0"}]);
    Call::node(&lab, "GC").key("cni.dev/attachments", list).ok();
    assert_eq!(Shape::of(&valid, Way::Root).rates(), (10 * M, 20 * M));
    assert_eq!(Shape::of(&stale, Way::Root).rates(), (0, 0));
}

#[test]
fn gc_finds_the_ifb_of_a_pod_whose_veth_is_gone() {
    for way in [Way::Root, Way::Hooks] {
        let Some(lab) = Lab::open() else { return };
        let before = Snapshot::of(&[&lab]);
        let pod = lab.pod("veth0");
        Call::add(&pod).way(way).limits("10M", "20M").ok();
        lab.sh("ip link del veth0");
        assert!(!lab.ifbs().is_empty());
        gc(&lab, "net", &json!([]));
        before.assert_same(&Snapshot::of(&[&lab]), &format!("{way:?}"));
    }
}

#[test]
fn an_ifb_says_whose_it_is_and_has_an_mtu_that_keeps_ipv6_off() {
    for way in Way::ALL {
        for mtu in [1280, 1440, 1500, 9000, 65_535] {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{way:?}, MTU {mtu}");
            let pod = lab.pod_with(PodSpec { mtu, ..PodSpec::host("veth0") });
            Call::add(&pod).way(way).limits("10M", "20M").ok();
            let (ns, dev) = (way.namespace(&pod), way.device(&pod.eth0));
            let names = ns.ifbs();
            assert_eq!(names.len(), if way == Way::Hooks { 2 } else { 1 }, "{case}");
            for name in names {
                assert_eq!(
                    ns.alias(&name),
                    format!("pod-bandwidth net=net id=c1 if=eth0 dev={dev} pod=default/web-0"),
                    "{case}"
                );
                let link = ns.link(&name).unwrap();
                assert_eq!(link["mtu"], 1279, "{case}");
                assert_eq!(link["inet6_addr_gen_mode"], Value::Null, "{case}");
                assert_eq!(name.len(), 15, "{case}");
            }
        }
    }
}

/// Packets that `dev` was given to send: by its own stack they are dropped by the IFB, so both the
/// qdisc and the drops of the device count.
fn offered(ns: &Ns, dev: &str) -> u64 {
    let link = &common::items(ns.json(&["ip", "-s", "-j", "link", "show", "dev", dev]))[0];
    let counters = ["rx", "tx"].iter().flat_map(|side| {
        ["packets", "dropped", "errors"].map(|key| link["stats64"][side][key].as_u64().unwrap())
    });
    counters.sum::<u64>() + ns.qdisc_packets(dev)
}

#[test]
fn an_ifb_has_no_address_and_sends_nothing_of_its_own() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        // given a pod that sends nothing, with IPv6 on in the namespaces but for its veth pair
        let pod = lab.pod_with(PodSpec { ipv6: false, ..PodSpec::host("veth0") });
        Call::add(&pod).way(way).limits("10M", "20M").ok();
        let ns = way.namespace(&pod);
        let names = ns.ifbs();
        // and an IFB with address generation on, as any other program makes it
        ns.script("ip link add control type ifb\n ip link set control up");
        // when that one has said something (neighbour discovery, router solicitation)
        let patience = Instant::now() + Duration::from_secs(20);
        while offered(ns, "control") < 2 {
            assert!(Instant::now() < patience, "an IFB with an address sends something");
        }
        // then ours, which are older, have no address and have not
        assert!(!ns.addresses("control").is_empty());
        for name in names {
            assert_eq!(ns.addresses(&name), Vec::<Value>::new(), "{way:?}: {name}");
            assert_eq!(offered(ns, &name), 0, "{way:?}: {name}");
        }
    }
}
