//! The binary: a CNI plugin when `CNI_COMMAND` is set, a command line otherwise.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        return pod_bandwidth::plugin::main();
    }
    pod_bandwidth::cli::main()
}
