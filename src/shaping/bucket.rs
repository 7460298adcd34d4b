//! Token buckets: from a limit in bits per second to the bytes that a TBF qdisc takes,
//! and back from the ticks that the kernel shows.
//!
//! Knows the arithmetic of net/sched/sch_tbf.c and sch_api.c, and nothing of netlink.

use super::mark::Mark;
use super::queue::{FqCodel, Queue};
use crate::policy::{Bits, BitsPerSecond, Limit, QueueKind};

/// Bytes per second: the unit at the kernel's door. Bits end in this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BytesPerSecond(pub u64);

impl From<BitsPerSecond> for BytesPerSecond {
    /// Rounds down: a limit is never exceeded by the rounding.
    fn from(rate: BitsPerSecond) -> Self {
        Self(rate.whole_bytes())
    }
}

/// Bytes that a link layer header adds to the MTU: Ethernet and one VLAN tag.
pub const LINK_HEADER_BYTES: u32 = 14 + 4;

/// A derived burst lasts this long at the limit's rate.
pub const DERIVED_BURST_MS: u64 = 4;

/// A derived burst holds at least this many full frames, else TBF would have to cut or drop them.
pub const DERIVED_BURST_FRAMES: u64 = 2;

/// The queue holds at least this many full frames beyond the burst.
pub const QUEUE_FRAMES: u64 = 3;

/// No derived burst and no derived queue is larger than this, so that a limit of many Gbit/s
/// does not let one pod pin the node's memory. 32 MiB is 25 ms at 10 Gbit/s.
pub const DERIVED_BYTES_MAX: u64 = 32 << 20;

/// A packet in a TBF's queue is never larger than this: 512 KiB is the kernel's GSO_MAX_SIZE
/// (include/linux/netdevice.h), and a qdisc counts the headers of each segment on top
/// (qdisc_pkt_len_init in net/core/dev.c), at most as much again.
pub const PACKET_BYTES_MAX: u64 = 1 << 20;

/// A second bucket is never deeper: the most that a minburst annotation takes
/// (src/policy/bounds.rs).
const PEAK_BURST_MAX: u32 = 100_000_000;

/// The second bucket of a TBF: how fast the burst may be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    /// Above the bucket's rate.
    pub rate: BytesPerSecond,
    /// Depth of the second bucket in bytes; one full frame or more.
    pub burst: u32,
}

/// What one TBF qdisc is asked to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The limit.
    pub rate: BytesPerSecond,
    /// Depth of the bucket in bytes.
    pub burst: u32,
    /// Bytes that may wait, the burst included (TBF's `limit`).
    pub limit: u32,
    /// The second bucket, where a peak rate was asked for.
    pub peak: Option<Peak>,
    /// What waits below it, and how.
    pub queue: Queue,
    /// Who wants it so.
    pub mark: Mark,
}

/// A burst that would not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a burst of {burst} ({} bytes) cannot be held: it takes {min} to {max} bytes ({} to {} bits), \
     at least one full frame of this interface (MTU {mtu} + {LINK_HEADER_BYTES}), \
     else no full packet would ever leave; raise the burst or leave it out to have it derived",
    burst.0 / 8, u64::from(*min) * 8, u64::from(*max) * 8
)]
pub struct BurstError {
    /// What was asked for.
    pub burst: Bits,
    /// The smallest burst that works here, in bytes.
    pub min: u32,
    /// The largest burst that the kernel can hold, in bytes.
    pub max: u32,
    /// The interface's MTU in bytes.
    pub mtu: u32,
}

/// One full frame of an interface, in bytes.
pub fn frame_bytes(mtu: u32) -> u32 {
    mtu.saturating_add(LINK_HEADER_BYTES)
}

impl Bucket {
    /// Token bucket for `limit` on an interface with this MTU (bytes) and this latency (ms), with
    /// a FIFO below it.
    ///
    /// # Errors
    /// A written burst that is smaller than one full frame or larger than a u32 of bytes.
    pub fn new(limit: &Limit, mtu: u32, latency_ms: u32) -> Result<Self, BurstError> {
        let rate = BytesPerSecond::from(limit.rate);
        let frame = frame_bytes(mtu);
        let burst = burst_bytes(limit, rate, mtu)?;
        let queue = transfer(rate, u64::from(latency_ms))
            .clamp(QUEUE_FRAMES * u64::from(frame), DERIVED_BYTES_MAX.max(3 * u64::from(frame)));
        let peak = limit
            .peak_rate
            .map(BytesPerSecond::from)
            .map(|rate| Peak { rate, burst: peak_burst_bytes(limit, rate, frame, burst) });
        let limit = saturate(u64::from(burst) + queue);
        Ok(Self { rate, burst, limit, peak, queue: Queue::Fifo, mark: Mark::Added })
    }

    /// The same bucket with the queue that the configuration names below it; MTU in bytes,
    /// latency in ms.
    pub fn with_queue(self, kind: QueueKind, mtu: u32, latency_ms: u32) -> Self {
        let fq_codel = FqCodel::new(self.rate, self.max_packet(), mtu, latency_ms);
        let queue = match kind {
            QueueKind::Fifo => Queue::Fifo,
            QueueKind::FqCodel => Queue::FqCodel(fq_codel),
            QueueKind::Auto => Queue::Auto(fq_codel),
        };
        Self { queue, ..self }
    }

    /// Bytes of the largest packet that passes without being cut: the smaller of both buckets
    /// (`max_size` in tbf_change, net/sched/sch_tbf.c).
    pub fn max_packet(&self) -> u32 {
        self.peak.map_or(self.burst, |peak| peak.burst.min(self.burst))
    }

    /// Whether a TBF that the kernel shows is this bucket, its queue aside.
    pub fn is_shown_as(&self, state: &TbfState) -> bool {
        self.has_numbers_of(state) && self.mark.accepts(state.mark)
    }

    /// The same, whoever set them.
    fn has_numbers_of(&self, state: &TbfState) -> bool {
        let peak_is_same = match self.peak {
            None => state.peak_rate.0 == 0,
            Some(peak) => {
                peak.rate == state.peak_rate
                    && same_ticks(ticks(peak.rate, peak.burst), state.peak_ticks)
            }
        };
        self.rate == state.rate
            && self.limit == state.limit
            && self.has_burst_of(state)
            && peak_is_same
    }

    /// Whether a TBF of the same rate shows this burst.
    pub fn has_burst_of(&self, state: &TbfState) -> bool {
        same_ticks(ticks(self.rate, self.burst), state.burst_ticks)
    }

    /// How the kernel shows a TBF of this bucket that was just made.
    pub fn to_state(&self) -> TbfState {
        TbfState {
            rate: self.rate,
            burst_ticks: ticks(self.rate, self.burst),
            limit: self.limit,
            peak_rate: self.peak.map_or(BytesPerSecond(0), |peak| peak.rate),
            peak_ticks: self.peak.map_or(0, |peak| ticks(peak.rate, peak.burst)),
            leaf: Leaf::Own,
            leaf_handle: 0,
            mark: self.mark,
        }
    }

    /// Whether `from` can become this bucket in place. If not, a packet that already waits may be
    /// larger than the new bucket; TBF would then never send it, and nothing behind it
    /// (tbf_dequeue; issue #3 has the measurement). The queue must be replaced in the same send.
    pub fn holds_queue_of(&self, from: &TbfState) -> bool {
        let new = u64::from(self.max_packet());
        // No packet beyond the burst was let in (tbf_enqueue), and a limit holds the burst.
        let holds_all = new >= PACKET_BYTES_MAX.min(u64::from(from.limit));
        holds_all
            || self.has_numbers_of(from)
            || covers(new, from.rate, from.burst_ticks, from.limit)
            || covers(new, from.peak_rate, from.peak_ticks, from.limit.max(PEAK_BURST_MAX))
    }
}

/// Whether `new` bytes last as long at `rate` as a bucket that shows this many ticks and holds at
/// most `most` bytes. Where that many bytes could wrap the ticks, they say nothing.
fn covers(new: u64, rate: BytesPerSecond, shown_ticks: u32, most: u32) -> bool {
    let may_wrap = ticks_wide(rate, u64::from(most)) > u128::from(u32::MAX);
    rate.0 > 0 && !may_wrap && ticks_wide(rate, new) + 1 >= u128::from(shown_ticks)
}

/// The leaf queue of a TBF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// The bfifo that TBF makes for itself; the kernel hides it and keeps its limit with TBF's.
    Own,
    /// A bfifo of its own handle, as we leave it after a cut; its limit in bytes.
    Bfifo(u32),
    /// An fq_codel with its numbers as the kernel shows them.
    FqCodel(FqCodel),
    /// Somebody put another qdisc there.
    Other(String),
}

/// A TBF qdisc as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TbfState {
    /// Rate in bytes per second.
    pub rate: BytesPerSecond,
    /// The burst as time at the rate, in ticks of 64 ns; wraps at 2^32.
    pub burst_ticks: u32,
    /// Bytes that may wait.
    pub limit: u32,
    /// Peak rate, 0 without a second bucket.
    pub peak_rate: BytesPerSecond,
    /// Depth of the second bucket in ticks of 64 ns at the peak rate.
    pub peak_ticks: u32,
    /// The queue below it.
    pub leaf: Leaf,
    /// Major number of that queue's handle; 0 for TBF's own.
    pub leaf_handle: u16,
    /// Who set its numbers.
    pub mark: Mark,
}

impl TbfState {
    /// The bucket that shows as this state, to put it back. The burst comes back from ticks, so it
    /// is exact to one tick, and rounded up: less than it was might not hold a full frame.
    pub fn to_bucket(&self) -> Bucket {
        let peak = (self.peak_rate.0 > 0).then(|| Peak {
            rate: self.peak_rate,
            burst: bytes_of_ticks(self.peak_rate, self.peak_ticks),
        });
        let burst = bytes_of_ticks(self.rate, self.burst_ticks);
        let queue = match self.leaf {
            Leaf::FqCodel(queue) => Queue::FqCodel(queue.to_wanted()),
            Leaf::Own | Leaf::Bfifo(_) | Leaf::Other(_) => Queue::Fifo,
        };
        Bucket { rate: self.rate, burst, limit: self.limit, peak, queue, mark: self.mark }
    }
}

fn burst_bytes(limit: &Limit, rate: BytesPerSecond, mtu: u32) -> Result<u32, BurstError> {
    let frame = frame_bytes(mtu);
    let Some(burst) = limit.burst else {
        let floor = DERIVED_BURST_FRAMES * u64::from(frame);
        let derived = transfer(rate, DERIVED_BURST_MS).clamp(floor, DERIVED_BYTES_MAX.max(floor));
        let cap = limit.max_burst.map_or(u64::MAX, |max| (max.0 / 8).max(u64::from(frame)));
        return Ok(saturate(derived.min(cap)));
    };
    match u32::try_from(burst.0 / 8) {
        Ok(bytes) if bytes >= frame => Ok(bytes),
        _ => Err(BurstError { burst, min: frame, max: u32::MAX, mtu }),
    }
}

/// The second bucket's depth: what was written, raised to one frame as Calico does
/// (makeTBF in felix/dataplane/linux/qos/qos.go); derived, 1 ms at the peak rate.
fn peak_burst_bytes(limit: &Limit, peak: BytesPerSecond, frame: u32, burst: u32) -> u32 {
    match limit.min_burst {
        Some(bytes) => saturate(bytes.0).max(frame),
        None => saturate(transfer(peak, 1)).min(burst).max(frame),
    }
}

/// Bytes that pass at `rate` in `ms` milliseconds.
fn transfer(rate: BytesPerSecond, ms: u64) -> u64 {
    (u128::from(rate.0) * u128::from(ms) / 1000).min(u128::from(u64::MAX)) as u64
}

fn saturate(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Nanoseconds of a tick (PSCHED_SHIFT 6 in include/net/pkt_sched.h).
const TICK_NS: u128 = 64;

/// Ticks that `bytes` last at `rate`, with the kernel's own rounding and its wrap at 2^32.
pub fn ticks(rate: BytesPerSecond, bytes: u32) -> u32 {
    (ticks_wide(rate, u64::from(bytes)) & u128::from(u32::MAX)) as u32
}

/// As psched_l2t_ns (include/net/sch_generic.h): ns = bytes x mult >> shift.
fn ticks_wide(rate: BytesPerSecond, bytes: u64) -> u128 {
    if rate.0 == 0 {
        return 0;
    }
    let (mult, shift) = reciprocal(rate);
    ((u128::from(bytes) * u128::from(mult)) >> shift) / TICK_NS
}

/// The most bytes that show as so many ticks.
fn bytes_of_ticks(rate: BytesPerSecond, ticks: u32) -> u32 {
    if rate.0 == 0 {
        return 0;
    }
    let (mult, shift) = reciprocal(rate);
    let next = ((u128::from(ticks) + 1) * TICK_NS) << shift;
    let bytes = (next - 1).checked_div(u128::from(mult));
    bytes.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(u32::MAX)
}

/// As psched_ratecfg_precompute__ (net/sched/sch_generic.c): ns for each byte as mult >> shift, mult
/// with 32 bits. The rate must not be 0.
fn reciprocal(rate: BytesPerSecond) -> (u32, u32) {
    const NSEC_PER_SEC: u64 = 1_000_000_000;
    let (mut factor, mut shift) = (NSEC_PER_SEC, 0u32);
    loop {
        let mult = (factor / rate.0) as u32;
        if mult & (1 << 31) != 0 || factor & (1 << 63) != 0 {
            return (mult, shift);
        }
        factor <<= 1;
        shift += 1;
    }
}

/// The kernel rounds to a tick when it shows a burst, so one tick of difference is none.
fn same_ticks(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).wrapping_add(1) <= 2
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
