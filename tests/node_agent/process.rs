//! Processes in the node: found, watched and ended by their numbers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::shipped;
use crate::kube::Cluster;

/// The node program as it is shipped, where scripts/package has made it: what it takes is measured.
static PROGRAM: LazyLock<PathBuf> =
    LazyLock::new(|| shipped(Path::new(env!("CARGO_BIN_EXE_pod-bandwidth-node"))));

/// Where the node's programs keep what they must not lose.
const CONFLISTS: &str = "/run/node/cni";

/// An agent that runs. It is killed when this is dropped.
pub struct Agent<'a> {
    cluster: &'a Cluster,
    /// nsenter, which waits for the agent and ends with it.
    outer: Child,
    pid: Pid,
    log: PathBuf,
}

impl<'a> Agent<'a> {
    /// Starts it for node1, and waits until it is ready.
    pub fn start(cluster: &'a Cluster, name: &str) -> Self {
        let agent = Self::spawn(cluster, name, "node1", &["--net-dir", CONFLISTS]);
        cluster.wait("the agent to be ready", || agent.said("pods are known").then_some(()));
        agent
    }

    /// Starts it with these options. `name` is that of its log.
    pub fn spawn(cluster: &'a Cluster, name: &str, node: &str, options: &[&str]) -> Self {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("agent-{name}.log"));
        let file = File::create(&log).expect("cargo's folder can be written");
        let words = [&[program(), "agent", "--node-name", node], options].concat();
        let outer = cluster
            .enter(&words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("scripts/cluster starts");
        let pid = cluster.wait("the agent's process", || child_of(outer.id()));
        Self { cluster, outer, pid, log }
    }

    /// Whether it has said so.
    pub fn said(&self, text: &str) -> bool {
        self.count(text) > 0
    }

    /// How many lines of its log have these words.
    pub fn count(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("it was made")
    }

    /// Ends it by a signal, and waits for its end. Its exit status, where it had one.
    pub fn end(mut self, signal: Signal) -> Option<i32> {
        kill(self.pid, signal).expect("it runs");
        self.outer.wait().expect("a child").code()
    }

    /// Processor time that it has taken so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // utime and stime of proc(5), in ticks of which Linux has 100 a second for programs.
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// The most memory that it has had, in MB.
    pub fn peak_memory_mb(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1000.0
    }

    /// Waits for words in its log.
    pub fn wait_for(&self, text: &str) {
        self.cluster.wait(&format!("{text:?} in {}", self.log()), || self.said(text).then_some(()));
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = self.outer.wait();
        if std::thread::panicking() {
            eprintln!("the agent said:\n{}", self.log());
        }
    }
}

fn program() -> &'static str {
    PROGRAM.to_str().expect("a path in UTF-8")
}

/// nsenter enters a namespace of processes by a child.
fn child_of(parent: u32) -> Option<Pid> {
    let children =
        std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let pid = Pid::from_raw(children.split_whitespace().next()?.parse().ok()?);
    // Not before it has become the agent: a signal would meet bash.
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    (program == *PROGRAM).then_some(pid)
}

/// What a command of the node program prints in the node, where it succeeds.
pub fn stdout_of(cluster: &Cluster, words: &[&str]) -> String {
    let output = cluster.enter(&[&[program()], words].concat()).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{words:?}: {}{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// The API server of the node, to be killed and started again.
pub struct ApiServer<'a> {
    cluster: &'a Cluster,
    words: Vec<String>,
}

impl<'a> ApiServer<'a> {
    /// Kills it, and waits until it answers nobody.
    pub fn kill(cluster: &'a Cluster) -> Self {
        let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let node = network(&cluster.lab.pid.to_string());
        let all = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
        let mut found = all.filter_map(|entry| {
            let pid = entry.file_name().into_string().ok()?;
            let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let words: Vec<_> = line.split('\0').map(str::to_owned).collect();
            let is_it = words.get(1).is_some_and(|word| word == "kube-apiserver");
            (is_it && network(&pid) == node).then(|| (pid.parse().unwrap(), words))
        });
        let (pid, mut words) = found.next().expect("an API server runs in the node");
        words.pop();
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
        let gone = || cluster.call("GET", "/readyz", None).is_err().then_some(());
        cluster.wait("the end of the API server", gone);
        Self { cluster, words }
    }

    /// Starts it again as it was, and waits until it is ready.
    pub fn start(self) -> Duration {
        let start = Instant::now();
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let mut command: Command = self.cluster.enter(&[&["setsid", "-f"], &words[..]].concat());
        let log = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("api-server.log"));
        let log = log.expect("cargo's folder can be written");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        assert!(command.status().expect("it starts").success());
        let ready = || self.cluster.call("GET", "/api/v1/nodes/node1", None).ok();
        self.cluster.wait("the API server", ready);
        start.elapsed()
    }
}
