//! What the tests of the views look at: a pod that is held back in one direction.

use std::time::{Duration, Instant, SystemTime};

use super::inventory::{Counters, Inventory, Measured, Owner, Placement, Shaped};
use super::pace::{Readings, Row};
use crate::policy::{BitsPerSecond, Direction};
use crate::shaping::placement::Way;
use crate::shaping::{Hook, Mark, Shadow, Takes};

fn limit(device: &str, mbit: u64, mark: Mark, counters: Counters) -> Option<Measured> {
    let limit = BitsPerSecond(mbit * 1_000_000);
    let device = device.to_owned();
    Some(Measured { device, limit, burst_bytes: 5_000, queue_bytes: 30_000, mark, counters })
}

/// The pod shop/cart, which got so many bytes; packets had to wait, and 12 were dropped.
pub(super) fn inventory(bytes: u64, overlimits: u32) -> Inventory {
    let (backlog_bytes, backlog_packets) = (3_042, 3);
    let packets = bytes / 1_500;
    let counters =
        Counters { bytes, packets, drops: 12, overlimits, backlog_bytes, backlog_packets };
    let owner = Owner {
        namespace: "shop".into(),
        name: "cart".into(),
        network: "k8s-pod-network".into(),
        ifname: "eth0".into(),
        container_id: "23eb01114b9940058db0b14f222259949cd54dc0".into(),
        uid: "185c01cb-bdbf-42e9-b7d4-d644d03227d4".into(),
    };
    let shaped = Shaped {
        owner,
        placement: Placement::By(Way::HostRoot),
        device: "veth0".into(),
        limits: [
            limit("veth0", 8, Mark::Hand, counters),
            limit("pbem63bwiprqhtv", 20, Mark::Added, Counters::default()),
        ],
        shadows: vec![Shadow {
            device: "veth0".into(),
            hook: Hook::Ingress,
            kind: "flower".into(),
            pref: 1,
            protocol: 0x0800,
            takes: Takes::Some,
            direction: Direction::Egress,
        }],
    };
    Inventory { taken: Instant::now(), shaped: vec![shaped], problems: Vec::new() }
}

/// Two readings, a second apart: 8 Mbit/s to the pod, nothing from it.
pub(super) fn rows() -> Vec<Row> {
    let mut readings = Readings::default();
    let first = inventory(0, 0);
    let taken = first.taken + Duration::from_secs(1);
    readings.next(first, SystemTime::UNIX_EPOCH);
    readings.next(Inventory { taken, ..inventory(1_000_000, 900) }, SystemTime::UNIX_EPOCH)
}
