//! Room for a whole container runtime: daemons, shims and containers that end with the test.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Lab, peer};

/// Namespaces for a runtime: those of a lab's network, and mount and process namespaces of its own
/// with an empty `/run` and `/dev/shm`.
///
/// A process outside holds them, and cleans up when they have ended: also when the test run is
/// killed, because then its standard input closes.
pub struct Keeper {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Process that has the node's mount namespace, and its process namespace for children.
    holder: u32,
    cgroup: String,
}

/// `cat` is process 1 of the node. When it ends the kernel kills everything inside, and only when
/// all is dead does unshare come back: the cgroups are empty then.
const KEEPER: &str = r#"
    exec 3<&0
    unshare --mount --pid --fork --mount-proc --kill-child sh -ec '
        mount -t tmpfs -o mode=755 tmpfs /run
        if [ -d /dev/shm ]; then mount -t tmpfs -o mode=1777 tmpfs /dev/shm; fi
        mkdir -p /run/node /run/netns
        echo ready
        exec cat >/dev/null' <&3 3<&- &
    echo "holder $!"
    exec 3<&- 0</dev/null
    wait
    for folder in /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1"; do
        if [ -d "$folder" ]; then find "$folder" -depth -type d -exec rmdir {} ';'; fi
    done"#;

impl Keeper {
    /// Makes the namespaces.
    pub fn start(lab: &Lab) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("pod-bandwidth-test-{}-{number}", std::process::id());
        let mut child = lab
            .command(&["sh", "-c", KEEPER, "sh", &cgroup])
            // Ctrl-C is for the test run; what is to be cleaned up then, this one does.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter starts");
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut said: Vec<String> = lines.by_ref().take(2).map_while(Result::ok).collect();
        said.sort();
        let holder = match &said[..] {
            [holder, ready] if ready == "ready" => holder.strip_prefix("holder "),
            _ => None,
        };
        let holder = holder.unwrap_or_else(|| panic!("no node: the keeper said {said:?}"));
        Self { stdin, holder: holder.parse().expect("a process id"), cgroup, child }
    }

    /// An absolute path of the inside as this process sees it.
    pub fn path(&self, path: &str) -> String {
        format!("/proc/{}/root{path}", self.holder)
    }

    /// A command inside; the kernel kills it when this thread ends.
    pub fn command(&self, argv: &[&str]) -> Command {
        // The holder itself stays in the outer process namespace; its child is process 1 inside.
        let holder = format!("/proc/{}/ns", self.holder);
        let mut command = Command::new(peer("nsenter").expect("Lab::open asked for it"));
        command
            .arg(format!("--net={holder}/net"))
            .arg(format!("--mount={holder}/mnt"))
            .arg(format!("--pid={holder}/pid_for_children"))
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
            .args(argv)
            .env("LC_ALL", "C");
        command
    }

    /// The name of a cgroup for everything that runs inside: it is removed at the end.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
