//! What the kernel has on both sides, compared: what ADD made, where it shapes,
//! and whether DEL took all of it away. Pure: it is given what was read.
//!
//! It looks at the devices only, not at what the plugin says of itself.

use std::collections::BTreeSet;

use super::network::{HOST, POD};
use crate::kernel::sandbox::{Inventory, QdiscItem};
use crate::shaping::identity::TBF_HANDLE;

/// Both sides at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Sides {
    /// The host's namespace.
    pub(super) host: Inventory,
    /// The pod's namespace.
    pub(super) pod: Inventory,
}

impl Sides {
    /// The placement that is in the kernel.
    pub(super) fn placement(&self) -> &'static str {
        let ours = |side: &Inventory, device| {
            side.qdiscs
                .iter()
                .any(|q| q.device == device && q.handle == u32::from(TBF_HANDLE) << 16)
        };
        let hooks = |q: &QdiscItem| q.device == HOST.name && q.kind == "clsact";
        if ours(&self.pod, POD.name) {
            "pod"
        } else if ours(&self.host, HOST.name) {
            "host, root"
        } else if self.host.qdiscs.iter().any(hooks) {
            "host, hooks"
        } else {
            "none"
        }
    }

    /// What is here and was not there `before`: one text each.
    pub(super) fn beyond(&self, before: &Self) -> Vec<String> {
        self.items().difference(&before.items()).cloned().collect()
    }

    /// What is here and was not there `before`, and the reverse: one text each.
    pub(super) fn differences(&self, before: &Self) -> Vec<String> {
        let new = self.beyond(before).into_iter().map(|item| format!("left: {item}"));
        let gone = before.beyond(self).into_iter().map(|item| format!("gone: {item}"));
        new.chain(gone).collect()
    }

    fn items(&self) -> BTreeSet<String> {
        let mut items = BTreeSet::new();
        for (side, name) in [(&self.host, "host"), (&self.pod, "pod")] {
            items.extend(
                side.links.iter().map(|link| format!("{name}: {} device {}", link.kind, link.name)),
            );
            items.extend(side.qdiscs.iter().map(|q| {
                format!("{name}: qdisc {} {:x}: on {}", q.kind, q.handle >> 16, q.device)
            }));
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sandbox::LinkItem;

    fn side(links: &[(&str, &str)], qdiscs: &[(&str, &str, u32)]) -> Inventory {
        Inventory {
            links: links
                .iter()
                .map(|(name, kind)| LinkItem { name: (*name).into(), kind: (*kind).into() })
                .collect(),
            qdiscs: qdiscs
                .iter()
                .map(|(device, kind, major)| QdiscItem {
                    device: (*device).into(),
                    kind: (*kind).into(),
                    handle: major << 16,
                })
                .collect(),
        }
    }

    fn bare() -> Sides {
        Sides {
            host: side(&[("veth-demo", "veth")], &[("veth-demo", "noqueue", 0)]),
            pod: side(&[("eth0", "veth")], &[("eth0", "noqueue", 0)]),
        }
    }

    #[test]
    fn the_placement_is_where_our_qdiscs_are() {
        let tbf = |device| (device, "tbf", 0x7062);
        let cases = [
            (side(&[], &[]), side(&[], &[tbf("eth0"), ("eth0", "clsact", 0xffff)]), "pod"),
            (side(&[], &[tbf("veth-demo"), tbf("pbe1")]), side(&[], &[]), "host, root"),
            (
                side(&[], &[("veth-demo", "clsact", 0xffff), tbf("pbi1"), tbf("pbe1")]),
                side(&[], &[]),
                "host, hooks",
            ),
            // A foreign TBF is none of ours.
            (side(&[], &[("veth-demo", "tbf", 1)]), side(&[], &[]), "none"),
            (side(&[], &[]), side(&[], &[]), "none"),
        ];
        for (host, pod, want) in cases {
            assert_eq!(Sides { host, pod }.placement(), want);
        }
    }

    #[test]
    fn what_is_new_is_named_with_its_side() {
        let mut shaped = bare();
        shaped.host = side(
            &[("veth-demo", "veth"), ("pbe1", "ifb")],
            &[("veth-demo", "tbf", 0x7062), ("pbe1", "tbf", 0x7062)],
        );
        assert_eq!(
            shaped.beyond(&bare()),
            [
                "host: ifb device pbe1",
                "host: qdisc tbf 7062: on pbe1",
                "host: qdisc tbf 7062: on veth-demo"
            ]
        );
    }

    #[test]
    fn equal_states_have_no_difference() {
        assert_eq!(bare().differences(&bare()), [""; 0]);
    }

    #[test]
    fn what_is_left_and_what_is_missing_are_both_differences() {
        let mut after = bare();
        after.pod = side(&[("eth0", "veth"), ("pbi1", "ifb")], &[]);
        assert_eq!(
            after.differences(&bare()),
            ["left: pod: ifb device pbi1", "gone: pod: qdisc noqueue 0: on eth0"]
        );
    }
}
