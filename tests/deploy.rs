//! `conf/kustomize` on a real kubelet and API server with RBAC: the manifests are taken, their rights are
//! the least, and the containers of the DaemonSet do their work with the capabilities that they have.
//!
//! One test with parts, because they share one node. It takes the static programs of scripts/package.
#![cfg(feature = "node")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod deployed;
mod kube;

use std::fs;
use std::io::Write;

use common::{Lab, skip};
use deployed::{DaemonPod, Entries, MANIFESTS, image, manifest};
use kube::{Cluster, Manifest};
use serde_json::{Value, json};

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";

#[test]
fn the_manifests_on_a_node_with_rbac() {
    if Lab::open().is_none() {
        return;
    }
    let Some(image) = image() else {
        skip("dist/ has no static programs (scripts/package makes them)");
        return;
    };
    let Some(cluster) = Cluster::open_with(&["--authorization", "Node,RBAC"]) else { return };
    tell("the API server takes every manifest, in a dry run and for real");
    all_are_taken(&cluster);
    tell("the ServiceAccount may do what the agent does, and nothing else");
    rights_are_the_least(&cluster);
    tell("the install container puts the entry into the node's list");
    let entries = Entries::without_ours(&cluster);
    cluster.import(&image);
    let pod = DaemonPod::create(&cluster);
    cluster.wait("the entry", || entries.has_ours().then_some(()));
    assert!(cluster.path("/run/node/bin/pod-bandwidth").metadata().unwrap().is_file());
    tell("and puts it back when the list is written again");
    entries.write_without_ours();
    cluster.wait("the entry again", || entries.has_ours().then_some(()));
    tell("both containers become ready, with no more than they need");
    cluster.wait("the pod to be ready", || pod.is_ready().then_some(()));
    pod.assert_confined();
    tell("the agent follows an annotation, and tells of a wrong one, as its ServiceAccount");
    the_agent_works(&cluster);
    tell("the end of the pod leaves the installation");
    pod.delete();
    assert!(entries.has_ours());
    cluster.delete_all();
    cluster.close();
}

/// Straight to the descriptor: libtest keeps what is printed until the test ends.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn all_are_taken(cluster: &Cluster) {
    // kustomize itself is not here: its file lists what there is.
    let list = fs::read_to_string(manifest("kustomization.yaml")).unwrap();
    for file in fs::read_dir(manifest("")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let is_listed = list.lines().any(|line| line.trim() == format!("- {name}"));
        assert!(name == "kustomization.yaml" || is_listed, "{name} is not in kustomization.yaml");
    }
    for query in ["?dryRun=All&fieldValidation=Strict", "?fieldValidation=Strict"] {
        for (file, path) in MANIFESTS {
            let text = fs::read_to_string(manifest(file)).unwrap();
            let made = cluster.call_with("POST", &format!("{path}{query}"), &text);
            assert_eq!(made.unwrap()["metadata"]["name"], "pod-bandwidth", "{file}");
        }
    }
    for (_, path) in MANIFESTS {
        cluster.api("GET", &format!("{path}/pod-bandwidth"), None);
    }
}

fn rights_are_the_least(cluster: &Cluster) {
    let may = |verb: &str, group: &str, resource: &str| {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": "system:serviceaccount:kube-system:pod-bandwidth",
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": {"verb": verb, "group": group, "resource": resource},
            },
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        cluster.api("POST", path, Some(&review))["status"]["allowed"] == true
    };
    for (verb, group, resource, allowed) in [
        ("list", "", "pods", true),
        ("watch", "", "pods", true),
        ("list", "", "namespaces", true),
        ("watch", "", "namespaces", true),
        ("create", "events.k8s.io", "events", true),
        ("patch", "events.k8s.io", "events", true),
        ("patch", "", "pods", false),
        ("delete", "", "pods", false),
        ("create", "", "pods", false),
        ("patch", "", "namespaces", false),
        ("list", "", "nodes", false),
        ("get", "", "secrets", false),
        ("list", "", "secrets", false),
        ("list", "", "configmaps", false),
        ("list", "events.k8s.io", "events", false),
        ("create", "", "serviceaccounts/token", false),
    ] {
        assert_eq!(may(verb, group, resource), allowed, "{verb} {resource}.{group}");
    }
}

fn the_agent_works(cluster: &Cluster) {
    // given a pod that runs with a limit
    let pod = cluster.run(&Manifest::new("web", &[(INGRESS, "10M")]));
    let path = "/api/v1/namespaces/default/pods/web";
    let annotate = |value: &str| {
        let patch = json!({"metadata": {"annotations": {INGRESS: value}}});
        cluster.api("PATCH", path, Some(&patch));
    };
    // TBF's rate in bytes a second, wherever it is; no other pod is limited.
    let rates = || -> Vec<Value> {
        let qdiscs = common::items(cluster.lab.json(&["tc", "-j", "qdisc", "show"]));
        let ours = qdiscs.into_iter().filter(|qdisc| qdisc["kind"] == "tbf");
        ours.map(|qdisc| qdisc["options"]["rate"].clone()).collect()
    };
    assert_eq!(rates(), [json!(1_250_000)]);
    // when the annotation changes, then the limit does
    annotate("40M");
    cluster.wait("the new limit", || (rates() == [json!(5_000_000)]).then_some(()));
    // and a wrong one is told where people look
    annotate("10 Mbit");
    let told = |message: &String| message.contains(INGRESS) && message.contains("10 Mbit");
    cluster.wait("an Event", || pod.warnings().iter().any(told).then_some(()));
    assert_eq!(rates(), [json!(5_000_000)]);
    pod.delete();
}
