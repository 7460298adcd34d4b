//! The node agent: follows the annotations of this node's running pods.
//!
//! It waits for four things: changes at the API server, changes that the kernel tells of, its slow look
//! at everything, and the end. All work is done here, on one thread; the kernel is the only state, and
//! what is remembered only keeps the log short.

mod attachments;
mod backoff;
mod cluster;
mod listed;
mod sweeper;
mod traces;
mod wanted;
mod worker;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::stream::StreamExt;
use kube::Client;
use kube::runtime::watcher::Event;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use self::attachments::Attachments;
use self::cluster::{Events, Seen, watch};
use self::listed::Changed;
use self::sweeper::Sweeper;
use self::wanted::{PodName, Wanted};
use self::worker::{Problem, Why, Worker};
use super::cache;
use super::call::{self, Folders};
use super::metrics::{AgentMetrics, Metrics, Readiness, serve};
use super::read::Source;
use crate::kernel::monitor::{Changes, Monitor};
use crate::kernel::{KernelError, probe};
use crate::log::Log;
use crate::shaping::mark::SHOWN_SINCE;

/// How often everything is looked at, changed or not: what is inside a pod's namespace tells nobody.
const SLOW_LOOK: Duration = Duration::from_secs(30);

/// How long the kernel's news wait before they are followed. A DEL of the runtime takes the qdisc away
/// a moment before the rest of the pod, and then there is nothing to repair.
const REPAIR_WAIT: Duration = Duration::from_secs(2);

/// Changes at the API server that are followed together: the cache is then read once.
const TOGETHER: usize = 256;

/// Where, and for which node.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The name of this node at the API server
    #[arg(long, value_name = "NAME")]
    node_name: String,
    /// Folder in which the runtime keeps which pod is which
    #[arg(long, value_name = "FOLDER", default_value = cache::FOLDER)]
    cache_dir: PathBuf,
    /// Folder of the node's CNI lists, for pods that ran before the plugin was installed
    #[arg(long, value_name = "FOLDER", default_value = call::NET_FOLDER)]
    net_dir: PathBuf,
    /// Folder in which this process sees the node's network namespaces [default: where the cache says]
    #[arg(long, value_name = "FOLDER")]
    netns_dir: Option<PathBuf>,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9464")]
    listen: SocketAddr,
}

/// Why the agent cannot work.
#[derive(Debug, Error)]
enum AgentError {
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    #[error(
        "there is no way to the API server: {0}; run it in a pod with a ServiceAccount, or set KUBECONFIG"
    )]
    Client(#[from] Box<kube::Error>),
    #[error("cannot listen on {address}: {error}; choose another address with --listen")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("{0}")]
    Kernel(#[from] KernelError),
    #[error("{0} has ended, which it never should")]
    Ended(&'static str),
}

/// Runs until SIGTERM or SIGINT, and leaves all limits as they are.
pub(super) fn run(options: Options) -> ExitCode {
    let log = Log::open(&<_>::default(), format!("agent on {}", options.node_name));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(AgentError::from).and_then(|runtime| {
        runtime.block_on(async {
            let client = Client::try_default().await.map_err(Box::new)?;
            Agent::new(&options, client, &log).work().await
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

struct Agent<'a> {
    options: &'a Options,
    log: &'a Log,
    client: Client,
    events: Events,
    wanted: Wanted,
    worker: Worker,
    sweeper: Sweeper,
    metrics: AgentMetrics,
    readiness: Readiness,
    attachments: Attachments,
    /// Told once.
    away: bool,
}

impl<'a> Agent<'a> {
    fn new(options: &'a Options, client: Client, log: &'a Log) -> Self {
        let folders = Folders { net: options.net_dir.clone(), netns: options.netns_dir.clone() };
        let metrics = AgentMetrics::default();
        Self {
            options,
            log,
            events: Events::new(client.clone(), &options.node_name),
            client,
            wanted: Wanted::default(),
            attachments: Attachments::new(options.cache_dir.clone(), folders.clone()),
            worker: Worker::new(folders, metrics.clone()),
            sweeper: Sweeper::default(),
            metrics,
            readiness: Readiness::not_yet("the API server has not told of the pods yet"),
            away: false,
        }
    }

    async fn work(mut self) -> Result<(), AgentError> {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        // Before the first look, so that nothing is missed between.
        let mut kernel = Monitor::open()?;
        let mut server = pin!(serve(self.listener().await?, Arc::new(self.metrics())));
        let mut seen = pin!(watch(&self.client, &self.options.node_name).ready_chunks(TOGETHER));
        let mut slow = interval_at(Instant::now() + SLOW_LOOK, SLOW_LOOK);
        slow.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changed = Repairs::default();
        self.log.info("started");
        if matches!(probe::shows_marks(), Ok(false)) {
            self.log.warn(&format!(
                "this kernel does not keep who set a limit ({SHOWN_SINCE} and later do): CHECK fails for \
                 pods whose limit the agent has changed, and set is refused"
            ));
        }
        loop {
            tokio::select! {
                _ = terminated.recv() => break,
                _ = interrupted.recv() => break,
                seen = seen.next() => {
                    let seen = seen.ok_or(AgentError::Ended("the watch on the API server"))?;
                    if self.follow(seen) {
                        // Two looks that are to be apart are.
                        slow.reset();
                        self.look_at_all();
                    }
                }
                news = kernel.changes() => {
                    let mut news = news?;
                    let resized = self.worker.resized(&news.mtus);
                    self.repair(&resized, false);
                    // The pod's own end may follow a moment later, and nothing is told of that here.
                    news.interfaces.extend(resized);
                    changed.add(news);
                }
                () = sleep_until(changed.due()), if changed.is_any() => {
                    let Repairs { interfaces, missed, .. } = std::mem::take(&mut changed);
                    self.repair(&interfaces, missed);
                }
                _ = slow.tick() => self.look_at_all(),
                () = &mut server => return Err(AgentError::Ended("the HTTP server")),
            }
        }
        self.log.info("ended; all limits stay as they are");
        Ok(())
    }

    async fn listener(&self) -> Result<TcpListener, AgentError> {
        let address = self.options.listen;
        let listener = TcpListener::bind(address).await;
        listener.map_err(|error| AgentError::Listen { address, error })
    }

    fn metrics(&self) -> Metrics {
        let source = Source { cache: self.options.cache_dir.clone() };
        Metrics::new(source, Some(&self.metrics), self.readiness.clone())
    }

    /// Follows what the API server said. Whether that made all pods known for the first time, and so
    /// is to be followed by a look at all.
    fn follow(&mut self, all: Vec<Seen>) -> bool {
        let (mut pods, mut every) = (BTreeSet::new(), false);
        let was_complete = self.wanted.is_complete();
        for seen in all {
            self.tell_connection(&seen);
            match seen {
                Seen::Pods(event) => match self.wanted.pods_changed(event) {
                    Changed::Nothing => {}
                    Changed::One(name) => drop(pods.insert(name)),
                    Changed::All => every = true,
                },
                Seen::Namespaces(event) => every |= self.wanted.namespaces_changed(event),
                Seen::Away(_) => {}
            }
        }
        if !self.wanted.is_complete() {
            return false;
        }
        if !was_complete {
            self.log.info(&format!("{} pods are known", self.wanted.pods().count()));
            self.readiness.set(Ok(()));
            return true;
        }
        if every {
            pods = self.all_pods();
        }
        self.look(&pods);
        false
    }

    fn all_pods(&self) -> BTreeSet<PodName> {
        self.wanted.pods().map(|(name, _)| name.clone()).collect()
    }

    fn tell_connection(&mut self, seen: &Seen) {
        match seen {
            Seen::Away(error) if !self.away => {
                self.away = true;
                self.log.warn(&format!("{error}; all limits stay, and it is tried again"));
            }
            // A list begins before anybody has answered.
            Seen::Pods(Event::Init) | Seen::Namespaces(Event::Init) => {}
            Seen::Pods(_) | Seen::Namespaces(_) if self.away => {
                self.away = false;
                self.log.info("the API server is there again");
            }
            _ => {}
        }
    }

    fn look(&mut self, pods: &BTreeSet<PodName>) {
        if pods.is_empty() {
            return;
        }
        let Some(cache) = self.attachments.read(self.log) else { return };
        let problems = self.worker.look(pods, &self.wanted, &cache, Why::Changed);
        self.tell(problems);
    }

    /// Looks at pods whose interfaces somebody changed; at all, if some of the news was missed.
    fn repair(&mut self, interfaces: &BTreeSet<u32>, missed: bool) {
        if !self.wanted.is_complete() {
            return;
        }
        let pods = match missed {
            true => self.all_pods(),
            false => self.worker.pods_on(interfaces),
        };
        self.look(&pods);
    }

    fn look_at_all(&mut self) {
        let Some(cache) = self.attachments.look(&self.wanted, self.log) else { return };
        if self.wanted.is_complete() {
            let problems = self.worker.look_at_all(&self.wanted, &cache, self.log);
            self.tell(problems);
        }
        // Not a matter of the API server: the runtime's cache says what is there.
        self.sweeper.sweep(&cache, self.log);
    }

    fn tell(&self, problems: Vec<Problem>) {
        for Problem { pod, reason, message } in problems {
            let uid = self.wanted.pod(&pod).map_or("", |known| known.api_uid.as_str());
            self.events.tell(&pod, uid, reason, &message);
        }
    }
}

/// What the kernel told of, until it is followed.
#[derive(Debug, Default)]
struct Repairs {
    interfaces: BTreeSet<u32>,
    missed: bool,
    since: Option<Instant>,
}

impl Repairs {
    fn add(&mut self, changes: Changes) {
        if changes.missed || !changes.interfaces.is_empty() {
            self.since.get_or_insert_with(Instant::now);
        }
        self.interfaces.extend(changes.interfaces);
        self.missed |= changes.missed;
    }

    fn is_any(&self) -> bool {
        self.since.is_some()
    }

    fn due(&self) -> Instant {
        self.since.unwrap_or_else(Instant::now) + REPAIR_WAIT
    }
}
