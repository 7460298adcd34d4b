//! Plans for a part of a pod's traffic.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_the_limit_is_not_for_never_meets_it(mut observed in any_observed(), wanted in any_shape()) {
        let site = Site::example();
        // given a hook without a filter of ours that takes all
        let takes_all = |observed: &Observed, hook: Hook| {
            observed.ours(hook).any(|filter| {
                matches!(filter.owner, Owner::Ours { matches: Match::All, target: Some(_), .. })
            })
        };
        let passes = |observed: &Observed, hook: Hook, rule: &Rule| {
            observed.ours(hook).any(|filter| observed.rule_of(hook, filter) == Some(*rule))
        };
        let before = Hook::ALL.map(|hook| takes_all(&observed, hook));
        for step in plan(&site, &wanted, &observed).unwrap_or_default().iter().flatten() {
            simulate(&site, &mut observed, step);
            // then one that takes all comes after those that let packets pass
            for hook in Hook::ALL.into_iter().filter(|hook| !before[*hook as usize]) {
                if takes_all(&observed, hook) {
                    let rules = wanted.rules(&site, hook);
                    let mut pass = rules.iter().filter(|rule| !rule.redirects);
                    prop_assert!(pass.all(|rule| passes(&observed, hook, rule)), "after {:?}", step);
                }
            }
        }
    }

    #[test]
    fn another_scope_changes_filters_alone(
        first in any_scope(), second in any_scope(), hook in prop_oneof![Just(HookKind::None), Just(HookKind::Clsact)],
    ) {
        let site = Site::example();
        let shape = |scope: &Scope| {
            let buckets = Buckets { ingress: Some(bucket(10)), egress: Some(bucket(20)) };
            Way::HostHooks.shape(&buckets).within(scope)
        };
        let mut observed = Observed { hook, ..Observed::default() };
        for step in batches(shape(&first), &observed).iter().flatten() {
            simulate(&site, &mut observed, step);
        }
        for step in batches(shape(&second), &observed).iter().flatten() {
            let (hook, rule) = match step {
                Step::AddFilter { hook, rule, .. } => (*hook, *rule),
                Step::DelFilter { hook, rule: Some(rule), .. } => (*hook, *rule),
                other => panic!("{other:?}"),
            };
            let in_both = [&first, &second].iter().all(|scope| shape(scope).rules(&site, hook).contains(&rule));
            prop_assert!(!in_both, "{:?} is in both", rule);
        }
    }
}

#[test]
fn subnets_are_told_apart_at_the_hooks_and_what_passes_comes_first() {
    let buckets = Buckets { ingress: Some(bucket(10)), egress: Some(bucket(20)) };
    let scope = Scope::Except(vec![net(0), net(2)]);
    let pass = |hook, matches| Step::AddFilter {
        hook,
        rule: Rule { matches, redirects: false },
        made_hook: true,
    };
    let redirect = |hook| Step::AddFilter { hook, rule: Rule::ALL, made_hook: true };
    for way in Way::ALL {
        // at the host; in the pod the sides are the other way round
        let side = way.side();
        let site = Site { side, ..Site::example() };
        let ends = |hook, net| match site.direction_of(Place::Ifb(hook)) {
            Direction::Ingress => Match::Source(net),
            Direction::Egress => Match::Destination(net),
        };
        let (ingress, egress) = (Hook::Ingress, Hook::Egress);
        let batches =
            plan(&site, &way.shape(&buckets).within(&scope), &Observed::default()).unwrap();
        assert_eq!(
            batches.last().unwrap(),
            &[
                Step::AddHook,
                pass(ingress, ends(ingress, net(0))),
                pass(ingress, ends(ingress, net(2))),
                redirect(ingress),
                pass(egress, ends(egress, net(0))),
                pass(egress, ends(egress, net(2))),
                redirect(egress),
            ],
            "{way}"
        );
        let tbfs: Vec<&Step> =
            batches.iter().flatten().filter(|step| matches!(step, Step::AddTbf { .. })).collect();
        assert_eq!(tbfs.len(), 2, "{way}");
        assert!(!tbfs.iter().any(|s| matches!(s, Step::AddTbf { place: Place::Device, .. })));
    }
}
