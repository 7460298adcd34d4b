//! Files that are there whole or not at all, whenever the machine stops: a temporary file in the same
//! folder, fsync, rename, fsync of the folder.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::error::InstallError;

/// What a new file is to be.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    /// Its content.
    pub(super) content: &'a [u8],
    /// Its mode.
    pub(super) mode: u32,
    /// User and group, where they are not those of this process.
    pub(super) owner: Option<(u32, u32)>,
}

/// Puts the file there. Just before, `still` says whether it is still wanted; where it is not, nothing
/// has changed, and the answer is `false`.
pub(super) fn put(
    path: &Path,
    file: &Whole<'_>,
    still: impl FnOnce() -> bool,
) -> Result<bool, InstallError> {
    let temporary = temporary(path);
    let done = write(&temporary, file).and_then(|()| {
        if still() { std::fs::rename(&temporary, path).map(|()| true) } else { Ok(false) }
    });
    if !matches!(done, Ok(true)) {
        // What failed is told, not this.
        let _ = std::fs::remove_file(&temporary);
    }
    let failed = |doing, source| InstallError::File { doing, path: path.into(), source };
    let put = done.map_err(|source| failed("writing", source))?;
    if put {
        sync_folder(path).map_err(|source| failed("fsync of the folder of", source))?;
    }
    Ok(put)
}

/// Mode and owner of a file that is there, for the one in its place.
pub(super) fn like<'a>(path: &Path, content: &'a [u8]) -> Result<Whole<'a>, InstallError> {
    let failed = |source| InstallError::File { doing: "reading", path: path.into(), source };
    let there = std::fs::metadata(path).map_err(failed)?;
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let owner = Some((there.uid(), there.gid())).filter(|owner| *owner != own);
    Ok(Whole { content, mode: there.mode() & 0o7777, owner })
}

/// Removes a file, and makes sure that it stays away. `false` where none is there.
pub(super) fn remove(path: &Path) -> Result<bool, InstallError> {
    match std::fs::remove_file(path).and_then(|()| sync_folder(path)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(InstallError::File { doing: "removing", path: path.into(), source }),
    }
}

/// Hidden, and with an end that no runtime reads. One name for each file: what a crash has left is
/// written over by the next try.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.pod-bandwidth-new"))
}

fn write(path: &Path, whole: &Whole<'_>) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // create_new follows no link. Nobody else reads it before it has the mode that it shall have.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(whole.content)?;
    if let Some((user, group)) = whole.owner {
        fchown(&file, Some(user), Some(group))?;
    }
    file.set_permissions(Permissions::from_mode(whole.mode))?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
