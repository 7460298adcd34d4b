//! u32 selectors: which packets a filter takes, as words of the packet with a mask.
//!
//! Offsets count from the network header (u32_classify in net/sched/cls_u32.c). The preference's
//! protocol says that it is one of IPv4 or IPv6, so no other frame can look like an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::tc::{TcU32Key, TcU32Selector, TcU32SelectorFlags};

use super::filter::{ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, ETH_P_RESERVED};
use super::wire;
use crate::shaping::Match;

/// Where source and destination are in an IPv4 header (RFC 791) and in an IPv6 header (RFC 8200).
const SOURCE: [i32; 2] = [12, 8];
const DESTINATION: [i32; 2] = [16, 24];

/// struct tc_u32_sel: 16 bytes (flags, offshift, nkeys, …), then the keys.
const SELECTOR_BYTES: usize = 16;
/// struct tc_u32_key: mask and value in network order, offset and its mask in the host's.
const KEY_BYTES: usize = 16;

/// The protocol of a filter that takes these packets; 0 stands for any in a removal
/// (tcf_chain_tp_find in net/sched/cls_api.c).
pub(super) fn protocol(matches: Match) -> u16 {
    match matches {
        Match::All => ETH_P_ALL,
        Match::Source(IpNetwork::V4(_)) | Match::Destination(IpNetwork::V4(_)) => ETH_P_IP,
        Match::Source(IpNetwork::V6(_)) | Match::Destination(IpNetwork::V6(_)) => ETH_P_IPV6,
        Match::Nothing(_) => ETH_P_RESERVED,
        Match::Unknown => 0,
    }
}

/// The selector that takes these packets.
pub(super) fn selector(matches: Match) -> TcU32Selector {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.keys = match matches {
        Match::Source(net) => keys(net, SOURCE),
        Match::Destination(net) => keys(net, DESTINATION),
        // A frame of the reserved protocol does not get past two keys that contradict each other.
        Match::Nothing(_) => vec![whole_word(0), whole_word(u32::MAX)],
        // No key at all: a key with an empty mask does not match a frame that ends before its four
        // bytes (u32_classify in net/sched/cls_u32.c). No plan asks for Unknown.
        Match::All | Match::Unknown => Vec::new(),
    };
    selector.nkeys = selector.keys.len() as u8;
    selector
}

/// The first word behind the network header has this value.
fn whole_word(value: u32) -> TcU32Key {
    let mut key = TcU32Key::default();
    (key.mask, key.val) = (u32::MAX, value);
    key
}

/// One key for each word that the prefix reaches into; at least one, so that a filter for all
/// addresses still says which end of the packet it is about.
fn keys(net: IpNetwork, offsets: [i32; 2]) -> Vec<TcU32Key> {
    let (words, offset) = match net {
        IpNetwork::V4(net) => (vec![net.network().to_bits()], offsets[0]),
        IpNetwork::V6(net) => {
            let bits = net.network().to_bits();
            ((0..4).map(|n| (bits >> (96 - 32 * n)) as u32).collect(), offsets[1])
        }
    };
    let length = u32::from(net.prefix());
    let key = |(n, word): (u32, u32)| {
        let mut key = TcU32Key::default();
        key.mask = u32::MAX.checked_shl(32 - length.saturating_sub(32 * n).min(32)).unwrap_or(0);
        key.val = word & key.mask;
        key.off = offset + 4 * n as i32;
        key
    };
    let reached = length.div_ceil(32).max(1);
    (0..reached).zip(words).map(key).collect()
}

/// What a terminal selector takes, if a rule of ours could say it. `shown` is a struct
/// tc_u32_sel with its keys.
pub(super) fn matches(protocol: u16, shown: &[u8]) -> Match {
    read(protocol, shown).unwrap_or(Match::Unknown)
}

fn read(protocol: u16, shown: &[u8]) -> Option<Match> {
    let is_terminal = shown.first()? & 1 != 0;
    let keys = shown.get(SELECTOR_BYTES..)?.chunks_exact(KEY_BYTES);
    let keys: Vec<Key> = keys.filter_map(Key::read).collect();
    if !is_terminal {
        return None;
    }
    let family = match protocol {
        // One key with an empty mask is the form of older versions. It counts as the same rule, so
        // that an ADD does not replace it.
        ETH_P_ALL => return matches!(keys[..], [] | [Key { mask: 0, .. }]).then_some(Match::All),
        ETH_P_IP => 0,
        ETH_P_IPV6 => 1,
        _ => return None,
    };
    let first = keys.first()?;
    let length: u32 = keys.iter().map(|key| key.mask.leading_ones()).sum();
    let bits = keys.iter().take(4).fold((0, 96u32), |(bits, shift), key| {
        (bits | u128::from(key.value) << shift, shift.saturating_sub(32))
    });
    let address = match family {
        0 => IpAddr::V4(Ipv4Addr::from_bits((bits.0 >> 96) as u32)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(bits.0)),
    };
    let net = IpNetwork::new(address, u8::try_from(length).ok()?).ok()?;
    let found = match first.offset {
        offset if offset == SOURCE[family] => Match::Source(net),
        offset if offset == DESTINATION[family] => Match::Destination(net),
        _ => return None,
    };
    // Only what we would have written counts: masks with holes, other offsets and host bits do not.
    (Key::of(&selector(found)) == keys).then_some(found)
}

/// A key as the kernel shows it.
#[derive(PartialEq, Eq)]
struct Key {
    mask: u32,
    value: u32,
    offset: i32,
    offset_mask: i32,
}

impl Key {
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            mask: u32::from_be(wire::u32_at(bytes, 0)?),
            value: u32::from_be(wire::u32_at(bytes, 4)?),
            offset: wire::u32_at(bytes, 8)? as i32,
            offset_mask: wire::u32_at(bytes, 12)? as i32,
        })
    }

    fn of(selector: &TcU32Selector) -> Vec<Self> {
        let key = |key: &TcU32Key| Self {
            mask: key.mask,
            value: key.val,
            offset: key.off,
            offset_mask: key.offmask,
        };
        selector.keys.iter().map(key).collect()
    }
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;
