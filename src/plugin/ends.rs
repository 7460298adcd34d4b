//! The two ends of a pod's link: sockets, interfaces, and what is there.

use std::path::Path;

use super::TRIES;
use crate::cni::CniError;
use crate::cni::error::Code;
use crate::kernel::observe::observe_beside;
use crate::kernel::{KernelError, Link, NetNs, Socket, felix, link};
use crate::policy::{CalicoQos, Direction, HostIngress, Limits, Placement, Settings};
use crate::shaping::placement::{Buckets, Facts, Way, felix_prefix};
use crate::shaping::site::{Hook, HookKind, Ifb, Place, Root};
use crate::shaping::{Attachment, Bucket, Observed, Side, Site, TbfState};

/// Devices that only a BPF data plane makes: Calico's eBPF data plane and Cilium.
const BPF_DATA_PLANE_DEVICES: [&str; 3] = ["bpfin.cali", "cilium_host", "cilium_net"];

/// Devices that only Calico's Felix makes where it is no BPF data plane, for VXLAN and WireGuard
/// (felix/dataplane/linux/dataplanedefs/dataplane_defs.go, felix/config/config_params.go, v3.32.1).
const FELIX_DEVICES: [&str; 4] =
    ["vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali"];

/// Felix writes the MTU of pods to this file when it starts, with an overlay or without
/// (writeMTUFile in felix/dataplane/linux/int_dataplane.go, v3.32.1).
const FELIX_FILE: &str = "/var/lib/calico/mtu";

/// One end, as it was observed.
pub(super) struct End {
    pub(super) socket: Socket,
    pub(super) link: Link,
    pub(super) site: Site,
    pub(super) observed: Observed,
}

/// Both ends; a pod without a veth has no host end.
pub(super) struct Ends {
    pub(super) pod: End,
    pub(super) host: Option<End>,
    pub(super) bpf_data_plane: Option<&'static str>,
    pub(super) felix_trace: Option<&'static str>,
}

impl Ends {
    /// Opens and observes both ends of an attachment. Whose a plain `ingress` qdisc is, is asked where
    /// Felix's may be replaced.
    pub(super) fn open(
        netns: &Path,
        attachment: &Attachment,
        calico_qos: CalicoQos,
    ) -> Result<Self, CniError> {
        let namespace = open_namespace(netns)?;
        let mut host = Socket::open()?;
        let mut pod = Socket::open_in(&namespace)?;
        let name = &attachment.ifname;
        let [ingress, egress] = &Site::ifb_names(Side::Pod, attachment);
        let mut links = link::by_names(&mut pod, &[name, ingress, egress])?.into_iter();
        let pod_link = links.next().flatten().ok_or_else(|| KernelError::NoDevice {
            name: name.clone(),
            place: "the pod's network namespace (CNI_NETNS)",
        })?;
        let pod_ifbs = Hook::ALL.map(|_| links.next().flatten());

        let [ingress, egress] = &Site::ifb_names(Side::Host, attachment);
        let names =
            [&[ingress.as_str(), egress], &BPF_DATA_PLANE_DEVICES[..], &FELIX_DEVICES].concat();
        let (host_link, links) = link::host_end(&mut host, &namespace, &pod_link, &names)?;
        let mut links = links.into_iter();
        let host_ifbs = Hook::ALL.map(|_| links.next().flatten());
        let mut first = |names: &[&'static str]| {
            let found = names.iter().zip(links.by_ref().take(names.len()));
            // All are taken, so that the next names meet their own links.
            found.fold(None, |first, (name, link)| first.or(link.map(|_| *name)))
        };
        let bpf_data_plane = first(&BPF_DATA_PLANE_DEVICES);
        let wrote = || Path::new(FELIX_FILE).exists().then_some(FELIX_FILE);
        let felix_trace = first(&FELIX_DEVICES).or_else(wrote);
        let host = match host_link {
            Some(link) => {
                let may_rule = felix_trace.is_some() || felix_prefix(&link.name).is_some();
                let mut end = End::observe(host, Side::Host, link, host_ifbs.clone(), attachment)?;
                if calico_qos == CalicoQos::Replace {
                    end.look_for_felix(may_rule, &host_ifbs)?;
                }
                Some(end)
            }
            None => None,
        };
        let pod = End::observe(pod, Side::Pod, pod_link, pod_ifbs, attachment)?;
        Ok(Self { pod, host, bpf_data_plane, felix_trace })
    }

    /// `limited` are the directions that have a limit.
    pub(super) fn facts(&self, limited: [bool; 2]) -> Facts<'_> {
        Facts {
            host: self.host.as_ref().map(|end| (end.site.device.as_str(), &end.observed)),
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
        let is_there = |way: &Way| way.side() == Side::Pod || self.host.is_some();
        Way::ALL.into_iter().filter(is_allowed).filter(is_there).collect()
    }

    /// The end that a way works at, and the other one.
    pub(super) fn at(&self, way: Way) -> Result<(&End, Option<&End>), CniError> {
        match (way.side(), &self.host) {
            (Side::Pod, host) => Ok((&self.pod, host.as_ref())),
            (Side::Host, Some(host)) => Ok((host, Some(&self.pod))),
            (Side::Host, None) => {
                Err(CniError::new(Code::Conflict, "the pod has no interface on the host"))
            }
        }
    }

    /// The TBF of ours that holds a direction, wherever it is.
    pub(super) fn found(&self, direction: Direction) -> Option<&TbfState> {
        let ends = self.host.iter().chain([&self.pod]);
        ends.flat_map(|end| end.tbfs()).find_map(|(of, tbf)| (of == direction).then_some(tbf))
    }

    /// As [`Ends::at`], to work on them.
    pub(super) fn at_mut(&mut self, way: Way) -> Option<(&mut End, Option<&mut End>)> {
        match (way.side(), &mut self.host) {
            (Side::Pod, host) => Some((&mut self.pod, host.as_mut())),
            (Side::Host, Some(host)) => Some((host, Some(&mut self.pod))),
            (Side::Host, None) => None,
        }
    }
}

impl End {
    fn observe(
        mut socket: Socket,
        side: Side,
        link: Link,
        ifbs: [Option<Link>; 2],
        attachment: &Attachment,
    ) -> Result<Self, KernelError> {
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

fn open_namespace(path: &Path) -> Result<NetNs, CniError> {
    let named = |error: KernelError| {
        let error = CniError::from(error);
        CniError { message: format!("CNI_NETNS: {}", error.message), ..error }
    };
    let namespace = NetNs::open(path).map_err(named)?;
    if namespace.is_own().map_err(named)? {
        let path = path.display();
        return Err(CniError::new(
            Code::InvalidEnvironment,
            format!("CNI_NETNS: {path} is the plugin's own network namespace, not a pod's"),
        ));
    }
    Ok(namespace)
}
