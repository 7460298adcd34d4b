//! Medians, spreads, and ratios of pairs.

use serde_json::Value;

/// Middle and quartiles of a sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    /// A quarter is below.
    pub(crate) low: f64,
    /// The median.
    pub(crate) median: f64,
    /// A quarter is above.
    pub(crate) high: f64,
}

/// The value below which the share `part` of the sample is, with linear interpolation. Infinite
/// values sort last.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = part * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    // No arithmetic with infinities: unanswered pings are such.
    if below == above { below } else { below + (at - at.floor()) * (above - below) }
}

/// The median.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Median and quartiles.
pub(crate) fn spread(values: &[f64]) -> Spread {
    let [low, median, high] = [0.25, 0.5, 0.75].map(|part| quantile(values, part));
    Spread { low, median, high }
}

/// Of each pair, ours over theirs: what moves both at a time cancels.
pub(crate) fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

/// The numbers of a JSON array; `null` is an infinity, as JSON has none.
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    let all = value.as_array().into_iter().flatten();
    all.map(|number| number.as_f64().unwrap_or(f64::INFINITY)).collect()
}

/// To the digits that mean something: raw numbers are kept in files.
pub(crate) fn round(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}
