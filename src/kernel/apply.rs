//! Apply: the steps of a plan as netlink requests, and back again where one of them fails.

use super::error::KernelError;
use super::felix;
use super::filter;
use super::link;
use super::qdisc;
use super::socket::{Answer, Request, Socket};
use super::together::several_ifbs;
use crate::shaping::Rule;
use crate::shaping::describe;
use crate::shaping::plan::{Batch, Step};
use crate::shaping::queue::NewLeaf;
use crate::shaping::site::{Hook, HookKind, IFB_MTU, Ifb, Observed, Place, Root, Site};

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
    pub(super) socket: &'a mut Socket,
    pub(super) site: &'a Site,
    pub(super) device: u32,
    pub(super) ifbs: [Option<u32>; 2],
    pub(super) hook: HookKind,
    /// Major numbers of the handles of the leaf queues below each place's TBF, see [`slot`].
    leaves: [u16; 3],
    lacks_fq_codel: bool,
    pub(super) done: Vec<Step>,
}

impl<'a> Applier<'a> {
    /// `device` is the index of the site's interface; `observed` what the plan was made from.
    pub fn new(socket: &'a mut Socket, site: &'a Site, device: u32, observed: &Observed) -> Self {
        let of_ifb = |ifb: &Ifb| match ifb {
            Ifb::Present(state) => leaf_handle(&state.root),
            Ifb::Absent | Ifb::Taken(_) => 0,
        };
        let [ingress, egress] = &observed.ifbs;
        Self {
            socket,
            site,
            device,
            ifbs: Hook::ALL.map(|hook| observed.ifb_index(hook)),
            hook: observed.hook,
            leaves: [leaf_handle(&observed.root), of_ifb(ingress), of_ifb(egress)],
            lacks_fq_codel: false,
            done: Vec::new(),
        }
    }

    /// Whether a step found that this kernel has no fq_codel.
    pub fn lacks_fq_codel(&self) -> bool {
        self.lacks_fq_codel
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
    pub(super) fn batch(&mut self, batch: &[Step]) -> (Vec<Step>, Option<KernelError>) {
        // What the kernel does not have is asked for once: each time it may look for a module.
        let is_vain = |step: &&Step| {
            self.lacks_fq_codel && matches!(step, Step::ReplaceLeaf { optional: true, .. })
        };
        let batch: Vec<&Step> = batch.iter().filter(|step| !is_vain(step)).collect();
        if let Some(hooks) = several_ifbs(&batch)
            && self.remove_together(&hooks)
        {
            return (batch.into_iter().cloned().collect(), None);
        }
        let mut requests = Vec::new();
        for step in &batch {
            match self.request(step) {
                Ok(request) => requests.push(request),
                Err(error) => return (Vec::new(), Some(error)),
            }
        }
        let answers = match self.socket.exchange(requests) {
            Ok(answers) => answers,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let (mut done, mut first_error) = (Vec::new(), None);
        for (step, answer) in batch.into_iter().zip(answers) {
            if let (Step::DelIngress(_), Err(error)) = (step, &answer)
                && (error.is_gone() || error.is_other_qdisc())
            {
                // Felix has removed it itself: nothing is to be put back.
                continue;
            }
            let may_be_done = answer.as_ref().map_or_else(KernelError::is_unclear, |_| true);
            match self.settle(step, answer) {
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
    fn settle(&mut self, step: &Step, answer: Answer) -> Result<(), KernelError> {
        if let (Step::ReplaceLeaf { place, .. }, Err(_)) = (step, &answer) {
            self.leaves[slot(*place)] = self.other_leaf(*place);
        }
        match (step, answer) {
            (Step::CreateIfb(hook), Ok(answer)) => {
                let index = link::first(Ok(answer))?.map(|link| link.index);
                self.ifbs[*hook as usize] = Some(match index {
                    Some(index) => index,
                    None => self.find_ifb(*hook)?,
                });
                Ok(())
            }
            (Step::AddHook, Ok(_)) => {
                self.hook = HookKind::Clsact;
                Ok(())
            }
            (Step::ReplaceLeaf { optional: true, .. }, Err(error))
                if error.is_missing_feature() =>
            {
                self.lacks_fq_codel = true;
                Ok(())
            }
            (Step::ReplaceLeaf { leaf: NewLeaf::FqCodel(_), .. }, Err(error))
                if error.is_missing_feature() =>
            {
                Err(KernelError::NoFqCodel { doing: describe::doing(self.site, step) })
            }
            (step, Err(error)) if removes(step) && is_gone(step, &error) => Ok(()),
            (_, answer) => answer.map(|_| ()),
        }
    }

    pub(super) fn find_ifb(&mut self, hook: Hook) -> Result<u32, KernelError> {
        let name = self.site.ifb(hook);
        match link::by_name(self.socket, name)? {
            Some(link) if link.kind.as_deref() == Some("ifb") => Ok(link.index),
            _ => Err(KernelError::NoDevice { name: name.into(), place: "the namespace" }),
        }
    }

    /// A clsact qdisc that the same batch adds is there by the time its filters arrive.
    pub(super) fn hook_kind(&self) -> HookKind {
        if self.hook == HookKind::None { HookKind::Clsact } else { self.hook }
    }

    pub(super) fn ifb(&self, hook: Hook) -> Result<u32, KernelError> {
        self.ifbs[hook as usize].ok_or_else(|| KernelError::NoDevice {
            name: self.site.ifb(hook).into(),
            place: "the namespace",
        })
    }

    /// Where a rule's filter points to.
    pub(super) fn target(&self, hook: Hook, rule: Rule) -> Result<Option<u32>, KernelError> {
        rule.redirects.then(|| self.ifb(hook)).transpose()
    }

    fn index(&self, place: Place) -> Result<u32, KernelError> {
        match place {
            Place::Device => Ok(self.device),
            Place::Ifb(hook) => self.ifb(hook),
        }
    }

    /// The handle of ours that the leaf queue of this place does not have.
    fn other_leaf(&self, place: Place) -> u16 {
        let [first, second] = self.site.leaf_handles(place);
        if self.leaves[slot(place)] == first { second } else { first }
    }

    fn request(&mut self, step: &Step) -> Result<Request, KernelError> {
        let doing = describe::doing(self.site, step);
        let kind = self.hook_kind();
        Ok(match step {
            Step::CreateIfb(hook) => link::create_ifb(self.site.ifb(*hook), IFB_MTU, doing),
            Step::LabelIfb { hook, .. } => {
                link::label(self.ifb(*hook)?, IFB_MTU, &self.site.alias, doing)
            }
            Step::RestoreLabel { hook, mtu, alias } => {
                let alias = alias.as_deref().unwrap_or_default();
                link::label(self.ifb(*hook)?, *mtu, alias, doing)
            }
            Step::UpIfb(hook) => link::set_up(self.ifb(*hook)?, true, doing),
            Step::DownIfb(hook) => link::set_up(self.ifb(*hook)?, false, doing),
            Step::AddTbf { place, bucket, replaces } => {
                self.leaves[slot(*place)] = 0;
                qdisc::add_tbf(self.index(*place)?, bucket, replaces.is_some(), doing)
            }
            Step::ChangeTbf { place, to, .. } => qdisc::change_tbf(self.index(*place)?, to, doing),
            Step::ReplaceLeaf { place, leaf, .. } => {
                let index = self.index(*place)?;
                let handle = self.other_leaf(*place);
                self.leaves[slot(*place)] = handle;
                qdisc::replace_leaf(index, handle, leaf, doing)
            }
            Step::ChangeLeaf { place, to, .. } => {
                qdisc::change_leaf(self.index(*place)?, to, doing)
            }
            Step::DelTbf { place, .. } => qdisc::delete_tbf(self.index(*place)?, doing),
            Step::AddHook => qdisc::add_hook(self.device, doing),
            Step::DelHook => qdisc::delete_hook(self.device, doing),
            Step::DelIngress(_) => {
                self.hook = HookKind::None;
                felix::delete_ingress(self.device, doing)
            }
            Step::AddFilter { hook, rule, made_hook } => {
                let target = self.target(*hook, *rule)?;
                let Site { tag, sources, .. } = *self.site;
                let record = filter::Record { made_hook: *made_hook, tag, sources };
                filter::add(self.device, (*hook, kind), rule.matches, target, record, doing)
            }
            Step::DelFilter { hook, filter, alone, .. } => {
                filter::delete(self.device, (*hook, kind), filter, *alone, doing)
            }
            Step::DelIfb { hook } => link::delete(self.ifb(*hook)?, doing),
            // Never part of a plan; see `take_back`.
            Step::DropFilter { hook, .. } => {
                filter::list(self.device, *hook, kind, &self.site.device)
            }
            Step::RestoreIngress(_) => felix::add_ingress(self.device, doing),
        })
    }
}

/// What a removal wanted is so already: also if another program has removed or replaced our qdisc.
fn is_gone(step: &Step, error: &KernelError) -> bool {
    let is_qdisc = matches!(step, Step::DelTbf { .. } | Step::DelHook);
    error.is_gone() || (is_qdisc && error.is_other_qdisc())
}

/// Major number of the handle of the leaf below a TBF of ours at this root.
fn leaf_handle(root: &Root) -> u16 {
    match root {
        Root::Ours(state) => state.leaf_handle,
        Root::Default | Root::Foreign(_) => 0,
    }
}

/// The index of a place in [`Applier::leaves`].
fn slot(place: Place) -> usize {
    match place {
        Place::Device => 0,
        Place::Ifb(hook) => 1 + hook as usize,
    }
}

fn removes(step: &Step) -> bool {
    matches!(
        step,
        Step::DelTbf { .. } | Step::DelFilter { .. } | Step::DelHook | Step::DelIfb { .. }
    )
}
