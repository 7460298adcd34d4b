//! Numbers as people read them.

use std::time::Duration;

use crate::shaping::Mark;

/// With three digits and a decimal prefix.
fn prefixed(number: f64, unit: &str) -> String {
    const PREFIXES: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // From 999.5 of the prefix below on, three digits make one of this one.
    let fits = |(one, _): &&(f64, &str)| number >= one * 0.9995;
    let (one, prefix) = PREFIXES.iter().find(fits).copied().unwrap_or((1.0, ""));
    let number = number / one;
    let places = match number {
        _ if one == 1.0 || number >= 99.95 => 0,
        _ if number >= 9.995 => 1,
        _ => 2,
    };
    let digits = format!("{number:.places$}");
    let digits =
        if places > 0 { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{digits} {prefix}{unit}")
}

/// A rate.
pub(in crate::node) fn rate(bits_per_second: f64) -> String {
    prefixed(bits_per_second, "bit/s")
}

/// A size.
pub(in crate::node) fn bytes(bytes: u64) -> String {
    prefixed(bytes as f64, "B")
}

/// A share.
pub(in crate::node) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Who set the numbers, in one word.
pub(in crate::node) fn word_of(mark: Mark) -> &'static str {
    match mark {
        Mark::Added => "add",
        Mark::Agent => "agent",
        Mark::Hand => "hand",
        Mark::Other(_) => "other",
    }
}

/// A time on the command line, such as `500ms` or `0s`.
pub(in crate::node) fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 500ms or 2s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_no_more() {
        for (number, text) in [
            (0.0, "0 bit/s"),
            (999.0, "999 bit/s"),
            (1_000.0, "1 kbit/s"),
            (9_996_000.0, "10 Mbit/s"),
            (9_876_543.0, "9.88 Mbit/s"),
            (98_765_432.0, "98.8 Mbit/s"),
            (100_000_000.0, "100 Mbit/s"),
            (999_600_000.0, "1 Gbit/s"),
            (2.5e12, "2.5 Tbit/s"),
        ] {
            assert_eq!(rate(number), text, "{number}");
        }
        assert_eq!(bytes(36_250), "36.2 kB");
    }

    #[test]
    fn a_time_is_read_or_the_message_says_how_it_is_written() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert!(time("5 bananas").unwrap_err().contains("500ms"));
    }
}
