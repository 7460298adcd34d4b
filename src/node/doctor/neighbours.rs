//! Who else is at the node's interfaces: Calico's Felix, the reference plugin, BPF data planes.

use crate::kernel::bpf;
use crate::kernel::filter::Seen;
use crate::kernel::survey::{Device, Survey};
use crate::policy::{HostIngress, Placement, Settings};
use crate::shaping::site::Owner;

use super::chain::Chain;
use super::finding::{Finding, Severity};

/// Devices that a BPF data plane makes on the node, and whose it is.
const DATA_PLANES: [(&str, &str); 3] =
    [("bpfin.cali", "Calico's eBPF"), ("cilium_host", "Cilium's"), ("cilium_net", "Cilium's")];

/// Findings about them.
pub(super) fn findings(survey: &Survey, chain: &Chain) -> Vec<Finding> {
    let mut findings = felix(survey, chain);
    findings.extend(data_plane(survey, chain.settings.as_ref()));
    findings.extend(guards(survey, chain.settings.as_ref()));
    findings.extend(foreign_roots(survey, chain.settings.as_ref()));
    findings
}

/// Root qdiscs of others matter only where the list insists on the root: `auto` goes round them.
fn foreign_roots(survey: &Survey, settings: Option<&Settings>) -> Vec<Finding> {
    let insists = settings.is_some_and(|settings| {
        is_root(Some(settings)) && settings.placement != Placement::Pod && settings.scope.is_all()
    });
    let ends = survey.devices.iter().filter(|device| insists && is_host_end(device));
    let foreign = ends.filter_map(|device| {
        let root = device.root.as_ref().filter(|root| !root.is_ours())?;
        Some(
            Finding::new(
                "foreign-root",
                Severity::Problem,
                &device.link.name,
                format!("{root} is its root"),
            )
            .why(
                "\"hostIngress\" is \"root\": an ADD with a limit to this pod fails with error 101",
            )
            .remedy("\"hostIngress\": \"auto\" in the entry goes round it"),
        )
    });
    foreign.collect()
}

/// Its version cannot be seen from the node, but its traces can.
fn felix(survey: &Survey, chain: &Chain) -> Vec<Finding> {
    let calis = || survey.devices.iter().filter(|device| device.link.name.starts_with("cali"));
    let (number, is_root) = (calis().count(), is_root(chain.settings.as_ref()));
    if !chain.has_calico && number == 0 {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if is_root {
        findings.push(
            Finding::new(
                "calico-root",
                Severity::Warning,
                "the list",
                "\"hostIngress\" is \"root\"",
            )
            .why("Felix 3.30 and later deletes TBFs at the root of cali* interfaces")
            .remedy("take \"hostIngress\" out of the entry, and make the pods anew"),
        );
    }
    for device in calis() {
        let Some(root) = &device.root else { continue };
        let name = &device.link.name;
        if root.is_ours() {
            let seen = "our TBF is at its root";
            findings.push(
                Finding::new("calico-root-tbf", Severity::Warning, name, seen)
                    .why("Felix 3.30 and later deletes it at the next update of the pod")
                    .remedy("leave \"hostIngress\" at \"auto\", and make the pod anew"),
            );
        } else if root.tbf.is_some() {
            findings.push(
                Finding::new("calico-shapes", Severity::Note, name, format!("{root} is Felix's"))
                    .why("the pod has two limits in a row, and the smaller one shows"),
            );
        }
    }
    if findings.is_empty() {
        let seen = format!("{number} interfaces cali*, none with a TBF at its root");
        findings.push(Finding::ok("calico", "Calico", seen));
    }
    findings
}

fn is_root(settings: Option<&Settings>) -> bool {
    settings.is_some_and(|settings| settings.host_ingress == HostIngress::Root)
}

/// A data plane that runs here at all: its programs may come after an ADD.
fn data_plane(survey: &Survey, settings: Option<&Settings>) -> Option<Finding> {
    let (name, whose) = DATA_PLANES.iter().find(|(name, _)| survey.by_name(name).is_some())?;
    let seen = format!("{whose} data plane runs here");
    let found = |severity| Finding::new("bpf-data-plane", severity, *name, seen);
    Some(match is_on_host(settings) {
        true => found(Severity::Warning)
            .why(
                "\"placement\" is \"host\": packets that it hands over past the pod's interface on the \
                 host are not limited",
            )
            .remedy(AUTO),
        false => found(Severity::Note).why(INSIDE),
    })
}

/// BPF programs at the hosts' ends of pods, by filters or TCX.
fn guards(survey: &Survey, settings: Option<&Settings>) -> Vec<Finding> {
    let guarded = survey.devices.iter().filter(|device| is_host_end(device) && has_bpf(device));
    let (limited, others): (Vec<_>, Vec<_>) = guarded.partition(|device| has_ours(device));
    let found = |id, severity, devices: &[&Device], what: &str| {
        let first = devices.first()?;
        let seen = match devices.len() {
            1 => what.to_owned(),
            more => format!("{what}, and so with {} interfaces more", more - 1),
        };
        Some(Finding::new(id, severity, &first.link.name, seen))
    };
    let came_later = "a BPF program came to an interface that is limited on the host";
    let hides = found("bpf-hides", Severity::Warning, &limited, came_later).map(|finding| {
        finding
            .why(
                "one that lets packets pass and asks nobody else hides our filters, so that there is \
                 no limit from the pod; which kind it is cannot be seen",
            )
            .remedy(
                "measure; where it does, \"placement\": \"pod\" in the entry, and make the pods anew",
            )
    });
    let guards = "a BPF program guards it";
    let guards = match is_on_host(settings) {
        true => found("bpf-guard", Severity::Problem, &others, guards).map(|finding| {
            finding
                .why("\"placement\" is \"host\": an ADD with limits fails with error 101 there")
                .remedy(AUTO)
        }),
        false => {
            found("bpf-guard", Severity::Note, &others, guards).map(|finding| finding.why(INSIDE))
        }
    };
    hides.into_iter().chain(guards).collect()
}

const AUTO: &str = "\"placement\": \"auto\" in the entry";

const INSIDE: &str = "limits are inside the pod there, where CAP_NET_RAW gets past them";

fn is_on_host(settings: Option<&Settings>) -> bool {
    settings.is_some_and(|settings| settings.placement == Placement::Host)
}

fn has_ours(device: &Device) -> bool {
    let is_ours = |seen: &Seen| matches!(seen.filter.owner, Owner::Ours { .. });
    device.filters.iter().flatten().any(is_ours)
}

fn is_host_end(device: &Device) -> bool {
    let kind = device.link.kind.as_deref();
    matches!(kind, Some("veth" | "netkit")) && device.link.peer_namespace.is_some()
}

fn has_bpf(device: &Device) -> bool {
    let is_bpf = |owner: &Owner| matches!(owner, Owner::Foreign { kind, .. } if kind == "bpf");
    device.filters.iter().flatten().any(|seen| is_bpf(&seen.filter.owner))
        || bpf::has_tcx(device.link.index)
}

#[cfg(test)]
#[path = "neighbours_tests.rs"]
mod tests;
