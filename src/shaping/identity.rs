//! What is ours: the names, handles and marks by which we know our own things again.
//!
//! The kernel is the only state, so a name must follow from what every call brings: network
//! name, container ID and interface name. Nothing here depends on a pod's text being harmless.

use sha2::{Digest, Sha256};

use crate::policy::{Direction, SourceKinds};

/// Handle (major number) of our root TBF qdiscs: "pb" in ASCII.
pub const TBF_HANDLE: u16 = 0x7062;

/// Majors of the handles of leaf queues below the TBFs of IFBs. Two, because a new queue must not have
/// the handle of the one that it replaces.
pub const LEAF_HANDLES: [u16; 2] = [0x7064, 0x7065];

/// The first of the majors that a leaf queue below the root TBF of a pod's own interface has: 0x2000 to
/// 0x5fff, see [`Tag::leaf_handles`]. The kernel hands out majors from 0x8000 on by itself
/// (qdisc_alloc_handle in net/sched/sch_api.c).
const STAMPED_LEAF: u16 = 0x2000;

/// Bits of the tag in such a handle.
const LEAF_TAG_BITS: u32 = 10;

/// Preference of our filters at the ingress and egress hook: the last ones, so that every foreign
/// filter is asked before ours. Two, because u32 keeps one set of tables for both sides of a
/// clsact qdisc, and a dump of one side shows those of the other with the same preference
/// (u32_walk in net/sched/cls_u32.c).
pub const FILTER_PREFS: [u16; 2] = [u16::MAX, u16::MAX - 1];

/// Preferences of our filters for IPv4 and IPv6 subnets at each hook: before the one for all packets,
/// because those that let packets pass come first. Each protocol has its own, as the kernel wants.
pub const SUBNET_PREFS: [[u16; 2]; 2] = [[65533, 65531], [65532, 65530]];

/// Preference of the traces of removed limits, at the ingress hook alone.
pub const TRACE_PREF: u16 = 65529;

/// The class of such a trace, major number above. Bit 0 is the direction; the rest is as in
/// [`PASS_CLASS`].
const TRACE_CLASS: u32 = 0x7063 << 16;

/// The class of our filters that let packets pass, major number above: they have no action that
/// could carry a cookie. `gact`, which could, is not on every kernel. The upper 14 bits of the minor
/// number are of the attachment's tag.
pub const PASS_CLASS: u32 = (TBF_HANDLE as u32) << 16 | 1;

/// Added to that class if pod-bandwidth created the hook.
pub const PASS_CLASS_MADE_HOOK: u32 = 2;

/// Bits of the tag in such a class, and where they begin.
const PASS_TAG_BITS: u32 = 14;
const PASS_TAG_SHIFT: u32 = 2;

/// Begin of our filters' action cookie: "podb".
pub const COOKIE_MAGIC: [u8; 4] = *b"podb";

/// First word of our IFBs' alias.
pub const ALIAS_MAGIC: &str = "pod-bandwidth";

/// Digits of 5 bits (RFC 4648, in lower case).
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Longest ifalias in bytes (IFALIASZ is 256 with its final zero).
const ALIAS_MAX: usize = 255;

/// Longest field of an alias that GC compares; a longer network name is cut and hashed.
const NETWORK_MAX: usize = 64;

/// Longest other field of an alias.
const FIELD_MAX: usize = 72;

/// One interface of one container on one network: what CNI calls an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// `namespace/name` of the pod, where the runtime said it.
    pub pod: Option<String>,
}

impl Attachment {
    /// Name of the IFB for one direction.
    pub fn ifb_name(&self, direction: Direction) -> String {
        self.tag().ifb_name(direction)
    }

    /// What everything that is created for this attachment carries.
    pub fn tag(&self) -> Tag {
        let attachment = [self.container_id.as_bytes(), self.ifname.as_bytes()];
        let container = hash(&attachment) >> (64 - CONTAINER_BITS);
        Tag(network_bits(&self.network) << CONTAINER_BITS | container)
    }

    /// The alias of our IFBs: whose it is, for people and for GC. `device` is the interface
    /// that redirects to it. Pod text is escaped and cut.
    pub fn alias(&self, device: &str) -> String {
        let mut alias = format!(
            "{ALIAS_MAGIC} net={} id={} if={} dev={}",
            network_field(&self.network),
            field(&self.container_id, FIELD_MAX),
            field(&self.ifname, 15),
            field(device, 15),
        );
        if let Some(pod) = &self.pod {
            let room = ALIAS_MAX.saturating_sub(alias.len() + " pod=".len());
            alias.push_str(" pod=");
            alias.push_str(&field(pod, room));
        }
        alias
    }
}

/// The tag of an attachment: 60 bits of hashes, 20 of the network's name and 40 of the container and its
/// interface name. It is a wire format: it must not change between versions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u64);

const NETWORK_BITS: u32 = 20;
const CONTAINER_BITS: u32 = 40;

impl Tag {
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

    fn is_of_network(self, network: &str) -> bool {
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

/// The link group (IFLA_GROUP) that the IFBs of an attachment are put into to be removed together,
/// from the name of one of them. Of 30 bits of a hash and above 2^30: people give small numbers.
pub fn ifb_group(name: &str) -> u32 {
    const FROM: u32 = 1 << 30;
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(name));
    FROM | (u32::from_be_bytes([a, b, c, d]) & (FROM - 1))
}

/// Whether an IFB of ours belongs to this network. The alias decides; one that was killed before
/// it had its alias is known by its name.
pub fn is_of_network(tag: Tag, alias: Option<&str>, network: &str) -> bool {
    alias
        .and_then(|alias| alias_is_of_network(alias, network))
        .unwrap_or_else(|| tag.is_of_network(network))
}

/// Whether an alias says that the IFB belongs to this network; `None` if it is not our alias.
fn alias_is_of_network(alias: &str, network: &str) -> Option<bool> {
    alias_field(alias, "net").map(|value| value == network_field(network))
}

/// A field of our alias.
pub fn alias_field<'a>(alias: &'a str, key: &str) -> Option<&'a str> {
    let fields = alias.strip_prefix(ALIAS_MAGIC)?.strip_prefix(' ')?;
    fields.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
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

fn network_field(network: &str) -> String {
    if network.len() <= NETWORK_MAX && field(network, NETWORK_MAX) == network {
        return network.to_string();
    }
    format!("{}~{}", field(network, NETWORK_MAX - 13), digits(hash(&[network.as_bytes()]), 12))
}

/// Text that cannot break the alias: printable ASCII without blanks, `?` for the rest, cut.
fn field(text: &str, max: usize) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).take(max).collect()
}

/// The first 64 bits of the SHA-256 over `parts`, each with its length.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    digest.iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte))
}

/// `len` (up to 12) digits of 5 bits each, from the highest bit on.
fn digits(bits: u64, len: usize) -> String {
    (0..len).map(|i| char::from(ALPHABET[(bits >> (59 - 5 * i) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_group_of_ours_is_none_that_a_person_would_choose_and_the_kernel_takes_it() {
        let names = ["pbiwmtbd5ev3vwd", "pbewmtbd5ev3vwd", "pbiaaaabbbbcccc"];
        let groups = names.map(ifb_group);
        for group in groups {
            // The kernel keeps a signed number, and refuses to remove group 0, where all links begin.
            assert!((1 << 30..1 << 31).contains(&group), "{group}");
        }
        assert!(groups[0] != groups[1] && groups[0] != groups[2], "{groups:?}");
    }

    fn attachment(network: &str, id: &str, ifname: &str) -> Attachment {
        Attachment {
            network: network.into(),
            container_id: id.into(),
            ifname: ifname.into(),
            pod: Some("default/bw1".into()),
        }
    }

    #[test]
    fn names_are_stable() {
        let one = attachment("testnet", "ddabf9a94bf250c0", "eth0");
        // A change of these two lines leaks the devices of a running node at an upgrade.
        assert_eq!(one.ifb_name(Direction::Ingress), "pbim63bwiprqhtv");
        assert_eq!(one.ifb_name(Direction::Egress), "pbem63bwiprqhtv");
    }

    #[test]
    fn names_differ_in_every_part() {
        let one = attachment("net", "c1", "eth0").ifb_name(Direction::Ingress);
        for other in [
            attachment("net2", "c1", "eth0").ifb_name(Direction::Ingress),
            attachment("net", "c2", "eth0").ifb_name(Direction::Ingress),
            attachment("net", "c1", "net1").ifb_name(Direction::Ingress),
            attachment("net", "c1e", "th0").ifb_name(Direction::Ingress),
            attachment("net", "c1", "eth0").ifb_name(Direction::Egress),
        ] {
            assert_eq!(other.len(), 15);
            assert_ne!(one, other);
        }
    }

    #[test]
    fn an_alias_says_whose_it_is_and_fits() {
        let alias = attachment("net", "c1", "eth0").alias("veth0");
        assert_eq!(alias, "pod-bandwidth net=net id=c1 if=eth0 dev=veth0 pod=default/bw1");
        assert_eq!(alias_field(&alias, "dev"), Some("veth0"));
        assert_eq!(alias_is_of_network(&alias, "net"), Some(true));
        assert_eq!(alias_is_of_network(&alias, "ne"), Some(false));
        assert_eq!(alias_is_of_network("somebody else's net=net", "net"), None);

        let mut long = attachment(&"n".repeat(300), &"c".repeat(300), &"e".repeat(300));
        long.pod = Some("p".repeat(300));
        let alias = long.alias(&"d".repeat(300));
        assert_eq!(alias.len(), 255);
        assert_eq!(alias_is_of_network(&alias, &"n".repeat(300)), Some(true));
        assert_eq!(alias_is_of_network(&alias, &"n".repeat(301)), Some(false));
    }

    #[test]
    fn hostile_text_does_not_get_into_an_alias() {
        let mut one = attachment("a b=c", "c1", "eth0");
        one.pod = Some("x\ny dev=lo\u{7f}\u{202e}".into());
        let alias = one.alias("veth0");
        assert_eq!(alias_field(&alias, "dev"), Some("veth0"));
        assert!(alias.ends_with("pod=x?y?dev=lo??"), "{alias}");
        assert_eq!(alias_is_of_network(&alias, "a b=c"), Some(true));
        assert_eq!(alias_is_of_network(&alias, "a?b=c"), Some(false));
    }

    #[test]
    fn a_device_of_a_network_is_known_by_its_alias_else_by_its_name() {
        let one = attachment("net", "c1", "eth0");
        let name = one.ifb_name(Direction::Egress);
        let tag = Tag::of_ifb_name(&name).unwrap();
        assert_eq!(tag, one.tag());
        let alias = attachment("other", "c1", "eth0").alias("veth0");
        for (alias, network, expected) in [
            (None, "net", true),
            (None, "other", false),
            (Some("somebody's text"), "net", true),
            (Some(alias.as_str()), "net", false),
            (Some(alias.as_str()), "other", true),
        ] {
            assert_eq!(is_of_network(tag, alias, network), expected, "{alias:?} {network}");
        }
        for foreign in [
            "bwp0123456789ab",
            "ifb0",
            "pbe",
            "pbeaaaaaaaaaaa1",
            "pbxaaaaaaaaaaaa",
            "pbéaaaaaaaaaa",
        ] {
            assert_eq!(Tag::of_ifb_name(foreign), None, "{foreign}");
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
