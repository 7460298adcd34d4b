//! CHECK: the plan has nothing that a limit depends on.
//!
//! A runtime acts on CHECK: CRI-O calls it after each ADD, and for every pod when it restarts. So it fails
//! only if a limit does not hold. What ADD or the node agent would tidy up is logged.

use super::add::prev_result;
use super::ends::Ends;
use super::reconcile::{Job, Keep, Wish, another_entry};
use super::{attachment, host_names, netns};
use crate::cni::error::Code;
use crate::cni::{CniError, Request};
use crate::log::Log;
use crate::policy::{Limits, Settings, SourceKinds};
use crate::shaping::Mark;
use crate::shaping::describe::Findings;
use crate::shaping::placement::{Decision, Way, decide};

/// Succeeds if the limits hold: those of ADD, and in place of them what the node agent or `set` changed
/// since.
pub(super) fn check(request: &Request, log: &Log) -> Result<(), CniError> {
    prev_result(request)?;
    let settings = Settings::read(&request.config)?;
    let limits = Limits::read(&request.config)?;
    let attachment = attachment(request);
    let ends = Ends::open(netns(request), &attachment, &host_names(request), settings.calico_qos)?;
    if let Some(first) = ends.another_entry(SourceKinds::of_entry(&request.config), &limits) {
        let is_fine = limits.is_empty();
        log.info(&format!("the limits are those of the entry with {first}"));
        return if is_fine { Ok(()) } else { Err(failed(&another_entry(first).message)) };
    }
    let keeps = [Keep::Live; 2];
    let wish = Wish { settings: &settings, limits, mark: Mark::Added, keeps, sources: None };
    let mut found: Vec<(Way, Findings)> = Vec::new();
    let mut taken = Vec::new();
    for way in ends.ways(&settings) {
        let decision = Decision { way, reason: String::new() };
        let job = match Job::plan(&ends, decision, &wish) {
            Ok(job) => job,
            Err(error) if error.code == Code::Conflict => {
                taken.push(error.message);
                continue;
            }
            Err(error) => return Err(error),
        };
        let findings = job.findings(&ends, &limits)?;
        if !findings.broken.is_empty() {
            found.push((way, findings));
            continue;
        }
        for text in findings.untidy {
            log.info(&format!("the limits hold, and ADD would tidy up: {text}"));
        }
        job.warn_of_shadows(&ends, log);
        return Ok(());
    }
    let chosen = decide(&settings, &request.environment.ifname, &ends.facts(limits.directions()));
    let chosen = chosen.ok().map(|decision| decision.way);
    // The way with the fewest findings is the one that ADD took; auto's choice breaks a tie.
    let nearest = found
        .into_iter()
        .min_by_key(|(way, findings)| (findings.broken.len(), Some(*way) != chosen));
    Err(match nearest {
        Some((way, findings)) => {
            let broken = findings.broken.join("; ");
            failed(&format!("placement {way}: {broken}; call ADD to repair"))
        }
        None if taken.is_empty() => failed(match &ends.pod {
            Some(_) => "the pod has no interface on the host any more",
            None => "the interface was moved out of the pod",
        }),
        None => failed(&format!("ADD cannot repair them: {}", taken.join("; "))),
    })
}

fn failed(why: &str) -> CniError {
    CniError::new(Code::CheckFailed, format!("the limits do not hold: {why}"))
}
