//! The mark of a limit that was changed after ADD (docs/design.md): an `mpu` of the TBF's rate. Here
//! `tc` sets it, as the node agent and `set` do.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Lab, Pod, Shape, Way};

const M: u64 = 1_000_000;

/// The `mpu` of a device's root TBF; `tc` prints it with -d alone.
fn mpu(pod: &Pod, way: Way, dev: &str) -> u64 {
    let list = way.namespace(pod).json(&["tc", "-d", "-j", "qdisc", "show", "dev", dev, "root"]);
    list[0]["options"]["mpu"].as_u64().unwrap_or_else(|| panic!("no mpu: {list}"))
}

/// What is queued where, to the pod and from it.
fn devices(pod: &Pod, way: Way) -> [String; 2] {
    common::Direction::ALL.map(|direction| way.queue_device(pod, &pod.eth0, direction).unwrap())
}

#[test]
fn check_looks_past_the_numbers_of_a_marked_limit_and_an_add_takes_the_mark_away() {
    let Some(lab) = Lab::open() else { return };
    for (number, way) in [Way::Root, Way::Hooks, Way::Pod].into_iter().enumerate() {
        let pod = lab.pod(&format!("veth{number}"));
        let add = Call::add(&pod).container(&format!("c{number}")).way(way).limits("10M", "20M");
        add.ok();
        let before = Shape::of(&pod, way);
        for dev in devices(&pod, way) {
            assert_eq!(mpu(&pod, way, &dev), 0, "{way:?}: as ADD sets it");
            let change = |rest: &str| {
                let words = format!("tc qdisc change dev {dev} root handle 7062: tbf {rest}");
                way.namespace(&pod).sh(&words);
            };
            // given other numbers without a mark: that is a finding
            change("rate 5mbit burst 20000 limit 60000");
            add.clone().verb("CHECK").error(102).says(&[&dev, "rate 5 Mbit/s instead of"]);
            // with the mark of the agent or of a person they are meant to be so
            for mark in [1, 2] {
                change(&format!("rate 5mbit burst 20000 limit 60000 mpu {mark}"));
                assert_eq!(mpu(&pod, way, &dev), mark);
                add.clone().verb("CHECK").ok();
            }
            // an mpu of somebody else is none of ours
            change("rate 5mbit burst 20000 limit 60000 mpu 64");
            add.clone().verb("CHECK").error(102).says(&[&dev, "mpu 64, which is not ours"]);
            change("rate 5mbit burst 20000 limit 60000 mpu 2");
        }
        assert_eq!(Shape::of(&pod, way).rates(), (5 * M, 5 * M));
        // The shape is verified all the same.
        let [to_pod, _] = devices(&pod, way);
        way.namespace(&pod).sh(&format!("tc qdisc del dev {to_pod} root"));
        add.clone().verb("CHECK").error(102).says(&["TBF for ingress", &to_pod]);
        // when the runtime calls ADD again, then its numbers hold, and are its own
        add.ok();
        assert_eq!(Shape::of(&pod, way), before, "{way:?}");
        for dev in devices(&pod, way) {
            assert_eq!(mpu(&pod, way, &dev), 0, "{way:?}: {dev}");
        }
        add.clone().verb("CHECK").ok();
        add.clone().verb("DEL").ok();
    }
}

#[test]
fn an_add_with_the_numbers_of_a_marked_limit_signs_them() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let add = Call::add(&pod).way(Way::Root).limits("10M", "");
    add.ok();
    let before = Shape::of(&pod, Way::Root);
    lab.sh(
        "tc qdisc change dev veth0 root handle 7062: tbf rate 10mbit burst 5000 limit 36250 mpu 1",
    );
    add.ok();
    assert_eq!((Shape::of(&pod, Way::Root), mpu(&pod, Way::Root, "veth0")), (before, 0));
}
