//! How far the run is: a bar on a terminal, a line for each part elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// One bar for the parts and one for the steps of the part that runs.
pub(crate) struct Progress {
    parts: ProgressBar,
    steps: ProgressBar,
    began: Instant,
}

impl Progress {
    /// For so many parts.
    pub(crate) fn new(parts: usize) -> Self {
        let style = |text| ProgressStyle::with_template(text).expect("a template");
        let both = MultiProgress::new();
        let bar = |length, text| {
            both.add(ProgressBar::new(length).with_style(style(text)).with_message("…"))
        };
        let parts = bar(parts as u64, "{msg:10} {bar:30} part {pos} of {len}, {elapsed}");
        let steps = bar(1, "{msg:10} {bar:30} {pos} of {len}, {eta} left");
        steps.enable_steady_tick(Duration::from_millis(500));
        Self { parts, steps, began: Instant::now() }
    }

    /// A part begins.
    pub(crate) fn part(&self, name: &str) {
        self.parts.set_message(name.to_owned());
        self.steps.reset();
    }

    /// The part has so many steps.
    pub(crate) fn steps(&self, count: usize) {
        self.steps.set_length(count as u64);
    }

    /// One step of the part is done, and this comes next.
    pub(crate) fn step(&self, next: &str) {
        self.steps.set_message(next.to_owned());
        self.steps.inc(1);
    }

    /// The part is measured.
    pub(crate) fn part_done(&self, name: &str) {
        self.parts.inc(1);
        if !std::io::stderr().is_terminal() {
            eprintln!("bench: {name} done, {} s so far", self.began.elapsed().as_secs());
        }
    }

    /// All is measured.
    pub(crate) fn end(&self) {
        self.steps.finish_and_clear();
        self.parts.finish_and_clear();
    }
}
