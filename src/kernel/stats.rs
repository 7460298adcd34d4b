//! Statistics: our TBFs with their counters, and all links, by one dump each.
//!
//! For those who look at the whole node. A call by a runtime never comes here: a dump walks every
//! device there is.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::tc::TcMessage;

use super::error::KernelError;
use super::link::Link;
use super::qdisc::{self, TCA_KIND, TCA_OPTIONS, TCMSG_BYTES};
use super::socket::{Answer, DUMP, Request, Socket};
use super::wire;
use crate::shaping::bucket::{BytesPerSecond, TbfState};
use crate::shaping::identity::TBF_HANDLE;
use crate::shaping::mark::Mark;

const TCA_STATS2: u16 = 7;

/// Of include/uapi/linux/gen_stats.h.
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;
const TCA_STATS_PKT64: u16 = 8;

/// tcm_parent of a root qdisc (TC_H_ROOT).
const ROOT: u32 = u32::MAX;

/// What a qdisc has counted since it was made.
///
/// The kernel keeps drops and overlimits in 32 bits: they begin again at 0 after 4,294,967,295.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that it let pass.
    pub bytes: u64,
    /// Packets that it let pass.
    pub packets: u64,
    /// Packets that it, or the queue below it, dropped.
    pub drops: u32,
    /// How often it had a packet and not the tokens for it.
    pub overlimits: u32,
    /// Bytes that wait now.
    pub backlog_bytes: u32,
    /// Packets that wait now.
    pub backlog_packets: u32,
}

/// One of our TBFs, as the root of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TbfStats {
    /// Index of the device.
    pub index: u32,
    /// Rate in bytes per second.
    pub rate: BytesPerSecond,
    /// Burst in bytes.
    pub burst_bytes: u32,
    /// Bytes that may wait.
    pub limit_bytes: u32,
    /// Who set these numbers.
    pub mark: Mark,
    /// What it has counted.
    pub counters: Counters,
}

/// All our TBFs in the socket's namespace.
///
/// # Errors
/// What the kernel said.
pub fn tbfs(socket: &mut Socket) -> Result<Vec<TbfStats>, KernelError> {
    let dump = socket.dump(|| Request {
        doing: "list the qdiscs with their counters".into(),
        flags: DUMP,
        message: RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()),
    });
    Ok(whole_or_partial(dump)?.iter().filter_map(|payload| tbf(payload)).collect())
}

/// All links of the socket's namespace.
///
/// # Errors
/// What the kernel said.
pub fn links(socket: &mut Socket) -> Result<Vec<Link>, KernelError> {
    let dump = socket.dump(|| {
        let mut message = LinkMessage::default();
        // The TBF has counted already, and the link's counters are most of an answer.
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let message = RouteNetlinkMessage::GetLink(message);
        Request { doing: "list the interfaces".into(), flags: DUMP, message }
    });
    Ok(whole_or_partial(dump)?.iter().filter_map(|payload| Link::parse(payload)).collect())
}

/// On a node where something changes all the time a dump may never be whole. What it brought is true
/// all the same; one device may be missing, and is there the next time.
fn whole_or_partial(answer: Answer) -> Answer {
    match answer {
        Err(KernelError::Interrupted { partial, .. }) => Ok(partial),
        other => other,
    }
}

/// Reads an RTM_NEWQDISC payload; `None` for what is not ours.
fn tbf(payload: &[u8]) -> Option<TbfStats> {
    let (handle, parent) = (wire::u32_at(payload, 8)?, wire::u32_at(payload, 12)?);
    let attributes = payload.get(TCMSG_BYTES..)?;
    let is_ours = handle == u32::from(TBF_HANDLE) << 16 && parent == ROOT;
    if !is_ours || wire::text(wire::attribute(attributes, TCA_KIND)?) != "tbf" {
        return None;
    }
    let state: TbfState = qdisc::parse_tbf(wire::attribute(attributes, TCA_OPTIONS)?)?;
    let counters = wire::attribute(attributes, TCA_STATS2).map(counters);
    Some(TbfStats {
        index: wire::u32_at(payload, 4)?,
        rate: state.rate,
        burst_bytes: state.to_bucket().burst,
        limit_bytes: state.limit,
        mark: state.mark,
        counters: counters.unwrap_or_default(),
    })
}

/// Reads TCA_STATS2. A part that is missing or cut counts as nothing counted.
fn counters(stats: &[u8]) -> Counters {
    let part = |kind| wire::attribute(stats, kind).unwrap_or_default();
    // struct gnet_stats_basic {bytes: u64, packets: u32}; 64 bits of packets are beside it since 5.5.
    let (basic, queue) = (part(TCA_STATS_BASIC), part(TCA_STATS_QUEUE));
    let packets = wire::u32_at(basic, 8).unwrap_or_default();
    // struct gnet_stats_queue {qlen, backlog, drops, requeues, overlimits}.
    let [backlog_packets, backlog_bytes, drops, _requeues, overlimits] =
        std::array::from_fn(|number| wire::u32_at(queue, 4 * number).unwrap_or_default());
    Counters {
        bytes: wire::u64_of(basic).unwrap_or_default(),
        packets: wire::u64_of(part(TCA_STATS_PKT64)).unwrap_or(u64::from(packets)),
        drops,
        overlimits,
        backlog_bytes,
        backlog_packets,
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
