//! A node: the namespaces that containerd lives in, and its process.

use std::cell::{Cell, RefCell};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::client::Cri;
use super::config::{IMAGE, ROOT, Runtime, plugins};
use super::image;
use super::messages::{Empty, ImageSpec, ImageStatusRequest, ImageStatusResponse, StatusResponse};
use crate::common::{Keeper, Lab, PLUGIN, require_peer, skip};

/// How long containerd may take to come up: half a second here, more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node with a running containerd. Its pods' host interfaces are in `lab`.
pub struct Node {
    /// Which containerd.
    pub runtime: Runtime,
    containerd: RefCell<Option<Child>>,
    cri: RefCell<Option<Cri>>,
    keeper: Keeper,
    /// One node at a time: they measure.
    _turn: MutexGuard<'static, ()>,
    /// Numbers for the names of sandboxes.
    pub(super) next: Cell<u32>,
    /// Dropped last: the namespaces of the network.
    pub lab: Lab,
}

impl Node {
    /// Starts a node, where the machine has what it takes; else the test is skipped.
    pub fn open(runtime: fn() -> Option<Runtime>) -> Option<Self> {
        let lab = Lab::open()?;
        if lab.user {
            skip("containerd needs root: run the tests as root");
            return None;
        }
        let (runtime, plugins) = (runtime()?, plugins()?);
        let busybox = require_peer("busybox")?;
        static TURN: Mutex<()> = Mutex::new(());
        // A test that failed has cleaned up like one that passed.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // libcni keeps its results here whatever the configuration says.
        lab.private_folder("/var/lib/cni");
        let keeper = Keeper::start(&lab);
        let node = Self {
            runtime,
            containerd: RefCell::new(None),
            cri: RefCell::new(None),
            keeper,
            _turn: turn,
            next: Cell::new(0),
            lab,
        };
        for folder in ["bin", "net.d", "root", "state"] {
            std::fs::create_dir(node.path(folder)).expect("a folder on the tmpfs");
        }
        for (name, file) in plugins.into_iter().chain([("pod-bandwidth", PLUGIN.into())]) {
            std::os::unix::fs::symlink(file, node.path("bin/").clone() + name).expect("a link");
        }
        for (name, list) in node.runtime.lists() {
            std::fs::create_dir(node.path(&format!("net.d/{name}"))).expect("a folder");
            node.write(&format!("net.d/{name}/10-podnet.conflist"), &list.to_string());
        }
        node.write("containerd.toml", &node.runtime.config());
        node.start();
        image::build(&node, busybox.to_str().expect("a path in UTF-8"));
        let tar = format!("{ROOT}/image.tar");
        let ctr = node.program("ctr");
        let socket = format!("{ROOT}/containerd.sock");
        node.run(&[&ctr, "-a", &socket, "-n", "k8s.io", "images", "import", &tar]);
        // The CRI part of containerd hears of the image by an event.
        node.wait("the image", || node.has_image());
        Some(node)
    }

    /// The path of a file of the node below its root folder, as this process sees it.
    pub fn path(&self, name: &str) -> String {
        self.keeper.path(&format!("{ROOT}/{name}"))
    }

    /// Writes a file below the node's root folder.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Reads a file below the node's root folder; empty where there is none.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A path of the node (`/var/run/…`) as this process sees it.
    pub fn outside(&self, path: &str) -> String {
        // /var/run is a link to /run, and an absolute link would lead out of the node.
        let path = path.strip_prefix("/var").filter(|path| path.starts_with("/run/"));
        self.keeper.path(path.expect("a path in /var/run"))
    }

    /// A command inside the node; the chosen generation's programs come first.
    fn command(&self, argv: &[&str]) -> Command {
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut command = self.keeper.command(argv);
        command.env("PATH", format!("{}:{system}", self.runtime.folder.display()));
        command
    }

    /// Runs `argv` in the node, which must succeed.
    pub fn run(&self, argv: &[&str]) -> String {
        let output = self.command(argv).stdin(Stdio::null()).output().expect("nsenter starts");
        assert!(output.status.success(), "{argv:?}: {output:#?}{}", self.last_words());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn program(&self, name: &str) -> String {
        self.runtime.folder.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    fn start(&self) {
        let log = self.path("containerd.log");
        let log = std::fs::File::options().append(true).create(true).open(log);
        let log = log.expect("a log on the tmpfs");
        let program = self.program("containerd");
        let child = self
            .command(&[&program, "-c", &format!("{ROOT}/containerd.toml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor"))
            .stderr(log)
            .spawn()
            .expect("nsenter starts");
        self.containerd.replace(Some(child));
        self.wait("containerd", || {
            if self.cri.borrow().is_none() {
                self.cri.replace(Cri::connect(&self.path("containerd.sock")).ok());
            }
            self.is_ready()
        });
    }

    /// Kills containerd as a crash does, and starts it again; its pods go on meanwhile.
    pub fn restart(&self) {
        self.cri.replace(None);
        self.stop();
        self.start();
    }

    fn stop(&self) {
        if let Some(mut child) = self.containerd.take() {
            // nsenter dies, and setpriv's death signal ends containerd.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Calls CRI.
    pub(super) fn cri<T>(&self, call: impl FnOnce(&Cri) -> T) -> T {
        call(self.cri.borrow().as_ref().expect("containerd was started"))
    }

    fn is_ready(&self) -> bool {
        self.complaints().is_some_and(|words| words.is_empty())
    }

    /// What the runtime says of the conditions that do not hold, as a kubelet reads them; `None`
    /// where it gives no answer yet.
    fn complaints(&self) -> Option<String> {
        let cri = self.cri.borrow();
        let status = cri.as_ref()?.call("RuntimeService", "Status", Empty {});
        let status: StatusResponse = status.ok()?;
        // containerd 2 adds conditions of its own (deprecated settings) that no kubelet reads.
        let read = |kind: &str| ["RuntimeReady", "NetworkReady"].contains(&kind);
        let conditions = status.status?.conditions.into_iter();
        let failed = conditions.filter(|condition| read(&condition.kind) && !condition.status);
        Some(failed.map(|condition| format!("{}: {}", condition.kind, condition.message)).collect())
    }

    /// Waits until the conditions that do not hold are as `wanted`; empty: all hold.
    pub fn wait_for_status(&self, what: &str, wanted: fn(&str) -> bool) {
        self.wait(what, || self.complaints().is_some_and(|words| wanted(&words)));
    }

    fn has_image(&self) -> bool {
        let image = Some(ImageSpec { image: IMAGE.to_owned() });
        let answer: Result<ImageStatusResponse, _> =
            self.cri(|cri| cri.call("ImageService", "ImageStatus", ImageStatusRequest { image }));
        answer.is_ok_and(|answer| answer.image.is_some())
    }

    /// Asks until `done`, at most as long as [`PATIENCE`].
    pub fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let patience = Instant::now() + PATIENCE;
        while !done() {
            assert!(
                Instant::now() < patience,
                "{what}: not there; the runtime says {:?}{}",
                self.complaints(),
                self.last_words()
            );
            // Gives the processor to those who are waited for.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The end of containerd's log, for a failure.
    pub fn last_words(&self) -> String {
        let log = self.read("containerd.log");
        let lines: Vec<_> = log.lines().filter(|line| !line.contains("level=info")).collect();
        let from = lines.len().saturating_sub(15);
        format!("\ncontainerd's log:\n{}", lines[from..].join("\n"))
    }

    /// The name of the cgroup that all pods of this node are below.
    pub fn cgroup(&self) -> &str {
        self.keeper.cgroup()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
        self.cri.replace(None);
        self.stop();
    }
}
