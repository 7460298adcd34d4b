//! The call that a runtime would make for a pod as it is now: the same entry of the conflist, with
//! other annotations. So there is one policy, whoever asks.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::cache::{Attached, PLUGIN};
use crate::cni::result::host_interfaces;
use crate::plugin::reconcile::Target;
use crate::policy::{Limits, PolicyError, Settings};
use crate::shaping::Attachment;

/// Capability under which a runtime passes all annotations (src/policy/sources.rs).
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Where the runtime's list is found that has no entry in the cache.
pub const NET_FOLDER: &str = "/etc/cni/net.d";

/// Why there is nothing to call for an attachment.
#[derive(Debug, Error)]
pub enum CallError {
    /// The plugin was not in the list at ADD, and is not now.
    #[error(
        "the network {network} has no pod-bandwidth in its list, neither when the pod was attached \
         nor now in {}; pod-bandwidth install puts it there", folder.display()
    )]
    NotInList {
        /// The network.
        network: String,
        /// Where lists are.
        folder: PathBuf,
    },
    /// The cache has no path of the pod's network namespace.
    #[error("the runtime's cache does not say where the pod's network namespace is")]
    NoNamespace,
    /// The node's own settings.
    #[error("the entry of pod-bandwidth in the list of the node: {0}")]
    Settings(#[from] PolicyError),
}

/// One attachment, and how the node shapes it.
#[derive(Debug)]
pub struct Call {
    /// Whose interface.
    pub attachment: Attachment,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// The interfaces on the host that the cached result names.
    pub host_names: Vec<String>,
    /// The node's settings.
    pub settings: Settings,
    entry: Map<String, Value>,
    capability_args: Map<String, Value>,
}

/// Folders of the node, as this process sees them.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Lists of CNI plugins.
    pub net: PathBuf,
    /// Where the node's /var/run/netns is; `None`: where the cache says.
    pub netns: Option<PathBuf>,
}

impl Call {
    /// The call for an attachment: with the entry that it was made with, else with the node's of today,
    /// for a pod that ran before the plugin was installed.
    ///
    /// # Errors
    /// [`CallError`] where there is no such entry, or it is wrong.
    pub fn new(attached: &Attached, folders: &Folders) -> Result<Self, CallError> {
        let network = attached.network.clone();
        let entry = attached.plugin.clone().or_else(|| active_entry(&folders.net, &network));
        let entry = entry.ok_or_else(|| {
            let folder = folders.net.clone();
            CallError::NotInList { network: network.clone(), folder }
        })?;
        let recorded = attached.sandbox.as_deref().ok_or(CallError::NoNamespace)?;
        let netns = match (&folders.netns, recorded.file_name()) {
            (Some(folder), Some(name)) => folder.join(name),
            _ => recorded.to_path_buf(),
        };
        Ok(Self {
            attachment: Attachment {
                network,
                container_id: attached.container_id.clone(),
                ifname: attached.ifname.clone(),
                pod: attached.pod(),
            },
            netns,
            host_names: host_interfaces(&attached.result, &attached.ifname),
            settings: Settings::read(&entry)?,
            entry,
            capability_args: attached.capability_args.clone(),
        })
    }

    /// What is to be reconciled.
    pub fn target(&self) -> Target<'_> {
        Target { attachment: &self.attachment, netns: &self.netns, host_names: &self.host_names }
    }

    /// The limits of a pod with these annotations.
    ///
    /// A list that declares no capability for them gets none, and one that knows `bandwidth` alone
    /// those of Kubernetes, from which a runtime makes it.
    ///
    /// # Errors
    /// [`PolicyError`] for a value that is malformed, out of range or contradicts another.
    pub fn limits<'a>(
        &self,
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Limits, PolicyError> {
        let (all, some) = (self.declares(ANNOTATIONS), self.declares("bandwidth"));
        let passes = |key: &str| all || (some && key.starts_with("kubernetes.io/"));
        self.limits_by_hand(annotations.into_iter().filter(|(key, _)| passes(key)))
    }

    /// The same, whatever the list declares: a person asks.
    ///
    /// # Errors
    /// As [`Call::limits`].
    pub fn limits_by_hand<'a>(
        &self,
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Limits, PolicyError> {
        let annotations: Map<String, Value> =
            annotations.into_iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        // Not the cached `bandwidth`: it is what the annotations were at ADD.
        let mut config = self.entry.clone();
        config.insert("runtimeConfig".into(), json!({ ANNOTATIONS: annotations }));
        Limits::read(&config)
    }

    /// The limits with which the runtime called.
    ///
    /// # Errors
    /// As [`Call::limits`].
    pub fn limits_at_add(&self) -> Result<Limits, PolicyError> {
        let declared = self.capability_args.iter().filter(|(name, _)| self.declares(name));
        let declared: Map<_, _> =
            declared.map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut config = self.entry.clone();
        config.insert("runtimeConfig".into(), Value::Object(declared));
        Limits::read(&config)
    }

    fn declares(&self, capability: &str) -> bool {
        let capabilities = self.entry.get("capabilities");
        capabilities.and_then(|all| all.get(capability)) == Some(&Value::Bool(true))
    }
}

/// Our entry in the first list of this network, by file name as libcni sorts them.
fn active_entry(folder: &Path, network: &str) -> Option<Map<String, Value>> {
    let list = lists(folder).find(|list| list["name"] == network)?;
    entry_of(&list)
}

/// The network of the first list that has our entry.
pub fn network_with_entry(folder: &Path) -> Option<String> {
    let list = lists(folder).find(|list| entry_of(list).is_some())?;
    list["name"].as_str().map(str::to_owned)
}

fn lists(folder: &Path) -> impl Iterator<Item = Value> {
    let files = std::fs::read_dir(folder).into_iter().flatten().map_while(Result::ok);
    let is_list = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "conflist");
    let mut files: Vec<_> = files.map(|file| file.path()).filter(is_list).collect();
    files.sort();
    files.into_iter().filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok())
}

fn entry_of(list: &Value) -> Option<Map<String, Value>> {
    let entry = list["plugins"].as_array()?.iter().find(|plugin| plugin["type"] == PLUGIN)?;
    entry.as_object().cloned()
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
