//! Leaks: IFBs of ours on the host whose attachment is gone and whose DEL never came. The node agent
//! looks for them where no runtime calls GC: with lists older than CNI 1.1.0, as Calico's is.

use std::collections::{BTreeMap, BTreeSet};

use super::del::sweep;
use super::find::Redirects;
use crate::kernel::{KernelError, Link, Socket, link};
use crate::shaping::identity::ALIAS_MAGIC;
use crate::shaping::tag::Tag;

/// IFBs that nothing redirects to, and that belong to no attachment that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// What their names end with.
    pub tag: Tag,
    /// Their interface indexes: another IFB of the same name is another leak.
    pub indexes: BTreeSet<u32>,
    /// The alias of one of them, for people; empty where it never got one.
    pub alias: String,
}

/// The leaks in the host's namespace. `known` are the tags of all attachments that there may be.
///
/// # Errors
/// What the kernel said.
pub fn leaks(host: &mut Socket, known: &BTreeSet<Tag>) -> Result<Vec<Leak>, KernelError> {
    let mut by_tag: BTreeMap<Tag, Vec<Link>> = BTreeMap::new();
    for ifb in link::all_ifbs(host)? {
        // A name is soon like ours; an alias that is not ours is somebody's.
        let is_ours = ifb.alias.as_deref().is_none_or(|alias| alias.starts_with(ALIAS_MAGIC));
        let tag = Tag::of_ifb_name(&ifb.name).filter(|tag| is_ours && !known.contains(tag));
        if let Some(tag) = tag {
            by_tag.entry(tag).or_default().push(ifb);
        }
    }
    let mut leaks = Vec::new();
    let mut redirects = Redirects::default();
    for (tag, ifbs) in by_tag {
        // Where one redirects to it its pod may well be alive, whatever the list of attachments lacks.
        if redirects.find_by_alias(host, &ifbs)?.is_none() {
            let alias = ifbs.iter().find_map(|ifb| ifb.alias.clone()).unwrap_or_default();
            let indexes = ifbs.iter().map(|ifb| ifb.index).collect();
            leaks.push(Leak { tag, indexes, alias });
        }
    }
    Ok(leaks)
}

/// Removes one. Returns what could not be removed.
pub fn remove(host: &mut Socket, leak: &Leak) -> Vec<KernelError> {
    sweep(host, leak.tag, &mut <_>::default())
}
