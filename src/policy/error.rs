//! Errors of the policy: which key, what it got, what it takes.
//!
//! Every text is meant for the operator who reads it in `kubectl describe pod` or in the runtime's
//! log. What comes from outside goes through [`excerpt`] first.

use super::quantity::QuantityError;
use super::units::BitsPerSecond;

/// Characters of foreign text that an error repeats at most, the quotes included.
const EXCERPT: usize = 60;

/// A value that is refused. Its Display is the whole message for the operator.
///
/// `key` is the place as it was written: `annotation kubernetes.io/ingress-bandwidth` or a path in
/// the network configuration such as `runtimeConfig.bandwidth.IngressRate`. `got` is an excerpt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A text that should be a Kubernetes quantity and is none.
    #[error("{key}: {got} is not a quantity: {cause}; it takes {takes}")]
    NotQuantity {
        /// Where it was written.
        key: String,
        /// What was written.
        got: String,
        /// What is wrong with it.
        cause: QuantityError,
        /// What is taken.
        takes: String,
    },
    /// A number outside of what the key takes.
    #[error("{key}: {got} is {breach}; it takes {takes}")]
    OutOfRange {
        /// Where it was written.
        key: String,
        /// What was written.
        got: String,
        /// The bound that is crossed, such as "less than 1k bits per second".
        breach: String,
        /// What is taken.
        takes: String,
    },
    /// A value of the wrong JSON type, or a word that the key does not know.
    #[error("{key}: got {got}; it takes {takes}")]
    WrongValue {
        /// Where it was written.
        key: String,
        /// What was written.
        got: String,
        /// What is taken.
        takes: String,
    },
    /// A pod asks for a burst, a peak rate or a minburst, and there is no rate to go with it.
    #[error(
        "{key}: there is no {direction} rate for it to go with; set the annotation \
         kubernetes.io/{direction}-bandwidth too, or take this one away"
    )]
    NoRate {
        /// Where the burst, peak rate or minburst was written.
        key: String,
        /// "ingress" or "egress".
        direction: &'static str,
    },
    /// A pod asks for a minburst without the peak rate that it belongs to.
    #[error(
        "{key}: a minburst is the bucket of a peak rate, and there is none; set the annotation \
         qos.projectcalico.org/{direction}Peakrate too, or take this one away"
    )]
    NoPeakRate {
        /// Where the minburst was written.
        key: String,
        /// "ingress" or "egress".
        direction: &'static str,
    },
    /// A peak rate that is not above the rate, counted in whole bytes per second.
    #[error(
        "{key}: a peak rate of {peak} is not above the rate of {rate} ({rate_key}); \
         it takes at least one byte per second (8 bit/s) more than the rate"
    )]
    PeakNotAboveRate {
        /// Where the peak rate was written.
        key: String,
        /// The peak rate.
        peak: BitsPerSecond,
        /// The rate that it goes with.
        rate: BitsPerSecond,
        /// Where the rate was written.
        rate_key: String,
    },
}

/// A foreign text in quotes, escaped and cut: safe for a terminal, a log line and a JSON string.
///
/// At most [`EXCERPT`] characters; a cut text ends in `..."`.
pub(super) fn excerpt(text: &str) -> String {
    crate::text::quote(text, EXCERPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_quoted_escaped_and_cut() {
        for (text, shown) in [
            ("10M", r#""10M""#.to_owned()),
            ("", r#""""#.to_owned()),
            ("a\nb\u{1b}[2J\"", r#""a\nb\u{1b}[2J\"""#.to_owned()),
            ("\u{202e}M01", r#""\u{202e}M01""#.to_owned()),
            (&"9".repeat(58), format!("\"{}\"", "9".repeat(58))),
            (&"9".repeat(59), format!("\"{}...\"", "9".repeat(55))),
        ] {
            assert_eq!(excerpt(text), shown);
        }
    }
}
