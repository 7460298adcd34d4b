//! Calico's Felix acts at every moment of an ADD: the limits are always on the host, at its hooks.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod felix_played;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Lab, Pod, SENDS, Shape, Strace, Way};
use felix_played::{Felix, Request, add};

const CALI: &str = "cali035ad27ad29";
const M: u64 = 1_000_000;

/// ADDs with each kind of Felix.
const RUNS: usize = 30;

/// What Felix limits to, in Mbit/s.
const RATES: [u32; 2] = [10, 20];

/// The limits are on the host, CHECK agrees, and the pod has its network.
fn assert_on_the_host(pod: &Pod, case: &str) {
    assert_eq!(Shape::of(pod, Way::Hooks).rates(), (8 * M, 4 * M), "{case}");
    add(pod).verb("CHECK").ok();
    let pong = pod.ns.ping(&pod.eth0.host_v4, 1, Duration::from_secs(1));
    assert_eq!(pong.received, 1, "{case}: the pod is cut off");
}

/// The interface as a new pod's: neither of us nor of Felix is anything left.
fn clear(pod: &Pod, felix: &Felix) {
    add(pod).verb("DEL").ok();
    felix.sees(None);
    for words in [["ip", "link", "del"].as_slice(), &["tc", "qdisc", "del", "root", "dev"]] {
        let dev = if words[0] == "ip" { &felix.ifb } else { &felix.dev };
        pod.host.attempt(&[words, &[dev]].concat());
    }
    pod.host.attempt(&["tc", "qdisc", "del", "dev", &felix.dev, "ingress"]);
    assert_eq!(pod.host.hook_kind(&felix.dev), None);
    assert!(pod.host.link(&felix.ifb).is_none() && pod.host.ifbs().is_empty());
}

#[test]
fn felix_before_an_add() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod(CALI);
    let felix = Felix::new(&lab, CALI);
    for run in 0..RUNS {
        // given a Felix that has come as far as this, or all the way
        let (done, to_do) = Request::ALL.split_at(run % (Request::ALL.len() + 1));
        assert!(felix.shapes(done, RATES));
        add(&pod).ok();
        assert_on_the_host(&pod, &format!("after {done:?}"));
        // and goes on: at the latest it gives up where it needs a plain `ingress` qdisc
        felix.shapes(to_do, RATES);
        assert_on_the_host(&pod, &format!("after {done:?}, then {to_do:?}"));
        clear(&pod, &felix);
    }
}

#[test]
fn felix_between_the_sends_of_an_add() {
    let Some(strace) = Strace::find() else { return };
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod(CALI);
    let felix = Felix::new(&lab, CALI);
    let call = add(&pod);
    let sends = strace.count(&call, SENDS);
    clear(&pod, &felix);
    // Every send, and each time another part of Felix's requests before it and at it.
    for run in 0..RUNS.max(2 * sends) {
        let (at, before) = (1 + run % sends, run % 5);
        let until = (before + 1 + run / sends * 2).min(Request::ALL.len());
        let (done, at_it) = (&Request::ALL[..before], &Request::ALL[before..until]);
        let case = format!("after {done:?}, at send {at} of {sends} {at_it:?}");
        felix.shapes(done, RATES);
        let deed = || {
            felix.shapes(at_it, RATES);
        };
        strace.stopped(&call, SENDS, at, deed).ok();
        assert_on_the_host(&pod, &case);
        felix.shapes(&Request::ALL[until..], RATES);
        assert_on_the_host(&pod, &format!("{case}, then all"));
        clear(&pod, &felix);
    }
}

#[test]
fn felix_that_removes_its_limits_between_the_sends_of_an_add() {
    let Some(strace) = Strace::find() else { return };
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod(CALI);
    let felix = Felix::new(&lab, CALI);
    let call = add(&pod);
    felix.sees(Some(10));
    let sends = strace.count(&call, SENDS);
    clear(&pod, &felix);
    for run in 0..RUNS.max(sends) {
        let at = 1 + run % sends;
        felix.sees(Some(10));
        // when its limits go, or come anew with another IFB
        let deed = || {
            felix.sees(None);
            felix.sees((run % 2 == 0).then_some(10));
        };
        strace.stopped(&call, SENDS, at, deed).ok();
        assert_on_the_host(&pod, &format!("run {run}, at send {at} of {sends}"));
        clear(&pod, &felix);
    }
}

#[test]
fn felix_all_the_time() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod(CALI);
    let felix = Felix::new(&lab, CALI);
    for run in 0..RUNS {
        let (busy, other) = (AtomicBool::new(true), felix.clone());
        std::thread::scope(|scope| {
            let busy = &busy;
            scope.spawn(move || {
                // An annotation that comes and goes without an end.
                while busy.load(Ordering::Relaxed) {
                    other.sees(Some(10));
                    other.sees(None);
                }
            });
            let outcome = add(&pod).run();
            busy.store(false, Ordering::Relaxed);
            outcome.ok();
        });
        assert_on_the_host(&pod, &format!("run {run}"));
        clear(&pod, &felix);
    }
}
