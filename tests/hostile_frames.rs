//! Frames that a pod with CAP_NET_RAW makes up, and that no limit may miss.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Direction, Lab, Ns, PodSpec, Snapshot, Way, items};

/// Frames that end before the first four bytes behind their Ethernet header.
mod short {
    #![allow(unsafe_code, reason = "a packet socket has no safe name")]

    use std::process::Child;
    use std::time::{Duration, Instant};

    use common::Ns;
    use nix::libc;

    use super::common;

    const TARGET: &str = "POD_BANDWIDTH_SHORT";

    /// How many are sent.
    pub(super) const FRAMES: u64 = 20_000;

    /// Starts this test again in `ns`, as the sender on the interface with this index.
    pub(super) fn start(ns: &Ns, index: &str) -> Child {
        common::start_test_again(ns, TARGET, index)
    }

    /// Sends them all if [`start`] asked for it: to everybody, of the protocol for local experiments
    /// (IEEE 802), with 1 to 3 bytes behind the header.
    pub(super) fn play_if_asked() {
        let Ok(index) = std::env::var(TARGET) else { return };
        let header = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5]].concat();
        let end = Instant::now() + Duration::from_secs(60);
        // SAFETY: plain system calls; the pointers are to values that live through each call, with
        // their sizes.
        unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
            assert!(socket >= 0, "{}", std::io::Error::last_os_error());
            let mut to: libc::sockaddr_ll = std::mem::zeroed();
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_ifindex = index.parse().unwrap();
            for n in 0..FRAMES as usize {
                let frame = [&header[..], &[0; 3][..1 + n % 3]].concat();
                let (at, size) = (frame.as_ptr().cast(), size_of_val(&to) as libc::socklen_t);
                // A full queue drops it, which is an error to the sender, and counts it all the same.
                libc::sendto(socket, at, frame.len(), 0, (&raw const to).cast(), size);
                assert!(Instant::now() < end, "{n} frames in a minute");
            }
        }
        std::process::exit(0);
    }
}

/// Packets that our filter at a hook has redirected so far.
fn redirected(ns: &Ns, dev: &str, hook: &str) -> u64 {
    let shown = items(ns.json(&["tc", "-s", "-j", "filter", "show", "dev", dev, hook]));
    let packets =
        |filter: &serde_json::Value| filter["options"]["actions"][0]["stats"]["packets"].as_u64();
    shown.iter().find_map(packets).unwrap_or_else(|| panic!("no counter: {shown:?}"))
}

#[test]
fn the_shortest_frames_are_counted_like_all_others() {
    short::play_if_asked();
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        // given a pod without IPv6, so that no other packet comes between two looks
        let pod = lab.pod_with(PodSpec { ipv6: false, ..PodSpec::host("veth0") });
        Call::add(&pod).way(way).limits("1M", "1M").ok();
        let (ns, dev) = (way.namespace(&pod), way.device(&pod.eth0));
        let counted = |direction| {
            let tbf = way.queue_device(&pod, &pod.eth0, direction).expect("a limit");
            let tbf = ns.qdisc_packets(&tbf);
            (way.hook(direction).map_or(tbf, |hook| redirected(ns, dev, hook)), tbf)
        };
        let before = Direction::ALL.map(counted);
        // when both ends send frames of 15, 16 and 17 bytes
        let index = |ns: &Ns, dev: &str| ns.link(dev).unwrap()["ifindex"].to_string();
        let senders = [
            short::start(&lab, &index(&lab, &pod.eth0.host)),
            short::start(&pod, &index(&pod, "eth0")),
        ];
        for sender in senders {
            let output = sender.wait_with_output().expect("a child");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        // then the filter and the TBF of each direction have counted all of them
        for (direction, before) in Direction::ALL.into_iter().zip(before) {
            let (filter, tbf) = counted(direction);
            let new = (filter - before.0, tbf - before.1);
            assert_eq!(new, (short::FRAMES, short::FRAMES), "{way:?}, {direction:?}");
        }
    }
}

#[test]
fn a_filter_of_an_older_version_stays() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let before = Snapshot::of(&[&lab, &pod]);
    let add = Call::add(&pod).way(Way::Hooks).limits("10M", "10M");
    add.ok();
    // given filters as they were when their selector had a key, with an empty mask
    let dev = &pod.eth0.host;
    for hook in ["ingress", "egress"] {
        let [ours] = &lab.filters(dev, hook)[..] else { panic!("one filter at the {hook}") };
        let (ifb, cookie) = (ours.to_dev.as_ref().unwrap(), ours.cookie.as_ref().unwrap());
        lab.script(&format!(
            "tc filter del dev {dev} {hook} pref {pref}
             tc filter add dev {dev} {hook} protocol all pref {pref} u32 match u32 0 0 \
                action mirred egress redirect dev {ifb} cookie {cookie}",
            pref = ours.pref
        ));
    }
    let old = Snapshot::of(&[&lab, &pod]);
    // then they are right: an ADD changes nothing, CHECK agrees, and DEL removes them
    add.ok();
    old.assert_same(&Snapshot::of(&[&lab, &pod]), "ADD");
    add.clone().verb("CHECK").ok();
    add.verb("DEL").ok();
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "DEL");
}
