//! Interfaces that change under the plugin's hands, input that is too much, and callers that may do
//! nothing. Pods that fight their limit are in tests/hostile_pod.rs.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::{Duration, Instant};

use common::{Call, Lab, Outcome, PLUGIN, Pod, SENDS, Shape, Snapshot, Strace, Way};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

fn add(pod: &Pod, way: Way) -> Call {
    Call::add(pod).way(way).limits("10M", "10M")
}

// ---- things that change between two requests -----------------------------------------------

/// What can happen to a pod's link while the plugin works on it.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Deleted,
    HostRenamed,
    PodRenamed,
    HostMoved,
    PodMoved,
}

impl Deed {
    const ALL: [Self; 5] =
        [Self::Deleted, Self::HostRenamed, Self::PodRenamed, Self::HostMoved, Self::PodMoved];

    fn apply(self, pod: &Pod, third: &Pod) {
        let host = &pod.host;
        match self {
            Self::Deleted => drop(host.sh("ip link del veth0")),
            Self::HostRenamed => drop(host.sh("ip link set veth0 name renamed0")),
            Self::PodRenamed => drop(pod.sh("ip link set eth0 name eth9")),
            Self::HostMoved => {
                host.run(&["ip", "link", "set", "veth0", "netns", &third.ns.pid.to_string()]);
            }
            Self::PodMoved => {
                pod.run(&["ip", "link", "set", "eth0", "netns", &third.ns.pid.to_string()]);
            }
        }
    }
}

/// It ended with a result, or with an error that says something.
fn assert_ended(outcome: &Outcome, case: &str) {
    assert!([Some(0), Some(1)].contains(&outcome.status), "{case}: {outcome:#?}");
    if outcome.status == Some(1) {
        let json: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let code = json["code"].as_u64().unwrap();
        assert!([100, 101, 105].contains(&code), "{case}: {outcome:#?}");
    }
}

/// The call, with each deed done at each of its requests in turn; then a DEL, after which nothing of
/// ours is on the host, and a second pod is as it was.
fn each_deed(verb: &str) {
    let Some(strace) = Strace::find() else { return };
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let (third, bystander) = (lab.empty_pod(), lab.pod("veth9"));
        add(&bystander, way).container("bystander").ok();
        let kept = state(&bystander);
        let prepared = || {
            let pod = lab.pod("veth0");
            if verb == "DEL" {
                add(&pod, way).ok();
            }
            pod
        };
        let pod = prepared();
        let requests = strace.count(&add(&pod, way).verb(verb), SENDS);
        add(&pod, way).verb("DEL").ok();
        lab.sh("ip link del veth0");
        for (at, deed) in (1..=requests).flat_map(|at| Deed::ALL.map(|deed| (at, deed))) {
            let case = format!("{way:?}: {deed:?} after request {at} of {requests} of {verb}");
            // given a link that changes while the plugin is at work
            let pod = prepared();
            let call = add(&pod, way).verb(verb);
            let begin = Instant::now();
            let outcome = strace.stopped(&call, SENDS, at, || deed.apply(&pod, &third));
            // then the call ends soon, in words or with a result
            assert!(begin.elapsed() < Duration::from_secs(8), "{case}: {:?}", begin.elapsed());
            assert_ended(&outcome, &case);
            if matches!(deed, Deed::HostRenamed | Deed::PodRenamed) {
                let pong = pod.ping(&pod.eth0.host_v4, 1, Duration::from_secs(1));
                assert_eq!(pong.received, 1, "{case}: the pod is cut off");
            }
            // and DEL takes what is left, and nothing of anybody else
            call.verb("DEL").ok();
            let host_end = match deed {
                Deed::HostRenamed => Some("renamed0"),
                Deed::PodRenamed | Deed::PodMoved => Some("veth0"),
                Deed::Deleted | Deed::HostMoved => None,
            };
            if let Some(dev) = host_end {
                assert_ne!(lab.root(dev).handle, "7062:", "{case}: {dev}");
                let mut filters = ["ingress", "egress"].map(|hook| lab.filters(dev, hook));
                let ours = filters.iter_mut().flatten().find(|filter| filter.is_ours());
                assert_eq!(ours, None, "{case}: {dev}");
            }
            if matches!(deed, Deed::HostRenamed | Deed::PodRenamed) {
                let pong = pod.ping(&pod.eth0.host_v4, 1, Duration::from_secs(1));
                assert_eq!(pong.received, 1, "{case}: the pod is cut off by DEL");
            }
            for name in ["veth0", "renamed0"] {
                lab.attempt(&["ip", "link", "del", name]);
            }
            third.attempt(&["ip", "link", "del", "veth0"]);
            kept.assert_same(&state(&bystander), &case);
        }
    }
}

#[test]
fn a_link_that_changes_between_two_requests_of_add_leaves_nothing_behind() {
    each_deed("ADD");
}

#[test]
fn a_link_that_changes_between_two_requests_of_del_leaves_nothing_behind() {
    each_deed("DEL");
}

// ---- too much ------------------------------------------------------------------------------

#[test]
fn five_hundred_interfaces_in_the_pod_and_on_the_host_cost_no_request_more() {
    let Some(strace) = Strace::find() else { return };
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let calls = ["ADD", "CHECK", "DEL"].map(|verb| add(&pod, way).verb(verb));
        let counts = || calls.each_ref().map(|call| strace.count(call, SENDS));
        let few = counts();
        for ns in [&pod.ns, &pod.host] {
            let script = "for i in $(seq 250); do \
                echo link add many$i type veth peer name more$i; done | ip -batch -";
            ns.run(&["sh", "-c", script]);
        }
        assert_eq!(counts(), few, "{way:?}: ADD, CHECK, DEL");
    }
}

#[test]
fn an_annotation_of_256_kib_is_refused_in_few_words_or_ignored() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let before = state(&pod);
    let long = "1".repeat(256 << 10);
    let outcome = Call::add(&pod).annotation("kubernetes.io/ingress-bandwidth", &long).run();
    outcome.error(7).says(&["kubernetes.io/ingress-bandwidth"]);
    for channel in [&outcome.stdout, &outcome.stderr] {
        assert!(channel.len() < 2_000, "{} bytes", channel.len());
    }
    before.assert_same(&state(&pod), "refused");
    // One that is nobody's business is in nobody's way.
    Call::add(&pod).limits("10M", "20M").annotation("example.com/long", &long).ok();
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M));
}

#[test]
fn names_with_control_characters_reach_no_log_error_or_alias() {
    let hostile = "c\u{1b}[2J\n\u{7}\u{202e}1";
    for (key, at) in [("CNI_CONTAINERID", None), ("CNI_IFNAME", None), ("", Some("name"))] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let call = Call::add(&pod).limits("10M", "20M");
        let call = match at {
            None => call.env(key, hostile),
            Some(at) => call.key(at, json!(hostile)),
        };
        let outcome = call.run();
        let aliases: Vec<String> = lab.ifbs().iter().map(|name| lab.alias(name)).collect();
        let texts = [outcome.stdout.as_str(), outcome.stderr.trim_end()];
        for text in texts.into_iter().chain(aliases.iter().map(String::as_str)) {
            let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(bad), "{key}{at:?}: {text:?}");
        }
        assert!([Some(0), Some(1)].contains(&outcome.status), "{outcome:#?}");
        call.verb("DEL").run();
        assert!(lab.ifbs().is_empty(), "{key}{at:?}");
    }
}

// ---- callers that may do nothing -----------------------------------------------------------

#[test]
fn who_is_not_root_is_told_so_and_changes_nothing() {
    let Some(lab) = Lab::open() else { return };
    // Another user must be able to run it, wherever it was built.
    lab.private_folder("/var/lib/cni");
    let plugin = "/var/lib/cni/pod-bandwidth";
    lab.run(&["install", "-m", "0755", PLUGIN, plugin]);
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    let stranger = ["unshare", "--user", "--"];
    // A plain user's lab has no second user to become.
    let mut callers = vec![stranger.as_slice()];
    callers.extend((!lab.user).then_some(nobody.as_slice()));
    for way in Way::ALL {
        for &caller in &callers {
            let case = format!("{way:?}, {caller:?}");
            let pod = lab.pod(if caller.len() > 3 { "veth0" } else { "veth1" });
            // given a pod that root has shaped
            add(&pod, way).ok();
            let before = state(&pod);
            // when somebody else calls, with another limit to set
            let by_other = |call: Call| call.under(caller).program(plugin);
            for verb in ["ADD", "CHECK", "DEL"] {
                let call = by_other(add(&pod, way).limits("5M", "6M").verb(verb));
                // then it is told what is missing
                call.error(104).says(&["default/web-0", "CAP_"]);
            }
            by_other(Call::node(&lab, "STATUS")).error(50).says(&["CAP_NET_ADMIN"]);
            let gc = Call::node(&lab, "GC").key("cni.dev/valid-attachments", json!([]));
            let outcome = by_other(gc).run();
            assert_eq!(outcome.status == Some(0), lab.ifbs().is_empty(), "{case}: {outcome:#?}");
            // and nothing changed
            before.assert_same(&state(&pod), &case);
            add(&pod, way).verb("DEL").ok();
            lab.sh(&format!("ip link del {}", pod.eth0.host));
        }
    }
}
