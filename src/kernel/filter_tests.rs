//! Against what `tc` of iproute2 6.1 sends on x86-64, captured with `strace -e write=all`, and
//! against filters as Linux 6.18 shows them.

use super::super::testing::{captured, wire};
use super::*;

const INDEX: u32 = 3;
const IFB: u32 = 4;
const INGRESS: (Hook, HookKind) = (Hook::Ingress, HookKind::Clsact);
const EGRESS: (Hook, HookKind) = (Hook::Egress, HookKind::Clsact);

/// `tc filter add dev X ingress pref 65535 protocol all u32 match u32 0 0 action mirred egress
/// redirect dev Y cookie 706f646201010000`, and the same for egress with pref 65534. The key is cut
/// out of the selector: `tc` cannot say that there is none.
#[test]
fn a_redirect_is_what_tc_sends_without_the_key() {
    for (at, made_hook, hex) in [
        (
            INGRESS,
            true,
            "880000002c000506b7c7046b00000000000000000300000000000000f2ffffff0003ffff08000100753332005c00020044000700400001000b0001006d697272656400002400028020000200000000000000000004000000000000000000000001000000040000000c000600706f6462010100001400050001000000000000000000000000000000",
        ),
        (
            EGRESS,
            false,
            "880000002c000506b7c7046b00000000000000000300000000000000f3ffffff0003feff08000100753332005c00020044000700400001000b0001006d697272656400002400028020000200000000000000000004000000000000000000000001000000040000000c000600706f6462010000001400050001000000000000000000000000000000",
        ),
    ] {
        let request = add(INDEX, at, Match::All, Some(IFB), made_hook, String::new());
        assert_eq!(wire(request), captured(hex), "{at:?}");
    }
}

fn redirect_all() -> Request {
    add(INDEX, INGRESS, Match::All, Some(IFB), true, String::new())
}

fn filter(handle: u32) -> Filter {
    let owner = Owner::Ours { matches: Match::All, target: Some(IFB), made_hook: true };
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
    let owner = Owner::Ours { matches: Match::All, target: Some(IFB), made_hook: false };
    assert_eq!(parse_all(&[bytes.clone()], Hook::Ingress)[0].owner, owner);
    // The dump of the other side may show it, too, and there it is not.
    assert_eq!(parse_all(&[bytes.clone()], Hook::Egress), []);
    bytes[position] = b'x';
    let owner = Owner::Foreign { kind: "u32".into(), takes_all: true };
    assert_eq!(parse_all(&[bytes], Hook::Ingress)[0].owner, owner);
}

/// As `tc` sends it, with the key: so did pod-bandwidth before the selector had none.
#[test]
fn a_redirect_of_an_older_version_is_the_same_rule() {
    const OLD: &str = "980000002c000506b7c7046b00000000000000000300000000000000f2ffffff0003ffff08000100753332006c00020044000700400001000b0001006d697272656400002400028020000200000000000000000004000000000000000000000001000000040000000c000600706f646201010000240005000100010000000000000000000000000000000000000000000000000000000000";
    let (_, _, mut bytes) = captured(OLD);
    bytes[8..12].copy_from_slice(&0x8000_0800u32.to_ne_bytes());
    assert_eq!(parse_all(&[bytes.clone()], Hook::Ingress), [filter(0x8000_0800)]);
    // The message ends with the key: mask, value, offset and its mask. A mask is another filter.
    let mask = bytes.len() - 16;
    bytes[mask] = 1;
    let owner = Owner::Ours { matches: Match::Unknown, target: Some(IFB), made_hook: true };
    assert_eq!(parse_all(&[bytes], Hook::Ingress)[0].owner, owner);
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

#[test]
fn a_filter_takes_all_if_it_matches_all_and_ends_the_walk() {
    let (stolen, ok, unspec, pipe) = (4, 0, -1, 3);
    for (protocol, options, expected) in [
        (ETH_P_ALL, u32_options(0, true, Some(("mirred", stolen))), true),
        (ETH_P_ALL, u32_options(0, true, Some(("gact", ok))), true),
        (ETH_P_IP, u32_options(0, true, Some(("gact", ok))), true),
        (ETH_P_ALL, u32_options(0, true, None), true),
        (0x0806, u32_options(0, true, Some(("gact", ok))), false),
        (ETH_P_ALL, u32_options(0, true, Some(("gact", unspec))), false),
        (ETH_P_ALL, u32_options(0, true, Some(("mirred", pipe))), true),
        (ETH_P_ALL, u32_options(0, true, Some(("police", ok))), false),
        (ETH_P_ALL, u32_options(0xff, true, Some(("gact", ok))), false),
        (ETH_P_ALL, u32_options(0, false, Some(("gact", ok))), false),
    ] {
        let filters = parse_all(&[shown("u32", 0x8000_0800, 7, protocol, &options)], Hook::Ingress);
        let owner = Owner::Foreign { kind: "u32".into(), takes_all: expected };
        assert_eq!(filters, [Filter { pref: 7, handle: 0x8000_0800, owner }], "{options:?}");
    }
    let matchall = nla(TCA_MATCHALL_ACT, &action_list("mirred", stolen));
    let owner = Owner::Foreign { kind: "matchall".into(), takes_all: true };
    assert_eq!(
        parse_all(&[shown("matchall", 1, 7, ETH_P_ALL, &matchall)], Hook::Ingress)[0].owner,
        owner
    );
    let owner = Owner::Foreign { kind: "bpf".into(), takes_all: false };
    assert_eq!(parse_all(&[shown("bpf", 1, 7, ETH_P_ALL, &[])], Hook::Ingress)[0].owner, owner);
}

#[test]
fn cut_off_filters_do_no_harm() {
    let (_, _, mut bytes) = wire(redirect_all());
    bytes[8..12].copy_from_slice(&0x8000_0800u32.to_ne_bytes());
    for length in 0..bytes.len() {
        parse_all(&[bytes[..length].to_vec()], Hook::Ingress);
    }
}
