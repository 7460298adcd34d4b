//! The measurements of the demo: which traffic goes where. It knows both ends of
//! the network and makes each socket in the namespace that it belongs to.

use std::io;

use super::measure::{Buckets, Pings};
use super::network::{HOST, Network, POD};
use super::ping::Echo;
use super::progress::Progress;
use super::traffic::Flow;
use super::{Error, Options, read};
use crate::policy::Direction;

/// Pings that are sent while nothing else is.
const IDLE_PINGS: u32 = 10;

/// The TCP congestion controls that this kernel has loaded.
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// A network with what is needed to measure it.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    network: &'a Network,
    options: &'a Options,
    progress: &'a Progress,
    echo: Echo,
    congestion: String,
}

impl<'a> Bench<'a> {
    /// Opens the sockets that serve for the whole time and tries a connection.
    pub(super) fn new(
        network: &'a Network,
        options: &'a Options,
        progress: &'a Progress,
    ) -> Result<Self, Error> {
        let echo = network
            .in_pod(|| Echo::open(POD.address))?
            .and_then(|server| Echo::join(Echo::open(HOST.address)?, server))
            .map_err(|error| Error::step("open the sockets for pings", error, ""))?;
        let mut bench = Self { network, options, progress, echo, congestion: String::new() };
        bench.congestion = bench
            .connect(Direction::Ingress)?
            .congestion()
            .map_err(|error| Error::step("read the TCP congestion control", error, ""))?;
        Ok(bench)
    }

    /// The TCP congestion control of the flows, as the kernel names it.
    pub(super) fn congestion(&self) -> &str {
        &self.congestion
    }

    /// A flow before the plugin was called.
    pub(super) fn unlimited(&self, direction: Direction) -> Result<Buckets, Error> {
        self.flow(direction, &format!("{}, no limit", direction_word(direction)))
    }

    /// A flow under the limit, and pings beside it.
    pub(super) fn limited(&self, direction: Direction) -> Result<(Buckets, Pings), Error> {
        let limit = &self.options.limit(direction).text;
        let what = format!("{}, limit {limit}", direction_word(direction));
        self.echo.settle().map_err(ping_error)?;
        let (flow, pings) = self.echo.ping_during(|| self.flow(direction, &what));
        Ok((flow?, pings.map_err(ping_error)?))
    }

    /// Pings while nothing else is sent.
    pub(super) fn idle(&self) -> Result<Pings, Error> {
        self.progress.line("ping, idle");
        self.echo.ping(IDLE_PINGS).map_err(ping_error)
    }

    fn flow(&self, direction: Direction, what: &str) -> Result<Buckets, Error> {
        let seconds = self.options.seconds;
        let tick = self.progress.measurement(what, seconds);
        let flow = self.connect(direction)?;
        flow.run(seconds, tick).map_err(|error| Error::step(format!("measure {what}"), error, ""))
    }

    /// A connection that sends in this direction.
    fn connect(&self, direction: Direction) -> Result<Flow, Error> {
        let congestion = self.options.congestion.clone();
        let connect = move |target| Flow::connect(target, congestion.as_deref());
        let flow = match direction {
            Direction::Ingress => self
                .network
                .in_pod(|| Flow::listen(POD.address))?
                .and_then(|listener| Flow::join(connect(listener.local_addr()?)?, &listener)),
            Direction::Egress => Flow::listen(HOST.address).and_then(|listener| {
                let target = listener.local_addr()?;
                let sender = self.network.in_pod(move || connect(target));
                Flow::join(sender.map_err(io::Error::other)??, &listener)
            }),
        };
        flow.map_err(|error| {
            let help = match &self.options.congestion {
                Some(name) => format!(
                    "It was asked for TCP congestion control {name:?}; this kernel has: {}",
                    read(AVAILABLE).unwrap_or_default()
                ),
                None => String::new(),
            };
            Error::step(format!("connect for traffic {}", direction_word(direction)), error, &help)
        })
    }
}

fn ping_error(error: io::Error) -> Error {
    Error::step("ping the pod", error, "")
}

fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "to the pod",
        Direction::Egress => "from the pod",
    }
}
