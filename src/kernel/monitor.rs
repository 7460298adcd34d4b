//! Monitor: what somebody changes in this network namespace, as the kernel tells it.
//!
//! Only what can take a limit away, or make it cut the pod off, is looked at: qdiscs and filters that
//! come or go, links that go, and the MTU of links. What this process has done or asked itself is left
//! out. A message says which interface it is about; what has happened there is asked afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::KernelError;
use super::socket::{Message, is_own};
use super::wire;

/// The groups of include/uapi/linux/rtnetlink.h.
const GROUPS: [u32; 2] = [libc::RTNLGRP_LINK, libc::RTNLGRP_TC];

/// What can take a limit away.
const KINDS: [u16; 5] = [
    libc::RTM_DELLINK,
    libc::RTM_NEWQDISC,
    libc::RTM_DELQDISC,
    libc::RTM_NEWTFILTER,
    libc::RTM_DELTFILTER,
];

/// The attributes of a link follow struct ifinfomsg.
const IFINFOMSG_BYTES: usize = 16;

/// The longest datagram of a notification is far below this.
const RECEIVE_BYTES: usize = 32 << 10;

/// Room for what is told while the agent looks at all pods: it is told of each of its own looks at a
/// qdisc, about 1 KiB of the kernel's memory each. In less room that news would always be incomplete,
/// which is a reason to look again.
const ROOM_BYTES: usize = 16 << 20;

/// A socket that the kernel tells of changes, in a runtime of tokio.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<netlink_sys::Socket>,
    buffer: Vec<u8>,
}

/// What was told since the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Indexes of the interfaces that may have lost a limit.
    pub interfaces: BTreeSet<u32>,
    /// MTU in bytes by the index of each interface that the kernel told of. It tells of a link for many
    /// reasons, so most of these are what they were.
    pub mtus: BTreeMap<u32, u32>,
    /// More happened than the socket could hold, so anything may have changed.
    pub missed: bool,
}

impl Monitor {
    /// A monitor of the namespace that the calling thread is in. What happens from now on is told.
    ///
    /// # Errors
    /// [`KernelError::Exchange`] where no such socket can be had.
    pub fn open() -> Result<Self, KernelError> {
        let failed = |call| {
            move |error: std::io::Error| KernelError::Exchange {
                doing: "open a netlink socket for notifications".into(),
                call,
                errno: Errno::from_raw(error.raw_os_error().unwrap_or_default()),
            }
        };
        let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE)
            .map_err(failed("socket"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.set_non_blocking(true).map_err(failed("fcntl O_NONBLOCK"))?;
        // Without the privilege to go beyond net.core.rmem_max it is what that allows.
        if setsockopt(&socket, sockopt::RcvBufForce, &ROOM_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &ROOM_BYTES)
                .map_err(|errno| failed("setsockopt SO_RCVBUF")(errno.into()))?;
        }
        for group in GROUPS {
            socket.add_membership(group).map_err(failed("setsockopt NETLINK_ADD_MEMBERSHIP"))?;
        }
        // SAFETY: the socket owns its descriptor, and nobody replaces or closes it in there.
        #[allow(unsafe_code, reason = "tokio has no safe way for a descriptor of another crate")]
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let socket = socket.map_err(|error| failed("epoll_ctl")(error.into()))?;
        Ok(Self { socket, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Waits for changes, and takes all that have been told so far. Nothing is lost where the waiting
    /// is given up.
    ///
    /// # Errors
    /// [`KernelError::Exchange`] where the socket is broken.
    pub async fn changes(&mut self) -> Result<Changes, KernelError> {
        let broken = |error: std::io::Error| KernelError::Exchange {
            doing: "wait for changes".into(),
            call: "epoll_wait",
            errno: Errno::from_raw(error.raw_os_error().unwrap_or_default()),
        };
        self.socket.readable().await.map_err(broken)?.clear_ready();
        self.take()
    }

    /// Readiness was cleared before, so what comes meanwhile makes the socket ready again.
    fn take(&mut self) -> Result<Changes, KernelError> {
        let mut changes = Changes::default();
        loop {
            match recv(self.socket.get_ref().as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT)
            {
                Ok(length) => changes.add(&self.buffer[..length]),
                Err(Errno::EAGAIN) => return Ok(changes),
                Err(Errno::EINTR) => {}
                // The kernel dropped what did not fit (netlink_overrun in net/netlink/af_netlink.c).
                Err(Errno::ENOBUFS) => changes.missed = true,
                Err(errno) => {
                    let doing = "read what has changed".into();
                    return Err(KernelError::Exchange { doing, call: "recv", errno });
                }
            }
        }
    }
}

impl Changes {
    /// Adds the messages of one datagram. struct ifinfomsg and struct tcmsg both have the interface's
    /// index behind their first four bytes.
    fn add(&mut self, mut datagram: &[u8]) {
        while let Some((message, rest)) = Message::first(datagram) {
            if !is_own(message.sequence) {
                self.add_message(&message);
            }
            datagram = rest;
        }
    }

    fn add_message(&mut self, message: &Message<'_>) {
        let index = wire::u32_at(message.payload, 4);
        if KINDS.contains(&message.kind) {
            self.interfaces.extend(index);
        } else if message.kind == libc::RTM_NEWLINK {
            let attributes = message.payload.get(IFINFOMSG_BYTES..).unwrap_or_default();
            let mtu = wire::attribute(attributes, libc::IFLA_MTU);
            self.mtus.extend(index.zip(mtu.and_then(|mtu| wire::u32_at(mtu, 0))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this kind about an interface: struct nlmsghdr, then the first of its payload.
    fn message(kind: u16, index: u32) -> Vec<u8> {
        let mut bytes = 24u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 14]);
        bytes.extend(index.to_ne_bytes());
        bytes
    }

    /// News of a link: struct ifinfomsg, and IFLA_MTU as its only attribute.
    fn link(index: u32, mtu: u32) -> Vec<u8> {
        let mut bytes = message(libc::RTM_NEWLINK, index);
        bytes.extend([0; 8]);
        bytes.extend([8, 0, libc::IFLA_MTU as u8, 0]);
        bytes.extend(mtu.to_ne_bytes());
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn what_this_process_asked_for_is_no_news() {
        let sequence = crate::kernel::Socket::open().unwrap().next_sequence();
        for (sequence, expected) in
            [(sequence, 0), (sequence + 1, 0), (7, 1), (sequence ^ 1 << 12, 1)]
        {
            let mut news = message(libc::RTM_NEWQDISC, 7);
            news[8..12].copy_from_slice(&sequence.to_ne_bytes());
            let mut changes = Changes::default();
            changes.add(&news);
            assert_eq!(changes.interfaces.len(), expected, "{sequence:#x}");
        }
    }

    #[test]
    fn what_takes_limits_away_names_its_interface_and_a_link_has_its_mtu() {
        let mut datagram = message(libc::RTM_DELQDISC, 7);
        datagram.extend(message(libc::RTM_NEWLINK, 8));
        datagram.extend(message(libc::RTM_DELLINK, 9));
        let mut changes = Changes::default();
        changes.add(&datagram);
        assert_eq!(changes, Changes { interfaces: [7, 9].into(), ..Changes::default() });
        // Each time as it is now, whatever the news is about.
        let mut datagram = link(8, 1500);
        datagram.extend(link(9, 1500));
        datagram.extend(link(8, 9000));
        let mut changes = Changes::default();
        changes.add(&datagram);
        let mtus = [(8, 9000), (9, 1500)].into();
        assert_eq!(changes, Changes { mtus, ..Changes::default() });
        for length in 0..24 {
            let mut cut = Changes::default();
            cut.add(&datagram[..length]);
            assert_eq!(cut, Changes::default(), "{length} bytes");
        }
    }
}
