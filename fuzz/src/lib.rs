//! What several targets check: rules that hold for every input, whatever it is.
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use pod_bandwidth::cni::CniError;
use pod_bandwidth::policy::{Limit, Limits, LogSettings, PolicyError, Settings};
use pod_bandwidth::shaping::placement::{Buckets, Way};
use pod_bandwidth::shaping::plan::plan;
use pod_bandwidth::shaping::{Attachment, Bucket, Observed, Shape, Side, Site, describe};
use serde_json::{Map, Value, json};

/// Characters of a message that a person still reads. Whatever is repeated of an input is cut.
const MESSAGE_MAX: usize = 1_000;

/// A message for people: short, and nothing in it that a terminal or a log would act on.
pub fn check_message(message: &str) {
    let length = message.chars().count();
    assert!(length <= MESSAGE_MAX, "{length} characters: {}", &message[..200]);
    assert!(!message.chars().any(char::is_control), "control characters: {message:?}");
}

/// An error for the runtime, as JSON too.
pub fn check_error(error: &CniError) {
    check_message(&error.to_string());
    let json: Value = serde_json::from_str(&error.to_json("1.1.0")).expect("an error is JSON");
    assert_eq!(json["code"], json!(error.code as u16));
    assert_eq!(json["msg"], json!(error.message));
}

/// Reads settings and limits of a configuration and checks what must hold for every one of them.
pub fn check_policy(config: &Map<String, Value>) {
    let settings = checked(Settings::read(config));
    if let Some(settings) = &settings {
        check_settings(settings);
    }
    let limits = checked(Limits::read(config));
    let latency_ms = settings.unwrap_or_default().latency_ms;
    if let Some(limits) = limits {
        check_limits(config, &limits);
        check_shapes(&limits, latency_ms);
    }
}

fn checked<T>(result: Result<T, PolicyError>) -> Option<T> {
    result.inspect_err(|error| check_message(&error.to_string())).ok()
}

fn check_settings(settings: &Settings) {
    assert!((1..=10_000).contains(&settings.latency_ms), "{settings:?}");
    let prefixes = &settings.placement_by_prefix;
    assert!(prefixes.is_sorted_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len())));
    assert!(prefixes.iter().all(|(prefix, _)| !prefix.is_empty()));
    let LogSettings { file, .. } = &settings.log;
    assert!(file.as_ref().is_none_or(|file| file.is_absolute()));
}

fn check_limits(config: &Map<String, Value>, limits: &Limits) {
    // The maximum alone is the limit of a pod that asks for nothing.
    let maximum: Map<_, _> = config
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case("maximum"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let maximum = Limits::read(&maximum).expect("it was read before, with the rest");
    for (limit, most) in [(limits.ingress, maximum.ingress), (limits.egress, maximum.egress)] {
        assert!(most.is_none() || limit.is_some(), "a maximum is a limit for everybody");
        if let Some(limit) = limit {
            check_limit(&limit, most.as_ref());
        }
    }
    let mut more = config.clone();
    more.insert("a key that nobody knows".into(), json!({"ingressRate": "x"}));
    assert_eq!(Limits::read(&more).as_ref(), Ok(limits), "unknown keys are ignored");
}

fn check_limit(limit: &Limit, most: Option<&Limit>) {
    let rates = 1_000..=1_000_000_000_000_000;
    assert!(rates.contains(&limit.rate.0), "{limit:?}");
    assert!(most.is_none_or(|most| limit.rate <= most.rate), "{limit:?} {most:?}");
    let bursts = 1_000..=34_359_738_360;
    assert!(limit.max_burst.is_none_or(|burst| bursts.contains(&burst.0)), "{limit:?}");
    if let Some(burst) = limit.burst {
        assert!(bursts.contains(&burst.0), "{limit:?}");
        assert!(limit.max_burst.is_none_or(|most| burst <= most), "{limit:?}");
    }
    if let Some(peak) = limit.peak_rate {
        assert!(peak.whole_bytes() > limit.rate.whole_bytes(), "{limit:?}");
        assert!(most.is_none_or(|most| peak <= most.rate), "{limit:?} {most:?}");
        assert!(peak.0 <= 1_010_000_000_000_000, "{limit:?}");
    }
    if let Some(bytes) = limit.min_burst {
        assert!(limit.peak_rate.is_some(), "{limit:?}");
        assert!((1_000..=100_000_000).contains(&bytes.0), "{limit:?}");
    }
}

/// Every way on every usual interface: either a burst that cannot be held, or a plan.
fn check_shapes(limits: &Limits, latency_ms: u32) {
    for mtu in [68, 1_500, 9_000, 65_535] {
        let bucket = |limit: Option<Limit>| {
            limit.as_ref().map(|limit| Bucket::new(limit, mtu, latency_ms)).transpose()
        };
        let (ingress, egress) = match (bucket(limits.ingress), bucket(limits.egress)) {
            (Ok(ingress), Ok(egress)) => (ingress, egress),
            (Err(error), _) | (_, Err(error)) => {
                check_message(&error.to_string());
                continue;
            }
        };
        for way in Way::ALL {
            check_plan(way.side(), &way.shape(&Buckets { ingress, egress }));
        }
    }
}

/// On a fresh interface there is a plan for every shape, and words for each of its steps.
fn check_plan(side: Side, shape: &Shape) {
    let site = site(side, "veth0");
    let batches = plan(&site, shape, &Observed::default()).expect("nothing is in the way");
    assert_eq!(batches.is_empty(), *shape == Shape::default());
    for step in batches.iter().flatten() {
        check_message(&describe::doing(&site, step));
    }
    let findings = describe::findings(&site, &batches, [true; 2]);
    for finding in findings.broken.iter().chain(&findings.untidy) {
        check_message(finding);
    }
}

/// A site of an attachment. Its names are hashed once: most of an input's time would go there.
pub fn site(side: Side, device: &str) -> Site {
    static SITES: LazyLock<[Site; 2]> = LazyLock::new(|| {
        let attachment = Attachment {
            network: "net".into(),
            container_id: "c1".into(),
            ifname: "eth0".into(),
            pod: Some("default/web".into()),
        };
        [Side::Host, Side::Pod].map(|side| Site::new(side, "veth0", &attachment))
    });
    let [host, pod] = &*SITES;
    let site = if side == Side::Host { host } else { pod };
    Site { device: device.into(), ..site.clone() }
}
