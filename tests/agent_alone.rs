//! The node agent beside a stand-in for the API server that knows one pod and no change of it: what it
//! does about the kernel's own news. tests/agent.rs has a real one.
#![cfg(feature = "node")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Call, Lab, Pod, Shape, TempDir, Way};
use serde_json::{Value, json};

const NODE: &str = env!("CARGO_BIN_EXE_pod-bandwidth-node");
const API: &str = "POD_BANDWIDTH_API";
const ADDRESS: &str = "127.0.0.1:6443";
const CONTAINER: &str = "c1";

/// Longer than the agent's own waits, and far shorter than until its next slow look.
const PATIENCE: Duration = Duration::from_secs(15);

/// Answers lists with one pod and no namespace, and watches with nothing, for ever, where [`start_api`]
/// asked for it.
fn play_if_asked() {
    let Ok(pod) = std::env::var(API) else { return };
    let listener = TcpListener::bind(ADDRESS).unwrap();
    println!("\napi: listening");
    for stream in listener.incoming().map_while(Result::ok) {
        let pod = pod.clone();
        std::thread::spawn(move || answer(&stream, &pod));
    }
}

fn answer(mut stream: &TcpStream, pod: &str) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(request) = head.first() else { return };
    if request.contains("watch=") {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        // Until the agent ends.
        let _ = BufReader::new(stream).lines().count();
        return;
    }
    let items = if request.contains("/namespaces") { "[]".into() } else { format!("[{pod}]") };
    let body = format!(
        r#"{{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadataList",
            "metadata":{{"resourceVersion":"1"}},"items":{items}}}"#
    );
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
}

/// The agent and its API server. Both end when this is dropped.
struct Agent([Child; 2]);

impl Drop for Agent {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for a line of a child with these words; all that comes later is thrown away.
fn wait_for(lines: impl std::io::Read + Send + 'static, words: &'static str) {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            if line.contains(words) {
                let _ = sender.send(());
            }
        }
    });
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{words}: {error}"));
}

impl Agent {
    /// Starts both for a pod that is limited to these rates, and waits until the agent knows it.
    fn start(lab: &Lab, pod: &Pod, folder: &TempDir, way: Way, rate: &str) -> Self {
        let annotations = json!({
            "kubernetes.io/ingress-bandwidth": rate, "kubernetes.io/egress-bandwidth": rate,
        });
        let metadata = json!({
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadata",
            "metadata": {
                "namespace": "default", "name": "web-0", "uid": "u1", "annotations": annotations,
            },
        });
        let mut api = common::start_test_again(lab, API, &metadata.to_string());
        wait_for(api.stdout.take().unwrap(), "api: listening");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{ADDRESS}")}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let kubeconfig = folder.file("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let (cache, net) = (folder.file("cache"), folder.file("net"));
        std::fs::create_dir_all(&net).unwrap();
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::write(format!("{cache}/net-{CONTAINER}-eth0"), entry(pod, way).to_string())
            .unwrap();
        // Without the environment: a proxy there would be asked for the API server.
        let kubeconfig = format!("KUBECONFIG={kubeconfig}");
        let words = ["env", "-i", &kubeconfig, NODE, "agent", "--node-name", "node1"];
        let folders = ["--cache-dir", &cache, "--net-dir", &net, "--listen", "127.0.0.1:9464"];
        let mut agent = lab.spawn(&[&words[..], &folders].concat(), &[]);
        let said = agent.stderr.take().unwrap();
        let agent = Self([agent, api]);
        wait_for(said, "pods are known");
        agent
    }
}

/// The pod in the runtime's cache, with the entry of the list that it was made with.
fn entry(pod: &Pod, way: Way) -> Value {
    let mut ours = json!({
        "type": "pod-bandwidth", "capabilities": {"io.kubernetes.cri.pod-annotations": true},
    });
    for (key, value) in way.keys() {
        ours[key] = json!(value);
    }
    let list = json!({"name": "net", "cniVersion": "1.0.0", "plugins": [ours]});
    json!({
        "kind": "cniCacheV1",
        "containerId": CONTAINER,
        "ifName": "eth0",
        "networkName": "net",
        "config": STANDARD.encode(list.to_string()),
        "netns": pod.path(),
        "cniArgs": [
            ["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-0"], ["K8S_POD_UID", "u1"],
        ],
        "result": pod.result(&pod.eth0, "1.0.0"),
    })
}

/// Whether pings of one full frame of this MTU, not to be cut, are answered.
fn full_frames_pass(lab: &Lab, pod: &Pod, mtu: u32) -> bool {
    let bytes = (mtu - 28).to_string();
    let ping = ["ping", "-M", "do", "-c", "1", "-W", "1", "-s", &bytes, &pod.eth0.pod_v4];
    lab.attempt(&ping).status.success()
}

#[test]
fn the_burst_follows_a_grown_mtu_at_once() {
    play_if_asked();
    for (way, bound) in [
        (Way::Root, Duration::from_secs(1)),
        (Way::Hooks, Duration::from_secs(1)),
        // The end in the pod is the second to grow, and tells nobody: the agent looks a second time.
        (Way::Pod, Duration::from_secs(5)),
    ] {
        let Some(lab) = Lab::open() else { return };
        // given a running pod of 1 Mbit/s both ways, whose burst holds two frames of MTU 1500
        let (pod, folder) = (lab.pod("veth0"), TempDir::new());
        Call::add(&pod).way(way).limits("1M", "1M").ok();
        let agent = Agent::start(&lab, &pod, &folder, way, "1M");
        let bursts = || {
            let shape = Shape::of(&pod, way);
            [shape.to_pod, shape.from_pod].map(|limit| limit.expect("a limit").burst())
        };
        assert_eq!(bursts(), [3_036; 2], "{way:?}");
        // when the MTU of both ends grows
        let start = Instant::now();
        lab.sh("ip link set veth0 mtu 9000");
        pod.sh("ip link set eth0 mtu 9000");
        // then so do the bursts, and full frames pass
        while bursts() != [18_036; 2] {
            assert!(start.elapsed() < PATIENCE, "{way:?}: {:?}", bursts());
        }
        let took = start.elapsed();
        assert!(full_frames_pass(&lab, &pod, 9000), "{way:?}");
        println!("{way:?}: the bursts have followed after {took:.0?}");
        assert!(took < bound, "{way:?}: {took:?}");
        drop(agent);
    }
}

#[test]
fn a_limit_by_hand_is_marked_and_stays_beside_the_agent() {
    play_if_asked();
    let Some(lab) = Lab::open() else { return };
    let (pod, folder) = (lab.pod("veth0"), TempDir::new());
    Call::add(&pod).way(Way::Root).limits("1M", "1M").ok();
    let agent = Agent::start(&lab, &pod, &folder, Way::Root, "1M");
    // when a person sets a limit, then this kernel keeps by whom
    let cache = folder.file("cache");
    lab.run(&[NODE, "set", "default/web-0", "--ingress", "5M", "--cache-dir", &cache]);
    let shown = || lab.json(&["tc", "-d", "-j", "qdisc", "show", "dev", "veth0", "root"]);
    let numbers = |list: &Value| {
        let options = &list[0]["options"];
        (options["rate"].as_u64().unwrap() * 8, options["mpu"].as_u64().unwrap())
    };
    assert_eq!(numbers(&shown()), (5_000_000, 2));
    // and the agent, which repairs what another program changes, leaves it
    lab.sh("ip link set veth0 mtu 9000");
    let start = Instant::now();
    while Shape::of(&pod, Way::Root).from_pod.expect("a limit").burst() != 18_036 {
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(numbers(&shown()), (5_000_000, 2));
    drop(agent);
}
