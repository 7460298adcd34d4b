//! Whole chains, run by cnitool as a runtime runs them: ptp or bridge, and then this plugin.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{Lab, PLUGIN, Pod, Shape, TempDir, Way};
use serde_json::{Value, json};

const M: u64 = 1_000_000;

/// A folder of plugins, a folder with one network list, and cnitool.
struct Chain {
    _folder: TempDir,
    cnitool: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Chain {
    fn new(lab: &Lab, main: &str, version: &str, ours: &Value) -> Option<Self> {
        let cnitool = common::require_peer("cnitool")?;
        let folder = TempDir::new();
        for name in [main, "host-local"] {
            let peer = common::require_peer(name)?;
            std::os::unix::fs::symlink(peer, folder.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink(PLUGIN, folder.path().join("pod-bandwidth")).unwrap();
        let mut plugin = json!({
            "type": main,
            "ipam": {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": folder.file("ipam")},
        });
        if main == "bridge" {
            plugin["bridge"] = json!("cni0");
            plugin["isGateway"] = json!(true);
        }
        let mut entry = json!({
            "type": "pod-bandwidth",
            "capabilities": {"bandwidth": true, "io.kubernetes.cri.pod-annotations": true},
        });
        for (key, value) in ours.as_object().unwrap() {
            entry[key] = value.clone();
        }
        let list = json!({"cniVersion": version, "name": "chained", "plugins": [plugin, entry]});
        std::fs::write(folder.path().join("10-chained.conflist"), list.to_string()).unwrap();
        let capabilities = json!({
            "bandwidth": {"ingressRate": 10 * M, "ingressBurst": 4_294_967_295_u64,
                "egressRate": 0, "egressBurst": 0},
            "io.kubernetes.cri.pod-annotations": {"kubernetes.io/egress-bandwidth": "20M"},
        });
        // cnitool keeps its results below /var/lib/cni: those of this lab stay in this lab.
        lab.private_folder("/var/lib/cni");
        let path = folder.path().to_str().unwrap().to_owned();
        let environment = vec![
            ("CNI_PATH", path.clone()),
            ("NETCONFPATH", path),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CAP_ARGS", capabilities.to_string()),
        ];
        Some(Self { _folder: folder, cnitool, environment })
    }

    fn run(&self, lab: &Lab, verb: &str, pod: &Pod) -> Value {
        let argv = [self.cnitool.to_str().unwrap(), verb, "chained", &pod.ns.path()];
        let output =
            lab.command(&argv).env_clear().envs(self.environment.iter().cloned()).output().unwrap();
        assert!(output.status.success(), "cnitool {verb}: {output:#?}");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }
}

/// The host end of the pair: the veth of the result that is in no sandbox.
fn host_interface(lab: &Lab, result: &Value) -> String {
    let interfaces = result["interfaces"].as_array().unwrap().iter();
    let names = interfaces
        .filter(|interface| interface["sandbox"].as_str().unwrap_or_default().is_empty())
        .map(|interface| interface["name"].as_str().unwrap().to_owned());
    let mut veths = names
        .filter(|name| lab.link(name).is_some_and(|link| link["linkinfo"]["info_kind"] == "veth"));
    veths.next().unwrap_or_else(|| panic!("no host veth in {result}"))
}

#[test]
fn cnitool_runs_chains_through_their_whole_life() {
    for main in ["ptp", "bridge"] {
        for version in ["0.4.0", "1.0.0", "1.1.0"] {
            for way in Way::ALL {
                let Some(lab) = Lab::open() else { return };
                let case = format!("{main}, {version}, {way:?}");
                let ours =
                    way.keys().into_iter().map(|(key, value)| (key.to_owned(), json!(value)));
                let ours = Value::Object(ours.collect());
                let Some(chain) = Chain::new(&lab, main, version, &ours) else { return };
                let mut pod = lab.empty_pod();
                if version == "1.1.0" {
                    chain.run(&lab, "status", &pod);
                }
                for ends_by in ["del", "gc"] {
                    if ends_by == "gc" && version != "1.1.0" {
                        continue;
                    }
                    // when the chain is added, then the pod has both limits and its network
                    let result = chain.run(&lab, "add", &pod);
                    pod.eth0.host = host_interface(&lab, &result);
                    assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{case}");
                    let gateway = result["ips"][0]["gateway"].as_str().unwrap();
                    let pong = pod.ping(gateway, 2, Duration::from_secs(2));
                    assert_eq!(pong.received, 2, "{case}");
                    // and no device of ours was added to the result
                    assert!(!result.to_string().contains("pbe"), "{case}: {result}");

                    chain.run(&lab, "check", &pod);
                    assert_eq!(Shape::of(&pod, way).rates(), (10 * M, 20 * M), "{case}");

                    // cnitool knows no attachment that is still valid: GC ends them all
                    chain.run(&lab, ends_by, &pod);
                    assert!(lab.ifbs().is_empty() && pod.ifbs().is_empty(), "{case}, {ends_by}");
                    assert!(lab.link(&pod.eth0.host).is_none(), "{case}, {ends_by}");
                    chain.run(&lab, "del", &pod);
                }
            }
        }
    }
}
