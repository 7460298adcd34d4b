//! The queue below a token bucket: which one is wanted, with what numbers, and which steps bring
//! it there.
//!
//! Knows the arithmetic of net/sched/sch_fq_codel.c and how TBF treats its leaf
//! (net/sched/sch_tbf.c), and nothing of netlink.

use super::bucket::{Bucket, BytesPerSecond, Leaf, TbfState, frame_bytes};
use super::plan::{Batch, Step};
use super::site::Place;

/// CoDel's usual target: how long packets of one flow may wait on (RFC 8289, section 4.4).
const TARGET_MIN_US: u64 = 5_000;

/// CoDel's usual interval of 100 ms, less its usual target. A target that a small rate needs moves
/// the interval by as much, so that the interval stays longer than a round trip behind the queue.
const INTERVAL_BEYOND_TARGET_US: u64 = 95_000;

/// The usual largest GSO packet (GSO_LEGACY_MAX_SIZE in include/linux/netdevice.h), in bytes.
const GSO_BYTES: u64 = 65_536;

/// What may wait lasts at least this long at the rate: one interval, so that CoDel drops and not
/// the end of the queue.
const QUEUE_MS: u64 = 100;

/// At least so many full frames may wait: three initial windows of TCP.
const QUEUE_FRAMES: u64 = 32;

/// fq_codel counts memory (`truesize`), which is about twice the bytes of full frames.
const MEMORY_PER_BYTE: u64 = 2;

/// No queue takes more memory than this, which is the kernel's own default.
const MEMORY_MAX: u64 = 32 << 20;

/// The kernel's default of packets; the memory limit is what counts.
const PACKETS: u32 = 10_240;

/// Hash buckets for flows; 64 bytes each. The kernel's 1024 are for a whole host.
const FLOWS: u32 = 256;

/// Bytes of an Ethernet header, which a qdisc counts in a packet.
const ETHERNET_BYTES: u32 = 14;

/// The quantum that the kernel keeps: it raises less and refuses more (fq_codel_change in
/// net/sched/sch_fq_codel.c). Bytes.
const QUANTUM_MIN: u32 = 256;
const QUANTUM_MAX: u32 = 1 << 20;

/// The queue that a bucket is to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Queue {
    /// One FIFO of the bucket's `limit`.
    #[default]
    Fifo,
    /// fq_codel, or an error.
    FqCodel(FqCodel),
    /// fq_codel where the kernel has it, else the FIFO. A FIFO that is there already is right too:
    /// nobody can tell from it whether the kernel lacks the other.
    Auto(FqCodel),
}

/// The numbers of an fq_codel qdisc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FqCodel {
    /// Microseconds that a packet may wait before CoDel begins to count.
    pub target_us: u32,
    /// Microseconds for which it must wait longer than that before a packet is dropped.
    pub interval_us: u32,
    /// Packets that may wait.
    pub packets: u32,
    /// Hash buckets for flows. The kernel cannot change it later.
    pub flows: u32,
    /// Bytes that a flow may send before it is the next one's turn.
    pub quantum: u32,
    /// Bytes of memory that may wait.
    pub memory: u32,
    /// Mark instead of drop where a flow can be told so.
    pub ecn: bool,
}

impl FqCodel {
    /// fq_codel below a bucket of this rate whose largest packet has `max_packet` bytes, on an
    /// interface with this MTU (bytes). A latency (ms) beyond 100 ms makes more room.
    ///
    /// The target is 5 ms, but never less than 1.5 frames or one largest packet last at the rate:
    /// a queue of one packet must not look like a standing one.
    ///
    /// The quantum is one full frame as a qdisc counts it, without room for a VLAN tag: what the
    /// kernel would derive on the interface itself (psched_mtu). Below an IFB it would derive less than
    /// a frame from the MTU of that ([`super::site::IFB_MTU`]).
    pub fn new(rate: BytesPerSecond, max_packet: u32, mtu: u32, latency_ms: u32) -> Self {
        let frame = u64::from(frame_bytes(mtu));
        let largest = u64::from(max_packet).min(GSO_BYTES);
        let lasts = |bytes: u64| duration_us(rate, bytes);
        let target = TARGET_MIN_US.max(lasts(frame * 3 / 2)).max(lasts(largest));
        let queue = u128::from(rate.0) * u128::from(QUEUE_MS.max(u64::from(latency_ms))) / 1000;
        let queue = queue.max(u128::from(QUEUE_FRAMES * frame));
        let memory = (queue * u128::from(MEMORY_PER_BYTE)).min(u128::from(MEMORY_MAX));
        Self {
            target_us: saturate(target),
            interval_us: saturate(target.saturating_add(INTERVAL_BEYOND_TARGET_US)),
            packets: PACKETS,
            flows: FLOWS,
            quantum: mtu.saturating_add(ETHERNET_BYTES).clamp(QUANTUM_MIN, QUANTUM_MAX),
            memory: memory as u32,
            ecn: true,
        }
    }

    /// How the kernel shows these numbers: it keeps times in units of 1024 ns (codel_time_t,
    /// include/net/codel.h).
    pub fn shown(self) -> Self {
        Self {
            target_us: codel_us(self.target_us),
            interval_us: codel_us(self.interval_us),
            ..self
        }
    }

    /// The numbers that the kernel shows as these, to put them back. It rounds down, so writing
    /// what it showed would lose one more unit; one microsecond more never is another one.
    pub fn to_wanted(self) -> Self {
        Self {
            target_us: self.target_us.saturating_add(1),
            interval_us: self.interval_us.saturating_add(1),
            ..self
        }
    }
}

/// A queue that is put below a TBF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewLeaf {
    /// A FIFO of so many bytes.
    Bfifo(u32),
    /// fq_codel with these numbers.
    FqCodel(FqCodel),
}

impl NewLeaf {
    /// A new, empty one of the kind that `state` has; for what is not ours, a FIFO.
    pub fn like(state: &TbfState) -> Self {
        match state.leaf {
            Leaf::FqCodel(queue) => Self::FqCodel(queue.to_wanted()),
            Leaf::Own | Leaf::Bfifo(_) | Leaf::Other(_) => Self::Bfifo(state.limit),
        }
    }
}

/// The steps that follow the making of a TBF, which has made a FIFO for itself. `stamps_leaf`: that FIFO
/// has no handle, and a handle must tell whose the TBF is.
pub(super) fn below_new(place: Place, bucket: &Bucket, stamps_leaf: bool) -> Batch {
    let put = |leaf, optional| Step::ReplaceLeaf { place, leaf, was: None, optional };
    let fifo = put(NewLeaf::Bfifo(bucket.limit), false);
    match bucket.queue {
        Queue::Fifo if stamps_leaf => vec![fifo],
        Queue::Fifo => Vec::new(),
        Queue::FqCodel(queue) => vec![put(NewLeaf::FqCodel(queue), false)],
        // The FIFO first: the kernel may not have the other one.
        Queue::Auto(queue) if stamps_leaf => vec![fifo, put(NewLeaf::FqCodel(queue), true)],
        Queue::Auto(queue) => vec![put(NewLeaf::FqCodel(queue), true)],
    }
}

/// The step that gives a queue that is right a handle that records which attachment its TBF is for.
pub(super) fn stamp(place: Place, bucket: &Bucket, state: &TbfState) -> Step {
    let leaf = match (bucket.queue, &state.leaf) {
        (Queue::FqCodel(queue) | Queue::Auto(queue), Leaf::FqCodel(_)) => NewLeaf::FqCodel(queue),
        _ => NewLeaf::Bfifo(bucket.limit),
    };
    Step::ReplaceLeaf { place, leaf, was: None, optional: false }
}

/// The steps for the queue below a TBF of ours that is there; `changes` says that the TBF is
/// changed before. A queue whose packets the new bucket may not be able to send is emptied.
pub(super) fn below_old(place: Place, bucket: &Bucket, state: &TbfState, changes: bool) -> Batch {
    let empties = !bucket.holds_queue_of(state);
    let was = match &state.leaf {
        // The kernel cannot make a TBF's own FIFO again, but one like it.
        Leaf::Own => Leaf::Bfifo(state.limit),
        leaf => leaf.clone(),
    };
    let replace =
        |leaf| vec![Step::ReplaceLeaf { place, leaf, was: Some(was.clone()), optional: false }];
    let fifo = NewLeaf::Bfifo(bucket.limit);
    match (bucket.queue, &state.leaf) {
        (Queue::Fifo | Queue::Auto(_), Leaf::Own) if !empties => Vec::new(),
        // A change of TBF's limit sets the leaf's too (fifo_set_limit in net/sched/sch_fifo.c).
        (Queue::Fifo | Queue::Auto(_), Leaf::Bfifo(limit))
            if !empties && (changes || *limit == bucket.limit) =>
        {
            Vec::new()
        }
        (Queue::Fifo, _) | (Queue::Auto(_), Leaf::Own | Leaf::Bfifo(_)) => replace(fifo),
        (Queue::FqCodel(wanted) | Queue::Auto(wanted), Leaf::FqCodel(is)) => {
            if empties || wanted.flows != is.flows {
                replace(NewLeaf::FqCodel(wanted))
            } else if wanted.shown() == *is {
                Vec::new()
            } else {
                vec![Step::ChangeLeaf { place, from: *is, to: wanted }]
            }
        }
        (Queue::FqCodel(wanted), _) => replace(NewLeaf::FqCodel(wanted)),
        // The FIFO first: the kernel may not have the other one, and somebody's must go.
        (Queue::Auto(_), Leaf::Other(_)) => {
            let mut batch = replace(fifo);
            batch.extend(below_new(place, bucket, false));
            batch
        }
    }
}

/// Microseconds that `bytes` last at `rate`, rounded up.
fn duration_us(rate: BytesPerSecond, bytes: u64) -> u64 {
    let us = (u128::from(bytes) * 1_000_000).div_ceil(u128::from(rate.0.max(1)));
    u64::try_from(us).unwrap_or(u64::MAX)
}

/// As fq_codel_change and codel_time_to_us do one after the other.
fn codel_us(us: u32) -> u32 {
    ((((u64::from(us) * 1_000) >> 10) << 10) / 1_000) as u32
}

fn saturate(us: u64) -> u32 {
    u32::try_from(us).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
