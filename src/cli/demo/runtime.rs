//! The part of a container runtime: calls the plugin as a process with CNI's
//! environment and the network configuration on stdin, as containerd does.

use std::io::{self, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::network::{HOST, POD, PREFIX};
use super::{Error, Options};

/// Version of the CNI specification that the demo speaks.
const CNI_VERSION: &str = "1.1.0";

/// What containerd passes as the burst when nobody gave one: "no limit".
const NO_BURST: u32 = u32::MAX;

/// Our own executable, also when its file was moved or deleted meanwhile.
const EXECUTABLE: &str = "/proc/self/exe";

/// What a call of the plugin gave.
#[derive(Debug)]
pub(super) struct Answer {
    /// stdout: the result; `Null` when it was empty, as for DEL.
    pub(super) result: Value,
    /// stderr: what the plugin said beside it.
    pub(super) log: String,
    /// Wall time of the process, its start included.
    pub(super) time: Duration,
}

/// Calls the plugin for the demo's pod.
///
/// # Errors
/// When it cannot be started, ends with an error, or its answer is no JSON.
pub(super) fn call(verb: &str, netns: &Path, config: &Value) -> Result<Answer, Error> {
    let start = Instant::now();
    let error = |error: io::Error| {
        Error::step(
            format!("call the plugin with CNI_COMMAND={verb}"),
            error,
            "The plugin is this program, started from /proc/self/exe: is /proc mounted?",
        )
    };
    let mut child = Command::new(EXECUTABLE)
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", "demo")
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", POD.name)
        .env("CNI_PATH", "/opt/cni/bin")
        .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=demo")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(error)?;
    // A thread writes, so that neither side waits for the other on a full pipe.
    let writing = child.stdin.take().map(|stdin| write(stdin, config.to_string()));
    let output = child.wait_with_output().map_err(error)?;
    let time = start.elapsed();
    drop(writing.map(thread::JoinHandle::join));

    let log = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let result = match text.as_str() {
        "" => Ok(Value::Null),
        text => serde_json::from_str(text),
    };
    match result {
        Ok(result) if output.status.success() => Ok(Answer { result, log, time }),
        Ok(Value::Object(error)) => Err(Error::refused(verb, &error)),
        _ => Err(Error::Answer { verb: verb.to_owned(), status: output.status, text, log }),
    }
}

/// Writes the configuration and closes the pipe. That the plugin ends without
/// reading it all is no failure of the writer.
fn write(mut stdin: ChildStdin, text: String) -> thread::JoinHandle<()> {
    thread::spawn(move || drop(stdin.write_all(text.as_bytes())))
}

/// The network configuration of our entry in the list, as a runtime passes it
/// after the plugins before it have run.
pub(super) fn config(options: &Options, netns: &Path, prev_result: Option<&Value>) -> Value {
    let mut annotations = json!({
        "kubernetes.io/ingress-bandwidth": options.ingress.text,
        "kubernetes.io/egress-bandwidth": options.egress.text,
    });
    if let Some(burst) = &options.burst {
        annotations["qos.projectcalico.org/ingressBurst"] = json!(burst.text);
        annotations["qos.projectcalico.org/egressBurst"] = json!(burst.text);
    }
    json!({
        "cniVersion": CNI_VERSION,
        "name": "demo",
        "type": "pod-bandwidth",
        "capabilities": {"bandwidth": true, "io.kubernetes.cri.pod-annotations": true},
        "placement": options.placement,
        "hostIngress": options.host_ingress,
        "runtimeConfig": {
            // containerd's spelling.
            "bandwidth": {
                "IngressRate": options.ingress.bits,
                "IngressBurst": NO_BURST,
                "EgressRate": options.egress.bits,
                "EgressBurst": NO_BURST,
            },
            "io.kubernetes.cri.pod-annotations": annotations,
        },
        "prevResult": prev_result.cloned().unwrap_or_else(|| before(netns)),
    })
}

/// The result of the plugin that would have made the veth.
fn before(netns: &Path) -> Value {
    let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
    json!({
        "cniVersion": CNI_VERSION,
        "interfaces": [
            {"name": HOST.name, "mac": mac(HOST.mac)},
            {"name": POD.name, "mac": mac(POD.mac), "sandbox": netns},
        ],
        "ips": [{
            "address": format!("{}/{PREFIX}", POD.address),
            "gateway": HOST.address,
            "interface": 1,
        }],
        "routes": [{"dst": "0.0.0.0/0"}],
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn config_of(line: &[&str], prev_result: Option<&Value>) -> Value {
        let line = Line::parse_from(["demo"].iter().chain(line));
        config(&line.options, Path::new("/proc/1/ns/net"), prev_result)
    }

    #[test]
    fn the_plugin_gets_both_channels_as_containerd_fills_them() {
        let config = config_of(&[], None);
        assert_eq!(
            config["runtimeConfig"],
            json!({
                "bandwidth": {
                    "IngressRate": 10_000_000, "IngressBurst": 4_294_967_295u64,
                    "EgressRate": 20_000_000, "EgressBurst": 4_294_967_295u64,
                },
                "io.kubernetes.cri.pod-annotations": {
                    "kubernetes.io/ingress-bandwidth": "10M",
                    "kubernetes.io/egress-bandwidth": "20M",
                },
            })
        );
        assert_eq!(
            (&config["placement"], &config["hostIngress"]),
            (&json!("auto"), &json!("auto"))
        );
    }

    #[test]
    fn options_reach_the_plugin_as_they_were_written() {
        let line = ["--ingress=1.5Mi", "--burst=64k", "--placement=host", "--host-ingress=hooks"];
        let config = config_of(&line, None);
        let annotations = &config["runtimeConfig"]["io.kubernetes.cri.pod-annotations"];
        for (got, want) in [
            (&annotations["kubernetes.io/ingress-bandwidth"], "1.5Mi"),
            (&annotations["qos.projectcalico.org/ingressBurst"], "64k"),
            (&annotations["qos.projectcalico.org/egressBurst"], "64k"),
            (&config["placement"], "host"),
            (&config["hostIngress"], "hooks"),
        ] {
            assert_eq!(got, want);
        }
    }

    #[test]
    fn add_gets_the_result_of_the_plugin_before_and_del_the_one_of_add() {
        let before = &config_of(&[], None)["prevResult"];
        assert_eq!(before["interfaces"][0]["name"], "veth-demo");
        assert_eq!(before["interfaces"][1]["sandbox"], "/proc/1/ns/net");
        assert_eq!(before["ips"][0]["address"], "198.18.0.2/30");
        let added = json!({"cniVersion": "1.1.0", "more": true});
        assert_eq!(config_of(&[], Some(&added))["prevResult"], added);
    }
}
