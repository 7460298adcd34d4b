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
use super::{selector, verdict, wire};
use crate::policy::SourceKinds;
use crate::shaping::Match;
use crate::shaping::identity::{COOKIE_MAGIC, FILTER_PREFS, SUBNET_PREFS, TRACE_PREF};
use crate::shaping::site::{Filter, Hook, HookKind, Owner};
use crate::shaping::tag::{SeenTag, Stamp, Tag};

pub(super) const ETH_P_ALL: u16 = 0x0003;
pub(super) const ETH_P_IP: u16 = 0x0800;
pub(super) const ETH_P_IPV6: u16 = 0x86dd;
/// Reserved (RFC 9542, section 2): no frame should have it.
pub(super) const ETH_P_RESERVED: u16 = 0xffff;

/// Version of our cookie's layout: magic (4 bytes), version, flags, kinds of sources and a hash of the
/// subnet lists (2 bytes), and the attachment's tag (8 bytes). Version 1 ended after two zeros in place of the sources.
const COOKIE_VERSION: u8 = 2;
/// Where the sources and the tag are.
const COOKIE_SOURCES: usize = 6;
const COOKIE_TAG: usize = 8;
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

/// What a filter records of its making.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// pod-bandwidth created the hook.
    pub(super) made_hook: bool,
    pub(super) tag: Tag,
    pub(super) sources: SourceKinds,
}

/// Redirects packets that come by a hook to the interface `target`, or lets them pass.
pub(super) fn add(
    index: u32,
    (hook, kind): (Hook, HookKind),
    matches: Match,
    target: Option<u32>,
    record: Record,
    doing: String,
) -> Request {
    let mut message = message(index, parent(hook, kind), TcHandle::UNSPEC);
    message.header.info = info(matches.pref(hook), selector::protocol(matches));
    // Without an action a match accepts the packet, on every kernel: u32_classify says TC_ACT_OK.
    let verdict = match target {
        Some(target) => TcFilterU32Option::Action(vec![mirred(target, record)]),
        None => {
            let class = match matches {
                Match::Nothing(direction) => record.tag.trace_class(direction, record.made_hook),
                _ => record.tag.pass_class(record.made_hook),
            };
            TcFilterU32Option::ClassId(TcHandle::from(class))
        }
    };
    message.attributes.push(TcAttribute::Kind("u32".into()));
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::U32(verdict),
        TcOption::U32(TcFilterU32Option::Selector(selector::selector(matches))),
    ]));
    let message = RouteNetlinkMessage::NewTrafficFilter(message);
    Request { doing, flags: NLM_F_CREATE | NLM_F_EXCL, message }
}

fn mirred(target: u32, record: Record) -> TcAction {
    let mut generic = TcActionGeneric::default();
    generic.action = TcActionType::Stolen;
    let mut mirror = TcMirror::default();
    mirror.generic = generic;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = target;
    let mut cookie = COOKIE_MAGIC.to_vec();
    let flags = if record.made_hook { COOKIE_MADE_HOOK } else { 0 };
    cookie.extend([COOKIE_VERSION, flags]);
    cookie.extend(record.sources.to_bytes());
    cookie.extend(record.tag.to_bytes());
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
        Owner::Other(_) | Owner::Foreign { .. } => selector::protocol(Match::Unknown),
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
    with_next(payloads).filter_map(|(payload, next)| parse(payload, next, hook)).collect()
}

fn with_next(payloads: &[Vec<u8>]) -> impl Iterator<Item = (&Vec<u8>, Option<&Vec<u8>>)> {
    let next = payloads.iter().skip(1).map(Some).chain([None]);
    payloads.iter().zip(next)
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
    let see = |(payload, next): (&Vec<u8>, Option<&Vec<u8>>)| {
        let filter = parse(payload, next, hook)?;
        Some(Seen { filter, target: redirect_target(payload) })
    };
    with_next(payloads).filter_map(see).collect()
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

/// `next` is what the dump shows behind it.
pub(super) fn parse(payload: &[u8], next: Option<&Vec<u8>>, hook: Hook) -> Option<Filter> {
    let (handle, info) = (wire::u32_at(payload, 8)?, wire::u32_at(payload, 16)?);
    let attributes = payload.get(TCMSG_BYTES..)?;
    let kind = wire::text(wire::attribute(attributes, TCA_KIND)?);
    let options = wire::attribute(attributes, TCA_OPTIONS).unwrap_or_default();
    // Each preference is shown as a shell without a handle, and then its filters. An `fw` without
    // filters is one itself: it accepts packets by their mark (fw_classify in net/sched/cls_fw.c).
    let has_filters = next.is_some_and(|next| wire::u32_at(next, 16) == Some(info));
    if handle == 0 && (kind != "fw" || has_filters) {
        return None;
    }
    // u32 shows its hash tables (no node bits in the handle) as filters, too.
    if kind == "u32" && handle & 0xfff == 0 {
        return None;
    }
    let (pref, protocol) = ((info >> 16) as u16, u16::from_be(info as u16));
    let owner = match ours(&kind, protocol, options) {
        Some(owner) if is_place(hook, pref, protocol) => owner,
        Some(owner) => match (owner, Hook::ALL.iter().any(|hook| uses(*hook, pref))) {
            // Ours of the other side, shown here because a foreign u32 filter has its preference.
            (Owner::Ours { target: Some(_), .. }, true) => return None,
            (_, true) if Hook::ALL.iter().any(|hook| is_place(*hook, pref, protocol)) => {
                return None;
            }
            // Of a build that has other preferences: no filter that is wanted, so the plan removes it.
            (Owner::Ours { target: target @ Some(_), made_hook, stamp, .. }, false) => {
                Owner::Ours { matches: Match::Unknown, target, made_hook, stamp }
            }
            _ => foreign(handle, kind, protocol, attributes),
        },
        _ => foreign(handle, kind, protocol, attributes),
    };
    Some(Filter { pref, handle, owner })
}

fn foreign(handle: u32, kind: String, protocol: u16, attributes: &[u8]) -> Owner {
    Owner::Foreign { takes: verdict::takes(handle, protocol, attributes), kind, protocol }
}

/// Whether ours use this preference of the hook.
fn uses(hook: Hook, pref: u16) -> bool {
    let hook = hook as usize;
    pref == FILTER_PREFS[hook] || SUBNET_PREFS[hook].contains(&pref) || pref == TRACE_PREF
}

/// Whether ours are at this preference with this protocol.
fn is_place(hook: Hook, pref: u16, protocol: u16) -> bool {
    let [four, six] = SUBNET_PREFS[hook as usize];
    let places = [(FILTER_PREFS[hook as usize], ETH_P_ALL), (four, ETH_P_IP), (six, ETH_P_IPV6)];
    places.contains(&(pref, protocol))
        || (hook == Hook::Ingress && (pref, protocol) == (TRACE_PREF, ETH_P_RESERVED))
}

const TCA_U32_CLASSID: u16 = 1;
pub(super) const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
#[cfg(feature = "node")]
const TCA_MATCHALL_ACT: u16 = 2;
#[cfg(feature = "node")]
const TCA_FLOWER_ACT: u16 = 3;
pub(super) const TCA_ACT_KIND: u16 = 1;
pub(super) const TCA_ACT_OPTIONS: u16 = 2;
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
        if let Some((stamp, direction, made_hook)) = Stamp::of_trace_class(class) {
            let matches = Match::Nothing(direction);
            return Some(Owner::Ours { matches, target: None, made_hook, stamp });
        }
        let (stamp, made_hook) = Stamp::of_pass_class(class)?;
        return Some(Owner::Ours { matches, target: None, made_hook, stamp });
    };
    let (_, action) = wire::attributes(actions).next()?;
    let cookie = wire::attribute(action, TCA_ACT_COOKIE)?;
    let flags = *cookie.strip_prefix(&COOKIE_MAGIC)?.get(1)?;
    // struct tc_mirred: tc_gen (20 bytes), eaction, ifindex.
    let target = wire::u32_at(parms(action)?, 24)?;
    let made_hook = flags & COOKIE_MADE_HOOK != 0;
    Some(Owner::Ours { matches, target: Some(target), made_hook, stamp: stamp(cookie) })
}

/// The stamp in a cookie of pod-bandwidth; a cookie of version 1 has none.
fn stamp(cookie: &[u8]) -> Stamp {
    let Some(tag) = cookie.get(COOKIE_TAG..).and_then(|bytes| bytes.first_chunk()) else {
        return Stamp::default();
    };
    let sources = cookie.get(COOKIE_SOURCES..).and_then(|bytes| bytes.first_chunk());
    let sources = sources.map(|bytes| SourceKinds::of_bytes(*bytes)).unwrap_or_default();
    Stamp { tag: SeenTag::Whole(Tag::of_bytes(*tag)), sources }
}

pub(super) fn parms(action: &[u8]) -> Option<&[u8]> {
    wire::attribute(wire::attribute(action, TCA_ACT_OPTIONS)?, TCA_ACT_PARMS)
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
