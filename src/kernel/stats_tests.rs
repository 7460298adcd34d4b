//! Against what a 6.18 kernel dumps on x86-64, read from a socket while packets waited.

use super::super::testing::unhex;
use super::*;

/// `tc qdisc add dev v0 root handle 7062: tbf rate 1mbit burst 5000 limit 8000 mpu 1`, after forty
/// packets of 1014 bytes.
const TBF: &str = "
    00000000 03000000 00006270 ffffffff 03000000
    0800 0100 74626600
    2c00 0200 2800 0100 00 01 0000 0000 0100 48e80100 00 00 0000 0000 0000 00000000
              401f0000 68890900 00000000
    0500 0c00 00000000
    3000 0700 1400 0100 3210000000000000 05000000 00000000
              1800 0300 07000000 ba1b0000 1d000000 00000000 24000000
    2c00 0300 32100000 00000000 05000000 1d000000 24000000 00000000 00000000 07000000 ba1b0000
              00000000";

fn expected() -> TbfStats {
    TbfStats {
        index: 3,
        rate: BytesPerSecond(125_000),
        burst_bytes: 5_000,
        limit_bytes: 8_000,
        mark: Mark::Agent,
        counters: Counters {
            bytes: 4_146,
            packets: 5,
            drops: 29,
            overlimits: 36,
            backlog_bytes: 7_098,
            backlog_packets: 7,
        },
    }
}

#[test]
fn a_tbf_of_ours_is_read_with_its_counters() {
    assert_eq!(tbf(&unhex(TBF)), Some(expected()));
}

#[test]
fn what_is_not_ours_is_left_out() {
    let with = |offset: usize, value: u32| {
        let mut bytes = unhex(TBF);
        bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        tbf(&bytes)
    };
    assert_eq!(with(8, 0x0001_0000), None, "another handle");
    assert_eq!(with(8, 0x7062_0001), None, "a class");
    assert_eq!(with(12, 0x0001_0001), None, "not the root");
    assert_eq!(with(24, u32::from_ne_bytes(*b"htb\0")), None, "another kind");
}

#[test]
fn packets_beyond_32_bits_are_beside_and_what_is_unknown_is_passed_over() {
    let stats = "
        0c00 6300 0000000000000000
        1400 0100 0000000001000000 05000000 00000000
        0c00 0800 0500000001000000";
    let counted = counters(&unhex(stats));
    assert_eq!((counted.bytes, counted.packets), (1 << 32, (1 << 32) + 5));
    assert_eq!((counted.drops, counted.backlog_bytes), (0, 0), "no queue part: nothing counted");
}

#[test]
fn a_cut_off_dump_is_no_panic_and_no_other_limit() {
    let bytes = unhex(TBF);
    for length in 0..bytes.len() {
        if let Some(seen) = tbf(&bytes[..length]) {
            assert_eq!((seen.rate, seen.mark), (expected().rate, expected().mark), "{length}");
        }
    }
}

#[test]
fn an_interrupted_dump_is_what_it_brought() {
    let partial = vec![unhex(TBF)];
    let interrupted = KernelError::Interrupted { doing: String::new(), partial: partial.clone() };
    assert_eq!(whole_or_partial(Err(interrupted)).unwrap(), partial);
    let silent = KernelError::NoDevice { name: String::new(), place: "" };
    assert!(whole_or_partial(Err(silent)).is_err());
}
