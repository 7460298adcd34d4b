//! Virtual machines of KubeVirt: what its bindings make of a pod's interface, and the limit on it. KubeVirt
//! itself is not run. See docs/with-kubevirt.md.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
#[cfg(feature = "node")]
mod doctored;

use common::attached::{assert_limits, assert_nothing_left, assert_verbs, wait_for_the_network};
use common::{Call, Interface, Lab, Ns, Pod, Way};
use serde_json::json;

const M: u64 = 1_000_000;

/// The call as the runtime makes it at every verb: prevResult is the one of the first ADD.
fn add(pod: &Pod, way: Way) -> Call {
    Call::add(pod).way(way).limits("10M", "10M")
}

/// What KubeVirt's bridge binding makes of a pod's interface (bridgeBindingSpec in
/// pkg/network/setup/netpod/netpod.go, 1.9): it is renamed and becomes a port of a bridge, whose MAC
/// it gets; the virtual machine, on another port, has the pod's address and MAC; a stand-in keeps both
/// under the interface's name. The stand-in is a dummy there and a bridge here, which every kernel has;
/// the tap is a veth, with a namespace as the machine behind it.
fn bind_by_bridge(pod: &Pod, vm: &Ns) -> Interface {
    let (eth0, mac, vm_pid) = (&pod.eth0, pod.mac("eth0"), vm.pid);
    pod.sysctl("net.ipv4.conf.all.arp_ignore", "1");
    pod.script(
        "ip link add k6t-eth0 type bridge
         ip addr add 169.254.75.10/32 dev k6t-eth0
         ip link set k6t-eth0 up",
    );
    let bridge_mac = pod.mac("k6t-eth0");
    pod.script(&format!(
        "ip link set eth0 down
         ip addr flush dev eth0
         ip link set eth0 name eth0-nic
         ip link set eth0-nic address {bridge_mac}
         ip link set eth0-nic master k6t-eth0
         ip link set eth0-nic type bridge_slave learning off
         ip link set eth0-nic up
         ip link add tap0 index 200 type veth peer name eth0 netns {vm_pid}
         ip link set tap0 master k6t-eth0
         ip link set tap0 up
         ip link add eth0 address {mac} type bridge
         ip addr add {}/30 dev eth0",
        eth0.pod_v4
    ));
    vm.script(&format!(
        "ip link set eth0 address {mac}
         ip addr add {}/30 dev eth0
         ip link set eth0 up",
        eth0.pod_v4
    ));
    wait_for_the_network(vm, eth0);
    Interface { name: "eth0-nic".to_owned(), ..eth0.clone() }
}

#[test]
fn the_bridge_binding_of_kubevirt_keeps_the_limit_of_the_machine() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        // given a pod that is limited, and then a virtual machine bound to its interface by a bridge
        let (pod, vm) = (lab.pod("veth0"), lab.empty_pod());
        let add = add(&pod, way);
        add.ok();
        let bound = bind_by_bridge(&pod, &vm);
        // then the limit holds the machine, and the verbs find it
        assert_verbs(&pod, way, &add, &bound, &vm);
    }
}

#[test]
fn a_machine_that_is_bound_by_a_bridge_gets_its_first_limit_on_its_link() {
    // given a machine without a limit, whose interface a stand-in covers
    for (placement, way) in [("auto", Way::Root), ("host", Way::Root), ("pod", Way::Pod)] {
        let Some(lab) = Lab::open() else { return };
        let (pod, vm) = (lab.pod("veth0"), lab.empty_pod());
        let add = Call::add(&pod).key("placement", json!(placement)).limits("10M", "10M");
        let bound = bind_by_bridge(&pod, &vm);
        // when it is added
        add.ok();
        // then the machine is limited, and the stand-in has nothing
        assert_limits(&pod, way, &bound, 10 * M, &vm);
        add.clone().verb("CHECK").ok();
        add.verb("DEL").ok();
        assert_nothing_left(&pod, placement);
    }
}

#[test]
fn the_masquerade_binding_of_kubevirt_keeps_the_limit_of_the_machine() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let (pod, vm) = (lab.pod("veth0"), lab.empty_pod());
        let add = add(&pod, way);
        add.ok();
        // given what the masquerade binding makes (masqueradeBindingSpec in the same file): the interface
        // stays, and the machine is behind a bridge of its own. Routes stand for its NAT.
        pod.sysctl("net.ipv4.ip_forward", "1");
        pod.script(&format!(
            "ip link add k6t-eth0 address 02:00:00:00:00:00 type bridge
             ip addr add 10.0.2.1/24 dev k6t-eth0
             ip link set k6t-eth0 up
             ip link add tap0 index 200 type veth peer name eth0 netns {}
             ip link set tap0 master k6t-eth0
             ip link set tap0 up",
            vm.pid
        ));
        vm.script(
            "ip addr add 10.0.2.2/24 dev eth0
             ip link set eth0 up
             ip route add default via 10.0.2.1",
        );
        lab.sh(&format!("ip route add 10.0.2.0/24 via {}", pod.eth0.pod_v4));
        wait_for_the_network(&vm, &pod.eth0);
        // then the limit holds the machine, and the verbs find it
        add.clone().verb("CHECK").ok();
        assert_verbs(&pod, way, &add, &pod.eth0, &vm);
    }
}

#[test]
#[cfg(feature = "node")]
fn set_changes_the_limit_of_a_machine_that_is_bound_by_a_bridge() {
    for limits in [("10M", "10M"), ("", "")] {
        // given a machine that the runtime knows as a pod, with a limit from its ADD and without
        let Some(node) = doctored::Node::open() else { return };
        let (pod, vm) = (node.pod("vm", Way::Root, limits), node.lab.empty_pod());
        let bound = bind_by_bridge(&pod, &vm);
        // when a person sets another one
        let [cache, net] = ["cache", "net.d"].map(|name| node.folder.file(name));
        let set = [doctored::NODE, "set", "shop/vm", "--ingress", "50M", "--egress", "50M"];
        node.lab.run(&[&set[..], &["--cache-dir", &cache, "--net-dir", &net]].concat());
        // then it is on the machine's link
        assert_limits(&pod, Way::Root, &bound, 50 * M, &vm);
    }
}
