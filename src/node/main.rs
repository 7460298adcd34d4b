//! The node program: what an operator runs on a node. The plugin that the runtime calls is another
//! binary, so that nothing of this is linked into it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    pod_bandwidth::node::main()
}
