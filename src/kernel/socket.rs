//! A netlink socket: requests out, acknowledgements and answers in.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::collect::Collection;
use super::error::KernelError;
use super::netns::NetNs;
use super::wire;

/// How long an answer is waited for. It only guards against an answer that was lost: the kernel works
/// through a request inside send, waits for RCU and the RTNL lock included, and its answers are queued
/// before send returns (netlink_rcv_skb in net/netlink/af_netlink.c). So nothing bounds the wait for a
/// lock that another program holds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Room for the acknowledgements of one send, which the kernel all makes before anybody reads one:
/// about 1 KiB each in its own counting. The longest is a list of 64 subnets that takes another's
/// place at both hooks, 258 requests; the default of 208 KiB ends with ENOBUFS there.
const RECEIVE_ROOM_BYTES: usize = 1 << 20;

/// The kernel never makes a netlink datagram larger than this for a dump.
const RECEIVE_BYTES: usize = 64 << 10;

/// A dump that was interrupted by a change is asked for again, so often.
const DUMP_TRIES: usize = 5;

/// A system call that failed for a passing reason is made again, so often.
const CALL_TRIES: u32 = 6;

/// The wait before a send that found no memory is made again; it doubles each time.
const MEMORY_WAIT: Duration = Duration::from_millis(1);

/// Bytes of struct nlmsghdr.
const NLMSG_HEADER: usize = 16;

/// Where the sequence numbers of this process's requests begin. The kernel's news carry the number of
/// the request that they are about, and even a look at one qdisc is told to everybody (qdisc_notify in
/// net/sched/sch_api.c): who listens must know what it has caused itself. Other programs count
/// from 1, or from the time in seconds, which comes here in 2097.
fn own_sequences() -> u32 {
    0xf000_0000 | (std::process::id() << SEQUENCE_BITS & 0x0fff_ffff)
}

/// Room for the requests of one socket: none sends as many.
const SEQUENCE_BITS: u32 = 12;

/// Whether a number is that of a request of this process.
#[cfg(any(test, feature = "node"))]
pub(super) fn is_own(sequence: u32) -> bool {
    sequence >> SEQUENCE_BITS == own_sequences() >> SEQUENCE_BITS
}

/// One request: what it does in words, and the message.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) doing: String,
    pub(super) flags: u16,
    pub(super) message: RouteNetlinkMessage,
}

/// What one request brought: the payloads of its answers.
pub(super) type Answer = Result<Vec<Vec<u8>>, KernelError>;

/// A NETLINK_ROUTE socket of one network namespace.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`KernelError::Exchange`] where no such socket can be had.
    pub fn open() -> Result<Self, KernelError> {
        let failed = |call| {
            move |error: std::io::Error| KernelError::Exchange {
                doing: "open a netlink socket".into(),
                call,
                errno: Errno::from_raw(error.raw_os_error().unwrap_or_default()),
            }
        };
        let mut inner = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE)
            .map_err(failed("socket"))?;
        inner.bind_auto().map_err(failed("bind"))?;
        // From here on only the kernel can send to this socket.
        inner.connect(&netlink_sys::SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        inner.set_ext_ack(true).map_err(failed("setsockopt NETLINK_EXT_ACK"))?;
        inner.set_cap_ack(true).map_err(failed("setsockopt NETLINK_CAP_ACK"))?;
        let timeout = TimeVal::new(TIMEOUT.as_secs() as i64, 0);
        setsockopt(&inner, sockopt::ReceiveTimeout, &timeout)
            .map_err(|errno| failed("setsockopt SO_RCVTIMEO")(errno.into()))?;
        // Without the privilege to go beyond net.core.rmem_max it is what that allows.
        if setsockopt(&inner, sockopt::RcvBufForce, &RECEIVE_ROOM_BYTES).is_err() {
            setsockopt(&inner, sockopt::RcvBuf, &RECEIVE_ROOM_BYTES)
                .map_err(|errno| failed("setsockopt SO_RCVBUF")(errno.into()))?;
        }
        Ok(Self { inner, sequence: own_sequences(), buffer: vec![0; RECEIVE_BYTES] })
    }

    /// A socket of another namespace. A socket stays in the namespace it was made in, so nothing
    /// else has to happen there.
    ///
    /// # Errors
    /// As [`Socket::open`], and where the namespace cannot be entered.
    pub fn open_in(namespace: &NetNs) -> Result<Self, KernelError> {
        namespace.run(Self::open)?
    }

    #[cfg(test)]
    pub(super) fn next_sequence(&self) -> u32 {
        self.sequence.wrapping_add(1)
    }

    /// Sends all requests in one send and collects what each of them brought, in order. An error
    /// means that none of them was done; what is not known is the error of its answer
    /// ([`KernelError::is_unclear`]).
    ///
    /// The kernel works through one send before it returns, so a kill comes before all of them or
    /// after (netlink_rcv_skb in net/netlink/af_netlink.c).
    pub(super) fn exchange(&mut self, requests: Vec<Request>) -> Result<Vec<Answer>, KernelError> {
        let first = self.sequence.wrapping_add(1);
        let doing: Vec<String> = requests.iter().map(|r| r.doing.clone()).collect();
        let mut bytes = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            append(&mut bytes, self.sequence, request);
        }
        self.send(&bytes, &doing)?;
        Ok(self.collect(first, &doing))
    }

    /// Sends one request and returns the payloads of its answers.
    pub(super) fn request(&mut self, request: Request) -> Answer {
        let doing = request.doing.clone();
        let mut answers = self.exchange(vec![request])?;
        answers
            .pop()
            .unwrap_or_else(|| Err(KernelError::Garbled { doing, what: "there is none".into() }))
    }

    /// As [`Socket::request`] for a dump, which is asked for again where a change interrupted it.
    pub(super) fn dump(&mut self, make: impl Fn() -> Request) -> Answer {
        let mut last = self.request(make());
        for _ in 1..DUMP_TRIES {
            if !matches!(last, Err(KernelError::Interrupted { .. })) {
                break;
            }
            last = self.request(make());
        }
        last
    }

    /// A send that fails has done nothing: the kernel has the whole message before it begins
    /// (netlink_sendmsg in net/netlink/af_netlink.c). So it may be made again.
    fn send(&self, bytes: &[u8], doing: &[String]) -> Result<(), KernelError> {
        let mut wait = MEMORY_WAIT;
        let mut tries = 1;
        loop {
            match send(self.inner.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) if tries < CALL_TRIES => {}
                Err(Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN) if tries < CALL_TRIES => {
                    std::thread::sleep(wait);
                    wait *= 2;
                }
                Err(errno) => return Err(exchange_error(doing, "send", errno)),
            }
            tries += 1;
        }
    }

    /// Every request has its answer, at worst that none could be had.
    fn collect(&mut self, first: u32, doing: &[String]) -> Vec<Answer> {
        let mut collection = Collection::new(first, doing);
        let mut patience = Patience::default();
        while !collection.is_complete() {
            match patience.receive(self.inner.as_raw_fd(), &mut self.buffer) {
                Ok(length) => collection.add(&self.buffer[..length]),
                Err(errno) => {
                    collection.give_up(|doing| patience.error(doing, errno));
                    break;
                }
            }
        }
        collection.into_answers()
    }
}

/// How long answers are waited for, and what happened to them so far.
///
/// All answers, and the next part of a dump, are in the queue when send or the receive before
/// returns (netlink_rcv_skb and netlink_recvmsg in net/netlink/af_netlink.c). So after a failed
/// receive nothing is waited for: what is not there by then was lost.
#[derive(Default)]
struct Patience {
    failures: u32,
    failed_with: Option<Errno>,
}

impl Patience {
    fn receive(&mut self, socket: RawFd, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            let flags = self.failed_with.map_or(MsgFlags::empty(), |_| MsgFlags::MSG_DONTWAIT);
            match recv(socket, buffer, flags) {
                Err(Errno::EAGAIN) => return Err(self.failed_with.unwrap_or(Errno::EAGAIN)),
                Err(errno) if self.failures < CALL_TRIES => {
                    self.failures += 1;
                    if errno != Errno::EINTR {
                        self.failed_with = Some(errno);
                    }
                }
                other => return other,
            }
        }
    }

    fn error(&self, doing: &str, errno: Errno) -> KernelError {
        match errno {
            Errno::EAGAIN => KernelError::Silent { doing: doing.into(), timeout: TIMEOUT },
            errno => exchange_error(&[doing.into()], "recv", errno),
        }
    }
}

fn exchange_error(doing: &[String], call: &'static str, errno: Errno) -> KernelError {
    KernelError::Exchange { doing: doing.join(", "), call, errno }
}

fn append(bytes: &mut Vec<u8>, sequence: u32, request: Request) {
    let mut header = NetlinkHeader::default();
    header.sequence_number = sequence;
    header.flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.message));
    message.finalize();
    let start = bytes.len().next_multiple_of(4);
    bytes.resize(start + message.buffer_len(), 0);
    message.serialize(&mut bytes[start..]);
}

/// Flags of a dump request.
pub(super) const DUMP: u16 = NLM_F_DUMP;

/// A message as it came.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The first message of a datagram and what follows it; `None` at its end.
    pub(super) fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = wire::u32_at(bytes, 0)? as usize;
        let kind_and_flags = wire::u32_at(bytes, 4)?.to_ne_bytes();
        let message = Self {
            kind: u16::from_ne_bytes([kind_and_flags[0], kind_and_flags[1]]),
            flags: u16::from_ne_bytes([kind_and_flags[2], kind_and_flags[3]]),
            sequence: wire::u32_at(bytes, 8)?,
            payload: bytes.get(NLMSG_HEADER..length)?,
        };
        Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
    }

    /// Adds this message to an answer; says whether the answer is complete with it.
    pub(super) fn add_to(&self, answer: &mut Answer, doing: &str) -> bool {
        if self.flags & NLM_F_DUMP_INTR != 0
            && let Ok(partial) = answer
        {
            let partial = std::mem::take(partial);
            *answer = Err(KernelError::Interrupted { doing: doing.to_string(), partial });
        }
        match self.kind {
            NLMSG_ERROR | NLMSG_DONE => {
                let code = wire::u32_at(self.payload, 0).unwrap_or_default() as i32;
                if code != 0 {
                    let errno = Errno::from_raw(code.saturating_neg());
                    *answer = Err(refused(doing, errno, self.ext_ack()));
                }
                true
            }
            NLMSG_OVERRUN => {
                *answer = Err(refused(doing, Errno::ENOBUFS, None));
                true
            }
            _ => {
                if let Ok(payloads) | Err(KernelError::Interrupted { partial: payloads, .. }) =
                    answer
                {
                    payloads.push(self.payload.to_vec());
                }
                false
            }
        }
    }

    /// The kernel's explanation: NLMSGERR_ATTR_MSG behind the error and the request's header, or
    /// behind the whole request where the kernel did not cap it.
    fn ext_ack(&self) -> Option<String> {
        const NLMSGERR_ATTR_MSG: u16 = 1;
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let request = match self.flags & NLM_F_CAPPED {
            0 => wire::u32_at(self.payload, 4)? as usize,
            _ => NLMSG_HEADER,
        };
        let start = if self.kind == NLMSG_DONE { 4 } else { 4 + request.next_multiple_of(4) };
        wire::attribute(self.payload.get(start..)?, NLMSGERR_ATTR_MSG).map(wire::text)
    }
}

fn refused(doing: &str, errno: Errno, ext_ack: Option<String>) -> KernelError {
    KernelError::Refused { doing: doing.to_string(), errno, ext_ack }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
