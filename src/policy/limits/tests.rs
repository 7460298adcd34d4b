//! The sources, how they go together, and the node's maximum. What is refused is in refused.rs.

mod refused;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

fn read(config: &Value) -> Result<Limits, PolicyError> {
    let Value::Object(map) = config else { panic!("not an object: {config}") };
    Limits::read(map)
}

/// A configuration with these annotations and, beside them, these keys.
fn annotated(annotations: Value, mut keys: Value) -> Value {
    keys["runtimeConfig"][ANNOTATIONS] = annotations;
    keys
}

fn rate(rate: u64) -> Limit {
    let rate = BitsPerSecond(rate);
    Limit { rate, burst: None, max_burst: None, peak_rate: None, min_burst: None }
}

fn burst(limit: Limit, burst: u64) -> Limit {
    Limit { burst: Some(Bits(burst)), ..limit }
}

fn max_burst(limit: Limit, burst: u64) -> Limit {
    Limit { max_burst: Some(Bits(burst)), ..limit }
}

fn peak(limit: Limit, peak: u64) -> Limit {
    Limit { peak_rate: Some(BitsPerSecond(peak)), ..limit }
}

fn min_burst(limit: Limit, min_burst: u64) -> Limit {
    Limit { min_burst: Some(Bytes(min_burst)), ..limit }
}

/// Reads every configuration and compares the direction to the pod; the other must be unlimited.
fn expect_ingress(cases: impl IntoIterator<Item = (Value, Option<Limit>)>) {
    for (config, ingress) in cases {
        assert_eq!(read(&config), Ok(Limits { ingress, egress: None }), "{config}");
    }
}

/// What containerd 1.6.20 and 2.4.2 send for a pod with 10M and 20M.
#[test]
fn containerd() {
    let mut config = json!({
        "capabilities": {"bandwidth": true, "io.kubernetes.cri.pod-annotations": true},
        "cniVersion": "1.1.0",
        "name": "testnet",
        "runtimeConfig": {
            "bandwidth": {
                "IngressRate": 10000000,
                "IngressBurst": 4294967295_u64,
                "EgressRate": 20000000,
                "EgressBurst": 4294967295_u64
            },
            "io.kubernetes.cri.pod-annotations": {
                "kubectl.kubernetes.io/last-applied-configuration":
                    "{\"metadata\":{\"annotations\":{\"kubernetes.io/egress-bandwidth\":\"20M\"}}}\n",
                "kubernetes.io/config.seen": "2026-11-23T12:35:35.111321915Z",
                "kubernetes.io/config.source": "api",
                "kubernetes.io/egress-bandwidth": "20M",
                "kubernetes.io/ingress-bandwidth": "10M"
            }
        },
        "type": "pod-bandwidth"
    });
    let limits = Limits { ingress: Some(rate(10_000_000)), egress: Some(rate(20_000_000)) };
    assert_eq!(read(&config), Ok(limits));
    // The same by either channel alone.
    let runtime = config["runtimeConfig"].take();
    for key in ["bandwidth", ANNOTATIONS] {
        config["runtimeConfig"] = json!({key: runtime[key]});
        assert_eq!(read(&config), Ok(limits), "{key}");
    }
    // STATUS and a pod without annotations bring no runtimeConfig.
    config["runtimeConfig"].take();
    assert!(read(&config).unwrap().is_empty());
}

#[test]
fn the_other_runtimes() {
    for (egress_rate, no_limit) in [(0, 34_359_738_359_u64), (0, 2_147_483_647)] {
        // CRI-O, cri-dockerd; a direction that is not set is 0.
        let config = json!({"runtimeConfig": {"bandwidth": {
            "ingressRate": 8_000_000, "ingressBurst": no_limit,
            "egressRate": egress_rate, "egressBurst": no_limit,
        }}});
        expect_ingress([(config, Some(rate(8_000_000)))]);
    }
}

#[test]
fn the_strongest_source_gives_the_rate() {
    // Given every source, when the strongest is taken away one by one, then the next one counts.
    let mut config = annotated(
        json!({"qos.projectcalico.org/ingressBandwidth": "1M",
               "kubernetes.io/ingress-bandwidth": "2M"}),
        json!({"runtimeConfig": {"bandwidth": {"ingressRate": 3_000_000}},
               "ingressRate": 4_000_000,
               "defaults": {"ingressRate": "5M"},
               "maximum": {"ingressRate": "6M"}}),
    );
    let ingress =
        |config: &Value| read(config).unwrap().ingress.map(|limit| limit.rate.0 / 1_000_000);
    assert_eq!(ingress(&config), Some(1));
    config["runtimeConfig"][ANNOTATIONS]["qos.projectcalico.org/ingressBandwidth"] = json!("7M");
    assert_eq!(ingress(&config), Some(6), "the maximum cuts the strongest, too");
    config["runtimeConfig"][ANNOTATIONS] = json!({"kubernetes.io/ingress-bandwidth": "2M", "qos.projectcalico.org/ingressbandwidth": "x"});
    assert_eq!(ingress(&config), Some(2), "annotations match exactly");
    config["runtimeConfig"][ANNOTATIONS] = json!(null);
    assert_eq!(ingress(&config), Some(3));
    config["runtimeConfig"]["bandwidth"]["ingressRate"] = json!(0);
    assert_eq!(ingress(&config), Some(4));
    config["ingressRate"] = json!(0);
    assert_eq!(ingress(&config), Some(5));
    config["defaults"]["ingressRate"] = json!(0);
    assert_eq!(ingress(&config), Some(6), "a pod without a rate gets the maximum");
    config["maximum"]["ingressRate"] = json!("0");
    assert_eq!(ingress(&config), None);
}

#[test]
fn the_merge_is_key_by_key() {
    let calico = |what: &str| format!("qos.projectcalico.org/ingress{what}");
    expect_ingress([
        // Calico's burst and peak go with a rate of Kubernetes, the runtime, a static key, a default.
        (
            annotated(
                json!({calico("Burst"): "80k", calico("Peakrate"): "20M", calico("Minburst"): "3k",
                       "kubernetes.io/ingress-bandwidth": "10M"}),
                json!({}),
            ),
            Some(min_burst(peak(burst(rate(10_000_000), 80_000), 20_000_000), 3_000)),
        ),
        (
            annotated(
                json!({calico("Burst"): "80k"}),
                json!({"runtimeConfig": {"bandwidth": {"IngressRate": 9_000, "IngressBurst": 70_000}}}),
            ),
            Some(burst(rate(9_000), 80_000)),
        ),
        (
            annotated(json!({calico("Peakrate"): "20M"}), json!({"IngressRate": 1_000_000})),
            Some(peak(rate(1_000_000), 20_000_000)),
        ),
        // The other way round: a rate of the pod with a burst of the node.
        (
            annotated(
                json!({calico("Bandwidth"): "10M"}),
                json!({"ingressBurst": 0, "defaults": {"ingressBurst": "1Mi"}}),
            ),
            Some(burst(rate(10_000_000), 1 << 20)),
        ),
        // A static burst is stronger than the default's.
        (
            json!({"ingressRate": 1000, "ingressBurst": 5000,
                   "defaults": {"ingressRate": 2000, "ingressBurst": 6000}}),
            Some(burst(rate(1_000), 5_000)),
        ),
        // A burst of the runtime or the node without a rate is no request.
        (json!({"runtimeConfig": {"bandwidth": {"ingressBurst": 5000}}}), None),
        (json!({"ingressBurst": 5000}), None),
        (json!({"defaults": {"ingressBurst": 5000}, "maximum": {"ingressBurst": 5000}}), None),
    ]);
}

#[test]
fn a_burst_that_means_no_limit_is_not_given() {
    for no_limit in [0, 2_147_483_647, 4_294_967_295, 34_359_738_359, 34_359_738_360_u64] {
        let text = no_limit.to_string();
        expect_ingress([
            (
                json!({"runtimeConfig": {"bandwidth": {"ingressRate": 1000, "ingressBurst": no_limit}},
                       "ingressBurst": no_limit,
                       "defaults": {"ingressBurst": no_limit}, "maximum": {"ingressBurst": text}}),
                Some(rate(1_000)),
            ),
            (
                json!({"runtimeConfig": {"bandwidth": {"ingressRate": 1000, "ingressBurst": no_limit}},
                       "defaults": {"ingressBurst": "7k"}}),
                Some(burst(rate(1_000), 7_000)),
            ),
        ]);
    }
    // In an annotation it is what it says.
    let config = annotated(
        json!({"kubernetes.io/ingress-bandwidth": "1k", "qos.projectcalico.org/ingressBurst": "4294967295"}),
        json!({}),
    );
    expect_ingress([(config, Some(burst(rate(1_000), 4_294_967_295)))]);
}

#[test]
fn the_maximum_cuts() {
    let pod = |keys: Value, maximum: Value| {
        let mut annotations = json!({});
        for (what, value) in keys.as_object().unwrap() {
            annotations[format!("qos.projectcalico.org/ingress{what}")] = value.clone();
        }
        annotated(annotations, json!({ "maximum": maximum }))
    };
    let most = |text: &str| json!({ "ingressRate": text });
    expect_ingress([
        (pod(json!({"Bandwidth": "10M"}), most("8M")), Some(rate(8_000_000))),
        (pod(json!({"Bandwidth": "8M"}), most("8M")), Some(rate(8_000_000))),
        (pod(json!({"Bandwidth": "7M"}), most("8M")), Some(rate(7_000_000))),
        (json!({"maximum": {"IngressRate": 8_000_000}}), Some(rate(8_000_000))),
        // A peak is cut to the maximum, and goes where it is then not above the rate.
        (
            pod(json!({"Bandwidth": "1M", "Peakrate": "9M"}), most("8M")),
            Some(peak(rate(1_000_000), 8_000_000)),
        ),
        (
            pod(json!({"Bandwidth": "1M", "Peakrate": "2M"}), most("8M")),
            Some(peak(rate(1_000_000), 2_000_000)),
        ),
        (
            pod(json!({"Bandwidth": "8M", "Peakrate": "9M", "Minburst": "2k"}), most("8M")),
            Some(rate(8_000_000)),
        ),
        (
            pod(json!({"Bandwidth": "7999999", "Peakrate": "9M"}), most("8000000")),
            Some(peak(rate(7_999_999), 8_000_000)),
        ),
        (pod(json!({"Bandwidth": "8M", "Peakrate": "9M"}), most("8000007")), Some(rate(8_000_000))),
        // The maximum is the rate of a pod that has none, so a burst has a rate to go with.
        (pod(json!({"Burst": "80k"}), most("8M")), Some(burst(rate(8_000_000), 80_000))),
        (pod(json!({"Peakrate": "7M", "Minburst": "2k"}), most("8M")), Some(rate(8_000_000))),
        // A burst is cut; the maximum stays for a burst that is derived later.
        (
            pod(json!({"Bandwidth": "1M", "Burst": "80k"}), json!({"ingressBurst": "50k"})),
            Some(max_burst(burst(rate(1_000_000), 50_000), 50_000)),
        ),
        (
            pod(json!({"Bandwidth": "1M", "Burst": "40k"}), json!({"ingressBurst": 50_000})),
            Some(max_burst(burst(rate(1_000_000), 40_000), 50_000)),
        ),
        (
            pod(json!({"Bandwidth": "1M"}), json!({"ingressBurst": "50k"})),
            Some(max_burst(rate(1_000_000), 50_000)),
        ),
    ]);
}

#[test]
fn the_two_directions_do_not_mix() {
    let config = annotated(
        json!({"kubernetes.io/ingress-bandwidth": "1M", "qos.projectcalico.org/egressBandwidth": "2M",
               "qos.projectcalico.org/egressBurst": "9k"}),
        json!({"defaults": {"ingressBurst": 7000}, "maximum": {"egressRate": "1500k"}}),
    );
    let (ingress, egress) = (burst(rate(1_000_000), 7_000), burst(rate(1_500_000), 9_000));
    assert_eq!(read(&config), Ok(Limits { ingress: Some(ingress), egress: Some(egress) }));
}

proptest! {
    /// Whatever a pod and a node write: what comes out keeps to the maximum, and the kernel's rules
    /// (a peak above the rate, no minburst without a peak) hold.
    #[test]
    fn what_comes_out_keeps_to_the_maximum(
        pod in proptest::option::of(1_000..20_000_u64),
        pod_burst in proptest::option::of(1_000..20_000_u64),
        pod_peak in proptest::option::of(1_010..30_000_u64),
        pod_min_burst in proptest::option::of(1_000..3_000_u64),
        default in proptest::option::of(1_000..20_000_u64),
        most in proptest::option::of(1_000..20_000_u64),
        most_burst in proptest::option::of(1_000..20_000_u64),
    ) {
        let mut annotations = json!({});
        for (what, number) in
            [("Bandwidth", pod), ("Burst", pod_burst), ("Peakrate", pod_peak), ("Minburst", pod_min_burst)]
        {
            if let Some(number) = number {
                annotations[format!("qos.projectcalico.org/ingress{what}")] = json!(number.to_string());
            }
        }
        let config = annotated(annotations, json!({
            "defaults": {"ingressRate": default},
            "maximum": {"ingressRate": most, "ingressBurst": most_burst},
        }));
        let wanted = pod.or(default);
        let Ok(limits) = read(&config) else {
            // Refused only for one of the three reasons.
            let no_rate = wanted.or(most).is_none();
            let no_peak = pod_min_burst.is_some() && pod_peak.is_none();
            let low_peak = pod_peak.zip(wanted).is_some_and(|(peak, rate)| peak / 8 <= rate / 8);
            prop_assert!(no_rate || no_peak || low_peak);
            return Ok(());
        };
        let expected = [wanted, most].into_iter().flatten().min();
        prop_assert_eq!(limits.ingress.map(|limit| limit.rate.0), expected);
        if let Some(limit) = limits.ingress {
            prop_assert_eq!(limit.max_burst.map(|burst| burst.0), most_burst);
            let cut = pod_burst.map(|burst| burst.min(most_burst.unwrap_or(burst)));
            prop_assert_eq!(limit.burst.map(|burst| burst.0), cut);
            if let Some(peak) = limit.peak_rate {
                prop_assert!(peak.0 / 8 > limit.rate.0 / 8 && peak.0 <= most.unwrap_or(u64::MAX));
            }
            prop_assert!(limit.min_burst.is_none() || limit.peak_rate.is_some());
        }
    }
}
