//! The whole state of some namespaces as `ip` and `tc` print it, to say that nothing changed.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Ns, witness::items};

/// Links, addresses, qdiscs and filters of namespaces, without counters and ages.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot(BTreeMap<String, Value>);

/// What differs between two looks at an untouched kernel: the age of an action, and what the
/// kernel finds out about a link by itself some time after it was set up (linkwatch). And the number
/// of an action, which is another one when it is made again.
const VOLATILE: [&str; 6] =
    ["installed", "last_used", "firstused", "expires", "operstate", "index"];
const VOLATILE_FLAGS: [&str; 2] = ["NO-CARRIER", "LOWER_UP"];

impl Snapshot {
    /// Looks at all devices of each of `namespaces`.
    pub fn of(namespaces: &[&Ns]) -> Self {
        let mut all = BTreeMap::new();
        for ns in namespaces {
            let mut keep = |what: &str, of: &Value, value: Value| {
                let name = of.as_str().unwrap_or_default();
                all.insert(format!("{} / {name} / {what}", ns.label), without_volatile(value));
            };
            for link in ns.links() {
                let name = link["ifname"].clone();
                keep("link", &name, link);
            }
            for address in items(ns.json(&["ip", "-d", "-j", "addr", "show"])) {
                keep("addresses", &address["ifname"], address["addr_info"].clone());
            }
            let mut hooked = Vec::new();
            let mut qdiscs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
            for qdisc in items(ns.json(&["tc", "-r", "-d", "-j", "qdisc", "show"])) {
                let dev = qdisc["dev"].as_str().unwrap_or_default().to_owned();
                if qdisc["kind"] == "ingress" || qdisc["kind"] == "clsact" {
                    hooked.push(dev.clone());
                }
                qdiscs.entry(dev).or_default().push(qdisc);
            }
            for (dev, qdiscs) in qdiscs {
                keep("qdiscs", &Value::from(dev), Value::Array(qdiscs));
            }
            for dev in hooked {
                for hook in ["ingress", "egress"] {
                    let argv = ["tc", "-d", "-j", "filter", "show", "dev", &dev, hook];
                    let mut filters = items(ns.json(&argv));
                    // How a hook was last asked for is how the kernel prints it from then on.
                    for filter in filters.iter_mut().filter_map(Value::as_object_mut) {
                        filter.retain(|key, _| {
                            !["parent", "ingress", "egress"].contains(&key.as_str())
                        });
                    }
                    keep(&format!("{hook} filters"), &Value::from(dev.as_str()), filters.into());
                }
            }
        }
        Self(all)
    }

    /// Fails and says where, unless `self` and `after` are the same.
    pub fn assert_same(&self, after: &Self, when: &str) {
        let mut changes = String::new();
        for key in self.0.keys().chain(after.0.keys().filter(|key| !self.0.contains_key(*key))) {
            let (before, after) = (self.0.get(key), after.0.get(key));
            if before != after {
                let show = |value: Option<&Value>| value.map_or("-".to_owned(), Value::to_string);
                changes += &format!("{key}\n  was {}\n  is  {}\n", show(before), show(after));
            }
        }
        assert!(changes.is_empty(), "{when}: the state of the kernel changed:\n{changes}");
    }

    /// The state without the entries whose key (`namespace / device / what`) has `word` in it.
    pub fn without(mut self, word: &str) -> Self {
        self.0.retain(|key, _| !key.contains(word));
        self
    }
}

fn without_volatile(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.retain(|key, _| !VOLATILE.contains(&key.as_str()));
            for inner in map.values_mut() {
                *inner = without_volatile(inner.take());
            }
        }
        Value::Array(values) => {
            values.retain(|value| !VOLATILE_FLAGS.iter().any(|flag| value == flag));
            for inner in values {
                *inner = without_volatile(inner.take());
            }
        }
        _ => {}
    }
    value
}
