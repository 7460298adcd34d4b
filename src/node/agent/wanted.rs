//! What the API server says that this node's pods are to have: the annotations of each pod, and those
//! of its namespace under them. No kernel and no I/O.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;

use super::listed::{Changed, Listed};
use crate::policy::Direction;

/// Annotations about bandwidth; no others are kept.
pub(super) type Annotations = BTreeMap<String, String>;

/// Begin of the keys that Calico documents.
const CALICO: &str = "qos.projectcalico.org/";
/// Begin of the keys of Kubernetes.
const KUBERNETES: &str = "kubernetes.io/";

/// Namespace and name of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodName {
    /// The namespace.
    pub(super) namespace: String,
    /// The name in it.
    pub(super) name: String,
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod of this node as the API server knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KnownPod {
    /// Its UID as the runtime knows it: another pod may get the same name.
    pub(super) uid: String,
    /// Its UID at the API server.
    pub(super) api_uid: String,
    /// It is being deleted. Then its limits are the runtime's to take away.
    pub(super) ends: bool,
    annotations: Annotations,
}

/// All pods of this node, and all namespaces with a default.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pods: Listed<PodName, KnownPod>,
    namespaces: Listed<String, Annotations>,
}

impl Wanted {
    /// Both lists were complete once. Before, a missing default could only be one not yet heard of.
    pub(super) fn is_complete(&self) -> bool {
        self.pods.is_complete() && self.namespaces.is_complete()
    }

    /// All pods.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&PodName, &KnownPod)> {
        self.pods.iter()
    }

    /// The pod of this name.
    pub(super) fn pod(&self, name: &PodName) -> Option<&KnownPod> {
        self.pods.get(name)
    }

    /// The annotations that hold for a pod. Its namespace's count for a direction of which its own
    /// say nothing: a pod that has written a rate does not get another's burst.
    pub(super) fn annotations(&self, name: &PodName, pod: &KnownPod) -> Annotations {
        let own = &pod.annotations;
        let is_own = |key: &str| own.keys().any(|other| direction_of(other) == direction_of(key));
        let defaults = self.namespaces.get(&name.namespace).into_iter().flatten();
        let defaults = defaults.filter(|(key, _)| !is_own(key));
        defaults.chain(own).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// An event of the watch on pods.
    pub(super) fn pods_changed(
        &mut self,
        event: Event<PartialObjectMeta<Pod>>,
    ) -> Changed<PodName> {
        self.pods.take(event, |pod| {
            let namespace = pod.namespace().unwrap_or_default();
            let known = KnownPod {
                uid: uid(pod),
                api_uid: pod.uid().unwrap_or_default(),
                ends: pod.metadata.deletion_timestamp.is_some(),
                annotations: about_bandwidth(pod.annotations()),
            };
            (PodName { namespace, name: pod.name_any() }, known)
        })
    }

    /// An event of the watch on namespaces: whether pods may be to have something else now.
    pub(super) fn namespaces_changed(
        &mut self,
        event: Event<PartialObjectMeta<Namespace>>,
    ) -> bool {
        let name = match &event {
            Event::Apply(object) | Event::Delete(object) => object.name_any(),
            _ => String::new(),
        };
        let before = self.namespaces.get(&name).cloned().unwrap_or_default();
        let changed = self.namespaces.take(event, |namespace| {
            (namespace.name_any(), about_bandwidth(namespace.annotations()))
        });
        match changed {
            Changed::Nothing => false,
            Changed::All => true,
            Changed::One(name) => self.namespaces.get(&name).cloned().unwrap_or_default() != before,
        }
    }
}

/// The UID that kubelet tells the runtime: of a static pod, which the API server has a mirror of with
/// another UID, the one that kubelet gave it (pkg/kubelet/types/pod_update.go).
fn uid(pod: &PartialObjectMeta<Pod>) -> String {
    let mirrored = pod.annotations().get("kubernetes.io/config.mirror").cloned();
    mirrored.or_else(|| pod.uid()).unwrap_or_default()
}

fn about_bandwidth(annotations: &Annotations) -> Annotations {
    let about = annotations.iter().filter(|(key, _)| direction_of(key).is_some());
    about.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The direction that an annotation is about; `None`: no bandwidth at all.
fn direction_of(key: &str) -> Option<Direction> {
    let calico = key.strip_prefix(CALICO);
    let kubernetes = key.strip_prefix(KUBERNETES).and_then(|key| key.strip_suffix("-bandwidth"));
    let begins = |text: &str| {
        let directions = [Direction::Ingress, Direction::Egress];
        directions.into_iter().find(|direction| text.starts_with(direction.name()))
    };
    // Calico also limits packets and connections, which is not ours to do.
    let rates = ["Bandwidth", "Burst", "Peakrate", "Minburst"];
    let calico = calico.filter(|key| rates.iter().any(|rate| key.ends_with(rate)));
    calico.or(kubernetes).and_then(begins)
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
