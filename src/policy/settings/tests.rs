//! Every key with its default, what it takes and how it says no.

use serde_json::json;

use super::*;

fn read(config: &Value) -> Result<Settings, PolicyError> {
    let Value::Object(map) = config else { panic!("not an object: {config}") };
    Settings::read(map)
}

#[test]
fn nothing_written_means_the_defaults() {
    for config in [
        json!({}),
        json!({"cniVersion": "1.1.0", "name": "n", "type": "pod-bandwidth", "future": {"a": 1}}),
        json!({"placement": null, "hostIngress": null, "placementByPrefix": null, "latency": null,
               "queue": null, "log": null}),
        json!({"log": {}, "placementByPrefix": {}}),
        json!({"log": {"file": null, "level": null, "future": 1}, "placementByPrefix": {"eni": null}}),
    ] {
        let settings = read(&config).unwrap();
        assert_eq!(settings, Settings::default(), "{config}");
        assert_eq!(settings.latency_ms, 25);
        assert_eq!(settings.queue, QueueKind::Auto);
        assert_eq!(settings.log.level, LogLevel::Info);
    }
}

#[test]
fn every_key_is_read() {
    let settings = read(&json!({
        "Placement": "pod",
        "hostingress": "hooks",
        "placementByPrefix": {
            "en": "pod", "eni": "host", "cali": "auto", "eth": "host", "azv": "hooks"
        },
        "CalicoQos": "keep",
        "latency": 40,
        "queue": "fq_codel",
        "log": {"File": "/var/log/pod-bandwidth.log", "level": "debug"},
        "unshapedSubnets": ["10.96.0.0/12"],
    }));
    let way = |prefix: &str, placement, host_ingress| {
        (prefix.to_owned(), PrefixPlacement { placement, host_ingress })
    };
    let prefix = |prefix: &str, placement| way(prefix, placement, None);
    assert_eq!(
        settings,
        Ok(Settings {
            placement: Placement::Pod,
            host_ingress: HostIngress::Hooks,
            // The longest first: the first that fits is the one that counts.
            placement_by_prefix: vec![
                prefix("cali", Placement::Auto),
                way("azv", Placement::Host, Some(HostIngress::Hooks)),
                prefix("eni", Placement::Host),
                prefix("eth", Placement::Host),
                prefix("en", Placement::Pod),
            ],
            calico_qos: CalicoQos::Keep,
            latency_ms: 40,
            queue: QueueKind::FqCodel,
            log: LogSettings {
                file: Some(PathBuf::from("/var/log/pod-bandwidth.log")),
                level: LogLevel::Debug,
            },
            scope: Scope::Except(vec!["10.96.0.0/12".parse().unwrap()]),
        })
    );
    for (word, placement) in PLACEMENTS {
        assert_eq!(read(&json!({"placement": word})).unwrap().placement, placement);
    }
    for (word, way) in HOST_INGRESSES {
        assert_eq!(read(&json!({"hostIngress": word})).unwrap().host_ingress, way);
    }
    for (word, calico_qos) in CALICO_QOS {
        assert_eq!(read(&json!({"calicoQoS": word})).unwrap().calico_qos, calico_qos);
    }
    for (word, queue) in QUEUES {
        assert_eq!(read(&json!({"queue": word})).unwrap().queue, queue);
    }
    for (word, level) in LEVELS {
        assert_eq!(read(&json!({"log": {"level": word}})).unwrap().log.level, level);
    }
    for latency in [1, 10_000] {
        assert_eq!(read(&json!({"latency": latency})).unwrap().latency_ms, latency);
    }
}

#[test]
fn a_prefix_overrides_auto_and_its_way_overrides_host_ingress() {
    let list = json!({"en": "pod", "eni": "host", "azv": "hooks", "gke": "root", "cali": "auto"});
    for (placement, host_ingress, device, expected) in [
        ("auto", "auto", None, (Placement::Auto, HostIngress::Auto)),
        ("auto", "hooks", Some("veth1"), (Placement::Auto, HostIngress::Hooks)),
        ("auto", "hooks", Some("eni1"), (Placement::Host, HostIngress::Hooks)),
        ("auto", "root", Some("azv1"), (Placement::Host, HostIngress::Hooks)),
        ("auto", "hooks", Some("gke1"), (Placement::Host, HostIngress::Root)),
        ("auto", "hooks", Some("cali1"), (Placement::Auto, HostIngress::Hooks)),
        ("auto", "auto", Some("enp1"), (Placement::Pod, HostIngress::Auto)),
        ("host", "auto", Some("enp1"), (Placement::Host, HostIngress::Auto)),
    ] {
        let keys = json!({
            "placement": placement, "hostIngress": host_ingress, "placementByPrefix": list.clone()
        });
        assert_eq!(read(&keys).unwrap().placed(device), expected, "{placement} {device:?}");
    }
}

#[test]
fn a_wrong_value_is_told_with_its_key() {
    const PLACEMENT: &str = r#"it takes one of "auto", "host", "pod""#;
    const BY_PREFIX: &str = r#"it takes one of "auto", "host", "pod", "hooks", "root""#;
    const LATENCY: &str = "it takes an integer of milliseconds between 1 and 10000";
    const PATH: &str = r#"it takes an absolute path such as "/var/log/pod-bandwidth.log""#;
    for (config, message) in [
        (json!({"placement": 5}), format!("placement: got the number 5; {PLACEMENT}")),
        (json!({"placement": "Host"}), format!(r#"placement: got the string "Host"; {PLACEMENT}"#)),
        (json!({"placement": ""}), format!(r#"placement: got the string ""; {PLACEMENT}"#)),
        (
            json!({"hostIngress": "qdisc"}),
            r#"hostIngress: got the string "qdisc"; it takes one of "auto", "root", "hooks""#.into(),
        ),
        (
            json!({"queue": "fq"}),
            r#"queue: got the string "fq"; it takes one of "auto", "fifo", "fq_codel""#.into(),
        ),
        (
            json!({"placementByPrefix": "eni"}),
            r#"placementByPrefix: got the string "eni"; it takes an object"#.into(),
        ),
        (
            json!({"placementByPrefix": {"eni": "node"}}),
            format!(r#"placementByPrefix.eni: got the string "node"; {BY_PREFIX}"#),
        ),
        (
            json!({"placementByPrefix": {"e\nni": 1}}),
            format!(r#"placementByPrefix."e\nni": got the number 1; {BY_PREFIX}"#),
        ),
        (
            json!({"placementByPrefix": {"": "host"}}),
            r#"placementByPrefix: got an empty prefix; it takes prefixes of host interface names, such as "eni""#.into(),
        ),
        (
            json!({"hostIngress": "root", "shapedSubnets": ["10.0.0.0/8"]}),
            r#"hostIngress: got the string "root"; it takes "auto" or "hooks" beside unshapedSubnets or shapedSubnets, because a root qdisc limits all traffic"#.into(),
        ),
        (
            json!({"placementByPrefix": {"eni": "pod", "azv": "root"}, "unshapedSubnets": ["10.0.0.0/8"]}),
            r#"placementByPrefix.azv: got the string "root"; it takes "auto", "host", "pod" or "hooks" beside unshapedSubnets or shapedSubnets, because a root qdisc limits all traffic"#.into(),
        ),
        (
            json!({"calicoQoS": "both"}),
            r#"calicoQoS: got the string "both"; it takes one of "replace", "keep""#.into(),
        ),
        (json!({"latency": "25"}), format!(r#"latency: got the string "25"; {LATENCY}"#)),
        (json!({"latency": 0}), format!("latency: got the number 0; {LATENCY}")),
        (json!({"latency": 10_001}), format!("latency: got the number 10001; {LATENCY}")),
        (json!({"latency": 25.0}), format!("latency: got the number 25.0; {LATENCY}")),
        (json!({"latency": -1}), format!("latency: got the number -1; {LATENCY}")),
        // 2^32 + 25 must not be taken for 25.
        (json!({"latency": 4_294_967_321_u64}), format!("latency: got the number 4294967321; {LATENCY}")),
        (json!({"log": "/var/log/x"}), r#"log: got the string "/var/log/x"; it takes an object"#.into()),
        (json!({"log": {"file": "x.log"}}), format!(r#"log.file: got the string "x.log"; {PATH}"#)),
        (json!({"log": {"file": ""}}), format!(r#"log.file: got the string ""; {PATH}"#)),
        (json!({"log": {"file": "/a\u{0}"}}), format!(r#"log.file: got the string "/a\0"; {PATH}"#)),
        (json!({"log": {"file": true}}), format!("log.file: got the boolean true; {PATH}")),
        (
            json!({"log": {"Level": "trace"}}),
            r#"log.Level: got the string "trace"; it takes one of "error", "warn", "info", "debug""#.into(),
        ),
    ] {
        assert_eq!(read(&config).map_err(|error| error.to_string()), Err(message), "{config}");
    }
}
