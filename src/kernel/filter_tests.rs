//! Against what `tc` of iproute2 6.1 sends on x86-64, captured with `strace -e write=all`, and
//! against filters as Linux 6.18 shows them.

use super::super::testing::{captured, wire};
use super::*;
use crate::shaping::Takes;

const INDEX: u32 = 3;
const IFB: u32 = 4;
const INGRESS: (Hook, HookKind) = (Hook::Ingress, HookKind::Clsact);
const EGRESS: (Hook, HookKind) = (Hook::Egress, HookKind::Clsact);

/// A tag of zeros, which the captured cookies and classes have.
fn record(made_hook: bool) -> Record {
    Record { made_hook, tag: Tag::of_bytes([0; 8]), sources: SourceKinds::default() }
}

fn stamped() -> Stamp {
    Stamp { tag: SeenTag::Whole(Tag::of_bytes([0; 8])), sources: SourceKinds::default() }
}

/// `tc filter add dev X ingress pref 65535 protocol all u32 match u32 0 0 action mirred egress
/// redirect dev Y cookie 706f6462020100000000000000000000`, and the same for egress with pref 65534. The key is
/// cut out of the selector: `tc` cannot say that there is none.
#[test]
fn a_redirect_is_what_tc_sends_without_the_key() {
    for (at, made_hook, hex) in [
        (
            INGRESS,
            true,
            "900000002c000506b7c7046b00000000000000000300000000000000f2ffffff0003ffff0800010075333200640002004c000700480001000b0001006d6972726564000024000280200002000000000000000000040000000000000000000000010000000400000014000600706f64620201000000000000000000001400050001000000000000000000000000000000",
        ),
        (
            EGRESS,
            false,
            "900000002c000506b7c7046b00000000000000000300000000000000f3ffffff0003feff0800010075333200640002004c000700480001000b0001006d6972726564000024000280200002000000000000000000040000000000000000000000010000000400000014000600706f64620200000000000000000000001400050001000000000000000000000000000000",
        ),
    ] {
        let request = add(INDEX, at, Match::All, Some(IFB), record(made_hook), String::new());
        assert_eq!(wire(request), captured(hex), "{at:?}");
    }
}

fn redirect_all() -> Request {
    add(INDEX, INGRESS, Match::All, Some(IFB), record(true), String::new())
}

fn filter(handle: u32) -> Filter {
    let owner =
        Owner::Ours { matches: Match::All, target: Some(IFB), made_hook: true, stamp: stamped() };
    Filter { pref: u16::MAX, handle, owner }
}

/// `tc filter del dev X ingress pref 65535 protocol all u32` names no handle: the whole
/// preference goes. With `handle 800::800` only that one does.
#[test]
fn a_removal_is_what_tc_sends() {
    let hex =
        "2c0000002d000500b8c7046b00000000000000000300000000000000f2ffffff0003ffff0800010075333200";
    let alone = delete(INDEX, INGRESS, &filter(0x8000_0800), true, String::new());
    assert_eq!(wire(alone), captured(hex));
    let one = delete(INDEX, INGRESS, &filter(0x8000_0800), false, String::new());
    let (kind, flags, mut bytes) = captured(hex);
    bytes[8..12].copy_from_slice(&0x8000_0800u32.to_ne_bytes());
    assert_eq!(wire(one), (kind, flags, bytes));
}

#[test]
fn a_plain_ingress_qdisc_has_its_filters_elsewhere() {
    for (hook, kind, expected) in [
        (Hook::Ingress, HookKind::Clsact, 0xffff_fff2),
        (Hook::Egress, HookKind::Clsact, 0xffff_fff3),
        (Hook::Ingress, HookKind::Ingress, 0xffff_0000),
    ] {
        assert_eq!(u32::from(parent(hook, kind)), expected);
    }
}

/// One attribute.
fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn shown(kind: &str, handle: u32, pref: u16, protocol: u16, options: &[u8]) -> Vec<u8> {
    let mut payload = vec![0; TCMSG_BYTES];
    payload[8..12].copy_from_slice(&handle.to_ne_bytes());
    payload[16..20].copy_from_slice(&info(pref, protocol).to_ne_bytes());
    payload.extend(nla(TCA_KIND, &[kind.as_bytes(), &[0]].concat()));
    payload.extend(nla(TCA_OPTIONS, options));
    payload
}

/// struct tc_u32_sel with one key, and an action of this kind with this verdict.
fn u32_options(mask: u32, terminal: bool, action: Option<(&str, i32)>) -> Vec<u8> {
    let mut selector = vec![0; 32];
    selector[0] = u8::from(terminal);
    selector[2] = 1;
    selector[16..20].copy_from_slice(&mask.to_ne_bytes());
    let mut options = nla(TCA_U32_SEL, &selector);
    if let Some((kind, verdict)) = action {
        options.extend(nla(TCA_U32_ACT, &action_list(kind, verdict)));
    }
    options
}

fn action_list(kind: &str, verdict: i32) -> Vec<u8> {
    let mut parms = vec![0; 28];
    parms[8..12].copy_from_slice(&verdict.to_ne_bytes());
    let mut action = nla(TCA_ACT_KIND, &[kind.as_bytes(), &[0]].concat());
    action.extend(nla(TCA_ACT_OPTIONS, &nla(TCA_ACT_PARMS, &parms)));
    nla(1, &action)
}

#[test]
fn our_filter_is_known_by_its_cookie() {
    let (_, _, mut bytes) = wire(redirect_all());
    bytes[8..12].copy_from_slice(&0x8000_0800u32.to_ne_bytes());
    assert_eq!(parse_all(&[bytes.clone()], Hook::Ingress), [filter(0x8000_0800)]);
    // The same without the hook's flag, and with another cookie.
    let position = bytes.windows(4).position(|w| w == b"podb").unwrap();
    bytes[position + 5] = 0;
    let owner =
        Owner::Ours { matches: Match::All, target: Some(IFB), made_hook: false, stamp: stamped() };
    assert_eq!(parse_all(&[bytes.clone()], Hook::Ingress)[0].owner, owner);
    // The dump of the other side may show it, too, and there it is not.
    assert_eq!(parse_all(&[bytes.clone()], Hook::Egress), []);
    // An entry's sources and the attachment are in the cookie.
    bytes[position + 6] = 5;
    bytes[position + 8] = 7;
    let tag = SeenTag::Whole(Tag::of_bytes([7, 0, 0, 0, 0, 0, 0, 0]));
    let stamp = Stamp { tag, sources: SourceKinds::of_bits(5) };
    let Owner::Ours { stamp: seen, .. } = parse_all(&[bytes.clone()], Hook::Ingress)[0].owner
    else {
        panic!("not ours")
    };
    assert_eq!(seen, stamp);
    bytes[position] = b'x';
    let owner = foreign("u32", ETH_P_ALL, Takes::All);
    assert_eq!(parse_all(&[bytes], Hook::Ingress)[0].owner, owner);
}

/// As `tc` sends it, with the key: so did pod-bandwidth before the selector had none.
#[test]
fn a_redirect_of_an_older_version_is_the_same_rule() {
    const OLD: &str = "980000002c000506b7c7046b00000000000000000300000000000000f2ffffff0003ffff08000100753332006c00020044000700400001000b0001006d697272656400002400028020000200000000000000000004000000000000000000000001000000040000000c000600706f646201010000240005000100010000000000000000000000000000000000000000000000000000000000";
    let (_, _, mut bytes) = captured(OLD);
    bytes[8..12].copy_from_slice(&0x8000_0800u32.to_ne_bytes());
    let stamp = Stamp::default();
    let owner = |matches| Owner::Ours { matches, target: Some(IFB), made_hook: true, stamp };
    assert_eq!(parse_all(&[bytes.clone()], Hook::Ingress)[0].owner, owner(Match::All));
    // The message ends with the key: mask, value, offset and its mask. A mask is another filter.
    let mask = bytes.len() - 16;
    bytes[mask] = 1;
    assert_eq!(parse_all(&[bytes], Hook::Ingress)[0].owner, owner(Match::Unknown));
}

/// A later build may use other preferences; this one still removes what carries the cookie.
#[test]
fn a_filter_of_ours_at_another_preference_is_one_that_goes() {
    let (_, _, mut bytes) = wire(redirect_all());
    bytes[8..12].copy_from_slice(&0x8000_0800u32.to_ne_bytes());
    for (pref, expected) in [(7, true), (FILTER_PREFS[1], false), (SUBNET_PREFS[1][0], false)] {
        bytes[16..20].copy_from_slice(&info(pref, ETH_P_ALL).to_ne_bytes());
        let found = parse_all(&[bytes.clone()], Hook::Ingress);
        let goes = |filter: &Filter| {
            matches!(filter.owner, Owner::Ours { matches: Match::Unknown, target: Some(IFB), .. })
        };
        assert_eq!(found.first().is_some_and(goes), expected, "{found:?}");
    }
}

#[test]
fn shells_of_u32_are_no_filters() {
    for handle in [0, 0x8000_0000, 0x8010_0000] {
        assert_eq!(
            parse_all(&[shown("u32", handle, 1, ETH_P_ALL, &nla(4, &[1, 0, 0, 0]))], Hook::Ingress),
            []
        );
    }
}

fn foreign(kind: &str, protocol: u16, takes: Takes) -> Owner {
    Owner::Foreign { kind: kind.into(), protocol, takes }
}

#[test]
fn a_filter_of_another_program_is_seen_with_what_it_takes() {
    let (stolen, ok, unspec, pipe) = (4, 0, -1, 3);
    for (protocol, options, takes) in [
        (ETH_P_ALL, u32_options(0, true, Some(("mirred", stolen))), Takes::All),
        (ETH_P_ALL, u32_options(0, true, Some(("gact", ok))), Takes::All),
        (ETH_P_IP, u32_options(0, true, Some(("gact", ok))), Takes::All),
        (ETH_P_ALL, u32_options(0, true, None), Takes::All),
        (0x0806, u32_options(0, true, Some(("gact", ok))), Takes::Some),
        (ETH_P_ALL, u32_options(0, true, Some(("gact", unspec))), Takes::Nothing),
        (ETH_P_ALL, u32_options(0, true, Some(("mirred", pipe))), Takes::All),
        (ETH_P_ALL, u32_options(0xff, true, Some(("gact", ok))), Takes::Some),
        (ETH_P_ALL, u32_options(0, false, Some(("gact", ok))), Takes::Nothing),
    ] {
        let filters = parse_all(&[shown("u32", 0x8000_0800, 7, protocol, &options)], Hook::Ingress);
        let owner = foreign("u32", protocol, takes);
        assert_eq!(filters, [Filter { pref: 7, handle: 0x8000_0800, owner }], "{options:?}");
    }
}

/// `fw` without a handle: it has no filters, and its shell is all that is shown.
#[test]
fn an_fw_that_goes_by_marks_alone_is_a_filter() {
    let shell = |pref| shown("fw", 0, pref, ETH_P_ALL, &[]);
    let one = || shown("fw", 5, 7, ETH_P_ALL, &nla(1, &[1, 0, 1, 0]));
    let filter =
        |pref, handle| Filter { pref, handle, owner: foreign("fw", ETH_P_ALL, Takes::Some) };
    for (payloads, expected) in [
        (vec![shell(7)], vec![filter(7, 0)]),
        (vec![shell(7), one()], vec![filter(7, 5)]),
        (vec![shell(7), shell(8)], vec![filter(7, 0), filter(8, 0)]),
        (vec![shown("flower", 0, 7, ETH_P_ALL, &[])], vec![]),
    ] {
        assert_eq!(parse_all(&payloads, Hook::Ingress), expected);
    }
}

#[test]
fn cut_off_filters_do_no_harm() {
    let (_, _, mut bytes) = wire(redirect_all());
    bytes[8..12].copy_from_slice(&0x8000_0800u32.to_ne_bytes());
    for length in 0..bytes.len() {
        parse_all(&[bytes[..length].to_vec()], Hook::Ingress);
    }
}
