//! A node that changes from the reference `bandwidth` plugin to ours, and back: what the same keys
//! give, and what becomes of the pods that run meanwhile. docs/from-the-reference.md says the same
//! in words; its commands are run here as they stand there.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use common::{Call, Lab, Pod, Qdisc, Shape, Snapshot, Traffic, Way, require_peer, throughput};
use serde_json::{Value, json};

const M: u64 = 1_000_000;
/// What containerd passes for the burst of an annotation.
const NONE_GIVEN: u64 = 4_294_967_295;

/// Calls the reference plugin for `eth0` of `pod`, in the same network for the same container as
/// [`Call`] does. `keys`: what its entry and the runtime say.
fn reference(lab: &Lab, pod: &Pod, plugin: &str, verb: &str, keys: &Value) -> Output {
    call(lab, pod, plugin, [("CNI_COMMAND", verb), ("CNI_IFNAME", "eth0")], keys)
}

fn call(lab: &Lab, pod: &Pod, plugin: &str, words: [(&str, &str); 2], keys: &Value) -> Output {
    let mut config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bandwidth",
        "prevResult": pod.result(&pod.eth0, "1.0.0"),
    });
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    lab.command(&["sh", "-c", r#"printf %s "$CONFIG" | "$1""#, "sh", plugin])
        .env("CONFIG", config.to_string())
        .envs(words)
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_NETNS", pod.ns.path())
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "the reference plugin: {output:?}");
}

fn refused(output: &Output, words: &str) {
    let error: Value = serde_json::from_slice(&output.stdout).expect("an error object");
    let text = error["msg"].as_str().unwrap();
    assert!(error["code"] == 999 && text.contains(words), "{words:?}: {output:?}");
}

/// A lab with the reference plugin, or none.
fn lab() -> Option<(Lab, String)> {
    let lab = Lab::open()?;
    Some((lab, require_peer("bandwidth")?.to_str().unwrap().to_owned()))
}

/// The same keys for ours. `keys`: at the top level of the entry.
fn ours(pod: &Pod, keys: &Value) -> Call {
    let pairs = keys.as_object().unwrap().iter();
    pairs.fold(Call::add(pod), |call, (key, value)| call.key(key, value.clone()))
}

fn both_from_the_runtime() -> Value {
    json!({"runtimeConfig": {"bandwidth": {
        "ingressRate": 10 * M, "ingressBurst": NONE_GIVEN,
        "egressRate": 20 * M, "egressBurst": NONE_GIVEN,
    }}})
}

/// The reference's IFBs.
fn bwp(lab: &Lab) -> Vec<String> {
    let names = lab.links().into_iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
    names.filter(|name| name.starts_with("bwp")).collect()
}

fn bits(tbf: &Qdisc) -> u64 {
    tbf.options["rate"].as_u64().unwrap() * 8
}

#[test]
fn the_same_keys_give_the_same_limits_but_for_a_burst_that_nobody_wrote() {
    let written = json!({"ingressRate": 8 * M, "ingressBurst": 4 * M,
        "egressRate": 16 * M, "egressBurst": 8 * M});
    for (case, keys) in [
        ("keys of the entry", written.clone()),
        ("keys of the runtime", json!({"runtimeConfig": {"bandwidth": written}})),
    ] {
        let Some((lab, plugin)) = lab() else { return };
        let (theirs, mine) = (lab.pod("veth0"), lab.pod("veth1"));
        succeeded(&reference(&lab, &theirs, &plugin, "ADD", &keys));
        ours(&mine, &keys).way(Way::Root).ok();
        let shape = Shape::of(&mine, Way::Root);
        for (dev, limit) in [("veth0", shape.to_pod), (&bwp(&lab)[0], shape.from_pod)] {
            let (tbf, limit) = (lab.root(dev), limit.unwrap());
            let ticks = tbf.options["burst_raw"].as_str().unwrap();
            let ticks = u64::from_str_radix(ticks, 16).unwrap();
            assert_eq!(bits(&tbf), limit.rate, "{case}, {dev}");
            assert!(ticks.abs_diff(limit.burst_ticks) < 100, "{case}, {dev}: {ticks}, {limit:?}");
            assert_eq!(tbf.options["limit"].as_u64().unwrap(), limit.queue, "{case}, {dev}");
        }
    }
}

#[test]
fn keys_that_the_two_read_differently() {
    let Some((lab, plugin)) = lab() else { return };
    // A rate without a burst: the reference refuses it, ours derives the burst.
    let pod = lab.pod("veth0");
    let keys = json!({"ingressRate": 8 * M});
    refused(&reference(&lab, &pod, &plugin, "ADD", &keys), "burst must also be set");
    ours(&pod, &keys).ok();
    assert_eq!(Shape::of(&pod, Way::Root).to_pod.unwrap().burst(), 4_000);
    // Keys of the entry and of the runtime: the reference takes the entry's, ours the runtime's.
    let (theirs, mine) = (lab.pod("veth1"), lab.pod("veth2"));
    let mut keys = both_from_the_runtime();
    keys["ingressRate"] = json!(8 * M);
    keys["ingressBurst"] = json!(4 * M);
    succeeded(&reference(&lab, &theirs, &plugin, "ADD", &keys));
    assert_eq!(bits(&lab.root("veth1")), 8 * M);
    assert!(bwp(&lab).is_empty(), "and nothing of the runtime's");
    ours(&mine, &keys).container("c2").ok();
    assert_eq!(Shape::of(&mine, Way::Root).rates(), (10 * M, 20 * M));
    // An entry that asks for one capability only is enough for the annotations of Kubernetes.
    let mine = lab.pod("veth3");
    let capability = json!({"bandwidth": true});
    ours(&mine, &both_from_the_runtime()).key("capabilities", capability).container("c3").ok();
    assert_eq!(Shape::of(&mine, Way::Root).rates(), (10 * M, 20 * M));
}

/// The table of README's comparison: what the reference does with the same input. (What ours does is
/// in limits.rs, idempotent.rs, neighbours.rs, check.rs, verbs.rs.)
#[test]
fn what_the_comparison_says_of_the_reference() {
    let Some((lab, plugin)) = lab() else { return };
    let both = both_from_the_runtime();
    let pod = lab.pod("veth0");
    let before = Snapshot::of(&[&lab]);
    // Its IFB is in the result, and the burst is the runtime's "none given".
    let added = reference(&lab, &pod, &plugin, "ADD", &both);
    succeeded(&added);
    let result: Value = serde_json::from_slice(&added.stdout).unwrap();
    assert_eq!(result["interfaces"][2]["name"], bwp(&lab)[0].as_str());
    let shown = lab.sh("tc qdisc show dev veth0 root");
    assert!(shown.contains("rate 10Mbit burst 193273526b lat 275s"), "{shown}");
    let traffic = Traffic { duration: Duration::from_millis(2_500), ..Traffic::default() };
    let first = throughput(&lab, &pod, &pod.eth0.pod_v4, &traffic).first_second_bits;
    assert!(first > 100e6, "{first:.0} bits in the first second");
    // A second ADD, and a second interface of the pod.
    refused(&reference(&lab, &pod, &plugin, "ADD", &both), "create qdisc: file exists");
    let mut second = lab.pod("veth1");
    second.eth0 = pod.interface("eth1", "veth2");
    second.ns = pod.ns.clone();
    let words = [("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth1")];
    refused(&call(&lab, &second, &plugin, words, &both), "adding link: file exists");
    lab.script("ip link del veth1\n ip link del veth2");
    // CHECK without the TBF, and GC.
    lab.sh("tc qdisc del dev veth0 root");
    succeeded(&reference(&lab, &pod, &plugin, "CHECK", &both));
    let valid = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
    succeeded(&reference(&lab, &pod, &plugin, "GC", &valid));
    assert_eq!(bwp(&lab).len(), 1, "GC leaves its IFB");
    // DEL where the veth stays.
    lab.sh("tc qdisc del dev veth0 ingress");
    succeeded(&reference(&lab, &pod, &plugin, "DEL", &both));
    before.assert_same(&Snapshot::of(&[&lab]), "DEL");
    succeeded(&reference(&lab, &pod, &plugin, "ADD", &both));
    succeeded(&reference(&lab, &pod, &plugin, "DEL", &both));
    assert_eq!(lab.root("veth0").kind, "tbf");
    assert_eq!(lab.hook_kind("veth0").as_deref(), Some("ingress"));
    // A hook that was there.
    for hook in ["ingress", "clsact"] {
        let pod = lab.pod(hook);
        lab.sh(&format!("tc qdisc add dev {hook} {hook}"));
        let add = reference(&lab, &pod, &plugin, "ADD", &both);
        refused(&add, "create ingress qdisc: file exists");
        succeeded(&reference(&lab, &pod, &plugin, "DEL", &both));
    }
}

/// The IFBs that the page's list of what stays behind has, by its own words.
fn stayed_behind(lab: &Lab) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/from-the-reference.md");
    let text = fs::read_to_string(page).unwrap();
    let (_, after) = text.split_once("## What may stay behind").expect("the heading");
    let (_, block) = after.split_once("```sh\n").expect("a block of shell");
    let (block, _) = block.split_once("```").expect("its end");
    lab.run(&["sh", "-c", block]).lines().map(str::to_owned).collect()
}

#[test]
fn a_pod_that_the_reference_shaped_keeps_its_limits_and_leaves_its_ifb_when_ours_ends_it() {
    let Some((lab, plugin)) = lab() else { return };
    let both = both_from_the_runtime();
    // given two pods of the reference, and the entry is changed
    let (pod, stays) = (lab.pod("veth0"), lab.pod("veth1"));
    succeeded(&reference(&lab, &pod, &plugin, "ADD", &both));
    let ifb = bwp(&lab).remove(0);
    lab.script(&format!(
        "ip link add bwp0123456789ab type ifb\n ip link set bwp0123456789ab up
         tc qdisc add dev {host} ingress
         tc filter add dev {host} ingress pref 1 protocol all u32 match u32 0 0 \
         action mirred egress redirect dev bwp0123456789ab",
        host = stays.eth0.host
    ));
    // then CHECK of ours says that our limits are not there
    ours(&pod, &both).verb("CHECK").error(102);
    // when ours is called to end the pod, as containerd does, then nothing of the reference goes
    ours(&pod, &both).verb("DEL").ok();
    assert_eq!(lab.root("veth0").handle, "1:", "its limit stays as long as the pod");
    assert_eq!(lab.hook_kind("veth0").as_deref(), Some("ingress"));
    lab.sh("ip link del veth0");
    assert!(lab.link(&ifb).is_some(), "the reference's IFB outlives the pod");
    // and the page's list has it, and not the IFB of a pod that runs
    assert_eq!(stayed_behind(&lab), [ifb]);
}

#[test]
fn the_reference_called_by_a_cached_list_takes_its_ifb_away() {
    let Some((lab, plugin)) = lab() else { return };
    let both = both_from_the_runtime();
    let pod = lab.pod("veth0");
    succeeded(&reference(&lab, &pod, &plugin, "ADD", &both));
    // CRI-O calls DEL with the list as it was at ADD.
    succeeded(&reference(&lab, &pod, &plugin, "DEL", &both));
    assert!(bwp(&lab).is_empty());
}

#[test]
fn on_the_way_back_the_reference_leaves_our_ifb() {
    let Some((lab, plugin)) = lab() else { return };
    let both = both_from_the_runtime();
    let pod = lab.pod("veth0");
    ours(&pod, &both).way(Way::Root).ok();
    // A second ADD by the reference is refused, and its CHECK fails.
    refused(&reference(&lab, &pod, &plugin, "ADD", &both), "file exists");
    refused(&reference(&lab, &pod, &plugin, "CHECK", &both), "Limit doesn't match");
    // Its DEL knows nothing of ours.
    succeeded(&reference(&lab, &pod, &plugin, "DEL", &both));
    assert_eq!(Shape::of(&pod, Way::Root).rates(), (10 * M, 20 * M));
    // Our IFB serves a pod that runs, and then outlives it.
    let end = ours(&pod, &both).without_env("CNI_NETNS").verb("DEL");
    let ifb = lab.ifbs().remove(0);
    assert!(stayed_behind(&lab).is_empty());
    lab.sh("ip link del veth0");
    assert_eq!(stayed_behind(&lab), [ifb]);
    // A DEL of ours takes it away, by network and container alone.
    end.ok();
    assert!(lab.ifbs().is_empty() && stayed_behind(&lab).is_empty());
}
