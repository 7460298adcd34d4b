//! `doctor` on the runtime's folders: which list counts, our entry in it, and the program.
#![cfg(feature = "node")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod doctored;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{Call, tests_dir};
use doctored::{Node, entry, list};
use serde_json::{Value, json};

const LIST: &str = "10-net.conflist";

/// A list of these plugins.
fn plugins(plugins: Value) -> Value {
    let mut list = list(&entry());
    list["plugins"] = plugins;
    list
}

/// Our entry with a key set.
fn with(key: &str, value: Value) -> Value {
    let mut entry = entry();
    entry[key] = value;
    entry
}

#[test]
fn what_is_wrong_with_the_list_is_told_as_bad_as_it_is() {
    let Some(node) = Node::open() else { return };
    let (ptp, calico) = (json!({"type": "ptp"}), json!({"type": "calico"}));
    let bandwidth = json!({"type": "bandwidth", "capabilities": {"bandwidth": true}});
    let some = json!({"bandwidth": true});
    let annotations = json!({"io.kubernetes.cri.pod-annotations": true});
    for (case, plugins_of_list, wrong) in [
        ("the entry is first", json!([entry(), ptp]), &["cni-order problem"][..]),
        ("twice", json!([ptp, entry(), entry()]), &["cni-twice warning"]),
        ("beside bandwidth", json!([ptp, bandwidth, entry()]), &["cni-reference warning"]),
        ("missing", json!([ptp]), &["cni-no-entry problem"]),
        ("bandwidth alone", json!([ptp, bandwidth]), &["cni-no-entry problem"]),
        ("no plugins", json!([]), &["cni-list problem"]),
        (
            "a wrong setting",
            json!([ptp, with("placement", json!("nowhere"))]),
            &["cni-settings problem"],
        ),
        ("a wrong limit", json!([ptp, with("ingressRate", json!(-1))]), &["cni-settings problem"]),
        (
            "a wrong setting in the second",
            json!([ptp, entry(), with("latency", json!(0))]),
            &["cni-settings problem", "cni-twice warning"],
        ),
        (
            "no capability",
            json!([ptp, with("capabilities", json!({}))]),
            &["cni-capabilities problem"],
        ),
        ("bandwidth only", json!([ptp, with("capabilities", some)]), &["cni-capabilities warning"]),
        (
            "annotations only",
            json!([ptp, with("capabilities", annotations)]),
            &["cni-capabilities warning"],
        ),
        (
            "root beside Calico",
            json!([calico, with("hostIngress", json!("root"))]),
            &["calico-root warning"],
        ),
        ("as it should be", json!([calico, entry()]), &[]),
    ] {
        node.write(LIST, &plugins(plugins_of_list));
        let examined = node.examine();
        assert_eq!(examined.wrong(), wrong, "{case}: {:#}", examined.json);
    }
    // What a wrong setting says is what an ADD would say.
    node.write(LIST, &plugins(json!([ptp, with("placement", json!("nowhere"))])));
    let told = node.examine().one("cni-settings")["seen"].as_str().unwrap().to_owned();
    let pod = node.lab.pod("veth0");
    Call::add(&pod).key("placement", json!("nowhere")).error(7).says(&[&told]);
}

#[test]
fn a_list_that_cannot_be_used_is_a_problem() {
    let Some(node) = Node::open() else { return };
    let path = node.folder.file(&format!("net.d/{LIST}"));
    fs::write(&path, r#"{"name": "net", "plugins": ["#).unwrap();
    assert_eq!(node.examine().wrong(), ["cni-list problem"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(node.examine().wrong(), ["cni-list problem"]);
    node.write("10-net.conf", &json!({"cniVersion": "1.0.0", "name": "net", "type": "ptp"}));
    assert_eq!(node.examine().wrong(), ["cni-list problem"]);
    fs::remove_dir_all(node.folder.file("net.d")).unwrap();
    assert_eq!(node.examine().wrong(), ["cni-list problem"]);
}

#[test]
fn an_entry_that_is_missing_or_in_a_list_that_comes_later_is_put_there_by_the_command() {
    let Some(node) = Node::open() else { return };
    node.write(LIST, &plugins(json!([{"type": "ptp"}])));
    let examined = node.examine();
    assert_eq!(examined.wrong(), ["cni-no-entry problem"]);
    node.run(examined.one("cni-no-entry"));
    assert!(node.examine().is_sound());
    // given a list that sorts before it, as another network's installer writes it
    node.write("05-calico.conflist", &plugins(json!([{"type": "calico"}])));
    let examined = node.examine();
    assert_eq!(examined.wrong(), ["cni-inactive problem"]);
    assert!(examined.one("cni-inactive")["seen"].as_str().unwrap().contains(LIST));
    node.run(examined.one("cni-inactive"));
    assert!(node.examine().is_sound());
}

#[test]
fn the_lists_of_known_networks_need_no_more_than_the_command() {
    for network in ["calico-manifest", "calico-operator", "flannel", "cilium", "kindnet", "k3s"] {
        let Some(node) = Node::open() else { return };
        let shipped = tests_dir("conflists").join(format!("{network}.conflist"));
        fs::copy(shipped, node.folder.file(&format!("net.d/{LIST}"))).unwrap();
        let examined = node.examine();
        assert_eq!(examined.wrong(), ["cni-no-entry problem"], "{network}");
        node.run(examined.one("cni-no-entry"));
        let after = node.examine();
        assert!(after.is_sound(), "{network}: {:?}", after.wrong());
    }
}

#[test]
fn a_program_that_is_missing_or_none_is_copied_by_the_command() {
    let Some(node) = Node::open() else { return };
    let program = node.folder.file("bin/pod-bandwidth");
    let executable = |text: &str| {
        let _ = fs::remove_file(&program);
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let cases: [(&str, &dyn Fn()); 4] = [
        ("missing", &|| fs::remove_file(&program).unwrap()),
        ("no program", &|| executable("text")),
        ("another program", &|| executable("#!/bin/sh\necho hello\n")),
        ("one that never answers", &|| executable("#!/bin/sh\nexec sleep 60\n")),
    ];
    for (case, damage) in cases {
        damage();
        let examined = node.examine();
        assert_eq!(examined.wrong(), ["cni-program problem"], "{case}");
        assert_eq!(examined.one("cni-program")["subject"], program.as_str());
        node.run(examined.one("cni-program"));
        assert!(node.examine().is_sound(), "{case}");
    }
}

#[test]
fn versions_of_the_list_are_told() {
    let Some(node) = Node::open() else { return };
    let version = |version: &str| {
        let mut list = list(&entry());
        list["cniVersion"] = json!(version);
        node.write(LIST, &list);
        node.examine()
    };
    // One that the plugin does not speak: no ADD works.
    assert_eq!(version("9.0.0").wrong(), ["cni-program problem"]);
    // Below 1.1.0 no runtime calls GC, which is worth a note.
    for old in ["0.3.1", "1.0.0"] {
        let examined = version(old);
        assert!(examined.is_sound(), "{old}: {:?}", examined.wrong());
        assert_eq!(examined.one("cni-no-gc")["severity"], "note");
    }
    let new = version("1.1.0");
    assert!(!new.json["findings"].as_array().unwrap().iter().any(|one| one["id"] == "cni-no-gc"));
}

#[test]
fn who_may_not_look_is_told_so() {
    let Some(node) = Node::open() else { return };
    let output = node.without_privilege();
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    let privileges = &seen["findings"][0];
    assert_eq!(
        (&privileges["id"], &privileges["severity"]),
        (&json!("privileges"), &json!("warning"))
    );
    assert_eq!(output.status.code(), Some(3), "{seen:#}");
}

#[test]
fn a_wrong_option_is_exit_status_2() {
    let Some(node) = Node::open() else { return };
    let output = node.lab.attempt(&[doctored::NODE, "doctor", "--no-such-option"]);
    assert_eq!(output.status.code(), Some(2));
}
