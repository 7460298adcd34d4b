//! A site: one interface, its hooks and the IFBs beside it. What is wanted there, and what
//! the kernel was seen to have there.
//!
//! Both placements are the same shape on another interface: a TBF as root, and redirects from
//! a hook to an IFB with a TBF. So there is one plan for all of them.

use super::identity::{LEAF_HANDLES, TBF_HANDLE};
pub use super::rules::Shape;
use super::rules::{Match, Rule};
use super::tag::{SeenTag, Stamp, Tag};
use super::{Attachment, TbfState};
use crate::policy::{Direction, SourceKinds};

/// A side of a clsact qdisc. Mind the view: it is the interface's, not the pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Packets that the interface receives.
    Ingress,
    /// Packets that the interface is about to send.
    Egress,
}

impl Hook {
    /// Both, in the order in which arrays hold them.
    pub const ALL: [Hook; 2] = [Hook::Ingress, Hook::Egress];

    /// As `tc filter` has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress hook",
            Self::Egress => "egress hook",
        })
    }
}

/// MTU of our IFBs in bytes: one less than IPv6 needs, so that the kernel keeps IPv6 off them
/// (IPV6_MIN_MTU; addrconf_notify in net/ipv6/addrconf.c): no address, no router solicitations, and no
/// multicast route, whose list every IFB that comes up would walk. It limits no packet: what a filter
/// redirects comes to an IFB below IP, where nobody compares it with an MTU.
pub const IFB_MTU: u32 = 1279;

/// Which end of the pod's link a site is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The host interface, in the plugin's network namespace.
    Host,
    /// The container interface, in the pod's network namespace.
    Pod,
}

/// Where a plan works: names that follow from the attachment and the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Which end.
    pub side: Side,
    /// The interface.
    pub device: String,
    /// Names of the IFBs behind each hook.
    pub ifbs: [String; 2],
    /// Alias of our IFBs here.
    pub alias: String,
    /// Which attachment, and the sources of the entry that is at work: what is created here carries it.
    pub tag: Tag,
    /// See `tag`.
    pub sources: SourceKinds,
}

impl Site {
    /// The site at this end of an attachment.
    pub fn new(side: Side, device: &str, attachment: &Attachment) -> Self {
        let alias = attachment.alias(device);
        Self { side, alias, ..Self::of_tag(side, attachment.tag(), device) }
    }

    /// Names of the IFBs at this end of an attachment, which do not depend on its interface.
    pub fn ifb_names(side: Side, attachment: &Attachment) -> [String; 2] {
        Hook::ALL.map(|hook| attachment.ifb_name(direction(side, hook)))
    }

    /// The site of an attachment of which only the tag is known: enough to remove what is there.
    pub fn of_tag(side: Side, tag: Tag, device: &str) -> Self {
        Self {
            side,
            device: device.into(),
            ifbs: Hook::ALL.map(|hook| tag.ifb_name(direction(side, hook))),
            alias: String::new(),
            tag,
            sources: SourceKinds::default(),
        }
    }

    /// One for the tests of plans: the host's end of a pod.
    #[cfg(test)]
    pub(super) fn example() -> Self {
        let attachment = Attachment {
            network: "net".into(),
            container_id: "c1".into(),
            ifname: "eth0".into(),
            pod: None,
        };
        Self::new(Side::Host, "veth0", &attachment)
    }

    /// The majors that the handle of the leaf queue below the TBF of a place may have.
    pub fn leaf_handles(&self, place: Place) -> [u16; 2] {
        match place {
            Place::Device => self.tag.leaf_handles(self.sources),
            Place::Ifb(_) => LEAF_HANDLES,
        }
    }

    /// Name of the IFB behind a hook.
    pub fn ifb(&self, hook: Hook) -> &str {
        &self.ifbs[hook as usize]
    }

    /// The interface that a root qdisc sits on.
    pub fn device_of(&self, place: Place) -> &str {
        match place {
            Place::Device => &self.device,
            Place::Ifb(hook) => self.ifb(hook),
        }
    }

    /// The direction of the pod's traffic that passes a place.
    pub fn direction_of(&self, place: Place) -> Direction {
        match (self.side, place) {
            (side, Place::Ifb(hook)) => direction(side, hook),
            (Side::Host, Place::Device) => Direction::Ingress,
            (Side::Pod, Place::Device) => Direction::Egress,
        }
    }
}

/// What an interface's hook sees: at the host end, received packets come from the pod.
pub(super) fn direction(side: Side, hook: Hook) -> Direction {
    match (side, hook) {
        (Side::Host, Hook::Ingress) | (Side::Pod, Hook::Egress) => Direction::Egress,
        (Side::Host, Hook::Egress) | (Side::Pod, Hook::Ingress) => Direction::Ingress,
    }
}

/// Where a root qdisc of ours sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The site's interface itself.
    Device,
    /// The IFB behind a hook.
    Ifb(Hook),
}

/// What the kernel has at a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The root qdisc of the interface.
    pub root: Root,
    /// The qdisc at the interface's hooks.
    pub hook: HookKind,
    /// The filters of each hook, in the order in which they are asked.
    pub filters: [Vec<Filter>; 2],
    /// The devices with our IFBs' names.
    pub ifbs: [Ifb; 2],
    /// BPF programs that guard the interface through TCX (kernel 6.6 and later).
    pub tcx: bool,
    /// What pod-bandwidth created here for another attachment.
    pub other: Option<SeenTag>,
    /// Where the plain `ingress` qdisc is one of Calico's Felix that may be replaced.
    pub felix: Option<FelixIngress>,
}

/// The plain `ingress` qdisc of Calico's Felix: what it takes to put it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FelixIngress {
    /// No filter of Felix takes a packet: it has not added one yet, or its IFB is gone.
    Idle,
    /// One filter, which redirects every packet.
    Redirects {
        /// Index of the IFB that it redirects to.
        ifb: u32,
        /// Its class, 0 for none.
        class: u32,
    },
}

/// A root qdisc.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Root {
    /// The kernel's own (handle 0:), or none.
    #[default]
    Default,
    /// A TBF with one of our handles.
    Ours(TbfState),
    /// Anything else: `kind` and handle, such as `tbf 1:`.
    Foreign(String),
}

/// What hangs at an interface's hooks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HookKind {
    /// Nothing.
    #[default]
    None,
    /// A plain `ingress` qdisc: it has no egress side, and clsact cannot be added beside it.
    Ingress,
    /// A clsact qdisc: both sides.
    Clsact,
}

/// A filter at a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Its preference (priority): lower is asked first.
    pub pref: u16,
    /// Its handle within the preference.
    pub handle: u32,
    /// Whose it is.
    pub owner: Owner,
}

impl Filter {
    /// Whether removing the one's preference would remove the other, too. u32 shows filters of the
    /// clsact's other side beside ours; what belongs together has the same table in its handle.
    pub fn shares_preference_with(&self, other: &Filter) -> bool {
        self.pref == other.pref && self.handle >> 20 == other.handle >> 20
    }

    /// Whether no other filter of `all` would go with this one's preference.
    pub fn is_alone_in(&self, all: &[Filter]) -> bool {
        all.iter().filter(|other| self.shares_preference_with(other)).count() == 1
    }
}

/// Whose a filter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Ours, by the cookie of its action or by its class.
    Ours {
        /// Which packets it takes.
        matches: Match,
        /// Index of the interface that it redirects to; `None`: the packets pass as they are.
        target: Option<u32>,
        /// The mark says that we also made the hook.
        made_hook: bool,
        /// For which attachment it was created, and by which entry.
        stamp: Stamp,
    },
    /// Created by pod-bandwidth for another attachment.
    Other(SeenTag),
    /// Somebody else's.
    Foreign {
        /// Its kind, such as `bpf`.
        kind: String,
        /// The protocol that it is asked for, an Ethernet type; 3 (ETH_P_ALL) for all.
        protocol: u16,
        /// Which packets it takes away from the filters behind it.
        takes: Takes,
    },
}

/// Which packets a filter takes away from the filters behind it: those for which the walk through the
/// filters ends at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Takes {
    /// None, or only packets that it drops.
    Nothing,
    /// It may take some. Which ones, or whether any, is not known.
    Some,
    /// Every packet of its protocol, which is all, IPv4 or IPv6.
    All,
}

/// A device with the name of one of our IFBs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ifb {
    /// No such device.
    #[default]
    Absent,
    /// The name is taken by a device of another kind.
    Taken(String),
    /// An IFB, so ours.
    Present(IfbState),
}

/// An IFB as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfbState {
    /// Interface index.
    pub index: u32,
    /// Administratively up.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Its ifalias.
    pub alias: Option<String>,
    /// Its root qdisc.
    pub root: Root,
}

impl Observed {
    /// Our filters at a hook.
    pub fn ours(&self, hook: Hook) -> impl Iterator<Item = &Filter> {
        let is_ours = |filter: &&Filter| matches!(filter.owner, Owner::Ours { .. });
        self.filters[hook as usize].iter().filter(is_ours)
    }

    /// The rule that a filter of ours at a hook stands for; `None` where it is no rule: it redirects
    /// elsewhere, or takes what no rule takes.
    pub fn rule_of(&self, hook: Hook, filter: &Filter) -> Option<Rule> {
        let Owner::Ours { matches, target, .. } = filter.owner else { return None };
        let is_in_place = target.is_none() || target == self.ifb_index(hook);
        (is_in_place && matches != Match::Unknown)
            .then_some(Rule { matches, redirects: target.is_some() })
    }

    /// The foreign filter at a hook that lets no packet through to ours, if there is one. What
    /// comes after a redirect of ours that is in place bars nothing.
    pub fn barrier(&self, hook: Hook) -> Option<&Filter> {
        let in_place = |filter: &&Filter| self.rule_of(hook, filter) == Some(Rule::ALL);
        let before_ours = self.filters[hook as usize].iter().take_while(|f| !in_place(f));
        let takes_all = |f: &&Filter| matches!(f.owner, Owner::Foreign { takes: Takes::All, .. });
        before_ours.into_iter().find(takes_all)
    }

    /// Index of the IFB behind a hook, where it is there.
    pub fn ifb_index(&self, hook: Hook) -> Option<u32> {
        match &self.ifbs[hook as usize] {
            Ifb::Present(state) => Some(state.index),
            Ifb::Absent | Ifb::Taken(_) => None,
        }
    }

    /// The same without the `ingress` qdisc, whose filters go with it. What Felix had there is still
    /// said: it rules the interface.
    #[must_use]
    pub fn without_ingress(&self) -> Self {
        Self { hook: HookKind::None, filters: Default::default(), ..self.clone() }
    }

    /// Whether a BPF program guards the interface (clsact or TCX): no redirect may come before it,
    /// and none behind it is sure to be reached.
    pub fn guarded_by_bpf(&self) -> bool {
        let is_bpf =
            |filter: &Filter| matches!(&filter.owner, Owner::Foreign { kind, .. } if kind == "bpf");
        self.tcx || self.filters.iter().flatten().any(is_bpf)
    }

    /// Whether the limit of this direction was removed after ADD.
    pub fn is_removed(&self, direction: Direction) -> bool {
        let trace = Match::Nothing(direction);
        let is_trace = |filter: &Filter| matches!(filter.owner, Owner::Ours { matches, .. } if matches == trace);
        self.filters.iter().flatten().any(is_trace)
    }

    /// Whether we recorded that the hook is of our making.
    pub fn made_hook(&self) -> bool {
        let made = |filter: &Filter| matches!(filter.owner, Owner::Ours { made_hook: true, .. });
        self.filters.iter().flatten().any(made)
    }

    /// Whether any filter at the hooks is this attachment's.
    fn has_own_filters(&self) -> bool {
        Hook::ALL.iter().any(|hook| self.ours(*hook).next().is_some())
    }

    /// Whether anything at the hooks is not this attachment's.
    pub fn has_foreign_filters(&self) -> bool {
        self.filters.iter().flatten().any(|f| !matches!(f.owner, Owner::Ours { .. }))
    }

    /// Separates what was created for this attachment from what was created for another one. Filters that
    /// carry no tag (of an earlier build) belong to the IFB that they redirect to, and those that let
    /// packets pass to the redirects beside them. A root TBF without a tag belongs to this attachment
    /// unless a filter here is another one's.
    pub fn disown_others(&mut self, tag: Tag) {
        let own_ifbs = Hook::ALL.map(|hook| self.ifb_index(hook));
        for filters in &mut self.filters {
            let owns = |filter: &Filter| match filter.owner {
                Owner::Ours { target, stamp, .. } => {
                    stamp.tag.is_of(tag).or(target.map(|target| {
                        // The kernel shows index 0 for a target that is gone.
                        target == 0 || own_ifbs.contains(&Some(target))
                    }))
                }
                Owner::Other(_) | Owner::Foreign { .. } => None,
            };
            let decided: Vec<Option<bool>> = filters.iter().map(owns).collect();
            let is_ours = decided.contains(&Some(true)) || !decided.contains(&Some(false));
            for (filter, owns) in filters.iter_mut().zip(decided) {
                if let Owner::Ours { stamp, .. } = filter.owner
                    && !owns.unwrap_or(is_ours)
                {
                    filter.owner = Owner::Other(stamp.tag);
                }
            }
        }
        let mut others = self.filters.iter().flatten().filter_map(|filter| match filter.owner {
            Owner::Other(seen) => Some(seen),
            _ => None,
        });
        self.other = others.next();
        if let Some(stamp) = self.root_stamp() {
            let is_likely = self.has_own_filters() || self.other.is_none();
            if !stamp.tag.is_of(tag).unwrap_or(is_likely) {
                self.root = Root::Foreign(format!("tbf {TBF_HANDLE:x}:"));
                self.other = self.other.or(Some(stamp.tag));
            }
        }
    }

    /// Leaves out a root TBF that nothing says to be this attachment's. For an interface that is only
    /// known by an IFB's alias: by now it may be another pod's.
    pub fn require_evidence(&mut self, tag: Tag) {
        let is_stamped = self.root_stamp().and_then(|stamp| stamp.tag.is_of(tag));
        if !is_stamped.unwrap_or(self.has_own_filters()) {
            self.root = Root::Default;
        }
    }

    /// What the root TBF records about its creation; `None` if pod-bandwidth did not create it.
    fn root_stamp(&self) -> Option<Stamp> {
        match &self.root {
            Root::Ours(state) => Some(Stamp::of_leaf(state.leaf_handle)),
            Root::Default | Root::Foreign(_) => None,
        }
    }

    /// The sources of the entry that created what this attachment has here, if that was recorded.
    pub fn sources(&self) -> Option<SourceKinds> {
        let filters = self.filters.iter().flatten().filter_map(|filter| match filter.owner {
            Owner::Ours { stamp, .. } => Some(stamp),
            _ => None,
        });
        let stamps = filters.chain(self.root_stamp());
        stamps.map(|stamp| stamp.sources).find(|sources| *sources != SourceKinds::default())
    }
}
