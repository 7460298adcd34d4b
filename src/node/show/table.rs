//! The tables of `show`: a line for each limit.

use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, Table, presets};

use super::super::inventory::{DIRECTIONS, Measured, Shaped};
use super::super::pace::{Pace, Row};
use super::words::{bytes, percent, rate, word_of};
use crate::policy::Direction;
use crate::text::escape;

/// One limit of a row.
struct Line<'a> {
    shaped: &'a Shaped,
    direction: Direction,
    measured: &'a Measured,
    pace: Option<Pace>,
}

/// What a column is named, whether it is a number, and its cell.
type Column = (&'static str, bool, fn(&Line<'_>) -> String);

const COLUMNS: [Column; 9] = [
    ("POD", false, |line| escape(&line.shaped.owner.pod())),
    ("INTERFACE", false, |line| escape(&line.shaped.owner.ifname)),
    ("PLACEMENT", false, |line| line.shaped.placement.to_string()),
    ("DIRECTION", false, |line| line.direction.to_string()),
    ("LIMIT", true, |line| rate(line.measured.limit.0 as f64)),
    ("RATE", true, |line| line.pace(|pace| rate(pace.bits_per_second))),
    ("HELD BACK", true, |line| line.pace(|pace| percent(pace.held_back))),
    ("DROPS", true, |line| line.measured.counters.drops.to_string()),
    ("BACKLOG", true, |line| bytes(line.measured.counters.backlog_bytes.into())),
];

const MORE: [Column; 9] = [
    ("DEVICE", false, |line| line.measured.device.clone()),
    ("SET BY", false, |line| word_of(line.measured.mark).into()),
    ("BURST", true, |line| bytes(line.measured.burst_bytes.into())),
    ("QUEUE", true, |line| bytes(line.measured.queue_bytes.into())),
    ("PASSED", true, |line| bytes(line.measured.counters.bytes)),
    ("PACKETS", true, |line| line.measured.counters.packets.to_string()),
    ("OVERLIMITS", true, |line| line.measured.counters.overlimits.to_string()),
    ("NETWORK", false, |line| escape(&line.shaped.owner.network)),
    ("CONTAINER", false, |line| short(&line.shaped.owner.container_id)),
];

impl Line<'_> {
    fn pace(&self, word: impl Fn(Pace) -> String) -> String {
        self.pace.map_or("-".into(), word)
    }

    fn held_for(&self, now: SystemTime) -> String {
        let since = self.pace.and_then(|pace| pace.held_back_since);
        let time = since.and_then(|since| now.duration_since(since).ok());
        time.map_or("-".into(), |time| {
            humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
        })
    }
}

/// As many characters of a container ID as crictl prints.
fn short(id: &str) -> String {
    escape(&id.chars().take(13).collect::<String>())
}

/// For a terminal of usual width.
pub(super) fn narrow(rows: &[Row]) -> String {
    text(rows, &COLUMNS, None)
}

/// With all that is known.
pub(super) fn wide(rows: &[Row], now: SystemTime) -> String {
    let notes = rows.iter().flat_map(|row| {
        let owner = &row.shaped.owner;
        let whose = escape(&format!("{} {}", owner.pod(), owner.ifname));
        row.shaped.shadows.iter().map(move |shadow| format!("{whose}: {shadow}\n"))
    });
    text(rows, &[&COLUMNS[..], &MORE].concat(), Some(now)) + &notes.collect::<String>()
}

fn text(rows: &[Row], columns: &[Column], now: Option<SystemTime>) -> String {
    if rows.is_empty() {
        return "Nothing is limited here.\n".into();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let held_for = now.map(|_| "HELD FOR".to_owned());
    let head = columns.iter().map(|(name, ..)| (*name).to_owned()).chain(held_for);
    table.set_header(head.collect::<Vec<_>>());
    for line in rows.iter().flat_map(lines) {
        let cells = columns.iter().map(|(_, _, cell)| cell(&line));
        table.add_row(cells.chain(now.map(|now| line.held_for(now))).collect::<Vec<_>>());
    }
    for (column, (_, is_number, _)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if *is_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn lines(row: &Row) -> impl Iterator<Item = Line<'_>> {
    DIRECTIONS.into_iter().filter_map(|direction| {
        let measured = row.shaped.limits[direction as usize].as_ref()?;
        let pace = row.paces[direction as usize];
        Some(Line { shaped: &row.shaped, direction, measured, pace })
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::pace::Readings;
    use super::*;
    use crate::node::samples;

    #[test]
    fn a_line_for_each_limit_with_what_it_is_and_how_it_fares() {
        let rows = samples::rows();
        let text = narrow(&rows);
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("POD "), "{text}");
        assert_eq!(
            words(lines[1]).join(" "),
            "shop/cart eth0 host (root) ingress 8 Mbit/s 8 Mbit/s 100 % 12 3.04 kB"
        );
        assert_eq!(
            words(lines[2]).join(" "),
            "shop/cart eth0 host (root) egress 20 Mbit/s 0 bit/s 0 % 0 0 B"
        );
    }

    #[test]
    fn wide_says_who_set_it_and_on_which_device() {
        let text = wide(&samples::rows(), SystemTime::now());
        let note = "shop/cart eth0: veth0 has a flower filter (pref 1, protocol ip)";
        for word in ["SET BY", "hand", "veth0", "HELD FOR", "k8s-pod-network", note] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn a_first_reading_has_no_rates_and_an_empty_one_says_so() {
        let rows = Readings::default().next(samples::inventory(0, 0), SystemTime::now());
        assert!(narrow(&rows).lines().nth(1).is_some_and(|line| line.contains(" - ")));
        assert_eq!(narrow(&[]), "Nothing is limited here.\n");
    }

    #[test]
    fn a_pods_text_cannot_write_to_the_terminal() {
        let mut rows = samples::rows();
        rows[0].shaped.owner.name = "a\u{1b}[2J".into();
        assert!(!narrow(&rows).contains('\u{1b}'));
    }
}
