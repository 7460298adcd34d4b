//! What an attachment's link is to have after every verb, whatever its interfaces are called by then.

use std::time::{Duration, Instant};

use super::{Call, Direction, Interface, Ns, Pod, Shape, Way};

const M: u64 = 1_000_000;

/// CHECK agrees. It logs that an alias has the name that the interface had at ADD.
pub fn check(call: &Call) {
    call.clone().verb("CHECK").ok();
}

/// The devices of a namespace that have something of this product: a TBF, or a filter.
pub fn shaped_devices(ns: &Ns) -> Vec<String> {
    let names = ns.links().into_iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
    let is_shaped = |name: &String| {
        let has_hook = ns.hook_kind(name).is_some();
        let filters = |hook| has_hook && ns.filters(name, hook).iter().any(|one| one.is_ours());
        has_tbf(ns, name) || filters("ingress") || filters("egress")
    };
    let mut shaped: Vec<String> = names.filter(is_shaped).collect();
    shaped.retain(|name| !ns.ifbs().contains(name));
    shaped
}

/// A device that is down may have no root qdisc at all.
pub fn has_tbf(ns: &Ns, name: &str) -> bool {
    ns.qdiscs(name).iter().any(|qdisc| qdisc.handle == "7062:")
}

/// `at` alone is limited, to this rate in both directions, and what `guest` sends and gets passes it.
pub fn assert_limits(pod: &Pod, way: Way, at: &Interface, rate: u64, guest: &Ns) {
    assert_eq!(Shape::at(pod, way, at).rates(), (rate, rate), "{way:?}");
    let (other, ns) = match way {
        Way::Pod => (&pod.host, &pod.ns),
        _ => (&pod.ns, &pod.host),
    };
    assert_eq!(shaped_devices(ns), [way.device(at)], "{way:?}");
    assert_eq!(shaped_devices(other), Vec::<String>::new(), "{way:?}");
    assert_passes(pod, way, at, guest);
}

/// Packets between `guest` and the host are counted by the queues of both directions.
pub fn assert_passes(pod: &Pod, way: Way, at: &Interface, guest: &Ns) {
    const PINGS: u32 = 5;
    let count = || {
        Direction::ALL.map(|direction| {
            let queue = way.queue_device(pod, at, direction).expect("a shaped direction");
            way.namespace(pod).qdisc_packets(&queue)
        })
    };
    let before = count();
    assert_eq!(guest.ping(&at.host_v4, PINGS, Duration::from_secs(5)).received, PINGS, "{way:?}");
    for (before, after) in before.into_iter().zip(count()) {
        assert!(after >= before + u64::from(PINGS), "{way:?}: {before} packets, then {after}");
    }
}

/// Waits until `guest` reaches the host: a bridge's ports take a moment.
pub fn wait_for_the_network(guest: &Ns, at: &Interface) {
    let patience = Instant::now() + Duration::from_secs(20);
    while guest.ping(&at.host_v4, 1, Duration::from_secs(1)).received == 0 {
        assert!(Instant::now() < patience, "{} does not reach the host", guest.label);
    }
}

/// Nothing of this product is left.
pub fn assert_nothing_left(pod: &Pod, case: &str) {
    for ns in [&pod.ns, &pod.host] {
        assert_eq!(ns.ifbs(), Vec::<String>::new(), "{case}: {}", ns.label);
        for link in ns.links() {
            let name = link["ifname"].as_str().unwrap();
            assert!(!has_tbf(ns, name), "{case}: {name} in {}", ns.label);
            assert_eq!(ns.hook_kind(name), None, "{case}: {name} in {}", ns.label);
        }
    }
}

/// The verbs over a link that has changed since `add` was made: CHECK agrees, an ADD of 50M changes
/// the limit at `at` and nowhere else, DEL leaves nothing.
pub fn assert_verbs(pod: &Pod, way: Way, add: &Call, at: &Interface, guest: &Ns) {
    check(add);
    assert_limits(pod, way, at, 10 * M, guest);
    let raise = add.clone().limits("50M", "50M");
    raise.ok();
    assert_limits(pod, way, at, 50 * M, guest);
    raise.clone().verb("CHECK").ok();
    raise.verb("DEL").ok();
    assert_nothing_left(pod, &format!("{way:?}"));
}

pub fn rename(ns: &Ns, from: &str, to: &str) {
    ns.script(&format!(
        "ip link set {from} down
         ip link set {from} name {to}
         ip link set {to} up"
    ));
}
