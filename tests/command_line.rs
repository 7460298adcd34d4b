//! What a person types: VERSION by hand, and arguments where `CNI_COMMAND` happens to be set.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::fs::{File, OpenOptions};
use std::process::{Command, Output, Stdio};

use common::{PLUGIN, TempDir};
use serde_json::{Value, json};

/// The program, which is killed after 10 s: `timeout` then exits with 124.
fn program(path: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["10", path]).env_remove("CNI_COMMAND").stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard output as JSON; the call succeeded.
fn answer(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn version() -> Command {
    let mut command = program(PLUGIN);
    command.env("CNI_COMMAND", "VERSION").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn assert_answers(output: &Output) {
    let versions = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    let want = json!({"cniVersion": "1.1.0", "supportedVersions": versions});
    assert_eq!(answer(output), want);
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn version_answers_at_a_terminal() {
    // The kernel's end of a terminal is one itself (isatty), and nobody types at its other end.
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/ptmx").unwrap();
    assert_answers(&version().stdin(terminal).output().unwrap());
}

#[test]
fn version_answers_though_nobody_writes_to_its_standard_input() {
    let mut child = version().stdin(Stdio::piped()).spawn().unwrap();
    let _held_open = child.stdin.take();
    assert_answers(&child.wait_with_output().unwrap());
}

#[test]
fn version_answers_without_a_standard_input_and_whatever_is_in_it() {
    let closed = ["-c", "exec \"$0\" <&-", PLUGIN];
    let output = program("sh").args(closed).env("CNI_COMMAND", "VERSION").output().unwrap();
    assert_answers(&output);
    for path in ["/dev/null", "/dev/zero", PLUGIN, "/etc/passwd", "/"] {
        assert_answers(&version().stdin(File::open(path).unwrap()).output().unwrap());
    }
}

#[test]
fn an_argument_beats_the_environment() {
    for verb in ["ADD", "DEL", "VERSION", "", "nonsense"] {
        let said = |words: &[&str]| {
            let output = program(PLUGIN).args(words).env("CNI_COMMAND", verb).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{verb} {words:?}: {output:?}");
            text(&output)
        };
        assert!(said(&["--version"]).starts_with("pod-bandwidth "), "{verb}");
        assert!(said(&["--help"]).contains("demo"), "{verb}");
        assert!(said(&["help", "demo"]).contains("--seconds"), "{verb}");
    }
    // and without one it is a runtime's call
    let call = program(PLUGIN).env("CNI_COMMAND", "nonsense").output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&call.stdout).unwrap()["code"], 4, "{call:?}");
}

#[test]
fn help_of_a_command_of_the_node_program_is_asked_there() {
    // given a program beside this one that prints what it is called with
    let folder = TempDir::new();
    let own = folder.file("pod-bandwidth");
    std::fs::hard_link(PLUGIN, &own).unwrap();
    let script = "printf '#!/bin/sh\\necho \"$@\"\\n' > \"$0\" && chmod +x \"$0\"";
    let made = Command::new("sh").args(["-c", script, &folder.file("pod-bandwidth-node")]).status();
    assert!(made.unwrap().success());
    for command in ["install", "uninstall", "agent", "show", "top", "set", "doctor"] {
        // when its help is asked for
        let output = program(&own).args(["help", command]).output().unwrap();
        // then that program gives it
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(text(&output), format!("{command} --help\n"));
    }
    // and a command that nobody has is refused
    let output = program(&own).args(["help", "nonsense"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
