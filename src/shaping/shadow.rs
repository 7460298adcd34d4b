//! Shadows: filters of other programs that are asked before those of pod-bandwidth and may take
//! packets away from them, so that these packets meet no limit.

use super::identity::FILTER_PREFS;
use super::site::{Filter, Hook, Observed, Owner, Shape, Side, Site, Takes, direction};
use crate::policy::Direction;

/// A filter of another program, or several of one kind and preference, that a limit is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    /// The interface.
    pub device: String,
    /// The hook.
    pub hook: Hook,
    /// The filter's kind.
    pub kind: String,
    /// Its preference.
    pub pref: u16,
    /// The protocol that it is asked for, an Ethernet type; 3 (ETH_P_ALL) for all.
    pub protocol: u16,
    /// What it takes: some packets, or all of its protocol.
    pub takes: Takes,
    /// The direction of the pod's traffic that passes there.
    pub direction: Direction,
}

impl Shadow {
    /// What it is and where, short enough for a reason.
    pub fn place(&self) -> String {
        let Self { device, hook, kind, pref, .. } = self;
        format!("{kind} filter (pref {pref}) on the {hook} of {device}")
    }

    /// The protocol as `tc` prints it.
    pub fn protocol(&self) -> String {
        match self.protocol {
            0x0003 => "all".into(),
            0x0800 => "ip".into(),
            0x0806 => "arp".into(),
            0x86dd => "ipv6".into(),
            other => format!("{other:#06x}"),
        }
    }
}

impl std::fmt::Display for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, hook, kind, pref, takes, direction, .. } = self;
        let hides = match takes {
            Takes::All => "hides every packet of that protocol",
            Takes::Some | Takes::Nothing => "may hide packets",
        };
        let direction = match direction {
            Direction::Ingress => "to the pod",
            Direction::Egress => "from the pod",
        };
        write!(
            f,
            "{device} has a {kind} filter (pref {pref}, protocol {}) of another program on its \
             {hook}; it is asked before the limit on traffic {direction} and {hides} from it",
            self.protocol()
        )
    }
}

/// What stands before the limits of a shape at a site, whether its filters are there already or not.
pub fn shadows(site: &Site, wanted: &Shape, observed: &Observed) -> Vec<Shadow> {
    let used = Hook::ALL.into_iter().filter(|hook| wanted.redirects[*hook as usize].is_some());
    used.flat_map(|hook| at_hook(site.side, &site.device, hook, &observed.filters[hook as usize]))
        .collect()
}

/// What stands before the limit at a hook, of which these are the filters in the order in which they
/// are asked. Those behind the last redirect of pod-bandwidth hide nothing from it.
pub fn at_hook<'a>(
    side: Side,
    device: &str,
    hook: Hook,
    filters: impl IntoIterator<Item = &'a Filter>,
) -> Vec<Shadow> {
    let filters: Vec<&Filter> = filters.into_iter().collect();
    let end = filters.iter().rposition(|filter| redirects(filter)).unwrap_or(filters.len());
    let mut found: Vec<Shadow> = Vec::new();
    for filter in &filters[..end] {
        let Owner::Foreign { kind, protocol, takes } = &filter.owner else { continue };
        let (pref, protocol, takes) = (filter.pref, *protocol, *takes);
        if takes == Takes::Nothing || pref > FILTER_PREFS[hook as usize] {
            continue;
        }
        let same =
            |one: &&mut Shadow| (&one.kind, one.pref, one.protocol) == (kind, pref, protocol);
        match found.iter_mut().find(same) {
            Some(one) => one.takes = one.takes.max(takes),
            None => found.push(Shadow {
                device: device.to_owned(),
                hook,
                kind: kind.clone(),
                pref,
                protocol,
                takes,
                direction: direction(side, hook),
            }),
        }
    }
    found
}

/// Whether a filter is one of pod-bandwidth that sends packets to a limit.
pub fn redirects(filter: &Filter) -> bool {
    matches!(filter.owner, Owner::Ours { target: Some(_), .. })
}

#[cfg(test)]
mod tests {
    use super::super::rules::Match;
    use super::*;

    fn foreign(pref: u16, takes: Takes) -> Filter {
        let owner = Owner::Foreign { kind: "u32".into(), protocol: 0x0800, takes };
        Filter { pref, handle: 0x8000_0800, owner }
    }

    fn redirect(hook: Hook) -> Filter {
        let stamp = <_>::default();
        let owner = Owner::Ours { matches: Match::All, target: Some(4), made_hook: false, stamp };
        Filter { pref: FILTER_PREFS[hook as usize], handle: 0x8000_0800, owner }
    }

    fn prefs(hook: Hook, filters: &[Filter]) -> Vec<(u16, Takes)> {
        let found = at_hook(Side::Host, "veth0", hook, filters);
        found.iter().map(|shadow| (shadow.pref, shadow.takes)).collect()
    }

    #[test]
    fn what_takes_packets_before_the_limit_is_found_once_for_each_preference() {
        let (hook, some) = (Hook::Egress, foreign(1, Takes::Some));
        // given filters before the limit's own, and behind it
        let last = foreign(u16::MAX, Takes::All);
        let mut filters =
            vec![some.clone(), some, foreign(2, Takes::Nothing), foreign(3, Takes::All)];
        let expected = [(1, Takes::Some), (3, Takes::All)];
        // then it is the same whether the limit's filter is there or will be
        assert_eq!(prefs(hook, &[filters.clone(), vec![last.clone()]].concat()), expected);
        filters.extend([redirect(hook), last]);
        assert_eq!(prefs(hook, &filters), expected);
    }

    #[test]
    fn a_shadow_says_who_is_where_and_what_is_hidden() {
        let found = at_hook(Side::Host, "veth0", Hook::Ingress, &[foreign(7, Takes::Some)]);
        assert_eq!(
            found[0].to_string(),
            "veth0 has a u32 filter (pref 7, protocol ip) of another program on its ingress hook; \
             it is asked before the limit on traffic from the pod and may hide packets from it"
        );
        // In the pod the ingress hook is the way to the pod.
        let found = at_hook(Side::Pod, "eth0", Hook::Ingress, &[foreign(7, Takes::All)]);
        let text = found[0].to_string();
        assert!(text.contains("to the pod and hides every packet of that protocol"), "{text}");
    }
}
