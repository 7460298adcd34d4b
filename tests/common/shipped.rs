//! The program as it is shipped, called with what containerd hands over for a pod with limits.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Lab, PLUGIN, Pod, PodSpec, Way, ns, peer, tests_dir};

/// The release build, where it is there and not older than its sources; else the binary that cargo
/// built for the tests.
pub fn shipped_plugin() -> PathBuf {
    shipped(Path::new(PLUGIN))
}

/// The same of a program of this package: what `cargo build --release` made, or `scripts/package`.
pub fn shipped(built: &Path) -> PathBuf {
    let target = built.parent().and_then(Path::parent).expect("target/<profile>/<program>");
    let name = built.file_name().expect("a program");
    let libcs =
        ["musl", "gnu"].map(|libc| format!("{}-unknown-linux-{libc}/", std::env::consts::ARCH));
    let folders = [""].into_iter().chain(libcs.iter().map(String::as_str));
    let mut programs = folders.map(|folder| target.join(format!("{folder}release")).join(name));
    programs.find(|program| is_fresh(program) == Some(true)).unwrap_or_else(|| built.to_owned())
}

/// Asks the list of sources that cargo leaves beside a program: `program: source source …`.
fn is_fresh(program: &Path) -> Option<bool> {
    let modified = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let built = modified(program)?;
    let list = std::fs::read_to_string(program.with_extension("d")).ok()?;
    let (_, sources) = list.split_once(": ")?;
    let newest = sources.split_whitespace().map(|source| modified(Path::new(source)));
    Some(newest.collect::<Option<Vec<_>>>()?.into_iter().all(|source| source <= built))
}

/// containerd's recorded ADD of a pod, with limits of our choice: the annotations, and the rates
/// and bursts that containerd makes of them.
pub struct Recorded {
    environment: Value,
    config: Value,
}

impl Recorded {
    /// `rate` in bit/s, the same for both directions; the bursts stay containerd's. With a FIFO on
    /// every kernel: with fq_codel frames keep to the limit as well, but what the reader gets comes
    /// in lumps, 0.89 to 1.13 of a limit of 2 Mbit/s over three seconds (bbr, 6.1.192).
    pub fn add(rate: u64, way: Way) -> Self {
        let path = tests_dir("fixtures/containerd-2.4.2-kubelet.add.json");
        let text = std::fs::read_to_string(&path).expect("the fixture is there");
        let mut recorded: Value = serde_json::from_str(&text).expect("the fixture is JSON");
        let mut config = recorded["stdin"].take();
        for (name, key) in [("ingress", "Ingress"), ("egress", "Egress")] {
            let runtime = &mut config["runtimeConfig"];
            let bandwidth = &mut runtime["bandwidth"];
            assert_eq!(bandwidth[format!("{key}Burst")], 4_294_967_295_u64, "containerd's burst");
            bandwidth[format!("{key}Rate")] = json!(rate);
            let annotations = &mut runtime["io.kubernetes.cri.pod-annotations"];
            annotations[format!("kubernetes.io/{name}-bandwidth")] = json!(rate.to_string());
        }
        for (key, value) in way.keys().into_iter().chain([("queue", "fifo")]) {
            config[key] = json!(value);
        }
        Self { environment: recorded["environment"].take(), config }
    }

    /// A pod whose interfaces and namespace have the recorded names; MTU 1500.
    pub fn pod(&self, lab: &Lab) -> Pod {
        let interfaces = &self.config["prevResult"]["interfaces"];
        let text = |at: usize, key: &str| interfaces[at][key].as_str().expect("a text");
        let spec = PodSpec { name: text(1, "name").to_owned(), ..PodSpec::host(text(0, "name")) };
        let pod = lab.pod_with(spec);
        for (ns, at) in [(&pod.host, 0), (&pod.ns, 1)] {
            ns.run(&["ip", "link", "set", text(at, "name"), "address", text(at, "mac")]);
        }
        lab.private_folder("/var/run/netns");
        lab.name_namespace(&pod, self.environment["CNI_NETNS"].as_str().expect("a path"));
        pod
    }

    /// Makes the call, which must succeed.
    pub fn run(&self, lab: &Lab, plugin: &Path) {
        let timeout = peer("timeout").expect("Lab::open asked for it");
        let words = [&timeout, Path::new("20"), plugin];
        let pairs = self.environment.as_object().expect("an object of texts");
        let child = lab
            .command(&words.map(|word| word.to_str().expect("a path in UTF-8")))
            .env_clear()
            .envs(pairs.iter().map(|(key, value)| (key, value.as_str().expect("a text"))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter starts");
        let output = ns::feed(child, self.config.to_string().as_bytes());
        assert!(output.status.success(), "ADD by {}: {output:?}", plugin.display());
    }
}
