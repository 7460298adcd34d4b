use proptest::prelude::*;

use super::super::mark::Mark;
use super::super::plan;
use super::super::site::{Hook, Observed, Root, Shape, Site};
use super::*;

fn fq_codel(megabits: u64) -> FqCodel {
    FqCodel::new(BytesPerSecond(megabits * 125_000), 5_000, 1500, 25)
}

fn bucket(megabits: u64, queue: Queue) -> Bucket {
    let rate = BytesPerSecond(megabits * 125_000);
    Bucket {
        rate,
        burst: (rate.0 / 250) as u32,
        limit: (rate.0 / 25) as u32,
        peak: None,
        queue,
        mark: Mark::Added,
    }
}

#[test]
fn the_target_is_5_ms_but_holds_a_frame_and_a_half_and_the_largest_packet() {
    // rate bit/s, largest packet, MTU → target us
    for (rate, largest, mtu, target) in [
        (10_000_000, 5_000, 1500, 5_000),
        (100_000_000, 50_000, 1500, 5_000),
        // 1.5 x 1518 bytes at 125,000 B/s, and two frames of a derived burst
        (1_000_000, 1_518, 1500, 18_216),
        (1_000_000, 3_036, 1500, 24_288),
        // a burst that was written: 64 KiB of it may be one packet
        (10_000_000, 1_000_000, 1500, 52_429),
        (10_000_000, 18_036, 9000, 14_429),
        (1_000, 1_518, 1500, 18_216_000),
    ] {
        let queue = FqCodel::new(BytesPerSecond(rate / 8), largest, mtu, 25);
        let case = format!("{rate} bit/s, {largest} bytes, MTU {mtu}");
        assert_eq!((queue.target_us, queue.interval_us), (target, target + 95_000), "{case}");
    }
}

#[test]
fn the_memory_is_a_pods_and_not_a_hosts() {
    // rate bit/s, latency ms → bytes: twice 100 ms or the latency at the rate, twice 32 frames
    for (rate, latency, memory) in [
        (10_000_000, 25, 250_000),
        (10_000_000, 1_000, 2_500_000),
        (1_000, 25, 97_152),
        (1_000_000_000, 25, 25_000_000),
        (1_000_000_000_000_000, 10_000, 32 << 20),
    ] {
        let queue = FqCodel::new(BytesPerSecond(rate / 8), 5_000, 1500, latency);
        assert_eq!(queue.memory, memory, "{rate} bit/s, {latency} ms");
    }
}

#[test]
fn the_quantum_is_one_full_frame_of_the_interface_that_is_shaped() {
    // MTU → bytes; the kernel keeps 256 to 1 MiB
    for (mtu, quantum) in [(1500, 1_514), (9000, 9_014), (1280, 1_294), (68, 256)] {
        let queue = FqCodel::new(BytesPerSecond(1_250_000), 5_000, mtu, 25);
        assert_eq!(queue.quantum, quantum, "MTU {mtu}");
    }
    assert_eq!(FqCodel::new(BytesPerSecond(1_250_000), 5_000, u32::MAX, 25).quantum, 1 << 20);
}

/// fq_codel of Linux shows 4.99 ms for 5 ms: 5000 us are 4882 units of 1024 ns.
#[test]
fn times_are_shown_in_the_kernels_units() {
    let shown = fq_codel(10).shown();
    assert_eq!((shown.target_us, shown.interval_us), (4_999, 99_999));
}

/// What follows the step that makes the root TBF of an interface.
fn below_a_new_root(queue: Queue, redirects: [Option<Bucket>; 2]) -> Batch {
    let wanted = Shape { root: Some(bucket(10, queue)), redirects, ..Shape::default() };
    let batches = plan(&Site::example(), &wanted, &Observed::default()).unwrap();
    let batch = batches.into_iter().next_back().unwrap();
    batch.into_iter().skip_while(|step| !matches!(step, Step::AddTbf { .. })).skip(1).collect()
}

fn put(leaf: NewLeaf, optional: bool) -> Step {
    Step::ReplaceLeaf { place: Place::Device, leaf, was: None, optional }
}

#[test]
fn a_new_tbf_gets_its_queue_in_the_same_send() {
    let leaf = NewLeaf::FqCodel(fq_codel(10));
    for (queue, expected) in [
        (Queue::Fifo, vec![]),
        (Queue::FqCodel(fq_codel(10)), vec![put(leaf, false)]),
        (Queue::Auto(fq_codel(10)), vec![put(leaf, true)]),
    ] {
        let redirect = Some(bucket(10, Queue::Fifo));
        assert_eq!(below_a_new_root(queue, [redirect, None]), expected, "{queue:?}");
    }
}

/// Without a filter beside it, only the handle of a queue can tell whose a root TBF is.
#[test]
fn a_root_tbf_that_stands_alone_always_gets_a_queue_with_a_handle() {
    let fifo = NewLeaf::Bfifo(bucket(10, Queue::Fifo).limit);
    let leaf = NewLeaf::FqCodel(fq_codel(10));
    for (queue, expected) in [
        (Queue::Fifo, vec![put(fifo, false)]),
        (Queue::FqCodel(fq_codel(10)), vec![put(leaf, false)]),
        (Queue::Auto(fq_codel(10)), vec![put(fifo, false), put(leaf, true)]),
    ] {
        assert_eq!(below_a_new_root(queue, [None, None]), expected, "{queue:?}");
    }
}

/// What the plan does about a leaf below a TBF that is right.
#[test]
fn each_leaf_is_right_or_replaced() {
    let wanted = fq_codel(10);
    let limit = bucket(10, Queue::Fifo).limit;
    let there = Leaf::FqCodel(wanted.shown());
    let slow = Leaf::FqCodel(fq_codel(1).shown());
    let many = Leaf::FqCodel(FqCodel { flows: 1024, ..wanted.shown() });
    let short = Leaf::FqCodel(FqCodel { quantum: 1293, ..wanted.shown() });
    let (fifo, auto, fq) = (Queue::Fifo, Queue::Auto(wanted), Queue::FqCodel(wanted));
    let other = || Leaf::Other("pfifo".into());
    for (queue, leaf, expected) in [
        (fifo, Leaf::Own, ""),
        (fifo, Leaf::Bfifo(limit), ""),
        (fifo, Leaf::Bfifo(9), "bfifo"),
        (fifo, there.clone(), "bfifo"),
        (fifo, other(), "bfifo"),
        (auto, Leaf::Own, ""),
        (auto, Leaf::Bfifo(limit), ""),
        (auto, Leaf::Bfifo(9), "bfifo"),
        (auto, there.clone(), ""),
        (auto, slow.clone(), "change"),
        (auto, short, "change"),
        (auto, many.clone(), "fq_codel"),
        (auto, other(), "bfifo, fq_codel if there"),
        (fq, Leaf::Own, "fq_codel"),
        (fq, Leaf::Bfifo(limit), "fq_codel"),
        (fq, there, ""),
        (fq, slow, "change"),
        (fq, many, "fq_codel"),
        (fq, other(), "fq_codel"),
    ] {
        let bucket = bucket(10, queue);
        let state = TbfState { leaf: leaf.clone(), ..bucket.to_state() };
        let steps = below_old(Place::Device, &bucket, &state, false);
        let words: Vec<&str> = steps
            .iter()
            .map(|step| match step {
                Step::ReplaceLeaf { leaf: NewLeaf::Bfifo(_), .. } => "bfifo",
                Step::ReplaceLeaf { optional: false, .. } => "fq_codel",
                Step::ReplaceLeaf { .. } => "fq_codel if there",
                Step::ChangeLeaf { .. } => "change",
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(words.join(", "), expected, "{queue:?} over {leaf:?}");
    }
}

#[test]
fn a_cut_empties_an_fq_codel_and_a_raise_does_not() {
    for (from, to, empties) in [(50, 5, true), (5, 50, false)] {
        let leaf = Leaf::FqCodel(fq_codel(from).shown());
        let root = Root::Ours(TbfState { leaf, ..bucket(from, Queue::Fifo).to_state() });
        let queue = Queue::Auto(fq_codel(to));
        let wanted =
            Shape { root: Some(bucket(to, queue)), redirects: [None, None], ..Shape::default() };
        let batches =
            plan(&Site::example(), &wanted, &Observed { root, ..Observed::default() }).unwrap();
        let [batch] = &batches[..] else { panic!("{batches:?}") };
        assert!(matches!(batch[0], Step::ChangeTbf { .. }), "{batch:?}");
        let leaf = NewLeaf::FqCodel(fq_codel(to));
        match &batch[1] {
            Step::ReplaceLeaf { leaf: new, optional: false, .. } => {
                assert!(empties && *new == leaf, "{batch:?}");
            }
            Step::ChangeLeaf { to: new, .. } => {
                assert!(!empties && NewLeaf::FqCodel(*new) == leaf, "{batch:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_ifb_has_its_queue_before_it_is_up() {
    let bucket = bucket(10, Queue::Auto(fq_codel(10)));
    let wanted = Shape { root: None, redirects: [Some(bucket), None], ..Shape::default() };
    let batches = plan(&Site::example(), &wanted, &Observed::default()).unwrap();
    let mut steps = batches.iter().flatten();
    let leaf =
        steps.clone().position(|step| matches!(step, Step::ReplaceLeaf { optional: true, .. }));
    let up = steps.position(|step| *step == Step::UpIfb(Hook::Ingress));
    assert!(leaf.unwrap() < up.unwrap(), "{batches:?}");
}

proptest! {
    #[test]
    fn what_is_shown_can_be_put_back(target_us: u32, interval_us: u32) {
        let shown = FqCodel { target_us, interval_us, ..fq_codel(1) }.shown();
        prop_assert_eq!(shown.to_wanted().shown(), shown);
    }

    #[test]
    fn the_target_always_lasts_a_frame_and_a_half(
        rate in 125u64..125_000_000_000_000, mtu in 68u32..=65_535, latency in 1u32..=10_000,
    ) {
        let queue = FqCodel::new(BytesPerSecond(rate), mtu, mtu, latency);
        let frame = u128::from(frame_bytes(mtu));
        prop_assert!(u128::from(queue.target_us) * u128::from(rate) * 2 >= frame / 2 * 6 * 500_000);
        prop_assert!(queue.interval_us > queue.target_us);
        prop_assert!(queue.memory >= frame_bytes(mtu) && queue.memory <= MEMORY_MAX as u32);
    }
}
