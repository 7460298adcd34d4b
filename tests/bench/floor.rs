//! The floor: the very netlink requests of an ADD or DEL, sent by one warm process. What a call
//! costs above that and above starting an empty program is our own doing.
//!
//! `strace` records the bytes that the plugin sends. They are sent again in a fresh lab: a namespace
//! gives out its interface indexes from the beginning, so those in the messages fit. Only the number
//! of the descriptor of the pod's namespace is another one.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;
use std::time::Instant;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{recv, send, socket};

use crate::common::{Lab, Ns, Pod, TempDir, feed, peer};
use crate::process::inside;
use crate::subject::Invocation;

/// One send: where, and the messages in it.
#[derive(Clone, Debug)]
pub(crate) struct Send {
    /// In the pod's namespace, else the host's.
    in_pod: bool,
    bytes: Vec<u8>,
}

/// What one send asks for, as a bar shows it, and how long the kernel took for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// See [`Send::what`].
    pub(crate) what: &'static str,
    /// Microseconds.
    pub(crate) wall_us: f64,
}

/// The kinds of steps, in the order of an ADD.
pub(crate) const STEPS: [&str; 6] = [
    "look-ups",
    "make the IFB",
    "its alias, TBF, up",
    "hook, filter, root TBF",
    "remove filter, hook, root TBF",
    "remove the IFB",
];

/// What the plugin sends for `call`, which is made once.
pub(crate) fn record(lab: &Lab, call: &Invocation) -> Vec<Send> {
    let folder = TempDir::new();
    let log = folder.file("log");
    let strace = peer("strace").expect("scripts/bench installs it");
    let words = ["-f", "-o", &log, "-e", "trace=socket,sendto", "-e", "write=3,4,5,6,7,8,9"];
    let program = call.program.to_str().expect("a path in UTF-8");
    let words = [&[strace.to_str().expect("a path in UTF-8")], &words[..], &[program]].concat();
    let child = lab
        .command(&words)
        .env_clear()
        .envs(call.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsenter starts");
    let output = feed(child, &call.input);
    assert!(output.status.success(), "under strace: {output:?}");
    parse(&std::fs::read_to_string(&log).expect("strace has written"))
}

/// Reads `socket(AF_NETLINK …) = 4`, `sendto(4, …` and the dumps ` | 00000  14 00 …  text |`.
fn parse(log: &str) -> Vec<Send> {
    let mut host = None;
    let mut sends: Vec<Send> = Vec::new();
    for line in log.lines() {
        if let Some((_, dump)) = line.split_once(" | 0") {
            let send = sends.last_mut().expect("a dump follows its call");
            let digits = dump.get(6..6 + 16 * 3 + 1).expect("strace pads its dumps");
            let byte = |digits| u8::from_str_radix(digits, 16).expect("hexadecimal");
            send.bytes.extend(digits.split_whitespace().map(byte));
        } else if line.contains("socket(AF_NETLINK") {
            // The plugin opens the host's socket first.
            host = host.or(line.rsplit_once("= ").map(|(_, fd)| fd.to_owned()));
        } else if let Some((_, call)) = line.split_once("sendto(") {
            let fd = call.split(',').next().map(str::to_owned);
            sends.push(Send { in_pod: fd != host, bytes: Vec::new() });
        }
    }
    assert!(!sends.is_empty(), "strace recorded no sends:\n{log}");
    sends
}

impl Send {
    /// The parts of each message: type, flags, and where it begins.
    fn messages(&self) -> impl Iterator<Item = (u16, u16, usize)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let word = |at: usize| {
                Some(u32::from_ne_bytes(self.bytes.get(at..at + 4)?.try_into().expect("four")))
            };
            let (length, kind, begin) = (word(at)?, word(at + 4)?, at);
            at += (length as usize).next_multiple_of(4).max(4);
            Some(((kind & 0xffff) as u16, (kind >> 16) as u16, begin))
        })
    }

    /// Which of [`STEPS`] it is: the heaviest message counts.
    fn what(&self) -> &'static str {
        const CREATE: u16 = 0x400;
        let kinds: Vec<(u16, u16)> =
            self.messages().map(|(kind, flags, _)| (kind, flags)).collect();
        let has = |kind: u16| kinds.iter().any(|(found, _)| *found == kind);
        if has(17) {
            STEPS[5]
        } else if has(37) || has(45) {
            STEPS[4]
        } else if kinds.iter().any(|(kind, flags)| *kind == 16 && flags & CREATE != 0) {
            STEPS[1]
        } else if has(44) {
            STEPS[3]
        } else if has(36) || has(19) || has(16) {
            STEPS[2]
        } else {
            STEPS[0]
        }
    }

    /// The bytes with this descriptor of the pod's namespace (NETNSA_FD of RTM_GETNSID).
    fn with_namespace(&self, fd: i32) -> Vec<u8> {
        const RTM_GETNSID: u16 = 90;
        /// nlmsghdr, rtgenmsg padded, nlattr.
        const VALUE: usize = 16 + 4 + 4;
        let mut bytes = self.bytes.clone();
        for (kind, _, begin) in self.messages() {
            if kind == RTM_GETNSID {
                bytes[begin + VALUE..begin + VALUE + 4].copy_from_slice(&fd.to_ne_bytes());
            }
        }
        bytes
    }
}

/// Sends them all, one after another, and waits for the answers of each.
pub(crate) fn replay(lab: &Lab, pod: &Pod, sends: &[Send]) -> Vec<Step> {
    let (host, inner) = (netlink(lab), netlink(&pod.ns));
    let namespace = File::open(pod.ns.path()).expect("the pod's namespace");
    let ready: Vec<_> = sends
        .iter()
        .map(|send| {
            let socket = if send.in_pod { &inner } else { &host };
            let count = send.messages().count();
            (send.what(), socket, send.with_namespace(namespace.as_raw_fd()), count)
        })
        .collect();
    let mut buffer = vec![0; 64 << 10];
    let exchange = |(what, socket, bytes, count): (&'static str, &OwnedFd, Vec<u8>, usize)| {
        let began = Instant::now();
        send(socket.as_raw_fd(), &bytes, MsgFlags::empty()).expect("the kernel takes it");
        let mut ends = 0;
        while ends < count {
            let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
            ends += count_ends(&buffer[..length.expect("an answer")]);
        }
        Step { what, wall_us: began.elapsed().as_secs_f64() * 1e6 }
    };
    ready.into_iter().map(exchange).collect()
}

/// Acknowledgements (NLMSG_ERROR) and ends of dumps (NLMSG_DONE).
fn count_ends(datagram: &[u8]) -> usize {
    let answer = Send { in_pod: false, bytes: datagram.to_owned() };
    answer.messages().filter(|(kind, _, _)| matches!(kind, 2 | 3)).count()
}

fn netlink(ns: &Ns) -> OwnedFd {
    inside(ns, || {
        let route = SockProtocol::NetlinkRoute;
        let made = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route);
        made.expect("a netlink socket")
    })
}

/// How long opening both sockets takes, with the way into the pod's namespace and back: part of
/// every call, and of no request. Microseconds.
pub(crate) fn sockets_us(lab: &Lab, pod: &Pod) -> f64 {
    let path = pod.ns.path();
    inside(lab, || {
        let began = Instant::now();
        let route = SockProtocol::NetlinkRoute;
        let open = || socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route);
        let _host = open().expect("a netlink socket");
        let own = File::open("/proc/thread-self/ns/net").expect("our namespace");
        let namespace = File::open(&path).expect("the pod's namespace");
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns");
        let _inner = open().expect("a netlink socket");
        setns(own.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns");
        began.elapsed().as_secs_f64() * 1e6
    })
}
