//! Text from outside in words for people: names, annotations, keys and the kernel's explanations.
//!
//! What is repeated of it stays on its line, and no terminal or reader takes it for something else.
//! A leaf: every layer may use it.
#![forbid(unsafe_code)]

/// The text with each odd character as `\u{…}`. Quotes and backslashes stay, so that a text that is
/// escaped already stays as it is.
pub fn escape(text: &str) -> String {
    cut(text, usize::MAX, false)
}

/// As [`escape`], at most `most` characters; a text that was cut ends in `...`.
pub fn shorten(text: &str, most: usize) -> String {
    cut(text, most, false)
}

/// The text as a literal in double quotes, at most `most` characters with them; a text that was cut
/// ends in `..."`.
pub fn quote(text: &str, most: usize) -> String {
    format!("\"{}\"", cut(text, most.saturating_sub(2), true))
}

/// An escape is never cut in two.
fn cut(text: &str, most: usize, is_quoted: bool) -> String {
    const CUT: &str = "...";
    let mut out = String::new();
    // Characters so far, and the bytes of those that leave room for CUT.
    let (mut length, mut safe) = (0, 0);
    for character in text.chars() {
        let before = out.len();
        push(&mut out, character, is_quoted);
        length += out[before..].chars().count();
        if length > most {
            out.truncate(safe);
            return out + CUT;
        }
        if length <= most - CUT.len() {
            safe = out.len();
        }
    }
    out
}

fn push(out: &mut String, character: char, is_quoted: bool) {
    match character {
        '"' | '\\' if is_quoted => out.extend(['\\', character]),
        '\n' | '\r' | '\t' | '\0' if is_quoted => out.extend(character.escape_debug()),
        _ if is_odd(character) => out.extend(character.escape_unicode()),
        _ => out.push(character),
    }
}

/// Whether a character may change how the text around it is shown, or not be seen at all.
///
/// `char::escape_debug` knows nearly all of them: control characters, format characters (such as
/// bidirectional marks, overrides and isolates, zero width), every separator but the blank, private
/// and unassigned characters, and marks that combine with the character before them. Letters that are
/// blank (the Hangul fillers) it takes for printable.
fn is_odd(character: char) -> bool {
    const BLANK_LETTERS: [char; 4] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}'];
    let is_escaped = character.escape_debug().len() > 1;
    (is_escaped && !matches!(character, '"' | '\'' | '\\')) || BLANK_LETTERS.contains(&character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Characters that act on a terminal or on the text around them, by kind.
    const ODD: [(&str, &[char]); 6] = [
        ("control", &['\0', '\u{7}', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}']),
        ("bidirectional overrides", &['\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}']),
        ("bidirectional isolates", &['\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}']),
        ("bidirectional marks", &['\u{200e}', '\u{200f}', '\u{61c}']),
        ("line and paragraph separators", &['\u{2028}', '\u{2029}']),
        (
            "not to be seen",
            &['\u{ad}', '\u{a0}', '\u{180e}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}'],
        ),
    ];

    #[test]
    fn odd_characters_are_escaped_and_others_stay() {
        for (kind, characters) in ODD {
            for &odd in characters {
                let escaped = format!("a\\u{{{:x}}}b", odd as u32);
                assert_eq!(escape(&format!("a{odd}b")), escaped, "{kind}");
            }
        }
        for odd in ['\u{feff}', '\u{e0041}', '\u{301}', '\u{fe0f}', '\u{3164}', '\u{e000}'] {
            assert_ne!(escape(&odd.to_string()), odd.to_string(), "{odd:?}");
        }
        for plain in ["", "default/web-0", "it's \"5 %\" of C:\\", "größer 小さい", "…"] {
            assert_eq!(escape(plain), plain);
        }
    }

    #[test]
    fn a_quoted_text_is_a_literal() {
        for (text, shown) in [
            ("", r#""""#),
            ("10M", r#""10M""#),
            ("a\nb\t\"\\'", r#""a\nb\t\"\\'""#),
            ("\u{1b}[2J\u{2066}", r#""\u{1b}[2J\u{2066}""#),
        ] {
            assert_eq!(quote(text, 60), shown);
        }
    }

    #[test]
    fn a_long_text_is_cut_before_an_escape() {
        for (most, shown) in [(12, r"a\u{1b}b"), (8, r"a\u{1b}b"), (7, "a..."), (4, "a...")] {
            assert_eq!(shorten("a\u{1b}b", most), shown, "{most}");
        }
        assert_eq!(shorten(&"x".repeat(20), 10), "xxxxxxx...");
        assert_eq!(quote(&"x".repeat(20), 10), "\"xxxxx...\"");
        assert_eq!(quote("\u{202e}12345", 10), "\"...\"");
    }

    fn any_text() -> impl Strategy<Value = String> {
        "\\PC*|[\\x00-\\x1f\"\\\\'é\u{202e}\u{2067}\u{200e}\u{61c}\u{200b}\u{2028}\u{fffd}a]{0,200}"
    }

    fn is_plain(text: &str) -> bool {
        let odd: Vec<char> = ODD.iter().flat_map(|(_, odd)| odd.iter().copied()).collect();
        !text.chars().any(|c| c.is_control() || odd.contains(&c))
    }

    proptest! {
        #[test]
        fn what_is_shown_is_plain_and_escaping_it_again_changes_nothing(text in any_text()) {
            let shown = escape(&text);
            prop_assert!(is_plain(&shown), "{shown:?}");
            prop_assert_eq!(escape(&shown), shown);
        }

        #[test]
        fn a_cut_text_is_short_and_ends_where_an_escape_ends(text in any_text(), most in 5usize..80) {
            let (shown, whole) = (shorten(&text, most), escape(&text));
            prop_assert!(shown.chars().count() <= most, "{shown}");
            if shown != whole {
                let kept = shown.strip_suffix("...").expect("a cut text says so");
                prop_assert!(whole.starts_with(kept));
                // The first characters of the text give just this.
                let first = |count| escape(&text.chars().take(count).collect::<String>());
                prop_assert!((0..=most).any(|count| first(count) == kept), "{shown}");
            }
        }

        #[test]
        fn no_text_breaks_out_of_its_quotes(text in any_text(), most in 8usize..80) {
            let shown = quote(&text, most);
            prop_assert!(shown.chars().count() <= most && is_plain(&shown), "{shown}");
            let inner = &shown[1..shown.len() - 1];
            prop_assert!(!inner.replace("\\\\", "").replace("\\\"", "").contains('"'), "{shown}");
        }
    }
}
