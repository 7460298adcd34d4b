//! A node that `doctor` looks at: a lab, the runtime's folders, and pods that the runtime knows.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that cannot go on fails the test"
)]

use std::os::unix::fs::symlink;
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::{Call, Lab, PLUGIN, Pod, TempDir, Way};

pub const NODE: &str = env!("CARGO_BIN_EXE_pod-bandwidth-node");

/// The network's name in the list, in calls and in the cache.
const NETWORK: &str = "net";

/// The runtime's list of a node that is as it should be.
pub fn list(entry: &Value) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": NETWORK,
        "plugins": [{"type": "ptp"}, entry],
    })
}

/// Our entry as `install` writes it.
pub fn entry() -> Value {
    json!({
        "type": "pod-bandwidth",
        "capabilities": {"bandwidth": true, "io.kubernetes.cri.pod-annotations": true},
    })
}

/// The node.
pub struct Node {
    pub lab: Lab,
    pub folder: TempDir,
}

/// What `doctor` said.
#[derive(Debug)]
pub struct Examined {
    pub status: Option<i32>,
    pub json: Value,
}

impl Node {
    /// A sound one, without pods.
    pub fn open() -> Option<Self> {
        let node = Self { lab: Lab::open()?, folder: TempDir::new() };
        for name in ["net.d", "bin", "netns", "cache"] {
            std::fs::create_dir(node.folder.file(name)).unwrap();
        }
        symlink(PLUGIN, node.folder.file("bin/pod-bandwidth")).unwrap();
        node.write("10-net.conflist", &list(&entry()));
        Some(node)
    }

    /// Writes a file of the runtime's folder of lists.
    pub fn write(&self, name: &str, list: &Value) {
        std::fs::write(self.folder.file(&format!("net.d/{name}")), list.to_string()).unwrap();
    }

    /// A pod that the runtime made: with limits, by a real ADD, in its cache and its folder of namespaces.
    pub fn pod(&self, name: &str, way: Way, limits: (&str, &str)) -> Pod {
        let pod = self.lab.pod(&format!("veth-{name}"));
        self.adopt(&pod, name, way, limits);
        pod
    }

    /// The same for a pod that is there.
    pub fn adopt(&self, pod: &Pod, name: &str, way: Way, limits: (&str, &str)) {
        add(pod, name, way, limits).ok();
        symlink(pod.ns.path(), self.folder.file(&format!("netns/{name}"))).unwrap();
        let mut annotations = json!({});
        for (direction, value) in [("ingress", limits.0), ("egress", limits.1)] {
            if !value.is_empty() {
                annotations[format!("kubernetes.io/{direction}-bandwidth")] = json!(value);
            }
        }
        let cached = json!({
            "kind": "cniCacheV1",
            "containerId": container(name),
            "ifName": "eth0",
            "networkName": NETWORK,
            "config": STANDARD.encode(list(&entry()).to_string()),
            "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", name]],
            "capabilityArgs": {"io.kubernetes.cri.pod-annotations": annotations},
            "result": pod.result(&pod.eth0, "1.0.0"),
        });
        std::fs::write(self.folder.file(&format!("cache/{name}")), cached.to_string()).unwrap();
    }

    /// The runtime's files of a pod are gone, and its veth with it.
    pub fn forget(&self, pod: &Pod, name: &str) {
        self.lab.sh(&format!("ip link del {}", pod.eth0.host));
        for folder in ["netns", "cache"] {
            std::fs::remove_file(self.folder.file(&format!("{folder}/{name}"))).unwrap();
        }
    }

    fn words(&self) -> Vec<String> {
        let mut words = vec![NODE.to_owned(), "doctor".to_owned()];
        for (option, name) in [
            ("--net-dir", "net.d"),
            ("--bin-dir", "bin"),
            ("--netns-dir", "netns"),
            ("--cache", "cache"),
        ] {
            words.extend([option.to_owned(), self.folder.file(name)]);
        }
        words
    }

    /// Runs `doctor` with more words; its exit status and what it printed.
    pub fn doctor(&self, more: &[&str]) -> (Option<i32>, String) {
        let words = self.words();
        let words: Vec<&str> =
            words.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let output = self.lab.attempt(&words);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.is_empty(), "doctor says nothing on standard error: {stderr}");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// Runs `doctor -o json`, whose form is the same whatever is found.
    pub fn examine(&self) -> Examined {
        let (status, text) = self.doctor(&["-o", "json"]);
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let examined = Examined { status, json };
        examined.assert_form();
        examined
    }

    /// Runs `doctor -o json` with none of root's capabilities.
    pub fn without_privilege(&self) -> Output {
        let words = self.words();
        let before = ["setpriv", "--bounding-set", "-all", "--"];
        let words = before.into_iter().chain(words.iter().map(String::as_str));
        self.lab.attempt(&words.chain(["-o", "json"]).collect::<Vec<_>>())
    }

    /// Runs the command of a finding as a person would paste it.
    pub fn run(&self, finding: &Value) {
        let command = finding["command"].as_str().unwrap_or_else(|| panic!("{finding:#}"));
        let mut words: Vec<&str> = command.split(' ').collect();
        if words[0] == "pod-bandwidth" {
            words[0] = PLUGIN;
        }
        self.lab.run(&words);
    }
}

impl Examined {
    /// What scripts rely on.
    fn assert_form(&self) {
        let severities = ["ok", "note", "warning", "problem"];
        let rank = |word: &Value| severities.iter().position(|severity| word == severity).unwrap();
        assert_eq!(self.json["version"], 1);
        let findings = self.json["findings"].as_array().unwrap();
        for finding in findings {
            let keys: Vec<_> = finding.as_object().unwrap().keys().map(String::as_str).collect();
            let wanted = ["command", "id", "remedy", "seen", "severity", "subject", "why"];
            assert_eq!(keys, wanted, "{finding:#}");
            let is_text = |key: &str| finding[key].as_str().is_some_and(|text| !text.is_empty());
            assert!(is_text("id") && is_text("seen") && is_text("subject"), "{finding:#}");
            // Who is told that something is wrong is told why, and what helps.
            assert!(
                rank(&finding["severity"]) < 2 || (is_text("why") && is_text("remedy")),
                "{finding:#}"
            );
        }
        let worst = findings.iter().map(|finding| rank(&finding["severity"])).max().unwrap();
        assert_eq!(rank(&self.json["worst"]), worst);
        assert_eq!(self.status, Some([0, 0, 3, 1][worst]), "{:#}", self.json);
    }

    /// Findings that are worse than a note, as `id severity`.
    pub fn wrong(&self) -> Vec<String> {
        let findings = self.json["findings"].as_array().unwrap().iter();
        let is_wrong =
            |finding: &&Value| finding["severity"] == "warning" || finding["severity"] == "problem";
        let name = |finding: &Value| {
            let word = |key: &str| finding[key].as_str().unwrap();
            format!("{} {}", word("id"), word("severity"))
        };
        let mut wrong: Vec<_> = findings.filter(is_wrong).map(name).collect();
        wrong.sort();
        wrong
    }

    /// The one finding with this id.
    pub fn one(&self, id: &str) -> &Value {
        let findings = self.json["findings"].as_array().unwrap().iter();
        let found: Vec<_> = findings.filter(|finding| finding["id"] == id).collect();
        assert_eq!(found.len(), 1, "{id} in {:#}", self.json);
        found[0]
    }

    /// The first finding with this id.
    pub fn first(&self, id: &str) -> &Value {
        let mut findings = self.json["findings"].as_array().unwrap().iter();
        let found = findings.find(|finding| finding["id"] == id);
        found.unwrap_or_else(|| panic!("{id} in {:#}", self.json))
    }

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.wrong().is_empty() && self.status == Some(0)
    }
}

/// The ADD of a pod of this node; also what the node agent would do again.
pub fn add(pod: &Pod, name: &str, way: Way, limits: (&str, &str)) -> Call {
    let pod_of = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}");
    let call = Call::add(pod).container(&container(name)).env("CNI_ARGS", &pod_of);
    call.way(way).limits(limits.0, limits.1)
}

pub fn container(name: &str) -> String {
    format!("id-of-{name}")
}
