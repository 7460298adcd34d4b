//! Progress on stderr: a bar where that is a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::measure::milliseconds;
use super::runtime::Answer;
use super::table::rate;

/// Tells what the demo does at the moment.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
}

impl Progress {
    /// Progress on stderr as it is.
    pub(super) fn new() -> Self {
        Self { terminal: stderr().is_terminal() }
    }

    /// One line that stays.
    pub(super) fn line(&self, text: &str) {
        // A stderr that nobody reads is no reason to stop.
        let _ = writeln!(stderr(), "{text}");
    }

    /// How long a call of the plugin took and what it said on stderr.
    pub(super) fn log(&self, verb: &str, answer: &Answer) {
        self.line(&format!("{verb} took {:.1} ms", milliseconds(answer.time)));
        answer.log.lines().for_each(|line| self.line(&format!("  {line}")));
    }

    /// Shows a measurement of `seconds` and returns what is to be called on the
    /// way with (time since its start, bytes since the last call). The rate of
    /// those bytes is shown as the present one.
    pub(super) fn measurement(&self, what: &str, seconds: u32) -> impl FnMut(Duration, u64) {
        let bar = if self.terminal { bar(what, seconds) } else { ProgressBar::hidden() };
        if !self.terminal {
            self.line(&format!("{what}, {seconds} s"));
        }
        let mut before = Duration::ZERO;
        move |time, bytes| {
            bar.set_position(time.as_millis() as u64);
            let passed = time.saturating_sub(before).as_nanos();
            if let Some(now) = (u128::from(bytes) * 8 * 1_000_000_000).checked_div(passed) {
                bar.set_message(rate(now as u64));
            }
            before = time;
            if time >= Duration::from_secs(seconds.into()) {
                bar.finish_and_clear();
            }
        }
    }
}

/// A bar that counts milliseconds.
fn bar(what: &str, seconds: u32) -> ProgressBar {
    let bar = ProgressBar::new(u64::from(seconds) * 1000);
    // The template is a constant; were it wrong, the default style serves.
    if let Ok(style) = ProgressStyle::with_template("{prefix:34} [{bar:30}] {msg:>14}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what.to_owned());
    bar
}
