//! containerd under test: a node of its own (`Node`), driven through CRI (`Cri`) as a kubelet does.
//!
//! Everything is in namespaces that end with the test: containerd, its shims and the containers in
//! a process namespace, its files on a tmpfs in a mount namespace, the pods' interfaces in a `Lab`.
//! The one thing that the kernel keeps beyond that, empty cgroups, a process outside removes.
#![allow(unreachable_pub, reason = "for the tests of the parent")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that cannot go on fails the test"
)]

mod client;
mod config;
mod image;
mod messages;
mod node;
mod pod;

pub use config::Runtime;
pub use node::Node;
pub use pod::Sandbox;
