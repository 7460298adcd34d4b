//! Settings: the plugin's own keys in the network configuration, beyond the limits.
//!
//! Knows their names, words and ranges. Unknown keys are left alone, as the CNI specification asks.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::error::PolicyError;
use super::json::{Entry, Object};
use super::subnets::Scope;

/// Where the qdiscs go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The plugin chooses: the host side wherever that is safe.
    #[default]
    Auto,
    /// On the host's end of the veth pair.
    Host,
    /// Inside the pod's network namespace. The limit is cooperative there.
    Pod,
}

/// How the direction to the pod is shaped on the host side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostIngress {
    /// The plugin chooses: `Hooks` where somebody else rules the root qdisc, else `Root`.
    #[default]
    Auto,
    /// A TBF as the root qdisc of the host interface.
    Root,
    /// The egress hook of clsact, which redirects to an IFB; the root qdisc is not touched.
    Hooks,
}

/// What `placementByPrefix` says of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixPlacement {
    /// Where the qdiscs go.
    pub placement: Placement,
    /// The way on the host; `None` leaves it to `hostIngress`.
    pub host_ingress: Option<HostIngress>,
}

/// What becomes of the `ingress` qdisc that Calico's Felix has put on a host interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CalicoQos {
    /// It makes way for a clsact qdisc where the pod's own limit takes the place of Felix's.
    #[default]
    Replace,
    /// It stays, and the limits go elsewhere.
    Keep,
}

/// What waits below a token bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueKind {
    /// fq_codel where the kernel has it, else a FIFO.
    #[default]
    Auto,
    /// One FIFO for all flows of the pod.
    Fifo,
    /// A queue for each flow, and none that stays full.
    FqCodel,
}

/// How much is logged; each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what is odd.
    Warn,
    /// And what was done.
    #[default]
    Info,
    /// And why.
    Debug,
}

/// The key `log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// `log.file`, an absolute path; `None` is standard error.
    pub file: Option<PathBuf>,
    /// `log.level`.
    pub level: LogLevel,
}

/// The plugin's settings; [`Settings::default`] is what an empty configuration means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `placement`.
    pub placement: Placement,
    /// `hostIngress`.
    pub host_ingress: HostIngress,
    /// `placementByPrefix`: prefixes of host interface names, longest first, so that the first one
    /// that fits is the one that counts.
    pub placement_by_prefix: Vec<(String, PrefixPlacement)>,
    /// `calicoQoS`.
    pub calico_qos: CalicoQos,
    /// `latency` in milliseconds: how long a packet may wait in a full queue at the limit's rate.
    /// 1 to 10000. With 0 there would be no queue, and every packet beyond the burst would be lost;
    /// beyond 10 seconds a sender has given the packet up long ago and sent it again.
    pub latency_ms: u32,
    /// `queue`.
    pub queue: QueueKind,
    /// `log`.
    pub log: LogSettings,
    /// `unshapedSubnets` and `shapedSubnets`.
    pub scope: Scope,
}

/// As the reference plugin: long enough for a steady rate, short enough to stay unnoticed.
const DEFAULT_LATENCY_MS: u32 = 25;
const MAX_LATENCY_MS: u32 = 10_000;

const PLACEMENTS: [(&str, Placement); 3] =
    [("auto", Placement::Auto), ("host", Placement::Host), ("pod", Placement::Pod)];
const HOST_INGRESSES: [(&str, HostIngress); 3] =
    [("auto", HostIngress::Auto), ("root", HostIngress::Root), ("hooks", HostIngress::Hooks)];
const PREFIX_PLACEMENTS: [(&str, PrefixPlacement); 5] = [
    ("auto", PrefixPlacement { placement: Placement::Auto, host_ingress: None }),
    ("host", PrefixPlacement { placement: Placement::Host, host_ingress: None }),
    ("pod", PrefixPlacement { placement: Placement::Pod, host_ingress: None }),
    (
        "hooks",
        PrefixPlacement { placement: Placement::Host, host_ingress: Some(HostIngress::Hooks) },
    ),
    ("root", PrefixPlacement { placement: Placement::Host, host_ingress: Some(HostIngress::Root) }),
];
const CALICO_QOS: [(&str, CalicoQos); 2] =
    [("replace", CalicoQos::Replace), ("keep", CalicoQos::Keep)];
const QUEUES: [(&str, QueueKind); 3] =
    [("auto", QueueKind::Auto), ("fifo", QueueKind::Fifo), ("fq_codel", QueueKind::FqCodel)];
const LEVELS: [(&str, LogLevel); 4] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

impl Default for Settings {
    fn default() -> Self {
        Settings {
            placement: Placement::default(),
            host_ingress: HostIngress::default(),
            placement_by_prefix: Vec::new(),
            calico_qos: CalicoQos::default(),
            latency_ms: DEFAULT_LATENCY_MS,
            queue: QueueKind::default(),
            log: LogSettings::default(),
            scope: Scope::default(),
        }
    }
}

impl Settings {
    /// Reads the settings from a network configuration (without prevResult). A key that is absent
    /// or null has its default.
    ///
    /// # Errors
    /// [`PolicyError`] for a value that the key does not take.
    pub fn read(config: &Map<String, Value>) -> Result<Settings, PolicyError> {
        let config = Object::root(config);
        let default = Settings::default();
        let scope = Scope::read(&config)?;
        refuse_root_beside_subnets(&config, &scope)?;
        Ok(Settings {
            placement: word(&config, "placement", &PLACEMENTS)?.unwrap_or_default(),
            host_ingress: word(&config, "hostIngress", &HOST_INGRESSES)?.unwrap_or_default(),
            placement_by_prefix: placement_by_prefix(&config)?,
            calico_qos: word(&config, "calicoQoS", &CALICO_QOS)?.unwrap_or_default(),
            latency_ms: match config.entry("latency") {
                Some(entry) => latency(&entry)?,
                None => default.latency_ms,
            },
            queue: word(&config, "queue", &QUEUES)?.unwrap_or_default(),
            log: match config.object("log")? {
                Some(object) => LogSettings {
                    file: object.entry("file").map(|entry| entry.path()).transpose()?,
                    level: word(&object, "level", &LEVELS)?.unwrap_or_default(),
                },
                None => default.log,
            },
            scope,
        })
    }

    /// What `placementByPrefix` says of the host interface of this name, with its prefix. It only
    /// overrides `"placement": "auto"`.
    pub fn by_prefix(&self, device: &str) -> Option<&(String, PrefixPlacement)> {
        let mut list = self.placement_by_prefix.iter();
        list.find(|(prefix, _)| self.placement == Placement::Auto && device.starts_with(prefix))
    }

    /// Placement, and the way on the host, of the pod with this host interface, if it has one.
    pub fn placed(&self, device: Option<&str>) -> (Placement, HostIngress) {
        match device.and_then(|device| self.by_prefix(device)) {
            Some((_, by)) => (by.placement, by.host_ingress.unwrap_or(self.host_ingress)),
            None => (self.placement, self.host_ingress),
        }
    }
}

/// A root qdisc limits every packet that leaves by the interface.
fn refuse_root_beside_subnets(config: &Object<'_>, scope: &Scope) -> Result<(), PolicyError> {
    let prefixes = config.object("placementByPrefix")?;
    let by_prefix = prefixes.iter().flat_map(Object::entries).map(|(_, entry)| entry);
    let places = config.entry("hostIngress").into_iter().map(|entry| (entry, "\"auto\""));
    let mut places = places.chain(by_prefix.map(|entry| (entry, "\"auto\", \"host\", \"pod\"")));
    match places.find(|(entry, _)| entry.value == "root" && !scope.is_all()) {
        Some((entry, others)) => Err(entry.wrong(format!(
            "{others} or \"hooks\" beside unshapedSubnets or shapedSubnets, because a root qdisc \
             limits all traffic",
        ))),
        None => Ok(()),
    }
}

fn word<T: Copy>(
    object: &Object<'_>,
    key: &str,
    words: &[(&str, T)],
) -> Result<Option<T>, PolicyError> {
    object.entry(key).map(|entry| entry.word(words)).transpose()
}

fn latency(entry: &Entry<'_>) -> Result<u32, PolicyError> {
    let number = entry.value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.filter(|number| (1..=MAX_LATENCY_MS).contains(number)).ok_or_else(|| {
        entry.wrong(format!("an integer of milliseconds between 1 and {MAX_LATENCY_MS}"))
    })
}

fn placement_by_prefix(config: &Object<'_>) -> Result<Vec<(String, PrefixPlacement)>, PolicyError> {
    let Some(object) = config.object("placementByPrefix")? else { return Ok(Vec::new()) };
    let mut list = Vec::new();
    for (prefix, entry) in object.entries() {
        if prefix.is_empty() {
            // An empty prefix fits every interface: that is what `placement` is for.
            return Err(PolicyError::WrongValue {
                key: "placementByPrefix".to_owned(),
                got: "an empty prefix".to_owned(),
                takes: "prefixes of host interface names, such as \"eni\"".to_owned(),
            });
        }
        list.push((prefix.to_owned(), entry.word(&PREFIX_PLACEMENTS)?));
    }
    list.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    Ok(list)
}

#[cfg(test)]
mod tests;
