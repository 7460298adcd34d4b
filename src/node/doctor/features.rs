//! What the kernel can do, as findings.

use crate::kernel::probe::{self, Feature};
use crate::shaping::mark::SHOWN_SINCE;

use super::finding::{Finding, Severity};

/// Tries all features. Afterwards the process is in a namespace of its own for good.
pub(super) fn findings() -> Vec<Finding> {
    let tried = probe::enter_private_network().and_then(|()| probe::features());
    let features = match tried {
        Ok(features) => features,
        Err(error) => {
            let finding =
                Finding::new("kernel-unseen", Severity::Warning, "the kernel", error.to_string());
            return vec![
                finding
                    .why("what this kernel can do was not tried")
                    .remedy("run it as root, with CAP_SYS_ADMIN"),
            ];
        }
    };
    let (mut there, mut findings) = (Vec::new(), Vec::new());
    for (feature, result) in features {
        match result {
            Ok(()) => there.push(word(feature)),
            Err(error) => {
                // What helps, an error says for the whole plugin; here it is known for one feature.
                let said = error.to_string();
                let said = said.split("; ").next().unwrap_or_default();
                findings.push(missing(feature, said.to_owned()));
            }
        }
    }
    if !there.is_empty() {
        findings.push(Finding::ok("kernel", "the kernel", format!("has {}", there.join(", "))));
    }
    findings
}

fn missing(feature: Feature, said: String) -> Finding {
    let (severity, why) = match feature {
        Feature::Tbf => (Severity::Problem, "no limit at all is possible"),
        Feature::Ifb | Feature::Clsact | Feature::U32 | Feature::Mirred => (
            Severity::Problem,
            "a limit from the pod, and one by the hooks, needs it: its ADD fails",
        ),
        Feature::Veth => (Severity::Note, "pods with other interfaces are limited inside the pod"),
        Feature::Alias => (Severity::Warning, "nobody sees which pod an IFB belongs to"),
        Feature::Mark => (
            Severity::Warning,
            "limits that the node agent has changed look as ADD's, so CHECK fails for their pods, and set \
             is refused: the agent would take its limit away",
        ),
        Feature::FqCodel => {
            (Severity::Note, "the flows of a pod share one FIFO, so they share its delay")
        }
    };
    let finding = Finding::new("kernel-feature", severity, word(feature), said).why(why);
    match module(feature) {
        Some(module) => finding
            .remedy(
                "load the module; where there is none, install the distribution's package with \
                 more of them (kernel-modules-extra, linux-modules-extra)",
            )
            .command(format!("modprobe {module}")),
        None if feature == Feature::Mark => {
            finding.remedy(format!("use a newer kernel: {SHOWN_SINCE}, or later"))
        }
        None => finding.remedy("use a newer kernel"),
    }
}

fn word(feature: Feature) -> &'static str {
    match feature {
        Feature::Veth => "veth",
        Feature::Ifb => "ifb",
        Feature::Alias => "ifalias",
        Feature::Tbf => "TBF",
        Feature::Mark => "its mark (mpu)",
        Feature::FqCodel => "fq_codel",
        Feature::Clsact => "clsact",
        Feature::U32 => "u32",
        Feature::Mirred => "mirred",
    }
}

fn module(feature: Feature) -> Option<&'static str> {
    Some(match feature {
        Feature::Veth => "veth",
        Feature::Ifb => "ifb",
        Feature::Alias | Feature::Mark => return None,
        Feature::Tbf => "sch_tbf",
        Feature::FqCodel => "sch_fq_codel",
        Feature::Clsact => "sch_ingress",
        Feature::U32 => "cls_u32",
        Feature::Mirred => "act_mirred",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_names_its_module_and_is_as_bad_as_it_is() {
        for (feature, severity, module) in [
            (Feature::Tbf, Severity::Problem, "sch_tbf"),
            (Feature::Clsact, Severity::Problem, "sch_ingress"),
            (Feature::FqCodel, Severity::Note, "sch_fq_codel"),
        ] {
            let finding = missing(feature, "no".into());
            assert_eq!(finding.severity, severity, "{feature:?}");
            let text = super::super::finding::text(&[finding]);
            assert!(text.contains(&format!("modprobe {module}\n")), "{text}");
        }
    }

    #[test]
    fn a_kernel_without_marks_is_told_what_is_lost_and_which_kernels_have_them() {
        let finding = missing(Feature::Mark, "no".into());
        assert_eq!(finding.severity, Severity::Warning);
        let text = super::super::finding::text(&[finding]);
        for words in ["CHECK fails", "set is refused", "5.10.94"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
