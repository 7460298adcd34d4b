//! Which file of a folder the runtime takes: the first by name, as containerd (go-cni) does.
//!
//! go-cni and ocicni sort the names that end in .conf, .conflist and .json. containerd then takes the
//! first, and fails where that one is broken; CRI-O goes on to the next. So a broken first file is an
//! error here: another one would be right for half of the runtimes.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::{InstallError, ListError};

/// Ends of the names that libcni reads.
const ENDS: [&str; 3] = [".conf", ".conflist", ".json"];

/// The file that holds the active list.
pub(in crate::node) fn active(folder: &Path) -> Result<PathBuf, InstallError> {
    let failed = |source| InstallError::File { doing: "reading", path: folder.into(), source };
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder).map_err(failed)? {
        let file = file.map_err(failed)?;
        let name = file.file_name();
        let is_read = ENDS.iter().any(|end| name.as_bytes().ends_with(end.as_bytes()));
        // A link to a folder is no folder for libcni either.
        if is_read && !file.file_type().map_err(failed)?.is_dir() {
            names.push(name);
        }
    }
    let first = names.into_iter().min().ok_or_else(|| InstallError::NoList(folder.into()))?;
    Ok(folder.join(first))
}

/// Whether the runtime reads a list in this file: by its name alone, whatever is in it.
pub(in crate::node) fn must_be_list(path: &Path) -> Result<(), ListError> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    if name.ends_with(b".conflist") {
        return Ok(());
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Err(ListError::Name(stem))
}
