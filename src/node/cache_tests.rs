//! Entries laid out as libcni 1.3 marshals `cachedInfo`, with what containerd 2.4.2's calls hold.

use std::os::unix::fs::symlink;

use serde_json::json;

use super::*;

/// A folder of the test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cache-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SANDBOX: &str = "/var/run/netns/cni-7b8747dd-59e7-7d42-7428-fad67dd551cc";

fn conflist() -> Value {
    json!({"cniVersion": "1.1.0", "name": "testnet", "plugins": [
        {"type": "ptp"}, {"type": "pod-bandwidth", "latency": 30},
    ]})
}

fn entry() -> Value {
    json!({
        "kind": "cniCacheV1",
        "containerId": "23eb01114b99",
        "config": STANDARD.encode(conflist().to_string()),
        "ifName": "eth0",
        "networkName": "testnet",
        "netns": SANDBOX,
        "cniArgs": [
            ["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "bw1"],
            ["K8S_POD_INFRA_CONTAINER_ID", "23eb01114b99"], ["K8S_POD_UID", "185c01cb"],
        ],
        "capabilityArgs": {
            "io.kubernetes.cri.pod-annotations": {"kubernetes.io/ingress-bandwidth": "10M"},
        },
        "result": {"cniVersion": "1.1.0", "interfaces": [
            {"mac": "3a:16:6a:d2:56:c9", "name": "veth2b312fe4"},
            {"mac": "2e:5d:5a:5d:31:3a", "name": "eth0", "sandbox": SANDBOX},
        ]},
    })
}

fn parse(entry: &Value) -> Result<Attached, &'static str> {
    Attached::parse(entry.to_string().as_bytes())
}

#[test]
fn an_entry_says_which_pod_where_and_how_it_was_attached() {
    let attached = parse(&entry()).unwrap();
    assert_eq!(attached.pod().unwrap(), "default/bw1");
    assert_eq!((attached.uid.as_str(), attached.network.as_str()), ("185c01cb", "testnet"));
    assert_eq!((attached.container_id.as_str(), &*attached.ifname), ("23eb01114b99", "eth0"));
    assert_eq!(attached.sandbox.as_deref(), Some(Path::new(SANDBOX)));
    assert_eq!(attached.cni_version, "1.1.0");
    assert_eq!(attached.plugin.clone().unwrap()["latency"], 30);
    let annotations = &attached.capability_args["io.kubernetes.cri.pod-annotations"];
    assert_eq!(annotations["kubernetes.io/ingress-bandwidth"], "10M");
    assert_eq!(attached.host_interfaces().collect::<Vec<_>>(), ["veth2b312fe4"]);
}

#[test]
fn an_older_libcni_has_the_sandbox_in_the_result_alone() {
    let mut entry = entry();
    entry.as_object_mut().unwrap().remove("netns");
    assert_eq!(parse(&entry).unwrap().sandbox.as_deref(), Some(Path::new(SANDBOX)));
    entry["result"] = json!({});
    assert_eq!(parse(&entry).unwrap().sandbox, None);
}

#[test]
fn a_conflist_that_cannot_be_read_or_is_not_ours_leaves_the_rest() {
    for config in ["%%%", "", &STANDARD.encode("{\"plugins\": [{\"type\": \"ptp\"}]}")] {
        let mut entry = entry();
        entry["config"] = json!(config);
        let attached = parse(&entry).unwrap();
        assert_eq!((attached.plugin.as_ref(), attached.name.as_str()), (None, "bw1"), "{config}");
    }
    // a lone plugin is a configuration without a list
    let mut entry = entry();
    entry["config"] = json!(STANDARD.encode("{\"type\": \"pod-bandwidth\"}"));
    assert!(parse(&entry).unwrap().plugin.is_some());
}

#[test]
fn an_entry_of_another_runtime_has_no_pod() {
    let mut entry = entry();
    entry["cniArgs"] = json!(null);
    assert_eq!(parse(&entry).unwrap().pod(), None);
}

#[test]
fn no_cut_and_no_foreign_text_is_an_entry_or_a_panic() {
    let text = entry().to_string();
    for length in 0..text.len() {
        assert!(Attached::parse(&text.as_bytes()[..length]).is_err(), "{length} bytes");
    }
    for text in ["{}", "[]", "null", "\"cniCacheV1\"", "{\"kind\": \"cniCacheV2\"}"] {
        assert!(Attached::parse(text.as_bytes()).is_err(), "{text}");
    }
    // every key with a value of another type: an entry or a reason, never a panic
    for key in entry().as_object().unwrap().keys() {
        for value in [json!(null), json!(7), json!([]), json!({}), json!([[[]]])] {
            let mut entry = entry();
            entry[key] = value;
            let _ = parse(&entry);
        }
    }
}

#[test]
fn a_folder_is_read_past_all_that_is_no_entry() {
    let folder = Folder::new("tolerant");
    let mut other = entry();
    other["cniArgs"] = json!([["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "a"]]);
    other["containerId"] = json!("aaaa");
    folder.write("testnet-23eb01114b99-eth0", entry().to_string());
    folder.write("testnet-aaaa-eth0", other.to_string());
    folder.write("empty", "");
    folder.write("half", &entry().to_string()[..99]);
    folder.write("old", "{\"cniVersion\": \"0.3.1\", \"ips\": []}");
    folder.write("large", vec![b' '; FILE_BYTES_MAX as usize + 1]);
    std::fs::create_dir(folder.0.join("folder")).unwrap();
    symlink("/dev/zero", folder.0.join("link")).unwrap();

    let cache = Cache::read(&folder.0).unwrap();
    let names: Vec<_> = cache.attached.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["a", "bw1"]);
    let skipped = cache.skipped.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap());
    let skipped: Vec<_> = skipped.collect();
    assert_eq!(skipped, ["empty", "folder", "half", "large", "link", "old"]);
    assert_eq!(cache.find("aaaa", "eth0").unwrap().name, "a");
    assert_eq!(cache.of_pod("default", "bw1").count(), 1);
}

#[test]
fn a_folder_that_is_not_there_is_empty_and_one_that_is_no_folder_is_an_error() {
    assert_eq!(Cache::read(Path::new("/nonexistent/results")).unwrap(), Cache::default());
    let error = Cache::read(Path::new("/etc/passwd")).unwrap_err().to_string();
    assert!(error.contains("cannot read /etc/passwd") && error.contains("--cache"), "{error}");
}
