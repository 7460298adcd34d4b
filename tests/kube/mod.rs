//! A real Kubernetes node under test: `scripts/cluster`, which people use too, and its API.
//!
//! Knows that script, the address and the folders of its node, and nothing of what the tests ask.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "for the tests of the parent")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that cannot go on fails the test"
)]

mod cluster;
mod pod;

pub use cluster::{ADDRESS, Cluster};
pub use pod::{Manifest, PORT, Running, Script};
