//! The plugin: one call by a runtime, from its environment to its result. One verb a file.
#![forbid(unsafe_code)]

mod add;
mod check;
mod del;
mod ends;
pub mod error;
mod find;
mod gc;
pub mod leak;
pub mod reconcile;
mod status;

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use crate::cni::error::Code;
use crate::cni::request::INPUT_BYTES_MAX;
use crate::cni::result::host_interfaces;
use crate::cni::{CniError, Command, Environment, Request, version};
use crate::log::Log;
use crate::policy::{LogSettings, Settings};
use crate::shaping::Attachment;
use crate::text::{escape, shorten};

/// Another program may add or remove something between our look and our step, and memory may be
/// short for a moment; then we look again. So often that a Felix that makes and removes its `ingress`
/// qdisc without a pause is outlasted: three looks were too few for 1 of 100 ADDs.
const TRIES: usize = 10;

/// How long VERSION waits for the end of its input. A runtime writes it when it starts the plugin.
const VERSION_INPUT_WAIT: Duration = Duration::from_millis(500);

/// Most characters of a name that a message begins with.
const NAME: usize = 130;

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
    if environment.command == Command::Version {
        return Ok(version());
    }
    let request = Request::read(environment, &read_input()?)?;
    cni_version.clone_from(&request.cni_version);
    let log = open_log(&request);
    let outcome = match request.environment.command {
        Command::Add => add::add(&request, &log),
        Command::Check => check::check(&request, &log).map(|()| String::new()),
        Command::Del => del::del(&request, &log).map(|()| String::new()),
        Command::Gc => gc::gc(&request, &log).map(|()| String::new()),
        Command::Status => status::status(&request).map(|()| String::new()),
        Command::Version => Ok(String::new()),
    };
    outcome.map_err(|error| {
        log.error(&format!("{} failed: {error}", request.environment.command.name()));
        CniError::new(error.code, escape(&format!("{}: {}", subject(&request), error.message)))
    })
}

/// The result of VERSION. It repeats the version that standard input asks with, and does without: at a
/// terminal, and if nobody writes to the pipe.
fn version() -> String {
    let mut input = Vec::new();
    if !std::io::stdin().is_terminal() {
        let (sender, receiver) = mpsc::channel();
        let read = move || sender.send(read_input().unwrap_or_default());
        // It may wait for ever, and ends with the process. Without it there is no input.
        let _ = std::thread::Builder::new().spawn(read);
        input = receiver.recv_timeout(VERSION_INPUT_WAIT).unwrap_or_default();
    }
    let asked: Option<serde_json::Value> = serde_json::from_slice(&input).ok();
    version::result(asked.as_ref().and_then(|asked| asked.get("cniVersion")?.as_str()))
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
/// STATUS, which runtimes call all the time, creates no file and writes to none.
fn open_log(request: &Request) -> Log {
    let settings = Settings::read(&request.config).map(|settings| settings.log);
    let mut settings = settings.unwrap_or_else(|_| LogSettings::default());
    if request.environment.command == Command::Status {
        settings.file = None;
    }
    Log::open(&settings, subject(request))
}

/// Whom a message is about: the pod where the runtime named it, else the container.
fn subject(request: &Request) -> String {
    let environment = &request.environment;
    if environment.container_id.is_empty() {
        return format!("network {}", shorten(&request.network, NAME));
    }
    let who = match environment.args.pod() {
        Some(pod) => format!("pod {}", shorten(&pod, NAME)),
        None => format!("container {}", shorten(&environment.container_id, NAME)),
    };
    format!("{who} interface {}", environment.ifname)
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

/// The interfaces on the host that prevResult names for this attachment.
fn host_names(request: &Request) -> Vec<String> {
    let result = request.prev_result.as_ref().map(|result| serde_json::from_str(result.get()));
    // A result that this cannot be read from goes through all the same, and names nothing.
    let result: serde_json::Value = result.and_then(Result::ok).unwrap_or_default();
    host_interfaces(&result, &request.environment.ifname)
}
