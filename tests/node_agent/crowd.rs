//! Many pods that no kubelet runs: real objects at the API server for a node that there is not, with a
//! network namespace, a veth and an entry in a runtime's cache each. They are to the agent what pods
//! are that ran before the plugin was installed.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::kube::Cluster;

const FOLDER: &str = "/run/node/crowd";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Such pods. They go when this is dropped.
pub struct Crowd<'a> {
    cluster: &'a Cluster,
    count: usize,
}

impl<'a> Crowd<'a> {
    /// The node that they are on.
    pub const NODE: &'static str = "nowhere";

    /// Makes them, all with the same annotations.
    pub fn new(cluster: &'a Cluster, count: usize, annotations: &[(&str, &str)]) -> Self {
        let crowd = Self { cluster, count };
        for folder in [crowd.path("cache"), crowd.path("net")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let list = json!({"name": "crowd", "cniVersion": "1.0.0", "plugins": [
            {"type": "ptp"},
            {"type": "pod-bandwidth", "capabilities": {"io.kubernetes.cri.pod-annotations": true}},
        ]});
        std::fs::write(crowd.path("net/10-crowd.conflist"), list.to_string()).unwrap();
        let lines: String = (0..count)
            .map(|n| {
                format!(
                    "ip netns add crowd-{n}\n\
                     ip link add crowd{n} type veth peer name eth0 netns crowd-{n}\n\
                     ip link set crowd{n} up\nip -n crowd-{n} link set eth0 up\n"
                )
            })
            .collect();
        // Of the node's own processes: `ip netns` asks /proc for itself.
        let made = cluster.enter(&["sh", "-ec", &lines]).status().expect("it starts");
        assert!(made.success(), "namespaces for {count} pods: {made}");
        for n in 0..count {
            let uid = crowd.create(n, annotations);
            let entry = crowd.entry(n, &uid).to_string();
            std::fs::write(crowd.path(&format!("cache/crowd-c{n}-eth0")), entry).unwrap();
        }
        crowd
    }

    fn create(&self, n: usize, annotations: &[(&str, &str)]) -> String {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("crowd-{n}"), "annotations": annotations},
            "spec": {
                "nodeName": Self::NODE,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "none"}],
            },
        });
        let made = self.cluster.api("POST", PODS, Some(&pod));
        made["metadata"]["uid"].as_str().expect("it has one").to_owned()
    }

    /// As libcni writes it, of a list without this plugin: the base64 is that of {"plugins":[]}.
    fn entry(&self, n: usize, uid: &str) -> Value {
        json!({
            "kind": "cniCacheV1",
            "containerId": format!("c{n}"),
            "ifName": "eth0",
            "networkName": "crowd",
            "config": "eyJwbHVnaW5zIjpbXX0=",
            "netns": format!("/var/run/netns/crowd-{n}"),
            "cniArgs": [
                ["IgnoreUnknown", "1"],
                ["K8S_POD_NAMESPACE", "default"],
                ["K8S_POD_NAME", format!("crowd-{n}")],
                ["K8S_POD_UID", uid],
            ],
            "capabilityArgs": {},
            "result": {"cniVersion": "1.0.0", "interfaces": [
                {"name": "eth0", "sandbox": format!("/var/run/netns/crowd-{n}")},
            ]},
        })
    }

    /// Takes one out of the runtime's cache.
    pub fn forget(&self, n: usize) {
        std::fs::remove_file(self.path(&format!("cache/crowd-c{n}-eth0"))).unwrap();
    }

    /// The agent's options for them.
    pub fn options() -> [&'static str; 6] {
        let (cache, net) = ("/run/node/crowd/cache", "/run/node/crowd/net");
        ["--cache-dir", cache, "--net-dir", net, "--listen", "127.0.0.1:9465"]
    }

    /// A file of theirs as this process sees it.
    fn path(&self, name: &str) -> PathBuf {
        self.cluster.path(&format!("{FOLDER}/{name}"))
    }

    /// The host interfaces that have a limit.
    pub fn limited(&self) -> usize {
        let qdiscs = crate::common::items(self.cluster.lab.json(&["tc", "-j", "qdisc", "show"]));
        let on = |dev: &str| dev.starts_with("crowd");
        let tbf = |qdisc: &&Value| qdisc["kind"] == "tbf" && qdisc["dev"].as_str().is_some_and(on);
        qdiscs.iter().filter(tbf).count()
    }

    /// Takes them away: first what the runtime would remove, then the objects.
    pub fn remove(self) {
        drop(self);
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        let lines: String =
            (0..self.count).map(|n| format!("ip netns del crowd-{n} || true\n")).collect();
        let _ = self.cluster.enter(&["sh", "-c", &lines]).status();
        let _ = std::fs::remove_dir_all(self.cluster.path(FOLDER));
        let _ = self.cluster.call("DELETE", PODS, None);
    }
}
