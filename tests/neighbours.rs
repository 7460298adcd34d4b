//! Beside things of other programs on the same interface: works, or fails with a message, and
//! never removes what it did not make.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use common::{Call, CniError, Lab, Pod, Shape, Snapshot, Strace, Way};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

/// Foreign things on `DEV`, by the words of `tc`.
const INGRESS: &str = "tc qdisc add dev DEV ingress";
const CLSACT: &str = "tc qdisc add dev DEV clsact";
const INGRESS_FILTERS: &str = "
    tc filter add dev DEV ingress pref 1 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1
    tc filter add dev DEV ingress pref 1 protocol ip u32 match ip dst 192.0.2.2 flowid 1:1
    tc filter add dev DEV ingress pref 100 protocol ipv6 u32 match ip6 dst 2001:db8::/32 flowid 1:1
    tc filter add dev DEV ingress pref 49152 protocol all u32 match u32 1 0xffffffff at 0 flowid 1:1
    tc filter add dev DEV ingress pref 65534 protocol ip u32 match ip dst 192.0.2.3 flowid 1:1";
const EGRESS_FILTERS: &str = "
    tc filter add dev DEV egress pref 1 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1
    tc filter add dev DEV egress pref 65000 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1";
const ROOT: &str = "tc qdisc add dev DEV root handle 5: pfifo limit 77";

fn give(pod: &Pod, way: Way, foreign: &[&str]) {
    for lines in foreign {
        way.namespace(pod).script(&lines.replace("DEV", way.device(&pod.eth0)));
    }
}

#[test]
fn foreign_hooks_and_filters_are_used_and_stay() {
    let mut table: Vec<(Way, Vec<&str>)> = Vec::new();
    for way in Way::ALL {
        table.push((way, vec![CLSACT]));
        table.push((way, vec![CLSACT, INGRESS_FILTERS, EGRESS_FILTERS]));
    }
    for way in [Way::Root, Way::Pod] {
        table.push((way, vec![INGRESS]));
        table.push((way, vec![INGRESS, INGRESS_FILTERS]));
    }
    // A root qdisc is in the way of a TBF there, and of nothing else.
    table.push((Way::Hooks, vec![ROOT]));
    table.push((Way::Hooks, vec![ROOT, CLSACT, EGRESS_FILTERS]));

    for (way, foreign) in table {
        let Some(lab) = Lab::open() else { return };
        let case = format!("{way:?} beside {foreign:?}");
        // given foreign things where we work
        let pod = lab.pod("veth0");
        give(&pod, way, &foreign);
        let before = state(&pod);
        let (ns, dev) = (way.namespace(&pod), way.device(&pod.eth0));
        // Both hooks in one: u32 shows a filter of the one on the other too, where one of ours has
        // the same priority there.
        let foreign_filters = || {
            let both = ["ingress", "egress"].into_iter().flat_map(|hook| ns.filters(dev, hook));
            let foreign = both.filter(|filter| !filter.is_ours());
            foreign.map(|filter| filter.raw["options"].to_string()).collect::<BTreeSet<_>>()
        };
        let (filters, hook) = (foreign_filters(), ns.hook_kind(dev));
        let add = Call::add(&pod).way(way).limits("10M", "20M");

        // when a pod is added (twice), checked and deleted (twice)
        add.ok();
        assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{case}");
        assert_eq!(foreign_filters(), filters, "{case}");
        if hook.is_some() {
            assert_eq!(ns.hook_kind(dev), hook, "{case}");
        }
        let shaped = state(&pod);
        add.ok();
        shaped.assert_same(&state(&pod), &format!("{case}, second ADD"));
        add.clone().verb("CHECK").ok();
        assert_eq!(pod.ping(&pod.eth0.host_v4, 1, Duration::from_secs(1)).received, 1, "{case}");

        // then the foreign things stay as they were
        add.clone().verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{case}, DEL"));
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{case}, second DEL"));
    }
}

#[test]
fn what_a_foreign_qdisc_makes_impossible_is_refused_and_nothing_is_left() {
    for (way, foreign, named) in [
        // The root is taken.
        (Way::Root, vec![ROOT], ["veth0", "pfifo"]),
        (Way::Pod, vec![ROOT], ["eth0", "pfifo"]),
        (
            Way::Root,
            vec!["tc qdisc add dev DEV root handle 1: tbf rate 1gbit burst 9k limit 99k"],
            ["veth0", "tbf"],
        ),
        // A plain ingress qdisc has no egress hook, and clsact cannot be beside it.
        (Way::Hooks, vec![INGRESS], ["veth0", "ingress"]),
    ] {
        let Some(lab) = Lab::open() else { return };
        let case = format!("{way:?} beside {foreign:?}");
        let pod = lab.pod("veth0");
        give(&pod, way, &foreign);
        let before = state(&pod);
        let add = Call::add(&pod).way(way).limits("10M", "20M");
        add.error(101).says(&named).says(&["default/web-0"]);
        before.assert_same(&state(&pod), &case);
        // and DEL, which the runtime sends after a failed ADD, leaves it too
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{case}, DEL"));
    }
}

#[test]
fn auto_goes_round_what_is_taken() {
    for (host, foreign, way) in [
        ("veth0", "", Way::Root),
        ("cali12ab34cd56e", "", Way::Hooks),
        ("veth0", ROOT, Way::Hooks),
        ("veth0", INGRESS, Way::Root),
        ("cali12ab34cd56e", INGRESS, Way::Root),
        ("veth0", CLSACT, Way::Root),
        ("cali12ab34cd56e", CLSACT, Way::Hooks),
    ] {
        let Some(lab) = Lab::open() else { return };
        let case = format!("auto on {host} beside {foreign:?}");
        let pod = lab.pod(host);
        lab.script(&foreign.replace("DEV", host));
        let before = state(&pod);
        let add = Call::add(&pod).limits("10M", "20M");
        add.ok();
        assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{case}");
        // The same decision again, now that our own things are there too.
        let shaped = state(&pod);
        add.ok();
        shaped.assert_same(&state(&pod), &format!("{case}, second ADD"));
        add.clone().verb("CHECK").ok();
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{case}, DEL"));
    }
}

#[test]
fn auto_shapes_inside_the_pod_where_a_bpf_program_guards_the_host_interface() {
    let accept = "bpf bytecode 1,6$0$0$4294967295,";
    for hook in ["ingress", "egress"] {
        let Some(lab) = Lab::open() else { return };
        // given a program on a hook of the host interface
        let pod = lab.pod("veth0");
        lab.script(CLSACT.replace("DEV", "veth0").as_str());
        let words = format!("tc filter add dev veth0 {hook} pref 1 protocol all {accept}");
        let words: Vec<String> = words.split(' ').map(|word| word.replace('$', " ")).collect();
        lab.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let before = state(&pod);
        let add = Call::add(&pod).limits("10M", "20M");
        // when auto decides
        add.ok();
        // then the host is left alone, and the limits are in the pod
        Snapshot::of(&[&lab]).assert_same(&before.clone().without("pod "), hook);
        assert_eq!(Shape::of(&pod, Way::Pod).rates(), (10 * M, 20 * M), "{hook}");
        add.clone().verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{hook}, DEL"));
        // and who insists on the host is told why not
        let insisting = add.clone().key("placement", json!("host")).run();
        assert_eq!(insisting.status, Some(1), "{insisting:#?}");
        assert!(insisting.stdout.contains("BPF"), "{insisting:#?}");
        before.assert_same(&state(&pod), &format!("{hook}, host"));
    }
}

/// The reference plugin, called in the same chain before ours.
fn reference_add(lab: &Lab, pod: &Pod, limits: &Value) -> bool {
    let Some(plugin) = common::require_peer("bandwidth") else { return false };
    let mut config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bandwidth",
        "prevResult": pod.result(&pod.eth0, "1.0.0"),
    });
    for (key, value) in limits.as_object().unwrap() {
        config[key] = value.clone();
    }
    let script = r#"printf %s "$CONFIG" | "$1""#;
    let output = lab
        .command(&["sh", "-c", script, "sh", plugin.to_str().unwrap()])
        .env("CONFIG", config.to_string())
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_NETNS", pod.ns.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "the reference plugin: {output:?}");
    true
}

#[test]
fn beside_the_root_qdisc_of_the_reference_plugin_auto_works_and_root_says_what_to_remove() {
    let Some(lab) = Lab::open() else { return };
    // given the reference plugin in the same chain, with a limit to the pod
    let pod = lab.pod("veth0");
    if !reference_add(&lab, &pod, &json!({"ingressRate": 50 * M, "ingressBurst": 5 * M})) {
        return;
    }
    let before = state(&pod);
    let add = Call::add(&pod).limits("10M", "20M");

    // when ours may choose, then it takes the hooks
    add.ok();
    assert_eq!(Shape::of(&pod, Way::Hooks).rates(), (10 * M, 20 * M));
    assert_eq!(lab.root("veth0").handle, "1:", "the reference's TBF is there");
    add.clone().verb("CHECK").ok();
    add.clone().verb("DEL").ok();
    before.assert_same(&state(&pod), "auto, DEL");

    // and when it must use the root, then it says what is in the way and what to do
    let error: CniError = add.way(Way::Root).error(101);
    error.says(&["veth0", "tbf", "bandwidth", "remove"]);
    before.assert_same(&state(&pod), "host/root");
}

#[test]
fn beside_both_limits_of_the_reference_plugin_nothing_of_it_is_lost() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let both = json!({"ingressRate": 50 * M, "ingressBurst": 5 * M,
        "egressRate": 50 * M, "egressBurst": 5 * M});
    if !reference_add(&lab, &pod, &both) {
        return;
    }
    let before = state(&pod);
    // Its match-all filter on a plain ingress qdisc leaves no place on the host for ours.
    for placement in ["host", "auto", "pod"] {
        let add = Call::add(&pod).key("placement", json!(placement)).limits("10M", "20M");
        let outcome = add.run();
        if placement == "pod" {
            outcome.ok();
            assert_eq!(Shape::of(&pod, Way::Pod).rates(), (10 * M, 20 * M));
        } else if outcome.status != Some(0) {
            outcome.error(101).says(&["veth0", "bandwidth", "remove"]);
            before.assert_same(&state(&pod), placement);
        }
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{placement}, DEL"));
    }
}

#[test]
fn ifbs_of_a_pod_are_removed_by_one_request_and_links_in_groups_of_others_stay() {
    let Some(strace) = Strace::find() else { return };
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    // given links in groups of other programs, the highest number among them
    for (number, group) in ["0", "1", "1073741824", "2147483647"].into_iter().enumerate() {
        lab.sh(&format!("ip link add other{number} group {group} type ifb"));
    }
    let before = state(&pod);
    let add = Call::add(&pod).way(Way::Hooks).limits("10M", "20M");
    add.ok();
    assert_eq!(lab.ifbs().len(), 2, "one for each direction");
    // when DEL removes both
    let requests = strace.requests(&add.verb("DEL"));
    // then by one request, and nothing else is gone
    let removals = requests.iter().filter(|(kind, _)| kind == "RTM_DELLINK").count();
    assert_eq!(removals, 1, "{requests:?}");
    before.assert_same(&state(&pod), "after DEL");
}

#[test]
fn an_ifb_that_somebody_removed_does_not_keep_the_other_one() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let add = Call::add(&pod).way(Way::Hooks).limits("10M", "20M");
    for prefix in ["pbi", "pbe"] {
        let before = state(&pod);
        add.ok();
        let ifbs = lab.ifbs();
        let gone = ifbs.iter().find(|name| name.starts_with(prefix)).expect("one for each");
        lab.run(&["ip", "link", "del", gone]);
        add.clone().verb("DEL").ok();
        before.assert_same(&state(&pod), prefix);
    }
}
