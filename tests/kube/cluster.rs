//! The node: brought up for a test, taken down after it, and asked in between.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use crate::common::{Lab, Ns, PLUGIN, peer, require_peer, skip};

/// How long anything may take that a kubelet does: a few seconds here, more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The node's address (`scripts/cluster.node`).
pub const ADDRESS: &str = "192.0.2.2";

/// What kubelet sets on a machine that is its own.
const SYSCTLS: [&str; 4] =
    ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];

/// A node that is up. It goes down when this is dropped, and also when the test run is killed:
/// then its standard input closes.
pub struct Cluster {
    /// The node's network, with the host interfaces of its pods.
    pub lab: Lab,
    script: Child,
    folder: PathBuf,
    sysctls: Vec<String>,
    cgroup: String,
    /// One node at a time for each target folder, also of two test runs. Dropped last.
    _turn: Flock<std::fs::File>,
}

/// A call of `scripts/cluster` for the node of `folder`.
fn script(folder: &Path, words: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster");
    let mut command = Command::new(program);
    command.args(words).arg("--dir").arg(folder);
    command
}

fn sysctls() -> Vec<String> {
    let read = |name| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    SYSCTLS.map(read).to_vec()
}

impl Cluster {
    /// Brings a node up, where the machine has what it takes; else the test is skipped.
    pub fn open() -> Option<Self> {
        Self::open_with(&[])
    }

    /// The same with more options of `scripts/cluster up`.
    pub fn open_with(options: &[&str]) -> Option<Self> {
        // Also the place where a role is played.
        let lab = Lab::open()?;
        if lab.user {
            skip("a kubelet needs root: run the tests as root");
            return None;
        }
        for program in ["runc", "busybox", "jq", "curl", "openssl", "loopback", "ptp", "host-local"]
        {
            require_peer(program)?;
        }
        for program in ["etcd", "kubernetes", "containerd-2/containerd"] {
            if peer(program).is_none() {
                skip(&format!("{program} is not there (scripts/peers --all builds it)"));
                return None;
            }
        }
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let turn = std::fs::File::create(base.join("cluster.lock")).expect("a file of cargo's");
        let turn = Flock::lock(turn, FlockArg::LockExclusive).expect("a lock");
        let folder = base.join("cluster");
        // What a run has left that was killed together with all its children.
        let down = script(&folder, &["down"]).status().expect("scripts/cluster starts");
        assert!(down.success(), "scripts/cluster down: {down}, see above");
        let sysctls = sysctls();
        let mut script = script(&folder, &["up", "--hold", "--plugin", PLUGIN])
            .args(options)
            // Ctrl-C is for the test run; the script ends after it, and cleans up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/cluster starts");
        let stdout = BufReader::new(script.stdout.take().expect("piped"));
        let first = stdout.lines().next();
        let ready = matches!(&first, Some(Ok(line)) if line == "node1 is Ready");
        assert!(ready, "no node, see above; scripts/cluster up said {first:?}");
        let read = |name| {
            let text = std::fs::read_to_string(folder.join(name)).expect("up wrote it");
            text.trim().to_owned()
        };
        let pid = read("holder").parse().expect("a process id");
        let lab = Lab::join(Ns { pid, user: false, label: "node1".to_owned() });
        let cgroup = read("cgroup");
        Some(Self { lab, script, folder, sysctls, cgroup, _turn: turn })
    }

    /// Takes the node down, and sees that nothing of it is left.
    pub fn close(mut self) {
        let status = self.end();
        assert!(status.is_some_and(|status| status.success()), "scripts/cluster: {status:?}");
        assert_eq!(sysctls(), self.sysctls, "kubelet set them for itself, not for the machine");
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map_while(Result::ok);
        let mut cgroups = hierarchies.map(|entry| entry.path().join(&self.cgroup));
        assert!(!cgroups.any(|path| path.is_dir()), "a cgroup {} is left", self.cgroup);
        assert!(!Path::new("/sys/fs/cgroup").join(&self.cgroup).is_dir(), "{}", self.cgroup);
        assert!(!self.folder.exists(), "{} is left", self.folder.display());
    }

    fn end(&mut self) -> Option<std::process::ExitStatus> {
        // The end of its standard input is what it waits for.
        drop(self.script.stdin.take()?);
        self.script.wait().ok()
    }

    /// A command in the node's namespaces, its processes included, with KUBECONFIG set.
    pub fn enter(&self, argv: &[&str]) -> Command {
        let mut command = script(&self.folder, &["exec"]);
        command.arg("--").args(argv);
        command
    }

    /// A call of the API: the answer, or what the server or curl did not like.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        self.call_with(method, path, &body.map(Value::to_string).unwrap_or_default())
    }

    /// The same with a body that is text: YAML or JSON.
    pub fn call_with(&self, method: &str, path: &str, body: &str) -> Result<Value, String> {
        let mut child = script(&self.folder, &["api", method, path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("scripts/cluster starts");
        let mut stdin = child.stdin.take().expect("piped");
        // A call that reads nothing may have ended.
        let _ = stdin.write_all(body.as_bytes());
        drop(stdin);
        let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !status.success() {
            return Err(format!("{method} {path}: {}{}", text(&stderr), text(&stdout)));
        }
        serde_json::from_slice(&stdout).map_err(|error| format!("{method} {path}: {error}"))
    }

    /// A call that must succeed.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.call(method, path, body).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Where `scripts/cluster` keeps the node's certificate, token and logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of the node as this process sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.lab.pid))
    }

    /// The log of all calls of the plugin.
    pub fn calls(&self) -> String {
        std::fs::read_to_string(self.path("/run/node/plugin.log")).unwrap_or_default()
    }

    /// Asks until there is an answer, at most as long as [`PATIENCE`].
    pub fn wait<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let patience = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(Instant::now() < patience, "{what}: not there{}", self.last_words());
            // Gives the processor to those who are waited for.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Every pod is gone: no interface, no qdisc, no namespace, no cgroup, nothing of the plugin.
    pub fn wait_until_nothing_is_left(&self) {
        let mut left = Vec::new();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            left = self.left();
            if left.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("left: {left:?}{}", self.last_words());
    }

    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        for link in self.lab.links() {
            let name = link["ifname"].as_str().unwrap().to_owned();
            // Some kernels give every namespace devices of their own (sit0, ip6tnl0, …).
            if ["veth", "pbi", "pbe", "ifb"].iter().any(|kind| name.starts_with(kind)) {
                left.push(name);
            }
        }
        for qdisc in crate::common::items(self.lab.json(&["tc", "-j", "qdisc", "show"])) {
            if ["tbf", "clsact", "ingress"].iter().any(|kind| qdisc["kind"] == *kind) {
                left.push(qdisc.to_string());
            }
        }
        let namespaces = std::fs::read_dir(self.path("/run/netns")).expect("up made it");
        left.extend(namespaces.map_while(Result::ok).map(|entry| format!("{:?}", entry.path())));
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map_while(Result::ok);
        let ours = hierarchies.map(|entry| entry.path().join(&self.cgroup));
        for folder in ours.chain([Path::new("/sys/fs/cgroup").join(&self.cgroup)]) {
            // containerd's, one for each of its containers.
            let folder = folder.join("k8s.io");
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            let folders = entries.map_while(Result::ok).filter(|entry| entry.path().is_dir());
            left.extend(folders.map(|entry| format!("{:?}", entry.path())));
        }
        left
    }

    /// For a failure: the pods, the events, and the ends of the logs that say something of them.
    pub fn last_words(&self) -> String {
        let items = |what: &str| {
            let answer = self.call("GET", &format!("/api/v1/namespaces/default/{what}"), None);
            let list = answer.unwrap_or_else(|error| json!({"items": [error]}));
            crate::common::items(list["items"].clone())
        };
        let mut words: Vec<String> = Vec::new();
        for pod in items("pods") {
            let status = &pod["status"];
            let containers = &status["containerStatuses"];
            words
                .push(format!("pod {}: {} {containers}", pod["metadata"]["name"], status["phase"]));
        }
        for event in items("events").iter().filter(|event| event["type"] != "Normal") {
            let about = &event["involvedObject"]["name"];
            words.push(format!("event of {about}: {} {}", event["reason"], event["message"]));
        }
        for log in ["kubelet", "containerd", "kube-apiserver"] {
            let text = std::fs::read_to_string(self.folder.join("logs").join(log));
            let text = text.unwrap_or_default();
            let error = |line: &&str| line.starts_with('E') || line.contains("level=error");
            // Of every kubelet that has no disk of its own, again and again.
            let noise = ["cri_stats_provider.go", "eviction_manager.go"];
            let said = |line: &&str| error(line) && !noise.iter().any(|word| line.contains(word));
            let lines: Vec<_> = text.lines().filter(said).collect();
            let from = lines.len().saturating_sub(10);
            words.extend(lines[from..].iter().map(|line| format!("{log}: {line}")));
        }
        let short = |line: String| line.chars().take(500).collect::<String>();
        words.into_iter().map(|line| format!("\n{}", short(line))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}
