//! Quantities: the numbers with suffixes that Kubernetes writes, such as "10M", "1.5Gi" or "2e6".
//!
//! The grammar and the rounding are those of `ParseQuantity` in k8s.io/apimachinery
//! (pkg/api/resource/quantity.go, suffix.go), in integers only:
//!
//! ```text
//! quantity = [sign] number suffix
//! number   = digits | digits "." digits | digits "." | "." digits
//! suffix   = "" | n | u | m | k | M | G | T | P | E          powers of 1000
//!          | Ki | Mi | Gi | Ti | Pi | Ei                     powers of 1024
//!          | (e | E) [sign] digits                           power of ten
//! ```
//!
//! Its comment writes any signed number for the exponent; its code takes integers only, and so do
//! we. In two corners its code takes more than its comment, and we follow the comment: a text
//! without any digit ("Ki", "+", ".") counts as 0 there, and an exponent beyond 32 bits wraps
//! round (1e4294967299 is 1000 there). Both are errors here.

use std::num::IntErrorKind;

use super::error::excerpt;

/// The longest text that is looked at, in bytes. Nobody writes a rate in more; the bound keeps the
/// work on a pod's text small.
pub const MAX_LENGTH: usize = 256;

/// Quantities are kept in billionths: finer parts are rounded up, as Kubernetes does.
const NANOS: u128 = 1_000_000_000;
const NANO_PLACES: i64 = 9;

/// A binary suffix caps at the largest int64 (`maxAllowed` in math.go); decimal ones do not.
const BINARY_CAP: u128 = i64::MAX as u128 * NANOS;

/// An exact number of billionths with a sign.
///
/// Exact up to 2^128 billionths (about 3.4e29), where it saturates. That is far above every bound
/// of this crate, so a comparison with a bound is always right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity {
    negative: bool,
    nanos: u128,
}

impl Quantity {
    /// The smallest integer that is not below the quantity: `Quantity.Value()` of Kubernetes, which
    /// wraps round beyond an int64 and rounds below zero now up, now down. Saturated quantities
    /// answer about 3.4e29.
    pub fn ceil(self) -> i128 {
        // Both are at most 2^128 / 10^9 + 1, which is far below i128::MAX.
        if self.negative {
            -((self.nanos / NANOS) as i128)
        } else {
            self.nanos.div_ceil(NANOS) as i128
        }
    }

    /// Whether it is exactly zero: 1n is not, and neither is -0.5.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The magnitude in billionths, rounded up, saturating at `u128::MAX`.
    pub fn nanos(self) -> u128 {
        self.nanos
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.negative
    }
}

/// Why a text is not a quantity. What it repeats of the text is shortened and escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// More than [`MAX_LENGTH`] bytes.
    #[error("it is {length} bytes long, more than {MAX_LENGTH}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// No digit where the number should be.
    #[error("it does not start with a number")]
    NoNumber,
    /// What follows the number is none of the suffixes.
    #[error("unknown suffix {suffix}")]
    UnknownSuffix {
        /// The suffix in quotes.
        suffix: String,
    },
    /// An exponent beyond 32 bits.
    #[error("the exponent {exponent} is out of range")]
    Exponent {
        /// The exponent in quotes.
        exponent: String,
    },
}

/// Reads a Kubernetes quantity.
///
/// # Errors
/// [`QuantityError`] when the text is not one. White space is not trimmed, as in Kubernetes.
pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Empty);
    }
    if text.len() > MAX_LENGTH {
        return Err(QuantityError::TooLong { length: text.len() });
    }
    let (negative, rest) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let (whole, rest) = split_digits(rest);
    let (part, suffix) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && part.is_empty() {
        return Err(QuantityError::NoNumber);
    }
    let mut digits: Vec<u8> = [whole, part].concat().bytes().map(|digit| digit - b'0').collect();
    let point = part.len() as i64;
    let nanos = match Suffix::read(suffix)? {
        Suffix::Ten(exponent) => shifted(&digits, i64::from(exponent) - point + NANO_PLACES),
        Suffix::Two(exponent) => {
            multiply(&mut digits, 1 << exponent);
            shifted(&digits, NANO_PLACES - point).min(BINARY_CAP)
        }
    };
    Ok(Quantity { negative: negative && nanos != 0, nanos })
}

/// Splits off the leading decimal digits.
fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// The factor that a suffix stands for: a power of ten or of two.
enum Suffix {
    Ten(i32),
    Two(u32),
}

impl Suffix {
    fn read(text: &str) -> Result<Suffix, QuantityError> {
        Ok(match text {
            "" => Suffix::Ten(0),
            "n" => Suffix::Ten(-9),
            "u" => Suffix::Ten(-6),
            "m" => Suffix::Ten(-3),
            "k" => Suffix::Ten(3),
            "M" => Suffix::Ten(6),
            "G" => Suffix::Ten(9),
            "T" => Suffix::Ten(12),
            "P" => Suffix::Ten(15),
            "E" => Suffix::Ten(18),
            "Ki" => Suffix::Two(10),
            "Mi" => Suffix::Two(20),
            "Gi" => Suffix::Two(30),
            "Ti" => Suffix::Two(40),
            "Pi" => Suffix::Two(50),
            "Ei" => Suffix::Two(60),
            other => return Suffix::exponent(other),
        })
    }

    fn exponent(text: &str) -> Result<Suffix, QuantityError> {
        let unknown = || QuantityError::UnknownSuffix { suffix: excerpt(text) };
        // An integer as Rust reads it: one sign at most, then ASCII digits. Go's ParseInt is equal.
        let exponent = text.strip_prefix(['e', 'E']).ok_or_else(unknown)?;
        match exponent.parse() {
            Ok(exponent) => Ok(Suffix::Ten(exponent)),
            Err(cause) => match cause.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                    Err(QuantityError::Exponent { exponent: excerpt(exponent) })
                }
                _ => Err(unknown()),
            },
        }
    }
}

/// Multiplies a number in decimal digits, highest first, by a factor of at most 2^60.
fn multiply(digits: &mut Vec<u8>, factor: u64) {
    let mut carry = 0u64;
    for digit in digits.iter_mut().rev() {
        // 9 x 2^60 and a carry of at most 2^60 stay below 2^64.
        let product = u64::from(*digit) * factor + carry;
        *digit = (product % 10) as u8;
        carry = product / 10;
    }
    while carry > 0 {
        digits.insert(0, (carry % 10) as u8);
        carry /= 10;
    }
}

/// `digits` x 10^`shift`, rounded up, saturating.
fn shifted(digits: &[u8], shift: i64) -> u128 {
    let start = digits.iter().position(|digit| *digit != 0).unwrap_or(digits.len());
    let digits = &digits[start..];
    let dropped = usize::try_from(-shift).unwrap_or(0).min(digits.len());
    let (kept, cut) = digits.split_at(digits.len() - dropped);
    let mut number = kept.iter().fold(0, |number, digit| push(number, *digit));
    if cut.iter().any(|digit| *digit != 0) {
        number = number.saturating_add(1);
    }
    // Zero stays zero and anything else saturates after 39 places, so neither loops for long.
    for _ in 0..shift.clamp(0, 39) {
        number = push(number, 0);
    }
    number
}

/// Puts one more decimal digit at the end, saturating.
fn push(number: u128, digit: u8) -> u128 {
    number
        .checked_mul(10)
        .and_then(|number| number.checked_add(u128::from(digit)))
        .unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests;
