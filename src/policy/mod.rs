//! Policy: text in, numbers out.
//!
//! Knows what a pod and a node may write (annotations, `runtimeConfig`, static keys, `defaults`,
//! `maximum` and the plugin's own settings) and turns it into [`Limits`] and [`Settings`], or into
//! an error that says what was written where and what is taken instead. It sees the network
//! configuration as JSON and nothing else: no device, no kernel, no file.
//!
//! Text from a pod is hostile here: every length is bounded, all arithmetic saturates or is
//! checked, and whatever an error repeats is shortened and escaped.
#![forbid(unsafe_code)]

mod bounds;
mod direction;
mod error;
mod json;
mod limits;
pub mod quantity;
mod settings;
mod source_kinds;
mod sources;
mod subnets;
mod units;

pub use direction::Direction;
pub use error::PolicyError;
pub use json::lookup;
pub use limits::{Limit, Limits};
pub use settings::{
    CalicoQos, HostIngress, LogLevel, LogSettings, Placement, PrefixPlacement, QueueKind, Settings,
};
pub use source_kinds::SourceKinds;
pub use subnets::Scope;
pub use units::{Bits, BitsPerSecond, Bytes};
