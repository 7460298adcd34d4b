//! `show`: what is limited on this node, and how each pod fares.

mod json;
mod table;
mod words;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};

use super::pace::Readings;
use super::read::{Filter, ReadError, Source};

pub(super) use words::{bytes, percent, rate, time, word_of};

/// Options of `show`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    filter: Filter,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Print again after each interval, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Time between two readings, which give the rates; 0s reads once and prints no rates
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = words::time)]
    interval: Duration,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line for each limit
    #[default]
    Table,
    /// The same with devices, sizes and counters, and filters of other programs before a limit
    Wide,
    /// For programs; docs/see.md has its fields. With --watch, one line for each reading
    Json,
}

/// Clears a terminal: cursor home, then all below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Runs the command.
pub(super) fn run(options: &Options) -> ExitCode {
    match show(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pod-bandwidth: show: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(options: &Options) -> Result<(), ReadError> {
    let mut readings = Readings::default();
    let is_single = options.interval.is_zero();
    let mut is_first = !is_single;
    loop {
        let mut inventory = options.source.read()?;
        inventory.retain(|shaped| options.filter.takes(shaped));
        if !is_first && options.output != Output::Table {
            options.source.read_shadows(&mut inventory)?;
        }
        let (now, problems) = (SystemTime::now(), inventory.problems.clone());
        let rows = readings.next(inventory, now);
        if !is_first {
            let text = match options.output {
                Output::Table => table::narrow(&rows),
                Output::Wide => table::wide(&rows, now),
                Output::Json => json::text(&rows, &problems, now, options.watch),
            };
            // Whoever read this has gone: `show --watch | head`.
            if print(&text, options).is_err() {
                return Ok(());
            }
            if options.output != Output::Json {
                problems.iter().for_each(|problem| eprintln!("pod-bandwidth: {problem}"));
            }
            if !options.watch {
                return Ok(());
            }
        }
        is_first = false;
        std::thread::sleep(if is_single { Duration::from_secs(1) } else { options.interval });
    }
}

fn print(text: &str, options: &Options) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if options.watch && options.output != Output::Json && out.is_terminal() {
        out.write_all(CLEAR.as_bytes())?;
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}
