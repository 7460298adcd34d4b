//! Observe: what one site has, asked device by device and never by a dump of all links or qdiscs.

use super::bpf;
use super::error::KernelError;
use super::filter;
use super::link::{self, Link};
use super::qdisc;
use super::socket::Socket;
use crate::shaping::site::{
    Filter, Hook, HookKind, Ifb, IfbState, Observed, Owner, Root, Side, Site,
};

/// What the kernel has at `site`, whose interface has this index in the namespace of `socket`.
/// Index 0 is no interface, as where a pod's veth is gone: then only the IFBs are looked for.
///
/// # Errors
/// What the kernel said, with what was looked up.
pub fn observe(socket: &mut Socket, site: &Site, index: u32) -> Result<Observed, KernelError> {
    let mut links = link::by_names(socket, &Hook::ALL.map(|hook| site.ifb(hook)))?.into_iter();
    let ifbs = Hook::ALL.map(|_| links.next().flatten());
    observe_beside(socket, site, index, ifbs)
}

/// As [`observe`], where the links with the names of our IFBs have been looked up before.
///
/// # Errors
/// As [`observe`].
pub fn observe_beside(
    socket: &mut Socket,
    site: &Site,
    index: u32,
    ifbs: [Option<Link>; 2],
) -> Result<Observed, KernelError> {
    let mut observed = Observed { ifbs: ifbs.map(ifb), ..Observed::default() };
    observe_qdiscs(socket, site, index, &mut observed)?;
    read_leaves(socket, site, index, &mut observed)?;
    for hook in Hook::ALL {
        let at = (hook, observed.hook);
        observed.filters[hook as usize] = filters(socket, index, at, &site.device)?;
    }
    // TCX is asked for by index in the thread's own namespace, which is the host's; in a pod's
    // nobody guards anything against the pod.
    observed.tcx = site.side == Side::Host && bpf::has_tcx(index);
    observed.disown_others(site.tag);
    Ok(observed)
}

fn ifb(link: Option<Link>) -> Ifb {
    match link {
        None => Ifb::Absent,
        Some(Link { kind: Some(kind), index, up, mtu, alias, .. }) if kind == "ifb" => {
            Ifb::Present(IfbState { index, up, mtu, alias, root: Root::default() })
        }
        Some(link) => Ifb::Taken(link.kind.unwrap_or_else(|| "physical".into())),
    }
}

/// The root qdiscs of the interface and its IFBs, and what hangs at the interface's hooks.
fn observe_qdiscs(
    socket: &mut Socket,
    site: &Site,
    index: u32,
    observed: &mut Observed,
) -> Result<(), KernelError> {
    let mut requests = Vec::new();
    if index != 0 {
        requests.push(qdisc::get_hook(index, &site.device));
        requests.push(qdisc::get_root(index, &site.device));
    }
    for hook in Hook::ALL {
        let ifb = observed.ifb_index(hook);
        requests.extend(ifb.map(|index| qdisc::get_root(index, site.ifb(hook))));
    }
    if requests.is_empty() {
        return Ok(());
    }
    let mut answers = socket.exchange(requests)?.into_iter();
    let mut next = || answers.next().unwrap_or_else(|| Ok(Vec::new()));
    if index != 0 {
        observed.hook = qdisc::hook_of(next())?;
        observed.root = qdisc::root_of(next())?;
    }
    for ifb in &mut observed.ifbs {
        if let Ifb::Present(state) = ifb {
            state.root = qdisc::root_of(next())?;
        }
    }
    Ok(())
}

/// The leaf queues of all TBFs of ours.
fn read_leaves(
    socket: &mut Socket,
    site: &Site,
    index: u32,
    observed: &mut Observed,
) -> Result<(), KernelError> {
    let mut roots = vec![(&mut observed.root, index, site.device.as_str())];
    for (ifb, hook) in observed.ifbs.iter_mut().zip(Hook::ALL) {
        if let Ifb::Present(IfbState { index, root, .. }) = ifb {
            roots.push((root, *index, site.ifb(hook)));
        }
    }
    let mut requests = Vec::new();
    let mut tbfs = Vec::new();
    for (root, index, device) in roots {
        if let Root::Ours(state) = root {
            requests.push(qdisc::get_leaf(index, device));
            tbfs.push(state);
        }
    }
    if requests.is_empty() {
        return Ok(());
    }
    for (state, answer) in tbfs.into_iter().zip(socket.exchange(requests)?) {
        (state.leaf, state.leaf_handle) = qdisc::leaf_of(answer)?;
    }
    Ok(())
}

/// Indexes of the interfaces that filters of pod-bandwidth on `link` redirect to, whichever
/// attachment made them. Nothing for an interface without hooks.
///
/// # Errors
/// What the kernel said.
pub fn redirect_targets(socket: &mut Socket, link: &Link) -> Result<Vec<u32>, KernelError> {
    let mut targets = Vec::new();
    for hook in Hook::ALL {
        let filters = filters(socket, link.index, (hook, HookKind::Clsact), &link.name)?;
        targets.extend(filters.iter().filter_map(|filter| match filter.owner {
            Owner::Ours { target, .. } => target,
            Owner::Other(_) | Owner::Foreign { .. } => None,
        }));
    }
    Ok(targets)
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
