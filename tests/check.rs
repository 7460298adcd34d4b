//! CHECK: agrees with what ADD made, and notices each part that is missing or changed.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Damage, Direction, Lab, Pod, Snapshot, Way};
use serde_json::json;

#[test]
fn check_agrees_with_what_add_made() {
    for way in Way::ALL {
        for (to_pod, from_pod) in [("10M", "20M"), ("10M", ""), ("", "20M"), ("", "")] {
            let Some(lab) = Lab::open() else { return };
            let pod = lab.pod("veth0");
            Call::add(&pod).way(way).limits(to_pod, from_pod).ok();
            Call::check(&pod).way(way).limits(to_pod, from_pod).ok();
        }
    }
}

#[test]
fn check_fails_for_each_part_without_which_the_limit_does_not_hold_and_logs_the_others() {
    for (way, direction, damage) in Damage::table() {
        let Some(lab) = Lab::open() else { return };
        let case = format!("{way:?}, {direction:?}, {damage:?}");
        // given a pod that is shaped, but for one part
        let pod = lab.pod("veth0");
        Call::add(&pod).way(way).limits("10M", "10M").ok();
        let dev = damage.apply(&pod, way, direction);
        let before = Snapshot::of(&[&lab, &pod]);
        // when CHECK looks at it
        let outcome = Call::check(&pod).way(way).limits("10M", "10M").run();
        // then it fails, or logs what ADD would tidy up, and names the device and the pod
        let text = match damage.breaks_the_limit() {
            true => outcome.error(102).text,
            false => {
                outcome.ok();
                outcome.stderr
            }
        };
        assert!(text.contains(&dev) && text.contains("default/web-0"), "{case}: {text}");
        // and repairs nothing
        before.assert_same(&Snapshot::of(&[&lab, &pod]), &case);
    }
}

/// What another release, or another program, has changed and no limit depends on.
#[test]
fn check_passes_and_logs_what_add_would_tidy_up() {
    type Change = fn(&Pod, Way) -> &'static str;
    let changes: [(&str, Change); 6] = [
        ("the IFB's alias", |pod, way| {
            way.namespace(pod).run(&["ip", "link", "set", &ifb(pod, way), "alias", "another"]);
            "alias"
        }),
        ("the IFB's MTU", |pod, way| {
            way.namespace(pod).run(&["ip", "link", "set", &ifb(pod, way), "mtu", "1280"]);
            "MTU"
        }),
        ("the host interface's name", |pod, _| {
            pod.host.sh("ip link set veth0 down");
            pod.host.sh("ip link set veth0 name renamed0");
            pod.host.sh("ip link set renamed0 up");
            ""
        }),
        ("the MTU of both ends", |pod, _| {
            pod.host.sh("ip link set veth0 mtu 1400");
            pod.ns.sh("ip link set eth0 mtu 1400");
            "burst"
        }),
        // As a release would that derives 5 ms in place of 4.
        ("a derived burst", |pod, way| {
            let dev = way.queue_device(pod, &pod.eth0, Direction::FromPod).unwrap();
            let numbers = "root handle 7062: tbf rate 1mbit burst 3800 limit 7890";
            way.namespace(pod).sh(&format!("tc qdisc change dev {dev} {numbers}"));
            "burst"
        }),
        ("a TBF's queue", |pod, way| {
            let dev = way.queue_device(pod, &pod.eth0, Direction::FromPod).unwrap();
            way.namespace(pod).sh(&format!("tc qdisc replace dev {dev} parent 7062:1 pfifo"));
            "pfifo"
        }),
    ];
    for way in Way::ALL {
        for (what, change) in changes {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{way:?}, {what}");
            let pod = lab.pod("veth0");
            let before = Snapshot::of(&[&pod]);
            let add = Call::add(&pod).way(way).limits("1M", "1M");
            add.ok();
            // when something is changed on which no limit depends
            let logged = change(&pod, way);
            // then CHECK passes, and its log names what it found
            let check = add.clone().verb("CHECK").run();
            assert_eq!(check.status, Some(0), "{case}: {check:#?}");
            assert!(check.stderr.contains(logged), "{case}: {}", check.stderr);
            // and ADD tidies it up: then there is nothing to log
            add.ok();
            let check = add.clone().verb("CHECK").run();
            assert_eq!((check.status, check.stderr.as_str()), (Some(0), ""), "{case}");
            add.verb("DEL").ok();
            let without_mtu = |state: Snapshot| state.without(" / eth0 / link");
            without_mtu(before).assert_same(&without_mtu(Snapshot::of(&[&pod])), &case);
        }
    }
}

/// The IFB of the limit from the pod, or of the one to the pod inside it.
fn ifb(pod: &Pod, way: Way) -> String {
    way.namespace(pod).ifbs().remove(0)
}

#[test]
fn a_burst_that_was_written_is_verified() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let limits = json!({"ingressRate": 1_000_000, "ingressBurst": 80_000,
            "egressRate": 1_000_000, "egressBurst": 80_000});
        let add = Call::add(&pod).way(way).bandwidth(limits);
        add.ok();
        add.clone().verb("CHECK").ok();
        let dev = way.queue_device(&pod, &pod.eth0, Direction::FromPod).unwrap();
        let numbers = "root handle 7062: tbf rate 1mbit burst 9000 limit 14554";
        way.namespace(&pod).sh(&format!("tc qdisc change dev {dev} {numbers}"));
        add.verb("CHECK").error(102).says(&[&dev, "burst 9000 bytes instead of 10000 bytes"]);
    }
}

#[test]
fn check_notices_a_pod_that_was_never_added() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let error = Call::check(&pod).way(way).limits("10M", "20M").error(102);
        error.says(&[way.device(&pod.eth0), "default/web-0"]);
    }
}

#[test]
fn check_notices_limits_that_should_not_be_there() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        Call::add(&pod).way(way).limits("10M", "20M").ok();
        Call::check(&pod).way(way).limits("10M", "").error(102);
        Call::check(&pod).way(way).limits("", "20M").error(102);
    }
}

#[test]
fn check_is_not_disturbed_by_foreign_things() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        Call::add(&pod).way(way).limits("10M", "20M").ok();
        let (ns, dev) = (way.namespace(&pod), way.device(&pod.eth0));
        ns.script(&format!(
            "tc filter add dev {dev} ingress pref 7 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1
             ip link add foreign type ifb
             ip addr add 192.0.2.7/32 dev {dev}"
        ));
        Call::check(&pod).way(way).limits("10M", "20M").ok();
    }
}

#[test]
fn check_without_prev_result_is_an_invalid_configuration() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    Call::add(&pod).limits("10M", "20M").ok();
    let check = Call::check(&pod).limits("10M", "20M").without_key("prevResult");
    check.error(7).says(&["prevResult"]);
}
