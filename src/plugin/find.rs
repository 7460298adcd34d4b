//! Finding an attachment's link if its name does not lead to it: the pod's interface was renamed,
//! another device took its name, or it was moved into another namespace. KubeVirt does the first two
//! to a virtual machine's pod (docs/with-kubevirt.md).
//!
//! The evidence, the strongest first. A pod can forge only the last two:
//! 1. a host interface with a filter of pod-bandwidth that redirects to an IFB of this attachment;
//! 2. a host interface that prevResult or the alias of an IFB names, if its peer is in the pod;
//! 3. an interface of the pod with a filter as in 1;
//! 4. CNI_IFNAME.
//!
//! A veth of the pod that nothing of this names is not used: it may be another attachment's.

use std::collections::BTreeMap;

use crate::kernel::observe::redirect_targets;
use crate::kernel::{KernelError, Link, NetNs, Socket, link};
use crate::shaping::identity::alias_field;

/// One end's namespace, and the devices in it that have the names of this attachment's IFBs.
pub(super) struct Room {
    pub(super) socket: Socket,
    pub(super) ifbs: [Option<Link>; 2],
}

/// The ends of a link. The pod's is absent if it was moved into another namespace, the host's if the
/// interface is not one of a pair (macvlan, ipvlan, SR-IOV).
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) pod: Option<Link>,
    pub(super) host: Option<Link>,
}

impl Found {
    /// Whether nothing contradicts that the link of the name CNI_IFNAME is the attachment's.
    pub(super) fn is_sure(&self, host: &Room, pod: &Room, host_names: &[String]) -> bool {
        match &self.host {
            Some(link) => {
                let is_named = |name: &String| *name == link.name;
                (host_names.is_empty() || host_names.iter().any(is_named))
                    && devices(host.ifbs.iter().flatten()).all(|device| device == link.name)
            }
            None => host_names.is_empty() && host.ifbs.iter().chain(&pod.ifbs).all(Option::is_none),
        }
    }

    /// The link by all evidence; this one, which was found by CNI_IFNAME, if there is no other.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn search(
        self,
        host: &mut Room,
        pod: &mut Room,
        namespace: &NetNs,
        host_names: &[String],
    ) -> Result<Self, KernelError> {
        let ifbs = |room: &Room| room.ifbs.iter().flatten().cloned().collect::<Vec<Link>>();
        let (host_ifbs, pod_ifbs) = (ifbs(host), ifbs(pod));
        let named = named(&mut host.socket, &host_ifbs, host_names)?;
        // The kernel numbers a namespace when it first shows a link into it, so this comes second.
        let number = link::namespace_id(&mut host.socket, namespace)?;
        let likely: Vec<&Link> = self.host.iter().chain(&named).collect();
        let redirects = Redirects::default().find(&mut host.socket, &host_ifbs, &likely)?;
        if let Some(link) = redirects {
            let pod = link::pod_end(&mut pod.socket, number, &link)?;
            return Ok(Self { pod, host: Some(link) });
        }
        let mut in_pod = named.into_iter().filter(|link| link.has_peer_in(number));
        if let (Some(link), None, false) = (in_pod.next(), in_pod.next(), self.leaves_by_itself()) {
            let pod = link::pod_end(&mut pod.socket, number, &link)?;
            return Ok(Self { pod, host: Some(link) });
        }
        let likely: Vec<&Link> = self.pod.iter().collect();
        if let Some(link) = Redirects::default().find(&mut pod.socket, &pod_ifbs, &likely)? {
            let (host, _) = link::host_end(&mut host.socket, namespace, Some(&link), &[])?;
            return Ok(Self { pod: Some(link), host });
        }
        Ok(self)
    }

    /// Whether the pod's interface sends through a device of the host, as no stand-in does. A host veth that
    /// prevResult names beside it is then an extra link of the pod.
    fn leaves_by_itself(&self) -> bool {
        let kind = self.pod.as_ref().map(|link| link.kind.as_deref());
        matches!(kind, Some(None | Some("macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "vlan")))
    }
}

/// The links of the host that prevResult and the aliases of the IFBs name, each once.
fn named(
    socket: &mut Socket,
    ifbs: &[Link],
    host_names: &[String],
) -> Result<Vec<Link>, KernelError> {
    /// Plugins name one to three; each costs a look-up.
    const MOST: usize = 16;
    let mut names: Vec<&str> = devices(ifbs).collect();
    names.extend(host_names.iter().map(String::as_str).take(MOST));
    names.sort_unstable();
    names.dedup();
    let links = link::by_names(socket, &names)?.into_iter().flatten();
    Ok(links.filter(Link::is_pair).collect())
}

/// The interfaces that the aliases of IFBs name: those that redirected to them at the last ADD.
fn devices<'a>(ifbs: impl IntoIterator<Item = &'a Link>) -> impl Iterator<Item = &'a str> {
    let aliases = ifbs.into_iter().filter_map(|ifb| ifb.alias.as_deref());
    aliases.filter_map(|alias| alias_field(alias, "dev"))
}

/// Which interface of a namespace redirects to an IFB.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    /// By the index of the target, once all interfaces were looked through.
    all: Option<BTreeMap<u32, Link>>,
}

impl Redirects {
    /// The interface that redirects to one of these IFBs: the one that their aliases name, unless it
    /// was renamed since the last ADD.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn find_by_alias(
        &mut self,
        socket: &mut Socket,
        ifbs: &[Link],
    ) -> Result<Option<Link>, KernelError> {
        let named = named(socket, ifbs, &[])?;
        self.find(socket, ifbs, &named.iter().collect::<Vec<_>>())
    }

    /// The interface with a filter of pod-bandwidth that redirects to one of these IFBs. The likely
    /// ones are looked at first. If it is none of them all interfaces are, once.
    fn find(
        &mut self,
        socket: &mut Socket,
        ifbs: &[Link],
        likely: &[&Link],
    ) -> Result<Option<Link>, KernelError> {
        let ifbs: Vec<u32> =
            ifbs.iter().filter(|link| is_ifb(link)).map(|link| link.index).collect();
        if ifbs.is_empty() {
            return Ok(None);
        }
        for link in likely {
            if redirect_targets(socket, link)?.iter().any(|target| ifbs.contains(target)) {
                return Ok(Some((*link).clone()));
            }
        }
        let all = match &mut self.all {
            Some(all) => all,
            None => self.all.insert(all_redirects(socket)?),
        };
        Ok(ifbs.iter().find_map(|ifb| all.get(ifb)).cloned())
    }
}

fn all_redirects(socket: &mut Socket) -> Result<BTreeMap<u32, Link>, KernelError> {
    let mut all = BTreeMap::new();
    for link in link::all(socket)?.into_iter().filter(|link| !is_ifb(link)) {
        for target in redirect_targets(socket, &link)? {
            all.insert(target, link.clone());
        }
    }
    Ok(all)
}

fn is_ifb(link: &Link) -> bool {
    link.kind.as_deref() == Some("ifb")
}
