use super::*;

/// A folder that goes with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("pod-bandwidth-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn look(&self) -> Chain {
        look(Folders { net: &self.0, bin: &self.0 })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ids(chain: &Chain) -> Vec<&'static str> {
    chain.findings.iter().map(|one| one.id).collect()
}

#[test]
fn the_settings_of_the_entry_that_counts_are_kept_for_the_other_looks() {
    let folder = Folder::new("settings");
    let list = r#"{"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "calico"}, {
        "type": "pod-bandwidth", "placement": "host",
        "capabilities": {"bandwidth": true, "io.kubernetes.cri.pod-annotations": true}}]}"#;
    std::fs::write(folder.0.join("10.conflist"), list).unwrap();
    // One that comes later is nobody's.
    std::fs::write(folder.0.join("20.conflist"), "{").unwrap();
    let chain = folder.look();
    assert_eq!(ids(&chain), ["cni", "cni-program"]);
    assert!(chain.has_calico);
    assert_eq!(chain.settings.unwrap().placement, crate::policy::Placement::Host);
    // An earlier one that is broken stops everything.
    std::fs::write(folder.0.join("05.conflist"), "{").unwrap();
    let chain = folder.look();
    assert_eq!(ids(&chain), ["cni-list", "cni-program"]);
    assert!(chain.settings.is_none() && !chain.has_calico);
}

#[test]
fn the_command_names_folders_that_are_not_the_usual_ones() {
    let folders = |net, bin| Folders { net: Path::new(net), bin: Path::new(bin) };
    assert_eq!(folders("/etc/cni/net.d", "/opt/cni/bin").install(), "pod-bandwidth install");
    let k3s = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
    assert_eq!(
        folders(k3s, "/opt/cni/bin").install(),
        format!("pod-bandwidth install --net-dir {k3s}")
    );
}
