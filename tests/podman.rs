//! The plugin under podman with its CNI backend: no annotations reach it there, so the limits are
//! those of the list.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{Flow, Keeper, Lab, PLUGIN, Sender, Shape, Traffic, Way, role_call};
use serde_json::json;

const M: u64 = 1_000_000;
const ROOT: &str = "/run/node";

/// podman with files of its own.
struct Podman {
    keeper: Keeper,
}

impl Podman {
    fn open(lab: &Lab) -> Option<Self> {
        let busybox = common::require_peer("busybox")?;
        common::require_peer("podman")?;
        common::require_peer("runc")?;
        let plugins = ["ptp", "host-local"].map(|name| Some((name, common::require_peer(name)?)));
        let plugins: Vec<_> = plugins.into_iter().collect::<Option<_>>()?;
        // libcni keeps its results here whatever the configuration says.
        lab.private_folder("/var/lib/cni");
        let keeper = Keeper::start(lab);
        let path = |name: &str| keeper.path(&format!("{ROOT}/{name}"));
        for folder in ["bin", "net.d", "rootfs/bin", "rootfs/proc", "rootfs/lib", "rootfs/lib64"] {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        std::fs::copy(busybox, path("rootfs/bin/busybox")).unwrap();
        for (name, file) in plugins.into_iter().chain([("pod-bandwidth", PLUGIN.into())]) {
            std::os::unix::fs::symlink(file, path("bin/") + name).unwrap();
        }
        let ptp = json!({"type": "ptp", "ipam": {
            "type": "host-local", "subnet": "10.88.0.0/24", "dataDir": format!("{ROOT}/ipam"),
        }});
        let ours = json!({"type": "pod-bandwidth", "ingressRate": 10 * M, "egressRate": 20 * M});
        let list = json!({"cniVersion": "0.4.0", "name": "podnet", "plugins": [ptp, ours]});
        std::fs::write(path("net.d/10-podnet.conflist"), list.to_string()).unwrap();
        let config = format!(
            "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"{ROOT}/bin\"]\n\
             network_config_dir = \"{ROOT}/net.d\"\n\
             [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"
        );
        std::fs::write(path("containers.conf"), config).unwrap();
        Some(Self { keeper })
    }

    /// Runs podman, which must succeed, and gives back what it printed.
    fn run(&self, arguments: &[&str]) -> String {
        let (root, run, tmp) =
            (format!("{ROOT}/root"), format!("{ROOT}/run"), format!("{ROOT}/tmp"));
        let own = ["podman", "--root", &root, "--runroot", &run, "--tmpdir", &tmp];
        let argv = [&own[..], &["--storage-driver", "vfs"], arguments].concat();
        let output = self
            .keeper
            .command(&argv)
            .env("CONTAINERS_CONF", format!("{ROOT}/containers.conf"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{argv:?}: {output:#?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts a container that plays `role`.
    fn start(&self, name: &str, role: &str) {
        let (program, options, (key, role)) = role_call(role);
        let libraries = ["/lib", "/lib64"].into_iter().filter(|path| Path::new(path).is_dir());
        let mounts = libraries.map(|path| format!("--volume={path}:{path}:ro"));
        let mut arguments = vec!["run".to_owned(), "--detach".to_owned()];
        arguments.extend(mounts);
        arguments.extend([
            format!("--volume={}:/role:ro", program.display()),
            format!("--name={name}"),
            "--network=podnet".to_owned(),
            format!("--cgroup-parent=/{}", self.keeper.cgroup()),
            format!("--env={key}={role}"),
            "--rootfs".to_owned(),
            format!("{ROOT}/rootfs"),
            "/role".to_owned(),
        ]);
        arguments.extend(options);
        self.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn a_container_of_podman_has_the_limits_of_its_list() {
    let Some(lab) = Lab::open() else { return };
    if lab.user {
        return common::skip("podman is run as root here: run the tests as root");
    }
    let Some(podman) = Podman::open(&lab) else { return };
    // given a container that sends as much as it can
    let (mut flow, target) = Flow::listen(&lab, "0.0.0.0", 1);
    let target = target.replace("0.0.0.0", "10.88.0.1");
    let traffic = Traffic { congestion: "reno", flows: 1, duration: Duration::from_secs(60) };
    podman.start("sender", &Sender::role(&target, &traffic));
    // then it has the limits of the list, and keeps to them
    let namespace =
        podman.run(&["inspect", "--format", "{{.NetworkSettings.SandboxKey}}", "sender"]);
    let pod = lab.adopt(&podman.keeper.path(&namespace));
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M));
    flow.until(Duration::from_secs(3));
    let rate = flow.throughput().steady_bits / (20 * M) as f64;
    eprintln!("from the container: {rate:.3} of 20 Mbit/s");
    assert!((0.8..=1.1).contains(&rate), "{rate:.3} of the limit");
    // and nothing is left when it is stopped and removed
    drop(pod);
    podman.run(&["stop", "--time", "0", "sender"]);
    podman.run(&["rm", "--force", "sender"]);
    let left: Vec<_> =
        lab.links().into_iter().filter(|link| link["link_type"] == "ether").collect();
    assert!(left.is_empty(), "{left:#?}");
}
