//! Pods that fight their limit, with packet sockets and as root of their interface. Where the limit is
//! on the host it holds; inside the pod it is cooperative (docs/placement.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;

use common::{Call, Family, Flow, Lab, Pod, Snapshot, Traffic, Way, Wire};
use nix::libc;

fn add(pod: &Pod, way: Way) -> Call {
    Call::add(pod).way(way).limits("10M", "10M")
}

/// Sets an option of a socket.
#[allow(unsafe_code, reason = "options of packet sockets have no safe name")]
fn set<T>(socket: libc::c_int, level: libc::c_int, name: libc::c_int, value: &T) {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes of `value`, which lives through the call.
    let result =
        unsafe { libc::setsockopt(socket, level, name, std::ptr::from_ref(value).cast(), size) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn stop(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// What a pod with CAP_NET_RAW can do: frames that its interface's qdisc never sees.
mod bypass {
    #![allow(unsafe_code, reason = "a packet socket with PACKET_QDISC_BYPASS has no safe name")]

    use std::process::Child;

    use common::Ns;
    use nix::libc;

    use super::{common, set};

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
            set(socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1_i32);
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
    stop(flood);
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

    use super::{common, set};

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
    stop(tap);
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
