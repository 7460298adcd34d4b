//! A finding: what was seen, how bad it is, why, and what helps. And how findings are printed.

use serde_json::{Value, json};

use crate::text::escape;

/// How bad a finding is; later ones are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// It was looked at and is as it should be.
    Ok,
    /// Worth knowing; nothing is wrong.
    Note,
    /// A limit may be missing or wrong under some condition, or something is left behind.
    Warning,
    /// Pods are without their limit, without network, or do not start.
    Problem,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// All kinds, in the order of the table of docs/troubleshooting.md.
const IDS: [&str; 41] = [
    "privileges",
    "cni",
    "cni-list",
    "cni-no-entry",
    "cni-inactive",
    "cni-order",
    "cni-twice",
    "cni-reference",
    "cni-capabilities",
    "cni-settings",
    "cni-no-gc",
    "cni-program",
    "unseen",
    "calico",
    "calico-root",
    "calico-root-tbf",
    "calico-shapes",
    "calico-ifb",
    "foreign-root",
    "bpf-data-plane",
    "bpf-guard",
    "bpf-hides",
    "shaping",
    "redirect-to-nothing",
    "redirect-to-down",
    "filter-before-limit",
    "ifb-unused",
    "tbf-missing",
    "ifb-leak",
    "ifb-without-alias",
    "reference-shapes",
    "reference-leak",
    "burst-below-mtu",
    "pods",
    "limits",
    "limit-missing",
    "cache-unread",
    "agent",
    "kernel",
    "kernel-feature",
    "kernel-unseen",
];

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Its kind, the same in all versions.
    pub(super) id: &'static str,
    pub(super) severity: Severity,
    /// The file, device or feature that it is about.
    pub(super) subject: String,
    pub(super) seen: String,
    why: String,
    remedy: String,
    /// The remedy as words for a shell, where it is one command that cannot do harm.
    command: Option<String>,
    /// Index of the interface: another one of the same name is another finding. Not told.
    index: u32,
}

impl Finding {
    /// Something that is as it should be.
    pub(super) fn ok(
        id: &'static str,
        subject: impl Into<String>,
        seen: impl Into<String>,
    ) -> Self {
        Self::new(id, Severity::Ok, subject, seen)
    }

    /// A finding of this severity; the other texts follow.
    pub(super) fn new(
        id: &'static str,
        severity: Severity,
        subject: impl Into<String>,
        seen: impl Into<String>,
    ) -> Self {
        debug_assert!(IDS.contains(&id), "{id} is no kind of finding");
        let (subject, seen) = (subject.into(), seen.into());
        Self {
            id,
            severity,
            subject,
            seen,
            why: String::new(),
            remedy: String::new(),
            command: None,
            index: 0,
        }
    }

    /// Why it matters.
    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// What to do.
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// A command that helps. None where a name in it has characters that a shell may take for more than
    /// a name: people paste it, and names come from others.
    pub(super) fn command(mut self, command: impl Into<String>) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || " ._-/=:@+".contains(c);
        self.command =
            Some(command.into()).filter(|command: &String| command.chars().all(is_plain));
        self
    }

    /// The interface that it is about.
    pub(super) fn of(mut self, index: u32) -> Self {
        self.index = index;
        self
    }

    fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "severity": self.severity.word(),
            "subject": self.subject,
            "seen": self.seen,
            "why": self.why,
            "remedy": self.remedy,
            "command": self.command,
        })
    }
}

/// The worst severity of all.
pub(super) fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

/// One JSON document. Fields may be added; none changes its meaning while `version` is 1.
pub(super) fn json_text(findings: &[Finding]) -> String {
    let list: Vec<_> = findings.iter().map(Finding::to_json).collect();
    format!("{:#}", json!({"version": 1, "worst": worst(findings).word(), "findings": list}))
}

/// For people: the worst first, and a line that counts.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut sorted: Vec<_> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut text = String::new();
    for Finding { id, severity, subject, seen, why, remedy, command, .. } in sorted {
        // Names of files and devices come from others: no control characters on a terminal.
        let line = format!("{:<8} {subject}: {seen}", severity.word());
        text += &format!("{}  [{id}]\n", escape(&line));
        let command = command.as_deref().unwrap_or_default();
        for (name, words) in [("why", why.as_str()), ("remedy", remedy), ("run", command)] {
            if !words.is_empty() {
                text += &format!("         {name:<7} {}\n", escape(words));
            }
        }
    }
    text + &format!("{}\n", counted(findings))
}

fn counted(findings: &[Finding]) -> String {
    let count = |severity, one: &str| {
        let number = findings.iter().filter(|finding| finding.severity == severity).count();
        format!("{number} {one}{}", if number == 1 { "" } else { "s" })
    };
    [(Severity::Problem, "problem"), (Severity::Warning, "warning"), (Severity::Note, "note")]
        .map(|(severity, one)| count(severity, one))
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_names_of_others_move_no_cursor() {
        let note = Finding::new("pods", Severity::Note, "x", "one").why("w");
        let problem = Finding::new("cni-list", Severity::Problem, "y\u{1b}[2J", "two")
            .remedy("r")
            .command("c d");
        let findings = [note, problem, Finding::ok("cni", "z", "three")];
        let want = "problem  y\\u{1b}[2J: two  [cni-list]\n         remedy  r\n         run     c d\n\
                    note     x: one  [pods]\n         why     w\n\
                    ok       z: three  [cni]\n1 problem, 0 warnings, 1 note\n";
        assert_eq!(text(&findings), want);
        assert_eq!(worst(&findings), Severity::Problem);
        assert_eq!(worst(&[]), Severity::Ok);
    }

    #[test]
    fn a_name_that_a_shell_takes_for_more_gets_no_command() {
        let command = |text| Finding::ok("cni", "x", "y").command(text).command;
        assert_eq!(command("ip link del eth0").as_deref(), Some("ip link del eth0"));
        for hostile in
            ["ip link del a;reboot", "ip link del $(x)", "ip link del `x`", "ip link del a\nb"]
        {
            assert_eq!(command(hostile), None, "{hostile}");
        }
    }

    #[test]
    fn the_page_has_every_kind_in_its_table() {
        let page = include_str!("../../../docs/troubleshooting.md");
        let (_, table) = page.split_once("## What doctor finds").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(rows.collect::<Vec<_>>(), IDS);
    }
}
