//! The node program's commands: what an operator does on a node, and the node agent.
//!
//! One command a file or folder. They may use `plugin`'s reconcile, `kernel`, `shaping` and `policy`;
//! nothing below knows them. Built with the feature `node`, into a binary of its own: the plugin that
//! the runtime calls stays small.
#![forbid(unsafe_code)]

mod doctor;
mod install;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

const ABOUT: &str = "Installs pod-bandwidth on a node, changes limits live, and shows what happens";

#[derive(Debug, Parser)]
#[command(name = "pod-bandwidth", version, about = ABOUT)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// One variant a command; each command's options are its own module's.
#[derive(Debug, Subcommand)]
enum Command {
    Doctor(doctor::Options),
    Install(install::InstallOptions),
    Uninstall(install::UninstallOptions),
}

/// Runs the command on the process's own arguments. Exit status: 0 done, 1 failed, 2 wrong arguments;
/// a command's own help names any other.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Some(command) => match command {
            Command::Doctor(options) => doctor::run(&options),
            Command::Install(options) => install::install(&options),
            Command::Uninstall(options) => install::uninstall(&options),
        },
        None => match Cli::command().print_long_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
    }
}
