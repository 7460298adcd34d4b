//! The protocol: verbs and versions, environment, keys, and what goes to which channel.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Lab, Shape, Snapshot, Strace, TempDir, Way};
use serde_json::{Value, json};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const M: u64 = 1_000_000;

#[test]
fn version_says_what_is_supported_in_every_version() {
    let Some(lab) = Lab::open() else { return };
    for version in VERSIONS {
        let call = Call::node(&lab, "VERSION").config(json!({"cniVersion": version}));
        let told = call.ok();
        assert_eq!(told["cniVersion"], version);
        assert_eq!(told["supportedVersions"], json!(VERSIONS));
    }
}

#[test]
fn verbs_are_refused_in_versions_that_do_not_have_them() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    Call::add(&pod).limits("10M", "20M").ok();
    let before = Snapshot::of(&[&lab, &pod]);
    for (verb, first) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
        let since = VERSIONS.iter().position(|version| *version == first).unwrap();
        for version in &VERSIONS[..since] {
            let call = Call::check(&pod).limits("10M", "20M").verb(verb).version(version);
            let call = call.key("cni.dev/valid-attachments", json!([]));
            call.error(1).says(&[verb, version, first]);
        }
    }
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "refused verbs");
}

#[test]
fn an_unknown_command_is_an_error_of_the_environment() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    for verb in ["FROB", "add", ""] {
        Call::add(&pod).verb(verb).error(4).says(&["CNI_COMMAND"]);
    }
}

#[test]
fn status_is_fine_here_and_not_without_the_privilege() {
    let Some(lab) = Lab::open() else { return };
    assert_eq!(Call::node(&lab, "STATUS").ok(), Value::Null);
    let without = Call::node(&lab, "STATUS").without_privilege();
    without.error(50).says(&["CAP_NET_ADMIN"]);
}

/// A failing STATUS takes the whole node down.
#[test]
fn status_fails_only_where_no_limit_can_be_set_and_asks_the_kernel_for_nothing() {
    let Some(lab) = Lab::open() else { return };
    let Some(strace) = Strace::find() else { return };
    let pod = lab.pod("veth0");
    let mut failed = 0;
    let configurations = [
        json!({}),
        json!({"ingressRate": M, "egressBurst": 0}),
        // A burst without a rate is no request.
        json!({"ingressBurst": 1_000_000}),
        json!({"defaults": {"egressBurst": "1M"}}),
        json!({"maximum": {"ingressRate": "5M", "ingressBurst": "20k"}}),
        json!({"placement": "pod", "hostIngress": "root", "latency": 10_000, "queue": "fifo"}),
        json!({"unshapedSubnets": ["10.0.0.0/8"]}),
        json!({"log": {"file": "/nowhere/at/all/x.log"}}),
        json!({"unknown": {"a": 1}}),
        // Wrong ones, also where an annotation would be stronger.
        json!({"ingressRate": 999}),
        json!({"egressBurst": "20k"}),
        json!({"defaults": {"ingressRate": "10Q"}}),
        json!({"maximum": {"egressRate": 1}}),
        json!({"placement": "sideways"}),
        json!({"placementByPrefix": {"": "pod"}}),
        json!({"latency": 0}),
        json!({"queue": "red"}),
        json!({"log": {"level": "loud"}}),
        json!({"shapedSubnets": ["10.0.0.1"]}),
    ];
    for configuration in &configurations {
        let given = |call: Call| {
            let keys = configuration.as_object().unwrap().iter();
            keys.fold(call, |call, (key, value)| call.key(key, value.clone()))
        };
        let before = Snapshot::of(&[&lab, &pod]);
        let status = given(Call::node(&lab, "STATUS"));
        if status.run().status == Some(0) {
            // It opens a socket, and sends nothing.
            assert!(strace.requests(&status).is_empty(), "{configuration}");
        } else {
            failed += 1;
            status.error(50);
            let both = json!({"ingressRate": 10 * M, "egressRate": 20 * M});
            for add in [
                Call::add(&pod),
                Call::add(&pod).limits("10M", "20M"),
                Call::add(&pod).bandwidth(both),
            ] {
                given(add).error(7);
            }
        }
        before.assert_same(&Snapshot::of(&[&lab, &pod]), &configuration.to_string());
    }
    assert_eq!(failed, 10, "of {}", configurations.len());
    // and without the privilege no ADD with a limit can succeed either
    Call::node(&lab, "STATUS").without_privilege().error(50);
    Call::add(&pod).limits("10M", "20M").without_privilege().error(104);
}

#[test]
fn add_without_the_privilege_says_so_and_changes_nothing() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let before = Snapshot::of(&[&lab, &pod]);
        let add = Call::add(&pod).way(way).limits("10M", "20M").without_privilege();
        add.error(104).says(&["CAP_"]);
        before.assert_same(&Snapshot::of(&[&lab, &pod]), &format!("{way:?}"));
    }
}

#[test]
fn gc_without_the_list_of_valid_attachments_removes_nothing() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    Call::add(&pod).version("1.1.0").limits("10M", "20M").ok();
    let before = Snapshot::of(&[&lab, &pod]);
    // libcni leaves the key out where its caller has no list, after it has sent DEL for every
    // attachment that it knows; what it does not know is not stale for that.
    assert_eq!(Call::node(&lab, "GC").ok(), Value::Null);
    // A list that is none is an error.
    let wrong = Call::node(&lab, "GC").key("cni.dev/valid-attachments", json!("all"));
    wrong.error(7).says(&["cni.dev/valid-attachments"]);
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "GC");
}

#[test]
fn cni_args_may_be_absent_empty_or_unknown() {
    for args in [None, Some(""), Some("IgnoreUnknown=1"), Some("K8S_POD_NAME"), Some(";;=;")] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let call = Call::add(&pod).limits("10M", "20M").without_env("CNI_ARGS");
        let call = args.into_iter().fold(call, |call, args| call.env("CNI_ARGS", args));
        call.ok();
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M), "{args:?}");
        assert_eq!(
            lab.alias(&lab.ifbs()[0]),
            "pod-bandwidth net=net id=c1 if=eth0 dev=veth0",
            "{args:?}: no pod is named"
        );
        call.verb("DEL").ok();
    }
}

#[test]
fn keys_match_without_regard_to_case() {
    let rates = |spelling: [&str; 2]| json!({spelling[0]: 10 * M, spelling[1]: 20 * M});
    for spelling in [
        ["ingressRate", "egressRate"],
        ["IngressRate", "EgressRate"],
        ["INGRESSRATE", "egressrate"],
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        // in runtimeConfig
        Call::add(&pod).bandwidth(rates(spelling)).ok();
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M), "{spelling:?}");
        Call::del(&pod).ok();
        // and in the configuration itself
        let call = Call::add(&pod).key(spelling[0], json!(10 * M)).key(spelling[1], json!(20 * M));
        call.ok();
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M), "{spelling:?}");
    }
}

#[test]
fn del_succeeds_whatever_the_configuration_asks_for() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let before = Snapshot::of(&[&lab, &pod]);
    let shape = || drop(Call::add(&pod).limits("10M", "20M").ok());
    // A runtime sends DEL after an ADD that was refused, with the same input.
    for del in [
        Call::del(&pod).limits("10Q", ""),
        Call::del(&pod).limits("999", "2P"),
        Call::del(&pod).env("CNI_NETNS", "/nowhere/at/all").limits("10M", "20M"),
        Call::del(&pod).without_env("CNI_NETNS").without_key("prevResult"),
        Call::del(&pod).key("prevResult", json!({"cniVersion": "1.0.0"})),
    ] {
        shape();
        assert_eq!(del.ok(), Value::Null);
        before.assert_same(&Snapshot::of(&[&lab, &pod]), &format!("{del:?}"));
        assert_eq!(del.ok(), Value::Null);
    }
}

#[test]
fn standard_output_has_the_result_alone_and_the_log_goes_where_it_is_asked_to() {
    let Some(lab) = Lab::open() else { return };
    let folder = TempDir::new();
    let file = folder.file("pod-bandwidth.log");
    let pod = lab.pod("veth0");
    let log = json!({"file": file, "level": "debug"});
    let outcome = Call::add(&pod).limits("10M", "20M").key("log", log).run();
    assert_eq!(outcome.ok(), pod.result(&pod.eth0, "1.0.0"));
    assert_eq!(outcome.stderr, "", "the log goes into the file");
    let written = std::fs::read_to_string(&file).unwrap();
    for word in ["default/web-0", "eth0", "placement host (root)"] {
        assert!(written.contains(word), "the log names the way and why: {word} in {written}");
    }
    // and without a file it goes to standard error
    let outcome = Call::add(&pod).limits("30M", "20M").key("log", json!({"level": "debug"})).run();
    outcome.ok();
    assert!(outcome.stderr.contains("placement host (root)"), "{outcome:#?}");
}

#[test]
fn a_log_that_cannot_be_written_fails_no_pod() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let log = json!({"file": "/nowhere/at/all/pod-bandwidth.log"});
    Call::add(&pod).limits("10M", "20M").key("log", log).ok();
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M));
}

#[test]
fn unknown_keys_are_ignored() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let call = Call::add(&pod).limits("10M", "20M").key("x-unknown", json!({"a": [1, null]}));
    let call = call.key("ipam", json!({})).key("args", json!({"cni": {}}));
    call.annotation("kubernetes.io/ingress-bandwidth-x", "nonsense").ok();
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M));
}
