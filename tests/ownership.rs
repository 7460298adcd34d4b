//! Whose a thing is: what is created for one attachment goes with that one and with no other, whatever
//! namespace a runtime names. Two entries of one list, and what earlier builds made.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Direction, Lab, PLUGIN, Pod, Shape, Snapshot, TempDir, Way};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

/// Limits in both directions, and in each alone: a root TBF then has no filter and no IFB beside it.
const LIMITS: [(&str, &str); 3] = [("10M", "20M"), ("10M", ""), ("", "20M")];

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

fn add(pod: &Pod, container: &str, way: Way, (to_pod, from_pod): (&str, &str)) -> Call {
    Call::add(pod).container(container).way(way).limits(to_pod, from_pod)
}

// ---- another pod's namespace ------------------------------------------------------------

/// A PID or a path was used again.
#[test]
fn del_with_the_namespace_of_another_pod_leaves_that_pod_alone() {
    for way in Way::ALL {
        for limits in LIMITS {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{way:?}, {limits:?}");
            // given two pods with limits
            let (one, two) = (lab.pod("veth0"), lab.pod("veth1"));
            let before = Snapshot::of(&[&lab]);
            add(&two, "b", way, limits).ok();
            let with_two = Snapshot::of(&[&lab]);
            add(&one, "a", way, limits).ok();
            let inside_two = Snapshot::of(&[&two]);
            // when DEL for the first comes with the second's namespace
            Call::del(&two).container("a").way(way).ok();
            // then the second is as it was, and the first has no IFB any more on the host
            inside_two.assert_same(&Snapshot::of(&[&two]), &case);
            let but_veth0 = |state: Snapshot| state.without("/ veth0 /");
            but_veth0(with_two).assert_same(&but_veth0(Snapshot::of(&[&lab])), &case);
            // and its own DEL takes the rest
            Call::del(&one).container("a").way(way).ok();
            Call::del(&two).container("b").way(way).ok();
            before.assert_same(&Snapshot::of(&[&lab]), &case);
        }
    }
}

#[test]
fn an_add_without_limits_in_the_namespace_of_another_pod_leaves_that_pod_alone() {
    for way in Way::ALL {
        for limits in LIMITS {
            let Some(lab) = Lab::open() else { return };
            let pod = lab.pod("veth0");
            add(&pod, "b", way, limits).ok();
            let before = state(&pod);
            add(&pod, "a", way, ("", "")).ok();
            before.assert_same(&state(&pod), &format!("{way:?}, {limits:?}"));
        }
    }
}

#[test]
fn an_interface_that_is_limited_for_one_attachment_is_refused_to_another() {
    for way in Way::ALL {
        for limits in LIMITS {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{way:?}, {limits:?}");
            let pod = lab.pod("veth0");
            add(&pod, "b", way, limits).ok();
            let before = state(&pod);
            let error = add(&pod, "a", way, limits).error(101);
            error.says(&[way.device(&pod.eth0), "another attachment", "DEL"]);
            // The IFB whose alias names it, where there is one.
            for ifb in way.namespace(&pod).ifbs() {
                error.says(&[&ifb]);
            }
            before.assert_same(&state(&pod), &case);
            add(&pod, "a", way, limits).verb("CHECK").error(102).says(&["another attachment"]);
        }
    }
}

#[test]
fn gc_takes_what_is_on_an_interface_by_its_tag() {
    for way in [Way::Root, Way::Hooks] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        add(&pod, "b", way, ("10M", "20M")).ok();
        let before = Snapshot::of(&[&lab]);
        // given an IFB of a stale attachment whose alias names an interface that is another's by now
        let stale = lab.pod("veth1");
        add(&stale, "a", way, ("10M", "20M")).ok();
        let ifbs = lab.ifbs();
        lab.sh("ip link del veth1");
        for ifb in &ifbs {
            let alias = lab.alias(ifb).replace("dev=veth1", "dev=veth0");
            lab.run(&["ip", "link", "set", ifb, "alias", &alias]);
        }
        // when GC removes it
        let valid = json!([{"containerID": "b", "ifname": "eth0"}]);
        Call::node(&lab, "GC").key("cni.dev/valid-attachments", valid).ok();
        // then the interface is as it was
        before.assert_same(&Snapshot::of(&[&lab]), &format!("{way:?}"));
    }
}

// ---- two entries of one list ---------------------------------------------------------------

fn entry(pod: &Pod, keys: &Value) -> Call {
    let call = Call::add(pod).without_key("capabilities");
    keys.as_object().unwrap().iter().fold(call, |call, (key, value)| call.key(key, value.clone()))
}

/// The entry that is for the pod's annotations.
fn for_annotations(pod: &Pod, to_pod: &str, from_pod: &str) -> Call {
    Call::add(pod).limits(to_pod, from_pod)
}

#[test]
fn the_limits_of_one_entry_stay_where_the_other_has_none_for_this_pod() {
    for keys in [
        json!({"ingressRate": 10 * M, "shapedSubnets": ["192.0.2.0/24"]}),
        json!({"ingressRate": 10 * M}),
        json!({"egressRate": 10 * M}),
        json!({"ingressRate": 10 * M, "egressRate": 20 * M, "placement": "pod"}),
        json!({"defaults": {"ingressRate": "10M"}}),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let before = state(&pod);
        let first = entry(&pod, &keys);
        first.ok();
        let shaped = state(&pod);
        // when the entry for annotations is called for a pod that has none
        let second = for_annotations(&pod, "", "");
        second.ok();
        // then the limits stay, CHECK of both entries agrees, and DEL of both leaves nothing
        shaped.assert_same(&state(&pod), &format!("{keys}"));
        second.clone().verb("CHECK").ok();
        first.clone().verb("CHECK").ok();
        second.verb("DEL").ok();
        first.verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{keys}, DEL"));
    }
}

#[test]
fn the_second_of_two_entries_with_limits_fails_and_names_the_first() {
    for keys in [
        json!({"ingressRate": 10 * M, "shapedSubnets": ["192.0.2.0/24"]}),
        json!({"ingressRate": 10 * M}),
        json!({"ingressRate": 10 * M, "placement": "pod"}),
    ] {
        for limits in [("30M", ""), ("", "30M"), ("30M", "30M")] {
            let Some(lab) = Lab::open() else { return };
            let pod = lab.pod("veth0");
            entry(&pod, &keys).ok();
            let shaped = state(&pod);
            let error = for_annotations(&pod, limits.0, limits.1).error(101);
            error.says(&["another pod-bandwidth entry", "ingressRate", "default/web-0"]);
            shaped.assert_same(&state(&pod), &format!("{keys}, {limits:?}"));
        }
        // and the other way round
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        for_annotations(&pod, "30M", "").ok();
        let shaped = state(&pod);
        entry(&pod, &keys).error(101).says(&["another pod-bandwidth entry", "capabilities"]);
        shaped.assert_same(&state(&pod), &format!("{keys}, second"));
    }
}

/// What users ask for as "10M to the internet, 100M inside".
#[test]
fn two_static_entries_for_different_subnets_are_told_apart() {
    let inside = json!(["10.0.0.0/8", "fd00::/8"]);
    let outer = json!({"ingressRate": 10 * M, "egressRate": 10 * M, "unshapedSubnets": inside});
    let inner = json!({"ingressRate": 100 * M, "egressRate": 100 * M, "shapedSubnets": inside});
    let all = json!({"ingressRate": 10 * M});
    for (first, second) in [(&outer, &inner), (&inner, &outer), (&all, &inner)] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        entry(&pod, first).ok();
        let shaped = state(&pod);
        entry(&pod, second).error(101).says(&["another pod-bandwidth entry", "ingressRate"]);
        shaped.assert_same(&state(&pod), &format!("{first} and then {second}"));
    }
}

/// An entry that was edited is still the same entry.
#[test]
fn an_entry_with_other_numbers_changes_its_own_limits() {
    for (first, second, rates) in [
        (json!({"ingressRate": 10 * M}), json!({"ingressRate": 30 * M}), (30 * M, 0)),
        (
            json!({"ingressRate": 10 * M}),
            json!({"ingressRate": 10 * M, "egressRate": M}),
            (10 * M, M),
        ),
        (json!({"ingressRate": 10 * M, "egressRate": M}), json!({"egressRate": M}), (0, M)),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        entry(&pod, &first).ok();
        entry(&pod, &second).ok();
        assert_eq!(Shape::of(&pod, Way::Root).rates(), rates, "{first} and then {second}");
    }
}

#[test]
fn a_list_with_two_entries_is_called_by_libcni() {
    let Some(lab) = Lab::open() else { return };
    let Some(cnitool) = common::require_peer("cnitool") else { return };
    let folder = TempDir::new();
    for name in ["ptp", "host-local"] {
        let Some(peer) = common::require_peer(name) else { return };
        std::os::unix::fs::symlink(peer, folder.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink(PLUGIN, folder.path().join("pod-bandwidth")).unwrap();
    lab.private_folder("/var/lib/cni");
    // given one entry with static keys and one for what the caller hands over
    let ipam = json!({"type": "host-local", "dataDir": folder.file("ipam"),
        "ranges": [[{"subnet": "10.95.0.0/24"}]]});
    let list = json!({"cniVersion": "1.0.0", "name": "two", "plugins": [
        {"type": "ptp", "ipam": ipam},
        {"type": "pod-bandwidth", "ingressRate": 10 * M},
        {"type": "pod-bandwidth", "capabilities": {"bandwidth": true}},
    ]});
    std::fs::write(folder.path().join("two.conflist"), list.to_string()).unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let call = |verb: &str, pod: &Pod, capabilities: &str| {
        let argv = [cnitool.to_str().unwrap(), verb, "two", &pod.path()];
        let environment =
            [("CNI_PATH", &*path), ("NETCONFPATH", &*path), ("CAP_ARGS", capabilities)];
        let output = lab.spawn(&argv, &environment).wait_with_output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    };
    // when a pod without limits of its own is added, then those of the first entry hold
    let pod = lab.empty_pod();
    let before = Snapshot::of(&[&lab]);
    let (ok, text) = call("add", &pod, "{}");
    assert!(ok, "{text}");
    let roots = lab.links().into_iter().map(|link| lab.root(link["ifname"].as_str().unwrap()));
    assert_eq!(roots.filter(|root| root.handle == "7062:").count(), 1);
    assert!(call("check", &pod, "{}").0);
    assert!(call("del", &pod, "{}").0);
    before.assert_same(&Snapshot::of(&[&lab]), "DEL");
    // and one with limits of its own is refused, by the second entry
    let pod = lab.empty_pod();
    let (ok, text) = call("add", &pod, r#"{"bandwidth": {"egressRate": 1000000}}"#);
    assert!(
        !ok && text.contains("another pod-bandwidth entry") && text.contains("ingressRate"),
        "{text}"
    );
}

// ---- what an earlier build made --------------------------------------------------------

/// The pod of the recordings.
fn recorded(lab: &Lab, script: &str) -> (Pod, Snapshot, Way) {
    let pod = lab.pod("veth0");
    let before = state(&pod);
    let path = common::tests_dir(&format!("fixtures/state-a199f94-{script}.sh"));
    for line in std::fs::read_to_string(path).unwrap().lines().filter(|line| !line.starts_with('#'))
    {
        let alias = "pod-bandwidth net=net id=c1 if=eth0 dev=veth0 pod=default/web-0";
        let words: Vec<&str> =
            line.split(' ').map(|word| if word == "ALIAS" { alias } else { word }).collect();
        lab.run(&words);
    }
    (pod, before, if script == "root" { Way::Root } else { Way::Hooks })
}

const RECORDINGS: [&str; 2] = ["root", "subnets"];

fn call(pod: &Pod, script: &str) -> Call {
    let call = Call::add(pod).limits("10M", "20M").key("placement", json!("host"));
    match script {
        "root" => call.key("hostIngress", json!("root")),
        _ => call.key("unshapedSubnets", json!(["192.0.2.0/24"])),
    }
}

#[test]
fn what_an_earlier_build_made_is_checked_kept_and_removed() {
    for script in RECORDINGS {
        let Some(lab) = Lab::open() else { return };
        let (pod, before, way) = recorded(&lab, script);
        let shaped = state(&pod);
        call(&pod, script).verb("CHECK").ok();
        call(&pod, script).ok();
        shaped.assert_same(&state(&pod), &format!("{script}: ADD"));
        assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{script}");
        call(&pod, script).verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{script}: DEL"));
    }
}

#[test]
fn what_an_earlier_build_made_goes_without_its_namespace_and_by_gc() {
    for script in RECORDINGS {
        for verb in ["DEL", "GC"] {
            let Some(lab) = Lab::open() else { return };
            let (pod, before, _) = recorded(&lab, script);
            match verb {
                "DEL" => call(&pod, script).verb("DEL").env("CNI_NETNS", "").ok(),
                _ => Call::node(&lab, "GC").key("cni.dev/valid-attachments", json!([])).ok(),
            };
            before.assert_same(&state(&pod), &format!("{script}: {verb}"));
        }
    }
}

#[test]
fn what_an_earlier_build_made_is_not_another_attachments_to_take() {
    for script in RECORDINGS {
        let Some(lab) = Lab::open() else { return };
        let (pod, _, _) = recorded(&lab, script);
        let shaped = state(&pod);
        Call::del(&pod).container("c9").ok();
        shaped.assert_same(&state(&pod), script);
        call(&pod, script).container("c9").error(101).says(&["another attachment"]);
        shaped.assert_same(&state(&pod), script);
    }
}

/// A root TBF of an earlier build that stands alone says nothing about its attachment.
#[test]
fn a_lone_root_tbf_of_an_earlier_build_is_taken_by_the_attachment_that_is_there() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let before = state(&pod);
    lab.sh("tc qdisc add dev veth0 root handle 7062: tbf rate 10mbit burst 5000 limit 36250");
    let add = Call::add(&pod).way(Way::Root).limits("10M", "");
    add.clone().verb("CHECK").ok();
    // An ADD gives it a queue with a handle that tells.
    add.ok();
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 0));
    let shaped = state(&pod);
    add.ok();
    shaped.assert_same(&state(&pod), "a second ADD");
    add.clone().container("c9").verb("DEL").ok();
    shaped.assert_same(&state(&pod), "DEL of another attachment");
    add.verb("DEL").ok();
    before.assert_same(&state(&pod), "DEL");
}

/// Both directions of a limit are one attachment's, so the queue of a root TBF needs no handle then.
#[test]
fn a_root_tbf_that_comes_to_stand_alone_is_still_known() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    add(&pod, "b", Way::Root, ("10M", "20M")).ok();
    add(&pod, "b", Way::Root, ("10M", "")).ok();
    let shaped = state(&pod);
    Call::del(&pod).container("a").ok();
    shaped.assert_same(&state(&pod), "DEL of another attachment");
    assert_eq!(Way::Root.hook(Direction::ToPod), None);
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 0));
}
