//! Sandboxes and containers, as a kubelet makes them.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::config::{IMAGE, ROOT};
use super::messages::{
    ContainerConfig, ContainerMetadata, ContainerStatusResponse, CreateContainerRequest, Empty, Id,
    ImageSpec, KeyValue, LinuxPodSandboxConfig, Mount, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxStatus, RunPodSandboxRequest, StatusOf, StopContainerRequest,
};
use super::node::Node;
use crate::common::{Pod, role_call, told};

/// `ContainerState` of CRI.
const RUNNING: i32 = 1;
const EXITED: i32 = 2;

/// A pod that containerd runs.
pub struct Sandbox<'a> {
    node: &'a Node,
    /// Its ID.
    pub id: String,
    config: PodSandboxConfig,
}

/// A container of a sandbox; it plays a role of the harness (`common::roles`).
pub struct Container<'a> {
    node: &'a Node,
    /// Its ID.
    pub id: String,
    log: String,
}

impl Node {
    /// RunPodSandbox with the runtime handler `handler` ("" is the default one).
    pub fn sandbox(&self, handler: &str, annotations: &[(&str, &str)]) -> Sandbox<'_> {
        let sandbox = self.try_sandbox(handler, annotations);
        sandbox.unwrap_or_else(|error| panic!("RunPodSandbox: {error}{}", self.last_words()))
    }

    /// The same, which may fail; the error is what a kubelet would put into the pod's events.
    pub fn try_sandbox(
        &self,
        handler: &str,
        annotations: &[(&str, &str)],
    ) -> Result<Sandbox<'_>, String> {
        let number = self.next.replace(self.next.get() + 1);
        let name = format!("web-{number}");
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: format!("00000000-0000-0000-0000-{number:012}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.clone(),
            log_directory: format!("{ROOT}/logs/{name}"),
            annotations: annotations.iter().map(text).collect::<HashMap<_, _>>(),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent: format!("/{}", self.cgroup()) }),
        };
        std::fs::create_dir_all(self.path(&format!("logs/{name}"))).expect("a folder");
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let answer: Id = self.cri(|cri| cri.call("RuntimeService", "RunPodSandbox", request))?;
        Ok(Sandbox { node: self, id: answer.id, config })
    }
}

impl<'a> Sandbox<'a> {
    /// The pod's network for the harness: its namespace, its `eth0` and the host end of that.
    pub fn pod(&self) -> Pod {
        let request = StatusOf { id: self.id.clone(), verbose: true };
        let status: PodSandboxStatus = self.node.cri(|cri| cri.ok("PodSandboxStatus", request));
        let info: Value = serde_json::from_str(&status.info["info"]).expect("verbose is JSON");
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().expect("a list");
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
        let path = network.and_then(|network| network["path"].as_str()).expect("a network");
        self.node.lab.adopt(&self.node.outside(path))
    }

    /// Starts a container that plays `role`.
    pub fn container(&self, role: &str) -> Container<'a> {
        let (program, options, (key, role)) = role_call(role);
        let number = self.node.next.replace(self.node.next.get() + 1);
        let log = format!("{number}.log");
        let mut command = vec!["/role".to_owned()];
        command.extend(options);
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: format!("c{number}"), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.to_owned() }),
            command,
            envs: vec![KeyValue { key: key.to_owned(), value: role }],
            mounts: mounts(&program),
            log_path: log.clone(),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let created: Id = self.node.cri(|cri| cri.ok("CreateContainer", request));
        let id = Id { id: created.id.clone() };
        let Empty {} = self.node.cri(|cri| cri.ok("StartContainer", id));
        let folder = self.config.log_directory.strip_prefix(ROOT).expect("made by Node::sandbox");
        let log = format!("{}/{log}", folder.trim_start_matches('/'));
        Container { node: self.node, id: created.id, log }
    }

    /// StopPodSandbox.
    pub fn stop(&self) {
        let Empty {} = self.node.cri(|cri| cri.ok("StopPodSandbox", Id { id: self.id.clone() }));
    }

    /// StopPodSandbox and RemovePodSandbox.
    pub fn remove(self) {
        self.stop();
        let Empty {} = self.node.cri(|cri| cri.ok("RemovePodSandbox", Id { id: self.id.clone() }));
    }
}

impl Container<'_> {
    /// What the role has said to the harness so far: containerd writes it into the log.
    pub fn said(&self) -> Vec<String> {
        self.node.read(&self.log).lines().filter_map(told).map(str::to_owned).collect()
    }

    /// Waits for the first line that the role says.
    pub fn first_line(&self) -> String {
        self.node.wait("a container's first line", || {
            let (state, code) = self.state();
            assert!(state <= RUNNING, "ended with {code}: {}", self.node.read(&self.log));
            !self.said().is_empty()
        });
        self.said().remove(0)
    }

    /// Waits until the role has ended, and it must have ended well.
    pub fn finish(&self) {
        self.node.wait("a container's end", || self.state().0 == EXITED);
        let log = self.node.read(&self.log);
        assert_eq!(self.state().1, 0, "the exit status of a container; it said {log}");
    }

    /// StopContainer, without grace.
    pub fn stop(&self) {
        let request = StopContainerRequest { container_id: self.id.clone(), timeout: 0 };
        let Empty {} = self.node.cri(|cri| cri.ok("StopContainer", request));
    }

    /// State and exit status.
    fn state(&self) -> (i32, i32) {
        let request = StatusOf { id: self.id.clone(), verbose: false };
        let answer: ContainerStatusResponse =
            self.node.cri(|cri| cri.ok("ContainerStatus", request));
        answer.status.map_or((-1, -1), |status| (status.state, status.exit_code))
    }
}

/// The test binary, and the libraries that it is linked to.
fn mounts(program: &Path) -> Vec<Mount> {
    let mount = |inside: &str, outside: &str| Mount {
        container_path: inside.to_owned(),
        host_path: outside.to_owned(),
        readonly: true,
    };
    let libraries = ["/lib", "/lib64"].into_iter().filter(|folder| Path::new(folder).is_dir());
    let mut mounts: Vec<_> = libraries.map(|folder| mount(folder, folder)).collect();
    mounts.push(mount("/role", program.to_str().expect("a path in UTF-8")));
    mounts
}
