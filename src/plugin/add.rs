//! ADD: reconcile an attachment to the limits of its pod.

use serde_json::value::RawValue;

use super::ends::{End, Ends};
use super::{TRIES, attachment, code_of, del};
use crate::cni::error::Code;
use crate::cni::{CniError, Request};
use crate::kernel::apply::{Applier, ApplyError};
use crate::log::Log;
use crate::policy::{Direction, Limits, Scope, Settings};
use crate::shaping::describe::numbers;
use crate::shaping::placement::{Buckets, Decision, decide};
use crate::shaping::plan::{Batch, plan};
use crate::shaping::{Conflict, Shape};

/// Shapes the attachment and returns prevResult as it came.
pub(super) fn add(request: &Request, log: &Log) -> Result<String, CniError> {
    let prev_result = prev_result(request)?;
    let settings = Settings::read(&request.config)?;
    let limits = Limits::read(&request.config)?;
    if limits.is_empty() {
        // A pod that asks for nothing is not to fail because of us.
        for error in del::remove(request, log) {
            log.warn(&error.to_string());
        }
    } else {
        shape(request, &settings, &limits, log)?;
    }
    Ok(prev_result.get().to_string())
}

/// What the plugin before us returned.
pub(super) fn prev_result(request: &Request) -> Result<&RawValue, CniError> {
    let bad = |message| CniError::new(Code::InvalidConfig, message);
    match &request.prev_result {
        Some(result) if result.get().starts_with('{') => Ok(result),
        Some(_) => Err(bad("prevResult must be an object, the result of the plugin before")),
        None => Err(bad(
            "there is no prevResult: pod-bandwidth shapes what another plugin made, so it must \
             come after one in the conflist's `plugins`",
        )),
    }
}

fn shape(
    request: &Request,
    settings: &Settings,
    limits: &Limits,
    log: &Log,
) -> Result<(), CniError> {
    let attachment = attachment(request);
    let mut tries = 1;
    loop {
        let mut ends = Ends::open(request, &attachment)?;
        let job = Job::new(&ends, settings, limits, &request.environment.ifname)?;
        match job.apply(&mut ends, log) {
            Ok(()) => return Ok(()),
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

/// What one ADD is to do at each end.
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
    fn new(
        ends: &Ends,
        settings: &Settings,
        limits: &Limits,
        ifname: &str,
    ) -> Result<Self, CniError> {
        let done = ends.ways(settings).into_iter().find_map(|way| {
            let decision = Decision { way, reason: "it holds already".into() };
            let job = Self::plan(ends, decision, settings, limits).ok()?;
            (job.wanted.is_empty() && job.other.is_empty()).then_some(job)
        });
        if let Some(job) = done {
            return Ok(job);
        }
        let decision = decide(settings, ifname, &ends.facts(limits))
            .map_err(|refusal| CniError::new(Code::Conflict, refusal.to_string()))?;
        Self::plan(ends, decision, settings, limits)
    }

    /// The plan of one way.
    fn plan(
        ends: &Ends,
        decision: Decision,
        settings: &Settings,
        limits: &Limits,
    ) -> Result<Self, CniError> {
        let way = decision.way;
        let conflict = |conflict: Conflict| {
            CniError::new(Code::Conflict, format!("placement {way}: {conflict}"))
        };
        let (end, other) = ends.at(way)?;
        let buckets = end.buckets(limits, settings)?;
        let shape = way.shape(&buckets).within(&settings.scope);
        let wanted = plan(&end.site, &shape, &end.observed).map_err(conflict)?;
        let other = match other {
            Some(end) => plan(&end.site, &Shape::default(), &end.observed).map_err(conflict)?,
            None => Vec::new(),
        };
        Ok(Self { decision, buckets, scope: settings.scope.clone(), wanted, other })
    }

    /// Shapes one end, then clears the other: an earlier ADD may have used that one.
    fn apply(&self, ends: &mut Ends, log: &Log) -> Result<(), ApplyError> {
        log.info(&self.summary());
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

impl End {
    pub(super) fn applier(&mut self) -> Applier<'_> {
        Applier::new(&mut self.socket, &self.site, self.link.index, &self.observed)
    }
}
