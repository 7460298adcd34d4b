//! What is ours: the names, handles and marks by which we know our own things again.
//!
//! The kernel is the only state, so a name must follow from what every call brings: network
//! name, container ID and interface name. Nothing here depends on a pod's text being harmless.

use sha2::{Digest, Sha256};

use super::tag::{Tag, digits, hash};
use crate::policy::Direction;

/// Handle (major number) of our root TBF qdiscs: "pb" in ASCII.
pub const TBF_HANDLE: u16 = 0x7062;

/// Majors of the handles of leaf queues below the TBFs of IFBs. Two, because a new queue must not have
/// the handle of the one that it replaces.
pub const LEAF_HANDLES: [u16; 2] = [0x7064, 0x7065];

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

/// Begin of our filters' action cookie: "podb".
pub const COOKIE_MAGIC: [u8; 4] = *b"podb";

/// First word of our IFBs' alias.
pub const ALIAS_MAGIC: &str = "pod-bandwidth";

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
        Tag::new(&self.network, &self.container_id, &self.ifname)
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
}
