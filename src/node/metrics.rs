//! Metrics: what Prometheus reads, and what the probes ask.
//!
//! The kernel is read when somebody asks, not before: a node that nobody scrapes does nothing.

mod node;
mod server;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use thiserror::Error;

use super::read::Source;

pub use server::serve;

/// What every metric's name begins with.
const PREFIX: &str = "pod_bandwidth";

/// Upper bounds in seconds. The aim is one second from an annotation to the kernel.
const LATENCY_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// What the node agent counts of its own work. Cheap to clone: all clones count together.
#[derive(Debug, Clone)]
pub struct AgentMetrics {
    reconciles: Counter,
    errors: Counter,
    latency: Histogram,
}

impl Default for AgentMetrics {
    fn default() -> Self {
        Self {
            reconciles: Counter::default(),
            errors: Counter::default(),
            latency: Histogram::new(LATENCY_BUCKETS),
        }
    }
}

impl AgentMetrics {
    /// A pod was reconciled, in this time, or it could not be.
    pub fn reconciled(&self, time: Duration, succeeded: bool) {
        self.reconciles.inc();
        if !succeeded {
            self.errors.inc();
        }
        self.latency.observe(time.as_secs_f64());
    }

    fn register(&self, registry: &mut Registry) {
        let reconciles = "Pods whose limits were compared with the kernel, failed ones included";
        registry.register("reconciles", reconciles, self.reconciles.clone());
        let errors = "Reconciles that failed";
        registry.register("reconcile_errors", errors, self.errors.clone());
        let latency = "Time that one reconcile took";
        registry.register_with_unit(
            "reconcile_duration",
            latency,
            Unit::Seconds,
            self.latency.clone(),
        );
    }
}

/// Whether the program does its work, for /readyz. All clones are the same.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Mutex<Result<(), String>>>);

impl Readiness {
    /// Not ready yet, and why.
    pub fn not_yet(reason: &str) -> Self {
        Self(Arc::new(Mutex::new(Err(reason.to_owned()))))
    }

    /// From now on it is ready, or not and why.
    pub fn set(&self, state: Result<(), String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn get(&self) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All that the server tells.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    readiness: Readiness,
}

impl Metrics {
    /// Of the node that `source` reads; with the agent's own where there is an agent.
    pub fn new(source: Source, agent: Option<&AgentMetrics>, readiness: Readiness) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        if let Some(agent) = agent {
            agent.register(&mut registry);
        }
        registry.register_collector(Box::new(node::Collector::new(source)));
        Self { registry, readiness }
    }

    /// Reads the kernel and writes the text of /metrics.
    ///
    /// # Errors
    /// None that is known: text into memory.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Options of `metrics`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Serve /metrics, /healthz and /readyz on this address, in place of printing the metrics once
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Error)]
enum MetricsError {
    #[error("cannot listen on {address}: {error}; choose another with --listen")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    #[error("cannot write the metrics: {0}")]
    Write(#[from] std::fmt::Error),
}

/// Runs the command.
pub(super) fn run(options: Options) -> ExitCode {
    let outcome = match options.listen {
        Some(address) => listen(address, options.source),
        None => print(options.source),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pod-bandwidth: metrics: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(source: Source) -> Result<(), MetricsError> {
    let ready = Readiness(Arc::new(Mutex::new(Ok(()))));
    let text = Metrics::new(source, None, ready).text()?;
    // Whoever read this may have gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn listen(address: SocketAddr, source: Source) -> Result<(), MetricsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(MetricsError::Start)?.block_on(async {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|error| MetricsError::Listen { address, error })?;
        let bound = listener.local_addr().unwrap_or(address);
        eprintln!("pod-bandwidth: metrics on http://{bound}/metrics");
        let ready = Readiness(Arc::new(Mutex::new(Ok(()))));
        serve(listener, Arc::new(Metrics::new(source, None, ready))).await;
        Ok(())
    })
}
