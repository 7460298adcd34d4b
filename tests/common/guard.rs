//! Whether somebody's policy still holds: one UDP port of the host that a pod must not reach.

use std::time::{Duration, Instant};

use super::{Lab, Ns, Pod};

/// The port that the programs in the tests drop.
pub const DROPPED_PORT: u16 = 9999;

/// UDP datagrams that came in for ports where nobody listens.
fn unheard(ns: &Ns) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/net/snmp", ns.pid)).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Udp: "));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(numbers.split(' '));
    pairs.find(|(name, _)| *name == "NoPorts").unwrap().1.parse().unwrap()
}

/// Sends to the port that is dropped, then to another one: only the second arrives.
pub fn assert_drops_the_port(lab: &Lab, pod: &Pod, case: &str) {
    let send = |port: u16| {
        let script = format!("echo word > /dev/udp/{}/{port}", pod.eth0.host_v4);
        pod.run(&["bash", "-c", &script]);
    };
    let before = unheard(lab);
    (0..3).for_each(|_| send(DROPPED_PORT));
    // The way keeps the order: when this one is there, the others have been dropped.
    send(DROPPED_PORT - 1);
    let patience = Instant::now() + Duration::from_secs(5);
    while unheard(lab) == before {
        assert!(Instant::now() < patience, "{case}: what is allowed arrives");
    }
    assert_eq!(unheard(lab), before + 1, "{case}: what is forbidden does not");
}
