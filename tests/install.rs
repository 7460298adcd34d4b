//! `install` and `uninstall` on folders as a node has them: which file changes, how, and what is
//! refused.
#![cfg(feature = "node")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod node;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use node::{Node, list, said};

const NETWORKS: [&str; 6] =
    ["calico-manifest", "calico-operator", "flannel", "cilium", "kindnet", "k3s"];

#[test]
fn every_networks_list_gets_the_entry_and_gets_back_every_byte() {
    for network in NETWORKS {
        // given the list of a network
        let (before, after) =
            (list(&format!("{network}.conflist")), list(&format!("{network}.installed")));
        let node = Node::with("10-net.conflist", &before);
        // when the plugin is installed
        node.ok("install", &[]);
        // then the entry is there, and all else is as it was
        assert_eq!(fs::read_to_string(node.net("10-net.conflist")).unwrap(), after, "{network}");
        assert_eq!(fs::read(node.bin("pod-bandwidth")).unwrap(), fs::read(node.plugin()).unwrap());
        assert_eq!(node.bin("pod-bandwidth").metadata().unwrap().mode() & 0o7777, 0o755);
        // a second time nothing is written
        let state = node.state();
        node.ok("install", &[]);
        assert_eq!(node.state(), state, "{network}");
        // and uninstall takes out exactly that, but keeps the program for pods that still run
        node.ok("uninstall", &[]);
        assert_eq!(fs::read_to_string(node.net("10-net.conflist")).unwrap(), before, "{network}");
        assert!(node.bin("pod-bandwidth").is_file());
        node.ok("uninstall", &["--program"]);
        assert_eq!(node.names(), ["10-net.conflist"], "{network}");
    }
}

#[test]
fn the_file_that_the_runtime_takes_is_the_first_by_name() {
    // given names that sort before it and are not read, and one that comes later
    let calico = list("calico-manifest.conflist");
    let node = Node::with("10-calico.conflist", &calico);
    for name in ["05-old.conflist.bak", "00-readme", "87-podman.conflist", "calico-kubeconfig"] {
        fs::write(node.net(name), &calico).unwrap();
    }
    fs::create_dir(node.net("01-folder.conflist")).unwrap();
    node.ok("install", &[]);
    for (name, is_changed) in [("10-calico.conflist", true), ("87-podman.conflist", false)] {
        assert_eq!(fs::read_to_string(node.net(name)).unwrap() != calico, is_changed, "{name}");
    }
}

#[test]
fn what_cannot_take_an_entry_is_refused_with_what_helps_and_nothing_changes() {
    let lone = r#"{"cniVersion": "1.0.0", "name": "net", "type": "ptp"}"#;
    let flannel = list("flannel.conflist");
    for (name, text, words) in [
        ("10-net.conf", lone, "write it as a .conflist"),
        ("10-net.json", lone, "write it as a .conflist"),
        ("10-net.conf", &flannel, "rename it to 10-net.conflist"),
        ("10-net.conflist", &flannel[..flannel.len() / 2], "left as it is"),
        ("10-net.conflist", "", "left as it is"),
        ("10-net.conflist", r#"{"name": "net", "plugins": []}"#, "empty"),
        ("README", "", "has no network configuration yet"),
    ] {
        let node = Node::with(name, text);
        let state = node.state();
        let error = node.refused("install");
        assert!(error.contains(words), "{name}: {error}");
        assert_eq!(node.state(), state, "{name}");
        assert_eq!(fs::read_to_string(node.net(name)).unwrap(), text);
    }
}

#[test]
fn a_folder_or_program_that_is_missing_is_named() {
    let node = Node::with("10-net.conflist", &list("flannel.conflist"));
    for (missing, option) in [(node.net(""), "--net-dir"), (node.bin(""), "--bin-dir")] {
        let away = node.folder.path().join("away");
        fs::rename(&missing, &away).unwrap();
        let error = node.refused("install");
        assert!(error.contains(missing.to_str().unwrap()), "{error}");
        assert!(error.contains("No such file or directory"), "{error}");
        assert!(error.contains(option), "{error}");
        fs::rename(&away, &missing).unwrap();
    }
    fs::write(node.plugin(), "#!/bin/sh").unwrap();
    assert!(node.refused("install").contains("no program to install"));
    fs::remove_file(node.plugin()).unwrap();
    assert!(node.refused("install").contains(&node.plugin()));
    assert_eq!(node.names(), ["10-net.conflist"]);
}

#[test]
fn a_read_only_folder_is_told_and_nothing_is_left_in_it() {
    let node = Node::with("10-net.conflist", &list("flannel.conflist"));
    // The program is there already, so only the list is to be written.
    node.ok("install", &[]);
    node.ok("uninstall", &[]);
    let state = node.state();
    let mount = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;
    let net = node.net("").to_str().unwrap().to_owned();
    let before =
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, net.as_str()];
    let output = node.under(&before, "install", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for words in ["Read-only file system", "mount that folder for writing", "10-net.conflist"] {
        assert!(said(&output).contains(words), "{words}: {}", said(&output));
    }
    assert_eq!(node.state(), state);
}

#[test]
fn mode_owner_and_link_stay() {
    // given a list that only its owner reads, behind a link
    let node = Node::new();
    let real = node.folder.path().join("real");
    fs::write(&real, list("calico-manifest.conflist")).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(&real, Some(10_001), Some(10_002)).unwrap();
    }
    symlink("../real", node.net("10-calico.conflist")).unwrap();
    // when
    node.ok("install", &[]);
    // then
    assert_eq!(fs::read_link(node.net("10-calico.conflist")).unwrap(), Path::new("../real"));
    assert_eq!(fs::read_to_string(&real).unwrap(), list("calico-manifest.installed"));
    let meta = real.metadata().unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o600);
    if is_root {
        assert_eq!((meta.uid(), meta.gid()), (10_001, 10_002));
    }
    // A link to nothing.
    fs::remove_file(&real).unwrap();
    assert!(node.refused("install").contains("10-calico.conflist"));
}

#[test]
fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let node = Node::with("10-net.conflist", &list("k3s.conflist"));
    let state = node.state();
    let shown = node.ok("install", &["--dry-run"]);
    for line in ["would copy", "+      \"type\": \"pod-bandwidth\",", "@@ -17,10 +17,17 @@"] {
        assert!(shown.contains(line), "{line} in:\n{shown}");
    }
    assert_eq!(node.state(), state);
    // After it is done there is nothing to show.
    node.ok("install", &[]);
    assert_eq!(node.ok("install", &["--dry-run"]), "");
    assert!(node.ok("uninstall", &["--dry-run"]).contains("-      \"type\": \"pod-bandwidth\","));
}

#[test]
fn an_entry_of_the_operator_is_put_there_if_the_plugin_takes_it() {
    let node = Node::with("10-net.conflist", &list("flannel.conflist"));
    let entry = node.folder.file("entry");
    fs::write(&entry, r#"{"type": "pod-bandwidth", "placement": "nowhere"}"#).unwrap();
    let refused = node.run("install", &["--entry", &entry]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("placement"), "{}", said(&refused));
    assert_eq!(node.names(), ["10-net.conflist"]);
    fs::write(&entry, r#"{"type": "pod-bandwidth", "placement": "host"}"#).unwrap();
    node.ok("install", &["--entry", &entry]);
    let text = fs::read_to_string(node.net("10-net.conflist")).unwrap();
    assert!(text.contains("      \"placement\": \"host\"\n"), "{text}");
}
