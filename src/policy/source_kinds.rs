//! Which kinds of sources for limits an entry of a list has.
//!
//! Two entries of pod-bandwidth in one list call for the same attachment. This is how the second one
//! knows that limits are the first one's.

use serde_json::{Map, Value};

use super::direction::Direction;
use super::json::lookup;
use super::sources::ANNOTATIONS;

/// A set: the pod itself (a capability), and static numbers for either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceKinds(u8);

/// What each bit stands for, in the words of the entry's keys.
const WORDS: [(u8, &str); 3] = [(1, "capabilities"), (2, "ingressRate"), (4, "egressRate")];

impl SourceKinds {
    /// Bits that a set takes.
    pub const BITS: u32 = 3;

    /// The sources that an entry has (its network configuration without prevResult).
    pub fn of_entry(config: &Map<String, Value>) -> Self {
        let part = |object: &str| lookup(config, object).and_then(Value::as_object);
        let declares = |object: &str, key| {
            let value = part(object).and_then(|object| object.get(key));
            value.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)))
        };
        let from_pod = ["capabilities", "runtimeConfig"]
            .into_iter()
            .any(|object| declares(object, "bandwidth") || declares(object, ANNOTATIONS));
        let is_static = |direction: Direction| {
            let key = format!("{direction}Rate");
            let objects = [Some(config), part("defaults"), part("maximum")];
            objects.into_iter().flatten().any(|object| lookup(object, &key).is_some())
        };
        let has = [from_pod, is_static(Direction::Ingress), is_static(Direction::Egress)];
        let bits = WORDS.iter().zip(has).filter(|(_, has)| *has);
        Self(bits.map(|((bit, _), _)| bit).sum())
    }

    /// As the kernel keeps it. 0 means no source, or that an earlier build recorded none.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set that the kernel keeps as these bits.
    pub fn of_bits(bits: u8) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// Whether limits from these sources cannot be those of an entry with `own` sources. An entry that
    /// was edited since keeps at least one of its sources.
    pub fn are_of_another_entry(self, own: Self) -> bool {
        self.0 != 0 && self.0 & own.0 == 0
    }
}

impl std::fmt::Display for SourceKinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<&str> =
            WORDS.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, word)| *word).collect();
        f.write_str(&words.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(entry: Value) -> SourceKinds {
        SourceKinds::of_entry(entry.as_object().unwrap())
    }

    #[test]
    fn an_entrys_sources_are_read_from_its_keys() {
        for (entry, words) in [
            (json!({}), ""),
            (json!({"capabilities": {"bandwidth": false}}), ""),
            (json!({"capabilities": {"bandwidth": true}}), "capabilities"),
            (json!({"capabilities": {ANNOTATIONS: true}}), "capabilities"),
            (json!({"runtimeConfig": {"bandwidth": {}}}), "capabilities"),
            (json!({"ingressRate": 1}), "ingressRate"),
            (json!({"EgressRate": 1}), "egressRate"),
            (json!({"defaults": {"egressRate": "1M"}}), "egressRate"),
            (
                json!({"maximum": {"ingressRate": "1M"}, "capabilities": {"bandwidth": true}}),
                "capabilities and ingressRate",
            ),
        ] {
            assert_eq!(of(entry.clone()).to_string(), words, "{entry}");
            assert_eq!(SourceKinds::of_bits(of(entry.clone()).bits()), of(entry));
        }
    }

    #[test]
    fn limits_of_an_entry_that_shares_no_source_are_another_ones() {
        let (pod, ingress) =
            (of(json!({"runtimeConfig": {"bandwidth": {}}})), of(json!({"ingressRate": 1})));
        let both = of(json!({"ingressRate": 1, "egressRate": 1}));
        for (seen, own, expected) in [
            (pod, ingress, true),
            (ingress, pod, true),
            (ingress, both, false),
            (both, ingress, false),
            (pod, SourceKinds::default(), true),
            // An earlier build recorded nothing, so nothing says that it is another's.
            (SourceKinds::default(), pod, false),
        ] {
            assert_eq!(seen.are_of_another_entry(own), expected, "{seen} beside {own}");
        }
    }
}
