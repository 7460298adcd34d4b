//! Links: look one up, create, label and remove IFBs, and find both ends of a pod's link.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::libc;
use rtnetlink::{LinkIfb, LinkUnspec};

use super::error::KernelError;
use super::netns::NetNs;
use super::socket::{Answer, DUMP, Request, Socket};
use super::wire;

/// Bytes of struct ifinfomsg (include/uapi/linux/rtnetlink.h).
const IFINFO_BYTES: usize = 16;

/// A network interface as the kernel shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind (`veth`, `ifb`, …); a physical one has none.
    pub kind: Option<String>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Its ifalias.
    pub alias: Option<String>,
    /// Index of its peer (IFLA_LINK), in the peer's namespace.
    pub peer: Option<u32>,
    /// The number by which this namespace knows the peer's, where that is another one.
    pub peer_namespace: Option<i32>,
}

impl Link {
    /// Reads an RTM_NEWLINK payload.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let flags = wire::u32_at(payload, 8)?;
        let mut link = Self {
            index: wire::u32_at(payload, 4)?,
            up: flags & libc::IFF_UP as u32 != 0,
            ..Self::default()
        };
        for (kind, value) in wire::attributes(payload.get(IFINFO_BYTES..)?) {
            match kind {
                libc::IFLA_IFNAME => link.name = wire::text(value),
                libc::IFLA_MTU => link.mtu = wire::u32_at(value, 0)?,
                libc::IFLA_LINK => link.peer = wire::u32_at(value, 0),
                libc::IFLA_LINK_NETNSID => {
                    link.peer_namespace = wire::u32_at(value, 0).map(|id| id as i32);
                }
                libc::IFLA_IFALIAS => link.alias = Some(wire::text(value)),
                libc::IFLA_LINKINFO => {
                    link.kind = wire::attribute(value, libc::IFLA_INFO_KIND).map(wire::text);
                }
                _ => {}
            }
        }
        Some(link)
    }

    /// A kind whose two ends are a pair, one of which may be in a pod.
    pub fn is_pair(&self) -> bool {
        matches!(self.kind.as_deref(), Some("veth" | "netkit"))
    }

    /// Whether the peer is in the namespace of this number. The kernel says so of its own pairs
    /// (rtnl_fill_link_netnsid in net/core/rtnetlink.c), so a pod cannot claim it.
    pub fn has_peer_in(&self, namespace: Option<i32>) -> bool {
        self.is_pair() && namespace.is_some() && self.peer_namespace == namespace
    }
}

/// The link of this name.
///
/// # Errors
/// What the kernel said; a missing link is `None`.
pub fn by_name(socket: &mut Socket, name: &str) -> Result<Option<Link>, KernelError> {
    first(socket.request(get(LinkUnspec::new_with_name(name).build(), name)))
}

/// The link of this index.
///
/// # Errors
/// What the kernel said; a missing link is `None`.
pub fn by_index(socket: &mut Socket, index: u32) -> Result<Option<Link>, KernelError> {
    first(socket.request(get_by_index(index)))
}

fn get_by_index(index: u32) -> Request {
    get(LinkUnspec::new_with_index(index).build(), &format!("with index {index}"))
}

/// The links of these names, asked for in one send; a missing one is `None`.
///
/// # Errors
/// What the kernel said.
pub fn by_names(socket: &mut Socket, names: &[&str]) -> Result<Vec<Option<Link>>, KernelError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let requests = names.iter().map(|name| get_by_name(name)).collect();
    socket.exchange(requests)?.into_iter().map(first).collect()
}

pub(super) fn get_by_name(name: &str) -> Request {
    get(LinkUnspec::new_with_name(name).build(), name)
}

fn get(mut message: LinkMessage, what: &str) -> Request {
    // Counters are most of an answer, and nobody reads them here.
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let message = RouteNetlinkMessage::GetLink(message);
    Request { doing: format!("look up the interface {what}"), flags: 0, message }
}

/// The link in the answer to a look-up.
pub(super) fn first(answer: Answer) -> Result<Option<Link>, KernelError> {
    match answer {
        Ok(payloads) => Ok(payloads.first().and_then(|payload| Link::parse(payload))),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// All IFBs of the namespace: a dump, so only for GC.
///
/// On a busy node every dump can be interrupted: one that needs several parts is, whenever a link
/// comes or goes between two of them (rtnl_dump_ifinfo in net/core/rtnetlink.c). What is in it is
/// true all the same; what is missing the next GC finds.
///
/// # Errors
/// What the kernel said.
pub fn all_ifbs(socket: &mut Socket) -> Result<Vec<Link>, KernelError> {
    let links = list(socket, "the IFBs", Some(InfoKind::Ifb))?;
    // A kernel that does not filter sends all links.
    Ok(links.into_iter().filter(|link| link.kind.as_deref() == Some("ifb")).collect())
}

/// All links of the namespace: a dump, so only where a link cannot be found by its name or index. It
/// may lack some, as [`all_ifbs`].
///
/// # Errors
/// What the kernel said.
pub fn all(socket: &mut Socket) -> Result<Vec<Link>, KernelError> {
    list(socket, "the interfaces", None)
}

fn list(socket: &mut Socket, what: &str, kind: Option<InfoKind>) -> Result<Vec<Link>, KernelError> {
    let dump = socket.dump(|| {
        let mut message = LinkMessage::default();
        let info = kind.clone().map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        message.attributes.extend(info);
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let message = RouteNetlinkMessage::GetLink(message);
        Request { doing: format!("list {what}"), flags: DUMP, message }
    });
    let payloads = match dump {
        Err(KernelError::Interrupted { partial, .. }) => partial,
        other => other?,
    };
    Ok(payloads.iter().filter_map(|payload| Link::parse(payload)).collect())
}

/// The host's end of the link of `container` in the pod, in the namespace of `host`; `None` where there
/// is none. With it, in the same send, the host's links of these names.
///
/// The pod says which index its peer has, and a pod could have moved either end. So the host's
/// link must name the pod's as its peer, and the pod's namespace as the peer's.
///
/// # Errors
/// What the kernel said.
pub fn host_end(
    host: &mut Socket,
    namespace: &NetNs,
    container: Option<&Link>,
    names: &[&str],
) -> Result<(Option<Link>, Vec<Option<Link>>), KernelError> {
    let pair = container.filter(|link| link.is_pair()).and_then(|link| Some((link, link.peer?)));
    let mut requests = Vec::new();
    if let Some((_, index)) = pair {
        requests.extend([get_by_index(index), get_namespace_id(namespace)]);
    }
    requests.extend(names.iter().map(|name| get_by_name(name)));
    if requests.is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut answers = host.exchange(requests)?.into_iter();
    let mut next = || answers.next().unwrap_or_else(|| Ok(Vec::new()));
    let mut link = None;
    if let Some((container, _)) = pair {
        let (peer, namespace_id) = (first(next())?, next());
        link = peer.filter(|link| link.is_pair() && link.peer == Some(container.index));
        if let Some(peer) = &link
            && !peer.has_peer_in(namespace_id_of(namespace_id)?)
        {
            link = None;
        }
    }
    Ok((link, answers.map(first).collect::<Result<_, _>>()?))
}

/// The pod's end of the link of `host`, by its index and so whatever its name; `None` where it is not
/// in the pod's namespace, which the host knows by the number `namespace`.
///
/// # Errors
/// What the kernel said.
pub fn pod_end(
    pod: &mut Socket,
    namespace: Option<i32>,
    host: &Link,
) -> Result<Option<Link>, KernelError> {
    let Some(index) = host.peer.filter(|_| host.has_peer_in(namespace)) else { return Ok(None) };
    let link = by_index(pod, index)?;
    Ok(link.filter(|link| link.is_pair() && link.peer == Some(host.index)))
}

/// Asks for the number by which the namespace of the socket knows another one.
fn get_namespace_id(other: &NetNs) -> Request {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(other.raw_fd() as u32));
    let doing = "look up the number of the pod's network namespace".into();
    Request { doing, flags: 0, message: RouteNetlinkMessage::GetNsId(message) }
}

/// The number by which the namespace of the socket knows another one; `None` where it does not.
///
/// # Errors
/// What the kernel said.
pub fn namespace_id(host: &mut Socket, other: &NetNs) -> Result<Option<i32>, KernelError> {
    namespace_id_of(host.request(get_namespace_id(other)))
}

/// The number in the answer; `None` where it has none.
fn namespace_id_of(answer: Answer) -> Result<Option<i32>, KernelError> {
    const NETNSA_NSID: u16 = 1;
    /// Bytes of struct rtgenmsg, padded.
    const RTGEN_BYTES: usize = 4;
    let payloads = answer?;
    let value = payloads.first().and_then(|payload| payload.get(RTGEN_BYTES..));
    let id = value.and_then(|attributes| wire::attribute(attributes, NETNSA_NSID));
    Ok(id.and_then(|value| wire::u32_at(value, 0)).map(|id| id as i32).filter(|id| *id >= 0))
}

/// ECHO: the kernel answers with the link that it made, and so with its index, from 6.2 on
/// (rtnl_configure_link in net/core/rtnetlink.c). An older one just acknowledges.
pub(super) fn create_ifb(name: &str, mtu: u32, doing: String) -> Request {
    let message = RouteNetlinkMessage::NewLink(LinkIfb::new(name).mtu(mtu).build());
    Request { doing, flags: NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO, message }
}

/// Sets alias and MTU. The kernel ignores an alias at creation.
pub(super) fn label(index: u32, mtu: u32, alias: &str, doing: String) -> Request {
    let message = LinkUnspec::new_with_index(index).mtu(mtu).alias(alias).build();
    Request { doing, flags: 0, message: RouteNetlinkMessage::SetLink(message) }
}

pub(super) fn set_up(index: u32, up: bool, doing: String) -> Request {
    let builder = LinkUnspec::new_with_index(index);
    let message = if up { builder.up() } else { builder.down() }.build();
    Request { doing, flags: 0, message: RouteNetlinkMessage::SetLink(message) }
}

pub(super) fn delete(index: u32, doing: String) -> Request {
    let message = RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build());
    Request { doing, flags: 0, message }
}

/// Puts a link into a group.
pub(super) fn set_group(index: u32, group: u32, doing: String) -> Request {
    let builder =
        LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::Group(group));
    Request { doing, flags: 0, message: RouteNetlinkMessage::SetLink(builder.build()) }
}

/// Removes all links of a group: no index and no name, else the kernel takes those (rtnl_dellink in
/// net/core/rtnetlink.c).
pub(super) fn delete_group(group: u32, doing: String) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    Request { doing, flags: 0, message: RouteNetlinkMessage::DelLink(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_link_is_no_link() {
        for length in 0..IFINFO_BYTES {
            assert_eq!(Link::parse(&vec![0; length]), None);
        }
        assert_eq!(Link::parse(&[0; IFINFO_BYTES]).unwrap(), Link::default());
    }
}
