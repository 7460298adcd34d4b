//! What Calico's Felix (3.30 and later) does to a host interface must not undo a limit that auto has
//! set on a `cali…` interface, whoever was first. The table of docs/with-calico.md is what is asserted
//! here. (Felix in the middle of an ADD: felix_race.rs.)
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod felix_played;

use std::time::Duration;

use common::{Call, Flow, Lab, Pod, PodSpec, SENDS, Shape, Snapshot, Strace, Traffic, Way};
use felix_played::{Felix, Request, Wanted};
use serde_json::{Value, json};

const CALI: &str = "calie822bf90b23";
const M: u64 = 1_000_000;

/// An event, and what Felix wants after it: an annotation that it reads comes, changes, goes.
const EVENTS: [(&str, Wanted); 4] = [
    ("an endpoint update or a restart, no limit wanted", None),
    ("Felix wants limits of its own", Some(100)),
    ("Felix's limits change", Some(200)),
    ("Felix's limits go away", None),
];

/// Whether 8M to the pod and 4M from the pod hold, measured both at the same time.
fn hold(lab: &Lab, pod: &Pod) -> (bool, bool) {
    let traffic = Traffic { duration: Duration::from_millis(2_500), ..Traffic::default() };
    let mut to_pod = Flow::start(lab, pod, &pod.eth0.pod_v4, &traffic);
    let mut from_pod = Flow::start(pod, lab, &pod.eth0.host_v4, &traffic);
    to_pod.until(traffic.duration);
    from_pod.until(traffic.duration);
    let (to_pod, from_pod) = (to_pod.throughput().steady_bits, from_pod.throughput().steady_bits);
    // Wide, for a busy machine: a limit that is gone shows as 100 Mbit/s or more.
    assert!(to_pod > 1e6 && from_pod > 5e5, "{to_pod:.0}, {from_pod:.0} bit/s: the pod is cut off");
    (to_pod < 16e6, from_pod < 8e6)
}

fn add(pod: &Pod) -> Call {
    Call::add(pod).limits("8M", "4M")
}

#[test]
fn on_the_hooks_and_in_the_pod_nothing_that_felix_does_changes_the_limits() {
    // auto takes the hooks of a cali… interface.
    for (way, call) in
        [(Way::Hooks, add as fn(&Pod) -> Call), (Way::Pod, |pod| add(pod).way(Way::Pod))]
    {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod(CALI);
        let felix = Felix::new(&lab, CALI);
        call(&pod).ok();
        let before = Shape::of(&pod, way);
        assert_eq!(before.rates(), (8 * M, 4 * M), "{way:?}");
        for (event, wanted) in EVENTS {
            felix.sees(wanted);
            assert_eq!(Shape::of(&pod, way), before, "{way:?}, {event}");
            call(&pod).verb("CHECK").ok();
            assert_eq!(hold(&lab, &pod), (true, true), "{way:?}, {event}");
        }
        // Beside the hooks Felix gave up half way. What it made is left, by it and by us.
        let left = lab.link(&felix.ifb).is_some();
        assert_eq!(left, way == Way::Hooks, "{way:?}: the IFB of Felix");
        call(&pod).verb("DEL").ok();
        assert_eq!(lab.link(&felix.ifb).is_some(), left, "{way:?}, DEL");
    }
}

#[test]
fn at_the_root_felix_takes_the_limit_to_the_pod_away_and_check_says_so() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod(CALI);
    let felix = Felix::new(&lab, CALI);
    let call = add(&pod).way(Way::Root);
    call.ok();
    for (event, wanted) in EVENTS {
        // given both limits, where the root is not Felix's already
        if lab.root(CALI).handle != "1:" {
            call.ok();
            assert_eq!(Shape::of(&pod, Way::Root).rates(), (8 * M, 4 * M), "{event}");
        }
        felix.sees(wanted);
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (0, 4 * M), "{event}");
        assert_eq!(hold(&lab, &pod), (false, true), "{event}");
        let check = call.clone().verb("CHECK").error(102);
        if wanted.is_none() {
            check.says(&["TBF for ingress", "is missing on", CALI]);
        } else {
            // Its own TBF is in the way of ours: said, not fought.
            check.says(&[CALI, "root qdisc tbf 1: of another program"]);
            call.error(101).says(&[CALI, "root qdisc tbf 1: of another program"]);
            assert_eq!(Shape::of(&pod, Way::Root).rates(), (0, 4 * M), "{event}");
        }
    }
    // Without "root" in the configuration an ADD goes to the hooks, and stays there.
    add(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Hooks).rates(), (8 * M, 4 * M));
    felix.sees(None);
    assert_eq!(hold(&lab, &pod), (true, true), "repaired");
}

#[test]
fn behind_a_plain_ingress_qdisc_felix_takes_both_and_an_add_takes_them_back() {
    let Some(lab) = Lab::open() else { return };
    // given an ingress qdisc of another program on a node where Felix limits nothing, so that there is
    // no egress hook
    let pod = lab.pod(CALI);
    let felix = Felix::new(&lab, CALI);
    lab.sh(&format!("tc qdisc add dev {CALI} ingress"));
    add(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (8 * M, 4 * M));
    // when Felix wants limits, then its filters take the place of ours
    felix.sees(Some(100));
    assert_eq!(hold(&lab, &pod), (false, false));
    add(&pod).verb("CHECK").error(102);
    // and an ADD takes the place of the qdisc, which is Felix's now
    add(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Hooks).rates(), (8 * M, 4 * M));
    for wanted in [Some(200), None] {
        felix.sees(wanted);
        add(&pod).verb("CHECK").ok();
        assert_eq!(hold(&lab, &pod), (true, true), "{wanted:?}");
    }
}

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

#[test]
fn under_other_prefixes_and_by_its_traces_felix_finds_no_root_of_ours_to_delete() {
    const FOLDER: &str = "/var/lib/calico";
    let file = format!("touch {FOLDER}/mtu");
    for (case, host, given, expected) in [
        ("AKS", "azv82111e10a96", "", Way::Hooks),
        ("GKE", "gke82111e10a96", "", Way::Hooks),
        ("OKE", "oci82111e10a96", "", Way::Hooks),
        ("VXLAN", "nic82111e10a96", "ip link add vxlan.calico type ifb", Way::Hooks),
        ("IPv6", "nic82111e10a96", "ip link add vxlan-v6.calico type ifb", Way::Hooks),
        ("WireGuard", "nic82111e10a96", "ip link add wireguard.cali type ifb", Way::Hooks),
        ("no overlay", "nic82111e10a96", &file, Way::Hooks),
        ("no Felix", "nic82111e10a96", "", Way::Root),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod(host);
        lab.private_folder(FOLDER);
        lab.script(given);
        add(&pod).ok();
        assert_eq!(Shape::of(&pod, expected).rates(), (8 * M, 4 * M), "{case}");
        // when Felix looks at the interface, then a TBF at its root goes, and nothing else
        lab.attempt(&["tc", "qdisc", "del", "dev", host, "root"]);
        let check = add(&pod).verb("CHECK");
        if expected == Way::Root {
            check.error(102);
            continue;
        }
        check.ok();
        let counted = || lab.ifbs().iter().map(|ifb| lab.qdisc_packets(ifb)).collect::<Vec<_>>();
        let before = counted();
        assert_eq!(pod.ping(&pod.eth0.host_v4, 3, Duration::from_secs(1)).received, 3);
        assert_eq!(before.len(), 2, "{case}");
        assert!(before.iter().zip(counted()).all(|(before, now)| *before + 3 <= now), "{case}");
        assert!(case != "AKS" || hold(&lab, &pod) == (true, true), "{case}");
    }
}

#[test]
fn a_limit_that_holds_at_the_root_stays_there() {
    let Some(lab) = Lab::open() else { return };
    // given a pod that an older version has limited at the root
    let pod = lab.pod("azv82111e10a96");
    add(&pod).way(Way::Root).ok();
    let before = Snapshot::of(&[&lab, &pod]);
    add(&pod).ok();
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "ADD");
}

#[test]
fn a_second_add_on_a_recreated_cali_interface_restores_the_limits() {
    let Some(lab) = Lab::open() else { return };
    let mut pod = lab.pod(CALI);
    add(&pod).ok();
    let before = Shape::of(&pod, Way::Hooks);
    let eth0 = pod.eth0.clone();
    pod.recreate(&eth0);
    lab.sh(&format!(
        "tc qdisc replace dev {CALI} root handle 1: tbf rate 1gbit burst 9k limit 99k"
    ));
    add(&pod).ok();
    assert_eq!(Shape::of(&pod, Way::Hooks), before);
}
