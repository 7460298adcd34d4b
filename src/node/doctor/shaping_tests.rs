use super::*;
use crate::kernel::Link;
use crate::kernel::filter::Seen;
use crate::kernel::survey::RootQdisc;
use crate::shaping::bucket::Leaf;
use crate::shaping::identity::TBF_HANDLE;
use crate::shaping::site::Filter;
use crate::shaping::{Mark, Match};

const IFB: &str = "pbewmtbaaaabbbb";
const OTHER_IFB: &str = "pbewmtbccccdddd";

/// A TBF of 10 Mbit/s with this burst in bytes and this major number.
fn tbf(major: u16, burst: u32) -> RootQdisc {
    let rate = BytesPerSecond(1_250_000);
    let state = TbfState {
        rate,
        burst_ticks: ticks(rate, burst),
        limit: 36_250,
        peak_rate: BytesPerSecond(0),
        peak_ticks: 0,
        leaf: Leaf::Own,
        leaf_handle: 0,
        mark: Mark::Added,
    };
    RootQdisc { kind: "tbf".into(), major, tbf: Some(state) }
}

fn device(index: u32, name: &str, kind: &str) -> Device {
    let kind = Some(kind.to_owned());
    let link = Link { index, name: name.into(), kind, mtu: 1500, up: true, ..Link::default() };
    Device { link, ..Device::default() }
}

/// An IFB of ours with this alias and a TBF.
fn ifb(index: u32, name: &str, device_of_alias: &str) -> Device {
    let mut made = device(index, name, "ifb");
    let alias = format!("pod-bandwidth net=net id=c1 if=eth0 dev={device_of_alias} pod=shop/cart");
    made.link.alias = Some(alias);
    made.root = Some(tbf(TBF_HANDLE, 5000));
    made
}

/// A host interface whose ingress hook redirects to this index.
fn host(index: u32, name: &str, target: u32) -> Device {
    let mut made = device(index, name, "veth");
    let stamp = <_>::default();
    let owner = Owner::Ours { matches: Match::All, target: Some(target), made_hook: true, stamp };
    let filter = Filter { pref: u16::MAX, handle: 0x8000_0800, owner };
    made.filters[Hook::Ingress as usize] = vec![Seen { filter, target: Some(target) }];
    made
}

/// Names of what is found, but for the count.
fn found(devices: Vec<Device>) -> Vec<(&'static str, Severity)> {
    let all = findings(&Survey { devices }, &Place::Node, Path::new("/cache"));
    all.iter().map(|one| (one.id, one.severity)).filter(|(id, _)| *id != "shaping").collect()
}

fn changed(mut device: Device, change: impl FnOnce(&mut Device)) -> Device {
    change(&mut device);
    device
}

#[test]
fn what_fits_together_is_no_finding_and_each_part_that_does_not_is_one() {
    use Severity::{Note, Problem, Warning};
    let sound = || ifb(2, IFB, "veth0");
    let foreign = |name| device(2, name, "ifb");
    for (case, devices, want) in [
        ("sound", vec![host(1, "veth0", 2), sound()], vec![]),
        ("nothing of ours", vec![device(1, "veth0", "veth"), device(2, "ifb0", "ifb")], vec![]),
        ("no IFB", vec![host(1, "veth0", 0)], vec![("redirect-to-nothing", Problem)]),
        (
            "IFB down",
            vec![host(1, "veth0", 2), changed(sound(), |ifb| ifb.link.up = false)],
            vec![("redirect-to-down", Problem)],
        ),
        (
            "no TBF",
            vec![host(1, "veth0", 2), changed(sound(), |ifb| ifb.root = None)],
            vec![("tbf-missing", Problem)],
        ),
        (
            "a TBF of others",
            vec![host(1, "veth0", 2), changed(sound(), |ifb| ifb.root = Some(tbf(1, 5000)))],
            vec![("tbf-missing", Problem)],
        ),
        ("no filter", vec![device(1, "veth0", "veth"), sound()], vec![("ifb-unused", Problem)]),
        ("no interface", vec![sound()], vec![("ifb-leak", Warning)]),
        (
            "another pod's interface by now",
            vec![host(1, "veth0", 3), sound(), ifb(3, OTHER_IFB, "veth0")],
            vec![("ifb-leak", Warning)],
        ),
        (
            "no alias",
            vec![host(1, "veth0", 2), changed(sound(), |ifb| ifb.link.alias = None)],
            vec![("ifb-without-alias", Warning)],
        ),
        (
            "a burst below a frame",
            vec![
                host(1, "veth0", 2),
                changed(sound(), |ifb| ifb.root = Some(tbf(TBF_HANDLE, 1500))),
            ],
            vec![("burst-below-mtu", Problem)],
        ),
        (
            "a burst below a frame on the interface itself, whoever made it",
            vec![changed(device(1, "veth0", "veth"), |veth| veth.root = Some(tbf(1, 1500)))],
            vec![("burst-below-mtu", Problem)],
        ),
        (
            "of the reference",
            vec![host(1, "veth0", 2), foreign("bwp0")],
            vec![("reference-shapes", Note)],
        ),
        ("left by the reference", vec![foreign("bwp0")], vec![("reference-leak", Warning)]),
        ("left by Felix", vec![foreign("bwcali0")], vec![("calico-ifb", Note)]),
        ("a name like ours", vec![foreign("pbeAAAA")], vec![]),
    ] {
        assert_eq!(found(devices), want, "{case}");
    }
}

#[test]
fn a_burst_that_the_kernel_shows_as_a_rest_is_not_judged() {
    // 1 kbit/s and a limit of 35 kB last 280 s: ticks wrap.
    let mut state = tbf(TBF_HANDLE, 0).tbf.unwrap();
    state.rate = BytesPerSecond(125);
    assert!(!is_smaller(&state, 1514));
    state.limit = 34_000;
    assert!(is_smaller(&state, 1514));
    // The kernel rounds to a tick.
    state.burst_ticks = ticks(state.rate, 1514) - 1;
    assert!(!is_smaller(&state, 1514));
}

#[test]
fn a_command_for_a_pod_enters_its_namespace() {
    let survey = Survey { devices: vec![ifb(2, IFB, "eth0")] };
    let found = findings(&survey, &Place::Pod("/var/run/netns/cni-1".into()), Path::new("/cache"));
    let text = super::super::finding::text(&found);
    assert!(
        text.contains(&format!("nsenter --net=/var/run/netns/cni-1 ip link del {IFB}")),
        "{text}"
    );
    assert!(text.contains(&format!("{IFB} in /var/run/netns/cni-1")), "{text}");
}
