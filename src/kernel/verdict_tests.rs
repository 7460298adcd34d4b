//! Against what `tc` of iproute2 6.1 sends on x86-64, captured with `strace -e write=all`: the attributes
//! behind struct tcmsg, but for a policer's rate table, which no dump shows (tcf_police_dump in
//! net/sched/act_police.c).

use super::super::testing::unhex;
use super::*;

/// A handle in a table of the kernel's own.
const HANDLE: u32 = 0x8000_0800;

/// `tc filter add dev X ingress pref 7 …`, and what such a filter takes.
const SENT: [(&str, Takes, &str); 32] = [
    (
        "protocol ip flower action mirred egress redirect dev Y",
        Takes::All,
        "0b000100666c6f77657200004c00020038000300340001000b0001006d6972726564000024000280200002000000000000000000040000000000000000000000010000000200000008001600000000000600080008000000",
    ),
    (
        "protocol all flower action drop",
        Takes::All,
        "0b000100666c6f77657200003c000200300003002c0001000900010067616374000000001c0002801800020000000000000000000200000000000000000000000800160000000000",
    ),
    (
        "protocol ip flower dst_ip 10.0.0.0/8 action pass",
        Takes::Some,
        "0b000100666c6f77657200005400020008000c000a00000008000d00ff000000300003002c0001000900010067616374000000001c00028018000200000000000000000000000000000000000000000008001600000000000600080008000000",
    ),
    (
        "protocol ip flower action ct",
        Takes::All,
        "0b000100666c6f7765720000480002003400030030000100070001006374000024000280060003000000000018000100000000000000000003000000000000000000000008001600000000000600080008000000",
    ),
    (
        "protocol all basic action pass",
        Takes::All,
        "0a000100626173696300000034000200300003002c0001000900010067616374000000001c000280180002000000000000000000000000000000000000000000",
    ),
    (
        "protocol all basic match u32(u32 0x0a000000 0xff000000 at 16) action pass",
        Takes::Some,
        "0a0001006261736963000000600002002c0002000800010001000000200002001c0001000000030000000000ff0000000a0000001000000000000000300003002c0001000900010067616374000000001c000280180002000000000000000000000000000000000000000000",
    ),
    (
        "protocol all basic police rate 1mbit burst 10k conform-exceed drop/continue",
        Takes::Nothing,
        "0a00010062617369630000004c000200480004003c000100000000000200000000000000008813000000000003010000ffff000048e8010000000000000000000000000000000000000000000000000008000500ffffffff",
    ),
    (
        "protocol ip basic match u32(u32 0x0a000000 0xff000000 at 16) police rate 1mbit burst 10k conform-exceed drop/continue",
        Takes::Nothing,
        "0a0001006261736963000000780002002c0002000800010001000000200002001c0001000000030000000000ff0000000a0000001000000000000000480004003c000100000000000200000000000000008813000000000003010000ffff000048e8010000000000000000000000000000000000000000000000000008000500ffffffff",
    ),
    ("protocol all matchall", Takes::All, "0d0001006d61746368616c6c00000000"),
    (
        "protocol 0x88a8 matchall action pass",
        Takes::Some,
        "0d0001006d61746368616c6c0000000034000200300002002c0001000900010067616374000000001c000280180002000000000000000000000000000000000000000000",
    ),
    (
        "protocol all matchall action continue",
        Takes::Nothing,
        "0d0001006d61746368616c6c0000000034000200300002002c0001000900010067616374000000001c000280180002000000000000000000ffffffff0000000000000000",
    ),
    (
        "protocol all matchall action goto chain 5",
        Takes::All,
        "0d0001006d61746368616c6c0000000034000200300002002c0001000900010067616374000000001c000280180002000000000000000000050000200000000000000000",
    ),
    (
        "chain 5 protocol all matchall action pass",
        Takes::Nothing,
        "08000b00050000000d0001006d61746368616c6c0000000034000200300002002c0001000900010067616374000000001c000280180002000000000000000000000000000000000000000000",
    ),
    (
        "protocol all matchall action pass random netrand continue 10",
        Takes::Some,
        "0d0001006d61746368616c6c00000000400002003c00020038000100090001006761637400000000280002801800020000000000000000000000000000000000000000000c00030001000a00ffffffff",
    ),
    (
        "protocol all matchall action csum ip4h continue",
        Takes::Nothing,
        "0d0001006d61746368616c6c00000000380002003400020030000100090001006373756d00000000200002801c0001000000000000000000ffffffff000000000000000001000000",
    ),
    (
        "protocol all matchall action vlan pop action pass",
        Takes::All,
        "0d0001006d61746368616c6c0000000064000200600002003000010009000100766c616e00000000200002801c0002000000000000000000030000000000000000000000010000002c0002000900010067616374000000001c000280180002000000000000000000000000000000000000000000",
    ),
    (
        "protocol all matchall action skbedit priority 5 pipe action continue",
        Takes::Nothing,
        "0d0001006d61746368616c6c000000006800020064000200340001000c000100736b6265646974002400028018000200000000000000000003000000000000000000000008000300050000002c0002000900010067616374000000001c000280180002000000000000000000ffffffff0000000000000000",
    ),
    (
        "protocol all matchall action pipe action jump 1",
        Takes::Some,
        "0d0001006d61746368616c6c00000000600002005c0002002c0001000900010067616374000000001c0002801800020000000000000000000300000000000000000000002c0002000900010067616374000000001c000280180002000000000000000000010000100000000000000000",
    ),
    (
        "protocol all matchall action police rate 1mbit burst 10k",
        Takes::All,
        "0d0001006d61746368616c6c000000005800020054000200500001000b000100706f6c6963650000400002803c000100000000000100000000000000008813000000000003010000ffff000048e80100000000000000000000000000000000000000000000000000",
    ),
    (
        "protocol all matchall action police rate 1mbit burst 10k conform-exceed drop/pipe",
        Takes::All,
        "0d0001006d61746368616c6c00000000600002005c000200580001000b000100706f6c6963650000480002803c000100000000000200000000000000008813000000000003010000ffff000048e801000000000000000000000000000000000000000000000000000800050003000000",
    ),
    (
        "protocol all matchall action police rate 1mbit burst 10k conform-exceed drop/continue",
        Takes::Nothing,
        "0d0001006d61746368616c6c00000000600002005c000200580001000b000100706f6c6963650000480002803c000100000000000200000000000000008813000000000003010000ffff000048e8010000000000000000000000000000000000000000000000000008000500ffffffff",
    ),
    (
        "protocol all matchall action police rate 1mbit burst 10k conform-exceed continue/pass",
        Takes::Some,
        "0d0001006d61746368616c6c000000005800020054000200500001000b000100706f6c6963650000400002803c00010000000000ffffffff00000000008813000000000003010000ffff000048e80100000000000000000000000000000000000000000000000000",
    ),
    (
        "protocol ip u32 match u32 0 0 police rate 1mbit burst 10k drop flowid :1",
        Takes::All,
        "080001007533320070000200400006003c000100000000000200000000000000008813000000000003010000ffff000048e801000000000000000000000000000000000000000000000000000800010001000000240005000100010000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "protocol ip u32 match u32 0 0 action reclassify",
        Takes::All,
        "080001007533320058000200300007002c0001000900010067616374000000001c000280180002000000000000000000010000000000000000000000240005000100010000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "protocol ip u32 match ip src 10.9.0.2/32 action drop",
        Takes::Nothing,
        "080001007533320058000200300007002c0001000900010067616374000000001c0002801800020000000000000000000200000000000000000000002400050001000100000000000000000000000000ffffffff0a0900020c00000000000000",
    ),
    (
        "protocol ip u32 match ip src 10.9.0.2/32 action pass",
        Takes::Some,
        "080001007533320058000200300007002c0001000900010067616374000000001c0002801800020000000000000000000000000000000000000000002400050001000100000000000000000000000000ffffffff0a0900020c00000000000000",
    ),
    (
        "protocol all u32 match u32 0 0 action mirred egress mirror dev Y pipe action mirred egress mirror dev Y continue",
        Takes::Nothing,
        "0800010075333200940002006c000700340001000b0001006d69727265640000240002802000020000000000000000000300000000000000000000000200000002000000340002000b0001006d6972726564000024000280200002000000000000000000ffffffff00000000000000000200000002000000240005000100010000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "protocol all handle 5 fw classid 1:1",
        Takes::Some,
        "07000100667700000c0002000800010001000100",
    ),
    ("protocol all handle 1: cgroup", Takes::Some, "0b0001006367726f7570000004000200"),
    (
        "protocol ip route to 5 classid 1:1",
        Takes::Some,
        "0a000100726f7574650000001400020008000200050000000800010001000100",
    ),
    (
        "protocol all bpf bytecode 1,6 0 0 4294967295, flowid 1:1",
        Takes::Some,
        "080001006270660020000200080003000100010006000400010000000c00050006000000ffffffff",
    ),
    (
        "protocol all bpf bytecode 1,6 0 0 4294967295, action mirred egress mirror dev Y continue",
        Takes::Nothing,
        "08000100627066005000020038000100340001000b0001006d6972726564000024000280200002000000000000000000ffffffff0000000000000000020000000200000006000400010000000c00050006000000ffffffff",
    ),
];

#[test]
fn a_filter_takes_what_it_matches_and_does_not_let_go_on() {
    for (words, expected, hex) in SENT {
        let protocol = match words {
            _ if words.contains("protocol all ") => ETH_P_ALL,
            _ if words.contains("protocol ip ") => ETH_P_IP,
            _ => 0x88a8,
        };
        assert_eq!(takes(HANDLE, protocol, &unhex(hex)), expected, "{words}");
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

fn filter(kind: &str, options: &[Vec<u8>]) -> Vec<u8> {
    let kind = nla(TCA_KIND, &[kind.as_bytes(), &[0]].concat());
    [kind, nla(TCA_OPTIONS, &options.concat())].concat()
}

/// struct tc_u32_sel with these flags and no key.
fn selector(flags: u8) -> Vec<u8> {
    let mut selector = [0; 16];
    selector[0] = flags;
    nla(5, &selector)
}

#[test]
fn a_u32_takes_all_only_if_each_walk_comes_to_it_and_ends_there() {
    let (link, indev, mark) = (nla(3, &[0, 0, 0x10, 0]), nla(8, b"eth0\0"), nla(10, &[1; 12]));
    let terminal = || selector(1);
    for (case, handle, options, expected) in [
        ("terminal", HANDLE, vec![terminal()], Takes::All),
        ("in a table of its own", 0x0010_0800, vec![terminal()], Takes::Some),
        ("of one interface", HANDLE, vec![terminal(), indev], Takes::Some),
        ("of a mark", HANDLE, vec![terminal(), mark], Takes::Some),
        ("to another table", HANDLE, vec![selector(0), link], Takes::Some),
        ("to nowhere", HANDLE, vec![selector(0)], Takes::Nothing),
        ("cut off", HANDLE, vec![], Takes::Some),
    ] {
        assert_eq!(takes(handle, ETH_P_ALL, &filter("u32", &options)), expected, "{case}");
    }
}

#[test]
fn a_flower_or_basic_takes_all_as_the_kernel_shows_it() {
    let classid = || nla(1, &[1, 0, 1, 0]);
    let ethernet_type = |bytes: [u8; 2]| nla(8, &bytes);
    let (flags, count) = (nla(22, &[8, 0, 0, 0]), nla(86, &[0; 4]));
    for (case, kind, options, expected) in [
        ("flags alone", "flower", vec![classid(), flags, count], Takes::All),
        ("IPv6", "flower", vec![classid(), ethernet_type([0x86, 0xdd])], Takes::All),
        ("ARP", "flower", vec![classid(), ethernet_type([0x08, 0x06])], Takes::Some),
        ("an interface", "flower", vec![classid(), nla(2, b"eth0\0")], Takes::Some),
        ("a key of tomorrow", "flower", vec![classid(), nla(900, &[1])], Takes::Some),
        ("an empty tree", "basic", vec![nla(2, &nla(1, &[0; 4]))], Takes::All),
        ("a tree", "basic", vec![nla(2, &nla(1, &[1, 0, 0, 0]))], Takes::Some),
        ("a broken tree", "basic", vec![nla(2, &[])], Takes::Some),
    ] {
        assert_eq!(takes(1, ETH_P_ALL, &filter(kind, &options)), expected, "{kind}: {case}");
    }
}

#[test]
fn what_is_not_known_may_take_some() {
    let action = |kind: &str| {
        let kind = nla(TCA_ACT_KIND, &[kind.as_bytes(), &[0]].concat());
        // Looks like struct tc_gen with TC_ACT_UNSPEC, wherever this kind has it.
        let options = [1, 2, 3].map(|parms| nla(parms, &[0xff; 20])).concat();
        nla(2, &nla(1, &[kind, nla(TCA_ACT_OPTIONS, &options)].concat()))
    };
    for (case, attributes, expected) in [
        ("a kind of tomorrow", filter("tomorrow", &[]), Takes::Some),
        ("a known action", filter("matchall", &[action("vlan")]), Takes::Nothing),
        ("an action of tomorrow", filter("matchall", &[action("tomorrow")]), Takes::Some),
        ("an action that is a program", filter("matchall", &[action("bpf")]), Takes::Some),
        ("a program that decides itself", filter("bpf", &[nla(8, &[1, 0, 0, 0])]), Takes::Some),
        ("nothing at all", Vec::new(), Takes::Some),
    ] {
        assert_eq!(takes(1, ETH_P_ALL, &attributes), expected, "{case}");
    }
}
