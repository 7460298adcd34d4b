//! The kernel: netlink and network namespaces. The only module that knows either.
//!
//! Messages are built with the types of netlink-packet-route and rtnetlink. They are sent and
//! read over a plain blocking socket: a call by a runtime makes a dozen short exchanges one after
//! the other, and an executor would only add a way to hang (an answer that rtnetlink's codec
//! cannot decode is dropped, and its request waits for ever). What is read is walked attribute by
//! attribute, so an attribute of a newer kernel cannot make an ADD fail.

pub mod apply;
pub mod bpf;
mod collect;
pub mod error;
pub mod felix;
pub mod filter;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod link;
#[cfg(feature = "node")]
pub mod monitor;
pub mod netns;
pub mod observe;
pub mod privilege;
pub mod probe;
pub mod qdisc;
pub mod sandbox;
mod selector;
pub mod socket;
#[cfg(feature = "node")]
pub mod stats;
#[cfg(feature = "node")]
pub mod survey;
mod take_back;
#[cfg(any(test, fuzzing))]
mod testing;
mod together;
mod verdict;
mod wire;

pub use error::KernelError;
pub use link::Link;
pub use netns::NetNs;
pub use socket::Socket;
