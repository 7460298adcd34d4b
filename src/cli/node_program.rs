//! Commands of the node program, `pod-bandwidth-node`, called by the plugin's name: this process
//! becomes that program. So people type one name, and the plugin that a runtime calls stays small.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The other program's file name.
const PROGRAM: &str = "pod-bandwidth-node";

/// Its commands.
const COMMANDS: [&str; 7] = ["install", "uninstall", "agent", "show", "top", "set", "doctor"];

/// What `--help` says of them.
pub(super) const HELP: &str = "\
Commands of pod-bandwidth-node, where that program is beside this one or in PATH:
  install, uninstall   put the plugin into the node's CNI chain, or take it out
  agent                follow the annotations of running pods
  show, top            what is limited, and which pod is held back
  set                  change the limit of a running pod by hand
  doctor               what on this node is not as it should be";

/// Whether the node program has this command.
pub(super) fn has(command: &OsStr) -> bool {
    COMMANDS.iter().any(|known| *known == command)
}

/// Becomes the node program with these words. Returns only where that is not possible: 2 where no
/// program has such a command, 1 where the program is missing.
pub(super) fn run(words: &[OsString]) -> ExitCode {
    let command = words.first().map_or(OsStr::new(""), OsString::as_os_str);
    if !has(command) {
        let command = command.display();
        eprintln!("pod-bandwidth: there is no command '{command}', see pod-bandwidth --help");
        return ExitCode::from(2);
    }
    let error = Command::new(program()).args(words).exec();
    let command = command.display();
    eprintln!(
        "pod-bandwidth: '{command}' is a command of {PROGRAM}, which cannot be started: {error}; \
         put that program beside this one (cargo build --release --features node makes it)"
    );
    ExitCode::FAILURE
}

/// The one beside this program, else the one in PATH.
fn program() -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join(PROGRAM)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PROGRAM.into())
}
