//! Section: whether a call costs more on a full node.

use serde_json::{Value, json};

use super::{Page, distinct, pick, rows_of, share, spread_of, text_of, with_quartiles};
use crate::plots::lines;
use crate::statistics::{median, numbers, spread};

/// Writes the section.
pub(super) fn write(page: &mut Page, part: &Value) {
    page.line("## A full node\n");
    page.line(
        "ADD and DEL of one pod while others are shaped on the node: veth pairs, each with limits in both \
         directions, shaped by the plugin itself.\nThe inner ends of the others share one namespace. \
         Wall times in ms.\n",
    );
    let rows = rows_of(part);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let time = |key: &str| with_quartiles(spread_of(&row[key]), 1000.0);
            vec![
                text_of(&row["subject"]),
                row["others"].to_string(),
                time("add_us"),
                time("del_us"),
            ]
        })
        .collect();
    page.table(&["", "other pods", "ADD", "DEL"], &cells);
    let subjects = distinct(rows, "subject");
    let curve = |subject: &Value| -> Vec<(f64, f64)> {
        let mine = rows.iter().filter(|row| row["subject"] == *subject);
        mine.map(|row| {
            // One more: the pod itself, and a logarithm has no 0.
            let pods = row["others"].as_f64().unwrap_or(0.0) + 1.0;
            (pods, median(&numbers(&row["add_us"])) / 1000.0)
        })
        .collect()
    };
    let series: Vec<(&str, Vec<(f64, f64)>)> =
        subjects.iter().map(|s| (s.as_str().unwrap_or_default(), curve(s))).collect();
    let units = ("shaped pods on the node", "ms");
    let svg = lines("ADD on a full node", units, (true, false), &series);
    page.plot("scale", "ADD on a full node", svg);
    at_once(page, part);
    for (subject, points) in &series {
        if *subject != "reference" && points.len() > 1 {
            let (first, last) = (points[0].1, points[points.len() - 1].1);
            let pods = points[points.len() - 1].0 - 1.0;
            page.target(
                format!("ADD at {pods} other pods, {subject}: of ADD at none"),
                last / first,
                1.1,
            );
        }
    }
}

fn at_once(page: &mut Page, part: &Value) {
    let rows = part["at_once"].as_array().map(Vec::as_slice).unwrap_or_default();
    page.line(&format!("### {} calls at once\n", part["calls_at_once"]));
    page.line("Until the last one is done, and each of them, in ms.\n");
    let mut cells = Vec::new();
    for verb in ["ADD", "DEL"] {
        let all = |subject: &str| {
            pick(rows, &[("verb", json!(verb)), ("subject", json!(subject))], "all_ms")
        };
        for subject in ["host, root", "reference"] {
            let mine = rows.iter().filter(|r| r["verb"] == verb && r["subject"] == subject);
            let each: Vec<f64> = mine.flat_map(|row| numbers(&row["each_ms"])).collect();
            let (all_of, ours, theirs) = (all(subject), all("host, root"), all("reference"));
            cells.push(vec![
                verb.to_owned(),
                subject.to_owned(),
                with_quartiles(spread(&all_of), 1.0),
                with_quartiles(spread(&each), 1.0),
                if subject == "reference" {
                    String::new()
                } else {
                    share(median(&ours) / median(&theirs))
                },
            ]);
        }
    }
    page.table(&["", "", "all", "each", "ratio of all"], &cells);
}
