//! Results: what the plugins before us wrote about the interfaces of an attachment (section 5).

use serde_json::Value;

/// Longest name of an interface in bytes (IFNAMSIZ is 16 with its final zero).
const IFNAME_MAX: usize = 15;

/// The interfaces outside of a sandbox in a result for the attachment's interface `ifname`: the
/// host's end of its link, and whatever else a plugin names, such as a bridge. None where the result
/// names interfaces inside a sandbox and `ifname` is not one of them: it is about another attachment.
pub fn host_interfaces(result: &Value, ifname: &str) -> Vec<String> {
    let interfaces = result["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_inside = |one: &&Value| one["sandbox"].as_str().is_some_and(|path| !path.is_empty());
    let (inside, outside): (Vec<&Value>, Vec<_>) = interfaces.iter().partition(is_inside);
    if !inside.is_empty() && !inside.iter().any(|one| one["name"] == ifname) {
        return Vec::new();
    }
    let names = outside.iter().filter_map(|one| one["name"].as_str());
    names.filter(|name| (1..=IFNAME_MAX).contains(&name.len())).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_host_end_is_what_is_named_outside_of_the_sandbox() {
        let eth0 = json!({"name": "eth0", "sandbox": "/run/netns/a"});
        for (interfaces, names) in [
            (json!([{"name": "cali1"}, eth0]), &["cali1"][..]),
            (json!([{"name": "cni0"}, {"name": "veth1", "sandbox": ""}, eth0]), &["cni0", "veth1"]),
            // As plugins do that do not name the container's interface.
            (json!([{"name": "lxc1"}]), &["lxc1"]),
            // About another interface of the pod.
            (json!([{"name": "veth2"}, {"name": "net1", "sandbox": "/run/netns/a"}]), &[]),
            (json!([eth0]), &[]),
            (json!([{"name": ""}, {"name": "a name of 17 byte"}, {"name": 7}, "veth3", eth0]), &[]),
            (json!({"name": "veth4"}), &[]),
            (json!(null), &[]),
        ] {
            assert_eq!(host_interfaces(&json!({"interfaces": interfaces}), "eth0"), names);
        }
        assert!(host_interfaces(&json!("no object"), "eth0").is_empty());
    }
}
