//! Observe: what one site has, asked device by device and never by a dump of all links or qdiscs.

use super::bpf;
use super::error::KernelError;
use super::filter;
use super::link::{self, Link};
use super::qdisc;
use super::socket::Socket;
use crate::shaping::site::{Filter, Hook, HookKind, Ifb, IfbState, Observed, Root, Side, Site};

/// What the kernel has at `site`, whose interface has this index in the namespace of `socket`.
/// Index 0 is no interface, as where a pod's veth is gone: then only the IFBs are looked for.
///
/// # Errors
/// What the kernel said, with what was looked up.
pub fn observe(socket: &mut Socket, site: &Site, index: u32) -> Result<Observed, KernelError> {
    let device = &site.device;
    let mut requests = Vec::from(Hook::ALL.map(|hook| link::get_by_name(site.ifb(hook))));
    if index != 0 {
        requests.extend([qdisc::get_root(index, device), qdisc::get_hook(index, device)]);
    }
    let mut answers = socket.exchange(requests)?.into_iter();
    let mut next = || answers.next().unwrap_or_else(|| Ok(Vec::new()));
    let links = [link::first(next())?, link::first(next())?];
    let root = qdisc::root_of(next())?;
    let hook = qdisc::hook_of(next())?;

    let mut observed = Observed { root, hook, ..Observed::default() };
    read_leaf(socket, &mut observed.root, index, device)?;
    for (ifb, link) in observed.ifbs.iter_mut().zip(links) {
        if let Some(link) = link {
            *ifb = observe_ifb(socket, link)?;
        }
    }
    for hook in Hook::ALL {
        observed.filters[hook as usize] = filters(socket, index, (hook, observed.hook), device)?;
    }
    // TCX is asked for by index in the thread's own namespace, which is the host's; in a pod's
    // nobody guards anything against the pod.
    observed.tcx = site.side == Side::Host && bpf::has_tcx(index);
    Ok(observed)
}

fn observe_ifb(socket: &mut Socket, link: Link) -> Result<Ifb, KernelError> {
    if link.kind.as_deref() != Some("ifb") {
        return Ok(Ifb::Taken(link.kind.unwrap_or_else(|| "physical".into())));
    }
    let mut root = qdisc::root_of(socket.request(qdisc::get_root(link.index, &link.name)))?;
    read_leaf(socket, &mut root, link.index, &link.name)?;
    let Link { index, up, mtu, alias, .. } = link;
    Ok(Ifb::Present(IfbState { index, up, mtu, alias, root }))
}

fn read_leaf(
    socket: &mut Socket,
    root: &mut Root,
    index: u32,
    device: &str,
) -> Result<(), KernelError> {
    if let Root::Ours(state) = root {
        let answer = socket.request(qdisc::get_leaf(index, device));
        (state.leaf, state.leaf_handle) = qdisc::leaf_of(answer)?;
    }
    Ok(())
}

/// The filters of one hook, in the order in which they are asked; an egress side that a plain
/// ingress qdisc does not have is empty.
pub(super) fn filters(
    socket: &mut Socket,
    index: u32,
    (hook, kind): (Hook, HookKind),
    device: &str,
) -> Result<Vec<Filter>, KernelError> {
    match (hook, kind) {
        (_, HookKind::None) | (Hook::Egress, HookKind::Ingress) => return Ok(Vec::new()),
        _ => {}
    }
    let payloads = socket.dump(|| filter::list(index, hook, kind, device))?;
    Ok(filter::parse_all(&payloads, hook))
}
