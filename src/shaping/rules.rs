//! What is wanted at a site, and the rules that follow: which packets a filter of ours takes, and
//! what it does with them.
//!
//! A scope (which subnets a limit is for) becomes the list of filters that a hook must have.

use ipnetwork::IpNetwork;

use super::Bucket;
use super::identity::{FILTER_PREFS, SUBNET_PREFS, TRACE_PREF};
use super::site::{Hook, Observed, Owner, Place, Site};
use crate::policy::{Direction, Scope};

/// What is wanted at a site. The default is: nothing of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// A TBF as root of the interface.
    pub root: Option<Bucket>,
    /// A redirect from each hook to an IFB with a TBF.
    pub redirects: [Option<Bucket>; 2],
    /// What is redirected there.
    pub scope: Scope,
    /// The directions whose limit the node agent or `set` removed: each leaves a trace, without which
    /// CHECK could not tell this from a limit that was lost.
    pub removed: [bool; 2],
}

impl Shape {
    /// The same for a part of the traffic. A root TBF limits all packets, so the egress hook takes
    /// its place.
    #[must_use]
    pub fn within(mut self, scope: &Scope) -> Self {
        self.scope.clone_from(scope);
        if !scope.is_all() {
            let egress = &mut self.redirects[Hook::Egress as usize];
            *egress = egress.or(self.root.take());
        }
        self
    }

    /// Whether no filter can say whose the root TBF is: then its leaf queue must.
    pub fn stamps_leaf(&self) -> bool {
        self.redirects == [None, None] && self.removed == [false; 2]
    }

    /// The filters that a hook must have.
    pub fn rules(&self, site: &Site, hook: Hook) -> Vec<Rule> {
        // Every interface with hooks has this one; a plain `ingress` qdisc has no other.
        let removed = Direction::ALL.into_iter().filter(|of| self.removed[*of as usize]);
        let mut all: Vec<Rule> = match hook {
            Hook::Ingress => removed.map(Rule::trace).collect(),
            Hook::Egress => Vec::new(),
        };
        if self.redirects[hook as usize].is_some() {
            all.extend(rules(&self.scope, site.direction_of(Place::Ifb(hook))));
        }
        all
    }
}

/// The packets that a filter of ours takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Every packet, of every protocol.
    All,
    /// IP packets from this subnet.
    Source(IpNetwork),
    /// IP packets to this subnet.
    Destination(IpNetwork),
    /// No packet: the trace of the limit of this direction, which was removed after ADD.
    Nothing(Direction),
    /// Something that no rule of ours says: made by another version, or changed.
    Unknown,
}

impl Match {
    /// The preference of a filter that takes these packets.
    pub fn pref(self, hook: Hook) -> u16 {
        let hook = hook as usize;
        match self {
            Self::All | Self::Unknown => FILTER_PREFS[hook],
            Self::Source(net) | Self::Destination(net) => SUBNET_PREFS[hook][family(net)],
            Self::Nothing(_) => TRACE_PREF,
        }
    }
}

fn family(net: IpNetwork) -> usize {
    usize::from(net.is_ipv6())
}

impl std::fmt::Display for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all packets"),
            Self::Source(net) => write!(f, "packets from {net}"),
            Self::Destination(net) => write!(f, "packets to {net}"),
            Self::Nothing(_) => f.write_str("no packets"),
            Self::Unknown => f.write_str("packets of a kind that it does not know"),
        }
    }
}

/// A filter that a hook must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Which packets.
    pub matches: Match,
    /// To the IFB behind the hook; else they pass as they are, and no filter behind sees them.
    pub redirects: bool,
}

impl Rule {
    /// Redirects everything.
    pub const ALL: Rule = Rule { matches: Match::All, redirects: true };

    /// The trace of a limit that was removed.
    fn trace(of: Direction) -> Self {
        Rule { matches: Match::Nothing(of), redirects: false }
    }
}

/// The filters of a hook that sees this direction of the pod's traffic. Those that let packets
/// pass come first, so that a hook that is built in this order never limits them.
pub fn rules(scope: &Scope, direction: Direction) -> Vec<Rule> {
    let with = |net: &IpNetwork| match direction {
        Direction::Ingress => Match::Source(*net),
        Direction::Egress => Match::Destination(*net),
    };
    let rule = |redirects| move |net| Rule { matches: with(net), redirects };
    match scope {
        Scope::All => vec![Rule::ALL],
        Scope::Except(nets) => nets.iter().map(rule(false)).chain([Rule::ALL]).collect(),
        Scope::Only(nets) => nets.iter().map(rule(true)).collect(),
    }
}

/// Where our filters for subnets begin at a hook.
pub fn first_subnet_pref(hook: Hook) -> u16 {
    SUBNET_PREFS[hook as usize].into_iter().min().unwrap_or(u16::MAX)
}

/// A foreign filter, kind and preference, that packets would skip which a filter of ours for a
/// subnet takes: one that is not asked before all of ours.
pub fn behind(observed: &Observed, hook: Hook) -> Option<(&str, u16)> {
    observed.filters[hook as usize].iter().find_map(|filter| match &filter.owner {
        Owner::Foreign { kind, .. } if filter.pref >= first_subnet_pref(hook) => {
            Some((kind.as_str(), filter.pref))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_says_what_each_hook_has() {
        let (four, six): (IpNetwork, IpNetwork) =
            ("10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap());
        let rule = |matches, redirects| Rule { matches, redirects };
        for (scope, direction, expected) in [
            (Scope::All, Direction::Ingress, vec![Rule::ALL]),
            (
                Scope::Except(vec![four, six]),
                Direction::Ingress,
                vec![rule(Match::Source(four), false), rule(Match::Source(six), false), Rule::ALL],
            ),
            (
                Scope::Except(vec![four]),
                Direction::Egress,
                vec![rule(Match::Destination(four), false), Rule::ALL],
            ),
            (
                Scope::Only(vec![four, six]),
                Direction::Egress,
                vec![rule(Match::Destination(four), true), rule(Match::Destination(six), true)],
            ),
        ] {
            assert_eq!(rules(&scope, direction), expected, "{scope:?} {direction:?}");
        }
    }

    /// The kernel keeps one protocol to a preference, and u32 one set of tables to a preference.
    #[test]
    fn each_hook_and_family_has_a_preference_of_its_own() {
        let nets = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let matches = [Match::All, Match::Source(nets[0]), Match::Destination(nets[1])];
        let mut prefs: Vec<u16> =
            Hook::ALL.iter().flat_map(|hook| matches.map(|m| m.pref(*hook))).collect();
        prefs.sort();
        assert_eq!(prefs, [65530, 65531, 65532, 65533, 65534, 65535]);
    }
}
