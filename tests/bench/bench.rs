//! `scripts/bench`: this plugin and the reference `bandwidth` plugin side by side, on this machine.
//!
//! Each part measures one thing and gives raw numbers as JSON. The page and its plots are made from
//! that JSON alone (`report`), so a part can be measured again, and the page made again, without
//! the others. Parts use the harness of the tests (`tests/common`): private namespaces, and
//! `tc` and `ip` as witnesses.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what cannot be measured ends the run"
)]

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod datapath;
mod floor;
mod frames;
mod latency;
mod limit;
mod live;
mod machine;
mod options;
mod plots;
mod process;
mod progress;
mod report;
mod scale;
mod senders;
mod shaped;
mod statistics;
mod subject;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};

use options::{Options, Part};
use progress::Progress;

/// What every part gets.
struct Run {
    options: Options,
    progress: Progress,
}

fn main() -> ExitCode {
    senders::play_if_asked();
    // Plays the sender or receiver of a measurement where this process was started as one.
    let Some(lab) = common::Lab::open() else {
        eprintln!("bench: no private network namespaces here, so nothing can be measured");
        return ExitCode::FAILURE;
    };
    drop(lab);
    let options = Options::parse();
    let data_file = options.out().join("benchmark.json");
    let mut data = read(&data_file).unwrap_or_else(|| json!({"parts": {}}));
    if !options.report_only {
        let parts = options.parts();
        let progress = Progress::new(parts.len());
        let run = Run { options: options.clone(), progress };
        for part in parts {
            let began = std::time::Instant::now();
            run.progress.part(part.name());
            let mut measured = measure(&run, part);
            measured["machine"] = machine::facts(&run.options);
            measured["quick"] = json!(run.options.quick);
            measured["seconds"] = json!(began.elapsed().as_secs());
            data["parts"][part.name()] = measured;
            // After each part: a run that is ended early loses one part only.
            write(&data_file, &format!("{data:#}\n"));
            run.progress.part_done(part.name());
        }
        run.progress.end();
    }
    for (name, text) in report::files(&data) {
        write(&options.out().join(name), &text);
    }
    print!("{}", report::verdict(&data));
    println!("page: {}", options.out().join("benchmark.md").display());
    ExitCode::SUCCESS
}

fn measure(run: &Run, part: Part) -> Value {
    match part {
        Part::Calls => calls::measure(run),
        Part::Scale => scale::measure(run),
        Part::Limit => limit::measure(run),
        Part::Latency => latency::measure(run),
        Part::Datapath => datapath::measure(run),
        Part::Live => live::measure(run),
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn write(path: &Path, text: &str) {
    let folder = path.parent().expect("a file is in a folder");
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
