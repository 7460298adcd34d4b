//! What can go wrong with an installation: what was tried, on which file, and what helps.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::policy::PolicyError;

/// An installation that was not done.
#[derive(Debug, thiserror::Error)]
pub(in crate::node) enum InstallError {
    #[error("{doing} {}: {source}{}", path.display(), help(source))]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} has no network configuration yet (*.conf, *.conflist, *.json): install the network's own \
         plugin first, or name the folder that the runtime reads (--net-dir)", .0.display()
    )]
    NoList(PathBuf),
    #[error("{}: {source}", path.display())]
    List { path: PathBuf, source: ListError },
    #[error("{}: {source}", path.display())]
    Entry { path: PathBuf, source: EntryError },
    #[error(
        "{} is no program to install: it must be the plugin pod-bandwidth (scripts/package builds it, \
         --plugin names it)", .0.display()
    )]
    NoProgram(PathBuf),
    #[error(
        "{} was changed by another program each time just before it would have been replaced; \
         try again, or use --watch", .0.display()
    )]
    Contended(PathBuf),
    #[error("{doing}: {}", .errno.desc())]
    System { doing: &'static str, errno: Errno },
}

/// A file that is no list to put an entry into.
#[derive(Debug, thiserror::Error)]
pub(in crate::node) enum ListError {
    #[error("it is not the JSON of a network list ({0}); it was left as it is")]
    Json(#[from] serde_json::Error),
    #[error(
        "it is a single plugin and no list, so no plugin can follow: write it as a .conflist, \
         {{\"cniVersion\": …, \"name\": …, \"plugins\": [{{…}}]}}, remove this file, and install again"
    )]
    Lone,
    #[error("it has no \"plugins\", so it is no network list")]
    NoList,
    #[error("its \"plugins\" are empty: there is no interface that could be limited")]
    Empty,
    #[error("one of its plugins has no \"type\"")]
    NoType,
    #[error("it has two entries \"bandwidth\": remove one of them")]
    TwoReferences,
    #[error("our entry is its only one: a list cannot be empty, so remove the file")]
    OursAlone,
    #[error(
        "the runtime reads this file as a single plugin, because it is no .conflist: rename it to \
         {0}.conflist and install again"
    )]
    Name(String),
}

/// An entry that the plugin would refuse.
#[derive(Debug, thiserror::Error)]
pub(in crate::node) enum EntryError {
    #[error("it is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("an entry is a JSON object")]
    NoObject,
    #[error("an entry has \"type\": \"pod-bandwidth\"")]
    Type,
    #[error(transparent)]
    Policy(Box<PolicyError>),
}

impl From<PolicyError> for EntryError {
    fn from(error: PolicyError) -> Self {
        Self::Policy(Box::new(error))
    }
}

/// What helps against an error of a file.
fn help(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EROFS) => {
            "; mount that folder for writing (a hostPath volume without readOnly)"
        }
        Some(Errno::EACCES | Errno::EPERM) => "; it takes root",
        Some(Errno::ENOSPC | Errno::EDQUOT) => "; make room there",
        Some(Errno::ENOENT) => "; is it the one that the runtime reads (--bin-dir, --net-dir)?",
        _ => "",
    }
}
