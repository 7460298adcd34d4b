//! JSON objects with their place: every value that is read knows the path of its key.
//!
//! Knows Go's way to match keys and how to say what was found instead. Nothing about limits.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::error::{PolicyError, excerpt};

/// Finds a key as Go's encoding/json does: the exact key first, else one that differs only in the
/// case of ASCII letters. `null` counts as absent, because Go leaves the field alone then.
///
/// containerd writes `IngressRate` where CRI-O writes `ingressRate`; the reference plugin reads
/// both. Where several spellings are there and none is exact, the first in the map's order counts.
pub fn lookup<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    lookup_entry(map, key).map(|(_, value)| value)
}

fn lookup_entry<'a>(map: &'a Map<String, Value>, key: &str) -> Option<(&'a str, &'a Value)> {
    let given = |entry: &(&'a String, &'a Value)| !entry.1.is_null();
    let exact = map.get_key_value(key).filter(given);
    let alike = || map.iter().filter(given).find(|(name, _)| name.eq_ignore_ascii_case(key));
    exact.or_else(alike).map(|(name, value)| (name.as_str(), value))
}

/// A value and the place where it was written.
#[derive(Clone)]
pub(super) struct Entry<'a> {
    pub(super) key: String,
    pub(super) value: &'a Value,
}

impl<'a> Entry<'a> {
    /// The error that this value is not what the key takes.
    pub(super) fn wrong(&self, takes: impl Into<String>) -> PolicyError {
        let got = match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Number(number) => format!("the number {number}"),
            Value::String(text) => format!("the string {}", excerpt(text)),
            Value::Array(_) => "an array".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        PolicyError::WrongValue { key: self.key.clone(), got, takes: takes.into() }
    }

    /// The text, or an error that says what is taken.
    pub(super) fn text(&self, takes: &str) -> Result<&'a str, PolicyError> {
        self.value.as_str().ok_or_else(|| self.wrong(takes))
    }

    /// One of the words that the key knows, exactly as written.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, PolicyError> {
        let found =
            self.value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.wrong(format!("one of {}", words.join(", ")))
        })
    }

    /// An absolute path.
    pub(super) fn path(&self) -> Result<PathBuf, PolicyError> {
        const TAKES: &str = "an absolute path such as \"/var/log/pod-bandwidth.log\"";
        let text = self.text(TAKES)?;
        // A path with NUL can be written in JSON and never opened.
        if !text.starts_with('/') || text.contains('\0') {
            return Err(self.wrong(TAKES));
        }
        Ok(PathBuf::from(text))
    }
}

/// A JSON object and the path that leads to it.
#[derive(Clone)]
pub(super) struct Object<'a> {
    /// Empty for the network configuration itself.
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The network configuration.
    pub(super) fn root(map: &'a Map<String, Value>) -> Self {
        Object { path: String::new(), map }
    }

    /// The value of a key, found as [`lookup`] does.
    pub(super) fn entry(&self, key: &str) -> Option<Entry<'a>> {
        let (name, value) = lookup_entry(self.map, key)?;
        Some(self.at(name, value))
    }

    /// The value of a key spelled exactly so, `null` included: the keys of Go's `map[string]string`.
    pub(super) fn exact(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    /// The object under a key; an error if something else is there.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object<'a>>, PolicyError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match entry.value {
            Value::Object(map) => Ok(Some(Object { path: entry.key, map })),
            _ => Err(entry.wrong("an object")),
        }
    }

    /// All values but `null`, with the name of each.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Entry<'a>)> {
        let given = self.map.iter().filter(|(_, value)| !value.is_null());
        given.map(|(name, value)| (name.as_str(), self.at(&escaped(name), value)))
    }

    fn at(&self, name: &str, value: &'a Value) -> Entry<'a> {
        let key = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        Entry { key, value }
    }
}

/// A name that somebody chose: as it is where it is short and plain, else an excerpt.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    if !name.is_empty() && name.len() <= 15 && name.bytes().all(plain) {
        name.to_owned()
    } else {
        excerpt(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_found_as_go_finds_them() {
        for (object, found) in [
            (json!({"ingressRate": 1}), Some(json!(1))),
            (json!({"IngressRate": 2}), Some(json!(2))),
            (json!({"INGRESSRATE": 3}), Some(json!(3))),
            // The exact key wins, wherever it stands.
            (json!({"IngressRate": 2, "ingressRate": 1, "ingressrate": 3}), Some(json!(1))),
            // null is no value: another spelling may have one.
            (json!({"ingressRate": null}), None),
            (json!({"ingressRate": null, "IngressRate": 2}), Some(json!(2))),
            (json!({"ingressBurst": 1, "ingress_rate": 1}), None),
        ] {
            let Value::Object(map) = &object else { unreachable!() };
            assert_eq!(lookup(map, "ingressRate"), found.as_ref(), "{object}");
        }
    }

    #[test]
    fn a_wrong_value_is_named_shortly() {
        let long = "x".repeat(5000);
        for (value, got) in [
            (json!(null), "null"),
            (json!(true), "the boolean true"),
            (json!(-5), "the number -5"),
            (json!(1.5), "the number 1.5"),
            (json!("a\u{7}"), r#"the string "a\u{7}""#),
            (json!([1, 2]), "an array"),
            (json!({"a": long}), "an object"),
        ] {
            let entry = Entry { key: "some.key".to_owned(), value: &value };
            assert_eq!(
                entry.wrong("a word").to_string(),
                format!("some.key: got {got}; it takes a word")
            );
        }
    }
}
