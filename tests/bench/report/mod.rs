//! The page: from the JSON of the parts to Markdown and SVG. It measures nothing.

mod calls;
mod datapath;
mod latency;
mod limit;
mod live;
mod scale;

use std::fmt::Write;

use serde_json::Value;

use crate::plots::short;
use crate::statistics::{Spread, numbers, spread};

/// What the page is made of.
#[derive(Default)]
pub(super) struct Page {
    text: String,
    plots: Vec<(String, String)>,
    targets: Vec<Target>,
}

/// A number that was promised.
struct Target {
    what: String,
    wanted: String,
    measured: f64,
    met: bool,
}

/// Why a number is what it is, by hand: the run does not know.
const NOTES: &str = include_str!("../notes.md");

/// Names and texts of all files.
pub(crate) fn files(data: &Value) -> Vec<(String, String)> {
    let page = page(data);
    let mut text = head(data);
    text += &target_table(&page.targets);
    text += &page.text;
    text += NOTES;
    let mut files = vec![("benchmark.md".to_owned(), text)];
    files.extend(page.plots.into_iter().map(|(name, svg)| (format!("benchmark/{name}.svg"), svg)));
    files
}

/// The targets in a few lines, for the screen.
pub(crate) fn verdict(data: &Value) -> String {
    let line = |target: &Target| {
        let Target { what, wanted, measured, met } = target;
        let met = if *met { "met" } else { "MISSED" };
        format!("{met:6} {what}: {} (wanted: {wanted})\n", share(*measured))
    };
    page(data).targets.iter().map(line).collect()
}

fn page(data: &Value) -> Page {
    let mut page = Page::default();
    let part = |name: &str| Some(&data["parts"][name]).filter(|part| part.is_object());
    type Section = fn(&mut Page, &Value);
    let sections: [(&str, Section); 6] = [
        ("calls", calls::write),
        ("scale", scale::write),
        ("limit", limit::write),
        ("latency", latency::write),
        ("datapath", datapath::write),
        ("live", live::write),
    ];
    for (name, write) in sections {
        if let Some(part) = part(name) {
            write(&mut page, part);
        }
    }
    page
}

impl Page {
    /// A paragraph, a heading or a line of a table.
    pub(super) fn line(&mut self, line: &str) {
        self.text += line;
        self.text.push('\n');
    }

    /// A table: the first line names the columns.
    pub(super) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.line(&format!("| {} |", head.join(" | ")));
        self.line(&format!("|{}", "---|".repeat(head.len())));
        for row in rows {
            self.line(&format!("| {} |", row.join(" | ")));
        }
        self.line("");
    }

    /// A plot beside the page, shown here.
    pub(super) fn plot(&mut self, name: &str, title: &str, svg: String) {
        self.line(&format!("![{title}](benchmark/{name}.svg)\n"));
        self.plots.push((name.to_owned(), svg));
    }

    /// A number that must not be above `most`.
    pub(super) fn target(&mut self, what: impl Into<String>, measured: f64, most: f64) {
        let wanted = format!("≤ {most}");
        self.targets.push(Target { what: what.into(), wanted, measured, met: measured <= most });
    }

    /// A number that must be this near to 1.
    pub(super) fn target_near_one(&mut self, what: impl Into<String>, measured: f64, by: f64) {
        let (wanted, met) = (format!("1 ± {by}"), (measured - 1.0).abs() <= by);
        self.targets.push(Target { what: what.into(), wanted, measured, met });
    }
}

/// Median and quartiles of an array of the JSON.
pub(super) fn spread_of(value: &Value) -> Spread {
    spread(&numbers(value))
}

/// `median (low to high)`, divided by `by`.
pub(super) fn with_quartiles(spread: Spread, by: f64) -> String {
    let [low, median, high] = [spread.low, spread.median, spread.high].map(|n| short(n / by));
    format!("{median} ({low} to {high})")
}

/// The rows of a part.
pub(super) fn rows_of(part: &Value) -> &[Value] {
    part["rows"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The numbers under `key` of all rows that have these texts or numbers; `null` is an infinity.
pub(super) fn pick(rows: &[Value], wanted: &[(&str, Value)], key: &str) -> Vec<f64> {
    let fits = |row: &&Value| wanted.iter().all(|(name, value)| row[*name] == *value);
    rows.iter().filter(fits).map(|row| row[key].as_f64().unwrap_or(f64::INFINITY)).collect()
}

/// The different values under `key`, in the order in which they were measured.
pub(super) fn distinct(rows: &[Value], key: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for row in rows {
        if !all.contains(&row[key]) {
            all.push(row[key].clone());
        }
    }
    all
}

/// `10M`, `1G`.
pub(super) fn rate_name(rate: &Value) -> String {
    match rate.as_u64().unwrap_or(0) {
        rate if rate >= 1_000_000_000 => format!("{}G", rate / 1_000_000_000),
        rate => format!("{}M", rate / 1_000_000),
    }
}

/// A ratio with three digits behind the point.
pub(super) fn share(number: f64) -> String {
    if number.is_finite() { format!("{number:.3}") } else { "none".to_owned() }
}

/// A text of the JSON.
pub(super) fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or("unknown").to_owned()
}

fn target_table(targets: &[Target]) -> String {
    let mut text = "## Targets\n\n| | wanted | measured | |\n|---|---|---|---|\n".to_owned();
    for Target { what, wanted, measured, met } in targets {
        let met = if *met { "met" } else { "**missed**" };
        let _ = writeln!(text, "| {what} | {wanted} | {} | {met} |", share(*measured));
    }
    text + "\n"
}

fn head(data: &Value) -> String {
    let mut text = "# Benchmark\n\n".to_owned();
    text += "Made by `scripts/bench`, which measures this plugin and the reference `bandwidth` plugin side by \
             side: ours, theirs, ours, theirs.\nThe raw numbers are in [benchmark.json](benchmark.json). \
             A spread is from the lower to the upper quartile.\nA ratio is the median of the ratios of \
             all pairs.\n\n";
    let parts = data["parts"].as_object().into_iter().flatten();
    let mut runs: Vec<(String, Vec<String>)> = Vec::new();
    for (name, part) in parts {
        let facts = facts(&part["machine"]);
        let quick = if part["quick"] == true {
            " (QUICK: a test of the bench, no measurement)"
        } else {
            ""
        };
        let name = format!("{name}{quick}");
        match runs.iter_mut().find(|(known, _)| *known == facts) {
            Some((_, names)) => names.push(name),
            None => runs.push((facts, vec![name])),
        }
    }
    for (facts, names) in runs {
        let _ = writeln!(text, "{}:\n{facts}\n", names.join(", "));
    }
    text
}

fn facts(machine: &Value) -> String {
    let number = |key: &str| machine[key].as_u64().unwrap_or(0);
    let kind = if machine["virtual"] == true { ", a virtual machine" } else { "" };
    let program = |key: &str| {
        let sum = text_of(&machine[key]["sha256"]);
        let bytes = machine[key]["bytes"].as_u64().unwrap_or(0);
        format!("{bytes} bytes, SHA-256 {}…", sum.get(..12).unwrap_or(&sum))
    };
    format!(
        "- {} processors, {}, {} MiB of memory{kind}\n- Linux {}, default congestion control {}\n\
         - pod-bandwidth: static release build, {}\n- reference: {}, {}\n- measured on {}",
        number("processors"),
        text_of(&machine["processor"]),
        number("memory_mib"),
        text_of(&machine["kernel"]),
        text_of(&machine["default_congestion_control"]),
        program("ours"),
        text_of(&machine["reference_version"]),
        program("reference"),
        text_of(&machine["date"]),
    )
}
