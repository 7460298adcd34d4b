//! The binary: a CNI plugin if `CNI_COMMAND` is set, else a command line. A runtime passes no
//! arguments, so with one it is a person's call, whatever the environment has.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let has_arguments = std::env::args_os().len() > 1;
    if !has_arguments && std::env::var_os("CNI_COMMAND").is_some() {
        return pod_bandwidth::plugin::main();
    }
    pod_bandwidth::cli::main()
}
