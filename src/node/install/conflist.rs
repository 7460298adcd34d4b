//! A network list as text, and the places of its plugins in it. An edit cuts and pastes at those places;
//! all other text of the file stays as it is: order, unknown keys, blanks, line ends.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::value::RawValue;

use super::entry::{Entry, OURS, REFERENCE, fields, replaced};
use super::error::ListError;
use super::layout::Layout;

/// A list as it is in a file.
#[derive(Debug)]
struct List<'a> {
    text: &'a str,
    /// Where the array `plugins` begins, behind its bracket.
    begin: usize,
    plugins: Vec<Plugin<'a>>,
}

/// An entry of it.
#[derive(Debug)]
struct Plugin<'a> {
    kind: String,
    text: &'a str,
    place: Range<usize>,
}

/// The list with our entry; `None` where the text is right as it is.
pub(super) fn with_entry(text: &str, entry: &Entry) -> Result<Option<String>, ListError> {
    let list = List::parse(text)?;
    let ours = list.of_kind(OURS);
    match (ours.as_slice(), list.of_kind(REFERENCE).as_slice()) {
        ([], []) => list.appended(entry).map(Some),
        ([], [theirs]) => list.replaced(theirs, entry, Some(theirs.text)).map(Some),
        ([one], []) if entry.allows(one.text)? => Ok(None),
        ([one], []) => list.replaced(one, entry, replaced(one.text)?).map(Some),
        (_, [_, _, ..]) => Err(ListError::TwoReferences),
        // Somebody else's doing: start from the list without ours, and keep what ours says.
        ([first, ..], _) => {
            let said = Entry::existing(first.text)?;
            let entry = if entry.insists() { entry } else { &said };
            with_entry(&list.without_ours(false)?, entry)
        }
    }
}

/// The list without our entry, and with the one that ours replaced; `None` where it has none of ours.
pub(super) fn without_entry(text: &str) -> Result<Option<String>, ListError> {
    let list = List::parse(text)?;
    if list.of_kind(OURS).is_empty() { Ok(None) } else { list.without_ours(true).map(Some) }
}

impl<'a> List<'a> {
    fn parse(text: &'a str) -> Result<Self, ListError> {
        let keys: HashMap<String, &RawValue> = serde_json::from_str(text)?;
        let Some(array) = keys.get("plugins").map(|array| array.get()) else {
            return Err(if keys.contains_key("type") {
                ListError::Lone
            } else {
                ListError::NoList
            });
        };
        let entries: Vec<&RawValue> = serde_json::from_str(array)?;
        let plugins: Result<Vec<_>, _> =
            entries.into_iter().map(|entry| Plugin::parse(text, entry.get())).collect();
        let list = Self { text, begin: offset(text, array) + 1, plugins: plugins? };
        if list.plugins.is_empty() { Err(ListError::Empty) } else { Ok(list) }
    }

    fn of_kind(&self, kind: &str) -> Vec<&Plugin<'a>> {
        self.plugins.iter().filter(|plugin| plugin.kind == kind).collect()
    }

    /// With the entry behind the last plugin, as that one is laid out and set apart.
    fn appended(&self, entry: &Entry) -> Result<String, ListError> {
        let Some((last, before)) = self.plugins.split_last() else { return Err(ListError::Empty) };
        let apart = match before.last() {
            Some(before) => self.text[before.place.end..last.place.start].to_owned(),
            None => format!(",{}", &self.text[self.begin..last.place.start]),
        };
        let text = entry.render(None, self.layout(last))?;
        Ok(self.spliced(last.place.end..last.place.end, &(apart + &text)))
    }

    /// With the entry in the place of this plugin.
    fn replaced(
        &self,
        plugin: &Plugin<'_>,
        entry: &Entry,
        reference: Option<&str>,
    ) -> Result<String, ListError> {
        let text = entry.render(reference, self.layout(plugin))?;
        Ok(self.spliced(plugin.place.clone(), &text))
    }

    fn without_ours(&self, restore: bool) -> Result<String, ListError> {
        let ours = |plugin: &Plugin<'_>| plugin.kind == OURS;
        let Some(at) = self.plugins.iter().rposition(ours) else { return Ok(self.text.to_owned()) };
        let (place, before) = (&self.plugins[at].place, at.checked_sub(1));
        let reference = if restore { replaced(self.plugins[at].text)? } else { None };
        let rest = match (reference, before, self.plugins.get(at + 1)) {
            (Some(reference), ..) => self.spliced(place.clone(), reference),
            (None, Some(before), _) => self.spliced(self.plugins[before].place.end..place.end, ""),
            (None, None, Some(next)) => self.spliced(place.start..next.place.start, ""),
            (None, None, None) => return Err(ListError::OursAlone),
        };
        List::parse(&rest)?.without_ours(restore)
    }

    fn layout(&self, plugin: &Plugin<'a>) -> Layout<'a> {
        Layout::of(self.text, plugin.place.start, plugin.text)
    }

    fn spliced(&self, place: Range<usize>, text: &str) -> String {
        [&self.text[..place.start], text, &self.text[place.end..]].concat()
    }
}

impl<'a> Plugin<'a> {
    fn parse(file: &str, text: &'a str) -> Result<Self, ListError> {
        let kind = fields(text)?.into_iter().find(|(key, _)| key == "type");
        let kind = kind.and_then(|(_, value)| serde_json::from_str(value).ok());
        let start = offset(file, text);
        let place = start..start + text.len();
        Ok(Self { kind: kind.ok_or(ListError::NoType)?, text, place })
    }
}

/// Where `part`, which is a part of `whole`, begins in it.
fn offset(whole: &str, part: &str) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}
