use super::*;

fn link(index: u32, name: &str, alias: Option<&str>) -> Link {
    let alias = alias.map(str::to_owned);
    Link { index, name: name.into(), alias, peer_namespace: Some(7), ..Link::default() }
}

fn pod(namespace: &str, name: &str) -> PodName {
    PodName { namespace: namespace.into(), name: name.into() }
}

/// The network, the container, the interface, and the index of the host's end.
fn found(trace: Option<(Trace, &Link)>) -> Option<(String, String, String, u32)> {
    let (Trace { attached, index }, end) = trace?;
    assert_eq!((attached.pod().as_deref(), end.index), (Some("web/a"), index));
    Some((attached.network, attached.container_id, attached.ifname, index))
}

#[test]
fn calicos_rule_gives_the_name_that_it_gives() {
    // printf default.web | sha1sum
    assert_eq!(calico_name(&pod("default", "web")), "cali68caf03a5f4");
}

#[test]
fn a_pod_is_found_by_an_alias_else_by_calicos_name() {
    let alias = "pod-bandwidth net=k8s id=c1 if=net1 dev=veth1 pod=web/a";
    let ifb = link(3, "pbeaaaaaaaaaaaa", Some(alias));
    let other =
        link(4, "pbebbbbbbbbbbbb", Some("pod-bandwidth net=n id=c2 if=eth0 dev=veth1 pod=web/ab"));
    let (veth, cali) = (link(5, "veth1", None), link(6, &calico_name(&pod("web", "a")), None));
    let by_alias = ("k8s".to_owned(), "c1".to_owned(), "net1".to_owned(), 5);
    let by_name = ("calico".to_owned(), "uid-1".to_owned(), "eth0".to_owned(), 6);
    for (links, network, expected) in [
        (vec![ifb.clone(), veth.clone(), cali.clone()], Some("calico"), Some(by_alias.clone())),
        (vec![ifb.clone(), veth.clone()], None, Some(by_alias)),
        // Its interface is gone, so it is a leak, and says nothing of the pod of today.
        (vec![ifb, cali.clone()], Some("calico"), Some(by_name)),
        // Another pod's, a foreign name, no list with our entry.
        (vec![other, veth], Some("calico"), None),
        (vec![cali], None, None),
        (vec![], Some("calico"), None),
    ] {
        assert_eq!(found(trace(&pod("web", "a"), "uid-1", network, &links)), expected, "{links:?}");
    }
}

#[test]
fn a_trace_counts_with_a_namespace_and_only_where_the_cache_says_nothing() {
    let attached = |uid: &str, sandbox: Option<&str>| Attached {
        namespace: "web".into(),
        name: "a".into(),
        uid: uid.into(),
        sandbox: sandbox.map(Into::into),
        ..Attached::default()
    };
    let traces = |attached| Traces {
        found: BTreeMap::from([(pod("web", "a"), Trace { attached, index: 5 })]),
        error: None,
    };
    for (trace, cached, expected) in [
        (attached("1", None), None, 0),
        (attached("1", Some("/n")), None, 1),
        (attached("1", Some("/n")), Some(attached("0", None)), 2),
        (attached("1", Some("/n")), Some(attached("1", None)), 1),
        (attached("1", Some("/n")), Some(attached("", None)), 1),
    ] {
        let mut cache = Cache { attached: cached.into_iter().collect(), skipped: vec![] };
        traces(trace).complete(&mut cache);
        assert_eq!(cache.attached.len(), expected, "{cache:?}");
    }
}
