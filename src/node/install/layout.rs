//! The layout of JSON text: the blanks between its parts, and nothing else. Keys keep their order and
//! numbers their digits, because no value is ever read. It takes text that is known to be JSON.

/// How a part of a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout<'a> {
    /// All in one line, without blanks.
    Line,
    /// A line for each value.
    Lines {
        /// What ends a line.
        newline: &'a str,
        /// The indentation of the line in which the part begins.
        base: &'a str,
        /// What each level adds to it.
        unit: &'a str,
    },
}

impl<'a> Layout<'a> {
    /// That of the value at `start` of `file`, which is `value`.
    pub(super) fn of(file: &'a str, start: usize, value: &'a str) -> Self {
        let Some((_, second)) = value.split_once('\n') else { return Self::Line };
        let newline = if file.contains("\r\n") { "\r\n" } else { "\n" };
        let line = file[..start].rfind('\n').map_or(0, |at| at + 1);
        let base = indentation(&file[line..]);
        let deeper = indentation(second).strip_prefix(base).unwrap_or_default();
        Self::Lines { newline, base, unit: if deeper.is_empty() { "  " } else { deeper } }
    }

    /// The text in this layout; its first line is not indented.
    pub(super) fn apply(self, json: &str) -> String {
        let mut out = String::new();
        let mut depth = 0;
        let line = compact(json);
        for part in parts(&line) {
            match part {
                "{" | "[" => {
                    depth += 1;
                    out += part;
                    self.new_line(&mut out, depth);
                }
                "}" | "]" => {
                    depth -= 1;
                    self.new_line(&mut out, depth);
                    out += part;
                }
                "," => {
                    out += part;
                    self.new_line(&mut out, depth);
                }
                ":" if self != Self::Line => out += ": ",
                _ => out += part,
            }
        }
        out
    }

    /// A new line at this depth, where the layout has lines.
    pub(super) fn new_line(self, out: &mut String, depth: usize) {
        if let Self::Lines { newline, base, unit } = self {
            *out += newline;
            *out += base;
            *out += &unit.repeat(depth);
        }
    }
}

/// The text without blanks outside of strings.
pub(super) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        if quoted || !matches!(c, ' ' | '\t' | '\r' | '\n') {
            out.push(c);
        }
        if quoted && !escaped && c == '\\' {
            escaped = true;
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = false;
    }
    out
}

/// Blanks at the start of the text's first line.
fn indentation(text: &str) -> &str {
    &text[..text.find(|c| c != ' ' && c != '\t').unwrap_or(text.len())]
}

/// Compact JSON cut into its signs and values; `{}` and `[]` are values.
fn parts(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let length = match rest.as_bytes() {
            [] => return None,
            [b'{', b'}', ..] | [b'[', b']', ..] => 2,
            [b'{' | b'}' | b'[' | b']' | b',' | b':', ..] => 1,
            [b'"', inner @ ..] => 1 + string_end(inner),
            _ => rest.find(['}', ']', ',']).unwrap_or(rest.len()),
        };
        let (part, tail) = rest.split_at(length);
        rest = tail;
        Some(part)
    })
}

/// How long a string is behind its first quote, the last quote included.
fn string_end(inner: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in inner.iter().enumerate() {
        match byte {
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    inner.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: Layout<'_> = Layout::Lines { newline: "\n", base: "", unit: "  " };

    #[test]
    fn lines_keep_order_digits_and_what_is_in_strings() {
        let json = r#" { "z" : 1.50, "a":{}, "s": "a, b: {\"c\"} \\", "l":[ 1,[ ] ] } "#;
        let want = "{\n  \"z\": 1.50,\n  \"a\": {},\n  \"s\": \"a, b: {\\\"c\\\"} \\\\\",\n  \"l\": [\n    1,\n    []\n  ]\n}";
        assert_eq!(LINES.apply(json), want);
        assert_eq!(LINES.apply(want), want);
        assert_eq!(Layout::Line.apply(want), compact(json));
    }

    #[test]
    fn the_layout_is_that_of_the_value_that_is_there() {
        let file = "{\r\n\t\"a\": {\r\n\t   \"b\": 1\r\n\t}\r\n}\r\n";
        let start = file.rfind('{').unwrap();
        let layout = Layout::of(file, start, &file[start..file.find('}').unwrap() + 1]);
        assert_eq!(layout, Layout::Lines { newline: "\r\n", base: "\t", unit: "   " });
        assert_eq!(Layout::of(file, start, "{\"b\": 1}"), Layout::Line);
    }
}
