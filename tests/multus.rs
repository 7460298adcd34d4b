//! Several networks on one pod, as Multus makes them: one container ID and one namespace, a list of
//! plugins of its own for each interface, ours in each, with limits that come by different channels.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{Flow, Interface, Lab, Ns, PLUGIN, Pod, Shape, TempDir, Traffic, Way};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

/// Parts of the limit, in payload. Wide, because this says whose limit it is; how exact a limit is
/// says tests/measured.rs, with nothing running beside it.
const STEADY: std::ops::RangeInclusive<f64> = 0.8..=1.1;

/// One network: its list, and what the caller hands over for it.
struct Network {
    name: &'static str,
    ifname: &'static str,
    capabilities: Value,
    /// To the pod and from it, bit/s.
    rates: (u64, u64),
    way: Way,
    list: Value,
}

/// eth0 by ptp with the pod's annotations, net1 by bridge with the rates that Multus takes from a
/// network's selection, net2 by macvlan with static keys. None asks for a placement.
fn networks(folder: &TempDir) -> [Network; 3] {
    let ipam = |subnet: &str| {
        json!({
            "type": "host-local",
            "ranges": [[{"subnet": format!("{subnet}.0/24"), "rangeStart": format!("{subnet}.10")}]],
            "dataDir": folder.file("ipam"),
        })
    };
    let list = |name: &str, main: Value, keys: Value| {
        let mut ours = json!({
            "type": "pod-bandwidth",
            "capabilities": {"bandwidth": true, "io.kubernetes.cri.pod-annotations": true},
        });
        ours.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        json!({"cniVersion": "1.0.0", "name": name, "plugins": [main, ours]})
    };
    let ptp = json!({"type": "ptp", "ipam": ipam("10.95.0")});
    let bridge = json!({
        "type": "bridge", "bridge": "br1", "isGateway": true, "ipam": ipam("10.96.0"),
    });
    let macvlan = json!({
        "type": "macvlan", "master": "up0", "mode": "bridge", "ipam": ipam("10.97.0"),
    });
    let keys = json!({"ingressRate": 3 * M, "egressRate": 4 * M});
    [
        Network {
            name: "cluster",
            ifname: "eth0",
            capabilities: json!({"io.kubernetes.cri.pod-annotations": {
                "kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "20M",
            }}),
            rates: (10 * M, 20 * M),
            way: Way::Root,
            list: list("cluster", ptp, json!({})),
        },
        Network {
            name: "storage",
            ifname: "net1",
            capabilities: json!({"bandwidth": {
                "ingressRate": 5 * M, "ingressBurst": 4_294_967_295_u64,
                "egressRate": 8 * M, "egressBurst": 4_294_967_295_u64,
            }}),
            rates: (5 * M, 8 * M),
            way: Way::Root,
            list: list("storage", bridge, json!({})),
        },
        Network {
            name: "outside",
            ifname: "net2",
            capabilities: json!({}),
            rates: (3 * M, 4 * M),
            // macvlan has no host end: auto shapes inside the pod
            way: Way::Pod,
            list: list("outside", macvlan, keys),
        },
    ]
}

/// cnitool with the folder of lists and programs.
struct Caller {
    folder: TempDir,
    cnitool: PathBuf,
}

impl Caller {
    fn new(lab: &Lab) -> Option<Self> {
        let cnitool = common::require_peer("cnitool")?;
        let folder = TempDir::new();
        for name in ["ptp", "bridge", "macvlan", "host-local"] {
            let peer = common::require_peer(name)?;
            std::os::unix::fs::symlink(peer, folder.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink(PLUGIN, folder.path().join("pod-bandwidth")).unwrap();
        // cnitool keeps its results below /var/lib/cni: those of this lab stay in this lab.
        lab.private_folder("/var/lib/cni");
        Some(Self { folder, cnitool })
    }

    fn run(&self, lab: &Lab, verb: &str, network: &Network, pod: &Pod) -> Value {
        let file = self.folder.path().join(format!("{}.conflist", network.name));
        std::fs::write(file, network.list.to_string()).unwrap();
        let path = self.folder.path().to_str().unwrap().to_owned();
        let argv = [self.cnitool.to_str().unwrap(), verb, network.name, &pod.path()];
        let environment = [
            ("CNI_PATH", path.clone()),
            ("NETCONFPATH", path),
            ("CNI_IFNAME", network.ifname.to_owned()),
            ("CAP_ARGS", network.capabilities.to_string()),
        ];
        let output = lab.command(&argv).env_clear().envs(environment).output().unwrap();
        assert!(output.status.success(), "cnitool {verb} {}: {output:#?}", network.name);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }
}

/// The interface that a result is about, with the address that the other side has.
fn interface(network: &Network, lab: &Lab, pod: &Pod, result: &Value, other: &str) -> Interface {
    let address = result["ips"][0]["address"].as_str().unwrap();
    let inside = pod.link(network.ifname).unwrap();
    let outside = lab.links().into_iter().find(|link| {
        link["ifindex"] == inside["link_index"] && link["linkinfo"]["info_kind"] == "veth"
    });
    let host = outside.map_or(String::new(), |link| link["ifname"].as_str().unwrap().to_owned());
    Interface {
        // macvlan's own lower device is no host end
        host: if network.way == Way::Pod { String::new() } else { host },
        name: network.ifname.to_owned(),
        pod_v4: address.split('/').next().unwrap().to_owned(),
        host_v4: other.to_owned(),
        mtu: 1500,
        ..Interface::default()
    }
}

fn rates_of(networks: &[Network], pod: &Pod, interfaces: &[Interface]) -> Vec<(u64, u64)> {
    let each = networks.iter().zip(interfaces);
    each.map(|(network, at)| Shape::at(pod, network.way, at).rates()).collect()
}

#[test]
fn each_interface_of_a_pod_has_its_own_limits() {
    let Some(lab) = Lab::open() else { return };
    let Some(caller) = Caller::new(&lab) else { return };
    let networks = networks(&caller.folder);
    // given a node with an uplink for macvlan, and what is at its other end
    let beyond = lab.empty_pod();
    let beyond_pid = beyond.ns.pid.to_string();
    lab.sh(&format!("ip link add up0 type veth peer name up1 netns {beyond_pid}"));
    lab.sh("ip link set up0 up");
    beyond.script("ip link set up1 up\n ip addr add 10.97.0.1/24 dev up1");

    // when a pod gets all three networks
    let pod = lab.empty_pod();
    let mut interfaces = Vec::new();
    for (network, other) in networks.iter().zip(["10.95.0.1", "10.96.0.1", "10.97.0.1"]) {
        let result = caller.run(&lab, "add", network, &pod);
        let other = match result["ips"][0]["gateway"].as_str() {
            Some(gateway) if network.way != Way::Pod => gateway.to_owned(),
            _ => other.to_owned(),
        };
        interfaces.push(interface(network, &lab, &pod, &result, &other));
    }

    // then each has the limits of its own network, and CHECK agrees
    let expected: Vec<_> = networks.iter().map(|network| network.rates).collect();
    assert_eq!(rates_of(&networks, &pod, &interfaces), expected);
    for network in &networks {
        caller.run(&lab, "check", network, &pod);
    }

    // and traffic on all of them at once keeps to each one's own
    let ends: [&Ns; 3] = [&lab, &lab, &beyond];
    let limits = |pick: fn(&Network) -> u64| networks.iter().map(pick).collect::<Vec<_>>();
    let to_pod = |at: usize| Flow::start(ends[at], &pod, &interfaces[at].pod_v4, &traffic());
    assert_measured("to the pod", to_pod, &limits(|network| network.rates.0));
    let from_pod = |at: usize| Flow::start(&pod, ends[at], &interfaces[at].host_v4, &traffic());
    assert_measured("from the pod", from_pod, &limits(|network| network.rates.1));

    // and DEL of one leaves the limits of the others
    caller.run(&lab, "del", &networks[1], &pod);
    assert!(lab.link(&interfaces[1].host).is_none(), "net1's veth went with its network");
    for at in [0, 2] {
        let rates = Shape::at(&pod, networks[at].way, &interfaces[at]).rates();
        assert_eq!(rates, networks[at].rates, "{}", networks[at].name);
        caller.run(&lab, "check", &networks[at], &pod);
    }
    for at in [2, 0] {
        caller.run(&lab, "del", &networks[at], &pod);
    }
    assert!(lab.ifbs().is_empty() && pod.ifbs().is_empty(), "nothing is left");
}

fn traffic() -> Traffic {
    Traffic { duration: Duration::from_secs(4), ..Traffic::default() }
}

/// Starts a flow on each interface, and says what all got at the same time.
fn assert_measured(what: &str, start: impl Fn(usize) -> Flow, limits: &[u64]) {
    let mut flows: Vec<_> = (0..limits.len()).map(start).collect();
    for flow in &mut flows {
        flow.until(traffic().duration);
    }
    let parts =
        flows.iter().zip(limits).map(|(flow, &limit)| flow.throughput().steady_bits / limit as f64);
    let parts: Vec<_> = parts.collect();
    eprintln!("{what}: {parts:.3?} of {limits:?} bit/s");
    assert!(parts.iter().all(|part| STEADY.contains(part)), "{what}: {parts:.3?} of {limits:?}");
}
