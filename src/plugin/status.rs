//! STATUS: whether an ADD could work. It creates nothing.
//!
//! A failing STATUS takes the whole node down, so it fails only where no ADD that shapes can work.

use crate::cni::error::Code;
use crate::cni::{CniError, Request};
use crate::kernel::{Socket, privilege};
use crate::policy::{Limits, Settings};

/// Succeeds where the configuration can be read and the kernel lets us in.
pub(super) fn status(request: &Request) -> Result<(), CniError> {
    let not_available = |why: String| CniError::new(Code::NotAvailable, why);
    Settings::read(&request.config).map_err(|error| not_available(error.to_string()))?;
    Limits::read(&request.config).map_err(|error| not_available(error.to_string()))?;
    Socket::open().map_err(|error| not_available(error.to_string()))?;
    match privilege::has_net_admin() {
        Some(false) => Err(not_available(
            "this process has no CAP_NET_ADMIN, so it cannot shape any pod; run the runtime as root"
                .into(),
        )),
        Some(true) | None => Ok(()),
    }
}
