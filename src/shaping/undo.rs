//! Undoing: what takes a step back, so that an ADD that fails leaves what was there before.

use super::plan::Step;
use super::site::Owner;

/// The step that undoes `step`, or `None` where nothing is to be undone or can be:
/// - a label on an IFB that the same plan created goes with it;
/// - a replaced leaf queue was emptied, and the change before it is undone on its own;
/// - a removed IFB is not made again: nothing pointed at it any more;
/// - a filter that pointed elsewhere than to its IFB was broken, and is not made again.
pub fn undo(step: &Step) -> Option<Step> {
    Some(match step {
        Step::CreateIfb(hook) => Step::DelIfb { hook: *hook },
        Step::LabelIfb { hook, was: Some(was) } => {
            Step::RestoreLabel { hook: *hook, mtu: was.0, alias: was.1.clone() }
        }
        Step::UpIfb(hook) => Step::DownIfb(*hook),
        Step::AddTbf { place, .. } => Step::DelTbf { place: *place, was: None },
        Step::ChangeTbf { place, from, to } => {
            Step::ChangeTbf { place: *place, from: to.to_state(), to: from.to_bucket() }
        }
        Step::DelTbf { place, was: Some(was) } => {
            Step::AddTbf { place: *place, bucket: was.to_bucket(), replaces: None }
        }
        Step::AddHook => Step::DelHook,
        Step::DelHook => Step::AddHook,
        Step::AddFilter { hook, rule, .. } => Step::DropFilter { hook: *hook, rule: *rule },
        Step::DelFilter { hook, filter, rule: Some(rule), .. } => match filter.owner {
            Owner::Ours { made_hook, .. } => {
                Step::AddFilter { hook: *hook, rule: *rule, made_hook }
            }
            Owner::Foreign { .. } => return None,
        },
        Step::LabelIfb { was: None, .. }
        | Step::RestoreLabel { .. }
        | Step::DownIfb(_)
        | Step::ReplaceLeaf { .. }
        | Step::DelTbf { was: None, .. }
        | Step::DropFilter { .. }
        | Step::DelFilter { .. }
        | Step::DelIfb { .. } => return None,
    })
}
