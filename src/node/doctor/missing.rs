//! Limits that a pod was made with and that are not there now: the runtime's cache beside the kernel.
//!
//! What is gone without a trace shows nowhere else: a root TBF that Felix deleted leaves nothing that does
//! not fit together.

use std::path::Path;

use crate::node::cache::{self, Attached, Cache, CacheError};
use crate::node::call::{Call, Folders};
use crate::node::inventory::{DIRECTIONS, Inventory};
use crate::policy::{BitsPerSecond, Direction};

use super::finding::{Finding, Severity};

/// One limit that is missing.
#[derive(Debug)]
struct Missing {
    pod: Option<String>,
    ifname: String,
    direction: Direction,
    rate: BitsPerSecond,
}

/// All that is missing. `has_agent`: the node agent is at work, and would put back what is wanted.
pub(super) fn findings(cache: &Path, net: &Path, has_agent: bool) -> Vec<Finding> {
    let subject = cache.display().to_string();
    match look(cache, net) {
        Ok((number, missing)) if missing.is_empty() => {
            let seen = format!("attachments by pod-bandwidth, each with its limits: {number}");
            vec![Finding::ok("limits", subject, seen)]
        }
        Ok((_, missing)) => missing.into_iter().map(|one| told(one, cache, has_agent)).collect(),
        Err(seen) => vec![
            Finding::new("cache-unread", Severity::Warning, subject, seen)
                .why("which limits there should be is not known without it")
                .remedy("run it as root on the node; --cache names another folder"),
        ],
    }
}

fn told(missing: Missing, cache: &Path, has_agent: bool) -> Finding {
    let Missing { pod, ifname, direction, rate } = missing;
    let way = match direction {
        Direction::Ingress => "to the pod",
        Direction::Egress => "from the pod",
    };
    let seen = format!("no limit {way}, and it was made with one of {rate}");
    let subject = format!("{} {ifname}", pod.as_deref().unwrap_or("a pod that nobody named"));
    if has_agent {
        return Finding::new("limit-missing", Severity::Note, subject, seen).why(
            "its annotation went meanwhile and the node agent followed; where it did not go, the agent \
             puts the limit back within seconds, or an Event on the pod says why not",
        );
    }
    let finding = Finding::new("limit-missing", Severity::Warning, subject, seen)
        .why("another program removed it, as Calico's Felix does at a root qdisc")
        .remedy(
            "the command puts back what the pod was made with; the node agent puts back what its \
             annotations ask for",
        );
    put_back(finding, pod.as_deref(), cache)
}

/// The command that brings a pod to what it was made with, where its name is known.
pub(super) fn put_back(finding: Finding, pod: Option<&str>, cache: &Path) -> Finding {
    let Some(pod) = pod else { return finding };
    let mut command = format!("pod-bandwidth set {pod} --clear");
    if cache != Path::new(cache::FOLDER) {
        command += &format!(" --cache-dir {}", cache.display());
    }
    finding.command(command)
}

/// The number of attachments that ours was called for, and the limits that are missing.
fn look(cache: &Path, net: &Path) -> Result<(usize, Vec<Missing>), String> {
    let cache = Cache::read(cache).map_err(|error: CacheError| error.to_string())?;
    let inventory = Inventory::read(&cache).map_err(|error| error.to_string())?;
    let folders = Folders { net: net.into(), netns: None };
    // With the list of its ADD: a pod that ran before the plugin was installed was promised nothing.
    let ours =
        cache.attached.iter().filter(|one| one.plugin.is_some() && is_there(one, &inventory));
    let ours: Vec<_> = ours.collect();
    let missing = ours.iter().flat_map(|attached| missing(attached, &inventory, &folders));
    Ok((ours.len(), missing.collect()))
}

/// Its namespace is there and was looked into.
fn is_there(attached: &Attached, inventory: &Inventory) -> bool {
    let unread = format!("{}: ", attached.pod().unwrap_or_default());
    attached.sandbox.as_ref().is_some_and(|path| path.exists())
        && !inventory.problems.iter().any(|problem| problem.starts_with(&unread))
}

fn missing(attached: &Attached, inventory: &Inventory, folders: &Folders) -> Vec<Missing> {
    let limits = Call::new(attached, folders).ok().and_then(|call| call.limits_at_add().ok());
    let limits = limits.unwrap_or_default();
    let shaped = inventory.shaped.iter().find(|one| {
        let owner = &one.owner;
        (&owner.network, &owner.container_id, &owner.ifname)
            == (&attached.network, &attached.container_id, &attached.ifname)
    });
    let wanted = [limits.ingress, limits.egress];
    let pairs = DIRECTIONS.into_iter().zip(wanted).filter_map(|(direction, limit)| {
        let holds = shaped.is_some_and(|one| one.limits[direction as usize].is_some());
        let rate = limit.filter(|_| !holds)?.rate;
        Some(Missing { pod: attached.pod(), ifname: attached.ifname.clone(), direction, rate })
    });
    pairs.collect()
}
