//! BPF programs at TCX (Linux 6.6 and later), which netlink does not show: a policy that guards the
//! host interface, and a data plane that hands packets over to the pod past the host interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
#[cfg(feature = "node")]
mod doctored;

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;

use common::{
    Call, DROPPED_PORT, Lab, Pod, Shape, Snapshot, Traffic, Way, assert_drops_the_port, throughput,
};
use serde_json::json;

const M: u64 = 1_000_000;

/// The program and its link, made by hand through bpf(2): no compiler and no loader is needed.
mod program {
    #![allow(unsafe_code, reason = "bpf(2) has no safe name")]

    use nix::libc;

    use super::DROPPED_PORT;

    /// bpf(2) commands and types (include/uapi/linux/bpf.h).
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_LINK_CREATE: libc::c_int = 28;
    const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
    const BPF_TCX_INGRESS: u32 = 46;
    const TCX_PASS: i32 = 0;
    const TCX_DROP: i32 = 2;
    const TCX_NEXT: i32 = -1;
    const BPF_FUNC_REDIRECT_PEER: i32 = 155;

    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
    }

    #[repr(C)]
    #[derive(Default)]
    struct Link {
        program: u32,
        index: u32,
        attach_type: u32,
        flags: u32,
        relative: u32,
        _padding: u32,
        revision: u64,
    }

    /// One instruction: code, registers (source above, destination below), offset, constant.
    fn instruction((code, registers, offset, constant): (u8, u8, i16, i32)) -> u64 {
        let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&constant.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    }

    fn bpf<T>(command: libc::c_int, attributes: &T) -> Result<u32, std::io::Error> {
        let size = size_of::<T>() as libc::c_uint;
        // SAFETY: the kernel reads `size` bytes of `attributes` and what it points to, all of which
        // live through the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) };
        u32::try_from(result).map_err(|_| std::io::Error::last_os_error())
    }

    /// IPv4, UDP, a header of 20 bytes, the port: drop; all else goes on.
    pub(super) fn guard() -> Vec<u64> {
        let program = [
            (0xbf, 0x16, 0, 0),
            (0x28, 0, 0, 12),
            (0x55, 0, 6, 0x800),
            (0x30, 0, 0, 23),
            (0x55, 0, 4, 17),
            (0x28, 0, 0, 36),
            (0x55, 0, 2, i32::from(DROPPED_PORT)),
            (0xb7, 0, 0, TCX_DROP),
            (0x95, 0, 0, 0),
            (0xb7, 0, 0, TCX_NEXT),
            (0x95, 0, 0, 0),
        ];
        program.map(instruction).into()
    }

    /// Lets every packet pass, and nobody else is asked.
    pub(super) fn pass() -> Vec<u64> {
        [(0xb7, 0, 0, TCX_PASS), (0x95, 0, 0, 0)].map(instruction).into()
    }

    /// IPv4: `bpf_redirect_peer` to the other end of the veth `index`; all else goes on.
    pub(super) fn redirect_peer(index: i32) -> Vec<u64> {
        let program = [
            (0xbf, 0x16, 0, 0),
            (0x28, 0, 0, 12),
            (0x55, 0, 4, 0x800),
            (0xb7, 1, 0, index),
            (0xb7, 2, 0, 0),
            (0x85, 0, 0, BPF_FUNC_REDIRECT_PEER),
            (0x95, 0, 0, 0),
            (0xb7, 0, 0, TCX_NEXT),
            (0x95, 0, 0, 0),
        ];
        program.map(instruction).into()
    }

    /// Puts `program` at the interface `index`; it goes when the process ends.
    pub(super) fn attach(index: u32, program: &[u64]) -> Result<(), std::io::Error> {
        let load = Load {
            kind: BPF_PROG_TYPE_SCHED_CLS,
            count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            ..Load::default()
        };
        let program = bpf(BPF_PROG_LOAD, &load)?;
        let attach_type = BPF_TCX_INGRESS;
        bpf(BPF_LINK_CREATE, &Link { program, index, attach_type, ..Link::default() })?;
        Ok(())
    }
}

const PROGRAM: &str = "POD_BANDWIDTH_TCX";
const ATTACHED: &str = "tcx: attached";

/// Keeps the program that [`Attached::start`] asked for, until it is killed.
fn play_if_asked() {
    let Ok(words) = std::env::var(PROGRAM) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let (index, program) = match words[..] {
        ["guard", index] => (index, program::guard()),
        ["pass", index] => (index, program::pass()),
        ["redirect", index, peer] => (index, program::redirect_peer(peer.parse().unwrap())),
        _ => panic!("{PROGRAM}={words:?} is no program"),
    };
    match program::attach(index.parse().unwrap(), &program) {
        Ok(()) => println!("\n{ATTACHED}"),
        Err(error) => println!("\ntcx: {error}"),
    }
    loop {
        std::thread::park();
    }
}

/// A process that keeps a program attached.
struct Attached(Child);

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Attached {
    /// Attaches what `words` say; `None` where this kernel or user cannot, in words.
    fn start(lab: &Lab, words: &str) -> Option<Self> {
        let mut process = Self(common::start_test_again(lab, PROGRAM, words));
        let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let said = lines.map_while(Result::ok).find(|line| line.starts_with("tcx: "));
        if said.as_deref() == Some(ATTACHED) {
            return Some(process);
        }
        // Older kernels have no TCX, and only root may load a program.
        common::skip(&format!("no TCX program can be attached: {said:?}"));
        None
    }
}

fn index(lab: &Lab, dev: &str) -> String {
    lab.link(dev).unwrap()["ifindex"].to_string()
}

/// Guards `veth0`.
fn guard(lab: &Lab) -> Option<Attached> {
    Attached::start(lab, &format!("guard {}", index(lab, "veth0")))
}

#[test]
fn a_program_that_was_there_before_us_still_drops() {
    play_if_asked();
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let Some(_guard) = guard(&lab) else { return };
    let before = Snapshot::of(&[&lab, &pod]);
    assert_drops_the_port(&lab, &pod, "alone");
    // Without any configuration the limit goes into the pod.
    let call = Call::add(&pod).limits("10M", "20M");
    call.ok();
    assert_eq!(Shape::of(&pod, Way::Pod).rates(), (10 * M, 20 * M));
    assert_drops_the_port(&lab, &pod, "auto");
    call.clone().verb("CHECK").ok();
    call.clone().verb("DEL").ok();
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "auto, DEL");
    // On the host it is refused.
    call.key("placement", json!("host")).error(101).says(&["BPF"]);
}

#[test]
fn a_program_that_comes_after_us_drops_in_every_placement() {
    play_if_asked();
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let call = Call::add(&pod).way(way).limits("10M", "20M");
        call.ok();
        let Some(_guard) = guard(&lab) else { return };
        // TCX is asked before clsact.
        assert_drops_the_port(&lab, &pod, &format!("{way:?}"));
        assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{way:?}");
        call.verb("DEL").ok();
        assert_drops_the_port(&lab, &pod, &format!("{way:?}, DEL"));
    }
}

#[test]
fn a_program_that_comes_after_us_and_asks_nobody_else_hides_a_limit_on_the_host() {
    play_if_asked();
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let client = client(&lab, &pod);
        let call = Call::add(&pod).way(way).limits("10M", "20M");
        call.ok();
        let Some(_program) = Attached::start(&lab, &format!("pass {}", index(&lab, "veth0")))
        else {
            return;
        };
        let from_pod = measured(&pod, &client);
        assert_eq!(from_pod < 32e6, way == Way::Pod, "{way:?}: {from_pod:.0} bit/s from the pod");
        // All of ours is there. What a program answers cannot be seen, so CHECK agrees.
        call.verb("CHECK").ok();
    }
}

/// A machine on the other side of the node: `up0` is the node's uplink.
fn client(lab: &Lab, pod: &Pod) -> Pod {
    let client = lab.pod("up0");
    lab.sysctl("net.ipv4.ip_forward", "1");
    for (from, to) in [(&client, pod), (pod, &client)] {
        let (subnet, gateway) = (format!("{}/32", to.eth0.pod_v4), &from.eth0.host_v4);
        from.run(&["ip", "route", "add", &subnet, "via", gateway]);
    }
    client
}

/// Steady bits per second. What it is held against is wide, for a busy machine: a limit that is passed
/// by shows as a gigabit or more.
fn measured(from: &Pod, to: &Pod) -> f64 {
    let traffic = Traffic { duration: Duration::from_millis(2_500), ..Traffic::default() };
    throughput(from, to, &to.eth0.pod_v4, &traffic).steady_bits
}

#[test]
fn packets_that_are_handed_over_past_the_host_interface_are_held_in_the_pod_only() {
    play_if_asked();
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        // given a pod with limits, and a client behind the node's uplink
        let pod = lab.pod("veth0");
        let client = client(&lab, &pod);
        Call::add(&pod).way(way).limits("10M", "20M").ok();
        let routed = measured(&client, &pod);
        assert!((1e6..16e6).contains(&routed), "{way:?}, routed: {routed:.0} bit/s");
        // when a program at the uplink hands packets for the pod over to the pod's end of the veth,
        // as eBPF host routing does
        let words = format!("redirect {} {}", index(&lab, "up0"), index(&lab, "veth0"));
        let Some(_program) = Attached::start(&lab, &words) else { return };
        // then no qdisc and no hook of the host interface sees them, but the hook of eth0 does
        let past = measured(&client, &pod);
        assert!(past > 5e5, "{way:?}: the pod is cut off: {past:.0} bit/s");
        let holds = past < 16e6;
        assert_eq!(holds, way == Way::Pod, "{way:?}: {past:.0} bit/s to the pod");
        // and what comes from the pod is held in every placement
        let from_pod = measured(&pod, &client);
        assert!((2e6..32e6).contains(&from_pod), "{way:?}: {from_pod:.0} bit/s from the pod");
    }
}

#[cfg(feature = "node")]
#[test]
fn doctor_sees_a_program_that_netlink_does_not_show() {
    play_if_asked();
    let Some(node) = doctored::Node::open() else { return };
    let pod = node.lab.pod("veth0");
    let Some(_guard) = guard(&node.lab) else { return };
    let examined = node.examine();
    assert!(examined.is_sound(), "{:?}", examined.wrong());
    assert_eq!(examined.one("bpf-guard")["severity"], "note");
    // when the list insists on the host, where an ADD fails
    let mut entry = doctored::entry();
    entry["placement"] = json!("host");
    node.write("10-net.conflist", &doctored::list(&entry));
    Call::add(&pod).limits("10M", "20M").key("placement", json!("host")).error(101);
    assert_eq!(node.examine().wrong(), ["bpf-guard problem"]);
    // and one that comes after a limit on the host
    let later = node.pod("later", Way::Hooks, ("10M", "20M"));
    let words = format!("pass {}", index(&node.lab, &later.eth0.host));
    let Some(_program) = Attached::start(&node.lab, &words) else { return };
    assert_eq!(node.examine().wrong(), ["bpf-guard problem", "bpf-hides warning"]);
}
