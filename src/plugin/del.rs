//! DEL: reconcile an attachment to nothing.
//!
//! DEL succeeds with what is already gone (section 2) and goes on after what fails. It fails only
//! where something of ours is left on the host: the runtime then calls again. What is left inside
//! the pod goes with its namespace.

use super::ends::{End, Ends};
use super::{TRIES, attachment, netns};
use crate::cni::error::Code;
use crate::cni::{CniError, Request};
use crate::kernel::apply::Applier;
use crate::kernel::observe::observe;
use crate::kernel::{KernelError, Socket, link};
use crate::log::Log;
use crate::policy::CalicoQos;
use crate::shaping::identity::alias_field;
use crate::shaping::plan::plan;
use crate::shaping::site::Hook;
use crate::shaping::{Shape, Site};

/// Removes what ADD made, at both ends, as far as it is there.
pub(super) fn del(request: &Request, log: &Log) -> Result<(), CniError> {
    let errors = remove(request, log);
    let Some(first) = errors.first() else { return Ok(()) };
    let code = first.code;
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let message = format!("not everything could be removed: {}; call DEL again", errors.join("; "));
    Err(CniError::new(code, message))
}

/// The work of DEL, which is also that of an ADD without limits. Returns what is left on the host.
pub(super) fn remove(request: &Request, log: &Log) -> Vec<CniError> {
    let mut tries = 1;
    loop {
        let Left { pod, host } = remove_once(request, log);
        if tries == TRIES || (pod.is_empty() && host.is_empty()) {
            for error in pod {
                log.warn(&format!("in the pod: {error}"));
            }
            return host;
        }
        tries += 1;
    }
}

/// What could not be removed at each end.
#[derive(Default)]
struct Left {
    pod: Vec<KernelError>,
    host: Vec<CniError>,
}

fn remove_once(request: &Request, log: &Log) -> Left {
    let attachment = attachment(request);
    let mut left = Left::default();
    if request.environment.netns.is_some() {
        // What Felix has there stays.
        match Ends::open(netns(request), &attachment, CalicoQos::Keep) {
            Ok(mut ends) => {
                left.pod = ends.pod.clear();
                if let Some(host) = &mut ends.host {
                    left.host = host.clear().into_iter().map(CniError::from).collect();
                    return left;
                }
            }
            // The namespace is gone, or the interface: what the host has is known by its name.
            Err(error) if is_gone(&error) => {
                log.debug(&format!("only the host's end is left: {error}"));
            }
            // It may be there, and a root qdisc of ours with it, which only the interface tells.
            Err(error) => left.host.push(error),
        }
    }
    match Socket::open() {
        Ok(mut host) => {
            left.host.extend(sweep(&mut host, &attachment.tag()).into_iter().map(CniError::from));
        }
        Err(error) => left.host.push(error.into()),
    }
    left
}

fn is_gone(error: &CniError) -> bool {
    matches!(error.code, Code::InvalidEnvironment | Code::NoInterface)
}

impl End {
    /// Removes what is ours at this end.
    fn clear(&mut self) -> Vec<KernelError> {
        match plan(&self.site, &Shape::default(), &self.observed) {
            Ok(batches) => self.applier().remove(&batches),
            // Nothing wanted conflicts with nothing.
            Err(_) => Vec::new(),
        }
    }
}

/// Removes the host's IFBs of an attachment's tag, and what points at them. The alias says which
/// interface redirects to them.
pub(super) fn sweep(host: &mut Socket, tag: &str) -> Vec<KernelError> {
    sweep_or_error(host, tag).unwrap_or_else(|error| vec![error])
}

fn sweep_or_error(host: &mut Socket, tag: &str) -> Result<Vec<KernelError>, KernelError> {
    let names = Site::of_tag(tag, "");
    let mut device = None;
    for hook in Hook::ALL {
        let alias = link::by_name(host, names.ifb(hook))?.and_then(|ifb| ifb.alias);
        let named = alias.as_deref().and_then(|alias| alias_field(alias, "dev"));
        device = device.or(named.map(str::to_string));
    }
    let link = match &device {
        Some(device) => link::by_name(host, device)?,
        None => None,
    };
    let link = link.unwrap_or_default();
    let site = Site::of_tag(tag, &link.name);
    // Index 0 is no interface: then only the IFBs are there to be seen.
    let mut observed = observe(host, &site, link.index)?;
    observed.restrict_to_ifbs();
    let batches = plan(&site, &Shape::default(), &observed).unwrap_or_default();
    Ok(Applier::new(host, &site, link.index, &observed).remove(&batches))
}
