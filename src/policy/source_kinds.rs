//! Which kinds of sources for limits an entry of a list has.
//!
//! Two entries of pod-bandwidth in one list call for the same attachment. This is how the second one
//! knows that limits are the first one's.

use serde_json::{Map, Value};

use super::direction::Direction;
use super::json::lookup;
use super::sources::ANNOTATIONS;

/// A set: the pod itself (a capability), and static numbers for either direction. With it a hash of the
/// entry's subnet lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceKinds {
    kinds: u8,
    /// 0 if there are none.
    subnets: u8,
}

/// What each bit stands for, in the words of the entry's keys.
const WORDS: [(u8, &str); 3] = [(POD, "capabilities"), (2, "ingressRate"), (4, "egressRate")];

const POD: u8 = 1;

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
        let kinds = WORDS.iter().zip(has).filter(|(_, has)| *has);
        Self { kinds: kinds.map(|((bit, _), _)| bit).sum(), subnets: subnets(config) }
    }

    /// The kinds as the kernel keeps them. 0 means no source, or that an earlier build recorded none.
    pub fn bits(self) -> u8 {
        self.kinds
    }

    /// The two bytes of a cookie.
    pub fn to_bytes(self) -> [u8; 2] {
        [self.kinds, self.subnets]
    }

    /// The set in two bytes of a cookie.
    pub fn of_bytes([kinds, subnets]: [u8; 2]) -> Self {
        Self { subnets, ..Self::of_bits(kinds) }
    }

    /// The set that the kernel keeps as these bits, for an entry without subnet lists.
    pub fn of_bits(bits: u8) -> Self {
        Self { kinds: bits & ((1 << Self::BITS) - 1), subnets: 0 }
    }

    /// Whether limits from these sources cannot be those of an entry with `own` sources. An entry that
    /// was edited since keeps at least one of its sources, and static limits keep a number (`has_a_rate_of_it`)
    /// or the subnets that they are for.
    pub fn are_of_another_entry(self, own: Self, has_a_rate_of_it: bool) -> bool {
        let is_static = (self.kinds | own.kinds) & POD == 0;
        let shares_nothing = self.kinds & own.kinds == 0;
        let differs = is_static && self.subnets != own.subnets && !has_a_rate_of_it;
        self.kinds != 0 && (shares_nothing || differs)
    }
}

/// A hash (FNV-1a) of the subnet lists, 1 to 255; 0 if there are none.
fn subnets(config: &Map<String, Value>) -> u8 {
    let lists = ["unshapedSubnets", "shapedSubnets"].into_iter();
    let lists: Vec<String> =
        lists.filter_map(|key| lookup(config, key).map(|list| format!("{key}{list}"))).collect();
    let step = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    match lists.as_slice() {
        [] => 0,
        lists => (lists.concat().bytes().fold(0x811c_9dc5, step) % 255) as u8 + 1,
    }
}

impl std::fmt::Display for SourceKinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<&str> =
            WORDS.iter().filter(|(bit, _)| self.kinds & bit != 0).map(|(_, word)| *word).collect();
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
            assert_eq!(seen.are_of_another_entry(own, false), expected, "{seen} beside {own}");
        }
    }

    /// "10M to the internet, 100M inside", as two entries with static rates.
    #[test]
    fn static_limits_for_other_subnets_with_other_numbers_are_another_entrys() {
        let inside = json!(["10.0.0.0/8"]);
        let outer = of(json!({"ingressRate": 1, "unshapedSubnets": inside}));
        let inner = of(json!({"ingressRate": 2, "shapedSubnets": inside}));
        let all = of(json!({"ingressRate": 1}));
        assert_eq!(SourceKinds::of_bytes(outer.to_bytes()), outer);
        for (seen, own) in [(outer, inner), (inner, outer), (all, inner)] {
            assert!(seen.are_of_another_entry(own, false));
            // An edited list of one entry.
            assert!(!seen.are_of_another_entry(own, true));
        }
        assert!(!outer.are_of_another_entry(outer, false));
        // Annotations bring the numbers, so they say nothing about the entry.
        let pod =
            |subnets| of(json!({"runtimeConfig": {"bandwidth": {}}, "shapedSubnets": subnets}));
        assert!(!pod(json!(["10.0.0.0/8"])).are_of_another_entry(pod(json!(["fd00::/8"])), false));
    }
}
