//! Against what `tc` of iproute2 6.1 sends on x86-64, captured with `strace -e write=all`, and
//! against Felix's filter as Linux 6.18 shows it.

use super::super::testing::{captured, unhex, wire};
use super::*;

const INDEX: u32 = 3;
const IFB: u32 = 4;
const CLASS: u32 = 0x0001_0001;

/// `tc qdisc add dev X ingress`, `tc qdisc del dev X ingress`.
#[test]
fn the_qdisc_is_added_and_removed_as_tc_does() {
    let hex = "3000000024000506e0050a6b0000000000000000030000000000fffff1ffffff000000000c000100696e677265737300";
    assert_eq!(wire(add_ingress(INDEX, String::new())), captured(hex));
    let hex = "3000000025000500e0050a6b0000000000000000030000000000fffff1ffffff000000000c000100696e677265737300";
    assert_eq!(wire(delete_ingress(INDEX, String::new())), captured(hex));
}

/// `tc filter add dev X parent ffff: pref 1 protocol all u32 match u32 0 0 flowid 1:1 action mirred
/// egress redirect dev Y`.
#[test]
fn the_filter_comes_back_as_tc_adds_it() {
    let hex = "940000002c000506e0050a6b000000000000000003000000000000000000ffff00030100080001007533320068000200080001000100010038000700340001000b0001006d69727265640000240002802000020000000000000000000400000000000000000000000100000004000000240005000100010000000000000000000000000000000000000000000000000000000000";
    let request = add_redirect(INDEX, IFB, CLASS, String::new());
    assert_eq!(wire(request), captured(hex));
}

/// The filter that the request above makes, as a dump shows it: class 1:1, one key of zeros, one mirred
/// action that redirects to interface 4 and is stolen.
const SHOWN: &str = "0000000003000000000800800000ffff00030100080001007533320008000b0000000000e80002002400050001000100000000000000000000000000000000000000000000000000000000000800020000000080080001000100010008000b0008000000a8000700a40001000b0001006d69727265640000440004001400010000000000000000000000000000000000140007000000000000000000000000000000000018000300000000000000000000000000000000000000000008000a0000000000480002002000020001000000000000000400000001000000010000000100000004000000240001000000000000000000000000000000000000000000000000000000000000000000";

fn seen(payload: &[u8]) -> Option<(u32, u32)> {
    redirect(payload, &filter::parse(payload, None, Hook::Ingress)?)
}

/// The payload with its one occurrence of `from` changed.
fn changed(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(SHOWN.matches(from).count(), 1, "{from}");
    unhex(&SHOWN.replace(from, to))
}

#[test]
fn felixs_filter_is_known_by_each_part_of_it() {
    assert_eq!(seen(&unhex(SHOWN)), Some((IFB, CLASS)));
    // A class is not what the packets are matched by.
    assert_eq!(seen(&changed("0800010001000100", "08007f0001000100")), Some((IFB, 0)));
    for (what, from, to) in [
        ("pref 2", "0000ffff00030100", "0000ffff00030200"),
        ("protocol ip", "0000ffff00030100", "0000ffff08000100"),
        ("a mask", "24000500010001000000", "24000500010001000000000000000000000000ff"),
        ("mirror", "0400000001000000010000000100000004", "0400000001000000010000000200000004"),
        ("pipe", "0400000001000000010000000100000004", "0300000001000000010000000100000004"),
        ("another action", "6d6972726564", "6d6972726565"),
        ("flower", "0800010075333200", "0800010075333300"),
    ] {
        assert_eq!(seen(&changed(from, to)), None, "{what}");
    }
    let whole = unhex(SHOWN);
    for length in 0..whole.len() {
        // Whatever is missing, nothing else is taken for it.
        assert!([None, Some((IFB, CLASS)), Some((IFB, 0))].contains(&seen(&whole[..length])));
    }
}
