//! Pods that the runtime's cache has no entry of. They are found by what an ADD left in the kernel, the
//! alias of an IFB, or else by the name that Calico gives a pod's host interface. The number by which the
//! host knows the namespace behind that interface then leads to the namespace's file.
//!
//! An ADD that is under way looks the same, because libcni writes its entry at the end. So a trace counts
//! from the second slow look on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

use super::wanted::{PodName, Wanted};
use crate::kernel::{KernelError, Link, NetNs, Socket, link, stats};
use crate::log::Log;
use crate::node::cache::{Attached, Cache};
use crate::node::call::{Folders, network_with_entry};
use crate::shaping::identity::alias_field;

/// Where runtimes keep the namespaces of pods.
const NETNS_FOLDER: &str = "/var/run/netns";

/// The interface that kubelet asks for.
const IFNAME: &str = "eth0";

/// What was found at the look before.
#[derive(Debug, Default)]
pub(super) struct Traces {
    found: BTreeMap<PodName, Trace>,
    error: Option<String>,
}

/// One pod's.
#[derive(Debug, Clone, PartialEq)]
struct Trace {
    /// What the cache would have; without a sandbox until it counts.
    attached: Attached,
    /// Index of the host interface, which another pod of the name does not have.
    index: u32,
}

impl Traces {
    /// One slow look: which pods are missing, and which of them were found again.
    pub(super) fn look(&mut self, wanted: &Wanted, cache: &Cache, folders: &Folders, log: &Log) {
        let missing = missing(wanted, cache);
        let before = std::mem::take(&mut self.found);
        if missing.is_empty() {
            return;
        }
        let result = self.find(&missing, &before, folders);
        let error = result.err().map(|error| error.to_string());
        if let Some(text) = error.as_ref().filter(|_| self.error != error) {
            log.warn(&format!("looking for pods that the runtime's cache does not know: {text}"));
        }
        self.error = error;
    }

    fn find(
        &mut self,
        missing: &[(&PodName, &str)],
        before: &BTreeMap<PodName, Trace>,
        folders: &Folders,
    ) -> Result<(), KernelError> {
        let mut host = Socket::open()?;
        let links = stats::links(&mut host)?;
        let network = network_with_entry(&folders.net);
        let folder = folders.netns.as_deref().unwrap_or(Path::new(NETNS_FOLDER));
        for (name, uid) in missing {
            let trace = trace(name, uid, network.as_deref(), &links);
            let Some((mut trace, end)) = trace else { continue };
            if let Some(old) = before.get(name).filter(|old| old.is_of(&trace)) {
                trace.attached.sandbox = match &old.attached.sandbox {
                    Some(known) => Some(known.clone()),
                    None => sandbox(&mut host, end, folder)?,
                };
            }
            self.found.insert((*name).clone(), trace);
        }
        Ok(())
    }

    /// Adds what counts to what the cache has.
    pub(super) fn complete(&self, cache: &mut Cache) {
        let sure = self.found.values().map(|trace| &trace.attached);
        for attached in sure.filter(|attached| attached.sandbox.is_some()) {
            if !knows(cache, &attached.namespace, &attached.name, &attached.uid) {
                cache.attached.push(attached.clone());
            }
        }
    }
}

impl Trace {
    /// Whether it is of the same interface of the same pod.
    fn is_of(&self, other: &Self) -> bool {
        self.index == other.index && self.attached.uid == other.attached.uid
    }
}

fn knows(cache: &Cache, namespace: &str, name: &str, uid: &str) -> bool {
    cache.of_pod(namespace, name).any(|one| one.uid.is_empty() || one.uid == uid)
}

/// Pods that run here and have no entry.
fn missing<'a>(wanted: &'a Wanted, cache: &Cache) -> Vec<(&'a PodName, &'a str)> {
    let pods = wanted.pods().filter(|(_, pod)| !pod.ends);
    let pods = pods.filter(|(name, pod)| !knows(cache, &name.namespace, &name.name, &pod.uid));
    pods.map(|(name, pod)| (name, pod.uid.as_str())).collect()
}

/// What the links of the host tell of a pod.
fn trace<'a>(
    name: &PodName,
    uid: &str,
    network: Option<&str>,
    links: &'a [Link],
) -> Option<(Trace, &'a Link)> {
    let by_name = |device: &str| links.iter().find(|link| link.name == device);
    let pod = name.to_string();
    let alias = links.iter().filter_map(|link| link.alias.as_deref());
    let alias = alias.into_iter().find(|alias| alias_field(alias, "pod") == Some(&pod));
    let field = |key| alias.and_then(|alias| alias_field(alias, key));
    let (end, network, container_id, ifname) = match field("dev").and_then(by_name) {
        Some(end) => (end, field("net")?, field("id")?, field("if")?),
        // Nobody says which container it is. The UID is not another pod's, either.
        None => (by_name(&calico_name(name))?, network?, uid, IFNAME),
    };
    let attached = Attached {
        network: network.to_owned(),
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        uid: uid.to_owned(),
        ..Attached::default()
    };
    Some((Trace { attached, index: end.index }, end))
}

/// VethNameForWorkload of Calico's libcalico-go/lib/names: `cali` and the begin of a hash.
fn calico_name(pod: &PodName) -> String {
    let hash = Sha1::digest(format!("{}.{}", pod.namespace, pod.name));
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("cali{}", &digits[..11])
}

/// The file of the namespace that is behind a host interface; `None` where none is.
fn sandbox(host: &mut Socket, end: &Link, folder: &Path) -> Result<Option<PathBuf>, KernelError> {
    let Some(number) = end.peer_namespace else { return Ok(None) };
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // One that goes meanwhile, or is no namespace, is not that of a pod that runs.
        let Ok(namespace) = NetNs::open(file.path()) else { continue };
        if link::namespace_id(host, &namespace)? == Some(number) {
            return Ok(Some(file.path()));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "traces_tests.rs"]
mod tests;
