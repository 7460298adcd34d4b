//! Doors for the fuzz targets in fuzz/: what a kernel might answer goes in as bytes.
//!
//! Built with `--cfg fuzzing` only, which cargo-fuzz sets, so nothing of it is in the product. It
//! adds no behaviour: each door leads to the function that the plugin calls.

use super::collect::Collection;
use super::error::KernelError;
use super::link::Link;
use super::{filter, qdisc, testing};
use crate::shaping::site::{Filter, Hook, HookKind, Root};
use crate::shaping::{Bucket, Leaf};

/// The answers to so many requests in these datagrams, and whether they are complete.
pub fn collect(
    first: u32,
    requests: usize,
    datagrams: &[&[u8]],
) -> (Vec<Result<Vec<Vec<u8>>, KernelError>>, bool) {
    let doing: Vec<String> = (0..requests).map(|n| format!("do {n}")).collect();
    let mut collection = Collection::new(first, &doing);
    for datagram in datagrams {
        if collection.is_complete() {
            break;
        }
        collection.add(datagram);
    }
    let complete = collection.is_complete();
    (collection.into_answers(), complete)
}

/// The link in an RTM_NEWLINK payload.
pub fn link(payload: &[u8]) -> Option<Link> {
    Link::parse(payload)
}

/// The root qdisc in an RTM_NEWQDISC payload.
pub fn root(payload: &[u8]) -> Root {
    qdisc::root_of(Ok(vec![payload.to_vec()])).unwrap_or_default()
}

/// What hangs at the hooks, in an RTM_NEWQDISC payload.
pub fn hook(payload: &[u8]) -> HookKind {
    qdisc::hook_of(Ok(vec![payload.to_vec()])).unwrap_or_default()
}

/// The leaf queue in an RTM_NEWQDISC payload.
pub fn leaf(payload: &[u8]) -> Leaf {
    qdisc::leaf_of(Ok(vec![payload.to_vec()])).map_or(Leaf::Own, |(leaf, _)| leaf)
}

/// The filters of a hook in RTM_NEWTFILTER payloads.
pub fn filters(payloads: &[Vec<u8>], hook: Hook) -> Vec<Filter> {
    filter::parse_all(payloads, hook)
}

/// The payload with which we ask for a TBF; the kernel shows one in the same layout.
pub fn tbf(bucket: &Bucket) -> Vec<u8> {
    testing::wire(qdisc::add_tbf(1, bucket, false, String::new())).2
}
