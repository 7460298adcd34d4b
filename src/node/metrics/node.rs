//! The node's own metrics: what is limited, read from the kernel at each scrape.

use std::collections::{HashMap, HashSet};
use std::fmt::Error;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use prometheus_client::collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::super::inventory::{DIRECTIONS, Measured, Shaped};
use super::super::pace::{Readings, Row};
use super::super::read::Source;
use super::super::show::word_of;
use crate::policy::Direction;

/// Most limits that are told, so that a node cannot flood Prometheus. A node has 110 pods by kubelet's
/// default, with two limits each.
const LIMITS_MAX: usize = 2_000;

/// Namespace, pod, interface and direction: what names a limit in Prometheus.
type Labels = [(&'static str, String); 4];

/// Reads the node at each scrape.
#[derive(Debug)]
pub(super) struct Collector {
    source: Source,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    readings: Readings,
    /// Seconds that each limit held its pod back, since it was first read.
    throttled: HashMap<Labels, f64>,
}

/// One limit as it is told.
struct Limit {
    labels: Labels,
    placement: String,
    measured: Measured,
    throttled_seconds: f64,
}

/// One scrape.
struct Scrape {
    limits: Vec<Limit>,
    hidden: usize,
    problems: usize,
    failed: Option<String>,
    seconds: f64,
}

impl Collector {
    pub(super) fn new(source: Source) -> Self {
        Self { source, state: Mutex::default() }
    }

    fn scrape(&self) -> Scrape {
        let start = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (rows, problems, failed) = match self.source.read() {
            Ok(inventory) => {
                let problems = inventory.problems.len();
                (state.readings.next(inventory, SystemTime::now()), problems, None)
            }
            Err(error) => (Vec::new(), 0, Some(error.to_string())),
        };
        if let Some(error) = &failed {
            eprintln!("pod-bandwidth: metrics: {error}");
        }
        let (limits, hidden) = state.limits(&rows, LIMITS_MAX);
        Scrape { limits, hidden, problems, failed, seconds: start.elapsed().as_secs_f64() }
    }
}

impl State {
    /// What is told of these rows, `max` at most, and how many are not.
    fn limits(&mut self, rows: &[Row], max: usize) -> (Vec<Limit>, usize) {
        let mut told = HashSet::new();
        let mut throttled = HashMap::new();
        let (mut limits, mut hidden) = (Vec::new(), 0);
        for (row, direction) in rows.iter().flat_map(|row| DIRECTIONS.map(|way| (row, way))) {
            let Some(measured) = &row.shaped.limits[direction as usize] else { continue };
            let labels = labels(&row.shaped, direction);
            // The same labels twice make Prometheus refuse all: a pod's old sandbox beside its new one.
            if limits.len() >= max || !told.insert(labels.clone()) {
                hidden += 1;
                continue;
            }
            let more = row.paces[direction as usize].map_or(0.0, |pace| pace.held_back_seconds());
            let seconds = self.throttled.get(&labels).copied().unwrap_or_default() + more;
            throttled.insert(labels.clone(), seconds);
            limits.push(Limit {
                labels,
                placement: row.shaped.placement.to_string(),
                measured: measured.clone(),
                throttled_seconds: seconds,
            });
        }
        self.throttled = throttled;
        (limits, hidden)
    }
}

/// A pod that is not known has its device as the interface: that is one of its kind.
fn labels(shaped: &Shaped, direction: Direction) -> Labels {
    let owner = &shaped.owner;
    let is_known = !owner.name.is_empty() || !owner.container_id.is_empty();
    [
        ("namespace", owner.namespace.clone()),
        ("pod", owner.name.clone()),
        ("interface", if is_known { owner.ifname.clone() } else { shaped.device.clone() }),
        ("direction", direction.to_string()),
    ]
}

impl collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let scrape = self.scrape();
        let mut text = Text(&mut encoder);
        let counters = |limit: &Limit| limit.measured.counters;
        let all = &scrape.limits;
        text.gauges("limit_bytes_per_second", "The limit", all, |limit| {
            limit.measured.limit.whole_bytes()
        })?;
        text.gauges(
            "queue_limit_bytes",
            "Bytes that may wait, the burst included",
            all,
            |limit| u64::from(limit.measured.queue_bytes),
        )?;
        text.counters("bytes", "Bytes that passed the limit", all, |l| counters(l).bytes)?;
        text.counters("packets", "Packets that passed the limit", all, |l| counters(l).packets)?;
        text.counters("dropped_packets", "Packets dropped at the limit", all, |limit| {
            u64::from(counters(limit).drops)
        })?;
        text.counters("overlimits", "Times that a packet had to wait for tokens", all, |limit| {
            u64::from(counters(limit).overlimits)
        })?;
        text.gauges("backlog_bytes", "Bytes that wait now", all, |limit| {
            u64::from(counters(limit).backlog_bytes)
        })?;
        text.gauges("backlog_packets", "Packets that wait now", all, |limit| {
            u64::from(counters(limit).backlog_packets)
        })?;
        let help = "Seconds in which the limit held the pod back, at most, by two scrapes each";
        text.counters("throttled_seconds", help, all, |limit| limit.throttled_seconds)?;
        text.infos(all)?;
        text.of_scrape(&scrape)
    }
}

/// Families of metrics, written one after the other.
struct Text<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Text<'_, '_> {
    fn gauges<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        limits: &[Limit],
        value: impl Fn(&Limit) -> V,
    ) -> Result<(), Error> {
        let mut family =
            self.0.encode_descriptor(name, &sentence(help), None, MetricType::Gauge)?;
        limits
            .iter()
            .try_for_each(|limit| family.encode_family(&limit.labels)?.encode_gauge(&value(limit)))
    }

    fn counters<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        limits: &[Limit],
        value: impl Fn(&Limit) -> V,
    ) -> Result<(), Error> {
        let kind = MetricType::Counter;
        let mut family = self.0.encode_descriptor(name, &sentence(help), None, kind)?;
        limits.iter().try_for_each(|limit| {
            let none: Option<&Exemplar<NoLabelSet, f64>> = None;
            family.encode_family(&limit.labels)?.encode_counter(&value(limit), none)
        })
    }

    /// What changes seldom and is text: labels of a metric that is always 1.
    fn infos(&mut self, limits: &[Limit]) -> Result<(), Error> {
        let help = sentence("Where the limit is, and who set it");
        let mut family = self.0.encode_descriptor("limit_info", &help, None, MetricType::Gauge)?;
        limits.iter().try_for_each(|limit| {
            let set_by = word_of(limit.measured.mark).to_owned();
            let more = [("placement", limit.placement.clone()), ("set_by", set_by)];
            family.encode_family(&(limit.labels.clone(), more))?.encode_gauge(&1u64)
        })
    }

    fn of_scrape(&mut self, scrape: &Scrape) -> Result<(), Error> {
        let mut gauge = |name, help: &str, value: f64| {
            let help = sentence(help);
            self.0.encode_descriptor(name, &help, None, MetricType::Gauge)?.encode_gauge(&value)
        };
        let success = if scrape.failed.is_none() { 1.0 } else { 0.0 };
        gauge(
            "scrape_success",
            "1 where the kernel and the runtime's cache could be read",
            success,
        )?;
        gauge("scrape_duration_seconds", "Time that it took to read them", scrape.seconds)?;
        let unreadable = "Network namespaces of pods that could not be looked into";
        gauge("unreadable_namespaces", unreadable, scrape.problems as f64)?;
        let hidden = "Limits that are not told: beyond the bound on labels, or twice there";
        gauge("hidden_limits", hidden, scrape.hidden as f64)
    }
}

/// As the registry writes the help of what is registered.
fn sentence(help: &str) -> String {
    format!("{help}.")
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
