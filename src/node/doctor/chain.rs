//! The runtime's folders: which list it takes, our entry in it, and the program.

use std::path::Path;

use serde_json::{Map, Value};

use crate::node::call::NET_FOLDER;
use crate::node::install::active;
use crate::node::install::entry::{OURS, REFERENCE};
use crate::policy::{Limits, Settings};

use super::finding::{Finding, Severity};
use super::program;

/// The runtime's folder of programs where nobody says another.
pub(super) const BIN_FOLDER: &str = "/opt/cni/bin";

/// The capability by which a runtime hands over a pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Where the runtime looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folders<'a> {
    /// Lists.
    pub(super) net: &'a Path,
    /// Programs.
    pub(super) bin: &'a Path,
}

impl Folders<'_> {
    /// The command that installs there.
    fn install(self) -> String {
        let mut command = "pod-bandwidth install".to_owned();
        for (option, folder, usual) in
            [("--net-dir", self.net, NET_FOLDER), ("--bin-dir", self.bin, BIN_FOLDER)]
        {
            if folder != Path::new(usual) {
                command += &format!(" {option} {}", folder.display());
            }
        }
        command
    }
}

/// What the folders say.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) findings: Vec<Finding>,
    /// The settings of our entry, where it is in force.
    pub(super) settings: Option<Settings>,
    /// Calico is in the list.
    pub(super) has_calico: bool,
}

/// Looks at both folders.
pub(super) fn look(folders: Folders<'_>) -> Chain {
    let mut chain = Chain::default();
    let version = chain.look_at_list(folders);
    chain.findings.push(program(folders, version.as_deref()));
    chain
}

impl Chain {
    /// The list's cniVersion.
    fn look_at_list(&mut self, folders: Folders<'_>) -> Option<String> {
        let net_dir = folders.net;
        let unread = |subject: &Path, seen: String| {
            Finding::new("cni-list", Severity::Problem, subject.display().to_string(), seen)
                .why("the runtime has no list that it could use, so no pod gets a network")
                .remedy(
                    "repair the file or install the network's own plugin; --net-dir names another \
                     folder",
                )
        };
        let path = match active::active(net_dir) {
            Ok(path) => path,
            Err(error) => {
                self.findings.push(unread(net_dir, error.to_string()));
                return None;
            }
        };
        let list = std::fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
        let list: Map<String, Value> = match list {
            Ok(list) => list,
            Err(error) => {
                self.findings.push(unread(&path, format!("cannot be read: {error}")));
                return None;
            }
        };
        if let Err(error) = active::must_be_list(&path) {
            self.findings.push(unread(&path, error.to_string()));
            return None;
        }
        let plugins = list.get("plugins").and_then(Value::as_array).cloned().unwrap_or_default();
        if plugins.is_empty() {
            self.findings.push(unread(&path, "it names no plugins".into()));
            return None;
        }
        self.has_calico = plugins.iter().any(|plugin| kind(plugin) == Some("calico"));
        self.look_at_plugins(&path, folders, &plugins);
        let version = list.get("cniVersion").and_then(Value::as_str).map(str::to_owned);
        self.findings.extend(no_gc(&path, version.as_deref()));
        version
    }

    fn look_at_plugins(&mut self, path: &Path, folders: Folders<'_>, plugins: &[Value]) {
        let subject = path.display().to_string();
        let found = |id, severity, seen: String| Finding::new(id, severity, subject.clone(), seen);
        let places: Vec<_> =
            (0..plugins.len()).filter(|at| kind(&plugins[*at]) == Some(OURS)).collect();
        let Some(place) = places.first().copied() else {
            self.findings.push(no_entry(path, folders));
            return;
        };
        let before = self.findings.len();
        if place == 0 {
            let seen = "the entry pod-bandwidth is the first".into();
            self.findings.push(
                found("cni-order", Severity::Problem, seen)
                    .why("a pod has no interface yet when it is called, so its ADD fails")
                    .remedy("put it behind the plugin that makes the interface, best at the end"),
            );
        }
        if places.len() > 1 {
            let seen = format!("has {} entries pod-bandwidth", places.len());
            self.findings.push(
                found("cni-twice", Severity::Warning, seen)
                    .why("the last one decides, and each ADD works twice")
                    .remedy("leave one of them"),
            );
        }
        if plugins.iter().any(|plugin| kind(plugin) == Some(REFERENCE)) {
            let seen = "has the entry bandwidth beside pod-bandwidth".into();
            self.findings.push(
                found("cni-reference", Severity::Warning, seen)
                    .why(
                        "a pod has two limits in a row, and bandwidth fails where an ingress or \
                         clsact qdisc is there before it",
                    )
                    .remedy("take the entry bandwidth out, and write its settings into ours"),
            );
        }
        for entry in places.iter().map(|at| &plugins[*at]) {
            self.findings.extend(capabilities(&subject, entry));
            self.look_at_settings(&subject, entry);
        }
        if self.findings.len() == before {
            let seen = "is the list that the runtime takes, with the entry pod-bandwidth".into();
            self.findings.push(found("cni", Severity::Ok, seen));
        }
    }

    fn look_at_settings(&mut self, subject: &str, entry: &Value) {
        let Some(entry) = entry.as_object() else { return };
        let read = Limits::read(entry).map(drop).and_then(|()| Settings::read(entry));
        match read {
            Ok(settings) => self.settings = Some(settings),
            Err(error) => self.findings.push(
                Finding::new("cni-settings", Severity::Problem, subject, error.to_string())
                    .why("every ADD fails, so no pod starts; STATUS takes the node down")
                    .remedy("correct that key of the entry pod-bandwidth"),
            ),
        }
    }
}

fn kind(plugin: &Value) -> Option<&str> {
    plugin.get("type")?.as_str()
}

fn capabilities(subject: &str, entry: &Value) -> Option<Finding> {
    let declared = |name: &str| {
        let value = entry.get("capabilities").and_then(|capabilities| capabilities.get(name));
        value.and_then(Value::as_bool) == Some(true)
    };
    let missing: Vec<_> =
        ["bandwidth", ANNOTATIONS].into_iter().filter(|name| !declared(name)).collect();
    if missing.is_empty() {
        return None;
    }
    let why = match missing.as_slice() {
        [ANNOTATIONS] => {
            "Calico's annotations do not reach the plugin, nor a burst as it is written"
        }
        [_] => "a runtime that hands over no annotations gives no limits",
        _ => "no annotation reaches the plugin: only limits of the entry itself hold",
    };
    let severity = if missing.len() == 2 { Severity::Problem } else { Severity::Warning };
    let words =
        missing.iter().map(|name| format!("\"{name}\": true")).collect::<Vec<_>>().join(", ");
    let seen = format!("the entry pod-bandwidth lacks the capabilities {words}");
    Some(
        Finding::new("cni-capabilities", severity, subject, seen)
            .why(why)
            .remedy(format!("\"capabilities\": {{{words}}} in the entry")),
    )
}

/// No entry in the list that counts; perhaps in one that does not.
fn no_entry(path: &Path, folders: Folders<'_>) -> Finding {
    let files = std::fs::read_dir(folders.net).into_iter().flatten().flatten();
    let mut others: Vec<_> = files
        .map(|file| file.path())
        .filter(|other| other != path && is_list_with_entry(other))
        .map(|other| other.display().to_string())
        .collect();
    others.sort();
    let subject = path.display().to_string();
    let (id, seen) = match others.first() {
        Some(other) => {
            ("cni-inactive", format!("has no entry pod-bandwidth; {other} has, but comes later"))
        }
        None => ("cni-no-entry", "has no entry pod-bandwidth".to_owned()),
    };
    Finding::new(id, Severity::Problem, subject, seen)
        .why("the runtime takes the first file by name, so pods get no limit from the plugin")
        .remedy("install it; with --watch it stays when another program writes the list again")
        .command(folders.install())
}

fn is_list_with_entry(path: &Path) -> bool {
    let list = std::fs::read_to_string(path).ok().and_then(|text| serde_json::from_str(&text).ok());
    let plugins = list.as_ref().and_then(|list: &Value| list.get("plugins")?.as_array());
    plugins.is_some_and(|plugins| plugins.iter().any(|plugin| kind(plugin) == Some(OURS)))
}

fn no_gc(path: &Path, version: Option<&str>) -> Option<Finding> {
    if matches!(version, Some(version) if !version.starts_with("0.") && version != "1.0.0") {
        return None;
    }
    let seen = format!("its cniVersion is {}", version.unwrap_or("not given"));
    Some(
        Finding::new("cni-no-gc", Severity::Note, path.display().to_string(), seen)
            .why("no runtime calls GC below 1.1.0, so an IFB whose DEL never came stays")
            .remedy(
                "let the node agent run, which removes them, or look at ifb-leak here now and then",
            ),
    )
}

fn program(folders: Folders<'_>, list_version: Option<&str>) -> Finding {
    let path = folders.bin.join(OURS);
    let subject = path.display().to_string();
    let problem = |seen: String| {
        Finding::new("cni-program", Severity::Problem, subject.clone(), seen)
            .why("the runtime calls this program, so no pod starts where the list names it")
            .remedy("copy it there; --bin-dir names another folder")
            .command(folders.install())
    };
    match program::versions(&path) {
        Err(error) => problem(error.to_string()),
        Ok(versions) => match list_version.filter(|v| !versions.iter().any(|own| own == v)) {
            Some(version) => problem(format!("does not speak CNI {version}, as the list wants")),
            None => Finding::ok("cni-program", subject, "is there and answers"),
        },
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
