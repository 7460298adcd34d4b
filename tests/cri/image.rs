//! An image made from nothing but a static busybox, so that no registry is asked: a docker-archive,
//! which `ctr images import` reads.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::config::{IMAGE, ROOT};
use super::node::Node;

/// Makes `image.tar` in the node's root folder.
pub fn build(node: &Node, busybox: &str) {
    let script = r#"
        mkdir -p "$1/image/layer/bin" "$1/image/layer/proc" "$1/image/layer/etc" && cd "$1/image"
        cp "$2" layer/bin/busybox
        chroot layer /bin/busybox true || { echo "$2 is not static: install busybox-static" >&2; exit 1; }
        tar --sort=name -C layer -cf layer.tar ."#;
    node.run(&["sh", "-ec", script, "sh", ROOT, busybox]);
    let layer = std::fs::read(node.path("image/layer.tar")).expect("tar made it");
    // Docker's image configuration: the layer is named by the sum of its bytes.
    let sum: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox", "sleep", "1000000"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    node.write("image/config.json", &config.to_string());
    node.write("image/manifest.json", &manifest.to_string());
    node.run(&[
        "tar",
        "-C",
        &format!("{ROOT}/image"),
        "-cf",
        &format!("{ROOT}/image.tar"),
        "manifest.json",
        "config.json",
        "layer.tar",
    ]);
}
