//! The log: lines on standard error or in the file that the configuration names.
//!
//! Standard output belongs to the result. Text from pods is escaped, so that a line stays a line.
#![forbid(unsafe_code)]

mod file;

use std::fs::File;
use std::io::Write;
use std::time::SystemTime;

use crate::policy::{LogLevel, LogSettings};
use crate::text::{escape, shorten};

/// How a line names its writer, behind the time and the level.
const PROGRAM: &str = "pod-bandwidth";

/// Most characters that a warning repeats of a path.
const PATH: usize = 200;

/// Where lines go, and which.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    level: LogLevel,
    subject: String,
}

impl Log {
    /// A log as configured. If the file cannot be used, a warning on standard error says why, and the
    /// log goes there: it must not keep a pod from starting.
    pub fn open(settings: &LogSettings, subject: String) -> Self {
        let mut log = Self { file: None, level: settings.level, subject };
        if let Some(path) = &settings.file {
            match file::open(path) {
                Ok(file) => log.file = Some(file),
                Err(error) => {
                    let path = shorten(&path.to_string_lossy(), PATH);
                    log.warn(&format!("cannot use the log file {path}: {error}"));
                }
            }
        }
        log
    }

    /// An error: the call failed.
    pub fn error(&self, message: &str) {
        self.line(LogLevel::Error, message);
    }

    /// A warning: the call goes on, but somebody should look.
    pub fn warn(&self, message: &str) {
        self.line(LogLevel::Warn, message);
    }

    /// What was decided and done.
    pub fn info(&self, message: &str) {
        self.line(LogLevel::Info, message);
    }

    /// Steps.
    pub fn debug(&self, message: &str) {
        self.line(LogLevel::Debug, message);
    }

    fn line(&self, level: LogLevel, message: &str) {
        if level > self.level {
            return;
        }
        let line = render(SystemTime::now(), level, &self.subject, message);
        // One write for one line, so that lines of parallel calls do not mix. Nothing can be done
        // about a log that cannot be written.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn render(now: SystemTime, level: LogLevel, subject: &str, message: &str) -> String {
    let now = humantime::format_rfc3339_millis(now);
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    format!("{now} {level} {PROGRAM} {}: {}\n", escape(subject), escape(message))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_line_stays_a_line() {
        let now = UNIX_EPOCH + Duration::from_millis(1_795_472_706_042);
        assert_eq!(
            render(now, LogLevel::Warn, "default/bw1 eth0", "a\nb\u{202e}c"),
            "2026-11-23T22:25:06.042Z warn pod-bandwidth default/bw1 eth0: a\\u{a}b\\u{202e}c\n"
        );
    }

    #[test]
    fn levels_below_are_left_out() {
        let path = std::env::temp_dir().join(format!("pod-bandwidth-{}.log", std::process::id()));
        let settings = LogSettings { file: Some(path.clone()), level: LogLevel::Warn };
        let log = Log::open(&settings, "x".into());
        log.info("not this");
        log.error("but this");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.ends_with("error pod-bandwidth x: but this\n") && !text.contains("not this"));
    }
}
