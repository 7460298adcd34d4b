//! Limits that the node agent or `set` added, changed or removed while the pod ran, and then CHECK with
//! the input of ADD's time: CRI-O calls it so for every pod when it restarts, and a failure costs the pod
//! its IP.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::path::Path;

use common::{Call, Lab, Pod, Shape, Snapshot, Way, start_test_again};
use pod_bandwidth::log::Log;
use pod_bandwidth::plugin::reconcile::{Keep, Target, Wish, reconcile};
use pod_bandwidth::policy::{Limits, Settings};
use pod_bandwidth::shaping::{Attachment, Mark};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

/// The preference of a trace.
const TRACE: u64 = 65529;

/// What the agent is to do: the path of a namespace, and the configuration with today's annotations.
const CHANGE: &str = "POD_BANDWIDTH_LIVE_CHANGE";

/// Plays the agent inside the lab, if asked to, and does not return then.
fn play_if_asked() {
    let Ok(asked) = std::env::var(CHANGE) else { return };
    let asked: Value = serde_json::from_str(&asked).unwrap();
    let config = asked["config"].as_object().unwrap();
    let attachment = Attachment {
        network: "net".into(),
        container_id: "c1".into(),
        ifname: "eth0".into(),
        pod: Some("default/web-0".into()),
    };
    let settings = Settings::read(config).unwrap();
    let limits = Limits::read(config).unwrap();
    let wish = Wish {
        settings: &settings,
        limits,
        mark: Mark::Agent,
        keeps: [Keep::Hand; 2],
        sources: None,
    };
    let netns = Path::new(asked["netns"].as_str().unwrap());
    let log = Log::open(&settings.log, "the agent".into());
    let target = Target { attachment: &attachment, netns, host_names: &[] };
    reconcile(target, &wish, &log).unwrap();
    std::process::exit(0);
}

/// The agent finds these annotations; an empty text is none.
fn agent(pod: &Pod, way: Way, to_pod: &str, from_pod: &str) {
    let mut config = json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {}}});
    for (key, value) in way.keys() {
        config[key] = json!(value);
    }
    for (key, value) in [("ingress", to_pod), ("egress", from_pod)] {
        if !value.is_empty() {
            config["runtimeConfig"]["io.kubernetes.cri.pod-annotations"]
                [format!("kubernetes.io/{key}-bandwidth")] = json!(value);
        }
    }
    let asked = json!({"netns": pod.ns.path(), "config": config}).to_string();
    let output = start_test_again(&pod.host, CHANGE, &asked).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Limits at ADD, and those that the agent finds later.
const CHANGES: [[(&str, &str); 2]; 7] = [
    [("10M", ""), ("10M", "5M")],
    [("", "20M"), ("5M", "20M")],
    [("", ""), ("5M", "6M")],
    [("10M", "20M"), ("10M", "")],
    [("10M", "20M"), ("", "20M")],
    [("10M", "20M"), ("", "")],
    [("10M", "20M"), ("7M", "8M")],
];

fn rate(text: &str) -> u64 {
    text.trim_end_matches('M').parse::<u64>().map_or(0, |rate| rate * M)
}

#[test]
fn check_passes_after_a_live_change_and_fails_if_a_limit_is_lost() {
    play_if_asked();
    for way in Way::ALL {
        for [at_add, later] in CHANGES {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{way:?}, {at_add:?} and later {later:?}");
            let pod = lab.pod("veth0");
            let before = Snapshot::of(&[&lab, &pod]);
            let add = Call::add(&pod).way(way).limits(at_add.0, at_add.1);
            add.ok();
            let added = Shape::of(&pod, way);
            // when the agent changes it
            agent(&pod, way, later.0, later.1);
            let changed = Snapshot::of(&[&lab, &pod]);
            assert_eq!(Shape::of(&pod, way).rates(), (rate(later.0), rate(later.1)), "{case}");
            // then CHECK with ADD's own input passes, and another look of the agent changes nothing
            add.clone().verb("CHECK").ok();
            agent(&pod, way, later.0, later.1);
            changed.assert_same(&Snapshot::of(&[&lab, &pod]), &case);
            // and no device is left for a limit that is gone
            let hooked = common::Direction::ALL.into_iter().zip([later.0, later.1]);
            let hooked = hooked.filter(|(of, rate)| !rate.is_empty() && way.hook(*of).is_some());
            assert_eq!(way.namespace(&pod).ifbs().len(), hooked.count(), "{case}");
            // when the agent puts back what ADD had, then it is as after ADD, but for the mark and the hook
            agent(&pod, way, at_add.0, at_add.1);
            assert_eq!(Shape::of(&pod, way).rates(), (rate(at_add.0), rate(at_add.1)), "{case}");
            add.clone().verb("CHECK").ok();
            // and an ADD leaves no trace, and DEL nothing
            add.ok();
            assert_eq!(Shape::of(&pod, way), added, "{case}: ADD again");
            let at_ingress = way.namespace(&pod).filters(way.device(&pod.eth0), "ingress");
            assert!(
                at_ingress.iter().all(|filter| filter.pref != TRACE),
                "{case}: {at_ingress:#?}"
            );
            agent(&pod, way, later.0, later.1);
            add.clone().verb("DEL").ok();
            before.assert_same(&Snapshot::of(&[&lab, &pod]), &format!("{case}: DEL"));
        }
    }
}

/// The trace says that a limit was removed, and of which direction: no other limit may be missing.
#[test]
fn the_trace_of_one_direction_excuses_no_other() {
    play_if_asked();
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let add = Call::add(&pod).way(way).limits("10M", "20M");
        add.ok();
        agent(&pod, way, "10M", "");
        add.clone().verb("CHECK").ok();
        let dev = way.queue_device(&pod, &pod.eth0, common::Direction::ToPod).unwrap();
        way.namespace(&pod).sh(&format!("tc qdisc del dev {dev} root"));
        add.clone().verb("CHECK").error(102).says(&["TBF for ingress", &dev]);
    }
}

/// A removed limit must not stop a single packet, whatever a hostile pod sends.
#[test]
fn a_trace_matches_no_packet() {
    play_if_asked();
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    Call::add(&pod).way(Way::Root).limits("10M", "20M").ok();
    agent(&pod, Way::Root, "", "20M");
    // when frames of every kind come, those of the reserved protocol too
    let script = r#"
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for protocol in (0xffff, 0x0800, 0x86dd, 0x0806):
    for fill in (b"\x00", b"\xff"):
        for length in (1, 4, 8, 60):
            s.send(b"\xff" * 6 + b"\x02" * 6 + protocol.to_bytes(2, "big") + fill * length)
"#;
    pod.ns.run(&["python3", "-c", script]);
    // then all of them were counted by the redirect behind the trace
    let ifb = lab.ifbs().remove(0);
    assert!(lab.qdisc_packets(&ifb) >= 32, "{}", lab.qdisc_packets(&ifb));
}
