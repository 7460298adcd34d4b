//! What of a state CHECK fails for, and what it only logs.

use super::super::bucket::BytesPerSecond;
use super::super::placement::{Buckets, Way};
use super::super::plan::plan;
use super::super::site::IFB_MTU;
use super::super::site::{Filter, HookKind, Ifb, IfbState, Observed, Root};
use super::super::{Peak, Shape};
use super::*;

fn bucket(megabits: u64) -> Bucket {
    let rate = BytesPerSecond(megabits * 125_000);
    let (burst, limit) = ((rate.0 / 250) as u32, (rate.0 / 25) as u32);
    Bucket { rate, burst, limit, peak: None, queue: Queue::Fifo, mark: Mark::Added }
}

/// A pod that is limited by both ways of the host: what ADD leaves.
fn whole() -> Observed {
    let ifb = Ifb::Present(IfbState {
        index: 21,
        up: true,
        mtu: IFB_MTU,
        alias: Some(Site::example().alias),
        root: Root::Ours(bucket(20).to_state()),
    });
    let owner = Owner::Ours {
        matches: Match::All,
        target: Some(21),
        made_hook: true,
        stamp: Default::default(),
    };
    Observed {
        root: Root::Ours(bucket(10).to_state()),
        hook: HookKind::Clsact,
        filters: [vec![Filter { pref: u16::MAX, handle: 0x8000_0800, owner }], Vec::new()],
        ifbs: [ifb, Ifb::Absent],
        ..Observed::default()
    }
}

fn ifb(observed: &mut Observed) -> &mut IfbState {
    match &mut observed.ifbs[0] {
        Ifb::Present(state) => state,
        _ => panic!("no IFB"),
    }
}

fn tbf(root: &mut Root) -> &mut TbfState {
    match root {
        Root::Ours(state) => state,
        _ => panic!("no TBF"),
    }
}

fn found(observed: &Observed, is_written: bool) -> Findings {
    let buckets = Buckets { ingress: Some(bucket(10)), egress: Some(bucket(20)) };
    let shape: Shape = Way::HostRoot.shape(&buckets);
    let site = Site::example();
    let batches = plan(&site, &shape, observed).unwrap();
    findings(&site, &batches, [is_written; 2])
}

#[test]
fn what_add_leaves_has_no_finding() {
    assert_eq!(found(&whole(), true), Findings::default());
}

#[test]
fn a_limit_that_does_not_hold_is_broken() {
    type Change = fn(&mut Observed);
    let changes: [(&str, Change); 11] = [
        ("the IFB pbe", |o| o.ifbs[0] = Ifb::Absent),
        ("is down", |o| ifb(o).up = false),
        ("the TBF for egress", |o| ifb(o).root = Root::Default),
        ("(pfifo 1: is there)", |o| ifb(o).root = Root::Foreign("pfifo 1:".into())),
        ("rate 8 Mbit/s instead of", |o| tbf(&mut ifb(o).root).rate = BytesPerSecond(1_000_000)),
        ("the TBF for ingress", |o| o.root = Root::Default),
        ("rate 80 Mbit/s instead of", |o| tbf(&mut o.root).rate = BytesPerSecond(10_000_000)),
        ("peak rate 80 Mbit/s instead", |o| {
            let peak = Some(Peak { rate: BytesPerSecond(10_000_000), burst: 2_000 });
            let state = Bucket { peak, ..bucket(10) }.to_state();
            o.root = Root::Ours(state);
        }),
        ("mpu 64", |o| tbf(&mut o.root).mark = Mark::Other(64)),
        ("the filter that redirects", |o| o.filters[0].clear()),
        ("redirects to interface 99", |o| {
            if let Owner::Ours { target, .. } = &mut o.filters[0][0].owner {
                *target = Some(99);
            }
        }),
    ];
    for (words, change) in changes {
        let mut observed = whole();
        change(&mut observed);
        let broken = found(&observed, false).broken;
        assert!(broken.iter().any(|text| text.contains(words)), "{words}: {broken:?}");
    }
}

#[test]
fn what_no_limit_depends_on_is_untidy() {
    type Change = fn(&mut Observed);
    let changes: [(&str, Change); 6] = [
        ("alias or MTU", |o| ifb(o).alias = None),
        ("alias or MTU", |o| ifb(o).mtu = 1280),
        ("burst", |o| {
            tbf(&mut o.root).burst_ticks =
                Bucket { burst: 9_000, ..bucket(10) }.to_state().burst_ticks;
        }),
        ("limit", |o| tbf(&mut ifb(o).root).limit = 99_000),
        ("the queue below", |o| tbf(&mut o.root).leaf = Leaf::Other("pfifo".into())),
        ("mark", |o| tbf(&mut o.root).mark = Mark::Hand),
    ];
    for (words, change) in changes {
        let mut observed = whole();
        change(&mut observed);
        let Findings { broken, untidy } = found(&observed, false);
        assert_eq!(broken, [""; 0], "{words}");
        assert!(untidy.iter().any(|text| text.contains(words)), "{words}: {untidy:?}");
    }
}

/// A burst that was written is part of the limit.
#[test]
fn another_burst_is_broken_only_if_it_was_written() {
    let mut observed = whole();
    tbf(&mut observed.root).burst_ticks =
        Bucket { burst: 9_000, ..bucket(10) }.to_state().burst_ticks;
    assert_eq!(found(&observed, false).broken.len(), 0);
    assert_eq!(found(&observed, true).broken.len(), 1);
}
