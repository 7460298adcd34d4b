//! Placement: at which end of the pod's link, and by which way, its limits are held.
//!
//! A pure decision over what was observed. docs/placement.md has the table and the reasons.

use super::Bucket;
use super::mark::Mark;
use super::rules::behind;
use super::shadow::{Shadow, at_hook};
use super::site::{Hook, HookKind, Observed, Root, Shape, Side};
use crate::policy::{Direction, HostIngress, Placement, Scope, Settings};

/// How the names of host interfaces begin in whose root qdisc Calico's Felix may do as it likes, with
/// any CNI plugin: FELIX_INTERFACEPREFIX, by default `cali`. The Tigera operator sets `azv` for Azure's
/// plugin, `gke` for GKE's and `eni` for Amazon's (pkg/render/node.go), Oracle's pages for OKE say
/// `oci`, and Calico's integration with OpenStack sets `tap` (api/pkg/apis/projectcalico/v3/felixconfig.go,
/// v3.32.1). Without a Felix the hooks hold as well as the root.
const FELIX_PREFIXES: [&str; 6] = ["cali", "azv", "gke", "eni", "oci", "tap"];

/// A way to hold a pod's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the pod: TBF as root of the host interface. From the pod: its ingress hook → IFB.
    HostRoot,
    /// To the pod: egress hook of the host interface → IFB. From the pod: ingress hook → IFB.
    HostHooks,
    /// To the pod: ingress hook of the container interface → IFB. From the pod: TBF as its root.
    Pod,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::HostRoot => "host (root)",
            Self::HostHooks => "host (hooks)",
            Self::Pod => "pod",
        })
    }
}

/// The buckets of a pod, for each direction that has a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Buckets {
    /// To the pod.
    pub ingress: Option<Bucket>,
    /// From the pod.
    pub egress: Option<Bucket>,
}

impl Buckets {
    /// The same, wanted by whom the mark says.
    #[must_use]
    pub fn marked(self, mark: Mark) -> Self {
        let marked = |bucket: Option<Bucket>| bucket.map(|bucket| Bucket { mark, ..bucket });
        Self { ingress: marked(self.ingress), egress: marked(self.egress) }
    }
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 3] = [Way::HostRoot, Way::HostHooks, Way::Pod];

    /// The end of the link that this way works at.
    pub fn side(self) -> Side {
        match self {
            Self::HostRoot | Self::HostHooks => Side::Host,
            Self::Pod => Side::Pod,
        }
    }

    /// The hooks that hold a limit in this way, of those that the [`Shape`] may use.
    fn hooks(self, scope: &Scope, limited: [bool; 2]) -> [bool; 2] {
        let [to_pod, from_pod] = limited;
        match (self, scope.is_all()) {
            (Self::HostRoot, true) => [from_pod, false],
            (Self::HostRoot, false) | (Self::HostHooks, _) => [from_pod, to_pod],
            (Self::Pod, true) => [to_pod, false],
            (Self::Pod, false) => [to_pod, from_pod],
        }
    }

    /// The shape of the site at [`Way::side`], for all traffic; see [`Shape::within`].
    pub fn shape(self, buckets: &Buckets) -> Shape {
        let Buckets { ingress, egress } = *buckets;
        let (root, redirects) = match self {
            Self::HostRoot => (ingress, [egress, None]),
            Self::HostHooks => (None, [egress, ingress]),
            Self::Pod => (egress, [ingress, None]),
        };
        Shape { root, redirects, ..Shape::default() }
    }
}

/// What the decision looks at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The host interface's name and state, where the pod has one.
    pub host: Option<(&'a str, &'a Observed)>,
    /// The state of the pod's own interface, unless that was moved out of the pod.
    pub pod: Option<&'a Observed>,
    /// A device that only a BPF data plane makes, where one was seen.
    pub bpf_data_plane: Option<&'a str>,
    /// What only Calico's Felix makes on a node, where it was seen.
    pub felix_trace: Option<&'a str>,
    /// The directions that have a limit.
    pub limited: [bool; 2],
}

impl Facts<'_> {
    fn limits(&self, direction: Direction) -> bool {
        self.limited[direction as usize]
    }
}

/// The way that was taken, and why, in words for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The way.
    pub way: Way,
    /// The reason.
    pub reason: String,
}

/// The configuration asks for what this pod's interface does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No host interface.
    #[error(
        "\"placement\": \"host\" needs a veth pair with one end in the host's network namespace, \
         and {ifname} has none (macvlan, ipvlan, SR-IOV); use \"placement\": \"pod\" or \"auto\""
    )]
    NoHostInterface {
        /// The container interface.
        ifname: String,
    },
    /// A BPF program guards the host interface.
    #[error(
        "a BPF program guards the host interface {device}: a redirect before it would bypass its \
         policy, and one behind it may never be reached; use \"placement\": \"pod\" or \"auto\""
    )]
    GuardedByBpf {
        /// The host interface.
        device: String,
    },
}

/// Decides how this pod's limits are held.
///
/// # Errors
/// [`Refusal`] where the configuration insists on the host and the host cannot do it. What else
/// stands in the way is left to the plan, whose conflicts name it.
pub fn decide(settings: &Settings, ifname: &str, facts: &Facts) -> Result<Decision, Refusal> {
    // Felix's `ingress` qdisc makes way for a limit from the pod (`plan`), so it is not in the way.
    let is_replaced =
        |host: &(_, &Observed)| host.1.felix.is_some() && facts.limits(Direction::Egress);
    let replaced = facts.host.filter(is_replaced).map(|(_, observed)| observed.without_ingress());
    let host = facts.host.map(|(device, observed)| (device, replaced.as_ref().unwrap_or(observed)));
    let facts = &Facts { host, ..*facts };

    let (placement, host_ingress, reason) = configured(settings, facts);
    let settings = &Settings { host_ingress, ..settings.clone() };
    let because = |way, reason: &str| Ok(Decision { way, reason: reason.to_string() });
    match placement {
        Placement::Pod => because(Way::Pod, &reason),
        Placement::Host => {
            let Some((device, observed)) = facts.host else {
                return Err(Refusal::NoHostInterface { ifname: ifname.into() });
            };
            if observed.guarded_by_bpf() {
                return Err(Refusal::GuardedByBpf { device: device.into() });
            }
            let (way, why) = host_way(settings, facts, device, observed);
            let way = way.unwrap_or(match settings.scope.is_all() {
                true => Way::HostRoot,
                false => Way::HostHooks,
            });
            because(way, &format!("{reason}; {why}"))
        }
        Placement::Auto => match automatic_host(settings, facts) {
            Ok((way, why)) => because(way, &format!("{reason}; {why}")),
            Err(why) => because(Way::Pod, &format!("{reason}; {why}")),
        },
    }
}

/// The placement and the way that the configuration names, an operator's list of prefixes first.
fn configured(settings: &Settings, facts: &Facts) -> (Placement, HostIngress, String) {
    let device = facts.host.map(|(device, _)| device);
    let (placement, host_ingress) = settings.placed(device);
    let reason = match (device.and_then(|device| settings.by_prefix(device)), placement) {
        (Some((prefix, _)), _) => format!("placementByPrefix has {prefix:?} for this interface"),
        (None, Placement::Auto) => "placement is auto".into(),
        (None, Placement::Host) => "placement is host".into(),
        (None, Placement::Pod) => "placement is pod".into(),
    };
    (placement, host_ingress, reason)
}

/// The host way for auto, or why it has to be the pod.
fn automatic_host(settings: &Settings, facts: &Facts) -> Result<(Way, String), String> {
    let Some((device, observed)) = facts.host else {
        return Err("the pod has no veth on the host".into());
    };
    if observed.guarded_by_bpf() {
        return Err(format!("a BPF program guards {device}"));
    }
    if let Some(sign) = facts.bpf_data_plane {
        return Err(format!("{sign} shows a BPF data plane on this node"));
    }
    if device.starts_with("eni") {
        // The AWS network policy agent attaches its programs to eni* veths after ADD.
        return Err(format!("{device} may be guarded by the AWS network policy agent"));
    }
    if let (true, Some(filter)) = (facts.limits(Direction::Egress), observed.barrier(Hook::Ingress))
    {
        return Err(format!(
            "a foreign filter (pref {}) takes every packet of {device}",
            filter.pref
        ));
    }
    let (way, why) = host_way(settings, facts, device, observed);
    let way = way.ok_or(why.clone())?;
    // Who names the way has it; the plan goes on, and the filter is named.
    let is_asked_for = settings.host_ingress != HostIngress::Auto;
    match shadow(way, settings, facts, device, observed) {
        Some(shadow) if !is_asked_for && is_free_pod(settings, facts) => Err(shadow.place()),
        _ => Ok((way, why)),
    }
}

/// A filter of another program that may hide packets from a limit that is held in this way.
fn shadow(
    way: Way,
    settings: &Settings,
    facts: &Facts,
    device: &str,
    observed: &Observed,
) -> Option<Shadow> {
    let hooks = way.hooks(&settings.scope, facts.limited);
    let used = Hook::ALL.into_iter().filter(|hook| hooks[*hook as usize]);
    used.flat_map(|hook| at_hook(way.side(), device, hook, &observed.filters[hook as usize])).next()
}

/// Whether the pod's end has room for the limits, with no filter before them.
fn is_free_pod(settings: &Settings, facts: &Facts) -> bool {
    let Some(pod) = facts.pod else { return false };
    let is_all = settings.scope.is_all();
    let hooks = Way::Pod.hooks(&settings.scope, facts.limited);
    let lacks_root =
        is_all && facts.limits(Direction::Egress) && matches!(pod.root, Root::Foreign(_));
    let lacks_hook = hooks[Hook::Egress as usize] && pod.hook == HookKind::Ingress;
    let hides = |hook: Hook| hooks[hook as usize] && !is_all && behind(pod, hook).is_some();
    !lacks_root
        && !lacks_hook
        && !Hook::ALL.into_iter().any(hides)
        && shadow(Way::Pod, settings, facts, "", pod).is_none()
}

/// Which of the two host ways, and why; `None` where neither is free.
fn host_way(
    settings: &Settings,
    facts: &Facts,
    device: &str,
    observed: &Observed,
) -> (Option<Way>, String) {
    if !settings.scope.is_all() {
        return match subnets_bar(facts, device, observed) {
            Some(why) => (None, why),
            None => (Some(Way::HostHooks), "only the hooks tell subnets apart".into()),
        };
    }
    match settings.host_ingress {
        HostIngress::Root => return (Some(Way::HostRoot), "the way is to be root".into()),
        HostIngress::Hooks => return (Some(Way::HostHooks), "the way is to be hooks".into()),
        HostIngress::Auto => {}
    }
    let root_is_free = !matches!(observed.root, Root::Foreign(_));
    let hooks_are_free =
        observed.hook != HookKind::Ingress && observed.barrier(Hook::Egress).is_none();
    if let Some(why) = felix(facts, device, observed).filter(|_| hooks_are_free) {
        return (Some(Way::HostHooks), why);
    }
    match (root_is_free, hooks_are_free) {
        (true, _) => (Some(Way::HostRoot), "the root qdisc is free".into()),
        (false, true) => (Some(Way::HostHooks), "the root qdisc is another program's".into()),
        // Without a limit to the pod neither the root nor the egress hook is needed.
        (false, false) if !facts.limits(Direction::Ingress) => {
            (Some(Way::HostHooks), "only the ingress hook is needed".into())
        }
        (false, false) => {
            (None, format!("the root qdisc and the egress hook of {device} are taken"))
        }
    }
}

/// Why Calico's Felix may rule the root qdisc of this interface, if it may.
fn felix(facts: &Facts, device: &str, observed: &Observed) -> Option<String> {
    if let Some(prefix) = felix_prefix(device) {
        return Some(format!("Felix may rule the root qdisc of a {prefix}* interface"));
    }
    if let Some(trace) = facts.felix_trace {
        return Some(format!("{trace} shows Calico's Felix, which may rule the root qdisc"));
    }
    observed.felix.map(|_| format!("Felix has shaped {device}"))
}

/// The prefix of this host interface's name by which Felix may rule it.
pub fn felix_prefix(device: &str) -> Option<&'static str> {
    FELIX_PREFIXES.into_iter().find(|prefix| device.starts_with(prefix))
}

/// Why the hooks cannot tell subnets apart, if they cannot.
fn subnets_bar(facts: &Facts, device: &str, observed: &Observed) -> Option<String> {
    if facts.limits(Direction::Ingress)
        && (observed.hook == HookKind::Ingress || observed.barrier(Hook::Egress).is_some())
    {
        return Some(format!("subnets need the egress hook of {device}, which is taken"));
    }
    let used = [(Direction::Egress, Hook::Ingress), (Direction::Ingress, Hook::Egress)];
    used.into_iter().filter(|(direction, _)| facts.limits(*direction)).find_map(|(_, hook)| {
        let (kind, pref) = behind(observed, hook)?;
        Some(format!("a foreign {kind} filter (pref {pref}) would be behind ours for subnets"))
    })
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
