//! Where Calico's Felix has shaped a pod's interface before the ADD: a limit from the pod takes the place
//! of Felix's `ingress` qdisc, of nobody else's, and of none at all where the entry says so.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod felix_played;

use common::{Lab, Pod, PodSpec, SENDS, Shape, Snapshot, Strace, Way};
use felix_played::{Felix, Request, add, hold};
use serde_json::{Value, json};

const CALI: &str = "calie822bf90b23";
const M: u64 = 1_000_000;

/// What a real Felix 3.32.1 had put on a pod's interface before the plugin's ADD, and an interface
/// with it that is the same to the last word of `tc`.
fn shaped_first(lab: &Lab) -> (Value, Pod, Felix) {
    let path = common::tests_dir("fixtures/calico-3.32.1-felix-shaped-first.json");
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let name = |at: &str| fixture.pointer(at).unwrap().as_str().unwrap().to_owned();
    let pod = lab.pod_with(PodSpec::host(&name("/link/0/ifname")));
    let bytes = |at: &str| fixture.pointer(at).unwrap().as_u64().unwrap();
    let felix = Felix {
        ifb: name("/link_ifb/0/ifname"),
        // tc rounds down to whole microseconds at the rate.
        bursts: [bytes("/qdisc/0/options/burst") + 1, bytes("/qdisc_ifb/0/options/burst") + 1],
        ..Felix::new(lab, &pod.eth0.host)
    };
    assert!(felix.shapes(&Request::ALL, [10, 20]));
    assert_eq!(
        seen(lab, &felix),
        [&fixture["qdisc"], &fixture["filter_ingress"], &fixture["qdisc_ifb"]].map(plain)
    );
    (fixture, pod, felix)
}

/// Qdiscs and ingress filters of the interface, and qdiscs of Felix's IFB.
fn seen(lab: &Lab, felix: &Felix) -> [Value; 3] {
    let show = |what: &str, dev: &str, hook: &[&str]| {
        let words = ["tc", "-j", what, "show", "dev", dev];
        plain(&lab.json(&[&words[..], hook].concat()))
    };
    [
        show("qdisc", &felix.dev, &[]),
        show("filter", &felix.dev, &["ingress"]),
        show("qdisc", &felix.ifb, &[]),
    ]
}

/// Without what is another number each time, or is shown by one version of iproute2 alone.
fn plain(value: &Value) -> Value {
    const VARY: [&str; 7] = ["index", "ref", "bind", "dev", "refcnt", "offmask", "lat"];
    let varies = |key: &str| VARY.contains(&key);
    match value {
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, _)| !varies(key));
            Value::Object(kept.map(|(key, value)| (key.clone(), plain(value))).collect())
        }
        other => other.clone(),
    }
}

#[test]
fn where_felix_came_first_auto_takes_the_place_of_its_ingress_qdisc() {
    let Some(lab) = Lab::open() else { return };
    // given a new veth that Felix has shaped both ways before our ADD
    let (fixture, pod, felix) = shaped_first(&lab);
    // when it is added, then both limits are on the host, and Felix's are in series or idle
    add(&pod).ok();
    let shape = Shape::of(&pod, Way::Hooks);
    assert_eq!(shape.rates(), (8 * M, 4 * M));
    let [qdiscs, _, ifb] = seen(&lab, &felix);
    assert_eq!(qdiscs[0], plain(&fixture["qdisc"][0]), "Felix's root TBF");
    assert_eq!(ifb, plain(&fixture["qdisc_ifb"]));
    assert_eq!(hold(&lab, &pod), (true, true));
    add(&pod).verb("CHECK").ok();
    // and stay so, whatever Felix then sees and wants
    for wanted in [Some(100), None, Some(100)] {
        felix.sees(wanted);
        assert_eq!(Shape::of(&pod, Way::Hooks), shape, "{wanted:?}");
        add(&pod).verb("CHECK").ok();
        assert_eq!(hold(&lab, &pod), (true, true), "{wanted:?}");
    }
    // and DEL leaves Felix's root TBF and IFB, and no `ingress` qdisc
    add(&pod).verb("DEL").ok();
    assert_eq!(lab.root(&felix.dev).handle, "1:");
    assert_eq!(lab.hook_kind(&felix.dev), None);
    assert!(lab.link(&felix.ifb).is_some());
    assert_eq!(lab.ifbs(), Vec::<String>::new());
}

#[test]
fn calicos_limits_are_kept_where_the_entry_says_so() {
    let Some(lab) = Lab::open() else { return };
    let (_, pod, felix) = shaped_first(&lab);
    let before = Snapshot::of(&[&lab]);
    let keep = |pod: &Pod| add(pod).key("calicoQoS", json!("keep"));
    // No place for ours on the host: auto goes into the pod, and "host" is refused.
    for way in [Way::Root, Way::Hooks] {
        keep(&pod).way(way).error(101).says(&[&felix.dev]);
    }
    keep(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Pod).rates(), (8 * M, 4 * M));
    assert_eq!(hold(&lab, &pod), (true, true));
    before.assert_same(&Snapshot::of(&[&lab]), "what Felix has");
    felix.sees(None);
    keep(&pod).verb("CHECK").ok();
    assert_eq!(hold(&lab, &pod), (true, true), "Felix's limits are gone");
    // A limit that holds is not moved by another word in the entry.
    add(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Pod).rates(), (8 * M, 4 * M));
}

#[test]
fn an_add_that_fails_puts_felixs_ingress_qdisc_back() {
    let Some(strace) = Strace::find() else { return };
    let Some(lab) = Lab::open() else { return };
    // given limits inside the pod, so that something is left to do behind the replacement
    let (_, pod, felix) = shaped_first(&lab);
    let state = || Snapshot::of(&[&lab]);
    let call = add(&pod).way(Way::Hooks);
    let again = || {
        call.clone().verb("DEL").ok();
        assert!(felix.shapes(&Request::ALL, [10, 20]));
        add(&pod).way(Way::Pod).ok();
        state()
    };
    again();
    let firsts = strace.firsts(&call);
    let mut before = again();
    let mut failed = 0;
    for at in 1..=firsts.len() {
        for what in ["not sent", "refused"] {
            // when a send of it fails, or the kernel refuses the first request of one
            let outcome = match what {
                "refused" => strace.refused(&call, &firsts, at),
                _ => strace.failed(&call, SENDS, "EPERM", &at.to_string()),
            };
            // then all is as it was before
            if outcome.status == Some(0) {
                before = again();
                continue;
            }
            assert_eq!(outcome.status, Some(1), "send {at}, {what}: {outcome:#?}");
            before.assert_same(&state(), &format!("send {at} of {}, {what}", firsts.len()));
            failed += 1;
        }
    }
    assert!(failed > firsts.len(), "{failed} of {} sends", firsts.len());
}

#[test]
fn only_what_is_felixs_makes_way() {
    let redirect = |words: &str| format!("tc filter add dev {CALI} parent ffff: {words}");
    let all = "u32 match u32 0 0 flowid 1:1 action mirred egress redirect dev";
    for (case, lines) in [
        ("the reference's", vec![redirect(&format!("pref 1 protocol all {all} bwp0123456789a"))]),
        ("an IFB of nobody", vec![redirect(&format!("pref 1 protocol all {all} ifb9"))]),
        ("no IFB", vec![redirect(&format!("pref 1 protocol all {all} bwcaliveth"))]),
        ("pref 2", vec![redirect(&format!("pref 2 protocol all {all} bwcali0123abcde"))]),
        (
            "two filters",
            vec![
                redirect(&format!("pref 1 protocol all {all} bwcali0123abcde")),
                redirect("pref 9 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1"),
            ],
        ),
        (
            "a mirror",
            vec![redirect(
                "pref 1 protocol all u32 match u32 0 0 flowid 1:1 \
                 action mirred egress mirror dev bwcali0123abcde",
            )],
        ),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod(CALI);
        for ifb in ["bwcali0123abcde", "bwp0123456789a", "ifb9"] {
            lab.sh(&format!("ip link add {ifb} up type ifb"));
        }
        lab.sh("ip link add bwcaliveth up type veth peer name other");
        lab.sh(&format!("tc qdisc add dev {CALI} ingress"));
        lines.iter().for_each(|line| drop(lab.sh(line)));
        let filters = lab.filters(CALI, "ingress");
        add(&pod).run();
        add(&pod).verb("DEL").ok();
        assert_eq!(lab.hook_kind(CALI).as_deref(), Some("ingress"), "{case}");
        assert_eq!(lab.filters(CALI, "ingress"), filters, "{case}");
    }
}
