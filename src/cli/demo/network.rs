//! The demo's private network: namespaces that live as long as this process, a
//! host side and a pod joined by a veth. It knows namespaces and threads; links
//! are the kernel module's matter.
//!
//! The main thread is the host. The pod is a thread that has its own network
//! namespace and does what it is given. There is no name and no mount of either
//! in the file system: when the process ends, however it ends, the kernel takes
//! the namespaces away and with them the veth, the qdiscs and the IFBs.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid, gettid};

use super::Error;
use super::inventory::Sides;
use crate::kernel::sandbox::{self, VethEnd};
use crate::kernel::{KernelError, NetNs, Socket};

/// The host's end of the veth.
pub(super) const HOST: VethEnd<'static> = VethEnd {
    name: "veth-demo",
    // Locally administered addresses, so that prevResult can be written before they are read.
    mac: [0x02, 0, 198, 18, 0, 1],
    address: Ipv4Addr::new(198, 18, 0, 1),
};

/// The pod's end. The addresses are from the block for benchmarks (RFC 2544), so
/// they are nobody's.
pub(super) const POD: VethEnd<'static> =
    VethEnd { name: "eth0", mac: [0x02, 0, 198, 18, 0, 2], address: Ipv4Addr::new(198, 18, 0, 2) };

/// Bits of the network part of both addresses.
pub(super) const PREFIX: u8 = 30;

/// Host and pod, joined.
#[derive(Debug)]
pub(super) struct Network {
    jobs: mpsc::Sender<Job>,
    netns: PathBuf,
}

type Job = Box<dyn FnOnce() + Send>;

impl Network {
    /// Puts this process into namespaces of its own and makes the pod.
    ///
    /// Only while the process has one thread: the kernel lets no other enter a
    /// new user namespace.
    pub(super) fn new() -> Result<Self, Error> {
        enter_namespaces()?;
        let (jobs, netns) = start_pod()?;
        let network = Self { jobs, netns };
        let [mut host, mut pod] = network.sockets()?;
        let namespace = NetNs::open(network.netns()).map_err(Error::kernel)?;
        sandbox::create_veth(&mut host, &HOST, &POD, &namespace).map_err(veth_error)?;
        sandbox::bring_up(&mut host, &HOST, PREFIX).map_err(Error::kernel)?;
        sandbox::bring_up(&mut pod, &POD, PREFIX).map_err(Error::kernel)?;
        Ok(network)
    }

    /// A path of the pod's network namespace, for CNI_NETNS.
    pub(super) fn netns(&self) -> &Path {
        &self.netns
    }

    /// Does `work` in the pod's namespace and returns what it gives.
    pub(super) fn in_pod<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (give, take) = mpsc::sync_channel(1);
        // Neither end can be gone before the other: the thread ends with `jobs`.
        let job = Box::new(move || drop(give.send(work())));
        self.jobs.send(job).map_err(|_| Error::pod_died())?;
        take.recv().map_err(|_| Error::pod_died())
    }

    /// Links and qdiscs of the host's and of the pod's side.
    pub(super) fn inventory(&self) -> Result<Sides, Error> {
        let [mut host, mut pod] = self.sockets()?;
        Ok(Sides {
            host: sandbox::inventory(&mut host).map_err(Error::kernel)?,
            pod: sandbox::inventory(&mut pod).map_err(Error::kernel)?,
        })
    }

    /// Netlink sockets of the host's and of the pod's namespace.
    fn sockets(&self) -> Result<[Socket; 2], Error> {
        let host = Socket::open().map_err(Error::kernel)?;
        Ok([host, self.in_pod(Socket::open)?.map_err(Error::kernel)?])
    }
}

fn veth_error(error: KernelError) -> Error {
    match error.errno() {
        Some(Errno::EOPNOTSUPP) => Error::step(
            "make a veth",
            Errno::EOPNOTSUPP,
            "This kernel has no veth: load or install the module (CONFIG_VETH).",
        ),
        _ => Error::kernel(error),
    }
}

/// Enters new mount and network namespaces, inside a new user namespace where this process may
/// not do it otherwise: a plain user, root in a container.
fn enter_namespaces() -> Result<(), Error> {
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    match unshare(own) {
        Err(Errno::EPERM) => enter_with_user(own)?,
        result => result.map_err(|errno| {
            let help = "The kernel must have network namespaces (CONFIG_NET_NS), and may allow \
                        no more of them: see sysctl user.max_net_namespaces.";
            Error::step("enter new mount and network namespaces", errno, help)
        })?,
    }
    // Nothing that is mounted here from now on can come out.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|errno| Error::step("make the mounts private", errno, USER_HELP))
}

/// Enters the namespaces of `own` and a user namespace in which this user is root.
fn enter_with_user(own: CloneFlags) -> Result<(), Error> {
    // Before unshare: afterwards they are "nobody" until the maps are written.
    let (uid, gid) = (geteuid(), getegid());
    unshare(own | CloneFlags::CLONE_NEWUSER).map_err(|errno| {
        Error::step("enter new user, mount and network namespaces", errno, USER_HELP)
    })?;
    // Without a privilege outside only these can be written: one user, one group, and the group
    // only after setgroups is off (user_namespaces(7)).
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        fs::write(&path, text)
            .map_err(|error| Error::step(format!("write {path}"), error, USER_HELP))?;
    }
    Ok(())
}

/// What can stop user namespaces, by distribution.
const USER_HELP: &str = "Run it as root, or allow user namespaces: \
     user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 (Debian), \
     kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu).";

/// Starts the thread that is the pod. Returns where to send its work and the
/// path of its network namespace.
fn start_pod() -> Result<(mpsc::Sender<Job>, PathBuf), Error> {
    let (jobs, todo) = mpsc::channel::<Job>();
    let (give, take) = mpsc::sync_channel(1);
    let work = move || {
        let entered = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
        if give.send(entered).is_ok() {
            todo.into_iter().for_each(|job| job());
        }
    };
    thread::Builder::new().name("pod".to_owned()).spawn(work).map_err(pod_error)?;
    let tid =
        take.recv().map_err(|_| Error::pod_died())?.map_err(|errno| pod_error(errno.into()))?;
    // As the plugin is another process, "self" would be the wrong one.
    let netns = format!("/proc/{}/task/{tid}/ns/net", process::id());
    Ok((jobs, PathBuf::from(netns)))
}

fn pod_error(error: io::Error) -> Error {
    Error::step(
        "make the pod's network namespace",
        error,
        "The kernel may allow no more of them: see sysctl user.max_net_namespaces.",
    )
}
