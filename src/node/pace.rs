//! Pace: what two readings of the inventory say together. How fast a pod goes, and how hard it is
//! held back.
//!
//! The kernel counts how often a TBF had a packet and no tokens for it (overlimits), not for how long.
//! While packets wait a TBF sends at its rate exactly. So of the time between two readings in which
//! packets had to wait, a pod was held back for what it sent / the limit, at most.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::inventory::{Counters, Inventory, Measured, Shaped};

/// One direction between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Time between the two readings.
    pub time: Duration,
    /// What passed.
    pub bits_per_second: f64,
    /// Packets that were dropped.
    pub drops: u32,
    /// How often packets had to wait for tokens.
    pub overlimits: u32,
    /// Share of the time in which the limit held the pod back, at most: 0 to 1.
    pub held_back: f64,
    /// The first of the readings since which each one found the pod held back.
    pub held_back_since: Option<SystemTime>,
}

/// An interface with the pace of both directions; `None` where there was no reading before.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What was read now.
    pub shaped: Shaped,
    /// To the pod, and from it.
    pub paces: [Option<Pace>; 2],
}

impl Pace {
    /// How long the limit held the pod back, at most.
    pub fn held_back_seconds(&self) -> f64 {
        self.held_back * self.time.as_secs_f64()
    }
}

impl Row {
    /// How hard the direction that is held back harder is: the order of `top`.
    pub fn held_back(&self) -> f64 {
        self.paces.iter().flatten().map(|pace| pace.held_back).fold(0.0, f64::max)
    }
}

/// Readings one after the other.
#[derive(Debug, Default)]
pub struct Readings {
    last: Option<Inventory>,
    since: HashMap<Key, SystemTime>,
}

/// A TBF: container, interface in the pod, device.
type Key = (String, String, String);

fn key(shaped: &Shaped, measured: &Measured) -> Key {
    let owner = &shaped.owner;
    (owner.container_id.clone(), owner.ifname.clone(), measured.device.clone())
}

impl Readings {
    /// Takes the next reading, read `now`.
    pub fn next(&mut self, inventory: Inventory, now: SystemTime) -> Vec<Row> {
        let mut before: HashMap<Key, Measured> = HashMap::new();
        let last = self.last.as_ref();
        for shaped in last.map(|last| last.shaped.as_slice()).unwrap_or_default() {
            let limits = shaped.limits.iter().flatten();
            before.extend(limits.map(|measured| (key(shaped, measured), measured.clone())));
        }
        let time = last.map(|last| inventory.taken.saturating_duration_since(last.taken));
        let mut since = HashMap::new();
        let mut rows = Vec::with_capacity(inventory.shaped.len());
        for shaped in &inventory.shaped {
            let paces = shaped.limits.each_ref().map(|measured| {
                let measured = measured.as_ref()?;
                let key = key(shaped, measured);
                let mut pace = pace(before.get(&key)?, measured, time?)?;
                if pace.held_back > 0.0 {
                    let first = self.since.get(&key).copied().unwrap_or(now);
                    pace.held_back_since = Some(first);
                    since.insert(key, first);
                }
                Some(pace)
            });
            rows.push(Row { shaped: shaped.clone(), paces });
        }
        self.since = since;
        self.last = Some(inventory);
        rows
    }
}

/// `None` where the counters began again: another TBF is there by now.
fn pace(before: &Measured, now: &Measured, time: Duration) -> Option<Pace> {
    let (old, new) = (&before.counters, &now.counters);
    let bytes = new.bytes.checked_sub(old.bytes)?;
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return None;
    }
    let bits_per_second = bytes as f64 * 8.0 / seconds;
    Some(Pace {
        time,
        bits_per_second,
        drops: new.drops.wrapping_sub(old.drops),
        overlimits: new.overlimits.wrapping_sub(old.overlimits),
        held_back: held_back(old, new, bits_per_second, now.limit.0),
        held_back_since: None,
    })
}

fn held_back(old: &Counters, new: &Counters, bits_per_second: f64, limit: u64) -> f64 {
    let waited = new.overlimits != old.overlimits;
    if waited && limit > 0 { (bits_per_second / limit as f64).min(1.0) } else { 0.0 }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
