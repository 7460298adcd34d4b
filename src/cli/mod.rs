//! The command line for people. It knows options and texts; the work is done by
//! the modules below it. A call by a runtime (`CNI_COMMAND` is set, no arguments) never comes here.
#![forbid(unsafe_code)]

mod demo;
mod node_program;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

const ABOUT: &str = "CNI plugin that holds Kubernetes pods to their bandwidth annotations";

const LONG_ABOUT: &str = "\
CNI plugin that holds Kubernetes pods to their bandwidth annotations.

This binary is a CNI plugin. A container runtime (containerd, CRI-O) calls it for each
pod with CNI_COMMAND in the environment and the network configuration on standard input.
It comes after Calico or another plugin in the list, reads the pod's annotations
kubernetes.io/ingress-bandwidth (to the pod) and kubernetes.io/egress-bandwidth (from the
pod), and sets token buckets (tc TBF) on the pod's veth.

With arguments, or without CNI_COMMAND, it takes the commands below, which are for people.";

#[derive(Debug, Parser)]
#[command(name = "pod-bandwidth", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(after_help = node_program::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Options),
    /// Anything else may be a command of the node program.
    #[command(external_subcommand)]
    Node(Vec<OsString>),
}

/// Runs the command line on the process's own arguments.
///
/// Returns 0 when the command did all of its work, 1 when it did not. Wrong
/// arguments end the process with 2, as clap does. Without arguments it prints
/// the help on stdout and returns 0, as the reference plugins do when a person
/// starts them by hand.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [help, command] = words.as_slice()
        && help == "help"
        && node_program::has(command)
    {
        return node_program::run(&[command.clone(), "--help".into()]);
    }
    match Cli::parse().command {
        Some(Command::Demo(options)) => demo::run(&options),
        Some(Command::Node(words)) => node_program::run(&words),
        None => match Cli::command().print_long_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_one_that_clap_accepts() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_says_what_the_binary_is_and_names_its_commands() {
        let help = Cli::command().render_long_help().to_string();
        for part in ["CNI plugin", "CNI_COMMAND", "kubernetes.io/ingress-bandwidth", "demo"] {
            assert!(help.contains(part), "no {part:?} in:\n{help}");
        }
    }
}
