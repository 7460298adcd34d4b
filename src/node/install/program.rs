//! The plugin's program in the folder of CNI programs.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::atomic::{self, Whole};
use super::entry::OURS;
use super::error::InstallError;

/// It runs as root for every pod: nobody else may write it, all may read it.
const MODE: u32 = 0o755;

/// Where the program comes from: what was asked for, else the one beside this program.
pub(super) fn source(asked: Option<&Path>) -> Result<PathBuf, InstallError> {
    if let Some(path) = asked {
        return Ok(path.into());
    }
    let failed = |source| InstallError::File {
        doing: "finding the program",
        path: "/proc/self/exe".into(),
        source,
    };
    Ok(std::env::current_exe().map_err(failed)?.with_file_name(OURS))
}

/// Puts it there, where it is not there yet. Says whether it did, or with `dry` whether it would.
pub(super) fn install(from: &Path, folder: &Path, dry: bool) -> Result<bool, InstallError> {
    let to = folder.join(OURS);
    let failed =
        |path: &Path, source| InstallError::File { doing: "reading", path: path.into(), source };
    let content = std::fs::read(from).map_err(|source| failed(from, source))?;
    if !content.starts_with(b"\x7fELF") {
        return Err(InstallError::NoProgram(from.into()));
    }
    if !std::fs::metadata(folder).map_err(|source| failed(folder, source))?.is_dir() {
        return Err(failed(folder, std::io::ErrorKind::NotADirectory.into()));
    }
    let there = std::fs::symlink_metadata(&to).ok();
    if there.is_some_and(|there| is_right(&there))
        && std::fs::read(&to).is_ok_and(|now| now == content)
    {
        return Ok(false);
    }
    if !dry {
        atomic::put(&to, &Whole { content: &content, mode: MODE, owner: None }, || true)?;
    }
    Ok(true)
}

/// Takes it away. Says whether it was there.
pub(super) fn uninstall(folder: &Path) -> Result<bool, InstallError> {
    atomic::remove(&folder.join(OURS))
}

fn is_right(there: &Metadata) -> bool {
    there.is_file() && there.mode() & 0o7777 == MODE
}
