//! What DEL takes for gone, and which errors a runtime may try again (code 11).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Lab, Pod, SENDS, Shape, Snapshot, Strace, TempDir, Way, require_peer};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

/// The specification's "Try again later".
const LATER: u64 = 11;

fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

/// The call, whose system calls `name` about the pod's namespace fail.
fn failing(call: &Call, pod: &Pod, name: &str, error: &str) -> Option<Call> {
    let strace = require_peer("strace")?;
    let inject = format!("inject={name}:error={error}");
    let (strace, path) = (strace.to_str().unwrap(), pod.ns.path());
    let mut words = vec![strace, "-f", "-o", "/dev/null", "-e", &inject];
    // setns takes a descriptor, which strace does not compare with a path in every version.
    if name == "openat" {
        words.extend(["-P", &path]);
    }
    Some(call.clone().under(&words))
}

#[test]
fn del_takes_a_namespace_for_gone_if_nothing_or_something_else_is_at_its_path() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let before = state(&pod);
    let add = Call::add(&pod).way(Way::Hooks).limits("10M", "20M");
    let del = add.clone().verb("DEL");
    let folder = TempDir::new();
    let (fifo, dangling) = (folder.file("fifo"), folder.file("dangling"));
    lab.run(&["mkfifo", &fifo]);
    lab.run(&["ln", "-s", "/nowhere/at/all", &dangling]);
    let paths =
        ["/nowhere/at/all", "/etc/passwd/x", "/etc/passwd", "/", "/dev/null", &fifo, &dangling];
    // The last two are namespaces, and not a pod's network.
    for path in paths.into_iter().chain(["/proc/self/ns/mnt", "/proc/self/ns/net"]) {
        // given a pod with limits, and a path without a namespace of a pod's network
        add.ok();
        // when DEL comes with it, then it succeeds, and nothing is left
        assert_eq!(del.clone().env("CNI_NETNS", path).ok(), Value::Null, "{path}");
        before.assert_same(&state(&pod), path);
    }
    let Some(stale) = failing(&del, &pod, "openat", "ESTALE") else { return };
    add.ok();
    stale.ok();
    before.assert_same(&state(&pod), "ESTALE");
}

#[test]
fn del_fails_if_the_namespace_may_be_there_and_a_limit_with_it() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let before = state(&pod);
    // given a limit that only the interface tells: a root qdisc, without an IFB
    let add = Call::add(&pod).way(Way::Root).limits("10M", "");
    let del = add.clone().verb("DEL");
    add.ok();
    let limited = state(&pod);
    let folder = TempDir::new();
    let circle = folder.file("circle");
    lab.run(&["ln", "-s", &circle, &circle]);
    let long = format!("/tmp/{}", "x".repeat(256));
    let mut calls = vec![
        (del.clone().env("CNI_NETNS", &circle), 4, "ELOOP"),
        (del.clone().env("CNI_NETNS", &long), 4, "ENAMETOOLONG"),
    ];
    for (name, error, code) in [
        ("openat", "EMFILE", LATER),
        ("openat", "ENFILE", LATER),
        ("openat", "ENOMEM", LATER),
        ("openat", "EIO", 4),
        ("openat", "EACCES", 104),
        ("setns", "ENOMEM", LATER),
        ("setns", "EPERM", 104),
    ] {
        let Some(call) = failing(&del, &pod, name, error) else { return };
        calls.push((call, code, error));
    }
    for (call, code, error) in calls {
        // when the namespace cannot be opened for a reason that does not say that it is gone
        // then DEL says so, and the runtime comes again
        call.error(code).says(&["default/web-0", error, "call DEL again"]);
        limited.assert_same(&state(&pod), error);
    }
    del.ok();
    before.assert_same(&state(&pod), "DEL");
}

#[test]
fn del_without_descriptors_fails_and_does_not_leave_a_limit_in_silence() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let add = Call::add(&pod).way(Way::Root).limits("10M", "");
    add.ok();
    let limited = state(&pod);
    // The loader needs one descriptor beyond the standard streams, and gives it back.
    for most in ["4", "5", "6"] {
        let del = add.clone().verb("DEL").under(&["prlimit", &format!("--nofile={most}"), "--"]);
        let outcome = del.run();
        if outcome.status == Some(0) {
            // That many are enough.
            add.ok();
        } else {
            outcome.error(LATER).says(&["EMFILE"]);
        }
        limited.assert_same(&state(&pod), most);
    }
    let few = add.clone().verb("DEL").under(&["prlimit", "--nofile=4", "--"]);
    few.error(LATER);
}

#[test]
fn what_passes_and_lasts_too_long_is_to_be_tried_again_later() {
    let Some(strace) = Strace::find() else { return };
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let before = state(&pod);
    let add = Call::add(&pod).limits("10M", "20M");
    let gc = Call::node(&lab, "GC").key("cni.dev/valid-attachments", json!([]));
    for (error, code) in [
        ("ENOBUFS", LATER),
        ("ENOMEM", LATER),
        ("EBUSY", LATER),
        ("EINTR", LATER),
        ("EPERM", 104),
        ("EIO", 100),
    ] {
        // when every request of a call fails so, then the code says whether it may pass
        strace.failed(&add, SENDS, error, "1+").error(code).says(&[error]);
        before.assert_same(&state(&pod), error);
        // With limits that are there, for CHECK, DEL and GC.
        add.ok();
        for call in [add.clone().verb("CHECK"), add.clone().verb("DEL"), gc.clone()] {
            strace.failed(&call, SENDS, error, "1+").error(code).says(&[error]);
        }
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M), "{error}");
        add.clone().verb("DEL").ok();
        before.assert_same(&state(&pod), error);
    }
}
