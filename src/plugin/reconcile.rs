//! Reconcile: bring an attachment to the limits that are wanted. ADD does it, and so do the node
//! agent and `set`: there is one policy, one plan and one way to apply it.

use std::path::Path;

use super::TRIES;
use super::ends::{End, Ends};
use super::error::ReconcileError;
use crate::cni::CniError;
use crate::cni::error::Code;
use crate::kernel::apply::{Applier, ApplyError};
use crate::log::Log;
use crate::policy::{BitsPerSecond, Direction, Limit, Limits, Scope, Settings, SourceKinds};
use crate::shaping::describe::{self, Findings, numbers};
use crate::shaping::placement::{Buckets, Decision, Way, decide};
use crate::shaping::plan::{Batch, plan};
use crate::shaping::site::IFB_MTU;
use crate::shaping::{Attachment, Bucket, Conflict, Mark, Shape};
use crate::text::shorten;

/// Most characters of a reason in a line of the log.
const REASON: usize = 72;

/// An attachment, and the network namespace that it is in.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Whose interface.
    pub attachment: &'a Attachment,
    /// Path of the namespace.
    pub netns: &'a Path,
    /// The interfaces on the host that the result of the plugins before names for it, if it is known.
    pub host_names: &'a [String],
}

/// What an attachment is to have, and by whose will.
#[derive(Debug)]
pub struct Wish<'a> {
    /// How to shape.
    pub settings: &'a Settings,
    /// What to hold.
    pub limits: Limits,
    /// Who says so.
    pub mark: Mark,
    /// Of each [`Direction`]: what stays as it is found, whatever the limits say.
    pub keeps: [Keep; 2],
    /// The sources of the entry that calls, which must not meet the limits of another entry; `None` if
    /// that does not matter.
    pub sources: Option<SourceKinds>,
}

/// What of a direction stays as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// A limit that was set by hand.
    Hand,
    /// What the node agent or `set` changed after ADD, also that they removed a limit.
    Live,
    /// Any limit, and also that there is none.
    All,
}

/// What a reconcile has come to.
#[derive(Debug)]
pub struct Outcome {
    /// The way that the limits are held.
    pub way: Way,
    /// The limits that hold now.
    pub buckets: Buckets,
    /// Whether anything had to be changed.
    pub changed: bool,
    /// The interfaces on the host that it rests on, the pod's own and the IFBs, with the MTU (bytes)
    /// that it goes by.
    pub devices: Vec<(String, u32)>,
}

/// Brings the attachment to what is wanted, or leaves it as it was. No limits at all are taken away.
///
/// # Errors
/// [`ReconcileError`], after all tries if another one could have helped.
pub fn reconcile(
    target: Target<'_>,
    wish: &Wish<'_>,
    log: &Log,
) -> Result<Outcome, ReconcileError> {
    let mut tries = 1;
    loop {
        match reconcile_once(target, wish, log) {
            Err(error) if error.may_help_to_look_again() && tries < TRIES => {
                log.warn(&format!("{error}; looking again"));
                tries += 1;
            }
            result => return result,
        }
    }
}

fn reconcile_once(
    target: Target<'_>,
    wish: &Wish<'_>,
    log: &Log,
) -> Result<Outcome, ReconcileError> {
    let calico_qos = wish.settings.calico_qos;
    let mut ends = Ends::open(target.netns, target.attachment, target.host_names, calico_qos)?;
    ends.record(wish.sources);
    let job = Job::new(&ends, wish, &target.attachment.ifname)?;
    job.apply(&mut ends, wish.mark, log)?;
    Ok(job.outcome(&ends))
}

/// What is to be done at each end.
pub(super) struct Job {
    decision: Decision,
    buckets: Buckets,
    shape: Shape,
    wanted: Vec<Batch>,
    other: Vec<Batch>,
}

impl Job {
    /// A limit that already holds in a way that the configuration allows stays as it is, whatever
    /// auto would choose today; else the way is decided.
    fn new(ends: &Ends, wish: &Wish<'_>, ifname: &str) -> Result<Self, CniError> {
        let settings = wish.settings;
        if let Some(first) = wish.sources.and_then(|own| ends.another_entry(own, &wish.limits)) {
            return Err(another_entry(first));
        }
        let done = ends.ways(settings).into_iter().find_map(|way| {
            let decision = Decision { way, reason: "it holds already".into() };
            let job = Self::plan(ends, decision, wish).ok()?;
            job.is_done().then_some(job)
        });
        if let Some(job) = done {
            return Ok(job);
        }
        let limited = wish.limited(ends);
        let decision = if limited == [false; 2] {
            // Both ends are to be cleared, which any way does; traces come where the limits were.
            let is_on_host = ends.is_on_host() || ends.pod.is_none();
            let way = if is_on_host { Way::HostHooks } else { Way::Pod };
            Decision { way, reason: "nothing is limited".into() }
        } else {
            decide(settings, ifname, &ends.facts(limited))
                .map_err(|refusal| CniError::new(Code::Conflict, refusal.to_string()))?
        };
        Self::plan(ends, decision, wish)
    }

    /// What stands between the ends and this plan's state, for CHECK.
    pub(super) fn findings(&self, ends: &Ends, limits: &Limits) -> Result<Findings, CniError> {
        let is_written = |limit: Option<Limit>| limit.is_some_and(|limit| limit.burst.is_some());
        let written = [is_written(limits.ingress), is_written(limits.egress)];
        let (end, other) = ends.at(self.decision.way)?;
        let mut findings = describe::findings(&end.site, &self.wanted, written);
        if let Some(other) = other {
            findings.extend(describe::findings(&other.site, &self.other, written));
        }
        Ok(findings)
    }

    /// The plan of one way.
    pub(super) fn plan(ends: &Ends, decision: Decision, wish: &Wish<'_>) -> Result<Self, CniError> {
        let way = decision.way;
        let conflict = |conflict: Conflict| {
            CniError::new(Code::Conflict, format!("placement {way}: {conflict}"))
        };
        let (end, other) = ends.at(way)?;
        let buckets = wish.buckets(ends, end)?;
        let of = [buckets.ingress, buckets.egress];
        let removed = Direction::ALL.map(|direction| {
            of[direction as usize].is_none() && wish.leaves_trace(ends, direction)
        });
        let shape = Shape { removed, ..way.shape(&buckets).within(&wish.settings.scope) };
        let wanted = plan(&end.site, &shape, &end.observed).map_err(conflict)?;
        let other = match other {
            Some(end) => plan(&end.site, &Shape::default(), &end.observed).map_err(conflict)?,
            None => Vec::new(),
        };
        Ok(Self { decision, buckets, shape, wanted, other })
    }

    /// Logs what stands before the limits.
    pub(super) fn warn_of_shadows(&self, ends: &Ends, log: &Log) {
        if let Ok((end, _)) = ends.at(self.decision.way) {
            end.warn_of_shadows(&self.shape, log);
        }
    }

    fn is_done(&self) -> bool {
        self.wanted.is_empty() && self.other.is_empty()
    }

    /// Shapes one end, then clears the other: an earlier ADD may have used that one.
    fn apply(&self, ends: &mut Ends, mark: Mark, log: &Log) -> Result<(), ApplyError> {
        // A call of the runtime is an event; that the agent looked is none.
        if mark == Mark::Added || !self.is_done() {
            log.info(&self.summary());
            self.warn_of_shadows(ends, log);
            log.debug(&self.details());
        }
        for step in self.wanted.iter().chain(&self.other).flatten() {
            log.debug(&format!("{step:?}"));
        }
        let Some((end, other)) = ends.at_mut(self.decision.way) else { return Ok(()) };
        let mut applier = end.applier();
        let mut warnings = applier.apply(&self.wanted)?;
        let lacks_fq_codel = applier.lacks_fq_codel();
        if let Some(other) = other {
            match other.applier().apply(&self.other) {
                Ok(more) => warnings.extend(more),
                Err(mut error) => {
                    error.undoing.extend(applier.take_back());
                    return Err(error);
                }
            }
        }
        if lacks_fq_codel {
            log.info("this kernel has no fq_codel, so a FIFO is below each TBF");
        }
        for warning in warnings {
            log.warn(&warning.to_string());
        }
        Ok(())
    }

    fn outcome(self, ends: &Ends) -> Outcome {
        let of = |host: &End| {
            let [ingress, egress] = host.site.ifbs.clone();
            [(host.site.device.clone(), host.link.mtu), (ingress, IFB_MTU), (egress, IFB_MTU)]
        };
        Outcome {
            way: self.decision.way,
            buckets: self.buckets,
            changed: !self.is_done(),
            devices: ends.host.iter().flat_map(of).collect(),
        }
    }

    /// In at most 200 characters, whatever the numbers; nearly always the line of the log has no more.
    fn summary(&self) -> String {
        let Decision { way, reason } = &self.decision;
        // The line begins with that word.
        let reason = reason.strip_prefix("placement is ").unwrap_or(reason);
        let mut text = format!("placement {way} ({})", shorten(reason, REASON));
        for (direction, bucket) in self.directions() {
            let rate = |bucket: &Bucket| BitsPerSecond(bucket.rate.0.saturating_mul(8)).to_string();
            let rate = bucket.map_or("unlimited".into(), rate);
            text.push_str(&format!("; {direction} {rate}"));
        }
        match &self.shape.scope {
            Scope::All => {}
            Scope::Except(nets) => text.push_str(&format!("; unshaped subnets: {}", nets.len())),
            Scope::Only(nets) => text.push_str(&format!("; shaped subnets alone: {}", nets.len())),
        }
        text
    }

    /// The whole reason, and all numbers.
    fn details(&self) -> String {
        let mut text = self.decision.reason.clone();
        for (direction, bucket) in self.directions() {
            let numbers = bucket.map_or("unlimited".into(), numbers);
            text.push_str(&format!("; {}: {numbers}", direction.described()));
        }
        text
    }

    fn directions(&self) -> [(Direction, Option<&Bucket>); 2] {
        let Buckets { ingress, egress } = &self.buckets;
        [(Direction::Ingress, ingress.as_ref()), (Direction::Egress, egress.as_ref())]
    }
}

impl Wish<'_> {
    /// The buckets that an end is to have: what the limits say, but for what stays as it is found.
    fn buckets(&self, ends: &Ends, end: &End) -> Result<Buckets, CniError> {
        let wanted = end.buckets(&self.limits, self.settings)?.marked(self.mark);
        Ok(Buckets {
            ingress: self.pick(ends, Direction::Ingress, wanted.ingress),
            egress: self.pick(ends, Direction::Egress, wanted.egress),
        })
    }

    fn pick(&self, ends: &Ends, direction: Direction, wanted: Option<Bucket>) -> Option<Bucket> {
        let keep = self.keeps[direction as usize];
        let kept = ends.found(direction).filter(|state| keep.covers(state.mark));
        match (kept, keep) {
            (Some(state), _) => Some(state.to_bucket()),
            (None, Keep::All) => None,
            (None, Keep::Live) if ends.is_removed(direction) => None,
            (None, _) => wanted,
        }
    }

    /// Whether a direction without a limit is to have the trace of one that was removed.
    fn leaves_trace(&self, ends: &Ends, direction: Direction) -> bool {
        let keeps = self.mark.is_live() || self.keeps[direction as usize] != Keep::Nothing;
        let removes = self.mark.is_live() && ends.found(direction).is_some();
        removes || (keeps && ends.is_removed(direction))
    }

    /// The directions that are to have a limit.
    fn limited(&self, ends: &Ends) -> [bool; 2] {
        let wanted = self.limits.directions();
        Direction::ALL.map(|direction| {
            let keep = self.keeps[direction as usize];
            let is_kept = ends.found(direction).is_some_and(|state| keep.covers(state.mark));
            is_kept || (wanted[direction as usize] && keep != Keep::All)
        })
    }
}

impl Keep {
    /// Whether a limit with this mark stays.
    fn covers(self, mark: Mark) -> bool {
        match self {
            Self::Nothing => false,
            Self::Hand => mark == Mark::Hand,
            Self::Live => mark.is_live(),
            Self::All => true,
        }
    }
}

/// The error of an entry that comes after another one of the same list.
pub(super) fn another_entry(first: SourceKinds) -> CniError {
    CniError::new(
        Code::Conflict,
        format!(
            "another pod-bandwidth entry of this list (the one with {first}) already limits this \
             interface; put everything into one entry"
        ),
    )
}

impl End {
    pub(super) fn applier(&mut self) -> Applier<'_> {
        Applier::new(&mut self.socket, &self.site, self.link.index, &self.observed)
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
