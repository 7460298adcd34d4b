//! Pods: what is asked of the API server, and what runs then.

use std::path::Path;

use serde_json::{Value, json};

use super::Cluster;
use crate::common::{Pod, role_call, told};

/// The port that the roles in these tests use, on the pod or on the node.
pub const PORT: u16 = 5001;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// What a pod's only container does with its role.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    /// Plays it, and fails when it has come to its end: the restart policy, Always, does the rest.
    PlayAndCrash,
    /// Plays it until it succeeds, and sleeps then.
    PlayUntilItSucceeds,
}

/// A pod to be.
#[derive(Clone, Debug)]
pub struct Manifest(Value);

/// A pod that the API server knows.
pub struct Running<'a> {
    cluster: &'a Cluster,
    /// Its name, in the namespace "default".
    pub name: String,
    uid: String,
}

impl Manifest {
    /// A pod with these annotations that sleeps.
    pub fn new(name: &str, annotations: &[(&str, &str)]) -> Self {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        Self(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {
                "nodeName": "node1",
                "terminationGracePeriodSeconds": 1,
                // There is no DNS server, and kubelet would warn of that.
                "dnsPolicy": "Default",
                "containers": [{
                    "name": "main",
                    "image": "localhost/busybox:node",
                    "imagePullPolicy": "Never",
                }],
            },
        }))
    }

    /// The same with a container that plays `role` of the harness.
    pub fn plays(mut self, script: Script, role: &str) -> Self {
        let text = match script {
            Script::PlayAndCrash => "\"$@\"; exit 1",
            Script::PlayUntilItSucceeds => "until \"$@\"; do sleep 0.1; done; sleep 1000000",
        };
        let (program, options, (key, role)) = role_call(role);
        let program = program.to_str().expect("a path in UTF-8");
        let command = ["sh", "-c", text, "sh", "/role"].map(str::to_owned);
        // The test binary, and the libraries that it is linked to.
        let libraries = ["/lib", "/lib64"].into_iter().filter(|path| Path::new(path).is_dir());
        let files = libraries.map(|path| (path, path)).chain([(program, "/role")]);
        let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
        for (number, (outside, inside)) in files.enumerate() {
            let name = format!("file-{number}");
            volumes.push(json!({"name": name, "hostPath": {"path": outside}}));
            mounts.push(json!({"name": name, "mountPath": inside, "readOnly": true}));
        }
        let spec = &mut self.0["spec"];
        spec["volumes"] = json!(volumes);
        let container = &mut spec["containers"][0];
        container["command"] = json!([&command[..], &options[..]].concat());
        container["env"] = json!([{"name": key, "value": role}]);
        container["volumeMounts"] = json!(mounts);
        self
    }
}

impl Cluster {
    /// Creates a pod, and waits for nothing.
    pub fn create(&self, manifest: &Manifest) -> Running<'_> {
        let made = self.api("POST", PODS, Some(&manifest.0));
        let text = |key: &str| made["metadata"][key].as_str().expect("it has one").to_owned();
        Running { cluster: self, name: text("name"), uid: text("uid") }
    }

    /// Creates a pod, and waits until its container runs.
    pub fn run(&self, manifest: &Manifest) -> Running<'_> {
        let pod = self.create(manifest);
        self.wait(&format!("{} to run", pod.name), || pod.is_running().then_some(()));
        pod
    }

    /// How many pods there are, and how many of them run.
    pub fn count(&self) -> (usize, usize) {
        let list = self.api("GET", PODS, None);
        let pods = list["items"].as_array().expect("a list");
        (pods.len(), pods.iter().filter(|pod| is_running(pod)).count())
    }

    /// Deletes all pods, and waits until nothing is left of them.
    pub fn delete_all(&self) {
        self.api("DELETE", PODS, None);
        self.wait("the end of all pods", || (self.count().0 == 0).then_some(()));
        self.wait_until_nothing_is_left();
    }
}

fn is_running(pod: &Value) -> bool {
    let container = &pod["status"]["containerStatuses"][0];
    pod["status"]["podIP"].is_string() && container["state"]["running"].is_object()
}

impl Running<'_> {
    fn path(&self) -> String {
        format!("{PODS}/{}", self.name)
    }

    fn get(&self) -> Value {
        self.cluster.api("GET", &self.path(), None)
    }

    fn is_running(&self) -> bool {
        is_running(&self.get())
    }

    /// How often the container was started again, and the exit status of the run before this one.
    pub fn restarts(&self) -> (u64, Option<i64>) {
        let pod = self.get();
        let container = &pod["status"]["containerStatuses"][0];
        let count = container["restartCount"].as_u64().unwrap_or(0);
        (count, container["lastState"]["terminated"]["exitCode"].as_i64())
    }

    /// The pod's network for the harness.
    pub fn network(&self) -> Pod {
        let pod = self.get();
        let address = pod["status"]["podIP"].as_str().expect("it runs").to_owned();
        let lab = &self.cluster.lab;
        let entries = std::fs::read_dir(self.cluster.path("/run/netns")).expect("up made it");
        for entry in entries.map_while(Result::ok) {
            let name = entry.file_name().into_string().expect("the runtime's names are ASCII");
            // Another pod's may go away while we look.
            let shown = lab.attempt(&["ip", "-n", &name, "-j", "address", "show", "dev", "eth0"]);
            let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
            let addresses = shown[0]["addr_info"].as_array();
            if addresses.into_iter().flatten().any(|at| at["local"] == *address) {
                return lab.adopt(&format!("/run/netns/{name}"));
            }
        }
        panic!("no network namespace has {address}, the address of {}", self.name)
    }

    /// What the container's role has said to the harness in its run after `restarts` restarts.
    pub fn said(&self, restarts: u64) -> Vec<String> {
        let folder = format!("/run/node/pods/default_{}_{}/main", self.name, self.uid);
        let log = self.cluster.path(&format!("{folder}/{restarts}.log"));
        let text = std::fs::read_to_string(log).unwrap_or_default();
        text.lines().filter_map(told).map(str::to_owned).collect()
    }

    /// The messages of the pod's warnings.
    pub fn warnings(&self) -> Vec<String> {
        let query = format!("involvedObject.uid={},type=Warning", self.uid);
        let path = format!("/api/v1/namespaces/default/events?fieldSelector={query}");
        let list = self.cluster.api("GET", &path, None);
        let messages = list["items"].as_array().into_iter().flatten();
        messages.filter_map(|event| event["message"].as_str().map(str::to_owned)).collect()
    }

    /// Deletes the pod, and waits until the API server knows it no more.
    pub fn delete(self) {
        let path = self.path();
        self.cluster.api("DELETE", &path, None);
        self.cluster.wait(&format!("the end of {}", self.name), || {
            let error = self.cluster.call("GET", &path, None).err()?;
            assert!(error.contains("NotFound"), "{error}");
            Some(())
        });
    }
}
