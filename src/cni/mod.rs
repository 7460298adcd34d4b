//! The CNI protocol, versions 0.3.0 to 1.1.0: requests, results and errors.
//!
//! A leaf: it knows nothing of shaping. Section numbers are those of the specification at 1.1.0.
#![forbid(unsafe_code)]

pub mod args;
pub mod error;
pub mod request;
pub mod result;
pub mod version;

pub use error::CniError;
pub use request::{Command, Environment, Request};
