//! The command line of the bench. `scripts/bench` has already built the programs.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

use crate::common::peer;

/// Measures pod-bandwidth and the reference bandwidth plugin side by side, and writes
/// benchmark.md with its plots and the raw numbers as benchmark.json.
///
/// Run it on a quiet machine. Parts that are not named keep the numbers of the run before.
#[derive(Clone, Debug, Parser)]
#[command(name = "scripts/bench")]
pub(crate) struct Options {
    /// What to measure; everything where nothing is named.
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// A minute's run: few repetitions, small numbers. It tests the bench and measures nothing.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Pairs of calls (ours, theirs) for each time.
    #[arg(long)]
    pairs: Option<usize>,

    /// Repetitions of what is measured with traffic.
    #[arg(long)]
    repetitions: Option<usize>,

    /// Only these limits, in Mbit/s, where a part measures several.
    #[arg(long = "rate", value_name = "MBIT")]
    pub(crate) rates: Vec<u64>,

    /// Folder for the page, the plots and the raw numbers [default: docs, target/bench if quick].
    #[arg(long)]
    out: Option<PathBuf>,

    /// Our program, as it is shipped.
    #[arg(long)]
    pub(crate) plugin: PathBuf,

    /// A static program that does nothing: what starting one costs.
    #[arg(long)]
    pub(crate) empty: PathBuf,

    /// Measure nothing: make the page again from benchmark.json.
    #[arg(long)]
    pub(crate) report_only: bool,

    /// `cargo bench` says this.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// What one call costs: time, processor time, memory, and the least that it can be.
    Calls,
    /// Whether that grows with the pods of a node, and 50 calls at once.
    Scale,
    /// What a limit lets through, from the first byte on.
    Limit,
    /// Ping beside a bulk connection.
    Latency,
    /// Processor time for each Gbit.
    Datapath,
    /// A change under load.
    Live,
}

impl Part {
    /// As on the command line, in the JSON and in file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Scale => "scale",
            Self::Limit => "limit",
            Self::Latency => "latency",
            Self::Datapath => "datapath",
            Self::Live => "live",
        }
    }
}

impl Options {
    /// Those to measure, in their order.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let all = Part::value_variants().iter().copied();
        all.filter(|part| self.parts.is_empty() || self.parts.contains(part)).collect()
    }

    /// Pairs of calls.
    pub(crate) fn pairs(&self) -> usize {
        self.pairs.unwrap_or(if self.quick { 3 } else { 60 })
    }

    /// Repetitions of what takes seconds.
    pub(crate) fn repetitions(&self) -> usize {
        self.repetitions.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// Those of `rates` (bit/s) that were asked for; all where nobody asked.
    pub(crate) fn chosen(&self, rates: &[u64]) -> Vec<u64> {
        let is_chosen =
            |rate: &&u64| self.rates.is_empty() || self.rates.contains(&(*rate / 1_000_000));
        rates.iter().filter(is_chosen).copied().collect()
    }

    /// Where everything is written.
    pub(crate) fn out(&self) -> PathBuf {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        self.out.clone().unwrap_or(if self.quick { target } else { docs })
    }

    /// The reference plugin.
    pub(crate) fn reference(&self) -> PathBuf {
        peer("bandwidth").expect("scripts/bench has installed the reference plugins")
    }
}
