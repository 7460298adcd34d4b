//! The arithmetic of token buckets: any limit on any interface, and the change from one to another.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use pod_bandwidth::kernel::fuzzing;
use pod_bandwidth::policy::{Bits, BitsPerSecond, Bytes, Limit};
use pod_bandwidth::shaping::bucket::{
    BytesPerSecond, DERIVED_BYTES_MAX, PACKET_BYTES_MAX, frame_bytes,
};
use pod_bandwidth::shaping::plan::plan;
use pod_bandwidth::shaping::site::{Place, Root};
use pod_bandwidth::shaping::undo::undo;
use pod_bandwidth::shaping::{Bucket, Leaf, Observed, Shape, Side, TbfState, describe};
use pod_bandwidth_fuzz::{check_message, site};

#[derive(Arbitrary, Debug)]
struct Input {
    /// Numbers as the policy lets them through; else any, which may only not panic.
    checked: bool,
    mtu: u32,
    latency_ms: u32,
    from: Numbers,
    to: Numbers,
}

#[derive(Arbitrary, Debug)]
struct Numbers {
    rate: u64,
    burst: Option<u64>,
    max_burst: Option<u64>,
    peak_rate: Option<u64>,
    min_burst: Option<u64>,
}

fuzz_target!(|input: Input| {
    let limit = |numbers: &Numbers| if input.checked { checked(numbers) } else { raw(numbers) };
    let latency_ms = if input.checked { 1 + input.latency_ms % 10_000 } else { input.latency_ms };
    let limits = [limit(&input.from), limit(&input.to)];
    let buckets = limits.map(|limit| {
        let bucket = Bucket::new(&limit, input.mtu, latency_ms);
        match &bucket {
            Ok(bucket) => check(&limit, input.mtu, bucket),
            Err(error) => check_message(&error.to_string()),
        }
        bucket
    });
    if let [Ok(from), Ok(to)] = buckets {
        change(from, to, input.mtu, input.checked);
    }
});

fn raw(numbers: &Numbers) -> Limit {
    Limit {
        rate: BitsPerSecond(numbers.rate),
        burst: numbers.burst.map(Bits),
        max_burst: numbers.max_burst.map(Bits),
        peak_rate: numbers.peak_rate.map(BitsPerSecond),
        min_burst: numbers.min_burst.map(Bytes),
    }
}

/// The same within the ranges of the policy: a low byte picks the magnitude, so that small rates
/// and bursts come as often as large ones.
fn checked(numbers: &Numbers) -> Limit {
    let within = |number: u64, least: u64, most: u64| {
        let magnitude = number >> (number & 63);
        least + magnitude % (most - least + 1)
    };
    let rate = within(numbers.rate, 1_000, 1_000_000_000_000_000);
    let burst = |burst: u64| Bits(within(burst, 1_000, 34_359_738_360));
    let peak = numbers.peak_rate.map(|peak| within(peak, rate + 8, 1_010_000_000_000_000));
    Limit {
        rate: BitsPerSecond(rate),
        burst: numbers.burst.map(burst),
        max_burst: numbers.max_burst.map(burst),
        peak_rate: peak.map(BitsPerSecond),
        min_burst: peak
            .and(numbers.min_burst)
            .map(|bytes| Bytes(within(bytes, 1_000, 100_000_000))),
    }
}

fn check(limit: &Limit, mtu: u32, bucket: &Bucket) {
    let frame = frame_bytes(mtu);
    assert!(bucket.rate.0.saturating_mul(8) <= limit.rate.0, "never above the limit: {bucket:?}");
    assert!(bucket.max_packet() >= frame, "a full frame passes: {bucket:?}");
    let queue = bucket.limit - bucket.burst;
    assert!(bucket.limit == u32::MAX || u64::from(queue) >= 3 * u64::from(frame), "{bucket:?}");
    let most = DERIVED_BYTES_MAX.max(3 * u64::from(frame));
    assert!(u64::from(queue) <= most, "memory is bounded: {bucket:?}");
    match limit.burst {
        Some(burst) => assert_eq!(u64::from(bucket.burst), burst.0 / 8),
        None => assert!(u64::from(bucket.burst) <= most, "{bucket:?}"),
    }
    let state = bucket.to_state();
    assert!(bucket.is_shown_as(&state), "{bucket:?}");
    // What we write is what we would read.
    assert_eq!(fuzzing::root(&fuzzing::tbf(bucket)), Root::Ours(state), "{bucket:?}");
    check_message(&describe::numbers(bucket));
}

/// From one bucket to another on the same interface.
fn change(from: Bucket, to: Bucket, mtu: u32, checked: bool) {
    let site = site(Side::Host, "veth0");
    // As ADD leaves it: the queue's handle tells whose the TBF is.
    let [leaf_handle, _] = site.leaf_handles(Place::Device);
    let state = TbfState { leaf: Leaf::Bfifo(from.limit), leaf_handle, ..from.to_state() };
    let observed = Observed { root: Root::Ours(state), ..Observed::default() };
    let shape = |bucket| Shape { root: Some(bucket), ..Shape::default() };
    if checked {
        // A second ADD changes nothing.
        assert_eq!(plan(&site, &shape(from), &observed), Ok(Vec::new()), "{from:?}");
        check_queue(from, to);
        put_back(from);
    }
    let batches = plan(&site, &shape(to), &observed).expect("ours is in nobody's way");
    for step in batches.iter().flatten() {
        check_message(&describe::doing(&site, step));
        undo(step);
    }
    let findings = describe::findings(&site, &batches, [true; 2]);
    for finding in findings.broken.iter().chain(&findings.untidy) {
        check_message(finding);
    }
}

/// A bucket that is put back after a failure passes what the first one did.
fn put_back(bucket: Bucket) {
    let seconds = |rate: BytesPerSecond, burst: u32| u64::from(burst) / rate.0;
    let peak_seconds = bucket.peak.map_or(0, |peak| seconds(peak.rate, peak.burst));
    // From 274 s on the ticks wrap.
    if seconds(bucket.rate, bucket.burst).max(peak_seconds) < 270 {
        let state = bucket.to_state();
        let back = state.to_bucket();
        assert!(back.max_packet() >= bucket.max_packet(), "{bucket:?} {back:?}");
        assert!(back.is_shown_as(&state), "{bucket:?} {back:?}");
    }
}

/// A change in place leaves no packet in the queue that the new bucket can never send.
fn check_queue(from: Bucket, to: Bucket) {
    let state = from.to_state();
    if !to.holds_queue_of(&state) || to.is_shown_as(&state) {
        return;
    }
    let queued = u64::from(from.max_packet()).min(PACKET_BYTES_MAX);
    // The kernel shows a burst in ticks, so it is only known to two of them.
    let ticks = |rate: BytesPerSecond| rate.0 * 2 * 64 / 1_000_000_000 + 2;
    let slack = ticks(from.rate).max(from.peak.map_or(0, |peak| ticks(peak.rate)));
    assert!(u64::from(to.max_packet()) + slack >= queued, "{from:?} to {to:?}");
}
