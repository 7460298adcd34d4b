use serde_json::json;

use super::*;
use crate::shaping::Attachment;
use crate::shaping::bucket::BytesPerSecond;

fn attached(id: &str, name: &str, host: &str) -> Attached {
    Attached {
        network: "net".into(),
        container_id: id.into(),
        ifname: "eth0".into(),
        namespace: "default".into(),
        name: name.into(),
        result: json!({"interfaces": [{"name": host}, {"name": "eth0", "sandbox": "/run/x"}]}),
        ..Attached::default()
    }
}

fn attachment(id: &str, pod: Option<&str>) -> Attachment {
    Attachment {
        network: "net".into(),
        container_id: id.into(),
        ifname: "eth0".into(),
        pod: pod.map(str::to_owned),
    }
}

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.into(), kind: Some("veth".into()), ..Link::default() }
}

/// The IFB of a direction, which stands beside `dev`.
fn ifb(index: u32, attachment: &Attachment, direction: Direction, dev: &str) -> Link {
    let alias = Some(attachment.alias(dev));
    let name = attachment.ifb_name(direction);
    Link { index, name, kind: Some("ifb".into()), alias, ..Link::default() }
}

fn tbf(index: u32, bytes_per_second: u64) -> TbfStats {
    TbfStats {
        index,
        rate: BytesPerSecond(bytes_per_second),
        burst_bytes: 5_000,
        limit_bytes: 9_000,
        mark: Mark::Hand,
        counters: Counters::default(),
    }
}

/// Name, placement, interface, and the limits in bit/s.
fn told(shaped: &[Shaped]) -> Vec<(String, String, &str, [Option<u64>; 2])> {
    let rate = |limit: &Option<Measured>| limit.as_ref().map(|limit| limit.limit.0);
    let told = |one: &'_ Shaped| {
        (one.owner.pod(), one.placement.to_string(), one.limits.each_ref().map(rate))
    };
    shaped
        .iter()
        .map(|one| {
            let (pod, placement, rates) = told(one);
            (pod, placement, one.device.as_str(), rates)
        })
        .collect()
}

#[test]
fn on_the_host_a_pod_is_known_by_its_ifb_or_by_the_cache() {
    // given one pod with both directions, one with a root TBF alone, one at the hooks
    let loopback = Attached { ifname: "lo".into(), ..attached("aaaa", "both", "") };
    let attached = vec![
        loopback,
        attached("aaaa", "both", "veth1"),
        attached("bbbb", "to-it", "veth2"),
        attached("cccc", "hooks", "veth3"),
    ];
    let cache = Cache { attached, skipped: Vec::new() };
    let links = [
        link(1, "veth1"),
        link(2, "veth2"),
        link(3, "veth3"),
        ifb(11, &attachment("aaaa", None), Direction::Egress, "veth1"),
        ifb(13, &attachment("cccc", None), Direction::Ingress, "veth3"),
        ifb(14, &attachment("cccc", None), Direction::Egress, "veth3"),
    ];
    let tbfs = [(1, 100), (2, 200), (11, 300), (13, 400), (14, 500)];
    let mut found = Found::new(&cache);
    found.add_host(tbfs.map(|(index, rate)| tbf(index, rate)).into(), &links);
    assert!(found.to_look_into().is_empty());
    let shaped = found.into_sorted();
    let text = str::to_owned;
    assert_eq!(
        told(&shaped),
        [
            (text("default/both"), text("host (root)"), "veth1", [Some(800), Some(2400)]),
            (text("default/hooks"), text("host (hooks)"), "veth3", [Some(3200), Some(4000)]),
            (text("default/to-it"), text("host (root)"), "veth2", [Some(1600), None]),
        ]
    );
    assert_eq!(shaped[0].limits[0].as_ref().unwrap().mark, Mark::Hand);
}

#[test]
fn without_the_cache_the_alias_names_the_pod_and_a_lone_root_is_a_device() {
    let known = attachment("aaaa", Some("shop/cart"));
    let links = [link(1, "veth1"), link(2, "veth2"), ifb(11, &known, Direction::Egress, "veth1")];
    let cache = Cache::default();
    let mut found = Found::new(&cache);
    found.add_host([(1, 100), (2, 200), (11, 300)].map(|(i, rate)| tbf(i, rate)).into(), &links);
    let shaped = found.into_sorted();
    let (cart, unknown) = (&shaped[1], &shaped[0]);
    assert_eq!((cart.owner.pod().as_str(), cart.device.as_str()), ("shop/cart", "veth1"));
    assert_eq!((cart.limits[0].is_some(), cart.limits[1].is_some()), (true, true));
    assert_eq!((unknown.owner.pod().as_str(), unknown.device.as_str()), ("?", "veth2"));
}

#[test]
fn a_limit_from_the_pod_alone_does_not_say_which_way_on_the_host() {
    let cache = Cache { attached: vec![attached("aaaa", "p", "veth1")], skipped: Vec::new() };
    let links = [ifb(11, &attachment("aaaa", None), Direction::Egress, "veth1")];
    let mut found = Found::new(&cache);
    found.add_host(vec![tbf(11, 300)], &links);
    let shaped = found.into_sorted();
    assert_eq!((shaped[0].placement, shaped[0].device.as_str()), (Placement::Host, "veth1"));
}

#[test]
fn inside_a_pod_only_what_belongs_to_the_attachment_counts() {
    let cache = Cache { attached: vec![attached("aaaa", "p", "veth1")], skipped: Vec::new() };
    let (ours, other) = (attachment("aaaa", None), attachment("bbbb", None));
    let links = [
        link(1, "eth0"),
        link(2, "net1"),
        ifb(3, &ours, Direction::Ingress, "eth0"),
        ifb(4, &other, Direction::Ingress, "net1"),
    ];
    let mut found = Found::new(&cache);
    let attached = found.to_look_into().remove(0);
    found.add_pod(attached, (1..=4).map(|index| tbf(index, 100)).collect(), &links);
    let shaped = found.into_sorted();
    let limited = [Some(800), Some(800)];
    assert_eq!(told(&shaped), [("default/p".to_owned(), "pod".to_owned(), "eth0", limited)]);
    assert_eq!(shaped[0].limits[1].as_ref().unwrap().device, "eth0");
}

#[test]
fn an_owner_without_a_pod_is_its_container() {
    let owner = Owner { container_id: "0123456789abcdef".into(), ..Owner::default() };
    assert_eq!(owner.pod(), "container 0123456789ab");
    assert_eq!(Owner::default().pod(), "?");
}
