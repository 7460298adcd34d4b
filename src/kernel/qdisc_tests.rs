//! Against what `tc` of iproute2 6.1 sends on x86-64, captured with `strace -e write=all`.

use super::super::testing::{captured, unhex, wire};
use super::*;
use crate::shaping::bucket::Peak;
use crate::shaping::queue::Queue;

const INDEX: u32 = 3;

fn bucket() -> Bucket {
    Bucket {
        rate: BytesPerSecond(1_250_000),
        burst: 5_000,
        limit: 36_250,
        peak: None,
        queue: Queue::Fifo,
        mark: Mark::Added,
    }
}

fn fast() -> Bucket {
    let peak = Peak { rate: BytesPerSecond(7_500_000_000), burst: 15_140 };
    let rate = BytesPerSecond(6_250_000_000);
    Bucket { rate, burst: 5_000_000, limit: 36_250_000, peak: Some(peak), ..bucket() }
}

/// `tc qdisc add dev X root handle 7062: tbf rate 10mbit burst 5000 limit 36250`, but without
/// the rate table (TCA_TBF_RTAB) and its cell_log and cell_align, which the kernel only reads
/// where the linklayer is unknown (tbf_change in net/sched/sch_tbf.c).
#[test]
fn a_tbf_is_what_tc_sends_without_its_rate_table() {
    let (kind, flags, bytes) = wire(add_tbf(INDEX, &bucket(), false, String::new()));
    assert_eq!((kind, flags), (36, NLM_F_CREATE | NLM_F_EXCL));
    let expected = "
        00000000 03000000 00006270 ffffffff 00000000
        0800 0100 74626600
        3400 0200
          2800 0100 00 01 0000 0000 0000 d0121300
                    00 00 0000 0000 0000 00000000
                    9a8d0000 24f40000 00000000
          0800 0600 88130000";
    assert_eq!(bytes, unhex(expected));
}

/// `tc qdisc add dev X root handle 7062: tbf rate 50gbit burst 5000000 limit 36250000
/// peakrate 60gbit mtu 15140` sends RATE64 and PRATE64 beside a saturated 32-bit rate.
/// The ticks are the kernel's own rounding, which is one below the exact 12,500 here.
#[test]
fn rates_beyond_32_bits_go_beside() {
    let (_, _, bytes) = wire(add_tbf(INDEX, &fast(), true, String::new()));
    let expected = "
        00000000 03000000 00006270 ffffffff 00000000
        0800 0100 74626600
        5400 0200
          2800 0100 00 01 0000 0000 0000 ffffffff
                    00 01 0000 0000 0000 ffffffff
                    90212902 d3300000 1f000000
          0c00 0400 80 6e 87 74 01 00 00 00
          0800 0600 404b4c00
          0c00 0500 00 eb 08 bf 01 00 00 00
          0800 0700 243b0000";
    assert_eq!(bytes, unhex(expected));
}

/// The same `tc … mpu 1` has `01 00` before the rate, and the kernel shows it again: `tc -d -j` has
/// `"mpu":1` (iproute2 6.1 on 6.18).
#[test]
fn a_mark_is_the_mpu_of_the_rate() {
    let marked = Bucket { mark: Mark::Agent, ..bucket() };
    let (_, _, bytes) = wire(add_tbf(INDEX, &marked, false, String::new()));
    let mut expected = wire(add_tbf(INDEX, &bucket(), false, String::new())).2;
    assert_eq!(expected[36..48], unhex("00 01 0000 0000 0000 d0121300"));
    expected[42] = 1;
    assert_eq!(bytes, expected);
}

#[test]
fn a_change_neither_creates_nor_replaces() {
    let (kind, flags, bytes) = wire(change_tbf(INDEX, &bucket(), String::new()));
    assert_eq!((kind, flags), (36, 0));
    assert_eq!(bytes, wire(add_tbf(INDEX, &bucket(), false, String::new())).2);
}

/// `tc qdisc add dev X clsact` and `tc qdisc del dev X clsact`. The kernel compares the kind.
#[test]
fn a_hook_is_what_tc_sends() {
    let add = "3000000024000506b7c7046b0000000000000000030000000000fffff1ffffff00000000
               0b000100636c736163740000";
    assert_eq!(wire(add_hook(INDEX, String::new())), captured(add));
    let del = "3000000025000500b8c7046b0000000000000000030000000000fffff1ffffff00000000
               0b000100636c736163740000";
    assert_eq!(wire(delete_hook(INDEX, String::new())), captured(del));
}

/// The handle that a captured request does not have.
const LEAF: u16 = 0x7064;

fn with_handle((kind, flags, mut bytes): (u16, u16, Vec<u8>)) -> (u16, u16, Vec<u8>) {
    bytes[10..12].copy_from_slice(&LEAF.to_ne_bytes());
    (kind, flags | NLM_F_EXCL, bytes)
}

/// `tc qdisc replace dev X parent 7062:1 bfifo limit 18125`, and EXCL and a handle on top.
#[test]
fn a_new_leaf_is_what_tc_sends_and_exclusive() {
    let hex = "3800000024000505b8c7046b0000000000000000030000000000000001006270000000000
               a000100626669666f00000008000200cd460000";
    let ours = wire(replace_leaf(INDEX, LEAF, &NewLeaf::Bfifo(18_125), String::new()));
    assert_eq!(ours, with_handle(captured(hex)));
}

/// `tc qdisc replace dev X parent 7062:1 fq_codel limit 10240 flows 256 quantum 1514
/// interval 100000us target 5000us ecn memory_limit 250000`, and EXCL and a handle on top.
const FQ_CODEL: &str = "7000000024000505b0d0046b0000000000000000030000000000000001006270000000000d
    00010066715f636f64656c000000003c000200080002000028000008000500000100000800 0600ea050000
    08000300a086010008000100881300000800040001000000080009 0090d00300";

fn fq_codel() -> FqCodel {
    let (target_us, interval_us) = (5_000, 100_000);
    FqCodel {
        target_us,
        interval_us,
        packets: 10_240,
        flows: 256,
        quantum: 1514,
        memory: 250_000,
        ecn: true,
    }
}

#[test]
fn a_new_fq_codel_is_what_tc_sends_and_exclusive() {
    let new = NewLeaf::FqCodel(fq_codel());
    let ours = wire(replace_leaf(INDEX, LEAF, &new, String::new()));
    assert_eq!(ours, with_handle(captured(FQ_CODEL)));
}

/// As `tc qdisc change …` sends it without `flows`: no flag, and TCA_FQ_CODEL_FLOWS left out.
#[test]
fn a_changed_fq_codel_does_not_name_its_flows() {
    let (_, flags, bytes) = wire(change_leaf(INDEX, &fq_codel(), String::new()));
    assert_eq!(flags, 0);
    assert_eq!(bytes[12..16], [1, 0, 0x62, 0x70]);
    let options = wire::attribute(&bytes[TCMSG_BYTES..], TCA_OPTIONS).unwrap();
    let kinds: Vec<u16> = wire::attributes(options).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [2, 6, 3, 1, 4, 9]);
}

#[test]
fn an_fq_codel_is_read_back() {
    let (_, _, bytes) = captured(FQ_CODEL);
    let options = wire::attribute(&bytes[TCMSG_BYTES..], TCA_OPTIONS).unwrap();
    let leaf = leaf_of(answer("fq_codel", 0x8001_0000, options)).unwrap();
    assert_eq!(leaf, (Leaf::FqCodel(fq_codel()), 0x8001));
    let foreign = leaf_of(answer("fq_codel", 0x8001_0000, &options[..8])).unwrap();
    assert_eq!(foreign.0, Leaf::Other("fq_codel".into()));
}

/// An answer as the kernel gives it: the request's own layout, behind a tcmsg.
fn answer(kind: &str, handle: u32, options: &[u8]) -> Answer {
    let mut payload = vec![0; TCMSG_BYTES];
    payload[8..12].copy_from_slice(&handle.to_ne_bytes());
    for (attribute, value) in
        [(TCA_KIND, [kind.as_bytes(), &[0]].concat()), (TCA_OPTIONS, options.to_vec())]
    {
        payload.extend((4 + value.len() as u16).to_ne_bytes());
        payload.extend(attribute.to_ne_bytes());
        payload.extend(value);
        payload.resize(payload.len().next_multiple_of(4), 0);
    }
    Ok(vec![payload])
}

fn options(bucket: &Bucket) -> Vec<u8> {
    let (_, _, bytes) = wire(add_tbf(INDEX, bucket, false, String::new()));
    wire::attribute(&bytes[TCMSG_BYTES..], TCA_OPTIONS).unwrap().to_vec()
}

#[test]
fn a_tbf_of_ours_is_read_back() {
    for bucket in [bucket(), fast()] {
        for mark in [Mark::Added, Mark::Agent, Mark::Hand, Mark::Other(64)] {
            let bucket = Bucket { mark, ..bucket };
            let root = root_of(answer("tbf", 0x7062_0000, &options(&bucket))).unwrap();
            assert_eq!(root, Root::Ours(bucket.to_state()));
        }
    }
}

#[test]
fn other_roots_are_the_kernels_or_somebody_elses() {
    for (kind, handle, expected) in [
        ("noqueue", 0, Root::Default),
        ("pfifo_fast", 0, Root::Default),
        ("tbf", 0x0001_0000, Root::Foreign("tbf 1:".into())),
        ("htb", 0x7062_0000, Root::Foreign("htb 7062:".into())),
        ("fq_codel", 0x8001_0000, Root::Foreign("fq_codel 8001:".into())),
    ] {
        assert_eq!(root_of(answer(kind, handle, &options(&bucket()))).unwrap(), expected);
    }
}

#[test]
fn hooks_and_leaves_are_told_apart() {
    assert_eq!(hook_of(answer("clsact", 0xffff_0000, &[])).unwrap(), HookKind::Clsact);
    assert_eq!(hook_of(answer("ingress", 0xffff_0000, &[])).unwrap(), HookKind::Ingress);
    let limit = 18_125u32.to_ne_bytes();
    let leaf = |kind| leaf_of(answer(kind, 0x8001_0000, &limit)).unwrap();
    assert_eq!(leaf("bfifo"), (Leaf::Bfifo(18_125), 0x8001));
    assert_eq!(leaf("pfifo"), (Leaf::Other("pfifo".into()), 0x8001));
}

#[test]
fn hidden_and_missing_qdiscs_are_no_error_but_a_refusal_is() {
    let refused = |errno| {
        let doing = String::new();
        Err(KernelError::Refused { doing, errno, ext_ack: None })
    };
    for errno in [Errno::EINVAL, Errno::ENOENT] {
        assert_eq!(root_of(refused(errno)).unwrap(), Root::Default);
        assert_eq!(hook_of(refused(errno)).unwrap(), HookKind::None);
        assert_eq!(leaf_of(refused(errno)).unwrap(), (Leaf::Own, 0));
    }
    assert!(root_of(refused(Errno::EPERM)).is_err());
}
