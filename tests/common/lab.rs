//! Namespaces: a lab is a node, a pod is a namespace with veth pairs into the lab.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Ns, peer, roles, skip};

/// A node: network and mount namespaces of its own (and a user namespace for a plain user).
pub struct Lab {
    ns: Ns,
    holder: Holder,
    /// Numbers for addresses, given out once each.
    next: Rc<Cell<u8>>,
}

/// A pod's network namespace, and the lab that its host interfaces are in.
pub struct Pod {
    /// The pod's namespace.
    pub ns: Ns,
    /// The lab.
    pub host: Ns,
    /// Its first interface, as [`PodSpec`] asked for it.
    pub eth0: Interface,
    holder: Holder,
    next: Rc<Cell<u8>>,
}

/// One veth pair of a pod.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// Name in the lab.
    pub host: String,
    /// Name in the pod.
    pub name: String,
    /// Addresses without prefix length; the pairs are /30 and /64.
    pub host_v4: String,
    /// See `host_v4`.
    pub pod_v4: String,
    /// See `host_v4`.
    pub host_v6: String,
    /// See `host_v4`.
    pub pod_v6: String,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
}

/// What a pod's first veth pair is to look like.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Name in the lab.
    pub host: String,
    /// Name in the pod.
    pub name: String,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// IPv6 on the pair. Without it nothing is sent that no test asked for.
    pub ipv6: bool,
}

impl Default for PodSpec {
    fn default() -> Self {
        Self { host: "veth0".to_owned(), name: "eth0".to_owned(), mtu: 1500, ipv6: true }
    }
}

impl PodSpec {
    /// The default with another name on the host.
    pub fn host(name: &str) -> Self {
        Self { host: name.to_owned(), ..Self::default() }
    }
}

impl Lab {
    /// Opens a lab, as root or as a plain user; where that cannot be, skips the test (`None`).
    pub fn open() -> Option<Self> {
        roles::play_if_asked();
        for tool in ["nsenter", "unshare", "setpriv", "timeout", "ip", "tc", "ping"] {
            super::require_peer(tool)?;
        }
        let as_root = nix::unistd::geteuid().is_root();
        let attempts: &[bool] = if as_root { &[false, true] } else { &[true] };
        let mut refusals = Vec::new();
        for &user in attempts {
            let mut command = Command::new(peer("unshare")?);
            command.args(["--net", "--mount"]);
            if user {
                command.args(["--user", "--map-root-user"]);
            }
            match Holder::start(command.arg("cat")) {
                Ok(holder) => {
                    let ns = Ns { pid: holder.pid(), user, label: "lab".to_owned() };
                    ns.sh("ip link set lo up");
                    return Some(Self { ns, holder, next: Rc::new(Cell::new(1)) });
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        skip(&format!("no private network namespace: {}", refusals.join("; ")));
        None
    }

    /// A lab in namespaces that somebody else made and holds: for commands in it, and for pods that
    /// a runtime makes there.
    pub fn join(ns: Ns) -> Self {
        let holder = Holder::start(&mut ns.command(&["cat"]))
            .unwrap_or_else(|refusal| panic!("the namespaces of {}: {refusal}", ns.label));
        Self { ns, holder, next: Rc::new(Cell::new(1)) }
    }

    /// A pod with one veth pair: `eth0` inside, `host` in the lab, IPv4 and IPv6, MTU 1500.
    pub fn pod(&self, host: &str) -> Pod {
        self.pod_with(PodSpec::host(host))
    }

    /// A pod with the veth pair that `spec` says.
    pub fn pod_with(&self, spec: PodSpec) -> Pod {
        let (ns, holder) = self.namespace(&spec.host);
        let number = take(&self.next);
        let eth0 = Interface::make(&self.ns, &ns, &spec, number);
        Pod { ns, host: self.ns.clone(), eth0, holder, next: Rc::clone(&self.next) }
    }

    /// A pod with nothing in it but a loopback: what a runtime gives a CNI chain. The names and
    /// addresses of `eth0` are for the test to fill in.
    pub fn empty_pod(&self) -> Pod {
        let (ns, holder) = self.namespace("of a chain");
        let eth0 = Interface { name: "eth0".to_owned(), mtu: 1500, ..Interface::default() };
        Pod { ns, host: self.ns.clone(), eth0, holder, next: Rc::clone(&self.next) }
    }

    /// A pod that a runtime made, by the path of its network namespace: `eth0` and its addresses
    /// are what is found there, those of IPv6 aside.
    pub fn adopt(&self, namespace: &str) -> Pod {
        let enter = format!("--net={namespace}");
        let holder = Holder::start(&mut self.ns.command(&["nsenter", &enter, "cat"]))
            .unwrap_or_else(|refusal| panic!("the namespace {namespace}: {refusal}"));
        let ns = Ns { pid: holder.pid(), user: self.ns.user, label: "pod of a runtime".to_owned() };
        let inside = ns.link("eth0").unwrap_or_else(|| panic!("no eth0 in {namespace}"));
        let outside = self.ns.links().into_iter().find(|at| at["ifindex"] == inside["link_index"]);
        let address = |ns: &Ns, dev: &str| {
            let v4 = ns.addresses(dev).into_iter().find(|address| address["family"] == "inet");
            v4.and_then(|address| address["local"].as_str().map(str::to_owned)).unwrap_or_default()
        };
        let mut eth0 = Interface { name: "eth0".to_owned(), mtu: 1500, ..Interface::default() };
        let outside = outside.unwrap_or_else(|| panic!("no host end of {inside}"));
        eth0.host = outside["ifname"].as_str().expect("a name").to_owned();
        (eth0.host_v4, eth0.pod_v4) = (address(&self.ns, &eth0.host), address(&ns, "eth0"));
        Pod { ns, host: self.ns.clone(), eth0, holder, next: Rc::clone(&self.next) }
    }

    fn namespace(&self, label: &str) -> (Ns, Holder) {
        let holder = Holder::start(&mut self.ns.command(&["unshare", "--net", "cat"]))
            .unwrap_or_else(|refusal| panic!("a namespace for {label}: {refusal}"));
        let ns = Ns { pid: holder.pid(), user: self.ns.user, label: format!("pod {label}") };
        ns.sh("ip link set lo up");
        (ns, holder)
    }

    /// Makes an empty folder at `path` that only this lab sees; the host's own stays as it is.
    pub fn private_folder(&self, path: &str) {
        // The mount goes over the deepest folder that exists, so the host need not have `path`.
        let script = r#"
            base=$1
            while [ ! -d "$base" ]; do base=$(dirname "$base"); done
            base=$(readlink -f "$base")
            case "$2/" in "$base"/*) echo "the project is below $base" >&2; exit 1;; esac
            mount -t tmpfs tmpfs "$base" && mkdir -p "$1""#;
        self.run(&["sh", "-c", script, "sh", path, env!("CARGO_MANIFEST_DIR")]);
    }

    /// Gives the pod's namespace a file, as runtimes do: `path` as in `CNI_NETNS`. The folder has
    /// to be a [`Lab::private_folder`].
    pub fn name_namespace(&self, pod: &Ns, path: &str) {
        self.run(&["touch", path]);
        self.run(&["mount", "--bind", &pod.path(), path]);
    }
}

impl Deref for Lab {
    type Target = Ns;

    fn deref(&self) -> &Ns {
        &self.ns
    }
}

impl Pod {
    /// Adds a second veth pair: `name` in the pod, `host` in the lab.
    pub fn interface(&self, name: &str, host: &str) -> Interface {
        let spec = PodSpec { name: name.to_owned(), ..PodSpec::host(host) };
        Interface::make(&self.host, &self.ns, &spec, take(&self.next))
    }

    /// Deletes the veth pair and makes it again: same names, new indexes, nothing on it.
    pub fn recreate(&mut self, interface: &Interface) -> Interface {
        self.host.run(&["ip", "link", "del", &interface.host]);
        let spec = PodSpec {
            host: interface.host.clone(),
            name: interface.name.clone(),
            mtu: interface.mtu,
            ipv6: true,
        };
        let made = Interface::make(&self.host, &self.ns, &spec, take(&self.next));
        if self.eth0.name == made.name {
            self.eth0 = made.clone();
        }
        made
    }

    /// The result of the plugins before ours for `interface`, in the words of `version`.
    pub fn result(&self, interface: &Interface, version: &str) -> Value {
        let mut ip = json!({
            "address": format!("{}/30", interface.pod_v4),
            "gateway": interface.host_v4,
            "interface": 1,
        });
        if version.starts_with("0.") {
            ip["version"] = json!("4");
        }
        json!({
            "cniVersion": version,
            "interfaces": [
                {"name": interface.host, "mac": self.host.mac(&interface.host)},
                {
                    "name": interface.name,
                    "mac": self.ns.mac(&interface.name),
                    "sandbox": self.ns.path(),
                },
            ],
            "ips": [ip],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {},
        })
    }
}

impl Deref for Pod {
    type Target = Ns;

    fn deref(&self) -> &Ns {
        &self.ns
    }
}

impl Interface {
    fn make(lab: &Ns, pod: &Ns, spec: &PodSpec, number: u8) -> Self {
        let (host, name, mtu) = (spec.host.as_str(), spec.name.as_str(), spec.mtu.to_string());
        let made = Self {
            host: host.to_owned(),
            name: name.to_owned(),
            host_v4: format!("10.88.{number}.1"),
            pod_v4: format!("10.88.{number}.2"),
            host_v6: format!("fd88:{number}::1"),
            pod_v6: format!("fd88:{number}::2"),
            mtu: spec.mtu,
        };
        let peer_pid = pod.pid.to_string();
        // Two ends with the same index look like no pair to the kernel's link watch, and it then
        // takes up to a second to tell the carrier (linkwatch_urgent_event).
        let index = (100 + u32::from(number)).to_string();
        lab.run(&[
            "ip", "link", "add", host, "index", &index, "mtu", &mtu, "type", "veth", "peer",
            "name", name, "mtu", &mtu, "netns", &peer_pid,
        ]);
        let ends =
            [(lab, host, &made.host_v4, &made.host_v6), (pod, name, &made.pod_v4, &made.pod_v6)];
        for (ns, dev, v4, v6) in ends {
            // No link-local address: nothing then appears on the link a second later by itself.
            ns.run(&["ip", "link", "set", dev, "addrgenmode", "none"]);
            ns.run(&["ip", "addr", "add", &format!("{v4}/30"), "dev", dev]);
            if spec.ipv6 {
                ns.run(&["ip", "addr", "add", &format!("{v6}/64"), "dev", dev, "nodad"]);
            } else {
                ns.sysctl(&format!("net.ipv6.conf.{dev}.disable_ipv6"), "1");
            }
        }
        lab.run(&["ip", "link", "set", host, "up"]);
        pod.run(&["ip", "link", "set", name, "up"]);
        // The kernel tells the carrier a moment later by itself: what is seen before may change.
        for (ns, dev) in [(lab, host), (pod, name)] {
            let patience = Instant::now() + Duration::from_secs(10);
            while ns.link(dev).is_none_or(|link| link["operstate"] != "UP") {
                assert!(Instant::now() < patience, "{dev} in {} does not come up", ns.label);
            }
        }
        made
    }
}

/// The process that keeps a namespace alive: `cat`, which ends when its standard input closes,
/// so at the latest when the process of the test does.
struct Holder(Child);

impl Holder {
    /// Starts `command`, which has to become `cat` once its namespaces are there.
    fn start(command: &mut Command) -> Result<Self, String> {
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut holder = Self(spawned);
        let child = &mut holder.0;
        // Readiness: cat gives a line back, and cat runs only after the namespaces were made.
        let _ = child.stdin.as_mut().expect("piped").write_all(b"ready\n");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        if line == "ready\n" {
            return Ok(holder);
        }
        let mut words = String::new();
        let _ = child.stderr.as_mut().expect("piped").read_to_string(&mut words);
        Err(words.trim().to_owned())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn take(counter: &Cell<u8>) -> u8 {
    let number = counter.get();
    counter.set(number.checked_add(1).expect("fewer than 255 interfaces in a lab"));
    number
}
