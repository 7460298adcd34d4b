//! CHECK: the plan is empty, or the findings say what it would mend.

use super::add::prev_result;
use super::ends::{End, Ends};
use super::{attachment, netns};
use crate::cni::error::Code;
use crate::cni::{CniError, Request};
use crate::policy::{Limits, Settings};
use crate::shaping::placement::{Way, decide};
use crate::shaping::plan::plan;
use crate::shaping::{Conflict, Shape, describe};

/// Succeeds where the limits hold as ADD left them.
pub(super) fn check(request: &Request) -> Result<(), CniError> {
    prev_result(request)?;
    let settings = Settings::read(&request.config)?;
    let limits = Limits::read(&request.config)?;
    let ends = Ends::open(netns(request), &attachment(request), settings.calico_qos)?;
    let mut found = Vec::new();
    let mut taken = Vec::new();
    for way in ends.ways(&settings) {
        match findings(&ends, way, &settings, &limits)? {
            Ok(findings) if findings.is_empty() => return Ok(()),
            Ok(findings) => found.push((way, findings)),
            Err(conflict) => taken.push(format!("placement {way}: {conflict}")),
        }
    }
    let chosen = decide(&settings, &request.environment.ifname, &ends.facts(limits.directions()));
    let chosen = chosen.ok().map(|decision| decision.way);
    // The way with the fewest findings is the one that ADD took; auto's choice breaks a tie.
    let nearest =
        found.into_iter().min_by_key(|(way, findings)| (findings.len(), Some(*way) != chosen));
    Err(match nearest {
        Some((way, findings)) => CniError::new(
            Code::CheckFailed,
            format!(
                "the limits do not hold (placement {way}): {}; call ADD to repair",
                findings.join("; ")
            ),
        ),
        None if taken.is_empty() => CniError::new(
            Code::CheckFailed,
            "the limits do not hold: the pod has no interface on the host any more",
        ),
        None => CniError::new(
            Code::CheckFailed,
            format!("the limits do not hold, and ADD cannot repair them: {}", taken.join("; ")),
        ),
    })
}

/// What is not as this way has it, or what makes this way impossible here.
fn findings(
    ends: &Ends,
    way: Way,
    settings: &Settings,
    limits: &Limits,
) -> Result<Result<Vec<String>, Conflict>, CniError> {
    let (end, other) = ends.at(way)?;
    let shape = way.shape(&end.buckets(limits, settings)?).within(&settings.scope);
    let mut findings = match findings_at(end, &shape) {
        Ok(findings) => findings,
        Err(conflict) => return Ok(Err(conflict)),
    };
    if let Some(other) = other {
        findings.extend(findings_at(other, &Shape::default()).unwrap_or_default());
    }
    Ok(Ok(findings))
}

fn findings_at(end: &End, shape: &Shape) -> Result<Vec<String>, Conflict> {
    let batches = plan(&end.site, shape, &end.observed)?;
    Ok(describe::findings(&end.site, &batches))
}
