//! The queue below each TBF: `"queue": "auto"`, `"fifo"` and `"fq_codel"`, on kernels that have
//! fq_codel and on kernels that lack it. `scripts/kernels` measures what it is worth.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Direction, Lab, Pod, Shape, Snapshot, Way};
use serde_json::json;

/// Whether this kernel has fq_codel, asked of `tc` on a device that nobody uses.
fn has_fq_codel(lab: &Lab) -> bool {
    lab.run(&["ip", "link", "add", "probe", "type", "ifb"]);
    let has =
        lab.attempt(&["tc", "qdisc", "add", "dev", "probe", "root", "fq_codel"]).status.success();
    lab.run(&["ip", "link", "del", "probe"]);
    has
}

/// Kinds of the queues below the TBFs of both directions; the TBF's own is hidden. An fq_codel has the
/// quantum of the pod's interface, also on an IFB.
fn leaves(pod: &Pod, way: Way) -> Vec<String> {
    let leaf = |direction| {
        let dev = way.queue_device(pod, &pod.eth0, direction).expect("a shaped direction");
        let qdiscs = way.namespace(pod).qdiscs(&dev);
        let below = qdiscs.into_iter().find(|q| q.parent.as_deref() == Some("7062:1"));
        let Some(qdisc) = below else { return "own".to_owned() };
        if qdisc.kind == "fq_codel" {
            assert_eq!(qdisc.options["quantum"], pod.eth0.mtu + 14, "{dev}: {qdisc:?}");
        }
        qdisc.kind
    };
    Direction::ALL.map(leaf).to_vec()
}

fn add(pod: &Pod, way: Way, queue: &str, limit: &str) -> Call {
    Call::add(pod).way(way).key("queue", json!(queue)).limits(limit, limit)
}

#[test]
fn auto_takes_fq_codel_where_the_kernel_has_it_and_is_stable() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let expected = if has_fq_codel(&lab) { "fq_codel" } else { "own" };
        // when a pod is added, twice
        add(&pod, way, "auto", "10M").ok();
        assert_eq!(leaves(&pod, way), [expected; 2], "{way:?}");
        assert_eq!(Shape::of(&pod, way).rates(), (10_000_000, 10_000_000));
        let before = Snapshot::of(&[&lab, &pod]);
        add(&pod, way, "auto", "10M").ok();
        // then the second ADD changes nothing and CHECK agrees
        before.assert_same(&Snapshot::of(&[&lab, &pod]), &format!("{way:?}"));
        add(&pod, way, "auto", "10M").verb("CHECK").ok();
        // also after a cut, which empties the queue
        add(&pod, way, "auto", "2M").ok();
        let before = Snapshot::of(&[&lab, &pod]);
        add(&pod, way, "auto", "2M").ok();
        before.assert_same(&Snapshot::of(&[&lab, &pod]), &format!("{way:?}, after a cut"));
        add(&pod, way, "auto", "2M").verb("CHECK").ok();
    }
}

/// The first cut leaves a queue that can be seen, the second replaces it by one of its kind.
#[test]
fn a_pod_can_be_cut_again_and_again() {
    for way in Way::ALL {
        for queue in ["auto", "fifo"] {
            let Some(lab) = Lab::open() else { return };
            let pod = lab.pod("veth0");
            for (limit, rate) in [("50M", 50_000_000), ("10M", 10_000_000), ("2M", 2_000_000)] {
                add(&pod, way, queue, limit).ok();
                assert_eq!(Shape::of(&pod, way).rates(), (rate, rate), "{way:?}, {queue}");
                add(&pod, way, queue, limit).verb("CHECK").ok();
            }
        }
    }
}

#[test]
fn fq_codel_is_made_or_refused_whole() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let untouched = Snapshot::of(&[&lab, &pod]);
        if has_fq_codel(&lab) {
            add(&pod, way, "fq_codel", "10M").ok();
            assert_eq!(leaves(&pod, way), ["fq_codel"; 2], "{way:?}");
            add(&pod, way, "fq_codel", "10M").verb("CHECK").ok();
        } else {
            let error = add(&pod, way, "fq_codel", "10M").error(103);
            error.says(&["sch_fq_codel", "\"auto\"", "\"fifo\"", "default/web-0"]);
            untouched.assert_same(&Snapshot::of(&[&lab, &pod]), &format!("{way:?}"));
        }
    }
}

#[test]
fn a_fifo_is_a_fifo_on_every_kernel() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        add(&pod, way, "fifo", "10M").ok();
        assert_eq!(leaves(&pod, way), ["own"; 2], "{way:?}");
        if has_fq_codel(&lab) {
            // and back again from the other
            add(&pod, way, "fq_codel", "10M").ok();
            add(&pod, way, "fifo", "10M").verb("CHECK").ok();
            add(&pod, way, "fifo", "10M").ok();
            assert_eq!(leaves(&pod, way), ["bfifo"; 2], "{way:?}");
        }
        add(&pod, way, "fifo", "10M").verb("CHECK").ok();
    }
}

#[test]
fn a_fifo_that_is_there_is_right_for_auto_and_logged_for_fq_codel() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        add(&pod, way, "fifo", "10M").ok();
        add(&pod, way, "auto", "10M").verb("CHECK").ok();
        // The limit holds by any queue: ADD changes it, CHECK does not fail for it.
        let check = add(&pod, way, "fq_codel", "10M").verb("CHECK").run();
        check.ok();
        assert!(check.stderr.contains("bytes instead of fq_codel"), "{}", check.stderr);
    }
}
