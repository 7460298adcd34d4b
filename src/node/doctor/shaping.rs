//! What of the shaping in one namespace does not fit together: leaks and half states.
//!
//! Pure: a survey in, findings out.

use std::path::{Path, PathBuf};

use crate::kernel::survey::{Device, Survey};
use crate::shaping::bucket::{BytesPerSecond, ticks};
use crate::shaping::identity::{ALIAS_MAGIC, alias_field};
use crate::shaping::site::{Hook, Owner, Side, Takes};
use crate::shaping::tag::Tag;
use crate::shaping::{Shadow, TbfState};

use super::finding::{Finding, Severity};
use super::missing::put_back;

/// Bytes of an Ethernet header, which a qdisc counts beside the MTU.
const ETHERNET_BYTES: u32 = 14;

/// Whose namespace it is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The node's.
    Node,
    /// A pod's, by its file.
    Pod(PathBuf),
}

impl Place {
    /// A command for this place.
    fn command(&self, words: &str) -> String {
        match self {
            Self::Node => words.to_owned(),
            Self::Pod(path) => format!("nsenter --net={} {words}", path.display()),
        }
    }

    fn name(&self, device: &str) -> String {
        match self {
            Self::Node => device.to_owned(),
            Self::Pod(path) => format!("{device} in {}", path.display()),
        }
    }
}

/// All that is wrong, and one finding that counts what is ours.
///
/// `cache`: where the runtime keeps which pod is which, for commands.
pub(super) fn findings(survey: &Survey, place: &Place, cache: &Path) -> Vec<Finding> {
    let mut findings = dead_redirects(survey, place);
    findings.extend(filters_before(survey, place));
    for device in survey.devices.iter().filter(|device| is_ifb(device)) {
        findings.extend(
            match device.link.name.as_str() {
                name if Tag::of_ifb_name(name).is_some() => our_ifb(survey, device, place, cache),
                name if name.starts_with("bwp") => reference_ifb(survey, device, place),
                name if name.starts_with("bwcali") => felix_ifb(survey, device),
                _ => None,
            }
            .map(|finding| finding.of(device.link.index)),
        );
    }
    let small = survey.devices.iter().filter_map(|device| small_burst(survey, device, place));
    findings.extend(small);
    if matches!(place, Place::Node) {
        let tbfs = survey.devices.iter().filter(|device| has_our_tbf(device)).count();
        findings.push(Finding::ok("shaping", "the node", format!("TBFs of ours: {tbfs}")));
    }
    findings
}

fn is_ifb(device: &Device) -> bool {
    device.link.kind.as_deref() == Some("ifb")
}

fn has_our_tbf(device: &Device) -> bool {
    device.root.as_ref().is_some_and(|root| root.is_ours())
}

const ANEW: &str = "the node agent repairs it; without one the command does, with what the pod was made \
                    with; else delete the pod so that it is made anew";

/// Filters that send packets to where nobody takes them: mirred drops what it cannot redirect
/// (tcf_mirred_act in net/sched/act_mirred.c).
fn dead_redirects(survey: &Survey, place: &Place) -> Vec<Finding> {
    let dead = |(device, hook, seen): (&Device, Hook, &crate::kernel::filter::Seen)| {
        let target = survey.by_index(seen.target?);
        let (side, pref) = (hook.word(), seen.filter.pref);
        let (id, what, way_out) = match target {
            None => (
                "redirect-to-nothing",
                "a device that is gone".to_owned(),
                format!("tc filter del dev {} {side} pref {pref}", device.link.name),
            ),
            Some(target) if !target.link.up => (
                "redirect-to-down",
                format!("{}, which is down", target.link.name),
                format!("ip link set {} up", target.link.name),
            ),
            Some(_) => return None,
        };
        let whose = match seen.filter.owner {
            Owner::Ours { .. } | Owner::Other(_) => "our filter",
            Owner::Foreign { .. } => "a filter of another program",
        };
        let seen = format!("{whose} at its {hook} (pref {pref}) redirects to {what}");
        let finding = Finding::new(id, Severity::Problem, place.name(&device.link.name), seen);
        Some(
            finding
                .why("the pod is cut off: each packet of that direction is dropped")
                .remedy(
                    "the command lets packets pass at once, without a limit; the node agent repairs \
                     the limit, too",
                )
                .command(place.command(&way_out)),
        )
    };
    survey.all_filters().filter_map(dead).collect()
}

/// Filters of other programs that packets meet before a limit, and may not come back from. Of BPF
/// programs on the host `bpf-hides` tells.
fn filters_before(survey: &Survey, place: &Place) -> Vec<Finding> {
    let side = match place {
        Place::Node => Side::Host,
        Place::Pod(_) => Side::Pod,
    };
    let found = survey.devices.iter().flat_map(|device| {
        let shadows = device.shadows(side).into_iter();
        shadows.map(move |shadow| (device.link.index, shadow))
    });
    let others = found.filter(|(_, shadow)| side == Side::Pod || shadow.kind != "bpf");
    others.map(|(index, shadow)| filter_before(index, &shadow, place)).collect()
}

fn filter_before(index: u32, shadow: &Shadow, place: &Place) -> Finding {
    let Shadow { device, hook, kind, pref, .. } = shadow;
    let (severity, why) = match shadow.takes {
        Takes::All => (Severity::Problem, "every packet of that protocol passes without a limit"),
        Takes::Some | Takes::Nothing => {
            (Severity::Warning, "packets that it takes pass without a limit")
        }
    };
    let seen = format!(
        "a {kind} filter (pref {pref}, protocol {}) of another program at its {hook} comes before \
         the limit of {}",
        shadow.protocol(),
        shadow.direction.described()
    );
    let show = place.command(&format!("tc filter show dev {device} {}", hook.word()));
    let elsewhere = match place {
        Place::Node => "have the pod made anew with \"placement\": \"auto\" or \"pod\"",
        Place::Pod(_) => "have the pod made anew with \"placement\": \"host\"",
    };
    Finding::new("filter-before-limit", severity, place.name(device), seen)
        .why(why)
        .remedy(format!(
            "{show} shows it; have its program end with `continue` or remove it, or {elsewhere}"
        ))
        .of(index)
}

fn our_ifb(survey: &Survey, ifb: &Device, place: &Place, cache: &Path) -> Option<Finding> {
    let name = &ifb.link.name;
    let is_used = survey.pointing_at(ifb.link.index).next().is_some();
    let delete = place.command(&format!("ip link del {name}"));
    let found = |id, severity, seen: String| Finding::new(id, severity, place.name(name), seen);
    let leaked = |finding: Finding| {
        finding.why("its DEL never came; it does no harm, but is one device more").remedy(
            "remove it; a GC of the runtime (lists of 1.1.0) and the node agent do the same",
        )
    };
    let alias = ifb.link.alias.as_deref().filter(|alias| alias.starts_with(ALIAS_MAGIC));
    let Some(alias) = alias else {
        let seen = match is_used {
            true => "an IFB of ours without its alias",
            false => "an IFB of ours without its alias, and nothing points at it",
        };
        let finding = found("ifb-without-alias", Severity::Warning, seen.into())
            .why("a call was killed, or somebody changed it: nobody sees whose it is");
        return Some(match is_used {
            true => finding.remedy("the node agent gives it one, and so does the pod's next ADD"),
            false => finding.remedy("remove it").command(delete),
        });
    };
    let device = alias_field(alias, "dev").unwrap_or_default();
    let known = alias_field(alias, "pod");
    let pod = known.unwrap_or("a pod that nobody named");
    if survey.by_name(device).is_none() {
        let seen = format!("the interface {device} of {pod} is gone, and its IFB stayed");
        return Some(leaked(found("ifb-leak", Severity::Warning, seen)).command(delete));
    }
    if !is_used && has_successor(survey, ifb, device) {
        let seen = format!("{device} is another pod's by now, and the IFB of {pod} stayed");
        return Some(leaked(found("ifb-leak", Severity::Warning, seen)).command(delete));
    }
    if !is_used {
        let seen = format!("no filter sends packets of {pod} to it");
        let finding = found("ifb-unused", Severity::Problem, seen)
            .why(format!("one direction of {pod} ({device}) is without its limit"))
            .remedy(format!("see what removed the filter at {device}; {ANEW}"));
        return Some(put_back(finding, known, cache));
    }
    if has_our_tbf(ifb) {
        return None;
    }
    let seen = format!("packets of {pod} come to it, and it has no TBF of ours");
    let finding = found("tbf-missing", Severity::Problem, seen)
        .why(format!("one direction of {pod} ({device}) is without its limit"))
        .remedy(format!("see what removed the TBF; {ANEW}"));
    Some(put_back(finding, known, cache))
}

/// Whether an IFB of another attachment names the same interface: Calico gives a pod that is made
/// anew under its old name the same one.
fn has_successor(survey: &Survey, ifb: &Device, device: &str) -> bool {
    let tag = Tag::of_ifb_name(&ifb.link.name);
    survey.devices.iter().any(|other| {
        let alias = other.link.alias.as_deref().unwrap_or_default();
        let tag_of_other = Tag::of_ifb_name(&other.link.name);
        is_ifb(other)
            && tag_of_other.is_some()
            && tag_of_other != tag
            && alias_field(alias, "dev") == Some(device)
            && survey.pointing_at(other.link.index).next().is_some()
    })
}

fn reference_ifb(survey: &Survey, ifb: &Device, place: &Place) -> Option<Finding> {
    let name = &ifb.link.name;
    let user = survey.pointing_at(ifb.link.index).next();
    Some(match user {
        None => Finding::new(
            "reference-leak",
            Severity::Warning,
            name,
            "an IFB of the reference plugin at which nothing points",
        )
        .why("its pod is gone, or no longer limited by it")
        .remedy("remove it")
        .command(place.command(&format!("ip link del {name}"))),
        Some((device, ..)) => Finding::new(
            "reference-shapes",
            Severity::Note,
            name,
            format!("the reference plugin limits the pod behind {}", device.link.name),
        )
        .why("a pod that was made before the change keeps those limits until it is deleted"),
    })
}

fn felix_ifb(survey: &Survey, ifb: &Device) -> Option<Finding> {
    let is_used = survey.pointing_at(ifb.link.index).next().is_some();
    let seen = match is_used {
        true => "Calico's Felix limits a pod by this IFB",
        false => "Felix's IFB, at which nothing points",
    };
    let why = match is_used {
        true => "where ours limits it as well, the smaller limit shows",
        false => {
            "our hooks took the place of Felix's `ingress` qdisc, or came first; it does no harm"
        }
    };
    Some(Finding::new("calico-ifb", Severity::Note, &ifb.link.name, seen).why(why))
}

/// A packet larger than the bucket is dropped, each time.
fn small_burst(survey: &Survey, device: &Device, place: &Place) -> Option<Finding> {
    let tbf = device.root.as_ref()?.tbf.as_ref()?;
    // An IFB has no MTU of its own that counts: that of the interface before it does.
    let shaped = match is_ifb(device) {
        false => Some(device),
        true => survey.pointing_at(device.link.index).map(|(device, ..)| device).next(),
    };
    let mtu = shaped?.link.mtu;
    let frame = mtu.saturating_add(ETHERNET_BYTES);
    if !is_smaller(tbf, frame) {
        return None;
    }
    let name = &device.link.name;
    let seen = format!("the burst of its TBF holds no full frame ({frame} bytes at MTU {mtu})");
    Some(
        Finding::new("burst-below-mtu", Severity::Problem, place.name(name), seen)
            .why("each full packet is dropped: connections open and then hang")
            .remedy(format!(
                "a derived burst follows a grown MTU at once where the node agent runs, else by pod-bandwidth \
                 set NAMESPACE/POD --clear; raise a written one, or leave it out; {} shows it",
                place.command(&format!("tc qdisc show dev {name}"))
            )),
    )
}

fn is_smaller(tbf: &TbfState, frame: u32) -> bool {
    // A bucket that lasts longer than 2^32 ticks (275 s) shows a rest, which says nothing. A limit
    // holds the burst.
    let may_wrap = lasts_275_seconds(tbf.rate, tbf.limit);
    tbf.rate.0 > 0 && !may_wrap && ticks(tbf.rate, frame) > tbf.burst_ticks.saturating_add(1)
}

fn lasts_275_seconds(rate: BytesPerSecond, bytes: u32) -> bool {
    u64::from(bytes) / rate.0.max(1) >= 274
}

#[cfg(test)]
#[path = "shaping_tests.rs"]
mod tests;
