//! Words for steps: what was being done when the kernel refused, and what CHECK found.

use super::bucket::{Bucket, Leaf, TbfState};
use super::mark::Mark;
use super::plan::{Batch, Step};
use super::queue::{FqCodel, NewLeaf, Queue};
use super::rules::{Match, Rule};
use super::site::{Hook, Owner, Place, Side, Site};
use crate::policy::BitsPerSecond;

/// What a step does, as the beginning of "…: the kernel said …".
pub fn doing(site: &Site, step: &Step) -> String {
    let device = &site.device;
    match step {
        Step::CreateIfb(hook) => format!("create the IFB {}", site.ifb(*hook)),
        Step::LabelIfb { hook, .. } | Step::RestoreLabel { hook, .. } => {
            format!("set alias and MTU of the IFB {}", site.ifb(*hook))
        }
        Step::UpIfb(hook) => format!("bring the IFB {} up", site.ifb(*hook)),
        Step::DownIfb(hook) => format!("bring the IFB {} down", site.ifb(*hook)),
        Step::AddTbf { place, bucket, .. } => {
            format!("add a TBF ({}) as root qdisc of {}", numbers(bucket), site.device_of(*place))
        }
        Step::ChangeTbf { place, to, .. } => {
            format!("change the TBF of {} to {}", site.device_of(*place), numbers(to))
        }
        Step::ReplaceLeaf { place, leaf, .. } => {
            format!("put {} below the TBF of {}", new_leaf(leaf), site.device_of(*place))
        }
        Step::ChangeLeaf { place, to, .. } => {
            format!(
                "change the queue below the TBF of {} to {}",
                site.device_of(*place),
                fq_codel(to)
            )
        }
        Step::DelTbf { place, .. } => format!("remove the TBF from {}", site.device_of(*place)),
        Step::AddHook => format!("add a clsact qdisc to {device}"),
        Step::AddFilter { hook, rule, .. } => match rule {
            Rule { matches: Match::All, redirects: true } => {
                format!("redirect the {hook} of {device} to the IFB {}", site.ifb(*hook))
            }
            rule => {
                format!("add a filter to the {hook} of {device}: {}", ruling(site, *hook, rule))
            }
        },
        Step::DelFilter { hook, .. } | Step::DropFilter { hook, .. } => {
            format!("remove our filter from the {hook} of {device}")
        }
        Step::DelHook => format!("remove our clsact qdisc from {device}"),
        Step::DelIngress(_) => format!("remove Felix's `ingress` qdisc from {device}"),
        Step::RestoreIngress(_) => format!("put Felix's `ingress` qdisc back on {device}"),
        Step::DelIfb { hook } => format!("remove the IFB {}", site.ifb(*hook)),
    }
}

/// What CHECK finds: one line for each difference that a plan would repair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// A limit does not hold.
    pub broken: Vec<String>,
    /// The limits hold. ADD and the node agent would tidy this up.
    pub untidy: Vec<String>,
}

impl Findings {
    /// The findings of both.
    pub fn extend(&mut self, more: Self) {
        self.broken.extend(more.broken);
        self.untidy.extend(more.untidy);
    }
}

/// The findings that a plan stands for. Steps that only follow from another finding add none of their
/// own. `burst_is_written` says for each direction whether its burst was written, not derived.
pub fn findings(site: &Site, batches: &[Batch], burst_is_written: [bool; 2]) -> Findings {
    let steps: Vec<&Step> = batches.iter().flatten().collect();
    let creates = |hook| steps.contains(&&Step::CreateIfb(hook));
    let changes = |place| {
        steps
            .iter()
            .any(|step| matches!(step, Step::ChangeTbf { place: same, .. } if *same == place))
    };
    let adds_hook = steps.contains(&&Step::AddHook);
    let is_news = |step: &&&Step| match step {
        Step::AddFilter { rule, .. } => rule.matches == Match::All || !adds_hook,
        Step::LabelIfb { was, .. } => was.is_some(),
        Step::UpIfb(hook) | Step::AddTbf { place: Place::Ifb(hook), .. } => !creates(*hook),
        // Without a former one it follows a TBF that was missing, or another such step.
        Step::ReplaceLeaf { place, was, .. } => was.is_some() && !changes(*place),
        Step::ChangeLeaf { place, .. } => !changes(*place),
        _ => true,
    };
    let mut findings = Findings::default();
    for step in steps.iter().filter(is_news) {
        let written = |place| burst_is_written[site.direction_of(place) as usize];
        let text = finding(site, step);
        match breaks(step, written) {
            true => findings.broken.push(text),
            false => findings.untidy.push(text),
        }
    }
    findings
}

/// Whether a limit does not hold before this step: a filter, an IFB that is up, and a TBF with the wanted
/// rate and a written burst hold it. Derived numbers, labels and the kind of queue may be another
/// release's.
fn breaks(step: &Step, burst_is_written: impl Fn(Place) -> bool) -> bool {
    match step {
        Step::LabelIfb { .. }
        | Step::RestoreLabel { .. }
        | Step::ReplaceLeaf { .. }
        | Step::ChangeLeaf { .. } => false,
        Step::ChangeTbf { place, from, to } => {
            let peak = to.peak.map_or(0, |peak| peak.rate.0);
            from.rate != to.rate
                || from.peak_rate.0 != peak
                || matches!(from.mark, Mark::Other(_))
                || (burst_is_written(*place) && !to.has_burst_of(from))
        }
        _ => true,
    }
}

fn finding(site: &Site, step: &Step) -> String {
    let device = &site.device;
    let end = match site.side {
        Side::Host => "on the host",
        Side::Pod => "in the pod",
    };
    match step {
        Step::CreateIfb(hook) => format!("the IFB {} is missing {end}", site.ifb(*hook)),
        Step::LabelIfb { hook, .. } | Step::RestoreLabel { hook, .. } => {
            format!("the IFB {} has another alias or MTU", site.ifb(*hook))
        }
        Step::UpIfb(hook) | Step::DownIfb(hook) => format!("the IFB {} is down", site.ifb(*hook)),
        Step::AddTbf { place, bucket, replaces } => {
            let instead = replaces.as_ref().map(|kind| format!(" ({kind} is there)"));
            format!(
                "the TBF for {} ({}) is missing on {}{}",
                site.direction_of(*place).described(),
                numbers(bucket),
                site.device_of(*place),
                instead.unwrap_or_default()
            )
        }
        Step::ChangeTbf { place, from, to } => {
            format!("the TBF of {} has {}", site.device_of(*place), differences(from, to))
        }
        Step::ReplaceLeaf { place, leaf: wanted, was, .. } => format!(
            "the queue below the TBF of {} is {} instead of {}",
            site.device_of(*place),
            was.as_ref().map_or("missing".into(), leaf),
            new_leaf(wanted)
        ),
        Step::ChangeLeaf { place, from, to } => format!(
            "the queue below the TBF of {} is {} instead of {}",
            site.device_of(*place),
            fq_codel(from),
            fq_codel(&to.shown())
        ),
        Step::DelTbf { place, .. } => {
            format!("{} has a TBF of ours that nobody asked for", site.device_of(*place))
        }
        Step::AddHook => format!("the clsact qdisc of {device} is missing"),
        Step::AddFilter { hook, rule, .. } => match rule {
            Rule { matches: Match::All, redirects: true } => format!(
                "the filter that redirects the {hook} of {device} to the IFB {} is missing",
                site.ifb(*hook)
            ),
            rule => format!(
                "a filter on the {hook} of {device} is missing: {}",
                ruling(site, *hook, rule)
            ),
        },
        Step::DelFilter { hook, filter, rule, .. } => match (rule, &filter.owner) {
            (Some(rule), _) => format!(
                "the {hook} of {device} has a filter of ours that nobody asked for: {}",
                ruling(site, *hook, rule)
            ),
            (None, Owner::Ours { target: Some(target), .. }) => format!(
                "a filter of ours on the {hook} of {device} redirects to interface {target}, \
                 not to the IFB {}",
                site.ifb(*hook)
            ),
            (None, _) => format!("a filter of ours on the {hook} of {device} was changed"),
        },
        Step::DropFilter { hook, .. } => {
            format!("a filter of ours is left on the {hook} of {device}")
        }
        Step::DelHook => format!("a clsact qdisc of ours is left on {device}"),
        Step::DelIngress(_) | Step::RestoreIngress(_) => {
            format!("{device} has the `ingress` qdisc of Calico's Felix instead")
        }
        Step::DelIfb { hook } => format!("the IFB {} is left {end}", site.ifb(*hook)),
    }
}

/// What a rule does.
fn ruling(site: &Site, hook: Hook, rule: &Rule) -> String {
    match rule.redirects {
        true => format!("{} go to the IFB {}", rule.matches, site.ifb(hook)),
        false => format!("{} pass without a limit", rule.matches),
    }
}

/// The numbers of a bucket for people.
pub fn numbers(bucket: &Bucket) -> String {
    let peak = bucket.peak.map(|peak| {
        format!(", peak {} with {} bytes", BitsPerSecond(peak.rate.0.saturating_mul(8)), peak.burst)
    });
    format!(
        "rate {}, burst {} bytes, limit {} bytes{}{}",
        BitsPerSecond(bucket.rate.0.saturating_mul(8)),
        bucket.burst,
        bucket.limit,
        peak.unwrap_or_default(),
        match bucket.queue {
            Queue::Fifo => String::new(),
            Queue::FqCodel(queue) => format!(", {}", fq_codel(&queue)),
            Queue::Auto(queue) => format!(", {} where the kernel has it", fq_codel(&queue)),
        }
    )
}

fn leaf(leaf: &Leaf) -> String {
    match leaf {
        Leaf::Own => "a bfifo".into(),
        Leaf::Bfifo(limit) => new_leaf(&NewLeaf::Bfifo(*limit)),
        Leaf::FqCodel(queue) => fq_codel(queue),
        Leaf::Other(kind) => kind.clone(),
    }
}

fn new_leaf(leaf: &NewLeaf) -> String {
    match leaf {
        NewLeaf::Bfifo(limit) => format!("a bfifo of {limit} bytes"),
        NewLeaf::FqCodel(queue) => fq_codel(queue),
    }
}

fn fq_codel(queue: &FqCodel) -> String {
    format!(
        "fq_codel (target {} us, interval {} us, memory {} bytes, {} packets, {} flows, quantum {} bytes{})",
        queue.target_us,
        queue.interval_us,
        queue.memory,
        queue.packets,
        queue.flows,
        queue.quantum,
        if queue.ecn { "" } else { ", no ECN" }
    )
}

fn differences(from: &TbfState, to: &Bucket) -> String {
    let was = from.to_bucket();
    let mut found = Vec::new();
    let mut differs = |what: &str, is: String, wanted: String| {
        if is != wanted {
            found.push(format!("{what} {is} instead of {wanted}"));
        }
    };
    let bits = |rate: u64| BitsPerSecond(rate.saturating_mul(8)).to_string();
    differs("rate", bits(was.rate.0), bits(to.rate.0));
    // Bytes that show as the same ticks may still differ by the rounding.
    if was.rate == to.rate && !to.has_burst_of(from) {
        differs("burst", format!("{} bytes", was.burst), format!("{} bytes", to.burst));
    }
    differs("limit", format!("{} bytes", was.limit), format!("{} bytes", to.limit));
    let peak = |bucket: &Bucket| bucket.peak.map_or("none".into(), |p| bits(p.rate.0));
    differs("peak rate", peak(&was), peak(to));
    if !to.mark.accepts(from.mark) {
        differs(
            "mark",
            format!("{:?}", from.mark.to_string()),
            format!("{:?}", to.mark.to_string()),
        );
    }
    if found.is_empty() {
        return "another peak burst".into();
    }
    found.join(", ")
}

#[cfg(test)]
#[path = "describe_tests.rs"]
mod tests;
