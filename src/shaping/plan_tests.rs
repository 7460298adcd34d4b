use proptest::prelude::*;

use super::super::bucket::BytesPerSecond;
use super::super::mark::Mark;
use super::super::placement::{Buckets, Way};
use super::super::queue::Queue;
use super::super::rules::Match;
use super::super::site::{Owner, Takes};
use super::*;
use crate::policy::{Direction, Scope};

#[path = "plan_model.rs"]
mod model;
use model::{simulate, simulate_on};

const OWN_IFBS: [u32; 2] = [21, 22];
const ELSEWHERE: u32 = 99;

fn bucket(megabits: u64) -> Bucket {
    let rate = BytesPerSecond(megabits * 125_000);
    Bucket {
        rate,
        burst: (rate.0 / 250) as u32,
        limit: (rate.0 / 25) as u32,
        peak: None,
        queue: Queue::Fifo,
        mark: Mark::Added,
    }
}

/// The pod is cut off where a filter of ours redirects to an IFB that is missing or down.
fn cuts_off(observed: &Observed) -> bool {
    Hook::ALL.iter().any(|hook| {
        observed.ours(*hook).any(|filter| {
            let Owner::Ours { target: Some(target), .. } = filter.owner else { return false };
            !matches!(&observed.ifbs[*hook as usize],
                Ifb::Present(state) if state.up && state.index == target)
        })
    })
}

/// What is not ours, to compare before and after.
fn foreign(observed: &Observed) -> impl PartialEq + std::fmt::Debug + use<> {
    let is_foreign = |f: &&Filter| !matches!(f.owner, Owner::Ours { .. });
    let filters: Vec<Filter> =
        observed.filters.iter().flatten().filter(is_foreign).cloned().collect();
    let root = match &observed.root {
        Root::Foreign(kind) => Some(kind.clone()),
        _ => None,
    };
    let taken: Vec<bool> = observed.ifbs.iter().map(|ifb| matches!(ifb, Ifb::Taken(_))).collect();
    (filters, root, taken)
}

fn has_ours(observed: &Observed) -> bool {
    matches!(observed.root, Root::Ours(_))
        || Hook::ALL.iter().any(|hook| observed.ours(*hook).next().is_some())
        || observed.ifbs.iter().any(|ifb| matches!(ifb, Ifb::Present(_)))
}

fn any_queue() -> impl Strategy<Value = FqCodel> {
    let rate = prop_oneof![Just(1u64), Just(10), Just(100)];
    let flows = prop_oneof![3 => Just(256u32), 1 => Just(1024)];
    (rate, flows).prop_map(|(megabits, flows)| {
        let queue = FqCodel::new(bucket(megabits).rate, 5_000, 1500, 25);
        FqCodel { flows, ..queue }
    })
}

fn any_bucket() -> impl Strategy<Value = Bucket> {
    let queue = prop_oneof![
        1 => Just(Queue::Fifo),
        1 => any_queue().prop_map(Queue::FqCodel),
        2 => any_queue().prop_map(Queue::Auto),
    ];
    let mark = prop_oneof![Just(Mark::Added), Just(Mark::Agent), Just(Mark::Hand)];
    (prop_oneof![Just(bucket(1)), Just(bucket(10)), Just(bucket(100))], queue, mark)
        .prop_map(|(bucket, queue, mark)| Bucket { queue, mark, ..bucket })
}

fn any_leaf() -> impl Strategy<Value = Leaf> {
    prop_oneof![
        3 => Just(Leaf::Own),
        1 => Just(Leaf::Bfifo(bucket(10).limit)),
        2 => any_queue().prop_map(|queue| Leaf::FqCodel(queue.shown())),
        1 => Just(Leaf::Other("pfifo".into())),
    ]
}

fn any_root() -> impl Strategy<Value = Root> {
    let foreign_mark = prop_oneof![4 => Just(None), 1 => Just(Some(Mark::Other(64)))];
    let ours = (any_bucket(), any_leaf(), foreign_mark).prop_map(|(bucket, leaf, mark)| {
        let mark = mark.unwrap_or(bucket.mark);
        Root::Ours(TbfState { leaf, mark, ..bucket.to_state() })
    });
    let foreign = Just(Root::Foreign("tbf 1:".into()));
    // On the heap: three of them by value are too much for a test's stack.
    prop_oneof![2 => Just(Root::Default), 3 => ours, 1 => foreign].boxed()
}

fn any_ifb(hook: Hook) -> impl Strategy<Value = Ifb> {
    let alias =
        prop_oneof![Just(None), Just(Some("x".to_string())), Just(Some(Site::example().alias))];
    let mtu = prop_oneof![Just(IFB_MTU), Just(1500)];
    let present =
        (any::<bool>(), mtu, alias, any_root()).prop_map(move |(up, mtu, alias, root)| {
            Ifb::Present(IfbState { index: OWN_IFBS[hook as usize], up, mtu, alias, root })
        });
    prop_oneof![2 => Just(Ifb::Absent), 4 => present, 1 => Just(Ifb::Taken("dummy".into()))]
}

const NETS: [&str; 4] = ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8", "::/0"];

fn net(n: usize) -> ipnetwork::IpNetwork {
    NETS[n].parse().unwrap()
}

fn any_match() -> impl Strategy<Value = Match> {
    prop_oneof![
        3 => Just(Match::All),
        3 => (0..NETS.len()).prop_map(|n| Match::Destination(net(n))),
        3 => (0..NETS.len()).prop_map(|n| Match::Source(net(n))),
        1 => any::<bool>().prop_map(|n| Match::Nothing(Direction::ALL[usize::from(n)])),
        1 => Just(Match::Unknown),
    ]
}

fn any_scope() -> impl Strategy<Value = Scope> {
    let nets = || {
        proptest::sample::subsequence((0..NETS.len()).collect::<Vec<_>>(), 1..=NETS.len())
            .prop_map(|numbers| numbers.into_iter().map(net).collect::<Vec<_>>())
    };
    prop_oneof![
        2 => Just(Scope::All),
        2 => nets().prop_map(Scope::Except),
        1 => nets().prop_map(Scope::Only),
    ]
}

fn any_filters(hook: Hook) -> impl Strategy<Value = Vec<Filter>> {
    let own = OWN_IFBS[hook as usize];
    let target = prop_oneof![3 => Just(Some(own)), 1 => Just(Some(ELSEWHERE)), 2 => Just(None)];
    let ours =
        (any_match(), target, any::<bool>()).prop_map(move |(matches, target, made_hook)| {
            let stamp = Stamp::default();
            (matches.pref(hook), Owner::Ours { matches, target, made_hook, stamp })
        });
    let other = any_match().prop_map(move |m| (m.pref(hook), Owner::Other(SeenTag::None)));
    let pref = prop_oneof![8 => Just(1u16), 8 => Just(49152), 1 => Just(u16::MAX - hook as u16)];
    let takes = prop_oneof![Just(Takes::Nothing), Just(Takes::Some), Just(Takes::All)];
    let foreign =
        (pref, takes, prop_oneof![Just("u32"), Just("bpf")]).prop_map(|(pref, takes, kind)| {
            (pref, Owner::Foreign { kind: kind.into(), protocol: 3, takes })
        });
    proptest::collection::vec(prop_oneof![8 => ours, 4 => foreign, 1 => other], 0..7).prop_map(
        |filters| {
            let filters = filters.into_iter().enumerate();
            let mut filters: Vec<Filter> = filters
                .map(|(n, (pref, owner))| Filter { pref, handle: 0x8000_0800 + n as u32, owner })
                .collect();
            filters.sort_by_key(|filter| filter.pref);
            filters
        },
    )
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let hook = prop_oneof![Just(HookKind::None), Just(HookKind::Ingress), Just(HookKind::Clsact)];
    let ifbs = (any_ifb(Hook::Ingress), any_ifb(Hook::Egress));
    let filters = (any_filters(Hook::Ingress), any_filters(Hook::Egress));
    (any_root(), hook, filters, ifbs).prop_map(|(root, hook, filters, ifbs)| {
        let filters = match hook {
            HookKind::None => [Vec::new(), Vec::new()],
            HookKind::Ingress => [filters.0, Vec::new()],
            HookKind::Clsact => [filters.0, filters.1],
        };
        Observed { root, hook, filters, ifbs: [ifbs.0, ifbs.1], ..Observed::default() }
    })
}

/// An interface with an `ingress` qdisc of Felix's, perhaps with filters of ours on it.
fn any_felix() -> impl Strategy<Value = Observed> {
    let redirects = FelixIngress::Redirects { ifb: ELSEWHERE, class: 0 };
    let felix = prop_oneof![Just(FelixIngress::Idle), Just(redirects)];
    (any_observed(), felix).prop_map(|(mut observed, felix)| {
        let owner = Owner::Foreign { kind: "u32".into(), protocol: 3, takes: Takes::All };
        let own = Filter { pref: 1, handle: 0x8000_0800, owner };
        let [ingress, egress] = &mut observed.filters;
        ingress.retain(|filter| matches!(filter.owner, Owner::Ours { .. }));
        egress.clear();
        ingress.splice(0..0, (felix != FelixIngress::Idle).then_some(own));
        Observed { hook: HookKind::Ingress, felix: Some(felix), ..observed }
    })
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let way = prop_oneof![Just(Way::HostRoot), Just(Way::HostHooks), Just(Way::Pod)];
    let limit = || proptest::option::of(any_bucket());
    let removed = any::<[bool; 2]>();
    (way, limit(), limit(), any_scope(), removed).prop_map(
        |(way, ingress, egress, scope, [to_pod, from_pod])| {
            let removed = [ingress.is_none() && to_pod, egress.is_none() && from_pod];
            Shape { removed, ..way.shape(&Buckets { ingress, egress }).within(&scope) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn applying_a_plan_leaves_nothing_to_plan(
        mut observed in any_observed(), wanted in any_shape(), has_fq_codel: bool,
    ) {
        let site = Site::example();
        let before = foreign(&observed);
        if let Ok(batches) = plan(&site, &wanted, &observed) {
            for step in batches.iter().flatten() {
                simulate_on(has_fq_codel, &site, &mut observed, step);
            }
            prop_assert_eq!(plan(&site, &wanted, &observed), Ok(Vec::new()));
            prop_assert_eq!(foreign(&observed), before, "what is not ours stays");
            prop_assert!(!cuts_off(&observed), "each filter of ours points at its IFB");
        }
    }

    #[test]
    fn felixs_ingress_qdisc_makes_way_for_a_limit_of_the_same_direction_alone(
        mut observed in any_felix(), wanted in any_shape(),
    ) {
        let site = Site::example();
        let was = observed.clone();
        let Ok(batches) = plan(&site, &wanted, &observed) else { return Ok(()) };
        let removes = |step: &Step| matches!(step, Step::DelIngress(_));
        if let Some(batch) = batches.iter().find(|batch| batch.iter().any(removes)) {
            prop_assert!(wanted.redirects[Hook::Ingress as usize].is_some());
            prop_assert!(batch.contains(&Step::AddHook), "in one send: {:?}", batch);
        } else {
            prop_assert!(!batches.concat().contains(&Step::AddHook));
        }
        for step in batches.iter().flatten() {
            simulate(&site, &mut observed, step);
        }
        let foreign = |root: &Root| matches!(root, Root::Foreign(_));
        prop_assert_eq!(foreign(&observed.root), foreign(&was.root), "Felix's root TBF stays");
        prop_assert_eq!(plan(&site, &wanted, &observed), Ok(Vec::new()));
        // And nothing wanted leaves what Felix has.
        let mut left = was;
        for step in plan(&site, &Shape::default(), &left).unwrap().iter().flatten() {
            simulate(&site, &mut left, step);
        }
        prop_assert!(left.felix.is_some() && left.hook == HookKind::Ingress);
    }

    #[test]
    fn the_pod_keeps_its_network_after_every_step(
        mut observed in prop_oneof![any_observed(), any_felix()], wanted in any_shape(),
    ) {
        let site = Site::example();
        if cuts_off(&observed) {
            return Ok(()); // somebody else cut it off before
        }
        for batch in plan(&site, &wanted, &observed).unwrap_or_default() {
            for step in &batch {
                simulate(&site, &mut observed, step);
                prop_assert!(!cuts_off(&observed), "after {:?}", step);
            }
        }
    }

    #[test]
    fn nothing_never_conflicts_and_leaves_nothing_of_ours(mut observed in any_observed()) {
        let site = Site::example();
        for step in plan(&site, &Shape::default(), &observed).unwrap().iter().flatten() {
            simulate(&site, &mut observed, step);
        }
        prop_assert!(!has_ours(&observed));
    }

    #[test]
    fn a_new_bucket_never_leaves_a_packet_that_it_cannot_send(
        mut observed in any_observed(), wanted in any_shape(),
    ) {
        let site = Site::example();
        for batch in plan(&site, &wanted, &observed).unwrap_or_default() {
            for (n, step) in batch.iter().enumerate() {
                if let Step::ChangeTbf { place, from, to } = step {
                    let empties = matches!(batch.get(n + 1),
                        Some(Step::ReplaceLeaf { place: same, .. }) if same == place);
                    prop_assert!(empties || to.holds_queue_of(from), "{:?}", batch);
                }
                simulate(&site, &mut observed, step);
            }
        }
    }
}

fn batches(wanted: Shape, observed: &Observed) -> Vec<Batch> {
    plan(&Site::example(), &wanted, observed).unwrap()
}

#[test]
fn a_fresh_interface_is_built_inside_out() {
    let wanted =
        Way::HostRoot.shape(&Buckets { ingress: Some(bucket(10)), egress: Some(bucket(20)) });
    let (ifb, root) = (Place::Ifb(Hook::Ingress), Place::Device);
    assert_eq!(
        batches(wanted, &Observed::default()),
        [
            vec![Step::CreateIfb(Hook::Ingress)],
            vec![
                Step::LabelIfb { hook: Hook::Ingress, was: None },
                Step::AddTbf { place: ifb, bucket: bucket(20), replaces: None },
                Step::UpIfb(Hook::Ingress),
            ],
            vec![
                Step::AddHook,
                Step::AddFilter { hook: Hook::Ingress, rule: Rule::ALL, made_hook: true },
                Step::AddTbf { place: root, bucket: bucket(10), replaces: None },
            ],
        ]
    );
}

#[test]
fn a_foreign_clsact_is_used_and_stays() {
    let mut observed = Observed { hook: HookKind::Clsact, ..Observed::default() };
    let wanted = Shape { redirects: [Some(bucket(10)), None], ..Shape::default() };
    for step in batches(wanted, &observed).iter().flatten() {
        assert_ne!(*step, Step::AddHook);
        simulate(&Site::example(), &mut observed, step);
    }
    let removal = batches(Shape::default(), &observed);
    assert!(!removal.iter().flatten().any(|step| *step == Step::DelHook), "{removal:?}");
}

#[test]
fn felixs_ingress_qdisc_and_what_takes_its_place_are_one_send() {
    let felix = FelixIngress::Redirects { ifb: 9, class: 0x1_0001 };
    let owner = Owner::Foreign { kind: "u32".into(), protocol: 3, takes: Takes::All };
    let filters = [vec![Filter { pref: 1, handle: 0x8000_0800, owner }], Vec::new()];
    let hook = HookKind::Ingress;
    let observed = Observed { hook, filters, felix: Some(felix), ..Observed::default() };
    let buckets = Buckets { ingress: Some(bucket(10)), egress: Some(bucket(20)) };
    let batches = batches(Way::HostHooks.shape(&buckets), &observed);
    let rule = |hook| Step::AddFilter { hook, rule: Rule::ALL, made_hook: true };
    let replace = [Step::DelIngress(felix), Step::AddHook, rule(Hook::Ingress), rule(Hook::Egress)];
    assert_eq!(batches.last().unwrap()[..], replace);
    // A limit to the pod alone takes the place of nothing that Felix has: refused.
    let to_pod = Buckets { ingress: Some(bucket(10)), egress: None };
    assert!(plan(&Site::example(), &Way::HostHooks.shape(&to_pod), &observed).is_err());
}

#[test]
fn a_cut_empties_the_queue_in_the_same_send() {
    let observed = Observed { root: Root::Ours(bucket(50).to_state()), ..Observed::default() };
    let wanted = Shape { root: Some(bucket(5)), ..Shape::default() };
    let place = Place::Device;
    let change = Step::ChangeTbf { place, from: bucket(50).to_state(), to: bucket(5) };
    let leaf = NewLeaf::Bfifo(bucket(5).limit);
    let was = Some(Leaf::Bfifo(bucket(50).limit));
    let replace = Step::ReplaceLeaf { place, leaf, was, optional: false };
    assert_eq!(batches(wanted, &observed), [vec![change, replace]]);
}

#[test]
fn what_stands_in_the_way_is_named() {
    let barrier = Filter {
        pref: 1,
        handle: 0x8000_0800,
        owner: Owner::Foreign { kind: "u32".into(), protocol: 3, takes: Takes::All },
    };
    let both = Way::HostHooks.shape(&Buckets { ingress: Some(bucket(1)), egress: Some(bucket(1)) });
    let root = Shape { root: Some(bucket(1)), ..Shape::default() };
    let subnets = both.clone().within(&Scope::Except(vec![net(0)]));
    let last = Filter {
        pref: 65533,
        handle: 0x8000_0800,
        owner: Owner::Foreign { kind: "flower".into(), protocol: 3, takes: Takes::Some },
    };
    let clsact = Observed { hook: HookKind::Clsact, ..Observed::default() };
    for (wanted, observed, words) in [
        (
            root,
            Observed { root: Root::Foreign("tbf 1:".into()), ..Observed::default() },
            &["veth0", "tbf 1:", "remove the other entry", "hooks"][..],
        ),
        (
            both.clone(),
            Observed { hook: HookKind::Ingress, ..Observed::default() },
            &["veth0", "`ingress` qdisc", "\"root\""],
        ),
        (
            subnets.clone(),
            Observed { hook: HookKind::Ingress, ..Observed::default() },
            &["veth0", "`ingress` qdisc", "unshapedSubnets"],
        ),
        (
            subnets,
            Observed { filters: [vec![last], Vec::new()], ..clsact.clone() },
            &["veth0", "flower", "pref 65533", "below 65531"],
        ),
        (
            both.clone(),
            Observed { filters: [vec![barrier], Vec::new()], ..clsact.clone() },
            &["veth0", "u32", "pref 1", "\"pod\""],
        ),
        (
            both,
            Observed { ifbs: [Ifb::Taken("dummy".into()), Ifb::Absent], ..clsact },
            &["pbe", "dummy", "not ours"],
        ),
    ] {
        let text = plan(&Site::example(), &wanted, &observed).unwrap_err().to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[path = "plan_subnets_tests.rs"]
mod subnets;
