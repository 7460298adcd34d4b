//! What the kernel shows of an interface, through every parser, the decision and every plan: one
//! letter says what an answer is for, two bytes how long it is, then its payload.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use pod_bandwidth::kernel::fuzzing;
use pod_bandwidth::policy::{Limits, Settings};
use pod_bandwidth::shaping::placement::{Buckets, Facts, Way, decide};
use pod_bandwidth::shaping::plan::{Batch, Step, plan};
use pod_bandwidth::shaping::site::{Ifb, IfbState, Owner, Root};
use pod_bandwidth::shaping::undo::undo;
use pod_bandwidth::shaping::{Bucket, Hook, HookKind, Observed, Shape, Side, Site, describe};
use pod_bandwidth_fuzz::site;
use serde_json::json;

fuzz_target!(|data: &[u8]| -> Corpus {
    let (observed, device) = observe(data);
    let site = site(Side::Host, &device);
    check_removal(&site, &observed);
    let mut rest = observed.clone();
    rest.disown_others(site.tag);
    check_removal(&site, &rest);
    rest.require_evidence(site.tag);
    check_removal(&site, &rest);
    for way in Way::ALL {
        check_way(&site, way, &BUCKETS, &observed);
    }
    let facts = Facts {
        host: Some((&device, &observed)),
        pod: None,
        bpf_data_plane: None,
        felix_trace: None,
        limited: [true; 2],
    };
    let decision = decide(&Settings::default(), "eth0", &facts).expect("auto has a way for all");
    if observed.guarded_by_bpf() {
        assert_eq!(decision.way, Way::Pod, "nothing bypasses a policy");
    }
    Corpus::Keep
});

/// What these answers say, and the name of the interface.
fn observe(mut data: &[u8]) -> (Observed, String) {
    let mut observed = Observed::default();
    let mut device = "veth0".to_string();
    let mut filters = [Vec::new(), Vec::new()];
    while let [letter, low, high, tail @ ..] = data {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (payload, tail) = tail.split_at(length);
        data = tail;
        match letter {
            b'd' => device = fuzzing::link(payload).map_or(device, |link| link.name),
            b'i' => observed.ifbs[0] = ifb(payload),
            b'e' => observed.ifbs[1] = ifb(payload),
            b'r' => observed.root = fuzzing::root(payload),
            b'R' => set_ifb_root(&mut observed.ifbs[0], fuzzing::root(payload)),
            b'h' => observed.hook = fuzzing::hook(payload),
            b'l' => {
                if let Root::Ours(state) = &mut observed.root {
                    state.leaf = fuzzing::leaf(payload);
                }
            }
            b'f' => filters[0].push(payload.to_vec()),
            b'g' => filters[1].push(payload.to_vec()),
            _ => {}
        }
    }
    for hook in Hook::ALL {
        match (hook, observed.hook) {
            (_, HookKind::None) | (Hook::Egress, HookKind::Ingress) => {}
            _ => observed.filters[hook as usize] = fuzzing::filters(&filters[hook as usize], hook),
        }
    }
    (observed, device)
}

fn ifb(payload: &[u8]) -> Ifb {
    match fuzzing::link(payload) {
        None => Ifb::Absent,
        Some(link) if link.kind.as_deref() == Some("ifb") => Ifb::Present(IfbState {
            index: link.index,
            up: link.up,
            mtu: link.mtu,
            alias: link.alias,
            root: Root::Default,
        }),
        Some(link) => Ifb::Taken(link.kind.unwrap_or_default()),
    }
}

fn set_ifb_root(ifb: &mut Ifb, root: Root) {
    if let Ifb::Present(state) = ifb {
        state.root = root;
    }
}

/// Limits that every plan is asked for.
static BUCKETS: LazyLock<Buckets> = LazyLock::new(|| {
    let config =
        json!({"ingressRate": 10_000_000, "egressRate": 2_000_000, "egressBurst": 400_000});
    let limits = Limits::read(config.as_object().expect("an object")).expect("good limits");
    let bucket = |limit: Option<_>| Some(Bucket::new(&limit?, 1_500, 25).expect("a good burst"));
    Buckets { ingress: bucket(limits.ingress), egress: bucket(limits.egress) }
});

/// Nothing stands in the way of removing what is ours, and only that goes.
fn check_removal(site: &Site, observed: &Observed) {
    let batches = plan(site, &Shape::default(), observed).expect("nothing never conflicts");
    check_steps(site, observed, &batches);
    assert!(has_ours(observed) || batches.is_empty(), "{batches:?}");
}

fn has_ours(observed: &Observed) -> bool {
    matches!(observed.root, Root::Ours(_))
        || Hook::ALL.iter().any(|hook| observed.ours(*hook).next().is_some())
        || observed.ifbs.iter().any(|ifb| matches!(ifb, Ifb::Present(_)))
}

fn check_way(site: &Site, way: Way, buckets: &Buckets, observed: &Observed) {
    match plan(site, &way.shape(buckets), observed) {
        Ok(batches) => check_steps(site, observed, &batches),
        Err(conflict) => assert!(!conflict.to_string().is_empty()),
    }
}

fn check_steps(site: &Site, observed: &Observed, batches: &[Batch]) {
    describe::findings(site, batches, [true; 2]);
    for step in batches.iter().flatten() {
        describe::doing(site, step);
        undo(step);
        match step {
            Step::DelFilter { hook, filter, .. } => {
                assert!(matches!(filter.owner, Owner::Ours { .. }), "{step:?}");
                assert!(observed.filters[*hook as usize].contains(filter), "{step:?}");
            }
            Step::DelHook => assert!(!observed.has_foreign_filters(), "{observed:?}"),
            Step::DelTbf { .. } => assert!(matches!(observed.root, Root::Ours(_)), "{step:?}"),
            Step::DelIfb { hook } => assert!(observed.ifb_index(*hook).is_some(), "{step:?}"),
            _ => {}
        }
    }
}
