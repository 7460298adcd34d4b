//! The node agent as a process of the cluster's node, and what a test does around it: signals, other
//! annotations, a dead API server, and pods that no kubelet runs.
#![allow(unreachable_pub, reason = "for the tests of the parent")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that cannot go on fails the test"
)]

mod crowd;
mod process;

pub use crowd::Crowd;
pub use process::{Agent, ApiServer, stdout_of};
