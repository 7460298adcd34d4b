//! Calls of the plugin as a runtime makes them: a process, the environment, JSON on standard input.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::{Map, Value, json};

use super::{Interface, Lab, Ns, Pod, Way, ns, peer};

/// The binary under test.
pub const PLUGIN: &str = env!("CARGO_BIN_EXE_pod-bandwidth");

/// Seconds after which a call that does not end is killed; `timeout` then exits with 124.
const PATIENCE_SECONDS: &str = "20";

/// One call that is still to be made.
#[derive(Clone, Debug)]
pub struct Call {
    node: Ns,
    environment: BTreeMap<String, String>,
    config: Map<String, Value>,
    stdin: Option<String>,
    privileged: bool,
    under: Vec<String>,
    program: String,
}

/// What a call left behind, the kernel aside.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which call it was, for messages.
    pub what: String,
    /// Exit status, `None` after a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The specification's error object.
#[derive(Clone, Debug)]
pub struct CniError {
    /// Error code.
    pub code: u64,
    /// `msg` and `details` together.
    pub text: String,
    /// The whole object.
    pub json: Value,
}

impl Call {
    /// ADD for `eth0` of `pod`: network "net", container "c1", version 1.0.0, prevResult as a
    /// plugin before ours would give it, no limits yet.
    pub fn add(pod: &Pod) -> Self {
        Self::for_pod("ADD", pod)
    }

    /// The same for CHECK.
    pub fn check(pod: &Pod) -> Self {
        Self::for_pod("CHECK", pod)
    }

    /// The same for DEL.
    pub fn del(pod: &Pod) -> Self {
        Self::for_pod("DEL", pod)
    }

    /// A verb that is about no pod: GC, STATUS, VERSION. No environment but `CNI_COMMAND`.
    pub fn node(lab: &Lab, verb: &str) -> Self {
        let config = json!({
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "pod-bandwidth",
            "capabilities": {"bandwidth": true, "io.kubernetes.cri.pod-annotations": true},
        });
        let Value::Object(config) = config else { unreachable!() };
        let call = Self {
            node: (**lab).clone(),
            environment: BTreeMap::new(),
            config,
            stdin: None,
            privileged: true,
            under: Vec::new(),
            program: PLUGIN.to_owned(),
        };
        call.env("CNI_COMMAND", verb).env("CNI_PATH", "/opt/cni/bin")
    }

    fn for_pod(verb: &str, pod: &Pod) -> Self {
        let config = json!({
            "cniVersion": "1.0.0",
            "name": "net",
            "type": "pod-bandwidth",
            "capabilities": {"bandwidth": true, "io.kubernetes.cri.pod-annotations": true},
            "prevResult": pod.result(&pod.eth0, "1.0.0"),
        });
        let Value::Object(config) = config else { unreachable!() };
        let call = Self {
            node: pod.host.clone(),
            environment: BTreeMap::new(),
            config,
            stdin: None,
            privileged: true,
            under: Vec::new(),
            program: PLUGIN.to_owned(),
        };
        call.env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", &pod.ns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0")
            .env("CNI_PATH", "/opt/cni/bin")
    }

    /// The same call with another verb.
    pub fn verb(self, verb: &str) -> Self {
        self.env("CNI_COMMAND", verb)
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Takes a variable out of the environment.
    pub fn without_env(mut self, key: &str) -> Self {
        self.environment.remove(key);
        self
    }

    /// `CNI_CONTAINERID`.
    pub fn container(self, id: &str) -> Self {
        self.env("CNI_CONTAINERID", id)
    }

    /// Another interface of the pod: `CNI_IFNAME`, and the prevResult that belongs to it.
    pub fn interface(self, pod: &Pod, interface: &Interface) -> Self {
        let result = pod.result(interface, "1.0.0");
        self.env("CNI_IFNAME", &interface.name).key("prevResult", result)
    }

    /// The network's name.
    pub fn network(self, name: &str) -> Self {
        self.key("name", json!(name))
    }

    /// `cniVersion` of the configuration and of prevResult.
    pub fn version(mut self, version: &str) -> Self {
        if let Some(Value::Object(result)) = self.config.get_mut("prevResult") {
            result.insert("cniVersion".to_owned(), json!(version));
            for ip in result.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
                match (version.starts_with("0."), ip.as_object_mut()) {
                    (true, Some(ip)) => drop(ip.insert("version".to_owned(), json!("4"))),
                    (false, Some(ip)) => drop(ip.remove("version")),
                    (_, None) => {}
                }
            }
        }
        self.key("cniVersion", json!(version))
    }

    /// A key of the network configuration.
    pub fn key(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    /// Takes a key out of the network configuration.
    pub fn without_key(mut self, key: &str) -> Self {
        self.config.remove(key);
        self
    }

    /// The placement and the way on the host.
    pub fn way(self, way: Way) -> Self {
        way.keys().into_iter().fold(self, |call, (key, value)| call.key(key, json!(value)))
    }

    /// One annotation of the pod.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        let runtime = self.config.entry("runtimeConfig").or_insert_with(|| json!({}));
        runtime["io.kubernetes.cri.pod-annotations"][key] = json!(value);
        self
    }

    /// The two annotations of Kubernetes; an empty text leaves one out.
    pub fn limits(mut self, to_pod: &str, from_pod: &str) -> Self {
        self.config.remove("runtimeConfig");
        let pairs = [("ingress", to_pod), ("egress", from_pod)];
        pairs.iter().filter(|(_, value)| !value.is_empty()).fold(self, |call, (name, value)| {
            call.annotation(&format!("kubernetes.io/{name}-bandwidth"), value)
        })
    }

    /// `runtimeConfig.bandwidth`.
    pub fn bandwidth(mut self, value: Value) -> Self {
        let runtime = self.config.entry("runtimeConfig").or_insert_with(|| json!({}));
        runtime["bandwidth"] = value;
        self
    }

    /// The whole configuration at once.
    pub fn config(mut self, config: Value) -> Self {
        let Value::Object(config) = config else { panic!("a configuration is an object") };
        self.config = config;
        self
    }

    /// The whole environment at once: an object of texts.
    pub fn environment(mut self, environment: &Value) -> Self {
        let pairs = environment.as_object().expect("an object of texts");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        self.environment = pairs.iter().map(|(key, value)| (key.clone(), text(value))).collect();
        self
    }

    /// Standard input as it is, JSON or not.
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.to_owned());
        self
    }

    /// The call has none of root's capabilities.
    pub fn without_privilege(mut self) -> Self {
        self.privileged = false;
        self
    }

    /// The plugin is run by another program: words before its own on the command line.
    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// A copy of the plugin at another path.
    pub fn program(mut self, path: &str) -> Self {
        path.clone_into(&mut self.program);
        self
    }

    /// Makes the call inside the lab, with nothing in its environment but what the call sets.
    pub fn run(&self) -> Outcome {
        let timeout = peer("timeout").expect("coreutils are there");
        let timeout = timeout.to_str().expect("a path in UTF-8");
        let setpriv = peer("setpriv").expect("Lab::open asked for it");
        let drop_all = [setpriv.to_str().expect("a path in UTF-8"), "--bounding-set", "-all", "--"];
        let prefix = if self.privileged { &[][..] } else { &drop_all[..] };
        let under: Vec<&str> = self.under.iter().map(String::as_str).collect();
        let words = [prefix, &[timeout, PATIENCE_SECONDS], &under, &[&self.program]].concat();
        let child = self
            .node
            .command(&words)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter starts");
        let config = Value::Object(self.config.clone()).to_string();
        let text = self.stdin.as_ref().unwrap_or(&config);
        let output = ns::feed(child, text.as_bytes());
        let get = |key: &str| self.environment.get(key).map_or("(unset)", String::as_str);
        Outcome {
            what: format!("{} {} with {text}", get("CNI_COMMAND"), get("CNI_IFNAME")),
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("the plugin prints UTF-8"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// [`Call::run`], which must succeed.
    pub fn ok(&self) -> Value {
        self.run().ok()
    }

    /// [`Call::run`], which must fail with `code`.
    pub fn error(&self, code: u64) -> CniError {
        self.run().error(code)
    }
}

impl Outcome {
    /// It succeeded: exit 0 and one JSON value, or nothing at all (`null`), on standard output.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, Some(0), "expected success: {self:#?}");
        if self.stdout.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON on standard output: {error}: {self:#?}"))
    }

    /// It failed as the specification says: exit 1 and an error object with this code.
    pub fn error(&self, code: u64) -> CniError {
        assert_eq!(self.status, Some(1), "expected an error {code}: {self:#?}");
        let json: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON on standard output: {error}: {self:#?}"));
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        assert!(json["cniVersion"].is_string(), "an error says its cniVersion: {self:#?}");
        assert!(!text("msg").is_empty(), "an error says something in msg: {self:#?}");
        assert_eq!(json["code"], code, "the code: {self:#?}");
        CniError { code, text: format!("{} {}", text("msg"), text("details")), json }
    }
}

impl CniError {
    /// The message names each of `words`.
    pub fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.text.contains(word), "{word:?} is missing in {:?}", self.text);
        }
        self
    }
}
