//! pod-bandwidth: a CNI plugin that turns a pod's bandwidth annotations into
//! tc token buckets.
//!
//! The way of the data (docs/design.md has the picture):
//!
//! ```text
//! stdin + environment
//!   → cni        the request; prevResult kept as the text it came as
//!   → policy     annotations, runtimeConfig, static keys, node defaults and maxima → Limits
//!   → shaping    Limits + MTU → token buckets, placement; the plan
//!   → kernel     netlink and namespaces: observe, apply
//!   → cni        prevResult back, or the specification's error
//! ```
//!
//! Dependencies point one way: cli, node → plugin → kernel → shaping → policy; cni and text are leaves.
//! `node` is a program of its own (feature `node`).

pub mod cli;
pub mod cni;
pub mod kernel;
pub mod log;
#[cfg(feature = "node")]
pub mod node;
pub mod plugin;
pub mod policy;
pub mod shaping;
pub mod text;
