//! What Calico's Felix (3.30 and later) does to a host interface must not undo a limit that auto has
//! set on a `cali…` interface. The table of docs/with-calico.md is what is asserted here. (Felix before an
//! ADD: felix_first.rs; in the middle of it: felix_race.rs.)
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod felix_played;

use std::time::Duration;

use common::{Call, Lab, Pod, Shape, Snapshot, Way};
use felix_played::{Felix, Wanted, add, hold};

const CALI: &str = "calie822bf90b23";
const M: u64 = 1_000_000;

/// An event, and what Felix wants after it: an annotation that it reads comes, changes, goes.
const EVENTS: [(&str, Wanted); 4] = [
    ("an endpoint update or a restart, no limit wanted", None),
    ("Felix wants limits of its own", Some(100)),
    ("Felix's limits change", Some(200)),
    ("Felix's limits go away", None),
];

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
