//! `install` and `uninstall`: the plugin's program in the folder of CNI programs, and its entry in the
//! list that the runtime takes.
//!
//! Knows files only: no kernel, no API server. Order matters. The program is there before the entry
//! names it, and the entry goes before the program.

pub(super) mod active;
mod atomic;
mod conflist;
#[cfg(test)]
mod conflist_tests;
mod edit;
pub(super) mod entry;
pub(super) mod error;
mod layout;
mod program;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use similar::TextDiff;

use edit::{Edit, Wanted};
use entry::Entry;
use error::InstallError;

/// Put the plugin into the node's CNI chain
///
/// Copies the plugin into the folder of CNI programs, and puts its entry behind the last plugin of the list that the
/// runtime takes: the first by name. All else of that file stays as it is. An entry "bandwidth" (the reference plugin) is
/// replaced; its settings are kept, and `uninstall` puts it back. Pods that are made from then on are limited.
#[derive(Debug, Args)]
pub(super) struct InstallOptions {
    #[command(flatten)]
    folders: Folders,
    /// The plugin to copy [default: pod-bandwidth beside this program]
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The entry, a JSON object with the plugin's settings; it replaces one of ours that is there
    /// [default: one with both capabilities, and one that is there stays as it is]
    #[arg(long, value_name = "FILE")]
    entry: Option<PathBuf>,
    /// Show what would change, and change nothing
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
    /// Stay, and put the entry back whenever another program writes the list; SIGTERM ends it and leaves all installed
    #[arg(long)]
    watch: bool,
}

/// Take the plugin's entry out of the node's CNI chain
///
/// What `install` put into the list goes, and an entry "bandwidth" that it replaced comes back. The program stays: the
/// runtime still needs it to end pods that were made with it.
#[derive(Debug, Args)]
pub(super) struct UninstallOptions {
    #[command(flatten)]
    folders: Folders,
    /// Remove the program too; only when no pod is left that was made with it, because the runtime
    /// cannot end such a pod without it
    #[arg(long)]
    program: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Folders {
    /// The runtime's folder of CNI programs
    #[arg(long, value_name = "FOLDER", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// The runtime's folder of network lists
    #[arg(long, value_name = "FOLDER", default_value = "/etc/cni/net.d")]
    net_dir: PathBuf,
}

/// The command `install`.
pub(super) fn install(options: &InstallOptions) -> ExitCode {
    ended(try_install(options))
}

/// The command `uninstall`.
pub(super) fn uninstall(options: &UninstallOptions) -> ExitCode {
    ended(try_uninstall(options))
}

fn try_install(options: &InstallOptions) -> Result<(), InstallError> {
    let entry = options.entry.as_deref().map_or_else(|| Ok(Entry::default()), read_entry)?;
    let plugin = program::source(options.plugin.as_deref())?;
    let Folders { bin_dir, net_dir } = &options.folders;
    if options.dry_run {
        let edit = edit::plan(net_dir, Wanted::Entry(&entry))?;
        if program::install(&plugin, bin_dir, true)? {
            println!("would copy {} to {}", plugin.display(), bin_dir.join(entry::OURS).display());
        }
        print!("{}", difference(&edit));
        return Ok(());
    }
    let pass = || {
        // What is refused leaves nothing behind, not even the program.
        edit::plan(net_dir, Wanted::Entry(&entry))?;
        if program::install(&plugin, bin_dir, false)? {
            eprintln!("pod-bandwidth: {} was copied", bin_dir.join(entry::OURS).display());
        }
        let edit = edit::apply(net_dir, Wanted::Entry(&entry))?;
        say(&edit, "has the entry of pod-bandwidth now");
        Ok(edit)
    };
    if options.watch { watch::watch(net_dir, pass) } else { pass().map(drop) }
}

fn try_uninstall(options: &UninstallOptions) -> Result<(), InstallError> {
    let Folders { bin_dir, net_dir } = &options.folders;
    if options.dry_run {
        print!("{}", difference(&edit::plan(net_dir, Wanted::Nothing)?));
        if options.program {
            println!("would remove {}", bin_dir.join(entry::OURS).display());
        }
        return Ok(());
    }
    match edit::apply(net_dir, Wanted::Nothing) {
        Ok(edit) => say(&edit, "is without the entry of pod-bandwidth now"),
        // Nothing is installed where no list is.
        Err(InstallError::NoList(_)) => {}
        Err(error) => return Err(error),
    }
    if options.program && program::uninstall(bin_dir)? {
        eprintln!("pod-bandwidth: {} was removed", bin_dir.join(entry::OURS).display());
    }
    Ok(())
}

fn read_entry(path: &Path) -> Result<Entry, InstallError> {
    let failed = |source| InstallError::File { doing: "reading", path: path.into(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Entry::parse(&text).map_err(|source| InstallError::Entry { path: path.into(), source })
}

/// The edit as a unified diff; nothing where there is none.
fn difference(edit: &Edit) -> String {
    let Some(after) = &edit.after else { return String::new() };
    let name = edit.path.display().to_string();
    TextDiff::from_lines(&edit.before, after).unified_diff().header(&name, &name).to_string()
}

fn say(edit: &Edit, what: &str) {
    let path = edit.path.display();
    match edit.after {
        Some(_) => eprintln!("pod-bandwidth: {path} {what}"),
        None => eprintln!("pod-bandwidth: {path} is right as it is"),
    }
}

fn ended(result: Result<(), InstallError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pod-bandwidth: {error}");
            ExitCode::FAILURE
        }
    }
}
