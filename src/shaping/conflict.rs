//! Conflicts: where somebody else is where we would have to be, and what the operator can do.

use super::Shape;
use super::rules::{behind, first_subnet_pref};
use super::site::{Filter, Hook, HookKind, Ifb, Observed, Owner, Root, Site};
use super::tag::SeenTag;
use crate::policy::Direction;

/// Somebody else is where we would have to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A foreign root qdisc.
    #[error(
        "{device} already has the root qdisc {qdisc} of another program; remove the other entry \
         that shapes it (such as the `bandwidth` plugin in the same chain), or use \
         \"hostIngress\": \"hooks\" or \"placement\": \"auto\""
    )]
    Root {
        /// The interface.
        device: String,
        /// `kind handle`.
        qdisc: String,
    },
    /// A plain `ingress` qdisc where the egress hook is needed.
    #[error(
        "{device} already has a plain `ingress` qdisc of another program, which leaves no room for \
         the egress hook; use \"hostIngress\": \"root\" or \"placement\": \"auto\" or \"pod\""
    )]
    NoEgressHook {
        /// The interface.
        device: String,
    },
    /// A plain `ingress` qdisc where only the egress hook can tell one subnet from another.
    #[error(
        "{device} already has a plain `ingress` qdisc of another program, which leaves no room for \
         the egress hook that unshapedSubnets and shapedSubnets need; remove what made that qdisc, \
         use another \"placement\", or take the subnets out of the configuration"
    )]
    NoEgressHookForSubnets {
        /// The interface.
        device: String,
    },
    /// A foreign filter behind ours that packets of a subnet would skip.
    #[error(
        "{device} already has a {kind} filter (pref {pref}) of another program on its {hook}, and \
         ours for unshapedSubnets or shapedSubnets would come before it and hide packets from it; \
         give it a preference below {}, use another \"placement\", or take the subnets out of the \
         configuration",
        first_subnet_pref(*hook)
    )]
    Behind {
        /// The interface.
        device: String,
        /// The hook.
        hook: Hook,
        /// The filter's kind.
        kind: String,
        /// Its preference.
        pref: u16,
    },
    /// A foreign filter that takes every packet before ours.
    #[error(
        "{device} already has a {kind} filter (pref {pref}) of another program on its {hook} that \
         takes every packet, so a limit behind it would not hold; remove the other entry that made \
         it, or use \"placement\": \"pod\" or \"auto\""
    )]
    Barrier {
        /// The interface.
        device: String,
        /// The hook.
        hook: Hook,
        /// The filter's kind.
        kind: String,
        /// Its preference.
        pref: u16,
    },
    /// pod-bandwidth limits the interface for another attachment.
    #[error(
        "pod-bandwidth already limits {device} for another attachment{}; call DEL for that one, or \
         remove what it left",
        named(seen)
    )]
    OtherAttachment {
        /// The interface.
        device: String,
        /// What its filters or its TBF carry.
        seen: SeenTag,
    },
    /// The name of our IFB is taken.
    #[error(
        "the name {ifb} is taken by a device of kind {kind}, which is not ours; \
         remove or rename that device"
    )]
    NameTaken {
        /// The name.
        ifb: String,
        /// The kind of the device that has it.
        kind: String,
    },
}

fn named(seen: &SeenTag) -> String {
    let SeenTag::Whole(tag) = seen else { return String::new() };
    let ifb = |direction| tag.ifb_name(direction);
    let (ingress, egress) = (ifb(Direction::Ingress), ifb(Direction::Egress));
    format!(" (the alias of its IFB {egress} or {ingress} names it)")
}

/// Refuses a shape that cannot be had beside what others made.
pub(super) fn refuse(site: &Site, wanted: &Shape, observed: &Observed) -> Result<(), Conflict> {
    let device = || site.device.clone();
    if let Some(seen) = observed.other.filter(|_| *wanted != Shape::default()) {
        return Err(Conflict::OtherAttachment { device: device(), seen });
    }
    if let (Some(_), Root::Foreign(qdisc)) = (&wanted.root, &observed.root) {
        return Err(Conflict::Root { device: device(), qdisc: qdisc.clone() });
    }
    for hook in Hook::ALL {
        if wanted.redirects[hook as usize].is_none() {
            continue;
        }
        if hook == Hook::Egress && observed.hook == HookKind::Ingress {
            let device = device();
            return Err(match wanted.scope.is_all() {
                true => Conflict::NoEgressHook { device },
                false => Conflict::NoEgressHookForSubnets { device },
            });
        }
        if let Some((kind, pref)) = behind(observed, hook).filter(|_| !wanted.scope.is_all()) {
            return Err(Conflict::Behind { device: device(), hook, kind: kind.into(), pref });
        }
        if let Some(Filter { pref, owner: Owner::Foreign { kind, .. }, .. }) =
            observed.barrier(hook)
        {
            let (kind, pref) = (kind.clone(), *pref);
            return Err(Conflict::Barrier { device: device(), hook, kind, pref });
        }
        if let Ifb::Taken(kind) = &observed.ifbs[hook as usize] {
            let ifb = site.ifb(hook).to_string();
            return Err(Conflict::NameTaken { ifb, kind: kind.clone() });
        }
    }
    Ok(())
}
