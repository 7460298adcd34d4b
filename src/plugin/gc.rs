//! GC: remove what belongs to attachments of this network that are gone.
//!
//! IFBs in the host's namespace are all that can outlive a pod: what is inside it goes with its
//! namespace, and what is on its veth goes with the veth.

use std::collections::BTreeSet;

use super::del::sweep;
use super::error::code_of;
use super::find::Redirects;
use crate::cni::{CniError, Request};
use crate::kernel::{Socket, link};
use crate::log::Log;
use crate::shaping::Attachment;
use crate::shaping::identity::is_of_network;
use crate::shaping::tag::Tag;

/// Removes our IFBs of this network whose attachment is not in the list of valid ones.
pub(super) fn gc(request: &Request, log: &Log) -> Result<(), CniError> {
    let network = &request.network;
    let Some(valid) = request.valid_attachments()? else {
        log.warn("there is no list of valid attachments, so GC removes nothing");
        return Ok(());
    };
    let valid: BTreeSet<Tag> = valid
        .into_iter()
        .map(|(container_id, ifname)| {
            Attachment { network: network.clone(), container_id, ifname, pod: None }.tag()
        })
        .collect();
    let mut host = Socket::open()?;
    let ifbs = link::all_ifbs(&mut host)?;
    let stale: BTreeSet<Tag> = ifbs
        .iter()
        .filter_map(|ifb| {
            let tag = Tag::of_ifb_name(&ifb.name)?;
            (is_of_network(tag, ifb.alias.as_deref(), network) && !valid.contains(&tag))
                .then_some(tag)
        })
        .collect();
    let mut errors = Vec::new();
    let mut redirects = Redirects::default();
    for tag in stale {
        log.info(&format!("removing the IFBs of a stale attachment (…{tag})"));
        errors.extend(sweep(&mut host, tag, &mut redirects));
    }
    let Some(first) = errors.first() else { return Ok(()) };
    let code = code_of(first);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(CniError::new(code, format!("some of it could not be removed: {}", errors.join("; "))))
}
