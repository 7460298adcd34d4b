//! The inventory: all that is shaped on this node now, each with its pod.
//!
//! The kernel says what is shaped, and libcni's cache whose it is. Nothing is remembered in between;
//! what two readings say together is pace.rs's.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::cache::{Attached, Cache};
use crate::kernel::stats::{self, TbfStats};
use crate::kernel::{KernelError, Link, NetNs, Socket};
use crate::policy::{BitsPerSecond, Direction};
use crate::shaping::identity::alias_field;
use crate::shaping::placement::Way;
use crate::shaping::tag::Tag;
use crate::shaping::{Mark, Shadow};

pub use crate::kernel::stats::Counters;

/// All that is shaped on this node, at one moment.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// When the kernel was asked.
    pub taken: Instant,
    /// Ordered by pod, network and interface.
    pub shaped: Vec<Shaped>,
    /// What could not be looked at, in words.
    pub problems: Vec<String>,
}

/// One interface of a pod, with a limit in at least one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Shaped {
    /// Whose it is.
    pub owner: Owner,
    /// Where the qdiscs are.
    pub placement: Placement,
    /// The interface that is limited: the host's end, or the pod's own where the placement is the pod.
    pub device: String,
    /// To the pod, and from it.
    pub limits: [Option<Measured>; 2],
    /// Filters of other programs before these limits; none until they are looked for.
    pub shadows: Vec<Shadow>,
}

/// Whose a limit is. What is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The network's name.
    pub network: String,
    /// The interface's name in the pod.
    pub ifname: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// The pod's UID.
    pub uid: String,
}

/// Where qdiscs are. Not a [`Way`]: with a limit from the pod alone both ways on the host look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On the host, and nothing says which way.
    Host,
    /// As [`Way`] has it.
    By(Way),
}

/// One direction's limit and what it counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The device whose root is the TBF.
    pub device: String,
    /// The limit.
    pub limit: BitsPerSecond,
    /// How much may pass at once.
    pub burst_bytes: u32,
    /// How much may wait.
    pub queue_bytes: u32,
    /// Who set these numbers.
    pub mark: Mark,
    /// What it counted.
    pub counters: Counters,
}

/// Nobody limits it.
const LOOPBACK: &str = "lo";

/// Both directions, in the order in which arrays hold them.
pub const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::By(way) => way.fmt(f),
        }
    }
}

impl Owner {
    fn of(attached: &Attached) -> Self {
        Self {
            namespace: attached.namespace.clone(),
            name: attached.name.clone(),
            network: attached.network.clone(),
            ifname: attached.ifname.clone(),
            container_id: attached.container_id.clone(),
            uid: attached.uid.clone(),
        }
    }

    /// By our IFB's alias: text that the plugin cut and escaped.
    fn of_alias(alias: &str) -> Self {
        let field = |key| alias_field(alias, key).unwrap_or_default().to_owned();
        let pod = field("pod");
        let (namespace, name) = pod.split_once('/').unwrap_or_default();
        Self {
            namespace: namespace.into(),
            name: name.into(),
            network: field("net"),
            ifname: field("if"),
            container_id: field("id"),
            uid: String::new(),
        }
    }

    /// `namespace/name`, else what is known of it.
    pub fn pod(&self) -> String {
        match (self.name.as_str(), self.container_id.get(..12).unwrap_or(&self.container_id)) {
            ("", "") => "?".into(),
            ("", id) => format!("container {id}"),
            (name, _) => format!("{}/{name}", self.namespace),
        }
    }
}

impl Inventory {
    /// Reads the namespace of this process, and then that of each pod that is not limited from here.
    ///
    /// # Errors
    /// What the kernel said about this namespace. A pod's that cannot be read is among the problems.
    pub fn read(cache: &Cache) -> Result<Self, KernelError> {
        let taken = Instant::now();
        let mut found = Found::new(cache);
        let mut socket = Socket::open()?;
        let (tbfs, links) = (stats::tbfs(&mut socket)?, stats::links(&mut socket)?);
        found.add_host(tbfs, &links);
        let mut problems = Vec::new();
        for attached in found.to_look_into() {
            match inside(attached) {
                Ok((tbfs, links)) => found.add_pod(attached, tbfs, &links),
                // The runtime takes the namespace away a moment before the cache's file.
                Err(error) if error.is_gone() => {}
                Err(error) => problems.push(format!("{}: {error}", Owner::of(attached).pod())),
            }
        }
        Ok(Self { taken, shaped: found.into_sorted(), problems })
    }

    /// Keeps what `wanted` says.
    pub fn retain(&mut self, wanted: impl Fn(&Shaped) -> bool) {
        self.shaped.retain(wanted);
    }
}

/// What is limited inside a pod's namespace.
fn inside(attached: &Attached) -> Result<(Vec<TbfStats>, Vec<Link>), KernelError> {
    let Some(path) = &attached.sandbox else { return Ok(<_>::default()) };
    let mut socket = Socket::open_in(&NetNs::open(path)?)?;
    let tbfs = stats::tbfs(&mut socket)?;
    // Most pods have none, and then nobody needs their links.
    let links = if tbfs.is_empty() { Vec::new() } else { stats::links(&mut socket)? };
    Ok((tbfs, links))
}

/// What was found so far: by the tag of the attachment, or by the device where no tag is known.
struct Found<'a> {
    by_tag: HashMap<Tag, &'a Attached>,
    by_device: HashMap<&'a str, Tag>,
    shaped: BTreeMap<String, Shaped>,
}

impl<'a> Found<'a> {
    fn new(cache: &'a Cache) -> Self {
        let (mut by_tag, mut by_device) = (HashMap::new(), HashMap::new());
        for attached in &cache.attached {
            let tag = attached.tag();
            by_device.extend(attached.host_interfaces().map(|device| (device, tag)));
            by_tag.insert(tag, attached);
        }
        Self { by_tag, by_device, shaped: BTreeMap::new() }
    }

    fn add_host(&mut self, tbfs: Vec<TbfStats>, links: &[Link]) {
        let devices: HashMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
        // An IFB's alias names the interface beside it: that finds the pod where the cache does not.
        let beside: HashMap<&str, &Link> = links.iter().filter_map(beside).collect();
        for tbf in tbfs {
            // One that came between the two dumps is there the next time.
            let Some(link) = devices.get(&tbf.index) else { continue };
            let (direction, placement, tag) = match ifb_of(link) {
                Some((tag, Direction::Ingress)) => {
                    (Direction::Ingress, Placement::By(Way::HostHooks), Some(tag))
                }
                Some((tag, Direction::Egress)) => (Direction::Egress, Placement::Host, Some(tag)),
                None => {
                    let by_alias = beside.get(link.name.as_str()).and_then(|ifb| ifb_of(ifb));
                    let tag = self.by_device.get(link.name.as_str()).copied();
                    let tag = tag.or(by_alias.map(|(tag, _)| tag));
                    (Direction::Ingress, Placement::By(Way::HostRoot), tag)
                }
            };
            self.add(tag, direction, placement, link, &tbf);
        }
    }

    fn add_pod(&mut self, attached: &Attached, tbfs: Vec<TbfStats>, links: &[Link]) {
        let tag = attached.tag();
        for tbf in tbfs {
            let link = links.iter().find(|link| link.index == tbf.index);
            let ours = |link: &&Link| match ifb_of(link) {
                Some((of, _)) => of == tag,
                None => link.name == attached.ifname,
            };
            let Some(link) = link.filter(ours) else { continue };
            let direction = ifb_of(link).map_or(Direction::Egress, |(_, direction)| direction);
            let placement = Placement::By(Way::Pod);
            self.add(Some(tag), direction, placement, link, &tbf);
        }
    }

    fn add(
        &mut self,
        tag: Option<Tag>,
        direction: Direction,
        placement: Placement,
        link: &Link,
        tbf: &TbfStats,
    ) {
        let attached = tag.as_ref().and_then(|tag| self.by_tag.get(tag));
        let alias = link.alias.as_deref().unwrap_or_default();
        let ifb = ifb_of(link);
        let key = tag.map_or_else(|| format!("device {}", link.name), |tag| tag.to_string());
        let shaped = self.shaped.entry(key).or_insert_with(|| Shaped {
            owner: Owner::default(),
            placement,
            device: String::new(),
            limits: [None, None],
            shadows: Vec::new(),
        });
        match attached {
            Some(attached) => shaped.owner = Owner::of(attached),
            None if ifb.is_some() => shaped.owner = Owner::of_alias(alias),
            None => {}
        }
        if placement != Placement::Host {
            shaped.placement = placement;
        }
        let device = match ifb {
            Some(_) => alias_field(alias, "dev").unwrap_or_default(),
            None => &link.name,
        };
        if shaped.device.is_empty() || ifb.is_none() {
            device.clone_into(&mut shaped.device);
        }
        shaped.limits[direction as usize] = Some(Measured {
            device: link.name.clone(),
            limit: BitsPerSecond(tbf.rate.0.saturating_mul(8)),
            burst_bytes: tbf.burst_bytes,
            queue_bytes: tbf.limit_bytes,
            mark: tbf.mark,
            counters: tbf.counters,
        });
    }

    /// The attachments that are not limited on the host. containerd attaches the loopback, too, by a
    /// network of its own: without it a pod that is limited on the host is never entered.
    fn to_look_into(&self) -> Vec<&'a Attached> {
        let missing =
            self.by_tag.iter().filter(|(tag, _)| !self.shaped.contains_key(&tag.to_string()));
        missing.map(|(_, attached)| *attached).filter(|one| one.ifname != LOOPBACK).collect()
    }

    fn into_sorted(self) -> Vec<Shaped> {
        let mut shaped: Vec<_> = self.shaped.into_values().collect();
        shaped.sort_by(|a, b| (&a.owner, &a.device).cmp(&(&b.owner, &b.device)));
        shaped
    }
}

/// Attachment and direction of one of our IFBs; `None` for any other link.
fn ifb_of(link: &Link) -> Option<(Tag, Direction)> {
    let tag = Tag::of_ifb_name(&link.name).filter(|_| link.kind.as_deref() == Some("ifb"))?;
    let direction = DIRECTIONS.into_iter().find(|way| tag.ifb_name(*way) == link.name)?;
    Some((tag, direction))
}

/// The interface that one of our IFBs stands beside.
fn beside(ifb: &Link) -> Option<(&str, &Link)> {
    ifb_of(ifb)?;
    Some((alias_field(ifb.alias.as_deref()?, "dev")?, ifb))
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
