//! `doctor` on what is in the kernel: each damage is found by its name, and what it says helps.
#![cfg(feature = "node")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod doctored;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Damage, Direction, Way};
use doctored::{NODE, Node, add};

#[test]
fn a_sound_node_is_told_so_with_pods_and_without() {
    let Some(node) = Node::open() else { return };
    let examined = node.examine();
    assert!(examined.is_sound(), "{:#}", examined.json);
    let _pods = Way::ALL.map(|way| node.pod(&format!("{way:?}"), way, ("10M", "20M")));
    let _unlimited = node.pod("unlimited", Way::Root, ("", ""));
    let examined = node.examine();
    assert!(examined.is_sound(), "{:#}", examined.json);
    // then it says what it looked at
    assert_eq!(examined.one("pods")["seen"], "namespaces looked into: 4");
    assert_eq!(examined.one("shaping")["seen"], "TBFs of ours: 4");
    assert_eq!(
        examined.one("limits")["seen"],
        "attachments by pod-bandwidth, each with its limits: 4"
    );
    for id in ["cni", "cni-program", "kernel", "privileges"] {
        assert_eq!(examined.one(id)["severity"], "ok");
    }
    let (status, text) = node.doctor(&[]);
    // A kernel without fq_codel is worth a note.
    let last = text.lines().last().unwrap();
    assert!(status == Some(0) && last.starts_with("0 problems, 0 warnings, "), "{text}");
}

/// What is found after a damage, and whether a command of `doctor` is enough to mend it.
fn expected(way: Way, direction: Direction, damage: Damage) -> Option<(&'static str, bool)> {
    let has_hook = way.hook(direction).is_some();
    Some(match damage {
        Damage::NoIfb => ("redirect-to-nothing problem", false),
        Damage::IfbDown => ("redirect-to-down problem", true),
        Damage::NoTbf if has_hook => ("tbf-missing problem", true),
        Damage::NoTbf => ("limit-missing warning", true),
        Damage::NoHook | Damage::NoFilter | Damage::OtherTarget => ("ifb-unused problem", true),
        // Numbers and the queue are CHECK's and the node agent's.
        Damage::OtherRate | Damage::OtherBurst | Damage::OtherLimit | Damage::OtherLeaf => {
            return None;
        }
    })
}

#[test]
fn every_damage_to_a_pods_limits_is_found_and_its_remedy_helps() {
    for (number, (way, direction, damage)) in Damage::table().enumerate() {
        let Some((found, is_mended)) = expected(way, direction, damage) else { continue };
        let case = format!("{way:?} {direction:?} {damage:?}");
        let Some(node) = Node::open() else { return };
        // given a pod with both limits, and one part of it broken
        let name = format!("p{number}");
        let pod = node.pod(&name, way, ("10M", "10M"));
        assert!(node.examine().is_sound(), "{case}");
        damage.apply(&pod, way, direction);
        // when the node is looked at
        let examined = node.examine();
        // then that is told, and nothing else but what follows from it
        let wrong = examined.wrong();
        let follows = |id: &String| id == "limit-missing warning" || id == found;
        assert!(wrong.iter().any(|id| id == found), "{case}: {wrong:?}");
        assert!(wrong.iter().all(follows), "{case}: {wrong:?}");
        // and its command helps: a redirect to nowhere is gone, a limit that was missing holds
        node.run(examined.first(found.split(' ').next().unwrap()));
        let after = node.examine();
        assert!(!after.wrong().iter().any(|id| id == found), "{case}: {:?}", after.wrong());
        assert_eq!(after.is_sound(), is_mended, "{case}: {:?}", after.wrong());
        // and what the node agent does mends the rest
        add(&pod, &name, way, ("10M", "10M")).ok();
        let after = node.examine();
        assert!(after.is_sound(), "{case}: {:?}", after.wrong());
    }
}

#[test]
fn a_hundred_pods_are_looked_at_in_less_than_two_seconds() {
    let Some(node) = Node::open() else { return };
    let pods: Vec<_> =
        (0..100).map(|n| node.pod(&format!("p{n}"), Way::ALL[n % 3], ("10M", "20M"))).collect();
    let mut times: Vec<_> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let examined = node.examine();
            assert!(examined.is_sound(), "{:?}", examined.wrong());
            assert_eq!(examined.one("pods")["seen"], "namespaces looked into: 100");
            start.elapsed()
        })
        .collect();
    times.sort();
    // Told, not asserted: how busy the machine is decides.
    eprintln!("doctor with {} pods: median {:.0?}, worst {:.0?}", pods.len(), times[2], times[4]);
    // and with all that is on the host broken
    let ifbs = node.lab.ifbs();
    for ifb in &ifbs {
        node.lab.run(&["ip", "link", "del", ifb]);
    }
    let start = Instant::now();
    let examined = node.examine();
    let time = start.elapsed();
    assert_eq!(examined.wrong().iter().filter(|id| id.starts_with("redirect")).count(), ifbs.len());
    eprintln!("doctor with {} findings: {time:.0?}", examined.wrong().len());
}

#[test]
fn a_namespace_that_cannot_be_seen_from_here_is_told() {
    let Some(node) = Node::open() else { return };
    let _pod = node.pod("web", Way::Pod, ("10M", "20M"));
    // given what a container sees that has the folder without the mounts in it
    std::fs::write(node.folder.file("netns/cni-1"), "").unwrap();
    let examined = node.examine();
    assert_eq!(examined.wrong(), ["pods warning"]);
    let remedy = examined.one("pods")["remedy"].as_str().unwrap();
    assert!(remedy.contains("HostToContainer"), "{remedy}");
}

#[test]
fn pods_that_come_and_go_meanwhile_are_no_findings() {
    let Some(node) = Node::open() else { return };
    let pods: Vec<_> = Way::ALL.map(|way| (node.lab.pod(&format!("veth-{way:?}")), way)).into();
    let is_done = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        for (pod, way) in &pods {
            let call = add(pod, &format!("{way:?}"), *way, ("10M", "20M"));
            let is_done = &is_done;
            scope.spawn(move || {
                while !is_done.load(Ordering::Relaxed) {
                    call.ok();
                    call.clone().verb("DEL").ok();
                }
            });
        }
        let looks: Vec<_> = (0..40).map(|_| node.examine()).collect();
        is_done.store(true, Ordering::Relaxed);
        looks
    });
    for (number, examined) in looks.iter().enumerate() {
        assert!(examined.is_sound(), "look {number}: {:#}", examined.json);
    }
    let shaped = looks.iter().filter(|one| one.one("shaping")["seen"] != "TBFs of ours: 0");
    assert!(shaped.count() > 5, "pods were there");
}

#[test]
fn what_answers_at_the_agents_port_is_told() {
    let Some(node) = Node::open() else { return };
    let agent = node.examine().one("agent").clone();
    assert_eq!(agent["severity"], "note", "{agent:#}");
    // The same port, and not the agent: `metrics` follows no annotations.
    let words = [NODE, "metrics", "--listen", "127.0.0.1:9464"];
    let mut server = node.lab.spawn(&words, &[]);
    let patience = Instant::now() + Duration::from_secs(10);
    let other = loop {
        let agent = node.examine().one("agent").clone();
        if !agent["seen"].as_str().unwrap().contains("refused") {
            break agent;
        }
        assert!(Instant::now() < patience, "the server comes up");
    };
    assert_eq!(other["severity"], "note");
    assert_eq!(other["seen"], "another program than the node agent answers");
    server.kill().unwrap();
    server.wait().unwrap();
}
