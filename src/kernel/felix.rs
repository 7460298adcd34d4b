//! Felix: whose a plain `ingress` qdisc on a host interface is, and how it goes and comes back.
//!
//! Calico's Felix limits what a pod sends by an `ingress` qdisc, one u32 filter there and an IFB, which
//! it makes in this order: IFB, qdisc, filter, TBF of the IFB; it removes the IFB before the qdisc
//! (AddEgressQdisc and RemoveEgressQdisc in felix/dataplane/linux/qos/qos.go, Calico v3.32.1). Each is
//! a request of its own, so any state between them may be seen here. Beside a clsact qdisc the kernel
//! refuses Felix's, and Felix leaves what is there alone.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionGeneric, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32Option, TcHandle, TcMirror, TcMirrorActionType, TcOption,
    TcU32Key, TcU32Selector, TcU32SelectorFlags,
};

use super::error::KernelError;
use super::filter::{self, ETH_P_ALL};
use super::link::{self, Link};
use super::qdisc::{HOOK_HANDLE, TCA_KIND, TCA_OPTIONS, TCMSG_BYTES, message};
use super::socket::{Request, Socket};
use super::wire;
use crate::shaping::site::{FelixIngress, Filter, Hook, HookKind, Owner};

/// How the names of Felix's IFBs begin (ifbDevicePrefix).
const IFB_PREFIX: &str = "bwcali";

/// Preference of Felix's filter.
const PREF: u16 = 1;

/// Whether the plain `ingress` qdisc of the interface of this index is Felix's; `None` where it is, or
/// may be, another program's. `may_rule`: the interface is one that Felix may rule.
///
/// Its filter shows it, by an IFB with Felix's name. A qdisc without a filter says nothing of itself:
/// on an interface that Felix may rule, beside some IFB of Felix on the node, it is taken for Felix's,
/// which is about to add its filter. So is one whose filter is Felix's to the last word and points at
/// nothing: Felix is about to remove it.
///
/// # Errors
/// What the kernel said.
pub fn ingress(
    socket: &mut Socket,
    index: u32,
    device: &str,
    may_rule: bool,
) -> Result<Option<FelixIngress>, KernelError> {
    let (hook, kind) = (Hook::Ingress, HookKind::Ingress);
    let payloads = socket.dump(|| filter::list(index, hook, kind, device))?;
    let mut foreign = payloads.iter().enumerate().filter_map(|(at, payload)| {
        let filter = filter::parse(payload, payloads.get(at + 1), hook)?;
        matches!(filter.owner, Owner::Foreign { .. }).then_some((payload, filter))
    });
    let Some((payload, filter)) = foreign.next() else {
        // A dump, but not one that a usual ADD makes.
        let is_felixs = |ifb: &Link| ifb.name.starts_with(IFB_PREFIX);
        let shapes = may_rule && link::all_ifbs(socket)?.iter().any(is_felixs);
        return Ok(shapes.then_some(FelixIngress::Idle));
    };
    let Some((ifb, class)) = redirect(payload, &filter).filter(|_| foreign.next().is_none()) else {
        return Ok(None);
    };
    // The kernel shows index 0 for a target that is gone (mirred_device_event in net/sched/act_mirred.c).
    let target = if ifb == 0 { None } else { link::by_index(socket, ifb)? };
    Ok(match target {
        Some(link) => (link.kind.as_deref() == Some("ifb") && link.name.starts_with(IFB_PREFIX))
            .then_some(FelixIngress::Redirects { ifb, class }),
        None => may_rule.then_some(FelixIngress::Idle),
    })
}

/// Where a filter like Felix's redirects every packet to, and the filter's class.
fn redirect(payload: &[u8], filter: &Filter) -> Option<(u32, u32)> {
    const TCA_U32_CLASSID: u16 = 1;
    const TCA_U32_SEL: u16 = 5;
    const TCA_U32_ACT: u16 = 7;
    const TCA_ACT_KIND: u16 = 1;
    const TCA_EGRESS_REDIR: u32 = 1;
    const TC_ACT_STOLEN: u32 = 4;
    const TERMINAL: u8 = 1;

    let protocol = u16::from_be(wire::u32_at(payload, 16)? as u16);
    let attributes = payload.get(TCMSG_BYTES..)?;
    let kind = wire::text(wire::attribute(attributes, TCA_KIND)?);
    let options = wire::attribute(attributes, TCA_OPTIONS)?;
    if (filter.pref, protocol, kind.as_str()) != (PREF, ETH_P_ALL, "u32") {
        return None;
    }
    // struct tc_u32_sel: flags first, 16 bytes in all; then one key, all zeros.
    let selector = wire::attribute(options, TCA_U32_SEL)?;
    let key = selector.get(16..)?;
    if selector.first()? & TERMINAL == 0 || key.len() != 16 || key.iter().any(|byte| *byte != 0) {
        return None;
    }
    let class = wire::attribute(options, TCA_U32_CLASSID).and_then(|class| wire::u32_at(class, 0));
    let mut actions = wire::attributes(wire::attribute(options, TCA_U32_ACT)?);
    let (action, others) = (actions.next()?.1, actions.next());
    let is_mirred = wire::text(wire::attribute(action, TCA_ACT_KIND)?) == "mirred";
    // struct tc_mirred: struct tc_gen (index, capab, action, …; 20 bytes), eaction, ifindex.
    let parms = filter::parms(action).filter(|_| is_mirred && others.is_none())?;
    let does = (wire::u32_at(parms, 8)?, wire::u32_at(parms, 20)?);
    let target = wire::u32_at(parms, 24)?;
    (does == (TC_ACT_STOLEN, TCA_EGRESS_REDIR)).then_some((target, class.unwrap_or_default()))
}

/// Removes an `ingress` qdisc, and its filters with it. With the kind, because a clsact qdisc has the
/// same handle: the kernel then refuses where one is there by now.
///
/// Removed and added, and not replaced by one request with NLM_F_REPLACE: until "bpf: Fix too early
/// release of tcx_entry" (2024) kernels with TCX may free what the old and the new one share.
pub(super) fn delete_ingress(index: u32, doing: String) -> Request {
    let message = RouteNetlinkMessage::DelQueueDiscipline(qdisc(index));
    Request { doing, flags: 0, message }
}

/// Makes it again.
pub(super) fn add_ingress(index: u32, doing: String) -> Request {
    let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc(index));
    Request { doing, flags: NLM_F_CREATE | NLM_F_EXCL, message }
}

fn qdisc(index: u32) -> netlink_packet_route::tc::TcMessage {
    let mut message = message(index, TcHandle::INGRESS, HOOK_HANDLE);
    message.attributes.push(TcAttribute::Kind("ingress".into()));
    message
}

/// Adds Felix's filter again, word for word.
pub(super) fn add_redirect(index: u32, ifb: u32, class: u32, doing: String) -> Request {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.keys = vec![TcU32Key::default()];
    selector.nkeys = 1;
    let mut options = Vec::new();
    if class != 0 {
        options.push(TcOption::U32(TcFilterU32Option::ClassId(TcHandle::from(class))));
    }
    options.push(TcOption::U32(TcFilterU32Option::Action(vec![mirred(ifb)])));
    options.push(TcOption::U32(TcFilterU32Option::Selector(selector)));
    let mut message = message(index, HOOK_HANDLE, TcHandle::UNSPEC);
    message.header.info = u32::from(PREF) << 16 | u32::from(ETH_P_ALL.to_be());
    message.attributes.push(TcAttribute::Kind("u32".into()));
    message.attributes.push(TcAttribute::Options(options));
    let message = RouteNetlinkMessage::NewTrafficFilter(message);
    Request { doing, flags: NLM_F_CREATE | NLM_F_EXCL, message }
}

fn mirred(ifb: u32) -> TcAction {
    let mut mirror = TcMirror::default();
    mirror.generic = TcActionGeneric::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = ifb;
    let options = vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))];
    let mut action = TcAction::default();
    action.attributes =
        vec![TcActionAttribute::Kind("mirred".into()), TcActionAttribute::Options(options)];
    action
}

#[cfg(test)]
#[path = "felix_tests.rs"]
mod tests;
