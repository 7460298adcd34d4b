//! A pod with two peers on the host: the one of the harness, and a second one (`OTHER`) with
//! addresses of its own. Lists of subnets name the second one and never a whole network, so that
//! source and destination cannot be mixed up unseen; and they name the pod's own addresses, which
//! must not count.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Call, Lab, Ns, Pod, Snapshot};

/// The second peer and the pod's address beside it, IPv4 and IPv6.
pub const OTHER: [(&str, &str); 2] =
    [("198.51.100.1", "198.51.100.2"), ("2001:db8:5::1", "2001:db8:5::2")];

/// The places where subnets can be told apart: the configuration, the hooks of the interface.
pub const PLACES: [Place; 2] = [Place::Host, Place::Pod];

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// The host interface.
    Host,
    /// The container interface.
    Pod,
}

impl Place {
    /// The namespace of the hooks.
    pub fn ns(self, pod: &Pod) -> &Ns {
        if self == Self::Pod { &pod.ns } else { &pod.host }
    }

    /// The interface of the hooks.
    pub fn dev(self, pod: &Pod) -> &str {
        if self == Self::Pod { &pod.eth0.name } else { &pod.eth0.host }
    }

    /// The IFB for a direction: `pbi` to the pod, `pbe` from it.
    pub fn ifb(self, pod: &Pod, prefix: &str) -> String {
        let all = self.ns(pod).ifbs();
        all.into_iter().find(|name| name.starts_with(prefix)).expect("an IFB for each direction")
    }

    /// ADD with limits of 10 Mbit/s each way.
    pub fn add(self, pod: &Pod) -> Call {
        let placement = if self == Self::Pod { "pod" } else { "host" };
        Call::add(pod).key("placement", json!(placement)).limits("10M", "10M")
    }
}

/// A pod with both peers.
pub fn pod_in(lab: &Lab) -> Pod {
    let pod = lab.pod("veth0");
    for ((other, own), length) in OTHER.iter().zip([24, 64]) {
        for (ns, dev, address) in [(&pod.host, "veth0", other), (&pod.ns, "eth0", own)] {
            let address = format!("{address}/{length}");
            let mut words = vec!["ip", "addr", "add", &address, "dev", dev];
            if length == 64 {
                words.push("nodad");
            }
            ns.run(&words);
        }
    }
    pod
}

/// The second peer, and the addresses of the pod itself, which are no traffic with anybody.
pub fn list(pod: &Pod) -> Value {
    let [(four, own_four), (six, own_six)] = OTHER;
    let eth0 = &pod.eth0;
    json!([
        format!("{four}/32"),
        format!("{six}/128"),
        format!("{own_four}/32"),
        format!("{own_six}/128"),
        format!("{}/32", eth0.pod_v4),
        format!("{}/128", eth0.pod_v6),
    ])
}

/// All that both ends have.
pub fn state(pod: &Pod) -> Snapshot {
    Snapshot::of(&[&pod.host, &pod.ns])
}

/// The filters of a hook, without how they were asked for.
pub fn filters(pod: &Pod, place: Place, hook: &str) -> BTreeSet<String> {
    let shown = place.ns(pod).filters(place.dev(pod), hook);
    shown.into_iter().map(|filter| format!("{} {}", filter.pref, filter.raw["options"])).collect()
}
