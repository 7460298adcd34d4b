//! The node program's commands: what an operator does on a node, and the node agent.
//!
//! One command a file or folder. They may use `plugin`'s reconcile, `kernel`, `shaping` and `policy`;
//! nothing below knows them. Built with the feature `node`, into a binary of its own: the plugin that
//! the runtime calls stays small.
#![forbid(unsafe_code)]

mod agent;
pub mod cache;
pub mod call;
mod doctor;
mod install;
pub mod inventory;
pub mod metrics;
pub mod pace;
pub mod read;
#[cfg(test)]
mod samples;
mod set;
mod shadows;
mod show;
mod top;

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
    /// Follow the annotations of this node's running pods, and keep their limits as they are to be
    Agent(agent::Options),
    /// Give a running pod another limit by hand
    Set(set::Options),
    /// Show what is limited on this node, and how each pod fares
    Show(show::Options),
    /// Watch who is held back, hardest first
    Top(top::Options),
    /// Print what Prometheus reads, or serve it where no node agent does
    Metrics(metrics::Options),
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
            Command::Agent(options) => agent::run(options),
            Command::Set(options) => set::run(&options),
            Command::Show(options) => show::run(&options),
            Command::Top(options) => top::run(&options),
            Command::Metrics(options) => metrics::run(options),
        },
        None => match Cli::command().print_long_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
    }
}
