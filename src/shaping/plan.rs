//! The plan: what must change at a site so that it has the wanted shape.
//!
//! Pure and total: for every observed state, applying the plan gives a state whose plan is
//! empty (property-tested below). The rules of docs/design.md live here:
//! - the pod keeps its network after every prefix of every plan: an IFB is shaped and up before
//!   a filter points at it, and a filter is gone before its IFB goes;
//! - what is not ours is used or refused, never removed;
//! - steps in one batch go to the kernel in one send, so no kill can come between them.

use super::bucket::{Bucket, Leaf, TbfState};
use super::conflict::{self, Conflict};
use super::queue::{self, FqCodel, NewLeaf};
use super::rules::Rule;
use super::site::{
    FelixIngress, Filter, Hook, HookKind, IFB_MTU, Ifb, IfbState, Observed, Place, Root, Shape,
    Site,
};
use super::tag::{SeenTag, Stamp};

/// Steps that reach the kernel in one send.
pub type Batch = Vec<Step>;

/// One change in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Create the IFB behind a hook, down.
    CreateIfb(Hook),
    /// Give the IFB its alias, and its MTU where that is another one.
    LabelIfb {
        /// Which IFB.
        hook: Hook,
        /// What it had before (`None`: it was just created).
        was: Option<(u32, Option<String>)>,
    },
    /// Put an alias and an MTU back; only to undo.
    RestoreLabel {
        /// Which IFB.
        hook: Hook,
        /// Its MTU in bytes.
        mtu: u32,
        /// Its alias.
        alias: Option<String>,
    },
    /// Bring the IFB up.
    UpIfb(Hook),
    /// Bring the IFB down; only to undo.
    DownIfb(Hook),
    /// Make a TBF the root qdisc of a place.
    AddTbf {
        /// Where.
        place: Place,
        /// What it holds.
        bucket: Bucket,
        /// The foreign qdisc that it takes the place of: only ever on our own IFB.
        replaces: Option<String>,
    },
    /// Change a TBF of ours in place.
    ChangeTbf {
        /// Where.
        place: Place,
        /// What it holds now.
        from: TbfState,
        /// What it shall hold.
        to: Bucket,
    },
    /// Give a TBF of ours a new, empty leaf queue.
    ReplaceLeaf {
        /// Where.
        place: Place,
        /// Which.
        leaf: NewLeaf,
        /// What was there before (`None`: nothing that is to come back).
        was: Option<Leaf>,
        /// Where the kernel has no such queue, what is there stays.
        optional: bool,
    },
    /// Change the numbers of an fq_codel below a TBF of ours in place.
    ChangeLeaf {
        /// Where.
        place: Place,
        /// What it has now.
        from: FqCodel,
        /// What it shall have, with the same number of flows.
        to: FqCodel,
    },
    /// Remove a TBF of ours.
    DelTbf {
        /// Where.
        place: Place,
        /// What it held (`None`: this plan made it).
        was: Option<TbfState>,
    },
    /// Add a clsact qdisc.
    AddHook,
    /// Redirect what comes by a hook to its IFB, or let some of it pass.
    AddFilter {
        /// Which hook.
        hook: Hook,
        /// Which packets, and which of both.
        rule: Rule,
        /// Record that the hook is of our making.
        made_hook: bool,
    },
    /// Remove a filter of ours.
    DelFilter {
        /// Which hook.
        hook: Hook,
        /// Which filter.
        filter: Filter,
        /// No other filter has its preference, so the preference goes with it.
        alone: bool,
        /// The rule that it stands for, if it is in place.
        rule: Option<Rule>,
    },
    /// Remove the filter of ours that stands for a rule; only to undo, where nobody knows yet which
    /// handle the kernel gave.
    DropFilter {
        /// Which hook.
        hook: Hook,
        /// Which rule.
        rule: Rule,
    },
    /// Remove the clsact qdisc, which we made.
    DelHook,
    /// Remove the plain `ingress` qdisc of Calico's Felix, whose place a clsact qdisc takes in the
    /// same send.
    DelIngress(FelixIngress),
    /// Put it back with its filter; only to undo.
    RestoreIngress(FelixIngress),
    /// Remove the IFB behind a hook.
    DelIfb {
        /// Which hook.
        hook: Hook,
    },
}

impl Step {
    /// The hook whose IFB this step changes.
    pub fn ifb(&self) -> Option<Hook> {
        match self {
            Self::CreateIfb(hook)
            | Self::UpIfb(hook)
            | Self::DownIfb(hook)
            | Self::LabelIfb { hook, .. }
            | Self::RestoreLabel { hook, .. }
            | Self::DelIfb { hook }
            | Self::AddTbf { place: Place::Ifb(hook), .. }
            | Self::ChangeTbf { place: Place::Ifb(hook), .. }
            | Self::ReplaceLeaf { place: Place::Ifb(hook), .. }
            | Self::ChangeLeaf { place: Place::Ifb(hook), .. }
            | Self::DelTbf { place: Place::Ifb(hook), .. } => Some(*hook),
            _ => None,
        }
    }
}

/// What must change at `site` so that it has the `wanted` shape.
///
/// # Errors
/// [`Conflict`] where that cannot be had beside what others made. A plan for nothing
/// (`Shape::default()`) never conflicts.
pub fn plan(site: &Site, wanted: &Shape, observed: &Observed) -> Result<Vec<Batch>, Conflict> {
    let Some(felix) = replaced(wanted, observed) else { return build(site, wanted, observed) };
    let mut batches = build(site, wanted, &observed.without_ingress())?;
    let ours: Vec<&Filter> = observed.ours(Hook::Ingress).collect();
    let mut removal = delete_filters(observed, Hook::Ingress, &ours, &[]);
    removal.push(Step::DelIngress(felix));
    // One send, so that no kill leaves the pod without Felix's limit and ours.
    for batch in &mut batches {
        if let Some(at) = batch.iter().position(|step| *step == Step::AddHook) {
            batch.splice(at..at, removal.drain(..));
        }
    }
    Ok(batches)
}

/// Felix's `ingress` qdisc, where this shape takes its place. Felix's limit for what the pod sends
/// goes with it, so the shape must have one of its own. And a limit of ours that holds on the qdisc
/// stays: an older version put it there.
fn replaced(wanted: &Shape, observed: &Observed) -> Option<FelixIngress> {
    let felix = observed.felix.filter(|_| wanted.redirects[Hook::Ingress as usize].is_some())?;
    let holds = felix == FelixIngress::Idle
        && observed.ours(Hook::Ingress).next().is_some()
        && wanted.redirects[Hook::Egress as usize].is_none();
    (!holds).then_some(felix)
}

/// The plan beside what others have there.
fn build(site: &Site, wanted: &Shape, observed: &Observed) -> Result<Vec<Batch>, Conflict> {
    conflict::refuse(site, wanted, observed)?;
    let mut batches = Vec::new();
    for hook in Hook::ALL {
        if let Some(bucket) = wanted.redirects[hook as usize] {
            build_ifb(site, hook, bucket, &observed.ifbs[hook as usize], &mut batches);
        }
    }
    let mut batch = redirect(site, wanted, observed);
    if let Some(bucket) = wanted.root {
        batch.extend(root(Place::Device, bucket, &observed.root, wanted.stamps_leaf()));
    }
    batches.push(batch);
    batches.extend(remove(site, wanted, observed));
    batches.retain(|batch| !batch.is_empty());
    Ok(batches)
}

/// An IFB gets its qdisc before it is up: that avoids a deactivation, and nothing ever passes it
/// unshaped.
fn build_ifb(site: &Site, hook: Hook, bucket: Bucket, ifb: &Ifb, batches: &mut Vec<Batch>) {
    let place = Place::Ifb(hook);
    let Ifb::Present(state) = ifb else {
        batches.push(vec![Step::CreateIfb(hook)]);
        let mut batch = vec![Step::LabelIfb { hook, was: None }];
        batch.extend(root(place, bucket, &Root::Default, false));
        batch.push(Step::UpIfb(hook));
        batches.push(batch);
        return;
    };
    if !is_labelled(site, state) {
        let was = Some((state.mtu, state.alias.clone()));
        batches.push(vec![Step::LabelIfb { hook, was }]);
    }
    batches.push(root(place, bucket, &state.root, false));
    if !state.up {
        batches.push(vec![Step::UpIfb(hook)]);
    }
}

fn is_labelled(site: &Site, state: &IfbState) -> bool {
    state.mtu == IFB_MTU && state.alias.as_deref() == Some(site.alias.as_str())
}

/// Steps that make `bucket` the root of a place that is ours to change; `stamps_leaf` says that its leaf
/// queue must tell whose it is.
fn root(place: Place, bucket: Bucket, observed: &Root, stamps_leaf: bool) -> Batch {
    let replaces = match observed {
        Root::Ours(state) => return change(place, bucket, state, stamps_leaf),
        Root::Default => None,
        Root::Foreign(kind) => Some(kind.clone()),
    };
    let mut batch = vec![Step::AddTbf { place, bucket, replaces }];
    batch.extend(queue::below_new(place, &bucket, stamps_leaf));
    batch
}

fn change(place: Place, bucket: Bucket, state: &TbfState, stamps_leaf: bool) -> Batch {
    let mut batch = Vec::new();
    let changes = !bucket.is_shown_as(state);
    if changes {
        batch.push(Step::ChangeTbf { place, from: state.clone(), to: bucket });
    }
    let below = queue::below_old(place, &bucket, state, changes);
    let replaces = below.iter().any(|step| matches!(step, Step::ReplaceLeaf { .. }));
    batch.extend(below);
    if stamps_leaf && !replaces && Stamp::of_leaf(state.leaf_handle).tag == SeenTag::None {
        batch.push(queue::stamp(place, &bucket, state));
    }
    batch
}

/// Filters that are wanted and missing, with the hook that they need, and then those that are not
/// wanted there; all in one send, so that what a filter says about the hook is never missing and
/// no packet meets half a list.
fn redirect(site: &Site, wanted: &Shape, observed: &Observed) -> Batch {
    let mut batch = Vec::new();
    let adds_hook = observed.hook == HookKind::None;
    let made_hook = adds_hook || observed.made_hook();
    for hook in Hook::ALL.into_iter().filter(|hook| !wanted.rules(site, *hook).is_empty()) {
        let mut missing = wanted.rules(site, hook);
        let mut stale = Vec::new();
        for filter in observed.ours(hook) {
            let rule = observed.rule_of(hook, filter);
            match missing.iter().position(|wanted| Some(*wanted) == rule) {
                Some(position) => drop(missing.remove(position)),
                None => stale.push(filter),
            }
        }
        if adds_hook && !missing.is_empty() && !batch.contains(&Step::AddHook) {
            batch.push(Step::AddHook);
        }
        batch.extend(missing.iter().map(|rule| Step::AddFilter { hook, rule: *rule, made_hook }));
        batch.extend(delete_filters(observed, hook, &stale, &missing));
    }
    batch
}

/// Removes filters of ours. The last one of a preference takes the preference with it, unless
/// another filter is there or `comes`.
fn delete_filters(observed: &Observed, hook: Hook, goes: &[&Filter], comes: &[Rule]) -> Batch {
    let mut left: Vec<&Filter> = observed.filters[hook as usize].iter().collect();
    let mut batch = Vec::new();
    for filter in goes {
        left.retain(|other| other != filter);
        let alone = !left.iter().any(|other| other.shares_preference_with(filter))
            && !comes.iter().any(|rule| rule.matches.pref(hook) == filter.pref);
        let rule = observed.rule_of(hook, filter);
        batch.push(Step::DelFilter { hook, filter: (*filter).clone(), alone, rule });
    }
    batch
}

/// What is ours and not wanted: filters first, then the hook if it is ours and nobody else
/// uses it, the root TBF, and the IFBs last.
fn remove(site: &Site, wanted: &Shape, observed: &Observed) -> Vec<Batch> {
    let unwanted = |hook: &Hook| wanted.redirects[*hook as usize].is_none();
    let unused = |hook: &Hook| wanted.rules(site, *hook).is_empty();
    let mut filters = Vec::new();
    for hook in Hook::ALL.into_iter().filter(|hook| unused(hook)) {
        let goes: Vec<&Filter> = observed.ours(hook).collect();
        filters.extend(delete_filters(observed, hook, &goes, &[]));
    }
    let uses_hook = !Hook::ALL.iter().all(unused);
    // A plain `ingress` qdisc is never created by pod-bandwidth, whatever a filter says that met one there.
    let is_ours = observed.hook == HookKind::Clsact && observed.made_hook();
    if !uses_hook && is_ours && !observed.has_foreign_filters() {
        filters.push(Step::DelHook);
    }
    if let (None, Root::Ours(was)) = (wanted.root, &observed.root) {
        filters.push(Step::DelTbf { place: Place::Device, was: Some(was.clone()) });
    }
    let is_there = |hook: &Hook| matches!(observed.ifbs[*hook as usize], Ifb::Present(_));
    let gone = |hook: Hook| Step::DelIfb { hook };
    let ifbs = Hook::ALL.into_iter().filter(unwanted).filter(is_there).map(gone).collect();
    vec![filters, ifbs]
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
