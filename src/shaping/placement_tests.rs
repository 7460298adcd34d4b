use super::super::bucket::BytesPerSecond;
use super::super::mark::Mark;
use super::super::queue::Queue;
use super::super::site::{FelixIngress, Filter, Owner, Takes};
use super::*;
use crate::policy::{PrefixPlacement, Scope};

fn settings(placement: Placement, host_ingress: HostIngress) -> Settings {
    Settings { placement, host_ingress, ..Settings::default() }
}

fn auto() -> Settings {
    settings(Placement::Auto, HostIngress::Auto)
}

fn filter(kind: &str, takes: Takes) -> Vec<Filter> {
    filter_at(1, kind, takes)
}

fn filter_at(pref: u16, kind: &str, takes: Takes) -> Vec<Filter> {
    let owner = Owner::Foreign { kind: kind.into(), protocol: 3, takes };
    vec![Filter { pref, handle: 0x8000_0800, owner }]
}

fn free() -> Observed {
    Observed::default()
}

fn foreign_root() -> Observed {
    Observed { root: Root::Foreign("tbf 1:".into()), ..free() }
}

fn plain_ingress() -> Observed {
    Observed { hook: HookKind::Ingress, ..free() }
}

fn clsact(ingress: Vec<Filter>, egress: Vec<Filter>) -> Observed {
    Observed { hook: HookKind::Clsact, filters: [ingress, egress], ..free() }
}

fn choose(settings: &Settings, device: &str, observed: &Observed, limited: [bool; 2]) -> Way {
    choose_beside(&free(), settings, device, observed, limited)
}

fn choose_beside(
    pod: &Observed,
    settings: &Settings,
    device: &str,
    observed: &Observed,
    limited: [bool; 2],
) -> Way {
    let (host, pod) = (Some((device, observed)), Some(pod));
    decide(settings, "eth0", &Facts { host, pod, limited, ..NOBODY }).unwrap().way
}

/// A pod with both limits and nothing on the host.
const NOBODY: Facts<'_> =
    Facts { host: None, pod: None, bpf_data_plane: None, felix_trace: None, limited: [true, true] };

#[test]
fn auto_takes_the_host_where_it_is_free_and_the_way_that_nobody_rules() {
    let both = [true, true];
    let tcx = Observed { tcx: true, ..free() };
    let both_taken = Observed { hook: HookKind::Ingress, ..foreign_root() };
    for (device, observed, limited, expected) in [
        ("veth1", free(), both, Way::HostRoot),
        ("cali1", free(), both, Way::HostHooks),
        ("veth1", foreign_root(), both, Way::HostHooks),
        ("veth1", plain_ingress(), both, Way::HostRoot),
        ("cali1", plain_ingress(), both, Way::HostRoot),
        ("veth1", both_taken.clone(), both, Way::Pod),
        ("veth1", both_taken, [false, true], Way::HostHooks),
        ("veth1", clsact(filter("u32", Takes::Nothing), Vec::new()), both, Way::HostRoot),
        ("veth1", clsact(filter("bpf", Takes::Some), Vec::new()), both, Way::Pod),
        ("veth1", clsact(Vec::new(), filter("bpf", Takes::Some)), both, Way::Pod),
        ("veth1", tcx, both, Way::Pod),
        ("veth1", clsact(filter("u32", Takes::All), Vec::new()), both, Way::Pod),
        ("veth1", clsact(filter("u32", Takes::All), Vec::new()), [true, false], Way::HostRoot),
        ("cali1", clsact(Vec::new(), filter("u32", Takes::All)), both, Way::HostRoot),
        ("eni123", free(), both, Way::Pod),
    ] {
        assert_eq!(choose(&auto(), device, &observed, limited), expected, "{device} {observed:?}");
    }
}

#[test]
fn where_felix_may_rule_auto_takes_the_hooks_whatever_the_prefix() {
    let root = Root::Foreign("tbf 1:".into());
    let takes = |ingress| match ingress {
        FelixIngress::Idle => Takes::Nothing,
        FelixIngress::Redirects { .. } => Takes::All,
    };
    let felix = |ingress| {
        let filters = [filter("u32", takes(ingress)), Vec::new()];
        let hook = HookKind::Ingress;
        Observed { root: root.clone(), hook, filters, felix: Some(ingress), ..free() }
    };
    let shaped = felix(FelixIngress::Redirects { ifb: 9, class: 0 });
    let kept = Observed { felix: None, ..shaped.clone() };
    let traced = Some("vxlan.calico");
    for (device, observed, felix_trace, limited, expected) in [
        ("azv1", free(), None, [true, true], Way::HostHooks),
        ("gke1", free(), None, [true, true], Way::HostHooks),
        ("oci1", free(), None, [true, true], Way::HostHooks),
        ("veth1", free(), traced, [true, true], Way::HostHooks),
        ("veth1", plain_ingress(), traced, [true, true], Way::HostRoot),
        ("eni1", free(), traced, [true, true], Way::Pod),
        // What Felix has put there makes way, if a limit from the pod takes its place.
        ("veth1", shaped.clone(), None, [true, true], Way::HostHooks),
        ("cali1", shaped.clone(), None, [false, true], Way::HostHooks),
        ("cali1", shaped.clone(), None, [true, false], Way::Pod),
        ("cali1", felix(FelixIngress::Idle), None, [true, true], Way::HostHooks),
        ("cali1", kept, None, [true, true], Way::Pod),
    ] {
        let host = Some((device, &observed));
        let facts = Facts { host, felix_trace, limited, ..NOBODY };
        let way = decide(&auto(), "eth0", &facts).unwrap().way;
        assert_eq!(way, expected, "{device} {observed:?} {limited:?}");
    }
}

/// Filters that may take some packets before the limit: another place, if there is a better one.
#[test]
fn auto_keeps_away_from_hooks_where_a_filter_may_hide_packets() {
    let (both, to_pod, from_pod) = ([true, true], [true, false], [false, true]);
    let some = || filter("u32", Takes::Some);
    let (ingress, egress) = (clsact(some(), Vec::new()), clsact(Vec::new(), some()));
    let beside_root = Observed { root: Root::Foreign("tbf 1:".into()), ..egress.clone() };
    for (device, observed, limited, expected) in [
        ("veth1", &ingress, both, Way::Pod),
        ("veth1", &ingress, from_pod, Way::Pod),
        ("veth1", &ingress, to_pod, Way::HostRoot),
        ("veth1", &egress, both, Way::HostRoot),
        ("veth1", &beside_root, both, Way::Pod),
        ("veth1", &beside_root, from_pod, Way::HostHooks),
        ("cali1", &egress, both, Way::Pod),
        ("cali1", &egress, from_pod, Way::HostHooks),
    ] {
        let case = format!("{device} {observed:?} {limited:?}");
        assert_eq!(choose(&auto(), device, observed, limited), expected, "{case}");
        // For subnets the hooks are used in both directions.
        let for_subnets = choose(&subnets(), device, observed, limited);
        let is_used = observed == &ingress && limited[1] || observed != &ingress && limited[0];
        assert_eq!(for_subnets == Way::Pod, is_used, "{case}");
        // Who names the place has it.
        let host = settings(Placement::Host, HostIngress::Auto);
        assert_ne!(choose(&host, device, observed, limited), Way::Pod, "{case}");
        let hooks = settings(Placement::Auto, HostIngress::Hooks);
        assert_eq!(choose(&hooks, device, observed, limited), Way::HostHooks, "{case}");
    }
}

#[test]
fn auto_stays_behind_such_a_filter_where_the_pod_is_no_better() {
    let both = [true, true];
    let some = || filter("flower", Takes::Some);
    let host = clsact(some(), Vec::new());
    for (pod, limited, expected) in [
        (free(), both, Way::Pod),
        (clsact(filter("u32", Takes::Nothing), some()), both, Way::Pod),
        (clsact(some(), Vec::new()), both, Way::HostRoot),
        (clsact(some(), Vec::new()), [false, true], Way::Pod),
        (foreign_root(), both, Way::HostRoot),
    ] {
        let case = format!("{pod:?} {limited:?}");
        assert_eq!(choose_beside(&pod, &auto(), "veth1", &host, limited), expected, "{case}");
    }
    // For subnets the pod needs both hooks.
    for (pod, expected) in [
        (foreign_root(), Way::Pod),
        (plain_ingress(), Way::HostHooks),
        (clsact(Vec::new(), some()), Way::HostHooks),
        (clsact(Vec::new(), filter_at(65533, "u32", Takes::Nothing)), Way::HostHooks),
    ] {
        assert_eq!(choose_beside(&pod, &subnets(), "veth1", &host, both), expected, "{pod:?}");
    }
}

fn subnets() -> Settings {
    Settings { scope: Scope::Except(vec!["10.0.0.0/8".parse().unwrap()]), ..auto() }
}

#[test]
fn subnets_need_the_hooks() {
    let both = [true, true];
    let last = |side: usize| {
        let mut observed = clsact(Vec::new(), Vec::new());
        observed.filters[side] = filter_at(65533, "u32", Takes::Nothing);
        observed
    };
    for (device, observed, limited, expected) in [
        ("veth1", free(), both, Way::HostHooks),
        ("cali1", free(), both, Way::HostHooks),
        ("veth1", foreign_root(), both, Way::HostHooks),
        ("veth1", plain_ingress(), both, Way::Pod),
        ("veth1", plain_ingress(), [false, true], Way::HostHooks),
        ("veth1", clsact(Vec::new(), filter("u32", Takes::All)), both, Way::Pod),
        ("veth1", clsact(Vec::new(), filter("u32", Takes::All)), [false, true], Way::HostHooks),
        ("veth1", last(0), both, Way::Pod),
        ("veth1", last(0), [true, false], Way::HostHooks),
        ("veth1", last(1), both, Way::Pod),
        ("veth1", clsact(filter("bpf", Takes::Some), Vec::new()), both, Way::Pod),
    ] {
        let settings = subnets();
        assert_eq!(
            choose(&settings, device, &observed, limited),
            expected,
            "{device} {observed:?}"
        );
        // Who insists on the host gets the hooks, or a conflict that names what is there.
        let host = Settings { placement: Placement::Host, ..settings };
        if !observed.guarded_by_bpf() {
            assert_eq!(choose(&host, device, &observed, limited), Way::HostHooks, "{observed:?}");
        }
    }
}

#[test]
fn a_bpf_data_plane_or_a_pod_without_a_veth_is_shaped_inside() {
    let observed = free();
    let host = Some(("lxc1", &observed));
    let cilium = Facts { host, bpf_data_plane: Some("cilium_host"), ..NOBODY };
    for (facts, words) in [(cilium, "cilium_host"), (NOBODY, "no veth")] {
        let decision = decide(&auto(), "eth0", &facts).unwrap();
        assert_eq!(decision.way, Way::Pod);
        assert!(decision.reason.contains(words), "{}", decision.reason);
    }
}

#[test]
fn the_configuration_overrides_auto() {
    let by = |placement, host_ingress| Settings {
        placement_by_prefix: vec![("eni".into(), PrefixPlacement { placement, host_ingress })],
        ..auto()
    };
    let prefixes = |placement| by(placement, None);
    for (settings, device, expected) in [
        (settings(Placement::Pod, HostIngress::Auto), "veth1", Way::Pod),
        (settings(Placement::Host, HostIngress::Auto), "eni1", Way::HostHooks),
        (settings(Placement::Host, HostIngress::Hooks), "veth1", Way::HostHooks),
        (settings(Placement::Auto, HostIngress::Hooks), "veth1", Way::HostHooks),
        (settings(Placement::Auto, HostIngress::Root), "cali1", Way::HostRoot),
        (prefixes(Placement::Host), "eni1", Way::HostHooks),
        (by(Placement::Host, Some(HostIngress::Root)), "eni1", Way::HostRoot),
        (by(Placement::Host, Some(HostIngress::Hooks)), "eni1", Way::HostHooks),
        (by(Placement::Host, Some(HostIngress::Root)), "cali1", Way::HostHooks),
        (prefixes(Placement::Pod), "eni1", Way::Pod),
        (prefixes(Placement::Pod), "veth1", Way::HostRoot),
        (Settings { placement: Placement::Pod, ..prefixes(Placement::Host) }, "eni1", Way::Pod),
    ] {
        assert_eq!(
            choose(&settings, device, &free(), [true, true]),
            expected,
            "{settings:?} {device}"
        );
    }
}

#[test]
fn a_host_that_is_asked_for_and_cannot_be_is_refused_in_words() {
    let host = settings(Placement::Host, HostIngress::Auto);
    let guarded = clsact(filter("bpf", Takes::Some), Vec::new());
    for (observed, words) in [
        (None, &["eth0", "macvlan", "\"pod\""][..]),
        (Some(("veth1", &guarded)), &["veth1", "BPF", "policy", "\"pod\""]),
    ] {
        let facts = Facts { host: observed, ..NOBODY };
        let text = decide(&host, "eth0", &facts).unwrap_err().to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[test]
fn each_way_puts_each_direction_where_the_table_says() {
    let bucket = |rate| Bucket {
        rate: BytesPerSecond(rate),
        burst: 1,
        limit: 1,
        peak: None,
        queue: Queue::Fifo,
        mark: Mark::Added,
    };
    let (to_pod, from_pod) = (Some(bucket(1)), Some(bucket(2)));
    let buckets = Buckets { ingress: to_pod, egress: from_pod };
    for (way, root, at_ingress_hook, at_egress_hook) in [
        (Way::HostRoot, to_pod, from_pod, None),
        (Way::HostHooks, None, from_pod, to_pod),
        (Way::Pod, from_pod, to_pod, None),
    ] {
        let redirects = [at_ingress_hook, at_egress_hook];
        let expected = Shape { root, redirects, ..Shape::default() };
        assert_eq!(way.shape(&buckets), expected, "{way}");
        // Only a hook tells one subnet from another, so the egress hook takes the root's place.
        let used = |shape: &Shape| shape.redirects.map(|bucket| bucket.is_some());
        assert_eq!(way.hooks(&Scope::All, [true, true]), used(&expected), "{way}");
        let scope = subnets().scope;
        let redirects = [at_ingress_hook, at_egress_hook.or(root)];
        let expected = Shape { redirects, scope: scope.clone(), ..Shape::default() };
        assert_eq!(way.hooks(&scope, [true, true]), used(&expected), "{way}");
        assert_eq!(way.shape(&buckets).within(&scope), expected, "{way}");
    }
}
