//! Quantities: any text, against the grammar said once more and against plain arithmetic.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use pod_bandwidth::policy::quantity::{MAX_LENGTH, Quantity, parse};
use pod_bandwidth_fuzz::check_message;

const NANOS: u128 = 1_000_000_000;

const SUFFIXES: [(&str, Factor); 16] = [
    ("", Factor::Ten(0)),
    ("n", Factor::Ten(-9)),
    ("u", Factor::Ten(-6)),
    ("m", Factor::Ten(-3)),
    ("k", Factor::Ten(3)),
    ("M", Factor::Ten(6)),
    ("G", Factor::Ten(9)),
    ("T", Factor::Ten(12)),
    ("P", Factor::Ten(15)),
    ("E", Factor::Ten(18)),
    ("Ki", Factor::Two(10)),
    ("Mi", Factor::Two(20)),
    ("Gi", Factor::Two(30)),
    ("Ti", Factor::Two(40)),
    ("Pi", Factor::Two(50)),
    ("Ei", Factor::Two(60)),
];

#[derive(Clone, Copy)]
enum Factor {
    Ten(i32),
    Two(u32),
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    let recognised = recognise(text);
    match parse(text) {
        Ok(quantity) => {
            let (digits, point, factor) = recognised.unwrap_or_else(|| panic!("took {text:?}"));
            check_value(text, quantity);
            if let Some(nanos) = exact(digits, point, factor) {
                assert_eq!(quantity.nanos(), nanos, "{text:?}");
            }
        }
        Err(error) => {
            assert!(recognised.is_none(), "refused {text:?}: {error}");
            check_message(&error.to_string());
        }
    }
    Corpus::Keep
});

/// Digits without the point, how many stand behind it, and the factor; `None` for no quantity.
fn recognise(text: &str) -> Option<(String, usize, Factor)> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let unsigned = text.strip_prefix('+').or_else(|| text.strip_prefix('-')).unwrap_or(text);
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let suffix = unsigned.trim_start_matches(is_number);
    let number = &unsigned[..unsigned.len() - suffix.len()];
    let digits = number.replacen('.', "", 1);
    if digits.is_empty() || digits.contains('.') {
        return None;
    }
    let point = number.find('.').map_or(0, |dot| number.len() - dot - 1);
    let known = SUFFIXES.iter().find(|(name, _)| *name == suffix).map(|(_, factor)| *factor);
    let exponent = || {
        let exponent = suffix.strip_prefix('e').or_else(|| suffix.strip_prefix('E'))?;
        exponent.parse().ok().map(Factor::Ten)
    };
    Some((digits, point, known.or_else(exponent)?))
}

/// What holds for every quantity.
fn check_value(text: &str, quantity: Quantity) {
    let nanos = quantity.nanos();
    assert_eq!(quantity.is_zero(), nanos == 0);
    assert_eq!(quantity.is_negative(), text.starts_with('-') && nanos != 0);
    let ceil = if quantity.is_negative() { nanos / NANOS } else { nanos.div_ceil(NANOS) };
    assert_eq!(quantity.ceil().unsigned_abs(), ceil, "{text:?}");
    let (sign, unsigned) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (&text[..1], rest),
        None => ("", text),
    };
    if text.len() + 2 <= MAX_LENGTH {
        // A leading zero or the other sign changes no magnitude.
        assert_eq!(parse(&format!("{sign}0{unsigned}")), Ok(quantity), "{text:?}");
        assert_eq!(parse(&format!("-{unsigned}")).map(Quantity::nanos), Ok(nanos), "{text:?}");
    }
}

/// The number in billionths, rounded up, where 128 bits hold all of the arithmetic.
fn exact(digits: String, point: usize, factor: Factor) -> Option<u128> {
    let digits = digits.trim_start_matches('0');
    if digits.len() > 11 || point > 20 {
        return None;
    }
    let number: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let ten = |exponent: u32| 10u128.pow(exponent);
    match factor {
        Factor::Ten(exponent) if (-18..=15).contains(&exponent) => {
            let shift = exponent - point as i32 + 9;
            Some(match u32::try_from(shift) {
                Ok(shift) => number * ten(shift),
                Err(_) => number.div_ceil(ten(shift.unsigned_abs())),
            })
        }
        Factor::Ten(_) => None,
        Factor::Two(exponent) => {
            let nanos = (number * (1 << exponent) * NANOS).div_ceil(ten(point as u32));
            Some(nanos.min(i64::MAX as u128 * NANOS))
        }
    }
}
