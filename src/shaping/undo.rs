//! Undoing: what takes a step back, so that an ADD that fails leaves what was there before.

use super::bucket::{Bucket, Leaf, TbfState};
use super::plan::{Batch, Step};
use super::queue::{self, NewLeaf};
use super::site::{Owner, Place};
use super::tag::{SeenTag, Stamp};

/// The steps, in one send, that undo `step`. None where nothing is to be undone or can be:
/// - a label on an IFB that the same plan created goes with it;
/// - a leaf queue that was replaced by one of its kind was emptied, and the change before it is
///   undone on its own;
/// - a removed IFB is not made again: nothing pointed at it any more;
/// - a filter that pointed elsewhere than to its IFB was broken, and is not made again.
pub fn undo(step: &Step) -> Batch {
    let back = match step {
        Step::ChangeTbf { place, from, to } => return change_back(*place, from, to),
        Step::DelTbf { place, was: Some(was) } => return make_again(*place, was),
        Step::ReplaceLeaf { place, leaf, was: Some(was), .. } => leaf_back(*place, leaf, was),
        Step::ChangeLeaf { place, from, to } => {
            Some(Step::ChangeLeaf { place: *place, from: to.shown(), to: from.to_wanted() })
        }
        Step::CreateIfb(hook) => Some(Step::DelIfb { hook: *hook }),
        Step::LabelIfb { hook, was: Some((mtu, alias)) } => {
            Some(Step::RestoreLabel { hook: *hook, mtu: *mtu, alias: alias.clone() })
        }
        Step::UpIfb(hook) => Some(Step::DownIfb(*hook)),
        Step::AddTbf { place, .. } => Some(Step::DelTbf { place: *place, was: None }),
        Step::AddHook => Some(Step::DelHook),
        Step::DelHook => Some(Step::AddHook),
        Step::DelIngress(felix) => Some(Step::RestoreIngress(*felix)),
        Step::AddFilter { hook, rule, .. } => Some(Step::DropFilter { hook: *hook, rule: *rule }),
        Step::DelFilter { hook, filter, rule: Some(rule), .. } => match filter.owner {
            Owner::Ours { made_hook, .. } => {
                Some(Step::AddFilter { hook: *hook, rule: *rule, made_hook })
            }
            Owner::Other(_) | Owner::Foreign { .. } => None,
        },
        Step::LabelIfb { was: None, .. }
        | Step::RestoreLabel { .. }
        | Step::DownIfb(_)
        | Step::ReplaceLeaf { was: None, .. }
        | Step::DelTbf { was: None, .. }
        | Step::DropFilter { .. }
        | Step::RestoreIngress(_)
        | Step::DelFilter { .. }
        | Step::DelIfb { .. } => None,
    };
    back.into_iter().collect()
}

/// Back to the old numbers. That may be a cut: what came in meanwhile must not wait for ever below
/// a bucket that cannot send it, so the queue is emptied as for any other cut.
fn change_back(place: Place, from: &TbfState, to: &Bucket) -> Batch {
    let (was, is) = (from.to_bucket(), to.to_state());
    let empties = !was.holds_queue_of(&is);
    let mut batch = vec![Step::ChangeTbf { place, from: is, to: was }];
    if empties {
        let leaf = NewLeaf::like(from);
        batch.push(Step::ReplaceLeaf { place, leaf, was: None, optional: false });
    }
    batch
}

fn make_again(place: Place, was: &TbfState) -> Batch {
    let bucket = was.to_bucket();
    let mut batch = vec![Step::AddTbf { place, bucket, replaces: None }];
    let was_stamped = Stamp::of_leaf(was.leaf_handle).tag != SeenTag::None;
    batch.extend(queue::below_new(place, &bucket, was_stamped));
    batch
}

fn leaf_back(place: Place, leaf: &NewLeaf, was: &Leaf) -> Option<Step> {
    let leaf = match (leaf, was) {
        (_, Leaf::FqCodel(queue)) => NewLeaf::FqCodel(queue.to_wanted()),
        (NewLeaf::FqCodel(_), Leaf::Bfifo(limit)) => NewLeaf::Bfifo(*limit),
        // Somebody's queue cannot be made again, and a FIFO stays one.
        _ => return None,
    };
    Some(Step::ReplaceLeaf { place, leaf, was: None, optional: false })
}

#[cfg(test)]
mod tests {
    use super::super::bucket::BytesPerSecond;
    use super::super::mark::Mark;
    use super::super::queue::{FqCodel, Queue};
    use super::*;

    fn bucket(megabits: u64) -> Bucket {
        let rate = BytesPerSecond(megabits * 125_000);
        let (burst, limit) = ((rate.0 / 250) as u32, (rate.0 / 25) as u32);
        Bucket { rate, burst, limit, peak: None, queue: Queue::Fifo, mark: Mark::Added }
    }

    #[test]
    fn a_raise_that_is_taken_back_empties_the_queue_like_a_cut() {
        let fq_codel = FqCodel::new(BytesPerSecond(625_000), 2_500, 1500, 25);
        let place = Place::Device;
        for (leaf, expected) in [
            (Leaf::Own, NewLeaf::Bfifo(bucket(5).limit)),
            (Leaf::FqCodel(fq_codel.shown()), NewLeaf::FqCodel(fq_codel.shown().to_wanted())),
        ] {
            let from = TbfState { leaf, ..bucket(5).to_state() };
            let batch = undo(&Step::ChangeTbf { place, from, to: bucket(50) });
            assert!(matches!(batch[0], Step::ChangeTbf { .. }));
            let empty = Step::ReplaceLeaf { place, leaf: expected, was: None, optional: false };
            assert_eq!(batch[1..], [empty]);
        }
        // A cut that is taken back is a raise: nothing is lost.
        let from = bucket(50).to_state();
        assert_eq!(undo(&Step::ChangeTbf { place, from, to: bucket(5) }).len(), 1);
    }
}
