//! Pods that fight their limit, interfaces that change under the plugin's hands, input that is too
//! much, and callers that may do nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use common::{
    Call, Family, Flow, Lab, Outcome, PLUGIN, Pod, SENDS, Shape, Snapshot, Strace, Traffic, Way,
    Wire,
};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

fn add(pod: &Pod, way: Way) -> Call {
    Call::add(pod).way(way).limits("10M", "10M")
}

// ---- traffic that goes round the limit -----------------------------------------------------

/// What a pod with CAP_NET_RAW can do: frames that its interface's qdisc never sees.
mod bypass {
    #![allow(unsafe_code, reason = "a packet socket with PACKET_QDISC_BYPASS has no safe name")]

    use std::process::Child;

    use common::Ns;
    use nix::libc;

    use super::common;

    const TARGET: &str = "POD_BANDWIDTH_BYPASS";

    /// Starts this test again inside the pod, as the sender: `eth0`, its own MAC and address, and
    /// those of the host.
    pub(super) fn start(pod: &Ns, target: &str) -> Child {
        common::start_test_again(pod, TARGET, target)
    }

    /// Sends for ever where [`start`] asked for it.
    pub(super) fn play_if_asked() {
        let Ok(target) = std::env::var(TARGET) else { return };
        let words: Vec<&str> = target.split(' ').collect();
        let [index, own_mac, host_mac, own, host] = words[..] else { panic!("{target}") };
        let frame = frame(own_mac, host_mac, own, host);
        // SAFETY: plain system calls; the pointers are to values that live through each call, with
        // their sizes.
        unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
            assert!(socket >= 0, "{}", std::io::Error::last_os_error());
            let on: libc::c_int = 1;
            let bypass = libc::setsockopt(
                socket,
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            );
            assert_eq!(bypass, 0, "{}", std::io::Error::last_os_error());
            let mut to: libc::sockaddr_ll = std::mem::zeroed();
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_ifindex = index.parse().unwrap();
            loop {
                libc::sendto(
                    socket,
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const to).cast(),
                    size_of_val(&to) as libc::socklen_t,
                );
            }
        }
    }

    /// A UDP packet to the discard port in a frame of 1442 bytes.
    fn frame(own_mac: &str, host_mac: &str, own: &str, host: &str) -> Vec<u8> {
        const IP_BYTES: u16 = 1428;
        let mac = |text: &str| -> Vec<u8> {
            text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
        };
        let address = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
        let mut ip = vec![0x45, 0];
        ip.extend(IP_BYTES.to_be_bytes());
        ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        ip.extend(address(own));
        ip.extend(address(host));
        let words = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum = words.sum::<u32>();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        // Without a UDP checksum.
        ip.extend([0, 9, 0, 9]);
        ip.extend((IP_BYTES - 20).to_be_bytes());
        ip.resize(usize::from(IP_BYTES), 0);
        [mac(host_mac), mac(own_mac), vec![8, 0], ip].concat()
    }

    /// Ends it.
    pub(super) fn stop(mut child: Child) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Bits that arrive on the host in the first second of a flood that no qdisc in the pod sees.
fn bypassed(lab: &Lab, pod: &Pod) -> f64 {
    let index = pod.link("eth0").unwrap()["ifindex"].to_string();
    let eth0 = &pod.eth0;
    let (own_mac, host_mac) = (pod.mac("eth0"), lab.mac(&eth0.host));
    let target = [&index, &own_mac, &host_mac, &eth0.pod_v4, &eth0.host_v4].map(String::as_str);
    let wire = Wire::watch(lab, Family::V4);
    let flood = bypass::start(pod, &target.join(" "));
    let bits = wire.first_second_bits();
    bypass::stop(flood);
    bits
}

#[test]
fn a_pod_that_sends_past_its_qdiscs_is_held_on_the_host_and_not_in_the_pod() {
    bypass::play_if_asked();
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        add(&pod, way).ok();
        let bits = bypassed(&lab, &pod);
        match way {
            // Cooperative: docs/placement.md says so.
            Way::Pod => assert!(bits > 30e6, "{way:?}: {bits:.0} bit/s under a limit of 10M"),
            // Wide, for a busy machine: the sender takes a whole processor.
            _ => assert!((0.2e6..15e6).contains(&bits), "{way:?}: {bits:.0} bit/s"),
        }
        println!("{way:?}: {:.1} Mbit/s past a limit of 10M", bits / 1e6);
    }
}

/// What a pod with CAP_NET_RAW can hear: a promiscuous packet socket, which takes packets in before
/// any hook of its interface.
mod tap {
    #![allow(unsafe_code, reason = "a promiscuous packet socket has no safe name")]

    use std::process::Child;
    use std::time::{Duration, Instant};

    use common::Ns;
    use nix::libc;

    use super::common;

    const TARGET: &str = "POD_BANDWIDTH_TAP";

    /// Starts this test again inside the pod, as the tap of the interface with this index.
    pub(super) fn start(pod: &Ns, index: &str) -> Child {
        common::start_test_again(pod, TARGET, index)
    }

    /// Says that it listens, and then the bits of the large packets of a second, from the first one
    /// on, where [`start`] asked for it.
    pub(super) fn play_if_asked() {
        let Ok(index) = std::env::var(TARGET) else { return };
        let socket = open(index.parse().unwrap());
        println!("\ntap: listening");
        let mut buffer = [0_u8; 64];
        let mut bytes = 0;
        let mut begin = None;
        while begin.is_none_or(|begin: Instant| begin.elapsed() < Duration::from_secs(1)) {
            // SAFETY: a plain system call; the buffer lives through it, with its size.
            let length = unsafe {
                let (at, room) = (buffer.as_mut_ptr().cast(), buffer.len());
                libc::recv(socket, at, room, libc::MSG_TRUNC)
            };
            let heard = u64::try_from(length);
            assert!(heard.is_ok(), "{}", std::io::Error::last_os_error());
            // Not the answers of the pod that nobody listens.
            if heard.unwrap() > 1_000 {
                begin.get_or_insert_with(Instant::now);
                bytes += heard.unwrap();
            }
        }
        println!("\ntap: {}", bytes * 8);
        std::process::exit(0);
    }

    /// A promiscuous packet socket that does not wait for ever.
    fn open(index: i32) -> libc::c_int {
        // SAFETY: plain system calls; the pointers are to values that live through each call, with
        // their sizes.
        unsafe {
            let all = libc::c_int::from((libc::ETH_P_ALL as u16).to_be());
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, all);
            assert!(socket >= 0, "{}", std::io::Error::last_os_error());
            let mut at: libc::sockaddr_ll = std::mem::zeroed();
            at.sll_family = libc::AF_PACKET as u16;
            at.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            at.sll_ifindex = index;
            let size = size_of_val(&at) as libc::socklen_t;
            let bound = libc::bind(socket, (&raw const at).cast(), size);
            assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
            let mut wish: libc::packet_mreq = std::mem::zeroed();
            wish.mr_ifindex = index;
            wish.mr_type = libc::PACKET_MR_PROMISC as u16;
            set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &wish);
            let patience = libc::timeval { tv_sec: 20, tv_usec: 0 };
            set(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience);
            socket
        }
    }

    fn set<T>(socket: libc::c_int, level: libc::c_int, name: libc::c_int, value: &T) {
        let size = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads `size` bytes of `value`, which lives through the call.
        let result = unsafe {
            libc::setsockopt(socket, level, name, std::ptr::from_ref(value).cast(), size)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

/// Bits that a tap in the pod hears in the first second of a flood of UDP to the pod.
fn tapped(lab: &Lab, pod: &Pod) -> f64 {
    let index = pod.link("eth0").unwrap()["ifindex"].to_string();
    let mut tap = tap::start(pod, &index);
    let lines = BufReader::new(tap.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = lines.filter_map(|line| line.strip_prefix("tap: ").map(str::to_owned));
    assert_eq!(said.next().as_deref(), Some("listening"));
    // Each carries eleven packets that the limit cuts apart.
    let flood = lab.flood_udp_gso(&pod.eth0.pod_v4, 1_448, 11 * 1_448);
    let bits = said.next();
    drop(flood);
    let _ = tap.kill();
    let _ = tap.wait();
    bits.expect("the tap counts").parse().unwrap()
}

#[test]
fn a_promiscuous_tap_hears_no_more_than_the_limit_on_the_host_and_all_in_the_pod() {
    tap::play_if_asked();
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        add(&pod, way).ok();
        let bits = tapped(&lab, &pod);
        match way {
            // Cooperative: docs/placement.md says so.
            Way::Pod => assert!(bits > 30e6, "{way:?}: {bits:.0} bit/s under a limit of 10M"),
            _ => assert!((1e6..10.8e6).contains(&bits), "{way:?}: {bits:.0} bit/s"),
        }
        println!("{way:?}: a tap hears {:.1} Mbit/s past a limit of 10M", bits / 1e6);
    }
}

/// What root inside a pod can do to its own interface.
const POD_DEEDS: &str = "
    ip link set eth0 promisc on
    ip link set eth0 mtu 9000
    ip link set eth0 txqueuelen 10000
    tc qdisc add dev eth0 root handle 7062: pfifo limit 10000
    tc qdisc del dev eth0 root
    tc qdisc replace dev eth0 root noqueue
    tc qdisc add dev eth0 clsact
    tc qdisc del dev eth0 clsact";

#[test]
fn what_root_in_the_pod_does_to_its_interface_does_not_touch_a_limit_on_the_host() {
    for way in [Way::Root, Way::Hooks] {
        let Some(lab) = Lab::open() else { return };
        // given a pod that is shaped on the host
        let pod = lab.pod("veth0");
        add(&pod, way).ok();
        let host = Snapshot::of(&[&lab]);
        // when it does what it can
        pod.script(POD_DEEDS);
        // then the host's side is as it was, and so are CHECK and the limit
        host.without(" / link").assert_same(&Snapshot::of(&[&lab]).without(" / link"), "deeds");
        add(&pod, way).verb("CHECK").ok();
        let traffic = Traffic { duration: Duration::from_millis(2_500), ..Traffic::default() };
        let mut to_pod = Flow::start(&lab, &pod, &pod.eth0.pod_v4, &traffic);
        let mut from_pod = Flow::start(&pod, &lab, &pod.eth0.host_v4, &traffic);
        for (flow, direction) in [(&mut to_pod, "to"), (&mut from_pod, "from")] {
            flow.until(traffic.duration);
            let bits = flow.throughput().steady_bits;
            // A busy machine may leave less than the limit; a limit that is gone shows as far more.
            assert!((1e6..10.5e6).contains(&bits), "{way:?}: {bits:.0} bit/s {direction} the pod");
        }
        add(&pod, way).verb("DEL").ok();
        assert!(lab.ifbs().is_empty(), "{way:?}");
    }
}

// ---- things that change between two requests -----------------------------------------------

/// What can happen to a pod's link while the plugin works on it.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Deleted,
    HostRenamed,
    PodRenamed,
    HostMoved,
    PodMoved,
}

impl Deed {
    const ALL: [Self; 5] =
        [Self::Deleted, Self::HostRenamed, Self::PodRenamed, Self::HostMoved, Self::PodMoved];

    fn apply(self, pod: &Pod, third: &Pod) {
        let host = &pod.host;
        match self {
            Self::Deleted => drop(host.sh("ip link del veth0")),
            Self::HostRenamed => drop(host.sh("ip link set veth0 name renamed0")),
            Self::PodRenamed => drop(pod.sh("ip link set eth0 name eth9")),
            Self::HostMoved => {
                host.run(&["ip", "link", "set", "veth0", "netns", &third.ns.pid.to_string()]);
            }
            Self::PodMoved => {
                pod.run(&["ip", "link", "set", "eth0", "netns", &third.ns.pid.to_string()]);
            }
        }
    }
}

/// It ended with a result, or with an error that says something.
fn assert_ended(outcome: &Outcome, case: &str) {
    assert!([Some(0), Some(1)].contains(&outcome.status), "{case}: {outcome:#?}");
    if outcome.status == Some(1) {
        let json: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let code = json["code"].as_u64().unwrap();
        assert!([100, 101, 105].contains(&code), "{case}: {outcome:#?}");
    }
}

/// The call, with each deed done at each of its requests in turn; then a DEL, after which nothing of
/// ours is on the host, and a second pod is as it was.
fn each_deed(verb: &str) {
    let Some(strace) = Strace::find() else { return };
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let (third, bystander) = (lab.empty_pod(), lab.pod("veth9"));
        add(&bystander, way).container("bystander").ok();
        let kept = state(&bystander);
        let prepared = || {
            let pod = lab.pod("veth0");
            if verb == "DEL" {
                add(&pod, way).ok();
            }
            pod
        };
        let pod = prepared();
        let requests = strace.count(&add(&pod, way).verb(verb), SENDS);
        add(&pod, way).verb("DEL").ok();
        lab.sh("ip link del veth0");
        for (at, deed) in (1..=requests).flat_map(|at| Deed::ALL.map(|deed| (at, deed))) {
            let case = format!("{way:?}: {deed:?} after request {at} of {requests} of {verb}");
            // given a link that changes while the plugin is at work
            let pod = prepared();
            let call = add(&pod, way).verb(verb);
            let begin = Instant::now();
            let outcome = strace.stopped(&call, SENDS, at, || deed.apply(&pod, &third));
            // then the call ends soon, in words or with a result
            assert!(begin.elapsed() < Duration::from_secs(8), "{case}: {:?}", begin.elapsed());
            assert_ended(&outcome, &case);
            if matches!(deed, Deed::HostRenamed | Deed::PodRenamed) {
                let pong = pod.ping(&pod.eth0.host_v4, 1, Duration::from_secs(1));
                assert_eq!(pong.received, 1, "{case}: the pod is cut off");
            }
            // and DEL takes what is left, and nothing of anybody else
            call.verb("DEL").ok();
            let host_end = match deed {
                Deed::HostRenamed => Some("renamed0"),
                Deed::PodRenamed | Deed::PodMoved => Some("veth0"),
                Deed::Deleted | Deed::HostMoved => None,
            };
            if let Some(dev) = host_end {
                assert_ne!(lab.root(dev).handle, "7062:", "{case}: {dev}");
                let mut filters = ["ingress", "egress"].map(|hook| lab.filters(dev, hook));
                let ours = filters.iter_mut().flatten().find(|filter| filter.is_ours());
                assert_eq!(ours, None, "{case}: {dev}");
            }
            if matches!(deed, Deed::HostRenamed | Deed::PodRenamed) {
                let pong = pod.ping(&pod.eth0.host_v4, 1, Duration::from_secs(1));
                assert_eq!(pong.received, 1, "{case}: the pod is cut off by DEL");
            }
            for name in ["veth0", "renamed0"] {
                lab.attempt(&["ip", "link", "del", name]);
            }
            third.attempt(&["ip", "link", "del", "veth0"]);
            kept.assert_same(&state(&bystander), &case);
        }
    }
}

#[test]
fn a_link_that_changes_between_two_requests_of_add_leaves_nothing_behind() {
    each_deed("ADD");
}

#[test]
fn a_link_that_changes_between_two_requests_of_del_leaves_nothing_behind() {
    each_deed("DEL");
}

// ---- too much ------------------------------------------------------------------------------

#[test]
fn five_hundred_interfaces_in_the_pod_and_on_the_host_cost_no_request_more() {
    let Some(strace) = Strace::find() else { return };
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let calls = ["ADD", "CHECK", "DEL"].map(|verb| add(&pod, way).verb(verb));
        let counts = || calls.each_ref().map(|call| strace.count(call, SENDS));
        let few = counts();
        for ns in [&pod.ns, &pod.host] {
            let script = "for i in $(seq 250); do \
                echo link add many$i type veth peer name more$i; done | ip -batch -";
            ns.run(&["sh", "-c", script]);
        }
        assert_eq!(counts(), few, "{way:?}: ADD, CHECK, DEL");
    }
}

#[test]
fn an_annotation_of_256_kib_is_refused_in_few_words_or_ignored() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let before = state(&pod);
    let long = "1".repeat(256 << 10);
    let outcome = Call::add(&pod).annotation("kubernetes.io/ingress-bandwidth", &long).run();
    outcome.error(7).says(&["kubernetes.io/ingress-bandwidth"]);
    for channel in [&outcome.stdout, &outcome.stderr] {
        assert!(channel.len() < 2_000, "{} bytes", channel.len());
    }
    before.assert_same(&state(&pod), "refused");
    // One that is nobody's business is in nobody's way.
    Call::add(&pod).limits("10M", "20M").annotation("example.com/long", &long).ok();
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M));
}

#[test]
fn names_with_control_characters_reach_no_log_error_or_alias() {
    let hostile = "c\u{1b}[2J\n\u{7}\u{202e}1";
    for (key, at) in [("CNI_CONTAINERID", None), ("CNI_IFNAME", None), ("", Some("name"))] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let call = Call::add(&pod).limits("10M", "20M");
        let call = match at {
            None => call.env(key, hostile),
            Some(at) => call.key(at, json!(hostile)),
        };
        let outcome = call.run();
        let aliases: Vec<String> = lab.ifbs().iter().map(|name| lab.alias(name)).collect();
        let texts = [outcome.stdout.as_str(), outcome.stderr.trim_end()];
        for text in texts.into_iter().chain(aliases.iter().map(String::as_str)) {
            let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(bad), "{key}{at:?}: {text:?}");
        }
        assert!([Some(0), Some(1)].contains(&outcome.status), "{outcome:#?}");
        call.verb("DEL").run();
        assert!(lab.ifbs().is_empty(), "{key}{at:?}");
    }
}

// ---- callers that may do nothing -----------------------------------------------------------

#[test]
fn who_is_not_root_is_told_so_and_changes_nothing() {
    let Some(lab) = Lab::open() else { return };
    // Another user must be able to run it, wherever it was built.
    lab.private_folder("/var/lib/cni");
    let plugin = "/var/lib/cni/pod-bandwidth";
    lab.run(&["install", "-m", "0755", PLUGIN, plugin]);
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    let stranger = ["unshare", "--user", "--"];
    // A plain user's lab has no second user to become.
    let mut callers = vec![stranger.as_slice()];
    callers.extend((!lab.user).then_some(nobody.as_slice()));
    for way in Way::ALL {
        for &caller in &callers {
            let case = format!("{way:?}, {caller:?}");
            let pod = lab.pod(if caller.len() > 3 { "veth0" } else { "veth1" });
            // given a pod that root has shaped
            add(&pod, way).ok();
            let before = state(&pod);
            // when somebody else calls, with another limit to set
            let by_other = |call: Call| call.under(caller).program(plugin);
            for verb in ["ADD", "CHECK", "DEL"] {
                let call = by_other(add(&pod, way).limits("5M", "6M").verb(verb));
                // then it is told what is missing
                call.error(104).says(&["default/web-0", "CAP_"]);
            }
            by_other(Call::node(&lab, "STATUS")).error(50).says(&["CAP_NET_ADMIN"]);
            let gc = Call::node(&lab, "GC").key("cni.dev/valid-attachments", json!([]));
            let outcome = by_other(gc).run();
            assert_eq!(outcome.status == Some(0), lab.ifbs().is_empty(), "{case}: {outcome:#?}");
            // and nothing changed
            before.assert_same(&state(&pod), &case);
            add(&pod, way).verb("DEL").ok();
            lab.sh(&format!("ip link del {}", pod.eth0.host));
        }
    }
}
