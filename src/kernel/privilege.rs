//! Privileges: whether this process may change the network at all.

/// Bit of CAP_NET_ADMIN (include/uapi/linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// Whether the process has CAP_NET_ADMIN in its user namespace; `None` where /proc does not say.
pub fn has_net_admin() -> Option<bool> {
    effective(&std::fs::read_to_string("/proc/self/status").ok()?, CAP_NET_ADMIN)
}

fn effective(status: &str, capability: u32) -> Option<bool> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(set >> capability & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_proc() {
        for (status, expected) in [
            ("Name:\tx\nCapEff:\t000001ffffffffff\n", Some(true)),
            ("CapEff:\t0000000000001000\n", Some(true)),
            ("CapEff:\t0000000000000fff\n", Some(false)),
            ("CapEff:\tnonsense\n", None),
            ("", None),
        ] {
            assert_eq!(effective(status, CAP_NET_ADMIN), expected, "{status:?}");
        }
    }
}
