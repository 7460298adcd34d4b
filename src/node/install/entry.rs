//! Our entry of a list: what it must be, and the text of it that goes into a file.
//!
//! An entry that takes the place of the reference plugin's carries that one, word for word, in the key
//! `replaces`. The plugin ignores it, and uninstall puts it back.

use serde_json::Value;
use serde_json::value::RawValue;

use super::error::EntryError;
use super::layout::{Layout, compact};
use crate::policy::{Limits, Settings};

/// Our plugin's type, which is its file name.
pub(in crate::node) const OURS: &str = "pod-bandwidth";

/// The reference plugin's type.
pub(in crate::node) const REFERENCE: &str = "bandwidth";

/// The key of our entry with the one that it replaced.
pub(super) const REPLACES: &str = "replaces";

/// What an entry says where the operator says nothing.
const DEFAULT: &str = include_str!("../../../conf/replace-bandwidth-entry.json");

/// Settings of the reference plugin that have the same name and meaning here.
const KEPT: [&str; 6] = [
    "ingressRate",
    "ingressBurst",
    "egressRate",
    "egressBurst",
    "unshapedSubnets",
    "shapedSubnets",
];

/// The fields of an object, in the order of the text.
pub(super) fn fields(object: &str) -> Result<Vec<(String, &str)>, serde_json::Error> {
    let map: std::collections::HashMap<String, &RawValue> = serde_json::from_str(object)?;
    let mut fields: Vec<_> = map.into_iter().map(|(key, value)| (key, value.get())).collect();
    // They all point into the same text.
    fields.sort_by_key(|(_, value)| value.as_ptr());
    Ok(fields)
}

/// The entry that is to be in the list.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    text: String,
    /// An entry of ours that says something else gives way to it.
    insists: bool,
}

impl Default for Entry {
    /// Takes an entry that is there already for the operator's word.
    fn default() -> Self {
        Self { text: compact(DEFAULT), insists: false }
    }
}

impl Entry {
    /// The operator's own: an object of our type, whose settings the plugin would take.
    pub(super) fn parse(text: &str) -> Result<Self, EntryError> {
        let value: Value = serde_json::from_str(text)?;
        let Value::Object(map) = value else { return Err(EntryError::NoObject) };
        if map.get("type").and_then(Value::as_str) != Some(OURS) {
            return Err(EntryError::Type);
        }
        Limits::read(&map)?;
        Settings::read(&map)?;
        Ok(Self { text: compact(text), insists: true })
    }

    /// The same as one that is in a list, without what that one replaces.
    pub(super) fn existing(text: &str) -> Result<Self, serde_json::Error> {
        Ok(Self { text: without_replaced(text)?, insists: false })
    }

    /// Whether `existing`, an entry of ours, may stay as it is.
    pub(super) fn allows(&self, existing: &str) -> Result<bool, serde_json::Error> {
        if !self.insists {
            return Ok(true);
        }
        let wanted = self.with_settings_of(replaced(existing)?)?;
        Ok(without_replaced(existing)? == wanted)
    }

    /// Whether it takes the place of another entry of ours.
    pub(super) fn insists(&self) -> bool {
        self.insists
    }

    /// Its text for a file; `replaced` is the reference plugin's entry whose place it takes.
    pub(super) fn render(
        &self,
        replaced: Option<&str>,
        layout: Layout<'_>,
    ) -> Result<String, serde_json::Error> {
        let mut text = layout.apply(&self.with_settings_of(replaced)?);
        let Some(replaced) = replaced else { return Ok(text) };
        // Behind the last value: the end is a brace, and before it the blanks of the layout.
        text.pop();
        text.truncate(text.trim_end().len());
        text.push(',');
        layout.new_line(&mut text, 1);
        let colon = if layout == Layout::Line { ":" } else { ": " };
        text += &format!("\"{REPLACES}\"{colon}{replaced}");
        layout.new_line(&mut text, 0);
        text.push('}');
        Ok(text)
    }

    fn with_settings_of(&self, replaced: Option<&str>) -> Result<String, serde_json::Error> {
        let Some(replaced) = replaced else { return Ok(self.text.clone()) };
        let own = fields(&self.text)?;
        let is_own = |key: &str| own.iter().any(|(own, _)| own.eq_ignore_ascii_case(key));
        let mut text = self.text[..self.text.len() - 1].to_owned();
        for (key, value) in fields(replaced)? {
            let kept = KEPT.iter().find(|kept| kept.eq_ignore_ascii_case(&key));
            if let Some(key) = kept.filter(|key| !is_own(key)) {
                text += &format!(",\"{key}\":{}", compact(value));
            }
        }
        text.push('}');
        Ok(text)
    }
}

/// The entry whose place this entry of ours took.
pub(super) fn replaced(entry: &str) -> Result<Option<&str>, serde_json::Error> {
    let found = fields(entry)?.into_iter().find(|(key, _)| key == REPLACES);
    Ok(found.map(|(_, value)| value))
}

/// An entry of ours, compact, without the one that it replaced.
fn without_replaced(entry: &str) -> Result<String, serde_json::Error> {
    let kept = fields(entry)?.into_iter().filter(|(key, _)| key != REPLACES);
    let kept = kept.map(|(key, value)| format!("{}:{}", Value::String(key), compact(value)));
    Ok(format!("{{{}}}", kept.collect::<Vec<_>>().join(",")))
}
