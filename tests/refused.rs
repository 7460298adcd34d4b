//! Refused input: the right error, in words that help, and a kernel that was not touched.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Lab, Pod, Shape, Snapshot, Way};
use serde_json::{Value, json};

/// One refused ADD: what is wrong, the call, the error code, and words of the message.
type Case = (&'static str, Box<dyn Fn(Call) -> Call>, u64, Vec<&'static str>);

fn case(
    what: &'static str,
    code: u64,
    words: &[&'static str],
    change: impl Fn(Call) -> Call + 'static,
) -> Case {
    (what, Box::new(change), code, words.to_vec())
}

/// Each case on a fresh pod and on one that is shaped already: the state is equal before and after.
fn assert_refused(cases: &[Case]) {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let state = |pod: &Pod| Snapshot::of(&[&pod.host, &pod.ns]);
    for shaped in [false, true] {
        if shaped {
            Call::add(&pod).limits("10M", "20M").ok();
        }
        let before = state(&pod);
        let mut wrong = Vec::new();
        for (what, change, code, words) in cases {
            let outcome = change(Call::add(&pod).limits("30M", "40M")).run();
            let told: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
            let message = told["msg"].as_str().unwrap_or_default();
            let as_said = words.iter().all(|word| message.contains(word));
            if outcome.status != Some(1) || told["code"] != *code || !as_said {
                wrong.push(format!("{what}: not code {code} with {words:?}: {outcome:#?}"));
            }
            before.assert_same(&state(&pod), &format!("{what}: {outcome:#?}"));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn bad_quantities_in_annotations() {
    let mut cases = Vec::new();
    for value in [
        "",
        " ",
        "abc",
        "10Q",
        "10 M",
        " 10M",
        "10M ",
        "1e",
        "--1M",
        "0x10",
        "10MB",
        "1.2.3M",
        ".",
        "1_000",
        "10m/s",
        "NaN",
        "inf",
        "1e999999999999",
    ] {
        for key in ["kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"] {
            let words = ["default/web-0", key];
            cases.push(case("no quantity", 7, &words, move |call| call.annotation(key, value)));
        }
    }
    for value in ["0", "999", "-10M", "1.0001P", "2P", "1E", "1e16", "500m"] {
        let key = "kubernetes.io/ingress-bandwidth";
        let words = [key, "1k", "1P"];
        cases.push(case("out of range", 7, &words, move |call| call.annotation(key, value)));
    }
    cases.push(case("a very long text", 7, &["kubernetes.io/ingress-bandwidth"], |call| {
        call.annotation("kubernetes.io/ingress-bandwidth", &"9".repeat(200_000))
    }));
    assert_refused(&cases);
}

#[test]
fn bad_calico_annotations() {
    let table: [(&str, &str); 8] = [
        ("qos.projectcalico.org/ingressBandwidth", "999"),
        ("qos.projectcalico.org/egressBandwidth", "1.1P"),
        ("qos.projectcalico.org/ingressBurst", "999"),
        ("qos.projectcalico.org/ingressBurst", "40Gi"),
        ("qos.projectcalico.org/ingressPeakrate", "1k"),
        ("qos.projectcalico.org/egressPeakrate", "1.02P"),
        ("qos.projectcalico.org/egressMinburst", "999"),
        ("qos.projectcalico.org/egressMinburst", "101M"),
    ];
    let cases: Vec<Case> = table
        .into_iter()
        .map(|(key, value)| {
            case("out of range", 7, &[key, "default/web-0"], move |call| {
                call.annotation(key, value)
            })
        })
        .collect();
    assert_refused(&cases);
}

#[test]
fn wrong_types_and_values_of_keys() {
    let table: Vec<(&'static str, Value, Vec<&'static str>)> = vec![
        ("placement", json!("sideways"), vec!["placement", "sideways", "auto", "host", "pod"]),
        ("placement", json!(7), vec!["placement", "auto", "host", "pod"]),
        ("placement", json!(["host"]), vec!["placement"]),
        ("hostIngress", json!("leaf"), vec!["hostIngress", "leaf", "auto", "root", "hooks"]),
        ("hostIngress", json!(true), vec!["hostIngress"]),
        ("placementByPrefix", json!("eni"), vec!["placementByPrefix"]),
        (
            "placementByPrefix",
            json!({"eni": "sideways"}),
            vec!["placementByPrefix", "sideways", "auto", "host", "pod", "hooks", "root"],
        ),
        ("calicoQoS", json!("both"), vec!["calicoQoS", "both", "replace", "keep"]),
        ("latency", json!(-1), vec!["latency", "-1"]),
        ("latency", json!(2.5), vec!["latency", "2.5"]),
        ("latency", json!("25ms"), vec!["latency", "25ms"]),
        ("defaults", json!(10), vec!["defaults"]),
        ("defaults", json!({"ingressRate": "10Q"}), vec!["defaults", "ingressRate", "10Q"]),
        ("defaults", json!({"egressRate": true}), vec!["defaults", "egressRate"]),
        ("maximum", json!("10M"), vec!["maximum"]),
        ("maximum", json!({"ingressRate": 999}), vec!["maximum", "ingressRate", "999"]),
        ("maximum", json!({"egressBurst": {}}), vec!["maximum", "egressBurst"]),
        ("log", json!("file"), vec!["log"]),
        ("log", json!({"level": "loud"}), vec!["log", "level", "loud", "debug"]),
        ("ingressRate", json!(-5), vec!["ingressRate", "-5"]),
        ("egressRate", json!({}), vec!["egressRate"]),
        ("ingressRate", json!(1.5), vec!["ingressRate", "1.5"]),
        ("egressRate", json!(999), vec!["egressRate", "999"]),
        ("prevResult", json!("none"), vec!["prevResult"]),
        ("prevResult", json!([]), vec!["prevResult"]),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(key, value, words)| {
            case("a wrong value", 7, &words, move |call| {
                // The static keys are the weakest but for defaults: nothing stronger may hide them.
                call.without_key("runtimeConfig").key(key, value.clone())
            })
        })
        .collect();
    for (bandwidth, words) in [
        (json!("10M"), vec!["bandwidth"]),
        (json!({"ingressRate": "10M"}), vec!["ingressRate"]),
        (json!({"IngressRate": -1}), vec!["ngressRate", "-1"]),
        (json!({"egressRate": 999}), vec!["egressRate", "999"]),
        (json!({"egressRate": 1.5e3}), vec!["egressRate"]),
        (json!({"egressRate": 2_000_000_000_000_000_u64}), vec!["egressRate", "1P"]),
    ] {
        cases.push(case("runtimeConfig.bandwidth", 7, &words, move |call| {
            call.limits("", "").bandwidth(bandwidth.clone())
        }));
    }
    for (annotations, word) in [
        (json!("text"), "pod-annotations"),
        (json!({"kubernetes.io/ingress-bandwidth": 10}), "kubernetes.io/ingress-bandwidth"),
    ] {
        cases.push(case("annotations", 7, &[word], move |call| {
            call.key("runtimeConfig", json!({"io.kubernetes.cri.pod-annotations": annotations}))
        }));
    }
    cases.push(case("no prevResult", 7, &["prevResult"], |call| call.without_key("prevResult")));
    assert_refused(&cases);
}

#[test]
fn bursts_that_cannot_be_held() {
    let burst = |bits: u64| {
        move |call: Call| {
            let call = call.without_key("runtimeConfig").key("ingressRate", json!(10_000_000));
            call.key("ingressBurst", json!(bits))
        }
    };
    assert_refused(&[
        // A full frame of MTU 1500 is 1518 bytes, 12144 bits.
        case("below one frame", 7, &["12144", "1500"], burst(12_136)),
        case("below the range", 7, &["ingressBurst", "1000"], burst(8)),
        case("above the range", 7, &["ingressBurst", "34359738360"], burst(40_000_000_000)),
    ]);
}

#[test]
fn a_burst_of_exactly_one_frame_is_held() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let add = Call::add(&pod).key("ingressRate", json!(10_000_000));
    add.key("ingressBurst", json!(12_144)).ok();
    assert_eq!(Shape::of(&pod, Way::Root).to_pod.unwrap().burst(), 1518);
}

#[test]
fn text_that_is_no_configuration() {
    assert_refused(&[
        case("nothing", 6, &[], |call| call.stdin("")),
        case("half an object", 6, &[], |call| call.stdin("{\"cniVersion\": \"1.0.0\"")),
        case("an array", 6, &[], |call| call.stdin("[]")),
        case("null", 6, &[], |call| call.stdin("null")),
        case("no JSON", 6, &[], |call| call.stdin("cniVersion: 1.0.0")),
        case("an object and more", 6, &[], |call| call.stdin("{} {}")),
        case("no name", 7, &["name"], |call| call.without_key("name")),
        case("a name that is no text", 6, &["name"], |call| call.key("name", json!(7))),
        case("an unknown version", 1, &["9.9.9", "1.1.0"], |call| call.version("9.9.9")),
        case("a version that is no text", 6, &["cniVersion"], |call| {
            call.key("cniVersion", json!(1))
        }),
    ]);
}

#[test]
fn wrong_and_missing_environment() {
    let mut cases = Vec::new();
    for key in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        cases.push(case("missing", 4, &[key], move |call| call.without_env(key)));
        cases.push(case("empty", 4, &[key], move |call| call.env(key, "")));
    }
    for id in ["../c1", "-c1", "c 1", "c1\n", "c/1"] {
        cases.push(case("an ID", 4, &["CNI_CONTAINERID"], move |call| call.container(id)));
    }
    for name in ["a/b", ".", "..", "eth 0", "eth:0", "sixteen-chars-16"] {
        cases.push(case("a name", 4, &["CNI_IFNAME"], move |call| call.env("CNI_IFNAME", name)));
    }
    for path in ["/nowhere/at/all", "/etc/passwd", "/", "/proc/self/ns/mnt", "/dev/null"] {
        cases.push(case("no namespace", 4, &[path], move |call| call.env("CNI_NETNS", path)));
    }
    assert_refused(&cases);
}

#[test]
fn an_interface_that_is_not_there() {
    assert_refused(&[
        case("in the pod", 105, &["eth7"], |call| call.env("CNI_IFNAME", "eth7")),
        case("in the pod, for the pod", 105, &["eth7"], |call| {
            call.env("CNI_IFNAME", "eth7").way(Way::Pod)
        }),
    ]);
}

#[test]
fn an_odd_interface_of_prev_result_is_resolved_through_the_pods_own_veth() {
    for interfaces in [
        json!([]),
        json!(null),
        json!([{"name": "veth-gone"}, {"name": "eth0", "sandbox": "/elsewhere"}]),
        json!([{"name": "eth0"}, {"name": "lo"}]),
    ] {
        let Some(lab) = Lab::open() else { return };
        let pod = lab.pod("veth0");
        let mut result = pod.result(&pod.eth0, "1.0.0");
        result["interfaces"] = interfaces;
        let add = Call::add(&pod).limits("10M", "20M").key("prevResult", result.clone());
        assert_eq!(add.ok(), result);
        assert_eq!(Shape::of(&pod, Way::Root).rates(), (10_000_000, 20_000_000));
    }
}

#[test]
fn hostile_text_stays_text() {
    let Some(lab) = Lab::open() else { return };
    let pod = lab.pod("veth0");
    let before = Snapshot::of(&[&lab, &pod]);
    let hostile = "10M\u{1b}[2J\n$(reboot) \u{202e}\"}";
    let outcome = Call::add(&pod).annotation("kubernetes.io/ingress-bandwidth", hostile).run();
    outcome.error(7).says(&["kubernetes.io/ingress-bandwidth"]);
    for channel in [&outcome.stdout, &outcome.stderr] {
        assert!(!channel.contains('\u{1b}') && !channel.contains('\u{202e}'), "{outcome:#?}");
    }
    before.assert_same(&Snapshot::of(&[&lab, &pod]), "refused");

    // The pod's name goes into the alias: no control characters, no second field.
    let args = "K8S_POD_NAMESPACE=a b;K8S_POD_NAME=x\ny dev=lo \u{1b}";
    Call::add(&pod).limits("10M", "20M").env("CNI_ARGS", args).ok();
    for name in lab.ifbs() {
        let alias = lab.alias(&name);
        assert!(alias.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{alias:?}");
        assert_eq!(alias.matches(" dev=").count(), 1, "{alias:?}");
    }
}
