//! Whether a call costs more on a full node, and what many calls at once cost.
//!
//! The other pods are veth pairs whose inner ends share one namespace: to the plugins and to the
//! host's lists of links and qdiscs each is a pod of its own, and a thousand namespaces less are
//! made. Each plugin has a lab of its own, with neighbours that it has shaped itself.

use std::sync::Barrier;
use std::time::Instant;

use serde_json::{Value, json};

use crate::Run;
use crate::common::{Interface, Lab, Pod, TempDir, Way};
use crate::process::{inside, wall_us};
use crate::statistics::round;
use crate::subject::{Invocation, Limits, Subject, Target};

const M: u64 = 1_000_000;
const LIMITS: Limits = Limits { to_pod: Some(10 * M), from_pod: Some(20 * M), burst: None };

/// Calls at the same time.
const AT_ONCE: usize = 50;

/// A node of one plugin.
struct Node {
    lab: Lab,
    /// Whose `eth0` is measured; the neighbours' inner ends are in it as well.
    pod: Pod,
    subject: Subject,
    neighbours: Vec<Target>,
}

/// All of it, as the JSON of this part.
pub(crate) fn measure(run: &Run) -> Value {
    let options = &run.options;
    let (counts, at_once): (&[usize], usize) =
        if options.quick { (&[0, 20], 10) } else { (&[0, 100, 1000], AT_ONCE) };
    let pairs = options.pairs().min(30);
    let rounds = if options.quick { 1 } else { 10 };
    run.progress.steps(counts.len() * pairs + 2 * rounds);
    let mut nodes = [Subject::ours(options, Way::Root), Subject::reference(options)].map(Node::new);
    // Both kinds of placement on the node that our plugin has filled.
    let in_pod = Subject::ours(options, Way::Pod);
    let mut rows = Vec::new();
    for &count in counts {
        nodes.iter_mut().for_each(|node| node.fill(count));
        let mut times: [Vec<[f64; 2]>; 3] = Default::default();
        for pair in 0..pairs {
            run.progress.step(&format!("{count} others"));
            let order: [usize; 3] = if pair % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
            for at in order {
                let node = &nodes[usize::from(at == 1)];
                let subject = if at == 2 { &in_pod } else { &node.subject };
                times[at].push(node.add_and_del(subject));
            }
        }
        for (at, name) in ["host, root", "reference", "pod"].into_iter().enumerate() {
            let of = |which: usize| times[at].iter().map(|t| round(t[which])).collect::<Vec<_>>();
            rows.push(json!({"subject": name, "others": count, "add_us": of(0), "del_us": of(1)}));
        }
    }
    drop(nodes);
    json!({"rows": rows, "at_once": at_once_of(run, at_once, rounds), "calls_at_once": at_once})
}

impl Node {
    fn new(subject: Subject) -> Self {
        let lab = Lab::open().expect("it opened before");
        let pod = lab.pod("veth2b312fe4");
        Self { lab, pod, subject, neighbours: Vec::new() }
    }

    /// Makes and shapes neighbours until there are `count`.
    fn fill(&mut self, count: usize) {
        let before = self.neighbours.len();
        self.make(count);
        let calls = self.calls("ADD", &self.neighbours[before..]);
        inside(&self.lab, || {
            for call in &calls {
                wall_us(call);
            }
        });
        let qdiscs = self.lab.run(&["tc", "qdisc", "show"]);
        let shaped = qdiscs.matches("qdisc tbf").count();
        assert_eq!(shaped, 2 * count, "each neighbour is shaped in both directions");
    }

    /// The veth pairs, two batches of `ip`.
    fn make(&mut self, count: usize) {
        let (mut outside, mut within) = (String::new(), String::new());
        let pid = self.pod.ns.pid;
        for number in self.neighbours.len()..count {
            let at = Interface {
                host: format!("n{number}"),
                name: format!("p{number}"),
                ..Interface::default()
            };
            outside += &format!(
                "link add {} type veth peer name {} netns {pid}\nlink set {} up\n",
                at.host, at.name, at.host
            );
            within += &format!("link set {} up\n", at.name);
            self.neighbours.push(Target::neighbour(&self.pod.ns, &at, number));
        }
        let folder = TempDir::new();
        for (ns, lines) in [(&*self.lab, outside), (&self.pod.ns, within)] {
            let file = folder.file("batch");
            std::fs::write(&file, lines).expect("a file of our own");
            ns.run(&["ip", "-batch", &file]);
        }
    }

    fn calls(&self, verb: &str, targets: &[Target]) -> Vec<Invocation> {
        targets.iter().map(|target| self.subject.call(verb, target, LIMITS)).collect()
    }

    /// Wall times in microseconds.
    fn add_and_del(&self, subject: &Subject) -> [f64; 2] {
        let target = Target::eth0(&self.pod);
        let calls = ["ADD", "DEL"].map(|verb| subject.call(verb, &target, LIMITS));
        let times = inside(&self.lab, || calls.each_ref().map(wall_us));
        self.clean(subject);
        times
    }

    /// What the reference's DEL leaves.
    fn clean(&self, subject: &Subject) {
        if subject.way.is_none() {
            for qdisc in ["root", "ingress"] {
                self.lab.attempt(&["tc", "qdisc", "del", "dev", &self.pod.eth0.host, qdisc]);
            }
        }
    }
}

/// ADD of many pods at the same time, then DEL of all: milliseconds until the last one is done, and
/// of each call.
fn at_once_of(run: &Run, count: usize, rounds: usize) -> Vec<Value> {
    let subjects = [Subject::ours(&run.options, Way::Root), Subject::reference(&run.options)];
    let mut rows = Vec::new();
    for _ in 0..rounds {
        for subject in &subjects {
            run.progress.step(&format!("{count} at once"));
            let mut node = Node::new(subject.clone());
            node.make(count);
            for verb in ["ADD", "DEL"] {
                let calls = node.calls(verb, &node.neighbours);
                let (all, each) = start_together(&node.lab, &calls);
                rows.push(json!({
                    "subject": if subject.way.is_some() { "host, root" } else { "reference" },
                    "verb": verb,
                    "all_ms": round(all),
                    "each_ms": each,
                }));
            }
        }
    }
    rows
}

fn start_together(lab: &Lab, calls: &[Invocation]) -> (f64, Vec<f64>) {
    let start = Barrier::new(calls.len() + 1);
    let ns = (**lab).clone();
    std::thread::scope(|scope| {
        let one = |call| {
            let (start, ns) = (&start, &ns);
            scope.spawn(move || {
                inside(ns, || {
                    start.wait();
                    round(wall_us(call) / 1000.0)
                })
            })
        };
        let running: Vec<_> = calls.iter().map(one).collect();
        start.wait();
        let began = Instant::now();
        let each = running.into_iter().map(|thread| thread.join().expect("the call is made"));
        let each: Vec<f64> = each.collect();
        (began.elapsed().as_secs_f64() * 1000.0, each)
    })
}
