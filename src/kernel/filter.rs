//! Filters: ours (u32 with a mirred action, or with a class alone where packets pass), and what
//! others have at a hook.
//!
//! u32 because it is on every kernel; matchall is not (docs/design.md). Layouts are those of
//! include/uapi/linux/pkt_cls.h.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionGeneric, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32Option, TcHandle, TcMirror, TcMirrorActionType, TcOption,
};

use super::qdisc::{TCA_KIND, TCA_OPTIONS, TCMSG_BYTES, message};
use super::socket::{DUMP, Request};
use super::{selector, wire};
use crate::shaping::Match;
use crate::shaping::identity::{
    COOKIE_MAGIC, FILTER_PREFS, PASS_CLASS, PASS_CLASS_MADE_HOOK, SUBNET_PREFS,
};
use crate::shaping::site::{Filter, Hook, HookKind, Owner};

pub(super) const ETH_P_ALL: u16 = 0x0003;
pub(super) const ETH_P_IP: u16 = 0x0800;
pub(super) const ETH_P_IPV6: u16 = 0x86dd;

/// Version of our cookie's layout: magic, version, flags, two zeros.
const COOKIE_VERSION: u8 = 1;
/// Flag of our cookie: the clsact qdisc is of our making.
const COOKIE_MADE_HOOK: u8 = 1;

/// The parent of a hook's filters. A plain ingress qdisc only has one side.
fn parent(hook: Hook, kind: HookKind) -> TcHandle {
    let minor = match (hook, kind) {
        (Hook::Ingress, HookKind::Ingress) => 0,
        (Hook::Ingress, _) => TcHandle::MIN_INGRESS,
        (Hook::Egress, _) => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: 0xffff, minor }
}

/// tcm_info: the preference above, the protocol in network order below.
fn info(pref: u16, protocol: u16) -> u32 {
    u32::from(pref) << 16 | u32::from(protocol.to_be())
}

/// Redirects packets that come by a hook to the interface `target`, or lets them pass.
pub(super) fn add(
    index: u32,
    (hook, kind): (Hook, HookKind),
    matches: Match,
    target: Option<u32>,
    made_hook: bool,
    doing: String,
) -> Request {
    let mut message = message(index, parent(hook, kind), TcHandle::UNSPEC);
    message.header.info = info(matches.pref(hook), selector::protocol(matches));
    // Without an action a match accepts the packet, on every kernel: u32_classify says TC_ACT_OK.
    let verdict = match target {
        Some(target) => TcFilterU32Option::Action(vec![mirred(target, made_hook)]),
        None => TcFilterU32Option::ClassId(TcHandle::from(pass_class(made_hook))),
    };
    message.attributes.push(TcAttribute::Kind("u32".into()));
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::U32(verdict),
        TcOption::U32(TcFilterU32Option::Selector(selector::selector(matches))),
    ]));
    let message = RouteNetlinkMessage::NewTrafficFilter(message);
    Request { doing, flags: NLM_F_CREATE | NLM_F_EXCL, message }
}

fn pass_class(made_hook: bool) -> u32 {
    PASS_CLASS | if made_hook { PASS_CLASS_MADE_HOOK } else { 0 }
}

fn mirred(target: u32, made_hook: bool) -> TcAction {
    let mut generic = TcActionGeneric::default();
    generic.action = TcActionType::Stolen;
    let mut mirror = TcMirror::default();
    mirror.generic = generic;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = target;
    let mut cookie = COOKIE_MAGIC.to_vec();
    cookie.extend([COOKIE_VERSION, if made_hook { COOKIE_MADE_HOOK } else { 0 }, 0, 0]);
    let mut action = TcAction::default();
    let options = vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))];
    action.attributes = vec![
        TcActionAttribute::Kind("mirred".into()),
        TcActionAttribute::Options(options),
        TcActionAttribute::Cookie(cookie),
    ];
    action
}

/// Removes one filter of ours; `alone` removes its whole preference, which u32 otherwise leaves
/// behind as an empty shell where other u32 filters share the hook.
pub(super) fn delete(
    index: u32,
    (hook, kind): (Hook, HookKind),
    filter: &Filter,
    alone: bool,
    doing: String,
) -> Request {
    let handle = if alone { 0 } else { filter.handle };
    let protocol = match filter.owner {
        Owner::Ours { matches, .. } => selector::protocol(matches),
        Owner::Foreign { .. } => selector::protocol(Match::Unknown),
    };
    let mut message = message(index, parent(hook, kind), TcHandle::from(handle));
    message.header.info = info(filter.pref, protocol);
    message.attributes.push(TcAttribute::Kind("u32".into()));
    Request { doing, flags: 0, message: RouteNetlinkMessage::DelTrafficFilter(message) }
}

/// Asks for the filters of one hook of one interface.
pub(super) fn list(index: u32, hook: Hook, kind: HookKind, device: &str) -> Request {
    let message = message(index, parent(hook, kind), TcHandle::UNSPEC);
    let message = RouteNetlinkMessage::GetTrafficFilter(message);
    Request { doing: format!("list the filters of the {hook} of {device}"), flags: DUMP, message }
}

/// The filters in the answer to [`list`], without the shells that a dump shows beside them.
pub(super) fn parse_all(payloads: &[Vec<u8>], hook: Hook) -> Vec<Filter> {
    payloads.iter().filter_map(|payload| parse(payload, hook)).collect()
}

/// A filter with the interface that it redirects to, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The filter.
    pub filter: Filter,
    /// Index of the interface that its first action redirects to. The kernel shows 0 for one that is
    /// gone (mirred_device_event in net/sched/act_mirred.c).
    pub target: Option<u32>,
}

/// As [`parse_all`], with the targets of foreign filters as well.
#[cfg(feature = "node")]
pub(super) fn see_all(payloads: &[Vec<u8>], hook: Hook) -> Vec<Seen> {
    let see = |payload: &Vec<u8>| {
        let filter = parse(payload, hook)?;
        Some(Seen { filter, target: redirect_target(payload) })
    };
    payloads.iter().filter_map(see).collect()
}

#[cfg(feature = "node")]
fn redirect_target(payload: &[u8]) -> Option<u32> {
    /// TCA_EGRESS_REDIR and TCA_INGRESS_REDIR (include/uapi/linux/tc_act/tc_mirred.h).
    const REDIRECTS: [u32; 2] = [1, 3];
    let attributes = payload.get(TCMSG_BYTES..)?;
    let options = wire::attribute(attributes, TCA_OPTIONS)?;
    let actions = match wire::text(wire::attribute(attributes, TCA_KIND)?).as_str() {
        "u32" => wire::attribute(options, TCA_U32_ACT)?,
        "matchall" => wire::attribute(options, TCA_MATCHALL_ACT)?,
        "flower" => wire::attribute(options, TCA_FLOWER_ACT)?,
        _ => return None,
    };
    let (_, action) = wire::attributes(actions).next()?;
    let kind = wire::text(wire::attribute(action, TCA_ACT_KIND)?);
    // struct tc_mirred: tc_gen (20 bytes), eaction, ifindex.
    let parms = parms(action).filter(|_| kind == "mirred")?;
    let redirects = REDIRECTS.contains(&wire::u32_at(parms, 20)?);
    redirects.then(|| wire::u32_at(parms, 24)).flatten()
}

pub(super) fn parse(payload: &[u8], hook: Hook) -> Option<Filter> {
    let (handle, info) = (wire::u32_at(payload, 8)?, wire::u32_at(payload, 16)?);
    let attributes = payload.get(TCMSG_BYTES..)?;
    let kind = wire::text(wire::attribute(attributes, TCA_KIND)?);
    let options = wire::attribute(attributes, TCA_OPTIONS)?;
    // u32 shows its hash tables (no node bits in the handle) as filters, too.
    if handle == 0 || (kind == "u32" && handle & 0xfff == 0) {
        return None;
    }
    let (pref, protocol) = ((info >> 16) as u16, u16::from_be(info as u16));
    let owner = match ours(&kind, protocol, options) {
        Some(owner) if is_place(hook, pref, protocol) => owner,
        // Ours of the other side, shown here because a foreign u32 filter has its preference.
        Some(Owner::Ours { target: Some(_), .. }) => return None,
        Some(_) if Hook::ALL.iter().any(|hook| is_place(*hook, pref, protocol)) => return None,
        _ => Owner::Foreign { takes_all: takes_all(&kind, protocol, options), kind },
    };
    Some(Filter { pref, handle, owner })
}

/// Whether ours are at this preference with this protocol.
fn is_place(hook: Hook, pref: u16, protocol: u16) -> bool {
    let [four, six] = SUBNET_PREFS[hook as usize];
    let places = [(FILTER_PREFS[hook as usize], ETH_P_ALL), (four, ETH_P_IP), (six, ETH_P_IPV6)];
    places.contains(&(pref, protocol))
}

const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_MATCHALL_ACT: u16 = 2;
#[cfg(feature = "node")]
const TCA_FLOWER_ACT: u16 = 3;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_ACT_COOKIE: u16 = 6;
/// The parameters of mirred, gact and most other actions begin with struct tc_gen.
const TCA_ACT_PARMS: u16 = 2;

/// A filter is ours by the cookie of its redirect, or by the class of one that lets packets pass.
fn ours(kind: &str, protocol: u16, options: &[u8]) -> Option<Owner> {
    if kind != "u32" {
        return None;
    }
    let matches = match wire::attribute(options, TCA_U32_SEL) {
        Some(selector) => selector::matches(protocol, selector),
        None => Match::Unknown,
    };
    let Some(actions) = wire::attribute(options, TCA_U32_ACT) else {
        let class = wire::u32_at(wire::attribute(options, TCA_U32_CLASSID)?, 0)?;
        let made_hook = class & PASS_CLASS_MADE_HOOK != 0;
        let is_ours = class == pass_class(made_hook);
        return is_ours.then_some(Owner::Ours { matches, target: None, made_hook });
    };
    let (_, action) = wire::attributes(actions).next()?;
    let cookie = wire::attribute(action, TCA_ACT_COOKIE)?;
    let flags = *cookie.strip_prefix(&COOKIE_MAGIC)?.get(1)?;
    // struct tc_mirred: tc_gen (20 bytes), eaction, ifindex.
    let target = wire::u32_at(parms(action)?, 24)?;
    let made_hook = flags & COOKIE_MADE_HOOK != 0;
    Some(Owner::Ours { matches, target: Some(target), made_hook })
}

pub(super) fn parms(action: &[u8]) -> Option<&[u8]> {
    wire::attribute(wire::attribute(action, TCA_ACT_OPTIONS)?, TCA_ACT_PARMS)
}

/// Whether a foreign filter matches every packet and ends the walk through the filters.
fn takes_all(kind: &str, protocol: u16, options: &[u8]) -> bool {
    let actions = match kind {
        "u32" if u32_matches_all(options) => wire::attribute(options, TCA_U32_ACT),
        "matchall" => wire::attribute(options, TCA_MATCHALL_ACT),
        _ => return false,
    };
    matches!(protocol, ETH_P_ALL | ETH_P_IP | ETH_P_IPV6) && ends_the_walk(actions)
}

/// struct tc_u32_sel: 16 bytes (flags, offshift, nkeys, …), then keys of 16 bytes: mask first.
fn u32_matches_all(options: &[u8]) -> bool {
    let Some(selector) = wire::attribute(options, TCA_U32_SEL) else { return false };
    let is_terminal = selector.first().is_some_and(|flags| flags & 1 != 0);
    let keys = selector.get(16..).unwrap_or_default();
    is_terminal && keys.chunks_exact(16).all(|key| wire::u32_at(key, 0) == Some(0))
}

/// Without an action a match accepts the packet (tcf_exts_exec in include/net/pkt_cls.h); with
/// actions the first that does not pipe decides. UNSPEC goes on to the next filter. Pipe goes on to
/// the next action alone: behind the last one it accepts the packet (tcf_action_exec in
/// net/sched/act_api.c), so a mirror, which pipes unless told otherwise, takes every packet.
fn ends_the_walk(actions: Option<&[u8]>) -> bool {
    const TC_ACT_UNSPEC: i32 = -1;
    const TC_ACT_RECLASSIFY: i32 = 1;
    const TC_ACT_PIPE: i32 = 3;
    let Some(actions) = actions else { return true };
    for (_, action) in wire::attributes(actions) {
        let kind = wire::attribute(action, TCA_ACT_KIND).map(wire::text);
        // struct tc_gen: index, capab, action.
        let verdict = parms(action).and_then(|parms| wire::u32_at(parms, 8)).map(|v| v as i32);
        match verdict {
            Some(TC_ACT_PIPE) => {}
            Some(TC_ACT_UNSPEC | TC_ACT_RECLASSIFY) | None => return false,
            // A policer takes what is too much and lets the rest go on.
            Some(_) => return kind.as_deref() != Some("police"),
        }
    }
    true
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
