//! What a filter of another program takes away from the filters behind it, judged by what the kernel
//! shows of it. What is not known here may take some packets: it is named, and never overlooked.
//!
//! Attributes are those of include/uapi/linux/pkt_cls.h and include/uapi/linux/tc_act.

use super::filter::{ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_U32_SEL};
use super::qdisc::{TCA_KIND, TCA_OPTIONS};
use super::wire;
use crate::shaping::Takes;

const TCA_CHAIN: u16 = 11;

/// What a filter takes, by its handle, its protocol and the attributes behind struct tcmsg.
///
/// Flags for hardware (skip_sw, in_hw) change nothing: a packet that hardware takes comes to no hook.
pub(super) fn takes(handle: u32, protocol: u16, attributes: &[u8]) -> Takes {
    // Only a filter of chain 0 that goes to another chain has it asked, and that one is judged.
    let chain = wire::attribute(attributes, TCA_CHAIN).and_then(|chain| wire::u32_at(chain, 0));
    if chain.is_some_and(|chain| chain != 0) {
        return Takes::Nothing;
    }
    let kind = wire::attribute(attributes, TCA_KIND).map(wire::text).unwrap_or_default();
    let options = wire::attribute(attributes, TCA_OPTIONS).unwrap_or_default();
    let outcome = outcome(&kind, options);
    match matches(&kind, handle, protocol, options) {
        Takes::All if !outcome.goes_on => Takes::All,
        Takes::All | Takes::Some if outcome.accepts => Takes::Some,
        _ => Takes::Nothing,
    }
}

/// Which packets a filter is for, whatever it does with them.
fn matches(kind: &str, handle: u32, protocol: u16, options: &[u8]) -> Takes {
    let (matches, protocol) = match kind {
        "u32" => (u32_matches(handle, options), protocol),
        "matchall" => (Takes::All, protocol),
        "flower" => flower_matches(protocol, options),
        "basic" => (basic_matches(options), protocol),
        _ => (Takes::Some, protocol),
    };
    match protocol {
        ETH_P_ALL | ETH_P_IP | ETH_P_IPV6 => matches,
        _ => matches.min(Takes::Some),
    }
}

/// struct tc_u32_sel: 16 bytes (flags, offshift, nkeys, …), then keys of 16 bytes: mask first.
fn u32_matches(handle: u32, options: &[u8]) -> Takes {
    const TCA_U32_LINK: u16 = 3;
    const TCA_U32_INDEV: u16 = 8;
    const TCA_U32_MARK: u16 = 10;
    const TC_U32_TERMINAL: u8 = 1;
    let has = |kind| wire::attribute(options, kind).is_some();
    let Some(selector) = wire::attribute(options, TCA_U32_SEL) else { return Takes::Some };
    if selector.first().is_none_or(|flags| flags & TC_U32_TERMINAL == 0) {
        // The walk ends at terminal ones alone; this one may lead to some (u32_classify in
        // net/sched/cls_u32.c).
        return if has(TCA_U32_LINK) { Takes::Some } else { Takes::Nothing };
    }
    // The kernel's own tables, in which each walk begins, have this bit (gen_new_htid there).
    let is_asked_always = handle >> 31 == 1;
    let mut keys = selector.get(16..).unwrap_or_default().chunks_exact(16);
    let is_for_all = keys.all(|key| wire::u32_at(key, 0) == Some(0));
    match is_asked_always && is_for_all && !has(TCA_U32_INDEV) && !has(TCA_U32_MARK) {
        true => Takes::All,
        false => Takes::Some,
    }
}

/// All that is no class, action or flag is a key (fl_dump in net/sched/cls_flower.c). The Ethernet
/// type is one that narrows the filter to a protocol.
fn flower_matches(protocol: u16, options: &[u8]) -> (Takes, u16) {
    const TCA_FLOWER_KEY_ETH_TYPE: u16 = 8;
    /// TCA_FLOWER_CLASSID, TCA_FLOWER_ACT, TCA_FLOWER_FLAGS, TCA_FLOWER_IN_HW_COUNT.
    const NO_KEYS: [u16; 4] = [1, 3, 22, 86];
    let mut protocol = protocol;
    let mut matches = Takes::All;
    for (kind, value) in wire::attributes(options) {
        match (kind, value.first_chunk()) {
            (TCA_FLOWER_KEY_ETH_TYPE, Some(bytes)) => protocol = u16::from_be_bytes(*bytes),
            (kind, _) if NO_KEYS.contains(&kind) => {}
            _ => matches = Takes::Some,
        }
    }
    (matches, protocol)
}

/// A tree without matches takes all (tcf_em_tree_match in include/net/pkt_cls.h). The kernel shows
/// such a tree as one of no matches (tcf_em_tree_dump in net/sched/ematch.c).
fn basic_matches(options: &[u8]) -> Takes {
    const TCA_BASIC_EMATCHES: u16 = 2;
    const TCA_EMATCH_TREE_HDR: u16 = 1;
    let Some(tree) = wire::attribute(options, TCA_BASIC_EMATCHES) else { return Takes::All };
    // struct tcf_ematch_tree_hdr: nmatches, progid.
    let header = wire::attribute(tree, TCA_EMATCH_TREE_HDR).unwrap_or_default();
    match header.first_chunk::<2>().map(|count| u16::from_ne_bytes(*count)) {
        Some(0) => Takes::All,
        _ => Takes::Some,
    }
}

/// What may become of a packet that a filter matches. Neither: it is dropped.
#[derive(Clone, Copy)]
struct Outcome {
    /// The filters behind it may be asked.
    goes_on: bool,
    /// The walk may end there, with the packet accepted or sent elsewhere.
    accepts: bool,
}

const UNKNOWN: Outcome = Outcome { goes_on: true, accepts: true };

/// What the actions of a filter do, wherever its kind has them.
fn outcome(kind: &str, options: &[u8]) -> Outcome {
    const TCA_BPF_FLAGS: u16 = 8;
    const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
    // TCA_…_ACT, and TCA_…_POLICE for a policer as it was before there were actions.
    let (act, police) = match kind {
        "u32" => (7, Some(6)),
        "matchall" => (2, None),
        "flower" => (3, None),
        "basic" => (3, Some(4)),
        "fw" => (4, Some(2)),
        "route" => (6, Some(5)),
        "flow" => (9, Some(10)),
        "cgroup" => (1, Some(2)),
        "bpf" => {
            let flags = wire::attribute(options, TCA_BPF_FLAGS).and_then(|f| wire::u32_at(f, 0));
            if flags.is_some_and(|flags| flags & TCA_BPF_FLAG_ACT_DIRECT != 0) {
                return UNKNOWN;
            }
            (1, Some(2))
        }
        _ => return UNKNOWN,
    };
    match police.and_then(|police| wire::attribute(options, police)) {
        Some(police) => of_results([police_results(police)]),
        None => {
            let actions = wire::attribute(options, act).unwrap_or_default();
            of_results(wire::attributes(actions).map(|(_, action)| results(action)))
        }
    }
}

/// What a list of actions comes to: the first that does not pipe decides (tcf_action_exec in
/// net/sched/act_api.c). UNSPEC goes on to the next filter. A pipe goes on to the next action alone:
/// behind the last one it accepts the packet, so a mirror, which pipes unless told otherwise, ends the
/// walk. No action accepts, too (tcf_exts_exec in include/net/pkt_cls.h).
///
/// GOTO_CHAIN ends the walk, too: no chain comes back, and behind its end the packet is accepted. With
/// RECLASSIFY the packet begins anew and meets the same filter again, until it is dropped, or is changed
/// and goes past it (__tcf_classify in net/sched/cls_api.c).
fn of_results(actions: impl IntoIterator<Item = Option<[i32; 2]>>) -> Outcome {
    const TC_ACT_UNSPEC: i32 = -1;
    const TC_ACT_RECLASSIFY: i32 = 1;
    const TC_ACT_SHOT: i32 = 2;
    const TC_ACT_PIPE: i32 = 3;
    const TC_ACT_JUMP: i32 = 1;
    let mut outcome = Outcome { goes_on: false, accepts: false };
    for results in actions {
        let Some(results) = results else { return UNKNOWN };
        for result in results {
            match result {
                TC_ACT_UNSPEC => outcome.goes_on = true,
                TC_ACT_RECLASSIFY | TC_ACT_SHOT | TC_ACT_PIPE => {}
                jump if jump >> 28 == TC_ACT_JUMP => return UNKNOWN,
                _ => outcome.accepts = true,
            }
        }
        if !results.contains(&TC_ACT_PIPE) {
            return outcome;
        }
    }
    Outcome { accepts: true, ..outcome }
}

/// What an action may return, but for dropping a packet with which it fails; `None`: nobody knows.
fn results(action: &[u8]) -> Option<[i32; 2]> {
    const TCA_GACT_PROB: u16 = 3;
    let kind = wire::text(wire::attribute(action, TCA_ACT_KIND)?);
    let options = wire::attribute(action, TCA_ACT_OPTIONS)?;
    // TCA_…_PARMS, which begins with struct tc_gen: index, capab, action.
    let parms = match kind.as_str() {
        "police" => return police_results(options),
        "gact" | "mirred" | "skbedit" | "vlan" | "sample" | "pedit" | "skbmod" | "tunnel_key"
        | "mpls" | "simple" => 2,
        "ct" | "nat" | "csum" | "connmark" => 1,
        _ => return None,
    };
    let result = result_at(options, parms, 8)?;
    // struct tc_gact_p: ptype, pval, paction. At random or each so many packets it is this result.
    let other = result_at(options, TCA_GACT_PROB, 4).filter(|_| kind == "gact");
    Some([result, other.unwrap_or(result)])
}

/// What a policer returns above its rate, and below it: OK unless it was told otherwise, which ends the
/// walk (tcf_police_act and tcf_police_dump in net/sched/act_police.c).
fn police_results(options: &[u8]) -> Option<[i32; 2]> {
    const TC_ACT_OK: i32 = 0;
    const TCA_POLICE_TBF: u16 = 1;
    const TCA_POLICE_RESULT: u16 = 5;
    // struct tc_police: index, action.
    let above = result_at(options, TCA_POLICE_TBF, 4)?;
    Some([above, result_at(options, TCA_POLICE_RESULT, 0).unwrap_or(TC_ACT_OK)])
}

fn result_at(options: &[u8], attribute: u16, offset: usize) -> Option<i32> {
    let result = wire::u32_at(wire::attribute(options, attribute)?, offset)?;
    Some(result as i32)
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
