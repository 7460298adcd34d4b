//! `set`: another limit for a running pod, by hand.
//!
//! The mark of a hand is in the kernel, with the numbers (src/shaping/mark.rs). The node agent leaves
//! such a limit alone until the pod's annotation says something else than it said.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use thiserror::Error;

use super::cache::{self, Attached, Cache, CacheError};
use super::call::{self, Call, CallError, Folders};
use crate::kernel::{KernelError, probe};
use crate::log::Log;
use crate::plugin::error::ReconcileError;
use crate::plugin::reconcile::{Keep, Outcome, Wish, reconcile};
use crate::policy::{LogLevel, LogSettings, PolicyError};
use crate::shaping::Mark;
use crate::shaping::bucket::Bucket;
use crate::shaping::describe::numbers;
use crate::shaping::mark::SHOWN_SINCE;

/// What stands for no limit: a bucket so wide that it holds nothing back, because a limit that is not
/// there could not carry the mark.
const NONE: &str = "none";
const WIDE: &str = "1T";

const HELP: &str = "\
The limit holds until the pod's annotation changes, until set --clear, or until the runtime calls ADD
again. The node agent does not revert it before. Run it on the pod's node, as root.";

/// Whose limit, and which.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Options {
    /// The pod
    #[arg(value_name = "NAMESPACE/POD")]
    pod: String,
    /// To the pod, in bit/s such as 50M, or none
    #[arg(long, value_name = "RATE")]
    ingress: Option<String>,
    /// From the pod, in bit/s such as 50M, or none
    #[arg(long, value_name = "RATE")]
    egress: Option<String>,
    /// Back to what the pod was attached with, and what its annotations say where the agent runs
    #[arg(long, conflicts_with_all = ["ingress", "egress"], required_unless_present_any = ["ingress", "egress"])]
    clear: bool,
    /// This interface of the pod alone [default: all that the plugin serves]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Folder in which the runtime keeps which pod is which
    #[arg(long, value_name = "FOLDER", default_value = cache::FOLDER)]
    cache_dir: PathBuf,
    /// Folder of the node's CNI lists, for pods that ran before the plugin was installed
    #[arg(long, value_name = "FOLDER", default_value = call::NET_FOLDER)]
    net_dir: PathBuf,
    /// Folder in which this process sees the node's network namespaces [default: where the cache says]
    #[arg(long, value_name = "FOLDER")]
    netns_dir: Option<PathBuf>,
}

/// Why a limit could not be set.
#[derive(Debug, Error)]
enum SetError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("a pod is named NAMESPACE/POD, such as default/web, not {0:?}")]
    Name(String),
    #[error(
        "the runtime of this node has attached no {what} of a pod {pod}: see kubectl get pod -o wide \
         for its node; a pod with hostNetwork has none"
    )]
    NoPod { pod: String, what: String },
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("{0}")]
    Limit(#[from] PolicyError),
    #[error("{0}")]
    Reconcile(#[from] ReconcileError),
    #[error(
        "this kernel does not keep who set a limit ({SHOWN_SINCE} and later do, by the mpu of a TBF), so the \
         node agent would take it away at its next look, and CHECK would fail; change the annotation of \
         the pod instead, with the node agent or before an ADD; set --clear works"
    )]
    NoMarks,
}

/// Sets the limits and says what holds now.
#[must_use]
pub(super) fn run(options: &Options) -> ExitCode {
    match set(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pod-bandwidth set: {error}");
            ExitCode::FAILURE
        }
    }
}

fn set(options: &Options) -> Result<(), SetError> {
    let name = options.pod.split_once('/').filter(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    });
    let (namespace, name) = name.ok_or_else(|| SetError::Name(options.pod.clone()))?;
    let cache = Cache::read(&options.cache_dir)?;
    let folders = Folders { net: options.net_dir.clone(), netns: options.netns_dir.clone() };
    let wanted = |attached: &&Attached| match &options.interface {
        Some(interface) => attached.ifname == *interface,
        // What another plugin serves alone is none of ours.
        None => attached.plugin.is_some() || attached.ifname == "eth0",
    };
    // An older sandbox of this name is gone, and its namespace with it.
    let is_there = |call: &Call| call.netns.exists();
    let attached = cache.of_pod(namespace, name).filter(wanted);
    let calls = attached.map(|attached| Call::new(attached, &folders));
    let calls: Vec<Call> =
        calls.filter(|call| call.as_ref().map_or(true, is_there)).collect::<Result<_, _>>()?;
    if calls.is_empty() {
        let what = match &options.interface {
            Some(interface) => format!("interface {interface}"),
            None => "interface".into(),
        };
        return Err(SetError::NoPod { pod: options.pod.clone(), what });
    }
    if !options.clear {
        refuse_without_marks(&probe::shows_marks())?;
    }
    for call in calls {
        let outcome = set_one(&call, options)?;
        let ifname = &call.attachment.ifname;
        println!("{} {ifname}: placement {}", options.pod, outcome.way);
        println!("  ingress (to the pod): {}", described(outcome.buckets.ingress.as_ref()));
        println!("  egress (from the pod): {}", described(outcome.buckets.egress.as_ref()));
    }
    Ok(())
}

/// A limit by hand needs its mark. Where that could not be tried, the call itself says what is wrong.
fn refuse_without_marks(shown: &Result<bool, KernelError>) -> Result<(), SetError> {
    if matches!(shown, Ok(false)) { Err(SetError::NoMarks) } else { Ok(()) }
}

fn set_one(call: &Call, options: &Options) -> Result<Outcome, SetError> {
    let (limits, mark, keeps) = if options.clear {
        (call.limits_at_add()?, Mark::Added, [Keep::Nothing; 2])
    } else {
        let given = [("ingress", &options.ingress), ("egress", &options.egress)];
        let keeps = given.map(|(_, rate)| rate.as_ref().map_or(Keep::All, |_| Keep::Nothing));
        let annotations: BTreeMap<String, String> = given
            .into_iter()
            .filter_map(|(direction, rate)| {
                let rate = rate.as_deref()?;
                let rate = if rate == NONE { WIDE } else { rate };
                Some((format!("kubernetes.io/{direction}-bandwidth"), rate.to_owned()))
            })
            .collect();
        (call.limits_by_hand(&annotations)?, Mark::Hand, keeps)
    };
    let wish = Wish { settings: &call.settings, limits, mark, keeps, sources: None };
    let target = call.target();
    // What was done is printed at the end; what is odd goes to standard error.
    let settings = LogSettings { file: None, level: LogLevel::Warn };
    Ok(reconcile(target, &wish, &Log::open(&settings, options.pod.clone()))?)
}

fn described(bucket: Option<&Bucket>) -> String {
    match bucket {
        Some(bucket) => format!("{}; {}", numbers(bucket), bucket.mark),
        None => "unlimited".into(),
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_limit_by_hand_is_refused_where_the_kernel_does_not_show_its_mark() {
        let refused = refuse_without_marks(&Ok(false)).unwrap_err().to_string();
        assert!(refused.contains("5.10.94") && refused.contains("annotation"), "{refused}");
        assert!(refuse_without_marks(&Ok(true)).is_ok());
        let untried =
            KernelError::Namespace { path: "/".into(), call: "unshare", errno: Errno::EPERM };
        assert!(refuse_without_marks(&Err(untried)).is_ok());
    }
}
