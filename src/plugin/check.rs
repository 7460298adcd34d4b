//! CHECK: the plan is empty, or the findings say what it would mend.

use super::add::prev_result;
use super::attachment;
use super::ends::{End, Ends};
use crate::cni::error::Code;
use crate::cni::{CniError, Request};
use crate::policy::{Limits, Settings};
use crate::shaping::placement::{Way, decide};
use crate::shaping::plan::plan;
use crate::shaping::{Shape, describe};

/// Succeeds where the limits hold as ADD left them.
pub(super) fn check(request: &Request) -> Result<(), CniError> {
    prev_result(request)?;
    let settings = Settings::read(&request.config)?;
    let limits = Limits::read(&request.config)?;
    let ends = Ends::open(request, &attachment(request))?;
    let mut found = Vec::new();
    for way in ends.ways(&settings) {
        match findings(&ends, way, &settings, &limits)? {
            Some(findings) if findings.is_empty() => return Ok(()),
            Some(findings) => found.push((way, findings)),
            None => {}
        }
    }
    let chosen = decide(&settings, &request.environment.ifname, &ends.facts(&limits));
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
        None => CniError::new(Code::CheckFailed, "no placement can hold the limits any more"),
    })
}

/// What is not as this way has it; `None` where the way is not possible here.
fn findings(
    ends: &Ends,
    way: Way,
    settings: &Settings,
    limits: &Limits,
) -> Result<Option<Vec<String>>, CniError> {
    let Ok((end, other)) = ends.at(way) else { return Ok(None) };
    let shape = way.shape(&end.buckets(limits, settings)?).within(&settings.scope);
    let Some(mut findings) = findings_at(end, &shape) else { return Ok(None) };
    if let Some(other) = other {
        findings.extend(findings_at(other, &Shape::default()).unwrap_or_default());
    }
    Ok(Some(findings))
}

fn findings_at(end: &End, shape: &Shape) -> Option<Vec<String>> {
    let batches = plan(&end.site, shape, &end.observed).ok()?;
    Some(describe::findings(&end.site, &batches))
}
