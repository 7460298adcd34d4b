use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMetaExt;

use super::*;

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";

fn metadata(namespace: Option<&str>, name: &str, annotations: &[(&str, &str)]) -> ObjectMeta {
    ObjectMeta {
        namespace: namespace.map(str::to_owned),
        name: Some(name.into()),
        annotations: Some(
            annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ),
        ..ObjectMeta::default()
    }
}

fn pod(name: &str, annotations: &[(&str, &str)]) -> PartialObjectMeta<Pod> {
    metadata(Some("web"), name, annotations).into_response_partial()
}

fn namespace(annotations: &[(&str, &str)]) -> PartialObjectMeta<Namespace> {
    metadata(None, "web", annotations).into_response_partial()
}

fn held(wanted: &Wanted, name: &str) -> Vec<(String, String)> {
    let name = PodName { namespace: "web".into(), name: name.into() };
    let pod = wanted.pod(&name).unwrap();
    wanted.annotations(&name, pod).into_iter().collect()
}

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

#[test]
fn a_namespaces_annotations_count_for_directions_of_which_the_pod_says_nothing() {
    let mut wanted = Wanted::default();
    let defaults = [("qos.projectcalico.org/ingressBandwidth", "50M"), (EGRESS, "5M")];
    assert!(wanted.namespaces_changed(Event::Apply(namespace(&defaults))));
    for (own, expected) in [
        (&[][..], &[(EGRESS, "5M"), ("qos.projectcalico.org/ingressBandwidth", "50M")][..]),
        (&[(INGRESS, "10M")], &[(EGRESS, "5M"), (INGRESS, "10M")]),
        (&[(INGRESS, "10M"), (EGRESS, "1M")], &[(EGRESS, "1M"), (INGRESS, "10M")]),
        (
            &[("app", "x"), ("qos.projectcalico.org/egressPacketRate", "5")],
            &[(EGRESS, "5M"), ("qos.projectcalico.org/ingressBandwidth", "50M")],
        ),
    ] {
        wanted.pods_changed(Event::Apply(pod("a", own)));
        assert_eq!(held(&wanted, "a"), texts(expected), "{own:?}");
    }
    // A namespace that changes in another way is no reason to look at its pods.
    assert!(!wanted.namespaces_changed(Event::Apply(namespace(&[
        defaults[0],
        defaults[1],
        ("a", "b")
    ]))));
    assert!(wanted.namespaces_changed(Event::Delete(namespace(&[]))));
    wanted.pods_changed(Event::Apply(pod("a", &[])));
    assert_eq!(held(&wanted, "a"), []);
}

#[test]
fn a_list_made_anew_counts_when_it_is_whole() {
    let mut wanted = Wanted::default();
    for event in [Event::Init, Event::InitApply(pod("a", &[])), Event::InitDone] {
        wanted.pods_changed(event);
    }
    assert!(!wanted.is_complete(), "nothing is known of the namespaces");
    wanted.namespaces_changed(Event::Init);
    assert!(wanted.namespaces_changed(Event::InitDone) && wanted.is_complete());
    // given a watch that begins again
    assert_eq!(wanted.pods_changed(Event::Init), Changed::Nothing);
    wanted.pods_changed(Event::InitApply(pod("b", &[])));
    // then what it has not listed yet is not gone
    assert_eq!(wanted.pods().map(|(name, _)| name.to_string()).collect::<Vec<_>>(), ["web/a"]);
    assert!(wanted.is_complete());
    assert_eq!(wanted.pods_changed(Event::InitDone), Changed::All);
    assert_eq!(wanted.pods().map(|(name, _)| name.to_string()).collect::<Vec<_>>(), ["web/b"]);
}
