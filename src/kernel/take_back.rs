//! Taking back: what an [`Applier`] has done, or may have done, is undone where a later step failed.
//!
//! The pod keeps its network at every moment of it too, and a kill leaves nothing that the next call
//! does not know as ours.

use std::time::Duration;

use super::apply::Applier;
use super::error::KernelError;
use super::felix;
use super::filter;
use super::observe::filters;
use super::qdisc;
use crate::shaping::Rule;
use crate::shaping::describe;
use crate::shaping::plan::{Batch, Step};
use crate::shaping::site::{FelixIngress, Filter, Hook, HookKind, Owner};
use crate::shaping::undo::undo;

/// Another program's request for a filter holds the qdisc while it waits for its turn, and the kernel
/// then says EBUSY to its removal (qdisc_graft in net/sched/sch_api.c). So often it is tried again, with
/// this wait.
const BUSY_TRIES: usize = 5;
const BUSY_WAIT: Duration = Duration::from_millis(1);

impl Applier<'_> {
    /// Takes back, last first, all that [`Applier::apply`] did or may have done; returns what could
    /// not be. An IFB stays as it is while a filter may still point at it: a pod behind it would be
    /// cut off. Hook and filters go and come in one send, so that a kill does not part them.
    pub fn take_back(&mut self) -> Vec<KernelError> {
        let done = std::mem::take(&mut self.done);
        let mut batches: Vec<Batch> = done.iter().rev().map(undo).collect();
        let mut errors = Vec::new();
        if batches.iter().flatten().any(|step| *step == Step::DelHook) {
            let with_filters = self.drop_hook().unwrap_or_else(|error| {
                errors.push(error);
                false
            });
            batches.retain(|batch| match batch[..] {
                [Step::DropFilter { .. }] => !with_filters,
                [Step::DelHook] => false,
                _ => true,
            });
        }
        let is_restored = |batch: &Batch| {
            use Step::{AddFilter, AddHook, RestoreIngress};
            matches!(batch[..], [AddHook] | [AddFilter { .. }] | [RestoreIngress(_)])
        };
        let (restored, batches) = batches.into_iter().partition::<Vec<_>, _>(is_restored);
        let restored: Batch = restored.into_iter().flatten().collect();
        errors.extend(self.restore_filters(&restored).err());
        let mut in_use = [false; 2];
        for batch in batches {
            if batch.iter().any(|step| step.ifb().is_some_and(|hook| in_use[hook as usize])) {
                continue;
            }
            let result = match batch[..] {
                [] => Ok(()),
                [Step::DropFilter { hook, rule }] => {
                    let result = self.drop_filter(hook, rule);
                    in_use[hook as usize] |= result.is_err();
                    result
                }
                [Step::DelIfb { hook }] => self.drop_ifb(hook),
                _ => self.batch(&batch).1.map_or(Ok(()), Err),
            };
            errors.extend(result.err());
        }
        errors.retain(|error| !error.is_gone());
        errors
    }

    /// Removes the IFB behind `hook`, which may have been made without our knowing its index.
    fn drop_ifb(&mut self, hook: Hook) -> Result<(), KernelError> {
        if self.ifbs[hook as usize].is_none() {
            self.ifbs[hook as usize] = Some(self.find_ifb(hook)?);
        }
        self.batch(&[Step::DelIfb { hook }]).1.map_or(Ok(()), Err)
    }

    /// Removes the hook that we made with our filters, unless another program has put one there
    /// meanwhile; says whether it did.
    fn drop_hook(&mut self) -> Result<bool, KernelError> {
        for hook in Hook::ALL {
            let at = (hook, HookKind::Clsact);
            let all = filters(self.socket, self.device, at, &self.site.device)?;
            if all.iter().any(|filter| !self.is_ours(filter, hook)) {
                return Ok(false);
            }
        }
        let mut error = self.batch(&[Step::DelHook]).1;
        for _ in 0..BUSY_TRIES {
            if !error.as_ref().is_some_and(KernelError::is_passing) {
                break;
            }
            std::thread::sleep(BUSY_WAIT);
            error = self.batch(&[Step::DelHook]).1;
        }
        error.map_or(Ok(true), Err)
    }

    /// Created for this attachment: it points at the IFB behind the hook, or lets packets pass.
    fn is_ours(&self, filter: &Filter, hook: Hook) -> bool {
        let index = self.ifbs[hook as usize];
        matches!(filter.owner, Owner::Ours { target, stamp, .. }
            if stamp.tag.is_of(self.site.tag) != Some(false) && (target.is_none() || target == index))
    }

    /// Removes the filter of ours that stands for a rule, whatever its handle.
    fn drop_filter(&mut self, hook: Hook, rule: Rule) -> Result<(), KernelError> {
        let (all, ours) = self.filters_of(hook, rule)?;
        for filter in &ours {
            let alone = filter.is_alone_in(&all);
            let doing = describe::doing(self.site, &Step::DropFilter { hook, rule });
            let at = (hook, self.hook_kind());
            self.socket.request(filter::delete(self.device, at, filter, alone, doing))?;
        }
        Ok(())
    }

    /// Makes the filters again that were removed, or may have been, with the hook that they need.
    fn restore_filters(&mut self, steps: &[Step]) -> Result<(), KernelError> {
        let mut batch = Vec::new();
        for step in steps {
            if let Step::RestoreIngress(felix) = step {
                self.restore_ingress(*felix)?;
                continue;
            }
            let is_there = match step {
                Step::AddFilter { hook, rule, .. } => !self.filters_of(*hook, *rule)?.1.is_empty(),
                _ => false,
            };
            batch.extend((!is_there).then(|| step.clone()));
        }
        if batch.is_empty() || (batch == [Step::AddHook] && steps.len() > 1) {
            return Ok(());
        }
        self.batch(&batch).1.map_or(Ok(()), Err)
    }

    /// Makes Felix's `ingress` qdisc again with its filter, unless Felix has done so meanwhile.
    fn restore_ingress(&mut self, felix: FelixIngress) -> Result<(), KernelError> {
        let (index, device) = (self.device, &self.site.device);
        let there = self.socket.request(qdisc::get_hook(index, device));
        self.hook = HookKind::Ingress;
        if qdisc::hook_of(there)? == HookKind::Ingress {
            return Ok(());
        }
        let doing = describe::doing(self.site, &Step::RestoreIngress(felix));
        let mut requests = vec![felix::add_ingress(index, doing.clone())];
        if let FelixIngress::Redirects { ifb, class } = felix {
            requests.push(felix::add_redirect(index, ifb, class, doing));
        }
        self.socket.exchange(requests)?.into_iter().try_for_each(|answer| answer.map(|_| ()))
    }

    /// All filters of a hook, and those of ours that stand for a rule.
    fn filters_of(
        &mut self,
        hook: Hook,
        rule: Rule,
    ) -> Result<(Vec<Filter>, Vec<Filter>), KernelError> {
        let wanted = (rule.matches, self.target(hook, rule)?);
        let at = (hook, self.hook_kind());
        let all = filters(self.socket, self.device, at, &self.site.device)?;
        let stands_for = |filter: &&Filter| match filter.owner {
            Owner::Ours { matches, target, .. } => {
                (matches, target) == wanted && self.is_ours(filter, hook)
            }
            Owner::Other(_) | Owner::Foreign { .. } => false,
        };
        let ours = all.iter().filter(stands_for).cloned().collect();
        Ok((all, ours))
    }
}
