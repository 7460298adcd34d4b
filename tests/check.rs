//! CHECK: agrees with what ADD made, and notices each part that is missing or changed.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Damage, Lab, Snapshot, Way};

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
fn check_notices_each_part_that_is_missing_or_changed() {
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
        // then it says so and names the device and the pod
        assert_eq!(outcome.status, Some(1), "{case}: {outcome:#?}");
        outcome.error(102).says(&[&dev, "default/web-0"]);
        // and repairs nothing
        before.assert_same(&Snapshot::of(&[&lab, &pod]), &case);
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
