//! Section: processor time for each Gbit.

use serde_json::{Value, json};

use super::{Page, distinct, pick, rate_name, rows_of, share, text_of, with_quartiles};
use crate::plots::bars;
use crate::statistics::{median, ratios, spread};

/// The comparison; all other rows ask what contributes.
const SIDES: [&str; 5] = ["not shaped", "reference", "host, root", "host, hooks", "pod"];

/// Writes the section.
pub(super) fn write(page: &mut Page, part: &Value) {
    page.line("## Processor time for each Gbit\n");
    page.line(
        "Time that all processors together were not idle, per Gbit of TCP payload that arrived: sender, receiver \
         and kernel. One flow, cubic.\nBoth plugins are given the same burst, rate x 4 ms. Where nothing is shaped \
         the sender keeps to the same rate by itself.\nThe directions differ in what they pass: on the host to the \
         pod the root qdisc alone (hooks: an IFB), from the pod an IFB; in the pod\nthe other way round.\n",
    );
    let rows = rows_of(part);
    let times = |rate: &Value, direction: &Value, name: &str| {
        let wanted =
            [("rate", rate.clone()), ("direction", direction.clone()), ("name", json!(name))];
        pick(rows, &wanted, "cpu_s_per_gbit")
    };
    let mut table = Vec::new();
    let mut groups = Vec::new();
    for rate in distinct(rows, "rate") {
        for direction in distinct(rows, "direction") {
            let mut bar = Vec::new();
            let theirs = times(&rate, &direction, "reference");
            for name in SIDES {
                let mine = times(&rate, &direction, name);
                let s = spread(&mine);
                bar.push(Some((s.median * 1000.0, Some((s.low * 1000.0, s.high * 1000.0)))));
                table.push(vec![
                    rate_name(&rate),
                    text_of(&direction),
                    name.to_owned(),
                    with_quartiles(s, 0.001),
                    share(median(&ratios(&mine, &theirs))),
                ]);
            }
            groups.push((format!("{}, {}", rate_name(&rate), text_of(&direction)), bar));
            targets(page, &rate, &direction, &times);
        }
    }
    page.table(&["limit", "direction", "", "CPU, ms per Gbit", "of the reference's"], &table);
    let title = "Processor time for each Gbit";
    page.plot("datapath", title, bars(title, "ms", false, &SIDES, &groups));
    contributions(page, rows);
}

fn targets(
    page: &mut Page,
    rate: &Value,
    direction: &Value,
    times: &impl Fn(&Value, &Value, &str) -> Vec<f64>,
) {
    let theirs = times(rate, direction, "reference");
    // Noise between two equal ways is not worse: what is promised is "no more", to a hundredth.
    for (name, most) in [("host, root", 1.0), ("pod", 1.05)] {
        let ratio = median(&ratios(&times(rate, direction, name), &theirs));
        let at = format!("{}, {}", rate_name(rate), text_of(direction));
        page.target(format!("CPU per Gbit at {at}, {name}: of the reference's"), ratio, most);
    }
}

fn contributions(page: &mut Page, rows: &[Value]) {
    let others: Vec<Value> = distinct(rows, "name");
    let others: Vec<&str> =
        others.iter().filter_map(Value::as_str).filter(|name| !SIDES.contains(name)).collect();
    if others.is_empty() {
        return;
    }
    page.line("### What contributes\n");
    page.line(
        "At 1G, to the pod, by the root qdisc alone. A packet of the kernel's own making (GSO) is up to 64 KiB; one that \
         is larger than the burst is\ncut into frames by TBF. The IFB is the difference between the two host ways above, \
         to the pod.\n",
    );
    let base = [("rate", json!(1_000_000_000)), ("direction", json!("to the pod"))];
    let mut table = Vec::new();
    for name in SIDES[..1].iter().chain(&SIDES[2..3]).copied().chain(others) {
        let wanted = [&base[..], &[("name", json!(name))]].concat();
        let name = if name == "host, root" { "burst of 500000 bytes (derived)" } else { name };
        let cpu = spread(&pick(rows, &wanted, "cpu_s_per_gbit"));
        let rate = median(&pick(rows, &wanted, "gbit_per_s"));
        table.push(vec![name.to_owned(), with_quartiles(cpu, 0.001), share(rate)]);
    }
    page.table(&["", "CPU, ms per Gbit", "goodput, Gbit/s"], &table);
}
