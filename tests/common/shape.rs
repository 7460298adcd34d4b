//! How a shaped pod looks, read with `tc` and `ip`: which device queues each direction, and with
//! what numbers. Everything on the way is checked: hook, filter, its mark and target, the IFB.

use serde_json::Value;

use super::{Filter, Interface, Ns, Pod, Qdisc};

/// The ways in which a pod can be shaped (the table of docs/design.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// On the host: TBF as root of the host interface, ingress hook to an IFB.
    Root,
    /// On the host: both hooks of the host interface, two IFBs.
    Hooks,
    /// In the pod: ingress hook of its interface to an IFB in the pod, TBF as its root.
    Pod,
}

/// Seen from the pod, as Kubernetes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ingress: `kubernetes.io/ingress-bandwidth`.
    ToPod,
    /// Egress: `kubernetes.io/egress-bandwidth`.
    FromPod,
}

/// The numbers of one TBF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bits per second.
    pub rate: u64,
    /// Time that the bucket holds, in ticks of 64 ns (the kernel keeps no bytes).
    pub burst_ticks: u64,
    /// Bytes that may wait.
    pub queue: u64,
}

/// Both directions of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `None`: no limit.
    pub to_pod: Option<Limit>,
    /// `None`: no limit.
    pub from_pod: Option<Limit>,
}

/// The priority of our filter on a hook: after those of others. One per hook, because u32 shows
/// the filters of both hooks of a clsact qdisc on each where the priority is the same.
pub fn our_pref(hook: &str) -> u64 {
    if hook == "ingress" { 65535 } else { 65534 }
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ToPod, Self::FromPod];
}

impl Way {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Root, Self::Hooks, Self::Pod];

    /// The configuration keys that ask for this way.
    pub fn keys(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Root => vec![("placement", "host"), ("hostIngress", "root")],
            Self::Hooks => vec![("placement", "host"), ("hostIngress", "hooks")],
            Self::Pod => vec![("placement", "pod")],
        }
    }

    /// The namespace that this way works in.
    pub fn namespace(self, pod: &Pod) -> &Ns {
        if self == Self::Pod { &pod.ns } else { &pod.host }
    }

    /// The device that this way works on, besides its IFBs.
    pub fn device(self, interface: &Interface) -> &str {
        if self == Self::Pod { &interface.name } else { &interface.host }
    }

    /// The hook whose filter redirects `direction`, `None` where the TBF is the device's root.
    pub fn hook(self, direction: Direction) -> Option<&'static str> {
        match (self, direction) {
            (Self::Hooks, Direction::ToPod) => Some("egress"),
            (Self::Root | Self::Hooks, Direction::FromPod) => Some("ingress"),
            (Self::Pod, Direction::ToPod) => Some("ingress"),
            (Self::Root, Direction::ToPod) | (Self::Pod, Direction::FromPod) => None,
        }
    }

    /// The device that queues `direction`: our filter's target, or the device itself.
    pub fn queue_device(self, pod: &Pod, at: &Interface, direction: Direction) -> Option<String> {
        let (ns, dev) = (self.namespace(pod), self.device(at));
        let Some(hook) = self.hook(direction) else { return Some(dev.to_owned()) };
        let at_hook = |f: &Filter| f.is_ours() && f.pref == our_pref(hook);
        let ours: Vec<_> = ns.filters(dev, hook).into_iter().filter(at_hook).collect();
        assert!(ours.len() <= 1, "one filter of ours on the {hook} hook of {dev}: {ours:#?}");
        let filter = ours.first()?;
        assert_eq!(filter.protocol, "all", "{filter:#?}");
        let action = &filter.raw["options"]["actions"][0];
        assert_eq!(action["mirred_action"], "redirect", "{filter:#?}");
        assert_eq!(action["direction"], "egress", "{filter:#?}");
        Some(filter.to_dev.clone().expect("a redirect has a target"))
    }
}

impl Shape {
    /// Looks at `eth0` of `pod`.
    pub fn of(pod: &Pod, way: Way) -> Self {
        Self::at(pod, way, &pod.eth0)
    }

    /// Looks at one interface of `pod`, where `way` puts things, and fails on any half-made state.
    pub fn at(pod: &Pod, way: Way, interface: &Interface) -> Self {
        let look = |direction| limit_at(pod, way, interface, direction);
        Self { to_pod: look(Direction::ToPod), from_pod: look(Direction::FromPod) }
    }

    /// The rates alone, in bit/s: to the pod, from the pod; 0 for no limit.
    pub fn rates(&self) -> (u64, u64) {
        let rate = |limit: Option<Limit>| limit.map_or(0, |limit| limit.rate);
        (rate(self.to_pod), rate(self.from_pod))
    }
}

impl Limit {
    /// The numbers of a root TBF of ours, `None` for any other root qdisc.
    pub fn of(root: &Qdisc) -> Option<Self> {
        if root.kind != "tbf" || root.handle != "7062:" {
            return None;
        }
        let number = |key: &str| root.options[key].as_u64().expect("tc prints a number");
        let ticks = root.options["burst_raw"].as_str().expect("tc prints ticks in hexadecimal");
        Some(Self {
            rate: number("rate") * 8,
            burst_ticks: u64::from_str_radix(ticks, 16).expect("hexadecimal"),
            queue: number("limit"),
        })
    }

    /// The burst in bytes, as near as ticks of 64 ns tell it.
    pub fn burst(&self) -> u64 {
        // The kernel stores burst / rate in ticks: bytes = ticks * 64 ns * rate / 8.
        let bits = u128::from(self.burst_ticks) * 64 * u128::from(self.rate);
        u64::try_from((bits + 4_000_000_000) / 8_000_000_000).expect("a burst of bytes")
    }

    /// What the design derives from a rate alone: `burst = rate x 4 ms`, at least two frames, and
    /// a queue of the burst and 25 ms, at least three frames. Bytes; `mtu` in bytes.
    pub fn derived(rate: u64, mtu: u32) -> Self {
        let frame = u64::from(mtu) + 18;
        let bytes_in = |milliseconds: u64| rate * milliseconds / 8_000;
        let burst = bytes_in(4).max(2 * frame);
        let queue = burst + bytes_in(25).max(3 * frame).min(32 << 20);
        Self { rate, burst_ticks: burst * 8_000_000_000 / rate / 64, queue }
    }

    /// Equal but for the rounding of the burst: a handful of ticks, a handful of bytes.
    pub fn is_near(&self, other: &Self) -> bool {
        self.rate == other.rate
            && self.burst_ticks.abs_diff(other.burst_ticks) <= other.burst_ticks / 1_000 + 2
            && self.queue.abs_diff(other.queue) <= 8
    }
}

fn limit_at(pod: &Pod, way: Way, at: &Interface, direction: Direction) -> Option<Limit> {
    let ns = way.namespace(pod);
    let dev = way.queue_device(pod, at, direction)?;
    if way.hook(direction).is_some() {
        // A redirect to a device that is gone or down drops every packet of the pod.
        let link = ns.link(&dev).unwrap_or_else(|| panic!("the filter's target {dev} is gone"));
        assert_eq!(link["linkinfo"]["info_kind"], "ifb", "{link}");
        let flags = link["flags"].as_array().expect("flags");
        assert!(flags.contains(&Value::from("UP")), "the filter's target {dev} is down: {link}");
        let prefix = if direction == Direction::ToPod { "pbi" } else { "pbe" };
        assert!(dev.starts_with(prefix), "{dev} is named for its direction, {prefix}…");
        let limit = Limit::of(&ns.root(&dev));
        assert!(limit.is_some(), "{dev} has no TBF of ours: {:?}", ns.root(&dev));
        return limit;
    }
    Limit::of(&ns.root(&dev))
}
