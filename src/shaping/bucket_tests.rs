use proptest::prelude::*;

use super::*;
use crate::policy::Bytes;

fn limit(rate: u64) -> Limit {
    Limit {
        rate: BitsPerSecond(rate),
        burst: None,
        max_burst: None,
        peak_rate: None,
        min_burst: None,
    }
}

#[test]
fn a_derived_burst_is_4_ms_and_two_frames_at_least() {
    // rate bit/s, MTU → burst bytes, limit bytes with 25 ms
    for (rate, mtu, burst, queue) in [
        (10_000_000, 1500, 5_000, 31_250),
        (2_000_000, 1500, 3_036, 6_250),
        (1_000, 1500, 3_036, 3 * 1_518),
        (100_000_000, 1500, 50_000, 312_500),
        (10_000_000, 9000, 18_036, 31_250),
        (10_000_000, 65_535, 131_106, 3 * 65_553),
        (1_000_000_000_000_000, 1500, 32 << 20, 32 << 20),
    ] {
        let bucket = Bucket::new(&limit(rate), mtu, 25).unwrap();
        assert_eq!((bucket.burst, bucket.limit), (burst, burst + queue), "{rate} bit/s, MTU {mtu}");
    }
}

#[test]
fn a_written_burst_is_used_as_written_or_refused() {
    for (bits, expected) in [
        (8 * 1518, Some(1518)),
        (8 * 1518 + 7, Some(1518)),
        (8 * 1518 - 1, None),
        (8 * 4_294_967_295, Some(u32::MAX)),
        (8 * 4_294_967_296, None),
    ] {
        let limit = Limit { burst: Some(Bits(bits)), ..limit(10_000_000) };
        let bucket = Bucket::new(&limit, 1500, 25);
        assert_eq!(bucket.as_ref().ok().map(|b| b.burst), expected, "{bits} bits");
        if let Err(error) = bucket {
            let text = error.to_string();
            assert!(text.contains("1518 to 4294967295 bytes"), "{text}");
        }
    }
}

#[test]
fn a_node_maximum_caps_a_derived_burst_but_leaves_one_frame() {
    for (max_bits, expected) in [(8 * 2_000, 2_000), (8 * 100, 1_518), (8 * 9_000, 5_000)] {
        let limit = Limit { max_burst: Some(Bits(max_bits)), ..limit(10_000_000) };
        assert_eq!(Bucket::new(&limit, 1500, 25).unwrap().burst, expected);
    }
}

#[test]
fn a_peak_bucket_holds_one_frame() {
    for (min_burst, expected) in
        [(None, 1_518), (Some(Bytes(1_000)), 1_518), (Some(Bytes(4_000)), 4_000)]
    {
        let limit =
            Limit { peak_rate: Some(BitsPerSecond(12_000_000)), min_burst, ..limit(10_000_000) };
        let peak = Bucket::new(&limit, 1500, 25).unwrap().peak.unwrap();
        assert_eq!((peak.rate.0, peak.burst), (1_500_000, expected));
    }
}

#[test]
fn a_rate_rounds_down_to_bytes() {
    assert_eq!(BytesPerSecond::from(BitsPerSecond(1_007)).0, 125);
}

/// `tc qdisc add dev x root tbf rate 10mbit burst 5000 limit 36000` shows buffer 0xf424.
#[test]
fn ticks_are_the_kernels() {
    assert_eq!(ticks(BytesPerSecond(1_250_000), 5_000), 0xf424);
}

#[test]
fn a_smaller_bucket_needs_a_new_queue_a_larger_one_does_not() {
    let bucket = |rate| Bucket::new(&limit(rate), 1500, 25).unwrap();
    for (from, to, in_place) in [
        (10_000_000, 50_000_000, true),
        (50_000_000, 5_000_000, false),
        (10_000_000, 10_000_000, true),
        (1_000_000, 2_000_000, true),
        (2_000_000_000, 1_000_000_000, false),
        (9_000_000_000, 4_000_000_000, true),
    ] {
        assert_eq!(bucket(to).holds_queue_of(&bucket(from).to_state()), in_place, "{from} → {to}");
    }
}

/// 274.9 s are 2^32 ticks: 34400 bytes at 1 kbit/s show as the 0.3 s beyond.
#[test]
fn a_burst_that_wraps_is_not_taken_for_a_small_one() {
    let wrapping = |burst: u64| {
        let limit = Limit { burst: Some(Bits(8 * burst)), ..limit(1_000) };
        Bucket::new(&limit, 1500, 25).unwrap()
    };
    let from = wrapping(34_400).to_state();
    assert!(ticks(from.rate, 1_518) > from.burst_ticks, "it looks smaller than one frame");
    assert!(!wrapping(1_518).holds_queue_of(&from));
    assert!(wrapping(34_400).holds_queue_of(&from), "the same again changes nothing");
    assert!(wrapping(50_000).holds_queue_of(&from));
}

/// A tick is 8 bytes at 1 Gbit/s and 8000 at the largest rate.
#[test]
fn a_burst_that_is_put_back_holds_a_full_frame_again() {
    for rate in [1_000, 10_000_000, 1_000_000_000, 1_000_000_000_000_000] {
        let peak_rate = Some(BitsPerSecond(rate + 8));
        let limit = Limit { burst: Some(Bits(8 * 1_518)), peak_rate, ..limit(rate) };
        let state = Bucket::new(&limit, 1500, 25).unwrap().to_state();
        let back = state.to_bucket();
        assert!(back.max_packet() >= 1_518 && back.is_shown_as(&state), "{rate}: {back:?}");
    }
}

#[test]
fn a_peak_that_wraps_is_not_taken_for_a_small_one() {
    let wrapping = |rate: u64, min_burst: u64| {
        let (peak_rate, min_burst) = (Some(BitsPerSecond(2 * rate)), Some(Bytes(min_burst)));
        Bucket::new(&Limit { peak_rate, min_burst, ..limit(rate) }, 1500, 25).unwrap()
    };
    // 2^32 ticks at 10 kB/s are 2748779 bytes.
    let from = wrapping(40_000, 2_750_000).to_state();
    assert!(from.peak_ticks < ticks(from.peak_rate, 1_518));
    assert!(!wrapping(40_000, 1_518).holds_queue_of(&from));
}

proptest! {
    #[test]
    fn a_bucket_is_shown_as_itself_and_comes_back(
        rate in 1_000u64..=1_000_000_000_000_000, burst in 8u64 * 1518..8 * 50_000_000,
    ) {
        let limit = Limit { burst: Some(Bits(burst)), ..limit(rate) };
        let bucket = Bucket::new(&limit, 1500, 25).unwrap();
        let state = bucket.to_state();
        prop_assert!(bucket.is_shown_as(&state));
        prop_assert!(bucket.holds_queue_of(&state));
        if u64::from(bucket.burst) * 1_000_000_000 / bucket.rate.0 < 64 * u64::from(u32::MAX) {
            prop_assert!(state.to_bucket().is_shown_as(&state));
        }
    }

    #[test]
    fn another_rate_limit_or_burst_is_seen(rate in 8_000u64..1_000_000_000, more in 1u32..1000) {
        let bucket = Bucket::new(&limit(rate), 1500, 25).unwrap();
        let state = bucket.to_state();
        let rate = Bucket { rate: BytesPerSecond(bucket.rate.0 + u64::from(more)), ..bucket };
        let queue = Bucket { limit: bucket.limit + more, ..bucket };
        // 64 ns are 8 bytes at 1 Gbit/s: a smaller difference does not show.
        let burst = Bucket { burst: bucket.burst + 23 + more, ..bucket };
        prop_assert!(![rate, queue, burst].iter().any(|other| other.is_shown_as(&state)));
    }
}
