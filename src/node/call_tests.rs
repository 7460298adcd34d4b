use super::*;
use crate::policy::BitsPerSecond;

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const CALICO: &str = "qos.projectcalico.org/egressBandwidth";

fn attached(plugin: Option<Value>) -> Attached {
    Attached {
        network: "net".into(),
        container_id: "c1".into(),
        ifname: "eth0".into(),
        sandbox: Some("/var/run/netns/cni-1".into()),
        plugin: plugin.map(|plugin| plugin.as_object().unwrap().clone()),
        capability_args: json!({
            "bandwidth": {"ingressRate": 7_000_000, "ingressBurst": 4_294_967_295u32},
            ANNOTATIONS: {INGRESS: "7M"},
        })
        .as_object()
        .unwrap()
        .clone(),
        ..Attached::default()
    }
}

fn folders(net: &Path, netns: Option<&str>) -> Folders {
    Folders { net: net.into(), netns: netns.map(PathBuf::from) }
}

fn entry(capabilities: Value) -> Value {
    json!({"type": "pod-bandwidth", "capabilities": capabilities})
}

/// The rates to the pod and from it.
fn rates(limits: Limits) -> [Option<u64>; 2] {
    [limits.ingress, limits.egress].map(|limit| limit.map(|limit| limit.rate.0))
}

#[test]
fn live_annotations_take_the_place_of_what_the_runtime_passed_at_add() {
    let live = [(INGRESS.to_owned(), "2M".to_owned()), (CALICO.to_owned(), "3M".to_owned())];
    for (capabilities, expected) in [
        (json!({"bandwidth": true, ANNOTATIONS: true}), [Some(2_000_000), Some(3_000_000)]),
        (json!({ANNOTATIONS: true}), [Some(2_000_000), Some(3_000_000)]),
        (json!({"bandwidth": true}), [Some(2_000_000), None]),
        (json!({"bandwidth": false}), [None, None]),
        (json!(null), [None, None]),
    ] {
        let attached = attached(Some(entry(capabilities.clone())));
        let call = Call::new(&attached, &folders(Path::new("/nonexistent"), None)).unwrap();
        let limits = call.limits(live.iter().map(|(key, value)| (key, value))).unwrap();
        assert_eq!(rates(limits), expected, "{capabilities}");
        // and an annotation that went away leaves nothing behind
        assert_eq!(rates(call.limits([]).unwrap()), [None, None], "{capabilities}");
    }
    let call = Call::new(
        &attached(Some(entry(json!({"bandwidth": true})))),
        &folders(Path::new("/nonexistent"), Some("/host/netns")),
    )
    .unwrap();
    assert_eq!(rates(call.limits_at_add().unwrap()), [Some(7_000_000), None]);
    assert_eq!(call.netns, Path::new("/host/netns/cni-1"));
    assert_eq!(BitsPerSecond(7_000_000).0, 7_000_000);
}

#[test]
fn a_pod_from_before_the_installation_takes_the_nodes_list_of_today() {
    let folder = std::env::temp_dir().join(format!("pod-bandwidth-call-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, list: Value| {
        std::fs::write(folder.join(name), list.to_string()).unwrap();
    };
    write("10-other.conflist", json!({"name": "other", "plugins": [entry(json!({}))]}));
    let error = Call::new(&attached(None), &folders(&folder, None)).unwrap_err().to_string();
    assert!(error.contains("the network net") && error.contains("install"), "{error}");
    let list =
        json!({"name": "net", "plugins": [{"type": "ptp"}, entry(json!({ANNOTATIONS: true}))]});
    write("20-net.conflist", list);
    let call = Call::new(&attached(None), &folders(&folder, None));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(rates(call.unwrap().limits_at_add().unwrap()), [Some(7_000_000), None]);
}
