//! What one call costs: ours and the reference's in turn, on pods that are alike.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Run;
use crate::common::{Lab, Pod, Shape, Way};
use crate::floor;
use crate::process::{Cost, cost, inside, peak_kib, wall_us};
use crate::statistics::{median, round};
use crate::subject::{Invocation, Limits, Subject, Target};

/// ADD, then CHECK, then DEL, and DEL once more with nothing to remove.
const VERBS: [(&str, &str); 4] =
    [("ADD", "ADD"), ("CHECK", "CHECK"), ("DEL", "DEL"), ("DEL, nothing there", "DEL")];

const M: u64 = 1_000_000;

/// Peak memory hardly varies.
const MEMORY_SAMPLES: usize = 5;

/// Each sample of the floor needs a lab of its own.
const FLOOR_SAMPLES: usize = 30;

/// A pod of one plugin, in a lab of its own.
struct Side {
    lab: Lab,
    pod: Pod,
    subject: Subject,
    calls: Vec<Invocation>,
}

/// All of it, as the JSON of this part.
pub(crate) fn measure(run: &Run) -> Value {
    let options = &run.options;
    let both = Limits { to_pod: Some(10 * M), from_pod: Some(20 * M), burst: None };
    let one = |to_pod, from_pod| Limits { to_pod, from_pod, burst: None };
    let cases = [
        ("both directions", Way::Root, both),
        ("both directions", Way::Hooks, both),
        ("both directions", Way::Pod, both),
        ("to the pod only", Way::Root, one(Some(10 * M), None)),
        ("from the pod only", Way::Root, one(None, Some(20 * M))),
        ("to the pod only", Way::Pod, one(Some(10 * M), None)),
        ("from the pod only", Way::Pod, one(None, Some(20 * M))),
    ];
    let floor_samples = options.pairs().min(FLOOR_SAMPLES);
    run.progress.steps(cases.len() * options.pairs() + Way::ALL.len() * floor_samples);
    let measured: Vec<Value> = cases
        .iter()
        .map(|(directions, way, limits)| {
            let ours = Subject::ours(options, *way);
            let what = format!("{}, {directions}", ours.name);
            let sides = [ours, Subject::reference(options)].map(|s| Side::new(s, *limits));
            case(run, &what, &sides)
        })
        .collect();
    json!({
        "cases": measured,
        "version": version(run),
        "floor": Way::ALL.map(|way| floor_of(run, way, both, floor_samples)),
    })
}

impl Side {
    fn new(subject: Subject, limits: Limits) -> Self {
        let lab = Lab::open().expect("it opened before");
        let pod = lab.pod("veth2b312fe4");
        let target = Target::eth0(&pod);
        let calls = VERBS.map(|(_, verb)| subject.call(verb, &target, limits)).to_vec();
        Self { lab, pod, subject, calls }
    }

    /// The calls of one round, inside the lab.
    fn round<T: Send>(&self, measure: impl Fn(&Invocation) -> T + Sync) -> Vec<T> {
        let calls = &self.calls;
        let made = inside(&self.lab, || calls.iter().map(&measure).collect());
        self.clean();
        made
    }

    /// The reference's DEL leaves its TBF and its ingress qdisc on the veth, and its next ADD then
    /// fails.
    fn clean(&self) {
        if self.subject.way.is_none() {
            for qdisc in ["root", "ingress"] {
                self.lab.attempt(&["tc", "qdisc", "del", "dev", &self.pod.eth0.host, qdisc]);
            }
        }
    }

    /// An ADD shapes, and a DEL takes it away: what is fast because it does nothing is no good.
    fn verify(&self, limits: &str) {
        let [add, _, del, _] = &self.calls[..] else { unreachable!("four calls") };
        inside(&self.lab, || cost(add));
        let shaped = match self.subject.way {
            Some(way) => Shape::of(&self.pod, way).rates() != (0, 0),
            None => self.lab.run(&["tc", "qdisc", "show"]).contains("qdisc tbf"),
        };
        assert!(shaped, "{} has not shaped: {limits}", self.subject.name);
        inside(&self.lab, || cost(del));
        self.clean();
        let left = self.lab.run(&["tc", "qdisc", "show"]);
        assert!(!left.contains("tbf"), "{} has not removed: {left}", self.subject.name);
    }
}

fn case(run: &Run, what: &str, sides: &[Side; 2]) -> Value {
    sides.iter().for_each(|side| side.verify(what));
    let mut rounds: [Vec<Vec<Cost>>; 2] = Default::default();
    for pair in 0..run.options.pairs() {
        run.progress.step(what);
        // Who is first changes: what one leaves to the kernel to do later is the other's as well.
        for at in if pair % 2 == 0 { [0, 1] } else { [1, 0] } {
            rounds[at].push(sides[at].round(cost));
        }
    }
    let samples = run.options.pairs().min(MEMORY_SAMPLES);
    let memory = sides.each_ref().map(|side| {
        let rounds: Vec<_> = (0..samples).map(|_| side.round(peak_kib)).collect();
        rounds
    });
    let verbs: BTreeMap<&str, Value> = VERBS
        .iter()
        .enumerate()
        .map(|(at, (name, _))| {
            let side = |which: usize| {
                let of = |get: fn(&Cost) -> f64| {
                    rounds[which].iter().map(|costs| round(get(&costs[at]))).collect::<Vec<_>>()
                };
                let peak: Vec<u64> = memory[which].iter().filter_map(|peaks| peaks[at]).collect();
                json!({"wall_us": of(|c| c.wall_us), "cpu_us": of(|c| c.cpu_us), "peak_kib": peak})
            };
            (*name, json!({"ours": side(0), "reference": side(1)}))
        })
        .collect();
    json!({"case": what, "verbs": verbs})
}

/// VERSION needs no pod.
fn version(run: &Run) -> Value {
    let call = |subject: &Subject| Invocation {
        program: subject.program.clone(),
        environment: vec![("CNI_COMMAND".to_owned(), "VERSION".to_owned())],
        input: br#"{"cniVersion":"1.0.0"}"#.to_vec(),
    };
    let ours = call(&Subject::ours(&run.options, Way::Root));
    let theirs = call(&Subject::reference(&run.options));
    let pairs: Vec<[Cost; 2]> =
        (0..run.options.pairs()).map(|_| [cost(&ours), cost(&theirs)]).collect();
    let samples = run.options.pairs().min(MEMORY_SAMPLES);
    let side = |which: usize, call: &Invocation| {
        let of = |get: fn(&Cost) -> f64| {
            pairs.iter().map(|pair| round(get(&pair[which]))).collect::<Vec<_>>()
        };
        let peak: Vec<u64> = (0..samples).filter_map(|_| peak_kib(call)).collect();
        json!({"wall_us": of(|c| c.wall_us), "cpu_us": of(|c| c.cpu_us), "peak_kib": peak})
    };
    json!({"ours": side(0, &ours), "reference": side(1, &theirs)})
}

/// The requests of ADD and DEL alone, an empty program, and the plugin itself, in turn.
fn floor_of(run: &Run, way: Way, limits: Limits, samples: usize) -> Value {
    let side = Side::new(Subject::ours(&run.options, way), limits);
    let [add, _, del, _] = &side.calls[..] else { unreachable!("four calls") };
    let recorded = [floor::record(&side.lab, add), floor::record(&side.lab, del)];
    let mut steps: [Vec<Vec<floor::Step>>; 2] = Default::default();
    let (mut sockets, mut exec) = (Vec::new(), Vec::new());
    let mut calls: [Vec<f64>; 2] = Default::default();
    let empty = Invocation::bare(&run.options.empty);
    for _ in 0..samples {
        run.progress.step("floor");
        let fresh = Side::new(Subject::ours(&run.options, way), limits);
        sockets.push(round(floor::sockets_us(&fresh.lab, &fresh.pod)));
        steps[0].push(floor::replay(&fresh.lab, &fresh.pod, &recorded[0]));
        assert_ne!(Shape::of(&fresh.pod, way).rates(), (0, 0), "the replay has shaped");
        steps[1].push(floor::replay(&fresh.lab, &fresh.pod, &recorded[1]));
        assert_eq!(Shape::of(&fresh.pod, way).rates(), (0, 0), "the replay has removed");
        let [add, _, del, _] = &fresh.calls[..] else { unreachable!("four calls") };
        let costs = inside(&fresh.lab, || [&empty, add, del].map(|call| round(wall_us(call))));
        exec.push(costs[0]);
        calls[0].push(costs[1]);
        calls[1].push(costs[2]);
    }
    let sums = |samples: &[Vec<floor::Step>], what: Option<&str>| -> Vec<f64> {
        let of = |steps: &Vec<floor::Step>| {
            let mine = steps.iter().filter(|step| what.is_none_or(|what| step.what == what));
            round(mine.map(|step| step.wall_us).sum())
        };
        samples.iter().map(of).collect()
    };
    let verb = |at: usize| {
        let parts: BTreeMap<&str, f64> = floor::STEPS
            .into_iter()
            .map(|what| (what, round(median(&sums(&steps[at], Some(what))))))
            .collect();
        json!({
            "sends": recorded[at].len(),
            "requests_us": sums(&steps[at], None),
            "median_us": parts,
            "call_us": calls[at],
        })
    };
    json!({
        "way": side.subject.name,
        "exec_us": exec,
        "sockets_us": sockets,
        "ADD": verb(0),
        "DEL": verb(1),
    })
}
