//! The plugin: one call by a runtime, from its environment to its result. One verb a file.
#![forbid(unsafe_code)]

mod add;
mod check;
mod del;
mod ends;
mod gc;
pub mod leak;
pub mod reconcile;
mod status;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::cni::error::Code;
use crate::cni::request::INPUT_BYTES_MAX;
use crate::cni::{CniError, Command, Environment, Request, version};
use crate::kernel::KernelError;
use crate::log::Log;
use crate::policy::{LogSettings, PolicyError, Settings};
use crate::shaping::Attachment;

/// Another program may add or remove something between our look and our step, and memory may be
/// short for a moment; then we look again. So often that a Felix that makes and removes its `ingress`
/// qdisc without a pause is outlasted: three looks were too few for 1 of 100 ADDs.
const TRIES: usize = 10;

/// Runs the plugin on this process's environment and standard streams.
pub fn main() -> ExitCode {
    let mut cni_version = version::NEWEST.to_string();
    let outcome = call(&mut cni_version);
    let (text, status) = match &outcome {
        Ok(result) => (result.clone(), ExitCode::SUCCESS),
        Err(error) => (error.to_json(&cni_version), ExitCode::FAILURE),
    };
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Ok(()) => status,
        Err(error) => {
            eprintln!("pod-bandwidth: cannot write the result: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One call; what it prints on standard output. Sets `cni_version` as soon as it is known.
fn call(cni_version: &mut String) -> Result<String, CniError> {
    let environment = Environment::read(|name| std::env::var(name).ok())?;
    let input = read_input()?;
    if environment.command == Command::Version {
        let asked: Option<serde_json::Value> = serde_json::from_slice(&input).ok();
        return Ok(version::result(asked.as_ref().and_then(|v| v.get("cniVersion")?.as_str())));
    }
    let request = Request::read(environment, &input)?;
    cni_version.clone_from(&request.cni_version);
    let log = open_log(&request);
    let outcome = match request.environment.command {
        Command::Add => add::add(&request, &log),
        Command::Check => check::check(&request).map(|()| String::new()),
        Command::Del => del::del(&request, &log).map(|()| String::new()),
        Command::Gc => gc::gc(&request, &log).map(|()| String::new()),
        Command::Status => status::status(&request).map(|()| String::new()),
        Command::Version => Ok(String::new()),
    };
    outcome.map_err(|error| {
        log.error(&format!("{} failed: {error}", request.environment.command.name()));
        CniError { message: format!("{}: {}", subject(&request), error.message), ..error }
    })
}

fn read_input() -> Result<Vec<u8>, CniError> {
    let mut input = Vec::new();
    std::io::stdin()
        .take(INPUT_BYTES_MAX + 1)
        .read_to_end(&mut input)
        .map_err(|error| CniError::new(Code::Io, format!("cannot read standard input: {error}")))?;
    if input.len() as u64 > INPUT_BYTES_MAX {
        let message = format!("standard input is longer than {INPUT_BYTES_MAX} bytes");
        return Err(CniError::new(Code::Decoding, message));
    }
    Ok(input)
}

/// A wrong `log` key is told by the verbs that read the settings; until then standard error does.
fn open_log(request: &Request) -> Log {
    let settings = Settings::read(&request.config).map(|settings| settings.log);
    Log::open(&settings.unwrap_or_else(|_| LogSettings::default()), subject(request))
}

/// Whom a message is about: the pod where the runtime named it, else the container.
fn subject(request: &Request) -> String {
    let environment = &request.environment;
    if environment.container_id.is_empty() {
        return format!("network {}", shorten(&request.network));
    }
    let who = match environment.args.pod() {
        Some(pod) => format!("pod {}", shorten(&pod)),
        None => format!("container {}", shorten(&environment.container_id)),
    };
    format!("{who} interface {}", environment.ifname)
}

fn shorten(text: &str) -> String {
    crate::log::escape(text).chars().take(130).collect()
}

/// CNI_NETNS; the request's own check says that it is there where it must be.
fn netns(request: &Request) -> &Path {
    request.environment.netns.as_deref().unwrap_or(Path::new(""))
}

fn attachment(request: &Request) -> Attachment {
    Attachment {
        network: request.network.clone(),
        container_id: request.environment.container_id.clone(),
        ifname: request.environment.ifname.clone(),
        pod: request.environment.args.pod(),
    }
}

impl From<PolicyError> for CniError {
    fn from(error: PolicyError) -> Self {
        Self::new(Code::InvalidConfig, error.to_string())
    }
}

impl From<KernelError> for CniError {
    fn from(error: KernelError) -> Self {
        Self::new(code_of(&error), error.to_string())
    }
}

fn code_of(error: &KernelError) -> Code {
    match error {
        KernelError::NoDevice { .. } => Code::NoInterface,
        error if error.is_missing_privilege() => Code::MissingPrivilege,
        error if error.is_missing_feature() => Code::MissingFeature,
        KernelError::Namespace { .. } => Code::InvalidEnvironment,
        _ => Code::Kernel,
    }
}
