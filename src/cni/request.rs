//! Requests: the environment and standard input of one call (section 2).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::args::Args;
use super::error::{CniError, Code};
use super::version;

/// Largest configuration that is read. All annotations of a pod are at most 256 KiB.
pub const INPUT_BYTES_MAX: u64 = 16 << 20;

/// A CNI verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Shape an attachment, or change its limits.
    Add,
    /// Take everything of an attachment away.
    Del,
    /// Say whether an attachment is as ADD left it.
    Check,
    /// Take away what belongs to attachments that are gone.
    Gc,
    /// Say whether ADD could work.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl Command {
    /// All verbs.
    pub const ALL: [Command; 6] =
        [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// The verb as CNI_COMMAND spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    fn works_on_a_container(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

/// The CNI_* variables of one call. Empty ones count as absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// CNI_COMMAND.
    pub command: Command,
    /// CNI_CONTAINERID; empty where the verb does not need it.
    pub container_id: String,
    /// CNI_NETNS.
    pub netns: Option<PathBuf>,
    /// CNI_IFNAME; empty where the verb does not need it.
    pub ifname: String,
    /// CNI_ARGS.
    pub args: Args,
}

impl Environment {
    /// Reads the variables through `get`.
    ///
    /// # Errors
    /// Code 4, naming every variable that is missing or the one that is wrong.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let named = get("CNI_COMMAND").unwrap_or_default();
        let command = Command::ALL.into_iter().find(|c| c.name() == named).ok_or_else(|| {
            let known = Command::ALL.map(Command::name).join(", ");
            let named = excerpt(&named);
            invalid(format!("CNI_COMMAND is {named}; it takes one of {known}"))
        })?;
        let required: &[&str] = match command {
            Command::Add | Command::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Command::Gc | Command::Status | Command::Version => &[],
        };
        let missing: Vec<_> = required.iter().copied().filter(|n| get(n).is_none()).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(invalid(format!("{named} needs {missing}, which is missing or empty")));
        }
        let environment = Self {
            command,
            container_id: get("CNI_CONTAINERID").unwrap_or_default(),
            netns: get("CNI_NETNS").map(PathBuf::from),
            ifname: get("CNI_IFNAME").unwrap_or_default(),
            args: get("CNI_ARGS").map(|args| Args::parse(&args)).unwrap_or_default(),
        };
        if command.works_on_a_container() {
            check_container_id(&environment.container_id)?;
            check_ifname(&environment.ifname)?;
        }
        Ok(environment)
    }
}

fn invalid(message: String) -> CniError {
    CniError::new(Code::InvalidEnvironment, message)
}

/// Section 2: an alphanumeric character, then alphanumerics, `_`, `.` and `-`.
fn check_container_id(id: &str) -> Result<(), CniError> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.chars().all(is_word) {
        return Ok(());
    }
    let id = excerpt(id);
    Err(invalid(format!(
        "CNI_CONTAINERID is {id}; it takes letters, digits, `_`, `.` and `-`, and begins with a \
         letter or digit"
    )))
}

/// What the kernel takes for a name (dev_valid_name in net/core/dev.c).
fn check_ifname(name: &str) -> Result<(), CniError> {
    let is_bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.len() <= 15 && name != "." && name != ".." && !name.contains(is_bad) {
        return Ok(());
    }
    let name = excerpt(name);
    Err(invalid(format!(
        "CNI_IFNAME is {name}; it takes an interface name of 1 to 15 bytes without `/`, `:` and \
         blanks"
    )))
}

/// What an error repeats of an input, in quotes.
pub(super) fn excerpt(text: &str) -> String {
    crate::text::quote(text, 60)
}

/// What serde_json says; it repeats the whole of a string where it wants something else.
fn reason(error: &serde_json::Error) -> String {
    const MOST: usize = 200;
    let text = error.to_string();
    let Some((end, _)) = text.char_indices().nth(MOST) else { return text };
    format!("{}… at line {} column {}", &text[..end], error.line(), error.column())
}

/// One call: what to do, and with which network configuration.
#[derive(Debug)]
pub struct Request {
    /// The variables.
    pub environment: Environment,
    /// `cniVersion` of the configuration.
    pub cni_version: String,
    /// `name` of the network.
    pub network: String,
    /// The configuration without `prevResult`.
    pub config: Map<String, Value>,
    /// `prevResult` as the text that it came as, so that nothing in it is lost or changed.
    pub prev_result: Option<Box<RawValue>>,
}

impl Request {
    /// Reads the configuration of every verb but VERSION.
    ///
    /// # Errors
    /// Code 6 for what is no JSON object, 7 for a missing name, 1 for a version that does not fit.
    pub fn read(environment: Environment, input: &[u8]) -> Result<Self, CniError> {
        let decoding = |what: String| CniError::new(Code::Decoding, what);
        let fields: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(input).map_err(|error| {
                let reason = reason(&error);
                decoding(format!("standard input is no network configuration: {reason}"))
            })?;
        let mut config = Map::new();
        let mut prev_result = None;
        for (key, value) in fields {
            if key.eq_ignore_ascii_case("prevResult") {
                // As every key: the exact spelling first, and null is none.
                if value.get() != "null" && (key == "prevResult" || prev_result.is_none()) {
                    prev_result = Some(value);
                }
                continue;
            }
            let value = serde_json::from_str(value.get()).map_err(|error| {
                decoding(format!("the value of {}: {}", excerpt(&key), reason(&error)))
            })?;
            config.insert(key, value);
        }
        let cni_version = text(&config, "cniVersion")?.unwrap_or_else(|| version::UNNAMED.into());
        version::check(environment.command, &cni_version)?;
        let network = text(&config, "name")?.filter(|name| !name.is_empty()).ok_or_else(|| {
            CniError::new(Code::InvalidConfig, "the network configuration has no `name`")
        })?;
        Ok(Self { environment, cni_version, network, config, prev_result })
    }

    /// The attachments that are valid according to GC (section 2, "GC"), as (container ID,
    /// interface name); `None` where the caller gave no list, as `cnitool gc` does after it has
    /// sent DEL for what it knows. Go's null is an empty list.
    ///
    /// # Errors
    /// Code 7 where it is not a list of attachments: everything would then count as stale.
    pub fn valid_attachments(&self) -> Result<Option<Vec<(String, String)>>, CniError> {
        const KEY: &str = "cni.dev/valid-attachments";
        // libcni also sends the older name that the specification had by mistake (cni#1101).
        let list = self.config.get(KEY).or_else(|| self.config.get("cni.dev/attachments"));
        let attachment = |entry: &Value| {
            let field = |name| entry.get(name)?.as_str().map(str::to_string);
            Some((field("containerID")?, field("ifname")?))
        };
        let attachments: Option<Vec<_>> = match list {
            None => return Ok(None),
            Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(attachment).collect(),
            Some(_) => None,
        };
        attachments.map(Some).ok_or_else(|| {
            let message = format!("`{KEY}` must be a list of {{containerID, ifname}}");
            CniError::new(Code::InvalidConfig, message)
        })
    }
}

fn text(config: &Map<String, Value>, key: &str) -> Result<Option<String>, CniError> {
    let found = config.get(key).or_else(|| {
        config.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    });
    match found {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(CniError::new(Code::Decoding, format!("`{key}` must be a string"))),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
