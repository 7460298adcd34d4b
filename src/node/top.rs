//! `top`: a live view, who is held back hardest first.

mod view;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use thiserror::Error;

use super::pace::Readings;
use super::read::{Filter, ReadError, Source};
use super::show::time;
use view::View;

/// Options of `top`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    filter: Filter,
    /// Time between two readings
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    interval: Duration,
    #[command(flatten)]
    source: Source,
}

/// Shorter and the view would do nothing but read the kernel.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

#[derive(Debug, Error)]
enum TopError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the terminal: {0}; `show --watch` needs none")]
    Terminal(#[from] std::io::Error),
}

/// Runs the command.
pub(super) fn run(options: &Options) -> ExitCode {
    match top(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pod-bandwidth: top: {error}");
            ExitCode::FAILURE
        }
    }
}

fn top(options: &Options) -> Result<(), TopError> {
    // Before the terminal is taken: where nothing can be read, that is said on a normal screen.
    options.source.read()?;
    // Its panic hook gives the terminal back before the panic is printed.
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(&mut terminal, options);
    ratatui::restore();
    outcome
}

fn watch(terminal: &mut DefaultTerminal, options: &Options) -> Result<(), TopError> {
    let interval = options.interval.max(INTERVAL_MIN);
    let (mut readings, mut view) = (Readings::default(), View::default());
    loop {
        let next = Instant::now() + interval;
        let mut inventory = options.source.read()?;
        inventory.retain(|shaped| options.filter.takes(shaped));
        let problems = inventory.problems.len();
        view.take(readings.next(inventory, SystemTime::now()), problems);
        loop {
            terminal.draw(|frame| view.draw(frame))?;
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if !event::poll(left)? {
                continue;
            }
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && !obey(&mut view, key)
            {
                return Ok(());
            }
        }
    }
}

/// Does what a key says; `false` ends the view. In raw mode Ctrl-C is a key, too.
fn obey(view: &mut View, key: KeyEvent) -> bool {
    let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'd') if with_control => return false,
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('s') => view.next_order(),
        KeyCode::Down | KeyCode::Char('j') => view.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => view.scroll(-1),
        KeyCode::PageDown => view.scroll(10),
        KeyCode::PageUp => view.scroll(-10),
        KeyCode::Home => view.scroll(isize::MIN),
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_keys_end_it_and_no_other() {
        let mut view = View::default();
        let mut ends = |code, modifiers| !obey(&mut view, KeyEvent::new(code, modifiers));
        assert!(ends(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(ends(KeyCode::Esc, KeyModifiers::NONE));
        assert!(ends(KeyCode::Char('c'), KeyModifiers::CONTROL));
        for code in [KeyCode::Char('c'), KeyCode::Char('s'), KeyCode::Up, KeyCode::Home] {
            assert!(!ends(code, KeyModifiers::NONE), "{code:?}");
        }
    }
}
