//! Apply: the steps of a plan as netlink requests, and back again where one of them fails.

use super::error::KernelError;
use super::filter;
use super::link;
use super::observe::filters;
use super::qdisc;
use super::socket::{Request, Socket};
use crate::shaping::describe;
use crate::shaping::identity::LEAF_HANDLES;
use crate::shaping::plan::{Batch, Step};
use crate::shaping::queue::NewLeaf;
use crate::shaping::site::{Hook, HookKind, Ifb, Observed, Owner, Place, Root, Site};
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
    /// Of each place's TBF, see [`slot`].
    live: [bool; 3],
    /// Major numbers of the handles of their leaf queues.
    leaves: [u16; 3],
    lacks_fq_codel: bool,
    done: Vec<Step>,
}

impl<'a> Applier<'a> {
    /// `device` is the index of the site's interface; `observed` what the plan was made from.
    pub fn new(socket: &'a mut Socket, site: &'a Site, device: u32, observed: &Observed) -> Self {
        let of_ifb = |ifb: &Ifb| match ifb {
            Ifb::Present(state) => marks(&state.root),
            Ifb::Absent | Ifb::Taken(_) => (false, 0),
        };
        let [ingress, egress] = &observed.ifbs;
        let tbfs = [marks(&observed.root), of_ifb(ingress), of_ifb(egress)];
        Self {
            socket,
            site,
            device,
            ifbs: Hook::ALL.map(|hook| observed.ifb_index(hook)),
            hook: observed.hook,
            live: tbfs.map(|(live, _)| live),
            leaves: tbfs.map(|(_, leaf)| leaf),
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
    /// An IFB that nothing points at any more and that cannot be removed is no reason to fail: it
    /// harms nobody, and the next call removes it. Such errors are returned as warnings.
    ///
    /// # Errors
    /// The first step that failed, and what could not be taken back.
    pub fn apply(&mut self, batches: &[Batch]) -> Result<Vec<KernelError>, ApplyError> {
        let mut warnings = Vec::new();
        for batch in batches {
            let (mut done, error) = self.batch(batch);
            self.done.append(&mut done);
            match error {
                Some(error) if batch.iter().all(|s| matches!(s, Step::DelIfb { .. })) => {
                    warnings.push(error);
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

    /// Sends one batch; returns the steps that were done and the first error.
    fn batch(&mut self, batch: &[Step]) -> (Vec<Step>, Option<KernelError>) {
        // What the kernel does not have is asked for once: each time it may look for a module.
        let is_vain = |step: &&Step| {
            self.lacks_fq_codel && matches!(step, Step::ReplaceLeaf { optional: true, .. })
        };
        let batch: Vec<&Step> = batch.iter().filter(|step| !is_vain(step)).collect();
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
            match self.settle(step, answer.map(|_| ())) {
                Ok(()) => done.push(step.clone()),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        (done, first_error)
    }

    /// What follows from one step's answer.
    fn settle(&mut self, step: &Step, answer: Result<(), KernelError>) -> Result<(), KernelError> {
        if let (Step::ReplaceLeaf { place, .. }, Err(_)) = (step, &answer) {
            self.leaves[slot(*place)] = other_leaf(self.leaves[slot(*place)]);
        }
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
            (step, Err(error)) if removes(step) && error.is_gone() => Ok(()),
            (_, answer) => answer,
        }
    }

    fn find_ifb(&mut self, hook: Hook) -> Result<u32, KernelError> {
        let name = self.site.ifb(hook);
        match link::by_name(self.socket, name)? {
            Some(link) => Ok(link.index),
            None => Err(KernelError::NoDevice { name: name.into(), place: "the namespace" }),
        }
    }

    /// Takes back, last first, all that [`Applier::apply`] did; returns what could not be.
    pub fn take_back(&mut self) -> Vec<KernelError> {
        let mut errors = Vec::new();
        let done = std::mem::take(&mut self.done);
        for batch in done.iter().rev().map(undo) {
            let error = match batch[..] {
                [] => None,
                [Step::DropFilter(hook)] => self.drop_filter(hook).err(),
                _ => self.batch(&batch).1,
            };
            errors.extend(error);
        }
        errors
    }

    /// Removes the filter of ours that points at the IFB behind `hook`, whatever its handle.
    fn drop_filter(&mut self, hook: Hook) -> Result<(), KernelError> {
        let index = self.ifb(hook)?;
        let at = (hook, self.hook);
        let all = filters(self.socket, self.device, at, &self.site.device)?;
        for filter in &all {
            if matches!(filter.owner, Owner::Ours { target, .. } if target == index) {
                let alone = filter.is_alone_in(&all);
                let doing = describe::doing(self.site, &Step::DropFilter(hook));
                let request = filter::delete(self.device, at, filter, alone, doing);
                self.socket.request(request)?;
            }
        }
        Ok(())
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
        self.live[slot(place)]
    }

    fn request(&mut self, step: &Step) -> Result<Request, KernelError> {
        let doing = describe::doing(self.site, step);
        // A clsact qdisc that the same batch adds is there by the time its filters arrive.
        let kind = if self.hook == HookKind::None { HookKind::Clsact } else { self.hook };
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
                (self.live[slot(*place)], self.leaves[slot(*place)]) = (false, 0);
                qdisc::add_tbf(self.index(*place)?, bucket, replaces.is_some(), doing)
            }
            Step::ChangeTbf { place, to, .. } => {
                qdisc::change_tbf(self.index(*place)?, self.is_live(*place), to, doing)
            }
            Step::ReplaceLeaf { place, leaf, .. } => {
                let (index, live) = (self.index(*place)?, self.is_live(*place));
                let handle = other_leaf(self.leaves[slot(*place)]);
                self.leaves[slot(*place)] = handle;
                qdisc::replace_leaf(index, live, handle, leaf, doing)
            }
            Step::ChangeLeaf { place, to, .. } => {
                qdisc::change_leaf(self.index(*place)?, self.is_live(*place), to, doing)
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

/// What a TBF of ours at this root is marked with: the limit was changed after ADD, and the major
/// number of its leaf's handle.
fn marks(root: &Root) -> (bool, u16) {
    match root {
        Root::Ours(state) => (state.live, state.leaf_handle),
        Root::Default | Root::Foreign(_) => (false, 0),
    }
}

/// The handle of ours that a leaf queue with this one does not have.
fn other_leaf(handle: u16) -> u16 {
    let [first, second] = LEAF_HANDLES;
    if handle == first { second } else { first }
}

/// The index of a place in [`Applier::live`].
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
