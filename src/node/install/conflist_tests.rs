//! Edits of lists: what changes, and that taking it back gives every byte back.
#![allow(clippy::unwrap_used, reason = "a test file")]

use super::conflist::{with_entry, without_entry};
use super::entry::Entry;
use super::error::ListError;

fn installed(text: &str) -> String {
    let after = with_entry(text, &Entry::default()).unwrap().unwrap();
    let again = with_entry(&after, &Entry::default()).unwrap();
    assert_eq!(again, None, "a second time changes nothing");
    assert_eq!(without_entry(&after).unwrap().as_deref(), Some(text), "it can be taken back");
    after
}

#[test]
fn a_list_in_one_line_gets_its_entry_in_that_line() {
    let after = installed(r#"{"plugins":[{"type":"ptp"}, {"type":"portmap"}],"x":1.0}"#);
    let want = r#"{"plugins":[{"type":"ptp"}, {"type":"portmap"}, {"type":"pod-bandwidth","capabilities":{"bandwidth":true,"io.kubernetes.cri.pod-annotations":true}}],"x":1.0}"#;
    assert_eq!(after, want);
}

#[test]
fn indentation_and_line_ends_are_those_of_the_file() {
    let after =
        installed("{\r\n \"plugins\": [\r\n\t{\r\n\t   \"type\": \"ptp\"\r\n\t}\r\n ]\r\n}\r\n");
    let want = "{\r\n \"plugins\": [\r\n\t{\r\n\t   \"type\": \"ptp\"\r\n\t},\r\n\t{\r\n\t   \"type\": \"pod-bandwidth\",\r\n\t   \"capabilities\": {\r\n\t      \"bandwidth\": true,\r\n\t      \"io.kubernetes.cri.pod-annotations\": true\r\n\t   }\r\n\t}\r\n ]\r\n}\r\n";
    assert_eq!(after, want);
}

#[test]
fn the_reference_gives_its_place_and_its_settings_and_gets_its_place_back() {
    let after = installed(
        r#"{"plugins":[{"type":"ptp"},{"ingressRate":8000, "type":"bandwidth","x":1},{"type":"portmap"}]}"#,
    );
    let want = r#"{"plugins":[{"type":"ptp"},{"type":"pod-bandwidth","capabilities":{"bandwidth":true,"io.kubernetes.cri.pod-annotations":true},"ingressRate":8000,"replaces":{"ingressRate":8000, "type":"bandwidth","x":1}},{"type":"portmap"}]}"#;
    assert_eq!(after, want);
}

#[test]
fn an_entry_of_the_operator_replaces_ours_and_the_reference_still_comes_back() {
    let text = r#"{"plugins":[{"type":"ptp"},{"type":"bandwidth"}]}"#;
    let first = installed(text);
    let entry = Entry::parse(r#"{"type": "pod-bandwidth", "latency": 50}"#).unwrap();
    let second = with_entry(&first, &entry).unwrap().unwrap();
    let want = r#"{"plugins":[{"type":"ptp"},{"type":"pod-bandwidth","latency":50,"replaces":{"type":"bandwidth"}}]}"#;
    assert_eq!(second, want);
    assert_eq!(with_entry(&second, &entry).unwrap(), None);
    assert_eq!(without_entry(&second).unwrap().as_deref(), Some(text));
    // Without the operator's file, what is there is the operator's word.
    assert_eq!(with_entry(&second, &Entry::default()).unwrap(), None);
}

#[test]
fn both_entries_become_one_that_says_what_ours_said() {
    let text = r#"{"plugins":[{"type":"ptp"},{"type":"pod-bandwidth","latency":50},{"type":"bandwidth"}]}"#;
    let after = with_entry(text, &Entry::default()).unwrap().unwrap();
    let want = r#"{"plugins":[{"type":"ptp"},{"type":"pod-bandwidth","latency":50,"replaces":{"type":"bandwidth"}}]}"#;
    assert_eq!(after, want);
}

#[test]
fn what_is_no_list_is_refused() {
    let refused = |text: &str| with_entry(text, &Entry::default()).unwrap_err();
    assert!(matches!(refused(""), ListError::Json(_)));
    assert!(matches!(refused(r#"{"plugins":[{"type":"ptp"}"#), ListError::Json(_)));
    assert!(matches!(refused(r#"{"plugins":[{"type":"ptp"}]} {}"#), ListError::Json(_)));
    assert!(matches!(refused(r#"{"type":"ptp"}"#), ListError::Lone));
    assert!(matches!(refused("{}"), ListError::NoList));
    assert!(matches!(refused(r#"{"plugins":[]}"#), ListError::Empty));
    assert!(matches!(refused(r#"{"plugins":[{}]}"#), ListError::NoType));
    let twice = r#"{"plugins":[{"type":"bandwidth"},{"type":"bandwidth"}]}"#;
    assert!(matches!(refused(twice), ListError::TwoReferences));
    let alone = without_entry(r#"{"plugins":[{"type":"pod-bandwidth"}]}"#);
    assert!(matches!(alone, Err(ListError::OursAlone)));
}

#[test]
fn an_entry_that_the_plugin_would_refuse_is_refused() {
    for (text, words) in [
        ("[]", "object"),
        (r#"{"type":"bandwidth"}"#, "pod-bandwidth"),
        (r#"{"type":"pod-bandwidth","latency":0}"#, "latency"),
        ("{", "JSON"),
    ] {
        let error = Entry::parse(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}
