//! What real runtimes sent, played as they sent it: same environment, same standard input, a pod
//! whose interfaces and namespace have the names and addresses of the recording.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use common::{Call, Lab, Limit, Ns, Pod, PodSpec, Shape, Snapshot, Way};
use serde_json::{Value, json};

/// Recordings of one pod's life: ADD and the DEL that goes with it.
const LIVES: [&str; 3] =
    ["containerd-1.6.20-cri", "containerd-1.6.20-kubelet", "containerd-2.4.2-kubelet"];

fn fixture(name: &str) -> Value {
    let path = common::tests_dir(&format!("fixtures/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The recorded call, with the keys that ask for `way` (none: as recorded, so auto).
fn call(lab: &Lab, recorded: &Value, way: Option<Way>) -> Call {
    let call =
        Call::node(lab, "").environment(&recorded["environment"]).config(recorded["stdin"].clone());
    way.into_iter().fold(call, Call::way)
}

/// The pod of a recorded ADD: interface names, hardware addresses and the namespace's path.
fn pod_of(lab: &Lab, add: &Value) -> Pod {
    let interfaces = &add["stdin"]["prevResult"]["interfaces"];
    let text = |at: usize, key: &str| interfaces[at][key].as_str().unwrap().to_owned();
    let pod = lab.pod_with(PodSpec { name: text(1, "name"), ..PodSpec::host(&text(0, "name")) });
    for (ns, at) in [(&pod.host, 0), (&pod.ns, 1)] {
        ns.run(&["ip", "link", "set", &text(at, "name"), "address", &text(at, "mac")]);
    }
    lab.private_folder("/var/run/netns");
    lab.name_namespace(&pod, add["environment"]["CNI_NETNS"].as_str().unwrap());
    pod
}

fn state(lab: &Ns, pod: &Ns) -> Snapshot {
    Snapshot::of(&[lab, pod])
}

#[test]
fn every_recorded_life_of_a_pod_is_shaped_checked_and_leaves_nothing() {
    for name in LIVES {
        for way in [None, Some(Way::Root), Some(Way::Hooks), Some(Way::Pod)] {
            let Some(lab) = Lab::open() else { return };
            let case = format!("{name}, {way:?}");
            // given the pod of the recording
            let (add, del) = (fixture(&format!("{name}.add")), fixture(&format!("{name}.del")));
            let pod = pod_of(&lab, &add);
            let before = state(&lab, &pod);

            // when the runtime adds it
            let result = call(&lab, &add, way).ok();

            // then the result is prevResult and both directions are held at what was asked for
            assert_eq!(result, add["stdin"]["prevResult"], "{case}");
            let shape = Shape::of(&pod, way.unwrap_or(Way::Root));
            let (to_pod, from_pod) = (shape.to_pod.unwrap(), shape.from_pod.unwrap());
            assert!(to_pod.is_near(&Limit::derived(10_000_000, 1500)), "{case}: {to_pod:?}");
            assert!(from_pod.is_near(&Limit::derived(20_000_000, 1500)), "{case}: {from_pod:?}");

            // and CHECK with what the runtime cached agrees and changes nothing
            let shaped = state(&lab, &pod);
            let check = call(&lab, &add, way).verb("CHECK").key("prevResult", result);
            assert_eq!(check.ok(), Value::Null, "{case}");
            shaped.assert_same(&state(&lab, &pod), &format!("{case}: CHECK"));

            // and DEL leaves what was there before
            assert_eq!(call(&lab, &del, way).ok(), Value::Null, "{case}");
            before.assert_same(&state(&lab, &pod), &format!("{case}: DEL"));

            // and a second DEL, which has neither CNI_NETNS nor prevResult, succeeds too
            let again = call(&lab, &del, way).env("CNI_NETNS", "").without_key("prevResult");
            assert_eq!(again.ok(), Value::Null, "{case}");
            before.assert_same(&state(&lab, &pod), &format!("{case}: DEL again"));
        }
    }
}

#[test]
fn the_recorded_second_del_succeeds_without_anything_to_delete() {
    let Some(lab) = Lab::open() else { return };
    let before = Snapshot::of(&[&lab]);
    let again = fixture("containerd-1.6.20-cri.del-again");
    assert_eq!(call(&lab, &again, None).ok(), Value::Null);
    before.assert_same(&Snapshot::of(&[&lab]), "DEL");
}

#[test]
fn a_del_without_namespace_and_prev_result_still_clears_the_host() {
    for way in [Way::Root, Way::Hooks] {
        let Some(lab) = Lab::open() else { return };
        // given a shaped pod
        let add = fixture("containerd-1.6.20-cri.add");
        let pod = pod_of(&lab, &add);
        let before = state(&lab, &pod);
        call(&lab, &add, Some(way)).ok();
        // when the only DEL that ever comes is the bare one
        call(&lab, &fixture("containerd-1.6.20-cri.del-again"), Some(way)).ok();
        // then nothing of ours is left, and packets pass
        before.assert_same(&state(&lab, &pod), &format!("{way:?}"));
    }
}

#[test]
fn a_del_after_the_pod_is_gone_clears_the_host() {
    for way in Way::ALL {
        let Some(lab) = Lab::open() else { return };
        let add = fixture("containerd-2.4.2-kubelet.add");
        let before = Snapshot::of(&[&lab]);
        let pod = pod_of(&lab, &add);
        call(&lab, &add, Some(way)).ok();
        // when the namespace goes, and the veth pair with it, before DEL comes
        lab.run(&["umount", add["environment"]["CNI_NETNS"].as_str().unwrap()]);
        pod.host.run(&["ip", "link", "del", &pod.eth0.host]);
        drop(pod);
        let del = fixture("containerd-2.4.2-kubelet.del");
        assert_eq!(call(&lab, &del, Some(way)).ok(), Value::Null, "{way:?}");
        before.assert_same(&Snapshot::of(&[&lab]), &format!("{way:?}"));
    }
}

#[test]
fn the_recorded_status_is_answered_with_nothing() {
    let Some(lab) = Lab::open() else { return };
    let before = Snapshot::of(&[&lab]);
    let outcome = call(&lab, &fixture("containerd-2.4.2-kubelet.status"), None).run();
    assert_eq!(outcome.ok(), Value::Null);
    before.assert_same(&Snapshot::of(&[&lab]), "STATUS");
}

#[test]
fn the_two_spellings_of_the_runtimes_mean_the_same() {
    let Some(lab) = Lab::open() else { return };
    // given only runtimeConfig.bandwidth, as containerd (capital letters) and CRI-O write it
    for (case, bandwidth) in [
        (
            "containerd",
            json!({"IngressRate": 10_000_000, "IngressBurst": 4_294_967_295_u64,
            "EgressRate": 20_000_000, "EgressBurst": 4_294_967_295_u64}),
        ),
        (
            "CRI-O",
            json!({"ingressRate": 10_000_000, "ingressBurst": 34_359_738_359_u64,
            "egressRate": 20_000_000, "egressBurst": 34_359_738_359_u64}),
        ),
        (
            "cri-dockerd",
            json!({"ingressRate": 10_000_000, "ingressBurst": 2_147_483_647,
            "egressRate": 20_000_000, "egressBurst": 2_147_483_647}),
        ),
    ] {
        let pod = lab.pod("veth0");
        Call::add(&pod).bandwidth(bandwidth).ok();
        // then the rates are held, and a burst that means "no limit" is derived instead
        let shape = Shape::of(&pod, Way::Root);
        assert!(shape.to_pod.unwrap().is_near(&Limit::derived(10_000_000, 1500)), "{case}");
        assert!(shape.from_pod.unwrap().is_near(&Limit::derived(20_000_000, 1500)), "{case}");
        Call::del(&pod).ok();
        pod.host.run(&["ip", "link", "del", "veth0"]);
    }
}
