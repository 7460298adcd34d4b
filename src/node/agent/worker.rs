//! The work: brings attachments to what is wanted, and remembers of each what it took and what went
//! wrong, so that nothing is told twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::wanted::{KnownPod, PodName, Wanted};
use crate::cni::error::Code;
use crate::kernel::{Socket, link};
use crate::log::Log;
use crate::node::cache::{Attached, Cache};
use crate::node::call::{Call, CallError, Folders};
use crate::node::metrics::AgentMetrics;
use crate::plugin::error::ReconcileError;
use crate::plugin::reconcile::{Keep, Outcome, Wish, reconcile};
use crate::policy::{Direction, Limits};
use crate::shaping::tag::Tag;
use crate::shaping::{Mark, Side};

/// A slow look leaves pods alone that have nothing and are to have nothing, but for each of so many.
const IDLE_LOOKS: u32 = 10;

/// The same of pods that are limited on the host: the kernel tells of what is changed there, and looks
/// are for what it may have missed. Different pods have their turn at different looks.
const HOST_LOOKS: u32 = 4;

/// The interface that kubelet asks for: it always has this name.
const KUBELETS: &str = "eth0";

/// The agent's hands.
#[derive(Debug)]
pub(super) struct Worker {
    folders: Folders,
    /// By the attachment's tag.
    known: BTreeMap<Tag, Known>,
    looks: u32,
    /// How many namespaces a slow look could enter, and how many it could not though their file is there.
    entered: u32,
    hidden: u32,
    metrics: AgentMetrics,
}

/// What is known of an attachment.
#[derive(Debug)]
struct Known {
    pod: PodName,
    /// What was last brought about.
    limits: Option<Limits>,
    /// Of how many slow looks it may be left out of all but one.
    every: u32,
    /// Which one.
    turn: u32,
    /// MTUs by the indexes of the interfaces on the host that it rests on.
    interfaces: BTreeMap<u32, u32>,
    /// What was told last.
    problem: Option<String>,
}

/// What is wrong with a pod, told once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Which pod.
    pub(super) pod: PodName,
    /// For the Event's reason.
    pub(super) reason: &'static str,
    /// In words.
    pub(super) message: String,
}

/// Why a pod is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The API server or the kernel said that something has changed.
    Changed,
    /// It is time again.
    Slow,
}

impl Worker {
    /// One that has done nothing yet.
    pub(super) fn new(folders: Folders, metrics: AgentMetrics) -> Self {
        Self { folders, known: BTreeMap::new(), looks: 0, entered: 0, hidden: 0, metrics }
    }

    /// Looks at these pods. Returns what is newly wrong.
    pub(super) fn look<'a>(
        &mut self,
        pods: impl IntoIterator<Item = &'a PodName>,
        wanted: &Wanted,
        cache: &Cache,
        why: Why,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        for name in pods {
            let Some(pod) = wanted.pod(name).filter(|pod| !pod.ends) else { continue };
            for attached in cache.of_pod(&name.namespace, &name.name) {
                // An older sandbox of the name, whose DEL is still to come.
                if !attached.uid.is_empty() && attached.uid != pod.uid {
                    continue;
                }
                problems.extend(self.look_at(name, pod, wanted, attached, why));
            }
        }
        problems
    }

    /// Looks at all pods, and forgets attachments that are gone. Says on `log` where this process does
    /// not see their namespaces.
    pub(super) fn look_at_all(
        &mut self,
        wanted: &Wanted,
        cache: &Cache,
        log: &Log,
    ) -> Vec<Problem> {
        self.looks = self.looks.wrapping_add(1);
        let was_blind = self.is_blind();
        (self.entered, self.hidden) = (0, 0);
        let there: BTreeSet<Tag> = cache.attached.iter().map(Attached::tag).collect();
        self.known.retain(|tag, _| there.contains(tag));
        let problems = self.look(wanted.pods().map(|(name, _)| name), wanted, cache, Why::Slow);
        if self.is_blind() && !was_blind {
            log.error(
                "the files of all pods' network namespaces are there, and none is a namespace here: \
                 in a pod, mount the node's /var/run/netns with mountPropagation: HostToContainer",
            );
        }
        problems
    }

    /// Whether no namespace at all can be entered. A single one may be just going away.
    fn is_blind(&self) -> bool {
        self.entered == 0 && self.hidden > 0
    }

    /// The pods that rest on one of these interfaces.
    pub(super) fn pods_on(&self, interfaces: &BTreeSet<u32>) -> BTreeSet<PodName> {
        let rests = |known: &&Known| known.interfaces.keys().any(|own| interfaces.contains(own));
        self.known.values().filter(rests).map(|known| known.pod.clone()).collect()
    }

    /// The interfaces of pods, of those that the kernel told of, that have another MTU now.
    pub(super) fn resized(&mut self, now: &BTreeMap<u32, u32>) -> BTreeSet<u32> {
        let mut resized = BTreeSet::new();
        for (index, mtu) in self.known.values_mut().flat_map(|known| &mut known.interfaces) {
            if let Some(now) = now.get(index).filter(|now| *now != mtu) {
                *mtu = *now;
                resized.insert(*index);
            }
        }
        resized
    }

    fn look_at(
        &mut self,
        name: &PodName,
        pod: &KnownPod,
        wanted: &Wanted,
        attached: &Attached,
        why: Why,
    ) -> Option<Problem> {
        let (looks, count) = (self.looks, self.known.len() as u32);
        let known = self.known.entry(attached.tag()).or_insert_with(|| Known {
            pod: name.clone(),
            limits: None,
            every: 1,
            turn: count,
            interfaces: BTreeMap::new(),
            problem: None,
        });
        let log = Log::open(&<_>::default(), format!("pod {name} interface {}", attached.ifname));
        let annotations = wanted.annotations(name, pod);
        let call = Call::new(attached, &self.folders).map_err(Trouble::Call);
        let asks = !annotations.is_empty() && attached.ifname == KUBELETS;
        if matches!(call, Err(Trouble::Call(CallError::NotInList { .. }))) && !asks {
            // Another network's interface, or lo: no business of ours.
            return None;
        }
        let is_there = call.as_ref().is_ok_and(|call| call.netns.exists());
        let result = call.and_then(|call| {
            let (limits, trouble) = match call.limits(&annotations) {
                Ok(limits) => (Some(limits), None),
                // What held goes on to hold, and is repaired.
                Err(error) => (known.limits, Some(Trouble::Annotation(error.to_string()))),
            };
            if let Some(limits) = limits
                && !(why == Why::Slow && known.may_wait(limits, looks))
            {
                let start = Instant::now();
                let brought = known.bring(&call, limits, &log);
                self.metrics.reconciled(start.elapsed(), brought.is_ok());
                brought?;
            }
            trouble.map_or(Ok(()), Err)
        });
        match &result {
            Err(trouble) if trouble.is_end() => self.hidden += u32::from(is_there),
            _ => self.entered += 1,
        }
        let trouble = result.err().filter(|trouble| !trouble.is_end());
        known.told(name, trouble, &log)
    }
}

impl Known {
    /// Whether a slow look may leave it out.
    fn may_wait(&self, limits: Limits, looks: u32) -> bool {
        let is_same = self.limits == Some(limits) && self.problem.is_none();
        is_same && !looks.wrapping_add(self.turn).is_multiple_of(self.every)
    }

    fn bring(&mut self, call: &Call, limits: Limits, log: &Log) -> Result<(), Trouble> {
        // A limit set by hand holds until the annotation says something else than it said.
        let keep = |direction| match self.limits {
            Some(before) if of(&before, direction) != of(&limits, direction) => Keep::Nothing,
            _ => Keep::Hand,
        };
        let keeps = [keep(Direction::Ingress), keep(Direction::Egress)];
        let wish =
            Wish { settings: &call.settings, limits, mark: Mark::Agent, keeps, sources: None };
        let target = call.target();
        let outcome = reconcile(target, &wish, log).map_err(Trouble::Reconcile)?;
        self.limits = Some(limits);
        let holds = outcome.buckets.ingress.is_some() || outcome.buckets.egress.is_some();
        self.every = match (holds, outcome.way.side()) {
            _ if outcome.changed => 1,
            (false, _) => IDLE_LOOKS,
            (true, Side::Host) => HOST_LOOKS,
            (true, Side::Pod) => 1,
        };
        if outcome.changed || self.interfaces.is_empty() {
            self.interfaces = interfaces(&outcome);
        }
        Ok(())
    }

    /// Keeps what is wrong; what is new of it is logged and given back.
    fn told(&mut self, pod: &PodName, trouble: Option<Trouble>, log: &Log) -> Option<Problem> {
        let message = trouble.as_ref().map(ToString::to_string);
        if self.problem == message {
            return None;
        }
        self.problem.clone_from(&message);
        let Some((trouble, message)) = trouble.zip(message) else {
            log.info("what was wrong with it is over");
            return None;
        };
        log.warn(&message);
        let reason = trouble.reason()?;
        Some(Problem { pod: pod.clone(), reason, message })
    }
}

fn of(limits: &Limits, direction: Direction) -> Option<crate::policy::Limit> {
    match direction {
        Direction::Ingress => limits.ingress,
        Direction::Egress => limits.egress,
    }
}

/// MTUs by their indexes now. What cannot be looked up is found at the next slow look.
fn interfaces(outcome: &Outcome) -> BTreeMap<u32, u32> {
    let (names, mtus): (Vec<&str>, Vec<u32>) =
        outcome.devices.iter().map(|(name, mtu)| (name.as_str(), *mtu)).unzip();
    let links = Socket::open().and_then(|mut host| link::by_names(&mut host, &names));
    let links = links.unwrap_or_default().into_iter().zip(mtus);
    links.filter_map(|(link, mtu)| Some((link?.index, mtu))).collect()
}

/// Why an attachment is not as it is to be.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Call(CallError),
    #[error("{0}; the limits stay as they were")]
    Annotation(String),
    #[error(transparent)]
    Reconcile(ReconcileError),
}

impl Trouble {
    /// The pod is just going away: the cache is the last thing that a DEL removes.
    fn is_end(&self) -> bool {
        matches!(self, Self::Reconcile(error) if error.is_gone())
    }

    /// Of the Event, where the pod's owner can do something about it.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Call(_) => None,
            Self::Annotation(_) => Some("BadBandwidthAnnotation"),
            Self::Reconcile(ReconcileError::Refused(error))
                if error.code == Code::InvalidConfig =>
            {
                Some("BadBandwidthAnnotation")
            }
            Self::Reconcile(_) => Some("BandwidthNotLimited"),
        }
    }
}
