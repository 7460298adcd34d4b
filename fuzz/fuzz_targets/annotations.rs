//! Annotations and the other sources of limits: one line of the input is one key and its value, so
//! that the fuzzer spends its time on the values and on how they go together, not on JSON.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use pod_bandwidth_fuzz::check_policy;
use serde_json::{Map, Value, json};

/// The first character of a line names the source and the direction…
const SOURCES: [(u8, &[&str]); 7] = [
    (b'c', &["runtimeConfig", ANNOTATIONS, "qos.projectcalico.org/"]),
    (b'k', &["runtimeConfig", ANNOTATIONS, "kubernetes.io/"]),
    (b'r', &["runtimeConfig", "bandwidth"]),
    (b's', &[]),
    (b'd', &["defaults"]),
    (b'm', &["maximum"]),
    (b'R', &["runtimeConfig", "Bandwidth"]),
];
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    let mut config = json!({});
    for line in text.lines().take(40) {
        if put(&mut config, line).is_none() {
            return Corpus::Reject;
        }
    }
    let Value::Object(config) = config else { return Corpus::Reject };
    check_policy(&config);
    Corpus::Keep
});

/// `<source><i or e><key><value>`, such as `kir10M`: Kubernetes' annotation of the ingress rate.
fn put(config: &mut Value, line: &str) -> Option<()> {
    let (head, value) = line.split_at_checked(3)?;
    let [source, direction, key] = head.as_bytes().try_into().ok()?;
    let (_, path) = SOURCES.iter().find(|(letter, _)| *letter == source)?;
    let direction = match direction {
        b'i' => "ingress",
        b'e' => "egress",
        b'I' => "Ingress",
        _ => return None,
    };
    let name = match (source, key) {
        (b'c', b'r') => format!("{direction}Bandwidth"),
        (b'c', b'b') => format!("{direction}Burst"),
        (b'c', b'p') => format!("{direction}Peakrate"),
        (b'c', b'm') => format!("{direction}Minburst"),
        (b'k', b'r') => format!("{direction}-bandwidth"),
        (_, b'r') => format!("{direction}Rate"),
        (_, b'b') => format!("{direction}Burst"),
        _ => return None,
    };
    // Annotations are texts. The others take what JSON calls it: 10 is a number, 10M a text.
    let value = match source {
        b'c' | b'k' => json!(value),
        _ => serde_json::from_str(value).unwrap_or_else(|_| json!(value)),
    };
    let (path, prefix) = match source {
        b'c' | b'k' => (&path[..2], path[2]),
        _ => (*path, ""),
    };
    let mut object = config;
    for key in path {
        object = object.as_object_mut()?.entry(*key).or_insert(Value::Object(Map::new()));
    }
    object.as_object_mut()?.insert(format!("{prefix}{name}"), value);
    Some(())
}
