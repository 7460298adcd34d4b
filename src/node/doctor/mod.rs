//! `doctor`: what on this node is not as it should be, why that matters, and what helps.
//!
//! It reads files and the kernel and changes neither. What the kernel can do is tried in a private
//! network namespace, last of all, because there is no way back from it.

mod agent;
mod chain;
mod features;
mod finding;
mod missing;
mod neighbours;
mod program;
mod shaping;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use nix::errno::Errno;

use super::cache;
use super::call::NET_FOLDER;
use crate::kernel::survey::Survey;
use crate::kernel::{KernelError, NetNs, Socket, privilege};
use finding::{Finding, Severity};
use shaping::Place;

/// Time for the namespaces of pods; the rest takes much less, and all of it shall take two seconds.
const PODS_TIME: Duration = Duration::from_secs(1);

/// Longer than a call of the plugin takes.
const A_CALL: Duration = Duration::from_millis(250);

/// Say what on this node is not as it should be
///
/// Looks at the list of the runtime, the program, the kernel and what is in it, Calico and BPF data planes, and what was
/// left behind. Each finding says what was seen, why it matters and what helps. Nothing is changed.
///
/// Exit status: 0 nothing wrong, 1 a problem, 2 wrong arguments, 3 warnings only.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The runtime's folder of network lists
    #[arg(long, value_name = "FOLDER", default_value = NET_FOLDER)]
    net_dir: PathBuf,
    /// The runtime's folder of CNI programs
    #[arg(long, value_name = "FOLDER", default_value = chain::BIN_FOLDER)]
    bin_dir: PathBuf,
    /// The runtime's folder of what it attached
    #[arg(long, value_name = "FOLDER", default_value = cache::FOLDER)]
    cache: PathBuf,
    /// The runtime's folder of network namespaces
    #[arg(long, value_name = "FOLDER", default_value = "/var/run/netns")]
    netns_dir: PathBuf,
    /// Where the node agent answers
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9464")]
    agent: SocketAddr,
    /// Text for people, or one JSON document with stable fields
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The command `doctor`.
pub(super) fn run(options: &Options) -> ExitCode {
    let findings = examine(options);
    match options.output {
        Output::Text => print!("{}", finding::text(&findings)),
        Output::Json => println!("{}", finding::json_text(&findings)),
    }
    match finding::worst(&findings) {
        Severity::Ok | Severity::Note => ExitCode::SUCCESS,
        Severity::Warning => ExitCode::from(3),
        Severity::Problem => ExitCode::FAILURE,
    }
}

fn examine(options: &Options) -> Vec<Finding> {
    let mut findings = vec![privileges()];
    let chain = chain::look(chain::Folders { net: &options.net_dir, bin: &options.bin_dir });
    findings.extend(chain.findings.iter().cloned());
    let mut looks = Vec::new();
    match Survey::here() {
        Ok(survey) => {
            findings.extend(neighbours::findings(&survey, &chain));
            looks.push(Look::at(Place::Node, &survey, &options.cache));
        }
        Err(error) => findings.push(unseen("the node's network", &error)),
    }
    findings.extend(pods(options, &mut looks));
    let (agent, has_agent) = agent::look(options.agent);
    findings.push(agent);
    looks.push(Look::at_cache(&options.cache, &options.net_dir, has_agent));
    findings.extend(confirmed(looks));
    findings.extend(features::findings());
    findings
}

/// What was found in one place, and how to look there again.
struct Look<'a> {
    findings: Vec<Finding>,
    again: Box<dyn Fn() -> Vec<Finding> + 'a>,
}

impl<'a> Look<'a> {
    fn at(place: Place, survey: &Survey, cache: &'a Path) -> Self {
        let findings = shaping::findings(survey, &place, cache);
        let again = move || {
            let second = place.survey().map(|survey| shaping::findings(&survey, &place, cache));
            // A pod may have gone meanwhile, and what was wrong with it.
            second.unwrap_or_default()
        };
        Self { findings, again: Box::new(again) }
    }

    fn at_cache(cache: &'a Path, net: &'a Path, has_agent: bool) -> Self {
        let look = move || missing::findings(cache, net, has_agent);
        Self { findings: look(), again: Box::new(look) }
    }

    fn is_wrong(&self) -> bool {
        finding::worst(&self.findings) >= Severity::Warning
    }
}

/// An ADD or DEL that is under way looks like damage, so only what is still there a moment later is told.
fn confirmed(mut looks: Vec<Look<'_>>) -> Vec<Finding> {
    if looks.iter().any(Look::is_wrong) {
        std::thread::sleep(A_CALL);
        for look in looks.iter_mut().filter(|look| look.is_wrong()) {
            let mut second = (look.again)();
            second.retain(|one| one.severity < Severity::Warning || look.findings.contains(one));
            look.findings = second;
        }
    }
    looks.into_iter().flat_map(|look| look.findings).collect()
}

fn privileges() -> Finding {
    let subject = "this process";
    match privilege::has_net_admin() {
        Some(true) => Finding::ok("privileges", subject, "has CAP_NET_ADMIN"),
        Some(false) | None => {
            let seen = "has no CAP_NET_ADMIN, so it cannot look at TCX programs or into pods";
            Finding::new("privileges", Severity::Warning, subject, seen)
                .why("what is not looked at is not found")
                .remedy("run it as root in the node's network namespace")
        }
    }
}

/// The pods' own namespaces: the placement `pod` shapes there.
fn pods<'a>(options: &'a Options, looks: &mut Vec<Look<'a>>) -> Option<Finding> {
    let folder = &options.netns_dir;
    let entries = std::fs::read_dir(folder).ok()?;
    let deadline = Instant::now() + PODS_TIME;
    let (mut looked_at, mut left_out, mut none) = (0, 0, 0);
    for entry in entries.flatten() {
        if Instant::now() > deadline {
            left_out += 1;
            continue;
        }
        let place = Place::Pod(entry.path());
        match place.survey() {
            Ok(survey) => {
                looks.push(Look::at(place, &survey, &options.cache));
                looked_at += 1;
            }
            Err(error) if error.is_missing_privilege() => left_out += 1,
            // A file over which the runtime's mount was made, seen from where that mount is not.
            Err(error) if error.errno() == Some(Errno::EINVAL) => none += 1,
            // Gone meanwhile.
            Err(_) => {}
        }
    }
    let subject = folder.display().to_string();
    let seen = format!("namespaces looked into: {looked_at}");
    if left_out + none == 0 {
        return Some(Finding::ok("pods", subject, seen));
    }
    let remedy = match none {
        0 => "run it as root, and again where it ran out of its time",
        _ => {
            "run it in the node's mount namespace; in a container mount that folder HostToContainer; \
             a file there that is left from a crash can be removed"
        }
    };
    let seen =
        format!("{seen}; not looked into: {left_out}; files that are none from here: {none}");
    let finding = Finding::new("pods", Severity::Warning, subject, seen);
    Some(finding.why("limits inside these pods were not looked at").remedy(remedy))
}

fn unseen(what: &str, error: &KernelError) -> Finding {
    Finding::new("unseen", Severity::Problem, what, error.to_string())
        .why("nothing could be looked at")
        .remedy("run it as root in the node's network namespace")
}

impl Survey {
    /// Of the namespace that this process is in.
    fn here() -> Result<Self, KernelError> {
        Self::take(&mut Socket::open()?)
    }
}

impl Place {
    fn survey(&self) -> Result<Survey, KernelError> {
        match self {
            Self::Node => Survey::here(),
            Self::Pod(path) => Survey::take(&mut Socket::open_in(&NetNs::open(path)?)?),
        }
    }
}
