//! A failure at a step of ADD leaves what was there before it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::time::Duration;

use common::{Call, CniError, Direction, Lab, Pod, Shape, Snapshot, Way, our_pref};

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

/// The call fails, says why, and the state is as before.
fn assert_rolled_back(pod: &Pod, call: &Call, case: &str) -> CniError {
    assert_rolled_back_but(pod, call, case, "(nothing)")
}

/// The same, but for what has `word` in its key.
fn assert_rolled_back_but(pod: &Pod, call: &Call, case: &str, word: &str) -> CniError {
    let but = |state: Snapshot| state.without(word);
    let before = but(state(pod));
    let outcome = call.run();
    assert_eq!(outcome.status, Some(1), "{case}: {outcome:#?}");
    before.assert_same(&but(state(pod)), case);
    let json: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let error = outcome.error(json["code"].as_u64().unwrap());
    assert!([100, 101].contains(&error.code), "{case}: {error:?}");
    let pong = pod.ns.ping(&pod.eth0.host_v4, 1, Duration::from_secs(1));
    assert_eq!(pong.received, 1, "{case}: the pod keeps its network");
    error
}

/// The name of the IFB that an ADD makes for `direction`.
fn ifb_of(pod: &Pod, way: Way, direction: Direction) -> String {
    let add = Call::add(pod).way(way).limits("10M", "20M");
    add.ok();
    let name = way.queue_device(pod, &pod.eth0, direction).unwrap();
    add.verb("DEL").ok();
    name
}

fn hooked() -> impl Iterator<Item = (Way, Direction, &'static str)> {
    Way::ALL.into_iter().flat_map(|way| {
        Direction::ALL
            .into_iter()
            .filter_map(move |direction| way.hook(direction).map(|hook| (way, direction, hook)))
    })
}

/// Makes the kernel refuse a filter of ours on `hook`: one priority has one protocol.
fn block_filter(pod: &Pod, way: Way, hook: &str) {
    let (ns, dev) = (way.namespace(pod), way.device(&pod.eth0));
    if ns.hook_kind(dev).is_none() {
        ns.sh(&format!("tc qdisc add dev {dev} clsact"));
    }
    ns.sh(&format!(
        "tc filter add dev {dev} {hook} pref {} protocol ip u32 match ip dst 192.0.2.1 flowid 1:1",
        our_pref(hook)
    ));
}

fn other(direction: Direction) -> Direction {
    if direction == Direction::ToPod { Direction::FromPod } else { Direction::ToPod }
}

#[test]
fn an_ifb_name_that_is_taken_by_another_kind() {
    for (way, direction, _) in hooked() {
        let Some(lab) = Lab::open() else { return };
        let case = format!("{way:?}, {direction:?}");
        let pod = lab.pod("veth0");
        let name = ifb_of(&pod, way, direction);
        let ns = way.namespace(&pod);
        ns.sh(&format!("ip link add {name} type veth peer name other"));
        let add = Call::add(&pod).way(way).limits("10M", "20M");
        let error = assert_rolled_back(&pod, &add, &case);
        error.says(&[&name, "veth", "default/web-0"]);
        assert_eq!(error.code, 101, "{case}: {error:?}");
        // The DEL that follows a failed ADD leaves the foreign device.
        let before = state(&pod);
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{case}, DEL"));
    }
}

#[test]
fn a_filter_that_the_kernel_refuses() {
    for (way, direction, hook) in hooked() {
        let Some(lab) = Lab::open() else { return };
        let case = format!("{way:?}, {direction:?}");
        let pod = lab.pod("veth0");
        block_filter(&pod, way, hook);
        let add = Call::add(&pod).way(way).limits("10M", "20M");
        assert_rolled_back(&pod, &add, &case).says(&[way.device(&pod.eth0), hook, "default/web-0"]);
        let before = state(&pod);
        add.verb("DEL").ok();
        before.assert_same(&state(&pod), &format!("{case}, DEL"));
    }
}

#[test]
fn a_filter_of_another_kind_at_our_priority_in_the_pod() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    pod.sh("tc qdisc add dev eth0 clsact");
    let pass = "1,6 0 0 4294967295,";
    let words = "tc filter add dev eth0 ingress pref 65535 protocol all bpf bytecode";
    let words: Vec<&str> = words.split(' ').chain([pass]).collect();
    pod.run(&words);
    let add = Call::add(&pod).way(Way::Pod).limits("10M", "20M");
    assert_rolled_back(&pod, &add, "bpf at 65535").says(&["eth0", "ingress"]);
}

#[test]
fn a_failed_change_leaves_the_limits_that_were_there() {
    for (way, direction, hook) in hooked() {
        let Some(lab) = Lab::open() else { return };
        let case = format!("{way:?}, {direction:?}");
        // given a pod with a limit in the other direction, and a place that is taken
        let pod = lab.pod("veth0");
        let (first, second) = match direction {
            Direction::ToPod => (("", "20M"), ("10M", "5M")),
            Direction::FromPod => (("10M", ""), ("5M", "20M")),
        };
        Call::add(&pod).way(way).limits(first.0, first.1).ok();
        block_filter(&pod, way, hook);
        let shape = Shape::of(&pod, way);
        // when an ADD changes that limit and adds the one that cannot be
        let add = Call::add(&pod).way(way).limits(second.0, second.1);
        // then all is as it was, but that the queue below the TBF may be a new one of the same
        // length: it was emptied for the cut, and that cannot be undone
        let queue = way.queue_device(&pod, &pod.eth0, other(direction)).unwrap();
        assert_rolled_back_but(&pod, &add, &case, &format!("{queue} / qdiscs"));
        assert_eq!(Shape::of(&pod, way), shape, "{case}");
        Call::check(&pod).way(way).limits(first.0, first.1).ok();
    }
}

#[test]
fn a_failed_move_to_another_way_leaves_the_old_one() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    Call::add(&pod).way(Way::Root).limits("10M", "20M").ok();
    block_filter(&pod, Way::Hooks, "egress");
    let shape = Shape::of(&pod, Way::Root);
    let add = Call::add(&pod).way(Way::Hooks).limits("10M", "20M");
    assert_rolled_back(&pod, &add, "root to hooks");
    assert_eq!(Shape::of(&pod, Way::Root), shape);
}
