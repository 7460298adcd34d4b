//! Apply: the steps of a plan as netlink requests, and back again where one of them fails.

use super::error::KernelError;
use super::filter;
use super::link;
use super::observe::filters;
use super::qdisc;
use super::socket::{Request, Socket};
use crate::shaping::describe;
use crate::shaping::plan::{Batch, Step};
use crate::shaping::site::{Filter, Hook, HookKind, Ifb, Observed, Owner, Place, Root, Site};
use crate::shaping::undo::undo;

/// A plan that failed at a step.
#[derive(Debug, thiserror::Error)]
#[error("{cause}{}", left_behind(undoing))]
pub struct ApplyError {
    /// Why.
    #[source]
    pub cause: KernelError,
    /// What could not be taken back, if anything.
    pub undoing: Vec<KernelError>,
}

impl ApplyError {
    /// All was taken back, and what was in the way may be gone.
    pub fn may_help_to_look_again(&self) -> bool {
        self.undoing.is_empty() && (self.cause.is_race() || self.cause.is_passing())
    }
}

fn left_behind(undoing: &[KernelError]) -> String {
    undoing.iter().map(|error| format!("; and taking it back failed: {error}")).collect()
}

/// Works on one site: the socket of its namespace, and the indexes behind its names.
pub struct Applier<'a> {
    socket: &'a mut Socket,
    site: &'a Site,
    device: u32,
    ifbs: [Option<u32>; 2],
    hook: HookKind,
    live: [bool; 3],
    done: Vec<Step>,
}

impl<'a> Applier<'a> {
    /// `device` is the index of the site's interface; `observed` what the plan was made from.
    pub fn new(socket: &'a mut Socket, site: &'a Site, device: u32, observed: &Observed) -> Self {
        let is_live = |root: &Root| matches!(root, Root::Ours(state) if state.live);
        let ifb_is_live = |ifb: &Ifb| matches!(ifb, Ifb::Present(state) if is_live(&state.root));
        let [ingress, egress] = &observed.ifbs;
        Self {
            socket,
            site,
            device,
            ifbs: Hook::ALL.map(|hook| observed.ifb_index(hook)),
            hook: observed.hook,
            live: [is_live(&observed.root), ifb_is_live(ingress), ifb_is_live(egress)],
            done: Vec::new(),
        }
    }

    /// Does all steps, or takes back those that it did.
    ///
    /// An IFB that nothing points at any more and that cannot be removed, tried twice, is no reason
    /// to fail: it harms nobody, and the next call removes it. Such errors are returned as warnings.
    ///
    /// # Errors
    /// The first step that failed, and what could not be taken back.
    pub fn apply(&mut self, batches: &[Batch]) -> Result<Vec<KernelError>, ApplyError> {
        let mut warnings = Vec::new();
        for batch in batches {
            let (mut done, error) = self.batch(batch);
            self.done.append(&mut done);
            match error {
                Some(_) if batch.iter().all(|s| matches!(s, Step::DelIfb { .. })) => {
                    warnings.extend(self.batch(batch).1);
                }
                Some(cause) => return Err(ApplyError { cause, undoing: self.take_back() }),
                None => {}
            }
        }
        Ok(warnings)
    }

    /// Does what can be done of a plan that only removes, and says what could not. An IFB stays
    /// while a filter may still point at it: a pod behind it would be cut off.
    pub fn remove(&mut self, batches: &[Batch]) -> Vec<KernelError> {
        let mut errors = Vec::new();
        for batch in batches {
            if errors.is_empty() || !batch.iter().all(|s| matches!(s, Step::DelIfb { .. })) {
                errors.extend(self.batch(batch).1);
            }
        }
        errors
    }

    /// Sends one batch; returns the steps that were done, or may have been, and the first error.
    fn batch(&mut self, batch: &[Step]) -> (Vec<Step>, Option<KernelError>) {
        let requests: Result<Vec<_>, _> = batch.iter().map(|step| self.request(step)).collect();
        let answers = match requests.and_then(|requests| self.socket.exchange(requests)) {
            Ok(answers) => answers,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let (mut done, mut first_error) = (Vec::new(), None);
        for (step, answer) in batch.iter().zip(answers) {
            let may_be_done = answer.as_ref().map_or_else(KernelError::is_unclear, |_| true);
            match self.settle(step, answer.map(|_| ())) {
                Ok(()) => done.push(step.clone()),
                Err(error) => {
                    done.extend(may_be_done.then(|| step.clone()));
                    first_error = first_error.or(Some(error));
                }
            }
        }
        (done, first_error)
    }

    /// What follows from one step's answer.
    fn settle(&mut self, step: &Step, answer: Result<(), KernelError>) -> Result<(), KernelError> {
        match (step, answer) {
            (Step::CreateIfb(hook), Ok(())) => {
                self.ifbs[*hook as usize] = Some(self.find_ifb(*hook)?);
                Ok(())
            }
            (Step::AddHook, Ok(())) => {
                self.hook = HookKind::Clsact;
                Ok(())
            }
            (Step::LabelIfb { hook, .. }, Err(error)) if link::may_lack_ipv6(&error) => {
                let (alias, mtu) = (self.site.alias.clone(), self.site.mtu);
                let doing = describe::doing(self.site, step);
                let index = self.ifb(*hook)?;
                self.socket.request(link::label(index, mtu, &alias, false, doing)).map(|_| ())
            }
            (step, Err(error)) if removes(step) && is_gone(step, &error) => Ok(()),
            (_, answer) => answer,
        }
    }

    fn find_ifb(&mut self, hook: Hook) -> Result<u32, KernelError> {
        let name = self.site.ifb(hook);
        match link::by_name(self.socket, name)? {
            Some(link) if link.kind.as_deref() == Some("ifb") => Ok(link.index),
            _ => Err(KernelError::NoDevice { name: name.into(), place: "the namespace" }),
        }
    }

    /// Takes back, last first, all that [`Applier::apply`] did or may have done; returns what could
    /// not be. An IFB stays as it is while a filter may still point at it: a pod behind it would be
    /// cut off. Hook and filters go and come in one send, so that a kill does not part them.
    pub fn take_back(&mut self) -> Vec<KernelError> {
        let done = std::mem::take(&mut self.done);
        let mut steps: Vec<Step> = done.iter().rev().filter_map(undo).collect();
        let mut errors = Vec::new();
        if steps.contains(&Step::DelHook) {
            let with_filters = self.drop_hook().unwrap_or_else(|error| {
                errors.push(error);
                false
            });
            let is_done = |step: &Step| match step {
                Step::DropFilter(_) => with_filters,
                step => *step == Step::DelHook,
            };
            steps.retain(|step| !is_done(step));
        }
        let is_restored = |step: &Step| matches!(step, Step::AddHook | Step::AddFilter { .. });
        let (restored, steps) = steps.into_iter().partition::<Vec<_>, _>(is_restored);
        errors.extend(self.restore_filters(&restored).err());
        let mut in_use = [false; 2];
        for step in steps {
            if step.ifb().is_some_and(|hook| in_use[hook as usize]) {
                continue;
            }
            let result = match step {
                Step::DropFilter(hook) => {
                    let result = self.drop_filter(hook);
                    in_use[hook as usize] |= result.is_err();
                    result
                }
                Step::DelIfb { hook } => self.drop_ifb(hook),
                step => self.batch(&[step]).1.map_or(Ok(()), Err),
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
            if all.iter().any(|filter| !self.points_at_ifb(filter, hook)) {
                return Ok(false);
            }
        }
        self.batch(&[Step::DelHook]).1.map_or(Ok(true), Err)
    }

    fn points_at_ifb(&self, filter: &Filter, hook: Hook) -> bool {
        let index = self.ifbs[hook as usize];
        matches!(filter.owner, Owner::Ours { target, .. } if Some(target) == index)
    }

    /// Removes the filter of ours that points at the IFB behind `hook`, whatever its handle.
    fn drop_filter(&mut self, hook: Hook) -> Result<(), KernelError> {
        let (all, ours) = self.filters_to_ifb(hook)?;
        for filter in &ours {
            let alone = filter.is_alone_in(&all);
            let doing = describe::doing(self.site, &Step::DropFilter(hook));
            let at = (hook, self.hook_kind());
            self.socket.request(filter::delete(self.device, at, filter, alone, doing))?;
        }
        Ok(())
    }

    /// Makes the filters again that were removed, or may have been, with the hook that they need.
    fn restore_filters(&mut self, steps: &[Step]) -> Result<(), KernelError> {
        let mut batch = Vec::new();
        for step in steps {
            let is_there = match step {
                Step::AddFilter { hook, .. } => !self.filters_to_ifb(*hook)?.1.is_empty(),
                _ => false,
            };
            batch.extend((!is_there).then(|| step.clone()));
        }
        if batch.is_empty() || (batch == [Step::AddHook] && steps.len() > 1) {
            return Ok(());
        }
        self.batch(&batch).1.map_or(Ok(()), Err)
    }

    /// All filters of a hook, and those of ours that point at the IFB behind it.
    fn filters_to_ifb(&mut self, hook: Hook) -> Result<(Vec<Filter>, Vec<Filter>), KernelError> {
        let at = (hook, self.hook_kind());
        let all = filters(self.socket, self.device, at, &self.site.device)?;
        let ours = all.iter().filter(|filter| self.points_at_ifb(filter, hook)).cloned().collect();
        Ok((all, ours))
    }

    /// A clsact qdisc that the same batch adds is there by the time its filters arrive.
    fn hook_kind(&self) -> HookKind {
        if self.hook == HookKind::None { HookKind::Clsact } else { self.hook }
    }

    fn ifb(&self, hook: Hook) -> Result<u32, KernelError> {
        self.ifbs[hook as usize].ok_or_else(|| KernelError::NoDevice {
            name: self.site.ifb(hook).into(),
            place: "the namespace",
        })
    }

    fn index(&self, place: Place) -> Result<u32, KernelError> {
        match place {
            Place::Device => Ok(self.device),
            Place::Ifb(hook) => self.ifb(hook),
        }
    }

    fn is_live(&self, place: Place) -> bool {
        match place {
            Place::Device => self.live[0],
            Place::Ifb(hook) => self.live[1 + hook as usize],
        }
    }

    fn request(&self, step: &Step) -> Result<Request, KernelError> {
        let doing = describe::doing(self.site, step);
        let kind = self.hook_kind();
        Ok(match step {
            Step::CreateIfb(hook) => link::create_ifb(self.site.ifb(*hook), self.site.mtu, doing),
            Step::LabelIfb { hook, .. } => {
                link::label(self.ifb(*hook)?, self.site.mtu, &self.site.alias, true, doing)
            }
            Step::RestoreLabel { hook, mtu, alias } => {
                let alias = alias.as_deref().unwrap_or_default();
                link::label(self.ifb(*hook)?, *mtu, alias, false, doing)
            }
            Step::UpIfb(hook) => link::set_up(self.ifb(*hook)?, true, doing),
            Step::DownIfb(hook) => link::set_up(self.ifb(*hook)?, false, doing),
            Step::AddTbf { place, bucket, replaces } => {
                qdisc::add_tbf(self.index(*place)?, bucket, replaces.is_some(), doing)
            }
            Step::ChangeTbf { place, to, .. } => {
                qdisc::change_tbf(self.index(*place)?, self.is_live(*place), to, doing)
            }
            Step::ReplaceLeaf { place, limit } => {
                qdisc::replace_leaf(self.index(*place)?, self.is_live(*place), *limit, doing)
            }
            Step::DelTbf { place, .. } => {
                qdisc::delete_tbf(self.index(*place)?, self.is_live(*place), doing)
            }
            Step::AddHook => qdisc::add_hook(self.device, doing),
            Step::DelHook => qdisc::delete_hook(self.device, doing),
            Step::AddFilter { hook, made_hook } => {
                filter::add(self.device, (*hook, kind), self.ifb(*hook)?, *made_hook, doing)
            }
            Step::DelFilter { hook, filter, alone, .. } => {
                filter::delete(self.device, (*hook, kind), filter, *alone, doing)
            }
            Step::DelIfb { hook } => link::delete(self.ifb(*hook)?, doing),
            // Never part of a plan; see `take_back`.
            Step::DropFilter(hook) => filter::list(self.device, *hook, kind, &self.site.device),
        })
    }
}

/// What a removal wanted is so already. For a root TBF the kernel says that another handle is there
/// (tc_get_qdisc in net/sched/sch_api.c): another program has removed or replaced ours.
fn is_gone(step: &Step, error: &KernelError) -> bool {
    error.is_gone() || (matches!(step, Step::DelTbf { .. }) && error.is_other_handle())
}

fn removes(step: &Step) -> bool {
    matches!(
        step,
        Step::DelTbf { .. } | Step::DelFilter { .. } | Step::DelHook | Step::DelIfb { .. }
    )
}
