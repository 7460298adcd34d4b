//! The kernel, as far as the plan's tests need one.

use super::*;

fn tbf_of(observed: &mut Observed, place: Place) -> &mut TbfState {
    let root = match place {
        Place::Device => &mut observed.root,
        Place::Ifb(hook) => match &mut observed.ifbs[hook as usize] {
            Ifb::Present(state) => &mut state.root,
            _ => panic!("a leaf without its IFB"),
        },
    };
    let Root::Ours(state) = root else { panic!("a leaf without its TBF") };
    state
}

/// A kernel with fq_codel, as far as the plan needs one.
pub(super) fn simulate(site: &Site, observed: &mut Observed, step: &Step) {
    simulate_on(true, site, observed, step);
}

/// The kernel, as far as the plan needs one: what a step does to what is observed.
pub(super) fn simulate_on(has_fq_codel: bool, site: &Site, observed: &mut Observed, step: &Step) {
    let ifb = |observed: &mut Observed, hook: Hook, change: &dyn Fn(&mut IfbState)| {
        let Ifb::Present(state) = &mut observed.ifbs[hook as usize] else {
            panic!("{step:?} without its IFB")
        };
        change(state);
    };
    let set_root = |observed: &mut Observed, place: Place, root: Root| match place {
        Place::Device => observed.root = root,
        Place::Ifb(hook) => ifb(observed, hook, &|state| state.root = root.clone()),
    };
    match step {
        Step::CreateIfb(hook) => {
            assert_eq!(observed.ifbs[*hook as usize], Ifb::Absent);
            observed.ifbs[*hook as usize] = Ifb::Present(IfbState {
                index: OWN_IFBS[*hook as usize],
                up: false,
                mtu: IFB_MTU,
                alias: None,
                root: Root::Default,
            });
        }
        Step::LabelIfb { hook, .. } => ifb(observed, *hook, &|state| {
            state.alias = Some(site.alias.clone());
            state.mtu = IFB_MTU;
        }),
        Step::UpIfb(hook) => ifb(observed, *hook, &|state| state.up = true),
        Step::AddTbf { place, bucket, .. } => {
            set_root(observed, *place, Root::Ours(bucket.to_state()));
        }
        Step::ChangeTbf { place, from, to } => {
            let leaf = match &from.leaf {
                Leaf::Bfifo(_) => Leaf::Bfifo(to.limit),
                other => other.clone(),
            };
            let state = TbfState { leaf, leaf_handle: from.leaf_handle, ..to.to_state() };
            set_root(observed, *place, Root::Ours(state));
        }
        Step::ReplaceLeaf { optional: true, .. } if !has_fq_codel => {}
        Step::ReplaceLeaf { place, leaf, .. } => {
            let tbf = tbf_of(observed, *place);
            let [first, second] = site.leaf_handles(*place);
            tbf.leaf_handle = if tbf.leaf_handle == first { second } else { first };
            tbf.leaf = match leaf {
                NewLeaf::Bfifo(limit) => Leaf::Bfifo(*limit),
                NewLeaf::FqCodel(queue) => Leaf::FqCodel(queue.shown()),
            };
        }
        Step::ChangeLeaf { place, from, to } => {
            let leaf = &mut tbf_of(observed, *place).leaf;
            assert_eq!(*leaf, Leaf::FqCodel(*from));
            assert_eq!(from.flows, to.flows, "the kernel cannot change the flows");
            *leaf = Leaf::FqCodel(to.shown());
        }
        Step::DelTbf { place, .. } => set_root(observed, *place, Root::Default),
        Step::AddHook => {
            assert_eq!(observed.hook, HookKind::None);
            observed.hook = HookKind::Clsact;
        }
        Step::AddFilter { hook, rule, made_hook } => {
            assert_ne!(observed.hook, HookKind::None, "a filter needs its hook");
            let ifb = observed.ifb_index(*hook);
            let target = rule.redirects.then(|| ifb.expect("a redirect needs its IFB"));
            let tag = SeenTag::Whole(site.tag);
            let stamp = Stamp { tag, sources: site.sources };
            let owner = Owner::Ours { matches: rule.matches, target, made_hook: *made_hook, stamp };
            let filters = &mut observed.filters[*hook as usize];
            let handle = 0x8000_0900 + filters.len() as u32;
            filters.push(Filter { pref: rule.matches.pref(*hook), handle, owner });
            filters.sort_by_key(|filter| filter.pref);
        }
        Step::DelFilter { hook, filter, alone, .. } => {
            assert!(matches!(filter.owner, Owner::Ours { .. }), "{step:?} of another attachment");
            let filters = &mut observed.filters[*hook as usize];
            filters.retain(|other| {
                if *alone { !other.shares_preference_with(filter) } else { other != filter }
            });
            let shares = |other: &Filter| other.shares_preference_with(filter);
            assert!(*alone || filters.iter().any(shares), "{step:?} leaves an empty preference");
        }
        Step::DelHook => {
            assert!(!observed.has_foreign_filters(), "a hook with foreign filters is not ours");
            observed.hook = HookKind::None;
            observed.filters = Default::default();
        }
        Step::DelIngress(felix) => {
            assert_eq!(observed.felix, Some(*felix), "only Felix's `ingress` qdisc is removed");
            *observed = Observed { felix: None, ..observed.without_ingress() };
        }
        Step::DelIfb { hook } => observed.ifbs[*hook as usize] = Ifb::Absent,
        Step::RestoreLabel { .. }
        | Step::DownIfb(_)
        | Step::DropFilter { .. }
        | Step::RestoreIngress(_) => panic!("{step:?} is only for undoing"),
    }
}
