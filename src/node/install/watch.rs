//! `install --watch`: the installation is repaired whenever another program writes the list.
//!
//! The folder is watched before it is read, so no change falls between. Our own write is known by its
//! hash. Where two programs both insist (Cilium with `cni.exclusive` undoes every change of its file at
//! once), each round takes longer, up to a minute: no loop, and the log says who wins when.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sha2::{Digest, Sha256};

use super::active::active;
use super::edit::Edit;
use super::error::InstallError;

/// What may mean another list. A file that is written in place is read when its writer closes it.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// After an event, in ms: what comes within it is one change.
const REST: u16 = 20;

/// So many repairs one soon after the other double the rest.
const ROUNDS: u32 = 50;

/// A repair this long after the one before it is no answer to it.
const SOON: Duration = Duration::from_secs(3);

/// A look without an event, in ms: what a link points at may change, and the program may go.
const LOOK: u16 = 60_000;

/// A look where there is no folder that could be watched, in ms.
const LOOK_FOR_FOLDER: u16 = 1_000;

/// Runs `pass` at once and after each change of the folder, until SIGTERM or SIGINT.
pub(super) fn watch(
    folder: &Path,
    mut pass: impl FnMut() -> Result<Edit, InstallError>,
) -> Result<(), InstallError> {
    let signals = stop_signals()?;
    let mut watcher = Watcher::default();
    loop {
        let inotify = watched(folder)?;
        loop {
            watcher.look(folder, &mut pass);
            let rest = if inotify.is_some() { LOOK } else { LOOK_FOR_FOLDER };
            match wait(&signals, inotify.as_ref(), rest)? {
                Heard::Stop => return Ok(()),
                Heard::Nothing => watcher.settled = None,
                Heard::Change => {
                    // Nothing is right because of it: it only saves looks at half of a change.
                    if wait(&signals, None, watcher.rest())? == Heard::Stop {
                        return Ok(());
                    }
                }
            }
            if !inotify.as_ref().is_some_and(drain) {
                break;
            }
        }
    }
}

/// What it knows of the looks before.
#[derive(Default)]
struct Watcher {
    /// The hash of the list that needs no edit: ours, or one that was right already.
    settled: Option<[u8; 32]>,
    /// What was said last, so that it is said once.
    said: String,
    /// When it last wrote, and how many times each soon after the one before.
    repaired: Option<Instant>,
    rounds: u32,
}

impl Watcher {
    fn look(&mut self, folder: &Path, pass: &mut impl FnMut() -> Result<Edit, InstallError>) {
        let now =
            active(folder).ok().and_then(|path| Some(hash(&path, &std::fs::read(&path).ok()?)));
        if now.is_some() && now == self.settled {
            return;
        }
        match pass() {
            Ok(edit) => {
                // Not what the folder holds by now: that may be somebody else's again.
                let settled = edit.after.as_ref().unwrap_or(&edit.before);
                self.settled = Some(hash(&edit.path, settled.as_bytes()));
                self.said.clear();
                if edit.after.is_some() {
                    self.count(&edit.path);
                }
            }
            Err(error) => {
                self.settled = None;
                let words = error.to_string();
                if words != self.said {
                    eprintln!("pod-bandwidth: waiting: {words}");
                    self.said = words;
                }
            }
        }
    }

    fn count(&mut self, path: &Path) {
        let soon = SOON + 2 * Duration::from_millis(self.rest().into());
        let is_soon = self.repaired.is_some_and(|last| last.elapsed() < soon);
        self.rounds = if is_soon { self.rounds + 1 } else { 0 };
        self.repaired = Some(Instant::now());
        if self.rounds == ROUNDS {
            eprintln!(
                "pod-bandwidth: another program writes {} again and again; from now on the entry is \
                 put back more and more slowly. If that is Cilium: its Helm value cni.exclusive=false \
                 lets others write there",
                path.display()
            );
        }
    }

    /// How long after an event it looks, in ms.
    fn rest(&self) -> u16 {
        let doublings = (self.rounds / ROUNDS).min(16);
        u16::try_from(u32::from(REST) << doublings).unwrap_or(LOOK).min(LOOK)
    }
}

fn hash(path: &Path, content: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(path.as_os_str().as_bytes());
    hash.update(b"\0");
    hash.update(content);
    hash.finalize().into()
}

/// What a wait ended with.
#[derive(PartialEq, Eq)]
enum Heard {
    Stop,
    Change,
    Nothing,
}

/// SIGTERM and SIGINT as something to wait for. The first process of a container has no other way to
/// end by them.
fn stop_signals() -> Result<SignalFd, InstallError> {
    let failed = |errno| InstallError::System { doing: "taking SIGTERM", errno };
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(failed)?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).map_err(failed)
}

/// The watch, or `None` while there is no such folder.
fn watched(folder: &Path) -> Result<Option<Inotify>, InstallError> {
    let failed = |errno| InstallError::System { doing: "watching the folder (inotify)", errno };
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(failed)?;
    match inotify.add_watch(folder, CHANGES) {
        Ok(_) => Ok(Some(inotify)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(failed(errno)),
    }
}

fn wait(signals: &SignalFd, inotify: Option<&Inotify>, most: u16) -> Result<Heard, InstallError> {
    let mut heard = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    heard.extend(inotify.map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)));
    match poll(&mut heard, PollTimeout::from(most)) {
        Ok(0) => Ok(Heard::Nothing),
        Ok(_) if heard.first().is_some_and(|signals| signals.any() == Some(true)) => {
            Ok(Heard::Stop)
        }
        Ok(_) | Err(Errno::EINTR) => Ok(Heard::Change),
        Err(errno) => Err(InstallError::System { doing: "waiting", errno }),
    }
}

/// Takes the events that are there. `false` where the folder is no longer the one that is watched.
fn drain(inotify: &Inotify) -> bool {
    let gone = AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_UNMOUNT
        | AddWatchFlags::IN_IGNORED;
    let mut is_same = true;
    while let Ok(events) = inotify.read_events() {
        is_same &= !events.iter().any(|event| event.mask.intersects(gone));
    }
    is_same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_insists_too_makes_each_round_longer() {
        let mut watcher = Watcher::default();
        let mut repair = |times: u32| {
            (0..times).for_each(|_| watcher.count(Path::new("10-cilium.conflist")));
            watcher.rest()
        };
        assert_eq!(repair(ROUNDS), REST, "an installer that writes some times is followed at once");
        assert_eq!(repair(1), 2 * REST);
        assert_eq!(repair(ROUNDS), 4 * REST);
        assert_eq!(repair(100 * ROUNDS), LOOK);
    }
}
