//! libcni's cache: what the runtime keeps of each ADD until the DEL, and so which pod an attachment is.
//!
//! Files and JSON alone. They are `cachedInfo` of libcni/api.go, as `/var/lib/cni/results/` +
//! network-containerID-ifname. Written without a rename, so a file may be empty or cut; and the folder
//! is not ours, so anything else may be there.

use std::fs::{DirEntry, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::shaping::Attachment;
use crate::shaping::tag::Tag;

/// Where libcni keeps it (CacheDir in libcni/api.go). containerd and CRI-O do not choose another.
pub const FOLDER: &str = "/var/lib/cni/results";

/// What an entry says it is (CNICacheV1).
const KIND: &str = "cniCacheV1";

/// The `type` of our entry in a conflist.
pub const PLUGIN: &str = "pod-bandwidth";

/// Largest file that is read: all annotations of a pod are at most 256 KiB, and a conflist is short.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The cache cannot be read at all. A single file that cannot is no error: see [`Cache::skipped`].
#[derive(Debug, Error)]
#[error(
    "cannot read {}, where the runtime keeps which pod is which: {error}; run this on the node \
     itself, as root, or give the node's folder with --cache",
    folder.display()
)]
pub struct CacheError {
    folder: PathBuf,
    #[source]
    error: std::io::Error,
}

/// All that the runtime has attached, by the cache.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cache {
    /// Ordered by pod, then network and interface.
    pub attached: Vec<Attached>,
    /// Files that are no entries, or were not whole when they were read, and why.
    pub skipped: Vec<(PathBuf, &'static str)>,
}

/// One interface of one pod on one network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attached {
    /// The network's name.
    pub network: String,
    /// CNI_CONTAINERID: the pod's sandbox.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// Namespace of the pod; empty where the runtime is not that of Kubernetes.
    pub namespace: String,
    /// Name of the pod; empty as above.
    pub name: String,
    /// UID of the pod; empty where the runtime did not say it.
    pub uid: String,
    /// Path of the pod's network namespace.
    pub sandbox: Option<PathBuf>,
    /// `cniVersion` of the conflist.
    pub cni_version: String,
    /// Our entry in the conflist that this pod was attached with.
    pub plugin: Option<Map<String, Value>>,
    /// What the runtime passed for the plugins' capabilities.
    pub capability_args: Map<String, Value>,
    /// The result of the whole list.
    pub result: Value,
}

impl Cache {
    /// Reads the folder. One that is not there is an empty cache: nothing was attached since the node
    /// was set up.
    ///
    /// # Errors
    /// [`CacheError`] where the folder cannot be listed.
    pub fn read(folder: &Path) -> Result<Self, CacheError> {
        let failed = |error| CacheError { folder: folder.into(), error };
        let files = match std::fs::read_dir(folder) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(failed(error)),
        };
        let mut cache = Self::default();
        for file in files {
            cache.add(&file.map_err(failed)?);
        }
        cache.attached.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
        cache.skipped.sort();
        Ok(cache)
    }

    fn add(&mut self, file: &DirEntry) {
        // One that is gone by now was detached meanwhile.
        match read_file(file) {
            Ok(Some(text)) => match Attached::parse(&text) {
                Ok(attached) => self.attached.push(attached),
                Err(reason) => self.skipped.push((file.path(), reason)),
            },
            Ok(None) => {}
            Err(reason) => self.skipped.push((file.path(), reason)),
        }
    }

    /// The entry of this container's interface.
    pub fn find(&self, container_id: &str, ifname: &str) -> Option<&Attached> {
        self.attached.iter().find(|one| one.container_id == container_id && one.ifname == ifname)
    }

    /// The entries of this pod; more than one where it has several interfaces, or a sandbox before.
    pub fn of_pod<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Attached> {
        self.attached.iter().filter(move |one| one.namespace == namespace && one.name == name)
    }
}

/// The text of a regular file; `None` where it is gone.
fn read_file(file: &DirEntry) -> Result<Option<Vec<u8>>, &'static str> {
    // A FIFO here would make us wait for ever.
    if !file.file_type().is_ok_and(|kind| kind.is_file()) {
        return Err("not a regular file");
    }
    let opened = match File::open(file.path()) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err("cannot be opened"),
    };
    let mut text = Vec::new();
    let read = opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut text);
    match read {
        Ok(length) if length as u64 > FILE_BYTES_MAX => Err("longer than any entry is"),
        Ok(_) => Ok(Some(text)),
        Err(_) => Err("cannot be read"),
    }
}

impl Attached {
    /// Reads one entry; else why it is none.
    fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let entry: Value = serde_json::from_slice(text).map_err(|_| "no whole JSON")?;
        let word = |key| text_of(&entry, key);
        if word("kind") != KIND {
            return Err("no entry of libcni's cache");
        }
        let config = STANDARD.decode(word("config")).ok();
        let config = config.and_then(|config| serde_json::from_slice(&config).ok());
        let config: Value = config.unwrap_or_default();
        let attached = Self {
            network: word("networkName"),
            container_id: word("containerId"),
            ifname: word("ifName"),
            namespace: argument(&entry, "K8S_POD_NAMESPACE"),
            name: argument(&entry, "K8S_POD_NAME"),
            uid: argument(&entry, "K8S_POD_UID"),
            sandbox: sandbox(&entry),
            cni_version: text_of(&config, "cniVersion"),
            plugin: plugin(&config),
            capability_args: entry["capabilityArgs"].as_object().cloned().unwrap_or_default(),
            result: entry["result"].clone(),
        };
        let names = [&attached.network, &attached.container_id, &attached.ifname];
        if names.iter().any(|name| name.is_empty()) {
            return Err("an entry without network, container or interface");
        }
        Ok(attached)
    }

    /// `namespace/name` of the pod, where the runtime said both.
    pub fn pod(&self) -> Option<String> {
        let is_known = !self.namespace.is_empty() && !self.name.is_empty();
        is_known.then(|| format!("{}/{}", self.namespace, self.name))
    }

    /// What everything that pod-bandwidth creates for it carries.
    pub fn tag(&self) -> Tag {
        Attachment {
            network: self.network.clone(),
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
            pod: None,
        }
        .tag()
    }

    /// The interfaces outside of the pod that the result names: in a chain, the host's end of its link.
    pub fn host_interfaces(&self) -> impl Iterator<Item = &str> {
        let interfaces = self.result["interfaces"].as_array().into_iter().flatten();
        let outside = interfaces.filter(|one| one["sandbox"].as_str().unwrap_or("").is_empty());
        outside.filter_map(|one| one["name"].as_str())
    }

    fn sort_key(&self) -> [&str; 5] {
        [&self.namespace, &self.name, &self.network, &self.ifname, &self.container_id]
    }
}

fn text_of(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

/// A value of CNI_ARGS: pairs, as libcni has them.
fn argument(entry: &Value, key: &str) -> String {
    let pairs = entry["cniArgs"].as_array().into_iter().flatten();
    let mut values = pairs.filter(|pair| pair[0] == key).filter_map(|pair| pair[1].as_str());
    values.next().unwrap_or_default().to_owned()
}

/// `netns` since libcni 1.3; before it, the sandbox of the interface in the result.
fn sandbox(entry: &Value) -> Option<PathBuf> {
    let interfaces = entry["result"]["interfaces"].as_array().into_iter().flatten();
    let inside = |one: &&Value| one["name"] == entry["ifName"];
    let in_result = interfaces.filter(inside).filter_map(|one| one["sandbox"].as_str());
    let paths = entry["netns"].as_str().into_iter().chain(in_result);
    paths.filter(|path| path.starts_with('/')).map(PathBuf::from).next()
}

/// Our entry in a conflist, or the configuration itself where it is one plugin alone.
fn plugin(config: &Value) -> Option<Map<String, Value>> {
    let is_ours = |plugin: &&Value| plugin["type"] == PLUGIN;
    let plugins = config["plugins"].as_array();
    let found = match plugins {
        Some(plugins) => plugins.iter().find(is_ours),
        None => Some(config).filter(is_ours),
    };
    found.and_then(Value::as_object).cloned()
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
