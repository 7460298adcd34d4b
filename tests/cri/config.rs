//! What containerd and CNI are told: two generations of containerd, and one handler for each list
//! of plugins.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{Way, peer, require_peer, skip};

/// Root of all files of the node, on its own tmpfs.
pub const ROOT: &str = "/run/node";
/// The only image: the pause container and the workload.
pub const IMAGE: &str = "localhost/busybox:test";

/// A generation of containerd, and where its programs are.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Major version: 1 or 2.
    pub generation: u8,
    /// Folder of `containerd`, `ctr` and the shim, first on the PATH of all three.
    pub folder: PathBuf,
    /// Newest cniVersion that it speaks.
    pub cni_version: &'static str,
}

/// A runtime handler (in Kubernetes: what a RuntimeClass names) with a list of plugins of its own.
struct Handler {
    name: &'static str,
    /// Capabilities of our entry: which of containerd's two channels it asks for.
    capabilities: Value,
    way: Option<Way>,
}

impl Runtime {
    /// containerd as the machine has it: 1.6 from Debian 12, 2 from Docker's packages. Skips the
    /// test where it is missing.
    pub fn packaged() -> Option<Self> {
        Self::at(require_peer("containerd")?)
    }

    /// containerd 2 as nodes of today have it, in a folder beside the CNI programs.
    pub fn second() -> Option<Self> {
        let program = peer("containerd-2/containerd");
        if program.is_none() {
            skip("containerd 2 is not built (scripts/test --all builds it)");
        }
        Self::at(program?)
    }

    fn at(program: PathBuf) -> Option<Self> {
        require_peer("runc")?;
        let output = Command::new(&program).arg("--version").output().expect("it starts");
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        // "containerd github.com/containerd/containerd/v2 v2.4.2 ...", Debian without the "v"
        let number = version.split_whitespace().nth(2).unwrap_or_default().trim_start_matches('v');
        let (generation, cni_version) = match number.split('.').next() {
            Some("1") => (1, "1.0.0"),
            Some("2") => (2, "1.1.0"),
            _ => panic!("{} says {version:?}: neither 1 nor 2", program.display()),
        };
        Some(Self { generation, folder: program.parent()?.to_owned(), cni_version })
    }

    /// containerd's configuration file.
    pub fn config(&self) -> String {
        let (runtime, cni, image) = match self.generation {
            1 => (
                "io.containerd.grpc.v1.cri",
                format!("bin_dir = \"{ROOT}/bin\""),
                format!("[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{IMAGE}\"\n"),
            ),
            _ => (
                "io.containerd.cri.v1.runtime",
                format!("bin_dirs = [\"{ROOT}/bin\"]"),
                format!(
                    "[plugins.\"io.containerd.cri.v1.runtime\"]\n@\n\
                     [plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{IMAGE}\"\n"
                ),
            ),
        };
        // No AppArmor profile and no raised score: neither is needed, and both touch the host.
        let quiet = "disable_apparmor = true\nrestrict_oom_score_adj = true\n";
        let image = if self.generation == 1 {
            format!("{image}{quiet}")
        } else {
            image.replace('@', quiet)
        };
        let version = if self.generation == 1 { 2 } else { 3 };
        let handlers: String = handlers()
            .iter()
            .map(|handler| {
                let at = format!("plugins.\"{runtime}\".containerd.runtimes.{}", handler.name);
                format!(
                    "[{at}]\nruntime_type = \"io.containerd.runc.v2\"\n\
                 cni_conf_dir = \"{ROOT}/net.d/{}\"\n[{at}.options]\nSystemdCgroup = false\n",
                    handler.name
                )
            })
            .collect();
        format!(
            "version = {version}\nroot = \"{ROOT}/root\"\nstate = \"{ROOT}/state\"\n\
             [grpc]\naddress = \"{ROOT}/containerd.sock\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{ROOT}/opt\"\n\
             {image}\
             [plugins.\"{runtime}\".cni]\n{cni}\nconf_dir = \"{ROOT}/net.d/runc\"\n\
             {handlers}"
        )
    }

    /// The lists of plugins: a folder's name, and the list in it.
    pub fn lists(&self) -> Vec<(&'static str, Value)> {
        handlers().iter().map(|handler| (handler.name, self.list(handler))).collect()
    }

    /// ptp, and then this plugin.
    fn list(&self, handler: &Handler) -> Value {
        let mut ours = json!({
            "type": "pod-bandwidth",
            "capabilities": handler.capabilities,
            "log": {"file": format!("{ROOT}/plugin.log"), "level": "debug"},
        });
        for (key, value) in handler.way.map(Way::keys).unwrap_or_default() {
            ours[key] = json!(value);
        }
        let ptp = json!({
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "subnet": "10.88.0.0/16",
                "routes": [{"dst": "0.0.0.0/0"}],
                // One for all lists, so that no address is given out twice.
                "dataDir": format!("{ROOT}/ipam"),
            },
        });
        json!({
            "cniVersion": self.cni_version,
            "name": "podnet",
            "plugins": [ptp, ours],
        })
    }
}

fn handlers() -> [Handler; 5] {
    let both = json!({"bandwidth": true, "io.kubernetes.cri.pod-annotations": true});
    let handler = |name, way| Handler { name, capabilities: both.clone(), way };
    [
        // The default handler's name in containerd. No placement is asked for: "auto".
        handler("runc", None),
        handler("hooks", Some(Way::Hooks)),
        handler("pod", Some(Way::Pod)),
        Handler { name: "bandwidth", capabilities: json!({"bandwidth": true}), way: None },
        Handler {
            name: "annotations",
            capabilities: json!({"io.kubernetes.cri.pod-annotations": true}),
            way: None,
        },
    ]
}

/// The CNI programs that the lists name, and where they are; `None` skips the test.
pub fn plugins() -> Option<Vec<(&'static str, PathBuf)>> {
    ["loopback", "ptp", "host-local"]
        .into_iter()
        .map(|name| Some((name, require_peer(name)?)))
        .collect()
}
