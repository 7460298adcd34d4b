//! Bounds: which numbers each key takes, and how to read one.
//!
//! Knows the ranges of kubelet and Calico, and the texts that explain them. Kubernetes compares
//! `Quantity.Value()`, the number rounded up to an integer, with its bounds; so do we.

use serde_json::Value;

use super::error::{PolicyError, excerpt};
use super::json::Entry;
use super::quantity;

/// What a number counts and between which bounds it is taken.
pub(super) struct Range {
    least: u64,
    most: u64,
    /// The bounds as an operator would write them.
    least_text: &'static str,
    most_text: &'static str,
    unit: &'static str,
    example: &'static str,
}

/// A rate: kubelet and runtimes take 1k to 1P (pkg/util/bandwidth/utils.go in Kubernetes), and so
/// does Calico (libcalico-go/lib/backend/k8s/conversion/workload_endpoint_default.go).
pub(super) const RATE: Range = Range {
    least: 1_000,
    most: 1_000_000_000_000_000,
    least_text: "1k",
    most_text: "1P",
    unit: "bits per second",
    example: "10M",
};

/// A burst: Calico's bounds (same file): the most is 2^32 - 1 bytes in bits, what the kernel's
/// 32 bit burst can name. The reference plugin refuses more as well.
pub(super) const BURST: Range = Range {
    least: 1_000,
    most: 34_359_738_360,
    least_text: "1k",
    most_text: "34359738360",
    unit: "bits",
    example: "400k",
};

/// A peak rate: Calico's bounds (same file), just above those of a rate.
pub(super) const PEAK_RATE: Range = Range {
    least: 1_010,
    most: 1_010_000_000_000_000,
    least_text: "1.01k",
    most_text: "1.01P",
    unit: "bits per second",
    example: "20M",
};

/// A minburst: Calico's bounds (same file). In bytes, because it is typically the MTU.
pub(super) const MIN_BURST: Range = Range {
    least: 1_000,
    most: 100_000_000,
    least_text: "1k",
    most_text: "100M",
    unit: "bytes",
    example: "1514",
};

impl Range {
    /// Reads an annotation: a quantity within the range. Zero and "no limit" are what they say.
    pub(super) fn annotation(&self, entry: &Entry<'_>) -> Result<u64, PolicyError> {
        let takes = self.takes_quantity();
        let text = entry.text(&format!("a string: {takes}"))?;
        let number = self.quantity(&entry.key, text, &takes)?;
        self.within(&entry.key, &excerpt(text), number.ceil(), &takes)
    }

    /// Reads a number of a runtime or a static key: an integer that Go's uint64 takes.
    /// Zero is `None`, "not given here"; so is each of `absent`.
    pub(super) fn integer(
        &self,
        entry: &Entry<'_>,
        absent: &[u64],
    ) -> Result<Option<u64>, PolicyError> {
        let takes = format!("an integer of {}, or 0 for not given", self.span(self.numbers()));
        let number = entry.value.as_u64().ok_or_else(|| entry.wrong(&takes))?;
        if number == 0 || absent.contains(&number) {
            return Ok(None);
        }
        self.within(&entry.key, &number.to_string(), i128::from(number), &takes).map(Some)
    }

    /// Reads a number of a node's `defaults` or `maximum`: an integer or a quantity string.
    /// Zero is `None`, "not given here"; so is each of `absent`.
    pub(super) fn integer_or_quantity(
        &self,
        entry: &Entry<'_>,
        absent: &[u64],
    ) -> Result<Option<u64>, PolicyError> {
        let takes = format!(
            "an integer or a Kubernetes quantity of {}, such as \"{}\", or 0 for not given",
            self.span((self.least_text, self.most_text)),
            self.example
        );
        let (got, number) = match entry.value {
            Value::String(text) => {
                let quantity = self.quantity(&entry.key, text, &takes)?;
                if quantity.is_zero() {
                    return Ok(None);
                }
                (excerpt(text), quantity.ceil())
            }
            value => match value.as_u64() {
                Some(0) => return Ok(None),
                Some(number) => (number.to_string(), i128::from(number)),
                None => return Err(entry.wrong(takes)),
            },
        };
        if absent.iter().any(|absent| i128::from(*absent) == number) {
            return Ok(None);
        }
        self.within(&entry.key, &got, number, &takes).map(Some)
    }

    fn quantity(
        &self,
        key: &str,
        text: &str,
        takes: &str,
    ) -> Result<quantity::Quantity, PolicyError> {
        quantity::parse(text).map_err(|cause| PolicyError::NotQuantity {
            key: key.to_owned(),
            got: excerpt(text),
            cause,
            takes: takes.to_owned(),
        })
    }

    fn within(&self, key: &str, got: &str, number: i128, takes: &str) -> Result<u64, PolicyError> {
        let (side, bound) = match u64::try_from(number) {
            Ok(number) if (self.least..=self.most).contains(&number) => return Ok(number),
            _ if number < i128::from(self.least) => ("less than", self.least_text),
            _ => ("more than", self.most_text),
        };
        // "10m" is a hundredth: the likeliest slip of all, and hard to see in a long line.
        let hint = if got.ends_with("m\"") { " (\"m\" is milli, \"M\" is mega)" } else { "" };
        Err(PolicyError::OutOfRange {
            key: key.to_owned(),
            got: got.to_owned(),
            breach: format!("{side} {bound} {}{hint}", self.unit),
            takes: takes.to_owned(),
        })
    }

    fn takes_quantity(&self) -> String {
        let span = self.span((self.least_text, self.most_text));
        format!("a Kubernetes quantity of {span}, such as \"{}\"", self.example)
    }

    fn span<T: std::fmt::Display>(&self, (least, most): (T, T)) -> String {
        format!("{} between {least} and {most}", self.unit)
    }

    fn numbers(&self) -> (u64, u64) {
        (self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_the_bounds_are_the_bounds() {
        for range in [RATE, BURST, PEAK_RATE, MIN_BURST] {
            let ceil = |text| quantity::parse(text).unwrap().ceil();
            assert_eq!(ceil(range.least_text), i128::from(range.least));
            assert_eq!(ceil(range.most_text), i128::from(range.most));
            let example = u64::try_from(ceil(range.example)).unwrap();
            assert!((range.least..=range.most).contains(&example));
        }
    }
}
