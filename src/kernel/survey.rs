//! A survey of one network namespace: every link with its root qdisc, its hooks and what hangs at
//! them, whoever made it. For `doctor`, which looks for what does not fit together.
//!
//! It lists all links and all qdiscs, and the filters of each device that has hooks. So it is
//! nothing for a call by a runtime. It only reads.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::tc::{TcHandle, TcMessage};

use super::error::KernelError;
use super::filter::{self, Seen};
use super::link::Link;
use super::qdisc::{self, TCA_KIND, TCA_OPTIONS, TCMSG_BYTES};
use super::socket::{DUMP, Request, Socket};
use super::wire;
use crate::shaping::TbfState;
use crate::shaping::identity::TBF_HANDLE;
use crate::shaping::shadow::{Shadow, at_hook, redirects};
use crate::shaping::site::{Hook, HookKind, Side};

/// What a namespace has.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Its devices, in the kernel's order.
    pub devices: Vec<Device>,
}

/// One device.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// The link.
    pub link: Link,
    /// Its root qdisc, where it is not the kernel's default.
    pub root: Option<RootQdisc>,
    /// The qdisc at its hooks.
    pub hook: HookKind,
    /// The filters at each hook, in the order in which they are asked.
    pub filters: [Vec<Seen>; 2],
}

/// A root qdisc that somebody put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootQdisc {
    /// Its kind.
    pub kind: String,
    /// Major number of its handle.
    pub major: u16,
    /// Its numbers, where it is a TBF.
    pub tbf: Option<TbfState>,
}

impl RootQdisc {
    /// A TBF with a handle of ours.
    pub fn is_ours(&self) -> bool {
        self.tbf.is_some() && self.major == TBF_HANDLE
    }
}

impl std::fmt::Display for RootQdisc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:x}:", self.kind, self.major)
    }
}

impl Device {
    /// Filters of other programs before the limits at its hooks.
    pub fn shadows(&self, side: Side) -> Vec<Shadow> {
        let filters = |hook: Hook| self.filters[hook as usize].iter().map(|seen| &seen.filter);
        let limited = Hook::ALL.into_iter().filter(|hook| filters(*hook).any(redirects));
        limited.flat_map(|hook| at_hook(side, &self.link.name, hook, filters(hook))).collect()
    }
}

impl Survey {
    /// Looks at the namespace of this socket.
    ///
    /// A list that changes kept interrupting is taken as it is: what is in it is true.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn take(socket: &mut Socket) -> Result<Self, KernelError> {
        let links = listed(socket.dump(list_links))?;
        let links = links.iter().filter_map(|payload| Link::parse(payload));
        let mut devices: Vec<Device> =
            links.map(|link| Device { link, ..Device::default() }).collect();
        for payload in listed(socket.dump(list_qdiscs))? {
            enter_qdisc(&mut devices, &payload);
        }
        for device in &mut devices {
            for hook in Hook::ALL {
                device.filters[hook as usize] = filters(socket, device, hook)?;
            }
        }
        Ok(Self { devices })
    }

    /// The device of this name.
    pub fn by_name(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.link.name == name)
    }

    /// The device of this index.
    pub fn by_index(&self, index: u32) -> Option<&Device> {
        self.devices.iter().find(|device| device.link.index == index)
    }

    /// Every filter that redirects to the interface of this index, with its device.
    pub fn pointing_at(&self, index: u32) -> impl Iterator<Item = (&Device, Hook, &Seen)> {
        self.all_filters().filter(move |(_, _, seen)| seen.target == Some(index))
    }

    /// All filters with their devices and hooks.
    pub fn all_filters(&self) -> impl Iterator<Item = (&Device, Hook, &Seen)> {
        self.devices.iter().flat_map(|device| {
            Hook::ALL.into_iter().flat_map(move |hook| {
                device.filters[hook as usize].iter().map(move |seen| (device, hook, seen))
            })
        })
    }
}

fn listed(dump: Result<Vec<Vec<u8>>, KernelError>) -> Result<Vec<Vec<u8>>, KernelError> {
    match dump {
        Err(KernelError::Interrupted { partial, .. }) => Ok(partial),
        other => other,
    }
}

fn list_links() -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let message = RouteNetlinkMessage::GetLink(message);
    Request { doing: "list the interfaces".into(), flags: DUMP, message }
}

fn list_qdiscs() -> Request {
    let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    Request { doing: "list the qdiscs".into(), flags: DUMP, message }
}

/// Adds one qdisc of the dump to its device: those at the root and at the hooks.
fn enter_qdisc(devices: &mut [Device], payload: &[u8]) -> Option<()> {
    let (index, handle) = (wire::u32_at(payload, 4)?, wire::u32_at(payload, 8)?);
    let parent = TcHandle::from(wire::u32_at(payload, 12)?);
    let attributes = payload.get(TCMSG_BYTES..)?;
    let kind = wire::text(wire::attribute(attributes, TCA_KIND)?);
    let device = devices.iter_mut().find(|device| device.link.index == index)?;
    let major = (handle >> 16) as u16;
    if parent == TcHandle::INGRESS {
        device.hook = if kind == "clsact" { HookKind::Clsact } else { HookKind::Ingress };
    } else if parent == TcHandle::ROOT && major != 0 {
        let options = wire::attribute(attributes, TCA_OPTIONS).unwrap_or_default();
        let tbf = (kind == "tbf").then(|| qdisc::parse_tbf(options)).flatten();
        device.root = Some(RootQdisc { kind, major, tbf });
    }
    Some(())
}

fn filters(socket: &mut Socket, device: &Device, hook: Hook) -> Result<Vec<Seen>, KernelError> {
    match (hook, device.hook) {
        (_, HookKind::None) | (Hook::Egress, HookKind::Ingress) => return Ok(Vec::new()),
        _ => {}
    }
    let Link { index, name, .. } = &device.link;
    let dump = listed(socket.dump(|| filter::list(*index, hook, device.hook, name)));
    match dump {
        Ok(payloads) => Ok(filter::see_all(&payloads, hook)),
        // The device went away meanwhile.
        Err(error) if error.is_gone() || error.errno() == Some(nix::errno::Errno::EINVAL) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// struct tcmsg {family, ifindex, handle, parent, info}, then the kind.
    fn payload(index: u32, handle: u32, parent: u32, kind: &str) -> Vec<u8> {
        let mut payload = vec![0; 4];
        for number in [index, handle, parent, 2] {
            payload.extend(number.to_ne_bytes());
        }
        payload.extend((4 + kind.len() as u16 + 1).to_ne_bytes());
        payload.extend(TCA_KIND.to_ne_bytes());
        payload.extend(kind.as_bytes());
        payload.push(0);
        payload
    }

    fn devices() -> Vec<Device> {
        let link = Link { index: 7, name: "veth0".into(), ..Link::default() };
        vec![Device { link, ..Device::default() }]
    }

    #[test]
    fn a_qdisc_goes_to_its_device_and_its_place() {
        let mut devices = devices();
        for qdisc in [
            payload(7, 0x0001_0000, u32::MAX, "htb"),
            payload(7, 0xffff_0000, 0xffff_fff1, "clsact"),
            // The kernel's default, a child, and a device that is gone meanwhile: none of them counts.
            payload(7, 0, u32::MAX, "noqueue"),
            payload(7, 0x0002_0000, 0x0001_0001, "bfifo"),
            payload(8, 0x0003_0000, u32::MAX, "htb"),
        ] {
            enter_qdisc(&mut devices, &qdisc);
        }
        let root = devices[0].root.clone().unwrap();
        assert_eq!((root.to_string().as_str(), root.is_ours()), ("htb 1:", false));
        assert_eq!(devices[0].hook, HookKind::Clsact);
    }

    #[test]
    fn a_qdisc_that_is_cut_off_is_left_out() {
        let whole = payload(7, 0x0001_0000, u32::MAX, "htb");
        for length in 0..whole.len() {
            let mut devices = devices();
            enter_qdisc(&mut devices, &whole[..length]);
            assert_eq!(devices[0].root, None, "{length} bytes");
        }
    }
}
