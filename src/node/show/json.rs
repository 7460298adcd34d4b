//! `show -o json`: for programs. docs/see.md has the fields; one is added at times, and none changes its
//! meaning while `version` stays.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::super::inventory::{DIRECTIONS, Measured, Placement};
use super::super::pace::{Pace, Row};
use super::words::word_of;
use crate::shaping::placement::Way;
use crate::shaping::{Shadow, Takes};

const VERSION: u32 = 1;

/// One document, on one line where many follow each other.
pub(super) fn text(
    rows: &[Row],
    problems: &[String],
    now: SystemTime,
    on_one_line: bool,
) -> String {
    let document = json!({
        "version": VERSION,
        "time": time(now),
        "shaped": rows.iter().map(shaped).collect::<Vec<_>>(),
        "problems": problems,
    });
    if on_one_line { format!("{document}\n") } else { format!("{document:#}\n") }
}

fn shaped(row: &Row) -> Value {
    let (owner, shaped) = (&row.shaped.owner, &row.shaped);
    let mut object = json!({
        "namespace": owner.namespace,
        "pod": owner.name,
        "uid": owner.uid,
        "network": owner.network,
        "interface": owner.ifname,
        "container_id": owner.container_id,
        "placement": placement(shaped.placement),
        "device": shaped.device,
        "filters_before": shaped.shadows.iter().map(filter).collect::<Vec<_>>(),
    });
    for direction in DIRECTIONS {
        let number = direction as usize;
        let limit = shaped.limits[number].as_ref();
        object[direction.name()] = limit.map_or(Value::Null, |m| measured(m, row.paces[number]));
    }
    object
}

/// A filter of another program that is before a limit.
fn filter(shadow: &Shadow) -> Value {
    json!({
        "device": shadow.device,
        "hook": shadow.hook.word(),
        "kind": shadow.kind,
        "preference": shadow.pref,
        "protocol": shadow.protocol(),
        "direction": shadow.direction.name(),
        "hides_all": shadow.takes == Takes::All,
        "text": shadow.to_string(),
    })
}

fn placement(placement: Placement) -> &'static str {
    match placement {
        Placement::Host => "host",
        Placement::By(Way::HostRoot) => "host-root",
        Placement::By(Way::HostHooks) => "host-hooks",
        Placement::By(Way::Pod) => "pod",
    }
}

fn measured(measured: &Measured, pace: Option<Pace>) -> Value {
    let counters = &measured.counters;
    json!({
        "device": measured.device,
        "limit_bits_per_second": measured.limit.0,
        "burst_bytes": measured.burst_bytes,
        "queue_bytes": measured.queue_bytes,
        "set_by": word_of(measured.mark),
        "bytes": counters.bytes,
        "packets": counters.packets,
        "drops": counters.drops,
        "overlimits": counters.overlimits,
        "backlog_bytes": counters.backlog_bytes,
        "backlog_packets": counters.backlog_packets,
        "rate_bits_per_second": pace.map(|pace| pace.bits_per_second.round() as u64),
        "held_back": pace.map(|pace| pace.held_back),
        "held_back_since": pace.and_then(|pace| pace.held_back_since).map(time),
    })
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::samples;

    #[test]
    fn the_fields_are_those_of_the_documentation() {
        let problems = ["a/b: gone".to_owned()];
        let text = text(&samples::rows(), &problems, SystemTime::UNIX_EPOCH, false);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["version"], 1);
        assert_eq!(document["time"], "1970-01-01T00:00:00Z");
        assert_eq!(document["problems"], json!(problems));
        let pod = &document["shaped"][0];
        assert_eq!((&pod["namespace"], &pod["pod"]), (&json!("shop"), &json!("cart")));
        assert_eq!((&pod["placement"], &pod["device"]), (&json!("host-root"), &json!("veth0")));
        assert_eq!(pod["ingress"]["limit_bits_per_second"], 8_000_000);
        assert_eq!(pod["ingress"]["rate_bits_per_second"], 8_000_000);
        assert_eq!(pod["ingress"]["held_back"], 1.0);
        assert_eq!(pod["ingress"]["set_by"], "hand");
        assert_eq!(pod["egress"]["held_back_since"], Value::Null);
        // and each of them is documented
        let page = include_str!("../../../docs/see.md");
        for object in [&document, pod, &pod["ingress"], &pod["filters_before"][0]] {
            for key in object.as_object().unwrap().keys() {
                assert!(page.contains(&format!("`{key}`")), "docs/see.md does not have {key}");
            }
        }
    }

    #[test]
    fn a_watched_document_is_one_line_and_a_missing_direction_is_null() {
        let mut rows = samples::rows();
        rows[0].shaped.limits[1] = None;
        let text = text(&rows, &[], SystemTime::UNIX_EPOCH, true);
        assert_eq!(text.lines().count(), 1);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["shaped"][0]["egress"], Value::Null);
    }
}
