//! What `top` draws. Rows in, a frame out: no clock, no kernel, no terminal.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row as TableRow, Table};

use super::super::inventory::{DIRECTIONS, Measured};
use super::super::pace::{Pace, Row};
use super::super::show::{bytes, percent, rate};
use crate::text::escape;

/// Readings that a sparkline shows.
const HISTORY: usize = 30;

/// From none of the limit to all of it.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Held back so much of the time is worth a look, and so much is trouble.
const YELLOW_FROM: f64 = 0.3;
const RED_FROM: f64 = 0.9;

/// What comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Order {
    #[default]
    HeldBack,
    Rate,
    Drops,
    Name,
}

impl Order {
    fn next(self) -> Self {
        match self {
            Self::HeldBack => Self::Rate,
            Self::Rate => Self::Drops,
            Self::Drops => Self::Name,
            Self::Name => Self::HeldBack,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::HeldBack => "held back",
            Self::Rate => "rate",
            Self::Drops => "drops",
            Self::Name => "name",
        }
    }

    /// What is equal here keeps the order of the inventory, so that lines do not jump.
    fn compare(self, a: &Entry, b: &Entry) -> Ordering {
        match self {
            Self::HeldBack => {
                let held = b.pace.held_back.total_cmp(&a.pace.held_back);
                held.then(b.pace.drops.cmp(&a.pace.drops))
            }
            Self::Rate => b.pace.bits_per_second.total_cmp(&a.pace.bits_per_second),
            Self::Drops => b.pace.drops.cmp(&a.pace.drops),
            Self::Name => Ordering::Equal,
        }
    }
}

/// Pod, interface and direction.
type Key = (String, String, &'static str);

/// One limit.
#[derive(Debug, Clone)]
struct Entry {
    key: Key,
    placement: String,
    measured: Measured,
    pace: Pace,
}

/// The state of the view.
#[derive(Debug, Default)]
pub(super) struct View {
    entries: Vec<Entry>,
    history: HashMap<Key, VecDeque<f64>>,
    problems: usize,
    order: Order,
    top: usize,
}

impl View {
    /// Takes a reading.
    pub(super) fn take(&mut self, rows: Vec<Row>, problems: usize) {
        self.problems = problems;
        self.entries = rows.iter().flat_map(entries).collect();
        let mut before = std::mem::take(&mut self.history);
        for entry in &self.entries {
            let mut shares = before.remove(&entry.key).unwrap_or_default();
            let share = entry.pace.bits_per_second / entry.measured.limit.0.max(1) as f64;
            shares.push_back(share.min(1.0));
            while shares.len() > HISTORY {
                shares.pop_front();
            }
            self.history.insert(entry.key.clone(), shares);
        }
        self.sort();
        self.scroll(0);
    }

    /// Sorts by something else.
    pub(super) fn next_order(&mut self) {
        self.order = self.order.next();
        self.top = 0;
        self.sort();
    }

    fn sort(&mut self) {
        self.entries.sort_by(|a, b| a.key.cmp(&b.key));
        self.entries.sort_by(|a, b| self.order.compare(a, b));
    }

    /// Moves the lines, down where `lines` is above 0.
    pub(super) fn scroll(&mut self, lines: isize) {
        let last = self.entries.len().saturating_sub(1);
        self.top = self.top.saturating_add_signed(lines).min(last);
    }

    /// Draws it.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
                .areas(frame.area());
        frame.render_widget(Line::from(self.summary()), head);
        if self.entries.is_empty() {
            frame.render_widget(Line::from("Nothing is limited here."), body);
        } else {
            frame.render_widget(self.table(), body);
        }
        let keys = format!("q quit · s sort (by {}) · ↑ ↓ scroll", self.order.name());
        frame.render_widget(Line::from(keys).style(Style::new().add_modifier(Modifier::DIM)), foot);
    }

    fn summary(&self) -> String {
        let held = self.entries.iter().filter(|entry| entry.pace.held_back > 0.0).count();
        let mut text =
            format!("pod-bandwidth   limits: {}   holding back: {held}", self.entries.len());
        if self.problems > 0 {
            text.push_str(&format!("   pods not looked into: {}", self.problems));
        }
        text
    }

    fn table(&self) -> Table<'_> {
        let head = [
            "POD",
            "IF",
            "DIRECTION",
            "PLACEMENT",
            "LIMIT",
            "RATE",
            "HELD",
            "DROPS",
            "BACKLOG",
            "RATE / LIMIT",
        ];
        let widths = [
            Constraint::Min(16),
            Constraint::Length(6),
            Constraint::Length(9),
            Constraint::Length(12),
            Constraint::Length(11),
            Constraint::Length(11),
            Constraint::Length(5),
            Constraint::Length(6),
            Constraint::Length(8),
            Constraint::Length(HISTORY as u16),
        ];
        let rows = self.entries.iter().skip(self.top).map(|entry| self.line(entry));
        let cells = head.into_iter().enumerate().map(|(number, name)| match number {
            4..=8 => right(name.to_owned()),
            _ => Cell::from(name),
        });
        let head = TableRow::new(cells).style(Style::new().add_modifier(Modifier::BOLD));
        Table::new(rows, widths).header(head)
    }

    fn line(&self, entry: &Entry) -> TableRow<'_> {
        let (pod, interface, direction) = &entry.key;
        let style = match entry.pace.held_back {
            held if held >= RED_FROM => Style::new().fg(Color::Red),
            held if held >= YELLOW_FROM => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        TableRow::new([
            Cell::from(escape(pod)),
            Cell::from(escape(interface)),
            Cell::from(*direction),
            Cell::from(entry.placement.clone()),
            right(rate(entry.measured.limit.0 as f64)),
            right(rate(entry.pace.bits_per_second)),
            right(percent(entry.pace.held_back)),
            right(entry.pace.drops.to_string()),
            right(bytes(entry.measured.counters.backlog_bytes.into())),
            Cell::from(self.sparkline(&entry.key)),
        ])
        .style(style)
    }

    fn sparkline(&self, key: &Key) -> String {
        let shares = self.history.get(key).into_iter().flatten();
        let bar = |share: &f64| BARS[((share * 8.0) as usize).min(BARS.len() - 1)];
        shares.map(|share| if *share > 0.0 { bar(share) } else { ' ' }).collect()
    }
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn entries(row: &Row) -> impl Iterator<Item = Entry> {
    let owner = &row.shaped.owner;
    DIRECTIONS.into_iter().filter_map(move |direction| {
        let measured = row.shaped.limits[direction as usize].clone()?;
        // Somebody nobody knows is told by the device.
        let interface = if owner.ifname.is_empty() { &row.shaped.device } else { &owner.ifname };
        Some(Entry {
            key: (owner.pod(), interface.clone(), direction.name()),
            placement: row.shaped.placement.to_string(),
            measured,
            pace: row.paces[direction as usize].unwrap_or_default(),
        })
    })
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
