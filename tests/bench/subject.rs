//! Who is measured, and what it is called with: containerd's own input for both plugins.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Interface, Ns, Pod, Way, tests_dir};
use crate::options::Options;

/// A plugin, and for ours the placement.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// For tables and JSON.
    pub(crate) name: &'static str,
    /// The executable.
    pub(crate) program: PathBuf,
    /// `None`: the reference plugin, which has one way only.
    pub(crate) way: Option<Way>,
    queue: Option<String>,
}

/// Limits of a pod, in bit/s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// `None`: no limit.
    pub(crate) to_pod: Option<u64>,
    /// `None`: no limit.
    pub(crate) from_pod: Option<u64>,
    /// Bits; `None` is what containerd sends where nobody asked for a burst.
    pub(crate) burst: Option<u64>,
}

/// One call that is ready to be made.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// The executable.
    pub(crate) program: PathBuf,
    /// Its whole environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Its standard input.
    pub(crate) input: Vec<u8>,
}

/// What a call is about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `CNI_CONTAINERID`
    pub(crate) container: String,
    /// `CNI_NETNS`
    pub(crate) netns: String,
    /// `CNI_IFNAME`
    pub(crate) ifname: String,
    prev_result: Value,
}

/// containerd's "no limit".
const NO_BURST: u64 = 4_294_967_295;

impl Limits {
    /// The same in both directions.
    pub(crate) fn both(rate: u64) -> Self {
        Self { to_pod: Some(rate), from_pod: Some(rate), burst: None }
    }
}

impl Subject {
    /// Our plugin, in one way.
    pub(crate) fn ours(options: &Options, way: Way) -> Self {
        let name = match way {
            Way::Root => "host, root",
            Way::Hooks => "host, hooks",
            Way::Pod => "pod",
        };
        Self { name, program: options.plugin.clone(), way: Some(way), queue: None }
    }

    /// The reference plugin.
    pub(crate) fn reference(options: &Options) -> Self {
        Self { name: "reference", program: options.reference(), way: None, queue: None }
    }

    /// Our plugin with another kind of queue; the reference has one kind only.
    pub(crate) fn with_queue(self, queue: &str) -> Self {
        Self { queue: Some(queue.to_owned()), ..self }
    }

    /// The call of `verb` for `target` with containerd's recorded input; only names, limits
    /// and our placement are put in their places. The reference ignores the keys that are ours.
    pub(crate) fn call(&self, verb: &str, target: &Target, limits: Limits) -> Invocation {
        let path = tests_dir("fixtures/containerd-2.4.2-kubelet.add.json");
        let text = std::fs::read_to_string(&path).expect("the fixture is there");
        let mut recorded: Value = serde_json::from_str(&text).expect("the fixture is JSON");
        let mut config = recorded["stdin"].take();
        // The reference speaks 1.0.0 in full.
        config["cniVersion"] = json!("1.0.0");
        config["prevResult"] = target.prev_result.clone();
        let mut keys = vec![("ingress", "Ingress", limits.to_pod)];
        keys.push(("egress", "Egress", limits.from_pod));
        for (name, key, rate) in keys {
            let runtime = &mut config["runtimeConfig"];
            // containerd sends 0 for a direction without a limit.
            runtime["bandwidth"][format!("{key}Rate")] = json!(rate.unwrap_or(0));
            let burst = rate.map_or(0, |_| limits.burst.unwrap_or(NO_BURST));
            runtime["bandwidth"][format!("{key}Burst")] = json!(burst);
            let annotations = &mut runtime["io.kubernetes.cri.pod-annotations"];
            let annotations = annotations.as_object_mut().expect("annotations");
            let annotation = format!("kubernetes.io/{name}-bandwidth");
            match rate {
                Some(rate) => drop(annotations.insert(annotation, json!(rate.to_string()))),
                None => drop(annotations.remove(&annotation)),
            }
        }
        for (key, value) in self.way.into_iter().flat_map(Way::keys) {
            config[key] = json!(value);
        }
        if let (Some(_), Some(queue)) = (self.way, &self.queue) {
            config["queue"] = json!(queue);
        }
        let mut environment = recorded["environment"].take();
        for (key, value) in [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", &target.container),
            ("CNI_NETNS", &target.netns),
            ("CNI_IFNAME", &target.ifname),
        ] {
            environment[key] = json!(value);
        }
        let pairs = environment.as_object().expect("an object of texts");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Invocation {
            program: self.program.clone(),
            environment: pairs.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
            input: config.to_string().into_bytes(),
        }
    }
}

impl Target {
    /// `eth0` of a pod.
    pub(crate) fn eth0(pod: &Pod) -> Self {
        Self {
            // As long as real ones are.
            container: "23eb01114b9940058db0b14f222259949cd54dc0f2434e7e31cc84ee4bacdac7".into(),
            netns: pod.ns.path(),
            ifname: pod.eth0.name.clone(),
            prev_result: pod.result(&pod.eth0, "1.0.0"),
        }
    }

    /// One of many interfaces in the namespace `inside`, each a pod of its own to the plugins.
    pub(crate) fn neighbour(inside: &Ns, at: &Interface, number: usize) -> Self {
        let prev_result = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": at.host}, {"name": at.name, "sandbox": inside.path()}],
            "ips": [{"address": "10.88.77.20/24", "gateway": "10.88.77.1", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0"}],
        });
        Self {
            container: format!("{number:064x}"),
            netns: inside.path(),
            ifname: at.name.clone(),
            prev_result,
        }
    }
}

impl Invocation {
    /// A program without arguments, environment or input.
    pub(crate) fn bare(program: &Path) -> Self {
        Self { program: program.to_owned(), environment: Vec::new(), input: Vec::new() }
    }
}
