//! DEL: reconcile an attachment to nothing.
//!
//! DEL succeeds with what is already gone (section 2) and goes on after what fails. It fails only
//! where something of ours is left on the host: the runtime then calls again. What is left inside
//! the pod goes with its namespace.

use super::ends::{End, Ends};
use super::find::Redirects;
use super::{TRIES, attachment, host_names, netns};
use crate::cni::{CniError, Request};
use crate::kernel::apply::Applier;
use crate::kernel::observe::observe;
use crate::kernel::{KernelError, Link, Socket, link};
use crate::log::Log;
use crate::policy::{CalicoQos, Limits, SourceKinds};
use crate::shaping::plan::plan;
use crate::shaping::site::Hook;
use crate::shaping::tag::Tag;
use crate::shaping::{Shape, Side, Site};

/// Removes what ADD made, at both ends, as far as it is there.
pub(super) fn del(request: &Request, log: &Log) -> Result<(), CniError> {
    let errors = remove(request, None, log);
    let Some(first) = errors.first() else { return Ok(()) };
    let code = first.code;
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let message = format!("not everything could be removed: {}; call DEL again", errors.join("; "));
    Err(CniError::new(code, message))
}

/// The work of DEL, which is also that of an ADD without limits. Returns what is left on the host. What
/// an entry of the list created that has none of these `sources` stays: it is another entry's.
pub(super) fn remove(request: &Request, sources: Option<SourceKinds>, log: &Log) -> Vec<CniError> {
    let mut tries = 1;
    loop {
        let Left { pod, host } = remove_once(request, sources, log);
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

fn remove_once(request: &Request, sources: Option<SourceKinds>, log: &Log) -> Left {
    let attachment = attachment(request);
    let mut left = Left::default();
    if request.environment.netns.is_some() {
        // What Felix has there stays.
        match Ends::open(netns(request), &attachment, &host_names(request), CalicoQos::Keep) {
            Ok(mut ends) => {
                if let Some(first) =
                    sources.and_then(|own| ends.another_entry(own, &Limits::default()))
                {
                    log.info(&format!("the limits of the entry with {first} stay"));
                    return left;
                }
                left.pod = ends.pod.as_mut().map(End::clear).unwrap_or_default();
                if let Some(host) = &mut ends.host {
                    left.host = host.clear().into_iter().map(CniError::from).collect();
                    return left;
                }
            }
            // The namespace is gone, or the interface: what the host has is known by its name.
            Err(error) if error.is_gone() => {
                log.debug(&format!("only the host's end is left: {error}"));
            }
            // It may be there, and a root qdisc of ours with it, which only the interface tells.
            Err(error) => left.host.push(error.into()),
        }
    }
    match Socket::open() {
        Ok(mut host) => {
            let errors = sweep(&mut host, attachment.tag(), &mut <_>::default());
            left.host.extend(errors.into_iter().map(CniError::from));
        }
        Err(error) => left.host.push(error.into()),
    }
    left
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

/// Removes the host's IFBs of an attachment's tag, and the filters that point at them.
pub(super) fn sweep(host: &mut Socket, tag: Tag, redirects: &mut Redirects) -> Vec<KernelError> {
    sweep_or_error(host, tag, redirects).unwrap_or_else(|error| vec![error])
}

fn sweep_or_error(
    host: &mut Socket,
    tag: Tag,
    redirects: &mut Redirects,
) -> Result<Vec<KernelError>, KernelError> {
    let names = Site::of_tag(Side::Host, tag, "");
    let ifbs = link::by_names(host, &Hook::ALL.map(|hook| names.ifb(hook)))?;
    let ifbs: Vec<Link> = ifbs.into_iter().flatten().collect();
    let link = redirects.find_by_alias(host, &ifbs)?.unwrap_or_default();
    let site = Site::of_tag(Side::Host, tag, &link.name);
    // Index 0 is no interface: then only the IFBs are there to be seen.
    let mut observed = observe(host, &site, link.index)?;
    observed.require_evidence(tag);
    let batches = plan(&site, &Shape::default(), &observed).unwrap_or_default();
    Ok(Applier::new(host, &site, link.index, &observed).remove(&batches))
}
