//! The two ends of a pod's link: sockets, interfaces, and what is there.
//!
//! The link is the one whose interface in the pod is named CNI_IFNAME, if nothing contradicts that;
//! else the one that [`Found::search`] finds. The usual case costs no request of its own.

use std::path::Path;

use super::TRIES;
use super::error::OpenError;
use super::find::{Found, Room};
use crate::cni::CniError;
use crate::cni::error::Code;
use crate::kernel::observe::observe_beside;
use crate::kernel::{KernelError, Link, NetNs, Socket, felix, link};
use crate::log::Log;
use crate::policy::{CalicoQos, Direction, HostIngress, Limits, Placement, Settings, SourceKinds};
use crate::shaping::bucket::BytesPerSecond;
use crate::shaping::placement::{Buckets, Facts, Way, felix_prefix};
use crate::shaping::shadow::shadows;
use crate::shaping::site::{Hook, HookKind, Ifb, Place, Root};
use crate::shaping::{Attachment, Bucket, Observed, Shape, Side, Site, TbfState};

/// Devices that only a BPF data plane makes: Calico's eBPF data plane and Cilium.
const BPF_DATA_PLANE_DEVICES: [&str; 3] = ["bpfin.cali", "cilium_host", "cilium_net"];

/// Devices that only Calico's Felix makes where it is no BPF data plane, for VXLAN and WireGuard
/// (felix/dataplane/linux/dataplanedefs/dataplane_defs.go, felix/config/config_params.go, v3.32.1).
const FELIX_DEVICES: [&str; 4] =
    ["vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali"];

/// Felix writes the MTU of pods to this file when it starts, with an overlay or without
/// (writeMTUFile in felix/dataplane/linux/int_dataplane.go, v3.32.1).
const FELIX_FILE: &str = "/var/lib/calico/mtu";

/// Why nothing can be done inside the pod.
const NO_POD_END: &str = "the interface was moved out of the pod's network namespace (CNI_NETNS), so \
    its limits can only be held on the host";

/// One end, as it was observed.
pub(super) struct End {
    pub(super) socket: Socket,
    pub(super) link: Link,
    pub(super) site: Site,
    pub(super) observed: Observed,
}

/// Both ends, at least one of them. A pod's interface that is not one of a pair has no host end; one that
/// was moved into another namespace after ADD has no end in the pod.
pub(super) struct Ends {
    pub(super) pod: Option<End>,
    pub(super) host: Option<End>,
    pub(super) bpf_data_plane: Option<&'static str>,
    pub(super) felix_trace: Option<&'static str>,
}

impl Ends {
    /// Opens and observes both ends of an attachment. `host_names` are the interfaces on the host that
    /// prevResult names for it. Whose a plain `ingress` qdisc is, is asked only if Felix's may be replaced.
    pub(super) fn open(
        netns: &Path,
        attachment: &Attachment,
        host_names: &[String],
        calico_qos: CalicoQos,
    ) -> Result<Self, OpenError> {
        let namespace = open_namespace(netns)?;
        let mut host = Socket::open()?;
        let mut pod = Socket::open_in(&namespace)?;
        let name = &attachment.ifname;
        let [ingress, egress] = &Site::ifb_names(Side::Pod, attachment);
        let mut links = link::by_names(&mut pod, &[name, ingress, egress])?.into_iter();
        let pod_link = links.next().flatten();
        let mut pod = Room { socket: pod, ifbs: Hook::ALL.map(|_| links.next().flatten()) };

        let [ingress, egress] = &Site::ifb_names(Side::Host, attachment);
        let names =
            [&[ingress.as_str(), egress], &BPF_DATA_PLANE_DEVICES[..], &FELIX_DEVICES].concat();
        let (host_link, links) = link::host_end(&mut host, &namespace, pod_link.as_ref(), &names)?;
        let mut links = links.into_iter();
        let mut host = Room { socket: host, ifbs: Hook::ALL.map(|_| links.next().flatten()) };
        let mut first = |names: &[&'static str]| {
            let found = names.iter().zip(links.by_ref().take(names.len()));
            // All are taken, so that the next names meet their own links.
            found.fold(None, |first, (name, link)| first.or(link.map(|_| *name)))
        };
        let bpf_data_plane = first(&BPF_DATA_PLANE_DEVICES);
        let wrote = || Path::new(FELIX_FILE).exists().then_some(FELIX_FILE);
        let felix_trace = first(&FELIX_DEVICES).or_else(wrote);

        let mut found = Found { pod: pod_link, host: host_link };
        if !found.is_sure(&host, &pod, host_names) {
            found = found.search(&mut host, &mut pod, &namespace, host_names)?;
        }
        let end = |side, link: Option<Link>, room| {
            link.map(|link| End::observe(side, link, room, attachment)).transpose()
        };
        let host_ifbs = host.ifbs.clone();
        let mut host = end(Side::Host, found.host, host)?;
        if let Some(end) = host.as_mut().filter(|_| calico_qos == CalicoQos::Replace) {
            let may_rule = felix_trace.is_some() || felix_prefix(&end.link.name).is_some();
            end.look_for_felix(may_rule, &host_ifbs)?;
        }
        let pod = end(Side::Pod, found.pod, pod)?;
        if host.is_none() && pod.is_none() {
            let place = "the pod's network namespace (CNI_NETNS)";
            return Err(KernelError::NoDevice { name: name.clone(), place }.into());
        }
        Ok(Self { pod, host, bpf_data_plane, felix_trace })
    }

    /// `limited` are the directions that have a limit.
    pub(super) fn facts(&self, limited: [bool; 2]) -> Facts<'_> {
        Facts {
            host: self.host.as_ref().map(|end| (end.site.device.as_str(), &end.observed)),
            pod: self.pod.as_ref().map(|end| &end.observed),
            bpf_data_plane: self.bpf_data_plane,
            felix_trace: self.felix_trace,
            limited,
        }
    }

    /// The ways that a configuration allows on the ends that this pod has.
    pub(super) fn ways(&self, settings: &Settings) -> Vec<Way> {
        let device = self.host.as_ref().map(|end| end.site.device.as_str());
        let (placement, host_ingress) = settings.placed(device);
        let is_allowed = |way: &Way| match (placement, way) {
            (Placement::Pod, way) => *way == Way::Pod,
            (Placement::Host, Way::Pod) => false,
            (Placement::Auto, Way::Pod) => true,
            (_, Way::HostRoot) if !settings.scope.is_all() => false,
            (_, Way::HostRoot) => host_ingress != HostIngress::Hooks,
            (_, Way::HostHooks) => host_ingress != HostIngress::Root,
        };
        let is_there = |way: &Way| match way.side() {
            Side::Pod => self.pod.is_some(),
            Side::Host => self.host.is_some(),
        };
        Way::ALL.into_iter().filter(is_allowed).filter(is_there).collect()
    }

    /// The end that a way works at, and the other one.
    pub(super) fn at(&self, way: Way) -> Result<(&End, Option<&End>), CniError> {
        let (end, other, missing) = match way.side() {
            Side::Pod => (&self.pod, &self.host, NO_POD_END),
            Side::Host => (&self.host, &self.pod, "the pod has no interface on the host"),
        };
        let end = end.as_ref().ok_or_else(|| CniError::new(Code::Conflict, missing))?;
        Ok((end, other.as_ref()))
    }

    /// The TBF of ours that holds a direction, wherever it is.
    pub(super) fn found(&self, direction: Direction) -> Option<&TbfState> {
        let ends = self.host.iter().chain(&self.pod);
        ends.flat_map(|end| end.tbfs()).find_map(|(of, tbf)| (of == direction).then_some(tbf))
    }

    fn both(&self) -> impl Iterator<Item = &End> {
        self.host.iter().chain(&self.pod)
    }

    /// The sources of another entry of the list, if that one created what is here. `own` sources and `limits`
    /// are those of the entry that is at work.
    pub(super) fn another_entry(&self, own: SourceKinds, limits: &Limits) -> Option<SourceKinds> {
        let wanted = [(Direction::Ingress, limits.ingress), (Direction::Egress, limits.egress)];
        let has_a_rate_of_it = wanted.into_iter().any(|(direction, limit)| {
            let rate = limit.map(|limit| BytesPerSecond::from(limit.rate));
            rate.is_some() && rate == self.found(direction).map(|state| state.rate)
        });
        let mut seen = self.both().filter_map(|end| end.observed.sources());
        seen.find(|seen| seen.are_of_another_entry(own, has_a_rate_of_it))
    }

    /// What is created from here on carries these sources, else those that are recorded.
    pub(super) fn record(&mut self, sources: Option<SourceKinds>) {
        for end in self.host.iter_mut().chain(&mut self.pod) {
            end.site.sources = sources.or(end.observed.sources()).unwrap_or_default();
        }
    }

    /// Whether the limit of this direction was removed after ADD.
    pub(super) fn is_removed(&self, direction: Direction) -> bool {
        self.both().any(|end| end.observed.is_removed(direction))
    }

    /// Whether the host's end has a TBF of this attachment, or the trace of one.
    pub(super) fn is_on_host(&self) -> bool {
        let is_removed = |end: &End| Direction::ALL.iter().any(|of| end.observed.is_removed(*of));
        self.host.iter().any(|end| end.tbfs().next().is_some() || is_removed(end))
    }

    /// As [`Ends::at`], to work on them.
    pub(super) fn at_mut(&mut self, way: Way) -> Option<(&mut End, Option<&mut End>)> {
        let (end, other) = match way.side() {
            Side::Pod => (&mut self.pod, &mut self.host),
            Side::Host => (&mut self.host, &mut self.pod),
        };
        Some((end.as_mut()?, other.as_mut()))
    }
}

impl End {
    /// Logs what other programs have before the limits of this shape.
    pub(super) fn warn_of_shadows(&self, shape: &Shape, log: &Log) {
        for shadow in shadows(&self.site, shape, &self.observed) {
            log.warn(&shadow.to_string());
        }
    }

    fn observe(
        side: Side,
        link: Link,
        room: Room,
        attachment: &Attachment,
    ) -> Result<Self, KernelError> {
        let Room { mut socket, ifbs } = room;
        let site = Site::new(side, &link.name, attachment);
        let observed = observe_beside(&mut socket, &site, link.index, ifbs)?;
        Ok(Self { socket, link, site, observed })
    }

    /// Notes whether a plain `ingress` qdisc is Felix's. Felix makes and removes its own by several
    /// requests, so one look may have met parts of two states: what is another program's looks the same
    /// a second time.
    fn look_for_felix(
        &mut self,
        may_rule: bool,
        ifbs: &[Option<Link>; 2],
    ) -> Result<(), KernelError> {
        for _ in 0..TRIES {
            if self.observed.hook != HookKind::Ingress {
                return Ok(());
            }
            let (socket, index) = (&mut self.socket, self.link.index);
            self.observed.felix = felix::ingress(socket, index, &self.link.name, may_rule)?;
            if self.observed.felix.is_some() {
                return Ok(());
            }
            let again = observe_beside(socket, &self.site, index, ifbs.clone())?;
            if again == self.observed {
                return Ok(());
            }
            self.observed = again;
        }
        Ok(())
    }

    /// The TBFs of ours at this end, and the direction that each holds: what is behind a hook counts
    /// before the root.
    fn tbfs(&self) -> impl Iterator<Item = (Direction, &TbfState)> {
        let behind = |hook: Hook| match &self.observed.ifbs[hook as usize] {
            Ifb::Present(ifb) => (Place::Ifb(hook), Some(&ifb.root)),
            Ifb::Absent | Ifb::Taken(_) => (Place::Ifb(hook), None),
        };
        let root = (Place::Device, Some(&self.observed.root));
        let places = Hook::ALL.into_iter().map(behind).chain([root]);
        places.filter_map(|(place, root)| match root {
            Some(Root::Ours(state)) => Some((self.site.direction_of(place), state)),
            _ => None,
        })
    }

    /// The buckets of these limits on this end's interface.
    pub(super) fn buckets(
        &self,
        limits: &Limits,
        settings: &Settings,
    ) -> Result<Buckets, CniError> {
        let (mtu, latency_ms) = (self.link.mtu, settings.latency_ms);
        let bucket = |limit: Option<_>| {
            let bucket = limit.as_ref().map(|limit| Bucket::new(limit, mtu, latency_ms));
            let bucket = bucket.transpose()?;
            Ok(bucket.map(|bucket: Bucket| bucket.with_queue(settings.queue, mtu, latency_ms)))
        };
        let refused = |direction: &str, error: crate::shaping::bucket::BurstError| {
            let device = &self.link.name;
            CniError::new(Code::InvalidConfig, format!("{direction} burst on {device}: {error}"))
        };
        Ok(Buckets {
            ingress: bucket(limits.ingress).map_err(|error| refused("ingress", error))?,
            egress: bucket(limits.egress).map_err(|error| refused("egress", error))?,
        })
    }
}

fn open_namespace(path: &Path) -> Result<NetNs, OpenError> {
    let namespace = NetNs::open(path).map_err(OpenError::Namespace)?;
    if namespace.is_own().map_err(OpenError::Namespace)? {
        return Err(OpenError::OwnNamespace(path.into()));
    }
    Ok(namespace)
}
