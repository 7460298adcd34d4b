//! Qdiscs: TBF, its leaf queue, and clsact; written and read byte by byte.
//!
//! Layouts are those of include/uapi/linux/pkt_sched.h. netlink-packet-route has no TBF, so it is
//! encoded here on the crate's extension point.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption, TcQdiscFqCodelOption};
use nix::errno::Errno;

use super::error::KernelError;
use super::socket::{Answer, Request};
use super::wire;
use crate::shaping::bucket::{Bucket, BytesPerSecond, Leaf, TbfState, ticks};
use crate::shaping::identity::TBF_HANDLE;
use crate::shaping::mark::Mark;
use crate::shaping::queue::{FqCodel, NewLeaf};
use crate::shaping::site::{HookKind, Root};

/// Bytes of struct tcmsg.
pub(super) const TCMSG_BYTES: usize = 20;

pub(super) const TCA_KIND: u16 = 1;
pub(super) const TCA_OPTIONS: u16 = 2;

const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_PRATE64: u16 = 5;
const TCA_TBF_BURST: u16 = 6;
const TCA_TBF_PBURST: u16 = 7;

const TCA_FQ_CODEL_TARGET: u16 = 1;
const TCA_FQ_CODEL_LIMIT: u16 = 2;
const TCA_FQ_CODEL_INTERVAL: u16 = 3;
const TCA_FQ_CODEL_ECN: u16 = 4;
const TCA_FQ_CODEL_FLOWS: u16 = 5;
const TCA_FQ_CODEL_QUANTUM: u16 = 6;
const TCA_FQ_CODEL_MEMORY_LIMIT: u16 = 9;

/// Linklayer Ethernet: the kernel computes packet times itself, no rate table is needed.
const TC_LINKLAYER_ETHERNET: u8 = 1;

/// Offset of `mpu` in struct tc_ratespec.
const MPU: usize = 6;

/// The only class of a TBF, the parent of its leaf queue.
const TBF_LEAF: u16 = 1;

/// Handle of an ingress or clsact qdisc; the kernel takes no other.
pub(super) const HOOK_HANDLE: TcHandle = TcHandle { major: 0xffff, minor: 0 };

fn tbf_handle() -> TcHandle {
    TcHandle { major: TBF_HANDLE, minor: 0 }
}

pub(super) fn message(index: u32, parent: TcHandle, handle: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = parent;
    message.header.handle = handle;
    message
}

/// Asks for the root qdisc of one interface: one look-up, no dump.
pub(super) fn get_root(index: u32, device: &str) -> Request {
    get(index, TcHandle::ROOT, format!("look up the root qdisc of {device}"))
}

/// Asks for the qdisc at the hooks of one interface.
pub(super) fn get_hook(index: u32, device: &str) -> Request {
    get(index, TcHandle::INGRESS, format!("look up the ingress or clsact qdisc of {device}"))
}

/// Asks for the leaf queue of one of our TBFs.
pub(super) fn get_leaf(index: u32, device: &str) -> Request {
    get(index, leaf_parent(), format!("look up the queue below the TBF of {device}"))
}

/// ECHO because the kernel answers a look-up as it would announce a change, and sends that to the
/// one who asked only with this flag (rtnetlink_send in net/core/rtnetlink.c).
fn get(index: u32, parent: TcHandle, doing: String) -> Request {
    let message = message(index, parent, TcHandle::UNSPEC);
    Request { doing, flags: NLM_F_ECHO, message: RouteNetlinkMessage::GetQueueDiscipline(message) }
}

/// Adds a TBF as root qdisc.
pub(super) fn add_tbf(index: u32, bucket: &Bucket, replace: bool, doing: String) -> Request {
    let flags = NLM_F_CREATE | if replace { NLM_F_REPLACE } else { NLM_F_EXCL };
    tbf(index, bucket, flags, doing)
}

/// Changes the TBF that is there, in place: neither created nor replaced.
pub(super) fn change_tbf(index: u32, bucket: &Bucket, doing: String) -> Request {
    tbf(index, bucket, 0, doing)
}

fn tbf(index: u32, bucket: &Bucket, flags: u16, doing: String) -> Request {
    let mut message = message(index, TcHandle::ROOT, tbf_handle());
    message.attributes.push(TcAttribute::Kind("tbf".into()));
    message.attributes.push(TcAttribute::Options(encode_tbf(bucket)));
    Request { doing, flags, message: RouteNetlinkMessage::NewQueueDiscipline(message) }
}

/// A new queue below our TBF, under a handle that the one before does not have. Only then do all
/// kernels graft a new qdisc where one of the same kind is: without a handle newer ones change that
/// one, and what waits in it stays (tc_modify_qdisc in net/sched/sch_api.c, seen on Debian's 6.1).
pub(super) fn replace_leaf(index: u32, handle: u16, new: &NewLeaf, doing: String) -> Request {
    let (kind, options) = match new {
        // struct tc_fifo_qopt is the value itself, not a nest.
        NewLeaf::Bfifo(limit) => {
            let limit = DefaultNla::new(TCA_OPTIONS, limit.to_ne_bytes().to_vec());
            ("bfifo", TcAttribute::Other(limit))
        }
        NewLeaf::FqCodel(queue) => ("fq_codel", encode_fq_codel(queue, true)),
    };
    let mut message = message(index, leaf_parent(), TcHandle { major: handle, minor: 0 });
    message.attributes.extend([TcAttribute::Kind(kind.into()), options]);
    let flags = NLM_F_CREATE | NLM_F_REPLACE | NLM_F_EXCL;
    Request { doing, flags, message: RouteNetlinkMessage::NewQueueDiscipline(message) }
}

/// Changes the fq_codel below our TBF in place, but for its number of flows.
pub(super) fn change_leaf(index: u32, queue: &FqCodel, doing: String) -> Request {
    let mut message = message(index, leaf_parent(), TcHandle::UNSPEC);
    message.attributes.push(TcAttribute::Kind("fq_codel".into()));
    message.attributes.push(encode_fq_codel(queue, false));
    Request { doing, flags: 0, message: RouteNetlinkMessage::NewQueueDiscipline(message) }
}

fn leaf_parent() -> TcHandle {
    TcHandle { major: TBF_HANDLE, minor: TBF_LEAF }
}

/// Removes our TBF from the root. The kernel refuses if another handle or kind is there by now.
pub(super) fn delete_tbf(index: u32, doing: String) -> Request {
    let mut message = message(index, TcHandle::ROOT, tbf_handle());
    message.attributes.push(TcAttribute::Kind("tbf".into()));
    Request { doing, flags: 0, message: RouteNetlinkMessage::DelQueueDiscipline(message) }
}

pub(super) fn add_hook(index: u32, doing: String) -> Request {
    let mut message = message(index, TcHandle::CLSACT, HOOK_HANDLE);
    message.attributes.push(TcAttribute::Kind("clsact".into()));
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    Request { doing, flags, message: RouteNetlinkMessage::NewQueueDiscipline(message) }
}

/// Removes the clsact qdisc. The kernel compares the kind (tc_get_qdisc in net/sched/sch_api.c), so a
/// plain `ingress` qdisc of another program, which has the same handle, stays.
pub(super) fn delete_hook(index: u32, doing: String) -> Request {
    let mut message = message(index, TcHandle::CLSACT, HOOK_HANDLE);
    message.attributes.push(TcAttribute::Kind("clsact".into()));
    Request { doing, flags: 0, message: RouteNetlinkMessage::DelQueueDiscipline(message) }
}

/// TCA_TBF_PARMS (struct tc_tbf_qopt), then the burst in bytes, which takes the place of the
/// ticks in the struct and does not overflow, and 64-bit rates where 32 bits are too few.
fn encode_tbf(bucket: &Bucket) -> Vec<TcOption> {
    let mut parms = Vec::with_capacity(36);
    parms.extend(rate_spec(Some(bucket.rate), bucket.mark));
    parms.extend(rate_spec(bucket.peak.map(|peak| peak.rate), Mark::Added));
    parms.extend(bucket.limit.to_ne_bytes());
    parms.extend(ticks(bucket.rate, bucket.burst).to_ne_bytes());
    parms.extend(bucket.peak.map_or(0, |peak| ticks(peak.rate, peak.burst)).to_ne_bytes());
    let mut options = vec![option(TCA_TBF_PARMS, parms)];
    if bucket.rate.0 > u64::from(u32::MAX) {
        options.push(option(TCA_TBF_RATE64, bucket.rate.0.to_ne_bytes().into()));
    }
    options.push(option(TCA_TBF_BURST, bucket.burst.to_ne_bytes().into()));
    if let Some(peak) = bucket.peak {
        if peak.rate.0 > u64::from(u32::MAX) {
            options.push(option(TCA_TBF_PRATE64, peak.rate.0.to_ne_bytes().into()));
        }
        options.push(option(TCA_TBF_PBURST, peak.burst.to_ne_bytes().into()));
    }
    options
}

/// In the order of `tc`. The kernel refuses a change that names the flows, even the same number
/// (fq_codel_change in net/sched/sch_fq_codel.c).
fn encode_fq_codel(queue: &FqCodel, with_flows: bool) -> TcAttribute {
    use TcQdiscFqCodelOption::{Ecn, Flows, Interval, Limit, MemoryLimit, Quantum, Target};
    let mut options = vec![Limit(queue.packets)];
    if with_flows {
        options.push(Flows(queue.flows));
    }
    options.extend([
        Quantum(queue.quantum),
        Interval(queue.interval_us),
        Target(queue.target_us),
        Ecn(u32::from(queue.ecn)),
        MemoryLimit(queue.memory),
    ]);
    TcAttribute::Options(options.into_iter().map(TcOption::FqCodel).collect())
}

fn option(kind: u16, value: Vec<u8>) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, value))
}

/// struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
fn rate_spec(rate: Option<BytesPerSecond>, mark: Mark) -> [u8; 12] {
    let mut spec = [0; 12];
    if let Some(rate) = rate {
        spec[1] = TC_LINKLAYER_ETHERNET;
        spec[MPU..MPU + 2].copy_from_slice(&mark.mpu().to_ne_bytes());
        let rate = u32::try_from(rate.0).unwrap_or(u32::MAX);
        spec[8..].copy_from_slice(&rate.to_ne_bytes());
    }
    spec
}

/// A qdisc in an answer.
struct Qdisc {
    handle: u32,
    kind: String,
    options: Vec<u8>,
}

fn parse(payload: &[u8]) -> Option<Qdisc> {
    let attributes = payload.get(TCMSG_BYTES..)?;
    Some(Qdisc {
        handle: wire::u32_at(payload, 8)?,
        kind: wire::text(wire::attribute(attributes, TCA_KIND)?),
        options: wire::attribute(attributes, TCA_OPTIONS).unwrap_or_default().to_vec(),
    })
}

/// The answer to a look-up. The kernel says EINVAL for a qdisc that it hides, and ENOENT for none
/// (tc_get_qdisc and qdisc_get_notify in net/sched/sch_api.c).
fn found(answer: Answer) -> Result<Option<Qdisc>, KernelError> {
    match answer {
        Ok(payloads) => Ok(payloads.first().and_then(|payload| parse(payload))),
        Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::ENOENT)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The root qdisc in the answer to [`get_root`]; the leaf of a TBF of ours is not known yet.
pub(super) fn root_of(answer: Answer) -> Result<Root, KernelError> {
    let Some(qdisc) = found(answer)? else { return Ok(Root::Default) };
    let major = (qdisc.handle >> 16) as u16;
    let is_ours = qdisc.kind == "tbf" && major == TBF_HANDLE;
    if let (true, Some(state)) = (is_ours, parse_tbf(&qdisc.options)) {
        return Ok(Root::Ours(state));
    }
    Ok(match major {
        0 => Root::Default,
        _ => Root::Foreign(format!("{} {major:x}:", qdisc.kind)),
    })
}

/// What hangs at the hooks, in the answer to [`get_hook`].
pub(super) fn hook_of(answer: Answer) -> Result<HookKind, KernelError> {
    Ok(match found(answer)? {
        Some(qdisc) if qdisc.kind == "clsact" => HookKind::Clsact,
        Some(_) => HookKind::Ingress,
        None => HookKind::None,
    })
}

/// The leaf queue in the answer to [`get_leaf`], and the major number of its handle.
pub(super) fn leaf_of(answer: Answer) -> Result<(Leaf, u16), KernelError> {
    let qdisc = found(answer)?;
    let handle = qdisc.as_ref().map_or(0, |qdisc| (qdisc.handle >> 16) as u16);
    let leaf = match qdisc {
        None => Leaf::Own,
        Some(qdisc) if qdisc.kind == "bfifo" => {
            Leaf::Bfifo(wire::u32_at(&qdisc.options, 0).unwrap_or_default())
        }
        Some(qdisc) => match parse_fq_codel(&qdisc) {
            Some(queue) => Leaf::FqCodel(queue),
            None => Leaf::Other(qdisc.kind),
        },
    };
    Ok((leaf, handle))
}

pub(super) fn parse_tbf(options: &[u8]) -> Option<TbfState> {
    let parms = wire::attribute(options, TCA_TBF_PARMS)?;
    let rate = |offset: usize, wide: u16| {
        let narrow = wire::u32_at(parms, offset).map(u64::from)?;
        let wide = wire::attribute(options, wide).and_then(wire::u64_of);
        Some(BytesPerSecond(wide.unwrap_or(narrow)))
    };
    Some(TbfState {
        rate: rate(8, TCA_TBF_RATE64)?,
        peak_rate: rate(20, TCA_TBF_PRATE64)?,
        limit: wire::u32_at(parms, 24)?,
        burst_ticks: wire::u32_at(parms, 28)?,
        peak_ticks: wire::u32_at(parms, 32)?,
        leaf: Leaf::Own,
        leaf_handle: 0,
        mark: Mark::of_mpu(u16::from_ne_bytes(*parms.get(MPU..)?.first_chunk()?)),
    })
}

fn parse_fq_codel(qdisc: &Qdisc) -> Option<FqCodel> {
    let number = |kind| wire::u32_at(wire::attribute(&qdisc.options, kind)?, 0);
    if qdisc.kind != "fq_codel" {
        return None;
    }
    Some(FqCodel {
        target_us: number(TCA_FQ_CODEL_TARGET)?,
        packets: number(TCA_FQ_CODEL_LIMIT)?,
        interval_us: number(TCA_FQ_CODEL_INTERVAL)?,
        ecn: number(TCA_FQ_CODEL_ECN)? != 0,
        flows: number(TCA_FQ_CODEL_FLOWS)?,
        quantum: number(TCA_FQ_CODEL_QUANTUM)?,
        memory: number(TCA_FQ_CODEL_MEMORY_LIMIT)?,
    })
}

#[cfg(test)]
#[path = "qdisc_tests.rs"]
mod tests;
