//! One edit of the active list, from reading the folder to the file in its place.

use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::active::{active, must_be_list};
use super::atomic;
use super::conflist;
use super::entry::Entry;
use super::error::{InstallError, ListError};

/// How often an edit starts again because another program wrote in between.
const TRIES: usize = 50;

/// What shall be in the list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// Our entry.
    Entry(&'a Entry),
    /// None of ours, and the one that ours replaced.
    Nothing,
}

/// An edit that is needed, or was.
#[derive(Debug)]
pub(super) struct Edit {
    /// The file as the runtime names it.
    pub(super) path: PathBuf,
    /// What is in it.
    pub(super) before: String,
    /// What shall be; `None` where that is the same.
    pub(super) after: Option<String>,
}

/// What is to be done in this folder, from what is there now.
pub(super) fn plan(folder: &Path, wanted: Wanted<'_>) -> Result<Edit, InstallError> {
    let path = active(folder)?;
    let failed = |source| InstallError::File { doing: "reading", path: path.clone(), source };
    let before = std::fs::read_to_string(&path).map_err(failed)?;
    let after = match wanted {
        Wanted::Entry(entry) => conflist::with_entry(&before, entry)
            .and_then(|after| must_be_list(&path).map(|()| after)),
        // A file that is no list has none of ours.
        Wanted::Nothing => match conflist::without_entry(&before) {
            Err(ListError::Lone) => Ok(None),
            after => after,
        },
    };
    let after = after.map_err(|source| InstallError::List { path: path.clone(), source })?;
    Ok(Edit { path, before, after })
}

/// Does it, once only for a program of ours at a time. Where another program writes the file in
/// between, what that one wrote is the new start: nothing of others is lost.
pub(super) fn apply(folder: &Path, wanted: Wanted<'_>) -> Result<Edit, InstallError> {
    let _turn = take_turn(folder)?;
    for _ in 0..TRIES {
        let edit = plan(folder, wanted)?;
        let Some(after) = &edit.after else { return Ok(edit) };
        // Where it is a link, the file that it names is replaced and not the link.
        let failed =
            |source| InstallError::File { doing: "reading", path: edit.path.clone(), source };
        let file = edit.path.canonicalize().map_err(failed)?;
        let is_as_read = || {
            std::fs::read(&file).is_ok_and(|now| now == edit.before.as_bytes())
                && active(folder).is_ok_and(|path| path == edit.path)
        };
        if atomic::put(&file, &atomic::like(&file, after.as_bytes())?, is_as_read)? {
            return Ok(edit);
        }
    }
    Err(InstallError::Contended(active(folder)?))
}

/// A lock on the folder itself: it leaves no file, and ends with the process.
fn take_turn(folder: &Path) -> Result<Flock<std::fs::File>, InstallError> {
    let failed = |source| InstallError::File { doing: "opening", path: folder.into(), source };
    let file = std::fs::File::open(folder).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))
}
