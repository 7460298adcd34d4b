//! Network namespaces: open one by its path, and work inside it for a moment.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};

use super::error::KernelError;

/// The calling thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
}

impl NetNs {
    /// What failed: to open the path.
    pub(super) const OPEN: &str = "open";

    /// What failed: another thing is at the path.
    pub(super) const IS_NONE: &str = "this is not a network namespace";

    /// Opens the namespace at `path`, such as CNI_NETNS names it.
    ///
    /// # Errors
    /// [`KernelError::Namespace`] where nothing is there or it is no network namespace.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KernelError> {
        let path = path.into();
        let failed = |call| {
            let path = path.clone();
            move |errno| KernelError::Namespace { path, call, errno }
        };
        // Without waiting, should it be a FIFO.
        let file = File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path)
            .map_err(|error| failed(Self::OPEN)(os_error(&error)))?;
        let magic = nix::sys::statfs::fstatfs(&file).map_err(failed("fstatfs"))?.filesystem_type();
        if magic != nix::sys::statfs::NSFS_MAGIC {
            return Err(failed(Self::IS_NONE)(Errno::EINVAL));
        }
        Ok(Self { file, path })
    }

    /// Whether this is the namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`KernelError::Namespace`] where /proc cannot be read.
    pub fn is_own(&self) -> Result<bool, KernelError> {
        let identity = |path: &Path, metadata: std::io::Result<std::fs::Metadata>| {
            metadata.map(|m| (m.dev(), m.ino())).map_err(|error| KernelError::Namespace {
                path: path.into(),
                call: "stat",
                errno: os_error(&error),
            })
        };
        let own = identity(Path::new(OWN), std::fs::metadata(OWN))?;
        Ok(own == identity(&self.path, self.file.metadata())?)
    }

    /// Runs `work` inside this namespace, on this thread, and comes back.
    ///
    /// # Errors
    /// [`KernelError::Namespace`] where it cannot be entered.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, KernelError> {
        let _back = Guard::enter(self)?;
        Ok(work())
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Restores the thread's namespace when it goes.
struct Guard {
    before: File,
}

impl Guard {
    fn enter(namespace: &NetNs) -> Result<Self, KernelError> {
        let before = File::open(OWN).map_err(|error| KernelError::Namespace {
            path: OWN.into(),
            call: "open the thread's own",
            errno: os_error(&error),
        })?;
        setns(namespace.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
            // Of another type, such as /proc/self/ns/mnt (setns(2)).
            let call = if errno == Errno::EINVAL { NetNs::IS_NONE } else { "setns" };
            KernelError::Namespace { path: namespace.path.clone(), call, errno }
        })?;
        Ok(Self { before })
    }
}

impl Drop for Guard {
    /// A thread that cannot come back would do the rest of its work in a pod's namespace. Nothing
    /// good can follow, so the process ends here.
    fn drop(&mut self) {
        if let Err(errno) = setns(self.before.as_fd(), CloneFlags::CLONE_NEWNET) {
            eprintln!("pod-bandwidth: cannot return to the network namespace: {errno}");
            std::process::abort();
        }
    }
}

fn os_error(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_network_namespace_is_refused_in_words() {
        let refused = |path: &str| NetNs::open(path).map(|_| ()).unwrap_err().to_string();
        assert!(refused("/nonexistent").contains("open: \"No such file or directory\" (ENOENT)"));
        assert!(refused("/etc/passwd").contains("this is not a network namespace"));
    }

    #[test]
    fn only_a_path_without_a_namespace_means_that_it_is_gone() {
        let folder = std::env::temp_dir().join(format!("pod-bandwidth-ns-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = |name: &str| folder.join(name);
        // A FIFO, whose open waits for a writer, and links that lead to themselves and to nothing.
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, target) in [("loop", "loop"), ("dangling", "nothing")] {
            std::os::unix::fs::symlink(path(target), path(name)).unwrap();
        }
        let long = path(&"x".repeat(256));
        let begin = std::time::Instant::now();
        let cases = [
            ("/nonexistent".into(), true),
            ("/etc/passwd/x".into(), true),
            ("/etc/passwd".into(), true),
            ("/dev/null".into(), true),
            (path("fifo"), true),
            (path("dangling"), true),
            (path("loop"), false),
            (long, false),
        ];
        let gone = cases.map(|(path, is_gone)| {
            let error = NetNs::open(path).map(|_| ()).unwrap_err();
            (error.is_gone_namespace() == is_gone, error.to_string())
        });
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(gone.iter().all(|(as_wanted, _)| *as_wanted), "{gone:#?}");
        assert!(begin.elapsed() < std::time::Duration::from_secs(2), "{:?}", begin.elapsed());
        // and another type of namespace is found out when it is entered
        let mount = NetNs::open("/proc/thread-self/ns/mnt").unwrap();
        if let Err(error) = mount.run(|| ())
            && !error.is_missing_privilege()
        {
            assert!(error.is_gone_namespace(), "{error}");
        }
    }

    #[test]
    fn ones_own_namespace_is_known() {
        assert!(NetNs::open(OWN).unwrap().is_own().unwrap());
    }
}
