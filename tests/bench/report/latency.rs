//! Section: ping beside a bulk connection.

use serde_json::Value;

use super::{Page, distinct, pick, rate_name, rows_of, text_of};
use crate::plots::{bars, short};
use crate::statistics::median;

/// Writes the section.
pub(super) fn write(page: &mut Page, part: &Value) {
    page.line("## Ping under load\n");
    page.line(
        "Echo requests 10 ms apart in the direction of one bulk TCP connection that has filled the queue, with \
         containerd's own input.\nRound trips in ms; a request without an answer within 2 s counts as the longest. \
         Each number is the median of all repetitions.\n",
    );
    if part["fq_codel"] != true {
        page.line(
            "This kernel has no fq_codel. `scripts/kernels` measures that queue on kernels that do: see \
             [the table in the README](../README.md#the-queue).\n",
        );
    }
    let rows = rows_of(part);
    let mut table = Vec::new();
    let mut groups: Vec<(String, Vec<_>)> = Vec::new();
    for rate in distinct(rows, "rate") {
        for congestion in distinct(rows, "congestion") {
            for subject in distinct(rows, "subject") {
                for queue in distinct(rows, "queue") {
                    let mut cells = vec![
                        rate_name(&rate),
                        text_of(&congestion),
                        text_of(&subject),
                        text_of(&queue),
                    ];
                    let mut worst = 0.0_f64;
                    for direction in distinct(rows, "direction") {
                        let wanted = [
                            ("rate", rate.clone()),
                            ("congestion", congestion.clone()),
                            ("subject", subject.clone()),
                            ("queue", queue.clone()),
                            ("direction", direction),
                        ];
                        let number = |key: &str| median(&pick(rows, &wanted, key));
                        let (p50, p99) = (number("p50_ms"), number("p99_ms"));
                        if p50.is_nan() {
                            continue;
                        }
                        worst = worst.max(p50);
                        cells.push(format!("{} / {}", ms(p50), ms(p99)));
                        let sent: f64 = pick(rows, &wanted, "sent").iter().sum();
                        let lost: f64 = pick(rows, &wanted, "lost").iter().sum();
                        cells.push(format!("{:.1} %", lost / sent * 100.0));
                    }
                    if cells.len() > 4 {
                        let label = format!("{} {}: {}", cells[0], cells[1], cells[2]);
                        groups.push((label, vec![Some((worst.min(2000.0), None))]));
                        table.push(cells);
                    }
                }
            }
        }
    }
    let head = [
        "limit",
        "sender",
        "",
        "queue",
        "to the pod, p50 / p99",
        "lost",
        "from the pod, p50 / p99",
        "lost",
    ];
    page.table(&head, &table);
    let title = "Ping under load, median of the slower direction";
    page.plot("latency", title, bars(title, "ms", true, &["p50"], &groups));
}

fn ms(number: f64) -> String {
    if number.is_finite() { short(number) } else { "> 2000".to_owned() }
}
