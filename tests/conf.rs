//! The files in conf/ are what users copy to their nodes, so they are tested as they lie
//! there. No network: each is JSON, chains the plugin where it belongs, and asks the
//! runtime for both capabilities. Knows only the files and the CNI specification.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

type TestResult<T = ()> = Result<T, Box<dyn Error>>;

/// Every list, with the types of its plugins in order and its cniVersion.
///
/// 1.0.0 for Calico: its CNI plugin takes no later one.
const LISTS: [(&str, &str, &[&str]); 2] = [
    ("10-calico-pod-bandwidth.conflist", "1.0.0", &["calico", "portmap", "pod-bandwidth"]),
    ("10-ptp-pod-bandwidth.conflist", "1.1.0", &["ptp", "pod-bandwidth"]),
];

const ENTRY: &str = "replace-bandwidth-entry.json";

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

fn read(name: &str) -> TestResult<Value> {
    let text = fs::read_to_string(conf().join(name)).map_err(|e| format!("conf/{name}: {e}"))?;
    Ok(serde_json::from_str(&text).map_err(|e| format!("conf/{name}: {e}"))?)
}

/// The file names in conf/ but README.md, sorted. conf/kustomize is the business of tests/deploy.rs.
fn names() -> TestResult<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(conf())? {
        let file = file?;
        if file.file_type()?.is_file() {
            names.push(file.file_name().to_string_lossy().into_owned());
        }
    }
    names.retain(|name| name != "README.md");
    names.sort();
    Ok(names)
}

/// The entry as every file must have it: both channels on, and no limit of our own,
/// which would hold every pod of the node.
fn entry() -> Value {
    json!({
        "type": "pod-bandwidth",
        "capabilities": { "bandwidth": true, "io.kubernetes.cri.pod-annotations": true },
    })
}

#[test]
fn every_file_in_conf_is_tested_and_described() -> TestResult {
    let readme = fs::read_to_string(conf().join("README.md"))?;
    let mut tested: Vec<&str> = LISTS.iter().map(|list| list.0).chain([ENTRY]).collect();
    tested.sort_unstable();

    assert_eq!(names()?, tested, "conf/ and the table of this test differ");
    for name in tested {
        assert!(readme.contains(&format!("`{name}`")), "conf/README.md does not name {name}");
    }
    Ok(())
}

#[test]
fn every_list_chains_its_plugins_in_order_at_its_version() -> TestResult {
    for (name, version, types) in LISTS {
        let list = read(name)?;

        assert_eq!(list["cniVersion"], version, "{name}: cniVersion");
        assert!(list["name"].as_str().is_some_and(|n| !n.is_empty()), "{name}: no network name");
        let plugins = list["plugins"].as_array().ok_or(format!("{name}: no plugins"))?;
        let found: Vec<&str> = plugins.iter().filter_map(|p| p["type"].as_str()).collect();
        assert_eq!(found, types, "{name}: the chain");
        assert_eq!(found.len(), plugins.len(), "{name}: a plugin without a type");
    }
    Ok(())
}

#[test]
fn every_list_ends_with_the_entry_that_the_drop_in_has() -> TestResult {
    assert_eq!(read(ENTRY)?, entry(), "{ENTRY}");
    for (name, ..) in LISTS {
        let list = read(name)?;
        let last = list["plugins"].as_array().and_then(|plugins| plugins.last());
        assert_eq!(last, Some(&entry()), "{name}");
    }
    Ok(())
}

/// A runtime takes the first file by name, and Calico's installer writes its own again at
/// every start (CNI_CONF_NAME in cni-plugin/pkg/install/install.go): ours must stay first.
#[test]
fn the_calico_list_sorts_before_the_one_that_calico_installs() {
    assert!(LISTS[0].0 < "10-calico.conflist");
}
