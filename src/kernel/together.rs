//! Several IFBs removed by one request, because the kernel waits once for each request that removes
//! links, whatever their number: about 15 ms, nearly all of a DEL.
//!
//! A request names one link, or a group (IFLA_GROUP). So those to remove are put into a group of
//! their own first, in the same send.

use super::apply::Applier;
use super::link;
use crate::shaping::describe;
use crate::shaping::identity::ifb_group;
use crate::shaping::plan::Step;
use crate::shaping::site::Hook;

/// The IFBs of a batch that does nothing but remove several.
pub(super) fn several_ifbs(batch: &[&Step]) -> Option<Vec<Hook>> {
    let ifb = |step: &&Step| match step {
        Step::DelIfb { hook } => Some(*hook),
        _ => None,
    };
    batch.iter().map(ifb).collect::<Option<Vec<Hook>>>().filter(|hooks| hooks.len() > 1)
}

impl Applier<'_> {
    /// Says whether all of them are gone. Where not, each is to be removed by itself: that tells
    /// which one the kernel keeps, and why.
    pub(super) fn remove_together(&mut self, hooks: &[Hook]) -> bool {
        let group = ifb_group(self.site.ifb(Hook::Ingress));
        let doing = |hook: &Hook| describe::doing(self.site, &Step::DelIfb { hook: *hook });
        let mut requests = Vec::new();
        for hook in hooks {
            let Ok(index) = self.ifb(*hook) else { return false };
            requests.push(link::set_group(index, group, doing(hook)));
        }
        requests.push(link::delete_group(group, "remove the IFBs".into()));
        let answers = self.socket.exchange(requests);
        answers.is_ok_and(|answers| answers.iter().all(Result::is_ok))
    }
}
