//! `log.file`: a log that harms nobody, whoever wrote the entry.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::{Call, Lab, Outcome, Pod, Shape, TempDir, Way};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

/// Longer than any call here; far below what a call that waits would take.
const SOON: Duration = Duration::from_secs(8);

fn logs_to(call: Call, file: &str) -> Call {
    call.key("log", json!({"file": file}))
}

fn add(pod: &Pod) -> Call {
    Call::add(pod).limits("10M", "20M")
}

/// The call succeeds, soon, and its log is on standard error, after one warning.
fn assert_logs_to_standard_error(call: &Call, file: &str) -> Outcome {
    let begin = Instant::now();
    let outcome = logs_to(call.clone(), file).run();
    assert!(begin.elapsed() < SOON, "{file}: {:?}", begin.elapsed());
    outcome.ok();
    let warnings = outcome.stderr.lines().filter(|line| line.contains("cannot use the log file"));
    assert_eq!(warnings.count(), 1, "{file}: {outcome:#?}");
    outcome
}

#[test]
fn a_fifo_keeps_no_call_waiting() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let folder = TempDir::new();
    let fifo = folder.file("fifo.log");
    // given a FIFO that nobody reads
    lab.run(&["mkfifo", &fifo]);
    // when each verb is called, then it does its work, soon
    let outcome = assert_logs_to_standard_error(&add(&pod), &fifo);
    assert!(outcome.stderr.contains("placement host (root)"), "{outcome:#?}");
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M));
    assert_logs_to_standard_error(&add(&pod).verb("CHECK"), &fifo);
    assert_logs_to_standard_error(&add(&pod).verb("DEL"), &fifo);
    let gc = Call::node(&lab, "GC").key("cni.dev/valid-attachments", json!([]));
    assert_logs_to_standard_error(&gc, &fifo);
    let begin = Instant::now();
    logs_to(Call::node(&lab, "STATUS"), &fifo).ok();
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn only_a_log_of_this_program_is_written() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let folder = TempDir::new();
    let (passwd, auth) =
        ("root:x:0:0:root:/root:/bin/bash\n", "2026-01-01T00:00:00Z node sshd: x\n");
    // given files that are no logs of this program, and links to one that is
    for (name, text) in [("passwd", passwd), ("auth.log", auth), ("empty", "")] {
        fs::write(folder.file(name), text).unwrap();
    }
    logs_to(add(&pod), &folder.file("good.log")).ok();
    let good = fs::read_to_string(folder.file("good.log")).unwrap();
    lab.run(&["ln", "-s", &folder.file("good.log"), &folder.file("link.log")]);
    lab.run(&["ln", "-s", &folder.file("absent.log"), &folder.file("dangling.log")]);
    lab.run(&["mkdir", &folder.file("folder.log")]);
    lab.run(&["ln", &folder.file("auth.log"), &folder.file("hard.log")]);
    for name in [
        "passwd",
        "auth.log",
        "empty",
        "link.log",
        "dangling.log",
        "folder.log",
        "hard.log",
        "nologin",
        "no/such/folder.log",
    ] {
        // when a call is to log there, then it logs to standard error
        assert_logs_to_standard_error(&add(&pod), &folder.file(name));
    }
    for device in ["/dev/null", "/dev/full", "/dev/stderr", "/dev/ptmx"] {
        assert_logs_to_standard_error(&add(&pod), device);
    }
    // and nothing is written or created
    for (name, text) in [("passwd", passwd), ("auth.log", auth), ("empty", ""), ("good.log", &good)]
    {
        assert_eq!(fs::read_to_string(folder.file(name)).unwrap(), text, "{name}");
    }
    for name in ["nologin", "absent.log", "no"] {
        assert!(!fs::exists(folder.file(name)).unwrap(), "{name}");
    }
}

#[test]
fn status_creates_no_file_and_writes_to_none() {
    let Some(lab) = Lab::open() else { return };
    let folder = TempDir::new();
    let (absent, empty) = (folder.file("absent.log"), folder.file("empty.log"));
    fs::write(&empty, "").unwrap();
    for file in [&absent, &empty] {
        let status = logs_to(Call::node(&lab, "STATUS"), file);
        assert_eq!(status.ok(), Value::Null);
        // One that fails has something to log.
        status.clone().key("latency", json!(0)).error(50);
        let without = status.without_privilege().run();
        without.error(50);
        assert!(without.stderr.contains("STATUS failed"), "{without:#?}");
    }
    assert!(!fs::exists(&absent).unwrap());
    assert_eq!(fs::read_to_string(&empty).unwrap(), "");
}

#[test]
fn a_new_log_is_private_and_every_call_adds_to_it() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let folder = TempDir::new();
    let file = folder.file("pod-bandwidth.log");
    for calls in 1..=3 {
        let outcome = logs_to(add(&pod), &file).run();
        outcome.ok();
        assert_eq!(outcome.stderr, "");
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.matches("placement host (root)").count(), calls, "{text}");
    }
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn the_line_of_an_add_fits_in_200_characters() {
    for (host, way, annotation) in [
        ("veth0", Way::Root, "10M"),
        ("cali12ab34cd56e", Way::Hooks, "10M"),
        ("veth0", Way::Pod, "1.5G"),
        ("veth0", Way::Root, "999.123M"),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod(host);
        // given every number that there can be
        let call = Call::add(&pod).way(way).limits(annotation, annotation);
        let call = call.annotation("qos.projectcalico.org/ingressPeakrate", "5G");
        let call = call.annotation("qos.projectcalico.org/egressPeakrate", "5G");
        // when an ADD is called
        let outcome = call.run();
        outcome.ok();
        // then its line is short, and names the placement, the reason and both limits
        let line = outcome.stderr.lines().find(|line| line.contains("placement")).unwrap();
        assert!(line.chars().count() <= 200, "{} characters: {line}", line.chars().count());
        for word in ["default/web-0", "placement ", " (", "; ingress ", "; egress ", "bit/s"] {
            assert!(line.contains(word), "{word} in {line}");
        }
        // and the rest is for who asks
        let outcome = call.key("log", json!({"level": "debug"})).run();
        assert!(outcome.stderr.contains("burst"), "{outcome:#?}");
    }
}
