//! ADD, CHECK and DEL look devices up one by one: no dump of all links or qdiscs, so a node with
//! 1,000 pods is as fast as one with one.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Lab, Strace, Way};
use serde_json::json;

/// RTM_GETTFILTER, by name and by number: the filters of one hook of one device can only be had by
/// a dump, which names the device.
const FILTERS: [&str; 2] = ["RTM_GETTFILTER", "0x2e"];

fn is_dump(flags: &str) -> bool {
    flags.contains("NLM_F_DUMP") || flags.contains("0x300")
}

#[test]
fn add_check_and_del_dump_nothing_but_the_filters_of_a_hook() {
    let Some(lab) = Lab::open() else { return };
    let Some(strace) = Strace::find() else { return };
    let pod = lab.pod("veth0");
    for way in Way::ALL {
        let call = Call::add(&pod).way(way).limits("10M", "20M");
        // when each verb runs, ADD also over what it made
        for verb in ["ADD", "ADD", "CHECK", "DEL"] {
            let requests = strace.requests(&call.clone().verb(verb));
            // then its only dumps are of filters
            assert!(requests.len() > 10, "{way:?} {verb}: {requests:?}");
            for (kind, flags) in requests {
                let is_of_filters = FILTERS.iter().any(|name| kind.starts_with(name));
                assert!(!is_dump(&flags) || is_of_filters, "{way:?} {verb}: {kind} with {flags}");
            }
        }
    }
    // GC lists the IFBs, so a dump does show
    let gc = Call::node(&lab, "GC").version("1.1.0").key("cni.dev/valid-attachments", json!([]));
    let requests = strace.requests(&gc);
    assert!(requests.iter().any(|(_, flags)| is_dump(flags)), "{requests:?}");
}
