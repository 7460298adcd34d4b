//! ADD: reconcile an attachment to the limits of its pod.

use serde_json::value::RawValue;

use super::reconcile::{Keep, Target, Wish, reconcile};
use super::{attachment, del, host_names, netns};
use crate::cni::error::Code;
use crate::cni::{CniError, Request};
use crate::log::Log;
use crate::policy::{Limits, Settings, SourceKinds};
use crate::shaping::Mark;

/// Shapes the attachment and returns prevResult as it came.
pub(super) fn add(request: &Request, log: &Log) -> Result<String, CniError> {
    let prev_result = prev_result(request)?;
    let settings = Settings::read(&request.config)?;
    let limits = Limits::read(&request.config)?;
    let sources = SourceKinds::of_entry(&request.config);
    if limits.is_empty() {
        // A pod that asks for nothing is not to fail because of us.
        for error in del::remove(request, Some(sources), log) {
            log.warn(&error.to_string());
        }
    } else {
        let target = Target {
            attachment: &attachment(request),
            netns: netns(request),
            host_names: &host_names(request),
        };
        let keeps = [Keep::Nothing; 2];
        let sources = Some(sources);
        let wish = Wish { settings: &settings, limits, mark: Mark::Added, keeps, sources };
        reconcile(target, &wish, log)?;
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
