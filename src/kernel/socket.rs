//! A netlink socket: requests out, acknowledgements and answers in.

use std::os::fd::AsRawFd;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::error::KernelError;
use super::netns::NetNs;
use super::wire;

/// Longer than any single request takes, RCU and RTNL waits of a busy node included; shorter than
/// a runtime's patience.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Room for the acknowledgements of one send, which the kernel all makes before anybody reads one:
/// about 1 KiB each in its own counting. The longest is a list of 64 subnets that takes another's
/// place at both hooks, 258 requests; the default of 208 KiB ends with ENOBUFS there.
const RECEIVE_ROOM_BYTES: usize = 1 << 20;

/// The kernel never makes a netlink datagram larger than this for a dump.
const RECEIVE_BYTES: usize = 64 << 10;

/// A dump that was interrupted by a change is asked for again, so often.
const DUMP_TRIES: usize = 5;

/// Bytes of struct nlmsghdr.
const NLMSG_HEADER: usize = 16;

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
        Ok(Self { inner, sequence: 0, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// A socket of another namespace. A socket stays in the namespace it was made in, so nothing
    /// else has to happen there.
    ///
    /// # Errors
    /// As [`Socket::open`], and where the namespace cannot be entered.
    pub fn open_in(namespace: &NetNs) -> Result<Self, KernelError> {
        namespace.run(Self::open)?
    }

    /// Sends all requests in one send and collects what each of them brought, in order.
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
        self.collect(first, &doing)
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
            match &last {
                Err(KernelError::Refused { errno: Errno::EINTR, .. }) => {
                    last = self.request(make())
                }
                _ => break,
            }
        }
        last
    }

    fn send(&self, bytes: &[u8], doing: &[String]) -> Result<(), KernelError> {
        loop {
            match self.inner.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
                Err(error) => {
                    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
                    return Err(KernelError::Exchange {
                        doing: doing.join(", "),
                        call: "send",
                        errno,
                    });
                }
            }
        }
    }

    fn receive(&mut self, doing: &[String]) -> Result<usize, KernelError> {
        loop {
            match recv(self.inner.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(length),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let doing = doing.join(", ");
                    return Err(KernelError::Silent { doing, timeout: TIMEOUT });
                }
                Err(errno) => {
                    let doing = doing.join(", ");
                    return Err(KernelError::Exchange { doing, call: "recv", errno });
                }
            }
        }
    }

    fn collect(&mut self, first: u32, doing: &[String]) -> Result<Vec<Answer>, KernelError> {
        let mut answers: Vec<Answer> = doing.iter().map(|_| Ok(Vec::new())).collect();
        let mut open = doing.len();
        while open > 0 {
            let length = self.receive(doing)?;
            let mut rest = &self.buffer[..length];
            while let Some((message, next)) = Message::first(rest) {
                rest = next;
                // Answers to a request that was given up carry an older number.
                let index = message.sequence.wrapping_sub(first) as usize;
                if let (Some(answer), Some(doing)) = (answers.get_mut(index), doing.get(index)) {
                    open -= usize::from(message.add_to(answer, doing));
                }
            }
        }
        Ok(answers)
    }
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
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The first message of a datagram and what follows it; `None` at its end.
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
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
    fn add_to(&self, answer: &mut Answer, doing: &str) -> bool {
        if self.flags & NLM_F_DUMP_INTR != 0 {
            *answer = Err(refused(doing, Errno::EINTR, None));
        }
        match self.kind {
            NLMSG_ERROR | NLMSG_DONE => {
                let code = wire::u32_at(self.payload, 0).unwrap_or_default() as i32;
                if code != 0 {
                    *answer = Err(refused(doing, Errno::from_raw(-code), self.ext_ack()));
                }
                true
            }
            NLMSG_OVERRUN => {
                *answer = Err(refused(doing, Errno::ENOBUFS, None));
                true
            }
            _ => {
                if let Ok(payloads) = answer {
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
mod tests {
    use super::*;

    /// The answer of Linux 6.18 to `tc qdisc add dev lo root nosuch`, with both options set:
    /// "Specified qdisc kind is unknown."
    fn unknown_kind() -> Vec<u8> {
        let text = b"Specified qdisc kind is unknown.\0";
        let mut bytes = vec![0; 36];
        bytes.extend((4 + text.len() as u16).to_ne_bytes());
        bytes.extend(1u16.to_ne_bytes());
        bytes.extend(text);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let length = bytes.len() as u32;
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_CAPPED | NLM_F_ACK_TLVS).to_ne_bytes());
        bytes[8..12].copy_from_slice(&7u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(-(Errno::ENOENT as i32)).to_ne_bytes());
        bytes
    }

    #[test]
    fn a_refusal_carries_the_kernels_words_and_what_helps() {
        let bytes = unknown_kind();
        let (message, rest) = Message::first(&bytes).unwrap();
        let mut answer = Ok(Vec::new());
        assert!(message.add_to(&mut answer, "add a TBF to eth0"));
        assert!(rest.is_empty());
        let error = answer.unwrap_err();
        assert_eq!(
            error.to_string(),
            "add a TBF to eth0: the kernel said \"No such file or directory\" (ENOENT): \
             \"Specified qdisc kind is unknown.\"; this kernel lacks sch_tbf and sch_ingress: \
             load the module (modprobe) or install it"
        );
        assert!(error.is_missing_feature() && !error.is_race());
    }

    #[test]
    fn cut_off_messages_end_the_walk() {
        let bytes = unknown_kind();
        for length in 0..bytes.len() - 1 {
            assert!(Message::first(&bytes[..length]).is_none(), "{length} bytes");
        }
    }
}
