//! Against what `tc` of iproute2 6.1 sends on x86-64, captured with `strace -e write=all`.

use netlink_packet_route::tc::TcHandle;
use proptest::prelude::*;

use super::super::filter::{Record, add, delete, parse_all};
use super::super::testing::{captured, wire};
use super::*;
use crate::policy::SourceKinds;
use crate::shaping::Takes;
use crate::shaping::site::{Filter, Hook, HookKind, Owner};
use crate::shaping::tag::{SeenTag, Stamp, Tag};

const INDEX: u32 = 2;
const IFB: u32 = 3;
const INGRESS: (Hook, HookKind) = (Hook::Ingress, HookKind::Clsact);
const EGRESS: (Hook, HookKind) = (Hook::Egress, HookKind::Clsact);

fn source(net: &str) -> Match {
    Match::Source(net.parse().unwrap())
}

fn destination(net: &str) -> Match {
    Match::Destination(net.parse().unwrap())
}

/// `tc filter add dev X ingress pref 65533 protocol ip u32 match ip dst 10.9.1.0/24 flowid 7062:3`
/// and so on: the side, `match ip|ip6 src|dst`, and the class or the redirect.
#[test]
fn a_filter_for_a_subnet_is_what_tc_sends() {
    for (at, matches, target, made_hook, hex) in [
        (
            INGRESS,
            destination("10.9.1.0/24"),
            None,
            true,
            "5c0000002c00050683d0046b00000000000000000200000000000000f2ffffff0800fdff08000100753332003000020008000100030062702400050001000100000000000000000000000000ffffff000a0901001000000000000000",
        ),
        (
            INGRESS,
            destination("0.0.0.0/0"),
            None,
            false,
            "5c0000002c00050683d0046b00000000000000000200000000000000f2ffffff0800fdff0800010075333200300002000800010001006270240005000100010000000000000000000000000000000000000000001000000000000000",
        ),
        (
            INGRESS,
            destination("fd09::/60"),
            None,
            true,
            "6c0000002c00050684d0046b00000000000000000200000000000000f2ffffff86ddfbff08000100753332004000020008000100030062703400050001000200000000000000000000000000fffffffffd0900001800000000000000fffffff0000000001c00000000000000",
        ),
        (
            EGRESS,
            source("2001:db8:1234::/48"),
            None,
            false,
            "6c0000002c00050684d0046b00000000000000000200000000000000f3ffffff86ddfaff08000100753332004000020008000100010062703400050001000200000000000000000000000000ffffffff20010db80800000000000000ffff0000123400000c00000000000000",
        ),
        (
            EGRESS,
            source("2001:db8::7/128"),
            None,
            false,
            "8c0000002c00050684d0046b00000000000000000200000000000000f3ffffff86ddfaff08000100753332006000020008000100010062705400050001000400000000000000000000000000ffffffff20010db80800000000000000ffffffff000000000c00000000000000ffffffff000000001000000000000000ffffffff000000071400000000000000",
        ),
        (
            EGRESS,
            source("192.0.2.7/32"),
            None,
            false,
            "5c0000002c00050684d0046b00000000000000000200000000000000f3ffffff0800fcff08000100753332003000020008000100010062702400050001000100000000000000000000000000ffffffffc00002070c00000000000000",
        ),
        (
            EGRESS,
            source("10.9.1.0/25"),
            Some(IFB),
            true,
            "a00000002c00050684d0046b00000000000000000200000000000000f3ffffff0800fcff0800010075333200740002004c000700480001000b0001006d6972726564000024000280200002000000000000000000040000000000000000000000010000000300000014000600706f64620201000000000000000000002400050001000100000000000000000000000000ffffff800a0901000c00000000000000",
        ),
    ] {
        let request = add(INDEX, at, matches, target, record(made_hook), String::new());
        assert_eq!(wire(request), captured(hex), "{at:?} {matches:?}");
    }
}

/// `tc filter del dev X ingress pref 65533 protocol ip u32`.
#[test]
fn a_removal_names_the_protocol_of_its_preference() {
    let owner = Owner::Ours {
        matches: destination("10.9.1.0/24"),
        target: None,
        made_hook: true,
        stamp: Stamp::default(),
    };
    let filter = Filter { pref: 65533, handle: 0x8000_0800, owner };
    let hex =
        "2c0000002d00050085d0046b00000000000000000200000000000000f2ffffff0800fdff0800010075333200";
    assert_eq!(wire(delete(INDEX, INGRESS, &filter, true, String::new())), captured(hex));
}

/// A tag of zeros, which the captured cookies and classes have.
fn record(made_hook: bool) -> Record {
    Record { made_hook, tag: Tag::of_bytes([0; 8]), sources: SourceKinds::default() }
}

fn stamped() -> Stamp {
    Stamp { tag: SeenTag::Whole(Tag::of_bytes([0; 8])), sources: SourceKinds::default() }
}

/// What the kernel shows of a filter: all that it was told, and a handle.
fn shown(hook: Hook, matches: Match, target: Option<u32>, made_hook: bool) -> Vec<u8> {
    let at = (hook, HookKind::Clsact);
    let (_, _, mut bytes) = wire(add(INDEX, at, matches, target, record(made_hook), String::new()));
    bytes[8..12]
        .copy_from_slice(&u32::from(TcHandle { major: 0x8000, minor: 0x0800 }).to_ne_bytes());
    bytes
}

fn foreign(protocol: u16) -> Owner {
    Owner::Foreign { kind: "u32".into(), protocol, takes: Takes::Some }
}

fn owners(bytes: &[u8], hook: Hook) -> Vec<Owner> {
    parse_all(&[bytes.to_vec()], hook).into_iter().map(|filter| filter.owner).collect()
}

#[test]
fn what_was_changed_is_no_rule_of_ours() {
    let given = shown(Hook::Ingress, destination("10.9.1.0/24"), Some(IFB), true);
    let at = |bytes: &[u8]| given.windows(bytes.len()).position(|found| found == bytes).unwrap();
    let key = at(&[0xff, 0xff, 0xff, 0, 10, 9, 1, 0, 16, 0, 0, 0]);
    let cookie = at(b"podb");
    let ours = |matches| {
        vec![Owner::Ours { matches, target: Some(IFB), made_hook: true, stamp: stamped() }]
    };
    assert_eq!(owners(&given, Hook::Ingress), ours(destination("10.9.1.0/24")));
    for (offset, value, expected) in [
        // A mask with a hole, a host bit, an offset between the addresses, another offset mask.
        (key + 1, 0xf0, ours(Match::Unknown)),
        (key + 7, 1, ours(Match::Unknown)),
        (key + 8, 14, ours(Match::Unknown)),
        (key + 12, 1, ours(Match::Unknown)),
        // The other end, a longer prefix.
        (key + 8, 12, ours(source("10.9.1.0/24"))),
        (key + 3, 0x80, ours(destination("10.9.1.0/25"))),
        // Somebody else's mark.
        (cookie, b'x', vec![foreign(ETH_P_IP)]),
    ] {
        let mut bytes = given.clone();
        bytes[offset] = value;
        assert_eq!(owners(&bytes, Hook::Ingress), expected, "byte {offset}");
    }
}

#[test]
fn a_filter_that_lets_packets_pass_is_known_by_its_class_and_place() {
    let given = shown(Hook::Egress, source("fd00::/8"), None, true);
    let owner = Owner::Ours {
        matches: source("fd00::/8"),
        target: None,
        made_hook: true,
        stamp: Stamp::default(),
    };
    assert_eq!(owners(&given, Hook::Egress), [owner]);
    // The dump of the other side may show it, too, and there it is not.
    assert_eq!(owners(&given, Hook::Ingress), []);
    // The same class elsewhere, or another class here, is somebody else's.
    let foreign = [foreign(ETH_P_IPV6)];
    let mut elsewhere = given.clone();
    elsewhere[18] = 7;
    assert_eq!(owners(&elsewhere, Hook::Egress), foreign);
    let class = given.windows(4).position(|found| found == [3, 0, 0x62, 0x70]).unwrap();
    for minor in [0, 2, 4, 6] {
        let mut other = given.clone();
        other[class] = minor;
        assert_eq!(owners(&other, Hook::Egress), foreign, "7062:{minor}");
    }
}

proptest! {
    #[test]
    fn every_subnet_is_read_as_it_was_written(
        four: u32, length in 0u8..=32, six: u128, length6 in 0u8..=128, made_hook: bool,
    ) {
        let nets = [
            IpNetwork::new(Ipv4Addr::from_bits(four).into(), length).unwrap(),
            IpNetwork::new(Ipv6Addr::from_bits(six).into(), length6).unwrap(),
        ];
        for net in nets.map(|net| IpNetwork::new(net.network(), net.prefix()).unwrap()) {
            for matches in [Match::Source(net), Match::Destination(net)] {
                for target in [None, Some(IFB)] {
                    let bytes = shown(Hook::Ingress, matches, target, made_hook);
                    let stamp = target.map_or(Stamp::default(), |_| stamped());
                    let expected = Owner::Ours { matches, target, made_hook, stamp };
                    prop_assert_eq!(owners(&bytes, Hook::Ingress), [expected]);
                }
            }
        }
    }

    #[test]
    fn no_selector_breaks_it(protocol: u16, bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        for protocol in [protocol, ETH_P_ALL, ETH_P_IP, ETH_P_IPV6] {
            let _ = matches(protocol, &bytes);
        }
    }
}
