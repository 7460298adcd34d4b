//! What is refused, with the whole message that an operator reads.

use serde_json::json;

use super::*;

fn expect_refused(cases: impl IntoIterator<Item = (Value, &'static str)>) {
    for (config, message) in cases {
        assert_eq!(
            read(&config).map_err(|error| error.to_string()),
            Err(message.into()),
            "{config}"
        );
    }
}

#[test]
fn the_ends_of_every_range_are_taken_and_the_next_number_is_not() {
    // Rates in every source; rounding up as Kubernetes compares.
    let k8s = "kubernetes.io/ingress-bandwidth";
    for (name, also, least, most, below, above) in [
        (k8s, None, "1k", "1P", "999", "1000000000000001"),
        (k8s, None, "999.1", "1e15", "0.999k", "1.0000000000000001P"),
        ("qos.projectcalico.org/ingressBandwidth", None, "1k", "1P", "999", "1.1P"),
        (
            "qos.projectcalico.org/ingressBurst",
            Some((k8s, "1M")),
            "1k",
            "34359738360",
            "999",
            "34359738361",
        ),
        (
            "qos.projectcalico.org/ingressPeakrate",
            Some((k8s, "1k")),
            "1.01k",
            "1.01P",
            "1009",
            "1010000000000001",
        ),
    ] {
        let config = |value: &str| {
            let mut annotations = json!({ name: value });
            if let Some((name, value)) = also {
                annotations[name] = json!(value);
            }
            annotated(annotations, json!({}))
        };
        for taken in [least, most] {
            assert!(read(&config(taken)).unwrap().ingress.is_some(), "{name}: {taken}");
        }
        for (refused, side) in [
            (below, "less than"),
            (above, "more than"),
            ("0", "less than"),
            ("-1M", "less than"),
            ("-0.5", "less than"),
            ("1e99", "more than"),
        ] {
            let message = read(&config(refused)).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("annotation {name}: \"{refused}\" is {side} ")),
                "{message}"
            );
        }
    }
    for refused in [999, 1_000_000_000_000_001_u64] {
        for config in [
            json!({"runtimeConfig": {"bandwidth": {"ingressRate": refused}}}),
            json!({"ingressRate": refused}),
            json!({"defaults": {"ingressRate": refused}}),
            json!({"maximum": {"ingressRate": refused.to_string()}}),
            // Also where a stronger source hides it.
            annotated(json!({k8s: "1M"}), json!({"ingressRate": refused})),
        ] {
            assert!(matches!(read(&config), Err(PolicyError::OutOfRange { .. })), "{config}");
        }
    }
}

#[test]
fn a_minburst_is_between_1k_and_100m_bytes() {
    let config = |value: &str| {
        annotated(
            json!({"qos.projectcalico.org/ingressBandwidth": "1M",
                   "qos.projectcalico.org/ingressPeakrate": "2M",
                   "qos.projectcalico.org/ingressMinburst": value}),
            json!({}),
        )
    };
    let taken = |bytes| Some(min_burst(peak(rate(1_000_000), 2_000_000), bytes));
    expect_ingress([(config("1k"), taken(1_000)), (config("100M"), taken(100_000_000))]);
    expect_refused([
        (
            config("999"),
            r#"annotation qos.projectcalico.org/ingressMinburst: "999" is less than 1k bytes; it takes a Kubernetes quantity of bytes between 1k and 100M, such as "1514""#,
        ),
        (
            config("100000001"),
            r#"annotation qos.projectcalico.org/ingressMinburst: "100000001" is more than 100M bytes; it takes a Kubernetes quantity of bytes between 1k and 100M, such as "1514""#,
        ),
    ]);
}

#[test]
fn a_pod_that_asks_for_the_impossible_is_told_so() {
    let calico = |what: &str, value: &str| {
        annotated(json!({format!("qos.projectcalico.org/egress{what}"): value}), json!({}))
    };
    let with_rate = |what: &str, value: &str| {
        annotated(
            json!({format!("qos.projectcalico.org/egress{what}"): value}),
            json!({"defaults": {"egressRate": "10M"}}),
        )
    };
    expect_refused([
        (
            calico("Burst", "80k"),
            "annotation qos.projectcalico.org/egressBurst: there is no egress rate for it to go with; set the annotation kubernetes.io/egress-bandwidth too, or take this one away",
        ),
        (
            calico("Peakrate", "80k"),
            "annotation qos.projectcalico.org/egressPeakrate: there is no egress rate for it to go with; set the annotation kubernetes.io/egress-bandwidth too, or take this one away",
        ),
        (
            calico("Minburst", "2k"),
            "annotation qos.projectcalico.org/egressMinburst: there is no egress rate for it to go with; set the annotation kubernetes.io/egress-bandwidth too, or take this one away",
        ),
        (
            with_rate("Minburst", "2k"),
            "annotation qos.projectcalico.org/egressMinburst: a minburst is the bucket of a peak rate, and there is none; set the annotation qos.projectcalico.org/egressPeakrate too, or take this one away",
        ),
        (
            with_rate("Peakrate", "10M"),
            "annotation qos.projectcalico.org/egressPeakrate: a peak rate of 10 Mbit/s is not above the rate of 10 Mbit/s (defaults.egressRate); it takes at least one byte per second (8 bit/s) more than the rate",
        ),
        (
            with_rate("Peakrate", "9M"),
            "annotation qos.projectcalico.org/egressPeakrate: a peak rate of 9 Mbit/s is not above the rate of 10 Mbit/s (defaults.egressRate); it takes at least one byte per second (8 bit/s) more than the rate",
        ),
        // Above in bits, equal in the bytes that the kernel compares.
        (
            with_rate("Peakrate", "10000007"),
            "annotation qos.projectcalico.org/egressPeakrate: a peak rate of 10.000007 Mbit/s is not above the rate of 10 Mbit/s (defaults.egressRate); it takes at least one byte per second (8 bit/s) more than the rate",
        ),
    ]);
    let one_byte_more = with_rate("Peakrate", "10000008");
    assert_eq!(read(&one_byte_more).unwrap().egress, Some(peak(rate(10_000_000), 10_000_008)));
    // A contradiction stays one where the maximum would cut it away.
    let mut cut = with_rate("Peakrate", "9M");
    cut["maximum"] = json!({"egressRate": "5M"});
    assert!(matches!(read(&cut), Err(PolicyError::PeakNotAboveRate { .. })));
}

#[test]
fn a_text_that_is_no_quantity_is_told_with_its_annotation() {
    let pod =
        |value: Value| annotated(json!({"kubernetes.io/ingress-bandwidth": value}), json!({}));
    expect_refused([
        (
            pod(json!("10Q")),
            r#"annotation kubernetes.io/ingress-bandwidth: "10Q" is not a quantity: unknown suffix "Q"; it takes a Kubernetes quantity of bits per second between 1k and 1P, such as "10M""#,
        ),
        (
            pod(json!("")),
            r#"annotation kubernetes.io/ingress-bandwidth: "" is not a quantity: it is empty; it takes a Kubernetes quantity of bits per second between 1k and 1P, such as "10M""#,
        ),
        (
            pod(json!("10m")),
            r#"annotation kubernetes.io/ingress-bandwidth: "10m" is less than 1k bits per second ("m" is milli, "M" is mega); it takes a Kubernetes quantity of bits per second between 1k and 1P, such as "10M""#,
        ),
        (
            pod(json!("\u{1b}[31m\n")),
            r#"annotation kubernetes.io/ingress-bandwidth: "\u{1b}[31m\n" is not a quantity: it does not start with a number; it takes a Kubernetes quantity of bits per second between 1k and 1P, such as "10M""#,
        ),
        (
            pod(json!(10_000_000)),
            r#"annotation kubernetes.io/ingress-bandwidth: got the number 10000000; it takes a string: a Kubernetes quantity of bits per second between 1k and 1P, such as "10M""#,
        ),
        (
            pod(json!(null)),
            r#"annotation kubernetes.io/ingress-bandwidth: got null; it takes a string: a Kubernetes quantity of bits per second between 1k and 1P, such as "10M""#,
        ),
        // A weaker source's annotation that is wrong is told, too.
        (
            annotated(
                json!({"kubernetes.io/ingress-bandwidth": "x", "qos.projectcalico.org/ingressBandwidth": "1M"}),
                json!({}),
            ),
            r#"annotation kubernetes.io/ingress-bandwidth: "x" is not a quantity: it does not start with a number; it takes a Kubernetes quantity of bits per second between 1k and 1P, such as "10M""#,
        ),
    ]);
    // A megabyte of text makes a short message, whatever its letters are.
    for letter in ["9", "\n", "\u{1f600}", "\u{202e}"] {
        let message = read(&pod(json!(letter.repeat(1 << 20)))).unwrap_err().to_string();
        assert!(message.chars().count() < 300, "{message}");
    }
}

#[test]
fn a_wrong_type_is_told_with_its_path() {
    expect_refused([
        (json!({"runtimeConfig": 5}), "runtimeConfig: got the number 5; it takes an object"),
        (
            json!({"runtimeConfig": {"bandwidth": []}}),
            "runtimeConfig.bandwidth: got an array; it takes an object",
        ),
        (
            json!({"RuntimeConfig": {"Bandwidth": "x"}}),
            r#"RuntimeConfig.Bandwidth: got the string "x"; it takes an object"#,
        ),
        (
            json!({"runtimeConfig": {ANNOTATIONS: "a=b"}}),
            r#"runtimeConfig.io.kubernetes.cri.pod-annotations: got the string "a=b"; it takes an object"#,
        ),
        (json!({"defaults": true}), "defaults: got the boolean true; it takes an object"),
        (json!({"maximum": "1G"}), r#"maximum: got the string "1G"; it takes an object"#),
        (
            json!({"runtimeConfig": {"bandwidth": {"IngressRate": "10M"}}}),
            r#"runtimeConfig.bandwidth.IngressRate: got the string "10M"; it takes an integer of bits per second between 1000 and 1000000000000000, or 0 for not given"#,
        ),
        (
            json!({"ingressRate": -1}),
            "ingressRate: got the number -1; it takes an integer of bits per second between 1000 and 1000000000000000, or 0 for not given",
        ),
        (
            json!({"egressBurst": 1000.0}),
            "egressBurst: got the number 1000.0; it takes an integer of bits between 1000 and 34359738360, or 0 for not given",
        ),
        (
            json!({"egressBurst": 34_359_738_361_u64}),
            "egressBurst: 34359738361 is more than 34359738360 bits; it takes an integer of bits between 1000 and 34359738360, or 0 for not given",
        ),
        (
            json!({"defaults": {"egressRate": 1e6}}),
            r#"defaults.egressRate: got the number 1000000.0; it takes an integer or a Kubernetes quantity of bits per second between 1k and 1P, such as "10M", or 0 for not given"#,
        ),
        (
            json!({"maximum": {"EgressBurst": "1Q"}}),
            r#"maximum.EgressBurst: "1Q" is not a quantity: unknown suffix "Q"; it takes an integer or a Kubernetes quantity of bits between 1k and 34359738360, such as "400k", or 0 for not given"#,
        ),
        (
            json!({"maximum": {"egressRate": "-0.5"}}),
            r#"maximum.egressRate: "-0.5" is less than 1k bits per second; it takes an integer or a Kubernetes quantity of bits per second between 1k and 1P, such as "10M", or 0 for not given"#,
        ),
    ]);
    // What is not ours is not looked at.
    expect_ingress([
        (
            json!({"defaults": {"ingressrate2": "x", "latency": {}}, "ingress": [], "bandwidth": 5}),
            None,
        ),
        (annotated(json!({"example.com/other": 5, "kubernetes.io/ingress": []}), json!({})), None),
        (
            json!({"runtimeConfig": null, "defaults": null, "maximum": null, "ingressRate": null}),
            None,
        ),
    ]);
}
