//! What a private network needs beyond the plugin's own requests: a veth between two
//! namespaces, an address, and a list of all that a namespace holds. For the demo; a call by a
//! runtime never comes here.

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::tc::TcMessage;
use rtnetlink::{AddressMessageBuilder, LinkUnspec, LinkVeth};

use super::error::KernelError;
use super::link;
use super::netns::NetNs;
use super::qdisc::{TCA_KIND, TCMSG_BYTES};
use super::socket::{DUMP, Request, Socket};
use super::wire;

/// One end of a veth.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Name of the interface.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its IPv4 address.
    pub address: Ipv4Addr,
}

/// What one namespace holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Its interfaces.
    pub links: Vec<LinkItem>,
    /// Its qdiscs, those of hooks included.
    pub qdiscs: Vec<QdiscItem>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkItem {
    /// Its name.
    pub name: String,
    /// Its kind, empty where it has none.
    pub kind: String,
}

/// A qdisc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QdiscItem {
    /// Name of its interface.
    pub device: String,
    /// Its kind.
    pub kind: String,
    /// Its handle, the major number in the upper half.
    pub handle: u32,
}

/// Makes a veth, one end in the namespace of `socket` and the other in `pod`. Both are down and
/// have no address.
///
/// # Errors
/// What the kernel said; EOPNOTSUPP where it has no veth.
pub fn create_veth(
    socket: &mut Socket,
    here: &VethEnd<'_>,
    there: &VethEnd<'_>,
    pod: &NetNs,
) -> Result<(), KernelError> {
    let peer = LinkUnspec::new_with_name(there.name)
        .address(there.mac.to_vec())
        .setns_by_fd(pod.raw_fd())
        .build();
    let message = LinkVeth::new(here.name, there.name)
        .address(here.mac.to_vec())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    let doing = format!("make the veth {} with the peer {}", here.name, there.name);
    let message = RouteNetlinkMessage::NewLink(message);
    socket.request(Request { doing, flags: NLM_F_CREATE | NLM_F_EXCL, message })?;
    Ok(())
}

/// Gives an interface its address and sets it up.
///
/// # Errors
/// What the kernel said, or that there is no such interface.
pub fn bring_up(socket: &mut Socket, end: &VethEnd<'_>, prefix: u8) -> Result<(), KernelError> {
    let Some(found) = link::by_name(socket, end.name)? else {
        return Err(KernelError::NoDevice { name: end.name.into(), place: "the demo's network" });
    };
    let message = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(found.index)
        .address(end.address, prefix)
        .build();
    let address = Request {
        doing: format!("give {} the address {}/{prefix}", end.name, end.address),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        message: RouteNetlinkMessage::NewAddress(message),
    };
    let up = link::set_up(found.index, true, format!("set {} up", end.name));
    socket.exchange(vec![address, up])?.into_iter().try_for_each(|answer| answer.map(drop))
}

/// All interfaces and qdiscs of the socket's namespace. Two dumps: never on a node's own namespace.
///
/// # Errors
/// What the kernel said.
pub fn inventory(socket: &mut Socket) -> Result<Inventory, KernelError> {
    let links = socket.dump(|| {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let message = RouteNetlinkMessage::GetLink(message);
        Request { doing: "list the interfaces".into(), flags: DUMP, message }
    })?;
    let links: Vec<_> = links.iter().filter_map(|payload| link::Link::parse(payload)).collect();
    let qdiscs = socket.dump(|| Request {
        doing: "list the qdiscs".into(),
        flags: DUMP,
        message: RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()),
    })?;
    Ok(Inventory {
        qdiscs: qdiscs.iter().filter_map(|payload| qdisc(payload, &links)).collect(),
        links: links
            .into_iter()
            .map(|link| LinkItem { name: link.name, kind: link.kind.unwrap_or_default() })
            .collect(),
    })
}

/// Reads an RTM_NEWQDISC payload.
fn qdisc(payload: &[u8], links: &[link::Link]) -> Option<QdiscItem> {
    let index = wire::u32_at(payload, 4)?;
    Some(QdiscItem {
        device: links.iter().find(|link| link.index == index)?.name.clone(),
        kind: wire::text(wire::attribute(payload.get(TCMSG_BYTES..)?, TCA_KIND)?),
        handle: wire::u32_at(payload, 8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qdisc_is_named_by_the_device_that_its_index_belongs_to() {
        // given struct tcmsg {family, ifindex 7, handle 7062:, parent root, info} and a kind
        let mut payload = vec![0; 4];
        for number in [7u32, 0x7062_0000, u32::MAX, 2] {
            payload.extend(number.to_ne_bytes());
        }
        payload.extend([8, 0, 1, 0]);
        payload.extend(b"tbf\0");
        let link = |index, name: &str| link::Link { index, name: name.into(), ..<_>::default() };

        // then it is read, with the name of the device of that index
        let links = [link(6, "lo"), link(7, "eth0")];
        let want = QdiscItem { device: "eth0".into(), kind: "tbf".into(), handle: 0x7062_0000 };
        assert_eq!(qdisc(&payload, &links), Some(want));
        // and one of a device that is gone meanwhile, or one that is cut off, is left out
        assert_eq!(qdisc(&payload, &links[..1]), None);
        for length in 0..payload.len() {
            assert_eq!(qdisc(&payload[..length], &links), None, "{length} bytes");
        }
    }
}
