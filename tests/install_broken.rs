//! `install` in bad company: killed between two steps, and beside programs that write the same list.
#![cfg(feature = "node")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod node;

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::require_peer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node::{Node, REPAIRED, Watch, list, said};

/// System calls that change something, and those between them.
const STEPS: &str = "openat,unlink,write,fchmod,fchown,fsync,rename,flock";

#[test]
fn a_kill_between_any_two_steps_leaves_valid_files_and_the_next_run_ends_it() {
    let Some(strace) = require_peer("strace") else { return };
    let strace = strace.to_str().unwrap();
    let (before, after) = (list("k3s.conflist"), list("k3s.installed"));
    for (command, from, to) in [("install", &before, &after), ("uninstall", &after, &before)] {
        let mut killed = 0;
        for at in 1.. {
            // given a node, when the command is killed at this system call
            let node = Node::with("10-net.conflist", from);
            let (trace, log) = (format!("trace={STEPS}"), node.folder.file("log"));
            let inject = format!("inject={STEPS}:signal=KILL:when={at}");
            let under = [strace, "-o", &log, "-e", &trace, "-e", &inject];
            let output = node.under(&under, command, &[]).output().unwrap();
            if output.status.success() {
                break;
            }
            killed += 1;
            // then the list is the old one or the new one, and the program is whole where it is there
            let case = format!("{command}, killed at {at}");
            let text = fs::read_to_string(node.net("10-net.conflist")).unwrap();
            assert!(text == *from || text == *to, "{case}: {text}");
            let program = fs::read(node.bin("pod-bandwidth"));
            if let Ok(program) = &program {
                assert_eq!(*program, fs::read(node.plugin()).unwrap(), "{case}");
            }
            assert!(
                command == "uninstall" || text == *from || program.is_ok(),
                "{case}: no program"
            );
            // what a runtime would read besides is nothing
            let read = |name: &&String| name.ends_with(".conflist") || name.ends_with(".conf");
            assert_eq!(node.names().iter().filter(read).count(), 1, "{case}: {:?}", node.names());
            // and the next run ends it, and leaves nothing else
            node.ok(command, &[]);
            assert_eq!(fs::read_to_string(node.net("10-net.conflist")).unwrap(), *to, "{case}");
            let hidden: Vec<_> =
                node.names().into_iter().filter(|name| name.starts_with('.')).collect();
            // A run that had nothing to write writes nothing, so it has nothing to clear up either.
            assert!(text == *to || hidden.is_empty(), "{case}: {hidden:?}");
        }
        assert!(killed > 10, "{command}: only {killed} kills");
    }
}

#[test]
fn what_another_program_writes_in_between_is_not_lost() {
    let Some(strace) = require_peer("strace") else { return };
    // given a run that stops when its new list is written, but not in its place yet
    let node = Node::with("10-net.conflist", &list("flannel.conflist"));
    node.ok("install", &[]);
    fs::write(node.net("10-net.conflist"), list("flannel.conflist")).unwrap();
    let log = node.folder.file("log");
    let under = [strace.to_str().unwrap(), "-f", "-o", &log, "-e", "trace=fsync", "-e"];
    let under = [&under[..], &["inject=fsync:signal=STOP:when=1"]].concat();
    let child = node.under(&under, "install", &[]).stderr(Stdio::piped()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(10);
    let stopped = loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| line.contains("stopped by SIGSTOP")) {
            break line.split(' ').next().unwrap().parse().unwrap();
        }
        assert!(Instant::now() < patience, "not stopped:\n{text}");
        std::thread::sleep(Duration::from_millis(2));
    };
    // when another program writes its list meanwhile
    fs::write(node.net("10-net.conflist"), list("calico-manifest.conflist")).unwrap();
    kill(Pid::from_raw(stopped), Signal::SIGCONT).unwrap();
    let output = child.wait_with_output().unwrap();
    // then that list has the entry
    assert!(output.status.success(), "{}", said(&output));
    let text = fs::read_to_string(node.net("10-net.conflist")).unwrap();
    assert_eq!(text, list("calico-manifest.installed"));
}

#[test]
fn a_list_that_is_written_ten_times_a_second_is_repaired_each_time() {
    let node = Node::with("10-calico.conflist", &list("calico-manifest.conflist"));
    let mut watch = Watch::on(&node);
    watch.until(REPAIRED);
    // when an installer writes the list as Calico's does: in place, here even in two parts
    const WRITES: usize = 30;
    let text = list("calico-manifest.conflist");
    for write in 1..=WRITES {
        let start = Instant::now();
        let mut file = fs::File::create(node.net("10-calico.conflist")).unwrap();
        let (head, tail) = text.split_at(text.len() * write / (WRITES + 1));
        file.write_all(head.as_bytes()).unwrap();
        std::thread::yield_now();
        file.write_all(tail.as_bytes()).unwrap();
        drop(file);
        // then each of them is repaired before the next one comes
        watch.until(REPAIRED);
        assert_eq!(
            fs::read_to_string(node.net("10-calico.conflist")).unwrap(),
            list("calico-manifest.installed"),
            "write {write}"
        );
        // The pace of the writer.
        std::thread::sleep(Duration::from_millis(100).saturating_sub(start.elapsed()));
    }
    // and its own writes are no reason for another one; at its end all stays
    let rest = watch.end();
    assert!(!rest.iter().any(|line| line.contains(REPAIRED)), "{rest:?}");
    assert_eq!(node.names(), ["10-calico.conflist", "pod-bandwidth"]);
    let text = fs::read_to_string(node.net("10-calico.conflist")).unwrap();
    assert_eq!(text, list("calico-manifest.installed"));
}

#[test]
fn a_watch_waits_for_the_list_and_follows_the_folder() {
    // given a node without a network
    let node = Node::new();
    let mut watch = Watch::on(&node);
    watch.until("has no network configuration yet");
    // when the network comes, by a rename as kindnet's
    let new = node.folder.path().join("new");
    fs::write(&new, list("kindnet.conflist")).unwrap();
    fs::rename(&new, node.net("10-kindnet.conflist")).unwrap();
    watch.until(REPAIRED);
    assert_eq!(
        fs::read_to_string(node.net("10-kindnet.conflist")).unwrap(),
        list("kindnet.installed")
    );
    // when another list is the first one now
    fs::write(node.net("05-cilium.conflist"), list("cilium.conflist")).unwrap();
    watch.until("05-cilium.conflist has the entry");
    // when the folder goes and another one comes
    fs::remove_dir_all(node.net("")).unwrap();
    watch.until("No such file or directory");
    fs::create_dir(node.net("")).unwrap();
    fs::write(node.net("10-flannel.conflist"), list("flannel.conflist")).unwrap();
    watch.until("10-flannel.conflist has the entry");
    watch.end();
}
