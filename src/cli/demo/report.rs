//! What the demo found, as a table for people and as JSON for programs. Pure:
//! numbers in, text out.

use serde_json::{Value, json};

use super::measure::Pings;
use super::table::table;
use crate::policy::Direction;

/// Share of the rate that TCP can carry as payload at MTU 1500: 1448 bytes (with
/// timestamps) of a frame of 1514, which is what TBF counts.
const IDEAL_SHARE: f64 = 1448.0 / 1514.0;

/// One direction's numbers. Rates are goodput at the receiver in bits per second.
#[derive(Debug)]
pub(super) struct Row {
    /// Which way.
    pub(super) direction: Direction,
    /// Before ADD, over the whole measurement.
    pub(super) unlimited: u64,
    /// What was asked for.
    pub(super) limit: u64,
    /// In the second that begins with the first byte.
    pub(super) first_second: u64,
    /// After that second.
    pub(super) steady: u64,
    /// Over the whole measurement, the first second included.
    pub(super) whole: u64,
    /// While nothing else is sent.
    pub(super) ping_idle: Pings,
    /// While the bulk flow of this direction runs.
    pub(super) ping_loaded: Pings,
}

impl Row {
    /// Steady rate as a part of the limit.
    pub(super) fn share(&self) -> f64 {
        self.steady as f64 / self.limit as f64
    }

    /// What to know where the steady rate is above the ideal by more than a rounding.
    fn note(&self) -> Option<String> {
        (self.share() > IDEAL_SHARE + 0.01).then(|| {
            format!(
                "{}: over the whole time it was {:.1} % of the limit. TCP delivers in order: what \
                 came behind a lost segment in the first second can count as steady.",
                self.direction.described(),
                self.whole as f64 / self.limit as f64 * 100.0
            )
        })
    }
}

/// All that one run of the demo found.
#[derive(Debug)]
pub(super) struct Report {
    /// Kernel release.
    pub(super) kernel: String,
    /// TCP congestion control of the bulk flows.
    pub(super) congestion: String,
    /// Time of one measurement.
    pub(super) seconds: u32,
    /// Burst that was asked for in bits; `None` when the plugin derives it.
    pub(super) burst: Option<u64>,
    /// Placement that was asked for.
    pub(super) asked: String,
    /// Placement that the plugin took, read from the kernel.
    pub(super) taken: String,
    /// What ADD made, from the kernel, one item per line.
    pub(super) made: Vec<String>,
    /// Wall time of the ADD process in milliseconds.
    pub(super) add_ms: f64,
    /// Wall time of the DEL process in milliseconds.
    pub(super) del_ms: f64,
    /// The two directions.
    pub(super) rows: Vec<Row>,
    /// What was not there before ADD and is there after DEL, or the reverse.
    pub(super) left: Vec<String>,
}

impl Report {
    /// The report as text of several lines.
    pub(super) fn text(&self) -> String {
        let burst = self.burst.map_or("derived".to_owned(), |bits| format!("{bits} bits"));
        let mut lines = vec![
            format!(
                "Linux {}, TCP {}, MTU 1500, {} s per measurement",
                self.kernel, self.congestion, self.seconds
            ),
            format!("placement: {} (asked for: {}), burst: {burst}", self.taken, self.asked),
            format!("ADD took {:.1} ms and made:", self.add_ms),
        ];
        lines.extend(self.made.iter().map(|item| format!("  {item}")));
        lines.push(String::new());
        lines.extend(table(&self.rows));
        lines.push(String::new());
        lines.push(format!(
            "Rates are TCP payload at the receiver; at MTU 1500 the ideal is {:.1} % of the limit. \
             Ping is a UDP echo, median.",
            IDEAL_SHARE * 100.0
        ));
        lines.extend(self.rows.iter().filter_map(Row::note));
        let lost: u32 = self.rows.iter().map(|row| row.ping_idle.lost + row.ping_loaded.lost).sum();
        if lost > 0 {
            lines.push(format!("{lost} pings had no answer."));
        }
        lines.push(format!("DEL took {:.1} ms. {}", self.del_ms, self.left_text()));
        lines.join("\n")
    }

    fn left_text(&self) -> String {
        if self.left.is_empty() {
            "Nothing is left: links and qdiscs of host and pod are as before ADD.".to_owned()
        } else {
            format!("It is NOT as before ADD:\n  {}", self.left.join("\n  "))
        }
    }

    /// The report as one JSON object; units are in the names of the keys.
    pub(super) fn json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "tcp_congestion_control": self.congestion,
            "mtu_bytes": 1500,
            "measurement_seconds": self.seconds,
            "burst_asked_bits": self.burst,
            "placement_asked": self.asked,
            "placement_taken": self.taken,
            "made_by_add": self.made,
            "add_ms": self.add_ms,
            "del_ms": self.del_ms,
            "ideal_share_of_limit": round(IDEAL_SHARE),
            "directions": self.rows.iter().map(row_json).collect::<Vec<_>>(),
            "nothing_left": self.left.is_empty(),
            "left": self.left,
        })
    }
}

fn row_json(row: &Row) -> Value {
    json!({
        "direction": row.direction.to_string(),
        "unlimited_bits_per_second": row.unlimited,
        "limit_bits_per_second": row.limit,
        "first_second_bits_per_second": row.first_second,
        "steady_bits_per_second": row.steady,
        "whole_bits_per_second": row.whole,
        "steady_share_of_limit": round(row.share()),
        "ping_idle": pings_json(&row.ping_idle),
        "ping_under_load": pings_json(&row.ping_loaded),
    })
}

fn pings_json(pings: &Pings) -> Value {
    json!({
        "median_ms": pings.median_ms().map(round),
        "mean_ms": pings.mean_ms().map(round),
        "max_ms": pings.max_ms().map(round),
        "sent": pings.sent(),
        "lost": pings.lost,
    })
}

/// To the last digit that means something.
fn round(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    fn pings(microseconds: &[u64], lost: u32) -> Pings {
        let mut pings = Pings::default();
        (0..lost).for_each(|_| pings.record(None));
        microseconds.iter().for_each(|&us| pings.record(Some(Duration::from_micros(us))));
        pings
    }

    pub(in crate::cli::demo) fn rows() -> Vec<Row> {
        let row = |direction, limit| Row {
            direction,
            unlimited: 23_456_000_000,
            limit,
            first_second: limit * 957 / 1000,
            steady: limit * 956 / 1000,
            whole: limit * 956 / 1000,
            ping_idle: pings(&[40, 50, 60], 0),
            ping_loaded: pings(&[9_000, 10_200, 12_000], 1),
        };
        vec![row(Direction::Ingress, 10_000_000), row(Direction::Egress, 20_000_000)]
    }

    fn report() -> Report {
        Report {
            kernel: "6.1.0".into(),
            congestion: "bbr".into(),
            seconds: 5,
            burst: None,
            asked: "auto".into(),
            taken: "host, root".into(),
            made: vec!["host: qdisc tbf 7062: root on veth-demo".into()],
            add_ms: 3.15,
            del_ms: 25.0,
            rows: rows(),
            left: vec![],
        }
    }

    #[test]
    fn the_text_names_what_the_numbers_depend_on() {
        let text = report().text();
        for part in [
            "Linux 6.1.0, TCP bbr, MTU 1500, 5 s",
            "placement: host, root (asked for: auto), burst: derived",
            "  host: qdisc tbf 7062: root on veth-demo",
            "the ideal is 95.6 % of the limit",
            "2 pings had no answer",
            "Nothing is left",
        ] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
    }

    #[test]
    fn a_share_above_the_ideal_comes_with_the_share_of_the_whole_time() {
        let mut report = report();
        assert!(!report.text().contains("over the whole time"));
        report.rows[1].steady = 20_140_000;
        let note = "egress (from the pod): over the whole time it was 95.6 % of the limit";
        assert!(report.text().contains(note), "{}", report.text());
    }

    #[test]
    fn what_is_left_is_named() {
        let left = vec!["host: link pbe123 (ifb)".to_owned()];
        let report = Report { left, ..report() };
        assert!(report.text().ends_with("NOT as before ADD:\n  host: link pbe123 (ifb)"));
        assert_eq!(report.json()["nothing_left"], false);
    }

    #[test]
    fn json_has_every_number_with_its_unit_in_the_key() {
        let json = report().json();
        let row = &json["directions"][1];
        let cases = [
            (&row["direction"], json!("egress")),
            (&row["unlimited_bits_per_second"], json!(23_456_000_000u64)),
            (&row["limit_bits_per_second"], json!(20_000_000)),
            (&row["first_second_bits_per_second"], json!(19_140_000)),
            (&row["steady_bits_per_second"], json!(19_120_000)),
            (&row["steady_share_of_limit"], json!(0.956)),
            (&row["ping_idle"]["median_ms"], json!(0.05)),
            (&row["ping_under_load"]["mean_ms"], json!(10.4)),
            (&row["ping_under_load"]["max_ms"], json!(12.0)),
            (&row["ping_under_load"]["lost"], json!(1)),
            (&json["placement_taken"], json!("host, root")),
            (&json["nothing_left"], json!(true)),
        ];
        for (got, want) in cases {
            assert_eq!(*got, want);
        }
    }

    #[test]
    fn pings_without_an_answer_are_null_and_said() {
        let mut report = report();
        report.rows[0].ping_loaded = pings(&[], 4);
        assert!(report.text().contains("no answer"));
        assert_eq!(report.json()["directions"][0]["ping_under_load"]["median_ms"], Value::Null);
    }
}
