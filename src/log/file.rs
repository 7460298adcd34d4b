//! The file that `log.file` names.
//!
//! The plugin runs as root, and its configuration is not always the operator's: with Multus it comes
//! from whoever may create a NetworkAttachmentDefinition in a namespace. So a file is written only if it
//! is a log of pod-bandwidth or a new one, and no path makes a call wait. What no flag excludes is a
//! file system that does not answer.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open as open_file, openat2};
use nix::sys::stat::Mode;

/// How every name ends. Nothing that another program reads as its configuration ends so, and no file
/// of /proc or /sys.
const ENDING: &str = "log";

/// Bytes that hold the begin of a line up to the name of this program.
const BEGIN: usize = 64;

/// Why a file is not taken for a log.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the name of a log file ends in .log")]
    Name,
    #[error("a symbolic link is in its path")]
    Link,
    #[error("it is not a regular file")]
    Kind,
    #[error("it has {0} hard links")]
    Links(u64),
    #[error("it belongs to the user {0}")]
    Owner(u32),
    #[error("it does not begin with a line of pod-bandwidth")]
    Content,
}

/// Opens a log to append to it, and creates it if there is none.
pub(super) fn open(path: &Path) -> Result<File, FileError> {
    if path.extension().is_none_or(|ending| ending != ENDING) {
        return Err(FileError::Name);
    }
    let path = without_links(path)?;
    match existing(&path) {
        Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL;
    match open_at(&path, flags, Mode::from_bits_truncate(0o640)) {
        // Another call has created it meanwhile.
        Err(FileError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            existing(&path)
        }
        result => result,
    }
}

/// A file that is there. It is looked at before it is opened: to open a FIFO may wait, and to open a
/// device may do something (/dev/watchdog).
fn existing(path: &Path) -> Result<File, FileError> {
    let place = open_at(path, OFlag::O_PATH, Mode::empty())?;
    let metadata = place.metadata()?;
    if metadata.is_symlink() {
        return Err(FileError::Link);
    }
    if !metadata.is_file() {
        return Err(FileError::Kind);
    }
    if metadata.nlink() != 1 {
        return Err(FileError::Links(metadata.nlink()));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(FileError::Owner(metadata.uid()));
    }
    // The same file, whatever has its name by now. O_NONBLOCK: nobody's lease is waited for.
    let file = File::options()
        .read(true)
        .append(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    let mut begin = [0; BEGIN];
    let length = file.read_at(&mut begin, 0)?;
    if length != 0 && !is_line(&begin[..length]) {
        return Err(FileError::Content);
    }
    Ok(file)
}

/// Whether a text begins as [`super::render`] begins a line.
fn is_line(begin: &[u8]) -> bool {
    let begin = String::from_utf8_lossy(begin);
    let mut words = begin.split(' ');
    let is_time = words.next().is_some_and(|time| humantime::parse_rfc3339(time).is_ok());
    is_time && words.nth(1) == Some(super::PROGRAM)
}

/// Opens a path in which no part is a symbolic link.
fn open_at(path: &Path, flags: OFlag, mode: Mode) -> Result<File, FileError> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).mode(mode).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let opened = match openat2(AT_FDCWD, path, how) {
        // Before Linux 5.6 O_NOFOLLOW alone speaks, for the last part of the path.
        Err(Errno::ENOSYS) => open_file(path, flags, mode),
        opened => opened,
    };
    match opened {
        Ok(file) => Ok(file.into()),
        Err(Errno::ELOOP) => Err(FileError::Link),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

/// The path with the links of its folder resolved. A link such as /var/run is followed only if root has
/// made it and nobody else can write the folders that lead to it.
fn without_links(path: &Path) -> Result<PathBuf, FileError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(FileError::Name);
    };
    let mut is_roots = true;
    let folders: Vec<&Path> = folder.ancestors().collect();
    for folder in folders.into_iter().rev() {
        let link = folder.symlink_metadata()?;
        if link.is_symlink() && !(is_roots && link.uid() == 0) {
            return Err(FileError::Link);
        }
        let target = folder.metadata()?;
        is_roots &= target.uid() == 0 && target.mode() & 0o022 == 0;
    }
    Ok(folder.canonicalize()?.join(name))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
