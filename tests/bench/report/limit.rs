//! Section: what a limit lets through.

use serde_json::{Value, json};

use super::{Page, distinct, pick, rate_name, rows_of, share, text_of};
use crate::plots::{lines, short};
use crate::statistics::{median, numbers};

const OURS: [&str; 3] = ["host, root", "host, hooks", "pod"];

/// Writes the section.
pub(super) fn write(page: &mut Page, part: &Value) {
    page.line("## What a limit lets through\n");
    page.line(
        "A fresh pod each time, shaped with containerd's own input, which has the rate and a burst of \
         4294967295 bits that means \"no limit\".\nEach cell: bits of whole frames behind the limiter in the first \
         100 ms and in the first second, as a share of the limit; then the steady\ngoodput, as a share of \
         the ideal at MTU 1500 (1448 bytes of a frame of 1514 over TCP with IPv4; whole frames for UDP). \
         Medians.\n",
    );
    let rows = rows_of(part);
    let (rates, kinds) = (distinct(rows, "rate"), distinct(rows, "traffic"));
    let mut head = vec!["direction".to_owned(), String::new()];
    head.extend(rates.iter().map(rate_name));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    for kind in &kinds {
        page.line(&format!("### {}\n", text_of(kind)));
        let mut table = Vec::new();
        for direction in distinct(rows, "direction") {
            for subject in distinct(rows, "subject") {
                let mut line = vec![text_of(&direction), text_of(&subject)];
                line.extend(rates.iter().map(|rate| {
                    let wanted = [
                        ("rate", rate.clone()),
                        ("traffic", kind.clone()),
                        ("direction", direction.clone()),
                        ("subject", subject.clone()),
                    ];
                    let number = |key: &str| median(&pick(rows, &wanted, key));
                    let (ms, s) = (number("first_100_ms"), number("first_second"));
                    format!("{} / {} / {}", three(ms), three(s), three(number("steady_of_ideal")))
                }));
                table.push(line);
            }
        }
        page.table(&head, &table);
    }
    plot(page, rows);
    targets(page, rows, &rates, &kinds);
}

fn three(number: f64) -> String {
    if number < 10.0 { share(number) } else { short(number) }
}

fn plot(page: &mut Page, rows: &[Value]) {
    let shown = |row: &&Value| {
        row["rate"] == 10_000_000
            && row["direction"] == "to the pod"
            && text_of(&row["traffic"]).starts_with("TCP")
            && text_of(&row["traffic"]).ends_with("1 flow")
    };
    let mut series = Vec::new();
    for subject in ["host, root", "reference"] {
        let Some(row) = rows.iter().filter(shown).find(|row| row["subject"] == subject) else {
            return;
        };
        let points = numbers(&row["mbit_each_50_ms"]);
        let at = |n: usize| (n + 1) as f64 * 0.05;
        series.push((
            subject,
            points.into_iter().enumerate().map(|(n, mbit)| (at(n), mbit)).collect(),
        ));
    }
    series.push((
        "the limit",
        (1..=40).map(|n| f64::from(n) * 0.05).map(|t| (t, t * 10.0)).collect(),
    ));
    let units = ("seconds since the first data", "Mbit");
    let title = "What has passed a limit of 10M, to the pod";
    page.plot("beginning", title, lines(title, units, (false, true), &series));
}

fn targets(page: &mut Page, rows: &[Value], rates: &[Value], kinds: &[Value]) {
    for rate in rates {
        let number = rate.as_u64().unwrap_or(0);
        let mut first: f64 = 0.0;
        let mut steady: f64 = 1.0;
        for kind in kinds {
            for direction in distinct(rows, "direction") {
                for subject in OURS {
                    let wanted = [
                        ("rate", rate.clone()),
                        ("traffic", kind.clone()),
                        ("direction", direction.clone()),
                        ("subject", json!(subject)),
                    ];
                    first = first.max(median(&pick(rows, &wanted, "first_second")));
                    let of_ideal = median(&pick(rows, &wanted, "steady_of_ideal"));
                    if (of_ideal - 1.0).abs() > (steady - 1.0).abs() {
                        steady = of_ideal;
                    }
                }
            }
        }
        let name = rate_name(rate);
        if number <= 1_000_000_000 {
            let most = if number <= 1_000_000 { 1.05 } else { 1.03 };
            page.target(
                format!("First second at {name}, of the limit (worst of all rows)"),
                first,
                most,
            );
        }
        let by = if number > 1_000_000_000 { 0.03 } else { 0.01 };
        page.target_near_one(
            format!("Steady at {name}, of the ideal (worst of all rows)"),
            steady,
            by,
        );
    }
}
