//! `pod-bandwidth demo`: the plugin at work in a network of its own, with numbers.
//!
//! It composes: a network that lives as long as the process, a runtime that calls
//! this same executable as the plugin, a traffic generator, and a report.

mod bench;
mod error;
mod inventory;
mod measure;
mod network;
mod options;
mod ping;
mod progress;
mod report;
mod runtime;
mod table;
mod traffic;

use std::fs;
use std::io::{Write, stdout};
use std::process::ExitCode;

pub(super) use options::Options;

use bench::Bench;
use error::Error;
use measure::milliseconds;
use network::Network;
use progress::Progress;
use report::{Report, Row};

use crate::policy::Direction;

/// Runs the demo. The report goes to stdout, everything else to stderr.
///
/// Returns success when all of it ran and DEL left nothing.
pub(super) fn run(options: &Options) -> ExitCode {
    let progress = Progress::new();
    match demo(options, &progress) {
        Ok(report) => {
            let text = if options.json { format!("{:#}", report.json()) } else { report.text() };
            // Not println: it panics when nobody reads, as in `demo | head -1`.
            let written = writeln!(stdout(), "{text}").is_ok();
            if written && report.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            progress.line(format!("pod-bandwidth demo: {error}").trim_end());
            ExitCode::FAILURE
        }
    }
}

fn demo(options: &Options, progress: &Progress) -> Result<Report, Error> {
    // First of all: no thread may have started.
    let network = Network::new()?;
    let bench = Bench::new(&network, options, progress)?;

    let unlimited = [bench.unlimited(Direction::Ingress)?, bench.unlimited(Direction::Egress)?];

    let before = network.inventory()?;
    let config = runtime::config(options, network.netns(), None);
    let add = runtime::call("ADD", network.netns(), &config)?;
    progress.log("ADD", &add);
    let shaped = network.inventory()?;

    let ping_idle = bench.idle()?;
    let mut rows = Vec::new();
    for (direction, unlimited) in [Direction::Ingress, Direction::Egress].into_iter().zip(unlimited)
    {
        let (limited, ping_loaded) = bench.limited(direction)?;
        rows.push(Row {
            direction,
            unlimited: unlimited.whole(),
            limit: options.limit(direction).bits,
            first_second: limited.first_second(),
            steady: limited.steady(),
            whole: limited.whole(),
            ping_idle: ping_idle.clone(),
            ping_loaded,
        });
    }

    // As runtimes do: DEL gets what ADD answered.
    let config = runtime::config(options, network.netns(), Some(&add.result));
    let del = runtime::call("DEL", network.netns(), &config)?;
    progress.log("DEL", &del);
    let after = network.inventory()?;

    Ok(Report {
        kernel: read("/proc/sys/kernel/osrelease")?,
        congestion: bench.congestion().to_owned(),
        seconds: options.seconds,
        burst: options.burst.as_ref().map(|burst| burst.bits),
        asked: options.placement_text(),
        taken: shaped.placement().to_owned(),
        made: shaped.beyond(&before),
        add_ms: milliseconds(add.time),
        del_ms: milliseconds(del.time),
        rows,
        left: after.differences(&before),
    })
}

/// The one line of a file in /proc.
fn read(path: &str) -> Result<String, Error> {
    let text =
        fs::read_to_string(path).map_err(|error| Error::step(format!("read {path}"), error, ""))?;
    Ok(text.trim().to_owned())
}
