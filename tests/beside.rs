//! Neighbours at work: programs that count, guard, sandbox or configure the same interfaces, before
//! and after us. (Foreign things that only lie there: neighbours.rs. Calico's Felix: felix.rs.)
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::{
    Call, Direction, Flow, Lab, Ns, PLUGIN, Pod, Shape, Snapshot, TempDir, Traffic, Way,
    assert_drops_the_port, require_peer,
};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

fn add(pod: &Pod) -> Call {
    Call::add(pod).limits("10M", "20M")
}

/// Steady bits per second to the pod and from it, both at the same time.
fn measured(lab: &Ns, pod: &Ns, host_v4: &str, pod_v4: &str) -> (f64, f64) {
    let traffic = Traffic { duration: Duration::from_millis(2_500), ..Traffic::default() };
    let mut to_pod = Flow::start(lab, pod, pod_v4, &traffic);
    let mut from_pod = Flow::start(pod, lab, host_v4, &traffic);
    to_pod.until(traffic.duration);
    from_pod.until(traffic.duration);
    (to_pod.throughput().steady_bits, from_pod.throughput().steady_bits)
}

/// 10M and 20M hold. Below a tenth nothing passes; between the two a busy machine decides. A limit
/// that is gone shows as 100 Mbit/s or more.
fn assert_limits_hold(lab: &Ns, pod: &Ns, host_v4: &str, pod_v4: &str, case: &str) {
    let (to_pod, from_pod) = measured(lab, pod, host_v4, pod_v4);
    assert!((1e6..12e6).contains(&to_pod), "{case}: {to_pod:.0} bit/s to the pod");
    assert!((2e6..24e6).contains(&from_pod), "{case}: {from_pod:.0} bit/s from the pod");
}

fn assert_holds(lab: &Lab, pod: &Pod, case: &str) {
    assert_limits_hold(lab, pod, &pod.eth0.host_v4, &pod.eth0.pod_v4, case);
}

// ---- programs that count -------------------------------------------------------------------

/// A counter of all packets that goes on to the next filter, as flow observers attach it. Its
/// action is a mirror into a device that throws away: not every kernel has gact.
const COUNT: &str = "tc filter add dev veth0 ingress pref 1 protocol all u32 match u32 0 0 \
    action mirred egress mirror dev sink continue";

fn counted(lab: &Lab) -> u64 {
    let shown = lab.json(&["tc", "-s", "-j", "filter", "show", "dev", "veth0", "ingress"]);
    let all = shown.as_array().unwrap().iter();
    let mut counters = all
        .filter(|filter| filter["pref"] == 1)
        .filter_map(|filter| filter["options"]["actions"][0]["stats"]["packets"].as_u64());
    counters.next().expect("the counting filter is there")
}

fn lab_with_sink() -> Option<Lab> {
    let lab = Lab::open()?;
    lab.script("ip link add sink type ifb\n ip link set sink up");
    Some(lab)
}

#[test]
fn a_program_that_counted_before_us_counts_on_and_keeps_its_things() {
    for hook in ["ingress", "clsact"] {
        let Some(lab) = lab_with_sink() else { return };
        let pod = lab.pod("veth0");
        lab.sh(&format!("tc qdisc add dev veth0 {hook}"));
        lab.sh(COUNT);
        let before = state(&pod);
        add(&pod).ok();
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M), "{hook}");
        let then = counted(&lab);
        assert_holds(&lab, &pod, hook);
        assert!(counted(&lab) > then + 100, "{hook}: it counts on");
        add(&pod).verb("CHECK").ok();
        add(&pod).verb("DEL").ok();
        before.assert_same(&state(&pod), hook);
    }
}

#[test]
fn a_program_that_counts_after_us_gets_its_filter_in_and_keeps_it() {
    for way in [Way::Root, Way::Hooks] {
        let Some(lab) = lab_with_sink() else { return };
        let pod = lab.pod("veth0");
        let call = add(&pod).way(way);
        call.ok();
        // given that a plain ingress qdisc is refused beside our clsact, as the kernel does it
        let refused = lab.attempt(&["tc", "qdisc", "add", "dev", "veth0", "ingress"]);
        assert!(!refused.status.success(), "{way:?}: {refused:?}");
        // and so is a second clsact, which libbpf takes for success
        let refused = lab.attempt(&["tc", "qdisc", "add", "dev", "veth0", "clsact"]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("xclusivity"), "{refused:?}");
        // when the filter is added to what is there
        lab.sh(COUNT);
        // then it counts, and the limits hold
        let then = counted(&lab);
        assert_holds(&lab, &pod, &format!("{way:?}"));
        assert!(counted(&lab) > then + 100, "{way:?}: it counts");
        call.clone().verb("CHECK").ok();
        call.ok();
        // and it stays when we go, with the hook that it is on
        call.verb("DEL").ok();
        let then = counted(&lab);
        assert_eq!(pod.ping(&pod.eth0.host_v4, 1, Duration::from_secs(1)).received, 1);
        assert!(counted(&lab) > then, "{way:?}: it counts on");
        assert!(lab.filters("veth0", "ingress").iter().all(|f| !f.is_ours()), "{way:?}");
        assert_eq!(lab.root("veth0").handle, "0:", "{way:?}");
    }
}

#[test]
fn a_hook_that_comes_between_two_adds_is_used_and_stays() {
    for hook in ["ingress", "clsact"] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        // given a limit that needs no hook, and then a program that makes one
        add(&pod).limits("10M", "").ok();
        lab.sh(&format!("tc qdisc add dev veth0 {hook}"));
        // when a limit comes that needs one
        add(&pod).ok();
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M), "{hook}");
        add(&pod).verb("DEL").ok();
        assert_eq!(lab.hook_kind("veth0").as_deref(), Some(hook), "it is not ours");
    }
}

/// A mirror of every packet that, as mirrors do unless told otherwise, ends the walk through the
/// filters.
const MIRROR: &str = "tc filter add dev veth0 ingress pref 1 protocol all u32 match u32 0 0 \
    action mirred egress mirror dev sink";

#[test]
fn behind_a_filter_that_takes_every_packet_no_limit_is_pretended() {
    let Some(lab) = lab_with_sink() else { return };
    // given a mirror before us: a filter of ours behind it would never be asked
    let pod = lab.pod("veth0");
    lab.script(&format!("tc qdisc add dev veth0 clsact\n{MIRROR}"));
    let before = state(&pod);
    // then auto goes round it
    add(&pod).ok();
    assert_holds(&lab, &pod, "auto");
    add(&pod).verb("DEL").ok();
    before.assert_same(&state(&pod), "auto, DEL");
    // and who insists on the host is told
    for way in [Way::Root, Way::Hooks] {
        add(&pod).way(way).error(101).says(&["veth0", "takes every packet"]);
        before.assert_same(&state(&pod), &format!("{way:?}"));
    }
    // and one that comes after us is seen by CHECK
    lab.sh("tc filter del dev veth0 ingress pref 1");
    add(&pod).way(Way::Root).ok();
    lab.sh(MIRROR);
    add(&pod).way(Way::Root).verb("CHECK").error(102);
}

// ---- programs that guard -------------------------------------------------------------------

/// Classic BPF: IPv4, UDP, first fragment, destination port [`DROPPED_PORT`]: match.
const MATCH_PORT: &str = "9,40 0 0 12,21 0 6 2048,48 0 0 23,21 0 4 17,177 0 0 14,72 0 0 16,\
    21 0 1 9999,6 0 0 4294967295,6 0 0 0,";

/// A policy program that drops one port: what it matches goes to a device that is down.
fn guard(lab: &Lab) {
    lab.script("ip link add grave type ifb\n ip link set grave up");
    let words = "tc filter add dev veth0 ingress pref 1 protocol all bpf bytecode CODE \
        action mirred egress redirect dev grave";
    let words: Vec<&str> = words.split_whitespace().collect();
    let words: Vec<&str> =
        words.iter().map(|w| if *w == "CODE" { MATCH_PORT } else { w }).collect();
    lab.run(&words);
    lab.sh("ip link set grave down");
}

#[test]
fn a_policy_program_that_was_there_before_us_still_drops() {
    let Some(lab) = Lab::open() else { return };
    if require_peer("bash").is_none() {
        return;
    }
    let pod = lab.pod("veth0");
    lab.sh("tc qdisc add dev veth0 clsact");
    guard(&lab);
    let before = state(&pod);
    assert_drops_the_port(&lab, &pod, "alone");
    // Without any configuration, and where pod placement is written.
    for placement in ["auto", "pod"] {
        let call = add(&pod).key("placement", json!(placement));
        call.ok();
        assert_eq!(Shape::of(&pod, Way::Pod).rates(), (10 * M, 20 * M), "{placement}");
        assert_drops_the_port(&lab, &pod, placement);
        assert_holds(&lab, &pod, placement);
        call.verb("DEL").ok();
        before.assert_same(&state(&pod), placement);
    }
    // On the host it is refused.
    add(&pod).key("placement", json!("host")).error(101).says(&["BPF"]);
    assert_drops_the_port(&lab, &pod, "host, refused");
}

#[test]
fn a_policy_program_that_comes_after_us_drops_in_every_placement() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        if require_peer("bash").is_none() {
            return;
        }
        let pod = lab.pod("veth0");
        let call = add(&pod).way(way);
        call.ok();
        // Our filters are the last ones, so every program is asked before them.
        lab.attempt(&["tc", "qdisc", "add", "dev", "veth0", "clsact"]);
        guard(&lab);
        assert_drops_the_port(&lab, &pod, &format!("{way:?}"));
        assert_holds(&lab, &pod, &format!("{way:?}"));
        call.verb("DEL").ok();
        assert_drops_the_port(&lab, &pod, &format!("{way:?}, DEL"));
    }
}

// ---- sandboxed runtimes --------------------------------------------------------------------

/// What Kata does in the pod's namespace after ADD: a tap with redirects to and from eth0, which has
/// no address any more. Here the tap's other end is in a guest namespace.
fn kata(pod: &Pod, guest: &Pod) -> bool {
    let hook = pod.attempt(&["tc", "qdisc", "add", "dev", "eth0", "ingress"]);
    if !hook.status.success() {
        return false;
    }
    let (mac, pid) = (pod.mac("eth0"), guest.ns.pid.to_string());
    pod.run(&[
        "ip",
        "link",
        "add",
        "tap0_kata",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        &pid,
    ]);
    pod.sh("ip link set tap0_kata up");
    guest.run(&["ip", "link", "set", "eth0", "address", &mac]);
    guest.run(&["ip", "addr", "add", &format!("{}/30", pod.eth0.pod_v4), "dev", "eth0"]);
    guest.sh("ip link set eth0 up");
    pod.script("ip addr flush dev eth0\n tc qdisc add dev tap0_kata ingress");
    for (from, to) in [("eth0", "tap0_kata"), ("tap0_kata", "eth0")] {
        pod.sh(&format!(
            "tc filter add dev {from} ingress protocol all u32 match u8 0 0 \
             action mirred egress redirect dev {to}"
        ));
    }
    true
}

#[test]
fn kata_starts_and_is_held_where_the_limit_is_on_the_host_and_does_not_start_beside_pod_placement()
{
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let (pod, guest) = (lab.pod("veth0"), lab.empty_pod());
        let call = add(&pod).way(way);
        call.ok();
        let started = kata(&pod, &guest);
        assert_eq!(started, way != Way::Pod, "{way:?}");
        if started {
            let (host, inside) = (&pod.eth0.host_v4, &pod.eth0.pod_v4);
            assert_limits_hold(&lab, &guest, host, inside, &format!("{way:?}, Kata's guest"));
            call.clone().verb("CHECK").ok();
        }
        call.verb("DEL").ok();
        assert!(lab.ifbs().is_empty() && pod.ifbs().is_empty(), "{way:?}");
        assert_eq!(pod.hook_kind("eth0").is_some(), started, "{way:?}: Kata's hook stays");
    }
}

// ---- portmap and tuning in the chain -------------------------------------------------------

/// ptp, then these, run by cnitool.
fn chain(lab: &Lab, after_ptp: &[Value]) -> Option<(TempDir, Vec<(&'static str, String)>)> {
    let folder = TempDir::new();
    for name in ["ptp", "host-local", "portmap", "tuning"] {
        std::os::unix::fs::symlink(require_peer(name)?, folder.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink(PLUGIN, folder.path().join("pod-bandwidth")).unwrap();
    let ipam = json!({
        "type": "host-local", "subnet": "10.99.0.0/24", "dataDir": folder.file("ipam"),
    });
    let plugins = [&[json!({"type": "ptp", "ipam": ipam})], after_ptp].concat();
    let list = json!({"cniVersion": "1.0.0", "name": "chained", "plugins": plugins});
    std::fs::write(folder.path().join("10-chained.conflist"), list.to_string()).unwrap();
    lab.private_folder("/var/lib/cni");
    let capabilities = json!({
        "bandwidth": {"ingressRate": 10 * M, "ingressBurst": 4_294_967_295_u64},
        "io.kubernetes.cri.pod-annotations": {"kubernetes.io/egress-bandwidth": "20M"},
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    });
    let path = folder.path().to_str().unwrap().to_owned();
    let environment = vec![
        ("CNI_PATH", path.clone()),
        ("NETCONFPATH", path),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CAP_ARGS", capabilities.to_string()),
        // portmap calls nft, or iptables, and tuning keeps what it changed.
        ("PATH", "/usr/sbin:/sbin:/usr/bin:/bin".to_owned()),
    ];
    Some((folder, environment))
}

#[test]
fn portmap_and_tuning_before_and_after_us_in_the_chain() {
    let ours = json!({
        "type": "pod-bandwidth",
        "capabilities": {"bandwidth": true, "io.kubernetes.cri.pod-annotations": true},
    });
    let tuning = json!({
        "type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "promisc": true,
    });
    // Without nft there is nothing that a mapping could be made of; then it passes the chain only.
    let mut portmap = json!({"type": "portmap", "backend": "nftables"});
    if require_peer("nft").is_some() {
        portmap["capabilities"] = json!({"portMappings": true});
    }
    let Some(cnitool) = require_peer("cnitool") else { return };
    let cnitool = cnitool.to_str().unwrap();
    for (case, order) in [
        ("before", [&portmap, &tuning, &ours]),
        ("after", [&ours, &portmap, &tuning]),
        ("between", [&tuning, &ours, &portmap]),
    ] {
        let Some(lab) = Lab::open() else { return };
        lab.private_folder("/run/cni");
        let Some((_folder, environment)) = chain(&lab, &order.map(Value::clone)) else { return };
        let mut pod = lab.empty_pod();
        let run = |verb: &str| {
            let argv = [cnitool, verb, "chained", &pod.ns.path()];
            let output =
                lab.command(&argv).env_clear().envs(environment.iter().cloned()).output().unwrap();
            assert!(output.status.success(), "{case}, {verb}: {output:#?}");
            serde_json::from_slice::<Value>(&output.stdout).unwrap_or(Value::Null)
        };
        let result = run("add");
        let gateway = result["ips"][0]["gateway"].as_str().unwrap().to_owned();
        let address = result["ips"][0]["address"].as_str().unwrap().to_owned();
        let host = result["interfaces"][0]["name"].as_str().unwrap().to_owned();
        run("check");
        pod.eth0.host = host;
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M), "{case}");
        assert!(Way::Root.queue_device(&pod, &pod.eth0, Direction::FromPod).is_some());
        let address = address.split('/').next().unwrap();
        assert_limits_hold(&lab, &pod, &gateway, address, case);
        let run = |verb: &str| {
            let argv = [cnitool, verb, "chained", &pod.ns.path()];
            lab.command(&argv).env_clear().envs(environment.iter().cloned()).output().unwrap()
        };
        let output = run("del");
        assert!(output.status.success(), "{case}, del: {output:#?}");
        assert!(lab.ifbs().is_empty() && lab.link(&pod.eth0.host).is_none(), "{case}");
    }
}
