//! The plugin's program: whether it is there and answers.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Time for an answer to VERSION, which takes a millisecond.
const PATIENCE: Duration = Duration::from_millis(800);

/// How often it is looked whether the program ended.
const LOOK: Duration = Duration::from_millis(2);

/// A program that does not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("it cannot be started: {0}")]
    Start(#[from] std::io::Error),
    #[error("it did not answer VERSION within {} ms", PATIENCE.as_millis())]
    Silent,
    #[error("it answered VERSION with {0:?}, which is not what a CNI plugin says")]
    NoAnswer(String),
}

/// The CNI versions that it says it speaks.
pub(super) fn versions(program: &Path) -> Result<Vec<String>, ProgramError> {
    let mut child = Command::new(program)
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input may answer all the same.
        let _ = stdin.write_all(br#"{"cniVersion": "1.0.0"}"#);
    }
    // One thread: what follows in this process needs that. An answer fits a pipe, so it can be read
    // when the program has ended.
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(ProgramError::Silent);
        }
        std::thread::sleep(LOOK);
    }
    let answer = String::from_utf8_lossy(&child.wait_with_output()?.stdout).into_owned();
    let versions = serde_json::from_str::<Value>(&answer).ok().and_then(|answer| {
        let versions = answer.get("supportedVersions")?.as_array()?;
        Some(versions.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect())
    });
    versions.ok_or_else(|| ProgramError::NoAnswer(answer.chars().take(60).collect()))
}
