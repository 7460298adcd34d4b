//! What the numbers depend on: processor, kernel, programs.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::options::Options;

/// The facts, read now: the load is that after a part.
pub(crate) fn facts(options: &Options) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let cpuinfo = read("/proc/cpuinfo");
    json!({
        "processor": field(&cpuinfo, "model name"),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "virtual": cpuinfo.contains("hypervisor"),
        "memory_mib": field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
            .map(|kib| kib / 1024),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "load": read("/proc/loadavg").split(' ').next(),
        "default_congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "ours": program(&options.plugin),
        "reference": program(&options.reference()),
        "reference_version": reference_version(&options.reference()),
        "date": said("date", &["-u", "+%Y-%m-%d"]),
    })
}

fn program(path: &Path) -> Value {
    let sum = said("sha256sum", &[path.to_str().expect("a path in UTF-8")]);
    let sum = sum.split(' ').next().unwrap_or_default().to_owned();
    json!({"bytes": path.metadata().map_or(0, |file| file.len()), "sha256": sum})
}

/// What `scripts/peers` noted when it built it: the program itself does not say.
fn reference_version(path: &Path) -> Option<String> {
    let stamp = path.parent()?.join(".versions/bandwidth");
    let text = std::fs::read_to_string(stamp).ok()?;
    Some(text.trim().rsplit_once('@')?.1.to_owned())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}
