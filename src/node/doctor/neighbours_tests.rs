use super::*;
use crate::kernel::Link;
use crate::kernel::survey::RootQdisc;

/// A host interface with this root.
fn end(name: &str, kind: &str, major: u16) -> Device {
    let link = Link {
        name: name.into(),
        kind: Some("veth".into()),
        peer_namespace: Some(1),
        ..Link::default()
    };
    let root = (!kind.is_empty()).then(|| RootQdisc { kind: kind.into(), major, tbf: None });
    Device { link, root, ..Device::default() }
}

fn found(devices: Vec<Device>, chain: &Chain) -> Vec<(&'static str, Severity)> {
    let all = findings(&Survey { devices }, chain);
    all.iter().map(|one| (one.id, one.severity)).collect()
}

fn settings(placement: Placement, host_ingress: HostIngress) -> Chain {
    let settings = Settings { placement, host_ingress, ..Settings::default() };
    Chain { settings: Some(settings), ..Chain::default() }
}

#[test]
fn a_foreign_root_matters_only_where_the_root_is_insisted_on() {
    use {HostIngress as I, Placement as P};
    let problem = vec![("foreign-root", Severity::Problem)];
    for (placement, ingress, want) in [
        (P::Auto, I::Auto, vec![]),
        (P::Auto, I::Root, problem.clone()),
        (P::Host, I::Root, problem),
        (P::Host, I::Hooks, vec![]),
        (P::Pod, I::Root, vec![]),
    ] {
        let chain = settings(placement, ingress);
        let devices = vec![end("veth0", "htb", 1), end("veth1", "", 0)];
        assert_eq!(found(devices, &chain), want, "{placement:?} {ingress:?}");
    }
    // The node's uplink is no pod's.
    let mut uplink = end("eth0", "htb", 1);
    uplink.link.peer_namespace = None;
    assert_eq!(found(vec![uplink], &settings(P::Host, I::Root)), []);
}

#[test]
fn calico_is_told_where_it_is_and_a_data_plane_once() {
    let chain = Chain { has_calico: true, ..Chain::default() };
    assert_eq!(found(vec![], &chain), [("calico", Severity::Ok)]);
    assert_eq!(found(vec![], &Chain::default()), []);
    let cilium = || vec![end("cilium_host", "", 0), end("cilium_net", "", 0)];
    assert_eq!(found(cilium(), &Chain::default()), [("bpf-data-plane", Severity::Note)]);
    let host = settings(Placement::Host, HostIngress::Auto);
    assert_eq!(found(cilium(), &host), [("bpf-data-plane", Severity::Warning)]);
}
