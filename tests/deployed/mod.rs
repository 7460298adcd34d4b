//! What `conf/kustomize` makes of a node: its objects, the pod of its DaemonSet, the node's list.
#![allow(unreachable_pub, reason = "for the tests of the parent")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that cannot go on fails the test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::kube::{ADDRESS, Cluster};

/// Each file, and where its object is made. The order is that of kustomization.yaml.
pub const MANIFESTS: [(&str, &str); 4] = [
    ("service-account.yaml", "/api/v1/namespaces/kube-system/serviceaccounts"),
    ("cluster-role.yaml", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
    ("cluster-role-binding.yaml", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"),
    ("daemon-set.yaml", DAEMON_SETS),
];

const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets";

const PODS: &str = "/api/v1/namespaces/kube-system/pods";

/// A file of `conf/kustomize`.
pub fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/kustomize").join(name)
}

/// The image of the static programs, made by scripts/image; `None` where those are missing.
pub fn image() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    for name in ["pod-bandwidth", "pod-bandwidth-node"] {
        if !root.join(format!("dist/{name}-linux-{arch}")).is_file() {
            return None;
        }
    }
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image.tar");
    let script = root.join("scripts/image");
    let made = Command::new(script).args(["--arch", arch, "--out"]).arg(&out).status().unwrap();
    assert!(made.success(), "scripts/image: {made}");
    Some(out)
}

/// The node's list, which its containerd reads.
pub struct Entries {
    path: PathBuf,
    without: String,
}

impl Entries {
    /// Takes ours out of the list of scripts/cluster, and its program away: a node where nothing is
    /// installed.
    pub fn without_ours(cluster: &Cluster) -> Self {
        let (net, bin) = (cluster.path("/run/node/cni"), cluster.path("/run/node/bin"));
        let output = Command::new(env!("CARGO_BIN_EXE_pod-bandwidth-node"))
            .args(["uninstall", "--program", "--net-dir"])
            .arg(&net)
            .arg("--bin-dir")
            .arg(&bin)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = net.join("10-node.conflist");
        let without = fs::read_to_string(&path).unwrap();
        let entries = Self { path, without };
        assert!(!entries.has_ours() && !bin.join("pod-bandwidth").exists());
        entries
    }

    pub fn has_ours(&self) -> bool {
        let list: Value =
            serde_json::from_slice(&fs::read(&self.path).unwrap()).unwrap_or_default();
        let plugins = list["plugins"].as_array();
        plugins.and_then(|list| list.last()).is_some_and(|last| last["type"] == "pod-bandwidth")
    }

    /// As Calico's installer does when it starts again: the whole file, in place.
    pub fn write_without_ours(&self) {
        fs::write(&self.path, &self.without).unwrap();
    }
}

impl Cluster {
    /// The image, into the node's containerd.
    pub fn import(&self, image: &Path) {
        let ctr = crate::common::peer("containerd-2/ctr").unwrap();
        let words = ["--address", "/run/node/containerd.sock", "--namespace", "k8s.io", "images"];
        let mut command = self.enter(&[ctr.to_str().unwrap()]);
        let output = command.args(words).arg("import").arg(image).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A pod as the DaemonSet's controller would make it, which this node does not have.
pub struct DaemonPod<'a> {
    cluster: &'a Cluster,
    path: String,
}

impl<'a> DaemonPod<'a> {
    pub fn create(cluster: &'a Cluster) -> Self {
        let set = cluster.api("GET", &format!("{DAEMON_SETS}/pod-bandwidth"), None);
        let mut pod = set["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!("pod-bandwidth-node1");
        pod["spec"]["nodeName"] = json!("node1");
        on_this_node(&mut pod["spec"]);
        with_token(cluster, &mut pod["spec"]);
        cluster.api("POST", PODS, Some(&pod));
        Self { cluster, path: format!("{PODS}/pod-bandwidth-node1") }
    }

    pub fn is_ready(&self) -> bool {
        let pod = self.cluster.api("GET", &self.path, None);
        let conditions = pod["status"]["conditions"].as_array();
        let is_ready = |at: &Value| at["type"] == "Ready" && at["status"] == "True";
        conditions.into_iter().flatten().any(is_ready)
    }

    /// What the kernel says of its two processes.
    pub fn assert_confined(&self) {
        // CAP_NET_ADMIN is 12, CAP_SYS_ADMIN is 21.
        let agent = format!("{:016x}", (1_u64 << 12) | (1 << 21));
        for (word, capabilities) in [("install", "0000000000000000"), ("agent", agent.as_str())] {
            let status = self.status_of(word);
            let value = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                line.unwrap_or_default().trim().to_owned()
            };
            for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
                assert_eq!(value(set), capabilities, "{word}: {set}");
            }
            assert_eq!(value("NoNewPrivs:"), "1", "{word}");
            assert_eq!(value("Seccomp:"), "2", "{word}: a filter");
        }
    }

    /// /proc/PID/status of the process of the node program with this command.
    fn status_of(&self, word: &str) -> String {
        let script = r#"for at in /proc/[0-9]*; do
            words=$(tr '\0' ' ' <"$at/cmdline" 2>/dev/null) || continue
            case "$words" in */pod-bandwidth-node\ "$0"\ *) cat "$at/status"; exit;; esac
        done; exit 1"#;
        let output = self.cluster.enter(&["sh", "-c", script, word]).output().unwrap();
        assert!(output.status.success(), "no process pod-bandwidth-node {word}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Deletes it, and waits for its end.
    pub fn delete(self) {
        self.cluster.api("DELETE", &self.path, None);
        self.cluster.wait("the end of the pod", || {
            self.cluster.call("GET", &self.path, None).is_err().then_some(())
        });
    }
}

/// The folders of this node's containerd; /opt and /etc are the machine's own.
fn on_this_node(spec: &mut Value) {
    for volume in spec["volumes"].as_array_mut().unwrap() {
        let path = match volume["name"].as_str().unwrap() {
            "cni-bin" => "/run/node/bin",
            "cni-net" => "/run/node/cni",
            _ => continue,
        };
        volume["hostPath"]["path"] = json!(path);
    }
}

/// What the admission plugin ServiceAccount gives a pod, which scripts/cluster leaves out, because
/// nobody makes the ConfigMap there. And an address that is reached without kube-proxy.
fn with_token(cluster: &Cluster, spec: &mut Value) {
    let certificate = fs::read_to_string(cluster.folder().join("ca.crt")).unwrap();
    let roots = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"},
        "data": {"ca.crt": certificate},
    });
    cluster.api("POST", "/api/v1/namespaces/kube-system/configmaps", Some(&roots));
    let field = json!({"fieldRef": {"fieldPath": "metadata.namespace"}, "path": "namespace"});
    spec["volumes"].as_array_mut().unwrap().push(json!({"name": "token", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [field]}},
    ]}}));
    let mount = "/var/run/secrets/kubernetes.io/serviceaccount";
    for container in spec["containers"].as_array_mut().unwrap() {
        let mounts = container["volumeMounts"].as_array_mut().unwrap();
        mounts.push(json!({"name": "token", "mountPath": mount, "readOnly": true}));
        if let Some(env) = container["env"].as_array_mut() {
            env.push(json!({"name": "KUBERNETES_SERVICE_HOST", "value": ADDRESS}));
            env.push(json!({"name": "KUBERNETES_SERVICE_PORT", "value": "6443"}));
        }
    }
}
