//! Tags: how what is created records which attachment it is for.
//!
//! An IFB has the tag in its name and a filter in its action's cookie. Where there is less room, as many
//! bits of it are kept as fit.

use sha2::{Digest, Sha256};

use super::identity::TBF_HANDLE;
use crate::policy::{Direction, SourceKinds};

/// The first of the majors that a leaf queue below the root TBF of a pod's own interface has: 0x2000 to
/// 0x5fff, see [`Tag::leaf_handles`]. The kernel hands out majors from 0x8000 on by itself
/// (qdisc_alloc_handle in net/sched/sch_api.c).
const STAMPED_LEAF: u16 = 0x2000;

/// Bits of the tag in such a handle.
const LEAF_TAG_BITS: u32 = 10;

/// The class of such a trace, major number above. Bit 0 is the direction; the rest is as in
/// [`PASS_CLASS`].
const TRACE_CLASS: u32 = 0x7063 << 16;

/// The class of our filters that let packets pass, major number above: they have no action that
/// could carry a cookie. `gact`, which could, is not on every kernel. The upper 14 bits of the minor
/// number are of the attachment's tag.
const PASS_CLASS: u32 = (TBF_HANDLE as u32) << 16 | 1;

/// Added to that class if pod-bandwidth created the hook.
const PASS_CLASS_MADE_HOOK: u32 = 2;

/// Bits of the tag in such a class, and where they begin.
const PASS_TAG_BITS: u32 = 14;
const PASS_TAG_SHIFT: u32 = 2;

/// Digits of 5 bits (RFC 4648, in lower case).
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The tag of an attachment: 60 bits of hashes, 20 of the network's name and 40 of the container and its
/// interface name. It is a wire format: it must not change between versions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u64);

const NETWORK_BITS: u32 = 20;
const CONTAINER_BITS: u32 = 40;

impl Tag {
    /// The tag of an interface of a container on a network.
    pub(super) fn new(network: &str, container_id: &str, ifname: &str) -> Self {
        let container = hash(&[container_id.as_bytes(), ifname.as_bytes()]);
        Self(network_bits(network) << CONTAINER_BITS | container >> (64 - CONTAINER_BITS))
    }

    /// Name of the IFB for one direction: `pbi` or `pbe` and the tag's 12 digits. 15 characters, the most
    /// that an interface name holds.
    pub fn ifb_name(self, direction: Direction) -> String {
        format!("{}{self}", prefix(direction))
    }

    /// The tag in the name of an IFB of pod-bandwidth; `None` for any other name.
    pub fn of_ifb_name(name: &str) -> Option<Self> {
        let digits = [Direction::Ingress, Direction::Egress]
            .iter()
            .find_map(|direction| name.strip_prefix(prefix(*direction)))?;
        let number = |tag, byte| {
            let digit = ALPHABET.iter().position(|known| *known == byte)?;
            Some(tag << 5 | digit as u64)
        };
        (digits.len() == 12).then(|| digits.bytes().try_fold(0, number)).flatten().map(Self)
    }

    /// The eight bytes that an action's cookie has.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The tag in a cookie.
    pub fn of_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// The class of a filter that lets packets pass.
    pub fn pass_class(self, made_hook: bool) -> u32 {
        let made_hook = if made_hook { PASS_CLASS_MADE_HOOK } else { 0 };
        PASS_CLASS | made_hook | u32::from(self.short(PASS_TAG_BITS)) << PASS_TAG_SHIFT
    }

    /// The class of the trace of a removed limit.
    pub fn trace_class(self, direction: Direction, made_hook: bool) -> u32 {
        let minor = self.pass_class(made_hook) & 0xfffe;
        TRACE_CLASS | minor | direction as u32
    }

    /// The two majors that a leaf queue below the root TBF of a pod's own interface may have: bits of the
    /// tag, the kinds of sources, and one bit to tell a new queue from the one before. Nothing else of a
    /// root TBF can carry a tag: the kernel keeps its handle, its numbers and 14 bytes of `mpu` (tbf_dump
    /// in net/sched/sch_tbf.c).
    pub fn leaf_handles(self, sources: SourceKinds) -> [u16; 2] {
        let stamp = self.short(LEAF_TAG_BITS) << SourceKinds::BITS | u16::from(sources.bits());
        [0, 1].map(|turn| STAMPED_LEAF + (stamp << 1) + turn)
    }

    /// So many bits of the tag, at most 16.
    fn short(self, bits: u32) -> u16 {
        let folded = self.0 ^ self.0 >> NETWORK_BITS ^ self.0 >> CONTAINER_BITS;
        (folded & ((1 << bits) - 1)) as u16
    }

    pub(super) fn is_of_network(self, network: &str) -> bool {
        self.0 >> CONTAINER_BITS == network_bits(network)
    }
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&digits(self.0 << 4, 12))
    }
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tag({self})")
    }
}

/// What a filter or a TBF in the kernel says about the ADD that created it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    /// For which attachment.
    pub tag: SeenTag,
    /// By which entry of the list.
    pub sources: SourceKinds,
}

/// As much of a tag as there was room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SeenTag {
    /// Nothing: earlier builds left no tag.
    #[default]
    None,
    /// All of it.
    Whole(Tag),
    /// So many of its bits.
    Part(u16, u32),
}

impl SeenTag {
    /// Whether it is of this attachment; `None` if nothing says so.
    pub fn is_of(self, tag: Tag) -> Option<bool> {
        match self {
            Self::None => None,
            Self::Whole(seen) => Some(seen == tag),
            Self::Part(seen, bits) => Some(seen == tag.short(bits)),
        }
    }
}

impl Stamp {
    /// What is in the handle of a leaf queue.
    pub fn of_leaf(major: u16) -> Self {
        let Some(stamp) = major.checked_sub(STAMPED_LEAF).map(|handle| handle >> 1) else {
            return Self::default();
        };
        let (tag, sources) = (stamp >> SourceKinds::BITS, SourceKinds::of_bits(stamp as u8));
        match tag >> LEAF_TAG_BITS {
            0 => Self { tag: SeenTag::Part(tag, LEAF_TAG_BITS), sources },
            _ => Self::default(),
        }
    }

    /// What is in the class of the trace of a removed limit, the limit's direction, and whether it says that
    /// pod-bandwidth created the hook; `None` for any other class.
    pub fn of_trace_class(class: u32) -> Option<(Self, Direction, bool)> {
        let minor = class & u32::from(u16::MAX);
        if class - minor != TRACE_CLASS {
            return None;
        }
        let (stamp, made_hook) = Self::of_pass_class(PASS_CLASS | minor)?;
        Some((stamp, Direction::ALL[(minor & 1) as usize], made_hook))
    }

    /// What is in the class of a filter that lets packets pass, and whether it says that pod-bandwidth
    /// created the hook; `None` for any other class.
    pub fn of_pass_class(class: u32) -> Option<(Self, bool)> {
        let part = (class & u32::from(u16::MAX)) >> PASS_TAG_SHIFT;
        let made_hook = class & PASS_CLASS_MADE_HOOK != 0;
        if class & !(PASS_CLASS_MADE_HOOK | part << PASS_TAG_SHIFT) != PASS_CLASS {
            return None;
        }
        let tag = match part as u16 {
            0 => SeenTag::None,
            part => SeenTag::Part(part, PASS_TAG_BITS),
        };
        Some((Self { tag, sources: SourceKinds::default() }, made_hook))
    }
}

fn prefix(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "pbi",
        Direction::Egress => "pbe",
    }
}

fn network_bits(network: &str) -> u64 {
    hash(&[network.as_bytes()]) >> (64 - NETWORK_BITS)
}

/// The first 64 bits of the SHA-256 over `parts`, each with its length.
pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    digest.iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte))
}

/// `len` (up to 12) digits of 5 bits each, from the highest bit on.
pub(super) fn digits(bits: u64, len: usize) -> String {
    (0..len).map(|i| char::from(ALPHABET[(bits >> (59 - 5 * i) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::super::identity::{Attachment, LEAF_HANDLES};
    use super::*;

    fn attachment(network: &str, id: &str, ifname: &str) -> Attachment {
        Attachment {
            network: network.into(),
            container_id: id.into(),
            ifname: ifname.into(),
            pod: None,
        }
    }

    #[test]
    fn a_stamp_is_read_back_and_is_of_its_attachment_alone() {
        let (one, other) =
            (attachment("net", "c1", "eth0").tag(), attachment("net", "c2", "eth0").tag());
        let sources = SourceKinds::of_bits(5);
        assert_eq!(Tag::of_bytes(one.to_bytes()), one);
        let leaves = one.leaf_handles(sources);
        assert_ne!(leaves[0], leaves[1]);
        for leaf in leaves {
            let stamp = Stamp::of_leaf(leaf);
            assert_eq!(stamp.sources, sources);
            assert_eq!((stamp.tag.is_of(one), stamp.tag.is_of(other)), (Some(true), Some(false)));
        }
        for made in [false, true] {
            let (stamp, made_hook) = Stamp::of_pass_class(one.pass_class(made)).unwrap();
            assert_eq!(made_hook, made);
            assert_eq!((stamp.tag.is_of(one), stamp.tag.is_of(other)), (Some(true), Some(false)));
        }
    }

    /// What builds up to a199f94 made, and handles that the kernel chose.
    #[test]
    fn what_carries_no_tag_says_nothing() {
        for leaf in
            [0, 1, 0x1fff, 0x6000, TBF_HANDLE, LEAF_HANDLES[0], LEAF_HANDLES[1], 0x8001, 0xffff]
        {
            assert_eq!(Stamp::of_leaf(leaf), Stamp::default(), "{leaf:x}");
        }
        for (class, made) in [(0x7062_0001, false), (0x7062_0003, true)] {
            assert_eq!(Stamp::of_pass_class(class), Some((Stamp::default(), made)));
        }
        let one = attachment("net", "c1", "eth0").tag();
        for direction in Direction::ALL {
            for made in [false, true] {
                let class = one.trace_class(direction, made);
                let (stamp, of, made_hook) = Stamp::of_trace_class(class).unwrap();
                assert_eq!((of, made_hook, stamp.tag.is_of(one)), (direction, made, Some(true)));
                assert_eq!(Stamp::of_pass_class(class), None);
            }
        }
        assert_eq!(Stamp::of_trace_class(one.pass_class(false)), None);
        for class in [0, 1, 0x7062_0000, 0x7062_0002, 0x7063_0001, 0x1_0001] {
            assert_eq!(Stamp::of_pass_class(class), None, "{class:x}");
        }
    }

    proptest::proptest! {
        #[test]
        fn tags_are_names_and_bytes(id in "[a-z0-9]{1,20}", bits in 0u8..8) {
            let tag = attachment("net", &id, "eth0").tag();
            for direction in [Direction::Ingress, Direction::Egress] {
                proptest::prop_assert_eq!(Tag::of_ifb_name(&tag.ifb_name(direction)), Some(tag));
            }
            for leaf in tag.leaf_handles(SourceKinds::of_bits(bits)) {
                proptest::prop_assert!((0x2000..0x6000).contains(&leaf));
            }
        }
    }
}
