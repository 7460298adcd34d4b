//! Subnets: which of a pod's traffic a limit is for (`unshapedSubnets`, `shapedSubnets`).
//!
//! Knows both keys, CIDR texts and their bounds. The names and their meaning are those of the
//! reference plugin's pull request #921, which #1105 took out again before it was released.

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::error::PolicyError;
use super::json::{Entry, Object};

/// Which of a pod's traffic its limits are for. A subnet is one that the pod talks with: the
/// source of what comes to the pod, the destination of what comes from it.
///
/// Lists are sorted, without host bits and without doubles. They are never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    #[default]
    All,
    /// All but the traffic with these subnets.
    Except(Vec<IpNetwork>),
    /// The traffic with these subnets alone.
    Only(Vec<IpNetwork>),
}

/// The most subnets in a list. The kernel compares a packet with one after the other.
const SUBNETS_MAX: usize = 64;

const UNSHAPED: &str = "unshapedSubnets";
const SHAPED: &str = "shapedSubnets";

impl Scope {
    /// Reads both keys; an empty list is none.
    pub(super) fn read(config: &Object<'_>) -> Result<Scope, PolicyError> {
        let unshaped = list(config, UNSHAPED)?;
        let shaped = list(config, SHAPED)?;
        match (unshaped.is_empty(), shaped.is_empty()) {
            (true, true) => Ok(Scope::All),
            (false, true) => Ok(Scope::Except(unshaped)),
            (true, false) => Ok(Scope::Only(shaped)),
            (false, false) => Err(PolicyError::WrongValue {
                key: SHAPED.to_owned(),
                got: format!("subnets beside those of {UNSHAPED}"),
                takes: format!("subnets where {UNSHAPED} is empty or absent: one of both lists"),
            }),
        }
    }

    /// Whether the limits are for all traffic.
    pub fn is_all(&self) -> bool {
        *self == Scope::All
    }
}

fn list(config: &Object<'_>, key: &str) -> Result<Vec<IpNetwork>, PolicyError> {
    let Some(entry) = config.entry(key) else { return Ok(Vec::new()) };
    let Value::Array(items) = entry.value else {
        return Err(entry.wrong(format!("an array of at most {SUBNETS_MAX} subnets")));
    };
    if items.len() > SUBNETS_MAX {
        return Err(PolicyError::WrongValue {
            key: entry.key,
            got: format!("{} subnets", items.len()),
            takes: format!("at most {SUBNETS_MAX}"),
        });
    }
    let named = |(n, value)| Entry { key: format!("{}[{n}]", entry.key), value };
    let mut subnets =
        items.iter().enumerate().map(|item| subnet(&named(item))).collect::<Result<Vec<_>, _>>()?;
    subnets.sort();
    subnets.dedup();
    Ok(subnets)
}

/// As Go's net.ParseCIDR, which the reference used: an address, `/` and a number of bits; bits
/// behind the prefix are cut. An IPv6 address that stands for an IPv4 one is refused, because no
/// packet carries it.
fn subnet(entry: &Entry<'_>) -> Result<IpNetwork, PolicyError> {
    const TAKES: &str = "a subnet with the length of its prefix, such as \"10.0.0.0/8\", \
                         \"192.0.2.7/32\" or \"fd00::/8\"";
    let wrong = || entry.wrong(TAKES);
    let text = entry.text(TAKES)?;
    // ipnetwork takes an address alone and a netmask, too.
    let (_, bits) = text.split_once('/').ok_or_else(wrong)?;
    if bits.is_empty() || !bits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let written: IpNetwork = text.parse().map_err(|_| wrong())?;
    if matches!(written, IpNetwork::V6(net) if net.ip().to_ipv4_mapped().is_some()) {
        return Err(wrong());
    }
    IpNetwork::new(written.network(), written.prefix()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(config: &Value) -> Result<Scope, String> {
        let Value::Object(map) = config else { panic!("not an object: {config}") };
        Scope::read(&Object::root(map)).map_err(|error| error.to_string())
    }

    fn nets(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn lists_are_read_sorted_and_without_host_bits() {
        for (config, scope) in [
            (json!({}), Scope::All),
            (json!({"unshapedSubnets": null, "shapedSubnets": []}), Scope::All),
            (json!({"unshapedSubnets": ["10.0.0.0/8"]}), Scope::Except(nets(&["10.0.0.0/8"]))),
            (json!({"ShapedSubnets": ["fd00::/8"]}), Scope::Only(nets(&["fd00::/8"]))),
            (
                json!({"unshapedSubnets": ["fd00::7/8", "10.1.2.3/8", "0.0.0.0/0", "10.0.0.0/8"],
                       "shapedSubnets": []}),
                Scope::Except(nets(&["0.0.0.0/0", "10.0.0.0/8", "fd00::/8"])),
            ),
            (
                json!({"shapedSubnets": ["192.0.2.7/32", "2001:db8::7/128", "::/0"]}),
                Scope::Only(nets(&["192.0.2.7/32", "::/0", "2001:db8::7/128"])),
            ),
        ] {
            assert_eq!(read(&config), Ok(scope), "{config}");
        }
        let most: Vec<String> = (0..64).map(|n| format!("10.{n}.0.0/16")).collect();
        assert_eq!(
            read(&json!({"shapedSubnets": most})),
            Ok(Scope::Only(nets(&most.iter().map(String::as_str).collect::<Vec<_>>())))
        );
    }

    #[test]
    fn a_wrong_entry_is_told_with_its_place() {
        const SUBNET: &str = "it takes a subnet with the length of its prefix, such as \
                              \"10.0.0.0/8\", \"192.0.2.7/32\" or \"fd00::/8\"";
        for (entry, got) in [
            (json!("10.0.0.1"), r#"the string "10.0.0.1""#),
            (json!("10.0.0.0/255.0.0.0"), r#"the string "10.0.0.0/255.0.0.0""#),
            (json!("10.0.0.0/33"), r#"the string "10.0.0.0/33""#),
            (json!("10.0.0/8"), r#"the string "10.0.0/8""#),
            (json!("10.0.0.0/+8"), r#"the string "10.0.0.0/+8""#),
            (json!("10.0.0.0/"), r#"the string "10.0.0.0/""#),
            (json!("10.0.0.0/8 "), r#"the string "10.0.0.0/8 ""#),
            (json!("fd00::/129"), r#"the string "fd00::/129""#),
            (json!("fe80::1%eth0/64"), r#"the string "fe80::1%eth0/64""#),
            (json!("::ffff:10.0.0.0/104"), r#"the string "::ffff:10.0.0.0/104""#),
            (json!("example.org/8"), r#"the string "example.org/8""#),
            (json!("a\n/8"), r#"the string "a\n/8""#),
            (json!(""), r#"the string """#),
            (json!(8), "the number 8"),
            (json!(null), "null"),
            (json!(["10.0.0.0/8"]), "an array"),
        ] {
            let message = format!("unshapedSubnets[1]: got {got}; {SUBNET}");
            let config = json!({"unshapedSubnets": ["10.0.0.0/8", entry]});
            assert_eq!(read(&config), Err(message), "{config}");
        }
        let too_many = vec!["10.0.0.0/8"; 65];
        for (config, message) in [
            (
                json!({"shapedSubnets": "10.0.0.0/8"}),
                r#"shapedSubnets: got the string "10.0.0.0/8"; it takes an array of at most 64 subnets"#,
            ),
            (
                json!({"ShapedSubnets": too_many}),
                "ShapedSubnets: got 65 subnets; it takes at most 64",
            ),
            (
                json!({"unshapedSubnets": ["10.0.0.0/8"], "shapedSubnets": ["fd00::/8"]}),
                "shapedSubnets: got subnets beside those of unshapedSubnets; it takes subnets \
                 where unshapedSubnets is empty or absent: one of both lists",
            ),
        ] {
            assert_eq!(read(&config), Err(message.to_owned()), "{config}");
        }
    }

    proptest! {
        #[test]
        fn a_subnet_is_what_its_text_says(bits: u32, prefix in 0u8..=32, six: u128, prefix6 in 0u8..=128) {
            let four = std::net::Ipv4Addr::from(bits);
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            let Ok(Scope::Only(found)) = read(&json!({"shapedSubnets": [format!("{four}/{prefix}")]}))
            else { panic!("{four}/{prefix}") };
            prop_assert_eq!(found[0].network(), std::net::Ipv4Addr::from(bits & mask));
            prop_assert_eq!(found[0].prefix(), prefix);

            let address = std::net::Ipv6Addr::from(six | 1 << 127);
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix6)).unwrap_or(0);
            let text = format!("{address}/{prefix6}");
            let Ok(Scope::Only(found)) = read(&json!({"shapedSubnets": [text]}))
            else { panic!("{address}/{prefix6}") };
            prop_assert_eq!(found[0].network(), std::net::Ipv6Addr::from((six | 1 << 127) & mask));
            prop_assert_eq!(found[0].prefix(), prefix6);
        }

        #[test]
        fn no_text_breaks_it(text in "\\PC{0,40}|[0-9./:a-f]{0,60}") {
            let _ = read(&json!({"unshapedSubnets": [text]}));
        }
    }
}
