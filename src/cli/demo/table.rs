//! The table of the report: rows in, lines out.

use super::measure::Pings;
use super::report::Row;

/// Lines of the table: the first column flush left, the others right.
pub(super) fn table(rows: &[Row]) -> Vec<String> {
    let head = [
        "direction",
        "unlimited",
        "limit",
        "first second",
        "steady",
        "of limit",
        "ping idle",
        "under load",
    ];
    let mut cells = vec![head.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        [
            row.direction.described().to_string(),
            rate(row.unlimited),
            rate(row.limit),
            rate(row.first_second),
            rate(row.steady),
            format!("{:.1} %", row.share() * 100.0),
            ping(&row.ping_idle),
            ping(&row.ping_loaded),
        ]
    }));
    let width: [usize; 8] =
        std::array::from_fn(|column| cells.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let mut lines: Vec<String> = cells
        .iter()
        .map(|row| {
            let mut line = format!("{:<w$}", row[0], w = width[0]);
            for (cell, w) in row.iter().zip(width).skip(1) {
                line.push_str(&format!("  {cell:>w$}"));
            }
            line
        })
        .collect();
    lines.insert(1, "-".repeat(width.iter().sum::<usize>() + 2 * (width.len() - 1)));
    lines
}

/// Bits per second with three digits and a unit.
pub(super) fn rate(bits_per_second: u64) -> String {
    const UNITS: [(u64, &str); 3] =
        [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1000, "kbit/s")];
    for (size, unit) in UNITS {
        // From 999.5 of the unit below on, three digits make one of this unit.
        if bits_per_second >= size - size / 2000 {
            let number = bits_per_second as f64 / size as f64;
            return format!("{} {unit}", three_digits(number));
        }
    }
    format!("{bits_per_second} bit/s")
}

fn ping(pings: &Pings) -> String {
    pings.median_ms().map_or("no answer".to_owned(), |ms| format!("{} ms", three_digits(ms)))
}

/// At most three digits, but never fewer than the whole part has; small numbers
/// keep two places.
fn three_digits(number: f64) -> String {
    match number {
        n if n >= 99.95 => format!("{n:.0}"),
        n if n >= 9.995 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::report::tests::rows;

    #[test]
    fn the_table_has_a_line_per_direction_and_its_columns_line_up() {
        let want = "\
direction                unlimited        limit  first second       steady  of limit  ping idle  under load
-----------------------------------------------------------------------------------------------------------
ingress (to the pod)   23.5 Gbit/s  10.0 Mbit/s   9.57 Mbit/s  9.56 Mbit/s    95.6 %    0.05 ms     10.2 ms
egress (from the pod)  23.5 Gbit/s  20.0 Mbit/s   19.1 Mbit/s  19.1 Mbit/s    95.6 %    0.05 ms     10.2 ms";
        assert_eq!(table(&rows()).join("\n"), want);
    }

    #[test]
    fn rates_have_three_digits_and_a_unit() {
        let cases = [
            (0, "0 bit/s"),
            (999, "999 bit/s"),
            (1000, "1.00 kbit/s"),
            (9_560_000, "9.56 Mbit/s"),
            (99_960_000, "100 Mbit/s"),
            (999_499_999, "999 Mbit/s"),
            (999_500_000, "1.00 Gbit/s"),
            (23_456_000_000, "23.5 Gbit/s"),
            (1_000_000_000_000, "1000 Gbit/s"),
        ];
        for (bits, want) in cases {
            assert_eq!(rate(bits), want);
        }
    }
}
