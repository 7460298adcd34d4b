//! The node agent under a real kubelet and API server (`scripts/cluster`): running pods follow their
//! annotations, whatever ends, hangs or interferes meanwhile; and `set`.
//!
//! One test with parts, because they share one node. Each part says on standard error how it went.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;
mod kube;
mod node_agent;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use common::{Flow, Pod, Shape, Traffic, Way};
use kube::{Cluster, Manifest};
use nix::sys::signal::Signal;
use node_agent::{Agent, ApiServer, Crowd, stdout_of};
use serde_json::json;

const M: u64 = 1_000_000;
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
const BOTH: [(&str, &str); 2] = [(INGRESS, "10M"), (EGRESS, "20M")];

type Part = (&'static str, fn(&Cluster));

const PARTS: [Part; 11] = [
    ("a changed annotation is in the kernel within a second", changes_are_fast),
    ("a TCP stream goes on through ten changes", a_stream_goes_on),
    ("a raise drops nothing, and a cut no more than waited", queues_survive),
    ("a bad annotation leaves the old limit, and is told once", bad_annotations_are_told),
    ("a limit set by hand holds until the annotation changes", hands_are_respected),
    ("a namespace has defaults for its pods", namespaces_have_defaults),
    ("an agent that is killed or ended leaves the limits, and catches up", ends_leave_limits),
    ("without the API server limits are repaired and leaks swept", without_the_api_server),
    ("pods that the runtime's cache does not know are found", without_the_cache),
    ("beside a Felix the limits stay, and come back", beside_felix),
    ("a hundred pods from before the installation", a_hundred_pods_at_rest),
];

#[test]
fn an_agent_beside_a_kubelet() {
    let Some(cluster) = Cluster::open() else { return };
    let mut failed = Vec::new();
    for (number, (name, part)) in PARTS.iter().enumerate() {
        let start = Instant::now();
        tell(&format!("part {} of {}: {name}", number + 1, PARTS.len()));
        let result = catch_unwind(AssertUnwindSafe(|| {
            part(&cluster);
            cluster.delete_all();
        }));
        let outcome = if result.is_ok() { "ok" } else { "FAILED" };
        tell(&format!("    {outcome}, {:.1} s", start.elapsed().as_secs_f64()));
        if result.is_err() {
            failed.push(*name);
            if catch_unwind(AssertUnwindSafe(|| cluster.delete_all())).is_err() {
                failed.push("pods cannot be deleted any more, and the parts after it did not run");
                break;
            }
        }
    }
    cluster.close();
    assert!(failed.is_empty(), "failed, see above: {failed:#?}");
}

/// Straight to the descriptor: libtest keeps what is printed until the test ends.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn rates(pod: &Pod) -> (u64, u64) {
    Shape::of(pod, Way::Root).rates()
}

/// Waits for these limits in bit/s, to the pod and from it.
fn wait_for(cluster: &Cluster, pod: &Pod, expected: (u64, u64)) {
    let what = format!("limits of {expected:?} bit/s");
    cluster.wait(&what, || (rates(pod) == expected).then_some(()));
}

/// The `mpu` of a device's root TBF, which is the mark.
fn mark(pod: &Pod) -> u64 {
    let dev = &pod.eth0.host;
    let list = pod.host.json(&["tc", "-d", "-j", "qdisc", "show", "dev", dev, "root"]);
    list[0]["options"]["mpu"].as_u64().unwrap_or_else(|| panic!("no mpu: {list}"))
}

fn changes_are_fast(cluster: &Cluster) {
    // given a pod that runs with what its annotations asked for
    let _agent = Agent::start(cluster, "fast");
    let pod = cluster.run(&Manifest::new("fast", &BOTH));
    let network = pod.network();
    assert_eq!((rates(&network), mark(&network)), ((10 * M, 20 * M), 0), "as ADD set it");
    // when its annotations change, go and come, twenty times
    let mut times = Vec::new();
    for number in 1..=20 {
        let egress = if number % 4 == 0 { None } else { Some(number + 30) };
        let to_pod = format!("{number}M");
        let from_pod = egress.map(|rate| format!("{rate}M"));
        let start = Instant::now();
        cluster.annotate("fast", &json!({INGRESS: to_pod, EGRESS: from_pod}));
        wait_for(cluster, &network, (number * M, egress.unwrap_or(0) * M));
        times.push(start.elapsed());
    }
    // then each one is in the kernel within a second, from before the API server was called until
    // `tc` has shown it
    times.sort();
    let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
    tell(&format!("    20 changes: median {median:.0?}, maximum {max:.0?}"));
    assert!(max < Duration::from_secs(1), "{times:?}");
    assert_eq!(mark(&network), 1, "as the agent set it");
}

fn a_stream_goes_on(cluster: &Cluster) {
    // given a pod that receives as much as it may
    let agent = Agent::start(cluster, "stream");
    let pod = cluster.run(&Manifest::new("stream", &BOTH));
    let network = pod.network();
    let traffic = Traffic { congestion: "reno", flows: 1, duration: Duration::from_secs(60) };
    let address = network.eth0.pod_v4.clone();
    let mut flow = Flow::start(&cluster.lab, &network, &address, &traffic);
    flow.bytes_in(Duration::from_millis(500));
    // when the limit changes up and down, ten times
    for megabits in [20, 5, 50, 10, 80, 8, 40, 4, 30, 10] {
        cluster.annotate("stream", &json!({INGRESS: format!("{megabits}M")}));
        wait_for(cluster, &network, (megabits * M, 20 * M));
        // then the same connection goes on, with the new rate as soon as TCP has found it
        flow.rate_in(Duration::from_millis(500));
        let part = flow.rate_in(Duration::from_secs(1)) / (megabits * M) as f64;
        tell(&format!("    {megabits} Mbit/s: {part:.3} of it"));
        assert!((0.5..=1.2).contains(&part), "{part:.3} of {megabits} Mbit/s");
    }
    assert!(!agent.said("warn"), "{}", agent.log());
}

fn queues_survive(cluster: &Cluster) {
    let _agent = Agent::start(cluster, "queue");
    let pod = cluster.run(&Manifest::new("queue", &[(INGRESS, "8k")]));
    let network = pod.network();
    let counted = || -> (u64, u64) {
        let dev = &network.eth0.host;
        let list = network.host.json(&["tc", "-s", "-j", "qdisc", "show", "dev", dev, "root"]);
        let number = |key: &str| list[0][key].as_u64().unwrap();
        (number("qlen"), number("drops"))
    };
    // given packets that wait: at 8 kbit/s each of them takes a third of a second, but each change
    // fills the bucket again (tbf_change in net/sched/sch_tbf.c), and eight pass
    let address = &network.eth0.pod_v4;
    // They fill the queue: a packet of the kernel's own (neighbour discovery, multicast reports) would be one too
    // many for it, and be counted as dropped.
    let (dev, mac) = (&network.eth0.host, network.mac("eth0"));
    network.host.sysctl(&format!("net.ipv6.conf.{dev}.disable_ipv6"), "1");
    network.host.sh(&format!("ip neigh replace {address} lladdr {mac} dev {dev} nud permanent"));
    let send = format!("for n in $(seq 30); do printf %0300d 0 >/dev/udp/{address}/9; done");
    network.host.run(&["bash", "-c", &send]);
    for rate in [16_000, 4_000, 8_000] {
        // when the limit changes
        let (waited, dropped_before) = counted();
        cluster.annotate("queue", &json!({INGRESS: rate.to_string()}));
        wait_for(cluster, &network, (rate, 0));
        // then nothing is lost; what does not wait any more has passed
        let (waits, dropped) = counted();
        tell(&format!("    to {rate} bit/s: {waited} waited, {waits} wait, {dropped} dropped"));
        assert!(waited > 0, "a queue");
        assert_eq!(dropped, dropped_before);
    }
}

fn bad_annotations_are_told(cluster: &Cluster) {
    let agent = Agent::start(cluster, "bad");
    let pod = cluster.run(&Manifest::new("bad", &BOTH));
    let network = pod.network();
    // when an annotation is no quantity
    cluster.annotate("bad", &json!({INGRESS: "5 Mbit"}));
    let warning = cluster.wait("the warning", || pod.warnings().into_iter().next());
    // then its Event says which one, and the limit is what it was
    tell(&format!("    {warning}"));
    for words in [INGRESS, "5 Mbit", "stay as they were"] {
        assert!(warning.contains(words), "{words}: {warning}");
    }
    assert_eq!(rates(&network), (10 * M, 20 * M));
    // and is repaired all the same where another program takes it away
    network.host.sh(&format!("tc qdisc del dev {} root", network.eth0.host));
    wait_for(cluster, &network, (10 * M, 20 * M));
    // and is told once, however often it was looked at
    assert_eq!((pod.warnings().len(), agent.count("5 Mbit")), (1, 1), "{}", agent.log());
    // when somebody else has the root qdisc, then the limit is held beside it, and it stays
    network.host.sh(&format!("tc qdisc replace dev {} root handle 1: pfifo", network.eth0.host));
    let hooks = || (Shape::of(&network, Way::Hooks).rates() == (10 * M, 20 * M)).then_some(());
    cluster.wait("the limit at the hooks", hooks);
    assert_eq!(network.host.root(&network.eth0.host).kind, "pfifo");
    // when the annotation is right again, then it holds
    cluster.annotate("bad", &json!({INGRESS: "5M"}));
    let hooks = || (Shape::of(&network, Way::Hooks).rates() == (5 * M, 20 * M)).then_some(());
    cluster.wait("the new limit", hooks);
}

fn hands_are_respected(cluster: &Cluster) {
    let agent = Agent::start(cluster, "hand");
    let pod = cluster.run(&Manifest::new("hand", &BOTH));
    let network = pod.network();
    // when a person sets one direction, then the other stays
    let said = stdout_of(cluster, &["set", "default/hand", "--ingress", "50M"]);
    assert!(said.contains("50 Mbit/s") && said.contains("set by hand"), "{said}");
    assert_eq!((rates(&network), mark(&network)), ((50 * M, 20 * M), 2));
    // and the agent leaves it alone: when it changes the other direction, and when it starts anew
    cluster.annotate("hand", &json!({EGRESS: "7M"}));
    wait_for(cluster, &network, (50 * M, 7 * M));
    agent.end(Signal::SIGKILL);
    let agent = Agent::start(cluster, "hand-again");
    cluster.annotate("hand", &json!({EGRESS: "8M"}));
    wait_for(cluster, &network, (50 * M, 8 * M));
    assert_eq!(mark(&network), 2);
    // when the annotation of that direction changes, then it is what holds
    cluster.annotate("hand", &json!({INGRESS: "6M"}));
    wait_for(cluster, &network, (6 * M, 8 * M));
    // when a person sets none, then nothing holds the pod back, and the agent knows whose will it is
    stdout_of(cluster, &["set", "default/hand", "--ingress", "none", "--egress", "3M"]);
    assert_eq!(rates(&network), (1_000_000 * M, 3 * M));
    // when the hand is taken away, then the annotations hold again
    stdout_of(cluster, &["set", "default/hand", "--clear"]);
    wait_for(cluster, &network, (6 * M, 8 * M));
    drop(agent);
    // and without an agent, what the pod was attached with
    stdout_of(cluster, &["set", "default/hand", "--ingress", "50M"]);
    stdout_of(cluster, &["set", "default/hand", "--clear"]);
    assert_eq!((rates(&network), mark(&network)), ((10 * M, 20 * M), 0));
}

fn namespaces_have_defaults(cluster: &Cluster) {
    let _agent = Agent::start(cluster, "namespace");
    let path = "/api/v1/namespaces/default";
    let annotate = |rate: Option<&str>| {
        let patch = json!({"metadata": {"annotations": {INGRESS: rate, EGRESS: rate}}});
        cluster.api("PATCH", path, Some(&patch));
    };
    // given a pod with one annotation in a namespace with two
    let pod = cluster.run(&Manifest::new("defaults", &[(EGRESS, "20M")]));
    let network = pod.network();
    assert_eq!(rates(&network), (0, 20 * M));
    // then the namespace's count where the pod's own say nothing
    annotate(Some("9M"));
    wait_for(cluster, &network, (9 * M, 20 * M));
    cluster.annotate("defaults", &json!({EGRESS: null}));
    wait_for(cluster, &network, (9 * M, 9 * M));
    annotate(None);
    wait_for(cluster, &network, (0, 0));
    assert_eq!(cluster.lab.ifbs(), [""; 0], "nothing is left of them");
}

fn ends_leave_limits(cluster: &Cluster) {
    let agent = Agent::start(cluster, "ended");
    let pod = cluster.run(&Manifest::new("ended", &BOTH));
    let network = pod.network();
    cluster.annotate("ended", &json!({INGRESS: "11M"}));
    wait_for(cluster, &network, (11 * M, 20 * M));
    // when it is asked to end, then it does, and the limits stay
    assert_eq!(agent.end(Signal::SIGTERM), Some(0));
    assert_eq!(rates(&network), (11 * M, 20 * M));
    // when an annotation changes while there is none, then the next one catches up
    cluster.annotate("ended", &json!({INGRESS: "12M", EGRESS: null}));
    let mut agent = Agent::start(cluster, "catches-up");
    wait_for(cluster, &network, (12 * M, 0));
    // and also after one that was killed at any moment of its work
    for number in 1..=5u32 {
        let rate = u64::from(number) + 20;
        cluster.annotate("ended", &json!({INGRESS: format!("{rate}M"), EGRESS: "4M"}));
        std::thread::sleep(number * Duration::from_millis(3));
        agent.end(Signal::SIGKILL);
        agent = Agent::start(cluster, "killed");
        wait_for(cluster, &network, (rate * M, 4 * M));
        cluster.annotate("ended", &json!({EGRESS: null}));
        wait_for(cluster, &network, (rate * M, 0));
    }
}

fn without_the_api_server(cluster: &Cluster) {
    let agent = Agent::start(cluster, "away");
    let pod = cluster.run(&Manifest::new("away", &BOTH));
    let network = pod.network();
    // given an IFB of ours whose pod is gone, one that a person made, and one that is in use
    let leak = "pbiaaaaaaaaaaaa";
    cluster.lab.sh(&format!("ip link add {leak} type ifb"));
    let alias = "pod-bandwidth net=x id=gone if=eth0 dev=vethgone pod=default/gone";
    cluster.lab.run(&["ip", "link", "set", leak, "alias", alias]);
    cluster.lab.sh("ip link add ifb-foreign type ifb");
    let used = cluster.lab.ifbs().into_iter().find(|name| name != leak).expect("the pod's");
    // when the API server is dead
    let server = ApiServer::kill(cluster);
    let start = Instant::now();
    let away = Duration::from_secs(61);
    agent.wait_for("all limits stay, and it is tried again");
    // then what another program removes comes back
    network.host.sh(&format!("tc qdisc del dev {} root", network.eth0.host));
    wait_for(cluster, &network, (10 * M, 20 * M));
    network.host.sh(&format!("ip link del {used}"));
    let redirects = || {
        let filters = network.host.filters(&network.eth0.host, "ingress");
        filters.iter().any(|filter| filter.to_dev.as_ref() == Some(&used)).then_some(())
    };
    cluster.wait("the IFB to come back", redirects);
    assert_eq!(rates(&network), (10 * M, 20 * M));
    // and the leak goes, and nothing else
    let gone = || cluster.lab.link(leak).is_none().then_some(());
    cluster.wait("the end of the leak", gone);
    assert!(cluster.lab.link("ifb-foreign").is_some() && cluster.lab.link(&used).is_some());
    cluster.lab.sh("ip link del ifb-foreign");
    // when it is back after a minute, then annotations count again
    std::thread::sleep(away.saturating_sub(start.elapsed()));
    assert_eq!(rates(&network), (10 * M, 20 * M));
    tell(&format!("    the API server was away for {:.1?}", start.elapsed()));
    server.start();
    cluster.annotate("away", &json!({INGRESS: "3M"}));
    let start = Instant::now();
    wait_for(cluster, &network, (3 * M, 20 * M));
    tell(&format!("    and followed again {:.1?} after its first answer", start.elapsed()));
    assert_eq!(agent.count("it is tried again"), 1, "told once: {}", agent.log());
}

fn without_the_cache(cluster: &Cluster) {
    // given a pod whose entry somebody removed
    let pod = cluster.run(&Manifest::new("lost", &BOTH));
    let network = pod.network();
    for file in std::fs::read_dir(cluster.path("/var/lib/cni/results")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    // then the alias of its IFB leads to it, from the second slow look on
    let agent = Agent::start(cluster, "lost");
    cluster.annotate("lost", &json!({INGRESS: "3M", EGRESS: "4M"}));
    wait_for(cluster, &network, (3 * M, 4 * M));
    // and after that at once
    let start = Instant::now();
    cluster.annotate("lost", &json!({INGRESS: "5M"}));
    wait_for(cluster, &network, (5 * M, 4 * M));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(cluster.lab.ifbs().len(), 1, "{}", agent.log());
}

/// The host interface of Calico for the first pod of a crowd: printf default.crowd-0 | sha1sum.
const CALI: &str = "cali576d457e577";

fn beside_felix(cluster: &Cluster) {
    // given a pod of Calico's, from before the installation, that no cache knows
    let crowd = Crowd::new(cluster, 1, &BOTH);
    crowd.forget(0);
    let lab = &cluster.lab;
    lab.script(&format!(
        "ip link set crowd0 down\n ip link set crowd0 name {CALI}\n ip link set {CALI} up"
    ));
    let agent = Agent::spawn(cluster, "felix", Crowd::NODE, &Crowd::options());
    // then Calico's rule for names leads to it, and its limits are at the hooks
    let limits = || -> Vec<u64> {
        let tbf = |dev: &String| Some(lab.root(dev)).filter(|root| root.kind == "tbf");
        let mut rates: Vec<_> = lab
            .ifbs()
            .iter()
            .filter_map(tbf)
            .map(|tbf| tbf.options["rate"].as_u64().unwrap() * 8)
            .collect();
        rates.sort_unstable();
        rates
    };
    let hold = || (limits() == [10 * M, 20 * M]).then_some(());
    cluster.wait("both limits at the hooks", hold);
    let filters = || ["ingress", "egress"].map(|hook| lab.filters(CALI, hook).len());
    assert_eq!(filters(), [1, 1]);
    let shaped = (lab.ifbs(), filters());
    // when Felix works as it does, with limits of its own and without
    for round in 0..10 {
        lab.sh(&format!(
            "tc qdisc replace dev {CALI} root handle 1: tbf rate {}mbit burst 512k limit 4m",
            round + 100
        ));
        lab.sh(&format!("tc qdisc del dev {CALI} root"));
        assert_eq!((lab.ifbs(), filters()), shaped, "round {round}");
        assert_eq!(limits(), [10 * M, 20 * M], "round {round}");
    }
    // and when somebody takes the hooks away, then they come back
    for _ in 0..3 {
        lab.sh(&format!("tc qdisc del dev {CALI} clsact"));
        cluster.wait("the hooks to come back", || (filters() == [1, 1]).then_some(()));
        cluster.wait("both limits", hold);
    }
    assert!(!agent.said("warn"), "{}", agent.log());
    // when the pod is gone without a DEL, then its IFBs are swept
    crowd.remove();
    cluster.wait("the sweep", || lab.ifbs().is_empty().then_some(()));
}

fn a_hundred_pods_at_rest(cluster: &Cluster) {
    const PODS: usize = 100;
    /// What is measured: two slow looks, of 30 seconds. A pod on the host has its turn at each fourth.
    const AT_REST: Duration = Duration::from_secs(61);
    let crowd = Crowd::new(cluster, PODS, &BOTH);
    // when an agent comes to a node full of pods from before, then all are limited
    let start = Instant::now();
    let agent = Agent::spawn(cluster, "crowd", Crowd::NODE, &Crowd::options());
    cluster.wait("all limits", || (crowd.limited() == PODS).then_some(()));
    tell(&format!("    {PODS} pods are limited {:.1?} after its start", start.elapsed()));
    assert_eq!(cluster.lab.ifbs().len(), PODS);
    let metrics = || {
        let curl = ["curl", "--silent", "--noproxy", "*", "http://127.0.0.1:9465/metrics"];
        cluster.lab.run(&curl)
    };
    let reconciles = || {
        let text = metrics();
        let line =
            text.lines().find_map(|line| line.strip_prefix("pod_bandwidth_reconciles_total "));
        line.unwrap_or_else(|| panic!("no counter: {text}")).parse::<usize>().unwrap()
    };
    // then it takes next to nothing while nothing happens and nobody asks, through two slow looks
    let (start, cpu, looks) = (Instant::now(), agent.cpu_time(), reconciles());
    std::thread::sleep(AT_REST);
    let part = (agent.cpu_time() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    let looked = reconciles() - looks;
    tell(&format!("    {looked} looks at a pod meanwhile"));
    // All of them once. What the agent does itself is no news to it.
    assert!((PODS..=2 * PODS).contains(&looked), "{looked} looks");
    let memory = agent.peak_memory_mb();
    tell(&format!("    at rest {:.2} % of a processor, at most {memory:.1} MB", part * 100.0));
    assert!(part < 0.005 && memory < 40.0, "{:.2} %, {memory:.1} MB", part * 100.0);
    drop(agent);
    crowd.remove();
    // nothing redirects to their IFBs any more: an agent sweeps them
    let agent = Agent::start(cluster, "sweeps");
    cluster.wait("the sweep", || cluster.lab.ifbs().is_empty().then_some(()));
    assert_eq!(agent.count("removing IFBs"), PODS, "{}", agent.log());
}
