//! Reconcile: bring an attachment to the limits that are wanted. ADD does it, and so do the node
//! agent and `set`: there is one policy, one plan and one way to apply it.

use std::path::Path;

use super::ends::{End, Ends};
use super::{TRIES, code_of};
use crate::cni::CniError;
use crate::cni::error::Code;
use crate::kernel::apply::{Applier, ApplyError};
use crate::log::Log;
use crate::policy::{Direction, Limits, Scope, Settings};
use crate::shaping::describe::numbers;
use crate::shaping::placement::{Buckets, Decision, Way, decide};
use crate::shaping::plan::{Batch, plan};
use crate::shaping::{Attachment, Bucket, Conflict, Mark, Shape, TbfState};

/// An attachment, and the network namespace that it is in.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Whose interface.
    pub attachment: &'a Attachment,
    /// Path of the namespace.
    pub netns: &'a Path,
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
}

/// What of a direction stays as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// A limit that was set by hand.
    Hand,
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
    /// The interfaces on the host that it rests on: the pod's own, and the IFBs.
    pub devices: Vec<String>,
}

/// Brings the attachment to what is wanted, or leaves it as it was. No limits at all are taken away.
pub fn reconcile(target: Target<'_>, wish: &Wish<'_>, log: &Log) -> Result<Outcome, CniError> {
    let mut tries = 1;
    loop {
        let calico_qos = wish.settings.calico_qos;
        let mut ends = Ends::open(target.netns, target.attachment, calico_qos)?;
        let job = Job::new(&ends, wish, &target.attachment.ifname)?;
        match job.apply(&mut ends, wish.mark, log) {
            Ok(()) => return Ok(job.outcome(&ends)),
            Err(error) if error.may_help_to_look_again() && tries < TRIES => {
                log.warn(&format!("{error}; looking again"));
                tries += 1;
            }
            Err(error) => {
                return Err(CniError::new(code_of(&error.cause), error.to_string()));
            }
        }
    }
}

/// What is to be done at each end.
struct Job {
    decision: Decision,
    buckets: Buckets,
    scope: Scope,
    wanted: Vec<Batch>,
    other: Vec<Batch>,
}

impl Job {
    /// A limit that already holds in a way that the configuration allows stays as it is, whatever
    /// auto would choose today; else the way is decided.
    fn new(ends: &Ends, wish: &Wish<'_>, ifname: &str) -> Result<Self, CniError> {
        let settings = wish.settings;
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
            // Both ends are to be cleared, which any way does.
            Decision { way: Way::Pod, reason: "nothing is limited".into() }
        } else {
            decide(settings, ifname, &ends.facts(limited))
                .map_err(|refusal| CniError::new(Code::Conflict, refusal.to_string()))?
        };
        Self::plan(ends, decision, wish)
    }

    /// The plan of one way.
    fn plan(ends: &Ends, decision: Decision, wish: &Wish<'_>) -> Result<Self, CniError> {
        let way = decision.way;
        let conflict = |conflict: Conflict| {
            CniError::new(Code::Conflict, format!("placement {way}: {conflict}"))
        };
        let (end, other) = ends.at(way)?;
        let buckets = wish.buckets(ends, end)?;
        let scope = wish.settings.scope.clone();
        let shape = way.shape(&buckets).within(&scope);
        let wanted = plan(&end.site, &shape, &end.observed).map_err(conflict)?;
        let other = match other {
            Some(end) => plan(&end.site, &Shape::default(), &end.observed).map_err(conflict)?,
            None => Vec::new(),
        };
        Ok(Self { decision, buckets, scope, wanted, other })
    }

    fn is_done(&self) -> bool {
        self.wanted.is_empty() && self.other.is_empty()
    }

    /// Shapes one end, then clears the other: an earlier ADD may have used that one.
    fn apply(&self, ends: &mut Ends, mark: Mark, log: &Log) -> Result<(), ApplyError> {
        // A call of the runtime is an event; that the agent looked is none.
        if mark == Mark::Added || !self.is_done() {
            log.info(&self.summary());
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
        let host = ends.host.as_ref().map(|host| &host.site);
        let devices =
            host.into_iter().flat_map(|site| [&site.device, &site.ifbs[0], &site.ifbs[1]]);
        Outcome {
            way: self.decision.way,
            buckets: self.buckets,
            changed: !self.is_done(),
            devices: devices.cloned().collect(),
        }
    }

    fn summary(&self) -> String {
        let Decision { way, reason } = &self.decision;
        let mut text = format!("placement {way} ({reason})");
        let directions =
            [(Direction::Ingress, self.buckets.ingress), (Direction::Egress, self.buckets.egress)];
        for (direction, bucket) in directions {
            let numbers = bucket.as_ref().map_or("unlimited".into(), numbers);
            text.push_str(&format!("; {}: {numbers}", direction.described()));
        }
        match &self.scope {
            Scope::All => {}
            Scope::Except(nets) => text.push_str(&format!("; unshaped subnets: {}", nets.len())),
            Scope::Only(nets) => text.push_str(&format!("; shaped subnets alone: {}", nets.len())),
        }
        text
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
        let found = ends.found(direction);
        match self.keeps[direction as usize] {
            Keep::Nothing => wanted,
            Keep::Hand => {
                let hand = found.filter(|state| state.mark == Mark::Hand);
                hand.map(TbfState::to_bucket).or(wanted)
            }
            Keep::All => found.map(TbfState::to_bucket),
        }
    }

    /// The directions that are to have a limit.
    fn limited(&self, ends: &Ends) -> [bool; 2] {
        let wanted = self.limits.directions();
        [Direction::Ingress, Direction::Egress].map(|direction| {
            let found = ends.found(direction);
            match self.keeps[direction as usize] {
                Keep::Nothing => wanted[direction as usize],
                Keep::Hand => {
                    wanted[direction as usize] || found.is_some_and(|tbf| tbf.mark == Mark::Hand)
                }
                Keep::All => found.is_some(),
            }
        })
    }
}

impl End {
    pub(super) fn applier(&mut self) -> Applier<'_> {
        Applier::new(&mut self.socket, &self.site, self.link.index, &self.observed)
    }
}
