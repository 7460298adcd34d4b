//! The harness of the network tests: private namespaces (`Lab`, `Pod`), calls of the plugin as a
//! runtime makes them (`Call`), witnesses that read the kernel through `tc` and `ip` and never
//! through the project's own netlink code (`Shape`, `Snapshot`, `Ns::filters`, …) and traffic
//! (`Flow`, `ping`).
//!
//! A test begins with `let Some(lab) = Lab::open() else { return };`. Everything that it makes
//! lives in namespaces that live as long as one process, and that process ends when its standard
//! input closes: when the lab is dropped, and also when the test run is killed.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that cannot go on fails the test"
)]

pub mod attached;
mod call;
mod damage;
mod guard;
mod keeper;
mod lab;
mod ns;
mod peers;
mod roles;
mod shape;
mod shipped;
mod snapshot;
mod strace;
mod temp;
mod traffic;
pub mod two_peers;
mod wire;
mod witness;

pub use call::{Call, CniError, Outcome, PLUGIN};
pub use damage::Damage;
pub use guard::{DROPPED_PORT, assert_drops_the_port};
pub use keeper::Keeper;
pub use lab::{Interface, Lab, Pod, PodSpec};
pub use ns::{Ns, feed};
pub use peers::{peer, require_peer, skip};
pub use roles::{role_call, start_test_again, told};
pub use shape::{Direction, Limit, Shape, Way, our_pref};
pub use shipped::{Recorded, shipped, shipped_plugin};
pub use snapshot::Snapshot;
pub use strace::{RECEIVES, SENDS, Strace};
pub use temp::TempDir;
pub use traffic::{Flood, Flow, Ping, Sender, Throughput, Traffic, failed_probes, throughput};
pub use wire::{Family, Wire};
pub use witness::{Filter, Qdisc, items};

/// A path under `tests/`.
pub fn tests_dir(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}
